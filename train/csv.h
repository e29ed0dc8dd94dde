/*
 * train/csv.h: rows of delimited text, streamed from plain, gzip or zstd files (train/text_stream.h).
 *
 * Memory is bounded by one chunk and one row, whatever the file's size. One-byte delimiters allow RFC 4180 quoting: a
 * field that starts with a quote runs to the closing one, "" inside stands for one quote, delimiters and newlines
 * inside belong to the field. A quote further inside a field is an ordinary byte (5" nails). Longer delimiters ("::")
 * are split plainly, quotes have no meaning. CR LF and LF end rows; a UTF-8 byte order mark is skipped; empty lines are
 * skipped; the last row needs no newline. Other bytes, NUL included, are passed on as they are: what is allowed in an
 * id or a category is the caller's rule. Limits: 1 MiB a row, 4,096 columns.
 *
 * Bad rows, handled inside by csv_reject: another number of fields than the columns, a quote that is never closed, text
 * behind a closing quote, a row over the limit. Reading goes on behind the row's first line, so that one stray quote
 * costs one line and not the rest of the file.
 * Not thread-safe; several readers may run at once.
 */
#ifndef TRAIN_CSV_H
#define TRAIN_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/strtab.h"

enum { CSV_ROW_MAX = 1024 * 1024, CSV_COLUMNS_MAX = 4096 };

struct csv; /* opaque */

struct csv_options {
    const char *delimiter;      /* one to four bytes; no quote, CR or LF */
    const char *const *columns; /* NULL-terminated names for a file without a header line; NULL: the first row names
                                   them. A header "name:type" (RecBole) is known by its name, too. */
    uint64_t max_bad_rows;      /* rows that may be dropped by csv_reject before it fails */
    bool quiet;                 /* otherwise progress is shown, and the first few dropped rows are logged as warnings */
    size_t chunk;               /* bytes read at a time; 0: 256 KiB. Tests use small ones */
};

/* Opens a file and resolves its columns. NULL with an error naming the file. */
struct csv *csv_open(const char *path, const struct csv_options *options, struct err *e);
void csv_close(struct csv *c); /* NULL is fine */

/* Position of a column, or -1 with an error that lists the file's columns (also when two columns have the name). */
int csv_column(const struct csv *c, const char *name, struct err *e);
size_t csv_columns(const struct csv *c);

/* Name of a column, borrowed; of a "name:type" header the whole. */
const char *csv_column_name(const struct csv *c, size_t column);

/* Next row: 1 and fields [csv_columns] (borrowed until the next call), 0 at the end, -1 on error. */
int csv_next(struct csv *c, const struct span **fields, struct err *e);

/* The caller found the row unusable: counts it, or fails with "file:line: column: reason" when max_bad_rows is used up.
 * Returns 0 to go on with the next row, -1. column may be -1. */
int csv_reject(struct csv *c, int column, const char *reason, struct err *e);

uint64_t csv_line(const struct csv *c);     /* of the current row's first byte, 1-based */
uint64_t csv_bad_rows(const struct csv *c); /* dropped so far */
double csv_done(const struct csv *c);       /* share of the file's bytes read, 0 to 1, for progress */

#endif
