#include "server/item_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/tower.h"
#include "core/vecmath.h"
#include "server/catalog.h"

enum { ROWS_AT_ONCE = 64 }; /* of one pass through the item tower */

int item_batch_init(struct item_batch *b, struct snapshot *s, const struct serve_config *config, size_t capacity)
{
    *b = (struct item_batch){
        .snapshot = s,
        .capacity = capacity,
        .rules = {.config = config, .bundle = s->bundle, .catalog = s->catalog},
    };
    int rc = feature_rows_init(&b->rows, &s->bundle->schema.towers[SIDE_ITEM]);
    b->items = mem_array(capacity, sizeof(struct catalog_item *));
    b->vectors = mem_array(capacity * s->bundle->dim, sizeof *b->vectors);
    b->old = mem_array(capacity, sizeof *b->old);
    return rc != 0 || !b->items || !b->vectors || !b->old ? -1 : 0;
}

void item_batch_clear(struct item_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        catalog_item_free(b->items[i]);
    }
    b->n = 0;
    feature_rows_clear(&b->rows);
}

void item_batch_release(struct item_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        catalog_item_free(b->items[i]);
    }
    mem_free(b->items);
    mem_free(b->vectors);
    mem_free(b->old);
    feature_rows_release(&b->rows);
    value_scratch_release(&b->values);
}

/* --- attributes -----------------------------------------------------------------------------------------------------*/

static int out_of_memory(struct fault *f)
{
    return fault_set(f, PROBLEM_OUT_OF_MEMORY, "", "no memory for the items");
}

/* The elements of a multi-valued text. */
static void put_list(struct buf *out, struct span text, char separator)
{
    const char *end = text.text + text.length;
    const char *before = "[";
    for (const char *p = text.text; p < end;) {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        stop = stop ? stop : end;
        if (stop > p) {
            buf_puts(out, before);
            buf_json_string(out, p, (size_t)(stop - p));
            before = ",";
        }
        p = stop + 1;
    }
    buf_puts(out, before[0] == '[' ? "[]" : "]");
}

static void put_json(struct buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
    buf_puts(out, text ? text : "");
    out->failed |= text == NULL;
    free(text);
}

/* A feature's value as the trainer would have written it for the attribute of its name. */
static void put_feature(struct buf *out, const struct feature *f, const json_t *value)
{
    struct span text = {json_string_value(value), json_string_length(value)};
    double number;
    if (!text.text) {
        put_json(out, value);
    } else if (text.length == 0) {
        buf_puts(out, "null");
    } else if (f->multi != '\0') {
        put_list(out, text, f->multi);
    } else if (f->type == FEATURE_NUMERIC && number_parse(text.text, text.length, &number) == 0) {
        buf_printf(out, "%.17g", number);
    } else {
        buf_json_string(out, text.text, text.length);
    }
}

static bool is_value(const json_t *value)
{
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value) || json_is_null(value);
}

static int check_attributes(const struct item_batch *b, const json_t *attributes, const char *at, struct fault *f)
{
    const char *name;
    json_t *value;
    uint32_t limit = b->rules.config->limits.list;
    if (attributes && !json_is_object(attributes)) {
        return fault_set(f, PROBLEM_INVALID_FIELD, at, "must be an object of attribute names");
    }
    json_object_foreach((json_t *)(uintptr_t)attributes, name, value)
    {
        char pointer[FAULT_POINTER_MAX];
        bool good = is_value(value) || json_is_array(value);
        snprintf(pointer, sizeof pointer, "%s", at);
        pointer_append(pointer, name);
        if (!bundle_find_attribute(b->rules.bundle, name)) {
            return fault_set(f, PROBLEM_UNKNOWN_FIELD, pointer, "the model's items have no attribute of this name");
        }
        if (json_array_size(value) > limit) {
            return fault_set(f, PROBLEM_LIMIT_EXCEEDED, pointer, "must have at most %u elements", limit);
        }
        for (size_t i = 0; i < json_array_size(value); i++) {
            good = good && is_value(json_array_get(value, i));
        }
        if (!good) {
            return fault_set(f, PROBLEM_INVALID_FIELD, pointer,
                             "must be a string, a number, true, false, null, or a list of those");
        }
    }
    return 0;
}

/* The JSON texts of an item's attributes, all in `text`. */
static void write_attributes(const struct bundle *b, const json_t *features, const json_t *attributes, struct buf *text,
                             struct span *spans)
{
    const struct tower_spec *spec = &b->schema.towers[SIDE_ITEM];
    size_t ends[BUNDLE_MAX_ATTRIBUTES];
    for (size_t i = 0; i < b->n_attributes; i++) {
        const char *name = b->attributes[i].name;
        const json_t *value = json_object_get(attributes, name);
        int feature = tower_spec_find(spec, name);
        if (value) {
            put_json(text, value);
        } else if (feature >= 0 && (value = json_object_get(features, name)) != NULL) {
            put_feature(text, &spec->features[feature], value);
        } else {
            buf_puts(text, "null");
        }
        ends[i] = text->len;
    }
    for (size_t i = 0; i < b->n_attributes; i++) {
        size_t start = i > 0 ? ends[i - 1] : 0;
        spans[i] = (struct span){text->data + start, ends[i] - start};
    }
}

