/*
 * POST /recall: a user's features in, the nearest items out; or a batch of such requests.
 *
 * A batch is checked as a whole before anything is computed, so that it either answers all of its requests or says which
 * one is wrong; its user vectors come from one pass through the tower, and its searches share what they can.
 *
 * Requests of one user are answered in the same way, all that gathered in the worker's window together, or one by itself
 * without a window; but each is its client's own: what is wrong with one is said to that one alone.
 */
#include <jansson.h>
#include <stdio.h>

#include "server/answer.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/window.h"
#include "server/worker.h"

enum { ORDINARY_K = 2000 }; /* results that are written in a millisecond */

_Static_assert((int)WINDOW_MOST <= (int)ANSWER_GROUP, "more are never searched together");

/* Reads one request and appends its user to the rows. */
static int read_one(struct workbench *bench, const json_t *object, const char *at, unsigned degrade, struct query *q,
                    struct fault *f)
{
    if (request_read_query(&bench->rules, object, at, "user", q, f) != 0) {
        return -1;
    }
    workbench_degrade(bench, q, degrade);
    if (request_add_user(&bench->rules, &bench->rows[SIDE_USER], &bench->values, q, at, f) != 0) {
        return -1;
    }
    uint32_t features = bench->rows[SIDE_USER].spec->n_features;
    if (bench->rules.config->fallback == FALLBACK_POPULAR && (uint32_t)__builtin_popcountll(q->defaulted) == features) {
        q->source = SOURCE_POPULAR;
    }
    return 0;
}

/* The vectors of all users that were read. */
static void embed_users(struct worker *w)
{
    struct workbench *bench = w->bench;
    const struct bundle *b = bench->snapshot->bundle;
    tower_embed(&b->towers[SIDE_USER], b->schema.similarity, &bench->rows[SIDE_USER], &bench->pass[SIDE_USER],
                bench->vectors);
    metric_add(&w->metrics.users, bench->rows[SIDE_USER].n);
}

static void begin_answer(const struct workbench *bench, struct http_request *request, struct json_out *out)
{
    answer_begin(bench->snapshot, request, out, answer_guess(&bench->queries[0]));
}

/* --- a batch ------------------------------------------------------------------------------------------------------- */

static int read_batch(struct workbench *bench, const json_t *body, const json_t *requests, unsigned degrade,
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
        if (read_one(bench, json_array_get(requests, i), at, degrade, &bench->queries[i], f) != 0) {
            return -1;
        }
    }
    return 0;
}

static int write_batch(struct worker *w, struct http_request *request, size_t count, struct json_out *out,
                       struct fault *f)
{
    struct workbench *bench = w->bench;
    size_t dim = bench->snapshot->bundle->dim;
    struct answer_group group;
    json_out_text(out, "\"results\":[");
    for (size_t done = 0; done < count; done += group.n) {
        const struct query *queries = bench->queries + done;
        const float *vectors = bench->vectors + done * dim;
        if ((done > 0 && dispatch_check(w, request, f) != 0) ||
            answer_search(bench, &w->metrics, queries, count - done, vectors, -1, &group, f) != 0) {
            return -1;
        }
        for (size_t i = 0; i < group.n; i++) {
            json_out_text(out, done + i == 0 ? "{" : ",{");
            answer_write(bench->snapshot, &queries[i], &group, i, out);
            answer_note(request, &queries[i], &group, i);
            json_out_bytes(out, "}", 1);
        }
    }
    json_out_bytes(out, "]}", 2);
    return 0;
}

static void answer_batch(struct worker *w, struct http_request *request, const json_t *body, const json_t *requests)
{
    struct fault f;
    struct json_out out;
    size_t n = json_array_size(requests);
    double microseconds = 0;
    feature_rows_clear(&w->bench->rows[SIDE_USER]);
    if (read_batch(w->bench, body, requests, request->degrade, &f) != 0) {
        fault_send(&f, request);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        microseconds += answer_microseconds(w->bench, &w->bench->queries[i]);
    }
    if (dispatch_defer(w, request, microseconds, false)) {
        return;
    }
    embed_users(w);
    begin_answer(w->bench, request, &out);
    int status = write_batch(w, request, n, &out, &f);
    answer_send(request, &out, status, &f);
}

