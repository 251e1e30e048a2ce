#include "gateway/policy/side.h"

#include "config/auth.h"

/* `name` is `top` or below it. */
static bool within(struct str name, struct str top)
{
    if (name.n <= top.n)
        return str_eq(name, top);
    struct str tail = {name.p + name.n - top.n, top.n};
    return tail.p[-1] == '.' && str_eq(tail, top);
}

/* Does a local domain live behind this link? A name with an entry of its own among `domains` is not
 * covered by what the link says about its parent. */
static bool behind(const struct side *s, struct str name)
{
    const struct cfg_domain *d = gateway_config_domain(s->cfg, name);
    if (d == NULL || s->link->ndomains == 0)
        return d != NULL;
    for (size_t i = 0; i < s->link->ndomains; i++) {
        struct str listed = str_c(s->link->domains[i]);
        if (within(name, listed) && gateway_config_domain(s->cfg, listed) == d)
            return true;
    }
    return false;
}

bool side_serves(const struct side *s, struct str local)
{
    bool ours = gateway_config_domain(s->cfg, local) != NULL;
    return s->link != NULL ? !ours : ours;
}

bool side_admits(const struct side *s, struct str remote)
{
    return s->link != NULL ? behind(s, remote) : gateway_config_domain(s->cfg, remote) == NULL;
}

struct policy_decision side_pair(const struct side *s, struct str local, struct str remote,
                                 enum policy_way way)
{
    const struct block *blocked =
        s->blocks != NULL && s->cfg->federation ? blocks_find(s->blocks, remote) : NULL;
    if (blocked != NULL)
        return (struct policy_decision){.verdict = POLICY_DENY,
                                        .rule = "blocked by the operator",
                                        .pattern = str_c(blocked->pattern),
                                        .by = POLICY_BY_BLOCK};
    if (s->link == NULL)
        return policy_pair(s->cfg, local, remote, way);
    return (struct policy_decision){.verdict = POLICY_ALLOW, .rule = "inside link"};
}

enum security_mode side_security(const struct side *s, struct str remote)
{
    if (s->link == NULL)
        return policy_security(s->cfg, remote);
    if (s->link->auth == LINK_AUTH_TLS)
        return SECURITY_TLS_REQUIRED;
    return (enum security_mode)s->link->security_mode;
}
