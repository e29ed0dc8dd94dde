/*
 * The page: that it is a function of the JSON alone, whatever that holds: nothing, everything, hostile texts, members of
 * the wrong type, far too much of all; and what it points out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "train/report.h"
#include "train/report_sections.h"

static const char whole[] =
    "{'bundle': '/models/v1', 'model': 'v1', 'created': '2026-01-02T03:04:05Z',"
    " 'metrics': {'recall@10': 0.2, 'recall@20': 0.3, 'ndcg@20': 0.2, 'hit_rate@20': 0.6, 'coverage@20': 0.4, 'mrr': "
    "0.3,"
    "  'users': 1000},"
    " 'metrics_ci': {'recall@20': [0.28, 0.32], 'mrr': null},"
    " 'baselines': {'popularity': {'recall@10': 0.1, 'recall@20': 0.15, 'users': 1000},"
    "  'item_cf': {'recall@20': 0.2, 'users': 1000}},"
    " 'baselines_ci': {'popularity': {'recall@20': [0.14, 0.16]}},"
    " 'comparison': {'popularity': {'recall@20': {'difference': 0.15, 'interval': [0.13, 0.17], 'better': 1.0}}},"
    " 'slices': [{'side': 'user', 'by': 'new_users', 'value': 'new', 'users': 100, 'events': 200, 'recall@20': 0.2,"
    "   'recall@20_ci': [0.18, 0.22], 'baselines': {'popularity': {'recall@20': 0.1}}},"
    "  {'side': 'item', 'by': 'popularity', 'value': '1', 'users': 80, 'events': 90, 'train_events': [0, 12],"
    "   'recall@20': 0.25, 'recall@20_ci': null, 'baselines': {}}],"
    " 'popularity_bias': {'test': {'average_popularity': 10, 'gini': 0.5, 'coverage': 0.5},"
    "  'model': {'average_popularity': 12, 'gini': 0.6, 'coverage': 0.4}},"
    " 'data': {'users': 1200, 'items': 34567, 'train': 1234567, 'test': 1000, 'bad_rows': 0},"
    " 'schema': {'user_tower': {'features': [{'name': 'user_id', 'type': 'id', 'dim': 32}],"
    "   'network': {'type': 'mlp', 'layers': [64, 32], 'activation': 'relu', 'residual': true}}, 'item_tower': {}, "
    "'similarity': 'cosine'},"
    " 'train': {'epochs': 3, 'loss': [3.0, 2.5, 2.49], 'validation': [0.1, 0.2, 0.19], 'best_epoch': 2,"
    "  'validation_metric': 'recall@20', 'seconds': 12.5, 'examples_per_second': 100000, 'threads': 2},"
    " 'index': {'engine': 'faiss', 'factory': 'HNSW32', 'effort': 200, 'recall@100': 0.985, 'target_recall': 0.98,"
    "  'curve': [{'effort': 100, 'recall': 0.95}, {'effort': 200, 'recall': 0.985}]},"
    " 'histogram': {'part': 'test', 'users': 9, 'low': -1, 'high': 1, 'auc': 0.93,"
    "  'positives': {'n': 10, 'mean': 0.4, 'counts': [2, 8]}, 'random': {'n': 40, 'mean': -0.1, 'counts': [30, 10]}},"
    " 'projection': {'method': 'pca', 'explained': [0.3, 0.1], 'of': 34567, 'by': 'genre', 'groups': ['Drama', "
    "'other'],"
    "  'named': 1, 'points': [[0.1, 0.2, 0, 'film 1'], [0.5, -1, 1, 'film 2']], 'neighbours': {'k': 10, 'same': 0.4, "
    "'chance': 0.2}},"
    " 'config': 'seed: 1\\n'}";

/* Single quotes stand for double ones. */
static json_t *parse(const char *text)
{
    json_error_t error;
    char *copy = mem_strdup(text);
    for (char *p = copy; *p != '\0'; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    json_t *json = json_loads(copy, 0, &error);
    if (json == NULL) {
        fail_msg("%s at %d", error.text, error.position);
    }
    mem_free(copy);
    return json;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what)) {
        n++;
    }
    return n;
}

