/*
 * What filters and exclusions cost, and what is found under them.
 *
 *   bench_filters BASE.npy QUERIES.npy ENGINE K TARGET_RECALL
 *
 * Tunes the engine to the target without a filter, then asks every query under filters that let through some share of the
 * rows: drawn at random (random), the rows nearest to one row (near: the query's own nearest; far: one row's for all queries),
 * and with 10,000 excluded rows. One line each: filter, share, recall@k against the exact answer, how many queries were
 * complete that could be, microseconds a query (median of rounds), the same in times of the search without a filter,
 * queries answered by an exact scan. Unfiltered searches alternate with filtered ones.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/bench/bench.h"
#include "train/npy.h"

enum { QUERIES = 300, ROUNDS = 5, EXCLUDED = 10000 };

static struct npy base;
static struct npy queries;
static struct ann *index_;
static struct ann_workspace *ws;
static struct scored *hits;
static struct scored *truth;
static size_t k;
static uint64_t *bits;

static struct ann_answer ask(struct ann_query *q, struct scored *to)
{
    struct err e = ERR_INIT;
    struct ann_answer answer;
    if (ann_search(index_, ws, q, to, &answer, &e) != 0) {
        fail(&e);
    }
    return answer;
}

static int descending(const void *a, const void *b)
{
    float x = ((const struct scored *)a)->score;
    float y = ((const struct scored *)b)->score;
    return (x < y) - (x > y);
}

/* The `n` rows with the largest products with x. */
static void allow_nearest(const float *x, size_t n)
{
    struct scored *all = mem_array(base.rows, sizeof *all);
    float *scores = mem_array(base.rows, sizeof *scores);
    vec_dot_rows(scores, base.data, base.rows, base.dim, x);
    for (size_t i = 0; i < base.rows; i++) {
        all[i] = (struct scored){scores[i], (uint32_t)i};
    }
    qsort(all, base.rows, sizeof *all, descending);
    for (size_t i = 0; i < n; i++) {
        bits[all[i].row / 64] |= UINT64_C(1) << all[i].row % 64;
    }
    mem_free(all);
    mem_free(scores);
}

static void allow_random(struct rng *r, size_t n)
{
    while (n > 0) {
        uint32_t row = rng_below(r, (uint32_t)base.rows);
        n -= (bits[row / 64] >> row % 64 & 1) == 0;
        bits[row / 64] |= UINT64_C(1) << row % 64;
    }
}

/* Microseconds a query. */
static double time_all(struct ann_query query, size_t first, size_t count)
{
    double started = monotonic_seconds();
    for (size_t i = first; i < first + count; i++) {
        query.vector = queries.data + i * base.dim;
        ask(&query, hits);
    }
    return 1e6 * (monotonic_seconds() - started) / (double)count;
}

static void measure(const char *name, double share, const uint64_t *allow, size_t n_allow, const uint32_t *exclude,
                    size_t n_exclude, size_t first, size_t count)
{
    double plain[ROUNDS], filtered[ROUNDS];
    struct ann_query plain_query = {.k = k, .min_score = -INFINITY};
    struct ann_query query = {
        .k = k, .min_score = -INFINITY, .allow = allow, .n_allow = n_allow, .exclude = exclude, .n_exclude = n_exclude};
    size_t found = 0, possible = 0, complete = 0, exact = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        plain[round] = time_all(plain_query, first, count);
        filtered[round] = time_all(query, first, count);
    }
    for (size_t i = first; i < first + count; i++) {
        query.vector = queries.data + i * base.dim;
        query.exact = false;
        struct ann_answer a = ask(&query, hits);
        query.exact = true;
        struct ann_answer all = ask(&query, truth);
        for (size_t j = 0; j < a.n; j++) {
            found += all.n > 0 && hits[j].score >= truth[all.n - 1].score;
        }
        possible += all.n;
        complete += a.n == all.n;
        exact += a.strategy == ANN_STRATEGY_EXACT;
    }
    double t = median(filtered, ROUNDS);
    double u = median(plain, ROUNDS);
    printf("%s\t%g\t%.4f\t%zu/%zu\t%.1f\t%.2f\t%zu\n", name, share,
           possible == 0 ? 1.0 : (double)found / (double)possible, complete, count, t, t / u, exact);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (argc != 6) {
        fprintf(stderr, "usage: bench_filters BASE.npy QUERIES.npy ENGINE K TARGET_RECALL\n");
        return 2;
    }
    k = strtoul(argv[4], NULL, 10);
    double target = strtod(argv[5], NULL);
    if (blas_setup(&e) != 0 || npy_open(&base, argv[1], &e) != 0 || npy_open(&queries, argv[2], &e) != 0) {
        fail(&e);
    }
    struct ann_vectors v = {base.data, base.rows, base.dim};
    struct ann_build_options options = {.engine = argv[3], .threads = 2};
    index_ = ann_build(&v, &options, &e);
    struct ann_truth *all = index_ == NULL ? NULL : ann_truth_new(&v, queries.data, queries.rows, k, 2, &e);
    struct ann_tuning tuning;
    if (all == NULL || ann_tune(index_, all, &target, 1, 2, &tuning, &e) != 0) {
        fail(&e);
    }
    ws = ann_workspace_new(index_, k, &e);
    hits = mem_array(k, sizeof *hits);
    truth = mem_array(k, sizeof *truth);
    size_t words = (base.rows + 63) / 64;
    bits = mem_array(words, sizeof *bits);
    printf("# %s, effort %zu, recall %.4f\nfilter\tshare\trecall\tcomplete\tus\ttimes\texact\n", argv[3], tuning.effort,
           tuning.recall);
    struct rng r;
    rng_seed(&r, 1, 0);
    size_t count = queries.rows < QUERIES ? queries.rows : QUERIES;
    const double shares[] = {0.5, 0.1, 0.01, 0.001, 0.0001, 0};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        size_t n = (size_t)(shares[i] * (double)base.rows);
        memset(bits, 0, words * sizeof *bits);
        allow_random(&r, n);
        measure("random", shares[i], bits, n, NULL, 0, 0, count);
    }
    for (size_t i = 0; i < 3; i++) {
        size_t n = (size_t)(shares[i] * (double)base.rows);
        memset(bits, 0, words * sizeof *bits);
        allow_nearest(base.data + 12345 % base.rows * base.dim, n);
        measure("far", shares[i], bits, n, NULL, 0, 0, count);
        memset(bits, 0, words * sizeof *bits);
        allow_nearest(queries.data, n);
        measure("near", shares[i], bits, n, NULL, 0, 0, 1);
    }
    static uint32_t excluded[EXCLUDED];
    memset(bits, 0, words * sizeof *bits);
    allow_random(&r, EXCLUDED);
    for (size_t row = 0, n = 0; row < base.rows; row++) {
        if ((bits[row / 64] >> row % 64 & 1) != 0) {
            excluded[n++] = (uint32_t)row;
        }
    }
    measure("excluded at random", EXCLUDED / (double)base.rows, NULL, 0, excluded, EXCLUDED, 0, count);
    ann_truth_free(all);
    return 0;
}
