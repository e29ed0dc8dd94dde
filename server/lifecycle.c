/*
 * The control thread.
 *
 *             start            first snapshot in every worker      SIGTERM, SIGINT         drain_delay      all answered,
 *   (nothing) ────▶ loading ───────────────────────────────▶ serving ────────────▶ not ready ────────▶ draining ────▶ end
 *                   503 readyz                               200 readyz            503 readyz          no accept   or deadline
 *
 * Signals are libevent signal events: the handler itself only writes a byte, everything is done in the loop. All other
 * threads block signals, so they are delivered here. Whoever has something for the control thread writes to one eventfd;
 * on_wake then looks at everything there may be, which is little and makes the order of the news irrelevant.
 *
 * A bundle that cannot be loaded at the start ends the process with the reason (there is nothing to serve, and the
 * service manager restarts us); the same bundle at a reload changes nothing but the log, a counter and /model.
 *
 * A second SIGTERM ends the process at once, by that signal, so that the one who sent it sees what it asked for.
 */
#include "server/lifecycle.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/bundle.h"
#include "core/fileio.h"
#include "core/log.h"
#include "core/mem.h"
#include "server/access_log.h"
#include "server/addresses.h"
#include "server/compaction.h"
#include "server/http.h"
#include "server/listener.h"
#include "server/notify.h"
#include "server/reload.h"
#include "server/service.h"
#include "server/settings.h"
#include "server/version.h"
#include "server/worker.h"

enum { PUBLIC_LISTENER, ADMIN_LISTENER, MAX_WORKERS = 1024, FORCED_END_MS = 2000 };
enum { WORKER_DESCRIPTORS = 8, OWN_DESCRIPTORS = 64 }; /* that are no connections: more than are ever open */

struct daemon {
    struct service service;
    struct listener listeners[SERVICE_LISTENERS_MAX];
    size_t n_listeners;
    const struct settings_source *source;
    struct settings *started; /* a reference: service.config is in it */
    struct event_base *base;
    struct event *wake, *hangup, *user1, *terminate, *interrupt, *drain_timer, *deadline_timer;
    struct worker *workers;
    struct compaction *compaction;
    bool given;     /* a snapshot has been handed out */
    bool announced; /* READY=1 was sent */
    bool stopped;   /* the deadline has passed */
    struct err failure;
};

static void finish(struct daemon *d)
{
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_order(&d->workers[i], WORKER_ORDER_STOP);
    }
    event_base_loopbreak(d->base);
}

/* --- reloads --------------------------------------------------------------------------------------------------------*/

/* To all workers; takes the reference. */
static void give_snapshot(struct daemon *d, struct snapshot *s)
{
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_give_snapshot(&d->workers[i], s);
    }
    snapshot_unref(s);
    d->given = true;
}

static void collect_load(struct daemon *d)
{
    struct snapshot *s = NULL;
    struct err e = ERR_INIT;
    switch (reload_collect(d->service.reload, &s, &e)) {
    case RELOAD_NOTHING:
        return;
    case RELOAD_DONE:
        log_info("model %s: %zu items, dim %u, %s index, probe recall %.4f, loaded in %.3f s", s->version,
                 ann_rows_live(s->index), s->bundle->dim, s->bundle->index_engine, s->probe_recall, s->load_seconds);
        give_snapshot(d, s);
        break;
    case RELOAD_FAILED:
        if (!d->given) {
            err_set(&d->failure, "%s", e.message);
            finish(d);
            return;
        }
        log_error("reload failed, the old model keeps serving: %s", e.message);
        break;
    }
    if (d->announced && !reload_is_running(d->service.reload)) {
        notify_send("READY=1\nSTATUS=%s", err_isset(&e) ? "serving; the latest reload failed" : "serving");
    }
}

/* A compacted index goes the way of a new bundle. While one is loaded there is no use in compacting what it replaces. */
static void compact(struct daemon *d)
{
    struct snapshot *s = compaction_collect(d->compaction);
    if (s) {
        give_snapshot(d, s);
    }
    if (!reload_is_running(d->service.reload) && !atomic_load(&d->service.draining)) {
        compaction_consider(d->compaction);
    }
}

static void announce_ready(struct daemon *d)
{
    if (!d->announced && service_is_ready(&d->service)) {
        d->announced = true;
        notify_send("READY=1\nSTATUS=serving");
        log_info("ready");
    }
}

