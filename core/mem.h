/*
 * core/mem.h: allocation with overflow checks, 64-byte alignment for vectors, and fault injection for tests.
 *
 * Every function returns NULL when memory is short; nothing here exits. Counts multiply with an overflow check.
 * Everything is released by mem_free, unless it says otherwise. Thread-safe.
 */
#ifndef CORE_MEM_H
#define CORE_MEM_H

#include <stddef.h>

/* New array of `count` elements of `size` bytes, zeroed, 64-byte aligned. A count of 0 gives a valid pointer. */
void *mem_array(size_t count, size_t size);

/* Grows or shrinks an array made here (or NULL). New elements are not zeroed. On failure the old one stays valid. */
void *mem_resize(void *array, size_t old_count, size_t count, size_t size);

/* New copy of `length` bytes with a '\0' behind them. */
char *mem_strndup(const char *text, size_t length);
char *mem_strdup(const char *text);

/* New array of zeros that takes memory only where it has been written to (of large ones 2 MiB at once): room for what may come.
 * 4096-byte aligned.
 * mem_unreserve with the same numbers gives it back; NULL is fine. */
void *mem_reserve(size_t count, size_t size);
void mem_unreserve(void *array, size_t count, size_t size);

void mem_free(void *pointer);

/* Gives free memory back to the system: after much was released that many small arrays held. */
void mem_trim(void);

/* Tests: the n-th allocation from now on (1 = the next) fails, once, on any thread; 0 turns it off. */
void mem_fail_at(long n);

/* Makes room for one more element in a growing array: doubles `*capacity` when `count` has reached it.
 * Returns 0, or -1 without memory (the array stays as it was). */
int mem_grow(void **array, size_t *capacity, size_t count, size_t size);

#endif
