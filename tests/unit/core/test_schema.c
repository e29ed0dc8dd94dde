#include "tests/unit/core/model.h"

#include <math.h>

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        fail_msg("test's JSON: %s: %s", error.text, text);
    }
    return json;
}

static void check_refused(const char *text, const char *words)
{
    struct schema s;
    struct err e = ERR_INIT;
    json_t *json = parse(text);
    if (schema_from_json(&s, json, &e) == 0) {
        fail_msg("accepted: %s", text);
    }
    check_error(&e, words);
    assert_null(s.towers[SIDE_USER].features); /* released */
    json_decref(json);
}

/* A schema whose user tower has this one feature. */
static const char *with_feature(const char *feature)
{
    static char text[2000];
    snprintf(
        text, sizeof text,
        "{\"user_tower\":{\"features\":[%s],\"network\":{\"type\":\"none\"}},"
        "\"item_tower\":{\"features\":[{\"name\":\"i\",\"type\":\"id\",\"dim\":2}],\"network\":{\"type\":\"none\"}},"
        "\"similarity\":\"dot\"}",
        feature);
    return text;
}

static const char *with_network(const char *network)
{
    static char text[2000];
    snprintf(
        text, sizeof text,
        "{\"user_tower\":{\"features\":[{\"name\":\"u\",\"type\":\"id\",\"dim\":2}],\"network\":%s},"
        "\"item_tower\":{\"features\":[{\"name\":\"i\",\"type\":\"id\",\"dim\":2}],\"network\":{\"type\":\"none\"}},"
        "\"similarity\":\"dot\"}",
        network);
    return text;
}

static void round_trip(void **state)
{
    (void)state;
    struct model m;
    model_init(&m, MODEL_JSON("cosine"));
    json_t *first = schema_to_json(&m.schema);
    assert_non_null(first);
    struct schema again;
    struct err e = ERR_INIT;
    check_ok(&e, schema_from_json(&again, first, &e));
    json_t *second = schema_to_json(&again);
    assert_true(json_equal(first, second));
    const struct feature *f = &again.towers[SIDE_USER].features[9];
    assert_string_equal(f->name, "activity");
    assert_int_equal(f->n_bounds, 3);
    assert_true(f->bounds[1] == 1.5 && f->dim == 2);
    json_decref(first);
    json_decref(second);
    schema_release(&again);
    model_release(&m);
}

static void networks_round_trip(void **state)
{
    (void)state;
    const char *const networks[] = {
        "{\"type\":\"mlp\",\"layers\":[4,2],\"activation\":\"gelu\",\"layer_norm\":true}",
        "{\"type\":\"mlp\",\"layers\":[2,2],\"activation\":\"leaky_relu\",\"residual\":true}",
        "{\"type\":\"dcn\",\"layers\":[2],\"activation\":\"relu\",\"cross_layers\":8}",
        "{\"type\":\"dcn\",\"layers\":[2],\"activation\":\"relu\",\"cross_layers\":1,\"cross_rank\":1}",
        "{\"type\":\"mlp\",\"layers\":[3,2],\"activation\":\"relu\"}", /* as bundles were written before */
    };
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        struct schema s;
        struct err e = ERR_INIT;
        json_t *json = parse(with_network(networks[i]));
        check_ok(&e, schema_from_json(&s, json, &e));
        check_ok(&e, schema_finish(&s, &e));
        s.towers[SIDE_USER].network.dropout = 0.5; /* stays behind */
        json_t *back = schema_to_json(&s);
        json_t *wanted = parse(networks[i]);
        assert_true(json_equal(json_object_get(json_object_get(back, "user_tower"), "network"), wanted));
        json_decref(wanted);
        json_decref(back);
        json_decref(json);
        schema_release(&s);
    }
}

