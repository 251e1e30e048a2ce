/* Ref-counted bytes and the span over them.
 *
 * A chunk is written once by its creator (a socket read, the writer) and is read-only as soon as a
 * span of it has been handed out. Reference counts are not atomic: a chunk belongs to one worker.
 *
 * A span is *borrowed* while it is only passed down a call, and *retained* when its holder has
 * taken a reference (span_retain) and gives it back (span_release). A span that will wait for long
 * should be a copy of its own size (span_copy): a 300-byte stanza must not pin a 64 KiB chunk. */
#ifndef CORE_BASE_CHUNK_H
#define CORE_BASE_CHUNK_H

#include <stdint.h>

#include "core/base/str.h"

struct chunk {
    uint32_t refs;
    uint32_t cap; /* bytes of data[] */
    uint32_t len; /* bytes in use */
    char data[];
};

struct span {
    struct chunk *chunk; /* NULL: static memory that needs no reference */
    struct str s;
};

struct chunk *chunk_new(size_t cap); /* one reference; NULL when out of memory */
struct chunk *chunk_ref(struct chunk *c);
void chunk_unref(struct chunk *c); /* NULL is fine */

struct span span_retain(struct span s);
void span_release(struct span *s);
/* A retained span over a new chunk of exactly this size; span.chunk == NULL when out of memory. */
struct span span_copy(struct str s);

#endif
