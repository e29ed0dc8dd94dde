#include "train/html.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Writes the character at p; returns its length in bytes. */
static size_t put_character(struct buf *out, const unsigned char *p, size_t n)
{
    static const struct {
        char from;
        const char *to;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        if (*p == (unsigned char)entities[i].from) {
            buf_puts(out, entities[i].to);
            return 1;
        }
    }
    size_t length = utf8_length(p, n);
    bool control = (*p < 0x20 && *p != '\t' && *p != '\n') || *p == 0x7f || (*p == 0xc2 && length == 2 && p[1] < 0xa0);
    if (length == 0 || control) {
        buf_puts(out, replacement);
        return length == 0 ? 1 : length;
    }
    buf_add(out, p, length);
    return length;
}

void html_text(struct buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        i += put_character(out, (const unsigned char *)text + i, n - i);
    }
}

/* How many bytes the character at p has; bytes that are no UTF-8 count as one each. */
static size_t character_length(const unsigned char *p, size_t n)
{
    size_t length = utf8_length(p, n);
    return length == 0 ? 1 : length;
}

void html_label(struct buf *out, const char *text, size_t n, size_t max)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t characters = 0;
    for (size_t i = 0; i < n && characters <= max; characters++) {
        i += character_length(p + i, n - i);
    }
    size_t kept = characters > max ? max - 1 : characters;
    for (size_t i = 0; kept > 0; kept--) {
        bool blank = p[i] == '\t' || p[i] == '\n' || p[i] == '\r';
        i += blank ? 1 : put_character(out, p + i, n - i);
        buf_puts(out, blank ? " " : "");
    }
    if (characters > max) {
        buf_puts(out, "\xe2\x80\xa6");
    }
}

void html_number(struct buf *out, double x, int decimals)
{
    char digits[64]; /* 15 digits before the point, and at most 12 behind it are asked for */
    if (!isfinite(x)) {
        buf_puts(out, "\xe2\x80\x93");
        return;
    }
    /* the programs never call setlocale: the C locale */
    bool large = fabs(x) >= 1e15;
    if (large) {
        snprintf(digits, sizeof digits, "%.3e", fabs(x));
    } else {
        snprintf(digits, sizeof digits, "%.*f", decimals, fabs(x));
    }
    if (x < 0 && strspn(digits, "0.") < strlen(digits)) { /* no minus before 0.00 */
        buf_puts(out, "\xe2\x88\x92");
    }
    size_t whole = large ? 0 : strcspn(digits, ".");
    for (size_t i = 0; i < whole; i++) {
        buf_printf(out, "%s%c", i > 0 && (whole - i) % 3 == 0 ? "," : "", digits[i]);
    }
    buf_puts(out, digits + whole);
}
