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

/* What sampler_init reads of a configuration and a dataset. */
static struct train_config config;
static struct dataset dataset = {.n_users = USERS, .n_items = ITEMS};

static int init_sampler(struct sampler *s, size_t n_users, size_t n_items, const struct interactions *events,
                        size_t batch, struct err *e)
{
    dataset.n_users = n_users;
    dataset.n_items = n_items;
    return sampler_init(s, &config, &dataset, events, batch, e);
}

static void configure(bool in_batch, uint32_t uniform, uint64_t seed)
{
    config = (struct train_config){.seed = seed};
    config.loss.logq = true;
    config.negatives.in_batch = in_batch;
    config.negatives.uniform = uniform;
    config.negatives.draw = DRAW_BATCH;
    config.negatives.popularity_alpha = 0.75;
    config.negatives.hard.easy_per_hard = 100;
}

/* Opens by the configuration as it is. */
static void open_configured(struct sampler *s, uint32_t batch)
{
    static struct interactions events;
    struct err e = ERR_INIT;
    events = make_events();
    assert_int_equal(init_sampler(s, USERS, ITEMS, &events, batch, &e), 0);
}

static void open_sampler(struct sampler *s, bool in_batch, uint32_t uniform, uint32_t batch, uint64_t seed)
{
    configure(in_batch, uniform, seed);
    open_configured(s, batch);
}

/* That an order is a permutation, and an even one, is tested with train/permutation.h; here: of which seed and epoch. */
static bool same_order(const struct sampler *a, const struct sampler *b)
{
    for (size_t i = 0; i < EVENTS; i++) {
        if (sampler_event(a, i) != sampler_event(b, i)) {
            return false;
        }
    }
    return true;
}

static void test_orders(void **state)
{
    (void)state;
    struct sampler s, same, other;
    open_sampler(&other, true, 0, 64, 2);
    open_sampler(&s, true, 0, 64, 1);
    open_sampler(&same, true, 0, 64, 1);
    for (uint32_t epoch = 1; epoch <= 5; epoch++) {
        sampler_shuffle(&s, epoch);
        sampler_shuffle(&same, epoch);
        sampler_shuffle(&other, epoch);
        assert_true(same_order(&s, &same));
        assert_false(same_order(&s, &other));
        sampler_shuffle(&other, epoch + 1);
        sampler_shuffle(&same, epoch + 1);
        assert_false(same_order(&s, &same));
    }
    sampler_shuffle(&s, 1); /* an epoch is the same whatever came before */
    sampler_shuffle(&same, 1);
    assert_true(same_order(&s, &same));
    sampler_release(&s);
    sampler_release(&same);
    sampler_release(&other);
}

