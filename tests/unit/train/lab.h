/*
 * A small world to train on: synth's files with configurations of our own. Include behind <cmocka.h>.
 */
#ifndef TESTS_UNIT_TRAIN_LAB_H
#define TESTS_UNIT_TRAIN_LAB_H

#include "config/train_config.h"
#include "core/log.h"
#include "tests/unit/train/files.h"
#include "train/dataset.h"
#include "train/loss.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/synth.h"
#include "train/trainer.h"

#define LAB_DATA                                                             \
    "data:\n"                                                                \
    "  users: {path: users.csv, id: user_id}\n"                              \
    "  items: {path: items.csv, id: item_id}\n"                              \
    "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n" \
    "  split: {method: leave_last, n: 1}\n"

#define LAB_REST                                                                        \
    "loss: {type: softmax, temperature: 0.5}\n"                                         \
    "optimizer: {type: adagrad, lr: 0.1, batch_size: 97, epochs: 3, init_scale: 0.3}\n" \
    "index: {engine: flat}\n"                                                           \
    "output: {dir: models}\n"

/* Every type of feature, and hidden layers. */
static const char lab_full[] =
    LAB_DATA "user_tower:\n"
             "  features:\n"
             "    - {name: user_id, type: id, dim: 6, min_count: 4}\n"
             "    - {name: gender, type: onehot}\n"
             "    - {name: city, type: categorical, dim: 4, min_count: 2}\n"
             "    - {name: topics, type: categorical, multi: \"|\", dim: 5, pooling: sum}\n"
             "    - {name: age, type: numeric, transform: standardize}\n"
             "    - {name: spend, type: numeric, transform: log}\n"
             "    - {name: activity, type: numeric, transform: bucketize, buckets: 5, dim: 3}\n"
             "    - {name: history, type: sequence, of: item_id, last: 5, dim: 4, pooling: mean}\n"
             "  network: {type: mlp, layers: [12, 7]}\n"
             "item_tower:\n"
             "  features:\n"
             "    - {name: item_id, type: id, dim: 6}\n"
             "    - {name: category, type: onehot}\n"
             "    - {name: tags, type: categorical, multi: \"|\", dim: 5, buckets: 17, pooling: mean}\n"
             "    - {name: price, type: numeric, transform: log}\n"
             "    - {name: age, type: numeric, transform: bucketize, buckets: 4, dim: 3}\n"
             "  network: {type: mlp, layers: [9, 7]}\n" LAB_REST;

/* Embeddings side by side are the vectors. */
static const char lab_wide[] =
    LAB_DATA "user_tower:\n"
             "  features:\n"
             "    - {name: user_id, type: id, dim: 6}\n"
             "    - {name: city, type: categorical, dim: 4}\n"
             "    - {name: topics, type: categorical, multi: \"|\", dim: 3, pooling: mean}\n"
             "    - {name: history, type: sequence, of: item_id, last: 4, dim: 5, pooling: sum}\n"
             "    - {name: activity, type: numeric, transform: bucketize, buckets: 5, dim: 2}\n"
             "  network: {type: none}\n"
             "item_tower:\n"
             "  features:\n"
             "    - {name: item_id, type: id, dim: 11}\n"
             "    - {name: category, type: categorical, dim: 4}\n"
             "    - {name: tags, type: categorical, multi: \"|\", dim: 5, pooling: sum}\n"
             "  network: {type: none}\n" LAB_REST;

