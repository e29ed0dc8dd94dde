/*
 * Losses against the formula in double precision, their gradients against finite differences, and exp.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "train/loss.h"

enum { MAX_ROWS = 40, MAX_CANDIDATES = 301, ITEMS = 60 };

struct block {
    struct loss_block b;
    float positive[MAX_ROWS], negative[MAX_ROWS * MAX_CANDIDATES];
    float positive_log_q[MAX_ROWS], candidate_log_q[MAX_CANDIDATES];
    uint32_t positive_item[MAX_ROWS], candidate_item[MAX_CANDIDATES];
};

static float random_score(struct rng *r, float scale)
{
    return scale * (2 * rng_uniform(r) - 1);
}

/* Few items, so that there are plenty of accidental hits. `masked` similarities in 100 are -infinity. */
static void block_random(struct block *x, struct rng *r, size_t rows, size_t candidates, float scale, uint32_t masked)
{
    x->b = (struct loss_block){rows,
                               candidates,
                               x->positive,
                               x->negative,
                               x->positive_item,
                               x->candidate_item,
                               x->positive_log_q,
                               x->candidate_log_q,
                               1.0f / (float)(rows + 3)};
    for (size_t i = 0; i < rows; i++) {
        x->positive[i] = random_score(r, scale);
        x->positive_log_q[i] = random_score(r, 3);
        x->positive_item[i] = rng_below(r, ITEMS);
    }
    for (size_t j = 0; j < candidates; j++) {
        x->candidate_log_q[j] = random_score(r, 3);
        x->candidate_item[j] = rng_below(r, ITEMS);
    }
    for (size_t i = 0; i < rows * candidates; i++) {
        x->negative[i] = rng_below(r, 100) < masked ? -INFINITY : random_score(r, scale);
    }
}

static void block_copy(struct block *to, const struct block *from)
{
    *to = *from;
    to->b.positive = to->positive;
    to->b.negative = to->negative;
    to->b.positive_item = to->positive_item;
    to->b.candidate_item = to->candidate_item;
    to->b.positive_log_q = to->positive_log_q;
    to->b.candidate_log_q = to->candidate_log_q;
}

static void expect_near(double a, double b, double tolerance, const char *what)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%s: %.9g is not %.9g (+- %.3g)", what, a, b, tolerance);
    }
}

static void compare_with_naive(struct block *x, const struct loss *l)
{
    static struct block y;
    block_copy(&y, x);
    double fast = loss_compute(l, &x->b);
    double slow = loss_compute_naive(l, &y.b);
    size_t rows = x->b.rows;
    double unit = (double)(x->b.batch_scale / l->temperature); /* the largest that a gradient can be */
    expect_near(fast, slow, 1e-6 * (double)rows + 2e-6 * fabs(slow), "loss");
    for (size_t i = 0; i < rows; i++) {
        expect_near((double)x->positive[i], (double)y.positive[i], 1e-5 * unit, "positive");
    }
    for (size_t i = 0; i < rows * x->b.candidates; i++) {
        expect_near((double)x->negative[i], (double)y.negative[i], 1e-5 * unit, "negative");
    }
}

static void test_softmax_is_the_formula(void **state)
{
    (void)state;
    static struct block x;
    struct rng r;
    rng_seed(&r, 7, 1);
    const size_t candidates[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 301};
    const float temperatures[] = {0.05f, 0.1f, 1.0f};
    for (size_t c = 0; c < sizeof candidates / sizeof *candidates; c++) {
        for (size_t t = 0; t < 3; t++) {
            struct loss l = {LOSS_SOFTMAX, temperatures[t]};
            block_random(&x, &r, 1 + rng_below(&r, MAX_ROWS), candidates[c], 1.0f, t == 0 ? 0 : 30);
            compare_with_naive(&x, &l);
        }
    }
}

/* Logits of hundreds: far beyond what exp can hold. */
static void test_softmax_extreme_logits(void **state)
{
    (void)state;
    static struct block x;
    struct rng r;
    rng_seed(&r, 7, 2);
    struct loss l = {LOSS_SOFTMAX, 1.0f};
    for (int i = 0; i < 20; i++) {
        block_random(&x, &r, 13, 37, 300.0f, 10); /* differences below 600: the naive form holds them, too */
        compare_with_naive(&x, &l);
    }
    block_random(&x, &r, 2, 3, 1, 0);
    l.temperature = 0.001f;
    const float similarities[] = {1000, -1000, 5, -1000, -1000, -999};
    memcpy(x.negative, similarities, sizeof similarities);
    x.positive[0] = -1000;
    x.positive[1] = 1000;
    memset(x.candidate_log_q, 0, sizeof x.candidate_log_q);
    memset(x.positive_log_q, 0, sizeof x.positive_log_q);
    for (uint32_t j = 0; j < 3; j++) {
        x.candidate_item[j] = 100 + j;
    }
    double loss = loss_compute(&l, &x.b);
    assert_true(fabs(loss - 2e6) < 10);
    expect_near((double)x.positive[0], -1000 * (double)x.b.batch_scale, 1e-2, "all of the gradient");
    expect_near((double)x.negative[0], 1000 * (double)x.b.batch_scale, 1e-2, "to the one that is ahead");
    assert_true(x.positive[1] == 0 && x.negative[3] == 0 && x.negative[5] == 0);
}

