/*
 * The index knows nothing of values, so it is asked for more items than are wanted, and those are taken from the best down. What is
 * still missing is asked for anew, without the items that were taken and without all that have a value which is full: the rows
 * of a mask, as under a filter. So each round takes one item at least, and in most requests the second is the last. Effort was
 * measured for the best hundred; who looks deeper for the same recall has to spend as much more as there are more ranks.
 *
 * Where values stand in long rows (the thousand best items are of one category, the next thousand of another), rounds would be many.
 * After a few, exact scans follow, for eight times as many items each, up to what the bench has room for: each of those
 * gives an item or rules it out, so their number is bounded by the catalogue's size, and each sees fewer rows than the one before.
 *
 * When the rounds end early because nothing is left, what was taken is all that can be: every other item has a full value. (With
 * several values an item, or several attributes, another choice might have held more items; the best first is what was asked for.)
 *
 * Rejected: one scan that keeps the best of each value. It is right for a single attribute with one value an item, and needs
 * room for each value that there is.
 */
#include "server/capped.h"

#include <string.h>

#include "server/answer.h"
#include "server/max_per.h"

enum { APPROXIMATE_ROUNDS = 4, ROOM_PART = 2, ROOM_MORE = 16, NEXT_TIMES = 4, EXACT_TIMES = 8 };

struct capped {
    struct workbench *bench;
    struct ann_query search; /* of the round */
    size_t wanted;           /* items in all */
    struct scored *taken;    /* [wanted] */
    size_t n;
    struct scored *hits; /* [room] of the round */
    size_t room, max_k;  /* max_k: of a round that is not exact */
    size_t effort;       /* for `wanted` items */
    size_t masked;       /* of the taken, those that the mask leaves out */
    bool exact;          /* all rounds were */
    bool filtered;       /* a round was, or an item was passed over */
    struct tally tally;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* From what a round found. */
static int take_hits(struct capped *c, size_t found, struct fault *f)
{
    for (size_t i = 0; i < found && c->n < c->wanted; i++) {
        bool taken;
        if (tally_take(&c->tally, c->hits[i].row, &taken) != 0) {
            return tally_no_memory(f);
        }
        c->filtered = c->filtered || !taken;
        c->taken[c->n] = c->hits[i];
        c->n += taken;
    }
    return 0;
}

/* Leaves out what was taken, and what has a full value. */
static void narrow(struct capped *c)
{
    struct filter_bits *bits = &c->bench->filter;
    if (c->search.allow == NULL) {
        filter_apply(c->bench->snapshot, NULL, bits, 0);
        c->search.allow = filter_set(bits, 0);
    }
    memset(bits->condition, 0, bits->words * sizeof *bits->condition);
    tally_mark_full(&c->tally, bits->condition);
    for (; c->masked < c->n; c->masked++) {
        uint32_t row = c->taken[c->masked].row;
        bits->condition[row / 64] |= UINT64_C(1) << row % 64;
    }
    c->search.n_allow = filter_subtract(bits, 0);
}

/* Round number `round` asks for k items, if there may be as many; how it does. */
static void plan(struct capped *c, size_t round, size_t k)
{
    c->search.exact = c->search.exact || round > APPROXIMATE_ROUNDS;
    c->search.k = smaller(k, c->search.exact ? c->room : c->max_k);
    size_t ranks = c->search.k > c->wanted ? c->search.k : c->wanted;
    c->search.effort = smaller(c->effort, ANN_EFFORT_MAX) * ranks / c->wanted;
}

static int run(struct capped *c, struct fault *f)
{
    const struct snapshot *s = c->bench->snapshot;
    plan(c, 1, c->wanted + c->wanted / ROOM_PART + ROOM_MORE);
    for (size_t round = 2;; round++) {
        struct ann_answer found;
        struct err e = ERR_INIT;
        if (ann_search_batch(s->index, c->bench->search, &c->search, 1, &c->hits, &found, &e) != 0) {
            return answer_search_failed(s, &e, f);
        }
        if (take_hits(c, found.n, f) != 0) {
            return -1;
        }
        c->exact = c->exact && found.strategy == ANN_STRATEGY_EXACT;
        c->filtered = c->filtered || found.strategy == ANN_STRATEGY_FILTERED_ANN;
        if (c->n == c->wanted || !found.complete) {
            return 0;
        }
        narrow(c);
        c->search.exact = c->search.exact || c->exact;
        plan(c, round, c->search.exact ? c->search.k * EXACT_TIMES : (c->wanted - c->n) * NEXT_TIMES + ROOM_MORE);
    }
}

int capped_search(struct workbench *bench, const struct ann_query *search, const json_t *max_per,
                  struct ann_answer *answer, struct fault *f)
{
    struct capped c = {.bench = bench, .search = *search, .wanted = search->k, .exact = true};
    c.effort = search->effort > 0 ? search->effort : ann_effort(bench->snapshot->index);
    c.taken = bench->hits;
    c.hits = bench->hits + search->k;
    c.room = bench->n_hits - search->k;
    c.max_k = smaller(bench->rules.config->limits.k, c.room);
    int rc = tally_init(&c.tally, bench->snapshot, max_per) != 0 ? tally_no_memory(f) : run(&c, f);
    tally_release(&c.tally);
    if (rc == 0) {
        struct topk best = {c.taken, c.wanted, c.n};
        topk_sort(&best); /* what a later round found may belong before what an approximate one did */
        answer->n = c.n;
        answer->complete = c.n == c.wanted;
        answer->strategy = c.exact ? ANN_STRATEGY_EXACT : c.filtered ? ANN_STRATEGY_FILTERED_ANN : ANN_STRATEGY_ANN;
    }
    return rc;
}
