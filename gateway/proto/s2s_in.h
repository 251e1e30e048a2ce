/* An incoming server-to-server stream: the receiving role of XEP-0220 (2.1) and the authoritative
 * one (2.2), STARTTLS as the receiving entity (RFC 6120 5.4), and the door for stanzas.
 *
 * Story. A peer connects and sends its header; we check the addresses and policy, answer with ours
 * and, for version 1.0, with features. In clear the peer may start TLS, if the mode of that peer
 * allows it; then everything learnt before counts for nothing and a new header comes. It may prove
 * domain pairs by db:result (we ask the authority through ACT_ASK and answer when EV_VERDICT
 * comes), and ask us, as the authority of our domains, to verify keys by db:verify. A stanza passes
 * only when its pair is VALID on this very stream. The stream ends by the peer's closing tag, by an
 * error of its making, when it is idle, or after 3 s when it only asked us something.
 *
 * TLS may also be there from the first byte (XEP-0368): EV_TLS_UP comes before any header.
 *
 * From the world, a certificate that proves the domain of the header may stand in for dialback:
 * then SASL EXTERNAL is offered (RFC 6120 6, XEP-0178), and after its success a new header comes.
 * Which ways count is the `auth` of that peer; when only EXTERNAL does, a certificate that proves
 * nothing ends the stream at the header. The facts of the handshake, judged anew whenever the
 * authorities for the domain become known or change, are read at each header and each reload.
 *
 * Behind TLS and before it proves itself, the peer may ask for bidi (XEP-0288) when it is offered;
 * then the driver writes stanzas of the pairs that are VALID back on this stream, past the machine.
 *
 * Towards the inside (side.h) a peer may be trusted without dialback: by its address, or by its
 * certificate. Then db:result is answered `valid` at once. Where the certificate decides, one that
 * is refused ends the stream, and a peer without TLS gets nowhere.
 *
 * The machine owns its strings and table; side, trust, secrets and env are borrowed and must
 * outlive it. What a link trusts does not change under a stream: when `trusted`, auth, store or
 * authlist are changed, the driver ends the streams of that link. */
#ifndef GATEWAY_PROTO_S2S_IN_H
#define GATEWAY_PROTO_S2S_IN_H

#include "core/base/env.h"
#include "core/stream/stream.h"
#include "gateway/policy/side.h"
#include "gateway/proto/authz.h"
#include "gateway/proto/dialback.h"
#include "gateway/proto/fate.h"
#include "gateway/proto/external.h"
#include "gateway/proto/identity.h"
#include "xcp/trust.h"

#define S2S_IN_STATES(X)                                                                           \
    X(ACCEPTED)   /* waits for the header */                                                       \
    X(CLEAR)      /* negotiating or, when the mode allows it, working, in clear */                 \
    X(HANDSHAKE)  /* <proceed/> was sent */                                                        \
    X(TLS_HEADER) /* encrypted, waits for the new header; again after SASL */                      \
    X(SECURE)     /* negotiating or working, encrypted */                                          \
    X(CLOSING)    /* our closing tag was sent; what arrives is still delivered */                  \
    X(RESTING)

enum s2s_in_state {
#define X(id) S2S_IN_##id,
    S2S_IN_STATES(X)
#undef X
};
enum { S2S_IN_STATE_COUNT = S2S_IN_RESTING + 1 };

extern const machine_edges s2s_in_edges[S2S_IN_STATE_COUNT];
const char *s2s_in_state_name(enum s2s_in_state s);

struct s2s_in {
    enum s2s_in_state state;
    const struct side *side;
    const struct dialback_secrets *secrets;
    const struct env *env;
    /* Set by the driver, if at all, between s2s_in_init and the first event. */
    bool trusted_address;           /* believed without dialback and certificate */
    const struct link_trust *trust; /* certificates decide; NULL: they do not */
    struct authz authz;
    char id[STREAM_ID_HEX + 1]; /* of the present stream */
    char *from, *to;            /* of the peer's header, as written; NULL: absent */
    char *remote, *local;       /* the same as A-labels */
    bool header_sent, encrypted;
    bool tls_offered;           /* on this stream */
    bool direct_tls;            /* encrypted from the first byte */
    const struct tls_peer *tls; /* facts of the handshake; NULL: none. They live as long as this */
    bool proven;                /* by them, `remote` */
    char why[IDENTITY_WHY];     /* what they lack; "": nothing */
    struct external external;
    bool judged;               /* the certificate, by `trust`, */
    enum trust_reason verdict; /* and what came of it */
    bool answered_verify;      /* the peer asked us something */
    /* XEP-0288. Set by the driver before a header: no, whatever the settings say. */
    bool no_bidi;
    bool bidi_offered, bidi; /* in the present features; agreed on */
    uint64_t sent_ms;        /* when a stanza went back on it; 0: never */
    const char *bidi_broken; /* how the peer broke its rules, static; NULL: it did not */
    enum end_reason reason;
    uint64_t opened_ms, active_ms;
    uint32_t next_ticket;
};

void s2s_in_init(struct s2s_in *m, const struct side *side, const struct dialback_secrets *secrets,
                 const struct env *env);
void s2s_in_free(struct s2s_in *m);
void s2s_in_step(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out);
/* What EV_POLICY_CHANGED would do if its side were this one. */
struct stream_fate s2s_in_fate(const struct s2s_in *m, const struct side *side);

/* May stanzas of this pair be written back on it now? */
bool s2s_in_carries(const struct s2s_in *m, struct str local, struct str remote);
/* The driver wrote one. */
static inline void s2s_in_touch(struct s2s_in *m, uint64_t now)
{
    m->active_ms = m->sent_ms = now;
}

#endif
