/*
 * One connection: bytes in, requests to the handler, answers out.
 *
 * A raw socket, two libevent events and one contiguous input buffer, instead of a bufferevent: a bufferevent asks the
 * kernel how much there is to read before it reads, and hands every answer to the event loop, which turns write
 * interest on and off again. Here a keep-alive request is one recv and one sendmsg; write interest exists only while
 * the client is slower than we are. Head and body are contiguous, so that the head is parsed in place and the body
 * goes to the JSON parser as it is. With TLS (server/tls.h) another pair of calls stands in the place of recv and sendmsg, and
 * a phase before the first request, the handshake; all else is the same. Rejected: OpenSSL between memory buffers, which copies
 * every byte once more to save the one case where reading waits for writing (conn_receive).
 *
 * The input buffer belongs to an exchange, and a connection holds an exchange only while it holds input: ten thousand
 * idle connections cost their structs and nothing else. Exchanges are pooled last in, first out, so that a busy worker
 * keeps using the same warm one.
 *
 * Invariants:
 * - At most one request of a connection is in the handler, and at most one answer waits for the socket. The next
 *   request is looked at when the answer before it is with the kernel. So memory is bounded, answers are in order, and
 *   a client that does not read stops being read.
 * - While the handler has a request, its exchange's bytes neither move nor are dropped; input may be appended up to
 *   the capacity, which is how we see the client close its side.
 * - Every function that may run foreign code (handler, cancel callback, observer) under a connection sets `busy`;
 *   http_conn_close then only marks it dead, and the one who set `busy` frees it.
 * - An error of the HTTP layer is an answer like any other, with `close` and `linger` set: shut for writing, then read
 *   and throw away for a bounded time, because closing with unread input makes the kernel send a reset that can
 *   overtake the answer.
 */
#include "server/http_conn.h"

#include <errno.h>
#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "server/addresses.h"
#include "server/problem.h"
#include "server/tls.h"

enum {
    POOL_MAX = 64,    /* exchanges kept for reuse */
    REFUSED_MAX = 64, /* connections over the limit that are told so; more are closed without a word */
    SPARE = 64,       /* bytes beyond a request, to see what follows it */
    VECTOR_MAX = 64,  /* pieces of an answer in one system call */
    DISCARD_CHUNK = 65536,
};

/* ---- opening and closing ---- */

/* Gives a connection its exchange. Returns 0, or -1 without memory. */
static int conn_acquire(struct http_conn *conn)
{
    if (conn->exchange == NULL) {
        conn->exchange = http_exchange_new(conn);
    }
    return conn->exchange != NULL ? 0 : -1;
}

static void conn_release(struct http_conn *conn)
{
    http_exchange_release(conn->exchange);
    conn->exchange = NULL;
}

static void conn_free(struct http_conn *conn)
{
    http_server_forget(conn->server, conn);
    conn_release(conn);
    if (conn->out != NULL) {
        evbuffer_free(conn->out);
    }
    mem_free(conn);
}

/* Takes the socket away; the struct stays. */
static void conn_disconnect(struct http_conn *conn)
{
    if (conn->fd >= 0) {
        event_del(&conn->read_event);
        event_del(&conn->write_event);
        if (conn->tls != NULL) {
            tls_end(conn->tls);
            tls_free(conn->tls);
            conn->tls = NULL;
        }
        close(conn->fd);
        conn->fd = -1;
        conn->reading = false;
        if (conn->address != 0) {
            addresses_leave(conn->server->addresses, conn->address);
            conn->address = 0;
        }
    }
}

void http_conn_close(struct http_conn *conn)
{
    conn_disconnect(conn);
    if (conn->busy) {
        http_conn_enter(conn, HTTP_PHASE_DEAD);
    } else {
        conn_free(conn);
    }
}

static void conn_cancel(struct http_conn *conn)
{
    struct http_exchange *x = conn->exchange;
    bool was_busy = conn->busy;
    if (x->public.cancelled) {
        return;
    }
    x->public.cancelled = true;
    HTTP_COUNT(conn->server, cancelled, 1);
    if (x->cancel != NULL) {
        conn->busy = true;
        x->cancel(&x->public, x->cancel_arg);
        conn->busy = was_busy;
    }
}

