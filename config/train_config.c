/*
 * The training configuration: its table, and how a file becomes a struct.
 *
 * Reading has three steps that all add to one list of problems: YAML to a tree (yaml.c) with --set applied, the tree by
 * the table (param.c; features by feature_config.c), and checks across values (train_checks.c). A later step runs even
 * when an earlier one found something, so that one run shows everything.
 *
 * Names of what other versions know (losses, negatives, engines) are in the table too, so that they are told apart from
 * typos; so are the keys by which people try early fusion, so that the answer says why it is refused.
 */
#include "config/train_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/feature_config.h"
#include "config/param.h"
#include "config/train_checks.h"
#include "config/yaml.h"
#include "core/mem.h"

const char *const split_method_words[] = {"none", "leave_last", "time", "file", NULL};
const char *const loss_type_words[] = {"softmax", "bilateral", "pointwise", "triplet_hinge", "triplet_logistic", NULL};
static const char *const logq_estimator_words[] = {"counts", "streaming", NULL};
static const char *const negatives_draw_words[] = {"auto", "batch", "row", NULL};
static const char *const hard_source_words[] = {"none", "file", "mined", NULL};
const char *const optimizer_type_words[] = {"adagrad", "adam", "lazy_adam", "sgd", NULL};
const char *const schedule_type_words[] = {"constant", "step", "cosine", NULL};
const char *const baseline_words[] = {"popularity", "item_cf", "matrix_completion", NULL};
static const char *const index_engine_words[] = {"flat", "faiss", "native", NULL};

#define AT(member) PARAM_AT(struct train_config, member)
#define COMBINES "would combine user and item features before the similarity: " TRAIN_EARLY_FUSION
#define EACH_TOWER "; features and networks belong inside user_tower and item_tower; early fusion belongs to ranking"

#define TOWER_ROWS(tower)                                                                                             \
    {#tower ".features",                                                                                              \
     PARAM_NODE,                                                                                                      \
     0,                                                                                                               \
     0,                                                                                                               \
     .need = PARAM_NEEDED,                                                                                            \
     .sentence = "list of features, see the table of features below"},                                                \
        {#tower ".network.type",                                                                                      \
         PARAM_ENUM,                                                                                                  \
         AT(tower.network.type),                                                                                      \
         .default_text = "none",                                                                                      \
         .words = network_type_words,                                                                                 \
         .sentence =                                                                                                  \
             "none: the features' embeddings, one behind the other, are the vector; mlp: fully connected layers; "    \
             "dcn: cross layers, which multiply features with each other (DCN-v2), then an mlp"},                     \
        {#tower ".network.layers",                                                                                    \
         PARAM_INTS,                                                                                                  \
         AT(tower.network.widths),                                                                                    \
         .count_offset = offsetof(struct train_config, tower.network.n_widths),                                       \
         .min = 1,                                                                                                    \
         .max = NETWORK_MAX_WIDTH,                                                                                    \
         .unit = "numbers each",                                                                                      \
         .sentence = "mlp, dcn: widths of the layers (at most 8); the last is the length of the vector"},             \
        {#tower ".network.activation", PARAM_ENUM,                                                                    \
         AT(tower.network.activation), .default_text = "relu",                                                        \
         .words = activation_words,    .sentence = "mlp, dcn: between layers; the last layer is linear"},             \
        {#tower ".network.layer_norm", PARAM_BOOL, AT(tower.network.layer_norm), .default_text = "false",             \
         .sentence = "mlp, dcn: normalise each row between layers, before the activation"},                           \
        {#tower ".network.dropout",                                                                                   \
         PARAM_FLOAT,                                                                                                 \
         AT(tower.network.dropout),                                                                                   \
         .default_text = "0",                                                                                         \
         .min = 0,                                                                                                    \
         .max = 0.95,                                                                                                 \
         .unit = "of the numbers",                                                                                    \
         .sentence = "mlp, dcn: how many of those between layers a training row does without, drawn anew each time"}, \
        {#tower ".network.residual", PARAM_BOOL, AT(tower.network.residual), .default_text = "false",                 \
         .sentence = "mlp, dcn: each layer as wide as the one before it adds what it computes to what it was given"}, \
        {#tower ".network.cross_layers",                                                                              \
         PARAM_INT,                                                                                                   \
         AT(tower.network.cross_layers),                                                                              \
         .default_text = "2",                                                                                         \
         .min = 1,                                                                                                    \
         .max = NETWORK_MAX_CROSS,                                                                                    \
         .unit = "layers",                                                                                            \
         .sentence = "dcn: cross layers; n of them give products of up to n + 1 features"},                           \
        {#tower ".network.cross_rank",                                                                                \
         PARAM_INT,                                                                                                   \
         AT(tower.network.cross_rank),                                                                                \
         .default_text = "0",                                                                                         \
         .min = 0,                                                                                                    \
         .max = NETWORK_MAX_WIDTH,                                                                                    \
         .unit = "columns",                                                                                           \
         .sentence =                                                                                                  \
             "dcn: above 0, a cross layer's matrix is the product of two of so many columns: faster for wide inputs " \
             "(a quarter of the input's width is a good start); 0: a full matrix"},                                   \
    {                                                                                                                 \
#tower ".fusion", PARAM_FIXED, 0, 0, .default_text = "late", .advice = COMBINES EACH_TOWER                    \
    }

