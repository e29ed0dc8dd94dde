/*
 * Vector and matrix kernels.
 *
 * What we write ourselves is what BLAS does badly for us: many short dot products against one query (a scan), where the
 * call overhead and the transposition of arguments would dominate; and the products of training (core/sgemm.c), where the
 * processor has AVX2. Other products of matrices are OpenBLAS's job.
 * Kernels are plain C over 8-float vectors with several accumulators, compiled per instruction set (core/simd.h), so
 * the order of summation is fixed for a processor: the same input gives the same bits on the same machine.
 *
 * Rejected: -ffast-math for the whole file. It would let the compiler assume that NaN does not exist, and then
 * vec_is_finite and the NaN rules of topk would silently stop working.
 */
#include "core/vecmath.h"

#include <cblas.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "core/sgemm.h"
#include "core/simd.h"

/* Sums the lanes pairwise: three dependent additions instead of eight, and a smaller rounding error. */
static inline __attribute__((always_inline)) float sum_lanes(vec8 v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

static inline __attribute__((always_inline)) float dot(const float *a, const float *b, size_t n)
{
    vec8 sum[4] = {{0}};
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        for (size_t j = 0; j < 4; j++) {
            sum[j] += *(const vec8 *)(a + i + 8 * j) * *(const vec8 *)(b + i + 8 * j);
        }
    }
    for (; i + 8 <= n; i += 8) {
        sum[0] += *(const vec8 *)(a + i) * *(const vec8 *)(b + i);
    }
    float tail = 0;
    for (; i < n; i++) {
        tail += a[i] * b[i];
    }
    return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

SIMD_CLONES float vec_dot(const float *a, const float *b, size_t n)
{
    return dot(a, b, n);
}

float vec_dot_naive(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return (float)sum;
}

SIMD_CLONES void vec_dot_rows(float *scores, const float *matrix, size_t rows, size_t n, const float *query)
{
    for (size_t r = 0; r < rows; r++) {
        scores[r] = dot(matrix + r * n, query, n);
    }
}

/* A row's lines, as many as there are ways to wait for them. */
static inline __attribute__((always_inline)) void prefetch_row(const float *row, size_t n)
{
    enum { LINE = 64 / sizeof(float), MOST = 8 * LINE };
    for (size_t i = 0; i < n && i < MOST; i += LINE) {
        __builtin_prefetch(row + i);
    }
}

SIMD_CLONES void vec_dot_picked(struct scored *picked, size_t n_picked, const float *matrix, size_t n,
                                const float *query)
{
    enum { AHEAD = 6 };
    for (size_t i = 0; i < n_picked && i < AHEAD; i++) {
        prefetch_row(matrix + (size_t)picked[i].row * n, n);
    }
    for (size_t i = 0; i < n_picked; i++) {
        if (i + AHEAD < n_picked) {
            prefetch_row(matrix + (size_t)picked[i + AHEAD].row * n, n);
        }
        picked[i].score = dot(matrix + (size_t)picked[i].row * n, query, n);
    }
}

void vec_block(float *blocked, const float *matrix, size_t rows, size_t n)
{
    for (size_t r = 0; r < vec_blocks(rows) * VEC_BLOCK; r++) {
        float *to = blocked + r / VEC_BLOCK * VEC_BLOCK * n + r % VEC_BLOCK;
        for (size_t i = 0; i < n; i++) {
            to[i * VEC_BLOCK] = r < rows ? matrix[r * n + i] : 0.0f;
        }
    }
}

SIMD_CLONES void vec_dot_blocks(float *scores, const float *blocked, size_t blocks, size_t n, const float *query)
{
    for (size_t b = 0; b < blocks; b++, scores += VEC_BLOCK) {
        vec8 sum[8] = {{0}};
        size_t i = 0;
        for (; i + 4 <= n; i += 4, blocked += (size_t)4 * VEC_BLOCK) {
            for (size_t j = 0; j < 4; j++) {
                sum[2 * j] += *(const vec8 *)(blocked + j * VEC_BLOCK) * query[i + j];
                sum[2 * j + 1] += *(const vec8 *)(blocked + j * VEC_BLOCK + 8) * query[i + j];
            }
        }
        for (; i < n; i++, blocked += VEC_BLOCK) {
            sum[0] += *(const vec8 *)blocked * query[i];
            sum[1] += *(const vec8 *)(blocked + 8) * query[i];
        }
        *(vec8 *)scores = (sum[0] + sum[2]) + (sum[4] + sum[6]);
        *(vec8 *)(scores + 8) = (sum[1] + sum[3]) + (sum[5] + sum[7]);
    }
}

SIMD_CLONES void vec_add_scaled(float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += scale * x[i];
    }
}

SIMD_CLONES void vec_scale(float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] *= scale;
    }
}

