#include "server/workbench.h"

#include <math.h>

#include "core/mem.h"

enum {
    USERS_AT_ONCE = 64,      /* rows of one pass through the user tower */
    HITS_AT_ONCE = 64 * 1024 /* of queries that are searched together, beside the largest one */
};

/* Equal ratios from the default effort to the floor, which is the least one that was measured to reach degrade.recall. */
static void set_efforts(struct workbench *b, double recall)
{
    size_t usual = ann_effort(b->snapshot->index);
    size_t floor = bundle_effort_for(b->snapshot->bundle, recall);
    if (floor == 0 || floor >= usual || !ann_effort_is_free(b->snapshot->index)) {
        return;
    }
    for (int i = 1; i <= QUEUE_STEPS; i++) {
        double ratio = pow((double)floor / (double)usual, (double)i / QUEUE_STEPS);
        b->efforts[i] = (size_t)ceil((double)usual * ratio - 1e-6);
    }
}

void workbench_degrade(const struct workbench *b, struct query *q, unsigned steps)
{
    if (q->effort == 0 && !q->exact && b->efforts[steps] > 0) {
        q->effort = b->efforts[steps];
        q->degraded = q->effort < ann_effort(b->snapshot->index);
    }
}

static int workbench_fill(struct workbench *b, const struct serve_config *config, struct err *e)
{
    const struct bundle *bundle = b->snapshot->bundle;
    size_t batch = config->limits.batch;
    size_t users = batch < USERS_AT_ONCE ? batch : USERS_AT_ONCE;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *spec = &bundle->schema.towers[side];
        if (feature_rows_init(&b->rows[side], spec) != 0) {
            return err_nomem(e);
        }
        if (tower_pass_init(&b->pass[side], spec, side == SIDE_USER ? users : 1, e) != 0) {
            return -1;
        }
    }
    b->queries = mem_array(batch, sizeof *b->queries);
    b->vectors = mem_array(batch * bundle->dim, sizeof *b->vectors);
    /* an id in a body takes two bytes at least */
    size_t ids = config->limits.exclude < config->limits.body / 2 ? config->limits.exclude : config->limits.body / 2;
    b->n_exclude = ids + 1;
    b->n_hits = config->limits.k + HITS_AT_ONCE; /* under max_per the answer's, and those of a round */
    b->n_hits = config->limits.score > b->n_hits ? config->limits.score : b->n_hits;
    b->exclude = mem_array(b->n_exclude, sizeof *b->exclude);
    b->hits = mem_array(b->n_hits, sizeof *b->hits);
    if (filter_bits_init(&b->filter, ann_rows_most(b->snapshot->index)) != 0 || !b->queries || !b->vectors ||
        !b->exclude || !b->hits) {
        return err_nomem(e);
    }
    set_efforts(b, config->degrade.recall);
    b->search = ann_batch_new(b->snapshot->index, config->limits.k, e);
    return b->search ? 0 : -1;
}

struct workbench *workbench_new(struct snapshot *s, const struct serve_config *config, struct err *e)
{
    struct workbench *b = mem_array(1, sizeof *b);
    if (!b) {
        err_nomem(e);
        return NULL;
    }
    b->snapshot = s;
    b->rules = (struct request_rules){.config = config, .bundle = s->bundle, .catalog = s->catalog};
    if (workbench_fill(b, config, e) != 0) {
        b->snapshot = NULL;
        workbench_free(b);
        return NULL;
    }
    return b;
}

struct workbench *workbench_again(const struct workbench *b, const struct serve_config *config, struct err *e)
{
    struct snapshot *s = snapshot_ref(b->snapshot);
    struct workbench *other = workbench_new(s, config, e);
    if (!other) {
        snapshot_unref(s);
    }
    return other;
}

void workbench_free(struct workbench *b)
{
    if (!b) {
        return;
    }
    ann_batch_free(b->search);
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        feature_rows_release(&b->rows[side]);
        tower_pass_release(&b->pass[side]);
    }
    value_scratch_release(&b->values);
    mem_free(b->queries);
    mem_free(b->vectors);
    mem_free(b->exclude);
    mem_free(b->hits);
    filter_bits_release(&b->filter);
    snapshot_unref(b->snapshot);
    mem_free(b);
}
