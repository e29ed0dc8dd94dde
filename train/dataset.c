/*
 * The order of the steps is what keeps the test part out of everything learned:
 *
 *   events      read once; users and items get numbers in order of appearance
 *   users       numbered for good (they are all known now); events grouped by user, in time order
 *   split       train and test; from here on only train counts are looked at
 *   learn       users and items tables, first pass: vocabularies and statistics from rows with train events; the items
 *               table adds to the catalogue
 *   items       numbered for good; test pairs become sets without what is in train
 *   schema      learned parts joined with what the configuration declares
 *   encode      users and items tables, second pass, through features_add
 *
 * Rejected: splitting while reading (a user's last event is known only at the end), and one numbering of ids from the
 * start (the bundle wants them sorted, and test-only items behind the catalogue).
 */
#include "train/dataset.h"

#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/dataset_events.h"
#include "train/dataset_ids.h"
#include "train/dataset_pairs.h"
#include "train/dataset_schema.h"
#include "train/dataset_side.h"
#include "train/warm_start.h"

struct owned {
    struct buf ids[2];
    struct buf vocab[2][SCHEMA_MAX_FEATURES];
};

struct loader {
    const struct train_config *config;
    const struct schema *like; /* NULL: nobody */
    struct dataset *d;
    struct side_state sides[2];
    struct event_log log, test_log;
    bool *catalogue;      /* items: in the items file or in train */
    int64_t *test_begins; /* [n_users] with allow_exposed and a cut test part: exposures from then on do not count */
};

static struct csv_options format_of(const struct train_config *config, char **columns)
{
    return (struct csv_options){.delimiter = config->data.delimiter,
                                .columns = config->data.header ? NULL : (const char *const *)columns,
                                .max_bad_rows = config->data.max_bad_rows};
}

/* --- events --------------------------------------------------------------------------------------------------------*/

/* Reads a file of events; with `columns` as the configuration has them or fewer. */
static int read_events(struct loader *l, struct event_log *log, const char *path, const struct events_config *columns,
                       struct err *e)
{
    struct events_file file = {path, columns, format_of(l->config, l->config->data.columns_events)};
    if (event_log_read(log, &file, EVENTS_POSITIVE, l->sides[SIDE_USER].ids, l->sides[SIDE_ITEM].ids, e) < 0) {
        return -1;
    }
    l->d->bad_rows += log->bad_rows;
    l->d->dropped_by_label += log->dropped_by_label;
    l->d->dropped_by_weight += log->dropped_by_weight;
    if (log->n == 0) {
        return err_set(e, "%s: no usable row (%llu below the label's minimum, %llu of weight 0, %llu bad ones)", path,
                       (unsigned long long)log->dropped_by_label, (unsigned long long)log->dropped_by_weight,
                       (unsigned long long)log->bad_rows);
    }
    return 0;
}

static int number_users(struct loader *l, struct err *e)
{
    struct side_state *users = &l->sides[SIDE_USER];
    struct owned *owned = l->d->owned;
    users->rank = mem_array(idmap_count(users->ids), sizeof *users->rank);
    if (users->rank == NULL) {
        return err_nomem(e);
    }
    if (ids_number(users->ids, NULL, users->rank, &owned->ids[SIDE_USER], &l->d->user_ids, e) < 0) {
        return -1;
    }
    l->d->n_users = l->d->user_ids.count;
    return 0;
}

