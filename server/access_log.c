/*
 * The writer looks into the rings every PERIOD_MS. Rejected: waking it for each line, which costs a system call a request. A ring
 * holds what a worker says in that time, at 80,000 lines of 250 bytes a second.
 *
 * Only whole lines are written, several in one write(2), never more than a pipe takes whole: after poll(2) said that there
 * is room, such a write does not wait, also on a descriptor that others share and that must not become non-blocking. A
 * file that took a part of them (the disk is full) gets a line end first when it takes something again, so that only the
 * line that was cut is lost, and no other is glued to it.
 *
 * A reopened path that cannot be opened leaves the old file in use.
 */
#include "server/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "server/service.h"

enum { RING = 1 << 20, PERIOD_MS = 50 };

struct ring {
    alignas(64) _Atomic size_t head; /* bytes ever put in; the worker's */
    _Atomic uint64_t dropped;        /* likewise */
    alignas(64) _Atomic size_t tail; /* bytes ever taken out; the writer's */
    char bytes[RING];
};

struct access_log {
    char *path;
    struct ring *rings; /* [workers] */
    size_t workers;
    int fd;
    int wake_fd;
    bool is_socket;
    bool torn;     /* the file ends within a line */
    bool reported; /* that it takes no more */
    bool running;
    pthread_t thread;
    atomic_bool stop, reopen;
    _Atomic uint64_t lost;
};

void access_log_put(struct access_log *log, size_t worker, const char *line, size_t n)
{
    struct ring *r = &log->rings[worker];
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t used = head - atomic_load_explicit(&r->tail, memory_order_acquire);
    if (n > ACCESS_LINE_MAX || n > RING - used) {
        atomic_store_explicit(&r->dropped, atomic_load_explicit(&r->dropped, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        return;
    }
    size_t at = head % RING;
    size_t first = n < RING - at ? n : RING - at;
    memcpy(r->bytes + at, line, first);
    memcpy(r->bytes, line + first, n - first);
    atomic_store_explicit(&r->head, head + n, memory_order_release);
}

static int open_path(struct access_log *log, struct err *e)
{
    struct stat st;
    int fd = strcmp(log->path, "-") == 0
                 ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                 : open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_set(e, "access_log.path %s: %s", log->path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    if (log->fd >= 0) {
        close(log->fd);
    }
    log->fd = fd;
    log->is_socket = S_ISSOCK(st.st_mode);
    log->torn = false;
    log->reported = false;
    return 0;
}

static void lose(struct access_log *log, const char *lines, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += lines[i] == '\n';
    }
    atomic_fetch_add_explicit(&log->lost, count, memory_order_relaxed);
}

/* False: it takes nothing now. */
static bool has_room(const struct access_log *log)
{
    struct pollfd p = {.fd = log->fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR));
}

static ssize_t write_some(const struct access_log *log, const char *bytes, size_t n)
{
    ssize_t done;
    do {
        done = log->is_socket ? send(log->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(log->fd, bytes, n);
    } while (done < 0 && errno == EINTR);
    return done;
}

/* Writes whole lines [n], n <= ACCESS_LINE_MAX. Returns false when they have to wait. */
static bool write_lines(struct access_log *log, const char *lines, size_t n)
{
    if (!has_room(log)) {
        return false;
    }
    if (log->torn && write_some(log, "\n", 1) == 1) {
        log->torn = false;
    }
    size_t done = 0;
    while (done < n && !(log->torn && done == 0)) {
        ssize_t more = write_some(log, lines + done, n - done);
        if (more < 0 && errno == EAGAIN && done == 0) {
            return false;
        }
        if (more <= 0) {
            break;
        }
        done += (size_t)more;
    }
    if (done == n) {
        log->reported = false;
        return true;
    }
    log->torn = log->torn || (done > 0 && lines[done - 1] != '\n');
    lose(log, lines + done, n - done);
    if (!log->reported) {
        log->reported = true;
        log_error("access_log.path %s: %s; lines are dropped until it works again", log->path, strerror(errno));
    }
    return true;
}

/* Takes as many whole lines as are written at once. Returns their bytes. */
static size_t take_lines(const struct ring *r, char out[ACCESS_LINE_MAX])
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t n = atomic_load_explicit(&r->head, memory_order_acquire) - tail;
    n = n < ACCESS_LINE_MAX ? n : ACCESS_LINE_MAX;
    size_t at = tail % RING;
    size_t first = n < RING - at ? n : RING - at;
    memcpy(out, r->bytes + at, first);
    memcpy(out + first, r->bytes, n - first);
    while (n > 0 && out[n - 1] != '\n') {
        n--;
    }
    return n;
}

static void empty_ring(struct access_log *log, struct ring *r)
{
    char lines[ACCESS_LINE_MAX];
    size_t n;
    while ((n = take_lines(r, lines)) > 0 && write_lines(log, lines, n)) {
        atomic_store_explicit(&r->tail, atomic_load_explicit(&r->tail, memory_order_relaxed) + n, memory_order_release);
    }
}

static void *writer_main(void *arg)
{
    struct access_log *log = arg;
    bool stop;
    do {
        struct pollfd p = {.fd = log->wake_fd, .events = POLLIN};
        eventfd_t count;
        if (poll(&p, 1, PERIOD_MS) == 1) {
            eventfd_read(log->wake_fd, &count);
        }
        stop = atomic_load(&log->stop);
        struct err e = ERR_INIT;
        if (atomic_exchange(&log->reopen, false) && open_path(log, &e) != 0) {
            log_error("%s; the old file stays in use", e.message);
        }
        for (size_t i = 0; i < log->workers; i++) {
            empty_ring(log, &log->rings[i]);
        }
    } while (!stop);
    return NULL;
}

struct access_log *access_log_new(const char *path, size_t workers, struct err *e)
{
    struct access_log *log = mem_array(1, sizeof *log);
    if (!log) {
        err_nomem(e);
        return NULL;
    }
    log->fd = -1;
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    log->workers = workers;
    log->path = mem_strdup(path);
    log->rings = mem_array(workers, sizeof *log->rings);
    if (!log->path || !log->rings || log->wake_fd < 0) {
        err_nomem(e);
    } else if (open_path(log, e) == 0) {
        log->running = service_start_thread(&log->thread, writer_main, log, e) == 0;
    }
    if (!log->running) {
        access_log_free(log);
        return NULL;
    }
    return log;
}

void access_log_free(struct access_log *log)
{
    if (!log) {
        return;
    }
    if (log->running) {
        atomic_store(&log->stop, true);
        eventfd_write(log->wake_fd, 1);
        pthread_join(log->thread, NULL);
    }
    if (log->fd >= 0) {
        close(log->fd);
    }
    if (log->wake_fd >= 0) {
        close(log->wake_fd);
    }
    mem_free(log->rings);
    mem_free(log->path);
    mem_free(log);
}

void access_log_reopen(struct access_log *log)
{
    atomic_store(&log->reopen, true);
    eventfd_write(log->wake_fd, 1);
}

uint64_t access_log_dropped(const struct access_log *log)
{
    uint64_t n = atomic_load_explicit(&log->lost, memory_order_relaxed);
    for (size_t i = 0; i < log->workers; i++) {
        n += atomic_load_explicit(&log->rings[i].dropped, memory_order_relaxed);
    }
    return n;
}
