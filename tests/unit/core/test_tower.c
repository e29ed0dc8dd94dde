/* The forward pass against numbers worked out by hand, and against an obvious double-precision oracle. */
#include "tests/unit/core/model.h"

#include <math.h>

#include "core/tower.h"
#include "core/vecmath.h"
#include "tests/unit/naive_network.h"

static void add(struct feature_rows *rows, const char *text)
{
    struct value_scratch scratch = {0};
    struct err e = ERR_INIT;
    char pointer[256];
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    check_ok(&e, features_add_json(rows, json, &scratch, pointer, sizeof pointer, &e));
    value_scratch_release(&scratch);
    json_decref(json);
}

/* user: city (3 columns, rows unknown, missing, oslo, paris) and age (2 columns) -> 2 hidden -> 2 */
static void a_network_by_hand(void **state)
{
    (void)state;
    static const char text[] =
        "{\"user_tower\":{\"features\":[{\"name\":\"city\",\"type\":\"categorical\",\"dim\":3},"
        "{\"name\":\"age\",\"type\":\"numeric\",\"transform\":\"standardize\",\"mean\":40,\"stddev\":10}],"
        "\"network\":{\"type\":\"mlp\",\"layers\":[2,2]}},"
        "\"item_tower\":{\"features\":[{\"name\":\"item_id\",\"type\":\"id\",\"dim\":2}],\"network\":{\"type\":"
        "\"none\"}},"
        "\"similarity\":\"cosine\"}";
    struct model m;
    model_init(&m, text);
    const float embedding[4 * 3] = {9, 9, 9, 0, 0, 1, 1, 2, 3, -1, 0, 1};
    const float w0[2 * 5] = {1, 0, 1, 2, 0, -1, 1, 0, 0, 5};
    const float b0[2] = {0.5f, -1};
    const float w1[2 * 2] = {1, 1, 2, -1};
    const float b1[2] = {0, 1};
    struct tower t = {.spec = &m.schema.towers[SIDE_USER]};
    t.embedding[0] = embedding;
    t.dense[0] = w0;
    t.dense[1] = b0;
    t.dense[2] = w1;
    t.dense[3] = b1;
    struct feature_rows rows;
    struct tower_pass pass;
    struct err e = ERR_INIT;
    assert_int_equal(feature_rows_init(&rows, t.spec), 0);
    check_ok(&e, tower_pass_init(&pass, t.spec, 3, &e));
    add(&rows, "{\"city\":\"oslo\",\"age\":50}"); /* in 1 2 3 1 0: hidden 6.5, relu(0) = 0; out 6.5, 14 */
    add(&rows, "{\"city\":\"paris\"}");           /* in -1 0 1 0 1: hidden 0.5, 5; out 5.5, -3 */
    add(&rows, "{\"age\":20}");                   /* in 0 0 1 -2 0: hidden relu(-2.5), relu(-1); out 0, 1 */
    const float wanted[6] = {6.5f, 14, 5.5f, -3, 0, 1};
    tower_forward(&t, &rows, 0, 3, &pass);
    for (int i = 0; i < 6; i++) {
        assert_true(pass.output[i] == wanted[i]);
    }
    tower_forward(&t, &rows, 1, 1, &pass);
    assert_true(pass.output[0] == 5.5f && pass.output[1] == -3);
    float out[6];
    tower_embed(&t, SIMILARITY_COSINE, &rows, &pass, out);
    assert_true(out[4] == 0 && out[5] == 1);
    check_near((double)out[0], 6.5 / sqrt(6.5 * 6.5 + 14 * 14), 1, 1e-6);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
    model_release(&m);
}

struct random_tower {
    struct tower tower;
    float *owned[NETWORK_MAX_DENSE + SCHEMA_MAX_FEATURES];
    size_t n;
};

static const float *random_weights(struct random_tower *t, struct rng *r, size_t n)
{
    float *x = mem_array(n, sizeof *x);
    fill_random(r, x, n);
    return t->owned[t->n++] = x;
}

static void random_tower_init(struct random_tower *t, const struct tower_spec *spec, struct rng *r)
{
    *t = (struct random_tower){.tower = {.spec = spec}};
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        if (feature_is_embedded(f)) {
            t->tower.embedding[i] = random_weights(t, r, (size_t)f->rows * f->dim);
        }
    }
    for (uint32_t i = 0; i < spec->layers.n_dense; i++) {
        const struct dense *d = &spec->layers.dense[i];
        size_t columns = d->columns > 0 ? d->columns : 1;
        t->tower.dense[i] = random_weights(t, r, d->rows * columns);
        vec_scale(t->owned[t->n - 1], 1.0f / sqrtf((float)columns),
                  d->rows * columns); /* keeps sizes as training does */
    }
}

