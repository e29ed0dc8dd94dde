/*
 * libFuzzer entry for a request's features: any JSON against a schema with every feature type. A refusal leaves no trace
 * and points at a member; what is accepted stays inside its tables.
 */
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/features.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char schema_text[] =
    "{\"user_tower\":{\"features\":["
    "{\"name\":\"h\",\"type\":\"categorical\",\"dim\":2,\"buckets\":10},"
    "{\"name\":\"t\",\"type\":\"categorical\",\"dim\":2,\"buckets\":7,\"multi\":\"|\"},"
    "{\"name\":\"i\",\"type\":\"id\",\"dim\":2},"
    "{\"name\":\"o\",\"type\":\"onehot\"},"
    "{\"name\":\"m\",\"type\":\"onehot\",\"multi\":\",\"},"
    "{\"name\":\"n\",\"type\":\"numeric\",\"transform\":\"standardize\",\"mean\":1,\"stddev\":2},"
    "{\"name\":\"l\",\"type\":\"numeric\",\"transform\":\"log\",\"mean\":1,\"stddev\":1e-30},"
    "{\"name\":\"b\",\"type\":\"numeric\",\"transform\":\"bucketize\",\"bounds\":[0,1,2.5],\"dim\":2},"
    "{\"name\":\"s\",\"type\":\"sequence\",\"dim\":2,\"last\":3}],\"network\":{\"type\":\"mlp\",\"layers\":[2]}},"
    "\"item_tower\":{\"features\":[{\"name\":\"i\",\"type\":\"id\",\"dim\":2}],\"network\":{\"type\":\"none\"}},"
    "\"similarity\":\"dot\"}";

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static const struct tower_spec *get_spec(void)
{
    static struct schema schema;
    static uint64_t block[16];
    struct err e = ERR_INIT;
    if (schema.towers[SIDE_USER].features == NULL) {
        const struct span words[] = {{"1", 1}, {"2", 1}, {"a", 1}};
        struct buf b = BUF_INIT;
        struct strtab table;
        json_t *json = json_loads(schema_text, 0, NULL);
        check(schema_from_json(&schema, json, &e) == 0);
        json_decref(json);
        strtab_write(&b, words, 3);
        check(!buf_failed(&b) && b.len <= sizeof block);
        memcpy(block, b.data, b.len);
        check(strtab_view(&table, block, b.len, true, &e) == 0);
        buf_release(&b);
        for (uint32_t i = 0; i < schema.towers[SIDE_USER].n_features; i++) {
            struct feature *f = &schema.towers[SIDE_USER].features[i];
            f->vocab = feature_has_vocab(f) ? table : f->vocab;
        }
        check(schema_finish(&schema, &e) == 0);
    }
    return &schema.towers[SIDE_USER];
}

static void check_rows(const struct feature_rows *rows)
{
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        const struct feature_column *c = &rows->columns[i];
        size_t n = feature_is_bag(f) ? c->start[rows->n] : rows->n;
        for (size_t j = 0; j < n; j++) {
            if (f->rows > 0) {
                check(c->index[j] >= 0 && (uint32_t)c->index[j] < f->rows);
            } else {
                check(isnan(c->number[j]) || fabsf(c->number[j]) <= 10.0f);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feature_rows rows;
    struct value_scratch scratch = {0};
    struct err e = ERR_INIT;
    char pointer[256];
    json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (json == NULL || feature_rows_init(&rows, get_spec()) < 0) {
        json_decref(json);
        return 0;
    }
    int result = features_add_json(&rows, json, &scratch, pointer, sizeof pointer, &e);
    check((result == 0) == !err_isset(&e));
    check(rows.n == (result == 0));
    check(strlen(pointer) < sizeof pointer && (pointer[0] == '/' || !json_is_object(json) || result == 0));
    if (result == 0) {
        check(feature_rows_copy(&rows, &rows, 0) == 0);
        check_rows(&rows);
    }
    value_scratch_release(&scratch);
    feature_rows_release(&rows);
    json_decref(json);
    return 0;
}
