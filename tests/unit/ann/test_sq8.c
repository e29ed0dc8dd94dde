/* 8-bit codes: bounds hold, whatever the numbers; every kernel sums the same; scans with codes against scans without. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "ann/sq8.h"
#include "core/cpu.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

enum { DIM_MOST = 300, ROWS = 200 };

static struct rng rng;

static int setup(void **state)
{
    (void)state;
    rng_seed(&rng, 1, 1);
    return blas_setup(NULL);
}

/* The bound is never below the score, and, for ordinary numbers, hardly above it. */
static void bounds_hold(void **state)
{
    (void)state;
    static float x[ROWS * DIM_MOST];
    static float q[DIM_MOST];
    static const float scales[] = {1, 1e-3f, 1e6f, 1e-20f, 1e19f, 1e-38f, 3e38f, 0};
    for (uint32_t dim = 1; dim <= DIM_MOST; dim = dim < 70 ? dim + 1 : dim * 5 / 4) {
        for (size_t scale = 0; scale < sizeof scales / sizeof scales[0]; scale++) {
            struct scored picked[ROWS];
            struct sq8 *s = sq8_new(dim, ROWS);
            assert_non_null(s);
            for (size_t i = 0; i < ROWS * dim; i++) {
                x[i] = scales[scale] * (i % 7 == 0 ? rng_normal(&rng) * 0.1f : 2 * rng_uniform(&rng) - 1);
            }
            for (size_t i = 0; i < dim; i++) {
                q[i] = rng_normal(&rng);
            }
            sq8_put(s, 0, x, 50);
            sq8_put(s, 50, x + 50 * (size_t)dim, ROWS - 50);
            for (uint32_t i = 0; i < ROWS; i++) {
                picked[i].row = ROWS - 1 - i;
            }
            float norm = vec_norm(q, dim);
            float plain[ROWS];
            for (enum cpu_level level = CPU_PLAIN; level < CPU_LEVELS; level++) {
                cpu_limit(level);
                sq8_bound(s, q, norm, picked, ROWS);
                for (uint32_t i = 0; i < ROWS; i++) {
                    plain[i] = level == CPU_PLAIN ? picked[i].score : plain[i];
                    float off = fabsf(picked[i].score - plain[i]); /* the last bits: fused or not; NaN: infinite both */
                    assert_true(!(off > 1e-6f * norm * sqrtf((float)dim) * scales[scale]));
                }
            }
            for (uint32_t i = 0; i < ROWS; i++) {
                float score;
                const float *row = x + (size_t)picked[i].row * dim;
                vec_dot_rows(&score, row, 1, dim, q);
                assert_true(!(picked[i].score < score));
                if (scale < 3) {
                    float most = 0;
                    for (size_t j = 0; j < dim; j++) {
                        most = fmaxf(most, fabsf(row[j]));
                    }
                    /* twice the error of rounding to steps, at worst */
                    assert_true(picked[i].score <= score + 2.05f * norm * sqrtf((float)dim) * most / 254 + 1e-30f);
                }
            }
            sq8_release(s);
        }
    }
}

/* Codes that are exact: vectors of whole numbers up to 127. Every number has its place. */
static void whole_numbers_are_exact(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= 100; dim++) {
        float x[100], q[100];
        struct sq8 *s = sq8_new(dim, 3);
        for (size_t one = 0; one < dim; one++) {
            for (size_t i = 0; i < dim; i++) {
                x[i] = (float)rng_below(&rng, 255) - 127;
                q[i] = i == one;
            }
            x[(one + 1) % dim] = 127;
            sq8_put(s, 2, x, 1);
            struct scored picked = {0, 2};
            sq8_bound(s, q, 0, &picked, 1); /* of length 0: no room for the errors of codes */
            assert_float_equal(picked.score, x[one], 1e-5f * (fabsf(x[one]) + 1));
        }
        sq8_release(s);
    }
}

/* Filtered exact scans of an index with codes give what those of one without give, ties, floors and zeros included. */
static void scans_agree(void **state)
{
    (void)state;
    enum { N = 6000, DIM = 40, K = 30, WORDS = (N + 63) / 64, QUERIES = 60 };
    struct data_shape shape = {DIM, 30, 0.6f, 20};
    struct err e = ERR_INIT;
    float *x = data_new(&shape, N, 1, 0);
    for (size_t i = 0; i < N / 10; i++) { /* copies and zeros */
        memcpy(x + rng_below(&rng, N) * DIM, x + rng_below(&rng, 50) * DIM, DIM * sizeof *x);
        memset(x + rng_below(&rng, N) * DIM, 0, i % 9 == 0 ? DIM * sizeof *x : 0);
    }
    float *queries = data_new(&shape, QUERIES, 1, 1);
    memset(queries, 0, DIM * sizeof *queries);
    struct ann_vectors v = {x, N, DIM};
    struct ann_build_options flat = {.engine = "flat", .threads = 1};
    struct ann_build_options native = {.engine = "native", .threads = 2};
    struct ann *index[] = {ann_build(&v, &flat, &e), ann_build(&v, &native, &e)};
    struct ann_workspace *ws[] = {ann_workspace_new(index[0], K, &e), ann_workspace_new(index[1], K, &e)};
    uint64_t allow[WORDS];
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored hits[2][K];
        struct ann_answer a[2];
        struct ann_query q = {
            .vector = queries + i * DIM, .k = K, .exact = true, .min_score = -INFINITY, .allow = allow};
        memset(allow, 0, sizeof allow);
        for (size_t row = 0; row < N; row++) {
            allow[row / 64] |= (uint64_t)(rng_below(&rng, 5 + (uint32_t)i % 40) == 0) << row % 64;
        }
        for (size_t word = 0; word < WORDS; word++) {
            q.n_allow += (size_t)__builtin_popcountll(allow[word]);
        }
        if (i % 4 == 3) {
            q.min_score = hits[0][K / 2].score; /* of the query before */
        }
        for (size_t j = 0; j < 2; j++) {
            assert_int_equal(ann_search(index[j], ws[j], &q, hits[j], &a[j], &e), 0);
        }
        assert_int_equal(a[0].n, a[1].n);
        assert_memory_equal(hits[0], hits[1], a[0].n * sizeof hits[0][0]);
    }
    for (size_t j = 0; j < 2; j++) {
        ann_workspace_free(ws[j]);
        ann_free(index[j]);
    }
    mem_free(x);
    mem_free(queries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(whole_numbers_are_exact),
        cmocka_unit_test(scans_agree),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
