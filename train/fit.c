#include "train/fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/checkpointer.h"
#include "train/evaluate.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/trainer.h"
#include "train/warm_start.h"

enum { VALIDATION_USERS = 10000 }; /* enough for a steady metric; ranking more would cost more than the epoch */

/* Trainings one after the other: all of train at once; or until the validation metric is best, and perhaps anew. */
enum run { RUN_PLAIN, RUN_VALIDATION, RUN_REFIT };

struct fit {
    const struct train_config *config;
    const struct dataset *d;
    unsigned threads;
    struct checkpointer *checkpoints;
    const struct bundle *init; /* NULL: none */
    struct model *model;
    enum run run;
    struct trainer *trainer;      /* of this run */
    json_t *losses, *validations; /* per epoch of the last run */
    double examples, seconds;
    struct model *best; /* weights of the best epoch, when they are what is wanted */
    uint32_t best_epoch;
    double best_value;
    bool resumed; /* in the epoch at hand */
};

/* The one cut-off of a metric's name: recall@20 -> 20. */
static struct metric_cutoffs cutoffs_of(const char *metric)
{
    const char *at = strchr(metric, '@');
    long k = at == NULL ? 0 : strtol(at + 1, NULL, 10);
    return k < 1 || k > METRIC_MAX_K ? metric_default_cutoffs : (struct metric_cutoffs){1, {(uint32_t)k}};
}

/* The metric on the held-out part, with the model as it is. */
static int validate(struct fit *f, const struct interactions *rest, const struct interactions *held, double *value,
                    struct err *e)
{
    const struct dataset *d = f->d;
    const struct tower *items = &f->model->towers[SIDE_ITEM];
    float *vectors = mem_array(d->n_items * items->spec->output_dim, sizeof *vectors);
    struct tower_ranker *ranker = NULL;
    int result = -1;
    if (vectors == NULL) {
        return err_nomem(e);
    }
    if (embed_rows(items, d->schema.similarity, &d->rows[SIDE_ITEM], f->threads, vectors, e) < 0) {
        goto out;
    }
    ranker = tower_ranker_new(d, rest, &f->model->towers[SIDE_USER], vectors, f->threads, e);
    if (ranker == NULL) {
        goto out;
    }
    struct evaluation ev = {
        .n_users = d->n_users,
        .n_items = d->n_items,
        .seen = rest,
        .relevant = held,
        .max_users = VALIDATION_USERS,
        .seed = f->config->seed,
        .at = cutoffs_of(f->config->optimizer.early_stop.metric),
        .threads = f->threads,
    };
    struct ranker score = tower_ranker_of(ranker);
    struct metrics m;
    if (evaluate(&ev, &score, "validate", &m, e) == 0) {
        *value = metrics_get(&m, f->config->optimizer.early_stop.metric);
        result = isnan(*value) ? err_set(e, "optimizer.early_stop.metric: no metric %s; e.g. recall@20, ndcg@20, mrr",
                                         f->config->optimizer.early_stop.metric)
                               : 0;
    }
out:
    tower_ranker_free(ranker);
    mem_free(vectors);
    return result;
}

/* A model with `states` optimizer arrays a parameter, and all parameters that the configuration trains. */
static struct model *new_model(const struct train_config *config, const struct dataset *d, int states, struct err *e)
{
    struct model *m = model_new(&d->schema, states, e);
    if (m != NULL && config->loss.learn && model_add_loss_scale(m, states, loss_make(config).scale, e) < 0) {
        model_free(m);
        m = NULL;
    }
    return m;
}

static int keep_best(struct fit *f, struct err *e)
{
    if (f->best == NULL) {
        f->best = new_model(f->config, f->d, 0, e);
    }
    if (f->best == NULL) {
        return -1;
    }
    model_copy_values(f->best, f->model);
    return 0;
}

/* --- checkpoints ------------------------------------------------------------------------------------------------------ */

static size_t put_array(struct checkpoint_array *a, const char *prefix, const char *name, float *data, size_t n)
{
    snprintf(a->name, sizeof a->name, "%s.%s", prefix, name);
    a->data = data;
    a->bytes = n * sizeof *data;
    return data != NULL;
}

