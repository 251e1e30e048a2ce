#include "config/check.h"
#include "config/router.h"

static void check_role(struct schema_load *l, const struct rcfg_link *k, size_t i)
{
    bool domains = schema_is_set(l, "links", i, "domains");
    if (k->role == ROLE_GATEWAY && domains)
        schema_error(l, "links", i, "domains", "only a link with role \"server\" owns domains");
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

/* What is needed to prove something by certificates, in an element of `list`. */
static void check_certificates(struct schema_load *l, const char *list, size_t i, const char *where,
                               bool root_is_enough)
{
    bool certificate = schema_is_set(l, list, i, "certificate");
    bool key = schema_is_set(l, list, i, "key");
    bool known = schema_is_set(l, list, i, "store_file") || schema_is_set(l, list, i, "authlist");
    bool root = schema_is_set(l, list, i, "ca_file");
    if (!certificate && !key)
        schema_error(l, list, i, where, "needs certificate and key: what we show the other side");
    if (!known && !root)
        schema_error(l, list, i, where,
                     "needs store_file, authlist or ca_file: how we know the other side");
    else if (!known && !root_is_enough)
        schema_error(l, list, i, "ca_file",
                     "is not enough without \"tls+password\": list the certificate in store_file, "
                     "or its key in authlist");
}

static void check_files(struct schema_load *l, const char *list, size_t i)
{
    bool certificate = schema_is_set(l, list, i, "certificate");
    bool key = schema_is_set(l, list, i, "key");
    if (certificate != key)
        schema_error(l, list, i, certificate ? "certificate" : "key", "needs a %s beside it",
                     certificate ? "key" : "certificate");
}

static void check_password(struct schema_load *l, const struct rcfg_link *k, size_t i)
{
    bool auth = schema_is_set(l, "links", i, "auth");
    if (k->proof.auth != LINK_AUTH_TLS && !schema_is_set(l, "links", i, "secret_file"))
        schema_error(l, "links", i, "secret_file",
                     "required but missing (only auth \"tls\" needs no password)");
    if (k->proof.auth == LINK_AUTH_PASSWORD && k->role == ROLE_GATEWAY &&
        k->transport == TRANSPORT_DIAL)
        schema_error(l, "links", i, auth ? "auth" : "transport",
                     "a gateway that is dialled needs auth \"tls\" or \"tls+password\": the "
                     "handshake proves the gateway to us, but not us to the gateway");
}

static void check_auth(struct schema_load *l, const struct rcfg_link *k, size_t i)
{
    bool name = schema_is_set(l, "links", i, "peer_name");
    bool root = schema_is_set(l, "links", i, "ca_file");
    check_password(l, k, i);
    check_files(l, "links", i);
    if (schema_is_set(l, "links", i, "proven_file") && !name)
        schema_error(l, "links", i, "proven_file", "needs peer_name: it is what is remembered");
    if (k->proof.auth == LINK_AUTH_PASSWORD)
        return;
    /* With "tls" a root vouches only for a name that joined by password earlier. */
    check_certificates(l, "links", i, "auth", k->proof.auth == LINK_AUTH_TLS_PASSWORD || name);
    if (k->proof.auth == LINK_AUTH_TLS_PASSWORD && root && !name)
        schema_warn(l, "links", i, "ca_file",
                    "without peer_name every certificate of this root is accepted");
}

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

/* Who connects is known only after the TLS handshake: until then all look the same. */
static void check_shared(struct schema_load *l, const struct router_config *c)
{
    const struct rcfg_link *first = NULL;
    for (size_t i = 0; i < c->nlinks; i++) {
        const struct rcfg_link *k = &c->links[i];
        if (k->transport != TRANSPORT_ACCEPT || k->proof.auth == LINK_AUTH_PASSWORD)
            continue;
        if (first == NULL)
            first = k;
        const char *differs = !same_text(first->proof.certificate, k->proof.certificate)
                                  ? "certificate"
                              : !same_text(first->proof.key, k->proof.key)         ? "key"
                              : !same_text(first->proof.ca_file, k->proof.ca_file) ? "ca_file"
                                                                                   : NULL;
        if (differs != NULL)
            schema_error(l, "links", i, differs,
                         "must be that of links[%.64s]: with transport \"accept\" all links with "
                         "TLS share certificate, key and ca_file",
                         first->name ? first->name : "?");
    }
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
    if (c->nlinks == 0 && c->nsplices == 0 && schema_is_set(l, NULL, 0, "links"))
        schema_error(l, NULL, 0, "links", "at least one link or splice is required");
    for (size_t i = 0; i < c->nlinks; i++) {
        check_role(l, &c->links[i], i);
        check_address(l, &c->links[i], i);
        check_auth(l, &c->links[i], i);
        accepts |= c->links[i].transport == TRANSPORT_ACCEPT;
    }
    if (accepts && c->listen.nlinks == 0)
        schema_error(l, NULL, 0, "listen.links",
                     "at least one is required, because a link has transport \"accept\"");
    for (size_t i = 0; i < c->nsplices; i++) {
        check_files(l, "splices", i);
        check_certificates(l, "splices", i, "name", false);
    }
    check_shared(l, c);
    check_unique(l, c);
    check_log_rate(l, c->log.rate);
}