static void test_users_of_events(void **state)
{
    (void)state;
    struct sampler s;
    open_sampler(&s, true, 0, 64, 1);
    for (uint32_t u = 0; u < USERS; u++) {
        for (size_t i = starts[u]; i < starts[u + 1]; i++) {
            assert_int_equal(event_users_find(&s.users, i), u);
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
            sampler_draw_shared(&s, epoch, batch, negatives);
            for (size_t i = 0; i < BATCH; i++) {
                seen[event_items[sampler_event(&s, batch * BATCH + i)]]++;
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
        sampler_draw_shared(&s, 1, batch, a);
        sampler_draw_shared(&s, 1, batch, b);
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
    sampler_draw_shared(&s, 2, BATCHES - 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    sampler_release(&s);
}

/* How often each item comes as a row's own negative, for `rows` rows of user 3. */
static void count_own(const struct sampler *s, int rows, int *count, size_t *total)
{
    for (int row = 0; row < rows; row++) {
        struct rng r;
        uint32_t items[64];
        float log_q[64];
        sampler_row_rng(s, 1, (uint64_t)row, &r);
        size_t n = sampler_draw_own(s, 3, &r, NULL, NULL, items, log_q);
        assert_true(n <= s->own_max);
        *total += n;
        for (size_t i = 0; i < n; i++) {
            assert_in_range(items[i], 0, ITEMS - 1);
            count[items[i]]++;
        }
    }
}

/* In proportion to count^alpha, and log q says so. */
static void test_popularity(void **state)
{
    (void)state;
    enum { DRAWN = 10, ROWS = 20000 };
    const double alphas[] = {0, 0.5, 1};
    int events_of[ITEMS] = {0};
    make_events();
    for (size_t i = 0; i < EVENTS; i++) {
        events_of[event_items[i]]++;
    }
    for (size_t a = 0; a < 3; a++) {
        struct sampler s;
        int count[ITEMS] = {0};
        double sum = 0;
        size_t total = 0;
        configure(false, 0, 4);
        config.negatives.popularity = DRAWN;
        config.negatives.popularity_alpha = alphas[a];
        config.negatives.draw = DRAW_ROW;
        open_configured(&s, 64);
        count_own(&s, ROWS, count, &total);
        assert_int_equal(total, ROWS * DRAWN);
        for (size_t i = 0; i < ITEMS; i++) {
            sum += events_of[i] > 0 ? pow(events_of[i], alphas[a]) : 0;
        }
        for (uint32_t i = 0; i < ITEMS; i++) {
            double p = events_of[i] > 0 ? pow(events_of[i], alphas[a]) / sum : 0;
            assert_true(fabs(count[i] - p * ROWS * DRAWN) <= 5 * sqrt(p * ROWS * DRAWN) + 1e-9);
            assert_true(fabs((double)sampler_log_q(&s, i) - (p > 0 ? log(p * DRAWN) : 0)) < 1e-5);
        }
        sampler_release(&s);
    }
}

static bool is_odd(const void *arg, uint32_t item)
{
    (void)arg;
    return item % 2 == 1;
}

/* What is taken is never drawn; when all is taken nothing is. */
static void test_taken(void **state)
{
    (void)state;
    struct sampler s;
    configure(false, 20, 4);
    config.negatives.draw = DRAW_ROW;
    open_configured(&s, 64);
    size_t drawn = 0;
    for (uint64_t row = 0; row < 500; row++) {
        struct rng r;
        uint32_t items[20];
        float log_q[20];
        sampler_row_rng(&s, 1, row, &r);
        size_t n = sampler_draw_own(&s, 0, &r, is_odd, NULL, items, log_q);
        drawn += n;
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(items[i] % 2, 0);
            assert_true(fabs((double)log_q[i] - log(20.0 / ITEMS)) < 1e-5);
        }
    }
    assert_in_range(drawn, 500 * 20 - 500, 500 * 20); /* redrawn: 1 in 2^8 is given up */
    sampler_release(&s);
}

/* A user's list; log q 0, since each stands for itself. Rates with a fraction come true on average. */
static void test_lists(void **state)
{
    (void)state;
    uint32_t listed[] = {4, 9};
    size_t list_start[USERS + 1];
    for (size_t u = 0; u <= USERS; u++) {
        list_start[u] = u <= 3 ? 0 : 2; /* user 3 has both, the others none */
    }
    struct sampler s;
    configure(true, 0, 4);
    config.negatives.hard.source = HARD_FILE;
    config.negatives.hard.easy_per_hard = 40;
    config.negatives.exposed = 2;
    dataset.hard = (struct interactions){.n = 2, .item = listed, .start = list_start};
    dataset.exposed = dataset.hard;
    open_configured(&s, 64); /* 63 in the batch and 2 exposed: 65 easy ones */
    assert_int_equal(s.own_max, 4);
    enum { ROWS = 10000 };
    int count[ITEMS] = {0};
    size_t total = 0;
    count_own(&s, ROWS, count, &total);
    double expected = ROWS * (2 + 65.0 / 40);
    assert_true(fabs((double)total - expected) < 5 * sqrt(ROWS * 0.25));
    assert_int_equal(count[4] + count[9], total);
    assert_true(abs(count[4] - count[9]) < 5 * sqrt(expected));
    struct rng r;
    uint32_t items[4];
    float log_q[4] = {1, 1, 1, 1};
    sampler_row_rng(&s, 1, 1, &r);
    assert_int_equal(sampler_draw_own(&s, 5, &r, NULL, NULL, items, log_q), 0);
    size_t n = sampler_draw_own(&s, 3, &r, NULL, NULL, items, log_q);
    for (size_t i = 0; i < n; i++) {
        assert_true(log_q[i] == 0);
    }
    sampler_release(&s);
    dataset.hard = dataset.exposed = (struct interactions){0};
}

/* The streaming estimate comes to what the counts say. */
static void test_streaming(void **state)
{
    (void)state;
    enum { BATCH = 10 };
    struct sampler counted, streaming;
    open_sampler(&counted, true, 5, BATCH, 6);
    config.loss.logq_estimator = LOGQ_STREAMING;
    open_configured(&streaming, BATCH);
    uint32_t step = 0;
    for (uint32_t epoch = 1; epoch <= 60; epoch++) {
        sampler_shuffle(&streaming, epoch);
        for (size_t batch = 0; batch < EVENTS / BATCH; batch++) {
            uint32_t items[BATCH];
            for (size_t i = 0; i < BATCH; i++) {
                items[i] = event_items[sampler_event(&streaming, batch * BATCH + i)];
            }
            sampler_observe(&streaming, ++step, items, BATCH);
        }
    }
    for (uint32_t item = 0; item < ITEMS; item++) {
        double expected = exp((double)sampler_log_q(&counted, item));
        double appears = expected - 0.2; /* without the uniform ones: times in a batch; the estimate is of batches */
        double batches = 1 - pow(1 - appears / BATCH, BATCH) + 0.2;
        double got = exp((double)sampler_log_q(&streaming, item));
        if (appears > 0.02 && fabs(got / batches - 1) > 0.25) {
            fail_msg("item %u: %g, by the counts %g", item, got, batches);
        }
    }
    sampler_release(&counted);
    sampler_release(&streaming);
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
    configure(true, 0, 1);
    for (size_t i = 0; i < OTHER; i++) {
        items[MANY - 1 - i] = 1;
    }
    struct interactions events = {.n = MANY, .item = items, .start = start};
    assert_int_equal(init_sampler(&s, 1, 2, &events, 1, &e), 0);
    assert_true(fabs((double)s.item_log_q[0] - log((MANY - OTHER) / (double)MANY)) < 2e-5);
    assert_true(fabs((double)s.item_log_q[1] - log(OTHER / (double)MANY)) < 1e-5);
    sampler_release(&s);
    mem_free(items);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct interactions events = make_events();
    configure(true, 3, 1);
    config.negatives.popularity = 3;
    for (long n = 1;; n++) {
        struct sampler s;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = init_sampler(&s, USERS, ITEMS, &events, 64, &e);
        mem_fail_at(0);
        if (result == 0) {
            assert_int_equal(n, 12);
            sampler_release(&s);
            return;
        }
        assert_true(err_isset(&e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_users_of_events),
        cmocka_unit_test(test_log_q),
        cmocka_unit_test(test_negatives),
        cmocka_unit_test(test_log_q_by_counting),
        cmocka_unit_test(test_row_streams),
        cmocka_unit_test(test_many_events),
        cmocka_unit_test(test_popularity),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