/* --- items ----------------------------------------------------------------------------------------------------------*/

/* The features, a new reference; the one that is the item's id is added when it is not there. NULL without memory. */
static json_t *with_id(const struct tower_spec *spec, const json_t *features, struct span id)
{
    json_t *all = json_incref((json_t *)(uintptr_t)features);
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const char *name = spec->features[i].name;
        if (spec->features[i].type == FEATURE_ID && !json_object_get(all, name)) {
            json_t *copy = json_copy(all);
            json_decref(all);
            all = copy;
            if (!copy || json_object_set_new(copy, name, json_stringn(id.text, id.length)) != 0) {
                json_decref(copy);
                return NULL;
            }
        }
    }
    return all;
}

int item_batch_note(struct item_batch *b, struct span id, const json_t *features, const json_t *attributes,
                    const char *at, struct fault *f)
{
    char pointer[FAULT_POINTER_MAX];
    struct span spans[BUNDLE_MAX_ATTRIBUTES];
    struct buf text = BUF_INIT;
    struct err e = ERR_INIT;
    snprintf(pointer, sizeof pointer, "%s/features", at);
    if (!json_is_object(features)) {
        return fault_set(f, PROBLEM_INVALID_FIELD, pointer, "must be an object of feature names");
    }
    json_t *all = with_id(b->rows.spec, features, id);
    int rc = all ? request_add_features(&b->rules, &b->rows, &b->values, all, pointer, f) : out_of_memory(f);
    snprintf(pointer, sizeof pointer, "%s/attributes", at);
    rc = rc == 0 ? check_attributes(b, attributes, pointer, f) : rc;
    if (rc == 0) {
        write_attributes(b->rules.bundle, all, attributes, &text, spans);
        struct catalog_item *item = buf_failed(&text) ? NULL : catalog_item_new(b->rules.catalog, id, spans, &e);
        b->items[b->n] = item;
        b->n += item != NULL;
        rc = item ? 0 : out_of_memory(f);
    }
    json_decref(all);
    buf_release(&text);
    return rc;
}

int item_batch_compute(struct item_batch *b, struct fault *f)
{
    const struct bundle *bundle = b->snapshot->bundle;
    const struct tower_spec *spec = &bundle->schema.towers[SIDE_ITEM];
    struct ann *index = b->snapshot->index;
    struct tower_pass pass = {0};
    struct err e = ERR_INIT;
    if (b->n > ann_room(index) || !catalog_has_room(b->snapshot->catalog, b->items, b->n, (uint32_t)ann_rows(index))) {
        return fault_set(
            f, PROBLEM_NO_ROOM, "",
            "no room for %zu more items, only for %zu (limits.added_items): publish a new bundle that has them", b->n,
            ann_room(index));
    }
    if (tower_pass_init(&pass, spec, b->n < ROWS_AT_ONCE ? b->n : ROWS_AT_ONCE, &e) != 0) {
        tower_pass_release(&pass);
        return out_of_memory(f);
    }
    tower_embed(&bundle->towers[SIDE_ITEM], bundle->schema.similarity, &b->rows, &pass, b->vectors);
    tower_pass_release(&pass);
    for (size_t i = 0; i < b->n; i++) {
        if (!vec_is_finite(b->vectors + i * bundle->dim, bundle->dim)) {
            struct span id = catalog_item_id(b->items[i]);
            return fault_set(f, PROBLEM_UNPROCESSABLE, "", "the item tower gives item %.*s no finite vector",
                             (int)id.length, id.text);
        }
    }
    return 0;
}

void item_batch_put(struct item_batch *b)
{
    struct ann *index = b->snapshot->index;
    struct err e = ERR_INIT;
    uint32_t row = (uint32_t)ann_rows(index);
    b->n_old = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct span id = catalog_item_id(b->items[i]);
        int64_t old = catalog_find(b->snapshot->catalog, index, id.text, id.length);
        b->old[b->n_old] = (uint32_t)old;
        b->n_old += old >= 0;
    }
    for (size_t i = 0; i < b->n; i++) {
        catalog_put(b->snapshot->catalog, row + (uint32_t)i, b->items[i]);
    }
    if (ann_replace(index, b->vectors, b->n, b->old, b->n_old, &row, &e) != 0) { /* item_batch_compute rules it out */
        log_error("items: %s", e.message);
    }
    b->n = 0;
    feature_rows_clear(&b->rows);
}
