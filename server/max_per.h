/*
 * server/max_per.h: the member `max_per` of a request: how many items there may be of a value.
 *
 *   {"category": 5, "author": 1}
 *
 * Items are taken best first; one that has a value of which as many as may be were taken is passed over. An item counts for each
 * of its values; one without a value is never passed over. Values are known by their text (core/attribute_index.h).
 */
#ifndef SERVER_MAX_PER_H
#define SERVER_MAX_PER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/request.h"
#include "server/snapshot.h"

enum { MAX_PER_ATTRIBUTES = 8 };

/* Whether a max_per is one, for these items; `at` is its JSON pointer. Returns 0, or -1 with the fault set. */
int max_per_check(const struct request_rules *rules, const json_t *max_per, const char *at, struct fault *f);

/* What was taken so far, by value. */
struct tally {
    const struct catalog *catalog;
    struct tally_cap {
        size_t attribute, most;
        struct idmap *values;
        struct value_count *counts; /* [values] */
        size_t capacity;
    } caps[MAX_PER_ATTRIBUTES];
    size_t n;
};

/* Begins with nothing taken; `max_per` was checked, or is NULL: nothing is passed over. -1 without memory. */
int tally_init(struct tally *t, const struct snapshot *s, const json_t *max_per);
void tally_release(struct tally *t); /* also after a failed init */

/* The fault of what has failed without memory; returns -1. */
int tally_no_memory(struct fault *f);

/* Takes a row, which was not taken before, or passes it over. -1 without memory. */
int tally_take(struct tally *t, uint32_t row, bool *taken);

/* Sets the bits of all rows that have a value which has become full since the last call. */
void tally_mark_full(struct tally *t, uint64_t *bits);

#endif