static const struct param rows[] = {
    {"data.users.path", PARAM_PATH, AT(data.users.path), .need = PARAM_NEEDED_INSIDE,
     .sentence = "file of users and their columns; without data.users the user tower knows only ids and histories"},
    {"data.users.id", PARAM_STRING, AT(data.users.id),
     .sentence = "its column with the user id (default: the name in data.events.user)"},
    {"data.users.columns", PARAM_STRINGS, AT(data.columns_users),
     .sentence = "names of its columns when header is false"},
    {"data.items.path", PARAM_PATH, AT(data.items.path), .need = PARAM_NEEDED_INSIDE,
     .sentence = "file of items and their columns; without data.items the item tower knows only ids"},
    {"data.items.id", PARAM_STRING, AT(data.items.id),
     .sentence = "its column with the item id (default: the name in data.events.item)"},
    {"data.items.columns", PARAM_STRINGS, AT(data.columns_items),
     .sentence = "names of its columns when header is false"},
    {"data.events.path", PARAM_PATH, AT(data.events.path), .need = PARAM_NEEDED,
     .sentence = "file of events: a row for each time a user met an item"},
    {"data.events.user", PARAM_STRING, AT(data.events.user), .need = PARAM_NEEDED,
     .sentence = "its column with the user id"},
    {"data.events.item", PARAM_STRING, AT(data.events.item), .need = PARAM_NEEDED,
     .sentence = "its column with the item id"},
    {"data.events.time", PARAM_STRING, AT(data.events.time),
     .sentence = "its column with the time, a number or ISO 8601; absent: none"},
    {"data.events.label", PARAM_STRING, AT(data.events.label),
     .sentence = "its column with a number that says how good the event is; absent: every row is a positive"},
    {"data.events.label_min", PARAM_FLOAT, AT(data.events.label_min), .default_text = "1", .min = -1e15, .max = 1e15,
     .sentence = "rows with a label below are dropped, the others are positives"},
    {"data.events.weight", PARAM_STRING, AT(data.events.weight),
     .sentence = "its column with a number >= 0: how much the event counts in training; 0 leaves it out; absent: all "
                 "alike"},
    {"data.events.columns", PARAM_STRINGS, AT(data.columns_events),
     .sentence = "names of its columns when header is false"},
    {"data.delimiter", PARAM_SEPARATOR, AT(data.delimiter), .default_text = ",",
     .sentence = "between fields of all files, 1 to 4 bytes; one byte allows quoted fields"},
    {"data.header", PARAM_BOOL, AT(data.header), .default_text = "true",
     .sentence = "the first line of each file names its columns"},
    {"data.max_bad_rows", PARAM_INT, AT(data.max_bad_rows), .default_text = "0", .min = 0, .max = PARAM_WHOLE_MAX,
     .unit = "rows",
     .sentence = "rows of each file that may be unusable (they are counted and reported) before it is an error"},
    {"data.split.method", PARAM_ENUM, AT(data.split.method), .default_text = "none", .words = split_method_words,
     .need = PARAM_NEEDED_INSIDE,
     .sentence = "what is kept for the test: nothing, each user's last events, the latest events of all, or a file"},
    {"data.split.n", PARAM_INT, AT(data.split.n), .default_text = "1", .min = 1, .max = 1000, .unit = "events a user",
     .sentence = "leave_last: how many"},
    {"data.split.fraction", PARAM_FLOAT, AT(data.split.fraction), .default_text = "0.1", .min = 0.0001, .max = 0.9,
     .unit = "of the events", .sentence = "time: how many"},
    {"data.split.test", PARAM_PATH, AT(data.split.test),
     .sentence = "file: the test events, with the columns of the events"},
    TOWER_ROWS(user_tower),
    TOWER_ROWS(item_tower),
    {"similarity", PARAM_ENUM, AT(similarity), .default_text = "cosine", .words = similarity_words,
     .advice = TRAIN_EARLY_FUSION, .sentence = "how the towers' vectors are compared"},
    {"loss.type", PARAM_ENUM, AT(loss.type), .default_text = "softmax", .words = loss_type_words,
     .sentence =
         "softmax: the positive against all negatives at once; bilateral: the same with both sides weighed apart; "
         "pointwise: binary cross-entropy; triplet_hinge, triplet_logistic: the positive ahead of each negative"},
    {"loss.temperature", PARAM_FLOAT, AT(loss.temperature), .default_text = "0.1", .min = 0.001, .max = 100,
     .sentence = "softmax, bilateral: scores are divided by it; lower looks harder at the best negatives"},
    {"loss.balance", PARAM_FLOAT, AT(loss.balance), .default_text = "1.2", .min = 0.1, .max = 10,
     .sentence = "bilateral: how much the negatives' side weighs against the positive's"},
    {"loss.logq", PARAM_BOOL, AT(loss.logq), .default_text = "true",
     .sentence = "softmax, bilateral: take log of each item's sampling probability off its score, so that popular "
                 "items are not punished "
                 "for being negatives often"},
    {"loss.logq_estimator", PARAM_ENUM, AT(loss.logq_estimator), .default_text = "counts",
     .words = logq_estimator_words,
     .sentence = "where in-batch probabilities come from: counts of the training part, or a streaming estimate from "
                 "the batches themselves, in memory that does not grow with the catalogue"},
    {"loss.scale", PARAM_FLOAT, AT(loss.scale), .default_text = "10", .min = 0.001, .max = 1000,
     .sentence = "pointwise: scores are multiplied by it before the sigmoid"},
    {"loss.learn", PARAM_BOOL, AT(loss.learn), .default_text = "false",
     .sentence = "softmax, pointwise: train the temperature or scale, too, from the value given"},
    {"loss.negatives_per_positive", PARAM_FLOAT, AT(loss.negatives_per_positive), .default_text = "3", .min = 0.01,
     .max = 10000, .sentence = "pointwise: a row's negatives weigh together as many as this, however many they are"},
    {"loss.margin", PARAM_FLOAT, AT(loss.margin), .default_text = "0.5", .min = 0, .max = 1000,
     .sentence = "triplet_hinge: how far a positive must be ahead of a negative to cost nothing"},
    {"loss.sigma", PARAM_FLOAT, AT(loss.sigma), .default_text = "10", .min = 0.001, .max = 1000,
     .sentence = "triplet_logistic: differences of scores are multiplied by it; 1 with similarity dot is BPR"},
    {"negatives.in_batch", PARAM_BOOL, AT(negatives.in_batch), .default_text = "true",
     .sentence = "the other positives of a batch are negatives"},
    {"negatives.uniform", PARAM_INT, AT(negatives.uniform), .default_text = "0", .min = 0, .max = 65536,
     .unit = "items", .sentence = "negatives drawn evenly from all items"},
    {"negatives.popularity", PARAM_INT, AT(negatives.popularity), .default_text = "0", .min = 0, .max = 65536,
     .unit = "items", .sentence = "negatives drawn in proportion to (events of the item)^popularity_alpha"},
    {"negatives.popularity_alpha", PARAM_FLOAT, AT(negatives.popularity_alpha), .default_text = "0.75", .min = 0,
     .max = 2, .sentence = "0: evenly among items with an event; 1: as often as in the events"},
    {"negatives.draw", PARAM_ENUM, AT(negatives.draw), .default_text = "auto", .words = negatives_draw_words,
     .sentence =
         "uniform and popularity are drawn for each batch, shared by its rows, or for each row; auto: batch for "
         "softmax and bilateral, row for the others"},
    {"negatives.mask_seen", PARAM_BOOL, AT(negatives.mask_seen), .default_text = "true",
     .sentence = "a user's own train items (his latest 1,024) are never negatives for him"},
    {"negatives.hard.source", PARAM_ENUM, AT(negatives.hard.source), .default_text = "none", .words = hard_source_words,
     .sentence = "negatives that are hard to tell from positives. file: pairs that were recalled and later dropped; "
                 "mined: near the boundary, by the index of an earlier bundle"},
    {"negatives.hard.file", PARAM_PATH, AT(negatives.hard.file),
     .sentence = "file: user,item pairs, with the columns of the events"},
    {"negatives.hard.bundle", PARAM_PATH, AT(negatives.hard.bundle),
     .sentence = "mined: the earlier bundle, like models/current"},
    {"negatives.hard.ranks", PARAM_INTS, AT(negatives.hard.ranks),
     .count_offset = offsetof(struct train_config, negatives.hard.n_ranks), .min = 1, .max = 100000,
     .sentence = "mined: the first and last rank of the window (default: [101, 500]); earlier ranks are too often "
                 "positives that were never shown"},
    {"negatives.hard.per_user", PARAM_INT, AT(negatives.hard.per_user), .default_text = "32", .min = 1, .max = 10000,
     .unit = "items",
     .sentence = "mined: how many of the window, drawn at random, are kept for a user (all of a "
                 "smaller window)"},
    {"negatives.hard.easy_per_hard", PARAM_FLOAT, AT(negatives.hard.easy_per_hard), .default_text = "100", .min = 0.01,
     .max = 1e6, .sentence = "how many of the other negatives a row meets for each hard one"},
    {"negatives.exposed", PARAM_INT, AT(negatives.exposed), .default_text = "0", .min = 0, .max = 1000,
     .unit = "items a row",
     .sentence = "negatives from what the user was shown and did not click (events whose label is below label_min); "
                 "needs allow_exposed"},
    {"negatives.allow_exposed", PARAM_BOOL, AT(negatives.allow_exposed), .default_text = "false",
     .sentence = "yes, exposed negatives: they were good enough to be recalled, and telling them from clicks is the "
                 "work of ranking"},
    {"optimizer.type", PARAM_ENUM, AT(optimizer.type), .default_text = "adagrad", .words = optimizer_type_words,
     .sentence = "how gradients become steps: adagrad; adam, in which every row of every table moves with its momentum "
                 "at every "
                 "step; lazy_adam, in which only the rows of a batch do; sgd, with or without momentum"},
    {"optimizer.lr", PARAM_FLOAT, AT(optimizer.lr), .default_text = "0.1", .min = 1e-6, .max = 100,
     .sentence = "learning rate: adagrad works around 0.1, adam and lazy_adam around 0.001"},
    {"optimizer.schedule.type", PARAM_ENUM, AT(optimizer.schedule.type), .default_text = "constant",
     .words = schedule_type_words,
     .sentence = "how the learning rate goes on from lr: by steps, or along half a cosine"},
    {"optimizer.schedule.warmup", PARAM_FLOAT, AT(optimizer.schedule.warmup), .default_text = "0", .min = 0, .max = 1e9,
     .unit = "steps, or share",
     .sentence = "the rate rises to lr over so many steps (batches); below 1: share of all steps"},
    {"optimizer.schedule.every", PARAM_INT, AT(optimizer.schedule.every), .default_text = "10", .min = 1, .max = 10000,
     .unit = "epochs", .sentence = "step: how long until the rate drops"},
    {"optimizer.schedule.factor", PARAM_FLOAT, AT(optimizer.schedule.factor), .default_text = "0.1", .min = 1e-6,
     .max = 1, .sentence = "step: what is left of the rate after a drop"},
    {"optimizer.schedule.end_lr", PARAM_FLOAT, AT(optimizer.schedule.end_lr), .default_text = "0", .min = 0, .max = 100,
     .sentence = "cosine: the rate after the last of `epochs`"},
    {"optimizer.momentum", PARAM_FLOAT, AT(optimizer.momentum), .default_text = "0.9", .min = 0, .max = 0.99,
     .sentence = "sgd: share of the last step that goes on"},
    {"optimizer.weight_decay", PARAM_FLOAT, AT(optimizer.weight_decay), .default_text = "0", .min = 0, .max = 100,
     .sentence =
         "each step takes lr * weight_decay of every weight off it (not of biases); of a table's rows with adagrad and "
         "lazy_adam only where the batch meets them"},
    {"optimizer.clip_norm", PARAM_FLOAT, AT(optimizer.clip_norm), .default_text = "0", .min = 0, .max = 1e9,
     .sentence = "a batch's gradient that is longer, over all parameters, is scaled down to this length; 0: never"},
    {"optimizer.init_scale", PARAM_FLOAT, AT(optimizer.init_scale), .default_text = "0.1", .min = 1e-6, .max = 10,
     .sentence = "standard deviation of the embeddings at the start"},
    {"optimizer.batch_size", PARAM_INT, AT(optimizer.batch_size), .default_text = "1024", .min = 1, .max = 65536,
     .unit = "events", .sentence = "positives a step; with in_batch also the number of negatives"},
    {"optimizer.epochs", PARAM_INT, AT(optimizer.epochs), .default_text = "20", .min = 1, .max = 10000,
     .unit = "epochs", .sentence = "passes over the events; the most there will be with early_stop"},
    {"optimizer.early_stop.metric", PARAM_TEXT, AT(optimizer.early_stop.metric), .default_text = "recall@20",
     .sentence =
         "what is watched on the validation part: recall@K, ndcg@K, hit_rate@K, mrr. Without the key early_stop, "
         "training runs all epochs; `early_stop: {}` turns it on with defaults"},
    {"optimizer.early_stop.patience", PARAM_INT, AT(optimizer.early_stop.patience), .default_text = "3", .min = 1,
     .max = 1000, .unit = "epochs", .sentence = "how many without improvement end the training"},
    {"optimizer.early_stop.validation", PARAM_FLOAT, AT(optimizer.early_stop.validation), .default_text = "0.1",
     .min = 0.001, .max = 0.5, .unit = "of the events",
     .sentence =
         "cut from the training part as the test part was cut: of each user the last ones (at most this share: of a "
         "random part of the users if need be), the latest of all, or, with a test file that is not later, random "
         "ones"},
    {"optimizer.early_stop.refit", PARAM_BOOL, AT(optimizer.early_stop.refit), .default_text = "true",
     .sentence = "train again on the whole training part for the best number of epochs"},
    {"evaluate.max_users", PARAM_INT, AT(evaluate.max_users), .default_text = "0", .min = 0, .max = PARAM_WHOLE_MAX,
     .unit = "users",
     .sentence = "of the test part, chosen at random, that are ranked for; 0: all, up to 2 * 10^10 pairs of user and "
                 "item (then a warning says so)"},
    {"evaluate.baselines", PARAM_STRINGS, AT(evaluate.baselines),
     .sentence =
         "what is ranked beside the model: popularity, item_cf, matrix_completion (default: all, but the last, "
         "which has to be trained, only where the model is more than ids, and with up to 500,000 train events)"},
    {"evaluate.slices", PARAM_STRINGS, AT(evaluate.slices),
     .sentence = "onehot and categorical features by whose values the report breaks metrics down (default: those with "
                 "at most 30 values); new users, new items and popularity always are"},
    {"seed", PARAM_INT, AT(seed), .default_text = "1", .min = 0, .max = PARAM_WHOLE_MAX,
     .sentence = "of all random numbers: same seed and threads, same weights"},
    {"threads", PARAM_INT, AT(threads), .default_text = "0", .min = 0, .max = 1024, .unit = "threads",
     .sentence = "0: one a core"},
    {"checkpoint.enabled", PARAM_BOOL, AT(checkpoint.enabled), .default_text = "true",
     .sentence =
         "keep what `fit --resume` goes on from after a crash, as output.dir/.checkpoint; removed when published"},
    {"checkpoint.every", PARAM_DURATION, AT(checkpoint.every_ms), .default_text = "5m", .min = 0, .max = 604800000,
     .sentence = "one after each epoch, and within an epoch when the last is so old; 0: only after each epoch"},
    {"output.dir", PARAM_PATH, AT(output.dir), .default_text = "models",
     .sentence = "directory of the published bundles and of the link `current`"},
    {"output.user_profiles", PARAM_BOOL, AT(output.user_profiles), .default_text = "false",
     .sentence = "put what is known of each user into the bundle (features, history), so that a request need only name "
                 "the user"},
    {"index.engine", PARAM_WORD, AT(index.engine), .default_text = "native", .words = index_engine_words,
     .sentence =
         "native: lists and codes of our own; faiss: any index that faiss makes; flat: exact, compares every item"},
    {"index.factory", PARAM_TEXT, AT(index.factory), .default_text = "HNSW32",
     .sentence = "faiss: what to build, in the language of faiss' index_factory; who says it means engine: faiss"},
    {"index.target_recall", PARAM_FLOAT, AT(index.target_recall), .default_text = "0.98", .min = 0.5, .max = 1,
     .sentence = "recall@100 against the exact answer that the default search effort is tuned for"},
    {"fusion", PARAM_FIXED, 0, 0, .default_text = "late", .advice = COMBINES EACH_TOWER},
    {"features", PARAM_FIXED, 0, 0, .advice = COMBINES EACH_TOWER},
    {"network", PARAM_FIXED, 0, 0, .advice = COMBINES EACH_TOWER},
    {"tower", PARAM_FIXED, 0, 0, .advice = COMBINES EACH_TOWER},
    {"cross", PARAM_FIXED, 0, 0, .advice = COMBINES EACH_TOWER},
    {"interaction", PARAM_FIXED, 0, 0, .advice = COMBINES EACH_TOWER},
};
static const struct param_table table = {rows, sizeof rows / sizeof rows[0]};

