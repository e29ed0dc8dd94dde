/*
 * core/vecmath.h: vectors and matrices of float32.
 *
 * Matrices are row-major and dense: [rows, columns]. Nothing overlaps, nothing allocates; all functions are safe to
 * call from several threads on different outputs. Matrix products (core/sgemm.h, or OpenBLAS: blas_setup) run
 * in the calling thread; our own threads are the parallelism. Each fast function has a `_naive` twin: the oracle that
 * tests compare it with, and that blas_setup checks the installed BLAS against.
 */
#ifndef CORE_VECMATH_H
#define CORE_VECMATH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "core/topk.h"

float vec_dot(const float *a, const float *b, size_t n);
float vec_dot_naive(const float *a, const float *b, size_t n);
void vec_add_scaled(float *y, const float *x, float scale, size_t n); /* y += scale * x */
void vec_scale(float *x, float scale, size_t n);
float vec_norm(const float *x, size_t n);
bool vec_is_finite(const float *x, size_t n);

/* Scales each row of x [rows, n] to length 1; norms [rows], if not NULL, gets the lengths before. A row shorter than
 * 1e-12 becomes zeros: its cosine with everything is 0. */
void vec_normalize_rows(float *x, size_t rows, size_t n, float *norms);

/* scores[i] = dot(query, matrix row i), for matrix [rows, n] */
void vec_dot_rows(float *scores, const float *matrix, size_t rows, size_t n, const float *query);

/* picked[i].score = dot(query, matrix row picked[i].row): the same bits as vec_dot_rows. Rows anywhere in a large matrix are
 * asked for ahead. */
void vec_dot_picked(struct scored *picked, size_t n_picked, const float *matrix, size_t n, const float *query);

/* scores of many rows at once, for rows that are always read together: they stand in blocks of VEC_BLOCK, [blocks, n, VEC_BLOCK],
 * scores [blocks * VEC_BLOCK]. Sums differ from vec_dot_rows's in their last bits. vec_block makes them of matrix [rows, n], into
 * blocked [vec_blocks(rows) * VEC_BLOCK * n]; places without a row are zeros. */
enum { VEC_BLOCK = 16 };
static inline size_t vec_blocks(size_t rows)
{
    return (rows + VEC_BLOCK - 1) / VEC_BLOCK;
}
void vec_block(float *blocked, const float *matrix, size_t rows, size_t n);
void vec_dot_blocks(float *scores, const float *blocked, size_t blocks, size_t n, const float *query);

/* c [m, n] = a x b, or c += a x b with `accumulate`. The letters say which operand is used transposed:
 * nt: a [m, k], b [n, k]     nn: a [m, k], b [k, n]     tn: a [k, m], b [k, n] */
void mat_mul_nt(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);
void mat_mul_nn(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);
void mat_mul_tn(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);
void mat_mul_nt_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);
void mat_mul_nn_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);
void mat_mul_tn_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);

/* Call once in main, before threads: one BLAS thread per caller, then a small product compared with the oracle.
 * Old OpenBLAS builds compute wrong results on some newer processors; the error says what to set. */
int blas_setup(struct err *e);

#endif
