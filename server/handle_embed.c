/* POST /embed: the vector that the user or the item tower gives for a set of features. */
#include <jansson.h>
#include <string.h>

#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/worker.h"

/* Which tower is meant, with its features; exactly one of `user` and `item` must be there, and nothing else. */
static const json_t *read_side(const json_t *body, enum side *side, struct fault *f)
{
    const char *name;
    json_t *value;
    const json_t *features = NULL;
    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        if (strcmp(name, "user") != 0 && strcmp(name, "item") != 0) {
            fault_set(f, PROBLEM_UNKNOWN_FIELD, "", "not a member of this request; it may have user or item");
            pointer_append(f->pointer, name);
            return NULL;
        }
        *side = name[0] == 'u' ? SIDE_USER : SIDE_ITEM;
        features = value;
    }
    if (json_object_size(body) != 1) {
        fault_set(f, features ? PROBLEM_INVALID_FIELD : PROBLEM_MISSING_FIELD, "",
                  "exactly one of user and item is required");
        return NULL;
    }
    return features;
}

static void write_vector(const float *vector, size_t dim, struct json_out *out)
{
    json_out_text(out, "\"vector\":[");
    for (size_t i = 0; i < dim; i++) {
        if (i > 0) {
            json_out_bytes(out, ",", 1);
        }
        json_out_float(out, vector[i]);
    }
    json_out_text(out, "]}");
}

void handle_embed(struct worker *w, struct http_request *request)
{
    struct workbench *bench = w->bench;
    const struct bundle *b = bench->snapshot->bundle;
    enum side side = SIDE_USER;
    struct fault f;
    json_t *body = dispatch_open(w, request, &f);
    const json_t *features = body ? read_side(body, &side, &f) : NULL;
    struct feature_rows *rows = &bench->rows[side];
    feature_rows_clear(rows);
    if (!features || request_add_features(&bench->rules, rows, &bench->values, features,
                                          side == SIDE_USER ? "/user" : "/item", &f) != 0) {
        json_decref(body);
        fault_send(&f, request);
        return;
    }
    tower_embed(&b->towers[side], b->schema.similarity, rows, &bench->pass[side], bench->vectors);
    struct json_out out;
    answer_begin(bench->snapshot, request, &out, 32 + (size_t)b->dim * 16);
    write_vector(bench->vectors, b->dim, &out);
    json_decref(body);
    answer_send(request, &out, 0, &f);
}
