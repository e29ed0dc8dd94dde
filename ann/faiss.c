/*
 * The faiss engine: every index that faiss's index_factory makes, through faiss's C API (version 1.7.3).
 *
 * Two kinds of state come out of a build:
 *
 *   HNSW<M> and HNSW<M>,Flat   faiss builds the graph, then only its links are kept: ann/graph.c searches them over the
 *                              caller's vectors. Effort is the beam width (efSearch), free for every search; no second
 *                              copy of the vectors; the file is mapped, and checked link by link.
 *   everything else            a faiss index, searched by faiss, read into faiss's own memory (not mapped). Here the C
 *                              API has no per-search parameters, and setting one is not safe while others search. So
 *                              the effort that ann_set_effort puts into force is the index's knob: nprobe of an IVF
 *                              factory, efSearch of a coded graph (HNSW32_SQ8); without either (PQ16, SQ8, LSH) it is
 *                              the number of candidates. The effort of a single search can't turn the knob: it only
 *                              deepens the re-ranking by exact scores, max(RERANK * k, effort) candidates.
 *
 * Inner products on a graph. Vectors go in as they are, whatever their lengths. The well-known reduction to Euclidean
 * distance by one more dimension, sqrt(L^2 - |x|^2) (Bachrach et al., RecSys 2014), was built and measured, and lost:
 * 30,000 vectors of dimension 64 in 1,000 clusters, lengths log-uniform over 1:100, recall@100 at beam widths 100 / 200 /
 * 400 / 800: reduction .64 / .80 / .92 / .98 without clusters and .77 / .90 / .97 / .99 with (1:10), inner products .94 /
 * .99 / 1.0 / 1.0 and .95 / .99 / 1.0 / 1.0, in about the same time. The reduction puts all short rows into one small
 * cap of the sphere, where the graph can't tell directions apart. Inner products cost a build that is two to four times
 * longer when lengths differ by 100, and they have a bad case, too: where 5 % of the rows are 100 times longer than the
 * rest and all point one way, a query that looks the other way finds only .7 of its (short) neighbours. ann_tune
 * measures the recall there really is.
 *
 * Threads. faiss parallelises by OpenMP: a build uses the threads it was given (and puts the caller's setting back), a
 * searching thread is set to one, by ann_workspace_new, so that no search ever starts a team. HNSW insertion by several
 * threads depends on their timing: the same file twice needs threads = 1.
 *
 * ThreadSanitizer does not see into libgomp, faiss and OpenBLAS, which are not instrumented: there a build has to run
 * with one thread (OMP_THREAD_LIMIT=1 holds every team to that; OMP_NUM_THREADS does not, as a build sets its own).
 * Searching a graph enters none of them.
 *
 * What faiss would answer with a signal is refused before it gets there: factory strings by ann/factory.c, files that
 * are not whole by ann/indexfile.c.
 */
#include <errno.h>
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/IndexPreTransform_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/engine.h"
#include "ann/factory.h"
#include "ann/graph.h"
#include "ann/indexfile.h"
#include "core/mem.h"
#include "core/vecmath.h"

enum {
    BUILD_SLICES = 50,
    SLICE_ROWS_MIN = 1000,
    RERANK = 10, /* candidates re-ranked for each result, when codes are lossy */
    GRAPH_EFFORT = 64,
    GRAPH_CANDIDATE_ROWS = 96, /* measured 80 to 150: a walk misses the cache, a scan streams */
    KNOB_EFFORT_MAX = 65536,
};

static const char DEFAULT_FACTORY[] = "HNSW32";

struct faiss_state {
    char factory[FACTORY_MAX];
    enum indexfile_kind kind;

    struct graph graph;
    struct file_map map; /* where the graph's arrays are, if it was opened */

    FaissIndex *index;
    FaissParameterSpace *space;
    const char *knob; /* "nprobe", "efSearch", or NULL */
    size_t knob_max;
    bool lossy; /* scores of candidates are approximations */
};

/* --- errors -------------------------------------------------------------------------------------------------------- */

/* faiss says "Error in <function> at <source file>:<line>: <reason>"; only the reason means something to a user. */
static const char *faiss_reason(void)
{
    const char *reason = faiss_get_last_error();
    if (reason == NULL) {
        return "unknown error";
    }
    for (const char *at = reason; (at = strstr(at, ".cpp:")) != NULL;) {
        at += strlen(".cpp:");
        size_t digits = strspn(at, "0123456789");
        if (digits > 0 && at[digits] == ':') {
            reason = at + digits + 1 + strspn(at + digits + 1, " ");
        }
    }
    return reason;
}

