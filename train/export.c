/*
 * What goes into a bundle, file by file. The order does not matter: nothing is visible before bundle_writer_finish.
 *
 * Probes are made the long way round on purpose: their vectors come from the encoded training data, their requests from
 * the text of users.csv, so opening the bundle proves on every machine that a request gives what training saw.
 */
#include "train/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/bundle.h"
#include "core/fileio.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/topk.h"
#include "core/vecmath.h"
#include "train/attributes.h"
#include "train/export_profiles.h"

enum { PROBES = 16, PROBE_K = 10 };

static int export_strings(struct bundle_writer *w, const char *name, const struct strtab *t, struct err *e)
{
    struct buf out = BUF_INIT;
    struct span *strings = mem_array(t->count, sizeof *strings);
    int result = -1;
    for (size_t i = 0; strings != NULL && i < t->count; i++) {
        strings[i].text = strtab_get(t, i, &strings[i].length);
    }
    if (strings != NULL) {
        strtab_write(&out, strings, t->count);
    }
    if (strings == NULL || buf_failed(&out)) {
        err_nomem(e);
    } else {
        result = bundle_writer_put(w, name, out.data, out.len, e);
    }
    mem_free(strings);
    buf_release(&out);
    return result;
}

static int export_vocabularies(struct bundle_writer *w, const struct schema *s, struct err *e)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        for (uint32_t i = 0; i < s->towers[side].n_features; i++) {
            const struct feature *f = &s->towers[side].features[i];
            char name[SCHEMA_MAX_NAME + 32];
            if (feature_vocab_file(f, (enum side)side, name) && export_strings(w, name, &f->vocab, e) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int compare_popular(const void *a, const void *b)
{
    const struct bundle_popular *x = a;
    const struct bundle_popular *y = b;
    return x->events != y->events ? (x->events < y->events) - (x->events > y->events)
                                  : (x->row > y->row) - (x->row < y->row);
}

/* Items by train events, equal ones by id. */
static int export_popular(struct bundle_writer *w, const struct dataset *d, struct err *e)
{
    struct bundle_popular *list = mem_array(d->n_items, sizeof *list);
    if (list == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < d->n_items; i++) {
        list[i] = (struct bundle_popular){(uint32_t)i, d->item_count[i]};
    }
    qsort(list, d->n_items, sizeof *list, compare_popular);
    int result = bundle_writer_put(w, "items/popular.u32", list, d->n_items * sizeof *list, e);
    mem_free(list);
    return result;
}

static int export_weights(struct bundle_writer *w, const struct model *m, struct err *e)
{
    char *path = bundle_writer_add(w, "weights.safetensors", e);
    int result = path == NULL ? -1 : model_write(m, path, e);
    mem_free(path);
    return result;
}

int export_index(struct bundle_writer *w, const struct ann *index, json_t *record, struct err *e)
{
    char name[64];
    if (!ann_has_file(ann_engine_name(index))) {
        json_object_del(record, "file");
        return 0;
    }
    snprintf(name, sizeof name, "index/%s.index", ann_engine_name(index));
    char *path = bundle_writer_add(w, name, e);
    int result = path == NULL ? -1 : ann_save(index, path, e);
    mem_free(path);
    if (result == 0 && json_object_set_new(record, "file", json_string(name)) < 0) {
        return err_nomem(e);
    }
    return result;
}

/* --- probes ---------------------------------------------------------------------------------------------------------*/

/* Users to probe with: evenly spaced among those with train events. Returns how many. */
static size_t choose_probes(const struct dataset *d, uint32_t users[PROBES])
{
    size_t with_events = 0;
    for (size_t u = 0; u < d->n_users; u++) {
        with_events += d->train.start[u + 1] > d->train.start[u];
    }
    size_t wanted = with_events < PROBES ? with_events : PROBES;
    size_t seen = 0;
    size_t n = 0;
    for (size_t u = 0; u < d->n_users && n < wanted; u++) {
        if (d->train.start[u + 1] > d->train.start[u] && seen++ == n * with_events / wanted) {
            users[n++] = (uint32_t)u;
        }
    }
    return n;
}

static json_t *history_to_json(const struct dataset *d, uint32_t user, uint32_t last)
{
    size_t end = d->train.start[user + 1];
    size_t begin = d->train.start[user];
    begin = end - begin > last ? end - last : begin;
    json_t *list = json_array();
    for (size_t i = begin; i < end; i++) {
        size_t n;
        const char *id = strtab_get(&d->item_ids, d->train.item[i], &n);
        json_array_append_new(list, json_stringn(id, n));
    }
    return list;
}

/* Requests of the users: ids and histories from the dataset, the rest from users.csv's text. */
static int make_requests(const struct export *x, const uint32_t *users, size_t n, json_t **requests, struct err *e)
{
    const struct dataset *d = x->d;
    const struct tower_spec *spec = &d->schema.towers[SIDE_USER];
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *id = strtab_get(&d->user_ids, users[i], &length);
        requests[i] = json_object();
        for (uint32_t f = 0; f < spec->n_features; f++) {
            if (spec->features[f].type == FEATURE_ID) {
                json_object_set_new(requests[i], spec->features[f].name, json_stringn(id, length));
            } else if (spec->features[f].type == FEATURE_SEQUENCE) {
                json_object_set_new(requests[i], spec->features[f].name,
                                    history_to_json(d, users[i], spec->features[f].last));
            }
        }
    }
    return attributes_of_users(x->config, d, users, n, requests, e);
}

/* With profiles, half of the users are only named. */
static int name_users(const struct export *x, const uint32_t *users, size_t n, json_t **requests, struct err *e)
{
    for (size_t i = 1; x->config->output.user_profiles && i < n; i += 2) {
        size_t length;
        const char *id = strtab_get(&x->d->user_ids, users[i], &length);
        json_decref(requests[i]);
        requests[i] = json_pack("{s:s%}", profiles_key(x->config), id, length);
        if (requests[i] == NULL) {
            return err_nomem(e);
        }
    }
    return 0;
}

static int append_probe(const struct export *x, json_t *list, json_t *request, const float *vector, struct err *e)
{
    const struct dataset *d = x->d;
    size_t dim = d->schema.towers[SIDE_ITEM].output_dim;
    struct scored entries[PROBE_K];
    struct topk best;
    topk_init(&best, entries, d->n_items < PROBE_K ? d->n_items : PROBE_K);
    for (size_t i = 0; i < d->n_items; i++) {
        topk_push(&best, vec_dot(vector, x->item_vectors + i * dim, dim), (uint32_t)i);
    }
    topk_sort(&best);
    json_t *numbers = json_array();
    json_t *items = json_array();
    for (size_t i = 0; i < dim; i++) {
        json_array_append_new(numbers, json_real((double)vector[i]));
    }
    for (size_t i = 0; i < best.n; i++) {
        size_t n;
        const char *id = strtab_get(&d->item_ids, entries[i].row, &n);
        json_array_append_new(items, json_pack("{s:s%, s:f}", "id", id, n, "score", (double)entries[i].score));
    }
    json_t *probe = json_pack("{s:O, s:o, s:o}", "user", request, "vector", numbers, "items", items);
    return json_array_append_new(list, probe) < 0 ? err_nomem(e) : 0;
}

/* The user about whom nothing is known: its vector comes from an empty request, there is no row to compare with. */
static int append_cold_probe(const struct export *x, json_t *list, struct err *e)
{
    struct feature_rows rows;
    struct tower_pass pass = {0};
    struct value_scratch scratch = {0};
    char pointer[256];
    const struct tower *tower = &x->model->towers[SIDE_USER];
    float *vector = mem_array(tower->spec->output_dim, sizeof *vector);
    json_t *request = json_object();
    int result = -1;
    if (feature_rows_init(&rows, tower->spec) < 0 || vector == NULL || request == NULL) {
        err_nomem(e);
    } else if (tower_pass_init(&pass, tower->spec, 1, e) == 0 &&
               features_add_json(&rows, request, &scratch, pointer, sizeof pointer, e) == 0) {
        tower_embed(tower, x->d->schema.similarity, &rows, &pass, vector);
        result = append_probe(x, list, request, vector, e);
    }
    json_decref(request);
    mem_free(vector);
    value_scratch_release(&scratch);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
    return result;
}

static int export_probes(struct bundle_writer *w, const struct export *x, struct err *e)
{
    uint32_t users[PROBES];
    json_t *requests[PROBES] = {NULL};
    size_t n = choose_probes(x->d, users);
    size_t dim = x->d->schema.towers[SIDE_USER].output_dim;
    float *vectors = mem_array(PROBES * dim, sizeof *vectors);
    json_t *list = json_array();
    char *text = NULL;
    int result = -1;
    if (vectors == NULL || list == NULL) {
        err_nomem(e);
        goto out;
    }
    if (make_requests(x, users, n, requests, e) < 0 || name_users(x, users, n, requests, e) < 0 ||
        tower_ranker_vectors(x->users, 0, users, n, vectors, e) < 0) {
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        /* a tolerated bad row has no usable text to probe with */
        if (requests[i] != NULL && append_probe(x, list, requests[i], vectors + i * dim, e) < 0) {
            goto out;
        }
    }
    if (append_cold_probe(x, list, e) < 0) {
        goto out;
    }
    json_t *whole = json_pack("{s:i, s:O}", "k", PROBE_K, "probes", list);
    text = json_dumps(whole, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(whole);
    result = text == NULL ? err_nomem(e) : bundle_writer_put(w, "probes.json", text, strlen(text), e);
out:
    for (size_t i = 0; i < n; i++) {
        json_decref(requests[i]);
    }
    free(text);
    json_decref(list);
    mem_free(vectors);
    return result;
}

/* --- the whole ------------------------------------------------------------------------------------------------------*/

/* Where a link stands: "models/current" and "models/current/" -> "models". A new string. */
static char *directory_of(const char *link)
{
    size_t n = strlen(link);
    while (n > 1 && link[n - 1] == '/') {
        n--;
    }
    while (n > 0 && link[n - 1] != '/') {
        n--;
    }
    return n == 0 ? mem_strdup(".") : mem_strndup(link, n);
}

int publish_link(const char *bundle, const char *link, struct err *e)
{
    char *dir = directory_of(link);
    char *real = realpath(bundle, NULL);
    char *real_dir = dir == NULL ? NULL : realpath(dir, NULL);
    int result = -1;
    if (dir == NULL) {
        err_nomem(e);
    } else if (real == NULL || real_dir == NULL) {
        err_set(e, "%s: no such directory", real == NULL ? bundle : dir);
    } else {
        size_t n = strlen(real_dir);
        bool beside = strncmp(real, real_dir, n) == 0 && real[n] == '/' && strchr(real + n + 1, '/') == NULL;
        result = link_replace(beside ? real + n + 1 : real, link, e);
    }
    free(real);
    free(real_dir);
    mem_free(dir);
    return result;
}

/* <output.dir>/current */
static int publish_current(const char *models, const char *bundle, struct err *e)
{
    char *link = path_join(models, "current");
    int result = link == NULL ? err_nomem(e) : publish_link(bundle, link, e);
    mem_free(link);
    return result;
}

static json_t *names_to_json(char *const *names)
{
    json_t *list = names == NULL ? json_null() : json_array();
    for (size_t i = 0; names != NULL && names[i] != NULL; i++) {
        json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

/* How the training data looked, for `recall-train eval`. */
static json_t *data_to_json(const struct train_config *c)
{
    bool header = c->data.header;
    return json_pack("{s:s, s:s, s:s?, s:s?, s:f, s:s, s:s?, s:s?, s:o, s:o}", "user", c->data.events.user, "item",
                     c->data.events.item, "time", c->data.events.time, "label", c->data.events.label, "label_min",
                     c->data.events.label_min, "delimiter", c->data.delimiter, "users", c->data.users.path, "users_id",
                     c->data.users.id, "columns_events", names_to_json(header ? NULL : c->data.columns_events),
                     "columns_users", names_to_json(header ? NULL : c->data.columns_users));
}

static json_t *make_manifest(const struct export *x, json_t *attributes, json_t *profiles, struct err *e)
{
    const struct schema *s = &x->d->schema;
    json_t *manifest =
        json_pack("{s:o, s:o, s:O, s:O, s:{s:I, s:i}, s:O, s:O, s:O, s:s, s:O*}", "schema", schema_to_json(s), "data",
                  data_to_json(x->config), "attributes", attributes, "index", x->index_record, "items", "count",
                  (json_int_t)x->d->n_items, "dim", (int)s->towers[SIDE_ITEM].output_dim, "metrics", x->metrics,
                  "baselines", x->baselines, "train", x->train, "config", x->config->text, "users", profiles);
    if (manifest == NULL) {
        err_nomem(e);
    }
    return manifest;
}

char *export_bundle(const struct export *x, struct err *e)
{
    size_t dim = x->d->schema.towers[SIDE_ITEM].output_dim;
    json_t *attributes = json_array();
    json_t *profiles = NULL;
    json_t *manifest = NULL;
    char *path = NULL;
    struct bundle_writer *w = bundle_writer_new(x->config->output.dir, e);
    bool written =
        w != NULL && export_weights(w, x->model, e) == 0 && export_vocabularies(w, &x->d->schema, e) == 0 &&
        export_strings(w, "items/ids.strings", &x->d->item_ids, e) == 0 &&
        bundle_writer_put(w, "items/vectors.f32", x->item_vectors, x->d->n_items * dim * sizeof(float), e) == 0 &&
        export_popular(w, x->d, e) == 0 &&
        bundle_writer_put(w, "queries.f32", x->queries, x->n_queries * dim * sizeof(float), e) == 0 &&
        attributes_export(w, x->config, x->d, attributes, e) == 0 &&
        export_index(w, x->index, x->index_record, e) == 0 && export_probes(w, x, e) == 0;
    if (written && x->config->output.user_profiles) {
        profiles = profiles_export(w, x->config, x->d, e);
        written = profiles != NULL;
    }
    if (written) {
        manifest = make_manifest(x, attributes, profiles, e);
    }
    if (manifest != NULL && bundle_writer_finish(w, manifest, &path, e) == 0 &&
        publish_current(x->config->output.dir, path, e) < 0) {
        mem_free(path);
        path = NULL;
    }
    json_decref(manifest);
    json_decref(profiles);
    json_decref(attributes);
    bundle_writer_free(w);
    return path;
}
