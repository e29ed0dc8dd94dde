/* The native engine: recall on vectors of many kinds, files and their damage, concurrent searches, short memory. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "ann/ivf.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

enum { QUERIES = 100 };

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

static struct ann *build(const struct ann_vectors *v, unsigned threads)
{
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = "native", .threads = threads};
    struct ann *index = ann_build(v, &options, &e);
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    return index;
}

static double recall_of(const struct ann *index, const float *queries, size_t k, size_t effort)
{
    struct err e = ERR_INIT;
    double recall;
    if (ann_measure_recall(index, queries, QUERIES, k, effort, 2, &recall, &e) != 0) {
        fail_msg("%s", e.message);
    }
    return recall;
}

/* Tuned on other queries, the index gives fresh ones what was asked for, whatever the data. */
static void recall_by_tuning(void **state)
{
    (void)state;
    static const struct {
        struct data_shape shape;
        size_t n, k;
        double target;
    } worlds[] = {
        {{64, 100, 0.7f, 1}, 20000, 100, 0.95}, {{64, 100, 0.7f, 100}, 20000, 50, 0.95}, /* lengths differ */
        {{32, 0, 1, 1}, 10000, 10, 0.9},                                                 /* no structure */
        {{2, 10, 0.5f, 1}, 5000, 10, 0.95},     {{1, 5, 0.5f, 10}, 3000, 10, 0.9},
        {{257, 40, 0.7f, 1}, 5000, 20, 0.95},   {{2048, 10, 0.7f, 1}, 1500, 10, 0.95},
        {{16, 3, 0.1f, 1}, 400, 100, 0.95},
    };
    for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
        struct ann_vectors v = {data_new(&worlds[i].shape, worlds[i].n, 5, 0), worlds[i].n,
                                (uint32_t)worlds[i].shape.dim};
        float *held_out = data_new(&worlds[i].shape, QUERIES, 5, 1);
        float *queries = data_new(&worlds[i].shape, QUERIES, 5, 2);
        struct ann *index = build(&v, 2);
        struct ann_tuning tuned;
        assert_int_equal(tune(index, &v, held_out, QUERIES, worlds[i].k, worlds[i].target, &tuned), 0);
        double recall = recall_of(index, queries, worlds[i].k, 0);
        if (tuned.recall < worlds[i].target || recall < worlds[i].target - 0.03) {
            fail_msg("world %zu: recall %.3f (tuned on: %.3f at effort %zu)", i, recall, tuned.recall, tuned.effort);
        }
        ann_free(index);
        mem_free((void *)(uintptr_t)v.data);
        mem_free(held_out);
        mem_free(queries);
    }
}

static bool contains(const uint32_t *rows, size_t n, uint32_t row)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i] == row) {
            return true;
        }
    }
    return false;
}

/* How many of the hits stand in the lists with the best centroids, by all their scores. */
static size_t count_in_lists(const struct ivf *f, const float *query, size_t lists, const struct scored *hits, size_t n)
{
    float *score = mem_array(f->n_lists, sizeof *score);
    struct scored *best = mem_array(lists, sizeof *best);
    vec_dot_rows(score, f->centroids, f->n_lists, f->dim, query);
    topk_naive(best, lists, score, f->n_lists);
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        bool in = false;
        for (size_t j = 0; j < lists; j++) {
            uint32_t list = best[j].row;
            in |= contains(f->rows + (size_t)f->block_start[list] * PQ_BLOCK, f->list_size[list], hits[i].row);
        }
        found += in;
    }
    mem_free(score);
    mem_free(best);
    return found;
}

/* With many lists, those to look into are proposed by codes of their centroids. Nearly every answer comes from the lists whose
 * centroids are best by exact scores, whatever the lengths of vectors. */
