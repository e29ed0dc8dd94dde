#include "train/assessment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/exposure.h"

#define AFFORDABLE_PAIRS 2e10 /* users x items: a few minutes a contender on two cores */
enum { LEAST_USERS = 1000, HEADLINE_K = 20 };

/* Columns of one contender in the bootstrap: recall, ndcg and hit rate at each cut-off, then mrr. */
enum { MAX_COLUMNS = 3 * METRIC_MAX_KS + 1 };

struct contender {
    const char *name;
    struct outcomes outcomes;
    struct metrics metrics;
    float *replicates; /* [BOOTSTRAP_REPLICATES, columns] means */
};

struct assessment {
    struct evaluation ev;
    const uint32_t *item_count;
    size_t cutoff; /* of slices and comparisons: index in ev.at */
    struct bootstrap bootstrap;
    struct contender contenders[ASSESSMENT_MAX];
    size_t n;
};

/* --- contenders -----------------------------------------------------------------------------------------------------*/

struct assessment *assessment_new(const struct evaluation *ev, const uint32_t *item_count, struct err *e)
{
    struct assessment *a = mem_array(1, sizeof *a);
    if (a == NULL) {
        err_nomem(e);
        return NULL;
    }
    a->ev = *ev;
    a->item_count = item_count;
    if (a->ev.max_users == 0) {
        double affordable = AFFORDABLE_PAIRS / (double)ev->n_items;
        a->ev.max_users = affordable > LEAST_USERS ? (size_t)affordable : LEAST_USERS;
    }
    for (size_t c = 0; c < ev->at.n; c++) {
        a->cutoff = ev->at.k[c] == HEADLINE_K ? c : a->cutoff;
    }
    return a;
}

void assessment_free(struct assessment *a)
{
    if (a == NULL) {
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        outcomes_release(&a->contenders[i].outcomes);
        mem_free(a->contenders[i].replicates);
    }
    bootstrap_release(&a->bootstrap);
    mem_free(a);
}

static size_t columns_of(const struct metric_cutoffs *at)
{
    return 3 * at->n + 1;
}

/* The values that have a column, in its order. */
static size_t metric_columns(const struct metrics *m, double *values)
{
    size_t n = 0;
    for (size_t c = 0; c < m->at.n; c++) {
        values[n++] = m->recall[c];
        values[n++] = m->ndcg[c];
        values[n++] = m->hit_rate[c];
    }
    values[n++] = m->mrr;
    return n;
}

static void column_name(const struct metric_cutoffs *at, size_t column, char name[32])
{
    static const char *const names[] = {"recall", "ndcg", "hit_rate"};
    if (column == 3 * at->n) {
        snprintf(name, 32, "mrr");
    } else {
        snprintf(name, 32, "%s@%u", names[column % 3], at->k[column / 3]);
    }
}

/* Means of every replicate. Groups differ in size by one user at most, which counts: the last column is users. */
static int make_replicates(const struct assessment *a, struct contender *c)
{
    const struct bootstrap *b = &a->bootstrap;
    size_t columns = columns_of(&a->ev.at), width = columns + 1;
    float *sums = mem_array(b->groups * width, sizeof *sums);
    float *totals = mem_array(BOOTSTRAP_REPLICATES * width, sizeof *totals);
    c->replicates = mem_array(BOOTSTRAP_REPLICATES * columns, sizeof *c->replicates);
    int result = sums == NULL || totals == NULL || c->replicates == NULL ? -1 : 0;
    for (size_t i = 0; result == 0 && i < c->outcomes.n_users; i++) {
        struct metrics user;
        double values[MAX_COLUMNS];
        float *sum = sums + i % b->groups * width;
        metrics_of_user(&c->outcomes, i, &user);
        metric_columns(&user, values);
        for (size_t j = 0; j < columns; j++) {
            sum[j] += (float)values[j];
        }
        sum[columns] += 1.0F;
    }
    if (result == 0 && c->outcomes.n_users > 0) {
        bootstrap_sums(b, sums, width, totals);
        for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
            for (size_t j = 0; j < columns; j++) {
                c->replicates[r * columns + j] = totals[r * width + j] / totals[r * width + columns];
            }
        }
    }
    mem_free(sums);
    mem_free(totals);
    return result;
}

static struct interval interval_of(const struct contender *c, size_t column)
{
    double values[BOOTSTRAP_REPLICATES];
    size_t columns = columns_of(&c->outcomes.at);
    for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
        values[r] = c->replicates[r * columns + column];
    }
    return c->outcomes.n_users < SLICE_MIN_USERS ? (struct interval){NAN, NAN} : bootstrap_interval(values);
}

struct interval_text {
    char text[32];
};

static struct interval_text interval_text(struct interval i)
{
    struct interval_text t = {""};
    if (isfinite(i.low)) {
        snprintf(t.text, sizeof t.text, " [%.4f, %.4f]", i.low, i.high);
    }
    return t;
}