/* All arrays of the state: values and optimizer state, the best weights, the trainer's own. New (mem_free); NULL: no memory. */
static struct checkpoint_array *make_arrays(const struct fit *f, size_t *n)
{
    size_t limit = 4 * f->model->n_parameters + trainer_arrays_max(f->trainer);
    struct checkpoint_array *arrays = mem_array(limit, sizeof *arrays);
    *n = 0;
    for (size_t i = 0; arrays != NULL && i < f->model->n_parameters; i++) {
        const struct parameter *p = &f->model->parameters[i];
        size_t size = parameter_size(p);
        *n += put_array(&arrays[*n], "value", p->name, p->value, size);
        *n += put_array(&arrays[*n], "state0", p->name, p->state[0], size);
        *n += put_array(&arrays[*n], "state1", p->name, p->state[1], size);
        if (f->best != NULL) {
            *n += put_array(&arrays[*n], "best", p->name, f->best->parameters[i].value, size);
        }
    }
    if (arrays != NULL) {
        *n += trainer_arrays(f->trainer, arrays + *n);
    }
    return arrays;
}

static json_t *make_state(const struct fit *f, const struct trainer_position *at)
{
    json_t *o =
        json_pack("{s:i, s:I, s:I, s:f, s:I, s:O, s:O, s:f, s:f, s:I}", "run", (int)f->run, "epoch",
                  (json_int_t)at->epoch, "batch", (json_int_t)at->batch, "loss_sum", at->loss_sum, "examples_of_epoch",
                  (json_int_t)at->examples, "losses", f->losses, "validations", f->validations, "examples", f->examples,
                  "seconds", f->seconds, "best_epoch", (json_int_t)f->best_epoch);
    if (o != NULL && f->best_epoch > 0) {
        json_object_set_new(o, "best_value", json_real(f->best_value));
    }
    return o;
}

/* Weights that are not finite are no state to go on from. */
static int check_weights(const struct fit *f, uint32_t epoch, struct err *e)
{
    const struct parameter *bad = model_find_bad(f->model);
    return bad == NULL
               ? 0
               : err_set(e, "epoch %u: %s holds values that are not finite; lower optimizer.lr", epoch, bad->name);
}

static void save(struct fit *f, const struct trainer_position *at)
{
    size_t n;
    struct checkpoint_array *arrays = f->checkpoints == NULL ? NULL : make_arrays(f, &n);
    json_t *state = arrays == NULL ? NULL : make_state(f, at);
    if (state != NULL) {
        checkpointer_save(f->checkpoints, state, arrays, n);
    } else if (f->checkpoints != NULL) {
        log_warn("no checkpoint: out of memory; training goes on");
    }
    json_decref(state);
    mem_free(arrays);
}

static int save_when_due(void *context, const struct trainer_position *at, struct err *e)
{
    struct fit *f = context;
    if (!checkpointer_is_due(f->checkpoints)) {
        return 0;
    }
    if (check_weights(f, at->epoch, e) < 0) {
        return -1;
    }
    save(f, at);
    return 0;
}

static json_int_t whole(const json_t *state, const char *name)
{
    return json_integer_value(json_object_get(state, name));
}

static bool found_run(const struct fit *f, enum run run)
{
    const struct checkpoint *found = checkpointer_found(f->checkpoints);
    return found != NULL && whole(checkpoint_state(found), "run") == (json_int_t)run;
}

static void read_state(struct fit *f, const json_t *state)
{
    json_array_clear(f->losses);
    json_array_clear(f->validations);
    json_array_extend(f->losses, json_object_get(state, "losses"));
    json_array_extend(f->validations, json_object_get(state, "validations"));
    f->examples = json_number_value(json_object_get(state, "examples"));
    f->seconds = json_number_value(json_object_get(state, "seconds"));
    f->best_epoch = (uint32_t)whole(state, "best_epoch");
    f->best_value = f->best_epoch > 0 ? json_number_value(json_object_get(state, "best_value")) : -INFINITY;
}

/* Puts a run where its checkpoint, if there is one, has it. *epoch becomes the one to begin with. */
static int resume(struct fit *f, uint32_t epochs, uint32_t *epoch, struct err *e)
{
    size_t n;
    *epoch = 1;
    if (!found_run(f, f->run)) {
        return 0;
    }
    const struct checkpoint *found = checkpointer_found(f->checkpoints);
    const json_t *state = checkpoint_state(found);
    struct trainer_position at = {
        .epoch = (uint32_t)whole(state, "epoch"),
        .batch = (size_t)whole(state, "batch"),
        .loss_sum = json_number_value(json_object_get(state, "loss_sum")),
        .examples = (size_t)whole(state, "examples_of_epoch"),
    };
    read_state(f, state);
    bool keeps_best = f->run == RUN_VALIDATION && f->best_epoch > 0 && !f->config->optimizer.early_stop.refit;
    if (keeps_best && (f->best = new_model(f->config, f->d, 0, e)) == NULL) {
        return -1;
    }
    struct checkpoint_array *arrays = make_arrays(f, &n);
    int result = arrays == NULL ? err_nomem(e) : checkpoint_load(found, arrays, n, e);
    mem_free(arrays);
    if (result == 0) {
        trainer_resume(f->trainer, &at);
        *epoch = at.epoch;
        f->resumed = true;
        if (at.epoch <= epochs) {
            log_info("resumed from the checkpoint: epoch %u/%u, batch %zu", at.epoch, epochs, at.batch + 1);
        } else {
            log_info("resumed from the checkpoint: all epochs are done");
        }
        checkpointer_resumed(f->checkpoints);
    }
    return result;
}