static void lists_by_codes(void **state)
{
    (void)state;
    enum { N = 60000, DIM = 24, K = 10, EFFORT = 4, SIZE = 50 };
    static const struct data_shape shapes[] = {{DIM, 300, 0.7f, 1}, {DIM, 300, 0.7f, 100}, {DIM, 0, 1, 1}};
    for (size_t shape = 0; shape < sizeof shapes / sizeof shapes[0]; shape++) {
        struct err e = ERR_INIT;
        struct ann_vectors v = {data_new(&shapes[shape], N, 3, 0), N, DIM};
        float *queries = data_new(&shapes[shape], SIZE, 3, 1);
        struct ann *index = build(&v, 2);
        struct ann_workspace *ws = ann_workspace_new(index, K, &e);
        struct ivf same_lists = {0};
        struct ann_build_options options = {.engine = "native", .threads = 2};
        assert_int_equal(ivf_build(&same_lists, &v, &options, &e), 0);
        size_t in_best = 0;
        for (size_t i = 0; i < SIZE; i++) {
            struct scored hits[K];
            struct ann_answer answer;
            struct ann_query q = {.vector = queries + i * DIM, .k = K, .effort = EFFORT, .min_score = -INFINITY};
            assert_int_equal(ann_search(index, ws, &q, hits, &answer, &e), 0);
            assert_int_equal(answer.strategy, ANN_STRATEGY_ANN);
            in_best += count_in_lists(&same_lists, q.vector, EFFORT, hits, K);
        }
        assert_in_range(in_best, SIZE * K * 97 / 100, SIZE * K);
        ivf_release(&same_lists);
        ann_workspace_free(ws);
        ann_free(index);
        mem_free((void *)(uintptr_t)v.data);
        mem_free(queries);
    }
}

/* A search proposes a row once, has exact scores, and more effort never finds less. */
static void answers_are_exact_scores(void **state)
{
    (void)state;
    enum { N = 8000, DIM = 24, K = 50 };
    struct data_shape shape = {DIM, 30, 0.7f, 3};
    struct ann_vectors v = {data_new(&shape, N, 6, 0), N, DIM};
    float *queries = data_new(&shape, QUERIES, 6, 1);
    struct ann *index = build(&v, 2);
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    static uint8_t seen[N];
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored hits[K];
        struct ann_query q = {.vector = queries + i * DIM, .k = K, .effort = 8, .min_score = -INFINITY};
        struct ann_answer a;
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_int_equal(a.n, K);
        assert_int_equal(a.strategy, ANN_STRATEGY_ANN);
        memset(seen, 0, sizeof seen);
        for (size_t j = 0; j < K; j++) {
            float score;
            assert_false(seen[hits[j].row]++);
            assert_true(j == 0 || scored_before(hits[j - 1], hits[j]));
            vec_dot_rows(&score, v.data + (size_t)hits[j].row * DIM, 1, DIM, q.vector);
            assert_true(score == hits[j].score);
        }
    }
    ann_workspace_free(ws);
    double few = recall_of(index, queries, K, 1);
    double more = recall_of(index, queries, K, 6);
    double all = recall_of(index, queries, K, SIZE_MAX);
    assert_true(few < more && more <= all + 1e-9 && all > 0.97);
    ann_free(index);
    mem_free((void *)(uintptr_t)v.data);
    mem_free(queries);
}

