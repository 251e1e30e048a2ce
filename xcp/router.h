/* sallyport-router: joins the gateways in the DMZ with the servers that own the local domains.
 *
 * Story. Gateways dial in (and servers may, too), or are dialled when they listen in the DMZ; other
 * servers are dialled, as their component.
 * A link that is up feeds the routing table (xcp/routes.h), which decides for every stanza; plain
 * spans are forwarded as the very bytes that came. Each link buffers `limits.buffer` bytes at most:
 * above it the links that feed it are paused, and a peer that reads nothing for a minute is given
 * up. What a broken link had not sent goes to another one that will do, in order, or is bounced.
 *
 * A second connection with the secret of a link that is up takes it over, and the old one ends with
 * the stream error conflict: after a crash or a cut cable the old TCP connection may stand for
 * minutes, and refusing the newcomer would lock a healthy gateway out for so long.
 *
 * A splice joins a gateway and a server that both listen, for a protocol that the router does not
 * speak: it dials both and carries the bytes.
 *
 * One loop, one thread. Owned by the main file. */
#ifndef XCP_ROUTER_H
#define XCP_ROUTER_H

#include "config/router.h"
#include "core/net/loop.h"

struct alarms;
struct router;
struct story;

/* Takes a reference to `cfg`, and reads the certificates and lists that it names. `ended` is called
 * once when router_drain or router_stop has come to its end and no connection is left. NULL:
 * `errors` has a line for each problem; it may have warnings on success, too. */
struct router *router_new(struct loop *l, struct router_config *cfg, void (*ended)(void *arg),
                          void *arg, struct buf *errors);
/* Whether router_new could work with it. */
bool router_check(struct router_config *cfg, struct buf *errors);
/* Binds listen.links. False: *why is one line for people; nothing is bound then. */
bool router_bind(struct router *r, char *why, size_t cap);
void router_start(struct router *r); /* dials; from here on links come up */

/* Takes a reference to `cfg`. Links that came are started, links that went or changed are closed
 * (only their `domains` may change under a link that is up), and so are those whose certificate is
 * not trusted any more; the others stay. Splices likewise. listen.links are bound when the first
 * link to accept comes, and stay as they are from then on. False: as router_new; then nothing has
 * changed. */
bool router_apply(struct router *r, struct router_config *cfg, struct buf *errors);
struct router_config *router_current(const struct router *r);

void router_drain(struct router *r); /* ends by itself within timeouts.drain */
void router_stop(struct router *r);  /* ends now */
void router_dump(struct router *r);  /* one log line per link, splice and alarm */
/* The same as rows of fields: link.status, splice.status. */
void router_state_links(const struct router *r, const struct kv_sink *to);
void router_state_splices(const struct router *r, const struct kv_sink *to);
struct alarms *router_alarms(struct router *r);
struct story *router_story(struct router *r);
void router_free(struct router *r); /* only after `ended`, or before router_start */

#endif
