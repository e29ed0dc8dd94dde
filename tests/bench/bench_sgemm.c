/*
 * How fast ids-only training could be if nothing but its matrix products took time.
 *
 *   bench_sgemm BATCH DIM THREADS [BLOCK [SECONDS]]
 *
 * A batch's products, shared among threads as the trainer shares them: thread i has its rows of U [batch, dim], taken in
 * blocks of BLOCK rows against V [batch, dim]:  S = U V^T [block, batch],  dU = S V,  dV += S^T U  with a dV of its own;
 * all threads meet once a batch. One line: examples a second, GFLOP/s, examples a CPU second.
 */
#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_THREADS = 64, TRAINER_BLOCK = 128 };

static size_t batch, dim, block, n_threads;
static double seconds;
static float *users, *items; /* [batch, dim] */
static pthread_barrier_t barrier;
static size_t batches_done;
static int stopping;

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void multiply(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    cblas_sgemm(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, 1.0f, a, (blasint)lda, b, (blasint)ldb, beta,
                c, (blasint)ldc);
}

static float *numbers(size_t n)
{
    float *x = malloc(n * sizeof *x);
    if (x == NULL) {
        fprintf(stderr, "bench_sgemm: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(i % 1009) / 1009.0f - 0.5f;
    }
    return x;
}

static void *run(void *arg)
{
    size_t id = *(size_t *)arg;
    size_t begin = batch * id / n_threads;
    size_t end = batch * (id + 1) / n_threads;
    float *scores = numbers(block * batch);
    float *user_gradient = numbers(batch * dim);
    float *item_gradient = numbers(batch * dim);
    double started = now(CLOCK_MONOTONIC);
    for (;;) {
        for (size_t i = begin; i < end; i += block) {
            size_t rows = end - i < block ? end - i : block;
            const float *u = users + i * dim;
            multiply(CblasNoTrans, CblasTrans, rows, batch, dim, u, dim, items, dim, 0, scores, batch);
            multiply(CblasNoTrans, CblasNoTrans, rows, dim, batch, scores, batch, items, dim, 0,
                     user_gradient + i * dim, dim);
            multiply(CblasTrans, CblasNoTrans, batch, dim, rows, scores, batch, u, dim, i == begin ? 0 : 1,
                     item_gradient, dim);
        }
        if (id == 0) {
            batches_done++;
            stopping = now(CLOCK_MONOTONIC) - started > seconds;
        }
        pthread_barrier_wait(&barrier);
        int stop = stopping;
        pthread_barrier_wait(&barrier);
        if (stop) {
            break;
        }
    }
    free(scores);
    free(user_gradient);
    free(item_gradient);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench_sgemm BATCH DIM THREADS [BLOCK [SECONDS]]\n");
        return 2;
    }
    batch = strtoul(argv[1], NULL, 10);
    dim = strtoul(argv[2], NULL, 10);
    n_threads = strtoul(argv[3], NULL, 10);
    block = argc > 4 ? strtoul(argv[4], NULL, 10) : TRAINER_BLOCK;
    seconds = argc > 5 ? strtod(argv[5], NULL) : 2;
    if (batch < 1 || dim < 1 || n_threads < 1 || n_threads > MAX_THREADS || block < 1) {
        fprintf(stderr, "bench_sgemm: at least 1 of each, at most %d threads\n", MAX_THREADS);
        return 2;
    }
    openblas_set_num_threads(1);
    users = numbers(batch * dim);
    items = numbers(batch * dim);
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads);
    pthread_t threads[MAX_THREADS];
    size_t ids[MAX_THREADS];
    double wall = now(CLOCK_MONOTONIC);
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < n_threads; i++) {
        ids[i] = i;
        if (pthread_create(&threads[i], NULL, run, &ids[i]) != 0) {
            fprintf(stderr, "bench_sgemm: cannot start a thread\n");
            return 1;
        }
    }
    for (size_t i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    wall = now(CLOCK_MONOTONIC) - wall;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double examples = (double)(batches_done * batch);
    printf("%.0f\t%.1f\t%.0f\n", examples / wall, examples * 6 * (double)batch * (double)dim / wall * 1e-9,
           examples / cpu);
    free(users);
    free(items);
    return 0;
}
