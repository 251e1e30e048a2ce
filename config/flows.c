#include "config/flows.h"

#include <stdio.h>

#include "config/source.h"

enum { TEXT_MAX = 300 };

struct flows {
    const struct gateway_config *c;
    const struct kv_sink *to;
    bool names; /* something has to be looked up */
};

struct flow {
    const char *dir, *proto, *source, *destination, *port;
};

static void put(struct flows *f, const struct flow *w, const char *why)
{
    const struct kv kv[] = {KV_C("dir", w->dir),       KV_C("proto", w->proto),
                            KV_C("source", w->source), KV_C("destination", w->destination),
                            KV_C("port", w->port),     KV_C("why", why)};
    f->to->put(f->to->arg, "state.flow", kv, sizeof kv / sizeof kv[0]);
}

/* "192.0.2.1:5269", "[::1]:5269", "host:5269" into its halves; all addresses by their family. */
static void split(const char *text, char host[TEXT_MAX], char port[8])
{
    const char *colon = strrchr(text, ':');
    size_t n = colon != NULL ? (size_t)(colon - text) : strlen(text);
    bool six = n >= 2 && text[0] == '[';
    snprintf(host, TEXT_MAX, "%.*s", six ? (int)n - 2 : (int)n, six ? text + 1 : text);
    snprintf(port, 8, "%s", colon != NULL ? colon + 1 : "");
    if (strcmp(host, "0.0.0.0") == 0)
        snprintf(host, TEXT_MAX, "gateway (any IPv4)");
    else if (strcmp(host, "::") == 0)
        snprintf(host, TEXT_MAX, "gateway (any IPv6)");
}

static void listens(struct flows *f, const char *at, const char *from, const char *why)
{
    char host[TEXT_MAX], port[8];
    split(at, host, port);
    put(f, &(struct flow){"in", "tcp", from, host, port}, why);
}

static void dials(struct flows *f, const char *from, const char *to, const char *why)
{
    char host[TEXT_MAX], port[8];
    split(to, host, port);
    put(f, &(struct flow){"out", "tcp", from, host, port}, why);
}

static bool is_literal(const char *at)
{
    struct endpoint e;
    return endpoint_parse(str_c(at), &e);
}

/* ---- other domains --------------------------------------------------------------------------- */

/* Once for each own address to dial from; a literal destination only from its family. */
static void dials_out(struct flows *f, const char *to, const char *why)
{
    const struct gateway_config *c = f->c;
    struct endpoint e;
    bool literal = endpoint_parse(str_c(to), &e), any = false;
    struct ip ip;
    for (size_t i = 0; i < c->outbound.nsource; i++) {
        if (literal && ip_parse(str_c(c->outbound.source[i]), &ip) && ip.len != e.ip.len)
            continue;
        dials(f, c->outbound.source[i], to, why);
        any = true;
    }
    if (!any)
        dials(f, "gateway", to, why);
}

static bool may_be_dialled(const struct gateway_config *c, const struct cfg_peer *p)
{
    bool routed = c->use_static_routes && p->nroute > 0;
    if (p->expired || p->policy == PEER_DENY)
        return false;
    return routed || c->privacy_mode != PRIVACY_ALLOW_LIST || p->policy == PEER_ALLOW;
}

static void put_routes(struct flows *f)
{
    const struct gateway_config *c = f->c;
    char why[TEXT_MAX];
    for (size_t i = 0; c->use_static_routes && i < c->npeers; i++) {
        const struct cfg_peer *p = &c->peers[i];
        snprintf(why, sizeof why, "static route to %s", p->pattern);
        for (size_t k = 0; may_be_dialled(c, p) && k < p->nroute; k++) {
            f->names = f->names || !is_literal(p->route[k]);
            dials_out(f, p->route[k], why);
        }
    }
}

/* Every remote domain that may be written to has a route of its own. */
static bool all_routed(const struct gateway_config *c)
{
    if (c->privacy_mode != PRIVACY_ALLOW_LIST || c->privacy_shadow || c->allow != NULL)
        return false;
    for (size_t i = 0; i < c->npeers; i++)
        if (may_be_dialled(c, &c->peers[i]) && !(c->use_static_routes && c->peers[i].nroute > 0))
            return false;
    return true;
}

static void put_world(struct flows *f)
{
    const struct gateway_config *c = f->c;
    if (!c->federation)
        return;
    for (size_t i = 0; i < c->listen.ns2s; i++)
        listens(f, c->listen.s2s[i], "any",
                "other domains reach us; also their dialback questions");
    for (size_t i = 0; i < c->listen.ndirect_tls; i++)
        listens(f, c->listen.direct_tls[i], "any", "the same, TLS from the first byte");
    put_routes(f);
    if (all_routed(c))
        return;
    f->names = true;
    dials_out(f, "any:5269", "to other domains, and our dialback questions");
    dials_out(f, "any:SRV", "the same, to the ports that their SRV records name");
}

/* ---- names, and the inside ------------------------------------------------------------------- */

static void put_server(struct flows *f, const char *host, const char *port)
{
    static const char *const protos[] = {"udp", "tcp"};
    for (size_t i = 0; i < sizeof protos / sizeof protos[0]; i++)
        put(f, &(struct flow){"out", protos[i], "gateway", host, port},
            i == 0 ? "DNS" : "DNS, long answers");
}

/* The "nameserver" lines (resolv.conf(5)). */
static size_t put_system_servers(struct flows *f, struct str conf)
{
    char host[TEXT_MAX];
    size_t found = 0;
    while (conf.n > 0) {
        const char *end = memchr(conf.p, '\n', conf.n);
        size_t n = end != NULL ? (size_t)(end - conf.p) : conf.n;
        struct str line = str_trim((struct str){conf.p, n});
        n += end != NULL;
        conf = (struct str){conf.p + n, conf.n - n};
        if (!str_starts(line, "nameserver ") && !str_starts(line, "nameserver\t"))
            continue;
        line = str_trim((struct str){line.p + 11, line.n - 11});
        if (found < 8 && str_copy(host, sizeof host, line))
            put_server(f, host, "53");
        found++;
    }
    return found;
}

static void put_dns(struct flows *f, struct str resolv_conf)
{
    const struct gateway_config *c = f->c;
    char host[TEXT_MAX], port[8];
    for (size_t i = 0; f->names && i < c->dns.nservers; i++) {
        split(c->dns.servers[i], host, port);
        put_server(f, host, port);
    }
    if (f->names && c->dns.nservers == 0 && put_system_servers(f, resolv_conf) == 0)
        put_server(f, "127.0.0.1", "53");
}

static void put_links(struct flows *f)
{
    char why[TEXT_MAX];
    for (size_t i = 0; i < f->c->nlinks; i++) {
        const struct cfg_link *k = &f->c->links[i];
        snprintf(why, sizeof why, "link %s", k->name);
        if (k->address != NULL)
            dials(f, "gateway", k->address, why);
        snprintf(why, sizeof why, "link %s: the inside dials us", k->name);
        for (size_t n = 0; n < k->nlisten; n++)
            listens(f, k->listen[n], "inside", why);
    }
}

void flows_list(const struct gateway_config *c, struct str resolv_conf, const struct kv_sink *to)
{
    struct flows f = {c, to, false};
    put_world(&f);
    put_dns(&f, resolv_conf);
    put_links(&f);
}

void flows_resolv_conf(struct buf *out)
{
    if (source_read("/etc/resolv.conf", out->max, true, out) != 0)
        buf_clear(out);
}
