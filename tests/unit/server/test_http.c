/*
 * Connections, over real sockets. Server and clients share this one thread: every wait pumps the event loop, so a test
 * is a plain script of what a client sends and must then have received.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "server/http.h"
#include "server/problem.h"

enum { BIG = 8 << 20, DEFERRED_MAX = 16 };

#define HOST "Host: test\r\n"

struct fixture {
    struct event_base *base;
    struct http_server *server;
    struct http_limits limits;
    int listening_fd;
    struct sockaddr_in address;
    struct http_request *deferred[DEFERRED_MAX];
    int deferred_count;
    bool answer_in_cancel;
    int cancels;
    int handled;
    int observed_status;
    char observed_path[64];
    char order[32]; /* the first letters of the paths that were answered */
    bool drained;
};

static const struct http_limits default_limits = {.max_line = 200,
                                                  .max_head = 1000,
                                                  .max_headers = 10,
                                                  .max_body = 100000,
                                                  .max_buffered = 1000000,
                                                  .max_connections = 10,
                                                  .max_pipelined = 4,
                                                  .request_timeout_ms = 5000,
                                                  .idle_timeout_ms = 5000,
                                                  .response_timeout_ms = 5000,
                                                  .linger_timeout_ms = 300,
                                                  .max_linger = 1 << 20};

/* libevent's allocations, counted and failed like ours. */
static long event_alloc_fail;

static bool event_alloc_fails(void)
{
    return event_alloc_fail > 0 && --event_alloc_fail == 0;
}

static void *event_malloc(size_t n)
{
    return event_alloc_fails() ? NULL : malloc(n);
}

static void *event_realloc(void *p, size_t n)
{
    return event_alloc_fails() ? NULL : realloc(p, n);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the handler under test ---- */

static void on_cancel(struct http_request *request, void *arg)
{
    struct fixture *f = arg;
    f->cancels++;
    assert_true(request->cancelled);
    if (f->answer_in_cancel) {
        f->deferred_count--;
        problem_send(request, PROBLEM_DEADLINE, NULL, "Nobody waits for this any more.");
    }
}

static void handle_echo(struct http_request *request)
{
    struct evbuffer *body = http_body(request);
    char peer[HTTP_PEER_MAX];
    const char *test = http_header(request, "x-TEST");
    assert_int_equal(evbuffer_get_length(body), 0);
    evbuffer_add_printf(body, "%s|%s|%s|%s|%d|%zu|%s|", request->method_text, request->path,
                        request->query != NULL ? request->query : "-", test != NULL ? test : "-", request->admin,
                        request->body_len, http_peer(request, peer)[0] != '\0' ? "peer" : "-");
    evbuffer_add(body, request->body, request->body_len);
    assert_int_equal(http_add_header(request, "X-Extra", "yes"), 0);
    assert_int_equal(http_add_header(request, "X-Bad", "a\r\nb"), -1);
    assert_int_equal(http_add_header(request, "X Bad", "a"), -1);
    http_respond(request, 200, "text/plain", body);
}

static void handle(struct http_request *request, void *arg)
{
    struct fixture *f = arg;
    f->handled++;
    assert_null(request->user);
    assert_int_equal(strlen(request->path), request->path_len);
    if (strcmp(request->path, "/hi") == 0) {
        if (request->method == HTTP_GET || request->method == HTTP_HEAD) {
            http_respond_bytes(request, 200, "text/plain", "hello", 5);
        } else {
            problem_method(request, "GET, HEAD");
        }
    } else if (strcmp(request->path, "/big") == 0) {
        struct evbuffer *body = http_body(request);
        char piece[1000];
        memset(piece, 'b', sizeof piece);
        for (int i = 0; i < BIG / 1000; i++) {
            evbuffer_add(body, piece, sizeof piece);
        }
        http_respond(request, 200, "text/plain", body);
    } else if (strcmp(request->path, "/later") == 0) {
        f->deferred[f->deferred_count++] = request;
        request->user = f;
        http_on_cancel(request, on_cancel, f);
    } else if (strcmp(request->path, "/quick") == 0) {
        request->urgent = true;
        http_respond_bytes(request, 200, NULL, "quick", 5);
    } else if (strcmp(request->path, "/close") == 0) {
        request->close = true;
        http_respond(request, 200, NULL, NULL);
    } else if (strcmp(request->path, "/204") == 0) {
        http_respond_bytes(request, 204, NULL, "ignored", 7);
    } else if (strcmp(request->path, "/problem") == 0) {
        problem_send(request, PROBLEM_INVALID_FIELD, "/user/age", "%s", "must be a number\n\xff");
    } else {
        handle_echo(request);
    }
}

static void observe(const struct http_request *request, int status, size_t body_len, void *arg)
{
    struct fixture *f = arg;
    (void)body_len;
    f->observed_status = status;
    snprintf(f->observed_path, sizeof f->observed_path, "%s", request->path);
    size_t n = strlen(f->order);
    if (n + 1 < sizeof f->order) {
        f->order[n] = request->path[0] ? request->path[1] : '?';
    }
}

static void answer_deferred(struct fixture *f, int i, const char *text)
{
    assert_ptr_equal(f->deferred[i]->user, f);
    http_respond_bytes(f->deferred[i], 200, "text/plain", text, strlen(text));
}

static void on_drained(void *arg)
{
    ((struct fixture *)arg)->drained = true;
}

/* ---- set-up ---- */

static void start(struct fixture *f, const struct http_limits *limits)
{
    struct err e = ERR_INIT;
    memset(f, 0, sizeof *f);
    f->limits = *limits;
    f->base = event_base_new();
    assert_non_null(f->base);
    f->server = http_server_new(f->base, limits, handle, f, &e);
    assert_non_null(f->server);
    http_server_observe(f->server, observe, f);
    f->listening_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    f->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof f->address;
    assert_int_equal(bind(f->listening_fd, (struct sockaddr *)&f->address, len), 0);
    assert_int_equal(listen(f->listening_fd, 64), 0);
    assert_int_equal(getsockname(f->listening_fd, (struct sockaddr *)&f->address, &len), 0);
    assert_int_equal(http_server_accept(f->server, f->listening_fd, false, &e), 0);
}

static void stop(struct fixture *f)
{
    http_server_free(f->server);
    close(f->listening_fd);
    event_base_free(f->base);
}

static void pump(struct fixture *f)
{
    event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void pump_for(struct fixture *f, int ms)
{
    for (int64_t end = now_ms() + ms; now_ms() < end;) {
        pump(f);
        usleep(500);
    }
}

/* ---- clients ---- */

struct client {
    struct fixture *f;
    int fd;
    bool eof;
    bool reset;
    size_t len;
    char *data; /* all that was received, '\0' behind */
    size_t capacity;
};

static void client_open(struct client *c, struct fixture *f)
{
    *c = (struct client){.f = f, .fd = socket(AF_INET, SOCK_STREAM, 0), .data = calloc(1, 65536), .capacity = 65536};
    assert_int_equal(connect(c->fd, (struct sockaddr *)&f->address, sizeof f->address), 0);
}

static void client_close(struct client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    free(c->data);
    c->data = NULL;
    c->fd = -1;
}

static void client_send_bytes(struct client *c, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) {
            return; /* the server has closed: what it answered is what counts */
        }
        if (sent > 0) {
            bytes += sent;
            n -= (size_t)sent;
        }
        pump(c->f);
    }
}

