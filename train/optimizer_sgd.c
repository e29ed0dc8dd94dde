#include <math.h>

#include "core/simd.h"
#include "train/optimizer_kind.h"

SIMD_CLONES static void update(const struct optimizer *o, struct weights w, const float *gradient, float scale)
{
    float *value = w.value;
    float *velocity = w.state[0];
    float lr = o->rate;
    float momentum = (float)o->momentum;
    float keep = optimizer_keep(o, &w);
    for (size_t i = 0; i < w.n; i++) {
        velocity[i] = momentum * velocity[i] + scale * gradient[i];
        value[i] = keep * value[i] - lr * velocity[i];
    }
}

static double shrink(const struct optimizer *o)
{
    return o->momentum;
}

static double pace(const struct optimizer *o)
{
    return o->lr;
}

SIMD_CLONES static void drift(const struct optimizer *o, struct weights w, uint64_t last, uint64_t steps, double keep,
                              double length)
{
    (void)last;
    float left = (float)pow(o->momentum, (double)steps);
    float kept = (float)keep;
    float moved = (float)length;
    float *value = w.value;
    float *velocity = w.state[0];
    for (size_t i = 0; i < w.n; i++) {
        value[i] = kept * value[i] - moved * velocity[i];
        velocity[i] *= left;
    }
}

const struct optimizer_kind optimizer_sgd = {
    .states = 1,
    .update = update,
    .shrink = shrink,
    .pace = pace,
    .drift = drift,
};
