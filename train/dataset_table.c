#include "train/dataset_table.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "train/dataset_ids.h"

int table_open(struct table *t, const struct table_config *config, const struct csv_options *format,
               const struct tower_config *tower, struct err *e)
{
    *t = (struct table){.tower = tower};
    t->csv = csv_open(config->path, format, e);
    if (t->csv == NULL || (t->id_column = csv_column(t->csv, config->id, e)) < 0) {
        goto failed;
    }
    for (size_t i = 0; i < tower->n_features; i++) {
        const struct feature_config *f = &tower->features[i];
        t->columns[i] = -1;
        if (f->type == FEATURE_ID) {
            t->columns[i] = t->id_column;
        } else if (f->type != FEATURE_SEQUENCE && (t->columns[i] = csv_column(t->csv, f->name, e)) < 0) {
            goto failed;
        }
    }
    return 0;
failed:
    table_close(t);
    return -1;
}

void table_close(struct table *t)
{
    csv_close(t->csv);
    t->csv = NULL;
}

/* One field to a value; NULL, or why it is none. */
static const char *value_of(const struct feature_config *f, struct span field, struct value *v)
{
    *v = (struct value){.kind = VALUE_MISSING};
    if (field.length == 0) {
        return NULL;
    }
    if (f->type == FEATURE_NUMERIC) {
        v->kind = VALUE_NUMBER;
        return number_parse(field.text, field.length, &v->number) < 0 ? "not a finite number" : NULL;
    }
    if (f->multi == '\0' && field.length > ID_BYTES_MAX) {
        return "longer than 256 bytes";
    }
    *v = (struct value){.kind = VALUE_TEXT, .text = field.text, .length = field.length};
    return text_check(field.text, field.length);
}

/* Takes the row's values; 1 when they are good, 0 when the row was dropped, -1. */
static int take_row(struct table *t, const struct span *fields, struct err *e)
{
    t->id = fields[t->id_column];
    const char *reason = id_check(t->id.text, t->id.length);
    if (reason != NULL) {
        return csv_reject(t->csv, t->id_column, reason, e);
    }
    for (size_t i = 0; i < t->tower->n_features; i++) {
        int column = t->columns[i];
        struct span field = column >= 0 ? fields[column] : (struct span){"", 0};
        reason = value_of(&t->tower->features[i], field, &t->values[i]);
        if (reason != NULL) {
            char text[128];
            int shown = field.length < 40 ? (int)field.length : 40;
            bool printable = text_check(field.text, (size_t)shown) == NULL;
            snprintf(text, sizeof text, "%s%s%.*s%s", reason, printable ? ": \"" : "", printable ? shown : 0,
                     field.text, printable ? "\"" : "");
            return csv_reject(t->csv, column, text, e);
        }
    }
    return 1;
}

int table_next(struct table *t, struct err *e)
{
    for (;;) {
        const struct span *fields;
        int row = csv_next(t->csv, &fields, e);
        if (row > 0) {
            row = take_row(t, fields, e);
            if (row == 0) {
                continue;
            }
        }
        return row;
    }
}

void values_of_id(const struct tower_config *tower, struct span id, struct value *values)
{
    for (size_t i = 0; i < tower->n_features; i++) {
        values[i] = (struct value){.kind = VALUE_MISSING};
        if (tower->features[i].type == FEATURE_ID) {
            values[i] = (struct value){.kind = VALUE_TEXT, .text = id.text, .length = id.length};
        }
    }
}
