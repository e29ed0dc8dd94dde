#include "core/attribute_index.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/features.h"
#include "core/idmap.h"
#include "core/json.h"
#include "core/mem.h"

struct number_row {
    double number;
    uint32_t row;
};

struct attribute_index {
    struct idmap *texts;       /* the different values */
    uint32_t *start;           /* [texts + 1] */
    uint32_t *rows;            /* [start[texts]] by value, ascending */
    struct number_row *number; /* [n_numbers] by number */
    size_t n_numbers;
};

/* --- the values of a text -------------------------------------------------------------------------------------------- */

/* As jansson writes a real with 17 digits: 2.0, 1e20, 1e-5. */
static int write_real(char room[ATTRIBUTE_TEXT_MAX], double number)
{
    int n = snprintf(room, ATTRIBUTE_TEXT_MAX, "%.17g", number);
    char *e = strchr(room, 'e');
    if (e == NULL) {
        return strchr(room, '.') != NULL ? n : n + snprintf(room + n, ATTRIBUTE_TEXT_MAX - (size_t)n, ".0");
    }
    char *from = e + 2; /* behind the sign */
    from += strspn(from, "0");
    char *to = e[1] == '-' ? e + 2 : e + 1;
    memmove(to, from, strlen(from) + 1);
    return (int)strlen(room);
}

