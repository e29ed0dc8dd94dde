/*
 * ann/mark.h: which rows of a block are allowed: 32 lookups in a bit set at once.
 *
 * Chosen by core/cpu.h; rows_allowed_plain is the oracle. Thread-safe.
 */
#ifndef ANN_MARK_H
#define ANN_MARK_H

#include <stddef.h>
#include <stdint.h>

enum { MARK_ROWS = 32 };

/* Bit i of the result: row rows[i] is in the set. rows [n], n <= MARK_ROWS, all within the set's words. */
uint32_t rows_allowed(const uint64_t *allow, const uint32_t *rows, size_t n);
uint32_t rows_allowed_plain(const uint64_t *allow, const uint32_t *rows, size_t n);

#endif
