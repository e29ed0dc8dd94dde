/*
 * A group is as many queries in a row as share a scan and as the bench's buffers hold: hits, excluded rows, and the sets of
 * rows of a few filters. The buffers are as large as the largest request needs alone, or a group of ordinary ones; a batch is
 * answered group by group. Equal filters (the same for all users of a batch, most often) have one set. Rejected: room for the
 * largest batch there may be, with as many sets of rows as requests, a bit an item each, for every worker.
 *
 * A query with max_per is a group by itself: it is several searches (server/capped.h), of which each depends on the one before. So
 * is one that popular items answer, which is none.
 */
#include "server/answer.h"

#include <event2/buffer.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "server/capped.h"
#include "server/catalog.h"
#include "server/http.h"
#include "server/popular.h"

/* Answers are of one moment: of an item that is being replaced they have one version, and what is excluded or filtered is
 * out in whatever version. A replacement takes less than a microsecond, so a search that meets one is rare, and after three in a
 * row the bound on a request's time is worth more. */
enum { SEARCH_TRIES = 3 };

/* ,"fields":{"category":"a","price":1.5}: attribute values are kept as JSON text. */
void answer_write_fields(const struct snapshot *s, uint64_t fields, uint32_t row, struct json_out *out)
{
    const char *before = ",\"fields\":{";
    for (; fields; fields &= fields - 1) {
        size_t attribute = (size_t)__builtin_ctzll(fields);
        const char *name = s->bundle->attributes[attribute].name;
        struct span value = catalog_attribute(s->catalog, attribute, row);
        json_out_text(out, before);
        json_out_string(out, name, strlen(name));
        json_out_bytes(out, ":", 1);
        json_out_bytes(out, value.text, value.length);
        before = ",";
    }
    json_out_bytes(out, "}", 1);
}

static void write_item(const struct snapshot *s, const struct scored *hit, uint64_t fields, struct json_out *out)
{
    struct span id = catalog_id(s->catalog, hit->row);
    json_out_bytes(out, "{\"id\":", 6);
    json_out_string(out, id.text, id.length);
    json_out_bytes(out, ",\"score\":", 9);
    json_out_float(out, hit->score);
    if (fields) {
        answer_write_fields(s, fields, hit->row, out);
    }
    json_out_bytes(out, "}", 1);
}

/* As docs/benchmarks.md measured them: an ordinary search and what is around it, an item in the answer, and how much of the vectors a scan
 * reads when they are in memory. */
static const double ORDINARY_US = 25, ITEM_US = 0.5, SCAN_BYTES_PER_US = 11000;

double answer_microseconds(const struct workbench *bench, const struct query *query)
{
    const struct snapshot *s = bench->snapshot;
    size_t usual = ann_effort(s->index);
    double us = ORDINARY_US + (double)query->k * ITEM_US;
    if (usual == 0 || query->exact || query->min_score > -INFINITY || query->max_per) {
        us += (double)ann_rows_live(s->index) * s->bundle->dim * sizeof(float) / SCAN_BYTES_PER_US;
    } else if (query->effort > usual) {
        us += ORDINARY_US * (double)query->effort / (double)usual;
    }
    return us;
}

size_t answer_guess(const struct query *query)
{
    return 128 + query->k * (query->fields ? 96 : 48);
}

static bool is_degraded(const struct query *query, const struct ann_answer *answer)
{
    return query->degraded && answer->strategy != ANN_STRATEGY_EXACT;
}

static void count_answer(struct metrics *metrics, const struct query *query, const struct ann_answer *answer)
{
    metric_add(query->source == SOURCE_POPULAR          ? &metrics->popular
               : answer->strategy == ANN_STRATEGY_EXACT ? &metrics->searches_exact
                                                        : &metrics->searches_ann,
               1);
    metric_add(&metrics->items, answer->n);
    metric_add(&metrics->incomplete, !answer->complete);
    metric_add(&metrics->degraded, is_degraded(query, answer));
}

/* What is in use of the bench's memory. */
struct use {
    size_t hits, exclude, filters;
    const json_t *filter[FILTER_SETS];
    size_t n_allow[FILTER_SETS];
};

/* The number of a filter's set of rows, that of an equal filter before it if there was one; FILTER_SETS: no room. */
static size_t use_filter(struct workbench *bench, struct use *use, const json_t *filter)
{
    for (size_t i = 0; i < use->filters; i++) {
        if (json_equal(use->filter[i], filter)) {
            return i;
        }
    }
    if (use->filters < FILTER_SETS) {
        use->filter[use->filters] = filter;
        use->n_allow[use->filters] = filter_apply(bench->snapshot, filter, &bench->filter, use->filters);
        return use->filters++;
    }
    return FILTER_SETS;
}