/* Cuts the test part off `all`, or says why it would be empty. */
static int cut_test(struct loader *l, const struct interactions *all, struct err *e)
{
    const struct split_config *split = &l->config->data.split;
    const char *path = l->config->data.events.path;
    int result = -1;
    bool *held_out = mem_array(all->n, sizeof *held_out);
    if (held_out == NULL) {
        return err_nomem(e);
    }
    if (split->method == SPLIT_LEAVE_LAST) {
        if (all->time == NULL) {
            log_warn("%s: no time column is configured: split leave_last takes each user's last events in file order",
                     path);
        }
        mark_last(all, l->d->n_users, split->n, held_out);
    } else if (all->time == NULL) {
        err_set(e, "data.split: method time needs a time column: set data.events.time");
        goto done;
    } else if (!mark_latest(all, split->fraction, held_out)) {
        err_set(e, "%s: all events have the same time, so split method time leaves no test rows; use leave_last", path);
        goto done;
    }
    result = interactions_partition(all, held_out, l->d->n_users, &l->d->train, &l->d->test, e);
    if (result == 0 && l->d->test.n == 0) {
        result = err_set(e,
                         "%s: no test rows: no user has more than %u events; use a smaller data.split.n, or method "
                         "none",
                         path, split->n);
    }
done:
    mem_free(held_out);
    return result;
}

/* When each user's test period begins: by his own first test event, or with method time by the first of all. */
static int find_test_begins(struct loader *l, struct err *e)
{
    const struct dataset *d = l->d;
    int64_t first_of_all = INT64_MAX;
    l->test_begins = mem_array(d->n_users, sizeof *l->test_begins);
    if (l->test_begins == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < d->n_users; u++) {
        bool any = d->test.start[u] < d->test.start[u + 1];
        l->test_begins[u] = any ? d->test.time[d->test.start[u]] : INT64_MAX;
        first_of_all = l->test_begins[u] < first_of_all ? l->test_begins[u] : first_of_all;
    }
    for (size_t u = 0; u < d->n_users && l->config->data.split.method == SPLIT_TIME; u++) {
        l->test_begins[u] = first_of_all;
    }
    return 0;
}

/* Whether every test event is later than every train event. */
static bool test_is_later(const struct dataset *d)
{
    int64_t latest = INT64_MIN, first = INT64_MAX;
    for (size_t i = 0; i < d->train.n; i++) {
        latest = d->train.time[i] > latest ? d->train.time[i] : latest;
    }
    for (size_t i = 0; i < d->test.n; i++) {
        first = d->test.time[i] < first ? d->test.time[i] : first;
    }
    return first > latest;
}

static void choose_cut(struct loader *l)
{
    struct dataset *d = l->d;
    const struct split_config *split = &l->config->data.split;
    bool timed = d->train.time != NULL;
    d->cut = CUT_RANDOM;
    if (split->method == SPLIT_LEAVE_LAST) {
        d->cut = CUT_LAST;
        d->cut_last = split->n;
    } else if (timed && (split->method != SPLIT_FILE || test_is_later(d))) {
        d->cut = CUT_LATEST;
    }
}

static int split_events(struct loader *l, struct err *e)
{
    struct dataset *d = l->d;
    const uint32_t *rank = l->sides[SIDE_USER].rank;
    enum split_method method = l->config->data.split.method;
    if (method == SPLIT_NONE || method == SPLIT_FILE) {
        if (interactions_group(&d->train, &l->log, rank, d->n_users, e) < 0) {
            return -1;
        }
        l->test_log.timed = d->train.time != NULL;
        return interactions_group(&d->test, &l->test_log, rank, d->n_users, e); /* empty for method none */
    }
    struct interactions all;
    if (interactions_group(&all, &l->log, rank, d->n_users, e) < 0) {
        return -1;
    }
    int result = cut_test(l, &all, e);
    interactions_release(&all);
    if (result == 0 && l->config->negatives.allow_exposed) {
        result =
            d->test.time == NULL
                ? err_set(e, "negatives.allow_exposed: with data.split.method leave_last the events need times, to "
                             "leave out what was shown in the test period: set data.events.time")
                : find_test_begins(l, e);
    }
    return result;
}