/* The socket is broken. A request that the handler has lives on until it is answered. */
static void conn_broken(struct http_conn *conn)
{
    conn_disconnect(conn);
    if (conn->phase == HTTP_PHASE_HANDLER) {
        conn_cancel(conn);
        if (conn->phase == HTTP_PHASE_HANDLER) {
            return;
        }
    }
    http_conn_close(conn);
}

void http_conn_destroy(struct http_conn *conn)
{
    conn_disconnect(conn);
    if (conn->phase == HTTP_PHASE_HANDLER) {
        conn_cancel(conn);
    }
    conn_free(conn);
}

/* ---- output ---- */

static void conn_want_read(struct http_conn *conn, bool wanted)
{
    if (conn->fd < 0) {
        return;
    }
    if (wanted && conn->tls != NULL && tls_has_input(conn->tls)) { /* of which the socket knows nothing */
        event_active(&conn->read_event, EV_READ, 0);
    }
    if (wanted == conn->reading) {
        return;
    }
    if (wanted && event_add(&conn->read_event, NULL) < 0) {
        http_conn_close(conn);
        return;
    }
    if (!wanted) {
        event_del(&conn->read_event);
    }
    conn->reading = wanted;
}

/* Bytes sent, 0 when the socket takes none now, -1 when it is broken. */
static ssize_t send_vector(struct http_conn *conn, struct iovec *vec, int n)
{
    struct msghdr message = {.msg_iov = vec, .msg_iovlen = (size_t)n};
    ssize_t sent =
        conn->tls != NULL ? tls_write(conn->tls, vec, n) : sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    HTTP_COUNT(conn->server, bytes_out, sent);
    return sent;
}

