#include "ctl/client.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

uint64_t client_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int client_open(struct client *c, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    *c = (struct client){.fd = -1, .in = BUF_INIT(CLIENT_LINE_MAX)};
    if (!str_copy(sa.sun_path, sizeof sa.sun_path, str_c(path)))
        return ENAMETOOLONG;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return 0;
    int e = errno;
    client_close(c);
    return e;
}

void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    buf_free(&c->in);
}

bool client_send(struct client *c, const struct buf *line)
{
    size_t sent = 0;
    while (sent < line->len) {
        ssize_t n = send(c->fd, line->p + sent, line->len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

enum client_end client_line(struct client *c, struct str *line)
{
    char piece[65536];
    for (;;) {
        const char *end = c->in.len ? memchr(c->in.p, '\n', c->in.len) : NULL;
        if (end != NULL) {
            *line = (struct str){c->in.p, (size_t)(end - c->in.p)};
            return CLIENT_LINE;
        }
        uint64_t now = client_now();
        if (c->deadline != 0 && now >= c->deadline)
            return CLIENT_LATE;
        struct pollfd f = {.fd = c->fd, .events = POLLIN};
        int ready = poll(&f, 1, c->deadline != 0 ? (int)(c->deadline - now) : -1);
        ssize_t n = ready > 0 ? recv(c->fd, piece, sizeof piece, 0) : -1;
        if (ready == 0 || (ready < 0 && errno == EINTR))
            continue;
        if (n <= 0)
            return CLIENT_ENDED;
        buf_put(&c->in, piece, (size_t)n);
        if (c->in.failed)
            return CLIENT_LOST;
    }
}

void client_next(struct client *c, struct str line)
{
    buf_drop(&c->in, line.n + 1);
}

bool client_ask(const char *path, const struct buf *request, uint64_t within_ms, struct buf *reply)
{
    struct client c;
    struct str line;
    if (client_open(&c, path) != 0)
        return false;
    c.deadline = client_now() + within_ms;
    bool ok = client_send(&c, request) && client_line(&c, &line) == CLIENT_LINE;
    if (ok)
        buf_str(reply, line);
    client_close(&c);
    return ok && !reply->failed;
}
