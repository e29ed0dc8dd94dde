/*
 * Checks across values of a training configuration: late fusion, features that have no source, towers that cannot be
 * compared, keys that contradict each other, files that are not there.
 *
 * The most important one is late fusion. The product answers a request with one pass of the user tower and one
 * nearest-neighbour search over item vectors computed before. That works only if an item's vector does not depend on
 * the user: a user tower that reads the item, or an item tower that reads the user, would make every item's vector a
 * different one for every request. By names: a tower must not read the other side's id column. Other columns cannot
 * cross over, because a tower's features come from its own side's table; a column that is not there is found when the
 * file is opened. A history (type sequence) holds items that the user met before the event, which is the user's own
 * past: it stays allowed in the user tower.
 *
 * Every check runs, whatever others found; each looks only at members that were read.
 */
#include "config/train_checks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/param.h"

struct check {
    const struct train_config *config;
    const struct node *root;
    struct problems *problems;
};

/* Adds a problem at a key's place in the tree, or at its nearest ancestor's. */
#define PROBLEM(c, key, ...) problem_add((c)->problems, param_place((c)->root, (key)), (key), __VA_ARGS__)

static bool same(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static bool is_given(const struct check *c, const char *path)
{
    return node_path(c->root, path) != NULL;
}

/* A word that could not be read left its default behind: what follows from it would only confuse. */
static bool word_was_read(const struct check *c, const char *path, const char *word)
{
    const struct node *node = node_path(c->root, path);
    return node == NULL || (node->kind == NODE_SCALAR && strcmp(node->text, word) == 0);
}

/* --- files and columns ---------------------------------------------------------------------------------------------- */

static void check_file(const struct check *c, const char *key, const char *path)
{
    if (path == NULL) {
        return;
    }
    struct stat st;
    int missing = stat(path, &st);
    if (missing == 0 && !S_ISREG(st.st_mode)) {
        PROBLEM(c, key, "%s is not a regular file", problem_quote(path).text);
    } else if (missing != 0 || access(path, R_OK) != 0) {
        PROBLEM(c, key,
                "cannot read %s: %s; relative paths start at the configuration file's directory (those of --set "
                "at the working directory)",
                problem_quote(path).text, strerror(errno));
    }
}

static void check_files(const struct check *c)
{
    check_file(c, "data.users.path", c->config->data.users.path);
    check_file(c, "data.items.path", c->config->data.items.path);
    check_file(c, "data.events.path", c->config->data.events.path);
    check_file(c, "negatives.hard.file", c->config->negatives.hard.file);
    if (c->config->data.split.method == SPLIT_FILE) {
        check_file(c, "data.split.test", c->config->data.split.test);
    }
}

static bool has_column(char *const *columns, const char *column)
{
    while (*columns != NULL && strcmp(*columns, column) != 0) {
        columns++;
    }
    return *columns != NULL;
}

static void check_column(const struct check *c, char *const *columns, const char *key, const char *column)
{
    if (column == NULL || has_column(columns, column)) {
        return;
    }
    PROBLEM(c, key, "%s is not among the columns that the table's `columns` names", problem_quote(column).text);
}

/* One table: with header false its columns are named here, else they are not. */
static bool check_table_columns(const struct check *c, const char *table, const char *path, char *const *columns)
{
    struct key_path key = key_join(table, "columns");
    if (c->config->data.header && columns != NULL) {
        PROBLEM(c, key.text, "is for files without a header line; add data.header: false, or remove it");
    } else if (!c->config->data.header && columns == NULL && path != NULL) {
        PROBLEM(c, key.text,
                "is missing; with data.header: false it names the file's columns, like [user_id, gender, age]");
    }
    return !c->config->data.header && columns != NULL;
}

static void check_columns(const struct check *c)
{
    const struct train_config *config = c->config;
    if (check_table_columns(c, "data.users", config->data.users.path, config->data.columns_users)) {
        check_column(c, config->data.columns_users, "data.users.id", config->data.users.id);
    }
    if (check_table_columns(c, "data.items", config->data.items.path, config->data.columns_items)) {
        check_column(c, config->data.columns_items, "data.items.id", config->data.items.id);
    }
    char **events = config->data.columns_events;
    if (check_table_columns(c, "data.events", config->data.events.path, events)) {
        check_column(c, events, "data.events.user", config->data.events.user);
        check_column(c, events, "data.events.item", config->data.events.item);
        check_column(c, events, "data.events.time", config->data.events.time);
        check_column(c, events, "data.events.label", config->data.events.label);
        check_column(c, events, "data.events.weight", config->data.events.weight);
    }
    if (same(config->data.events.user, config->data.events.item)) {
        PROBLEM(c, "data.events.item", "is the same column as data.events.user");
    }
}

/* --- split ---------------------------------------------------------------------------------------------------------- */

static void check_split_key(const struct check *c, const char *key, enum split_method method)
{
    struct key_path path = key_join("data.split", key);
    if (c->config->data.split.method != method && is_given(c, path.text)) {
        PROBLEM(c, path.text, "has no effect with method %s; it is for method %s",
                split_method_words[c->config->data.split.method], split_method_words[method]);
    }
}

static void check_split(const struct check *c)
{
    enum split_method method = c->config->data.split.method;
    if (!is_given(c, "data.split.method") || !word_was_read(c, "data.split.method", split_method_words[method])) {
        return;
    }
    check_split_key(c, "n", SPLIT_LEAVE_LAST);
    check_split_key(c, "fraction", SPLIT_TIME);
    check_split_key(c, "test", SPLIT_FILE);
    if (method == SPLIT_FILE && !is_given(c, "data.split.test")) {
        PROBLEM(c, "data.split.test", "is missing; method file needs the file of test events");
    }
    if (method == SPLIT_TIME && c->config->data.events.time == NULL) {
        PROBLEM(c, "data.split.method",
                "time needs to know when events happened; add data.events.time: the column of times");
    }
}

/* --- towers --------------------------------------------------------------------------------------------------------- */

/* A tower, and what it has to know about its side. */
struct tower {
    const char *key;   /* "user_tower" */
    const char *side;  /* "user" */
    const char *other; /* "item" */
    const char *table; /* "data.users" */
    const struct tower_config *config;
    const struct table_config *own, *others;
    const char *event_id, *others_event_id;       /* columns of events */
    char *const *columns, *const *others_columns; /* of the tables, when the files have no header; else NULL */
};

static struct key_path feature_key(const struct tower *t, size_t i, const char *member)
{
    return key_element(key_join(t->key, "features").text, i, member);
}

static bool is_own_id(const struct tower *t, const char *name)
{
    return same(name, t->own->id) || same(name, t->event_id);
}

/* True when there was a problem: the feature is the other side's. */
static bool check_late_fusion(const struct check *c, const struct tower *t, size_t i)
{
    const struct feature_config *f = &t->config->features[i];
    bool user_side = strcmp(t->side, "user") == 0;
    if (is_own_id(t, f->name) || (f->type == FEATURE_SEQUENCE && user_side)) {
        return false;
    }
    bool is_id = same(f->name, t->others->id) || same(f->name, t->others_event_id);
    bool is_column = t->others_columns != NULL && has_column(t->others_columns, f->name) &&
                     (t->columns == NULL || !has_column(t->columns, f->name));
    if (!is_id && !is_column) {
        return false;
    }
    PROBLEM(c, feature_key(t, i, "name").text,
            "%s is %s %s %s, which the %s tower must not read: " TRAIN_EARLY_FUSION
            ". Keep the feature in the %s tower%s; "
            "early fusion belongs to ranking",
            problem_quote(f->name).text, is_id ? "the" : "a column of the", t->other, is_id ? "id" : "table", t->side,
            t->other, user_side ? ", or use type sequence for a history of items" : "");
    return true;
}

/* The item tower's only feature of type id, or NULL. */
static const struct feature_config *find_item_id(const struct train_config *config)
{
    const struct feature_config *found = NULL;
    for (size_t i = 0; i < config->item_tower.n_features; i++) {
        if (config->item_tower.features[i].type == FEATURE_ID) {
            if (found != NULL) {
                return NULL;
            }
            found = &config->item_tower.features[i];
        }
    }
    return found;
}

static void check_sequence(const struct check *c, const struct tower *t, size_t i)
{
    const struct feature_config *f = &t->config->features[i];
    const struct events_config *events = &c->config->data.events;
    if (strcmp(t->side, "item") == 0) {
        PROBLEM(c, feature_key(t, i, "type").text,
                "sequence is only possible in the user tower: it is the history of a user");
        return;
    }
    if (f->of != NULL && !same(f->of, events->item) && !same(f->of, c->config->data.items.id)) {
        PROBLEM(c, feature_key(t, i, "of").text, "%s is not the item id column%s%s; a history holds item ids",
                problem_quote(f->of).text, events->item != NULL ? ", which is " : "",
                events->item != NULL ? problem_quote(events->item).text : "");
    }
    if (f->shared && find_item_id(c->config) == NULL) {
        PROBLEM(c, feature_key(t, i, "shared").text,
                "needs one feature of type id in the item tower, whose embeddings the history uses (an id that is "
                "hashed or categorical has none to share); add it, or remove shared");
    }
    if (events->time == NULL && f->pooling == POOLING_RECENCY) {
        PROBLEM(c, feature_key(t, i, "pooling").text,
                "recency needs to know when events happened; add data.events.time: the column of times, or use mean");
    }
    for (size_t j = 0; j < i; j++) {
        if (t->config->features[j].type == FEATURE_SEQUENCE) {
            PROBLEM(c, feature_key(t, i, "type").text, "a second sequence; this version has one history a tower");
            return;
        }
    }
}

/* Where the feature's values come from. */
static void check_source(const struct check *c, const struct tower *t, size_t i)
{
    const struct feature_config *f = &t->config->features[i];
    if (f->type == FEATURE_ID && !is_own_id(t, f->name)) {
        PROBLEM(c, feature_key(t, i, "name").text,
                "%s is not the %s id column%s%s; type id is the %s's own id, other columns "
                "are categorical",
                problem_quote(f->name).text, t->side, t->own->id != NULL ? ", which is " : "",
                t->own->id != NULL ? problem_quote(t->own->id).text : "", t->side);
    } else if (f->type == FEATURE_SEQUENCE) {
        check_sequence(c, t, i);
    } else if (f->type != FEATURE_ID && !is_given(c, t->table)) {
        PROBLEM(c, feature_key(t, i, "name").text,
                "there is no %s table to read %s from; add %s: {path: ..., id: ...}. Without it the %s tower may only "
                "use its "
                "id%s",
                t->side, problem_quote(f->name).text, t->table, t->side,
                strcmp(t->side, "user") == 0 ? " and a sequence" : "");
    } else if (f->type != FEATURE_ID && t->columns != NULL) {
        check_column(c, t->columns, feature_key(t, i, "name").text, f->name);
    }
}

static void check_features(const struct check *c, const struct tower *t)
{
    for (size_t i = 0; i < t->config->n_features; i++) {
        const struct feature_config *f = &t->config->features[i];
        struct key_path type = feature_key(t, i, "type");
        if (f->name == NULL || !is_given(c, type.text) || !word_was_read(c, type.text, feature_type_words[f->type])) {
            continue;
        }
        for (size_t j = 0; j < i; j++) {
            if (same(f->name, t->config->features[j].name)) {
                PROBLEM(c, feature_key(t, i, "name").text,
                        "%s is the name of feature %zu, too; names are unique in a tower", problem_quote(f->name).text,
                        j);
                break;
            }
        }
        if (!check_late_fusion(c, t, i)) {
            check_source(c, t, i);
        }
    }
}

enum { MLP = 1 << NETWORK_MLP, DCN = 1 << NETWORK_DCN };

/* Keys of `network` that not every type has. */
static const struct network_key {
    const char *key;
    unsigned types;
    const char *instead;
} network_keys[] = {
    {"layers", MLP | DCN, "mlp"},  {"activation", MLP | DCN, "mlp"}, {"layer_norm", MLP | DCN, "mlp"},
    {"dropout", MLP | DCN, "mlp"}, {"residual", MLP | DCN, "mlp"},   {"cross_layers", DCN, "dcn"},
    {"cross_rank", DCN, "dcn"},
};

/* What acts between layers needs two of them. */
static void check_between(const struct check *c, const struct tower *t, const char *member, bool is_on)
{
    if (is_on && t->config->network.n_widths == 1) {
        PROBLEM(c, key_join(t->key, member).text,
                "has no effect with one layer: it acts between layers; add a layer, or remove it");
    }
}

static void check_network(const struct check *c, const struct tower *t)
{
    const struct network *network = &t->config->network;
    struct key_path prefix = key_join(t->key, "network");
    struct key_path layers = key_join(prefix.text, "layers");
    const char *type = network_type_words[network->type];
    if (!word_was_read(c, key_join(prefix.text, "type").text, type)) {
        return;
    }
    for (size_t i = 0; i < sizeof network_keys / sizeof network_keys[0]; i++) {
        struct key_path key = key_join(prefix.text, network_keys[i].key);
        if (is_given(c, key.text) && (network_keys[i].types & 1U << network->type) == 0) {
            PROBLEM(c, key.text, "has no effect with type %s; use type: %s, or remove it", type,
                    network_keys[i].instead);
        }
    }
    if (network->type == NETWORK_NONE) {
        return;
    }
    if (!is_given(c, layers.text)) {
        PROBLEM(c, layers.text,
                "is missing; type %s needs the widths of its layers, like [128, 64]; the last is the length "
                "of the tower's vector",
                type);
        return;
    }
    check_between(c, t, "network.layer_norm", network->layer_norm);
    check_between(c, t, "network.dropout", network->dropout > 0);
    if (network->residual && network->n_widths > 0 && !network_has_equal_widths(network)) {
        PROBLEM(
            c, key_join(prefix.text, "residual").text,
            "has no effect: no layer is as wide as the one before it; use layers like [128, 128, 64], or remove it");
    }
}

/* Length of the tower's vector, 0 when only the data can tell (onehot without a network). */
static uint64_t output_length(const struct tower_config *t, const struct feature_config *item_id)
{
    if (t->network.type != NETWORK_NONE) {
        return t->network.n_widths > 0 ? t->network.widths[t->network.n_widths - 1] : 0;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < t->n_features; i++) {
        const struct feature_config *f = &t->features[i];
        bool plain_number = f->type == FEATURE_NUMERIC && f->transform != TRANSFORM_BUCKETIZE;
        uint64_t width = plain_number ? 2
                         : f->shared  ? item_id->dim
                                      : f->dim; /* the number, and 1 when it is missing */
        if (width == 0) {
            return 0;
        }
        length += width;
    }
    return length;
}

static void check_lengths(const struct check *c)
{
    uint64_t user = output_length(&c->config->user_tower, find_item_id(c->config));
    uint64_t item = output_length(&c->config->item_tower, find_item_id(c->config));
    if (user > 0 && item > 0 && user != item) {
        PROBLEM(
            c, "item_tower",
            "the item tower's vectors have %llu numbers and the user tower's %llu; they must be equal to be compared: "
            "change the last layer, or, without a network, the dims (which are added up)",
            (unsigned long long)item, (unsigned long long)user);
    }
}

static void check_towers(const struct check *c)
{
    const struct train_config *config = c->config;
    const struct tower towers[] = {
        {"user_tower", "user", "item", "data.users", &config->user_tower, &config->data.users, &config->data.items,
         config->data.events.user, config->data.events.item, config->data.columns_users, config->data.columns_items},
        {"item_tower", "item", "user", "data.items", &config->item_tower, &config->data.items, &config->data.users,
         config->data.events.item, config->data.events.user, config->data.columns_items, config->data.columns_users},
    };
    size_t before = c->problems->count;
    for (size_t i = 0; i < sizeof towers / sizeof towers[0]; i++) {
        check_features(c, &towers[i]);
        check_network(c, &towers[i]);
    }
    if (c->problems->count == before) {
        check_lengths(c);
    }
}

/* --- training ------------------------------------------------------------------------------------------------------- */

static bool is_metric(const char *metric)
{
    static const char *const cut_metrics[] = {"recall@", "ndcg@", "hit_rate@"};
    if (strcmp(metric, "mrr") == 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof cut_metrics / sizeof cut_metrics[0]; i++) {
        size_t n = strlen(cut_metrics[i]);
        if (strncmp(metric, cut_metrics[i], n) == 0) {
            const char *k = metric + n;
            size_t digits = strspn(k, "0123456789");
            return digits >= 1 && digits <= 4 && k[digits] == '\0' && k[0] != '0' && strtol(k, NULL, 10) <= 1000;
        }
    }
    return false;
}

/* A key of an optimizer or schedule that another one does not look at. */
static void check_effect(const struct check *c, const char *key, bool has_effect, const char *without, const char *with)
{
    if (!has_effect && is_given(c, key)) {
        PROBLEM(c, key, "has no effect with %s; use %s, or remove it", without, with);
    }
}

static void check_optimizer(const struct check *c)
{
    const struct train_config *config = c->config;
    const char *type = optimizer_type_words[config->optimizer.type];
    const struct schedule_config *s = &config->optimizer.schedule;
    const char *schedule = schedule_type_words[s->type];
    if (word_was_read(c, "optimizer.type", type)) {
        check_effect(c, "optimizer.momentum", config->optimizer.type == OPTIMIZER_SGD, type, "type: sgd");
    }
    if (word_was_read(c, "optimizer.schedule.type", schedule)) {
        check_effect(c, "optimizer.schedule.every", s->type == SCHEDULE_STEP, schedule, "type: step");
        check_effect(c, "optimizer.schedule.factor", s->type == SCHEDULE_STEP, schedule, "type: step");
        check_effect(c, "optimizer.schedule.end_lr", s->type == SCHEDULE_COSINE, schedule, "type: cosine");
    }
    if (s->end_lr > config->optimizer.lr) {
        PROBLEM(c, "optimizer.schedule.end_lr", "is above optimizer.lr (%g), where the schedule begins",
                config->optimizer.lr);
    }
    if (config->optimizer.lr * config->optimizer.weight_decay >= 1) {
        PROBLEM(c, "optimizer.weight_decay",
                "times optimizer.lr (%g) must be below 1: a step would take all of a weight off it",
                config->optimizer.lr);
    }
}

/* Keys of one loss, or of some. */
static void check_loss_keys(const struct check *c)
{
    static const struct {
        const char *key;
        unsigned losses;
    } rules[] = {
        {"loss.temperature", 1U << LOSS_SOFTMAX | 1U << LOSS_BILATERAL},
        {"loss.logq", 1U << LOSS_SOFTMAX | 1U << LOSS_BILATERAL},
        {"loss.logq_estimator", 1U << LOSS_SOFTMAX | 1U << LOSS_BILATERAL},
        {"loss.balance", 1U << LOSS_BILATERAL},
        {"loss.scale", 1U << LOSS_POINTWISE},
        {"loss.learn", 1U << LOSS_SOFTMAX | 1U << LOSS_POINTWISE},
        {"loss.negatives_per_positive", 1U << LOSS_POINTWISE},
        {"loss.margin", 1U << LOSS_TRIPLET_HINGE},
        {"loss.sigma", 1U << LOSS_TRIPLET_LOGISTIC},
    };
    enum loss_type type = c->config->loss.type;
    if (!word_was_read(c, "loss.type", loss_type_words[type])) {
        return;
    }
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if ((rules[i].losses & 1U << type) == 0 && is_given(c, rules[i].key)) {
            unsigned more = rules[i].losses & (rules[i].losses - 1); /* without the first */
            PROBLEM(c, rules[i].key, "has no effect with loss %s; it is for %s%s%s; remove it", loss_type_words[type],
                    loss_type_words[__builtin_ctz(rules[i].losses)], more != 0 ? " and " : "",
                    more != 0 ? loss_type_words[__builtin_ctz(more)] : "");
        }
    }
    if (!c->config->loss.logq && is_given(c, "loss.logq_estimator")) {
        PROBLEM(c, "loss.logq_estimator", "has no effect without logq; remove it, or use logq: true");
    }
}

