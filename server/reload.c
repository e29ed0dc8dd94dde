/*
 * From a path to a warm snapshot, off the request path.
 *
 * bundle_open does the verifying. What is added here: the index must agree with an exact scan on the bundle's golden
 * probes (checksums say that the index is the file the trainer wrote, not that it finds anything), and every page of the
 * vectors is touched, so that the first requests after the swap do not pay the page faults.
 *
 * The thread runs at a lower priority than the workers: a reload may take longer, answers may not.
 *
 * SIGBUS. A mapped file that somebody truncates in place makes the reading thread fault. While loading that has to fail
 * the load, not the process, so the handler jumps out of the load, on the loading thread and nowhere else; what the load
 * had opened by then is leaked, which is bounded by how often somebody does that, and logged. A worker that hits such a
 * page has no correct way on: the handler restores the default action and the fault ends the process. Rejected: mapping
 * zeros over the hole and carrying on until the end of the load, because what had been checked before would have changed
 * under us; reading files into memory, because a bundle is mapped so that two daemons and a reload share its pages.
 */
#include "server/reload.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/bundle.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "server/catalog.h"
#include "server/service.h"
#include "server/settings.h"
#include "server/snapshot.h"

enum { CHECK_QUERIES = 16, CHECK_K = 100, LOADER_NICE = 10 };

/* An index that finds less than this part of what the trainer measured is not the index it measured. */
static const double RECALL_FLOOR = 0.5;

struct reload {
    struct service *service;

    /* the control thread's own */
    pthread_t thread;
    bool running;
    bool again;                /* asked for once more while running */
    struct settings *settings; /* a reference, of the running load */

    /* written by the loading thread before `finished`, read by the control thread after it */
    struct snapshot *result;
    struct items_replay replay;
    struct err error;
    atomic_bool finished;

    pthread_mutex_t lock; /* guards status; never held while anything else is done */
    struct reload_status status;
};

/* --- SIGBUS ---------------------------------------------------------------------------------------------------------*/

static _Thread_local sigjmp_buf *volatile landing; /* not NULL while this thread loads */

static void on_sigbus(int signal_number)
{
    sigjmp_buf *to = landing;
    if (to) {
        landing = NULL;
        siglongjmp(*to, 1);
    }
    signal(signal_number, SIG_DFL); /* the instruction runs again, faults again, and ends the process */
}

static void install_sigbus_handler(void)
{
    struct sigaction action = {.sa_handler = on_sigbus};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

/* --- loading --------------------------------------------------------------------------------------------------------*/

/* What the trainer measured, or 1. */
static double recorded_recall(const struct bundle *b)
{
    const json_t *recall = json_object_get(json_object_get(b->manifest, "index"), "recall@100");
    double value = json_number_value(recall);
    return json_is_number(recall) && value > 0.0 && value <= 1.0 ? value : 1.0;
}

/* Also warms the index: these are real searches. One thread is this one, where a SIGBUS is caught. */
static int check_index(const struct bundle *b, const struct ann *index, double *recall, struct err *e)
{
    size_t count = b->n_probes < CHECK_QUERIES ? b->n_probes : CHECK_QUERIES;
    size_t k = b->n_items < CHECK_K ? b->n_items : CHECK_K;
    if (ann_measure_recall(index, b->probe_vectors, count, k, 0, 1, recall, e) != 0) {
        return -1;
    }
    if (!(*recall >= RECALL_FLOOR * recorded_recall(b))) {
        return err_set(e, "index: finds only %.3f of the true top %zu on the golden probes (%.3f when it was built)",
                       *recall, k, recorded_recall(b));
    }
    return 0;
}

/* Brings every page of the mapped vectors into this process's page tables. */
static void touch_vectors(const struct bundle *b)
{
    const volatile char *bytes = (const volatile char *)b->item_vectors;
    size_t size = b->n_items * b->dim * sizeof(float);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < size; at += page) {
        (void)bytes[at];
    }
}

/* The index of a bundle, with room for more items, checked. */
static struct ann *open_index(const struct bundle *b, size_t room, double *recall, struct err *e)
{
    const struct ann_vectors vectors = {.data = b->item_vectors, .n = b->n_items, .dim = b->dim};
    struct ann *index = ann_open(b->index_engine, b->index_path, &vectors, b->index_effort, e);
    if (index && (ann_make_room(index, room, e) != 0 || check_index(b, index, recall, e) != 0)) {
        ann_free(index);
        index = NULL;
    }
    return index;
}

