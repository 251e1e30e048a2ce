/* The inside of the network in memory: net.c keeps wires, net_uv.c is libuv's face. */
#ifndef TESTS_TWIN_NET_PRIV_H
#define TESTS_TWIN_NET_PRIV_H

#include "core/net/listen.h"
#include "tests/twin/net.h"

/* What a uv_tcp_t stands for; hangs on its u.reserved[0]. */
struct sock {
    struct list_node node;
    uv_tcp_t *h;
    uv_loop_t *loop;
    struct wire *wire; /* NULL: not connected */
    int side;
    struct endpoint local, peer;
    uv_connect_t *connecting;
    uv_connect_cb connect_cb;
    uint64_t connect_at;
    bool never; /* this dial gets no answer */
    bool reading;
    uv_alloc_cb alloc_cb;
    uv_read_cb read_cb;
    uv_write_t *writing;
    uv_write_cb write_cb;
    char byte;
    bool written;
    uv_shutdown_t *shutting;
    uv_shutdown_cb shutdown_cb;
    bool closing;
    uv_close_cb close_cb;
};

/* What a uv_loop_t stands for; hangs on its data. */
struct floop {
    struct ip address;
    uv_prepare_t *prepare;
    uv_prepare_cb prepare_cb;
    bool referenced, stopping;
};

struct listener {
    struct list_node node;
    struct loop *loop;
    struct endpoint at;
    void (*accepted)(void *arg, uv_tcp_t *tcp);
    void *arg;
    bool closing;
};

/* libuv's functions know their loop only; there is one network at a time. */
struct net *net_present(void);

struct wire *wire_new(const struct endpoint *from, const struct endpoint *to);
void wire_leave(struct wire *w, int side); /* one end goes: the kernel's part of close() */
/* Something is put into the pipe: when will it arrive? */
void wire_travel(struct wire *w, struct pipe *p);
bool wire_arrived(const struct wire *w, const struct pipe *p);
void pipe_take(struct pipe *p, char *out, size_t n);
/* What the kernel takes of it; a negative error. */
ssize_t pipe_put(struct wire *w, int side, const char *b, size_t n);
size_t pipe_room(const struct pipe *p);
size_t pipe_portion(size_t n, size_t cap); /* how much one read gets */
struct pipe *sock_rx(const struct sock *s);
struct pipe *sock_tx(const struct sock *s);
struct listener *listener_at(const struct endpoint *at);

#endif
