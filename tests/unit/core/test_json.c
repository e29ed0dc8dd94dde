/* Parsing while memory is short: nothing, or all of it; and everything that was taken is given back. */
#include "tests/unit/core/support.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static long allocations_left; /* then one fails, or all that follow */
static bool for_good;
static long living;

static void *scarce_malloc(size_t n)
{
    if (allocations_left == 0 || (for_good && allocations_left < 0)) {
        allocations_left = -1;
        return NULL;
    }
    allocations_left--;
    living++;
    return malloc(n);
}

static void counted_free(void *p)
{
    living -= p != NULL;
    free(p);
}

/* Each allocation fails; returns how many there are. */
static long fail_each(const char *text, const json_t *wanted)
{
    for (long n = 0;; n++) {
        bool no_memory = true;
        json_error_t error;
        allocations_left = n;
        json_t *json = json_parse(text, strlen(text), JSON_REJECT_DUPLICATES, &error, &no_memory);
        bool enough = allocations_left >= 0;
        allocations_left = 1 << 30;
        assert_true((json != NULL) == enough && no_memory == !enough);
        if (enough) {
            assert_true(json_equal(json, (json_t *)(uintptr_t)wanted));
        }
        json_decref(json);
        assert_int_equal(living, 0);
        if (enough) {
            return n;
        }
    }
}

static void whatever_fails(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"k\":7,\"user\":{\"age\":12345678901234567.25,\"topics\":[\"a\",\"b\",\"c\","
                                        "\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"]}}",
                                        "[[[[[[]]]]]]",
                                        "{\"a\":{\"b\":{\"c\":{\"d\":\"\\u00e9\\n\"}}},\"e\":[1,2.5,true,null]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_set_alloc_funcs(malloc, free);
        json_t *wanted = json_loads(texts[i], 0, NULL);
        json_set_alloc_funcs(scarce_malloc, counted_free);
        json_guard_memory();
        for (int good = 0; good < 2; good++) {
            for_good = good;
            assert_true(fail_each(texts[i], wanted) > 5);
        }
        json_set_alloc_funcs(malloc, free);
        json_decref(wanted);
    }
}

/* Wherever the lexer's buffer has to grow: in a number, before the closing quote, ... Without the guard jansson ends the
 * process here, or gives 1 for 11. */
static void every_length(void **state)
{
    (void)state;
    char text[300];
    for (int length = 1; length < 140; length++) {
        for (int quoted = 0; quoted < 2; quoted++) {
            snprintf(text, sizeof text, quoted ? "{\"%0*d\":\"%0*d\"}" : "{\"x%0*d\":1.%0*d1}", length, 0, length, 0);
            json_set_alloc_funcs(malloc, free);
            json_t *wanted = json_loads(text, 0, NULL);
            json_set_alloc_funcs(scarce_malloc, counted_free);
            json_guard_memory();
            for_good = length % 2 == 0;
            fail_each(text, wanted);
            json_set_alloc_funcs(malloc, free);
            json_decref(wanted);
        }
    }
}

/* More than the guard's own first table holds; and a mistake in the text is none of memory's. */
static void large_and_wrong(void **state)
{
    (void)state;
    char text[20000] = "[";
    bool no_memory;
    json_error_t error;
    json_set_alloc_funcs(scarce_malloc, counted_free);
    json_guard_memory();
    allocations_left = 1 << 30;
    for (int i = 0; i < 3000; i++) {
        strcat(text, "\"a\",");
    }
    size_t n = strlen(text);
    assert_null(json_parse(text, n, 0, &error, &no_memory));
    assert_true(!no_memory && living == 0 && error.text[0] != '\0');
    text[n - 1] = ']';
    json_t *json = json_parse(text, n, 0, &error, &no_memory);
    assert_int_equal(json_array_size(json), 3000);
    json_decref(json);
    assert_int_equal(living, 0);
    for (long at = 100; at < 6000; at += 500) {
        allocations_left = at;
        assert_null(json_parse(text, n, 0, &error, &no_memory));
        assert_true(no_memory && living == 0);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_fails),
        cmocka_unit_test(every_length),
        cmocka_unit_test(large_and_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