static void log_contender(const struct assessment *a, const struct contender *c)
{
    const struct metrics *m = &c->metrics;
    size_t at = a->cutoff;
    uint32_t k = a->ev.at.k[at];
    log_info("%-17s recall@%u %.4f%s  ndcg@%u %.4f%s  hit_rate@%u %.4f  mrr %.4f  coverage@%u %.4f  (%zu users)",
             c->name, k, m->recall[at], interval_text(interval_of(c, 3 * at)).text, k, m->ndcg[at],
             interval_text(interval_of(c, 3 * at + 1)).text, k, m->hit_rate[at], m->mrr, k, m->coverage[at], m->users);
}

int assessment_add(struct assessment *a, const char *name, const struct ranker *ranker, struct err *e)
{
    struct contender c = {.name = name};
    if (a->n == ASSESSMENT_MAX) {
        return err_set(e, "more than %d rankings to compare", ASSESSMENT_MAX);
    }
    if (evaluate_outcomes(&a->ev, ranker, name, &c.outcomes, e) < 0) {
        return -1;
    }
    metrics_of(&c.outcomes, &c.metrics);
    a->contenders[a->n++] = c;
    if (a->n == 1) {
        if (c.outcomes.n_candidates > a->ev.max_users) {
            log_warn("evaluated on a random sample of %zu of %zu test users; evaluate.max_users sets how many",
                     a->ev.max_users, c.outcomes.n_candidates);
        }
        if (bootstrap_init(&a->bootstrap, c.outcomes.n_users, a->ev.seed, e) < 0) {
            return -1;
        }
    }
    if (make_replicates(a, &a->contenders[a->n - 1]) < 0) {
        return err_nomem(e);
    }
    log_contender(a, &a->contenders[a->n - 1]);
    return 0;
}

/* --- the report -----------------------------------------------------------------------------------------------------*/

static json_t *interval_json(struct interval i)
{
    return isfinite(i.low) ? json_pack("[f, f]", i.low, i.high) : json_null();
}

static json_t *intervals_json(const struct contender *c)
{
    json_t *o = json_object();
    for (size_t column = 0; column < columns_of(&c->outcomes.at); column++) {
        char name[32];
        column_name(&c->outcomes.at, column, name);
        json_object_set_new(o, name, interval_json(interval_of(c, column)));
    }
    return o;
}

struct difference {
    double mean, better; /* share of the replicates in which the model is better; a tie is half a win */
    struct interval interval;
};

/* Model minus baseline in one column: the same users in each replicate, so the difference is paired. */
static struct difference difference_of(const struct contender *model, const struct contender *other, size_t column)
{
    struct difference d = {0};
    double values[BOOTSTRAP_REPLICATES], ours[MAX_COLUMNS], theirs[MAX_COLUMNS];
    size_t columns = columns_of(&model->outcomes.at);
    metric_columns(&model->metrics, ours);
    metric_columns(&other->metrics, theirs);
    d.mean = ours[column] - theirs[column];
    for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
        size_t at = r * columns + column;
        values[r] = (double)model->replicates[at] - (double)other->replicates[at];
        d.better += values[r] > 0 ? 1.0 : values[r] == 0 ? 0.5 : 0.0;
    }
    d.better /= BOOTSTRAP_REPLICATES;
    d.interval = bootstrap_interval(values);
    return d;
}

static json_t *comparison_json(const struct assessment *a, const struct contender *other)
{
    const struct contender *model = &a->contenders[0];
    bool few = model->outcomes.n_users < SLICE_MIN_USERS;
    json_t *o = json_object();
    for (size_t column = 3 * a->cutoff; column < 3 * a->cutoff + 2; column++) { /* recall, ndcg */
        char name[32];
        struct difference d = difference_of(model, other, column);
        column_name(&a->ev.at, column, name);
        json_object_set_new(o, name,
                            json_pack("{s:f, s:o, s:o}", "difference", d.mean, "interval",
                                      few ? json_null() : interval_json(d.interval), "better",
                                      few ? json_null() : json_real(d.better)));
        if (column == 3 * a->cutoff && !few) {
            log_info("%s - %s: %s %+.4f [%+.4f, %+.4f], better in %.1f %% of the resamples", model->name, other->name,
                     name, d.mean, d.interval.low, d.interval.high, 100 * d.better);
        }
    }
    return o;
}

static void set_at(json_t *o, const char *metric, uint32_t k, const char *suffix, json_t *value)
{
    char name[48];
    snprintf(name, sizeof name, "%s@%u%s", metric, k, suffix);
    json_object_set_new(o, name, value);
}

static json_t *slice_json(const struct slice *s, uint32_t k)
{
    const struct dimension *d = s->dimension;
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I}", "side", side_words[d->side], "by", d->by, "value", s->label,
                          "users", (json_int_t)s->users, "events", (json_int_t)s->events);
    if (d->feature == NULL && d->n_values == POPULARITY_GROUPS) {
        json_object_set_new(
            o, "train_events",
            json_pack("[I, I]", (json_int_t)d->events[s->value][0], (json_int_t)d->events[s->value][1]));
    }
    set_at(o, "recall", k, "", json_real(s->recall));
    set_at(o, "ndcg", k, "", json_real(s->ndcg));
    set_at(o, "recall", k, "_ci", interval_json(s->recall_ci));
    set_at(o, "ndcg", k, "_ci", interval_json(s->ndcg_ci));
    json_object_set_new(o, "baselines", json_object());
    return o;
}

