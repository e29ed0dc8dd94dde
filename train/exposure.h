/*
 * train/exposure.h: popularity bias: how popular the recommended items are, and how evenly exposure is spread.
 *   average_popularity  mean train events of a recommended item, over everything recommended (ARP; Yin et al.,
 *                       "Challenging the long tail recommendation", VLDB 2012)
 *   gini                of how often each item of the catalogue is recommended: 0 all alike, near 1 a few have it all
 *                       (Fleder & Hosanagar, "Blockbuster culture's next rise or fall", Management Science 2009)
 *   coverage            share of the catalogue that is recommended at all
 */
#ifndef TRAIN_EXPOSURE_H
#define TRAIN_EXPOSURE_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct exposure {
    double average_popularity, gini, coverage; /* 0 where nothing was recommended */
};

/* shown [n_items] how often each item was recommended, item_count [n_items] its train events. -1 without memory. */
int exposure_of(const uint32_t *shown, const uint32_t *item_count, size_t n_items, struct exposure *x, struct err *e);

#endif
