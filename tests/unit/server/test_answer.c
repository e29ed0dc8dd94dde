/* Queries answered in groups against the same queries answered one by one, and how large groups become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/schema.h"
#include "core/vecmath.h"
#include "server/answer.h"
#include "server/catalog.h"
#include "server/handlers.h"
#include "server/http.h"
#include "server/window.h"
#include "server/worker.h"

enum { ITEMS = 3000, DIM = 16, COLOURS = 12, QUERIES = 200, MAX_K = 150, MAX_EXCLUDE = 200 };

struct fixture {
    struct serve_config config;
    struct bundle *bundle; /* the snapshot's */
    struct retired retired;
    struct workbench *bench;
    struct metrics metrics;
    float *items, *users;
    struct buf ids, colours;
    json_t *json[QUERIES]; /* what queries borrow from */
    struct query queries[QUERIES];
};

static struct rng rng;

static void make_column(struct buf *block, struct strtab *table, const char *format, unsigned values, bool sorted)
{
    static char texts[ITEMS][16];
    static struct span spans[ITEMS];
    struct err e = ERR_INIT;
    for (unsigned i = 0; i < ITEMS; i++) {
        snprintf(texts[i], sizeof texts[i], format, i % values);
        spans[i] = (struct span){texts[i], strlen(texts[i])};
    }
    strtab_write(block, spans, ITEMS);
    assert_int_equal(strtab_view(table, block->data, block->len, sorted, &e), 0);
}

static float *make_vectors(size_t n)
{
    float *x = mem_array(n * DIM, sizeof *x);
    for (size_t i = 0; i < n * DIM; i++) {
        x[i] = rng_normal(&rng);
    }
    return x;
}

/* A bundle that never was a file: what answering looks at, and no more. */
static void make_bundle(struct fixture *f)
{
    struct err e = ERR_INIT;
    struct bundle *b = f->bundle = mem_array(1, sizeof *b);
    b->n_items = ITEMS;
    b->dim = DIM;
    b->item_vectors = f->items;
    make_column(&f->ids, &b->item_ids, "i%04u", ITEMS, true);
    struct bundle_attribute *a = b->attributes = mem_array(1, sizeof *a);
    b->n_attributes = 1;
    make_column(&f->colours, &a->values, "\"c%u\"", COLOURS, false);
    snprintf(a->name, sizeof a->name, "colour");
    a->index = attribute_index_new(&a->values, &e);
    assert_non_null(a->index);
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct feature *feature = mem_array(1, sizeof *feature);
        *feature = (struct feature){.name = "age", .type = FEATURE_NUMERIC, .stddev = 1};
        b->schema.towers[side] = (struct tower_spec){.features = feature, .n_features = 1};
        b->schema.towers[side].network = (struct network){.type = NETWORK_MLP, .widths = {DIM}, .n_widths = 1};
    }
    assert_int_equal(schema_finish(&b->schema, &e), 0);
}

static void set_up(struct fixture *f, const char *engine)
{
    struct err e = ERR_INIT;
    *f = (struct fixture){.ids = BUF_INIT, .colours = BUF_INIT, .retired = {.wake_fd = -1}};
    f->config.limits.k = MAX_K;
    f->config.limits.batch = QUERIES;
    f->config.limits.score = 10;
    f->config.limits.exclude = 100 * MAX_EXCLUDE;
    f->config.limits.effort = 500;
    f->config.limits.list = 30;
    f->config.limits.body = 1 << 20;
    f->items = make_vectors(ITEMS);
    f->users = make_vectors(QUERIES);
    make_bundle(f);
    const struct ann_vectors vectors = {f->items, ITEMS, DIM};
    struct ann *index = ann_build(&vectors, &(struct ann_build_options){.engine = engine, .threads = 1}, &e);
    assert_non_null(index);
    struct snapshot *s = snapshot_new("v1", catalog_new(f->bundle, 0, &e), index, &f->retired, &e);
    assert_non_null(s);
    f->bench = workbench_new(s, &f->config, &e);
    assert_non_null(f->bench);
}

static void tear_down(struct fixture *f)
{
    struct snapshot *s = snapshot_ref(f->bench->snapshot);
    workbench_free(f->bench);
    snapshot_unref(s);
    assert_int_equal(snapshot_reap(&f->retired), 1);
    for (size_t i = 0; i < QUERIES; i++) {
        json_decref(f->json[i]);
    }
    mem_free(f->items);
    mem_free(f->users);
    buf_release(&f->ids);
    buf_release(&f->colours);
}

