/*
 * server/answer.h: the search behind /recall and /similar, and its result as JSON.
 */
#ifndef SERVER_ANSWER_H
#define SERVER_ANSWER_H

#include "server/json_out.h"
#include "server/metrics.h"
#include "server/request.h"
#include "server/workbench.h"

/* Queries that are searched together, so that they share what they can (ann_search_batch), and what was found. */
enum { ANSWER_GROUP = 64 };
struct answer_group {
    size_t n;
    struct ann_query searches[ANSWER_GROUP];
    struct scored *hits[ANSWER_GROUP]; /* of the bench */
    struct ann_answer answers[ANSWER_GROUP];
};

/* Searches for the first of the queries [count], of vectors [count, dim]: as many as the bench has room for together, which
 * is g->n, one at least. What was found is valid until the next search. `self`: a row that is left out besides the excluded
 * ones, or -1. All are of one moment of the items. Returns 0, or -1 with the fault set. */
int answer_search(struct workbench *bench, struct metrics *metrics, const struct query *queries, size_t count,
                  const float *vectors, int64_t self, struct answer_group *g, struct fault *f);

/* The fault of a search that failed, which the log tells more of; returns -1. */
int answer_search_failed(const struct snapshot *s, const struct err *e, struct fault *f);

/* Writes what was found for query number i of the group:  "items":[...],"complete":...,"strategy":"..." */
void answer_write(const struct snapshot *s, const struct query *query, const struct answer_group *g, size_t i,
                  struct json_out *out);

/* About how long a query takes, from its request to its answer. One with a floor for scores, or max_per, may have to scan
 * everything. */
double answer_microseconds(const struct workbench *bench, const struct query *query);

/* Writes a row's attributes that are asked for:  ,"fields":{...} */
void answer_write_fields(const struct snapshot *s, uint64_t fields, uint32_t row, struct json_out *out);

/* Writes what the user's answer comes from:  ,"source":"...","defaulted":[...]  Nothing without a user. */
void answer_write_source(const struct snapshot *s, const struct query *query, struct json_out *out);

/* About how many bytes answer_write will write. */
size_t answer_guess(const struct query *query);

/* Begins a 200 of about `guess` bytes with the model that answers. */
void answer_begin(const struct snapshot *s, struct http_request *request, struct json_out *out, size_t guess);

/* Notes for the access log what was found for query number i of the group. */
void answer_note(struct http_request *request, const struct query *query, const struct answer_group *g, size_t i);

/* Sends what was written as a 200, or, when status is not 0 or memory was short, the fault. */
void answer_send(struct http_request *request, struct json_out *out, int status, const struct fault *f);

#endif
