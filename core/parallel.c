#include "core/parallel.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS_MAX = 256 };

struct loop {
    parallel_body *body;
    void *arg;
    size_t n, chunk;
    atomic_size_t next;
    atomic_uint workers;
};

static void *run(void *arg)
{
    struct loop *l = arg;
    unsigned worker = atomic_fetch_add(&l->workers, 1);
    size_t begin;
    while ((begin = atomic_fetch_add(&l->next, l->chunk)) < l->n) {
        l->body(l->arg, worker, begin, l->n - begin < l->chunk ? l->n : begin + l->chunk);
    }
    return NULL;
}

void parallel_for(unsigned threads, size_t n, size_t chunk, parallel_body *body, void *arg)
{
    struct loop l = {.body = body, .arg = arg, .n = n, .chunk = chunk};
    pthread_t ids[THREADS_MAX];
    size_t pieces = n / chunk + 1;
    unsigned wanted = threads < THREADS_MAX ? threads : THREADS_MAX;
    unsigned started = 0;
    while (started + 1 < wanted && started + 1 < pieces && pthread_create(&ids[started], NULL, run, &l) == 0) {
        started++;
    }
    run(&l);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
}
