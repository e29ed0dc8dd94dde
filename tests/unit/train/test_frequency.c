/*
 * The streaming estimator: known frequencies are found, change is followed, collisions do not hide a rare item.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/mem.h"
#include "core/rng.h"
#include "train/frequency.h"

static void test_regular_items(void **state)
{
    (void)state;
    struct frequency f;
    assert_int_equal(frequency_init(&f, 100, 10), 0);
    for (uint32_t step = 1; step <= 3000; step++) {
        uint32_t items[4];
        size_t n = 0;
        for (uint32_t item = 0; item < 4; item++) { /* every batch, every second, every fourth, every eighth */
            if (step % (1U << item) == 0) {
                items[n++] = item;
            }
        }
        frequency_observe(&f, step, items, n);
    }
    for (uint32_t item = 0; item < 4; item++) {
        assert_true(fabs(frequency_get(&f, item) * (1 << item) - 1) < 0.03);
    }
    assert_true(fabs(frequency_get(&f, 77) - 0.1) < 1e-6); /* never seen: as all items alike */
    frequency_release(&f);
}

/* Twice in a batch is still one batch. */
static void test_twice_in_a_batch(void **state)
{
    (void)state;
    struct frequency f;
    assert_int_equal(frequency_init(&f, 100, 10), 0);
    for (uint32_t step = 1; step <= 2000; step++) {
        frequency_observe(&f, step, (const uint32_t[]){5, 5, 5}, 3);
    }
    assert_true(fabs(frequency_get(&f, 5) - 1) < 1e-3);
    frequency_release(&f);
}

static void test_follows_change(void **state)
{
    (void)state;
    struct frequency f;
    uint32_t item = 3;
    assert_int_equal(frequency_init(&f, 100, 10), 0);
    for (uint32_t step = 1; step <= 4000; step++) {
        if (step <= 2000 ? step % 10 == 0 : step % 2 == 0) {
            frequency_observe(&f, step, &item, 1);
        }
    }
    assert_true(fabs(frequency_get(&f, 3) - 0.5) < 0.01);
    frequency_release(&f);
}

/* Many more items than buckets: a rare item mostly keeps its own estimate, thanks to the other arrays. */
static void test_collisions(void **state)
{
    (void)state;
    enum { ITEMS = 400, RARE = 200 };
    struct frequency f;
    assert_int_equal(frequency_init(&f, ITEMS, 10), 0); /* 1,024 buckets */
    for (uint32_t step = 1; step <= 6400; step++) {
        uint32_t items[ITEMS];
        size_t n = 0;
        for (uint32_t item = 0; item < ITEMS; item++) { /* half are in every batch, half in every 32nd */
            if (item >= RARE || (step + item) % 32 == 0) {
                items[n++] = item;
            }
        }
        frequency_observe(&f, step, items, n);
    }
    int close = 0;
    for (uint32_t item = 0; item < RARE; item++) {
        close += fabs(frequency_get(&f, item) * 32 - 1) < 0.2;
    }
    assert_true(close > RARE * 9 / 10); /* one array alone would have 8 in 10 */
    frequency_release(&f);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (long n = 1; n <= 2; n++) {
        struct frequency f;
        mem_fail_at(n);
        assert_int_equal(frequency_init(&f, 10, 1), -1);
        mem_fail_at(0);
        assert_null(f.last);
        assert_null(f.gap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regular_items),  cmocka_unit_test(test_twice_in_a_batch),
        cmocka_unit_test(test_follows_change), cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
