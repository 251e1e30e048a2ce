/* The framer: bytes of an XML stream in, whole depth-1 elements out. The only user of expat.
 *
 * Story. A stream is one long XML document. The framer finds where each element at depth 1 begins
 * and ends and hands it out either as a *nonza* (parsed, bounded) or as a *stanza*: the span of
 * its very bytes plus the few facts that routing needs. It pulls: the driver appends bytes
 * (framer_room / framer_filled), then calls framer_next until it says FRAMER_NEED_MORE. Parsing
 * stops after every event, so that its consequences (STARTTLS!) happen before the next byte is
 * looked at.
 *
 * Expat keeps every name it has ever seen, so a parser is short-lived: fed at most 4 KiB per call,
 * allocating through a counted memory suite with a hard cap, thrown away at a depth-1 boundary
 * after 64 KiB of input and when idle (framer_relax); a new one is primed with a canonical header
 * that declares the namespaces of the peer's own. Re-parse deferral is switched off on each.
 *
 * What we decided where the RFC leaves a choice. White space before the header is skipped like a
 * keepalive, even before the XML declaration. A byte-order mark of UTF-16 is unsupported-encoding;
 * the one of UTF-8 is the character U+FEFF (11.6), which is not well-formed before the header. Of
 * the two styles of header (4.8.5) only "content namespace as default" is taken: an unprefixed
 * <stream/> is bad-namespace-prefix, any other default namespace than ours (or none) is
 * invalid-namespace; the prefix itself is free. Anything but white space directly inside the stream
 * is bad-format. After the closing tag nothing is read any more: what follows is dropped.
 *
 * On a router stream (CONTENT_ROUTER) the header has no default namespace, and each route at depth
 * 1 is handed out as the stanza that it holds: FRAMER_STANZA with stanza.route. Its facts are those
 * of a stanza that declares everything that header and route declare around it; it is never plain.
 * A route that does not hold exactly one message, presence or iq in jabber:client comes out too,
 * with route->fault; then nothing else in the struct counts, and the span is the whole route. The
 * limits hold for the route; anything else at depth 1 is a nonza.
 *
 * RFC 6120: 4.7 (header), 4.8 (namespaces), 11.1 (restricted XML), 11.3 and 11.4 (well-formedness),
 * 11.6 (UTF-8 only), 13.12 (limits). Errors carry the stream error condition that is due.
 *
 * Ownership: event contents (strings, nonza) are borrowed until the next call into this framer; the
 * stanza's span is borrowed too: span_retain or span_copy keeps it. Not thread-safe. */
#ifndef CORE_XML_FRAMER_H
#define CORE_XML_FRAMER_H

#include "core/base/chunk.h"
#include "core/xml/nonza.h"

struct framer_limits {
    size_t header;      /* bytes of the stream header, XML declaration included */
    size_t element;     /* bytes of one depth-1 element */
    size_t token;       /* bytes of one tag that is not complete yet */
    unsigned depth;     /* nesting below the stream element; the stanza itself counts 1 */
    unsigned attrs;     /* per element, namespace declarations not counted */
    unsigned children;  /* elements below one depth-1 element, all levels */
    unsigned name;      /* bytes of one name or prefix */
    unsigned ns_decls;  /* per depth-1 element and per header; never more than 64 */
    size_t parser_heap; /* bytes that expat may hold */
};

/* Before the peer has proven who it is, and after. */
extern const struct framer_limits framer_limits_unauthenticated; /* 8 KiB */
extern const struct framer_limits framer_limits_default;         /* 256 KiB */

/* What a stream's content namespace is, as announced by us; the peer's header must agree. */
enum content_ns {
    CONTENT_SERVER,    /* jabber:server */
    CONTENT_COMPONENT, /* jabber:component:accept; stanzas in jabber:client are taken as well */
    CONTENT_ROUTER,    /* none: jabberd2's router, stanzas in jabber:client inside routes */
};

enum framer_result { FRAMER_EVENT, FRAMER_NEED_MORE, FRAMER_ERROR };

enum framer_kind { FRAMER_STREAM_OPEN, FRAMER_NONZA, FRAMER_STANZA, FRAMER_STREAM_CLOSE };

