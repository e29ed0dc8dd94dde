/*
 * The server: listeners, deadlines, draining. Connections are in http_conn.c, the input they hold in http_exchange.c,
 * what handlers call in http_respond.c.
 *
 * Deadlines are absolute and cost a connection a list move, no timer: every phase has one timeout, so the list of the
 * connections in a phase is in order of deadline when each joins at the tail. One libevent timer for the whole server
 * waits for the earliest head; a keep-alive request re-arms it only when its deadline is earlier, which in steady
 * traffic is never. Rejected: libevent's own timeout on each event, which restarts with every byte (slowloris) and
 * costs a heap operation per request.
 *
 * Accepting begins with one connection per wake-up. All workers share the listening socket and are all woken; a worker that
 * emptied the queue would keep a burst of long-lived connections for itself.
 *
 * When descriptors run out, a spare one is given up to tell one client so, and the listeners pause: the socket stays
 * readable, and without the pause the loop would spin.
 */
#include "server/http.h"

#include <errno.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "server/gzip.h"
#include "server/http_conn.h"

enum {
    PAUSE_MS = 100,
    GRACE_MS = 1000,
    URGENT_MOST = 32,
    ACCEPT_MOST = 64,
    ACCEPT_URGENT = 16,
    TIMER_STEP_MS = 2, /* deadlines closer to each other share a wake-up */
    MAX_LIMIT_MS = 86400000,
    MAX_HEAD_LIMIT = 1 << 20,
};

int64_t http_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int phase_timeout(const struct http_server *server, enum http_phase phase)
{
    switch (phase) {
    case HTTP_PHASE_IDLE:
        return server->limits.idle_timeout_ms;
    case HTTP_PHASE_HANDSHAKE:
    case HTTP_PHASE_REQUEST:
        return server->limits.request_timeout_ms;
    case HTTP_PHASE_RESPONSE:
        return server->limits.response_timeout_ms;
    case HTTP_PHASE_LINGER:
        return server->limits.linger_timeout_ms;
    case HTTP_PHASE_GRACE:
        return GRACE_MS;
    default:
        return 0;
    }
}

static void timer_set(struct event *timer, int64_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_add(timer, &tv);
}

static void arm_deadline(struct http_server *server, int64_t deadline_ms, int64_t now_ms)
{
    if (deadline_ms < server->armed_ms) {
        int64_t wait = deadline_ms - now_ms;
        server->armed_ms = deadline_ms;
        timer_set(&server->deadline_timer, wait > TIMER_STEP_MS ? wait : TIMER_STEP_MS);
    }
}

void http_conn_enter(struct http_conn *conn, enum http_phase phase)
{
    struct http_server *server = conn->server;
    TAILQ_REMOVE(&server->phases[conn->phase], conn, in_phase);
    TAILQ_INSERT_TAIL(&server->phases[phase], conn, in_phase);
    conn->phase = phase;
    int timeout = phase_timeout(server, phase);
    if (timeout > 0) {
        int64_t now = http_now_ms();
        conn->deadline_ms = now + timeout;
        arm_deadline(server, conn->deadline_ms, now);
    }
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *server = arg;
    int64_t now = http_now_ms();
    int64_t next = INT64_MAX;
    server->armed_ms = INT64_MAX;
    for (int phase = 0; phase < HTTP_PHASES; phase++) {
        if (phase_timeout(server, (enum http_phase)phase) == 0) {
            continue;
        }
        struct http_conn *conn;
        while ((conn = TAILQ_FIRST(&server->phases[phase])) != NULL && conn->deadline_ms <= now) {
            http_conn_expire(conn);
        }
        if (conn != NULL && conn->deadline_ms < next) {
            next = conn->deadline_ms;
        }
    }
    arm_deadline(server, next, now);
}

/* Runs in the next turn of the loop, so that others are served and no call stack grows with pipelined requests. */
static void wake(struct http_server *server)
{
    if (!event_pending(&server->resume_timer, EV_TIMEOUT, NULL)) {
        timer_set(&server->resume_timer, 0);
    }
}

