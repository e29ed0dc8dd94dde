/*
 * A bundle is made file by file, opened, then damaged in every way: as an accident does (checksums no longer match),
 * and as another trainer's bug does (checksums are right, contents are not).
 */
#include "tests/unit/core/model.h"

#include <math.h>
#include <sys/stat.h>

#include "core/bundle.h"
#include "core/topk.h"
#include "core/vecmath.h"

enum { ITEMS = 5, DIM = 4, PROBES = 4, USERS = 2, MANIFEST_ZEROS = FILE_SHA256_HEX - 1 };

static const char *const probe_users[PROBES] = {
    "{\"user_id\":\"42\",\"city\":\"oslo\",\"topics\":\"news|art\",\"age\":33,\"history\":[\"10\",\"30\"]}",
    "{\"user_id\":\"stranger\",\"hashed\":\"x\",\"tags\":\"a,b\",\"gender\":\"f\",\"flags\":[\"a\",\"zz\"],\"spend\":"
    "12.5}",
    "{}",
    "{\"user_id\":\"ann\",\"gender\":\"f\"}",
};

/* What the last of them says with its profile. */
static const char ann[] = "{\"user_id\":\"ann\",\"gender\":\"f\",\"city\":\"paris\",\"age\":25,\"topics\":\"art\","
                          "\"history\":[\"30\",\"x\",\"20\"]}";

/* The files of a bundle, besides the manifest. */
static const char *const files[] = {
    "weights.safetensors",
    "vocab/user.user_id.strings",
    "vocab/user.city.strings",
    "vocab/user.topics.strings",
    "vocab/user.gender.strings",
    "vocab/user.flags.strings",
    "vocab/user.history.strings",
    "vocab/item.item_id.strings",
    "vocab/item.category.strings",
    "items/ids.strings",
    "items/vectors.f32",
    "items/attributes/title.strings",
    "items/attributes/x..y.strings",
    "index/faiss.index",
    "items/popular.u32",
    "users/ids.strings",
    "users/features/city.i32",
    "users/features/age.f32",
    "users/features/topics.bags",
    "users/features/history.bags",
    "probes.json",
};
enum { FILES = sizeof files / sizeof *files };

static char *in(const char *dir, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return scratch(path);
}

/* Without the fsync of file_replace: these tests write thousands of files. */
static void put(const char *dir, const char *name, const void *bytes, size_t n)
{
    unlink(in(dir, name));
    FILE *f = fopen(in(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char *get(const char *dir, const char *name, size_t *n)
{
    struct err e = ERR_INIT;
    char *text = file_read(in(dir, name), 1 << 20, n, &e);
    if (text == NULL) {
        fail_msg("%s", e.message);
    }
    return text;
}

static void put_strings(const char *dir, const char *name, const char *const *strings, size_t n)
{
    struct span spans[16];
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        spans[i] = (struct span){strings[i], strlen(strings[i])};
    }
    strtab_write(&b, spans, n);
    put(dir, name, b.data, b.len);
    buf_release(&b);
}

static void put_vocabularies(const char *dir)
{
    for (size_t i = 0; i < MODEL_VOCABS; i++) {
        char name[100];
        struct buf b = BUF_INIT;
        snprintf(name, sizeof name, "vocab/%s.%s.strings", side_words[model_vocabs[i].side], model_vocabs[i].feature);
        model_vocab_write(&b, &model_vocabs[i]);
        put(dir, name, b.data, b.len);
        buf_release(&b);
    }
}

/* Random weights of both towers, by the names in docs/bundle.md. */
static void put_weights(const char *dir, const struct schema *s, struct rng *r)
{
    struct tensor tensors[40];
    char names[40][120];
    size_t n = 0;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *spec = &s->towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            const struct feature *f = &spec->features[i];
            if (feature_is_embedded(f)) {
                snprintf(names[n], sizeof names[n], "%s.embedding.%s", side_words[side], f->name);
                tensors[n++] = (struct tensor){.rows = f->rows, .columns = f->dim};
            }
        }
        for (uint32_t i = 0; i < spec->layers.n_dense; i++) {
            const struct dense *d = &spec->layers.dense[i];
            snprintf(names[n], sizeof names[n], "%s.%s", side_words[side], d->name);
            tensors[n++] = (struct tensor){.rows = d->rows, .columns = d->columns};
        }
    }
    for (size_t i = 0; i < n; i++) {
        size_t count = tensors[i].rows * (tensors[i].columns > 0 ? tensors[i].columns : 1);
        float *data = mem_array(count, sizeof *data);
        fill_random(r, data, count);
        tensors[i].name = names[i];
        tensors[i].data = data;
    }
    struct err e = ERR_INIT;
    unlink(in(dir, "weights.safetensors"));
    check_ok(&e, safetensors_write(in(dir, "weights.safetensors"), tensors, n, &e));
    for (size_t i = 0; i < n; i++) {
        mem_free((void *)(uintptr_t)tensors[i].data);
    }
}

static json_t *probe_to_json(const char *user, const float *vector, const float *items)
{
    float scores[ITEMS];
    struct scored best[ITEMS];
    json_t *numbers = json_array();
    json_t *list = json_array();
    vec_dot_rows(scores, items, ITEMS, DIM, vector);
    size_t n = topk_naive(best, 3, scores, ITEMS);
    for (int d = 0; d < DIM; d++) {
        json_array_append_new(numbers, json_real((double)vector[d]));
    }
    for (size_t i = 0; i < n; i++) {
        char id[8];
        snprintf(id, sizeof id, "i%u", best[i].row + 1);
        json_array_append_new(list, json_pack("{s:s, s:f}", "id", id, "score", (double)best[i].score));
    }
    return json_pack("{s:o, s:o, s:o}", "user", json_loads(user, 0, NULL), "vector", numbers, "items", list);
}

