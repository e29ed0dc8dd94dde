/*
 * train/dataset_pairs.h: what users were shown or given and did not take: material for negatives, over the users and
 * items of a data set.
 */
#ifndef TRAIN_DATASET_PAIRS_H
#define TRAIN_DATASET_PAIRS_H

#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "train/dataset.h"

/* Reads a file of user-item pairs (hard negatives: recalled, then dropped by ranking) with the events' columns `user`
 * and `item`, other columns ignored. `pairs` gets sets [d->n_users], without times, without what the user has in train.
 * Pairs of unknown users or items are skipped; a warning says how many. A file in which no pair is known, or none is
 * left, is an error. `pairs` is new; interactions_release. */
int dataset_read_pairs(const struct dataset *d, const struct train_config *config, const char *path,
                       struct interactions *pairs, struct err *e);

/* Fills d->exposed from the events file: its rows with a label below label_min, as sets without what the user has in
 * train. `before` [n_users] (NULL: no limit): exposures of user u count only when their time is below before[u]. */
int dataset_read_exposed(struct dataset *d, const struct train_config *config, const int64_t *before, struct err *e);

#endif
