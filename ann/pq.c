#include "ann/pq.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/simd.h"

/* Two numbers a part suit the rows of an index that re-ranks; short rows would have too few bits of that. */
struct pq pq_shape(uint32_t dim)
{
    enum { SHORT = 32 };
    uint32_t width = dim <= SHORT ? 1 : dim <= 2 * PQ_PARTS_MAX ? 2 : (dim + PQ_PARTS_MAX - 1) / PQ_PARTS_MAX;
    uint32_t parts = (dim + width - 1) / width;
    return (struct pq){.dim = dim, .width = width, .parts = (parts + 1) / 2 * 2};
}

/* Part `p` of a row into piece [width], zeros behind its end. */
static void take_piece(const struct pq *pq, const float *x, uint32_t p, float *piece)
{
    for (uint32_t i = 0; i < pq->width; i++) {
        size_t at = (size_t)p * pq->width + i;
        piece[i] = at < pq->dim ? x[at] : 0.0f;
    }
}

static uint8_t nearest(const float *centers, const float *piece, uint32_t width, float *distance)
{
    uint8_t best = 0;
    *distance = INFINITY;
    for (uint32_t c = 0; c < PQ_CENTERS; c++) {
        float sum = 0;
        for (uint32_t i = 0; i < width; i++) {
            float d = centers[c * width + i] - piece[i];
            sum += d * d;
        }
        if (sum < *distance) {
            *distance = sum;
            best = (uint8_t)c;
        }
    }
    return best;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 10 };

/* Centers of one part's pieces [n, width]: begins with k-means++ (Arthur & Vassilvitskii, SODA 2007), then Lloyd. */
static void train_part(float *centers, const float *pieces, float *distance, size_t n, uint32_t width, struct rng *r)
{
    for (size_t i = 0; i < n; i++) {
        distance[i] = INFINITY;
    }
    memset(centers, 0, (size_t)PQ_CENTERS * width * sizeof *centers);
    size_t chosen = rng_below(r, (uint32_t)n);
    for (size_t c = 0; c < PQ_CENTERS; c++) {
        memcpy(centers + c * width, pieces + chosen * width, width * sizeof *centers);
        double total = 0;
        for (size_t i = 0; i < n; i++) {
            float sum = 0;
            for (uint32_t j = 0; j < width; j++) {
                float d = centers[c * width + j] - pieces[i * width + j];
                sum += d * d;
            }
            distance[i] = fminf(distance[i], sum);
            total += (double)distance[i];
        }
        double left = (double)rng_uniform(r) * total;
        for (chosen = 0; chosen + 1 < n && left > (double)distance[chosen]; chosen++) {
            left -= (double)distance[chosen];
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        double sum[PQ_CENTERS][64] = {{0}};
        size_t count[PQ_CENTERS] = {0};
        for (size_t i = 0; i < n; i++) {
            float ignored;
            uint8_t c = nearest(centers, pieces + i * width, width, &ignored);
            count[c]++;
            for (uint32_t j = 0; j < width; j++) {
                sum[c][j] += (double)pieces[i * width + j];
            }
        }
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            for (uint32_t j = 0; count[c] > 0 && j < width; j++) {
                centers[c * width + j] = (float)(sum[c][j] / (double)count[c]);
            }
        }
    }
}

int pq_train(const struct pq *pq, float *centers, const float *x, size_t n, uint64_t seed, struct err *e)
{
    float *pieces = mem_array(n * pq->width, sizeof *pieces);
    float *distance = mem_array(n, sizeof *distance);
    if (pieces == NULL || distance == NULL) {
        mem_free(pieces);
        mem_free(distance);
        return err_nomem(e);
    }
    for (uint32_t p = 0; p < pq->parts; p++) {
        struct rng r;
        rng_seed(&r, seed, p);
        for (size_t i = 0; i < n; i++) {
            take_piece(pq, x + i * pq->dim, p, pieces + i * pq->width);
        }
        train_part(centers + (size_t)p * PQ_CENTERS * pq->width, pieces, distance, n, pq->width, &r);
    }
    mem_free(pieces);
    mem_free(distance);
    return 0;
}

