/*
 * Mined hard negatives against exact rankings computed from the bundle alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "core/bundle.h"
#include "core/mem.h"
#include "core/vecmath.h"
#include "tests/unit/train/lab.h"
#include "train/dataset_fingerprint.h"
#include "train/export.h"
#include "train/hard.h"
#include "train/ranker.h"

enum { USERS = 150, ITEMS = 60, EVENTS = 900 };

/* --- yesterday's bundle, today's data --------------------------------------------------------------------------------- */

/* Publishes the lab's model, as it was initialised, as models-out/current. */
static void publish_bundle(const char *yaml, size_t users, size_t items, size_t events)
{
    struct err e = ERR_INIT;
    struct lab lab;
    char models[128];
    dir_remove_tree(files_path("models-out"), NULL);
    snprintf(models, sizeof models, "output.dir=%s", files_path("models-out"));
    lab_synth(&lab, yaml, (const char *[]){models, NULL}, users, items, events);
    const struct dataset *d = lab.d;
    const struct tower *tower = &lab.m->towers[SIDE_ITEM];
    struct ann_vectors vectors = {mem_array(d->n_items * tower->spec->output_dim, sizeof(float)), d->n_items,
                                  tower->spec->output_dim};
    float *data = (float *)(uintptr_t)vectors.data;
    assert_int_equal(embed_rows(tower, d->schema.similarity, &d->rows[SIDE_ITEM], 1, data, &e), 0);
    struct ann_build_options options = {.engine = "flat", .threads = 1};
    struct ann *index = ann_build(&vectors, &options, &e);
    struct export x = {.config = lab.config,
                       .d = d,
                       .model = lab.m,
                       .item_vectors = data,
                       .queries = data,
                       .n_queries = 10,
                       .index = index,
                       .index_record = json_pack("{s:s, s:s, s:i}", "engine", "flat", "factory", "", "effort", 0),
                       .metrics = json_object(),
                       .baselines = json_object(),
                       .train = json_object()};
    x.users = tower_ranker_new(d, &d->train, &lab.m->towers[SIDE_USER], data, 1, &e);
    char *published = export_bundle(&x, &e);
    if (published == NULL) {
        fail_msg("%s", e.message);
    }
    mem_free(published);
    tower_ranker_free(x.users);
    ann_free(index);
    json_decref(x.index_record);
    json_decref(x.metrics);
    json_decref(x.baselines);
    json_decref(x.train);
    mem_free(data);
    lab_close(&lab);
}

static void open_miner(struct lab *lab, const char *yaml, const char *ranks, const char *per_user, const char *more)
{
    static char bundle[128];
    snprintf(bundle, sizeof bundle, "negatives.hard.bundle=%s", files_path("models-out/current"));
    lab_open(lab, yaml, (const char *[]){"negatives.hard.source=mined", bundle, ranks, per_user, more, NULL});
}

static struct interactions mine(const struct lab *lab, unsigned threads)
{
    struct err e = ERR_INIT;
    struct interactions hard;
    if (hard_mine(lab->config, lab->d, threads, &hard, &e) < 0) {
        fail_msg("%s", e.message);
    }
    return hard;
}

static bool has(const struct interactions *part, uint32_t user, uint32_t item)
{
    for (size_t i = part->start[user]; i < part->start[user + 1]; i++) {
        if (part->item[i] == item) {
            return true;
        }
    }
    return false;
}

/* All that the window of an exact ranking has for a user, marked in wanted [d->n_items]; returns how many. */
static size_t naive_window(const struct lab *lab, const struct bundle *b, uint32_t user, const float *vector,
                           bool *wanted)
{
    const uint32_t *ranks = lab->config->negatives.hard.ranks;
    float *scores = calloc(b->n_items, sizeof *scores);
    struct scored *best = calloc(ranks[1], sizeof *best);
    size_t n = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        scores[i] = vec_dot(vector, b->item_vectors + i * b->dim, b->dim);
    }
    assert_int_equal(topk_naive(best, ranks[1], scores, b->n_items), ranks[1]);
    memset(wanted, 0, lab->d->n_items * sizeof *wanted);
    for (size_t rank = ranks[0]; rank <= ranks[1]; rank++) {
        size_t length;
        const char *id = strtab_get(&b->item_ids, best[rank - 1].row, &length);
        int64_t item = strtab_find(&lab->d->item_ids, id, length);
        if (item >= 0 && !has(&lab->d->train, user, (uint32_t)item)) {
            wanted[item] = true;
            n++;
        }
    }
    free(scores);
    free(best);
    return n;
}

