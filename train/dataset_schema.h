/*
 * train/dataset_schema.h: what a tower's features learn from the data: vocabularies, means, deviations, bounds.
 */
#ifndef TRAIN_DATASET_SCHEMA_H
#define TRAIN_DATASET_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"
#include "core/buf.h"
#include "core/err.h"
#include "core/features.h"
#include "core/schema.h"

struct learner; /* opaque; one side's features, growing with the rows it is shown */

struct learner *learner_new(const struct tower_config *config, struct err *e); /* config is borrowed */
void learner_free(struct learner *l);                                          /* NULL is fine */

/* Shows one row (a user or item with train events): values [n_features], checked; numeric ones as VALUE_NUMBER. */
int learner_add(struct learner *l, const struct value *values, struct err *e);

/* Everything to a tower's spec, before schema_finish: what the configuration declares and what was learned. The id and
 * sequence vocabularies come from counts of train events: ids[i] has counts[i] of them. Vocabularies are views of
 * blocks [n_features] (empty, kept by the caller), or of the id tables. Features that cannot say anything are warned
 * about. On failure schema_release frees what is in `spec`. */
struct id_counts {
    const struct strtab *ids;
    const uint32_t *counts;
};
int learner_finish(struct learner *l, enum side side, const struct id_counts *own, const struct id_counts *items,
                   struct tower_spec *spec, struct buf *blocks, struct err *e);

#endif
