/*
 * A user's share in a dimension is a short list of parts: for each value the relevant items, hits and gain. On the user
 * side all of the user's relevant items go to each of the user's values, on the item side each goes to its own. From then
 * on both are the same: recall and ndcg of a part, means of them over users.
 *
 * A dimension is walked twice: first to see which values have events at all, and how many, then to sum the chosen ones by
 * bootstrap group.
 */
#include "train/slices.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/feature_pack.h"
#include "core/mem.h"

static const char new_users[] = "new_users", new_items[] = "new_items", popularity[] = "popularity";

/* --- dimensions -----------------------------------------------------------------------------------------------------*/

void slicing_release(struct slicing *s)
{
    for (size_t i = 0; i < s->n; i++) {
        mem_free(s->dimensions[i].owned);
        mem_free(s->dimensions[i].owned_start);
    }
    *s = (struct slicing){0};
}

/* A new dimension with an index of its own, or NULL. */
static struct dimension *add_owned(struct slicing *s, enum side side, const char *by, uint32_t n_values, size_t n_rows)
{
    int32_t *index = mem_array(n_rows, sizeof *index);
    if (index == NULL) {
        return NULL;
    }
    struct dimension *d = &s->dimensions[s->n++];
    *d = (struct dimension){side, by, n_values, .index = index, .owned = index, .outside = -1};
    return d;
}

static int compare_counts(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Least and most events of an item in each group; sorted counts [n]. An item is where the middle of the events of all
 * items like it lies. A group without an item has least > most. */
static void find_groups(struct dimension *d, const uint32_t *sorted, size_t n)
{
    double total = 0, before = 0;
    for (size_t i = 0; i < n; i++) {
        total += sorted[i];
    }
    for (size_t g = 0; g < POPULARITY_GROUPS; g++) {
        d->events[g][0] = UINT32_MAX;
        d->events[g][1] = 0;
    }
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && sorted[next] == sorted[i]; next++) {}
        double mass = (double)sorted[i] * (double)(next - i);
        if (mass > 0) {
            size_t g = (size_t)((before + mass / 2) / total * POPULARITY_GROUPS);
            d->events[g][0] = sorted[i] < d->events[g][0] ? sorted[i] : d->events[g][0];
            d->events[g][1] = sorted[i];
        }
        before += mass;
    }
}

static int add_popularity(struct slicing *s, const uint32_t *item_count, size_t n_items, struct err *e)
{
    uint32_t *sorted = mem_array(n_items, sizeof *sorted);
    struct dimension *d = sorted == NULL ? NULL : add_owned(s, SIDE_ITEM, popularity, POPULARITY_GROUPS, n_items);
    if (d == NULL) {
        mem_free(sorted);
        return err_nomem(e);
    }
    memcpy(sorted, item_count, n_items * sizeof *sorted);
    qsort(sorted, n_items, sizeof *sorted, compare_counts);
    find_groups(d, sorted, n_items);
    for (size_t i = 0; i < n_items; i++) {
        d->owned[i] = -1; /* new items have a dimension of their own */
        for (int32_t g = 0; g < POPULARITY_GROUPS; g++) {
            if (item_count[i] >= d->events[g][0] && item_count[i] <= d->events[g][1]) {
                d->owned[i] = g;
            }
        }
    }
    mem_free(sorted);
    return 0;
}

int slicing_add_events(struct slicing *s, const size_t *user_start, size_t n_users, const uint32_t *item_count,
                       size_t n_items, struct err *e)
{
    struct dimension *users = add_owned(s, SIDE_USER, new_users, 2, n_users);
    struct dimension *items = users == NULL ? NULL : add_owned(s, SIDE_ITEM, new_items, 2, n_items);
    if (items == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < n_users; u++) {
        users->owned[u] = user_start[u] == user_start[u + 1];
    }
    for (size_t i = 0; i < n_items; i++) {
        items->owned[i] = item_count[i] == 0;
    }
    items->outside = 1;
    return add_popularity(s, item_count, n_items, e);
}

