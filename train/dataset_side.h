/*
 * train/dataset_side.h: one side, users or items, while a data set is loaded: its ids, and its table in two passes.
 */
#ifndef TRAIN_DATASET_SIDE_H
#define TRAIN_DATASET_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "core/features.h"
#include "core/idmap.h"
#include "core/strtab.h"
#include "train/csv.h"
#include "train/dataset_schema.h"

/* What is known; arrays by number of appearance unless said otherwise. The caller fills and releases it. */
struct side_state {
    enum side side;
    const struct table_config *table;
    const struct tower_config *tower;
    struct csv_options format;
    struct idmap *ids;
    uint32_t *count; /* [n] train events; those of users by final number */
    uint32_t *rank;  /* [n] final number */
    uint32_t *line;  /* [line_capacity] of the table's row, 0: none; lines beyond 2^32 - 1 are given as that */
    size_t line_capacity;
    uint64_t bad_rows;
    struct learner *learner;
};

/* First pass: learns from the first row of every id with train events, remembers its line; the items table adds its ids
 * to s->ids. Without a table only ids and sequences can be features: anything else is an error that says so. */
int side_learn(struct side_state *s, struct err *e);

/* Whether the table has a good row for the id of this number. After side_learn. */
bool side_has_row(const struct side_state *s, uint32_t number);

/* Warns when ids of events (numbers below n_in_events) have no row: how many, one of them, and what to do. */
void side_warn_without_row(const struct side_state *s, size_t n_in_events);

/* Second pass: one encoded row for each of the final ids, in their order. `rows` is new and the caller's to release,
 * also after a failure when its spec is set. */
int side_encode(const struct side_state *s, const struct strtab *ids, const struct tower_spec *spec,
                struct feature_rows *rows, struct err *e);

#endif
