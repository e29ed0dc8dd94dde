/*
 * The trainer as a whole: its loss against one written down in plain double arithmetic, its gradients by finite
 * differences, threads against each other, repeatability, what hidden values do, and what it does with nonsense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/mem.h"
#include "core/rng.h"
#include "tests/unit/train/lab.h"
#include "train/sampler.h"

enum { USERS = 40, ITEMS = 30, EVENTS = 500 };

/* Every combination that changes what is computed. */
struct variant {
    const char *yaml;
    const char *sets[16];
};

static const struct variant variants[] = {
    {lab_full, {"similarity=cosine"}},
    {lab_full, {"similarity=dot", "loss.logq=false"}},
    {lab_full, {"negatives.in_batch=false", "negatives.uniform=31"}},
    {lab_full, {"negatives.uniform=13", "negatives.mask_seen=false"}},
    {lab_full, {"similarity=dot", "negatives.uniform=5", "optimizer.batch_size=700"}},
    {lab_wide, {"similarity=cosine", "negatives.mask_seen=false"}},
    {lab_wide, {"similarity=dot", "negatives.uniform=9", "loss.logq=false"}},
    {lab_wide, {"similarity=cosine", "negatives.in_batch=false", "negatives.uniform=7", "optimizer.batch_size=5"}},
    {lab_features, {"similarity=cosine"}},
    {lab_features, {"user_tower.features.0.pooling=sum", "similarity=dot"}},
    {lab_features, {"user_tower.features.0.pooling=sqrtn", "negatives.uniform=8"}},
    {lab_features, {"user_tower.features.0.pooling=recency", "user_tower.features.0.half_life=1.5"}},
    {lab_shared, {"similarity=cosine"}},
    {lab_shared, {"user_tower.features.0.pooling=recency", "similarity=dot", "negatives.uniform=8"}},
    {lab_full, {"user_tower.network.layer_norm=true", "user_tower.network.activation=gelu"}},
    {lab_full,
     {"item_tower.network.activation=leaky_relu", "item_tower.network.layers=[9,9,7,7]",
      "item_tower.network.residual=true", "user_tower.network.dropout=0.3", "user_tower.features.0.dropout=0.5"}},
    {lab_full,
     {"user_tower.network.type=dcn", "item_tower.network.type=dcn", "user_tower.network.cross_rank=3",
      "item_tower.network.cross_layers=1", "user_tower.features.7.dropout=0.2"}},
    {lab_full,
     {"user_tower.network.type=dcn", "user_tower.network.layers=[7,7]", "user_tower.network.layer_norm=true",
      "user_tower.network.residual=true", "user_tower.network.dropout=0.1", "user_tower.network.cross_layers=3",
      "negatives.uniform=5"}},
    {lab_ids, {NULL}},
    {lab_ids, {"similarity=cosine", "negatives.uniform=3", "optimizer.batch_size=300"}},
    {lab_full, {"loss={type: softmax, temperature: 0.5, learn: true}", "negatives.popularity=9"}},
    {lab_wide, {"negatives.uniform=4", "negatives.popularity=3", "negatives.draw=row"}},
    {lab_ids, {"negatives.uniform=4", "negatives.draw=row", "loss.logq=false", "negatives.in_batch=false"}},
    {lab_wide, {"loss={type: softmax, temperature: 0.5, logq_estimator: streaming}", "negatives.popularity=3"}},
    {lab_full, {"loss={type: bilateral, temperature: 0.5, balance: 1.3}", "negatives.uniform=20"}},
    {lab_full,
     {"loss={type: pointwise, scale: 2, negatives_per_positive: 2, learn: true}",
      "negatives={in_batch: false, uniform: 3}"}},
    {lab_ids, {"loss={type: pointwise, scale: 1}"}},
    {lab_full,
     {"loss={type: triplet_hinge, margin: 0.4}", "negatives={in_batch: false, uniform: 4}", "similarity=cosine"}},
    {lab_wide, {"loss={type: triplet_hinge, margin: 1}", "negatives.uniform=2"}},
    {lab_full,
     {"loss={type: triplet_logistic, sigma: 3}", "negatives={in_batch: false, uniform: 4}", "similarity=cosine"}},
    {lab_ids, {"loss={type: triplet_logistic, sigma: 1}", "negatives.uniform=3", "negatives.popularity=2"}},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void open_variant(struct lab *lab, const struct variant *v)
{
    lab_synth(lab, v->yaml, v->sets, USERS, ITEMS, EVENTS);
}

static struct trainer *start(const struct lab *lab, unsigned threads)
{
    struct err e = ERR_INIT;
    struct trainer *t = trainer_new(lab->config, lab->d, &lab->d->train, lab->m, threads, &e);
    assert_non_null(t);
    return t;
}

static double gradients_of(struct trainer *t, float **gradients)
{
    struct err e = ERR_INIT;
    double loss;
    assert_int_equal(trainer_gradients(t, 1, &loss, gradients, &e), 0);
    assert_true(isfinite(loss));
    return loss;
}

/* --- finite differences -----------------------------------------------------------------------------------------------*/

/* A direction of +-1 over what has a gradient; the slope along it. */
static double slope_along(const float *gradient, float *direction, size_t n, struct rng *r)
{
    double slope = 0;
    for (size_t i = 0; i < n; i++) {
        direction[i] = gradient[i] == 0 ? 0.0f : rng_below(r, 2) == 0 ? 1.0f : -1.0f;
        slope += (double)direction[i] * (double)gradient[i];
    }
    return slope;
}

static double length_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

/* (loss(value + h direction) - loss(value - h direction)) / 2 h */
static double difference_along(struct trainer *t, struct parameter *p, const float *direction, float h, float **unused)
{
    size_t n = lab_parameter_size(p);
    double loss[2];
    float *kept = malloc(n * sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, p->value, n * sizeof *kept);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) {
            p->value[i] = kept[i] + (side == 0 ? -h : h) * direction[i];
        }
        loss[side] = gradients_of(t, unused);
    }
    memcpy(p->value, kept, n * sizeof *kept);
    free(kept);
    return (loss[1] - loss[0]) / (2 * (double)h);
}

/* Hidden units firmly on or off: where a relu switches within a step, differences are not the slope. */
static void settle_units(struct model *m)
{
    for (int side = 0; side < 2; side++) {
        const struct network_layers *layers = &m->schema->towers[side].layers;
        for (uint32_t l = 0; l < layers->n; l++) {
            const struct layer *layer = &layers->layer[l];
            if ((layer->kind != &layer_linear && layer->kind != &layer_norm) || layer->activation == ACTIVATION_NONE) {
                continue;
            }
            struct parameter *bias = &m->parameters[m->dense[side][layer->first_dense + 1]];
            for (size_t i = 0; i < bias->rows; i++) {
                bias->value[i] = i % 3 == 2 ? -6.0f : 6.0f;
            }
        }
    }
}

