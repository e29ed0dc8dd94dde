/*
 * train/slices_bundle.h: slices by the attributes of a bundle's items, which are raw values, not encoded rows.
 */
#ifndef TRAIN_SLICES_BUNDLE_H
#define TRAIN_SLICES_BUNDLE_H

#include <stdbool.h>

#include "core/bundle.h"
#include "core/err.h"
#include "train/slices.h"

/* Whether the feature is a category of items and its values are in the bundle. */
bool slicing_has_attribute(const struct bundle *b, const struct feature *f);

/* Adds the item features of the bundle that slicing_add_features would, where their values are there. */
int slicing_add_attributes(struct slicing *s, const struct bundle *b, char *const *names, struct err *e);

#endif