static void check_hard_key(const struct check *c, const char *key, bool applies, bool needed, const char *source)
{
    struct key_path path = key_join("negatives.hard", key);
    if (!applies && is_given(c, path.text)) {
        static const char *const words[] = {[HARD_NONE] = "none", [HARD_FILE] = "file", [HARD_MINED] = "mined"};
        PROBLEM(c, path.text, "has no effect with source %s; remove it, or use source: %s",
                words[c->config->negatives.hard.source], source);
    } else if (applies && needed && !is_given(c, path.text)) {
        PROBLEM(c, path.text, "is missing; source %s needs it", source);
    }
}

static void check_hard(const struct check *c)
{
    const struct train_config *config = c->config;
    enum hard_source source = config->negatives.hard.source;
    check_hard_key(c, "file", source == HARD_FILE, true, "file");
    check_hard_key(c, "bundle", source == HARD_MINED, true, "mined");
    check_hard_key(c, "ranks", source == HARD_MINED, false, "mined");
    check_hard_key(c, "per_user", source == HARD_MINED, false, "mined");
    check_hard_key(c, "easy_per_hard", source != HARD_NONE, false, "file or mined");
    const uint32_t *ranks = config->negatives.hard.ranks;
    if (config->negatives.hard.n_ranks != 2 || ranks[0] > ranks[1]) {
        PROBLEM(c, "negatives.hard.ranks", "is the first and the last rank of a window, like [101, 500]");
    } else if (source == HARD_MINED && config->negatives.hard.per_user > ranks[1] - ranks[0] + 1) {
        PROBLEM(c, "negatives.hard.per_user", "more hard negatives are asked for than the window of ranks has (%u)",
                ranks[1] - ranks[0] + 1);
    }
}

