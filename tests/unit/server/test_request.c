/* Every rule about a request's members: what is accepted, and which field is named when it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/schema.h"
#include "server/catalog.h"
#include "server/request.h"
#include "tests/unit/server/small_bundle.h"

struct fixture {
    struct serve_config config;
    struct small_blocks blocks;
    struct bundle *bundle; /* the catalogue's */
    struct snapshot snapshot;
    struct request_rules rules;
};

static struct tower_spec make_spec(const struct feature *features, uint32_t n)
{
    struct tower_spec spec = {.features = mem_array(n, sizeof *features), .n_features = n};
    memcpy(spec.features, features, n * sizeof *features);
    spec.network = (struct network){.type = NETWORK_MLP, .widths = {4}, .n_widths = 1};
    return spec;
}

static int set_up(void **state)
{
    static struct fixture f;
    static const char *const ids[] = {"-3", "1", "10", "2", "x"};
    static const char *const colours[] = {"\"red\"", "\"red\"", "null", "\"blue\"", "\"blue\""};
    static const struct small_column columns[] = {{"colour", colours}, {"shade", colours}};
    static const float numbers[5];
    const struct ann_vectors vectors = {numbers, 5, 1};
    struct err e = ERR_INIT;
    f = (struct fixture){.config.log_level = LOG_LEVEL_INFO};
    f.config.limits.k = 1000;
    f.config.limits.batch = 8;
    f.config.limits.exclude = 4;
    f.config.limits.score = 3;
    f.config.limits.effort = 500;
    f.config.limits.list = 3;
    struct bundle *b = f.bundle = small_bundle_new(&f.blocks, ids, 5, columns, 2);
    const struct feature user[] = {
        {.name = "age", .type = FEATURE_NUMERIC, .stddev = 1},
        {.name = "topics", .type = FEATURE_CATEGORICAL, .multi = '|', .dim = 1, .buckets = 10}};
    const struct feature item[] = {{.name = "price", .type = FEATURE_NUMERIC, .stddev = 1}};
    b->schema.towers[SIDE_USER] = make_spec(user, 2);
    b->schema.towers[SIDE_ITEM] = make_spec(item, 1);
    assert_int_equal(schema_finish(&b->schema, &e), 0);
    f.snapshot.bundle = b;
    f.snapshot.catalog = catalog_new(b, 3, &e);
    f.snapshot.index = ann_open("flat", NULL, &vectors, 0, &e);
    assert_non_null(f.snapshot.catalog);
    assert_non_null(f.snapshot.index);
    assert_int_equal(ann_make_room(f.snapshot.index, 3, &e), 0);
    f.rules = (struct request_rules){.config = &f.config, .bundle = b, .catalog = f.snapshot.catalog};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    ann_free(f->snapshot.index);
    catalog_unref(f->snapshot.catalog);
    small_blocks_release(&f->blocks);
    return 0;
}

static int read_query(const struct fixture *f, const char *text, const char *at, struct query *q, struct fault *fault)
{
    json_t *body = request_parse(text, strlen(text), fault);
    if (!body) {
        return -1;
    }
    int result = request_read_query(&f->rules, body, at, "user", q, fault);
    json_decref(body);
    return result;
}

static void test_defaults(void **state)
{
    struct query q;
    struct fault fault;
    assert_int_equal(read_query(*state, "{\"user\":{}}", "", &q, &fault), 0);
    assert_int_equal(q.k, 100);
    assert_int_equal(q.effort, 0);
    assert_false(q.exact);
    assert_true(isinf(q.min_score) && q.min_score < 0);
    assert_int_equal(q.fields, 0);
    assert_null(q.exclude);
}

static void test_everything(void **state)
{
    struct query q;
    struct fault fault;
    assert_int_equal(read_query(*state,
                                "{\"user\":{\"age\":1},\"k\":7,\"exclude\":[\"x\",2],\"min_score\":-1.5,"
                                "\"search\":{\"effort\":500,\"exact\":true},\"fields\":[\"shade\",\"shade\"]}",
                                "", &q, &fault),
                     0);
    assert_int_equal(q.k, 7);
    assert_int_equal(q.effort, 500);
    assert_true(q.exact);
    assert_true(q.min_score == -1.5f);
    assert_int_equal(q.fields, 2);
}

