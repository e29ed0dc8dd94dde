/*
 * libFuzzer entry for request bodies: JSON, queries, filters, features, items to add. Whatever is refused has a reason and a
 * pointer of sane length; JSON that is accepted survives being written and read again; a filter and its "not" let through
 * each row once.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "core/schema.h"
#include "server/catalog.h"
#include "server/filter.h"
#include "server/item_batch.h"
#include "server/request.h"

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* small_bundle.h is a header of cmocka tests */
#define assert_int_equal(a, b) check((a) == (b))
#define assert_non_null(p) check((p) != NULL)
#include "tests/unit/server/small_bundle.h"

enum { ITEMS = 70, ROOM = 8 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world {
    struct serve_config config;
    struct small_blocks blocks;
    struct snapshot snapshot;
    struct request_rules rules;
    struct filter_bits bits;
} world;

static struct tower_spec make_spec(const struct feature *features, uint32_t n)
{
    struct tower_spec spec = {.features = mem_array(n, sizeof *features), .n_features = n};
    check(spec.features != NULL);
    memcpy(spec.features, features, n * sizeof *features);
    spec.network = (struct network){.type = NETWORK_MLP, .widths = {4}, .n_widths = 1};
    return spec;
}

static struct bundle *make_bundle(void)
{
    static char names[ITEMS][8];
    static const char *ids[ITEMS];
    static const char *columns[3][ITEMS];
    static const char *const colours[] = {"\"red\"", "null", "[\"red\",\"blue\"]", "\"\\u00e9\""};
    static const char *const prices[] = {"1", "2.5", "\"7\"", "null", "-1e30"};
    static const struct small_column table[] = {{"colour", columns[0]}, {"price", columns[1]}, {"not", columns[2]}};
    struct err e = ERR_INIT;
    for (int i = 0; i < ITEMS; i++) {
        snprintf(names[i], sizeof names[i], "%03d", i);
        ids[i] = names[i];
        columns[0][i] = colours[i % 4];
        columns[1][i] = prices[i % 5];
        columns[2][i] = i % 2 ? "true" : "\"a\"";
    }
    struct bundle *b = small_bundle_new(&world.blocks, ids, ITEMS, table, 3);
    const struct feature user[] = {
        {.name = "age", .type = FEATURE_NUMERIC, .stddev = 1},
        {.name = "city", .type = FEATURE_CATEGORICAL, .dim = 1, .buckets = 5},
        {.name = "topics", .type = FEATURE_CATEGORICAL, .multi = '|', .dim = 1, .buckets = 10}};
    const struct feature item[] = {
        {.name = "price", .type = FEATURE_NUMERIC, .stddev = 1},
        {.name = "colour", .type = FEATURE_CATEGORICAL, .multi = '|', .dim = 1, .buckets = 4}};
    b->schema.towers[SIDE_USER] = make_spec(user, 3);
    b->schema.towers[SIDE_ITEM] = make_spec(item, 2);
    check(schema_finish(&b->schema, &e) == 0);
    return b;
}

static void make_world(void)
{
    static float numbers[ITEMS];
    const struct ann_vectors vectors = {numbers, ITEMS, 1};
    struct err e = ERR_INIT;
    world.config.limits.k = 1000;
    world.config.limits.batch = 8;
    world.config.limits.exclude = 20;
    world.config.limits.effort = 500;
    world.config.limits.list = 10;
    struct bundle *b = make_bundle();
    world.snapshot.bundle = b;
    world.snapshot.catalog = catalog_new(b, ROOM, &e);
    world.snapshot.index = ann_open("flat", NULL, &vectors, 0, &e);
    check(world.snapshot.catalog != NULL && world.snapshot.index != NULL);
    check(ann_make_room(world.snapshot.index, ROOM, &e) == 0);
    check(filter_bits_init(&world.bits, ann_rows_most(world.snapshot.index)) == 0);
    world.rules = (struct request_rules){&world.config, b, world.snapshot.catalog};
}

static void check_fault(const struct fault *f)
{
    check(f->detail[0] != '\0' && strlen(f->pointer) < FAULT_POINTER_MAX &&
          (f->pointer[0] == '\0' || f->pointer[0] == '/'));
}

static void check_filter(const json_t *filter)
{
    size_t found = filter_apply(&world.snapshot, filter, &world.bits, 0);
    check(found <= ITEMS);
    json_t *one = json_object_size(filter) == 1 && !json_object_get(filter, "not") ? json_object() : NULL;
    if (one != NULL) {
        struct fault f = {0};
        check(json_object_set(one, "not", (json_t *)(uintptr_t)filter) == 0);
        check(filter_check(&world.rules, one, "", &f) == 0);
        check(found + filter_apply(&world.snapshot, one, &world.bits, 1) == ITEMS);
        json_decref(one);
    }
}

static void fuzz_features(enum side side, const json_t *features)
{
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    struct fault f = {0};
    check(feature_rows_init(&rows, &world.snapshot.bundle->schema.towers[side]) == 0);
    if (request_add_features(&world.rules, &rows, &scratch, features, "/user", &f) != 0) {
        check_fault(&f);
        check(rows.n == 0);
    }
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
}

static void fuzz_query(const json_t *body, const char *subject)
{
    struct query q;
    struct fault f = {0};
    uint32_t rows[32];
    if (request_read_query(&world.rules, body, "/requests/3", subject, &q, &f) != 0) {
        check_fault(&f);
        return;
    }
    check(q.subject != NULL && q.k >= 1 && q.k <= 1000 && q.effort <= 500 && !isnan(q.min_score));
    size_t n = request_exclude_rows(&world.snapshot, q.exclude, request_find_item(&world.snapshot, q.subject), rows);
    for (size_t i = 0; i < n; i++) {
        check(rows[i] < ITEMS && (i == 0 || rows[i - 1] < rows[i]));
    }
    if (q.filter != NULL) {
        check_filter(q.filter);
    }
}

static void fuzz_item(const json_t *item)
{
    struct item_batch batch;
    struct fault f = {0};
    char room[INTEGER_ID_MAX];
    struct span id = request_id(json_object_get(item, "id"), room);
    check(item_batch_init(&batch, &world.snapshot, &world.config, ROOM) == 0);
    if (id.text != NULL && id.length > 0 && id.length <= ITEM_ID_MAX &&
        item_batch_note(&batch, id, json_object_get(item, "features"), json_object_get(item, "attributes"), "/items/0",
                        &f) != 0) {
        check_fault(&f);
    }
    item_batch_release(&batch);
}

static void check_round_trip(const json_t *body)
{
    struct fault f = {0};
    char *text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(17));
    check(text != NULL);
    json_t *again = request_parse(text, strlen(text), &f);
    check(json_equal(body, again));
    json_decref(again);
    free(text);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    make_world();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fault f = {0};
    char *body = malloc(size > 0 ? size : 1); /* exactly as long as it is, so that a look behind it shows */
    check(body != NULL);
    memcpy(body, data, size);
    json_t *json = request_parse(body, size, &f);
    if (json == NULL) {
        check_fault(&f);
    } else {
        check_round_trip(json);
        fuzz_query(json, "user");
        fuzz_query(json, "item");
        fuzz_features(SIDE_USER, json_object_get(json, "user"));
        fuzz_features(SIDE_ITEM, json_object_get(json, "item"));
        fuzz_item(json);
    }
    json_decref(json);
    free(body);
    return 0;
}
