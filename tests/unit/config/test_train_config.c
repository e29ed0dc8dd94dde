/*
 * The training configuration: what files give, every kind of problem with its exact line and message, several problems
 * in one go, --set, defaults, late fusion, and every allocation failing once.
 */
#include "tests/unit/config/support.h"

#include "config/train_config.h"

/* Lines are counted on by the tests below. */
static const char whole[] =
    "data:\n"                                   /* 1 */
    "  users: {path: users.csv, id: user_id}\n" /* 2 */
    "  items: {path: items.csv, id: item_id}\n" /* 3 */
    "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts, label: clicked}\n"
    "  delimiter: \",\"\n"                                                               /* 5 */
    "  split: {method: leave_last, n: 1}\n"                                              /* 6 */
    "user_tower:\n"                                                                      /* 7 */
    "  features:\n"                                                                      /* 8 */
    "    - {name: user_id,  type: id,          dim: 32}\n"                               /* 9 */
    "    - {name: gender,   type: onehot}\n"                                             /* 10 */
    "    - {name: city,     type: categorical, dim: 8, min_count: 5, buckets: 0}\n"      /* 11 */
    "    - {name: topics,   type: categorical, multi: \"|\", dim: 16, pooling: mean}\n"  /* 12 */
    "    - {name: age,      type: numeric, transform: standardize}\n"                    /* 13 */
    "    - {name: spend,    type: numeric, transform: log}\n"                            /* 14 */
    "    - {name: activity, type: numeric, transform: bucketize, buckets: 16, dim: 4}\n" /* 15 */
    "    - {name: history,  type: sequence, of: item_id, last: 20, pooling: mean}\n"     /* 16 */
    "  network: {type: mlp, layers: [128, 64], activation: relu}\n"                      /* 17 */
    "item_tower:\n"                                                                      /* 18 */
    "  features: [{name: item_id, type: id, dim: 64}]\n"                                 /* 19 */
    "  network: {type: none}\n"                                                          /* 20 */
    "similarity: cosine\n"                                                               /* 21 */
    "loss: {type: softmax, temperature: 0.07, logq: true}\n"                             /* 22 */
    "negatives: {in_batch: true, uniform: 0, popularity: 0, hard: {source: none}}\n"     /* 23 */
    "optimizer:\n"                                                                       /* 24 */
    "  type: adagrad\n"                                                                  /* 25 */
    "  lr: 0.05\n"                                                                       /* 26 */
    "  batch_size: 2048\n"                                                               /* 27 */
    "  epochs: 20\n"                                                                     /* 28 */
    "  early_stop: {metric: recall@20, patience: 3}\n"                                   /* 29 */
    "seed: 1\n"                                                                          /* 30 */
    "output: {dir: models}\n"                                                            /* 31 */
    "index: {engine: faiss, factory: HNSW32, target_recall: 0.98}\n";                    /* 32 */

/* The shape of a model that knows only ids, as the acceptance checks write it. */
static const char ids_only[] = "data:\n"
                               "  events: {path: train.csv.gz, user: user_id, item: item_id}\n"
                               "  split: {method: file, test: test.csv.gz}\n"
                               "user_tower: {features: [{name: user_id, type: id, dim: 64}], network: {type: none}}\n"
                               "item_tower: {features: [{name: item_id, type: id, dim: 64}], network: {type: none}}\n"
                               "similarity: cosine\n"
                               "loss: {type: softmax, temperature: 0.1, logq: true}\n"
                               "negatives: {in_batch: true}\n"
                               "optimizer: {type: adagrad, lr: 0.15, batch_size: 1024, epochs: 12}\n"
                               "seed: 1\n"
                               "output: {dir: /somewhere/gowalla-models}\n";

/* Only data and towers. */
static const char shortest[] = "data: {events: {path: clicks.csv, user: u, item: i}}\n"
                               "user_tower: {features: [{name: u, type: id, dim: 8}]}\n"
                               "item_tower: {features: [{name: i, type: id, dim: 8}]}\n";

static int make_files(void **state)
{
    if (enter_directory(state) < 0) {
        return -1;
    }
    const char *names[] = {"users.csv", "items.csv", "clicks.csv", "train.csv.gz", "test.csv.gz"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        write_text_file(names[i], "");
    }
    return dir_create("sub", NULL);
}

/* The configuration a text gives; fails the test on problems. */
static struct train_config *load(const char *text, const char *const *sets, size_t n)
{
    struct buf problems = BUF_INIT;
    write_text_file("c.yaml", text);
    struct train_config *config = train_config_load("c.yaml", sets, n, &problems);
    if (config == NULL) {
        fail_msg("%s", problems.data);
    }
    assert_string_equal(problems.data, "");
    buf_release(&problems);
    return config;
}

/* `expected` is the whole list of problems. */
static void expect_with(const char *text, const char *const *sets, size_t n, const char *expected)
{
    struct buf problems = BUF_INIT;
    write_text_file("c.yaml", text);
    struct train_config *config = train_config_load("c.yaml", sets, n, &problems);
    assert_string_equal(problems.data, expected);
    assert_null(config);
    buf_release(&problems);
}

static void expect(const char *text, const char *expected)
{
    expect_with(text, NULL, 0, expected);
}

/* The whole configuration with one thing replaced gives exactly these problems. */
static void expect_change(const char *base, const char *from, const char *to, const char *expected)
{
    char *text = replaced(base, from, to);
    expect(text, expected);
    free(text);
}

static void accept_change(const char *base, const char *from, const char *to)
{
    char *text = replaced(base, from, to);
    train_config_free(load(text, NULL, 0));
    free(text);
}

/* --- what files give ------------------------------------------------------------------------------------------------ */

static void test_whole(void **state)
{
    (void)state;
    struct train_config *c = load(whole, NULL, 0);
    assert_string_equal(c->data.users.path, "users.csv");
    assert_string_equal(c->data.users.id, "user_id");
    assert_string_equal(c->data.events.time, "ts");
    assert_string_equal(c->data.events.label, "clicked");
    assert_true(c->data.events.label_min == 1.0);
    assert_string_equal(c->data.delimiter, ",");
    assert_true(c->data.header);
    assert_int_equal(c->data.split.method, SPLIT_LEAVE_LAST);
    assert_int_equal(c->data.split.n, 1);
    assert_int_equal(c->user_tower.n_features, 8);
    const struct feature_config *f = c->user_tower.features;
    assert_string_equal(f[2].name, "city");
    assert_int_equal(f[2].type, FEATURE_CATEGORICAL);
    assert_int_equal(f[2].dim, 8);
    assert_int_equal(f[2].min_count, 5);
    assert_int_equal(f[2].buckets, 0);
    assert_int_equal(f[2].line, 11);
    assert_int_equal(f[3].multi, '|');
    assert_int_equal(f[2].multi, 0);
    assert_int_equal(f[5].transform, TRANSFORM_LOG);
    assert_int_equal(f[6].transform, TRANSFORM_BUCKETIZE);
    assert_int_equal(f[6].buckets, 16);
    assert_int_equal(f[7].type, FEATURE_SEQUENCE);
    assert_string_equal(f[7].of, "item_id");
    assert_int_equal(f[7].last, 20);
    assert_int_equal(f[7].dim, 32);
    assert_true(f[0].unknown_rate == 0.02);
    assert_true(c->item_tower.features[0].unknown_rate == 0.005);
    assert_int_equal(c->user_tower.network.type, NETWORK_MLP);
    assert_int_equal(c->user_tower.network.n_widths, 2);
    assert_int_equal(c->user_tower.network.widths[0], 128);
    assert_int_equal(c->user_tower.network.widths[1], 64);
    assert_int_equal(c->item_tower.network.type, NETWORK_NONE);
    assert_int_equal(c->similarity, SIMILARITY_COSINE);
    assert_true(c->loss.temperature == 0.07);
    assert_true(c->optimizer.lr == 0.05);
    assert_int_equal(c->optimizer.batch_size, 2048);
    assert_true(c->optimizer.early_stop.enabled);
    assert_string_equal(c->optimizer.early_stop.metric, "recall@20");
    assert_string_equal(c->output.dir, "models");
    assert_string_equal(c->index.engine, "faiss");
    train_config_free(c);
}

