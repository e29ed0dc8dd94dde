/* Profiles against requests that say everything themselves. */
#include "tests/unit/core/model.h"

#include <math.h>

#include "core/profiles.h"
#include "core/rng.h"

enum { USERS = 200, ALL = SCHEMA_MAX_FEATURES };

static struct model m;
static const struct tower_spec *spec;
static struct feature_rows known; /* [USERS] */
static struct profiles profiles;
static struct buf blocks[ALL + 1];
static json_t *users[USERS]; /* everything, ids included */
static struct rng rng;

/* Adds to an object, now and then, a value of each feature. */
static json_t *random_user(const char *id)
{
    static const char *const texts[] = {
        "{\"city\":\"oslo\",\"hashed\":\"x\",\"topics\":\"art|sport\",\"tags\":\"a,b\",\"gender\":\"f\",\"flags\":\"a;"
        "b\",\"age\":"
        "33,\"spend\":7,\"activity\":3,\"history\":[\"10\",\"30\"]}",
        "{\"city\":\"rome\",\"hashed\":\"y\",\"topics\":[\"?\",\"news\"],\"tags\":[\"c\"],\"gender\":\"?\",\"flags\":[]"
        ",\"age\":"
        "1e9,\"spend\":\"-3.5\",\"activity\":\"0.5\",\"history\":[\"20\",\"?\",10,\"30\",\"20\"]}",
        "{\"city\":\"\",\"hashed\":null,\"topics\":null,\"tags\":\"\",\"gender\":\"\",\"flags\":null,\"age\":null,"
        "\"spend\":"
        "\"\",\"activity\":null,\"history\":[]}",
    };
    json_t *user = json_pack("{s:s}", "user_id", id);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *name;
        json_t *value;
        json_t *all = json_loads(texts[i], 0, NULL);
        assert_non_null(all);
        json_object_foreach(all, name, value)
        {
            if (rng_below(&rng, 3) == 0) {
                json_object_set(user, name, value);
            }
        }
        json_decref(all);
    }
    return user;
}

static void add(struct feature_rows *rows, const struct profiles *p, const json_t *user, bool used_wanted)
{
    struct value_scratch scratch = {0};
    struct err e = ERR_INIT;
    char pointer[256];
    bool used;
    check_ok(&e, profiles_add_json(p, rows, user, &scratch, pointer, sizeof pointer, &used, &e));
    assert_int_equal(used, used_wanted);
    value_scratch_release(&scratch);
}

/* Whether a user has a value that a request does not speak of. */
static bool knows_more(size_t user, const json_t *said)
{
    for (uint32_t f = 1; f < spec->n_features; f++) {
        const struct feature_column *c = &known.columns[f];
        if (json_object_get(said, spec->features[f].name) == NULL &&
            (feature_is_bag(&spec->features[f]) ? c->start[user + 1] > c->start[user]
             : c->number != NULL                ? !isnan(c->number[user])
                                                : c->index[user] != SCHEMA_MISSING)) {
            return true;
        }
    }
    return false;
}

/* The file of a feature, as another trainer would write it. */
static void write_column(uint32_t feature, struct buf *out)
{
    const struct feature_column *c = &known.columns[feature];
    if (!feature_is_bag(&spec->features[feature])) {
        buf_add(out, c->number != NULL ? (const char *)c->number : (const char *)c->index, USERS * 4);
        return;
    }
    for (size_t i = 0; i <= USERS; i++) {
        const uint64_t start = c->start[i];
        buf_add(out, (const char *)&start, sizeof start);
    }
    buf_add(out, (const char *)c->index, c->start[USERS] * 4);
}

static int set_up(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    static char ids[USERS][8];
    static struct span spans[USERS];
    const struct profiles none = {0};
    model_init(&m, MODEL_JSON("dot"));
    spec = &m.schema.towers[SIDE_USER];
    assert_int_equal(feature_rows_init(&known, spec), 0);
    for (size_t i = 0; i < USERS; i++) {
        snprintf(ids[i], sizeof ids[i], "%zu", 1000 + i);
        spans[i] = (struct span){ids[i], strlen(ids[i])};
        users[i] = random_user(ids[i]);
        add(&known, &none, users[i], false);
    }
    strtab_write(&blocks[ALL], spans, USERS);
    check_ok(&e, strtab_view(&profiles.ids, blocks[ALL].data, blocks[ALL].len, true, &e));
    profiles.key = "user_id";
    for (uint32_t f = 1; f < spec->n_features; f++) {
        write_column(f, &blocks[f]);
        check_ok(&e, profile_column_view(&profiles.columns[profiles.n_columns++], spec, f, blocks[f].data,
                                         blocks[f].len, USERS, &e));
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < USERS; i++) {
        json_decref(users[i]);
    }
    for (size_t i = 0; i <= ALL; i++) {
        buf_release(&blocks[i]);
    }
    feature_rows_release(&known);
    model_release(&m);
    return 0;
}

