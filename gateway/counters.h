/* What a worker counts. Plain integers: one thread.
 *
 * The books of stanzas balance in each direction, at any time:
 *     received + authored = delivered + bounced + dropped + waiting + writing
 * where `waiting` are in our queues and `writing` were handed to a connection and are not yet
 * accepted by the kernel. */
#ifndef GATEWAY_COUNTERS_H
#define GATEWAY_COUNTERS_H

#include <stdint.h>

#define BOOKS(X)                                                                                   \
    X(received, "stanzas that came in")                                                            \
    X(authored, "error answers and replies that the gateway wrote itself")                         \
    X(delivered, "accepted by the kernel on a stream")                                             \
    X(bounced, "answered with an error")                                                           \
    X(dropped, "ended where bouncing is forbidden")                                                \
    X(waiting, "in a queue now")                                                                   \
    X(writing, "handed to a connection now")

struct books {
#define X(name, help) uint64_t name;
    BOOKS(X)
#undef X
};

#define COUNTERS(X)                                                                                \
    X(firewall_refused, "stanzas refused by the address firewall of the link")                     \
    X(policy_refused, "stanzas refused by policy")                                                 \
    X(shadow_passed, "stanzas that an allow list on trial would refuse")                           \
    X(streams_in, "incoming streams accepted")                                                     \
    X(streams_out, "outgoing connections made")                                                    \
    X(streams_shared, "outgoing streams that another remote domain joined")                        \
    X(streams_refused, "incoming connections closed at once by a limit")                           \
    X(dialback_asked, "keys that an authority was asked to verify")                                \
    X(bidi_quarantines, "peers that broke the rules of bidirectional streams")

struct counters {
    struct books inward, outward; /* towards the inside, towards the world */
#define X(name, help) uint64_t name;
    COUNTERS(X)
#undef X
};

#endif
