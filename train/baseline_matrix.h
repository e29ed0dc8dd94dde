/*
 * train/baseline_matrix.h: matrix completion, the baseline that two towers upgrade: one vector for each user and each
 * item, compared by the dot product, and nothing else known about them (Koren, Bell & Volinsky, "Matrix factorization
 * techniques for recommender systems", Computer 2009). Trained by the same trainer with the default settings of
 * train_config_matrix_completion, whatever the model's are, so that it means the same in every report.
 */
#ifndef TRAIN_BASELINE_MATRIX_H
#define TRAIN_BASELINE_MATRIX_H

#include <stdint.h>

#include "core/err.h"
#include "train/dataset.h"
#include "train/ranker.h"

struct matrix_completion; /* opaque */

/* Trains on the train part of `d` (borrowed), with vectors of `dim` numbers. */
struct matrix_completion *matrix_completion_new(const struct dataset *d, uint32_t dim, uint64_t seed, unsigned threads,
                                                struct err *e);
void matrix_completion_free(struct matrix_completion *mc); /* NULL is fine */
struct ranker matrix_completion_ranker(struct matrix_completion *mc);

#endif
