/* What an allow list on trial would have refused: the pairs that were seen, and how often. At most
 * SHADOW_MAX pairs are kept; those that find no room are only counted. Pure. */
#ifndef GATEWAY_POLICY_SHADOW_H
#define GATEWAY_POLICY_SHADOW_H

#include "core/base/buf.h"
#include "core/base/list.h"
#include "gateway/policy/policy.h"

enum { SHADOW_MAX = 1000 };

struct shadow_pair; /* shadow.c keeps them in a table */

struct shadow_seen {
    const char *local, *remote;
    uint64_t in, out;    /* stanzas each way */
    int64_t first, last; /* ms since 1970 */
};

struct shadow {
    struct shadow_pair *table;
    struct list list; /* the same, oldest first */
    uint64_t lost;    /* stanzas of pairs that found no room */
};

/* True: the pair is seen for the first time. */
bool shadow_see(struct shadow *s, struct str local, struct str remote, enum policy_way way,
                int64_t now);
void shadow_each(const struct shadow *s, void (*each)(void *arg, const struct shadow_seen *p),
                 void *arg);
void shadow_free(struct shadow *s);

/* Entries for `peers` that would let through what was seen and is neither allowed nor denied by
 * `c`: one for each remote domain, narrowed to the local domains and the direction that were seen.
 * As a file for include_dir; only a comment when there is nothing to propose. */
void shadow_propose(struct shadow *s, const struct gateway_config *c, struct buf *out);

#endif
