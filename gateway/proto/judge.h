/* The verdict of a link on a certificate of the inside, as both S2S machines take and log it. */
#ifndef GATEWAY_PROTO_JUDGE_H
#define GATEWAY_PROTO_JUDGE_H

#include "core/stream/machine.h"
#include "xcp/trust.h"

/* Logs link.trust and, when it is refused, link.trust.refused. Uses out->local for the key's hash.
 */
enum trust_reason judge_certificate(const struct link_trust *trust, const struct tls_peer *peer,
                                    struct gw_actions *out);

#endif