static void test_what_is_refused(void **state)
{
    const struct {
        const char *body;
        enum problem_type type;
        const char *pointer;
    } cases[] = {
        {"", PROBLEM_INVALID_JSON, ""},
        {"{", PROBLEM_INVALID_JSON, ""},
        {"nonsense", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{}} x", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{},\"user\":{}}", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{},\"k\":NaN}", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{},\"k\":1e999}", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{},\"k\":99999999999999999999}", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":{\"age\":\"\\u0000\"}}", PROBLEM_INVALID_JSON, ""},
        {"{\"user\":\"\xff\"}", PROBLEM_INVALID_JSON, ""},
        {"[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", PROBLEM_INVALID_JSON, ""},
        {"[]", PROBLEM_INVALID_FIELD, ""},
        {"{}", PROBLEM_MISSING_FIELD, "/user"},
        {"{\"user\":{},\"k\":0}", PROBLEM_INVALID_FIELD, "/k"},
        {"{\"user\":{},\"k\":-1}", PROBLEM_INVALID_FIELD, "/k"},
        {"{\"user\":{},\"k\":1.5}", PROBLEM_INVALID_FIELD, "/k"},
        {"{\"user\":{},\"k\":\"5\"}", PROBLEM_INVALID_FIELD, "/k"},
        {"{\"user\":{},\"k\":null}", PROBLEM_INVALID_FIELD, "/k"},
        {"{\"user\":{},\"k\":1001}", PROBLEM_LIMIT_EXCEEDED, "/k"},
        {"{\"user\":{},\"k\":9223372036854775807}", PROBLEM_LIMIT_EXCEEDED, "/k"},
        {"{\"user\":{},\"exclude\":\"x\"}", PROBLEM_INVALID_FIELD, "/exclude"},
        {"{\"user\":{},\"exclude\":[1,2.5]}", PROBLEM_INVALID_FIELD, "/exclude/1"},
        {"{\"user\":{},\"exclude\":[1,2,3,4,5]}", PROBLEM_LIMIT_EXCEEDED, "/exclude"},
        {"{\"user\":{},\"min_score\":\"0\"}", PROBLEM_INVALID_FIELD, "/min_score"},
        {"{\"user\":{},\"min_score\":1e39}", PROBLEM_INVALID_FIELD, "/min_score"},
        {"{\"user\":{},\"search\":true}", PROBLEM_INVALID_FIELD, "/search"},
        {"{\"user\":{},\"search\":{\"exact\":1}}", PROBLEM_INVALID_FIELD, "/search/exact"},
        {"{\"user\":{},\"search\":{\"effort\":0}}", PROBLEM_INVALID_FIELD, "/search/effort"},
        {"{\"user\":{},\"search\":{\"effort\":501}}", PROBLEM_LIMIT_EXCEEDED, "/search/effort"},
        {"{\"user\":{},\"search\":{\"speed\":1}}", PROBLEM_UNKNOWN_FIELD, "/search/speed"},
        {"{\"user\":{},\"fields\":\"colour\"}", PROBLEM_INVALID_FIELD, "/fields"},
        {"{\"user\":{},\"fields\":[\"colour\",\"weight\"]}", PROBLEM_INVALID_FIELD, "/fields/1"},
        {"{\"user\":{},\"fields\":[3]}", PROBLEM_INVALID_FIELD, "/fields/0"},
        {"{\"user\":{},\"filter\":[]}", PROBLEM_INVALID_FIELD, "/filter"},
        {"{\"user\":{},\"filter\":{\"x\":1}}", PROBLEM_INVALID_FIELD, "/filter/x"},
        {"{\"user\":{},\"max_per\":5}", PROBLEM_INVALID_FIELD, "/max_per"},
        {"{\"user\":{},\"max_per\":{\"size\":1}}", PROBLEM_INVALID_FIELD, "/max_per/size"},
        {"{\"user\":{},\"max_per\":{\"colour\":0}}", PROBLEM_INVALID_FIELD, "/max_per/colour"},
        {"{\"user\":{},\"max_per\":{\"colour\":1,\"shade\":2.5}}", PROBLEM_INVALID_FIELD, "/max_per/shade"},
        {"{\"user\":{},\"max_per\":{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}}",
         PROBLEM_LIMIT_EXCEEDED, "/max_per"},
        {"{\"user\":{},\"a/b~c\":1}", PROBLEM_UNKNOWN_FIELD, "/a~1b~0c"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct query q;
        struct fault fault;
        if (read_query(*state, cases[i].body, "", &q, &fault) != -1) {
            fail_msg("accepted: %s", cases[i].body);
        }
        assert_int_equal(fault.type, cases[i].type);
        assert_string_equal(fault.pointer, cases[i].pointer);
        assert_true(strlen(fault.detail) > 5);
    }
}

