/* Items that come and go: found by their ids, filtered by their attributes, read while others are added. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ann/ann.h"
#include "core/rng.h"
#include "server/catalog.h"
#include "server/filter.h"
#include "tests/unit/server/small_bundle.h"

enum { OWN = 3, FIRST = 64, ROOM = 5000, MOST = FIRST + ROOM, WORDS = (MOST + 63) / 64 };

static const char *const own_ids[] = {"a", "b", "c"};
static const char *const own_colours[] = {"\"red\"", "[\"red\",\"blue\"]", "null"};
static const char *const own_prices[] = {"1", "2.5", "null"};
static const struct small_column columns[] = {{"colour", own_colours}, {"price", own_prices}};
enum { COLOUR, PRICE, COLUMNS };

struct world {
    struct small_blocks blocks;
    struct catalog *catalog;
    struct ann *index;
};

static void make_world(struct world *w, size_t room)
{
    static const float numbers[OWN];
    const struct ann_vectors vectors = {numbers, OWN, 1};
    struct err e = ERR_INIT;
    w->catalog = catalog_new(small_bundle_new(&w->blocks, own_ids, OWN, columns, COLUMNS), room, &e);
    w->index = ann_open("flat", NULL, &vectors, 0, &e);
    assert_non_null(w->catalog);
    assert_non_null(w->index);
    assert_int_equal(ann_make_room(w->index, room, &e), 0);
}

static void free_world(struct world *w)
{
    ann_free(w->index);
    catalog_unref(w->catalog);
    small_blocks_release(&w->blocks);
}

static struct span span(const char *text)
{
    return (struct span){text, strlen(text)};
}

static int64_t find(const struct world *w, const char *id)
{
    return catalog_find(w->catalog, w->index, id, strlen(id));
}

/* Adds an item, or replaces the one of this id. */
static uint32_t put(const struct world *w, const char *id, const char *colour, const char *price)
{
    struct err e = ERR_INIT;
    const struct span attributes[COLUMNS] = {span(colour), span(price)};
    const float vector = 1;
    struct catalog_item *item = catalog_item_new(w->catalog, span(id), attributes, &e);
    int64_t old = find(w, id);
    uint32_t row = (uint32_t)ann_rows(w->index);
    uint32_t replaced = (uint32_t)old;
    assert_non_null(item);
    assert_true(catalog_has_room(w->catalog, &item, 1, row));
    catalog_put(w->catalog, row, item);
    assert_true(find(w, id) == old); /* not yet */
    assert_int_equal(ann_replace(w->index, &vector, 1, &replaced, old >= 0, &row, &e), 0);
    return row;
}

static void assert_text(struct span text, const char *expected)
{
    assert_int_equal(text.length, strlen(expected));
    assert_memory_equal(text.text, expected, text.length);
}

static void test_find(void **state)
{
    (void)state;
    struct world w;
    make_world(&w, 10);
    assert_true(find(&w, "b") == 1 && find(&w, "x") == -1 && find(&w, "") == -1);
    assert_int_equal(put(&w, "x", "\"green\"", "7"), FIRST);
    assert_int_equal(put(&w, "b", "\"green\"", "8"), FIRST + 1);
    assert_true(find(&w, "x") == FIRST && find(&w, "b") == FIRST + 1 && find(&w, "a") == 0);
    assert_false(ann_is_live(w.index, 1));
    assert_text(catalog_id(w.catalog, 1), "b");
    assert_text(catalog_id(w.catalog, FIRST + 1), "b");
    assert_text(catalog_attribute(w.catalog, PRICE, 1), "2.5");
    assert_text(catalog_attribute(w.catalog, PRICE, FIRST + 1), "8");
    assert_int_equal(put(&w, "x", "[1,\"green\"]", "null"), FIRST + 2);
    assert_text(catalog_attribute(w.catalog, COLOUR, FIRST + 2), "[1,\"green\"]");
    assert_true(ann_remove(w.index, (uint32_t)find(&w, "x")));
    assert_true(ann_remove(w.index, (uint32_t)find(&w, "b")));
    assert_true(ann_remove(w.index, (uint32_t)find(&w, "c")));
    assert_true(find(&w, "x") == -1 && find(&w, "b") == -1 && find(&w, "c") == -1);
    assert_int_equal(put(&w, "c", "null", "null"), FIRST + 3);
    assert_true(find(&w, "c") == FIRST + 3);
    free_world(&w);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct err e = ERR_INIT;
    make_world(&w, 2);
    struct span attributes[COLUMNS] = {span("1"), span("nothing")};
    assert_null(catalog_item_new(w.catalog, span("x"), attributes, &e));
    static char list[2000] = "[0";
    for (int i = 1; i < 30; i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, ",%d%s", i, i == 29 ? "]" : "");
    }
    attributes[1] = span(list);
    struct catalog_item *item = catalog_item_new(w.catalog, span("x"), attributes, &e);
    assert_non_null(item);
    assert_text(catalog_item_id(item), "x");
    assert_false(catalog_has_room(w.catalog, &item, 1, FIRST)); /* for so many values */
    catalog_item_free(item);
    attributes[1] = span("3");
    item = catalog_item_new(w.catalog, span("x"), attributes, &e);
    assert_true(catalog_has_room(w.catalog, &item, 1, FIRST + 1));
    assert_false(catalog_has_room(w.catalog, &item, 1, FIRST + 2));
    for (long n = 1;; n++) {
        mem_fail_at(n);
        struct catalog_item *other = catalog_item_new(w.catalog, span("y"), attributes, &e);
        mem_fail_at(0);
        if (other) {
            catalog_item_free(other);
            break;
        }
    }
    catalog_item_free(item);
    free_world(&w);
}

