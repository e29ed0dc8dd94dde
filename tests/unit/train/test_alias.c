/*
 * The alias method: draws by counting against the weights.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/mem.h"
#include "train/alias.h"

enum { DRAWS = 400000 };

static void check(const double *weights, uint32_t n)
{
    struct rng r;
    static int count[64];
    double total = 0;
    rng_seed(&r, 3, n);
    struct alias *a = alias_new(weights, n);
    assert_non_null(a);
    for (uint32_t i = 0; i < n; i++) {
        count[i] = 0;
        total += weights[i];
    }
    for (int i = 0; i < DRAWS; i++) {
        uint32_t drawn = alias_draw(a, &r);
        assert_in_range(drawn, 0, n - 1);
        count[drawn]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        double p = weights[i] / total;
        double deviation = sqrt(DRAWS * p * (1 - p));
        assert_true(fabs(alias_probability(a, i) - p) < 1e-6);
        assert_true(fabs(count[i] - DRAWS * p) <= 5 * deviation + 1e-9); /* never drawn when the weight is 0 */
    }
    alias_free(a);
}

static void test_draws(void **state)
{
    (void)state;
    double zipf[64];
    for (int i = 0; i < 64; i++) {
        zipf[i] = i % 5 == 4 ? 0 : 1.0 / (1 + i);
    }
    check(zipf, 64);
    check((const double[]){7}, 1);
    check((const double[]){0, 1}, 2);
    check((const double[]){1, 1, 1}, 3);
    check((const double[]){1e-9, 1, 1e9}, 3);
}

static void test_no_memory(void **state)
{
    (void)state;
    const double weights[] = {1, 2, 3};
    for (long n = 1; n <= 6; n++) {
        mem_fail_at(n);
        struct alias *a = alias_new(weights, 3);
        mem_fail_at(0);
        assert_null(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draws), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
