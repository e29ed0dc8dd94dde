/*
 * Optimizers against numbers worked out by hand, and against the papers' formulas in double precision over many steps; rows at
 * rest against visiting them at every step; schedules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "train/optimizer.h"
#include "train/optimizer_idle.h"
#include "train/schedule.h"

enum { N = 37, STEPS = 200, TYPES = OPTIMIZER_SGD + 1 };

static void expect_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.9g is not %.9g (+- %.3g)", a, b, tolerance);
    }
}

static struct optimizer make(enum optimizer_type type, double weight_decay)
{
    struct train_config config = {0};
    config.optimizer.type = type;
    config.optimizer.momentum = 0.9;
    config.optimizer.weight_decay = weight_decay;
    return optimizer_make(&config);
}

static void step_one(struct optimizer *o, double lr, float *value, float *a, float *b, float gradient)
{
    optimizer_begin_step(o, lr);
    optimizer_update(o, (struct weights){value, {a, b}, 1, true}, &gradient, 1);
}

static void test_states(void **state)
{
    (void)state;
    assert_int_equal(optimizer_states(OPTIMIZER_ADAGRAD), 1);
    assert_int_equal(optimizer_states(OPTIMIZER_ADAM), 2);
    assert_int_equal(optimizer_states(OPTIMIZER_LAZY_ADAM), 2);
    assert_int_equal(optimizer_states(OPTIMIZER_SGD), 1);
}

static void test_adagrad_by_hand(void **state)
{
    (void)state;
    struct optimizer o = make(OPTIMIZER_ADAGRAD, 0);
    float w = 1, s = 0;
    step_one(&o, 0.1, &w, &s, NULL, 3);
    expect_near((double)s, 9, 1e-6); /* the first step is lr, whatever the gradient's size */
    expect_near((double)w, 0.9, 1e-6);
    step_one(&o, 0.1, &w, &s, NULL, -4);
    expect_near((double)s, 25, 1e-6);
    expect_near((double)w, 0.9 + 0.1 * 4 / 5, 1e-6);
    step_one(&o, 0.1, &w, &s, NULL, 0);
    expect_near((double)w, 0.98, 1e-6);
    w = 2, s = 0; /* never a gradient: 0 / 0 must not happen */
    step_one(&o, 0.1, &w, &s, NULL, 0);
    assert_true(w == 2);
}

static void test_adam_by_hand(void **state)
{
    (void)state;
    struct optimizer o = make(OPTIMIZER_ADAM, 0);
    float w = 1, m = 0, v = 0;
    step_one(&o, 0.01, &w, &m, &v, 2);
    expect_near((double)m, 0.2, 1e-6);
    expect_near((double)v, 0.004, 1e-7);
    expect_near((double)w, 0.99, 1e-6); /* corrected: m / 0.1 = 2, v / 0.001 = 4, step lr * 2 / 2 */
    step_one(&o, 0.01, &w, &m, &v, -1);
    expect_near((double)m, 0.08, 1e-6);
    expect_near((double)v, 0.004996, 1e-7);
    expect_near((double)w, 0.99 - 0.01 * (0.08 / 0.19) / sqrt(0.004996 / 0.001999), 1e-6);
    w = 2, m = 0, v = 0;
    step_one(&o, 0.01, &w, &m, &v, 0);
    assert_true(w == 2);
}

static void test_sgd_by_hand(void **state)
{
    (void)state;
    struct optimizer o = make(OPTIMIZER_SGD, 0);
    float w = 1, b = 0;
    step_one(&o, 0.1, &w, &b, NULL, 2);
    expect_near((double)w, 0.8, 1e-6);
    step_one(&o, 0.1, &w, &b, NULL, 1);
    expect_near((double)b, 0.9 * 2 + 1, 1e-6);
    expect_near((double)w, 0.8 - 0.28, 1e-6);
    step_one(&o, 0.1, &w, &b, NULL, 0);
    expect_near((double)w, 0.52 - 0.252, 1e-6);
}

static void test_decay_by_hand(void **state)
{
    (void)state;
    for (int type = 0; type < TYPES; type++) {
        struct optimizer o = make((enum optimizer_type)type, 0.5);
        float w = 2, a = 0, b = 0, g = 0;
        step_one(&o, 0.1, &w, &a, &b, g);
        expect_near((double)w, 1.9, 1e-6); /* 0.1 * 0.5 of it is gone, and not through the denominators */
        optimizer_update(&o, (struct weights){&w, {&a, &b}, 1, false}, &g, 1);
        expect_near((double)w, 1.9, 1e-6);
    }
}