static void test_ids_only(void **state)
{
    (void)state;
    struct train_config *c = load(ids_only, NULL, 0);
    assert_null(c->data.users.path);
    assert_string_equal(c->data.users.id, "user_id");
    assert_string_equal(c->data.items.id, "item_id");
    assert_int_equal(c->data.split.method, SPLIT_FILE);
    assert_string_equal(c->data.split.test, "test.csv.gz");
    assert_string_equal(c->output.dir, "/somewhere/gowalla-models");
    assert_false(c->optimizer.early_stop.enabled);
    train_config_free(c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct train_config *c = load(shortest, NULL, 0);
    assert_string_equal(c->data.users.id, "u");
    assert_int_equal(c->data.split.method, SPLIT_NONE);
    assert_int_equal(c->data.max_bad_rows, 0);
    assert_int_equal(c->similarity, SIMILARITY_COSINE);
    assert_int_equal(c->loss.type, LOSS_SOFTMAX);
    assert_true(c->loss.temperature == 0.1);
    assert_true(c->loss.logq);
    assert_true(c->negatives.in_batch);
    assert_int_equal(c->negatives.uniform, 0);
    assert_int_equal(c->optimizer.type, OPTIMIZER_ADAGRAD);
    assert_true(c->optimizer.lr == 0.1);
    assert_true(c->optimizer.init_scale == 0.1);
    assert_int_equal(c->optimizer.batch_size, 1024);
    assert_int_equal(c->optimizer.epochs, 20);
    assert_false(c->optimizer.early_stop.enabled);
    assert_true(c->optimizer.early_stop.validation == 0.1);
    assert_true(c->optimizer.early_stop.refit);
    assert_int_equal(c->seed, 1);
    assert_int_equal(c->threads, 0);
    assert_string_equal(c->output.dir, "models");
    assert_string_equal(c->index.factory, "HNSW32");
    assert_true(c->index.target_recall == 0.98);
    train_config_free(c);
}

/* The effective text, loaded again, gives the same text. */
static void test_text_round_trip(void **state)
{
    (void)state;
    const char *sets[] = {"optimizer.lr=0.3", "user_tower.features.3.multi=tab", "index.factory=IVF256,Flat"};
    struct train_config *c = load(whole, sets, 3);
    struct train_config *again = load(c->text, NULL, 0);
    assert_string_equal(again->text, c->text);
    assert_true(again->optimizer.lr == 0.3);
    assert_int_equal(again->user_tower.features[3].multi, '\t');
    assert_string_equal(again->index.factory, "IVF256,Flat");
    train_config_free(again);
    train_config_free(c);
}

static void test_paths(void **state)
{
    (void)state;
    write_text_file("sub/clicks.csv", "");
    write_text_file("sub/c.yaml", shortest);
    struct buf problems = BUF_INIT;
    const char *sets[] = {"data.events.path=clicks.csv", "output.dir=out"};
    struct train_config *c = train_config_load("sub/c.yaml", NULL, 0, &problems);
    assert_non_null(c);
    assert_string_equal(c->data.events.path, "sub/clicks.csv");
    assert_string_equal(c->output.dir, "sub/models");
    train_config_free(c);
    c = train_config_load("sub/c.yaml", sets, 2, &problems);
    assert_non_null(c);
    assert_string_equal(c->data.events.path, "clicks.csv");
    assert_string_equal(c->output.dir, "out");
    train_config_free(c);
    buf_release(&problems);
}

static void test_delimiters(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"\"\\t\"", "\t"}, {"tab", "\t"},  {"'\\t'", "\t"},
                                           {"\"::\"", "::"},  {"'::'", "::"}, {"\"|\"", "|"},
                                           {"\";\"", ";"},    {"space", " "}, {"\"<=>;\"", "<=>;"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *to = NULL;
        assert_true(asprintf(&to, "delimiter: %s", cases[i][0]) > 0);
        char *text = replaced(whole, "delimiter: \",\"", to);
        struct train_config *c = load(text, NULL, 0);
        assert_string_equal(c->data.delimiter, cases[i][1]);
        train_config_free(c);
        free(text);
        free(to);
    }
}

static void test_columns(void **state)
{
    (void)state;
    static const char good[] = "data:\n"
                               "  header: false\n"
                               "  events: {path: clicks.csv, user: u, item: i, columns: [u, i, rating]}\n"
                               "user_tower: {features: [{name: u, type: id, dim: 8}]}\n"
                               "item_tower: {features: [{name: i, type: id, dim: 8}]}\n";
    struct train_config *c = load(good, NULL, 0);
    assert_string_equal(c->data.columns_events[2], "rating");
    assert_null(c->data.columns_events[3]);
    train_config_free(c);
    expect_change(good, "[u, i, rating]", "[u, rating]",
                  "c.yaml:3: data.events.item: \"i\" is not among the columns that the table's `columns` names\n");
    expect_change(
        good, ", columns: [u, i, rating]", "",
        "c.yaml:3: data.events.columns: is missing; with data.header: false it names the file's columns, like "
        "[user_id, gender, age]\n");
    expect_change(
        good, "header: false", "header: true",
        "c.yaml:3: data.events.columns: is for files without a header line; add data.header: false, or remove "
        "it\n");
    expect_change(
        good, "[u, i, rating]", "u",
        "c.yaml:3: data.events.columns: must be a list: [\"u\"]\n"
        "c.yaml:3: data.events.columns: is missing; with data.header: false it names the file's columns, like "
        "[user_id, gender, age]\n");
}

/* --- problems ------------------------------------------------------------------------------------------------------- */

