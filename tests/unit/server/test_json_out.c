/* Numbers and strings of answers: what is written parses back to the same value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/buffer.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/json_out.h"

static float parse_back(size_t (*write)(char *, float), float x)
{
    char text[FLOAT_TEXT_MAX + 1];
    size_t n = write(text, x);
    assert_true(n <= FLOAT_TEXT_MAX);
    text[n] = '\0';
    char *end;
    float back = strtof(text, &end);
    assert_ptr_equal(end, text + n);
    return back;
}

static void check_float(float x)
{
    float fast = parse_back(float_write, x);
    float slow = parse_back(float_write_naive, x);
    assert_memory_equal(&fast, &x, sizeof x);
    assert_memory_equal(&slow, &x, sizeof x);
}

static void test_floats_come_back_exactly(void **state)
{
    (void)state;
    const float edges[] = {0.0f,   -0.0f,  1.0f,       -1.0f,     0.5f,        0.1f,        9.99999999e-5f, 1e-4f,
                           1e8f,   1e7f,   99999992.f, 99999.99f, 0.99999994f, 1.0000001f,  10.0f,          100.0f,
                           1e-38f, 1e-45f, 3.4e38f,    123456.7f, 16777216.0f, 16777215.0f, 0.001f,         9.9999995f};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        check_float(edges[i]);
        check_float(nextafterf(edges[i], 1e30f));
        check_float(nextafterf(edges[i], -1e30f));
    }
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 2000000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        uint32_t half = (uint32_t)bits;
        float x;
        memcpy(&x, &half, sizeof x);
        if (isfinite(x)) {
            check_float(x);
        }
        check_float((float)half / 4294967296.0f * 2.0f - 1.0f);
    }
}

static void test_floats_look_plain(void **state)
{
    (void)state;
    const struct {
        float number;
        const char *text;
    } cases[] = {{0.5f, "0.5"}, {-1.0f, "-1"}, {100.0f, "100"},        {12.25f, "12.25"},
                 {0.0f, "0"},   {10.0f, "10"}, {0.91f, "0.910000026"}, {0.0078125f, "0.0078125"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[FLOAT_TEXT_MAX + 1];
        text[float_write(text, cases[i].number)] = '\0';
        assert_string_equal(text, cases[i].text);
    }
}

static char *finish(struct json_out *out, struct evbuffer *buffer)
{
    assert_int_equal(json_out_end(out), 0);
    size_t n = evbuffer_get_length(buffer);
    char *text = calloc(n + 1, 1);
    evbuffer_remove(buffer, text, n);
    return text;
}

static void test_strings_are_escaped(void **state)
{
    (void)state;
    static const char raw[] = "a\"b\\c\n\r\t\x01\x1f/\x7f\xc3\xa9\xf0\x9f\x8e\xac";
    struct evbuffer *buffer = evbuffer_new();
    struct json_out out;
    json_out_begin(&out, buffer, 0);
    json_out_text(&out, "[");
    json_out_string(&out, raw, sizeof raw - 1);
    json_out_text(&out, ",");
    json_out_string(&out, "", 0);
    json_out_text(&out, "]");
    char *text = finish(&out, buffer);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_array_get(json, 0)), raw);
    assert_string_equal(json_string_value(json_array_get(json, 1)), "");
    json_decref(json);
    free(text);
    evbuffer_free(buffer);
}

static void test_long_documents_hold_together(void **state)
{
    (void)state;
    struct evbuffer *buffer = evbuffer_new();
    struct json_out out;
    json_out_begin(&out, buffer, 10);
    json_out_text(&out, "[0");
    for (uint64_t i = 1; i < 20000; i++) {
        json_out_text(&out, ",");
        json_out_unsigned(&out, i);
    }
    json_out_text(&out, ",");
    json_out_float(&out, NAN);
    json_out_text(&out, "]");
    char *text = finish(&out, buffer);
    json_t *json = json_loads(text, 0, NULL);
    assert_int_equal(json_array_size(json), 20001);
    assert_int_equal(json_integer_value(json_array_get(json, 12345)), 12345);
    assert_true(json_is_null(json_array_get(json, 20000)));
    json_decref(json);
    free(text);
    evbuffer_free(buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_come_back_exactly),
        cmocka_unit_test(test_floats_look_plain),
        cmocka_unit_test(test_strings_are_escaped),
        cmocka_unit_test(test_long_documents_hold_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
