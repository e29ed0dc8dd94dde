#include "tests/unit/core/support.h"

#include "core/mem.h"
#include "core/strtab.h"

static const char *const words[] = {"", "a", "ab", "abc", "b", "ba", "\x7f", "\xc3\xa9", "\xff"};
enum { WORDS = sizeof words / sizeof *words, HEAD = 24 };

/* New 8-byte aligned block with the table of the given strings. */
static unsigned char *make_table(const char *const *strings, size_t count, size_t *size)
{
    struct span spans[32];
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        spans[i] = (struct span){strings[i], strlen(strings[i])};
    }
    strtab_write(&b, spans, count);
    assert_false(buf_failed(&b));
    unsigned char *block = mem_array(b.len, 1);
    memcpy(block, b.data, b.len);
    *size = b.len;
    buf_release(&b);
    return block;
}

static void round_trip(void **state)
{
    (void)state;
    for (size_t count = 0; count <= WORDS; count++) {
        size_t size;
        unsigned char *block = make_table(words, count, &size);
        struct strtab t;
        struct err e = ERR_INIT;
        check_ok(&e, strtab_view(&t, block, size, true, &e));
        assert_int_equal(t.count, count);
        for (size_t i = 0; i < WORDS; i++) {
            assert_int_equal(strtab_find(&t, words[i], strlen(words[i])), i < count ? (int)i : -1);
        }
        for (size_t i = 0; i < count; i++) {
            size_t length;
            const char *text = strtab_get(&t, i, &length);
            assert_int_equal(length, strlen(words[i]));
            assert_memory_equal(text, words[i], length);
        }
        assert_int_equal(strtab_find(&t, "zz", 2), -1);
        assert_int_equal(strtab_find(&t, "aa", 2), -1);
        mem_free(block);
    }
}

/* The layout in docs/bundle.md, byte by byte. */
static void known_bytes(void **state)
{
    (void)state;
    const char *const two[] = {"hi", "you"};
    const unsigned char wanted[] = "RECSTR1\n\2\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"
                                   "\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0hiyou";
    size_t size;
    unsigned char *block = make_table(two, 2, &size);
    assert_int_equal(size, sizeof wanted - 1);
    assert_memory_equal(block, wanted, size);
    mem_free(block);
}

static void order_is_checked_only_when_sorted(void **state)
{
    (void)state;
    const char *const tables[][3] = {{"b", "a", "c"},     {"a", "a", "b"},    {"ab", "a", "b"},
                                     {"a", "b", "a\xff"}, {"\xff", "a", "b"}, {"a", "", "b"}};
    for (size_t i = 0; i < 6; i++) {
        size_t size;
        unsigned char *block = make_table(tables[i], 3, &size);
        struct strtab t;
        struct err e = ERR_INIT;
        check_ok(&e, strtab_view(&t, block, size, false, &e));
        assert_int_equal(strtab_view(&t, block, size, true, &e), -1);
        check_error(&e, "ascending");
        assert_int_equal(t.count, 0); /* nothing usable is left */
        mem_free(block);
    }
}

/* Reads everything a view promises; the sanitizer watches. */
static void use_view(const struct strtab *t)
{
    unsigned sum = 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t length;
        const char *text = strtab_get(t, i, &length);
        for (size_t j = 0; j < length; j++) {
            sum += (unsigned char)text[j];
        }
        assert_int_equal(strtab_find(t, text, length), i);
    }
    assert_true(sum < 1u << 30);
}

/* Cut at every byte, or with bytes behind the end: refused. Blocks are allocated to size: ASan sees overreads. */
static void cut_or_extended_is_refused(void **state)
{
    (void)state;
    size_t size;
    unsigned char *block = make_table(words, WORDS, &size);
    for (size_t n = 0; n <= size + 9; n++) {
        unsigned char *copy = malloc(n == 0 ? 1 : n);
        assert_non_null(copy);
        memset(copy, 0, n);
        memcpy(copy, block, n < size ? n : size);
        struct strtab t;
        struct err e = ERR_INIT;
        int result = strtab_view(&t, copy, n, true, &e);
        assert_int_equal(result, n == size ? 0 : -1);
        assert_int_equal(err_isset(&e), n != size);
        free(copy);
    }
    mem_free(block);
}

