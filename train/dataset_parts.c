/*
 * What is held out is a mark for each event, whatever the method, so that one partition serves the split by last
 * events, by time and at random. The moment of a split by time is found by radix selection: four passes over the times,
 * no copy and no sort of all of them. Events of one moment never fall on both sides: a model that has seen half of a
 * moment would be asked about the other half.
 */
#include "train/dataset_events.h"

#include <string.h>

#include "core/feature_pack.h"
#include "core/mem.h"
#include "core/rng.h"

/* Whether an event, not a user's first, has the time of the one before it. */
static bool is_same(const struct interactions *part, size_t i)
{
    return part->time != NULL ? part->time[i] == part->time[i - 1]
                              : part->same != NULL && (part->same[i / 64] >> i % 64 & 1) != 0;
}

int interactions_partition(const struct interactions *part, const bool *held_out, size_t n_users,
                           struct interactions *rest, struct interactions *held, struct err *e)
{
    size_t n_held = 0;
    for (size_t i = 0; i < part->n; i++) {
        n_held += held_out[i];
    }
    bool timed = part->time != NULL;
    *held = (struct interactions){0};
    if (interactions_init(rest, part->n - n_held, timed, part->weight != NULL, n_users, e) < 0) {
        return -1;
    }
    if (interactions_init(held, n_held, timed, false, n_users, e) < 0) {
        interactions_release(rest);
        return -1;
    }
    if (part->same != NULL && (rest->same = mem_array(rest->n / 64 + 1, sizeof *rest->same)) == NULL) {
        interactions_release(rest);
        interactions_release(held);
        return err_nomem(e);
    }
    size_t filled[2] = {0, 0};
    struct interactions *to[2] = {rest, held};
    for (size_t u = 0; u < n_users; u++) {
        bool same = false; /* as the last one in rest */
        for (size_t i = part->start[u]; i < part->start[u + 1]; i++) {
            struct interactions *p = to[held_out[i]];
            size_t at = filled[held_out[i]]++;
            same = same && is_same(part, i);
            if (p == rest) {
                if (same && rest->same != NULL) {
                    rest->same[at / 64] |= UINT64_C(1) << at % 64;
                }
                same = true;
            }
            p->item[at] = part->item[i];
            if (timed) {
                p->time[at] = part->time[i];
            }
            if (p->weight != NULL) {
                p->weight[at] = part->weight[i];
            }
        }
        rest->start[u + 1] = filled[0];
        held->start[u + 1] = filled[1];
    }
    return 0;
}

void mark_last(const struct interactions *part, size_t n_users, uint32_t n, bool *held_out)
{
    for (size_t u = 0; u < n_users; u++) {
        size_t end = part->start[u + 1], first = end - part->start[u] > n ? end - n : end;
        for (size_t i = part->start[u]; i < end; i++) {
            held_out[i] = i >= first;
        }
    }
}

/* Order-preserving map of signed to unsigned. */
static uint64_t time_bits(int64_t time)
{
    return (uint64_t)time ^ (UINT64_C(1) << 63);
}

/* The k-th smallest time (k from 0). */
static int64_t time_select(const int64_t *time, size_t n, size_t k)
{
    static const uint64_t low_mask = 0xffff;
    uint64_t prefix = 0, prefix_mask = 0;
    for (int shift = 48; shift >= 0; shift -= 16) {
        size_t counts[1 << 16] = {0};
        for (size_t i = 0; i < n; i++) {
            uint64_t bits = time_bits(time[i]);
            counts[(bits >> shift) & low_mask] += (bits & prefix_mask) == prefix;
        }
        uint64_t digit = 0;
        while (k >= counts[digit]) {
            k -= counts[digit++];
        }
        prefix |= digit << shift;
        prefix_mask |= low_mask << shift;
    }
    return (int64_t)(prefix ^ (UINT64_C(1) << 63));
}

bool mark_latest(const struct interactions *part, double fraction, bool *held_out)
{
    size_t n = part->n, wanted = (size_t)(fraction * (double)n + 0.5);
    if (n < 2) {
        return false;
    }
    wanted = wanted < 1 ? 1 : wanted > n - 1 ? n - 1 : wanted;
    int64_t moment = time_select(part->time, n, n - wanted);
    size_t after = 0, from = 0;
    for (size_t i = 0; i < n; i++) {
        after += part->time[i] > moment;
        from += part->time[i] >= moment;
    }
    /* the moment's own events go to the side that comes nearer to what is wanted, unless that empties the other */
    bool with = after == 0 || (from < n && from - wanted <= wanted - after);
    if (with && from == n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        held_out[i] = part->time[i] > moment || (with && part->time[i] == moment);
    }
    return true;
}

