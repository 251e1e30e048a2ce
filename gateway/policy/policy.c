#include "gateway/policy/policy.h"

#include "config/domains.h"

static bool has_security(const struct cfg_peer *p)
{
    return p->security_mode != CONFIG_UNSET;
}

static bool has_route(const struct cfg_peer *p)
{
    return p->nroute > 0;
}

static bool has_auth(const struct cfg_peer *p)
{
    return p->auth != 0;
}

static bool has_pins(const struct cfg_peer *p)
{
    return p->npins > 0;
}

static bool has_ca_file(const struct cfg_peer *p)
{
    return p->ca_file != NULL;
}

static bool has_minimum_tls(const struct cfg_peer *p)
{
    return p->minimum_tls != CONFIG_UNSET;
}

static bool has_bidi(const struct cfg_peer *p)
{
    return p->bidi != CONFIG_UNSET;
}

/* ---- the lists ------------------------------------------------------------------------------- */

struct question {
    const struct gateway_config *c;
    struct str local;
    enum policy_way way;
    struct policy_decision answer; /* rule NULL: no entry says anything */
};

static bool is_about_way(const struct cfg_peer *p, enum policy_way way)
{
    return (p->direction != DIRECTION_IN || way != WAY_OUT) &&
           (p->direction != DIRECTION_OUT || way != WAY_IN);
}

/* A listed domain stands for what is below it when it owns that (`subdomains`). */
static bool is_about_local(const struct gateway_config *c, const struct cfg_peer *p,
                           struct str local)
{
    if (p->nlocal == 0 || local.p == NULL)
        return true;
    const struct cfg_domain *owner = gateway_config_domain(c, local);
    for (size_t i = 0; i < p->nlocal; i++)
        if (str_is(local, p->local[i]) || (owner != NULL && strcmp(owner->name, p->local[i]) == 0))
            return true;
    return false;
}

/* An entry that denies some of ours leaves it open what holds for any of them. */
static bool is_about(const struct question *q, const struct cfg_peer *p)
{
    if (p->policy == PEER_DENY && p->nlocal > 0 && q->local.p == NULL)
        return false;
    return is_about_way(p, q->way) && is_about_local(q->c, p, q->local);
}

static bool ask_peer(struct question *q, const struct cfg_peer *p)
{
    bool routed = p->nroute > 0 && q->c->use_static_routes;
    if ((p->policy == PEER_UNSET && !routed) || !is_about(q, p))
        return false;
    q->answer.by = POLICY_BY_PEER;
    q->answer.pattern = str_c(p->pattern);
    q->answer.verdict = p->policy == PEER_DENY ? POLICY_DENY : POLICY_ALLOW;
    q->answer.rule = p->policy == PEER_DENY    ? "peer entry denies"
                     : p->policy == PEER_ALLOW ? "peer entry allows"
                                               : "static route"; /* which says yes */
    return true;
}

static bool ask_file(struct question *q, const struct domain_list *l, struct str name, bool deny)
{
    size_t pos;
    if (!domain_list_find(l, name, &pos))
        return false;
    q->answer.by = deny ? POLICY_BY_DENY_FILE : POLICY_BY_ALLOW_FILE;
    q->answer.pattern = str_c(l->v[pos]);
    q->answer.verdict = deny ? POLICY_DENY : POLICY_ALLOW;
    q->answer.rule = deny ? "deny_file" : "allow_file";
    return true;
}

static bool look(void *arg, struct str name, const struct cfg_peer *p)
{
    struct question *q = arg;
    return (p != NULL && ask_peer(q, p)) || ask_file(q, q->c->deny, name, true) ||
           ask_file(q, q->c->allow, name, false);
}

static struct policy_decision ask_lists(const struct gateway_config *c, struct str local,
                                        struct str remote, enum policy_way way)
{
    struct question q = {.c = c, .local = local, .way = way};
    gateway_config_walk(c, remote, look, &q);
    return q.answer;
}