static void test_values(void **state)
{
    (void)state;
    expect_change(whole, "lr: 0.05", "lr: fast",
                  "c.yaml:26: optimizer.lr: \"fast\" is not a finite number; allowed: 1e-06 to 100\n");
    expect_change(whole, "lr: 0.05", "lr: .inf",
                  "c.yaml:26: optimizer.lr: \".inf\" is not a finite number; allowed: 1e-06 to 100\n");
    expect_change(whole, "lr: 0.05", "lr: 1e999",
                  "c.yaml:26: optimizer.lr: \"1e999\" is not a finite number; allowed: 1e-06 to 100\n");
    expect_change(whole, "lr: 0.05", "lr: 0",
                  "c.yaml:26: optimizer.lr: \"0\" is out of range; allowed: 1e-06 to 100\n");
    expect_change(
        whole, "lr: 0.05", "lr: \"0.05\"",
        "c.yaml:26: optimizer.lr: \"0.05\" is a text; write a finite number without quotes; allowed: 1e-06 to 100\n");
    expect_change(whole, "lr: 0.05", "lr: [0.05]", "c.yaml:26: optimizer.lr: must be one value, not a list\n");
    expect_change(whole, "lr: 0.05", "lr:", "c.yaml:26: optimizer.lr: has no value; write one or remove the key\n");
    expect_change(whole, "epochs: 20", "epochs: 2.5",
                  "c.yaml:28: optimizer.epochs: \"2.5\" is not a whole number; allowed: 1 to 10000 epochs\n");
    expect_change(
        whole, "epochs: 20", "epochs: 99999999999999999999999",
        "c.yaml:28: optimizer.epochs: \"99999999999999999999999\" is out of range; allowed: 1 to 10000 epochs\n");
    expect_change(whole, "seed: 1", "seed: -1",
                  "c.yaml:30: seed: \"-1\" is out of range; allowed: 0 to 9007199254740991\n");
    expect_change(whole, "logq: true", "logq: yes",
                  "c.yaml:22: loss.logq: \"yes\" must be true or false (without quotes)\n");
    expect_change(whole, "type: adagrad", "type: adagard",
                  "c.yaml:25: optimizer.type: \"adagard\" is not known (did you mean adagrad?); known: adagrad, adam, "
                  "lazy_adam, sgd\n");
    expect_change(whole, "type: adagrad", "type: lion",
                  "c.yaml:25: optimizer.type: \"lion\" is not known; known: adagrad, adam, lazy_adam, sgd\n");
    expect_change(whole, "layers: [128, 64]", "layers: [128, 0]",
                  "c.yaml:17: user_tower.network.layers: \"0\" is out of range; allowed: 1 to 4096 numbers each\n");
    expect_change(whole, "layers: [128, 64]", "layers: 64",
                  "c.yaml:17: user_tower.network.layers: must be a list: [\"64\"]\n");
    expect_change(whole, "layers: [128, 64]", "layers: [1,2,3,4,5,6,7,8,64]",
                  "c.yaml:17: user_tower.network.layers: has 9 elements; allowed: 1 to 8\n");
    expect_change(
        whole, "delimiter: \",\"", "delimiter: \"12345\"",
        "c.yaml:5: data.delimiter: \"12345\" must be 1 to 4 bytes of text, in quotes like \"|\"; tab and space are "
        "written as words; no quote, no newline\n");
    expect_change(
        whole, "metric: recall@20", "metric: recall",
        "c.yaml:29: optimizer.early_stop.metric: \"recall\" is not known; use recall@K, ndcg@K or hit_rate@K with "
        "K from 1 to 1000, or mrr\n");
}

static void test_keys(void **state)
{
    (void)state;
    expect_change(whole, "epochs: 20", "epohcs: 20",
                  "c.yaml:28: optimizer.epohcs: unknown key; did you mean optimizer.epochs?\n");
    expect_change(whole, "seed: 1", "seed: 1\nlr: 0.3", "c.yaml:31: lr: unknown key; did you mean optimizer.lr?\n");
    expect_change(
        whole, "seed: 1", "seed: 1\noptimizer.lr: 0.3",
        "c.yaml:31: optimizer.lr: unknown key; keys with dots are for --set, in a file write optimizer: {lr: ...}\n");
    expect_change(whole, "uniform: 0", "margin: 1",
                  "c.yaml:23: negatives.margin: unknown key; did you mean loss.margin?\n");
    expect_change(whole, "seed: 1", "seed: 1\nseed: 2",
                  "c.yaml:31: the key \"seed\" is given twice, first in line 30; remove one\n");
    expect_change(whole, "{type: mlp, layers: [128, 64], activation: relu}", "mlp",
                  "c.yaml:17: user_tower.network: must be a mapping with keys of: type, layers, activation, "
                  "layer_norm, dropout, residual, cross_layers, cross_rank; it is a value\n");
    expect_change(
        whole, "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts, label: clicked}\n", "",
        "c.yaml:1: data.events.path: is missing; it is: file of events: a row for each time a user met an item\n"
        "c.yaml:1: data.events.user: is missing; it is: its column with the user id\n"
        "c.yaml:1: data.events.item: is missing; it is: its column with the item id\n");
    expect_change(
        whole, "{path: users.csv, id: user_id}", "{id: user_id}",
        "c.yaml:2: data.users.path: is missing; it is: file of users and their columns; without data.users the "
        "user tower knows only ids and histories\n");
    expect("similarity: dot\n",
           "c.yaml:1: data.events.path: is missing; it is: file of events: a row for each time a user met an item\n"
           "c.yaml:1: data.events.user: is missing; it is: its column with the user id\n"
           "c.yaml:1: data.events.item: is missing; it is: its column with the item id\n"
           "c.yaml:1: user_tower.features: is missing; it is: list of features, see the table of features below\n"
           "c.yaml:1: item_tower.features: is missing; it is: list of features, see the table of features below\n");
}

/* Keys of one loss are not for another, and defaults follow the loss. */
static void test_losses(void **state)
{
    (void)state;
    static const char *const softmax = "{type: softmax, temperature: 0.07, logq: true}";
    expect_change(
        whole, softmax, "{type: triplet_hinge, sigma: 3, logq: true}",
        "c.yaml:22: loss.logq: has no effect with loss triplet_hinge; it is for softmax and bilateral; remove it\n"
        "c.yaml:22: loss.sigma: has no effect with loss triplet_hinge; it is for triplet_logistic; remove it\n");
    expect_change(whole, softmax, "{type: triplet_logistic, learn: true}",
                  "c.yaml:22: loss.learn: has no effect with loss triplet_logistic; it is for softmax and pointwise; "
                  "remove it\n");
    expect_change(whole, softmax, "{type: softmax, logq: false, logq_estimator: streaming}",
                  "c.yaml:22: loss.logq_estimator: has no effect without logq; remove it, or use logq: true\n");
    expect_change(whole, softmax, "{type: bpr}",
                  "c.yaml:22: loss.type: \"bpr\" is not known; known: softmax, bilateral, pointwise, triplet_hinge, "
                  "triplet_logistic\n");
    static const struct {
        const char *loss, *negatives;
        bool in_batch;
        uint32_t uniform;
        enum negatives_draw draw;
    } defaults[] = {
        {"{type: softmax}", "{}", true, 0, DRAW_BATCH},
        {"{type: bilateral, balance: 1.5}", "{in_batch: false, uniform: 9}", false, 9, DRAW_BATCH},
        {"{type: pointwise}", "{uniform: 7}", true, 7, DRAW_ROW},
        {"{type: triplet_hinge}", "{}", true, 0, DRAW_ROW},
        {"{type: triplet_logistic}", "{uniform: 5, draw: batch}", true, 5, DRAW_BATCH},
        {"{type: softmax}", "{uniform: 5, draw: row}", true, 5, DRAW_ROW},
    };
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        char loss[96], negatives[96];
        snprintf(loss, sizeof loss, "loss=%s", defaults[i].loss);
        snprintf(negatives, sizeof negatives, "negatives=%s", defaults[i].negatives);
        struct train_config *c = load(whole, (const char *[]){loss, negatives}, 2);
        assert_int_equal(c->negatives.in_batch, defaults[i].in_batch);
        assert_int_equal(c->negatives.uniform, defaults[i].uniform);
        assert_int_equal(c->negatives.draw, defaults[i].draw);
        train_config_free(c);
    }
}

