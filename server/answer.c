#include "server/answer.h"

#include <event2/buffer.h>
#include <string.h>

#include "core/log.h"
#include "server/http.h"

/* ,"fields":{"category":"a","price":1.5}: attribute values lie in the bundle as JSON text. */
static void write_fields(const struct bundle *b, uint64_t fields, uint32_t row, struct json_out *out)
{
    const char *before = ",\"fields\":{";
    for (; fields; fields &= fields - 1) {
        const struct bundle_attribute *a = &b->attributes[__builtin_ctzll(fields)];
        size_t length;
        const char *value = strtab_get(&a->values, row, &length);
        json_out_text(out, before);
        json_out_string(out, a->name, strlen(a->name));
        json_out_bytes(out, ":", 1);
        json_out_bytes(out, value, length);
        before = ",";
    }
    json_out_bytes(out, "}", 1);
}

static void write_item(const struct bundle *b, const struct scored *hit, uint64_t fields, struct json_out *out)
{
    size_t length;
    const char *id = strtab_get(&b->item_ids, hit->row, &length);
    json_out_bytes(out, "{\"id\":", 6);
    json_out_string(out, id, length);
    json_out_bytes(out, ",\"score\":", 9);
    json_out_float(out, hit->score);
    if (fields) {
        write_fields(b, fields, hit->row, out);
    }
    json_out_bytes(out, "}", 1);
}

size_t answer_guess(const struct query *query)
{
    return 128 + query->k * (query->fields ? 96 : 48);
}

static void count(struct metrics *metrics, const struct ann_answer *answer)
{
    metric_add(answer->strategy == ANN_STRATEGY_EXACT ? &metrics->searches_exact : &metrics->searches_ann, 1);
    metric_add(&metrics->items, answer->n);
    metric_add(&metrics->incomplete, !answer->complete);
}

int answer_write(struct workbench *bench, struct metrics *metrics, const struct query *query, const float *vector,
                 int64_t self, struct json_out *out, struct fault *f)
{
    const struct bundle *b = bench->snapshot->bundle;
    struct ann_query search = {
        .vector = vector,
        .k = query->k,
        .effort = query->effort,
        .exact = query->exact,
        .min_score = query->min_score,
        .exclude = bench->exclude,
        .n_exclude = request_exclude_rows(b, query->exclude, self, bench->exclude),
    };
    struct ann_answer answer;
    struct err e = ERR_INIT;
    if (query->filter) {
        search.n_allow = filter_apply(b, query->filter, &bench->filter);
        search.allow = bench->filter.rows;
    }
    if (ann_search(bench->snapshot->index, bench->workspace, &search, bench->hits, &answer, &e) != 0) {
        log_error("search in model %s: %s", bench->snapshot->version, e.message);
        return fault_set(f, PROBLEM_INTERNAL, "", "the search failed; the log says why");
    }
    count(metrics, &answer);
    json_out_text(out, "\"items\":[");
    for (size_t i = 0; i < answer.n; i++) {
        if (i > 0) {
            json_out_bytes(out, ",", 1);
        }
        write_item(b, &bench->hits[i], query->fields, out);
    }
    json_out_text(out,
                  answer.complete ? "],\"complete\":true,\"strategy\":\"" : "],\"complete\":false,\"strategy\":\"");
    json_out_text(out, ann_strategy_words[answer.strategy]);
    json_out_bytes(out, "\"", 1);
    return 0;
}

void answer_send(struct http_request *request, struct json_out *out, int status, const struct fault *f)
{
    struct evbuffer *body = out->buffer;
    if (json_out_end(out) == 0 && status == 0) {
        http_respond(request, 200, "application/json", body);
        return;
    }
    evbuffer_drain(body, evbuffer_get_length(body));
    if (status != 0) {
        fault_send(f, request);
    } else {
        problem_send(request, PROBLEM_OUT_OF_MEMORY, NULL, "no memory for the answer");
    }
}
