/*
 * Evaluation against an oracle that sorts everything and counts, on random data full of ties and odd cases; metrics by
 * hand; the popularity baseline; the tower ranker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/topk.h"
#include "core/vecmath.h"
#include "tests/unit/train/lab.h"
#include "train/evaluate.h"

/* --- a random world -----------------------------------------------------------------------------------------------------*/

enum { USERS = 300, ITEMS = 150 };

struct world {
    struct interactions seen, relevant;
    uint32_t unreachable[USERS];
    float scores[USERS][ITEMS];
};

/* Up to `most` random pairs a user, repetitions included; every fourth user has none. */
static void random_part(struct interactions *part, struct rng *r, uint32_t most)
{
    part->start = calloc(USERS + 1, sizeof *part->start);
    part->item = calloc((size_t)USERS * most, sizeof *part->item);
    for (size_t u = 0; u < USERS; u++) {
        uint32_t n = rng_below(r, 4) == 0 ? 0 : 1 + rng_below(r, most);
        for (uint32_t i = 0; i < n; i++) {
            part->item[part->n++] = rng_below(r, ITEMS);
        }
        part->start[u + 1] = part->n;
    }
}

static struct world *world_new(uint64_t seed, uint32_t levels)
{
    struct world *w = calloc(1, sizeof *w);
    struct rng r;
    assert_non_null(w);
    rng_seed(&r, seed, 1);
    random_part(&w->seen, &r, 40);
    random_part(&w->relevant, &r, 12);
    for (size_t u = 0; u < USERS; u++) {
        w->unreachable[u] = rng_below(&r, 5) == 0 ? rng_below(&r, 4) : 0;
        for (size_t i = 0; i < ITEMS; i++) { /* few levels: ties everywhere */
            w->scores[u][i] = (float)rng_below(&r, levels) - 3;
        }
    }
    return w;
}

static void world_free(struct world *w)
{
    free(w->seen.item);
    free(w->seen.start);
    free(w->relevant.item);
    free(w->relevant.start);
    free(w);
}

static void table_score(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                        float *scores)
{
    (void)worker;
    const struct world *w = arg;
    for (size_t i = 0; i < count; i++) {
        memcpy(scores + i * n, w->scores[users[i]] + first, n * sizeof *scores);
    }
}

static struct ranker table_ranker(struct world *w)
{
    return (struct ranker){NULL, table_score, w};
}

static struct evaluation evaluation_of(const struct world *w, unsigned threads)
{
    return (struct evaluation){.n_users = USERS,
                               .n_items = ITEMS,
                               .seen = &w->seen,
                               .relevant = &w->relevant,
                               .unreachable = w->unreachable,
                               .at = metric_default_cutoffs,
                               .threads = threads};
}

/* --- the oracle -------------------------------------------------------------------------------------------------------*/

static bool contains(const struct interactions *part, size_t user, uint32_t item)
{
    for (size_t i = part == NULL ? 1 : part->start[user]; part != NULL && i < part->start[user + 1]; i++) {
        if (part->item[i] == item) {
            return true;
        }
    }
    return false;
}

/* The user's ranking of unseen items: repeatedly the best that is left. */
static size_t rank_user(const struct evaluation *ev, const float *scores, size_t user, uint32_t *ranking)
{
    bool taken[ITEMS] = {false};
    size_t n = 0;
    for (;;) {
        int best = -1;
        for (int i = 0; i < ITEMS; i++) {
            if (!taken[i] && !contains(ev->seen, user, (uint32_t)i) && (best < 0 || scores[i] > scores[best])) {
                best = i;
            }
        }
        if (best < 0) {
            return n;
        }
        taken[best] = true;
        ranking[n++] = (uint32_t)best;
    }
}

/* One user's metrics at one cut-off. Returns hits. */
static size_t count_hits(const struct evaluation *ev, size_t user, const uint32_t *ranking, size_t n, size_t k,
                         double *gain)
{
    size_t hits = 0;
    *gain = 0;
    for (size_t rank = 1; rank <= k && rank <= n; rank++) {
        if (contains(ev->relevant, user, ranking[rank - 1])) {
            hits++;
            *gain += 1 / log2((double)rank + 1);
        }
    }
    return hits;
}

