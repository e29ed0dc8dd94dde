/*
 * libFuzzer entry for index files: those that our own code reads, of the native engine and of HNSW graphs. (Other faiss
 * indexes are read by faiss.) What is refused is refused with the file's name; what is accepted answers every query as the
 * vectors demand, whatever the file says.
 *
 * An input is two bytes that say what to do, then a file. The first says over which vectors and with which engine it is opened,
 * how much of the header is put right (a checksum lets no mutation pass), with which instructions it is searched, and whether
 * queries go in a batch; the second chooses the queries. The real files are the seeds: FUZZ_SEEDS names the folder they go to.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ann/engine.h"
#include "ann/indexfile.h"
#include "core/cpu.h"
#include "core/rng.h"
#include "core/vecmath.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { WORLDS = 8, MOST_ROWS = 300, MOST_DIM = 34, MOST_K = 60, QUERIES = 4, CONTROL = 2, FILE_MAX = 1 << 20 };
enum repair { REPAIR_NOTHING, REPAIR_CHECKSUMS, REPAIR_VECTORS, REPAIR_ALL };

/* Vectors, and the real index over them. */
struct world {
    const char *engine;
    size_t n;
    uint32_t dim;
    float *data;
    unsigned char *file;
    size_t size;
};

static struct world worlds[WORLDS] = {
    {.engine = "native", .n = 0, .dim = 3},   {.engine = "native", .n = 1, .dim = 1},
    {.engine = "native", .n = 40, .dim = 34}, {.engine = "native", .n = 300, .dim = 8},
    {.engine = "faiss", .n = 0, .dim = 3},    {.engine = "faiss", .n = 1, .dim = 1},
    {.engine = "faiss", .n = 40, .dim = 34},  {.engine = "faiss", .n = 300, .dim = 8},
};

static const char INPUT[] = "input";
static const unsigned char *input; /* the file of that name */
static size_t input_size;

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* At least one byte, so that no memory is the only reason for NULL. */
static void *block_of(size_t size)
{
    void *block = malloc(size > 0 ? size : 1);
    check(block != NULL);
    return block;
}

/* --- files --------------------------------------------------------------------------------------------------------- */

/* Both stand in for those of core/fileio.c, which the linker then leaves out: a block of exactly a file's size, so that the
 * sanitizer sees a read behind its end. */
int file_map_open(struct file_map *map, const char *path, struct err *e)
{
    *map = (struct file_map){NULL, 0};
    if (strcmp(path, INPUT) == 0) {
        unsigned char *copy = block_of(input_size);
        memcpy(copy, input, input_size);
        *map = (struct file_map){copy, input_size};
        return 0;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return err_set(e, "%s: cannot open", path);
    }
    unsigned char *bytes = block_of(FILE_MAX);
    *map = (struct file_map){bytes, fread(bytes, 1, FILE_MAX, file)};
    fclose(file);
    return 0;
}

void file_map_close(struct file_map *map)
{
    free((void *)(uintptr_t)map->data);
    *map = (struct file_map){NULL, 0};
}

/* Makes a mutated file look whole. Fields before the checksums are those of the real one, as far as `repair` says. */
static void repair_file(const struct world *w, enum repair repair, unsigned char *file, size_t size)
{
    struct indexfile_header h, real;
    if (repair == REPAIR_NOTHING || size < INDEXFILE_HEADER) {
        return;
    }
    memcpy(&h, file, sizeof h);
    memcpy(&real, w->file, sizeof real);
    if (repair >= REPAIR_VECTORS) {
        memcpy(h.magic, real.magic, sizeof h.magic);
        h.byte_order = real.byte_order;
        h.n = real.n;
        h.dim = real.dim;
        h.vectors = real.vectors;
        h.factory[FACTORY_MAX - 1] = '\0';
    }
    if (repair == REPAIR_ALL) {
        h.kind = real.kind;
    }
    h.payload = size - INDEXFILE_HEADER;
    h.payload_checksum = indexfile_checksum(file + INDEXFILE_HEADER, h.payload);
    h.header_checksum = indexfile_checksum((unsigned char *)&h, offsetof(struct indexfile_header, header_checksum));
    memcpy(file, &h, sizeof h);
}

/* Small fractions, exact on every machine; rows that are equal, and one of zeros, are among them. */
static void world_vectors(struct world *w)
{
    struct rng r;
    rng_seed(&r, 1, w->n);
    w->data = block_of(w->n * w->dim * sizeof *w->data);
    for (size_t i = 0; i < w->n * w->dim; i++) {
        w->data[i] = i / w->dim % 50 == 7 ? 0 : ((float)rng_below(&r, 17) - 8) / 4;
    }
    if (w->n > 20) {
        memcpy(w->data + 20 * (size_t)w->dim, w->data, w->dim * sizeof *w->data);
    }
}