/* `noise`: what the loss's own corners (a hinge's) and its size in float32 may add. */
static void check_direction(struct trainer *t, struct parameter *p, const float *direction, double slope, double size,
                            float **unused, double noise)
{
    const double steps[] = {3e-2, 1e-2, 3e-3}; /* large ones curve, small ones lose digits */
    const double tolerance = 5e-3 * size + noise;
    double best = INFINITY;
    for (size_t i = 0; i < 3 && fabs(best - slope) > tolerance; i++) {
        double h = steps[i] / length_of(direction, lab_parameter_size(p));
        double measured = difference_along(t, p, direction, (float)h, unused);
        best = fabs(measured - slope) < fabs(best - slope) ? measured : best;
    }
    if (fabs(best - slope) > tolerance) {
        fail_msg("%s: slope %.6g, by differences %.6g (gradient's length %.3g)", p->name, slope, best, size);
    }
}

static void check_gradients(const struct variant *v, unsigned threads)
{
    struct lab lab;
    struct rng r;
    rng_seed(&r, 21, threads);
    open_variant(&lab, v);
    struct trainer *t = start(&lab, threads);
    float **gradients = lab_gradients_new(lab.m);
    float **unused = lab_gradients_new(lab.m);
    settle_units(lab.m);
    double loss = gradients_of(t, gradients);
    double noise = 4e-4 * (1 + loss) + (lab.config->loss.type == LOSS_TRIPLET_HINGE ? 1.5e-3 : 0);
    for (size_t i = 0; i < lab.m->n_parameters; i++) {
        struct parameter *p = &lab.m->parameters[i];
        size_t n = lab_parameter_size(p);
        float *direction = malloc(n * sizeof *direction);
        assert_non_null(direction);
        double size = length_of(gradients[i], n);
        assert_true(size > 0); /* every parameter takes part */
        for (int again = 0; again < 2; again++) {
            double slope = slope_along(gradients[i], direction, n, &r);
            check_direction(t, p, direction, slope, size, unused, noise);
        }
        for (size_t j = 0; j < n; j++) { /* along the gradient itself: nothing can cancel */
            direction[j] = gradients[i][j] / (float)size;
        }
        check_direction(t, p, direction, size, size, unused, noise);
        free(direction);
    }
    lab_gradients_free(lab.m, gradients);
    lab_gradients_free(lab.m, unused);
    trainer_free(t);
    lab_close(&lab);
}

static void test_gradients_by_differences(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        check_gradients(&variants[v], 1 + (unsigned)v % 3);
    }
}

/* The rows for unknown and missing values take part: of every table both, of a bag's the unknown one. */
static void test_unknown_and_missing_have_gradients(void **state)
{
    (void)state;
    struct lab lab;
    lab_synth(&lab, lab_features, (const char *const[]){"optimizer.batch_size=300", NULL}, USERS, ITEMS, EVENTS);
    struct trainer *t = start(&lab, 2);
    float **gradients = lab_gradients_new(lab.m);
    gradients_of(t, gradients);
    for (int side = 0; side < 2; side++) {
        const struct tower_spec *spec = &lab.d->schema.towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            const struct feature *f = &spec->features[i];
            int table = lab.m->table[side][i];
            if (table < 0) {
                continue;
            }
            bool unknown = length_of(gradients[table] + SCHEMA_UNKNOWN * f->dim, f->dim) > 0;
            bool missing = length_of(gradients[table] + SCHEMA_MISSING * f->dim, f->dim) > 0;
            assert_int_equal(unknown, f->type != FEATURE_NUMERIC); /* a number is never unknown */
            assert_int_equal(missing, !feature_is_bag(f));
        }
    }
    lab_gradients_free(lab.m, gradients);
    trainer_free(t);
    lab_close(&lab);
}

static struct parameter *find_parameter(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        if (strcmp(m->parameters[i].name, name) == 0) {
            return &m->parameters[i];
        }
    }
    return NULL;
}

static void check_sum(const float *sum, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double wanted = (double)a[i] + (b == NULL ? 0 : (double)b[i]);
        if (fabs((double)sum[i] - wanted) > 1e-6 + 1e-4 * fabs(wanted)) {
            fail_msg("element %zu: %.9g instead of %.9g", i, (double)sum[i], wanted);
        }
    }
}

/* A shared table's gradient is the sum of what two tables with the same values have. */
static void test_shared_gradients_are_summed(void **state)
{
    (void)state;
    struct lab one, two;
    const char *const sets[] = {"user_tower.features.0.pooling=recency", NULL};
    lab_synth(&one, lab_shared, sets, USERS, ITEMS, EVENTS);
    lab_open(&two, lab_features, sets);
    assert_int_equal(two.m->n_parameters, one.m->n_parameters + 1);
    for (size_t i = 0; i < two.m->n_parameters; i++) {
        struct parameter *p = &two.m->parameters[i];
        bool history = strcmp(p->name, "user.embedding.history") == 0;
        const struct parameter *from = find_parameter(one.m, history ? "item.embedding.item_id" : p->name);
        assert_int_equal(lab_parameter_size(from), lab_parameter_size(p));
        memcpy(p->value, from->value, lab_parameter_size(p) * sizeof *p->value);
    }
    float **summed = lab_gradients_new(one.m), **apart = lab_gradients_new(two.m);
    struct trainer *first = start(&one, 2), *second = start(&two, 2);
    double loss = gradients_of(first, summed);
    assert_true(fabs(loss - gradients_of(second, apart)) <= 1e-6 * loss);
    for (size_t i = 0; i < one.m->n_parameters; i++) {
        const struct parameter *p = &one.m->parameters[i];
        size_t own = (size_t)(find_parameter(two.m, p->name) - two.m->parameters);
        int history = two.m->table[SIDE_USER][0];
        bool shared = (int)i == one.m->table[SIDE_USER][0];
        assert_int_equal(shared, strcmp(p->name, "item.embedding.item_id") == 0);
        check_sum(summed[i], apart[own], shared ? apart[history] : NULL, lab_parameter_size(p));
    }
    trainer_free(first);
    trainer_free(second);
    lab_gradients_free(one.m, summed);
    lab_gradients_free(two.m, apart);
    lab_close(&one);
    lab_close(&two);
}