static void client_send(struct client *c, const char *text)
{
    client_send_bytes(c, text, strlen(text));
}

static void client_receive(struct client *c)
{
    if (c->capacity - c->len < 65536) {
        c->capacity *= 2;
        c->data = realloc(c->data, c->capacity);
        assert_non_null(c->data);
    }
    ssize_t n = recv(c->fd, c->data + c->len, c->capacity - c->len - 1, MSG_DONTWAIT);
    c->eof = c->eof || n == 0;
    c->reset = c->reset || (n < 0 && errno != EAGAIN);
    c->len += n > 0 ? (size_t)n : 0;
    c->data[c->len] = '\0';
}

/* Until `text` has been received so far (or, NULL, the end of the connection): up to 3 s. */
static bool client_awaits(struct client *c, const char *text)
{
    for (int64_t end = now_ms() + 3000; now_ms() < end;) {
        pump(c->f);
        client_receive(c);
        if (text != NULL ? strstr(c->data, text) != NULL : c->eof || c->reset) {
            return true;
        }
        if (c->eof || c->reset) {
            return false;
        }
        usleep(200);
    }
    return false;
}

static void client_forget(struct client *c)
{
    c->len = 0;
    c->data[0] = '\0';
}

static void client_expect(struct client *c, const char *text)
{
    if (!client_awaits(c, text)) {
        fail_msg("waited for %s, got %s (eof %d, reset %d)", text != NULL ? text : "EOF", c->data, c->eof, c->reset);
    }
}

static void client_expect_end(struct client *c)
{
    client_expect(c, NULL);
    assert_true(c->eof);
    assert_false(c->reset);
}

static int occurrences(const char *text, const char *word)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++) {
        n++;
    }
    return n;
}

static uint64_t counter(const _Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

#define COUNTER(f, name) counter(&http_server_counters((f)->server)->name)

/* ---- tests ---- */

static void test_keep_alive(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    for (int i = 0; i < 3; i++) {
        client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, "\r\n\r\nhello");
        assert_non_null(strstr(c.data, "HTTP/1.1 200 OK\r\nDate: "));
        assert_non_null(strstr(c.data, " GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"));
        assert_null(strstr(c.data, "Connection"));
        client_forget(&c);
    }
    assert_int_equal(COUNTER(&f, requests), 3);
    assert_int_equal(COUNTER(&f, connections_total), 1);
    assert_int_equal(COUNTER(&f, connections_open), 1);
    assert_int_equal(f.observed_status, 200);
    assert_string_equal(f.observed_path, "/hi");
    client_send(&c, "GET /close HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "-00\r\nConnection: close\r\n\r\n");
    assert_non_null(strstr(c.data, "\r\nContent-Length: 0\r\ntraceparent: 00-"));
    client_expect_end(&c);
    client_close(&c);
    pump_for(&f, 20);
    assert_int_equal(http_server_connections(f.server), 0);
    stop(&f);
}

static void test_versions(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /hi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client_expect(&c, "Connection: keep-alive\r\n\r\nhello");
    client_forget(&c);
    client_send(&c, "GET /hi HTTP/1.0\r\n\r\n");
    client_expect(&c, "Connection: close\r\n\r\nhello");
    client_expect_end(&c);
    client_close(&c);
    client_open(&c, &f);
    client_send(&c, "GET /hi HTTP/1.1\r\nConnection: close\r\n" HOST "\r\n");
    client_expect(&c, "Connection: close\r\n\r\nhello");
    client_expect_end(&c);
    client_close(&c);
    stop(&f);
}

static void test_request_fields(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "PATCH /a%20b/%c3%a4?x=%41 HTTP/1.1\r\n" HOST "X-Test:  v w \r\nContent-Length: 4\r\n\r\nbody");
    client_expect(&c, "PATCH|/a b/\xc3\xa4|x=%41|v w|0|4|peer|body");
    assert_non_null(strstr(c.data, "X-Extra: yes\r\n"));
    assert_null(strstr(c.data, "Bad"));
    client_send(&c, "GET http://x HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "GET|/|-|-|0|0|peer|");
    client_send(&c, "OPTIONS *?");
    client_send(&c, " HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "HTTP/1.1 400 ");
    client_expect(&c, "\"type\":\"urn:recalld:problem:malformed-request\"");
    client_close(&c);
    stop(&f);
}

static void test_head_and_empty(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "HEAD /hi HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabcHEAD /x HTTP/1.1\r\n" HOST "\r\n"
                    "GET /204 HTTP/1.1\r\n" HOST "\r\nGET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "\r\n\r\nhello");
    assert_int_equal(occurrences(c.data, "HTTP/1.1 200 OK"), 3);
    assert_int_equal(occurrences(c.data, "\r\n\r\nHTTP/1.1"), 3);
    assert_int_equal(occurrences(c.data, "HTTP/1.1 204 No Content\r\nDate"), 1);
    assert_int_equal(occurrences(c.data, "hello"), 1);
    assert_int_equal(occurrences(c.data, "Content-Length"), 3);
    assert_null(strstr(c.data, "ignored"));
    client_close(&c);
    stop(&f);
}

static void test_byte_by_byte(void **state)
{
    static const char request[] = "POST /p HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n0123456789";
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        client_send_bytes(&c, request + i, 1);
        pump(&f);
    }
    client_expect(&c, "POST|/p|-|-|0|10|peer|0123456789");
    client_close(&c);
    stop(&f);
}

static void test_large_body(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    for (int round = 0; round < 2; round++) {
        char *body = malloc(f.limits.max_body);
        assert_non_null(body);
        for (size_t i = 0; i < f.limits.max_body; i++) {
            body[i] = (char)('a' + i % 23);
        }
        client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
        client_send_bytes(&c, body, f.limits.max_body);
        client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, "\r\n\r\nhello");
        char *echo = strstr(c.data, "|100000|peer|");
        assert_non_null(echo);
        assert_memory_equal(echo + 13, body, f.limits.max_body);
        free(body);
        client_forget(&c);
    }
    client_close(&c);
    stop(&f);
}