/* Connections that no descriptor is left for wait, and are told so one by one; better the operator is. */
static void check_descriptors(const struct serve_config *config, size_t workers)
{
    struct rlimit limit;
    unsigned long long own = workers * WORKER_DESCRIPTORS + OWN_DESCRIPTORS;
    unsigned long long needed = (unsigned long long)workers * config->limits.connections + own;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < needed) {
        log_warn(
            "limits.connections allows %u connections at each of %zu workers; with %llu descriptors for other things "
            "that is %llu, and this process may open %llu: raise its limit (LimitNOFILE, ulimit -n), or lower "
            "limits.connections",
            config->limits.connections, workers, own, needed, (unsigned long long)limit.rlim_cur);
    }
}

/* To all workers; takes the reference. */
static void give_settings(struct daemon *d, struct settings *s)
{
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_give_settings(&d->workers[i], s);
    }
    settings_unref(d->service.settings);
    d->service.settings = s;
    log_set_level(s->config->log_level);
    check_descriptors(s->config, d->service.n_workers);
    if (s->needs_restart[0]) {
        log_warn("changed in the configuration, and in force after a restart: %s", s->needs_restart);
    }
}

static void refuse_reload(struct daemon *d, const struct err *e)
{
    log_error("SIGHUP refused, nothing has changed: %s", e->message);
    reload_refuse(d->service.reload, e->message);
    if (d->announced && !reload_is_running(d->service.reload)) {
        notify_send("READY=1\nSTATUS=serving; the latest reload was refused");
    }
}

static void on_hangup(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    struct daemon *d = arg;
    if (atomic_load(&d->service.draining)) {
        return;
    }
    if (d->announced) {
        notify_reloading();
    }
    struct err e = ERR_INIT;
    struct settings *settings = settings_load(d->source, d->service.config, &e);
    if (!settings) {
        refuse_reload(d, &e);
        return;
    }
    give_settings(d, settings);
    log_info("SIGHUP: %s", reload_is_running(d->service.reload) ? "one more load after the running one" : "reloading");
    reload_request(d->service.reload);
}

static void on_user1(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    struct daemon *d = arg;
    if (d->service.access_log) {
        access_log_reopen(d->service.access_log);
    }
}

/* --- news from other threads ----------------------------------------------------------------------------------------*/

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct daemon *d = arg;
    eventfd_t count; /* only that we were woken matters */
    eventfd_read(fd, &count);
    snapshot_reap(&d->service.retired);
    collect_load(d);
    compact(d);
    announce_ready(d);
    if (atomic_load(&d->service.workers_stuck) > 0) {
        err_set(&d->failure, "no memory to serve the model with %zu workers", d->service.n_workers);
        finish(d);
    }
    if (atomic_load(&d->service.workers_done) == d->service.n_workers) {
        event_base_loopbreak(d->base);
    }
}

/* --- the end --------------------------------------------------------------------------------------------------------*/

static void start_timer(struct event *timer, uint64_t ms)
{
    const struct timeval wait = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    event_add(timer, &wait);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct daemon *d = arg;
    if (d->stopped) {
        log_error("a worker does not come back: ending without it");
        _exit(1);
    }
    d->stopped = true;
    log_warn("drain deadline: connections that are still open are closed");
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_order(&d->workers[i], WORKER_ORDER_STOP);
    }
    start_timer(d->deadline_timer, FORCED_END_MS);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct daemon *d = arg;
    for (size_t i = 0; i < d->n_listeners; i++) {
        listener_hold(&d->listeners[i]);
    }
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_order(&d->workers[i], WORKER_ORDER_DRAIN);
    }
    start_timer(d->deadline_timer, d->service.settings->config->limits.drain_timeout_ms);
}

static void on_terminate(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    struct daemon *d = arg;
    if (atomic_exchange(&d->service.draining, true)) {
        log_warn("second signal: ending now");
        signal((int)number, SIG_DFL);
        raise((int)number);
        return;
    }
    uint64_t delay = d->announced ? d->service.settings->config->drain_delay_ms : 0;
    log_info("signal %d: not ready any more, draining after %llu ms", (int)number, (unsigned long long)delay);
    notify_send("STOPPING=1\nSTATUS=draining");
    if (delay == 0) {
        on_drain(-1, 0, d);
    } else {
        start_timer(d->drain_timer, delay);
    }
}

