/*
 * Is a recall target kept? Ten data sets of different shape, made here; on each an index is built and tuned as `recall-train
 * fit` does it, with INDEX_QUERIES queries, and what the chosen efforts give is measured on fresh queries of the same kind.
 *
 *   bench_targets [ROUNDS [ENGINE [SET]]]          5 rounds, native, all sets; one thread searches
 *
 * Every round draws other queries, to tune with and fresh. One line each: set, rows, numbers a row, round, target, effort,
 * recall@100 at the tuning, on fresh queries, the latter less the target, how far below the true mean may lie (95 %),
 * microseconds a query, those of an exact scan. Ends with status 1 when fresh queries got less than the target - .005 anywhere.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "train/index_build.h"

enum { CENTRES = 2000, FRESH = 4000, EXACT = 200, TARGETS = 3 };

static const double targets[TARGETS] = {0.98, 0.95, 0.90};
static const double allowed = 0.005;

/* --- the sets ------------------------------------------------------------------------------------------------------- */

/* What the rows and the queries of a set have in common: random directions. */
struct world {
    size_t dim;
    float *centres; /* [CENTRES, dim] of length 1 */
};

typedef void fill_row(const struct world *w, struct rng *r, float *x, bool query);

static void fill_gaussian(const struct world *w, struct rng *r, float *x, bool query)
{
    (void)query;
    for (size_t i = 0; i < w->dim; i++) {
        x[i] = rng_normal(r);
    }
}

static void fill_sphere(const struct world *w, struct rng *r, float *x, bool query)
{
    fill_gaussian(w, r, x, query);
    vec_normalize_rows(x, 1, w->dim, NULL);
}

/* Noise of length `noise` around a centre; centre j is as frequent as 1 / (j + 1). */
static void fill_around(const struct world *w, struct rng *r, float *x, size_t centres, float noise)
{
    size_t centre = (size_t)powf((float)centres, rng_uniform(r)) - 1;
    fill_gaussian(w, r, x, false);
    vec_scale(x, noise / sqrtf((float)w->dim), w->dim);
    vec_add_scaled(x, w->centres + centre * w->dim, 1.0f, w->dim);
}

static void fill_clusters(const struct world *w, struct rng *r, float *x, bool query)
{
    (void)query;
    fill_around(w, r, x, CENTRES, 0.7f);
    vec_normalize_rows(x, 1, w->dim, NULL);
}

/* Twelve directions carry all but a little. */
static void fill_low_rank(const struct world *w, struct rng *r, float *x, bool query)
{
    enum { RANK = 12 };
    fill_gaussian(w, r, x, query);
    vec_scale(x, 0.02f, w->dim);
    for (size_t i = 0; i < RANK; i++) {
        vec_add_scaled(x, w->centres + i * w->dim, rng_normal(r), w->dim);
    }
}

/* The variance of number i is (i + 1)^-1.5. */
static void fill_spectrum(const struct world *w, struct rng *r, float *x, bool query)
{
    fill_gaussian(w, r, x, query);
    for (size_t i = 0; i < w->dim; i++) {
        x[i] *= powf((float)(i + 1), -0.75f);
    }
}

/* Popular items: lengths from 1 to 100, a heavy tail. */
static void fill_norms(const struct world *w, struct rng *r, float *x, bool query)
{
    fill_clusters(w, r, x, query);
    if (!query) {
        vec_scale(x, fminf(powf(1.0f - rng_uniform(r), -0.7f), 100.0f), w->dim);
    }
}

/* 40 % in twenty groups of equal rows, 40 % almost equal to one of 500, the rest on their own. */
static void fill_copies(const struct world *w, struct rng *r, float *x, bool query)
{
    enum { EQUAL = 20, ALMOST = 500 };
    float kind = rng_uniform(r);
    if (kind < 0.4f && !query) {
        memcpy(x, w->centres + rng_below(r, EQUAL) * w->dim, w->dim * sizeof *x);
        return;
    }
    fill_gaussian(w, r, x, query);
    vec_scale(x, (kind < 0.8f && !query ? 0.01f : 0.7f) / sqrtf((float)w->dim), w->dim);
    vec_add_scaled(x, w->centres + rng_below(r, ALMOST) * w->dim, 1.0f, w->dim);
}

/* A dozen numbers above zero, those at the front more often. */
static void fill_sparse(const struct world *w, struct rng *r, float *x, bool query)
{
    (void)query;
    memset(x, 0, w->dim * sizeof *x);
    for (size_t i = 0; i < 12; i++) {
        x[(size_t)powf((float)w->dim, rng_uniform(r)) - 1] += -logf(1.0f - rng_uniform(r));
    }
}

/* Users: all have a common part, and like up to three kinds of items; one in ten likes nothing in particular. */
static void fill_towers(const struct world *w, struct rng *r, float *x, bool query)
{
    if (!query) {
        fill_around(w, r, x, 500, 0.5f);
        return;
    }
    fill_gaussian(w, r, x, query);
    vec_scale(x, 0.4f / sqrtf((float)w->dim), w->dim);
    vec_add_scaled(x, w->centres + (CENTRES - 1) * w->dim, 0.8f, w->dim);
    for (uint32_t likes = rng_below(r, 10) == 0 ? 0 : 1 + rng_below(r, 3); likes > 0; likes--) {
        vec_add_scaled(x, w->centres + rng_below(r, 500) * w->dim, rng_uniform(r), w->dim);
    }
}

