/*
 * server/http_parse.h: one HTTP/1.x request head out of bytes (RFC 9112), strictly and incrementally.
 *
 * Pure: no I/O, no allocation, no clock, no libevent. The caller keeps the bytes; the head refers to them by offset,
 * so the buffer may move between calls. The answer does not depend on how the bytes were cut into calls.
 * Not thread-safe: one struct http_head belongs to one thread at a time.
 */
#ifndef SERVER_HTTP_PARSE_H
#define SERVER_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_HEADERS_CAP = 128 }; /* what a head can hold; http_head_limits.max_headers is at most this */

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_OTHER };

struct http_head_limits {
    size_t max_line;      /* bytes of the request line without its CRLF; more: 414 */
    size_t max_head;      /* bytes from the first to the blank line's last; more: 431; at least max_line + 4 */
    unsigned max_headers; /* header fields; more: 431 */
    uint64_t max_body;    /* bytes of Content-Length; more: 413 */
};

/* A part of the head: bytes [at, at + len) counted from the first byte given to http_head_parse. */
struct http_slice {
    uint32_t at;
    uint32_t len;
};

struct http_field {
    struct http_slice name;
    struct http_slice value; /* without the white space around it */
};

enum http_parse_result {
    HTTP_PARSE_MORE,  /* no complete head yet, nothing wrong so far */
    HTTP_PARSE_DONE,  /* the fields below "the request" are valid */
    HTTP_PARSE_ERROR, /* `status` and `reason` say what to answer; the connection cannot be used any further */
};

struct http_head {
    /* The request. */
    enum http_method method;
    struct http_slice method_text;
    struct http_slice path;  /* still percent-encoded, every escape valid and none %00; empty means "/" */
    struct http_slice query; /* without the '?' */
    bool has_query;
    int minor; /* of HTTP/1.x: 0 or 1 */
    unsigned field_count;
    bool keep_alive;         /* by version and Connection; no more than the client's wish */
    bool expect_continue;    /* waits for 100 Continue before it sends its body */
    uint64_t content_length; /* 0 without the header: a body without a length does not exist */
    size_t head_len;         /* bytes up to and including the blank line; the body starts here */

    /* The error. */
    int status;         /* 400, 413, 414, 417, 431, 501 or 505 */
    const char *reason; /* one sentence for the client, static */

    /* The parser's own. */
    size_t line_at;    /* where the line being read begins */
    size_t scanned;    /* bytes known to hold no line end since line_at */
    unsigned lines;    /* complete lines so far, the request line included */
    unsigned seen;     /* which of the fields that frame a message were there */
    bool skipped_crlf; /* one empty line before the request line is forgiven (RFC 9112, 2.2) */

    struct http_field fields[HTTP_HEADERS_CAP]; /* [field_count] in order of arrival */
};

/* Prepares for the first byte of a request. */
void http_head_reset(struct http_head *head);

/* Looks at `bytes[0..n)`, which start at the request's first byte and include everything given before. Call again
 * with more bytes after MORE; after DONE or ERROR only http_head_reset. `limits` must not change in between. */
enum http_parse_result http_head_parse(struct http_head *head, const struct http_head_limits *limits, const char *bytes,
                                       size_t n);

/* The first field of that name (case does not matter), or NULL. `bytes` as given to http_head_parse. */
const struct http_field *http_head_find(const struct http_head *head, const char *bytes, const char *name);

/* Replaces the escapes of a path or query that http_head_parse accepted, in place. Returns the new length. */
size_t http_percent_decode(char *text, size_t n);

/* True for a non-empty run of RFC 9110 token characters; false for anything else. */
bool http_is_token(const char *text, size_t n);

/* True when the bytes may stand in a field value: no control characters but the tab. */
bool http_is_field_value(const char *text, size_t n);

#endif
