#include "server/metrics.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/bundle.h"
#include "server/access_log.h"
#include "server/http.h"
#include "server/reload.h"
#include "server/service.h"
#include "server/slow_lane.h"
#include "server/version.h"
#include "server/workbench.h"
#include "server/worker.h"

static const char *const endpoint_labels[] = {
#define ENDPOINT_LABEL(name, label) label,
    ENDPOINTS(ENDPOINT_LABEL)
#undef ENDPOINT_LABEL
};

static const int statuses[STATUS_SLOTS - 1] = {200, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415,
                                               417, 422, 431, 500, 501, 503, 505, 429, 504, 507};

static const uint32_t latency_bounds[] = {
#define LATENCY_BOUND(us) us,
    LATENCY_BOUNDS(LATENCY_BOUND)
#undef LATENCY_BOUND
};

void metrics_count_response(struct metrics *m, enum endpoint endpoint, int status)
{
    size_t slot = 0;
    while (slot < STATUS_SLOTS - 1 && statuses[slot] != status) {
        slot++;
    }
    metric_add(&m->responses[endpoint][slot], 1);
}

void histogram_add(struct histogram *h, uint64_t nanoseconds)
{
    size_t bucket = 0;
    while (bucket < LATENCY_INF && nanoseconds > latency_bounds[bucket] * UINT64_C(1000)) {
        bucket++;
    }
    metric_add(&h->counts[bucket], 1);
    metric_add(&h->nanoseconds, nanoseconds);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t load_at(const struct metrics *metrics, size_t offset)
{
    return load((const _Atomic uint64_t *)(const void *)((const char *)metrics + offset));
}

/* Sum over the workers and their slow lanes of the counter that lies `offset` bytes into each struct metrics. */
static uint64_t sum(const struct service *service, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < service->n_workers; i++) {
        const struct worker *w = &service->workers[i];
        total += load_at(&w->metrics, offset) + load_at(slow_lane_metrics(w->slow), offset);
    }
    return total;
}

static void write_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP recalld_%s %s.\n# TYPE recalld_%s %s\n", name, help, name, type);
}

static void write_number(struct buf *out, const char *name, const char *type, const char *help, double value)
{
    write_family(out, name, type, help);
    buf_printf(out, "recalld_%s %.17g\n", name, value);
}

static void write_counters(const struct service *service, struct buf *out)
{
#define METRIC_WRITE(field, name, help) \
    write_number(out, name "_total", "counter", help, (double)sum(service, offsetof(struct metrics, field)));
    METRIC_COUNTERS(METRIC_WRITE)
#undef METRIC_WRITE
#define METRIC_WRITE(field, name, help) \
    write_number(out, name, "gauge", help, (double)sum(service, offsetof(struct metrics, field)));
    METRIC_GAUGES(METRIC_WRITE)
#undef METRIC_WRITE
}

static void write_responses(const struct service *service, struct buf *out)
{
    write_family(out, "http_responses_total", "counter", "Answers by endpoint and status");
    for (size_t e = 0; e < ENDPOINT_COUNT; e++) {
        for (size_t s = 0; s < STATUS_SLOTS; s++) {
            uint64_t n = sum(service, offsetof(struct metrics, responses) + (e * STATUS_SLOTS + s) * sizeof(uint64_t));
            if (n && s < STATUS_SLOTS - 1) {
                buf_printf(out, "recalld_http_responses_total{endpoint=\"%s\",code=\"%d\"} %llu\n", endpoint_labels[e],
                           statuses[s], (unsigned long long)n);
            } else if (n) {
                buf_printf(out, "recalld_http_responses_total{endpoint=\"%s\",code=\"other\"} %llu\n",
                           endpoint_labels[e], (unsigned long long)n);
            }
        }
    }
}

/* One histogram of a family: the one that lies `offset` bytes into each struct metrics. `label` ends in a comma. */
static void write_histogram(const struct service *service, struct buf *out, const char *name, const char *label,
                            size_t offset)
{
    uint64_t count = 0;
    for (size_t b = 0; b < LATENCY_COUNT; b++) {
        char bound[32] = "+Inf";
        count += sum(service, offset + offsetof(struct histogram, counts) + b * sizeof(uint64_t));
        if (b < LATENCY_INF) {
            snprintf(bound, sizeof bound, "%g", latency_bounds[b] / 1e6);
        }
        buf_printf(out, "recalld_%s_bucket{%sle=\"%s\"} %llu\n", name, label, bound, (unsigned long long)count);
    }
    int n = (int)strlen(label) - 1;
    uint64_t nanoseconds = sum(service, offset + offsetof(struct histogram, nanoseconds));
    buf_printf(out, "recalld_%s_sum{%.*s} %.9f\nrecalld_%s_count{%.*s} %llu\n", name, n, label,
               (double)nanoseconds / 1e9, name, n, label, (unsigned long long)count);
}

static void write_histograms(const struct service *service, struct buf *out)
{
    write_family(out, "request_seconds", "histogram", "From a request's last byte to its answer, by endpoint");
    for (size_t endpoint = 0; endpoint < ENDPOINT_COUNT; endpoint++) {
        char label[64];
        snprintf(label, sizeof label, "endpoint=\"%s\",", endpoint_labels[endpoint]);
        write_histogram(service, out, "request_seconds", label,
                        offsetof(struct metrics, latency) + endpoint * sizeof(struct histogram));
    }
    write_family(out, "wait_seconds", "histogram", "How long requests that are computed waited for that to begin");
    write_histogram(service, out, "wait_seconds", "lane=\"fast\",", offsetof(struct metrics, wait));
    write_histogram(service, out, "wait_seconds", "lane=\"slow\",", offsetof(struct metrics, slow_wait));
}

