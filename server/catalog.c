/*
 * Ids and attributes of the bundle's rows are in its tables. Those of an added row are in a block of their own, which is
 * complete before the row has a number and never changes: readers find it by the row's number, or by the id through a hash table
 * that only grows. Rows of one id stand in their bucket newest first, so the first one that the index has is the one that counts;
 * rows that are being put are passed over, which makes them appear when the index says so, and not before.
 */
#include "server/catalog.h"

#include <stdatomic.h>
#include <string.h>

#include "ann/ann.h"
#include "core/buf.h"
#include "core/idmap.h"
#include "core/mem.h"
#include "server/value_table.h"

enum { VALUES_A_ROW = 8 }; /* besides one of each attribute; on average */

struct item_value {
    size_t attribute;
    struct span text;
};

struct catalog_item {
    uint64_t hash;
    uint32_t next; /* added row + 1, counted from 0: the next older one in the bucket */
    struct span id;
    struct span *attributes;   /* [n_attributes] */
    struct item_value *values; /* [n_values] */
    size_t n_values;
    struct buf bytes; /* what the spans point into */
};

struct catalog {
    atomic_uint owners;
    struct bundle *bundle;
    size_t first, room;          /* added rows are numbered first .. first + room - 1 */
    struct catalog_item **items; /* [room] */
    _Atomic uint32_t *buckets;   /* [n_buckets] newest added row + 1; 0: none */
    size_t n_buckets;
    size_t n_put; /* of the thread that adds */
    struct value_table values;
};

/* --- making one -----------------------------------------------------------------------------------------------------*/

static void catalog_free(struct catalog *c)
{
    for (size_t i = 0; i < c->n_put; i++) {
        catalog_item_free(c->items[i]);
    }
    mem_unreserve(c->items, c->room, sizeof(struct catalog_item *));
    mem_unreserve((void *)(uintptr_t)c->buckets, c->n_buckets, sizeof *c->buckets);
    value_table_release(&c->values);
    bundle_free(c->bundle);
    mem_free(c);
}

struct catalog *catalog_new(struct bundle *bundle, size_t room, struct err *e)
{
    struct catalog *c = mem_array(1, sizeof *c);
    if (!c) {
        bundle_free(bundle);
        err_nomem(e);
        return NULL;
    }
    *c = (struct catalog){.bundle = bundle, .room = room, .n_buckets = 64};
    atomic_init(&c->owners, 1);
    c->first = (bundle->n_items + 63) / 64 * 64;
    while (c->n_buckets < room) {
        c->n_buckets *= 2;
    }
    c->items = mem_reserve(room, sizeof(struct catalog_item *));
    c->buckets = mem_reserve(c->n_buckets, sizeof *c->buckets);
    if (!c->items || !c->buckets) {
        err_nomem(e);
    } else if (value_table_init(&c->values, bundle->n_attributes, room * (bundle->n_attributes + VALUES_A_ROW), e) ==
               0) {
        return c;
    }
    catalog_free(c);
    return NULL;
}

struct catalog *catalog_ref(struct catalog *c)
{
    atomic_fetch_add_explicit(&c->owners, 1, memory_order_relaxed);
    return c;
}

void catalog_unref(struct catalog *c)
{
    if (c && atomic_fetch_sub_explicit(&c->owners, 1, memory_order_acq_rel) == 1) {
        catalog_free(c);
    }
}

struct bundle *catalog_bundle(const struct catalog *c)
{
    return c->bundle;
}

/* --- reading --------------------------------------------------------------------------------------------------------*/

static _Atomic uint32_t *bucket_of(const struct catalog *c, uint64_t hash)
{
    return &c->buckets[(hash * 0x9e3779b97f4a7c15u >> 32) & (c->n_buckets - 1)];
}

/* The newest row of an id that the index has, removed or not; -1: none. */
static int64_t newest_row(const struct catalog *c, const struct ann *index, const char *id, size_t length)
{
    size_t end = ann_rows(index);
    uint64_t hash = fnv1a(id, length);
    uint32_t i = atomic_load_explicit(bucket_of(c, hash), memory_order_acquire);
    for (; i > 0; i = c->items[i - 1]->next) {
        const struct catalog_item *item = c->items[i - 1];
        if (c->first + i - 1 < end && item->hash == hash && item->id.length == length &&
            memcmp(item->id.text, id, length) == 0) {
            return (int64_t)(c->first + i - 1);
        }
    }
    return strtab_find(&c->bundle->item_ids, id, length);
}

int64_t catalog_find(const struct catalog *c, const struct ann *index, const char *id, size_t length)
{
    for (;;) {
        size_t generation = ann_generation(index);
        int64_t row = newest_row(c, index, id, length);
        if (row < 0 || ann_is_live(index, (uint32_t)row)) {
            return row;
        }
        if (ann_is_settled(index, generation)) { /* it was removed, and not just replaced */
            return -1;
        }
    }
}

