/* The inside of a conn, shared by its reading (conn.c) and its writing half (conn_write.c). */
#ifndef CORE_NET_CONN_PRIV_H
#define CORE_NET_CONN_PRIV_H

#include "core/net/conn.h"
#include "core/net/dead.h"
#include "core/tls/tls_engine.h"

/* One piece of the write queue. */
struct conn_item {
    struct list_node node;
    struct span span;
    size_t off; /* clear: bytes that the kernel has accepted; TLS: bytes encrypted */
    /* TLS: the offsets on the wire at which the records end that hold the first and the last byte;
     * first_end 0: nothing encrypted yet. */
    uint64_t first_end, last_end;
    bool stanza;
    bool clear; /* queued before TLS began */
};

struct conn {
    struct loop *loop;
    uv_tcp_t *tcp;
    const struct conn_ops *ops;
    void *arg;
    struct framer *framer;
    struct tls_engine *tls;
    struct endpoint peer, local;
    struct tls_ctx *detect_ctx; /* not NULL: the first byte decides whether it is TLS */
    const char *detect_domain;
    bool tls_only; /* it has to be */
    const struct tlsa_set *tlsa;
    struct dead_watch dead;
    uint64_t dead_ms;

    /* Reading. */
    struct loop_task pump;
    struct timer relax;
    uint64_t turn; /* the loop's turn that the next two belong to */
    size_t turn_bytes, turn_events, max_turn_events;
    unsigned pauses;
    bool started, reading, tls_up;
    bool stale;         /* bytes in clear came after STARTTLS */
    bool stream_closed; /* the peer's closing tag was seen */
    bool ended;         /* no more input: `why` is due after what is buffered */
    bool fault;         /* `why` is due at once */
    bool deaf;          /* the last event was given */
    char why[TLS_WHY_MAX];

    /* Writing. */
    struct loop_task flush;
    uv_write_t write; /* of one byte: tells when the socket takes more */
    char write_byte;
    bool waiting; /* `write` is under way */
    bool cut;     /* bytes were taken back: the stream cannot go on */
    bool write_dead;
    bool tls_dead;      /* the engine failed: nothing can be encrypted any more */
    bool above;         /* the queue went above high_mark */
    struct list queue;  /* items not wholly encrypted (clear: not wholly accepted) */
    struct list flight; /* TLS: items wholly encrypted, not wholly accepted */
    size_t queued, high_mark, low_mark;
    uint64_t wire_taken, wire_accepted; /* TLS bytes: from the engine, by the kernel */
    size_t done_stanzas, done_bytes;    /* not yet told by ops->sent */
    struct timer stall;                 /* runs while `waiting` */
    uint64_t stall_ms;

    /* Ending. */
    struct loop_task release;
    struct timer linger;
    uv_shutdown_t shutdown;
    bool closing, eof, notified, shutting, shut, gone;

    uint64_t now, bytes_in, bytes_out, last_in, last_out;
};

/* conn_write.c */
void conn_flush_task(struct loop_task *t);
void conn_write_free(struct conn *c);
void conn_drop_unsendable(struct conn *c);  /* closing without TLS that stands: what needs it */
bool conn_write_idle(const struct conn *c); /* nothing is left to write */

/* conn.c */
/* Ends the connection: LOST with `why`, at once or after what is buffered. */
void conn_fail(struct conn *c, const char *why, bool at_once);
void conn_close_step(struct conn *c); /* closing: what comes next */
void conn_close_now(struct conn *c);
const char *conn_cause(int uv_error);

#endif
