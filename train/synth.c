/*
 * Nothing is stored of the world: what a user or an item is like is a hash of the seed, a purpose and its number, asked
 * again whenever it is needed, so that ten million users cost no memory and files can be written in any order.
 *
 * Items are known by their place in the world, 0 the most popular: topic = place mod 16, corner = (place / 16) mod 8.
 * Users likewise, 0 the busiest. An id is the place sent through a bijection of [0, n), x -> (a x + b) mod n with a
 * prime to n, plus 1; else ids would be sorted by popularity and a measurement of memory access would flatter us. Files
 * are written in id order through its inverse.
 */
#include "train/synth.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "core/rng.h"

enum { TOPICS = 16, CORNERS = 8, CITIES = 40, DAYS = 90, MOOD_SECONDS = 3 * 86400, FLUSH_AT = 1 << 20 };
static const int64_t first_second = 1767225600; /* 2026-01-01 */

static const char *const topic_names[TOPICS] = {"crime",  "comedy",   "drama",   "history", "horror", "music",
                                                "nature", "politics", "romance", "science", "sport",  "travel",
                                                "war",    "western",  "fantasy", "food"};

/* What a hash is for: independent streams. */
enum purpose { USER_TASTE = 1, USER_TABLE, USER_MOOD, ITEM_TABLE, EVENTS };

struct bijection {
    uint64_t n, a, b, inverse; /* x -> (a x + b) mod n */
};

struct world {
    uint64_t users, items, events, seed;
    struct bijection user_ids, item_ids;
};

struct user {
    unsigned main, second;          /* topics */
    unsigned corner, second_corner; /* favourites in them */
};

/* A text file being written. The first error stays and later calls do nothing. */
struct writer {
    int fd;
    char *path; /* owned */
    struct buf text;
    struct err *e;
    bool failed;
};

/* --- numbers -------------------------------------------------------------------------------------------------------*/

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The inverse of a modulo n, both below 2^31, by Euclid's extended algorithm. */
static uint64_t inverse_modulo(uint64_t a, uint64_t n)
{
    int64_t r0 = (int64_t)n, r1 = (int64_t)a, t0 = 0, t1 = 1;
    while (r1 != 0) {
        int64_t q = r0 / r1, r2 = r0 - q * r1, t2 = t0 - q * t1;
        r0 = r1, r1 = r2;
        t0 = t1, t1 = t2;
    }
    return (uint64_t)(t0 < 0 ? t0 + (int64_t)n : t0);
}

static struct bijection bijection_new(uint64_t n, uint64_t seed)
{
    struct bijection p = {.n = n, .a = rng_mix(seed) % n, .b = rng_mix(seed + 1) % n};
    while (greatest_common_divisor(p.a, n) != 1) {
        p.a = (p.a + 1) % n;
    }
    p.inverse = inverse_modulo(p.a, n) % n;
    return p;
}

static uint64_t id_of(const struct bijection *p, uint64_t place)
{
    return (p->a * place + p->b) % p->n + 1;
}

static uint64_t place_of(const struct bijection *p, uint64_t id)
{
    return (id - 1 + p->n - p->b) % p->n * p->inverse % p->n;
}

static struct rng rng_for(const struct world *w, enum purpose purpose, uint64_t number)
{
    struct rng rng;
    rng_seed(&rng, w->seed, (uint64_t)purpose << 56 ^ number);
    return rng;
}

static bool chance(struct rng *rng, float probability)
{
    return rng_uniform(rng) < probability;
}

/* --- the world -----------------------------------------------------------------------------------------------------*/

static unsigned topic_of(uint64_t item)
{
    return (unsigned)(item % TOPICS);
}

static unsigned corner_of(uint64_t item)
{
    return (unsigned)(item / TOPICS % CORNERS);
}

static struct user user_at(const struct world *w, uint64_t place)
{
    uint64_t h = rng_mix(rng_mix(w->seed + USER_TASTE) + place * 0x9e3779b97f4a7c15U);
    return (struct user){.main = (unsigned)(h % TOPICS),
                         .second = (unsigned)(h >> 8) % TOPICS,
                         .corner = (unsigned)(h >> 16) % CORNERS,
                         .second_corner = (unsigned)(h >> 24) % CORNERS};
}

