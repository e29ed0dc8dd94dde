/*
 * Baselines cost something: popularity nothing, item-based filtering some seconds, and matrix completion has to be
 * trained, about as long as the model. A report without it is still honest, so what is not asked for is trained only
 * where that takes seconds, and where the model is not matrix completion itself. What is left out is said.
 */
#include "train/fit_assess.h"

#include <string.h>

#include "core/log.h"
#include "train/assessment.h"
#include "train/baseline_item_cf.h"
#include "train/baseline_matrix.h"

enum { CHEAP_EVENTS = 500000, MATRIX_DIM = 64 };

struct fit_assessment {
    const struct train_config *config;
    const struct dataset *d;
    struct tower_ranker *model;
    unsigned threads;
    struct assessment *a;
};

/* Whether a tower knows nothing but the id. */
static bool is_id_only(const struct tower_spec *spec)
{
    return spec->network.type == NETWORK_NONE && spec->n_features == 1 && spec->features[0].type == FEATURE_ID;
}

static bool wants_matrix_completion(const struct fit_assessment *f)
{
    const struct schema *s = &f->d->schema;
    if (is_id_only(&s->towers[SIDE_USER]) && is_id_only(&s->towers[SIDE_ITEM])) {
        return false; /* the model is one itself */
    }
    if (f->d->train.n > CHEAP_EVENTS) {
        log_info("matrix_completion is left out: to train it on %zu events takes long; evaluate.baselines asks for it",
                 f->d->train.n);
        return false;
    }
    return true;
}

static bool wants(const struct fit_assessment *f, const char *name)
{
    char *const *list = f->config->evaluate.baselines;
    if (list == NULL) {
        return strcmp(name, "matrix_completion") != 0 || wants_matrix_completion(f);
    }
    while (*list != NULL && strcmp(*list, name) != 0) {
        list++;
    }
    return *list != NULL;
}

static int add_popularity(struct fit_assessment *f, const char *name, struct err *e)
{
    struct ranker ranker = popularity_ranker(f->d->item_count);
    return assessment_add(f->a, name, &ranker, e);
}

static int add_item_cf(struct fit_assessment *f, const char *name, struct err *e)
{
    const struct dataset *d = f->d;
    struct item_cf_options options = item_cf_defaults(d->n_items, f->config->seed, f->threads);
    struct item_cf *cf = item_cf_new(&d->train, d->n_users, d->n_items, d->item_count, &options, e);
    struct ranker ranker = item_cf_ranker(cf);
    int result = cf == NULL ? -1 : assessment_add(f->a, name, &ranker, e);
    item_cf_free(cf);
    return result;
}

static int add_matrix_completion(struct fit_assessment *f, const char *name, struct err *e)
{
    uint32_t dim = f->d->schema.towers[SIDE_ITEM].output_dim;
    dim = dim < MATRIX_DIM ? dim : MATRIX_DIM;
    log_info("training the baseline %s: ids only, %u numbers a vector", name, dim);
    struct matrix_completion *mc = matrix_completion_new(f->d, dim, f->config->seed, f->threads, e);
    if (mc == NULL) {
        return -1;
    }
    struct ranker ranker = matrix_completion_ranker(mc);
    int result = assessment_add(f->a, name, &ranker, e);
    matrix_completion_free(mc);
    return result;
}

static int add_baselines(struct fit_assessment *f, struct err *e)
{
    static int (*const add[])(struct fit_assessment *, const char *, struct err *) = {
        add_popularity, add_item_cf, add_matrix_completion}; /* in the order of baseline_words */
    for (size_t i = 0; i < sizeof add / sizeof *add; i++) {
        if (wants(f, baseline_words[i]) && add[i](f, baseline_words[i], e) < 0) {
            return -1;
        }
    }
    return 0;
}

static json_t *assess(struct fit_assessment *f, struct err *e)
{
    const struct dataset *d = f->d;
    char *const *names = f->config->evaluate.slices;
    struct slicing slicing = {0};
    struct ranker ranker = tower_ranker_of(f->model);
    json_t *report = NULL;
    if (assessment_add(f->a, "model", &ranker, e) < 0 || add_baselines(f, e) < 0) {
        return NULL;
    }
    if (slicing_add_events(&slicing, d->train.start, d->n_users, d->item_count, d->n_items, e) < 0 ||
        slicing_add_features(&slicing, SIDE_USER, &d->rows[SIDE_USER], names) < 0 ||
        slicing_add_features(&slicing, SIDE_ITEM, &d->rows[SIDE_ITEM], names) < 0) {
        err_nomem(e);
    } else {
        report = assessment_report(f->a, &slicing, e);
    }
    slicing_release(&slicing);
    return report;
}

json_t *fit_assess(const struct train_config *config, const struct dataset *d, struct tower_ranker *model,
                   unsigned threads, struct err *e)
{
    struct fit_assessment f = {.config = config, .d = d, .model = model, .threads = threads};
    if (d->test.n == 0) {
        log_info("no test part (data.split.method none): metrics are left out");
        json_t *empty = json_pack("{s:{}, s:{}}", "metrics", "baselines");
        if (empty == NULL) {
            err_nomem(e);
        }
        return empty;
    }
    struct evaluation ev = {
        .n_users = d->n_users,
        .n_items = d->n_items,
        .seen = &d->train,
        .relevant = &d->test,
        .unreachable = d->unreachable,
        .max_users = config->evaluate.max_users,
        .seed = config->seed,
        .at = metric_default_cutoffs,
        .threads = threads,
    };
    f.a = assessment_new(&ev, d->item_count, e);
    json_t *report = f.a == NULL ? NULL : assess(&f, e);
    assessment_free(f.a);
    return report;
}
