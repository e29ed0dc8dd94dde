/*
 * Activations. The cheap ones are loops that the compiler vectorises. gelu has no fast erf in libm: its
 * Phi(z) = 1 - erfc(z / sqrt 2) / 2 comes from Abramowitz & Stegun 7.1.26, erfc(x) = t P(t) exp(-x^2) with
 * t = 1 / (1 + p x), within 1.5e-7, which is what a float resolves near 1. Its exponential is also that of the
 * derivative Phi(z) + z phi(z); so the derivative is made there and then, and kept.
 *
 * Rejected: the tanh form of gelu. It is no faster than this, and differs from what PyTorch's GELU() computes by 1e-3.
 */
#include "core/activation.h"

#include <string.h>

#include "core/network.h"
#include "core/simd.h"
#include "core/vecmath.h"

const char *const activation_words[] = {"relu", "gelu", "leaky_relu", NULL};

static const float LEAK = 0.01f;

SIMD_CLONES static void none_forward(float *y, const float *bias, size_t rows, size_t n, float *slope)
{
    (void)slope;
    for (size_t r = 0; r < rows; r++, y += n) {
        for (size_t i = 0; i < n; i++) {
            y[i] += bias[i];
        }
    }
}

SIMD_CLONES static void none_backward(float *dy, const float *y, const float *slope, size_t rows, size_t n,
                                      float *dbias)
{
    (void)y;
    (void)slope;
    for (size_t r = 0; r < rows; r++, dy += n) {
        for (size_t i = 0; i < n; i++) {
            dbias[i] += dy[i];
        }
    }
}

SIMD_CLONES static void relu_forward(float *y, const float *bias, size_t rows, size_t n, float *slope)
{
    (void)slope;
    for (size_t r = 0; r < rows; r++, y += n) {
        for (size_t i = 0; i < n; i++) {
            float z = y[i] + bias[i];
            y[i] = z < 0 ? 0.0f : z; /* a NaN stays one */
        }
    }
}

SIMD_CLONES static void relu_backward(float *restrict dy, const float *restrict y, const float *slope, size_t rows,
                                      size_t n, float *restrict dbias)
{
    (void)slope;
    for (size_t r = 0; r < rows; r++, dy += n, y += n) {
        for (size_t i = 0; i < n; i++) {
            dy[i] = y[i] > 0 ? dy[i] : 0.0f;
            dbias[i] += dy[i];
        }
    }
}

SIMD_CLONES static void leaky_forward(float *y, const float *bias, size_t rows, size_t n, float *slope)
{
    (void)slope;
    for (size_t r = 0; r < rows; r++, y += n) {
        for (size_t i = 0; i < n; i++) {
            float z = y[i] + bias[i];
            y[i] = z < 0 ? LEAK * z : z;
        }
    }
}

SIMD_CLONES static void leaky_backward(float *restrict dy, const float *restrict y, const float *slope, size_t rows,
                                       size_t n, float *restrict dbias)
{
    (void)slope;
    for (size_t r = 0; r < rows; r++, dy += n, y += n) {
        for (size_t i = 0; i < n; i++) {
            dy[i] *= y[i] > 0 ? 1.0f : LEAK;
            dbias[i] += dy[i];
        }
    }
}

/* gelu and its derivative at 8 numbers. */
static inline __attribute__((always_inline)) void gelu(float *y, const float *bias, float *slope)
{
    vec8 z = *(vec8 *)y + *(const vec8 *)bias;
    vec8 x = (vec8)((ivec8)z & 0x7fffffff) * 0.70710678f; /* |z| / sqrt 2 */
    vec8 square = -x * x;
    ivec8 above = square > -87.0f; /* exp's range; beyond, the tail is no float */
    vec8 exponent = (vec8)((ivec8)square & above);
    vec8 bell;
    VEC8_EXP(bell, exponent);
    bell = (vec8)((ivec8)bell & above);
    vec8 t = 1.0f / (0.3275911f * x + 1.0f);
    vec8 p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vec8 tail = 0.5f * p * t * bell; /* Phi(-|z|) */
    ivec8 positive = z > 0.0f;
    vec8 phi = (vec8)(((ivec8)(1.0f - tail) & positive) | ((ivec8)tail & ~positive));
    *(vec8 *)y = z * phi;
    *(vec8 *)slope = phi + z * bell * 0.39894228f;
}

SIMD_CLONES static void gelu_forward(float *y, const float *bias, size_t rows, size_t n, float *slope)
{
    for (size_t r = 0; r < rows; r++, y += n, slope += n) {
        size_t i = 0;
        for (; i + 8 <= n; i += 8) {
            gelu(y + i, bias + i, slope + i);
        }
        if (i < n) {
            float last[3][8] = {{0}};
            memcpy(last[0], y + i, (n - i) * sizeof *y);
            memcpy(last[1], bias + i, (n - i) * sizeof *y);
            gelu(last[0], last[1], last[2]);
            memcpy(y + i, last[0], (n - i) * sizeof *y);
            memcpy(slope + i, last[2], (n - i) * sizeof *y);
        }
    }
}

SIMD_CLONES static void gelu_backward(float *restrict dy, const float *y, const float *restrict slope, size_t rows,
                                      size_t n, float *restrict dbias)
{
    (void)y;
    for (size_t r = 0; r < rows; r++, dy += n, slope += n) {
        for (size_t i = 0; i < n; i++) {
            dy[i] *= slope[i];
            dbias[i] += dy[i];
        }
    }
}

static const struct {
    void (*forward)(float *y, const float *bias, size_t rows, size_t n, float *slope);
    void (*backward)(float *dy, const float *y, const float *slope, size_t rows, size_t n, float *dbias);
    bool keeps_slope;
} activations[] = {
    [ACTIVATION_RELU] = {relu_forward, relu_backward, false},
    [ACTIVATION_GELU] = {gelu_forward, gelu_backward, true},
    [ACTIVATION_LEAKY_RELU] = {leaky_forward, leaky_backward, false},
    [ACTIVATION_NONE] = {none_forward, none_backward, false},
};

bool activation_keeps_slope(enum activation a)
{
    return activations[a].keeps_slope;
}

void activation_forward(enum activation a, float *y, const float *bias, size_t rows, size_t n, float *slope)
{
    activations[a].forward(y, bias, rows, n, slope);
}

void activation_backward(enum activation a, float *dy, const float *y, const float *slope, size_t rows, size_t n,
                         float *dbias)
{
    enum { ROWS = 64 }; /* summed by themselves: thousands of rows added up one by one would lose two digits */
    float some[NETWORK_MAX_WIDTH];
    memset(dbias, 0, n * sizeof *dbias);
    for (size_t r = 0; r < rows; r += ROWS) {
        size_t at = r * n;
        memset(some, 0, n * sizeof *some);
        activations[a].backward(dy + at, y + at, slope == NULL ? NULL : slope + at, rows - r < ROWS ? rows - r : ROWS,
                                n, some);
        vec_add_scaled(dbias, some, 1.0f, n);
    }
}