static void check_exposed(const struct check *c)
{
    const struct train_config *config = c->config;
    if (config->negatives.exposed > 0 && !config->negatives.allow_exposed) {
        PROBLEM(
            c, "negatives.exposed",
            "what was shown and not clicked was good enough to be recalled; telling it from clicks is the work of "
            "ranking, and as negatives for recall it costs recall. Remove it, or say negatives.allow_exposed: true");
    }
    if (config->negatives.exposed == 0 && config->negatives.allow_exposed) {
        PROBLEM(c, "negatives.allow_exposed", "has no effect without negatives.exposed; remove it");
    }
    if (!config->negatives.allow_exposed) {
        return;
    }
    if (config->data.events.label == NULL) {
        PROBLEM(c, "negatives.allow_exposed",
                "without a label every event is a positive and nothing was only shown; add data.events.label: the "
                "column that tells them apart");
    } else if (config->data.events.time == NULL && config->data.split.method == SPLIT_LEAVE_LAST) {
        PROBLEM(c, "negatives.allow_exposed",
                "split leave_last needs to know when things were shown, to leave out the test period; add "
                "data.events.time: the column of times");
    }
}

static void check_negatives(const struct check *c)
{
    const struct train_config *config = c->config;
    bool shared = config->negatives.in_batch && config->optimizer.batch_size > 1;
    bool drawn = config->negatives.uniform > 0 || config->negatives.popularity > 0;
    if (!shared && !drawn) {
        PROBLEM(c, "negatives",
                "%s has nothing to compare with: use in_batch: true (and optimizer.batch_size above 1), or uniform or "
                "popularity above 0%s",
                loss_type_words[config->loss.type],
                config->negatives.hard.source != HARD_NONE || config->negatives.exposed > 0
                    ? "; hard and exposed negatives come beside easy ones"
                    : "");
    }
    if (!drawn && is_given(c, "negatives.draw")) {
        PROBLEM(c, "negatives.draw", "has no effect without uniform or popularity; remove it");
    }
    if (config->negatives.popularity == 0 && is_given(c, "negatives.popularity_alpha")) {
        PROBLEM(c, "negatives.popularity_alpha", "has no effect without popularity; remove it");
    }
    check_hard(c);
    check_exposed(c);
}

