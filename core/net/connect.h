/* Connecting to the first of several addresses that answers (RFC 8305, Happy Eyeballs): one attempt
 * after the other, the next as soon as one fails or has taken 250 ms; the first that stands wins,
 * the others are closed. */
#ifndef CORE_NET_CONNECT_H
#define CORE_NET_CONNECT_H

#include "core/base/cidr.h"
#include "core/net/loop.h"

enum { CONNECT_TARGETS_MAX = 16, CONNECT_WHY_MAX = 200 };

struct connect_options {
    const struct endpoint *targets; /* in the order to try; copied, at most CONNECT_TARGETS_MAX */
    size_t ntargets;
    uint64_t deadline_ms;       /* for all of it, from now */
    struct ip source4, source6; /* len 0: the kernel's choice */
    /* Asked for each address before it is tried (NULL: all are fine). True: not this one; *why is a
     * static text that goes into the reason. */
    bool (*refused)(void *arg, const struct endpoint *to, const char **why);
};

/* tcp: open, allocated with mem_alloc, owned by the callback (conn_new, or uv_close with mem_free
 * in the close callback). NULL: `why` says in one sentence how the last attempt failed ("connection
 * refused by 192.0.2.1:5269"); borrowed for the call. */
typedef void connect_done(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why);

struct connect;

/* `done` and `refused` get `arg`. The callback comes exactly once, never from inside this call, and
 * not after connect_cancel; after it the handle is invalid. NULL: out of memory. */
struct connect *connect_start(struct loop *l, const struct connect_options *opt, connect_done *done,
                              void *arg);
void connect_cancel(struct connect *k);

#endif
