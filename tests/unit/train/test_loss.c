/*
 * Losses against their formulas in double precision, the formulas' gradients against finite differences, and known
 * answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "train/loss.h"

enum { MAX = 301, TYPES = 5 };
static const enum loss_type types[TYPES] = {LOSS_SOFTMAX, LOSS_BILATERAL, LOSS_POINTWISE, LOSS_TRIPLET_HINGE,
                                            LOSS_TRIPLET_LOGISTIC};

/* A row with room of its own. */
struct row {
    struct loss_row r;
    float score[LOSS_PARTS][MAX], log_q[LOSS_PARTS][MAX];
};

static float random_score(struct rng *r, float scale)
{
    return scale * (2 * rng_uniform(r) - 1);
}

static void row_point(struct row *x, size_t shared, size_t own)
{
    x->r.part[LOSS_SHARED] = (struct loss_part){x->score[LOSS_SHARED], x->log_q[LOSS_SHARED], shared};
    x->r.part[LOSS_OWN] = (struct loss_part){x->score[LOSS_OWN], x->log_q[LOSS_OWN], own};
}

/* `masked` negatives in 100 do not count. */
static void row_random(struct row *x, struct rng *r, size_t shared, size_t own, float scale, uint32_t masked)
{
    row_point(x, shared, own);
    x->r.positive = random_score(r, scale);
    x->r.positive_log_q = random_score(r, 3);
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < x->r.part[p].n; j++) {
            x->score[p][j] = rng_below(r, 100) < masked ? -INFINITY : random_score(r, scale);
            x->log_q[p][j] = random_score(r, 3);
        }
    }
}

static void row_copy(struct row *to, const struct row *from)
{
    *to = *from;
    row_point(to, from->r.part[LOSS_SHARED].n, from->r.part[LOSS_OWN].n);
}

static struct loss make_loss(enum loss_type type, float scale)
{
    return (struct loss){.type = type, .scale = type == LOSS_TRIPLET_HINGE ? 1 : scale, .margin = 0.3f, .ratio = 2.5f};
}

static void expect_near(double a, double b, double tolerance, const char *what)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%s: %.9g is not %.9g (+- %.3g)", what, a, b, tolerance);
    }
}

static void compare_with_naive(struct row *x, const struct loss *l, float weight)
{
    static struct row y;
    row_copy(&y, x);
    double fast = loss_row(l, &x->r, weight);
    double slow = loss_row_naive(l, &y.r, weight);
    double unit = (double)(weight * l->scale * (1 + l->ratio)); /* the largest that a gradient can be */
    expect_near(fast, slow, 2e-6 + 2e-6 * fabs(slow), "loss");
    expect_near((double)x->r.positive, (double)y.r.positive, 1e-5 * unit, "positive");
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < x->r.part[p].n; j++) {
            expect_near((double)x->score[p][j], (double)y.score[p][j], 1e-5 * unit, "negative");
        }
    }
}

static void test_losses_are_their_formulas(void **state)
{
    (void)state;
    static struct row x;
    struct rng r;
    rng_seed(&r, 7, 1);
    const size_t sizes[] = {0, 1, 2, 7, 8, 9, 16, 17, 33, 100, 301};
    const float scales[] = {20, 10, 1};
    for (size_t type = 0; type < TYPES; type++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t t = 0; t < 3; t++) {
                struct loss l = make_loss(types[type], scales[t]);
                row_random(&x, &r, sizes[s], rng_below(&r, 2) * rng_below(&r, 40), 1.0f, t == 0 ? 0 : 30);
                compare_with_naive(&x, &l, 0.01f + rng_uniform(&r));
            }
        }
    }
}

