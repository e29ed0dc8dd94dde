/*
 * train/slices.h: the outcomes of an evaluation by kind of user or item.
 *
 * A dimension sorts the rows of a side into values: new or known, the values of a categorical feature, popularity.
 *   user side  a slice is its users, with all that is relevant to them
 *   item side  a slice is the users with relevant items of the slice, and of their relevant items only these: recall is
 *              hits among them / how many they are, the ideal of ndcg likewise. The ranking is of the whole catalogue.
 * Popularity groups hold about a tenth of the train events each, the rarest items first (Wu et al., "Self-supervised
 * Graph Learning for Recommendation", SIGIR 2021, figure 3); items with equally many events are in the same group.
 */
#ifndef TRAIN_SLICES_H
#define TRAIN_SLICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/features.h"
#include "train/bootstrap.h"
#include "train/evaluate.h"

enum {
    SLICE_DIMENSIONS = 2 * SCHEMA_MAX_FEATURES + 3,
    SLICE_LOW_CARDINALITY = 30, /* values of a feature that is looked at without being asked for */
    SLICE_MAX_VALUES = 100,     /* slices of one dimension: those with the most test events */
    SLICE_LABEL = 80,
    POPULARITY_GROUPS = 10,
};

struct dimension {
    enum side side;
    const char *by; /* "new_users", "new_items", "popularity", or the feature's name; borrowed */
    uint32_t n_values;
    const int32_t
        *index; /* value of each row; negative: in no slice. With `start`: row r has [start[r], start[r + 1]) */
    const size_t *start;
    const struct feature *feature;         /* what names the values; NULL: they are one of the three others */
    int32_t outside;                       /* item side: the value of items outside the catalogue, negative: none */
    int32_t *owned;                        /* index, where it was made for slicing */
    size_t *owned_start;                   /* start likewise */
    uint32_t events[POPULARITY_GROUPS][2]; /* popularity: least and most train events of an item in the group */
};

struct slicing {
    struct dimension dimensions[SLICE_DIMENSIONS];
    size_t n;
};
void slicing_release(struct slicing *s); /* zeroed storage is fine */

/* Adds "new_users" from the number of events of each user, start [n_users + 1], and "new_items" and "popularity" from
 * those of each item. -1 without memory. */
int slicing_add_events(struct slicing *s, const size_t *user_start, size_t n_users, const uint32_t *item_count,
                       size_t n_items, struct err *e);

/* Adds the features of a side that have a vocabulary of categories: those in the NULL-terminated list `names`, or,
 * without a list, those with at most SLICE_LOW_CARDINALITY values. Rows are borrowed. -1 without memory. */
int slicing_add_features(struct slicing *s, enum side side, const struct feature_rows *rows, char *const *names);

/* Whether a feature has categories to cut by, and is wanted: see slicing_add_features. */
bool slicing_is_category(const struct feature *f);
bool slicing_wants(const struct feature *f, char *const *names);

/* Adds a dimension of values by feature for rows that are not at hand encoded. Index and start (NULL: one value a row)
 * are taken. */
void slicing_add_values(struct slicing *s, enum side side, const struct feature *f, int32_t *index, size_t *start);

/* One slice of one dimension. */
struct slice {
    const struct dimension *dimension;
    uint32_t value;
    char label[SLICE_LABEL];            /* cut at a character's boundary when longer */
    size_t users, events;               /* that have part in it; relevant events */
    double recall, ndcg;                /* means over its users, at the cut-off asked for */
    struct interval recall_ci, ndcg_ci; /* NaN: too few users */
};

enum { SLICE_MIN_USERS = 10 }; /* below it a percentile interval says nothing */

/* All slices with test events; *slices is new (mem_free), in the order of dimensions and values. With `b` (NULL: not)
 * intervals are made. `cutoff` is an index into o->at. The same users give the same slices whatever the ranker. */
int slices_of(const struct slicing *s, const struct outcomes *o, size_t cutoff, const struct bootstrap *b,
              struct slice **slices, size_t *n, struct err *e);

#endif
