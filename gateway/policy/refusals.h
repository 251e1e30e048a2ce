/* What policy has refused, counted by rule. A rule is the sentence of a policy_decision and the
 * entry that it names. At most REFUSALS_MAX rules are told apart; what comes after is counted under
 * one more, "(others)", so that no stranger can make it grow. Pure. */
#ifndef GATEWAY_POLICY_REFUSALS_H
#define GATEWAY_POLICY_REFUSALS_H

#include "core/base/list.h"
#include "core/xml/jid.h"
#include "gateway/policy/policy.h"

enum { REFUSALS_MAX = 256 };

struct refusal {
    struct list_node node;
    const char *rule;                                   /* static */
    char pattern[DOMAIN_MAX + 3];                       /* "": none */
    uint64_t count, in;                                 /* in: of these, what came from outside */
    int64_t last;                                       /* ms since 1970 */
    char local[DOMAIN_MAX + 1], remote[DOMAIN_MAX + 1]; /* of the last one */
};

struct refusals {
    struct list list; /* struct refusal, in the order of their first time */
};

/* Out of memory loses the count and nothing else. */
void refusals_add(struct refusals *r, const struct policy_decision *d, struct str local,
                  struct str remote, enum policy_way way, int64_t now);
void refusals_free(struct refusals *r);

#endif
