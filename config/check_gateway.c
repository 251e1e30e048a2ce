#include "config/check.h"
#include "config/domains.h"
#include "config/gateway.h"
#include "core/base/env.h"

void check_log_rate(struct schema_load *l, uint64_t rate)
{
    enum { RATE_MIN = 10 };
    if (rate != 0 && rate < RATE_MIN)
        schema_error(l, NULL, 0, "log.rate", "must be 0 (no limit) or from %d to 100000", RATE_MIN);
}

static void check_both(struct schema_load *l, size_t i, const char *certificate, const char *key)
{
    bool has_certificate = schema_is_set(l, "domains", i, certificate);
    bool has_key = schema_is_set(l, "domains", i, key);
    if (has_certificate && !has_key)
        schema_error(l, "domains", i, certificate, "needs a %s beside it", key);
    else if (has_key && !has_certificate)
        schema_error(l, "domains", i, key, "needs a %s beside it", certificate);
}

static void check_certificates(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t i = 0; i < c->ndomains; i++) {
        check_both(l, i, "certificate", "key");
        check_both(l, i, "client_certificate", "client_key");
    }
}

static bool has_mode(const struct cfg_peer *p)
{
    return p->security_mode != CONFIG_UNSET;
}

static bool has_auth(const struct cfg_peer *p)
{
    return p->auth != 0;
}

/* What holds for the names of an entry that says nothing about it itself. */
static bool mode_is_no_tls(const struct gateway_config *c, const struct cfg_peer *p)
{
    const struct cfg_peer *by = gateway_config_inherited(c, p, has_mode);
    return (by != NULL ? by->security_mode : c->security_mode) == SECURITY_NO_TLS;
}

static bool only_external(const struct gateway_config *c, const struct cfg_peer *p)
{
    const struct cfg_peer *by = gateway_config_inherited(c, p, has_auth);
    return (by != NULL ? by->auth : c->auth) == POLICY_AUTH_EXTERNAL;
}

/* Contradictions are told where they begin: at an entry that sets one of the two keys. */
static void check_no_tls(struct schema_load *l, size_t i, const struct cfg_peer *p)
{
    const char *both = "a certificate, which auth = [\"external\"] demands, needs TLS, and "
                       "security_mode = \"no-tls\" forbids it";
    if (has_auth(p))
        schema_error(l, "peers", i, "auth", "%s", both);
    else if (has_mode(p))
        schema_error(l, "peers", i, "security_mode", "%s", both);
}

static void check_peer(struct schema_load *l, const struct gateway_config *c, size_t i)
{
    const struct cfg_peer *p = &c->peers[i];
    if (p->pattern == NULL)
        return; /* its fault has been reported */
    const bool no_tls = mode_is_no_tls(c, p);
    if (p->direct_tls && !schema_is_set(l, "peers", i, "route"))
        schema_error(l, "peers", i, "direct_tls", "needs a route beside it");
    if (p->direct_tls && no_tls)
        schema_error(l, "peers", i, "direct_tls", "security_mode = \"no-tls\" forbids it");
    if (p->minimum_tls != CONFIG_UNSET && p->minimum_tls < c->tls.minimum)
        schema_error(l, "peers", i, "minimum_tls", "must not be lower than tls.minimum");
    if (no_tls && p->bidi == 1)
        schema_warn(l, "peers", i, "bidi",
                    "has no effect: it needs TLS, and security_mode = \"no-tls\" forbids it");
    if (no_tls && only_external(c, p))
        check_no_tls(l, i, p);
}

static void check_peers(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t i = 0; i < c->npeers; i++)
        check_peer(l, c, i);
    if (c->auth == POLICY_AUTH_EXTERNAL && c->security_mode == SECURITY_NO_TLS)
        schema_error(l, NULL, 0, "auth",
                     "a certificate needs TLS, which security_mode = \"no-tls\" forbids");
}

/* One address can listen only once. */
static void check_listen(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t i = 0; i < c->listen.ndirect_tls; i++)
        for (size_t k = 0; k < c->listen.ns2s; k++)
            if (strcmp(c->listen.direct_tls[i], c->listen.s2s[k]) == 0)
                schema_error(l, NULL, 0, "listen.direct_tls", "%s is in listen.s2s too",
                             c->listen.s2s[k]);
}

static void check_sources(struct schema_load *l, const struct gateway_config *c)
{
    struct ip a, b;
    if (c->outbound.nsource == 2 && ip_parse(str_c(c->outbound.source[0]), &a) &&
        ip_parse(str_c(c->outbound.source[1]), &b) && a.len == b.len)
        schema_error(l, NULL, 0, "outbound.source", "at most one address per family");
}

/* Whoever sits between us and a resolver can write what it likes into an answer, AD bit and all. */
static bool is_near(const char *server)
{
    static const char *const near[] = {"127.0.0.0/8",    "::1",     "10.0.0.0/8", "172.16.0.0/12",
                                       "192.168.0.0/16", "fc00::/7"};
    struct endpoint e;
    struct cidr c;
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        if (endpoint_parse(str_c(server), &e) && cidr_parse(str_c(near[i]), &c) &&
            cidr_has(&c, &e.ip))
            return true;
    return false;
}

