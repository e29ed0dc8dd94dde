/*
 * server/http.h: HTTP/1.1 connections on one event_base.
 *
 * One struct http_server belongs to one worker thread; every function here is called on that thread, except that
 * the counters may be read by any, and for answers that are kept (http_keep). Several servers may accept from the same non-blocking listening socket.
 *
 * Life of a request: the handler is called once, with head and body complete, and answers with exactly one
 * http_respond* (or problem_*) call: before it returns, or later from the same thread. Until that call the request
 * and everything it points to stay valid; after it nothing of the request may be touched. One connection has one
 * request in a handler at a time; pipelined ones wait for their turn, so answers leave in order.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "server/http_parse.h"
#include "server/trace.h"

struct event_base;
struct evbuffer;
struct http_server;

struct http_limits {
    size_t max_line;          /* bytes of a request line; more: 414 */
    size_t max_head;          /* bytes of request line and headers together; more: 431; at least max_line + 4 */
    unsigned max_headers;     /* header fields; more: 431; at most HTTP_HEADERS_CAP */
    size_t max_body;          /* bytes of a body; more: 413 before any of it is read */
    size_t max_buffered;      /* bytes of bodies held by all connections together; more: 503; raised to fit one */
    unsigned max_connections; /* open at once on this server; more: 503 and close */
    unsigned max_per_address; /* of one client address, see http_server_count_addresses; more: 503 and close; 0: any */
    unsigned max_pipelined;   /* requests of one connection answered in a row before others get their turn */
    int request_timeout_ms;   /* from a request's first byte to its last; later: 408 */
    int idle_timeout_ms;      /* without a byte between requests; later: closed */
    int response_timeout_ms;  /* for the client to take one response; later: reset */
    int linger_timeout_ms;    /* how long input is thrown away after an error's answer, so that it can be read ... */
    size_t max_linger;        /* ... and how many bytes of it */
};

#define HTTP_LIMITS_DEFAULT                                                                                     \
    {                                                                                                           \
        .max_line = 8192, .max_head = 16384, .max_headers = 64, .max_body = 1 << 20, .max_buffered = 256 << 20, \
        .max_connections = 10000, .max_pipelined = 16, .request_timeout_ms = 10000, .idle_timeout_ms = 75000,   \
        .response_timeout_ms = 30000, .linger_timeout_ms = 2000, .max_linger = 16 << 20                         \
    }

struct http_kept; /* opaque: an answer that was made and not sent yet */

struct http_request {
    enum http_method method;
    const char *method_text; /* as sent, '\0' behind */
    const char *path;        /* percent-decoded, '\0' behind, none inside; starts with '/' ("*" for OPTIONS *) */
    size_t path_len;
    const char *query; /* as sent, without the '?', '\0' behind; NULL: there was none */
    const char *body;  /* body_len contiguous bytes, no '\0' behind; never NULL */
    size_t body_len;
    bool admin; /* came in on a listener marked so */
    struct trace
        trace; /* which request this is: in the answer's header `traceparent`, and in problem documents; id "": none yet */
    atomic_bool
        cancelled; /* the client closed its side: nobody may be waiting; still to be answered, as cheaply as possible */

    /* For the handler to set. */
    bool close;  /* close the connection after this answer */
    bool urgent; /* what this connection asks is quick, and should not wait for others: see http_server_poll_urgent */
    void *user;  /* anything; NULL at first */

    /* The handler's own, 0 at first. */
    struct http_request *next; /* in a list of requests that wait */
    uint64_t from;             /* when the request was complete ... */
    uint64_t deadline;         /* ... and from when on its answer is late, in ns; 0: never */
    uint64_t waited;           /* before it was computed, in ns */
    unsigned degrade;          /* how many steps down its search effort is to go */
    bool together;             /* may be computed together with its neighbours */

