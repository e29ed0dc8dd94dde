/*
 * Raw values to indices and numbers.
 *
 * Rows are kept by column, compactly: a single-valued field costs 4 bytes a row, a bag 8 bytes a row and 4 a value, so
 * that ten million users with a dozen fields fit. features_add is all or nothing: a row is appended field by field, and
 * a failure at field i takes the first i back by resetting `n` alone, because a column's fill level follows from n
 * (single-valued) or from start[n] (bags).
 *
 * Rejected: parsing JSON or CSV straight into columns. The intermediate `struct value` costs a copy of a pointer and
 * buys the one place where a missing, unknown or malformed value is decided.
 */
#include "core/features.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/feature_pack.h"
#include "core/idmap.h"
#include "core/mem.h"

enum { NUMBER_TEXT_MAX = 64 };

/* --- rows ----------------------------------------------------------------------------------------------------------*/

static bool is_plain_number(const struct feature *f)
{
    return f->type == FEATURE_NUMERIC && f->transform != TRANSFORM_BUCKETIZE;
}

static int grow(struct feature_rows *rows)
{
    if (rows->n < rows->capacity) {
        return 0;
    }
    size_t capacity = rows->capacity == 0 ? 16 : rows->capacity * 2;
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        struct feature_column *c = &rows->columns[i];
        void *grown;
        if (is_plain_number(f)) {
            grown = mem_resize(c->number, rows->n, capacity, sizeof *c->number);
            c->number = grown == NULL ? c->number : grown;
        } else if (feature_is_bag(f)) {
            grown = mem_resize(c->start, rows->n + 1, capacity + 1, sizeof *c->start);
            c->start = grown == NULL ? c->start : grown;
        } else {
            grown = mem_resize(c->index, rows->n, capacity, sizeof *c->index);
            c->index = grown == NULL ? c->index : grown;
        }
        if (grown == NULL) {
            return -1; /* some columns are larger than capacity says: harmless */
        }
    }
    rows->capacity = capacity;
    return 0;
}

int feature_rows_init(struct feature_rows *rows, const struct tower_spec *spec)
{
    *rows = (struct feature_rows){.spec = spec};
    rows->columns = mem_array(spec->n_features, sizeof *rows->columns);
    if (rows->columns == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i < spec->n_features; i++) {
        if (feature_is_bag(&spec->features[i])) {
            rows->columns[i].start = mem_array(1, sizeof(size_t));
            if (rows->columns[i].start == NULL) {
                feature_rows_release(rows);
                return -1;
            }
        }
    }
    return 0;
}

void feature_rows_release(struct feature_rows *rows)
{
    for (uint32_t i = 0; rows->columns != NULL && i < rows->spec->n_features; i++) {
        mem_free(rows->columns[i].number);
        mem_free(rows->columns[i].index);
        mem_free(rows->columns[i].start);
    }
    mem_free(rows->columns);
    feature_pack_free(rows->pack);
    *rows = (struct feature_rows){0};
}

void feature_rows_clear(struct feature_rows *rows)
{
    rows->n = 0;
}

/* Appends one index to the bag of row rows->n. */
static int bag_push(struct feature_rows *rows, uint32_t feature, int32_t index)
{
    struct feature_column *c = &rows->columns[feature];
    size_t end = c->start[rows->n + 1];
    if (mem_grow((void **)&c->index, &c->index_capacity, end, sizeof *c->index) < 0) {
        return -1;
    }
    c->index[end] = index;
    c->start[rows->n + 1] = end + 1;
    return 0;
}

int feature_rows_set_bag(struct feature_rows *rows, uint32_t feature, const int32_t *indices, size_t count)
{
    struct feature_column *c = &rows->columns[feature];
    rows->n--;
    c->start[rows->n + 1] = c->start[rows->n];
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++) {
        result = bag_push(rows, feature, indices[i]);
    }
    rows->n++;
    return result;
}

int feature_rows_copy(struct feature_rows *rows, const struct feature_rows *source, size_t row)
{
    if (grow(rows) < 0) {
        return -1;
    }
    if (source->pack != NULL) {
        if (feature_pack_read(source->pack, row, rows) < 0) {
            return -1;
        }
        rows->n++;
        return 0;
    }
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        struct feature_column *to = &rows->columns[i];
        const struct feature_column *from = &source->columns[i];
        if (is_plain_number(f)) {
            to->number[rows->n] = from->number[row];
        } else if (!feature_is_bag(f)) {
            to->index[rows->n] = from->index[row];
        } else {
            to->start[rows->n + 1] = to->start[rows->n];
            for (size_t j = from->start[row]; j < from->start[row + 1]; j++) {
                if (bag_push(rows, i, from->index[j]) < 0) {
                    return -1;
                }
            }
        }
    }
    rows->n++;
    return 0;
}

