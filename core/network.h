/*
 * core/network.h: a tower's network: what a configuration or a manifest declares, and the list of layers it becomes.
 *
 *   none   no layers: the input is the vector
 *   mlp    for each width: linear, and but for the last: norm (layer_norm), the activation, dropout; then, where the layer
 *          is as wide as the one before it, a residual connection around all that (residual)
 *   dcn    cross layers over the input, then an mlp (the stacked form of DCN-v2)
 *
 * The dense parameters of all layers stand in one list, in the order in which they were declared: the tower binds it, the
 * model allocates and initialises it, the trainer updates it.
 */
#ifndef CORE_NETWORK_H
#define CORE_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/layer.h"

enum {
    NETWORK_MAX_WIDTHS = 8,
    NETWORK_MAX_CROSS = 8,
    NETWORK_MAX_LAYERS = NETWORK_MAX_CROSS + 4 * NETWORK_MAX_WIDTHS,
    NETWORK_MAX_DENSE = 3 * NETWORK_MAX_CROSS + 4 * NETWORK_MAX_WIDTHS,
    NETWORK_MAX_WIDTH = 4096,
};

enum network_type { NETWORK_NONE, NETWORK_MLP, NETWORK_DCN };
extern const char *const network_type_words[]; /* NULL-terminated */

/* As declared. Members that the type does not use are 0. */
struct network {
    enum network_type type;
    uint32_t widths[NETWORK_MAX_WIDTHS]; /* outputs of the linear layers */
    size_t n_widths;
    enum activation activation; /* between layers; the last layer is linear */
    bool layer_norm;            /* before the activation */
    bool residual;
    uint32_t cross_layers, cross_rank; /* dcn; rank 0: full matrices */
    double dropout;                    /* behind the activation, while training; in no manifest */
};

/* Derived by network_build; read-only then. */
struct network_layers {
    struct layer layer[NETWORK_MAX_LAYERS]; /* layer i reads layer i - 1; the first reads the input */
    uint32_t n;
    struct dense dense[NETWORK_MAX_DENSE];
    uint32_t n_dense;
    uint32_t output_width;
};

/* Makes the layers of a checked declaration over `input_width` columns. Fails where widths make no sense. */
int network_build(struct network_layers *layers, const struct network *network, uint32_t input_width, struct err *e);

/* For layers: the next parameter. `name` has one %u, for the number. */
void network_declare(struct network_layers *layers, const char *name, uint32_t number, uint32_t rows, uint32_t columns,
                     enum dense_start start) __attribute__((format(printf, 2, 0)));

/* True when some layer is as wide as the one before it, as a residual connection needs. */
bool network_has_equal_widths(const struct network *network);

#endif
