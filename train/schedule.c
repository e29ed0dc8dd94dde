#include "train/schedule.h"

#include <math.h>

double schedule_lr(const struct train_config *config, uint64_t step, uint64_t batches)
{
    const struct schedule_config *s = &config->optimizer.schedule;
    double lr = config->optimizer.lr;
    double total = (double)config->optimizer.epochs * (double)batches;
    double warmup = floor(s->warmup < 1 ? s->warmup * total : s->warmup);
    double done = (double)(step - 1);
    if (done < warmup) {
        return lr * (double)step / (warmup + 1);
    }
    switch (s->type) {
    case SCHEDULE_STEP: {
        uint64_t drops = (step - 1) / batches / s->every;
        return lr * pow(s->factor, (double)drops);
    }
    case SCHEDULE_COSINE: {
        double x = total > warmup ? (done - warmup) / (total - warmup) : 0;
        return s->end_lr + (lr - s->end_lr) * (1 + cos(acos(-1.0) * (x < 1 ? x : 1))) / 2;
    }
    default:
        return lr;
    }
}
