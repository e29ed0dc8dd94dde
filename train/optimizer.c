#include "train/optimizer.h"

#include "train/optimizer_kind.h"

static const struct optimizer_kind *const kinds[] = {
    [OPTIMIZER_ADAGRAD] = &optimizer_adagrad,
    [OPTIMIZER_ADAM] = &optimizer_adam,
    [OPTIMIZER_LAZY_ADAM] = &optimizer_lazy_adam,
    [OPTIMIZER_SGD] = &optimizer_sgd,
};

const struct optimizer_kind *optimizer_kind(enum optimizer_type type)
{
    return kinds[type];
}

struct optimizer optimizer_make(const struct train_config *config)
{
    return (struct optimizer){
        .type = config->optimizer.type,
        .momentum = config->optimizer.momentum,
        .weight_decay = config->optimizer.weight_decay,
    };
}

int optimizer_states(enum optimizer_type type)
{
    return kinds[type]->states;
}

void optimizer_begin_step(struct optimizer *o, double lr)
{
    o->step++;
    o->lr = lr;
    o->keep = (float)(1 - lr * o->weight_decay);
    o->rate = (float)lr;
    if (kinds[o->type]->begin_step != NULL) {
        kinds[o->type]->begin_step(o);
    }
}

void optimizer_update(const struct optimizer *o, struct weights w, const float *gradient, float scale)
{
    kinds[o->type]->update(o, w, gradient, scale);
}
