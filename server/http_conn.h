/*
 * server/http_conn.h: what http.c (server), http_conn.c (connections), http_exchange.c (requests and their
 * bytes) and http_respond.c (answers) share.
 * Nobody else includes it; the essay is in http_conn.c.
 */
#ifndef SERVER_HTTP_CONN_H
#define SERVER_HTTP_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/queue.h>
#include <sys/uio.h>
#include <time.h>

#include "server/http.h"

enum { HTTP_EXTRA_MAX = 1024, HTTP_RESPONSE_HEAD_MAX = 2048, HTTP_DATE_LEN = 37 };

/* Where a connection is. Each phase is a list of the server's, in order of deadline, because all members of a phase
 * have the same timeout and join at its tail. */
enum http_phase {
    HTTP_PHASE_HANDSHAKE, /* of TLS */
    HTTP_PHASE_IDLE,      /* no byte of the next request yet */
    HTTP_PHASE_REQUEST,   /* a request is arriving */
    HTTP_PHASE_HANDLER,   /* the handler owes an answer; no deadline of ours */
    HTTP_PHASE_RESPONSE,  /* the client is taking the answer */
    HTTP_PHASE_LINGER,    /* answered and shut for writing; what still comes is thrown away */
    HTTP_PHASE_GRACE,     /* draining, but this one was accepted a moment ago and may be about to ask */
    HTTP_PHASE_DEAD,      /* to be freed when the code that works on it is done */
    HTTP_PHASES,
};

/* One request and the bytes it lies in. Connections hold one only while they have input; they are pooled. */
struct http_exchange {
    struct http_request public; /* first: the handler's pointer is the exchange's */
    struct http_conn *conn;
    struct http_exchange *next_free;
    void (*cancel)(struct http_request *request, void *arg);
    void *cancel_arg;
    char *bytes;     /* owned; [start, len) is unread input, the current request first */
    size_t capacity; /* at least max_head + 1 */
    size_t start;
    size_t len;
    bool head_done; /* `head` is a complete head that waits for its body, or is being handled */
    char *replaced; /* owned; what http_replace_body put in the body's place, or NULL */
    size_t replaced_len;
    bool bad; /* the HTTP layer answers this one; the connection is beyond use */
    size_t extra_len;
    char extra[HTTP_EXTRA_MAX]; /* headers added by the handler, as they go out */
    struct http_head head;
};

struct http_conn {
    struct http_server *server;
    TAILQ_ENTRY(http_conn) in_phase;
    TAILQ_ENTRY(http_conn) in_runnable;
    TAILQ_ENTRY(http_conn) in_urgent;
    int64_t deadline_ms;
    uint64_t address;   /* counted in the server's addresses; 0: not */
    int fd;             /* -1: gone, an answer is still owed by the handler */
    struct ssl_st *tls; /* owned; NULL: bytes go as they are */
    enum http_phase phase;
    bool admin;
    bool reading;  /* read_event is added */
    bool runnable; /* on the server's runnable list */
    bool busy;     /* code up the stack works on it: do not free, only mark dead */
    bool eof;      /* the client sent everything it will send */
    bool refused;  /* over max_connections */
    bool served;   /* had a request before */
    bool urgent;   /* on the server's list of these: it is new, or what it asked last was quick */
    bool closing;  /* the answer being sent is the last ... */
    bool linger;   /* ... and input may still come that must not turn it into a reset */
    size_t lingered;
    struct http_exchange *exchange; /* owned; NULL without input */
    struct evbuffer *out;           /* owned; what the socket did not take yet; NULL: never needed */
    struct event read_event;
    struct event write_event;
};

TAILQ_HEAD(http_conn_list, http_conn);

struct http_listener {
    struct http_server *server;
    struct event event;
    int fd; /* borrowed */
    bool admin;
    unsigned many; /* connections to accept at the next wake-up */
};

struct http_server {
    struct event_base *base; /* borrowed */
    struct http_limits limits;
    struct http_head_limits head_limits;
    http_handler *handler;
    void *handler_arg;
    http_observer *observer;
    void *observer_arg;
    struct ssl_ctx_st *tls[2];   /* of the public and the admin listeners, borrowed; NULL: none */
    struct addresses *addresses; /* borrowed; NULL: not counted */

