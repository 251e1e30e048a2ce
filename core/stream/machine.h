/* The contract of every protocol state machine.
 *
 *     void s2s_in_step(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out);
 *
 * `step` is a total function: every event in every state has a defined answer. It does not call
 * out, block, write a log, read a clock or free itself; time comes in the event, randomness from
 * the env given at creation. The driver executes the actions after step has returned, in order;
 * their results come back as new events. After ACT_CLOSE the machine rests and answers nothing.
 *
 * Lifetimes: an event's contents are borrowed for the call. An action's text lies in
 * gw_actions.text (by offset) and its log strings in the event, the machine or static memory; both
 * live until the actions have been executed, before the next step of the same machine. */
#ifndef CORE_STREAM_MACHINE_H
#define CORE_STREAM_MACHINE_H

#include "core/base/buf.h"
#include "core/base/log.h"
#include "core/tls/tls_peer.h"
#include "core/xml/framer.h"
#include "core/xml/jid.h"

/* Events. */
#define GW_EVENTS(X)                                                                               \
    X(OPENED)         /* the TCP connection stands */                                              \
    X(STREAM_OPEN)    /* header received: u.header */                                              \
    X(NONZA)          /* u.nonza */                                                                \
    X(STANZA)         /* u.stanza */                                                               \
    X(STREAM_CLOSE)   /* the peer's closing tag */                                                 \
    X(XML_ERROR)      /* the framer refuses the input: u.error */                                  \
    X(TLS_UP)         /* handshake done: u.tls */                                                  \
    X(TLS_FAILED)     /* u.text says why */                                                        \
    X(VERDICT)        /* answer to an earlier ACT_ASK: u.verdict */                                \
    X(WANT_PAIR)      /* out: authorise u.pair.local for u.pair.remote */                          \
    X(WANT_VERIFY)    /* out: send db:verify u.verify */                                           \
    X(TIMER)          /* u.timer */                                                                \
    X(POLICY_CHANGED) /* the configuration was reloaded */                                         \
    X(DRAIN)          /* close in good order: u.text is the reason */                              \
    X(LOST)           /* the connection is gone: u.text */

enum gw_ev {
#define X(id) EV_##id,
    GW_EVENTS(X)
#undef X
};

/* Timers of a session. Each waiting state owns at most one; the deadline of set-up as a whole and
 * keepalive stand beside them. */
#define GW_TIMERS(X)                                                                               \
    X(SETUP)     /* absolute, from connect to authorised */                                        \
    X(STATE)     /* of the present state */                                                        \
    X(KEEPALIVE) /* silence */                                                                     \
    X(ASKED)     /* dialback-only streams: nothing was asked any more */

enum gw_timer {
#define X(id) TIMER_##id,
    GW_TIMERS(X)
#undef X
        GW_TIMER_COUNT
};

/* The outcome of a dialback question (XEP-0220 2.1, 2.4). Only exactly `valid` proves anything. */
enum verdict {
    VERDICT_VALID,
    VERDICT_INVALID,
    VERDICT_NOT_FOUND, /* remote-server-not-found: DNS, no connection, or the authority's error */
    VERDICT_TIMEOUT,   /* remote-server-timeout: closed or silent */
    VERDICT_BUSY,      /* resource-constraint: our own limit */
};

/* A dialback request, in either direction. Domains are A-labels. `key` and `stream_id` are bounded
 * by the framer's element limit. */
struct db_request {
    struct str local, remote; /* the pair */
    struct str stream_id;     /* of the stream on which the key was sent */
    struct str key;
};

struct gw_event {
    enum gw_ev kind;
    uint64_t now_ms;
    union {
        const struct stream_header *header;
        const struct nonza *nonza;
        const struct stanza *stanza;
        struct framer_error error;
        const struct tls_peer *tls; /* lives as long as the connection */
        enum gw_timer timer;
        struct str text;
        struct {
            struct str local, remote; /* remote absent: that of the stream's header */
        } pair;
        struct db_request verify; /* WANT_VERIFY */
        struct {
            uint32_t ticket; /* of the ACT_ASK */
            enum verdict verdict;
            struct str text; /* for people: what failed */
        } verdict;
    } u;
};

/* What became of a pair on an outgoing stream. */
enum pair_result {
    PAIR_VALID,
    PAIR_INVALID,
    PAIR_ERROR, /* the peer answered with a dialback error: text is the condition */
    PAIR_ALONE, /* the peer has no dialback: the pair needs a stream of its own */
};

#define GW_ACTIONS(X)                                                                              \
    X(SEND)         /* u.text */                                                                   \
    X(STREAM_RESET) /* a new header comes: forget parser and header */                             \
    X(TLS_START)    /* begin the handshake; bytes read in clear after this point are an error */   \
    X(LIMITS)       /* the peer is authorised: switch to the larger limits */                      \
    X(TIMER_SET)    /* u.timer */                                                                  \
    X(TIMER_CLEAR)  /* u.timer.id */                                                               \
    X(DELIVER)      /* the stanza of this event passes; u.pair names the pair */                   \
    X(BOUNCE)       /* the stanza of this event is answered with u.bounce */                       \
    X(DROP)         /* the stanza of this event ends here; u.bounce.condition: why, or NULL */     \
    X(UNDELIVERED)  /* link: the stanza of this event is ours and came back; u.bounce is due */    \
    X(ASK)          /* verify a key with the authority: u.ask; comes back as EV_VERDICT */         \
    X(ANSWERED)     /* out: the authority answered our db:verify: u.answered */                    \
    X(VOUCHED)      /* in: we answered a db:verify for a domain of ours: u.vouched */              \
    X(READY)        /* out, link: the stream may carry stanzas or requests */                      \
    X(PAIR)         /* u.pair: what became of it */                                                \
    X(REFUSED)      /* in: policy does not let u.pair in */                                        \
    X(LOG)          /* u.log */                                                                    \
    X(CLOSE)        /* end: write what is queued, shut down, u.close says why */

