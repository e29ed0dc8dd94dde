/*
 * The daemon's configuration: defaults, sizes and durations, addresses, problems, and a dump that loads back to the same.
 */
#include "tests/unit/config/support.h"

#include "config/serve_config.h"

static struct serve_config *load(const char *path, const char *const *sets, size_t n)
{
    struct buf problems = BUF_INIT;
    struct serve_config *config = serve_config_load(path, sets, n, &problems);
    if (config == NULL) {
        fail_msg("%s", problems.data);
    }
    assert_string_equal(problems.data, "");
    buf_release(&problems);
    return config;
}

static struct serve_config *load_text(const char *text)
{
    write_text_file("s.yaml", text);
    return load("s.yaml", NULL, 0);
}

static void expect(const char *text, const char *expected)
{
    struct buf problems = BUF_INIT;
    write_text_file("s.yaml", text);
    assert_null(serve_config_load("s.yaml", NULL, 0, &problems));
    assert_string_equal(problems.data, expected);
    buf_release(&problems);
}

static void test_defaults(void **state)
{
    (void)state;
    struct serve_config *c = load(NULL, NULL, 0);
    assert_string_equal(c->listen, "127.0.0.1:8080");
    assert_null(c->admin_listen);
    assert_int_equal(c->workers, 0);
    assert_string_equal(c->model_path, "models/current");
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_int_equal(c->limits.body, 1 << 20);
    assert_int_equal(c->limits.head, 16384);
    assert_int_equal(c->limits.k, 1000);
    assert_int_equal(c->limits.batch, 256);
    assert_int_equal(c->limits.exclude, 100000);
    assert_int_equal(c->limits.connections, 10000);
    assert_int_equal(c->limits.request_timeout_ms, 10000);
    assert_int_equal(c->limits.idle_timeout_ms, 75000);
    assert_int_equal(c->limits.response_timeout_ms, 30000);
    assert_int_equal(c->limits.drain_timeout_ms, 30000);
    assert_int_equal(c->batch_window_us, 0);
    assert_int_equal(c->drain_delay_ms, 0);
    serve_config_free(c);
}

static void test_file(void **state)
{
    (void)state;
    struct serve_config *c =
        load_text("listen: 0.0.0.0:80\n"
                  "admin: {listen: unix:/run/recalld/admin.sock}\n"
                  "workers: 3\n"
                  "models: {default: {path: m/current}}\n"
                  "log: {level: debug}\n"
                  "limits: {body: 64KiB, k: 500, idle_timeout: 2m, request_timeout: 250ms, head: 2048}\n"
                  "drain_delay: 5s\n");
    assert_string_equal(c->listen, "0.0.0.0:80");
    assert_string_equal(c->admin_listen, "unix:/run/recalld/admin.sock");
    assert_int_equal(c->workers, 3);
    assert_string_equal(c->model_path, "m/current");
    assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(c->limits.body, 65536);
    assert_int_equal(c->limits.k, 500);
    assert_int_equal(c->limits.idle_timeout_ms, 120000);
    assert_int_equal(c->limits.request_timeout_ms, 250);
    assert_int_equal(c->limits.head, 2048);
    assert_int_equal(c->drain_delay_ms, 5000);
    serve_config_free(c);
}

/* As the command line gives them: nothing is quoted. */
static void test_sets(void **state)
{
    (void)state;
    const char *sets[] = {"models.default.path=a: [b]/#c", "listen=[::1]:0", "limits.body=2MiB", "workers=1"};
    struct serve_config *c = load(NULL, sets, 4);
    assert_string_equal(c->model_path, "a: [b]/#c");
    assert_string_equal(c->listen, "[::1]:0");
    assert_int_equal(c->limits.body, 2 << 20);
    serve_config_free(c);
}