/* Numbers come back to the bit through the text that a manifest is. */
static void numbers_survive_the_text(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 11, 0);
    struct model m;
    model_init(&m, MODEL_JSON("dot"));
    struct feature *age = &m.schema.towers[SIDE_USER].features[7];
    for (int i = 0; i < 2000; i++) {
        age->mean = (double)rng_normal(&r) * pow(10, (double)rng_below(&r, 600) - 300);
        age->stddev = fabs((double)rng_normal(&r)) * pow(10, (double)rng_below(&r, 600) - 300) + 1e-307;
        json_t *json = schema_to_json(&m.schema);
        char *text = json_dumps(json, JSON_COMPACT);
        json_t *back = parse(text);
        struct schema s;
        struct err e = ERR_INIT;
        check_ok(&e, schema_from_json(&s, back, &e));
        assert_true(s.towers[SIDE_USER].features[7].mean == age->mean);
        assert_true(s.towers[SIDE_USER].features[7].stddev == age->stddev);
        schema_release(&s);
        json_decref(back);
        json_decref(json);
        free(text);
    }
    age->mean = NAN; /* nothing JSON can say: refused, not written */
    assert_null(schema_to_json(&m.schema));
    model_release(&m);
}

static void derived_sizes(void **state)
{
    (void)state;
    struct model m;
    model_init(&m, MODEL_JSON("dot"));
    const struct tower_spec *user = &m.schema.towers[SIDE_USER];
    /* in the order of MODEL_USER_FEATURES */
    const uint32_t rows[] = {7, 4, 12, 5, 9, 4, 4, 0, 0, 6, 5};
    const uint32_t widths[] = {2, 3, 2, 2, 2, 4, 4, 2, 2, 2, 2};
    uint32_t offset = 0;
    for (uint32_t i = 0; i < user->n_features; i++) {
        assert_int_equal(user->features[i].rows, rows[i]);
        assert_int_equal(user->features[i].width, widths[i]);
        assert_int_equal(user->features[i].offset, offset);
        offset += widths[i];
    }
    assert_int_equal(user->input_width, offset);
    assert_int_equal(user->output_dim, 4);
    assert_int_equal(tower_spec_find(user, "history"), 10);
    assert_int_equal(tower_spec_find(user, "histor"), -1);
    model_release(&m);
}

static void towers_must_meet(void **state)
{
    (void)state;
    const char *const networks[] = {"{\"type\":\"mlp\",\"layers\":[8,3]}", "{\"type\":\"mlp\",\"layers\":[2]}"};
    for (int i = 0; i < 2; i++) {
        struct schema s;
        struct err e = ERR_INIT;
        json_t *json = parse(with_network(networks[i]));
        check_ok(&e, schema_from_json(&s, json, &e));
        assert_int_equal(schema_finish(&s, &e), i == 0 ? -1 : 0);
        if (i == 0) {
            check_error(&e, "user tower gives vectors of 3 dimensions and the item tower of 2");
        }
        schema_release(&s);
        json_decref(json);
    }
}

#define SHARED                                                                                                        \
    "{\"user_tower\":{\"features\":[{\"name\":\"h\",\"type\":\"sequence\",\"last\":3,\"shared\":true}],"              \
    "\"network\":{\"type\":\"mlp\",\"layers\":[4]}},\"item_tower\":{\"features\":[%s],\"network\":{\"type\":\"mlp\"," \
    "\"layers\":[4]}},\"similarity\":\"dot\"}"

/* What a shared history reads is the item id's: vocabulary, dim, rows, tensor. */
static void shared_tables(void **state)
{
    (void)state;
    char text[1000];
    struct model m;
    snprintf(text, sizeof text, SHARED,
             "{\"name\":\"category\",\"type\":\"onehot\"},{\"name\":\"item_id\",\"type\":\"id\",\"dim\":3}");
    model_init(&m, text);
    const struct feature *h = &m.schema.towers[SIDE_USER].features[0];
    const struct feature *id = &m.schema.towers[SIDE_ITEM].features[1];
    char file[SCHEMA_MAX_NAME + 32];
    assert_true(h->shared && h->dim == 3 && h->width == 3 && h->rows == 7 && h->vocab.count == 5);
    assert_string_equal(h->table, "item.embedding.item_id");
    assert_string_equal(id->table, "item.embedding.item_id");
    assert_string_equal(m.schema.towers[SIDE_ITEM].features[0].table, "");
    assert_false(feature_vocab_file(h, SIDE_USER, file));
    assert_true(feature_vocab_file(id, SIDE_ITEM, file));
    assert_string_equal(file, "vocab/item.item_id.strings");
    json_t *json = schema_to_json(&m.schema);
    struct schema again;
    struct err e = ERR_INIT;
    check_ok(&e, schema_from_json(&again, json, &e));
    assert_true(again.towers[SIDE_USER].features[0].shared);
    schema_release(&again);
    json_decref(json);
    model_release(&m);
    static const char *const without_an_id[] = {
        "{\"name\":\"item_id\",\"type\":\"categorical\",\"buckets\":10,\"dim\":3}",
        "{\"name\":\"a\",\"type\":\"id\",\"dim\":3},{\"name\":\"b\",\"type\":\"id\",\"dim\":3}",
    };
    for (size_t i = 0; i < 2; i++) {
        snprintf(text, sizeof text, SHARED, without_an_id[i]);
        json = parse(text);
        check_ok(&e, schema_from_json(&again, json, &e));
        assert_int_equal(schema_finish(&again, &e), -1);
        check_error(&e, "user feature h: shared reads the embeddings of the item tower's feature of type id");
        e = (struct err)ERR_INIT;
        schema_release(&again);
        json_decref(json);
    }
}

