/* Queries together against the same queries one by one: the same rows, the same bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

enum { MAX_K = 150, QUERIES = 150, EXCLUDED = 40, MASKS = 4, WORDS = 3000 / 64 + 1 };

static struct rng rng;

/* Values of different kinds: plain ones, few different ones (ties everywhere), lengths a hundred times apart, so large that
 * products overflow. */
enum kind { PLAIN, TIES, LENGTHS, HUGE_VALUES, KINDS };

static float *make_vectors(enum kind kind, size_t n, uint32_t dim)
{
    float *x = mem_array(n * dim, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        float length = kind == LENGTHS ? expf(4.6f * rng_uniform(&rng)) : kind == HUGE_VALUES ? 1e19f : 1.0f;
        for (size_t j = 0; j < dim; j++) {
            x[i * dim + j] = kind == TIES ? (float)rng_below(&rng, 2) : length * rng_normal(&rng);
        }
    }
    return x;
}

/* Sets of rows: one in 2, 8, 32, 128; returns how many each has. */
static void make_masks(uint64_t masks[MASKS][WORDS], size_t counts[MASKS], size_t n)
{
    memset(masks, 0, MASKS * sizeof *masks);
    for (size_t i = 0; i < MASKS; i++) {
        counts[i] = 0;
        for (size_t row = 0; row < n; row++) {
            bool in = rng_below(&rng, 2u << 2 * i) == 0;
            masks[i][row / 64] |= (uint64_t)in << row % 64;
            counts[i] += in;
        }
    }
}

static void compare(const char *engine, enum kind kind, size_t n, uint32_t dim)
{
    struct err e = ERR_INIT;
    float *x = make_vectors(kind, n, dim);
    float *q = make_vectors(kind, QUERIES, dim);
    struct ann_vectors v = {x, n, dim};
    struct ann_build_options options = {.engine = engine, .threads = 1};
    struct ann *index = ann_build(&v, &options, &e);
    assert_non_null(index);
    struct ann_workspace *ws = ann_workspace_new(index, MAX_K, &e);
    struct ann_batch *batch = ann_batch_new(index, MAX_K, &e);
    assert_true(ws != NULL && batch != NULL);
    static struct ann_query queries[QUERIES];
    static uint32_t excluded[QUERIES][EXCLUDED];
    static struct scored hits[QUERIES][MAX_K];
    static uint64_t masks[MASKS][WORDS];
    size_t counts[MASKS];
    struct scored *to[QUERIES];
    struct ann_answer answers[QUERIES];
    make_masks(masks, counts, n);
    for (size_t i = 0; i < QUERIES; i++) {
        size_t n_excluded = 0;
        for (uint32_t row = 0; row < n && n_excluded < EXCLUDED; row += 1 + rng_below(&rng, 1 + (uint32_t)n / 20)) {
            excluded[i][n_excluded++] = row;
        }
        queries[i] = (struct ann_query){.vector = q + i * dim,
                                        .k = 1 + rng_below(&rng, MAX_K),
                                        .exact = rng_below(&rng, 4) > 0,
                                        .min_score = rng_below(&rng, 3) == 0 ? 0.5f : -INFINITY,
                                        .exclude = excluded[i],
                                        .n_exclude = rng_below(&rng, 2) == 0 ? n_excluded : 0};
        to[i] = hits[i];
        size_t mask = rng_below(&rng, 2 * MASKS);
        if (mask < MASKS) {
            queries[i].allow = masks[mask];
            queries[i].n_allow = counts[mask];
        }
    }
    for (size_t count = 1; count <= QUERIES; count = count * 2 + 5) {
        assert_int_equal(ann_search_batch(index, batch, queries, count, to, answers, &e), 0);
        for (size_t i = 0; i < count; i++) {
            struct scored alone[MAX_K];
            struct ann_answer answer;
            assert_int_equal(ann_search(index, ws, &queries[i], alone, &answer, &e), 0);
            assert_int_equal(answers[i].n, answer.n);
            assert_int_equal(answers[i].complete, answer.complete);
            assert_int_equal(answers[i].strategy, answer.strategy);
            assert_memory_equal(hits[i], alone, answer.n * sizeof *alone);
        }
    }
    ann_batch_free(batch);
    ann_workspace_free(ws);
    ann_free(index);
    mem_free(x);
    mem_free(q);
}

static void batches_equal_single_queries(void **state)
{
    (void)state;
    for (enum kind kind = PLAIN; kind < KINDS; kind++) {
        compare("flat", kind, 3000, 17);
        compare("flat", kind, 1024, 64);
        compare("flat", kind, 40, 3); /* fewer rows than results */
        compare("native", kind, 3000, 32);
    }
    compare("flat", PLAIN, 5, 1);
}

/* More is kept for each than fits for all together. */
static void large_batches_are_divided(void **state)
{
    (void)state;
    enum { N = 20000, DIM = 4, K = 12000, COUNT = 70 };
    struct err e = ERR_INIT;
    float *x = make_vectors(PLAIN, N, DIM);
    struct ann_vectors v = {x, N, DIM};
    struct ann_build_options options = {.engine = "flat", .threads = 1};
    struct ann *index = ann_build(&v, &options, &e);
    struct ann_batch *batch = ann_batch_new(index, K, &e);
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    struct scored *hits = mem_array((size_t)COUNT * K, sizeof *hits);
    struct scored *alone = mem_array(K, sizeof *alone);
    struct ann_query queries[COUNT];
    struct scored *to[COUNT];
    struct ann_answer answers[COUNT];
    assert_true(batch != NULL && ws != NULL && hits != NULL && alone != NULL);
    for (size_t i = 0; i < COUNT; i++) {
        size_t k = i % 3 == 0 ? K - i : 1 + i;
        queries[i] = (struct ann_query){.vector = x + i * DIM, .k = k, .min_score = -INFINITY};
        to[i] = hits + i * K;
    }
    assert_int_equal(ann_search_batch(index, batch, queries, COUNT, to, answers, &e), 0);
    for (size_t i = 0; i < COUNT; i++) {
        struct ann_answer answer;
        assert_int_equal(ann_search(index, ws, &queries[i], alone, &answer, &e), 0);
        assert_int_equal(answers[i].n, answer.n);
        assert_memory_equal(to[i], alone, answer.n * sizeof *alone);
    }
    ann_batch_free(batch);
    ann_workspace_free(ws);
    ann_free(index);
    mem_free(hits);
    mem_free(alone);
    mem_free(x);
}

static void bad_queries_are_named(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    float x[4] = {1, 2, 3, 4};
    struct ann_vectors v = {x, 2, 2};
    struct ann_build_options options = {.engine = "flat", .threads = 1};
    struct ann *index = ann_build(&v, &options, &e);
    struct ann_batch *batch = ann_batch_new(index, 2, &e);
    struct scored hits[2][2];
    struct scored *to[2] = {hits[0], hits[1]};
    struct ann_answer answers[2];
    struct ann_query queries[2] = {{.vector = x, .k = 1, .min_score = -INFINITY},
                                   {.vector = x, .k = 3, .min_score = -INFINITY}};
    assert_int_equal(ann_search_batch(index, batch, queries, 2, to, answers, &e), -1);
    assert_string_equal(e.message, "query 1: k is 3, must be 1 to 2");
    ann_batch_free(batch);
    ann_free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_equal_single_queries),
        cmocka_unit_test(large_batches_are_divided),
        cmocka_unit_test(bad_queries_are_named),
    };
    rng_seed(&rng, 5, 6);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
