/*
 * core/fileio.h: files that are mapped, checked, or replaced as a whole.
 *
 * Every error names the path and the reason. Thread-safe as far as the file system is.
 */
#ifndef CORE_FILEIO_H
#define CORE_FILEIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { FILE_SHA256_HEX = 65 }; /* 64 hex digits and a '\0' */

struct file_map {
    const unsigned char *data; /* read-only; NULL for an empty file */
    size_t size;
};

/* Maps a regular file read-only. The map stays valid after the file is unlinked or replaced by rename. */
int file_map_open(struct file_map *map, const char *path, struct err *e);
void file_map_close(struct file_map *map);

/* Reads a whole regular file of at most `limit` bytes. Returns a new buffer (mem_free) with a '\0' behind its
 * `*size` bytes, or NULL. */
char *file_read(const char *path, size_t limit, size_t *size, struct err *e);

/* Size in bytes and SHA-256 of a file, read with read(2), so that a file cut meanwhile is an error, not a SIGBUS. */
int file_sha256(const char *path, char hex[FILE_SHA256_HEX], uint64_t *size, struct err *e);
void bytes_sha256(const void *bytes, size_t n, char hex[FILE_SHA256_HEX]);

/* Writes and fsyncs a new file (mode 0644). An existing one is an error; a failure leaves no file behind. */
int file_write(const char *path, const void *bytes, size_t n, struct err *e);

/* Writes all n bytes to a descriptor; -1 with errno. */
int fd_write(int fd, const void *bytes, size_t n);

/* Atomically replaces `path`: temporary file beside it, fsync, rename, fsync of the directory. */
int file_replace(const char *path, const void *bytes, size_t n, struct err *e);

/* Atomically makes `link` a symbolic link to `target` (replacing a link, refusing anything else). */
int link_replace(const char *target, const char *link, struct err *e);

int dir_create(const char *path, struct err *e);      /* with its parents; existing is fine */
int dir_sync(const char *path, struct err *e);        /* fsync of the directory itself */
int dir_remove_tree(const char *path, struct err *e); /* everything below; never follows links; absent is fine */
bool file_exists(const char *path);

/* New string "a/b" (mem_free); b alone when it is absolute. NULL without memory. */
char *path_join(const char *a, const char *b);

#endif
