#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"

void buf_release(struct buf *b)
{
    if (b->capacity > 0) {
        mem_free(b->data);
    }
    *b = (struct buf)BUF_INIT;
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->capacity > 0) {
        b->data[0] = '\0';
    }
}

bool buf_failed(const struct buf *b)
{
    return b->failed;
}

/* Makes room for n more bytes and a '\0'. */
static int reserve(struct buf *b, size_t n)
{
    if (b->failed) {
        return -1;
    }
    size_t needed;
    if (__builtin_add_overflow(b->len, n, &needed) || __builtin_add_overflow(needed, 1, &needed)) {
        b->failed = true;
        return -1;
    }
    if (needed <= b->capacity) {
        return 0;
    }
    size_t wanted = b->capacity * 2 > needed ? b->capacity * 2 : needed + 64;
    char *p = mem_resize(b->capacity > 0 ? b->data : NULL, b->len, wanted, 1);
    if (p == NULL) {
        b->failed = true;
        return -1;
    }
    b->data = p;
    b->capacity = wanted;
    return 0;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (reserve(b, n) < 0) {
        return;
    }
    if (n > 0) {
        memcpy(b->data + b->len, bytes, n);
    }
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || reserve(b, (size_t)n) < 0) {
        b->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
    va_end(args);
    b->len += (size_t)n;
}

size_t utf8_length(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80) {
        return 1;
    }
    size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || length > n) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool too_large = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || too_large ? 0 : length;
}

void buf_json_string(struct buf *b, const char *text, size_t n)
{
    buf_add(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        const unsigned char *p = (const unsigned char *)text + i;
        size_t length = utf8_length(p, n - i);
        if (length == 0) {
            buf_puts(b, "\\ufffd");
            length = 1;
        } else if (*p == '"' || *p == '\\') {
            buf_printf(b, "\\%c", *p);
        } else if (*p < 0x20) {
            buf_printf(b, "\\u%04x", *p);
        } else {
            buf_add(b, p, length);
        }
        i += length;
    }
    buf_add(b, "\"", 1);
}
