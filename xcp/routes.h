/* The router's routing table: which link a stanza goes to, and what must not pass.
 *
 * Story. Server links own local domains (exact names; several servers may own one: of those that
 * are up the one of the lowest priority takes the stanza, the first in the configuration among
 * equals). Every other domain is foreign and lies behind the gateways. A stanza for a foreign
 * domain goes to one of the live gateways of the lowest priority, chosen by rendezvous hashing of
 * the sender's bare address: one sender's stanzas stay in order on one gateway, and when a gateway
 * comes or goes only the senders that it takes over move.
 *
 * The table is also the inner firewall, because the servers do not check (a forged local `from`
 * would be delivered by all of them): a server may only send from domains of its own; a gateway
 * only from foreign domains to local ones; foreign to foreign is never relayed.
 *
 * Conditions (RFC 6120 8.3.3): a gateway's stanza for a domain that is nobody's gets
 * cancel/item-not-found ("the addressed JID cannot be found", 8.3.3.7): remote-server-not-found
 * would tell a stranger that we had looked for a third server, service-unavailable that the address
 * exists. A link that is down is wait/remote-server-timeout (8.3.3.17): it will come back.
 *
 * Pure: the driver says by routes_set_up which links are up. Borrows the configuration. */
#ifndef XCP_ROUTES_H
#define XCP_ROUTES_H

#include "config/router.h"
#include "core/xml/framer.h"

#define ROUTE_VERDICTS(X)                                                                          \
    X(TO, "to")         /* write it to `link` */                                                   \
    X(SELF, "self")     /* for a name of our own: bounce_answer */                                 \
    X(BOUNCE, "bounce") /* answer with type, condition, text */                                    \
    X(DROP, "drop")     /* nowhere to go, and an answer is forbidden */                            \
    X(REFUSE, "refuse") /* the firewall: to be logged, not to be answered */

enum route_verdict {
#define X(id, name) ROUTE_##id,
    ROUTE_VERDICTS(X)
#undef X
};

const char *route_verdict_name(enum route_verdict v);

struct route {
    enum route_verdict verdict;
    size_t link;                  /* TO */
    const char *type, *condition; /* BOUNCE */
    const char *text;             /* BOUNCE, REFUSE: static, for people */
};

struct routes;

/* Link i of the table is cfg->links[i]; all are down. `cfg` must outlive the table. NULL: out of
 * memory. */
struct routes *routes_new(const struct router_config *cfg);
void routes_free(struct routes *r);

void routes_set_up(struct routes *r, size_t link, bool up);
bool routes_is_up(const struct routes *r, size_t link);

/* `from` and `to` are the A-labels of the domains in st->from and st->to. */
struct route routes_decide(const struct routes *r, size_t source, const struct stanza *st,
                           struct str from, struct str to);

/* The link for a stanza that had passed once and came back from a link that broke: no firewall, and
 * any link will do. `sender` is the full or bare address in from. False: there is none now. */
bool routes_again(const struct routes *r, struct str sender, struct str from, struct str to,
                  size_t *link);

#endif
