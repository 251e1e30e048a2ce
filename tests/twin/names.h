/* The name server of the twin test: dns/cares.h without c-ares. The real resolver with its cache
 * and its plans asks; answers come late, wrong, or not at all. */
#ifndef TESTS_TWIN_NAMES_H
#define TESTS_TWIN_NAMES_H

#include "core/base/cidr.h"
#include "tests/twin/net.h"

struct name {
    const char *domain;
    const char *host; /* of its SRV record; NULL: it has none */
    const char *decoy; /* another target, of better priority, where nobody listens; NULL: none */
    const char *ip;    /* of the host, or of the domain itself */
};

struct names {
    struct net *net;
    const struct name *v;
    size_t n;
    unsigned fail;    /* of 1000 questions: refused */
    unsigned silent;  /* never answered: the driver's time-out */
    unsigned latency; /* ms at most */
    size_t open;      /* questions not closed yet */
};

/* There is one at a time, as there is one network. */
void names_use(struct names *n);

#endif
