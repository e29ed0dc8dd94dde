/*
 * tests/unit/server/small_bundle.h: a bundle made in memory, of ids and attributes only, as catalog_new takes it.
 */
#ifndef TESTS_UNIT_SERVER_SMALL_BUNDLE_H
#define TESTS_UNIT_SERVER_SMALL_BUNDLE_H

#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/bundle.h"
#include "core/mem.h"

enum { SMALL_BUNDLE_ITEMS = 1000, SMALL_BUNDLE_ATTRIBUTES = 4 };

struct small_column {
    const char *name;
    const char *const *texts; /* [n] JSON */
};

/* What the tables point into: outlives the bundle. */
struct small_blocks {
    struct buf block[1 + SMALL_BUNDLE_ATTRIBUTES];
};

static inline void small_table(struct buf *block, struct strtab *table, const char *const *texts, size_t n, bool sorted)
{
    static struct span spans[SMALL_BUNDLE_ITEMS];
    struct err e = ERR_INIT;
    for (size_t i = 0; i < n; i++) {
        spans[i] = (struct span){texts[i], strlen(texts[i])};
    }
    *block = (struct buf)BUF_INIT;
    strtab_write(block, spans, n);
    assert_int_equal(strtab_view(table, block->data, block->len, sorted, &e), 0);
}

/* New; ids [n] in order. */
static inline struct bundle *small_bundle_new(struct small_blocks *blocks, const char *const *ids, size_t n,
                                              const struct small_column *columns, size_t n_columns)
{
    struct err e = ERR_INIT;
    struct bundle *b = mem_array(1, sizeof *b);
    *blocks = (struct small_blocks){{BUF_INIT}};
    b->n_items = n;
    b->n_attributes = n_columns;
    b->attributes = mem_array(n_columns, sizeof *b->attributes);
    small_table(&blocks->block[0], &b->item_ids, ids, n, true);
    for (size_t i = 0; i < n_columns; i++) {
        struct bundle_attribute *a = &b->attributes[i];
        snprintf(a->name, sizeof a->name, "%s", columns[i].name);
        small_table(&blocks->block[1 + i], &a->values, columns[i].texts, n, false);
        a->index = attribute_index_new(&a->values, &e);
        assert_non_null(a->index);
    }
    return b;
}

static inline void small_blocks_release(struct small_blocks *blocks)
{
    for (size_t i = 0; i < sizeof blocks->block / sizeof *blocks->block; i++) {
        buf_release(&blocks->block[i]);
    }
}

#endif