/* The page; its elements must be closed, and it must not reach out. */
static void draw(const json_t *report, struct buf *page)
{
    struct err e = ERR_INIT;
    static const char *const elements[] = {"section", "table", "thead", "tbody", "tr", "th",   "td",
                                           "figure",  "div",   "ul",    "li",    "dl", "dt",   "dd",
                                           "p",       "small", "b",     "svg",   "g",  "text", "a"};
    buf_clear(page);
    assert_int_equal(report_page(report, page, &e), 0);
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        char open[2][16];
        char close[16];
        snprintf(open[0], sizeof open[0], "<%s>", elements[i]);
        snprintf(open[1], sizeof open[1], "<%s ", elements[i]);
        snprintf(close, sizeof close, "</%s>", elements[i]);
        size_t opened = count(page->data, open[0]) + count(page->data, open[1]);
        if (opened != count(page->data, close)) {
            fail_msg("%s: %zu opened, %zu closed", elements[i], opened, count(page->data, close));
        }
    }
    static const char *const refused[] = {"<script", "<link",   "<img",  "<iframe",  "://",
                                          "url(",    "@import", " src=", "href=\"h", "javascript:"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (strstr(page->data, refused[i]) != NULL) {
            fail_msg("the page holds %s", refused[i]);
        }
    }
    if (page->len >= 1000000) {
        fail_msg("a page of %zu bytes", page->len);
    }
}

static void expect(const struct buf *page, const char *words)
{
    if (strstr(page->data, words) == NULL) {
        fail_msg("the page does not say: %s", words);
    }
}

static void test_whole(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    struct buf again = BUF_INIT;
    json_t *report = parse(whole);
    draw(report, &page);
    for (const struct report_section *s = report_sections; s->id != NULL; s++) {
        char words[64];
        snprintf(words, sizeof words, "<section id=\"%s\">", s->id);
        expect(&page, words);
    }
    expect(&page, "1,234,567 events between 1,200 users and 34,567 items in 3 epochs, 12 seconds");
    expect(&page, "its first 20 hold <b>30.0 %</b>: <b>50 % more than item-based collaborative filtering</b>");
    expect(&page, "<code>user_id</code> <small>id, dim 32</small>");
    expect(&page, "Network: mlp 64 \xe2\x86\x92 32, activation relu, residual");
    expect(&page, "nearest items: 0.400");
    expect(&page, "2026-01-02 03:04 UTC");
    expect(&page, "scores above a random one in 93.0 % of cases");
    expect(&page, "best: epoch 2, 0.2000");
    expect(&page, "95 % interval 0.2800 to 0.3200");
    expect(&page, "Nothing stands out");
    draw(report, &again);
    assert_string_equal(page.data, again.data);
    buf_release(&page);
    buf_release(&again);
    json_decref(report);
}

/* A report of an older version, of eval, of a fit without a test part, and of nothing. */
static void test_parts(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    json_t *report =
        parse("{'metrics': {'recall@20': 0.3, 'users': 9}, 'baselines': {'popularity': {'recall@20': 0.1}}}");
    draw(report, &page);
    expect(&page, "Few test users");
    assert_null(strstr(page.data, "id=\"slices\""));
    assert_null(strstr(page.data, "id=\"index\""));
    json_decref(report);
    report = parse("{'metrics': {}, 'baselines': {}, 'train': {'epochs': 1, 'loss': [2.0]}}");
    draw(report, &page);
    expect(&page, "Not evaluated");
    expect(&page, "Training loss");
    json_decref(report);
    report = json_object();
    draw(report, &page);
    expect(&page, "Not evaluated");
    json_decref(report);
    buf_release(&page);
}

/* --- hostile reports ----------------------------------------------------------------------------------------------------*/

