#include "train/dataset_fingerprint.h"

#include "core/buf.h"
#include "core/feature_pack.h"
#include "core/fileio.h"

/* A checksum of checksums: blocks keep their borders. */
static void add(struct buf *sums, const void *bytes, size_t n)
{
    char hex[FILE_SHA256_HEX];
    bytes_sha256(bytes, bytes == NULL ? 0 : n, hex);
    buf_puts(sums, hex);
}

static void add_strings(struct buf *sums, const struct strtab *t)
{
    add(sums, t->offsets, t->count > 0 ? (t->count + 1) * sizeof *t->offsets : 0);
    add(sums, t->bytes, t->count > 0 ? (size_t)(t->offsets[t->count] - t->offsets[0]) : 0);
}

static json_t *finish(struct buf *sums, size_t count)
{
    char hex[FILE_SHA256_HEX] = "";
    bool complete = !buf_failed(sums);
    if (complete) {
        bytes_sha256(sums->data, sums->len, hex);
    }
    buf_release(sums);
    return complete ? json_pack("{s:I, s:s}", "count", (json_int_t)count, "sha256", hex) : NULL;
}

/* Values, whether packed or not. -1 without memory. */
static int add_column(struct buf *sums, const struct feature_rows *rows, uint32_t feature)
{
    struct feature_column c;
    if (feature_rows_column(rows, feature, &c) < 0) {
        return -1;
    }
    size_t n = c.start != NULL ? c.start[rows->n] : rows->n;
    add(sums, c.number, rows->n * sizeof *c.number);
    add(sums, c.index, n * sizeof *c.index);
    add(sums, c.start, (rows->n + 1) * sizeof *c.start);
    feature_column_release(&c);
    return 0;
}

static json_t *side(const struct dataset *d, enum side which, const struct strtab *ids)
{
    struct buf sums = BUF_INIT;
    const struct feature_rows *rows = &d->rows[which];
    add_strings(&sums, ids);
    for (uint32_t i = 0; i < rows->spec->n_features; i++) {
        const struct feature *f = &rows->spec->features[i];
        if (feature_has_vocab(f)) {
            add_strings(&sums, &f->vocab);
        }
        if (f->type != FEATURE_SEQUENCE && add_column(&sums, rows, i) < 0) {
            buf_release(&sums);
            return NULL;
        }
    }
    return finish(&sums, rows->n);
}

static void add_interactions(struct buf *sums, const struct interactions *part, size_t n_users)
{
    add(sums, part->item, part->n * sizeof *part->item);
    add(sums, part->start, (n_users + 1) * sizeof *part->start);
    add(sums, part->time, part->n * sizeof *part->time);
    add(sums, part->same, (part->n / 64 + 1) * sizeof *part->same);
    add(sums, part->weight, part->n * sizeof *part->weight);
}

static json_t *events(const struct dataset *d)
{
    struct buf sums = BUF_INIT;
    add_interactions(&sums, &d->train, d->n_users);
    add_interactions(&sums, &d->exposed, d->n_users);
    return finish(&sums, d->train.n);
}

static json_t *hard_negatives(const struct dataset *d)
{
    struct buf sums = BUF_INIT;
    add_interactions(&sums, &d->hard, d->n_users);
    return finish(&sums, d->hard.n);
}

json_t *dataset_fingerprint(const struct dataset *d, struct err *e)
{
    json_t *users = side(d, SIDE_USER, &d->user_ids);
    json_t *items = side(d, SIDE_ITEM, &d->item_ids);
    json_t *all = events(d);
    json_t *o = json_pack("{s:o, s:o, s:o, s:o}", "users", users, "items", items, "events", all, "hard negatives",
                          hard_negatives(d));
    if (o == NULL) {
        err_nomem(e);
    }
    return o;
}
