/*
 * The sampler: permutations, repeatability, even draws, and log q by its formula and by counting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "train/sampler.h"

enum { USERS = 30, ITEMS = 25, EVENTS = 700 };

static uint32_t event_items[EVENTS];
static size_t starts[USERS + 1];

static struct interactions make_events(void)
{
    struct rng r;
    rng_seed(&r, 11, 0);
    for (size_t u = 0; u <= USERS; u++) { /* user 0 has none, the others more and more */
        starts[u] = u == USERS ? EVENTS : EVENTS * u * u / (USERS * USERS);
    }
    for (size_t i = 0; i < EVENTS; i++) {
        event_items[i] = rng_below(&r, 1 + rng_below(&r, ITEMS - 1)); /* uneven; the last item never */
    }
    return (struct interactions){.n = EVENTS, .item = event_items, .start = starts};
}

static void open_sampler(struct sampler *s, bool in_batch, uint32_t uniform, uint32_t batch, uint64_t seed)
{
    struct err e = ERR_INIT;
    struct interactions events = make_events();
    assert_int_equal(sampler_init(s, &events, USERS, ITEMS, in_batch, uniform, batch, seed, &e), 0);
}

static void test_permutation(void **state)
{
    (void)state;
    struct sampler s, same, other;
    uint32_t first[EVENTS];
    open_sampler(&s, true, 0, 64, 1);
    open_sampler(&same, true, 0, 64, 1);
    open_sampler(&other, true, 0, 64, 2);
    for (uint32_t epoch = 1; epoch <= 5; epoch++) {
        bool seen[EVENTS] = {false};
        sampler_shuffle(&s, epoch);
        sampler_shuffle(&same, epoch);
        sampler_shuffle(&other, epoch);
        for (size_t i = 0; i < EVENTS; i++) {
            assert_in_range(s.order[i], 0, EVENTS - 1);
            assert_false(seen[s.order[i]]);
            seen[s.order[i]] = true;
        }
        assert_memory_equal(s.order, same.order, sizeof first);
        assert_memory_not_equal(s.order, other.order, sizeof first);
        if (epoch > 1) {
            assert_memory_not_equal(s.order, first, sizeof first);
        } else {
            memcpy(first, s.order, sizeof first);
        }
    }
    sampler_shuffle(&s, 1); /* an epoch is the same whatever came before */
    assert_memory_equal(s.order, first, sizeof first);
    sampler_release(&s);
    sampler_release(&same);
    sampler_release(&other);
}

/* Every event comes to every place equally often. */
static void test_permutation_is_even(void **state)
{
    (void)state;
    enum { SMALL = 7, EPOCHS = 7000 };
    uint32_t items[SMALL] = {0};
    size_t start[2] = {0, SMALL};
    struct interactions events = {.n = SMALL, .item = items, .start = start};
    struct sampler s;
    struct err e = ERR_INIT;
    int count[SMALL][SMALL] = {{0}};
    assert_int_equal(sampler_init(&s, &events, 1, 1, true, 0, 4, 5, &e), 0);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        sampler_shuffle(&s, epoch);
        for (size_t i = 0; i < SMALL; i++) {
            count[i][s.order[i]]++;
        }
    }
    for (size_t i = 0; i < SMALL * SMALL; i++) { /* 1000 +- 5 deviations of 29 */
        assert_in_range(count[i / SMALL][i % SMALL], 855, 1145);
    }
    sampler_release(&s);
}

static void test_users_of_events(void **state)
{
    (void)state;
    struct sampler s;
    open_sampler(&s, true, 0, 64, 1);
    for (uint32_t u = 0; u < USERS; u++) {
        for (size_t i = starts[u]; i < starts[u + 1]; i++) {
            assert_int_equal(s.user_of[i], u);
        }
    }
    sampler_release(&s);
}

static void check_log_q(bool in_batch, uint32_t uniform, uint32_t batch)
{
    struct sampler s;
    int count[ITEMS] = {0};
    open_sampler(&s, in_batch, uniform, batch, 1);
    for (size_t i = 0; i < EVENTS; i++) {
        count[event_items[i]]++;
    }
    assert_int_equal(count[ITEMS - 1], 0);
    for (size_t i = 0; i < ITEMS; i++) {
        double q = (in_batch ? batch * (double)count[i] / EVENTS : 0) + uniform / (double)ITEMS;
        double expected = q > 0 ? log(q) : 0;
        assert_true(fabs((double)s.item_log_q[i] - expected) < 1e-5);
    }
    sampler_release(&s);
}

static void test_log_q(void **state)
{
    (void)state;
    check_log_q(true, 0, 64);
    check_log_q(false, 10, 64);
    check_log_q(true, 10, 64);
}

