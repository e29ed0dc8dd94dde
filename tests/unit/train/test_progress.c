/*
 * Progress on a terminal (a pseudo terminal here) and elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "train/progress.h"

/* stderr during a test; what came out is read afterwards. */
struct capture {
    int kept, reader;
};

static void capture_begin(struct capture *c, bool terminal)
{
    int writer;
    if (terminal) {
        struct winsize size = {.ws_row = 24, .ws_col = 120};
        assert_int_equal(openpty(&c->reader, &writer, NULL, NULL, &size), 0);
    } else {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        c->reader = pipes[0];
        writer = pipes[1];
    }
    c->kept = dup(STDERR_FILENO);
    dup2(writer, STDERR_FILENO);
    close(writer);
}

static void capture_end(struct capture *c, char *text, size_t size)
{
    assert_int_equal(fcntl(c->reader, F_SETFL, O_NONBLOCK), 0);
    size_t n = 0;
    ssize_t got;
    while (n < size - 1 && (got = read(c->reader, text + n, size - 1 - n)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
    dup2(c->kept, STDERR_FILENO);
    close(c->kept);
    close(c->reader);
}

static void test_terminal(void **state)
{
    (void)state;
    struct capture c;
    struct progress p;
    char text[4096];
    capture_begin(&c, true);
    progress_begin(&p, "epoch 1/20", "examples", 1000000);
    progress_update(&p, 1); /* too soon */
    p.started -= 10;        /* as if 10 s had passed */
    p.last_shown -= 10;
    progress_update(&p, 250000);
    progress_update(&p, 250001); /* too soon again */
    p.last_shown -= 10;
    progress_update(&p, 2000000); /* more than all */
    progress_end(&p);
    capture_end(&c, text, sizeof text);
    if (strstr(text, "epoch 1/20") == NULL || strstr(text, "[######..................]  25%") == NULL ||
        strstr(text, "25k examples/s") == NULL || strstr(text, "0:30 left") == NULL) {
        fail_msg("bar: %s", text);
    }
    assert_non_null(strstr(text, "[########################] 100%"));
    assert_null(strchr(text, '\n'));
    const char *end = "\r\033[K";
    assert_string_equal(text + strlen(text) - strlen(end), end); /* the bar is gone */
}

/* Anything may be zero. */
static void test_zeros(void **state)
{
    (void)state;
    struct capture c;
    struct progress p;
    char text[4096];
    capture_begin(&c, true);
    progress_begin(&p, "nothing", "users", 0);
    p.last_shown -= 10;
    progress_update(&p, 0);
    progress_end(&p);
    progress_begin(&p, "a label that is longer than its column", "users", 5);
    p.last_shown -= 10;
    progress_update(&p, 0);
    progress_end(&p);
    capture_end(&c, text, sizeof text);
    assert_null(strstr(text, "nothing"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
}

static void test_log_lines(void **state)
{
    (void)state;
    struct capture c;
    struct progress p;
    char text[4096];
    log_setup(LOG_LEVEL_INFO, false);
    capture_begin(&c, false);
    progress_begin(&p, "epoch 2/20", "examples", 1000);
    progress_update(&p, 10); /* at most one line in ten seconds */
    p.last_shown -= 9;
    progress_update(&p, 20);
    p.started -= 100;
    p.last_shown -= 2;
    progress_update(&p, 500);
    progress_end(&p);
    capture_end(&c, text, sizeof text);
    assert_string_equal(text, "epoch 2/20: 50%, 5 examples/s, 1:40 left\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_log_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
