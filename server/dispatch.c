/*
 * A turn of the event loop reads whatever has arrived on any connection, and then computes. As long as nothing waits, and the
 * turn has taken less than a millisecond, a request is answered when it has been read: an idle worker answers without a
 * detour, and `turn_end`, an event that is activated behind those that are ready, costs no system call. From then on requests go to the
 * queue, and the worker computes from it for a millisecond at the end of each turn, and whenever it has read for a
 * millisecond: so a flood of requests that are refused leaves half of the time for those that are not.
 *
 * Health checks are answered when they are read. After each slice the worker looks at new connections and at those that asked for such a
 * thing last (http.h, urgent), so they wait for two milliseconds or so, however many connections are busy.
 *
 * Rejected: computing on other threads than the loop's, which costs a hand-over for each request; a thread for health checks, since nobody
 * knows what a connection will ask before it has been accepted and read; libevent's priorities, with a limit of events in a row:
 * after each such row it asks the kernel again for all that is ready, which with thousands of connections costs more than refusing
 * them.
 *
 * What takes long goes to the slow lane: bodies that are long to parse, what the router says, and what handlers find out.
 */
#include "server/dispatch.h"

#include <event2/event.h>

#include "server/http.h"
#include "server/problem.h"
#include "server/request.h"
#include "server/router.h"
#include "server/settings.h"
#include "server/slow_lane.h"
#include "server/worker.h"

enum {
    SLICE_NS = 1000 * 1000, /* of computing, in a turn */
    SLOW_US = 2000,         /* what takes longer goes to the slow lane */
    SLOW_BODY = 16 * 1024   /* so do longer bodies: parsing them takes a few tenths of a millisecond and more */
};

static const struct timeval at_once = {0, 0};

/* --- what is not computed ---------------------------------------------------------------------------------------------*/

static void shed(struct worker *w, struct http_request *request)
{
    metric_add(&w->metrics.shed, 1);
    http_add_header(request, "Retry-After", "1");
    problem_send(request, PROBLEM_OVERLOADED, NULL, "as many requests as may wait are waiting");
}

int dispatch_check_time(struct worker *w, const struct http_request *request, struct fault *f)
{
    if (request->deadline == 0 || worker_now_ns() < request->deadline) {
        return 0;
    }
    metric_add(&w->metrics.late, 1);
    return fault_set(f, PROBLEM_DEADLINE, "", "not answered within %llu ms",
                     (unsigned long long)((request->deadline - request->from) / 1000000));
}

int dispatch_check(struct worker *w, const struct http_request *request, struct fault *f)
{
    bool stopped = atomic_load_explicit(&w->orders, memory_order_relaxed) & WORKER_ORDER_STOP;
    if (!request->cancelled && !stopped) {
        return dispatch_check_time(w, request, f);
    }
    metric_add(&w->metrics.abandoned, 1);
    return fault_set(f, PROBLEM_ABANDONED, "", "the connection was closed while the request waited");
}

json_t *dispatch_open(struct worker *w, struct http_request *request, struct fault *f)
{
    json_t *body = request_open(w->settings->config, request, f);
    if (body && dispatch_check_time(w, request, f) != 0) {
        json_decref(body);
        return NULL;
    }
    return body;
}

/* --- the slow lane ----------------------------------------------------------------------------------------------------*/

static void take_slow(struct worker *w, struct http_request *request)
{
    if (!slow_lane_take(w->slow, request)) {
        shed(w, request);
    }
}

bool dispatch_defer(struct worker *w, struct http_request *request, double microseconds, bool together)
{
    if (microseconds <= SLOW_US || !w->slow) {
        return false;
    }
    request->together = together;
    take_slow(w, request);
    return true;
}

static uint64_t patience(const struct worker *w)
{
    return w->settings->config->degrade.wait_ms * UINT64_C(1000000);
}

/* --- turns ------------------------------------------------------------------------------------------------------------*/

/* The next one waiting, or none when it was pointless. */
static void compute_next(struct worker *w, uint64_t now)
{
    struct queue *q = &w->dispatch.queue;
    uint64_t waited = now - q->first->from;
    unsigned degrade = queue_pressure(q, waited, patience(w));
    struct http_request *request = queue_pop(q);
    struct fault f;
    if (dispatch_check(w, request, &f) != 0) {
        fault_send(&f, request);
        return;
    }
    request->degrade = degrade;
    request->waited = waited;
    histogram_add(&w->metrics.wait, waited);
    router_run(w, request);
}

static void compute_slice(struct worker *w)
{
    struct dispatch *d = &w->dispatch;
    uint64_t begin = worker_now_ns();
    uint64_t now = begin;
    while (d->queue.n > 0 && now - begin < SLICE_NS) {
        compute_next(w, now);
        now = worker_now_ns();
    }
    metric_set(&w->metrics.queue_length, d->queue.n);
    d->computing = true; /* no slice while others are read */
    http_server_poll_urgent(w->http);
    d->computing = false;
    d->computed_until = worker_now_ns();
}

/* When requests are left, the next turn only looks at what has become readable, and ends here again. */
static void on_turn_end(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct worker *w = arg;
    struct dispatch *d = &w->dispatch;
    d->turn_begun = false;
    if (d->queue.n == 0) {
        return;
    }
    compute_slice(w);
    if (d->queue.n > 0) {
        d->turn_begun = true;
        if (event_add(d->turn_end, &at_once) != 0) { /* no memory for a timer: without looking, then */
            event_active(d->turn_end, EV_TIMEOUT, 1);
        }
    }
}

void dispatch_take(struct worker *w, struct http_request *request, bool slow)
{
    struct dispatch *d = &w->dispatch;
    uint64_t from = request->from;
    request->deadline =
        request->from + w->settings->config->limits.timeout_ms * UINT64_C(1000000); /* see request_open */
    if (slow || request->body_len > SLOW_BODY) {
        if (d->queue.n > 0) { /* degraded as what waits now is */
            request->degrade = queue_pressure(&d->queue, from - d->queue.first->from, patience(w));
        }
        take_slow(w, request);
        return;
    }
    if (!d->turn_begun) {
        d->turn_begun = true;
        d->turn_from = request->from;
        event_active(d->turn_end, EV_TIMEOUT, 1);
    }
    if (d->queue.n == 0 && request->from - d->turn_from < SLICE_NS) {
        histogram_add(&w->metrics.wait, 0);
        router_run(w, request);
        return;
    }
    if (d->queue.n == 0) {
        d->computed_until = request->from;
    }
    if (queue_push(&d->queue, request)) {
        metric_set(&w->metrics.queue_length, d->queue.n);
    } else {
        shed(w, request);
    }
    if (!d->computing && from - d->computed_until > SLICE_NS) {
        compute_slice(w);
    }
}

int dispatch_init(struct worker *w, struct err *e)
{
    queue_init(&w->dispatch.queue, w->settings->config->limits.queue);
    w->dispatch.turn_end = event_new(w->base, -1, 0, on_turn_end, w);
    return w->dispatch.turn_end ? 0 : err_nomem(e);
}

void dispatch_adopt_settings(struct worker *w)
{
    w->dispatch.queue.most = w->settings->config->limits.queue;
}

void dispatch_release(struct worker *w)
{
    if (w->dispatch.turn_end) {
        event_free(w->dispatch.turn_end);
    }
}
