/*
 * train/ann_bench.h: which engine suits these vectors? Every engine builds its index and is measured on the same queries.
 */
#ifndef TRAIN_ANN_BENCH_H
#define TRAIN_ANN_BENCH_H

#include <jansson.h>

#include "ann/ann.h"
#include "core/buf.h"
#include "core/err.h"

enum { ANN_BENCH_TARGETS = 8 };

struct ann_bench_options {
    const char *engine;  /* NULL: all of ann_engine_names */
    const char *factory; /* faiss's; NULL: its default */
    size_t k;
    double targets[ANN_BENCH_TARGETS]; /* of recall@k, descending */
    size_t n_targets;
    unsigned threads;       /* that search */
    unsigned build_threads; /* that build */
};

/* Builds and measures. The record, a new reference, or NULL:
 *   {"ann_bench": {"vectors", "dim", "queries", "k", "threads", "simd", "engines": [
 *     {"engine", "factory", "build_seconds", "bytes_per_vector",
 *      "curve": [{"effort", "recall", "recall_low", "microseconds"}],
 *      "targets": [{"target", "reached", "effort", "recall", "microseconds", "queries_per_second"}]}]}}
 * Times of targets are medians of several rounds in which the engines take turns. */
json_t *ann_bench(const struct ann_bench_options *options, const struct ann_vectors *vectors, const float *queries,
                  size_t count, struct err *e);

/* The record's targets as tab-separated lines under a head. */
void ann_bench_table(struct buf *out, const json_t *record);

/* The record as a page of HTML, complete in itself: table, and time against recall. */
int ann_bench_page(const json_t *record, struct buf *out, struct err *e);

#endif
