/*
 * Parameters: what there is, how it starts, copying, writing, finding what is not finite.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/safetensors.h"
#include "tests/unit/train/lab.h"

static struct schema schema;
static struct feature features[2][3];

/* 1000 + 3000 rows of 16 and a network on either side. */
static int make_schema(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    for (int side = 0; side < 2; side++) {
        struct feature *f = features[side];
        f[0] = (struct feature){.name = "hashed", .type = FEATURE_CATEGORICAL, .dim = 16, .buckets = 1000};
        f[1] = (struct feature){.name = "number", .type = FEATURE_NUMERIC, .stddev = 1};
        f[2] = (struct feature){.name = "bag", .type = FEATURE_CATEGORICAL, .dim = 16, .buckets = 3000, .multi = '|'};
        schema.towers[side] = (struct tower_spec){
            .features = f, .n_features = 3, .network = {.type = NETWORK_MLP, .widths = {150, 100}, .n_widths = 2}};
    }
    schema.similarity = SIMILARITY_COSINE;
    return schema_finish(&schema, &e);
}

static struct model *make_model(int states, uint64_t seed)
{
    struct err e = ERR_INIT;
    struct model *m = model_new(&schema, states, &e);
    assert_non_null(m);
    model_initialize(m, 0.25, seed);
    return m;
}

static const struct parameter *named(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        if (strcmp(m->parameters[i].name, name) == 0) {
            return &m->parameters[i];
        }
    }
    fail_msg("no parameter %s", name);
    return NULL;
}

static void test_parameters(void **state)
{
    (void)state;
    struct model *m = make_model(2, 1);
    assert_int_equal(m->n_parameters, 12);
    const struct parameter *table = named(m, "item.embedding.bag");
    assert_int_equal(table->rows, 3002);
    assert_int_equal(table->columns, 16);
    assert_true(table->is_table);
    const struct parameter *weight = named(m, "user.network.0.weight");
    assert_int_equal(weight->rows, 150);
    assert_int_equal(weight->columns, schema.towers[0].input_width);
    assert_false(weight->is_table);
    assert_int_equal(named(m, "user.network.1.bias")->rows, 100);
    assert_int_equal(named(m, "user.network.1.bias")->columns, 0);
    assert_ptr_equal(m->towers[SIDE_ITEM].embedding[2], table->value);
    assert_ptr_equal(m->towers[SIDE_USER].dense[0], weight->value);
    assert_int_equal(m->table[SIDE_USER][1], -1);
    for (size_t i = 0; i < m->n_parameters; i++) {
        assert_non_null(m->parameters[i].state[0]);
        assert_non_null(m->parameters[i].state[1]);
    }
    model_free(m);
}

static void check_moments(const struct parameter *p, double deviation)
{
    size_t n = lab_parameter_size(p);
    double sum = 0;
    double square = 0;
    double fourth = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)p->value[i] / (deviation > 0 ? deviation : 1);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
    }
    double count = (double)n;
    if (deviation == 0) {
        assert_true(square == 0);
        return;
    }
    if (fabs(sum / count) > 5 / sqrt(count) || fabs(square / count - 1) > 5 * sqrt(2 / count) ||
        fabs(fourth / count - 3) > 5 * sqrt(96 / count)) {
        fail_msg("%s: moments %g %g %g of %zu", p->name, sum / count, square / count, fourth / count, n);
    }
}

static void test_start(void **state)
{
    (void)state;
    struct model *m = make_model(1, 1);
    double in = schema.towers[0].input_width;
    for (size_t i = 0; i < m->n_parameters; i++) {
        const struct parameter *p = &m->parameters[i];
        bool first = strstr(p->name, "network.0.weight") != NULL;
        bool bias = strstr(p->name, "bias") != NULL;
        check_moments(p, p->is_table ? 0.25 : bias ? 0 : first ? sqrt(2 / in) : sqrt(2.0 / (150 + 100)));
        for (size_t j = 0; j < lab_parameter_size(p); j++) {
            assert_true(p->state[0][j] == 0);
        }
        assert_null(p->state[1]);
    }
    model_free(m);
}

/* Same seed, same start, also the second time; another seed or another parameter, another start. */
static void test_seeds(void **state)
{
    (void)state;
    struct model *a = make_model(1, 1);
    struct model *b = make_model(0, 1);
    struct model *c = make_model(0, 2);
    memset(a->parameters[0].value, 0, 64);
    a->parameters[0].state[0][3] = 1;
    model_initialize(a, 0.25, 1);
    assert_true(a->parameters[0].state[0][3] == 0);
    for (size_t i = 0; i < a->n_parameters; i++) {
        size_t bytes = lab_parameter_size(&a->parameters[i]) * sizeof(float);
        assert_memory_equal(a->parameters[i].value, b->parameters[i].value, bytes);
        if (strstr(a->parameters[i].name, "bias") == NULL) {
            assert_memory_not_equal(a->parameters[i].value, c->parameters[i].value, bytes);
        }
    }
    assert_memory_not_equal(named(a, "user.embedding.bag")->value, named(a, "item.embedding.bag")->value, 64);
    model_free(a);
    model_free(b);
    model_free(c);
}

static void test_copy_and_find_bad(void **state)
{
    (void)state;
    struct model *a = make_model(0, 1);
    struct model *b = make_model(0, 2);
    model_copy_values(b, a);
    for (size_t i = 0; i < a->n_parameters; i++) {
        assert_memory_equal(a->parameters[i].value, b->parameters[i].value,
                            lab_parameter_size(&a->parameters[i]) * sizeof(float));
    }
    assert_null(model_find_bad(a));
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < a->n_parameters; i++) {
        struct parameter *p = &a->parameters[i];
        p->value[lab_parameter_size(p) - 1] = bad[i % 3];
        assert_ptr_equal(model_find_bad(a), p);
        p->value[lab_parameter_size(p) - 1] = 0;
    }
    model_free(a);
    model_free(b);
}

static void test_write(void **state)
{
    (void)state;
    struct model *m = make_model(1, 1);
    struct err e = ERR_INIT;
    const char *path = files_path("weights.safetensors");
    assert_int_equal(model_write(m, path, &e), 0);
    struct file_map map;
    assert_int_equal(file_map_open(&map, path, &e), 0);
    struct safetensors *file = safetensors_open(map.data, map.size, &e);
    assert_non_null(file);
    for (int side = 0; side < 2; side++) {
        struct tower t;
        assert_int_equal(tower_bind(&t, &schema.towers[side], (enum side)side, file, &e), 0);
        assert_memory_equal(t.embedding[2], m->towers[side].embedding[2], 3002 * 16 * sizeof(float));
        assert_memory_equal(t.dense[2], m->towers[side].dense[2], 150 * 100 * sizeof(float));
        assert_memory_equal(t.dense[3], m->towers[side].dense[3], 100 * sizeof(float));
    }
    safetensors_free(file);
    file_map_close(&map);
    assert_true(model_write(m, "/nowhere/at/all", &e) < 0);
    assert_non_null(strstr(e.message, "/nowhere/at/all"));
    model_free(m);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct model *m = model_new(&schema, 2, &e);
        mem_fail_at(0);
        if (m != NULL) {
            assert_int_equal(n, 2 + 3 * 12 + 1);
            model_free(m);
            return;
        }
        assert_true(err_isset(&e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),        cmocka_unit_test(test_start), cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_copy_and_find_bad), cmocka_unit_test(test_write), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_schema, NULL);
}
