/* For the driver tests: a loop with a clock that can be moved, and connected sockets on
 * loopback. */
#ifndef TESTS_DRIVER_LOOPBACK_H
#define TESTS_DRIVER_LOOPBACK_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/net/loop.h"

struct world {
    struct loop loop;
    struct env env;
    uint64_t skew; /* ms added to the real clock */
};

static inline uint64_t world_now(void *ctx)
{
    return env_now(&env_system) + ((struct world *)ctx)->skew;
}

static inline void world_open(struct world *w)
{
    *w = (struct world){.env = {world_now, env_system.random, NULL}};
    w->env.ctx = w;
    assert_true(loop_init(&w->loop, &w->env, NULL));
}

static inline void world_close(struct world *w)
{
    loop_close(&w->loop);
    assert_int_equal(w->loop.handles, 0);
}

/* One turn of the loop, without waiting. */
static inline void turn_once(struct world *w)
{
    loop_turn(&w->loop);
}

/* Turns the loop until the condition holds; fails after ten seconds. */
#define SPIN_UNTIL(w, cond)                                                                        \
    do {                                                                                           \
        uint64_t until_ = env_now(&env_system) + 10000;                                            \
        while (!(cond)) {                                                                          \
            turn_once(w);                                                                          \
            if (env_now(&env_system) > until_)                                                     \
                fail_msg("not in ten seconds: %s", #cond);                                         \
        }                                                                                          \
    } while (0)

static inline int loopback_listener(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 64), 0);
    socklen_t n = sizeof sa;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

/* buffer: SO_SNDBUF and SO_RCVBUF of both; 0: the kernel's choice. Both non-blocking. */
static inline void loopback_pair(int fd[2], int buffer)
{
    uint16_t port;
    int l = loopback_listener(&port);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (buffer != 0) {
        setsockopt(l, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(l, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(fd[0], SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd[0], (struct sockaddr *)&sa, sizeof sa), 0);
    fd[1] = accept(l, NULL, NULL);
    assert_true(fd[1] >= 0);
    close(l);
    for (int i = 0; i < 2; i++)
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
}

/* Every segment that comes for this socket is thrown away without an answer: a cut cable. Not
 * before its own bytes have arrived: it would go on repeating them, which a cut one cannot. */
static inline void loopback_cut(int fd)
{
    int unacknowledged = 1;
    for (int i = 0; i < 1000 && unacknowledged > 0; i++) {
        assert_int_equal(ioctl(fd, SIOCOUTQ, &unacknowledged), 0);
        usleep(unacknowledged > 0 ? 1000 : 0);
    }
    assert_int_equal(unacknowledged, 0);
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog p = {1, &nothing};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p), 0);
}

/* Some kernels leave filters to root; then a test that needs them is skipped, and said to be. */
static inline void loopback_need_filters(void)
{
    struct sock_filter everything = BPF_STMT(BPF_RET | BPF_K, 0xffff);
    struct sock_fprog p = {1, &everything};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    int r = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p), error = errno;
    close(fd);
    if (r != 0 && error == EPERM)
        skip();
}

static inline uv_tcp_t *loopback_tcp(struct world *w, int fd)
{
    uv_tcp_t *t = mem_zalloc(sizeof *t);
    assert_non_null(t);
    assert_int_equal(uv_tcp_init(w->loop.uv, t), 0);
    assert_int_equal(uv_tcp_open(t, fd), 0);
    return t;
}

static inline void loopback_freed(uv_handle_t *h)
{
    mem_free(h);
}

#endif
