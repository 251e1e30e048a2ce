/* One end of a component link (XEP-0114): what the dialling and the accepting machine have in
 * common. xcp/link_client.h and xcp/link_server.h tell the two stories; each is a role on top of
 * this.
 *
 * Here are the states, TLS, the deadline of set-up, stream errors in both directions, closing, and
 * keepalive by white space. A role adds who says what first, how secrets are proven, and what else
 * is probed. Who dialled TCP, and who is TLS client or server, is the driver's. */
#ifndef XCP_LINK_H
#define XCP_LINK_H

#include "core/base/env.h"
#include "core/stream/machine.h"
#include "xcp/trust.h"

/* EV_DRAIN with this text: somebody else has taken the name over, so the stream ends with the
 * stream error `conflict` instead of a mere closing tag. */
#define LINK_CONFLICT "conflict"
/* How EV_TLS_FAILED or EV_LOST begin when the peer ended TLS because of our certificate, and how
 * the stream error begins by which a link machine says so. */
#define LINK_CERT_REFUSED_TLS "the peer refused our certificate"
#define LINK_CERT_REFUSED     "your certificate was refused"
/* The text of the stream error for a component that came in clear although its link has TLS. */
#define LINK_TLS_NEEDED "this component has to use TLS"

#define LINK_STATES(X)                                                                             \
    X(CONNECTED) /* waits for EV_OPENED */                                                         \
    X(TLS)       /* its handshake is under way */                                                  \
    X(HEADER)    /* the peer's header is due */                                                    \
    X(HANDSHAKE) /* client: the digest was sent; server: it is due */                              \
    X(UP)                                                                                          \
    X(CLOSING) /* our closing tag was sent; what arrives is still delivered */                     \
    X(RESTING)

enum link_state {
#define X(id) LINK_##id,
    LINK_STATES(X)
#undef X
        LINK_STATE_COUNT
};

const char *link_state_name(enum link_state s);

enum { LINK_KEEPALIVE_MS = 30000 };

/* Signs of life that we asked for or gave; times are those of the events, 0: never. */
struct link_probe {
    uint64_t sent, answered;
    uint64_t last_sent_ms, last_answer_ms;
};
struct link_probes {
    struct link_probe space; /* white space: never answered */
    struct link_probe ping;  /* XEP-0199 */
    struct link_probe time;  /* XEP-0202 */
};

static inline void link_probe_sent(struct link_probe *p, uint64_t now_ms)
{
    p->sent++;
    p->last_sent_ms = now_ms;
}

struct link_end;

/* What a role does; `e` is embedded in its machine. Every call may end in RESTING. */
struct link_role {
    /* Writes our header; false: no randomness. */
    bool (*write_header)(struct link_end *e, struct buf *b);
    /* HEADER begins, in clear (`tls` is NULL) or behind TLS. */
    void (*begin)(struct link_end *e, const struct tls_peer *tls, struct gw_actions *out);
    void (*header)(struct link_end *e, const struct gw_event *ev, struct gw_actions *out);
    /* Not a stream error; also in CLOSING. */
    void (*nonza)(struct link_end *e, const struct gw_event *ev, struct gw_actions *out);
    /* Has been up. */
    void (*stanza)(struct link_end *e, const struct gw_event *ev, struct gw_actions *out);
    /* In UP; arms the timer again. */
    void (*keepalive)(struct link_end *e, uint64_t now_ms, struct gw_actions *out);
};

struct link_end {
    enum link_state state;
    const struct link_role *role;
    const machine_edges *edges;
    uint64_t auth_ms, close_ms, keepalive_ms;
    bool start_tls; /* EV_OPENED begins TLS */
    bool encrypted;
    bool header_sent; /* so errors have a stream to stand in */
    bool was_up;
    bool cert_refused;           /* the peer refused our certificate (END_UNAUTHORIZED) */
    bool tls_needed;             /* the peer refused us because we came in clear (the same) */
    struct str name;             /* of the component, once it is known, for the log */
    enum end_reason reason;      /* of CLOSING */
    uint64_t out_ms;             /* last output */
    char key[KEY_HASH_TEXT_MAX]; /* of the certificate judged, for the log */
};

void link_end_init(struct link_end *e, const struct link_role *role, const machine_edges *edges,
                   uint64_t keepalive_ms);
void link_end_step(struct link_end *e, const struct gw_event *ev, struct gw_actions *out);

/* ---- for the roles --------------------------------------------------------------------------- */

/* Does nothing and answers false when the table has no such edge. Timers: SETUP from EV_OPENED to
 * UP, KEEPALIVE in UP (set by link_up), STATE in CLOSING; cleared on the way out. */
bool link_set_state(struct link_end *e, enum link_state to, struct gw_actions *out);
void link_rest(struct link_end *e, struct gw_actions *out, enum end_reason reason, bool abort);
/* Ends with a stream error, inside a proper stream (RFC 6120 4.9.1.1): our header goes first when
 * it was not sent yet. During the TLS handshake and behind our closing tag nothing can be said:
 * then there is only the end. `condition` and `text` are static. */
void link_refuse(struct link_end *e, struct gw_actions *out, const char *condition,
                 const char *text, enum end_reason reason);
/* The same for a certificate: not-authorized, END_UNTRUSTED. */
void link_refuse_trust(struct link_end *e, struct gw_actions *out, enum trust_reason why);
/* False: no randomness, and the machine rests. */
bool link_send_header(struct link_end *e, struct gw_actions *out);
/* UP: ACT_LIMITS, ACT_READY; the role arms KEEPALIVE. */
void link_up(struct link_end *e, uint64_t now_ms, struct gw_actions *out);
/* When white space is due: keepalive_ms after the last output; and sending it, if it is. */
static inline uint64_t link_space_due(const struct link_end *e)
{
    return e->out_ms + e->keepalive_ms;
}
void link_space(struct link_end *e, struct link_probe *space, uint64_t now_ms,
                struct gw_actions *out);
void link_arm_keepalive(struct gw_actions *out, uint64_t due_ms, uint64_t now_ms);

/* TLS is wanted: `trust` is there and its auth is not password. */
bool link_wants_tls(const struct link_trust *trust);
/* Judges, and logs link.trust; when refused also link.trust.refused. */
enum trust_reason link_judge(struct link_end *e, const struct link_trust *trust,
                             const struct tls_peer *peer, struct gw_actions *out);

/* A stanza on a link that is up. ACT_DELIVER when both addresses are proper: u.pair.local is then
 * the A-label of the domain in `from`, u.pair.remote that of `to` (both in out->local and
 * out->remote). A faulty `to`, or an iq of no known type, is bounced; a faulty `from` ends in
 * ACT_DROP with "no-from" or "bad-from", and so ("no-to", "bad-to") does a faulty `to` where no
 * bounce is allowed: one bad stanza must not cost everybody the link. */
void link_stanza(const struct stanza *st, struct gw_actions *out);

#endif
