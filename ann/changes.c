/*
 * What was added to an index, and removed from it, while others search.
 *
 * Nothing that a search reads is ever taken away or moved: added vectors have their memory reserved, engines append to their
 * lists (ann/tail.h), removed rows only get a bit, which candidates are compared with. So searches need neither locks nor a
 * grace period. What they cost grows with the changes, until the lists are made anew from the rows that live (ann_compact) and
 * the caller swaps the index for the new one. Both share vectors and removed bits, and a row keeps its number: whoever has a
 * row's number, in a mask or a table of names, need not know of any of this, and a removed row stays removed because there
 * is one bit to say so. The price is that numbers and vectors of removed rows are not used again.
 *
 * Rejected: a second, small index for what was added, searched beside the first. It costs each search another pass over
 * centroids and another selection, a third of the whole at a tenth of added rows, and has to be merged into a third one as it
 * grows; behind the lists the added rows cost what their share of the scan is.
 */
#include <string.h>

#include "ann/ann.h"
#include "ann/engine.h"
#include "core/mem.h"
#include "core/parallel.h"
#include "core/vecmath.h"

static size_t removed_words(const struct ann_changes *c)
{
    return (c->first + c->room + 63) / 64;
}

void changes_free(struct ann *index)
{
    struct ann_changes *c = index->changes;
    index->changes = NULL;
    if (c == NULL || atomic_fetch_sub(&c->owners, 1) > 1) {
        return;
    }
    mem_unreserve(c->vectors, c->room * c->dim, sizeof *c->vectors);
    mem_unreserve((void *)(uintptr_t)c->removed, removed_words(c), sizeof *c->removed);
    mem_free(c);
}

/* Codes of the rows that there are, with room for those to come. */
static int move_codes(struct ann *index, struct err *e)
{
    struct sq8 *wider = sq8_new(index->codes->dim, ann_rows_most(index));
    if (wider == NULL) {
        return err_nomem(e);
    }
    memcpy(wider->codes, index->codes->codes, index->vectors.n * wider->stride);
    sq8_release(index->codes);
    index->codes = wider;
    return 0;
}

int ann_make_room(struct ann *index, size_t room, struct err *e)
{
    size_t first = (index->vectors.n + 63) / 64 * 64;
    if (first + room >= (size_t)1 << 31) {
        return err_set(e, "no room for %zu more rows: an index has fewer than 2^31", room);
    }
    struct ann_changes *c = mem_array(1, sizeof *c);
    if (c == NULL) {
        return err_nomem(e);
    }
    *c = (struct ann_changes){.owners = 1, .room = room, .first = first, .dim = index->vectors.dim};
    index->changes = c;
    c->vectors = mem_reserve(room * index->vectors.dim, sizeof *c->vectors);
    c->removed = mem_reserve(removed_words(c), sizeof *c->removed);
    int rc = c->vectors == NULL || c->removed == NULL ? err_nomem(e) : 0;
    if (rc == 0 && first > index->vectors.n) { /* numbers that no row has: nobody finds them, whatever a mask says */
        c->removed[first / 64 - 1] = ~(uint64_t)0 << index->vectors.n % 64;
    }
    if (rc == 0 && index->codes != NULL) {
        rc = move_codes(index, e);
    }
    if (rc == 0 && index->engine->make_room != NULL) {
        rc = index->engine->make_room(index, e);
    }
    if (rc != 0) {
        changes_free(index);
    }
    return rc;
}

static size_t count_of(const _Atomic size_t *counter)
{
    return atomic_load_explicit(counter, memory_order_acquire);
}

size_t ann_rows(const struct ann *index)
{
    const struct ann_changes *c = index->changes;
    return c == NULL ? index->vectors.n : c->first + count_of(&c->n_added);
}

size_t ann_rows_most(const struct ann *index)
{
    const struct ann_changes *c = index->changes;
    return c == NULL ? index->vectors.n : c->first + c->room;
}

size_t ann_rows_live(const struct ann *index)
{
    const struct ann_changes *c = index->changes;
    return c == NULL ? index->vectors.n : index->vectors.n + count_of(&c->n_added) - count_of(&c->n_removed);
}

