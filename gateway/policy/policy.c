#include "gateway/policy/policy.h"

static bool has_policy(const struct cfg_peer *p)
{
    return p->policy != PEER_UNSET;
}

static bool has_security(const struct cfg_peer *p)
{
    return p->security_mode != CONFIG_UNSET;
}

static bool has_route(const struct cfg_peer *p)
{
    return p->route != NULL;
}

static bool has_policy_or_route(const struct cfg_peer *p)
{
    return has_policy(p) || has_route(p);
}

static struct policy_decision decide(enum policy_verdict v, const char *rule,
                                     const struct cfg_peer *p)
{
    return (struct policy_decision){v, rule, p ? str_c(p->pattern) : STR_NONE};
}

struct policy_decision policy_pair(const struct gateway_config *c, struct str local,
                                   struct str remote)
{
    (void)local; /* rules per pair narrow this later; today a peer is allowed for all of us */
    if (!c->federation)
        return decide(POLICY_OFF, "federation is off", NULL);
    if (c->privacy_mode == PRIVACY_OFF)
        return decide(POLICY_ALLOW, "privacy_mode is off", NULL);
    /* The nearest entry that says something decides; a route without a policy says yes. */
    const struct cfg_peer *p =
        gateway_config_peer(c, remote, c->use_static_routes ? has_policy_or_route : has_policy);
    if (p != NULL && p->policy == PEER_DENY)
        return decide(POLICY_DENY, "peer entry denies", p);
    if (p != NULL)
        return decide(POLICY_ALLOW, has_policy(p) ? "peer entry allows" : "static route", p);
    if (c->privacy_mode == PRIVACY_DENY_LIST)
        return decide(POLICY_ALLOW, "not on the deny list", NULL);
    return decide(POLICY_DENY, "not on the allow list", NULL);
}

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

const char *policy_route(const struct gateway_config *c, struct str remote)
{
    if (!c->use_static_routes)
        return NULL;
    const struct cfg_peer *p = gateway_config_peer(c, remote, has_route);
    return p ? p->route : NULL;
}
