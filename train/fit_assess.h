/*
 * train/fit_assess.h: the evaluation at the end of a fit: the model and the baselines of the configuration on the test
 * part, cut by what the data know.
 */
#ifndef TRAIN_FIT_ASSESS_H
#define TRAIN_FIT_ASSESS_H

#include <jansson.h>

#include "config/train_config.h"
#include "core/err.h"
#include "train/dataset.h"
#include "train/ranker.h"

/* The report's members (train/assessment.h) in a new object; without a test part `metrics` and `baselines` are empty and
 * the others absent. */
json_t *fit_assess(const struct train_config *config, const struct dataset *d, struct tower_ranker *model,
                   unsigned threads, struct err *e);

#endif
