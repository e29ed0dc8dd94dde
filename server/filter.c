#include "server/filter.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "server/catalog.h"

int filter_bits_init(struct filter_bits *bits, size_t n_rows)
{
    bits->words = (n_rows + 63) / 64;
    bits->rows = mem_array(FILTER_SETS * bits->words, sizeof *bits->rows);
    bits->condition = mem_array(bits->words, sizeof *bits->condition);
    return bits->rows == NULL || bits->condition == NULL ? -1 : 0;
}

void filter_bits_release(struct filter_bits *bits)
{
    mem_free(bits->rows);
    mem_free(bits->condition);
}

/* --- checking ------------------------------------------------------------------------------------------------------- */

struct check {
    const struct request_rules *rules;
    struct fault *fault;
    size_t conditions;
};

static bool is_value(const json_t *value)
{
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value);
}

static int check_list(const struct check *c, const json_t *list, const char *at)
{
    uint32_t limit = c->rules->config->limits.list;
    if (json_array_size(list) > limit) {
        return fault_set(c->fault, PROBLEM_LIMIT_EXCEEDED, at, "must have at most %u values", limit);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!is_value(json_array_get(list, i))) {
            char path[FAULT_POINTER_MAX];
            char number[24];
            snprintf(path, sizeof path, "%s", at);
            snprintf(number, sizeof number, "%zu", i);
            pointer_append(path, number);
            return fault_set(c->fault, PROBLEM_INVALID_FIELD, path, "must be a string, a number, true or false");
        }
    }
    return 0;
}

static int check_range(const struct check *c, size_t attribute, const json_t *range, const char *at)
{
    const char *name;
    json_t *bound;
    if (!catalog_has_numbers(c->rules->catalog, attribute)) {
        return fault_set(c->fault, PROBLEM_INVALID_FIELD, at, "no item has a number in this attribute");
    }
    if (json_object_size(range) == 0) {
        return fault_set(c->fault, PROBLEM_INVALID_FIELD, at, "a range needs one of gte, gt, lte, lt");
    }
    json_object_foreach((json_t *)(uintptr_t)range, name, bound)
    {
        char path[FAULT_POINTER_MAX];
        snprintf(path, sizeof path, "%s", at);
        pointer_append(path, name);
        if (strcmp(name, "gte") != 0 && strcmp(name, "gt") != 0 && strcmp(name, "lte") != 0 &&
            strcmp(name, "lt") != 0) {
            return fault_set(c->fault, PROBLEM_UNKNOWN_FIELD, path, "a range may have gte, gt, lte, lt");
        }
        if (!json_is_number(bound) || !isfinite(json_number_value(bound))) {
            return fault_set(c->fault, PROBLEM_INVALID_FIELD, path, "must be a number");
        }
    }
    return 0;
}

static int check_condition(struct check *c, const char *name, const json_t *value, const char *at)
{
    const struct bundle_attribute *a = bundle_find_attribute(c->rules->bundle, name);
    if (++c->conditions > FILTER_MAX_CONDITIONS) {
        return fault_set(c->fault, PROBLEM_LIMIT_EXCEEDED, at, "a filter has at most %d conditions",
                         FILTER_MAX_CONDITIONS);
    }
    if (a == NULL) {
        return fault_set(c->fault, PROBLEM_INVALID_FIELD, at, "the model's items have no attribute of this name");
    }
    if (json_is_object(value)) {
        return check_range(c, (size_t)(a - c->rules->bundle->attributes), value, at);
    }
    if (json_is_array(value)) {
        return check_list(c, value, at);
    }
    return is_value(value) ? 0
                           : fault_set(c->fault, PROBLEM_INVALID_FIELD, at,
                                       "must be a list of values, one value, or a range like {\"gte\": 1, \"lt\": 9}");
}

static int check_conditions(struct check *c, const json_t *conditions, const char *at, bool top)
{
    const char *name;
    json_t *value;
    if (!json_is_object(conditions)) {
        return fault_set(c->fault, PROBLEM_INVALID_FIELD, at, "must be an object of attribute names");
    }
    json_object_foreach((json_t *)(uintptr_t)conditions, name, value)
    {
        char path[FAULT_POINTER_MAX];
        snprintf(path, sizeof path, "%s", at);
        pointer_append(path, name);
        int rc = top && strcmp(name, "not") == 0 ? check_conditions(c, value, path, false)
                                                 : check_condition(c, name, value, path);
        if (rc != 0) {
            return -1;
        }
    }
    return 0;
}