/* Query number i from JSON text. */
static void read_bytes(struct fixture *f, size_t i, const char *text, size_t n)
{
    struct fault fault;
    json_decref(f->json[i]);
    f->json[i] = request_parse(text, n, &fault);
    assert_non_null(f->json[i]);
    if (request_read_query(&f->bench->rules, f->json[i], "", "user", &f->queries[i], &fault) != 0) {
        fail_msg("%.*s: %s %s", (int)n, text, fault.pointer, fault.detail);
    }
}

static void read_query(struct fixture *f, size_t i, const char *text)
{
    read_bytes(f, i, text, strlen(text));
}

static void random_query(struct fixture *f, size_t i)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "{\"user\":{},\"k\":%u", 1 + rng_below(&rng, MAX_K));
    if (rng_below(&rng, 2) == 0) {
        buf_puts(&text, ",\"exclude\":[\"unknown\"");
        for (unsigned n = rng_below(&rng, MAX_EXCLUDE); n > 0; n--) {
            buf_printf(&text, ",\"i%04u\"", rng_below(&rng, ITEMS));
        }
        buf_puts(&text, "]");
    }
    if (rng_below(&rng, 2) == 0) {
        buf_printf(&text, ",\"filter\":{\"colour\":[\"c%u\",\"c%u\"]}", rng_below(&rng, COLOURS), rng_below(&rng, 4));
    }
    if (rng_below(&rng, 3) == 0) {
        buf_puts(&text, ",\"min_score\":3.5");
    }
    if (rng_below(&rng, 2) == 0) {
        buf_puts(&text, ",\"search\":{\"exact\":true}");
    } else if (rng_below(&rng, 2) == 0) {
        buf_printf(&text, ",\"search\":{\"effort\":%u}", 1 + rng_below(&rng, 20));
    }
    if (rng_below(&rng, 3) == 0) {
        buf_puts(&text, ",\"fields\":[\"colour\"]");
    }
    if (rng_below(&rng, 5) == 0) {
        buf_printf(&text, ",\"max_per\":{\"colour\":%u}", 1 + rng_below(&rng, 20));
    }
    buf_puts(&text, "}");
    assert_false(buf_failed(&text));
    read_bytes(f, i, text.data, text.len);
    buf_release(&text);
}

/* Answers queries [first, first + count) as one batch; texts end with '\n'. Returns the number of groups. */
static size_t answer(struct fixture *f, size_t first, size_t count, struct evbuffer *texts)
{
    struct answer_group g;
    struct json_out out;
    struct fault fault;
    size_t groups = 0;
    json_out_begin(&out, texts, 100);
    for (size_t done = 0; done < count; done += g.n, groups++) {
        const struct query *queries = f->queries + first + done;
        const float *vectors = f->users + (first + done) * DIM;
        assert_int_equal(answer_search(f->bench, &f->metrics, queries, count - done, vectors, -1, &g, &fault), 0);
        assert_in_range(g.n, 1, count - done);
        for (size_t i = 0; i < g.n; i++) {
            answer_write(f->bench->snapshot, &queries[i], &g, i, &out);
            json_out_bytes(&out, "\n", 1);
        }
    }
    assert_int_equal(json_out_end(&out), 0);
    return groups;
}

static void compare(struct fixture *f, bool divided)
{
    struct evbuffer *together = evbuffer_new();
    struct evbuffer *alone = evbuffer_new();
    size_t groups = answer(f, 0, QUERIES, together);
    assert_in_range(groups, (QUERIES + ANSWER_GROUP - 1) / ANSWER_GROUP, divided ? QUERIES : QUERIES / 2);
    for (size_t i = 0; i < QUERIES; i++) {
        assert_int_equal(answer(f, i, 1, alone), 1);
    }
    size_t n = evbuffer_get_length(alone);
    assert_int_equal(evbuffer_get_length(together), n);
    assert_memory_equal(evbuffer_pullup(together, -1), evbuffer_pullup(alone, -1), n);
    evbuffer_free(together);
    evbuffer_free(alone);
}

static void test_groups_answer_as_single_queries(void **state)
{
    (void)state;
    static const char *const engines[] = {"flat", "native"};
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        struct fixture f;
        set_up(&f, engines[i]);
        for (size_t round = 0; round < 5; round++) {
            for (size_t j = 0; j < QUERIES; j++) {
                random_query(&f, j);
            }
            compare(&f, round > 0);
            f.bench->n_hits = 2 * MAX_K + rng_below(&rng, 1000);
            f.bench->n_exclude = MAX_EXCLUDE + 1 + rng_below(&rng, 1000);
        }
        tear_down(&f);
    }
}

