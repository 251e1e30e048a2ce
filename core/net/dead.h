/* Noticing that the machine at the other end of a TCP connection is gone: the cable was cut, it
 * lost power, a firewall forgot the connection. No close comes then.
 *
 * While nothing is under way the kernel asks (keepalive, after 2/5 of the time, then twice more)
 * and the next read ends with a time-out. While sent bytes are not acknowledged keepalive is silent
 * and the kernel would go on for a quarter of an hour; TCP_USER_TIMEOUT shortens that, but it also
 * kills a connection whose peer is alive and merely does not read (measured; our own back-pressure
 * does that to a peer). So this case is watched here: bytes under way and no acknowledgement, or
 * bytes that the kernel cannot even send (our own interface is down) and probes without an answer.
 *
 * A peer that is alive and reads nothing is none of this module's business. */
#ifndef CORE_NET_DEAD_H
#define CORE_NET_DEAD_H

#include "core/net/loop.h"

/* Embedded in the holder of the connection. */
struct dead_watch {
    struct loop *loop;
    void (*found)(struct dead_watch *d);
    struct timer timer;
    int fd;
    uint64_t dead_ms;
    uint64_t since; /* bytes are under way without an acknowledgement */
    bool waiting;
};

/* From now until dead_watch_stop, which has to come before the handle is closed. A dead peer is
 * noticed within `dead_ms` (at least 3 s: the kernel counts in seconds): by `found`, at most once,
 * or by the kernel, as an error of the next read. 0: nothing is watched or changed. False: out of
 * memory. */
bool dead_watch_start(struct dead_watch *d, struct loop *l, const uv_tcp_t *tcp, uint64_t dead_ms,
                      void (*found)(struct dead_watch *d));
void dead_watch_stop(struct dead_watch *d); /* fine when it was not started */

#endif
