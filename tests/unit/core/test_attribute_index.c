#include "tests/unit/core/support.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "core/attribute_index.h"
#include "core/buf.h"
#include "core/mem.h"

enum { WORDS = 2 };

static struct attribute_index *index_of(const char *const *texts, size_t n, struct err *e)
{
    struct span spans[100] = {{NULL, 0}};
    struct buf block = BUF_INIT;
    struct strtab values;
    for (size_t i = 0; i < n; i++) {
        spans[i] = (struct span){texts[i], strlen(texts[i])};
    }
    strtab_write(&block, spans, n);
    assert_int_equal(strtab_view(&values, block.data, block.len, false, e), 0);
    struct attribute_index *x = attribute_index_new(&values, e);
    buf_release(&block); /* nothing is borrowed */
    return x;
}

static uint64_t equal(const struct attribute_index *x, const char *text)
{
    uint64_t bits[WORDS] = {0};
    attribute_index_equal(x, text, strlen(text), bits);
    assert_true(bits[1] == 0);
    return bits[0];
}

static uint64_t between(const struct attribute_index *x, double low, bool low_open, double high, bool high_open)
{
    uint64_t bits[WORDS] = {0};
    attribute_index_between(x, &(struct number_range){low, high, low_open, high_open}, bits);
    return bits[0];
}

#define ROW(i) (UINT64_C(1) << (i))

static void values_of_every_kind(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    const char *const texts[] = {
        "\"a\"",     "null",        "7",         "\"7\"",     "true",        "[\"a\",\"b\",\"a\"]",
        "[1, 2.5]",  "\"\\u0061\"", "\"\\\"q\"", "{\"k\":1}", "[]",          "-3",
        "[[\"a\"]]", "1e3",         "\"x y\"",   "\"\"",      "[null,\"b\"]"};
    struct attribute_index *x = index_of(texts, sizeof texts / sizeof *texts, &e);
    assert_non_null(x);
    assert_true(equal(x, "a") == (ROW(0) | ROW(5) | ROW(7)));
    assert_true(equal(x, "b") == (ROW(5) | ROW(16)));
    assert_true(equal(x, "7") == (ROW(2) | ROW(3)));
    assert_true(equal(x, "true") == ROW(4));
    assert_true(equal(x, "\"q") == ROW(8));
    assert_true(equal(x, "x y") == ROW(14));
    assert_true(equal(x, "") == ROW(15));
    assert_true(equal(x, "null") == 0);
    assert_true(equal(x, "k") == 0);
    assert_true(between(x, -INFINITY, false, INFINITY, false) == (ROW(2) | ROW(3) | ROW(6) | ROW(11) | ROW(13)));
    assert_true(between(x, 7, false, 7, false) == (ROW(2) | ROW(3)));
    assert_true(between(x, 7, true, INFINITY, false) == ROW(13));
    assert_true(between(x, -INFINITY, false, 7, true) == (ROW(6) | ROW(11)));
    assert_true(between(x, 2, false, 3, false) == ROW(6));
    assert_true(between(x, 3, false, 2, false) == 0);
    assert_int_equal(attribute_index_numbers(x), 6);
    assert_true(attribute_index_bytes(x) > 0);
    attribute_index_free(x);
}

static void no_items(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct attribute_index *x = index_of(NULL, 0, &e);
    assert_non_null(x);
    assert_int_equal(attribute_index_values(x), 0);
    attribute_index_free(x);
}

static void what_is_no_json_is_named(void **state)
{
    (void)state;
    const char *const bad[] = {"", "nul", "01", "\"a", "\"a\"b\"", "[1", "a", "1 2", "\"\x01\"", "'a'", "{\"a\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = ERR_INIT;
        const char *const texts[] = {"1", bad[i]};
        assert_null(index_of(texts, 2, &e));
        assert_non_null(strstr(e.message, "row 1: not a JSON text"));
    }
}

