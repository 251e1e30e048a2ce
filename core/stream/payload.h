/* Looking inside a stanza that is meant for us: a question to one of our own names, or the answer
 * to one of ours. What is only passed on is never looked into. */
#ifndef CORE_STREAM_PAYLOAD_H
#define CORE_STREAM_PAYLOAD_H

#include "core/xml/framer.h"

enum { PAYLOAD_MAX = 8192 };

/* The stanza as a nonza: node 0 is a wrapper of ours, 1 the stanza, 2 its first child. Read by a
 * framer with the limits for strangers. NULL: larger than PAYLOAD_MAX or than those limits, leaning
 * on a prefix of its stream's header, or no memory. The nonza lives until framer_free(result). */
struct framer *payload_read(const struct stanza *st, const struct nonza **z);

#endif
