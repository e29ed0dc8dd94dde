/*
 * core/safetensors.h: named float32 tensors in the safetensors format (github.com/huggingface/safetensors):
 * u64 little-endian header length, a JSON header {"name": {"dtype": "F32", "shape": [..], "data_offsets": [a, b]}},
 * then the data. Only F32 is read and written. Everything is checked before use: lengths, offsets in range, without
 * overlap or hole, shapes that match their bytes, 4-byte alignment. Reading an open file is thread-safe.
 */
#ifndef CORE_SAFETENSORS_H
#define CORE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct safetensors; /* opaque: a parsed header over a borrowed block */

/* Parses a block (a mapped file), which must outlive the result. NULL with the reason; the caller prefixes the name. */
struct safetensors *safetensors_open(const void *block, size_t size, struct err *e);
void safetensors_free(struct safetensors *s);

/* Finds tensor `name`, which must have exactly the shape [rows, columns], or [rows] when columns is 0. Returns its
 * data (borrowed from the block) or NULL with an error that names the tensor, its shape and the shape wanted. */
const float *safetensors_get(const struct safetensors *s, const char *name, size_t rows, size_t columns, struct err *e);

struct tensor {
    const char *name;
    size_t rows;
    size_t columns;    /* 0: a vector */
    const float *data; /* [rows, columns] row-major */
};

/* Writes and fsyncs a new file with these tensors, in this order. A failure leaves no file behind. */
int safetensors_write(const char *path, const struct tensor *tensors, size_t count, struct err *e);

#endif
