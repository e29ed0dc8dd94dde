/*
 * train/attributes.h: columns of the users and items files as JSON: item attributes that answers can carry (`fields`),
 * and the raw values of a few users for the bundle's probes.
 *
 * A value is null when empty, a number in a numeric feature's column, a list in a multi-valued feature's column, and a
 * string otherwise.
 */
#ifndef TRAIN_ATTRIBUTES_H
#define TRAIN_ATTRIBUTES_H

#include <jansson.h>

#include "config/train_config.h"
#include "core/err.h"
#include "train/bundle_writer.h"
#include "train/dataset.h"

/* Writes items/attributes/<column>.strings for every column of the items file but the id, and appends their names to
 * `names`. Columns with names that cannot be file names are left out, with a warning. Nothing without an items file. */
int attributes_export(struct bundle_writer *w, const struct train_config *config, const struct dataset *d,
                      json_t *names, struct err *e);

/* Adds the columns that are features of the user tower to each user's request object (in/out, [n]). A request whose row
 * was a tolerated bad row becomes NULL. Nothing without a users file. */
int attributes_of_users(const struct train_config *config, const struct dataset *d, const uint32_t *users, size_t n,
                        json_t **requests, struct err *e);

#endif
