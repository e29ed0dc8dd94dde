#include "server/router.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "server/access.h"
#include "server/access_line.h"
#include "server/dispatch.h"
#include "server/gzip.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/problem.h"
#include "server/service.h"
#include "server/worker.h"

/* When a request is answered; see server/dispatch.h. */
enum route_pace { AT_ONCE, IN_TURN, SLOWLY };

enum listener_kind { ON_PUBLIC = 1, ON_ADMIN = 2, ON_BOTH = 3 };

static const struct route {
    const char *path; /* one that ends in "/" stands for all below it */
    endpoint_handler *handler;
    enum endpoint endpoint;
    enum http_method method; /* GET stands for HEAD, too */
    enum listener_kind where;
    bool needs_model;
    enum route_pace pace;
} routes[] = {
    {"/recall", handle_recall, ENDPOINT_RECALL, HTTP_POST, ON_PUBLIC, true, IN_TURN},
    {"/similar", handle_similar, ENDPOINT_SIMILAR, HTTP_POST, ON_PUBLIC, true, IN_TURN},
    {"/score", handle_score, ENDPOINT_SCORE, HTTP_POST, ON_PUBLIC, true, IN_TURN},
    {"/embed", handle_embed, ENDPOINT_EMBED, HTTP_POST, ON_PUBLIC, true, IN_TURN},
    {"/items", handle_items_add, ENDPOINT_ITEMS, HTTP_POST, ON_ADMIN, true, SLOWLY},
    {"/items/", handle_items_remove, ENDPOINT_ITEM, HTTP_DELETE, ON_ADMIN, true, SLOWLY},
    {"/healthz", handle_healthz, ENDPOINT_HEALTHZ, HTTP_GET, ON_BOTH, false, AT_ONCE},
    {"/readyz", handle_readyz, ENDPOINT_READYZ, HTTP_GET, ON_BOTH, false, AT_ONCE},
    {"/metrics", handle_metrics, ENDPOINT_METRICS, HTTP_GET, ON_ADMIN, false, AT_ONCE},
    {"/model", handle_model, ENDPOINT_MODEL, HTTP_GET, ON_ADMIN, false, AT_ONCE},
};

static bool path_fits(const struct route *route, const char *path)
{
    size_t n = strlen(route->path);
    if (n > 1 && route->path[n - 1] == '/') {
        return strncmp(route->path, path, n) == 0 && path[n] != '\0';
    }
    return strcmp(route->path, path) == 0;
}

static const struct route *find_route(const struct worker *w, const struct http_request *request)
{
    unsigned here = request->admin ? ON_ADMIN : w->service->admin_on_public ? ON_BOTH : ON_PUBLIC;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if ((routes[i].where & here) && path_fits(&routes[i], request->path)) {
            return &routes[i];
        }
    }
    return NULL;
}

static const char *allowed_methods(const struct route *route)
{
    switch (route->method) {
    case HTTP_GET:
        return "GET, HEAD";
    case HTTP_DELETE:
        return "DELETE";
    default:
        return "POST";
    }
}

/* Puts what a packed body holds in its place. Returns false when the request has been answered. */
static bool unpack_body(const struct worker *w, struct http_request *request)
{
    const struct serve_config *config = w->settings->config;
    const char *coding = request->method == HTTP_POST ? http_header(request, "Content-Encoding") : NULL;
    char *bytes;
    size_t n;
    if (!coding || strcasecmp(coding, "identity") == 0) {
        return true;
    }
    if (!config->gzip_requests || !gzip_is_name(coding)) {
        http_add_header(request, "Accept-Encoding", config->gzip_requests ? "gzip" : "identity");
        problem_send(request, PROBLEM_MEDIA_TYPE, NULL, "bodies are taken %s",
                     config->gzip_requests ? "as they are, or in the content coding gzip"
                                           : "as they are, without a content coding");
        return false;
    }
    switch (gzip_unpack(request->body, request->body_len, config->limits.body, &bytes, &n)) {
    case GZIP_GOOD:
        if (http_replace_body(request, bytes, n) == 0) {
            return true;
        }
        break;
    case GZIP_DAMAGED:
        problem_send(request, PROBLEM_INVALID_CODING, NULL, "the body is not one whole gzip member");
        return false;
    case GZIP_TOO_LARGE:
        problem_send(request, PROBLEM_BODY_TOO_LARGE, NULL, "unpacked, the body is larger than the limit of %llu bytes",
                     (unsigned long long)config->limits.body);
        return false;
    case GZIP_NO_MEMORY:
        break;
    }
    problem_send(request, PROBLEM_OUT_OF_MEMORY, NULL, "no memory to unpack the body");
    return false;
}

static bool method_fits(const struct route *route, enum http_method method)
{
    return method == route->method || (route->method == HTTP_GET && method == HTTP_HEAD);
}

void router_handle(struct http_request *request, void *arg)
{
    struct worker *w = arg;
    const struct route *route = find_route(w, request);
    request->user = (void *)(uintptr_t)route;
    request->from = worker_now_ns();
    if (!route) {
        problem_send(request, PROBLEM_NOT_FOUND, NULL, "nothing is served under this path here");
    } else if (route->where != ON_BOTH && !access_allow(w->settings, request, route->where == ON_ADMIN)) {
        return;
    } else if (!method_fits(route, request->method)) {
        problem_method(request, allowed_methods(route));
    } else if (!unpack_body(w, request)) {
        return;
    } else if (route->needs_model && !w->bench) {
        http_add_header(request, "Retry-After", "1");
        problem_send(request, PROBLEM_NOT_READY, NULL, "the first bundle is still being loaded");
    } else if (route->pace == AT_ONCE) {
        request->urgent = true;
        route->handler(w, request);
    } else {
        dispatch_take(w, request, route->pace == SLOWLY);
    }
}

void router_run(struct worker *w, struct http_request *request)
{
    const struct route *route = request->user;
    route->handler(w, request);
}

void router_observe(const struct http_request *request, int status, size_t body_len, void *arg)
{
    struct worker *w = arg;
    uint64_t took = 0;
    const struct route *route = request->user;
    metrics_count_response(&w->metrics, route ? route->endpoint : ENDPOINT_OTHER, status);
    if (route) {
        took = worker_now_ns() - request->from;
        histogram_add(&w->metrics.latency[route->endpoint], took);
    }
    if (w->service->access_log) {
        access_line_write(w, request, status, body_len, took);
    }
}
