#include "tests/unit/core/support.h"

#include "core/idmap.h"
#include "core/mem.h"

static void numbers_count_up(void **state)
{
    (void)state;
    struct idmap *m = idmap_new();
    assert_int_equal(idmap_count(m), 0);
    assert_true(idmap_find(m, "a", 1) == IDMAP_NONE);
    assert_int_equal(idmap_add(m, "a", 1), 0);
    assert_int_equal(idmap_add(m, "", 0), 1);
    assert_int_equal(idmap_add(m, "a\0b", 3), 2);
    assert_int_equal(idmap_add(m, "a", 1), 0);
    assert_int_equal(idmap_add(m, NULL, 0), 1);
    assert_int_equal(idmap_find(m, "a\0b", 3), 2);
    assert_true(idmap_find(m, "a\0c", 3) == IDMAP_NONE);
    assert_int_equal(idmap_count(m), 3);
    struct span s = idmap_get(m, 2);
    assert_int_equal(s.length, 3);
    assert_memory_equal(s.text, "a\0b", 3);
    assert_int_equal(idmap_get(m, 1).length, 0);
    idmap_free(m);
    idmap_free(NULL);
}

/* Against the obvious oracle: the numbers of decimal texts, with many repetitions and lengths over 1 KiB. */
static void many_strings(void **state)
{
    (void)state;
    enum { N = 30000 };
    struct rng r;
    rng_seed(&r, 6, 0);
    struct idmap *m = idmap_new();
    uint32_t *wanted = mem_array(N, sizeof *wanted);
    char text[3000];
    memset(text, 'x', sizeof text);
    memset(wanted, 0xff, N * sizeof *wanted);
    uint32_t next = 0;
    for (int round = 0; round < 4 * N; round++) {
        uint32_t x = rng_below(&r, N);
        memset(text, 'x', 16);
        size_t length = (size_t)snprintf(text, 16, "%u", x);
        text[length] = 'x';
        length += x % 50 == 0 ? 2000 : 0;
        assert_true(idmap_find(m, text, length) == wanted[x]);
        uint32_t number = idmap_add(m, text, length);
        if (wanted[x] == IDMAP_NONE) {
            wanted[x] = next++;
        }
        assert_int_equal(number, wanted[x]);
        struct span s = idmap_get(m, number);
        assert_int_equal(s.length, length);
        assert_memory_equal(s.text, text, length);
    }
    assert_int_equal(idmap_count(m), next);
    mem_free(wanted);
    idmap_free(m);
}

/* Texts of all short lengths that differ in one byte, NULs among them, are told apart; many at once is as one by one. */
static void short_strings_and_blocks(void **state)
{
    (void)state;
    enum { N = 40000 };
    struct rng r;
    rng_seed(&r, 8, 0);
    static char text[N][20];
    static struct span texts[N];
    static uint32_t numbers[N];
    uint32_t last;
    for (size_t i = 0; i < N; i++) {
        size_t length = rng_below(&r, 20);
        for (size_t j = 0; j < length; j++) {
            text[i][j] = (char)('a' * (int)rng_below(&r, 2)); /* a or NUL */
        }
        texts[i] = (struct span){text[i], length};
    }
    struct idmap *one = idmap_new(), *many = idmap_new();
    for (size_t i = 0; i < N; i += 1000) {
        assert_int_equal(idmap_add_many(many, texts + i, 1000, numbers + i), 0);
        for (size_t j = i; j < i + 1000; j++) {
            assert_int_equal(idmap_add(one, text[j], texts[j].length), numbers[j]);
            struct span s = idmap_get(many, numbers[j]);
            assert_int_equal(s.length, texts[j].length);
            assert_memory_equal(s.text, text[j], s.length);
        }
    }
    assert_int_equal(idmap_count(one), idmap_count(many));
    mem_fail_at(1);
    while (idmap_add_many(many, (struct span[]){{text[0], 19}}, 1, &last) == 0) {
        text[0][rng_below(&r, 19)]++; /* new ones, until something has to grow */
    }
    mem_fail_at(0);
    idmap_free(one);
    idmap_free(many);
}

static void failed_allocations_leave_the_map_usable(void **state)
{
    (void)state;
    long n = 1;
    for (bool failed = true; failed; n++) {
        mem_fail_at(n);
        struct idmap *m = idmap_new();
        failed = m == NULL;
        char text[40];
        for (int i = 0; m != NULL && i < 2000; i++) {
            size_t length = (size_t)snprintf(text, sizeof text, "key-%030d", i);
            uint32_t number = idmap_add(m, text, length);
            if (number == IDMAP_NONE) {
                failed = true;
                assert_int_equal(idmap_count(m), i);
                assert_true(idmap_find(m, text, length) == IDMAP_NONE);
                number = idmap_add(m, text, length); /* only one allocation fails */
            }
            assert_int_equal(number, i);
        }
        for (int i = 0; m != NULL && i < 2000; i++) {
            size_t length = (size_t)snprintf(text, sizeof text, "key-%030d", i);
            assert_int_equal(idmap_find(m, text, length), i);
        }
        mem_fail_at(0);
        idmap_free(m);
    }
    assert_true(n > 10);
}

/* Published values: other programs must be able to reproduce the hash. */
static void fnv1a_of_known_texts(void **state)
{
    (void)state;
    assert_true(fnv1a("", 0) == 0xcbf29ce484222325u);
    assert_true(fnv1a("a", 1) == 0xaf63dc4c8601ec8cu);
    assert_true(fnv1a("foobar", 6) == 0x85944171f73967e8u);
    assert_true(fnv1a("\xff", 1) == 0xaf64724c8602eb6eu); /* bytes are unsigned */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_count_up),         cmocka_unit_test(many_strings),
        cmocka_unit_test(short_strings_and_blocks), cmocka_unit_test(failed_allocations_leave_the_map_usable),
        cmocka_unit_test(fnv1a_of_known_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
