/*
 * server/slow_lane.h: what takes long, computed beside a worker's event loop instead of in it.
 *
 * A thread a worker, of lower priority, with a workbench of its own, which it makes when it first needs one. It runs the same
 * handlers, as a struct worker without an event loop; their answers are kept (server/http.h) and handed back to the worker,
 * whose event loop sends them. Requests are computed in the order they came; neighbours that may be are computed together.
 */
#ifndef SERVER_SLOW_LANE_H
#define SERVER_SLOW_LANE_H

#include <stdbool.h>

#include "core/err.h"

struct http_request;
struct metrics;
struct slow_lane; /* opaque */
struct settings;
struct snapshot;
struct worker;

/* Of a worker, which is borrowed and has its settings; the thread is started by the first request. NULL with `e` set. */
struct slow_lane *slow_lane_new(struct worker *owner, struct err *e);

/* --- for the worker's thread --- */

/* False: no room, or no memory; nothing happened. */
bool slow_lane_take(struct slow_lane *lane, struct http_request *request);
void slow_lane_send_answers(struct slow_lane *lane); /* those that are ready: when the worker is woken */
/* To be used from the next request on. */
void slow_lane_give_snapshot(struct slow_lane *lane, struct snapshot *s);
void slow_lane_give_settings(struct slow_lane *lane, struct settings *s);

/* Ends the thread, as soon as it is between two groups of users, or items have been added. What waits is not answered any more. */
void slow_lane_stop(struct slow_lane *lane);

/* After slow_lane_stop and before the HTTP server is freed. NULL is fine. */
void slow_lane_free(struct slow_lane *lane);

/* Of the lane's thread, for any to read. */
const struct metrics *slow_lane_metrics(const struct slow_lane *lane);

#endif