/* Every row is found by its own value and by its number, in columns of many rows. */
static void random_columns(void **state)
{
    (void)state;
    enum { ROWS = 3000, VALUES = 40 };
    static char text[ROWS][16];
    static struct span spans[ROWS];
    static int number[ROWS];
    struct err e = ERR_INIT;
    struct rng r;
    struct buf block = BUF_INIT;
    struct strtab values;
    rng_seed(&r, 1, 2);
    for (size_t i = 0; i < ROWS; i++) {
        number[i] = (int)rng_below(&r, VALUES) - 10;
        snprintf(text[i], sizeof text[i], i % 2 == 0 ? "%d" : "\"%d\"", number[i]);
        spans[i] = (struct span){text[i], strlen(text[i])};
    }
    strtab_write(&block, spans, ROWS);
    assert_int_equal(strtab_view(&values, block.data, block.len, false, &e), 0);
    struct attribute_index *x = attribute_index_new(&values, &e);
    assert_int_equal(attribute_index_values(x), VALUES);
    for (int v = -10; v < VALUES - 10; v++) {
        static uint64_t same[ROWS / 64 + 1], above[ROWS / 64 + 1];
        char value[16];
        memset(same, 0, sizeof same);
        memset(above, 0, sizeof above);
        attribute_index_equal(x, value, (size_t)snprintf(value, sizeof value, "%d", v), same);
        attribute_index_between(x, &(struct number_range){v, INFINITY, true, false}, above);
        for (size_t i = 0; i < ROWS; i++) {
            assert_int_equal(same[i / 64] >> i % 64 & 1, number[i] == v);
            assert_int_equal(above[i / 64] >> i % 64 & 1, number[i] > v);
        }
    }
    attribute_index_free(x);
    buf_release(&block);
}

static void short_memory(void **state)
{
    (void)state;
    const char *const texts[] = {"1", "\"a\"", "[\"a\", 2]"};
    struct span spans[3];
    struct buf block = BUF_INIT;
    struct strtab values;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < 3; i++) {
        spans[i] = (struct span){texts[i], strlen(texts[i])};
    }
    strtab_write(&block, spans, 3);
    assert_int_equal(strtab_view(&values, block.data, block.len, false, &e), 0);
    for (long n = 1;; n++) {
        err_clear(&e);
        mem_fail_at(n);
        struct attribute_index *x = attribute_index_new(&values, &e);
        mem_fail_at(0);
        assert_int_equal(x == NULL, err_isset(&e));
        attribute_index_free(x);
        if (x != NULL) {
            assert_true(n > 5);
            break;
        }
    }
    buf_release(&block);
}

static void *no_malloc(size_t n)
{
    (void)n;
    return NULL;
}

/* As jansson writes them, but without memory, of which jansson needs some. */
static void texts_of_values(void **state)
{
    (void)state;
    static const double numbers[] = {
        0.0,  -0.0, 1.0,   -7.0,  0.1,    2.5,    1e15,  123456789012345678.0,   1e20, 1e-5,
        1e-7, 1e17, 1e100, 1e-10, 1e-300, 5e-324, 1e308, -1.7976931348623157e308};
    uint64_t seed = 3;
    for (size_t i = 0; i < 20000; i++) {
        char room[ATTRIBUTE_TEXT_MAX];
        char wanted[ATTRIBUTE_TEXT_MAX];
        double number = i < sizeof numbers / sizeof *numbers ? numbers[i] : 0.0;
        for (; number == 0.0 && i >= sizeof numbers / sizeof *numbers;) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            memcpy(&number, &seed, sizeof number);
            number = isfinite(number) ? number : 0.0;
        }
        json_t *value = i % 3 == 2 ? json_integer((json_int_t)seed) : json_real(number);
        size_t n = json_dumpb(value, wanted, sizeof wanted, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        json_set_alloc_funcs(no_malloc, free);
        struct span text = attribute_value_text(value, room);
        json_set_alloc_funcs(malloc, free);
        assert_int_equal(text.length, n);
        assert_memory_equal(text.text, wanted, n);
        json_decref(value);
    }
    char room[ATTRIBUTE_TEXT_MAX];
    assert_string_equal(attribute_value_text(json_true(), room).text, "true");
    assert_string_equal(attribute_value_text(json_false(), room).text, "false");
    assert_null(attribute_value_text(json_null(), room).text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(no_items),
        cmocka_unit_test(what_is_no_json_is_named),
        cmocka_unit_test(random_columns),
        cmocka_unit_test(short_memory),
        cmocka_unit_test(texts_of_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
