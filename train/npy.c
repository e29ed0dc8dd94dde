#include "train/npy.h"

#include <stdbool.h>
#include <string.h>

enum { MAGIC = 6, VERSION = 2, ALIGNMENT = 64 };

/* The header is a Python dictionary on one line; only what numpy itself writes is understood. */
struct scanner {
    const char *at, *end;
};

static bool take(struct scanner *s, const char *token)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n')) {
        s->at++;
    }
    size_t n = strlen(token);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, token, n) != 0) {
        return false;
    }
    s->at += n;
    return true;
}

static bool take_number(struct scanner *s, size_t *value)
{
    const char *start = s->at;
    *value = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        if (__builtin_mul_overflow(*value, (size_t)10, value) ||
            __builtin_add_overflow(*value, (size_t)(*s->at - '0'), value)) {
            return false;
        }
        s->at++;
    }
    return s->at > start;
}

/* The dictionary, its keys in numpy's order (which is the alphabet's). */
static int parse_header(struct npy *npy, const char *text, size_t n, struct err *e)
{
    struct scanner s = {text, text + n};
    size_t dim;
    if (!take(&s, "{'descr':")) {
        return err_set(e, "its header is not one that numpy writes");
    }
    if (!take(&s, "'<f4',")) {
        return err_set(e, "the array is not of float32; convert it: array.astype('<f4')");
    }
    if (!take(&s, "'fortran_order':") || !take(&s, "False,")) {
        return err_set(e, "the array is not in C order; convert it: numpy.ascontiguousarray(array)");
    }
    if (!take(&s, "'shape':") || !take(&s, "(") || !take_number(&s, &npy->rows) || !take(&s, ", ") ||
        !take_number(&s, &dim) || !take(&s, ")")) {
        return err_set(e, "the array is not two-dimensional (one vector a row)");
    }
    take(&s, ",");
    if (!take(&s, "}")) {
        return err_set(e, "its header is not one that numpy writes");
    }
    take(&s, "\n");
    if (s.at != s.end || dim == 0 || dim > 1 << 20) {
        return err_set(e, "the array has %zu columns (1 to %d)", dim, 1 << 20);
    }
    npy->dim = (uint32_t)dim;
    return 0;
}

static int parse(struct npy *npy, struct err *e)
{
    const unsigned char *bytes = npy->map.data;
    size_t size = npy->map.size;
    if (size < MAGIC + VERSION + 2 || memcmp(bytes, "\x93NUMPY", MAGIC) != 0) {
        return err_set(e, "not a .npy file");
    }
    unsigned version = bytes[MAGIC];
    size_t width = version == 1 ? 2 : 4; /* of the header's length */
    size_t start = MAGIC + VERSION + width;
    if (version < 1 || version > 3 || size < start) {
        return err_set(e, "version %u of the .npy format is not known", version);
    }
    size_t n = 0;
    for (size_t i = 0; i < width; i++) {
        n |= (size_t)bytes[MAGIC + VERSION + i] << (8 * i);
    }
    if (n > size - start) {
        return err_set(e, "the file is cut");
    }
    if (parse_header(npy, (const char *)bytes + start, n, e) != 0) {
        return -1;
    }
    size_t expected;
    if (__builtin_mul_overflow(npy->rows, (size_t)npy->dim * sizeof(float), &expected) ||
        expected != size - start - n) {
        return err_set(e, "the file has %zu bytes of numbers, %zu x %u need another number of them", size - start - n,
                       npy->rows, npy->dim);
    }
    if ((start + n) % sizeof(float) != 0) {
        return err_set(e, "its numbers are not aligned");
    }
    npy->data = npy->rows == 0 ? NULL : (const float *)(const void *)(bytes + start + n);
    return 0;
}

int npy_open(struct npy *npy, const char *path, struct err *e)
{
    *npy = (struct npy){0};
    if (file_map_open(&npy->map, path, e) != 0) {
        return -1;
    }
    if (parse(npy, e) != 0) {
        npy_close(npy);
        return err_prefix(e, "%s", path);
    }
    return 0;
}

void npy_close(struct npy *npy)
{
    file_map_close(&npy->map);
    *npy = (struct npy){0};
}

void npy_put_header(FILE *out, size_t rows, size_t dim)
{
    char header[2 * ALIGNMENT];
    int n = snprintf(header + 10, sizeof header - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     rows, dim);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76: the 118 bytes that follow */
    memset(header + 10 + n, ' ', sizeof header - 10 - (size_t)n);
    header[sizeof header - 1] = '\n';
    fwrite(header, 1, sizeof header, out);
}