/* All contenders have the same users and relevant items, so their slices are the same, too. */
static json_t *slices_json(const struct assessment *a, const struct slicing *slicing, struct err *e)
{
    json_t *list = json_array();
    uint32_t k = a->ev.at.k[a->cutoff];
    for (size_t c = 0; c < a->n; c++) {
        struct slice *slices;
        size_t n;
        const struct bootstrap *b = c == 0 ? &a->bootstrap : NULL;
        if (slices_of(slicing, &a->contenders[c].outcomes, a->cutoff, b, &slices, &n, e) < 0) {
            json_decref(list);
            return NULL;
        }
        for (size_t i = 0; i < n; i++) {
            if (c == 0) {
                json_array_append_new(list, slice_json(&slices[i], k));
                continue;
            }
            json_t *values = json_object();
            set_at(values, "recall", k, "", json_real(slices[i].recall));
            set_at(values, "ndcg", k, "", json_real(slices[i].ndcg));
            json_object_set_new(json_object_get(json_array_get(list, i), "baselines"), a->contenders[c].name, values);
        }
        mem_free(slices);
    }
    return list;
}

static json_t *evaluation_json(const struct assessment *a)
{
    const struct outcomes *o = &a->contenders[0].outcomes;
    bool sampled = o->n_candidates > a->ev.max_users;
    return json_pack("{s:s, s:I, s:I, s:b, s:I, s:I, s:{s:i, s:I, s:f}}", "protocol", "full", "k",
                     (json_int_t)a->ev.at.k[a->cutoff], "users", (json_int_t)o->n_users, "sampled", sampled,
                     "sampled_from", (json_int_t)(sampled ? o->n_candidates : o->n_users), "seed",
                     (json_int_t)a->ev.seed, "bootstrap", "replicates", BOOTSTRAP_REPLICATES, "groups",
                     (json_int_t)a->bootstrap.groups, "level", BOOTSTRAP_LEVEL);
}

static json_t *exposure_json(const struct assessment *a, const uint32_t *shown, struct err *e)
{
    struct exposure x;
    if (exposure_of(shown, a->item_count, a->ev.n_items, &x, e) < 0) {
        return NULL;
    }
    return json_pack("{s:f, s:f, s:f}", "average_popularity", x.average_popularity, "gini", x.gini, "coverage",
                     x.coverage);
}

/* Of the relevant items themselves: what the users met, to compare with. */
static json_t *test_exposure_json(const struct assessment *a, struct err *e)
{
    const struct outcomes *o = &a->contenders[0].outcomes;
    uint32_t *met = mem_array(o->n_items, sizeof *met);
    json_t *json = NULL;
    if (met == NULL) {
        err_nomem(e);
        return NULL;
    }
    for (size_t i = 0; i < o->start[o->n_users]; i++) {
        met[o->found[i].item]++;
    }
    json = exposure_json(a, met, e);
    mem_free(met);
    return json;
}

/* At the cut-off of slices and comparisons, by contender, and for the test part itself. */
static json_t *bias_json(const struct assessment *a, struct err *e)
{
    json_t *bias = json_object();
    if (a->item_count == NULL) {
        return bias;
    }
    json_t *x = test_exposure_json(a, e);
    bool failed = x == NULL;
    json_object_set_new(bias, "test", x);
    for (size_t i = 0; i < a->n && !failed; i++) {
        const struct outcomes *o = &a->contenders[i].outcomes;
        x = exposure_json(a, o->shown + a->cutoff * o->n_items, e);
        failed = x == NULL;
        json_object_set_new(bias, a->contenders[i].name, x);
    }
    if (failed) {
        json_decref(bias);
        return NULL;
    }
    return bias;
}

json_t *assessment_report(const struct assessment *a, const struct slicing *slicing, struct err *e)
{
    json_t *slices = slices_json(a, slicing, e);
    json_t *bias = slices == NULL ? NULL : bias_json(a, e);
    if (bias == NULL) {
        json_decref(slices);
        return NULL;
    }
    json_t *baselines = json_object(), *intervals = json_object(), *comparison = json_object();
    for (size_t i = 1; i < a->n; i++) {
        const struct contender *c = &a->contenders[i];
        json_object_set_new(baselines, c->name, metrics_to_json(&c->metrics));
        json_object_set_new(intervals, c->name, intervals_json(c));
        json_object_set_new(comparison, c->name, comparison_json(a, c));
    }
    json_t *report = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "metrics", metrics_to_json(&a->contenders[0].metrics), "metrics_ci",
        intervals_json(&a->contenders[0]), "baselines", baselines, "baselines_ci", intervals, "comparison", comparison,
        "slices", slices, "popularity_bias", bias, "evaluation", evaluation_json(a));
    if (report == NULL) {
        err_nomem(e);
    }
    return report;
}
