/* Files of tokens: which are taken, what is said about the others, and what is found in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "server/tokens.h"

static char path[] = "/tmp/test_tokens.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    assert_int_equal(close(fd), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static struct tokens *load(const char *text)
{
    struct err e = ERR_INIT;
    write_file(text, strlen(text));
    struct tokens *t = tokens_load(path, &e);
    if (!t) {
        fail_msg("%s", e.message);
    }
    return t;
}

static void expect_error(const char *what)
{
    struct err e = ERR_INIT;
    assert_null(tokens_load(path, &e));
    assert_non_null(strstr(e.message, what));
    assert_non_null(strstr(e.message, path));
    assert_null(strstr(e.message, "secret"));
}

static bool have(const struct tokens *t, const char *token)
{
    return tokens_have(t, token, strlen(token));
}

static void test_found(void **state)
{
    (void)state;
    struct tokens *t = load("# of the ranking service\n\nabcdefghijklmnop\r\nQRSTUVWXYZ-._~+/0123==\n");
    assert_true(have(t, "abcdefghijklmnop"));
    assert_true(have(t, "QRSTUVWXYZ-._~+/0123=="));
    const char *others[] = {"", "abcdefghijklmno", "abcdefghijklmnopq", "Abcdefghijklmnop", "# of the ranking service"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(have(t, others[i]));
    }
    assert_false(tokens_have(t, "abcdefghijklmnop\0", 18));
    tokens_free(t);
}

static void test_longest(void **state)
{
    (void)state;
    char token[TOKEN_MAX + 2] = "";
    memset(token, 'a', TOKEN_MAX);
    struct tokens *t = load(token);
    assert_true(have(t, token));
    assert_false(tokens_have(t, token, TOKEN_MAX - 1));
    token[TOKEN_MAX] = 'a';
    assert_false(have(t, token));
    tokens_free(t);
    write_file(token, TOKEN_MAX + 1);
    expect_error(":1: a token must have 16 to 256 characters");
}

static void test_many(void **state)
{
    (void)state;
    char text[(TOKENS_MAX + 1) * 20 + 1];
    size_t n = 0;
    for (size_t i = 0; i < TOKENS_MAX; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "token-number-%06zu\n", i);
    }
    struct tokens *t = load(text);
    assert_true(have(t, "token-number-000000"));
    assert_true(have(t, "token-number-000255"));
    tokens_free(t);
    snprintf(text + n, sizeof text - n, "token-number-xxxxxx\n");
    write_file(text, strlen(text));
    expect_error(":257: more than 256 tokens");
}

static void test_refused(void **state)
{
    (void)state;
    const struct {
        const char *text, *what;
    } cases[] = {
        {"", "has no token"},
        {"\n# nothing\n", "has no token"},
        {"abcdefghijklmnop\nsecret\n", ":2: a token must have"},
        {"secret token with spaces\n", ":1: a token may only have"},
        {" secretsecretsecret", ":1: a token may only have"},
        {"secret=secretsecret=\n", ":1: a token may only have"},
        {"================\n", ":1: a token may only have"},
        {"secretsecret\xc3\xa4secret\n", ":1: a token may only have"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(cases[i].text, strlen(cases[i].text));
        expect_error(cases[i].what);
    }
    write_file("abcdefghijklmnop\0q", 18);
    expect_error("not a text file");
}

static void test_modes(void **state)
{
    (void)state;
    write_file("abcdefghijklmnop\n", 17);
    const mode_t bad[] = {0604, 0644, 0602, 0620, 0666, 0601};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(chmod(path, bad[i]), 0);
        expect_error("lets others read or change it");
    }
    const mode_t good[] = {0400, 0600, 0440, 0640};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(chmod(path, good[i]), 0);
        struct tokens *t = tokens_load(path, NULL);
        assert_non_null(t);
        tokens_free(t);
    }
    struct err e = ERR_INIT;
    assert_null(tokens_load("/nowhere/tokens", &e));
    assert_non_null(strstr(e.message, "/nowhere/tokens: No such file"));
}

static void test_memory(void **state)
{
    (void)state;
    write_file("abcdefghijklmnop\n", 17);
    for (long at = 1;; at++) {
        mem_fail_at(at);
        struct tokens *t = tokens_load(path, NULL);
        mem_fail_at(0);
        if (t) {
            tokens_free(t);
            assert_true(at > 2);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),   cmocka_unit_test(test_longest), cmocka_unit_test(test_many),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_modes),   cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
