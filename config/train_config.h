/*
 * config/train_config.h: the training configuration, from YAML to a checked struct.
 *
 * Every parameter is one row of a table in train_config.c: path, type, minimum, default, maximum, unit, one sentence.
 * `--help`-like listings and docs/config.md come from that table. train_config_load reports *all* problems of a file in
 * one go, in the order of its lines, each as "file:line: key: what is wrong; how to fix it". Relative paths (data,
 * output.dir) are taken from the configuration file's directory, or from the working directory when they come by --set.
 * No key that has no effect is accepted silently.
 */
#ifndef CONFIG_TRAIN_CONFIG_H
#define CONFIG_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/schema.h"

struct table_config {
    char *path; /* absolute or relative to the working directory, ready for open(2); NULL when not given */
    char *id;   /* column with the id */
};

struct events_config {
    char *path;
    char *user, *item; /* columns */
    char *time;        /* column of a number or of an ISO 8601 date/time; NULL: none */
    char *label;       /* column of a number; NULL: every row is a positive */
    double label_min;  /* rows with label >= this are positives, others are dropped (and counted) */
    char *weight;      /* column of a number >= 0: how much the event counts in the loss; NULL: all alike */
};

enum split_method { SPLIT_NONE, SPLIT_LEAVE_LAST, SPLIT_TIME, SPLIT_FILE };
extern const char *const split_method_words[]; /* none leave_last time file */

struct split_config {
    enum split_method method;
    uint32_t n;      /* leave_last: events a user */
    double fraction; /* time: share of the latest events that becomes test */
    char *test;      /* file: path, same columns as events */
};

struct feature_config {
    char *name; /* column of the side's table; for id: the id itself; for sequence: the feature's name in requests */
    enum feature_type type;
    enum feature_transform transform;
    enum feature_pooling pooling;
    uint32_t dim;
    uint32_t buckets;
    uint32_t min_count;  /* values seen less often in the train part are left out of the vocabulary (unknown) */
    uint32_t last;       /* sequence */
    double half_life;    /* sequence with pooling recency: events */
    bool shared;         /* sequence: uses the embeddings of the item tower's id */
    char *of;            /* sequence: the item id column */
    char multi;          /* '\0': single-valued */
    double unknown_rate; /* share of training rows whose value is hidden, half as unknown, half as missing: trains those
                            two rows, and the tower to do without the value */
    double dropout;      /* share of the embedding's columns that a training row does without */
    int line;            /* in the configuration file */
};

struct tower_config {
    struct feature_config *features; /* [n_features] */
    size_t n_features;
    struct network network;
};

enum loss_type { LOSS_SOFTMAX, LOSS_BILATERAL, LOSS_POINTWISE, LOSS_TRIPLET_HINGE, LOSS_TRIPLET_LOGISTIC };
extern const char *const loss_type_words[]; /* softmax bilateral pointwise triplet_hinge triplet_logistic */
enum logq_estimator { LOGQ_COUNTS, LOGQ_STREAMING };
enum negatives_draw { DRAW_AUTO, DRAW_BATCH, DRAW_ROW }; /* never auto after loading */
enum hard_source { HARD_NONE, HARD_FILE, HARD_MINED };
enum optimizer_type { OPTIMIZER_ADAGRAD, OPTIMIZER_ADAM, OPTIMIZER_LAZY_ADAM, OPTIMIZER_SGD };
extern const char *const optimizer_type_words[]; /* adagrad adam lazy_adam sgd */
enum schedule_type { SCHEDULE_CONSTANT, SCHEDULE_STEP, SCHEDULE_COSINE };
extern const char *const schedule_type_words[]; /* constant step cosine */

/* How the learning rate changes over the steps (train/schedule.h). */
struct schedule_config {
    enum schedule_type type;
    double warmup;  /* below 1: share of all steps, else steps; rising from 0 */
    uint32_t every; /* step: epochs between two drops */
    double factor;  /* step: what is left of the rate after a drop */
    double end_lr;  /* cosine: the rate at the end */
};

extern const char *const baseline_words[]; /* popularity item_cf matrix_completion */