static bool is_listed(char *const *names, const char *name)
{
    for (; *names != NULL; names++) {
        if (strcmp(*names, name) == 0) {
            return true;
        }
    }
    return false;
}

bool slicing_is_category(const struct feature *f)
{
    return f->type == FEATURE_ONEHOT || (f->type == FEATURE_CATEGORICAL && f->buckets == 0);
}

bool slicing_wants(const struct feature *f, char *const *names)
{
    return slicing_is_category(f) &&
           (names == NULL ? f->vocab.count <= SLICE_LOW_CARDINALITY : is_listed(names, f->name));
}

static struct dimension *add_feature(struct slicing *s, enum side side, const struct feature *f, const int32_t *index,
                                     const size_t *start)
{
    struct dimension *d = &s->dimensions[s->n++];
    *d = (struct dimension){
        .side = side,
        .by = f->name,
        .n_values = f->rows,
        .index = index,
        .start = start,
        .feature = f,
        .outside = -1,
    };
    return d;
}

void slicing_add_values(struct slicing *s, enum side side, const struct feature *f, int32_t *index, size_t *start)
{
    struct dimension *d = add_feature(s, side, f, index, start);
    d->owned = index;
    d->owned_start = start;
}

int slicing_add_features(struct slicing *s, enum side side, const struct feature_rows *rows, char *const *names)
{
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        struct feature_column own;
        if (!slicing_wants(f, names)) {
            continue;
        }
        if (rows->pack == NULL) {
            add_feature(s, side, f, rows->columns[i].index, feature_is_bag(f) ? rows->columns[i].start : NULL);
        } else if (feature_rows_column(rows, i, &own) == 0) {
            slicing_add_values(s, side, f, own.index, own.start);
        } else {
            return -1;
        }
    }
    return 0;
}

static const int32_t *values_of(const struct dimension *d, size_t row, size_t *n)
{
    static const int32_t missing = SCHEMA_MISSING;
    *n = 1;
    if (d->start == NULL) {
        return d->index + row;
    }
    *n = d->start[row + 1] - d->start[row];
    if (*n == 0) {
        *n = 1;
        return &missing;
    }
    return d->index + d->start[row];
}

static void make_label(const struct dimension *d, uint32_t value, char label[SLICE_LABEL])
{
    if (d->feature == NULL) {
        if (d->by == popularity) {
            snprintf(label, SLICE_LABEL, "%u", value + 1);
        } else {
            snprintf(label, SLICE_LABEL, "%s", value == 1 ? "new" : "known");
        }
        return;
    }
    if (value < SCHEMA_FIRST) {
        snprintf(label, SLICE_LABEL, "%s", value == SCHEMA_UNKNOWN ? "(unknown)" : "(missing)");
        return;
    }
    size_t n;
    const char *text = strtab_get(&d->feature->vocab, value - SCHEMA_FIRST, &n);
    if (n >= SLICE_LABEL) {
        n = SLICE_LABEL - 1;
        while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) { /* not in the middle of a UTF-8 sequence */
            n--;
        }
    }
    memcpy(label, text, n);
    label[n] = '\0';
}

/* --- parts of a user ------------------------------------------------------------------------------------------------*/

struct part {
    uint32_t value, events, hits;
    double gain;
};

struct walk {
    const struct dimension *d;
    const struct outcomes *o;
    uint32_t k;
    double *ideal;      /* [k + 1] */
    struct part *parts; /* [n_values], n of them are the current user's */
    size_t n;
    uint32_t *slot; /* [n_values] 1 + position among the parts, 0: none; 0 between users */
};

static int walk_init(struct walk *w, const struct dimension *d, const struct outcomes *o, size_t cutoff)
{
    *w = (struct walk){.d = d, .o = o, .k = o->at.k[cutoff]};
    w->ideal = mem_array(w->k + 1, sizeof *w->ideal);
    w->parts = mem_array(d->n_values, sizeof *w->parts);
    w->slot = mem_array(d->n_values, sizeof *w->slot);
    if (w->ideal == NULL || w->parts == NULL || w->slot == NULL) {
        return -1;
    }
    for (uint32_t rank = 1; rank <= w->k; rank++) {
        w->ideal[rank] = w->ideal[rank - 1] + metric_gain(rank);
    }
    return 0;
}