static void test_scale(void **state)
{
    (void)state;
    for (int type = 0; type < TYPES; type++) {
        struct optimizer o = make((enum optimizer_type)type, 0);
        float w[2] = {1, 1}, a[2] = {0}, b[2] = {0}, g = 4, quarter = 1;
        optimizer_begin_step(&o, 0.1);
        optimizer_update(&o, (struct weights){&w[0], {&a[0], &b[0]}, 1, true}, &g, 0.25f);
        optimizer_update(&o, (struct weights){&w[1], {&a[1], &b[1]}, 1, true}, &quarter, 1);
        assert_true(w[0] == w[1] && a[0] == a[1] && b[0] == b[1]);
    }
}

struct oracle {
    double w, a, b;
};

/* The formulas of torch.optim.Adagrad, AdamW and SGD, with decoupled decay for all of them. */
static void oracle_step(struct oracle *x, enum optimizer_type type, double lr, double decay, int step, double g)
{
    x->w -= lr * decay * x->w;
    switch (type) {
    case OPTIMIZER_ADAGRAD:
        x->a += g * g;
        x->w -= lr * g / (sqrt(x->a) + 1e-10);
        break;
    case OPTIMIZER_SGD:
        x->a = 0.9 * x->a + g;
        x->w -= lr * x->a;
        break;
    default:
        x->a = 0.9 * x->a + 0.1 * g;
        x->b = 0.999 * x->b + 0.001 * g * g;
        x->w -= lr * (x->a / (1 - pow(0.9, step))) / (sqrt(x->b / (1 - pow(0.999, step))) + 1e-8);
    }
}

/* Gradients of very different sizes, a rate that changes. */
static void test_many_steps(void **state)
{
    (void)state;
    for (int type = 0; type < TYPES; type++) {
        struct optimizer o = make((enum optimizer_type)type, 0.01);
        struct oracle oracle[N] = {{0}};
        float w[N], a[N] = {0}, b[N] = {0}, g[N];
        struct rng r;
        rng_seed(&r, 3, (uint64_t)type);
        for (int i = 0; i < N; i++) {
            w[i] = rng_normal(&r);
            oracle[i].w = (double)w[i];
        }
        for (int step = 1; step <= STEPS; step++) {
            double lr = (type == OPTIMIZER_ADAGRAD ? 0.1 : 0.001) * (1 + 0.5 * sin(step));
            optimizer_begin_step(&o, lr);
            for (int i = 0; i < N; i++) {
                g[i] = rng_normal(&r) * powf(10, (float)(i % 9) - 5);
                oracle_step(&oracle[i], o.type, lr, 0.01, step, (double)g[i]);
            }
            optimizer_update(&o, (struct weights){w, {a, b}, N, true}, g, 1);
        }
        for (int i = 0; i < N; i++) {
            expect_near((double)w[i], oracle[i].w, 2e-5 * fmax(1, fabs(oracle[i].w)));
            expect_near((double)a[i], oracle[i].a, 1e-4 * fabs(oracle[i].a) + 1e-6 * powf(10, (float)(i % 9) - 5));
        }
    }
}

/* Slices give the same as the whole: the trainer deals them to threads. */
static void test_slices(void **state)
{
    (void)state;
    for (int type = 0; type < TYPES; type++) {
        struct optimizer o = make((enum optimizer_type)type, 0.1);
        float w[2][N], a[2][N], b[2][N], g[N];
        struct rng r;
        rng_seed(&r, 4, (uint64_t)type);
        for (int i = 0; i < N; i++) {
            w[0][i] = w[1][i] = rng_normal(&r);
            a[0][i] = a[1][i] = rng_uniform(&r);
            b[0][i] = b[1][i] = rng_uniform(&r);
            g[i] = rng_normal(&r);
        }
        optimizer_begin_step(&o, 0.05);
        optimizer_update(&o, (struct weights){w[0], {a[0], b[0]}, N, true}, g, 1);
        for (size_t i = 0; i < N; i += 5) {
            size_t n = N - i < 5 ? N - i : 5;
            optimizer_update(&o, (struct weights){w[1] + i, {a[1] + i, b[1] + i}, n, true}, g + i, 1);
        }
        for (int i = 0; i < N; i++) {
            expect_near((double)w[0][i], (double)w[1][i], 1e-6);
        }
    }
}

