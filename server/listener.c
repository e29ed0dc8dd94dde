#include "server/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/mem.h"

static const char unix_prefix[] = "unix:";

struct endpoint_address {
    struct sockaddr_storage storage;
    socklen_t length;
};

static bool is_loopback(const struct endpoint_address *a)
{
    if (a->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&a->storage;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (a->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&a->storage;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    return a->storage.ss_family == AF_UNIX;
}

static int parse_unix(const char *address, struct endpoint_address *a, struct err *e)
{
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&a->storage;
    const char *path = address + sizeof unix_prefix - 1;
    size_t n = strlen(path);
    if (path[0] != '/' || n >= sizeof un->sun_path || sizeof unix_prefix + n > LISTENER_ADDRESS_MAX) {
        return err_set(e, "listen %s: must be unix: and an absolute path of less than %zu bytes", address,
                       sizeof un->sun_path);
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, n + 1);
    a->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return 0;
}

/* Cuts "HOST:PORT" in two; brackets around an IPv6 address are removed. */
static int split_host_port(const char *address, char *host, size_t size, const char **port, struct err *e)
{
    const char *colon = strrchr(address, ':');
    const char *from = address;
    const char *to = colon;
    if (!colon || colon == address) {
        return err_set(e, "listen %s: must be HOST:PORT or unix:/path", address);
    }
    if (address[0] == '[' && colon[-1] == ']') {
        from++;
        to--;
    } else if (memchr(address, ':', (size_t)(colon - address))) {
        return err_set(e, "listen %s: an IPv6 address needs brackets, as in [::1]:8080", address);
    }
    if ((size_t)(to - from) >= size) {
        return err_set(e, "listen %s: the host name is too long", address);
    }
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = '\0';
    *port = colon + 1;
    size_t digits = strspn(*port, "0123456789");
    long number = digits > 0 && digits <= 5 && !(*port)[digits] ? strtol(*port, NULL, 10) : -1;
    if (number < 0 || number > 65535) {
        return err_set(e, "listen %s: the port must be a number from 0 to 65535", address);
    }
    return 0;
}

static int parse_address(const char *address, struct endpoint_address *a, struct err *e)
{
    char host[256];
    const char *port = "";
    memset(a, 0, sizeof *a);
    if (strncmp(address, unix_prefix, sizeof unix_prefix - 1) == 0) {
        return parse_unix(address, a, e);
    }
    if (split_host_port(address, host, sizeof host, &port, e) != 0) {
        return -1;
    }
    bool any = strcmp(host, "*") == 0;
    const struct addrinfo hints = {
        .ai_family = any ? AF_INET : AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(any ? NULL : host, port, &hints, &found);
    if (error != 0) {
        return err_set(e, "listen %s: %s", address, gai_strerror(error));
    }
    memcpy(&a->storage, found->ai_addr, found->ai_addrlen);
    a->length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* A socket file that refuses connections is left over from a daemon that died. Other files refuse them, too, and stay. */
static int remove_stale_socket(const struct endpoint_address *a, const char *address, struct err *e)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&a->storage;
    struct stat st;
    if (lstat(un->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        return err_set(e, "listen %s: there is something that is no socket", address);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&a->storage, a->length) != 0 && errno == ECONNREFUSED) {
        unlink(un->sun_path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

/* The address that the kernel gave, as text. */
static void describe(struct listener *l, const char *configured)
{
    struct endpoint_address a = {.length = sizeof a.storage};
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (l->socket_path || getsockname(l->fd, (struct sockaddr *)&a.storage, &a.length) != 0 ||
        getnameinfo((struct sockaddr *)&a.storage, a.length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(l->address, sizeof l->address, "%s", configured);
        return;
    }
    snprintf(l->address, sizeof l->address, a.storage.ss_family == AF_INET6 ? "[%.100s]:%.8s" : "%.100s:%.8s", host,
             port);
}

int listener_open(struct listener *l, const char *address, struct err *e)
{
    struct endpoint_address a;
    *l = (struct listener){.fd = -1};
    if (parse_address(address, &a, e) != 0) {
        return -1;
    }
    bool local = a.storage.ss_family == AF_UNIX;
    int fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(e, "listen %s: %s", address, strerror(errno));
    }
    if (local && remove_stale_socket(&a, address, e) != 0) {
        close(fd);
        return -1;
    }
    if (!local) {
        const int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    }
    if (bind(fd, (const struct sockaddr *)&a.storage, a.length) != 0 || listen(fd, SOMAXCONN) != 0) {
        err_set(e, "listen %s: %s", address, strerror(errno));
        close(fd);
        return -1;
    }
    l->fd = fd;
    l->is_private = is_loopback(&a);
    if (local && !(l->socket_path = mem_strdup(address + sizeof unix_prefix - 1))) {
        unlink(address + sizeof unix_prefix - 1);
        close(fd);
        l->fd = -1;
        return err_nomem(e);
    }
    describe(l, address);
    return 0;
}

void listener_close(struct listener *l)
{
    if (l->fd >= 0) {
        close(l->fd);
    }
    if (l->socket_path) {
        unlink(l->socket_path);
        mem_free(l->socket_path);
    }
    *l = (struct listener){.fd = -1};
}

void listener_hold(const struct listener *l)
{
    struct sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const struct sock_fprog program = {.len = 1, .filter = drop};
    if (!l->socket_path) {
        setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    }
}

int listener_check(const char *address, bool *is_private, struct err *e)
{
    struct endpoint_address a;
    if (parse_address(address, &a, e) != 0) {
        return -1;
    }
    if (is_private) {
        *is_private = is_loopback(&a);
    }
    return 0;
}
