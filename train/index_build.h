/*
 * train/index_build.h: the index over a bundle's item vectors, built, tuned and measured.
 */
#ifndef TRAIN_INDEX_BUILD_H
#define TRAIN_INDEX_BUILD_H

#include <jansson.h>

#include "ann/ann.h"
#include "core/err.h"

enum { INDEX_QUERIES = 1000, INDEX_RECALL_K = 100 };

struct index_options {
    const char *engine, *factory;
    double target_recall; /* recall@100 against exact that the default effort should reach */
    unsigned threads;
};

/* Builds only, under a progress bar of that name, and takes the time. NULL on failure. */
struct ann *index_build_shown(const char *label, const struct index_options *options, const struct ann_vectors *vectors,
                              double *seconds, struct err *e);

/* The measured points: [{effort, recall, recall_low, microseconds}]. New reference. */
json_t *index_curve_to_json(const struct ann_tuning *tuning);

/* Builds, tunes on queries [n_queries, dim] and measures. *record becomes the manifest's "index" member (new reference):
 * engine, factory, effort, recall@100, target_recall, build_seconds, bytes_per_item, and "curve": the measured
 * {effort, recall, recall_low, microseconds} points. A target that no effort reaches is an error. Returns the index (ann_free)
 * or NULL. */
struct ann *index_build(const struct index_options *options, const struct ann_vectors *vectors, const float *queries,
                        size_t n_queries, json_t **record, struct err *e);

#endif
