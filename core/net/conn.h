/* One TCP connection that carries an XML stream: socket, TLS engine, framer, write queue. It moves
 * bytes and decides nothing; the machine of its holder decides.
 *
 * Reading: bytes go through the TLS engine into the framer; each framer event becomes one call of
 * ops->event (kinds STREAM_OPEN, NONZA, STANZA, STREAM_CLOSE, XML_ERROR, TLS_UP, TLS_FAILED, LOST).
 * The holder runs its machine's step and carries out the actions through the calls below, before
 * the next byte is parsed. At most 64 KiB or 64 stanzas are processed per loop turn, then the other
 * connections have their turn.
 *
 * Writing: pieces are queued and gathered into one write per loop turn. A stanza queued with
 * conn_send_stanza is *sent* when the kernel has accepted its last byte; conn_unsent gives back,
 * in order, those of which no byte has left. Under TLS a byte has left when the kernel has accepted
 * the whole record that carries it: of an incomplete record the peer can read nothing.
 *
 * Ending: conn_close is the only way. It stops reading, writes what is queued unless aborted
 * (bounded by `linger_ms`), says close-notify, closes the socket, and calls ops->closed
 * once, later, when the last handle is gone; the conn is freed after that call. Between conn_close
 * and ops->closed no event comes, and every other call is a no-op but a second conn_close with
 * `abort`, which ends it at once. */
#ifndef CORE_NET_CONN_H
#define CORE_NET_CONN_H

#include "core/base/cidr.h"
#include "core/net/loop.h"
#include "core/stream/machine.h"
#include "core/tls/tls_ctx.h"
#include "core/xml/framer.h"

struct conn;

struct conn_ops {
    void (*event)(struct conn *c, void *arg, const struct gw_event *ev);
    /* The write queue fell below the low mark after having been above the high mark. NULL: not
     * wanted. */
    void (*drained)(struct conn *c, void *arg);
    /* A stanza given to conn_send_stanza was accepted by the kernel whole. NULL: not wanted. */
    void (*sent)(struct conn *c, void *arg, size_t stanzas, size_t bytes);
    void (*closed)(struct conn *c, void *arg);
};

struct conn_options {
    enum content_ns content;
    const struct framer_limits *limits; /* NULL: unauthenticated */
    size_t high_mark, low_mark;         /* bytes in the write queue; 0: 1 MiB and 256 KiB */
    size_t turn_events; /* elements per loop turn before others have theirs; 0: 64 */
    uint64_t stall_ms;  /* LOST when the socket takes no byte for so long; 0: no limit */
    /* LOST when the peer's machine is gone for so long (core/net/dead.h); 0: only the system's
     * keepalive. */
    uint64_t dead_ms;
    /* Accepting side, for a listener of both kinds: a first byte of 0x16 begins direct TLS, with us
     * as the server; TLS_UP or TLS_FAILED then comes before anything else. Any other byte: in
     * clear. Nothing must be sent before the first event, as it would go out in clear. `tls_ctx`
     * (the holder's reference) and `tls_domain` (as in tls_engine_new) live as long as the conn.
     * tls_only: any other byte is TLS_FAILED, for a listener of direct TLS alone. */
    bool detect_tls, tls_only;
    struct tls_ctx *tls_ctx;
    const char *tls_domain;
    const struct tlsa_set *tlsa; /* dialling side: as in tls_engine_dane; NULL: none; as long */
};

/* Takes over an open, connected uv_tcp_t allocated with mem_alloc (from listen or connect). NULL
 * when out of memory: the handle then still belongs to the caller. Reading begins with
 * conn_start. */
struct conn *conn_new(struct loop *l, uv_tcp_t *tcp, const struct conn_options *opt,
                      const struct conn_ops *ops, void *arg);
void conn_start(struct conn *c);

/* Copies. Out of memory ends the connection (LOST). */
void conn_send(struct conn *c, struct str text);
/* Takes the reference over and returns true. False (closing, or out of memory, which also ends the
 * connection): the stanza stays the caller's. */
bool conn_send_stanza(struct conn *c, struct span stanza);

/* After STARTTLS, as server or client; `domain` and `peer_name` as in tls_engine_new. Bytes read in
 * clear and not yet parsed end the connection as XML_ERROR. Comes back as TLS_UP or TLS_FAILED. */
void conn_start_tls(struct conn *c, struct tls_ctx *ctx, bool server, const char *domain,
                    const char *peer_name);
void conn_reset_stream(struct conn *c); /* a new header comes */
void conn_set_limits(struct conn *c, const struct framer_limits *limits);

void conn_pause(struct conn *c); /* stop reading (back-pressure); counted */
void conn_resume(struct conn *c);

/* Stop reading for ever, write out, close. A second call with `abort` cuts the first one short. */
void conn_close(struct conn *c, bool abort, uint64_t linger_ms);

/* Stanzas no byte of which has been handed to the kernel, oldest first; each call takes one out of
 * the queue and hands its reference over. False: none left. `partial` (may be NULL) is set when a
 * stanza was cut in the middle: it is returned as well, once, with *partial = true. Call it after
 * LOST or right before conn_close: when bytes are taken back that were on their way, nothing more
 * is written and conn_close ends at once. */
bool conn_unsent(struct conn *c, struct span *out, bool *partial);

size_t conn_queued(const struct conn *c); /* bytes waiting to be written */
bool conn_above_high(const struct conn *c);
bool conn_encrypted(const struct conn *c);
const struct tls_peer *conn_tls_peer(const struct conn *c); /* NULL in clear */
/* tls_engine_judge, from conn_start_tls on: changes what conn_tls_peer and EV_TLS_UP's facts say.
 * In clear: nothing. */
void conn_judge(struct conn *c, const char *ca_file);
/* tls_engine_trust, for the next conn_judge. In clear: what a first byte of TLS is met with; then
 * it must live as `tls_ctx` of the options. */
void conn_trust(struct conn *c, struct tls_ctx *ctx);
/* tls_engine_direct, right after conn_start_tls. In clear: nothing. */
void conn_direct_tls(struct conn *c);
/* tls_engine_forget. In clear: nothing. */
void conn_forget_session(struct conn *c);
const struct endpoint *conn_peer(const struct conn *c);
const struct endpoint *conn_local(const struct conn *c);
size_t conn_memory(const struct conn *c);
uint64_t conn_bytes_in(const struct conn *c);
uint64_t conn_bytes_out(const struct conn *c);

#endif
