/* Searches under `allow`: exact ones against the oracle, engines against exact ones, every share of rows, near and far. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "ann/mark.h"
#include "core/cpu.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

enum { ROWS = 20011, DIM = 24, QUERIES = 60, K = 50, WORDS = (ROWS + 63) / 64 };

static struct rng rng;
static struct ann_vectors v;
static float *queries; /* [QUERIES, DIM] */

static int setup(void **state)
{
    (void)state;
    struct data_shape shape = {DIM, 200, 0.6f, 3};
    v = (struct ann_vectors){data_new(&shape, ROWS, 1, 0), ROWS, DIM};
    queries = data_new(&shape, QUERIES, 1, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mem_free((void *)(uintptr_t)v.data);
    mem_free(queries);
    return 0;
}

static bool is_set(const uint64_t *bits, size_t row)
{
    return (bits[row / 64] >> row % 64 & 1) != 0;
}

static size_t count_bits(const uint64_t *bits)
{
    size_t n = 0;
    for (size_t i = 0; i < WORDS; i++) {
        n += (size_t)__builtin_popcountll(bits[i]);
    }
    return n;
}

static size_t allow_random(uint64_t *bits, double share)
{
    memset(bits, 0, WORDS * sizeof *bits);
    for (size_t row = 0; row < ROWS; row++) {
        bits[row / 64] |= (uint64_t)((double)rng_uniform(&rng) < share) << row % 64;
    }
    return count_bits(bits);
}

/* About a share of the rows, those on one side: x.direction is large. */
static size_t allow_side(uint64_t *bits, double share)
{
    static float scores[ROWS];
    memset(bits, 0, WORDS * sizeof *bits);
    vec_dot_rows(scores, v.data, ROWS, DIM, v.data + 77 * DIM);
    for (size_t row = 0; row < ROWS; row++) {
        size_t better = 0;
        for (size_t i = 0; i < ROWS; i += 20) {
            better += scores[i] > scores[row];
        }
        bits[row / 64] |= (uint64_t)((double)better < share * ROWS / 20) << row % 64;
    }
    return count_bits(bits);
}

/* What the contract says, spelled out. */
static size_t oracle(const struct ann_query *q, struct scored *out)
{
    static float scores[ROWS];
    vec_dot_rows(scores, v.data, ROWS, DIM, q->vector);
    size_t next = 0;
    for (size_t row = 0; row < ROWS; row++) {
        bool excluded = next < q->n_exclude && q->exclude[next] == row;
        next += excluded;
        if (excluded || !is_set(q->allow, row) || scores[row] < q->min_score) {
            scores[row] = NAN;
        }
    }
    return topk_naive(out, q->k, scores, ROWS);
}

static double recall_of(const struct scored *hits, const struct scored *truth, size_t n)
{
    size_t found = 0;
    while (found < n && hits[found].score >= truth[n - 1].score) {
        found++;
    }
    return n == 0 ? 1 : (double)found / (double)n;
}

struct filter_case {
    const char *engine;
    bool side;
    double share, least_recall;
};

static void compare(const struct ann *index, const struct filter_case *c)
{
    static uint64_t bits[WORDS];
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    size_t n_allow = c->side ? allow_side(bits, c->share) : allow_random(bits, c->share);
    double recall = 0;
    assert_non_null(ws);
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored hits[K], truth[K];
        struct ann_answer a;
        uint32_t exclude[30];
        struct ann_query q = {
            .vector = queries + i * DIM, .k = K, .min_score = -INFINITY, .allow = bits, .n_allow = n_allow};
        if (i % 3 == 0) { /* exclude the best ones, too */
            size_t best = oracle(&q, truth);
            for (size_t row = 0; row < ROWS && q.n_exclude < 30; row++) {
                for (size_t j = 0; j < best && j < 30; j++) {
                    if (truth[j].row == row) {
                        exclude[q.n_exclude++] = (uint32_t)row;
                    }
                }
            }
            q.exclude = exclude;
        }
        size_t expected = oracle(&q, truth);
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_int_equal(a.n, expected); /* always all there are */
        assert_int_equal(a.complete, expected == K);
        for (size_t j = 0; j < a.n; j++) {
            assert_true(is_set(bits, hits[j].row));
            assert_true(j == 0 || scored_before(hits[j - 1], hits[j]));
            for (size_t x = 0; x < q.n_exclude; x++) {
                assert_true(hits[j].row != exclude[x]);
            }
        }
        recall += recall_of(hits, truth, expected) / QUERIES;
        q.exact = true;
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_int_equal(a.strategy, ANN_STRATEGY_EXACT);
        assert_memory_equal(hits, truth, expected * sizeof *hits);
    }
    if (recall < c->least_recall) {
        fail_msg("%s, %s, %g: recall %.4f, not %.2f", c->engine, c->side ? "one side" : "random", c->share, recall,
                 c->least_recall);
    }
    ann_workspace_free(ws);
}

