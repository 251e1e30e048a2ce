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

static size_t most(enum dns_kind kind)
{
    return dns_kind_services(kind) ? DNS_SRV_KEPT
           : kind == DNS_KIND_TLSA ? TLSA_RECORDS_MAX
                                   : DNS_ADDRESSES_MAX;
}

size_t dns_outcome_size(const struct dns_outcome *o, enum dns_kind kind)
{
    size_t each = dns_kind_services(kind) ? sizeof o->u.srv[0]
                  : kind == DNS_KIND_TLSA ? sizeof o->u.tlsa[0]
                                          : sizeof o->u.ip[0];
    return offsetof(struct dns_outcome, u) + o->n * each;
}

bool dns_outcome_load(struct dns_outcome *o, enum dns_kind kind, struct str bytes)
{
    memset(o, 0, sizeof *o);
    if (bytes.n < offsetof(struct dns_outcome, u) || bytes.n > sizeof *o)
        return false;
    memcpy(o, bytes.p, bytes.n);
    return o->n <= most(kind) && dns_outcome_size(o, kind) == bytes.n;
}

static void add_target(struct dns_services *out, const struct dns_srv *r)
{
    struct dns_target *t = &out->target[out->ntargets++];
    str_copy(t->host, sizeof t->host, str_c(r->target));
    t->port = r->port;
    t->direct_tls = r->direct_tls;
    t->authentic = r->authentic;
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
        struct dns_srv itself = {.port = DNS_XMPP_PORT, .authentic = o->authentic};
        str_copy(itself.target, sizeof itself.target, domain);
        add_target(out, &itself);
        return;
    }
    struct dns_srv drawn[DNS_SRV_KEPT];
    memcpy(drawn, o->u.srv, o->n * sizeof drawn[0]);
    size_t n = srv_order(drawn, o->n, env);
    for (size_t i = 0; i < n && i < DNS_TARGETS_MAX; i++)
        add_target(out, &drawn[i]);
}

void dns_outcome_addresses(const struct dns_outcome *o, struct dns_addresses *out)
{
    memset(out, 0, sizeof *out);
    out->status = o->status;
    memcpy(out->text, o->text, sizeof out->text);
    out->authentic = o->authentic;
    out->n = o->n;
    memcpy(out->ip, o->u.ip, o->n * sizeof out->ip[0]);
}

void dns_outcome_tlsa(const struct dns_outcome *o, struct dns_tlsa *out)
{
    memset(out, 0, sizeof *out);
    out->status = o->status;
    memcpy(out->text, o->text, sizeof out->text);
    out->authentic = o->authentic;
    out->n = o->n;
    memcpy(out->record, o->u.tlsa, o->n * sizeof out->record[0]);
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