static size_t first_group(struct fixture *f, size_t count)
{
    struct answer_group g;
    struct fault fault;
    assert_int_equal(answer_search(f->bench, &f->metrics, f->queries, count, f->users, -1, &g, &fault), 0);
    return g.n;
}

static void test_how_much_fits_into_a_group(void **state)
{
    (void)state;
    struct fixture f;
    char text[2048];
    set_up(&f, "flat");
    for (size_t i = 0; i < QUERIES; i++) {
        read_query(&f, i, "{\"user\":{},\"k\":100,\"filter\":{\"colour\":\"c1\"}}"); /* equal filters are one */
    }
    assert_int_equal(first_group(&f, QUERIES), ANSWER_GROUP);
    assert_int_equal(first_group(&f, 3), 3);
    f.bench->n_hits = 350;
    assert_int_equal(first_group(&f, QUERIES), 3);
    for (size_t i = 0; i < QUERIES; i++) {
        snprintf(text, sizeof text, "{\"user\":{},\"k\":10,\"filter\":{\"colour\":[\"c1\",\"c%zu\"]}}", i);
        read_query(&f, i, text);
    }
    assert_int_equal(first_group(&f, QUERIES), FILTER_SETS);
    for (size_t i = 0; i < QUERIES; i++) {
        int n = snprintf(text, sizeof text, "{\"user\":{},\"k\":1,\"exclude\":[\"none\"");
        for (unsigned j = 0; j < 99; j++) {
            n += snprintf(text + n, sizeof text - (size_t)n, ",\"i%04u\"", j);
        }
        snprintf(text + n, sizeof text - (size_t)n, "]}");
        read_query(&f, i, text);
    }
    f.bench->n_exclude = 300; /* room for 101 is asked for, 99 are used */
    assert_int_equal(first_group(&f, QUERIES), 3);
    tear_down(&f);
}

static void test_a_vector_that_is_not_finite(void **state)
{
    (void)state;
    struct fixture f;
    struct answer_group g;
    struct fault fault;
    set_up(&f, "flat");
    for (size_t i = 0; i < 3; i++) {
        read_query(&f, i, "{\"user\":{}}");
    }
    f.users[DIM] = INFINITY;
    assert_int_equal(answer_search(f.bench, &f.metrics, f.queries, 3, f.users, -1, &g, &fault), -1);
    assert_int_equal(fault.type, PROBLEM_INTERNAL);
    assert_int_equal(first_group(&f, 1), 1);
    tear_down(&f);
}

/* The first k of the vector's order of which no colour has more than `most`. */
static size_t cap_naive(const struct fixture *f, const float *vector, size_t k, size_t most, struct scored *out)
{
    static struct scored all[ITEMS];
    static float scores[ITEMS];
    size_t taken[COLOURS] = {0};
    size_t n = 0;
    vec_dot_rows(scores, f->items, ITEMS, DIM, vector);
    topk_naive(all, ITEMS, scores, ITEMS);
    for (size_t i = 0; i < ITEMS && n < k; i++) {
        if (taken[all[i].row % COLOURS]++ < most) {
            out[n++] = all[i];
        }
    }
    return n;
}

static void test_most_of_a_value(void **state)
{
    (void)state;
    struct fixture f;
    char text[128];
    set_up(&f, "flat");
    for (size_t i = 0; i < QUERIES; i++) {
        struct answer_group g;
        struct fault fault;
        struct scored wanted[MAX_K];
        size_t k = 1 + rng_below(&rng, MAX_K);
        size_t most = 1 + rng_below(&rng, 20);
        snprintf(text, sizeof text, "{\"user\":{},\"k\":%zu,\"max_per\":{\"colour\":%zu}}", k, most);
        read_query(&f, i, text);
        const float *user = f.users + i * DIM;
        assert_int_equal(answer_search(f.bench, &f.metrics, &f.queries[i], QUERIES - i, user, -1, &g, &fault), 0);
        assert_int_equal(g.n, 1);
        size_t n = cap_naive(&f, user, k, most, wanted);
        assert_int_equal(g.answers[0].n, n);
        assert_int_equal(g.answers[0].complete, n == k);
        assert_int_equal(g.answers[0].strategy, ANN_STRATEGY_EXACT);
        assert_memory_equal(g.hits[0], wanted, n * sizeof *wanted);
    }
    tear_down(&f);
}

