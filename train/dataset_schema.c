/*
 * One learner a side, one `learned` a feature, fed row by row, so that memory grows with distinct values only. The one
 * exception is bucketize, which keeps a double a row: exact quantiles are worth 80 MB at ten million rows, and a sketch
 * would make the schema depend on the order of the rows.
 *
 * Bounds are taken so that every bucket holds at least one training row: equal quantiles give one bound, and none is at
 * the smallest value, since nothing would be below it. A bucket without rows would be an untrained embedding that an
 * unseen value gets.
 */
#include "train/dataset_schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/idmap.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/dataset_ids.h"

struct learned {
    const struct feature_config *config;
    uint64_t rows, present; /* rows shown, rows with a value */

    struct idmap *values; /* texts: every distinct value */
    uint32_t *counts;     /* rows that have it */
    uint64_t *last_row;   /* bags: the last row that had it, so that a value given twice counts once; plus one */
    size_t counts_capacity, last_row_capacity;

    double mean, m2; /* numbers: Welford's running mean and sum of squared deviations */
    double *numbers; /* bucketize: all of them */
    size_t numbers_capacity;
};

struct learner {
    struct learned *features; /* [n] */
    size_t n;
};

static bool has_own_vocab(const struct feature_config *f)
{
    return f->type == FEATURE_ONEHOT || (f->type == FEATURE_CATEGORICAL && f->buckets == 0);
}

struct learner *learner_new(const struct tower_config *config, struct err *e)
{
    struct learner *l = mem_array(1, sizeof *l);
    if (l == NULL || (l->features = mem_array(config->n_features, sizeof *l->features)) == NULL) {
        err_nomem(e);
        mem_free(l);
        return NULL;
    }
    l->n = config->n_features;
    for (size_t i = 0; i < l->n; i++) {
        l->features[i].config = &config->features[i];
        if (has_own_vocab(&config->features[i]) && (l->features[i].values = idmap_new()) == NULL) {
            err_nomem(e);
            learner_free(l);
            return NULL;
        }
    }
    return l;
}

void learner_free(struct learner *l)
{
    if (l == NULL) {
        return;
    }
    for (size_t i = 0; i < l->n; i++) {
        idmap_free(l->features[i].values);
        mem_free(l->features[i].counts);
        mem_free(l->features[i].last_row);
        mem_free(l->features[i].numbers);
    }
    mem_free(l->features);
    mem_free(l);
}

static int add_text(struct learned *f, const char *text, size_t length)
{
    size_t known = idmap_count(f->values);
    uint32_t i = idmap_add(f->values, text, length);
    if (i == IDMAP_NONE || mem_grow((void **)&f->counts, &f->counts_capacity, i, sizeof *f->counts) < 0 ||
        mem_grow((void **)&f->last_row, &f->last_row_capacity, i, sizeof *f->last_row) < 0) {
        return -1;
    }
    if (i == known) {
        f->counts[i] = 0;
        f->last_row[i] = 0;
    }
    if (f->last_row[i] != f->rows) { /* rows is counted up before: 1 is the first */
        f->last_row[i] = f->rows;
        f->counts[i]++;
    }
    return 0;
}

static int add_texts(struct learned *f, const struct value *v)
{
    if (f->config->multi == '\0') {
        return add_text(f, v->text, v->length);
    }
    const char *p = v->text, *end = v->text + v->length;
    while (p < end) {
        const char *stop = memchr(p, f->config->multi, (size_t)(end - p));
        stop = stop == NULL ? end : stop;
        if (stop > p && add_text(f, p, (size_t)(stop - p)) < 0) {
            return -1;
        }
        p = stop + 1;
    }
    return 0;
}

static int add_number(struct learned *f, double x)
{
    if (f->config->transform == TRANSFORM_BUCKETIZE) {
        if (mem_grow((void **)&f->numbers, &f->numbers_capacity, f->present - 1, sizeof *f->numbers) < 0) {
            return -1;
        }
        f->numbers[f->present - 1] = x;
    }
    if (f->config->transform == TRANSFORM_LOG) {
        x = copysign(log1p(fabs(x)), x);
    }
    double before = x - f->mean;
    f->mean += before / (double)f->present;
    f->m2 += before * (x - f->mean);
    return 0;
}

int learner_add(struct learner *l, const struct value *values, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        struct learned *f = &l->features[i];
        f->rows++;
        if (values[i].kind == VALUE_MISSING) {
            continue;
        }
        f->present++;
        int result = 0;
        if (f->values != NULL) {
            result = add_texts(f, &values[i]);
        } else if (f->config->type == FEATURE_NUMERIC) {
            result = add_number(f, values[i].number);
        }
        if (result < 0) {
            return err_nomem(e);
        }
    }
    return 0;
}

/* --- to the schema -------------------------------------------------------------------------------------------------*/

