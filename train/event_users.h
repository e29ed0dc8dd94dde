/*
 * train/event_users.h: which user an event belongs to, without a number for each event.
 *
 * Events stand by user, so the user of one is found in interactions.start. A sparse index, one user for every
 * EVENT_USERS_STEP events, narrows the search down to a few neighbours. Read-only after init, and then thread-safe.
 */
#ifndef TRAIN_EVENT_USERS_H
#define TRAIN_EVENT_USERS_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "train/dataset.h"

enum { EVENT_USERS_STEP = 64 };

struct event_users {
    const struct interactions *part; /* borrowed */
    uint32_t *user;                  /* [n / EVENT_USERS_STEP + 2] of every EVENT_USERS_STEP-th event, and the last */
};

int event_users_init(struct event_users *m, const struct interactions *part, size_t n_users, struct err *e);
void event_users_release(struct event_users *m); /* zeroed storage is fine */

/* The user of an event below part->n. */
uint32_t event_users_find(const struct event_users *m, size_t event);

/* Asks for the memory that event_users_find is going to read. */
void event_users_prefetch(const struct event_users *m, size_t event);

#endif
