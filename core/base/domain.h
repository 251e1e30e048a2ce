/* The one canonical form of a domain name, in its two spellings: the A-label form (ASCII, lower
 * case, no trailing dot) is what we compare, hash, look up, put in dialback keys and log; the wire
 * form (U-labels, lower case) is what a prepared XMPP address carries (RFC 7622 3.2). For ASCII
 * names they are equal. */
#ifndef CORE_BASE_DOMAIN_H
#define CORE_BASE_DOMAIN_H

#include "core/base/str.h"

enum { DOMAIN_MAX = 253, DOMAIN_WIRE_MAX = 1023 };

struct domain {
    char ascii[DOMAIN_MAX + 1];     /* A-label form */
    char wire[DOMAIN_WIRE_MAX + 1]; /* U-label form */
};

/* Canonical form of a domain name. False: not a domain name we accept. IP literals are refused. */
bool domain_prepare(struct str s, struct domain *out);
/* Only the A-label form (for configuration, DNS, certificates); the same checks. */
bool domain_ascii(struct str s, char out[DOMAIN_MAX + 1]);

#endif
