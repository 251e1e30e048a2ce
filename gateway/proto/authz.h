/* What one stream is authorised for: a small bounded table, (local, remote) pair -> state.
 *
 * Inbound it doubles as the ledger of dialback requests: an entry WAITING or ASKED remembers the
 * request until the authority's verdict is in. The number of entries is the limit; lookups are
 * linear because nearly every stream has one or two. The table owns its strings. */
#ifndef GATEWAY_PROTO_AUTHZ_H
#define GATEWAY_PROTO_AUTHZ_H

#include <stdint.h>

#include "core/base/str.h"

enum authz_state {
    AUTHZ_WAITING, /* not asked yet: too many questions under way */
    AUTHZ_ASKED,
    AUTHZ_VALID,
};

struct authz_pair {
    enum authz_state state;
    char *local, *remote; /* A-labels */
    char *from, *to;      /* as the peer wrote them; inbound only */
    char *key;            /* WAITING only */
    uint32_t ticket;      /* ASKED: of the question */
    bool external;        /* VALID: by SASL EXTERNAL, not by dialback */
    uint64_t since;       /* ms, of the state */
};

struct authz {
    struct authz_pair *v;
    size_t n, cap, max;
};

void authz_init(struct authz *a, size_t max);
void authz_free(struct authz *a); /* forgets everything; usable again */

/* The entry of a pair; NULL: none. Pointers are valid until the next add or remove. */
struct authz_pair *authz_find(const struct authz *a, struct str local, struct str remote);
struct authz_pair *authz_by_ticket(const struct authz *a, uint32_t ticket); /* ASKED only */
struct authz_pair *authz_first(const struct authz *a, enum authz_state state);
size_t authz_count(const struct authz *a, enum authz_state state);

/* A new entry with copied names; NULL: the table is full or memory ran out. */
struct authz_pair *authz_add(struct authz *a, struct str local, struct str remote);
void authz_remove(struct authz *a, struct authz_pair *p);

/* Copies a string into a field of an entry, freeing the old one; false: out of memory. */
bool authz_keep(char **field, struct str s);

#endif