/* --- requests of one user ------------------------------------------------------------------------------------------ */

/* Reads all; those that are wrong are answered, the others move together. Returns how many these are. */
static size_t read_singles(struct worker *w, struct waiting *waiting, size_t n)
{
    size_t good = 0;
    feature_rows_clear(&w->bench->rows[SIDE_USER]);
    for (size_t i = 0; i < n; i++) {
        struct fault f;
        struct http_request *request = waiting[i].request;
        struct query *query = &w->bench->queries[good];
        if ((!w->window || dispatch_check_time(w, request, &f) == 0) &&
            read_one(w->bench, waiting[i].body, "", request->degrade, query, &f) == 0) {
            waiting[good++] = waiting[i];
            continue;
        }
        fault_send(&f, request);
        json_decref(waiting[i].body);
    }
    return good;
}

/* Answers by number i of what was found, or with the fault. */
static void answer_single(struct worker *w, const struct waiting *waiting, const struct query *query,
                          const struct answer_group *group, size_t i, int status, const struct fault *f)
{
    struct json_out out;
    begin_answer(w->bench, waiting->request, &out);
    if (status == 0) {
        answer_write(w->bench->snapshot, query, group, i, &out);
        answer_note(waiting->request, query, group, i);
        json_out_bytes(&out, "}", 1);
    }
    answer_send(waiting->request, &out, status, f);
    json_decref(waiting->body);
}

void recall_answer(struct waiting *waiting, size_t n, void *arg)
{
    struct worker *w = arg;
    struct workbench *bench = w->bench;
    struct answer_group group;
    struct fault f;
    size_t good = read_singles(w, waiting, n);
    size_t together = good;
    if (good > 0) {
        embed_users(w);
    }
    metric_add(&w->metrics.gathered, n > 1 ? n : 0);
    for (size_t done = 0; done < good;) {
        const struct query *queries = bench->queries + done;
        const float *vectors = bench->vectors + done * bench->snapshot->bundle->dim;
        size_t count = good - done < together ? good - done : together;
        int status = answer_search(bench, &w->metrics, queries, count, vectors, -1, &group, &f);
        if (status != 0 && group.n > 1) { /* one of them cannot be searched for: each by itself, to spare the others */
            together = 1;
            continue;
        }
        for (size_t i = 0; i < group.n; i++) {
            answer_single(w, &waiting[done + i], &queries[i], &group, i, status, &f);
        }
        done += group.n;
    }
}

/* Whether a request's query is one that is known to take long; what else is wrong with it is found later. Most requests have no
 * member that could make them so. */
static double guess_microseconds(struct worker *w, const json_t *body)
{
    struct fault f;
    struct query query;
    bool ordinary = ann_effort(w->bench->snapshot->index) > 0 && !json_object_get(body, "search") &&
                    !json_object_get(body, "min_score") && w->bench->rules.config->limits.k <= ORDINARY_K;
    return ordinary || request_read_query(&w->bench->rules, body, "", "user", &query, &f) != 0
               ? 0
               : answer_microseconds(w->bench, &query);
}

void handle_recall(struct worker *w, struct http_request *request)
{
    struct fault f;
    json_t *body = dispatch_open(w, request, &f);
    if (!body) {
        fault_send(&f, request);
        return;
    }
    const json_t *requests = json_object_get(body, "requests");
    struct waiting one = {request, body};
    if (requests) {
        answer_batch(w, request, body, requests);
        json_decref(body);
    } else if (w->slow && dispatch_defer(w, request, guess_microseconds(w, body), true)) {
        json_decref(body);
    } else if (w->window) {
        window_add(w->window, one);
    } else {
        recall_answer(&one, 1, w);
    }
}
