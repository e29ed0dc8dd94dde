/*
 * train/dataset_table.h: the users or items file, row by row as raw feature values that are known to be good.
 */
#ifndef TRAIN_DATASET_TABLE_H
#define TRAIN_DATASET_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "core/features.h"
#include "train/csv.h"

struct table {
    struct csv *csv;
    const struct tower_config *tower; /* borrowed */
    int id_column;
    int columns[SCHEMA_MAX_FEATURES];         /* of each feature; -1: it has none (sequence) */
    struct span id;                           /* of the row */
    struct value values[SCHEMA_MAX_FEATURES]; /* of the row; borrowed until the next one */
};

/* Finds the id's and the features' columns. On failure nothing is left open. */
int table_open(struct table *t, const struct table_config *config, const struct csv_options *format,
               const struct tower_config *tower, struct err *e);
void table_close(struct table *t); /* zeroed storage is fine */

/* Next good row: 1 and id and values; 0 at the end, -1 on error. A row with a bad id, a text that is not UTF-8 or a
 * number that is none is a bad row, rejected here. */
int table_next(struct table *t, struct err *e);

/* The values of an entity without a row: everything missing but its id. */
void values_of_id(const struct tower_config *tower, struct span id, struct value *values);

#endif
