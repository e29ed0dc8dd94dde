/*
 * The keyed permutation: every number at one place, whatever n; places, neighbours and keys look independent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "train/permutation.h"

static void expect_permutation(uint32_t n, uint64_t seed)
{
    struct permutation p;
    permutation_init(&p, n, seed, 1);
    char *seen = calloc(n, 1);
    assert_non_null(seen);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = permutation_at(&p, i);
        assert_true(x < n && !seen[x]);
        seen[x] = 1;
    }
    free(seen);
}

static void test_is_permutation(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 600; n++) {
        expect_permutation(n, n);
    }
    static const uint32_t sizes[] = {1023, 1024, 1025, 65535, 65536, 65537, 99856, 99857, 1234567};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        expect_permutation(sizes[i], 5);
    }
}

/* Where the arithmetic is at its limits: different places hold different numbers. */
static void test_largest(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    struct permutation p;
    permutation_init(&p, UINT32_MAX, 3, 0);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t x = permutation_at(&p, UINT32_MAX - 1 - i);
        assert_true(x < UINT32_MAX);
        sum += x;
    }
    double mean = (double)sum / MANY / UINT32_MAX;
    assert_true(fabs(mean - 0.5) < 5 * 0.2887 / sqrt(MANY));
}

static void test_keys(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct permutation p, same, other_seed, other_stream;
    permutation_init(&p, N, 1, 1);
    permutation_init(&same, N, 1, 1);
    permutation_init(&other_seed, N, 2, 1);
    permutation_init(&other_stream, N, 1, 2);
    int seeds = 0, streams = 0, still = 0;
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(permutation_at(&p, i), permutation_at(&same, i));
        seeds += permutation_at(&p, i) == permutation_at(&other_seed, i);
        streams += permutation_at(&p, i) == permutation_at(&other_stream, i);
        still += permutation_at(&p, i) == i;
    }
    assert_true(seeds < 10 && streams < 10 && still < 10); /* 1 each is expected of independent ones */
}

/* Every number comes to every place equally often, and so does every pair to two neighbouring places. */
static void expect_even(uint32_t n, uint32_t keys)
{
    uint32_t *at = calloc((size_t)n * n, sizeof *at), *pair = calloc((size_t)n * n, sizeof *pair);
    assert_true(at != NULL && pair != NULL);
    for (uint32_t k = 0; k < keys; k++) {
        struct permutation p;
        permutation_init(&p, n, 77, k);
        for (uint32_t i = 0; i < n; i++) {
            at[i * n + permutation_at(&p, i)]++;
        }
        pair[permutation_at(&p, 0) * n + permutation_at(&p, 1)]++;
    }
    double expected = (double)keys / n, expected_pair = (double)keys / n / (n - 1), chi = 0, chi_pair = 0;
    for (uint32_t i = 0; i < n * n; i++) {
        chi += (at[i] - expected) * (at[i] - expected) / expected;
        chi_pair += i % (n + 1) == 0 ? 0 : (pair[i] - expected_pair) * (pair[i] - expected_pair) / expected_pair;
    }
    double freedom = ((double)n - 1) * (n - 1), freedom_pair = (double)n * (n - 1) - 1;
    double z = (chi - freedom) / sqrt(2 * freedom), z_pair = (chi_pair - freedom_pair) / sqrt(2 * freedom_pair);
    if (fabs(z) > 5 || fabs(z_pair) > 5) {
        print_error("n %u: places %.1f, pairs %.1f deviations from even\n", n, z, z_pair);
    }

    assert_true(fabs(z) <= 5 && fabs(z_pair) <= 5);
    free(at);
    free(pair);
}

static void test_is_even(void **state)
{
    (void)state;
    expect_even(25, 100000);
    expect_even(36, 100000);
    expect_even(100, 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_permutation),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_is_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