static int count_train(struct loader *l, struct err *e)
{
    struct dataset *d = l->d;
    struct side_state *users = &l->sides[SIDE_USER], *items = &l->sides[SIDE_ITEM];
    users->count = mem_array(d->n_users, sizeof *users->count);
    items->count = mem_array(idmap_count(items->ids), sizeof *items->count);
    if (users->count == NULL || items->count == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < d->n_users; u++) {
        users->count[u] = (uint32_t)(d->train.start[u + 1] - d->train.start[u]);
    }
    for (size_t i = 0; i < d->train.n; i++) {
        items->count[d->train.item[i]]++;
    }
    return 0;
}

/* --- items, parts, schema ------------------------------------------------------------------------------------------*/

static int number_items(struct loader *l, size_t n_counted, struct err *e)
{
    struct dataset *d = l->d;
    struct side_state *items = &l->sides[SIDE_ITEM];
    struct owned *owned = d->owned;
    size_t n = idmap_count(items->ids);
    items->rank = mem_array(n, sizeof *items->rank);
    l->catalogue = mem_array(n, sizeof *l->catalogue);
    if (items->rank == NULL || l->catalogue == NULL) {
        return err_nomem(e);
    }
    for (uint32_t i = 0; i < n; i++) {
        l->catalogue[i] = side_has_row(items, i) || (i < n_counted && items->count[i] > 0);
    }
    if (ids_number(items->ids, l->catalogue, items->rank, &owned->ids[SIDE_ITEM], &d->item_ids, e) < 0) {
        return -1;
    }
    d->n_items = d->item_ids.count;
    d->item_count = mem_array(d->n_items, sizeof *d->item_count);
    if (d->item_count == NULL) {
        return err_nomem(e);
    }
    for (uint32_t i = 0; i < n_counted; i++) {
        if (l->catalogue[i]) {
            d->item_count[items->rank[i]] = items->count[i];
        }
    }
    return 0;
}

static int finish_parts(struct loader *l, struct err *e)
{
    struct dataset *d = l->d;
    const struct side_state *items = &l->sides[SIDE_ITEM];
    for (size_t i = 0; i < d->train.n; i++) {
        d->train.item[i] = items->rank[d->train.item[i]];
    }
    for (size_t i = 0; i < d->test.n; i++) {
        d->test.item[i] = items->rank[d->test.item[i]];
    }
    d->unreachable = mem_array(d->n_users, sizeof *d->unreachable);
    if (d->unreachable == NULL) {
        return err_nomem(e);
    }
    return interactions_make_sets(&d->test, &d->train, d->n_users, d->n_items, idmap_count(items->ids), d->unreachable,
                                  e);
}

static int finish_schema(struct loader *l, struct err *e)
{
    struct dataset *d = l->d;
    struct owned *owned = d->owned;
    struct id_counts counts[2] = {{&d->user_ids, l->sides[SIDE_USER].count}, {&d->item_ids, d->item_count}};
    d->schema.similarity = l->config->similarity;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct side_state *s = &l->sides[side];
        struct tower_spec *spec = &d->schema.towers[side];
        spec->network = s->tower->network;
        if (learner_finish(s->learner, (enum side)side, &counts[side], &counts[SIDE_ITEM], spec, owned->vocab[side],
                           e) < 0) {
            return -1;
        }
    }
    if (l->like != NULL && warm_start_statistics(&d->schema, l->like, e) < 0) {
        return -1;
    }
    return schema_finish(&d->schema, e);
}

static int encode(struct dataset *d, const struct side_state sides[2], struct err *e)
{
    const struct strtab *ids[2] = {&d->user_ids, &d->item_ids};
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        if (side_encode(&sides[side], ids[side], &d->schema.towers[side], &d->rows[side], e) < 0) {
            return -1;
        }
    }
    return 0;
}

int dataset_map_history(struct dataset *d, struct err *e)
{
    const struct tower_spec *spec = &d->schema.towers[SIDE_USER];
    d->history = -1;
    for (uint32_t i = 0; i < spec->n_features; i++) {
        if (spec->features[i].type == FEATURE_SEQUENCE) {
            d->history = (int)i;
        }
    }
    if (d->history < 0) {
        return 0;
    }
    d->history_row = mem_array(d->n_items, sizeof *d->history_row);
    if (d->history_row == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < d->n_items; i++) {
        size_t length;
        const char *id = strtab_get(&d->item_ids, i, &length);
        d->history_row[i] = feature_lookup(&spec->features[d->history], id, length);
    }
    return 0;
}

