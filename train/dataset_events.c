/*
 * Events are read once into blocks of plain arrays (one growing array would copy everything log n times and need twice
 * the room while it does), then scattered by user in one counting sort, which frees the blocks as it goes; each user's
 * events are put in time order by a stable sort that first looks whether they are in order already, as most logs are.
 */
#include "train/dataset_events.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "train/dataset_ids.h"
#include "train/dataset_time.h"

enum { BLOCK_EVENTS = 1 << 18, BLOCK_ROWS = 256, AHEAD = 16 };
static const double WEIGHT_MAX = 1e6;

struct event_block {
    int64_t *time; /* NULL without a time column */
    float *weight; /* likewise */
    uint32_t user[BLOCK_EVENTS];
    uint32_t item[BLOCK_EVENTS];
};

/* What a row says besides who and what. */
struct event_values {
    int64_t time;
    double label, weight;
};

/* --- reading -------------------------------------------------------------------------------------------------------*/

static int push_block(struct event_log *log)
{
    if (mem_grow((void **)&log->blocks, &log->capacity, log->n_blocks, sizeof *log->blocks) < 0) {
        return -1;
    }
    struct event_block *block = mem_resize(NULL, 0, 1, sizeof *block);
    if (block == NULL) {
        return -1;
    }
    block->time = NULL;
    block->weight = NULL;
    log->blocks[log->n_blocks++] = block;
    if (log->timed) {
        block->time = mem_resize(NULL, 0, BLOCK_EVENTS, sizeof *block->time);
    }
    if (log->weighted) {
        block->weight = mem_resize(NULL, 0, BLOCK_EVENTS, sizeof *block->weight);
    }
    return (log->timed && block->time == NULL) || (log->weighted && block->weight == NULL) ? -1 : 0;
}

static int push_event(struct event_log *log, uint32_t user, uint32_t item, const struct event_values *values)
{
    size_t at = log->n % BLOCK_EVENTS;
    if (at == 0 && push_block(log) < 0) {
        return -1;
    }
    struct event_block *block = log->blocks[log->n_blocks - 1];
    block->user[at] = user;
    block->item[at] = item;
    if (log->timed) {
        block->time[at] = values->time;
    }
    if (log->weighted) {
        block->weight[at] = (float)values->weight;
    }
    log->n++;
    return 0;
}

static void block_free(struct event_block *block)
{
    if (block != NULL) {
        mem_free(block->time);
        mem_free(block->weight);
        mem_free(block);
    }
}

void event_log_release(struct event_log *log)
{
    for (size_t i = 0; i < log->n_blocks; i++) {
        block_free(log->blocks[i]);
    }
    mem_free(log->blocks);
    *log = (struct event_log){0};
}

struct event_columns {
    int user, item, time, label, weight; /* -1: not there */
};

static int find_columns(const struct csv *csv, const struct events_config *names, struct event_columns *c,
                        struct err *e)
{
    *c = (struct event_columns){-1, -1, -1, -1, -1};
    if ((c->user = csv_column(csv, names->user, e)) < 0 || (c->item = csv_column(csv, names->item, e)) < 0) {
        return -1;
    }
    if (names->time != NULL && (c->time = csv_column(csv, names->time, e)) < 0) {
        return -1;
    }
    if (names->label != NULL && (c->label = csv_column(csv, names->label, e)) < 0) {
        return -1;
    }
    return names->weight != NULL && (c->weight = csv_column(csv, names->weight, e)) < 0 ? -1 : 0;
}

/* Checks the row's fields: -1 when all are good, else the column at fault and why in `reason`. */
static int check_row(const struct span *f, const struct event_columns *c, struct event_values *v, const char **reason)
{
    if ((*reason = id_check(f[c->user].text, f[c->user].length)) != NULL) {
        return c->user;
    }
    if ((*reason = id_check(f[c->item].text, f[c->item].length)) != NULL) {
        return c->item;
    }
    if (c->time >= 0 && (*reason = time_parse(f[c->time].text, f[c->time].length, &v->time)) != NULL) {
        return c->time;
    }
    if (c->label >= 0 && number_parse(f[c->label].text, f[c->label].length, &v->label) < 0) {
        *reason = "the label is not a finite number";
        return c->label;
    }
    if (c->weight >= 0 && (number_parse(f[c->weight].text, f[c->weight].length, &v->weight) < 0 || v->weight < 0 ||
                           v->weight > WEIGHT_MAX)) {
        *reason = "the weight is not a number from 0 to 1e6";
        return c->weight;
    }
    return -1;
}

