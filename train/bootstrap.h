/*
 * train/bootstrap.h: confidence intervals of means over users, by resampling them (Efron, "Bootstrap methods: another
 * look at the jackknife", Annals of Statistics 1979; percentile intervals).
 *
 * A replicate draws as many users as there are, with replacement; what is kept of it is how often each was drawn. Every
 * statistic of a report is a ratio of sums over users, so all replicates of all statistics are one matrix product:
 * counts [replicates, groups] x sums [groups, columns]. The same counts serve the model and its baselines, which makes
 * differences between them paired.
 *
 * Users are put into at most BOOTSTRAP_GROUPS groups of equal size, in turn, and groups are drawn: up to that many users
 * each is its own group, beyond it the cost stays the same and intervals are as good (users are independent, so means of
 * random groups of them are).
 */
#ifndef TRAIN_BOOTSTRAP_H
#define TRAIN_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { BOOTSTRAP_REPLICATES = 1000, BOOTSTRAP_GROUPS = 8192 };
#define BOOTSTRAP_LEVEL 0.95

struct bootstrap {
    size_t groups; /* user i belongs to group i % groups */
    float *counts; /* [BOOTSTRAP_REPLICATES, groups] */
};

/* The same counts for the same number of users and seed. Release them; zeroed storage is fine. */
int bootstrap_init(struct bootstrap *b, size_t n_users, uint64_t seed, struct err *e);
void bootstrap_release(struct bootstrap *b);

/* Sums of the replicates [BOOTSTRAP_REPLICATES, columns] from sums of the groups [groups, columns]. */
void bootstrap_sums(const struct bootstrap *b, const float *sums, size_t columns, float *replicates);

/* The middle BOOTSTRAP_LEVEL of the replicates' values. Not finite ones do not count (a group that was never drawn);
 * without a finite one both ends are NaN. Sorts `values` [BOOTSTRAP_REPLICATES]. */
struct interval {
    double low, high;
};
struct interval bootstrap_interval(double *values);

#endif
