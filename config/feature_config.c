/*
 * The features of a tower.
 *
 * One table holds every key a feature may have; a second column says which kinds of feature it applies to and which
 * need it. A key that has no effect is a problem, not a shrug: `dim` on a onehot feature means that the author expects
 * an embedding. A kind is the type, except that a bucketized number is one of its own, because it has an embedding.
 */
#include "config/feature_config.h"

#include <string.h>

#include "config/param.h"
#include "core/mem.h"

/* Share of training rows whose value is hidden. A tower with one feature has nothing else to answer from: hiding it is
 * pure loss there, but the unknown row must still be trained. */
#define UNKNOWN_RATE_DEFAULT 0.02
#define UNKNOWN_RATE_ALONE 0.005

#define HALF_LIFE_DEFAULT 5.0

enum { BUCKETS_DEFAULT = 16, BUCKETS_MAX = 4096, SEQUENCE_DIM_DEFAULT = 32 };

enum {
    ID = 1 << 0,
    CATEGORICAL = 1 << 1,
    ONEHOT = 1 << 2,
    NUMERIC = 1 << 3,
    BUCKETIZED = 1 << 4,
    SEQUENCE = 1 << 5,
    EVERY = (1 << 6) - 1,
};
static const char *const kind_words[] = {"id",      "categorical", "onehot", "numeric", "numeric with bucketize",
                                         "sequence"};

/* Which kinds a key applies to, and which need it; in the order of the rows. */
struct rule {
    unsigned applies, needed;
};

#define AT(member) PARAM_AT(struct feature_config, member)

static const struct param rows[] = {
    {"name", PARAM_STRING, AT(name), .need = PARAM_NEEDED,
     .sentence = "column of the side's table; for type id the id column, for sequence the name that requests use"},
    {"type", PARAM_ENUM, AT(type), .words = feature_type_words, .need = PARAM_NEEDED,
     .sentence = "how raw values become numbers"},
    {"dim", PARAM_INT, AT(dim), .min = 1, .max = SCHEMA_MAX_DIM, .unit = "numbers",
     .sentence = "length of each value's embedding (default for sequence: 32)"},
    {"transform", PARAM_ENUM, AT(transform), .default_text = "standardize", .words = feature_transform_words,
     .sentence =
         "standardize: minus mean, by deviation; log: sign(x) log(1 + |x|), then the same; bucketize: an embedding "
         "for each range of values, bounds at quantiles"},
    {"buckets", PARAM_INT, AT(buckets), .min = 0, .max = 1 << 30,
     .sentence =
         "categorical: above 0, values are hashed into so many rows instead of kept in a vocabulary (default 0); "
         "bucketize: number of ranges, 2 to 4096 (default 16)"},
    {"min_count", PARAM_INT, AT(min_count), .default_text = "1", .min = 1, .max = 1e9, .unit = "rows",
     .sentence = "values seen less often in the training part count as unknown"},
    {"multi", PARAM_SEPARATOR, AT(multi), .sentence = "the byte between several values in one text; absent: one value"},
    {"pooling", PARAM_ENUM, AT(pooling), .default_text = "mean", .words = feature_pooling_words,
     .sentence =
         "how several values become one vector: their mean, their sum, sqrtn (the sum divided by the root of their "
         "number), or, for a sequence, recency (the mean with weights that halve every half_life events into the "
         "past)"},
    {"half_life", PARAM_FLOAT, AT(half_life), .min = HALF_LIFE_MIN, .max = HALF_LIFE_MAX, .unit = "events",
     .sentence = "pooling recency: after how many later events an event weighs half (default 5)"},
    {"of", PARAM_STRING, AT(of), .sentence = "what the history is made of: the item id column"},
    {"last", PARAM_INT, AT(last), .default_text = "20", .min = 1, .max = 10000, .unit = "events",
     .sentence = "how many of the latest events count"},
    {"shared", PARAM_BOOL, AT(shared), .default_text = "false",
     .sentence = "the history uses the embeddings of the item tower's feature of type id, its dim and its min_count, "
                 "instead of embeddings of its own"},
    {"unknown_rate", PARAM_FLOAT, AT(unknown_rate), .min = 0, .max = 0.5,
     .sentence =
         "share of training rows whose value is hidden, half as unknown, half as missing: trains the rows for both "
         "(default 0.02; 0.005 when the tower has no other feature)"},
    {"dropout", PARAM_FLOAT, AT(dropout), .default_text = "0", .min = 0, .max = 0.95, .unit = "of the numbers",
     .sentence = "how many of the embedding's numbers a training row does without, drawn anew each time"},
};
static const struct param_table table = {rows, sizeof rows / sizeof rows[0]};