static void test_negatives(void **state)
{
    (void)state;
    static const char *const all = "{in_batch: true, uniform: 0, popularity: 0, hard: {source: none}}";
    expect_change(whole, all, "{popularity_alpha: 0.5, draw: row}",
                  "c.yaml:23: negatives.draw: has no effect without uniform or popularity; remove it\n"
                  "c.yaml:23: negatives.popularity_alpha: has no effect without popularity; remove it\n");
    expect_change(whole, all, "{in_batch: false, exposed: 2, allow_exposed: true}",
                  "c.yaml:23: negatives: softmax has nothing to compare with: use in_batch: true (and "
                  "optimizer.batch_size above 1), or uniform or popularity above 0; hard and exposed negatives come "
                  "beside easy ones\n");
    expect_change(
        whole, all, "{exposed: 2}",
        "c.yaml:23: negatives.exposed: what was shown and not clicked was good enough to be recalled; telling "
        "it from clicks is the work of ranking, and as negatives for recall it costs recall. Remove it, or say "
        "negatives.allow_exposed: true\n");
    expect_change(whole, all, "{allow_exposed: true}",
                  "c.yaml:23: negatives.allow_exposed: has no effect without negatives.exposed; remove it\n");
    expect_change(whole, all, "{hard: {source: none, ranks: [1, 2]}}",
                  "c.yaml:23: negatives.hard.ranks: has no effect with source none; remove it, or use source: mined\n");
    expect_change(whole, all, "{hard: {source: file}}",
                  "c.yaml:23: negatives.hard.file: is missing; source file needs it\n");
    expect_change(whole, all, "{hard: {source: mined, ranks: [7, 3]}}",
                  "c.yaml:23: negatives.hard.bundle: is missing; source mined needs it\n"
                  "c.yaml:23: negatives.hard.ranks: is the first and the last rank of a window, like [101, 500]\n");
    expect_change(whole, all, "{hard: {source: mined, bundle: b, ranks: [1, 10], per_user: 11}}",
                  "c.yaml:23: negatives.hard.per_user: more hard negatives are asked for than the window of ranks has "
                  "(10)\n");
    accept_change(whole, all, "{hard: {source: mined, bundle: b, ranks: [1, 10]}}"); /* per_user: all of it */
    expect_change(whole, all, "{hard: {source: mined, bundle: b, ranks: [1, 10], per_user: 10, file: clicks.csv}}",
                  "c.yaml:23: negatives.hard.file: has no effect with source mined; remove it, or use source: file\n");
}

#define MLP "{type: mlp, layers: [128, 64], activation: relu}"

static void test_networks(void **state)
{
    (void)state;
    struct train_config *c;
    char *text = replaced(whole, MLP,
                          "{type: dcn, layers: [96, 96, 64], activation: leaky_relu, layer_norm: true, dropout: 0.25, "
                          "residual: true, cross_layers: 3, cross_rank: 16}");
    c = load(text, NULL, 0);
    const struct network *n = &c->user_tower.network;
    assert_true(n->type == NETWORK_DCN && n->n_widths == 3 && n->widths[1] == 96);
    assert_true(n->activation == ACTIVATION_LEAKY_RELU && n->layer_norm && n->residual && n->dropout == 0.25);
    assert_true(n->cross_layers == 3 && n->cross_rank == 16);
    assert_true(c->item_tower.network.cross_layers == 0); /* none: nothing of a dcn */
    train_config_free(c);
    free(text);
    text = replaced(whole, "type: mlp", "type: dcn");
    c = load(text, NULL, 0);
    assert_true(c->user_tower.network.cross_layers == 2 && c->user_tower.network.cross_rank == 0);
    train_config_free(c);
    free(text);
    accept_change(whole, MLP, "{type: mlp, layers: [64, 64], residual: true, activation: gelu}");
    accept_change(whole, MLP, "{type: mlp, layers: [64], activation: relu, layer_norm: false, dropout: 0}");
    expect_change(whole, "{type: none}", "{layers: [64]}",
                  "c.yaml:20: item_tower.network.layers: has no effect with type none; use type: mlp, or remove it\n");
    expect_change(whole, "{type: none}", "{type: none, residual: true, cross_rank: 4}",
                  "c.yaml:20: item_tower.network.residual: has no effect with type none; use type: mlp, or remove it\n"
                  "c.yaml:20: item_tower.network.cross_rank: has no effect with type none; use type: dcn, or remove "
                  "it\n");
    expect_change(whole, MLP, "{type: mlp, layers: [64], cross_layers: 2}",
                  "c.yaml:17: user_tower.network.cross_layers: has no effect with type mlp; use type: dcn, or remove "
                  "it\n");
    expect_change(whole, MLP, "{type: mlp, layers: [64], layer_norm: true, dropout: 0.1}",
                  "c.yaml:17: user_tower.network.layer_norm: has no effect with one layer: it acts between layers; add "
                  "a layer, or remove it\n"
                  "c.yaml:17: user_tower.network.dropout: has no effect with one layer: it acts between layers; add a "
                  "layer, or remove it\n");
    expect_change(whole, MLP, "{type: mlp, layers: [128, 64], residual: true}",
                  "c.yaml:17: user_tower.network.residual: has no effect: no layer is as wide as the one before it; "
                  "use layers like [128, 128, 64], or remove it\n");
    expect_change(whole, MLP, "{type: dcn, cross_layers: 2}",
                  "c.yaml:17: user_tower.network.layers: is missing; type dcn needs the widths of its layers, like "
                  "[128, 64]; the last is the length of the tower's vector\n");
    expect_change(whole, MLP, "{type: dcn, layers: [64], cross_layers: 9}",
                  "c.yaml:17: user_tower.network.cross_layers: \"9\" is out of range; allowed: 1 to 8 layers\n");
    expect_change(whole, MLP, "{type: mlp, layers: [64, 64], dropout: 1}",
                  "c.yaml:17: user_tower.network.dropout: \"1\" is out of range; allowed: 0 to 0.95 of the numbers\n");
    expect_change(whole, "type: id,          dim: 32}", "type: id, dim: 32, dropout: 0.96}",
                  "c.yaml:9: user_tower.features.0.dropout: \"0.96\" is out of range; allowed: 0 to 0.95 of the "
                  "numbers\n");
    expect_change(whole, "{name: gender,   type: onehot}", "{name: gender, type: onehot, dropout: 0.1}",
                  "c.yaml:10: user_tower.features.1.dropout: has no effect on type onehot; it is for: id, categorical, "
                  "numeric with bucketize, sequence; remove it or change the type\n");
}

