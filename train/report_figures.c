#include "train/report_figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/topk.h"
#include "core/vecmath.h"
#include "train/projection.h"

enum { STREAM_SCORES = 0x5c04e5, STREAM_ITEMS = 0x17e35 }; /* of the random numbers */

/* --- scores -----------------------------------------------------------------------------------------------------------*/

struct scores {
    double *values; /* [n] */
    size_t n, capacity;
};

static int scores_add(struct scores *s, double value)
{
    if (mem_grow((void **)&s->values, &s->capacity, s->n, sizeof *s->values) < 0) {
        return -1;
    }
    s->values[s->n++] = value;
    return 0;
}

static bool part_has(const struct interactions *part, uint32_t user, uint32_t item)
{
    for (size_t i = part->start[user]; i < part->start[user + 1]; i++) {
        if (part->item[i] == item) {
            return true;
        }
    }
    return false;
}

/* A random item that the user has not met, or n_items after some tries: users may have met nearly all. */
static uint32_t draw_unknown(const struct dataset *d, struct rng *r, uint32_t user)
{
    for (int tries = 0; tries < 20; tries++) {
        uint32_t item = rng_below(r, (uint32_t)d->n_items);
        if (!part_has(&d->train, user, item) && !part_has(&d->test, user, item)) {
            return item;
        }
    }
    return (uint32_t)d->n_items;
}

struct counting {
    const struct dataset *d;
    const struct interactions *part;
    const float *item_vectors;
    size_t dim;
    struct rng rng;
    struct scores positives, random;
};

