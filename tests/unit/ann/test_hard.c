/* Every engine on vectors that are hard or degenerate: built, tuned, saved, opened, asked, with and without exclusions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

enum { K = 50, HELD_OUT = 200, FRESH = 100 };

static const struct {
    const char *name, *factory;
} engines[] = {{"flat", NULL}, {"native", NULL}, {"faiss", "HNSW16"}};
enum { N_ENGINES = sizeof engines / sizeof *engines };

static char *directory;

static int setup(void **state)
{
    (void)state;
    directory = directory_new();
    return directory == NULL;
}

static int teardown(void **state)
{
    (void)state;
    dir_remove_tree(directory, NULL);
    mem_free(directory);
    return 0;
}

/* --- sets ----------------------------------------------------------------------------------------------------------- */

static void fill_normal(struct rng *r, float *x, size_t i, uint32_t dim)
{
    (void)i;
    for (size_t j = 0; j < dim; j++) {
        x[j] = rng_normal(r);
    }
}

static void fill_zeros(struct rng *r, float *x, size_t i, uint32_t dim)
{
    (void)r;
    (void)i;
    memset(x, 0, dim * sizeof *x);
}

/* Of length 1, a third of them zeros: as rows are that were (almost) zero before a cosine. */
static void fill_cosine(struct rng *r, float *x, size_t i, uint32_t dim)
{
    fill_normal(r, x, i, dim);
    vec_scale(x, i % 6 == 0 ? 0.0f : i % 6 == 1 ? 1e-30f : 1.0f, dim);
    vec_normalize_rows(x, 1, dim, NULL);
}

static void fill_equal(struct rng *r, float *x, size_t i, uint32_t dim)
{
    (void)r;
    (void)i;
    for (size_t j = 0; j < dim; j++) {
        x[j] = (float)j - 3.0f;
    }
}

/* Half are copies of five rows, a thousand each. */
static void fill_copies(struct rng *r, float *x, size_t i, uint32_t dim)
{
    struct rng same;
    rng_seed(&same, 2, i % 10);
    fill_normal(i % 2 == 0 ? &same : r, x, i, dim);
}

static const struct set {
    const char *name;
    size_t n;
    uint32_t dim;
    void (*fill)(struct rng *r, float *x, size_t i, uint32_t dim);
} sets[] = {
    {"no rows", 0, 8, fill_normal},
    {"one row", 1, 8, fill_normal},
    {"fewer than k", K - 1, 8, fill_normal},
    {"zeros", 3000, 8, fill_zeros},
    {"zeros in a cosine", 6000, 16, fill_cosine},
    {"all equal", 3000, 8, fill_equal},
    {"copies by the thousand", 10000, 16, fill_copies},
    {"one number", 5000, 1, fill_normal},
    {"2,048 numbers", 1500, 2048, fill_normal},
};

static float *draw(const struct set *s, size_t n, uint64_t stream)
{
    struct rng r;
    float *x = mem_array(n * s->dim + 1, sizeof *x);
    assert_non_null(x);
    rng_seed(&r, 3, stream);
    for (size_t i = 0; i < n; i++) {
        s->fill(&r, x + i * s->dim, i, s->dim);
    }
    return x;
}

/* --- every engine on every set -------------------------------------------------------------------------------------- */

static struct ann *build_tuned(size_t engine, const struct ann_vectors *v, const float *held_out, double target)
{
    struct err e = ERR_INIT;
    struct ann_build_options options = {
        .engine = engines[engine].name, .factory = engines[engine].factory, .threads = 1};
    struct ann *index = ann_build(v, &options, &e);
    struct ann_tuning tuned;
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    assert_int_equal(tune(index, v, held_out, HELD_OUT, K, target, &tuned), 0);
    assert_true(tuned.reached);
    return index;
}

