/*
 * server/value_table.h: which of the added rows have a value: what core/attribute_index.h is for the bundle's rows, but growing.
 *
 * One table for all attributes. One thread adds, any number read meanwhile, without locks; what they see of a row that
 * is being added may be incomplete. Memory is reserved at first and taken as it is needed.
 */
#ifndef SERVER_VALUE_TABLE_H
#define SERVER_VALUE_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/attribute_index.h"
#include "core/err.h"

struct value_entry;
struct value_numbers;
struct value_record;

struct value_table {
    size_t room; /* values of rows that can be noted */
    size_t n_attributes, n_buckets;
    struct value_record *records;  /* [room] the different values */
    struct value_entry *entries;   /* [room] rows that have one */
    _Atomic uint32_t *buckets;     /* [n_buckets] newest record + 1; 0: none */
    struct value_numbers *numbers; /* [n_pieces] rows with their numbers */
    _Atomic uint32_t *newest;      /* [n_attributes] newest piece + 1 */
    size_t n_pieces;
    size_t n_records, n_entries, pieces_used; /* of the thread that adds */
};

int value_table_init(struct value_table *t, size_t n_attributes, size_t room, struct err *e);
void value_table_release(struct value_table *t); /* zeroed is fine */

/* Notes that a row has a value. The text is borrowed for as long as the table lives. There must be room: n_entries < room. */
void value_table_add(struct value_table *t, size_t attribute, struct span text, uint32_t row);

/* As attribute_index_equal and attribute_index_between. */
void value_table_equal(const struct value_table *t, size_t attribute, struct span text, uint64_t *bits);
void value_table_between(const struct value_table *t, size_t attribute, const struct number_range *range,
                         uint64_t *bits);
bool value_table_has_numbers(const struct value_table *t, size_t attribute);

#endif
