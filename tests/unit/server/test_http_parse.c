/*
 * The request-head parser: every rule with its status, every limit at -1, 0 and +1, and for every input the same
 * verdict whatever way its bytes are cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/http_parse.h"

static const struct http_head_limits limits = {.max_line = 100, .max_head = 400, .max_headers = 8, .max_body = 1000};

/* One verdict in comparable form: the status of an error, 0 for more, or 1 and everything the head says. */
struct verdict {
    int status;
    char text[2048];
};

static void describe(struct verdict *v, enum http_parse_result result, const struct http_head *head, const char *bytes)
{
    memset(v, 0, sizeof *v);
    if (result == HTTP_PARSE_ERROR) {
        v->status = head->status;
        snprintf(v->text, sizeof v->text, "%s", head->reason);
    } else if (result == HTTP_PARSE_DONE) {
        v->status = 1;
        int at =
            snprintf(v->text, sizeof v->text, "%d %.*s %.*s?%.*s q%d 1.%d k%d e%d cl%llu head%zu", head->method,
                     (int)head->method_text.len, bytes + head->method_text.at, (int)head->path.len,
                     bytes + head->path.at, (int)head->query.len, bytes + head->query.at, head->has_query, head->minor,
                     head->keep_alive, head->expect_continue, (unsigned long long)head->content_length, head->head_len);
        for (unsigned i = 0; i < head->field_count && at < (int)sizeof v->text - 200; i++) {
            at += snprintf(v->text + at, sizeof v->text - (size_t)at, "|%.*s=%.*s", (int)head->fields[i].name.len,
                           bytes + head->fields[i].name.at, (int)head->fields[i].value.len,
                           bytes + head->fields[i].value.at);
        }
    }
}

static void parse_whole(struct verdict *v, const struct http_head_limits *l, const char *bytes, size_t n)
{
    struct http_head head;
    http_head_reset(&head);
    describe(v, http_head_parse(&head, l, bytes, n), &head, bytes);
}

/* Shows the first `cut` bytes, then `step` more at a time, each time in a new exact-size allocation: a sanitizer sees
 * any look beyond the end, and a pointer kept from an earlier call would be stale. */
static void parse_pieces(struct verdict *v, const struct http_head_limits *l, const char *bytes, size_t n, size_t cut,
                         size_t step)
{
    struct http_head head;
    enum http_parse_result result = HTTP_PARSE_MORE;
    http_head_reset(&head);
    for (size_t seen = cut < n ? cut : n;; seen = seen + step < n ? seen + step : n) {
        char *copy = malloc(seen > 0 ? seen : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, seen);
        result = http_head_parse(&head, l, copy, seen);
        describe(v, result, &head, copy);
        free(copy);
        if (result != HTTP_PARSE_MORE || seen == n) {
            return;
        }
    }
}

static void check_cuts(const struct http_head_limits *l, const char *bytes, size_t n)
{
    struct verdict whole;
    struct verdict pieces;
    parse_whole(&whole, l, bytes, n);
    parse_pieces(&pieces, l, bytes, n, 0, 1);
    assert_int_equal(whole.status, pieces.status);
    assert_string_equal(whole.text, pieces.text);
    for (size_t cut = 0; cut <= n; cut++) {
        parse_pieces(&pieces, l, bytes, n, cut, n);
        assert_int_equal(whole.status, pieces.status);
        assert_string_equal(whole.text, pieces.text);
    }
}

struct verdict_case {
    const char *input;
    int status; /* 0: more, 1: done */
    size_t len; /* 0: strlen */
};

#define H "Host: a\r\n"