/* Bodies under way share one bound; what is over it is told so, and the rest goes on. */
static void test_buffered_bound(void **state)
{
    struct fixture f;
    struct client c[2];
    char body[60000];
    struct http_limits limits = default_limits;
    (void)state;
    limits.max_body = 70000;
    limits.max_buffered = 100000;
    start(&f, &limits);
    memset(body, 'x', sizeof body);
    for (int i = 0; i < 2; i++) {
        client_open(&c[i], &f);
        client_send(&c[i], "POST /x HTTP/1.1\r\n" HOST "Content-Length: 60001\r\n\r\n");
        client_send_bytes(&c[i], body, sizeof body);
        pump_for(&f, 10);
    }
    client_expect(&c[1], "problem:out-of-memory");
    assert_int_equal(COUNTER(&f, bad_503), 1);
    client_send(&c[0], "y");
    client_expect(&c[0], "xy");
    client_close(&c[1]);
    client_open(&c[1], &f);
    client_send(&c[1], "POST /x HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n");
    client_send_bytes(&c[1], body, sizeof body);
    client_expect(&c[1], "|60000|peer|x");
    client_close(&c[0]);
    client_close(&c[1]);
    stop(&f);
}

/* An empty line behind a body is not the beginning of a request: no 408 for it, and no 400 at the end. */
static void test_trailing_empty_line(void **state)
{
    struct fixture f;
    struct client c;
    struct http_limits limits = default_limits;
    (void)state;
    limits.request_timeout_ms = 50;
    for (int how = 0; how < 3; how++) {
        start(&f, &limits);
        client_open(&c, &f);
        client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nb\r\n");
        client_expect(&c, "|1|peer|b");
        client_forget(&c);
        pump_for(&f, 100);
        if (how == 0) {
            client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
            client_expect(&c, "hello");
        } else if (how == 1) {
            shutdown(c.fd, SHUT_WR);
            client_expect_end(&c);
            assert_int_equal(c.len, 0);
        } else {
            http_server_drain(f.server, NULL, NULL);
            client_expect_end(&c);
            assert_int_equal(c.len, 0);
        }
        client_close(&c);
        stop(&f);
    }
}

static void test_pipelining(void **state)
{
    struct fixture f;
    struct client c;
    char request[128];
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    char *all = calloc(1, 100000);
    size_t n = 0;
    for (int i = 0; i < 100; i++) { /* far more than max_pipelined, and than a buffer holds */
        n += (size_t)snprintf(all + n, 100000 - n, "POST /n%d HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n%0*d", i,
                              i % 7 + 1, i % 7 + 1, 0);
    }
    client_send(&c, all);
    client_expect(&c, "/n99|");
    const char *at = c.data;
    for (int i = 0; i < 100; i++) {
        snprintf(request, sizeof request, "POST|/n%d|", i);
        at = strstr(at, request);
        assert_non_null(at);
    }
    assert_int_equal(occurrences(c.data, "HTTP/1.1 200 OK"), 100);
    assert_int_equal(f.handled, 100);
    free(all);
    client_close(&c);
    stop(&f);
}

/* The second request waits for the first one's deferred answer. */
static void test_deferred(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /later HTTP/1.1\r\n" HOST "\r\nGET /hi HTTP/1.1\r\n" HOST "\r\n");
    pump_for(&f, 20);
    client_send(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
    pump_for(&f, 20);
    assert_int_equal(f.handled, 1);
    assert_string_equal(f.deferred[0]->path, "/later");
    answer_deferred(&f, 0, "first");
    client_expect(&c, "\r\n\r\nfirstHTTP/1.1 200");
    client_expect(&c, "\r\n\r\nhello");
    pump_for(&f, 20);
    assert_int_equal(f.deferred_count, 2);
    answer_deferred(&f, 1, "second");
    client_expect(&c, "\r\n\r\nsecond");
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_forget(&c);
    client_expect(&c, "hello");
    assert_int_equal(f.cancels, 0);
    client_close(&c);
    stop(&f);
}

/* While a request is deferred the client fills the buffer: reading stops, and goes on afterwards. */
static void test_deferred_flood(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 200; i++) {
        client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    }
    pump_for(&f, 20);
    assert_true(COUNTER(&f, bytes_in) <= 2048);
    answer_deferred(&f, 0, "first");
    for (int i = 0; i < 3000 && occurrences(c.data, "hello") < 200; i++) {
        pump(&f);
        client_receive(&c);
        usleep(200);
    }
    assert_int_equal(occurrences(c.data, "hello"), 200);
    client_close(&c);
    stop(&f);
}