static void test_features(void **state)
{
    (void)state;
    static const char *const gender = "{name: gender,   type: onehot}";
    expect_change(
        whole, gender, "{name: gender, type: onehot, dim: 4}",
        "c.yaml:10: user_tower.features.1.dim: has no effect on type onehot; it is for: id, categorical, numeric "
        "with bucketize, sequence; remove it or change the type\n");
    expect_change(
        whole, gender, "{name: gender, type: categorical}",
        "c.yaml:10: user_tower.features.1.dim: is missing, type categorical needs it; it is: length of each value's "
        "embedding (default for sequence: 32)\n");
    expect_change(
        whole, gender, "{type: onehot}",
        "c.yaml:10: user_tower.features.1.name: is missing; it is: column of the side's table; for type id the id "
        "column, for sequence the name that requests use\n");
    expect_change(whole, gender, "{name: gender, type: onehott}",
                  "c.yaml:10: user_tower.features.1.type: \"onehott\" is not known (did you mean onehot?); known: id, "
                  "categorical, onehot, numeric, sequence\n");
    expect_change(
        whole, gender, "{name: gender, type: onehot, poolng: mean}",
        "c.yaml:10: user_tower.features.1.poolng: unknown key; did you mean user_tower.features.1.pooling?\n");
    expect_change(
        whole, gender, "{name: gender, type: onehot, pooling: mean}",
        "c.yaml:10: user_tower.features.1.pooling: has no effect on type onehot; it is for: categorical, sequence; "
        "remove it or change the type\n");
    expect_change(
        whole, gender, "{name: a/b, type: onehot}",
        "c.yaml:10: user_tower.features.1.name: \"a/b\" cannot be a feature's name, which becomes a file name: 1 to "
        "64 of A-Z a-z 0-9 _ . - and no dot first\n");
    expect_change(
        whole, gender, "{name: .., type: onehot}",
        "c.yaml:10: user_tower.features.1.name: \"..\" cannot be a feature's name, which becomes a file name: 1 to "
        "64 of A-Z a-z 0-9 _ . - and no dot first\n");
    expect_change(
        whole, gender, "{name: age, type: onehot}",
        "c.yaml:13: user_tower.features.4.name: \"age\" is the name of feature 1, too; names are unique in a tower\n");
    expect_change(
        whole, gender, "gender",
        "c.yaml:10: user_tower.features.1: must be a mapping like {name: city, type: categorical, dim: 8}; it is a "
        "value\n");
    expect_change(
        whole, gender, "{name: gender, type: id, dim: 4}",
        "c.yaml:10: user_tower.features.1.name: \"gender\" is not the user id column, which is \"user_id\"; type id "
        "is the user's own id, other columns are categorical\n");
    expect_change(
        whole, "buckets: 16", "buckets: 1",
        "c.yaml:15: user_tower.features.6.buckets: 1 is out of range; allowed: 2 to 4096 with transform bucketize\n");
    expect_change(
        whole, "min_count: 5, buckets: 0", "min_count: 5, buckets: 100",
        "c.yaml:11: user_tower.features.2.min_count: has no effect with buckets: hashing keeps no vocabulary; remove "
        "one of the two\n");
    expect_change(
        whole, "multi: \"|\"", "multi: \"||\"",
        "c.yaml:12: user_tower.features.3.multi: \"||\" must be one byte of ASCII, in quotes like \"|\"; tab and "
        "space are written as words; no quote, no newline\n");
    expect_change(
        whole, "[{name: item_id, type: id, dim: 64}]", "[]",
        "c.yaml:19: item_tower.features: must be a list of 1 to 64 features, like [{name: user_id, type: id, dim: "
        "32}]\n");
    expect_change(
        whole, gender, "{name: gender, type: categorical, dim: 2, pooling: mean}",
        "c.yaml:10: user_tower.features.1.pooling: has no effect on a single value; add multi: \"|\" (the byte "
        "between values) or remove pooling\n");
    expect_change(
        whole, "pooling: mean}\n    - {name: age", "pooling: recency}\n    - {name: age",
        "c.yaml:12: user_tower.features.3.pooling: recency is for type sequence: several values in one text are in no "
        "order of time; use mean, sum or sqrtn\n");
    accept_change(whole, "pooling: mean}\n    - {name: age", "pooling: sqrtn}\n    - {name: age");
    accept_change(whole, gender, "{name: gender, type: onehot, multi: \",\"}");
    accept_change(whole, gender, "{name: a, type: categorical, buckets: 1000, dim: 3, unknown_rate: 0}");
}

static void test_sequences(void **state)
{
    (void)state;
    accept_change(whole, ", time: ts", "");
    static const char *const recency[] = {"user_tower.features.7.pooling=recency", "data.events.time=null"};
    expect_with(
        whole, recency, 2,
        "--set user_tower.features.7.pooling: recency needs to know when events happened; add data.events.time: "
        "the column of times, or use mean\n");
    expect_change(
        whole, "of: item_id", "of: city",
        "c.yaml:16: user_tower.features.7.of: \"city\" is not the item id column, which is \"item_id\"; a history "
        "holds item ids\n");
    expect_change(whole, "{name: gender,   type: onehot}", "{name: before, type: sequence, of: item_id}",
                  "c.yaml:16: user_tower.features.7.type: a second sequence; this version has one history a tower\n");
    expect_change(
        whole, "[{name: item_id, type: id, dim: 64}]", "[{name: fans, type: sequence, of: user_id, dim: 64}]",
        "c.yaml:19: item_tower.features.0.type: sequence is only possible in the user tower: it is the history of a "
        "user\n");
    expect_change(
        whole, "type: sequence, of: item_id,", "type: sequence,",
        "c.yaml:16: user_tower.features.7.of: is missing, type sequence needs it; it is: what the history is made "
        "of: the item id column\n");
    expect_change(
        whole, "last: 20, pooling: mean", "last: 20, half_life: 3",
        "c.yaml:16: user_tower.features.7.half_life: has no effect with pooling mean; add pooling: recency, or "
        "remove it\n");
    expect_change(
        whole, "last: 20, pooling: mean", "last: 20, pooling: recency, half_life: 0",
        "c.yaml:16: user_tower.features.7.half_life: \"0\" is out of range; allowed: 0.1 to 1000000 events\n");
    expect_change(
        whole, "buckets: 16, dim: 4", "buckets: 16, dim: 4, half_life: 3",
        "c.yaml:15: user_tower.features.6.half_life: has no effect on type numeric with bucketize; it is for: "
        "sequence; remove it or change the type\n");
    expect_change(
        whole, "last: 20, pooling: mean", "last: 20, shared: true, dim: 64",
        "c.yaml:16: user_tower.features.7.dim: has no effect with shared: true, it is that of the item tower's "
        "id; remove one of the two\n");
    expect_change(whole, "last: 20, pooling: mean", "last: 20, shared: true, min_count: 1",
                  "c.yaml:16: user_tower.features.7.min_count: has no effect with shared: true, it is that of the item "
                  "tower's id; remove one of the two\n");
    expect_change(
        whole, "item_id, type: id, dim: 64", "item_id, type: id, dim: 64, shared: true",
        "c.yaml:19: item_tower.features.0.shared: has no effect on type id; it is for: sequence; remove it or "
        "change the type\n");
    static const char shared[] =
        "data: {items: {path: items.csv, id: i}, events: {path: clicks.csv, user: u, item: i, time: t}}\n"
        "user_tower: {features: [{name: h, type: sequence, of: i, shared: true}]}\n"
        "item_tower: {features: [{name: i, type: id, dim: 8}]}\n";
    struct train_config *config = load(shared, NULL, 0); /* without networks: the dims agree */
    assert_true(config->user_tower.features[0].shared);
    train_config_free(config);
    expect_change(
        shared, "type: id, dim: 8", "type: categorical, buckets: 100, dim: 8",
        "c.yaml:2: user_tower.features.0.shared: needs one feature of type id in the item tower, whose "
        "embeddings the history uses (an id that is hashed or categorical has none to share); add it, or remove "
        "shared\n");
    accept_change(whole, "{name: history,", "{name: item_id,"); /* a history may be called like what it holds */
}

