#include "core/schema.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"

const char *const side_words[] = {"user", "item", NULL};
const char *const feature_type_words[] = {"id", "categorical", "onehot", "numeric", "sequence", NULL};
const char *const feature_transform_words[] = {"standardize", "log", "bucketize", NULL};
const char *const feature_pooling_words[] = {"mean", "sum", "sqrtn", "recency", NULL};
const char *const similarity_words[] = {"dot", "cosine", NULL};

int word_find(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0) {
            return i;
        }
    }
    return -1;
}

bool feature_is_embedded(const struct feature *f)
{
    return f->type == FEATURE_ID || f->type == FEATURE_CATEGORICAL || f->type == FEATURE_SEQUENCE ||
           (f->type == FEATURE_NUMERIC && f->transform == TRANSFORM_BUCKETIZE);
}

bool feature_is_bag(const struct feature *f)
{
    return f->type == FEATURE_SEQUENCE || f->multi != '\0';
}

bool feature_has_vocab(const struct feature *f)
{
    return f->type == FEATURE_ID || f->type == FEATURE_ONEHOT || f->type == FEATURE_SEQUENCE ||
           (f->type == FEATURE_CATEGORICAL && f->buckets == 0);
}

bool feature_vocab_file(const struct feature *f, enum side side, char name[SCHEMA_MAX_NAME + 32])
{
    snprintf(name, SCHEMA_MAX_NAME + 32, "vocab/%s.%s.strings", side_words[side], f->name);
    return feature_has_vocab(f) && !f->shared;
}

int tower_spec_find(const struct tower_spec *spec, const char *name)
{
    for (uint32_t i = 0; i < spec->n_features; i++) {
        if (strcmp(spec->features[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static uint32_t count_rows(const struct feature *f)
{
    if (f->type == FEATURE_NUMERIC) {
        return f->transform == TRANSFORM_BUCKETIZE ? SCHEMA_FIRST + f->n_bounds + 1 : 0;
    }
    return SCHEMA_FIRST + (feature_has_vocab(f) ? (uint32_t)f->vocab.count : f->buckets);
}

/* The item tower's only feature of type id, or NULL. */
static const struct feature *find_item_id(const struct tower_spec *items)
{
    const struct feature *found = NULL;
    for (uint32_t i = 0; i < items->n_features; i++) {
        if (items->features[i].type == FEATURE_ID) {
            if (found != NULL) {
                return NULL;
            }
            found = &items->features[i];
        }
    }
    return found;
}

/* Whose embedding table a feature reads. */
static int finish_tables(struct schema *s, enum side side, struct err *e)
{
    const struct feature *id = find_item_id(&s->towers[SIDE_ITEM]);
    for (uint32_t i = 0; i < s->towers[side].n_features; i++) {
        struct feature *f = &s->towers[side].features[i];
        enum side owner = f->shared ? SIDE_ITEM : side;
        if (f->shared && id == NULL) {
            return err_set(e,
                           "%s feature %s: shared reads the embeddings of the item tower's feature of type id, and "
                           "there must be exactly one",
                           side_words[side], f->name);
        }
        if (f->shared) {
            f->dim = id->dim;
            f->vocab = id->vocab;
        }
        if (feature_is_embedded(f)) {
            snprintf(f->table, sizeof f->table, "%s.embedding.%s", side_words[owner], f->shared ? id->name : f->name);
        }
    }
    return 0;
}

static int finish_tower(struct tower_spec *spec, const char *side, struct err *e)
{
    uint64_t width = 0;
    for (uint32_t i = 0; i < spec->n_features; i++) {
        struct feature *f = &spec->features[i];
        if (feature_has_vocab(f) && f->vocab.count > INT32_MAX - SCHEMA_FIRST) {
            return err_set(e, "%s feature %s: more than 2^31 values; use buckets to hash them", side, f->name);
        }
        f->rows = count_rows(f);
        f->offset = (uint32_t)width;
        f->width = feature_is_embedded(f) ? f->dim : f->type == FEATURE_ONEHOT ? f->rows : 2;
        width += f->width;
        if (width > 1 << 20) {
            return err_set(
                e,
                "%s feature %s: the tower's input grows beyond 2^20 columns; onehot is for a few values, use "
                "categorical with a dim",
                side, f->name);
        }
    }
    spec->input_width = (uint32_t)width;
    if (network_build(&spec->layers, &spec->network, spec->input_width, e) < 0) {
        return err_prefix(e, "%s tower", side);
    }
    spec->output_dim = spec->layers.output_width;
    if (spec->output_dim == 0 || spec->output_dim > SCHEMA_MAX_DIM) {
        return err_set(e, "the %s tower's vector has %u dimensions; 1 to %d are possible", side, spec->output_dim,
                       SCHEMA_MAX_DIM);
    }
    return 0;
}

int schema_finish(struct schema *s, struct err *e)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        if (finish_tables(s, (enum side)side, e) < 0 || finish_tower(&s->towers[side], side_words[side], e) < 0) {
            return -1;
        }
    }
    uint32_t user = s->towers[SIDE_USER].output_dim;
    uint32_t item = s->towers[SIDE_ITEM].output_dim;
    if (user != item) {
        return err_set(
            e,
            "the user tower gives vectors of %u dimensions and the item tower of %u; they must be equal to be "
            "compared: change the last layer (or, with network none, the features' dims)",
            user, item);
    }
    return 0;
}

void schema_release(struct schema *s)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct tower_spec *spec = &s->towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            mem_free(spec->features[i].bounds);
        }
        mem_free(spec->features);
        *spec = (struct tower_spec){0};
    }
}