/* The topic that a user is after at a time. */
static unsigned mood_at(const struct world *w, const struct user *u, uint64_t place, int64_t second)
{
    uint64_t period = (uint64_t)(second / MOOD_SECONDS);
    uint64_t h = rng_mix(rng_mix(w->seed + USER_MOOD + (period << 32)) + place * 0x9e3779b97f4a7c15U);
    unsigned percent = (unsigned)(h >> 32) % 100;
    return percent < 60 ? u->main : percent < 85 ? u->second : (unsigned)(h % TOPICS);
}

/* A number below n, small ones more often: rank r with probability in proportion to r^-0.6. */
static uint64_t rank_below(struct rng *rng, uint64_t n)
{
    float x = rng_uniform(rng);
    uint64_t r = (uint64_t)((double)(x * x * sqrtf(x)) * (double)n);
    return r < n ? r : n - 1;
}

static uint64_t choose_item(const struct world *w, const struct user *u, unsigned mood, struct rng *rng)
{
    if (chance(rng, 0.1F)) {
        return rank_below(rng, w->items);
    }
    unsigned corner = mood == u->main ? u->corner : mood == u->second ? u->second_corner : rng_below(rng, CORNERS);
    if (!chance(rng, 0.7F)) {
        corner = rng_below(rng, CORNERS);
    }
    uint64_t rounds = w->items / (TOPICS * CORNERS) + 1;
    uint64_t item = (rank_below(rng, rounds) * CORNERS + corner) * TOPICS + mood;
    return item < w->items ? item : item % w->items; /* the last round is not complete */
}

/* A busy user: 0 the busiest. */
static uint64_t choose_user(const struct world *w, uint64_t event, struct rng *rng)
{
    return event % 2 == 0 ? event / 2 % w->users : rank_below(rng, w->users);
}

/* --- writing -------------------------------------------------------------------------------------------------------*/

static void writer_open(struct writer *out, const char *dir, const char *name, struct err *e)
{
    *out = (struct writer){.fd = -1, .text = BUF_INIT, .e = e};
    out->path = path_join(dir, name);
    if (out->path == NULL) {
        err_nomem(e);
        out->failed = true;
        return;
    }
    out->fd = open(out->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out->fd < 0) {
        err_set(e, "%s: %s", out->path, strerror(errno));
        out->failed = true;
    }
}

static void writer_flush(struct writer *out)
{
    if (!out->failed && fd_write(out->fd, out->text.data, out->text.len) < 0) {
        err_set(out->e, "%s: %s", out->path, strerror(errno));
        out->failed = true;
    }
    if (buf_failed(&out->text)) {
        err_nomem(out->e);
        out->failed = true;
    }
    buf_clear(&out->text);
}

/* Ends a line. */
static void writer_end_line(struct writer *out)
{
    buf_add(&out->text, "\n", 1);
    if (out->text.len >= FLUSH_AT || buf_failed(&out->text)) {
        writer_flush(out);
    }
}

static int writer_close(struct writer *out)
{
    writer_flush(out);
    if (out->fd >= 0 && close(out->fd) < 0 && !out->failed) {
        err_set(out->e, "%s: %s", out->path, strerror(errno));
        out->failed = true;
    }
    buf_release(&out->text);
    mem_free(out->path);
    return out->failed ? -1 : 0;
}

/* A number and what follows it: printf would be half of the time. */
static void write_number(struct writer *out, uint64_t n, char behind)
{
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = behind;
    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    buf_add(&out->text, digits + at, sizeof digits - at);
}

