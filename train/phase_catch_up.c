/*
 * Between encoding and the forward pass, under optimizers that move all rows (train/optimizer_idle.h): each thread brings the
 * rows that it owns and the batch touches to the step at hand. At the end of an epoch, all rows.
 */
#include "train/phase.h"

static void catch_up_row(struct trainer *t, int parameter, size_t row)
{
    const struct parameter *p = &t->model->parameters[parameter];
    uint32_t *current = &t->current[parameter][row];
    if (*current < t->idle.n) {
        idle_catch_up(&t->idle, parameter_weights(p, row * p->columns, p->columns), *current);
        *current = (uint32_t)t->idle.n;
    }
}

static void catch_up_feature(struct worker *w, const struct worker *from, enum side side, uint32_t feature)
{
    const struct feature_rows *rows = &from->rows[side];
    const struct feature_column *c = &rows->columns[feature];
    size_t n = feature_is_bag(&rows->spec->features[feature]) ? c->start[rows->n] : rows->n;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)c->index[i] % w->t->n_workers == w->id) {
            catch_up_row(w->t, w->t->model->table[side][feature], (size_t)c->index[i]);
        }
    }
}

void phase_catch_up(struct worker *w)
{
    struct trainer *t = w->t;
    if (atomic_load(&t->out_of_memory)) { /* rows may be incomplete */
        return;
    }
    for (unsigned i = 0; i < t->n_workers; i++) {
        for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
            for (uint32_t f = 0; f < t->d->schema.towers[side].n_features; f++) {
                if (t->model->table[side][f] >= 0) {
                    catch_up_feature(w, &t->workers[i], (enum side)side, f);
                }
            }
        }
    }
}

void phase_catch_up_all(struct worker *w)
{
    struct trainer *t = w->t;
    for (size_t p = 0; p < t->model->n_parameters; p++) {
        struct range rows = range_share(t->model->parameters[p].rows, w->id, t->n_workers);
        for (size_t row = rows.begin; t->current[p] != NULL && row < rows.end; row++) {
            catch_up_row(t, (int)p, row);
            t->current[p][row] = 0; /* of the next epoch */
        }
    }
}
