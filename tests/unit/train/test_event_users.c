/*
 * The user of an event: against the obvious array.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "core/mem.h"
#include "core/rng.h"
#include "train/event_users.h"

enum { USERS = 3000 };

/* Users of very different sizes, many without events, also at both ends. */
static void expect_users(struct rng *rng, uint32_t most, uint32_t one_in)
{
    static size_t start[USERS + 1];
    struct interactions part = {.start = start};
    for (size_t u = 0; u < USERS; u++) {
        bool any = u > 20 && u < USERS - 20 && rng_below(rng, one_in) == 0;
        start[u + 1] = start[u] + (any ? 1 + rng_below(rng, most) : 0);
    }
    part.n = start[USERS];
    struct event_users m;
    struct err e = ERR_INIT;
    assert_int_equal(event_users_init(&m, &part, USERS, &e), 0);
    for (uint32_t u = 0; u < USERS; u++) {
        for (size_t i = start[u]; i < start[u + 1]; i++) {
            event_users_prefetch(&m, i);
            assert_int_equal(event_users_find(&m, i), u);
        }
    }
    event_users_release(&m);
}

static void test_find(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 6, 0);
    for (int round = 0; round < 20; round++) {
        expect_users(&rng, 1, 1);
        expect_users(&rng, 5, 3);
        expect_users(&rng, 1000, 2);
        expect_users(&rng, 300, 500);
    }
    expect_users(&rng, 1, 1000000000); /* none */
}

static void test_memory(void **state)
{
    (void)state;
    size_t start[] = {0, 3};
    struct interactions part = {.n = 3, .start = start};
    struct event_users m;
    struct err e = ERR_INIT;
    mem_fail_at(1);
    assert_int_equal(event_users_init(&m, &part, 1, &e), -1);
    event_users_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_find), cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
