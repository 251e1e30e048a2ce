/* The targets of a remote domain: a link's address, a static route, or what DNS says; and which of
 * their addresses are never dialled. */
#include "gateway/worker.h"

#include "gateway/policy/policy.h"

enum { S2S_PORT = 5269 };

static void on_services(void *arg, const struct dns_services *s)
{
    struct peer *p = arg;
    uint64_t now = loop_now(&p->w->loop);
    p->query = NULL;
    watch_dns(p->w, str_c(p->domain), s->status, s->text);
    if (s->status != DNS_OK) {
        story_tell(&p->w->story, "peer.failed", p->domain, "%s", s->text);
        remote_resolve_failed(p->remote, str_c(s->text), now);
    } else {
        memcpy(p->targets, s->target, s->ntargets * sizeof s->target[0]);
        p->ntargets = s->ntargets;
        remote_resolved(p->remote, s->ntargets, now);
    }
    peer_kick(p);
}

/* A route's target: "192.0.2.7:5269", "[2001:db8::1]:5269" or "host.example:5269". */
static bool add_target(struct peer *p, const char *route, bool direct_tls)
{
    struct endpoint e;
    struct dns_target *t = &p->targets[p->ntargets++];
    t->direct_tls = direct_tls;
    t->authentic = false;
    if (endpoint_parse(str_c(route), &e)) {
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

/* The targets are in the order of the list, which is the order to try. */
static void use_route(struct peer *p, char *const *route, size_t n, bool direct_tls)
{
    bool ok = true;
    p->ntargets = 0;
    for (size_t i = 0; i < n && i < DNS_TARGETS_MAX; i++) {
        ok = add_target(p, route[i], direct_tls) && ok;
        log_ev(&p->w->ctx, LOG_INFO, "dns.result", KV_C("domain", p->domain),
               KV_C("method", p->front->link != NULL ? "link" : "route"), KV_C("msg", route[i]));
    }
    remote_resolved(p->remote, ok ? p->ntargets : 0, loop_now(&p->w->loop));
    peer_kick(p);
}

void peer_resolve(struct peer *p)
{
    const struct link *link = p->front->link;
    const struct cfg_peer *route = link == NULL ? policy_route(p->w->cfg, str_c(p->domain)) : NULL;
    uint64_t now = loop_now(&p->w->loop);
    p->started = now;
    p->routed = link != NULL || route != NULL;
    if (route != NULL) {
        use_route(p, route->route, route->nroute, route->direct_tls);
        return;
    }
    if (link != NULL) {
        use_route(p, &link->kit->c->address, 1, false);
        return;
    }
    bool tls = side_security(&p->front->side, str_c(p->domain)) != SECURITY_NO_TLS;
    p->query = resolver_services(p->w->resolver, str_c(p->domain), tls, on_services, p);
    if (p->query == NULL) {
        remote_resolve_failed(p->remote, STR("too many DNS lookups under way"), now);
        peer_kick(p);
    }
}

/* ---- addresses ------------------------------------------------------------------------------- */

static bool is_own_listener(const struct front *f, const struct ip *ip, uint16_t port)
{
    static const struct ip any4 = {{0}, 4}, any6 = {{0}, 16};
    for (size_t i = 0; i < f->nlisteners; i++) {
        const struct endpoint *at = listen_local(f->listeners[i]);
        bool any = ip_equal(&at->ip, &any4) || ip_equal(&at->ip, &any6);
        if (at->port == port && (ip_equal(&at->ip, ip) || (any && worker_own_address(ip))))
            return true;
    }
    return false;
}

bool peer_refuses(void *arg, const struct endpoint *e, const char **why)
{
    struct peer *p = arg;
    const struct gateway_config *c = p->w->cfg;
    if (p->front->link != NULL)
        return false; /* the operator has named the address */
    *why = "this address is the inside link";
    if (link_address(p->w, e))
        return true;
    *why = "this address is our own listener";
    if (is_own_listener(p->front, &e->ip, e->port))
        return true;
    for (size_t i = 0; !p->literal && i < c->outbound.ndeny; i++) {
        *why = "this address is in outbound.deny_networks";
        if (cidr_has(&c->outbound.deny_networks[i], &e->ip))
            return true;
    }
    return false;
}