static void engines_under_filters(void **state)
{
    (void)state;
    static const char *const engines[] = {"flat", "native", "faiss"};
    static const double shares[] = {1, 0.5, 0.1, 0.02, 0.001, 0};
    for (size_t i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        struct ann_build_options options = {.engine = engines[i], .threads = 2};
        struct ann *index = ann_build(&v, &options, &e);
        struct ann_tuning tuned;
        assert_non_null(index);
        assert_int_equal(tune(index, &v, queries, QUERIES, K, 0.97, &tuned), 0);
        for (size_t j = 0; j < sizeof shares / sizeof *shares; j++) {
            compare(index, &(struct filter_case){engines[i], false, shares[j], i == 0 ? 1 : 0.93});
            compare(index, &(struct filter_case){engines[i], true, shares[j], i == 0 ? 1 : 0.9});
        }
        ann_free(index);
    }
}

/* A filter that lets everything through answers as no filter does. */
static void all_allowed(void **state)
{
    (void)state;
    static uint64_t bits[WORDS];
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = "native", .threads = 2};
    struct ann *index = ann_build(&v, &options, &e);
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    for (size_t row = 0; row < ROWS; row++) {
        bits[row / 64] |= UINT64_C(1) << row % 64;
    }
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored with[K], without[K];
        struct ann_answer a;
        struct ann_query q = {.vector = queries + i * DIM, .k = K, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws, &q, without, &a, &e), 0);
        q.allow = bits;
        q.n_allow = ROWS;
        assert_int_equal(ann_search(index, ws, &q, with, &a, &e), 0);
        assert_memory_equal(with, without, sizeof with);
    }
    ann_workspace_free(ws);
    ann_free(index);
}

static void marks_equal_the_plain_ones(void **state)
{
    (void)state;
    static uint64_t bits[WORDS];
    allow_random(bits, 0.5);
    for (enum cpu_level level = CPU_PLAIN; level < CPU_LEVELS; level++) {
        cpu_limit(level);
        for (int round = 0; round < 500; round++) {
            uint32_t rows[MARK_ROWS];
            size_t n = round % 2 == 0 ? MARK_ROWS : rng_below(&rng, MARK_ROWS + 1);
            uint32_t expected = 0;
            for (size_t i = 0; i < n; i++) {
                rows[i] = rng_below(&rng, ROWS);
                expected |= (uint32_t)is_set(bits, rows[i]) << i;
            }
            assert_int_equal(rows_allowed(bits, rows, n), expected);
            assert_int_equal(rows_allowed_plain(bits, rows, n), expected);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_equal_the_plain_ones),
        cmocka_unit_test(all_allowed),
        cmocka_unit_test(engines_under_filters),
    };
    rng_seed(&rng, 9, 9);
    return cmocka_run_group_tests(tests, setup, teardown);
}
