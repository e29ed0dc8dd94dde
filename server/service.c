#include "server/service.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

void service_wake_control(const struct service *service)
{
    eventfd_write(service->control_fd,
                  1); /* fails when the counter is full: the control thread is being woken anyway */
}

bool service_is_ready(const struct service *service)
{
    return !atomic_load_explicit(&service->draining, memory_order_relaxed) &&
           atomic_load_explicit(&service->workers_serving, memory_order_acquire) == service->n_workers;
}

void service_stop_listening(struct service *service)
{
    if (atomic_fetch_add(&service->workers_draining, 1) + 1 < service->n_workers) {
        return;
    }
    for (size_t i = 0; i < service->n_listening; i++) {
        shutdown(service->listening_fds[i], SHUT_RDWR); /* the descriptor stays its owner's */
    }
}

int service_start_thread(pthread_t *thread, void *(*run)(void *), void *arg, struct err *e)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? err_set(e, "cannot start a thread: %s", strerror(error)) : 0;
}
