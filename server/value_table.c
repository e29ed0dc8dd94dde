/*
 * A hash table of the different values, each with a list of its rows, newest first; and beside it, for ranges, each attribute's
 * numbers in pieces that are scanned. Everything is appended and nothing is moved: a record or an entry is written, and then its number
 * is put where readers find it. To find the rows of a value costs as many steps as there are rows; a range looks at all numbers of its
 * attribute, since a sorted order could not grow without a lock (following the lists of the different numbers instead took three times as
 * long).
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
    _Atomic uint32_t last; /* newest entry + 1 */
};

struct value_entry {
    uint32_t row;
    uint32_t before; /* entry + 1 of the same value */
};

enum { PIECE = 1024 };

struct value_numbers {
    double number[PIECE];
    uint32_t row[PIECE];
    _Atomic uint32_t n;
    uint32_t before; /* piece + 1 of the same attribute */
};

int value_table_init(struct value_table *t, size_t n_attributes, size_t room, struct err *e)
{
    *t = (struct value_table){.room = room, .n_attributes = n_attributes, .n_buckets = 64};
    if (room >= UINT32_MAX) {
        return err_set(e, "no room for %zu attribute values", room);
    }
    t->n_pieces = room / PIECE + n_attributes; /* full ones, and one of each attribute that is not */
    while (t->n_buckets < room / 4) {
        t->n_buckets *= 2;
    }
    t->records = mem_reserve(room, sizeof *t->records);
    t->entries = mem_reserve(room, sizeof *t->entries);
    t->buckets = mem_reserve(t->n_buckets, sizeof *t->buckets);
    t->numbers = mem_reserve(t->n_pieces, sizeof *t->numbers);
    t->newest = mem_reserve(n_attributes, sizeof *t->newest);
    if (t->records == NULL || t->entries == NULL || t->buckets == NULL || t->numbers == NULL || t->newest == NULL) {
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
    mem_unreserve(t->numbers, t->n_pieces, sizeof *t->numbers);
    mem_unreserve((void *)(uintptr_t)t->newest, t->n_attributes, sizeof *t->newest);
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
    r->hash = hash;
    r->text = text;
    r->attribute = (uint32_t)attribute;
    r->next = load(bucket);
    if (number_parse(text.text, text.length, &r->number) != 0) {
        r->number = NAN;
    }
    atomic_store_explicit(bucket, (uint32_t)t->n_records, memory_order_release);
    return r;
}

static void add_number(struct value_table *t, size_t attribute, double number, uint32_t row)
{
    uint32_t newest = load(&t->newest[attribute]);
    struct value_numbers *piece = &t->numbers[newest > 0 ? newest - 1 : 0];
    uint32_t n = newest > 0 ? load(&piece->n) : PIECE;
    if (n == PIECE) {
        piece = &t->numbers[t->pieces_used++];
        piece->before = newest;
        n = 0;
        atomic_store_explicit(&t->newest[attribute], (uint32_t)t->pieces_used, memory_order_release);
    }
    piece->number[n] = number;
    piece->row[n] = row;
    atomic_store_explicit(&piece->n, n + 1, memory_order_release);
}

void value_table_add(struct value_table *t, size_t attribute, struct span text, uint32_t row)
{
    uint64_t hash = hash_of(attribute, text);
    struct value_record *r = find(t, attribute, text, hash);
    if (r == NULL) {
        r = add_record(t, attribute, text, hash);
    }
    if (!isnan(r->number)) {
        add_number(t, attribute, r->number, row);
    }
    t->entries[t->n_entries++] = (struct value_entry){row, load(&r->last)};
    atomic_store_explicit(&r->last, (uint32_t)t->n_entries, memory_order_release);
}

static void set_bit(uint64_t *bits, uint32_t row)
{
    bits[row / 64] |= UINT64_C(1) << row % 64;
}

void value_table_equal(const struct value_table *t, size_t attribute, struct span text, uint64_t *bits)
{
    const struct value_record *r = find(t, attribute, text, hash_of(attribute, text));
    for (uint32_t i = r == NULL ? 0 : load(&r->last); i > 0; i = t->entries[i - 1].before) {
        set_bit(bits, t->entries[i - 1].row);
    }
}

void value_table_between(const struct value_table *t, size_t attribute, const struct number_range *range,
                         uint64_t *bits)
{
    for (uint32_t i = load(&t->newest[attribute]); i > 0; i = t->numbers[i - 1].before) {
        const struct value_numbers *piece = &t->numbers[i - 1];
        for (uint32_t n = load(&piece->n), j = 0; j < n; j++) {
            if (number_in_range(range, piece->number[j])) {
                set_bit(bits, piece->row[j]);
            }
        }
    }
}

bool value_table_has_numbers(const struct value_table *t, size_t attribute)
{
    return load(&t->newest[attribute]) > 0;
}
