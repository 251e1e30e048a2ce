/* The targets of a remote domain: a link's address, a static route, or what DNS says. */
#include "gateway/worker.h"

#include "gateway/policy/policy.h"

enum { S2S_PORT = 5269 };

static void on_services(void *arg, const struct dns_services *s)
{
    struct peer *p = arg;
    uint64_t now = loop_now(&p->w->loop);
    p->query = NULL;
    if (s->status != DNS_OK) {
        remote_resolve_failed(p->remote, str_c(s->text), now);
    } else {
        memcpy(p->targets, s->target, s->ntargets * sizeof s->target[0]);
        p->ntargets = s->ntargets;
        remote_resolved(p->remote, s->ntargets, now);
    }
    peer_kick(p);
}

/* A static route: one target, "192.0.2.7:5269", "[2001:db8::1]:5269" or "host.example:5269". */
static bool use_route(struct peer *p, const char *route)
{
    struct endpoint e;
    struct dns_target *t = &p->targets[0];
    p->ntargets = 1;
    t->direct_tls = p->front->link == NULL && policy_route_direct_tls(p->w->cfg, str_c(p->domain));
    t->authentic = false;
    p->literal = endpoint_parse(str_c(route), &e);
    if (p->literal) {
        char text[ENDPOINT_TEXT];
        ip_text(&e.ip, text);
        str_copy(t->host, sizeof t->host, str_c(text));
        t->port = e.port;
        return true;
    }
    const char *colon = strrchr(route, ':');
    long port = colon ? strtol(colon + 1, NULL, 10) : S2S_PORT;
    if (port < 1 || port > 65535)
        return false;
    t->port = (uint16_t)port;
    return domain_ascii((struct str){route, colon ? (size_t)(colon - route) : strlen(route)},
                        t->host);
}

void peer_resolve(struct peer *p)
{
    const struct link *link = p->front->link;
    const char *route =
        link != NULL ? link->kit->c->address : policy_route(p->w->cfg, str_c(p->domain));
    uint64_t now = loop_now(&p->w->loop);
    p->started = now;
    p->literal = false;
    if (route != NULL) {
        bool ok = use_route(p, route);
        log_ev(&p->w->ctx, LOG_INFO, "dns.result", KV_C("domain", p->domain),
               KV_C("method", link != NULL ? "link" : "route"), KV_C("msg", route));
        remote_resolved(p->remote, ok ? 1 : 0, now);
        peer_kick(p);
        return;
    }
    bool tls = side_security(&p->front->side, str_c(p->domain)) != SECURITY_NO_TLS;
    p->query = resolver_services(p->w->resolver, str_c(p->domain), tls, on_services, p);
    if (p->query == NULL) {
        remote_resolve_failed(p->remote, STR("too many DNS lookups under way"), now);
        peer_kick(p);
    }
}