/* RFC 6120 4.7: the header. Absent attributes have p == NULL. Kept by the framer until the next
 * header (framer_header). */
struct stream_header {
    struct str from, to, id, version, lang;
    struct str content_ns;  /* the default namespace; absent when none is declared */
    bool declares_dialback; /* some prefix is bound to jabber:server:dialback */
};

enum stanza_kind { STANZA_MESSAGE, STANZA_PRESENCE, STANZA_IQ };

/* Why a stanza's bytes cannot go to another stream as they are (a set). 0: *plain*. */
enum {
    STANZA_OUTER_PREFIX = 1 << 0, /* uses a prefix that only the header declares */
    STANZA_CONTENT_NS = 1 << 1,   /* names jabber:server or jabber:component:accept in a declaration
                                   * (or jabber:client for itself), or is prefixed */
    STANZA_CDATA = 1 << 2,        /* holds a CDATA section */
    STANZA_LANG = 1 << 3,         /* has no xml:lang but the header has one other than "en" */
};

/* The <route/> of jabberd2's router around a stanza (NS_JABBERD2). */
struct stanza_route {
    struct str from, to, type, error; /* as the strings of a stanza */
    const char *fault;                /* static: why there is no stanza in it; NULL: exactly one */
};

struct stanza {
    enum stanza_kind kind;
    unsigned odd;                        /* set of STANZA_*; 0: plain */
    struct str from, to, id, type, lang; /* unescaped, as written; absent: p == NULL */
    struct str inherited_lang;           /* of the header */
    struct str content_ns;               /* of the stream it came from, or around it in the route */
    struct str outer;                    /* prefix declarations of the header: " xmlns:p='...'" */
    struct span span;                    /* its bytes, '<' to '>' */
    const struct stanza_route *route;    /* CONTENT_ROUTER: what it came in; else NULL */
};

struct framer_event {
    enum framer_kind kind;
    const struct stream_header *header; /* FRAMER_STREAM_OPEN */
    const struct nonza *nonza;          /* FRAMER_NONZA */
    struct stanza stanza;               /* FRAMER_STANZA */
    size_t bytes;                       /* how long the element was on the wire */
};

/* What went wrong: the condition that the stream error must carry (RFC 6120 4.9.3) and a short
 * static text for people. */
struct framer_error {
    const char *condition; /* "not-well-formed", "restricted-xml", "policy-violation", ... */
    const char *text;
};

struct framer;

struct framer *framer_new(enum content_ns content, const struct framer_limits *limits);
void framer_free(struct framer *f);

/* Other limits from the next element on (after authentication). */
void framer_set_limits(struct framer *f, const struct framer_limits *limits);

/* Room for reading into: at least 1 byte, usually up to 64 KiB; NULL when out of memory, or when
 * more unread bytes wait than one element may have (call framer_next until FRAMER_NEED_MORE in
 * between). The caller writes at most *n bytes there and says how many by framer_filled. */
char *framer_room(struct framer *f, size_t *n);
void framer_filled(struct framer *f, size_t n);
/* The same in one call, for bytes that are elsewhere (tests, TLS); false: as above, and then part
 * of them may have been taken. */
bool framer_feed(struct framer *f, struct str bytes);

/* The next event. FRAMER_ERROR is final: every later call returns it again (framer_error). Running
 * out of memory is one of them: resource-constraint. */
enum framer_result framer_next(struct framer *f, struct framer_event *ev);
struct framer_error framer_error(const struct framer *f);

/* Stream restart (after TLS or SASL): forgets header and parser. Returns false when bytes that
 * arrived before the restart are still unread: after STARTTLS that is an attack (white space does
 * not count and is dropped). Otherwise they are read as the beginning of the new stream. */
bool framer_restart(struct framer *f);

/* True when nothing is half-read: at depth 1 (or before the header) and no byte waits but white
 * space. */
bool framer_quiet(const struct framer *f);
/* Gives back the parser and the receive chunk when quiet; otherwise does nothing. */
void framer_relax(struct framer *f);
/* Bytes held for input and by the parser, for memory accounting. */
size_t framer_memory(const struct framer *f);

#endif
