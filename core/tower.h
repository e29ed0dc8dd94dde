/*
 * core/tower.h: a tower's forward pass: encoded rows -> concatenated input -> network (core/network.h) -> one vector a row.
 *
 * The trainer and the daemon both run this code; the trainer's backward pass reads the activations it leaves in the
 * `struct tower_pass`. Weights are borrowed (mapped bundle or the trainer's parameters) and only read: any number of
 * threads may share a tower, each with a pass of its own.
 *
 * In weights.safetensors: user.embedding.<feature> [rows, dim], and user.<name> for each dense parameter of the network
 * (core/layer.h); the same with item. A shared sequence reads item.embedding.<id>.
 */
#ifndef CORE_TOWER_H
#define CORE_TOWER_H

#include <stddef.h>

#include "core/features.h"
#include "core/safetensors.h"
#include "core/schema.h"

struct tower {
    const struct tower_spec *spec;
    const float *embedding[SCHEMA_MAX_FEATURES]; /* [rows, dim]; NULL for features without a table */
    const float *dense[NETWORK_MAX_DENSE];       /* shaped as spec->layers.dense says */
};

/* Binds a tower to the tensors of a file, checking every shape and that every number is finite. */
int tower_bind(struct tower *t, const struct tower_spec *spec, enum side side, const struct safetensors *weights,
               struct err *e);

/* Scratch of one forward pass: all that the backward pass needs. */
struct tower_pass {
    size_t capacity; /* rows */
    float *value[NETWORK_MAX_LAYERS +
                 1];                 /* 0: the input [capacity, input_width]; i + 1: layer i's result [capacity, out] */
    float *kept[NETWORK_MAX_LAYERS]; /* [capacity, kept]; NULL where a layer keeps nothing */
    float *input, *output;           /* the first and the last value; the same without a network */
    const uint64_t *row_key;         /* training: [rows] what dropout draws from (core/layer.h); NULL: no dropout */
};

/* Dropout of the input x [rows, input_width] as the features declare it; of its gradient likewise. */
void tower_drop_input(const struct tower_spec *spec, float *x, size_t rows, const uint64_t *row_key);

/* What layer i of a tower sees in a pass over `rows` rows; without derivatives. */
struct layer_run tower_layer_run(const struct tower *t, const struct tower_pass *p, uint32_t i, size_t rows);

int tower_pass_init(struct tower_pass *p, const struct tower_spec *spec, size_t capacity, struct err *e);
void tower_pass_release(struct tower_pass *p);

/* Runs rows [first, first + count) of `rows`; count <= capacity. The result is p->output [count, output_dim], not
 * normalised. */
void tower_forward(const struct tower *t, const struct feature_rows *rows, size_t first, size_t count,
                   struct tower_pass *p);

/* tower_forward, normalised under cosine, into out [count, output_dim]. */
void tower_embed_block(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, size_t first,
                       size_t count, struct tower_pass *p, float *out);

/* tower_embed_block for all rows in blocks of the pass's capacity: out [rows->n, output_dim]. */
void tower_embed(const struct tower *t, enum similarity similarity, const struct feature_rows *rows,
                 struct tower_pass *p, float *out);

#endif