/* The bottom of a bowl that is 100 times steeper in one direction than in the other. */
static void test_bowl(void **state)
{
    (void)state;
    const double lr[TYPES] = {
        [OPTIMIZER_ADAGRAD] = 1, [OPTIMIZER_ADAM] = 0.1, [OPTIMIZER_LAZY_ADAM] = 0.1, [OPTIMIZER_SGD] = 0.01};
    for (int type = 0; type < TYPES; type++) {
        struct optimizer o = make((enum optimizer_type)type, 0);
        float w[2] = {-4, 5}, a[2] = {0}, b[2] = {0};
        for (int step = 0; step < 2000; step++) {
            float g[2] = {w[0] - 3, 100 * (w[1] + 2)};
            optimizer_begin_step(&o, lr[type] * (step < 1000 ? 1 : 0.1));
            optimizer_update(&o, (struct weights){w, {a, b}, 2, true}, g, 1);
        }
        expect_near((double)w[0], 3, 1e-3);
        expect_near((double)w[1], -2, 1e-3);
    }
}

/* --- rows at rest ---------------------------------------------------------------------------------------------------- */

static void test_who_moves_idle(void **state)
{
    (void)state;
    struct optimizer o = make(OPTIMIZER_ADAM, 0);
    assert_true(optimizer_moves_idle(&o));
    o = make(OPTIMIZER_SGD, 0);
    assert_true(optimizer_moves_idle(&o));
    o.momentum = 0;
    assert_false(optimizer_moves_idle(&o));
    o.weight_decay = 0.1;
    assert_true(optimizer_moves_idle(&o));
    o = make(OPTIMIZER_ADAGRAD, 0.1);
    assert_false(optimizer_moves_idle(&o));
    o = make(OPTIMIZER_LAZY_ADAM, 0.1);
    assert_false(optimizer_moves_idle(&o));
}

/* Weights with gradients now and then (weight i in one of 2^i steps), over epochs, against an oracle that visits every weight
 * at every step. */
static void rest(enum optimizer_type type, double decay)
{
    enum { WEIGHTS = 10, BATCHES = 700, EPOCHS = 3 };
    struct err e = ERR_INIT;
    struct optimizer o = make(type, decay);
    struct idle idle;
    assert_int_equal(idle_init(&idle, &o, BATCHES, &e), 0);
    struct oracle oracle[WEIGHTS];
    float w[WEIGHTS], a[WEIGHTS] = {0}, b[WEIGHTS] = {0};
    struct rng r;
    rng_seed(&r, 9, (uint64_t)type);
    for (int i = 0; i < WEIGHTS; i++) {
        w[i] = rng_normal(&r);
        oracle[i] = (struct oracle){(double)w[i], 0, 0};
    }
    int step = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        size_t current[WEIGHTS] = {0};
        idle_begin_epoch(&idle);
        for (int batch = 0; batch < BATCHES; batch++) {
            double lr = 0.01 * (1 + 0.5 * sin(step * 0.1));
            step++;
            for (int i = 0; i < WEIGHTS; i++) {
                struct weights one = {&w[i], {&a[i], &b[i]}, 1, true};
                float g = rng_below(&r, 1u << i) == 0 ? 0.01f * rng_normal(&r) : 0;
                if (g != 0) {
                    idle_catch_up(&idle, one, current[i]);
                    expect_near((double)w[i], oracle[i].w, 1e-5);
                }
                oracle_step(&oracle[i], type, lr, decay, step, (double)g);
                if (g != 0) {
                    struct optimizer now = o;
                    optimizer_begin_step(&now, lr);
                    optimizer_update(&now, one, &g, 1);
                    current[i] = idle.n + 1;
                }
            }
            optimizer_begin_step(&o, lr);
            idle_add_step(&idle);
        }
        for (int i = 0; i < WEIGHTS; i++) {
            idle_catch_up(&idle, (struct weights){&w[i], {&a[i], &b[i]}, 1, true}, current[i]);
            expect_near((double)w[i], oracle[i].w, 2e-5);
            expect_near((double)a[i], oracle[i].a, 1e-6);
            expect_near((double)b[i], oracle[i].b, 1e-7);
        }
    }
    idle_release(&idle);
}

static void test_rest(void **state)
{
    (void)state;
    rest(OPTIMIZER_ADAM, 0);
    rest(OPTIMIZER_ADAM, 0.1);
    rest(OPTIMIZER_SGD, 0);
    rest(OPTIMIZER_SGD, 0.1);
}

