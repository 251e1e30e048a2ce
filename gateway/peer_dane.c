/* What DNSSEC knows of a target before it is connected to (RFC 7673 3, 4).
 *
 * Only where an authentic SRV record has led to a host is there anything to learn. Its name may
 * then stand in the certificate. When its addresses are authentic too, its TLSA records are asked
 * for: not before, because servers of domains without DNSSEC answer such questions badly (3.2). A
 * question that fails there is one that somebody suppresses, or a broken signature: this target is
 * not used. Records that DNSSEC does not vouch for count as none. */
#include "gateway/worker.h"

static void on_tlsa(void *arg, const struct dns_tlsa *t)
{
    struct peer *p = arg;
    const char *why = NULL;
    p->query = NULL;
    if (t->status == DNS_FAILED || t->status == DNS_TIMEOUT)
        why = t->text;
    else if (t->status == DNS_OK && t->authentic && !dane_target_set(p->dane, t->record, t->n))
        why = "out of memory";
    p->dane_known(p, why);
}

static bool wanted(const struct peer *p)
{
    return p->targets[p->target].authentic && p->front->link == NULL &&
           side_security(&p->front->side, str_c(p->domain)) != SECURITY_NO_TLS;
}

void peer_dane(struct peer *p, void (*known)(struct peer *p, const char *why))
{
    const struct dns_target *t = &p->targets[p->target];
    if (!wanted(p)) {
        known(p, NULL);
        return;
    }
    p->dane = dane_target_new(str_c(t->host));
    if (p->dane == NULL) {
        known(p, "out of memory");
        return;
    }
    if (!p->found.authentic) {
        known(p, NULL);
        return;
    }
    p->dane_known = known;
    p->query = resolver_tlsa(p->w->resolver, str_c(t->host), t->port, on_tlsa, p);
    if (p->query == NULL)
        known(p, "too many DNS lookups under way");
}
