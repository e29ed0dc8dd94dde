#include "core/fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"

static int fail(struct err *e, const char *path, const char *what)
{
    return err_set(e, "%s: %s: %s", path, what, strerror(errno));
}

/* Opens a regular file for reading; its size goes to *size. Returns the descriptor or -1. */
static int open_regular(const char *path, uint64_t *size, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO must not hang us */
    if (fd < 0) {
        return fail(e, path, "cannot open");
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        fail(e, path, "cannot stat");
    } else if (!S_ISREG(st.st_mode)) {
        err_set(e, "%s: not a regular file", path);
    } else {
        *size = (uint64_t)st.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

int file_map_open(struct file_map *map, const char *path, struct err *e)
{
    *map = (struct file_map){NULL, 0};
    uint64_t size;
    int fd = open_regular(path, &size, e);
    if (fd < 0) {
        return -1;
    }
    int result = 0;
    if (size > 0) {
        void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            result = fail(e, path, "cannot map");
        } else {
            *map = (struct file_map){p, size};
        }
    }
    close(fd);
    return result;
}

void file_map_close(struct file_map *map)
{
    if (map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    *map = (struct file_map){NULL, 0};
}

/* read(2) until n bytes or the end. Returns the bytes read, -1 on error. */
static ssize_t read_full(int fd, void *bytes, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = read(fd, (char *)bytes + done, n - done);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r < 0) {
            return -1;
        }
        if (r == 0) {
            break;
        }
        done += (size_t)r;
    }
    return (ssize_t)done;
}

char *file_read(const char *path, size_t limit, size_t *size, struct err *e)
{
    uint64_t length;
    int fd = open_regular(path, &length, e);
    if (fd < 0) {
        return NULL;
    }
    char *data = NULL;
    if (length > limit) {
        err_set(e, "%s: %llu bytes, more than the limit of %zu", path, (unsigned long long)length, limit);
        goto out;
    }
    data = mem_array((size_t)length + 1, 1);
    if (data == NULL) {
        err_nomem(e);
        goto out;
    }
    ssize_t n = read_full(fd, data, (size_t)length);
    if (n < 0 || (uint64_t)n != length) {
        if (n < 0) {
            fail(e, path, "cannot read");
        } else {
            err_set(e, "%s: became shorter while it was read", path);
        }
        mem_free(data);
        data = NULL;
        goto out;
    }
    *size = (size_t)length;
out:
    close(fd);
    return data;
}

static void hex_digest(const unsigned char *digest, char hex[FILE_SHA256_HEX])
{
    for (int i = 0; i < 32; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
}

int file_sha256(const char *path, char hex[FILE_SHA256_HEX], uint64_t *size, struct err *e)
{
    enum { CHUNK = 1 << 18 };
    int fd = open_regular(path, size, e);
    if (fd < 0) {
        return -1;
    }
    int result = -1;
    uint64_t total = 0;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned char *chunk = mem_array(CHUNK, 1);
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    if (chunk == NULL || sha == NULL || EVP_DigestInit_ex(sha, EVP_sha256(), NULL) != 1) {
        err_nomem(e);
        goto out;
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (;;) {
        ssize_t n = read_full(fd, chunk, CHUNK);
        if (n < 0) {
            fail(e, path, "cannot read");
            goto out;
        }
        EVP_DigestUpdate(sha, chunk, (size_t)n);
        total += (uint64_t)n;
        if (n < CHUNK) {
            break;
        }
    }
    EVP_DigestFinal_ex(sha, digest, NULL);
    hex_digest(digest, hex);
    *size = total;
    result = 0;
out:
    EVP_MD_CTX_free(sha);
    mem_free(chunk);
    close(fd);
    return result;
}

void bytes_sha256(const void *bytes, size_t n, char hex[FILE_SHA256_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL);
    hex_digest(digest, hex);
}

int fd_write(int fd, const void *bytes, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t w = write(fd, (const char *)bytes + done, n - done);
        if (w < 0 && errno != EINTR) {
            return -1;
        }
        done += w > 0 ? (size_t)w : 0;
    }
    return 0;
}

int file_write(const char *path, const void *bytes, size_t n, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return fail(e, path, "cannot create");
    }
    int result = 0;
    if (fd_write(fd, bytes, n) < 0) {
        result = fail(e, path, "cannot write");
    } else if (fsync(fd) < 0) {
        result = fail(e, path, "cannot fsync");
    }
    if (close(fd) < 0 && result == 0) {
        result = fail(e, path, "cannot close");
    }
    if (result < 0) {
        unlink(path); /* ours: half a file must not pass for a file */
    }
    return result;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

int dir_sync(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fail(e, path, "cannot open");
    }
    int result = fsync(fd) < 0 ? fail(e, path, "cannot fsync") : 0;
    close(fd);
    return result;
}

