/*
 * server/snapshot.h: what is being served: the items of one verified bundle with their index, shared by all workers.
 *
 * A snapshot is reference counted, and read-only but for items that come and go (server/items.h). Each worker holds one reference, which the control thread hands over
 * through that worker's mailbox: no lock, no waiting, and a request never sees two snapshots, because a worker changes
 * its own only between requests. Whoever gives back the last reference puts the snapshot on the list of the retired
 * and wakes the control thread, which frees it: unmapping gigabytes never happens in a request.
 *
 * Lock-free by these rules:
 *   mailbox   one atomic pointer. The control thread exchanges the new snapshot for what is in it and gives that back;
 *             the worker exchanges NULL for what is in it. Each reference so has exactly one owner at any time.
 *   retired   a stack that many push to and one empties as a whole, so no node is ever popped while another thread
 *             looks at it (no ABA problem).
 */
#ifndef SERVER_SNAPSHOT_H
#define SERVER_SNAPSHOT_H

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "core/err.h"

struct ann;
struct bundle;
struct catalog;
struct snapshot;

struct retired {
    struct snapshot *_Atomic first;
    int wake_fd; /* an eventfd, borrowed: written when a snapshot was put here; -1: nobody waits */
};

struct snapshot {
    struct catalog *catalog; /* a reference */
    struct bundle *bundle;   /* the catalogue's */
    struct ann *index;       /* owned */
    char *version;           /* owned */
    char *head;              /* owned, [head_len]: {"model":"<version>", the beginning of every answer */
    size_t head_len;

    time_t loaded_at;
    double load_seconds;
    double probe_recall; /* of the index against an exact scan, measured while loading */

    atomic_uint references;
    struct retired *retired;
    struct snapshot *next; /* in the list of the retired */
};

/* New snapshot with one reference, the caller's. Takes a reference to the catalogue (NULL: a snapshot of nothing, for tests)
 * and the index, also on failure (they are given back and freed then). */
struct snapshot *snapshot_new(const char *version, struct catalog *catalog, struct ann *index, struct retired *retired,
                              struct err *e);

/* New: the same items with another index of them, which is taken as above. */
struct snapshot *snapshot_with_index(const struct snapshot *s, struct ann *index, struct err *e);

struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is fine */

/* Frees what has been retired since the last call; returns how many. The control thread only. */
size_t snapshot_reap(struct retired *retired);

struct mailbox {
    struct snapshot *_Atomic slot;
};

/* Puts a reference of its own to `s` into the mailbox. What nobody took before is given back. */
void mailbox_put(struct mailbox *m, struct snapshot *s);

/* The snapshot in the mailbox, with its reference, or NULL. */
struct snapshot *mailbox_take(struct mailbox *m);

#endif