static int check_init(const struct fit *f, struct err *e)
{
    struct err why = ERR_INIT;
    return f->init == NULL || warm_start_check(&f->d->schema, f->init, &why) == 0
               ? 0
               : err_set(e,
                         "--init %s: %s; a model can go on only with the same features and networks: change it back, "
                         "or train anew, without --init",
                         f->init->dir, why.message);
}

/* Where a training begins. */
static int begin_model(struct fit *f, struct err *e)
{
    const struct train_config *c = f->config;
    model_initialize(f->model, c->optimizer.init_scale, c->seed);
    return f->init == NULL ? 0 : warm_start(f->model, f->init, e);
}

/* --- runs ------------------------------------------------------------------------------------------------------------- */

/* One epoch, with its line in the log. */
static int run_epoch(struct fit *f, uint32_t epoch, uint32_t epochs, struct err *e)
{
    char label[48];
    struct epoch_result r;
    snprintf(label, sizeof label, "epoch %u/%u%s", epoch, epochs, f->resumed ? " (resumed)" : "");
    f->resumed = false;
    if (trainer_epoch(f->trainer, epoch, label, &r, e) < 0 || check_weights(f, epoch, e) < 0) {
        return -1;
    }
    json_array_append_new(f->losses, json_real(r.loss));
    f->examples += (double)r.examples;
    f->seconds += r.seconds;
    log_info("%s  loss %.4f  %.0f examples/s", label, r.loss, (double)r.examples / r.seconds);
    return 0;
}

/* Begins a run, or goes on with it. */
static int begin_run(struct fit *f, enum run run, const struct interactions *part, uint32_t epochs, uint32_t *epoch,
                     struct err *e)
{
    f->run = run;
    f->trainer = trainer_new(f->config, f->d, part, f->model, f->threads, e);
    if (f->trainer == NULL) {
        return -1;
    }
    trainer_watch(f->trainer, save_when_due, f);
    return resume(f, epochs, epoch, e);
}

static void end_run(struct fit *f)
{
    trainer_free(f->trainer);
    f->trainer = NULL;
}

static int train_plain(struct fit *f, enum run run, uint32_t epochs, struct err *e)
{
    uint32_t epoch;
    int result = begin_run(f, run, &f->d->train, epochs, &epoch, e);
    for (; result == 0 && epoch <= epochs; epoch++) {
        result = run_epoch(f, epoch, epochs, e);
        if (result == 0) {
            save(f, &(struct trainer_position){.epoch = epoch + 1});
        }
    }
    end_run(f);
    return result;
}

/* The epoch's metric, and what follows from it. */
static int judge_epoch(struct fit *f, const struct interactions *rest, const struct interactions *held, uint32_t epoch,
                       struct err *e)
{
    double value = 0;
    if (validate(f, rest, held, &value, e) < 0) {
        return -1;
    }
    json_array_append_new(f->validations, json_real(value));
    bool best = value > f->best_value;
    log_info("validation  %s %.4f%s", f->config->optimizer.early_stop.metric, value, best ? "  (best)" : "");
    if (!best) {
        return 0;
    }
    f->best_value = value;
    f->best_epoch = epoch;
    return f->config->optimizer.early_stop.refit ? 0 : keep_best(f, e);
}

/* Trains on `rest` until the metric on `held` has stopped improving. */
static int train_until_best(struct fit *f, const struct interactions *rest, const struct interactions *held,
                            struct err *e)
{
    uint32_t epochs = f->config->optimizer.epochs;
    uint32_t patience = f->config->optimizer.early_stop.patience;
    uint32_t epoch;
    f->best_value = -INFINITY;
    int result = begin_run(f, RUN_VALIDATION, rest, epochs, &epoch, e);
    for (; result == 0 && epoch <= epochs && epoch - 1 - f->best_epoch < patience; epoch++) {
        result = run_epoch(f, epoch, epochs, e);
        result = result < 0 ? result : judge_epoch(f, rest, held, epoch, e);
        if (result == 0) {
            save(f, &(struct trainer_position){.epoch = epoch + 1});
        }
    }
    end_run(f);
    return result;
}