size_t ann_room(const struct ann *index)
{
    const struct ann_changes *c = index->changes;
    return c == NULL ? 0 : c->room - count_of(&c->n_added);
}

int ann_add(struct ann *index, const float *vectors, size_t n, uint32_t *first_row, struct err *e)
{
    return ann_replace(index, vectors, n, NULL, 0, first_row, e);
}

/* The moment in which added rows appear and old ones go: a few instructions, while the generation is odd. Whoever sees one of its
 * stores (they release, searches acquire) then sees the odd number, too, or a later one. */
static void exchange(struct ann *index, size_t n_added, const uint32_t *old, size_t n_old)
{
    struct ann_changes *c = index->changes;
    size_t generation = atomic_load_explicit(&c->generation, memory_order_relaxed);
    if (n_old > 0) {
        atomic_store_explicit(&c->generation, generation + 1, memory_order_relaxed);
    }
    atomic_store_explicit(&c->n_added, n_added, memory_order_release);
    for (size_t i = 0; i < n_old; i++) {
        ann_remove(index, old[i]);
    }
    if (n_old > 0) {
        atomic_store_explicit(&c->generation, generation + 2, memory_order_release);
    }
}

int ann_replace(struct ann *index, const float *vectors, size_t n, const uint32_t *old, size_t n_old,
                uint32_t *first_row, struct err *e)
{
    struct ann_changes *c = index->changes;
    size_t dim = index->vectors.dim;
    if (n > ann_room(index)) {
        return err_set(e, "there is room for %zu more rows, not for %zu", ann_room(index), n);
    }
    if (!vec_is_finite(vectors, n * dim)) {
        return err_set(e, "a vector that is not finite can't be added");
    }
    *first_row = (uint32_t)ann_rows(index);
    if (n == 0) {
        return 0;
    }
    size_t added = count_of(&c->n_added);
    memcpy(c->vectors + added * dim, vectors, n * dim * sizeof *vectors);
    if (index->codes != NULL) {
        sq8_put(index->codes, *first_row, vectors, n);
    }
    if (index->in_engine) {
        index->engine->add(index, vectors, n, *first_row);
    }
    index->given = added + n;
    exchange(index, added + n, old, n_old);
    return 0;
}

bool ann_remove(struct ann *index, uint32_t row)
{
    struct ann_changes *c = index->changes;
    if (c == NULL || !ann_is_live(index, row)) {
        return false;
    }
    atomic_fetch_or_explicit(&c->removed[row / 64], (uint64_t)1 << row % 64, memory_order_release);
    atomic_fetch_add_explicit(&c->n_removed, 1, memory_order_release);
    return true;
}

size_t ann_generation(const struct ann *index)
{
    return index->changes == NULL ? 0 : count_of(&index->changes->generation);
}

bool ann_is_settled(const struct ann *index, size_t generation)
{
    return generation % 2 == 0 && ann_generation(index) == generation;
}

bool ann_is_live(const struct ann *index, uint32_t row)
{
    return ann_vector(index, row) != NULL && !row_is_removed(index, row);
}

const float *ann_vector(const struct ann *index, uint32_t row)
{
    size_t dim = index->vectors.dim;
    if (row < index->vectors.n) {
        return index->vectors.data + row * dim;
    }
    bool added = index->changes != NULL && row >= index->changes->first && row < ann_rows(index);
    return added ? index->changes->vectors + (row - index->changes->first) * dim : NULL;
}

/* --- compaction ---------------------------------------------------------------------------------------------------- */

bool ann_can_compact(const struct ann *index)
{
    return index->in_engine && index->engine->build_rows != NULL;
}

size_t ann_overhead(const struct ann *index)
{
    const struct ann_changes *c = index->changes;
    return c == NULL ? 0 : index->given - index->built + count_of(&c->n_removed) - index->left_out;
}

