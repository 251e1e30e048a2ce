/* jabberd2 2.x: s2s.xml has the federation, sm.xml the domains, router.xml the way inside. */
#include "ctl/import.h"

/* The file with this root element; the last one given. */
static uint32_t file_of(const struct import *im, const char *root)
{
    return tree_get(&im->tree, 0, root);
}

static uint32_t at(const struct import *im, uint32_t file, const char *path)
{
    return file != 0 ? tree_path(&im->tree, file, path) : 0;
}

static const char *text(const struct import *im, uint32_t file, const char *path)
{
    return tree_text(&im->tree, at(im, file, path));
}

/* <local><id>, once for each domain, in sm.xml and c2s.xml. */
static void read_domains(struct import *im, const char *root)
{
    const struct tree *t = &im->tree;
    uint32_t local = at(im, file_of(im, root), "local");
    for (uint32_t i = local != 0 ? tree_first(t, local) : 0; i != 0; i = tree_next(t, i)) {
        if (strcmp(tree_key(t, i), "id") != 0)
            continue;
        struct import_domain *d = import_domain(im, i, tree_text(t, i));
        uint32_t pem = at(im, file_of(im, "s2s"), "local/pemfile");
        if (d != NULL && pem != 0)
            d->certificate = tree_text(t, pem);
    }
}

static void read_link(struct import *im, uint32_t s2s, uint32_t router)
{
    const char *ip = text(im, s2s, "router/ip"), *port = text(im, s2s, "router/port");
    const char *user = text(im, s2s, "router/user");
    if (*ip == '\0')
        ip = text(im, router, "local/ip");
    if (*port == '\0')
        port = text(im, router, "local/port");
    im->link.protocol = "jabberd2";
    import_link_address(im, at(im, s2s, "router/ip"), ip, *port != '\0' ? port : "5347");
    if (strspn(user, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
            strlen(user) &&
        strlen(user) < 64)
        str_copy(im->link.user, sizeof im->link.user, str_c(user));
    if (*im->link.user == '\0')
        str_copy(im->link.user, sizeof im->link.user, STR("jabberd"));
    str_copy(im->link.component, sizeof im->link.component, STR("s2s"));
    import_remark(im, REMARK_DECIDE, at(im, s2s, "router/pass"),
                  "put <pass>, the password of this user of the router, into " IMPORT_LINK_SECRET);
    import_remark(im, REMARK_DECIDE, at(im, s2s, "id"),
                  "Sallyport takes the place of s2s at jabberd2's router: do not start s2s; see "
                  "docs/inside/jabberd2.md");
}

static void read_security(struct import *im, uint32_t s2s)
{
    const struct tree *t = &im->tree;
    uint32_t security = at(im, s2s, "security");
    bool pem = at(im, s2s, "local/pemfile") != 0;
    bool required = at(im, s2s, "security/require_tls") != 0;
    im->security_mode = required ? "tls-required" : "tls-optional";
    if (!pem)
        import_remark(im, REMARK_DIFFERS, at(im, s2s, "local"),
                      "without <pemfile> there is no TLS there; here a self-signed certificate is "
                      "made");
    for (uint32_t i = security != 0 ? tree_first(t, security) : 0; i != 0; i = tree_next(t, i)) {
        struct import_peer *p = strcmp(tree_key(t, i), "whitelist_domain") == 0
                                    ? import_peer(im, i, tree_text(t, i))
                                    : NULL;
        if (p != NULL)
            p->policy = "allow";
    }
    bool list = at(im, s2s, "security/enable_whitelist") != 0;
    im->privacy_mode = list ? "allow-list" : "off";
    if (!list)
        import_remark(im, REMARK_DECIDE, security,
                      "jabberd2 federates with everybody, therefore privacy_mode \"off\"; the "
                      "default here is \"allow-list\"");
}

static void read_network(struct import *im, uint32_t s2s)
{
    const struct tree *t = &im->tree;
    uint32_t ip = at(im, s2s, "local/ip"), origins = at(im, s2s, "local/origins");
    const char *port = text(im, s2s, "local/port");
    if (ip != 0)
        import_listen(im, ip, tree_text(t, ip), port);
    for (uint32_t i = origins != 0 ? tree_first(t, origins) : 0; i != 0; i = tree_next(t, i))
        if (strcmp(tree_key(t, i), "ip") == 0)
            import_source_address(im, i, tree_text(t, i));
    if (at(im, s2s, "local/secret") != 0) {
        im->dialback_secret = true;
        import_remark(im, REMARK_DECIDE, at(im, s2s, "local/secret"),
                      "put <secret> of <local> into " IMPORT_DIALBACK_SECRET);
    }
    import_stanza_size(im, at(im, s2s, "io/limits/stanzasize"),
                       text(im, s2s, "io/limits/stanzasize"));
    import_seconds(im, at(im, s2s, "check/queue"), "timeouts.queue", text(im, s2s, "check/queue"),
                   1, 3600, im->timeout_queue);
    import_seconds(im, at(im, s2s, "check/idle"), "timeouts.idle", text(im, s2s, "check/idle"), 1,
                   604800, im->timeout_idle);
}

static const struct {
    const char *path, *text;
} without[] = {
    {"lookup/resolve-ipv6", "<resolve-ipv6/>: both families are always tried here"},
    {"out-conn-reuse", "<out-conn-reuse/>: domains never share a stream by their address here"},
    {"io/compression", "<compression/>: streams are not compressed here"},
    {"local/verify-mode", "<verify-mode>: certificates are looked at, whatever it says"},
    {"local/ciphers", "<ciphers>: OpenSSL's default list is used here"},
    {"local/cachain", "<cachain>: give it as tls.ca_file"},
    {"router/non-default", "<non-default/>: give this link its partners, or another priority"},
    {"lookup/no-cache", "<no-cache/>: DNS answers are kept for as long as they say"},
};

static void read_rest(struct import *im, uint32_t s2s)
{
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++)
        if (at(im, s2s, without[i].path) != 0)
            import_remark(im, REMARK_DIFFERS, at(im, s2s, without[i].path), "%s", without[i].text);
    uint32_t lookup = at(im, s2s, "lookup");
    for (uint32_t i = lookup != 0 ? tree_first(&im->tree, lookup) : 0; i != 0;
         i = tree_next(&im->tree, i))
        if (strcmp(tree_key(&im->tree, i), "srv") == 0 &&
            strcmp(tree_text(&im->tree, i), "xmpp-server") != 0)
            import_remark(im, REMARK_DIFFERS, i, "SRV records of \"%.40s\" are not asked for here",
                          tree_text(&im->tree, i));
}

void import_jabberd2(struct import *im)
{
    uint32_t s2s = file_of(im, "s2s"), router = file_of(im, "router");
    read_domains(im, "sm");
    read_domains(im, "c2s");
    if (s2s == 0)
        import_remark(im, REMARK_DECIDE, 0, "s2s.xml was not given: it has the federation");
    if (im->ndomains == 0)
        import_remark(im, REMARK_DECIDE, 0, "the domains are in sm.xml: give it, too");
    read_link(im, s2s, router);
    read_security(im, s2s);
    read_network(im, s2s);
    read_rest(im, s2s);
}
