/* GET /healthz: the process runs. GET /readyz: it should get traffic. Both are a flag, never a search. */
#include "server/handlers.h"
#include "server/http.h"
#include "server/problem.h"
#include "server/service.h"
#include "server/worker.h"

static void respond_text(struct http_request *request, const char *json, size_t n)
{
    http_respond_bytes(request, 200, "application/json", json, n);
}

void handle_healthz(struct worker *w, struct http_request *request)
{
    (void)w;
    static const char body[] = "{\"status\":\"alive\"}";
    respond_text(request, body, sizeof body - 1);
}

void handle_readyz(struct worker *w, struct http_request *request)
{
    static const char body[] = "{\"status\":\"ready\"}";
    if (atomic_load_explicit(&w->service->draining, memory_order_relaxed)) {
        problem_send(request, PROBLEM_DRAINING, NULL, "the daemon is shutting down; send requests elsewhere");
    } else if (!service_is_ready(w->service)) {
        problem_send(request, PROBLEM_NOT_READY, NULL, "the first bundle is still being loaded");
    } else {
        respond_text(request, body, sizeof body - 1);
    }
}
