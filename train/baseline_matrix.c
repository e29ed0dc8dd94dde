/*
 * The trainer reads a data set's interactions, schema and encoded rows. Here the interactions are the model's own, and the
 * schema is another one: on each side the id is the only feature.
 */
#include "train/baseline_matrix.h"

#include <stdlib.h>
#include <string.h>

#include "config/train_config.h"
#include "core/mem.h"
#include "train/dataset_ids.h"
#include "train/fit.h"
#include "train/model.h"

enum { EPOCHS = 20, MIN_BATCH = 32, MAX_BATCH = 1024, STEPS = 50 };

/* Small data need small batches, or an epoch is no step at all: at least STEPS an epoch, if batches stay sensible. */
static uint32_t batch_size(size_t events)
{
    size_t size = events / STEPS;
    return size < MIN_BATCH ? MIN_BATCH : size > MAX_BATCH ? MAX_BATCH : (uint32_t)size;
}

struct matrix_completion {
    struct train_config *config;
    struct dataset d; /* the model's, with schema and rows of its own */
    struct buf vocab[2];
    struct model *model;
    float *item_vectors;
    struct tower_ranker *ranker;
};

/* One feature: the ids that have train events, counts [ids->count]. */
static int make_side(struct matrix_completion *mc, enum side side, const struct strtab *ids, const uint32_t *counts,
                     uint32_t dim, struct err *e)
{
    struct tower_spec *spec = &mc->d.schema.towers[side];
    spec->features = mem_array(1, sizeof *spec->features);
    if (spec->features == NULL) {
        return err_nomem(e);
    }
    spec->n_features = 1;
    spec->network.type = NETWORK_NONE;
    struct feature *f = &spec->features[0];
    strcpy(f->name, "id");
    f->type = FEATURE_ID;
    f->dim = dim;
    f->stddev = 1;
    return ids_frequent(ids, counts, 1, &mc->vocab[side], &f->vocab, e);
}

static int make_schema(struct matrix_completion *mc, uint32_t dim, struct err *e)
{
    struct dataset *d = &mc->d;
    uint32_t *user_count = mem_array(d->n_users, sizeof *user_count);
    if (user_count == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < d->n_users; u++) {
        user_count[u] = (uint32_t)(d->train.start[u + 1] - d->train.start[u]);
    }
    d->schema = (struct schema){.similarity = SIMILARITY_DOT};
    d->history = -1;
    d->history_row = NULL;
    int result = make_side(mc, SIDE_USER, &d->user_ids, user_count, dim, e) < 0 ||
                         make_side(mc, SIDE_ITEM, &d->item_ids, d->item_count, dim, e) < 0
                     ? -1
                     : schema_finish(&d->schema, e);
    mem_free(user_count);
    return result;
}

static int make_rows(struct matrix_completion *mc, enum side side, const struct strtab *ids, struct err *e)
{
    struct feature_rows *rows = &mc->d.rows[side];
    struct feature_error fe;
    if (feature_rows_init(rows, &mc->d.schema.towers[side]) < 0) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < ids->count; i++) {
        struct value id = {.kind = VALUE_TEXT};
        id.text = strtab_get(ids, i, &id.length);
        if (features_add(rows, &id, &fe) < 0) {
            return err_set(e, "matrix_completion: %s", fe.message);
        }
    }
    return 0;
}

static int train(struct matrix_completion *mc, unsigned threads, struct err *e)
{
    const struct dataset *d = &mc->d;
    json_t *record = NULL;
    mc->model = fit_model(&(struct fit_job){.config = mc->config, .d = d, .threads = threads}, &record, e);
    json_decref(record);
    if (mc->model == NULL) {
        return -1;
    }
    const struct tower *items = &mc->model->towers[SIDE_ITEM];
    mc->item_vectors = mem_array(d->n_items * items->spec->output_dim, sizeof *mc->item_vectors);
    if (mc->item_vectors == NULL) {
        return err_nomem(e);
    }
    if (embed_rows(items, SIMILARITY_DOT, &d->rows[SIDE_ITEM], threads, mc->item_vectors, e) < 0) {
        return -1;
    }
    mc->ranker = tower_ranker_new(d, NULL, &mc->model->towers[SIDE_USER], mc->item_vectors, threads, e);
    return mc->ranker == NULL ? -1 : 0;
}

struct matrix_completion *matrix_completion_new(const struct dataset *d, uint32_t dim, uint64_t seed, unsigned threads,
                                                struct err *e)
{
    struct matrix_completion *mc = mem_array(1, sizeof *mc);
    if (mc == NULL) {
        err_nomem(e);
        return NULL;
    }
    mc->d = *d;
    memset(mc->d.rows, 0, sizeof mc->d.rows);
    mc->d.schema = (struct schema){0};
    mc->vocab[SIDE_USER] = mc->vocab[SIDE_ITEM] = (struct buf)BUF_INIT;
    mc->config = train_config_matrix_completion(dim, batch_size(d->train.n), EPOCHS, seed);
    if (mc->config == NULL) {
        err_nomem(e);
    }
    if (mc->config == NULL || make_schema(mc, dim, e) < 0 || make_rows(mc, SIDE_USER, &d->user_ids, e) < 0 ||
        make_rows(mc, SIDE_ITEM, &d->item_ids, e) < 0 || train(mc, threads, e) < 0) {
        matrix_completion_free(mc);
        return NULL;
    }
    return mc;
}

void matrix_completion_free(struct matrix_completion *mc)
{
    if (mc == NULL) {
        return;
    }
    tower_ranker_free(mc->ranker);
    mem_free(mc->item_vectors);
    model_free(mc->model);
    for (enum side side = SIDE_USER; side <= SIDE_ITEM; side++) {
        feature_rows_release(&mc->d.rows[side]);
        buf_release(&mc->vocab[side]);
    }
    schema_release(&mc->d.schema);
    train_config_free(mc->config);
    mem_free(mc);
}

struct ranker matrix_completion_ranker(struct matrix_completion *mc)
{
    return tower_ranker_of(mc->ranker);
}
