/*
 * The users file is read once more: the dataset has only the users of its events, and who has no event yet is the one whose profile
 * counts most. All users' encoded rows are in memory for a moment, but not their histories, which may be much larger: these are
 * computed twice, once for the offsets and once for the values, and streamed.
 */
#include "train/export_profiles.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/idmap.h"
#include "core/mem.h"
#include "core/profiles.h"
#include "train/dataset_ids.h"
#include "train/dataset_table.h"

struct profile_export {
    const struct train_config *config;
    const struct dataset *d;
    struct idmap *ids;        /* users in the order of the rows */
    struct feature_rows rows; /* [users] without histories */
    uint32_t *order;          /* [users] row of each user, by id */
    struct buf block;
    struct strtab table; /* of the ids, sorted; a view of the block */
    int32_t *history;    /* [last] */
    size_t last;
};

const char *profiles_key(const struct train_config *config)
{
    for (size_t i = 0; i < config->user_tower.n_features; i++) {
        if (config->user_tower.features[i].type == FEATURE_ID) {
            return config->user_tower.features[i].name;
        }
    }
    return config->data.users.id;
}

/* --- users ---------------------------------------------------------------------------------------------------------- */

/* Adds a user's row, unless there is one. */
static int add_user(struct profile_export *x, struct span id, const struct value *values, struct err *e)
{
    size_t known = idmap_count(x->ids);
    uint32_t number = idmap_add(x->ids, id.text, id.length);
    struct feature_error fe;
    if (number == IDMAP_NONE) {
        return err_nomem(e);
    }
    if (number == known && features_add(&x->rows, values, &fe) < 0) {
        return err_set(e, "%.*s: %s", (int)id.length, id.text, fe.message);
    }
    return 0;
}

static int add_table(struct profile_export *x, struct err *e)
{
    const struct train_config *config = x->config;
    const struct csv_options format = {
        .delimiter = config->data.delimiter,
        .columns = config->data.header ? NULL : (const char *const *)config->data.columns_users,
        .max_bad_rows = UINT64_MAX, /* the dataset has counted and reported them */
        .quiet = true,
    };
    struct table t;
    if (table_open(&t, &config->data.users, &format, &config->user_tower, e) < 0) {
        return -1;
    }
    int row;
    while ((row = table_next(&t, e)) > 0) {
        if (add_user(x, t.id, t.values, e) < 0) {
            row = -1;
            break;
        }
    }
    table_close(&t);
    return row;
}

static int add_users(struct profile_export *x, struct err *e)
{
    struct value values[SCHEMA_MAX_FEATURES];
    if (x->config->data.users.path != NULL && add_table(x, e) < 0) {
        return -1;
    }
    for (size_t i = 0; i < x->d->n_users; i++) {
        struct span id;
        id.text = strtab_get(&x->d->user_ids, i, &id.length);
        values_of_id(&x->config->user_tower, id, values);
        if (add_user(x, id, values, e) < 0) {
            return -1;
        }
    }
    return 0;
}

