/*
 * Adam in two forms with one formula: adam moves every weight at every step, lazy_adam those with a gradient.
 *
 * A row at rest follows m beta1^j / (1 - beta1^s) over sqrt(v beta2^j / (1 - beta2^s)) + eps, j steps after its last
 * gradient. All but eps splits into a part of the weight and a part of the step, so that any number of steps is one
 * multiplication (optimizer_kind.h). eps is taken as it is in the first of the steps: it matters only where gradients are
 * around 1e-8, and there the direction, not the exact length, of the step is all that is left.
 */
#include <math.h>

#include "core/simd.h"
#include "train/optimizer_kind.h"

static const double BETA1 = 0.9;
static const double BETA2 = 0.999;
static const double EPSILON = 1e-8;

static void begin_step(struct optimizer *o)
{
    o->rate = (float)(o->lr / (1 - pow(BETA1, (double)o->step)));
    o->square_scale = (float)(1 / (1 - pow(BETA2, (double)o->step)));
}

SIMD_CLONES static void update(const struct optimizer *o, struct weights w, const float *gradient, float scale)
{
    const float beta1 = (float)BETA1;
    const float beta2 = (float)BETA2;
    const float epsilon = (float)EPSILON;
    float *value = w.value;
    float *mean = w.state[0];
    float *square = w.state[1];
    float rate = o->rate;
    float square_scale = o->square_scale;
    float keep = optimizer_keep(o, &w);
    for (size_t i = 0; i < w.n; i++) {
        float g = scale * gradient[i];
        mean[i] = beta1 * mean[i] + (1.0f - beta1) * g;
        square[i] = beta2 * square[i] + (1.0f - beta2) * g * g;
        value[i] = keep * value[i] - rate * mean[i] / (sqrtf(square[i] * square_scale) + epsilon);
    }
}

static double shrink(const struct optimizer *o)
{
    (void)o;
    return BETA1 / sqrt(BETA2);
}

static double pace(const struct optimizer *o)
{
    return o->lr * sqrt(1 - pow(BETA2, (double)o->step)) / (1 - pow(BETA1, (double)o->step));
}

SIMD_CLONES static void drift(const struct optimizer *o, struct weights w, uint64_t last, uint64_t steps, double keep,
                              double length)
{
    (void)o;
    float epsilon = (float)(EPSILON * sqrt(1 - pow(BETA2, (double)last + 1)));
    float mean_left = (float)pow(BETA1, (double)steps);
    float square_left = (float)pow(BETA2, (double)steps);
    float kept = (float)keep;
    float moved = (float)length;
    float *value = w.value;
    float *mean = w.state[0];
    float *square = w.state[1];
    for (size_t i = 0; i < w.n; i++) {
        value[i] = kept * value[i] - moved * mean[i] / (sqrtf(square[i]) + epsilon);
        mean[i] *= mean_left;
        square[i] *= square_left;
    }
}

const struct optimizer_kind optimizer_adam = {
    .states = 2,
    .begin_step = begin_step,
    .update = update,
    .shrink = shrink,
    .pace = pace,
    .drift = drift,
};

const struct optimizer_kind optimizer_lazy_adam = {.states = 2, .begin_step = begin_step, .update = update};