static const struct rule rules[] = {
    {EVERY, 0},                                                                /* name */
    {EVERY, 0},                                                                /* type */
    {ID | CATEGORICAL | BUCKETIZED | SEQUENCE, ID | CATEGORICAL | BUCKETIZED}, /* dim */
    {NUMERIC | BUCKETIZED, 0},                                                 /* transform */
    {CATEGORICAL | BUCKETIZED, 0},                                             /* buckets */
    {ID | CATEGORICAL | ONEHOT | SEQUENCE, 0},                                 /* min_count */
    {CATEGORICAL | ONEHOT, 0},                                                 /* multi */
    {CATEGORICAL | SEQUENCE, 0},                                               /* pooling */
    {SEQUENCE, 0},                                                             /* half_life */
    {SEQUENCE, SEQUENCE},                                                      /* of */
    {SEQUENCE, 0},                                                             /* last */
    {SEQUENCE, 0},                                                             /* shared */
    {EVERY, 0},                                                                /* unknown_rate */
    {ID | CATEGORICAL | BUCKETIZED | SEQUENCE, 0},                             /* dropout */
};
_Static_assert(sizeof rules / sizeof rules[0] == sizeof rows / sizeof rows[0], "one rule a row");

static unsigned kind_of(const struct feature_config *f)
{
    static const unsigned kinds[] = {
        [FEATURE_ID] = ID,           [FEATURE_CATEGORICAL] = CATEGORICAL, [FEATURE_ONEHOT] = ONEHOT,
        [FEATURE_NUMERIC] = NUMERIC, [FEATURE_SEQUENCE] = SEQUENCE,
    };
    bool bucketized = f->type == FEATURE_NUMERIC && f->transform == TRANSFORM_BUCKETIZE;
    return bucketized ? BUCKETIZED : kinds[f->type];
}

/* "id, categorical, sequence" */
static void list_kinds(unsigned kinds, struct buf *out)
{
    const char *separator = "";
    if ((kinds & NUMERIC) != 0) {
        kinds &= ~(unsigned)BUCKETIZED; /* any number */
    }
    for (size_t i = 0; i < sizeof kind_words / sizeof kind_words[0]; i++) {
        if ((kinds & 1U << i) != 0) {
            buf_printf(out, "%s%s", separator, kind_words[i]);
            separator = ", ";
        }
    }
}

static void check_applies(const struct feature_config *f, const struct node *node, const char *prefix,
                          struct problems *problems)
{
    unsigned kind = kind_of(f);
    const char *own = kind_words[__builtin_ctz(kind)];
    for (size_t i = 0; i < table.n; i++) {
        const char *key = rows[i].path;
        const struct node *member = node_find(node, key);
        if (member != NULL && (rules[i].applies & kind) == 0) {
            struct buf kinds = BUF_INIT;
            list_kinds(rules[i].applies, &kinds);
            problem_add(problems, (struct place){member->at.set, member->key_line}, key_join(prefix, key).text,
                        "has no effect on type %s; it is for: %s; remove it or change the type", own, kinds.data);
            buf_release(&kinds);
        } else if (member == NULL && (rules[i].needed & kind) != 0) {
            problem_add(problems, (struct place){node->at.set, node->at.line}, key_join(prefix, key).text,
                        "is missing, type %s needs it; it is: %s", own, rows[i].sentence);
        }
    }
}

/* Keys that mean something only together. */
static void check_pairs(const struct feature_config *f, const struct node *node, const char *prefix,
                        struct problems *problems)
{
    const struct node *buckets = node_find(node, "buckets");
    const struct node *pooling = node_find(node, "pooling");
    const struct node *half_life = node_find(node, "half_life");
    const struct node *min_count = node_find(node, "min_count");
    if (kind_of(f) == BUCKETIZED && buckets != NULL && (f->buckets < 2 || f->buckets > BUCKETS_MAX)) {
        problem_add(problems, buckets->at, key_join(prefix, "buckets").text,
                    "%u is out of range; allowed: 2 to %d with transform bucketize", f->buckets, BUCKETS_MAX);
    }
    if (f->type == FEATURE_CATEGORICAL && f->multi == '\0' && pooling != NULL) {
        problem_add(problems, pooling->at, key_join(prefix, "pooling").text,
                    "has no effect on a single value; add multi: \"|\" (the byte between values) or remove pooling");
    } else if (f->type == FEATURE_CATEGORICAL && f->pooling == POOLING_RECENCY) {
        problem_add(
            problems, pooling->at, key_join(prefix, "pooling").text,
            "recency is for type sequence: several values in one text are in no order of time; use mean, sum or "
            "sqrtn");
    }
    if (f->pooling != POOLING_RECENCY && half_life != NULL) {
        problem_add(problems, half_life->at, key_join(prefix, "half_life").text,
                    "has no effect with pooling %s; add pooling: recency, or remove it",
                    feature_pooling_words[f->pooling]);
    }
    static const char *const of_the_id[] = {"dim", "min_count"};
    for (size_t i = 0; f->shared && i < 2; i++) {
        const struct node *own = node_find(node, of_the_id[i]);
        if (own != NULL) {
            problem_add(problems, own->at, key_join(prefix, of_the_id[i]).text,
                        "has no effect with shared: true, it is that of the item tower's id; remove one of the two");
        }
    }
    if (f->type == FEATURE_CATEGORICAL && f->buckets > 0 && f->min_count > 1) {
        problem_add(problems, min_count->at, key_join(prefix, "min_count").text,
                    "has no effect with buckets: hashing keeps no vocabulary; remove one of the two");
    }
}

