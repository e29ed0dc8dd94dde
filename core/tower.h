/*
 * core/tower.h: a tower's forward pass: encoded rows -> concatenated input -> network -> one vector a row.
 *
 * The trainer and the daemon both run this code; the trainer's backward pass reads the activations it leaves in the
 * `struct tower_pass`. Weights are borrowed (mapped bundle or the trainer's parameters) and only read: any number of
 * threads may share a tower, each with a pass of its own.
 *
 * Weights follow PyTorch's nn.Linear: y = x W^T + b with W [out, in] row-major. In weights.safetensors:
 *   user.embedding.<feature> [rows, dim]   user.network.<layer>.weight [out, in]   user.network.<layer>.bias [out]
 * and the same with item. A shared sequence reads item.embedding.<id>.
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
    const float *weight[SCHEMA_MAX_LAYERS];      /* [layers[i], layers[i - 1] or input_width] */
    const float *bias[SCHEMA_MAX_LAYERS];        /* [layers[i]] */
};

/* Binds a tower to the tensors of a file, checking every shape and that every number is finite. */
int tower_bind(struct tower *t, const struct tower_spec *spec, enum side side, const struct safetensors *weights,
               struct err *e);

/* Scratch of one forward pass: every activation, kept for the backward pass. */
struct tower_pass {
    size_t capacity;                 /* rows */
    float *input;                    /* [capacity, input_width] */
    float *layer[SCHEMA_MAX_LAYERS]; /* [capacity, layers[i]], after the activation */
    float *output;                   /* [capacity, output_dim]: the last layer, or the input without a network */
};

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
