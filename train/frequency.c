#include "train/frequency.h"

#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

/* The weight of the newest gap. Small: a steady estimate; large: follows what is new. The paper's best is 0.01. */
static const float ALPHA = 0.01f;
enum { BUCKETS_MIN = 1 << 10, BUCKETS_MAX = 1 << 22 };

int frequency_init(struct frequency *f, size_t n_items, size_t batch_size)
{
    *f = (struct frequency){.buckets = BUCKETS_MIN};
    while (f->buckets < BUCKETS_MAX && f->buckets < 2 * n_items) {
        f->buckets *= 2;
    }
    f->first_gap = (float)n_items / (float)batch_size;
    f->last = mem_array((size_t)FREQUENCY_ARRAYS * f->buckets, sizeof *f->last);
    f->gap = mem_array((size_t)FREQUENCY_ARRAYS * f->buckets, sizeof *f->gap);
    if (f->last == NULL || f->gap == NULL) {
        frequency_release(f);
        return -1;
    }
    return 0;
}

void frequency_release(struct frequency *f)
{
    mem_free(f->last);
    mem_free(f->gap);
    *f = (struct frequency){0};
}

static size_t bucket_of(const struct frequency *f, uint32_t array, uint32_t item)
{
    uint64_t hash = rng_mix((uint64_t)array << 32 | item);
    return (size_t)array * f->buckets + (size_t)(hash & (f->buckets - 1));
}

void frequency_observe(struct frequency *f, uint32_t step, const uint32_t *items, size_t n)
{
    for (uint32_t array = 0; array < FREQUENCY_ARRAYS; array++) {
        for (size_t i = 0; i < n; i++) {
            size_t b = bucket_of(f, array, items[i]);
            if (f->last[b] == step) {
                continue; /* twice in a batch: the gap is between batches */
            }
            float gap = (float)(step - f->last[b]);
            f->gap[b] = f->last[b] == 0 ? (gap + f->first_gap) / 2 : f->gap[b] + ALPHA * (gap - f->gap[b]);
            f->last[b] = step;
        }
    }
}

double frequency_get(const struct frequency *f, uint32_t item)
{
    float gap = 0;
    for (uint32_t array = 0; array < FREQUENCY_ARRAYS; array++) {
        size_t b = bucket_of(f, array, item);
        float other = f->last[b] == 0 ? f->first_gap : f->gap[b];
        gap = other > gap ? other : gap;
    }
    return 1.0 / (double)gap;
}