static int sort_users(struct profile_export *x, struct err *e)
{
    size_t n = idmap_count(x->ids);
    uint32_t *rank = mem_array(n, sizeof *rank);
    x->order = mem_array(n, sizeof *x->order);
    int result = rank == NULL || x->order == NULL ? err_nomem(e) : 0;
    if (result == 0) {
        result = ids_number(x->ids, NULL, rank, &x->block, &x->table, e);
    }
    for (size_t i = 0; result == 0 && i < n; i++) {
        x->order[rank[i]] = (uint32_t)i;
    }
    mem_free(rank);
    return result;
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

/* The values of a user's bag. */
static const int32_t *bag_of(struct profile_export *x, uint32_t feature, size_t user, size_t *n)
{
    const struct dataset *d = x->d;
    if ((int)feature != d->history) {
        return feature_values(&x->rows.spec->features[feature], &x->rows.columns[feature], x->order[user], n);
    }
    struct span id;
    id.text = strtab_get(&x->table, user, &id.length);
    int64_t u = strtab_find(&d->user_ids, id.text, id.length);
    *n = u < 0 ? 0 : dataset_history(d, &d->train, (uint32_t)u, d->train.start[u + 1], x->history);
    return x->history;
}

static void put_bags(struct profile_export *x, uint32_t feature, FILE *out)
{
    uint64_t end = 0;
    size_t n;
    fwrite(&end, sizeof end, 1, out);
    for (size_t i = 0; i < x->table.count; i++) {
        bag_of(x, feature, i, &n);
        end += n;
        fwrite(&end, sizeof end, 1, out);
    }
    for (size_t i = 0; i < x->table.count; i++) {
        const int32_t *values = bag_of(x, feature, i, &n);
        fwrite(values, sizeof *values, n, out);
    }
}

static void put_column(struct profile_export *x, uint32_t feature, FILE *out)
{
    const struct feature_column *c = &x->rows.columns[feature];
    if (feature_is_bag(&x->rows.spec->features[feature])) {
        put_bags(x, feature, out);
        return;
    }
    for (size_t i = 0; i < x->table.count; i++) {
        size_t row = x->order[i];
        fwrite(c->number != NULL ? (const void *)&c->number[row] : &c->index[row], 4, 1, out);
    }
}

static int write_column(struct bundle_writer *w, struct profile_export *x, uint32_t feature, struct err *e)
{
    char name[PROFILE_FILE_MAX];
    profile_file(&x->rows.spec->features[feature], name);
    char *path = bundle_writer_add(w, name, e);
    FILE *out = path == NULL ? NULL : fopen(path, "wxe");
    int result = 0;
    if (out == NULL) {
        result = path == NULL ? -1 : err_set(e, "%s: cannot create: %s", path, strerror(errno));
    } else {
        put_column(x, feature, out);
        bool written = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
        result = written ? 0 : err_set(e, "%s: cannot write: %s", path, strerror(errno));
        fclose(out);
    }
    mem_free(path);
    return result;
}

static int write_files(struct bundle_writer *w, struct profile_export *x, const char *key, json_t *names, struct err *e)
{
    const struct tower_spec *spec = x->rows.spec;
    if (bundle_writer_put(w, "users/ids.strings", x->block.data, x->block.len, e) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < spec->n_features; i++) {
        if (strcmp(spec->features[i].name, key) == 0) {
            continue;
        }
        if (write_column(w, x, i, e) < 0) {
            return -1;
        }
        if (json_array_append_new(names, json_string(spec->features[i].name)) < 0) {
            return err_nomem(e);
        }
    }
    return 0;
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static int make_ready(struct profile_export *x, struct err *e)
{
    const struct tower_spec *spec = &x->d->schema.towers[SIDE_USER];
    x->ids = idmap_new();
    x->last = x->d->history >= 0 ? spec->features[x->d->history].last : 1;
    x->history = mem_array(x->last, sizeof *x->history);
    return x->ids == NULL || x->history == NULL || feature_rows_init(&x->rows, spec) < 0 ? err_nomem(e) : 0;
}

json_t *profiles_export(struct bundle_writer *w, const struct train_config *config, const struct dataset *d,
                        struct err *e)
{
    struct profile_export x = {.config = config, .d = d, .block = BUF_INIT};
    const char *key = profiles_key(config);
    json_t *names = json_array();
    json_t *member = NULL;
    if (names == NULL) {
        err_nomem(e);
    } else if (make_ready(&x, e) == 0 && add_users(&x, e) == 0 && sort_users(&x, e) == 0 &&
               write_files(w, &x, key, names, e) == 0) {
        member = json_pack("{s:s, s:O}", "key", key, "features", names);
        if (member == NULL) {
            err_nomem(e);
        }
    }
    json_decref(names);
    idmap_free(x.ids);
    if (x.rows.spec != NULL) {
        feature_rows_release(&x.rows);
    }
    buf_release(&x.block);
    mem_free(x.order);
    mem_free(x.history);
    return member;
}
