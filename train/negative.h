/*
 * train/negative.h: one kind of drawn negatives: where an item that the user did not choose comes from. (In-batch
 * negatives, the other rows' positives, are not drawn: train/sampler.h.)
 *
 *   uniform     every item alike
 *   popularity  in proportion to (train events of the item)^alpha (Mikolov et al., NIPS 2013, with alpha 0.75)
 *   hard        from a list of the row's user: recalled and later dropped, or mined near the boundary (train/hard.h;
 *               Huang et al., KDD 2020, section 6.1)
 *   exposed     from a list of the row's user: shown and not clicked
 *
 * Kinds over the whole catalogue know the probability of each item, which the logQ correction needs, and may be drawn
 * once for a batch; lists of a user are for rows only, and an item of them stands for nothing but itself.
 *
 * To add one: a file negative_<name>.c, a row in the table of sampler.c, its count in the configuration. After init a
 * source is read-only; any thread may draw with a generator of its own.
 */
#ifndef TRAIN_NEGATIVE_H
#define TRAIN_NEGATIVE_H

#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "core/rng.h"
#include "train/dataset.h"

enum { NEGATIVE_NONE = UINT32_MAX };

struct negative_source;

struct negative_kind {
    const char *name;
    /* Draws a row, or a batch, meets on average; 0: not in use. `easy`: negatives that a row meets without this kind. */
    double (*rate)(const struct train_config *config, double easy);
    /* NULL: nothing to do. */
    int (*init)(struct negative_source *s, const struct train_config *config, const struct dataset *d,
                const struct interactions *events, struct err *e);
    /* An item, or NEGATIVE_NONE when the user's list is empty. */
    uint32_t (*draw)(const struct negative_source *s, uint32_t user, struct rng *r);
    /* How likely one draw is this item; NULL for lists of a user. */
    double (*probability)(const struct negative_source *s, uint32_t item);
};

struct negative_source {
    const struct negative_kind *kind;
    double rate;
    uint32_t n_items;
    struct alias *alias;              /* popularity; owned */
    const struct interactions *lists; /* hard, exposed: by user; borrowed */
};

extern const struct negative_kind negative_uniform;
extern const struct negative_kind negative_popularity;
extern const struct negative_kind negative_hard;
extern const struct negative_kind negative_exposed;

#endif
