#include "server/popular.h"

#include <stdlib.h>

#include "server/catalog.h"
#include "server/max_per.h"

struct walk {
    const struct snapshot *s;
    const struct ann_query *search;
    struct tally tally;
    struct scored *hits; /* [search->k] */
    size_t n;
};

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool is_wanted(const struct ann_query *search, uint32_t row)
{
    return (!search->allow || (search->allow[row / 64] >> row % 64 & 1) != 0) &&
           (search->n_exclude == 0 ||
            !bsearch(&row, search->exclude, search->n_exclude, sizeof *search->exclude, compare_rows));
}

static int offer(struct walk *w, uint32_t row, uint32_t events, struct fault *f)
{
    bool taken = false;
    if (!is_wanted(w->search, row)) {
        return 0;
    }
    if (tally_take(&w->tally, row, &taken) != 0) {
        return tally_no_memory(f);
    }
    w->hits[w->n] = (struct scored){(float)events, row};
    w->n += taken;
    return 0;
}

/* The row that an item of the bundle has now; -1: it was removed. */
static int64_t row_now(const struct snapshot *s, uint32_t row)
{
    if (ann_is_live(s->index, row)) {
        return row;
    }
    struct span id = catalog_id(s->catalog, row);
    return catalog_find(s->catalog, s->index, id.text, id.length);
}

static int walk_bundle(struct walk *w, struct fault *f)
{
    const struct bundle *b = w->s->bundle;
    for (size_t i = 0; i < b->n_items && w->n < w->search->k; i++) {
        int64_t row = row_now(w->s, b->popular[i].row);
        if (row >= 0 && offer(w, (uint32_t)row, b->popular[i].events, f) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Those that the bundle does not have. */
static int walk_added(struct walk *w, struct fault *f)
{
    const struct snapshot *s = w->s;
    size_t end = ann_rows(s->index);
    for (size_t row = s->bundle->n_items; row < end && w->n < w->search->k; row++) {
        if (!ann_is_live(s->index, (uint32_t)row)) {
            continue;
        }
        struct span id = catalog_id(s->catalog, (uint32_t)row);
        if (strtab_find(&s->bundle->item_ids, id.text, id.length) < 0 && offer(w, (uint32_t)row, 0, f) != 0) {
            return -1;
        }
    }
    return 0;
}

int popular_search(struct workbench *bench, const struct ann_query *search, const json_t *max_per,
                   struct ann_answer *answer, struct fault *f)
{
    struct walk w = {.s = bench->snapshot, .search = search, .hits = bench->hits};
    int rc = tally_init(&w.tally, w.s, max_per) != 0 ? tally_no_memory(f) : walk_bundle(&w, f);
    rc = rc == 0 ? walk_added(&w, f) : rc;
    tally_release(&w.tally);
    *answer = (struct ann_answer){w.n, w.n == search->k, ANN_STRATEGY_EXACT};
    return rc;
}