static void test_together(void **state)
{
    (void)state;
    expect_change(whole, "split: {method: leave_last, n: 1}", "split: {method: time, n: 1}",
                  "c.yaml:6: data.split.n: has no effect with method time; it is for method leave_last\n");
    expect_change(
        whole, "split: {method: leave_last, n: 1}", "split: {n: 1}",
        "c.yaml:6: data.split.method: is missing; it is: what is kept for the test: nothing, each user's last "
        "events, the latest events of all, or a file\n");
    expect_change(ids_only, "{method: file, test: test.csv.gz}", "{method: file}",
                  "c.yaml:3: data.split.test: is missing; method file needs the file of test events\n");
    expect_change(
        ids_only, "{method: file, test: test.csv.gz}", "{method: time}",
        "c.yaml:3: data.split.method: time needs to know when events happened; add data.events.time: the column of "
        "times\n");
    expect_change(ids_only, "in_batch: true", "allow_exposed: true, exposed: 1, hard: {source: file, file: no.csv}",
                  "c.yaml:8: negatives.allow_exposed: without a label every event is a positive and nothing was only "
                  "shown; add data.events.label: the column that tells them apart\n"
                  "c.yaml:8: negatives.hard.file: cannot read \"no.csv\": No such file or directory; relative paths "
                  "start at the configuration file's directory (those of --set at the working directory)\n");
    expect_change(shortest, "item: i}",
                  "item: i, label: l}, split: {method: leave_last}}\nnegatives: {exposed: 1, allow_exposed: true",
                  "c.yaml:2: negatives.allow_exposed: split leave_last needs to know when things were shown, to leave "
                  "out the test period; add data.events.time: the column of times\n");
    expect_change(
        whole, "in_batch: true", "in_batch: false",
        "c.yaml:23: negatives: softmax has nothing to compare with: use in_batch: true (and optimizer.batch_size "
        "above 1), or uniform or popularity above 0\n");
    expect_change(
        whole, "layers: [128, 64]", "layers: [128, 32]",
        "c.yaml:18: item_tower: the item tower's vectors have 64 numbers and the user tower's 32; they must be equal "
        "to be compared: change the last layer, or, without a network, the dims (which are added up)\n");
    expect_change(
        whole, ", layers: [128, 64]", "",
        "c.yaml:17: user_tower.network.layers: is missing; type mlp needs the widths of its layers, like [128, 64]; "
        "the last is the length of the tower's vector\n");
    expect_change(
        whole, "engine: faiss", "engine: flat",
        "c.yaml:32: index.factory: has no effect with engine flat; use engine: faiss, or remove it\n"
        "c.yaml:32: index.target_recall: has no effect with engine flat, which is exact; use another engine, or "
        "remove it\n");
    expect_change(
        shortest, "item: i}", "item: u}",
        "c.yaml:1: data.events.item: is the same column as data.events.user\n"
        "c.yaml:3: item_tower.features.0.name: \"i\" is not the item id column, which is \"u\"; type id is the "
        "item's own id, other columns are categorical\n");
}

/* Optimizers and schedules: what has no effect is refused, what cannot be is named. */
static void test_optimizers(void **state)
{
    (void)state;
    accept_change(whole, "  type: adagrad\n", "  type: sgd\n  momentum: 0.5\n");
    accept_change(whole, "lr: 0.05", "schedule: {type: cosine, warmup: 0.1, end_lr: 0.001}");
    accept_change(whole, "lr: 0.05", "schedule: {type: step, warmup: 500, every: 2, factor: 0.5}");
    accept_change(whole, "lr: 0.05", "schedule: {warmup: 500}");
    accept_change(whole, "  lr: 0.05\n", "  weight_decay: 0.01\n  clip_norm: 1\n");
    expect_change(whole, "lr: 0.05", "momentum: 0.5",
                  "c.yaml:26: optimizer.momentum: has no effect with adagrad; use type: sgd, or remove it\n");
    expect_change(
        whole, "lr: 0.05", "schedule: {end_lr: 0.01}",
        "c.yaml:26: optimizer.schedule.end_lr: has no effect with constant; use type: cosine, or remove it\n");
    expect_change(whole, "lr: 0.05", "schedule: {type: cosine, every: 3, factor: 0.5}",
                  "c.yaml:26: optimizer.schedule.every: has no effect with cosine; use type: step, or remove it\n"
                  "c.yaml:26: optimizer.schedule.factor: has no effect with cosine; use type: step, or remove it\n");
    expect_change(whole, "lr: 0.05", "schedule: {type: cosine, end_lr: 0.2}",
                  "c.yaml:26: optimizer.schedule.end_lr: is above optimizer.lr (0.1), where the schedule begins\n");
    expect_change(
        whole, "lr: 0.05", "weight_decay: 10",
        "c.yaml:26: optimizer.weight_decay: times optimizer.lr (0.1) must be below 1: a step would take all of a "
        "weight off it\n");
    accept_change(whole, "seed: 1", "checkpoint: {enabled: false}");
    accept_change(whole, "seed: 1", "checkpoint: {every: 30s}");
    expect_change(whole, "seed: 1", "checkpoint: {enabled: false, every: 30s}",
                  "c.yaml:30: checkpoint.every: has no effect with enabled: false; remove one of the two\n");
    expect_change(whole, "lr: 0.05", "schedule: {type: linear}",
                  "c.yaml:26: optimizer.schedule.type: \"linear\" is not known; known: constant, step, cosine\n");
}

static void test_evaluate(void **state)
{
    (void)state;
    struct train_config *c = load(whole, NULL, 0);
    assert_null(c->evaluate.slices);
    assert_int_equal(c->evaluate.max_users, 0);
    train_config_free(c);
    accept_change(whole, "seed: 1", "evaluate: {max_users: 100}");
    accept_change(whole, "seed: 1", "evaluate: {slices: [topics, gender]}");
    accept_change(whole, "seed: 1", "evaluate: {baselines: [item_cf, matrix_completion, popularity]}");
    expect_change(whole, "seed: 1", "evaluate: {baselines: [item_cf, svd]}",
                  "c.yaml:30: evaluate.baselines: \"svd\" is not known; known: popularity, item_cf, "
                  "matrix_completion\n");
    c = train_config_matrix_completion(12, 100, 7, 5);
    assert_non_null(c);
    assert_int_equal(c->user_tower.features[0].dim, 12);
    assert_int_equal(c->item_tower.features[0].type, FEATURE_ID);
    assert_true(c->similarity == SIMILARITY_DOT && c->loss.temperature == 1 && c->optimizer.batch_size == 100);
    assert_true(c->optimizer.epochs == 7 && c->optimizer.early_stop.enabled && c->seed == 5);
    train_config_free(c);
    expect_change(
        whole, "seed: 1", "evaluate: {slices: [gender, age, sex]}",
        "c.yaml:30: evaluate.slices: \"age\" is not a feature of type onehot or categorical (without buckets) "
        "of either tower\n"
        "c.yaml:30: evaluate.slices: \"sex\" is not a feature of type onehot or categorical (without buckets) "
        "of either tower\n");
    expect_change(shortest, "item_tower", "evaluate: {max_users: 5}\nitem_tower",
                  "c.yaml:3: evaluate: has no effect without a test part; add data.split, or remove it\n");
}