static void check_same(const struct feature_rows *a, size_t i, const struct feature_rows *b, size_t j)
{
    for (uint32_t f = 0; f < spec->n_features; f++) {
        const struct feature *feature = &spec->features[f];
        size_t n, other;
        if (a->columns[f].number != NULL) {
            assert_memory_equal(&a->columns[f].number[i], &b->columns[f].number[j], sizeof(float));
            continue;
        }
        const int32_t *x = feature_values(feature, &a->columns[f], i, &n);
        const int32_t *y = feature_values(feature, &b->columns[f], j, &other);
        assert_int_equal(n, other);
        assert_memory_equal(x, y, n * sizeof *x);
    }
}

static void a_name_is_enough(void **state)
{
    (void)state;
    struct feature_rows rows;
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    for (size_t i = 0; i < USERS; i++) {
        json_t *named = json_object();
        json_object_set(named, "user_id", json_object_get(users[i], "user_id"));
        if (i % 2 == 1) {
            json_object_set_new(named, "user_id", json_integer((json_int_t)(1000 + i)));
        }
        add(&rows, &profiles, named, knows_more(i, named));
        check_same(&rows, i, &known, i);
        json_decref(named);
    }
    feature_rows_release(&rows);
}

/* A request's members win, one by one, also when they are null. */
static void what_is_said_wins(void **state)
{
    (void)state;
    const struct profiles none = {0};
    struct feature_rows rows, wanted;
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    assert_int_equal(feature_rows_init(&wanted, spec), 0);
    for (size_t i = 0; i < USERS; i++) {
        char id[8];
        snprintf(id, sizeof id, "%zu", 1000 + i);
        json_t *said = random_user(id);
        json_t *both = json_copy(users[i]);
        json_object_update(both, said);
        add(&rows, &profiles, said, knows_more(i, said));
        add(&wanted, &none, both, false);
        check_same(&rows, i, &wanted, i);
        json_decref(said);
        json_decref(both);
    }
    feature_rows_release(&rows);
    feature_rows_release(&wanted);
}

static void a_stranger_has_no_profile(void **state)
{
    (void)state;
    const struct profiles none = {0};
    static const char *const strangers[] = {"{}", "{\"user_id\":\"ann\"}", "{\"user_id\":null,\"age\":3}",
                                            "{\"user_id\":\"\"}", "{\"user_id\":99}"};
    struct feature_rows rows, wanted;
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    assert_int_equal(feature_rows_init(&wanted, spec), 0);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        json_t *user = json_loads(strangers[i], 0, NULL);
        add(&rows, &profiles, user, false);
        add(&wanted, &none, user, false);
        check_same(&rows, i, &wanted, i);
        json_decref(user);
    }
    feature_rows_release(&rows);
    feature_rows_release(&wanted);
}

static void check_refused(const struct profiles *p, const char *text, const char *where)
{
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    struct err e = ERR_INIT;
    char pointer[256];
    bool used;
    json_t *user = json_loads(text, 0, NULL);
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    assert_int_equal(profiles_add_json(p, &rows, user, &scratch, pointer, sizeof pointer, &used, &e), -1);
    assert_string_equal(pointer, where);
    assert_int_equal(rows.n, 0);
    json_decref(user);
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
}

/* The tower needs no id for users to have one. */
static void a_key_that_is_no_feature(void **state)
{
    (void)state;
    struct profiles other = profiles;
    struct feature_rows rows;
    other.key = "customer";
    assert_int_equal(feature_rows_init(&rows, spec), 0);
    json_t *user = json_pack("{s:s, s:O}", "customer", "1007", "user_id", json_object_get(users[7], "user_id"));
    add(&rows, &other, user, knows_more(7, user));
    check_same(&rows, 0, &known, 7);
    json_decref(user);
    check_refused(&other, "{\"customer\":[1]}", "/customer");
    check_refused(&other, "{\"customer\":1.5}", "/customer");
    check_refused(&other, "{\"customer\":1,\"client\":2}", "/client");
    check_refused(&profiles, "{\"customer\":1}", "/customer");
    check_refused(&profiles, "{\"user_id\":1.5}", "/user_id");
    feature_rows_release(&rows);
}

static void without_memory(void **state)
{
    (void)state;
    json_t *user = json_pack("{s:s}", "user_id", "1003");
    int rc = -1;
    for (long n = 1; rc != 0; n++) {
        struct feature_rows rows;
        struct value_scratch scratch = {0};
        struct err e = ERR_INIT;
        char pointer[256];
        bool used;
        assert_int_equal(feature_rows_init(&rows, spec), 0);
        mem_fail_at(n);
        rc = profiles_add_json(&profiles, &rows, user, &scratch, pointer, sizeof pointer, &used, &e);
        mem_fail_at(0);
        assert_int_equal(rows.n, rc == 0 ? 1 : 0);
        value_scratch_release(&scratch);
        feature_rows_release(&rows);
    }
    json_decref(user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_enough),
        cmocka_unit_test(what_is_said_wins),
        cmocka_unit_test(a_stranger_has_no_profile),
        cmocka_unit_test(a_key_that_is_no_feature),
        cmocka_unit_test(without_memory),
    };
    rng_seed(&rng, 3, 4);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
