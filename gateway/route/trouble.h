/* What only shows over time: DNS that does not work at all, a queue that is nearly full. Pure. */
#ifndef GATEWAY_ROUTE_TROUBLE_H
#define GATEWAY_ROUTE_TROUBLE_H

#include "core/xml/jid.h"

/* Lookups that failed one after the other; zeroed at first. */
struct dns_trouble {
    char last[DOMAIN_MAX + 1];
    unsigned lookups, names; /* different ones, at least */
};

/* A lookup of `name` has ended: with an answer, also that there is nothing, or with none. True: DNS
 * is unusable, which one broken domain alone does not show. */
bool dns_trouble(struct dns_trouble *t, struct str name, bool answered);

/* From 80 of 100 on, until it is below 50. */
bool near_full(bool was, size_t used, size_t most);

#endif
