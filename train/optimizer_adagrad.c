#include <math.h>

#include "core/simd.h"
#include "train/optimizer_kind.h"

SIMD_CLONES static void update(const struct optimizer *o, struct weights w, const float *gradient, float scale)
{
    float *value = w.value;
    float *sum = w.state[0];
    float lr = o->rate;
    float keep = optimizer_keep(o, &w);
    for (size_t i = 0; i < w.n; i++) {
        float g = scale * gradient[i];
        sum[i] += g * g;
        value[i] = keep * value[i] - lr * g / (sqrtf(sum[i]) + 1e-10f);
    }
}

const struct optimizer_kind optimizer_adagrad = {.states = 1, .update = update};
