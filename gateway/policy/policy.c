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

static const struct cfg_peer *routed(const struct gateway_config *c, struct str remote)
{
    return c->use_static_routes ? gateway_config_peer(c, remote, has_route) : NULL;
}

const char *policy_route(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = routed(c, remote);
    return p ? p->route : NULL;
}

bool policy_route_direct_tls(const struct gateway_config *c, struct str remote)
{
    const struct cfg_peer *p = routed(c, remote);
    return p != NULL && p->direct_tls;
}
