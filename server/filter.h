/*
 * server/filter.h: the member `filter` of a request: from JSON to a set of item rows.
 *
 *   {"category": ["a", "b"], "price": {"gte": 1, "lt": 9}, "not": {"author": ["x"]}}
 *
 * All conditions must hold: a list (or one value alone) names values of which an item must have one; an object of gte, gt, lte
 * and lt bounds a number that an item must have. Of the conditions in "not" none may hold. docs/http.md tells more.
 */
#ifndef SERVER_FILTER_H
#define SERVER_FILTER_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "server/request.h"
#include "server/snapshot.h"

enum { FILTER_MAX_CONDITIONS = 64, FILTER_SETS = 8 };

/* Sets of rows, of one worker: what some filters let through. */
struct filter_bits {
    uint64_t *rows;      /* [FILTER_SETS, words] */
    uint64_t *condition; /* [words] one more set, that of the last condition */
    size_t words;
};

int filter_bits_init(struct filter_bits *bits, size_t n_rows); /* -1 without memory */
void filter_bits_release(struct filter_bits *bits);            /* zeroed is fine */

/* Whether a filter is one, for these items; `at` is its JSON pointer. Returns 0, or -1 with the fault set. */
int filter_check(const struct request_rules *rules, const json_t *filter, const char *at, struct fault *f);

/* Fills a set, of number 0 to FILTER_SETS - 1 and as many rows as ann_rows_most, by a checked filter (NULL: all rows), of rows that the index has
 * now; returns how many it lets through. Removed rows are among them. */
size_t filter_apply(const struct snapshot *s, const json_t *filter, struct filter_bits *bits, size_t number);

/* Takes the rows in bits->condition out of a set; returns how many are left. */
size_t filter_subtract(struct filter_bits *bits, size_t number);

/* The set: bit row % 64 of word row / 64. */
const uint64_t *filter_set(const struct filter_bits *bits, size_t number);

#endif
