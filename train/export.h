/*
 * train/export.h: a trained model becomes a published bundle (docs/bundle.md).
 */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include <jansson.h>

#include "ann/ann.h"
#include "config/train_config.h"
#include "core/err.h"
#include "train/bundle_writer.h"
#include "train/dataset.h"
#include "train/evaluate.h"
#include "train/model.h"

struct export
{
    const struct train_config *config;
    const struct dataset *d;
    const struct model *model;
    struct tower_ranker *users; /* makes user vectors, for the probes */
    const float *item_vectors;  /* [n_items, dim] */
    const float *queries;       /* [n_queries, dim] user vectors that the index was tuned on, kept for re-indexing */
    size_t n_queries;
    const struct ann *index;
    json_t *index_record;                /* index_build's; borrowed */
    json_t *metrics, *baselines, *train; /* borrowed */
};

/* Writes and publishes <output.dir>/<version> and points <output.dir>/current at it. Returns the directory (mem_free), or
 * NULL, and then nothing published has changed. */
char *export_bundle(const struct export *x, struct err *e);

/* Adds the index's file, if its engine has one, and "file" to the record. */
int export_index(struct bundle_writer *w, const struct ann *index, json_t *record, struct err *e);

/* Atomically points the symbolic link `link` at a bundle's directory: by its bare name when both are in one directory, so
 * that the whole can be moved, otherwise by its absolute path. */
int publish_link(const char *bundle, const char *link, struct err *e);

#endif
