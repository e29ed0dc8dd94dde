#include "server/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "server/http.h"

enum { DETAIL_MAX = 1024 };

static const struct problem_info problems[PROBLEM_COUNT] = {
#define PROBLEM_ROW(name, status, slug, title) [name] = {status, slug, title},
    PROBLEM_TYPES(PROBLEM_ROW)
#undef PROBLEM_ROW
};

const struct problem_info *problem_info(enum problem_type type)
{
    return &problems[type];
}

static void add_member(struct buf *out, const char *name, const char *value)
{
    if (value != NULL) {
        buf_printf(out, ",\"%s\":", name);
        buf_json_string(out, value, strlen(value));
    }
}

void problem_write(struct buf *out, enum problem_type type, const char *pointer, const char *request_id,
                   const char *detail)
{
    const struct problem_info *info = problem_info(type);
    buf_printf(out, "{\"type\":\"urn:recalld:problem:%s\",\"title\":\"%s\",\"status\":%d", info->slug, info->title,
               info->status);
    add_member(out, "detail", detail);
    add_member(out, "pointer", pointer);
    add_member(out, "request_id", request_id);
    buf_puts(out, "}\n");
}

void problem_send(struct http_request *request, enum problem_type type, const char *pointer, const char *format, ...)
{
    char detail[DETAIL_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);

    static const char media_type[] = "application/problem+json";
    const struct problem_info *info = problem_info(type);
    request->problem = info->slug;
    struct buf document = BUF_INIT;
    problem_write(&document, type, pointer, request->trace.id[0] ? request->trace.id : NULL, detail);
    if (buf_failed(&document)) { /* without memory the status still says what counts */
        char bare[256];
        int n = snprintf(bare, sizeof bare, "{\"type\":\"urn:recalld:problem:%s\",\"title\":\"%s\",\"status\":%d}\n",
                         info->slug, info->title, info->status);
        http_respond_bytes(request, info->status, media_type, bare, (size_t)n);
    } else {
        http_respond_bytes(request, info->status, media_type, document.data, document.len);
    }
    buf_release(&document);
}

void problem_method(struct http_request *request, const char *allow)
{
    char method[32];
    snprintf(method, sizeof method, "%s", request->method_text);
    http_add_header(request, "Allow", allow);
    problem_send(request, PROBLEM_METHOD_NOT_ALLOWED, NULL, "%s is not supported here; use %s.", method, allow);
}
