/* Changes of items: all or nothing, kept over another bundle by the rules of server/items.h, whatever memory is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/schema.h"
#include "server/catalog.h"
#include "server/items.h"
#include "tests/unit/server/small_bundle.h"

enum { DIM = 4, MOST = 8, ROOM = 40, FIRST = 64 };

static struct serve_config config;
static struct retired retired = {.wake_fd = -1};
static float weights[100];

/* A snapshot of a bundle of up to MOST items, with the numbers "size" and texts "title"; sizes the tower computes with. */
static struct snapshot *make_snapshot(struct small_blocks *blocks, const char *version, const char *const *ids,
                                      size_t n, const char *feature)
{
    static const char *const sizes[MOST] = {"1", "2", "3", "4", "5", "6", "7", "8"};
    static const char *const titles[MOST] = {"\"A\"", "\"B\"", "\"C\"", "\"D\"", "\"E\"", "\"F\"", "\"G\"", "\"H\""};
    static const struct small_column columns[] = {{"size", sizes}, {"title", titles}};
    static const float vectors[MOST * DIM];
    struct err e = ERR_INIT;
    struct bundle *b = small_bundle_new(blocks, ids, n, columns, 2);
    b->dim = DIM;
    b->item_vectors = vectors;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct feature *f = mem_array(1, sizeof *f);
        *f = (struct feature){.type = FEATURE_NUMERIC, .stddev = 1};
        snprintf(f->name, sizeof f->name, "%s", feature);
        b->schema.towers[side] = (struct tower_spec){.features = f, .n_features = 1};
        b->schema.towers[side].network = (struct network){.type = NETWORK_MLP, .widths = {DIM}, .n_widths = 1};
    }
    assert_int_equal(schema_finish(&b->schema, &e), 0);
    struct tower *t = &b->towers[SIDE_ITEM];
    t->spec = &b->schema.towers[SIDE_ITEM];
    for (uint32_t i = 0; i < t->spec->layers.n_dense; i++) {
        t->dense[i] = weights;
    }
    struct ann *index = ann_open("flat", NULL, &(struct ann_vectors){vectors, n, DIM}, 0, &e);
    assert_int_equal(ann_make_room(index, ROOM, &e), 0);
    struct snapshot *s = snapshot_new(version, catalog_new(b, ROOM, &e), index, &retired, &e);
    assert_non_null(s);
    return s;
}

static int set_up(void **state)
{
    (void)state;
    config.limits.list = 10;
    config.limits.batch = 10;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        weights[i] = 0.5f;
    }
    return 0;
}

static int add(struct items *it, const char *list, struct items_added *done, struct fault *f)
{
    json_t *json = json_loads(list, 0, NULL);
    assert_non_null(json);
    int rc = items_add(it, &config, json, done, f);
    json_decref(json);
    if (rc == 0) {
        snapshot_unref(done->snapshot);
    }
    return rc;
}

static void must_add(struct items *it, const char *list, size_t added, size_t replaced)
{
    struct items_added done;
    struct fault f;
    if (add(it, list, &done, &f) != 0) {
        fail_msg("%s: %s %s", list, f.pointer, f.detail);
    }
    assert_int_equal(done.added, added);
    assert_int_equal(done.replaced, replaced);
}

static void must_remove(struct items *it, const char *id)
{
    struct snapshot *s;
    struct fault f;
    assert_int_equal(items_remove(it, id, &s, &f), 0);
    assert_ptr_equal(s, it->current);
    snapshot_unref(s);
}

static int64_t find(const struct items *it, const char *id)
{
    return catalog_find(it->current->catalog, it->current->index, id, strlen(id));
}

/* As a load does; takes the reference. */
static void serve(struct items *it, struct snapshot *s)
{
    struct items_replay replay;
    struct err e = ERR_INIT;
    assert_int_equal(items_replay(it, &config, s, &replay, &e), 0);
    items_take_over(it, &config, s, &replay);
    snapshot_unref(s);
}

static void release(struct items *it)
{
    items_release(it);
    snapshot_reap(&retired);
}