    /* For the access log; "", NULL and 0: not known. */
    char model[64];       /* whose answer it is, cut */
    const char *strategy; /* static; of the last search */
    const char *problem;  /* static; what is wrong, by its slug */
    size_t users, k;      /* asked about, and the most items asked for each */
    bool degraded;

    struct http_kept *kept; /* the layer's: see http_keep */
};

/* Called for each request; must see to it that it is answered once. */
typedef void http_handler(struct http_request *request, void *arg);

/* Called after each answer was made, errors of the HTTP layer included: `request->path` may be "" and
 * `request->method_text` "" when the head was not understood. `body_len`: bytes of the answer's body. */
typedef void http_observer(const struct http_request *request, int status, size_t body_len, void *arg);

/* New server on a borrowed base, or NULL with `e` set. `limits` is copied. */
struct http_server *http_server_new(struct event_base *base, const struct http_limits *limits, http_handler *handler,
                                    void *arg, struct err *e);

/* Other limits from now on; also for requests and connections under way, whose deadlines only ever come nearer. max_line and
 * max_head stay what they were. Returns 0, or -1 with `e` set and nothing changed. */
int http_server_set_limits(struct http_server *server, const struct http_limits *limits, struct err *e);

/* Optional, before anything is accepted: counts connections by client address, together with other servers that have the
 * same (borrowed) counts. Unix sockets have no address. */
struct addresses;
void http_server_count_addresses(struct http_server *server, struct addresses *addresses);

/* Optional: connections that are accepted from now on by the public listeners, or by those for admin paths, speak TLS (server/tls.h)
 * with this context, which is borrowed until the next call; NULL: they do not. */
struct ssl_ctx_st;
void http_server_set_tls(struct http_server *server, bool admin, struct ssl_ctx_st *context);

/* Optional: whether answers of 200 and at least HTTP_GZIP_LEAST bytes are packed for clients that accept gzip. */
enum { HTTP_GZIP_LEAST = 1024 };
void http_server_set_gzip(struct http_server *server, bool on);

/* Optional; for access logs. */
void http_server_observe(struct http_server *server, http_observer *observer, void *arg);

/* Accepts from a listening, non-blocking TCP or unix socket, which stays the caller's and must outlive the server's
 * accepting (until drain or free). At most HTTP_LISTENERS_MAX of them. Returns 0, or -1 with `e` set. */
enum { HTTP_LISTENERS_MAX = 4 };
int http_server_accept(struct http_server *server, int listening_fd, bool admin, struct err *e);

/* Takes over a connected socket as if it had been accepted (tests, inetd). Closes it on failure. Returns 0 or -1. */
int http_server_adopt(struct http_server *server, int fd, bool admin);

/* Takes new connections, some, and what has arrived on them and on those whose last request was `urgent`, as if the event loop had come round
 * to these alone: for who keeps it busy for long. Not from a handler that has taken http_body and not answered yet; handlers are called. */
void http_server_poll_urgent(struct http_server *server);

/* Stops accepting (after what already waits in the listeners' queues was taken), closes idle connections, marks every
 * further answer `Connection: close`. `done`, when not NULL, is called once from the event loop when no connection is
 * left; it may free the server. May be called once. */
void http_server_drain(struct http_server *server, void (*done)(void *arg), void *arg);

/* Open connections. */
size_t http_server_connections(const struct http_server *server);

/* Closes everything. Requests not yet answered have their cancel callback called, unless it was before, and are gone
 * afterwards: deferred work must be dropped first. Not from inside a handler. NULL is fine. */
void http_server_free(struct http_server *server);

/* The first header of that name (case does not matter), '\0' behind, or NULL. Valid until the answer. */
const char *http_header(struct http_request *request, const char *name);

/* Calls `cancel` when the client goes away before the answer (not once http_respond was called). It may answer at once,
 * or free what it was computing and answer later; an answer is due in any case, except after http_server_free. */
void http_on_cancel(struct http_request *request, void (*cancel)(struct http_request *request, void *arg), void *arg);