/* fsync of the directory that holds `path`. */
static int parent_sync(const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return dir_sync(".", e);
    }
    char *parent = mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL) {
        return err_nomem(e);
    }
    int result = dir_sync(parent, e);
    mem_free(parent);
    return result;
}

/* New name beside `path` for a temporary file: of this process, and of this call, as threads may replace one file. */
static char *temporary_name(const char *path)
{
    static atomic_uint calls;
    char suffix[48];
    snprintf(suffix, sizeof suffix, ".tmp-%ld-%u", (long)getpid(), atomic_fetch_add(&calls, 1));
    size_t n = strlen(path);
    char *name = mem_array(n + sizeof suffix, 1);
    if (name != NULL) {
        memcpy(name, path, n);
        memcpy(name + n, suffix, strlen(suffix));
    }
    return name;
}

/* rename(temporary, path) and fsync of the directory; removes the temporary file when that fails. */
static int rename_over(const char *temporary, const char *path, struct err *e)
{
    if (rename(temporary, path) < 0) {
        fail(e, path, "cannot replace");
        unlink(temporary);
        return -1;
    }
    return parent_sync(path, e);
}

int file_replace(const char *path, const void *bytes, size_t n, struct err *e)
{
    char *temporary = temporary_name(path);
    if (temporary == NULL) {
        return err_nomem(e);
    }
    unlink(temporary); /* left by a process of this number that was killed */
    int result = file_write(temporary, bytes, n, e);
    if (result == 0) {
        result = rename_over(temporary, path, e);
    }
    mem_free(temporary);
    return result;
}

/* New copy of a path without the slashes at its end: "current/" is what lies behind the link, not the link. */
static char *without_end_slashes(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return mem_strndup(path, n);
}

static int link_replace_named(const char *target, const char *link, struct err *e)
{
    struct stat st;
    if (lstat(link, &st) == 0 && !S_ISLNK(st.st_mode)) {
        return err_set(e, "%s: exists and is not a symbolic link; move it away or choose another name", link);
    }
    char *temporary = temporary_name(link);
    if (temporary == NULL) {
        return err_nomem(e);
    }
    int result;
    unlink(temporary);
    if (symlink(target, temporary) < 0) {
        result = fail(e, link, "cannot create the link");
    } else {
        result = rename_over(temporary, link, e);
    }
    mem_free(temporary);
    return result;
}

int link_replace(const char *target, const char *link, struct err *e)
{
    char *name = without_end_slashes(link);
    int result = name == NULL ? err_nomem(e) : link_replace_named(target, name, e);
    mem_free(name);
    return result;
}

int dir_create(const char *path, struct err *e)
{
    if (path[0] == '\0') {
        return err_set(e, "cannot create a directory without a name");
    }
    char *copy = mem_strdup(path);
    if (copy == NULL) {
        return err_nomem(e);
    }
    int result = 0;
    for (char *p = copy + 1; result == 0; p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0755) < 0 && errno != EEXIST) {
            result = fail(e, copy, "cannot create the directory");
        }
        *p = end;
        if (end == '\0') {
            break;
        }
    }
    struct stat st;
    if (result == 0 && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))) {
        result = err_set(e, "%s: not a directory", path);
    }
    mem_free(copy);
    return result;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0; /* somebody else may be removing it, too */
}

int dir_remove_tree(const char *path, struct err *e)
{
    char *name = without_end_slashes(path);
    if (name == NULL) {
        return err_nomem(e);
    }
    int result = 0;
    if (nftw(name, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT) {
        result = fail(e, path, "cannot remove");
    }
    mem_free(name);
    return result;
}

char *path_join(const char *a, const char *b)
{
    if (b[0] == '/') {
        return mem_strdup(b);
    }
    size_t n = strlen(a);
    size_t m = strlen(b);
    char *p = mem_array(n + m + 2, 1);
    if (p == NULL) {
        return NULL;
    }
    memcpy(p, a, n);
    if (n > 0 && a[n - 1] != '/') {
        p[n++] = '/';
    }
    memcpy(p + n, b, m);
    return p;
}
