/*
 * server/handlers.h: the endpoints, one handle_<name>.c each.
 *
 * A handler answers its request exactly once, before it returns, from the worker's workbench and nothing else. Those
 * that need a model are called only when there is one.
 */
#ifndef SERVER_HANDLERS_H
#define SERVER_HANDLERS_H

struct http_request;
struct worker;

typedef void endpoint_handler(struct worker *w, struct http_request *request);

endpoint_handler handle_recall;
endpoint_handler handle_similar;
endpoint_handler handle_embed;
endpoint_handler handle_healthz;
endpoint_handler handle_readyz;
endpoint_handler handle_metrics;
endpoint_handler handle_model;

#endif
