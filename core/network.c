#include "core/network.h"

#include <stdio.h>

const char *const network_type_words[] = {"none", "mlp", "dcn", NULL};

void network_declare(struct network_layers *layers, const char *name, uint32_t number, uint32_t rows, uint32_t columns,
                     enum dense_start start)
{
    struct dense *d = &layers->dense[layers->n_dense++];
    *d = (struct dense){.rows = rows, .columns = columns, .start = start};
    snprintf(d->name, sizeof d->name, name, number);
}

static void add(struct network_layers *layers, struct layer layer)
{
    struct layer *l = &layers->layer[layers->n++];
    *l = layer;
    l->first_dense = layers->n_dense;
    l->kind->declare(l, layers);
}

bool network_has_equal_widths(const struct network *network)
{
    for (size_t i = 1; i < network->n_widths; i++) {
        if (network->widths[i] == network->widths[i - 1]) {
            return true;
        }
    }
    return false;
}

/* Width number `i` over `in` columns. */
static void add_mlp_layer(struct network_layers *layers, const struct network *network, uint32_t i, uint32_t in)
{
    uint32_t n = network->widths[i];
    bool is_hidden = i + 1 < network->n_widths;
    bool has_norm = is_hidden && network->layer_norm;
    enum activation activation = is_hidden ? network->activation : ACTIVATION_NONE;
    int input = (int)layers->n;
    add(layers, (struct layer){.kind = &layer_linear,
                               .in = in,
                               .out = n,
                               .number = i,
                               .activation = has_norm ? ACTIVATION_NONE : activation,
                               .is_hidden = is_hidden,
                               .second = -1});
    if (has_norm) {
        add(layers, (struct layer){
                        .kind = &layer_norm, .in = n, .out = n, .number = i, .activation = activation, .second = -1});
    }
    if (is_hidden && network->dropout > 0) {
        add(layers,
            (struct layer){.kind = &layer_dropout, .in = n, .out = n, .rate = (float)network->dropout, .second = -1});
    }
    if (network->residual && i > 0 && n == in) {
        add(layers, (struct layer){.kind = &layer_residual, .in = n, .out = n, .second = input});
    }
}

int network_build(struct network_layers *layers, const struct network *network, uint32_t input_width, struct err *e)
{
    *layers = (struct network_layers){.output_width = input_width};
    uint32_t most = network->cross_rank == 0 ? NETWORK_MAX_WIDTH : 16 * NETWORK_MAX_WIDTH;
    if (network->type == NETWORK_DCN && input_width > most) {
        return err_set(e,
                       "cross layers over an input of %u columns, %u are possible (4096 with full matrices, 65536 with "
                       "cross_rank); give categories of many values a dim instead of onehot",
                       input_width, most);
    }
    if (network->type == NETWORK_DCN && network->cross_rank >= input_width) {
        return err_set(e, "cross_rank %u saves nothing over an input of %u columns; lower it, or 0 for full matrices",
                       network->cross_rank, input_width);
    }
    for (uint32_t i = 0; network->type == NETWORK_DCN && i < network->cross_layers; i++) {
        add(layers, (struct layer){.kind = &layer_cross,
                                   .in = input_width,
                                   .out = input_width,
                                   .number = i,
                                   .rank = network->cross_rank,
                                   .second = 0});
    }
    for (uint32_t i = 0; network->type != NETWORK_NONE && i < network->n_widths; i++) {
        add_mlp_layer(layers, network, i, layers->output_width);
        layers->output_width = network->widths[i];
    }
    return 0;
}
