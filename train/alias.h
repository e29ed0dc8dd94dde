/*
 * train/alias.h: drawing from a discrete distribution in constant time: the alias method (Walker, 1977; built as Vose,
 * IEEE TSE 1991). 12 bytes an outcome. Read-only after alias_new.
 */
#ifndef TRAIN_ALIAS_H
#define TRAIN_ALIAS_H

#include <stdint.h>

#include "core/rng.h"

struct alias;

/* weights [n], finite, >= 0, not all 0. NULL without memory. */
struct alias *alias_new(const double *weights, uint32_t n);
void alias_free(struct alias *a);

uint32_t alias_draw(const struct alias *a, struct rng *r);
double alias_probability(const struct alias *a, uint32_t i);

#endif
