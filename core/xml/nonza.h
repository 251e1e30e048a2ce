/* A parsed depth-1 element that is not a stanza (stream features, STARTTLS, dialback, handshake,
 * stream error), as a small flat tree: nodes in document order, each with its depth.
 *
 * Bounded by construction: at most NONZA_NODES elements, NONZA_ATTRS attributes and NONZA_BYTES of
 * text and names; one that is larger is refused by the framer (policy-violation). The framer owns
 * the nonza; it is valid until the next call into the framer. All strings are unescaped. */
#ifndef CORE_XML_NONZA_H
#define CORE_XML_NONZA_H

#include <stdint.h>

#include "core/base/str.h"

enum { NONZA_NODES = 64, NONZA_ATTRS = 128, NONZA_BYTES = 8192 };

struct nonza_attr {
    struct str ns; /* absent: no namespace (the usual case) */
    struct str name, value;
};

struct nonza_node {
    struct str ns, name;
    struct str text;       /* character data directly inside, concatenated */
    uint16_t depth;        /* 0: the element itself */
    uint16_t attr, nattrs; /* range in nonza.attrs */
};

struct nonza {
    struct nonza_node node[NONZA_NODES];
    struct nonza_attr attrs[NONZA_ATTRS];
    uint16_t nnodes, nattrs;
    size_t nbytes;
    char bytes[NONZA_BYTES];
};

/* The element itself has this name. */
bool nonza_is(const struct nonza *z, const char *ns, const char *name);
/* Value of an attribute without namespace of the element itself; absent when not there. */
struct str nonza_attr(const struct nonza *z, const char *name);
/* Text of the element itself. */
struct str nonza_text(const struct nonza *z);
/* First direct child of node `of` (0: the element) with that namespace and, unless NULL, that name;
 * -1: none. */
int nonza_child(const struct nonza *z, int of, const char *ns, const char *name);

#endif
