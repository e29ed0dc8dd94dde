/*
 * The thread takes from a bounded queue behind a mutex, which is held for a few instructions. Its nice value is what makes it slow:
 * where cores are scarce the event loops get them as soon as they have something to do, and what is computed here waits.
 *
 * Requests of one user that say `together` (exact scans of a large catalogue) gather while there are some at the head of the queue, and
 * are answered together, as in a window without a time. So the longer the queue, the less each of them costs.
 *
 * Snapshots and settings come through mailboxes, as a worker's do, when the worker took them over; so an answer is from those that the
 * worker had when the request came, or later ones. The old ones are given back at once, also by a lane that has nothing to do, and by the
 * worker for a lane that has not begun. A new workbench is made for either.
 */
#include "server/slow_lane.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/problem.h"
#include "server/request.h"
#include "server/router.h"
#include "server/service.h"
#include "server/settings.h"
#include "server/window.h"
#include "server/workbench.h"
#include "server/worker.h"

enum { SLOW_NICE = 10 };

struct slow_lane {
    struct worker *owner;
    pthread_t thread;
    bool running; /* the owner's */

    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t news;
    struct queue waiting;
    struct queue answered;
    bool stop;

    /* the thread's */
    struct snapshot *snapshot; /* a reference */
    struct worker self;        /* what handlers see; its mailboxes are the owner's to fill */
};

/* --- the thread -------------------------------------------------------------------------------------------------------*/

static void take_over(struct slow_lane *lane)
{
    struct settings *settings = settings_take(&lane->self.settings_mailbox);
    struct snapshot *s = mailbox_take(&lane->self.mailbox);
    if (settings || s) {
        workbench_free(lane->self.bench);
        lane->self.bench = NULL;
    }
    if (settings) {
        settings_unref(lane->self.settings);
        lane->self.settings = settings;
    }
    if (s) {
        snapshot_unref(lane->snapshot);
        lane->snapshot = s;
    }
}

/* The bench is made when it is needed. */
static bool has_bench(struct slow_lane *lane)
{
    struct err e = ERR_INIT;
    if (!lane->self.bench) {
        lane->self.bench = workbench_new(snapshot_ref(lane->snapshot), lane->self.settings->config, &e);
        if (!lane->self.bench) {
            snapshot_unref(lane->snapshot);
            log_error("a slow lane cannot serve model %s: %s", lane->snapshot->version, e.message);
        }
    }
    return lane->self.bench;
}

static void compute(struct slow_lane *lane, struct http_request *request)
{
    struct worker *self = &lane->self;
    struct fault f;
    if (dispatch_check(self, request, &f) != 0) {
        fault_send(&f, request);
        return;
    }
    request->waited = worker_now_ns() - request->from;
    histogram_add(&self->metrics.slow_wait, request->waited);
    if (has_bench(lane)) {
        router_run(self, request);
    } else {
        problem_send(request, PROBLEM_OUT_OF_MEMORY, NULL, "no memory to compute this");
    }
}

/* The next request; NULL when there is none, with `more` only if it may be computed with those before it. */
static struct http_request *next(struct slow_lane *lane, bool more)
{
    struct http_request *request = NULL;
    pthread_mutex_lock(&lane->lock);
    if (!lane->stop && lane->waiting.n > 0 && (!more || lane->waiting.first->together)) {
        request = queue_pop(&lane->waiting);
        metric_set(&lane->self.metrics.slow_queue_length, lane->waiting.n);
    }
    pthread_mutex_unlock(&lane->lock);
    return request;
}

static void hand_back(struct slow_lane *lane, struct queue *done)
{
    struct http_request *request;
    pthread_mutex_lock(&lane->lock);
    while ((request = queue_pop(done)) != NULL) {
        queue_push(&lane->answered, request);
    }
    pthread_mutex_unlock(&lane->lock);
    worker_wake(lane->owner);
}

/* One request, or several together. */
static void compute_some(struct slow_lane *lane)
{
    struct queue done;
    struct http_request *request = next(lane, false);
    queue_init(&done, SIZE_MAX);
    while (request) {
        queue_push(&done, request);
        compute(lane, request);
        request = window_length(lane->self.window) > 0 ? next(lane, true) : NULL;
    }
    window_end(lane->self.window);
    if (done.n > 0) {
        hand_back(lane, &done);
    }
}

static bool has_post(struct slow_lane *lane)
{
    return atomic_load(&lane->self.mailbox.slot) || atomic_load(&lane->self.settings_mailbox.slot);
}

static bool wait_for_news(struct slow_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    while (!lane->stop && lane->waiting.n == 0 && !has_post(lane)) {
        pthread_cond_wait(&lane->news, &lane->lock);
    }
    bool stop = lane->stop;
    pthread_mutex_unlock(&lane->lock);
    return !stop;
}

