#include "train/projection.h"

#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

/* Six directions more than are wanted: convergence goes by the ratio of the ninth value to the second, not the third. */
enum { SUBSPACE = 8, MAX_ROUNDS = 200, SWEEPS = 30 };

struct pca {
    size_t n, dim, q; /* q: directions in the subspace, at most dim */
    float *x;         /* [n, dim] rows without their mean */
    float *basis;     /* [q, dim] orthonormal rows */
    float *image;     /* [n, q] x basis^T */
    float *next;      /* [q, dim] */
};

/* Eigenvalues (descending) and vectors (columns of v) of a symmetric a [q, q], by cyclic Jacobi rotations. */
static void jacobi(double a[SUBSPACE][SUBSPACE], double v[SUBSPACE][SUBSPACE], size_t q)
{
    for (size_t i = 0; i < q; i++) {
        for (size_t j = 0; j < q; j++) {
            v[i][j] = i == j;
        }
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        for (size_t i = 0; i + 1 < q; i++) {
            for (size_t j = i + 1; j < q; j++) {
                if (fabs(a[i][j]) <= 1e-15 * sqrt(fabs(a[i][i] * a[j][j])) || a[i][j] == 0) {
                    continue;
                }
                double theta = (a[j][j] - a[i][i]) / (2 * a[i][j]);
                double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1);
                double s = t * c;
                for (size_t k = 0; k < q; k++) { /* columns, then rows */
                    double left = a[k][i];
                    a[k][i] = c * left - s * a[k][j];
                    a[k][j] = s * left + c * a[k][j];
                }
                for (size_t k = 0; k < q; k++) {
                    double left = a[i][k];
                    a[i][k] = c * left - s * a[j][k];
                    a[j][k] = s * left + c * a[j][k];
                    left = v[k][i];
                    v[k][i] = c * left - s * v[k][j];
                    v[k][j] = s * left + c * v[k][j];
                }
            }
        }
    }
}

/* Gram-Schmidt, twice for the sake of rounding. A direction that the ones before it span becomes zeros. */
static void orthonormalize(float *basis, size_t q, size_t dim)
{
    for (size_t i = 0; i < q; i++) {
        float *row = basis + i * dim;
        float before = vec_norm(row, dim);
        for (int twice = 0; twice < 2; twice++) {
            for (size_t j = 0; j < i; j++) {
                vec_add_scaled(row, basis + j * dim, -vec_dot(row, basis + j * dim, dim), dim);
            }
        }
        float after = vec_norm(row, dim);
        vec_scale(row, after > 1e-5F * before ? 1 / after : 0, dim);
    }
}

/* Turns the subspace so that its rows are its own principal directions, strongest first; values [q] their variances
 * times n. image must be x basis^T. */
static void rayleigh_ritz(struct pca *p, double *values)
{
    double a[SUBSPACE][SUBSPACE] = {{0}};
    double v[SUBSPACE][SUBSPACE];
    size_t order[SUBSPACE];
    for (size_t r = 0; r < p->n; r++) {
        for (size_t i = 0; i < p->q; i++) {
            for (size_t j = 0; j < p->q; j++) {
                a[i][j] += (double)p->image[r * p->q + i] * (double)p->image[r * p->q + j];
            }
        }
    }
    jacobi(a, v, p->q);
    for (size_t i = 0; i < p->q; i++) {
        size_t at = i;
        for (; at > 0 && a[order[at - 1]][order[at - 1]] < a[i][i]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    memset(p->next, 0, p->q * p->dim * sizeof *p->next);
    for (size_t i = 0; i < p->q; i++) {
        values[i] = a[order[i]][order[i]];
        for (size_t j = 0; j < p->q; j++) {
            vec_add_scaled(p->next + i * p->dim, p->basis + j * p->dim, (float)v[j][order[i]], p->dim);
        }
    }
    memcpy(p->basis, p->next, p->q * p->dim * sizeof *p->basis);
}

static void iterate(struct pca *p, double values[SUBSPACE])
{
    double before[2] = {-1, -1};
    for (int round = 0; round < MAX_ROUNDS; round++) {
        mat_mul_nt(p->image, p->x, p->basis, p->n, p->q, p->dim, false);
        rayleigh_ritz(p, values);
        size_t last = p->q > 1 ? 1 : 0;
        if (fabs(values[0] - before[0]) <= 1e-7 * values[0] && fabs(values[last] - before[1]) <= 1e-7 * values[last]) {
            return;
        }
        before[0] = values[0];
        before[1] = values[last];
        mat_mul_nt(p->image, p->x, p->basis, p->n, p->q, p->dim, false);
        mat_mul_tn(p->next, p->image, p->x, p->q, p->dim, p->n, false);
        memcpy(p->basis, p->next, p->q * p->dim * sizeof *p->basis);
        orthonormalize(p->basis, p->q, p->dim);
    }
}

/* Rows without their mean; returns the sum of all squares. */
static double centre(struct pca *p, const float *rows)
{
    double total = 0;
    for (size_t j = 0; j < p->dim; j++) {
        double mean = 0;
        for (size_t i = 0; i < p->n; i++) {
            mean += (double)rows[i * p->dim + j];
        }
        mean /= (double)p->n;
        for (size_t i = 0; i < p->n; i++) {
            double x = (double)rows[i * p->dim + j] - mean;
            p->x[i * p->dim + j] = (float)x;
            total += x * x;
        }
    }
    return total;
}

static void choose_signs(struct pca *p)
{
    for (size_t i = 0; i < p->q; i++) {
        float *row = p->basis + i * p->dim;
        float largest = 0;
        for (size_t j = 0; j < p->dim; j++) {
            largest = fabsf(row[j]) > fabsf(largest) ? row[j] : largest;
        }
        vec_scale(row, largest < 0 ? -1 : 1, p->dim);
    }
}

int projection_pca(const float *rows, size_t n, size_t dim, double *points, double explained[2], struct err *e)
{
    struct pca p = {.n = n, .dim = dim, .q = dim < SUBSPACE ? dim : SUBSPACE};
    double values[SUBSPACE] = {0};
    struct rng rng;
    int result = -1;
    p.x = mem_array(n * dim, sizeof *p.x);
    p.basis = mem_array(p.q * dim, sizeof *p.basis);
    p.next = mem_array(p.q * dim, sizeof *p.next);
    p.image = mem_array(n * p.q, sizeof *p.image);
    if (p.x == NULL || p.basis == NULL || p.next == NULL || p.image == NULL) {
        err_nomem(e);
        goto out;
    }
    rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < p.q * dim; i++) {
        p.basis[i] = rng_normal(&rng);
    }
    orthonormalize(p.basis, p.q, dim);
    double total = centre(&p, rows);
    iterate(&p, values);
    choose_signs(&p);
    mat_mul_nt(p.image, p.x, p.basis, n, p.q, dim, false);
    for (size_t axis = 0; axis < 2; axis++) {
        bool there = axis < p.q && total > 0;
        explained[axis] = there ? values[axis] / total : 0;
        for (size_t i = 0; i < n; i++) {
            points[i * 2 + axis] = there ? (double)p.image[i * p.q + axis] : 0;
        }
    }
    result = 0;
out:
    mem_free(p.x);
    mem_free(p.basis);
    mem_free(p.next);
    mem_free(p.image);
    return result;
}