enum { STREAM_CUT = 0x637574 };

/* Marks the last n events of users that have more, of all such users or of so many at random that about `fraction` of
 * all events is marked. False when nobody has more. */
static bool mark_last_share(const struct interactions *part, size_t n_users, uint32_t n, double fraction, uint64_t seed,
                            bool *held_out)
{
    struct rng rng;
    size_t possible = 0;
    for (size_t u = 0; u < n_users; u++) {
        possible += part->start[u + 1] - part->start[u] > n ? n : 0;
    }
    rng_seed(&rng, seed, STREAM_CUT);
    if (possible == 0) {
        return false;
    }
    double share = fraction * (double)part->n / (double)possible;
    mark_last(part, n_users, n, held_out);
    for (size_t u = 0; u < n_users && share < 1; u++) {
        if ((double)rng_uniform(&rng) >= share) {
            memset(held_out + part->start[u], 0, part->start[u + 1] - part->start[u]);
        }
    }
    return true;
}

/* Marks a random `fraction` of each user's events, rounded at random, never all (Knuth's selection sampling). */
static void mark_random(const struct interactions *part, size_t n_users, double fraction, uint64_t seed, bool *held_out)
{
    struct rng rng;
    rng_seed(&rng, seed, STREAM_CUT);
    for (size_t u = 0; u < n_users; u++) {
        size_t left = part->start[u + 1] - part->start[u];
        size_t wanted = (size_t)(fraction * (double)left + (double)rng_uniform(&rng));
        wanted = left > 0 && wanted > left - 1 ? left - 1 : wanted;
        for (size_t i = part->start[u]; i < part->start[u + 1]; i++, left--) {
            held_out[i] = rng_below(&rng, (uint32_t)left) < wanted;
            wanted -= held_out[i];
        }
    }
}

static void move_event(struct interactions *part, size_t to, size_t from)
{
    part->item[to] = part->item[from];
    if (part->time != NULL) {
        part->time[to] = part->time[from];
    }
    if (part->weight != NULL) {
        part->weight[to] = part->weight[from];
    }
}

void interactions_drop_outside(struct interactions *part, size_t n_users, size_t n_items)
{
    size_t kept = 0, first = 0;
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = first; i < part->start[u + 1]; i++) {
            if (part->item[i] < n_items) {
                move_event(part, kept++, i);
            }
        }
        first = part->start[u + 1];
        part->start[u + 1] = kept;
    }
    part->n = kept;
}

void interactions_drop_late(struct interactions *part, size_t n_users, const int64_t *before)
{
    size_t kept = 0, first = 0;
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = first; i < part->start[u + 1] && part->time[i] < before[u]; i++) {
            move_event(part, kept++, i);
        }
        first = part->start[u + 1];
        part->start[u + 1] = kept;
    }
    part->n = kept;
}

int interactions_make_sets(struct interactions *held, const struct interactions *rest, size_t n_users, size_t n_items,
                           size_t n_numbers, uint32_t *unreachable, struct err *e)
{
    uint32_t *seen_by = mem_array(n_numbers, sizeof *seen_by); /* the last user that has the item, plus one */
    if (seen_by == NULL) {
        return err_nomem(e);
    }
    size_t kept = 0, first = 0;
    for (size_t u = 0; u < n_users; u++) {
        uint32_t stamp = (uint32_t)u + 1;
        for (size_t i = rest != NULL ? rest->start[u] : 0; rest != NULL && i < rest->start[u + 1]; i++) {
            seen_by[rest->item[i]] = stamp;
        }
        for (size_t i = first; i < held->start[u + 1]; i++) {
            uint32_t item = held->item[i];
            if (seen_by[item] == stamp) {
                continue;
            }
            seen_by[item] = stamp;
            if (item >= n_items) {
                unreachable[u]++;
                continue;
            }
            move_event(held, kept++, i);
        }
        first = held->start[u + 1];
        held->start[u + 1] = kept;
    }
    held->n = kept;
    mem_free(seen_by);
    return 0;
}

