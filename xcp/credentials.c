#include "xcp/credentials.h"

#include "core/base/mem.h"

enum { TLS_1_2_FLOOR = 0x0303 /* RFC 9325 3.1.1 */ };

static bool make_tls(struct credentials *c, const struct credentials_settings *s,
                     struct buf *errors)
{
    struct tls_identity own = {
        .domain = s->name, .certificate = s->certificate, .key = s->key};
    struct tls_settings t = {.identities = &own,
                             .nidentities = 1,
                             .ca_file = s->ca_file,
                             .minimum = TLS_1_2_FLOOR,
                             .no_system_store = true};
    c->tls = tls_ctx_new(&t, errors);
    return c->tls != NULL;
}

static bool make_store(struct credentials *c, const struct credentials_settings *s,
                       struct buf *errors)
{
    if (s->store_file == NULL)
        return true;
    c->store = tls_fingerprints(s->store_file, &c->trust.nstore, errors);
    c->trust.store = c->store;
    return c->store != NULL;
}

static bool make_authlist(struct credentials *c, const struct credentials_settings *s,
                          struct buf *errors)
{
    const char *why = "out of memory";
    c->authlist = mem_zalloc((s->nauthlist + 1) * sizeof *c->authlist);
    bool ok = c->authlist != NULL;
    for (size_t i = 0; ok && i < s->nauthlist; i++)
        ok = key_hash_parse(str_c(s->authlist[i]), &c->authlist[i], &why);
    if (!ok)
        buf_printf(errors, "authlist of %s: %s\n", s->name, why);
    c->trust.authlist = c->authlist;
    c->trust.nauthlist = s->nauthlist;
    return ok;
}

bool credentials_init(struct credentials *c, const struct credentials_settings *s,
                      struct buf *errors)
{
    *c = (struct credentials){.trust = {.auth = s->auth, .peer_name = str_c(s->peer_name)}};
    if (s->auth == LINK_AUTH_PASSWORD)
        return true;
    bool ok = make_tls(c, s, errors);
    ok = make_store(c, s, errors) && ok;
    ok = make_authlist(c, s, errors) && ok;
    if (!ok)
        credentials_free(c);
    return ok;
}

void credentials_free(struct credentials *c)
{
    tls_ctx_unref(c->tls);
    mem_free(c->store);
    mem_free(c->authlist);
    *c = (struct credentials){.tls = NULL};
}