static int read_score(const struct fixture *f, const char *text, struct query *q, struct fault *fault)
{
    json_t *body = request_parse(text, strlen(text), fault);
    assert_non_null(body);
    int result = request_read_score(&f->rules, body, q, fault);
    json_decref(body);
    return result;
}

static void test_items_to_score(void **state)
{
    const struct {
        const char *body;
        enum problem_type type;
        const char *pointer;
    } cases[] = {
        {"{\"items\":[]}", PROBLEM_MISSING_FIELD, "/user"},
        {"{\"user\":{}}", PROBLEM_MISSING_FIELD, "/items"},
        {"{\"user\":{},\"items\":{}}", PROBLEM_INVALID_FIELD, "/items"},
        {"{\"user\":{},\"items\":[\"x\",null]}", PROBLEM_INVALID_FIELD, "/items/1"},
        {"{\"user\":{},\"items\":[1,2,3,4]}", PROBLEM_LIMIT_EXCEEDED, "/items"},
        {"{\"user\":{},\"items\":[],\"filter\":{}}", PROBLEM_UNKNOWN_FIELD, "/filter"},
    };
    struct query q;
    struct fault fault;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(read_score(*state, cases[i].body, &q, &fault), -1);
        assert_int_equal(fault.type, cases[i].type);
        assert_string_equal(fault.pointer, cases[i].pointer);
    }
    assert_int_equal(read_score(*state, "{\"user\":{},\"items\":[],\"fields\":[\"colour\"]}", &q, &fault), 0);
    assert_int_equal(q.fields, 1);
    assert_int_equal(read_score(*state, "{\"items\":[1,\"x\",1],\"user\":{}}", &q, &fault), 0);
}

static void test_pointers_inside_a_batch(void **state)
{
    struct query q;
    struct fault fault;
    assert_int_equal(read_query(*state, "{\"user\":{},\"k\":0}", "/requests/3", &q, &fault), -1);
    assert_string_equal(fault.pointer, "/requests/3/k");
    assert_int_equal(read_query(*state, "{\"k\":5}", "/requests/0", &q, &fault), -1);
    assert_string_equal(fault.pointer, "/requests/0/user");
}

static void test_brackets_in_strings_are_no_depth(void **state)
{
    struct query q;
    struct fault fault;
    assert_int_equal(read_query(*state, "{\"user\":{\"age\":\"[[[[[[[[[[[[[[[[[[\\\"[[[[[\"}}", "", &q, &fault), 0);
}

