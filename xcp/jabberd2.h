/* The router protocol of jabberd2, as one of its components: the gateway takes the seat of its s2s.
 *
 * N is http://jabberd.jabberstudio.org/ns/component/1.0.
 *
 * Story. We dial the router and send a header without a default namespace. Its features offer
 * STARTTLS, if it has a certificate, and SASL DIGEST-MD5. TLS is taken when offered, demanded or
 * left alone as the configuration says; where whoever brought us the connection (a splice) speaks
 * TLS itself (`direct_tls`), there is no other TLS inside that. Then we authenticate as a user of
 * router-users.xml. After the
 * new header we bind `name` (own, without <default/>: the name that our routes come from, so that a
 * standby can inject too), then try to bind "s2s" as the default route: the answer without an error
 * makes us ACTIVE, 409 (taken) leaves us STANDBY until the router announces that s2s is gone.
 * The router announces the other names by presences: from these the driver learns which domains
 * live inside. A route holds one stanza in jabber:client. One that the router refuses comes back
 * whole with an error attribute. One for a name that nobody has goes to whoever has the default
 * route: back to us when we are active, but to the other gateway when we are standby, whose
 * firewall drops it. So nothing is to be sent to a domain that is not jabberd2_announced.
 *
 * The machine reports by actions: READY (our own name is bound: stanzas may be written), and for
 * each route DELIVER (u.pair as in xcp/link.h), BOUNCE, DROP, or UNDELIVERED for one of ours that
 * came back. The stanza is the one of the event, as on every link: the framer (CONTENT_ROUTER)
 * takes it out of its route, and its span and strings are borrowed until the next call into the
 * framer. A stanza of ours goes out in a route: what writer_restamp made for CONTENT_COMPONENT,
 * through jabberd2_route; what conn_unsent gives back, through jabberd2_unwrap. What the router's
 * components ask our own names (sm asks "s2s" for its disco#info) is left unanswered, since an
 * answer would list us among the services of the inside; what its users ask is delivered like any
 * other stanza. Routes of type broadcast and log are ignored; a route that holds no stanza, or is
 * for nobody here, is dropped and logged.
 *
 * UNDELIVERED: the stanza of this event is one that we sent; u.bounce is the stanza error that its
 * sender, outside, is due (bounce_allowed was asked; if it may have none the action is DROP), and
 * out->local and out->remote hold the domains of its `to` and `from`. Nothing goes back inside.
 *
 * Probes. White space goes out after `keepalive_ms` without output. At UP, and then after `ping_ms`
 * without an element from the router, a ping goes to our own name: the router itself has to bring
 * it back. One that has done so before and is silent for `ping_answer_ms` is dead.
 *
 * Log: link.domain.up, link.domain.down (domain=; names without a dot are the router's components,
 * not domains); link.active, link.standby (reason=: the router's code); link.route.odd for a route
 * that is dropped; link.route.undelivered for one that came back.
 *
 * What the configuration points to is borrowed and must outlive the machine. */
#ifndef XCP_JABBERD2_H
#define XCP_JABBERD2_H

#include "xcp/digest_md5.h"
#include "xcp/jabberd2_route.h"
#include "xcp/link.h"

/* In the states of xcp/link.h: TLS follows on HANDSHAKE when it was offered, and HEADER comes again
 * behind TLS and once we are authenticated. What is due in HANDSHAKE: */
#define JABBERD2_STEPS(X)                                                                          \
    X(FEATURES)                                                                                    \
    X(PROCEED)   /* for TLS */                                                                     \
    X(CHALLENGE) /* <auth/> was sent */                                                            \
    X(PROOF)     /* our response was sent, the router's own proof is due */                        \
    X(BOUND)     /* our own name was asked for */

enum jabberd2_step {
#define X(id) JABBERD2_##id,
    JABBERD2_STEPS(X)
#undef X
        JABBERD2_STEP_COUNT
};

extern const machine_edges jabberd2_edges[LINK_STATE_COUNT];
const char *jabberd2_step_name(enum jabberd2_step s);

#define JABBERD2_DEFAULT "s2s" /* the name that the default route is bound under */

enum {
    JABBERD2_NAMES_MAX = 10000, /* announced names that are remembered */
    JABBERD2_PING_ID = 32,
    JABBERD2_PING_MS = 60000,
    JABBERD2_PING_ANSWER_MS = 20000,
};

struct jabberd2_config {
    struct str name;         /* our own route name: "gw1" */
    struct str user, secret; /* of router-users.xml */
    bool require_tls;        /* END_TLS_NOT_OFFERED without it */
    bool no_tls;             /* STARTTLS is not taken; not with a `trust` that needs TLS */
    bool direct_tls;         /* EV_OPENED begins TLS */
    const struct link_trust
        *trust;                 /* NULL or auth password: any certificate; else TLS is required */
    uint64_t auth_ms, close_ms; /* set-up as a whole; our closing tag to the router's */
    uint64_t keepalive_ms;      /* 0: LINK_KEEPALIVE_MS */
    uint64_t ping_ms, ping_answer_ms; /* 0: JABBERD2_PING_* */
};

struct jabberd2_name;

struct jabberd2 {
    struct link_end end; /* state, and what all links have */
    enum jabberd2_step step;
    struct jabberd2_config cfg;
    const struct env *env;
    bool active;               /* has the default route */
    enum trust_reason verdict; /* on the router's certificate, */
    bool judged;               /* once there was one to judge */
    struct link_probes probes;

    bool authenticated;
    struct digest_md5 sasl;
    bool proven;                 /* the router knows the secret */
    struct jabberd2_name *names; /* announced; table by A-label */
    size_t nnames;
    bool names_full;    /* was told */
    bool asked_default; /* the answer is due */
    uint64_t in_ms;     /* last element received */
    bool pinging, answers;
    bool paused; /* the driver does not read: silence means nothing */
    char ping_id[JABBERD2_PING_ID];
};

void jabberd2_init(struct jabberd2 *m, const struct jabberd2_config *cfg, const struct env *env);
void jabberd2_free(struct jabberd2 *m); /* what it holds; not the struct */
void jabberd2_step(struct jabberd2 *m, const struct gw_event *ev, struct gw_actions *out);

/* The driver wrote a stanza: no white space is needed for a while. */
static inline void jabberd2_sent(struct jabberd2 *m, uint64_t now_ms)
{
    m->end.out_ms = now_ms;
}
/* The driver stops reading (back-pressure) or goes on: meanwhile no ping is sent or missed. */
void jabberd2_pause(struct jabberd2 *m, bool paused, uint64_t now_ms);

/* The domain (A-label) is connected to the router now. */
bool jabberd2_announced(const struct jabberd2 *m, struct str domain);
/* A stanza for this local domain (A-label) in its route, to be written as it is: from our own name,
 * to the domain as the router spells it. `stanza`: as for jabberd2_wrap. */
struct span jabberd2_route(const struct jabberd2 *m, struct str stanza, struct str domain);

#endif