static int faiss_error(struct err *e, const char *factory, const char *doing, const char *advice)
{
    return err_set(e, "faiss, factory \"%s\": %s: %s%s", factory, doing, faiss_reason(), advice);
}

static const char FACTORY_ADVICE[] = " (examples: HNSW32 | IVF1024,Flat | IVF1024,SQ8 | OPQ16,IVF1024,PQ16 | SQ8; the "
                                     "number behind PQ and OPQ must divide the dimension)";
static const char TRAIN_ADVICE[] = " (codes of b bits need at least 2^b training vectors, 256 for PQ<m>; fewer vectors "
                                   "are better served by HNSW32 or flat)";

/* --- building ------------------------------------------------------------------------------------------------------ */

/* Whether lengths differ by more than rounding. */
static bool norms_differ(const struct ann_vectors *v)
{
    float least = INFINITY;
    float longest = 0;
    for (size_t i = 0; i < v->n; i++) {
        float norm = vec_norm(v->data + i * v->dim, v->dim);
        least = fminf(least, norm);
        longest = fmaxf(longest, norm);
    }
    return longest - least > 1e-3f * longest;
}

/* In slices, for progress; NSG graphs are built as a whole or not at all. */
static int add_rows(struct faiss_state *s, const struct ann_vectors *v, const struct ann_build_options *options,
                    struct err *e)
{
    size_t slice = v->n / BUILD_SLICES + 1 > SLICE_ROWS_MIN ? v->n / BUILD_SLICES + 1 : SLICE_ROWS_MIN;
    if (strstr(s->factory, "NSG") != NULL) {
        slice = v->n;
    }
    for (size_t first = 0; first < v->n; first += slice) {
        size_t rows = v->n - first < slice ? v->n - first : slice;
        if (faiss_Index_add(s->index, (idx_t)rows, v->data + first * v->dim) != 0) {
            return faiss_error(e, s->factory, "adding vectors", "");
        }
        if (options->progress != NULL) {
            options->progress(options->progress_arg, first + rows, v->n);
        }
    }
    return 0;
}

static int create_index(struct faiss_state *s, const struct ann_vectors *v, struct err *e)
{
    char factory[FACTORY_MAX];
    if (factory_for_faiss(factory, s->factory, e) != 0) {
        return -1;
    }
    if (faiss_index_factory(&s->index, (int)v->dim, factory, METRIC_INNER_PRODUCT) != 0) {
        s->index = NULL;
        return faiss_error(e, s->factory, "creating the index", FACTORY_ADVICE);
    }
    if (faiss_Index_metric_type(s->index) != METRIC_INNER_PRODUCT && norms_differ(v)) {
        return err_set(e,
                       "faiss, factory \"%s\": compares Euclidean distances only, and these vectors differ in length; "
                       "use another factory, or similarity: cosine",
                       s->factory);
    }
    if (!faiss_Index_is_trained(s->index) && faiss_Index_train(s->index, (idx_t)v->n, v->data) != 0) {
        return faiss_error(e, s->factory, "training", TRAIN_ADVICE);
    }
    return 0;
}

/* A stream that counts what is written to it and keeps the first `limit` bytes. */
struct sink {
    unsigned char *bytes;
    size_t limit;
    size_t written;
};

static ssize_t sink_write(void *cookie, const char *bytes, size_t size)
{
    struct sink *sink = cookie;
    if (sink->written < sink->limit) {
        size_t kept = sink->limit - sink->written < size ? sink->limit - sink->written : size;
        memcpy(sink->bytes + sink->written, bytes, kept);
    }
    sink->written += size;
    return (ssize_t)size;
}

static int serialise(const struct faiss_state *s, struct sink *sink, struct err *e)
{
    FILE *stream = fopencookie(sink, "wb", (cookie_io_functions_t){.write = sink_write});
    if (stream == NULL) {
        return err_set(e, "faiss: %s", strerror(errno));
    }
    int rc = faiss_write_index(s->index, stream) == 0 ? 0 : faiss_error(e, s->factory, "serialising", "");
    if (fclose(stream) != 0 && rc == 0) {
        rc = err_set(e, "faiss: serialising: %s", strerror(errno));
    }
    return rc;
}

/* Exchanges a freshly built IndexHNSWFlat for its links. The stored vectors are the last part of the serialised form:
 * the first pass counts the bytes, the second keeps those before them. */