/* --- start ----------------------------------------------------------------------------------------------------------*/

static int open_listeners(struct daemon *d, struct err *e)
{
    const struct serve_config *config = d->service.config;
    if (listener_open(&d->listeners[PUBLIC_LISTENER], config->listen, e) != 0) {
        return -1;
    }
    d->n_listeners = 1;
    d->service.admin_on_public = !config->admin_listen && d->listeners[PUBLIC_LISTENER].is_private;
    if (config->admin_listen) {
        if (listener_open(&d->listeners[ADMIN_LISTENER], config->admin_listen, e) != 0) {
            return err_prefix(e, "admin");
        }
        d->n_listeners = 2;
        log_info("admin paths on %s", d->listeners[ADMIN_LISTENER].address);
    } else if (!d->service.admin_on_public) {
        log_warn("%s is public and there is no admin.listen: /metrics and /model are not served",
                 d->listeners[PUBLIC_LISTENER].address);
    }
    return 0;
}

static void warn_of_clear_tokens(const struct daemon *d, const struct settings *s)
{
    const struct listener *public = &d->listeners[PUBLIC_LISTENER], *admin = &d->listeners[ADMIN_LISTENER];
    if (s->tokens && !s->tls && !public->is_private) {
        log_warn("%s: tokens are sent without encryption; set tls, or let a proxy encrypt", public->address);
    }
    if (s->admin_tokens && !s->admin_tls && d->n_listeners > 1 && !admin->is_private) {
        log_warn("%s: tokens are sent without encryption; set admin.tls, or let a proxy encrypt", admin->address);
    }
}

static struct event *add_signal(struct daemon *d, int number, event_callback_fn callback)
{
    struct event *event = evsignal_new(d->base, number, callback, d);
    if (event && event_add(event, NULL) != 0) {
        event_free(event);
        return NULL;
    }
    return event;
}

static int set_up_events(struct daemon *d, struct err *e)
{
    d->service.control_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->service.retired.wake_fd = d->service.control_fd;
    d->base = event_base_new();
    if (d->service.control_fd < 0 || !d->base) {
        return err_set(e, "cannot set up the control thread's event loop");
    }
    d->wake = event_new(d->base, d->service.control_fd, EV_READ | EV_PERSIST, on_wake, d);
    d->drain_timer = evtimer_new(d->base, on_drain, d);
    d->deadline_timer = evtimer_new(d->base, on_deadline, d);
    d->hangup = add_signal(d, SIGHUP, on_hangup);
    d->user1 = add_signal(d, SIGUSR1, on_user1);
    d->terminate = add_signal(d, SIGTERM, on_terminate);
    d->interrupt = add_signal(d, SIGINT, on_terminate);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log that may not grow any more is no reason to end */
    if (!d->wake || event_add(d->wake, NULL) != 0 || !d->drain_timer || !d->deadline_timer || !d->hangup || !d->user1 ||
        !d->terminate || !d->interrupt) {
        return err_nomem(e);
    }
    return 0;
}

/* As many descriptors as we may have: each connection is one. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static size_t count_workers(const struct serve_config *config)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = config->workers ? config->workers : cores > 0 ? (size_t)cores : 1;
    return n < MAX_WORKERS ? n : MAX_WORKERS;
}

static int start_workers(struct daemon *d, struct err *e)
{
    size_t n = count_workers(d->service.config);
    for (size_t i = 0; i < d->n_listeners; i++) {
        d->service.listening_fds[i] = d->listeners[i].fd;
    }
    d->service.n_listening = d->n_listeners;
    d->workers = mem_array(n, sizeof *d->workers);
    if (!d->workers) {
        return err_nomem(e);
    }
    d->service.workers = d->workers;
    d->service.n_workers = n;
    const char *log_path = d->service.config->access_log.path;
    if (log_path && !(d->service.access_log = access_log_new(log_path, n, e))) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (worker_init(&d->workers[i], &d->service, d->service.listening_fds, d->n_listeners, e) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (worker_start(&d->workers[i], e) != 0) {
            return -1;
        }
    }
    return 0;
}

static void free_event(struct event *event)
{
    if (event) {
        event_free(event);
    }
}

/* Ends and frees the workers, and what they served, and takes the sockets away; may be called twice. */
static void stop_serving(struct daemon *d)
{
    for (size_t i = 0; i < d->service.n_workers; i++) {
        if (d->workers[i].running) {
            worker_order(&d->workers[i], WORKER_ORDER_STOP);
        }
    }
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_join(&d->workers[i]);
    }
    for (size_t i = 0; i < d->service.n_workers; i++) {
        worker_release(&d->workers[i]);
    }
    d->service.n_workers = 0;
    items_forget(&d->service.items);
    snapshot_reap(&d->service.retired);
    for (size_t i = 0; i < d->n_listeners; i++) {
        listener_close(&d->listeners[i]);
    }
    d->n_listeners = 0;
}

