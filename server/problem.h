/*
 * server/problem.h: every error we answer, as an RFC 9457 application/problem+json document.
 *
 * {"type": "urn:recalld:problem:<slug>", "title": …, "status": …, "detail": …} with "pointer" (a JSON pointer to the
 * offending field of the request, RFC 6901) and "request_id" when known. Status and title belong to the type, so a
 * client can switch on the slug alone; docs/http.md is written from this table. Add a type: add one row.
 */
#ifndef SERVER_PROBLEM_H
#define SERVER_PROBLEM_H

#include <stddef.h>

struct buf;
struct http_request;

/* X(enumerator, status, slug, title) */
#define PROBLEM_TYPES(X)                                                                                   \
    /* the HTTP layer's own */                                                                             \
    X(PROBLEM_MALFORMED_REQUEST, 400, "malformed-request", "The request is not valid HTTP/1.1")            \
    X(PROBLEM_REQUEST_TIMEOUT, 408, "request-timeout", "The request did not arrive in time")               \
    X(PROBLEM_BODY_TOO_LARGE, 413, "body-too-large", "The request body is too large")                      \
    X(PROBLEM_LINE_TOO_LONG, 414, "request-line-too-long", "The request line is too long")                 \
    X(PROBLEM_EXPECTATION_FAILED, 417, "expectation-failed", "The expectation is not supported")           \
    X(PROBLEM_HEAD_TOO_LARGE, 431, "head-too-large", "The request's headers are too large")                \
    X(PROBLEM_TRANSFER_CODING, 501, "transfer-coding-not-supported", "Transfer codings are not supported") \
    X(PROBLEM_TOO_MANY_CONNECTIONS, 503, "too-many-connections", "Too many connections")                   \
    X(PROBLEM_OUT_OF_MEMORY, 503, "out-of-memory", "Memory is short")                                      \
    X(PROBLEM_VERSION, 505, "http-version-not-supported", "The HTTP version is not supported")             \
    /* routing and access */                                                                               \
    X(PROBLEM_UNAUTHORIZED, 401, "unauthorized", "A valid token is required")                              \
    X(PROBLEM_FORBIDDEN, 403, "forbidden", "The token does not allow this")                                \
    X(PROBLEM_NOT_FOUND, 404, "not-found", "There is no such resource")                                    \
    X(PROBLEM_METHOD_NOT_ALLOWED, 405, "method-not-allowed", "The resource does not support this method")  \
    X(PROBLEM_MEDIA_TYPE, 415, "unsupported-media-type", "The body's media type is not supported")         \
    /* bodies */                                                                                           \
    X(PROBLEM_INVALID_CODING, 400, "invalid-content-coding", "The body's content coding is damaged")       \
    X(PROBLEM_INVALID_JSON, 400, "invalid-json", "The body is not valid JSON")                             \
    X(PROBLEM_INVALID_FIELD, 400, "invalid-field", "A field has a value that is not valid")                \
    X(PROBLEM_MISSING_FIELD, 400, "missing-field", "A required field is missing")                          \
    X(PROBLEM_UNKNOWN_FIELD, 400, "unknown-field", "A field is not known")                                 \
    X(PROBLEM_LIMIT_EXCEEDED, 400, "limit-exceeded", "A field is over its limit")                          \
    X(PROBLEM_INVALID_FILTER, 400, "invalid-filter", "The filter is not valid")                            \
    X(PROBLEM_UNKNOWN_MODEL, 404, "unknown-model", "There is no such model")                               \
    X(PROBLEM_UNKNOWN_ITEM, 404, "unknown-item", "The model has no such item")                             \
    X(PROBLEM_CONFLICT, 409, "conflict", "The request conflicts with the current state")                   \
    X(PROBLEM_UNPROCESSABLE, 422, "unprocessable", "The request is well-formed but cannot be carried out") \
    /* the daemon's state */                                                                               \
    X(PROBLEM_INTERNAL, 500, "internal-error", "Something went wrong on our side")                         \
    X(PROBLEM_NOT_IMPLEMENTED, 501, "not-implemented", "The model or build does not support this")         \
    X(PROBLEM_NOT_READY, 503, "not-ready", "No verified model is being served")                            \
    X(PROBLEM_DRAINING, 503, "draining", "The daemon is shutting down")                                    \
    X(PROBLEM_NO_ROOM, 507, "no-room", "There is no room for more items")                                  \
    X(PROBLEM_OVERLOADED, 503, "overloaded", "Too much work is waiting")                                   \
    X(PROBLEM_ABANDONED, 503, "abandoned", "The client closed its side before the answer")                 \
    X(PROBLEM_DEADLINE, 503, "deadline-exceeded", "The request's time ran out")

enum problem_type {
#define PROBLEM_ENUM(name, status, slug, title) name,
    PROBLEM_TYPES(PROBLEM_ENUM)
#undef PROBLEM_ENUM
        PROBLEM_COUNT
};

struct problem_info {
    int status;
    const char *slug;
    const char *title;
};

/* The table's row; static. */
const struct problem_info *problem_info(enum problem_type type);

/* Answers the request with a problem document; `pointer` NULL when no field is to blame. A detail is cut at about
 * 1000 bytes. Invalidates the request, as http_respond does. */
void problem_send(struct http_request *request, enum problem_type type, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Answers 405 with `Allow: <allow>`, for example "GET, HEAD". */
void problem_method(struct http_request *request, const char *allow);

/* Adds the document to `out` (which may fail: see buf_failed). `pointer` and `request_id` may be NULL. */
void problem_write(struct buf *out, enum problem_type type, const char *pointer, const char *request_id,
                   const char *detail);

#endif
