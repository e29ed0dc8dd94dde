#include "train/attributes.h"

#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/bundle.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/csv.h"

/* A file's column, the feature made from it (NULL: none), and where each item's JSON text is. */
struct column {
    char name[SCHEMA_MAX_NAME + 1];
    int field; /* in the file's rows */
    const struct feature *feature;
    struct span *values; /* [n_items]; text is NULL until seen, then an offset into `text` */
    size_t *offsets;     /* [n_items] */
    struct buf text;
};

struct table_reader {
    struct csv *csv;
    int id;
};

static int open_table(struct table_reader *r, const struct train_config *config, const struct table_config *table,
                      char **columns, struct err *e)
{
    struct csv_options options = {
        .delimiter = config->data.delimiter,
        .columns = config->data.header ? NULL : (const char *const *)columns,
        .max_bad_rows = config->data.max_bad_rows,
        .quiet = true, /* the dataset has reported them */
    };
    r->csv = csv_open(table->path, &options, e);
    r->id = r->csv == NULL ? -1 : csv_column(r->csv, table->id, e);
    return r->id < 0 ? -1 : 0;
}

/* The column's name without RecBole's ":type"; false when it cannot be a file name. */
static bool column_name(const char *header, char name[SCHEMA_MAX_NAME + 1])
{
    size_t n = strcspn(header, ":");
    if (n == 0 || n > SCHEMA_MAX_NAME || header[0] == '.' ||
        strspn(header, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") < n) {
        return false;
    }
    memcpy(name, header, n);
    name[n] = '\0';
    return true;
}

static void put_list(struct buf *out, struct span value, char separator)
{
    const char *p = value.text;
    const char *end = value.text + value.length;
    bool first = true;
    buf_puts(out, "[");
    while (p < end) {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        stop = stop == NULL ? end : stop;
        if (stop > p) {
            buf_puts(out, first ? "" : ",");
            buf_json_string(out, p, (size_t)(stop - p));
            first = false;
        }
        p = stop + 1;
    }
    buf_puts(out, "]");
}

static void put_value(struct buf *out, const struct feature *f, struct span value)
{
    double number;
    if (value.length == 0) {
        buf_puts(out, "null");
    } else if (f != NULL && f->multi != '\0') {
        put_list(out, value, f->multi);
    } else if (f != NULL && f->type == FEATURE_NUMERIC && number_parse(value.text, value.length, &number) == 0) {
        buf_printf(out, "%.17g", number);
    } else {
        buf_json_string(out, value.text, value.length);
    }
}

/* --- item attributes ------------------------------------------------------------------------------------------------*/

static int choose_columns(const struct table_reader *r, const struct dataset *d, struct column *columns, size_t *n,
                          struct err *e)
{
    const struct tower_spec *spec = &d->schema.towers[SIDE_ITEM];
    for (size_t i = 0; i < csv_columns(r->csv); i++) {
        struct column *c = &columns[*n];
        if ((int)i == r->id) {
            continue;
        }
        if (*n == BUNDLE_MAX_ATTRIBUTES || !column_name(csv_column_name(r->csv, i), c->name)) {
            log_warn("items column %s is left out of the bundle's attributes: at most %d, named with A-Z a-z 0-9 _ . -",
                     csv_column_name(r->csv, i), BUNDLE_MAX_ATTRIBUTES);
            continue;
        }
        int f = tower_spec_find(spec, c->name);
        c->field = (int)i;
        c->feature = f < 0 ? NULL : &spec->features[f];
        c->text = (struct buf)BUF_INIT;
        c->offsets = mem_array(d->n_items, sizeof *c->offsets);
        c->values = mem_array(d->n_items, sizeof *c->values);
        ++*n;
        if (c->offsets == NULL || c->values == NULL) {
            return err_nomem(e);
        }
    }
    return 0;
}

static int read_columns(struct table_reader *r, const struct dataset *d, struct column *columns, size_t n,
                        struct err *e)
{
    const struct span *fields;
    int more;
    while ((more = csv_next(r->csv, &fields, e)) > 0) {
        int64_t item = strtab_find(&d->item_ids, fields[r->id].text, fields[r->id].length);
        for (size_t i = 0; item >= 0 && i < n; i++) {
            struct column *c = &columns[i];
            if (c->values[item].length > 0) {
                continue; /* a repeated id: the first row counts */
            }
            c->offsets[item] = c->text.len;
            put_value(&c->text, c->feature, fields[c->field]);
            c->values[item].length = c->text.len - c->offsets[item];
        }
    }
    return more;
}

static int write_column(struct bundle_writer *w, const struct dataset *d, struct column *c, struct err *e)
{
    char file[SCHEMA_MAX_NAME + 40];
    struct buf out = BUF_INIT;
    for (size_t i = 0; i < d->n_items; i++) {
        bool known = c->values[i].length > 0;
        c->values[i] = (struct span){known ? c->text.data + c->offsets[i] : "null", known ? c->values[i].length : 4};
    }
    strtab_write(&out, c->values, d->n_items);
    snprintf(file, sizeof file, "items/attributes/%s.strings", c->name);
    int result =
        buf_failed(&out) || buf_failed(&c->text) ? err_nomem(e) : bundle_writer_put(w, file, out.data, out.len, e);
    buf_release(&out);
    return result;
}

int attributes_export(struct bundle_writer *w, const struct train_config *config, const struct dataset *d,
                      json_t *names, struct err *e)
{
    if (config->data.items.path == NULL) {
        return 0;
    }
    struct table_reader r = {NULL, -1};
    struct column *columns = mem_array(BUNDLE_MAX_ATTRIBUTES + 1, sizeof *columns);
    size_t n = 0;
    int result =
        columns == NULL ? err_nomem(e) : open_table(&r, config, &config->data.items, config->data.columns_items, e);
    if (result == 0) {
        result = choose_columns(&r, d, columns, &n, e);
    }
    if (result == 0) {
        result = read_columns(&r, d, columns, n, e);
    }
    for (size_t i = 0; result == 0 && i < n; i++) {
        result = write_column(w, d, &columns[i], e);
        json_array_append_new(names, json_string(columns[i].name));
    }
    for (size_t i = 0; i < n; i++) {
        mem_free(columns[i].offsets);
        mem_free(columns[i].values);
        buf_release(&columns[i].text);
    }
    csv_close(r.csv);
    mem_free(columns);
    return result;
}

/* --- raw values of a few users --------------------------------------------------------------------------------------*/

/* Adds a row's features to a user's request. Returns the request, or NULL (released) when a value is malformed. */
static json_t *complete_request(const struct table_reader *r, const struct dataset *d, const int *field,
                                const struct span *fields, json_t *request)
{
    const struct tower_spec *spec = &d->schema.towers[SIDE_USER];
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        double number;
        if (field[i] < 0 || field[i] == r->id || fields[field[i]].length == 0) {
            continue;
        }
        struct span value = fields[field[i]];
        if (f->type != FEATURE_NUMERIC) {
            json_object_set_new(request, f->name, json_stringn(value.text, value.length));
        } else if (number_parse(value.text, value.length, &number) == 0) {
            json_object_set_new(request, f->name, json_real(number));
        } else {
            json_decref(request);
            return NULL;
        }
    }
    return request;
}

