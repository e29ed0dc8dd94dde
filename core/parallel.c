#include "core/parallel.h"

#include <pthread.h>
#include <stdatomic.h>

struct thread {
    parallel_work *work;
    void *arg;
    unsigned worker;
    pthread_t id;
};

static void *run_thread(void *arg)
{
    const struct thread *t = arg;
    t->work(t->arg, t->worker);
    return NULL;
}

void parallel_run(unsigned threads, parallel_work *work, void *arg)
{
    struct thread thread[PARALLEL_MAX];
    unsigned wanted = threads < PARALLEL_MAX ? threads : PARALLEL_MAX;
    unsigned started = 1;
    for (; started < wanted; started++) {
        thread[started] = (struct thread){.work = work, .arg = arg, .worker = started};
        if (pthread_create(&thread[started].id, NULL, run_thread, &thread[started]) != 0) {
            break;
        }
    }
    work(arg, 0);
    for (unsigned i = 1; i < started; i++) {
        pthread_join(thread[i].id, NULL);
    }
}

struct loop {
    parallel_body *body;
    void *arg;
    size_t n, chunk;
    atomic_size_t next;
};

static void run_loop(void *arg, unsigned worker)
{
    struct loop *l = arg;
    size_t begin;
    while ((begin = atomic_fetch_add(&l->next, l->chunk)) < l->n) {
        l->body(l->arg, worker, begin, l->n - begin < l->chunk ? l->n : begin + l->chunk);
    }
}

void parallel_for(unsigned threads, size_t n, size_t chunk, parallel_body *body, void *arg)
{
    struct loop l = {.body = body, .arg = arg, .n = n, .chunk = chunk};
    size_t pieces = n / chunk + 1;
    parallel_run(pieces < threads ? (unsigned)pieces : threads, run_loop, &l);
}