static void check_training(const struct check *c)
{
    const struct train_config *config = c->config;
    check_loss_keys(c);
    check_negatives(c);
    if (!is_metric(config->optimizer.early_stop.metric)) {
        PROBLEM(c, "optimizer.early_stop.metric",
                "%s is not known; use recall@K, ndcg@K or hit_rate@K with K from 1 to 1000, "
                "or mrr",
                problem_quote(config->optimizer.early_stop.metric).text);
    }
    if (!config->checkpoint.enabled && is_given(c, "checkpoint.every")) {
        PROBLEM(c, "checkpoint.every", "has no effect with enabled: false; remove one of the two");
    }
    if (strcmp(config->index.engine, "faiss") != 0 && is_given(c, "index.factory")) {
        PROBLEM(c, "index.factory", "has no effect with engine %s; use engine: faiss, or remove it",
                config->index.engine);
    }
    if (strcmp(config->index.engine, "flat") == 0 && is_given(c, "index.target_recall")) {
        PROBLEM(c, "index.target_recall",
                "has no effect with engine flat, which is exact; use another engine, or remove it");
    }
}

/* --- evaluation ----------------------------------------------------------------------------------------------------- */

static const struct feature_config *find_feature(const struct tower_config *t, const char *name)
{
    for (size_t i = 0; i < t->n_features; i++) {
        if (same(t->features[i].name, name)) {
            return &t->features[i];
        }
    }
    return NULL;
}

