/* The router protocol of jabberd2, as one of its components: the gateway takes the seat of its s2s.
 *
 * N is http://jabberd.jabberstudio.org/ns/component/1.0.
 *
 * Story. We dial the router and send a header without a default namespace. Its features offer
 * STARTTLS, if it has a certificate, and SASL DIGEST-MD5. TLS is taken when offered (and demanded
 * when the configuration says so); then we authenticate as a user of router-users.xml. After the
 * new header we bind `name` (own, without <default/>: the name that our routes come from, so that a
 * standby can inject too), then try to bind "s2s" as the default route: the answer without an error
 * makes us ACTIVE, 409 (taken) leaves us STANDBY until the router announces that s2s is gone.
 * The router announces the other names by presences: from these the driver learns which domains
 * live inside. A route holds one stanza in jabber:client; an undeliverable route comes back whole
 * with an error attribute.
 *
 * The machine reports by actions: READY (our own name is bound: stanzas may be written), and for
 * each route DELIVER (u.pair as in xcp/link.h), BOUNCE, DROP, or UNDELIVERED for one of ours that
 * came back. What the configuration points to is borrowed and must outlive the machine. */
#ifndef XCP_JABBERD2_H
#define XCP_JABBERD2_H

#include "core/base/env.h"
#include "core/stream/machine.h"

#endif
