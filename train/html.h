/*
 * train/html.h: text and numbers into HTML and SVG.
 *
 * What comes from data (ids, category values, names, configurations) goes through html_text or html_label, whatever it
 * holds: the result is valid UTF-8, stays text as an element's content and inside a double-quoted attribute, and has no
 * characters that HTML forbids. Not thread-safe beyond the buffer it writes to.
 */
#ifndef TRAIN_HTML_H
#define TRAIN_HTML_H

#include <stddef.h>

#include "core/buf.h"

/* Escapes & < > " '. Bytes that are not UTF-8 and control characters other than tab and newline become U+FFFD. */
void html_text(struct buf *out, const char *text, size_t n);

/* The same for names: at most `max` characters, an ellipsis in place of what is cut, white space as blanks. */
void html_label(struct buf *out, const char *text, size_t n, size_t max);

/* A number with `decimals` digits and commas between thousands: 1,234.50. Not finite: a dash. */
void html_number(struct buf *out, double x, int decimals);

#endif