/* Keeps what the socket did not take: the vector from byte `sent` on, then the rest. Returns -1 without memory. */
static int keep_unsent(struct http_conn *conn, const struct iovec *vec, int n, size_t sent, struct evbuffer *rest)
{
    if (conn->out == NULL) {
        conn->out = evbuffer_new();
        if (conn->out == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < n; i++) {
        size_t skip = sent < vec[i].iov_len ? sent : vec[i].iov_len;
        sent -= skip;
        if (evbuffer_add(conn->out, (const char *)vec[i].iov_base + skip, vec[i].iov_len - skip) < 0) {
            return -1;
        }
    }
    if (rest != NULL && (evbuffer_drain(rest, sent) < 0 || evbuffer_add_buffer(conn->out, rest) < 0)) {
        return -1;
    }
    return event_add(&conn->write_event, NULL);
}

/* Sends the vector, then `rest` (left empty), in one system call if the socket takes it; keeps what it does not take.
 * Disconnects on failure: fd is -1 then. The vector has room for VECTOR_MAX more pieces behind its n. */
static void send_or_keep(struct http_conn *conn, struct iovec *vec, int n, struct evbuffer *rest)
{
    int pieces = n;
    if (rest != NULL) {
        int more = evbuffer_peek(rest, -1, NULL, vec + n, VECTOR_MAX);
        pieces += more < VECTOR_MAX ? more : VECTOR_MAX;
    }
    size_t total = rest != NULL ? evbuffer_get_length(rest) : 0;
    for (int i = 0; i < n; i++) {
        total += vec[i].iov_len;
    }
    bool queue = conn->out != NULL && evbuffer_get_length(conn->out) > 0;
    ssize_t sent = queue ? 0 : send_vector(conn, vec, pieces);
    if (sent < 0 || ((size_t)sent < total && keep_unsent(conn, vec, n, (size_t)sent, rest) < 0)) {
        conn_disconnect(conn);
    }
    if (rest != NULL) {
        evbuffer_drain(rest, evbuffer_get_length(rest));
    }
}

void http_conn_send(struct http_conn *conn, struct iovec *vec, int n, struct evbuffer *rest)
{
    struct iovec all[VECTOR_MAX + 4];
    memcpy(all, vec, (size_t)n * sizeof *vec);
    send_or_keep(conn, all, n, rest);
}

/* The last answer is with the kernel. */
static void conn_finish(struct http_conn *conn)
{
    conn_release(conn);
    if (conn->tls != NULL) {
        tls_end(conn->tls);
    }
    if (conn->eof || !conn->linger || shutdown(conn->fd, SHUT_WR) < 0) {
        http_conn_close(conn);
        return;
    }
    http_conn_enter(conn, HTTP_PHASE_LINGER);
    conn_want_read(conn, true);
}

/* The whole answer is with the kernel: what now? */
static void conn_sent(struct http_conn *conn)
{
    if (conn->closing) {
        conn_finish(conn);
        return;
    }
    http_conn_enter(conn, HTTP_PHASE_IDLE);
    if (!conn->busy) {
        http_conn_schedule(conn);
    }
}

/* The answer was made and given to http_conn_send. */
void http_conn_answered(struct http_conn *conn, bool urgent, bool close, bool linger)
{
    conn->served = true;
    http_conn_set_urgent(conn, urgent);
    conn->closing = close;
    conn->linger = linger;
    if (conn->fd < 0) {
        http_conn_close(conn);
    } else if (conn->out != NULL && evbuffer_get_length(conn->out) > 0) {
        conn_want_read(conn, false);
        http_conn_enter(conn, HTTP_PHASE_RESPONSE);
    } else {
        conn_sent(conn);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_conn *conn = arg;
    if (conn->out == NULL || evbuffer_get_length(conn->out) == 0) { /* it is reading, or the handshake, that waited */
        event_del(&conn->write_event);
        http_conn_poll(conn);
        return;
    }
    struct iovec vec[VECTOR_MAX];
    int n = evbuffer_peek(conn->out, -1, NULL, vec, VECTOR_MAX);
    ssize_t sent = send_vector(conn, vec, n < VECTOR_MAX ? n : VECTOR_MAX);
    if (sent < 0) {
        conn_broken(conn);
        return;
    }
    evbuffer_drain(conn->out, (size_t)sent);
    if (evbuffer_get_length(conn->out) == 0) {
        event_del(&conn->write_event);
        if (conn->phase == HTTP_PHASE_RESPONSE) {
            conn_sent(conn);
        }
    }
}

/* ---- requests ---- */

static enum problem_type problem_of_status(struct http_server *server, int status)
{
    switch (status) {
    case 408:
        HTTP_COUNT(server, bad_408, 1);
        return PROBLEM_REQUEST_TIMEOUT;
    case 413:
        HTTP_COUNT(server, bad_413, 1);
        return PROBLEM_BODY_TOO_LARGE;
    case 414:
        HTTP_COUNT(server, bad_414, 1);
        return PROBLEM_LINE_TOO_LONG;
    case 417:
        HTTP_COUNT(server, bad_417, 1);
        return PROBLEM_EXPECTATION_FAILED;
    case 431:
        HTTP_COUNT(server, bad_431, 1);
        return PROBLEM_HEAD_TOO_LARGE;
    case 501:
        HTTP_COUNT(server, bad_501, 1);
        return PROBLEM_TRANSFER_CODING;
    case 503:
        HTTP_COUNT(server, bad_503, 1);
        return PROBLEM_OUT_OF_MEMORY;
    case 505:
        HTTP_COUNT(server, bad_505, 1);
        return PROBLEM_VERSION;
    default:
        HTTP_COUNT(server, bad_400, 1);
        return PROBLEM_MALFORMED_REQUEST;
    }
}

/* Answers in the handler's place and ends the connection. Caller has set `busy`. */
static void conn_fail(struct http_conn *conn, int status, const char *reason)
{
    struct http_exchange *x = conn->exchange;
    x->bad = true;
    x->public.method = x->head.method;
    x->public.admin = conn->admin;
    http_exchange_trace(x);
    http_conn_enter(conn, HTTP_PHASE_HANDLER);
    problem_send(&x->public, problem_of_status(conn->server, status), NULL, "%s", reason);
}

/* A head is there, its body is not, or not all of it. */
static void conn_await_body(struct http_conn *conn)
{
    struct http_exchange *x = conn->exchange;
    if (x->head.expect_continue && http_exchange_unread(x) == x->head.head_len) {
        static char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct iovec vec = {line, sizeof line - 1};
        x->head.expect_continue = false;
        http_conn_send(conn, &vec, 1, NULL);
        if (conn->fd < 0) {
            http_conn_close(conn);
        }
    }
}

/* Whether there is a byte that could belong to a request: a lone empty line, which some clients send behind a body,
 * does not begin one. */
static bool conn_has_input(const struct http_conn *conn)
{
    const struct http_exchange *x = conn->exchange;
    size_t unread = http_exchange_unread(x);
    return unread > 2 || (unread > 0 && !x->head.skipped_crlf);
}

/* Waits for the rest of a request, unless the client said that there will be none. */
static void conn_wait(struct http_conn *conn)
{
    if (!conn_has_input(conn)) {
        return;
    }
    if (conn->eof) {
        conn_fail(conn, 400, "The connection was closed for writing before the request was complete.");
        return;
    }
    if (conn->phase != HTTP_PHASE_REQUEST) {
        http_conn_enter(conn, HTTP_PHASE_REQUEST);
    }
    if (conn->exchange->head_done) {
        conn_await_body(conn);
    }
}

/* Takes one step with the input there is. Returns true when a request was answered and the next may be looked at. */
static bool conn_step(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    struct http_exchange *x = conn->exchange;
    if (http_exchange_unread(x) == 0) {
        return false;
    }
    if (!x->head_done) {
        switch (http_head_parse(&x->head, &server->head_limits, x->bytes + x->start, http_exchange_unread(x))) {
        case HTTP_PARSE_MORE:
            conn_wait(conn);
            return false;
        case HTTP_PARSE_ERROR:
            conn_fail(conn, x->head.status, x->head.reason);
            return false;
        case HTTP_PARSE_DONE:
            x->head_done = true;
        }
    }
    if (http_exchange_unread(x) < http_exchange_size(x)) {
        conn_wait(conn);
        return false;
    }
    http_exchange_publish(x);
    http_conn_enter(conn, HTTP_PHASE_HANDLER);
    HTTP_COUNT(server, requests, 1);
    server->handler(&x->public, server->handler_arg);
    return conn->phase == HTTP_PHASE_IDLE;
}

static bool takes_requests(const struct http_conn *conn)
{
    return conn->phase == HTTP_PHASE_IDLE || conn->phase == HTTP_PHASE_REQUEST || conn->phase == HTTP_PHASE_GRACE;
}

/* Brings everything in line with the phase the steps ended in; may free. */
static void conn_settle(struct http_conn *conn)
{
    if (conn->phase == HTTP_PHASE_DEAD) {
        conn_free(conn);
        return;
    }
    if (takes_requests(conn) && !conn_has_input(conn)) {
        if (http_exchange_unread(conn->exchange) == 0) {
            conn_release(conn);
        }
        if (conn->eof || (conn->server->draining && conn->phase == HTTP_PHASE_IDLE)) {
            http_conn_close(conn);
            return;
        }
    }
    bool room = conn->phase != HTTP_PHASE_HANDLER || conn->exchange->len < conn->exchange->capacity;
    conn_want_read(conn, !conn->eof && room && conn->phase != HTTP_PHASE_RESPONSE);
}

void http_conn_run(struct http_conn *conn)
{
    conn->busy = true;
    for (unsigned left = conn->server->limits.max_pipelined; takes_requests(conn) && conn_step(conn);) {
        if (--left == 0) {
            if (http_exchange_unread(conn->exchange) > 0) {
                http_conn_enter(conn, HTTP_PHASE_REQUEST);
                http_conn_schedule(conn);
            }
            break;
        }
    }
    conn->busy = false;
    conn_settle(conn);
}

static void conn_answer_problem(struct http_conn *conn, int status, const char *reason)
{
    conn->busy = true;
    conn_fail(conn, status, reason);
    conn->busy = false;
    conn_settle(conn);
}

void http_conn_expire(struct http_conn *conn)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    switch (conn->phase) {
    case HTTP_PHASE_REQUEST:
        conn_answer_problem(conn, 408, "The request was not complete within the configured time.");
        return;
    case HTTP_PHASE_RESPONSE: /* a reset frees what the kernel still holds for this client */
        HTTP_COUNT(conn->server, response_timeouts, 1);
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        break;
    case HTTP_PHASE_IDLE:
        HTTP_COUNT(conn->server, idle_timeouts, 1);
        break;
    case HTTP_PHASE_HANDSHAKE:
        HTTP_COUNT(conn->server, handshake_failures, 1);
        break;
    default:
        break;
    }
    http_conn_close(conn);
}

/* ---- input ---- */

static void conn_discard(struct http_conn *conn)
{
    char chunk[DISCARD_CHUNK];
    ssize_t n = recv(conn->fd, chunk, sizeof chunk, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n > 0) {
        HTTP_COUNT(conn->server, bytes_in, n);
        conn->lingered += (size_t)n;
    }
    if (n <= 0 || conn->lingered > conn->server->limits.max_linger) {
        http_conn_close(conn);
    }
}

/* There is no memory to read into: say so without any. */
static void conn_out_of_memory(struct http_conn *conn)
{
    if (conn->exchange != NULL) {
        conn_answer_problem(conn, 503, "There is not enough memory for this request.");
        return;
    }
    struct iovec answer = http_canned_503();
    HTTP_COUNT(conn->server, bad_503, 1);
    conn->busy = true;
    http_conn_send(conn, &answer, 1, NULL);
    http_conn_answered(conn, false, true, true);
    conn->busy = false;
    conn_settle(conn);
}

static void conn_read_eof(struct http_conn *conn)
{
    conn->eof = true;
    conn_want_read(conn, false);
    if (conn->phase == HTTP_PHASE_HANDLER) {
        conn_cancel(conn); /* which may answer */
    }
    http_conn_run(conn);
}

/* The client is told in the language it speaks. */
static void conn_not_tls(struct http_conn *conn)
{
    tls_free(conn->tls);
    conn->tls = NULL;
    if (conn_acquire(conn) < 0) {
        http_conn_close(conn);
    } else {
        conn_answer_problem(conn, 400, "This address speaks TLS: ask for https.");
    }
}

static void conn_handshake(struct http_conn *conn)
{
    enum tls_step step = tls_handshake(conn->tls);
    if (step == TLS_PLAIN_HTTP || step == TLS_FAILED) {
        HTTP_COUNT(conn->server, handshake_failures, 1);
    }
    switch (step) {
    case TLS_WANTS_READ:
        conn_want_read(conn, true);
        return;
    case TLS_WANTS_WRITE:
        conn_want_read(conn, false);
        if (event_add(&conn->write_event, NULL) < 0) {
            http_conn_close(conn);
        }
        return;
    case TLS_DONE:
        HTTP_COUNT(conn->server, handshakes, 1);
        http_conn_enter(conn, conn->server->draining ? HTTP_PHASE_GRACE : HTTP_PHASE_IDLE);
        conn_want_read(conn, true);
        return;
    case TLS_PLAIN_HTTP:
        conn_not_tls(conn);
        return;
    case TLS_FAILED:
        http_conn_close(conn);
        return;
    }
}

/* Like recv. With TLS, reading may have to wait until the socket takes something (the answer to a change of keys). */
static ssize_t conn_receive(struct http_conn *conn, void *bytes, size_t n)
{
    if (conn->tls == NULL) {
        return recv(conn->fd, bytes, n, MSG_DONTWAIT);
    }
    ssize_t got = tls_read(conn->tls, bytes, n);
    if (got < 0 && errno == EAGAIN && tls_wants_write(conn->tls)) {
        event_add(&conn->write_event, NULL);
        errno = EAGAIN;
    }
    return got;
}

void http_conn_poll(struct http_conn *conn)
{
    if (conn->phase == HTTP_PHASE_HANDSHAKE) {
        conn_handshake(conn);
        return;
    }
    if (conn->phase == HTTP_PHASE_LINGER) {
        conn_discard(conn);
        return;
    }
    bool handled = conn->phase == HTTP_PHASE_HANDLER;
    if (conn_acquire(conn) < 0 || (!handled && http_exchange_make_room(conn->exchange) < 0)) {
        conn_out_of_memory(conn);
        return;
    }
    struct http_exchange *x = conn->exchange;
    ssize_t n = -1;
    errno = EAGAIN;
    if (x->len < x->capacity) {
        n = conn_receive(conn, x->bytes + x->len, x->capacity - x->len);
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        conn_broken(conn);
    } else if (n == 0) {
        conn_read_eof(conn);
    } else if (n > 0 || !handled) {
        x->len += n > 0 ? (size_t)n : 0;
        HTTP_COUNT(conn->server, bytes_in, n > 0 ? n : 0);
        if (!handled) {
            http_conn_run(conn);
        } else {
            conn_want_read(conn, x->len < x->capacity);
        }
    } else {
        conn_want_read(conn, x->len < x->capacity);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    http_conn_poll(arg);
}

/* Over a limit of connections: an answer without a request, then out. With TLS without a word: it would
 * take a handshake. */
static void conn_refuse(struct http_conn *conn, const char *whose, unsigned limit)
{
    struct http_server *server = conn->server;
    conn->refused = true;
    server->refused++;
    if (server->refused > REFUSED_MAX || conn->tls != NULL || conn_acquire(conn) < 0) {
        http_conn_close(conn);
        return;
    }
    struct http_request *request = &conn->exchange->public;
    conn->busy = true;
    conn->exchange->bad = true;
    request->admin = conn->admin;
    http_exchange_trace(conn->exchange);
    http_conn_enter(conn, HTTP_PHASE_HANDLER);
    http_add_header(request, "Retry-After", "1");
    problem_send(request, PROBLEM_TOO_MANY_CONNECTIONS, NULL, "%s has %u connections, which is its limit.", whose,
                 limit);
    conn->busy = false;
    conn_settle(conn);
}

/* Counts the connection by its address. Returns false when that has too many. */
static bool conn_count_address(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (server->addresses == NULL || getpeername(conn->fd, (struct sockaddr *)&peer, &len) < 0) {
        return true;
    }
    uint64_t key = addresses_key((const struct sockaddr *)&peer);
    if (key == 0) {
        return true;
    }
    if (!addresses_enter(server->addresses, key, server->limits.max_per_address)) {
        return false;
    }
    conn->address = key;
    return true;
}

static void conn_admit(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    if (server->open - server->refused > server->limits.max_connections) {
        HTTP_COUNT(server, connections_refused, 1);
        conn_refuse(conn, "This server", server->limits.max_connections);
    } else if (!conn_count_address(conn)) {
        HTTP_COUNT(server, connections_refused_address, 1);
        conn_refuse(conn, "This address", server->limits.max_per_address);
    } else {
        conn_want_read(conn, true);
    }
}

int http_conn_open(struct http_server *server, int fd, bool admin)
{
    const int on = 1;
    struct http_conn *conn = mem_array(1, sizeof *conn);
    HTTP_COUNT(server, connections_total, 1);
    if (conn == NULL ||
        event_assign(&conn->read_event, server->base, fd, EV_READ | EV_PERSIST, on_readable, conn) < 0 ||
        event_assign(&conn->write_event, server->base, fd, EV_WRITE | EV_PERSIST, on_writable, conn) < 0) {
        mem_free(conn);
        close(fd);
        return -1;
    }
    if (server->tls[admin] != NULL && (conn->tls = tls_new(server->tls[admin], fd)) == NULL) {
        mem_free(conn);
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a unix socket, which needs none */
    conn->server = server;
    conn->fd = fd;
    conn->admin = admin;
    conn->phase = conn->tls != NULL ? HTTP_PHASE_HANDSHAKE : HTTP_PHASE_IDLE;
    http_conn_set_urgent(conn, true);
    server->open++;
    atomic_store_explicit(&server->counters.connections_open, server->open, memory_order_relaxed);
    TAILQ_INSERT_TAIL(&server->phases[conn->phase], conn, in_phase);
    http_conn_enter(conn, conn->phase);
    conn_admit(conn);
    return 0;
}
