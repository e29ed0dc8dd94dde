#include "core/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/fileio.h"
#include "core/json.h"
#include "core/mem.h"

enum { LENGTH_BYTES = 8, HEADER_LIMIT = 16 << 20 };

struct safetensors {
    json_t *header;
    const char *data; /* borrowed */
    uint64_t size;    /* of the data */
};

/* A non-negative JSON integer. */
static bool get_u64(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* Where a tensor's bytes lie in the data. */
struct range {
    uint64_t begin, end;
};

/* Checks one entry's type, shape and place. */
static int check_entry(const char *name, const json_t *entry, uint64_t size, struct range *place, struct err *e)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (dtype == NULL || strcmp(dtype, "F32") != 0) {
        return err_set(e, "tensor %.80s: dtype %.20s; only F32 is read", name, dtype == NULL ? "missing" : dtype);
    }
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *range = json_object_get(entry, "data_offsets");
    uint64_t bytes = sizeof(float);
    if (!json_is_array(shape) || json_array_size(shape) > 2) {
        return err_set(e, "tensor %.80s: shape must be a list of one or two sizes", name);
    }
    for (size_t i = 0; i < json_array_size(shape); i++) {
        uint64_t n;
        if (!get_u64(json_array_get(shape, i), &n) || __builtin_mul_overflow(bytes, n, &bytes)) {
            return err_set(e, "tensor %.80s: bad shape", name);
        }
    }
    if (json_array_size(range) != 2 || !get_u64(json_array_get(range, 0), &place->begin) ||
        !get_u64(json_array_get(range, 1), &place->end) || place->begin > place->end || place->end > size ||
        place->end - place->begin != bytes || place->begin % sizeof(float) != 0) {
        return err_set(e, "tensor %.80s: data_offsets are outside the file or do not match the shape", name);
    }
    return 0;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a;
    const struct range *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The ranges, in order, must follow each other from 0 to `size`: no byte belongs to two tensors or to none. */
static int check_cover(struct range *ranges, size_t n, uint64_t size, struct err *e)
{
    uint64_t covered = 0;
    if (n > 1) {
        qsort(ranges, n, sizeof *ranges, compare_ranges);
    }
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].begin != covered) {
            return err_set(e, "the tensors %s at byte %llu of the data",
                           ranges[i].begin < covered ? "overlap" : "leave a hole",
                           (unsigned long long)(ranges[i].begin < covered ? ranges[i].begin : covered));
        }
        covered = ranges[i].end;
    }
    if (covered != size) {
        return err_set(e, "the tensors cover %llu of %llu bytes of data", (unsigned long long)covered,
                       (unsigned long long)size);
    }
    return 0;
}

static int check_header(struct safetensors *s, struct err *e)
{
    struct range *ranges = mem_array(json_object_size(s->header), sizeof *ranges);
    if (ranges == NULL) {
        return err_nomem(e);
    }
    int result = 0;
    size_t n = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(s->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        result = check_entry(name, entry, s->size, &ranges[n++], e);
        if (result < 0) {
            break;
        }
    }
    if (result == 0) {
        result = check_cover(ranges, n, s->size, e);
    }
    mem_free(ranges);
    return result;
}

struct safetensors *safetensors_open(const void *block, size_t size, struct err *e)
{
    uint64_t length = 0;
    if (size >= LENGTH_BYTES) {
        memcpy(&length, block, LENGTH_BYTES);
    }
    if (size < LENGTH_BYTES || length > size - LENGTH_BYTES || length > HEADER_LIMIT) {
        err_set(e, "not a safetensors file: header length %llu, file %zu bytes", (unsigned long long)length, size);
        return NULL;
    }
    if (length % sizeof(float) != 0) {
        err_set(e, "safetensors header of %llu bytes: pad it with spaces to a multiple of 8",
                (unsigned long long)length);
        return NULL;
    }
    struct safetensors *s = mem_array(1, sizeof *s);
    if (s == NULL) {
        err_nomem(e);
        return NULL;
    }
    json_error_t error;
    s->data = (const char *)block + LENGTH_BYTES + length;
    s->size = size - LENGTH_BYTES - length;
    bool no_memory;
    s->header =
        json_parse((const char *)block + LENGTH_BYTES, (size_t)length, JSON_REJECT_DUPLICATES, &error, &no_memory);
    if (no_memory) {
        err_nomem(e);
    } else if (!json_is_object(s->header)) {
        err_set(e, "safetensors header is not a JSON object: %s", s->header == NULL ? error.text : "another type");
    } else if (check_header(s, e) == 0) {
        return s;
    }
    safetensors_free(s);
    return NULL;
}