/* --- the summary ---------------------------------------------------------------------------------------------------*/

static void summarize(const struct loader *l, size_t n_test_rows)
{
    const struct dataset *d = l->d;
    unsigned long long outside = 0;
    for (size_t u = 0; u < d->n_users; u++) {
        outside += d->unreachable[u];
    }
    log_info("data: %zu users, %zu items, %zu train events, %zu test pairs; %llu rows dropped by label, %llu bad rows",
             d->n_users, d->n_items, d->train.n, d->test.n, (unsigned long long)d->dropped_by_label,
             (unsigned long long)d->bad_rows);
    if (d->dropped_by_weight > 0) {
        log_info("%llu events of weight 0 left out", (unsigned long long)d->dropped_by_weight);
    }
    if (outside > 0) {
        log_warn("%llu test pairs name items that are neither in train nor in the items file: they count as missed",
                 outside);
    }
    size_t left_out = n_test_rows - d->test.n - (size_t)outside;
    if (left_out > 0) {
        log_info("%zu test rows repeat a pair of train or of test: left out%s", left_out,
                 d->test.n == 0 ? "; nothing is left to evaluate" : "");
    }
}

/* --- all of it -----------------------------------------------------------------------------------------------------*/

/* Before anything large is read: the columns that a side's features name are in its own table. One that only the other
 * side's table has would be early fusion, and the message says so. */
static int check_columns(const struct side_state *own, const struct side_state *other, struct err *e)
{
    const char *word = side_words[own->side];
    struct csv *table = NULL;
    struct csv *others = NULL;
    int result = -1;
    if (own->table->path == NULL) {
        return 0;
    }
    table = csv_open(own->table->path, &own->format, e);
    others = other->table->path == NULL ? NULL : csv_open(other->table->path, &other->format, e);
    if (table == NULL || (others == NULL && other->table->path != NULL)) {
        goto out;
    }
    for (size_t i = 0; i < own->tower->n_features; i++) {
        const struct feature_config *f = &own->tower->features[i];
        bool has_column = f->type != FEATURE_ID && f->type != FEATURE_SEQUENCE;
        if (has_column && others != NULL && csv_column(table, f->name, NULL) < 0 &&
            csv_column(others, f->name, NULL) >= 0) {
            err_set(e, "line %d: %s_tower feature %s is a column of %s, which the %s tower must not read: %s", f->line,
                    word, f->name, other->table->path, word, TRAIN_EARLY_FUSION);
            goto out;
        }
        if (has_column && csv_column(table, f->name, e) < 0) {
            err_prefix(e, "line %d: %s_tower feature %s", f->line, word, f->name);
            goto out;
        }
    }
    result = 0;
out:
    csv_close(table);
    csv_close(others);
    return result;
}

