#include "train/fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/evaluate.h"
#include "train/optimizer.h"
#include "train/trainer.h"

enum { VALIDATION_USERS = 10000 }; /* enough for a steady metric; ranking more would cost more than the epoch */

struct fit {
    const struct train_config *config;
    const struct dataset *d;
    unsigned threads;
    struct model *model;
    json_t *losses, *validations; /* per epoch of the last run */
    double examples, seconds;
    struct model *best; /* weights of the best epoch, when they are what is wanted */
    uint32_t best_epoch;
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

static int keep_best(struct fit *f, struct err *e)
{
    if (f->best == NULL) {
        f->best = model_new(&f->d->schema, 0, e);
    }
    if (f->best == NULL) {
        return -1;
    }
    model_copy_values(f->best, f->model);
    return 0;
}

/* One epoch, with its line in the log. */
static int run_epoch(struct fit *f, struct trainer *t, uint32_t epoch, uint32_t epochs, struct err *e)
{
    char label[32];
    struct epoch_result r;
    snprintf(label, sizeof label, "epoch %u/%u", epoch, epochs);
    if (trainer_epoch(t, epoch, label, &r, e) < 0) {
        return -1;
    }
    const struct parameter *bad = model_find_bad(f->model);
    if (bad != NULL) {
        return err_set(e, "epoch %u: %s holds values that are not finite; lower optimizer.lr", epoch, bad->name);
    }
    json_array_append_new(f->losses, json_real(r.loss));
    f->examples += (double)r.examples;
    f->seconds += r.seconds;
    log_info("%s  loss %.4f  %.0f examples/s", label, r.loss, (double)r.examples / r.seconds);
    return 0;
}

static int train_plain(struct fit *f, uint32_t epochs, struct err *e)
{
    struct trainer *t = trainer_new(f->config, f->d, &f->d->train, f->model, f->threads, e);
    int result = t == NULL ? -1 : 0;
    for (uint32_t epoch = 1; result == 0 && epoch <= epochs; epoch++) {
        result = run_epoch(f, t, epoch, epochs, e);
    }
    trainer_free(t);
    return result;
}

/* Trains on `rest` until the metric on `held` has stopped improving. */
static int train_until_best(struct fit *f, const struct interactions *rest, const struct interactions *held,
                            struct err *e)
{
    const struct train_config *c = f->config;
    struct trainer *t = trainer_new(c, f->d, rest, f->model, f->threads, e);
    double best = -INFINITY;
    int result = t == NULL ? -1 : 0;
    for (uint32_t epoch = 1; result == 0 && epoch <= c->optimizer.epochs; epoch++) {
        double value = 0;
        if (run_epoch(f, t, epoch, c->optimizer.epochs, e) < 0 || validate(f, rest, held, &value, e) < 0) {
            result = -1;
            break;
        }
        json_array_append_new(f->validations, json_real(value));
        log_info("validation  %s %.4f%s", c->optimizer.early_stop.metric, value, value > best ? "  (best)" : "");
        if (value > best) {
            best = value;
            f->best_epoch = epoch;
            result = c->optimizer.early_stop.refit ? 0 : keep_best(f, e);
        } else if (epoch - f->best_epoch >= c->optimizer.early_stop.patience) {
            break;
        }
    }
    trainer_free(t);
    return result;
}

static int train_early_stop(struct fit *f, struct err *e)
{
    const struct train_config *c = f->config;
    struct interactions rest = {0};
    struct interactions held = {0};
    int result = -1;
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
    log_info("training anew on the whole train part for %u epochs", f->best_epoch);
    model_initialize(f->model, c->optimizer.init_scale, c->seed);
    json_array_clear(f->losses);
    result = train_plain(f, f->best_epoch, e);
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
    return o;
}

struct model *fit_model(const struct train_config *config, const struct dataset *d, unsigned threads, json_t **record,
                        struct err *e)
{
    struct fit f = {.config = config, .d = d, .threads = threads};
    f.losses = json_array();
    f.validations = json_array();
    f.model = model_new(&d->schema, optimizer_states(config->optimizer.type), e);
    int result = -1;
    if (f.losses == NULL || f.validations == NULL) {
        err_nomem(e);
    } else if (f.model != NULL) {
        model_initialize(f.model, config->optimizer.init_scale, config->seed);
        result = config->optimizer.early_stop.enabled ? train_early_stop(&f, e)
                                                      : train_plain(&f, config->optimizer.epochs, e);
    }
    if (result == 0) {
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
