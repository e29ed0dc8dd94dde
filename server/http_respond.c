/* What a handler calls: reading the request, making the answer. */
#include "server/http_conn.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/mem.h"
#include "server/gzip.h"

enum { CONTENT_TYPE_MAX = 128 };

static struct http_exchange *exchange_of(const struct http_request *request)
{
    return (struct http_exchange *)(uintptr_t)request;
}

const char *http_header(struct http_request *request, const char *name)
{
    struct http_exchange *x = exchange_of(request);
    char *bytes = x->bytes + x->start;
    const struct http_field *field = http_head_find(&x->head, bytes, name);
    if (field == NULL) {
        return NULL;
    }
    char *value = bytes + field->value.at;
    value[field->value.len] = '\0'; /* over the white space or CR behind it: the head is not parsed again */
    return value;
}

void http_on_cancel(struct http_request *request, void (*cancel)(struct http_request *request, void *arg), void *arg)
{
    struct http_exchange *x = exchange_of(request);
    x->cancel = cancel;
    x->cancel_arg = arg;
}

const char *http_peer(const struct http_request *request, char out[HTTP_PEER_MAX])
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage storage;
    } peer = {.storage = {0}};
    socklen_t len = sizeof peer;
    char address[INET6_ADDRSTRLEN] = "";
    out[0] = '\0';
    if (getpeername(exchange_of(request)->conn->fd, &peer.any, &len) < 0) {
        return out;
    }
    if (peer.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &peer.v4.sin_addr, address, sizeof address);
        snprintf(out, HTTP_PEER_MAX, "%s:%u", address, ntohs(peer.v4.sin_port));
    } else if (peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &peer.v6.sin6_addr, address, sizeof address);
        snprintf(out, HTTP_PEER_MAX, "[%s]:%u", address, ntohs(peer.v6.sin6_port));
    } else if (peer.any.sa_family == AF_UNIX) {
        snprintf(out, HTTP_PEER_MAX, "unix");
    }
    return out;
}

/* Of a request that another thread answers. */
struct http_kept {
    int status;
    bool gzip; /* the server's when the request was kept */
    char content_type[CONTENT_TYPE_MAX + 1];
    struct evbuffer *body;
};

struct evbuffer *http_body(struct http_request *request)
{
    return request->kept ? request->kept->body : exchange_of(request)->conn->server->body;
}

int http_keep(struct http_request *request)
{
    struct http_kept *kept = mem_array(1, sizeof *kept);
    if (kept == NULL || (kept->body = evbuffer_new()) == NULL) {
        mem_free(kept);
        return -1;
    }
    kept->gzip = exchange_of(request)->conn->server->gzip;
    request->kept = kept;
    return 0;
}

void http_kept_free(struct http_kept *kept)
{
    if (kept != NULL) {
        evbuffer_free(kept->body);
        mem_free(kept);
    }
}

static void keep(struct http_kept *kept, int status, const char *content_type, struct iovec bytes,
                 struct evbuffer *buffer)
{
    kept->status = status;
    snprintf(kept->content_type, sizeof kept->content_type, "%s", content_type != NULL ? content_type : "");
    if (buffer != NULL && buffer != kept->body) {
        evbuffer_add_buffer(kept->body, buffer); /* without memory the status still says what counts */
    } else if (buffer == NULL) {
        evbuffer_add(kept->body, bytes.iov_base, bytes.iov_len);
    }
}

static char *put(char *at, const char *text, size_t n)
{
    memcpy(at, text, n);
    return at + n;
}

#define PUT(at, literal) put(at, literal, sizeof literal - 1)

int http_add_header(struct http_request *request, const char *name, const char *value)
{
    struct http_exchange *x = exchange_of(request);
    size_t name_len = strlen(name);
    size_t value_len = strlen(value);
    if (!http_is_token(name, name_len) || !http_is_field_value(value, value_len) || name_len > HTTP_EXTRA_MAX ||
        value_len > HTTP_EXTRA_MAX || x->extra_len + name_len + value_len + 4 > HTTP_EXTRA_MAX) {
        return -1;
    }
    char *at = x->extra + x->extra_len;
    at = put(at, name, name_len);
    at = PUT(at, ": ");
    at = put(at, value, value_len);
    at = PUT(at, "\r\n");
    x->extra_len = (size_t)(at - x->extra);
    return 0;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].status == status) {
            return known[i].text;
        }
    }
    return "Unknown";
}

