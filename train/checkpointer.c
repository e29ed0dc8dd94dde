#include "train/checkpointer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "config/train_difference.h"
#include "core/clock.h"
#include "core/fileio.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/dataset_fingerprint.h"
#include "train/progress.h"

struct checkpointer {
    char *path;
    int lock;         /* descriptor of output.dir, locked */
    json_t *identity; /* what a checkpoint must agree with */
    double every;     /* seconds; 0: never within an epoch */
    double last;      /* when one was written, or training began */
    struct checkpoint *found;
};

/* 1: locked; 0: another process has it. */
static int lock_dir(struct checkpointer *c, const char *dir, struct err *e)
{
    if (dir_create(dir, e) < 0) {
        return -1;
    }
    c->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->lock < 0) {
        return err_set(e, "%s: cannot open: %s", dir, strerror(errno));
    }
    return flock(c->lock, LOCK_EX | LOCK_NB) == 0;
}

static const char REMEDY[] = "remove it, or fit without --resume, which replaces it";

static int check_data(const struct checkpointer *c, const json_t *then, struct err *e)
{
    const char *part;
    json_t *now;
    json_object_foreach(json_object_get(c->identity, "data"), part, now)
    {
        const json_t *was = json_object_get(then, part);
        long long count = json_integer_value(json_object_get(now, "count"));
        long long old_count = json_integer_value(json_object_get(was, "count"));
        if (count != old_count) {
            return err_set(e, "%s is of other data: there are %lld %s, and were %lld; %s", c->path, count, part,
                           old_count, REMEDY);
        }
        if (!json_equal(now, was)) {
            return err_set(e, "%s is of other data: the %s have changed; %s", c->path, part, REMEDY);
        }
    }
    return 0;
}

static int check_identity(const struct checkpointer *c, struct err *e)
{
    const json_t *then = json_object_get(checkpoint_state(c->found), "identity");
    const char *config = json_string_value(json_object_get(then, "config"));
    json_int_t threads = json_integer_value(json_object_get(then, "threads"));
    json_int_t now = json_integer_value(json_object_get(c->identity, "threads"));
    char what[512];
    if (config == NULL) {
        return err_set(e, "%s does not say whose it is; %s", c->path, REMEDY);
    }
    if (train_config_differs(json_string_value(json_object_get(c->identity, "config")), config, what, sizeof what)) {
        return err_set(e, "%s is of another configuration: %s; %s", c->path, what, REMEDY);
    }
    if (!json_equal(json_object_get(then, "init"), json_object_get(c->identity, "init"))) {
        return err_set(e, "%s began with another model (--init) than this training; %s", c->path, REMEDY);
    }
    if (check_data(c, json_object_get(then, "data"), e) < 0) {
        return -1;
    }
    if (threads != now) {
        return err_set(e,
                       "%s was written by %lld threads, and these are %lld, which would give other weights; use --set "
                       "threads=%lld, or %s",
                       c->path, (long long)threads, (long long)now, (long long)threads, REMEDY);
    }
    return 0;
}

static int look_for_one(struct checkpointer *c, bool resume, struct err *e)
{
    if (!file_exists(c->path)) {
        if (resume) {
            log_info("%s: there is no checkpoint: training begins at the beginning", c->path);
        }
        return 0;
    }
    if (!resume) {
        log_warn("%s is of a training that did not end; it will be replaced (--resume goes on with it)", c->path);
        return 0;
    }
    c->found = checkpoint_open(c->path, e);
    return c->found == NULL ? -1 : check_identity(c, e);
}

/* 1: ready; 0: another fit keeps checkpoints here. */
static int open_checkpointer(struct checkpointer *c, const struct train_config *config, const struct dataset *d,
                             unsigned threads, const char *init, bool resume, struct err *e)
{
    c->lock = -1;
    c->path = path_join(config->output.dir, ".checkpoint");
    c->every = (double)config->checkpoint.every_ms / 1000;
    c->last = monotonic_seconds();
    if (c->path == NULL) {
        return err_nomem(e);
    }
    int locked = lock_dir(c, config->output.dir, e);
    if (locked <= 0) {
        return locked;
    }
    json_t *data = dataset_fingerprint(d, e);
    if (data == NULL) {
        return -1;
    }
    c->identity = json_pack("{s:s, s:i, s:s, s:o}", "config", config->text, "threads", (int)threads, "init",
                            init == NULL ? "" : init, "data", data);
    if (c->identity == NULL) {
        return err_nomem(e);
    }
    return look_for_one(c, resume, e) < 0 ? -1 : 1;
}

int checkpointer_new(struct checkpointer **out, const struct train_config *config, const struct dataset *d,
                     unsigned threads, const char *init, bool resume, struct err *e)
{
    *out = NULL;
    if (!config->checkpoint.enabled) {
        return resume ? err_set(e, "--resume needs checkpoints; remove checkpoint.enabled: false") : 0;
    }
    struct checkpointer *c = mem_array(1, sizeof *c);
    if (c == NULL) {
        return err_nomem(e);
    }
    int ready = open_checkpointer(c, config, d, threads, init, resume, e);
    if (ready > 0) {
        *out = c;
        return 0;
    }
    checkpointer_free(c);
    if (ready < 0) {
        return -1;
    }
    if (resume) {
        return err_set(e, "%s: another fit is at work there, and keeps its checkpoint there", config->output.dir);
    }
    log_warn("%s: another fit keeps its checkpoint there; this one keeps none", config->output.dir);
    return 0;
}

void checkpointer_free(struct checkpointer *c)
{
    if (c == NULL) {
        return;
    }
    checkpoint_close(c->found);
    json_decref(c->identity);
    if (c->lock >= 0) {
        close(c->lock);
    }
    mem_free(c->path);
    mem_free(c);
}

const struct checkpoint *checkpointer_found(const struct checkpointer *c)
{
    return c == NULL ? NULL : c->found;
}

void checkpointer_resumed(struct checkpointer *c)
{
    checkpoint_close(c->found);
    c->found = NULL;
}

bool checkpointer_is_due(const struct checkpointer *c)
{
    return c != NULL && c->every > 0 && monotonic_seconds() - c->last >= c->every;
}

void checkpointer_save(struct checkpointer *c, json_t *state, const struct checkpoint_array *arrays, size_t n)
{
    if (c == NULL) {
        return;
    }
    struct err e = ERR_INIT;
    if (json_object_set(state, "identity", c->identity) < 0) {
        err_nomem(&e);
    } else {
        checkpoint_write(c->path, state, arrays, n, &e);
    }
    if (err_isset(&e)) {
        log_warn("no checkpoint: %s; training goes on, and the checkpoint before, if any, stays", e.message);
    }
    c->last = monotonic_seconds();
}

void checkpointer_finish(struct checkpointer *c)
{
    struct err e = ERR_INIT;
    if (c != NULL && checkpoint_remove(c->path, &e) < 0) {
        log_warn("%s", e.message);
    }
}