/* Defaults that depend on other values. */
static void default_negatives(struct train_config *c, const struct node *root)
{
    bool softmax = c->loss.type == LOSS_SOFTMAX || c->loss.type == LOSS_BILATERAL;
    if (node_path(root, "negatives.hard.ranks") == NULL) {
        c->negatives.hard.ranks[0] = 101;
        c->negatives.hard.ranks[1] = 500;
        c->negatives.hard.n_ranks = 2;
    }
    const uint32_t *ranks = c->negatives.hard.ranks;
    if (node_path(root, "negatives.hard.per_user") == NULL && c->negatives.hard.n_ranks == 2 && ranks[0] <= ranks[1] &&
        c->negatives.hard.per_user > ranks[1] - ranks[0] + 1) {
        c->negatives.hard.per_user = ranks[1] - ranks[0] + 1;
    }
    if (c->negatives.draw == DRAW_AUTO) {
        c->negatives.draw = softmax ? DRAW_BATCH : DRAW_ROW;
    }
}

/* Ids that the tables do not name are called as in the events. */
static void default_id(char **id, const char *event_column, struct problems *problems)
{
    if (*id == NULL && event_column != NULL) {
        *id = mem_strdup(event_column);
        if (*id == NULL) {
            problem_nomem(problems);
        }
    }
}

