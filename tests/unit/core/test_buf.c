#include "tests/unit/core/support.h"

#include <jansson.h>

#include "core/buf.h"
#include "core/mem.h"

static void building_text(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    assert_string_equal(b.data, "");
    buf_clear(&b);
    buf_puts(&b, "");
    buf_add(&b, NULL, 0);
    assert_string_equal(b.data, "");
    buf_puts(&b, "a");
    buf_printf(&b, "%d-%s", 12, "x");
    buf_add(&b, "\0z", 2);
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "a12-x\0z", 8);
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_release(&b);
    assert_string_equal(b.data, "");
    buf_release(&b);
}

static void growing_keeps_everything(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    for (int i = 0; i < 20000; i++) {
        buf_printf(&b, "%05d", i);
        assert_int_equal(b.data[b.len], '\0');
    }
    assert_int_equal(b.len, 100000);
    for (int i = 0; i < 20000; i++) {
        char wanted[16];
        snprintf(wanted, sizeof wanted, "%05d", i);
        assert_memory_equal(b.data + 5 * i, wanted, 5);
    }
    buf_release(&b);
}

static void failure_is_sticky(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    buf_puts(&b, "kept");
    char big[300];
    memset(big, 'x', sizeof big);
    mem_fail_at(1);
    buf_add(&b, big, sizeof big);
    assert_true(buf_failed(&b));
    buf_puts(&b, "more");
    buf_printf(&b, "%d", 1);
    buf_json_string(&b, "s", 1);
    assert_true(buf_failed(&b));
    assert_string_equal(b.data, "kept");
    buf_clear(&b);
    assert_false(buf_failed(&b));
    buf_puts(&b, "again");
    assert_string_equal(b.data, "again");
    buf_release(&b);

    mem_fail_at(1);
    buf_printf(&b, "%s", "first");
    assert_true(buf_failed(&b));
    assert_string_equal(b.data, "");
    buf_release(&b);
}

static void check_json(const char *text, size_t n, const char *wanted)
{
    struct buf b = BUF_INIT;
    buf_json_string(&b, text, n);
    assert_string_equal(b.data, wanted);
    buf_release(&b);
}

static void json_strings(void **state)
{
    (void)state;
    check_json(NULL, 0, "\"\"");
    check_json("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    check_json("\n\t\0\x1f\x7f", 5, "\"\\u000a\\u0009\\u0000\\u001f\x7f\"");
    check_json("h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\xac", 12, "\"h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\xac\"");
    check_json("\xff", 1, "\"\\ufffd\"");
    check_json("\xc3", 1, "\"\\ufffd\"");            /* cut */
    check_json("\xc3(", 2, "\"\\ufffd(\"");          /* no continuation */
    check_json("\xc0\x80", 2, "\"\\ufffd\\ufffd\""); /* overlong NUL */
    check_json("\xe0\x80\xaf", 3, "\"\\ufffd\\ufffd\\ufffd\"");
    check_json("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");            /* surrogate */
    check_json("\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\""); /* beyond U+10FFFF */
    check_json("\xf4\x8f\xbf\xbf", 4, "\"\xf4\x8f\xbf\xbf\"");
    check_json("\xed\x9f\xbf\xee\x80\x80", 6, "\"\xed\x9f\xbf\xee\x80\x80\"");
}

/* Whatever the bytes, another JSON reader accepts the result; valid UTF-8 comes back as it was. */
static void json_strings_are_json(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5, 5);
    for (int round = 0; round < 20000; round++) {
        char text[12];
        size_t n = rng_below(&r, sizeof text + 1);
        bool ascii = round % 2 == 0;
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)(ascii ? 1 + rng_below(&r, 126) : rng_below(&r, 256));
        }
        struct buf b = BUF_INIT;
        buf_json_string(&b, text, n);
        json_t *json = json_loadb(b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_true(json_is_string(json));
        if (ascii) {
            assert_int_equal(json_string_length(json), n);
            assert_memory_equal(json_string_value(json), text, n);
        }
        json_decref(json);
        buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(building_text),         cmocka_unit_test(growing_keeps_everything),
        cmocka_unit_test(failure_is_sticky),     cmocka_unit_test(json_strings),
        cmocka_unit_test(json_strings_are_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
