/*
 * train/dataset.h: from files to what training and evaluation need: interactions split into parts, the schema learned
 * from the train part, and both sides' features encoded by it.
 *
 * Users and items are numbered: items in ascending id order (the bundle's row order; the catalogue is the items file
 * plus every item of the train part), users likewise (users of any part). Everything about the schema (vocabularies,
 * counts, means, bounds) is learned from the train part alone: the test part never influences it.
 *
 *   id, sequence vocabulary    ids with at least min_count train events
 *   categorical, onehot        values with at least min_count users (items) among those with a train event
 *   numeric                    mean, deviation, quantile bounds over users (items) with a train event
 */
#ifndef TRAIN_DATASET_H
#define TRAIN_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "core/features.h"
#include "core/idmap.h"
#include "core/schema.h"
#include "train/csv.h"

/* Interactions of one part, grouped by user, in time order within a user (file order among equal times). */
struct interactions {
    size_t n;
    uint32_t *item; /* [n] */
    int64_t *time;  /* [n], microseconds since 1970 or the plain number scaled by 10^6; NULL without a time column */
    uint64_t
        *same; /* [n / 64 + 1] in place of times, for histories (dataset_compact): bit i: event i has the time of the
                       one before it, which is the same user's. NULL: times are there, or none ever were */
    float *weight; /* [n], > 0: how much an event counts in the loss; NULL: all 1. Train parts only */
    size_t *start; /* [n_users + 1]: user u has [start[u], start[u + 1]) */
};

/* How a validation part is cut off train: as the test part was, or the one would not foretell the other. */
enum cut_method {
    CUT_RANDOM, /* events of every user at random: test parts from a file */
    CUT_LAST,   /* the last events of users: leave_last */
    CUT_LATEST  /* the latest of all events: time, none with times, and files whose events are all later than train */
};

struct dataset {
    size_t n_users, n_items;
    struct strtab user_ids, item_ids; /* sorted; blocks owned by the dataset */
    struct interactions train;        /* repeated pairs stay: they are repeated interactions */
    struct interactions test;         /* sets: no pair twice, none that is also in train, catalogue items only */
    struct interactions exposed;      /* with negatives.allow_exposed, else empty: see dataset_pairs.h. Shown without
                                         success in the time of the train part: sets without what is in train */
    struct interactions hard;         /* hard negatives of each user, as sets; start NULL without */
    enum cut_method cut;              /* for dataset_cut */
    uint32_t cut_last;                /* CUT_LAST: how many of a user's events */
    uint32_t *
        unreachable; /* [n_users], NULL when there are none (dataset_compact): distinct test items outside the catalogue: relevant, never found */
    uint32_t *item_count;        /* [n_items] train events of each item */
    struct schema schema;        /* complete */
    struct feature_rows rows[2]; /* by side: users [n_users], items [n_items]; sequences empty (see history) */
    int history;                 /* index of the sequence feature of the user tower, or -1 */
    int32_t *history_row;        /* [n_items]: table row of each item in the sequence's vocabulary; NULL without */
    uint64_t bad_rows, dropped_by_label, dropped_by_weight;
    void *owned; /* blocks behind the views */
};

/* Reads everything the configuration names and logs a summary (info) and what looks wrong but can be lived with
 * (warnings: features that are constant or all missing, users and items without a row in their table). NULL: error. */
struct dataset *dataset_load(const struct train_config *config, struct err *e);

/* The same with the statistics of numeric features taken from another model's schema (train/warm_start.h) where it has them;
 * NULL: all are learned. */
struct dataset *dataset_load_like(const struct train_config *config, const struct schema *like, struct err *e);
void dataset_free(struct dataset *d); /* NULL is fine */

/* Gives back what training, evaluation and export do not need, once all parts are known: times (histories keep which
 * events have the time of the one before; CUT_LATEST keeps them with early_stop), and columns of user features, which are
 * packed (core/feature_pack.h). At 100 million events and 10 million users with seven features that is 1.2 GB. */
int dataset_compact(struct dataset *d, const struct train_config *config, struct err *e);

/* Writes the table rows of user u's latest events strictly before event `position` of `part` (an index into
 * part->item), oldest first, at most the feature's `last`, to out; returns how many. Events with the same time are not
 * before it. position == part->start[u + 1] means: all of the user's events of the part. Without times there is no before:
 * the last of the user's other events in the file's order, none of which has the event's item. */
size_t dataset_history(const struct dataset *d, const struct interactions *part, uint32_t user, size_t position,
                       int32_t *out);

/* Fills history and history_row from schema, item_ids and n_items (dataset_load has done it). */
int dataset_map_history(struct dataset *d, struct err *e);

/* The same for parts that are not a dataset's: row [items] maps items to what is written, at most `last` of them. */
size_t interactions_history(const struct interactions *part, uint32_t user, size_t position, uint32_t last,
                            const int32_t *row, int32_t *out);

/* New array [n_items] (mem_free): how many events each item has. NULL without memory. */
uint32_t *interactions_count_items(const struct interactions *part, size_t n_items);

/* Cuts a validation part off train by d->cut, about `fraction` of its events, or at most that for CUT_LAST: where the
 * last events of all users would be more, a random part of the users gives theirs. At least one event of a user stays,
 * except with CUT_LATEST. Where these can hold out nothing (one time for all; no user with more events) CUT_RANDOM does. `held` are sets like test: pairs
 * that are also in `rest`, repetitions, and weights are left out of it. Both results are new; release them. */
int dataset_cut(const struct dataset *d, double fraction, uint64_t seed, struct interactions *rest,
                struct interactions *held, struct err *e);
void interactions_release(struct interactions *part); /* zeroed storage is fine */

/* A file of user-item pairs, for `recall-train eval`. */
struct events_file {
    const char *path;
    const struct events_config *columns; /* names of the columns, and label_min; its path is not used */
    struct csv_options format;
};

enum pairs_role {
    PAIRS_RELEVANT, /* what should be found: as sets */
    PAIRS_SEEN      /* what is excluded, history, popularity: everything in time order */
};

/* Reads pairs over a catalogue (a bundle's sorted item ids). Users are added to the map, and pairs->start has
 * idmap_count(users) + 1 elements then: read the relevant ones first, then what was seen, and the first users of both are
 * the same. Items outside the catalogue are left
 * out; `unreachable` (may be NULL) gets a new array [users] that counts the distinct ones of each user (mem_free). */
int dataset_eval_file(const struct events_file *file, enum pairs_role role, const struct strtab *item_ids,
                      struct idmap *users, struct interactions *pairs, uint32_t **unreachable, struct err *e);

#endif
