#include "ann/indexfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "core/rng.h"

static const char MAGIC[8] = "RCLANN1";

enum { BYTE_ORDER_MARK = 0x01020304, FINGERPRINT_ROWS = 1024, LANES = 8 };

_Static_assert(sizeof(struct indexfile_header) <= INDEXFILE_HEADER, "the header fits its place");

/* Eight independent lanes of multiply-and-xor: every step is a bijection of its lane, so a single changed word always
 * changes the result, at the speed of memory. */
uint64_t indexfile_checksum(const unsigned char *bytes, size_t size)
{
    uint64_t lane[LANES];
    for (uint64_t i = 0; i < LANES; i++) {
        lane[i] = rng_mix(i + 1);
    }
    size_t done = 0;
    for (; done + sizeof lane <= size; done += sizeof lane) {
        uint64_t words[LANES];
        memcpy(words, bytes + done, sizeof words);
        for (size_t i = 0; i < LANES; i++) {
            uint64_t mixed = (lane[i] ^ words[i]) * 0x9E3779B97F4A7C15u;
            lane[i] = mixed ^ (mixed >> 29);
        }
    }
    uint64_t sum = rng_mix(size);
    for (; done < size; done++) {
        sum = rng_mix(sum ^ bytes[done]);
    }
    for (size_t i = 0; i < LANES; i++) {
        sum = rng_mix(sum ^ lane[i]);
    }
    return sum;
}

/* Tells the vectors of two models apart without reading them all: the shape, and rows evenly spread over them. */
static uint64_t fingerprint(const struct ann_vectors *v)
{
    uint64_t sum = rng_mix(v->n) ^ rng_mix(~(uint64_t)v->dim);
    size_t rows = v->n < FINGERPRINT_ROWS ? v->n : FINGERPRINT_ROWS;
    for (size_t i = 0; i < rows; i++) {
        size_t row = rows == 1 ? 0 : i * (v->n - 1) / (rows - 1);
        sum =
            rng_mix(sum ^ indexfile_checksum((const unsigned char *)(v->data + row * v->dim), v->dim * sizeof(float)));
    }
    return sum;
}

static uint64_t header_checksum(const struct indexfile_header *h)
{
    return indexfile_checksum((const unsigned char *)h, offsetof(struct indexfile_header, header_checksum));
}

FILE *indexfile_create(const char *path, struct err *e)
{
    static const char blank[INDEXFILE_HEADER];
    FILE *file = fopen(path, "wbxe");
    if (file == NULL) {
        err_set(e, "%s: %s", path, strerror(errno));
        return NULL;
    }
    if (fwrite(blank, sizeof blank, 1, file) != 1) {
        err_set(e, "%s: %s", path, strerror(errno));
        fclose(file);
        unlink(path);
        return NULL;
    }
    return file;
}

static int finish(FILE *file, const char *path, struct indexfile_header *h, const struct ann_vectors *vectors,
                  struct err *e)
{
    struct file_map map;
    if (fflush(file) != 0 || ferror(file)) {
        return err_set(e, "%s: %s", path, strerror(errno));
    }
    if (file_map_open(&map, path, e) != 0) {
        return -1;
    }
    memcpy(h->magic, MAGIC, sizeof h->magic);
    h->byte_order = BYTE_ORDER_MARK;
    h->n = vectors->n;
    h->dim = vectors->dim;
    h->vectors = fingerprint(vectors);
    h->payload = map.size - INDEXFILE_HEADER;
    h->payload_checksum = indexfile_checksum(map.data + INDEXFILE_HEADER, h->payload);
    h->header_checksum = header_checksum(h);
    file_map_close(&map);
    if (pwrite(fileno(file), h, sizeof *h, 0) != (ssize_t)sizeof *h || fsync(fileno(file)) != 0) {
        return err_set(e, "%s: %s", path, strerror(errno));
    }
    return 0;
}

int indexfile_finish(FILE *file, const char *path, int payload_rc, struct indexfile_header *header,
                     const struct ann_vectors *vectors, struct err *e)
{
    int rc = payload_rc != 0 ? -1 : finish(file, path, header, vectors, e);
    if (fclose(file) != 0 && rc == 0) {
        rc = err_set(e, "%s: %s", path, strerror(errno));
    }
    if (rc != 0) {
        unlink(path);
    }
    return rc;
}

static int header_check(const struct indexfile_header *h, size_t file_size, const struct ann_vectors *vectors,
                        const char *path, struct err *e)
{
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0) {
        return err_set(e, "%s: not an index file of this version of recalld; rebuild it with recall-train index", path);
    }
    if (h->byte_order != BYTE_ORDER_MARK) {
        return err_set(e, "%s: written on a machine of another byte order; rebuild it with recall-train index", path);
    }
    if (h->header_checksum != header_checksum(h) || h->factory[FACTORY_MAX - 1] != '\0') {
        return err_set(e, "%s: damaged header (checksum)", path);
    }
    if (file_size - INDEXFILE_HEADER != h->payload) {
        return err_set(e, "%s: cut or grown: %zu bytes behind the header, not %llu", path, file_size - INDEXFILE_HEADER,
                       (unsigned long long)h->payload);
    }
    if (h->n != vectors->n || h->dim != vectors->dim) {
        return err_set(e, "%s: indexes %llu vectors of dimension %u, but there are %zu of dimension %u", path,
                       (unsigned long long)h->n, h->dim, vectors->n, vectors->dim);
    }
    if (h->vectors != fingerprint(vectors)) {
        return err_set(e, "%s: was built from other vectors; rebuild it with recall-train index", path);
    }
    return 0;
}

int indexfile_open(struct file_map *map, struct indexfile_header *header, const char *path,
                   const struct ann_vectors *vectors, struct err *e)
{
    if (file_map_open(map, path, e) != 0) {
        return -1;
    }
    int rc = 0;
    if (map->size < INDEXFILE_HEADER) {
        rc = err_set(e, "%s: %zu bytes are no index file", path, map->size);
    } else {
        memcpy(header, map->data, sizeof *header);
        rc = header_check(header, map->size, vectors, path, e);
    }
    if (rc == 0 && indexfile_checksum(map->data + INDEXFILE_HEADER, header->payload) != header->payload_checksum) {
        rc = err_set(e, "%s: damaged (checksum of %llu bytes)", path, (unsigned long long)header->payload);
    }
    if (rc != 0) {
        file_map_close(map);
    }
    return rc;
}
