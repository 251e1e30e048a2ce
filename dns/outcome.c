/* Outcomes: into the cache and out of it, and into what the holder sees. */
#include "dns/plan.h"

#include <stdio.h>

#include "dns/srv.h"

void dns_outcome_literal(struct dns_outcome *o, const struct ip *ip)
{
    memset(o, 0, sizeof *o);
    o->status = DNS_OK;
    o->n = 1;
    o->u.ip[0] = *ip;
}

void dns_outcome_no_name(struct dns_outcome *o, struct str name)
{
    memset(o, 0, sizeof *o);
    o->status = DNS_NONE;
    if (dns_name_ok(name))
        snprintf(o->text, sizeof o->text, "\"%.*s\" is an address, not a domain name",
                 STR_ARG(((struct str){name.p, name.n < 60 ? name.n : 60})));
    else
        snprintf(o->text, sizeof o->text, "not a domain name that can be looked up");
}

size_t dns_outcome_size(const struct dns_outcome *o, enum dns_kind kind)
{
    size_t each = dns_kind_services(kind) ? sizeof o->u.srv[0] : sizeof o->u.ip[0];
    return offsetof(struct dns_outcome, u) + o->n * each;
}

bool dns_outcome_load(struct dns_outcome *o, enum dns_kind kind, struct str bytes)
{
    memset(o, 0, sizeof *o);
    if (bytes.n < offsetof(struct dns_outcome, u) || bytes.n > sizeof *o)
        return false;
    memcpy(o, bytes.p, bytes.n);
    size_t most = dns_kind_services(kind) ? DNS_SRV_KEPT : DNS_ADDRESSES_MAX;
    return o->n <= most && dns_outcome_size(o, kind) == bytes.n;
}

static void add_target(struct dns_services *out, const char *host, uint16_t port, bool direct_tls)
{
    struct dns_target *t = &out->target[out->ntargets++];
    str_copy(t->host, sizeof t->host, str_c(host));
    t->port = port;
    t->direct_tls = direct_tls;
}

void dns_outcome_services(const struct dns_outcome *o, struct str domain, const struct env *env,
                          struct dns_services *out)
{
    memset(out, 0, sizeof *out);
    out->status = o->status;
    out->from_srv = o->from_srv;
    memcpy(out->text, o->text, sizeof out->text);
    if (o->status != DNS_OK)
        return;
    if (!o->from_srv) {
        char host[DOMAIN_MAX + 1];
        str_copy(host, sizeof host, domain);
        add_target(out, host, DNS_XMPP_PORT, false);
        return;
    }
    struct dns_srv drawn[DNS_SRV_KEPT];
    memcpy(drawn, o->u.srv, o->n * sizeof drawn[0]);
    size_t n = srv_order(drawn, o->n, env);
    for (size_t i = 0; i < n && i < DNS_TARGETS_MAX; i++)
        add_target(out, drawn[i].target, drawn[i].port, drawn[i].direct_tls);
}

void dns_outcome_addresses(const struct dns_outcome *o, struct dns_addresses *out)
{
    memset(out, 0, sizeof *out);
    out->status = o->status;
    memcpy(out->text, o->text, sizeof out->text);
    out->n = o->n;
    memcpy(out->ip, o->u.ip, o->n * sizeof out->ip[0]);
}

const char *dns_status_name(enum dns_status s)
{
    static const char *const names[] = {
#define X(id, name) name,
        DNS_STATUSES(X)
#undef X
    };
    return names[s];
}