/* The client's address as text ("127.0.0.1:4242", "[::1]:4242", "unix"); "" when unknown. For logs. Returns `out`. */
enum { HTTP_PEER_MAX = 64 };
const char *http_peer(const struct http_request *request, char out[HTTP_PEER_MAX]);

/* Puts other bytes (mem_array) in the body's place, and takes them: they live until the answer, and count to max_buffered.
 * Returns 0, or -1 when that has no room for them: they are freed then. */
int http_replace_body(struct http_request *request, char *bytes, size_t n);

/* Adds a header to the answer to come. Returns 0, or -1 when name or value are not valid in HTTP or there is no room
 * (1 KiB in all): then the header is left out. Date, Content-Type, Content-Length, Connection are set by the layer. */
int http_add_header(struct http_request *request, const char *name, const char *value);

/* The server's own evbuffer, empty, to write a body into. It is shared by all requests: fill it and pass it to
 * http_respond without returning to the event loop in between. */
struct evbuffer *http_body(struct http_request *request);

/* Answers: head and body leave with one system call when the socket takes them. The layer adds Content-Length and
 * keeps the body back for HEAD. `body` may be NULL (empty), http_body() or the caller's own: it is left empty and stays
 * its owner's. `content_type` NULL: none. Invalidates the request. */
void http_respond(struct http_request *request, int status, const char *content_type, struct evbuffer *body);

/* The same from plain bytes, which are not needed any more when it returns. */
void http_respond_bytes(struct http_request *request, int status, const char *content_type, const void *bytes,
                        size_t n);

/* For an answer that another thread makes: after http_keep that thread may call http_body, http_add_header, http_respond* and
 * problem_* for the request, which keep the answer, and pack it there; http_send_kept, on the server's thread again, sends it. Handing the request over and
 * back is the caller's. http_keep returns 0, or -1 without memory. */
int http_keep(struct http_request *request);
void http_send_kept(struct http_request *request);

/* The reason phrase ("Not Found"); "Unknown" for a status we never send. */
const char *http_status_text(int status);

/* Counters: written by the owning thread only, readable at any time by any (relaxed). Gauges are marked. */
#define HTTP_COUNTERS(X)                                                                         \
    X(connections_total, "connections accepted")                                                 \
    X(connections_open, "connections open now (gauge)")                                          \
    X(connections_refused, "connections answered 503 because of max_connections")                \
    X(connections_refused_address, "connections answered 503 because of max_per_address")        \
    X(handshakes, "TLS handshakes completed")                                                    \
    X(handshake_failures, "TLS handshakes that failed, or were not complete in request_timeout") \
    X(accept_errors, "failed accepts, descriptors exhausted among them")                         \
    X(requests, "requests given to the handler")                                                 \
    X(cancelled, "requests whose client went away before the answer")                            \
    X(bad_400, "requests answered 400 by the HTTP layer")                                        \
    X(bad_408, "requests not complete in request_timeout")                                       \
    X(bad_413, "bodies over max_body")                                                           \
    X(bad_414, "request lines over max_line")                                                    \
    X(bad_417, "expectations other than 100-continue")                                           \
    X(bad_431, "heads over max_head or max_headers")                                             \
    X(bad_501, "requests with a transfer coding")                                                \
    X(bad_503, "requests refused for want of memory or over max_buffered")                       \
    X(bad_505, "versions other than HTTP/1.0 and 1.1")                                           \
    X(idle_timeouts, "connections closed after idle_timeout")                                    \
    X(response_timeouts, "connections reset because the client did not take a response in time") \
    X(bytes_in, "bytes read")                                                                    \
    X(bytes_out, "bytes written")

struct http_counters {
#define HTTP_COUNTER_FIELD(name, help) _Atomic uint64_t name;
    HTTP_COUNTERS(HTTP_COUNTER_FIELD)
#undef HTTP_COUNTER_FIELD
};

/* Lives as long as the server. */
const struct http_counters *http_server_counters(const struct http_server *server);

#endif
