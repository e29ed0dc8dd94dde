/*
 * The matrix completion baseline: it learns what groups of users like, from ids alone and whatever the model's features
 * are; the same seed and threads give the same scores.
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
#include "tests/unit/train/lab.h"
#include "train/baseline_matrix.h"
#include "train/evaluate.h"

enum { GROUPS = 5, USERS = 100, ITEMS = 50, OWN = ITEMS / GROUPS };

static const char yaml[] =
    "data:\n"
    "  users: {path: groups-users.csv, id: user_id}\n"
    "  events: {path: groups.csv, user: user_id, item: item_id, time: ts}\n"
    "  split: {method: leave_last, n: 2}\n"
    "user_tower: {features: [{name: age, type: numeric}, {name: user_id, type: id, dim: 6}], network: {type: mlp, "
    "layers: [8]}}\n"
    "item_tower: {features: [{name: item_id, type: id, dim: 8}], network: {type: none}}\n";

/* Each user has 7 of the 10 items of the group, in an order of its own; two of them are the test. */
static void write_world(void)
{
    FILE *users = fopen(files_path("groups-users.csv"), "w");
    FILE *events = fopen(files_path("groups.csv"), "w");
    assert_true(users != NULL && events != NULL);
    fputs("user_id,age\n", users);
    fputs("user_id,item_id,ts\n", events);
    for (int u = 0; u < USERS; u++) {
        fprintf(users, "u%03d,%d\n", u, 20 + u % 30);
        for (int i = 0; i < 7; i++) {
            fprintf(events, "u%03d,i%03d,%d\n", u, u % GROUPS * OWN + (3 * i + u / GROUPS) % OWN, 100 + i);
        }
    }
    assert_int_equal(fclose(users) | fclose(events), 0);
}

static void score_all(struct matrix_completion *mc, const struct dataset *d, float *scores)
{
    struct ranker r = matrix_completion_ranker(mc);
    struct err e = ERR_INIT;
    for (uint32_t u = 0; u < d->n_users; u++) {
        assert_int_equal(r.begin(r.arg, 0, &u, 1, &e), 0);
        r.score(r.arg, 0, &u, 1, 0, d->n_items, scores + u * d->n_items);
    }
}

static void test_groups(void **state)
{
    (void)state;
    struct lab lab;
    struct err e = ERR_INIT;
    write_world();
    lab_open(&lab, yaml, NULL);
    const struct dataset *d = lab.d;
    assert_int_equal(d->n_users, USERS);
    assert_int_equal(d->n_items, ITEMS);
    struct matrix_completion *mc = matrix_completion_new(d, 8, 1, 2, &e);
    struct matrix_completion *same = matrix_completion_new(d, 8, 1, 2, &e);
    if (mc == NULL || same == NULL) {
        fail_msg("%s", e.message);
    }
    struct ranker ours = matrix_completion_ranker(mc), popular = popularity_ranker(d->item_count);
    struct evaluation ev = {USERS, ITEMS, &d->train, &d->test, NULL, 0, 0, {1, {5}}, 2};
    struct metrics m, p;
    assert_int_equal(evaluate(&ev, &ours, "test", &m, &e), 0);
    assert_int_equal(evaluate(&ev, &popular, "test", &p, &e), 0);
    assert_true(m.users == USERS && m.recall[0] > 0.7 && p.recall[0] < 0.3); /* 5 of the group are left for each */
    float *scores = calloc(2 * USERS * ITEMS, sizeof *scores);
    score_all(mc, d, scores);
    score_all(same, d, scores + USERS * ITEMS);
    assert_memory_equal(scores, scores + USERS * ITEMS, USERS * ITEMS * sizeof *scores);
    free(scores);
    matrix_completion_free(mc);
    matrix_completion_free(same);
    lab_close(&lab);
}

/* Every allocation on the way to training and after it; those within are the trainer's own tests. */
static void test_no_memory(void **state)
{
    (void)state;
    struct lab lab;
    write_world();
    lab_open(&lab, yaml, NULL);
    for (long n = 1; n < 120; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct matrix_completion *mc = matrix_completion_new(lab.d, 4, 1, 1, &e);
        mem_fail_at(0);
        assert_true(mc != NULL || err_isset(&e));
        assert_true(n > 20 || mc == NULL);
        matrix_completion_free(mc);
    }
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