static void walk_release(struct walk *w)
{
    mem_free(w->ideal);
    mem_free(w->parts);
    mem_free(w->slot);
}

static struct part *part_of(struct walk *w, uint32_t value)
{
    if (w->slot[value] == 0) {
        w->parts[w->n++] = (struct part){.value = value};
        w->slot[value] = (uint32_t)w->n;
    }
    return &w->parts[w->slot[value] - 1];
}

static bool came_before(const int32_t *values, size_t i)
{
    for (size_t j = 0; j < i; j++) {
        if (values[j] == values[i]) {
            return true;
        }
    }
    return false;
}

/* Adds a relevant item to the parts of these values; each distinct value once. */
static void add_found(struct walk *w, const int32_t *values, size_t n, uint32_t rank)
{
    bool hit = rank > 0 && rank <= w->k;
    for (size_t i = 0; i < n; i++) {
        if (values[i] < 0 || came_before(values, i)) {
            continue;
        }
        struct part *p = part_of(w, (uint32_t)values[i]);
        p->events++;
        p->hits += hit;
        p->gain += hit ? metric_gain(rank) : 0.0;
    }
}

/* The parts of one user. */
static void walk_user(struct walk *w, size_t user)
{
    const struct outcomes *o = w->o;
    bool by_user = w->d->side == SIDE_USER;
    size_t n_found = o->start[user + 1] - o->start[user];
    size_t n = 0;
    const int32_t *values = by_user ? values_of(w->d, o->user[user], &n) : NULL;
    w->n = 0;
    for (size_t j = o->start[user]; j < o->start[user + 1]; j++) {
        values = by_user ? values : values_of(w->d, o->found[j].item, &n);
        add_found(w, values, n, o->found[j].rank);
    }
    values = by_user ? values : &w->d->outside;
    n = by_user ? n : 1;
    for (size_t j = n_found; j < o->n_relevant[user]; j++) { /* outside the catalogue: never found */
        add_found(w, values, n, 0);
    }
    for (size_t i = 0; i < w->n; i++) {
        w->slot[w->parts[i].value] = 0;
    }
}

static double part_recall(const struct part *p)
{
    return (double)p->hits / p->events;
}

static double part_ndcg(const struct walk *w, const struct part *p)
{
    return p->gain / w->ideal[p->events < w->k ? p->events : w->k];
}

/* --- slices of a dimension ------------------------------------------------------------------------------------------*/

/* Means of every value, all [n_values] of them. */
static struct slice *sum_values(struct walk *w)
{
    struct slice *all = mem_array(w->d->n_values, sizeof *all);
    for (size_t i = 0; all != NULL && i < w->o->n_users; i++) {
        walk_user(w, i);
        for (size_t j = 0; j < w->n; j++) {
            const struct part *p = &w->parts[j];
            struct slice *s = &all[p->value];
            s->users++;
            s->events += p->events;
            s->recall += part_recall(p);
            s->ndcg += part_ndcg(w, p);
        }
    }
    return all;
}

static int by_events(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    return x->events != y->events ? (x->events < y->events ? 1 : -1) : (x->value > y->value) - (x->value < y->value);
}

