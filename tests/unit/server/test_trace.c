/* W3C Trace Context: which headers are taken over, and what is made of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/trace.h"

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"
#define GOOD "00-" ID "-" PARENT "-01"

static void test_what_is_valid(void **state)
{
    (void)state;
    const char *good[] = {GOOD, "00-" ID "-" PARENT "-00", "00-" ID "-" PARENT "-ff", "01-" ID "-" PARENT "-01",
                          "cc-" ID "-" PARENT "-01-what-comes-later"};
    const char *bad[] = {"",
                         "00",
                         "00-" ID "-" PARENT "-0",
                         GOOD " ",
                         GOOD "-",
                         GOOD "-more",
                         "01-" ID "-" PARENT "-01.more",
                         "ff-" ID "-" PARENT "-01",
                         "0x-" ID "-" PARENT "-01",
                         "00-4BF92F3577b34da6a3ce929d0e0e4736-" PARENT "-01",
                         "00-4bf92f3577b34da6a3ce929d0e0e473g-" PARENT "-01",
                         "00-" ID "-00F067aa0ba902b7-01",
                         "00-" ID "-" PARENT "-0G",
                         "00-00000000000000000000000000000000-" PARENT "-01",
                         "00-" ID "-0000000000000000-01",
                         "00_" ID "-" PARENT "-01",
                         "00-" ID "_" PARENT "-01",
                         "00-" ID "-" PARENT "_01"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(trace_is_valid(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(trace_is_valid(bad[i], strlen(bad[i])));
    }
    for (size_t n = 0; n < TRACE_PARENT_LEN; n++) {
        assert_false(trace_is_valid(GOOD, n));
    }
}

static void test_a_valid_one_goes_on(void **state)
{
    (void)state;
    struct rng random = {{1, 2, 3, 4}};
    struct trace trace;
    trace_begin(&trace, &random, GOOD, TRACE_PARENT_LEN);
    assert_string_equal(trace.id, ID);
    assert_memory_equal(trace.parent, "00-" ID "-", 36);
    assert_string_equal(trace.parent + 52, "-01");
    assert_memory_not_equal(trace.parent + 36, PARENT, 16);
    trace_begin(&trace, &random, "cc-" ID "-" PARENT "-0a-x", TRACE_PARENT_LEN + 2);
    assert_memory_equal(trace.parent, "00-" ID "-", 36);
    assert_string_equal(trace.parent + 52, "-00");
}

static void test_others_get_a_new_one(void **state)
{
    (void)state;
    struct rng random = {{0, 0, 0, 1}};
    struct trace trace, before = {.id = ""};
    for (int i = 0; i < 1000; i++) {
        trace_begin(&trace, &random, "nonsense", 8);
        assert_true(trace_is_valid(trace.parent, strlen(trace.parent)));
        assert_int_equal(strlen(trace.id), TRACE_ID_LEN);
        assert_memory_equal(trace.parent + 3, trace.id, TRACE_ID_LEN);
        assert_string_not_equal(trace.id, before.id);
        before = trace;
    }
}

static void test_seeds_differ(void **state)
{
    (void)state;
    struct rng a, b;
    assert_int_equal(trace_random_init(&a), 0);
    assert_int_equal(trace_random_init(&b), 0);
    assert_memory_not_equal(&a, &b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_valid),
        cmocka_unit_test(test_a_valid_one_goes_on),
        cmocka_unit_test(test_others_get_a_new_one),
        cmocka_unit_test(test_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