/* --- filters, against core/attribute_index.h ------------------------------------------------------------------------*/

static const char *const some_values[] = {"null",       "\"a\"",   "\"b\"",     "7",       "\"7\"",        "7.5",
                                          "true",       "[]",      "[\"a\",7]", "[8,9,8]", "\"\\u0061\"",  "\"9\"",
                                          "[true,1e3]", "\"x y\"", "-3",        "\"\"",    "[null,\"b\"]", "{\"k\":7}"};
enum { SOME_VALUES = sizeof some_values / sizeof *some_values };

static const char *const filters[] = {
    "{\"colour\":\"a\"}",
    "{\"colour\":[\"a\",\"b\"]}",
    "{\"colour\":7}",
    "{\"colour\":\"7\"}",
    "{\"colour\":7.0}",
    "{\"colour\":true,\"price\":{\"gt\":0}}",
    "{\"price\":{\"gte\":7,\"lt\":9}}",
    "{\"price\":{\"gt\":7,\"lte\":9}}",
    "{\"price\":[9,\"\",1000.0]}",
    "{\"not\":{\"colour\":[\"a\",8]}}",
    "{\"colour\":[\"a\",\"b\",7],\"not\":{\"price\":{\"lt\":8}}}",
    "{\"not\":{\"colour\":{\"gte\":-10}}}",
    "{\"colour\":[]}",
    "{}",
};

/* The rows of a bundle that has those items from the beginning. */
static void check_filters(const struct snapshot *s, const struct small_column *all, const char *const *ids, size_t n)
{
    struct small_blocks blocks;
    struct err e = ERR_INIT;
    struct snapshot oracle = {.catalog = catalog_new(small_bundle_new(&blocks, ids, n, all, COLUMNS), 0, &e)};
    static float numbers[SMALL_BUNDLE_ITEMS];
    const struct ann_vectors vectors = {numbers, n, 1};
    struct filter_bits bits, expected;
    oracle.bundle = catalog_bundle(oracle.catalog);
    oracle.index = ann_open("flat", NULL, &vectors, 0, &e);
    assert_int_equal(filter_bits_init(&bits, ann_rows_most(s->index)), 0);
    assert_int_equal(filter_bits_init(&expected, n), 0);
    for (size_t f = 0; f < sizeof filters / sizeof *filters; f++) {
        json_t *filter = json_loads(filters[f], 0, NULL);
        size_t count = filter_apply(s, filter, &bits, 1);
        assert_int_equal(count, filter_apply(&oracle, filter, &expected, 0));
        for (size_t i = 0; i < n; i++) {
            size_t row = i < OWN ? i : FIRST + i - OWN;
            if ((filter_set(&bits, 1)[row / 64] >> row % 64 & 1) != (filter_set(&expected, 0)[i / 64] >> i % 64 & 1)) {
                fail_msg("%s: row %zu: %s", filters[f], row, all[COLOUR].texts[i]);
            }
        }
        json_decref(filter);
    }
    filter_bits_release(&bits);
    filter_bits_release(&expected);
    ann_free(oracle.index);
    catalog_unref(oracle.catalog);
    small_blocks_release(&blocks);
}

