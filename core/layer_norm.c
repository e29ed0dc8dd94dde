/*
 * Layer normalisation (Ba, Kiros & Hinton, 2016) with its activation: y = f(w * h + b), h = (x - mean) / deviation, by row,
 * deviation = sqrt(variance + 1e-5) with the variance over n numbers, as PyTorch's nn.LayerNorm. w and b [n].
 * With z = w h + b:  dz = dy f'(z);  dw = the sum of dz h;  db = the sum of dz;  g = w dz;
 * dx = (g - mean(g) - h mean(g h)) / deviation.
 */
#include <math.h>
#include <string.h>

#include "core/network.h"
#include "core/simd.h"

/* Kept: the mean of each row, 1 / deviation of each row, and the slopes of the activation. */
static void declare(struct layer *l, struct network_layers *network)
{
    l->kept = 2 + (activation_keeps_slope(l->activation) ? l->out : 0);
    network_declare(network, "norm.%u.weight", l->number, l->out, 0, START_ONE);
    network_declare(network, "norm.%u.bias", l->number, l->out, 0, START_ZERO);
}

static inline __attribute__((always_inline)) float sum_lanes(vec8 v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* Sum of x - shift, and of its square. */
static inline __attribute__((always_inline)) void sums(const float *x, float shift, size_t n, float *first,
                                                       float *second)
{
    vec8 one = {0};
    vec8 two = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 v = *(const vec8 *)(x + i) - shift;
        one += v;
        two += v * v;
    }
    *first = sum_lanes(one);
    *second = sum_lanes(two);
    for (; i < n; i++) {
        float v = x[i] - shift;
        *first += v;
        *second += v * v;
    }
}

SIMD_CLONES static void normalize(float *restrict y, const float *restrict x, const float *restrict w, size_t rows,
                                  size_t n, float *mean, float *inverse)
{
    for (size_t r = 0; r < rows; r++, x += n, y += n) {
        float sum, square;
        sums(x, 0, n, &sum, &square);
        mean[r] = sum / (float)n;
        sums(x, mean[r], n, &sum, &square); /* a second pass: no difference of large numbers */
        inverse[r] = 1.0f / sqrtf(square / (float)n + 1e-5f);
        for (size_t i = 0; i < n; i++) {
            y[i] = w[i] * ((x[i] - mean[r]) * inverse[r]);
        }
    }
}

static void forward(const struct layer *l, const struct layer_run *r)
{
    float *mean = r->kept;
    float *inverse = mean + r->rows;
    normalize(r->y, r->x, r->weight[0], r->rows, l->out, mean, inverse);
    activation_forward(l->activation, r->y, r->weight[1], r->rows, l->out, inverse + r->rows);
}

SIMD_CLONES static void denormalize(float *restrict dx, const float *restrict dz, const float *restrict x,
                                    const float *restrict w, size_t rows, size_t n, const float *mean,
                                    const float *inverse, float *restrict dw)
{
    for (size_t r = 0; r < rows; r++, dx += n, dz += n, x += n) {
        float m = mean[r];
        float s = inverse[r];
        vec8 g_lanes = {0};
        vec8 gh_lanes = {0};
        float g_sum = 0;
        float gh_sum = 0;
        size_t i = 0;
        for (; i + 8 <= n; i += 8) {
            vec8 h = (*(const vec8 *)(x + i) - m) * s;
            vec8 d = *(const vec8 *)(dz + i);
            vec8 g = d * *(const vec8 *)(w + i);
            *(vec8 *)(dw + i) += d * h;
            g_lanes += g;
            gh_lanes += g * h;
        }
        for (; i < n; i++) {
            float h = (x[i] - m) * s;
            dw[i] += dz[i] * h;
            g_sum += dz[i] * w[i];
            gh_sum += dz[i] * w[i] * h;
        }
        g_sum = (g_sum + sum_lanes(g_lanes)) / (float)n;
        gh_sum = (gh_sum + sum_lanes(gh_lanes)) / (float)n;
        for (i = 0; i < n; i++) {
            dx[i] = (dz[i] * w[i] - g_sum - (x[i] - m) * s * gh_sum) * s;
        }
    }
}

static void backward(const struct layer *l, const struct layer_run *r)
{
    const float *mean = r->kept;
    const float *inverse = mean + r->rows;
    activation_backward(l->activation, r->dy, r->y, inverse + r->rows, r->rows, l->out, r->dweight[1]);
    memset(r->dweight[0], 0, l->out * sizeof(float));
    denormalize(r->dx, r->dy, r->x, r->weight[0], r->rows, l->out, mean, inverse, r->dweight[0]);
}

const struct layer_kind layer_norm = {declare, forward, backward};
