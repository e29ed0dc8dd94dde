/*
 * server/worker.h: one thread, one event_base, one HTTP server, one workbench: a share of the requests from beginning to
 * end, without a word to the other workers.
 *
 * The control thread makes and frees workers and talks to them through the mailbox, the orders and a wake-up; the fields
 * are the worker thread's own unless they say otherwise.
 */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "server/dispatch.h"
#include "server/metrics.h"
#include "server/settings.h"
#include "server/snapshot.h"

struct event;
struct event_base;
struct http_server;
struct service;
struct slow_lane;
struct window;
struct workbench;

enum worker_order { WORKER_ORDER_DRAIN = 1, WORKER_ORDER_STOP = 2 };

struct worker {
    struct service *service; /* borrowed */
    struct event_base *base;
    struct http_server *http; /* its counters may be read by any thread */
    struct event *wake_event;
    struct settings *settings; /* a reference; change only between two requests */
    struct workbench *bench;   /* NULL until the first snapshot came */
    struct window *window;     /* of /recall; NULL: none */
    struct dispatch dispatch;
    struct buf line;        /* of the access log, being written */
    struct slow_lane *slow; /* NULL: this is the one of a slow lane, which has no base and no HTTP server either */
    bool drain_begun;
    bool running; /* the thread was started; the control thread's */
    pthread_t thread;

    /* from other threads */
    int wake_fd;
    struct mailbox mailbox;
    struct settings_mailbox settings_mailbox;
    atomic_uint orders; /* bits of enum worker_order */

    alignas(64) struct metrics metrics; /* written here, read by any; apart from the rest for the cache's sake */
};

/* Sets up base, HTTP server and listeners (borrowed, see http_server_accept); the thread is started by worker_start. */
int worker_init(struct worker *w, struct service *service, const int *listeners, size_t n_listeners, struct err *e);
int worker_start(struct worker *w, struct err *e);

/* For the control thread. An order is carried out by the worker as soon as its current request is done. DRAIN: accept no
 * more, answer what is there, then end; STOP: end now. */
void worker_give_snapshot(struct worker *w, struct snapshot *s);
void worker_give_settings(struct worker *w, struct settings *s);
void worker_order(struct worker *w, enum worker_order order);

/* Waits for the thread's end, if it was started. */
void worker_join(struct worker *w);
/* After all workers have been joined (they read each other's counters). A zeroed struct is fine. */
void worker_release(struct worker *w);

/* Makes its event loop look around. From any thread. */
void worker_wake(struct worker *w);

uint64_t worker_now_ns(void);

#endif