static double first_hit(const struct evaluation *ev, size_t user, const uint32_t *ranking, size_t n)
{
    for (size_t rank = 1; rank <= 100 && rank <= n; rank++) {
        if (contains(ev->relevant, user, ranking[rank - 1])) {
            return 1 / (double)rank;
        }
    }
    return 0;
}

static size_t count_relevant(const struct evaluation *ev, size_t user)
{
    size_t n = ev->unreachable == NULL ? 0 : ev->unreachable[user];
    for (uint32_t i = 0; i < ITEMS; i++) {
        n += contains(ev->relevant, user, i) && !contains(ev->seen, user, i);
    }
    return n;
}

static void oracle(const struct evaluation *ev, const struct world *w, struct metrics *m)
{
    bool shown[METRIC_MAX_KS][ITEMS] = {{false}};
    *m = (struct metrics){.at = ev->at};
    for (size_t u = 0; u < USERS; u++) {
        uint32_t ranking[ITEMS];
        size_t relevant = count_relevant(ev, u);
        if (relevant == 0) {
            continue;
        }
        size_t n = rank_user(ev, w->scores[u], u, ranking);
        m->users++;
        m->mrr += first_hit(ev, u, ranking, n);
        for (size_t c = 0; c < ev->at.n; c++) {
            double gain, ideal = 0;
            size_t hits = count_hits(ev, u, ranking, n, ev->at.k[c], &gain);
            for (size_t rank = 1; rank <= ev->at.k[c] && rank <= relevant; rank++) {
                ideal += 1 / log2((double)rank + 1);
            }
            m->recall[c] += (double)hits / (double)relevant;
            m->ndcg[c] += gain / ideal;
            m->hit_rate[c] += hits > 0;
            for (size_t i = 0; i < n && i < ev->at.k[c]; i++) {
                shown[c][ranking[i]] = true;
            }
        }
    }
    m->mrr /= (double)m->users;
    for (size_t c = 0; c < ev->at.n; c++) {
        m->recall[c] /= (double)m->users;
        m->ndcg[c] /= (double)m->users;
        m->hit_rate[c] /= (double)m->users;
        for (size_t i = 0; i < ITEMS; i++) {
            m->coverage[c] += shown[c][i] / (double)ITEMS;
        }
    }
}

static void expect_same(const char *what, double got, double expected)
{
    if (!(fabs(got - expected) < 1e-12)) {
        fail_msg("%s: %.15g, oracle %.15g", what, got, expected);
    }
}

static void expect_metrics(const struct metrics *got, const struct metrics *expected)
{
    assert_int_equal(got->users, expected->users);
    expect_same("mrr", got->mrr, expected->mrr);
    for (size_t c = 0; c < expected->at.n; c++) {
        expect_same("recall", got->recall[c], expected->recall[c]);
        expect_same("ndcg", got->ndcg[c], expected->ndcg[c]);
        expect_same("hit_rate", got->hit_rate[c], expected->hit_rate[c]);
        expect_same("coverage", got->coverage[c], expected->coverage[c]);
    }
}

static void run(const struct evaluation *ev, struct world *w, struct metrics *m)
{
    struct err e = ERR_INIT;
    struct ranker ranker = table_ranker(w);
    if (evaluate(ev, &ranker, "test", m, &e) < 0) {
        fail_msg("%s", e.message);
    }
}

static void check(const struct evaluation *ev, struct world *w)
{
    struct metrics got, expected;
    run(ev, w, &got);
    oracle(ev, w, &expected);
    expect_metrics(&got, &expected);
}

/* --- tests ------------------------------------------------------------------------------------------------------------*/

static void test_oracle(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct world *w = world_new(seed, seed % 2 == 0 ? 6 : 1000000);
        struct evaluation ev = evaluation_of(w, 1 + (unsigned)seed % 3);
        check(&ev, w);
        ev.seen = NULL;
        check(&ev, w);
        ev.unreachable = NULL;
        check(&ev, w);
        ev.seen = &w->seen;
        check(&ev, w);
        world_free(w);
    }
}

/* Cut-offs from the first item to far beyond the catalogue; mrr does not depend on them. */
static void test_cutoffs(void **state)
{
    (void)state;
    static const struct metric_cutoffs lists[] = {
        {1, {1}},
        {1, {5}},
        {3, {1, 2, 3}},
        {2, {149, 150}},
        {4, {10, 151, 999, 1000}},
        {2, {1, 1000}},
        {16, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    };
    struct world *w = world_new(9, 100);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct evaluation ev = evaluation_of(w, 2);
        ev.at = lists[i];
        check(&ev, w);
    }
    world_free(w);
}

