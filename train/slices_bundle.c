#include "train/slices_bundle.h"

#include <string.h>

#include "core/mem.h"

bool slicing_has_attribute(const struct bundle *b, const struct feature *f)
{
    return slicing_is_category(f) && bundle_find_attribute(b, f->name) != NULL;
}

static int32_t value_row(const struct feature *f, const json_t *value)
{
    return json_is_string(value) ? feature_lookup(f, json_string_value(value), json_string_length(value))
                                 : SCHEMA_MISSING;
}

/* Values of all items, growing. */
struct values {
    int32_t *index;
    size_t n, capacity;
};

static int push(struct values *v, int32_t row)
{
    if (mem_grow((void **)&v->index, &v->capacity, v->n, sizeof *v->index) < 0) {
        return -1;
    }
    v->index[v->n++] = row;
    return 0;
}

static int push_item(struct values *v, const struct feature *f, const json_t *json)
{
    if (!json_is_array(json)) {
        return push(v, value_row(f, json));
    }
    size_t i;
    json_t *element;
    json_array_foreach(json, i, element)
    {
        if (push(v, value_row(f, element)) < 0) {
            return -1;
        }
    }
    return 0;
}

static int add_attribute(struct slicing *s, const struct bundle *b, const struct feature *f, struct err *e)
{
    const struct strtab *texts = &bundle_find_attribute(b, f->name)->values;
    struct values v = {0};
    size_t *start = mem_array(b->n_items + 1, sizeof *start);
    int result = start == NULL ? -1 : 0;
    for (size_t i = 0; result == 0 && i < b->n_items; i++) {
        size_t length;
        const char *text = strtab_get(texts, i, &length);
        json_t *json = json_loadb(text, length, JSON_DECODE_ANY, NULL);
        result = push_item(&v, f, json);
        json_decref(json);
        start[i + 1] = v.n;
    }
    if (result < 0) {
        mem_free(v.index);
        mem_free(start);
        return err_nomem(e);
    }
    slicing_add_values(s, SIDE_ITEM, f, v.index, start);
    return 0;
}

int slicing_add_attributes(struct slicing *s, const struct bundle *b, char *const *names, struct err *e)
{
    const struct tower_spec *items = &b->schema.towers[SIDE_ITEM];
    for (uint32_t i = 0; i < items->n_features; i++) {
        const struct feature *f = &items->features[i];
        if (slicing_wants(f, names) && slicing_has_attribute(b, f) && add_attribute(s, b, f, e) < 0) {
            return -1;
        }
    }
    return 0;
}
