/*
 * train/csv.h: rows of delimited text, streamed from plain, gzip or zstd files.
 *
 * Memory is bounded by one chunk and one row, whatever the file's size. The compression is recognised by the file's
 * first bytes, not its name. One-byte delimiters allow RFC 4180 quoting ("" inside quotes, newlines inside quotes);
 * longer ones ("::") are split plainly, quotes have no meaning. CR LF and LF end rows; a UTF-8 byte order mark is
 * skipped; empty lines are skipped; the last row needs no newline. Limits: 1 MiB a row, 4,096 columns.
 * Not thread-safe; several readers may run at once.
 */
#ifndef TRAIN_CSV_H
#define TRAIN_CSV_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/strtab.h"

struct csv; /* opaque */

struct csv_options {
    const char *delimiter;      /* one to four bytes */
    const char *const *columns; /* NULL-terminated names for a file without a header line; NULL: the first row names them.
                                   A header "name:type" (RecBole) is known by its name, too. */
    uint64_t max_bad_rows;      /* rows that may be dropped by csv_reject before it fails */
};

/* Opens a file and resolves its columns. NULL with an error naming the file. */
struct csv *csv_open(const char *path, const struct csv_options *options, struct err *e);
void csv_close(struct csv *c);

/* Position of a column, or -1 with an error that lists the file's columns. */
int csv_column(const struct csv *c, const char *name, struct err *e);
size_t csv_columns(const struct csv *c);

/* Next row: 1 and fields [csv_columns] (borrowed until the next call), 0 at the end, -1 on error. A row with another
 * number of fields is a bad row: handled by csv_reject inside. */
int csv_next(struct csv *c, const struct span **fields, struct err *e);

/* The caller found row unusable: counts it, or fails with "file:line: column: reason" when max_bad_rows is used up.
 * Returns 0 to go on with the next row, -1. column may be -1. */
int csv_reject(struct csv *c, int column, const char *reason, struct err *e);

uint64_t csv_line(const struct csv *c);     /* of the current row's first byte, 1-based */
uint64_t csv_bad_rows(const struct csv *c); /* dropped so far */
double csv_done(const struct csv *c);       /* share of the file's bytes read, 0 to 1, for progress */

#endif
