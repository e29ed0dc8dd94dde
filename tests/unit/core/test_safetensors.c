#include "tests/unit/core/support.h"

#include "core/mem.h"
#include "core/safetensors.h"

enum { LENGTH = 8 };

/* A file image: header text (padded to a multiple of 8 with spaces) and data bytes. Allocated to size, for ASan. */
struct image {
    unsigned char *bytes;
    size_t size;
};

static struct image make_image(const char *header, size_t data)
{
    size_t padded = (strlen(header) + 7) / 8 * 8;
    struct image im = {malloc(LENGTH + padded + data), LENGTH + padded + data};
    assert_non_null(im.bytes);
    uint64_t length = padded;
    memset(im.bytes, ' ', LENGTH + padded);
    memcpy(im.bytes, &length, sizeof length);
    memcpy(im.bytes + LENGTH, header, strlen(header));
    for (size_t i = 0; i < data; i++) {
        im.bytes[LENGTH + padded + i] = (unsigned char)(i % 4 == 3 ? 0x3f : 0); /* small positive floats */
    }
    return im;
}

static void check_refused(const char *header, size_t data, const char *words)
{
    struct image im = make_image(header, data);
    struct err e = ERR_INIT;
    struct safetensors *s = safetensors_open(im.bytes, im.size, &e);
    if (s != NULL) {
        fail_msg("accepted: %s", header);
    }
    check_error(&e, words);
    free(im.bytes);
}

static void check_accepted(const char *header, size_t data)
{
    struct image im = make_image(header, data);
    struct err e = ERR_INIT;
    struct safetensors *s = safetensors_open(im.bytes, im.size, &e);
    if (s == NULL) {
        fail_msg("refused: %s: %s", header, e.message);
    }
    safetensors_free(s);
    free(im.bytes);
}

#define T(name, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void round_trip(void **state)
{
    (void)state;
    float a[6] = {1, 2, 3, 4, 5, 6};
    float b[3] = {-1, 0.5f, 1e-30f};
    const struct tensor tensors[] = {
        {"user.embedding.a", 3, 2, a}, {"empty", 0, 0, a}, {"odd \"name\"", 3, 0, b}, {"none", 0, 4, a}};
    struct err e = ERR_INIT;
    check_ok(&e, safetensors_write(scratch("w"), tensors, 4, &e));
    struct file_map map;
    check_ok(&e, file_map_open(&map, scratch("w"), &e));
    uint64_t length;
    memcpy(&length, map.data, sizeof length);
    assert_int_equal((length + LENGTH) % 64, 0);
    struct safetensors *s = safetensors_open(map.data, map.size, &e);
    assert_non_null(s);
    assert_memory_equal(safetensors_get(s, "user.embedding.a", 3, 2, &e), a, sizeof a);
    assert_memory_equal(safetensors_get(s, "odd \"name\"", 3, 0, &e), b, sizeof b);
    assert_non_null(safetensors_get(s, "empty", 0, 0, &e));
    assert_non_null(safetensors_get(s, "none", 0, 4, &e));
    assert_false(err_isset(&e));
    safetensors_free(s);
    file_map_close(&map);
    assert_int_equal(safetensors_write(scratch("w"), tensors, 4, &e), -1); /* exists */
    check_error(&e, "File exists");
    assert_true(file_exists(scratch("w")));
}