/* exp(log q) is how often an item really turns up among a batch's candidates. */
static void test_log_q_by_counting(void **state)
{
    (void)state;
    enum { BATCH = 70, UNIFORM = 20, EPOCHS = 300 };
    struct sampler s;
    double seen[ITEMS] = {0};
    uint32_t negatives[UNIFORM];
    open_sampler(&s, true, UNIFORM, BATCH, 3);
    for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
        sampler_shuffle(&s, epoch);
        for (size_t batch = 0; batch < EVENTS / BATCH; batch++) {
            sampler_negatives(&s, epoch, batch, negatives);
            for (size_t i = 0; i < BATCH; i++) {
                seen[event_items[s.order[batch * BATCH + i]]]++;
            }
            for (size_t i = 0; i < UNIFORM; i++) {
                seen[negatives[i]]++;
            }
        }
    }
    for (size_t i = 0; i < ITEMS; i++) {
        double mean = seen[i] / (EPOCHS * (EVENTS / BATCH));
        assert_true(fabs(mean / exp((double)s.item_log_q[i]) - 1) < 0.08);
    }
    sampler_release(&s);
}

static void test_negatives(void **state)
{
    (void)state;
    enum { UNIFORM = 50, BATCHES = 2000 };
    struct sampler s;
    uint32_t a[UNIFORM], b[UNIFORM];
    int count[ITEMS] = {0};
    open_sampler(&s, true, UNIFORM, 64, 9);
    for (size_t batch = 0; batch < BATCHES; batch++) {
        sampler_negatives(&s, 1, batch, a);
        sampler_negatives(&s, 1, batch, b);
        assert_memory_equal(a, b, sizeof a);
        for (size_t i = 0; i < UNIFORM; i++) {
            assert_in_range(a[i], 0, ITEMS - 1);
            count[a[i]]++;
        }
    }
    double chi = 0;
    const double expected = (double)UNIFORM * BATCHES / ITEMS;
    for (size_t i = 0; i < ITEMS; i++) {
        chi += (count[i] - expected) * (count[i] - expected) / expected;
    }
    assert_true(chi < 51.2); /* 24 degrees of freedom, p = 0.001 */
    sampler_negatives(&s, 2, BATCHES - 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    sampler_release(&s);
}

/* Rows of different epochs, batches and seeds have unrelated streams: no first draw comes twice. */
static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_row_streams(void **state)
{
    (void)state;
    enum { ROWS = 500, EPOCHS = 20, SEEDS = 3 };
    static uint64_t draws[ROWS * EPOCHS * SEEDS];
    size_t n = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sampler s = {.seed = seed};
        struct rng r;
        for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
            for (uint64_t row = 0; row < ROWS; row++) {
                sampler_row_rng(&s, epoch, row, &r);
                draws[n++] = rng_u64(&r);
            }
        }
    }
    qsort(draws, n, sizeof *draws, compare_u64);
    for (size_t i = 1; i < n; i++) {
        assert_true(draws[i] != draws[i - 1]);
    }
}

/* More events of one item than a float can count. */
static void test_many_events(void **state)
{
    (void)state;
    enum { MANY = (1 << 24) + 6000, OTHER = 2000 };
    struct sampler s;
    struct err e = ERR_INIT;
    uint32_t *items = mem_array(MANY, sizeof *items);
    size_t start[2] = {0, MANY};
    assert_non_null(items);
    for (size_t i = 0; i < OTHER; i++) {
        items[MANY - 1 - i] = 1;
    }
    struct interactions events = {.n = MANY, .item = items, .start = start};
    assert_int_equal(sampler_init(&s, &events, 1, 2, true, 0, 1, 1, &e), 0);
    assert_true(fabs((double)s.item_log_q[0] - log((MANY - OTHER) / (double)MANY)) < 2e-5);
    assert_true(fabs((double)s.item_log_q[1] - log(OTHER / (double)MANY)) < 1e-5);
    sampler_release(&s);
    mem_free(items);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct interactions events = make_events();
    for (long n = 1; n <= 5; n++) {
        struct sampler s;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = sampler_init(&s, &events, USERS, ITEMS, true, 3, 64, 1, &e);
        mem_fail_at(0);
        if (result == 0) {
            assert_int_equal(n, 5);
            sampler_release(&s);
            return;
        }
        assert_true(err_isset(&e));
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),     cmocka_unit_test(test_permutation_is_even),
        cmocka_unit_test(test_users_of_events), cmocka_unit_test(test_log_q),
        cmocka_unit_test(test_negatives),       cmocka_unit_test(test_log_q_by_counting),
        cmocka_unit_test(test_row_streams),     cmocka_unit_test(test_many_events),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
