/* Stanzas that Sallyport itself says in answer to others: error bounces (RFC 6120 8.3) and the few
 * answers to what is addressed to one of our own names (XEP-0199, XEP-0030).
 *
 * They are built as trees by libstrophe and written by core/xml/writer, whose escaping is right by
 * construction. The original payload is never echoed: RFC 6120 8.3.1 leaves that open, and what a
 * stranger sent need not travel twice.
 *
 * Every returned span is retained: the caller releases it or hands it on. chunk == NULL means that
 * there is no answer: none is allowed, or memory is out. */
#ifndef CORE_STREAM_BOUNCE_H
#define CORE_STREAM_BOUNCE_H

#include "core/xml/framer.h"

/* True when an error may be sent back: never for an error or an iq result (RFC 6120 8.3.1, 8.2.3),
 * so two servers cannot answer each other for ever; not for unavailable presence (our choice: its
 * sender is gone); not without a sender. */
bool bounce_allowed(const struct stanza *st);

/* An iq whose type is missing or none of the four: whoever meets it, also on its way, has to answer
 * it by bad-request (RFC 6120 8.2.3). */
bool bounce_bad_type(const struct stanza *st);

/* The error stanza for `st`: addresses swapped, same id. `type` (auth, cancel, continue, modify,
 * wait) and `condition` are those of RFC 6120 8.3.2 and 8.3.3; `text` may be NULL. Does not ask
 * bounce_allowed. It inherits the content namespace of the stream that it is written to, so that
 * `target` leaves no trace in the bytes. */
struct span bounce_stanza(const struct stanza *st, enum content_ns target, const char *type,
                          const char *condition, const char *text);

/* The answer to a stanza for one of our own names: result for a ping and for disco#info, else
 * service-unavailable; bad-request for an iq that breaks the rules of RFC 6120 8.2.3 (type, id, one
 * child). Payloads of more than 8 KiB are not looked at. disco#info says
 * component/s2s, "a server component that communicates with other servers" (XMPP Registrar):
 * gateway/xmpp is registered for gateways that do not use native server-to-server streams, and
 * server/im would promise accounts. */
struct span bounce_answer(const struct stanza *st, enum content_ns target);

#endif
