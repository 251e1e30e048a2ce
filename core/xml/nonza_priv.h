/* How the framer fills a nonza. Private to core/xml. */
#ifndef CORE_XML_NONZA_PRIV_H
#define CORE_XML_NONZA_PRIV_H

#include "core/xml/nonza.h"

/* Each copies what it is given; false: the nonza is full. */
void nonza_begin(struct nonza *z);
bool nonza_open(struct nonza *z, struct str ns, struct str name, unsigned depth);
bool nonza_put_attr(struct nonza *z, struct str ns, struct str name, struct str value);
/* To the innermost open node, which has this depth. */
bool nonza_put_text(struct nonza *z, unsigned depth, struct str text);

#endif