static void check_dns(struct schema_load *l, const struct gateway_config *c)
{
    if (!c->dns.trust_ad)
        return;
    if (c->dns.nservers == 0)
        schema_error(l, NULL, 0, "dns.trust_ad",
                     "needs dns.servers that check DNSSEC, such as [\"127.0.0.1:53\"]");
    for (size_t i = 0; i < c->dns.nservers; i++)
        if (!is_near(c->dns.servers[i]))
            schema_error(l, NULL, 0, "dns.trust_ad",
                         "the way to %s is open to others; use a resolver that checks DNSSEC at a "
                         "loopback or private address",
                         c->dns.servers[i]);
}

static void check_sizes(struct schema_load *l, const struct gateway_config *c)
{
    if (c->limits.unauthenticated_size > c->limits.stanza_size)
        schema_error(l, NULL, 0, "limits.unauthenticated_size",
                     "must not be larger than limits.stanza_size");
    if (c->limits.queue_bytes > c->limits.queue_total)
        schema_error(l, NULL, 0, "limits.queue_bytes",
                     "must not be larger than limits.queue_total");
    if (c->limits.stanza_size > c->limits.queue_bytes)
        schema_warn(l, NULL, 0, "limits.stanza_size",
                    "larger than limits.queue_bytes: such a stanza cannot wait and bounces");
}

/* The answer to a verification must fit before the stream's own deadline. */
static void check_times(struct schema_load *l, const struct gateway_config *c)
{
    bool set = schema_is_set(l, NULL, 0, "dialback.timeout");
    if (c->dialback.timeout >= c->timeouts.auth && c->timeouts.auth != 0)
        schema_warn(l, NULL, 0, set ? "dialback.timeout" : "timeouts.auth",
                    "dialback.timeout should be shorter than timeouts.auth, "
                    "or a slow authority costs the stream");
}

/* ---- who may talk to whom -------------------------------------------------------------------- */

static void check_narrowed(struct schema_load *l, const struct gateway_config *c, size_t i)
{
    const struct cfg_peer *p = &c->peers[i];
    bool narrow = p->nlocal > 0 || p->direction > DIRECTION_BOTH;
    for (size_t k = 0; k < p->nlocal; k++)
        if (gateway_config_domain(c, str_c(p->local[k])) == NULL)
            schema_error(l, "peers", i, "local", "%s is no local domain", p->local[k]);
    if (narrow && p->policy == PEER_UNSET && p->nroute == 0)
        schema_warn(l, "peers", i, p->nlocal > 0 ? "local" : "direction",
                    "it is about the policy, and there is neither policy nor route beside it");
}

/* At one place one thing is said of a name. */
static void check_listed(struct schema_load *l, const char *key, const char *file,
                         const struct domain_list *list, enum peer_policy says,
                         const struct gateway_config *c)
{
    size_t pos;
    for (size_t i = 0; list != NULL && i < c->npeers; i++) {
        const struct cfg_peer *p = &c->peers[i];
        if (p->pattern != NULL && p->policy != PEER_UNSET && p->policy != (int)says &&
            domain_list_has(list, p->pattern, &pos))
            schema_warn(l, "peers", i, "policy", "%s:%u (%s) says otherwise; this entry decides",
                        file, list->line[pos], key);
    }
}

static void check_lists(struct schema_load *l, const struct gateway_config *c)
{
    size_t pos;
    check_listed(l, "allow_file", c->allow_file, c->allow, PEER_ALLOW, c);
    check_listed(l, "deny_file", c->deny_file, c->deny, PEER_DENY, c);
    for (size_t i = 0; c->allow != NULL && c->deny != NULL && i < c->allow->n; i++)
        if (domain_list_has(c->deny, c->allow->v[i], &pos))
            schema_error(l, NULL, 0, "allow_file", "line %u: %s is on the deny list, too (%s:%u)",
                         c->allow->line[i], c->allow->v[i], c->deny_file, c->deny->line[pos]);
}

static void check_policy(struct schema_load *l, const struct gateway_config *c)
{
    int64_t now;
    bool clock = env_wall(&env_system, &now);
    for (size_t i = 0; i < c->npeers; i++) {
        check_narrowed(l, c, i);
        if (clock && c->peers[i].until != 0 && c->peers[i].until <= now)
            schema_warn(l, "peers", i, "until", "this entry is over and does not count");
    }
    check_lists(l, c);
}

static void check_watch(struct schema_load *l, const struct gateway_config *c)
{
    enum { WATCH_MIN = 1000 };
    if (c->tls.watch != 0 && c->tls.watch < WATCH_MIN)
        schema_error(l, NULL, 0, "tls.watch", "must be 0 (never) or from \"1s\" to \"1h\"");
}

void check_gateway(struct schema_load *l, const void *config)
{
    const struct gateway_config *c = config;
    check_certificates(l, c);
    check_peers(l, c);
    check_listen(l, c);
    check_dns(l, c);
    check_policy(l, c);
    check_sources(l, c);
    check_sizes(l, c);
    check_times(l, c);
    check_links(l, c);
    check_watch(l, c);
    check_log_rate(l, c->log.rate);
}
