/*
 * train/assessment.h: a model beside its baselines on one test part, and what a report says about them.
 *
 * The first contender is the model, the others are baselines; all rank for the same users. From their outcomes come the
 * report's members (docs/training.md has them all):
 *   metrics, metrics_ci      of the model; 95 % intervals by bootstrap over users
 *   baselines, baselines_ci  the same by baseline
 *   comparison               model minus baseline, paired: difference, interval, share of replicates where it is better
 *   slices                   of the model with intervals, each with the baselines' values
 *   popularity_bias          how popular the recommended items are, and how evenly they are spread
 *   evaluation               how all this was measured
 */
#ifndef TRAIN_ASSESSMENT_H
#define TRAIN_ASSESSMENT_H

#include <jansson.h>

#include "core/err.h"
#include "train/evaluate.h"
#include "train/slices.h"

enum { ASSESSMENT_MAX = 8 };

struct assessment; /* opaque */

/* With max_users 0 `ev` is limited to as many users as are affordable (a warning says so): users x items <= 2 * 10^10.
 * item_count [n_items] train events of each item, or NULL where they are not known: no popularity bias. Borrowed. */
struct assessment *assessment_new(const struct evaluation *ev, const uint32_t *item_count, struct err *e);
void assessment_free(struct assessment *a); /* NULL is fine */

/* Ranks with one more contender (name is borrowed) and logs a line about it. */
int assessment_add(struct assessment *a, const char *name, const struct ranker *ranker, struct err *e);

/* The report's members in a new object; `slicing` may be empty. Logs how the model compares with each baseline. */
json_t *assessment_report(const struct assessment *a, const struct slicing *slicing, struct err *e);

#endif
