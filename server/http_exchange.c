/*
 * One request and the bytes it lies in: buffers, their pool, and the step from a parsed head to a struct http_request.
 *
 * A connection holds an exchange only while it holds input: ten thousand idle connections cost their structs and
 * nothing else. Exchanges are pooled last in, first out, so that a busy worker keeps using the same warm one. A buffer
 * that grew for a body is not pooled, and what all bodies of a server may hold together is bounded (max_buffered):
 * max_connections times max_body would be more than a machine has.
 */
#include "server/http_conn.h"

#include <string.h>
#include <strings.h>

#include "core/mem.h"

enum {
    POOL_MAX = 64, /* exchanges kept for reuse */
    SPARE = 64,    /* bytes beyond a request, to see what follows it */
};

/* Enough for the longest head and one byte more, which tells that it is too long. */
static size_t base_capacity(const struct http_server *server)
{
    return (server->limits.max_head + 1024) / 1024 * 1024;
}

void http_exchange_free(struct http_exchange *x)
{
    if (x != NULL) {
        mem_free(x->replaced);
        http_kept_free(x->public.kept);
        mem_free(x->bytes);
        mem_free(x);
    }
}

void http_exchange_reset(struct http_exchange *x)
{
    http_kept_free(x->public.kept);
    x->public = (struct http_request){.method_text = "", .path = "", .body = ""};
    x->cancel = NULL;
    if (x->replaced != NULL) {
        x->conn->server->buffered -= x->replaced_len;
        mem_free(x->replaced);
        x->replaced = NULL;
    }
    x->head_done = false;
    x->bad = false;
    x->extra_len = 0;
    http_head_reset(&x->head);
}

static struct http_exchange *exchange_make(const struct http_server *server)
{
    struct http_exchange *x = mem_array(1, sizeof *x);
    char *bytes = mem_array(base_capacity(server), 1);
    if (x == NULL || bytes == NULL) {
        mem_free(x);
        mem_free(bytes);
        return NULL;
    }
    x->bytes = bytes;
    x->capacity = base_capacity(server);
    http_exchange_reset(x);
    return x;
}

struct http_exchange *http_exchange_new(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    struct http_exchange *x = server->free_exchanges;
    if (x != NULL) {
        server->free_exchanges = x->next_free;
        server->free_count--;
    } else {
        x = exchange_make(server);
    }
    if (x != NULL) {
        x->conn = conn;
    }
    return x;
}

void http_exchange_release(struct http_exchange *x)
{
    if (x == NULL) {
        return;
    }
    struct http_server *server = x->conn->server;
    if (server->free_count >= POOL_MAX || x->capacity > base_capacity(server)) {
        server->buffered -= x->capacity - base_capacity(server);
        http_exchange_free(x);
        return;
    }
    if (x->start != x->len || x->bad) { /* otherwise the last answer left it clean */
        http_exchange_reset(x);
    }
    x->start = 0;
    x->len = 0;
    x->next_free = server->free_exchanges;
    server->free_exchanges = x;
    server->free_count++;
}

size_t http_exchange_unread(const struct http_exchange *x)
{
    return x == NULL ? 0 : x->len - x->start;
}

size_t http_exchange_size(const struct http_exchange *x)
{
    return x->head.head_len + (size_t)x->head.content_length;
}

int http_exchange_make_room(struct http_exchange *x)
{
    struct http_server *server = x->conn->server;
    if (x->start > 0) {
        memmove(x->bytes, x->bytes + x->start, x->len - x->start);
        x->len -= x->start;
        x->start = 0;
    }
    size_t wanted = x->head_done ? http_exchange_size(x) + SPARE : x->capacity;
    if (x->len < x->capacity || wanted <= x->capacity) {
        return 0;
    }
    size_t capacity = wanted < x->capacity * 2 ? wanted : x->capacity * 2;
    if (capacity - x->capacity > server->limits.max_buffered - server->buffered) {
        return -1;
    }
    char *bytes = mem_resize(x->bytes, x->len, capacity, 1);
    if (bytes == NULL) {
        return -1;
    }
    server->buffered += capacity - x->capacity;
    x->bytes = bytes;
    x->capacity = capacity;
    return 0;
}

int http_replace_body(struct http_request *request, char *bytes, size_t n)
{
    struct http_exchange *x = (struct http_exchange *)request;
    struct http_server *server = x->conn->server;
    if (n > server->limits.max_buffered - server->buffered) {
        mem_free(bytes);
        return -1;
    }
    server->buffered += n;
    x->replaced = bytes;
    x->replaced_len = n;
    request->body = bytes;
    request->body_len = n;
    return 0;
}

/* Of several, none is to be believed. */
void http_exchange_trace(struct http_exchange *x)
{
    static const char name[] = "traceparent";
    const char *bytes = x->bytes + x->start;
    struct http_slice found = {0, 0};
    unsigned n = 0;
    for (unsigned i = 0; i < x->head.field_count; i++) {
        const struct http_field *field = &x->head.fields[i];
        if (field->name.len == sizeof name - 1 && strncasecmp(bytes + field->name.at, name, sizeof name - 1) == 0) {
            found = field->value;
            n++;
        }
    }
    trace_begin(&x->public.trace, &x->conn->server->random, bytes + found.at, n == 1 ? found.len : 0);
}

/* The bytes behind method, path and query are separators of this very head, which is not parsed again, so strings can
 * be ended in place. */
void http_exchange_publish(struct http_exchange *x)
{
    struct http_request *r = &x->public;
    const struct http_head *head = &x->head;
    char *bytes = x->bytes + x->start;
    char *method = bytes + head->method_text.at;
    method[head->method_text.len] = '\0';
    r->method = head->method;
    r->method_text = method;
    r->path = "/";
    r->path_len = 1;
    if (head->path.len > 0) {
        char *path = bytes + head->path.at;
        r->path_len = http_percent_decode(path, head->path.len);
        path[r->path_len] = '\0';
        r->path = path;
    }
    if (head->has_query) {
        char *query = bytes + head->query.at;
        query[head->query.len] = '\0';
        r->query = query;
    }
    r->body = bytes + head->head_len;
    r->body_len = (size_t)head->content_length;
    r->admin = x->conn->admin;
    http_exchange_trace(x);
}
