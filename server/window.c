/*
 * A timerfd, because libevent's own timers have epoll's resolution, which is milliseconds. It is set once a window, and
 * left alone when a window ends early: setting it for the next one takes back an expiry that nobody has read.
 */
#include "server/window.h"

#include <event2/event.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/mem.h"
#include "server/http.h"

struct window {
    uint32_t microseconds;
    size_t most, most_bytes;
    window_answer *answer;
    void *arg;
    int timer_fd;
    struct event *event;
    size_t n, bytes;
    struct waiting waiting[WINDOW_MOST];
};

void window_end(struct window *w)
{
    struct waiting all[WINDOW_MOST];
    size_t n = w->n;
    memcpy(all, w->waiting, n * sizeof *all);
    w->n = 0;
    w->bytes = 0;
    if (n > 0) {
        w->answer(all, n, w->arg);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t expiries;
    if (read(fd, &expiries, sizeof expiries) == (ssize_t)sizeof expiries) { /* else it was set anew meanwhile */
        window_end(arg);
    }
}

struct window *window_new(struct event_base *base, uint32_t microseconds, size_t most, size_t bytes,
                          window_answer *answer, void *arg, struct err *e)
{
    struct window *w = mem_array(1, sizeof *w);
    if (w == NULL) {
        err_nomem(e);
        return NULL;
    }
    w->microseconds = microseconds;
    w->most = most;
    w->most_bytes = bytes;
    w->answer = answer;
    w->arg = arg;
    w->timer_fd = -1;
    if (base == NULL) {
        return w;
    }
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    w->event = w->timer_fd < 0 ? NULL : event_new(base, w->timer_fd, EV_READ | EV_PERSIST, on_timer, w);
    if (w->event == NULL || event_add(w->event, NULL) != 0) {
        err_set(e, "cannot set up the timer of batch_window_us");
        window_free(w);
        return NULL;
    }
    return w;
}

void window_free(struct window *w)
{
    if (w == NULL) {
        return;
    }
    for (size_t i = 0; i < w->n; i++) {
        json_decref(w->waiting[i].body);
    }
    if (w->event != NULL) {
        event_free(w->event);
    }
    if (w->timer_fd >= 0) {
        close(w->timer_fd);
    }
    mem_free(w);
}

size_t window_length(const struct window *w)
{
    return w->n;
}

/* Sets the timer; without one the request is answered by itself. */
static void begin(struct window *w)
{
    const struct itimerspec after = {
        .it_value = {.tv_sec = w->microseconds / 1000000, .tv_nsec = (long)(w->microseconds % 1000000) * 1000}};
    if (timerfd_settime(w->timer_fd, 0, &after, NULL) != 0) {
        window_end(w);
    }
}

void window_add(struct window *w, struct waiting waiting)
{
    w->waiting[w->n++] = waiting;
    w->bytes += waiting.request->body_len;
    if (w->n == w->most || w->bytes >= w->most_bytes) {
        window_end(w);
    } else if (w->n == 1 && w->event != NULL) {
        begin(w);
    }
}
