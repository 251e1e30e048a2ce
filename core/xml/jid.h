/* Addresses (RFC 7622): splitting and checking.
 *
 * Local and resource parts are checked and never rewritten: a gateway that re-normalised them would
 * make two spellings of one address. Domains have one canonical form (core/base/domain.h). */
#ifndef CORE_XML_JID_H
#define CORE_XML_JID_H

#include "core/base/domain.h"

enum { JID_PART_MAX = 1023 };

/* Parts of an address as written; absent local or resource: p == NULL. */
struct jid {
    struct str local, domain, resource;
};

enum jid_verdict {
    JID_OK,
    JID_BAD_DOMAIN, /* stream error improper-addressing */
    JID_BAD_PART,   /* local or resource part: stanza error jid-malformed */
};

/* Splits at the first '/', then at the first '@' before it (RFC 7622 3.1); no checks. */
struct jid jid_split(struct str s);

/* Splits, checks every part, and prepares the domain. `out` is valid on JID_OK and JID_BAD_PART. */
enum jid_verdict jid_prepare(struct str s, struct jid *out, struct domain *domain);

#endif