/* --- codes -------------------------------------------------------------------------------------------------------- */

void pq_encode(const struct pq *pq, const float *x, uint8_t *code)
{
    float piece[64];
    for (uint32_t p = 0; p < pq->parts; p++) {
        float distance;
        take_piece(pq, x, p, piece);
        code[p] = nearest(pq->centers + (size_t)p * PQ_CENTERS * pq->width, piece, pq->width, &distance);
    }
}

void pq_put(const struct pq *pq, uint8_t *block, size_t at, const uint8_t *code)
{
    for (uint32_t p = 0; p < pq->parts; p++) {
        uint8_t *byte = block + (size_t)(p / 2) * PQ_BLOCK + (p % 2) * 16 + at % 16;
        *byte |= (uint8_t)(at < 16 ? code[p] : code[p] << 4);
    }
}

void pq_columns(const struct pq *pq, float *columns)
{
    for (size_t p = 0; p < pq->parts; p++) {
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            for (size_t i = 0; i < pq->width; i++) {
                columns[(p * pq->width + i) * PQ_CENTERS + c] = pq->centers[(p * PQ_CENTERS + c) * pq->width + i];
            }
        }
    }
}

/* Inner products of a query's pieces with all centers, into product [parts, PQ_CENTERS], and the least of each part. Returns the
 * widest range of a part. */
SIMD_CLONES static float find_products(const struct pq *pq, const float *columns, const float *query, float *product,
                                       float *least)
{
    float widest = 0;
    for (size_t p = 0; p < pq->parts; p++, product += PQ_CENTERS) {
        vec8 sum[2] = {{0}};
        for (size_t i = 0; i < pq->width; i++, columns += PQ_CENTERS) {
            float x = p * pq->width + i < pq->dim ? query[p * pq->width + i] : 0.0f;
            sum[0] += *(const vec8 *)(const void *)columns * x;
            sum[1] += *(const vec8 *)(const void *)(columns + 8) * x;
        }
        *(vec8 *)(void *)product = sum[0];
        *(vec8 *)(void *)(product + 8) = sum[1];
        vec8 high = VEC8_MAX(sum[0], sum[1]);
        vec8 low = VEC8_MAX(-sum[0], -sum[1]);
        float most = high[0];
        float negated = low[0];
        for (size_t j = 1; j < 8; j++) {
            most = high[j] > most ? high[j] : most;
            negated = low[j] > negated ? low[j] : negated;
        }
        least[p] = -negated;
        widest = most + negated > widest ? most + negated : widest;
    }
    return widest;
}

/* byte = (product - the part's least) * scale, rounded; 0 where products overflowed. */
SIMD_CLONES static void round_products(size_t parts, const float *product, const float *least, float scale,
                                       uint8_t *byte)
{
    for (size_t p = 0; p < parts; p++) {
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            float x = (product[p * PQ_CENTERS + c] - least[p]) * scale + 0.5f;
            byte[p * PQ_CENTERS + c] = (uint8_t)(int)(x >= 0.0f && x < 256.0f ? x : 0.0f);
        }
    }
}

void pq_table_make(const struct pq *pq, const float *columns, struct pq_table *table, const float *query)
{
    float product[PQ_PARTS_MAX * PQ_CENTERS];
    float least[PQ_PARTS_MAX];
    float step = find_products(pq, columns, query, product, least) / 255.0f;
    table->step = step >= FLT_MIN && isfinite(step) ? step : 1.0f;
    table->base = 0;
    for (uint32_t p = 0; p < pq->parts; p++) {
        table->base += least[p];
    }
    round_products(pq->parts, product, least, 1.0f / table->step, table->byte);
}