static struct ann *through_a_file(struct ann *index, const struct ann_vectors *v)
{
    struct err e = ERR_INIT;
    char *path = path_join(directory, "index");
    const char *name = ann_engine_name(index);
    unlink(path);
    assert_int_equal(ann_save(index, path, &e), 0);
    struct ann *opened = ann_open(name, ann_has_file(name) ? path : NULL, v, ann_effort(index), &e);
    if (opened == NULL) {
        fail_msg("%s", e.message);
    }
    assert_int_equal(ann_effort(opened), ann_effort(index));
    ann_free(index);
    mem_free(path);
    return opened;
}

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Asks, checks what every answer must be, and returns the share of the true rows, which `truth` [K] gets. */
static double ask(const struct ann *index, struct ann_workspace *ws, const struct ann_vectors *v, struct ann_query q,
                  struct scored *truth)
{
    struct err e = ERR_INIT;
    struct scored hits[K];
    struct ann_answer all, a;
    q.exact = true;
    assert_int_equal(ann_search(index, ws, &q, truth, &all, &e), 0);
    q.exact = false;
    assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
    size_t left = v->n > q.n_exclude ? v->n - q.n_exclude : 0;
    assert_int_equal(all.n, left < K ? left : K);
    assert_int_equal(a.n, all.n);
    assert_int_equal(a.complete, a.n == K);
    size_t found = 0;
    for (size_t i = 0; i < a.n; i++) {
        float score;
        vec_dot_rows(&score, v->data + (size_t)hits[i].row * v->dim, 1, v->dim, q.vector);
        assert_true(score == hits[i].score);
        assert_true(i == 0 || scored_before(hits[i - 1], hits[i])); /* so no row comes twice */
        assert_null(q.n_exclude == 0 ? NULL
                                     : bsearch(&hits[i].row, q.exclude, q.n_exclude, sizeof *q.exclude, compare_rows));
        found += hits[i].score >= truth[all.n - 1].score;
    }
    return all.n == 0 ? 1 : (double)found / (double)all.n;
}

/* Mean recall of the queries, as they are and with their best rows excluded. */
static void ask_all(const struct ann *index, const struct ann_vectors *v, const float *queries, size_t count,
                    double recall[2])
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    assert_non_null(ws);
    recall[0] = recall[1] = 0;
    for (size_t i = 0; i < count; i++) {
        struct scored truth[K], rest[K];
        uint32_t exclude[K];
        struct ann_query q = {.vector = queries + i * v->dim, .k = K, .min_score = -INFINITY};
        recall[0] += ask(index, ws, v, q, truth) / (double)count;
        q.n_exclude = v->n < K ? v->n : K;
        for (size_t j = 0; j < q.n_exclude; j++) {
            exclude[j] = truth[j].row;
        }
        qsort(exclude, q.n_exclude, sizeof *exclude, compare_rows);
        q.exclude = exclude;
        recall[1] += ask(index, ws, v, q, rest) / (double)count;
    }
    ann_workspace_free(ws);
}

static void degenerate_sets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const struct set *s = &sets[i];
        struct ann_vectors v = {draw(s, s->n, 0), s->n, s->dim};
        float *held_out = draw(s, HELD_OUT, 1);
        float *fresh = draw(s, FRESH, 2);
        float *zero = mem_array(s->dim, sizeof *zero);
        for (size_t engine = 0; engine < N_ENGINES; engine++) {
            struct ann *index = through_a_file(build_tuned(engine, &v, held_out, 0.95), &v);
            double recall[2], of_zero[2];
            ask_all(index, &v, fresh, FRESH, recall);
            ask_all(index, &v, zero, 1, of_zero);
            if (recall[0] < 0.94 || recall[1] < 0.94 || of_zero[0] < 1 || of_zero[1] < 1) {
                fail_msg("%s, %s: recall %.3f, with exclusions %.3f, of a query of zeros %.3f and %.3f", s->name,
                         engines[engine].name, recall[0], recall[1], of_zero[0], of_zero[1]);
            }
            ann_free(index);
        }
        mem_free((void *)(uintptr_t)v.data);
        mem_free(held_out);
        mem_free(fresh);
        mem_free(zero);
    }
}

