#include "config/check.h"
#include "config/router.h"

static void check_role(struct schema_load *l, const struct rcfg_link *k, size_t i)
{
    bool domains = schema_is_set(l, "links", i, "domains");
    if (k->role == ROLE_GATEWAY && domains)
        schema_error(l, "links", i, "domains", "only a link with role \"server\" owns domains");
    if (k->role == ROLE_GATEWAY && k->transport == TRANSPORT_DIAL)
        schema_error(l, "links", i, "transport",
                     "a gateway dials in: its link must have transport \"accept\"");
    if (k->role == ROLE_SERVER && !domains)
        schema_error(l, "links", i, "domains", "required with role \"server\"");
    else if (k->role == ROLE_SERVER && k->ndomains == 0)
        schema_error(l, "links", i, "domains", "at least one domain is required");
}

static void check_address(struct schema_load *l, const struct rcfg_link *k, size_t i)
{
    bool address = schema_is_set(l, "links", i, "address");
    if (k->transport == TRANSPORT_DIAL && !address)
        schema_error(l, "links", i, "address", "required with transport \"dial\"");
    else if (k->transport == TRANSPORT_ACCEPT && address)
        schema_error(l, "links", i, "address", "not allowed with transport \"accept\"");
}

/* Adds a name that only one link may have. */
static void claim(struct schema_load *l, const struct router_config *c, struct name_index *ix,
                  const char *name, size_t i, const char *key)
{
    size_t old;
    switch (name_index_add(ix, name, i, &old)) {
    case NAME_ADDED:
        break;
    case NAME_NO_MEMORY:
        schema_no_memory(l);
        break;
    case NAME_EXISTS:
        schema_error(l, "links", i, key, "%.253s belongs to links[%.64s] already", name,
                     c->links[old].name ? c->links[old].name : "?");
        break;
    }
}

static void check_unique(struct schema_load *l, const struct router_config *c)
{
    struct name_index domains = {NULL}, components = {NULL};
    for (size_t i = 0; i < c->nlinks; i++) {
        const struct rcfg_link *k = &c->links[i];
        for (size_t d = 0; d < k->ndomains; d++)
            claim(l, c, &domains, k->domains[d], i, "domains");
        if (k->transport == TRANSPORT_ACCEPT && k->component != NULL)
            claim(l, c, &components, k->component, i, "component");
    }
    name_index_free(&domains);
    name_index_free(&components);
}

void check_router(struct schema_load *l, const void *config)
{
    const struct router_config *c = config;
    bool accepts = false;
    for (size_t i = 0; i < c->nlinks; i++) {
        check_role(l, &c->links[i], i);
        check_address(l, &c->links[i], i);
        accepts |= c->links[i].transport == TRANSPORT_ACCEPT;
    }
    if (accepts && c->listen.nlinks == 0)
        schema_error(l, NULL, 0, "listen.links",
                     "at least one is required, because a link has transport \"accept\"");
    check_unique(l, c);
    check_log_rate(l, c->log.rate);
}
