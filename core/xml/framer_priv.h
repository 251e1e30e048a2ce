/* Inside the framer: framer.c moves bytes and feeds expat, framer_xml.c is what expat calls.
 *
 * Positions are offsets into the receive chunk. `mark` is the end of what has been reported (or is
 * white space between elements): from there on the bytes are kept. `fed` is how far this parser has
 * been given bytes. A parser counts for itself; chunk offset = parser index - base. */
#ifndef CORE_XML_FRAMER_PRIV_H
#define CORE_XML_FRAMER_PRIV_H

#include "core/base/buf.h"
#include "core/xml/framer.h"
#include "core/xml/parser_priv.h"

enum {
    FRAMER_CHUNK = 65536,
    FRAMER_PIECE = 4096,        /* bytes per call into expat */
    FRAMER_PARSER_LIFE = 65536, /* bytes after which a parser is replaced */
    FRAMER_NS_MAX = 64,
    FACTS = 5,
};

enum framer_phase { FRAMER_PROLOG, FRAMER_OPEN, FRAMER_CLOSED, FRAMER_FAILED };

/* Events that wait to be taken; a self-closed stream element yields two at once. */
enum { READY_OPEN = 1 << 0, READY_ELEMENT = 1 << 1, READY_CLOSE = 1 << 2 };

/* A prefix that is declared inside the element being read. */
struct framer_ns {
    size_t at, n; /* in ns_text */
    unsigned level;
};

struct framer {
    enum content_ns content;
    enum framer_phase phase;
    struct framer_error error;
    struct framer_limits limits, later; /* later: from the next element on, if has_later */
    bool has_later;

    /* Input. */
    struct chunk *chunk;
    size_t mark, fed;

    /* The parser. */
    XML_Parser parser;
    struct xml_heap heap;
    size_t parser_bytes; /* given to it, the priming header not counted */
    int64_t base;
    bool priming, suspended;

    /* The header. */
    struct stream_header header;
    struct buf header_text; /* what the header's strings point into */
    struct buf content_text, root_prefix;
    struct buf outer; /* its prefix declarations, ready to be written again */

    /* The element being read, or just reported. */
    unsigned depth; /* open elements, the stream included */
    unsigned ready;
    bool is_stanza;
    enum stanza_kind kind;
    unsigned odd, children, ns_decls, n_ns;
    size_t start, end, header_bytes, close_bytes;
    struct framer_ns ns[FRAMER_NS_MAX];
    struct buf ns_text, fact_text;
    struct str fact[FACTS];
    struct nonza *nonza;

    /* The route around the stanza (CONTENT_ROUTER). */
    bool in_route;
    struct stanza_route route;
    unsigned parts;                /* elements directly inside it */
    size_t inner_start, inner_end; /* the first of them */
    struct buf route_text;         /* what the route's strings point into */
    struct buf route_ns,
        route_prefixes;     /* its own declarations: default, and prefixes as `outer` */
    struct buf route_outer; /* prefixes of route and header, when the route has some */
};

void framer_fail(struct framer *f, const char *condition, const char *text);
/* Installs the handlers. */
void framer_xml_attach(struct framer *f);
/* Forgets everything about the last element. */
void framer_xml_reset(struct framer *f);
const char *framer_content_name(enum content_ns content); /* "": none */

#endif