static void put_u64(unsigned char *at, uint64_t x)
{
    memcpy(at, &x, sizeof x);
}

/* Claims of counts, sizes and offsets that would overflow or point outside. */
static void hostile_numbers_are_refused(void **state)
{
    (void)state;
    const uint64_t numbers[] = {1u,
                                WORDS - 1,
                                WORDS + 1,
                                1000000,
                                1ull << 32,
                                1ull << 60,
                                1ull << 61,
                                (1ull << 61) - 1,
                                1ull << 63,
                                UINT64_MAX,
                                UINT64_MAX - 1,
                                UINT64_MAX - 7,
                                UINT64_MAX / 8,
                                UINT64_MAX / 8 + 1};
    size_t size;
    unsigned char *block = make_table(words, WORDS, &size);
    for (size_t at = 8; at < HEAD + 8 * (WORDS + 1); at += 8) {
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            unsigned char kept[8];
            memcpy(kept, block + at, 8);
            put_u64(block + at, numbers[i]);
            if (memcmp(kept, block + at, 8) != 0) {
                struct strtab t;
                struct err e = ERR_INIT;
                if (strtab_view(&t, block, size, true, &e) == 0) {
                    use_view(&t); /* another place to cut two strings may be legal */
                    assert_true(at > HEAD && at < HEAD + 8 * WORDS);
                } else {
                    assert_true(err_isset(&e));
                }
            }
            memcpy(block + at, kept, 8);
        }
    }
    mem_free(block);
}

static void mutations_never_crash(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 8, 0);
    size_t size;
    unsigned char *block = make_table(words, WORDS, &size);
    unsigned char *copy = mem_array(size, 1);
    long accepted = 0;
    for (int round = 0; round < 100000; round++) {
        memcpy(copy, block, size);
        for (uint32_t flips = 1 + rng_below(&r, 3); flips > 0; flips--) {
            copy[8 + rng_below(&r, (uint32_t)size - 8)] = (unsigned char)rng_below(&r, 1 + rng_below(&r, 256));
        }
        size_t n = rng_below(&r, 4) == 0 ? rng_below(&r, (uint32_t)size + 1) : size;
        struct strtab t;
        struct err e = ERR_INIT;
        if (strtab_view(&t, copy, n, true, &e) == 0) {
            use_view(&t);
            accepted++;
        }
    }
    assert_true(accepted > 0 && accepted < 50000);
    mem_free(copy);
    mem_free(block);
}

static void comparing_spans(void **state)
{
    (void)state;
    for (size_t i = 0; i < WORDS; i++) {
        for (size_t j = 0; j < WORDS; j++) {
            struct span a = {words[i], strlen(words[i])};
            struct span b = {words[j], strlen(words[j])};
            int order = span_compare(&a, &b);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j)); /* words[] is in order */
        }
    }
    struct span nul = {"a\0b", 3};
    struct span a = {"a", 1};
    struct span none = {NULL, 0};
    assert_true(span_compare(&a, &nul) < 0);
    assert_true(span_compare(&none, &a) < 0 && span_compare(&none, &none) == 0);
}

static void writing_without_memory_is_seen(void **state)
{
    (void)state;
    struct span spans[100];
    char text[100][40];
    for (size_t i = 0; i < 100; i++) {
        snprintf(text[i], sizeof text[i], "%030zu", i);
        spans[i] = (struct span){text[i], strlen(text[i])};
    }
    long n = 1;
    for (bool complete = false; !complete; n++) {
        struct buf b = BUF_INIT;
        mem_fail_at(n);
        strtab_write(&b, spans, 100);
        mem_fail_at(0);
        complete = !buf_failed(&b);
        buf_release(&b);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(known_bytes),
        cmocka_unit_test(order_is_checked_only_when_sorted),
        cmocka_unit_test(cut_or_extended_is_refused),
        cmocka_unit_test(hostile_numbers_are_refused),
        cmocka_unit_test(mutations_never_crash),
        cmocka_unit_test(comparing_spans),
        cmocka_unit_test(writing_without_memory_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
