/*
 * core/attribute_index.h: which items have a value: an inverted index of one attribute column.
 *
 * A column holds one JSON text an item (docs/bundle.md): null, a string, a number, true or false, or a list of those; an item
 * with a list has each of its values. A value is known by its text: a string by its characters, anything else by its JSON text,
 * so that "7" and 7 are the same. Values that are numbers, or strings that read as one, can also be asked for by range.
 *
 * Read-only once built, and thread-safe then. Row sets are bits: row % 64 of word row / 64.
 */
#ifndef CORE_ATTRIBUTE_INDEX_H
#define CORE_ATTRIBUTE_INDEX_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/strtab.h"

enum { ATTRIBUTE_TEXT_MAX = 64 };

/* The text by which one value is known: the string's, borrowed, or written to `room`. NULL for null, lists and objects, which
 * are no values. */
struct span attribute_value_text(const json_t *value, char room[ATTRIBUTE_TEXT_MAX]);

/* Calls `take` for each value of a column's JSON text, until one call fails; also fails when it is no JSON. */
typedef int attribute_take(void *arg, const char *text, size_t n, struct err *e);
int attribute_values(const char *text, size_t n, attribute_take *take, void *arg, struct err *e);

struct attribute_index; /* opaque */

/* Checks that every text is JSON, and indexes it. NULL with the row named, or without memory. */
struct attribute_index *attribute_index_new(const struct strtab *values, struct err *e);
void attribute_index_free(struct attribute_index *x);

size_t attribute_index_bytes(const struct attribute_index *x);
size_t attribute_index_values(const struct attribute_index *x);  /* how many different ones */
size_t attribute_index_numbers(const struct attribute_index *x); /* values that are numbers */

/* Sets the bits of rows that have the value. */
void attribute_index_equal(const struct attribute_index *x, const char *text, size_t length, uint64_t *bits);

/* Bounds of a range; infinities where there is none. */
struct number_range {
    double low, high;
    bool low_open, high_open; /* the bound itself is outside */
};

bool number_in_range(const struct number_range *range, double number);

/* Sets the bits of rows with a number in the range. */
void attribute_index_between(const struct attribute_index *x, const struct number_range *range, uint64_t *bits);

#endif
