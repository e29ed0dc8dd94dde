/* libFuzzer entry for string tables: the first byte chooses sorted or not; what is accepted must be readable whole. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/strtab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_view(const struct strtab *t, const char *block, size_t size, bool sorted)
{
    for (size_t i = 0; i < t->count; i++) {
        size_t length;
        const char *text = strtab_get(t, i, &length);
        check(text >= block && length <= (size_t)(block + size - text));
        check(!sorted || strtab_find(t, text, length) == (int64_t)i);
    }
    check(!sorted || strtab_find(t, "\xff\xff\xff\xff no such string", 19) < (int64_t)t->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    char *block = malloc(size); /* aligned as a mapped file is, and exactly as long as the input */
    if (block == NULL) {
        return 0;
    }
    struct strtab t;
    struct err e = ERR_INIT;
    bool sorted = data[0] & 1;
    memcpy(block, data + 1, size - 1);
    int result = strtab_view(&t, block, size - 1, sorted, &e);
    check((result == 0) == !err_isset(&e));
    if (result == 0) {
        check_view(&t, block, size - 1, sorted);
    }
    free(block);
    return 0;
}