/* Nothing to compare with: no loss and no gradient, not a NaN. */
static void test_softmax_all_masked(void **state)
{
    (void)state;
    static struct block x;
    struct rng r;
    rng_seed(&r, 7, 3);
    struct loss l = {LOSS_SOFTMAX, 0.1f};
    for (int how = 0; how < 2; how++) {
        block_random(&x, &r, 5, 19, 1, how == 0 ? 100 : 0);
        for (size_t j = 0; how == 1 && j < 19; j++) {
            x.candidate_item[j] = 9;
        }
        for (size_t i = 0; how == 1 && i < 5; i++) {
            x.positive_item[i] = 9;
        }
        assert_true(fabs(loss_compute(&l, &x.b)) < 1e-6);
        for (size_t i = 0; i < 5; i++) {
            assert_true(x.positive[i] == 0);
        }
        for (size_t i = 0; i < 5 * 19; i++) {
            assert_true(x.negative[i] == 0);
        }
    }
}

static void test_own_item_does_not_count(void **state)
{
    (void)state;
    static struct block x, without;
    struct rng r;
    rng_seed(&r, 7, 4);
    struct loss l = {LOSS_SOFTMAX, 0.2f};
    block_random(&x, &r, 1, 20, 1, 0);
    for (uint32_t j = 0; j < 20; j++) {
        x.candidate_item[j] = j;
    }
    x.positive_item[0] = 6;
    block_copy(&without, &x);
    x.negative[6] = 50; /* whatever its score: it is the positive itself */
    memmove(without.negative + 6, without.negative + 7, 13 * sizeof(float));
    memmove(without.candidate_log_q + 6, without.candidate_log_q + 7, 13 * sizeof(float));
    memmove(without.candidate_item + 6, without.candidate_item + 7, 13 * sizeof(uint32_t));
    without.b.candidates = 19;
    expect_near(loss_compute(&l, &x.b), loss_compute(&l, &without.b), 1e-6, "loss");
    assert_true(x.negative[6] == 0);
    expect_near((double)x.negative[19], (double)without.negative[18], 1e-7, "others");
}

/* The naive gradient is that of the naive loss. */
static void test_naive_by_differences(void **state)
{
    (void)state;
    static struct block x, gradient, up, down;
    struct rng r;
    rng_seed(&r, 7, 5);
    struct loss l = {LOSS_SOFTMAX, 0.3f};
    const float h = 1.0f / 1024;
    block_random(&x, &r, 3, 11, 1, 10);
    block_copy(&gradient, &x);
    loss_compute_naive(&l, &gradient.b);
    for (size_t i = 0; i < 3 + 3 * 11; i++) {
        if (i >= 3 && isinf(x.negative[i - 3])) {
            continue;
        }
        block_copy(&up, &x);
        block_copy(&down, &x);
        *(i < 3 ? &up.positive[i] : &up.negative[i - 3]) += h;
        *(i < 3 ? &down.positive[i] : &down.negative[i - 3]) -= h;
        float real_up = *(i < 3 ? &up.positive[i] : &up.negative[i - 3]);
        float real_down = *(i < 3 ? &down.positive[i] : &down.negative[i - 3]);
        double span = (double)real_up - (double)real_down;
        double slope = (loss_compute_naive(&l, &up.b) - loss_compute_naive(&l, &down.b)) / span;
        float analytic = i < 3 ? gradient.positive[i] : gradient.negative[i - 3];
        expect_near((double)analytic, slope * (double)x.b.batch_scale, 1e-5, "slope");
    }
}

static void test_exp_sum(void **state)
{
    (void)state;
    static float x[4099], y[4099];
    struct rng r;
    rng_seed(&r, 7, 6);
    for (size_t n = 0; n < 4099; n = n < 40 ? n + 1 : n * 2 + 1) {
        float shift = random_score(&r, 50);
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = shift - 86.9f * rng_uniform(&r);
            y[i] = expf(x[i] - shift);
            sum += (double)y[i];
        }
        double got = (double)vec_exp_sum(x, shift, n);
        expect_near(got, sum, 3e-6 * sum, "sum");
        for (size_t i = 0; i < n; i++) {
            expect_near((double)x[i], (double)y[i], 4e-7 * (double)y[i], "exp");
        }
    }
}

/* At the ends: exactly the largest, far below it, masked. */
static void test_exp_sum_ends(void **state)
{
    (void)state;
    for (size_t n = 1; n < 20; n++) { /* each in the vector part and in the rest */
        for (size_t at = 0; at < n; at++) {
            float x[20];
            for (size_t i = 0; i < n; i++) {
                x[i] = -INFINITY;
            }
            x[at] = 3.5f;
            assert_true(vec_exp_sum(x, 3.5f, n) == 1.0f);
            assert_true(x[at] == 1.0f && x[(at + 1) % n] == (n == 1 ? 1.0f : 0.0f));
            x[at] = -500;
            assert_true(vec_exp_sum(x, 0, at + 1) >= 0.0f);
            assert_true(x[at] == 0.0f);
        }
    }
    assert_true(vec_exp_sum(NULL, 0, 0) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax_is_the_formula), cmocka_unit_test(test_softmax_extreme_logits),
        cmocka_unit_test(test_softmax_all_masked),     cmocka_unit_test(test_own_item_does_not_count),
        cmocka_unit_test(test_naive_by_differences),   cmocka_unit_test(test_exp_sum),
        cmocka_unit_test(test_exp_sum_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
