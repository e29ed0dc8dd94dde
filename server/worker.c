/*
 * A worker's life. Everything that comes from outside arrives as an event of its own loop, so a request is never
 * interrupted: the snapshot changes, the order to stop comes, between two requests.
 *
 * The new snapshot is taken over in the wake-up, not at the start of a request. That keeps the making of the new
 * workbench (memory for a search in the whole catalogue) out of requests, and the request path free of even one atomic
 * load. Until the wake-up is served, which is at most one round of the event loop, the old one answers.
 *
 * New settings come the same way. A new workbench is made for them, too, as the limits are its sizes.
 *
 * When draining, the control thread first lets no new connection into the listening sockets; each worker then takes what
 * waits in them and stops accepting; the last one to do so shuts them, so that clients are refused at once. Without the
 * first step a connection that completes between the last look into the queue and the shutting would be reset.
 *
 * All workers accept from the same listening sockets. Rejected: SO_REUSEPORT, one queue a worker: the kernel deals
 * connections out by hash, so some worker always has too many, and a queue that is closed while draining resets the
 * connections in it.
 */
#include "server/worker.h"

#include <event2/event.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/router.h"
#include "server/service.h"
#include "server/slow_lane.h"
#include "server/window.h"
#include "server/workbench.h"

uint64_t worker_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct http_limits make_limits(const struct serve_config *config)
{
    struct http_limits limits = HTTP_LIMITS_DEFAULT;
    limits.max_head = config->limits.head;
    size_t line = limits.max_head - 4; /* a head is longer than its line by two line ends at least */
    limits.max_line = limits.max_line < line ? limits.max_line : line;
    limits.max_body = config->limits.body;
    limits.max_connections = config->limits.connections;
    limits.max_per_address = config->limits.connections_per_address;
    limits.request_timeout_ms = (int)config->limits.request_timeout_ms;
    limits.idle_timeout_ms = (int)config->limits.idle_timeout_ms;
    limits.response_timeout_ms = (int)config->limits.response_timeout_ms;
    return limits;
}

/* Begins to serve what is in the mailbox. Without memory for it the old snapshot stays. */
static void adopt_snapshot(struct worker *w)
{
    struct snapshot *s = mailbox_take(&w->mailbox);
    if (!s) {
        return;
    }
    struct err e = ERR_INIT;
    struct workbench *bench = workbench_new(s, w->settings->config, &e);
    if (!bench) {
        log_error("a worker cannot serve model %s: %s", s->version, e.message);
        metric_add(&w->metrics.adopt_failures, 1);
        snapshot_unref(s);
        if (!w->bench) {
            atomic_fetch_add(&w->service->workers_stuck, 1);
            service_wake_control(w->service);
        }
        return;
    }
    struct workbench *old = w->bench;
    w->bench = bench;
    slow_lane_give_snapshot(w->slow, s);
    metric_add(&w->metrics.adopted, 1);
    workbench_free(old);
    if (!old) {
        atomic_fetch_add_explicit(&w->service->workers_serving, 1, memory_order_acq_rel);
        service_wake_control(w->service);
    }
}

/* What of the settings is not among the limits. */
static void set_up_http(struct http_server *http, const struct settings *s)
{
    http_server_set_tls(http, false, s->tls);
    http_server_set_tls(http, true, s->admin_tls);
    http_server_set_gzip(http, s->config->gzip_responses);
}

/* Begins to go by what is in the mailbox: a new workbench for the same snapshot, and new limits of the HTTP server. Without
 * memory for it the old settings stay. */
static void adopt_settings(struct worker *w)
{
    struct settings *s = settings_take(&w->settings_mailbox);
    if (!s) {
        return;
    }
    struct err e = ERR_INIT;
    const struct http_limits limits = make_limits(s->config);
    struct workbench *bench = NULL;
    if (w->bench && !(bench = workbench_again(w->bench, s->config, &e))) {
        log_error("a worker cannot take over new settings: %s", e.message);
        metric_add(&w->metrics.adopt_failures, 1);
        settings_unref(s);
        return;
    }
    set_up_http(w->http, s);
    http_server_set_limits(w->http, &limits, NULL); /* from a checked configuration: they are good */
    if (bench) {
        workbench_free(w->bench);
        w->bench = bench;
    }
    settings_unref(w->settings);
    w->settings = s;
    dispatch_adopt_settings(w);
    slow_lane_give_settings(w->slow, s);
}