struct train_config {
    struct {
        struct table_config users, items;
        struct events_config events;
        char delimiter[5]; /* one to four bytes; "\t" for tab */
        bool header;       /* first line names the columns; else columns.* name them */
        char **columns_users, **columns_items, **columns_events; /* NULL-terminated names when header is false */
        uint64_t max_bad_rows;                                   /* tolerated in each file */
        struct split_config split;
    } data;
    struct tower_config user_tower, item_tower;
    enum similarity similarity;
    struct {
        enum loss_type type;
        double temperature;            /* softmax, bilateral: scores are divided by it */
        double balance;                /* bilateral: weight of the negatives' side */
        double scale;                  /* pointwise: scores are multiplied by it */
        bool learn;                    /* the temperature or scale is trained too */
        double negatives_per_positive; /* pointwise */
        double margin;                 /* triplet_hinge */
        double sigma;                  /* triplet_logistic */
        bool logq;                     /* softmax, bilateral */
        enum logq_estimator logq_estimator;
    } loss;
    struct {
        bool in_batch;
        uint32_t uniform, popularity; /* drawn for a batch or for each row */
        double popularity_alpha;      /* drawn in proportion to count^alpha */
        enum negatives_draw draw;
        bool mask_seen; /* items that the user has in the train part are no negatives for him */
        struct {
            enum hard_source source;
            char *file;           /* user,item pairs with the columns of the events */
            char *bundle;         /* whose index is searched */
            uint32_t ranks[2];    /* mined: first and last rank, from 1 */
            size_t n_ranks;       /* 2 */
            uint32_t per_user;    /* mined: kept of the window */
            double easy_per_hard; /* of the other negatives that a row meets */
        } hard;
        uint32_t exposed; /* a row's own: shown to its user and not clicked */
        bool allow_exposed;
    } negatives;
    struct {
        enum optimizer_type type;
        double lr;
        struct schedule_config schedule;
        double momentum;     /* sgd */
        double weight_decay; /* decoupled: a step takes lr * weight_decay of a value off it */
        double clip_norm;    /* longest gradient, over all parameters; 0: any */
        double init_scale;   /* standard deviation of the initial embeddings */
        uint32_t batch_size;
        uint32_t epochs; /* at most, with early stopping */
        struct {
            bool enabled;      /* the key is present */
            char metric[32];   /* e.g. recall@20 */
            uint32_t patience; /* epochs without improvement */
            double validation; /* share of the train part's events held out, as the test part was */
            bool refit;        /* train anew on the whole train part for the best number of epochs */
        } early_stop;
    } optimizer;
    struct {
        uint64_t max_users; /* of the test part; 0: all, up to what is affordable */
        char **slices;      /* NULL-terminated names of features; NULL: those with few values */
        char **baselines;   /* NULL-terminated, of baseline_words; NULL: as many as are cheap */
    } evaluate;
    uint64_t seed;
    uint32_t threads; /* 0: one a core */
    struct {
        bool enabled;
        uint64_t every_ms; /* within long epochs; 0: only after each epoch */
    } checkpoint;
    struct {
        char *dir;
        bool user_profiles;
    } output;
    struct {
        char engine[16];
        char factory[128];
        double target_recall; /* recall@100 against exact that the default search effort should reach */
    } index;
    char *text; /* the effective configuration as YAML (after --set), for the manifest and the report */
};

/* Why user and item features may not meet before the similarity: one sentence for every place that refuses it. */
#define TRAIN_EARLY_FUSION                                                                                         \
    "early fusion is refused, because it cannot be answered by nearest-neighbour search: with a hundred million "  \
    "items "                                                                                                       \
    "every request would cost a hundred million network passes. The towers meet only in the final dot product or " \
    "cosine (late fusion)"

/* Reads `path` and applies `sets` ("key.path=value", n_sets of them). On failure returns NULL and appends one line for
 * each problem to `problems`. Cross-checks are made too (early fusion, recency without a time column, towers of
 * different output length, softmax without any negatives, files that do not exist, ...). */
struct train_config *train_config_load(const char *path, const char *const *sets, size_t n_sets, struct buf *problems);
void train_config_free(struct train_config *config);

/* The configuration of the matrix completion baseline: defaults, but ids only, vectors of `dim` numbers, and the dot
 * product; at most `epochs`, early stopping. Its data are not to be read. NULL without memory. */
struct train_config *train_config_matrix_completion(uint32_t dim, uint32_t batch_size, uint32_t epochs, uint64_t seed);

/* Appends the parameter table: tab-separated (path, type, min, default, max, unit, sentence) or Markdown. */
void train_config_describe(struct buf *out, bool markdown);

#endif