static void test_before_the_first_bundle(void **state)
{
    (void)state;
    struct items it = {0};
    struct items_added done;
    struct snapshot *s;
    struct items_status status;
    struct err e = ERR_INIT;
    struct fault f;
    assert_int_equal(items_init(&it, &e), 0);
    assert_int_equal(add(&it, "[{\"id\":1,\"features\":{}}]", &done, &f), -1);
    assert_int_equal(f.type, PROBLEM_NOT_READY);
    assert_int_equal(items_remove(&it, "1", &s, &f), -1);
    assert_int_equal(f.type, PROBLEM_NOT_READY);
    items_get_status(&it, &status);
    assert_int_equal(status.live, 0);
    assert_null(items_worth_compacting(&it));
    items_release(&it);
}

/* The log holds these ids, "-x" removed ones, and no others. */
static void expect_log(const struct items *it, const char *const *ids, size_t n)
{
    assert_int_equal(json_object_size(it->log), n);
    for (size_t i = 0; i < n; i++) {
        bool removed = ids[i][0] == '-';
        const json_t *value = json_object_get(it->log, ids[i] + removed);
        assert_true(removed ? json_is_null(value) : json_is_string(value));
    }
}

static void test_another_bundle(void **state)
{
    (void)state;
    struct small_blocks first, second, third;
    struct items it = {0};
    struct items_replay replay;
    struct err e = ERR_INIT;
    assert_int_equal(items_init(&it, &e), 0);
    serve(&it, make_snapshot(&first, "1", (const char *const[]){"a", "b", "c"}, 3, "size"));
    must_add(&it,
             "[{\"id\":\"x\",\"features\":{\"size\":\"9\"}},{\"id\":\"a\",\"features\":{}},"
             "{\"id\":\"y\",\"features\":{},\"attributes\":{\"title\":\"Y\"}},{\"id\":\"q\",\"features\":{}}]",
             3, 1);
    must_remove(&it, "b");
    must_remove(&it, "c");
    must_remove(&it, "q");
    assert_true(find(&it, "x") == FIRST && find(&it, "a") == FIRST + 1 && find(&it, "b") == -1);
    expect_log(&it, (const char *const[]){"x", "a", "y", "-b", "-c", "-q"}, 6);
    struct span size = catalog_attribute(it.current->catalog, 0, FIRST);
    assert_true(size.length == 1 && size.text[0] == '9'); /* a number, as the trainer writes it */

    struct snapshot *s = make_snapshot(&second, "2", (const char *const[]){"a", "b", "c", "x"}, 4, "size");
    assert_int_equal(items_replay(&it, &config, s, &replay, &e), 0);
    must_add(&it,
             "[{\"id\":\"x\",\"features\":{\"size\":8}},{\"id\":\"b\",\"features\":{}},{\"id\":\"z\",\"features\":{}}]",
             2, 1);
    must_remove(&it, "y");
    items_take_over(&it, &config, s, &replay);
    assert_ptr_equal(it.current, s);
    snapshot_unref(s);
    assert_true(find(&it, "a") == 0);     /* the bundle's own */
    assert_true(find(&it, "x") >= FIRST); /* but what came during the load is newer */
    assert_true(find(&it, "b") >= FIRST && find(&it, "z") >= FIRST);
    assert_true(find(&it, "c") == -1 && find(&it, "y") == -1 && find(&it, "q") == -1);
    assert_int_equal(ann_rows_live(s->index), 4);
    expect_log(&it, (const char *const[]){"x", "b", "z", "-y", "-c", "-q"}, 6);

    /* a tower without that feature takes b and z, and not x */
    serve(&it, make_snapshot(&third, "3", (const char *const[]){"m"}, 1, "weight"));
    assert_true(find(&it, "m") == 0 && find(&it, "x") == -1 && find(&it, "b") >= FIRST && find(&it, "z") >= FIRST);
    expect_log(&it, (const char *const[]){"b", "z", "-y", "-c", "-q"}, 5);
    release(&it);
    small_blocks_release(&first);
    small_blocks_release(&second);
    small_blocks_release(&third);
}

static long allocations_left;

static void *scarce_malloc(size_t n)
{
    return allocations_left-- > 0 ? malloc(n) : NULL;
}