static void check_finish_refuses(const char *text, size_t vocab, const char *words)
{
    struct schema s;
    struct err e = ERR_INIT;
    json_t *json = parse(text);
    check_ok(&e, schema_from_json(&s, json, &e));
    s.towers[SIDE_USER].features[0].vocab.count = vocab;
    assert_int_equal(schema_finish(&s, &e), -1);
    check_error(&e, words);
    schema_release(&s);
    json_decref(json);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    check_finish_refuses(with_feature("{\"name\":\"u\",\"type\":\"id\",\"dim\":2}"), (size_t)INT32_MAX, "2^31");
    check_finish_refuses(with_feature("{\"name\":\"u\",\"type\":\"id\",\"dim\":2}"), (size_t)1 << 40, "2^31");
    check_finish_refuses(with_feature("{\"name\":\"u\",\"type\":\"onehot\"}"), 1 << 20, "onehot is for a few values");
    check_finish_refuses(with_feature("{\"name\":\"u\",\"type\":\"onehot\"}"), 5000, "5002 dimensions");
}

#define SEQUENCE "{\"name\":\"u\",\"type\":\"sequence\",\"dim\":2,\"last\":3"

static void bad_features_are_refused(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"5", "user_tower.features[0]: must be an object"},
        {"{\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":5,\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":\"\",\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":\".x\",\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":\"a/b\",\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":\"a b\",\"type\":\"id\",\"dim\":2}", "\"name\""},
        {"{\"name\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"type\":\"id\",\"dim\":2}",
         "\"name\""},
        {"{\"name\":\"u\",\"dim\":2}", "\"type\""},
        {"{\"name\":\"u\",\"type\":\"text\",\"dim\":2}", "\"type\""},
        {"{\"name\":\"u\",\"type\":1,\"dim\":2}", "\"type\""},
        {"{\"name\":\"u\",\"type\":\"id\"}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":0}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":-1}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":4097}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":4294967298}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2.0}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":\"2\"}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":null}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":true}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2,\"dimm\":2}", "dimm"},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2,\"buckets\":5}", "buckets"},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2,\"multi\":\"|\"}", "multi"},
        {"{\"name\":\"u\",\"type\":\"onehot\",\"dim\":8}", "dim"},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"buckets\":-1}", "\"buckets\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"buckets\":1073741825}", "\"buckets\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"||\"}", "\"multi\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"\"}", "\"multi\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"\\u00e9\"}", "\"multi\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":5}", "\"multi\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"pooling\":\"mean\"}", "\"pooling\" needs"},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"|\",\"pooling\":\"max\"}", "\"pooling\""},
        {"{\"name\":\"u\",\"type\":\"sequence\",\"dim\":2}", "\"last\""},
        {"{\"name\":\"u\",\"type\":\"sequence\",\"dim\":2,\"last\":0}", "\"last\""},
        {"{\"name\":\"u\",\"type\":\"sequence\",\"dim\":2,\"last\":10001}", "\"last\""},
        {"{\"name\":\"u\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"|\",\"pooling\":\"recency\"}",
         "recency is for sequences"},
        {SEQUENCE ",\"pooling\":\"recency\"}", "need each other"},
        {SEQUENCE ",\"half_life\":5}", "need each other"},
        {SEQUENCE ",\"half_life\":5,\"pooling\":\"sum\"}", "need each other"},
        {SEQUENCE ",\"half_life\":0.05,\"pooling\":\"recency\"}", "0.1 to 1e+06"},
        {SEQUENCE ",\"half_life\":2e6,\"pooling\":\"recency\"}", "0.1 to 1e+06"},
        {SEQUENCE ",\"half_life\":\"5\",\"pooling\":\"recency\"}", "0.1 to 1e+06"},
        {SEQUENCE ",\"half_life\":null,\"pooling\":\"recency\"}", "0.1 to 1e+06"},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2,\"half_life\":5}", "half_life"},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2,\"shared\":true}", "shared"},
        {SEQUENCE ",\"shared\":true}", "\"dim\" is no member"},
        {SEQUENCE ",\"shared\":\"item_id\"}", "\"shared\" must be true or false"},
        {"{\"name\":\"u\",\"type\":\"sequence\",\"last\":3,\"shared\":false}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"numeric\"}", "\"transform\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"sqrt\"}", "\"transform\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1}", "\"stddev\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"stddev\":1}", "\"mean\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1,\"stddev\":0}", "positive"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1,\"stddev\":-1}", "positive"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1,\"stddev\":\"1\"}", "\"stddev\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":\"1\",\"stddev\":1}", "\"mean\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1,\"stddev\":1,\"bounds\":[]}", "bounds"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2}", "\"bounds\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"bounds\":[1]}", "\"dim\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":5}", "\"bounds\""},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":[2,1]}", "ascending"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":[1,1]}", "ascending"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":[1,\"2\"]}",
         "ascending"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":[1,1.00000000000000001]"
         "}",
         "ascending"},
        {"{\"name\":\"u\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"dim\":2,\"bounds\":[1],\"mean\":0}",
         "mean"},
        {"{\"name\":\"u\",\"type\":\"id\",\"dim\":2},{\"name\":\"u\",\"type\":\"id\",\"dim\":2}",
         "the name u is taken"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_refused(with_feature(cases[i][0]), cases[i][1]);
        check_refused(with_feature(cases[i][0]), "user_tower.features[");
    }
    check_refused(with_feature(""), "1 to 64 features");
    char many[70 * 64] = "";
    for (int i = 0; i < 65; i++) {
        snprintf(many + strlen(many), 64, "%s{\"name\":\"f%d\",\"type\":\"onehot\"}", i > 0 ? "," : "", i);
    }
    json_t *json = parse(with_network("{\"type\":\"none\"}"));
    char list[72 * 64];
    snprintf(list, sizeof list, "[%s]", many);
    json_object_set_new(json_object_get(json, "user_tower"), "features", parse(list));
    struct schema s;
    struct err e = ERR_INIT;
    assert_int_equal(schema_from_json(&s, json, &e), -1);
    check_error(&e, "1 to 64 features");
    json_decref(json);
}

