/*
 * Writing an answer. A recall of 100 items is 100 numbers and 100 short strings. printf takes 200 ns a number, float_write
 * 12 (measured on one machine): 19 us an answer, more than everything else between socket and search together.
 *
 * float_write: nine significant digits always give a float32 back exactly, and the nearest nine-digit decimal is not
 * needed for that: float32 values lie at least 6e-8 apart (relative), nine-digit decimals at most 1e-8, so any decimal
 * within a little more than half a unit of the ninth digit still rounds to the same float. x times a power of ten up to
 * 10^22 is one rounding of exact operands in double (2^-53), which is far inside that slack. What lies outside the range
 * where this holds simply (and is rare in scores) goes to printf. Rejected: Ryu and friends, whose tables and code are
 * larger than all of this file, for two digits less.
 */
#include "server/json_out.h"

#include <event2/buffer.h>
#include <math.h>
#include <stdio.h>

enum { MIN_PIECE = 4096 };

void json_out_begin(struct json_out *out, struct evbuffer *buffer, size_t guess)
{
    *out = (struct json_out){.buffer = buffer};
    json_out_grow(out, guess);
}

static void commit(struct json_out *out)
{
    if (out->start) {
        struct evbuffer_iovec piece = {.iov_base = out->start, .iov_len = (size_t)(out->at - out->start)};
        if (evbuffer_commit_space(out->buffer, &piece, 1) != 0) {
            out->failed = true;
        }
        out->start = out->at = out->end = NULL;
    }
}

bool json_out_grow(struct json_out *out, size_t n)
{
    commit(out);
    struct evbuffer_iovec piece;
    if (out->failed ||
        evbuffer_reserve_space(out->buffer, (ev_ssize_t)(n < MIN_PIECE ? MIN_PIECE : n), &piece, 1) != 1) {
        out->failed = true;
        return false;
    }
    out->start = out->at = piece.iov_base;
    out->end = out->start + piece.iov_len;
    return true;
}

int json_out_end(struct json_out *out)
{
    commit(out);
    return out->failed ? -1 : 0;
}

void json_out_bytes(struct json_out *out, const char *bytes, size_t n)
{
    if (json_out_room(out, n)) {
        memcpy(out->at, bytes, n);
        out->at += n;
    }
}

static char *put_escaped(char *at, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    *at++ = '\\';
    switch (c) {
    case '"':
    case '\\':
        *at++ = (char)c;
        break;
    case '\n':
        *at++ = 'n';
        break;
    case '\r':
        *at++ = 'r';
        break;
    case '\t':
        *at++ = 't';
        break;
    default:
        memcpy(at, "u00", 3);
        at[3] = hex[c >> 4];
        at[4] = hex[c & 15];
        at += 5;
    }
    return at;
}

void json_out_string(struct json_out *out, const char *text, size_t n)
{
    if (!json_out_room(out, n * 6 + 2)) {
        return;
    }
    char *at = out->at;
    *at++ = '"';
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f) {
            at = put_escaped(at, c);
        } else {
            *at++ = (char)c;
        }
    }
    *at++ = '"';
    out->at = at;
}

void json_out_unsigned(struct json_out *out, uint64_t number)
{
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    json_out_bytes(out, digits + n, sizeof digits - n);
}

void json_out_float(struct json_out *out, float number)
{
    if (!isfinite(number)) {
        json_out_bytes(out, "null", 4);
    } else if (json_out_room(out, FLOAT_TEXT_MAX)) {
        out->at += float_write(out->at, number);
    }
}

size_t float_write_naive(char out[FLOAT_TEXT_MAX], float number)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%.9g", (double)number);
    memcpy(out, text, (size_t)n);
    return (size_t)n;
}

/* Two digits at a time: half the divisions. */
static void put_nine_digits(char *out, uint32_t digits)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    for (int i = 7; i > 0; i -= 2) {
        memcpy(out + i, pairs + (size_t)(digits % 100) * 2, 2);
        digits /= 100;
    }
    out[0] = (char)('0' + digits);
}

size_t float_write(char out[FLOAT_TEXT_MAX], float number)
{
    static const double power[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    double x = fabs((double)number);
    if (!(x >= 1e-4 && x < 1e8)) {
        return float_write_naive(out, number);
    }
    /* x = 0.0ddd... : places is how many digits stand behind the point when there are nine significant ones */
    int places = 8;
    for (; places > 0 && x >= power[9 - places]; places--) {}
    for (; x < 1.0 && places < 12 && x * power[places - 8] < 1.0; places++) {}
    uint32_t scaled = (uint32_t)(x * power[places] + 0.5);
    if (scaled >= 1000000000u) { /* rounded up to a tenth digit */
        scaled = (scaled + 5) / 10;
        places--;
    }
    char digits[9];
    put_nine_digits(digits, scaled);
    int used = 9;
    while (used > 9 - places && used > 1 && digits[used - 1] == '0') {
        used--;
    }

    char *at = out;
    if (number < 0) {
        *at++ = '-';
    }
    int whole = 9 - places; /* digits before the point; <= 0: "0." and -whole zeros come first */
    if (whole <= 0) {
        memcpy(at, "0.000", 5);
        at += 2 - whole;
        memcpy(at, digits, 9);
        return (size_t)(at + used - out);
    }
    memcpy(at, digits, (size_t)whole);
    at += whole;
    if (used > whole) {
        *at++ = '.';
        memcpy(at, digits + whole, (size_t)(used - whole));
        at += used - whole;
    }
    return (size_t)(at - out);
}
