#include "xcp/routes.h"

#include "core/base/mem.h"
#include "core/base/table.h"
#include "core/stream/bounce.h"
#include "core/xml/jid.h"

static const char gateway_gone[] = "federation gateway unavailable";
static const char server_gone[] = "the server of this domain is not connected";

/* A local domain and the server links that own it, in the order of the configuration. */
struct route_domain {
    UT_hash_handle hh;
    const char *name; /* of the configuration */
    size_t n;
    size_t link[]; /* room for every link that may own it */
};

struct routes {
    const struct router_config *cfg;
    struct route_domain *domains;
    bool *up;
};

const char *route_verdict_name(enum route_verdict v)
{
    static const char *const names[] = {
#define X(id, name) name,
        ROUTE_VERDICTS(X)
#undef X
    };
    return names[v];
}

static struct route_domain *find_domain(const struct routes *r, struct str name)
{
    struct route_domain *d = NULL;
    HASH_FIND(hh, r->domains, name.p, name.n, d);
    return d;
}

static bool owns(const struct route_domain *d, size_t link)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->link[i] == link)
            return true;
    return false;
}

static bool add_domain(struct routes *r, const char *name, size_t link)
{
    struct route_domain *d = find_domain(r, str_c(name));
    if (d == NULL) {
        d = mem_zalloc(sizeof *d + r->cfg->nlinks * sizeof d->link[0]);
        if (d == NULL)
            return false;
        d->name = name;
        HASH_ADD_KEYPTR(hh, r->domains, d->name, strlen(d->name), d);
        if (d->hh.tbl == NULL) {
            mem_free(d);
            return false;
        }
    }
    if (!owns(d, link))
        d->link[d->n++] = link;
    return true;
}

struct routes *routes_new(const struct router_config *cfg)
{
    struct routes *r = mem_zalloc(sizeof *r);
    if (r == NULL)
        return NULL;
    r->cfg = cfg;
    r->up = mem_zalloc(cfg->nlinks + 1);
    bool ok = r->up != NULL;
    for (size_t i = 0; ok && i < cfg->nlinks; i++)
        for (size_t k = 0; ok && k < cfg->links[i].ndomains; k++)
            if (cfg->links[i].role == ROLE_SERVER)
                ok = add_domain(r, cfg->links[i].domains[k], i);
    if (ok)
        return r;
    routes_free(r);
    return NULL;
}

void routes_free(struct routes *r)
{
    if (r == NULL)
        return;
    struct route_domain *d, *following;
    HASH_ITER(hh, r->domains, d, following)
    {
        HASH_DEL(r->domains, d);
        mem_free(d);
    }
    mem_free(r->up);
    mem_free(r);
}

void routes_set_up(struct routes *r, size_t link, bool up)
{
    if (link < r->cfg->nlinks)
        r->up[link] = up;
}

bool routes_is_up(const struct routes *r, size_t link)
{
    return link < r->cfg->nlinks && r->up[link];
}

/* ---- choosing a link ------------------------------------------------------------------------- */

/* The weight of a gateway for a sender; the highest wins. Hashing the hashes keeps the key short
 * and its parts apart. Two 32-bit weights may be equal: then the first gateway wins, always. */
static uint32_t weight(uint32_t local, uint32_t domain, const char *gateway)
{
    const uint32_t key[3] = {local, domain, table_hash(gateway, strlen(gateway))};
    return table_hash(key, sizeof key);
}

static bool choose_gateway(const struct routes *r, struct str address, struct str domain,
                           size_t *link)
{
    struct str part = jid_split(address).local;
    uint32_t local = part.n ? table_hash(part.p, part.n) : 0;
    uint32_t host = table_hash(domain.p, domain.n);
    uint64_t best_priority = 0;
    uint32_t best = 0;
    bool found = false;
    for (size_t i = 0; i < r->cfg->nlinks; i++) {
        const struct rcfg_link *k = &r->cfg->links[i];
        if (k->role != ROLE_GATEWAY || !r->up[i] || (found && k->priority > best_priority))
            continue;
        uint32_t w = weight(local, host, k->name);
        if (found && k->priority == best_priority && w <= best)
            continue;
        best_priority = k->priority;
        best = w;
        *link = i;
        found = true;
    }
    return found;
}