/* What lab_full and lab_wide do not have: hashing of single values, one-hot bags, much that is missing or unknown. */
#define LAB_FEATURES(history)                                                                                       \
    LAB_DATA "user_tower:\n"                                                                                        \
             "  features:\n"                                                                                        \
             "    - {name: history, type: sequence, of: item_id, last: 6, " history ", unknown_rate: 0.3}\n"        \
             "    - {name: user_id, type: id, dim: 4, min_count: 9, unknown_rate: 0.3}\n"                           \
             "    - {name: gender, type: onehot, unknown_rate: 0.3}\n"                                              \
             "    - {name: topics, type: onehot, multi: \"|\", unknown_rate: 0.3}\n"                                \
             "    - {name: city, type: categorical, dim: 4, buckets: 7, unknown_rate: 0.3}\n"                       \
             "    - {name: age, type: numeric, unknown_rate: 0.3}\n"                                                \
             "    - {name: activity, type: numeric, transform: bucketize, buckets: 3, dim: 3, unknown_rate: 0.3}\n" \
             "  network: {type: mlp, layers: [7]}\n"                                                                \
             "item_tower:\n"                                                                                        \
             "  features:\n"                                                                                        \
             "    - {name: item_id, type: id, dim: 5, min_count: 12, unknown_rate: 0.3}\n"                          \
             "    - {name: tags, type: categorical, multi: \"|\", dim: 5, pooling: sqrtn, unknown_rate: 0.3}\n"     \
             "  network: {type: mlp, layers: [7]}\n" LAB_REST

static const char lab_features[] = LAB_FEATURES("dim: 5, min_count: 12");
/* The history reads the items' embeddings; all else is the same. */
static const char lab_shared[] = LAB_FEATURES("shared: true");

/* Matrix completion. */
static const char lab_ids[] = "data:\n"
                              "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n"
                              "  split: {method: leave_last, n: 1}\n"
                              "user_tower: {features: [{name: user_id, type: id, dim: 8}], network: {type: none}}\n"
                              "item_tower: {features: [{name: item_id, type: id, dim: 8}], network: {type: none}}\n"
                              "similarity: dot\n" LAB_REST;

struct lab {
    struct train_config *config;
    struct dataset *d;
    struct model *m;
};

/* Loads a configuration text with up to 8 settings changed (NULL-terminated; NULL: none), and the data; initialises a
 * model. */
static inline void lab_open(struct lab *lab, const char *yaml, const char *const *sets)
{
    struct err e = ERR_INIT;
    struct buf problems = BUF_INIT;
    size_t n = 0;
    while (sets != NULL && sets[n] != NULL) {
        n++;
    }
    log_setup(LOG_LEVEL_ERROR, false);
    lab->config = train_config_load(files_write("lab.yaml", yaml), sets, n, &problems);
    if (lab->config == NULL) {
        fail_msg("%s", problems.data);
    }
    buf_release(&problems);
    lab->d = dataset_load(lab->config, &e);
    if (lab->d == NULL) {
        fail_msg("%s", e.message);
    }
    int states = optimizer_states(lab->config->optimizer.type);
    lab->m = model_new(&lab->d->schema, states, &e);
    assert_non_null(lab->m);
    if (lab->config->loss.learn) {
        assert_int_equal(model_add_loss_scale(lab->m, states, loss_make(lab->config).scale, &e), 0);
    }
    model_initialize(lab->m, lab->config->optimizer.init_scale, lab->config->seed);
}

/* The same over a synthetic world of this size. */
static inline void lab_synth(struct lab *lab, const char *yaml, const char *const *sets, size_t users, size_t items,
                             size_t events)
{
    struct err e = ERR_INIT;
    files_path(""); /* makes the directory */
    assert_int_equal(synth_write(files_dir, users, items, events, 5, &e), 0);
    lab_open(lab, yaml, sets);
}

static inline void lab_close(struct lab *lab)
{
    model_free(lab->m);
    dataset_free(lab->d);
    train_config_free(lab->config);
}

static inline size_t lab_parameter_size(const struct parameter *p)
{
    return p->rows * (p->columns > 0 ? p->columns : 1);
}

/* One array a parameter, zeroed; free with lab_gradients_free. */
static inline float **lab_gradients_new(const struct model *m)
{
    float **g = calloc(m->n_parameters, sizeof *g);
    assert_non_null(g);
    for (size_t i = 0; i < m->n_parameters; i++) {
        g[i] = calloc(lab_parameter_size(&m->parameters[i]), sizeof **g);
        assert_non_null(g[i]);
    }
    return g;
}

static inline void lab_gradients_free(const struct model *m, float **g)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        free(g[i]);
    }
    free(g);
}

#endif
