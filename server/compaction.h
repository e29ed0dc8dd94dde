/*
 * server/compaction.h: an index built anew, on a thread of its own, when items were added and removed in numbers.
 *
 * The control thread calls everything here.
 */
#ifndef SERVER_COMPACTION_H
#define SERVER_COMPACTION_H

#include <stdbool.h>

#include "core/err.h"

struct compaction; /* opaque */
struct service;
struct snapshot;

struct compaction *compaction_new(struct service *service, struct err *e);
void compaction_free(struct compaction *c); /* none may be running; NULL is fine */

/* Starts one, if the current snapshot is worth it and none is running. */
void compaction_consider(struct compaction *c);

bool compaction_is_running(const struct compaction *c);

/* When one has ended: the snapshot with the new index, which is the current one now, with a reference for the caller. NULL when
 * none has ended, or its result is of no use, because a reload was faster or it failed. */
struct snapshot *compaction_collect(struct compaction *c);

#endif