static int take_graph(struct faiss_state *s, const struct ann_vectors *v, struct err *e)
{
    size_t stored = v->n * v->dim * sizeof(float);
    struct sink sink = {NULL, 0, 0};
    int rc = serialise(s, &sink, e);
    if (rc == 0 && sink.written < stored) {
        rc = err_set(e, "faiss: serialised graph is too short");
    }
    if (rc == 0) {
        sink = (struct sink){NULL, sink.written - stored, 0};
        sink.bytes = mem_array(sink.limit, 1);
        rc = sink.bytes == NULL ? err_nomem(e) : serialise(s, &sink, e);
    }
    if (rc == 0) {
        faiss_Index_free(s->index);
        s->index = NULL;
        rc = graph_from_faiss(&s->graph, sink.bytes, sink.limit, v->n, e);
    }
    mem_free(sink.bytes);
    return rc;
}

/* Finds the parameter that trades time for recall. */
static int find_knob(struct faiss_state *s, struct err *e)
{
    if (faiss_ParameterSpace_new(&s->space) != 0) {
        return faiss_error(e, s->factory, "parameters", "");
    }
    s->lossy = factory_is_lossy(s->factory);
    if (faiss_ParameterSpace_set_index_parameter(s->space, s->index, "nprobe", 1) == 0) {
        s->knob = "nprobe";
        FaissIndexPreTransform *chain = faiss_IndexPreTransform_cast(s->index);
        FaissIndexIVF *ivf = faiss_IndexIVF_cast(chain != NULL ? faiss_IndexPreTransform_index(chain) : s->index);
        s->knob_max = ivf != NULL ? faiss_IndexIVF_nlist(ivf) : factory_lists(s->factory);
    } else if (faiss_ParameterSpace_set_index_parameter(s->space, s->index, "efSearch", GRAPH_EFFORT) == 0) {
        s->knob = "efSearch";
        s->knob_max = KNOB_EFFORT_MAX;
    }
    if (s->knob_max == 0) {
        s->knob_max = KNOB_EFFORT_MAX;
    }
    return 0;
}

static int build_index(struct faiss_state *s, const struct ann_vectors *v, const struct ann_build_options *options,
                       struct err *e)
{
    if (create_index(s, v, e) != 0 || add_rows(s, v, options, e) != 0) {
        return -1;
    }
    return s->kind == INDEXFILE_GRAPH ? take_graph(s, v, e) : find_knob(s, e);
}

static size_t state_bytes(const struct faiss_state *s)
{
    struct sink sink = {NULL, 0, 0};
    switch (s->kind) {
    case INDEXFILE_GRAPH:
        return graph_bytes(&s->graph);
    case INDEXFILE_FAISS:
        return serialise(s, &sink, NULL) == 0 ? sink.written : 0;
    default:
        return 0;
    }
}

static int engine_build(struct ann *index, const struct ann_build_options *options, struct err *e)
{
    const char *factory = options->factory != NULL && options->factory[0] != '\0' ? options->factory : DEFAULT_FACTORY;
    if (index->vectors.n > 0 && factory_check(factory, index->vectors.n, e) != 0) {
        return -1;
    }
    struct faiss_state *s = index->state = mem_array(1, sizeof *s);
    if (s == NULL) {
        return err_nomem(e);
    }
    snprintf(s->factory, sizeof s->factory, "%s", factory);
    s->kind = index->vectors.n == 0 ? INDEXFILE_EMPTY : factory_is_graph(factory) ? INDEXFILE_GRAPH : INDEXFILE_FAISS;
    if (s->kind == INDEXFILE_EMPTY) {
        return 0;
    }
    int threads = omp_get_max_threads();
    omp_set_num_threads((int)options->threads);
    int rc = build_index(s, &index->vectors, options, e);
    omp_set_num_threads(threads);
    index->bytes = rc == 0 ? state_bytes(s) : 0;
    return rc;
}

static void engine_close(struct ann *index)
{
    struct faiss_state *s = index->state;
    if (s == NULL) {
        return;
    }
    if (s->map.data != NULL) {
        file_map_close(&s->map);
    } else {
        graph_release(&s->graph);
    }
    if (s->index != NULL) {
        faiss_Index_free(s->index);
    }
    if (s->space != NULL) {
        faiss_ParameterSpace_free(s->space);
    }
    mem_free(s);
    index->state = NULL;
}

/* --- files --------------------------------------------------------------------------------------------------------- */