static bool is_known(const struct feature *f, const struct feature_column *c, size_t row)
{
    size_t n;
    if (is_plain_number(f)) {
        return !isnan(c->number[row]);
    }
    const int32_t *values = feature_values(f, c, row, &n);
    for (size_t i = 0; i < n; i++) {
        if (values[i] != SCHEMA_UNKNOWN && values[i] != SCHEMA_MISSING) {
            return true;
        }
    }
    return false;
}

uint64_t feature_rows_defaulted(const struct feature_rows *rows, size_t row)
{
    uint64_t defaulted = 0;
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        bool known = is_known(&rows->spec->features[i], &rows->columns[i], row);
        defaulted |= known ? 0 : UINT64_C(1) << i;
    }
    return defaulted;
}

/* --- one value -----------------------------------------------------------------------------------------------------*/

int number_parse(const char *text, size_t length, double *number)
{
    char copy[NUMBER_TEXT_MAX];
    if (length == 0 || length >= sizeof copy) {
        return -1;
    }
    memcpy(copy, text, length); /* the text need not end with '\0' */
    copy[length] = '\0';
    if (strspn(copy, "+-.0123456789eE") != length) {
        return -1; /* keeps strtod from taking hex, "nan", "inf" or leading blanks */
    }
    char *end;
    double x = strtod(copy, &end); /* the programs never call setlocale: the C locale */
    if (end != copy + length || !isfinite((float)x)) {
        return -1;
    }
    *number = x;
    return 0;
}

int32_t feature_lookup(const struct feature *f, const char *text, size_t length)
{
    if (!feature_has_vocab(f)) {
        return SCHEMA_FIRST + (int32_t)(fnv1a(text, length) % f->buckets);
    }
    int64_t i = strtab_find(&f->vocab, text, length);
    return i < 0 ? SCHEMA_UNKNOWN : SCHEMA_FIRST + (int32_t)i;
}

struct value_weights feature_weights(const struct feature *f, size_t n)
{
    struct value_weights w = {1.0, 1.0};
    if (!feature_is_bag(f) || n == 0) {
        return w;
    }
    switch (f->pooling) {
    case POOLING_MEAN:
        w.latest = 1.0 / (double)n;
        break;
    case POOLING_SUM:
        break;
    case POOLING_SQRTN:
        w.latest = 1.0 / sqrt((double)n);
        break;
    case POOLING_RECENCY:
        /* 1 + q + ... + q^(n-1) = (1 - q^n) / (1 - q), by expm1 because q may be next to 1 */
        w.decay = exp2(-1.0 / f->half_life);
        w.latest = expm1(-M_LN2 / f->half_life) / expm1(-M_LN2 * (double)n / f->half_life);
        break;
    }
    return w;
}

static int fail(struct feature_error *fe, long element, const char *message)
{
    fe->element = element;
    snprintf(fe->message, sizeof fe->message, "%s", message);
    return -1;
}

static bool is_missing(const struct value *v)
{
    return v->kind == VALUE_MISSING || (v->kind == VALUE_TEXT && v->length == 0);
}

/* The value's text; integers are written as "%lld" into `copy`. NULL when there is none: a fraction, or a double from
 * 2^53 on, where neighbouring integers have become one. */
static const char *text_of(const struct value *v, char copy[NUMBER_TEXT_MAX], size_t *length)
{
    if (v->kind == VALUE_TEXT) {
        *length = v->length;
        return v->text;
    }
    if (v->kind != VALUE_NUMBER) {
        return NULL;
    }
    if (!v->is_integer && (v->number != floor(v->number) || !(fabs(v->number) < 9007199254740992.0))) {
        return NULL;
    }
    long long integer = v->is_integer ? v->integer : (long long)v->number;
    *length = (size_t)snprintf(copy, NUMBER_TEXT_MAX, "%lld", integer);
    return copy;
}

static int add_to_bag(struct feature_rows *rows, uint32_t feature, const struct value *v, long element,
                      struct feature_error *fe)
{
    char copy[NUMBER_TEXT_MAX];
    size_t length = 0;
    if (is_missing(v)) {
        return 0;
    }
    const char *text = text_of(v, copy, &length);
    if (text == NULL) {
        return fail(fe, element, "must be a text or an integer");
    }
    if (bag_push(rows, feature, feature_lookup(&rows->spec->features[feature], text, length)) < 0) {
        fe->feature = -1;
        return fail(fe, element, "out of memory");
    }
    return 0;
}

