/* Accepting.
 *
 * The listening socket is ours and libuv only polls it: uv_listen accepts everything that waits in
 * one turn, throws waiting connections away without a word when descriptors run out, and may spin
 * then. Here at most 16 are accepted per turn. On EMFILE or ENFILE a descriptor held in reserve is
 * given up to accept and close what waits, so that peers see a close instead of silence, and then
 * accepting rests for 100 ms, doubling up to a second while it lasts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "core/net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/net/addr.h"

enum { TURN_ACCEPTS = 16, BACKLOG = 1024, REST_MS = 100, REST_MAX_MS = 1000, LOG_MS = 60 * 1000 };

struct listener {
    struct loop *loop;
    uv_poll_t poll;
    int fd, reserve; /* reserve -1: none */
    void (*accepted)(void *arg, uv_tcp_t *tcp);
    void *arg;
    struct endpoint local;
    struct timer rest;
    uint64_t rest_ms; /* length of the next rest */
    uint64_t logged;  /* when the last line about running out was written */
    bool ever_logged, closing;
};

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void log_exhausted(struct listener *li, int err)
{
    uint64_t now = loop_now(li->loop);
    if (li->ever_logged && now - li->logged < LOG_MS)
        return;
    li->ever_logged = true;
    li->logged = now;
    char at[ENDPOINT_TEXT];
    endpoint_text(&li->local, at);
    struct log_ctx ctx = {.sink = li->loop->log};
    log_ev(&ctx, LOG_WARN, "listen.exhausted", KV_C("listen", at), KV_C("cause", strerror(err)));
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void discard_tcp(uv_handle_t *h)
{
    mem_free(h);
}

static void hand_over(struct listener *li, int fd)
{
    uv_tcp_t *tcp = mem_zalloc(sizeof *tcp);
    if (tcp == NULL || uv_tcp_init(li->loop->uv, tcp) != 0) {
        mem_free(tcp);
        close(fd);
        return;
    }
    if (uv_tcp_open(tcp, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)tcp, discard_tcp);
        return;
    }
    li->accepted(li->arg, tcp);
}

static void shed(struct listener *li)
{
    if (li->reserve < 0)
        return;
    close(li->reserve);
    for (int n = 0; n < TURN_ACCEPTS; n++) {
        int fd = accept4(li->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            break;
        close(fd);
    }
    li->reserve = open_reserve();
}

static void on_poll(uv_poll_t *p, int status, int events);

static void on_rested(struct timer *t)
{
    struct listener *li = CONTAINER_OF(t, struct listener, rest);
    if (li->reserve < 0)
        li->reserve = open_reserve();
    uv_poll_start(&li->poll, UV_READABLE, on_poll);
}

static void take_a_rest(struct listener *li)
{
    if (!loop_timer_set(li->loop, &li->rest, li->rest_ms))
        return; /* then the next turn tries again */
    uv_poll_stop(&li->poll);
    li->rest_ms = li->rest_ms * 2 < REST_MAX_MS ? li->rest_ms * 2 : REST_MAX_MS;
}

static bool passing_error(int err)
{
    return err == EINTR || err == ECONNABORTED || err == EPROTO || err == EPERM;
}

static void on_poll(uv_poll_t *p, int status, int events)
{
    (void)status, (void)events;
    struct listener *li = p->data;
    for (int n = 0; n < TURN_ACCEPTS && !li->closing; n++) {
        int fd = accept4(li->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            li->rest_ms = REST_MS;
            hand_over(li, fd);
            continue;
        }
        int err = errno;
        if (err == EAGAIN)
            return;
        if (passing_error(err))
            continue;
        log_exhausted(li, err);
        if (err == EMFILE || err == ENFILE)
            shed(li);
        take_a_rest(li);
        return;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static int open_socket(const struct endpoint *at)
{
    struct sockaddr_storage sa;
    if (!addr_from_endpoint(at, &sa)) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    const int on = 1;
    bool v6 = sa.ss_family == AF_INET6;
    socklen_t len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (!v6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
        bind(fd, (struct sockaddr *)&sa, len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int err = errno;
    close(fd);
    errno = err;
    return -1;
}

static void local_of(int fd, struct endpoint *out)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &n) == 0)
        addr_to_endpoint((struct sockaddr *)&sa, out);
}

struct listener *listen_new(struct loop *l, const struct endpoint *at,
                            void (*accepted)(void *arg, uv_tcp_t *tcp), void *arg,
                            char why[LISTEN_WHY_MAX])
{
    char text[ENDPOINT_TEXT];
    endpoint_text(at, text);
    struct listener *li = mem_zalloc(sizeof *li);
    int err = li == NULL ? UV_ENOMEM : 0;
    int fd = li != NULL ? open_socket(at) : -1;
    if (li != NULL)
        err = fd >= 0 ? uv_poll_init(l->uv, &li->poll, fd) : -errno;
    if (err != 0) {
        snprintf(why, LISTEN_WHY_MAX, "cannot listen on %s: %s", text, uv_strerror(err));
        if (fd >= 0)
            close(fd);
        mem_free(li);
        return NULL;
    }
    li->loop = l;
    li->fd = fd;
    li->reserve = open_reserve();
    li->accepted = accepted;
    li->arg = arg;
    li->rest_ms = REST_MS;
    li->rest.fire = on_rested;
    li->poll.data = li;
    local_of(fd, &li->local);
    uv_poll_start(&li->poll, UV_READABLE, on_poll);
    l->handles++;
    return li;
}

const struct endpoint *listen_local(const struct listener *li)
{
    return &li->local;
}

static void on_closed(uv_handle_t *h)
{
    struct listener *li = h->data;
    li->loop->handles--;
    mem_free(li);
}

void listen_close(struct listener *li)
{
    if (li == NULL || li->closing)
        return;
    li->closing = true;
    loop_timer_clear(li->loop, &li->rest);
    uv_close((uv_handle_t *)&li->poll, on_closed);
    close(li->fd); /* after uv_close, which takes it out of the poll set */
    if (li->reserve >= 0)
        close(li->reserve);
}
