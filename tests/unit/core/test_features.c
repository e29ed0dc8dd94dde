/* Every feature type against every kind of value, with what must come out beside it (rules: core/features.h). */
#include "tests/unit/core/model.h"

#include <math.h>

#include "core/features.h"
#include "core/idmap.h"

static struct model model;
static const struct tower_spec *spec;

/* One feature of one row as text: "3" an index, "[2,0]" a bag, "n=1.5" a number, "n=missing". */
static const char *render(const struct feature_rows *rows, const char *feature, size_t row)
{
    static char text[4096];
    int i = tower_spec_find(spec, feature);
    assert_true(i >= 0);
    const struct feature *f = &spec->features[i];
    const struct feature_column *c = &rows->columns[i];
    if (feature_is_bag(f)) {
        size_t n = (size_t)snprintf(text, sizeof text, "[");
        for (size_t j = c->start[row]; j < c->start[row + 1]; j++) {
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%d", j > c->start[row] ? "," : "", c->index[j]);
        }
        snprintf(text + n, sizeof text - n, "]");
    } else if (f->rows == 0) {
        isnan(c->number[row]) ? snprintf(text, sizeof text, "n=missing")
                              : snprintf(text, sizeof text, "n=%.6g", (double)c->number[row]);
    } else {
        snprintf(text, sizeof text, "%d", c->index[row]);
    }
    return text;
}

/* {feature: json} gives `wanted`, or an error "pointer: words" when wanted begins with '/'. */
static void check_json(const char *feature, const char *json, const char *wanted)
{
    char text[4096];
    snprintf(text, sizeof text, "{\"%s\":%s}", feature, json);
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    struct err e = ERR_INIT;
    char pointer[256] = "untouched";
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    int result = features_add_json(&rows, object, &scratch, pointer, sizeof pointer, &e);
    if (wanted[0] == '/') {
        char got[ERR_MESSAGE_MAX + 300];
        snprintf(got, sizeof got, "%s: %s", pointer, e.message);
        if (result != -1 || strcmp(got, wanted) != 0 || rows.n != 0) {
            fail_msg("%s: %d \"%s\" instead of \"%s\"", text, result, got, wanted);
        }
    } else if (result != 0 || rows.n != 1 || strcmp(render(&rows, feature, 0), wanted) != 0) {
        fail_msg("%s: %s (%s) instead of %s", text, result == 0 ? render(&rows, feature, 0) : "error", e.message,
                 wanted);
    }
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
    json_decref(object);
}

#define BAD_ID ": must be a text or an integer"
#define BAD_NUMBER ": must be a finite number"
#define BAD_TYPE ": must be a string, a number, null, or a list of those"
#define BAD_SEQUENCE ": must be a list of item ids, oldest first"

