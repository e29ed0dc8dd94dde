/* Counters of several workers, added up and written as Prometheus text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "server/metrics.h"
#include "server/reload.h"
#include "server/service.h"
#include "server/worker.h"

enum { WORKERS = 3, ROUNDS = 20000 };

static struct service service;
static struct worker workers[WORKERS];

static int set_up(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct buf problems = BUF_INIT;
    const char *sets[] = {"models.default.path=nowhere"};
    service.settings = settings_new(serve_config_load(NULL, sets, 1, &problems), "", &e);
    assert_non_null(service.settings);
    service.config = service.settings->config;
    service.started_at = time(NULL);
    service.control_fd = -1;
    service.workers = workers;
    service.n_workers = WORKERS;
    assert_int_equal(items_init(&service.items, &e), 0);
    service.reload = reload_new(&service, &e);
    assert_non_null(service.reload);
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(worker_init(&workers[i], &service, NULL, 0, &e), 0);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < WORKERS; i++) {
        worker_release(&workers[i]);
    }
    reload_free(service.reload);
    items_release(&service.items);
    settings_unref(service.settings);
    return 0;
}

static void expect_line(const char *line)
{
    struct buf text = BUF_INIT;
    metrics_write(&service, NULL, &text);
    assert_false(buf_failed(&text));
    char whole[256];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if (!strstr(text.data, whole)) {
        print_error("%s", text.data);
        fail_msg("not in /metrics: %s", line);
    }
    buf_release(&text);
}

static void *count(void *arg)
{
    struct metrics *m = arg;
    for (int i = 0; i < ROUNDS; i++) {
        metric_add(&m->users, 2);
        metrics_count_response(m, ENDPOINT_RECALL, i % 2 ? 200 : 400);
        histogram_add(&m->latency[ENDPOINT_RECALL], i % 2 ? 60000 : 2000000000);
    }
    return NULL;
}

static void test_workers_are_added_up_while_they_count(void **state)
{
    (void)state;
    pthread_t threads[WORKERS];
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count, &workers[i].metrics), 0);
    }
    for (int i = 0; i < 20; i++) { /* reading at the same time is what ThreadSanitizer looks at */
        struct buf text = BUF_INIT;
        metrics_write(&service, NULL, &text);
        buf_release(&text);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    expect_line("recalld_users_total 120000");
    expect_line("recalld_http_responses_total{endpoint=\"/recall\",code=\"200\"} 30000");
    expect_line("recalld_http_responses_total{endpoint=\"/recall\",code=\"400\"} 30000");
    expect_line("recalld_request_seconds_bucket{endpoint=\"/recall\",le=\"5e-05\"} 0");
    expect_line("recalld_request_seconds_bucket{endpoint=\"/recall\",le=\"0.0001\"} 30000");
    expect_line("recalld_request_seconds_bucket{endpoint=\"/recall\",le=\"1\"} 30000");
    expect_line("recalld_request_seconds_bucket{endpoint=\"/recall\",le=\"+Inf\"} 60000");
    expect_line("recalld_request_seconds_count{endpoint=\"/recall\"} 60000");
}

static void test_a_status_without_a_slot_is_other(void **state)
{
    (void)state;
    metrics_count_response(&workers[0].metrics, ENDPOINT_OTHER, 299);
    expect_line("recalld_http_responses_total{endpoint=\"other\",code=\"other\"} 1");
}

static void test_readiness(void **state)
{
    (void)state;
    expect_line("recalld_ready 0");
    atomic_store(&service.workers_serving, WORKERS);
    expect_line("recalld_ready 1");
    atomic_store(&service.draining, true);
    expect_line("recalld_ready 0");
}

static void test_loads_are_counted(void **state)
{
    (void)state;
    struct snapshot *s = NULL;
    struct err e = ERR_INIT;
    enum reload_result result;
    reload_request(service.reload);
    while ((result = reload_collect(service.reload, &s, &e)) == RELOAD_NOTHING) {}
    assert_int_equal(result, RELOAD_FAILED);
    assert_non_null(strstr(e.message, "nowhere"));
    expect_line("recalld_reloads_total{result=\"failed\"} 1");
    expect_line("recalld_last_reload_successful 0");
    struct reload_status status;
    reload_get_status(service.reload, &status);
    assert_string_equal(status.last_error, e.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_are_added_up_while_they_count),
        cmocka_unit_test(test_a_status_without_a_slot_is_other),
        cmocka_unit_test(test_readiness),
        cmocka_unit_test(test_loads_are_counted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
