/*
 * ann/sq8.h: 8-bit codes of vectors: scores to within a known error from a quarter of the memory, a line or two a row.
 *
 * x is coded as code * step, step = max |x_i| / 127. A score q.x then differs from that of the code by at most |q| |x - code * step|
 * (Cauchy-Schwarz); the second factor is kept with the row, with what float sums may be off. So a scan that looks for
 * the best rows reads the vectors of those only that may be among them, and its answer is exact.
 *
 * One thread writes; a row that is written may be read by any number.
 */
#ifndef ANN_SQ8_H
#define ANN_SQ8_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "core/topk.h"

enum { SQ8_DIM_MAX = 8192 };

struct sq8 {
    atomic_uint owners;
    uint32_t dim;
    size_t stride;  /* bytes of a row */
    size_t room;    /* rows */
    uint8_t *codes; /* [room, stride] step, error, codes: see sq8.c */
};

/* New, for up to `room` rows of dim <= SQ8_DIM_MAX numbers, with one owner; memory is taken as it is needed. NULL without any. */
struct sq8 *sq8_new(uint32_t dim, size_t room);
struct sq8 *sq8_own(struct sq8 *s); /* one owner more */
void sq8_release(struct sq8 *s);    /* one less: the last one frees it; NULL is fine */

/* Codes vectors x [n, dim], all finite, as rows first, first + 1, ... */
void sq8_put(struct sq8 *s, size_t first, const float *x, size_t n);

/* picked[i].score = the most that the score of row picked[i].row can be, for a query of length `norm`. */
void sq8_bound(const struct sq8 *s, const float *query, float norm, struct scored *picked, size_t n);

#endif