/* A file being read. Rows are looked up a block at a time (idmap_add_many). */
struct event_reader {
    struct event_log *log;
    const struct events_file *file;
    enum events_take take;
    struct csv *csv;
    struct event_columns columns;
    struct idmap *users, *items;
    size_t n; /* rows of the block */
    struct span user[BLOCK_ROWS], item[BLOCK_ROWS];
    struct event_values values[BLOCK_ROWS];
    uint32_t numbers[2][BLOCK_ROWS];
    size_t used;
    char text[BLOCK_ROWS * 2 * ID_BYTES_MAX]; /* what user and item point into */
};

/* Puts the block's rows into the log. */
static int flush_rows(struct event_reader *r, struct err *e)
{
    if (idmap_add_many(r->users, r->user, r->n, r->numbers[SIDE_USER]) < 0 ||
        idmap_add_many(r->items, r->item, r->n, r->numbers[SIDE_ITEM]) < 0) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < r->n; i++) {
        if (push_event(r->log, r->numbers[SIDE_USER][i], r->numbers[SIDE_ITEM][i], &r->values[i]) < 0) {
            return err_nomem(e);
        }
    }
    r->n = r->used = 0;
    return 0;
}

static struct span keep_text(struct event_reader *r, struct span s)
{
    char *copy = r->text + r->used;
    memcpy(copy, s.text, s.length);
    r->used += s.length;
    return (struct span){copy, s.length};
}

static int take_row(struct event_reader *r, const struct span *f, struct err *e)
{
    struct event_values values = {0};
    const struct event_columns *c = &r->columns;
    const char *reason;
    int column = check_row(f, c, &values, &reason);
    if (column >= 0) {
        return csv_reject(r->csv, column, reason, e);
    }
    bool exposed = c->label >= 0 && values.label < r->file->columns->label_min;
    if (exposed != (r->take == EVENTS_EXPOSED)) {
        r->log->dropped_by_label += exposed;
        return 0;
    }
    if (c->weight >= 0 && (float)values.weight <= 0) {
        r->log->dropped_by_weight++;
        return 0;
    }
    r->user[r->n] = keep_text(r, f[c->user]);
    r->item[r->n] = keep_text(r, f[c->item]);
    r->values[r->n] = values;
    return ++r->n == BLOCK_ROWS ? flush_rows(r, e) : 0;
}

static int read_rows(struct event_reader *r, struct err *e)
{
    const struct span *fields;
    int row;
    r->csv = csv_open(r->file->path, &r->file->format, e);
    if (r->csv == NULL || find_columns(r->csv, r->file->columns, &r->columns, e) < 0) {
        return -1;
    }
    while ((row = csv_next(r->csv, &fields, e)) > 0) {
        if (take_row(r, fields, e) < 0) {
            return -1;
        }
    }
    r->log->bad_rows = csv_bad_rows(r->csv);
    return row < 0 ? -1 : flush_rows(r, e);
}

int event_log_read(struct event_log *log, const struct events_file *file, enum events_take take, struct idmap *users,
                   struct idmap *items, struct err *e)
{
    *log = (struct event_log){.timed = file->columns->time != NULL, .weighted = file->columns->weight != NULL};
    struct event_reader *r = mem_array(1, sizeof *r);
    if (r == NULL) {
        return err_nomem(e);
    }
    r->log = log;
    r->file = file;
    r->take = take;
    r->users = users;
    r->items = items;
    int result = read_rows(r, e);
    csv_close(r->csv);
    mem_free(r);
    if (result < 0) {
        event_log_release(log);
    }
    return result;
}

/* --- grouping ------------------------------------------------------------------------------------------------------*/

void interactions_release(struct interactions *part)
{
    mem_free(part->item);
    mem_free(part->time);
    mem_free(part->same);
    mem_free(part->weight);
    mem_free(part->start);
    *part = (struct interactions){0};
}

int interactions_init(struct interactions *part, size_t n, bool timed, bool weighted, size_t n_users, struct err *e)
{
    *part = (struct interactions){.n = n};
    part->item = mem_resize(NULL, 0, n, sizeof *part->item);
    part->time = timed ? mem_resize(NULL, 0, n, sizeof *part->time) : NULL;
    part->weight = weighted ? mem_resize(NULL, 0, n, sizeof *part->weight) : NULL;
    part->start = mem_array(n_users + 1, sizeof *part->start);
    if (part->item == NULL || part->start == NULL || (timed && part->time == NULL) ||
        (weighted && part->weight == NULL)) {
        interactions_release(part);
        return err_nomem(e);
    }
    return 0;
}

