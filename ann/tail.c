#include "ann/tail.h"

#include <string.h>

#include "core/mem.h"

static size_t code_words(const struct tail *t)
{
    return pq_block_bytes(&t->f->pq) / sizeof(uint64_t);
}

int tail_init(struct tail *t, const struct ivf *f, size_t room, struct err *e)
{
    size_t lists = f->n_lists;
    *t = (struct tail){.f = f, .runs_most = 2 * room / TAIL_PLACES + lists + 1};
    if (t->runs_most > (UINT32_MAX - ivf_blocks(f) * PQ_BLOCK) / TAIL_PLACES) {
        return err_set(e, "no room for %zu more rows in the index", room);
    }
    t->lists = mem_array(lists, sizeof *t->lists);
    t->half_norm = mem_array(lists, sizeof *t->half_norm);
    t->block = mem_array(pq_block_bytes(&f->pq), 1);
    t->next_run = mem_reserve(t->runs_most, sizeof *t->next_run);
    t->rows = mem_reserve(t->runs_most, TAIL_PLACES * sizeof *t->rows);
    t->codes = mem_reserve(t->runs_most, TAIL_BLOCKS * pq_block_bytes(&f->pq));
    if (t->lists == NULL || t->half_norm == NULL || t->block == NULL || t->next_run == NULL || t->rows == NULL ||
        t->codes == NULL) {
        return err_nomem(e);
    }
    ivf_half_norms(f->centroids, f->n_lists, f->dim, t->half_norm);
    return ivf_assign_init(&t->assign, f->centroids, t->half_norm, f->n_lists, f->dim, e);
}

void tail_release(struct tail *t)
{
    if (t->f == NULL) {
        return;
    }
    ivf_assign_release(&t->assign);
    mem_free(t->lists);
    mem_free(t->half_norm);
    mem_free(t->block);
    mem_unreserve(t->next_run, t->runs_most, sizeof *t->next_run);
    mem_unreserve(t->rows, t->runs_most, TAIL_PLACES * sizeof *t->rows);
    mem_unreserve((void *)(uintptr_t)t->codes, t->runs_most, TAIL_BLOCKS * pq_block_bytes(&t->f->pq));
    *t = (struct tail){0};
}

static void put_row(struct tail *t, const float *x, uint32_t row, uint32_t list)
{
    uint8_t code[PQ_PARTS_MAX];
    float *residual = t->assign.unit;
    struct tail_list *l = &t->lists[list];
    uint32_t size = atomic_load_explicit(&l->size, memory_order_relaxed);
    size_t at = size % TAIL_PLACES;
    if (at == 0) {
        uint32_t run = t->n_runs++;
        *(size == 0 ? &l->first_run : &t->next_run[l->last_run]) = run;
        l->last_run = run;
    }
    size_t run = l->last_run;
    ivf_residual(t->f, x, list, residual);
    pq_encode(&t->f->pq, residual, code);
    memset(t->block, 0, pq_block_bytes(&t->f->pq));
    pq_put(&t->f->pq, t->block, at % PQ_BLOCK, code);
    _Atomic uint64_t *words = t->codes + (run * TAIL_BLOCKS + at / PQ_BLOCK) * code_words(t);
    for (size_t i = 0; i < code_words(t); i++) {
        uint64_t more;
        memcpy(&more, t->block + i * sizeof more, sizeof more);
        more |= atomic_load_explicit(&words[i], memory_order_relaxed);
        atomic_store_explicit(&words[i], more, memory_order_relaxed);
    }
    t->rows[run * TAIL_PLACES + at] = row;
    atomic_store_explicit(&l->size, size + 1, memory_order_release);
}

void tail_add(struct tail *t, const float *x, size_t n, uint32_t first_row)
{
    ivf_assign_rows(&t->assign, x, n, t->list[0], t->list[1]);
    for (size_t i = 0; i < n; i++) {
        const float *vector = x + i * t->f->dim;
        put_row(t, vector, first_row + (uint32_t)i, t->list[0][i]);
        if (t->list[1][i] != t->list[0][i]) {
            put_row(t, vector, first_row + (uint32_t)i, t->list[1][i]);
        }
    }
}

size_t tail_list_size(const struct ivf *f, const struct tail *t, uint32_t list)
{
    size_t tail = t == NULL ? 0 : atomic_load_explicit(&t->lists[list].size, memory_order_acquire);
    return f->list_size[list] + tail;
}

void tail_prefetch_head(const struct tail *t, uint32_t list)
{
    __builtin_prefetch(&t->lists[list]);
}

void tail_prefetch(const struct tail *t, uint32_t list)
{
    enum { LINE = 64 / sizeof(uint64_t), BYTES = 2048 };
    if (atomic_load_explicit(&t->lists[list].size, memory_order_acquire) == 0) {
        return;
    }
    const _Atomic uint64_t *words = t->codes + (size_t)t->lists[list].first_run * TAIL_BLOCKS * code_words(t);
    for (size_t i = 0; i < TAIL_BLOCKS * code_words(t) && i < BYTES / sizeof(uint64_t); i += LINE) {
        __builtin_prefetch(&words[i]);
    }
}

/* The next of the tail's: the full blocks of a run, or a copy of the one that is being written. */
static void next_of_tail(struct stretches *s, struct stretch *stretch)
{
    const struct tail *t = s->t;
    if (s->at == TAIL_PLACES) {
        s->run = t->next_run[s->run];
        s->at = 0;
    }
    size_t here = s->left < TAIL_PLACES - s->at ? s->left : TAIL_PLACES - s->at;
    size_t full = here / PQ_BLOCK * PQ_BLOCK;
    const _Atomic uint64_t *words = t->codes + (s->run * TAIL_BLOCKS + s->at / PQ_BLOCK) * code_words(t);
    stretch->rows = t->rows + (size_t)s->run * TAIL_PLACES + s->at;
    stretch->place = (uint32_t)(ivf_blocks(s->f) * PQ_BLOCK + (size_t)s->run * TAIL_PLACES + s->at);
    stretch->places = full > 0 ? full : here;
    if (full > 0) {
        stretch->codes = (const uint8_t *)(uintptr_t)words;
    } else {
        for (size_t i = 0; i < code_words(t); i++) {
            uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);
            memcpy(s->copy + i * sizeof word, &word, sizeof word);
        }
        stretch->codes = s->copy;
    }
    s->at += stretch->places;
    s->left -= stretch->places;
}

bool stretches_next(struct stretches *s, struct stretch *stretch)
{
    const struct ivf *f = s->f;
    if (!s->begun) {
        size_t block = f->block_start[s->list];
        s->begun = true;
        s->left = s->t == NULL ? 0 : atomic_load_explicit(&s->t->lists[s->list].size, memory_order_acquire);
        s->run = s->left == 0 ? 0 : s->t->lists[s->list].first_run;
        *stretch = (struct stretch){f->codes + block * pq_block_bytes(&f->pq), f->rows + block * PQ_BLOCK,
                                    f->list_size[s->list], (uint32_t)(block * PQ_BLOCK)};
        return true;
    }
    if (s->left == 0) {
        return false;
    }
    next_of_tail(s, stretch);
    return true;
}
