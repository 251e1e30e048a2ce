/* Stanzas in and out of the routes of jabberd2's router protocol. Pure.
 *
 *     <route xmlns='http://jabberd.jabberstudio.org/ns/component/1.0' from='gw1' to='alpha.lab'>
 *       <message xmlns='jabber:client' ...>...</message></route>
 *
 * Every returned span is retained; chunk == NULL: out of memory, or the bytes are no stanza. */
#ifndef XCP_JABBERD2_ROUTE_H
#define XCP_JABBERD2_ROUTE_H

#include "core/base/chunk.h"

/* `stanza` is what writer_restamp or core/stream/bounce wrote for CONTENT_COMPONENT: without a
 * declaration of its own namespace. Ordinary content becomes jabber:client, also where the stanza
 * declares jabber:component:accept again inside; what was jabber:client before stays so. Prefixes
 * that are bound to jabber:component:accept stay, too: writer_restamp has them for attributes only,
 * and translating them could make two attributes of an element the same one. */
struct span jabberd2_wrap(struct str stanza, struct str from, struct str to);

/* The way back, for what a broken link had not sent: the stanza for CONTENT_COMPONENT again, but
 * for the declarations inside it that were translated. */
struct span jabberd2_unwrap(struct str route);

#endif