static void test_client_gone(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    for (int how = 0; how < 3; how++) { /* half close, close, reset */
        for (int in_cancel = 0; in_cancel < 2; in_cancel++) {
            start(&f, &default_limits);
            f.answer_in_cancel = in_cancel;
            client_open(&c, &f);
            client_send(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
            pump_for(&f, 10);
            assert_int_equal(f.deferred_count, 1);
            if (how == 0) {
                shutdown(c.fd, SHUT_WR);
            } else {
                struct linger reset = {.l_onoff = how == 2, .l_linger = 0};
                setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
                close(c.fd);
                c.fd = -1;
            }
            pump_for(&f, 20);
            assert_int_equal(f.cancels, 1);
            assert_int_equal(COUNTER(&f, cancelled), 1);
            if (!in_cancel) {
                assert_true(f.deferred[0]->cancelled);
                answer_deferred(&f, 0, "late");
            }
            if (how == 0) { /* closed for writing only: it does get its answer */
                client_expect(&c, in_cancel ? "deadline-exceeded" : "\r\n\r\nlate");
                client_expect_end(&c);
            }
            pump_for(&f, 20);
            assert_int_equal(http_server_connections(f.server), 0);
            client_close(&c);
            stop(&f);
        }
    }
}

static const char long_text[2000];

/* What another thread does with a request that was kept: the first letter of its query says how it answers. */
static void *answer_kept(void *arg)
{
    struct http_request *request = arg;
    http_add_header(request, "X-Kept", "yes");
    switch (request->query[0]) {
    case 'p':
        problem_send(request, PROBLEM_DEADLINE, "/x", "%s", "too late");
        break;
    case 'b':
        http_respond_bytes(request, 200, "text/plain", "bytes", 5);
        break;
    case 'e':
        http_respond(request, 200, NULL, NULL);
        break;
    case 'l':
        evbuffer_add(http_body(request), long_text, sizeof long_text);
        http_respond(request, 200, "text/plain", http_body(request));
        break;
    case 'm':
        http_respond_bytes(request, 200, "text/plain", long_text, sizeof long_text);
        break;
    default:
        evbuffer_add_printf(http_body(request), "body of %s", request->path);
        http_respond(request, 200, "application/json", http_body(request));
        break;
    }
    return NULL;
}

static void test_answers_of_another_thread(void **state)
{
    static const char *const wanted[][2] = {{"p", "deadline-exceeded"},
                                            {"b", "\r\n\r\nbytes"},
                                            {"e", "Content-Length: 0"},
                                            {"x", "\r\n\r\nbody of /later"}};
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    for (int i = 0; i < 4; i++) {
        char text[100];
        pthread_t thread;
        snprintf(text, sizeof text, "GET /later?%s HTTP/1.1\r\n" HOST "\r\n", wanted[i][0]);
        client_send(&c, text);
        pump_for(&f, 5);
        assert_int_equal(f.deferred_count, i + 1);
        assert_int_equal(http_keep(f.deferred[i]), 0);
        assert_int_equal(pthread_create(&thread, NULL, answer_kept, f.deferred[i]), 0);
        client_send(&c, "GET /h"); /* meanwhile the next one begins to arrive */
        pump_for(&f, 5);
        pthread_join(thread, NULL);
        client_forget(&c);
        http_send_kept(f.deferred[i]);
        client_expect(&c, wanted[i][1]);
        assert_non_null(strstr(c.data, "X-Kept: yes"));
        client_send(&c, "i HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, "hello");
    }
    client_close(&c);
    stop(&f);
}

/* Kept answers are packed when the server's are; as they are without memory. */
static void test_packed_answers_of_another_thread(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    http_server_set_gzip(f.server, true);
    client_open(&c, &f);
    for (int i = 0; i < 4; i++) {
        char text[100];
        snprintf(text, sizeof text, "GET /later?%c HTTP/1.1\r\n" HOST "Accept-Encoding: gzip\r\n\r\n", "lm"[i % 2]);
        client_forget(&c);
        client_send(&c, text);
        pump_for(&f, 5);
        assert_int_equal(http_keep(f.deferred[i]), 0);
        mem_fail_at(i < 2 ? 0 : 1);
        answer_kept(f.deferred[i]);
        mem_fail_at(0);
        http_server_set_gzip(f.server, i != 0); /* what held when it was kept is what counts */
        http_send_kept(f.deferred[i]);
        http_server_set_gzip(f.server, true);
        client_expect(&c, "Vary: Accept-Encoding");
        assert_true((strstr(c.data, "Content-Encoding: gzip\r\n") != NULL) == (i < 2));
        assert_true((strstr(c.data, "Content-Length: 2000\r\n") != NULL) == (i >= 2));
        pump_for(&f, 20);
    }
    client_close(&c);
    stop(&f);
}

/* A kept answer whose client is gone, one that is never sent, and none for want of memory. */
static void test_kept_answers_that_nobody_gets(void **state)
{
    struct fixture f;
    struct client c[2];
    (void)state;
    start(&f, &default_limits);
    for (int i = 0; i < 2; i++) {
        client_open(&c[i], &f);
        client_send(&c[i], "GET /later?b HTTP/1.1\r\n" HOST "\r\n");
        pump_for(&f, 5);
        mem_fail_at(1);
        assert_int_equal(http_keep(f.deferred[i]), -1);
        mem_fail_at(0);
        event_alloc_fail = 1;
        assert_int_equal(http_keep(f.deferred[i]), -1);
        event_alloc_fail = 0;
        assert_int_equal(http_keep(f.deferred[i]), 0);
        answer_kept(f.deferred[i]);
    }
    client_close(&c[0]);
    pump_for(&f, 5);
    assert_true(f.deferred[0]->cancelled);
    http_send_kept(f.deferred[0]);
    pump_for(&f, 5);
    assert_int_equal(http_server_connections(f.server), 1);
    stop(&f);
    client_close(&c[1]);
}

/* Waiting ones are read without the loop if they are new, or their last request was quick. */
static void test_urgent_connections(void **state)
{
    enum { OTHERS = 4, NEW = 40 };
    struct fixture f;
    struct client others[OTHERS], quick, fresh[NEW];
    static const char ordinary[] = "GET /hi HTTP/1.1\r\n" HOST "\r\n";
    static const char urgent[] = "GET /quick HTTP/1.1\r\n" HOST "\r\n";
    struct http_limits limits = default_limits;
    (void)state;
    limits.max_connections = OTHERS + 1 + NEW;
    start(&f, &limits);
    for (int i = 0; i < OTHERS; i++) {
        client_open(&others[i], &f);
        client_send(&others[i], ordinary);
        client_expect(&others[i], "hello");
    }
    client_open(&quick, &f);
    client_send(&quick, urgent);
    client_expect(&quick, "quick");
    memset(f.order, 0, sizeof f.order);
    for (int i = 0; i < OTHERS; i++) {
        assert_int_equal(send(others[i].fd, ordinary, sizeof ordinary - 1, MSG_NOSIGNAL), sizeof ordinary - 1);
    }
    assert_int_equal(send(quick.fd, urgent, sizeof urgent - 1, MSG_NOSIGNAL), sizeof urgent - 1);
    client_open(&fresh[0], &f);
    assert_int_equal(send(fresh[0].fd, "GET /204 HTTP/1.1\r\n" HOST "\r\n", 33, MSG_NOSIGNAL), 33);
    http_server_poll_urgent(f.server);
    assert_string_equal(f.order, "2q");
    http_server_poll_urgent(f.server);
    assert_string_equal(f.order, "2q");
    pump_for(&f, 5);
    assert_string_equal(f.order, "2qhhhh");
    for (int i = 1; i < NEW; i++) { /* more than there is room for push the others off the list */
        client_open(&fresh[i], &f);
        http_server_poll_urgent(f.server);
    }
    pump_for(&f, 5);
    assert_int_equal(send(quick.fd, urgent, sizeof urgent - 1, MSG_NOSIGNAL), sizeof urgent - 1);
    http_server_poll_urgent(f.server);
    assert_string_equal(f.order, "2qhhhh");
    pump_for(&f, 5);
    assert_string_equal(f.order, "2qhhhhq");
    for (int i = 0; i < OTHERS; i++) {
        client_close(&others[i]);
    }
    for (int i = 0; i < NEW; i++) {
        client_close(&fresh[i]);
    }
    client_close(&quick);
    stop(&f);
}

static void test_half_close(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\nGET /hi HTTP/1.1\r\n" HOST "\r\n");
    shutdown(c.fd, SHUT_WR);
    client_expect_end(&c);
    assert_int_equal(occurrences(c.data, "hello"), 2);
    client_close(&c);

    client_open(&c, &f); /* cut off within the head, then within the body: an answer all the same */
    client_send(&c, "GET /hi HTTP/1.1\r\nHo");
    shutdown(c.fd, SHUT_WR);
    client_expect_end(&c);
    assert_non_null(strstr(c.data, "HTTP/1.1 400 "));
    client_close(&c);
    client_open(&c, &f);
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc");
    shutdown(c.fd, SHUT_WR);
    client_expect_end(&c);
    assert_non_null(strstr(c.data, "HTTP/1.1 400 "));
    client_close(&c);
    client_open(&c, &f); /* nothing at all: nothing to answer */
    shutdown(c.fd, SHUT_WR);
    client_expect_end(&c);
    assert_int_equal(c.len, 0);
    client_close(&c);
    stop(&f);
}

static void test_abort_mid_body(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 90000\r\n\r\nabc");
    pump_for(&f, 10);
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    client_close(&c);
    pump_for(&f, 20);
    assert_int_equal(f.handled, 0);
    assert_int_equal(http_server_connections(f.server), 0);
    client_open(&c, &f); /* the exchange that was thrown back half used is as good as new */
    client_send(&c, "G");
    pump_for(&f, 10);
    client_close(&c);
    pump_for(&f, 10);
    client_open(&c, &f);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "hello");
    client_close(&c);
    stop(&f);
}

/* The status line, a problem document, Connection: close, and an orderly end although more input was under way. */
static void expect_refusal(struct fixture *f, const char *request, const char *status, const char *slug)
{
    struct client c;
    int handled = f->handled;
    char junk[30000];
    char type[128];
    memset(junk, 'j', sizeof junk);
    client_open(&c, f);
    client_send(&c, request);
    client_send_bytes(&c, junk, sizeof junk);
    client_send_bytes(&c, junk, sizeof junk);
    shutdown(c.fd, SHUT_WR);
    client_expect_end(&c);
    assert_int_equal(strncmp(c.data, status, strlen(status)), 0);
    snprintf(type, sizeof type, "\r\n\r\n{\"type\":\"urn:recalld:problem:%s\"", slug);
    assert_non_null(strstr(c.data, "Content-Type: application/problem+json\r\n"));
    assert_non_null(strstr(c.data, "Connection: close\r\n"));
    assert_non_null(strstr(c.data, type));
    assert_int_equal(occurrences(c.data, "\r\nDate: "), 1);
    assert_int_equal(f->handled, handled);
    client_close(&c);
}

static void test_refusals(void **state)
{
    struct fixture f;
    char long_line[400];
    char long_head[1200];
    (void)state;
    start(&f, &default_limits);
    snprintf(long_line, sizeof long_line, "GET /%0300d HTTP/1.1\r\n", 0);
    snprintf(long_head, sizeof long_head, "GET / HTTP/1.1\r\nX: %01000d\r\n", 0);
    expect_refusal(&f, "GET / HTTP/1.1\n", "HTTP/1.1 400 Bad Request\r\n", "malformed-request");
    expect_refusal(&f, "\x16\x03\x01\x02", "HTTP/1.1 400 Bad Request\r\n", "malformed-request");
    expect_refusal(&f, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 100001\r\n\r\n",
                   "HTTP/1.1 413 Content Too Large\r\n", "body-too-large");
    expect_refusal(&f, long_line, "HTTP/1.1 414 URI Too Long\r\n", "request-line-too-long");
    expect_refusal(&f, "POST /x HTTP/1.1\r\n" HOST "Expect: x\r\n\r\n", "HTTP/1.1 417 Expectation Failed\r\n",
                   "expectation-failed");
    expect_refusal(&f, long_head, "HTTP/1.1 431 Request Header Fields Too Large\r\n", "head-too-large");
    expect_refusal(&f, "POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
                   "HTTP/1.1 501 Not Implemented\r\n", "transfer-coding-not-supported");
    expect_refusal(&f, "GET / HTTP/3.0\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n",
                   "http-version-not-supported");
    assert_int_equal(COUNTER(&f, bad_400), 2);
    assert_int_equal(COUNTER(&f, bad_413), 1);
    assert_int_equal(COUNTER(&f, bad_414), 1);
    assert_int_equal(COUNTER(&f, bad_417), 1);
    assert_int_equal(COUNTER(&f, bad_431), 1);
    assert_int_equal(COUNTER(&f, bad_501), 1);
    assert_int_equal(COUNTER(&f, bad_505), 1);
    assert_int_equal(f.observed_status, 505);
    assert_int_equal(COUNTER(&f, requests), 0);
    stop(&f);
}

/* A good request, then a bad one behind it: both answered, in order. */
static void test_refusal_behind_request(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\nX : y\r\n\r\nGET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "helloHTTP/1.1 400 ");
    client_expect_end(&c); /* shut at once; closed when the lingering time is over */
    assert_int_equal(f.handled, 1);
    assert_int_equal(http_server_connections(f.server), 1);
    pump_for(&f, f.limits.linger_timeout_ms + 50);
    assert_int_equal(http_server_connections(f.server), 0);
    client_close(&c);
    stop(&f);
}

