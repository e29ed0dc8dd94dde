/*
 * server/answer.h: the search behind /recall and /similar, and its result as JSON.
 */
#ifndef SERVER_ANSWER_H
#define SERVER_ANSWER_H

#include "server/json_out.h"
#include "server/metrics.h"
#include "server/request.h"
#include "server/workbench.h"

/* Searches for a query's vector [dim] and writes  "items":[...],"complete":...,"strategy":"..."  to `out`. `self`: a row
 * that is left out besides the excluded ones, or -1. Returns 0, or -1 with the fault set; what was written is void then. */
int answer_write(struct workbench *bench, struct metrics *metrics, const struct query *query, const float *vector,
                 int64_t self, struct json_out *out, struct fault *f);

/* About how many bytes answer_write will write. */
size_t answer_guess(const struct query *query);

/* Sends what was written as a 200, or, when status is not 0 or memory was short, the fault. */
void answer_send(struct http_request *request, struct json_out *out, int status, const struct fault *f);

#endif