static void expect_list(const struct lab *lab, const struct interactions *hard, uint32_t user, const bool *wanted,
                        size_t n_wanted)
{
    size_t n = hard->start[user + 1] - hard->start[user];
    size_t per_user = lab->config->negatives.hard.per_user;
    bool *seen = calloc(lab->d->n_items, sizeof *seen);
    assert_int_equal(n, n_wanted < per_user ? n_wanted : per_user);
    for (size_t i = hard->start[user]; i < hard->start[user + 1]; i++) {
        assert_true(wanted[hard->item[i]]);
        assert_false(seen[hard->item[i]]);
        seen[hard->item[i]] = true;
    }
    free(seen);
}

/* --- same data, every type of feature ---------------------------------------------------------------------------------- */

static void check_window(const char *yaml, const char *ranks, const char *per_user)
{
    struct err e = ERR_INIT;
    struct lab lab;
    publish_bundle(yaml, USERS, ITEMS, EVENTS);
    open_miner(&lab, yaml, ranks, per_user, NULL);
    struct dataset *d = lab.d;
    struct interactions hard = mine(&lab, 2);
    struct bundle *b = bundle_open(lab.config->negatives.hard.bundle, &e);
    assert_non_null(b);
    struct tower_ranker *users = tower_ranker_new(d, &d->train, &b->towers[SIDE_USER], NULL, 1, &e);
    float *vector = calloc(b->dim, sizeof *vector);
    bool *wanted = calloc(d->n_items, sizeof *wanted);
    size_t own = 0;
    size_t width = lab.config->negatives.hard.ranks[1] - lab.config->negatives.hard.ranks[0] + 1;
    for (uint32_t u = 0; u < d->n_users; u++) {
        assert_int_equal(tower_ranker_vectors(users, 0, &u, 1, vector, &e), 0);
        size_t n = naive_window(&lab, b, u, vector, wanted);
        own += width - n;
        expect_list(&lab, &hard, u, wanted, d->train.start[u + 1] > d->train.start[u] ? n : 0);
    }
    assert_true(own > 20); /* there was something to leave out */
    assert_int_equal(hard.n, hard.start[d->n_users]);
    free(vector);
    free(wanted);
    tower_ranker_free(users);
    bundle_free(b);
    interactions_release(&hard);
    lab_close(&lab);
}

static void test_window(void **state)
{
    (void)state;
    check_window(lab_full, "negatives.hard.ranks=[5, 24]", "negatives.hard.per_user=20");
    check_window(lab_full, "negatives.hard.ranks=[1, 50]", "negatives.hard.per_user=3");
    check_window(lab_wide, "negatives.hard.ranks=[11, 30]", "negatives.hard.per_user=7");
    check_window(lab_shared, "negatives.hard.ranks=[4, 12]", "negatives.hard.per_user=9");
}

/* --- other users and items than the bundle's -------------------------------------------------------------------------- */

static void test_new_and_gone(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lab lab;
    publish_bundle(lab_ids, 100, ITEMS, EVENTS);
    assert_int_equal(synth_write(files_dir, 140, 45, EVENTS, 5, &e), 0);
    open_miner(&lab, lab_ids, "negatives.hard.ranks=[3, 40]", "negatives.hard.per_user=38", NULL);
    struct dataset *d = lab.d;
    struct interactions hard = mine(&lab, 2);
    struct bundle *b = bundle_open(lab.config->negatives.hard.bundle, &e);
    assert_non_null(b);
    assert_true(b->n_items > d->n_items);
    bool *wanted = calloc(d->n_items, sizeof *wanted);
    size_t new_users = 0, moved = 0;
    for (uint32_t u = 0; u < d->n_users; u++) {
        size_t length;
        const char *id = strtab_get(&d->user_ids, u, &length);
        int64_t row = strtab_find(&b->schema.towers[SIDE_USER].features[0].vocab, id, length);
        new_users += row < 0;
        moved += row >= 0 && row != u;
        const float *table = b->towers[SIDE_USER].embedding[0];
        const float *vector = table + (size_t)(row < 0 ? SCHEMA_UNKNOWN : row + SCHEMA_FIRST) * b->dim;
        size_t n = naive_window(&lab, b, u, vector, wanted);
        expect_list(&lab, &hard, u, wanted, d->train.start[u + 1] > d->train.start[u] ? n : 0);
    }
    assert_true(new_users > 10 && moved > 10);
    free(wanted);
    bundle_free(b);
    interactions_release(&hard);
    lab_close(&lab);
}

/* --- determinism ------------------------------------------------------------------------------------------------------- */

static bool equal(const struct interactions *a, const struct interactions *b, size_t n_users)
{
    return a->n == b->n && memcmp(a->start, b->start, (n_users + 1) * sizeof *a->start) == 0 &&
           memcmp(a->item, b->item, a->n * sizeof *a->item) == 0;
}