static void test_linger_bound(void **state)
{
    struct fixture f;
    struct client c;
    char junk[65536];
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    memset(junk, 'j', sizeof junk);
    client_send(&c, "\n");
    pump_for(&f, 10);
    for (int i = 0; i < 200 && http_server_connections(f.server) > 0; i++) {
        client_send_bytes(&c, junk, sizeof junk);
    }
    assert_int_equal(http_server_connections(f.server), 0);
    assert_true(COUNTER(&f, bytes_in) < f.limits.max_linger + 200000);
    client_close(&c);
    stop(&f);
}

static void test_expect_continue(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    client_expect(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_int_equal(c.len, 25);
    client_send(&c, "bo");
    pump_for(&f, 10);
    client_send(&c, "dy");
    client_expect(&c, "|4|peer|body");
    assert_int_equal(occurrences(c.data, " 100 "), 1);
    client_forget(&c); /* the body comes along: no need to say it */
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    client_expect(&c, "|4|peer|body");
    assert_int_equal(occurrences(c.data, " 100 "), 0);
    client_forget(&c); /* too large: the refusal, not the invitation */
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 400000\r\n\r\n");
    client_expect(&c, "HTTP/1.1 413 ");
    assert_int_equal(occurrences(c.data, " 100 "), 0);
    client_close(&c);
    stop(&f);
}

/* Bytes that keep coming do not move the deadline. */
static void check_slow(const char *first, const char *drip)
{
    struct fixture f;
    struct client c;
    struct http_limits limits = default_limits;
    limits.request_timeout_ms = 150;
    start(&f, &limits);
    client_open(&c, &f);
    int64_t began = now_ms();
    client_send(&c, first);
    while (!c.eof && now_ms() < began + 2000) {
        client_send(&c, drip);
        pump_for(&f, 10);
        client_receive(&c);
    }
    int64_t took = now_ms() - began;
    assert_true(c.eof);
    assert_true(took >= 140 && took < 400);
    assert_int_equal(strncmp(c.data, "HTTP/1.1 408 Request Timeout\r\n", 30), 0);
    assert_non_null(strstr(c.data, "problem:request-timeout"));
    assert_non_null(strstr(c.data, "Connection: close"));
    assert_int_equal(COUNTER(&f, bad_408), 1);
    client_close(&c);
    stop(&f);
}

static void test_slow_request(void **state)
{
    (void)state;
    check_slow("G", "E");
    check_slow("GET / HTTP/1.1\r\nX: ", "y");
    check_slow("POST / HTTP/1.1\r\n" HOST "Content-Length: 90000\r\n\r\n", "body");
}

static void test_idle_timeout(void **state)
{
    struct fixture f;
    struct client c;
    struct client d;
    struct http_limits limits = default_limits;
    (void)state;
    limits.idle_timeout_ms = 100;
    start(&f, &limits);
    client_open(&c, &f);
    client_open(&d, &f);
    pump_for(&f, 60);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "hello");
    pump_for(&f, 70);
    assert_int_equal(http_server_connections(f.server), 1);
    client_expect_end(&d);
    assert_int_equal(d.len, 0);
    client_expect_end(&c);
    assert_int_equal(COUNTER(&f, idle_timeouts), 2);
    client_close(&c);
    client_close(&d);
    stop(&f);
}