static void test_threads_are_identical(void **state)
{
    (void)state;
    struct world *w = world_new(10, 50);
    struct metrics one, three;
    struct evaluation ev = evaluation_of(w, 1);
    run(&ev, w, &one);
    for (int again = 0; again < 5; again++) {
        ev.threads = 3;
        run(&ev, w, &three);
        assert_memory_equal(&one, &three, sizeof one);
    }
    world_free(w);
}

static void test_max_users(void **state)
{
    (void)state;
    struct world *w = world_new(11, 50);
    struct metrics all, some;
    struct evaluation ev = evaluation_of(w, 2);
    run(&ev, w, &all);
    for (size_t i = 0; i < USERS; i++) { /* nobody falls out for having seen everything */
        w->unreachable[i]++;
    }
    ev.max_users = 100;
    run(&ev, w, &some);
    assert_int_equal(some.users, 100);
    struct metrics same, other;
    run(&ev, w, &same);
    assert_memory_equal(&same, &some, sizeof same);
    ev.seed = 2;
    run(&ev, w, &other);
    assert_int_equal(other.users, 100);
    assert_true(other.recall[0] != some.recall[0]);
    ev.max_users = USERS + 1;
    run(&ev, w, &some);
    assert_int_equal(some.users, USERS);
    world_free(w);
}

static void small_score(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                        float *out)
{
    (void)worker;
    for (size_t i = 0; i < count; i++) {
        memcpy(out + i * n, (const float *)arg + users[i] * 5 + first, n * sizeof *out);
    }
}

/* User 0: relevant 2 (rank 1), 4 (rank 3), one outside the catalogue. Ranking of 5 items: 2 0 4 1 3. User 1: relevant 3
 * and 1, of which 1 is seen; ranking without 1: 0 2 3 4 by the tie rule. User 2: only what he has seen. User 3: nothing. */
static void test_by_hand(void **state)
{
    (void)state;
    static const float scores[4][5] = {{4, 1, 5, 0, 3}, {7, 7, 7, 7, 7}, {1, 2, 3, 4, 5}, {0, 0, 0, 0, 0}};
    uint32_t relevant_items[] = {2, 4, 2, 3, 1, 0};
    size_t relevant_start[] = {0, 3, 5, 6, 6};
    uint32_t seen_items[] = {1, 0};
    size_t seen_start[] = {0, 0, 1, 2, 2};
    const uint32_t unreachable[] = {1, 0, 0, 0};
    struct interactions relevant = {.n = 6, .item = relevant_items, .start = relevant_start};
    struct interactions seen = {.n = 2, .item = seen_items, .start = seen_start};
    struct evaluation ev = {4, 5, &seen, &relevant, unreachable, 0, 0, {2, {2, 3}}, 1};
    struct metrics m;
    struct err e = ERR_INIT;
    struct ranker ranker = {NULL, small_score, (void *)(uintptr_t)scores};
    assert_int_equal(evaluate(&ev, &ranker, "test", &m, &e), 0);
    assert_int_equal(m.users, 2);
    expect_same("recall@2", m.recall[0], (1.0 / 3 + 0) / 2);
    expect_same("recall@3", m.recall[1], (2.0 / 3 + 1) / 2);
    expect_same("hit_rate@2", m.hit_rate[0], 0.5);
    expect_same("mrr", m.mrr, (1 + 1.0 / 3) / 2);
    expect_same("ndcg@2", m.ndcg[0], 1 / (1 + 1 / log2(3)) / 2);
    expect_same("ndcg@3", m.ndcg[1], (1.5 / (1 + 1 / log2(3) + 0.5) + 0.5) / 2);
    expect_same("coverage@2", m.coverage[0], 2.0 / 5); /* 2 0 and 0 2 */
    expect_same("coverage@3", m.coverage[1], 4.0 / 5); /* and 4, 3 */
}

/* Scores that are no numbers are never recommended. */
/* The outcomes themselves, over a catalogue of several tiles: who was ranked, what was relevant, where it was found, and
 * what was shown. The score of item i for user u is high where (i * 7919 + u) % n is small. */
