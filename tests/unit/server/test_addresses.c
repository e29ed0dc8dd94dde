/* Connections counted by address: against plain arrays, by many threads, without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "core/mem.h"
#include "server/addresses.h"

enum { KEYS = 300, STEPS = 200000, THREADS = 4, TURNS = 50000, LIMIT = 3 };

static uint64_t key_of(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        return addresses_key((const struct sockaddr *)&v4);
    }
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return addresses_key((const struct sockaddr *)&v6);
}

static void test_keys(void **state)
{
    (void)state;
    const struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert_int_equal(addresses_key((const struct sockaddr *)&un), 0);
    const char *different[] = {"127.0.0.1", "127.0.0.2",   "0.0.0.0",        "255.255.255.255",
                               "::1",       "2001:db8::1", "2001:db8:0:1::1"};
    size_t n = sizeof different / sizeof *different;
    for (size_t i = 0; i < n; i++) {
        assert_int_not_equal(key_of(different[i]), 0);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(key_of(different[i]), key_of(different[j]));
        }
    }
    assert_int_equal(key_of("2001:db8::1"), key_of("2001:db8::ffff:1"));
    assert_int_equal(key_of("::ffff:10.1.2.3"), key_of("10.1.2.3"));
}

/* Random comings and goings, compared with an array of counts. */
static void test_against_an_array(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct addresses *a = addresses_new(&e);
    uint32_t counts[KEYS] = {0};
    unsigned seed = 5;
    size_t known = 0;
    for (size_t step = 0; step < STEPS; step++) {
        size_t i = (size_t)rand_r(&seed) % KEYS;
        uint64_t key = (i + 1) * (i % 2 ? UINT64_C(0x100000000) : 1);
        bool grows = step < STEPS / 2 ? rand_r(&seed) % 3 > 0 : rand_r(&seed) % 3 == 0;
        if (grows) {
            bool expected = counts[i] < LIMIT;
            assert_int_equal(addresses_enter(a, key, LIMIT), expected);
            known += expected && counts[i] == 0;
            counts[i] += expected;
        } else if (counts[i] > 0) {
            addresses_leave(a, key);
            known -= --counts[i] == 0;
        }
        assert_int_equal(addresses_known(a), known);
    }
    addresses_free(a);
}

static struct addresses *shared;
static atomic_int inside;
static atomic_int most;

static void *come_and_go(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    for (size_t i = 0; i < TURNS; i++) {
        uint64_t own = 1000 + (uint64_t)rand_r(&seed) % 100;
        bool other = addresses_enter(shared, own, 0);
        if (addresses_enter(shared, 7, LIMIT)) {
            int now = atomic_fetch_add(&inside, 1) + 1;
            int before = atomic_load(&most);
            while (now > before && !atomic_compare_exchange_weak(&most, &before, now)) {}
            atomic_fetch_sub(&inside, 1);
            addresses_leave(shared, 7);
        }
        if (other) {
            addresses_leave(shared, own);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    shared = addresses_new(NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &seeds[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_in_range(atomic_load(&most), 1, LIMIT);
    assert_int_equal(addresses_known(shared), 0);
    addresses_free(shared);
}

static void test_memory(void **state)
{
    (void)state;
    for (long at = 1; at <= 2; at++) {
        struct err e = ERR_INIT;
        mem_fail_at(at);
        assert_null(addresses_new(&e));
        assert_true(err_isset(&e));
    }
    mem_fail_at(0);
    struct addresses *a = addresses_new(NULL);
    uint64_t key = 1;
    mem_fail_at(1);
    while (addresses_enter(a, key, 1)) {
        key++;
    }
    mem_fail_at(0);
    assert_int_equal(addresses_known(a), key - 1);
    assert_true(addresses_enter(a, key, 1));
    while (key > 0) {
        addresses_leave(a, key--);
    }
    assert_int_equal(addresses_known(a), 0);
    addresses_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_against_an_array),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
