/*
 * How many epochs, and which weights: plain training, early stopping with and without refit, and the record of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/mem.h"
#include "tests/unit/train/lab.h"
#include "train/fit.h"

enum { USERS = 60, ITEMS = 50, EVENTS = 900, THREADS = 2 };

static struct model *fit(const struct lab *lab, json_t **record)
{
    struct err e = ERR_INIT;
    struct model *m = fit_model(&(struct fit_job){lab->config, lab->d, THREADS, NULL, NULL}, record, &e);
    if (m == NULL) {
        fail_msg("%s", e.message);
    }
    return m;
}

static void expect_same_weights(const struct model *a, const struct model *b)
{
    for (size_t i = 0; i < a->n_parameters; i++) {
        assert_memory_equal(a->parameters[i].value, b->parameters[i].value,
                            lab_parameter_size(&a->parameters[i]) * sizeof(float));
    }
}

/* lab->m trained for some epochs on a part. */
static void train_by_hand(struct lab *lab, const struct interactions *part, uint32_t epochs)
{
    struct err e = ERR_INIT;
    struct epoch_result result;
    model_initialize(lab->m, lab->config->optimizer.init_scale, lab->config->seed);
    struct trainer *t = trainer_new(lab->config, lab->d, part, lab->m, THREADS, &e);
    assert_non_null(t);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        assert_int_equal(trainer_epoch(t, epoch, "test", &result, &e), 0);
    }
    trainer_free(t);
}

static json_int_t whole(const json_t *record, const char *name)
{
    const json_t *value = json_object_get(record, name);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void test_plain(void **state)
{
    (void)state;
    struct lab lab;
    json_t *record = NULL;
    lab_synth(&lab, lab_full, (const char *[]){"optimizer.epochs=4", NULL}, USERS, ITEMS, EVENTS);
    struct model *m = fit(&lab, &record);
    train_by_hand(&lab, &lab.d->train, 4);
    expect_same_weights(m, lab.m);
    assert_int_equal(whole(record, "epochs"), 4);
    const json_t *losses = json_object_get(record, "loss");
    assert_int_equal(json_array_size(losses), 4);
    assert_true(json_number_value(json_array_get(losses, 3)) < json_number_value(json_array_get(losses, 0)));
    assert_true(json_number_value(json_object_get(record, "examples_per_second")) > 0);
    assert_null(json_object_get(record, "best_epoch"));
    json_decref(record);
    model_free(m);
    lab_close(&lab);
}

/* The first epoch with the largest metric, and `patience` more, or all. */
static json_int_t check_record(const struct lab *lab, const json_t *record)
{
    const json_t *values = json_object_get(record, "validation");
    size_t n = json_array_size(values);
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (json_number_value(json_array_get(values, i)) > json_number_value(json_array_get(values, best))) {
            best = i;
        }
    }
    size_t patience = lab->config->optimizer.early_stop.patience;
    size_t most = lab->config->optimizer.epochs;
    assert_int_equal(whole(record, "best_epoch"), best + 1);
    assert_int_equal(n, best + 1 + patience < most ? best + 1 + patience : most);
    assert_string_equal(json_string_value(json_object_get(record, "validation_metric")),
                        lab->config->optimizer.early_stop.metric);
    return (json_int_t)best + 1;
}

static void test_refit(void **state)
{
    (void)state;
    struct lab lab;
    json_t *record = NULL;
    /* the schedule of 25 epochs, cut at the best: train_by_hand has the same configuration */
    const char *sets[] = {"optimizer.epochs=25", "optimizer.early_stop={metric: recall@10, patience: 2}",
                          "optimizer.lr=0.3", "optimizer.schedule={type: cosine, warmup: 0.05}", NULL};
    lab_synth(&lab, lab_wide, sets, USERS, ITEMS, EVENTS);
    struct model *m = fit(&lab, &record);
    json_int_t best = check_record(&lab, record);
    assert_int_equal(whole(record, "epochs"), best);
    assert_int_equal(json_array_size(json_object_get(record, "loss")), best);
    assert_true(best < 25); /* it has stopped early, or this tests nothing */
    train_by_hand(&lab, &lab.d->train, (uint32_t)best);
    expect_same_weights(m, lab.m);
    json_decref(record);
    model_free(m);
    lab_close(&lab);
}

static void test_keep_best(void **state)
{
    (void)state;
    struct lab lab;
    json_t *record = NULL;
    struct interactions rest = {0}, held = {0};
    struct err e = ERR_INIT;
    const char *sets[] = {"optimizer.epochs=25",
                          "optimizer.early_stop={metric: ndcg@20, patience: 2, refit: false, validation: 0.2}",
                          "optimizer.lr=0.3", NULL};
    lab_synth(&lab, lab_full, sets, USERS, ITEMS, EVENTS);
    struct model *m = fit(&lab, &record);
    json_int_t best = check_record(&lab, record);
    assert_int_equal(whole(record, "epochs"), json_array_size(json_object_get(record, "validation")));
    assert_int_equal(dataset_cut(lab.d, 0.2, lab.config->seed, &rest, &held, &e), 0);
    assert_true(rest.n > 0 && held.n > 0 && rest.n + held.n <= lab.d->train.n);
    train_by_hand(&lab, &rest, (uint32_t)best);
    expect_same_weights(m, lab.m);
    interactions_release(&rest);
    interactions_release(&held);
    json_decref(record);
    model_free(m);
    lab_close(&lab);
}

/* Every metric that the configuration takes can be watched, not only those of the report. */
static void test_any_metric(void **state)
{
    (void)state;
    const char *metrics[] = {"mrr", "recall@3", "ndcg@30", "hit_rate@1", "recall@1000"};
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        struct lab lab;
        json_t *record = NULL;
        char set[96];
        snprintf(set, sizeof set, "optimizer.early_stop={metric: \"%s\", patience: 1}", metrics[i]);
        lab_synth(&lab, lab_ids, (const char *[]){set, "optimizer.epochs=3", NULL}, USERS, ITEMS, EVENTS);
        struct model *m = fit(&lab, &record);
        check_record(&lab, record);
        json_decref(record);
        model_free(m);
        lab_close(&lab);
    }
}

static void test_nothing_to_hold_out(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    json_t *record = NULL;
    files_write("clicks.csv", "user_id,item_id,ts\nu,a,1\nv,a,1\n");
    const char *sets[] = {"data.split=null", "optimizer.early_stop={}", NULL};
    lab_open(&lab, lab_ids, sets);
    assert_null(fit_model(&(struct fit_job){lab.config, lab.d, THREADS, NULL, NULL}, &record, &e));
    assert_non_null(strstr(e.message, "optimizer.early_stop.validation"));
    assert_null(record);
    lab_close(&lab);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct lab lab;
    const char *sets[] = {"optimizer.epochs=2", "optimizer.early_stop={refit: false}", NULL};
    lab_synth(&lab, lab_ids, sets, 20, 20, 200);
    for (long n = 1;; n++) {
        struct err e = ERR_INIT;
        json_t *record = NULL;
        mem_fail_at(n);
        struct model *m = fit_model(&(struct fit_job){lab.config, lab.d, THREADS, NULL, NULL}, &record, &e);
        mem_fail_at(0);
        if (m != NULL) {
            assert_true(n > 50);
            json_decref(record);
            model_free(m);
            break;
        }
        assert_true(err_isset(&e));
    }
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_refit),
        cmocka_unit_test(test_keep_best),
        cmocka_unit_test(test_any_metric),
        cmocka_unit_test(test_nothing_to_hold_out),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
