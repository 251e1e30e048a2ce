#include "core/net/dead.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    LOOKS = 8,       /* per dead_ms; with QUIET_LOOKS the last one is in time */
    QUIET_LOOKS = 6, /* so long without an acknowledgement is dead */
    PROBES = 2,
    SECONDS_MAX = 32767, /* the kernel's limit */
};

static int at_least_1(uint64_t n)
{
    return n > SECONDS_MAX ? SECONDS_MAX : n > 0 ? (int)n : 1;
}

static void set_option(int fd, int name, int value)
{
    setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
}

static void set_keepalive(int fd, uint64_t dead_ms)
{
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    set_option(fd, TCP_KEEPIDLE, at_least_1(dead_ms * 2 / 5 / 1000));
    set_option(fd, TCP_KEEPINTVL, at_least_1(dead_ms / 5 / 1000));
    set_option(fd, TCP_KEEPCNT, PROBES);
}

/* How long, as far as the looks have shown, sent bytes have been without an acknowledgement. */
static uint64_t quiet_ms(struct dead_watch *d)
{
    uint64_t now = loop_now(d->loop);
    struct tcp_info info;
    socklen_t n = sizeof info;
    bool under_way =
        getsockopt(d->fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_unacked > 0;
    if (!under_way || !d->waiting)
        d->since = now;
    else if (info.tcpi_last_ack_recv < now - d->since)
        d->since = now - info.tcpi_last_ack_recv;
    d->waiting = under_way;
    return now - d->since;
}

static void on_look(struct timer *t)
{
    struct dead_watch *d = CONTAINER_OF(t, struct dead_watch, timer);
    if (quiet_ms(d) >= d->dead_ms * QUIET_LOOKS / LOOKS)
        d->found(d);
    else /* does not fail: the place of the timer that fires is free */
        loop_timer_set(d->loop, &d->timer, d->dead_ms / LOOKS);
}

bool dead_watch_start(struct dead_watch *d, struct loop *l, const uv_tcp_t *tcp, uint64_t dead_ms,
                      void (*found)(struct dead_watch *d))
{
    enum { LEAST_MS = 3000 };
    *d = (struct dead_watch){.loop = l, .found = found, .timer.fire = on_look};
    d->dead_ms = dead_ms < LEAST_MS ? LEAST_MS : dead_ms;
    uv_os_fd_t fd;
    if (dead_ms == 0 || uv_fileno((const uv_handle_t *)tcp, &fd) != 0)
        return true;
    d->fd = fd;
    set_keepalive(d->fd, d->dead_ms);
    return loop_timer_set(l, &d->timer, d->dead_ms / LOOKS);
}

void dead_watch_stop(struct dead_watch *d)
{
    if (d->loop != NULL)
        loop_timer_clear(d->loop, &d->timer);
}
