/*
 * core/feature_pack.h: encoded rows that stay in memory: packed row by row, for reading only.
 *
 * A row's fields stand one behind the other, each in as many bytes as the table it points into needs: 1, 2 or 4 for an
 * index, 4 for a plain number, a count and the indices for a bag; nothing for a bag that is empty in all rows (a history:
 * it comes from events) nor for an id whose table rows follow the rows' order. Ten million users with seven fields take
 * 200 MB instead of 450, and one of them one or two cache lines instead of nine.
 */
#ifndef CORE_FEATURE_PACK_H
#define CORE_FEATURE_PACK_H

#include <stddef.h>

#include "core/features.h"

/* Packs `rows` and frees their columns: from then on only feature_rows_copy (as its source), feature_rows_column,
 * feature_rows_prefetch and feature_rows_release may be used on them; n stays. Rows that would need more than 4 GiB, and
 * those that are packed already, stay as they are. -1 without memory; the rows are unchanged then. */
int feature_rows_pack(struct feature_rows *rows);

/* The values of a feature of packed or plain rows as a new column: index, or number, and start of bags; free with
 * feature_column_release. -1 without memory. */
int feature_rows_column(const struct feature_rows *rows, uint32_t feature, struct feature_column *column);
void feature_column_release(struct feature_column *column);

/* For core/features.c. Appends row `row` of a pack to `rows`. -1 without memory. */
int feature_pack_read(const struct feature_pack *pack, size_t row, struct feature_rows *rows);
void feature_pack_free(struct feature_pack *pack);

/* Asks for the memory of a packed row, so that a later feature_rows_copy need not wait for it. */
void feature_rows_prefetch(const struct feature_rows *rows, size_t row);

#endif
