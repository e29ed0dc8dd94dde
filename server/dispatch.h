/*
 * server/dispatch.h: when a worker computes what: at once, in its turn, on its slow lane, or not at all.
 *
 * Everything that computes goes through here (router.c says which paths); health checks and the like never do, so they are
 * answered within one turn of the event loop, and a turn computes for about a millisecond. All on the worker's
 * thread; a slow lane's (server/slow_lane.h) may call the functions below dispatch_take for its own struct worker.
 */
#ifndef SERVER_DISPATCH_H
#define SERVER_DISPATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "server/queue.h"

struct event;
struct fault;
struct http_request;
struct worker;

struct dispatch {
    struct queue queue;
    struct event *turn_end; /* runs when everything that was readable has been read */
    bool turn_begun;        /* and turn_end will run */
    uint64_t turn_from;     /* when the turn's first request was complete, in ns */
    bool computing;
    uint64_t computed_until; /* while requests wait: since when the worker only reads */
};

/* For a worker whose base is there. dispatch_release drops what waits. */
int dispatch_init(struct worker *w, struct err *e);
void dispatch_release(struct worker *w);

/* When the worker's settings are others. More may wait than they allow until those have been computed. */
void dispatch_adopt_settings(struct worker *w);

/* Answers the request now or later; request->from is set. `slow`: it takes long, whatever is in it. */
void dispatch_take(struct worker *w, struct http_request *request, bool slow);

/* For a handler that sees what its request will take, about that many microseconds: true if the slow lane has it now, or it was refused.
 * Then it is no longer the handler's. False: to be answered where it is. `together`: it may be computed with its neighbours. */
bool dispatch_defer(struct worker *w, struct http_request *request, double microseconds, bool together);

/* 0, or -1 with the fault: the request's time is over. */
int dispatch_check_time(struct worker *w, const struct http_request *request, struct fault *f);

/* The same, or nobody waits for the answer any more. Asked before computing, and in between. */
int dispatch_check(struct worker *w, const struct http_request *request, struct fault *f);

/* request_open for a handler: NULL with the fault also when the time is over. */
json_t *dispatch_open(struct worker *w, struct http_request *request, struct fault *f);

#endif