enum { MANY = 9000, FEW = 130 };

static uint32_t rank_of(uint32_t user, uint32_t item)
{
    return (item * 7919 + user) % MANY; /* a permutation for every user: 7919 is prime */
}

static void many_score(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                       float *out)
{
    (void)arg, (void)worker;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < n; j++) {
            out[i * n + j] = -(float)rank_of(users[i], (uint32_t)(first + j));
        }
    }
}

static void test_outcomes_over_tiles(void **state)
{
    (void)state;
    struct interactions seen = {0}, relevant = {0};
    struct rng r;
    rng_seed(&r, 17, 1);
    relevant.start = calloc(FEW + 1, sizeof *relevant.start);
    relevant.item = calloc(FEW * 20, sizeof *relevant.item);
    seen.start = calloc(FEW + 1, sizeof *seen.start);
    seen.item = calloc(FEW * 500, sizeof *seen.item);
    bool *was_seen = calloc((size_t)FEW * MANY, 1);
    for (uint32_t u = 0; u < FEW; u++) {
        for (uint32_t i = 0; i < 500; i++) { /* among them many of the best */
            uint32_t item = rng_below(&r, MANY);
            if (rank_of(u, item) < 60 || i < 300) {
                seen.item[seen.n++] = item;
                was_seen[u * MANY + item] = true;
            }
        }
        for (uint32_t i = 0; i < MANY && relevant.n < u * 20 + 20; i++) {
            if (rank_of(u, i) < 200 && i % 9 == 0) {
                relevant.item[relevant.n++] = i;
            }
        }
        seen.start[u + 1] = seen.n;
        relevant.start[u + 1] = relevant.n;
    }
    struct evaluation ev = {FEW, MANY, &seen, &relevant, NULL, 0, 0, metric_default_cutoffs, 2};
    struct ranker ranker = {NULL, many_score, NULL};
    struct outcomes o;
    struct err e = ERR_INIT;
    uint32_t *shown = calloc(MANY, sizeof *shown);
    assert_int_equal(evaluate_outcomes(&ev, &ranker, "test", &o, &e), 0);
    assert_int_equal(o.n_users, FEW);
    for (uint32_t u = 0; u < FEW; u++) {
        size_t at = o.start[u];
        for (uint32_t item = 0; item < MANY; item++) {
            uint32_t rank = 1;
            for (uint32_t better = 0; better < MANY && !was_seen[u * MANY + item] && rank <= 100; better++) {
                rank += !was_seen[u * MANY + better] && rank_of(u, better) < rank_of(u, item);
            }
            shown[item] += !was_seen[u * MANY + item] && rank <= 100;
            if (!was_seen[u * MANY + item] && contains(&relevant, u, item)) {
                assert_true(at < o.start[u + 1]);
                assert_int_equal(o.found[at].item, item);
                assert_int_equal(o.found[at++].rank, rank <= 100 ? rank : 0);
            }
        }
        assert_int_equal(at, o.start[u + 1]);
        assert_int_equal(o.n_relevant[u], o.start[u + 1] - o.start[u]);
    }
    assert_memory_equal(o.shown + 3 * MANY, shown, MANY * sizeof *shown);
    outcomes_release(&o);
    free(shown);
    free(was_seen);
    free(seen.start);
    free(seen.item);
    free(relevant.start);
    free(relevant.item);
}

static void test_nan_scores(void **state)
{
    (void)state;
    struct world *w = world_new(12, 50);
    struct metrics got;
    for (size_t u = 0; u < USERS; u++) {
        for (size_t i = 0; i < ITEMS; i++) {
            w->scores[u][i] = NAN;
        }
    }
    struct evaluation ev = evaluation_of(w, 2);
    run(&ev, w, &got);
    assert_true(got.users > 0 && got.mrr == 0 && got.recall[3] == 0 && got.ndcg[3] == 0 && got.coverage[3] == 0);
    world_free(w);
}

static int failing_begin(void *arg, unsigned worker, const uint32_t *users, size_t count, struct err *e)
{
    (void)arg, (void)worker, (void)count;
    return users[0] > 100 ? err_set(e, "ranker gave up") : 0;
}