static void test_rest_without_momentum(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct optimizer o = make(OPTIMIZER_SGD, 0.5);
    struct idle idle;
    float w = 2, b = 3;
    o.momentum = 0;
    assert_int_equal(idle_init(&idle, &o, 5, &e), 0);
    idle_begin_epoch(&idle);
    for (int i = 0; i < 5; i++) {
        optimizer_begin_step(&o, 0.1);
        idle_add_step(&idle);
    }
    idle_catch_up(&idle, (struct weights){&w, {&b, NULL}, 1, true}, 0);
    expect_near((double)w, 2 * pow(0.95, 5), 1e-6); /* decay alone: no momentum is left over */
    idle_release(&idle);
}

static void test_idle_no_memory(void **state)
{
    (void)state;
    struct optimizer o = make(OPTIMIZER_ADAM, 0);
    for (long n = 1; n <= 3; n++) {
        struct err e = ERR_INIT;
        struct idle idle;
        mem_fail_at(n);
        assert_int_equal(idle_init(&idle, &o, 10, &e), -1);
        mem_fail_at(0);
        assert_true(err_isset(&e));
    }
}

/* --- schedules --------------------------------------------------------------------------------------------------------- */

static struct train_config scheduled(enum schedule_type type, double warmup)
{
    struct train_config c = {0};
    c.optimizer.lr = 0.8;
    c.optimizer.epochs = 10;
    c.optimizer.schedule = (struct schedule_config){type, warmup, 3, 0.5, 0.2};
    return c;
}

static void test_schedules(void **state)
{
    (void)state;
    struct train_config c = scheduled(SCHEDULE_CONSTANT, 0);
    expect_near(schedule_lr(&c, 1, 7), 0.8, 1e-12);
    expect_near(schedule_lr(&c, 70, 7), 0.8, 1e-12);
    c = scheduled(SCHEDULE_STEP, 0); /* drops behind every third epoch */
    expect_near(schedule_lr(&c, 21, 7), 0.8, 1e-12);
    expect_near(schedule_lr(&c, 22, 7), 0.4, 1e-12);
    expect_near(schedule_lr(&c, 43, 7), 0.2, 1e-12);
    expect_near(schedule_lr(&c, 70, 7), 0.1, 1e-12);
    c = scheduled(SCHEDULE_COSINE, 0);
    expect_near(schedule_lr(&c, 1, 8), 0.8, 1e-12);
    expect_near(schedule_lr(&c, 41, 8), 0.5, 1e-12); /* half of the 80 steps are done */
    expect_near(schedule_lr(&c, 80, 8), 0.2 + 0.3 * (1 + cos(acos(-1) * 79 / 80)), 1e-12);
    expect_near(schedule_lr(&c, 81, 8), 0.2, 1e-12);
}

static void test_warmup(void **state)
{
    (void)state;
    struct train_config c = scheduled(SCHEDULE_CONSTANT, 3); /* steps */
    expect_near(schedule_lr(&c, 1, 8), 0.2, 1e-12);
    expect_near(schedule_lr(&c, 3, 8), 0.6, 1e-12);
    expect_near(schedule_lr(&c, 4, 8), 0.8, 1e-12);
    c = scheduled(SCHEDULE_COSINE, 0.25); /* 20 of 80 steps */
    expect_near(schedule_lr(&c, 20, 8), 0.8 * 20 / 21, 1e-12);
    expect_near(schedule_lr(&c, 21, 8), 0.8, 1e-12);
    expect_near(schedule_lr(&c, 51, 8), 0.5, 1e-12);
    c = scheduled(SCHEDULE_COSINE, 1000); /* longer than the training */
    expect_near(schedule_lr(&c, 80, 8), 0.8 * 80 / 1001, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),         cmocka_unit_test(test_adagrad_by_hand),
        cmocka_unit_test(test_adam_by_hand),   cmocka_unit_test(test_sgd_by_hand),
        cmocka_unit_test(test_decay_by_hand),  cmocka_unit_test(test_scale),
        cmocka_unit_test(test_many_steps),     cmocka_unit_test(test_slices),
        cmocka_unit_test(test_bowl),           cmocka_unit_test(test_who_moves_idle),
        cmocka_unit_test(test_rest),           cmocka_unit_test(test_rest_without_momentum),
        cmocka_unit_test(test_idle_no_memory), cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_warmup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
