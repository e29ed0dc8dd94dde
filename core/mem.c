#include "core/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Large arrays are mostly tables that are read at random: with pages of 4 KiB each row misses the translation cache, so
 * from HUGE_FROM on an array asks for huge pages (where the system grants them on request or always). */
enum { ALIGNMENT = 64, HUGE_PAGE = 1 << 21, HUGE_FROM = 4 * HUGE_PAGE };

static atomic_long fail_countdown;

static int fails_now(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0) {
        return 0;
    }
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void mem_fail_at(long n)
{
    atomic_store(&fail_countdown, n);
}

/* Uninitialised, aligned; NULL on overflow or without memory. */
static void *allocate(size_t count, size_t size)
{
    size_t bytes;
    if (fails_now() || __builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT) {
        return NULL;
    }
    bytes = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (bytes < HUGE_FROM) {
        return aligned_alloc(ALIGNMENT, bytes);
    }
    void *p;
    if (posix_memalign(&p, HUGE_PAGE, bytes) != 0) { /* aligned_alloc wants a size in whole pages */
        return NULL;
    }
    madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* refused: small pages, as good as before */
    return p;
}

void *mem_array(size_t count, size_t size)
{
    void *p = allocate(count, size);
    if (p != NULL) {
        memset(p, 0, count * size);
    }
    return p;
}

void *mem_resize(void *array, size_t old_count, size_t count, size_t size)
{
    void *p = allocate(count, size);
    if (p == NULL) {
        return NULL;
    }
    size_t kept = old_count < count ? old_count : count;
    if (array != NULL && kept > 0) {
        memcpy(p, array, kept * size);
    }
    free(array);
    return p;
}

char *mem_strndup(const char *text, size_t length)
{
    char *p = length == SIZE_MAX ? NULL : allocate(length + 1, 1);
    if (p != NULL) {
        if (length > 0) {
            memcpy(p, text, length);
        }
        p[length] = '\0';
    }
    return p;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

void *mem_reserve(size_t count, size_t size)
{
    size_t bytes;
    if (fails_now() || __builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    void *p =
        mmap(NULL, bytes == 0 ? 1 : bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    if (bytes >= HUGE_FROM) {
        madvise(p, bytes, MADV_HUGEPAGE);
    }
    return p;
}

void mem_unreserve(void *array, size_t count, size_t size)
{
    if (array != NULL) {
        munmap(array, count * size == 0 ? 1 : count * size);
    }
}

void mem_free(void *pointer)
{
    free(pointer);
}

void mem_trim(void)
{
    malloc_trim(0);
}

int mem_grow(void **array, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity) {
        return 0;
    }
    size_t wanted = *capacity < 16 ? 16 : *capacity * 2;
    void *p = mem_resize(*array, *capacity, wanted, size);
    if (p == NULL) {
        return -1;
    }
    *array = p;
    *capacity = wanted;
    return 0;
}