static void shapes_must_match(void **state)
{
    (void)state;
    struct image im =
        make_image("{" T("m", "[2,3]", "0", "24") "," T("v", "[2]", "24", "32") "," T("s", "[]", "32", "36") "}", 36);
    struct err e = ERR_INIT;
    struct safetensors *s = safetensors_open(im.bytes, im.size, &e);
    assert_non_null(s);
    const struct {
        const char *name;
        size_t rows, columns;
    } wrong[] = {{"m", 3, 2}, {"m", 2, 0}, {"m", 6, 0}, {"m", 2, 4}, {"m", 0, 0}, {"v", 2, 1},
                 {"v", 3, 0}, {"v", 1, 2}, {"s", 1, 0}, {"s", 0, 0}, {"s", 1, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err_clear(&e);
        assert_null(safetensors_get(s, wrong[i].name, wrong[i].rows, wrong[i].columns, &e));
        check_error(&e, "schema asks for");
    }
    err_clear(&e);
    assert_null(safetensors_get(s, "user.network.0.weight", 2, 3, &e));
    check_error(&e, "user.network.0.weight is missing");
    err_clear(&e);
    assert_ptr_equal(safetensors_get(s, "v", 2, 0, &e), im.bytes + im.size - 12);
    safetensors_free(s);
    free(im.bytes);
}

static void headers_refused(void **state)
{
    (void)state;
    check_accepted("{" T("a", "[2,2]", "0", "16") "," T("b", "[1]", "16", "20") "}", 20);
    check_accepted("{" T("b", "[1]", "16", "20") "," T("a", "[2,2]", "0", "16") "}", 20); /* any order */
    check_accepted("{\"__metadata__\":{\"format\":\"pt\"}," T("a", "[1]", "0", "4") "}", 4);
    check_accepted("{}", 0);
    check_refused("{}", 4, "cover 0 of 4");
    check_refused("[]", 0, "not a JSON object");
    check_refused("x", 0, "not a JSON object");
    check_refused("{" T("a", "[1]", "0", "4") "} x", 4, "not a JSON object");
    check_refused("{" T("a", "[1]", "0", "4") "," T("a", "[1]", "0", "4") "}", 4, "duplicate");
    check_refused("{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "F16; only F32");
    check_refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "missing; only F32");
    check_refused("{\"a\":5}", 4, "only F32");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape must be");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets");
    check_refused("{" T("a", "[1,1,1]", "0", "4") "}", 4, "one or two sizes");
    check_refused("{" T("a", "[1.0]", "0", "4") "}", 4, "bad shape");
    check_refused("{" T("a", "[-1]", "0", "4") "}", 4, "bad shape");
    check_refused("{" T("a", "[\"1\"]", "0", "4") "}", 4, "bad shape");
    check_refused("{" T("a", "[2]", "0", "4") "}", 4, "do not match");
    check_refused("{" T("a", "[1]", "4", "0") "}", 4, "do not match");
    check_refused("{" T("a", "[1]", "-4", "0") "}", 4, "do not match");
    check_refused("{" T("a", "[1]", "0.0", "4") "}", 4, "do not match");
    check_refused("{" T("a", "[2]", "0", "8") "}", 4, "outside the file");
    check_refused("{" T("a", "[1]", "4", "8") "}", 4, "outside the file");
    check_refused("{" T("a", "[1]", "2", "6") "," T("b", "[1]", "6", "10") "}", 12,
                  "outside the file"); /* misaligned */
}

static void overlaps_and_holes(void **state)
{
    (void)state;
    check_refused("{" T("a", "[1]", "4", "8") "}", 8, "hole at byte 0");
    check_refused("{" T("a", "[1]", "0", "4") "}", 8, "cover 4 of 8");
    check_refused("{" T("a", "[1]", "0", "4") "," T("b", "[1]", "8", "12") "}", 12, "hole at byte 4");
    check_refused("{" T("a", "[2]", "0", "8") "," T("b", "[2]", "4", "12") "}", 12, "overlap at byte 4");
    /* an overlap as large as the hole: the sum of the sizes alone does not see it */
    check_refused("{" T("a", "[1]", "0", "4") "," T("b", "[1]", "0", "4") "}", 8, "overlap at byte 0");
    check_refused("{" T("a", "[2]", "0", "8") "," T("b", "[2]", "4", "12") "," T("c", "[1]", "16", "20") "}", 20,
                  "overlap");
    check_refused("{" T("z", "[0]", "8", "8") "," T("a", "[4]", "0", "16") "}", 16, "overlap");
    check_accepted("{" T("z", "[0]", "0", "0") "," T("a", "[4]", "0", "16") "," T("y", "[0,7]", "16", "16") "}", 16);
}