bool policy_listed(const struct gateway_config *c, struct str local, struct str remote,
                   enum policy_way way, bool *denied)
{
    struct policy_decision d = ask_lists(c, local, remote, way);
    *denied = d.rule != NULL && d.verdict == POLICY_DENY;
    return d.rule != NULL && d.verdict == POLICY_ALLOW;
}

/* ---- the mode -------------------------------------------------------------------------------- */

static struct policy_decision by_mode(enum policy_verdict v, const char *rule, bool shadow)
{
    return (struct policy_decision){
        .verdict = v, .rule = rule, .pattern = STR_NONE, .shadow = shadow};
}

static struct policy_decision decide(const struct gateway_config *c, struct str local,
                                     struct str remote, enum policy_way way)
{
    if (!c->federation)
        return by_mode(POLICY_OFF, "federation is off", false);
    bool off = c->privacy_mode == PRIVACY_OFF;
    if (off && !c->privacy_shadow)
        return by_mode(POLICY_ALLOW, "privacy_mode is off", false);
    struct policy_decision d = ask_lists(c, local, remote, way);
    if (off)
        return by_mode(POLICY_ALLOW, "privacy_mode is off",
                       d.rule == NULL || d.verdict != POLICY_ALLOW);
    if (d.rule != NULL)
        return d;
    if (c->privacy_mode == PRIVACY_DENY_LIST)
        return by_mode(POLICY_ALLOW, "not on the deny list", c->privacy_shadow);
    if (c->privacy_shadow)
        return by_mode(POLICY_ALLOW, "not on the allow list, which is on trial", true);
    return by_mode(POLICY_DENY, "not on the allow list", false);
}

struct policy_decision policy_pair(const struct gateway_config *c, struct str local,
                                   struct str remote, enum policy_way way)
{
    struct policy_decision d = decide(c, local, remote, way == WAY_EITHER ? WAY_IN : way);
    if (way != WAY_EITHER || d.verdict != POLICY_DENY)
        return d;
    struct policy_decision other = decide(c, local, remote, WAY_OUT);
    return other.verdict == POLICY_ALLOW ? other : d;
}

const char *policy_verdict_name(enum policy_verdict v)
{
    static const char *const names[] = {"allow", "deny", "off"};
    return names[v];
}

/* ---- how ------------------------------------------------------------------------------------- */

enum security_mode policy_security(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = remote.p ? gateway_config_peer(c, remote, has_security) : NULL;
    return (enum security_mode)(p ? p->security_mode : c->security_mode);
}

const char *policy_security_name(enum security_mode m)
{
    static const char *const names[] = {"no-tls", "tls-optional", "tls-required"};
    return names[m];
}

unsigned policy_auth(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_auth);
    return p ? p->auth : c->auth;
}

size_t policy_peer_pins(const struct gateway_config *c, struct str remote,
                        struct key_hash out[CONFIG_PINS_MAX])
{
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_pins);
    const char *why;
    size_t n = 0;
    for (; p != NULL && n < p->npins && n < CONFIG_PINS_MAX; n++)
        key_hash_parse(str_c(p->pins[n]), &out[n], &why); /* the configuration was checked */
    return n;
}

const char *policy_ca_file(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_ca_file);
    return p ? p->ca_file : NULL;
}

int policy_minimum_tls(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_minimum_tls);
    return p && p->minimum_tls > c->tls.minimum ? p->minimum_tls : c->tls.minimum;
}

int policy_tls_version(const char *protocol)
{
    enum { TLS_1_2 = 0x0303, TLS_1_3 = 0x0304 };
    if (strcmp(protocol, "TLSv1.3") == 0)
        return TLS_1_3;
    return strcmp(protocol, "TLSv1.2") == 0 ? TLS_1_2 : 0;
}

bool policy_bidi(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_bidi);
    return p ? p->bidi == 1 : c->bidi;
}

const struct cfg_peer *policy_route(const struct gateway_config *c, struct str remote)
{
    return c->use_static_routes ? gateway_config_peer(c, remote, has_route) : NULL;
}

bool policy_route_direct_tls(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = policy_route(c, remote);
    return p != NULL && p->direct_tls;
}
