/* gzip: what is understood of the headers, round trips, bombs, and every way a stream can be damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "server/gzip.h"

static void test_headers(void **state)
{
    (void)state;
    assert_true(gzip_is_name("gzip") && gzip_is_name("GZip") && gzip_is_name("x-gzip"));
    assert_false(gzip_is_name("") || gzip_is_name("gzip, gzip") || gzip_is_name("deflate") || gzip_is_name("gzi"));
    const char *yes[] = {
        "gzip",    "deflate, gzip",         "GZIP;q=0.5", "gzip ; q=1", "*", "x-gzip,*", "br;q=1,\tgzip",
        "*;q=0.1", "identity, gzip;q=0.001"};
    const char *no[] = {"",         "br",         "gzip;q=0",        "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "gzipped",
                        "identity", "gzip;Q=0.0", "br, deflate;q=1", ",,;",           "x",     "not gzip"};
    assert_false(gzip_is_accepted(NULL));
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        assert_true(gzip_is_accepted(yes[i]));
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        assert_false(gzip_is_accepted(no[i]));
    }
}

/* Packs n bytes, added to the buffer in pieces; new memory. */
static char *pack(const char *bytes, size_t n, size_t piece, size_t *packed)
{
    struct gzip_packer *p = gzip_packer_new();
    struct evbuffer *from = evbuffer_new();
    struct evbuffer *to = evbuffer_new();
    for (size_t at = 0; at < n; at += piece) {
        evbuffer_add_reference(from, bytes + at, n - at < piece ? n - at : piece, NULL, NULL);
    }
    assert_int_equal(gzip_pack(p, from, to), 0);
    assert_int_equal(evbuffer_get_length(from), n);
    *packed = evbuffer_get_length(to);
    char *out = malloc(*packed);
    evbuffer_remove(to, out, *packed);
    evbuffer_free(from);
    evbuffer_free(to);
    gzip_packer_free(p);
    return out;
}

static void expect_round_trip(const char *bytes, size_t n, size_t piece)
{
    size_t packed;
    size_t size;
    char *out;
    char *text = pack(bytes, n, piece, &packed);
    assert_int_equal(gzip_unpack(text, packed, n, &out, &size), GZIP_GOOD);
    assert_int_equal(size, n);
    assert_memory_equal(out, bytes, n);
    mem_free(out);
    if (n > 0) {
        assert_int_equal(gzip_unpack(text, packed, n - 1, &out, &size), GZIP_TOO_LARGE);
        assert_null(out);
    }
    free(text);
}

static void test_round_trips(void **state)
{
    (void)state;
    enum { MOST = 300000 };
    char *bytes = malloc(MOST);
    unsigned seed = 3;
    for (size_t i = 0; i < MOST; i++) {
        bytes[i] = (char)(i < MOST / 2 ? rand_r(&seed) : rand_r(&seed) % 3);
    }
    const size_t sizes[] = {1, 2, 4095, 4096, 4097, 16384, 100000, MOST};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        expect_round_trip(bytes, sizes[i], sizes[i]);
        expect_round_trip(bytes + MOST - sizes[i], sizes[i], sizes[i] / 200 + 1);
    }
    free(bytes);
}

static void test_empty(void **state)
{
    (void)state;
    char *out;
    size_t size;
    size_t packed;
    char *text = pack("", 0, 1, &packed);
    assert_int_equal(gzip_unpack(text, packed, 10, &out, &size), GZIP_GOOD);
    assert_int_equal(size, 0);
    mem_free(out);
    free(text);
    assert_int_equal(gzip_unpack("", 0, 10, &out, &size), GZIP_DAMAGED);
}

static void test_a_bomb(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20, LIMIT = 1 << 20 };
    char *zeros = calloc(SIZE, 1);
    char *out;
    size_t size;
    size_t packed;
    char *text = pack(zeros, SIZE, SIZE, &packed);
    assert_true(packed < SIZE / 200);
    assert_int_equal(gzip_unpack(text, packed, LIMIT, &out, &size), GZIP_TOO_LARGE);
    assert_int_equal(size, LIMIT + 1);
    assert_null(out);
    free(text);
    free(zeros);
}

/* Cut everywhere, every bit flipped, bytes behind: never good with other content. */
static void test_damage(void **state)
{
    (void)state;
    char bytes[600];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(i * i % 251);
    }
    char *out;
    size_t size;
    size_t packed;
    char *text = pack(bytes, sizeof bytes, 100, &packed);
    for (size_t n = 0; n < packed; n++) {
        assert_int_equal(gzip_unpack(text, n, 10000, &out, &size), GZIP_DAMAGED);
    }
    for (size_t i = 0; i < packed * 8; i++) {
        text[i / 8] ^= (char)(1 << i % 8);
        if (gzip_unpack(text, packed, 10000, &out, &size) == GZIP_GOOD) { /* a bit that means nothing, as the time */
            assert_memory_equal(out, bytes, sizeof bytes);
            mem_free(out);
        }
        text[i / 8] ^= (char)(1 << i % 8);
    }
    char *more = malloc(packed * 2);
    memcpy(more, text, packed);
    memcpy(more + packed, text, packed);
    assert_int_equal(gzip_unpack(more, packed * 2, 10000, &out, &size), GZIP_DAMAGED);
    assert_int_equal(gzip_unpack(more, packed + 1, 10000, &out, &size), GZIP_DAMAGED);
    free(more);
    free(text);
}

static void test_memory(void **state)
{
    (void)state;
    char bytes[20000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(i % 7);
    }
    char *out;
    size_t size;
    size_t packed;
    char *text = pack(bytes, sizeof bytes, 5000, &packed);
    enum gzip_result result = GZIP_NO_MEMORY;
    long at = 1;
    for (; result != GZIP_GOOD; at++) {
        mem_fail_at(at);
        result = gzip_unpack(text, packed, sizeof bytes, &out, &size);
        mem_fail_at(0);
        assert_true(result == GZIP_GOOD || (result == GZIP_NO_MEMORY && out == NULL));
    }
    assert_true(at > 3);
    mem_free(out);
    free(text);
    mem_fail_at(1);
    assert_null(gzip_packer_new());
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers), cmocka_unit_test(test_round_trips), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_a_bomb),  cmocka_unit_test(test_damage),      cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
