/* GET /model: what is being served, and how the latest reload went. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/problem.h"
#include "server/reload.h"
#include "server/service.h"
#include "server/version.h"
#include "server/workbench.h"
#include "server/worker.h"

static void put_string(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, ",\"%s\":", name);
    buf_json_string(out, value, strlen(value));
}

static void put_time(struct buf *out, const char *name, time_t when)
{
    char text[32];
    struct tm utc;
    gmtime_r(&when, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    put_string(out, name, text);
}

static void put_features(struct buf *out, const char *side, const struct tower_spec *spec)
{
    buf_printf(out, "\"%s\":[", side);
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const char *name = spec->features[i].name;
        buf_puts(out, i > 0 ? "," : "");
        buf_json_string(out, name, strlen(name));
    }
    buf_puts(out, "]");
}

static void put_profiles(struct buf *out, const struct profiles *p, const struct tower_spec *spec)
{
    if (!p->key) {
        return;
    }
    buf_printf(out, ",\"profiles\":{\"users\":%zu", p->ids.count);
    put_string(out, "key", p->key);
    buf_puts(out, ",\"features\":[");
    for (size_t i = 0; i < p->n_columns; i++) {
        const char *name = spec->features[p->columns[i].feature].name;
        buf_puts(out, i > 0 ? "," : "");
        buf_json_string(out, name, strlen(name));
    }
    buf_puts(out, "]}");
}

static void put_snapshot(struct buf *out, const struct snapshot *s)
{
    const struct bundle *b = s->bundle;
    put_string(out, "fingerprint", b->fingerprint);
    put_string(out, "directory", b->dir);
    buf_printf(out, ",\"items\":%zu,\"dim\":%u", ann_rows_live(s->index), b->dim);
    put_string(out, "similarity", similarity_words[b->schema.similarity]);
    buf_puts(out, ",\"features\":{");
    put_features(out, "user", &b->schema.towers[SIDE_USER]);
    buf_puts(out, ",");
    put_features(out, "item", &b->schema.towers[SIDE_ITEM]);
    buf_puts(out, "},\"attributes\":[");
    for (size_t i = 0; i < b->n_attributes; i++) {
        buf_puts(out, i > 0 ? "," : "");
        buf_json_string(out, b->attributes[i].name, strlen(b->attributes[i].name));
    }
    buf_puts(out, "]");
    put_profiles(out, &b->profiles, &b->schema.towers[SIDE_USER]);
    buf_printf(out, ",\"index\":{\"effort\":%zu,\"bytes\":%zu,\"probe_recall\":%.4f", ann_effort(s->index),
               ann_bytes(s->index), s->probe_recall);
    put_string(out, "engine", ann_engine_name(s->index));
    put_string(out, "factory", b->index_factory);
    buf_printf(out, "},\"load_seconds\":%.3f", s->load_seconds);
    put_time(out, "loaded_at", s->loaded_at);
}

static void put_reloads(struct buf *out, struct reload *reload)
{
    struct reload_status status;
    reload_get_status(reload, &status);
    buf_printf(out, ",\"reload\":{\"ok\":%llu,\"failed\":%llu,\"running\":%s", (unsigned long long)status.ok,
               (unsigned long long)status.failed, status.running ? "true" : "false");
    if (status.last_error[0]) {
        put_string(out, "last_error", status.last_error);
    } else {
        buf_puts(out, ",\"last_error\":null");
    }
    if (status.last_failure_at) {
        put_time(out, "last_failure_at", status.last_failure_at);
    }
    buf_puts(out, "}");
}

static void put_configuration(struct buf *out, const struct settings *settings)
{
    const char *key = settings->needs_restart;
    buf_puts(out, ",\"configuration\":{\"needs_restart\":[");
    while (*key) {
        size_t n = strcspn(key, ",");
        buf_json_string(out, key, n);
        key += n;
        if (*key) { /* ", " */
            key += 2;
            buf_puts(out, ",");
        }
    }
    buf_puts(out, "]");
    put_time(out, "loaded_at", settings->loaded_at);
    buf_puts(out, "}");
}

static void put_changes(struct buf *out, struct items *items)
{
    struct items_status status;
    items_get_status(items, &status);
    buf_printf(out, ",\"changes\":{\"room_used\":%zu,\"room_left\":%zu,\"overhead\":%zu,\"compactions\":%llu}",
               status.added, status.room, status.overhead, (unsigned long long)status.compactions);
}

void handle_model(struct worker *w, struct http_request *request)
{
    const struct service *service = w->service;
    struct buf out = BUF_INIT;
    buf_puts(&out, "{\"model\":");
    if (w->bench) {
        const char *version = w->bench->snapshot->version;
        buf_json_string(&out, version, strlen(version));
        put_snapshot(&out, w->bench->snapshot);
    } else {
        buf_puts(&out, "null");
    }
    put_changes(&out, &w->service->items);
    put_string(&out, "path", w->settings->config->model_path);
    put_configuration(&out, w->settings);
    put_reloads(&out, service->reload);
    put_string(&out, "recalld", RECALLD_VERSION);
    buf_printf(&out, ",\"workers\":%zu", service->n_workers);
    put_time(&out, "started_at", service->started_at);
    buf_puts(&out, "}\n");
    if (buf_failed(&out)) {
        problem_send(request, PROBLEM_OUT_OF_MEMORY, NULL, "no memory for the answer");
    } else {
        http_respond_bytes(request, 200, "application/json", out.data, out.len);
    }
    buf_release(&out);
}