/* The optimizer sees the sum once: Adagrad's state after one batch is its square, not the sum of two squares. */
static void test_shared_is_updated_once(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    lab_synth(&lab, lab_shared, (const char *const[]){"optimizer.batch_size=1000", NULL}, USERS, ITEMS, EVENTS);
    float **gradients = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 2);
    gradients_of(t, gradients);
    assert_int_equal(trainer_epoch(t, 1, "test", &result, &e), 0);
    int table = lab.m->table[SIDE_USER][0];
    struct parameter *p = &lab.m->parameters[table];
    for (size_t i = 0; i < lab_parameter_size(p); i++) {
        double g = (double)gradients[table][i];
        assert_true(fabs((double)p->state[0][i] - g * g) <= 1e-5 * g * g + 1e-12);
    }
    trainer_free(t);
    lab_gradients_free(lab.m, gradients);
    lab_close(&lab);
}

/* --- the loss, written down -------------------------------------------------------------------------------------------*/

struct plain {
    const struct lab *lab;
    struct sampler sampler;
    size_t count, candidates;
    uint32_t candidate[1024], negative[64];
    uint32_t own_now, user_now; /* of the row at hand */
    float *user, *item;         /* [count, dim], [n_items, dim] */
    size_t dim;
};

static void plain_vectors(struct plain *p)
{
    const struct dataset *d = p->lab->d;
    const struct tower *towers = p->lab->m->towers;
    struct feature_rows rows;
    struct tower_pass pass;
    int32_t history[16];
    p->dim = towers[0].spec->output_dim;
    p->user = calloc(p->count * p->dim, sizeof *p->user);
    p->item = calloc(d->n_items * p->dim, sizeof *p->item);
    assert_int_equal(feature_rows_init(&rows, towers[SIDE_USER].spec), 0);
    for (size_t i = 0; i < p->count; i++) {
        size_t event = sampler_event(&p->sampler, i);
        uint32_t user = event_users_find(&p->sampler.users, event);
        assert_int_equal(feature_rows_copy(&rows, &d->rows[SIDE_USER], user), 0);
        if (d->history >= 0) {
            size_t n = dataset_history(d, &d->train, user, event, history);
            assert_int_equal(feature_rows_set_bag(&rows, (uint32_t)d->history, history, n), 0);
        }
    }
    assert_int_equal(tower_pass_init(&pass, towers[SIDE_USER].spec, 16, NULL), 0);
    tower_embed(&towers[SIDE_USER], d->schema.similarity, &rows, &pass, p->user);
    tower_pass_release(&pass);
    assert_int_equal(tower_pass_init(&pass, towers[SIDE_ITEM].spec, 16, NULL), 0);
    tower_embed(&towers[SIDE_ITEM], d->schema.similarity, &d->rows[SIDE_ITEM], &pass, p->item);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
}

static bool has_event(const struct interactions *events, uint32_t user, uint32_t item)
{
    for (size_t i = events->start[user]; i < events->start[user + 1]; i++) {
        if (events->item[i] == item) {
            return true;
        }
    }
    return false;
}

static double similarity(const struct plain *p, size_t row, uint32_t item)
{
    double dot = 0;
    for (size_t i = 0; i < p->dim; i++) {
        dot += (double)p->user[row * p->dim + i] * (double)p->item[item * p->dim + i];
    }
    return dot;
}

/* The expected appearances of an item among a row's candidates. */
static double log_q(const struct plain *p, uint32_t item)
{
    const struct train_config *c = p->lab->config;
    const struct interactions *events = &p->lab->d->train;
    double *counts = calloc(p->lab->d->n_items, sizeof *counts);
    double popularity = 0;
    assert_non_null(counts);
    for (size_t i = 0; i < events->n; i++) {
        counts[events->item[i]]++;
    }
    for (size_t i = 0; i < p->lab->d->n_items; i++) {
        popularity += counts[i] > 0 ? pow(counts[i], c->negatives.popularity_alpha) : 0;
    }
    double own = counts[item] > 0 ? pow(counts[item], c->negatives.popularity_alpha) : 0;
    double batch = fmin(c->optimizer.batch_size, (double)events->n);
    double in_batch = batch * counts[item] / (double)events->n;
    if (c->loss.logq_estimator == LOGQ_STREAMING) { /* seen in batch 1, its first, or not yet */
        bool seen = false;
        for (size_t i = 0; i < p->count; i++) {
            seen = seen || events->item[sampler_event(&p->sampler, i)] == item;
        }
        double gap = (double)p->lab->d->n_items / batch;
        in_batch = seen ? 2 / (1 + gap) : 1 / gap;
    }
    free(counts);
    return log((c->negatives.in_batch ? in_batch : 0) + c->negatives.uniform / (double)p->lab->d->n_items +
               c->negatives.popularity * own / popularity);
}

static double softplus(double x)
{
    return log1p(exp(x));
}

/* The loss of a row whose negatives are given. */
static double loss_of(const struct plain *p, size_t row, uint32_t own, const uint32_t *items, size_t n)
{
    const struct train_config *c = p->lab->config;
    double positive = similarity(p, row, own);
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        double s = similarity(p, row, items[j]);
        double difference = (s - positive) / c->loss.temperature;
        difference -= c->loss.logq ? log_q(p, items[j]) - log_q(p, own) : 0;
        const double terms[] = {
            [LOSS_SOFTMAX] = exp(difference),
            [LOSS_BILATERAL] = exp(s / c->loss.temperature - (c->loss.logq ? log_q(p, items[j]) : 0)),
            [LOSS_POINTWISE] = c->loss.negatives_per_positive / (double)n * softplus(c->loss.scale * s),
            [LOSS_TRIPLET_HINGE] = fmax(0, c->loss.margin + s - positive) / (double)n,
            [LOSS_TRIPLET_LOGISTIC] = exp(c->loss.sigma * (s - positive)),
        };
        sum += terms[c->loss.type];
    }
    if (c->loss.type == LOSS_POINTWISE) {
        return softplus(-c->loss.scale * positive) + sum;
    }
    if (c->loss.type == LOSS_BILATERAL) {
        return c->loss.balance * log(sum) - positive / c->loss.temperature;
    }
    return c->loss.type == LOSS_TRIPLET_HINGE ? sum : log1p(sum);
}

static bool never(const void *arg, uint32_t item)
{
    const struct plain *p = arg;
    bool known = p->lab->config->negatives.mask_seen && has_event(&p->lab->d->train, p->user_now, item);
    return item == p->own_now || known;
}