static bool choose_server(const struct routes *r, const struct route_domain *d, size_t *link)
{
    const struct rcfg_link *links = r->cfg->links;
    bool found = false;
    for (size_t i = 0; i < d->n; i++) {
        size_t l = d->link[i];
        if (!r->up[l] || (found && links[l].priority >= links[*link].priority))
            continue;
        *link = l;
        found = true;
    }
    return found;
}

bool routes_again(const struct routes *r, struct str sender, struct str from, struct str to,
                  size_t *link)
{
    const struct route_domain *d = find_domain(r, to);
    return d != NULL ? choose_server(r, d, link) : choose_gateway(r, sender, from, link);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static struct route pass(size_t link)
{
    return (struct route){.verdict = ROUTE_TO, .link = link};
}

static struct route refuse(const char *text)
{
    return (struct route){.verdict = ROUTE_REFUSE, .text = text};
}

static struct route fail(const struct stanza *st, const char *type, const char *condition,
                         const char *text)
{
    if (!bounce_allowed(st))
        return (struct route){.verdict = ROUTE_DROP, .text = text};
    return (struct route){ROUTE_BOUNCE, 0, type, condition, text};
}

static bool is_answer(const struct stanza *st)
{
    return str_is(st->type, "error") || str_is(st->type, "result");
}

/* The name of one of the links: it stands for the router itself. */
static bool is_own_name(const struct routes *r, struct str domain)
{
    for (size_t i = 0; i < r->cfg->nlinks; i++)
        if (str_is(domain, r->cfg->links[i].component))
            return true;
    return false;
}

static struct route for_self(const struct stanza *st)
{
    /* Nothing is asked from these names here, so an answer to them belongs to nobody. */
    enum route_verdict v = is_answer(st) ? ROUTE_DROP : ROUTE_SELF;
    return (struct route){.verdict = v, .text = "an answer to the router's own name"};
}

/* Within the inside; never back to where it came from, or a domain that its server does not host
 * after all would go round for ever. */
static struct route to_local(const struct routes *r, const struct route_domain *d, size_t source,
                             const struct stanza *st)
{
    size_t link;
    if (owns(d, source))
        return fail(st, "cancel", "service-unavailable", "the sending server owns this domain");
    if (choose_server(r, d, &link))
        return pass(link);
    return fail(st, "wait", "remote-server-timeout", server_gone);
}

static struct route from_server(const struct routes *r, size_t source, const struct stanza *st,
                                struct str from, struct str to)
{
    const struct route_domain *sender = find_domain(r, from), *target = find_domain(r, to);
    if (sender == NULL || !owns(sender, source))
        return refuse("the sender's domain is not one of this link's");
    if (target != NULL)
        return to_local(r, target, source, st);
    if (is_own_name(r, to))
        return for_self(st);
    size_t link;
    if (choose_gateway(r, st->from, from, &link))
        return pass(link);
    return fail(st, "wait", "remote-server-timeout", gateway_gone);
}

static struct route from_gateway(const struct routes *r, size_t source, const struct stanza *st,
                                 struct str from, struct str to)
{
    if (find_domain(r, from) != NULL)
        return refuse("the sender's domain is one of the inside");
    if (str_is(from, r->cfg->links[source].component)) {
        /* The gateway in person: it probes the link, and the link ends here. */
        return for_self(st);
    }
    if (is_own_name(r, from))
        return refuse("the sender's domain is a name of the router's");
    const struct route_domain *target = find_domain(r, to);
    if (target != NULL)
        return to_local(r, target, source, st);
    if (is_own_name(r, to))
        return refuse("the router's own names are not for the outside");
    return fail(st, "cancel", "item-not-found", "this domain is not served here");
}

struct route routes_decide(const struct routes *r, size_t source, const struct stanza *st,
                           struct str from, struct str to)
{
    if (source >= r->cfg->nlinks)
        return refuse("the sending link is not known any more");
    return r->cfg->links[source].role == ROLE_SERVER ? from_server(r, source, st, from, to)
                                                     : from_gateway(r, source, st, from, to);
}
