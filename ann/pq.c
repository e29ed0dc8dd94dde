#include "ann/pq.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

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

void pq_table_make(const struct pq *pq, struct pq_table *table, const float *query)
{
    float product[PQ_PARTS_MAX * PQ_CENTERS];
    float least[PQ_PARTS_MAX];
    float widest = 0;
    float piece[64];
    table->base = 0;
    for (uint32_t p = 0; p < pq->parts; p++) {
        const float *center = pq->centers + (size_t)p * PQ_CENTERS * pq->width;
        float *out = product + (size_t)p * PQ_CENTERS;
        float most = -INFINITY;
        take_piece(pq, query, p, piece);
        least[p] = INFINITY;
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            float sum = 0;
            for (uint32_t i = 0; i < pq->width; i++) {
                sum += piece[i] * center[c * pq->width + i];
            }
            out[c] = sum;
            least[p] = fminf(least[p], sum);
            most = fmaxf(most, sum);
        }
        widest = fmaxf(widest, most - least[p]);
        table->base += least[p];
    }
    float step = widest / 255.0f;
    table->step = step >= FLT_MIN ? step : 1.0f;
    float scale = 1.0f / table->step;
    for (size_t i = 0; i < (size_t)pq->parts * PQ_CENTERS; i++) {
        float x = (product[i] - least[i / PQ_CENTERS]) * scale + 0.5f;
        table->byte[i] = (uint8_t)(x < 256.0f ? x : 0.0f); /* 0 where products overflowed */
    }
}