static int load(struct loader *l, struct err *e)
{
    const struct train_config *config = l->config;
    if (check_columns(&l->sides[SIDE_USER], &l->sides[SIDE_ITEM], e) < 0 ||
        check_columns(&l->sides[SIDE_ITEM], &l->sides[SIDE_USER], e) < 0) {
        return -1;
    }
    struct events_config test_columns = config->data.events;
    test_columns.weight = NULL; /* weights are of the loss: test pairs have none */
    if (read_events(l, &l->log, config->data.events.path, &config->data.events, e) < 0 ||
        (config->data.split.method == SPLIT_FILE &&
         read_events(l, &l->test_log, config->data.split.test, &test_columns, e) < 0)) {
        return -1;
    }
    size_t n_in_events[2] = {idmap_count(l->sides[SIDE_USER].ids), idmap_count(l->sides[SIDE_ITEM].ids)};
    if (number_users(l, e) < 0 || split_events(l, e) < 0 || count_train(l, e) < 0) {
        return -1;
    }
    choose_cut(l);
    size_t n_test_rows = l->d->test.n;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        if (side_learn(&l->sides[side], e) < 0) {
            return -1;
        }
        l->d->bad_rows += l->sides[side].bad_rows;
        side_warn_without_row(&l->sides[side], n_in_events[side]);
    }
    if (number_items(l, n_in_events[SIDE_ITEM], e) < 0 || finish_parts(l, e) < 0 || finish_schema(l, e) < 0 ||
        encode(l->d, l->sides, e) < 0 || dataset_map_history(l->d, e) < 0) {
        return -1;
    }
    summarize(l, n_test_rows);
    if (config->negatives.hard.source == HARD_FILE &&
        dataset_read_pairs(l->d, config, config->negatives.hard.file, &l->d->hard, e) < 0) {
        return -1;
    }
    if (!config->negatives.allow_exposed) {
        return 0;
    }
    log_warn(
        "negatives.exposed: what was shown and not clicked was good enough to be recalled; as a negative it usually "
        "costs recall: compare with a model without it");
    return dataset_read_exposed(l->d, config, l->test_begins, e);
}

static struct side_state side_init(const struct train_config *config, enum side side)
{
    bool user = side == SIDE_USER;
    char **columns = user ? config->data.columns_users : config->data.columns_items;
    return (struct side_state){.side = side,
                               .table = user ? &config->data.users : &config->data.items,
                               .tower = user ? &config->user_tower : &config->item_tower,
                               .format = format_of(config, columns),
                               .ids = idmap_new()};
}

static void loader_release(struct loader *l)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct side_state *s = &l->sides[side];
        idmap_free(s->ids);
        mem_free(s->count);
        mem_free(s->rank);
        mem_free(s->line);
        learner_free(s->learner);
    }
    event_log_release(&l->log);
    event_log_release(&l->test_log);
    mem_free(l->catalogue);
    mem_free(l->test_begins);
}

struct dataset *dataset_load(const struct train_config *config, struct err *e)
{
    return dataset_load_like(config, NULL, e);
}

struct dataset *dataset_load_like(const struct train_config *config, const struct schema *like, struct err *e)
{
    struct dataset *d = mem_array(1, sizeof *d);
    struct loader l = {.config = config, .like = like, .d = d};
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        l.sides[side] = side_init(config, (enum side)side);
    }
    if (d == NULL || (d->owned = mem_array(1, sizeof(struct owned))) == NULL || l.sides[SIDE_USER].ids == NULL ||
        l.sides[SIDE_ITEM].ids == NULL) {
        err_nomem(e);
    } else if (config->user_tower.n_features > SCHEMA_MAX_FEATURES ||
               config->item_tower.n_features > SCHEMA_MAX_FEATURES) {
        err_set(e, "more than %d features in a tower", SCHEMA_MAX_FEATURES);
    } else if (load(&l, e) == 0) {
        loader_release(&l);
        return d;
    }
    loader_release(&l);
    dataset_free(d);
    return NULL;
}

void dataset_free(struct dataset *d)
{
    if (d == NULL) {
        return;
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        if (d->rows[side].spec != NULL) {
            feature_rows_release(&d->rows[side]);
        }
    }
    schema_release(&d->schema);
    interactions_release(&d->train);
    interactions_release(&d->test);
    interactions_release(&d->exposed);
    interactions_release(&d->hard);
    mem_free(d->unreachable);
    mem_free(d->item_count);
    mem_free(d->history_row);
    struct owned *owned = d->owned;
    for (int side = SIDE_USER; owned != NULL && side <= SIDE_ITEM; side++) {
        buf_release(&owned->ids[side]);
        for (size_t i = 0; i < SCHEMA_MAX_FEATURES; i++) {
            buf_release(&owned->vocab[side][i]);
        }
    }
    mem_free(owned);
    mem_free(d);
}
