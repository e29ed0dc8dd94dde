/*
 * How near searches come to what the machine allows, everything in turns, medians of rounds.
 *
 *   bench_limits BASE.npy QUERIES.npy K EFFORT
 *
 *   one exact query        bytes of vectors a second, beside a plain read (sum) of the same memory
 *   64 exact queries       multiplications a second, beside the bare matrix products: ours, and those of OpenBLAS
 *   two threads            queries a second of the native engine at an effort (0: its default), beside one thread
 *
 * OpenBLAS may not know the processor: set OPENBLAS_CORETYPE for its best kernels.
 */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/simd.h"
#include "core/vecmath.h"
#include "tests/bench/bench.h"
#include "train/npy.h"

enum { ROUNDS = 9, BATCH = 64, ROWS = 1024 };

static struct npy base, queries;
static size_t k;

static void print(const char *what, double ours, double limit, const char *unit)
{
    printf("%s\t%.1f\t%.1f\t%s\t%.2f\n", what, ours, limit, unit, ours / limit);
    fflush(stdout);
}

/* --- one exact query ---------------------------------------------------------------------------------------------- */

static volatile float sink;

SIMD_CLONES static float read_all(const float *x, size_t n)
{
    vec8 sum[8] = {{0}};
    for (size_t i = 0; i + 64 <= n; i += 64) {
        for (size_t j = 0; j < 8; j++) {
            sum[j] += *(const vec8 *)(const void *)(x + i + 8 * j);
        }
    }
    float all = 0;
    for (size_t j = 0; j < 8; j++) {
        all += sum[j][0] + sum[j][5];
    }
    return all;
}

static void ask(const struct ann *index, struct ann_batch *batch, struct ann_query *q, size_t n, struct scored **hits)
{
    struct err e = ERR_INIT;
    struct ann_answer answers[BATCH];
    if (ann_search_batch(index, batch, q, n, hits, answers, &e) != 0) {
        fail(&e);
    }
}

static void measure_exact(const struct ann *flat)
{
    struct err e = ERR_INIT;
    struct ann_batch *batch = ann_batch_new(flat, k, &e);
    struct scored *room = mem_array(BATCH * k, sizeof *room);
    float *together = mem_array(BATCH * base.dim, sizeof *together);
    float *product = mem_array((size_t)BATCH * ROWS, sizeof *product);
    struct ann_query q[BATCH];
    struct scored *hits[BATCH];
    for (size_t i = 0; i < BATCH; i++) {
        q[i] = (struct ann_query){
            .vector = queries.data + i % queries.rows * base.dim, .k = k, .exact = true, .min_score = -INFINITY};
        hits[i] = room + i * k;
        for (size_t j = 0; j < base.dim; j++) {
            together[i * base.dim + j] = q[i].vector[j];
        }
    }
    double one[ROUNDS], plain[ROUNDS], many[ROUNDS], ours[ROUNDS], blas[ROUNDS];
    size_t numbers = base.rows * base.dim;
    int dim = (int)base.dim;
    for (size_t round = 0; round < ROUNDS; round++) {
        double t = monotonic_seconds();
        ask(flat, batch, q + round, 1, hits);
        one[round] = 4e-9 * (double)numbers / (monotonic_seconds() - t);
        t = monotonic_seconds();
        sink = read_all(base.data, numbers);
        plain[round] = 4e-9 * (double)numbers / (monotonic_seconds() - t);
        t = monotonic_seconds();
        ask(flat, batch, q, BATCH, hits);
        many[round] = 2e-9 * BATCH * (double)numbers / (monotonic_seconds() - t);
        t = monotonic_seconds();
        for (size_t first = 0; first + ROWS <= base.rows; first += ROWS) {
            mat_mul_nt(product, together, base.data + first * base.dim, BATCH, ROWS, base.dim, false);
        }
        ours[round] = 2e-9 * BATCH * (double)(base.rows / ROWS * ROWS * base.dim) / (monotonic_seconds() - t);
        t = monotonic_seconds();
        for (size_t first = 0; first + ROWS <= base.rows; first += ROWS) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BATCH, ROWS, dim, 1.0f, together, dim,
                        base.data + first * base.dim, dim, 0.0f, product, ROWS);
        }
        blas[round] = 2e-9 * BATCH * (double)(base.rows / ROWS * ROWS * base.dim) / (monotonic_seconds() - t);
    }
    double many_median = median(many, ROUNDS);
    print("one exact query", median(one, ROUNDS), median(plain, ROUNDS), "GB/s, of a plain read");
    print("64 exact queries", many_median, median(ours, ROUNDS), "GFLOP/s, of our products");
    print("64 exact queries", many_median, median(blas, ROUNDS), "GFLOP/s, of OpenBLAS's");
    ann_batch_free(batch);
    mem_free(room);
    mem_free(together);
    mem_free(product);
}

/* --- two threads -------------------------------------------------------------------------------------------------- */

static void measure_threads(const struct ann *native, size_t effort)
{
    struct err e = ERR_INIT;
    struct ann_vectors v = {base.data, base.rows, base.dim};
    struct ann_truth *truth = ann_truth_new(&v, queries.data, queries.rows, k, 2, &e);
    double rate[2][ROUNDS];
    struct ann_point point = {0};
    for (size_t round = 0; truth != NULL && round < ROUNDS; round++) {
        for (unsigned threads = 1; threads <= 2; threads++) {
            if (ann_measure(native, truth, effort, threads, &point, &e) != 0) {
                fail(&e);
            }
            rate[threads - 1][round] = threads * 1e3 / point.microseconds;
        }
    }
    printf("# effort %zu, recall %.4f\n", point.effort, point.recall);
    print("two threads", median(rate[1], ROUNDS), median(rate[0], ROUNDS), "1,000 queries/s, of one thread");
    ann_truth_free(truth);
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (argc != 5) {
        fprintf(stderr, "usage: bench_limits BASE.npy QUERIES.npy K EFFORT\n");
        return 2;
    }
    k = strtoul(argv[3], NULL, 10);
    if (blas_setup(&e) != 0 || npy_open(&base, argv[1], &e) != 0 || npy_open(&queries, argv[2], &e) != 0) {
        fail(&e);
    }
    struct ann_vectors v = {base.data, base.rows, base.dim};
    struct ann_build_options flat = {.engine = "flat", .threads = 2};
    struct ann_build_options native = {.engine = "native", .threads = 2};
    struct ann *exact = ann_build(&v, &flat, &e);
    if (exact == NULL) {
        fail(&e);
    }
    measure_exact(exact);
    struct ann *index = ann_build(&v, &native, &e);
    if (index == NULL) {
        fail(&e);
    }
    measure_threads(index, strtoul(argv[4], NULL, 10));
    ann_free(exact);
    ann_free(index);
    return 0;
}