static void test_errors(void **state)
{
    (void)state;
    struct world *w = world_new(13, 50);
    struct metrics m;
    struct err e = ERR_INIT;
    struct evaluation ev = evaluation_of(w, 3);
    struct ranker failing = {failing_begin, table_score, w};
    assert_true(evaluate(&ev, &failing, "test", &m, &e) < 0);
    assert_string_equal(e.message, "ranker gave up");
    err_clear(&e);
    memset(w->unreachable, 0, sizeof w->unreachable);
    memset(w->relevant.start, 0, (USERS + 1) * sizeof *w->relevant.start);
    struct ranker ranker = table_ranker(w);
    assert_true(evaluate(&ev, &ranker, "test", &m, &e) < 0);
    assert_non_null(strstr(e.message, "no user"));
    world_free(w);
}

/* Everybody has seen all that is relevant: zeros, not a division by zero. */
static void test_nobody_left(void **state)
{
    (void)state;
    struct world *w = world_new(14, 50);
    struct metrics m;
    struct evaluation ev = evaluation_of(w, 2);
    ev.unreachable = NULL;
    ev.seen = &w->relevant;
    run(&ev, w, &m);
    assert_int_equal(m.users, 0);
    assert_true(m.mrr == 0 && m.recall[0] == 0 && m.ndcg[0] == 0 && m.coverage[3] == 0);
    world_free(w);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *w = world_new(15, 50);
    struct evaluation ev = evaluation_of(w, 2);
    struct ranker ranker = table_ranker(w);
    for (long n = 1;; n++) {
        struct metrics m;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = evaluate(&ev, &ranker, "test", &m, &e);
        mem_fail_at(0);
        if (result == 0) {
            assert_true(n > 10);
            break;
        }
        assert_true(err_isset(&e));
    }
    world_free(w);
}

static void test_names(void **state)
{
    (void)state;
    struct metrics m = {.at = {2, {10, 100}}, .users = 7, .recall = {0.1, 0.2}, .ndcg = {0.3, 0.4}};
    m.hit_rate[0] = 0.5;
    m.coverage[1] = 0.6;
    m.mrr = 0.7;
    assert_true(metrics_get(&m, "recall@10") == 0.1 && metrics_get(&m, "recall@100") == 0.2);
    assert_true(metrics_get(&m, "ndcg@100") == 0.4 && metrics_get(&m, "hit_rate@10") == 0.5);
    assert_true(metrics_get(&m, "coverage@100") == 0.6 && metrics_get(&m, "mrr") == 0.7);
    const char *none[] = {"recall", "recall@", "recall@1", "recall@1000", "recal@10",
                          "mrr@10", "",        "@10",      "recall@010"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_true(isnan(metrics_get(&m, none[i])));
    }
    json_t *json = metrics_to_json(&m);
    assert_int_equal(json_object_size(json), 4 * 2 + 2);
    assert_true(json_number_value(json_object_get(json, "ndcg@10")) == 0.3);
    assert_true(json_number_value(json_object_get(json, "mrr")) == 0.7);
    assert_int_equal(json_integer_value(json_object_get(json, "users")), 7);
    json_decref(json);
}

/* --- rankers ----------------------------------------------------------------------------------------------------------*/

static void test_popularity(void **state)
{
    (void)state;
    struct world *w = world_new(16, 50);
    uint32_t count[ITEMS] = {0};
    for (size_t i = 0; i < w->seen.n; i++) {
        count[w->seen.item[i]]++;
    }
    for (size_t u = 0; u < USERS; u++) {
        for (size_t i = 0; i < ITEMS; i++) {
            w->scores[u][i] = (float)count[i];
        }
    }
    struct evaluation ev = evaluation_of(w, 2);
    struct ranker ranker = popularity_ranker(count);
    struct metrics got, expected;
    struct err e = ERR_INIT;
    assert_int_equal(evaluate(&ev, &ranker, "test", &got, &e), 0);
    oracle(&ev, w, &expected);
    expect_metrics(&got, &expected);
    world_free(w);
}

