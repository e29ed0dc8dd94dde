/*
 * server/reload.h: a new bundle from its path to a warm snapshot, on a thread of its own. What was added to the one before and
 * removed from it goes along (server/items.h).
 *
 * Requests that arrive while a load is running are answered by one more load after it: the path is read again then, so
 * the last publication always wins. The control thread calls everything here, except reload_status and the counters,
 * which any thread may read.
 */
#ifndef SERVER_RELOAD_H
#define SERVER_RELOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/err.h"

struct reload; /* opaque */
struct service;
struct snapshot;
struct retired;

/* New; each load resolves the path of the service's settings anew. Also installs the SIGBUS handler (see reload.c). */
struct reload *reload_new(struct service *service, struct err *e);
void reload_free(struct reload *r); /* no load may be running; NULL is fine */

/* Starts a load, or notes that one more is wanted. Never waits. */
void reload_request(struct reload *r);

/* Counts a reload that was refused before anything was loaded. */
void reload_refuse(struct reload *r, const char *reason);

bool reload_is_running(const struct reload *r);

/* To be called when the control thread was woken: when a load has ended, collects it, and starts the next one if that
 * was asked for. RELOAD_DONE gives the new snapshot, to which items are added from now on, with a reference; RELOAD_FAILED has the reason in `e`. */
enum reload_result { RELOAD_NOTHING, RELOAD_DONE, RELOAD_FAILED };
enum reload_result reload_collect(struct reload *r, struct snapshot **snapshot, struct err *e);

struct reload_status {
    uint64_t ok, failed; /* loads, the first included */
    bool running;
    time_t last_failure_at;           /* 0: never */
    char last_error[ERR_MESSAGE_MAX]; /* of the latest load; "" when that succeeded */
};
void reload_get_status(struct reload *r, struct reload_status *status);

#endif
