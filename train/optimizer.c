#include "train/optimizer.h"

#include <math.h>

#include "core/simd.h"

SIMD_CLONES static void update_adagrad(const struct optimizer *o, float *value, float *sum, float *unused,
                                       const float *gradient, size_t n)
{
    (void)unused;
    float lr = o->lr;
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i];
        sum[i] += g * g;
        value[i] -= lr * g / (sqrtf(sum[i]) + 1e-10f);
    }
}

SIMD_CLONES static void update_adam(const struct optimizer *o, float *value, float *mean, float *square,
                                    const float *gradient, size_t n)
{
    const float beta1 = 0.9f;
    const float beta2 = 0.999f;
    float mean_scale = 1.0f / (float)(1.0 - pow(0.9, (double)o->step));
    float square_scale = 1.0f / (float)(1.0 - pow(0.999, (double)o->step));
    float lr = o->lr;
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i];
        mean[i] = beta1 * mean[i] + (1.0f - beta1) * g;
        square[i] = beta2 * square[i] + (1.0f - beta2) * g * g;
        value[i] -= lr * mean_scale * mean[i] / (sqrtf(square[i] * square_scale) + 1e-8f);
    }
}

static const struct {
    int states;
    void (*update)(const struct optimizer *, float *, float *, float *, const float *, size_t);
} optimizers[] = {
    [OPTIMIZER_ADAGRAD] = {1, update_adagrad},
    [OPTIMIZER_ADAM] = {2, update_adam},
};

int optimizer_states(enum optimizer_type type)
{
    return optimizers[type].states;
}

void optimizer_update(const struct optimizer *o, float *value, float *state0, float *state1, const float *gradient,
                      size_t n)
{
    optimizers[o->type].update(o, value, state0, state1, gradient, n);
}
