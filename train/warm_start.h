/*
 * train/warm_start.h: a training that begins where a published model ended (`fit --init BUNDLE`), and today's users in
 * the eyes of yesterday's model (train/hard.h): today's data, yesterday's weights.
 *
 * What is the same keeps its weights: networks, and rows of tables by their value (id, category), wherever they stand in the
 * tables of either. Rows of new values begin at random, as in any training; rows whose values are gone
 * from the data are dropped. Statistics of numbers (means, deviations, bounds of buckets) stay the bundle's: they are the units in
 * which the networks and tables have learned. Columns of a first layer follow their one-hot value. The optimizer's state begins anew.
 */
#ifndef TRAIN_WARM_START_H
#define TRAIN_WARM_START_H

#include "core/bundle.h"
#include "core/err.h"
#include "core/schema.h"
#include "train/model.h"

/* Gives the numeric features of `schema`, before it is finished, the statistics that the features of the same name and transform
 * have in `from`. */
int warm_start_statistics(struct schema *schema, const struct schema *from, struct err *e);

/* Whether a model of this (finished) schema can begin with that of the bundle: same features, networks and similarity. -1: what
 * differs, without a word about which model it is and what can be done: that is the caller's to say. */
int warm_start_check(const struct schema *schema, const struct bundle *from, struct err *e);

/* Changes the values of an initialised model to where it begins; what the bundle does not have stays. */
int warm_start(struct model *m, const struct bundle *from, struct err *e);

#endif