static void excluded_rows_never_come(void **state)
{
    (void)state;
    enum { N = 20000, DIM = 32, K = 20, EXCLUDED = 400 };
    struct data_shape shape = {DIM, 20, 0.7f, 1};
    struct ann_vectors v = {data_new(&shape, N, 7, 0), N, DIM};
    float *queries = data_new(&shape, QUERIES, 7, 1);
    struct ann *index = build(&v, 2);
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, EXCLUDED + K, &e);
    size_t found = 0;
    for (size_t i = 0; i < 20; i++) {
        struct scored best[EXCLUDED + K], hits[K];
        uint32_t exclude[EXCLUDED];
        struct ann_answer a;
        struct ann_query q = {.vector = queries + i * DIM, .k = EXCLUDED + K, .exact = true, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws, &q, best, &a, &e), 0);
        static uint8_t out[N];
        memset(out, 0, sizeof out);
        for (size_t j = 0; j < EXCLUDED; j++) {
            out[best[j].row] = 1;
        }
        size_t n = 0;
        for (uint32_t row = 0; row < N; row++) {
            if (out[row]) {
                exclude[n++] = row;
            }
        }
        q = (struct ann_query){.vector = q.vector,
                               .k = K,
                               .effort = 12,
                               .min_score = -INFINITY,
                               .exclude = exclude,
                               .n_exclude = EXCLUDED};
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_true(a.complete && a.n == K);
        for (size_t j = 0; j < K; j++) {
            assert_false(out[hits[j].row]);
            found += hits[j].score >= best[EXCLUDED + K - 1].score;
        }
    }
    assert_true((double)found >= 0.9 * 20 * K);
    ann_workspace_free(ws);
    ann_free(index);
    mem_free((void *)(uintptr_t)v.data);
    mem_free(queries);
}

/* Rows that are all the same, of zeros, fewer than k, one, none. */
static void degenerate_vectors(void **state)
{
    (void)state;
    enum { DIM = 8, MOST = 3000 };
    static float data[MOST * DIM];
    for (size_t kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < MOST * DIM; i++) {
            data[i] = kind == 0 ? 0.0f : (float)(i % DIM) - 3.0f;
        }
        static const size_t sizes[] = {0, 1, 2, 31, 33, MOST};
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            struct ann_vectors v = {data, sizes[s], DIM};
            struct err e = ERR_INIT;
            struct ann *index = build(&v, 2);
            struct ann_workspace *ws = ann_workspace_new(index, 50, &e);
            struct scored hits[50];
            struct ann_answer a;
            float query[DIM] = {1, 2, 3, 4, 5, 6, 7, 8};
            struct ann_query q = {.vector = query, .k = 50, .min_score = -INFINITY};
            assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
            assert_int_equal(a.n, sizes[s] < 50 ? sizes[s] : 50);
            assert_int_equal(a.complete, sizes[s] >= 50);
            for (size_t j = 0; j < a.n; j++) {
                assert_true(hits[j].score == (kind == 0 ? 0.0f : vec_dot(query, data, DIM)));
            }
            ann_workspace_free(ws);
            ann_free(index);
        }
    }
}

static void refused_builds(void **state)
{
    (void)state;
    float data[4] = {1, 2, NAN, 4};
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = "native", .threads = 1};
    struct ann_vectors v = {data, 2, 2};
    assert_null(ann_build(&v, &options, &e));
    assert_non_null(strstr(e.message, "row 1"));
    data[2] = 3;
    e = (struct err)ERR_INIT;
    options.factory = "HNSW32";
    assert_null(ann_build(&v, &options, &e));
    assert_non_null(strstr(e.message, "factory"));
    static float wide[8193];
    v = (struct ann_vectors){wide, 1, 8193};
    options.factory = "";
    e = (struct err)ERR_INIT;
    assert_null(ann_build(&v, &options, &e));
    assert_non_null(strstr(e.message, "8193"));
}

/* --- files -------------------------------------------------------------------------------------------------------- */

enum { FILE_ROWS = 2000, FILE_DIM = 10, FILE_K = 5 };

static void answer_all(const struct ann *index, const float *queries, struct scored *hits)
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, FILE_K, &e);
    for (size_t i = 0; i < QUERIES; i++) {
        struct ann_query q = {.vector = queries + i * FILE_DIM, .k = FILE_K, .effort = 3, .min_score = -INFINITY};
        struct ann_answer a;
        if (ann_search(index, ws, &q, hits + i * FILE_K, &a, &e) != 0 || a.n != FILE_K) {
            abort(); /* also called outside cmocka's thread */
        }
    }
    ann_workspace_free(ws);
}