static void put_json(const char *dir, const char *name, const json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    assert_non_null(text);
    put(dir, name, text, strlen(text));
    free(text);
}

static void put_probes(const char *dir, const struct schema *s, const float *items)
{
    struct err e = ERR_INIT;
    struct file_map map;
    struct tower t;
    struct tower_pass pass;
    struct feature_rows rows;
    struct value_scratch values = {0};
    float vectors[PROBES * DIM];
    char pointer[256];
    check_ok(&e, file_map_open(&map, in(dir, "weights.safetensors"), &e));
    struct safetensors *weights = safetensors_open(map.data, map.size, &e);
    assert_non_null(weights);
    check_ok(&e, tower_bind(&t, &s->towers[SIDE_USER], SIDE_USER, weights, &e));
    check_ok(&e, tower_pass_init(&pass, t.spec, PROBES, &e));
    assert_int_equal(feature_rows_init(&rows, t.spec), 0);
    json_t *list = json_array();
    for (int i = 0; i < PROBES; i++) {
        json_t *user = json_loads(i == PROBES - 1 ? ann : probe_users[i], 0, NULL);
        check_ok(&e, features_add_json(&rows, user, &values, pointer, sizeof pointer, &e));
        json_decref(user);
    }
    tower_embed(&t, s->similarity, &rows, &pass, vectors);
    for (int i = 0; i < PROBES; i++) {
        json_array_append_new(list, probe_to_json(probe_users[i], vectors + i * DIM, items));
    }
    json_t *whole = json_pack("{s:i, s:o}", "k", 3, "probes", list);
    put_json(dir, "probes.json", whole);
    json_decref(whole);
    value_scratch_release(&values);
    feature_rows_release(&rows);
    tower_pass_release(&pass);
    safetensors_free(weights);
    file_map_close(&map);
}

/* Records the files' sizes and checksums in the manifest, fills in the fingerprint, writes it. Takes `manifest`. */
static void seal(const char *dir, json_t *manifest)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    json_t *listed = json_object_get(manifest, "files");
    const char *name;
    json_t *entry;
    void *next;
    char hex[FILE_SHA256_HEX];
    json_object_foreach_safe(listed, next, name, entry)
    {
        uint64_t size;
        struct err e = ERR_INIT;
        check_ok(&e, file_sha256(in(dir, name), hex, &size, &e));
        json_object_set_new(listed, name, json_pack("{s:I, s:s}", "size", (json_int_t)size, "sha256", hex));
    }
    json_object_set_new(manifest, "fingerprint", json_string(zeros));
    char *text = json_dumps(manifest, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
    assert_non_null(text);
    struct err e = ERR_INIT;
    check_ok(&e, manifest_fingerprint(text, strlen(text), hex, &e));
    memcpy(strstr(text, zeros), hex, MANIFEST_ZEROS);
    put(dir, "manifest.json", text, strlen(text));
    free(text);
    json_decref(manifest);
}

static json_t *new_manifest(const struct schema *s)
{
    json_t *listed = json_object();
    for (size_t i = 0; i < FILES; i++) {
        json_object_set_new(listed, files[i], json_null());
    }
    return json_pack("{s:i, s:s, s:o, s:o, s:[s, s], s:{s:s, s:s, s:s, s:i}, s:s, s:{s:s, s:[ssss]}}", "format",
                     BUNDLE_FORMAT, "version", "20261124T133009Z-test", "schema", schema_to_json(s), "files", listed,
                     "attributes", "title", "x..y", "index", "engine", "faiss", "factory", "HNSW32", "file",
                     "index/faiss.index", "effort", 64, "config", "features: [{name: \"fingerprint\"}]", "users", "key",
                     "user_id", "features", "city", "age", "topics", "history");
}

/* Profiles of ann and bob, about whom nothing is known but one item. */
static void put_profiles(const char *dir)
{
    const float age[USERS] = {-1.5f, NAN};
    const int32_t city[USERS] = {3, SCHEMA_MISSING};
    const struct {
        uint64_t start[USERS + 1];
        int32_t values[2];
    } topics = {{0, 1, 2}, {2, 0}}, history = {{0, 3, 4}, {4, 0}};
    const int32_t more[2] = {3, 0};
    char bags[sizeof history + sizeof more];
    memcpy(bags, &history, sizeof history);
    memcpy(bags + sizeof history, more, sizeof more);
    put_strings(dir, "users/ids.strings", (const char *const[]){"ann", "bob"}, USERS);
    put(dir, "users/features/city.i32", city, sizeof city);
    put(dir, "users/features/age.f32", age, sizeof age);
    put(dir, "users/features/topics.bags", &topics, sizeof topics);
    put(dir, "users/features/history.bags", bags, sizeof bags);
}

