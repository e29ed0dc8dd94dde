/*
 * Optimizers inside the trainer: rows at rest, decay, clipping, schedules, on all threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tests/unit/train/lab.h"
#include "train/phase.h"

enum { USERS = 60, ITEMS = 50, EVENTS = 900, THREADS = 3 };

static struct trainer *open_trainer(struct lab *lab, unsigned threads)
{
    struct err e = ERR_INIT;
    struct trainer *t = trainer_new(lab->config, lab->d, &lab->d->train, lab->m, threads, &e);
    if (t == NULL) {
        fail_msg("%s", e.message);
    }
    return t;
}

static void train(struct lab *lab, unsigned threads, uint32_t epochs)
{
    struct err e = ERR_INIT;
    struct epoch_result result;
    struct trainer *t = open_trainer(lab, threads);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        if (trainer_epoch(t, epoch, "test", &result, &e) < 0) {
            fail_msg("%s", e.message);
        }
    }
    trainer_free(t);
}

/* A dense oracle: gradients of every batch for every row of every table, an update of every weight in double precision. */
static void train_dense(struct lab *lab, uint32_t epochs, double lr, double decay)
{
    struct trainer *t = open_trainer(lab, 1);
    size_t batches = (lab->d->train.n + t->batch_size - 1) / t->batch_size;
    double step = 0;
    double **mean = calloc(lab->m->n_parameters, sizeof *mean);
    double **square = calloc(lab->m->n_parameters, sizeof *square);
    for (size_t p = 0; p < lab->m->n_parameters; p++) {
        mean[p] = calloc(lab_parameter_size(&lab->m->parameters[p]), sizeof **mean);
        square[p] = calloc(lab_parameter_size(&lab->m->parameters[p]), sizeof **square);
    }
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        for (size_t batch = 0; batch < batches; batch++) {
            struct err e = ERR_INIT;
            double loss;
            float **g = lab_gradients_new(lab->m);
            assert_int_equal(trainer_batch_gradients(t, epoch, batch, &loss, g, &e), 0);
            step++;
            for (size_t p = 0; p < lab->m->n_parameters; p++) {
                struct parameter *w = &lab->m->parameters[p];
                for (size_t i = 0; i < lab_parameter_size(w); i++) {
                    double x = (double)w->value[i] * (w->columns > 0 ? 1 - lr * decay : 1);
                    mean[p][i] = 0.9 * mean[p][i] + 0.1 * (double)g[p][i];
                    square[p][i] = 0.999 * square[p][i] + 0.001 * (double)g[p][i] * (double)g[p][i];
                    w->value[i] = (float)(x - lr * mean[p][i] / (1 - pow(0.9, step)) /
                                                  (sqrt(square[p][i] / (1 - pow(0.999, step))) + 1e-8));
                }
            }
            lab_gradients_free(lab->m, g);
        }
    }
    for (size_t p = 0; p < lab->m->n_parameters; p++) {
        free(mean[p]);
        free(square[p]);
    }
    free(mean);
    free(square);
    trainer_free(t);
}

static double largest_difference(const struct model *a, const struct model *b)
{
    double most = 0;
    for (size_t p = 0; p < a->n_parameters; p++) {
        for (size_t i = 0; i < lab_parameter_size(&a->parameters[p]); i++) {
            double d = fabs((double)a->parameters[p].value[i] - (double)b->parameters[p].value[i]);
            most = d > most || isnan(d) ? d : most;
        }
    }
    return most;
}

static void adam_like_dense(const char *yaml)
{
    struct lab sparse, dense;
    const char *sets[] = {"optimizer.type=adam", "optimizer.lr=0.002", "optimizer.weight_decay=0.05",
                          "optimizer.batch_size=60", NULL};
    lab_synth(&sparse, yaml, sets, USERS, ITEMS, EVENTS);
    lab_open(&dense, yaml, sets);
    train(&sparse, THREADS, 2);
    train_dense(&dense, 2, 0.002, 0.05);
    double difference = largest_difference(sparse.m, dense.m);
    if (!(difference < 1e-3)) { /* a step is up to .002, and there are 28; tiny gradients give steps of any sign */
        fail_msg("largest difference %g %.200s", difference, yaml);
    }
    lab_close(&sparse);
    lab_close(&dense);
}

static void test_adam_is_dense(void **state)
{
    (void)state;
    adam_like_dense(lab_ids);
    adam_like_dense(lab_wide);
    adam_like_dense(lab_full);
}

/* What a row that no batch touches does in an epoch, by the optimizer. The unknown user is never met in lab_ids. */
static void test_decay_of_untouched(void **state)
{
    (void)state;
    const char *types[] = {"adagrad", "lazy_adam", "adam", "sgd"};
    for (size_t i = 0; i < 4; i++) {
        struct lab lab;
        char type[40];
        snprintf(type, sizeof type, "optimizer.type=%s", types[i]);
        const char *sets[] = {type, "optimizer.lr=0.01", "optimizer.weight_decay=0.5", "optimizer.batch_size=100",
                              NULL};
        lab_synth(&lab, lab_ids, sets, USERS, ITEMS, EVENTS);
        lab.config->user_tower.features[0].unknown_rate = 0;
        const struct parameter *p = &lab.m->parameters[lab.m->table[SIDE_USER][0]];
        float before = p->value[SCHEMA_UNKNOWN];
        size_t batches = (lab.d->train.n + 99) / 100;
        train(&lab, THREADS, 1);
        double keep = i < 2 ? 1 : pow(1 - 0.01 * 0.5, (double)batches);
        assert_true(fabs((double)p->value[SCHEMA_UNKNOWN] - keep * (double)before) < 1e-6);
        lab_close(&lab);
    }
}