/* Settings that the type does not use are 0. */
static void settle_network(struct network *network)
{
    if (network->type != NETWORK_DCN) {
        network->cross_layers = 0;
        network->cross_rank = 0;
    }
}

static void write_text(struct train_config *config, const struct node *root, struct problems *problems)
{
    struct buf text = BUF_INIT;
    yaml_write(root, &text);
    config->text = buf_failed(&text) ? NULL : mem_strndup(text.data, text.len);
    if (config->text == NULL) {
        problem_nomem(problems);
    }
    buf_release(&text);
}

/* Who names a factory means the engine that has them. */
static void default_engine(struct train_config *config, const struct node *root)
{
    if (node_path(root, "index.engine") == NULL && node_path(root, "index.factory") != NULL) {
        snprintf(config->index.engine, sizeof config->index.engine, "faiss");
    }
}

static void read_rest(struct train_config *config, const struct node *root, struct problems *problems)
{
    feature_configs_read(node_path(root, "user_tower.features"), "user_tower.features", &config->user_tower, problems);
    feature_configs_read(node_path(root, "item_tower.features"), "item_tower.features", &config->item_tower, problems);
    config->optimizer.early_stop.enabled = node_path(root, "optimizer.early_stop") != NULL;
    default_negatives(config, root);
    default_engine(config, root);
}