void http_conn_schedule(struct http_conn *conn)
{
    if (!conn->runnable) {
        conn->runnable = true;
        TAILQ_INSERT_TAIL(&conn->server->runnable, conn, in_runnable);
        wake(conn->server);
    }
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *server = arg;
    struct http_conn *last = TAILQ_LAST(&server->runnable, http_conn_list);
    struct http_conn *conn;
    while ((conn = TAILQ_FIRST(&server->runnable)) != NULL) {
        bool done = conn == last;
        TAILQ_REMOVE(&server->runnable, conn, in_runnable);
        conn->runnable = false;
        http_conn_run(conn);
        if (done) {
            break; /* those that came again wait for the next turn */
        }
    }
    if (!TAILQ_EMPTY(&server->runnable)) {
        wake(server);
    }
    if (server->draining && server->open == 0 && server->drained != NULL) {
        void (*drained)(void *) = server->drained;
        server->drained = NULL;
        drained(server->drained_arg); /* may free the server */
    }
}

void http_server_forget(struct http_server *server, struct http_conn *conn)
{
    TAILQ_REMOVE(&server->phases[conn->phase], conn, in_phase);
    if (conn->runnable) {
        TAILQ_REMOVE(&server->runnable, conn, in_runnable);
    }
    http_conn_set_urgent(conn, false);
    server->open--;
    server->refused -= conn->refused ? 1 : 0;
    atomic_store_explicit(&server->counters.connections_open, server->open, memory_order_relaxed);
    if (server->draining && server->open == 0) {
        wake(server);
    }
}

static void listeners_enable(struct http_server *server, bool on)
{
    for (unsigned i = 0; i < server->listener_count; i++) {
        if (on) {
            event_add(&server->listeners[i].event, NULL);
        } else {
            event_del(&server->listeners[i].event);
        }
    }
}

static void on_pause_end(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    listeners_enable(arg, true);
}

/* One client is told; the others wait in the queue until descriptors are free again. */
static void descriptors_exhausted(struct http_server *server, const struct http_listener *listener)
{
    if (server->reserve_fd >= 0) {
        close(server->reserve_fd);
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && server->tls[listener->admin] == NULL) {
            char request[4096];
            struct iovec answer = http_canned_503();
            (void)!recv(fd, request, sizeof request, MSG_DONTWAIT); /* unread input would turn close into a reset */
            (void)!send(fd, answer.iov_base, answer.iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!server->draining) {
        listeners_enable(server, false);
        timer_set(&server->pause_timer, PAUSE_MS);
    }
}

/* Returns false when there is nobody (left) to accept. */
static bool accept_one(struct http_listener *listener)
{
    struct http_server *server = listener->server;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        http_conn_open(server, fd, listener->admin);
        return true;
    }
    switch (errno) {
    case EAGAIN: /* another worker was faster */
        return false;
    case EINTR:
    case ECONNABORTED:
        return true;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        HTTP_COUNT(server, accept_errors, 1);
        descriptors_exhausted(server, listener);
        return false;
    default: /* network errors of the connection that was waiting (accept(2)) */
        HTTP_COUNT(server, accept_errors, 1);
        return false;
    }
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    /* One; twice as many each round that left some, so that they wait where we see them and not in the kernel, and other workers,
     * who do the same, get theirs. */
    struct http_listener *listener = arg;
    for (unsigned n = 0; n < listener->many; n++) {
        if (!accept_one(listener)) {
            listener->many = 1;
            return;
        }
    }
    listener->many = 2 * listener->many < ACCEPT_MOST ? 2 * listener->many : ACCEPT_MOST;
}

/* The list is short, whoever wants to be on it: those who do nothing but check, or come anew for each request, must not keep
 * others out. */
void http_conn_set_urgent(struct http_conn *conn, bool urgent)
{
    struct http_server *server = conn->server;
    if (conn->urgent) {
        TAILQ_REMOVE(&server->urgent, conn, in_urgent);
        server->n_urgent--;
    }
    conn->urgent = urgent;
    if (urgent) {
        TAILQ_INSERT_HEAD(&server->urgent, conn, in_urgent);
        if (++server->n_urgent > URGENT_MOST) {
            http_conn_set_urgent(TAILQ_LAST(&server->urgent, http_conn_list), false);
        }
    }
}

