/* GET /metrics: Prometheus text, version 0.0.4. */
#include "server/handlers.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/problem.h"
#include "server/workbench.h"
#include "server/worker.h"

void handle_metrics(struct worker *w, struct http_request *request)
{
    struct buf text = BUF_INIT;
    metrics_write(w->service, w->bench ? w->bench->snapshot : NULL, &text);
    if (buf_failed(&text)) {
        problem_send(request, PROBLEM_OUT_OF_MEMORY, NULL, "no memory for the answer");
    } else {
        http_respond_bytes(request, 200, "text/plain; version=0.0.4; charset=utf-8", text.data, text.len);
    }
    buf_release(&text);
}