/* Makes a complete, valid bundle; another seed gives other weights, items and index. */
static void make_bundle(const char *dir, const char *schema, uint64_t seed)
{
    struct err e = ERR_INIT;
    struct model m;
    struct rng r;
    rng_seed(&r, seed, 30);
    check_ok(&e, dir_remove_tree(scratch(dir), &e));
    const char *const folders[] = {"vocab", "items/attributes", "index", "users/features"};
    for (int i = 0; i < 4; i++) {
        check_ok(&e, dir_create(in(dir, folders[i]), &e));
    }
    model_init(&m, schema);
    put_vocabularies(dir);
    put_weights(dir, &m.schema, &r);
    float items[ITEMS * DIM];
    fill_random(&r, items, ITEMS * DIM);
    if (m.schema.similarity == SIMILARITY_COSINE) {
        vec_normalize_rows(items, ITEMS, DIM, NULL);
    }
    put(dir, "items/vectors.f32", items, sizeof items);
    put_strings(dir, "items/ids.strings", (const char *const[]){"i1", "i2", "i3", "i4", "i5"}, ITEMS);
    char title[32];
    snprintf(title, sizeof title, "\"title %d\"", (int)seed);
    put_strings(dir, "items/attributes/title.strings",
                (const char *const[]){title, "null", "\"\\u00e9\"", "12", "-0.5e3"}, ITEMS);
    put_strings(dir, "items/attributes/x..y.strings",
                (const char *const[]){"true", "[\"a\", 1]", "0", seed == 1 ? "\"h\xc3\xa9\"" : "false", "123456789012"},
                ITEMS);
    uint64_t index = rng_u64(&r);
    put(dir, "index/faiss.index", &index, sizeof index);
    const struct bundle_popular popular[ITEMS] = {{3, 9}, {0, 4}, {1, 4}, {4, 4}, {2, 0}};
    put(dir, "items/popular.u32", popular, sizeof popular);
    put_profiles(dir);
    put_probes(dir, &m.schema, items);
    seal(dir, new_manifest(&m.schema));
    model_release(&m);
}

/* --- checks --------------------------------------------------------------------------------------------------------*/

static void check_opens(const char *dir)
{
    struct err e = ERR_INIT;
    struct bundle *b = bundle_open(scratch(dir), &e);
    if (b == NULL) {
        fail_msg("refused: %s", e.message);
    }
    bundle_free(b);
}

static void check_refused(const char *dir, const char *words)
{
    struct err e = ERR_INIT;
    struct bundle *b = bundle_open(scratch(dir), &e);
    if (b != NULL) {
        fail_msg("opened, although: %s", words);
    }
    check_error(&e, words);
    check_error(&e, scratch(dir));
}

static json_t *read_manifest(const char *dir)
{
    size_t n;
    char *text = get(dir, "manifest.json", &n);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    mem_free(text);
    return json;
}

static void reseal(const char *dir)
{
    seal(dir, read_manifest(dir));
}

static void a_valid_bundle_opens(void **state)
{
    (void)state;
    make_bundle("good", MODEL_JSON("cosine"), 1);
    struct err e = ERR_INIT;
    struct bundle *b = bundle_open(scratch("good"), &e);
    if (b == NULL) {
        fail_msg("%s", e.message);
    }
    assert_string_equal(b->version, "20261124T133009Z-test");
    assert_int_equal(b->n_items, ITEMS);
    assert_int_equal(b->dim, DIM);
    assert_int_equal(strtab_find(&b->item_ids, "i3", 2), 2);
    check_near((double)vec_norm(b->item_vectors, DIM), 1, 1, 1e-6);
    assert_int_equal(b->n_attributes, 2);
    assert_string_equal(b->attributes[1].name, "x..y");
    size_t n;
    assert_memory_equal(strtab_get(&b->attributes[0].values, 0, &n), "\"title 1\"", 9);
    assert_string_equal(b->index_engine, "faiss");
    assert_string_equal(b->index_factory, "HNSW32");
    assert_int_equal(b->index_effort, 64);
    assert_string_equal(b->index_path, in("good", "index/faiss.index"));
    assert_int_equal(strlen(b->fingerprint), MANIFEST_ZEROS);
    bundle_free(b);
    bundle_free(NULL);
    make_bundle("dot", MODEL_JSON("dot"), 1);
    check_opens("dot");
}

static void links_and_extra_files_are_fine(void **state)
{
    (void)state;
    make_bundle("extra", MODEL_JSON("cosine"), 1);
    put("extra", "notes.txt", "hello", 5);
    put("extra", "vocab/user.nobody.strings", "garbage", 7);
    check_opens("extra");
    assert_int_equal(symlink("extra", scratch("current")), 0);
    struct err e = ERR_INIT;
    struct bundle *b = bundle_open(scratch("current"), &e);
    assert_non_null(b);
    assert_string_equal(b->dir, scratch("extra")); /* the real path: a link that moves on does not move us */
    bundle_free(b);
    check_refused("absent", "no bundle there");
    assert_int_equal(symlink("nothing", scratch("dangling")), 0);
    check_refused("dangling", "no bundle there");
    check_refused("extra/notes.txt", "manifest.json");
    check_refused("extra/vocab", "manifest.json");
}