/* Keys are checked as those of a file are: a byte that begins a longer character than there is must not be followed. */
static void test_set_keys_are_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xf5=1", "limits.\xf0=1", "\xc3.k=1", "\xed\xa0\x80=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf problems = BUF_INIT;
        assert_null(serve_config_load(NULL, &bad[i], 1, &problems));
        assert_non_null(strstr(problems.data, "the key is not a text in UTF-8"));
        buf_release(&problems);
    }
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"listen=127.0.0.1:0", "listen=localhost:8080",     "listen=*:65535",
                                       "listen=[::]:80",     "listen=unix:/run/a b.sock", "listen=my-host.example:1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        serve_config_free(load(NULL, &good[i], 1));
    }
    static const char *const bad[][2] = {
        {"listen=8080", "\"8080\": must be HOST:PORT, [IPV6]:PORT or unix:/path"},
        {"listen=:8080", "\":8080\": must be HOST:PORT, [IPV6]:PORT or unix:/path; * is every address"},
        {"listen=a b:1", "\"a b:1\": must be HOST:PORT, [IPV6]:PORT or unix:/path; * is every address"},
        {"listen=h:", "\"h:\": the port (behind the last colon) must be 0 to 65535; 0 takes a free one"},
        {"listen=h:65536", "\"h:65536\": the port (behind the last colon) must be 0 to 65535; 0 takes a free one"},
        {"listen=h:-1", "\"h:-1\": the port (behind the last colon) must be 0 to 65535; 0 takes a free one"},
        {"listen=::1:80", "\"::1:80\": an IPv6 address needs brackets and the whole quotes: \"[::1]:8080\""},
        {"listen=[::g]:80", "\"[::g]:80\": between the brackets there must be an IPv6 address"},
        {"listen=[]:80", "\"[]:80\": between the brackets there must be an IPv6 address"},
        {"listen=unix:sock", "\"unix:sock\": behind unix: there must be an absolute path of less than 108 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf problems = BUF_INIT;
        char expected[256];
        snprintf(expected, sizeof expected, "--set listen: %s\n", bad[i][1]);
        assert_null(serve_config_load(NULL, &bad[i][0], 1, &problems));
        assert_string_equal(problems.data, expected);
        buf_release(&problems);
    }
    expect(
        "listen: 127.0.0.1:80\nadmin: {listen: 127.0.0.1:80}\n",
        "s.yaml:2: admin.listen: is the same as listen; choose another port, or remove it to have the admin paths on a "
        "loopback address\n");
    serve_config_free(load_text("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"));
}

static void test_problems(void **state)
{
    (void)state;
    expect("limits:\n"
           "  body: 1MB\n"
           "  idle_timeout: 5\n"
           "  k: 0\n"
           "  request_timeout: 2h\n"
           "  head: 2GiB\n"
           "  bach: 7\n"
           "log: {level: warning}\n"
           "models: {other: {path: x}}\n"
           "admin:\n",
           "s.yaml:2: limits.body: \"1MB\" is not a size like 65536, 64KiB, 1MiB or 1GiB; allowed: 1KiB to 1GiB\n"
           "s.yaml:3: limits.idle_timeout: \"5\" is not a duration like 250ms, 5s, 2m or 1h; allowed: 1ms to 24h\n"
           "s.yaml:4: limits.k: \"0\" is out of range; allowed: 1 to 1000000 items\n"
           "s.yaml:5: limits.request_timeout: \"2h\" is out of range; allowed: 1ms to 1h\n"
           "s.yaml:6: limits.head: \"2GiB\" is out of range; allowed: 1KiB to 1MiB\n"
           "s.yaml:7: limits.bach: unknown key; did you mean limits.batch?\n"
           "s.yaml:8: log.level: \"warning\" is not known (did you mean warn?); known: error, warn, info, debug\n"
           "s.yaml:9: models.other: unknown key; known here: default\n"
           "s.yaml:10: admin: has no value; write one or remove the key\n");
}

/* --- dump ----------------------------------------------------------------------------------------------------------- */

static char *dump(const struct serve_config *c)
{
    struct buf out = BUF_INIT;
    serve_config_dump(c, &out);
    assert_false(buf_failed(&out));
    char *copy = strdup(out.data);
    buf_release(&out);
    return copy;
}

/* What the struct says, without its pointers. */
static void assert_same(const struct serve_config *a, const struct serve_config *b)
{
    assert_string_equal(a->listen, b->listen);
    assert_true((a->admin_listen == NULL) == (b->admin_listen == NULL));
    if (a->admin_listen != NULL) {
        assert_string_equal(a->admin_listen, b->admin_listen);
    }
    assert_int_equal(a->workers, b->workers);
    assert_int_equal(a->log_level, b->log_level);
    assert_memory_equal(&a->limits, &b->limits, sizeof a->limits);
    assert_int_equal(a->batch_window_us, b->batch_window_us);
    assert_int_equal(a->drain_delay_ms, b->drain_delay_ms);
}

