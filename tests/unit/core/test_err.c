#include "tests/unit/core/support.h"

static void first_error_wins(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_false(err_isset(&e));
    assert_int_equal(err_set(&e, "line %d: bad", 7), -1);
    assert_int_equal(err_set(&e, "later"), -1);
    assert_int_equal(err_nomem(&e), -1);
    assert_string_equal(e.message, "line 7: bad");
    err_clear(&e);
    assert_false(err_isset(&e));
    err_nomem(&e);
    assert_string_equal(e.message, "out of memory");
}

static void null_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, "x"), -1);
    assert_int_equal(err_prefix(NULL, "x"), -1);
    assert_false(err_isset(NULL));
}

static void prefix_goes_in_front(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(err_prefix(&e, "nothing"), -1);
    assert_false(err_isset(&e));
    err_set(&e, "reason");
    err_prefix(&e, "file %s", "a");
    err_prefix(&e, "bundle %s", "b");
    assert_string_equal(e.message, "bundle b: file a: reason");
}

/* A message is cut, never overflowed, at every length near the limit. */
static void long_messages_are_cut(void **state)
{
    (void)state;
    char text[2 * ERR_MESSAGE_MAX];
    for (size_t n = ERR_MESSAGE_MAX - 4; n < ERR_MESSAGE_MAX + 4; n++) {
        struct err e = ERR_INIT;
        memset(text, 'a', n);
        text[n] = '\0';
        err_set(&e, "%s", text);
        assert_int_equal(strlen(e.message), n < ERR_MESSAGE_MAX ? n : ERR_MESSAGE_MAX - 1);
        for (size_t p = ERR_MESSAGE_MAX - 4; p < ERR_MESSAGE_MAX + 4; p++) {
            struct err f = ERR_INIT;
            err_set(&f, "reason");
            memset(text, 'p', p);
            text[p] = '\0';
            err_prefix(&f, "%s", text);
            assert_true(strlen(f.message) < ERR_MESSAGE_MAX && f.message[0] == 'p');
        }
    }
    struct err e = ERR_INIT;
    err_set(&e, "reason");
    memset(text, 'p', 1000);
    text[1000] = '\0';
    err_prefix(&e, "%s", text);
    assert_string_equal(e.message + 1000, ": reason");
}

static void hostile_text_stays_one_line(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    err_set(&e, "bad name \"a\nb\r\t\x1b[2J\x7f\"");
    assert_string_equal(e.message, "bad name \"a b   [2J \"");
    err_prefix(&e, "dir\n");
    assert_string_equal(e.message, "dir : bad name \"a b   [2J \"");
}

static void an_error_without_words_is_an_error(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    err_set(&e, "%s", "");
    assert_true(err_isset(&e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(null_is_allowed),
        cmocka_unit_test(prefix_goes_in_front),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(hostile_text_stays_one_line),
        cmocka_unit_test(an_error_without_words_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
