/*
 * What a recall costs inside one process, with no HTTP and no JSON around it: user tower and search on a bundle, the limit
 * that tests/bench/serve.sh compares the daemon with. The same users, one at a time, one thread.
 *
 *   bench_recall BUNDLE [k] [users] [exact]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ann/ann.h"
#include "core/bundle.h"
#include "core/features.h"
#include "core/mem.h"
#include "core/vecmath.h"

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
    struct bundle *bundle;
    struct ann *index;
    struct ann_workspace *workspace;
    struct feature_rows rows;
    struct tower_pass pass;
    struct value_scratch scratch;
    struct scored *hits;
    float *vector;
    size_t k;
};

static void bench_open(struct bench *b, const char *path, struct err *e)
{
    b->bundle = bundle_open(path, e);
    if (!b->bundle) {
        return;
    }
    const struct ann_vectors vectors = {b->bundle->item_vectors, b->bundle->n_items, b->bundle->dim};
    b->index = ann_open(b->bundle->index_engine, b->bundle->index_path, &vectors, b->bundle->index_effort, e);
    b->workspace = b->index ? ann_workspace_new(b->index, b->k, e) : NULL;
    const struct tower_spec *spec = &b->bundle->schema.towers[SIDE_USER];
    b->hits = mem_array(b->k, sizeof *b->hits);
    b->vector = mem_array(b->bundle->dim, sizeof *b->vector);
    if (feature_rows_init(&b->rows, spec) != 0 || tower_pass_init(&b->pass, spec, 1, e) != 0 || !b->hits ||
        !b->vector) {
        err_nomem(e);
    }
}

static double embed(struct bench *b, const json_t *user, struct err *e)
{
    char pointer[256];
    double from = cpu_now();
    feature_rows_clear(&b->rows);
    if (features_add_json(&b->rows, user, &b->scratch, pointer, sizeof pointer, e) == 0) {
        tower_embed(&b->bundle->towers[SIDE_USER], b->bundle->schema.similarity, &b->rows, &b->pass, b->vector);
    }
    return cpu_now() - from;
}

static double search(struct bench *b, bool exact, struct err *e)
{
    const struct ann_query query = {.vector = b->vector, .k = b->k, .exact = exact, .min_score = -INFINITY};
    struct ann_answer answer;
    double from = cpu_now();
    ann_search(b->index, b->workspace, &query, b->hits, &answer, e);
    return cpu_now() - from;
}

int main(int argc, char **argv)
{
    struct bench b = {.k = argc > 2 ? strtoul(argv[2], NULL, 10) : 100};
    size_t users = argc > 3 ? strtoul(argv[3], NULL, 10) : 5000;
    bool exact = argc > 4 && strcmp(argv[4], "exact") == 0;
    struct err e = ERR_INIT;
    if (argc < 2 || b.k == 0 || users == 0) {
        fprintf(stderr, "usage: bench_recall BUNDLE [k] [users] [exact]\n");
        return 2;
    }
    if (blas_setup(&e) == 0) {
        bench_open(&b, argv[1], &e);
    }
    double tower = 0.0;
    double found = 0.0;
    for (size_t i = 0; i < users && !err_isset(&e); i++) {
        json_t *user = json_pack("{s:o}", "user_id", json_sprintf("%zu", i % 5000));
        tower += embed(&b, user, &e);
        found += search(&b, exact, &e);
        json_decref(user);
    }
    if (err_isset(&e)) {
        fprintf(stderr, "bench_recall: %s\n", e.message);
        return 1;
    }
    printf("%.1f %.1f\n", tower / (double)users * 1e6, found / (double)users * 1e6);
    return 0;
}