/* Replaces every string, by path, with what `text` says; keys stay, or become it, too. */
static json_t *with_texts(const json_t *json, const char *text, bool keys)
{
    if (json_is_string(json)) {
        return json_string(text);
    }
    if (json_is_array(json)) {
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(json); i++) {
            json_array_append_new(list, with_texts(json_array_get(json, i), text, keys));
        }
        return list;
    }
    if (json_is_object(json)) {
        json_t *object = json_object();
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)json, key, value)
        {
            bool replaced = keys && (strcmp(key, "popularity") == 0 || strcmp(key, "mrr") == 0);
            json_object_set_new(object, replaced ? text : key, with_texts(value, text, keys));
        }
        return object;
    }
    return json_deep_copy(json);
}

static void test_hostile_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><a href='http://x'>",
        "</style></svg></title>",
        "-->",
        "<!--",
        "]]>",
        "&lt;script&gt;",
        "%s%n%d",
        "\x01\x02\x7f",
        "\xe2\x80\xae desrever",
        "",
    };
    struct buf page = BUF_INIT;
    json_t *report = parse(whole);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (int keys = 0; keys < 2; keys++) {
            struct err e = ERR_INIT;
            json_t *hostile = with_texts(report, texts[i], keys);
            buf_clear(&page);
            assert_int_equal(report_page(hostile, &page, &e), 0);
            assert_null(strstr(page.data, "<script"));
            assert_null(strstr(page.data, "<img"));
            assert_null(strstr(page.data, "<a href='"));
            assert_int_equal(count(page.data, "</style>"), 1);
            assert_int_equal(count(page.data, "<svg"), count(page.data, "</svg>"));
            assert_null(strstr(page.data, "<!--"));
            assert_int_equal(strlen(page.data), page.len);
            json_decref(hostile);
        }
    }
    json_decref(report);
    buf_release(&page);
}

/* Every member in turn is of every other type. */
static void test_wrong_types(void **state)
{
    (void)state;
    static const char *const values[] = {"null",
                                         "true",
                                         "-1e308",
                                         "1e308",
                                         "[]",
                                         "{}",
                                         "'x'",
                                         "[[[1]], {'a': 2}]",
                                         "{'recall@20': 'x', 'recall@0': 1, 'recall@99999999999': 1, 'users': []}"};
    struct buf page = BUF_INIT;
    const char *key;
    const char *inner;
    json_t *value;
    json_t *unused;
    json_t *report = parse(whole);
    json_object_foreach(report, key, value)
    {
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            char text[256];
            snprintf(text, sizeof text, "{'v': %s}", values[i]);
            json_t *wrong = parse(text);
            json_t *copy = json_deep_copy(report);
            json_object_set(copy, key, json_object_get(wrong, "v"));
            draw(copy, &page);
            json_object_foreach(value, inner, unused)
            {
                json_t *deeper = json_deep_copy(report);
                json_object_set(json_object_get(deeper, key), inner, json_object_get(wrong, "v"));
                draw(deeper, &page);
                json_decref(deeper);
            }
            json_decref(copy);
            json_decref(wrong);
        }
    }
    json_decref(report);
    buf_release(&page);
}

/* Ten thousand of everything, with names of a kilobyte that escaping makes six times longer. */
static void test_bounded(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    static char name[1001];
    memset(name, '"', 1000);
    json_t *report = parse(whole);
    json_t *points = json_object_get(json_object_get(report, "projection"), "points");
    json_t *loss = json_object_get(json_object_get(report, "train"), "loss");
    json_t *slices = json_object_get(report, "slices");
    json_t *counts = json_object_get(json_object_get(json_object_get(report, "histogram"), "positives"), "counts");
    json_t *curve = json_object_get(json_object_get(report, "index"), "curve");
    json_t *baselines = json_object_get(report, "baselines");
    json_t *features = json_object_get(json_object_get(json_object_get(report, "schema"), "user_tower"), "features");
    for (size_t i = 0; i < 10000; i++) {
        char key[32];
        snprintf(key, sizeof key, "recall@%zu", i);
        json_array_append_new(points, json_pack("[f, f, i, s]", (double)i, (double)(i * i % 101), (int)(i % 2), name));
        json_array_append_new(loss, json_real(1.0 / (double)(i + 1)));
        json_array_append_new(counts, json_integer((json_int_t)i));
        json_array_append_new(curve, json_pack("{s:i, s:f}", "effort", (int)i, "recall", 0.5));
        json_array_append_new(features, json_pack("{s:s, s:s}", "name", name, "type", name));
        json_object_set_new(json_object_get(report, "metrics"), key, json_real(0.1));
        if (i < 3000) {
            snprintf(key, sizeof key, "baseline %zu", i);
            json_object_set_new(baselines, key, json_pack("{s:f}", "recall@20", 0.1));
            json_array_append_new(slices, json_pack("{s:s, s:s+, s:s, s:i}", "side", "user", "by", name, key, "value",
                                                    name, "users", 100));
        }
    }
    char *config = mem_array(1000001, 1);
    memset(config, '<', 1000000);
    json_object_set_new(report, "config", json_string(config));
    mem_free(config);
    draw(report, &page);
    json_decref(report);
    buf_release(&page);
}