static void random_tower_release(struct random_tower *t)
{
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->owned[i]);
    }
}

/* What value i of n weighs, as docs/bundle.md says it. */
static double naive_weight(const struct feature *f, size_t i, size_t n)
{
    double sum = 0;
    if (!feature_is_bag(f) || f->pooling == POOLING_SUM) {
        return 1;
    }
    if (f->pooling != POOLING_RECENCY) {
        return f->pooling == POOLING_MEAN ? 1.0 / (double)n : 1.0 / sqrt((double)n);
    }
    for (size_t age = 0; age < n; age++) {
        sum += pow(2, -(double)age / f->half_life);
    }
    return pow(2, -(double)(n - 1 - i) / f->half_life) / sum;
}

/* The input of one row in double precision, straight from docs/bundle.md. */
static void naive_input(const struct tower *t, const struct feature_rows *rows, size_t row, double *x)
{
    for (uint32_t i = 0; i < t->spec->n_features; i++) {
        const struct feature *f = &t->spec->features[i];
        const struct feature_column *c = &rows->columns[i];
        double *out = x + f->offset;
        size_t begin = feature_is_bag(f) ? c->start[row] : row;
        size_t end = feature_is_bag(f) ? c->start[row + 1] : row + 1;
        for (uint32_t d = 0; d < f->width; d++) {
            out[d] = 0;
        }
        if (f->rows == 0) {
            out[0] = isnan(c->number[row]) ? 0 : (double)c->number[row];
            out[1] = isnan(c->number[row]);
            continue;
        }
        for (size_t j = begin; j < end; j++) {
            for (uint32_t d = 0; d < f->dim && f->type != FEATURE_ONEHOT; d++) {
                double share = naive_weight(f, j - begin, end - begin);
                out[d] += share * (double)t->embedding[i][(size_t)c->index[j] * f->dim + d];
            }
            if (f->type == FEATURE_ONEHOT) {
                out[c->index[j]] = 1;
            }
        }
    }
}

static void naive_forward(const struct tower *t, const struct feature_rows *rows, size_t row, double *out)
{
    double x[NAIVE_WIDEST] = {0};
    naive_input(t, rows, row, x);
    naive_network(t, x);
    memcpy(out, x, t->spec->output_dim * sizeof *out);
}

static void add_random_row(struct feature_rows *rows, struct rng *r)
{
    static const char *const parts[][4] = {
        {"\"user_id\":1", "\"user_id\":\"?\"", "\"user_id\":null", "\"user_id\":\"u-7\""},
        {"\"topics\":\"art|sport|x\"", "\"topics\":[]", "\"topics\":\"news\"", "\"topics\":[\"art\",\"art\"]"},
        {"\"tags\":\"a,b,c,d\"", "\"tags\":\"e\"", "\"tags\":null", "\"tags\":\"a,a\""},
        {"\"gender\":\"f\"", "\"gender\":\"q\"", "\"gender\":null", "\"gender\":\"m\""},
        {"\"flags\":\"a;b;c\"", "\"flags\":\"\"", "\"flags\":\"b\"", "\"flags\":[\"a\",\"a\"]"},
        {"\"age\":12", "\"age\":null", "\"age\":900", "\"age\":-3"},
        {"\"spend\":12.5", "\"spend\":null", "\"spend\":-900", "\"spend\":0"},
        {"\"activity\":-1", "\"activity\":null", "\"activity\":3", "\"activity\":100"},
        {"\"history\":[10,20,30,77]", "\"history\":[]", "\"history\":[30]", "\"history\":null"},
    };
    char text[600] = "{\"city\":\"oslo\"";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        strcat(text, ",");
        strcat(text, parts[i][rng_below(r, 4)]);
    }
    strcat(text, "}");
    add(rows, text);
}

