/* The one serialiser: everything that Sallyport writes into a stream and did not receive as plain
 * bytes goes through here, so that escaping is right by construction.
 *
 * Text and attribute values escape & < > " ' and, in attributes, TAB, LF and CR as character
 * references (CR in text too), so that parse(write(x)) == x. What no XML document can hold (control
 * characters, U+FFFE and U+FFFF, bytes that are no UTF-8) is written as U+FFFD: it cannot come out
 * of a parser, only out of a mistake of ours. */
#ifndef CORE_XML_WRITER_H
#define CORE_XML_WRITER_H

#include "core/base/buf.h"
#include "core/xml/framer.h"

void writer_text(struct buf *b, struct str text);
/* An attribute value without its quotes (which are single ones). */
void writer_value(struct buf *b, struct str value);
/* Writes ` name='value'`; nothing when the value is absent. */
void writer_attr(struct buf *b, const char *name, struct str value);

/* Stream-level facts of where a stanza goes. */
struct writer_target {
    enum content_ns content;
    struct str from, to; /* canonical addresses to write; absent: as they are in the stanza */
};

/* Writes the stanza for another stream: its own bytes when it is plain and the addresses already
 * are the wanted ones; small deviations (address spelling, xml:lang) are spliced; anything else is
 * re-serialised from a fresh parse in which the content namespace becomes the target's for the
 * whole subtree. Returns a span: the stanza's own (retained) when unchanged, else of a new chunk;
 * chunk NULL when it cannot be done (out of memory, or the bytes are no stanza).
 *
 * Namespaces. Source and target content namespace change places: what was ordinary content stays
 * ordinary content, and what named the target's content namespace although it was foreign where it
 * came from (a <body xmlns='jabber:component:accept'/> inside a jabber:server stanza) becomes as
 * foreign where it goes. A stanza that is in jabber:client itself (component streams) has that
 * namespace translated too, from the stanza down as far as elements are in it without interruption;
 * a forwarded jabber:client stanza deeper inside is payload and keeps it. */
struct span writer_restamp(const struct stanza *st, const struct writer_target *target);

#endif
