/*
 * Text and numbers for HTML: what data may hold, and how numbers look.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "train/html.h"

static void expect_text(const char *text, size_t n, const char *expected)
{
    struct buf b = BUF_INIT;
    html_text(&b, text, n);
    assert_string_equal(b.data, expected);
    assert_int_equal(b.len, strlen(expected)); /* no '\0' inside */
    buf_release(&b);
}

static void test_text(void **state)
{
    (void)state;
    expect_text("<script>alert(\"&'\")</script>", 28, "&lt;script&gt;alert(&quot;&amp;&#39;&quot;)&lt;/script&gt;");
    expect_text("a\tb\nc", 5, "a\tb\nc");
    expect_text("a\0b\x01\x7f", 5,
                "a\xef\xbf\xbd"
                "b\xef\xbf\xbd\xef\xbf\xbd");
    expect_text("caf\xc3\xa9 \xf0\x9f\x8e\xac", 10, "caf\xc3\xa9 \xf0\x9f\x8e\xac");
    expect_text("\xff\xc3", 2, "\xef\xbf\xbd\xef\xbf\xbd");                  /* not UTF-8, cut UTF-8 */
    expect_text("\xc0\xbcscript>", 9, "\xef\xbf\xbd\xef\xbf\xbdscript&gt;"); /* an overlong < */
    expect_text("\xc2\x85", 2, "\xef\xbf\xbd");                              /* a control character of two bytes */
    expect_text("", 0, "");
}

static void expect_label(const char *text, size_t max, const char *expected)
{
    struct buf b = BUF_INIT;
    html_label(&b, text, strlen(text), max);
    assert_string_equal(b.data, expected);
    buf_release(&b);
}

static void test_label(void **state)
{
    (void)state;
    expect_label("abcde", 5, "abcde");
    expect_label("abcdef", 5, "abcd\xe2\x80\xa6");
    expect_label("\xc3\xa9\xc3\xa9\xc3\xa9", 3, "\xc3\xa9\xc3\xa9\xc3\xa9"); /* characters, not bytes */
    expect_label("\xc3\xa9\xc3\xa9\xc3\xa9", 2, "\xc3\xa9\xe2\x80\xa6");
    expect_label("\xff\xff\xff", 2, "\xef\xbf\xbd\xe2\x80\xa6");
    expect_label("<<<<", 3, "&lt;&lt;\xe2\x80\xa6");
    expect_label("a\nb\tc\rd", 10, "a b c d");
    expect_label("abc", 1, "\xe2\x80\xa6");
    expect_label("", 5, "");
}

static void expect_number(double x, int decimals, const char *expected)
{
    struct buf b = BUF_INIT;
    html_number(&b, x, decimals);
    assert_string_equal(b.data, expected);
    buf_release(&b);
}

static void test_number(void **state)
{
    (void)state;
    expect_number(0, 0, "0");
    expect_number(0.12345, 4, "0.1235");
    expect_number(999, 0, "999");
    expect_number(1000, 0, "1,000");
    expect_number(-1234567.891, 2,
                  "\xe2\x88\x92"
                  "1,234,567.89");
    expect_number(-0.00001, 2, "0.00");
    expect_number(-0.0, 0, "0");
    expect_number(NAN, 2, "\xe2\x80\x93");
    expect_number(-INFINITY, 2, "\xe2\x80\x93");
    expect_number(1e300, 2, "1.000e+300");
    expect_number(-1e15, 0,
                  "\xe2\x88\x92"
                  "1.000e+15");
}

static void test_no_memory(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    mem_fail_at(1);
    html_text(&b, "<a>", 3);
    html_label(&b, "<a>", 3, 2);
    html_number(&b, 1, 1);
    assert_true(buf_failed(&b));
    mem_fail_at(0);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_label),
        cmocka_unit_test(test_number),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