void http_server_poll_urgent(struct http_server *server)
{
    for (unsigned i = 0; i < server->listener_count && !server->draining; i++) {
        for (unsigned n = 0; n < ACCEPT_URGENT && accept_one(&server->listeners[i]); n++) {}
    }
    struct http_conn *next = NULL;
    for (struct http_conn *conn = TAILQ_FIRST(&server->urgent); conn != NULL; conn = next) {
        next = TAILQ_NEXT(conn, in_urgent); /* which stays: only new connections push others off the list */
        if (conn->reading && !conn->busy) {
            http_conn_poll(conn);
        }
    }
}

int http_server_accept(struct http_server *server, int listening_fd, bool admin, struct err *e)
{
    if (server->listener_count == HTTP_LISTENERS_MAX || server->draining) {
        return err_set(e, "http: no further listener can be added");
    }
    struct http_listener *listener = &server->listeners[server->listener_count];
    *listener = (struct http_listener){.server = server, .fd = listening_fd, .admin = admin, .many = 1};
    if (event_assign(&listener->event, server->base, listening_fd, EV_READ | EV_PERSIST, on_acceptable, listener) < 0 ||
        event_add(&listener->event, NULL) < 0) {
        return err_set(e, "http: cannot watch the listening socket");
    }
    server->listener_count++;
    return 0;
}

int http_server_adopt(struct http_server *server, int fd, bool admin)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        close(fd);
        return -1;
    }
    return http_conn_open(server, fd, admin);
}

static int check_limits(const struct http_limits *l, struct err *e)
{
    const int timeouts[] = {l->request_timeout_ms, l->idle_timeout_ms, l->response_timeout_ms, l->linger_timeout_ms};
    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        if (timeouts[i] < 1 || timeouts[i] > MAX_LIMIT_MS) {
            return err_set(e, "http: a timeout is not within 1 ms and a day");
        }
    }
    if (l->max_line < 16 || l->max_head > MAX_HEAD_LIMIT || l->max_line + 4 > l->max_head) {
        return err_set(e, "http: max_line must be 16 at least, max_head max_line + 4 at least and 1 MiB at most");
    }
    if (l->max_headers < 1 || l->max_headers > HTTP_HEADERS_CAP) {
        return err_set(e, "http: max_headers must be within 1 and %d", HTTP_HEADERS_CAP);
    }
    if (l->max_body > SIZE_MAX / 4 || l->max_connections < 1 || l->max_pipelined < 1) {
        return err_set(e, "http: max_body, max_connections or max_pipelined is out of range");
    }
    return 0;
}

static void take_limits(struct http_server *server, const struct http_limits *limits)
{
    server->limits = *limits;
    size_t one_request = limits->max_body + limits->max_head + 1024;
    if (server->limits.max_buffered < one_request) { /* a body that is allowed must be possible */
        server->limits.max_buffered = one_request;
    }
    server->head_limits =
        (struct http_head_limits){limits->max_line, limits->max_head, limits->max_headers, limits->max_body};
}

/* A phase's list stays in order of deadline when all its deadlines are cut at the same time. */
static void cut_deadlines(struct http_server *server)
{
    int64_t now = http_now_ms();
    for (int phase = 0; phase < HTTP_PHASES; phase++) {
        int timeout = phase_timeout(server, (enum http_phase)phase);
        struct http_conn *conn;
        TAILQ_FOREACH(conn, &server->phases[phase], in_phase)
        {
            if (timeout > 0 && conn->deadline_ms > now + timeout) {
                conn->deadline_ms = now + timeout;
                arm_deadline(server, conn->deadline_ms, now);
            }
        }
    }
}

int http_server_set_limits(struct http_server *server, const struct http_limits *limits, struct err *e)
{
    struct http_limits fresh = *limits;
    fresh.max_line = server->limits.max_line;
    fresh.max_head = server->limits.max_head;
    if (check_limits(&fresh, e) < 0) {
        return -1;
    }
    take_limits(server, &fresh);
    cut_deadlines(server);
    return 0;
}