static double plain_loss(struct plain *p)
{
    const struct interactions *events = &p->lab->d->train;
    double total = 0;
    for (size_t row = 0; row < p->count; row++) {
        uint32_t items[1024 + 64];
        float unused[64];
        struct rng r;
        size_t n = 0;
        p->own_now = events->item[sampler_event(&p->sampler, row)];
        p->user_now = event_users_find(&p->sampler.users, sampler_event(&p->sampler, row));
        for (size_t j = 0; j < p->candidates; j++) {
            items[n] = p->candidate[j];
            n += never(p, p->candidate[j]) ? 0 : 1;
        }
        sampler_row_rng(&p->sampler, 1, row, &r);
        n += sampler_draw_own(&p->sampler, p->user_now, &r, never, p, items + n, unused);
        total += loss_of(p, row, p->own_now, items, n);
    }
    return total / (double)p->count;
}

static void check_loss(const struct variant *v)
{
    struct variant quiet = *v;
    struct lab lab;
    size_t n = 0;
    while (quiet.sets[n] != NULL) {
        n++;
    }
    /* nothing hidden or dropped: that is drawn at random */
    quiet.sets[n] = "user_tower.features.0.unknown_rate=0";
    quiet.sets[n + 1] = "item_tower.features.0.unknown_rate=0";
    open_variant(&lab, &quiet);
    struct tower_config *towers[] = {&lab.config->user_tower, &lab.config->item_tower};
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < towers[side]->n_features; i++) {
            towers[side]->features[i].unknown_rate = 0;
            lab.d->schema.towers[side].features[i].dropout = 0;
        }
        for (uint32_t i = 0; i < lab.d->schema.towers[side].layers.n; i++) {
            lab.d->schema.towers[side].layers.layer[i].rate = 0;
        }
    }
    const struct interactions *events = &lab.d->train;
    struct plain p = {.lab = &lab};
    struct err e = ERR_INIT;
    p.count = lab.config->optimizer.batch_size < events->n ? lab.config->optimizer.batch_size : events->n;
    assert_int_equal(sampler_init(&p.sampler, lab.config, lab.d, events, p.count, &e), 0);
    sampler_shuffle(&p.sampler, 1);
    sampler_draw_shared(&p.sampler, 1, 0, p.negative);
    for (size_t i = 0; lab.config->negatives.in_batch && i < p.count; i++) {
        p.candidate[p.candidates++] = events->item[sampler_event(&p.sampler, i)];
    }
    for (size_t i = 0; i < p.sampler.n_shared; i++) {
        p.candidate[p.candidates++] = p.negative[i];
    }
    plain_vectors(&p);
    double expected = plain_loss(&p);
    float **gradients = lab_gradients_new(lab.m);
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct trainer *t = start(&lab, threads);
        double loss = gradients_of(t, gradients);
        if (fabs(loss - expected) > 2e-5 * fabs(expected)) {
            fail_msg("loss %.9g, by the formula %.9g, %u threads", loss, expected, threads);
        }
        trainer_free(t);
    }
    lab_gradients_free(lab.m, gradients);
    free(p.user);
    free(p.item);
    sampler_release(&p.sampler);
    lab_close(&lab);
}

static void test_loss_is_the_formula(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        check_loss(&variants[v]);
    }
}

/* --- threads ----------------------------------------------------------------------------------------------------------*/

static void check_threads(const struct variant *v)
{
    struct lab lab;
    open_variant(&lab, v);
    float **one = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 1);
    double loss = gradients_of(t, one);
    trainer_free(t);
    const unsigned threads[] = {2, 3, 8}; /* 8: more than some batches have rows */
    for (size_t k = 0; k < 3; k++) {
        float **many = lab_gradients_new(lab.m);
        t = start(&lab, threads[k]);
        assert_true(fabs(gradients_of(t, many) - loss) < 1e-6 * (1 + fabs(loss)));
        for (size_t i = 0; i < lab.m->n_parameters; i++) {
            size_t n = lab_parameter_size(&lab.m->parameters[i]);
            double size = length_of(one[i], n);
            for (size_t j = 0; j < n; j++) { /* a bias of all items has none, but for rounding */
                if (fabs((double)one[i][j] - (double)many[i][j]) > 1e-5 * size + 1e-7) {
                    fail_msg("%s[%zu]: %g with one thread, %g with %u", lab.m->parameters[i].name, j, (double)one[i][j],
                             (double)many[i][j], threads[k]);
                }
            }
        }
        trainer_free(t);
        lab_gradients_free(lab.m, many);
    }
    lab_gradients_free(lab.m, one);
    lab_close(&lab);
}

static void test_threads_agree(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        check_threads(&variants[v]);
    }
}

/* Trains; the weights one behind the other in a new array. */
static float *weights_after(struct lab *lab, unsigned threads, uint32_t epochs, size_t *n, double *loss)
{
    struct err e = ERR_INIT;
    struct epoch_result result;
    struct trainer *t = start(lab, threads);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        if (trainer_epoch(t, epoch, "test", &result, &e) < 0) {
            fail_msg("%s", e.message);
        }
        assert_int_equal(result.examples, lab->d->train.n);
    }
    *loss = result.loss;
    trainer_free(t);
    *n = 0;
    for (size_t i = 0; i < lab->m->n_parameters; i++) {
        *n += lab_parameter_size(&lab->m->parameters[i]);
    }
    float *all = malloc(*n * sizeof *all);
    assert_non_null(all);
    for (size_t i = 0, at = 0; i < lab->m->n_parameters; i++) {
        size_t size = lab_parameter_size(&lab->m->parameters[i]);
        memcpy(all + at, lab->m->parameters[i].value, size * sizeof *all);
        at += size;
    }
    return all;
}

static float *train_variant(const struct variant *v, unsigned threads, uint64_t seed, size_t *n, double *loss)
{
    struct lab lab;
    open_variant(&lab, v);
    lab.config->seed = seed;
    model_initialize(lab.m, lab.config->optimizer.init_scale, seed);
    float *weights = weights_after(&lab, threads, 3, n, loss);
    lab_close(&lab);
    return weights;
}

static void test_repeatable(void **state)
{
    (void)state;
    for (size_t v = 0; v < VARIANTS; v++) {
        double loss[3];
        size_t n;
        for (unsigned threads = 1; threads <= 3; threads++) {
            float *a = train_variant(&variants[v], threads, 1, &n, &loss[0]);
            float *b = train_variant(&variants[v], threads, 1, &n, &loss[1]);
            float *c = train_variant(&variants[v], threads, 2, &n, &loss[2]);
            assert_memory_equal(a, b, n * sizeof *a);
            assert_true(memcmp(&loss[0], &loss[1], sizeof *loss) == 0);
            assert_memory_not_equal(a, c, n * sizeof *a);
            free(a);
            free(b);
            free(c);
        }
    }
}