static void test_most_of_a_value_without_memory(void **state)
{
    (void)state;
    struct fixture f;
    struct answer_group g;
    struct fault fault;
    set_up(&f, "flat");
    read_query(&f, 0, "{\"user\":{},\"k\":100,\"max_per\":{\"colour\":5}}");
    int rc = -1;
    for (long n = 1; rc != 0; n++) {
        mem_fail_at(n);
        rc = answer_search(f.bench, &f.metrics, f.queries, 1, f.users, -1, &g, &fault);
        mem_fail_at(0);
        assert_true(rc == 0 ? n > 3 : fault.type == PROBLEM_OUT_OF_MEMORY);
    }
    assert_int_equal(g.answers[0].n, 5 * COLOURS);
    tear_down(&f);
}

/* --- requests of several clients that are answered together --------------------------------------------------------- */

enum { CLIENTS = 5 };

struct clients {
    struct waiting waiting[CLIENTS];
    size_t n;
    int fds[CLIENTS];
};

/* Weights so large that some users' vectors are infinite. */
static void bind_large_weights(struct fixture *f)
{
    static float weights[1000];
    struct tower *t = &f->bundle->towers[SIDE_USER];
    t->spec = &f->bundle->schema.towers[SIDE_USER];
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        weights[i] = 3e38f;
    }
    for (uint32_t i = 0; i < t->spec->layers.n_dense; i++) {
        const struct dense *d = &t->spec->layers.dense[i];
        static float none[DIM];
        assert_in_range(d->rows * d->columns, 0, sizeof weights / sizeof *weights);
        t->dense[i] = d->columns > 0 ? weights : none;
    }
}

static void wait_for_answer(struct http_request *request, void *arg)
{
    struct clients *c = arg;
    struct fault fault;
    json_t *body = request_parse(request->body, request->body_len, &fault);
    assert_non_null(body);
    c->waiting[c->n++] = (struct waiting){request, body};
}

static void test_a_search_that_fails_spares_the_others(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *status;
    } cases[CLIENTS] = {{"{\"user\":{\"age\":0}}", "HTTP/1.1 200 "},
                        {"{\"user\":{\"age\":9}}", "HTTP/1.1 500 "},
                        {"{\"user\":{\"age\":0},\"k\":0}", "HTTP/1.1 400 "},
                        {"{\"user\":{\"age\":0},\"k\":7}", "HTTP/1.1 200 "},
                        {"{\"user\":{\"age\":9},\"k\":7}", "HTTP/1.1 500 "}};
    struct fixture f;
    struct clients c = {.n = 0};
    struct err e = ERR_INIT;
    struct event_base *base = event_base_new();
    struct http_limits limits = HTTP_LIMITS_DEFAULT;
    struct http_server *server = http_server_new(base, &limits, wait_for_answer, &c, &e);
    assert_non_null(server);
    set_up(&f, "native");
    bind_large_weights(&f);
    for (size_t i = 0; i < CLIENTS; i++) {
        char text[256];
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_int_equal(http_server_adopt(server, pair[1], false), 0);
        int n = snprintf(text, sizeof text, "POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                         strlen(cases[i].body), cases[i].body);
        assert_int_equal(write(pair[0], text, (size_t)n), n);
        c.fds[i] = pair[0];
        while (c.n <= i) {
            event_base_loop(base, EVLOOP_ONCE);
        }
    }
    static struct worker w;
    w.bench = f.bench;
    recall_answer(c.waiting, CLIENTS, &w);
    assert_int_equal(w.metrics.users, CLIENTS - 1);
    assert_int_equal(w.metrics.gathered, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        char text[8192] = "";
        assert_true(read(c.fds[i], text, sizeof text - 1) > 0);
        assert_int_equal(strncmp(text, cases[i].status, strlen(cases[i].status)), 0);
        close(c.fds[i]);
    }
    http_server_free(server);
    event_base_free(base);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_answer_as_single_queries),
        cmocka_unit_test(test_how_much_fits_into_a_group),
        cmocka_unit_test(test_a_vector_that_is_not_finite),
        cmocka_unit_test(test_most_of_a_value),
        cmocka_unit_test(test_most_of_a_value_without_memory),
        cmocka_unit_test(test_a_search_that_fails_spares_the_others),
    };
    rng_seed(&rng, 7, 8);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
