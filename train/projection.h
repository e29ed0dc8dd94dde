/*
 * train/projection.h: many dimensions on paper: principal component analysis.
 *
 * Rows are projected on the two directions in which they vary most. Directions are found by subspace iteration with a
 * Rayleigh-Ritz step (Halko, Martinsson & Tropp, SIAM Review 2011): no covariance matrix is formed, so that wide vectors
 * cost no more than their length. The same rows give the same bits; a direction's sign is the one that makes its largest
 * coordinate positive.
 */
#ifndef TRAIN_PROJECTION_H
#define TRAIN_PROJECTION_H

#include <stddef.h>

#include "core/err.h"

/* rows [n, dim] become points [n, 2], the mean at the origin; explained[i]: the share of the whole variance that axis i
 * has (0 where there is none, or dim is 1 and i is 1). n and dim > 0, rows finite. -1 without memory. */
int projection_pca(const float *rows, size_t n, size_t dim, double *points, double explained[2], struct err *e);

#endif
