/*
 * An engine of ours that takes turns with others: builds its index, then measures whenever it is told to.
 *
 *   bench_ann_turns BASE.npy QUERIES.npy ENGINE K BUILD_THREADS
 *
 * Prints "build SECONDS BYTES" (bytes of the index), then for each line "EFFORT THREADS BATCH" on stdin a line
 * "MICROSECONDS RECALL": of a query (of one thread), searched one at a time (BATCH 1) or so many in a call. Vectors are taken
 * as they are. tests/bench/ann_peers.py drives it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/vecmath.h"
#include "tests/bench/bench.h"
#include "train/npy.h"

/* Microseconds a query in batches of `size`, one thread. */
static double time_batches(const struct ann *index, const struct npy *q, size_t k, size_t effort, size_t size)
{
    struct err e = ERR_INIT;
    struct ann_batch *batch = ann_batch_new(index, k, &e);
    struct ann_query *queries = mem_array(size, sizeof *queries);
    struct scored *hits = mem_array(size * k, sizeof *hits);
    struct scored **to = mem_array(size, sizeof *to);
    struct ann_answer *answers = mem_array(size, sizeof *answers);
    if (batch == NULL || queries == NULL || hits == NULL || to == NULL || answers == NULL) {
        fail(&e);
    }
    double started = monotonic_seconds();
    for (size_t first = 0; first < q->rows; first += size) {
        size_t n = q->rows - first < size ? q->rows - first : size;
        for (size_t i = 0; i < n; i++) {
            queries[i] = (struct ann_query){
                .vector = q->data + (first + i) * q->dim, .k = k, .effort = effort, .min_score = -INFINITY};
            to[i] = hits + i * k;
        }
        if (ann_search_batch(index, batch, queries, n, to, answers, &e) != 0) {
            fail(&e);
        }
    }
    double seconds = monotonic_seconds() - started;
    ann_batch_free(batch);
    mem_free(queries);
    mem_free(hits);
    mem_free(to);
    mem_free(answers);
    return 1e6 * seconds / (double)q->rows;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct npy base;
    struct npy queries;
    if (argc != 6) {
        fprintf(stderr, "usage: bench_ann_turns BASE.npy QUERIES.npy ENGINE K BUILD_THREADS\n");
        return 2;
    }
    size_t k = strtoul(argv[4], NULL, 10);
    if (blas_setup(&e) != 0 || npy_open(&base, argv[1], &e) != 0 || npy_open(&queries, argv[2], &e) != 0) {
        fail(&e);
    }
    struct ann_vectors vectors = {base.data, base.rows, base.dim};
    struct ann_build_options options = {.engine = argv[3], .threads = (unsigned)strtoul(argv[5], NULL, 10)};
    struct ann_truth *truth = ann_truth_new(&vectors, queries.data, queries.rows, k, options.threads, &e);
    double started = monotonic_seconds();
    struct ann *index = truth == NULL ? NULL : ann_build(&vectors, &options, &e);
    if (index == NULL) {
        fail(&e);
    }
    printf("build\t%.3f\t%zu\n", monotonic_seconds() - started, ann_bytes(index));
    fflush(stdout);
    size_t effort, batch;
    unsigned threads;
    while (scanf("%zu %u %zu", &effort, &threads, &batch) == 3) {
        struct ann_point point;
        if (ann_measure(index, truth, effort, threads, &point, &e) != 0) {
            fail(&e);
        }
        if (batch > 1) {
            point.microseconds = time_batches(index, &queries, k, effort, batch);
        }
        printf("%.3f\t%.6f\n", point.microseconds, point.recall);
        fflush(stdout);
    }
    return 0;
}