static char *put_two(char *at, int value)
{
    *at++ = (char)('0' + value / 10 % 10);
    *at++ = (char)('0' + value % 10);
    return at;
}

static char *put_size(char *at, size_t value)
{
    char digits[24];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return put(at, digits + n, sizeof digits - n);
}

/* The header line, made anew once a second. By hand, because strftime's names follow the locale. */
static const char *date_line(struct http_server *server)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if ((now.tv_sec == server->date_second && server->date[0] != '\0') || gmtime_r(&now.tv_sec, &tm) == NULL) {
        return server->date;
    }
    int year = tm.tm_year + 1900;
    char *at = PUT(server->date, "Date: ");
    at = put(at, days + (ptrdiff_t)tm.tm_wday * 3, 3);
    at = PUT(at, ", ");
    at = put_two(at, tm.tm_mday);
    at = PUT(at, " ");
    at = put(at, months + (ptrdiff_t)tm.tm_mon * 3, 3);
    at = PUT(at, " ");
    at = put_two(at, year / 100);
    at = put_two(at, year);
    at = PUT(at, " ");
    at = put_two(at, tm.tm_hour);
    at = PUT(at, ":");
    at = put_two(at, tm.tm_min);
    at = PUT(at, ":");
    at = put_two(at, tm.tm_sec);
    at = PUT(at, " GMT\r\n");
    *at = '\0';
    server->date_second = now.tv_sec;
    return server->date;
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Writes the response head; HTTP_RESPONSE_HEAD_MAX holds the longest. Returns its length. */
static size_t write_head(char *out, struct http_exchange *x, int status, const char *content_type, size_t body_len,
                         bool close)
{
    const char *text = http_status_text(status);
    size_t type_len = content_type != NULL ? strlen(content_type) : 0;
    char *at = PUT(out, "HTTP/1.1 ");
    at = put_two(at, status / 10);
    *at++ = (char)('0' + status % 10);
    *at++ = ' ';
    at = put(at, text, strlen(text));
    at = PUT(at, "\r\n");
    at = put(at, date_line(x->conn->server), HTTP_DATE_LEN);
    if (type_len > 0 && type_len <= CONTENT_TYPE_MAX) {
        at = PUT(at, "Content-Type: ");
        at = put(at, content_type, type_len);
        at = PUT(at, "\r\n");
    }
    if (status_has_body(status)) {
        at = PUT(at, "Content-Length: ");
        at = put_size(at, body_len);
        at = PUT(at, "\r\n");
    }
    at = PUT(at, "traceparent: ");
    at = put(at, x->public.trace.parent, TRACE_PARENT_LEN);
    at = PUT(at, "\r\n");
    at = put(at, x->extra, x->extra_len);
    if (close) {
        at = PUT(at, "Connection: close\r\n");
    } else if (x->head.minor == 0) {
        at = PUT(at, "Connection: keep-alive\r\n");
    }
    at = PUT(at, "\r\n");
    return (size_t)(at - out);
}

/* Are this request's answers to be packed? */
static bool has_gzip(const struct http_request *request)
{
    return request->kept != NULL ? request->kept->gzip : exchange_of(request)->conn->server->gzip;
}

/* Is this one? False when the client does not want it, or it is not worth it. */
static bool is_to_pack(struct http_request *request, int status, size_t n)
{
    return has_gzip(request) && status == 200 && n >= HTTP_GZIP_LEAST &&
           http_add_header(request, "Vary", "Accept-Encoding") == 0 &&
           gzip_is_accepted(http_header(request, "Accept-Encoding"));
}

/* Packs the body to `to`, with the header that says so. Returns false when memory is short, and the body is as it was. */
static bool pack(struct http_request *request, struct gzip_packer *packer, struct evbuffer *body, struct evbuffer *to)
{
    if (gzip_pack(packer, body, to) < 0 || http_add_header(request, "Content-Encoding", "gzip") < 0) {
        evbuffer_drain(to, evbuffer_get_length(to));
        return false;
    }
    evbuffer_drain(body, evbuffer_get_length(body));
    return true;
}

/* Makes what packing needs, once. */
static bool have_packer(struct http_server *server)
{
    if (server->packed == NULL) {
        server->packed = evbuffer_new();
    }
    if (server->packer == NULL) {
        server->packer = gzip_packer_new();
    }
    return server->packed != NULL && server->packer != NULL;
}

