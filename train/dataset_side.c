/*
 * Two passes over a table, since a vocabulary must be complete before the first value can be encoded; the alternative,
 * keeping the raw values, would need memory in proportion to the text. The second pass drops silently what the first
 * one dropped and counted: the same checks (dataset_table.c) see the same bytes. Rows come in the file's order and are
 * encoded in it, then copied into the order of the ids, so for a moment one side's encoded rows exist twice.
 */
#include "train/dataset_side.h"

#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/dataset_table.h"

/* --- first pass over the tables ------------------------------------------------------------------------------------*/

static bool needs_table(const struct tower_config *tower, const char **feature)
{
    for (size_t i = 0; i < tower->n_features; i++) {
        if (tower->features[i].type != FEATURE_ID && tower->features[i].type != FEATURE_SEQUENCE) {
            *feature = tower->features[i].name;
            return true;
        }
    }
    return false;
}

/* Room for number `n`, zeroed. */
static int grow_lines(struct side_state *s, size_t n, struct err *e)
{
    if (n < s->line_capacity) {
        return 0;
    }
    size_t capacity = (n + 1024) * 2;
    uint32_t *line = mem_resize(s->line, s->line_capacity, capacity, sizeof *line);
    if (line == NULL) {
        return err_nomem(e);
    }
    memset(line + s->line_capacity, 0, (capacity - s->line_capacity) * sizeof *line);
    s->line = line;
    s->line_capacity = capacity;
    return 0;
}

static int reject_duplicate(struct side_state *s, struct table *t, uint32_t number, struct err *e)
{
    struct buf reason = BUF_INIT;
    buf_printf(&reason, "\"%.*s\" has a row already, in line %u", (int)t->id.length, t->id.text, s->line[number]);
    int result = buf_failed(&reason) ? err_nomem(e) : csv_reject(t->csv, t->id_column, reason.data, e);
    buf_release(&reason);
    return result;
}

/* Learns from one row, if it is the first of an id that matters. `n_counted` numbers have a train count. */
static int learn_row(struct side_state *s, struct table *t, size_t n_counted, struct err *e)
{
    bool adds = s->side == SIDE_ITEM;
    uint32_t number = adds ? idmap_add(s->ids, t->id.text, t->id.length) : idmap_find(s->ids, t->id.text, t->id.length);
    if (number == IDMAP_NONE) {
        return adds ? err_nomem(e) : 0; /* a user without events */
    }
    if (grow_lines(s, number, e) < 0) {
        return -1;
    }
    if (s->line[number] != 0) {
        return reject_duplicate(s, t, number, e);
    }
    uint64_t line = csv_line(t->csv);
    s->line[number] = line < UINT32_MAX ? (uint32_t)line : UINT32_MAX;
    uint32_t count = s->side == SIDE_USER ? s->count[s->rank[number]] : number < n_counted ? s->count[number] : 0;
    return count > 0 ? learner_add(s->learner, t->values, e) : 0;
}

int side_learn(struct side_state *s, struct err *e)
{
    s->learner = learner_new(s->tower, e);
    if (s->learner == NULL) {
        return -1;
    }
    const char *feature;
    if (s->table->path == NULL) {
        return needs_table(s->tower, &feature)
                   ? err_set(e, "%s feature %s: there is no table with such a column; set data.%ss: {path, id}",
                             side_words[s->side], feature, side_words[s->side])
                   : 0;
    }
    struct table t;
    size_t n_counted = idmap_count(s->ids);
    if (table_open(&t, s->table, &s->format, s->tower, e) < 0) {
        return -1;
    }
    int row;
    while ((row = table_next(&t, e)) > 0) {
        if (learn_row(s, &t, n_counted, e) < 0) {
            row = -1;
            break;
        }
    }
    s->bad_rows = csv_bad_rows(t.csv);
    table_close(&t);
    return row;
}

