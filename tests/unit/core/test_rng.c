#include "tests/unit/core/support.h"

#include <math.h>

/* The first outputs of the authors' reference code for the state {1, 2, 3, 4}. */
static void reference_sequence(void **state)
{
    (void)state;
    const uint64_t wanted[] = {
        11520u, 0u, 1509978240u, 1215971899390074240u, 1216172134540287360u, 607988272756665600u};
    struct rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        assert_true(rng_u64(&r) == wanted[i]);
    }
}

/* splitmix64 with seed 0 begins 0xe220a8397b1dcdaf: its finaliser over multiples of the golden ratio. */
static void mix_is_splitmix64(void **state)
{
    (void)state;
    assert_true(rng_mix(0x9e3779b97f4a7c15u) == 0xe220a8397b1dcdafu);
    assert_true(rng_mix(2 * 0x9e3779b97f4a7c15u) == 0x6e789e6aa1b965f4u);
}

static void same_seed_same_numbers_other_stream_other_numbers(void **state)
{
    (void)state;
    uint64_t first[64];
    size_t n = 0;
    for (uint64_t seed = 0; seed < 8; seed++) {
        for (uint64_t stream = 0; stream < 8; stream++) {
            struct rng a;
            struct rng b;
            rng_seed(&a, seed, stream);
            rng_seed(&b, seed, stream);
            first[n] = rng_u64(&a);
            assert_true(first[n] == rng_u64(&b));
            for (size_t i = 0; i < n; i++) {
                assert_true(first[i] != first[n]);
            }
            n++;
        }
    }
}

static void below_is_uniform(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3, 0);
    const uint32_t sides[] = {1, 2, 3, 7, 10, 64};
    for (size_t s = 0; s < sizeof sides / sizeof *sides; s++) {
        enum { DRAWS = 64000 };
        double counts[64] = {0};
        for (int i = 0; i < DRAWS; i++) {
            uint32_t x = rng_below(&r, sides[s]);
            assert_true(x < sides[s]);
            counts[x]++;
        }
        double expected = (double)DRAWS / sides[s];
        double chi = 0;
        for (uint32_t i = 0; i < sides[s]; i++) {
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
        assert_true(chi < sides[s] + 6 * sqrt(2.0 * sides[s])); /* six standard deviations */
    }
    /* n just above 2^31: a modulo would give the lower half twice as often */
    double low = 0;
    for (int i = 0; i < 10000; i++) {
        low += rng_below(&r, 0xc0000000u) < 0x60000000u;
    }
    assert_true(fabs(low - 5000) < 400);
    assert_true(rng_below(&r, UINT32_MAX) < UINT32_MAX);
}

static void uniform_and_normal_have_their_moments(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 4, 0);
    enum { DRAWS = 200000 };
    double sum = 0, normal_sum = 0, normal_squares = 0, within = 0;
    for (int i = 0; i < DRAWS; i++) {
        float u = rng_uniform(&r);
        assert_true(u >= 0.0f && u < 1.0f);
        sum += (double)u;
        double x = (double)rng_normal(&r);
        assert_true(isfinite(x));
        normal_sum += x;
        normal_squares += x * x;
        within += fabs(x) < 1.0;
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 0.005);
    assert_true(fabs(normal_sum / DRAWS) < 0.02);
    assert_true(fabs(normal_squares / DRAWS - 1.0) < 0.02);
    assert_true(fabs(within / DRAWS - 0.6827) < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_sequence),
        cmocka_unit_test(mix_is_splitmix64),
        cmocka_unit_test(same_seed_same_numbers_other_stream_other_numbers),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
