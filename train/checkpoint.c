#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fileio.h"
#include "core/mem.h"

static const char MAGIC[] = "recalld checkpoint 1\n";
enum { MAGIC_SIZE = sizeof MAGIC - 1, TAIL_SIZE = FILE_SHA256_HEX, HEAD_MAX = 1 << 28 };

#define REMEDY "; fit without --resume starts anew"

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static char *new_name(const char *path)
{
    size_t size = strlen(path) + sizeof ".new";
    char *name = mem_array(size, 1);
    if (name != NULL) {
        snprintf(name, size, "%s.new", path);
    }
    return name;
}

static char *make_head(json_t *state, const struct checkpoint_array *arrays, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < n; i++) {
        json_array_append_new(list,
                              json_pack("{s:s, s:I}", "name", arrays[i].name, "bytes", (json_int_t)arrays[i].bytes));
    }
    char *text = NULL;
    if (json_array_size(list) == n) {
        json_t *head = json_pack("{s:O, s:O}", "state", state, "arrays", list);
        text = head == NULL ? NULL : json_dumps(head, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
        json_decref(head);
    }
    json_decref(list);
    return text;
}

/* Everything but the checksum. */
static int write_body(int fd, const char *head, const struct checkpoint_array *arrays, size_t n)
{
    uint64_t length = strlen(head);
    if (fd_write(fd, MAGIC, MAGIC_SIZE) < 0 || fd_write(fd, &length, sizeof length) < 0 ||
        fd_write(fd, head, length) < 0) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (fd_write(fd, arrays[i].data, arrays[i].bytes) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The checksum is taken from the file, not from memory: it is that of what can be read back. */
static int write_tail(int fd, const char *path, struct err *e)
{
    char tail[TAIL_SIZE];
    uint64_t size;
    if (file_sha256(path, tail, &size, e) < 0) {
        return -1;
    }
    tail[TAIL_SIZE - 1] = '\n';
    if (fd_write(fd, tail, TAIL_SIZE) < 0 || fsync(fd) < 0) {
        return err_set(e, "%s: cannot write: %s", path, strerror(errno));
    }
    return 0;
}

static int write_file(const char *path, const char *head, const struct checkpoint_array *arrays, size_t n,
                      struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return err_set(e, "%s: cannot create: %s", path, strerror(errno));
    }
    int result = write_body(fd, head, arrays, n) < 0 ? err_set(e, "%s: cannot write: %s", path, strerror(errno))
                                                     : write_tail(fd, path, e);
    if (close(fd) < 0 && result == 0) {
        result = err_set(e, "%s: cannot write: %s", path, strerror(errno));
    }
    if (result < 0) {
        unlink(path);
    }
    return result;
}

/* Makes the rename last. */
static int sync_parent(const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? mem_strdup(".") : mem_strndup(path, (size_t)(slash - path) + (slash == path));
    int result = dir == NULL ? err_nomem(e) : dir_sync(dir, e);
    mem_free(dir);
    return result;
}

int checkpoint_write(const char *path, json_t *state, const struct checkpoint_array *arrays, size_t n, struct err *e)
{
    char *temporary = new_name(path);
    char *head = make_head(state, arrays, n);
    int result = -1;
    if (temporary == NULL || head == NULL) {
        err_nomem(e);
        goto out;
    }
    if (write_file(temporary, head, arrays, n, e) < 0) {
        goto out;
    }
    if (rename(temporary, path) < 0) {
        err_set(e, "%s: cannot rename to %s: %s", temporary, path, strerror(errno));
        unlink(temporary);
        goto out;
    }
    result = sync_parent(path, e);
out:
    free(head); /* jansson's */
    mem_free(temporary);
    return result;
}

int checkpoint_remove(const char *path, struct err *e)
{
    char *temporary = new_name(path);
    if (temporary == NULL) {
        return err_nomem(e);
    }
    int result = 0;
    if ((unlink(path) < 0 && errno != ENOENT) || (unlink(temporary) < 0 && errno != ENOENT)) {
        result = err_set(e, "%s: cannot remove: %s", path, strerror(errno));
    }
    mem_free(temporary);
    return result;
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

struct checkpoint {
    char *path;
    struct file_map map;
    json_t *head;
    const json_t *state, *arrays; /* of head */
    size_t first;                 /* where the arrays begin */
};

static int check_sum(const struct checkpoint *c, struct err *e)
{
    char hex[FILE_SHA256_HEX];
    size_t body = c->map.size - TAIL_SIZE;
    bytes_sha256(c->map.data, body, hex);
    hex[TAIL_SIZE - 1] = '\n';
    return memcmp(hex, c->map.data + body, TAIL_SIZE) == 0
               ? 0
               : err_set(e, "%s: damaged: its checksum is wrong" REMEDY, c->path);
}

/* What a right checksum cannot vouch for: that a program like this one wrote it. */
static int check_head(struct checkpoint *c, struct err *e)
{
    uint64_t length;
    size_t room = c->map.size - MAGIC_SIZE - sizeof length - TAIL_SIZE;
    memcpy(&length, c->map.data + MAGIC_SIZE, sizeof length);
    if (length > room || length > HEAD_MAX) {
        return err_set(e, "%s: damaged: its head has an impossible length" REMEDY, c->path);
    }
    c->first = MAGIC_SIZE + sizeof length + length;
    c->head = json_loadb((const char *)c->map.data + MAGIC_SIZE + sizeof length, length, JSON_REJECT_DUPLICATES, NULL);
    c->state = json_object_get(c->head, "state");
    c->arrays = json_object_get(c->head, "arrays");
    if (!json_is_object(c->state) || !json_is_array(c->arrays)) {
        return err_set(e, "%s: damaged: its head is not what this program writes" REMEDY, c->path);
    }
    uint64_t left = room - length;
    size_t i;
    json_t *entry;
    json_array_foreach(c->arrays, i, entry)
    {
        json_int_t bytes = json_integer_value(json_object_get(entry, "bytes"));
        if (!json_is_string(json_object_get(entry, "name")) || bytes < 0 || (uint64_t)bytes > left) {
            return err_set(e, "%s: damaged: array %zu does not fit" REMEDY, c->path, i);
        }
        left -= (uint64_t)bytes;
    }
    return left == 0 ? 0 : err_set(e, "%s: damaged: %zu bytes too many" REMEDY, c->path, (size_t)left);
}

struct checkpoint *checkpoint_open(const char *path, struct err *e)
{
    struct checkpoint *c = mem_array(1, sizeof *c);
    if (c == NULL || (c->path = mem_strdup(path)) == NULL) {
        err_nomem(e);
    } else if (file_map_open(&c->map, path, e) == 0) {
        if (c->map.size < MAGIC_SIZE + sizeof(uint64_t) + TAIL_SIZE) {
            err_set(e, "%s: damaged: cut after %zu bytes" REMEDY, path, c->map.size);
        } else if (memcmp(c->map.data, MAGIC, MAGIC_SIZE) != 0) {
            err_set(e, "%s: not a checkpoint of this version" REMEDY, path);
        } else if (check_sum(c, e) == 0 && check_head(c, e) == 0) {
            return c;
        }
    }
    checkpoint_close(c);
    return NULL;
}

void checkpoint_close(struct checkpoint *c)
{
    if (c == NULL) {
        return;
    }
    json_decref(c->head);
    file_map_close(&c->map);
    mem_free(c->path);
    mem_free(c);
}

const json_t *checkpoint_state(const struct checkpoint *c)
{
    return c->state;
}

static int load_one(const struct checkpoint *c, const struct checkpoint_array *a, struct err *e)
{
    size_t offset = c->first;
    size_t i;
    json_t *entry;
    json_array_foreach(c->arrays, i, entry)
    {
        size_t bytes = (size_t)json_integer_value(json_object_get(entry, "bytes"));
        if (strcmp(json_string_value(json_object_get(entry, "name")), a->name) == 0) {
            if (bytes != a->bytes) {
                return err_set(e, "%s: %s has %zu bytes, and should have %zu" REMEDY, c->path, a->name, bytes,
                               a->bytes);
            }
            memcpy(a->data, c->map.data + offset, bytes);
            return 0;
        }
        offset += bytes;
    }
    return err_set(e, "%s: %s is missing" REMEDY, c->path, a->name);
}

int checkpoint_load(const struct checkpoint *c, const struct checkpoint_array *arrays, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (load_one(c, &arrays[i], e) < 0) {
            return -1;
        }
    }
    return 0;
}
