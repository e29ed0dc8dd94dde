/*
 * A hash table of the different values, each with a list of its rows, newest first. Everything is appended and nothing is
 * moved: a record or an entry is written, and then its number is put where readers find it. To find the rows of a value costs as
 * many steps as there are rows; a range looks at the different numbers of its attribute, all of them, since a sorted order
 * could not grow without a lock.
 */
#include "server/value_table.h"

#include <math.h>
#include <string.h>

#include "core/features.h"
#include "core/idmap.h"
#include "core/mem.h"

struct value_record {
    uint64_t hash;
    struct span text;
    double number; /* NaN: none */
    uint32_t attribute;
    uint32_t next;         /* record + 1 in the bucket */
    uint32_t next_number;  /* record + 1 of the attribute */
    _Atomic uint32_t last; /* newest entry + 1 */
};

struct value_entry {
    uint32_t row;
    uint32_t before; /* entry + 1 of the same value */
};

int value_table_init(struct value_table *t, size_t n_attributes, size_t room, struct err *e)
{
    *t = (struct value_table){.room = room, .n_attributes = n_attributes, .n_buckets = 64};
    if (room >= UINT32_MAX) {
        return err_set(e, "no room for %zu attribute values", room);
    }
    while (t->n_buckets < room / 4) {
        t->n_buckets *= 2;
    }
    t->records = mem_reserve(room, sizeof *t->records);
    t->entries = mem_reserve(room, sizeof *t->entries);
    t->buckets = mem_reserve(t->n_buckets, sizeof *t->buckets);
    t->numbers = mem_reserve(n_attributes, sizeof *t->numbers);
    if (t->records == NULL || t->entries == NULL || t->buckets == NULL || t->numbers == NULL) {
        value_table_release(t);
        return err_nomem(e);
    }
    return 0;
}

void value_table_release(struct value_table *t)
{
    mem_unreserve(t->records, t->room, sizeof *t->records);
    mem_unreserve(t->entries, t->room, sizeof *t->entries);
    mem_unreserve((void *)(uintptr_t)t->buckets, t->n_buckets, sizeof *t->buckets);
    mem_unreserve((void *)(uintptr_t)t->numbers, t->n_attributes, sizeof *t->numbers);
    *t = (struct value_table){0};
}

static uint64_t hash_of(size_t attribute, struct span text)
{
    return (fnv1a(text.text, text.length) ^ attribute) * 0x9e3779b97f4a7c15u;
}

static uint32_t load(const _Atomic uint32_t *link)
{
    return atomic_load_explicit(link, memory_order_acquire);
}

static _Atomic uint32_t *bucket_of(const struct value_table *t, uint64_t hash)
{
    return &t->buckets[(hash >> 32) & (t->n_buckets - 1)];
}

static struct value_record *find(const struct value_table *t, size_t attribute, struct span text, uint64_t hash)
{
    for (uint32_t i = load(bucket_of(t, hash)); i > 0; i = t->records[i - 1].next) {
        struct value_record *r = &t->records[i - 1];
        if (r->hash == hash && r->attribute == attribute && r->text.length == text.length &&
            memcmp(r->text.text, text.text, text.length) == 0) {
            return r;
        }
    }
    return NULL;
}

static struct value_record *add_record(struct value_table *t, size_t attribute, struct span text, uint64_t hash)
{
    _Atomic uint32_t *bucket = bucket_of(t, hash);
    struct value_record *r = &t->records[t->n_records++];
    uint32_t number = (uint32_t)t->n_records;
    r->hash = hash;
    r->text = text;
    r->attribute = (uint32_t)attribute;
    r->next = load(bucket);
    if (number_parse(text.text, text.length, &r->number) == 0) {
        r->next_number = load(&t->numbers[attribute]);
        atomic_store_explicit(&t->numbers[attribute], number, memory_order_release);
    } else {
        r->number = NAN;
    }
    atomic_store_explicit(bucket, number, memory_order_release);
    return r;
}

void value_table_add(struct value_table *t, size_t attribute, struct span text, uint32_t row)
{
    uint64_t hash = hash_of(attribute, text);
    struct value_record *r = find(t, attribute, text, hash);
    if (r == NULL) {
        r = add_record(t, attribute, text, hash);
    }
    t->entries[t->n_entries++] = (struct value_entry){row, load(&r->last)};
    atomic_store_explicit(&r->last, (uint32_t)t->n_entries, memory_order_release);
}

static void set_rows(const struct value_table *t, const struct value_record *r, uint64_t *bits)
{
    for (uint32_t i = load(&r->last); i > 0; i = t->entries[i - 1].before) {
        uint32_t row = t->entries[i - 1].row;
        bits[row / 64] |= UINT64_C(1) << row % 64;
    }
}

void value_table_equal(const struct value_table *t, size_t attribute, struct span text, uint64_t *bits)
{
    const struct value_record *r = find(t, attribute, text, hash_of(attribute, text));
    if (r != NULL) {
        set_rows(t, r, bits);
    }
}

void value_table_between(const struct value_table *t, size_t attribute, const struct number_range *range,
                         uint64_t *bits)
{
    for (uint32_t i = load(&t->numbers[attribute]); i > 0; i = t->records[i - 1].next_number) {
        if (number_in_range(range, t->records[i - 1].number)) {
            set_rows(t, &t->records[i - 1], bits);
        }
    }
}

bool value_table_has_numbers(const struct value_table *t, size_t attribute)
{
    return load(&t->numbers[attribute]) > 0;
}