int attributes_of_users(const struct train_config *config, const struct dataset *d, const uint32_t *users, size_t n,
                        json_t **requests, struct err *e)
{
    if (config->data.users.path == NULL) {
        return 0;
    }
    struct table_reader r = {NULL, -1};
    const struct tower_spec *spec = &d->schema.towers[SIDE_USER];
    int field[SCHEMA_MAX_FEATURES];
    bool done[64] = {false};
    if (open_table(&r, config, &config->data.users, config->data.columns_users, e) < 0) {
        csv_close(r.csv);
        return -1;
    }
    for (uint32_t i = 0; i < spec->n_features; i++) {
        bool has_column = spec->features[i].type != FEATURE_ID && spec->features[i].type != FEATURE_SEQUENCE;
        field[i] = has_column ? csv_column(r.csv, spec->features[i].name, NULL) : -1;
    }
    const struct span *fields;
    int more;
    while ((more = csv_next(r.csv, &fields, e)) > 0) {
        int64_t user = strtab_find(&d->user_ids, fields[r.id].text, fields[r.id].length);
        for (size_t i = 0; user >= 0 && i < n && i < sizeof done; i++) {
            if (users[i] == user && !done[i]) {
                done[i] = true;
                requests[i] = complete_request(&r, d, field, fields, requests[i]);
            }
        }
    }
    csv_close(r.csv);
    return more;
}
