/* A session: one connection and the machine that decides for it.
 *
 * The session feeds events to the machine's step, then carries out the actions in order: what
 * concerns the connection (text, TLS, timers, limits, log, close) itself, the rest through
 * ops->act. An event that arrives while actions are being carried out waits until they are done,
 * so a machine is never entered twice.
 *
 * The holder embeds the session as the first member of its own struct, which lives until
 * ops->closed. One thread. */
#ifndef CORE_NET_SESSION_H
#define CORE_NET_SESSION_H

#include "core/net/conn.h"
#include "core/stream/machine.h"

struct session;

struct session_ops {
    void (*step)(void *machine, const struct gw_event *ev, struct gw_actions *out);
    /* DELIVER, BOUNCE, DROP, UNDELIVERED, ASK, ANSWERED, READY, PAIR. `ev` is the event that caused
     * it. */
    void (*act)(struct session *s, const struct gw_event *ev, const struct gw_action *act);
    /* The session is over: called once, before the connection is closed, so that unsent stanzas can
     * be taken out of it. `text` is for people. */
    void (*ended)(struct session *s, enum end_reason reason, struct str text);
    void (*drained)(struct session *s);                            /* may be NULL */
    void (*sent)(struct session *s, size_t stanzas, size_t bytes); /* may be NULL */
    void (*closed)(struct session *s);                             /* the last call */
};

struct session_timer {
    struct timer timer;
    struct session *session;
    enum gw_timer id;
};

struct session_tls {
    struct tls_ctx *ctx; /* referenced by the holder */
    bool server;
    const char *domain, *peer_name; /* as in tls_engine_new; owned by the holder */
    bool direct;                    /* as client: TLS begins with the first byte */
    const char *ca_file;            /* as in tls_engine_judge, if known before TLS; the same */
};

struct session {
    struct loop *loop;
    struct conn *conn;
    const struct session_ops *ops;
    void *machine;
    struct session_tls tls;
    uint64_t linger_ms; /* for closing */
    struct log_ctx log;
    const struct framer_limits *limits;       /* once authorised (ACT_LIMITS) */
    const struct framer_limits *first_limits; /* before that, and again after TLS_START */
    struct session_timer timers[GW_TIMER_COUNT];
    struct list waiting; /* events that came while busy */
    bool busy, over;
    enum end_reason reason;
    char text[200]; /* why it ended, for people */
};

/* Wires a zeroed session to a fresh connection and sends EV_OPENED. `log`, `tls`, `limits`,
 * `linger_ms`, `machine` and `ops` are set by the holder before. With opt->detect_tls, direct TLS
 * uses `tls` (opt->tls_ctx and tls_domain are not looked at): when the peer begins with it,
 * EV_TLS_UP or EV_TLS_FAILED comes before any header, and the machine sends nothing before the
 * first of these events. False when out of memory: then the tcp handle has been closed and no
 * callback comes. */
bool session_start(struct session *s, struct loop *l, uv_tcp_t *tcp,
                   const struct conn_options *opt);

/* Gives the machine an event now, or after the actions now being carried out. Strings are copied
 * when it has to wait; only events without pointers to parsed XML may be given from outside. */
void session_event(struct session *s, const struct gw_event *ev);
/* The settings were loaded anew: conn_trust, and if TLS begins later, it begins by them. */
void session_trust(struct session *s, struct tls_ctx *ctx);
void session_drain(struct session *s, const char *why);
/* Ends it at once, also one that is closing and waits for its peer. */
void session_abort(struct session *s, const char *why);

/* Closes and frees a handle that no session took over. */
void session_discard(uv_tcp_t *tcp);

#endif