/* Accidents: every file with one byte changed, cut, missing, of another bundle, or no file. */
static void damaged_files_are_refused(void **state)
{
    (void)state;
    make_bundle("d", MODEL_JSON("cosine"), 1);
    make_bundle("other", MODEL_JSON("dot"), 2);
    for (size_t f = 0; f <= FILES; f++) {
        const char *name = f < FILES ? files[f] : "manifest.json";
        size_t n;
        char *good = get("d", name, &n);
        char *bad = mem_strndup(good, n);
        size_t step = n > 100 ? n / 100 : 1;
        for (size_t i = 0; i < n; i += step) {
            bad[i] = (char)(bad[i] ^ (1 << i % 8));
            put("d", name, bad, n);
            check_refused("d", name);
            bad[i] = good[i];
        }
        for (size_t i = 0; i < n; i += (n + 19) / 20) {
            put("d", name, good, i);
            check_refused("d", name);
        }
        bad[n] = '\n';
        put("d", name, bad, n + 1);
        check_refused("d", name);
        unlink(in("d", name));
        check_refused("d", name);
        assert_int_equal(mkfifo(in("d", name), 0600), 0);
        check_refused("d", name);
        unlink(in("d", name));
        struct err e = ERR_INIT;
        check_ok(&e, dir_create(in("d", name), &e));
        check_refused("d", name);
        check_ok(&e, dir_remove_tree(in("d", name), &e));
        size_t m;
        char *others = get("other", name, &m);
        put("d", name, others, m);
        bool same = m == n && memcmp(good, others, n) == 0;
        if (same) {
            check_opens("d"); /* the vocabularies of both bundles are equal */
        } else if (f < FILES) {
            check_refused("d", name);
        } else {
            check_refused("d", "does not match the manifest"); /* a foreign manifest vouches for foreign files */
        }
        put("d", name, good, n);
        mem_free(others);
        mem_free(bad);
        mem_free(good);
    }
    check_opens("d");
}

/* Bugs of another trainer: contents change and the manifest vouches for them. Refused or usable, never a crash. */
static void resealed_mutations_never_crash(void **state)
{
    (void)state;
    make_bundle("m", MODEL_JSON("dot"), 1);
    struct rng r;
    rng_seed(&r, 31, 0);
    long opened = 0;
    long refused = 0;
    for (size_t f = 0; f < FILES; f++) {
        size_t n;
        char *good = get("m", files[f], &n);
        for (int round = 0; round < 60; round++) {
            char *bad = mem_strndup(good, n);
            for (uint32_t flips = 1 + rng_below(&r, 2); flips > 0; flips--) {
                bad[rng_below(&r, (uint32_t)n)] = (char)rng_below(&r, 1 + rng_below(&r, 256));
            }
            put("m", files[f], bad, round % 4 == 3 ? rng_below(&r, (uint32_t)n) : n);
            reseal("m");
            struct err e = ERR_INIT;
            struct bundle *b = bundle_open(scratch("m"), &e);
            opened += b != NULL;
            refused += b == NULL;
            if (b == NULL && strstr(e.message, files[f]) == NULL && strstr(e.message, "probes.json") == NULL) {
                fail_msg("%s changed, but: %s", files[f], e.message);
            }
            bundle_free(b);
            mem_free(bad);
        }
        put("m", files[f], good, n);
        mem_free(good);
    }
    assert_true(refused > opened && opened > 0);
    reseal("m");
    check_opens("m");
}

/* Sets a member ("index.effort": in an object below) of a good manifest, seals, and expects a refusal. */
static void check_member(const char *path, const char *json, const char *words)
{
    json_t *manifest = read_manifest("p");
    json_t *object = manifest;
    const char *key = path;
    char outer[64];
    for (const char *dot; (dot = strchr(key, '>')) != NULL; key = dot + 1) {
        snprintf(outer, sizeof outer, "%.*s", (int)(dot - key), key);
        object = json_object_get(object, outer);
        assert_non_null(object);
    }
    json_t *kept = json_deep_copy(manifest);
    if (json == NULL) {
        assert_int_equal(json_object_del(object, key), 0);
    } else {
        json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(object, key, value);
    }
    seal("p", manifest);
    check_refused("p", words);
    seal("p", kept);
}

