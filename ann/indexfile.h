/*
 * ann/indexfile.h: the file that a saved index is in.
 *
 * 512 bytes of header, then the payload that its `kind` says. Native byte order (x86-64: little endian), recorded and
 * checked. Two 64-bit checksums, of the header and of the payload, find damage by accident: a file cut, flipped or
 * mixed up is refused before anybody interprets it. They are no protection against somebody who forges a file: graphs
 * and the native engine's lists are checked number by number and stay safe (tests/fuzz/fuzz_index.c), but the other payloads
 * are read by faiss, which trusts them.
 */
#ifndef ANN_INDEXFILE_H
#define ANN_INDEXFILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ann/ann.h"
#include "ann/factory.h"
#include "core/err.h"
#include "core/fileio.h"

enum { INDEXFILE_HEADER = 512 };

enum indexfile_kind {
    INDEXFILE_EMPTY,  /* no vectors, no payload */
    INDEXFILE_GRAPH,  /* links [n, width] int32, upper_start [n + 1] uint32, upper [upper_start[n]] int32 */
    INDEXFILE_FAISS,  /* what faiss_write_index writes */
    INDEXFILE_NATIVE, /* ann/native.c: codes, centroids, code centers, rows, block starts; width: number of lists */
};

struct indexfile_header {
    char magic[8];
    uint32_t byte_order;
    uint32_t kind;
    uint64_t n;
    uint32_t dim;
    uint32_t width; /* these three of a graph only */
    uint32_t max_level;
    uint32_t entry;
    uint64_t payload; /* bytes behind the header */
    uint64_t payload_checksum;
    uint64_t vectors; /* fingerprint of the vectors that were indexed */
    char factory[FACTORY_MAX];
    uint64_t header_checksum; /* of everything above */
};

/* Of both parts: of the payload, and of the header up to its own field. */
uint64_t indexfile_checksum(const unsigned char *bytes, size_t size);

/* A new file (an existing one is an error), placed where the payload begins. NULL on failure. */
FILE *indexfile_create(const char *path, struct err *e);

/* Completes header and file, fsyncs and closes. `payload_rc` says whether the payload was written (0); if not, and on
 * any failure here, the file is removed. The caller fills in kind, width, max_level, entry and factory. Returns 0 or
 * -1. */
int indexfile_finish(FILE *file, const char *path, int payload_rc, struct indexfile_header *header,
                     const struct ann_vectors *vectors, struct err *e);

/* Maps a file and checks header, size, checksums, and that it was made for these vectors. */
int indexfile_open(struct file_map *map, struct indexfile_header *header, const char *path,
                   const struct ann_vectors *vectors, struct err *e);

#endif
