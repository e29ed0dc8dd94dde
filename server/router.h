/*
 * server/router.h: which handler answers which request. Runs on the worker's thread; `arg` is its struct worker.
 *
 * Add an endpoint: a row of the table in router.c, a label in metrics.h, a handle_<name>.c, a section in docs/http.md.
 */
#ifndef SERVER_ROUTER_H
#define SERVER_ROUTER_H

#include <stddef.h>

struct http_request;
struct worker;

void router_handle(struct http_request *request, void *arg);

/* Calls the handler of a request that router_handle gave to server/dispatch.h. */
void router_run(struct worker *w, struct http_request *request);

void router_observe(const struct http_request *request, int status, size_t body_len, void *arg);

#endif