static int by_value(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

/* Keeps the slices that have events, at most SLICE_MAX_VALUES of them; returns how many. */
static size_t choose_slices(const struct dimension *d, struct slice *all)
{
    size_t n = 0;
    for (uint32_t v = 0; v < d->n_values; v++) {
        if (all[v].events > 0) {
            all[n] = all[v];
            all[n].dimension = d;
            all[n].value = v;
            all[n].recall /= (double)all[n].users;
            all[n].ndcg /= (double)all[n].users;
            all[n].recall_ci = all[n].ndcg_ci = (struct interval){NAN, NAN};
            make_label(d, v, all[n].label);
            n++;
        }
    }
    if (n > SLICE_MAX_VALUES) {
        qsort(all, n, sizeof *all, by_events);
        n = SLICE_MAX_VALUES;
        qsort(all, n, sizeof *all, by_value);
    }
    return n;
}

/* Interval of column `column` over column `users` of the replicates [BOOTSTRAP_REPLICATES, columns]. */
static struct interval ratio_interval(const float *replicates, size_t columns, size_t column, size_t users,
                                      double *values)
{
    for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
        values[r] = (double)replicates[r * columns + column] / (double)replicates[r * columns + users];
    }
    return bootstrap_interval(values);
}

/* Three columns a slice: recall, ndcg, users. */
static int make_intervals(struct walk *w, const struct bootstrap *b, struct slice *slices, size_t n)
{
    size_t columns = 3 * n;
    float *sums = mem_array(b->groups * columns, sizeof *sums);
    float *replicates = mem_array(BOOTSTRAP_REPLICATES * columns, sizeof *replicates);
    double *values = mem_array(BOOTSTRAP_REPLICATES, sizeof *values);
    uint32_t *column = mem_array(w->d->n_values, sizeof *column); /* 1 + slice of a value, 0: none */
    int result = sums == NULL || replicates == NULL || values == NULL || column == NULL ? -1 : 0;
    for (size_t i = 0; result == 0 && i < n; i++) {
        column[slices[i].value] = (uint32_t)i + 1;
    }
    for (size_t i = 0; result == 0 && i < w->o->n_users; i++) {
        walk_user(w, i);
        for (size_t j = 0; j < w->n; j++) {
            const struct part *p = &w->parts[j];
            if (column[p->value] > 0) {
                float *sum = sums + i % b->groups * columns + 3 * (size_t)(column[p->value] - 1);
                sum[0] += (float)part_recall(p);
                sum[1] += (float)part_ndcg(w, p);
                sum[2] += 1.0F;
            }
        }
    }
    if (result == 0) {
        bootstrap_sums(b, sums, columns, replicates);
    }
    for (size_t i = 0; result == 0 && i < n; i++) {
        if (slices[i].users >= SLICE_MIN_USERS) {
            slices[i].recall_ci = ratio_interval(replicates, columns, 3 * i, 3 * i + 2, values);
            slices[i].ndcg_ci = ratio_interval(replicates, columns, 3 * i + 1, 3 * i + 2, values);
        }
    }
    mem_free(sums);
    mem_free(replicates);
    mem_free(values);
    mem_free(column);
    return result;
}

/* Appends the slices of one dimension. */
static int add_slices(const struct dimension *d, const struct outcomes *o, size_t cutoff, const struct bootstrap *b,
                      struct slice **slices, size_t *n)
{
    struct walk w;
    int result = walk_init(&w, d, o, cutoff);
    struct slice *all = result == 0 ? sum_values(&w) : NULL;
    size_t chosen = all == NULL ? 0 : choose_slices(d, all);
    struct slice *longer = all == NULL ? NULL : mem_resize(*slices, *n, *n + chosen, sizeof **slices);
    result = longer == NULL ? -1 : 0;
    if (longer != NULL) {
        *slices = longer;
        memcpy(longer + *n, all, chosen * sizeof *all);
        result = b == NULL || chosen == 0 ? 0 : make_intervals(&w, b, longer + *n, chosen);
        *n += chosen;
    }
    mem_free(all);
    walk_release(&w);
    return result;
}

int slices_of(const struct slicing *s, const struct outcomes *o, size_t cutoff, const struct bootstrap *b,
              struct slice **slices, size_t *n, struct err *e)
{
    *slices = NULL;
    *n = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (add_slices(&s->dimensions[i], o, cutoff, b, slices, n) < 0) {
            mem_free(*slices);
            *slices = NULL;
            *n = 0;
            return err_nomem(e);
        }
    }
    return 0;
}