enum gw_act {
#define X(id) ACT_##id,
    GW_ACTIONS(X)
#undef X
};

/* How a session ended: for the log line, the counters and the bounces. */
#define END_REASONS(X)                                                                             \
    X(NONE, "none")                                                                                \
    X(PEER_CLOSED, "peer-closed")      /* orderly, by the peer */                                  \
    X(IDLE, "idle")                    /* nothing to say for timeouts.idle */                      \
    X(DIALBACK_ONLY, "dialback-only")  /* served its questions */                                  \
    X(DRAINED, "drained")              /* we stop, or a reload asked for it */                     \
    X(STREAM_ERROR_SENT, "error-sent") /* we refused what the peer did */                          \
    X(STREAM_ERROR_RECEIVED, "error-received")                                                     \
    X(TLS_FAILED, "tls-failed")                                                                    \
    X(TLS_REFUSED, "tls-refused")         /* <failure/> in either direction */                     \
    X(TLS_NOT_OFFERED, "tls-not-offered") /* required here, not offered there */                   \
    X(TLS_UNWANTED, "tls-unwanted")       /* required there, no-tls here */                        \
    X(NO_DIALBACK, "no-dialback")         /* the peer offers no way to authenticate */             \
    X(SETUP_TIMEOUT, "setup-timeout")     /* not authorised in time */                             \
    X(LOST, "lost")                       /* TCP went away */                                      \
    X(UNAUTHORIZED, "not-authorized")     /* link: wrong secret or name */                         \
    X(UNTRUSTED, "untrusted")             /* link: we refused the peer's certificate */            \
    X(CONFLICT, "conflict")               /* link: somebody else has our name */                   \
    X(NO_MEMORY, "no-memory")

enum end_reason {
#define X(id, name) END_##id,
    END_REASONS(X)
#undef X
};

const char *end_reason_name(enum end_reason r);
const char *gw_event_name(enum gw_ev ev);
const char *gw_action_name(enum gw_act act);
const char *gw_timer_name(enum gw_timer t);
const char *verdict_name(enum verdict v);

enum { GW_ACTION_KV = 7, GW_ACTIONS_MAX = 20, GW_TEXT_MAX = 16384 };

struct gw_action {
    enum gw_act kind;
    union {
        struct {
            size_t off, len; /* in gw_actions.text */
        } text;
        struct {
            enum gw_timer id;
            uint64_t ms; /* from now */
        } timer;
        struct {
            struct str local, remote; /* A-labels; owned by the machine or the event */
            enum pair_result result;
            struct str text;
        } pair;
        struct {
            const char *type, *condition; /* RFC 6120 8.3.3; static */
            const char *text;             /* static */
        } bounce;
        struct {
            uint32_t ticket;
            uint64_t within_ms; /* the answer must be here by then */
            struct db_request request;
        } ask;
        struct {
            struct db_request request; /* key empty */
            enum verdict verdict;
            struct str text;
        } answered;
        struct {
            struct db_request request; /* key empty */
            bool good;
        } vouched;
        struct {
            enum log_level level;
            const char *event;
            struct kv kv[GW_ACTION_KV];
            unsigned n;
        } log;
        struct {
            enum end_reason reason;
            bool abort;      /* do not wait for what is queued */
            struct str text; /* for people, of what the reason does not say; may be absent */
        } close;
    } u;
};

struct gw_actions {
    struct gw_action v[GW_ACTIONS_MAX];
    unsigned n;
    bool overflow; /* too many actions or out of memory: the driver closes the session */
    struct buf text;
    struct domain local, remote; /* room for the names that this step's actions refer to */
};

void gw_actions_init(struct gw_actions *a);
void gw_actions_free(struct gw_actions *a);

/* Appends an action and returns it for filling in; a spare one when there is no room (and sets
 * overflow), so callers need no check. */
struct gw_action *gw_act(struct gw_actions *a, enum gw_act kind);

/* SEND: gw_send_begin, write into a->text, gw_send_end. */
size_t gw_send_begin(struct gw_actions *a);
void gw_send_end(struct gw_actions *a, size_t begin);
void gw_send(struct gw_actions *a, const char *text);
struct str gw_text(const struct gw_actions *a, const struct gw_action *act);

void gw_timer_set(struct gw_actions *a, enum gw_timer id, uint64_t ms);
void gw_timer_clear(struct gw_actions *a, enum gw_timer id);
void gw_close(struct gw_actions *a, enum end_reason reason, bool abort);
/* SEND of a stream error and the closing tag (RFC 6120 4.9), and the log line `event` with reason=
 * and msg=. The strings are static; `text` may be NULL. */
void gw_send_error(struct gw_actions *a, const char *condition, const char *text,
                   enum log_level level, const char *event);

#define gw_log(a, lvl, ev, ...)                                                                    \
    do {                                                                                           \
        const struct kv kv_[] = {__VA_ARGS__};                                                     \
        gw_log_kv((a), (lvl), (ev), kv_, sizeof kv_ / sizeof kv_[0]);                              \
    } while (0)
void gw_log_kv(struct gw_actions *a, enum log_level level, const char *event, const struct kv *kv,
               size_t n);

/* An edge table: bit t of edge[f] is set when state f may go to state t. */
typedef uint16_t machine_edges;
static inline bool machine_edge_ok(const machine_edges *edge, unsigned from, unsigned to)
{
    return (edge[from] >> to) & 1;
}

#endif
