/*
 * Building takes seconds to minutes for a large catalogue; changes and searches go on meanwhile (ann_compact). The thread runs
 * at the priority of a load. After a failure, which is want of memory, the next try waits a minute.
 */
#include "server/compaction.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "server/service.h"

enum { COMPACTOR_NICE = 10, PAUSE_AFTER_FAILURE = 60 /* seconds */ };

struct compaction {
    struct service *service;
    pthread_t thread;
    bool running;
    time_t not_before;
    double begun;

    struct snapshot *from; /* a reference while running */

    /* written by the thread before `finished`, read after it */
    struct ann *result;
    struct err error;
    atomic_bool finished;
};

struct compaction *compaction_new(struct service *service, struct err *e)
{
    struct compaction *c = mem_array(1, sizeof *c);
    if (!c) {
        err_nomem(e);
        return NULL;
    }
    c->service = service;
    return c;
}

void compaction_free(struct compaction *c)
{
    mem_free(c);
}

static void *compactor_main(void *arg)
{
    struct compaction *c = arg;
    const struct ann_build_options options = {.threads = 1};
    setpriority(PRIO_PROCESS, (id_t)gettid(), COMPACTOR_NICE); /* Linux: of this thread */
    c->result = ann_compact(c->from->index, &options, &c->error);
    atomic_store_explicit(&c->finished, true, memory_order_release);
    service_wake_control(c->service);
    return NULL;
}

static void failed(struct compaction *c, const struct err *e)
{
    log_error("the index could not be compacted: %s", e->message);
    c->not_before = time(NULL) + PAUSE_AFTER_FAILURE;
}

void compaction_consider(struct compaction *c)
{
    if (c->running || time(NULL) < c->not_before) {
        return;
    }
    c->from = items_worth_compacting(&c->service->items);
    if (!c->from) {
        return;
    }
    err_clear(&c->error);
    c->result = NULL;
    atomic_store_explicit(&c->finished, false, memory_order_relaxed);
    c->begun = monotonic_seconds();
    struct err e = ERR_INIT;
    if (service_start_thread(&c->thread, compactor_main, c, &e) != 0) {
        failed(c, &e);
        snapshot_unref(c->from);
        return;
    }
    c->running = true;
}

bool compaction_is_running(const struct compaction *c)
{
    return c->running;
}

struct snapshot *compaction_collect(struct compaction *c)
{
    if (!c->running || !atomic_load_explicit(&c->finished, memory_order_acquire)) {
        return NULL;
    }
    pthread_join(c->thread, NULL);
    c->running = false;
    struct snapshot *s = NULL;
    if (c->result) {
        s = items_take_index(&c->service->items, c->from, c->result, &c->error);
    }
    if (err_isset(&c->error)) {
        failed(c, &c->error);
    } else if (s) {
        log_info("model %s: index compacted, %zu items, in %.3f s", s->version, ann_rows_live(s->index),
                 monotonic_seconds() - c->begun);
    } else {
        log_info("the compacted index is dropped: a new bundle was loaded meanwhile");
    }
    snapshot_unref(c->from);
    c->from = NULL;
    return s;
}
