#include "server/max_per.h"

#include <stdio.h>

#include "core/idmap.h"
#include "core/mem.h"
#include "server/catalog.h"

/* --- checking ------------------------------------------------------------------------------------------------------- */

static int check_cap(const struct request_rules *rules, const char *name, const json_t *most, const char *at,
                     struct fault *f)
{
    char path[FAULT_POINTER_MAX];
    snprintf(path, sizeof path, "%s", at);
    pointer_append(path, name);
    if (bundle_find_attribute(rules->bundle, name) == NULL) {
        return fault_set(f, PROBLEM_INVALID_FIELD, path, "the model's items have no attribute of this name");
    }
    if (!json_is_integer(most) || json_integer_value(most) < 1) {
        return fault_set(f, PROBLEM_INVALID_FIELD, path, "must be a whole number, at least 1");
    }
    return 0;
}

int max_per_check(const struct request_rules *rules, const json_t *max_per, const char *at, struct fault *f)
{
    const char *name;
    json_t *most;
    if (!json_is_object(max_per)) {
        return fault_set(f, PROBLEM_INVALID_FIELD, at, "must be an object of attribute names and numbers of items");
    }
    if (json_object_size(max_per) > MAX_PER_ATTRIBUTES) {
        return fault_set(f, PROBLEM_LIMIT_EXCEEDED, at, "must have at most %d attributes", MAX_PER_ATTRIBUTES);
    }
    json_object_foreach((json_t *)(uintptr_t)max_per, name, most)
    {
        if (check_cap(rules, name, most, at, f) != 0) {
            return -1;
        }
    }
    return 0;
}

/* --- counting ------------------------------------------------------------------------------------------------------- */

struct value_count {
    size_t taken;
    uint32_t last; /* row that was counted last: a list may hold a value twice */
    bool marked;
};

int tally_init(struct tally *t, const struct snapshot *s, const json_t *max_per)
{
    const char *name;
    json_t *most;
    *t = (struct tally){.catalog = s->catalog};
    json_object_foreach((json_t *)(uintptr_t)max_per, name, most)
    {
        struct tally_cap *cap = &t->caps[t->n++];
        cap->attribute = (size_t)(bundle_find_attribute(s->bundle, name) - s->bundle->attributes);
        cap->most = (size_t)json_integer_value(most);
        cap->values = idmap_new();
        if (cap->values == NULL) {
            return -1;
        }
    }
    return 0;
}

int tally_no_memory(struct fault *f)
{
    return fault_set(f, PROBLEM_OUT_OF_MEMORY, "", "no memory to count what max_per limits");
}

void tally_release(struct tally *t)
{
    for (size_t i = 0; i < t->n; i++) {
        idmap_free(t->caps[i].values);
        mem_free(t->caps[i].counts);
    }
    *t = (struct tally){0};
}

/* Each value of one item's attribute, on its way into the tally. */
struct visit {
    struct tally_cap *cap;
    uint32_t row;
    bool full;
};

static int see_value(void *arg, const char *text, size_t n, struct err *e)
{
    struct visit *v = arg;
    uint32_t number = idmap_find(v->cap->values, text, n);
    (void)e;
    v->full = v->full || (number != IDMAP_NONE && v->cap->counts[number].taken >= v->cap->most);
    return 0;
}

static int count_value(void *arg, const char *text, size_t n, struct err *e)
{
    struct visit *v = arg;
    struct tally_cap *cap = v->cap;
    size_t known = idmap_count(cap->values);
    if (mem_grow((void **)&cap->counts, &cap->capacity, known, sizeof *cap->counts) != 0) {
        return err_nomem(e);
    }
    uint32_t number = idmap_add(cap->values, text, n);
    if (number == IDMAP_NONE) {
        return err_nomem(e);
    }
    struct value_count *count = &cap->counts[number];
    if (number == known) {
        *count = (struct value_count){0};
    }
    if (count->taken == 0 || count->last != v->row) {
        count->taken++;
        count->last = v->row;
    }
    return 0;
}

static int visit_values(struct tally *t, struct visit *v, attribute_take *visit)
{
    struct span text = catalog_attribute(t->catalog, v->cap->attribute, v->row);
    return attribute_values(text.text, text.length, visit, v, NULL); /* it is JSON: only memory can be short */
}

int tally_take(struct tally *t, uint32_t row, bool *taken)
{
    struct visit v = {.row = row};
    *taken = false;
    for (size_t i = 0; i < t->n; i++) {
        v.cap = &t->caps[i];
        if (visit_values(t, &v, see_value) != 0) {
            return -1;
        }
        if (v.full) {
            return 0;
        }
    }
    for (size_t i = 0; i < t->n; i++) {
        v.cap = &t->caps[i];
        if (visit_values(t, &v, count_value) != 0) {
            return -1;
        }
    }
    *taken = true;
    return 0;
}

void tally_mark_full(struct tally *t, uint64_t *bits)
{
    for (size_t i = 0; i < t->n; i++) {
        struct tally_cap *cap = &t->caps[i];
        for (uint32_t j = 0; j < idmap_count(cap->values); j++) {
            struct value_count *count = &cap->counts[j];
            if (count->taken >= cap->most && !count->marked) {
                struct span text = idmap_get(cap->values, j);
                catalog_equal(t->catalog, cap->attribute, text.text, text.length, bits);
                count->marked = true;
            }
        }
    }
}