static void test_files(void **state)
{
    (void)state;
    expect_change(
        whole, "path: clicks.csv", "path: nowhere.csv",
        "c.yaml:4: data.events.path: cannot read \"nowhere.csv\": No such file or directory; relative paths start at "
        "the configuration file's directory (those of --set at the working directory)\n");
    expect_change(whole, "path: users.csv", "path: sub", "c.yaml:2: data.users.path: \"sub\" is not a regular file\n");
    expect_change(
        ids_only, "test: test.csv.gz", "test: nowhere.gz",
        "c.yaml:3: data.split.test: cannot read \"nowhere.gz\": No such file or directory; relative paths start at "
        "the configuration file's directory (those of --set at the working directory)\n");
    struct buf problems = BUF_INIT;
    assert_null(train_config_load("absent.yaml", NULL, 0, &problems));
    assert_string_equal(problems.data, "absent.yaml: cannot open: No such file or directory\n");
    buf_release(&problems);
}

static void test_many_at_once(void **state)
{
    (void)state;
    expect("data:\n"
           "  events: {path: nowhere.csv, user: u, item: i, tme: ts}\n"
           "user_tower: {features: [{name: u, type: id, dim: zero}]}\n"
           "item_tower: {features: [{name: i, type: id}]}\n"
           "similarity: cosin\n"
           "colour: red\n"
           "seed: 1\n"
           "seed: 2\n",
           "c.yaml:2: data.events.tme: unknown key; did you mean data.events.time?\n"
           "c.yaml:2: data.events.path: cannot read \"nowhere.csv\": No such file or directory; relative paths start "
           "at the configuration file's directory (those of --set at the working directory)\n"
           "c.yaml:3: user_tower.features.0.dim: \"zero\" is not a whole number; allowed: 1 to 4096 numbers\n"
           "c.yaml:4: item_tower.features.0.dim: is missing, type id needs it; it is: length of each value's embedding "
           "(default for sequence: 32)\n"
           "c.yaml:5: similarity: \"cosin\" is not known (did you mean cosine?); known: dot, cosine\n"
           "c.yaml:6: colour: unknown key; known here: data, user_tower, item_tower, similarity, loss, negatives, "
           "optimizer, evaluate, seed, threads, checkpoint, output, index\n"
           "c.yaml:8: the key \"seed\" is given twice, first in line 7; remove one\n");
}

static void test_problem_limit(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct buf problems = BUF_INIT;
    buf_puts(&text, shortest);
    for (int i = 0; i < 300; i++) {
        buf_printf(&text, "zzz%d: 1\n", i);
    }
    write_text_file("c.yaml", text.data);
    assert_null(train_config_load("c.yaml", NULL, 0, &problems));
    size_t lines = 0;
    for (size_t i = 0; i < problems.len; i++) {
        lines += problems.data[i] == '\n';
    }
    assert_int_equal(lines, 101);
    assert_non_null(strstr(problems.data, "\n... and 200 more problems\n"));
    buf_release(&problems);
    buf_release(&text);
}

/* --- late fusion ---------------------------------------------------------------------------------------------------- */

#define KEEP_IN_ITEM                                                                                              \
    ". Keep the feature in the item tower, or use type sequence for a history of items; early fusion belongs to " \
    "ranking\n"
#define COMBINES                                                                      \
    "would combine user and item features before the similarity: " TRAIN_EARLY_FUSION \
    "; features and networks belong inside user_tower and item_tower; early fusion belongs to ranking\n"

static void test_late_fusion(void **state)
{
    (void)state;
    expect_change(ids_only, "[{name: user_id, type: id, dim: 64}]",
                  "[{name: user_id, type: id, dim: 64}, {name: item_id, type: id, dim: 64}]",
                  "c.yaml:4: user_tower.features.1.name: \"item_id\" is the item id, which the user tower must not "
                  "read: " TRAIN_EARLY_FUSION KEEP_IN_ITEM);
    expect_change(whole, "{name: gender,   type: onehot}", "{name: item_id, type: categorical, dim: 8}",
                  "c.yaml:10: user_tower.features.1.name: \"item_id\" is the item id, which the user tower must not "
                  "read: " TRAIN_EARLY_FUSION KEEP_IN_ITEM);
    expect_change(whole, "[{name: item_id, type: id, dim: 64}]",
                  "[{name: item_id, type: id, dim: 32}, {name: user_id, type: onehot}]",
                  "c.yaml:19: item_tower.features.1.name: \"user_id\" is the user id, which the item tower must not "
                  "read: " TRAIN_EARLY_FUSION
                  ". Keep the feature in the user tower; early fusion belongs to ranking\n");
    expect_change(whole, "similarity: cosine", "similarity: mlp",
                  "c.yaml:21: similarity: \"mlp\" is not known; known: dot, cosine; " TRAIN_EARLY_FUSION "\n");
    expect_change(whole, "similarity: cosine", "similarity: {type: network, layers: [64]}",
                  "c.yaml:21: similarity: must be one value, not a mapping; " TRAIN_EARLY_FUSION "\n");
    expect_change(whole, "seed: 1", "fusion: early", "c.yaml:30: fusion: " COMBINES);
    expect_change(whole, "seed: 1", "network: {type: mlp, layers: [64]}", "c.yaml:30: network: " COMBINES);
    expect_change(whole, "seed: 1", "tower: {features: []}", "c.yaml:30: tower: " COMBINES);
    expect_change(whole, "  network: {type: none}", "  fusion: early", "c.yaml:20: item_tower.fusion: " COMBINES);
    accept_change(whole, "seed: 1", "fusion: late");
}

/* The same, when the columns of the other side are known by name. */
static void test_late_fusion_columns(void **state)
{
    (void)state;
    static const char text[] = "data:\n"
                               "  header: false\n"
                               "  users: {path: users.csv, columns: [u, age]}\n"
                               "  items: {path: items.csv, columns: [i, genre]}\n"
                               "  events: {path: clicks.csv, user: u, item: i, columns: [u, i]}\n"
                               "user_tower: {features: [{name: u, type: id, dim: 8}]}\n"
                               "item_tower: {features: [{name: i, type: id, dim: 4}, {name: genre, type: onehot}]}\n";
    train_config_free(load(text, NULL, 0));
    expect_change(
        text, "[{name: u, type: id, dim: 8}]", "[{name: u, type: id, dim: 8}, {name: genre, type: onehot}]",
        "c.yaml:6: user_tower.features.1.name: \"genre\" is a column of the item table, which the user tower must "
        "not read: " TRAIN_EARLY_FUSION KEEP_IN_ITEM);
    expect_change(
        text, "[{name: u, type: id, dim: 8}]", "[{name: u, type: id, dim: 8}, {name: city, type: onehot}]",
        "c.yaml:6: user_tower.features.1.name: \"city\" is not among the columns that the table's `columns` names\n");
}

/* Both tables call their id "id": then it is each side's own. */
static void test_same_id_name(void **state)
{
    (void)state;
    train_config_free(load("data:\n"
                           "  users: {path: users.csv, id: id}\n"
                           "  items: {path: items.csv, id: id}\n"
                           "  events: {path: clicks.csv, user: user, item: item}\n"
                           "user_tower: {features: [{name: id, type: id, dim: 8}]}\n"
                           "item_tower: {features: [{name: id, type: id, dim: 8}]}\n",
                           NULL, 0));
}