static void test_features(void **state)
{
    const struct {
        const char *user;
        enum problem_type type;
        const char *pointer; /* NULL: accepted */
    } cases[] = {
        {"{\"age\":30,\"topics\":\"a|b\"}", 0, NULL},
        {"{\"age\":null,\"topics\":[\"a\",null,7]}", 0, NULL},
        {"[]", PROBLEM_INVALID_FIELD, "/user"},
        {"{\"size\":1}", PROBLEM_UNKNOWN_FIELD, "/user/size"},
        {"{\"age\":\"old\"}", PROBLEM_INVALID_FIELD, "/user/age"},
        {"{\"age\":{}}", PROBLEM_INVALID_FIELD, "/user/age"},
        {"{\"age\":[1]}", PROBLEM_INVALID_FIELD, "/user/age"},
        {"{\"topics\":[\"a\",{}]}", PROBLEM_INVALID_FIELD, "/user/topics/1"},
        {"{\"topics\":[1,2,3,4]}", PROBLEM_LIMIT_EXCEEDED, "/user/topics"},
        {"{\"x/y\":[1,2,3,4]}", PROBLEM_LIMIT_EXCEEDED, "/user/x~1y"},
    };
    const struct fixture *f = *state;
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    assert_int_equal(feature_rows_init(&rows, &f->bundle->schema.towers[SIDE_USER]), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fault fault = {0};
        size_t before = rows.n;
        json_t *user = json_loads(cases[i].user, 0, NULL);
        int result = request_add_features(&f->rules, &rows, &scratch, user, "/user", &fault);
        json_decref(user);
        assert_int_equal(result, cases[i].pointer ? -1 : 0);
        assert_int_equal(rows.n, before + (cases[i].pointer ? 0 : 1));
        if (cases[i].pointer) {
            assert_string_equal(fault.pointer, cases[i].pointer);
            assert_int_equal(fault.type, cases[i].type);
        }
    }
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
}

static void test_excluded_rows_are_sorted_and_unique(void **state)
{
    const struct fixture *f = *state;
    uint32_t rows[8];
    json_t *ids = json_loads("[\"x\", 10, -3, \"10\", \"nobody\", 99, \"\", 10]", 0, NULL);
    assert_int_equal(request_exclude_rows(&f->snapshot, ids, -1, rows), 3);
    assert_int_equal(rows[0], 0);
    assert_int_equal(rows[1], 2);
    assert_int_equal(rows[2], 4);
    assert_int_equal(request_exclude_rows(&f->snapshot, ids, 2, rows), 3);
    assert_int_equal(request_exclude_rows(&f->snapshot, ids, 3, rows), 4);
    assert_int_equal(request_exclude_rows(&f->snapshot, NULL, 1, rows), 1);
    assert_int_equal(rows[0], 1);
    assert_int_equal(request_exclude_rows(&f->snapshot, NULL, -1, rows), 0);
    json_decref(ids);
}

static void test_pointers_never_overflow(void **state)
{
    (void)state;
    char name[2000];
    char pointer[FAULT_POINTER_MAX] = "/user";
    memset(name, '~', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    pointer_append(pointer, name);
    assert_string_equal(pointer, "/user");
    name[200] = '\0';
    pointer_append(pointer, name);
    assert_int_equal(strlen(pointer), 5 + 1 + 400);
}

static long allocations_left;

static void *scarce_malloc(size_t n)
{
    return allocations_left-- > 0 ? malloc(n) : NULL;
}

/* Whatever allocation fails, the request is refused with memory as the reason, and nothing leaks. */
static void test_no_memory(void **state)
{
    const struct fixture *f = *state;
    static const char body[] = "{\"user\":{\"age\":30,\"topics\":[\"a\",\"b\",\"c\"]},\"k\":5}";
    struct fault fault;
    json_t *json = NULL;
    json_set_alloc_funcs(scarce_malloc, free);
    json_guard_memory();
    for (long n = 0; !json; n++) {
        allocations_left = n;
        json = request_parse(body, sizeof body - 1, &fault);
        assert_true(json || fault.type == PROBLEM_OUT_OF_MEMORY);
    }
    json_set_alloc_funcs(malloc, free);
    int result = -1;
    for (long n = 1; result != 0; n++) {
        struct feature_rows rows;
        struct value_scratch scratch = {0};
        assert_int_equal(feature_rows_init(&rows, &f->bundle->schema.towers[SIDE_USER]), 0);
        mem_fail_at(n);
        result = request_add_features(&f->rules, &rows, &scratch, json_object_get(json, "user"), "/user", &fault);
        mem_fail_at(0);
        assert_true(result == 0 || fault.type == PROBLEM_OUT_OF_MEMORY);
        assert_int_equal(rows.n, result == 0 ? 1 : 0);
        value_scratch_release(&scratch);
        feature_rows_release(&rows);
    }
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_items_to_score),
        cmocka_unit_test(test_pointers_inside_a_batch),
        cmocka_unit_test(test_brackets_in_strings_are_no_depth),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_excluded_rows_are_sorted_and_unique),
        cmocka_unit_test(test_pointers_never_overflow),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