struct http_server *http_server_new(struct event_base *base, const struct http_limits *limits, http_handler *handler,
                                    void *arg, struct err *e)
{
    if (check_limits(limits, e) < 0) {
        return NULL;
    }
    struct http_server *server = mem_array(1, sizeof *server);
    if (server == NULL) {
        err_nomem(e);
        return NULL;
    }
    server->base = base;
    take_limits(server, limits);
    server->handler = handler;
    server->handler_arg = arg;
    server->armed_ms = INT64_MAX;
    for (int i = 0; i < HTTP_PHASES; i++) {
        TAILQ_INIT(&server->phases[i]);
    }
    TAILQ_INIT(&server->runnable);
    TAILQ_INIT(&server->urgent);
    server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (trace_random_init(&server->random) < 0) {
        err_set(e, "http: the kernel has no random bytes");
        http_server_free(server);
        return NULL;
    }
    server->body = evbuffer_new();
    if (server->body == NULL || evtimer_assign(&server->pause_timer, base, on_pause_end, server) < 0 ||
        evtimer_assign(&server->deadline_timer, base, on_deadline, server) < 0 ||
        evtimer_assign(&server->resume_timer, base, on_resume, server) < 0) {
        err_nomem(e);
        http_server_free(server);
        return NULL;
    }
    return server;
}

void http_server_count_addresses(struct http_server *server, struct addresses *addresses)
{
    server->addresses = addresses;
}

void http_server_set_tls(struct http_server *server, bool admin, struct ssl_ctx_st *context)
{
    server->tls[admin] = context;
}

void http_server_set_gzip(struct http_server *server, bool on)
{
    server->gzip = on;
}

void http_server_observe(struct http_server *server, http_observer *observer, void *arg)
{
    server->observer = observer;
    server->observer_arg = arg;
}

/* An idle connection may have a request under way: look once more before it is closed. */
static void drain_idle(struct http_server *server)
{
    struct http_conn *next = NULL;
    for (struct http_conn *conn = TAILQ_FIRST(&server->phases[HTTP_PHASE_IDLE]); conn != NULL; conn = next) {
        next = TAILQ_NEXT(conn, in_phase);
        if (!conn->served) {
            http_conn_enter(conn, HTTP_PHASE_GRACE);
        }
        http_conn_poll(conn); /* closes an idle one when nothing came, because the server is draining */
    }
}

void http_server_drain(struct http_server *server, void (*done)(void *arg), void *arg)
{
    listeners_enable(server, false);
    event_del(&server->pause_timer);
    server->draining = true;
    server->drained = done;
    server->drained_arg = arg;
    for (unsigned i = 0; i < server->listener_count; i++) {
        for (unsigned n = 0; n < server->limits.max_connections && accept_one(&server->listeners[i]); n++) {}
    }
    drain_idle(server);
    wake(server);
}

size_t http_server_connections(const struct http_server *server)
{
    return server->open;
}

const struct http_counters *http_server_counters(const struct http_server *server)
{
    return &server->counters;
}

void http_server_free(struct http_server *server)
{
    if (server == NULL) {
        return;
    }
    for (int phase = 0; phase < HTTP_PHASES; phase++) {
        struct http_conn *conn;
        while ((conn = TAILQ_FIRST(&server->phases[phase])) != NULL) {
            http_conn_destroy(conn);
        }
    }
    listeners_enable(server, false);
    if (event_initialized(&server->pause_timer)) {
        event_del(&server->pause_timer);
    }
    if (event_initialized(&server->deadline_timer)) {
        event_del(&server->deadline_timer);
    }
    if (event_initialized(&server->resume_timer)) {
        event_del(&server->resume_timer);
    }
    while (server->free_exchanges != NULL) {
        struct http_exchange *x = server->free_exchanges;
        server->free_exchanges = x->next_free;
        http_exchange_free(x);
    }
    if (server->body != NULL) {
        evbuffer_free(server->body);
    }
    if (server->packed != NULL) {
        evbuffer_free(server->packed);
    }
    gzip_packer_free(server->packer);
    if (server->reserve_fd >= 0) {
        close(server->reserve_fd);
    }
    mem_free(server);
}
