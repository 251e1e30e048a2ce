/* What a configuration needs beside itself: limits, certificates, and who may join. */
#include "core/base/mem.h"
#include "xcp/router_priv.h"

struct router_snapshot *router_snapshot_ref(struct router_snapshot *s)
{
    s->refs++;
    return s;
}

static void free_credentials(struct credentials *v, size_t n)
{
    for (size_t i = 0; v != NULL && i < n; i++)
        credentials_free(&v[i]);
    mem_free(v);
}

void router_snapshot_unref(struct router_snapshot *s)
{
    if (s == NULL || --s->refs > 0)
        return;
    free_credentials(s->links, s->cfg->nlinks);
    free_credentials(s->splices, s->cfg->nsplices);
    router_config_unref(s->cfg);
    mem_free(s->by_link);
    mem_free(s->accounts);
    mem_free(s->account_link);
    mem_free(s);
}

static bool load(struct credentials *c, const char *name, const struct rcfg_proof *p,
                 struct buf *errors)
{
    struct credentials_settings s = {.auth = (enum link_auth)p->auth,
                                     .name = name,
                                     .certificate = p->certificate,
                                     .key = p->key,
                                     .ca_file = p->ca_file,
                                     .store_file = p->store_file,
                                     .authlist = p->authlist,
                                     .nauthlist = p->nauthlist,
                                     .peer_name = p->peer_name};
    return credentials_init(c, &s, errors);
}

static bool load_all(struct router_snapshot *s, struct buf *errors)
{
    const struct router_config *cfg = s->cfg;
    bool ok = true;
    for (size_t i = 0; i < cfg->nlinks; i++)
        ok = load(&s->links[i], cfg->links[i].name, &cfg->links[i].proof, errors) && ok;
    for (size_t i = 0; i < cfg->nsplices; i++) {
        struct rcfg_proof tls = cfg->splices[i].proof;
        tls.auth = LINK_AUTH_TLS;
        ok = load(&s->splices[i], cfg->splices[i].name, &tls, errors) && ok;
    }
    return ok;
}

static void make_accounts(struct router_snapshot *s)
{
    for (size_t i = 0; i < s->cfg->nlinks; i++) {
        const struct rcfg_link *k = &s->cfg->links[i];
        s->by_link[i] = (struct link_account){.component = str_c(k->component),
                                              .secret = str_c(k->secret),
                                              .trust = &s->links[i].trust};
        if (k->transport != TRANSPORT_ACCEPT)
            continue;
        if (s->accept_tls == NULL) /* check_router.c: they are all the same */
            s->accept_tls = s->links[i].tls;
        s->accounts[s->naccounts] = s->by_link[i];
        s->account_link[s->naccounts++] = i;
    }
}

struct router_snapshot *router_snapshot_new(struct router_config *cfg, struct buf *errors)
{
    struct router_snapshot *s = mem_zalloc(sizeof *s);
    if (s == NULL) {
        buf_puts(errors, "out of memory\n");
        return NULL;
    }
    s->refs = 1;
    s->cfg = router_config_ref(cfg);
    s->limits = framer_limits_default;
    s->limits.element = (size_t)cfg->limits.stanza_size;
    s->links = mem_zalloc((cfg->nlinks + 1) * sizeof *s->links);
    s->splices = mem_zalloc((cfg->nsplices + 1) * sizeof *s->splices);
    s->by_link = mem_zalloc((cfg->nlinks + 1) * sizeof *s->by_link);
    s->accounts = mem_zalloc((cfg->nlinks + 1) * sizeof *s->accounts);
    s->account_link = mem_zalloc((cfg->nlinks + 1) * sizeof *s->account_link);
    bool memory = s->links != NULL && s->splices != NULL && s->by_link != NULL &&
                  s->accounts != NULL && s->account_link != NULL;
    if (!memory)
        buf_puts(errors, "out of memory\n");
    if (memory && load_all(s, errors)) {
        make_accounts(s);
        return s;
    }
    router_snapshot_unref(s);
    return NULL;
}
