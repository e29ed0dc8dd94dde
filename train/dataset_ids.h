/*
 * train/dataset_ids.h: which bytes an id or a category may have, and the final numbers of ids.
 */
#ifndef TRAIN_DATASET_IDS_H
#define TRAIN_DATASET_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/idmap.h"
#include "core/strtab.h"

enum { ID_BYTES_MAX = 256 };

/* NULL when the text may be an id: 1 to ID_BYTES_MAX bytes and text_check. Else why not (a static text). */
const char *id_check(const char *text, size_t length);

/* NULL for valid UTF-8 (RFC 3629) without control characters (below U+0020, U+007F): what can travel in JSON and in a
 * log line unchanged. Else why not (a static text). */
const char *text_check(const char *text, size_t length);

/* Numbers ids in ascending byte order: rank[i] becomes the number of the map's i-th id. With `member` (NULL: all are),
 * members come first, 0 to the table's count - 1, and the others behind them in any order. Appends the members' sorted
 * string table to `block` (empty, to be kept by the caller) and makes `table` a view of it. */
int ids_number(const struct idmap *ids, const bool *member, uint32_t *rank, struct buf *block, struct strtab *table,
               struct err *e);

/* Position in a sorted table of each of a map's ids, numbers from the table's count up for those it does not have: new,
 * [idmap_count]; NULL without memory. */
uint32_t *ids_translate(const struct idmap *ids, const struct strtab *table);

/* Appends to `block` a sorted table of those of a sorted table's strings whose count is at least `min_count`, and makes
 * `vocab` a view of it; when that is all of them, `vocab` is a view of `all` and the block stays empty. */
int ids_frequent(const struct strtab *all, const uint32_t *counts, uint32_t min_count, struct buf *block,
                 struct strtab *vocab, struct err *e);

#endif
