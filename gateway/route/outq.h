/* The queue of stanzas of one domain pair: first in first out, bounded by count and bytes, and all
 * queues together by a shared total. It holds copies of its own size, so that a waiting stanza
 * never pins a receive buffer. */
#ifndef GATEWAY_ROUTE_OUTQ_H
#define GATEWAY_ROUTE_OUTQ_H

#include "core/base/chunk.h"
#include "core/base/list.h"

/* Limits shared by all queues of a worker; `bytes` counts what they hold now. */
struct outq_limits {
    size_t max_bytes, max_count; /* per queue */
    size_t total;                /* all queues */
    size_t bytes;
    size_t count;
};

struct outq_item {
    struct list_node node;
    struct span stanza; /* retained */
    uint64_t since;     /* ms: when it was first queued */
    /* Once it failed: why. The condition is static, the text retained. */
    const char *condition;
    struct span text;
};

struct outq {
    struct list items;
    size_t bytes;
    struct outq_limits *limits;
};

void outq_init(struct outq *q, struct outq_limits *limits);
/* Appends a copy; false: a limit is reached or memory ran out. */
bool outq_push(struct outq *q, struct str stanza, uint64_t now);
/* Puts an item back at the head (it was taken out before, so no limit applies but the memory). */
bool outq_unshift(struct outq *q, struct str stanza, uint64_t since);
struct outq_item *outq_pop(struct outq *q); /* the caller frees it; NULL: empty */
void outq_item_free(struct outq_item *it);
void outq_free(struct outq *q); /* drops what is left */

#endif
