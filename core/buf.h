/*
 * core/buf.h: a growing byte buffer for text and files being built.
 *
 * Failure is sticky: after one failed allocation every later call does nothing and buf_failed() is true, so callers
 * check once at the end. The contents always have a '\0' behind them (data is never NULL after buf_init).
 * The caller owns the struct; buf_release frees the contents. Not thread-safe.
 */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* owned; valid until the next call that adds */
    size_t len;
    size_t capacity;
    bool failed;
};

#define BUF_INIT        \
    {                   \
        "", 0, 0, false \
    }

void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */
bool buf_failed(const struct buf *b);

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *text);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The length of the UTF-8 sequence at p (1 to 4) in n > 0 bytes, or 0 when it is none (RFC 3629: no overlong form, no
 * surrogate, nothing beyond U+10FFFF). */
size_t utf8_length(const unsigned char *p, size_t n);

/* Adds `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void buf_json_string(struct buf *b, const char *text, size_t n);

#endif
