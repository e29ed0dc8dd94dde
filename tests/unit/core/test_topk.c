#include "tests/unit/core/support.h"

#include <math.h>

#include "core/topk.h"

enum { MOST = 300 };

/* topk_push, topk_push_block in pieces, and the sorting oracle give the same list. */
static void compare_all(const float *scores, size_t n, size_t k, size_t piece)
{
    struct scored wanted[MOST], single[MOST], block[MOST];
    size_t kept = topk_naive(wanted, k, scores, n);
    struct topk a, b;
    topk_init(&a, single, k);
    topk_init(&b, block, k);
    for (size_t i = n; i-- > 0;) { /* backwards: the order of arrival must not matter */
        topk_push(&a, scores[i], (uint32_t)i);
    }
    for (size_t i = 0; i < n; i += piece) {
        topk_push_block(&b, scores + i, n - i < piece ? n - i : piece, (uint32_t)i);
    }
    topk_sort(&a);
    topk_sort(&b);
    assert_int_equal(a.n, kept);
    assert_int_equal(b.n, kept);
    for (size_t i = 0; i < kept; i++) {
        assert_int_equal(single[i].row, wanted[i].row);
        assert_int_equal(block[i].row, wanted[i].row);
        assert_true(block[i].score == wanted[i].score);
    }
}

static void random_scores(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 2, 0);
    float scores[MOST];
    for (int round = 0; round < 3000; round++) {
        size_t n = rng_below(&r, MOST + 1);
        size_t k = rng_below(&r, MOST + 1);
        uint32_t distinct = 1 + rng_below(&r, round % 2 == 0 ? 4 : 1000000); /* half of the rounds: mostly ties */
        for (size_t i = 0; i < n; i++) {
            scores[i] = (float)rng_below(&r, distinct) - 1.0f;
            if (rng_below(&r, 10) == 0) {
                const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-45f, -1e-45f};
                scores[i] = special[rng_below(&r, 7)];
            }
        }
        compare_all(scores, n, k, 1 + rng_below(&r, 64));
    }
}

/* What is in front after a selection is what sorting would put there, whatever the order before. */
static void selection(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3, 0);
    for (int round = 0; round < 5000; round++) {
        struct scored entries[MOST], sorted[MOST];
        size_t n = rng_below(&r, MOST + 1);
        size_t wanted = rng_below(&r, (uint32_t)n + 2);
        uint32_t distinct = 1 + rng_below(&r, round % 2 == 0 ? 4 : 1000000);
        for (size_t i = 0; i < n; i++) {
            float score = round % 3 == 0 ? (float)i : round % 3 == 1 ? -(float)i : (float)rng_below(&r, distinct);
            entries[i] = sorted[i] = (struct scored){score, (uint32_t)i};
        }
        struct topk all = {sorted, n, n};
        topk_sort(&all);
        topk_select(entries, n, wanted);
        for (size_t i = 1; i < n; i++) {
            assert_true(scored_before(sorted[i - 1], sorted[i]));
        }
        struct topk front = {entries, wanted, wanted < n ? wanted : n};
        topk_sort(&front);
        assert_memory_equal(entries, sorted, front.n * sizeof *entries);
    }
}

static void ties_go_by_row(void **state)
{
    (void)state;
    struct scored entries[3];
    struct topk t;
    topk_init(&t, entries, 3);
    const uint32_t rows[] = {9, 4, 7, 1, 8, 2};
    for (size_t i = 0; i < 6; i++) {
        topk_push(&t, 0.5f, rows[i]);
    }
    topk_sort(&t);
    assert_true(entries[0].row == 1 && entries[1].row == 2 && entries[2].row == 4);
    topk_init(&t, entries, 2);
    topk_push(&t, -0.0f, 5);
    topk_push(&t, 0.0f, 6); /* equal to -0: the row decides */
    topk_sort(&t);
    assert_true(entries[0].row == 5 && entries[1].row == 6);
}

static void nan_is_never_kept(void **state)
{
    (void)state;
    struct scored entries[2];
    struct topk t;
    float scores[] = {NAN, -INFINITY, NAN, INFINITY, NAN};
    topk_init(&t, entries, 2);
    topk_push_block(&t, scores, 5, 10);
    topk_sort(&t);
    assert_int_equal(t.n, 2);
    assert_true(entries[0].row == 13 && entries[1].row == 11);
}

static void threshold_follows_the_worst(void **state)
{
    (void)state;
    struct scored entries[2];
    struct topk t;
    topk_init(&t, entries, 2);
    assert_true(topk_threshold(&t) == -INFINITY);
    topk_push(&t, 3, 0);
    assert_true(topk_threshold(&t) == -INFINITY);
    topk_push(&t, 1, 1);
    assert_true(topk_threshold(&t) == 1.0f);
    topk_push(&t, 2, 2);
    assert_true(topk_threshold(&t) == 2.0f);
}

static void k_of_zero_keeps_nothing(void **state)
{
    (void)state;
    struct topk t;
    float scores[] = {1, INFINITY};
    topk_init(&t, NULL, 0);
    topk_push(&t, INFINITY, 0);
    topk_push_block(&t, scores, 2, 0);
    topk_sort(&t);
    assert_int_equal(t.n, 0);
    assert_int_equal(topk_naive(NULL, 0, scores, 2), 0);
    assert_true(topk_threshold(&t) == INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_scores),
        cmocka_unit_test(selection),
        cmocka_unit_test(ties_go_by_row),
        cmocka_unit_test(nan_is_never_kept),
        cmocka_unit_test(threshold_follows_the_worst),
        cmocka_unit_test(k_of_zero_keeps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