/* Many small steps on several threads come to where one thread comes. */
static void test_threads_train_alike(void **state)
{
    (void)state;
    const struct variant v = {lab_full, {"negatives.uniform=6", "optimizer.type=adam", "optimizer.lr=0.001"}};
    size_t n;
    double loss;
    float *one = train_variant(&v, 1, 1, &n, &loss);
    float *three = train_variant(&v, 3, 1, &n, &loss);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(one[i] - three[i]) < 2e-3f);
    }
    free(one);
    free(three);
}

/* --- what moves -------------------------------------------------------------------------------------------------------*/

/* Distance of a table row from where it started. */
static double moved(const struct lab *lab, const struct model *before, const char *name, int row)
{
    for (size_t i = 0; i < lab->m->n_parameters; i++) {
        const struct parameter *p = &lab->m->parameters[i];
        if (strcmp(p->name, name) == 0) {
            float difference[64];
            for (size_t j = 0; j < p->columns; j++) {
                size_t at = (size_t)row * p->columns + j;
                difference[j] = p->value[at] - before->parameters[i].value[at];
            }
            return length_of(difference, p->columns);
        }
    }
    fail_msg("no parameter %s", name);
    return 0;
}

static void check_hidden(double rate, bool moves)
{
    struct lab lab;
    struct err e = ERR_INIT;
    size_t n;
    double loss;
    lab_synth(&lab, lab_full, NULL, USERS, ITEMS, EVENTS);
    for (size_t i = 0; i < lab.config->user_tower.n_features; i++) {
        lab.config->user_tower.features[i].unknown_rate = rate;
    }
    for (size_t i = 0; i < lab.config->item_tower.n_features; i++) {
        lab.config->item_tower.features[i].unknown_rate = rate;
    }
    struct model *before = model_new(&lab.d->schema, 0, &e);
    model_copy_values(before, lab.m);
    free(weights_after(&lab, 2, 2, &n, &loss));
    const char *both[] = {"item.embedding.item_id"}; /* all items have an id: only hiding makes one unknown */
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        assert_true((moved(&lab, before, both[i], SCHEMA_UNKNOWN) > 1e-3) == moves);
        assert_true((moved(&lab, before, both[i], SCHEMA_MISSING) > 1e-3) == moves);
        assert_true(moved(&lab, before, both[i], SCHEMA_FIRST) > 1e-3);
    }
    assert_true((moved(&lab, before, "item.embedding.tags", SCHEMA_UNKNOWN) > 1e-3) == moves); /* hashed bag */
    assert_true((moved(&lab, before, "user.embedding.history", SCHEMA_UNKNOWN) > 1e-3) == moves);
    assert_true((moved(&lab, before, "item.embedding.age", SCHEMA_MISSING) > 1e-3) == moves);
    assert_true(moved(&lab, before, "item.embedding.age", SCHEMA_UNKNOWN) == 0); /* a number is never unknown */
    model_free(before);
    lab_close(&lab);
}

static void test_hidden_values(void **state)
{
    (void)state;
    check_hidden(0.2, true);
    check_hidden(0, false);
}

static const char share_yaml[] =
    "data:\n"
    "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n"
    "user_tower:\n"
    "  features:\n"
    "    - {name: user_id, type: id, dim: 2, unknown_rate: 0.5}\n"
    "    - {name: history, type: sequence, of: item_id, last: 2, dim: 2, unknown_rate: 0.5}\n"
    "item_tower: {features: [{name: item_id, type: id, dim: 4, unknown_rate: 0}]}\n"
    "similarity: dot\n"
    "negatives: {in_batch: false, uniform: 64, mask_seen: false}\n"
    "loss: {temperature: 1, logq: false}\n"
    "optimizer: {batch_size: 4000}\n";

/* The share of rows that use row `row` of a user feature: one that costs 1000 where it is used, all others nothing. */
static double measure_share(struct lab *lab, int feature, int row)
{
    for (size_t i = 0; i < lab->m->n_parameters; i++) {
        struct parameter *p = &lab->m->parameters[i];
        memset(p->value, 0, lab_parameter_size(p) * sizeof *p->value);
    }
    struct parameter *items = &lab->m->parameters[lab->m->table[SIDE_ITEM][0]];
    struct parameter *table = &lab->m->parameters[lab->m->table[SIDE_USER][feature]];
    for (size_t i = 0; i < 4; i++) { /* the item of all events but one; the other one stays zero */
        items->value[SCHEMA_FIRST * 4 + i] = 1;
    }
    table->value[row * 2] = -1000;
    float **gradients = lab_gradients_new(lab->m);
    struct trainer *t = start(lab, 2);
    double loss = gradients_of(t, gradients);
    trainer_free(t);
    lab_gradients_free(lab->m, gradients);
    return loss / 1000;
}

/* Of 0.5, a quarter of the rows are unknown and a quarter missing; a bag that is missing pools nothing. */
static void test_hidden_share(void **state)
{
    (void)state;
    struct lab lab;
    struct buf b = BUF_INIT;
    buf_puts(&b, "user_id,item_id,ts\nu,b,0\n");
    for (unsigned i = 1; i < 4000; i++) {
        buf_printf(&b, "u%u,a,%u\n", i, i); /* a user each: no histories but hidden ones */
    }
    files_write("clicks.csv", b.data);
    buf_release(&b);
    lab_open(&lab, share_yaml, NULL);
    assert_true(fabs(measure_share(&lab, 0, SCHEMA_UNKNOWN) - 0.25) < 0.03);
    assert_true(fabs(measure_share(&lab, 0, SCHEMA_MISSING) - 0.25) < 0.03);
    assert_true(fabs(measure_share(&lab, 1, SCHEMA_UNKNOWN) - 0.25) < 0.03);
    assert_true(measure_share(&lab, 1, SCHEMA_MISSING) < 0.01);
    lab_close(&lab);
}

static const char hidden_negatives_yaml[] =
    "data:\n"
    "  events: {path: clicks.csv, user: user_id, item: item_id}\n"
    "user_tower: {features: [{name: user_id, type: id, dim: 4, unknown_rate: 0}]}\n"
    "item_tower: {features: [{name: item_id, type: id, dim: 4, unknown_rate: 0.5}]}\n"
    "similarity: dot\n"
    "negatives: {in_batch: false, uniform: 64, mask_seen: false}\n"
    "loss: {temperature: 1, logq: false}\n"
    "optimizer: {batch_size: 4000}\n";