static void test_filters(void **state)
{
    (void)state;
    enum { ITEMS = 900 };
    static char names[ITEMS][8];
    static const char *ids[ITEMS], *colours[ITEMS], *prices[ITEMS];
    const struct small_column all[] = {{"colour", colours}, {"price", prices}};
    struct world w;
    struct rng r;
    make_world(&w, ROOM);
    const struct snapshot s = {.catalog = w.catalog, .bundle = catalog_bundle(w.catalog), .index = w.index};
    rng_seed(&r, 1, 2);
    for (size_t i = 0; i < ITEMS; i++) {
        snprintf(names[i], sizeof names[i], "n%03zu", i);
        ids[i] = i < OWN ? own_ids[i] : names[i];
        colours[i] = i < OWN ? own_colours[i] : some_values[rng_below(&r, SOME_VALUES)];
        prices[i] = i < OWN ? own_prices[i] : some_values[rng_below(&r, SOME_VALUES)];
        if (i >= OWN) {
            assert_int_equal(put(&w, ids[i], colours[i], prices[i]), FIRST + i - OWN);
        }
        if (i == OWN || i == 50 || i == ITEMS - 1) {
            check_filters(&s, all, ids, i + 1);
        }
    }
    free_world(&w);
}

/* --- reading while others are added ---------------------------------------------------------------------------------*/

enum { READERS = 2, IDS = 50 };

struct shared {
    struct world w;
    atomic_bool done;
    atomic_size_t rounds;
};

/* Every id that was there at the beginning is always found; whatever row of it, its attributes are its own. */
static void *read_meanwhile(void *arg)
{
    struct shared *shared = arg;
    const struct world *w = &shared->w;
    static _Thread_local uint64_t bits[WORDS];
    size_t wrong = 0;
    for (unsigned turn = 0; !atomic_load(&shared->done); turn++) {
        char id[16], text[16];
        size_t n = (size_t)snprintf(id, sizeof id, "id%u", turn % IDS);
        size_t t = (size_t)snprintf(text, sizeof text, "\"id%u\"", turn % IDS);
        int64_t row = catalog_find(w->catalog, w->index, id, n);
        wrong += row < FIRST;
        if (row >= 0) {
            struct span own = catalog_id(w->catalog, (uint32_t)row);
            struct span colour = catalog_attribute(w->catalog, COLOUR, (uint32_t)row);
            wrong += own.length != n || memcmp(own.text, id, n) != 0;
            wrong += colour.length != t || memcmp(colour.text, text, t) != 0;
            memset(bits, 0, sizeof bits);
            catalog_equal(w->catalog, COLOUR, id, n, bits);
            wrong += !(bits[row / 64] >> row % 64 & 1);
            memset(bits, 0, sizeof bits);
            catalog_between(w->catalog, PRICE, &(struct number_range){.low = turn % IDS, .high = turn % IDS}, bits);
            wrong += !(bits[row / 64] >> row % 64 & 1);
        }
        atomic_fetch_add(&shared->rounds, 1);
    }
    return (void *)(uintptr_t)wrong;
}

static void put_numbered(const struct world *w, unsigned i)
{
    char id[16], text[16], price[16];
    snprintf(id, sizeof id, "id%u", i);
    snprintf(text, sizeof text, "\"id%u\"", i);
    snprintf(price, sizeof price, "%u", i);
    put(w, id, text, price);
}

static void test_readers_and_a_writer(void **state)
{
    (void)state;
    static struct shared shared;
    pthread_t readers[READERS];
    make_world(&shared.w, ROOM);
    for (unsigned i = 0; i < IDS; i++) {
        put_numbered(&shared.w, i);
    }
    for (size_t i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_meanwhile, &shared), 0);
    }
    for (unsigned i = IDS; i < ROOM; i++) {
        put_numbered(&shared.w, i % (2 * IDS));
    }
    while (atomic_load(&shared.rounds) < 100) {}
    atomic_store(&shared.done, true);
    for (size_t i = 0; i < READERS; i++) {
        void *wrong = NULL;
        pthread_join(readers[i], &wrong);
        assert_null(wrong);
    }
    free_world(&shared.w);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct small_blocks blocks;
    struct err e = ERR_INIT;
    for (long n = 1;; n++) {
        struct bundle *bundle = small_bundle_new(&blocks, own_ids, OWN, columns, COLUMNS);
        mem_fail_at(n);
        struct catalog *c = catalog_new(bundle, ROOM, &e);
        mem_fail_at(0);
        assert_true(n < 20);
        if (c) {
            assert_ptr_equal(catalog_ref(c), c);
            catalog_unref(c);
            catalog_unref(c);
            small_blocks_release(&blocks);
            break;
        }
        assert_true(err_isset(&e));
        small_blocks_release(&blocks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),      cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_filters),   cmocka_unit_test(test_readers_and_a_writer),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
