/*
 * core/strtab.h: a read-only table of strings in one block of bytes, used mapped as it lies in the file.
 *
 * File format (little endian), documented for other writers in docs/bundle.md:
 *   8 bytes  "RECSTR1\n"
 *   u64      count
 *   u64      bytes in all strings together
 *   u64      offsets [count + 1]; offsets[0] = 0, never falling, offsets[count] = bytes
 *   bytes    the strings, one behind the other, no separator
 * A sorted table is strictly ascending by unsigned bytes (memcmp), so it has no duplicates and is its own search index.
 * Vocabularies and item ids are sorted; attribute columns are not. Reading is thread-safe.
 */
#ifndef CORE_STRTAB_H
#define CORE_STRTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/err.h"

struct strtab {
    size_t count;
    const uint64_t *offsets; /* [count + 1], borrowed from the block */
    const char *bytes;       /* borrowed from the block */
};

/* Checks a block completely and makes `t` a view of it. The block is borrowed and must stay, 8-byte aligned.
 * The error says what is wrong; the caller prefixes the file's name. */
int strtab_view(struct strtab *t, const void *block, size_t size, bool sorted, struct err *e);

/* String i (not '\0'-terminated); its length goes to *length. */
const char *strtab_get(const struct strtab *t, size_t i, size_t *length);

/* Position of a string in a sorted table, or -1. */
int64_t strtab_find(const struct strtab *t, const char *text, size_t length);

/* Appends a table of the given strings, in the given order, to `out`, ready for strtab_view or a file. */
struct span {
    const char *text;
    size_t length;
};
void strtab_write(struct buf *out, const struct span *strings, size_t count);

/* memcmp order, shorter first among equal prefixes: the order of sorted tables. */
int span_compare(const struct span *a, const struct span *b);

#endif
