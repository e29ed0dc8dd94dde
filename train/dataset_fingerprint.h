/*
 * train/dataset_fingerprint.h: what of a data set training sees, as checksums, to tell whether a checkpoint is of these data.
 */
#ifndef TRAIN_DATASET_FINGERPRINT_H
#define TRAIN_DATASET_FINGERPRINT_H

#include <jansson.h>

#include "core/err.h"
#include "train/dataset.h"

/* New {"users": .., "items": .., "events": .., "hard negatives": ..}, each {"count": n, "sha256": hex}: ids and encoded features
 * of a side; train events with their order, times and weights, and exposures; lists of hard negatives. NULL without memory. */
json_t *dataset_fingerprint(const struct dataset *d, struct err *e);

#endif
