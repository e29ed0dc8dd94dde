#include "tests/unit/core/support.h"

#include <fcntl.h>
#include <pthread.h>

#include "core/log.h"
#include "core/mem.h"

static int saved_stderr;

static void capture_begin(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    assert_true(fd >= 0);
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

/* New: what was written since capture_begin (mem_free). */
static char *capture_end(const char *path, size_t *size)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    struct err e = ERR_INIT;
    char *text = file_read(path, 1 << 20, size, &e);
    assert_non_null(text);
    return text;
}

static void levels_and_plain_form(void **state)
{
    (void)state;
    char *path = scratch("plain");
    size_t n;
    capture_begin(path);
    log_setup(LOG_LEVEL_INFO, false);
    log_error("no %s", "disk");
    log_warn("careful");
    log_info("epoch %d", 3);
    log_debug("hidden");
    char *text = capture_end(path, &n);
    assert_string_equal(text, "error: no disk\nwarning: careful\nepoch 3\n");
    mem_free(text);
}

static void timestamps(void **state)
{
    (void)state;
    char *path = scratch("stamped");
    size_t n;
    capture_begin(path);
    log_setup(LOG_LEVEL_DEBUG, true);
    log_debug("x");
    char *text = capture_end(path, &n);
    int y, mo, d, h, mi, s, end = 0;
    sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ debug x%n", &y, &mo, &d, &h, &mi, &s, &end);
    assert_int_equal(end, strlen("2026-11-24T13:30:09Z debug x"));
    assert_string_equal(text + end, "\n");
    mem_free(text);
}

static void hostile_and_long_text_is_one_line(void **state)
{
    (void)state;
    char *path = scratch("hostile");
    size_t n;
    char longest[5000];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(path);
    log_info("user \"x\nerror: forged\x1b[31m\"");
    log_info("%s", longest);
    for (size_t i = 2040; i < 2052; i++) {
        log_info("%.*s", (int)i, longest);
    }
    char *text = capture_end(path, &n);
    size_t lines = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(text[i] == '\n' || (unsigned char)text[i] >= 0x20);
        lines += text[i] == '\n';
    }
    assert_int_equal(lines, 14);
    mem_free(text);
}

static void *chatter(void *name)
{
    for (int i = 0; i < 500; i++) {
        log_info("%s%s%s%s%s%s%s%s", (char *)name, (char *)name, (char *)name, (char *)name, (char *)name, (char *)name,
                 (char *)name, (char *)name);
    }
    return NULL;
}

static void threads_do_not_mix_lines(void **state)
{
    (void)state;
    char *path = scratch("threads");
    size_t n;
    pthread_t threads[4];
    char names[4][2] = {"a", "b", "c", "d"};
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(path);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chatter, names[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    char *text = capture_end(path, &n);
    assert_int_equal(n, 4 * 500 * 9);
    for (size_t i = 0; i < n; i += 9) {
        for (size_t j = 0; j < 8; j++) {
            assert_int_equal(text[i + j], text[i]);
        }
        assert_int_equal(text[i + 8], '\n');
    }
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_and_plain_form),
        cmocka_unit_test(timestamps),
        cmocka_unit_test(hostile_and_long_text_is_one_line),
        cmocka_unit_test(threads_do_not_mix_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