static void declare(struct feature *to, const struct feature_config *from)
{
    strncpy(to->name, from->name, SCHEMA_MAX_NAME); /* the configuration checked its length; `to` is zeroed */
    to->type = from->type;
    to->transform = from->transform;
    to->pooling = from->pooling;
    to->half_life = from->half_life;
    bool plain = from->type == FEATURE_NUMERIC && from->transform != TRANSFORM_BUCKETIZE;
    to->dim = plain || from->type == FEATURE_ONEHOT ? 0 : from->dim;
    to->buckets = from->buckets;
    to->last = from->last;
    to->shared = from->shared;
    to->multi = from->multi;
    to->dropout = from->dropout;
    to->stddev = 1;
}

/* The values seen in at least min_count rows, sorted. */
static int learn_vocab(const struct learned *f, struct feature *to, struct buf *block, struct err *e)
{
    size_t n = idmap_count(f->values);
    uint32_t *rank = mem_array(n, sizeof *rank);
    bool *member = mem_array(n, sizeof *member);
    int result = -1;
    if (rank == NULL || member == NULL) {
        err_nomem(e);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        member[i] = f->counts[i] >= f->config->min_count;
    }
    result = ids_number(f->values, member, rank, block, &to->vocab, e);
done:
    mem_free(rank);
    mem_free(member);
    return result;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int learn_bounds(struct learned *f, struct feature *to, struct err *e)
{
    size_t n = f->present;
    uint32_t buckets = f->config->buckets;
    to->bounds = mem_array(buckets, sizeof *to->bounds);
    if (to->bounds == NULL) {
        return err_nomem(e);
    }
    if (n > 0) {
        qsort(f->numbers, n, sizeof *f->numbers, compare_doubles);
    }
    for (uint32_t i = 1; i < buckets && n > 0; i++) {
        double bound = f->numbers[(size_t)((double)n * i / buckets)];
        double below = to->n_bounds > 0 ? to->bounds[to->n_bounds - 1] : f->numbers[0];
        if (bound > below) {
            to->bounds[to->n_bounds++] = bound;
        }
    }
    return 0;
}

/* All numbers equal: the running mean is then exact, so that no rounding is left in the deviation. */
static bool is_constant(const struct learned *f)
{
    return f->m2 <= 0;
}

static int learn_numbers(struct learned *f, struct feature *to, struct err *e)
{
    if (f->config->transform == TRANSFORM_BUCKETIZE) {
        return learn_bounds(f, to, e);
    }
    double variance = f->present > 0 ? f->m2 / (double)f->present : 0;
    double stddev = sqrt(variance);
    to->mean = f->mean;
    to->stddev = !is_constant(f) && isnormal(stddev) ? stddev : 1;
    return 0;
}

/* A feature that cannot say anything is legal and useless: say so, and what to do. */
static void warn_useless(const struct learned *f, const struct feature *to, enum side side)
{
    const char *tower = side_words[side];
    unsigned long long rows = f->rows;
    bool vocab = feature_has_vocab(to);
    bool own_column = f->config->type != FEATURE_ID && f->config->type != FEATURE_SEQUENCE;
    bool numeric = f->config->type == FEATURE_NUMERIC;
    if (own_column && f->present == 0) {
        log_warn("%s feature %s: no value in any of the %llu rows with train events: it cannot help; check the column, "
                 "or leave the feature out",
                 tower, to->name, rows);
    } else if (vocab && to->vocab.count == 0) {
        log_warn("%s feature %s: no value reaches min_count %u: everything is unknown; lower min_count", tower,
                 to->name, f->config->min_count);
    } else if (own_column && vocab && to->vocab.count == 1 && idmap_count(f->values) == 1 && f->present == f->rows) {
        log_warn("%s feature %s: the same value in all %llu rows: it cannot help; leave it out", tower, to->name, rows);
    } else if (numeric && is_constant(f)) {
        log_warn("%s feature %s: the number is %g in all %llu rows that have one: it cannot help; leave it out", tower,
                 to->name, f->mean, (unsigned long long)f->present);
    }
}

int learner_finish(struct learner *l, enum side side, const struct id_counts *own, const struct id_counts *items,
                   struct tower_spec *spec, struct buf *blocks, struct err *e)
{
    spec->features = mem_array(l->n, sizeof *spec->features);
    if (spec->features == NULL) {
        return err_nomem(e);
    }
    spec->n_features = (uint32_t)l->n;
    for (size_t i = 0; i < l->n; i++) {
        struct learned *f = &l->features[i];
        struct feature *to = &spec->features[i];
        int result = 0;
        declare(to, f->config);
        if (to->shared) {
            continue; /* schema_finish gives it the item id's vocabulary */
        }
        if (f->config->type == FEATURE_ID || f->config->type == FEATURE_SEQUENCE) {
            const struct id_counts *from = f->config->type == FEATURE_ID ? own : items;
            uint32_t least =
                f->config->min_count > 1 ? f->config->min_count : 1; /* never an id of the test part alone */
            result = ids_frequent(from->ids, from->counts, least, &blocks[i], &to->vocab, e);
        } else if (f->values != NULL) {
            result = learn_vocab(f, to, &blocks[i], e);
        } else if (f->config->type == FEATURE_NUMERIC) {
            result = learn_numbers(f, to, e);
        }
        if (result < 0) {
            return -1;
        }
        warn_useless(f, to, side);
    }
    return 0;
}