/* An unknown item scores 1000, all others 0. A quarter of the positives are unknown; of a row's 64 negatives some nearly
 * always are, and cost the other three quarters 1000 each. Hidden in positives only, "unknown" would cost nobody anything. */
static void check_hidden_negatives(const char *draw)
{
    struct lab lab;
    struct buf b = BUF_INIT;
    buf_puts(&b, "user_id,item_id\n");
    for (unsigned i = 0; i < 4000; i++) {
        buf_printf(&b, "u%u,i%u\n", i, i % 100);
    }
    files_write("clicks.csv", b.data);
    buf_release(&b);
    lab_open(&lab, hidden_negatives_yaml, (const char *[]){draw, NULL});
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct parameter *table = &lab.m->parameters[lab.m->table[side][0]];
        for (size_t i = 0; i < lab_parameter_size(table); i++) {
            bool unknown = i / table->columns == SCHEMA_UNKNOWN;
            table->value[i] = side == SIDE_USER ? 1 : unknown ? 250 : 0;
        }
    }
    float **gradients = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 2);
    double loss = gradients_of(t, gradients);
    assert_true(fabs(loss / 1000 - 0.75) < 0.03);
    trainer_free(t);
    lab_gradients_free(lab.m, gradients);
    lab_close(&lab);
}

static void test_hidden_negatives(void **state)
{
    (void)state;
    check_hidden_negatives("negatives.draw=batch");
    check_hidden_negatives("negatives.draw=row");
}

/* Rows that no event of the batch uses have no gradient. */
static void test_untouched_rows(void **state)
{
    (void)state;
    struct lab lab;
    lab_synth(&lab, lab_ids, (const char *[]){"optimizer.batch_size=3", NULL}, USERS, ITEMS, EVENTS);
    lab.config->user_tower.features[0].unknown_rate = 0;
    float **gradients = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 2);
    gradients_of(t, gradients);
    const struct parameter *users = &lab.m->parameters[lab.m->table[SIDE_USER][0]];
    size_t touched = 0;
    for (size_t row = 0; row < users->rows; row++) {
        touched += length_of(gradients[lab.m->table[SIDE_USER][0]] + row * users->columns, users->columns) > 0;
    }
    assert_in_range(touched, 1, 3);
    lab_gradients_free(lab.m, gradients);
    trainer_free(t);
    lab_close(&lab);
}

/* --- histories --------------------------------------------------------------------------------------------------------*/

static const char history_yaml[] =
    "data:\n"
    "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n"
    "user_tower:\n"
    "  features: [{name: history, type: sequence, of: item_id, last: 2, dim: 4, unknown_rate: 0}]\n"
    "  network: {type: none}\n"
    "item_tower: {features: [{name: item_id, type: id, dim: 4, unknown_rate: 0}], network: {type: none}}\n"
    "similarity: dot\n"
    "negatives: {mask_seen: false}\n" LAB_REST;

/* One user: a at 1, b at 2, c and d both at 3. Histories: none; a; a b; a b. So only a and b are ever in one. */
/* Without times an event's own item is not in its history, however often it comes: here nothing is left, so nothing is
 * learned for the history. */
static void test_history_without_times(void **state)
{
    (void)state;
    struct lab lab;
    files_write("clicks.csv", "user_id,item_id\nu,a\nu,a\nv,b\nu,a\n");
    lab_open(&lab, history_yaml, (const char *const[]){"data.events.time=null", NULL});
    float **gradients = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 1);
    gradients_of(t, gradients);
    int table = lab.m->table[SIDE_USER][0];
    assert_true(length_of(gradients[table], lab_parameter_size(&lab.m->parameters[table])) == 0);
    trainer_free(t);
    lab_gradients_free(lab.m, gradients);
    lab_close(&lab);
}

static void test_history_is_strictly_before(void **state)
{
    (void)state;
    struct lab lab;
    files_write("clicks.csv", "user_id,item_id,ts\nu,a,1\nu,c,3\nu,b,2\nu,d,3\n");
    lab_open(&lab, history_yaml, NULL);
    assert_int_equal(lab.d->n_items, 4);
    float **gradients = lab_gradients_new(lab.m);
    struct trainer *t = start(&lab, 2);
    gradients_of(t, gradients);
    int table = lab.m->table[SIDE_USER][0];
    const bool used[4] = {true, true, false, false};
    for (size_t item = 0; item < 4; item++) {
        const float *row = gradients[table] + (size_t)lab.d->history_row[item] * 4;
        assert_true((length_of(row, 4) > 0) == used[item]);
    }
    lab_gradients_free(lab.m, gradients);
    trainer_free(t);
    lab_close(&lab);
}

/* --- does it learn? -----------------------------------------------------------------------------------------------------*/

/* Users 0-19 like items 0-9, users 20-39 items 10-19, each all but one. */
static void write_groups(void)
{
    struct buf b = BUF_INIT;
    buf_puts(&b, "user_id,item_id,ts\n");
    for (unsigned user = 0; user < 40; user++) {
        for (unsigned i = 0; i < 10; i++) {
            if (i != user % 10) {
                buf_printf(&b, "u%02u,i%02u,%u\n", user, (user < 20 ? 0 : 10) + i, (i * 7 + user) % 10);
            }
        }
    }
    files_write("clicks.csv", b.data);
    buf_release(&b);
}

/* How many users have an item of the other group above one of their own. */
static size_t users_astray(const struct lab *lab)
{
    size_t astray = 0;
    const struct dataset *d = lab->d;
    float user[40 * 16], item[20 * 16];
    struct tower_pass pass;
    size_t dim = lab->m->towers[0].spec->output_dim;
    for (int side = 0; side < 2; side++) {
        assert_int_equal(tower_pass_init(&pass, lab->m->towers[side].spec, 64, NULL), 0);
        tower_embed(&lab->m->towers[side], d->schema.similarity, &d->rows[side], &pass, side == 0 ? user : item);
        tower_pass_release(&pass);
    }
    for (size_t u = 0; u < 40; u++) {
        double worst_own = INFINITY;
        double best_other = -INFINITY;
        for (size_t i = 0; i < 20; i++) {
            double score = 0;
            for (size_t j = 0; j < dim; j++) {
                score += (double)user[u * dim + j] * (double)item[i * dim + j];
            }
            bool own = (u < 20) == (i < 10);
            worst_own = own ? fmin(worst_own, score) : worst_own;
            best_other = own ? best_other : fmax(best_other, score);
        }
        astray += worst_own <= best_other;
    }
    return astray;
}