/* gender,city,age,spend,activity,topics */
static void write_user(struct writer *out, const struct world *w, uint64_t id)
{
    uint64_t place = place_of(&w->user_ids, id);
    struct user u = user_at(w, place);
    struct rng rng = rng_for(w, USER_TABLE, place);
    struct buf *text = &out->text;
    write_number(out, id, ',');
    buf_puts(text, chance(&rng, 0.04F)                      ? ""
                   : chance(&rng, 0.1F)                     ? "x"
                   : chance(&rng, u.main % 2 ? 0.8F : 0.2F) ? "f"
                                                            : "m");
    unsigned city = chance(&rng, 0.5F) ? u.main * 2 + rng_below(&rng, 2) : rng_below(&rng, CITIES);
    buf_printf(text, ",city%02u,", city);
    float age = 18 + 2.5F * (float)u.main + 5 * rng_normal(&rng);
    if (!chance(&rng, 0.1F)) {
        buf_printf(text, "%d", (int)fminf(fmaxf(age, 13), 90));
    }
    buf_printf(text, ",%.2f,", (double)expf(3 + 0.1F * (float)u.corner + rng_normal(&rng)));
    double share = 0.5 + 0.2 * pow(((double)place + 1) / (double)w->users, -0.6); /* by choose_user */
    write_number(out, 1 + (uint64_t)(share * (double)w->events / (double)w->users * (0.8 + 0.4 * rng_uniform(&rng))),
                 ',');
    bool main = chance(&rng, 0.8F), second = chance(&rng, 0.5F), stray = chance(&rng, 0.1F);
    buf_puts(text, main ? topic_names[u.main] : "");
    buf_printf(text, "%s%s", main && second ? "|" : "", second ? topic_names[u.second] : "");
    buf_printf(text, "%s%s", (main || second) && stray ? "|" : "", stray ? topic_names[rng_below(&rng, TOPICS)] : "");
    writer_end_line(out);
}

/* title,category,tags,price,age */
static void write_item(struct writer *out, const struct world *w, uint64_t id)
{
    uint64_t place = place_of(&w->item_ids, id);
    unsigned topic = topic_of(place), corner = corner_of(place);
    struct rng rng = rng_for(w, ITEM_TABLE, place);
    struct buf *text = &out->text;
    write_number(out, id, ',');
    const char *category = topic_names[chance(&rng, 0.1F) ? rng_below(&rng, TOPICS) : topic];
    buf_printf(text, "\"%s %c, no. ", topic_names[topic], (char)('A' + corner));
    write_number(out, place / (TOPICS * CORNERS) + 1, '"');
    buf_printf(text, ",%s,%s|%s-%c", category, topic_names[topic], topic_names[topic], (char)('a' + corner));
    if (chance(&rng, 0.33F)) {
        unsigned stray = rng_below(&rng, TOPICS);
        buf_printf(text, "|%s-%c", topic_names[stray], (char)('a' + rng_below(&rng, CORNERS)));
    }
    buf_puts(text, ",");
    if (!chance(&rng, 0.05F)) {
        buf_printf(text, "%.2f", (double)expf(2 + 0.15F * (float)topic + 0.5F * rng_normal(&rng)));
    }
    buf_puts(text, ",");
    double popularity = 1 - (double)place / (double)w->items;
    write_number(out, 1 + (uint64_t)((0.3 + 0.7 * popularity) * 1000 * (double)rng_uniform(&rng)), '\n');
    text->len--; /* end_line writes it */
    writer_end_line(out);
}

static int write_users(const struct world *w, const char *dir, struct err *e)
{
    struct writer out;
    writer_open(&out, dir, "users.csv", e);
    buf_puts(&out.text, "user_id,gender,city,age,spend,activity,topics\n");
    for (uint64_t id = 1; id <= w->users && !out.failed; id++) {
        write_user(&out, w, id);
    }
    return writer_close(&out);
}

static int write_items(const struct world *w, const char *dir, struct err *e)
{
    struct writer out;
    writer_open(&out, dir, "items.csv", e);
    buf_puts(&out.text, "item_id,title,category,tags,price,age\n");
    for (uint64_t id = 1; id <= w->items && !out.failed; id++) {
        write_item(&out, w, id);
    }
    return writer_close(&out);
}

