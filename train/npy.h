/*
 * train/npy.h: matrices as numpy's .npy files (numpy.lib.format, versions 1 to 3): float32, little-endian, C order.
 */
#ifndef TRAIN_NPY_H
#define TRAIN_NPY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"
#include "core/fileio.h"

struct npy {
    const float *data; /* [rows, dim], in the map; NULL when rows is 0 */
    size_t rows;
    uint32_t dim;
    struct file_map map;
};

/* Maps a file read-only. Anything but a two-dimensional array of float32 with at least one column, whole and nothing behind
 * it, is an error that names the file and what it has instead. Values are not looked at. */
int npy_open(struct npy *npy, const char *path, struct err *e);
void npy_close(struct npy *npy); /* zeroed is fine */

/* The header of an array [rows, dim], which the caller writes behind it. Errors are the stream's. */
void npy_put_header(FILE *out, size_t rows, size_t dim);

#endif
