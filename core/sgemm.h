/*
 * core/sgemm.h: a matrix product of our own for the shapes of training: some hundred rows, and small on one side at least.
 *
 * core/vecmath.h is what callers use; it takes this product where sgemm_available, and OpenBLAS elsewhere.
 */
#ifndef CORE_SGEMM_H
#define CORE_SGEMM_H

#include <stdbool.h>
#include <stddef.h>

/* True on processors with AVX2 and FMA (core/cpu.h). */
bool sgemm_available(void);

/* c [m, n] = a x b, or c += a x b with `accumulate`; a is [m, k], or stored [k, m] when a_transposed; b is [k, n], or
 * stored [n, k] when b_transposed. All row-major and dense; nothing overlaps; m, n, k > 0. Only where sgemm_available.
 * The order of summation depends on the shapes and the processor's level alone. Takes 150 KB of stack. */
void sgemm_multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m, size_t n,
                    size_t k, bool accumulate);

#endif