/* Not by json_dumpb, which needs memory, and says without any that the text is empty. */
struct span attribute_value_text(const json_t *value, char room[ATTRIBUTE_TEXT_MAX])
{
    int n;
    switch (json_typeof(value)) {
    case JSON_STRING:
        return (struct span){json_string_value(value), json_string_length(value)};
    case JSON_INTEGER:
        n = snprintf(room, ATTRIBUTE_TEXT_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        n = write_real(room, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        n = snprintf(room, ATTRIBUTE_TEXT_MAX, "%s", json_is_true(value) ? "true" : "false");
        break;
    default:
        return (struct span){NULL, 0};
    }
    return (struct span){room, (size_t)n};
}

/* A value, or each element of a list. An object can be answered with, not asked for. */
static int take_json(const json_t *value, attribute_take *take, void *arg, struct err *e)
{
    char room[ATTRIBUTE_TEXT_MAX];
    struct span text = attribute_value_text(value, room);
    size_t i;
    json_t *element;
    if (text.text != NULL) {
        return take(arg, text.text, text.length, e);
    }
    json_array_foreach((json_t *)(uintptr_t)value, i, element)
    {
        if (json_is_array(element) ? false : take_json(element, take, arg, e) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The common values, recognised without parsing: null, integers, strings of printable ASCII; 0 done, 1 not one of these. */
static int take_plain(const char *text, size_t n, attribute_take *take, void *arg, struct err *e)
{
    if (n >= 2 && text[0] == '"' && text[n - 1] == '"') {
        for (size_t i = 1; i < n - 1; i++) {
            if (text[i] < 0x20 || text[i] > 0x7e || text[i] == '"' || text[i] == '\\') {
                return 1;
            }
        }
        return take(arg, text + 1, n - 2, e);
    }
    if (n == 1 || (n > 1 && n < 16 && text[0] >= '1')) {
        size_t digits = 0;
        while (digits < n && text[digits] >= '0' && text[digits] <= '9') {
            digits++;
        }
        return digits == n ? take(arg, text, n, e) : 1;
    }
    return n == 4 && memcmp(text, "null", 4) == 0 ? 0 : 1;
}

int attribute_values(const char *text, size_t n, attribute_take *take, void *arg, struct err *e)
{
    int rc = take_plain(text, n, take, arg, e);
    if (rc != 1) {
        return rc;
    }
    json_error_t error;
    bool no_memory;
    json_t *value = json_parse(text, n, JSON_DECODE_ANY, &error, &no_memory);
    if (no_memory) {
        return err_nomem(e);
    }
    if (value == NULL) {
        return err_set(e, "not a JSON text: %s", error.text);
    }
    rc = take_json(value, take, arg, e);
    json_decref(value);
    return rc;
}

/* --- building ------------------------------------------------------------------------------------------------------- */

/* Pairs of value and row as they are read. */
struct builder {
    struct attribute_index *x;
    uint32_t *value, *row; /* [n] */
    size_t n, capacity;
    size_t number_capacity;
    uint32_t at; /* the row that is being read */
};

static int add_number(struct builder *b, double number, uint32_t row, struct err *e)
{
    struct attribute_index *x = b->x;
    if (x->n_numbers == b->number_capacity) {
        size_t capacity = b->number_capacity * 2 + 256;
        struct number_row *more = mem_resize(x->number, x->n_numbers, capacity, sizeof *more);
        if (more == NULL) {
            return err_nomem(e);
        }
        x->number = more;
        b->number_capacity = capacity;
    }
    x->number[x->n_numbers++] = (struct number_row){number, row};
    return 0;
}

static int add_value(struct builder *b, const char *text, size_t n, uint32_t row, struct err *e)
{
    double number;
    if (b->n == b->capacity) {
        size_t capacity = b->capacity * 2 + 256;
        uint32_t *value = mem_resize(b->value, b->n, capacity, sizeof *value);
        b->value = value == NULL ? b->value : value;
        uint32_t *rows = mem_resize(b->row, b->n, capacity, sizeof *rows);
        b->row = rows == NULL ? b->row : rows;
        if (value == NULL || rows == NULL) {
            return err_nomem(e);
        }
        b->capacity = capacity;
    }
    b->value[b->n] = idmap_add(b->x->texts, text, n);
    if (b->value[b->n] == IDMAP_NONE) {
        return err_nomem(e);
    }
    b->row[b->n++] = row;
    return number_parse(text, n, &number) == 0 ? add_number(b, number, row, e) : 0;
}

static int take_row_value(void *arg, const char *text, size_t n, struct err *e)
{
    struct builder *b = arg;
    return add_value(b, text, n, b->at, e);
}

static int compare_numbers(const void *a, const void *b)
{
    const struct number_row *x = a;
    const struct number_row *y = b;
    return x->number < y->number ? -1 : x->number > y->number ? 1 : (x->row > y->row) - (x->row < y->row);
}

/* Rows by value, in the order of the rows. */
static int sort_rows(struct builder *b, struct err *e)
{
    struct attribute_index *x = b->x;
    size_t texts = idmap_count(x->texts);
    x->start = mem_array(texts + 2, sizeof *x->start);
    x->rows = mem_array(b->n, sizeof *x->rows);
    if (x->start == NULL || x->rows == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < b->n; i++) {
        x->start[b->value[i] + 2]++;
    }
    for (size_t i = 2; i < texts + 2; i++) {
        x->start[i] += x->start[i - 1];
    }
    for (size_t i = 0; i < b->n; i++) {
        x->rows[x->start[b->value[i] + 1]++] = b->row[i];
    }
    if (x->n_numbers > 0) {
        qsort(x->number, x->n_numbers, sizeof *x->number, compare_numbers);
    }
    return 0;
}

struct attribute_index *attribute_index_new(const struct strtab *values, struct err *e)
{
    struct builder b = {.x = mem_array(1, sizeof *b.x)};
    int rc = 0;
    if (b.x == NULL || (b.x->texts = idmap_new()) == NULL) {
        rc = err_nomem(e);
    }
    for (size_t i = 0; rc == 0 && i < values->count; i++) {
        size_t n;
        const char *text = strtab_get(values, i, &n);
        b.at = (uint32_t)i;
        rc = attribute_values(text, n, take_row_value, &b, e);
        if (rc != 0) {
            err_prefix(e, "row %zu", i);
        }
    }
    rc = rc == 0 ? sort_rows(&b, e) : rc;
    mem_free(b.value);
    mem_free(b.row);
    if (rc != 0) {
        attribute_index_free(b.x);
        return NULL;
    }
    return b.x;
}

void attribute_index_free(struct attribute_index *x)
{
    if (x == NULL) {
        return;
    }
    idmap_free(x->texts);
    mem_free(x->start);
    mem_free(x->rows);
    mem_free(x->number);
    mem_free(x);
}

/* --- asking --------------------------------------------------------------------------------------------------------- */

size_t attribute_index_values(const struct attribute_index *x)
{
    return idmap_count(x->texts);
}

size_t attribute_index_numbers(const struct attribute_index *x)
{
    return x->n_numbers;
}

size_t attribute_index_bytes(const struct attribute_index *x)
{
    size_t texts = idmap_count(x->texts);
    return (texts + 2) * sizeof *x->start + x->start[texts] * sizeof *x->rows + x->n_numbers * sizeof *x->number;
}

static void set_bit(uint64_t *bits, uint32_t row)
{
    bits[row / 64] |= UINT64_C(1) << row % 64;
}

void attribute_index_equal(const struct attribute_index *x, const char *text, size_t length, uint64_t *bits)
{
    uint32_t value = idmap_find(x->texts, text, length);
    if (value == IDMAP_NONE) {
        return;
    }
    for (uint32_t i = x->start[value]; i < x->start[value + 1]; i++) {
        set_bit(bits, x->rows[i]);
    }
}

static bool below(const struct number_range *r, double x)
{
    return x < r->low || (r->low_open && x == r->low);
}

static bool above(const struct number_range *r, double x)
{
    return x > r->high || (r->high_open && x == r->high);
}

bool number_in_range(const struct number_range *range, double number)
{
    return !below(range, number) && !above(range, number);
}

void attribute_index_between(const struct attribute_index *x, const struct number_range *range, uint64_t *bits)
{
    size_t low = 0;
    size_t high = x->n_numbers;
    while (low < high) { /* the first number that is not below */
        size_t middle = low + (high - low) / 2;
        if (below(range, x->number[middle].number)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < x->n_numbers && !above(range, x->number[low].number); low++) {
        set_bit(bits, x->number[low].row);
    }
}
