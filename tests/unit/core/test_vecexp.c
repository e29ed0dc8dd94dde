/*
 * Exponentials against libm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/rng.h"
#include "core/vecexp.h"

static float random_number(struct rng *r, float scale)
{
    return scale * (2 * rng_uniform(r) - 1);
}

static void expect_near(double a, double b, double tolerance, const char *what)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%s: %.9g is not %.9g (+- %.3g)", what, a, b, tolerance);
    }
}

static void test_exp_sum(void **state)
{
    (void)state;
    static float x[4099], y[4099];
    struct rng r;
    rng_seed(&r, 7, 6);
    for (size_t n = 0; n < 4099; n = n < 40 ? n + 1 : n * 2 + 1) {
        float shift = random_number(&r, 50);
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = shift - 86.9f * rng_uniform(&r);
            y[i] = expf(x[i] - shift);
            sum += (double)y[i];
        }
        double got = (double)vec_exp_sum(x, shift, n);
        expect_near(got, sum, 3e-6 * sum, "sum");
        for (size_t i = 0; i < n; i++) {
            expect_near((double)x[i], (double)y[i], 4e-7 * (double)y[i], "exp");
        }
    }
}

/* At the ends: exactly the largest, far below it, masked. */
static void test_exp_sum_ends(void **state)
{
    (void)state;
    for (size_t n = 1; n < 20; n++) { /* each in the vector part and in the rest */
        for (size_t at = 0; at < n; at++) {
            float x[20];
            for (size_t i = 0; i < n; i++) {
                x[i] = -INFINITY;
            }
            x[at] = 3.5f;
            assert_true(vec_exp_sum(x, 3.5f, n) == 1.0f);
            assert_true(x[at] == 1.0f && x[(at + 1) % n] == (n == 1 ? 1.0f : 0.0f));
            x[at] = -500;
            assert_true(vec_exp_sum(x, 0, at + 1) >= 0.0f);
            assert_true(x[at] == 0.0f);
        }
    }
    assert_true(vec_exp_sum(NULL, 0, 0) == 0.0f);
}

static void test_sigmoid_softplus(void **state)
{
    (void)state;
    static float x[700];
    static double sigmoid[700];
    struct rng r;
    rng_seed(&r, 7, 7);
    const float ranges[] = {1, 20, 86, 500}; /* the last beyond what exp holds, up and down */
    for (size_t range = 0; range < 4; range++) {
        for (size_t n = 0; n < 700; n = n < 40 ? n + 1 : n * 2 + 1) {
            float scale = 0.5f + rng_uniform(&r);
            float shift = random_number(&r, ranges[range] / 4);
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = rng_below(&r, 20) == 0 ? -INFINITY : random_number(&r, ranges[range]);
                double z = (double)x[i] * (double)scale - (double)shift;
                sigmoid[i] = 1 / (1 + exp(-z));
                sum += z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
            }
            double got = vec_sigmoid_softplus(x, scale, shift, n);
            expect_near(got, sum, 1e-6 * (double)n + 1e-6 * sum, "softplus");
            for (size_t i = 0; i < n; i++) {
                expect_near((double)x[i], sigmoid[i], 1e-5 * sigmoid[i] + 1e-30, "sigmoid");
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_sum),
        cmocka_unit_test(test_exp_sum_ends),
        cmocka_unit_test(test_sigmoid_softplus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