/* Popular items: lengths from 1 to 100, most of them short. The target is kept, and by the index: not by scans of everything because
 * the lists around the longest rows are short. */
static void lengths_with_a_heavy_tail(void **state)
{
    (void)state;
    enum { N = 20000, DIM = 32 };
    struct data_shape shape = {DIM, 200, 0.7f, 1};
    float *data = data_new(&shape, N, 4, 0);
    float *held_out = data_new(&shape, HELD_OUT, 4, 1);
    float *fresh = data_new(&shape, FRESH, 4, 2);
    struct ann_vectors v = {data, N, DIM};
    struct rng r;
    rng_seed(&r, 4, 4);
    for (size_t i = 0; i < N; i++) {
        vec_scale(data + i * DIM, fminf(powf(1.0f - rng_uniform(&r), -0.7f), 100.0f), DIM);
    }
    for (size_t engine = 0; engine < N_ENGINES; engine++) {
        struct err e = ERR_INIT;
        struct ann *index = build_tuned(engine, &v, held_out, 0.95);
        struct ann_workspace *ws = ann_workspace_new(index, K, &e);
        double recall = 0;
        size_t exact = 0;
        for (size_t i = 0; i < FRESH; i++) {
            struct scored truth[K], hits[K];
            struct ann_query q = {.vector = fresh + i * DIM, .k = K, .min_score = -INFINITY};
            struct ann_answer a;
            recall += ask(index, ws, &v, q, truth) / FRESH;
            assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
            exact += a.strategy == ANN_STRATEGY_EXACT;
        }
        if (recall < 0.94 || (engine > 0 && exact > FRESH / 20)) {
            fail_msg("%s: recall %.3f at effort %zu, %zu exact scans", engines[engine].name, recall, ann_effort(index),
                     exact);
        }
        ann_workspace_free(ws);
        ann_free(index);
    }
    mem_free(data);
    mem_free(held_out);
    mem_free(fresh);
}

/* Numbers that are none are refused, in rows and in queries, and so are rows excluded twice. */
static void refused(void **state)
{
    (void)state;
    enum { N = 200, DIM = 4, ROW = 150 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float data[N * DIM];
    struct rng r;
    rng_seed(&r, 5, 0);
    for (size_t i = 0; i < N; i++) {
        fill_normal(&r, data + i * DIM, i, DIM);
    }
    struct ann_vectors v = {data, N, DIM};
    for (size_t engine = 0; engine < N_ENGINES; engine++) {
        struct ann_build_options options = {
            .engine = engines[engine].name, .factory = engines[engine].factory, .threads = 1};
        struct err none = ERR_INIT;
        struct ann *index = ann_build(&v, &options, &none);
        struct ann_workspace *ws = ann_workspace_new(index, K, &none);
        struct scored hits[K];
        struct ann_answer a;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            struct err e = ERR_INIT;
            float kept = data[ROW * DIM + 1];
            float query[DIM] = {1, bad[i], 1, 1};
            struct ann_query q = {.vector = query, .k = K, .min_score = -INFINITY};
            assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), -1);
            assert_non_null(strstr(e.message, "not finite"));
            err_clear(&e);
            data[ROW * DIM + 1] = bad[i];
            assert_null(ann_build(&v, &options, &e));
            assert_non_null(strstr(e.message, "row 150"));
            data[ROW * DIM + 1] = kept;
        }
        struct err e = ERR_INIT;
        uint32_t twice[] = {3, 8, 8};
        struct ann_query q = {.vector = data, .k = K, .min_score = -INFINITY, .exclude = twice, .n_exclude = 3};
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), -1);
        assert_non_null(strstr(e.message, "unique"));
        ann_workspace_free(ws);
        ann_free(index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(degenerate_sets),
        cmocka_unit_test(lengths_with_a_heavy_tail),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
