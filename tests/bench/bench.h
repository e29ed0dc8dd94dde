/* What the benchmarks share. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/err.h"

static inline void fail(const struct err *e)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, e->message);
    exit(1);
}

static inline int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts x [n > 0]. */
static inline double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
    return x[n / 2];
}

#endif