static char *saved(const struct ann *index, const char *name)
{
    struct err e = ERR_INIT;
    char *path = path_join(directory, name);
    unlink(path);
    if (ann_save(index, path, &e) != 0) {
        fail_msg("%s", e.message);
    }
    return path;
}

/* Any number of threads makes the same file, and it answers as the index that was saved. */
static void files(void **state)
{
    (void)state;
    struct data_shape shape = {FILE_DIM, 20, 0.7f, 2};
    struct ann_vectors v = {data_new(&shape, FILE_ROWS, 8, 0), FILE_ROWS, FILE_DIM};
    float *queries = data_new(&shape, QUERIES, 8, 1);
    struct scored before[QUERIES * FILE_K], after[QUERIES * FILE_K];
    struct err e = ERR_INIT;
    struct ann *index = build(&v, 1);
    answer_all(index, queries, before);
    char *path = saved(index, "one");
    size_t size, other_size;
    char *bytes = file_read(path, 1 << 24, &size, NULL);
    struct ann *parallel = build(&v, 3);
    char *other = saved(parallel, "three");
    char *same = file_read(other, 1 << 24, &other_size, NULL);
    assert_int_equal(size, other_size);
    assert_memory_equal(bytes, same, size);
    struct ann *opened = ann_open("native", path, &v, 7, &e);
    assert_non_null(opened);
    assert_int_equal(ann_effort(opened), 7);
    assert_int_equal(ann_bytes(opened), ann_bytes(index));
    answer_all(opened, queries, after);
    assert_memory_equal(before, after, sizeof before);
    ann_free(opened);

    struct rng r;
    rng_seed(&r, 1, 1);
    for (size_t trial = 0; trial < 600; trial++) { /* cut, and one bit flipped */
        size_t at = rng_below(&r, (uint32_t)size);
        bool cut = trial % 2 == 0;
        bool padding = !cut && at >= 160 && at < 512;
        char flip = (char)(1 << rng_below(&r, 8));
        bytes[at] = (char)(bytes[at] ^ flip);
        int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_int_equal(write(fd, bytes, cut ? at : size), (ssize_t)(cut ? at : size));
        close(fd);
        bytes[at] = (char)(bytes[at] ^ flip);
        opened = ann_open("native", other, &v, 0, &e);
        assert_true(opened == NULL || padding);
        ann_free(opened);
    }
    struct ann_vectors fewer = {v.data, FILE_ROWS - 1, FILE_DIM};
    assert_null(ann_open("native", path, &fewer, 0, &e));
    assert_null(ann_open("faiss", path, &v, 0, &e)); /* another engine's */

    ann_free(index);
    ann_free(parallel);
    mem_free(path);
    mem_free(other);
    mem_free(bytes);
    mem_free(same);
    mem_free((void *)(uintptr_t)v.data);
    mem_free(queries);
}

