/*
 * Which differences between configurations count, and how they are named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/train_difference.h"

static const char base[] = "data: {events: {path: a.csv}}\n"
                           "user_tower: {features: [{name: u, dim: 8}, {name: v}]}\n"
                           "optimizer: {lr: 0.1}\nthreads: 2\noutput: {dir: models}\n";

static void expect(const char *now, const char *what)
{
    char got[512];
    assert_true(train_config_differs(now, base, got, sizeof got));
    assert_string_equal(got, what);
}

static void test_same(void **state)
{
    (void)state;
    char got[512];
    assert_false(train_config_differs(base, base, got, sizeof got));
    assert_false(train_config_differs("threads: 9\n" /* order and what has no part in the weights */
                                      "optimizer: {lr: 0.1}\n"
                                      "index: {engine: flat}\ncheckpoint: {every: 1s}\n"
                                      "user_tower: {features: [{dim: 8, name: u}, {name: v}]}\n"
                                      "data: {events: {path: a.csv}}\n",
                                      base, got, sizeof got));
}

static void test_different(void **state)
{
    (void)state;
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: [{name: u, dim: 8}, {name: v}]}\n"
           "optimizer: {lr: 0.2}\n",
           "optimizer.lr is \"0.2\", and was \"0.1\"");
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: [{name: u, dim: 9}, {name: v}]}\n"
           "optimizer: {lr: 0.1}\n",
           "user_tower.features.0.dim is \"9\", and was \"8\"");
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: [{name: u, dim: 8}]}\noptimizer: {lr: 0.1}\n",
           "user_tower.features.1 is not given, and was a mapping");
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: [{name: u, dim: 8}, {name: v}]}\n"
           "optimizer: {lr: 0.1}\nseed: 2\n",
           "seed is \"2\", and was not given");
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: [{name: u, dim: 8}, {name: v}]}\n",
           "optimizer is not given, and was a mapping");
    expect("data: {events: {path: a.csv}}\nuser_tower: {features: 3}\noptimizer: {lr: 0.1}\n",
           "user_tower.features is \"3\", and was a list");
}

static void test_nonsense(void **state)
{
    (void)state;
    expect("[", "the configuration cannot be compared");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_different),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
