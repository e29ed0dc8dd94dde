#include "train/optimizer_idle.h"

#include <math.h>

#include "core/mem.h"
#include "train/optimizer_kind.h"

static const double DEAD = 1e-12;

bool optimizer_moves_idle(const struct optimizer *o)
{
    const struct optimizer_kind *kind = optimizer_kind(o->type);
    return kind->drift != NULL && (kind->shrink(o) > 0 || o->weight_decay > 0);
}

int idle_init(struct idle *idle, const struct optimizer *o, size_t steps, struct err *e)
{
    double shrink = optimizer_kind(o->type)->shrink(o);
    *idle = (struct idle){.optimizer = o, .capacity = steps};
    idle->window = shrink > 0 ? (size_t)ceil(log(DEAD) / log(shrink)) : 1;
    idle->power = mem_array(idle->window + 1, sizeof *idle->power);
    idle->length = mem_array(steps + 1, sizeof *idle->length);
    idle->kept = mem_array(steps + 1, sizeof *idle->kept);
    if (idle->power == NULL || idle->length == NULL || idle->kept == NULL) {
        idle_release(idle);
        return err_nomem(e);
    }
    for (size_t j = 0; j <= idle->window; j++) {
        idle->power[j] = pow(shrink, (double)j);
    }
    return 0;
}

void idle_release(struct idle *idle)
{
    mem_free(idle->power);
    mem_free(idle->length);
    mem_free(idle->kept);
    *idle = (struct idle){0};
}

void idle_begin_epoch(struct idle *idle)
{
    idle->first = idle->optimizer->step;
    idle->n = 0;
    idle->length[0] = 0;
    idle->kept[0] = 0;
}

void idle_add_step(struct idle *idle)
{
    const struct optimizer *o = idle->optimizer;
    double pace = optimizer_kind(o->type)->pace(o);
    double keep = 1 - o->lr * o->weight_decay;
    size_t n = ++idle->n;
    idle->length[n] = 0;
    idle->kept[n] = idle->kept[n - 1] + log(keep);
    for (size_t i = n > idle->window ? n - idle->window : 0; i < n; i++) {
        idle->length[i] = keep * idle->length[i] + pace * idle->power[n - i];
    }
}

void idle_catch_up(const struct idle *idle, struct weights w, size_t last)
{
    size_t steps = idle->n - last;
    if (steps == 0) {
        return;
    }
    double length = idle->length[last];
    if (steps > idle->window) { /* the drift has ended, only decay went on */
        length *= exp(idle->kept[idle->n] - idle->kept[last + idle->window]);
    }
    double keep = exp(idle->kept[idle->n] - idle->kept[last]);
    optimizer_kind(idle->optimizer->type)->drift(idle->optimizer, w, idle->first + last, steps, keep, length);
}
