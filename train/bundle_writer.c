#include "train/bundle_writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/bundle.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "train/bundle_index.h"

static const char TEMPORARY[] = ".tmp-";

struct bundle_writer {
    char *models, *dir; /* dir: models/.tmp-<pid> */
    bool finished;      /* dir has its final name */
    int lock;           /* descriptor */
    json_t *files;      /* names, null until they are checksummed */
};

static int take_lock(struct bundle_writer *w, struct err *e)
{
    char *path = path_join(w->models, ".lock");
    if (path == NULL) {
        return err_nomem(e);
    }
    w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    int result = 0;
    if (w->lock < 0) {
        result = err_set(e, "%s: cannot create: %s", path, strerror(errno));
    } else {
        while ((result = flock(w->lock, LOCK_EX)) < 0 && errno == EINTR) {}
        if (result < 0) {
            err_set(e, "%s: cannot lock: %s", path, strerror(errno));
        }
    }
    mem_free(path);
    return result;
}

/* True for .tmp-<pid> of a bundle, and for current.tmp-<pid>-<n>, a link of a process that is no more: links are changed
 * without the lock, too (recall-train publish). */
static bool is_leftover(const char *name)
{
    static const char link[] = "current.tmp-";
    if (strncmp(name, TEMPORARY, sizeof TEMPORARY - 1) == 0) {
        return true;
    }
    long pid = strncmp(name, link, sizeof link - 1) == 0 ? strtol(name + sizeof link - 1, NULL, 10) : 0;
    return pid > 0 && pid <= INT32_MAX && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* What killed writers left: nobody else can be writing while we hold the lock. */
static int clear_leftovers(struct bundle_writer *w, struct err *e)
{
    DIR *d = opendir(w->models);
    if (d == NULL) {
        return err_set(e, "%s: cannot read: %s", w->models, strerror(errno));
    }
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(d)) != NULL) {
        if (is_leftover(entry->d_name)) {
            char *path = path_join(w->models, entry->d_name);
            result = path == NULL ? err_nomem(e) : dir_remove_tree(path, e);
            mem_free(path);
        }
    }
    closedir(d);
    return result;
}

struct bundle_writer *bundle_writer_new(const char *models, struct err *e)
{
    struct bundle_writer *w = mem_array(1, sizeof *w);
    if (w == NULL) {
        err_nomem(e);
        return NULL;
    }
    char name[32];
    snprintf(name, sizeof name, "%s%ld", TEMPORARY, (long)getpid());
    w->lock = -1;
    w->models = mem_strdup(models);
    w->files = json_object();
    char *dir = path_join(models, name);
    if (w->models == NULL || w->files == NULL || dir == NULL) {
        err_nomem(e);
    } else if (dir_create(models, e) == 0 && take_lock(w, e) == 0 && clear_leftovers(w, e) == 0 &&
               dir_create(dir, e) == 0) {
        w->dir = dir;
        return w;
    }
    mem_free(dir);
    bundle_writer_free(w);
    return NULL;
}

void bundle_writer_free(struct bundle_writer *w)
{
    if (w == NULL) {
        return;
    }
    if (w->dir != NULL && !w->finished) {
        dir_remove_tree(w->dir, NULL);
    }
    if (w->lock >= 0) {
        close(w->lock);
    }
    json_decref(w->files);
    mem_free(w->models);
    mem_free(w->dir);
    mem_free(w);
}

/* Creates, or fsyncs, the directories between the bundle's and a file's name. */
static int each_parent(struct bundle_writer *w, const char *name, int (*act)(const char *, struct err *), struct err *e)
{
    const char *slash = strrchr(name, '/');
    if (slash == NULL) {
        return 0;
    }
    char *path = path_join(w->dir, name);
    if (path == NULL) {
        return err_nomem(e);
    }
    size_t root = strlen(w->dir);
    int result = 0;
    for (char *p = strrchr(path, '/'); result == 0 && (size_t)(p - path) > root; p = strrchr(path, '/')) {
        *p = '\0';
        result = act(path, e);
    }
    mem_free(path);
    return result;
}

char *bundle_writer_add(struct bundle_writer *w, const char *name, struct err *e)
{
    if (json_object_set_new(w->files, name, json_null()) < 0) {
        err_nomem(e);
        return NULL;
    }
    if (each_parent(w, name, dir_create, e) < 0) {
        return NULL;
    }
    char *path = path_join(w->dir, name);
    if (path == NULL) {
        err_nomem(e);
    }
    return path;
}

int bundle_writer_put(struct bundle_writer *w, const char *name, const void *bytes, size_t n, struct err *e)
{
    char *path = bundle_writer_add(w, name, e);
    int result = path == NULL ? -1 : file_write(path, bytes, n, e);
    mem_free(path);
    return result;
}

