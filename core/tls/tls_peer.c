#include "core/tls/tls_peer.h"

#include <strings.h>

enum { NAMES_TOLD = 4 };

static bool same(struct str a, struct str b)
{
    return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

/* "*.alpha.lab" stands for exactly one label more than "alpha.lab". */
static bool wildcard_matches(struct str name, struct str domain)
{
    const char *dot = memchr(domain.p, '.', domain.n);
    if (dot == NULL || dot == domain.p)
        return false;
    size_t label = (size_t)(dot - domain.p);
    return same((struct str){name.p + 1, name.n - 1}, (struct str){dot, domain.n - label});
}

static bool name_matches(const struct tls_name *n, struct str domain)
{
    struct str name = str_c(n->domain);
    if (n->kind == TLS_NAME_DNS && str_starts(name, "*."))
        return wildcard_matches(name, domain);
    return same(name, domain);
}

bool tls_peer_covers(const struct tls_peer *p, struct str domain)
{
    if (domain.n == 0 || memchr(domain.p, '\0', domain.n) != NULL)
        return false;
    for (unsigned i = 0; i < p->nnames; i++)
        if (name_matches(&p->names[i], domain))
            return true;
    return false;
}

/* The same domain often stands there as dNSName, SRVName and xmppAddr: it is told once. */
static bool told_before(const struct tls_peer *p, unsigned i)
{
    for (unsigned j = 0; j < i; j++)
        if (strcmp(p->names[j].domain, p->names[i].domain) == 0)
            return true;
    return false;
}

void tls_peer_issued_for(const struct tls_peer *p, struct buf *out)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->nnames; i++)
        if (!told_before(p, i) && n++ < NAMES_TOLD)
            buf_printf(out, "%s%s", n > 1 ? ", " : "", p->names[i].domain);
    if (n > NAMES_TOLD)
        buf_printf(out, " and %s%u more", p->names_cut ? "at least " : "", n - NAMES_TOLD);
    if (n == 0)
        buf_puts(out, "no domain");
}
