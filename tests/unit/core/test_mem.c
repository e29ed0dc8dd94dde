#include "tests/unit/core/support.h"

#include "core/mem.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1"; /* sizes that cannot be had are asked for on purpose */
}

static void arrays_are_zeroed_and_aligned(void **state)
{
    (void)state;
    for (size_t s = 0; s < ODD_SIZES; s++) {
        unsigned char *p = mem_array(odd_sizes[s], 3);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < 3 * odd_sizes[s]; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xff, 3 * odd_sizes[s]);
        mem_free(p);
    }
    mem_free(NULL);
}

/* Large ones come another way: whole huge pages of their own. */
static void large_arrays_too(void **state)
{
    (void)state;
    const size_t sizes[] = {((size_t)8 << 20) - 64, (size_t)8 << 20, ((size_t)9 << 20) + 17};
    for (size_t s = 0; s < 3; s++) {
        unsigned char *p = mem_array(sizes[s], 1);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < sizes[s]; i += 511) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xff, sizes[s]);
        p = mem_resize(p, sizes[s], 2 * sizes[s], 1);
        assert_non_null(p);
        assert_int_equal(p[sizes[s] - 1], 0xff);
        mem_free(p);
    }
}

/* volatile: the compiler would otherwise refuse the sizes that the function must refuse */
static void impossible_sizes_give_null(void **state)
{
    (void)state;
    const volatile size_t counts[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4 + 2, (size_t)1 << 62, SIZE_MAX - 63};
    const volatile size_t size = 4;
    for (size_t i = 0; i < 5; i++) {
        assert_null(mem_array(counts[i], size));
        assert_null(mem_array(size, counts[i]));
        assert_null(mem_array(counts[i], 1));
        int *kept = mem_array(3, sizeof *kept);
        kept[2] = 42;
        assert_null(mem_resize(kept, 3, counts[i], size));
        assert_int_equal(kept[2], 42);
        mem_free(kept);
    }
    const volatile size_t everything = SIZE_MAX;
    assert_null(mem_strndup("x", everything));
}

static void resize_keeps_the_contents(void **state)
{
    (void)state;
    int *p = mem_resize(NULL, 0, 3, sizeof *p);
    for (int i = 0; i < 3; i++) {
        p[i] = i + 1;
    }
    p = mem_resize(p, 3, 1000, sizeof *p);
    assert_true(p[0] == 1 && p[1] == 2 && p[2] == 3);
    p = mem_resize(p, 1000, 2, sizeof *p);
    assert_true(p[0] == 1 && p[1] == 2);
    p = mem_resize(p, 2, 0, sizeof *p);
    assert_non_null(p);
    mem_free(p);
}

static void grow_doubles(void **state)
{
    (void)state;
    int *p = NULL;
    size_t capacity = 0;
    for (size_t n = 0; n < 1000; n++) {
        assert_int_equal(mem_grow((void **)&p, &capacity, n, sizeof *p), 0);
        assert_true(capacity > n);
        p[n] = (int)n;
    }
    for (size_t n = 0; n < 1000; n++) {
        assert_int_equal(p[n], n);
    }
    size_t before = capacity;
    mem_fail_at(1);
    assert_int_equal(mem_grow((void **)&p, &capacity, capacity, sizeof *p), -1);
    assert_int_equal(capacity, before);
    assert_int_equal(p[999], 999);
    mem_free(p);
}

static void strings(void **state)
{
    (void)state;
    char *a = mem_strdup("");
    char *b = mem_strdup("recall");
    char *c = mem_strndup("recall", 3);
    char *d = mem_strndup("a\0b", 3);
    char *e = mem_strndup(NULL, 0);
    assert_string_equal(a, "");
    assert_string_equal(b, "recall");
    assert_string_equal(c, "rec");
    assert_memory_equal(d, "a\0b", 4);
    assert_string_equal(e, "");
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(d);
    mem_free(e);
}

static void the_chosen_allocation_fails_once(void **state)
{
    (void)state;
    for (long n = 1; n < 5; n++) {
        mem_fail_at(n);
        for (long i = 1; i < 8; i++) {
            void *p = mem_array(1, 1);
            assert_int_equal(p == NULL, i == n);
            mem_free(p);
        }
    }
    mem_fail_at(3);
    mem_fail_at(0);
    for (int i = 0; i < 5; i++) {
        void *p = mem_strdup("x");
        assert_non_null(p);
        mem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_zeroed_and_aligned),
        cmocka_unit_test(large_arrays_too),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(resize_keeps_the_contents),
        cmocka_unit_test(grow_doubles),
        cmocka_unit_test(strings),
        cmocka_unit_test(the_chosen_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