/* Shorter times hold for connections that are there; a longer one only for what begins later; bad limits for nothing. */
static void test_other_limits(void **state)
{
    struct fixture f;
    struct client c;
    struct client d;
    struct err e = ERR_INIT;
    struct http_limits limits = default_limits;
    (void)state;
    start(&f, &limits);
    client_open(&c, &f);
    pump_for(&f, 20);
    limits.idle_timeout_ms = 0;
    assert_int_equal(http_server_set_limits(f.server, &limits, &e), -1);
    assert_true(err_isset(&e));
    limits.idle_timeout_ms = 100;
    limits.max_body = 10;
    assert_int_equal(http_server_set_limits(f.server, &limits, NULL), 0);
    client_open(&d, &f);
    client_send(&d, "POST / HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n");
    client_expect(&d, "body-too-large");
    client_expect_end(&c);
    assert_int_equal(c.len, 0);
    assert_int_equal(COUNTER(&f, idle_timeouts), 1);
    client_close(&c);
    client_open(&c, &f);
    pump_for(&f, 20);
    limits.idle_timeout_ms = 60000;
    assert_int_equal(http_server_set_limits(f.server, &limits, NULL), 0);
    client_expect_end(&c);
    assert_int_equal(COUNTER(&f, idle_timeouts), 2);
    client_close(&c);
    client_close(&d);
    stop(&f);
}

/* Bytes that are taken one by one do not move the deadline either. */
static void check_slow_reader(size_t step)
{
    struct fixture f;
    struct client c;
    struct http_limits limits = default_limits;
    char taken[16];
    limits.response_timeout_ms = 150;
    start(&f, &limits);
    client_open(&c, &f);
    client_send(&c, "GET /big HTTP/1.1\r\n" HOST "\r\nGET /hi HTTP/1.1\r\n" HOST "\r\n");
    for (int64_t end = now_ms() + 100; now_ms() < end;) {
        (void)!recv(c.fd, taken, step, MSG_DONTWAIT);
        pump_for(&f, 5);
    }
    assert_int_equal(f.handled, 1);
    assert_int_equal(http_server_connections(f.server), 1);
    for (int64_t end = now_ms() + 100; now_ms() < end;) {
        (void)!recv(c.fd, taken, step, MSG_DONTWAIT);
        pump_for(&f, 5);
    }
    assert_int_equal(http_server_connections(f.server), 0);
    assert_int_equal(COUNTER(&f, response_timeouts), 1);
    client_close(&c);
    stop(&f);
}

static void test_slow_reader(void **state)
{
    (void)state;
    check_slow_reader(0);
    check_slow_reader(1);
}

static void test_big_response(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /big HTTP/1.1\r\n" HOST "\r\nGET /big HTTP/1.0\r\n\r\n");
    client_expect_end(&c);
    size_t body = (size_t)(BIG / 1000 * 1000);
    const char *at = c.data;
    for (int i = 0; i < 2; i++) {
        at = strstr(at, "\r\n\r\n");
        assert_non_null(at);
        assert_int_equal(strspn(at + 4, "b"), body);
        at += 4 + body;
    }
    assert_ptr_equal(at, c.data + c.len);
    client_close(&c);
    stop(&f);
}