static void world_index(struct world *w, const char *directory)
{
    char path[4096 + 8];
    struct err e = ERR_INIT;
    struct file_map map;
    struct ann_vectors v = {w->data, w->n, w->dim};
    struct ann_build_options options = {.engine = w->engine, .threads = 1};
    options.factory = strcmp(w->engine, "faiss") == 0 ? "HNSW4" : NULL;
    snprintf(path, sizeof path, "%s/index", directory);
    struct ann *index = ann_build(&v, &options, &e);
    check(index != NULL && ann_save(index, path, &e) == 0 && file_map_open(&map, path, &e) == 0);
    ann_free(index);
    unlink(path);
    w->size = map.size;
    w->file = block_of(map.size);
    memcpy(w->file, map.data, map.size);
    file_map_close(&map);
}

static void write_seed(const struct world *w, size_t number, const char *directory)
{
    char path[4096];
    const unsigned char control[CONTROL] = {(unsigned char)(number | REPAIR_ALL << 3 | CPU_AVX512 << 5), 1};
    snprintf(path, sizeof path, "%s/real-%zu", directory, number);
    FILE *file = fopen(path, "wb");
    check(file != NULL && fwrite(control, sizeof control, 1, file) == 1 && fwrite(w->file, w->size, 1, file) == 1);
    check(fclose(file) == 0);
}

/* Inserted or lost bytes move all arrays behind them, so half of the mutations stay inside a few bytes: anywhere, or of the
 * last, where the native engine's offsets and sizes stand behind thousands of bytes of codes. An eighth change only what is
 * done with the file. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    enum { WINDOW = 64, END = 128 };
    unsigned kind = seed % 8;
    unsigned rest = seed / 8;
    if (kind < 3 || size <= WINDOW + END) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    size_t last = size - WINDOW;
    if (kind == 3) {
        data[rest % CONTROL] = (uint8_t)(rest / CONTROL);
    } else {
        LLVMFuzzerMutate(data + (kind < 6 ? rest % last : last - rest % END), WINDOW, WINDOW);
    }
    return size;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char directory[4096];
    const char *seeds = getenv("FUZZ_SEEDS");
    const char *temporary = getenv("TMPDIR");
    struct err e = ERR_INIT;
    snprintf(directory, sizeof directory, "%s/recalld-fuzz.XXXXXX", temporary != NULL ? temporary : "/tmp");
    check(blas_setup(&e) == 0 && mkdtemp(directory) != NULL);
    for (size_t i = 0; i < WORLDS; i++) {
        world_vectors(&worlds[i]);
        world_index(&worlds[i], directory);
        if (seeds != NULL) {
            write_seed(&worlds[i], i, seeds);
        }
    }
    rmdir(directory);
    return 0;
}

/* --- searching ----------------------------------------------------------------------------------------------------- */

/* A query, and what it needs. */
struct question {
    struct ann_query query;
    float vector[MOST_DIM];
    uint32_t exclude[MOST_ROWS];
    uint64_t *allow;
    float scores[MOST_ROWS]; /* of all rows */
    bool wanted[MOST_ROWS];  /* the rows that may be returned */
    size_t n_wanted;
    struct scored hits[MOST_K];
    struct ann_answer answer;
};

static void question_init(struct question *q, const struct world *w, struct rng *r)
{
    static const float lengths[] = {1, 1, 1, 0, 1e-30f, 1e30f};
    static const size_t counts[] = {1, 1, 2, 3, 10, MOST_K};
    static const size_t efforts[] = {0, 1, 2, 3, 40, SIZE_MAX};
    float length = lengths[rng_below(r, 6)];
    for (size_t i = 0; i < w->dim; i++) {
        q->vector[i] = length * ((float)rng_below(r, 33) - 16);
    }
    q->query = (struct ann_query){.vector = q->vector,
                                  .k = counts[rng_below(r, 6)],
                                  .effort = efforts[rng_below(r, 6)],
                                  .exact = rng_below(r, 8) == 0,
                                  .min_score = rng_below(r, 4) == 0 ? 1 : -INFINITY,
                                  .exclude = q->exclude};
    uint32_t excluded = rng_below(r, 3) == 0 ? 1 + rng_below(r, 8) : 0; /* of 8 */
    uint32_t allowed = rng_below(r, 2) == 0 ? rng_below(r, 9) : 8;
    q->allow = block_of((w->n + 63) / 64 * sizeof *q->allow);
    memset(q->allow, 0, (w->n + 63) / 64 * sizeof *q->allow);
    vec_dot_rows(q->scores, w->data, w->n, w->dim, q->vector);
    q->n_wanted = 0;
    for (uint32_t row = 0; row < w->n; row++) {
        bool exclude = rng_below(r, 8) < excluded;
        bool allow = rng_below(r, 8) < allowed;
        if (exclude) {
            q->exclude[q->query.n_exclude++] = row;
        }
        if (allow) {
            q->allow[row / 64] |= (uint64_t)1 << row % 64;
            q->query.n_allow++;
        }
        q->wanted[row] = allow && !exclude && q->scores[row] >= q->query.min_score;
        q->n_wanted += q->wanted[row];
    }
    q->query.allow = allowed < 8 ? q->allow : NULL;
}