/* Scores of the tower ranker: user vector (with the whole history of the part) times item vectors. */
static void check_tower_ranker(const char *yaml, const char *similarity)
{
    struct lab lab;
    struct err e = ERR_INIT;
    lab_synth(&lab, yaml, (const char *[]){similarity, NULL}, 100, 60, 900);
    const struct dataset *d = lab.d;
    const struct tower *towers = lab.m->towers;
    size_t dim = towers[SIDE_ITEM].spec->output_dim;
    float *items = mem_array(d->n_items * dim, sizeof *items);
    float *same = mem_array(d->n_items * dim, sizeof *same);
    float *scores = mem_array(RANK_BLOCK * d->n_items, sizeof *scores);
    assert_int_equal(embed_rows(&towers[SIDE_ITEM], d->schema.similarity, &d->rows[SIDE_ITEM], 3, items, &e), 0);
    assert_int_equal(embed_rows(&towers[SIDE_ITEM], d->schema.similarity, &d->rows[SIDE_ITEM], 1, same, &e), 0);
    assert_memory_equal(items, same, d->n_items * dim * sizeof *items);
    struct tower_ranker *r = tower_ranker_new(d, &d->train, &towers[SIDE_USER], items, 2, &e);
    assert_non_null(r);
    for (uint32_t user = 0; user < d->n_users; user += 7) {
        const uint32_t users[2] = {user, (uint32_t)d->n_users - 1};
        struct ranker ranker = tower_ranker_of(r);
        size_t half = d->n_items / 2; /* in two tiles */
        assert_int_equal(ranker.begin(r, user % 2, users, 2, &e), 0);
        ranker.score(r, user % 2, users, 2, 0, half, scores);
        ranker.score(r, user % 2, users, 2, half, d->n_items - half, scores + 2 * half);
        struct feature_rows row;
        struct tower_pass pass;
        int32_t history[32];
        float vector[64];
        assert_int_equal(feature_rows_init(&row, towers[SIDE_USER].spec), 0);
        assert_int_equal(feature_rows_copy(&row, &d->rows[SIDE_USER], user), 0);
        if (d->history >= 0) {
            size_t n = dataset_history(d, &d->train, user, d->train.start[user + 1], history);
            assert_int_equal(feature_rows_set_bag(&row, (uint32_t)d->history, history, n), 0);
        }
        assert_int_equal(tower_pass_init(&pass, towers[SIDE_USER].spec, 1, &e), 0);
        tower_embed(&towers[SIDE_USER], d->schema.similarity, &row, &pass, vector);
        for (size_t i = 0; i < d->n_items; i++) {
            float score = i < half ? scores[i] : scores[2 * half + i - half];
            assert_true(fabsf(score - vec_dot_naive(vector, items + i * dim, dim)) < 1e-4f);
        }
        tower_pass_release(&pass);
        feature_rows_release(&row);
    }
    tower_ranker_free(r);
    mem_free(items);
    mem_free(same);
    mem_free(scores);
    lab_close(&lab);
}

static void test_tower_ranker(void **state)
{
    (void)state;
    check_tower_ranker(lab_full, "similarity=cosine");
    check_tower_ranker(lab_wide, "similarity=dot");
    check_tower_ranker(lab_ids, "similarity=cosine");
}

static void test_tower_ranker_no_memory(void **state)
{
    (void)state;
    struct lab lab;
    lab_synth(&lab, lab_full, NULL, 30, 20, 200);
    float *items = mem_array(lab.d->n_items * 7, sizeof *items);
    for (long n = 1;; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct tower_ranker *r = tower_ranker_new(lab.d, &lab.d->train, &lab.m->towers[SIDE_USER], items, 2, &e);
        mem_fail_at(0);
        if (r != NULL) {
            assert_true(n > 10);
            tower_ranker_free(r);
            break;
        }
        assert_true(err_isset(&e));
    }
    for (long n = 1; n <= 5; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = embed_rows(&lab.m->towers[SIDE_ITEM], SIMILARITY_DOT, &lab.d->rows[SIDE_ITEM], 2, items, &e);
        mem_fail_at(0);
        assert_true(result == 0 || err_isset(&e));
        assert_true(n > 1 || result < 0);
    }
    mem_free(items);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_cutoffs),
        cmocka_unit_test(test_threads_are_identical),
        cmocka_unit_test(test_max_users),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_outcomes_over_tiles),
        cmocka_unit_test(test_nan_scores),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nobody_left),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_popularity),
        cmocka_unit_test(test_tower_ranker),
        cmocka_unit_test(test_tower_ranker_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