/* Plain gradient descent with rate 1: the change of the weights is the gradient, or what clipping leaves of it. */
static void test_clipping(void **state)
{
    (void)state;
    const char *sets[] = {
        "optimizer.type=sgd", "optimizer.momentum=0", "optimizer.lr=1", "optimizer.batch_size=4000", NULL, NULL};
    struct lab lab;
    struct err e = ERR_INIT;
    double loss, length = 0;
    lab_synth(&lab, lab_full, sets, USERS, ITEMS, EVENTS);
    float **g = lab_gradients_new(lab.m);
    struct trainer *t = open_trainer(&lab, 1);
    assert_int_equal(trainer_batch_gradients(t, 1, 0, &loss, g, &e), 0);
    trainer_free(t);
    for (size_t p = 0; p < lab.m->n_parameters; p++) {
        for (size_t i = 0; i < lab_parameter_size(&lab.m->parameters[p]); i++) {
            length += (double)g[p][i] * (double)g[p][i];
        }
    }
    length = sqrt(length);
    const double shares[] = {0.25, 0.9, 2};
    for (size_t s = 0; s < 3; s++) {
        struct lab clipped;
        char clip[40];
        snprintf(clip, sizeof clip, "optimizer.clip_norm=%.9g", shares[s] * length);
        sets[4] = clip;
        lab_open(&clipped, lab_full, sets);
        train(&clipped, THREADS, 1);
        double scale = shares[s] < 1 ? shares[s] : 1;
        for (size_t p = 0; p < lab.m->n_parameters; p++) {
            for (size_t i = 0; i < lab_parameter_size(&lab.m->parameters[p]); i++) {
                double moved = (double)lab.m->parameters[p].value[i] - (double)clipped.m->parameters[p].value[i];
                assert_true(fabs(moved - scale * (double)g[p][i]) < 1e-5);
            }
        }
        lab_close(&clipped);
    }
    lab_gradients_free(lab.m, g);
    lab_close(&lab);
}

/* Every optimizer, with all that it may have: the same bits twice, a loss that falls. */
static void test_repeatable_and_learning(void **state)
{
    (void)state;
    const char *types[] = {"adagrad", "lazy_adam", "adam", "sgd"};
    const char *rates[] = {"optimizer.lr=0.1", "optimizer.lr=0.01", "optimizer.lr=0.01", "optimizer.lr=0.3"};
    for (size_t i = 0; i < 4; i++) {
        struct lab lab[2];
        struct err e = ERR_INIT;
        struct epoch_result first, last;
        char type[40];
        snprintf(type, sizeof type, "optimizer.type=%s", types[i]);
        const char *sets[] = {type,
                              rates[i],
                              "optimizer.weight_decay=0.001",
                              "optimizer.clip_norm=1",
                              "optimizer.schedule={type: cosine, warmup: 0.1}",
                              "optimizer.epochs=8",
                              NULL};
        lab_synth(&lab[0], lab_full, sets, USERS, ITEMS, EVENTS);
        lab_open(&lab[1], lab_full, sets);
        for (int k = 0; k < 2; k++) {
            struct trainer *t = open_trainer(&lab[k], THREADS);
            for (uint32_t epoch = 1; epoch <= 8; epoch++) {
                assert_int_equal(trainer_epoch(t, epoch, "test", epoch == 1 ? &first : &last, &e), 0);
            }
            trainer_free(t);
        }
        if (!(last.loss < first.loss - 0.1)) {
            fail_msg("%s: %g after %g", types[i], last.loss, first.loss);
        }
        if (!(largest_difference(lab[0].m, lab[1].m) == 0)) {
            fail_msg("%s: %g", types[i], largest_difference(lab[0].m, lab[1].m));
        }
        lab_close(&lab[0]);
        lab_close(&lab[1]);
    }
}

/* The trainer asks the schedule for every step: with a rate that falls to nothing after the first epoch, nothing moves in the
 * second. */
static void test_schedule_is_followed(void **state)
{
    (void)state;
    struct lab one, two;
    const char *sets[] = {"optimizer.schedule={type: step, every: 1, factor: 0.000001}", "optimizer.epochs=2", NULL};
    lab_synth(&one, lab_wide, sets, USERS, ITEMS, EVENTS);
    lab_open(&two, lab_wide, sets);
    train(&one, THREADS, 1);
    train(&two, THREADS, 2);
    assert_true(largest_difference(one.m, two.m) < 1e-5);
    lab_close(&one);
    lab_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam_is_dense),
        cmocka_unit_test(test_decay_of_untouched),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_repeatable_and_learning),
        cmocka_unit_test(test_schedule_is_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
