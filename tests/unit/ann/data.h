/*
 * Vectors for tests and benchmarks of indexes: clusters around random centres, as embeddings have them.
 */
#ifndef TESTS_UNIT_ANN_DATA_H
#define TESTS_UNIT_ANN_DATA_H

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "ann/ann.h"
#include "core/err.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

struct data_shape {
    size_t dim;
    size_t clusters; /* 0: no structure at all */
    float noise;     /* around a centre of length 1, per vector, not per dimension */
    float spread;    /* ratio of the longest length to the shortest; 1: all have length 1 */
};

/* New array [n, dim] (mem_free). Centres depend on the seed only, so that another `stream` gives fresh vectors of the
 * same kind: queries, for example. */
static inline float *data_new(const struct data_shape *shape, size_t n, uint64_t seed, uint64_t stream)
{
    size_t dim = shape->dim;
    float *centres = mem_array(shape->clusters * dim, sizeof *centres);
    float *x = mem_array(n * dim, sizeof *x);
    struct rng r;
    rng_seed(&r, seed, 0);
    for (size_t i = 0; i < shape->clusters * dim; i++) {
        centres[i] = rng_normal(&r);
    }
    vec_normalize_rows(centres, shape->clusters, dim, NULL);
    rng_seed(&r, seed, 1 + stream);
    float scale = shape->clusters > 0 ? shape->noise / sqrtf((float)dim) : 1.0f;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < dim; j++) {
            x[i * dim + j] = scale * rng_normal(&r);
        }
        if (shape->clusters > 0) {
            vec_add_scaled(x + i * dim, centres + rng_below(&r, (uint32_t)shape->clusters) * dim, 1.0f, dim);
        }
        vec_normalize_rows(x + i * dim, 1, dim, NULL);
        vec_scale(x + i * dim, expf(logf(shape->spread) * (rng_uniform(&r) - 1.0f)), dim);
    }
    mem_free(centres);
    return x;
}

/* A new directory for a test's files (dir_remove_tree, mem_free), with the linear algebra set up. NULL on failure. */
static inline char *directory_new(void)
{
    char template[4096];
    snprintf(template, sizeof template, "%s/recalld-ann.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return blas_setup(NULL) == 0 && mkdtemp(template) != NULL ? mem_strdup(template) : NULL;
}

/* ann_tune for one target, with two threads. */
static inline int tune(struct ann *index, const struct ann_vectors *v, const float *queries, size_t count, size_t k,
                       double target, struct ann_tuning *result)
{
    struct err e = ERR_INIT;
    struct ann_truth *truth = ann_truth_new(v, queries, count, k, 2, &e);
    int rc = truth == NULL ? -1 : ann_tune(index, truth, &target, 1, 2, result, &e);
    ann_truth_free(truth);
    return rc;
}

#endif
