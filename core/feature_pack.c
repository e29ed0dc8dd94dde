#include "core/feature_pack.h"

#include <string.h>

#include "core/mem.h"

struct pack_field {
    uint8_t width;       /* bytes of a number or an index */
    uint8_t count_width; /* bag: bytes of the count; 0: all bags are empty */
    bool is_bag, is_number;
    bool is_row; /* the index is SCHEMA_FIRST + the row's number: not stored */
};

struct feature_pack {
    size_t n;
    uint32_t n_fields;
    size_t stride;   /* bytes of a row, when all have the same */
    uint32_t *start; /* [n + 1] of each row in bytes; NULL: row r is at r * stride */
    uint8_t *bytes;
    struct pack_field fields[SCHEMA_MAX_FEATURES];
};

static uint8_t width_for(size_t largest)
{
    return largest <= UINT8_MAX ? 1 : largest <= UINT16_MAX ? 2 : 4;
}

static uint32_t get(const uint8_t *from, uint8_t width)
{
    uint16_t two;
    uint32_t four;
    switch (width) {
    case 1:
        return *from;
    case 2:
        memcpy(&two, from, sizeof two);
        return two;
    default:
        memcpy(&four, from, sizeof four);
        return four;
    }
}

static uint8_t *put(uint8_t *to, uint32_t value, uint8_t width)
{
    uint16_t two = (uint16_t)value;
    switch (width) {
    case 1:
        *to = (uint8_t)value;
        break;
    case 2:
        memcpy(to, &two, sizeof two);
        break;
    default:
        memcpy(to, &value, sizeof value);
    }
    return to + width;
}

/* --- packing -------------------------------------------------------------------------------------------------------*/

/* How a column is going to be stored. */
static struct pack_field field_of(const struct feature *f, const struct feature_column *c, size_t n)
{
    struct pack_field field = {.is_bag = feature_is_bag(f), .is_number = f->rows == 0, .width = 4};
    if (field.is_number) {
        return field;
    }
    field.width = width_for(f->rows - 1);
    if (!field.is_bag) {
        field.is_row = true;
        for (size_t r = 0; r < n && field.is_row; r++) {
            field.is_row = (size_t)c->index[r] == SCHEMA_FIRST + r;
        }
        field.width = field.is_row ? 0 : field.width;
        return field;
    }
    size_t most = 0;
    for (size_t r = 0; r < n; r++) {
        size_t count = c->start[r + 1] - c->start[r];
        most = count > most ? count : most;
    }
    field.count_width = most == 0 ? 0 : width_for(most);
    return field;
}

static size_t row_size(const struct feature_pack *p, const struct feature_rows *rows, size_t row)
{
    size_t size = 0;
    for (uint32_t i = 0; i < p->n_fields; i++) {
        const struct pack_field *f = &p->fields[i];
        const size_t *start = rows->columns[i].start;
        size += f->is_bag ? f->count_width + (start[row + 1] - start[row]) * f->width : f->width;
    }
    return size;
}

static void write_row(const struct feature_pack *p, const struct feature_rows *rows, size_t row, uint8_t *to)
{
    for (uint32_t i = 0; i < p->n_fields; i++) {
        const struct pack_field *f = &p->fields[i];
        const struct feature_column *c = &rows->columns[i];
        if (f->is_number) {
            memcpy(to, &c->number[row], sizeof *c->number);
            to += sizeof *c->number;
        } else if (f->is_bag && f->count_width > 0) {
            to = put(to, (uint32_t)(c->start[row + 1] - c->start[row]), f->count_width);
            for (size_t j = c->start[row]; j < c->start[row + 1]; j++) {
                to = put(to, (uint32_t)c->index[j], f->width);
            }
        } else if (!f->is_bag && !f->is_row) {
            to = put(to, (uint32_t)c->index[row], f->width);
        }
    }
}

/* Where each row goes: p->start or p->stride. Returns all bytes. */
static size_t lay_out(struct feature_pack *p, const struct feature_rows *rows)
{
    size_t total = 0;
    for (size_t r = 0; r < p->n; r++) {
        size_t size = row_size(p, rows, r);
        if (total + size > UINT32_MAX) {
            return SIZE_MAX;
        }
        p->start[r] = (uint32_t)total;
        total += size;
    }
    p->start[p->n] = (uint32_t)total;
    return total;
}

int feature_rows_pack(struct feature_rows *rows)
{
    struct feature_pack *p = rows->pack != NULL ? rows->pack : mem_array(1, sizeof *p);
    if (p == NULL || p == rows->pack) {
        return p == NULL ? -1 : 0;
    }
    bool fixed = true;
    p->n = rows->n;
    p->n_fields = rows->spec->n_features;
    for (uint32_t i = 0; i < p->n_fields; i++) {
        p->fields[i] = field_of(&rows->spec->features[i], &rows->columns[i], rows->n);
        fixed = fixed && p->fields[i].count_width == 0;
    }
    p->start = mem_array(p->n + 1, sizeof *p->start);
    size_t total = p->start == NULL ? 0 : lay_out(p, rows);
    if (total == SIZE_MAX) {
        feature_pack_free(p);
        return 0;
    }
    p->bytes = p->start == NULL ? NULL : mem_resize(NULL, 0, total, 1);
    if (p->bytes == NULL) {
        feature_pack_free(p);
        return -1;
    }
    for (size_t r = 0; r < p->n; r++) {
        write_row(p, rows, r, p->bytes + p->start[r]);
    }
    if (fixed) {
        p->stride = p->n > 0 ? p->start[1] : 0;
        mem_free(p->start);
        p->start = NULL;
    }
    const struct tower_spec *spec = rows->spec;
    feature_rows_release(rows);
    *rows = (struct feature_rows){.spec = spec, .n = p->n, .pack = p};
    return 0;
}