static void check_name(const struct feature_config *f, const struct node *node, const char *prefix,
                       struct problems *problems)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t n = strlen(f->name);
    if (n <= SCHEMA_MAX_NAME && f->name[0] != '.' && strspn(f->name, letters) == n) {
        return;
    }
    problem_add(
        problems, node_find(node, "name")->at, key_join(prefix, "name").text,
        "%s cannot be a feature's name, which becomes a file name: 1 to %d of A-Z a-z 0-9 _ . - and no dot first",
        problem_quote(f->name).text, SCHEMA_MAX_NAME);
}

static void read_one(struct feature_config *f, const struct node *node, const char *prefix, bool alone,
                     struct problems *problems)
{
    if (node->kind != NODE_MAP) {
        problem_add(problems, node->at, prefix,
                    "must be a mapping like {name: city, type: categorical, dim: 8}; it is %s", node_kind_word(node));
        return;
    }
    size_t before = problems->count;
    param_read(&table, node, prefix, f, problems);
    f->line = node->at.line;
    if (f->name != NULL) {
        check_name(f, node, prefix, problems);
    }
    if (node_find(node, "unknown_rate") == NULL) {
        f->unknown_rate = alone ? UNKNOWN_RATE_ALONE : UNKNOWN_RATE_DEFAULT;
    }
    if (kind_of(f) == BUCKETIZED && node_find(node, "buckets") == NULL) {
        f->buckets = BUCKETS_DEFAULT;
    }
    if (f->type == FEATURE_SEQUENCE && node_find(node, "dim") == NULL) {
        f->dim = SEQUENCE_DIM_DEFAULT;
    }
    if (f->pooling == POOLING_RECENCY && node_find(node, "half_life") == NULL) {
        f->half_life = HALF_LIFE_DEFAULT;
    }
    const struct node *type = node_find(node, "type");
    if (type != NULL && type->kind == NODE_SCALAR && word_find(feature_type_words, type->text) >= 0) {
        check_applies(f, node, prefix, problems);
        if (problems->count == before) {
            check_pairs(f, node, prefix, problems);
        }
    }
}

void feature_configs_read(const struct node *list, const char *prefix, struct tower_config *tower,
                          struct problems *problems)
{
    if (list == NULL) {
        return;
    }
    if (list->kind != NODE_LIST || list->count == 0 || list->count > SCHEMA_MAX_FEATURES) {
        problem_add(problems, list->at, prefix,
                    "must be a list of 1 to %d features, like [{name: user_id, type: id, dim: 32}]",
                    SCHEMA_MAX_FEATURES);
        return;
    }
    tower->features = mem_array(list->count, sizeof *tower->features);
    if (tower->features == NULL) {
        problem_nomem(problems);
        return;
    }
    tower->n_features = list->count;
    size_t i = 0;
    for (const struct node *node = list->first; node != NULL; node = node->next, i++) {
        read_one(&tower->features[i], node, key_element(prefix, i, "").text, list->count == 1, problems);
    }
}

void feature_configs_release(struct tower_config *tower)
{
    for (size_t i = 0; i < tower->n_features; i++) {
        param_release(&table, &tower->features[i]);
    }
    mem_free(tower->features);
    tower->features = NULL;
    tower->n_features = 0;
}

void feature_configs_describe(struct buf *out, bool markdown)
{
    for (size_t i = 0; i < table.n; i++) {
        struct buf sentence = BUF_INIT;
        if (rules[i].applies != EVERY) {
            list_kinds(rules[i].applies, &sentence);
            buf_puts(&sentence, ": ");
        }
        buf_puts(&sentence, rows[i].sentence);
        struct param row = rows[i];
        row.sentence = sentence.data;
        const struct param_table one = {&row, 1};
        param_describe(&one, markdown ? "" : "features.N", out, markdown);
        out->failed |= buf_failed(&sentence);
        buf_release(&sentence);
    }
}