int dataset_cut(const struct dataset *d, double fraction, uint64_t seed, struct interactions *rest,
                struct interactions *held, struct err *e)
{
    int result = -1;
    *rest = *held = (struct interactions){0};
    bool *held_out = mem_array(d->train.n, sizeof *held_out);
    if (held_out == NULL) {
        return err_nomem(e);
    }
    bool marked = d->cut == CUT_LAST
                      ? mark_last_share(&d->train, d->n_users, d->cut_last, fraction, seed, held_out)
                      : d->cut == CUT_LATEST && d->train.time != NULL && mark_latest(&d->train, fraction, held_out);
    if (!marked) {
        mark_random(&d->train, d->n_users, fraction, seed, held_out);
    }
    if (interactions_partition(&d->train, held_out, d->n_users, rest, held, e) == 0) {
        result = interactions_make_sets(held, rest, d->n_users, d->n_items, d->n_items, NULL, e);
    }
    if (result < 0) {
        interactions_release(rest);
        interactions_release(held);
    }
    mem_free(held_out);
    return result;
}

/* --- after loading -------------------------------------------------------------------------------------------------*/

/* Which events have the time of the one before, instead of the times. */
static int drop_times(struct interactions *part, size_t n_users, bool keep_same, struct err *e)
{
    if (part->time == NULL) {
        return 0;
    }
    if (keep_same) {
        part->same = mem_array(part->n / 64 + 1, sizeof *part->same);
        if (part->same == NULL) {
            return err_nomem(e);
        }
    }
    for (size_t u = 0; keep_same && u < n_users; u++) {
        for (size_t i = part->start[u] + 1; i < part->start[u + 1]; i++) {
            part->same[i / 64] |= (uint64_t)(part->time[i] == part->time[i - 1]) << i % 64;
        }
    }
    mem_free(part->time);
    part->time = NULL;
    return 0;
}

static bool any_unreachable(const struct dataset *d)
{
    for (size_t u = 0; u < d->n_users && d->unreachable != NULL; u++) {
        if (d->unreachable[u] > 0) {
            return true;
        }
    }
    return false;
}

int dataset_compact(struct dataset *d, const struct train_config *config, struct err *e)
{
    bool times_needed = d->cut == CUT_LATEST && config->optimizer.early_stop.enabled;
    if (!times_needed && drop_times(&d->train, d->n_users, d->history >= 0, e) < 0) {
        return -1;
    }
    drop_times(&d->test, d->n_users, false, e);
    if (!any_unreachable(d)) {
        mem_free(d->unreachable);
        d->unreachable = NULL;
    }
    if (feature_rows_pack(&d->rows[SIDE_USER]) < 0) {
        return err_nomem(e);
    }
    mem_trim();
    return 0;
}

/* --- history -------------------------------------------------------------------------------------------------------*/

/* Without times: the user's last events, in the file's order, with other items than event `position` has. Were the event
 * or a repetition of it among them, the model would be told what it should find. */
static size_t history_as_set(const struct interactions *part, uint32_t user, size_t position, uint32_t last,
                             const int32_t *row, int32_t *out)
{
    size_t first = part->start[user], end = part->start[user + 1];
    size_t free = last;
    for (size_t i = end; i-- > first && free > 0;) {
        if (position == end || part->item[i] != part->item[position]) {
            out[--free] = row[part->item[i]];
        }
    }
    memmove(out, out + free, (last - free) * sizeof *out);
    return last - free;
}

size_t interactions_history(const struct interactions *part, uint32_t user, size_t position, uint32_t last,
                            const int32_t *row, int32_t *out)
{
    if (part->time == NULL && part->same == NULL) {
        return history_as_set(part, user, position, last, row, out);
    }
    size_t first = part->start[user], end = position;
    while (end > first && end < part->start[user + 1] && is_same(part, end)) {
        end--;
    }
    size_t n = end - first < last ? end - first : last;
    for (size_t i = 0; i < n; i++) {
        out[i] = row[part->item[end - n + i]];
    }
    return n;
}

uint32_t *interactions_count_items(const struct interactions *part, size_t n_items)
{
    uint32_t *count = mem_array(n_items, sizeof *count);
    for (size_t i = 0; count != NULL && i < part->n; i++) {
        count[part->item[i]]++;
    }
    return count;
}

size_t dataset_history(const struct dataset *d, const struct interactions *part, uint32_t user, size_t position,
                       int32_t *out)
{
    uint32_t last = d->schema.towers[SIDE_USER].features[d->history].last;
    return interactions_history(part, user, position, last, d->history_row, out);
}