static void expect_round_trip(struct serve_config *c)
{
    char *text = dump(c);
    struct serve_config *again = load_text(text);
    char *text_again = dump(again);
    assert_same(c, again);
    assert_string_equal(text, text_again);
    free(text);
    free(text_again);
    serve_config_free(again);
    serve_config_free(c);
}

static void test_dump(void **state)
{
    (void)state;
    expect_round_trip(load(NULL, NULL, 0));
    const char *sets[] = {"admin.listen=[::1]:9", "models.default.path=/a: \"b\"/\xc3\xa4",
                          "limits.body=1025",     "limits.idle_timeout=1500ms",
                          "drain_delay=1h",       "log.level=error",
                          "limits.exclude=0",     "batch_window_us=200"};
    expect_round_trip(load(NULL, sets, sizeof sets / sizeof sets[0]));
    struct serve_config *c = load(NULL, NULL, 0);
    char *text = dump(c);
    assert_non_null(strstr(text, "# admin.listen:  # address of /metrics"));
    assert_non_null(strstr(text, "\n  body: 1MiB  # largest request body (default 1MiB; 1KiB to 1GiB)\n"));
    assert_non_null(strstr(text, "\nmodels:\n  default:\n    path: /"));
    free(text);
    serve_config_free(c);
}

static void test_memory(void **state)
{
    (void)state;
    const char *sets[] = {"admin.listen=[::1]:9", "limits.k=5"};
    write_text_file("s.yaml", "listen: \"[::]:1\"\nmodels: {default: {path: x}}\nlimits: {body: 2MiB}\n");
    for (long at = 1; at < 10000; at++) {
        struct buf problems = BUF_INIT;
        mem_fail_at(at);
        struct serve_config *c = serve_config_load("s.yaml", sets, 2, &problems);
        mem_fail_at(0);
        bool said = problems.len > 0 || buf_failed(&problems);
        buf_release(&problems);
        assert_true((c == NULL) == said);
        if (c != NULL) {
            serve_config_free(c);
            assert_true(at > 20);
            return;
        }
    }
    fail_msg("never succeeds");
}

static void test_memory_dump(void **state)
{
    (void)state;
    struct serve_config *c = load(NULL, NULL, 0);
    char *whole = dump(c);
    for (long at = 1; at < 200; at++) {
        struct buf out = BUF_INIT;
        mem_fail_at(at);
        serve_config_dump(c, &out);
        mem_fail_at(0);
        assert_true(buf_failed(&out) || strcmp(out.data, whole) == 0);
        buf_release(&out);
    }
    free(whole);
    serve_config_free(c);
}

/* What is not reloadable is kept, and named when it differs; the rest is the file's. */
static void test_keep(void **state)
{
    (void)state;
    struct serve_config *running =
        load_text("{limits: {k: 5, head: 2KiB}, admin: {listen: '127.0.0.1:1'}, workers: 2}\n");
    for (long at = 0;; at++) {
        struct buf kept = BUF_INIT;
        struct serve_config *fresh = load_text("{limits: {k: 6, head: 4KiB}, listen: 'localhost:2', workers: 2}\n");
        mem_fail_at(at);
        int rc = serve_config_keep(fresh, running, &kept);
        mem_fail_at(0);
        bool good = rc == 0 && !buf_failed(&kept);
        if (good) {
            assert_string_equal(kept.data, "listen, admin.listen, limits.head");
            assert_string_equal(fresh->listen, running->listen);
            assert_string_equal(fresh->admin_listen, "127.0.0.1:1");
            assert_int_equal(fresh->limits.head, 2048);
            assert_int_equal(fresh->limits.k, 6);
        }
        buf_release(&kept);
        serve_config_free(fresh);
        if (good && at > 0) {
            assert_true(at > 2);
            break;
        }
    }
    serve_config_free(running);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_file),
        cmocka_unit_test(test_sets),     cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_problems), cmocka_unit_test(test_dump),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_memory_dump),
        cmocka_unit_test(test_keep),     cmocka_unit_test(test_set_keys_are_text),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
