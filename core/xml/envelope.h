/* The envelope: where the addresses stand in the start tag of a stanza.
 *
 * Expat tells attribute values but not where they are; to splice another spelling of an address
 * into the original bytes their place is needed. The scanner expects bytes that expat has accepted;
 * for anything else it answers false or gives offsets inside the bytes, nothing worse. Whoever uses
 * an offset compares the value there with expat's (envelope_says) first. */
#ifndef CORE_XML_ENVELOPE_H
#define CORE_XML_ENVELOPE_H

#include "core/base/str.h"

#define ENVELOPE_ATTRS(X)                                                                          \
    X(FROM, "from")                                                                                \
    X(TO, "to")                                                                                    \
    X(ID, "id")                                                                                    \
    X(TYPE, "type")                                                                                \
    X(LANG, "xml:lang")

enum envelope_attr {
#define X(id, name) ENVELOPE_##id,
    ENVELOPE_ATTRS(X)
#undef X
        ENVELOPE_ATTR_COUNT
};

struct envelope {
    struct str value[ENVELOPE_ATTR_COUNT]; /* raw, between the quotes; absent: p == NULL */
    size_t name_end; /* offset behind the tag name: room for more attributes */
    size_t tag_end;  /* offset behind the '>' of the start tag */
};

bool envelope_scan(struct str stanza, struct envelope *out);

/* The raw attribute value, read as XML says (references, white space; 3.3.3), is this string. An
 * absent one says only an absent one. */
bool envelope_says(struct str raw, struct str value);

#endif