static void bad_members_are_refused(void **state)
{
    (void)state;
    make_bundle("p", MODEL_JSON("cosine"), 1);
    const char *const cases[][3] = {
        {"format", NULL, "format 0"},
        {"format", "2", "bundle format 2; this program reads format 1"},
        {"format", "\"1\"", "format"},
        {"version", NULL, "\"version\""},
        {"version", "5", "\"version\""},
        {"version", "\"\"", "\"version\""},
        {"version", "\"../x\"", "\"version\""},
        {"version", "\"a\\nb\"", "\"version\""},
        {"schema", NULL, "manifest.json: schema: must be an object"},
        {"schema", "[]", "manifest.json: schema: must be an object"},
        {"schema>similarity", "\"l2\"", "manifest.json: schema: bad or missing \"similarity\""},
        {"schema>user_tower", NULL, "manifest.json: user_tower"},
        {"schema>user_tower>network", "{\"type\":\"none\"}", "manifest.json: schema: the user tower gives"},
        {"schema>user_tower>network", "{\"type\":\"mlp\",\"layers\":[6,4]}",
         "weights.safetensors: tensor user.network.0"},
        {"schema>item_tower>features", "[{\"name\":\"new\",\"type\":\"id\",\"dim\":4}]", "vocab/item.new.strings"},
        {"attributes", "{}", "\"attributes\""},
        {"attributes", "[5]", "attributes[0]"},
        {"attributes", "[\"\"]", "attributes[0]"},
        {"attributes", "[\"title\",\"title\"]", "attributes[1]"},
        {"attributes", "[\"../title\"]", "attributes[0]"},
        {"attributes", "[\"price\"]", "does not list items/attributes/price.strings"},
        {"index", NULL, "\"engine\""},
        {"index", "\"faiss\"", "\"engine\""},
        {"index>engine", NULL, "\"engine\""},
        {"index>engine", "5", "\"engine\""},
        {"index>factory", "5", "\"factory\""},
        {"index>file", "5", "\"file\""},
        {"index>file", "\"index/other.index\"", "index/other.index"},
        {"index>effort", "\"64\"", "\"effort\""},
        {"index>effort", "-1", "\"effort\""},
        {"index>effort", "3000000000", "\"effort\""},
        {"users", "[]", "users: must have a \"key\""},
        {"users>key", NULL, "\"key\""},
        {"users>key", "\"\"", "\"key\""},
        {"users>key", "\"a/b\"", "\"key\""},
        {"users>key", "\"city\"", "features[0]"},
        {"users>features", NULL, "\"features\""},
        {"users>features", "[5]", "features[0]"},
        {"users>features", "[\"age\",\"price\"]", "features[1]"},
        {"users>features", "[\"user_id\"]", "features[0]"},
        {"users>features", "[\"age\",\"city\",\"age\"]", "features[2]: age is there twice"},
        {"users>features", "[\"spend\"]", "does not list users/features/spend.f32"},
        {"users>features", "[\"age\"]", "probes.json"},
        {"files>users/ids.strings", NULL, "users/ids.strings"},
        {"files>users/features/age.f32", NULL, "users/features/age.f32"},
        {"files>probes.json", NULL, "probes.json"},
        {"files>items/ids.strings", NULL, "items/ids.strings"},
        {"files>items/vectors.f32", NULL, "items/vectors.f32"},
        {"files>weights.safetensors", NULL, "weights.safetensors"},
        {"files>index/faiss.index", NULL, "index/faiss.index"},
        {"files>vocab/user.city.strings", NULL, "vocab/user.city.strings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_member(cases[i][0], cases[i][1], cases[i][2]);
    }
    check_opens("p");
}

/* Writes a manifest as text, with a right fingerprint where `text` has @. */
static void put_manifest_text(const char *dir, const char *text)
{
    char hex[FILE_SHA256_HEX];
    struct buf b = BUF_INIT;
    for (const char *p = text; *p != '\0'; p++) {
        buf_puts(&b, *p == '@' ? "0000000000000000000000000000000000000000000000000000000000000000" : "");
        buf_add(&b, p, *p != '@');
    }
    bytes_sha256(b.data, b.len, hex);
    const char *at = strchr(text, '@');
    if (at != NULL) {
        memcpy(b.data + (at - text), hex, MANIFEST_ZEROS);
    }
    put(dir, "manifest.json", b.data, b.len);
    buf_release(&b);
}

static void bad_file_lists_are_refused(void **state)
{
    (void)state;
    make_bundle("l", MODEL_JSON("cosine"), 1);
    const char *const cases[][2] = {
        {"5", "\"files\" must be an object"},
        {"[]", "\"files\" must be an object"},
        {"{\"probes.json\":5}", "bad entry for file \"probes.json\""},
        {"{\"probes.json\":{\"size\":\"1\",\"sha256\":\"x\"}}", "bad entry for file \"probes.json\""},
        {"{\"probes.json\":{\"size\":1}}", "bad entry for file \"probes.json\""},
        {"{\"probes.json\":{\"size\":-1,\"sha256\":\"x\"}}", "probes.json"},
        {"{\"probes.json\":{\"size\":99999999999999999,\"sha256\":\"x\"}}", "probes.json"},
        {"{\"\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"..\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"a/../../b\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"./probes.json\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"a//b\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"vocab/\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"/etc/passwd\":{\"size\":1,\"sha256\":\"x\"}}", "bad entry"},
        {"{\"vocab\":{\"size\":1,\"sha256\":\"x\"}}", "not a regular file"},
        {"{}", "does not list"},
    };
    json_t *manifest = read_manifest("l");
    json_object_del(manifest, "files");
    json_object_del(manifest, "fingerprint");
    char *rest = json_dumps(manifest, JSON_COMPACT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = BUF_INIT;
        buf_printf(&b, "{\"fingerprint\":\"@\",\"files\":%s,%s", cases[i][0], rest + 1);
        put_manifest_text("l", b.data);
        check_refused("l", cases[i][1]);
        buf_release(&b);
    }
    free(rest);
    json_decref(manifest);
}

static void bad_manifest_texts_are_refused(void **state)
{
    (void)state;
    make_bundle("t", MODEL_JSON("cosine"), 1);
    const char *const cases[][2] = {
        {"", "manifest.json: not a JSON object"},
        {"[]", "manifest.json: not a JSON object"},
        {"{", "manifest.json: not a JSON object"},
        {"{\"format\":1}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":5}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":\"\"}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":\"@0\"}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
         "does not match"},
        {"{\"format\":1,\"inner\":{\"fingerprint\":\"@\"}}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":\"@\",\"fingerprint\":\"@\"}", "duplicate"},
        {"{\"format\":1,\"fingerprint\":\"@\",\"\\u0066ingerprint\":\"x\"}", "duplicate"},
        {"{\"format\":1,\"\\u0066ingerprint\":\"@\"}", "\"fingerprint\""},
        {"{\"format\":1,\"fingerprint\":\"@\"}", "\"version\""}, /* the fingerprint itself is right */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_manifest_text("t", cases[i][0]);
        check_refused("t", cases[i][1]);
    }
    char *deep = mem_array(100001, 1);
    memset(deep, '[', 100000);
    put("t", "manifest.json", deep, 100000);
    check_refused("t", "manifest.json");
    mem_free(deep);
}