static int write_graph(const struct graph *g, FILE *file, struct err *e)
{
    size_t links = g->n * g->width;
    size_t upper = g->upper_start[g->n];
    if (fwrite(g->links, sizeof *g->links, links, file) != links ||
        fwrite(g->upper_start, sizeof *g->upper_start, g->n + 1, file) != g->n + 1 ||
        fwrite(g->upper, sizeof *g->upper, upper, file) != upper) {
        return err_set(e, "writing the graph: %s", strerror(errno));
    }
    return 0;
}

static int engine_save(const struct ann *index, const char *path, struct err *e)
{
    const struct faiss_state *s = index->state;
    struct indexfile_header header = {
        .kind = s->kind, .width = s->graph.width, .max_level = s->graph.max_level, .entry = s->graph.entry};
    memcpy(header.factory, s->factory, sizeof header.factory);
    FILE *file = indexfile_create(path, e);
    if (file == NULL) {
        return -1;
    }
    int rc = 0;
    if (s->kind == INDEXFILE_GRAPH) {
        rc = write_graph(&s->graph, file, e);
    } else if (s->kind == INDEXFILE_FAISS && faiss_write_index(s->index, file) != 0) {
        rc = faiss_error(e, s->factory, "writing", "");
    }
    return indexfile_finish(file, path, rc, &header, &index->vectors, e);
}

/* Points the graph into the map, after checking that it fills the payload exactly. */
static int open_graph(struct faiss_state *s, const struct indexfile_header *h, const struct file_map *map,
                      struct err *e)
{
    const unsigned char *payload = map->data + INDEXFILE_HEADER;
    size_t links, starts, fixed;
    if (__builtin_mul_overflow(h->n, (size_t)h->width * sizeof(int32_t), &links) ||
        __builtin_mul_overflow(h->n + 1, sizeof(uint32_t), &starts) || __builtin_add_overflow(links, starts, &fixed) ||
        fixed > h->payload) {
        return err_set(e, "the graph does not fit into its file");
    }
    s->graph = (struct graph){.n = h->n,
                              .width = h->width,
                              .max_level = h->max_level,
                              .entry = h->entry,
                              .links = (const int32_t *)(const void *)payload,
                              .upper_start = (const uint32_t *)(const void *)(payload + links),
                              .upper = (const int32_t *)(const void *)(payload + fixed)};
    if (s->graph.upper_start[h->n] * sizeof(int32_t) != h->payload - fixed) {
        return err_set(e, "the graph does not fill its file");
    }
    return graph_check(&s->graph, e);
}

static int open_faiss(struct faiss_state *s, const char *path, const struct ann_vectors *vectors, struct err *e)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return err_set(e, "%s", strerror(errno));
    }
    int rc = 0;
    if (fseek(file, INDEXFILE_HEADER, SEEK_SET) != 0) {
        rc = err_set(e, "%s", strerror(errno));
    } else if (faiss_read_index(file, 0, &s->index) != 0) {
        s->index = NULL;
        rc = faiss_error(e, s->factory, "reading", "");
    } else if (faiss_Index_d(s->index) != (int)vectors->dim || faiss_Index_ntotal(s->index) != (idx_t)vectors->n ||
               !faiss_Index_is_trained(s->index)) {
        rc = err_set(e, "the faiss index inside holds %lld vectors of dimension %d, not %zu of %u",
                     (long long)faiss_Index_ntotal(s->index), faiss_Index_d(s->index), vectors->n, vectors->dim);
    }
    fclose(file);
    return rc == 0 ? find_knob(s, e) : -1;
}

static int engine_open(struct ann *index, const char *path, struct err *e)
{
    struct indexfile_header header;
    struct file_map map;
    if (indexfile_open(&map, &header, path, &index->vectors, e) != 0) {
        return -1;
    }
    struct faiss_state *s = index->state = mem_array(1, sizeof *s);
    int rc = s == NULL ? err_nomem(e) : 0;
    if (rc == 0) {
        s->kind = (enum indexfile_kind)header.kind;
        memcpy(s->factory, header.factory, sizeof s->factory);
        if (header.kind == INDEXFILE_GRAPH) {
            s->map = map;
            map = (struct file_map){NULL, 0};
            rc = open_graph(s, &header, &s->map, e);
        } else if (header.kind == INDEXFILE_FAISS) {
            rc = open_faiss(s, path, &index->vectors, e);
        } else if (header.kind != INDEXFILE_EMPTY || index->vectors.n > 0) {
            rc = err_set(e, "unknown kind of index (%u)", header.kind);
        }
    }
    file_map_close(&map);
    if (rc != 0) {
        return err_prefix(e, "%s", path);
    }
    index->bytes = header.payload;
    return 0;
}

