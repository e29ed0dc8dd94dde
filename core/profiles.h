/*
 * core/profiles.h: what a bundle knows of its users, so that a request need not say it.
 *
 * A profile is a row of encoded features, as core/features.h makes them of values, for each user of a sorted table of ids. The files
 * (docs/bundle.md) are mapped and used as they lie there:
 *
 *   users/ids.strings             the ids, ascending
 *   users/features/<name>.i32     a single-valued feature: int32 [users] table rows
 *   users/features/<name>.f32     a plain number: float32 [users], standardised; NaN is missing
 *   users/features/<name>.bags    several values, histories: u64 [users + 1] offsets, then that many int32 table rows
 *
 * Read-only, and thread-safe, once opened.
 */
#ifndef CORE_PROFILES_H
#define CORE_PROFILES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/features.h"
#include "core/schema.h"
#include "core/strtab.h"

enum { PROFILE_FILE_MAX = SCHEMA_MAX_NAME + 32 };

/* The values of one feature; one of the arrays, or start and index. Borrowed. */
struct profile_column {
    uint32_t feature;      /* of the user tower */
    const float *number;   /* [users] */
    const int32_t *index;  /* [users], or [start[users]] */
    const uint64_t *start; /* [users + 1] */
};

struct profiles {
    const char *key; /* member of a request that names the user; borrowed; NULL: there are no profiles */
    struct strtab ids;
    struct profile_column columns[SCHEMA_MAX_FEATURES];
    size_t n_columns;
};

/* Name of the file of a feature's values. */
void profile_file(const struct feature *f, char name[PROFILE_FILE_MAX]);

/* Checks a block completely and makes a column of it, for `users` users: every size, offset, table row and number. */
int profile_column_view(struct profile_column *c, const struct tower_spec *spec, uint32_t feature, const void *block,
                        size_t size, size_t users, struct err *e);

/* features_add_json for a user whom the profiles may know: by the member `key`, which need not be a feature. What the object
 * has no member for comes from the profile; a member counts also when it is null. *used: a value came from it. Without
 * profiles, or one of this user, it is features_add_json. */
int profiles_add_json(const struct profiles *p, struct feature_rows *rows, const json_t *object,
                      struct value_scratch *scratch, char *pointer, size_t pointer_size, bool *used, struct err *e);

#endif
