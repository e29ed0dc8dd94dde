/*
 * Checkpoint files: what was written comes back, what is damaged anywhere is refused, what fails leaves the one before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fileio.h"
#include "core/mem.h"
#include "tests/unit/train/files.h"
#include "train/checkpoint.h"

static float first[5];
static uint32_t second[3];
static const struct checkpoint_array arrays[] = {
    {"value.user.embedding.user_id", first, sizeof first},
    {"empty", second, 0},
    {"current.x", second, sizeof second},
};

static void fill(float x)
{
    for (int i = 0; i < 5; i++) {
        first[i] = x * (float)(i + 1);
    }
    for (uint32_t i = 0; i < 3; i++) {
        second[i] = 7 + i;
    }
}

static int write_one(const char *path, double loss, struct err *e)
{
    json_t *state = json_pack("{s:i, s:f}", "epoch", 3, "loss", loss);
    int result = checkpoint_write(path, state, arrays, 3, e);
    json_decref(state);
    return result;
}

static void expect_refused(const char *path, const char *reason)
{
    struct err e = ERR_INIT;
    struct checkpoint *c = checkpoint_open(path, &e);
    assert_null(c);
    if (strstr(e.message, reason) == NULL || strstr(e.message, path) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", e.message, reason);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    const char *path = files_path("checkpoint");
    const double loss = 0.1 + 0.2; /* 17 digits, to the bit */
    fill(1.5f);
    assert_int_equal(write_one(path, loss, &e), 0);
    fill(0);
    memset(second, 0, sizeof second);
    struct checkpoint *c = checkpoint_open(path, &e);
    assert_non_null(c);
    const json_t *s = checkpoint_state(c);
    assert_int_equal(json_integer_value(json_object_get(s, "epoch")), 3);
    assert_true(json_real_value(json_object_get(s, "loss")) == loss);
    assert_int_equal(checkpoint_load(c, arrays, 3, &e), 0);
    assert_true(first[4] == 7.5f && second[2] == 9);
    assert_int_equal(checkpoint_load(c, &arrays[2], 1, &e), 0); /* a part */
    checkpoint_close(c);
    checkpoint_close(NULL);
}

static void test_wrong_arrays(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    const char *path = files_path("checkpoint");
    fill(1);
    assert_int_equal(write_one(path, 0, &e), 0);
    struct checkpoint *c = checkpoint_open(path, &e);
    struct checkpoint_array wrong = {"current.x", second, 8};
    assert_int_equal(checkpoint_load(c, &wrong, 1, &e), -1);
    assert_non_null(strstr(e.message, "current.x has 12 bytes, and should have 8"));
    err_clear(&e);
    wrong = (struct checkpoint_array){"state0.x", second, 12};
    assert_int_equal(checkpoint_load(c, &wrong, 1, &e), -1);
    assert_non_null(strstr(e.message, "state0.x is missing"));
    checkpoint_close(c);
}

/* Cut at every byte, and with every byte changed. */
static void test_damage(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    size_t size;
    const char *path = files_path("checkpoint");
    fill(2);
    assert_int_equal(write_one(path, 1, &e), 0);
    char *whole = file_read(path, 1 << 20, &size, &e);
    assert_non_null(whole);
    for (size_t i = 0; i < size; i++) {
        unlink(path);
        assert_int_equal(file_write(path, whole, i, &e), 0);
        expect_refused(path, "fit without --resume starts anew");
        unlink(path);
        whole[i] ^= 0x10;
        assert_int_equal(file_write(path, whole, size, &e), 0);
        expect_refused(path, "fit without --resume starts anew");
        whole[i] ^= 0x10;
    }
    mem_free(whole);
}

/* A right checksum over nonsense. */
static void put(const char *path, uint64_t length, const char *head, size_t more)
{
    struct err e = ERR_INIT;
    char text[512];
    size_t n = 0;
    memcpy(text, "recalld checkpoint 1\n", 21);
    memcpy(text + 21, &length, 8);
    n = 29 + strlen(head);
    memcpy(text + 29, head, strlen(head));
    memset(text + n, 0, more);
    n += more;
    bytes_sha256(text, n, text + n);
    text[n + 64] = '\n';
    unlink(path);
    assert_int_equal(file_write(path, text, n + 65, &e), 0);
}

static void test_nonsense(void **state)
{
    (void)state;
    const char *path = files_path("checkpoint");
    const char *good = "{\"state\":{},\"arrays\":[{\"name\":\"a\",\"bytes\":4}]}";
    struct err e = ERR_INIT;
    put(path, strlen(good), good, 4);
    struct checkpoint *c = checkpoint_open(path, &e);
    assert_non_null(c);
    checkpoint_close(c);
    put(path, strlen(good), good, 5);
    expect_refused(path, "1 bytes too many");
    put(path, strlen(good), good, 3);
    expect_refused(path, "does not fit");
    put(path, UINT64_MAX - 3, good, 4);
    expect_refused(path, "impossible length");
    put(path, 1000, good, 4);
    expect_refused(path, "impossible length");
    const char *bad[] = {"",
                         "[]",
                         "{}",
                         "{\"state\":{}}",
                         "{\"state\":1,\"arrays\":[]}",
                         "{\"state\":{},\"arrays\":{}}",
                         "{\"state\":{},\"arrays\":[1]}",
                         "{\"state\":{},\"arrays\":[{\"name\":1,\"bytes\":0}]}",
                         "{\"state\":{},\"arrays\":[{\"name\":\"a\",\"bytes\":-1}]}",
                         "{\"state\":{},\"arrays\":[{\"name\":\"a\",\"bytes\":9223372036854775807}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(path, strlen(bad[i]), bad[i], 0);
        expect_refused(path, "damaged");
    }
    unlink(path);
    expect_refused(path, "cannot open");
}

static void test_failure_leaves_the_one_before(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    const char *path = files_path("checkpoint");
    char beside[512];
    snprintf(beside, sizeof beside, "%s.new", path);
    fill(3);
    assert_int_equal(write_one(path, 0, &e), 0);
    rmdir(beside);
    assert_int_equal(mkdir(beside, 0755), 0); /* in the way */
    assert_int_equal(write_one(path, 0, &e), -1);
    assert_non_null(strstr(e.message, "cannot create"));
    rmdir(beside);
    for (long n = 1;; n++) {
        err_clear(&e);
        mem_fail_at(n);
        int result = write_one(path, 0, &e);
        mem_fail_at(0);
        assert_false(file_exists(beside));
        struct checkpoint *c = checkpoint_open(path, &(struct err)ERR_INIT);
        assert_non_null(c);
        checkpoint_close(c);
        if (result == 0) {
            assert_true(n > 3);
            break;
        }
        assert_true(err_isset(&e));
    }
    for (long n = 1;; n++) {
        err_clear(&e);
        mem_fail_at(n);
        struct checkpoint *c = checkpoint_open(path, &e);
        mem_fail_at(0);
        if (c != NULL) {
            checkpoint_close(c);
            assert_true(n > 2);
            break;
        }
        assert_true(err_isset(&e));
    }
}

static void test_remove(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    const char *path = files_path("checkpoint");
    char beside[512];
    snprintf(beside, sizeof beside, "%s.new", path);
    fill(1);
    assert_int_equal(write_one(path, 0, &e), 0);
    assert_int_equal(file_write(beside, "x", 1, &e), 0);
    assert_int_equal(checkpoint_remove(path, &e), 0);
    assert_false(file_exists(path) || file_exists(beside));
    assert_int_equal(checkpoint_remove(path, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_wrong_arrays),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_failure_leaves_the_one_before),
        cmocka_unit_test(test_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