/* --- what to watch ------------------------------------------------------------------------------------------------------*/

static void test_findings(void **state)
{
    (void)state;
    static const struct {
        const char *key, *inner, *value, *words;
    } cases[] = {
        {"metrics", "recall@20", "0.1", "A baseline is as good or better"},
        {"comparison", "popularity", "{'recall@20': {'interval': [-0.01, 0.1]}}", "The lead may be chance"},
        {"metrics", "users", "120", "Only 120 users have test items"},
        {"train", "best_epoch", "3", "The best of 3 epochs was the last one"},
        {"train", "validation", "null", ""},
        {"index", "recall@100", "0.9", "The index misses its target"},
        {"metrics", "coverage@20", "0.01", "Little of the catalogue is shown"},
        {"popularity_bias", "model", "{'average_popularity': 31}", "3.1 times as popular"},
        {"histogram", "auc", "0.55", "in only 55.0 % of cases"},
        {"data", "bad_rows", "1", "1 row of the data"},
    };
    struct buf page = BUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        json_t *report = parse(whole);
        snprintf(text, sizeof text, "{'v': %s}", cases[i].value);
        json_t *value = parse(text);
        json_object_set(json_object_get(report, cases[i].key), cases[i].inner, json_object_get(value, "v"));
        draw(report, &page);
        expect(&page, cases[i].words[0] != '\0' ? cases[i].words : "Nothing stands out");
        assert_int_equal(count(page.data, "<li class=\"serious\">") + count(page.data, "<li class=\"watch\">"),
                         cases[i].words[0] == '\0'                  ? 0
                         : strcmp(cases[i].inner, "recall@20") == 0 ? 2
                                                                    : 1);
        json_decref(value);
        json_decref(report);
    }
    buf_release(&page);
}

static void test_findings_of_slices(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    json_t *report = parse(whole);
    json_t *slice = json_array_get(json_object_get(report, "slices"), 0);
    json_object_set_new(slice, "recall@20", json_real(0.05));
    json_object_set_new(slice, "recall@20_ci", json_pack("[f, f]", 0.02, 0.08));
    draw(report, &page);
    expect(&page, "Less than half of the overall recall, for new users.");
    expect(&page, "By more than a tenth, for new users.");
    json_object_set_new(slice, "users", json_integer(49)); /* too few to speak of */
    draw(report, &page);
    expect(&page, "Nothing stands out");
    json_decref(report);
    buf_release(&page);
}

static void test_no_memory(void **state)
{
    (void)state;
    json_t *report = parse(whole);
    for (long at = 1; at < 200; at++) {
        struct buf page = BUF_INIT;
        struct err e = ERR_INIT;
        mem_fail_at(at);
        int result = report_page(report, &page, &e);
        mem_fail_at(0);
        assert_true(result == 0 || err_isset(&e));
        buf_release(&page);
        if (result == 0) {
            assert_true(at > 20);
            json_decref(report);
            return;
        }
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_findings),
        cmocka_unit_test(test_findings_of_slices),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