/* Trains anew on the whole train part for the best number of epochs. */
static int refit(struct fit *f, struct err *e)
{
    if (found_run(f, RUN_REFIT)) {
        read_state(f, checkpoint_state(checkpointer_found(f->checkpoints)));
    } else {
        log_info("training anew on the whole train part for %u epochs", f->best_epoch);
        json_array_clear(f->losses);
        if (begin_model(f, e) < 0) {
            return -1;
        }
    }
    return train_plain(f, RUN_REFIT, f->best_epoch, e);
}

static int train_early_stop(struct fit *f, struct err *e)
{
    const struct train_config *c = f->config;
    struct interactions rest = {0};
    struct interactions held = {0};
    int result = -1;
    if (found_run(f, RUN_REFIT)) {
        return refit(f, e);
    }
    if (dataset_cut(f->d, c->optimizer.early_stop.validation, c->seed, &rest, &held, e) < 0) {
        goto out;
    }
    if (held.n == 0) {
        err_set(e,
                "optimizer.early_stop.validation: no events could be held out; use a larger share, or no early_stop");
        goto out;
    }
    log_info("early stopping on %s of %zu events held out of train", c->optimizer.early_stop.metric, held.n);
    if (train_until_best(f, &rest, &held, e) < 0) {
        goto out;
    }
    if (!c->optimizer.early_stop.refit) {
        model_copy_values(f->model, f->best);
        result = 0;
        goto out;
    }
    result = refit(f, e);
out:
    interactions_release(&rest);
    interactions_release(&held);
    return result;
}

static json_t *make_record(const struct fit *f)
{
    double rate = f->seconds > 0 ? f->examples / f->seconds : 0;
    json_t *o =
        json_pack("{s:I, s:O, s:f, s:f, s:i}", "epochs", (json_int_t)json_array_size(f->losses), "loss", f->losses,
                  "examples_per_second", round(rate), "seconds", f->seconds, "threads", (int)f->threads);
    if (o != NULL && f->best_epoch > 0) {
        json_object_set(o, "validation", f->validations);
        json_object_set_new(o, "validation_metric", json_string(f->config->optimizer.early_stop.metric));
        json_object_set_new(o, "best_epoch", json_integer(f->best_epoch));
    }
    if (o != NULL && f->init != NULL) {
        json_object_set_new(o, "init", json_string(f->init->version));
    }
    if (o != NULL && f->model->loss_scale >= 0) {
        double scale = exp((double)f->model->parameters[f->model->loss_scale].value[0]);
        bool softmax = f->config->loss.type == LOSS_SOFTMAX;
        json_object_set_new(o, softmax ? "temperature" : "scale", json_real(softmax ? 1 / scale : scale));
    }
    return o;
}

/* Cosines are at most 1 apart from 0: a scale that has learned to be so large looks at the hardest negatives alone. It is
 * a sign of a train part known by heart: the loss falls with it, and what is recalled gets worse. */
static void warn_of_scale(const struct fit *f)
{
    static const double LARGE = 20; /* temperature 0.05 */
    int scale_at = f->model->loss_scale;
    double scale = scale_at < 0 ? 0 : exp((double)f->model->parameters[scale_at].value[0]);
    if (f->d->schema.similarity == SIMILARITY_COSINE && scale > LARGE) {
        log_warn(
            "loss.learn: similarities are now multiplied with %.3g (temperature %.3g), as happens when a model comes "
            "to know its train part by heart: compare with learn: false",
            scale, 1 / scale);
    }
}

struct model *fit_model(const struct fit_job *job, json_t **record, struct err *e)
{
    const struct train_config *config = job->config;
    struct fit f = {
        .config = config,
        .d = job->d,
        .threads = job->threads,
        .checkpoints = job->checkpoints,
        .init = job->init,
    };
    f.losses = json_array();
    f.validations = json_array();
    f.model = new_model(config, job->d, optimizer_states(config->optimizer.type), e);
    int result = -1;
    if (f.losses == NULL || f.validations == NULL) {
        err_nomem(e);
    } else if (f.model != NULL && check_init(&f, e) == 0 && begin_model(&f, e) == 0) {
        result = config->optimizer.early_stop.enabled ? train_early_stop(&f, e)
                                                      : train_plain(&f, RUN_PLAIN, config->optimizer.epochs, e);
    }
    if (result == 0) {
        warn_of_scale(&f);
        model_drop_state(f.model); /* as large as the model, and what follows needs memory, too */
        *record = make_record(&f);
        result = *record == NULL ? err_nomem(e) : 0;
    }
    json_decref(f.losses);
    json_decref(f.validations);
    model_free(f.best);
    if (result < 0) {
        model_free(f.model);
        return NULL;
    }
    return f.model;
}