static void on_drained(void *arg)
{
    struct worker *w = arg;
    event_base_loopbreak(w->base);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct worker *w = arg;
    eventfd_t count; /* only that we were woken matters */
    eventfd_read(fd, &count);
    unsigned orders = atomic_load_explicit(&w->orders, memory_order_acquire);
    if (orders & WORKER_ORDER_STOP) {
        event_base_loopbreak(w->base);
        return;
    }
    adopt_settings(w);
    adopt_snapshot(w);
    slow_lane_send_answers(w->slow);
    if ((orders & WORKER_ORDER_DRAIN) && !w->drain_begun) {
        w->drain_begun = true;
        http_server_drain(w->http, on_drained, w);
        service_stop_listening(w->service);
    }
}

/* Without batch_window_us there is none. */
static int make_window(struct worker *w, struct err *e)
{
    const struct serve_config *config = w->service->config;
    if (config->batch_window_us == 0) {
        return 0;
    }
    size_t most = config->limits.batch < WINDOW_MOST ? config->limits.batch : WINDOW_MOST;
    w->window = window_new(w->base, config->batch_window_us, most, config->limits.body, recall_answer, w, e);
    return w->window ? 0 : -1;
}

/* An event_base for one thread: no locks, and no clock beside the monotonic one. */
static struct event_base *make_base(void)
{
    struct event_base *base = NULL;
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        base = event_base_new_with_config(config);
        event_config_free(config);
    }
    return base;
}

/* The first listener is the public one, further ones are for the admin paths. */
int worker_init(struct worker *w, struct service *service, const int *listeners, size_t n_listeners, struct err *e)
{
    w->service = service;
    w->line = (struct buf)BUF_INIT;
    w->settings = settings_ref(service->settings);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->base = make_base();
    if (w->wake_fd < 0 || !w->base) {
        return err_set(e, "cannot set up a worker's event loop");
    }
    w->wake_event = event_new(w->base, w->wake_fd, EV_READ | EV_PERSIST, on_wake, w);
    if (!w->wake_event || event_add(w->wake_event, NULL) != 0) {
        return err_nomem(e);
    }
    const struct http_limits limits = make_limits(w->settings->config);
    w->http = http_server_new(w->base, &limits, router_handle, w, e);
    if (!w->http) {
        return -1;
    }
    set_up_http(w->http, w->settings);
    http_server_count_addresses(w->http, service->addresses);
    http_server_observe(w->http, router_observe, w);
    w->slow = slow_lane_new(w, e);
    if (!w->slow || dispatch_init(w, e) != 0 || make_window(w, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < n_listeners; i++) {
        if (http_server_accept(w->http, listeners[i], i > 0, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    event_base_dispatch(w->base);
    slow_lane_stop(w->slow);
    atomic_fetch_add_explicit(&w->service->workers_done, 1, memory_order_acq_rel);
    service_wake_control(w->service);
    return NULL;
}

int worker_start(struct worker *w, struct err *e)
{
    if (service_start_thread(&w->thread, worker_main, w, e) != 0) {
        return -1;
    }
    w->running = true;
    return 0;
}

void worker_wake(struct worker *w)
{
    eventfd_write(w->wake_fd, 1); /* fails when the counter is full: it is being woken anyway */
}

void worker_give_snapshot(struct worker *w, struct snapshot *s)
{
    mailbox_put(&w->mailbox, s);
    worker_wake(w);
}

void worker_give_settings(struct worker *w, struct settings *s)
{
    settings_put(&w->settings_mailbox, s);
    worker_wake(w);
}

void worker_order(struct worker *w, enum worker_order order)
{
    atomic_fetch_or_explicit(&w->orders, (unsigned)order, memory_order_acq_rel);
    worker_wake(w);
}

void worker_join(struct worker *w)
{
    if (w->running) {
        pthread_join(w->thread, NULL);
        w->running = false;
    }
}

void worker_release(struct worker *w)
{
    if (!w->service) {
        return;
    }
    buf_release(&w->line);
    window_free(w->window);
    dispatch_release(w);
    slow_lane_stop(w->slow);
    slow_lane_free(w->slow);
    http_server_free(w->http);
    if (w->wake_event) {
        event_free(w->wake_event);
    }
    if (w->base) {
        event_base_free(w->base);
    }
    workbench_free(w->bench);
    snapshot_unref(mailbox_take(&w->mailbox));
    settings_unref(settings_take(&w->settings_mailbox));
    settings_unref(w->settings);
    if (w->wake_fd >= 0) {
        close(w->wake_fd);
    }
}
