/* Every kind of faiss index: recall, files and their damage, concurrent searches. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "ann/indexfile.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

/* 10,000: faiss warns on stderr below 39 vectors for each of the 256 centroids of a code. */
enum { N = 10000, DIM = 32, QUERIES = 200, K = 10 };

#ifdef __SANITIZE_THREAD__
enum { BUILD_THREADS = 1 }; /* the barriers of libgomp are invisible to it */
#else
enum { BUILD_THREADS = 2 }; /* k-means by two threads on a busy machine takes minutes: only for graphs */
#endif

/* Factories, and the recall@10 they must reach by tuning on clustered vectors of length 1. */
static const struct {
    const char *factory;
    double recall;
} FACTORIES[] = {
    {"HNSW32", 0.99},
    {"HNSW16", 0.98},
    {"Flat", 1},
    {"IVF64,Flat", 0.99},
    {"IVF64,PQ8", 0.95},
    {"SQ8", 0.99},
    {"IVF64,SQ8", 0.99},
    {"PCA16,IVF64,Flat", 0.9},
    {"HNSW16_SQ8", 0.98},
    {"PCA24,HNSW16", 0.95},
    {"PQ8x4", 0.8},
    {"IVF32_HNSW8,Flat", 0.99},
    {"IVF32,PQ8x4fs", 0.8},
    {"IVF32,SQ4,RFlat", 0.95},
    {"OPQ4_16,IVF16,PQ4x6", 0.8},
};
enum { N_FACTORIES = sizeof FACTORIES / sizeof FACTORIES[0] };

struct world {
    struct ann_vectors v;
    float *queries;  /* [QUERIES, DIM] the recall is measured on */
    float *held_out; /* [QUERIES, DIM] tuning saw */
    char *directory;
};

static int world_setup(void **state)
{
    static struct world w;
    if (blas_setup(NULL) != 0) {
        return -1;
    }
    struct data_shape shape = {DIM, 60, 0.7f, 1};
    w.v = (struct ann_vectors){data_new(&shape, N, 21, 0), N, DIM};
    w.queries = data_new(&shape, QUERIES, 21, 1);
    w.held_out = data_new(&shape, QUERIES, 21, 2);
    char template[4096];
    snprintf(template, sizeof template, "%s/recalld-ann.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    w.directory = mem_strdup(mkdtemp(template));
    *state = &w;
    return w.directory == NULL;
}

static int world_teardown(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    dir_remove_tree(w->directory, &e);
    mem_free(w->directory);
    mem_free((void *)w->v.data);
    mem_free(w->queries);
    mem_free(w->held_out);
    return 0;
}

static struct ann *build(const struct ann_vectors *v, const char *factory, unsigned threads)
{
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = "faiss", .factory = factory, .threads = threads};
    struct ann *index = ann_build(v, &options, &e);
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    return index;
}

/* New path in the scratch folder; no file is there. */
static char *scratch(const struct world *w, const char *name)
{
    char *path = path_join(w->directory, name);
    unlink(path);
    return path;
}

static void save(const struct ann *index, const char *path)
{
    struct err e = ERR_INIT;
    if (ann_save(index, path, &e) != 0) {
        fail_msg("%s", e.message);
    }
}

static struct ann *reopen(const struct world *w, const char *path, size_t effort)
{
    struct err e = ERR_INIT;
    struct ann *index = ann_open("faiss", path, &w->v, effort, &e);
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    return index;
}

/* The answers to all queries at an effort: hits [QUERIES, K]. */
static void answers(const struct world *w, const struct ann *index, size_t effort, struct scored *hits)
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    for (size_t i = 0; i < QUERIES; i++) {
        struct ann_query q = {.vector = w->queries + i * DIM, .k = K, .effort = effort, .min_score = -INFINITY};
        struct ann_answer a;
        if (ann_search(index, ws, &q, hits + i * K, &a, &e) != 0 || a.n != K) {
            abort(); /* also called outside cmocka's thread */
        }
    }
    ann_workspace_free(ws);
}

