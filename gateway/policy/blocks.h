/* Domains that an operator has blocked by hand: a deny that stands before all lists, until it is
 * taken back, its time is over, or the program ends. Pure; the owner removes what is over. */
#ifndef GATEWAY_POLICY_BLOCKS_H
#define GATEWAY_POLICY_BLOCKS_H

#include <stdint.h>

#include "core/base/list.h"
#include "core/xml/jid.h"

enum { BLOCKS_MAX = 256, BLOCK_PATTERN_MAX = DOMAIN_MAX + 3 };

struct block {
    struct list_node node;
    char pattern[BLOCK_PATTERN_MAX]; /* an A-label, or "*.suffix" of whole labels below it */
    uint64_t since, until;           /* ms, of the owner's clock; until 0: for ever */
    unsigned by;                     /* uid */
};

struct blocks {
    struct list list; /* struct block, oldest first */
};

/* The canonical form of what an operator typed; false: it is none. */
bool block_pattern(struct str typed, char out[BLOCK_PATTERN_MAX]);

/* A pattern that is there already is renewed. False: BLOCKS_MAX, or out of memory. */
bool blocks_add(struct blocks *b, const char *pattern, uint64_t now, uint64_t until, unsigned by);
bool blocks_remove(struct blocks *b, const char *pattern); /* false: there was none */
void blocks_free(struct blocks *b);

/* The block that holds for a domain, the exact one first; NULL: none. */
const struct block *blocks_find(const struct blocks *b, struct str domain);
/* Takes one out that is over and copies it; false: there is none. */
bool blocks_expire(struct blocks *b, uint64_t now, struct block *out);
/* When the next one is over; false: none ever will be. */
bool blocks_due(const struct blocks *b, uint64_t *due);

#endif
