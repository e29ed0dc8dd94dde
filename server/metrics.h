/*
 * server/metrics.h: counters of one worker, and the Prometheus text of all of them.
 *
 * One table for each kind of number: add a counter by adding a row. Every worker writes only its own struct, so counting
 * costs a load and a store; /metrics adds up what all workers have. Reads are relaxed: a sum may miss what is being
 * counted at that moment, and never sees half a number.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/buf.h"

struct service;
struct snapshot;

/* X(enumerator, label) */
#define ENDPOINTS(X)                \
    X(ENDPOINT_RECALL, "/recall")   \
    X(ENDPOINT_SIMILAR, "/similar") \
    X(ENDPOINT_SCORE, "/score")     \
    X(ENDPOINT_EMBED, "/embed")     \
    X(ENDPOINT_HEALTHZ, "/healthz") \
    X(ENDPOINT_READYZ, "/readyz")   \
    X(ENDPOINT_ITEMS, "/items")     \
    X(ENDPOINT_ITEM, "/items/{id}") \
    X(ENDPOINT_METRICS, "/metrics") \
    X(ENDPOINT_MODEL, "/model")     \
    X(ENDPOINT_OTHER, "other") /* unknown paths, and requests that were no HTTP */

enum endpoint {
#define ENDPOINT_ENUM(name, label) name,
    ENDPOINTS(ENDPOINT_ENUM)
#undef ENDPOINT_ENUM
        ENDPOINT_COUNT
};

/* X(field, metric name without prefix and _total, help) */
#define METRIC_COUNTERS(X)                                                                                          \
    X(users, "users", "User vectors computed for /recall and /score, each element of a batch counted")              \
    X(gathered, "gathered_requests", "Requests of /recall answered together with others of their batch_window_us")  \
    X(items, "items", "Items returned by /recall and /similar, or scored")                                          \
    X(searches_ann, "searches_ann", "Searches answered by the index")                                               \
    X(searches_exact, "searches_exact", "Searches answered by scanning all vectors")                                \
    X(popular, "popular_answers", "Users about whom nothing was known, answered with the popular items")            \
    X(incomplete, "incomplete_answers", "Answers with fewer items than asked for, because there are no more")       \
    X(degraded, "degraded_answers", "Answers with less search effort than usual, because requests were waiting")    \
    X(slow, "slow_requests", "Requests computed beside the event loop, because they take long")                     \
    X(shed, "shed_requests", "Requests refused because as many as may wait were waiting")                           \
    X(late, "late_requests", "Requests dropped because their time was over before they were answered")              \
    X(abandoned, "abandoned_requests", "Requests dropped because their client went away before they were answered") \
    X(items_added, "items_added", "Items added by POST /items, those that replaced others included")                \
    X(items_removed, "items_removed", "Items removed by DELETE /items")                                             \
    X(adopted, "snapshots_adopted", "Snapshots that workers began to serve")                                        \
    X(adopt_failures, "snapshot_adopt_failures", "Snapshots a worker could not serve for want of memory")

/* The same for numbers that also fall: what is waiting. */
#define METRIC_GAUGES(X)                                                 \
    X(queue_length, "queue_length", "Requests that wait to be computed") \
    X(slow_queue_length, "slow_queue_length", "Those of them that take longer")

/* Upper bounds of the latency histogram in microseconds; the last bucket is +Inf. */
#define LATENCY_BOUNDS(X) \
    X(50) X(100) X(200) X(500) X(1000) X(2000) X(5000) X(10000) X(20000) X(50000) X(100000) X(250000) X(1000000)

enum latency_bucket {
#define LATENCY_ENUM(us) LATENCY_##us,
    LATENCY_BOUNDS(LATENCY_ENUM)
#undef LATENCY_ENUM
        LATENCY_INF,
    LATENCY_COUNT
};

/* Every status the daemon sends has a slot; anything else is counted in the last one as "other". */
enum { STATUS_SLOTS = 22 };

struct histogram {
    _Atomic uint64_t counts[LATENCY_COUNT]; /* not cumulative */
    _Atomic uint64_t nanoseconds;           /* sum */
};

struct metrics {
#define METRIC_FIELD(field, name, help) _Atomic uint64_t field;
    METRIC_COUNTERS(METRIC_FIELD)
    METRIC_GAUGES(METRIC_FIELD)
#undef METRIC_FIELD
    _Atomic uint64_t responses[ENDPOINT_COUNT][STATUS_SLOTS];
    struct histogram latency[ENDPOINT_COUNT];
    struct histogram wait, slow_wait;
};

/* Adds to a counter that only the calling thread writes. */
static inline void metric_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void metric_set(_Atomic uint64_t *gauge, uint64_t n)
{
    atomic_store_explicit(gauge, n, memory_order_relaxed);
}

void histogram_add(struct histogram *h, uint64_t nanoseconds);
void metrics_count_response(struct metrics *m, enum endpoint endpoint, int status);

/* The whole /metrics document; `snapshot` is what the calling worker serves, or NULL. */
void metrics_write(struct service *service, const struct snapshot *snapshot, struct buf *out);

#endif