static void recall_and_round_trip(void **state)
{
    struct world *w = *state;
    struct scored before[QUERIES * K], after[QUERIES * K];
    for (size_t f = 0; f < N_FACTORIES; f++) {
        struct err e = ERR_INIT;
        char *path = scratch(w, "round_trip");
        struct ann *index = build(&w->v, FACTORIES[f].factory, 1);
        struct ann_tuning tuned;
        double recall;
        assert_int_equal(tune(index, &w->v, w->held_out, QUERIES, K, 0.99, &tuned), 0);
        assert_int_equal(ann_measure_recall(index, w->queries, QUERIES, K, 0, 1, &recall, &e), 0);
        if (recall < FACTORIES[f].recall - 0.03 || tuned.recall < FACTORIES[f].recall) {
            fail_msg("%s: recall %.3f (tuned on: %.3f)", FACTORIES[f].factory, recall, tuned.recall);
        }
        assert_true(ann_bytes(index) > 0);
        answers(w, index, 0, before);
        save(index, path);
        struct ann *opened = reopen(w, path, tuned.effort);
        assert_int_equal(ann_effort(opened), tuned.effort);
        assert_string_equal(ann_engine_name(opened), "faiss");
        answers(w, opened, 0, after);
        assert_memory_equal(before, after, sizeof before);
        for (size_t i = 0; i < QUERIES * K; i++) { /* scores are true inner products */
            float score;
            vec_dot_rows(&score, w->v.data + (size_t)after[i].row * DIM, 1, DIM, w->queries + i / K * DIM);
            assert_true(score == after[i].score);
        }
        ann_free(opened);
        ann_free(index);
        mem_free(path);
    }
}

/* What ann.h promises about lengths that differ by 100: no worse than .95 at a moderate effort. */
static void lengths_that_differ(void **state)
{
    (void)state;
    struct data_shape shape = {DIM, 200, 0.7f, 100};
    float *data = data_new(&shape, 20000, 31, 0);
    float *queries = data_new(&shape, 100, 31, 1);
    struct ann_vectors v = {data, 20000, DIM};
    struct ann *index = build(&v, "HNSW16", BUILD_THREADS);
    struct err e = ERR_INIT;
    double recall;
    assert_int_equal(ann_measure_recall(index, queries, 100, 50, 200, 2, &recall, &e), 0);
    assert_true(recall > 0.95);
    ann_free(index);

    struct ann_build_options euclidean = {.engine = "faiss", .factory = "HNSW8_PQ8", .threads = 1};
    assert_null(ann_build(&v, &euclidean, &e));
    assert_non_null(strstr(e.message, "cosine"));
    mem_free(data);
    mem_free(queries);
}

