/*
 * LD_PRELOAD for recalld: one chosen allocation or system call fails, once, at the moment a test chooses, and the wall clock
 * can be set. tests/e2e/faults.py maps the same file ($FAILAT_CONTROL) and steers. Counts are of the whole process.
 *
 * Only calls that a program makes through its libraries' tables are seen: all of ours, libevent's and jansson's; of the C
 * library's own (fopen's open) none. Failures are those that the calls have in life; epoll_wait, whose failures cannot happen
 * with a valid descriptor, is only interrupted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* The file: what faults.py writes and reads. */
struct control {
    _Atomic long memory;       /* the so-manieth allocation from now fails; 0: none */
    _Atomic long calls;        /* the same for system calls */
    _Atomic long allocations;  /* living ones: a leak shows */
    _Atomic long clock_offset; /* seconds added to the wall clock */
    _Atomic long last_failed;  /* number of the call that failed last, in the order below */
};

static struct control idle;
static struct control *control = &idle;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *old);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAILAT_CONTROL");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (map != MAP_FAILED) {
        control = map;
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool due(_Atomic long *countdown)
{
    return atomic_load_explicit(countdown, memory_order_relaxed) > 0 && atomic_fetch_sub(countdown, 1) == 1;
}

/* Whether this call fails; then errno says why. */
static bool fails(int number, int why)
{
    if (!due(&control->calls)) {
        return false;
    }
    control->last_failed = number;
    errno = why;
    return true;
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

static void *given(void *p)
{
    if (p != NULL) {
        atomic_fetch_add_explicit(&control->allocations, 1, memory_order_relaxed);
    }
    return p;
}

static bool no_memory(void)
{
    if (due(&control->memory)) {
        errno = ENOMEM;
        return true;
    }
    return false;
}

void *malloc(size_t size)
{
    return no_memory() ? NULL : given(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return no_memory() ? NULL : given(__libc_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
    if (no_memory()) {
        return NULL;
    }
    void *p = __libc_realloc(old, size);
    return old == NULL ? given(p) : p;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return no_memory() ? NULL : given(__libc_memalign(alignment, size));
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (no_memory()) {
        return ENOMEM;
    }
    *out = given(__libc_memalign(alignment, size));
    return *out != NULL ? 0 : ENOMEM;
}

void free(void *old)
{
    if (old != NULL) {
        atomic_fetch_sub_explicit(&control->allocations, 1, memory_order_relaxed);
    }
    __libc_free(old);
}

/* --- system calls --------------------------------------------------------------------------------------------------- */

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

/* FAIL(number, name, why, (parameters), (arguments)): an int function that returns -1 when its turn has come. */
#define FAIL(number, type, name, why, parameters, arguments)    \
    type name parameters                                        \
    {                                                           \
        static type(*next) parameters;                          \
        if (next == NULL) {                                     \
            next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        }                                                       \
        return fails(number, why) ? (type)-1 : next arguments;  \
    }

FAIL(1, int, accept4, EMFILE, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
FAIL(2, ssize_t, recv, ECONNRESET, (int fd, void *bytes, size_t n, int flags), (fd, bytes, n, flags))
FAIL(3, ssize_t, send, EPIPE, (int fd, const void *bytes, size_t n, int flags), (fd, bytes, n, flags))
FAIL(4, ssize_t, sendmsg, EPIPE, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
FAIL(5, int, shutdown, ENOTCONN, (int fd, int how), (fd, how))
FAIL(6, int, setsockopt, ENOBUFS, (int fd, int level, int name, const void *value, socklen_t n),
     (fd, level, name, value, n))
FAIL(7, int, epoll_ctl, ENOMEM, (int epoll, int op, int fd, struct epoll_event *event), (epoll, op, fd, event))
FAIL(8, int, epoll_wait, EINTR, (int epoll, struct epoll_event *events, int n, int ms), (epoll, events, n, ms))
FAIL(9, int, fstat, EIO, (int fd, struct stat *st), (fd, st))
FAIL(10, int, stat, EIO, (const char *path, struct stat *st), (path, st))
FAIL(11, int, lstat, EIO, (const char *path, struct stat *st), (path, st))
FAIL(14, void *, mmap, ENOMEM, (void *at, size_t n, int prot, int flags, int fd, off_t offset),
     (at, n, prot, flags, fd, offset))
FAIL(15, int, madvise, ENOMEM, (void *at, size_t n, int advice), (at, n, advice))

/* Of files only: libevent tells itself of signals through a pair of sockets, which cannot fail in this way. */
static bool is_file(int fd)
{
    struct stat st;
    return fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && S_ISREG(st.st_mode);
}

ssize_t read(int fd, void *bytes, size_t n)
{
    return is_file(fd) && fails(12, EIO) ? -1 : NEXT(ssize_t, read, int, void *, size_t)(fd, bytes, n);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    return is_file(fd) && fails(13, ENOSPC) ? -1 : NEXT(ssize_t, write, int, const void *, size_t)(fd, bytes, n);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(16, EMFILE) ? -1 : NEXT(int, open, const char *, int, ...)(path, flags, mode);
}

char *realpath(const char *restrict path, char *restrict resolved)
{
    return fails(17, EIO) ? NULL : NEXT(char *, realpath, const char *, char *)(path, resolved);
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*start)(void *),
                   void *restrict arg)
{
    if (due(&control->calls)) {
        control->last_failed = 18;
        return EAGAIN;
    }
    return NEXT(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)(thread, attributes,
                                                                                                     start, arg);
}

/* --- the wall clock ------------------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = NEXT(int, clock_gettime, clockid_t, struct timespec *)(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        now->tv_sec += control->clock_offset;
    }
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return 0;
}