static void test_no_table(void **state)
{
    (void)state;
    expect_change(
        ids_only, "[{name: user_id, type: id, dim: 64}]",
        "[{name: user_id, type: id, dim: 64}, {name: age, type: numeric}]",
        "c.yaml:4: user_tower.features.1.name: there is no user table to read \"age\" from; add data.users: {path: "
        "..., id: ...}. Without it the user tower may only use its id and a sequence\n");
    expect_change(
        ids_only, "[{name: item_id, type: id, dim: 64}]", "[{name: genre, type: categorical, dim: 64}]",
        "c.yaml:5: item_tower.features.0.name: there is no item table to read \"genre\" from; add data.items: "
        "{path: ..., id: ...}. Without it the item tower may only use its id\n");
}

/* --- --set ---------------------------------------------------------------------------------------------------------- */

static void test_set(void **state)
{
    (void)state;
    const char *sets[] = {"user_tower.network.layers=[64,32,64]",
                          "user_tower.features.0.dim=16",
                          "optimizer.early_stop=null",
                          "loss={type: softmax, temperature: 0.2}",
                          "user_tower.features.8={name: zip, type: onehot}",
                          "user_tower.features.7=null",
                          "optimizer.epochs=3",
                          "optimizer.epochs=4",
                          "threads=2"};
    struct train_config *c = load(whole, sets, sizeof sets / sizeof sets[0]);
    assert_int_equal(c->user_tower.network.n_widths, 3);
    assert_int_equal(c->user_tower.network.widths[1], 32);
    assert_int_equal(c->user_tower.features[0].dim, 16);
    assert_false(c->optimizer.early_stop.enabled);
    assert_true(c->loss.temperature == 0.2);
    assert_int_equal(c->user_tower.n_features, 8);
    assert_string_equal(c->user_tower.features[7].name, "zip");
    assert_int_equal(c->optimizer.epochs, 4);
    assert_int_equal(c->threads, 2);
    train_config_free(c);
}

static void test_set_creates(void **state)
{
    (void)state;
    const char *sets[] = {"optimizer.early_stop.patience=5", "data.events.time=ts", "index.engine=flat"};
    struct train_config *c = load(shortest, sets, 3);
    assert_true(c->optimizer.early_stop.enabled);
    assert_int_equal(c->optimizer.early_stop.patience, 5);
    assert_string_equal(c->data.events.time, "ts");
    assert_string_equal(c->index.engine, "flat");
    train_config_free(c);
}

static void test_set_problems(void **state)
{
    (void)state;
    const char *sets[] = {"optimizer.lr=fast",
                          "optimizer.lrr=1",
                          "seed",
                          "user_tower.features.9.dim=4",
                          "seed.a=1",
                          "loss.temperature=[1,",
                          "threads=",
                          "=4",
                          "negatives={uniform: -1}",
                          "data.events.path=nowhere.csv"};
    expect_with(
        whole, sets, sizeof sets / sizeof sets[0],
        "--set seed: has no value; write --set key=value\n"
        "--set user_tower.features.9.dim: \"9\" must be the number of a list element, 0 to 7 (8 appends)\n"
        "--set seed.a: what is before \"a\" is a value (\"1\"), which has no keys\n"
        "--set loss.temperature: not valid YAML: while parsing a flow node, did not find expected node content\n"
        "--set threads: has no value; key=null removes the key, key='\"\"' is an empty text\n"
        "--set : not a key; write it like optimizer.lr=0.1\n"
        "--set negatives: negatives.uniform: \"-1\" is out of range; allowed: 0 to 65536 items\n"
        "--set optimizer.lr: \"fast\" is not a finite number; allowed: 1e-06 to 100\n"
        "--set optimizer.lrr: unknown key; did you mean optimizer.lr?\n"
        "--set data.events.path: cannot read \"nowhere.csv\": No such file or directory; relative paths start at the "
        "configuration file's directory (those of --set at the working directory)\n");
}

/* Paths and addresses need no YAML quotes behind --set. */
static void test_set_text(void **state)
{
    (void)state;
    write_text_file("it's [1]: #2.csv", "");
    const char *sets[] = {"data.events.path=it's [1]: #2.csv", "output.dir=\"a b\"", "index.factory=OPQ16,IVF64"};
    struct train_config *c = load(shortest, sets, 3);
    assert_string_equal(c->data.events.path, "it's [1]: #2.csv");
    assert_string_equal(c->output.dir, "a b");
    assert_string_equal(c->index.factory, "OPQ16,IVF64");
    assert_string_equal(c->index.engine, "faiss"); /* implied */
    train_config_free(c);
    const char *bad[] = {"output.dir=a\xff", "output.dir=a\nb"};
    expect_with(shortest, bad, 2,
                "--set output.dir: not a text in UTF-8: invalid leading UTF-8 octet\n"
                "--set output.dir: holds a line break\n");
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

/* Makes allocation 1, 2, ... fail until a load needs fewer. Returns how many there were. */
static long fail_each(const char *text, const char *const *sets, size_t n)
{
    write_text_file("c.yaml", text);
    for (long at = 1; at < 10000; at++) {
        struct buf problems = BUF_INIT;
        mem_fail_at(at);
        struct train_config *config = train_config_load("c.yaml", sets, n, &problems);
        mem_fail_at(0);
        bool said = problems.len > 0 || buf_failed(&problems);
        buf_release(&problems);
        if (config != NULL) {
            assert_false(said);
            train_config_free(config);
            return at - 1;
        }
        assert_true(said);
    }
    fail_msg("never succeeds");
    return 0;
}

static void test_memory(void **state)
{
    (void)state;
    const char *sets[] = {"optimizer.lr=0.2", "threads=1", "output.dir=x y", "data.users=null"};
    assert_true(fail_each(whole, sets, 3) > 100);
    assert_true(fail_each(ids_only, sets, 4) > 20);
}

/* The same with problems to be said; nothing may leak or crash. */
static void test_memory_problems(void **state)
{
    (void)state;
    write_text_file("c.yaml", "data: {events: {path: nowhere, user: u, columns: [a, [b]]}, zzz: 1}\n"
                              "user_tower: {features: [{name: u, type: onehot, dim: 2}, {name: x, type: idd}]}\n"
                              "similarity: m\nfusion: early\noptimizer: 5\nseed: 1\nseed: 1\n");
    for (long at = 1; at < 300; at++) {
        struct buf problems = BUF_INIT;
        mem_fail_at(at);
        assert_null(train_config_load("c.yaml", NULL, 0, &problems));
        mem_fail_at(0);
        buf_release(&problems);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_ids_only),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_text_round_trip),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_delimiters),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_negatives),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_optimizers),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_problem_limit),
        cmocka_unit_test(test_late_fusion),
        cmocka_unit_test(test_late_fusion_columns),
        cmocka_unit_test(test_same_id_name),
        cmocka_unit_test(test_no_table),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_creates),
        cmocka_unit_test(test_set_problems),
        cmocka_unit_test(test_set_text),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_memory_problems),
        cmocka_unit_test(test_evaluate),
    };
    return cmocka_run_group_tests(tests, make_files, leave_directory);
}
