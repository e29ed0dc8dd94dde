/*
 * core/schema.h: what goes into the two towers: the features of each side, their learned vocabularies and statistics,
 * the networks, and the similarity. Made by the trainer from its configuration and the train part of the data; carried
 * by the bundle; read by both programs. Read-only after it is complete, and then thread-safe.
 *
 * Every embedding table and one-hot block has the same row convention:
 *   row 0 SCHEMA_UNKNOWN   a value that the vocabulary does not know (out of vocabulary)
 *   row 1 SCHEMA_MISSING   no value at all (single-valued fields; multi-valued ones and histories pool nothing instead)
 *   row 2 + i              vocabulary entry i, or bucket i
 */
#ifndef CORE_SCHEMA_H
#define CORE_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/network.h"
#include "core/strtab.h"

enum { SCHEMA_UNKNOWN = 0, SCHEMA_MISSING = 1, SCHEMA_FIRST = 2 };
enum side { SIDE_USER, SIDE_ITEM };
enum feature_type { FEATURE_ID, FEATURE_CATEGORICAL, FEATURE_ONEHOT, FEATURE_NUMERIC, FEATURE_SEQUENCE };
enum feature_transform { TRANSFORM_STANDARDIZE, TRANSFORM_LOG, TRANSFORM_BUCKETIZE };
enum feature_pooling { POOLING_MEAN, POOLING_SUM, POOLING_SQRTN, POOLING_RECENCY };
enum similarity { SIMILARITY_DOT, SIMILARITY_COSINE };

/* Bounds of a half-life, in events: below, all but the latest weigh nothing; above, recency is the mean. */
#define HALF_LIFE_MIN 0.1
#define HALF_LIFE_MAX 1e6

enum { SCHEMA_MAX_FEATURES = 64, SCHEMA_MAX_NAME = 64, SCHEMA_MAX_DIM = NETWORK_MAX_WIDTH };

/* Words of the enums above, as configuration and manifest spell them; NULL-terminated. */
extern const char *const side_words[];
extern const char *const feature_type_words[];
extern const char *const feature_transform_words[];
extern const char *const feature_pooling_words[];
extern const char *const similarity_words[];

struct feature {
    /* declared in the configuration */
    char name[SCHEMA_MAX_NAME + 1]; /* [A-Za-z0-9_.-]+ */
    enum feature_type type;
    enum feature_transform transform; /* numeric */
    enum feature_pooling pooling;     /* multi-valued, sequence: see feature_weights */
    double half_life;                 /* sequence with pooling recency: events after which a weight has halved */
    uint32_t dim;                     /* of the embedding; 0 for onehot and plain numeric */
    uint32_t buckets;                 /* categorical: > 0 hashes instead of a vocabulary; numeric bucketize: how many */
    uint32_t last;                    /* sequence: how many of the latest events */
    bool shared;                      /* sequence: reads vocabulary and table of the item tower's id feature */
    char multi;                       /* separator of a multi-valued text, '\0' for single-valued */
    double dropout;                   /* embedded: share of its columns dropped while training; in no manifest */

    /* learned from the train part */
    struct strtab vocab; /* id, categorical without hashing, onehot, sequence; a view, the block is the owner's;
                            of a shared one schema_finish takes it, and dim, from the item tower's id */
    double mean, stddev; /* numeric, after log if any; stddev is 1 when the feature is constant. Doubles, as bounds: a
                            float's neighbours are two minutes apart at the size of today's unix times */
    double *bounds;      /* bucketize: ascending [n_bounds], owned; bucket i holds bounds[i-1] <= x < bounds[i] */
    uint32_t n_bounds;

    /* derived by schema_finish */
    char table[SCHEMA_MAX_NAME + 24]; /* name of the embedding table in weights.safetensors, "" without one */
    uint32_t rows;                    /* of the embedding table or the one-hot block; 0 for plain numeric */
    uint32_t offset;                  /* first column in the tower's input */
    uint32_t width;                   /* columns in the tower's input */
};

struct tower_spec {
    struct feature *features; /* [n_features], owned */
    uint32_t n_features;
    struct network network;

    /* derived by schema_finish */
    uint32_t input_width; /* sum of the features' widths */
    uint32_t output_dim;  /* of the tower's vector */
    struct network_layers layers;
};

struct schema {
    struct tower_spec towers[2]; /* by enum side */
    enum similarity similarity;
};

/* True for fields with an embedding table (id, categorical, bucketised numeric, sequence). */
bool feature_is_embedded(const struct feature *f);
/* True for fields that hold any number of values a row (multi-valued, sequence). */
bool feature_is_bag(const struct feature *f);
/* True for fields with a vocabulary. */
bool feature_has_vocab(const struct feature *f);
/* True for those whose vocabulary is a file of their own in the bundle: writes its name, "vocab/user.city.strings". */
bool feature_vocab_file(const struct feature *f, enum side side, char name[SCHEMA_MAX_NAME + 32]);
/* Position of a feature by name, or -1. */
int tower_spec_find(const struct tower_spec *spec, const char *name);

/* Derives rows, offsets, widths and dims, resolves shared tables, and checks that the towers' vectors have the same
 * length. */
int schema_finish(struct schema *s, struct err *e);
void schema_release(struct schema *s);

/* New JSON object for the manifest, without vocabularies (those are files); NULL without memory. */
json_t *schema_to_json(const struct schema *s);

/* Reads what schema_to_json wrote, or another trainer; every member is checked, unknown ones are refused. Vocabularies
 * are left empty: the caller sets them, then calls schema_finish. On failure `s` is released. */
int schema_from_json(struct schema *s, const json_t *json, struct err *e);

/* Index of `word` in a NULL-terminated list, or -1. */
int word_find(const char *const *words, const char *word);

#endif
