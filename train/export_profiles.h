/*
 * train/export_profiles.h: what is known of users at the end of a training, for the bundle (core/profiles.h).
 *
 * Users are those of the users file and those of the events. Their features are encoded as training encoded them, and histories are
 * the last of their train events: as evaluation sees them.
 */
#ifndef TRAIN_EXPORT_PROFILES_H
#define TRAIN_EXPORT_PROFILES_H

#include <jansson.h>

#include "config/train_config.h"
#include "core/err.h"
#include "train/bundle_writer.h"
#include "train/dataset.h"

/* Name of the member by which requests name a user: the user tower's feature of type id, or the id's column. */
const char *profiles_key(const struct train_config *config);

/* Writes the files. Returns the manifest's member `users`, new; NULL with the error. */
json_t *profiles_export(struct bundle_writer *w, const struct train_config *config, const struct dataset *d,
                        struct err *e);

#endif
