#include "train/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

enum { RNG_BOOTSTRAP = 0x626f };

int bootstrap_init(struct bootstrap *b, size_t n_users, uint64_t seed, struct err *e)
{
    struct rng rng;
    b->groups = n_users < BOOTSTRAP_GROUPS ? n_users : BOOTSTRAP_GROUPS;
    b->counts = mem_array(BOOTSTRAP_REPLICATES * b->groups, sizeof *b->counts);
    if (b->counts == NULL) {
        return err_nomem(e);
    }
    rng_seed(&rng, seed, RNG_BOOTSTRAP);
    for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
        float *counts = b->counts + r * b->groups;
        for (size_t i = 0; i < b->groups; i++) {
            counts[rng_below(&rng, (uint32_t)b->groups)] += 1.0F;
        }
    }
    return 0;
}

void bootstrap_release(struct bootstrap *b)
{
    mem_free(b->counts);
    *b = (struct bootstrap){0};
}

void bootstrap_sums(const struct bootstrap *b, const float *sums, size_t columns, float *replicates)
{
    mat_mul_nn(replicates, b->counts, sums, BOOTSTRAP_REPLICATES, columns, b->groups, false);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct interval bootstrap_interval(double *values)
{
    size_t n = 0;
    for (size_t i = 0; i < BOOTSTRAP_REPLICATES; i++) {
        if (isfinite(values[i])) {
            values[n++] = values[i];
        }
    }
    if (n == 0) {
        return (struct interval){NAN, NAN};
    }
    qsort(values, n, sizeof *values, compare_doubles);
    size_t outside = (size_t)((double)n * (1.0 - BOOTSTRAP_LEVEL) / 2.0);
    return (struct interval){values[outside], values[n - 1 - outside]};
}
