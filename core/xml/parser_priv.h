/* Expat as the framer and the serialiser use it: one set of options, counted memory, bounded.
 *
 * Private to core/xml. Expat's allocation functions carry no user data, so the heap to charge is a
 * thread-local pointer that is set around each call that may allocate or free: always go through
 * xml_parser_* for those. Getters, XML_StopParser and the setters do neither and are called
 * directly. */
#ifndef CORE_XML_PARSER_PRIV_H
#define CORE_XML_PARSER_PRIV_H

#include <expat.h>

#include "core/base/str.h"

/* Between the parts of a name. U+0001 is no XML character, not even as a reference, so no part can
 * contain it; expat refuses a namespace name with the separator besides. */
enum { XML_SEP = 1 };

struct xml_heap {
    size_t used, max;
    bool full; /* an allocation was refused because of max, not for lack of memory */
};

struct xml_name {
    struct str ns, local, prefix; /* ns and prefix absent: none */
};

/* Namespace mode with triplets, UTF-8 whatever the document says, re-parse deferral off. */
XML_Parser xml_parser_new(struct xml_heap *heap);
void xml_parser_free(struct xml_heap *heap, XML_Parser p); /* NULL is fine */
enum XML_Status xml_parser_feed(struct xml_heap *heap, XML_Parser p, struct str bytes);
enum XML_Status xml_parser_resume(struct xml_heap *heap, XML_Parser p);

/* The parts of an element or attribute name from expat. */
struct xml_name xml_name_split(const char *name);

#endif