static void compare_with_oracle(const char *json, struct rng *r)
{
    struct model m;
    model_init(&m, json);
    m.schema.towers[SIDE_USER].features[3].pooling = (enum feature_pooling)rng_below(r, 3); /* topics */
    struct random_tower t;
    random_tower_init(&t, &m.schema.towers[SIDE_USER], r);
    struct feature_rows rows;
    struct tower_pass batch, single;
    struct err e = ERR_INIT;
    enum { ROWS = 37 };
    size_t dim = t.tower.spec->output_dim;
    assert_int_equal(feature_rows_init(&rows, t.tower.spec), 0);
    for (int i = 0; i < ROWS; i++) {
        add_random_row(&rows, r);
    }
    check_ok(&e, tower_pass_init(&batch, t.tower.spec, 16, &e)); /* 37 rows: blocks of 16, 16 and 5 */
    check_ok(&e, tower_pass_init(&single, t.tower.spec, 1, &e));
    float *together = mem_array(ROWS * dim, sizeof *together);
    float *alone = mem_array(ROWS * dim, sizeof *alone);
    tower_embed(&t.tower, SIMILARITY_DOT, &rows, &batch, together);
    tower_embed(&t.tower, SIMILARITY_DOT, &rows, &single, alone);
    for (size_t i = 0; i < ROWS; i++) {
        double wanted[64];
        double norm = 0;
        naive_forward(&t.tower, &rows, i, wanted);
        for (size_t d = 0; d < dim; d++) {
            norm += wanted[d] * wanted[d];
        }
        for (size_t d = 0; d < dim; d++) {
            check_near((double)together[i * dim + d], wanted[d], 1 + sqrt(norm), 3e-6);
            check_near((double)alone[i * dim + d], wanted[d], 1 + sqrt(norm), 3e-6);
        }
    }
    tower_embed(&t.tower, SIMILARITY_COSINE, &rows, &batch, together);
    for (size_t i = 0; i < ROWS; i++) {
        check_near((double)vec_norm(together + i * dim, dim), 1, 1, 1e-6);
    }
    mem_free(together);
    mem_free(alone);
    tower_pass_release(&batch);
    tower_pass_release(&single);
    feature_rows_release(&rows);
    random_tower_release(&t);
    model_release(&m);
}

#define NETWORK_OF(type, members)                                                                                    \
    "{\"user_tower\":{\"features\":[" MODEL_USER_FEATURES "],\"network\":{\"type\":\"" type "\",\"layers\":" members \
    "}},"                                                                                                            \
    "\"item_tower\":{\"features\":[" MODEL_ITEM_FEATURES "],\"network\":{\"type\":\"" type "\",\"layers\":" members  \
    "}},\"similarity\":\"dot\"}"
#define NETWORK(layers) NETWORK_OF("mlp", layers)

static const char *const kinds_of_network[] = {
    NETWORK_OF("mlp", "[33,17],\"activation\":\"gelu\""),
    NETWORK_OF("mlp", "[33,17],\"activation\":\"leaky_relu\""),
    NETWORK_OF("mlp", "[33,24,17],\"layer_norm\":true"),
    NETWORK_OF("mlp", "[33,24,17],\"layer_norm\":true,\"activation\":\"gelu\""),
    NETWORK_OF("mlp", "[17,17,17],\"residual\":true"),
    NETWORK_OF("mlp", "[17,17,9,9],\"residual\":true,\"layer_norm\":true,\"activation\":\"gelu\""),
    NETWORK_OF("dcn", "[17],\"cross_layers\":1"),
    NETWORK_OF("dcn", "[24,17],\"cross_layers\":3"),
    NETWORK_OF("dcn", "[24,17],\"cross_layers\":3,\"cross_rank\":2"),
    NETWORK_OF("dcn", "[17,17],\"cross_layers\":2,\"cross_rank\":3,\"residual\":true,\"layer_norm\":true"),
};

static void equals_the_oracle(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 21, 0);
    for (int round = 0; round < 20; round++) {
        compare_with_oracle(NETWORK("[1]"), &r);
        compare_with_oracle(NETWORK("[33,17]"), &r);
        compare_with_oracle(NETWORK("[64,32,16,8,5]"), &r);
        compare_with_oracle(MODEL_JSON("dot"), &r);
        for (size_t i = 0; i < sizeof kinds_of_network / sizeof *kinds_of_network; i++) {
            compare_with_oracle(kinds_of_network[i], &r);
        }
    }
}

