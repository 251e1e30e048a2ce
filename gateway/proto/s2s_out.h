/* An outgoing server-to-server stream: the initiating role of XEP-0220 (2.1), the asking side of
 * its verification (2.2), STARTTLS as the initiating entity (RFC 6120 5.4).
 *
 * Story. The TCP connection to one target of a remote domain stands; we send our header, wait for
 * the peer's and, for version 1.0, for its features. The mode of that peer says whether TLS must,
 * may or must not come; after TLS everything starts again. READY means: db:result and db:verify may
 * be sent. The route layer asks for pairs (EV_WANT_PAIR) and verifications (EV_WANT_VERIFY) at any
 * time; they are kept until READY. Stanzas of a VALID pair are written by the driver, past this
 * machine. Nothing but answers may come in, unless bidi was asked for (XEP-0288): then stanzas of
 * the pairs that are VALID. That the peer is who it should be is as sure then as with dialback: we
 * have found it by DNS, or its certificate has proven it. A stream that only asked is closed after
 * the last answer.
 *
 * A target of _xmpps-server begins with the handshake (XEP-0368). A target whose certificate DNSSEC
 * knows of (TLSA records) must speak TLS and show that one, whatever else the rules allow.
 *
 * Towards the world, the rules for the peer (`auth`, pins, minimum_tls) are applied to its
 * certificate before anything is said to it. How we prove ourselves is the peer's choice: when it
 * offers SASL EXTERNAL, has something to get from us and we have a certificate, EXTERNAL with our
 * domain; when it refuses, dialback on the same stream, or, if it has none or hangs up, on a new
 * one (external_refused). Pairs of other local domains take dialback on the same stream.
 *
 * Towards the inside (side.h) it is the same with the roles of the names exchanged: we open the
 * stream as the remote server would, from its domain to a local one. Where certificates decide
 * (auth tls), the inside has to show one that the link knows before anything is asked or sent.
 *
 * A stream to the world may have guests: other remote domains that are hosted at the very address
 * and port of this one's target (XEP-0220 2.1, target piggybacking). Their pairs and verifications
 * are asked for with their names. A peer may refuse that; so only one that advertises dialback
 * errors is asked, and only for guests whose rules make do with dialback, as no certificate is
 * looked at for them. limits.pairs_per_stream is for each domain then.
 *
 * The machine owns its strings; side, trust and secrets are borrowed and must outlive it. */
#ifndef GATEWAY_PROTO_S2S_OUT_H
#define GATEWAY_PROTO_S2S_OUT_H

#include "core/base/list.h"
#include "core/stream/stream.h"
#include "gateway/policy/side.h"
#include "gateway/proto/authz.h"
#include "gateway/proto/dialback.h"
#include "gateway/proto/fate.h"
#include "gateway/proto/identity.h"
#include "xcp/trust.h"

#define S2S_OUT_STATES(X)                                                                          \
    X(HEADER)   /* ours was sent, waits for the peer's */                                          \
    X(FEATURES) /* waits for features, in clear */                                                 \
    X(STARTTLS) /* <starttls/> was sent */                                                         \
    X(HANDSHAKE)                                                                                   \
    X(TLS_HEADER) /* also after SASL */                                                            \
    X(TLS_FEATURES)                                                                                \
    X(AUTH) /* <auth/> was sent */                                                                 \
    X(READY)                                                                                       \
    X(CLOSING) /* our closing tag was sent */                                                      \
    X(RESTING)

enum s2s_out_state {
#define X(id) S2S_OUT_##id,
    S2S_OUT_STATES(X)
#undef X
};
enum { S2S_OUT_STATE_COUNT = S2S_OUT_RESTING + 1 };

extern const machine_edges s2s_out_edges[S2S_OUT_STATE_COUNT];
const char *s2s_out_state_name(enum s2s_out_state s);

enum { S2S_OUT_VERIFY_MAX = 256, S2S_OUT_GUESTS_MAX = 16 };

struct s2s_out {
    enum s2s_out_state state;
    const struct side *side;
    const struct link_trust *trust; /* set by the driver before the first event; NULL: none */
    bool judged;                    /* the certificate, by `trust`, */
    enum trust_reason verdict;      /* and what came of it */
    const struct dialback_secrets *secrets;
    char *local; /* our domain in the header */
    char *remote;
    char *id;           /* of the peer's present stream: what our keys are bound to */
    struct authz authz; /* WAITING: wanted; ASKED: db:result sent; VALID */
    struct list verify; /* db:verify wanted or sent */
    /* Set by the driver before the first event: TLS from the first byte; we have a certificate to
     * show; stanzas of `local` wait, so that EXTERNAL is worth it (false after a refusal). */
    bool direct_tls, has_certificate, wants_external;
    /* The same: stanzas wait, and the peer is not known to break the rules of XEP-0288. */
    bool wants_bidi;
    bool bidi;                         /* asked for: stanzas of valid pairs may come in */
    bool bidi_offered, errors_offered; /* by the peer, in its last features */
    const char *bidi_broken;           /* how the peer broke its rules, static; NULL: it did not */
    const struct dane_target *target; /* what DNSSEC knows of it; NULL: nothing; the driver's too */
    const struct tls_peer *tls; /* facts of the handshake; NULL: none. They live as long as this */
    bool proven, by_dane;       /* by them, `remote`; by TLSA records and not by authorities */
    char why[IDENTITY_WHY];     /* what they lack; "": nothing */
    bool encrypted, dialback_declared, can_dialback, external_offered;
    bool authenticated;                    /* as `local`, by EXTERNAL */
    bool external_refused;                 /* the peer did not take it: to be tried without */
    uint64_t peer_max_bytes, peer_idle_ms; /* XEP-0478; 0: not said */
    bool no_stanzas; /* a pair was answered `invalid`: nothing new on this stream */
    bool reset;      /* it ends because a mode was changed, there or here: try again at once */
    enum end_reason reason;
    uint64_t active_ms;
};

/* False: out of memory (call s2s_out_free all the same). */
bool s2s_out_init(struct s2s_out *m, const struct side *side,
                  const struct dialback_secrets *secrets, struct str local, struct str remote);
void s2s_out_free(struct s2s_out *m);

/* May stanzas of this pair be written now? */
bool s2s_out_valid(const struct s2s_out *m, struct str local, struct str remote);
/* May this other domain be a guest, if it is hosted where the stream leads? */
bool s2s_out_hosts(const struct s2s_out *m, struct str remote);
/* The peer takes an element of so many bytes (XEP-0478). */
static inline bool s2s_out_fits(const struct s2s_out *m, size_t bytes)
{
    return m->peer_max_bytes == 0 || bytes <= m->peer_max_bytes;
}
/* The driver wrote a stanza: the stream is not idle. */
static inline void s2s_out_touch(struct s2s_out *m, uint64_t now)
{
    m->active_ms = now;
}

void s2s_out_step(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out);
/* What EV_POLICY_CHANGED would do if its side were this one. */
struct stream_fate s2s_out_fate(const struct s2s_out *m, const struct side *side);

#endif