static void daemon_free(struct daemon *d)
{
    stop_serving(d);
    access_log_free(d->service.access_log);
    reload_free(d->service.reload);
    compaction_free(d->compaction);
    items_release(&d->service.items);
    struct event *events[] = {d->wake,      d->hangup,      d->user1,         d->terminate,
                              d->interrupt, d->drain_timer, d->deadline_timer};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        free_event(events[i]);
    }
    if (d->base) {
        event_base_free(d->base);
    }
    if (d->service.control_fd >= 0) {
        close(d->service.control_fd);
    }
    addresses_free(d->service.addresses);
    settings_unref(d->service.settings);
    settings_unref(d->started);
    mem_free(d->workers);
    mem_free(d);
}

struct daemon *daemon_start(struct serve_config *config, const struct settings_source *source, struct err *e)
{
    struct daemon *d = mem_array(1, sizeof *d);
    if (!d) {
        serve_config_free(config);
        err_nomem(e);
        return NULL;
    }
    d->started = settings_new(config, "", e);
    if (!d->started) {
        mem_free(d);
        return NULL;
    }
    d->source = source;
    d->service.settings = settings_ref(d->started);
    d->service.config = d->started->config;
    d->service.started_at = time(NULL);
    d->service.control_fd = -1;
    d->service.retired.wake_fd = -1;
    raise_descriptor_limit();
    if (items_init(&d->service.items, e) != 0 || !(d->compaction = compaction_new(&d->service, e)) ||
        !(d->service.addresses = addresses_new(e)) || open_listeners(d, e) != 0 || set_up_events(d, e) != 0 ||
        !(d->service.reload = reload_new(&d->service, e)) || start_workers(d, e) != 0) {
        daemon_free(d);
        return NULL;
    }
    char libraries[VERSION_LIBRARIES_MAX];
    log_info("recalld " RECALLD_VERSION ": %zu workers, %s", d->service.n_workers, version_libraries(libraries));
    check_descriptors(config, d->service.n_workers);
    warn_of_clear_tokens(d, d->started);
    reload_request(d->service.reload);
    return d;
}

const char *daemon_address(const struct daemon *d)
{
    return d->listeners[PUBLIC_LISTENER].address;
}

int daemon_run(struct daemon *d, struct err *e)
{
    if (reload_is_running(d->service.reload)) {
        event_base_dispatch(d->base);
    } else { /* no thread could be started for the first load */
        err_set(&d->failure, "the first bundle cannot be loaded; the log says why");
    }
    bool failed = err_isset(&d->failure);
    if (failed) {
        err_set(e, "%s", d->failure.message);
    }
    stop_serving(d);
    bool loading = reload_is_running(d->service.reload);
    if (loading || compaction_is_running(d->compaction)) { /* the thread cannot be called off, and still looks at d */
        log_line(failed ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "%s",
                 failed    ? e->message
                 : loading ? "stopped while loading"
                           : "stopped while compacting");
        _exit(failed ? 1 : 0);
    }
    daemon_free(d);
    if (!failed) {
        log_info("stopped");
    }
    return failed ? -1 : 0;
}

static int check(const struct serve_config *config, struct err *e)
{
    if (listener_check(config->listen, NULL, e) != 0 ||
        (config->admin_listen && listener_check(config->admin_listen, NULL, e) != 0)) {
        return -1;
    }
    char *manifest = path_join(config->model_path, "manifest.json");
    if (!manifest) {
        return err_nomem(e);
    }
    bool exists = file_exists(manifest);
    mem_free(manifest);
    return exists ? 0 : err_set(e, "models.default.path: no bundle at %s (no manifest.json there)", config->model_path);
}

int daemon_check(struct serve_config *config, struct err *e)
{
    struct settings *s = settings_new(config, "", e);
    int rc = s ? check(s->config, e) : -1;
    settings_unref(s);
    return rc;
}