struct timed_item {
    int64_t time;
    uint32_t order; /* within the user: keeps the sort stable */
    uint32_t item;
    float weight;
};

static int compare_times(const void *a, const void *b)
{
    const struct timed_item *x = a, *y = b;
    if (x->time != y->time) {
        return x->time < y->time ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

static bool in_order(const int64_t *time, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (time[i] < time[i - 1]) {
            return false;
        }
    }
    return true;
}

/* Puts each user's events in time order. */
static int sort_by_time(struct interactions *part, size_t n_users, struct err *e)
{
    struct timed_item *room = NULL;
    size_t room_size = 0;
    for (size_t u = 0; u < n_users; u++) {
        uint32_t *item = part->item + part->start[u];
        int64_t *time = part->time + part->start[u];
        float *weight = part->weight == NULL ? NULL : part->weight + part->start[u];
        size_t n = part->start[u + 1] - part->start[u];
        if (in_order(time, n)) {
            continue;
        }
        if (n > room_size) {
            mem_free(room);
            room_size = n * 2;
            room = mem_resize(NULL, 0, room_size, sizeof *room);
            if (room == NULL) {
                return err_nomem(e);
            }
        }
        for (size_t i = 0; i < n; i++) {
            room[i] = (struct timed_item){time[i], (uint32_t)i, item[i], weight == NULL ? 1 : weight[i]};
        }
        qsort(room, n, sizeof *room, compare_times);
        for (size_t i = 0; i < n; i++) {
            time[i] = room[i].time;
            item[i] = room[i].item;
            if (weight != NULL) {
                weight[i] = room[i].weight;
            }
        }
    }
    mem_free(room);
    return 0;
}

static size_t block_length(const struct event_log *log, size_t block)
{
    return block + 1 < log->n_blocks ? BLOCK_EVENTS : log->n - block * BLOCK_EVENTS;
}

/* Final user numbers into the block, and counts of them into start[u + 1]. Users come in any order, so each step of
 * grouping waits for memory unless what is needed AHEAD events later is asked for now. */
static void count_block(struct event_block *block, size_t n, const uint32_t *user_rank, size_t *start)
{
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            __builtin_prefetch(&user_rank[block->user[i + AHEAD]]);
        }
        block->user[i] = user_rank[block->user[i]];
    }
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            __builtin_prefetch(&start[block->user[i + AHEAD] + 1], 1);
        }
        start[block->user[i] + 1]++;
    }
}

/* start[u] is the place of u's next event. */
static void scatter_block(const struct event_block *block, size_t n, struct interactions *out)
{
    for (size_t i = 0; i < n; i++) {
        if (i + 2 * AHEAD < n) {
            __builtin_prefetch(&out->start[block->user[i + 2 * AHEAD]], 1);
        }
        if (i + AHEAD < n) {
            size_t soon = out->start[block->user[i + AHEAD]];
            __builtin_prefetch(&out->item[soon], 1);
            if (out->time != NULL) {
                __builtin_prefetch(&out->time[soon], 1);
            }
        }
        size_t at = out->start[block->user[i]]++;
        out->item[at] = block->item[i];
        if (out->time != NULL) {
            out->time[at] = block->time[i];
        }
        if (out->weight != NULL) {
            out->weight[at] = block->weight[i];
        }
    }
}

/* Counts into start[u + 1] and sums up; while events are written start[u] is where u's next one goes; behind that every
 * start has moved on to the next user's, and moves back. */
int interactions_group(struct interactions *out, struct event_log *log, const uint32_t *user_rank, size_t n_users,
                       struct err *e)
{
    if (interactions_init(out, log->n, log->timed, log->weighted, n_users, e) < 0) {
        return -1;
    }
    for (size_t b = 0; b < log->n_blocks; b++) {
        count_block(log->blocks[b], block_length(log, b), user_rank, out->start);
    }
    for (size_t u = 0; u < n_users; u++) {
        out->start[u + 1] += out->start[u];
    }
    for (size_t b = 0; b < log->n_blocks; b++) {
        scatter_block(log->blocks[b], block_length(log, b), out);
        block_free(log->blocks[b]);
        log->blocks[b] = NULL;
    }
    memmove(out->start + 1, out->start, n_users * sizeof *out->start);
    out->start[0] = 0;
    if (log->timed && sort_by_time(out, n_users, e) < 0) {
        interactions_release(out);
        return -1;
    }
    return 0;
}