/* Builds `anew` of the rows that live now. */
static int build_live(struct ann *anew, const struct ann_build_options *options, struct err *e)
{
    size_t end = ann_rows(anew);
    size_t dim = anew->vectors.dim;
    uint32_t *rows = mem_array(end, sizeof *rows);
    float *gathered = mem_array(end * dim, sizeof *gathered);
    int rc = rows == NULL || gathered == NULL ? err_nomem(e) : 0;
    struct ann_vectors live = {gathered, 0, anew->vectors.dim};
    for (uint32_t row = 0; rc == 0 && row < end; row++) {
        if (ann_is_live(anew, row)) {
            memcpy(gathered + live.n * dim, ann_vector(anew, row), dim * sizeof *gathered);
            rows[live.n++] = row;
        }
    }
    if (rc == 0) {
        anew->given = anew->built = end - anew->changes->first;
        anew->left_out = anew->vectors.n + anew->given - live.n;
        rc = anew->engine->build_rows(anew, &live, rows, options, e);
    }
    mem_free(rows);
    mem_free(gathered);
    return rc;
}

struct ann *ann_compact(const struct ann *index, const struct ann_build_options *options, struct err *e)
{
    struct ann *anew = mem_array(1, sizeof *anew);
    if (anew == NULL) {
        err_nomem(e);
        return NULL;
    }
    *anew = (struct ann){.engine = index->engine, .vectors = index->vectors, .changes = index->changes};
    atomic_fetch_add(&anew->changes->owners, 1);
    anew->codes = index->codes == NULL ? NULL : sq8_own(index->codes);
    if (build_live(anew, options, e) != 0 || anew->engine->make_room(anew, e) != 0) {
        ann_free(anew);
        return NULL;
    }
    ann_set_effort(anew, index->effort);
    return anew;
}

void ann_catch_up(struct ann *index)
{
    struct ann_changes *c = index->changes;
    size_t added = count_of(&c->n_added);
    if (index->in_engine) {
        index->engine->add(index, c->vectors + index->given * c->dim, added - index->given,
                           (uint32_t)(c->first + index->given));
    }
    index->given = added;
}

/* --- what the rest of ann/ needs ------------------------------------------------------------------------------------ */

void index_pieces(const struct ann *index, size_t end, struct ann_piece piece[ANN_PIECES])
{
    const struct ann_changes *c = index->changes;
    piece[0] = (struct ann_piece){index->vectors.data, 0, index->vectors.n};
    piece[1] = c == NULL ? (struct ann_piece){NULL, 0, 0} : (struct ann_piece){c->vectors, c->first, end - c->first};
}

struct encoding {
    struct sq8 *codes;
    const struct ann_vectors *vectors;
};

static void encode(void *arg, unsigned worker, size_t begin, size_t end)
{
    const struct encoding *job = arg;
    (void)worker;
    sq8_put(job->codes, begin, job->vectors->data + begin * job->vectors->dim, end - begin);
}

int index_encode(struct ann *index, unsigned threads, struct err *e)
{
    enum { ROWS = 1024 };
    struct encoding job = {sq8_new(index->vectors.dim, index->vectors.n), &index->vectors};
    if (job.codes == NULL) {
        return err_nomem(e);
    }
    parallel_for(threads, index->vectors.n, ROWS, encode, &job);
    index->codes = job.codes;
    return 0;
}

/* Moves added rows behind the others; returns how many others there are. */
static size_t part_added(const struct ann *index, struct scored *picked, size_t n)
{
    size_t own = 0;
    for (size_t i = 0; i < n; i++) {
        struct scored here = picked[i];
        picked[i] = picked[own];
        picked[own] = here;
        own += here.row < index->vectors.n;
    }
    return own;
}

void index_score(const struct ann *index, const float *query, struct scored *picked, size_t n)
{
    const struct ann_changes *c = index->changes;
    size_t dim = index->vectors.dim;
    size_t own = c == NULL || count_of(&c->n_added) == 0 ? n : part_added(index, picked, n);
    vec_dot_picked(picked, own, index->vectors.data, dim, query);
    if (own == n) {
        return;
    }
    for (size_t i = own; i < n; i++) {
        picked[i].row -= (uint32_t)c->first;
    }
    vec_dot_picked(picked + own, n - own, c->vectors, dim, query);
    for (size_t i = own; i < n; i++) {
        picked[i].row += (uint32_t)c->first;
    }
}
