/*
 * server/service.h: what all threads of the daemon share.
 *
 * Set up by the control thread before the workers start and read-only from then on, except for the atomics and for
 * `reload` and `items`, which say themselves who may touch what.
 */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "config/serve_config.h"
#include "core/err.h"
#include "server/items.h"
#include "server/snapshot.h"

enum { SERVICE_LISTENERS_MAX = 2 };

struct access_log;
struct addresses;
struct reload;
struct settings;
struct worker;

struct service {
    const struct serve_config *config; /* the start's: for what cannot be changed; else see the worker's settings */
    struct settings *settings;         /* a reference to those in force; the control thread's */
    bool admin_on_public;              /* no admin listener, and the public one is loopback or unix */
    time_t started_at;

    struct worker *workers; /* [n_workers] */
    size_t n_workers;
    struct reload *reload;
    struct items items;
    struct retired retired;
    struct access_log *access_log; /* NULL: none */
    struct addresses *addresses;   /* that clients connect from */
    int control_fd;                /* an eventfd: written by any thread when the control thread should look around */

    atomic_bool draining;         /* not ready any more */
    atomic_uint workers_serving;  /* with a snapshot */
    atomic_uint workers_stuck;    /* that could not take their first one */
    atomic_uint workers_draining; /* that have stopped accepting */
    atomic_uint workers_done;     /* whose event loop has ended */

    int listening_fds[SERVICE_LISTENERS_MAX]; /* borrowed */
    size_t n_listening;
};

/* Wakes the control thread. From any thread, also from a signal handler. */
void service_wake_control(const struct service *service);

/* For each worker when it accepts no more: the last one shuts the listening sockets. */
void service_stop_listening(struct service *service);

/* Starts a thread that receives no signals but those of its own faults: the others are the control thread's. */
int service_start_thread(pthread_t *thread, void *(*run)(void *), void *arg, struct err *e);

/* Every worker serves a verified snapshot, and the daemon is not draining. */
bool service_is_ready(const struct service *service);

#endif
