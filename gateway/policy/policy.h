/* Who may talk to whom, and how: pure decisions over one configuration snapshot.
 *
 * All domains are A-labels. Each decision names the rule that made it, for the log line and for
 * people ("which rule decides?"). */
#ifndef GATEWAY_POLICY_POLICY_H
#define GATEWAY_POLICY_POLICY_H

#include "config/gateway.h"

enum policy_verdict {
    POLICY_ALLOW,
    POLICY_DENY, /* the privacy lists: not-allowed */
    POLICY_OFF,  /* federation is off: policy-violation */
};

struct policy_decision {
    enum policy_verdict verdict;
    const char *rule;   /* "privacy_mode off", "peer entry", "static route", ...; static */
    struct str pattern; /* the peer entry that decided; absent: none */
};

/* May local and remote exchange stanzas (either direction)? */
struct policy_decision policy_pair(const struct gateway_config *c, struct str local,
                                   struct str remote);

/* The security mode for a remote domain; absent remote: the global one. */
enum security_mode policy_security(const struct gateway_config *c, struct str remote);
const char *policy_security_name(enum security_mode m);

/* The static route for a remote domain, "host:port"; NULL: use SRV. */
const char *policy_route(const struct gateway_config *c, struct str remote);

#endif