bool side_has_row(const struct side_state *s, uint32_t number)
{
    return number < s->line_capacity && s->line[number] != 0;
}

/* --- second pass over the tables -----------------------------------------------------------------------------------*/

/* Encodes the table's rows in the file's order; row_of[final number] is each id's position. */
static int encode_table(const struct side_state *s, struct feature_rows *rows, uint32_t *row_of, struct err *e)
{
    struct csv_options format = s->format;
    format.max_bad_rows = UINT64_MAX; /* the first pass has counted them */
    format.quiet = true;
    struct table t;
    if (table_open(&t, s->table, &format, s->tower, e) < 0) {
        return -1;
    }
    int row;
    while ((row = table_next(&t, e)) > 0) {
        uint32_t number = idmap_find(s->ids, t.id.text, t.id.length);
        if (number == IDMAP_NONE || !side_has_row(s, number) || row_of[s->rank[number]] != IDMAP_NONE) {
            continue;
        }
        struct feature_error fe;
        if (features_add(rows, t.values, &fe) < 0) {
            row = err_set(e, "%s:%llu: %s: %s", s->table->path, (unsigned long long)csv_line(t.csv),
                          fe.feature >= 0 ? s->tower->features[fe.feature].name : "row", fe.message);
            break;
        }
        row_of[s->rank[number]] = (uint32_t)(rows->n - 1);
    }
    table_close(&t);
    return row;
}

/* Brings the rows into the order of the ids; those without a row have nothing but their id. */
static int order_rows(const struct side_state *s, const struct strtab *ids, const struct feature_rows *from,
                      const uint32_t *row_of, struct feature_rows *rows, struct err *e)
{
    struct value values[SCHEMA_MAX_FEATURES];
    for (size_t i = 0; i < ids->count; i++) {
        int result;
        if (row_of[i] != IDMAP_NONE) {
            result = feature_rows_copy(rows, from, row_of[i]);
        } else {
            struct feature_error fe;
            struct span id;
            id.text = strtab_get(ids, i, &id.length);
            values_of_id(s->tower, id, values);
            result = features_add(rows, values, &fe);
        }
        if (result < 0) {
            return err_nomem(e);
        }
    }
    return 0;
}

int side_encode(const struct side_state *s, const struct strtab *ids, const struct tower_spec *spec,
                struct feature_rows *rows, struct err *e)
{
    const char *feature;
    int result = -1;
    struct feature_rows in_file_order = {0};
    uint32_t *row_of = mem_array(ids->count, sizeof *row_of);
    if (row_of == NULL || feature_rows_init(rows, spec) < 0 || feature_rows_init(&in_file_order, spec) < 0) {
        err_nomem(e);
        goto done;
    }
    memset(row_of, 0xff, ids->count * sizeof *row_of);
    if (s->table->path != NULL && needs_table(s->tower, &feature) && encode_table(s, &in_file_order, row_of, e) < 0) {
        goto done;
    }
    result = order_rows(s, ids, &in_file_order, row_of, rows, e);
done:
    if (in_file_order.spec != NULL) {
        feature_rows_release(&in_file_order);
    }
    mem_free(row_of);
    return result;
}

/* Ids of events that their table does not have: how many, one of them, and what to do. */
void side_warn_without_row(const struct side_state *s, size_t n_in_events)
{
    const char *word = side_words[s->side];
    size_t n = 0;
    uint32_t example = 0;
    for (uint32_t i = 0; s->table->path != NULL && i < n_in_events; i++) {
        if (!side_has_row(s, i)) {
            example = n == 0 ? i : example;
            n++;
        }
    }
    if (n > 0) {
        struct span id = idmap_get(s->ids, example);
        log_warn("%s: %zu of %zu %ss in the events have no row here, like \"%.*s\": their features are missing; add "
                 "rows, or check that both files write ids the same way",
                 s->table->path, n, n_in_events, word, (int)id.length, id.text);
    }
}