/* --- searching ----------------------------------------------------------------------------------------------------- */

static size_t clamp(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

static size_t engine_set_effort(struct ann *index, size_t effort)
{
    struct faiss_state *s = index->state;
    if (s->kind != INDEXFILE_FAISS || s->knob == NULL) {
        return effort == 0 ? GRAPH_EFFORT : clamp(effort, 1, ANN_EFFORT_MAX);
    }
    if (effort == 0) { /* a sixteenth of the lists, but not fewer than 4 */
        effort = strcmp(s->knob, "nprobe") == 0 ? clamp(s->knob_max / 16, 4, s->knob_max) : GRAPH_EFFORT;
    }
    effort = clamp(effort, 1, s->knob_max);
    faiss_ParameterSpace_set_index_parameter(s->space, s->index, s->knob, (double)effort);
    return effort;
}

static bool engine_has_knob(const struct ann *index)
{
    const struct faiss_state *s = index->state;
    return s->kind == INDEXFILE_FAISS;
}

static struct ann_effort_range engine_effort_range(const struct ann *index, size_t k)
{
    const struct faiss_state *s = index->state;
    size_t rows = clamp(index->vectors.n, 1, ANN_EFFORT_MAX);
    if (s->kind == INDEXFILE_FAISS && s->knob != NULL) {
        bool lists = strcmp(s->knob, "nprobe") == 0;
        return (struct ann_effort_range){lists ? 1 : 16, lists ? s->knob_max : rows};
    }
    return (struct ann_effort_range){clamp(k, 16, rows), rows};
}

static size_t engine_depth(const struct ann *index, size_t k, size_t effort)
{
    const struct faiss_state *s = index->state;
    if (s->kind == INDEXFILE_FAISS && s->lossy) {
        k *= RERANK;
    }
    return k > effort ? k : effort;
}

/* Of factories without a graph nothing is known: the search, whatever it costs. */
static size_t engine_cost(const struct ann *index, const struct engine_request *request)
{
    const struct faiss_state *s = index->state;
    size_t rows;
    if (s->kind != INDEXFILE_GRAPH) {
        return 0;
    }
    return __builtin_mul_overflow(request->depth, (size_t)GRAPH_CANDIDATE_ROWS, &rows) ? SIZE_MAX : rows;
}

static int engine_workspace_init(const struct ann *index, struct ann_workspace *ws, struct err *e)
{
    const struct faiss_state *s = index->state;
    bool failed = false;
    if (s->kind == INDEXFILE_GRAPH) {
        ws->frontier = mem_array(2 * ws->capacity, sizeof *ws->frontier);
        ws->visited = mem_array(index->vectors.n, sizeof *ws->visited);
        failed = ws->frontier == NULL || ws->visited == NULL;
    } else if (s->kind == INDEXFILE_FAISS) {
        omp_set_num_threads(1);
        ws->labels = mem_array(ws->capacity, sizeof *ws->labels);
        ws->distances = mem_array(ws->capacity, sizeof *ws->distances);
        failed = ws->labels == NULL || ws->distances == NULL;
    }
    return failed ? err_nomem(e) : 0;
}

static size_t engine_search(const struct ann *index, struct ann_workspace *ws, const struct engine_request *request,
                            bool *scored)
{
    size_t depth = request->depth; /* effort is in it already, or the index's */
    const struct faiss_state *s = index->state;
    if (s->kind == INDEXFILE_GRAPH) {
        *scored = true;
        return graph_search(&s->graph, &index->vectors, ws, request->vector, depth);
    }
    *scored = false;
    if (s->kind == INDEXFILE_EMPTY ||
        faiss_Index_search(s->index, 1, request->vector, (idx_t)depth, ws->distances, ws->labels) != 0) {
        return 0;
    }
    size_t n = 0;
    for (size_t i = 0; i < depth; i++) {
        if (ws->labels[i] >= 0 && (size_t)ws->labels[i] < index->vectors.n) { /* -1: nothing more found */
            ws->candidates[n++] = (struct scored){0, (uint32_t)ws->labels[i]};
        }
    }
    return n;
}

const struct ann_engine ann_faiss_engine = {
    .name = "faiss",
    .has_file = true,
    .exact = false,
    .build = engine_build,
    .open = engine_open,
    .save = engine_save,
    .close = engine_close,
    .set_effort = engine_set_effort,
    .has_knob = engine_has_knob,
    .effort_range = engine_effort_range,
    .depth = engine_depth,
    .cost = engine_cost,
    .workspace_init = engine_workspace_init,
    .search = engine_search,
};