void feature_pack_free(struct feature_pack *pack)
{
    if (pack != NULL) {
        mem_free(pack->start);
        mem_free(pack->bytes);
        mem_free(pack);
    }
}

/* --- reading -------------------------------------------------------------------------------------------------------*/

static const uint8_t *row_at(const struct feature_pack *p, size_t row)
{
    return p->bytes + (p->start != NULL ? p->start[row] : row * p->stride);
}

void feature_rows_prefetch(const struct feature_rows *rows, size_t row)
{
    if (rows->pack != NULL) {
        __builtin_prefetch(row_at(rows->pack, row));
    }
}

/* Reads one field of a row into the end of a column that has `n` rows; returns what is behind it, NULL without memory. */
static const uint8_t *read_field(const struct pack_field *f, const uint8_t *at, size_t row, struct feature_column *to,
                                 size_t n)
{
    if (f->is_number) {
        memcpy(&to->number[n], at, sizeof *to->number);
    } else if (!f->is_bag) {
        to->index[n] = f->is_row ? (int32_t)(SCHEMA_FIRST + row) : (int32_t)get(at, f->width);
    } else {
        size_t count = f->count_width > 0 ? get(at, f->count_width) : 0, end = to->start[n];
        at += f->count_width;
        for (size_t j = 0; j < count; j++, end++, at += f->width) {
            if (mem_grow((void **)&to->index, &to->index_capacity, end, sizeof *to->index) < 0) {
                return NULL;
            }
            to->index[end] = (int32_t)get(at, f->width);
        }
        to->start[n + 1] = end;
        return at;
    }
    return at + f->width;
}

int feature_pack_read(const struct feature_pack *pack, size_t row, struct feature_rows *rows)
{
    const uint8_t *at = row_at(pack, row);
    for (uint32_t i = 0; i < pack->n_fields && at != NULL; i++) {
        at = read_field(&pack->fields[i], at, row, &rows->columns[i], rows->n);
    }
    return at == NULL ? -1 : 0;
}

static const uint8_t *skip_field(const struct pack_field *f, const uint8_t *at)
{
    return f->is_bag && f->count_width > 0 ? at + f->count_width + get(at, f->count_width) * f->width
           : f->is_bag                     ? at
                                           : at + f->width;
}

static int read_column(const struct feature_pack *p, uint32_t feature, struct feature_column *column)
{
    for (size_t r = 0; r < p->n; r++) {
        const uint8_t *at = row_at(p, r);
        for (uint32_t i = 0; i < feature; i++) {
            at = skip_field(&p->fields[i], at);
        }
        if (read_field(&p->fields[feature], at, r, column, r) == NULL) {
            return -1;
        }
    }
    return 0;
}

static int copy_column(const struct feature_column *from, bool is_bag, size_t n, struct feature_column *to)
{
    if (from->number != NULL) {
        memcpy(to->number, from->number, n * sizeof *to->number);
    } else if (!is_bag) {
        memcpy(to->index, from->index, n * sizeof *to->index);
    } else {
        size_t values = from->start[n];
        memcpy(to->start, from->start, (n + 1) * sizeof *to->start);
        to->index = mem_resize(NULL, 0, values, sizeof *to->index);
        if (to->index == NULL) {
            return -1;
        }
        if (values > 0) {
            memcpy(to->index, from->index, values * sizeof *to->index);
        }
    }
    return 0;
}

int feature_rows_column(const struct feature_rows *rows, uint32_t feature, struct feature_column *column)
{
    const struct feature *f = &rows->spec->features[feature];
    bool is_bag = feature_is_bag(f), is_number = f->rows == 0;
    *column = (struct feature_column){0};
    column->number = is_number ? mem_array(rows->n, sizeof *column->number) : NULL;
    column->index = !is_number && !is_bag ? mem_array(rows->n, sizeof *column->index) : NULL;
    column->start = is_bag ? mem_array(rows->n + 1, sizeof *column->start) : NULL;
    bool complete = column->number != NULL || column->index != NULL || column->start != NULL;
    int result = !complete            ? -1
                 : rows->pack != NULL ? read_column(rows->pack, feature, column)
                                      : copy_column(&rows->columns[feature], is_bag, rows->n, column);
    if (result < 0) {
        feature_column_release(column);
    }
    return result;
}

void feature_column_release(struct feature_column *column)
{
    mem_free(column->number);
    mem_free(column->index);
    mem_free(column->start);
    *column = (struct feature_column){0};
}
