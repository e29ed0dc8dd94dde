/* POST /similar: the items nearest to an item, by the item tower's own vectors. */
#include <jansson.h>

#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/worker.h"

static int read_item(const struct snapshot *s, const json_t *id, int64_t *row, struct fault *f)
{
    if (!json_is_string(id) && !json_is_integer(id)) {
        return fault_set(f, PROBLEM_INVALID_FIELD, "/item", "an item id is a string or an integer");
    }
    *row = request_find_item(s, id);
    return *row < 0 ? fault_set(f, PROBLEM_UNKNOWN_ITEM, "/item", "the model has no item of this id") : 0;
}

void handle_similar(struct worker *w, struct http_request *request)
{
    struct workbench *bench = w->bench;
    const struct snapshot *s = bench->snapshot;
    struct query *query = &bench->queries[0];
    struct fault f;
    int64_t row = -1;
    json_t *body = dispatch_open(w, request, &f);
    if (!body || request_read_query(&bench->rules, body, "", "item", query, &f) != 0 ||
        read_item(s, query->subject, &row, &f) != 0) {
        json_decref(body);
        fault_send(&f, request);
        return;
    }
    if (dispatch_defer(w, request, answer_microseconds(bench, query), false)) {
        json_decref(body);
        return;
    }
    workbench_degrade(bench, query, request->degrade);
    struct json_out out;
    answer_begin(s, request, &out, answer_guess(query));
    const float *vector = ann_vector(s->index, (uint32_t)row);
    struct answer_group group;
    int status = answer_search(bench, &w->metrics, query, 1, vector, row, &group, &f);
    if (status == 0) {
        answer_write(s, query, &group, 0, &out);
        answer_note(request, query, &group, 0);
    }
    json_out_bytes(&out, "}", 1);
    json_decref(body);
    answer_send(request, &out, status, &f);
}