/* Size and checksum of every file; the hash of all of them together names the version. */
static int checksum_files(struct bundle_writer *w, char content[FILE_SHA256_HEX], struct err *e)
{
    struct buf all = BUF_INIT;
    const char *name;
    json_t *unused;
    void *next;
    int result = 0;
    json_object_foreach_safe(w->files, next, name, unused)
    {
        char hex[FILE_SHA256_HEX];
        uint64_t size;
        char *path = path_join(w->dir, name);
        result = path == NULL ? err_nomem(e) : file_sha256(path, hex, &size, e);
        mem_free(path);
        if (result == 0) {
            result = each_parent(w, name, dir_sync, e);
        }
        if (result < 0) {
            break;
        }
        buf_printf(&all, "%s %s\n", hex, name);
        json_t *entry = json_pack("{s:I, s:s}", "size", (json_int_t)size, "sha256", hex);
        if (json_object_set_new(w->files, name, entry) < 0) {
            result = err_nomem(e);
            break;
        }
    }
    if (result == 0 && buf_failed(&all)) {
        result = err_nomem(e);
    }
    if (result == 0) {
        bytes_sha256(all.data, all.len, content);
    }
    buf_release(&all);
    return result;
}

/* Writes manifest.json with its fingerprint. */
static int write_manifest(struct bundle_writer *w, json_t *manifest, struct err *e)
{
    static const char member[] = "\"fingerprint\": \""; /* inside a JSON string its quotes would be escaped */
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    char hex[FILE_SHA256_HEX];
    char *text = NULL;
    char *path = path_join(w->dir, "manifest.json");
    int result = -1;
    if (path == NULL || json_object_set_new(manifest, "fingerprint", json_string(zeros)) < 0) {
        err_nomem(e);
        goto out;
    }
    text = json_dumps(manifest, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        err_nomem(e);
        goto out;
    }
    size_t n = strlen(text);
    if (manifest_fingerprint(text, n, hex, e) < 0) {
        goto out;
    }
    memcpy(strstr(text, member) + sizeof member - 1, hex, sizeof zeros - 1);
    result = file_write(path, text, n, e);
out:
    free(text);
    mem_free(path);
    return result;
}

static int set_version(struct bundle_writer *w, json_t *manifest, char *version, size_t size, struct err *e)
{
    char content[FILE_SHA256_HEX];
    char created[32];
    struct tm utc;
    time_t now = time(NULL);
    if (checksum_files(w, content, e) < 0) {
        return -1;
    }
    gmtime_r(&now, &utc);
    strftime(version, size, "%Y%m%dT%H%M%SZ-", &utc);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
    size_t used = strlen(version);
    snprintf(version + used, size - used, "%.12s", content);
    for (int again = 2; again < 1000; again++) { /* the same content twice in one second */
        char *path = path_join(w->models, version);
        bool taken = path != NULL && file_exists(path);
        mem_free(path);
        if (!taken) {
            break;
        }
        snprintf(version + used, size - used, "%.12s-%d", content, again);
    }
    if (json_object_set_new(manifest, "version", json_string(version)) < 0 ||
        json_object_set_new(manifest, "created", json_string(created)) < 0 ||
        json_object_set_new(manifest, "format", json_integer(BUNDLE_FORMAT)) < 0 ||
        json_object_set(manifest, "files", w->files) < 0) {
        return err_nomem(e);
    }
    return 0;
}

/* What readers will do: nothing that they would refuse gets a name. */
static int check_bundle(const struct bundle_writer *w, struct err *e)
{
    struct bundle *b = bundle_open(w->dir, e);
    struct ann *index = b == NULL ? NULL : bundle_index_open(b, e);
    int result = index == NULL ? err_prefix(e, "what was written does not verify") : 0;
    ann_free(index);
    bundle_free(b);
    return result;
}

int bundle_writer_finish(struct bundle_writer *w, json_t *manifest, char **path, struct err *e)
{
    char version[96];
    if (set_version(w, manifest, version, sizeof version, e) < 0 || write_manifest(w, manifest, e) < 0 ||
        dir_sync(w->dir, e) < 0 || check_bundle(w, e) < 0) {
        return -1;
    }
    *path = path_join(w->models, version);
    if (*path == NULL) {
        return err_nomem(e);
    }
    if (rename(w->dir, *path) < 0) {
        err_set(e, "%s: cannot rename to %s: %s", w->dir, version, strerror(errno));
        mem_free(*path);
        *path = NULL;
        return -1;
    }
    w->finished = true;
    if (dir_sync(w->models, e) < 0) {
        mem_free(*path);
        *path = NULL;
        return -1;
    }
    return 0;
}

int bundle_writer_discard(struct bundle_writer *w, const char *path, struct err *e)
{
    if (rename(path, w->dir) < 0) {
        return err_set(e, "%s: cannot rename to %s: %s", path, w->dir, strerror(errno));
    }
    return dir_remove_tree(w->dir, e);
}