static void test_connection_cap(void **state)
{
    struct fixture f;
    struct client c[4];
    struct http_limits limits = default_limits;
    (void)state;
    limits.max_connections = 2;
    start(&f, &limits);
    for (int i = 0; i < 4; i++) {
        client_open(&c[i], &f);
        pump_for(&f, 5);
    }
    for (int i = 2; i < 4; i++) {
        client_send(&c[i], "GET /hi HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c[i], "too-many-connections");
        assert_int_equal(strncmp(c[i].data, "HTTP/1.1 503 Service Unavailable\r\n", 34), 0);
        assert_non_null(strstr(c[i].data, "Retry-After: 1\r\n"));
        client_expect_end(&c[i]);
        client_close(&c[i]);
    }
    pump_for(&f, 20);
    assert_int_equal(http_server_connections(f.server), 2);
    client_send(&c[0], "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c[0], "hello");
    client_close(&c[1]);
    pump_for(&f, 20);
    client_open(&c[2], &f);
    client_send(&c[2], "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c[2], "hello");
    assert_int_equal(COUNTER(&f, connections_refused), 2);
    client_close(&c[0]);
    client_close(&c[2]);
    stop(&f);
}

static void test_descriptors_exhausted(void **state)
{
    struct fixture f;
    struct client c[2];
    struct rlimit saved;
    (void)state;
    start(&f, &default_limits);
    client_open(&c[0], &f);
    client_open(&c[1], &f);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)c[1].fd + 1, .rlim_max = saved.rlim_max};
    int holes[64];
    int count = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (count < 64 && (holes[count] = dup(0)) >= 0) { /* so that the next descriptor is the one over the limit */
        count++;
    }
    client_expect(&c[0], "HTTP/1.1 503 ");
    client_expect(&c[0], "\"status\":503}\n");
    pump_for(&f, 20);
    assert_int_equal(COUNTER(&f, accept_errors), 1); /* paused, not spinning */
    while (count > 0) {
        close(holes[--count]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    client_send(&c[1], "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c[1], "hello");
    client_close(&c[0]);
    client_close(&c[1]);
    stop(&f);
}

static void test_drain(void **state)
{
    struct fixture f;
    struct client idle;
    struct client busy;
    struct client half;
    struct client fresh;
    struct client queued;
    struct client racing;
    (void)state;
    start(&f, &default_limits);
    client_open(&idle, &f);
    client_open(&busy, &f);
    client_open(&half, &f);
    client_open(&fresh, &f);
    client_open(&racing, &f);
    client_send(&idle, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&idle, "hello");
    client_send(&racing, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&racing, "hello");
    client_forget(&racing);
    client_send(&busy, "GET /later HTTP/1.1\r\n" HOST "\r\n");
    client_send(&half, "GET /hi HTTP/1.1\r\n");
    pump_for(&f, 20);
    client_open(&queued, &f);
    assert_int_equal(send(racing.fd, "GET /hi HTTP/1.1\r\n" HOST "\r\n", 32, 0), 32);
    http_server_drain(f.server, on_drained, &f);
    client_expect(&racing, "Connection: close\r\n\r\nhello");
    client_expect_end(&idle);
    client_send(&half, HOST "\r\n");
    client_expect(&half, "Connection: close\r\n\r\nhello");
    client_send(&queued, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&queued, "Connection: close\r\n\r\nhello");
    client_send(&fresh, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&fresh, "Connection: close\r\n\r\nhello");
    assert_false(f.drained);
    answer_deferred(&f, 0, "done");
    client_expect(&busy, "Connection: close\r\n\r\ndone");
    client_close(&idle);
    client_close(&busy);
    client_close(&half);
    client_close(&fresh);
    client_close(&queued);
    client_close(&racing);
    pump_for(&f, 20);
    assert_true(f.drained);
    assert_int_equal(http_server_connections(f.server), 0);
    stop(&f);

    start(&f, &default_limits); /* with nobody there, and with one who never asks */
    http_server_drain(f.server, on_drained, &f);
    pump_for(&f, 5);
    assert_true(f.drained);
    stop(&f);
    start(&f, &default_limits);
    client_open(&fresh, &f);
    pump_for(&f, 5);
    http_server_drain(f.server, on_drained, &f);
    client_expect_end(&fresh);
    pump_for(&f, 5);
    assert_true(f.drained);
    client_close(&fresh);
    stop(&f);
}

static void test_admin_and_unix(void **state)
{
    struct fixture f;
    struct err e = ERR_INIT;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)state;
    start(&f, &default_limits);
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "recalld-test-%d", (int)getpid());
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(http_server_accept(f.server, fd, true, &e), 0);
    struct client c = {.f = &f, .fd = socket(AF_UNIX, SOCK_STREAM, 0), .data = calloc(1, 65536), .capacity = 65536};
    assert_int_equal(connect(c.fd, (struct sockaddr *)&address, len), 0);
    client_send(&c, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "GET|/x|-|-|1|0|peer|");
    client_close(&c);

    int pair[2]; /* an adopted socket */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(http_server_adopt(f.server, pair[0], true), 0);
    c = (struct client){.f = &f, .fd = pair[1], .data = calloc(1, 65536), .capacity = 65536};
    client_send(&c, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "GET|/x|-|-|1|0|");
    client_close(&c);
    assert_int_equal(http_server_accept(f.server, fd, true, &e), 0);
    assert_int_equal(http_server_accept(f.server, fd, true, &e), 0);
    assert_int_equal(http_server_accept(f.server, fd, true, &e), -1);
    stop(&f);
    close(fd);
}

/* Two servers, as two workers would be, accept from one socket: the one that comes too late finds nobody there. */
static void test_shared_listener(void **state)
{
    struct fixture f;
    struct client c[6];
    struct err e = ERR_INIT;
    (void)state;
    start(&f, &default_limits);
    struct http_server *second = http_server_new(f.base, &f.limits, handle, &f, &e);
    assert_non_null(second);
    assert_int_equal(http_server_accept(second, f.listening_fd, false, &e), 0);
    for (int i = 0; i < 6; i++) {
        client_open(&c[i], &f);
        client_send(&c[i], "GET /hi HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c[i], "hello");
    }
    assert_int_equal(http_server_connections(f.server) + http_server_connections(second), 6);
    assert_int_equal(COUNTER(&f, accept_errors), 0);
    for (int i = 0; i < 6; i++) {
        client_close(&c[i]);
    }
    http_server_free(second);
    stop(&f);
}

static void test_problems(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    client_send(&c, "GET /problem HTTP/1.1\r\n" HOST
                    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n");
    client_expect(&c, "}\n");
    assert_non_null(strstr(c.data,
                           "\r\n\r\n{\"type\":\"urn:recalld:problem:invalid-field\",\"title\":\"A field has a value "
                           "that is not valid\",\"status\":400,\"detail\":\"must be a number\\u000a\\ufffd\","
                           "\"pointer\":\"/user/age\",\"request_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}\n"));
    client_forget(&c);
    client_send(&c, "BREW /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "}\n");
    assert_non_null(strstr(c.data, "HTTP/1.1 405 Method Not Allowed\r\n"));
    assert_non_null(strstr(c.data, "\r\nAllow: GET, HEAD\r\n"));
    assert_non_null(strstr(c.data, "BREW is not supported here"));
    assert_null(strstr(c.data, "Connection: close"));
    client_close(&c);
    stop(&f);
}

static void test_free_with_everything_open(void **state)
{
    struct fixture f;
    struct client c[5];
    (void)state;
    start(&f, &default_limits);
    for (int i = 0; i < 5; i++) {
        client_open(&c[i], &f);
    }
    client_send(&c[0], "GET /later HTTP/1.1\r\n" HOST "\r\nGET /h");
    client_send(&c[1], "GET /hi HTTP/1.1\r\n");
    client_send(&c[2], "GET /big HTTP/1.1\r\n" HOST "\r\n");
    client_send(&c[3], "\n");
    pump_for(&f, 20);
    assert_int_equal(http_server_connections(f.server), 5);
    stop(&f);
    assert_int_equal(f.cancels, 1);
    for (int i = 0; i < 5; i++) {
        client_close(&c[i]);
    }
    http_server_free(NULL);
}

/* The scenario that the allocation failures run through: every answer is right or absent, never wrong. */
static void run_scenario(struct fixture *f)
{
    struct client c;
    client_open(&c, f);
    char *body = calloc(1, 50001);
    assert_non_null(body);
    memset(body, 'x', 50000);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    pump_for(f, 2);
    client_send(&c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 50000\r\n\r\n");
    client_send(&c, body);
    pump_for(f, 2);
    client_send(&c, "GET /problem HTTP/1.1\r\n" HOST "\r\nGET /big HTTP/1.1\r\n" HOST "\r\nGET / HTTP/9.9\r\n\r\n");
    shutdown(c.fd, SHUT_WR);
    client_awaits(&c, NULL);
    free(body);
    if (c.len > 0) {
        assert_int_equal(strncmp(c.data, "HTTP/1.1 ", 9), 0);
        assert_true(strncmp(c.data + 9, "200", 3) == 0 || strncmp(c.data + 9, "503", 3) == 0);
    }
    client_close(&c);
    pump_for(f, 2);
}

static void test_allocation_failures(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    for (long n = 1; n <= 30; n++) {
        for (int ours = 0; ours < 2; ours++) {
            start(&f, &default_limits);
            mem_fail_at(ours ? n : 0);
            event_alloc_fail = ours ? 0 : n;
            run_scenario(&f);
            mem_fail_at(0);
            event_alloc_fail = 0;
            client_open(&c, &f); /* and it goes on */
            client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
            client_expect(&c, "hello");
            client_close(&c);
            stop(&f);
        }
    }
    struct event_base *base = event_base_new();
    for (long n = 1; n <= 2; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n == 1 ? 1 : 0);
        event_alloc_fail = n == 2 ? 1 : 0;
        assert_null(http_server_new(base, &default_limits, handle, NULL, &e));
        assert_true(err_isset(&e));
    }
    mem_fail_at(0);
    event_alloc_fail = 0;
    event_base_free(base);
}

/* No memory for the very first byte of a request: the canned answer. */
static void test_no_memory_to_read(void **state)
{
    struct fixture f;
    struct client c;
    (void)state;
    start(&f, &default_limits);
    client_open(&c, &f);
    pump_for(&f, 5);
    mem_fail_at(1);
    client_send(&c, "GET /hi HTTP/1.1\r\n" HOST "\r\n");
    client_expect(&c, "\"status\":503}\n");
    client_expect_end(&c);
    mem_fail_at(0);
    assert_int_equal(COUNTER(&f, bad_503), 1);
    client_close(&c);
    stop(&f);
}

static void test_bad_limits(void **state)
{
    struct event_base *base = event_base_new();
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct http_limits limits = HTTP_LIMITS_DEFAULT;
        struct err e = ERR_INIT;
        switch (i) {
        case 0:
            limits.max_line = limits.max_head;
            break;
        case 1:
            limits.max_headers = HTTP_HEADERS_CAP + 1;
            break;
        case 2:
            limits.idle_timeout_ms = 0;
            break;
        case 3:
            limits.request_timeout_ms = -1;
            break;
        case 4:
            limits.max_connections = 0;
            break;
        case 5:
            limits.max_pipelined = 0;
            break;
        case 6:
            limits.max_body = SIZE_MAX;
            break;
        case 7:
            limits.max_head = (size_t)1 << 30;
            break;
        default:
            break;
        }
        struct http_server *server = http_server_new(base, &limits, handle, NULL, &e);
        assert_int_equal(server != NULL, i == 8);
        assert_int_equal(err_isset(&e), i != 8);
        http_server_free(server);
    }
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_head_and_empty),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_buffered_bound),
        cmocka_unit_test(test_trailing_empty_line),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_deferred_flood),
        cmocka_unit_test(test_client_gone),
        cmocka_unit_test(test_answers_of_another_thread),
        cmocka_unit_test(test_kept_answers_that_nobody_gets),
        cmocka_unit_test(test_packed_answers_of_another_thread),
        cmocka_unit_test(test_urgent_connections),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_abort_mid_body),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refusal_behind_request),
        cmocka_unit_test(test_linger_bound),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_slow_request),
        cmocka_unit_test(test_idle_timeout),
        cmocka_unit_test(test_other_limits),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_big_response),
        cmocka_unit_test(test_connection_cap),
        cmocka_unit_test(test_descriptors_exhausted),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_admin_and_unix),
        cmocka_unit_test(test_shared_listener),
        cmocka_unit_test(test_problems),
        cmocka_unit_test(test_free_with_everything_open),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_no_memory_to_read),
        cmocka_unit_test(test_bad_limits),
    };
    event_set_mem_functions(event_malloc, event_realloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
