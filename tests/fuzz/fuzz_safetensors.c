/* libFuzzer entry for safetensors files: what is accepted must lie inside the bytes, for every tensor it names. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok) {
        abort();
    }
}

/* Asks for every tensor in the header by the shape that it claims. */
static void check_tensors(const struct safetensors *s, const char *block, size_t size)
{
    uint64_t length;
    const char *name;
    json_t *entry;
    memcpy(&length, block, sizeof length);
    json_t *header = json_loadb(block + sizeof length, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    check(json_is_object(header));
    json_object_foreach(header, name, entry)
    {
        const json_t *shape = json_object_get(entry, "shape");
        size_t rows = (size_t)json_integer_value(json_array_get(shape, 0));
        size_t columns = (size_t)json_integer_value(json_array_get(shape, 1));
        struct err e = ERR_INIT;
        const float *x = strcmp(name, "__metadata__") == 0 ? NULL : safetensors_get(s, name, rows, columns, &e);
        size_t count = rows * (columns > 0 ? columns : 1);
        if (x != NULL && json_array_size(shape) == (columns > 0 ? 2 : 1)) {
            size_t offset = (size_t)((const char *)x - block);
            check(offset <= size && count <= (size - offset) / sizeof *x && offset % sizeof *x == 0);
        }
    }
    json_decref(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *block = malloc(size > 0 ? size : 1);
    if (block == NULL) {
        return 0;
    }
    struct err e = ERR_INIT;
    memcpy(block, data, size);
    struct safetensors *s = safetensors_open(block, size, &e);
    check((s != NULL) == !err_isset(&e));
    if (s != NULL) {
        check_tensors(s, block, size);
        check(safetensors_get(s, "user.network.0.weight", 2, 3, &e) != NULL || err_isset(&e));
    }
    safetensors_free(s);
    free(block);
    return 0;
}
