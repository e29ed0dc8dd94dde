/*
 * The trainer without what is around it, for comparison with PyTorch: what it sees, what it makes of it, how long it takes.
 *
 *   train_probe batch  CONFIG OUT [key=value ...]            one batch: encoded rows, parameters, loss, every gradient
 *   train_probe inputs CONFIG OUT EPOCHS [key=value ...]     what a run of EPOCHS sees: all rows, the order of events,
 *                                                            the parameters it starts from
 *   train_probe run    CONFIG EPOCHS THREADS [key=value ...] trains; a line an epoch: loss, examples, seconds,
 *                                                            CPU seconds
 *
 * batch and inputs write OUT.safetensors and OUT.json (schema and settings). Every tensor is float32, indices too, which
 * are exact up to 2^24. Names:
 *   value.<parameter>, gradient.<parameter>     as in weights.safetensors
 *   <side>.<feature>.index | .start | .number   encoded rows as in core/features.h; for items of a batch: the positives,
 *                                               then the candidates drawn for it
 *   items, log_q       the candidates of a batch: item and correction; of `inputs`: log_q of each item
 *   users              [positives] the user of each
 *   seen.start, seen.item     each user's train events, as struct interactions
 *   order.<epoch>      [events] positions in seen.item; history.start, history.row: table rows of the history before each
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/vecmath.h"
#include "train/dataset.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/phase.h"
#include "train/trainer.h"

enum { MAX_TENSORS = 1024 };

static struct tensor tensors[MAX_TENSORS];
static size_t n_tensors;

struct world {
    struct train_config *config;
    struct dataset *d;
    struct model *m;
};

static void fail(const char *message)
{
    fprintf(stderr, "train_probe: %s\n", message);
    exit(1);
}

static void *must(void *pointer)
{
    if (pointer == NULL) {
        fail("out of memory");
    }
    return pointer;
}

static void open_world(struct world *w, const char *path, char **sets, int n_sets)
{
    struct err e = ERR_INIT;
    struct buf problems = BUF_INIT;
    log_setup(LOG_LEVEL_ERROR, false);
    w->config = train_config_load(path, (const char *const *)sets, (size_t)n_sets, &problems);
    if (w->config == NULL) {
        fail(problems.data);
    }
    w->d = blas_setup(&e) < 0 ? NULL : dataset_load(w->config, &e);
    w->m = w->d == NULL ? NULL : model_new(&w->d->schema, optimizer_states(w->config->optimizer.type), &e);
    if (w->m == NULL ||
        (w->config->loss.learn &&
         model_add_loss_scale(w->m, optimizer_states(w->config->optimizer.type), loss_make(w->config).scale, &e) < 0)) {
        fail(e.message);
    }
    model_initialize(w->m, w->config->optimizer.init_scale, w->config->seed);
}

/* --- tensors ----------------------------------------------------------------------------------------------------------*/

/* A new tensor of n numbers, for the caller to fill. */
static float *add(const char *prefix, const char *name, const char *suffix, size_t rows, size_t columns)
{
    size_t length = strlen(prefix) + strlen(name) + strlen(suffix) + 1;
    char *whole = must(malloc(length));
    float *data = must(calloc(rows * (columns > 0 ? columns : 1) + 1, sizeof *data));
    if (n_tensors == MAX_TENSORS) {
        fail("too many tensors");
    }
    snprintf(whole, length, "%s%s%s", prefix, name, suffix);
    tensors[n_tensors++] = (struct tensor){whole, rows, columns, data};
    return data;
}

#define ADD_ARRAY(prefix, name, suffix, array, n)         \
    do {                                                  \
        float *data_ = add(prefix, name, suffix, (n), 0); \
        for (size_t i_ = 0; i_ < (n); i_++) {             \
            data_[i_] = (float)(array)[i_];               \
        }                                                 \
    } while (0)

static void add_parameters(const char *prefix, const struct model *m, float **arrays)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        const struct parameter *p = &m->parameters[i];
        float *data = add(prefix, p->name, "", p->rows, p->columns);
        memcpy(data, arrays == NULL ? p->value : arrays[i], p->rows * (p->columns > 0 ? p->columns : 1) * sizeof *data);
    }
}

