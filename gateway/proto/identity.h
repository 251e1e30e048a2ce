/* Has the certificate of a peer proven a domain? (RFC 6120 13.7, RFC 9525, DESIGN of the per-peer
 * rules: config/gateway.h.) Pure; reads the configuration and the facts of the handshake, whose
 * chain has been judged by the authorities for that domain (policy_ca_file). */
#ifndef GATEWAY_PROTO_IDENTITY_H
#define GATEWAY_PROTO_IDENTITY_H

#include "config/gateway.h"
#include "core/tls/tls_peer.h"
#include "gateway/proto/dane.h"

enum { IDENTITY_WHY = 320 };

/* Chain, time, name and, if any are listed, the pinned key. False: `why` is one sentence for people
 * and says of what the certificate falls short; "" when true. t NULL: no TLS. */
bool identity_proven(const struct gateway_config *c, const struct tls_peer *t, struct str remote,
                     char why[IDENTITY_WHY]);

enum identity {
    IDENTITY_UNPROVEN,
    IDENTITY_DENIED, /* by DNSSEC: dialback, which rests on DNS itself, must not make up for it */
    IDENTITY_PROVEN,
    IDENTITY_PROVEN_DANE, /* by TLSA records instead of authorities */
};

/* The same for the target of an outgoing stream, of which DNSSEC may know more; `at` NULL: nothing,
 * as always when dns.trust_ad is off. Pinned keys are asked for in any case, and where the rules
 * for this peer name the only authorities for it, they must vouch for it as well. */
enum identity identity_of_target(const struct gateway_config *c, const struct tls_peer *t,
                                 struct str remote, const struct dane_target *at,
                                 char why[IDENTITY_WHY]);

/* The TLS version is at least what this peer's rules ask for. False: `why` as above. */
bool identity_tls_enough(const struct gateway_config *c, const struct tls_peer *t,
                         struct str remote, char why[IDENTITY_WHY]);

#endif
