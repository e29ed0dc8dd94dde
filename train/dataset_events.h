/*
 * train/dataset_events.h: interactions: read from a file, grouped by user, cut into parts.
 */
#ifndef TRAIN_DATASET_EVENTS_H
#define TRAIN_DATASET_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/idmap.h"
#include "train/dataset.h"

/* Events as a file has them, in its order: 8 bytes an event, 8 more with times, 4 more with weights. */
struct event_log {
    size_t n;
    bool timed, weighted;
    struct event_block **blocks; /* owned */
    size_t n_blocks, capacity;
    uint64_t bad_rows, dropped_by_label, dropped_by_weight;
};

enum events_take {
    EVENTS_POSITIVE, /* label >= label_min, weight > 0 */
    EVENTS_EXPOSED   /* label < label_min */
};

/* Reads a file into an empty log. Users and items become their numbers in the maps, which grow. */
int event_log_read(struct event_log *log, const struct events_file *file, enum events_take take, struct idmap *users,
                   struct idmap *items, struct err *e);
void event_log_release(struct event_log *log);

/* Empties the log into interactions of `n_users` users, grouped by rank[user], in time order. Item numbers stay. */
int interactions_group(struct interactions *out, struct event_log *log, const uint32_t *user_rank, size_t n_users,
                       struct err *e);

/* Room for n events of n_users users; `start` is zeroed, the rest is not. */
int interactions_init(struct interactions *part, size_t n, bool timed, bool weighted, size_t n_users, struct err *e);

/* Copies events with held_out[i] false to `rest` and the others, without their weights, to `held`. */
int interactions_partition(const struct interactions *part, const bool *held_out, size_t n_users,
                           struct interactions *rest, struct interactions *held, struct err *e);

/* Marks the last n events of every user that has more than n. */
void mark_last(const struct interactions *part, size_t n_users, uint32_t n, bool *held_out);

/* Marks the latest events, about `fraction` of them: all from one moment on, so that equal times stay together. False
 * when there is no such moment (one time for all, or fewer than two events). */
bool mark_latest(const struct interactions *part, double fraction, bool *held_out);

/* Drops items numbered n_items or more. */
void interactions_drop_outside(struct interactions *part, size_t n_users, size_t n_items);

/* Drops what user u has at before[u] or later. */
void interactions_drop_late(struct interactions *part, size_t n_users, const int64_t *before);

/* Makes `held` a set for each user: drops what the user has in `rest` (may be NULL) or had before in `held`, and items
 * numbered `n_items` or more, which are counted in unreachable[user] (NULL when there are none). All item numbers are below `n_numbers`. */
int interactions_make_sets(struct interactions *held, const struct interactions *rest, size_t n_users, size_t n_items,
                           size_t n_numbers, uint32_t *unreachable, struct err *e);

#endif
