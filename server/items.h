/*
 * server/items.h: items that come and go while the daemon serves.
 *
 * A change is made to the snapshot that is current for the whole service, whatever the worker that received it still serves, and
 * noted in a log by id, the latest change of each. A bundle that is loaded later gets the log's changes before it is swapped in, and
 * those that came during the load in the moment of the swap: none is lost. What was removed stays away until it is added
 * again. An added item gives way to the bundle's own of the same id, unless it came during the load. Changes live as long as the process.
 *
 * One lock; whoever changes items or swaps snapshots holds it. Searches never do: what they see is ann/ann.h's and
 * server/catalog.h's to say.
 */
#ifndef SERVER_ITEMS_H
#define SERVER_ITEMS_H

#include <jansson.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/strtab.h"
#include "server/request.h"
#include "server/snapshot.h"

struct ann;

enum { ITEM_TEXT_MAX = 1 << 16 }; /* bytes of an item's features and attributes as JSON */

struct items_status {
    size_t live;     /* items */
    size_t added;    /* rows taken */
    size_t room;     /* and left */
    size_t overhead; /* ann_overhead */
    uint64_t compactions;
};

struct items {
    pthread_mutex_t known_lock;
    struct items_status known; /* guarded by known_lock, which is held for a moment only, also under lock */
    pthread_mutex_t lock;      /* guards the rest */
    struct snapshot *current;  /* a reference; NULL before the first bundle */
    json_t *log;               /* id -> a string: {"features": ..., "attributes": ...} as JSON text; null: removed */
    uint64_t compactions;
};

int items_init(struct items *it, struct err *e);
void items_release(struct items *it);
void items_forget(struct items *it); /* gives the current snapshot back */

/* Adds the items of the member `items`, a list that has been checked for its length: all of them, or none with the fault. */
struct items_added {
    struct snapshot *snapshot; /* what they were added to: a reference for the caller */
    size_t added, replaced;    /* items that are new, and others */
};
int items_add(struct items *it, const struct serve_config *config, const json_t *list, struct items_added *done,
              struct fault *f);

/* Removes an item; *snapshot as above. -1 with the fault when there is none. */
int items_remove(struct items *it, const char *id, struct snapshot **snapshot, struct fault *f);

/* --- other snapshots --- */

/* Which of the log's changes a new snapshot has got. */
struct items_replay {
    json_t *seen;    /* the log as it was */
    json_t *dropped; /* entries that the snapshot's bundle has itself, or does not take */
};

/* Makes the log's changes to a snapshot that nobody else has yet, in the calling thread, without holding the lock meanwhile. */
int items_replay(struct items *it, const struct serve_config *config, struct snapshot *s, struct items_replay *replay,
                 struct err *e);

/* Makes the changes that came since, and the snapshot the current one. Takes the replay. */
void items_take_over(struct items *it, const struct serve_config *config, struct snapshot *s,
                     struct items_replay *replay);

/* A new snapshot, current from now on, with an index that ann_compact made of `from`'s; the index is taken. NULL if `from` is
 * no longer current, or without memory: then that stays. */
struct snapshot *items_take_index(struct items *it, const struct snapshot *from, struct ann *index, struct err *e);

/* After the latest change that is done; does not wait for one that is being made. */
void items_get_status(struct items *it, struct items_status *status);

/* The current snapshot if compacting its index is worth it, with a reference, or NULL. */
struct snapshot *items_worth_compacting(struct items *it);

#endif
