/* Which entry of the configuration speaks for a domain. A few hash look-ups per name, one for each
 * of its labels: peers and domains may be thousands, and this is asked for every stanza. */
#include "config/gateway.h"

#include "config/schema.h"

static bool find_peer(const struct gateway_config *c, struct str name, size_t *pos)
{
    const struct schema_entry *list = c->peers_entry;
    list = list != NULL ? list : schema_entry(&gateway_schema, "peers");
    return schema_find(&gateway_schema, c, list, name, pos);
}

static bool find_domain(const struct gateway_config *c, struct str name, size_t *pos)
{
    const struct schema_entry *list = c->domains_entry;
    list = list != NULL ? list : schema_entry(&gateway_schema, "domains");
    return schema_find(&gateway_schema, c, list, name, pos);
}

/* From "a.b.c" to ".b.c" to ".c" to "". */
static struct str parent(struct str name)
{
    const char *from = name.n ? memchr(name.p + 1, '.', name.n - 1) : NULL;
    size_t skip = from ? (size_t)(from - name.p) : name.n;
    return (struct str){name.p + skip, name.n - skip};
}

bool gateway_config_walk(const struct gateway_config *c, struct str remote,
                         bool (*each)(void *arg, struct str name, const struct cfg_peer *p),
                         void *arg)
{
    size_t pos;
    if (remote.n == 0 || *remote.p == '.' || *remote.p == '*')
        return false; /* no name at all, and what the index calls a pattern */
    for (struct str name = remote;; name = parent(name)) {
        const struct cfg_peer *p = find_peer(c, name, &pos) ? &c->peers[pos] : NULL;
        if (each(arg, name, p != NULL && !p->expired ? p : NULL))
            return true;
        if (name.n == 0)
            return false;
    }
}

void gateway_config_expire(struct gateway_config *c, int64_t now,
                           void (*each)(void *arg, const struct cfg_peer *p), void *arg)
{
    for (size_t i = 0; i < c->npeers; i++) {
        struct cfg_peer *p = &c->peers[i];
        if (p->until == 0 || p->until > now || p->expired)
            continue;
        p->expired = true;
        if (each != NULL)
            each(arg, p);
    }
}

bool gateway_config_due(const struct gateway_config *c, int64_t *due)
{
    bool any = false;
    for (size_t i = 0; i < c->npeers; i++) {
        const struct cfg_peer *p = &c->peers[i];
        if (p->until == 0 || p->expired || (any && p->until >= *due))
            continue;
        *due = p->until;
        any = true;
    }
    return any;
}

/* The index holds "*.suffix" as ".suffix" and "*" as "". */
static const struct cfg_peer *upwards(const struct gateway_config *c, struct str from,
                                      bool (*has)(const struct cfg_peer *))
{
    size_t pos;
    for (struct str name = from;; name = parent(name)) {
        if (find_peer(c, name, &pos) && !c->peers[pos].expired &&
            (has == NULL || has(&c->peers[pos])))
            return &c->peers[pos];
        if (name.n == 0)
            return NULL;
    }
}

const struct cfg_peer *gateway_config_peer(const struct gateway_config *c, struct str remote,
                                           bool (*has)(const struct cfg_peer *))
{
    if (remote.n == 0 || *remote.p == '.' || *remote.p == '*')
        return NULL; /* no name at all, and what the index calls a pattern */
    return upwards(c, remote, has);
}

const struct cfg_peer *gateway_config_inherited(const struct gateway_config *c,
                                                const struct cfg_peer *p,
                                                bool (*has)(const struct cfg_peer *))
{
    return upwards(c, str_c(p->pattern + (*p->pattern == '*')), has);
}

const struct cfg_domain *gateway_config_domain(const struct gateway_config *c, struct str name)
{
    size_t pos;
    if (name.n == 0 || *name.p == '.' || *name.p == '*')
        return NULL;
    if (find_domain(c, name, &pos))
        return &c->domains[pos];
    for (struct str up = parent(name); up.n; up = parent(up)) {
        struct str domain = {up.p + 1, up.n - 1};
        if (find_domain(c, domain, &pos) && c->domains[pos].subdomains)
            return &c->domains[pos];
    }
    return NULL;
}
