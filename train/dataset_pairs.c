/*
 * Pairs are read when users and items have their final numbers: ids are numbered anew by appearance, translated once
 * each through the sorted ids, and what has no number is dropped. Exposures therefore cost a second reading of the
 * events; collecting them in the first one would add users and items that only exposures name, which no other part of a
 * data set may have.
 */
#include "train/dataset_pairs.h"

#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/dataset_events.h"
#include "train/dataset_ids.h"

struct reading {
    struct idmap *ids[2]; /* by side */
    uint32_t *number[2];  /* [idmap_count] numbers in the data set, from its count up for unknown ones */
    struct event_log log;
};

static void reading_release(struct reading *r)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        idmap_free(r->ids[side]);
        mem_free(r->number[side]);
    }
    event_log_release(&r->log);
}

/* Reads the rows of `take` into r->log and groups those of known users. */
static int read_known(struct reading *r, const struct dataset *d, const struct events_file *file, enum events_take take,
                      struct interactions *pairs, size_t *n_read, struct err *e)
{
    const struct strtab *known[2] = {&d->user_ids, &d->item_ids};
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        r->ids[side] = idmap_new();
        if (r->ids[side] == NULL) {
            return err_nomem(e);
        }
    }
    if (event_log_read(&r->log, file, take, r->ids[SIDE_USER], r->ids[SIDE_ITEM], e) < 0) {
        return -1;
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        r->number[side] = ids_translate(r->ids[side], known[side]);
        if (r->number[side] == NULL) {
            return err_nomem(e);
        }
    }
    *n_read = r->log.n;
    size_t n_users = d->n_users + idmap_count(r->ids[SIDE_USER]); /* no number is higher */
    if (interactions_group(pairs, &r->log, r->number[SIDE_USER], n_users, e) < 0) {
        return -1;
    }
    pairs->n = pairs->start[d->n_users]; /* unknown users come behind */
    for (size_t i = 0; i < pairs->n; i++) {
        pairs->item[i] = r->number[SIDE_ITEM][pairs->item[i]];
    }
    return 0;
}

static void drop_times(struct interactions *pairs)
{
    mem_free(pairs->time);
    pairs->time = NULL;
}

static struct csv_options format_of(const struct train_config *config)
{
    return (struct csv_options){.delimiter = config->data.delimiter,
                                .columns =
                                    config->data.header ? NULL : (const char *const *)config->data.columns_events,
                                .max_bad_rows = config->data.max_bad_rows};
}

int dataset_read_pairs(const struct dataset *d, const struct train_config *config, const char *path,
                       struct interactions *pairs, struct err *e)
{
    const struct events_config columns = {.user = config->data.events.user, .item = config->data.events.item};
    struct events_file file = {path, &columns, format_of(config)};
    struct reading r = {0};
    size_t read = 0, known = 0;
    *pairs = (struct interactions){0};
    int result = read_known(&r, d, &file, EVENTS_POSITIVE, pairs, &read, e);
    if (result == 0) {
        interactions_drop_outside(pairs, d->n_users, d->n_items);
        known = pairs->n;
        result = interactions_make_sets(pairs, &d->train, d->n_users, d->n_items, d->n_items, NULL, e);
    }
    if (result == 0 && known == 0) {
        result = err_set(e,
                         "%s: none of its %zu pairs has a user and an item of %s: check that both files write ids "
                         "the same way",
                         path, read, config->data.events.path);
    } else if (result == 0 && pairs->n == 0) {
        result = err_set(e, "%s: its users have all of its pairs as train events: nothing is left for negatives", path);
    }
    if (result == 0) {
        log_info("%s: %zu pairs for negatives; %zu repeat another or are train events", path, pairs->n,
                 known - pairs->n);
    }
    if (result == 0 && known < read) {
        log_warn("%s: %zu of %zu pairs name a user or an item that the data does not have: left out", path,
                 read - known, read);
    }
    if (result < 0) {
        interactions_release(pairs);
    }
    reading_release(&r);
    return result;
}

int dataset_read_exposed(struct dataset *d, const struct train_config *config, const int64_t *before, struct err *e)
{
    struct events_config columns = config->data.events;
    columns.weight = NULL;
    columns.time = before != NULL ? columns.time : NULL;
    struct events_file file = {columns.path, &columns, format_of(config)};
    file.format.quiet = true; /* the first reading has told of bad rows */
    struct reading r = {0};
    struct interactions *exposed = &d->exposed;
    size_t read = 0;
    int result = read_known(&r, d, &file, EVENTS_EXPOSED, exposed, &read, e);
    if (result == 0) {
        interactions_drop_outside(exposed, d->n_users, d->n_items);
        if (before != NULL) {
            interactions_drop_late(exposed, d->n_users, before);
        }
        drop_times(exposed);
        result = interactions_make_sets(exposed, &d->train, d->n_users, d->n_items, d->n_items, NULL, e);
    }
    if (result == 0 && exposed->n == 0) {
        log_warn("%s: negatives.allow_exposed: no row with a label below %g is left to be a negative (%zu there are; "
                 "those of unknown users or items, of the test period, and of train pairs do not count)",
                 columns.path, columns.label_min, read);
    } else if (result == 0) {
        log_info("%s: %zu pairs exposed without success, of %zu rows", columns.path, exposed->n, read);
    }
    reading_release(&r);
    return result;
}