/* Splits a text at the feature's separator into a bag. */
static int add_split(struct feature_rows *rows, uint32_t feature, const struct value *v, struct feature_error *fe)
{
    char separator = rows->spec->features[feature].multi;
    const char *p = v->text;
    const char *end = v->text + v->length;
    while (p < end) {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        stop = stop == NULL ? end : stop;
        struct value part = {.kind = VALUE_TEXT, .text = p, .length = (size_t)(stop - p)};
        if (add_to_bag(rows, feature, &part, -1, fe) < 0) {
            return -1;
        }
        p = stop + 1;
    }
    return 0;
}

static int add_bag(struct feature_rows *rows, uint32_t feature, const struct value *v, struct feature_error *fe)
{
    const struct feature *f = &rows->spec->features[feature];
    struct feature_column *c = &rows->columns[feature];
    c->start[rows->n + 1] = c->start[rows->n];
    if (is_missing(v)) {
        return 0;
    }
    if (v->kind == VALUE_TEXT && f->multi != '\0') {
        return add_split(rows, feature, v, fe);
    }
    if (v->kind != VALUE_LIST) {
        if (f->type == FEATURE_SEQUENCE) {
            return fail(fe, -1, "must be a list of item ids, oldest first");
        }
        return add_to_bag(rows, feature, v, -1, fe);
    }
    size_t first = f->type == FEATURE_SEQUENCE && v->count > f->last ? v->count - f->last : 0;
    for (size_t i = first; i < v->count; i++) {
        if (add_to_bag(rows, feature, &v->list[i], (long)i, fe) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Numeric: bucket or standardised number. */
static int add_number(struct feature_rows *rows, uint32_t feature, const struct value *v, struct feature_error *fe)
{
    const struct feature *f = &rows->spec->features[feature];
    struct feature_column *c = &rows->columns[feature];
    bool bucketized = f->transform == TRANSFORM_BUCKETIZE;
    if (is_missing(v)) {
        if (bucketized) {
            c->index[rows->n] = SCHEMA_MISSING;
        } else {
            c->number[rows->n] = NAN;
        }
        return 0;
    }
    double x = v->number;
    if (v->kind == VALUE_LIST || (v->kind == VALUE_TEXT && number_parse(v->text, v->length, &x) < 0) ||
        !isfinite((float)x)) {
        return fail(fe, -1, "must be a finite number");
    }
    if (bucketized) {
        uint32_t low = 0;
        uint32_t high = f->n_bounds;
        while (low < high) { /* the number of bounds <= x */
            uint32_t middle = (low + high) / 2;
            if (f->bounds[middle] <= x) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        c->index[rows->n] = SCHEMA_FIRST + (int32_t)low;
        return 0;
    }
    if (f->transform == TRANSFORM_LOG) {
        x = copysign(log1p(fabs(x)), x);
    }
    float z = (float)((x - f->mean) / f->stddev);
    c->number[rows->n] = fminf(fmaxf(z, -FEATURE_NUMBER_MOST), FEATURE_NUMBER_MOST);
    return 0;
}

static int add_single(struct feature_rows *rows, uint32_t feature, const struct value *v, struct feature_error *fe)
{
    char copy[NUMBER_TEXT_MAX];
    size_t length = 0;
    int32_t *index = &rows->columns[feature].index[rows->n];
    if (is_missing(v)) {
        *index = SCHEMA_MISSING;
        return 0;
    }
    const char *text = text_of(v, copy, &length);
    if (text == NULL) {
        return fail(fe, -1, "must be a text or an integer");
    }
    *index = feature_lookup(&rows->spec->features[feature], text, length);
    return 0;
}

int features_add(struct feature_rows *rows, const struct value *values, struct feature_error *fe)
{
    if (grow(rows) < 0) {
        fe->feature = -1;
        return fail(fe, -1, "out of memory");
    }
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        int result;
        fe->feature = (int)i;
        if (feature_is_bag(f)) {
            result = add_bag(rows, i, &values[i], fe);
        } else if (f->type == FEATURE_NUMERIC) {
            result = add_number(rows, i, &values[i], fe);
        } else {
            result = add_single(rows, i, &values[i], fe);
        }
        if (result < 0) {
            return -1;
        }
    }
    rows->n++;
    return 0;
}

/* --- JSON ----------------------------------------------------------------------------------------------------------*/

/* One scalar; -1 when it is none of string, number, null. */
static int scalar_from_json(const json_t *json, struct value *v)
{
    *v = (struct value){.kind = VALUE_MISSING};
    switch (json_typeof(json)) {
    case JSON_STRING:
        v->kind = VALUE_TEXT;
        v->text = json_string_value(json);
        v->length = json_string_length(json);
        return 0;
    case JSON_INTEGER:
        v->kind = VALUE_NUMBER;
        v->number = (double)json_integer_value(json);
        v->integer = json_integer_value(json);
        v->is_integer = true;
        return 0;
    case JSON_REAL:
        v->kind = VALUE_NUMBER;
        v->number = json_real_value(json);
        return 0;
    case JSON_NULL:
        return 0;
    default:
        return -1;
    }
}

static size_t count_list_elements(const json_t *object)
{
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        n += json_array_size(value);
    }
    return n;
}

/* A JSON pointer's token (RFC 6901) behind what is in `pointer`: "/" and the key, escaped, cut when too long. */
static void point_at(char *pointer, size_t size, const char *key, long element)
{
    size_t n = 0;
    pointer[n++] = '/';
    for (const char *p = key; *p != '\0' && n + 3 < size; p++) {
        if (*p == '~' || *p == '/') {
            pointer[n++] = '~';
            pointer[n++] = *p == '~' ? '0' : '1';
        } else {
            pointer[n++] = *p;
        }
    }
    pointer[n] = '\0';
    if (element >= 0) {
        snprintf(pointer + n, size - n, "/%ld", element);
    }
}

static int list_from_json(const json_t *list, struct value *v, struct value_scratch *scratch, long *bad)
{
    size_t n = json_array_size(list);
    const struct value *elements = n > 0 ? scratch->elements + scratch->count : NULL; /* no room was made for none */
    *v = (struct value){.kind = VALUE_LIST, .list = elements, .count = n};
    for (size_t i = 0; i < n; i++) {
        if (scalar_from_json(json_array_get(list, i), &scratch->elements[scratch->count]) < 0) {
            *bad = (long)i;
            return -1;
        }
        scratch->count++;
    }
    return 0;
}

int values_from_json(const struct tower_spec *spec, const json_t *object, const char *other, struct value *values,
                     struct value_scratch *scratch, char *pointer, size_t pointer_size, struct err *e)
{
    pointer[0] = '\0';
    if (!json_is_object(object)) {
        return err_set(e, "must be an object of feature names and values");
    }
    for (uint32_t i = 0; i < spec->n_features; i++) {
        values[i] = (struct value){.kind = VALUE_MISSING};
    }
    size_t needed = count_list_elements(object);
    if (needed > scratch->capacity) {
        struct value *grown = mem_resize(scratch->elements, 0, needed, sizeof *grown);
        if (grown == NULL) {
            return err_nomem(e);
        }
        scratch->elements = grown;
        scratch->capacity = needed;
    }
    scratch->count = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        int i = tower_spec_find(spec, key);
        long element = -1;
        if (i < 0 && other != NULL && strcmp(key, other) == 0) {
            if (json_is_string(value) || json_is_integer(value) || json_is_null(value)) {
                continue;
            }
            point_at(pointer, pointer_size, key, -1);
            return err_set(e, "must be a text or an integer");
        }
        if (i < 0) {
            point_at(pointer, pointer_size, key, -1);
            return err_set(e, "the model has no feature of this name");
        }
        int result = json_is_array(value) ? list_from_json(value, &values[i], scratch, &element)
                                          : scalar_from_json(value, &values[i]);
        if (result < 0) {
            point_at(pointer, pointer_size, key, element);
            return err_set(e, "must be a string, a number, null, or a list of those");
        }
    }
    return 0;
}

void value_scratch_release(struct value_scratch *scratch)
{
    mem_free(scratch->elements);
    *scratch = (struct value_scratch){0};
}

int features_add_json(struct feature_rows *rows, const json_t *object, struct value_scratch *scratch, char *pointer,
                      size_t pointer_size, struct err *e)
{
    return features_add_json_beside(rows, object, NULL, scratch, pointer, pointer_size, e);
}

int features_add_json_beside(struct feature_rows *rows, const json_t *object, const char *other,
                             struct value_scratch *scratch, char *pointer, size_t pointer_size, struct err *e)
{
    struct value values[SCHEMA_MAX_FEATURES];
    struct feature_error fe;
    if (values_from_json(rows->spec, object, other, values, scratch, pointer, pointer_size, e) < 0) {
        return -1;
    }
    if (features_add(rows, values, &fe) < 0) {
        if (fe.feature < 0) {
            return err_nomem(e);
        }
        point_at(pointer, pointer_size, rows->spec->features[fe.feature].name, fe.element);
        return err_set(e, "%s", fe.message);
    }
    return 0;
}