/* As many rows as there are, each once, with the scores they have. */
static void check_answer(const struct question *q, const struct world *w)
{
    check(q->answer.n == (q->n_wanted < q->query.k ? q->n_wanted : q->query.k));
    check(q->answer.complete == (q->answer.n == q->query.k));
    for (size_t i = 0; i < q->answer.n; i++) {
        struct scored hit = q->hits[i];
        check(hit.row < w->n && isfinite(hit.score) && hit.score == q->scores[hit.row]);
        check(q->wanted[hit.row]);
        check(i == 0 || scored_before(q->hits[i - 1], hit)); /* so no row comes twice */
    }
}

/* What the engine proposes: ann_search of so few rows would mostly scan them. */
static void check_candidates(const struct ann *index, struct ann_workspace *ws, const struct question *q)
{
    static const size_t depths[] = {1, 5, 36, MOST_ROWS};
    size_t n = index->vectors.n;
    size_t effort = q->query.effort == 0 ? index->effort : q->query.effort;
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        bool seen[MOST_ROWS] = {false};
        bool scored;
        struct engine_request request = {
            .vector = q->vector,
            .effort = effort < ANN_EFFORT_MAX ? effort : ANN_EFFORT_MAX,
            .depth = depths[i] < n ? depths[i] : n,
            .allow = q->query.allow,
            .n_allow = q->query.allow != NULL ? q->query.n_allow : n,
        };
        if (n == 0 || request.n_allow == 0) {
            return;
        }
        size_t found = index->engine->search(index, ws, &request, &scored);
        check(found <= request.depth);
        for (size_t j = 0; j < found; j++) {
            struct scored c = ws->candidates[j];
            check(c.row < n && !seen[c.row] && (!scored || c.score == q->scores[c.row]));
            check(!index->engine->masks || row_is_allowed(request.allow, c.row));
            seen[c.row] = true;
        }
    }
}

static void search_one_by_one(const struct ann *index, struct question *questions)
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, MOST_K, &e);
    check(ws != NULL);
    for (size_t i = 0; i < QUERIES; i++) {
        struct question *q = &questions[i];
        check_candidates(index, ws, q);
        check(ann_search(index, ws, &q->query, q->hits, &q->answer, &e) == 0);
    }
    ann_workspace_free(ws);
}

static void search_together(const struct ann *index, struct question *questions)
{
    struct ann_query queries[QUERIES];
    struct ann_answer answers[QUERIES];
    struct scored *hits[QUERIES];
    struct err e = ERR_INIT;
    struct ann_batch *batch = ann_batch_new(index, MOST_K, &e);
    check(batch != NULL);
    for (size_t i = 0; i < QUERIES; i++) {
        queries[i] = questions[i].query;
        hits[i] = questions[i].hits;
    }
    check(ann_search_batch(index, batch, queries, QUERIES, hits, answers, &e) == 0);
    for (size_t i = 0; i < QUERIES; i++) {
        questions[i].answer = answers[i];
    }
    ann_batch_free(batch);
}

static void search_index(const struct ann *index, const struct world *w, bool together, uint8_t seed)
{
    static struct question questions[QUERIES];
    struct rng r;
    rng_seed(&r, 2, seed);
    for (size_t i = 0; i < QUERIES; i++) {
        question_init(&questions[i], w, &r);
    }
    (together ? search_together : search_one_by_one)(index, questions);
    for (size_t i = 0; i < QUERIES; i++) {
        check_answer(&questions[i], w);
        free(questions[i].allow);
    }
}

/* --- the entry ----------------------------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < CONTROL || size > FILE_MAX) {
        return 0;
    }
    const struct world *w = &worlds[data[0] & 7];
    struct ann_vectors v = {w->data, w->n, w->dim};
    struct err e = ERR_INIT;
    struct indexfile_header h = {.kind = INDEXFILE_EMPTY};
    input_size = size - CONTROL;
    unsigned char *file = block_of(input_size);
    memcpy(file, data + CONTROL, input_size);
    repair_file(w, (enum repair)(data[0] >> 3 & 3), file, input_size);
    memcpy(&h, file, input_size < sizeof h ? 0 : sizeof h);
    input = file;
    cpu_limit((enum cpu_level)(data[0] >> 5 & 3));
    if (h.kind != INDEXFILE_FAISS) {
        struct ann *index = ann_open(w->engine, INPUT, &v, 0, &e);
        bool real = input_size == w->size && memcmp(file, w->file, input_size) == 0;
        check((index != NULL) == !err_isset(&e) && (index != NULL || !real));
        check(index != NULL || strncmp(e.message, INPUT, strlen(INPUT)) == 0);
        if (index != NULL) {
            search_index(index, w, data[0] >> 7, data[1]);
        }
        ann_free(index);
    }
    free(file);
    return 0;
}