/* Adds a query to a group; false: there is no room for it. */
static bool group_add(struct workbench *bench, struct use *use, const struct query *query, const float *vector,
                      int64_t self, struct answer_group *g)
{
    size_t filter = 0;
    if (g->n == ANSWER_GROUP || query->k > bench->n_hits - use->hits ||
        json_array_size(query->exclude) + 1 > bench->n_exclude - use->exclude ||
        (query->filter && (filter = use_filter(bench, use, query->filter)) == FILTER_SETS)) {
        return false;
    }
    uint32_t *exclude = bench->exclude + use->exclude;
    g->hits[g->n] = bench->hits + use->hits;
    g->searches[g->n] = (struct ann_query){
        .vector = vector,
        .k = query->k,
        .effort = query->effort,
        .exact = query->exact,
        .min_score = query->min_score,
        .exclude = exclude,
        .n_exclude = request_exclude_rows(bench->snapshot, query->exclude, self, exclude),
        .allow = query->filter ? filter_set(&bench->filter, filter) : NULL,
        .n_allow = query->filter ? use->n_allow[filter] : 0,
    };
    use->hits += query->k;
    use->exclude += g->searches[g->n].n_exclude;
    g->n++;
    return true;
}

int answer_search_failed(const struct snapshot *s, const struct err *e, struct fault *f)
{
    log_error("search in model %s: %s", s->version, e->message);
    return fault_set(f, PROBLEM_INTERNAL, "", "the search failed; the log says why");
}

static bool is_alone(const struct query *query)
{
    return query->max_per || query->source == SOURCE_POPULAR;
}

/* Searches for the group that begins with the first query. */
static int search_group(struct workbench *bench, const struct query *queries, size_t count, const float *vectors,
                        int64_t self, struct answer_group *g, struct fault *f)
{
    const struct snapshot *s = bench->snapshot;
    struct err e = ERR_INIT;
    size_t dim = s->bundle->dim;
    struct use use = {0};
    bool alone = is_alone(&queries[0]);
    g->n = 0;
    while (g->n < count && (g->n == 0 || (!alone && !is_alone(&queries[g->n]))) &&
           group_add(bench, &use, &queries[g->n], vectors + g->n * dim, self, g)) {}
    if (queries[0].source == SOURCE_POPULAR) {
        return popular_search(bench, &g->searches[0], queries[0].max_per, &g->answers[0], f);
    }
    if (alone) {
        return capped_search(bench, &g->searches[0], queries[0].max_per, &g->answers[0], f);
    }
    int rc = ann_search_batch(s->index, bench->search, g->searches, g->n, g->hits, g->answers, &e);
    return rc == 0 ? 0 : answer_search_failed(s, &e, f);
}

int answer_search(struct workbench *bench, struct metrics *metrics, const struct query *queries, size_t count,
                  const float *vectors, int64_t self, struct answer_group *g, struct fault *f)
{
    const struct snapshot *s = bench->snapshot;
    size_t generation;
    int tries = 0;
    do { /* again when an item was replaced meanwhile */
        generation = ann_generation(s->index);
        if (search_group(bench, queries, count, vectors, self, g, f) != 0) {
            return -1;
        }
    } while (!ann_is_settled(s->index, generation) && ++tries < SEARCH_TRIES);
    for (size_t i = 0; i < g->n; i++) {
        count_answer(metrics, &queries[i], &g->answers[i]);
    }
    return 0;
}

void answer_write(const struct snapshot *s, const struct query *query, const struct answer_group *g, size_t i,
                  struct json_out *out)
{
    const struct ann_answer *answer = &g->answers[i];
    json_out_text(out, "\"items\":[");
    for (size_t j = 0; j < answer->n; j++) {
        if (j > 0) {
            json_out_bytes(out, ",", 1);
        }
        write_item(s, &g->hits[i][j], query->fields, out);
    }
    json_out_text(out,
                  answer->complete ? "],\"complete\":true,\"strategy\":\"" : "],\"complete\":false,\"strategy\":\"");
    json_out_text(out, ann_strategy_words[answer->strategy]);
    if (is_degraded(query, answer)) {
        json_out_text(out, "\",\"degraded\":true,\"reason\":\"overload\",\"effort\":");
        json_out_unsigned(out, query->effort);
    } else {
        json_out_text(out, "\",\"degraded\":false");
    }
    answer_write_source(s, query, out);
}

void answer_write_source(const struct snapshot *s, const struct query *query, struct json_out *out)
{
    if (query->source == SOURCE_NONE) {
        return;
    }
    const char *before = "\"";
    json_out_text(out, ",\"source\":\"");
    json_out_text(out, user_source_words[query->source]);
    json_out_text(out, "\",\"defaulted\":[");
    for (uint64_t left = query->defaulted; left; left &= left - 1) {
        json_out_text(out, before);
        json_out_text(out, s->bundle->schema.towers[SIDE_USER].features[__builtin_ctzll(left)].name);
        json_out_bytes(out, "\"", 1);
        before = ",\"";
    }
    json_out_bytes(out, "]", 1);
}

void answer_begin(const struct snapshot *s, struct http_request *request, struct json_out *out, size_t guess)
{
    json_out_begin(out, http_body(request), s->head_len + guess);
    json_out_bytes(out, s->head, s->head_len);
    snprintf(request->model, sizeof request->model, "%s", s->version);
}

void answer_note(struct http_request *request, const struct query *query, const struct answer_group *g, size_t i)
{
    request->users += query->source != SOURCE_NONE;
    request->k = query->k > request->k ? query->k : request->k;
    request->strategy = ann_strategy_words[g->answers[i].strategy];
    request->degraded |= is_degraded(query, &g->answers[i]);
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