static const struct verdict_case cases[] = {
    /* accepted */
    {"GET / HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"GET / HTTP/1.0\r\n\r\n", 1, 0},
    {"GET /a%20b?x=%41&y HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"GET http://a.example:80/x?y HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"GET HTTPS://[::1]:8080 HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"GET http://a?q HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"M-SEARCH!# /x HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", 1, 0},
    {"GET / HTTP/1.1\r\nhOsT:\t a:1 \t\r\n\r\n", 1, 0},
    {"GET / HTTP/1.1\r\n" H "X: \x80\xff tab\there\r\n\r\n", 1, 0},
    {"GET / HTTP/1.1\r\n" H "X:\r\nX: \r\n\r\n", 1, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0005\r\n\r\nhello", 1, 0},
    {"POST / HTTP/1.1\r\n" H "\r\n", 1, 0},
    {"HEAD / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", 1, 0},
    {"POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n", 1, 0},
    {"POST / HTTP/1.0\r\nExpect: nonsense\r\nContent-Length: 3\r\n\r\n", 1, 0},
    /* not complete */
    {"", 0, 0},
    {"\r", 0, 0},
    {"\r\n", 0, 0},
    {"G", 0, 0},
    {"GET / HTTP/1.1\r\n", 0, 0},
    {"GET / HTTP/1.1\r\n" H "\r", 0, 0},
    /* the first byte */
    {"\x16\x03\x01", 400, 0},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"\rG", 400, 0},
    {" GET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"\0", 400, 1},
    /* request line */
    {"GET / HTTP/1.1\n" H "\r\n", 400, 0},
    {"GET  / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /  HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET\t/ HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1 \r\n" H "\r\n", 400, 0},
    {"GET /\r\n", 400, 0},
    {"GET\r\n", 400, 0},
    {"G(T / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/11\r\n" H "\r\n", 400, 0},
    {"GET / http/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.x\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1\r\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.2\r\n" H "\r\n", 505, 0},
    {"GET / HTTP/0.9\r\n" H "\r\n", 505, 0},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 0},
    {"GET x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET * HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"CONNECT a:443 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET http:// HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET http:///x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET http://u@a/x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET ftp://a/x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /a#b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /\"<>\\^`{|} HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /% HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /%4 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /%4g HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /%00 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /?a=% HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /\0 HTTP/1.1\r\n" H "\r\n", 400, 27},
    /* header lines */
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X : a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X\t: a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H " X: a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n X: a\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H ": a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X(: a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X\x80: a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n", 400, 36},
    {"GET / HTTP/1.1\r\n" H "X: 12345678\x1b[0m\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "X: \x7f\r\n\r\n", 400, 0},
    /* Host */
    {"GET / HTTP/1.1\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, 0},
    /* framing */
    {"POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5,5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\ncontent-length: 6\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", 413, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\n", 413, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", 413, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999999\r\n\r\n", 413, 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 501, 0},
    {"POST / HTTP/1.1\r\n" H "transfer-encoding: xchunked\r\n\r\n", 501, 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", 501, 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n", 400, 0},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
    {"POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\nContent-Length: 3\r\n\r\n", 417, 0},
};

static size_t case_len(const struct verdict_case *c)
{
    return c->len > 0 ? c->len : strlen(c->input);
}

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct verdict v;
        parse_whole(&v, &limits, cases[i].input, case_len(&cases[i]));
        if (v.status != cases[i].status) {
            fail_msg("case %zu, %s: %d, not %d (%s)", i, cases[i].input, v.status, cases[i].status, v.text);
        }
    }
}

static void test_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_cuts(&limits, cases[i].input, case_len(&cases[i]));
    }
}

static void test_fields(void **state)
{
    (void)state;
    static const char request[] =
        "POST /a%2fb?c=%20 HTTP/1.1\r\nhost: x\r\nA:  1 \r\nB:\r\nA: 2\r\nContent-Length: 4\r\n\r\n"
        "bodyGET";
    struct verdict v;
    parse_whole(&v, &limits, request, sizeof request - 1);
    assert_string_equal(v.text, "2 POST /a%2fb?c=%20 q1 1.1 k1 e0 cl4 head76|host=x|A=1|B=|A=2|Content-Length=4");

    struct http_head head;
    http_head_reset(&head);
    assert_int_equal(http_head_parse(&head, &limits, request, sizeof request - 1), HTTP_PARSE_DONE);
    assert_ptr_equal(http_head_find(&head, request, "a"), &head.fields[1]);
    assert_ptr_equal(http_head_find(&head, request, "content-LENGTH"), &head.fields[4]);
    assert_null(http_head_find(&head, request, "Content"));
    assert_memory_equal(request + head.head_len, "body", 4);
}

static void test_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        bool keep;
    } wishes[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: x , CLOSE\t,y\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: closed,,\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        struct http_head head;
        http_head_reset(&head);
        assert_int_equal(http_head_parse(&head, &limits, wishes[i].request, strlen(wishes[i].request)),
                         HTTP_PARSE_DONE);
        assert_int_equal(head.keep_alive, wishes[i].keep);
    }
}

/* Each limit one below, at and one above. */
static void test_limits(void **state)
{
    (void)state;
    char request[2048];
    for (int d = -1; d <= 1; d++) {
        struct verdict v;
        int line = (int)limits.max_line + d; /* "GET /" and " HTTP/1.1" are 14 bytes */
        int n = snprintf(request, sizeof request, "GET /%0*d HTTP/1.1\r\n" H "\r\n", line - 14, 0);
        parse_whole(&v, &limits, request, (size_t)n);
        assert_int_equal(v.status, d <= 0 ? 1 : 414);
        check_cuts(&limits, request, (size_t)n);
        check_cuts(&limits, request, (size_t)line); /* the line without its end */

        int head = (int)limits.max_head + d;
        n = snprintf(request, sizeof request, "GET / HTTP/1.1\r\n" H "X: %0*d\r\n\r\n", head - 32, 0);
        assert_int_equal(n, head);
        parse_whole(&v, &limits, request, (size_t)n);
        assert_int_equal(v.status, d <= 0 ? 1 : 431);
        check_cuts(&limits, request, (size_t)n);

        n = snprintf(request, sizeof request, "GET / HTTP/1.1\r\n" H);
        for (int i = 1; i < (int)limits.max_headers + d; i++) {
            n += snprintf(request + n, sizeof request - (size_t)n, "X: 1\r\n");
        }
        n += snprintf(request + n, sizeof request - (size_t)n, "\r\n");
        parse_whole(&v, &limits, request, (size_t)n);
        assert_int_equal(v.status, d <= 0 ? 1 : 431);
        check_cuts(&limits, request, (size_t)n);

        n = snprintf(request, sizeof request, "POST / HTTP/1.1\r\n" H "Content-Length: %d\r\n\r\n",
                     (int)limits.max_body + d);
        parse_whole(&v, &limits, request, (size_t)n);
        assert_int_equal(v.status, d <= 0 ? 1 : 413);
    }
}

static void test_endless_lines(void **state)
{
    (void)state;
    char request[2048];
    memset(request, 'a', sizeof request);
    check_cuts(&limits, request, 200);
    struct verdict v;
    parse_whole(&v, &limits, request, limits.max_line + 1);
    assert_int_equal(v.status, 414);
    memcpy(request, "GET / HTTP/1.1\r\n", 16);
    parse_whole(&v, &limits, request, limits.max_head);
    assert_int_equal(v.status, 0);
    parse_whole(&v, &limits, request, limits.max_head + 1);
    assert_int_equal(v.status, 431);
    check_cuts(&limits, request, 600);
    /* the smallest head limit that http_server_new accepts, with a line that ends nowhere */
    struct http_head_limits tight = {.max_line = 100, .max_head = 104, .max_headers = 8, .max_body = 0};
    memset(request, 'a', sizeof request);
    check_cuts(&tight, request, 150);
    memmove(request + 2, request, 150);
    memcpy(request, "\r\n", 2);
    check_cuts(&tight, request, 150);
    memset(request + 102, '\r', 20);
    check_cuts(&tight, request, 150);
}

static void test_percent_decode(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *out;
    } pairs[] = {{"", ""}, {"/abc", "/abc"}, {"%41", "A"}, {"/%2Fx%c3%A4%25", "/\x2fx\xc3\xa4%"}, {"a%20b+c", "a b+c"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", pairs[i].in);
        size_t n = http_percent_decode(text, strlen(text));
        assert_int_equal(n, strlen(pairs[i].out));
        assert_memory_equal(text, pairs[i].out, n);
    }
}

static void test_field_value(void **state)
{
    (void)state;
    char text[33];
    for (int c = 0; c < 256; c++) { /* each byte at each place of the eight-at-a-time loop and behind it */
        for (size_t at = 0; at < sizeof text; at++) {
            memset(text, 'a', sizeof text);
            text[at] = (char)c;
            text[(at + 1) % sizeof text] = (char)0x80;
            bool valid = c == '\t' || (c >= 0x20 && c != 0x7f);
            assert_int_equal(http_is_field_value(text, sizeof text), valid);
        }
    }
    assert_true(http_is_field_value("", 0));
    assert_false(http_is_token("", 0));
    assert_true(http_is_token("X-Y_z.1~", 8));
    assert_false(http_is_token("a b", 3));
}

/* Deterministic mutations of the cases: no crash, no read beyond the end, no dependence on cuts. */
static void test_mutations(void **state)
{
    (void)state;
    static const char salt[] = "\r\n\0 :\t%,/?;\x7f\xffGH1.0aContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    uint64_t seed = 42;
    for (int round = 0; round < 20000; round++) {
        const struct verdict_case *c = &cases[(size_t)round % (sizeof cases / sizeof cases[0])];
        char input[512];
        size_t n = case_len(c);
        memcpy(input, c->input, n);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        for (int edits = (int)(seed >> 60) % 4 + 1; edits > 0; edits--) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t at = n > 0 ? (size_t)(seed >> 33) % n : 0;
            size_t from = (size_t)(seed >> 20) % (sizeof salt - 1);
            size_t take = 1 + (size_t)(seed >> 50) % 20;
            take = take < sizeof salt - 1 - from ? take : sizeof salt - 1 - from;
            if ((seed >> 62) == 0 && n > 0) {
                memmove(input + at, input + at + 1, n - at - 1);
                n--;
            } else if (n + take < sizeof input) {
                memmove(input + at + take, input + at, n - at);
                memcpy(input + at, salt + from, take);
                n += take;
            }
        }
        struct verdict whole;
        struct verdict pieces;
        parse_whole(&whole, &limits, input, n);
        parse_pieces(&pieces, &limits, input, n, 0, 1);
        assert_int_equal(whole.status, pieces.status);
        assert_string_equal(whole.text, pieces.text);
        parse_pieces(&pieces, &limits, input, n, (size_t)(seed >> 40) % (n + 1), 7);
        assert_string_equal(whole.text, pieces.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),       cmocka_unit_test(test_every_cut),   cmocka_unit_test(test_fields),
        cmocka_unit_test(test_keep_alive),     cmocka_unit_test(test_limits),      cmocka_unit_test(test_endless_lines),
        cmocka_unit_test(test_percent_decode), cmocka_unit_test(test_field_value), cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