static int count_user(struct counting *c, uint32_t user, const float *vector)
{
    size_t first = c->part->start[user];
    size_t last = c->part->start[user + 1];
    first = last - first > FIGURE_POSITIVES ? last - FIGURE_POSITIVES : first;
    for (size_t i = first; i < last; i++) {
        const float *row = c->item_vectors + c->part->item[i] * c->dim;
        if (scores_add(&c->positives, (double)vec_dot(vector, row, c->dim)) < 0) {
            return -1;
        }
        for (int k = 0; k < FIGURE_RANDOM; k++) {
            uint32_t item = draw_unknown(c->d, &c->rng, user);
            row = c->item_vectors + item * c->dim;
            if (item < c->d->n_items && scores_add(&c->random, (double)vec_dot(vector, row, c->dim)) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

/* Users with an item in the part, evenly spaced. A new list, or NULL without memory. */
static uint32_t *choose_users(const struct dataset *d, const struct interactions *part, size_t *n)
{
    size_t with = 0;
    size_t seen = 0;
    for (size_t u = 0; u < d->n_users; u++) {
        with += part->start[u + 1] > part->start[u];
    }
    size_t wanted = with < FIGURE_USERS ? with : FIGURE_USERS;
    uint32_t *users = mem_array(wanted, sizeof *users);
    *n = 0;
    for (size_t u = 0; users != NULL && u < d->n_users && *n < wanted; u++) {
        if (part->start[u + 1] > part->start[u] && seen++ == *n * with / wanted) {
            users[(*n)++] = (uint32_t)u;
        }
    }
    return users;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Both sorted. */
static double auc_of(const struct scores *positives, const struct scores *random)
{
    double wins = 0;
    size_t below = 0;
    size_t upto = 0;
    for (size_t i = 0; i < positives->n; i++) {
        while (below < random->n && random->values[below] < positives->values[i]) {
            below++;
        }
        upto = upto > below ? upto : below;
        while (upto < random->n && random->values[upto] <= positives->values[i]) {
            upto++;
        }
        wins += (double)below + (double)(upto - below) / 2;
    }
    return wins / ((double)positives->n * (double)random->n);
}

static json_t *group_to_json(const struct scores *s, double low, double high)
{
    json_int_t counts[FIGURE_BINS] = {0};
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        double share = (s->values[i] - low) / (high - low);
        size_t bin = share > 0 ? (size_t)(share * FIGURE_BINS) : 0;
        counts[bin < FIGURE_BINS ? bin : FIGURE_BINS - 1]++;
        sum += s->values[i];
    }
    json_t *list = json_array();
    for (size_t i = 0; i < FIGURE_BINS; i++) {
        json_array_append_new(list, json_integer(counts[i]));
    }
    return json_pack("{s:I, s:f, s:o}", "n", (json_int_t)s->n, "mean", sum / (double)s->n, "counts", list);
}

static json_t *histogram_to_json(struct counting *c, size_t users)
{
    struct scores *p = &c->positives;
    struct scores *r = &c->random;
    if (p->n == 0 || r->n == 0) {
        return json_object();
    }
    qsort(p->values, p->n, sizeof *p->values, compare_doubles);
    qsort(r->values, r->n, sizeof *r->values, compare_doubles);
    double low = fmin(p->values[0], r->values[0]);
    double high = fmax(p->values[p->n - 1], r->values[r->n - 1]);
    if (!(high > low)) { /* one score for all: one full bin */
        low -= 0.5;
        high += 0.5;
    }
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:o, s:o}", "part", c->part == &c->d->test ? "test" : "train", "users",
                     (json_int_t)users, "low", low, "high", high, "auc", auc_of(p, r), "positives",
                     group_to_json(p, low, high), "random", group_to_json(r, low, high));
}

json_t *figure_histogram(const struct dataset *d, struct tower_ranker *users, const float *item_vectors, uint64_t seed,
                         struct err *e)
{
    struct counting c = {.d = d, .part = d->test.n > 0 ? &d->test : &d->train, .item_vectors = item_vectors};
    c.dim = d->schema.towers[SIDE_ITEM].output_dim;
    size_t n = 0;
    uint32_t *chosen = choose_users(d, c.part, &n);
    float *vectors = mem_array(RANK_BLOCK * c.dim, sizeof *vectors);
    json_t *json = NULL;
    bool failed = chosen == NULL || vectors == NULL;
    rng_seed(&c.rng, seed, STREAM_SCORES);
    for (size_t first = 0; !failed && first < n; first += RANK_BLOCK) {
        size_t count = n - first < RANK_BLOCK ? n - first : RANK_BLOCK;
        failed = tower_ranker_vectors(users, 0, chosen + first, count, vectors, e) < 0;
        for (size_t i = 0; !failed && i < count; i++) {
            failed = count_user(&c, chosen[first + i], vectors + i * c.dim) < 0;
        }
    }
    json = failed ? NULL : histogram_to_json(&c, n);
    if (json == NULL) {
        err_nomem(e); /* the first error wins */
    }
    mem_free(chosen);
    mem_free(vectors);
    mem_free(c.positives.values);
    mem_free(c.random.values);
    return json;
}

/* --- the picture of items -----------------------------------------------------------------------------------------------*/

/* Which items: all, or a random choice in ascending order (Knuth, TAOCP 2, 3.4.2, algorithm S). */
static size_t choose_items(size_t n_items, uint64_t seed, uint32_t items[FIGURE_ITEMS])
{
    struct rng r;
    size_t n = 0;
    size_t wanted = n_items < FIGURE_ITEMS ? n_items : FIGURE_ITEMS;
    rng_seed(&r, seed, STREAM_ITEMS);
    for (size_t i = 0; i < n_items && n < wanted; i++) {
        if (rng_below(&r, (uint32_t)(n_items - i)) < wanted - n) {
            items[n++] = (uint32_t)i;
        }
    }
    return n;
}

/* The feature that colours: the fewest values, two at least. Hashed ones have no names. NULL: none. */
static const struct feature *colouring_feature(const struct tower_spec *spec, size_t *index)
{
    const struct feature *best = NULL;
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        bool categories = f->type == FEATURE_CATEGORICAL || f->type == FEATURE_ONEHOT;
        if (categories && f->vocab.count >= 2 && (best == NULL || f->vocab.count < best->vocab.count)) {
            best = f;
            *index = i;
        }
    }
    return best;
}

/* The table row of an item's first value. */
static int32_t first_value(const struct feature *f, const struct feature_column *column, uint32_t item)
{
    if (!feature_is_bag(f)) {
        return column->index[item];
    }
    return column->start[item + 1] > column->start[item] ? column->index[column->start[item]] : SCHEMA_MISSING;
}

static json_t *text_to_json(const char *text, size_t n)
{
    struct buf b = BUF_INIT; /* buf_json_string makes valid UTF-8 of anything */
    size_t kept = n < FIGURE_NAME_BYTES ? n : FIGURE_NAME_BYTES;
    while (kept < n && kept > 0 && ((unsigned char)text[kept] & 0xc0) == 0x80) {
        kept--; /* not inside a character */
    }
    buf_json_string(&b, text, kept);
    if (kept < n && !buf_failed(&b)) {
        b.len--; /* the closing quote */
        buf_puts(&b, "\xe2\x80\xa6\"");
    }
    json_t *json = buf_failed(&b) ? NULL : json_loads(b.data, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    buf_release(&b);
    return json;
}

/* The values with the most items of the choice become groups in that order, the others one more, "other"; missing ones
 * the last, "(missing)". groups [n]; returns the names, or NULL without memory. */
static json_t *group_by_feature(const struct feature *f, const struct feature_column *column, const uint32_t *items,
                                size_t n, uint32_t *groups, uint32_t *named)
{
    size_t rows = f->vocab.count + SCHEMA_FIRST;
    uint32_t *count = mem_array(rows, sizeof *count);
    uint32_t *group_of = mem_array(rows, sizeof *group_of); /* 1 + group, 0: other */
    json_t *names = json_array();
    uint32_t n_groups = 0;
    for (size_t i = 0; count != NULL && i < n; i++) {
        count[first_value(f, column, items[i])]++;
    }
    for (; count != NULL && group_of != NULL && n_groups < FIGURE_CATEGORIES; n_groups++) {
        size_t best = 0;
        for (size_t v = SCHEMA_FIRST; v < rows; v++) {
            best = group_of[v] == 0 && count[v] > 0 && (best == 0 || count[v] > count[best]) ? v : best;
        }
        if (best == 0) {
            break;
        }
        size_t length;
        const char *text = strtab_get(&f->vocab, best - SCHEMA_FIRST, &length);
        group_of[best] = n_groups + 1;
        json_array_append_new(names, text_to_json(text, length));
    }
    bool others = false;
    *named = n_groups;
    for (size_t i = 0; count != NULL && group_of != NULL && i < n; i++) {
        int32_t v = first_value(f, column, items[i]);
        groups[i] = group_of[v] > 0 ? group_of[v] - 1 : v == SCHEMA_MISSING ? UINT32_MAX : n_groups;
        others |= groups[i] == n_groups;
    }
    if (others) {
        json_array_append_new(names, json_string("other"));
        n_groups++;
    }
    for (size_t i = 0; i < n; i++) {
        groups[i] = groups[i] == UINT32_MAX ? n_groups : groups[i];
    }
    if (count != NULL && count[SCHEMA_MISSING] > 0) {
        json_array_append_new(names, json_string("(missing)"));
    }
    if (count == NULL || group_of == NULL || names == NULL) {
        json_decref(names);
        names = NULL;
    }
    mem_free(count);
    mem_free(group_of);
    return names;
}

static int compare_counts(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Tenths of the chosen items by train events; items with equally many are in the same one. */
static json_t *group_by_popularity(const struct dataset *d, const uint32_t *items, size_t n, uint32_t *groups)
{
    json_t *names = json_array();
    uint32_t *sorted = mem_array(n, sizeof *sorted);
    if (sorted == NULL || names == NULL) {
        mem_free(sorted);
        json_decref(names);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = d->item_count[items[i]];
    }
    qsort(sorted, n, sizeof *sorted, compare_counts);
    for (size_t i = 0; i < n; i++) {
        size_t low = 0; /* how many have fewer events */
        for (size_t step = n; step > 0; step /= 2) {
            while (low + step <= n && sorted[low + step - 1] < d->item_count[items[i]]) {
                low += step;
            }
        }
        groups[i] = (uint32_t)(low * 10 / n);
    }
    for (int i = 0; i < 10; i++) {
        json_array_append_new(names, json_sprintf("%s%d%s", i == 0 ? "tenth by popularity: " : "", i + 1,
                                                  i == 9 ? " (most popular)" : ""));
    }
    mem_free(sorted);
    return names;
}

/* How many of each item's nearest others among the chosen are of its group, and how many would be by chance: what the
 * picture can only hint at, in all dimensions. rows [n, dim] become of length 1. -1 without memory. */
static int count_neighbours(float *rows, size_t dim, size_t n, const uint32_t *groups, double *same, double *chance)
{
    float *scores = mem_array(n, sizeof *scores);
    size_t sizes[FIGURE_CATEGORIES + 4] = {0};
    size_t alike = 0;
    size_t k = n - 1 < FIGURE_NEIGHBOURS ? n - 1 : FIGURE_NEIGHBOURS;
    if (scores == NULL) {
        return -1;
    }
    vec_normalize_rows(rows, n, dim, NULL);
    for (size_t i = 0; i < n; i++) {
        struct scored entries[FIGURE_NEIGHBOURS];
        struct topk best;
        vec_dot_rows(scores, rows, n, dim, rows + i * dim);
        scores[i] = NAN; /* never kept */
        topk_init(&best, entries, k);
        topk_push_block(&best, scores, n, 0);
        for (size_t j = 0; j < best.n; j++) {
            alike += groups[entries[j].row] == groups[i];
        }
        sizes[groups[i]]++;
    }
    *chance = 0;
    for (size_t g = 0; g < sizeof sizes / sizeof *sizes; g++) {
        *chance += sizes[g] > 0 ? (double)sizes[g] * (double)(sizes[g] - 1) / ((double)n * (double)(n - 1)) : 0;
    }
    *same = (double)alike / (double)(n * k);
    mem_free(scores);
    return 0;
}

/* Adds "neighbours"; nothing for a single item. */
static int add_neighbours(json_t *json, float *rows, size_t dim, size_t n, const uint32_t *groups)
{
    double same;
    double chance;
    if (n < 2) {
        return 0;
    }
    if (count_neighbours(rows, dim, n, groups, &same, &chance) < 0) {
        return -1;
    }
    return json_object_set_new(json, "neighbours",
                               json_pack("{s:i, s:f, s:f}", "k", FIGURE_NEIGHBOURS, "same", same, "chance", chance));
}

/* Four digits are finer than a pixel. */
static json_t *coordinate(double x, double scale)
{
    return json_real(round(x / scale * 1e4) / 1e4);
}

static json_t *points_to_json(const struct dataset *d, const double *xy, const uint32_t *items, const uint32_t *groups,
                              size_t n)
{
    json_t *points = json_array();
    double scale = 1e-30;
    for (size_t i = 0; i < 2 * n; i++) {
        scale = fmax(scale, fabs(xy[i]));
    }
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *id = strtab_get(&d->item_ids, items[i], &length);
        json_array_append_new(points,
                              json_pack("[o, o, I, o]", coordinate(xy[2 * i], scale), coordinate(xy[2 * i + 1], scale),
                                        (json_int_t)groups[i], text_to_json(id, length)));
    }
    return points;
}

json_t *figure_projection(const struct dataset *d, const float *item_vectors, uint64_t seed, struct err *e)
{
    uint32_t items[FIGURE_ITEMS];
    uint32_t groups[FIGURE_ITEMS];
    size_t dim = d->schema.towers[SIDE_ITEM].output_dim;
    size_t n = choose_items(d->n_items, seed, items);
    size_t column = 0;
    uint32_t named = 10;
    double explained[2];
    const struct feature *f = colouring_feature(&d->schema.towers[SIDE_ITEM], &column);
    float *rows = mem_array(n * dim, sizeof *rows);
    double *xy = mem_array(2 * n, sizeof *xy);
    json_t *json = NULL;
    json_t *names = NULL;
    if (rows == NULL || xy == NULL) {
        err_nomem(e);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(rows + i * dim, item_vectors + items[i] * dim, dim * sizeof *rows);
    }
    names = f != NULL ? group_by_feature(f, &d->rows[SIDE_ITEM].columns[column], items, n, groups, &named)
                      : group_by_popularity(d, items, n, groups);
    if (names == NULL) {
        err_nomem(e);
    } else if (projection_pca(rows, n, dim, xy, explained, e) == 0) {
        json = json_pack("{s:s, s:[f, f], s:I, s:s, s:O, s:I, s:o}", "method", "pca", "explained", explained[0],
                         explained[1], "of", (json_int_t)d->n_items, "by", f != NULL ? f->name : "popularity", "groups",
                         names, "named", (json_int_t)named, "points", points_to_json(d, xy, items, groups, n));
        if (json == NULL || add_neighbours(json, rows, dim, n, groups) < 0) {
            err_nomem(e);
            json_decref(json);
            json = NULL;
        }
    }
out:
    json_decref(names);
    mem_free(rows);
    mem_free(xy);
    return json;
}