/* --- to JSON -------------------------------------------------------------------------------------------------------*/

static json_t *feature_to_json(const struct feature *f)
{
    json_t *o = json_pack("{s:s, s:s}", "name", f->name, "type", feature_type_words[f->type]);
    if (o == NULL) {
        return NULL;
    }
    int bad = 0;
    if (f->shared) {
        bad |= json_object_set_new(o, "shared", json_true());
    } else if (feature_is_embedded(f)) {
        bad |= json_object_set_new(o, "dim", json_integer(f->dim));
    }
    if (f->type == FEATURE_CATEGORICAL && f->buckets > 0) {
        bad |= json_object_set_new(o, "buckets", json_integer(f->buckets));
    }
    if (f->multi != '\0') {
        bad |= json_object_set_new(o, "multi", json_stringn(&f->multi, 1));
    }
    if (feature_is_bag(f) && feature_is_embedded(f)) {
        bad |= json_object_set_new(o, "pooling", json_string(feature_pooling_words[f->pooling]));
    }
    if (f->pooling == POOLING_RECENCY) {
        bad |= json_object_set_new(o, "half_life", json_real(f->half_life));
    }
    if (f->type == FEATURE_SEQUENCE) {
        bad |= json_object_set_new(o, "last", json_integer(f->last));
    }
    if (f->type == FEATURE_NUMERIC) {
        bad |= json_object_set_new(o, "transform", json_string(feature_transform_words[f->transform]));
        if (f->transform == TRANSFORM_BUCKETIZE) {
            json_t *bounds = json_array();
            for (uint32_t i = 0; i < f->n_bounds; i++) {
                bad |= json_array_append_new(bounds, json_real(f->bounds[i]));
            }
            bad |= json_object_set_new(o, "bounds", bounds);
        } else {
            bad |= json_object_set_new(o, "mean", json_real(f->mean));
            bad |= json_object_set_new(o, "stddev", json_real(f->stddev));
        }
    }
    if (bad != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Members that say nothing are left out, so that readers that do not know them can read all others' bundles. Dropout is
 * not part of a trained model. */
static json_t *network_to_json(const struct network *network)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < network->n_widths; i++) {
        json_array_append_new(layers, json_integer(network->widths[i]));
    }
    bool complete = json_array_size(layers) == network->n_widths;
    json_t *o = json_pack("{s:s, s:o, s:s}", "type", network_type_words[network->type], "layers", layers, "activation",
                          activation_words[network->activation]);
    int bad = complete ? 0 : -1;
    if (network->layer_norm) {
        bad |= json_object_set_new(o, "layer_norm", json_true());
    }
    if (network->residual) {
        bad |= json_object_set_new(o, "residual", json_true());
    }
    if (network->cross_layers > 0) {
        bad |= json_object_set_new(o, "cross_layers", json_integer(network->cross_layers));
    }
    if (network->cross_rank > 0) {
        bad |= json_object_set_new(o, "cross_rank", json_integer(network->cross_rank));
    }
    if (bad != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *tower_to_json(const struct tower_spec *spec)
{
    json_t *features = json_array();
    for (uint32_t i = 0; i < spec->n_features; i++) {
        json_array_append_new(features, feature_to_json(&spec->features[i]));
    }
    bool complete = json_array_size(features) == spec->n_features;
    json_t *o = json_pack("{s:o, s:o}", "features", features, "network", network_to_json(&spec->network));
    if (!complete) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *schema_to_json(const struct schema *s)
{
    return json_pack("{s:o, s:o, s:s}", "user_tower", tower_to_json(&s->towers[SIDE_USER]), "item_tower",
                     tower_to_json(&s->towers[SIDE_ITEM]), "similarity", similarity_words[s->similarity]);
}

/* --- from JSON -----------------------------------------------------------------------------------------------------*/

/* Refuses members that are not in the NULL-terminated list: a typo must not pass for a default. */
static int check_members(const json_t *object, const char *const *known, const char *where, struct err *e)
{
    if (!json_is_object(object)) {
        return err_set(e, "%s: must be an object", where);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (word_find(known, key) < 0) {
            return err_set(e, "%s: \"%.60s\" is no member here", where, key);
        }
    }
    return 0;
}

/* A member that must be one of the words, or `otherwise` when absent (-1: required). */
static int get_word(const json_t *o, const char *key, const char *const *words, int otherwise, const char *where,
                    struct err *e)
{
    const json_t *value = json_object_get(o, key);
    if (value == NULL && otherwise >= 0) {
        return otherwise;
    }
    int i = json_is_string(value) ? word_find(words, json_string_value(value)) : -1;
    if (i < 0) {
        err_set(e, "%s: bad or missing \"%s\"", where, key);
    }
    return i;
}

/* An integer member in [min, max]; absent counts as 0 when min is 0, else it is an error. */
static int get_u32(const json_t *o, const char *key, uint32_t min, uint32_t max, uint32_t *out, const char *where,
                   struct err *e)
{
    const json_t *value = json_object_get(o, key);
    json_int_t n = json_integer_value(value);
    if (value == NULL && min == 0) {
        n = 0;
    } else if (!json_is_integer(value) || n < min || n > max) {
        return err_set(e, "%s: \"%s\" must be an integer from %u to %u", where, key, min, max);
    }
    *out = (uint32_t)n;
    return 0;
}

static int get_double(const json_t *o, const char *key, double *out, const char *where, struct err *e)
{
    const json_t *value = json_object_get(o, key);
    *out = json_number_value(value);
    if (!json_is_number(value) || !isfinite(*out)) {
        return err_set(e, "%s: \"%s\" must be a finite number", where, key);
    }
    return 0;
}

static int get_bounds(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    const json_t *bounds = json_object_get(o, "bounds");
    size_t n = json_array_size(bounds);
    if (!json_is_array(bounds) || n > 1 << 20) {
        return err_set(e, "%s: \"bounds\" must be a list of numbers", where);
    }
    f->bounds = mem_array(n, sizeof *f->bounds);
    if (f->bounds == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(bounds, i);
        f->bounds[i] = json_number_value(value);
        if (!json_is_number(value) || !isfinite(f->bounds[i]) || (i > 0 && f->bounds[i] <= f->bounds[i - 1])) {
            return err_set(e, "%s: \"bounds\" must be ascending finite numbers", where);
        }
    }
    f->n_bounds = (uint32_t)n;
    return 0;
}

static int get_numeric(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    int transform = get_word(o, "transform", feature_transform_words, -1, where, e);
    if (transform < 0) {
        return -1;
    }
    f->transform = (enum feature_transform)transform;
    if (f->transform == TRANSFORM_BUCKETIZE) {
        return get_bounds(f, o, where, e);
    }
    if (get_double(o, "mean", &f->mean, where, e) < 0 || get_double(o, "stddev", &f->stddev, where, e) < 0) {
        return -1;
    }
    return f->stddev > 0 ? 0 : err_set(e, "%s: \"stddev\" must be positive", where);
}

static int get_name(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    const json_t *value = json_object_get(o, "name");
    const char *name = json_is_string(value) ? json_string_value(value) : "";
    size_t n = strlen(name);
    if (n == 0 || n > SCHEMA_MAX_NAME || n != json_string_length(value) || name[0] == '.' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != n) {
        return err_set(e, "%s: \"name\" must be 1 to %d of A-Z a-z 0-9 _ . -", where, SCHEMA_MAX_NAME);
    }
    memcpy(f->name, name, n + 1);
    return 0;
}

static int get_multi(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    const json_t *value = json_object_get(o, "multi");
    if (value == NULL) {
        return 0;
    }
    if (json_string_length(value) != 1) {
        return err_set(e, "%s: \"multi\" is one ASCII character", where);
    }
    f->multi = json_string_value(value)[0];
    return 0;
}

/* Members by type: what a type does not use is refused, so that nobody believes in a dim that has no effect. */
static const char *const *members_of(const json_t *o, enum feature_type type)
{
    static const char *const id[] = {"name", "type", "dim", NULL};
    static const char *const categorical[] = {"name", "type", "dim", "buckets", "multi", "pooling", NULL};
    static const char *const onehot[] = {"name", "type", "multi", "pooling", NULL};
    static const char *const sequence[] = {"name", "type", "dim", "last", "pooling", "half_life", "shared", NULL};
    static const char *const shared[] = {"name", "type", "last", "pooling", "half_life", "shared", NULL};
    static const char *const number[] = {"name", "type", "transform", "mean", "stddev", NULL};
    static const char *const bucket[] = {"name", "type", "transform", "bounds", "dim", NULL};
    static const char *const *const lists[] = {[FEATURE_ID] = id,
                                               [FEATURE_CATEGORICAL] = categorical,
                                               [FEATURE_ONEHOT] = onehot,
                                               [FEATURE_NUMERIC] = number,
                                               [FEATURE_SEQUENCE] = sequence};
    const char *transform = json_string_value(json_object_get(o, "transform"));
    if (type == FEATURE_NUMERIC && transform != NULL &&
        word_find(feature_transform_words, transform) == TRANSFORM_BUCKETIZE) {
        return bucket;
    }
    if (type == FEATURE_SEQUENCE && json_is_true(json_object_get(o, "shared"))) {
        return shared;
    }
    return lists[type];
}

/* What a bag's values become one vector by. */
static int get_pooling(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    int pooling = get_word(o, "pooling", feature_pooling_words, POOLING_MEAN, where, e);
    const json_t *half_life = json_object_get(o, "half_life");
    if (pooling < 0) {
        return -1;
    }
    f->pooling = (enum feature_pooling)pooling;
    f->half_life = json_number_value(half_life);
    if (json_object_get(o, "pooling") != NULL && !feature_is_bag(f)) {
        return err_set(e, "%s: \"pooling\" needs \"multi\": there is one value to pool", where);
    }
    if (f->pooling == POOLING_RECENCY && f->type != FEATURE_SEQUENCE) {
        return err_set(e, "%s: \"pooling\" recency is for sequences: only they are in the order of time", where);
    }
    if ((half_life != NULL) != (f->pooling == POOLING_RECENCY)) {
        return err_set(e, "%s: \"half_life\" and \"pooling\" recency need each other", where);
    }
    if (half_life != NULL && !(f->half_life >= HALF_LIFE_MIN && f->half_life <= HALF_LIFE_MAX)) {
        return err_set(e, "%s: \"half_life\" must be a number from %g to %g", where, HALF_LIFE_MIN, HALF_LIFE_MAX);
    }
    return 0;
}

static int get_feature(struct feature *f, const json_t *o, const char *where, struct err *e)
{
    if (!json_is_object(o)) {
        return err_set(e, "%s: must be an object", where);
    }
    int type = get_word(o, "type", feature_type_words, -1, where, e);
    if (type < 0) {
        return -1;
    }
    f->type = (enum feature_type)type;
    if (check_members(o, members_of(o, f->type), where, e) < 0 || get_name(f, o, where, e) < 0 ||
        get_multi(f, o, where, e) < 0 || get_pooling(f, o, where, e) < 0 ||
        get_u32(o, "buckets", 0, 1u << 30, &f->buckets, where, e) < 0) {
        return -1;
    }
    if (f->type == FEATURE_NUMERIC && get_numeric(f, o, where, e) < 0) {
        return -1;
    }
    if (f->type == FEATURE_SEQUENCE && get_u32(o, "last", 1, 10000, &f->last, where, e) < 0) {
        return -1;
    }
    const json_t *shared = json_object_get(o, "shared");
    if (shared != NULL && !json_is_boolean(shared)) {
        return err_set(e, "%s: \"shared\" must be true or false", where);
    }
    f->shared = json_is_true(shared);
    return feature_is_embedded(f) && !f->shared ? get_u32(o, "dim", 1, SCHEMA_MAX_DIM, &f->dim, where, e) : 0;
}

/* A member that is true or false; absent counts as false. */
static int get_bool(const json_t *o, const char *key, bool *out, const char *where, struct err *e)
{
    const json_t *value = json_object_get(o, key);
    *out = json_is_true(value);
    return value == NULL || json_is_boolean(value) ? 0 : err_set(e, "%s: \"%s\" must be true or false", where, key);
}

static int get_widths(struct network *network, const json_t *o, const char *where, struct err *e)
{
    const json_t *layers = json_object_get(o, "layers");
    size_t n = json_array_size(layers);
    if ((layers != NULL && !json_is_array(layers)) || n > NETWORK_MAX_WIDTHS ||
        (network->type == NETWORK_NONE) != (n == 0)) {
        return err_set(e, "%s: mlp and dcn have 1 to %d layers, none has no layers", where, NETWORK_MAX_WIDTHS);
    }
    for (size_t i = 0; i < n; i++) {
        json_int_t width = json_integer_value(json_array_get(layers, i));
        if (width < 1 || width > NETWORK_MAX_WIDTH) {
            return err_set(e, "%s: a layer has 1 to %d outputs", where, NETWORK_MAX_WIDTH);
        }
        network->widths[network->n_widths++] = (uint32_t)width;
    }
    return 0;
}

static int get_network(struct network *network, const json_t *o, const char *where, struct err *e)
{
    static const char *const mlp[] = {"type", "layers", "activation", "layer_norm", "residual", NULL};
    static const char *const dcn[] = {"type",     "layers",       "activation", "layer_norm",
                                      "residual", "cross_layers", "cross_rank", NULL};
    static const char *const none[] = {"type", "layers", "activation", NULL};
    static const char *const *const members[] = {[NETWORK_NONE] = none, [NETWORK_MLP] = mlp, [NETWORK_DCN] = dcn};
    int type = get_word(o, "type", network_type_words, -1, where, e);
    int activation = get_word(o, "activation", activation_words, ACTIVATION_RELU, where, e);
    if (type < 0 || activation < 0 || check_members(o, members[type], where, e) < 0) {
        return -1;
    }
    network->type = (enum network_type)type;
    network->activation = (enum activation)activation;
    if (get_widths(network, o, where, e) < 0 || get_bool(o, "layer_norm", &network->layer_norm, where, e) < 0 ||
        get_bool(o, "residual", &network->residual, where, e) < 0) {
        return -1;
    }
    if (type == NETWORK_DCN &&
        (get_u32(o, "cross_layers", 1, NETWORK_MAX_CROSS, &network->cross_layers, where, e) < 0 ||
         get_u32(o, "cross_rank", 0, NETWORK_MAX_WIDTH, &network->cross_rank, where, e) < 0)) {
        return -1;
    }
    if (network->layer_norm && network->n_widths < 2) {
        return err_set(e, "%s: \"layer_norm\" needs two layers: it stands between them", where);
    }
    if (network->residual && !network_has_equal_widths(network)) {
        return err_set(e, "%s: \"residual\" needs a layer as wide as the one before it", where);
    }
    return 0;
}

static int get_tower(struct tower_spec *spec, const json_t *o, const char *where, struct err *e)
{
    static const char *const known[] = {"features", "network", NULL};
    if (check_members(o, known, where, e) < 0) {
        return -1;
    }
    const json_t *features = json_object_get(o, "features");
    size_t n = json_array_size(features);
    if (n < 1 || n > SCHEMA_MAX_FEATURES) {
        return err_set(e, "%s: 1 to %d features are possible", where, SCHEMA_MAX_FEATURES);
    }
    spec->features = mem_array(n, sizeof *spec->features);
    if (spec->features == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < n; i++) {
        char place[64];
        snprintf(place, sizeof place, "%s.features[%zu]", where, i);
        struct feature *f = &spec->features[spec->n_features++];
        if (get_feature(f, json_array_get(features, i), place, e) < 0) {
            return -1;
        }
        if (tower_spec_find(spec, f->name) != (int)i) {
            return err_set(e, "%s: the name %s is taken", place, f->name);
        }
    }
    char place[64];
    snprintf(place, sizeof place, "%s.network", where);
    return get_network(&spec->network, json_object_get(o, "network"), place, e);
}

int schema_from_json(struct schema *s, const json_t *json, struct err *e)
{
    static const char *const known[] = {"user_tower", "item_tower", "similarity", NULL};
    *s = (struct schema){0};
    if (check_members(json, known, "schema", e) < 0 ||
        get_tower(&s->towers[SIDE_USER], json_object_get(json, "user_tower"), "user_tower", e) < 0 ||
        get_tower(&s->towers[SIDE_ITEM], json_object_get(json, "item_tower"), "item_tower", e) < 0) {
        schema_release(s);
        return -1;
    }
    int similarity = get_word(json, "similarity", similarity_words, -1, "schema", e);
    if (similarity < 0) {
        schema_release(s);
        return -1;
    }
    s->similarity = (enum similarity)similarity;
    return 0;
}