static bool is_category(const struct feature_config *f)
{
    return f != NULL && (f->type == FEATURE_ONEHOT || (f->type == FEATURE_CATEGORICAL && f->buckets == 0));
}

static void check_evaluation(const struct check *c)
{
    const struct train_config *config = c->config;
    if (is_given(c, "evaluate") && !is_given(c, "data.split.method")) {
        PROBLEM(c, "evaluate", "has no effect without a test part; add data.split, or remove it");
    }
    for (size_t i = 0; config->evaluate.baselines != NULL && config->evaluate.baselines[i] != NULL; i++) {
        const char *name = config->evaluate.baselines[i];
        if (word_find(baseline_words, name) < 0) {
            PROBLEM(c, "evaluate.baselines", "%s is not known; known: popularity, item_cf, matrix_completion",
                    problem_quote(name).text);
        }
    }
    for (size_t i = 0; config->evaluate.slices != NULL && config->evaluate.slices[i] != NULL; i++) {
        const char *name = config->evaluate.slices[i];
        if (!is_category(find_feature(&config->user_tower, name)) &&
            !is_category(find_feature(&config->item_tower, name))) {
            PROBLEM(c, "evaluate.slices",
                    "%s is not a feature of type onehot or categorical (without buckets) of either tower",
                    problem_quote(name).text);
        }
    }
}

void train_checks_run(const struct train_config *config, const struct node *root, struct problems *problems)
{
    const struct check c = {config, root, problems};
    check_columns(&c);
    check_split(&c);
    check_towers(&c);
    check_training(&c);
    check_optimizer(&c);
    check_evaluation(&c);
    check_files(&c);
}