static void test_two_groups(void **state)
{
    (void)state;
    static const char *const ways[][8] = {
        {"similarity=dot", "optimizer.type=adagrad", "loss.temperature=1", "user_tower.features.0.dim=2",
         "item_tower.features.0.dim=2"},
        {"similarity=cosine", "optimizer.type=adam", "optimizer.lr=0.05", "loss.temperature=0.2",
         "user_tower.features.0.dim=4", "item_tower.features.0.dim=4"},
        {"similarity=cosine", "negatives.in_batch=false", "negatives.uniform=8", "loss.temperature=0.2",
         "user_tower.features.0.dim=4", "item_tower.features.0.dim=4"},
        {"similarity=dot", "negatives.mask_seen=false", "negatives.uniform=8", "loss.temperature=1",
         "user_tower.features.0.dim=2", "item_tower.features.0.dim=2"},
        {"similarity=cosine", "loss={type: softmax, temperature: 0.2, logq_estimator: streaming}",
         "user_tower.features.0.dim=4", "item_tower.features.0.dim=4"},
        {"similarity=cosine", "loss={type: pointwise, learn: true}", "negatives={in_batch: false, uniform: 3}",
         "user_tower.features.0.dim=4", "item_tower.features.0.dim=4"},
        {"similarity=cosine", "loss={type: triplet_hinge}", "negatives={in_batch: false, uniform: 4}",
         "user_tower.features.0.dim=2", "item_tower.features.0.dim=2"},
        {"similarity=dot", "loss={type: triplet_logistic, sigma: 1}", "negatives={in_batch: false, popularity: 4}",
         "user_tower.features.0.dim=2", "item_tower.features.0.dim=2"},
    };
    write_groups();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct lab lab;
        size_t n;
        double first, last;
        lab_open(&lab, lab_ids, (const char *const *)ways[i]);
        free(weights_after(&lab, 2, 1, &n, &first));
        free(weights_after(&lab, 2, 30, &n, &last));
        assert_true(last < first);
        assert_int_equal(users_astray(&lab), 0);
        lab_close(&lab);
    }
}

/* Two numbers whose product says which group a user is of: with one number alone there is nothing to know. */
static const char lab_product[] = "data:\n"
                                  "  users: {path: users.csv, id: user_id}\n"
                                  "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n"
                                  "  split: {method: leave_last, n: 1}\n"
                                  "user_tower:\n"
                                  "  features: [{name: x, type: numeric}, {name: y, type: numeric}]\n"
                                  "  network: {type: mlp, layers: [4]}\n"
                                  "item_tower: {features: [{name: item_id, type: id, dim: 4}]}\n"
                                  "similarity: dot\n" LAB_REST;

static void write_products(void)
{
    struct buf b = BUF_INIT;
    write_groups();
    buf_printf(&b, "user_id,x,y\n");
    for (int user = 0; user < 40; user++) {
        int x = user % 2 == 0 ? 1 : -1;
        buf_printf(&b, "u%02d,%d,%d\n", user, x, user < 20 ? x : -x);
    }
    files_write("users.csv", b.data);
    buf_release(&b);
}

static void test_products(void **state)
{
    (void)state;
    static const struct {
        bool can;
        const char *sets[8];
    } ways[] = {
        {false, {"user_tower.network.layers=[4]"}}, /* linear */
        {true, {"user_tower.network.type=dcn", "user_tower.network.cross_layers=1"}},
        {true, {"user_tower.network.type=dcn", "user_tower.network.cross_layers=1", "user_tower.network.cross_rank=2"}},
        {true, {"user_tower.network.layers=[16,4]"}},
        {true, {"user_tower.network.layers=[16,4]", "user_tower.network.activation=gelu"}},
        {true, {"user_tower.network.layers=[16,4]", "user_tower.network.activation=leaky_relu"}},
        {true,
         {"user_tower.network.layers=[16,16,4]", "user_tower.network.layer_norm=true", "user_tower.network.dropout=0.1",
          "user_tower.network.residual=true"}},
    };
    write_products();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct lab lab;
        size_t n;
        double last;
        lab_open(&lab, lab_product, (const char *const *)ways[i].sets);
        free(weights_after(&lab, 2, 60, &n, &last));
        size_t astray = users_astray(&lab);
        if (ways[i].can ? astray > 0 : astray < 10) {
            fail_msg("way %zu: %zu of 40 users astray", i, astray);
        }
        lab_close(&lab);
    }
}

/* The same epoch drops the same; nothing is dropped without training, as in a tower that never had dropout. */
static void test_dropout(void **state)
{
    (void)state;
    const char *sets[] = {"user_tower.network.dropout=0.5", NULL};
    struct lab lab;
    lab_synth(&lab, lab_full, sets, USERS, ITEMS, EVENTS);
    float **gradients = lab_gradients_new(lab.m);
    struct err e = ERR_INIT;
    double loss[3];
    struct trainer *t = start(&lab, 2);
    for (uint32_t i = 0; i < 3; i++) { /* epoch 1 twice */
        assert_int_equal(trainer_gradients(t, 1 + i / 2, &loss[i], gradients, &e), 0);
    }
    assert_true(loss[0] == loss[1] && loss[0] != loss[2]);
    lab_gradients_free(lab.m, gradients);
    trainer_free(t);
    float a[16 * 7], b[16 * 7];
    struct tower_pass pass;
    assert_int_equal(tower_pass_init(&pass, lab.m->towers[SIDE_USER].spec, 16, &e), 0);
    tower_embed_block(&lab.m->towers[SIDE_USER], SIMILARITY_DOT, &lab.d->rows[SIDE_USER], 0, 16, &pass, a);
    pass.row_key = (const uint64_t[16]){0};
    tower_embed_block(&lab.m->towers[SIDE_USER], SIMILARITY_DOT, &lab.d->rows[SIDE_USER], 0, 16, &pass, b);
    assert_memory_not_equal(a, b, sizeof a);
    tower_pass_release(&pass);
    struct tower still = lab.m->towers[SIDE_USER];
    struct tower_spec spec = *still.spec; /* as a bundle's reader builds it: no dropout */
    spec.network.dropout = 0;
    assert_int_equal(network_build(&spec.layers, &spec.network, spec.input_width, &e), 0);
    still.spec = &spec;
    assert_int_equal(tower_pass_init(&pass, &spec, 16, &e), 0);
    tower_embed_block(&still, SIMILARITY_DOT, &lab.d->rows[SIDE_USER], 0, 16, &pass, b);
    assert_memory_equal(a, b, sizeof a);
    tower_pass_release(&pass);
    lab_close(&lab);
}