int filter_check(const struct request_rules *rules, const json_t *filter, const char *at, struct fault *f)
{
    struct check c = {rules, f, 0};
    return check_conditions(&c, filter, at, true);
}

/* --- applying ------------------------------------------------------------------------------------------------------- */

/* One condition being looked up. */
struct lookup {
    const struct catalog *catalog;
    size_t attribute;
    uint64_t *bits;
};

static void set_value(const struct lookup *l, const json_t *value)
{
    char room[ATTRIBUTE_TEXT_MAX];
    struct span text = attribute_value_text(value, room);
    catalog_equal(l->catalog, l->attribute, text.text, text.length, l->bits);
    if (json_is_real(value)) { /* 7.0 is 7 */
        double number = json_real_value(value);
        catalog_between(l->catalog, l->attribute, &(struct number_range){.low = number, .high = number}, l->bits);
    }
}

static void set_range(const struct lookup *l, const json_t *range)
{
    struct number_range r = {.low = -INFINITY, .high = INFINITY};
    const char *name;
    json_t *bound;
    json_object_foreach((json_t *)(uintptr_t)range, name, bound)
    {
        double number = json_number_value(bound);
        bool open = strlen(name) == 2; /* gt, lt */
        if (name[0] == 'g' && (number > r.low || (number == r.low && open))) {
            r.low = number;
            r.low_open = open;
        } else if (name[0] == 'l' && (number < r.high || (number == r.high && open))) {
            r.high = number;
            r.high_open = open;
        }
    }
    catalog_between(l->catalog, l->attribute, &r, l->bits);
}

/* The rows for which a condition holds, into bits->condition. */
static void find_condition(const struct snapshot *s, const char *name, const json_t *value, struct filter_bits *bits)
{
    const struct bundle_attribute *a = bundle_find_attribute(s->bundle, name);
    const struct lookup l = {s->catalog, (size_t)(a - s->bundle->attributes), bits->condition};
    memset(bits->condition, 0, bits->words * sizeof *bits->condition);
    if (json_is_object(value)) {
        set_range(&l, value);
    } else if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            set_value(&l, json_array_get(value, i));
        }
    } else {
        set_value(&l, value);
    }
}

/* Leaves the rows for which the conditions hold, or do not. */
static void keep_conditions(const struct snapshot *s, const json_t *conditions, bool wanted, struct filter_bits *bits,
                            uint64_t *rows)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)conditions, name, value)
    {
        if (wanted && strcmp(name, "not") == 0) {
            keep_conditions(s, value, false, bits, rows);
            continue;
        }
        find_condition(s, name, value, bits);
        for (size_t i = 0; i < bits->words; i++) {
            rows[i] &= wanted ? bits->condition[i] : ~bits->condition[i];
        }
    }
}

/* Sets the bits below n, and no others, of bits [words]. */
static void set_below(uint64_t *bits, size_t words, size_t n)
{
    for (size_t i = 0; i < words; i++) {
        size_t first = i * 64;
        bits[i] = first + 64 <= n ? ~UINT64_C(0) : first < n ? (UINT64_C(1) << (n - first)) - 1 : 0;
    }
}

const uint64_t *filter_set(const struct filter_bits *bits, size_t number)
{
    return bits->rows + number * bits->words;
}

size_t filter_apply(const struct snapshot *s, const json_t *filter, struct filter_bits *bits, size_t number)
{
    size_t count = 0;
    uint64_t *rows = bits->rows + number * bits->words;
    size_t own = s->bundle->n_items;
    size_t own_words = (own + 63) / 64; /* added rows begin behind */
    size_t end = ann_rows(s->index);
    set_below(rows, own_words, own);
    set_below(rows + own_words, bits->words - own_words, end > own_words * 64 ? end - own_words * 64 : 0);
    keep_conditions(s, filter, true, bits, rows);
    for (size_t i = 0; i < bits->words; i++) {
        count += (size_t)__builtin_popcountll(rows[i]);
    }
    return count;
}

size_t filter_subtract(struct filter_bits *bits, size_t number)
{
    size_t count = 0;
    uint64_t *rows = bits->rows + number * bits->words;
    for (size_t i = 0; i < bits->words; i++) {
        rows[i] &= ~bits->condition[i];
        count += (size_t)__builtin_popcountll(rows[i]);
    }
    return count;
}