static void add_rows(enum side side, const struct feature_rows *rows)
{
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        const struct feature_column *c = &rows->columns[i];
        const char *prefix = side == SIDE_USER ? "user." : "item.";
        if (feature_is_bag(f)) {
            ADD_ARRAY(prefix, f->name, ".start", c->start, rows->n + 1);
            ADD_ARRAY(prefix, f->name, ".index", c->index, c->start[rows->n]);
        } else if (f->rows > 0) {
            ADD_ARRAY(prefix, f->name, ".index", c->index, rows->n);
        } else {
            ADD_ARRAY(prefix, f->name, ".number", c->number, rows->n);
        }
    }
}

static void add_seen(const struct dataset *d)
{
    ADD_ARRAY("", "seen.start", "", d->train.start, d->n_users + 1);
    ADD_ARRAY("", "seen.item", "", d->train.item, d->train.n);
}

static json_t *loss_settings(const struct train_config *c)
{
    return json_pack("{s:s, s:f, s:b, s:f, s:f, s:f, s:f, s:f}", "type", loss_type_words[c->loss.type], "temperature",
                     c->loss.temperature, "logq", c->loss.logq, "balance", c->loss.balance, "scale", c->loss.scale,
                     "negatives_per_positive", c->loss.negatives_per_positive, "margin", c->loss.margin, "sigma",
                     c->loss.sigma);
}

/* The rows' own negatives, which stand behind the others in the item rows, and the rows' weights. */
static void add_row_parts(const struct trainer *t)
{
    const struct own_negatives *own = &t->workers[0].own;
    size_t n = own_count(&t->workers[0]);
    if (n > 0) {
        ADD_ARRAY("", "own.start", "", own->start, t->count + 1);
        ADD_ARRAY("", "own.log_q", "", own->log_q, n);
    }
    float *weight = add("", "weight", "", t->count, 0);
    for (size_t i = 0; i < t->count; i++) {
        weight[i] = t->events->weight == NULL ? 1.0f : t->events->weight[t->event[i]] * t->weight_scale;
    }
}

static void write_all(const struct world *w, const char *out, double loss)
{
    const struct train_config *c = w->config;
    struct err e = ERR_INIT;
    struct buf path = BUF_INIT;
    json_t *o = json_pack("{s:o, s:f, s:i, s:o, s:{s:b, s:i, s:b}, s:{s:s, s:f}}", "schema",
                          schema_to_json(&w->d->schema), "loss_value", loss, "batch_size", (int)c->optimizer.batch_size,
                          "loss", loss_settings(c), "negatives", "in_batch", c->negatives.in_batch, "uniform",
                          (int)c->negatives.uniform, "mask_seen", c->negatives.mask_seen, "optimizer", "type",
                          optimizer_type_words[c->optimizer.type], "lr", c->optimizer.lr);
    buf_printf(&path, "%s.json", out);
    if (o == NULL || buf_failed(&path) || json_dump_file(o, path.data, JSON_INDENT(1)) != 0) {
        fail("cannot write the description");
    }
    json_decref(o);
    buf_release(&path);
    buf_printf(&path, "%s.safetensors", out);
    unlink(path.data);
    if (safetensors_write(path.data, tensors, n_tensors, &e) < 0) {
        fail(e.message);
    }
    buf_release(&path);
}

/* --- commands ---------------------------------------------------------------------------------------------------------*/

static struct trainer *start(const struct world *w, unsigned threads)
{
    struct err e = ERR_INIT;
    struct trainer *t = trainer_new(w->config, w->d, &w->d->train, w->m, threads, &e);
    if (t == NULL) {
        fail(e.message);
    }
    return t;
}

/* Biases start at 0, where a unit that is off for a row can leave it a vector of length 0: nothing to compare. */
static void move_biases(struct model *m)
{
    struct rng r;
    rng_seed(&r, 17, 0);
    for (size_t i = 0; i < m->n_parameters; i++) {
        const char *name = m->parameters[i].name;
        size_t length = strlen(name);
        bool is_bias = length > 5 && strcmp(name + length - 5, ".bias") == 0;
        for (size_t j = 0; is_bias && j < m->parameters[i].rows; j++) {
            m->parameters[i].value[j] += 0.2f * rng_normal(&r);
        }
    }
}