/* The HTTP layer's names already end in _total where that was asked for; gauges are marked in their help. */
static void write_http_counter(const struct service *service, struct buf *out, const char *name, const char *help,
                               size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < service->n_workers; i++) {
        const char *counters = (const char *)http_server_counters(service->workers[i].http);
        total += load((const _Atomic uint64_t *)(const void *)(counters + offset));
    }
    bool gauge = strstr(help, "(gauge)") != NULL;
    size_t n = strlen(name);
    bool suffixed = n > 6 && strcmp(name + n - 6, "_total") == 0;
    char full[96];
    snprintf(full, sizeof full, "http_%s%s", name, gauge || suffixed ? "" : "_total");
    write_number(out, full, gauge ? "gauge" : "counter", help, (double)total);
}

static void write_http(const struct service *service, struct buf *out)
{
#define HTTP_WRITE(name, help) write_http_counter(service, out, #name, help, offsetof(struct http_counters, name));
    HTTP_COUNTERS(HTTP_WRITE)
#undef HTTP_WRITE
}

static void write_reloads(const struct service *service, struct buf *out)
{
    struct reload_status status;
    reload_get_status(service->reload, &status);
    write_family(out, "reloads_total", "counter", "Bundle loads by result, the first one included");
    buf_printf(out, "recalld_reloads_total{result=\"ok\"} %llu\nrecalld_reloads_total{result=\"failed\"} %llu\n",
               (unsigned long long)status.ok, (unsigned long long)status.failed);
    write_number(out, "reload_running", "gauge", "A bundle is being loaded", status.running);
    write_number(out, "last_reload_successful", "gauge", "The latest load succeeded", status.last_error[0] == '\0');
}

static void write_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\') {
            buf_add(out, "\\", 1);
        }
        buf_add(out, *value == '\n' ? " " : value, 1);
    }
    buf_puts(out, "\"");
}

static void write_model(const struct snapshot *s, struct buf *out)
{
    if (!s) {
        return;
    }
    write_family(out, "model_info", "gauge", "The bundle that the answering worker serves");
    buf_puts(out, "recalld_model_info{");
    write_label(out, "version", s->version);
    buf_puts(out, ",");
    write_label(out, "engine", ann_engine_name(s->index));
    buf_puts(out, "} 1\n");
    write_number(out, "model_items", "gauge", "Items that the worker serves, added ones included",
                 (double)ann_rows_live(s->index));
    write_number(out, "model_loaded_timestamp_seconds", "gauge", "When the bundle was loaded", (double)s->loaded_at);
    write_number(out, "model_load_seconds", "gauge", "How long loading took", s->load_seconds);
    write_number(out, "model_probe_recall", "gauge", "Recall of the index on the probes, when it was loaded",
                 s->probe_recall);
}

static void write_items(struct service *service, struct buf *out)
{
    struct items_status status;
    items_get_status(&service->items, &status);
    write_number(out, "items_room_used", "gauge",
                 "Added items, replaced and removed ones included, since the bundle was loaded", (double)status.added);
    write_number(out, "items_room_left", "gauge", "Items that can still be added to this bundle", (double)status.room);
    write_number(out, "index_overhead", "gauge", "Items added or removed since the index was built or compacted",
                 (double)status.overhead);
    write_number(out, "index_compactions_total", "counter", "Times the index was built anew from the items that live",
                 (double)status.compactions);
}

static void write_access_log(const struct service *service, struct buf *out)
{
    if (service->access_log) {
        write_number(out, "access_log_dropped_total", "counter", "Lines of the access log that could not be written",
                     (double)access_log_dropped(service->access_log));
    }
}

static double max_descriptors(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (double)limit.rlim_cur : 0;
}

static void write_process(const struct service *service, struct buf *out)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    unsigned long long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm) {
        char line[128];
        if (fgets(line, sizeof line, statm)) {
            char *second = strchr(line, ' ');
            pages = second ? strtoull(second, NULL, 10) : 0;
        }
        fclose(statm);
    }
    write_number(out, "process_cpu_seconds_total", "counter", "CPU time of the process", cpu);
    write_number(out, "process_resident_memory_bytes", "gauge", "Resident memory, mapped bundle pages included",
                 (double)pages * (double)sysconf(_SC_PAGESIZE));
    write_number(out, "process_max_fds", "gauge", "Descriptors that the process may have open", max_descriptors());
    write_number(out, "process_start_time_seconds", "gauge", "When the process began", (double)service->started_at);
    write_number(out, "uptime_seconds", "gauge", "Seconds since then", difftime(time(NULL), service->started_at));
}

void metrics_write(struct service *service, const struct snapshot *snapshot, struct buf *out)
{
    write_family(out, "build_info", "gauge", "The daemon and the libraries it runs with");
    buf_printf(out,
               "recalld_build_info{version=\"" RECALLD_VERSION "\",libevent=\"%s\",openssl=\"%s\",zlib=\"%s\"} 1\n",
               version_of_libevent(), version_of_openssl(), version_of_zlib());
    write_number(out, "ready", "gauge", "What /readyz says: 1 for 200", service_is_ready(service));
    write_number(out, "workers", "gauge", "Worker threads", (double)service->n_workers);
    write_responses(service, out);
    write_histograms(service, out);
    write_counters(service, out);
    write_http(service, out);
    write_reloads(service, out);
    write_model(snapshot, out);
    write_items(service, out);
    write_access_log(service, out);
    write_process(service, out);
}
