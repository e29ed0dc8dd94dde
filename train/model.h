/*
 * train/model.h: the parameters that training changes: embedding tables and dense parameters of both towers.
 *
 * Shapes and names are those of core/tower.h. `towers` points into the parameters, so that the one forward pass of
 * core/tower.h serves training, too. Values are written only by the trainer's update phase.
 */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/schema.h"
#include "core/tower.h"

struct parameter {
    char name[SCHEMA_MAX_NAME + 40]; /* as in weights.safetensors */
    size_t rows, columns;            /* columns 0: a vector */
    bool is_table;                   /* an embedding table: its gradient is sparse */
    enum dense_start start;          /* of the others */
    bool is_private;                 /* of training alone: not in weights.safetensors */
    float *value;                    /* [rows, columns] */
    float *state[2];                 /* of the optimizer, shaped like value; NULL where it keeps none */
};

/* How many numbers. */
static inline size_t parameter_size(const struct parameter *p)
{
    return p->rows * (p->columns > 0 ? p->columns : 1);
}

struct model {
    const struct schema *schema; /* borrowed */
    struct parameter *parameters;
    size_t n_parameters;
    int table[2][SCHEMA_MAX_FEATURES]; /* index of a feature's table, -1: none; a shared sequence has the item id's */
    int dense[2][NETWORK_MAX_DENSE];   /* index of a dense parameter */
    int loss_scale;                    /* index of the logarithm of the loss's scale, -1: it is fixed */
    float loss_scale_start;            /* its value at the start */
    struct tower towers[2];            /* by side; views of the values */
};

/* Allocates everything, with `n_states` optimizer arrays a parameter (zeroed); values are set by model_initialize. */
struct model *model_new(const struct schema *schema, int n_states, struct err *e);
void model_free(struct model *m);

/* Adds the logarithm of the loss's scale (train/loss.h) as a parameter that is learned. Before model_initialize. */
int model_add_loss_scale(struct model *m, int n_states, float scale, struct err *e);

/* Random start, the same for the same seed: embeddings N(0, init_scale^2), dense parameters as their layers declare them
 * (core/layer.h); optimizer state 0. */
void model_initialize(struct model *m, double init_scale, uint64_t seed);

/* Copies all values (not the optimizer's state) between models of the same schema. */
void model_copy_values(struct model *to, const struct model *from);

/* Frees the optimizer's state: the model is trained. */
void model_drop_state(struct model *m);

/* Writes all values that a tower needs as a safetensors file. */
int model_write(const struct model *m, const char *path, struct err *e);

/* The first parameter with a value that is not finite, or NULL. */
const struct parameter *model_find_bad(const struct model *m);

#endif
