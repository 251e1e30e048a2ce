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

struct look {
    bool waiting; /* for an acknowledgement */
    bool sure;    /* what it waits for cannot just have been lost on the way */
    uint32_t last_ack_ms;
};

/* Bytes under way wait for an acknowledgement. When the way has gone before they could leave (our
 * own interface is down) the kernel holds them back and probes, as it does with a peer that does
 * not read; the live peer answers those, later and later ones, so a single lost one says nothing.
 */
static struct look look_at(int fd)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0)
        return (struct look){.waiting = false};
    bool under_way = info.tcpi_unacked > 0;
    return (struct look){under_way || info.tcpi_probes > 0, under_way || info.tcpi_probes > 1,
                         info.tcpi_last_ack_recv};
}

/* How long, as far as the looks have shown, it has waited. */
static uint64_t quiet_ms(struct dead_watch *d, const struct look *seen)
{
    uint64_t now = loop_now(d->loop);
    if (!seen->waiting || !d->waiting)
        d->since = now;
    else if (seen->last_ack_ms < now - d->since)
        d->since = now - seen->last_ack_ms;
    d->waiting = seen->waiting;
    return now - d->since;
}

static void on_look(struct timer *t)
{
    struct dead_watch *d = CONTAINER_OF(t, struct dead_watch, timer);
    struct look seen = look_at(d->fd);
    if (quiet_ms(d, &seen) >= d->dead_ms * QUIET_LOOKS / LOOKS && seen.sure)
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