static void ids_and_categories(void **state)
{
    (void)state;
    const char *const cases[][3] = {
        /* rows: 0 unknown, 1 missing, 2.. "1" "2" "42" "9007199254740993" "u-7" */
        {"user_id", "\"1\"", "2"},
        {"user_id", "\"u-7\"", "6"},
        {"user_id", "42", "4"},
        {"user_id", "42.0", "4"},
        {"user_id", "-0.0", "0"},                             /* the text "0" */
        {"user_id", "9007199254740993", "5"},                 /* 2^53 + 1, exactly */
        {"user_id", "9007199254740993.0", "/user_id" BAD_ID}, /* no double can say which */
        {"user_id", "9007199254740992", "0"},
        {"user_id", "-9223372036854775808", "0"},
        {"user_id", "\"042\"", "0"},
        {"user_id", "\" 42\"", "0"},
        {"user_id", "\"nobody\"", "0"},
        {"user_id", "null", "1"},
        {"user_id", "\"\"", "1"},
        {"user_id", "1.5", "/user_id" BAD_ID},
        {"user_id", "1e300", "/user_id" BAD_ID},
        {"user_id", "[\"1\"]", "/user_id" BAD_ID},
        {"user_id", "[]", "/user_id" BAD_ID},
        {"user_id", "true", "/user_id" BAD_TYPE},
        {"user_id", "{}", "/user_id" BAD_TYPE},
        {"city", "\"oslo\"", "2"},
        {"city", "\"paris\"", "3"},
        {"city", "\"Paris\"", "0"},
        {"city", "7", "0"},
        {"city", "null", "1"},
        {"city", "false", "/city" BAD_TYPE},
        {"gender", "\"f\"", "2"},
        {"gender", "\"x\"", "0"},
        {"gender", "null", "1"},
        {"gender", "0.5", "/gender" BAD_ID},
        {"gender", "[[]]", "/gender/0" BAD_TYPE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_json(cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void bags_and_sequences(void **state)
{
    (void)state;
    const char *const cases[][3] = {
        {"topics", "\"news\"", "[3]"},
        {"topics", "\"news|art|golf\"", "[3,2,0]"},
        {"topics", "\"|news||art|\"", "[3,2]"},
        {"topics", "\"|\"", "[]"},
        {"topics", "[\"news\",\"art\",\"\",null,\"golf\"]", "[3,2,0]"},
        {"topics", "[\"news|art\"]", "[0]"}, /* in a list nothing is split */
        {"topics", "[\"news\",\"news\"]", "[3,3]"},
        {"topics", "[]", "[]"},
        {"topics", "\"\"", "[]"},
        {"topics", "null", "[]"},
        {"topics", "5", "[0]"},
        {"topics", "5.5", "/topics" BAD_ID},
        {"topics", "[\"news\",0.25]", "/topics/1" BAD_ID},
        {"topics", "[\"news\",[\"art\"]]", "/topics/1" BAD_TYPE},
        {"topics", "[true]", "/topics/0" BAD_TYPE},
        {"flags", "\"a;b;z\"", "[2,3,0]"},
        {"flags", "[]", "[]"},
        {"history", "[\"10\",20,\"99\"]", "[2,3,0]"},
        {"history", "[\"10\",\"20\",\"30\",\"99\"]", "[3,4,0]"}, /* only the latest 3 count */
        {"history", "[0.5,\"10\",\"20\",\"30\"]", "[2,3,4]"},
        {"history", "[\"30\",\"10\",\"20\",0.5]", "/history/3" BAD_ID},
        {"history", "[\"10\",null,\"30\"]", "[2,4]"},
        {"history", "[]", "[]"},
        {"history", "null", "[]"},
        {"history", "\"10\"", "/history" BAD_SEQUENCE},
        {"history", "10", "/history" BAD_SEQUENCE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_json(cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void numbers(void **state)
{
    (void)state;
    const char *const cases[][3] = {
        {"age", "40", "n=0"},
        {"age", "55", "n=1.5"},
        {"age", "\"55\"", "n=1.5"},
        {"age", "\"5.5e1\"", "n=1.5"},
        {"age", "\"+55.\"", "n=1.5"},
        {"age", "-1e30", "n=-10"},
        {"age", "1e30", "n=10"},
        {"age", "9223372036854775807", "n=10"},
        {"age", "null", "n=missing"},
        {"age", "\"\"", "n=missing"},
        {"age", "1e39", "/age" BAD_NUMBER},
        {"age", "\"1e39\"", "/age" BAD_NUMBER},
        {"age", "\"forty\"", "/age" BAD_NUMBER},
        {"age", "\"nan\"", "/age" BAD_NUMBER},
        {"age", "\"inf\"", "/age" BAD_NUMBER},
        {"age", "\"-Infinity\"", "/age" BAD_NUMBER},
        {"age", "\"0x10\"", "/age" BAD_NUMBER},
        {"age", "\" 55\"", "/age" BAD_NUMBER},
        {"age", "\"55 \"", "/age" BAD_NUMBER},
        {"age", "\"5,5\"", "/age" BAD_NUMBER},
        {"age", "\"1e\"", "/age" BAD_NUMBER},
        {"age", "\"--1\"", "/age" BAD_NUMBER},
        {"age", "\"-\"", "/age" BAD_NUMBER},
        {"age", "[40]", "/age" BAD_NUMBER},
        {"age", "true", "/age" BAD_TYPE},
        {"spend", "0", "n=-4"},               /* (ln 1 - 2) / 0.5 */
        {"spend", "6.38905609893065", "n=0"}, /* e^2 - 1 */
        {"spend", "-6.38905609893065", "n=-8"},
        {"spend", "1e30", "n=10"},
        {"spend", "null", "n=missing"},
        {"activity", "-5", "2"}, /* bounds 0, 1.5, 10 */
        {"activity", "-1e30", "2"},
        {"activity", "0", "3"},
        {"activity", "-0.0", "3"},
        {"activity", "1.4999", "3"},
        {"activity", "1.5", "4"},
        {"activity", "\"9.99\"", "4"},
        {"activity", "10", "5"},
        {"activity", "1e30", "5"},
        {"activity", "null", "1"},
        {"activity", "\"\"", "1"},
        {"activity", "\"x\"", "/activity" BAD_NUMBER},
        {"activity", "[]", "/activity" BAD_NUMBER},
        {"activity", "1e39", "/activity" BAD_NUMBER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_json(cases[i][0], cases[i][1], cases[i][2]);
    }
}

/* Values as the trainer makes them: not '\0'-terminated, numbers that are no JSON. */
static void values_from_a_table(void **state)
{
    (void)state;
    struct feature_rows rows;
    struct feature_error fe;
    struct value values[SCHEMA_MAX_FEATURES] = {{.kind = VALUE_MISSING}};
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    char *cell = malloc(2); /* exactly as long as the text: one byte further is a bug that ASan sees */
    assert_non_null(cell);
    memcpy(cell, "55", 2);
    values[7] = (struct value){.kind = VALUE_TEXT, .text = cell, .length = 2};
    values[9] = (struct value){.kind = VALUE_TEXT, .text = cell, .length = 1};
    values[3] = (struct value){.kind = VALUE_TEXT, .text = cell, .length = 2};
    values[0] = (struct value){.kind = VALUE_TEXT, .text = cell, .length = 2};
    assert_int_equal(features_add(&rows, values, &fe), 0);
    assert_string_equal(render(&rows, "age", 0), "n=1.5");
    assert_string_equal(render(&rows, "activity", 0), "4");
    free(cell);
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        for (size_t f = 0; f < spec->n_features; f++) {
            struct value broken[SCHEMA_MAX_FEATURES] = {{.kind = VALUE_MISSING}};
            broken[f] = (struct value){.kind = VALUE_NUMBER, .number = bad[i]};
            assert_int_equal(features_add(&rows, broken, &fe), -1);
            assert_int_equal(fe.feature, f);
            assert_int_equal(fe.element, -1);
        }
    }
    assert_int_equal(rows.n, 1);
    feature_rows_release(&rows);
}

static void hashing_is_fnv1a(void **state)
{
    (void)state;
    char text[40];
    char wanted[40];
    for (int i = -50; i < 50; i++) {
        snprintf(text, sizeof text, "%d", i);
        snprintf(wanted, sizeof wanted, "%d", 2 + (int)(fnv1a(text, strlen(text)) % 10));
        check_json("hashed", text, wanted);
    }
    check_json("hashed", "\"a\"", "8"); /* 0xaf63dc4c8601ec8c % 10 = 6 */
    check_json("hashed", "null", "1");
    check_json("hashed", "[1]", "/hashed" BAD_ID);
    check_json("tags", "\"a,a\"", "[7,7]"); /* % 7 = 5 */
    check_json("tags", "[]", "[]");
}

/* Unix times: large, and what tells them apart is small. */
static void large_numbers_with_small_differences(void **state)
{
    (void)state;
    struct model m;
    model_init(
        &m, "{\"user_tower\":{\"features\":[{\"name\":\"since\",\"type\":\"numeric\",\"transform\":\"standardize\","
            "\"mean\":1700000001.5,\"stddev\":0.5},{\"name\":\"seen\",\"type\":\"numeric\",\"transform\":\"bucketize\","
            "\"bounds\":[1700000001,1700000002.25],\"dim\":1}],\"network\":{\"type\":\"none\"}},\"item_tower\":{"
            "\"features\":[{\"name\":\"i\",\"type\":\"id\",\"dim\":3}],\"network\":{\"type\":\"none\"}},"
            "\"similarity\":\"dot\"}");
    const struct tower_spec *all = spec;
    spec = &m.schema.towers[SIDE_USER];
    check_json("since", "1700000001", "n=-1");
    check_json("since", "1700000002.25", "n=1.5");
    check_json("since", "\"1700000002.25\"", "n=1.5");
    check_json("seen", "1700000000.9", "2");
    check_json("seen", "1700000001", "3");
    check_json("seen", "\"1700000002.24\"", "3");
    check_json("seen", "1700000002.25", "4");
    spec = all;
    model_release(&m);
}

static void check_weights(enum feature_pooling pooling, double half_life, size_t n, const double *wanted)
{
    const struct feature f = {.type = FEATURE_SEQUENCE, .pooling = pooling, .half_life = half_life};
    struct value_weights w = feature_weights(&f, n);
    for (size_t i = n; i-- > 0; w.latest *= w.decay) {
        check_near(w.latest, wanted[i], 1, 1e-12);
    }
}

static void weights_of_pooling(void **state)
{
    (void)state;
    check_weights(POOLING_MEAN, 0, 4, (const double[]){.25, .25, .25, .25});
    check_weights(POOLING_SUM, 0, 3, (const double[]){1, 1, 1});
    check_weights(POOLING_SQRTN, 0, 4, (const double[]){.5, .5, .5, .5});
    check_weights(POOLING_RECENCY, 1, 3, (const double[]){1 / 7.0, 2 / 7.0, 4 / 7.0});
    check_weights(POOLING_RECENCY, 2, 2, (const double[]){0.414213562373095, 0.585786437626905}); /* 2^-1/2 and 1 */
    check_weights(POOLING_RECENCY, 5, 1, (const double[]){1});
    const struct feature single = {.type = FEATURE_CATEGORICAL, .pooling = POOLING_MEAN};
    assert_true(feature_weights(&single, 1).latest == 1);
    static const double half_lives[] = {HALF_LIFE_MIN, 1, 33, HALF_LIFE_MAX}; /* from only the latest to the mean */
    for (size_t i = 0; i < 4; i++) {
        const struct feature f = {.type = FEATURE_SEQUENCE, .pooling = POOLING_RECENCY, .half_life = half_lives[i]};
        double sum = 0;
        struct value_weights w = feature_weights(&f, 10000);
        for (size_t j = 0; j < 10000; j++, w.latest *= w.decay) {
            sum += w.latest;
        }
        check_near(sum, 1, 1, 1e-9);
    }
    const struct feature flat = {.type = FEATURE_SEQUENCE, .pooling = POOLING_RECENCY, .half_life = HALF_LIFE_MAX};
    check_near(feature_weights(&flat, 10).latest, .1, 1, 1e-6);
}

static void parsing_numbers(void **state)
{
    (void)state;
    double x = 7;
    const char *const good[] = {"0", "-0", "1.", ".5", "1e5", "1E-5", "+3", "123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(number_parse(good[i], strlen(good[i]), &x), 0);
        assert_true(x == strtod(good[i], NULL));
    }
    assert_int_equal(number_parse("12345", 2, &x), 0); /* only the given bytes */
    assert_true(x == 12.0);
    const char *const bad[] = {
        "",     ".",     "+",     "e5",  "1e",  "1e+",
        "1..2", "1e5e5", "0x1",   "1_0", "1f",  "\t1",
        "1\n",  "NaN",   "1e999", "--1", "1-1", "0000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (number_parse(bad[i], strlen(bad[i]), &x) == 0) {
            fail_msg("accepted \"%s\"", bad[i]);
        }
    }
    assert_int_equal(number_parse("1\0"
                                  "2",
                                  3, &x),
                     -1);
    assert_true(x == 12.0);
}

static void objects_and_pointers(void **state)
{
    (void)state;
    const char *const cases[][3] = {
        {"{\"nobody\":1}", "/nobody", "no feature of this name"},
        {"{\"a/b~c\":1}", "/a~1b~0c", "no feature of this name"},
        {"{\"\":1}", "/", "no feature of this name"},
        {"{\"age\":1,\"topics\":[1,2,{}]}", "/topics/2", "must be a string"},
        {"[]", "", "must be an object"},
        {"\"x\"", "", "must be an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct feature_rows rows;
        struct value_scratch scratch = {0};
        struct err e = ERR_INIT;
        char pointer[256] = "untouched";
        json_t *json = json_loads(cases[i][0], JSON_DECODE_ANY, NULL);
        assert_int_equal(feature_rows_init(&rows, spec), 0);
        assert_int_equal(features_add_json(&rows, json, &scratch, pointer, sizeof pointer, &e), -1);
        assert_string_equal(pointer, cases[i][1]);
        check_error(&e, cases[i][2]);
        value_scratch_release(&scratch);
        feature_rows_release(&rows);
        json_decref(json);
    }
    /* names of any length: the pointer is cut, never overflowed */
    for (size_t n = 240; n < 270; n++) {
        for (int c = 0; c < 2; c++) {
            char name[300];
            memset(name, c == 0 ? '/' : 'k', n);
            name[n] = '\0';
            json_t *json = json_object();
            json_object_set_new(json, name, json_null());
            struct value values[SCHEMA_MAX_FEATURES];
            struct value_scratch scratch = {0};
            char *pointer = malloc(256);
            assert_non_null(pointer);
            assert_int_equal(values_from_json(spec, json, NULL, values, &scratch, pointer, 256, NULL), -1);
            assert_true(strlen(pointer) < 256 && pointer[0] == '/');
            free(pointer);
            value_scratch_release(&scratch);
            json_decref(json);
        }
    }
}

static void add(struct feature_rows *rows, struct value_scratch *scratch, const char *text)
{
    struct err e = ERR_INIT;
    char pointer[256];
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    check_ok(&e, features_add_json(rows, json, scratch, pointer, sizeof pointer, &e));
    assert_string_equal(pointer, "");
    json_decref(json);
}

/* A row that fails leaves no trace, whatever the feature at which it fails. */
static void failed_rows_leave_no_trace(void **state)
{
    (void)state;
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    const char *const good = "{\"user_id\":1,\"topics\":\"news|art\",\"history\":[10,20],\"age\":50,\"tags\":\"a\"}";
    const char *const bad[] = {"{\"topics\":\"news|news|news\",\"history\":[10,20,0.5]}",
                               "{\"topics\":[\"news\",0.5],\"user_id\":2}", "{\"age\":\"x\",\"tags\":\"b,c,d\"}"};
    for (int i = 0; i < 100; i++) {
        add(&rows, &scratch, good);
        for (int j = 0; j < 3; j++) {
            struct err e = ERR_INIT;
            char pointer[256];
            json_t *json = json_loads(bad[j], 0, NULL);
            assert_int_equal(features_add_json(&rows, json, &scratch, pointer, sizeof pointer, &e), -1);
            json_decref(json);
        }
        add(&rows, &scratch, "{}");
    }
    assert_int_equal(rows.n, 200);
    for (size_t i = 0; i < 200; i += 2) {
        assert_string_equal(render(&rows, "user_id", i), "2");
        assert_string_equal(render(&rows, "topics", i), "[3,2]");
        assert_string_equal(render(&rows, "history", i), "[2,3]");
        assert_string_equal(render(&rows, "age", i), "n=1");
        assert_string_equal(render(&rows, "tags", i), "[7]");
        assert_string_equal(render(&rows, "user_id", i + 1), "1");
        assert_string_equal(render(&rows, "topics", i + 1), "[]");
        assert_string_equal(render(&rows, "age", i + 1), "n=missing");
    }
    feature_rows_clear(&rows);
    assert_int_equal(rows.n, 0);
    add(&rows, &scratch, good);
    assert_string_equal(render(&rows, "history", 0), "[2,3]");
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
}

static void copying_rows_and_setting_bags(void **state)
{
    (void)state;
    struct feature_rows a, b;
    struct value_scratch scratch = {0};
    assert_int_equal(feature_rows_init(&a, spec), 0);
    assert_int_equal(feature_rows_init(&b, spec), 0);
    add(&a, &scratch, "{\"user_id\":1,\"topics\":\"news|art\",\"history\":[10,20],\"age\":50,\"activity\":2}");
    add(&a, &scratch, "{\"user_id\":2,\"flags\":\"a;b\",\"spend\":null,\"city\":\"oslo\"}");
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(feature_rows_copy(&b, &a, 1 - i % 2), 0);
        const int32_t bag[] = {4, 3, 2, (int32_t)i};
        if (i % 3 == 0) {
            assert_int_equal(feature_rows_set_bag(&b, 10, bag, i % 5), 0);
        }
    }
    assert_int_equal(b.n, 50);
    for (size_t i = 0; i < 50; i++) {
        for (uint32_t f = 0; f < spec->n_features; f++) {
            const char *name = spec->features[f].name;
            char wanted[4096];
            snprintf(wanted, sizeof wanted, "%s", render(&a, name, 1 - i % 2));
            if (f == 10 && i % 3 == 0) {
                const char *const bags[] = {"[]", "[4]", "[4,3]", "[4,3,2]"};
                snprintf(wanted, sizeof wanted, "%s", bags[i % 5 == 4 ? 0 : i % 5]);
                if (i % 5 == 4) {
                    snprintf(wanted, sizeof wanted, "[4,3,2,%zu]", i);
                }
            }
            assert_string_equal(render(&b, name, i), wanted);
        }
    }
    for (size_t i = 0; i < 40; i++) { /* a row of itself, across reallocations */
        assert_int_equal(feature_rows_copy(&a, &a, i), 0);
    }
    assert_string_equal(render(&a, "topics", 40), "[3,2]");
    assert_string_equal(render(&a, "flags", 41), "[2,3]");
    value_scratch_release(&scratch);
    feature_rows_release(&a);
    feature_rows_release(&b);
}

static int fill(struct feature_rows *rows, const json_t *json, struct err *e)
{
    struct value_scratch scratch = {0};
    char pointer[256];
    int result = 0;
    for (int i = 0; i < 40; i++) { /* once more where one allocation failed */
        size_t before = rows->n;
        if (features_add_json(rows, json, &scratch, pointer, sizeof pointer, e) < 0) {
            result = -1;
            assert_int_equal(rows->n, before);
            check_error(e, "out of memory");
            assert_int_equal(features_add_json(rows, json, &scratch, pointer, sizeof pointer, NULL), 0);
        }
        before = rows->n;
        if (feature_rows_copy(rows, rows, 0) < 0) {
            result = -1;
            assert_int_equal(rows->n, before);
            assert_int_equal(feature_rows_copy(rows, rows, 0), 0);
        }
    }
    value_scratch_release(&scratch);
    return result;
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    json_t *json =
        json_loads("{\"user_id\":1,\"topics\":\"news|art\",\"history\":[10,20],\"age\":50,\"tags\":\"a\"}", 0, NULL);
    long n = 1;
    for (int result = -1; result != 0; n++) {
        struct feature_rows rows;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        result = feature_rows_init(&rows, spec);
        if (result == 0) {
            result = fill(&rows, json, &e);
            assert_int_equal(rows.n, 80);
            for (size_t i = 0; i < 80; i++) {
                assert_string_equal(render(&rows, "topics", i), "[3,2]");
                assert_string_equal(render(&rows, "age", i), "n=1");
            }
            feature_rows_release(&rows);
        }
        mem_fail_at(0);
    }
    assert_true(n > 20);
    json_decref(json);
}

/* Random JSON over real and wrong names: never a crash, all or nothing, indices inside their tables. */
static void random_objects(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "null", "1",      "-3.5", "\"news|art\"",     "\"\"",        "[]",    "[1,\"10\",null]", "[[1]]", "true",
        "{}",   "\"42\"", "1e30", "9007199254740993", "\"a,b;c|d\"", "[0.5]", "\"5e1\""};
    struct rng r;
    rng_seed(&r, 13, 0);
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    for (int round = 0; round < 20000; round++) {
        json_t *object = json_object();
        for (uint32_t m = rng_below(&r, 5); m > 0; m--) {
            const char *name = spec->features[rng_below(&r, spec->n_features)].name;
            const char *piece = pieces[rng_below(&r, sizeof pieces / sizeof *pieces)];
            json_object_set_new(object, rng_below(&r, 50) == 0 ? "wrong~/" : name,
                                json_loads(piece, JSON_DECODE_ANY, NULL));
        }
        struct err e = ERR_INIT;
        char pointer[256];
        size_t before = rows.n;
        int result = features_add_json(&rows, object, &scratch, pointer, sizeof pointer, &e);
        assert_int_equal(rows.n, before + (result == 0));
        assert_int_equal(err_isset(&e), result != 0);
        assert_int_equal(pointer[0] == '/', result != 0);
        json_decref(object);
    }
    for (uint32_t f = 0; f < spec->n_features; f++) {
        const struct feature_column *c = &rows.columns[f];
        size_t n = feature_is_bag(&spec->features[f]) ? c->start[rows.n] : rows.n;
        for (size_t i = 0; i < n && spec->features[f].rows > 0; i++) {
            assert_true(c->index[i] >= 0 && (uint32_t)c->index[i] < spec->features[f].rows);
        }
        for (size_t i = 0; i < n && spec->features[f].rows == 0; i++) {
            assert_true(isnan(c->number[i]) || fabsf(c->number[i]) <= 10.0f);
        }
    }
    assert_true(rows.n > 5000);
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
}

/* Names of the features of which an object says nothing that the model knows. */
static void what_is_not_known(void **state)
{
    (void)state;
    static const struct {
        const char *object;
        const char *known; /* names, each with a blank behind it */
    } cases[] = {
        {"{}", ""},
        {"{\"user_id\":\"?\",\"city\":\"?\",\"topics\":\"?\",\"gender\":\"?\",\"flags\":[\"?\"],\"history\":[\"?\"]}",
         ""},
        {"{\"user_id\":\"\",\"age\":\"\",\"activity\":null,\"tags\":[],\"topics\":\"|\"}", ""},
        {"{\"user_id\":42,\"topics\":\"?|art\",\"gender\":\"f\",\"history\":[\"?\",\"10\"]}",
         "user_id topics gender history "},
        {"{\"hashed\":\"?\",\"tags\":\"?\",\"age\":40,\"spend\":0,\"activity\":-1e9,\"flags\":\"b\"}",
         "hashed tags age spend activity flags "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct feature_rows rows;
        struct value_scratch scratch = {0};
        struct err e = ERR_INIT;
        char pointer[256];
        json_t *object = json_loads(cases[i].object, 0, NULL);
        assert_int_equal(feature_rows_init(&rows, spec), 0);
        for (size_t row = 0; row < 2; row++) { /* the second row's lists begin elsewhere */
            check_ok(&e, features_add_json(&rows, object, &scratch, pointer, sizeof pointer, &e));
            uint64_t defaulted = feature_rows_defaulted(&rows, row);
            for (uint32_t f = 0; f < spec->n_features; f++) {
                char name[SCHEMA_MAX_NAME + 2];
                snprintf(name, sizeof name, "%s ", spec->features[f].name);
                assert_int_equal(defaulted >> f & 1, strstr(cases[i].known, name) == NULL);
            }
        }
        json_decref(object);
        value_scratch_release(&scratch);
        feature_rows_release(&rows);
    }
}

int main(void)
{
    model_init(&model, MODEL_JSON("cosine"));
    spec = &model.schema.towers[SIDE_USER];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_categories),
        cmocka_unit_test(bags_and_sequences),
        cmocka_unit_test(numbers),
        cmocka_unit_test(large_numbers_with_small_differences),
        cmocka_unit_test(values_from_a_table),
        cmocka_unit_test(hashing_is_fnv1a),
        cmocka_unit_test(weights_of_pooling),
        cmocka_unit_test(parsing_numbers),
        cmocka_unit_test(objects_and_pointers),
        cmocka_unit_test(failed_rows_leave_no_trace),
        cmocka_unit_test(copying_rows_and_setting_bags),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(random_objects),
        cmocka_unit_test(what_is_not_known),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    model_release(&model);
    return failed;
}
