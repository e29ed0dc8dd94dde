/*
 * core/features.h: raw values to tower input: the one implementation, used by trainer and daemon alike.
 *
 * A raw value is what a CSV cell or a JSON member says. features_add turns one raw value per feature into indices and
 * numbers by the schema, and appends them as one row of a `struct feature_rows`; core/tower.h takes it from there.
 *
 * Rules (the same offline and online):
 *   missing      VALUE_MISSING, or an empty text. Single-valued: row SCHEMA_MISSING. Numeric: the training mean and a
 *                1 in the "missing" column. Multi-valued and sequence: nothing to pool, a zero vector.
 *   unknown      a text that is not in the vocabulary: row SCHEMA_UNKNOWN (in a sequence too).
 *   malformed    a numeric text that is no finite number, a number with a fraction as an id, a list for a single-valued
 *                feature: an error, never a guess. Integers stand for the text "%lld" in fields of ids and categories.
 *   extreme      a standardised number is clipped to +-10 standard deviations.
 *   multi-valued a text is split at the separator; a list is taken element by element. Empty elements are skipped.
 *   sequence     a list, oldest first; only the latest `last` elements count.
 */
#ifndef CORE_FEATURES_H
#define CORE_FEATURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/schema.h"

#define FEATURE_NUMBER_MOST 10.0f /* standardised numbers are clipped to this */

enum value_kind { VALUE_MISSING, VALUE_TEXT, VALUE_NUMBER, VALUE_LIST };

struct value {
    enum value_kind kind;
    const char *text; /* borrowed, [length] bytes */
    size_t length;
    double number;
    long long integer; /* with is_integer: the exact number, as a double is exact only below 2^53 */
    bool is_integer;
    const struct value *list; /* borrowed, [count]; elements are texts, numbers or missing, never lists */
    size_t count;
};

/* The encoded values of one feature for all rows. */
struct feature_column {
    float *number;  /* [n] plain numeric: standardised; NaN marks missing */
    int32_t *index; /* single-valued: [n]; bag: [start[n]] */
    size_t *start;  /* bag: [n + 1] */
    size_t index_capacity;
};

struct feature_rows {
    const struct tower_spec *spec;  /* borrowed */
    struct feature_column *columns; /* [spec->n_features], owned */
    size_t n;
    size_t capacity;
    struct feature_pack *pack; /* owned; not NULL: packed for reading, without columns (core/feature_pack.h) */
};

/* Where and why features_add failed. */
struct feature_error {
    int feature;  /* index in the spec, -1: no memory */
    long element; /* in a list, else -1 */
    char message[160];
};

int feature_rows_init(struct feature_rows *rows, const struct tower_spec *spec); /* -1 without memory */
void feature_rows_release(struct feature_rows *rows);
void feature_rows_clear(struct feature_rows *rows); /* n = 0, keeps the memory */

/* Appends one row; values [n_features]. On failure the rows stay as they were. */
int features_add(struct feature_rows *rows, const struct value *values, struct feature_error *fe);

/* Appends row `row` of `source` (same spec); -1 without memory. */
int feature_rows_copy(struct feature_rows *rows, const struct feature_rows *source, size_t row);

/* Replaces the values of the last row of a bag feature; indices are [count] table rows. -1 without memory. */
int feature_rows_set_bag(struct feature_rows *rows, uint32_t feature, const int32_t *indices, size_t count);

/* The values of one row: table rows or one-hot columns [*count]. Not for plain numbers. */
static inline const int32_t *feature_values(const struct feature *f, const struct feature_column *c, size_t row,
                                            size_t *count)
{
    bool bag = feature_is_bag(f);
    *count = bag ? c->start[row + 1] - c->start[row] : 1;
    return c->index + (bag ? c->start[row] : row);
}

/* Of which features a row knows nothing: bit i is set when feature i is missing, or none of its values is in the vocabulary. Not
 * of packed rows. */
uint64_t feature_rows_defaulted(const struct feature_rows *rows, size_t row);

/* How the embeddings of a row's n values become one vector: a weighted sum. The last value, which is a sequence's latest,
 * weighs `latest`, each one before it `decay` times what the one behind it weighs.
 *   mean     1 / n
 *   sum      1 (and single values)
 *   sqrtn    1 / sqrt(n)
 *   recency  2^(-age / half_life), age 0 for the latest event, divided by the sum of all n */
struct value_weights {
    double latest, decay;
};
struct value_weights feature_weights(const struct feature *f, size_t n);

/* Table row of one text for a feature with a vocabulary or hashing. */
int32_t feature_lookup(const struct feature *f, const char *text, size_t length);

/* A finite number from a whole text, in the C locale, no hex; -1 when it is none. */
int number_parse(const char *text, size_t length, double *number);

/* JSON object {"feature": value, ...} to values [n_features] (missing where absent). String, number, null, or a list of
 * those. Texts are borrowed from `object`; lists live in `scratch`, which the caller releases with
 * value_scratch_release. On failure `pointer` (size >= 256) gets the JSON pointer inside the object. `other` as in
 * features_add_json_beside. */
struct value_scratch {
    struct value *elements;
    size_t count, capacity;
};
int values_from_json(const struct tower_spec *spec, const json_t *object, const char *other, struct value *values,
                     struct value_scratch *scratch, char *pointer, size_t pointer_size, struct err *e);
void value_scratch_release(struct value_scratch *scratch);

/* values_from_json + features_add in one: the way of a request and of a line of `embed`. */
int features_add_json(struct feature_rows *rows, const json_t *object, struct value_scratch *scratch, char *pointer,
                      size_t pointer_size, struct err *e);

/* The same for objects that may have one more member: `other`, a text, an integer or null. NULL, or a feature's name: none. */
int features_add_json_beside(struct feature_rows *rows, const json_t *object, const char *other,
                             struct value_scratch *scratch, char *pointer, size_t pointer_size, struct err *e);

#endif