static int write_clicks(const struct world *w, const char *dir, struct err *e)
{
    struct writer out;
    struct rng rng = rng_for(w, EVENTS, 0);
    double step = (double)DAYS * 86400 / (double)w->events;
    writer_open(&out, dir, "clicks.csv", e);
    buf_puts(&out.text, "user_id,item_id,ts\n");
    for (uint64_t i = 0; i < w->events && !out.failed; i++) {
        uint64_t place = choose_user(w, i, &rng);
        struct user u = user_at(w, place);
        int64_t second = first_second + (int64_t)((double)i * step);
        uint64_t item = choose_item(w, &u, mood_at(w, &u, place, second), &rng);
        write_number(&out, id_of(&w->user_ids, place), ',');
        write_number(&out, id_of(&w->item_ids, item), ',');
        write_number(&out, (uint64_t)second, '\n');
        out.text.len--;
        writer_end_line(&out);
    }
    return writer_close(&out);
}

static const char configuration[] =
    "# Made by recall-train synth: a world with a known structure (16 topics; a user's mood is in the history).\n"
    "# recall-train fit train.yaml\n"
    "data:\n"
    "  users: {path: users.csv, id: user_id}\n"
    "  items: {path: items.csv, id: item_id}\n"
    "  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}\n"
    "  split: {method: leave_last, n: 1}\n"
    "user_tower:\n"
    "  features:\n"
    "    - {name: user_id, type: id, dim: 32}\n"
    "    - {name: gender, type: onehot}\n"
    "    - {name: city, type: categorical, dim: 8, min_count: 2}\n"
    "    - {name: topics, type: categorical, multi: \"|\", dim: 16, pooling: mean}\n"
    "    - {name: age, type: numeric, transform: standardize}\n"
    "    - {name: spend, type: numeric, transform: log}\n"
    "    - {name: activity, type: numeric, transform: bucketize, buckets: 8, dim: 4}\n"
    "    - {name: history, type: sequence, of: item_id, last: 20, dim: 32, pooling: mean}\n"
    "  network: {type: mlp, layers: [64, 32]}\n"
    "item_tower:\n"
    "  features:\n"
    "    - {name: item_id, type: id, dim: 32}\n"
    "    - {name: category, type: categorical, dim: 8}\n"
    "    - {name: tags, type: categorical, multi: \"|\", dim: 16, buckets: 1000, pooling: mean}\n"
    "    - {name: price, type: numeric, transform: log}\n"
    "    - {name: age, type: numeric, transform: bucketize, buckets: 8, dim: 4}\n"
    "  network: {type: mlp, layers: [64, 32]}\n"
    "similarity: cosine\n"
    "loss: {type: softmax, temperature: 0.1, logq: true}\n"
    "negatives: {in_batch: true}\n"
    "optimizer: {type: adagrad, lr: 0.1, batch_size: 1024, epochs: 6}\n"
    "seed: 1\n"
    "output: {dir: models}\n"
    "index: {engine: native}\n";

static int write_configuration(const char *dir, struct err *e)
{
    struct writer out;
    writer_open(&out, dir, "train.yaml", e);
    buf_puts(&out.text, configuration);
    return writer_close(&out);
}

int synth_write(const char *dir, uint64_t users, uint64_t items, uint64_t events, uint64_t seed, struct err *e)
{
    if (users < 1 || users > SYNTH_MAX || items < 1 || items > SYNTH_MAX || events < 1) {
        return err_set(e, "synth: 1 to %d users and items, and at least one event", SYNTH_MAX);
    }
    struct world w = {.users = users, .items = items, .events = events, .seed = seed};
    w.user_ids = bijection_new(users, rng_mix(seed) + 1);
    w.item_ids = bijection_new(items, rng_mix(seed) + 3);
    if (dir_create(dir, e) < 0 || write_users(&w, dir, e) < 0 || write_items(&w, dir, e) < 0 ||
        write_clicks(&w, dir, e) < 0) {
        return -1;
    }
    return write_configuration(dir, e);
}