static void bad_networks_are_refused(void **state)
{
    (void)state;
    const char *const cases[] = {
        "null",
        "5",
        "{}",
        "{\"type\":\"dcn\"}",
        "{\"type\":\"mlp\"}",
        "{\"type\":\"mlp\",\"layers\":[]}",
        "{\"type\":\"mlp\",\"layers\":64}",
        "{\"type\":\"mlp\",\"layers\":[0]}",
        "{\"type\":\"mlp\",\"layers\":[-4]}",
        "{\"type\":\"mlp\",\"layers\":[4097]}",
        "{\"type\":\"mlp\",\"layers\":[2.0]}",
        "{\"type\":\"mlp\",\"layers\":[\"2\"]}",
        "{\"type\":\"mlp\",\"layers\":[1,1,1,1,1,1,1,1,2]}",
        "{\"type\":\"none\",\"layers\":[2]}",
        "{\"type\":\"none\",\"layers\":\"x\"}",
        "{\"type\":\"mlp\",\"layers\":[2],\"activation\":\"tanh\"}",
        "{\"type\":\"mlp\",\"layers\":[2],\"dropout\":0.5}", /* for training, not part of a model */
        "{\"type\":\"mlp\",\"layers\":[3,2],\"layer_norm\":1}",
        "{\"type\":\"mlp\",\"layers\":[2],\"layer_norm\":true}",
        "{\"type\":\"mlp\",\"layers\":[3,2],\"residual\":true}",
        "{\"type\":\"mlp\",\"layers\":[2,2],\"residual\":\"yes\"}",
        "{\"type\":\"mlp\",\"layers\":[2],\"cross_layers\":1}",
        "{\"type\":\"mlp\",\"layers\":[2],\"activation\":\"none\"}",
        "{\"type\":\"none\",\"layers\":[],\"layer_norm\":false}",
        "{\"type\":\"dcn\",\"layers\":[2]}",
        "{\"type\":\"dcn\",\"cross_layers\":2}",
        "{\"type\":\"dcn\",\"layers\":[],\"cross_layers\":2}",
        "{\"type\":\"dcn\",\"layers\":[2],\"cross_layers\":0}",
        "{\"type\":\"dcn\",\"layers\":[2],\"cross_layers\":9}",
        "{\"type\":\"dcn\",\"layers\":[2],\"cross_layers\":1.5}",
        "{\"type\":\"dcn\",\"layers\":[2],\"cross_layers\":1,\"cross_rank\":-1}",
        "{\"type\":\"dcn\",\"layers\":[2],\"cross_layers\":1,\"cross_rank\":4097}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_refused(with_network(cases[i]), "user_tower.network");
    }
}

