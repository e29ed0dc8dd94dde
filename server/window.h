/*
 * server/window.h: requests of one worker that arrive within microseconds of each other, gathered to be answered together.
 *
 * The first one opens the window; when its time has passed, or no more fit, all that gathered are handed to a function,
 * in the order they came, which answers each (server/http.h allows that later, from the same thread). A request that waits
 * holds nothing of a snapshot: only its own bytes and its JSON. So a reload in between means that the new model answers.
 * A client that goes away is answered like any other; that costs what it would have cost without the window, and a
 * client that only closed its sending half gets its answer. Belongs to its worker's thread.
 */
#ifndef SERVER_WINDOW_H
#define SERVER_WINDOW_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct event_base;
struct http_request;
struct window; /* opaque */

struct waiting {
    struct http_request *request;
    json_t *body; /* a reference */
};

enum { WINDOW_MOST = 64 };

/* Must answer all of them [n] and give their JSON back. */
typedef void window_answer(struct waiting *waiting, size_t n, void *arg);

/* `base` NULL: no time ends a window, window_end does. `most`: requests, 1 to WINDOW_MOST, `bytes`: of their bodies together, at which a window ends early. NULL with `e` set.
 * `base` is borrowed. */
struct window *window_new(struct event_base *base, uint32_t microseconds, size_t most, size_t bytes,
                          window_answer *answer, void *arg, struct err *e);

/* Takes the reference to the JSON. May hand all that wait to the function before it returns. */
void window_add(struct window *w, struct waiting waiting);

/* Hands over what waits. */
void window_end(struct window *w);
size_t window_length(const struct window *w);

/* Requests that wait are not answered any more: for the end of the worker, before its HTTP server is freed. NULL is fine. */
void window_free(struct window *w);

#endif