static const struct set {
    const char *name;
    size_t n, dim;
    fill_row *fill;
} sets[] = {
    {"gaussian", 20000, 128, fill_gaussian},    {"sphere", 100000, 32, fill_sphere},
    {"clusters", 200000, 64, fill_clusters},    {"low rank", 100000, 128, fill_low_rank},
    {"spectrum", 100000, 96, fill_spectrum},    {"norms x 100", 100000, 64, fill_norms},
    {"copies", 50000, 64, fill_copies},         {"sparse", 50000, 256, fill_sparse},
    {"other queries", 100000, 64, fill_towers}, {"small", 2000, 48, fill_clusters},
};

/* New array [n, dim]. */
static float *draw(const struct set *s, const struct world *w, size_t n, uint64_t stream, bool query)
{
    struct rng r;
    float *x = mem_array(n * s->dim, sizeof *x);
    rng_seed(&r, 1, stream);
    for (size_t i = 0; x != NULL && i < n; i++) {
        s->fill(w, &r, x + i * s->dim, query);
    }
    return x;
}

/* --- measuring ------------------------------------------------------------------------------------------------------ */

static void fail(const struct err *e)
{
    fprintf(stderr, "bench_targets: %s\n", e->message);
    exit(1);
}

/* Microseconds of an exact scan. */
static double time_exact(const struct ann_vectors *v, const float *queries)
{
    struct err e = ERR_INIT;
    struct ann_point point;
    struct ann *flat = ann_open("flat", NULL, v, 0, &e);
    struct ann_truth *truth = flat == NULL ? NULL : ann_truth_new(v, queries, EXACT, INDEX_RECALL_K, 1, &e);
    if (truth == NULL || ann_measure(flat, truth, 0, 1, &point, &e) != 0) {
        fail(&e);
    }
    ann_truth_free(truth);
    ann_free(flat);
    return point.microseconds;
}

/* Tunes with `queries` and prints what `fresh` ones get; returns how many targets were missed. */
static size_t run_round(const struct set *s, const struct ann_vectors *v, struct ann *index, size_t round,
                        const float *queries, const float *fresh)
{
    struct err e = ERR_INIT;
    struct ann_tuning tuning;
    struct ann_truth *truth = ann_truth_new(v, queries, INDEX_QUERIES, INDEX_RECALL_K, 1, &e);
    struct ann_truth *fresh_truth = truth == NULL ? NULL : ann_truth_new(v, fresh, FRESH, INDEX_RECALL_K, 1, &e);
    size_t missed = 0;
    if (fresh_truth == NULL || ann_tune(index, truth, targets, TARGETS, 1, &tuning, &e) != 0) {
        fail(&e);
    }
    double exact = time_exact(v, fresh);
    for (size_t i = TARGETS; i-- > 0;) {
        size_t found = ann_tuning_find(&tuning, targets[i]);
        struct ann_point none = {.effort = 0, .recall = 1};
        struct ann_point at = tuning.n == 0 ? none : tuning.points[found < tuning.n ? found : tuning.n - 1];
        struct ann_point got;
        ann_set_effort(index, at.effort);
        if (ann_measure(index, fresh_truth, 0, 1, &got, &e) != 0) {
            fail(&e);
        }
        bool bad = got.recall < targets[i] - allowed || (tuning.n > 0 && found == tuning.n);
        printf("%s\t%zu\t%zu\t%zu\t%g\t%zu\t%.4f\t%.4f\t%+.4f\t%.4f\t%.0f\t%.0f%s\n", s->name, s->n, s->dim, round,
               targets[i], at.effort, at.recall, got.recall, got.recall - targets[i], got.recall - got.low,
               got.microseconds, exact, bad ? "\tMISSED" : "");
        fflush(stdout);
        missed += bad;
    }
    ann_truth_free(truth);
    ann_truth_free(fresh_truth);
    return missed;
}

static size_t run_set(const struct set *s, const char *engine, size_t rounds)
{
    struct err e = ERR_INIT;
    struct world w = {s->dim, mem_array(CENTRES * s->dim, sizeof(float))};
    struct rng r;
    rng_seed(&r, 1, 0);
    for (size_t i = 0; i < CENTRES; i++) {
        fill_sphere(&w, &r, w.centres + i * s->dim, false);
    }
    float *rows = draw(s, &w, s->n, 1, false);
    struct ann_vectors v = {rows, s->n, (uint32_t)s->dim};
    struct ann *index = ann_build(&v, &(struct ann_build_options){.engine = engine, .threads = 1}, &e);
    if (index == NULL) {
        fail(&e);
    }
    size_t missed = 0;
    for (size_t round = 1; round <= rounds; round++) {
        float *queries = draw(s, &w, INDEX_QUERIES, 2 * round, true);
        float *fresh = draw(s, &w, FRESH, 2 * round + 1, true);
        missed += run_round(s, &v, index, round, queries, fresh);
        mem_free(queries);
        mem_free(fresh);
    }
    ann_free(index);
    mem_free(rows);
    mem_free(w.centres);
    return missed;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
    size_t missed = 0;
    size_t ran = 0;
    if (argc > 4 || rounds == 0) {
        fprintf(stderr, "usage: bench_targets [ROUNDS [ENGINE [SET]]]\n");
        return 2;
    }
    if (blas_setup(&e) != 0) {
        fail(&e);
    }
    printf("set\trows\tdim\tround\ttarget\teffort\trecall\tfresh\tless target\tbelow\tus\texact us\n");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (argc < 4 || strcmp(argv[3], sets[i].name) == 0) {
            missed += run_set(&sets[i], argc > 2 ? argv[2] : "native", rounds);
            ran++;
        }
    }
    printf("# missed: %zu\n", missed);
    return missed > 0 || ran == 0;
}
