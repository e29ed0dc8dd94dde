/*
 * tests/unit/core/model.h: a schema with every feature type and small vocabularies, as the tests of schema, features,
 * tower and bundle use it.
 */
#ifndef TESTS_UNIT_CORE_MODEL_H
#define TESTS_UNIT_CORE_MODEL_H

#include "tests/unit/core/support.h"

#include "core/mem.h"
#include "core/schema.h"

#define MODEL_USER_FEATURES                                                                                     \
    "{\"name\":\"user_id\",\"type\":\"id\",\"dim\":2},"                                                         \
    "{\"name\":\"city\",\"type\":\"categorical\",\"dim\":3},"                                                   \
    "{\"name\":\"hashed\",\"type\":\"categorical\",\"dim\":2,\"buckets\":10},"                                  \
    "{\"name\":\"topics\",\"type\":\"categorical\",\"dim\":2,\"multi\":\"|\",\"pooling\":\"mean\"},"            \
    "{\"name\":\"tags\",\"type\":\"categorical\",\"dim\":2,\"buckets\":7,\"multi\":\",\",\"pooling\":\"sum\"}," \
    "{\"name\":\"gender\",\"type\":\"onehot\"},"                                                                \
    "{\"name\":\"flags\",\"type\":\"onehot\",\"multi\":\";\"},"                                                 \
    "{\"name\":\"age\",\"type\":\"numeric\",\"transform\":\"standardize\",\"mean\":40,\"stddev\":10},"          \
    "{\"name\":\"spend\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":2,\"stddev\":0.5},"                \
    "{\"name\":\"activity\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"bounds\":[0,1.5,10],\"dim\":2}," \
    "{\"name\":\"history\",\"type\":\"sequence\",\"last\":3,\"dim\":2,\"pooling\":\"recency\",\"half_life\":1.5}"
#define MODEL_ITEM_FEATURES \
    "{\"name\":\"item_id\",\"type\":\"id\",\"dim\":3},{\"name\":\"category\",\"type\":\"onehot\"}"
#define MODEL_JSON(similarity)                                                    \
    "{\"user_tower\":{\"features\":[" MODEL_USER_FEATURES                         \
    "],\"network\":{\"type\":\"mlp\",\"layers\":[5,4],\"activation\":\"relu\"}}," \
    "\"item_tower\":{\"features\":[" MODEL_ITEM_FEATURES                          \
    "],\"network\":{\"type\":\"mlp\",\"layers\":[4]}},\"similarity\":\"" similarity "\"}"

struct model_vocab {
    enum side side;
    const char *feature;
    const char *words[6]; /* in order; NULL ends them */
};

static const struct model_vocab model_vocabs[] = {
    {SIDE_USER, "user_id", {"1", "2", "42", "9007199254740993", "u-7", NULL}},
    {SIDE_USER, "city", {"oslo", "paris", NULL}},
    {SIDE_USER, "topics", {"art", "news", "sport", NULL}},
    {SIDE_USER, "gender", {"f", "m", NULL}},
    {SIDE_USER, "flags", {"a", "b", NULL}},
    {SIDE_USER, "history", {"10", "20", "30", NULL}},
    {SIDE_ITEM, "item_id", {"i1", "i2", "i3", "i4", "i5", NULL}},
    {SIDE_ITEM, "category", {"book", "film", NULL}},
};
enum { MODEL_VOCABS = sizeof model_vocabs / sizeof *model_vocabs };

struct model {
    struct schema schema;
    void *blocks[MODEL_VOCABS];
};

/* The table of one vocabulary as file contents. */
__attribute__((unused)) static void model_vocab_write(struct buf *out, const struct model_vocab *v)
{
    struct span spans[6];
    size_t n = 0;
    while (v->words[n] != NULL) {
        spans[n] = (struct span){v->words[n], strlen(v->words[n])};
        n++;
    }
    strtab_write(out, spans, n);
}

__attribute__((unused)) static void model_init(struct model *m, const char *text)
{
    struct err e = ERR_INIT;
    *m = (struct model){.blocks = {NULL}};
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    check_ok(&e, schema_from_json(&m->schema, json, &e));
    json_decref(json);
    for (size_t i = 0; i < MODEL_VOCABS; i++) {
        struct tower_spec *spec = &m->schema.towers[model_vocabs[i].side];
        int f = tower_spec_find(spec, model_vocabs[i].feature);
        struct buf b = BUF_INIT;
        if (f < 0) {
            continue;
        }
        model_vocab_write(&b, &model_vocabs[i]);
        m->blocks[i] = mem_array(b.len, 1);
        memcpy(m->blocks[i], b.data, b.len);
        check_ok(&e, strtab_view(&spec->features[f].vocab, m->blocks[i], b.len, true, &e));
        buf_release(&b);
    }
    check_ok(&e, schema_finish(&m->schema, &e));
}

__attribute__((unused)) static void model_release(struct model *m)
{
    schema_release(&m->schema);
    for (size_t i = 0; i < MODEL_VOCABS; i++) {
        mem_free(m->blocks[i]);
    }
}

#endif