/* Logits of hundreds: far beyond what exp can hold. */
static void test_extreme_scores(void **state)
{
    (void)state;
    static struct row x;
    struct rng r;
    rng_seed(&r, 7, 2);
    for (size_t type = 0; type < TYPES; type++) {
        for (int i = 0; i < 20; i++) { /* differences below 600: the naive softmax holds them, too */
            struct loss l = make_loss(types[type], 1);
            row_random(&x, &r, 37, 5, 300.0f, 10);
            compare_with_naive(&x, &l, 0.1f);
        }
    }
    struct loss l = make_loss(LOSS_SOFTMAX, 1000);
    memset(&x, 0, sizeof x);
    row_point(&x, 2, 1);
    x.r.positive = -1000;
    x.score[LOSS_SHARED][0] = 1000;
    x.score[LOSS_SHARED][1] = -1000;
    x.score[LOSS_OWN][0] = 5;
    expect_near(loss_row(&l, &x.r, 0.5f), 2e6, 10, "loss");
    expect_near((double)x.r.positive, -500, 1e-2, "all of the gradient");
    expect_near((double)x.score[LOSS_SHARED][0], 500, 1e-2, "to the one that is ahead");
    assert_true(x.score[LOSS_SHARED][1] == 0 && x.score[LOSS_OWN][0] == 0);
}

/* Nothing to compare with: only pointwise has anything to say; never a NaN. */
static void test_nothing_counts(void **state)
{
    (void)state;
    static struct row x;
    struct rng r;
    rng_seed(&r, 7, 3);
    for (size_t type = 0; type < TYPES; type++) {
        struct loss l = make_loss(types[type], 10);
        for (int how = 0; how < 2; how++) {
            row_random(&x, &r, how == 0 ? 19 : 0, how == 0 ? 5 : 0, 1, 100);
            double own = log1p(exp(-10 * (double)x.r.positive));
            double expected = types[type] == LOSS_POINTWISE ? own : 0;
            expect_near(loss_row(&l, &x.r, 1), expected, 1e-5 * (1 + expected), "loss");
            assert_true((x.r.positive == 0) == (types[type] != LOSS_POINTWISE));
            for (size_t j = 0; how == 0 && j < 19; j++) {
                assert_true(x.score[LOSS_SHARED][j] == 0 && x.score[LOSS_OWN][j % 5] == 0);
            }
        }
    }
}

/* A negative that does not count changes nothing, whichever part it is in; nor does it matter which part one is in. */
static void test_masked_is_absent(void **state)
{
    (void)state;
    static struct row x, y;
    struct rng r;
    rng_seed(&r, 7, 4);
    for (size_t type = 0; type < TYPES; type++) {
        struct loss l = make_loss(types[type], 5);
        row_random(&x, &r, 20, 0, 1, 0);
        row_copy(&y, &x);
        x.score[LOSS_SHARED][6] = -INFINITY;
        row_point(&y, 6, 13);
        memcpy(y.score[LOSS_OWN], x.score[LOSS_SHARED] + 7, 13 * sizeof(float));
        memcpy(y.log_q[LOSS_OWN], x.log_q[LOSS_SHARED] + 7, 13 * sizeof(float));
        expect_near(loss_row(&l, &x.r, 1), loss_row(&l, &y.r, 1), 1e-5, "loss");
        assert_true(x.score[LOSS_SHARED][6] == 0);
        expect_near((double)x.score[LOSS_SHARED][19], (double)y.score[LOSS_OWN][12], 1e-6, "others");
        expect_near((double)x.r.positive, (double)y.r.positive, 1e-5, "positive");
    }
}

/* The naive gradient is that of the naive loss. */
static void test_naive_by_differences(void **state)
{
    (void)state;
    static struct row x, gradient, up, down;
    struct rng r;
    rng_seed(&r, 7, 5);
    const float h = 1.0f / 1024;
    for (size_t type = 0; type < TYPES; type++) {
        struct loss l = make_loss(types[type], 3);
        row_random(&x, &r, 11, 4, 1, 10);
        row_copy(&gradient, &x);
        loss_row_naive(&l, &gradient.r, 0.5f);
        for (size_t i = 0; i < 16; i++) {
            size_t part = i < 12 ? LOSS_SHARED : LOSS_OWN;
            size_t at = i < 12 ? i - 1 : i - 12; /* i 0: the positive */
            if (i > 0 && isinf(x.score[part][at])) {
                continue;
            }
            row_copy(&up, &x);
            row_copy(&down, &x);
            *(i == 0 ? &up.r.positive : &up.score[part][at]) += h;
            *(i == 0 ? &down.r.positive : &down.score[part][at]) -= h;
            double slope = (loss_row_naive(&l, &up.r, 1) - loss_row_naive(&l, &down.r, 1)) / (2 * (double)h);
            float analytic = i == 0 ? gradient.r.positive : gradient.score[part][at];
            expect_near((double)analytic, slope * 0.5, 2e-4, "slope");
        }
    }
}

