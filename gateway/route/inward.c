#include "gateway/route/inward.h"

#include "core/base/mem.h"
#include "core/base/table.h"
#include "core/xml/jid.h"

/* A name and the links that list it. */
struct entry {
    UT_hash_handle hh;
    const char *name; /* of the snapshot */
    uint64_t links;
};

struct inward {
    const struct gateway_config *cfg;
    struct entry *domains, *partners;
    uint64_t all_domains, all_partners; /* links without a list */
};

static uint64_t bit(size_t link)
{
    return UINT64_C(1) << link;
}

static uint64_t listed(const struct entry *table, struct str name)
{
    const struct entry *e = NULL;
    HASH_FIND(hh, table, name.p, name.n, e);
    return e != NULL ? e->links : 0;
}

static bool list(struct entry **table, const char *name, size_t link)
{
    struct entry *e = NULL;
    size_t n = strlen(name);
    HASH_FIND(hh, *table, name, n, e);
    if (e == NULL) {
        if ((e = mem_zalloc(sizeof *e)) == NULL)
            return false;
        e->name = name;
        HASH_ADD_KEYPTR(hh, *table, e->name, n, e);
        if (e->hh.tbl == NULL) {
            mem_free(e);
            return false;
        }
    }
    e->links |= bit(link);
    return true;
}

static bool list_all(struct entry **table, uint64_t *all, char *const *names, size_t n, size_t link)
{
    if (n == 0)
        *all |= bit(link);
    for (size_t i = 0; i < n; i++)
        if (!list(table, names[i], link))
            return false;
    return true;
}

static void empty(struct entry **table)
{
    struct entry *e, *next;
    HASH_ITER(hh, *table, e, next)
    {
        HASH_DEL(*table, e);
        mem_free(e);
    }
}

struct inward *inward_new(const struct gateway_config *cfg)
{
    struct inward *t = mem_zalloc(sizeof *t);
    if (t == NULL)
        return NULL;
    t->cfg = cfg;
    for (size_t i = 0; i < cfg->nlinks && i < LINKS_MAX; i++) {
        const struct cfg_link *k = &cfg->links[i];
        if (!list_all(&t->domains, &t->all_domains, k->domains, k->ndomains, i) ||
            !list_all(&t->partners, &t->all_partners, k->partners, k->npartners, i)) {
            inward_free(t);
            return NULL;
        }
    }
    return t;
}

void inward_free(struct inward *t)
{
    if (t == NULL)
        return;
    empty(&t->domains);
    empty(&t->partners);
    mem_free(t);
}

uint32_t inward_sender(struct str from)
{
    struct jid j = jid_split(from);
    const uint32_t key[2] = {j.local.n ? table_hash(j.local.p, j.local.n) : 0,
                             j.domain.n ? table_hash(j.domain.p, j.domain.n) : 0};
    return table_hash(key, sizeof key);
}

size_t inward_lines(const struct cfg_link *k)
{
    return k->component == NULL && k->npartners > 0 ? k->npartners : 1;
}

/* By its own name, or by that of the domain whose subdomain it is. */
static uint64_t serving(const struct inward *t, struct str local)
{
    uint64_t own = t->domains != NULL ? listed(t->domains, local) : 0;
    const struct cfg_domain *d = gateway_config_domain(t->cfg, local);
    if (d == NULL)
        return 0;
    if (own == 0 && t->domains != NULL)
        own = listed(t->domains, str_c(d->name));
    return own | t->all_domains;
}

uint64_t inward_candidates(const struct inward *t, struct str local, struct str remote)
{
    uint64_t partners = t->partners != NULL ? listed(t->partners, remote) : 0;
    return serving(t, local) & (partners | t->all_partners);
}

struct inward_line inward_line(const struct inward *t, size_t link, struct str remote)
{
    const struct cfg_link *k = &t->cfg->links[link];
    struct inward_line l = {link, 0};
    for (size_t i = 0; inward_lines(k) > 1 && i < k->npartners; i++)
        if (str_is(remote, k->partners[i]))
            l.line = i;
    return l;
}

/* The highest wins. */
static uint32_t weight(const struct inward *t, size_t link, uint32_t sender)
{
    const char *name = t->cfg->links[link].name;
    const uint32_t key[2] = {sender, table_hash(name, strlen(name))};
    return table_hash(key, sizeof key);
}

bool inward_pick(const struct inward *t, const struct inward_key *key,
                 bool (*up)(void *arg, struct inward_line line, struct str local), void *arg,
                 struct inward_line *out)
{
    uint64_t left = inward_candidates(t, key->local, key->remote);
    uint64_t best_priority = 0;
    uint32_t best_weight = 0;
    bool found = false;
    for (size_t i = 0; left != 0; i++, left >>= 1) {
        if (!(left & 1))
            continue;
        struct inward_line line = inward_line(t, i, key->remote);
        uint64_t priority = t->cfg->links[i].priority;
        if ((found && priority > best_priority) || !up(arg, line, key->local))
            continue;
        uint32_t w = weight(t, i, key->sender);
        if (found && priority == best_priority && w <= best_weight)
            continue;
        *out = line;
        best_priority = priority;
        best_weight = w;
        found = true;
    }
    return found;
}

bool inward_owns(const struct inward *t, size_t link, struct str local, struct str remote)
{
    return link < LINKS_MAX && (inward_candidates(t, local, remote) & bit(link)) != 0;
}

static bool has(char *const *names, size_t n, struct str name)
{
    bool found = n == 0;
    for (size_t i = 0; i < n && !found; i++)
        found = str_is(name, names[i]);
    return found;
}

bool inward_lists(const struct gateway_config *cfg, const struct cfg_link *k, struct str local,
                  struct str remote)
{
    const struct cfg_domain *d = gateway_config_domain(cfg, local);
    return d != NULL && has(k->partners, k->npartners, remote) &&
           (has(k->domains, k->ndomains, local) || has(k->domains, k->ndomains, str_c(d->name)));
}
