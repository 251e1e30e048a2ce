/* Bidirectional streams (XEP-0288): what both machines know of them. */
#ifndef GATEWAY_PROTO_BIDI_H
#define GATEWAY_PROTO_BIDI_H

#include "gateway/policy/side.h"

/* They are for the world, and behind TLS only. `remote` NULL: not known. */
bool bidi_allowed(const struct side *side, bool encrypted, const char *remote);
/* A stream error with this condition says that the peer did not understand <bidi/>, which it had
 * offered. */
bool bidi_misunderstood(struct str condition);
/* A stream error right after a stanza was sent back is about that stanza, unless it says that the
 * peer has affairs of its own. */
bool bidi_objected(struct str condition);

/* How soon after the stanza that is. */
enum { BIDI_RIGHT_AFTER_MS = 5000 };

#endif
