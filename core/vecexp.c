#include "core/vecexp.h"

#include <math.h>
#include <stdint.h>

#include "core/simd.h"

static const float EXP_FLOOR = -87.0f;

SIMD_CLONES float vec_exp_sum(float *x, float shift, size_t n)
{
    vec8 sums = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 v = *(vec8 *)(x + i) - shift;
        ivec8 keep = v > EXP_FLOOR;
        v = (vec8)((ivec8)v & keep);
        vec8 y;
        VEC8_EXP(y, v);
        y = (vec8)((ivec8)y & keep);
        *(vec8 *)(x + i) = y;
        sums += y;
    }
    float sum = 0;
    for (int lane = 0; lane < 8; lane++) {
        sum += sums[lane];
    }
    for (; i < n; i++) {
        float v = x[i] - shift;
        x[i] = v > EXP_FLOOR ? expf(v) : 0.0f;
        sum += x[i];
    }
    return sum;
}

/* Beyond it log(1 + exp(z)) is z and the sigmoid 1, to float32; and 8 numbers of this size do not overflow a product of
 * doubles that starts below PRODUCT_LIMIT. */
static const float SOFTPLUS_CEILING = 60.0f;
static const double PRODUCT_LIMIT = 1e90;

/* The sum of logarithms is the logarithm of a product: one log for many numbers. */
SIMD_CLONES double vec_sigmoid_softplus(float *x, float scale, float shift, size_t n)
{
    double sum = 0;
    double product = 1;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 z = *(vec8 *)(x + i) * scale - shift;
        ivec8 keep = z > EXP_FLOOR;
        ivec8 high = z > SOFTPLUS_CEILING;
        vec8 ceiling = {60, 60, 60, 60, 60, 60, 60, 60};
        vec8 v = (vec8)(((ivec8)z & keep & ~high) | ((ivec8)ceiling & high));
        vec8 e;
        VEC8_EXP(e, v);
        e = (vec8)((ivec8)e & keep);
        *(vec8 *)(x + i) = e / (1.0f + e);
        for (int lane = 0; lane < 8; lane++) {
            product *= 1.0 + (double)e[lane];
            sum += high[lane] != 0 ? (double)(z[lane] - SOFTPLUS_CEILING) : 0.0;
        }
        if (product > PRODUCT_LIMIT) {
            sum += log(product);
            product = 1;
        }
    }
    for (; i < n; i++) {
        double z = (double)(x[i] * scale - shift);
        x[i] = z > (double)EXP_FLOOR ? (float)(1 / (1 + exp(-z))) : 0.0f;
        sum += z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
    }
    return sum + log(product);
}
