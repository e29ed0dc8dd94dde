/*
 * train/hard.h: hard negatives by mining (Huang et al., Embedding-based Retrieval in Facebook Search, KDD 2020, section 6.1): items
 * that an earlier bundle ranks behind its best ones for a user, in a window like 101 to 500.
 */
#ifndef TRAIN_HARD_H
#define TRAIN_HARD_H

#include "config/train_config.h"
#include "core/err.h"
#include "train/dataset.h"

/* Fills `hard` (new; interactions_release), lists of d->n_users users, from the bundle negatives.hard.bundle: of every user with
 * a train event, up to `per_user` items, drawn at random, of those at the ranks [ranks[0], ranks[1]] in the bundle's index that d
 * still has and the user has not in train. The users are today's: d's features and histories (all of train; before dataset_compact)
 * with the bundle's weights; values that the bundle does not know are unknown to it. Numbers are in d's units: the same only in
 * a data set that was loaded like the bundle (dataset_load_like), and nearly so in one that has grown.
 *
 * Deterministic by config->seed and the user, on any number of threads. Memory: per_user numbers a user, a copy of
 * the towers, and ranks[1] hits a thread.
 *
 * Errors: no bundle; towers that are not the configuration's; a window beyond the bundle's items; nobody with an item in it. */
int hard_mine(const struct train_config *config, const struct dataset *d, unsigned threads, struct interactions *hard,
              struct err *e);

#endif