/* A forged file has good checksums: what it says is checked all the same. */
static void forged_lists_are_refused(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    float centroids[4] = {0, 1, 2, 3};
    float centers[2 * PQ_CENTERS] = {0};
    uint32_t start[3] = {0, 1, 2};
    uint32_t size[2] = {1, 9};
    float spread = 0.5f;
    uint32_t rows[2 * PQ_BLOCK];
    memset(rows, 0xff, sizeof rows);
    for (size_t i = 0; i < 10; i++) {
        rows[i < 1 ? 0 : PQ_BLOCK + i - 1] = (uint32_t)i;
    }
    struct ivf f = {.n = 10,
                    .dim = 2,
                    .n_lists = 2,
                    .pq = pq_shape(2),
                    .centroids = centroids,
                    .block_start = start,
                    .list_size = size,
                    .spread = &spread,
                    .rows = rows};
    f.pq.centers = centers;
    assert_int_equal(ivf_check(&f, 2, &e), 0);
    rows[40] = 10;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    rows[40] = IVF_NO_ROW; /* among places in use */
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    rows[40] = 8;
    size[0] = PQ_BLOCK + 1;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    size[0] = 0; /* a block without a row: a search under a filter would look into it */
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    size[0] = 1;
    assert_int_equal(ivf_check(&f, 2, &e), 0);
    err_clear(&e);
    assert_int_equal(ivf_check(&f, (size_t)1 << 27, &e), -1);
    assert_non_null(strstr(e.message, "2^32")); /* places have 32 bits */
    start[1] = 3;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    start[1] = 1;
    start[2] = 5;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    start[2] = 2;
    start[0] = 1;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    start[0] = 0;
    centroids[3] = INFINITY;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    centroids[3] = 3;
    centers[5] = NAN;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
    centers[5] = 0;
    spread = NAN;
    assert_int_equal(ivf_check(&f, 2, &e), -1);
}

static void short_memory(void **state)
{
    (void)state;
    struct data_shape shape = {FILE_DIM, 20, 0.7f, 2};
    struct ann_vectors v = {data_new(&shape, FILE_ROWS, 8, 0), FILE_ROWS, FILE_DIM};
    struct ann_build_options options = {.engine = "native", .threads = 1};
    struct ann *index = build(&v, 1);
    char *path = saved(index, "index");
    ann_free(index);
    for (int opens = 0; opens < 2; opens++) {
        for (long n = 1;; n++) {
            struct err e = ERR_INIT;
            mem_fail_at(n);
            index = opens ? ann_open("native", path, &v, 0, &e) : ann_build(&v, &options, &e);
            struct ann_workspace *ws = index != NULL ? ann_workspace_new(index, FILE_K, &e) : NULL;
            mem_fail_at(0);
            bool done = ws != NULL;
            assert_int_equal(!done, err_isset(&e));
            ann_workspace_free(ws);
            ann_free(index);
            if (done) {
                assert_true(n > 6);
                break;
            }
        }
    }
    mem_free(path);
    mem_free((void *)(uintptr_t)v.data);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

struct searcher {
    const struct ann *index;
    const float *queries;
    pthread_t thread;
    struct scored hits[QUERIES * FILE_K];
};

static void *search_thread(void *arg)
{
    struct searcher *s = arg;
    for (int round = 0; round < 5; round++) {
        answer_all(s->index, s->queries, s->hits);
    }
    return NULL;
}

static void concurrent_searches(void **state)
{
    (void)state;
    struct data_shape shape = {FILE_DIM, 20, 0.7f, 2};
    struct ann_vectors v = {data_new(&shape, FILE_ROWS, 8, 0), FILE_ROWS, FILE_DIM};
    float *queries = data_new(&shape, QUERIES, 8, 1);
    struct ann *index = build(&v, 2);
    struct scored alone[QUERIES * FILE_K];
    static struct searcher s[4];
    answer_all(index, queries, alone);
    for (size_t i = 0; i < 4; i++) {
        s[i].index = index;
        s[i].queries = queries;
        assert_int_equal(pthread_create(&s[i].thread, NULL, search_thread, &s[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(s[i].thread, NULL);
        assert_memory_equal(alone, s[i].hits, sizeof alone);
    }
    ann_free(index);
    mem_free((void *)(uintptr_t)v.data);
    mem_free(queries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_by_tuning),
        cmocka_unit_test(lists_by_codes),
        cmocka_unit_test(answers_are_exact_scores),
        cmocka_unit_test(excluded_rows_never_come),
        cmocka_unit_test(degenerate_vectors),
        cmocka_unit_test(refused_builds),
        cmocka_unit_test(files),
        cmocka_unit_test(forged_lists_are_refused),
        cmocka_unit_test(short_memory),
        cmocka_unit_test(concurrent_searches),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
