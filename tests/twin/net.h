/* A network in memory behind libuv's own functions.
 *
 * The twin test links the real drivers (core/net/conn.c, connect.c, loop.c, session.c, gateway/)
 * and not libuv: net_uv.c defines the uv_* functions that they call, over byte pipes, and listen.h,
 * over a table. Nothing waits; the clock stands still until the test moves it; a seeded generator
 * draws how much a read or a write takes, in which order sockets are served, and how long bytes
 * travel.
 *
 * What the kernel does and this does too: a write may take part or nothing; bytes that it accepted
 * travel on after the sender has closed; closing with unread bytes resets; after a reset what has
 * arrived can still be read; who writes to a closed socket is told later.
 *
 * A *wire* is one connection; it stays in memory until net_close, so that the test can ask what
 * became of it. An *excuse* says that bytes the kernel had accepted never reached the protocol of
 * the other side. */
#ifndef TESTS_TWIN_NET_H
#define TESTS_TWIN_NET_H

#include <uv.h>

#include "core/base/cidr.h"
#include "core/base/list.h"

enum excuse {
    EXCUSE_CUT = 1,       /* the test cut the connection */
    EXCUSE_LEFT = 2,      /* the reader closed before it had read everything */
    EXCUSE_RESET = 4,     /* the sender closed with unread bytes: its own last ones may be lost */
    EXCUSE_DISCARDED = 8, /* read while the reader's conn was closing already */
    EXCUSE_UNPARSED = 16, /* the reader closed with bytes in its framer */
};

enum { WIRE_CAP = 64 * 1024 };

struct sock;

/* One direction: from end i to the other one. */
struct pipe {
    char *bytes;
    size_t n, cap;
    uint64_t ready; /* ms: when what is there can be read */
    bool fin;       /* the writer has finished */
    int err;        /* behind the bytes the reader finds this error; the writer finds it at once */
    bool void_;     /* the reader is gone */
    unsigned excuse; /* set of enum excuse */
    uint64_t total;
};

struct wire {
    struct list_node node; /* net.wires */
    unsigned id;
    uint16_t port;       /* that was dialled */
    struct pipe pipe[2]; /* 0: from the dialler */
    struct sock *end[2]; /* NULL: closed, or not accepted yet */
    bool raw;            /* end 0 is the test itself */
    struct endpoint from, to;
    bool waiting;        /* for accept */
    uint64_t stalled;    /* ms: nothing travels before */
};

struct net {
    uint64_t now;
    uint64_t rng;
    struct list wires, socks, listeners;
    unsigned next_wire;
    uint16_t next_port;
    uint64_t activity;     /* callbacks made */
    struct ip address;     /* of sockets of the loop that is made next */
    unsigned latency;      /* ms at most */
    unsigned refuse, drop; /* of 1000 dials: refused, never answered */
    unsigned slow;         /* of 1000 writes: the socket is full */
    unsigned narrow;       /* of 1000 pipes: hold little */
};

void net_open(struct net *n, uint64_t seed);
void net_close(struct net *n); /* all loops are closed */

uint64_t net_random(struct net *n);
unsigned net_below(struct net *n, unsigned below);
bool net_chance(struct net *n, unsigned of_1000);

void net_cut(struct net *n, struct wire *w);
bool net_wire_alive(const struct wire *w);
/* The wire under a connection and which end of it this is. */
struct wire *net_wire_of(const uv_tcp_t *tcp, int *side);
/* When something happens by itself that is not a loop's timer; false: never. */
bool net_next(const struct net *n, uint64_t *due);
bool net_ready(const struct net *n); /* something could be served at once */
bool net_quiet(const struct net *n); /* nothing travels */

/* A connection of the test itself, without a loop; NULL: nobody listens there. */
struct wire *net_raw_dial(struct net *n, const struct endpoint *to, const struct ip *from);
void net_raw_write(struct net *n, struct wire *w, const char *text, size_t len);
void net_raw_close(struct net *n, struct wire *w);
size_t net_raw_read(struct net *n, struct wire *w, char *out, size_t cap);

#endif