/* Whatever allocation fails, ours or jansson's, nothing has changed. */
static void test_no_memory(void **state)
{
    (void)state;
    static const char list[] = "[{\"id\":\"a\",\"features\":{\"size\":3}},{\"id\":\"n1\",\"features\":{},"
                               "\"attributes\":{\"title\":[\"t\",7]}},"
                               "{\"id\":\"n2\",\"features\":{\"size\":1e3}}]";
    for (int jansson = 0; jansson < 2; jansson++) {
        struct small_blocks blocks, other;
        struct items it = {0};
        struct items_added done;
        struct err e = ERR_INIT;
        struct fault f;
        json_t *json = json_loads(list, 0, NULL);
        assert_int_equal(items_init(&it, &e), 0);
        serve(&it, make_snapshot(&blocks, "1", (const char *const[]){"a", "b"}, 2, "size"));
        if (jansson) {
            json_set_alloc_funcs(scarce_malloc, free);
        }
        int rc = -1;
        for (long n = 1; rc != 0; n++) {
            allocations_left = n;
            mem_fail_at(jansson ? 0 : n);
            rc = items_add(&it, &config, json, &done, &f);
            mem_fail_at(0);
            assert_true(n < 1000);
            if (rc != 0) {
                assert_int_equal(f.type, PROBLEM_OUT_OF_MEMORY);
                assert_int_equal(ann_rows_live(it.current->index), 2);
                assert_int_equal(json_object_size(it.log), 0);
            }
        }
        json_set_alloc_funcs(malloc, free);
        json_decref(json);
        snapshot_unref(done.snapshot);
        assert_true(done.added == 2 && done.replaced == 1 && ann_rows_live(it.current->index) == 4);

        struct snapshot *s = make_snapshot(&other, "2", (const char *const[]){"a", "b"}, 2, "size");
        struct items_replay replay;
        rc = -1;
        for (long n = 1; rc != 0 && !jansson; n++) { /* a load that fails leaves all for the next one */
            err_clear(&e);
            mem_fail_at(n);
            rc = items_replay(&it, &config, s, &replay, &e);
            mem_fail_at(0);
            assert_true(rc == 0 || err_isset(&e));
            assert_int_equal(json_object_size(it.log), 3);
        }
        if (rc == 0) {
            items_take_over(&it, &config, s, &replay);
            assert_true(find(&it, "a") == 0 && find(&it, "n1") >= FIRST && find(&it, "n2") >= FIRST);
        }
        snapshot_unref(s);
        release(&it);
        small_blocks_release(&blocks);
        small_blocks_release(&other);
    }
}

/* In the place of one that ann_compact made. */
static struct ann *other_index(void)
{
    static const float vectors[2 * DIM];
    struct err e = ERR_INIT;
    struct ann *index = ann_open("flat", NULL, &(struct ann_vectors){vectors, 2, DIM}, 0, &e);
    assert_int_equal(ann_make_room(index, ROOM, &e), 0);
    return index;
}

static void test_a_compacted_index(void **state)
{
    (void)state;
    struct small_blocks blocks, other;
    struct items it = {0};
    struct err e = ERR_INIT;
    static const char *const ids[] = {"a", "b"};
    assert_int_equal(items_init(&it, &e), 0);
    serve(&it, make_snapshot(&blocks, "1", ids, 2, "size"));
    struct snapshot *from = snapshot_ref(it.current);
    struct ann *index = other_index();
    struct snapshot *s = items_take_index(&it, from, index, &e);
    assert_ptr_equal(s, it.current);
    assert_ptr_equal(s->catalog, from->catalog);
    assert_string_equal(s->version, "1");
    assert_int_equal(it.compactions, 1);
    snapshot_unref(s);
    index = other_index();
    assert_null(items_take_index(&it, from, index, &e)); /* no longer current */
    assert_false(err_isset(&e));
    serve(&it, make_snapshot(&other, "2", ids, 2, "size"));
    assert_string_equal(it.current->version, "2");
    snapshot_unref(from);
    release(&it);
    small_blocks_release(&blocks);
    small_blocks_release(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_the_first_bundle),
        cmocka_unit_test(test_another_bundle),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_a_compacted_index),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
