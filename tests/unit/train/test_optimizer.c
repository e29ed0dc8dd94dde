/*
 * Optimizers against numbers worked out by hand, and against the papers' formulas in double precision over many steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/rng.h"
#include "train/optimizer.h"

enum { N = 37, STEPS = 200 };

static void expect_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.9g is not %.9g (+- %.3g)", a, b, tolerance);
    }
}

static void test_states(void **state)
{
    (void)state;
    assert_int_equal(optimizer_states(OPTIMIZER_ADAGRAD), 1);
    assert_int_equal(optimizer_states(OPTIMIZER_ADAM), 2);
}

static void test_adagrad_by_hand(void **state)
{
    (void)state;
    struct optimizer o = {OPTIMIZER_ADAGRAD, 0.1f, 1};
    float w = 1, s = 0, g = 3;
    optimizer_update(&o, &w, &s, NULL, &g, 1);
    expect_near((double)s, 9, 1e-6); /* the first step is lr, whatever the gradient's size */
    expect_near((double)w, 0.9, 1e-6);
    g = -4;
    optimizer_update(&o, &w, &s, NULL, &g, 1);
    expect_near((double)s, 25, 1e-6);
    expect_near((double)w, 0.9 + 0.1 * 4 / 5, 1e-6);
    g = 0;
    optimizer_update(&o, &w, &s, NULL, &g, 1);
    expect_near((double)w, 0.98, 1e-6);
    w = 2, s = 0; /* never a gradient: 0 / 0 must not happen */
    optimizer_update(&o, &w, &s, NULL, &g, 1);
    assert_true(w == 2);
}

static void test_adam_by_hand(void **state)
{
    (void)state;
    struct optimizer o = {OPTIMIZER_ADAM, 0.01f, 1};
    float w = 1, m = 0, v = 0, g = 2;
    optimizer_update(&o, &w, &m, &v, &g, 1);
    expect_near((double)m, 0.2, 1e-6);
    expect_near((double)v, 0.004, 1e-7);
    expect_near((double)w, 0.99, 1e-6); /* corrected: m / 0.1 = 2, v / 0.001 = 4, step lr * 2 / 2 */
    o.step = 2;
    g = -1;
    optimizer_update(&o, &w, &m, &v, &g, 1);
    expect_near((double)m, 0.08, 1e-6);
    expect_near((double)v, 0.004996, 1e-7);
    expect_near((double)w, 0.99 - 0.01 * (0.08 / 0.19) / sqrt(0.004996 / 0.001999), 1e-6);
    w = 2, m = 0, v = 0, g = 0;
    optimizer_update(&o, &w, &m, &v, &g, 1);
    assert_true(w == 2);
}

struct oracle {
    double w, a, b;
};

static void oracle_step(struct oracle *x, enum optimizer_type type, double lr, int step, double g)
{
    if (type == OPTIMIZER_ADAGRAD) {
        x->a += g * g;
        x->w -= lr * g / (sqrt(x->a) + 1e-10);
        return;
    }
    x->a = 0.9 * x->a + 0.1 * g;
    x->b = 0.999 * x->b + 0.001 * g * g;
    x->w -= lr * (x->a / (1 - pow(0.9, step))) / (sqrt(x->b / (1 - pow(0.999, step))) + 1e-8);
}

/* Gradients of very different sizes. */
static void test_many_steps(void **state)
{
    (void)state;
    for (int type = OPTIMIZER_ADAGRAD; type <= OPTIMIZER_ADAM; type++) {
        struct optimizer o = {(enum optimizer_type)type, type == OPTIMIZER_ADAM ? 0.001f : 0.1f, 0};
        struct oracle oracle[N] = {{0}};
        float w[N], a[N] = {0}, b[N] = {0}, g[N];
        struct rng r;
        rng_seed(&r, 3, (uint64_t)type);
        for (int i = 0; i < N; i++) {
            w[i] = rng_normal(&r);
            oracle[i].w = (double)w[i];
        }
        for (int step = 1; step <= STEPS; step++) {
            o.step = (uint64_t)step;
            for (int i = 0; i < N; i++) {
                g[i] = rng_normal(&r) * powf(10, (float)(i % 9) - 5);
                oracle_step(&oracle[i], o.type, (double)o.lr, step, (double)g[i]);
            }
            optimizer_update(&o, w, a, type == OPTIMIZER_ADAM ? b : NULL, g, N);
        }
        for (int i = 0; i < N; i++) {
            expect_near((double)w[i], oracle[i].w, 2e-5);
            expect_near((double)a[i], oracle[i].a, 1e-4 * fabs(oracle[i].a) + 1e-9);
        }
    }
}

/* Slices give the same as the whole: the trainer deals them to threads. */
static void test_slices(void **state)
{
    (void)state;
    for (int type = OPTIMIZER_ADAGRAD; type <= OPTIMIZER_ADAM; type++) {
        struct optimizer o = {(enum optimizer_type)type, 0.05f, 3};
        float w[2][N], a[2][N], b[2][N], g[N];
        struct rng r;
        rng_seed(&r, 4, (uint64_t)type);
        for (int i = 0; i < N; i++) {
            w[0][i] = w[1][i] = rng_normal(&r);
            a[0][i] = a[1][i] = rng_uniform(&r);
            b[0][i] = b[1][i] = rng_uniform(&r);
            g[i] = rng_normal(&r);
        }
        optimizer_update(&o, w[0], a[0], b[0], g, N);
        for (size_t i = 0; i < N; i += 5) {
            size_t n = N - i < 5 ? N - i : 5;
            optimizer_update(&o, w[1] + i, a[1] + i, b[1] + i, g + i, n);
        }
        for (int i = 0; i < N; i++) {
            expect_near((double)w[0][i], (double)w[1][i], 1e-6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),     cmocka_unit_test(test_adagrad_by_hand), cmocka_unit_test(test_adam_by_hand),
        cmocka_unit_test(test_many_steps), cmocka_unit_test(test_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
