#include "core/profiles.h"

#include <math.h>
#include <stdio.h>

enum { ID_TEXT_MAX = 24 };

static bool is_plain_number(const struct feature *f)
{
    return f->type == FEATURE_NUMERIC && f->transform != TRANSFORM_BUCKETIZE;
}

void profile_file(const struct feature *f, char name[PROFILE_FILE_MAX])
{
    const char *kind = feature_is_bag(f) ? "bags" : is_plain_number(f) ? "f32" : "i32";
    snprintf(name, PROFILE_FILE_MAX, "users/features/%s.%s", f->name, kind);
}

/* --- checking ------------------------------------------------------------------------------------------------------- */

static int check_size(size_t size, size_t wanted, size_t users, struct err *e)
{
    return size == wanted ? 0 : err_set(e, "%zu bytes, but %zu users make %zu", size, users, wanted);
}

static int check_numbers(const float *number, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (!isnan(number[i]) && !(fabsf(number[i]) <= FEATURE_NUMBER_MOST)) {
            return err_set(e, "row %zu: %g; numbers are standardised, and at most %g", i, (double)number[i],
                           (double)FEATURE_NUMBER_MOST);
        }
    }
    return 0;
}

/* A value of a bag is never missing: it would not be there. */
static int check_rows(const struct feature *f, const int32_t *index, size_t n, struct err *e)
{
    bool bag = feature_is_bag(f);
    for (size_t i = 0; i < n; i++) {
        if (index[i] < 0 || (uint32_t)index[i] >= f->rows || (bag && index[i] == SCHEMA_MISSING)) {
            return err_set(e, "value %zu: %d is no row of a table of %u", i, index[i], f->rows);
        }
    }
    return 0;
}

static int check_bags(const struct feature *f, const uint64_t *start, size_t size, size_t users, struct err *e)
{
    size_t head = (users + 1) * sizeof *start;
    if (size < head || (size - head) % sizeof(int32_t) != 0) {
        return err_set(e, "%zu bytes, too few, or no whole values, for %zu users", size, users);
    }
    if (start[0] != 0 || start[users] != (size - head) / sizeof(int32_t)) {
        return err_set(e, "offsets must begin with 0 and end with %zu, the number of values",
                       (size - head) / sizeof(int32_t));
    }
    for (size_t i = 0; i < users; i++) {
        if (start[i + 1] < start[i]) {
            return err_set(e, "offset %zu falls", i + 1);
        }
        if (f->type == FEATURE_SEQUENCE && start[i + 1] - start[i] > f->last) {
            return err_set(e, "user %zu has more than the last %u values", i, f->last);
        }
    }
    return check_rows(f, (const int32_t *)(const void *)(start + users + 1), start[users], e);
}

int profile_column_view(struct profile_column *c, const struct tower_spec *spec, uint32_t feature, const void *block,
                        size_t size, size_t users, struct err *e)
{
    const struct feature *f = &spec->features[feature];
    *c = (struct profile_column){.feature = feature};
    if (feature_is_bag(f)) {
        if (check_bags(f, block, size, users, e) < 0) {
            return -1;
        }
        c->start = block;
        c->index = (const int32_t *)(const void *)(c->start + users + 1);
        return 0;
    }
    if (check_size(size, users * sizeof(int32_t), users, e) < 0) {
        return -1;
    }
    if (is_plain_number(f)) {
        c->number = block;
        return check_numbers(c->number, users, e);
    }
    c->index = block;
    return check_rows(f, c->index, users, e);
}

/* --- using ---------------------------------------------------------------------------------------------------------- */

/* The row of the user whom a request names; -1: none. */
static int64_t find_user(const struct profiles *p, const json_t *id)
{
    char room[ID_TEXT_MAX];
    if (json_is_string(id)) {
        return strtab_find(&p->ids, json_string_value(id), json_string_length(id));
    }
    if (json_is_integer(id)) {
        int n = snprintf(room, sizeof room, "%lld", (long long)json_integer_value(id));
        return strtab_find(&p->ids, room, (size_t)n);
    }
    return -1;
}

/* Whether a user has a value there. */
static bool has_value(const struct profile_column *c, size_t user)
{
    if (c->start != NULL) {
        return c->start[user + 1] > c->start[user];
    }
    return c->number != NULL ? !isnan(c->number[user]) : c->index[user] != SCHEMA_MISSING;
}

/* Puts a user's values in place of those of the last row. */
static int set_value(const struct profile_column *c, struct feature_rows *rows, size_t user)
{
    struct feature_column *to = &rows->columns[c->feature];
    if (c->start != NULL) {
        return feature_rows_set_bag(rows, c->feature, c->index + c->start[user], c->start[user + 1] - c->start[user]);
    }
    if (c->number != NULL) {
        to->number[rows->n - 1] = c->number[user];
    } else {
        to->index[rows->n - 1] = c->index[user];
    }
    return 0;
}

int profiles_add_json(const struct profiles *p, struct feature_rows *rows, const json_t *object,
                      struct value_scratch *scratch, char *pointer, size_t pointer_size, bool *used, struct err *e)
{
    *used = false;
    if (features_add_json_beside(rows, object, p->key, scratch, pointer, pointer_size, e) < 0) {
        return -1;
    }
    int64_t user = p->key == NULL ? -1 : find_user(p, json_object_get(object, p->key));
    for (size_t i = 0; user >= 0 && i < p->n_columns; i++) {
        const struct profile_column *c = &p->columns[i];
        if (json_object_get(object, rows->spec->features[c->feature].name) != NULL) {
            continue;
        }
        if (set_value(c, rows, (size_t)user) < 0) {
            rows->n--;
            return err_nomem(e);
        }
        *used = *used || has_value(c, (size_t)user);
    }
    return 0;
}
