/*
 * train/bundle_index.h: the index of an open bundle.
 */
#ifndef TRAIN_BUNDLE_INDEX_H
#define TRAIN_BUNDLE_INDEX_H

#include "ann/ann.h"
#include "core/bundle.h"

/* Opens the index that the bundle names over the bundle's vectors, which must outlive it. NULL with an error that names
 * the bundle's file. */
struct ann *bundle_index_open(const struct bundle *b, struct err *e);

#endif