static void refused_factories(void **state)
{
    struct world *w = *state;
    static const char *const cases[][2] = {
        {"Nonsense", "could not parse index string"},
        {"PQ7", "divide the dimension"},
        {"IVF4096,Flat", "39"},
        {"IVF4096,Flat", "159744"},
        {"PQ4x13", "2^b"},
        {"IMI2x5,PQ8", "IMI2x5"},
        {"((((", "parentheses"},
        {"IVF7000,Flat", "HNSW32"},
        {"HNSW1", "links"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        struct ann_vectors few = {w->v.data, 1000, DIM};
        struct ann_build_options options = {.engine = "faiss", .factory = cases[i][0], .threads = 1};
        assert_null(ann_build(&few, &options, &e));
        if (strstr(e.message, cases[i][1]) == NULL || strchr(e.message, '\n') != NULL || strstr(e.message, ".cpp")) {
            fail_msg("%s: %s", cases[i][0], e.message);
        }
    }
}

static void same_input_same_file(void **state)
{
    struct world *w = *state;
    static const char *const factories[] = {"HNSW16", "IVF32,SQ8", "PQ8x4"};
    for (size_t i = 0; i < 3; i++) {
        char *a = scratch(w, "first");
        char *b = scratch(w, "second");
        char first[FILE_SHA256_HEX], second[FILE_SHA256_HEX];
        struct err e = ERR_INIT;
        struct ann *one = build(&w->v, factories[i], 1);
        struct ann *two = build(&w->v, factories[i], 1);
        save(one, a);
        save(two, b);
        assert_int_equal(file_sha256(a, first, &(uint64_t){0}, &e), 0);
        assert_int_equal(file_sha256(b, second, &(uint64_t){0}, &e), 0);
        assert_string_equal(first, second);
        ann_free(one);
        ann_free(two);
        mem_free(a);
        mem_free(b);
    }
}

static void count_progress(void *arg, size_t done, size_t total)
{
    size_t *last = arg;
    assert_true(done > last[0] && done <= total);
    last[0] = done;
    last[1]++;
}

static void progress_is_reported(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    size_t seen[2] = {0, 0};
    struct ann_build_options options = {
        .engine = "faiss", .factory = "HNSW8", .threads = 1, .progress = count_progress, .progress_arg = seen};
    struct ann *index = ann_build(&w->v, &options, &e);
    assert_non_null(index);
    assert_int_equal(seen[0], N);
    assert_true(seen[1] > 1);
    ann_free(index);
}

/* --- files --------------------------------------------------------------------------------------------------------- */

static void assert_refused(const char *path, const struct ann_vectors *v, const char *says)
{
    struct err e = ERR_INIT;
    struct ann *index = ann_open("faiss", path, v, 0, &e);
    if (index != NULL || strstr(e.message, says) == NULL) {
        fail_msg("expected \"%s\", got %s", says, index != NULL ? "an index" : e.message);
    }
    assert_non_null(strstr(e.message, path));
}

static void other_vectors_are_refused(void **state)
{
    struct world *w = *state;
    static const char *const factories[] = {"HNSW8", "IVF32,Flat"};
    for (size_t i = 0; i < 2; i++) {
        char *path = scratch(w, "index");
        struct ann *index = build(&w->v, factories[i], 1);
        save(index, path);
        ann_free(index);
        float *other = mem_array((size_t)N * DIM, sizeof *other);
        memcpy(other, w->v.data, (size_t)N * DIM * sizeof *other);
        other[0] += 1;
        struct ann_vectors fewer = {w->v.data, N - 1, DIM};
        struct ann_vectors narrower = {w->v.data, N, DIM - 1};
        struct ann_vectors changed = {other, N, DIM};
        assert_refused(path, &fewer, "9999");
        assert_refused(path, &narrower, "31");
        assert_refused(path, &changed, "other vectors");
        mem_free(other);
        mem_free(path);
    }
}

static void existing_files_are_kept(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    struct ann_vectors few = {w->v.data, 100, DIM};
    struct ann *index = build(&few, "HNSW8", 1);
    char *path = scratch(w, "index");
    assert_int_equal(file_write(path, "kept", 4, &e), 0);
    assert_int_equal(ann_save(index, path, &e), -1);
    size_t size;
    char *text = file_read(path, 100, &size, NULL);
    assert_string_equal(text, "kept");
    mem_free(text);
    err_clear(&e);
    assert_int_equal(ann_save(index, "/nonexistent/index", &e), -1);
    assert_non_null(strstr(e.message, "/nonexistent/index"));
    ann_free(index);
    mem_free(path);
}

static void write_bytes(const char *path, const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

/* Cut anywhere, or with any single bit flipped, a file is refused: faiss or the graph never see it. */
static void damaged_files_are_refused(void **state)
{
    struct world *w = *state;
    static const char *const factories[] = {"HNSW4", "IVF4,Flat", "SQ8"};
    struct ann_vectors few = {w->v.data, 200, DIM};
    struct rng r;
    rng_seed(&r, 9, 0);
    for (size_t f = 0; f < 3; f++) {
        char *path = scratch(w, "index");
        struct ann *index = build(&few, factories[f], 1);
        save(index, path);
        ann_free(index);
        size_t size;
        char *bytes = file_read(path, 1 << 20, &size, NULL);
        assert_non_null(bytes);
        for (size_t trial = 0; trial < 600; trial++) {
            size_t cut = trial < 560 ? trial : size - 1 - rng_below(&r, (uint32_t)size - 560);
            write_bytes(path, bytes, cut);
            assert_refused(path, &few, "");
        }
        for (size_t trial = 0; trial < 600; trial++) {
            size_t at = trial < 312 ? trial : 512 + rng_below(&r, (uint32_t)size - 512);
            char flip = (char)(1 << rng_below(&r, 8));
            bytes[at] = (char)(bytes[at] ^ flip);
            write_bytes(path, bytes, size);
            assert_refused(path, &few, "");
            bytes[at] = (char)(bytes[at] ^ flip);
        }
        write_bytes(path, bytes, size);
        index = ann_open("faiss", path, &few, 0, NULL);
        assert_non_null(index);
        ann_free(index);
        mem_free(bytes);
        unlink(path);
        assert_refused(path, &few, "");
        mem_free(path);
    }
    assert_refused(w->directory, &few, "");
}

/* With good checksums, too: a byte behind the graph. */
static void forged_graphs_are_refused(void **state)
{
    struct world *w = *state;
    struct ann_vectors few = {w->v.data, 200, DIM};
    struct indexfile_header h;
    char *path = scratch(w, "index");
    struct ann *index = build(&few, "HNSW4", 1);
    save(index, path);
    ann_free(index);
    size_t size;
    unsigned char *bytes = (unsigned char *)file_read(path, 1 << 20, &size, NULL); /* and a '\0' behind them */
    assert_non_null(bytes);
    memcpy(&h, bytes, sizeof h);
    h.payload++;
    h.payload_checksum = indexfile_checksum(bytes + INDEXFILE_HEADER, h.payload);
    h.header_checksum = indexfile_checksum((unsigned char *)&h, offsetof(struct indexfile_header, header_checksum));
    memcpy(bytes, &h, sizeof h);
    write_bytes(path, (char *)bytes, size + 1);
    assert_refused(path, &few, "does not fill");
    mem_free(bytes);
    mem_free(path);
}

static void short_memory_when_opening(void **state)
{
    struct world *w = *state;
    static const char *const factories[] = {"HNSW8", "IVF32,Flat"};
    for (size_t f = 0; f < 2; f++) {
        char *path = scratch(w, "index");
        struct ann *index = build(&w->v, factories[f], 1);
        save(index, path);
        ann_free(index);
        for (long n = 1;; n++) {
            struct err e = ERR_INIT;
            mem_fail_at(n);
            index = ann_open("faiss", path, &w->v, 0, &e);
            struct ann_workspace *ws = index != NULL ? ann_workspace_new(index, K, &e) : NULL;
            mem_fail_at(0);
            bool done = ws != NULL;
            assert_int_equal(!done, err_isset(&e));
            ann_workspace_free(ws);
            ann_free(index);
            if (done) {
                assert_true(n > 4);
                break;
            }
        }
        mem_free(path);
    }
}

static void no_vectors_round_trip(void **state)
{
    struct world *w = *state;
    struct ann_vectors none = {NULL, 0, DIM};
    char *path = scratch(w, "index");
    struct ann *index = build(&none, "HNSW8", 1);
    save(index, path);
    ann_free(index);
    index = ann_open("faiss", path, &none, 0, NULL);
    assert_non_null(index);
    assert_int_equal(ann_bytes(index), 0);
    ann_free(index);
    mem_free(path);
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

struct searcher {
    const struct world *w;
    const struct ann *index;
    size_t effort;
    pthread_t thread;
    struct scored hits[QUERIES * K];
};

static void *search_thread(void *arg)
{
    struct searcher *s = arg;
    for (int round = 0; round < 5; round++) {
        answers(s->w, s->index, s->effort, s->hits);
    }
    return NULL;
}

/* Four threads with four efforts get what each gets alone. */
static void concurrent_searches(void **state)
{
    struct world *w = *state;
    static const char *const factories[] = {"HNSW16", "IVF64,SQ8", "PQ8x4"};
    static const size_t efforts[] = {10, 20, 45, 90};
    for (size_t f = 0; f < 3; f++) {
        struct ann *index = build(&w->v, factories[f], 1);
        struct searcher *s = mem_array(4, sizeof *s);
        struct scored alone[QUERIES * K];
        for (size_t i = 0; i < 4; i++) {
            s[i].w = w;
            s[i].index = index;
            s[i].effort = efforts[i];
            assert_int_equal(pthread_create(&s[i].thread, NULL, search_thread, &s[i]), 0);
        }
        for (size_t i = 0; i < 4; i++) {
            pthread_join(s[i].thread, NULL);
        }
        for (size_t i = 0; i < 4; i++) {
            answers(w, index, efforts[i], alone);
            assert_memory_equal(alone, s[i].hits, sizeof alone);
        }
        mem_free(s);
        ann_free(index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_and_round_trip),     cmocka_unit_test(lengths_that_differ),
        cmocka_unit_test(refused_factories),         cmocka_unit_test(same_input_same_file),
        cmocka_unit_test(progress_is_reported),      cmocka_unit_test(other_vectors_are_refused),
        cmocka_unit_test(existing_files_are_kept),   cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(forged_graphs_are_refused), cmocka_unit_test(short_memory_when_opening),
        cmocka_unit_test(no_vectors_round_trip),     cmocka_unit_test(concurrent_searches),
    };
    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
