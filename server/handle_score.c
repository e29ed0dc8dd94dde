/*
 * POST /score: a user's features and a list of items in, what the towers say of each item out, in the order of the request.
 *
 * The scores are those of /recall, to the bit. All are of one moment of the items, as a search's are (server/answer.c).
 */
#include <jansson.h>
#include <stdio.h>

#include "core/log.h"
#include "core/vecmath.h"
#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/worker.h"

enum { SCORE_TRIES = 3 };

static int read_score(struct workbench *bench, const json_t *body, struct query *q, struct fault *f)
{
    struct feature_rows *rows = &bench->rows[SIDE_USER];
    feature_rows_clear(rows);
    if (request_read_score(&bench->rules, body, q, f) != 0) {
        return -1;
    }
    return request_add_user(&bench->rules, rows, &bench->values, q, "", f);
}

/* Into the bench's hits; an item that the model does not have gets no row. Returns how many it has. */
static size_t find_items(struct workbench *bench, const json_t *items)
{
    size_t generation;
    size_t found;
    int tries = 0;
    do { /* again when an item was replaced meanwhile */
        generation = ann_generation(bench->snapshot->index);
        found = 0;
        for (size_t i = 0; i < json_array_size(items); i++) {
            int64_t row = request_find_item(bench->snapshot, json_array_get(items, i));
            bench->hits[i].row = row < 0 ? ANN_NO_ROW : (uint32_t)row;
            found += row >= 0;
        }
    } while (!ann_is_settled(bench->snapshot->index, generation) && ++tries < SCORE_TRIES);
    return found;
}

/* Scores the request's items for the one user that was read. */
static int score_items(struct worker *w, const struct query *q, struct fault *f)
{
    struct workbench *bench = w->bench;
    const struct bundle *b = bench->snapshot->bundle;
    tower_embed(&b->towers[SIDE_USER], b->schema.similarity, &bench->rows[SIDE_USER], &bench->pass[SIDE_USER],
                bench->vectors);
    if (!vec_is_finite(bench->vectors, b->dim)) {
        log_error("scores of model %s: the user's vector has numbers that are not finite", bench->snapshot->version);
        return fault_set(f, PROBLEM_INTERNAL, "", "the user cannot be scored; the log says why");
    }
    metric_add(&w->metrics.users, 1);
    metric_add(&w->metrics.items, find_items(bench, q->items));
    ann_score(bench->snapshot->index, bench->vectors, bench->hits, json_array_size(q->items));
    return 0;
}

static void write_items(const struct workbench *bench, const struct query *q, struct json_out *out)
{
    json_out_text(out, "\"items\":[");
    for (size_t i = 0; i < json_array_size(q->items); i++) {
        char room[INTEGER_ID_MAX];
        const struct scored *hit = &bench->hits[i];
        struct span id = request_id(json_array_get(q->items, i), room);
        json_out_text(out, i == 0 ? "{\"id\":" : ",{\"id\":");
        json_out_string(out, id.text, id.length);
        json_out_bytes(out, ",\"score\":", 9);
        json_out_float(out, hit->score); /* of no row: null */
        if (q->fields && hit->row != ANN_NO_ROW) {
            answer_write_fields(bench->snapshot, q->fields, hit->row, out);
        }
        json_out_bytes(out, "}", 1);
    }
    json_out_bytes(out, "]", 1);
    answer_write_source(bench->snapshot, q, out);
    json_out_bytes(out, "}", 1);
}

void handle_score(struct worker *w, struct http_request *request)
{
    struct workbench *bench = w->bench;
    struct query *q = &bench->queries[0];
    struct fault f;
    json_t *body = dispatch_open(w, request, &f);
    if (!body || read_score(bench, body, q, &f) != 0 || score_items(w, q, &f) != 0) {
        json_decref(body);
        fault_send(&f, request);
        return;
    }
    struct json_out out;
    answer_begin(bench->snapshot, request, &out, 64 + json_array_size(q->items) * (q->fields ? 96 : 48));
    request->users = 1;
    write_items(bench, q, &out);
    json_decref(body);
    answer_send(request, &out, 0, &f);
}