static struct train_config *read_tree(const struct node *root, struct problems *problems)
{
    struct train_config *config = mem_array(1, sizeof *config);
    if (config == NULL) {
        problem_nomem(problems);
        return NULL;
    }
    param_read(&table, root, "", config, problems);
    read_rest(config, root, problems);
    default_id(&config->data.users.id, config->data.events.user, problems);
    default_id(&config->data.items.id, config->data.events.item, problems);
    settle_network(&config->user_tower.network);
    settle_network(&config->item_tower.network);
    train_checks_run(config, root, problems);
    write_text(config, root, problems);
    return config;
}

struct train_config *train_config_load(const char *path, const char *const *sets, size_t n_sets, struct buf *problems)
{
    struct problems list = {.file = path, .out = problems};
    struct train_config *config = NULL;
    struct node *root = yaml_load(path, &list);
    if (root != NULL) {
        param_set(&table, root, sets, n_sets, &list);
        config = read_tree(root, &list);
    }
    problems_finish(&list);
    node_free(root);
    if (list.count > 0) {
        train_config_free(config);
        return NULL;
    }
    return config;
}

struct train_config *train_config_matrix_completion(uint32_t dim, uint32_t batch_size, uint32_t epochs, uint64_t seed)
{
    char text[640];
    struct buf lines = BUF_INIT;
    struct problems problems = {.file = "matrix_completion", .out = &lines};
    int n = snprintf(text, sizeof text,
                     "data: {events: {path: none, user: id, item: id}}\n"
                     "user_tower: {features: [{name: id, type: id, dim: %u}]}\n"
                     "item_tower: {features: [{name: id, type: id, dim: %u}]}\n"
                     "similarity: dot\n"
                     "loss: {type: softmax, temperature: 1}\n"
                     "optimizer: {type: adagrad, lr: 0.1, batch_size: %u, epochs: %u, early_stop: {patience: 2}}\n"
                     "seed: %llu\n",
                     dim, dim, batch_size, epochs, (unsigned long long)seed);
    struct node *root = yaml_parse(text, (size_t)n, &problems);
    struct train_config *config = root == NULL ? NULL : mem_array(1, sizeof *config);
    if (config != NULL) {
        param_read(&table, root, "", config, &problems);
        read_rest(config, root, &problems);
    }
    problems_finish(&problems);
    node_free(root);
    buf_release(&lines);
    if (problems.count > 0) {
        train_config_free(config);
        return NULL;
    }
    return config;
}

void train_config_free(struct train_config *config)
{
    if (config == NULL) {
        return;
    }
    feature_configs_release(&config->user_tower);
    feature_configs_release(&config->item_tower);
    param_release(&table, config);
    mem_free(config->text);
    mem_free(config);
}

void train_config_describe(struct buf *out, bool markdown)
{
    param_describe_head(out, markdown);
    param_describe(&table, "", out, markdown);
    if (markdown) {
        buf_puts(out, "\nEach feature, in `user_tower.features` and `item_tower.features`:\n\n");
        param_describe_head(out, markdown);
    }
    feature_configs_describe(out, markdown);
}