static struct snapshot *load_unguarded(struct reload *r, struct err *e)
{
    const struct serve_config *config = r->settings->config;
    size_t room = config->limits.added_items;
    double recall = 0.0;
    double started = monotonic_seconds();
    struct bundle *b = bundle_open(config->model_path, e);
    if (!b) {
        return NULL;
    }
    if (config->fallback == FALLBACK_POPULAR && !b->popular) {
        err_set(e, "bundle %s: it has no items/popular.u32, which `fallback: popular` needs", config->model_path);
        bundle_free(b);
        return NULL;
    }
    struct ann *index = open_index(b, room, &recall, e);
    if (!index) {
        err_prefix(e, "bundle %s", config->model_path);
        bundle_free(b);
        return NULL;
    }
    touch_vectors(b);
    struct catalog *catalog = catalog_new(b, room, e);
    if (!catalog) {
        ann_free(index);
        return NULL;
    }
    struct snapshot *s = snapshot_new(b->version, catalog, index, &r->service->retired, e);
    if (s && items_replay(&r->service->items, config, s, &r->replay, e) != 0) {
        snapshot_unref(s);
        s = NULL;
    }
    if (s) {
        s->load_seconds = monotonic_seconds() - started;
        s->probe_recall = recall;
    }
    return s;
}

/* The load itself: opens and verifies the bundle and its index, measures the index against an exact scan, touches the
 * memory, brings the items that were added and removed. NULL with the reason. */
static struct snapshot *load(struct reload *r, struct err *e)
{
    sigjmp_buf jump;
    if (sigsetjmp(jump, 1)) {
        err_set(e, "bundle %s: a file was truncated while it was being loaded (SIGBUS)",
                r->settings->config->model_path);
        log_warn("the interrupted load's memory is not given back: replace bundles by rename, never in place");
        return NULL;
    }
    landing = &jump;
    struct snapshot *s = load_unguarded(r, e);
    landing = NULL;
    return s;
}

/* --- the thread -----------------------------------------------------------------------------------------------------*/

static void *loader_main(void *arg)
{
    struct reload *r = arg;
    setpriority(PRIO_PROCESS, (id_t)gettid(), LOADER_NICE); /* Linux: of this thread */
    r->result = load(r, &r->error);
    atomic_store_explicit(&r->finished, true, memory_order_release);
    service_wake_control(r->service);
    return NULL;
}

struct reload *reload_new(struct service *service, struct err *e)
{
    struct reload *r = mem_array(1, sizeof *r);
    if (!r) {
        err_nomem(e);
        return NULL;
    }
    r->service = service;
    pthread_mutex_init(&r->lock, NULL);
    install_sigbus_handler();
    return r;
}

void reload_free(struct reload *r)
{
    if (r) {
        pthread_mutex_destroy(&r->lock);
        mem_free(r);
    }
}

/* Counts the end of a load; an empty reason means that it succeeded. */
static void record(struct reload *r, const char *reason)
{
    pthread_mutex_lock(&r->lock);
    r->status.running = r->running;
    snprintf(r->status.last_error, sizeof r->status.last_error, "%s", reason);
    if (reason[0]) {
        r->status.failed++;
        r->status.last_failure_at = time(NULL);
    } else {
        r->status.ok++;
    }
    pthread_mutex_unlock(&r->lock);
}

void reload_request(struct reload *r)
{
    if (r->running) {
        r->again = true;
        return;
    }
    err_clear(&r->error);
    r->result = NULL;
    atomic_store_explicit(&r->finished, false, memory_order_relaxed);
    struct err e = ERR_INIT;
    r->settings = settings_ref(r->service->settings);
    if (service_start_thread(&r->thread, loader_main, r, &e) != 0) {
        log_error("reload: %s", e.message);
        settings_unref(r->settings);
        record(r, e.message);
        return;
    }
    r->running = true;
    pthread_mutex_lock(&r->lock);
    r->status.running = true;
    pthread_mutex_unlock(&r->lock);
}

void reload_refuse(struct reload *r, const char *reason)
{
    record(r, reason);
}

bool reload_is_running(const struct reload *r)
{
    return r->running;
}

enum reload_result reload_collect(struct reload *r, struct snapshot **snapshot, struct err *e)
{
    if (!r->running || !atomic_load_explicit(&r->finished, memory_order_acquire)) {
        return RELOAD_NOTHING;
    }
    pthread_join(r->thread, NULL);
    r->running = false;
    *snapshot = r->result;
    if (!*snapshot) {
        err_set(e, "%s", err_isset(&r->error) ? r->error.message : "the load failed");
    }
    if (*snapshot) {
        items_take_over(&r->service->items, r->settings->config, *snapshot, &r->replay);
    }
    settings_unref(r->settings);
    record(r, *snapshot ? "" : e->message);
    if (r->again) {
        r->again = false;
        reload_request(r);
    }
    return *snapshot ? RELOAD_DONE : RELOAD_FAILED;
}

void reload_get_status(struct reload *r, struct reload_status *status)
{
    pthread_mutex_lock(&r->lock);
    *status = r->status;
    pthread_mutex_unlock(&r->lock);
}
