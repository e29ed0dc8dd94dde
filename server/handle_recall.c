/*
 * POST /recall: a user's features in, the nearest items out; or a batch of such requests.
 *
 * A batch is checked as a whole before anything is computed, so that it either answers all of its requests or says which
 * one is wrong; its user vectors come from one pass through the tower, and its searches share what they can.
 */
#include <jansson.h>
#include <stdio.h>

#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/worker.h"

/* Reads one request and appends its user to the rows. */
static int read_one(struct workbench *bench, const json_t *object, const char *at, struct query *q, struct fault *f)
{
    char pointer[FAULT_POINTER_MAX];
    if (request_read_query(&bench->rules, object, at, "user", q, f) != 0) {
        return -1;
    }
    snprintf(pointer, sizeof pointer, "%s/user", at);
    return request_add_features(&bench->rules, &bench->rows[SIDE_USER], &bench->values, q->subject, pointer, f);
}

static int read_batch(struct workbench *bench, const json_t *body, const json_t *requests, size_t *count,
                      struct fault *f)
{
    size_t n = json_array_size(requests);
    uint32_t limit = bench->rules.config->limits.batch;
    if (!json_is_array(requests) || n == 0) {
        return fault_set(f, PROBLEM_INVALID_FIELD, "/requests", "must be a list of one request or more");
    }
    if (n > limit) {
        return fault_set(f, PROBLEM_LIMIT_EXCEEDED, "/requests", "must have at most %u requests", limit);
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        if (value != requests) {
            fault_set(f, PROBLEM_UNKNOWN_FIELD, "", "a batch has no member besides requests; put it into each request");
            pointer_append(f->pointer, name);
            return -1;
        }
    }
    for (size_t i = 0; i < n; i++) {
        char at[32];
        snprintf(at, sizeof at, "/requests/%zu", i);
        if (read_one(bench, json_array_get(requests, i), at, &bench->queries[i], f) != 0) {
            return -1;
        }
    }
    *count = n;
    return 0;
}

static int write_batch(struct worker *w, size_t count, struct json_out *out, struct fault *f)
{
    struct workbench *bench = w->bench;
    const struct bundle *b = bench->snapshot->bundle;
    struct answer_group group;
    json_out_text(out, "\"results\":[");
    for (size_t done = 0; done < count; done += group.n) {
        const struct query *queries = bench->queries + done;
        const float *vectors = bench->vectors + done * b->dim;
        if (answer_search(bench, &w->metrics, queries, count - done, vectors, -1, &group, f) != 0) {
            return -1;
        }
        for (size_t i = 0; i < group.n; i++) {
            json_out_text(out, done + i == 0 ? "{" : ",{");
            answer_write(b, &queries[i], &group, i, out);
            json_out_bytes(out, "}", 1);
        }
    }
    json_out_bytes(out, "]", 1);
    return 0;
}

static int write_one(struct worker *w, struct json_out *out, struct fault *f)
{
    struct workbench *bench = w->bench;
    struct answer_group group;
    if (answer_search(bench, &w->metrics, bench->queries, 1, bench->vectors, -1, &group, f) != 0) {
        return -1;
    }
    answer_write(bench->snapshot->bundle, bench->queries, &group, 0, out);
    return 0;
}

void handle_recall(struct worker *w, struct http_request *request)
{
    struct workbench *bench = w->bench;
    const struct bundle *b = bench->snapshot->bundle;
    struct fault f;
    size_t count = 1;
    json_t *body = request_parse(request->body, request->body_len, &f);
    const json_t *requests = json_object_get(body, "requests");
    feature_rows_clear(&bench->rows[SIDE_USER]);
    if (!body || (requests ? read_batch(bench, body, requests, &count, &f)
                           : read_one(bench, body, "", &bench->queries[0], &f)) != 0) {
        json_decref(body);
        fault_send(&f, request);
        return;
    }
    tower_embed(&b->towers[SIDE_USER], b->schema.similarity, &bench->rows[SIDE_USER], &bench->pass[SIDE_USER],
                bench->vectors);
    metric_add(&w->metrics.users, count);

    struct json_out out;
    json_out_begin(&out, http_body(request), bench->snapshot->head_len + answer_guess(&bench->queries[0]));
    json_out_bytes(&out, bench->snapshot->head, bench->snapshot->head_len);
    int status = requests ? write_batch(w, count, &out, &f) : write_one(w, &out, &f);
    json_out_bytes(&out, "}", 1);
    json_decref(body);
    answer_send(request, &out, status, &f);
}
