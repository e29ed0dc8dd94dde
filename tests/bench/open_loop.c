/*
 * An open-loop load: requests begin when they are due, whatever became of those before them, and a request that had to wait
 * here for a connection has waited. Closed-loop programs (wrk) ask less as soon as answers are slow, and so never see an overload.
 *
 *   open_loop PORT RATE SECONDS USERS K MOST [MEMBERS]     POST /recall to 127.0.0.1, with `,"search":...` for example
 *
 * Arrivals are a Poisson process of RATE a second, on at most MOST kept connections. Of those that were due in the middle four fifths
 * of the time it prints, in a line of JSON: how many there were, how many were answered 200, 503 and otherwise, degraded ones among
 * the first, and percentiles of the time from due to answered in milliseconds, of 200 and of 503.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/rng.h"
#include "tests/bench/bench.h"

enum { INPUT_MAX = 1 << 20, EVENTS = 256, PATIENCE = 3 /* seconds for the last answers */ };

struct connection {
    int fd; /* -1: to be opened */
    double due;
    size_t n;
    char *input; /* [INPUT_MAX] */
};

struct results {
    double *ms;
    size_t n, room;
};

static double begin, seconds, next_due, rate;
static int port, epoll_fd;
static unsigned users, k;
static const char *members;
static struct connection *connections;
static size_t *idle, n_idle;
static struct rng rng;
static size_t due_count, other, degraded, in_flight;
static struct results good, refused;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
    struct err e = ERR_INIT;
    err_set(&e, "%s: %s", what, strerror(errno));
    fail(&e);
}

static bool counts(double due)
{
    return due - begin > seconds * 0.1 && due - begin < seconds * 0.9;
}

static void results_add(struct results *r, double ms)
{
    if (r->n == r->room) {
        r->room = r->room ? 2 * r->room : 1024;
        r->ms = realloc(r->ms, r->room * sizeof *r->ms);
        if (!r->ms) {
            die("memory");
        }
    }
    r->ms[r->n++] = ms;
}

static void connection_open(struct connection *c)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        die("connect");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(c - connections)};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void ask(struct connection *c, double due)
{
    char body[512];
    char text[1024];
    int n = snprintf(body, sizeof body, "{\"user\":{\"user_id\":\"%u\"},\"k\":%u%s}",
                     (unsigned)(rng_uniform(&rng) * (float)users), k, members);
    n = snprintf(text, sizeof text, "POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", n, body);
    if (c->fd < 0) {
        connection_open(c);
    }
    c->due = due;
    c->n = 0;
    in_flight++;
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        die("send");
    }
}

static double draw_gap(void)
{
    return -log(1 - (double)rng_uniform(&rng)) / rate;
}

/* Asks whatever is due, as long as there are connections. */
static void ask_due(double at)
{
    while (n_idle > 0 && next_due <= at && next_due - begin < seconds) {
        due_count += counts(next_due);
        ask(&connections[idle[--n_idle]], next_due);
        next_due += draw_gap();
    }
}

static void take_answer(struct connection *c, double at)
{
    char *body = c->n < 32 ? NULL : memmem(c->input, c->n, "\r\n\r\n", 4);
    char *length = body ? memmem(c->input, (size_t)(body - c->input), "Content-Length: ", 16) : NULL;
    if (!length || c->n < (size_t)(body + 4 - c->input) + strtoul(length + 16, NULL, 10)) {
        return;
    }
    int status = atoi(c->input + 9);
    double ms = (at - c->due) * 1e3;
    in_flight--;
    idle[n_idle++] = (size_t)(c - connections);
    if (!counts(c->due)) {
        return;
    }
    if (status == 200) {
        results_add(&good, ms);
        size_t tail = c->n < 200 ? c->n : 200;
        degraded += memmem(c->input + c->n - tail, tail, "\"degraded\":true", 15) != NULL;
    } else if (status == 503) {
        results_add(&refused, ms);
    } else {
        other++;
    }
}

static void on_readable(struct connection *c)
{
    ssize_t n = recv(c->fd, c->input + c->n, INPUT_MAX - c->n, 0);
    if (n <= 0) {
        die("recv");
    }
    c->n += (size_t)n;
    take_answer(c, now());
}

static double percentile(struct results *r, double p)
{
    qsort(r->ms, r->n, sizeof *r->ms, ascending);
    return r->n ? r->ms[(size_t)((double)(r->n - 1) * p)] : 0;
}

static void run(void)
{
    struct epoll_event events[EVENTS];
    begin = now();
    next_due = begin + draw_gap();
    for (double at = begin; at - begin < seconds + PATIENCE && (at - begin < seconds || in_flight > 0); at = now()) {
        ask_due(at);
        double gap = n_idle > 0 && next_due - begin < seconds ? next_due - now() : 0.1;
        struct timespec wait = {.tv_nsec = gap > 0 ? (long)(gap * 1e9) % 1000000000 : 0};
        int n = epoll_pwait2(epoll_fd, events, EVENTS, &wait, NULL);
        for (int i = 0; i < n; i++) {
            on_readable(&connections[events[i].data.u64]);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: open_loop PORT RATE SECONDS USERS K MOST [MEMBERS]\n");
        return 2;
    }
    port = atoi(argv[1]);
    rate = atof(argv[2]);
    seconds = atof(argv[3]);
    users = (unsigned)atoi(argv[4]);
    k = (unsigned)atoi(argv[5]);
    size_t most = (size_t)atoi(argv[6]);
    members = argc > 7 ? argv[7] : "";
    rng_seed(&rng, 1, 2);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(most, sizeof *connections);
    idle = calloc(most, sizeof *idle);
    for (size_t i = 0; i < most; i++) {
        connections[i] = (struct connection){.fd = -1, .input = malloc(INPUT_MAX)};
        idle[n_idle++] = most - 1 - i; /* the last ones answered are asked first */
    }
    run();
    printf("{\"due\": %zu, \"seconds\": %.3f, \"good\": %zu, \"refused\": %zu, \"other\": %zu, \"unanswered\": %zu, "
           "\"degraded\": %zu, "
           "\"p50\": %.2f, \"p99\": %.2f, \"refused_p50\": %.2f, \"refused_p99\": %.2f}\n",
           due_count, seconds * 0.8, good.n, refused.n, other, in_flight, degraded, percentile(&good, 0.5),
           percentile(&good, 0.99), percentile(&refused, 0.5), percentile(&refused, 0.99));
    return 0;
}
