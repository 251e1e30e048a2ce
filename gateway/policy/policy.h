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

/* Who writes to whom. A stream that only asks (dialback) serves either way. */
enum policy_way {
    WAY_EITHER, /* is there any way at all? Then the rule is that of a way that is open */
    WAY_IN,     /* the remote domain to the local one */
    WAY_OUT,
};

/* Where the rule stands. */
enum policy_source {
    POLICY_BY_MODE, /* federation, privacy_mode */
    POLICY_BY_PEER, /* the entry of `pattern` in peers */
    POLICY_BY_ALLOW_FILE,
    POLICY_BY_DENY_FILE,
    POLICY_BY_BLOCK, /* by hand (blocks.h) */
};

struct policy_decision {
    enum policy_verdict verdict;
    const char *rule;   /* "privacy_mode is off", "peer entry allows", ...; static */
    struct str pattern; /* the entry that decided; absent: none */
    enum policy_source by;
    bool shadow; /* allowed, but an allow list would not: to be told and counted */
};

/* May stanzas go this way between local and remote? Absent local: for any of ours. In one look at a
 * name, an entry of peers decides before deny_file before allow_file; the nearest name before all
 * wider ones. An entry that is not about this local domain or this way is passed over. */
struct policy_decision policy_pair(const struct gateway_config *c, struct str local,
                                   struct str remote, enum policy_way way);
/* The lists alone, whatever the privacy mode: is the pair allowed by an entry? An entry that denies
 * it is told in *denied. */
bool policy_listed(const struct gateway_config *c, struct str local, struct str remote,
                   enum policy_way way, bool *denied);
const char *policy_verdict_name(enum policy_verdict v);

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

/* The entry with the static route for a remote domain; NULL: use SRV. */
const struct cfg_peer *policy_route(const struct gateway_config *c, struct str remote);
/* That route leads to a port that speaks TLS from the first byte (XEP-0368). */
bool policy_route_direct_tls(const struct gateway_config *c, struct str remote);

#endif