/* One answer; its body is either `bytes` or `buffer`. */
static void respond(struct http_request *request, int status, const char *content_type, struct iovec bytes,
                    struct evbuffer *buffer)
{
    if (request->kept != NULL) {
        keep(request->kept, status, content_type, bytes, buffer);
        return;
    }
    struct http_exchange *x = exchange_of(request);
    struct http_conn *conn = x->conn;
    struct http_server *server = conn->server;
    char head[HTTP_RESPONSE_HEAD_MAX];
    size_t body_len = buffer != NULL ? evbuffer_get_length(buffer) : bytes.iov_len;
    size_t request_len = x->head.head_len + (size_t)x->head.content_length;
    bool more = x->bad || x->len - x->start > request_len;
    bool ours = x->bad || request->close || server->draining;
    bool close = ours || !x->head.keep_alive || (conn->eof && !more);
    bool urgent = request->urgent;
    bool silent = request->method == HTTP_HEAD || !status_has_body(status);

    if (server->observer != NULL) {
        server->observer(request, status, body_len, server->observer_arg);
    }
    if (conn->fd >= 0) {
        struct iovec vec[2] = {{head, write_head(head, x, status, content_type, body_len, close)}, bytes};
        http_conn_send(conn, vec, silent || bytes.iov_len == 0 ? 1 : 2, silent ? NULL : buffer);
    }
    if (buffer != NULL && evbuffer_get_length(buffer) > 0) {
        evbuffer_drain(buffer, evbuffer_get_length(buffer));
    }
    if (!x->bad) { /* what lies behind this request in the buffer is the next */
        x->start += request_len;
        http_exchange_reset(x);
    }
    http_conn_answered(conn, urgent, close, ours || more);
}

/* Packs what is kept where it is made, which is not the server's thread, with a packer for this one answer: such answers
 * are long. */
static void respond_kept_packed(struct http_request *request, int status, const char *content_type,
                                struct evbuffer *body)
{
    struct gzip_packer *packer = gzip_packer_new();
    struct evbuffer *packed = evbuffer_new();
    bool good = packer != NULL && packed != NULL && pack(request, packer, body, packed);
    keep(request->kept, status, content_type, (struct iovec){NULL, 0}, good ? packed : body);
    gzip_packer_free(packer);
    if (packed != NULL) {
        evbuffer_free(packed);
    }
}

void http_respond(struct http_request *request, int status, const char *content_type, struct evbuffer *body)
{
    struct http_server *server = exchange_of(request)->conn->server;
    if (body != NULL && is_to_pack(request, status, evbuffer_get_length(body))) {
        if (request->kept != NULL) {
            respond_kept_packed(request, status, content_type, body);
            return;
        }
        body = have_packer(server) && pack(request, server->packer, body, server->packed) ? server->packed : body;
    }
    respond(request, status, content_type, (struct iovec){NULL, 0}, body);
}

void http_respond_bytes(struct http_request *request, int status, const char *content_type, const void *bytes, size_t n)
{
    struct evbuffer *body = http_body(request);
    if (has_gzip(request) && status == 200 && n >= HTTP_GZIP_LEAST && evbuffer_add(body, bytes, n) == 0) {
        http_respond(request, status, content_type, body);
        return;
    }
    respond(request, status, content_type, (struct iovec){(void *)(uintptr_t)bytes, n}, NULL);
}

void http_send_kept(struct http_request *request)
{
    struct http_kept *kept = request->kept;
    request->kept = NULL;
    respond(request, kept->status, kept->content_type, (struct iovec){NULL, 0}, kept->body);
    http_kept_free(kept);
}

#define CANNED_BODY "{\"type\":\"urn:recalld:problem:out-of-memory\",\"title\":\"Memory is short\",\"status\":503}\n"

struct iovec http_canned_503(void)
{
    static char answer[] = "HTTP/1.1 503 Service Unavailable\r\n"
                           "Content-Type: application/problem+json\r\n"
                           "Content-Length: 84\r\n"
                           "Retry-After: 1\r\n"
                           "Connection: close\r\n"
                           "\r\n" CANNED_BODY;
    _Static_assert(sizeof CANNED_BODY - 1 == 84, "the length above");
    return (struct iovec){answer, sizeof answer - 1};
}
