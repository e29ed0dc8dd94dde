/* POST /items adds items, or replaces them; DELETE /items/{id} removes one. server/items.h says what that means. */
#include <jansson.h>
#include <string.h>

#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/service.h"
#include "server/worker.h"

static const json_t *read_list(const struct serve_config *config, const json_t *body, struct fault *f)
{
    const json_t *list = json_object_get(body, "items");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        if (value != list) {
            fault_set(f, PROBLEM_UNKNOWN_FIELD, "", "not a member of this request; it may have items");
            pointer_append(f->pointer, name);
            return NULL;
        }
    }
    if (!list) {
        fault_set(f, PROBLEM_MISSING_FIELD, "/items", "is required");
        return NULL;
    }
    if (!json_is_array(list) || json_array_size(list) == 0) {
        fault_set(f, PROBLEM_INVALID_FIELD, "/items", "must be a list of one item or more");
        return NULL;
    }
    if (json_array_size(list) > config->limits.batch) {
        fault_set(f, PROBLEM_LIMIT_EXCEEDED, "/items", "must have at most %u items", config->limits.batch);
        return NULL;
    }
    return list;
}

/* Begins an answer from the snapshot that was changed, which need not be the worker's; gives its reference back. */
static void begin(struct json_out *out, struct http_request *request, struct snapshot *s)
{
    json_out_begin(out, http_body(request), s->head_len + 64);
    json_out_bytes(out, s->head, s->head_len);
    snapshot_unref(s);
}

void handle_items_add(struct worker *w, struct http_request *request)
{
    struct service *service = w->service;
    struct items_added done;
    struct json_out out;
    struct fault f;
    json_t *body = dispatch_open(w, request, &f);
    const json_t *list = body ? read_list(w->settings->config, body, &f) : NULL;
    int rc = list ? items_add(&service->items, w->settings->config, list, &done, &f) : -1;
    json_decref(body);
    if (rc != 0) {
        fault_send(&f, request);
        return;
    }
    metric_add(&w->metrics.items_added, done.added + done.replaced);
    service_wake_control(service); /* which may compact the index */
    begin(&out, request, done.snapshot);
    json_out_text(&out, "\"added\":");
    json_out_unsigned(&out, done.added);
    json_out_text(&out, ",\"replaced\":");
    json_out_unsigned(&out, done.replaced);
    json_out_bytes(&out, "}", 1);
    answer_send(request, &out, 0, &f);
}

void handle_items_remove(struct worker *w, struct http_request *request)
{
    struct service *service = w->service;
    struct snapshot *s;
    struct json_out out;
    struct fault f;
    const char *id = request->path + strlen("/items/");
    if (items_remove(&service->items, id, &s, &f) != 0) {
        fault_send(&f, request);
        return;
    }
    metric_add(&w->metrics.items_removed, 1);
    service_wake_control(service);
    begin(&out, request, s);
    json_out_text(&out, "\"removed\":1}");
    answer_send(request, &out, 0, &f);
}