static void bad_outlines_are_refused(void **state)
{
    (void)state;
    struct schema s;
    struct err e = ERR_INIT;
    assert_int_equal(schema_from_json(&s, NULL, &e), -1);
    check_error(&e, "schema: must be an object");
    check_refused("[]", "must be an object");
    check_refused("{}", "user_tower: must be an object");
    const char *const members[] = {"user_tower", "item_tower", "similarity"};
    const char *const values[] = {
        "null", "5", "\"x\"", "[]", "{}", "{\"features\":[]}", "{\"features\":5,\"extra\":1}"};
    for (size_t m = 0; m < 3; m++) {
        for (size_t v = 0; v < 7; v++) {
            json_t *json = parse(MODEL_JSON("dot"));
            json_object_set_new(json, members[m], json_loads(values[v], JSON_DECODE_ANY, NULL));
            char *text = json_dumps(json, 0);
            check_refused(text, members[m]);
            free(text);
            json_object_del(json, members[m]);
            text = json_dumps(json, 0);
            check_refused(text, members[m]);
            free(text);
            json_decref(json);
        }
    }
    json_t *json = parse(MODEL_JSON("dot"));
    json_object_set_new(json, "sim\nilarity", json_integer(1));
    char *text = json_dumps(json, 0);
    check_refused(text, "sim ilarity");
    free(text);
    json_decref(json);
}

/* Random edits of a good text: refused, or it can be finished, written and read again. */
static void mutations_never_crash(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\":,0123456789-.eidnumbtrqy|";
    static const char good[] = MODEL_JSON("dot");
    struct rng r;
    rng_seed(&r, 12, 0);
    char text[sizeof good];
    long accepted = 0;
    for (int round = 0; round < 30000; round++) {
        memcpy(text, good, sizeof good);
        for (uint32_t flips = 1 + rng_below(&r, 2); flips > 0; flips--) {
            text[rng_below(&r, sizeof good - 1)] = alphabet[rng_below(&r, sizeof alphabet - 1)];
        }
        json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        struct schema s;
        struct err e = ERR_INIT;
        if (json != NULL && schema_from_json(&s, json, &e) == 0) {
            schema_finish(&s, &e);
            json_t *again = schema_to_json(&s);
            assert_non_null(again);
            struct schema t;
            struct err f = ERR_INIT;
            check_ok(&f, schema_from_json(&t, again, &f));
            schema_release(&t);
            json_decref(again);
            schema_release(&s);
            accepted++;
        }
        json_decref(json);
    }
    assert_true(accepted > 100);
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    json_t *json = parse(MODEL_JSON("dot"));
    long n = 1;
    for (int result = -1; result != 0; n++) {
        struct schema s;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        result = schema_from_json(&s, json, &e);
        mem_fail_at(0);
        assert_int_equal(result != 0, err_isset(&e));
        if (result == 0) {
            schema_release(&s);
        } else {
            check_error(&e, "out of memory");
        }
    }
    assert_true(n > 3);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(networks_round_trip),
        cmocka_unit_test(numbers_survive_the_text),
        cmocka_unit_test(derived_sizes),
        cmocka_unit_test(towers_must_meet),
        cmocka_unit_test(shared_tables),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(bad_features_are_refused),
        cmocka_unit_test(bad_networks_are_refused),
        cmocka_unit_test(bad_outlines_are_refused),
        cmocka_unit_test(mutations_never_crash),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
