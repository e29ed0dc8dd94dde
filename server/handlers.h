/*
 * server/handlers.h: the endpoints, one handle_<name>.c each.
 *
 * A handler answers its request exactly once, from the worker's workbench and nothing else (changes of items go to the
 * service's): before it returns, or, for a /recall that waits in the worker's window, when that ends. Those that need a model
 * are called only when there is one.
 */
#ifndef SERVER_HANDLERS_H
#define SERVER_HANDLERS_H

#include <stddef.h>

struct http_request;
struct worker;

typedef void endpoint_handler(struct worker *w, struct http_request *request);

endpoint_handler handle_recall;
endpoint_handler handle_similar;
endpoint_handler handle_score;
endpoint_handler handle_embed;
endpoint_handler handle_items_add;
endpoint_handler handle_items_remove;
endpoint_handler handle_healthz;
endpoint_handler handle_readyz;
endpoint_handler handle_metrics;
endpoint_handler handle_model;

/* What handle_recall does with requests of one user, gathered in a window (server/window.h); `arg` is the worker. */
struct waiting;
void recall_answer(struct waiting *waiting, size_t n, void *arg);

#endif