struct span catalog_id(const struct catalog *c, uint32_t row)
{
    struct span id;
    if (row >= c->first) {
        return c->items[row - c->first]->id;
    }
    id.text = strtab_get(&c->bundle->item_ids, row, &id.length);
    return id;
}

struct span catalog_attribute(const struct catalog *c, size_t attribute, uint32_t row)
{
    struct span text;
    if (row >= c->first) {
        return c->items[row - c->first]->attributes[attribute];
    }
    text.text = strtab_get(&c->bundle->attributes[attribute].values, row, &text.length);
    return text;
}

void catalog_equal(const struct catalog *c, size_t attribute, const char *text, size_t length, uint64_t *bits)
{
    attribute_index_equal(c->bundle->attributes[attribute].index, text, length, bits);
    value_table_equal(&c->values, attribute, (struct span){text, length}, bits);
}

void catalog_between(const struct catalog *c, size_t attribute, const struct number_range *range, uint64_t *bits)
{
    attribute_index_between(c->bundle->attributes[attribute].index, range, bits);
    value_table_between(&c->values, attribute, range, bits);
}

bool catalog_has_numbers(const struct catalog *c, size_t attribute)
{
    return attribute_index_numbers(c->bundle->attributes[attribute].index) > 0 ||
           value_table_has_numbers(&c->values, attribute);
}

/* --- adding ---------------------------------------------------------------------------------------------------------*/

/* Appends bytes to the item's; the span says where they are, from the beginning, until all are there. */
static struct span item_keep(struct catalog_item *item, struct span bytes)
{
    struct span kept = {(const char *)(uintptr_t)item->bytes.len, bytes.length};
    buf_add(&item->bytes, bytes.text, bytes.length);
    return kept;
}

static void item_point(const struct catalog_item *item, struct span *kept)
{
    kept->text = item->bytes.data + (uintptr_t)kept->text;
}

struct values_reader {
    struct catalog_item *item;
    size_t attribute, capacity;
};

static int take_value(void *arg, const char *text, size_t n, struct err *e)
{
    struct values_reader *r = arg;
    struct catalog_item *item = r->item;
    void *values = item->values;
    if (mem_grow(&values, &r->capacity, item->n_values, sizeof *item->values) != 0) {
        return err_nomem(e);
    }
    item->values = values;
    item->values[item->n_values++] = (struct item_value){r->attribute, item_keep(item, (struct span){text, n})};
    return 0;
}

struct catalog_item *catalog_item_new(const struct catalog *c, struct span id, const struct span *attributes,
                                      struct err *e)
{
    size_t n = c->bundle->n_attributes;
    struct catalog_item *item = mem_array(1, sizeof *item);
    if (!item) {
        err_nomem(e);
        return NULL;
    }
    struct values_reader reader = {.item = item};
    item->bytes = (struct buf)BUF_INIT;
    item->hash = fnv1a(id.text, id.length);
    item->id = item_keep(item, id);
    item->attributes = mem_array(n, sizeof *item->attributes);
    int rc = item->attributes ? 0 : err_nomem(e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        reader.attribute = i;
        item->attributes[i] = item_keep(item, attributes[i]);
        rc = attribute_values(attributes[i].text, attributes[i].length, take_value, &reader, e);
    }
    if (rc == 0 && buf_failed(&item->bytes)) {
        rc = err_nomem(e);
    }
    if (rc != 0) {
        catalog_item_free(item);
        return NULL;
    }
    item_point(item, &item->id);
    for (size_t i = 0; i < n; i++) {
        item_point(item, &item->attributes[i]);
    }
    for (size_t i = 0; i < item->n_values; i++) {
        item_point(item, &item->values[i].text);
    }
    return item;
}

void catalog_item_free(struct catalog_item *item)
{
    if (item) {
        mem_free(item->attributes);
        mem_free(item->values);
        buf_release(&item->bytes);
        mem_free(item);
    }
}

struct span catalog_item_id(const struct catalog_item *item)
{
    return item->id;
}

bool catalog_has_room(const struct catalog *c, struct catalog_item *const *items, size_t n, uint32_t row)
{
    size_t values = 0;
    for (size_t i = 0; i < n; i++) {
        values += items[i]->n_values;
    }
    return row - c->first + n <= c->room && values <= c->values.room - c->values.n_entries;
}

void catalog_put(struct catalog *c, uint32_t row, struct catalog_item *item)
{
    _Atomic uint32_t *bucket = bucket_of(c, item->hash);
    size_t at = row - c->first;
    for (size_t i = 0; i < item->n_values; i++) {
        value_table_add(&c->values, item->values[i].attribute, item->values[i].text, row);
    }
    mem_free(item->values); /* the table has them */
    item->values = NULL;
    item->n_values = 0;
    item->next = atomic_load_explicit(bucket, memory_order_relaxed);
    c->items[at] = item;
    c->n_put = at + 1;
    atomic_store_explicit(bucket, (uint32_t)at + 1, memory_order_release);
}