static void *slow_lane_main(void *arg)
{
    struct slow_lane *lane = arg;
    /* Linux: of this thread. Without the first, one that began with a real-time priority would keep it. */
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    setpriority(PRIO_PROCESS, (id_t)gettid(), SLOW_NICE);
    while (wait_for_news(lane)) {
        take_over(lane);
        compute_some(lane);
    }
    return NULL;
}

/* --- the worker's side ------------------------------------------------------------------------------------------------*/

struct slow_lane *slow_lane_new(struct worker *owner, struct err *e)
{
    const struct serve_config *config = owner->settings->config;
    struct slow_lane *lane = mem_array(1, sizeof *lane);
    if (!lane) {
        err_nomem(e);
        return NULL;
    }
    lane->owner = owner;
    lane->self.service = owner->service;
    lane->self.settings = settings_ref(owner->settings);
    lane->self.wake_fd = -1;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->news, NULL);
    queue_init(&lane->waiting, config->limits.slow_queue);
    queue_init(&lane->answered, SIZE_MAX);
    size_t most = config->limits.batch < WINDOW_MOST ? config->limits.batch : WINDOW_MOST;
    lane->self.window = window_new(NULL, 0, most, config->limits.body, recall_answer, &lane->self, e);
    if (!lane->self.window) {
        slow_lane_free(lane);
        return NULL;
    }
    return lane;
}

static bool start(struct slow_lane *lane)
{
    struct err e = ERR_INIT;
    if (!lane->running) {
        lane->running = service_start_thread(&lane->thread, slow_lane_main, lane, &e) == 0;
        if (!lane->running) {
            log_error("a slow lane: %s", e.message);
        }
    }
    return lane->running;
}

bool slow_lane_take(struct slow_lane *lane, struct http_request *request)
{
    pthread_mutex_lock(&lane->lock);
    bool full = queue_is_full(&lane->waiting); /* the thread only makes room */
    pthread_mutex_unlock(&lane->lock);
    if (full || !start(lane) || http_keep(request) != 0) {
        return false;
    }
    pthread_mutex_lock(&lane->lock);
    queue_push(&lane->waiting, request);
    metric_set(&lane->self.metrics.slow_queue_length, lane->waiting.n);
    pthread_cond_signal(&lane->news);
    pthread_mutex_unlock(&lane->lock);
    metric_add(&lane->owner->metrics.slow, 1);
    return true;
}

void slow_lane_send_answers(struct slow_lane *lane)
{
    struct queue answered;
    struct http_request *request;
    queue_init(&answered, SIZE_MAX);
    pthread_mutex_lock(&lane->lock);
    while ((request = queue_pop(&lane->answered)) != NULL) {
        queue_push(&answered, request);
    }
    pthread_mutex_unlock(&lane->lock);
    while ((request = queue_pop(&answered)) != NULL) {
        http_send_kept(request);
    }
}

/* There is something in a mailbox. */
static void tell(struct slow_lane *lane)
{
    if (!lane->running) {
        take_over(lane);
        return;
    }
    pthread_mutex_lock(&lane->lock); /* so that the thread is not between its look and its wait */
    pthread_cond_signal(&lane->news);
    pthread_mutex_unlock(&lane->lock);
}

void slow_lane_give_snapshot(struct slow_lane *lane, struct snapshot *s)
{
    mailbox_put(&lane->self.mailbox, s);
    tell(lane);
}

void slow_lane_give_settings(struct slow_lane *lane, struct settings *s)
{
    pthread_mutex_lock(&lane->lock);
    lane->waiting.most = s->config->limits.slow_queue;
    pthread_mutex_unlock(&lane->lock);
    settings_put(&lane->self.settings_mailbox, s);
    tell(lane);
}

void slow_lane_stop(struct slow_lane *lane)
{
    if (!lane || !lane->running) {
        return;
    }
    atomic_fetch_or(&lane->self.orders, (unsigned)WORKER_ORDER_STOP); /* for handlers between two groups */
    pthread_mutex_lock(&lane->lock);
    lane->stop = true;
    pthread_cond_signal(&lane->news);
    pthread_mutex_unlock(&lane->lock);
    pthread_join(lane->thread, NULL);
    lane->running = false;
}

void slow_lane_free(struct slow_lane *lane)
{
    if (!lane) {
        return;
    }
    window_free(lane->self.window);
    workbench_free(lane->self.bench);
    snapshot_unref(lane->snapshot);
    snapshot_unref(mailbox_take(&lane->self.mailbox));
    settings_unref(lane->self.settings);
    settings_unref(settings_take(&lane->self.settings_mailbox));
    pthread_cond_destroy(&lane->news);
    pthread_mutex_destroy(&lane->lock);
    mem_free(lane);
}

const struct metrics *slow_lane_metrics(const struct slow_lane *lane)
{
    return &lane->self.metrics;
}
