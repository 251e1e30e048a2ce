/* A stanza that comes in on a stream: on an incoming one, or on an outgoing one that is
 * bidirectional. Whoever reads it decides what a fault of the peer costs; what passes, and how, is
 * the same for both. */
#ifndef GATEWAY_PROTO_ARRIVAL_H
#define GATEWAY_PROTO_ARRIVAL_H

#include "core/stream/machine.h"
#include "gateway/proto/authz.h"

struct arrival {
    enum jid_verdict from, to;
};

/* Its domains, as A-labels, go to out->remote (from) and out->local (to). False: one of them is
 * missing or none. */
bool arrival_read(struct arrival *a, const struct stanza *st, struct gw_actions *out);
/* The pair of these domains is valid by this table. */
bool arrival_proven(const struct authz *t, const struct gw_actions *out);
/* DELIVER; or, as a local or resource part is malformed, BOUNCE or DROP. */
void arrival_pass(const struct arrival *a, const struct stanza *st, struct gw_actions *out);

#endif
