/* Which way a server-to-server stream looks: to the world, or, for a link with protocol "s2s", to
 * the inside. The machines are the same; what differs is who may be named by whom.
 *
 *              the world (link NULL)               the inside (link set)
 * `to`         a local domain                      any domain that is not local: the gateway stands
 *                                                  for every remote server
 * `from`       not a local domain                  a local domain of this link
 * pair         blocks, then policy_pair            always: policy is applied to the stanza, so that
 *                                                  users get a stanza error instead of silence
 * mode         policy_security of the remote       security_mode of the link; auth tls:
 *                                                  tls-required
 * trust        dialback                            dialback, or at once: the address is in
 *                                                  `trusted`, or (auth tls) by the certificate
 *
 * A local domain is of a link when the link lists it, lists a domain above it that owns its name
 * (`subdomains`), or lists none.
 *
 * In both cases `local` is the name that we answer for on the stream and `remote` that of the peer:
 * on the inside, `local` is foreign to the organisation and `remote` belongs to it. Pure; borrows
 * the configuration.
 *
 * Streams borrow their side. A reload changes cfg and link in it, in place, and then every stream
 * is told EV_POLICY_CHANGED. A side never turns round: the streams of a link that is no more have
 * ended before its `link` would become NULL. */
#ifndef GATEWAY_POLICY_SIDE_H
#define GATEWAY_POLICY_SIDE_H

#include "gateway/policy/blocks.h"
#include "gateway/policy/policy.h"

struct side {
    const struct gateway_config *cfg;
    const struct cfg_link *link; /* NULL: the world */
    const struct blocks *blocks; /* stand before the lists; NULL: none. Of the world only */
};

/* May a peer name it as `to`? */
bool side_serves(const struct side *s, struct str local);
/* May a peer name it as `from`? */
bool side_admits(const struct side *s, struct str remote);
struct policy_decision side_pair(const struct side *s, struct str local, struct str remote,
                                 enum policy_way way);
enum security_mode side_security(const struct side *s, struct str remote);

#endif