/* The length of x where a float sum of squares under- or overflows. */
static double norm_wide(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

float vec_norm(const float *x, size_t n)
{
    float square = vec_dot(x, x, n);
    if (square > FLT_MIN && square < FLT_MAX) {
        return sqrtf(square);
    }
    return (float)norm_wide(x, n);
}

/* x * 0 is NaN for an infinite or NaN x and 0 otherwise: sums to a verdict without a branch. */
SIMD_CLONES bool vec_is_finite(const float *x, size_t n)
{
    vec8 zeros = {0};
    float zero = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        zeros += *(const vec8 *)(x + i) * 0.0f;
    }
    for (; i < n; i++) {
        zero += x[i] * 0.0f;
    }
    return zero + sum_lanes(zeros) == 0.0f;
}

/* A row so long that 1 / length is no normal float: divided in double precision. */
static void normalize_wide(float *x, size_t n)
{
    double norm = norm_wide(x, n);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)((double)x[i] / norm);
    }
}

void vec_normalize_rows(float *x, size_t rows, size_t n, float *norms)
{
    for (size_t r = 0; r < rows; r++) {
        float *row = x + r * n;
        float norm = vec_norm(row, n);
        if (norms != NULL) {
            norms[r] = norm;
        }
        if (norm > 1e30f) {
            normalize_wide(row, n);
        } else {
            vec_scale(row, norm < 1e-12f ? 0.0f : 1.0f / norm, n);
        }
    }
}

/* One product, row-major. Leading dimensions follow from the shapes; a transposed operand is stored [k, .]. */
static void multiply_blas(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m,
                          size_t n, size_t k, bool accumulate)
{
    cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans, b_transposed ? CblasTrans : CblasNoTrans,
                (blasint)m, (blasint)n, (blasint)k, 1.0f, a, (blasint)(a_transposed ? m : k), b,
                (blasint)(b_transposed ? k : n), accumulate ? 1.0f : 0.0f, c, (blasint)n);
}

static void multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m, size_t n,
                     size_t k, bool accumulate)
{
    if (m == 0 || n == 0) {
        return;
    }
    if (k == 0) {
        if (!accumulate) {
            memset(c, 0, m * n * sizeof *c);
        }
        return;
    }
    if (sgemm_available()) {
        sgemm_multiply(c, a, a_transposed, b, b_transposed, m, n, k, accumulate);
    } else {
        multiply_blas(c, a, a_transposed, b, b_transposed, m, n, k, accumulate);
    }
}

void mat_mul_nt(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    if (m == 1 && !accumulate) {
        vec_dot_rows(c, b, n, k, a); /* one request's layer: no call overhead, no packing */
        return;
    }
    multiply(c, a, false, b, true, m, n, k, accumulate);
}

void mat_mul_nn(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    multiply(c, a, false, b, false, m, n, k, accumulate);
}

void mat_mul_tn(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    multiply(c, a, true, b, false, m, n, k, accumulate);
}

/* The oracle of all three: element (i, p) of a at a[i * a_row + p * a_column], and likewise b. */
static void multiply_naive(float *c, const float *a, size_t a_row, size_t a_column, const float *b, size_t b_row,
                           size_t b_column, size_t m, size_t n, size_t k, bool accumulate)
{
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = accumulate ? (double)c[i * n + j] : 0.0;
            for (size_t p = 0; p < k; p++) {
                sum += (double)a[i * a_row + p * a_column] * (double)b[p * b_row + j * b_column];
            }
            c[i * n + j] = (float)sum;
        }
    }
}

void mat_mul_nt_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    multiply_naive(c, a, k, 1, b, 1, k, m, n, k, accumulate);
}

void mat_mul_nn_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    multiply_naive(c, a, k, 1, b, n, 1, m, n, k, accumulate);
}

void mat_mul_tn_naive(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate)
{
    multiply_naive(c, a, 1, m, b, n, 1, m, n, k, accumulate);
}

int blas_setup(struct err *e)
{
    enum { M = 67, N = 53, K = 71 }; /* no multiple of any kernel's tile */
    static float a[M * K], b[N * K], fast[M * N], slow[M * N];
    openblas_set_num_threads(1);
    struct rng r;
    rng_seed(&r, 1, 1);
    for (size_t i = 0; i < M * K; i++) {
        a[i] = rng_uniform(&r) - 0.5f;
    }
    for (size_t i = 0; i < N * K; i++) {
        b[i] = rng_uniform(&r) - 0.5f;
    }
    multiply_blas(fast, a, false, b, true, M, N, K, false); /* faiss uses it even where mat_mul_nt does not */
    mat_mul_nt_naive(slow, a, b, M, N, K, false);
    for (size_t i = 0; i < M * N; i++) {
        if (!(fabsf(fast[i] - slow[i]) < 1e-4f)) {
            return err_set(e,
                           "the installed OpenBLAS (%s) multiplies matrices wrongly on this processor; install a newer "
                           "one, or set OPENBLAS_CORETYPE=Haswell (no AVX2: Nehalem) in the environment",
                           openblas_get_corename());
        }
    }
    return 0;
}
