/* Texts of the client's are cut, so that a line is never longer than ACCESS_LINE_MAX, escaped byte by byte as they may be. */
#include "server/access_line.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "server/access_log.h"
#include "server/http.h"
#include "server/service.h"
#include "server/worker.h"

enum { METHOD_MAX = 32, PATH_MAX_SHOWN = 512, FIRST_ERROR = 400 };

static void put_text(struct buf *out, const char *name, const char *text, size_t most)
{
    size_t n = text ? strnlen(text, most) : 0;
    if (n > 0) {
        buf_printf(out, ",\"%s\":", name);
        buf_json_string(out, text, n);
    }
}

static void put_time(struct buf *out)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    buf_printf(out, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ\"", utc.tm_year + 1900, utc.tm_mon + 1,
               utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000);
}

static void put_line(struct buf *out, const struct http_request *request, int status, size_t body_len, uint64_t took)
{
    char peer[HTTP_PEER_MAX];
    put_time(out);
    put_text(out, "client", http_peer(request, peer), sizeof peer);
    put_text(out, "method", request->method_text, METHOD_MAX);
    put_text(out, "path", request->path, PATH_MAX_SHOWN);
    buf_printf(out, ",\"status\":%d,\"bytes\":%zu,\"duration_us\":%llu,\"wait_us\":%llu", status, body_len,
               (unsigned long long)took / 1000, (unsigned long long)request->waited / 1000);
    put_text(out, "model", request->model, sizeof request->model);
    put_text(out, "strategy", request->strategy, METHOD_MAX);
    if (request->users > 0) {
        buf_printf(out, ",\"users\":%zu", request->users);
    }
    if (request->k > 0) {
        buf_printf(out, ",\"k\":%zu,\"degraded\":%s", request->k, request->degraded ? "true" : "false");
    }
    put_text(out, "trace_id", request->trace.id, TRACE_ID_LEN);
    put_text(out, "error", request->problem, PATH_MAX_SHOWN);
    buf_puts(out, "}\n");
}

void access_line_write(struct worker *w, const struct http_request *request, int status, size_t body_len, uint64_t took)
{
    const struct serve_config *config = w->settings->config;
    bool always = status >= FIRST_ERROR || took >= config->access_log.slow_ms * UINT64_C(1000000);
    if (!always && (double)request->trace.chance >= config->access_log.sample * 4294967296.0) {
        return;
    }
    buf_clear(&w->line);
    put_line(&w->line, request, status, body_len, took);
    if (!buf_failed(&w->line)) {
        access_log_put(w->service->access_log, (size_t)(w - w->service->workers), w->line.data, w->line.len);
    }
}