void safetensors_free(struct safetensors *s)
{
    if (s != NULL) {
        json_decref(s->header);
        mem_free(s);
    }
}

const float *safetensors_get(const struct safetensors *s, const char *name, size_t rows, size_t columns, struct err *e)
{
    const json_t *entry = json_object_get(s->header, name);
    if (entry == NULL) {
        err_set(e, "tensor %s is missing", name);
        return NULL;
    }
    const json_t *shape = json_object_get(entry, "shape");
    uint64_t sizes[2] = {0, 0};
    size_t n = json_array_size(shape);
    for (size_t i = 0; i < n; i++) {
        get_u64(json_array_get(shape, i), &sizes[i]);
    }
    if (n != (columns > 0 ? 2u : 1u) || sizes[0] != rows || sizes[1] != columns) {
        err_set(e, "tensor %s: shape [%llu, %llu], but the schema asks for [%zu, %zu]", name,
                (unsigned long long)sizes[0], (unsigned long long)sizes[1], rows, columns);
        return NULL;
    }
    uint64_t begin = 0;
    get_u64(json_array_get(json_object_get(entry, "data_offsets"), 0), &begin);
    return (const float *)(const void *)(s->data + begin);
}

static size_t tensor_bytes(const struct tensor *t)
{
    return t->rows * (t->columns > 0 ? t->columns : 1) * sizeof(float);
}

static void put_header(struct buf *out, const struct tensor *tensors, size_t count)
{
    size_t offset = 0;
    buf_puts(out, "{");
    for (size_t i = 0; i < count; i++) {
        const struct tensor *t = &tensors[i];
        buf_puts(out, i > 0 ? "," : "");
        buf_json_string(out, t->name, strlen(t->name));
        buf_printf(out, ":{\"dtype\":\"F32\",\"shape\":[%zu", t->rows);
        if (t->columns > 0) {
            buf_printf(out, ",%zu", t->columns);
        }
        buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", offset, offset + tensor_bytes(t));
        offset += tensor_bytes(t);
    }
    buf_puts(out, "}");
    while ((out->len + LENGTH_BYTES) % 64 != 0 && !buf_failed(out)) {
        buf_puts(out, " ");
    }
}

int safetensors_write(const char *path, const struct tensor *tensors, size_t count, struct err *e)
{
    struct buf header = BUF_INIT;
    int result = -1;
    int fd = -1;
    put_header(&header, tensors, count);
    if (buf_failed(&header)) {
        err_nomem(e);
        goto out;
    }
    uint64_t length = header.len;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || fd_write(fd, &length, sizeof length) < 0 || fd_write(fd, header.data, header.len) < 0) {
        goto failed;
    }
    for (size_t i = 0; i < count; i++) {
        if (fd_write(fd, tensors[i].data, tensor_bytes(&tensors[i])) < 0) {
            goto failed;
        }
    }
    if (fsync(fd) < 0) {
        goto failed;
    }
    result = 0;
    goto out;
failed:
    err_set(e, "%s: cannot write: %s", path, strerror(errno));
out:
    if (fd >= 0) {
        close(fd);
        if (result < 0) {
            unlink(path); /* ours: half a file must not pass for a file */
        }
    }
    buf_release(&header);
    return result;
}