static void command_batch(const struct world *w, const char *out)
{
    struct err e = ERR_INIT;
    double loss = 0;
    move_biases(w->m);
    struct trainer *t = start(w, 1);
    float **gradients = must(calloc(w->m->n_parameters, sizeof *gradients));
    for (size_t i = 0; i < w->m->n_parameters; i++) {
        const struct parameter *p = &w->m->parameters[i];
        gradients[i] = must(calloc(p->rows * (p->columns > 0 ? p->columns : 1), sizeof **gradients));
    }
    if (trainer_gradients(t, 1, &loss, gradients, &e) < 0) {
        fail(e.message);
    }
    add_parameters("value.", w->m, NULL);
    add_parameters("gradient.", w->m, gradients);
    add_rows(SIDE_USER, &t->workers[0].rows[SIDE_USER]);
    add_rows(SIDE_ITEM, &t->workers[0].rows[SIDE_ITEM]);
    add_seen(w->d);
    ADD_ARRAY("", "items", "", t->items, t->count + t->n_negatives);
    ADD_ARRAY("", "log_q", "", t->log_q, t->count + t->n_negatives);
    ADD_ARRAY("", "users", "", t->user, t->count);
    add_row_parts(t);
    write_all(w, out, loss);
    for (size_t i = 0; i < w->m->n_parameters; i++) {
        free(gradients[i]);
    }
    free(gradients);
    trainer_free(t);
}

static void add_history(const struct dataset *d, const struct sampler *s)
{
    size_t last = d->schema.towers[SIDE_USER].features[d->history].last;
    int32_t *rows = must(calloc(last, sizeof *rows));
    float *start = add("", "history.start", "", s->n_events + 1, 0);
    float *all = must(calloc(s->n_events * last, sizeof *all));
    size_t n = 0;
    for (size_t i = 0; i < s->n_events; i++) {
        size_t count = dataset_history(d, &d->train, event_users_find(&s->users, i), i, rows);
        for (size_t j = 0; j < count; j++) {
            all[n++] = (float)rows[j];
        }
        start[i + 1] = (float)n;
    }
    if (n > 1 << 24) {
        fail("too many events for exact float32 positions");
    }
    ADD_ARRAY("", "history.row", "", all, n);
    free(all);
    free(rows);
}

static void command_inputs(const struct world *w, const char *out, uint32_t epochs)
{
    struct trainer *t = start(w, 1);
    add_parameters("value.", w->m, NULL);
    add_rows(SIDE_USER, &w->d->rows[SIDE_USER]);
    add_rows(SIDE_ITEM, &w->d->rows[SIDE_ITEM]);
    add_seen(w->d);
    ADD_ARRAY("", "log_q", "", t->sampler.item_log_q, w->d->n_items);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        char name[32];
        snprintf(name, sizeof name, "%u", epoch);
        sampler_shuffle(&t->sampler, epoch);
        float *order = add("order.", name, "", t->sampler.n_events, 0);
        for (size_t i = 0; i < t->sampler.n_events; i++) {
            order[i] = (float)sampler_event(&t->sampler, i);
        }
    }
    if (w->d->history >= 0) {
        add_history(w->d, &t->sampler);
    }
    write_all(w, out, 0);
    trainer_free(t);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void command_run(const struct world *w, uint32_t epochs, unsigned threads)
{
    struct err e = ERR_INIT;
    struct trainer *t = start(w, threads);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        struct epoch_result r;
        double cpu = cpu_seconds();
        if (trainer_epoch(t, epoch, "epoch", &r, &e) < 0) {
            fail(e.message);
        }
        printf("%.9g\t%zu\t%.6f\t%.6f\n", r.loss, r.examples, r.seconds, cpu_seconds() - cpu);
        fflush(stdout);
    }
    trainer_free(t);
}

int main(int argc, char **argv)
{
    struct world w = {0};
    bool batch = argc >= 4 && strcmp(argv[1], "batch") == 0;
    bool inputs = argc >= 5 && strcmp(argv[1], "inputs") == 0;
    bool run = argc >= 5 && strcmp(argv[1], "run") == 0;
    if (!batch && !inputs && !run) {
        fprintf(stderr, "usage: see the head of tests/oracle/train_probe.c\n");
        return 2;
    }
    int sets = batch ? 4 : 5;
    open_world(&w, argv[2], argv + sets, argc - sets);
    if (batch) {
        command_batch(&w, argv[3]);
    } else if (inputs) {
        command_inputs(&w, argv[3], (uint32_t)atoi(argv[4]));
    } else {
        command_run(&w, (uint32_t)atoi(argv[3]), (unsigned)atoi(argv[4]));
    }
    for (size_t i = 0; i < n_tensors; i++) {
        free((void *)(uintptr_t)tensors[i].name);
        free((void *)(uintptr_t)tensors[i].data);
    }
    model_free(w.m);
    dataset_free(w.d);
    train_config_free(w.config);
    return 0;
}