static void test_same_on_any_number_of_threads(void **state)
{
    (void)state;
    struct lab lab;
    publish_bundle(lab_full, USERS, ITEMS, EVENTS);
    open_miner(&lab, lab_full, "negatives.hard.ranks=[5, 24]", "negatives.hard.per_user=6", NULL);
    struct interactions one = mine(&lab, 1);
    for (unsigned threads = 2; threads <= 5; threads++) {
        struct interactions many = mine(&lab, threads);
        assert_true(equal(&one, &many, lab.d->n_users));
        interactions_release(&many);
    }
    lab.config->seed++;
    struct interactions other = mine(&lab, 1);
    assert_int_equal(other.n, one.n);
    assert_false(equal(&one, &other, lab.d->n_users));
    interactions_release(&other);
    interactions_release(&one);
    lab_close(&lab);
}

/* A checkpoint is of these lists, not of others. */
static void test_fingerprint(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lab lab;
    publish_bundle(lab_ids, USERS, ITEMS, EVENTS);
    open_miner(&lab, lab_ids, "negatives.hard.ranks=[5, 24]", "negatives.hard.per_user=6", NULL);
    json_t *without = dataset_fingerprint(lab.d, &e);
    lab.d->hard = mine(&lab, 1);
    json_t *with = dataset_fingerprint(lab.d, &e);
    assert_false(json_equal(with, without));
    lab.d->hard.item[7]++;
    json_t *changed = dataset_fingerprint(lab.d, &e);
    assert_false(json_equal(with, changed));
    lab.d->hard.item[7]--;
    lab.d->hard.start[1]--;
    json_t *moved = dataset_fingerprint(lab.d, &e);
    assert_false(json_equal(with, moved));
    lab.d->hard.start[1]++;
    json_t *again = dataset_fingerprint(lab.d, &e);
    assert_true(json_equal(with, again));
    json_t *all[] = {without, with, changed, moved, again};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        json_decref(all[i]);
    }
    lab_close(&lab);
}

/* --- failures ---------------------------------------------------------------------------------------------------------- */

static void expect_refusal(const struct lab *lab, const char *const *words)
{
    struct err e = ERR_INIT;
    struct interactions hard;
    assert_true(hard_mine(lab->config, lab->d, 2, &hard, &e) < 0);
    assert_true(hard.start == NULL && hard.item == NULL && hard.n == 0);
    for (; *words != NULL; words++) {
        if (strstr(e.message, *words) == NULL) {
            fail_msg("error \"%s\" does not contain \"%s\"", e.message, *words);
        }
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct lab lab;
    publish_bundle(lab_ids, USERS, ITEMS, EVENTS);

    open_miner(&lab, lab_ids, "negatives.hard.ranks=[5, 61]", "negatives.hard.per_user=6", NULL);
    expect_refusal(&lab, (const char *[]){"negatives.hard.ranks", "more hard negatives", "60 items", NULL});
    lab_close(&lab);

    open_miner(&lab, lab_ids, "negatives.hard.ranks=[5, 60]", "negatives.hard.per_user=6", "similarity=cosine");
    expect_refusal(&lab, (const char *[]){"negatives.hard.bundle", "similarity is cosine here, and dot there",
                                          "name a bundle that has them", NULL});
    lab_close(&lab);

    open_miner(&lab, lab_full, "negatives.hard.ranks=[5, 60]", "negatives.hard.per_user=6", "similarity=dot");
    expect_refusal(&lab, (const char *[]){"negatives.hard.bundle", "user tower", "user_id", NULL});
    lab_close(&lab);

    open_miner(&lab, lab_ids, "negatives.hard.ranks=[5, 60]", "negatives.hard.per_user=6",
               "negatives.hard.bundle=/nowhere");
    expect_refusal(&lab, (const char *[]){"negatives.hard.bundle", "/nowhere", NULL});
    lab_close(&lab);

    files_write("clicks.csv", "user_id,item_id,ts\na,x,1\na,y,2\nb,y,1\nb,z,3\n"); /* other items altogether */
    open_miner(&lab, lab_ids, "negatives.hard.ranks=[5, 60]", "negatives.hard.per_user=6", NULL);
    expect_refusal(&lab, (const char *[]){"negatives.hard.ranks", "nobody has an item", "wider window", NULL});
    lab_close(&lab);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct lab lab;
    long failures = 0;
    publish_bundle(lab_wide, 40, 30, 400);
    open_miner(&lab, lab_wide, "negatives.hard.ranks=[5, 24]", "negatives.hard.per_user=6", NULL);
    for (bool done = false; !done; failures++) {
        struct err e = ERR_INIT;
        struct interactions hard;
        mem_fail_at(failures + 1);
        done = hard_mine(lab.config, lab.d, 1, &hard, &e) == 0;
        mem_fail_at(0);
        assert_true(done || (err_isset(&e) && hard.start == NULL && hard.item == NULL));
        interactions_release(&hard);
    }
    assert_true(failures > 40);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window),      cmocka_unit_test(test_new_and_gone),
        cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_same_on_any_number_of_threads),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
