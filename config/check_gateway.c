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

static void check_certificates(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t i = 0; i < c->ndomains; i++) {
        bool certificate = schema_is_set(l, "domains", i, "certificate");
        bool key = schema_is_set(l, "domains", i, "key");
        if (certificate && !key)
            schema_error(l, "domains", i, "certificate", "needs a key beside it");
        else if (key && !certificate)
            schema_error(l, "domains", i, "key", "needs a certificate beside it");
    }
}

static void check_sources(struct schema_load *l, const struct gateway_config *c)
{
    struct ip a, b;
    if (c->outbound.nsource == 2 && ip_parse(str_c(c->outbound.source[0]), &a) &&
        ip_parse(str_c(c->outbound.source[1]), &b) && a.len == b.len)
        schema_error(l, NULL, 0, "outbound.source", "at most one address per family");
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

void check_gateway(struct schema_load *l, const void *config)
{
    const struct gateway_config *c = config;
    check_certificates(l, c);
    check_policy(l, c);
    check_sources(l, c);
    check_sizes(l, c);
    check_times(l, c);
    check_links(l, c);
    check_log_rate(l, c->log.rate);
}
