/* Who may talk to whom, and how: pure decisions over one configuration snapshot.
 *
 * All domains are A-labels. Each decision names the rule that made it, for the log line and for
 * people ("which rule decides?"). */
#ifndef GATEWAY_POLICY_POLICY_H
#define GATEWAY_POLICY_POLICY_H

#include "config/gateway.h"
#include "core/base/key_hash.h"

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

/* How the peer may prove a remote domain: bits of enum policy_auth. */
unsigned policy_auth(const struct gateway_config *c, struct str remote);
/* The keys of which its certificate must have one, written to `out`; 0: any. */
size_t policy_peer_pins(const struct gateway_config *c, struct str remote,
                        struct key_hash out[CONFIG_PINS_MAX]);
/* The authorities for its certificate, as tls_engine_judge takes them; NULL: those for all. */
const char *policy_ca_file(const struct gateway_config *c, struct str remote);
/* The lowest TLS version, as OpenSSL counts. The handshake itself knows only tls.minimum, because
 * it may come before the name: this is to be compared with the facts after it. */
int policy_minimum_tls(const struct gateway_config *c, struct str remote);
/* A `protocol` of a struct tls_peer, "TLSv1.3", in the same count; 0: none of those. */
int policy_tls_version(const char *protocol);

/* Bidirectional streams (XEP-0288) with that peer. */
bool policy_bidi(const struct gateway_config *c, struct str remote);

/* The static route for a remote domain, "host:port"; NULL: use SRV. */
const char *policy_route(const struct gateway_config *c, struct str remote);
/* That route leads to a port that speaks TLS from the first byte (XEP-0368). */
bool policy_route_direct_tls(const struct gateway_config *c, struct str remote);

#endif
