/* Two connections joined: what one side sends is written to the other, unread. The first side is
 * under TLS (we are the client), the second one in clear.
 *
 * Story. relay_new begins the TLS handshake on the first side. `secured` tells that it stands; the
 * holder judges the peer and, when it is content, connects to the second side and hands that over
 * with relay_join. What the first side sent meanwhile waits, bounded; it has to speak first, and in
 * time. A side that has said its last word (end of file, close-notify) is half closed: the other
 * direction goes on until that one has ended, too, or nothing has moved for `half_ms`. Any error
 * ends both sides at once. relay_drain ends both in good order.
 *
 * Back-pressure: when `buffer` bytes wait to be written to a side, the other one is not read from.
 * With what is being written already that makes, for each side, two buffers and a little more.
 */
#ifndef CORE_NET_RELAY_H
#define CORE_NET_RELAY_H

#include "core/net/loop.h"
#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

struct relay;

enum relay_end {
    RELAY_DONE,    /* both sides have ended */
    RELAY_TLS,     /* the handshake failed, or the peer ended it later because of our certificate */
    RELAY_LOST,    /* a side broke, stalled, or did not end */
    RELAY_STOPPED, /* by relay_stop or relay_drain */
};

enum relay_side { RELAY_FIRST, RELAY_SECOND };

struct relay_ops {
    /* The peer's facts live as long as the relay. relay_stop may be called from here. */
    void (*secured)(void *arg, const struct tls_peer *peer);
    /* The first plain bytes of the first side came: it took our certificate, of which the handshake
     * of TLS 1.3 alone says nothing. Only for the books: nothing of the relay may be called. */
    void (*spoke)(void *arg);
    /* Once; `why` is one sentence, borrowed for the call. Nothing is read or written any more. */
    void (*ended)(void *arg, enum relay_end how, const char *why);
    void (*closed)(void *arg); /* the last call: all handles are gone, and the relay with them */
};

struct relay_options {
    struct tls_ctx *tls;
    const char *peer_name;  /* for SNI; NULL: none */
    size_t buffer;          /* bytes */
    uint64_t first_word_ms; /* from relay_new to `spoke`, with the handshake */
    uint64_t stall_ms;      /* a side that takes nothing of what waits for it for so long is lost */
    uint64_t half_ms;
    uint64_t dead_ms; /* core/net/dead.h */
};

/* Takes over an open, connected uv_tcp_t allocated with mem_alloc. NULL: out of memory; then the
 * handle still belongs to the caller. `opt` is copied; its tls is referenced. No call comes from
 * inside. */
struct relay *relay_new(struct loop *l, uv_tcp_t *tcp, const struct relay_options *opt,
                        const struct relay_ops *ops, void *arg);
/* After `secured`, once. False: it is over; then the handle still belongs to the caller. */
bool relay_join(struct relay *r, uv_tcp_t *tcp);
/* Ends both sides now; nothing when it is over. `ended` comes from inside. */
void relay_stop(struct relay *r, const char *why);
/* Writes what has been read, says the end to both sides and waits for theirs, at most `within_ms`;
 * what they still send is lost. Then `ended` comes, RELAY_STOPPED. While there is one side only, or
 * out of memory: as relay_stop. `why` is static. */
void relay_drain(struct relay *r, const char *why, uint64_t within_ms);

uint64_t relay_bytes(const struct relay *r,
                     enum relay_side from);                      /* plain bytes received from it */
size_t relay_waiting(const struct relay *r, enum relay_side to); /* plain bytes for it, unwritten */

#endif