/* The word may occur anywhere: as a value, an inner key, in texts with every kind of quoting before it. */
static void the_word_fingerprint_elsewhere(void **state)
{
    (void)state;
    const char *const others[] = {
        "\"config\": \"see \\\"fingerprint\\\": \\\"x\\\"\"",
        "\"config\": \"ends with \\\"fingerprint\"",
        "\"config\": \"fingerprint\"",
        "\"config\": \"\\\\\", \"a\": \"\\\\\\\"fingerprint\"",
        "\"metrics\": {\"fingerprint\": \"0000000000000000000000000000000000000000000000000000000000000000\"}",
        "\"list\": [\"fingerprint\", {\"fingerprint\" : 1}]",
        "\"braces\": \"}}}]]{\"",
        "\"fingerprints\": 1, \"a fingerprint\": 2",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        for (int before = 0; before < 2; before++) {
            struct buf b = BUF_INIT;
            char wanted[FILE_SHA256_HEX], got[FILE_SHA256_HEX];
            struct err e = ERR_INIT;
            buf_printf(
                &b,
                "{%s%s \"fingerprint\" :\n\t\"0000000000000000000000000000000000000000000000000000000000000000\"%s%s}",
                before ? others[i] : "", before ? "," : "", before ? "" : ",", before ? "" : others[i]);
            json_t *json = json_loads(b.data, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(json);
            bytes_sha256(b.data, b.len, wanted);
            check_ok(&e, manifest_fingerprint(b.data, b.len, got, &e));
            assert_string_equal(got, wanted);
            char *exact = malloc(b.len); /* not '\0'-terminated */
            assert_non_null(exact);
            for (size_t n = 0; n <= b.len; n++) { /* cut anywhere: a refusal or a number, no overread */
                memcpy(exact, b.data, n);
                manifest_fingerprint(exact, n, got, NULL);
            }
            free(exact);
            json_decref(json);
            buf_release(&b);
        }
    }
    /* and the whole way: a feature, an attribute and a metric of that name */
    make_bundle("w", MODEL_JSON("cosine"), 1);
    json_t *manifest = read_manifest("w");
    put_strings("w", "items/attributes/fingerprint.strings", (const char *const[]){"1", "2", "3", "4", "5"}, ITEMS);
    json_object_set_new(json_object_get(manifest, "files"), "items/attributes/fingerprint.strings", json_null());
    json_array_append_new(json_object_get(manifest, "attributes"), json_string("fingerprint"));
    json_object_set_new(manifest, "metrics", json_pack("{s:f}", "fingerprint", 0.5));
    json_object_set_new(manifest, "config", json_string("name: \"fingerprint"));
    seal("w", manifest);
    check_opens("w");
}

/* --- contents that the manifest vouches for ------------------------------------------------------------------------*/

static void check_replaced(const char *name, const void *bytes, size_t n, const char *words)
{
    size_t kept_size;
    char *kept = get("c", name, &kept_size);
    put("c", name, bytes, n);
    reseal("c");
    check_refused("c", words);
    put("c", name, kept, kept_size);
    reseal("c");
    mem_free(kept);
}

static void check_strings_replaced(const char *name, const char *const *strings, size_t n, const char *words)
{
    size_t kept_size;
    char *kept = get("c", name, &kept_size);
    put_strings("c", name, strings, n);
    reseal("c");
    check_refused("c", words);
    put("c", name, kept, kept_size);
    reseal("c");
    mem_free(kept);
}

static void contents_must_agree(void **state)
{
    (void)state;
    make_bundle("c", MODEL_JSON("cosine"), 1);
    float v[ITEMS * DIM];
    size_t n;
    char *vectors = get("c", "items/vectors.f32", &n);
    assert_int_equal(n, sizeof v);
    const float bad[] = {NAN, INFINITY, 0.9f};
    for (size_t i = 0; i < ITEMS * DIM; i += 3) {
        for (int k = 0; k < 3; k++) {
            memcpy(v, vectors, n);
            v[i] = bad[k];
            char row[40];
            snprintf(row, sizeof row, "items/vectors.f32: row %zu", i / DIM);
            check_replaced("items/vectors.f32", v, n, row);
        }
    }
    check_replaced("items/vectors.f32", vectors, n - 4, "items/vectors.f32");
    check_replaced("items/vectors.f32", vectors, 0, "items/vectors.f32");
    mem_free(vectors);
    check_replaced("weights.safetensors", "", 0, "weights.safetensors");
    check_replaced("weights.safetensors", "\0\0\0\0\0\0\0\0", 8, "weights.safetensors");
    check_replaced("items/ids.strings", "", 0, "items/ids.strings");
    check_replaced("vocab/user.city.strings", "RECSTR1\n", 8, "vocab/user.city.strings");
    const unsigned char huge[40] = "RECSTR1\n\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0";
    check_replaced("items/ids.strings", huge, sizeof huge, "items/ids.strings: string table");
    const char *const six[] = {"a", "b", "c", "d", "e", "f"};
    const char *const five[] = {"a", "b", "c", "d", "f"}; /* the right number, other ids: the probes notice */
    const char *const no_text[] = {"i1", "i2", "i3", "i4", "i5\xc3"};
    const char *const no_id[] = {"", "i2", "i3", "i4", "i5"};
    const char *const unsorted[] = {"i1", "i2", "i4", "i3", "i5"};
    check_strings_replaced("items/ids.strings", six, 6, "items/vectors.f32");
    check_strings_replaced("items/ids.strings", six, 0, "items/ids.strings: 0 items");
    check_strings_replaced("items/ids.strings", five, 5, "probes.json");
    check_strings_replaced("items/ids.strings", no_text, 5, "items/ids.strings: row 4: not valid UTF-8");
    check_strings_replaced("items/ids.strings", no_id, 5, "items/ids.strings: row 0: an empty id");
    check_strings_replaced("items/ids.strings", unsorted, 5, "items/ids.strings: string table");
    check_strings_replaced("vocab/user.city.strings", six, 3, "weights.safetensors: tensor user.embedding.city");
    check_strings_replaced("vocab/user.gender.strings", six, 3, "weights.safetensors: tensor user.network.0.weight");
    check_strings_replaced("items/attributes/title.strings", six, 5, "items/attributes/title.strings: row 0");
    check_strings_replaced("items/attributes/title.strings", six, 4, "items/attributes/title.strings: 4 values for 5");
    const char *const no_json[] = {"",    "nul", "\"",       "\"a", "a\"", "\"a\"b\"", "01",     "0x1",     "1 2",
                                   "'a'", "[1",  "{\"a\":}", "NaN", "-",   "\"\\\"",   "\"\n\"", "\"\xff\""};
    for (size_t i = 0; i < sizeof no_json / sizeof *no_json; i++) {
        const char *values[5] = {"1", "null", "\"x\"", "2", no_json[i]};
        check_strings_replaced("items/attributes/title.strings", values, 5, "items/attributes/title.strings: row 4");
    }
    check_opens("c");
}

static void check_bags(const uint64_t *start, size_t n_starts, const int32_t *values, size_t n, const char *words)
{
    char bytes[200];
    memcpy(bytes, start, n_starts * sizeof *start);
    memcpy(bytes + n_starts * sizeof *start, values, n * sizeof *values);
    check_replaced("users/features/history.bags", bytes, n_starts * sizeof *start + n * sizeof *values, words);
}

static void profiles_must_agree(void **state)
{
    (void)state;
    make_bundle("c", MODEL_JSON("cosine"), 1);
    const char *const three[] = {"ann", "bob", "eve"};
    const char *const others[] = {"abe", "bob"};
    const char *const unsorted[] = {"bob", "ann"};
    check_strings_replaced("users/ids.strings", three, 3, "users/features/city.i32: 8 bytes, but 3 users make 12");
    check_strings_replaced("users/ids.strings", unsorted, 2, "users/ids.strings: string table");
    check_strings_replaced("users/ids.strings", others, 2, "probes.json: /probes/3/vector"); /* nobody knows ann now */
    const int32_t rows[][2] = {{4, 0}, {-1, 0}, {0, INT32_MAX}, {0, INT32_MIN}};
    for (size_t i = 0; i < 4; i++) {
        check_replaced("users/features/city.i32", rows[i], sizeof rows[i], "users/features/city.i32: value");
    }
    check_replaced("users/features/city.i32", rows[0], 4, "users/features/city.i32: 4 bytes");
    const float numbers[][2] = {{10.1f, 0}, {0, -11}, {INFINITY, 0}, {0, -INFINITY}};
    for (size_t i = 0; i < 4; i++) {
        check_replaced("users/features/age.f32", numbers[i], sizeof numbers[i], "users/features/age.f32: row");
    }
    check_replaced("users/features/age.f32", "", 0, "users/features/age.f32: 0 bytes");
    const int32_t some[] = {4, 0, 3, 0, 2};
    check_bags((const uint64_t[]){0, 3, 5}, 3, some, 4, "history.bags: offsets must begin with 0 and end with 4");
    check_bags((const uint64_t[]){1, 3, 4}, 3, some, 4, "history.bags: offsets must begin with 0");
    check_bags((const uint64_t[]){0, 5, 4}, 3, some, 4, "history.bags: user 0 has more");
    check_bags((const uint64_t[]){0, UINT64_MAX, 4}, 3, some, 4, "history.bags: user 0 has more");
    check_bags((const uint64_t[]){0, 4, 4}, 3, some, 4, "history.bags: user 0 has more than the last 3");
    check_bags((const uint64_t[]){0, 3}, 2, some, 1, "history.bags: 20 bytes");
    check_bags((const uint64_t[]){0, 3, 4}, 3, (const int32_t[]){4, 5, 3, 0}, 4, "history.bags: value 1: 5");
    check_bags((const uint64_t[]){0, 3, 4}, 3, (const int32_t[]){4, 0, 3, SCHEMA_MISSING}, 4,
               "history.bags: value 3: 1");
    const uint64_t falling[] = {0, 2, 1};
    check_replaced("users/features/topics.bags", falling, sizeof falling, "topics.bags: offsets must");
    check_opens("c");
}

static void popular_items_are_a_permutation(void **state)
{
    (void)state;
    make_bundle("c", MODEL_JSON("cosine"), 1);
    const struct {
        struct bundle_popular list[ITEMS];
        const char *words;
    } cases[] = {
        {{{3, 9}, {0, 4}, {1, 4}, {4, 5}, {2, 0}}, "items/popular.u32: entry 3 has more events"},
        {{{3, 9}, {0, 4}, {1, 4}, {3, 4}, {2, 0}}, "items/popular.u32: entry 3: row 3"},
        {{{3, 9}, {0, 4}, {5, 4}, {4, 4}, {2, 0}}, "items/popular.u32: entry 2: row 5"},
        {{{UINT32_MAX, 9}, {0, 4}, {1, 4}, {4, 4}, {2, 0}}, "items/popular.u32: entry 0: row 4294967295"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_replaced("items/popular.u32", cases[i].list, sizeof cases[i].list, cases[i].words);
    }
    check_replaced("items/popular.u32", cases[0].list, 8 * (ITEMS - 1),
                   "items/popular.u32: 32 bytes, but 5 items make 40");
    check_replaced("items/popular.u32", "", 0, "items/popular.u32: 0 bytes");
    check_opens("c");
}

/* Replaces a value inside probes.json: "0/vector/2" style paths into the list of probes. */
static void check_probe(size_t probe, const char *member, size_t element, const char *key, const char *json,
                        const char *words)
{
    size_t n;
    char *text = get("c", "probes.json", &n);
    json_t *whole = json_loads(text, 0, NULL);
    json_t *p = json_array_get(json_object_get(whole, "probes"), probe);
    json_t *value = json == NULL ? NULL : json_loads(json, JSON_DECODE_ANY, NULL);
    if (key != NULL) {
        json_object_set_new(json_array_get(json_object_get(p, member), element), key, value);
    } else if (element != SIZE_MAX) {
        json_array_set_new(json_object_get(p, member), element, value);
    } else if (value == NULL) {
        json_object_del(p, member);
    } else {
        json_object_set_new(p, member, value);
    }
    put_json("c", "probes.json", whole);
    reseal("c");
    if (words == NULL) {
        check_opens("c");
    } else {
        check_refused("c", words);
    }
    put("c", "probes.json", text, n);
    json_decref(whole);
    mem_free(text);
}

static void probes_must_match(void **state)
{
    (void)state;
    const size_t whole = SIZE_MAX;
    make_bundle("c", MODEL_JSON("cosine"), 1);
    check_probe(0, "vector", 0, NULL, "5.0", "probes.json: /probes/0/vector/0");
    check_probe(2, "vector", 3, NULL, "null", "probes.json: /probes/2/vector/3");
    check_probe(2, "vector", 3, NULL, "\"0.1\"", "probes.json: /probes/2/vector/3");
    check_probe(1, "vector", whole, NULL, "[1,0,0]", "probes.json: /probes/1");
    check_probe(1, "vector", whole, NULL, NULL, "probes.json: /probes/1");
    check_probe(1, "items", whole, NULL, NULL, "probes.json: /probes/1");
    check_probe(1, "items", whole, NULL, "[]", "probes.json: /probes/1");
    check_probe(1, "items", 0, "id", "\"i9\"", "probes.json: /probes/1/items/0");
    check_probe(1, "items", 0, "id", "5", "probes.json: /probes/1/items/0");
    check_probe(1, "items", 2, "score", "0.5", "probes.json: /probes/1/items/2");
    check_probe(1, "items", 2, "score", "\"x\"", "probes.json: /probes/1/items/2");
    check_probe(1, "items", 2, NULL, "{}", "probes.json: /probes/1/items/2");
    check_probe(0, "user", whole, NULL, "{\"user_id\":\"1\"}", "probes.json: /probes/0/vector");
    check_probe(0, "user", whole, NULL, "{\"age\":\"x\"}", "probes.json: /probes/0/user/age: must be a finite number");
    check_probe(0, "user", whole, NULL, "{\"nobody\":1}", "probes.json: /probes/0/user/nobody");
    check_probe(0, "user", whole, NULL, NULL, "probes.json: /probes/0/user");
    check_probe(0, "comment", whole, NULL, "\"others may add members\"", NULL);
    const char *const texts[] = {"",
                                 "[]",
                                 "{}",
                                 "{\"k\":3}",
                                 "{\"k\":0,\"probes\":[{}]}",
                                 "{\"k\":101,\"probes\":[{}]}",
                                 "{\"k\":3,\"probes\":[]}",
                                 "{\"k\":3,\"probes\":[5]}",
                                 "{\"k\":\"3\",\"probes\":[{}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check_replaced("probes.json", texts[i], strlen(texts[i]), "probes.json");
    }
    check_opens("c");
}

/* Vectors of length 1000 or 0.001: the tolerance follows them, it neither refuses rounding nor accepts nonsense. */
static void probes_of_any_length(void **state)
{
    (void)state;
    const float scales[] = {1e3f, 1e-3f};
    for (int i = 0; i < 2; i++) {
        make_bundle("c", MODEL_JSON("dot"), 3);
        float items[ITEMS * DIM];
        size_t n;
        char *vectors = get("c", "items/vectors.f32", &n);
        memcpy(items, vectors, n);
        mem_free(vectors);
        vec_scale(items, scales[i], ITEMS * DIM);
        put("c", "items/vectors.f32", items, sizeof items);
        struct model m;
        model_init(&m, MODEL_JSON("dot"));
        put_probes("c", &m.schema, items);
        model_release(&m);
        reseal("c");
        check_opens("c");
        for (int d = 0; d < DIM; d++) {
            items[d] *= 1.01f;
            items[DIM + d] *= 1.01f;
            items[2 * DIM + d] *= 1.01f;
        }
        check_replaced("items/vectors.f32", items, sizeof items, "probes.json");
    }
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    make_bundle("n", MODEL_JSON("cosine"), 1);
    char *path = mem_strdup(scratch("n"));
    long n = 1;
    for (struct bundle *b = NULL; b == NULL; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        b = bundle_open(path, &e);
        mem_fail_at(0);
        assert_int_equal(b == NULL, err_isset(&e));
        if (b == NULL) {
            check_error(&e, "out of memory");
        }
        bundle_free(b);
    }
    assert_true(n > 50);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_bundle_opens),
        cmocka_unit_test(links_and_extra_files_are_fine),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(resealed_mutations_never_crash),
        cmocka_unit_test(bad_members_are_refused),
        cmocka_unit_test(bad_file_lists_are_refused),
        cmocka_unit_test(bad_manifest_texts_are_refused),
        cmocka_unit_test(the_word_fingerprint_elsewhere),
        cmocka_unit_test(contents_must_agree),
        cmocka_unit_test(profiles_must_agree),
        cmocka_unit_test(popular_items_are_a_permutation),
        cmocka_unit_test(probes_must_match),
        cmocka_unit_test(probes_of_any_length),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
