/*
 * train/report_figures.h: what the report draws and nothing else needs: scores of positives against random items, and a
 * picture of the item vectors. Both are small samples, chosen by the seed: the same input gives the same JSON, and its
 * size does not grow with the data.
 */
#ifndef TRAIN_REPORT_FIGURES_H
#define TRAIN_REPORT_FIGURES_H

#include <jansson.h>
#include <stdint.h>

#include "core/err.h"
#include "train/dataset.h"
#include "train/evaluate.h"

enum {
    FIGURE_USERS = 2000,   /* whose scores are counted */
    FIGURE_POSITIVES = 10, /* of each, at most */
    FIGURE_RANDOM = 4,     /* random items a positive */
    FIGURE_BINS = 48,      /* of the histogram, at most */
    FIGURE_ITEMS = 1500,   /* in the picture */
    FIGURE_NEIGHBOURS = 10,
    FIGURE_CATEGORIES = 7,  /* named ones; the others are put together */
    FIGURE_NAME_BYTES = 120 /* of an item's id or a category's name */
};

/* Scores of up to FIGURE_USERS users: their items of the test part (of the train part if there is none) against random
 * items of the catalogue that are in neither.
 *   {"part": "test", "users", "low", "high", "positives": {"n", "mean", "counts": [bins]}, "random": {likewise},
 *    "auc": share of pairs (Mann & Whitney, 1947) in which the positive has the higher score, a tie half}
 * item_vectors [n_items, dim]. A new object; an empty one when there is nothing to count. NULL: error. */
json_t *figure_histogram(const struct dataset *d, struct tower_ranker *users, const float *item_vectors, uint64_t seed,
                         struct err *e);

/* Up to FIGURE_ITEMS items on two dimensions (train/projection.h), each with a group: the value of the categorical or
 * one-hot item feature with the fewest values (the first value of several), or without such a feature the tenth by
 * popularity (10: the most popular).
 *   {"method": "pca", "explained": [2], "of": n_items, "by": feature or "popularity", "groups": [names], "named":
 *    how many of them are values (then "other", "(missing)"),
 *    "points": [[x, y, group, "item id"], ...],
 *    "neighbours": {"k": 10, "same", "chance"}} by cosine among these items: the share of an item's nearest that is of its
 *    group, and what it would be by chance */
json_t *figure_projection(const struct dataset *d, const float *item_vectors, uint64_t seed, struct err *e);

#endif
