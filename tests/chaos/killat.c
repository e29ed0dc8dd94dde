/*
 * LD_PRELOAD: SIGKILL before the KILL_AT-th call that changes the file system (counted from 1). kill9.py --every walks
 * through all of them, so that no moment between two steps is left to chance.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static void step(void)
{
    static atomic_long calls;
    const char *at = getenv("KILL_AT");
    if (at != NULL && atomic_fetch_add(&calls, 1) + 1 == atol(at)) {
        kill(getpid(), SIGKILL);
    }
}

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to)
{
    step();
    return NEXT(int, rename, const char *, const char *)(from, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    step();
    return NEXT(int, renameat2, int, const char *, int, const char *, unsigned)(from_dir, from, to_dir, to, flags);
}

int symlink(const char *target, const char *path)
{
    step();
    return NEXT(int, symlink, const char *, const char *)(target, path);
}

int link(const char *from, const char *to)
{
    step();
    return NEXT(int, link, const char *, const char *)(from, to);
}

int unlink(const char *path)
{
    step();
    return NEXT(int, unlink, const char *)(path);
}

int remove(const char *path)
{
    step();
    return NEXT(int, remove, const char *)(path);
}

int mkdir(const char *path, mode_t mode)
{
    step();
    return NEXT(int, mkdir, const char *, mode_t)(path, mode);
}

int fsync(int fd)
{
    step();
    return NEXT(int, fsync, int)(fd);
}