static void without_a_network_the_input_is_the_vector(void **state)
{
    (void)state;
    struct model m;
    model_init(&m,
               "{\"user_tower\":{\"features\":[{\"name\":\"user_id\",\"type\":\"id\",\"dim\":2}],\"network\":{\"type\":"
               "\"none\"}},\"item_tower\":{\"features\":[{\"name\":\"item_id\",\"type\":\"id\",\"dim\":2}],\"network\":"
               "{\"type\":\"none\"}},\"similarity\":\"dot\"}");
    float table[7 * 2];
    for (int i = 0; i < 14; i++) {
        table[i] = (float)i;
    }
    struct tower t = {.spec = &m.schema.towers[SIDE_USER], .embedding = {table}};
    struct feature_rows rows;
    struct tower_pass pass;
    struct err e = ERR_INIT;
    float out[6];
    assert_int_equal(feature_rows_init(&rows, t.spec), 0);
    add(&rows, "{\"user_id\":\"42\"}");
    add(&rows, "{\"user_id\":\"new\"}");
    add(&rows, "{}");
    check_ok(&e, tower_pass_init(&pass, t.spec, 2, &e));
    assert_ptr_equal(pass.output, pass.input);
    tower_embed(&t, SIMILARITY_DOT, &rows, &pass, out);
    const float wanted[6] = {8, 9, 0, 1, 2, 3};
    assert_memory_equal(out, wanted, sizeof wanted);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
    model_release(&m);
}

static void binding_checks_every_tensor(void **state)
{
    (void)state;
    struct model m;
    model_init(&m, MODEL_JSON("dot"));
    struct rng r;
    rng_seed(&r, 22, 0);
    struct random_tower t;
    random_tower_init(&t, &m.schema.towers[SIDE_ITEM], &r);
    const char *const names[3] = {"item.embedding.item_id", "item.network.0.weight", "item.network.0.bias"};
    struct tensor tensors[4] = {{"unrelated", 1, 0, t.owned[2]},
                                {names[0], 7, 3, t.owned[0]},
                                {names[1], 4, 7, t.owned[1]},
                                {names[2], 4, 0, t.owned[2]}};
    for (int spoilt = 0; spoilt < 4; spoilt++) {
        for (int how = 0; how < 3; how++) { /* missing, wrong shape, a NaN; 0: nothing is wrong */
            struct tensor file[4];
            memcpy(file, tensors, sizeof file);
            float kept = t.owned[spoilt == 0 ? 0 : spoilt - 1][3];
            if (spoilt > 0 && how == 0) {
                file[spoilt].name = "renamed";
            } else if (spoilt > 0 && how == 1) {
                file[spoilt].rows--;
            } else if (spoilt > 0) {
                t.owned[spoilt - 1][3] = how == 2 ? NAN : 0;
            }
            struct err e = ERR_INIT;
            struct file_map map;
            struct tower bound;
            unlink(scratch("weights"));
            check_ok(&e, safetensors_write(scratch("weights"), file, 4, &e));
            check_ok(&e, file_map_open(&map, scratch("weights"), &e));
            struct safetensors *s = safetensors_open(map.data, map.size, &e);
            assert_non_null(s);
            int result = tower_bind(&bound, &m.schema.towers[SIDE_ITEM], SIDE_ITEM, s, &e);
            assert_int_equal(result, spoilt == 0 ? 0 : -1);
            if (spoilt > 0) {
                check_error(&e, names[spoilt - 1]);
                t.owned[spoilt - 1][3] = kept;
            }
            safetensors_free(s);
            file_map_close(&map);
        }
    }
    random_tower_release(&t);
    model_release(&m);
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    struct model m;
    model_init(&m, MODEL_JSON("dot"));
    struct tower_pass pass;
    long n = 1;
    for (int result = -1; result != 0; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        result = tower_pass_init(&pass, &m.schema.towers[SIDE_USER], 4, &e);
        mem_fail_at(0);
        assert_int_equal(result != 0, err_isset(&e));
    }
    assert_int_equal(n, 5);
    tower_pass_release(&pass);
    struct err e = ERR_INIT;
    assert_int_equal(tower_pass_init(&pass, &m.schema.towers[SIDE_USER], SIZE_MAX / 8, &e), -1); /* no overflow */
    check_error(&e, "out of memory");
    model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_by_hand),
        cmocka_unit_test(equals_the_oracle),
        cmocka_unit_test(without_a_network_the_input_is_the_vector),
        cmocka_unit_test(binding_checks_every_tensor),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
