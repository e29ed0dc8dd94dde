/* Requests that gather: when they are handed over, in which order, and what becomes of those that never are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <string.h>
#include <time.h>

#include "server/http.h"
#include "server/window.h"

enum { REQUESTS = 10, WINDOW_US = 30000, MOST = 4, BYTES = 1000 };

struct fixture {
    struct event_base *base;
    struct window *window;
    struct http_request requests[REQUESTS];
    json_t *json; /* all of them share it: references are counted */
    size_t calls, answered;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void answer(struct waiting *waiting, size_t n, void *arg)
{
    struct fixture *f = arg;
    f->calls++;
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(waiting[i].request, &f->requests[f->answered]);
        f->answered++;
        json_decref(waiting[i].body);
    }
}

static void add(struct fixture *f, size_t i)
{
    window_add(f->window, (struct waiting){&f->requests[i], json_incref(f->json)});
}

/* One turn of the loop, or as many as it takes to have answered so many. */
static void turn(const struct fixture *f, size_t answered)
{
    do {
        event_base_loop(f->base, answered > 0 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
    } while (f->answered < answered);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct err e = ERR_INIT;
    f = (struct fixture){.base = event_base_new(), .json = json_object()};
    for (size_t i = 0; i < REQUESTS; i++) {
        f.requests[i].body_len = 10;
    }
    f.window = window_new(f.base, WINDOW_US, MOST, BYTES, answer, &f, &e);
    assert_non_null(f.window);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    window_free(f->window);
    assert_int_equal(f->json->refcount, 1);
    json_decref(f->json);
    event_base_free(f->base);
    return 0;
}

static void test_time_ends_a_window(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < 6; i += 3) {
        double from = now();
        for (size_t j = i; j < i + 3; j++) {
            add(f, j);
            turn(f, 0);
        }
        turn(f, i + 3);
        assert_true(now() - from >= WINDOW_US * 1e-6);
        assert_int_equal(f->calls, i / 3 + 1);
    }
    turn(f, 0);
    assert_int_equal(f->calls, 2); /* none without a request */
}

static void test_as_many_as_fit_end_it(void **state)
{
    struct fixture *f = *state;
    double from = now();
    for (size_t i = 0; i < MOST; i++) {
        assert_int_equal(f->calls, 0);
        add(f, i);
    }
    assert_int_equal(f->calls, 1);
    assert_true(now() - from < WINDOW_US * 1e-6);
    f->requests[MOST + 1].body_len = BYTES;
    add(f, MOST);
    assert_int_equal(f->calls, 1);
    add(f, MOST + 1);
    assert_int_equal(f->calls, 2);
}

/* The timer of a window that ended early does not end the next one. */
static void test_the_next_window_has_its_own_time(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < MOST; i++) {
        add(f, i);
    }
    struct timespec pause = {.tv_nsec = (long)WINDOW_US * 1500};
    nanosleep(&pause, NULL); /* it expires, and nobody looks */
    double from = now();
    add(f, MOST);
    turn(f, MOST + 1);
    assert_true(now() - from >= WINDOW_US * 1e-6);
    assert_int_equal(f->calls, 2);
}

static void test_those_that_wait_at_the_end_are_dropped(void **state)
{
    struct fixture *f = *state;
    add(f, 0);
    add(f, 1);
    assert_int_equal(f->json->refcount, 3); /* tear_down sees to the rest */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_time_ends_a_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_as_many_as_fit_end_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_next_window_has_its_own_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_those_that_wait_at_the_end_are_dropped, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