/* Worked out by hand. */
static void test_known_answers(void **state)
{
    (void)state;
    static struct row x;
    memset(&x, 0, sizeof x);
    row_point(&x, 1, 1);
    x.r.positive = 0.5f;
    x.score[LOSS_SHARED][0] = 0.4f;
    x.score[LOSS_OWN][0] = -0.9f;
    struct loss l = {.type = LOSS_TRIPLET_HINGE, .scale = 1, .margin = 0.2f};
    expect_near(loss_row(&l, &x.r, 1), 0.05, 1e-6, "hinge: one of two violates, by 0.1");
    expect_near((double)x.r.positive, -0.5, 1e-6, "hinge: positive");
    expect_near((double)x.score[LOSS_SHARED][0], 0.5, 1e-6, "hinge: the violator");
    assert_true(x.score[LOSS_OWN][0] == 0);

    x.r.positive = 2;
    x.score[LOSS_SHARED][0] = 2;
    x.score[LOSS_OWN][0] = -INFINITY;
    l = (struct loss){.type = LOSS_TRIPLET_LOGISTIC, .scale = 1};
    expect_near(loss_row(&l, &x.r, 1), log(2), 1e-6, "BPR: a tie");
    expect_near((double)x.r.positive, -0.5, 1e-6, "BPR: positive");

    x.r.positive = 0;
    x.score[LOSS_SHARED][0] = 0;
    x.score[LOSS_OWN][0] = 0;
    l = (struct loss){.type = LOSS_POINTWISE, .scale = 10, .ratio = 3};
    expect_near(loss_row(&l, &x.r, 1), 4 * log(2), 1e-6, "pointwise: one positive, negatives that weigh three");
    expect_near((double)x.r.positive, -5, 1e-5, "pointwise: positive");
    expect_near((double)x.score[LOSS_OWN][0], 7.5, 1e-5, "pointwise: half of three halves of the scale");

    x.r.positive = 0;
    x.score[LOSS_SHARED][0] = 0;
    x.score[LOSS_OWN][0] = 0;
    x.log_q[LOSS_OWN][0] = -logf(8); /* stands for eight */
    l = (struct loss){.type = LOSS_SOFTMAX, .scale = 1};
    expect_near(loss_row(&l, &x.r, 1), log(10), 1e-6, "softmax: 1 of 1 + 1 + 8");
    expect_near((double)x.score[LOSS_OWN][0], 0.8, 1e-6, "softmax: its share");

    x.r.positive = 0.5f;
    x.score[LOSS_SHARED][0] = 0;
    x.score[LOSS_OWN][0] = 0;
    l = (struct loss){.type = LOSS_BILATERAL, .scale = 2, .ratio = 3};
    expect_near(loss_row(&l, &x.r, 1), 3 * log(9) - 1, 1e-5, "bilateral: 1 + 8 others, thrice; the positive once");
    expect_near((double)x.r.positive, -2, 1e-6, "bilateral: the positive is pulled whatever the others are");
    expect_near((double)x.score[LOSS_OWN][0], 2 * 3 * 8 / 9.0, 1e-5, "bilateral: a share of three");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses_are_their_formulas),
        cmocka_unit_test(test_extreme_scores),
        cmocka_unit_test(test_nothing_counts),
        cmocka_unit_test(test_masked_is_absent),
        cmocka_unit_test(test_naive_by_differences),
        cmocka_unit_test(test_known_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
