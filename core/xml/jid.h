/* Addresses (RFC 7622): splitting, checking, and the one canonical form of a domain.
 *
 * Local and resource parts are checked and never rewritten: a gateway that re-normalised them would
 * make two spellings of one address. Domains have two forms: the A-label form (ASCII, lower case,
 * no trailing dot) is what we compare, hash, look up, put in dialback keys and log; the wire form
 * (U-labels, lower case) is what a prepared address carries. For ASCII names they are equal. */
#ifndef CORE_XML_JID_H
#define CORE_XML_JID_H

#include "core/base/str.h"

enum { JID_PART_MAX = 1023, DOMAIN_MAX = 253 };

/* Parts of an address as written; absent local or resource: p == NULL. */
struct jid {
    struct str local, domain, resource;
};

enum jid_verdict {
    JID_OK,
    JID_BAD_DOMAIN, /* stream error improper-addressing */
    JID_BAD_PART,   /* local or resource part: stanza error jid-malformed */
};

struct domain {
    char ascii[DOMAIN_MAX + 1];  /* A-label form */
    char wire[JID_PART_MAX + 1]; /* U-label form */
};

/* Splits at the first '/', then at the first '@' before it (RFC 7622 3.1); no checks. */
struct jid jid_split(struct str s);

/* Splits, checks every part, and prepares the domain. `out` is valid on JID_OK and JID_BAD_PART. */
enum jid_verdict jid_prepare(struct str s, struct jid *out, struct domain *domain);

/* Canonical form of a domain name. False: not a domain name we accept. IP literals are refused. */
bool domain_prepare(struct str s, struct domain *out);
/* Only the A-label form (for configuration and DNS); the same checks. */
bool domain_ascii(struct str s, char out[DOMAIN_MAX + 1]);

#endif
