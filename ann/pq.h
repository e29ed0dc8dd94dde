/*
 * ann/pq.h: 4-bit product codes (Jegou et al., TPAMI 2011), scanned in registers (Andre et al., VLDB 2015).
 *
 * A vector is cut into `parts` pieces of `width` numbers; each piece is coded by the nearest of 16 centers of its own. For
 * a query the inner products with all centers, rounded to a byte, make a table of 16 bytes a part: just what a byte
 * shuffle looks up for 16 or 32 codes at once. The approximate inner product of a row is base + step * sum of bytes.
 *
 * Codes of 32 rows stand together, a block: for each pair of parts 32 bytes; byte i < 16 has the codes of rows i (low
 * half) and i + 16 (high half) in the first part of the pair, byte 16 + i those in the second.
 *
 * Functions are pure but for pq_train; the scan (ann/pq_scan.c) is chosen by core/cpu.h, pq_scan_naive is its oracle.
 */
#ifndef ANN_PQ_H
#define ANN_PQ_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { PQ_CENTERS = 16, PQ_BLOCK = 32, PQ_PARTS_MAX = 128 };

struct pq {
    uint32_t dim;
    uint32_t width;       /* numbers of a part; the last part of an odd dimension is filled up with zeros */
    uint32_t parts;       /* even, <= PQ_PARTS_MAX: sums of bytes stay below 2^15 */
    const float *centers; /* [parts, PQ_CENTERS, width] */
};

/* width and parts for a dimension; no centers yet. */
struct pq pq_shape(uint32_t dim);

static inline size_t pq_centers_size(const struct pq *pq)
{
    return (size_t)pq->parts * PQ_CENTERS * pq->width;
}

/* Bytes of a block of PQ_BLOCK rows. */
static inline size_t pq_block_bytes(const struct pq *pq)
{
    return (size_t)pq->parts * PQ_BLOCK / 2;
}

/* Finds the centers for rows x [n, dim] by Lloyd's algorithm, into centers [pq_centers_size]. The same rows and seed give
 * the same centers. */
int pq_train(const struct pq *pq, float *centers, const float *x, size_t n, uint64_t seed, struct err *e);

/* Codes of one row, a byte a part, into code [parts]. */
void pq_encode(const struct pq *pq, const float *x, uint8_t *code);

/* Puts a row's codes into place `at` of its block, which was zeroed. */
void pq_put(const struct pq *pq, uint8_t *block, size_t at, const uint8_t *code);

struct pq_table {
    uint8_t byte[PQ_PARTS_MAX * PQ_CENTERS] __attribute__((aligned(64))); /* [parts, PQ_CENTERS] */
    float base, step;
};

/* The centers as pq_table_make reads them, [parts, width, PQ_CENTERS]: into columns [pq_centers_size]. */
void pq_columns(const struct pq *pq, float *columns);

void pq_table_make(const struct pq *pq, const float *columns, struct pq_table *table, const float *query);

/* sums[i] = sum over parts of the table's bytes, for rows of one block. */
void pq_scan_naive(const struct pq *pq, const struct pq_table *table, const uint8_t *block, uint16_t *sums);

/* Looks through `blocks` blocks for sums above `floor`: writes place (in rows from the first block on) and sum of each to
 * place and sum, and returns how many. Stops early, with *done < blocks, when the next block may not fit into `room`
 * (>= PQ_BLOCK) entries. */
size_t pq_scan(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks, int floor,
               size_t room, uint32_t *place, uint16_t *sum, size_t *done);

#endif