    struct http_conn_list phases[HTTP_PHASES];
    struct http_conn_list runnable;
    struct http_conn_list urgent; /* the latest ones, [n_urgent] */
    unsigned n_urgent;
    size_t open;    /* connections, refused ones included */
    size_t refused; /* those only here to be told 503 */
    struct http_exchange *free_exchanges;
    unsigned free_count;
    size_t buffered; /* bytes of buffers beyond their base size, at most max_buffered */
    struct evbuffer *body;
    bool gzip;                  /* pack answers ... */
    struct gzip_packer *packer; /* ... with this, made when first needed ... */
    struct evbuffer *packed;    /* ... into this */

    struct http_listener listeners[HTTP_LISTENERS_MAX];
    unsigned listener_count;
    int reserve_fd; /* given up for a moment to answer one client when descriptors run out */
    struct event pause_timer;
    struct event deadline_timer;
    struct event resume_timer;
    int64_t armed_ms; /* what deadline_timer waits for; INT64_MAX: nothing */

    bool draining;
    void (*drained)(void *arg);
    void *drained_arg;

    struct rng random; /* for ids */
    time_t date_second;
    char date[HTTP_DATE_LEN + 1]; /* "Date: ...\r\n" */
    struct http_counters counters;
};

/* Only the owning thread writes, so a plain load and store is enough. */
#define HTTP_COUNT(server, name, n)                                                                             \
    atomic_store_explicit(&(server)->counters.name,                                                             \
                          atomic_load_explicit(&(server)->counters.name, memory_order_relaxed) + (uint64_t)(n), \
                          memory_order_relaxed)

/* http.c */
int64_t http_now_ms(void);
void http_conn_enter(struct http_conn *conn, enum http_phase phase); /* moves it and sets its deadline */
void http_conn_set_urgent(struct http_conn *conn, bool urgent);
void http_conn_schedule(struct http_conn *conn); /* http_conn_run in the next turn of the event loop */
void http_server_forget(struct http_server *server, struct http_conn *conn); /* unlinks it from everything */

/* http_conn.c */
int http_conn_open(struct http_server *server, int fd, bool admin); /* closes fd on failure */
void http_conn_run(struct http_conn *conn);
void http_conn_poll(struct http_conn *conn); /* takes what has arrived, as if the socket was readable */
void http_conn_expire(struct http_conn *conn);
void http_conn_close(struct http_conn *conn); /* now, or when `busy` ends */
void http_conn_send(struct http_conn *conn, struct iovec *vec, int n, struct evbuffer *rest); /* rest may be NULL */
void http_conn_answered(struct http_conn *conn, bool urgent, bool close, bool linger);
void http_conn_destroy(struct http_conn *conn); /* at server's end: cancels, closes, frees */

/* http_exchange.c */
struct http_exchange *http_exchange_new(struct http_conn *conn); /* from the pool if it can; NULL without memory */
void http_exchange_release(struct http_exchange *x);             /* back to the pool; NULL is fine */
void http_exchange_free(struct http_exchange *x);
void http_exchange_reset(struct http_exchange *x);          /* for the next request; keeps the bytes */
size_t http_exchange_unread(const struct http_exchange *x); /* bytes of input; 0 for NULL */
size_t http_exchange_size(const struct http_exchange *x);   /* of the current request, whose head is complete */
void http_exchange_publish(struct http_exchange *x);        /* parsed head to `public`: decodes, ends strings */
void http_exchange_trace(struct http_exchange *x);          /* gives it its ids, by the headers there are */

/* Makes room behind the input for another read: moves it to the front, and grows step by step as a body arrives, so
 * that a mere announcement of a large one costs nothing. Returns -1 without memory or over max_buffered. Not while the
 * handler has the request. */
int http_exchange_make_room(struct http_exchange *x);

/* http_respond.c: NULL is fine. */
void http_kept_free(struct http_kept *kept);

/* http_respond.c: a 503 that needs no memory, for when there is none or no descriptor. */
struct iovec http_canned_503(void);

#endif