/* --- nonsense ---------------------------------------------------------------------------------------------------------*/

static void test_nan_names_epoch_and_batch(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    const char *sets[] = {"similarity=dot",          "optimizer.lr=100",        "loss.temperature=0.001",
                          "optimizer.init_scale=10", "optimizer.batch_size=16", NULL};
    lab_synth(&lab, lab_ids, sets, USERS, ITEMS, EVENTS);
    struct parameter *users = &lab.m->parameters[lab.m->table[SIDE_USER][0]];
    for (size_t i = 0; i < lab_parameter_size(users); i++) {
        users->value[i] = 3e38f; /* similarities overflow */
    }
    struct trainer *t = start(&lab, 3);
    int status = 0;
    for (uint32_t epoch = 1; status == 0 && epoch < 50; epoch++) {
        status = trainer_epoch(t, epoch, "test", &result, &e);
    }
    assert_true(status < 0);
    unsigned epoch, batch;
    assert_int_equal(sscanf(e.message, "epoch %u, batch %u:", &epoch, &batch), 2);
    assert_non_null(strstr(e.message, "optimizer.lr"));
    trainer_free(t);
    lab_close(&lab);
}

/* A loss that is finite but hopeless is no success either. */
static void test_runaway(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    lab_synth(&lab, lab_full, (const char *[]){"similarity=dot", "optimizer.lr=100", NULL}, USERS, ITEMS, EVENTS);
    struct trainer *t = start(&lab, 2);
    assert_true(trainer_epoch(t, 1, "test", &result, &e) < 0);
    assert_non_null(strstr(e.message, "epoch 1, batch"));
    assert_non_null(strstr(e.message, "diverged"));
    trainer_free(t);
    lab_close(&lab);
}

/* The first bad batch is the one that is named. */
static void test_nan_first_batch(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    lab_synth(&lab, lab_ids, (const char *[]){"optimizer.batch_size=16", NULL}, USERS, ITEMS, EVENTS);
    lab.config->user_tower.features[0].unknown_rate = 0;
    struct trainer *t = start(&lab, 2);
    struct sampler s;
    assert_int_equal(sampler_init(&s, lab.config, lab.d, &lab.d->train, 16, &e), 0);
    sampler_shuffle(&s, 4);
    struct parameter *users = &lab.m->parameters[lab.m->table[SIDE_USER][0]];
    uint32_t victim = event_users_find(&s.users, sampler_event(&s, 40)); /* of batch 3 at the latest */
    size_t first = 40;
    for (size_t i = 0; i < 40; i++) {
        if (event_users_find(&s.users, sampler_event(&s, i)) == victim) {
            first = i;
            break;
        }
    }
    users->value[(size_t)lab.d->rows[SIDE_USER].columns[0].index[victim] * users->columns] = NAN;
    assert_true(trainer_epoch(t, 4, "test", &result, &e) < 0);
    unsigned epoch, batch;
    assert_int_equal(sscanf(e.message, "epoch %u, batch %u:", &epoch, &batch), 2);
    assert_int_equal(epoch, 4);
    assert_int_equal(batch, first / 16 + 1);
    sampler_release(&s);
    trainer_free(t);
    lab_close(&lab);
}

/* One event, one user, one item: nothing to learn from, nothing to crash on. */
static void test_smallest(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    files_write("clicks.csv", "user_id,item_id,ts\nu,a,1\n");
    for (unsigned threads = 1; threads <= 4; threads++) {
        lab_open(&lab, lab_ids, (const char *[]){"data.split=null", "negatives.uniform=2", NULL});
        struct trainer *t = start(&lab, threads);
        assert_int_equal(trainer_epoch(t, 1, "test", &result, &e), 0);
        assert_int_equal(result.examples, 1);
        assert_true(fabs(result.loss) < 1e-6);
        trainer_free(t);
        lab_close(&lab);
    }
}

/* A tail of one row, and batches larger than the data. */
static void test_odd_batches(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    struct epoch_result result;
    lab_synth(&lab, lab_full, (const char *[]){"negatives.uniform=3", NULL}, USERS, ITEMS, EVENTS);
    uint32_t n = (uint32_t)lab.d->train.n;
    const uint32_t sizes[] = {1, 2, 7, n - 1, n, n + 1, 65536};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lab.config->optimizer.batch_size = sizes[i];
        struct trainer *t = start(&lab, 3);
        assert_int_equal(trainer_epoch(t, 1, "test", &result, &e), 0);
        assert_int_equal(result.examples, n);
        assert_null(model_find_bad(lab.m));
        trainer_free(t);
    }
    lab_close(&lab);
}

/* Every allocation fails once: an error, no crash, and the next try works. */
static void test_no_memory(void **state)
{
    (void)state;
    struct lab lab;
    struct epoch_result result;
    lab_synth(&lab, lab_full, NULL, USERS, ITEMS, EVENTS);
    long n = 1;
    for (;; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct trainer *t = trainer_new(lab.config, lab.d, &lab.d->train, lab.m, 2, &e);
        int status = t == NULL ? -1 : trainer_epoch(t, 1, "test", &result, &e);
        mem_fail_at(0);
        trainer_free(t);
        if (status == 0) {
            break;
        }
        assert_true(err_isset(&e));
    }
    assert_true(n > 60); /* both towers' worth for two workers, and the growing ones */
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_by_differences),
        cmocka_unit_test(test_unknown_and_missing_have_gradients),
        cmocka_unit_test(test_shared_gradients_are_summed),
        cmocka_unit_test(test_shared_is_updated_once),
        cmocka_unit_test(test_loss_is_the_formula),
        cmocka_unit_test(test_threads_agree),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_threads_train_alike),
        cmocka_unit_test(test_hidden_values),
        cmocka_unit_test(test_hidden_share),
        cmocka_unit_test(test_hidden_negatives),
        cmocka_unit_test(test_untouched_rows),
        cmocka_unit_test(test_history_without_times),
        cmocka_unit_test(test_history_is_strictly_before),
        cmocka_unit_test(test_two_groups),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_nan_names_epoch_and_batch),
        cmocka_unit_test(test_runaway),
        cmocka_unit_test(test_nan_first_batch),
        cmocka_unit_test(test_smallest),
        cmocka_unit_test(test_odd_batches),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