static void numbers_that_overflow(void **state)
{
    (void)state;
    const char *const sizes[] = {"4611686018427387904", "4611686018427387905", "9223372036854775807", "4294967296"};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 4; j++) {
            char header[400];
            snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"F32\",\"shape\":[%s,%s],\"data_offsets\":[0,4]}}",
                     sizes[i], sizes[j]);
            check_refused(header, 4, "tensor a");
        }
    }
    check_refused("{" T("a", "[1]", "9223372036854775804", "9223372036854775807") "}", 4, "outside");
    check_refused("{" T("a", "[99999999999999999999]", "0", "4") "}", 4, "too big");
    check_refused("{" T("a", "[0,9223372036854775807]", "0", "4") "}", 4, "do not match");
    struct err e = ERR_INIT;
    unsigned char wild[16];
    const uint64_t lengths[] = {9, 1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < 5; i++) {
        memset(wild, '{', sizeof wild);
        memcpy(wild, &lengths[i], 8);
        err_clear(&e);
        assert_null(safetensors_open(wild, sizeof wild, &e));
        check_error(&e, "header length");
    }
    memset(wild, 0, sizeof wild);
    wild[0] = 6;
    err_clear(&e);
    assert_null(safetensors_open(wild, 16, &e)); /* data would not be aligned */
    check_error(&e, "multiple of 8");
}

static void deep_json_is_refused(void **state)
{
    (void)state;
    char *deep = mem_array(200001, 1);
    memset(deep, '[', 200000);
    check_refused(deep, 0, "depth");
    mem_free(deep);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    struct image im = make_image("{" T("a", "[2,2]", "0", "16") "," T("b", "[1]", "16", "20") "}", 20);
    for (size_t n = 0; n < im.size; n++) {
        unsigned char *copy = malloc(n == 0 ? 1 : n);
        assert_non_null(copy);
        memcpy(copy, im.bytes, n);
        struct err e = ERR_INIT;
        assert_null(safetensors_open(copy, n, &e));
        assert_true(err_isset(&e));
        free(copy);
    }
    free(im.bytes);
}

/* Random changes of the header: refused, or everything it promises can be read. */
static void mutations_never_crash(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\":,0123456789 -eFabsdt\\\x80\0";
    struct rng r;
    rng_seed(&r, 9, 0);
    struct image im = make_image("{" T("a", "[2,2]", "0", "16") "," T("b", "[1]", "16", "20") "}", 20);
    unsigned char *copy = malloc(im.size);
    assert_non_null(copy);
    long accepted = 0;
    for (int round = 0; round < 50000; round++) {
        memcpy(copy, im.bytes, im.size);
        for (uint32_t flips = 1 + rng_below(&r, 3); flips > 0; flips--) {
            copy[rng_below(&r, (uint32_t)im.size - 20)] = (unsigned char)alphabet[rng_below(&r, sizeof alphabet - 1)];
        }
        struct err e = ERR_INIT;
        struct safetensors *s = safetensors_open(copy, im.size, &e);
        assert_int_equal(s == NULL, err_isset(&e));
        if (s != NULL) {
            const float *a = safetensors_get(s, "a", 2, 2, &e);
            const float *b = safetensors_get(s, "b", 1, 0, &e);
            float sum = (a == NULL ? 0 : a[0] + a[3]) + (b == NULL ? 0 : b[0]);
            assert_true(sum >= 0);
            accepted++;
        }
        safetensors_free(s);
    }
    assert_true(accepted > 0 && accepted < 25000);
    free(copy);
    free(im.bytes);
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    struct image im = make_image("{" T("a", "[2,2]", "0", "16") "," T("b", "[1]", "16", "20") "}", 20);
    float data[4] = {0};
    const struct tensor tensors[] = {{"a", 2, 2, data}};
    long n = 1;
    for (int complete = 0; !complete; n++) {
        struct err e = ERR_INIT;
        unlink(scratch("nomem"));
        mem_fail_at(n);
        struct safetensors *s = safetensors_open(im.bytes, im.size, &e);
        int written = safetensors_write(scratch("nomem"), tensors, 1, &e);
        mem_fail_at(0);
        complete = s != NULL && written == 0;
        assert_int_equal(complete, !err_isset(&e));
        assert_int_equal(written == 0, file_exists(scratch("nomem")));
        safetensors_free(s);
    }
    assert_true(n > 3);
    free(im.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(shapes_must_match),
        cmocka_unit_test(headers_refused),
        cmocka_unit_test(overlaps_and_holes),
        cmocka_unit_test(numbers_that_overflow),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(mutations_never_crash),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
