/*
 * server/catalog.h: which items there are: the bundle's, and those that were added since it was loaded.
 *
 * An item is a row of the index (ann/ann.h): the bundle's have its rows, added ones the numbers behind. The catalogue knows
 * the ids and attributes of both; whether a row lives is the index's to know. Rows keep their number, their id and their attributes
 * as long as the catalogue lives; an id that is added again has a row more, and the newest one that the index has counts.
 *
 * Any number of threads read, without locks, while one adds (under items.h's lock). It is reference counted, because
 * snapshots share it: a compacted index is another snapshot of the same items.
 */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/attribute_index.h"
#include "core/bundle.h"
#include "core/err.h"
#include "core/strtab.h"

struct ann;
struct catalog; /* opaque */

/* New, with one reference, for a bundle, which is taken (freed on failure, too). `room`: rows that can be added, as many as the
 * index has room for. */
struct catalog *catalog_new(struct bundle *bundle, size_t room, struct err *e);
struct catalog *catalog_ref(struct catalog *c);
void catalog_unref(struct catalog *c); /* the last one frees it, and the bundle; NULL is fine */

struct bundle *catalog_bundle(const struct catalog *c);

/* The row of the item of this id that lives in the index, or -1. */
int64_t catalog_find(const struct catalog *c, const struct ann *index, const char *id, size_t length);

/* Of any row that the index has or had; borrowed from the catalogue. */
struct span catalog_id(const struct catalog *c, uint32_t row);
struct span catalog_attribute(const struct catalog *c, size_t attribute, uint32_t row); /* JSON text */

/* Set the bits of rows whose attribute has the value, or a number in the range, as core/attribute_index.h says; of rows that are
 * being added, too. */
void catalog_equal(const struct catalog *c, size_t attribute, const char *text, size_t length, uint64_t *bits);
void catalog_between(const struct catalog *c, size_t attribute, const struct number_range *range, uint64_t *bits);
bool catalog_has_numbers(const struct catalog *c, size_t attribute);

/* --- adding, in two steps: what can fail, and what is seen --- */

struct catalog_item; /* an item that is not in the catalogue yet */

/* New item of this id; attributes [the bundle's n_attributes] as JSON texts. NULL without memory, or when one is no JSON. */
struct catalog_item *catalog_item_new(const struct catalog *c, struct span id, const struct span *attributes,
                                      struct err *e);
void catalog_item_free(struct catalog_item *item); /* NULL is fine */
struct span catalog_item_id(const struct catalog_item *item);

/* Whether there is room for items [n] from `row` on. */
bool catalog_has_room(const struct catalog *c, struct catalog_item *const *items, size_t n, uint32_t row);

/* Puts an item, which is taken, at the row that it will have in the index: the number of ann_rows, then the next one, and so on;
 * there must be room. It is found when the index has that row. */
void catalog_put(struct catalog *c, uint32_t row, struct catalog_item *item);

#endif
