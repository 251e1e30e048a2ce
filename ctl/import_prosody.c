/* Prosody 0.12 and 13: prosody.cfg.lua and the files that it includes. */
#include <stdio.h>

#include "ctl/import.h"

static const char *text_of(const struct import *im, const char *key)
{
    return tree_text(&im->tree, tree_get(&im->tree, 0, key));
}

/* A switch of the global section. */
static bool is_on(const struct import *im, const char *key, bool standard)
{
    uint32_t node = tree_get(&im->tree, 0, key);
    return node == 0 ? standard : strcmp(tree_text(&im->tree, node), "true") == 0;
}

/* `modules_enabled` and its like hold this text. */
static bool lists(const struct import *im, uint32_t list, const char *text)
{
    const struct tree *t = &im->tree;
    for (uint32_t i = list != 0 ? tree_first(t, list) : 0; i != 0; i = tree_next(t, i))
        if (strcmp(tree_text(t, i), text) == 0)
            return true;
    return false;
}

static bool has_module(const struct import *im, const char *module, bool without_list)
{
    uint32_t enabled = tree_get(&im->tree, 0, "modules_enabled");
    uint32_t disabled = tree_get(&im->tree, 0, "modules_disabled");
    return !lists(im, disabled, module) &&
           (enabled == 0 ? without_list : lists(im, enabled, module));
}

/* ---- hosts ----------------------------------------------------------------------------------- */

/* What Sallyport has only once, or by remote domain. */
static void look_at_overrides(struct import *im, uint32_t host)
{
    const struct tree *t = &im->tree;
    for (uint32_t i = tree_first(t, host); i != 0; i = tree_next(t, i)) {
        const char *key = tree_key(t, i);
        if (strncmp(key, "s2s_", 4) == 0 || strcmp(key, "dialback_secret") == 0)
            import_remark(im, REMARK_DECIDE, i,
                          "%.60s of %.100s alone: Sallyport has it for all local domains", key,
                          tree_text(t, host));
    }
}

static void read_certificate(struct import *im, uint32_t host, struct import_domain *d)
{
    const struct tree *t = &im->tree;
    uint32_t ssl = tree_get(t, host, "ssl");
    uint32_t certificate = ssl != 0 ? tree_get(t, ssl, "certificate") : 0;
    uint32_t key = ssl != 0 ? tree_get(t, ssl, "key") : 0;
    if (certificate == 0)
        certificate = tree_get(t, host, "certificate");
    if (certificate != 0)
        d->certificate = tree_text(t, certificate);
    if (key != 0)
        d->key = tree_text(t, key);
}

static void read_host(struct import *im, uint32_t host)
{
    const struct tree *t = &im->tree;
    bool component = strcmp(tree_key(t, host), "Component") == 0;
    uint32_t enabled = tree_get(t, host, "enabled");
    if (enabled != 0 && strcmp(tree_text(t, enabled), "false") == 0) {
        import_remark(im, REMARK_DIFFERS, host, "%.100s is not enabled: left out",
                      tree_text(t, host));
        return;
    }
    if (lists(im, tree_get(t, host, "modules_disabled"), "s2s")) {
        import_remark(im, REMARK_DIFFERS, host, "%.100s does not federate (no s2s): left out",
                      tree_text(t, host));
        return;
    }
    struct import_domain *d = import_domain(im, host, tree_text(t, host));
    if (d == NULL)
        return;
    read_certificate(im, host, d);
    look_at_overrides(im, host);
    if (component)
        import_remark(im, REMARK_DIFFERS, host,
                      "the component %.100s is a domain of its own here, too; leave it out if "
                      "nobody outside is to reach it",
                      tree_text(t, host));
}

static void read_hosts(struct import *im)
{
    const struct tree *t = &im->tree;
    for (uint32_t i = tree_first(t, 0); i != 0; i = tree_next(t, i))
        if (strcmp(tree_key(t, i), "VirtualHost") == 0 || strcmp(tree_key(t, i), "Component") == 0)
            read_host(im, i);
    uint32_t folder = tree_get(t, 0, "certificates");
    if (folder != 0)
        import_remark(im, REMARK_DECIDE, folder,
                      "certificates are found in \"%.100s\" by their names; here each domain gets "
                      "certificate and key, without which a self-signed one is made",
                      tree_text(t, folder));
}

/* ---- security -------------------------------------------------------------------------------- */

static void each_peer(struct import *im, const char *list, const char *policy, const char *auth)
{
    const struct tree *t = &im->tree;
    uint32_t node = tree_get(t, 0, list);
    for (uint32_t i = node != 0 ? tree_first(t, node) : 0; i != 0; i = tree_next(t, i)) {
        /* A set may be written { ["a.example"] = true } as well. */
        const char *key = tree_key(t, i);
        struct import_peer *p = import_peer(im, i, *key != '\0' ? key : tree_text(t, i));
        if (p == NULL)
            continue;
        p->policy = policy != NULL ? policy : p->policy;
        p->auth = auth != NULL ? auth : p->auth;
    }
}

static void read_security(struct import *im)
{
    bool tls = has_module(im, "tls", true), dialback = has_module(im, "dialback", true);
    bool required = is_on(im, "s2s_require_encryption", true);
    bool secure = is_on(im, "s2s_secure_auth", false);
    uint32_t node = tree_get(&im->tree, 0, "s2s_secure_auth");
    im->security_mode = !tls ? "no-tls" : required ? "tls-required" : "tls-optional";
    if (!tls)
        import_remark(im, REMARK_DECIDE, tree_get(&im->tree, 0, "modules_enabled"),
                      "mod_tls is not loaded: everything is in clear; tls-optional is better");
    im->auth = secure || !dialback ? "external" : NULL;
    if (im->auth != NULL)
        import_remark(im, REMARK_DECIDE, node,
                      "remote domains have to show a valid certificate there (%s)",
                      secure ? "s2s_secure_auth" : "mod_dialback is not loaded");
    each_peer(im, "s2s_insecure_domains", NULL, "any");
    each_peer(im, "s2s_secure_domains", NULL, "external");
}

static void read_lists(struct import *im)
{
    const struct tree *t = &im->tree;
    bool white = tree_get(t, 0, "s2s_whitelist") != 0 && has_module(im, "s2s_whitelist", false);
    bool black = tree_get(t, 0, "s2s_blacklist") != 0 && has_module(im, "s2s_blacklist", false);
    if (white)
        each_peer(im, "s2s_whitelist", "allow", NULL);
    if (black)
        each_peer(im, "s2s_blacklist", "deny", NULL);
    im->privacy_mode = white ? "allow-list" : black ? "deny-list" : "off";
    if (!white && !black)
        import_remark(im, REMARK_DECIDE, 0,
                      "Prosody federates with everybody, therefore privacy_mode \"off\"; the "
                      "default here is \"allow-list\"");
}

/* mod_s2soutinjection. */
static void read_routes(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t node = tree_get(t, 0, "s2s_connect_overrides");
    for (uint32_t i = node != 0 ? tree_first(t, node) : 0; i != 0; i = tree_next(t, i)) {
        char host[IMPORT_VALUE_MAX];
        uint32_t first = tree_first(t, i), second = first != 0 ? tree_next(t, first) : 0;
        const char *text = tree_text(t, first != 0 ? first : i);
        const char *port = second != 0 ? tree_text(t, second) : "";
        const char *colon = strrchr(text, ':');
        struct import_peer *p = import_peer(im, i, tree_key(t, i));
        bool split = second == 0 && colon != NULL && strchr(text, ':') == colon;
        snprintf(host, sizeof host, "%.*s", split ? (int)(colon - text) : IMPORT_VALUE_MAX - 1,
                 text);
        if (p != NULL)
            import_route(im, i, p, host, split ? colon + 1 : port);
    }
}

/* ---- the network ----------------------------------------------------------------------------- */

static void each_listener(struct import *im, uint32_t interfaces, const char *port)
{
    const struct tree *t = &im->tree;
    bool six = is_on(im, "use_ipv6", true);
    uint32_t i = interfaces != 0 ? tree_first(t, interfaces) : 0;
    if (i == 0) {
        import_listen(im, 0, "*", port);
        if (six)
            import_listen(im, 0, "::", port);
    }
    for (; i != 0; i = tree_next(t, i))
        import_listen(im, i, tree_text(t, i), port);
}

static void read_listeners(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t ports = tree_get(t, 0, "s2s_ports"), interfaces = tree_get(t, 0, "s2s_interfaces");
    if (interfaces == 0)
        interfaces = tree_get(t, 0, "interfaces");
    if (ports == 0 && interfaces == 0 && is_on(im, "use_ipv6", true))
        return;
    uint32_t i = ports != 0 ? tree_first(t, ports) : 0;
    if (i == 0)
        each_listener(im, interfaces, ports != 0 ? tree_text(t, ports) : "5269");
    for (; i != 0; i = tree_next(t, i))
        each_listener(im, interfaces, tree_text(t, i));
}

static void read_link(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t ports = tree_get(t, 0, "component_ports");
    uint32_t interfaces = tree_get(t, 0, "component_interfaces");
    uint32_t port = ports != 0 && tree_first(t, ports) != 0 ? tree_first(t, ports) : ports;
    uint32_t ip =
        interfaces != 0 && tree_first(t, interfaces) != 0 ? tree_first(t, interfaces) : interfaces;
    import_link_address(im, ip, tree_text(t, ip), port != 0 ? tree_text(t, port) : "5347");
    import_remark(im, REMARK_DECIDE, 0,
                  "Prosody needs a Component for the gateway, whose component_secret goes "
                  "into " IMPORT_LINK_SECRET ", and mod_sallyport: see docs/inside/prosody.md");
}

/* ---- the rest -------------------------------------------------------------------------------- */

static const struct {
    const char *key, *text;
} without[] = {
    {"s2s_direct_tls_ports", "direct TLS is not listened for: see listen.direct_tls"},
    {"limits", "rates of connections are not limited; limits.* bound their number and size"},
    {"s2s_use_dane", "DANE: see the README for what this version does with TLSA records"},
    {"unbound", "resolvers: give them as dns.servers"},
    {"s2s_ssl", "TLS settings of s2s: tls.minimum and tls.ca_file are what there is here"},
    {"s2s_tcp_keepalives", "links and streams are watched by timeouts.dead and timeouts.keepalive"},
    {"external_addresses", "addresses behind NAT: others find them in DNS"},
};

static void read_rest(struct import *im)
{
    const struct tree *t = &im->tree;
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
        uint32_t node = tree_get(t, 0, without[i].key);
        if (node != 0)
            import_remark(im, REMARK_DIFFERS, node, "%s: %s", without[i].key, without[i].text);
    }
    if (has_module(im, "s2s_bidi", false))
        import_remark(im, REMARK_DIFFERS, tree_get(t, 0, "modules_enabled"),
                      "mod_s2s_bidi: one connection per direction here");
    if (tree_get(t, 0, "dialback_secret") != 0) {
        im->dialback_secret = true;
        import_remark(im, REMARK_DECIDE, tree_get(t, 0, "dialback_secret"),
                      "put dialback_secret into " IMPORT_DIALBACK_SECRET);
    }
    import_seconds(im, tree_get(t, 0, "s2s_timeout"), "timeouts.auth", text_of(im, "s2s_timeout"),
                   1, 600, im->timeout_auth);
    import_stanza_size(im, tree_get(t, 0, "s2s_stanza_size_limit"),
                       text_of(im, "s2s_stanza_size_limit"));
}

void import_prosody(struct import *im)
{
    im->no_federation = lists(im, tree_get(&im->tree, 0, "modules_disabled"), "s2s");
    if (im->no_federation)
        import_remark(im, REMARK_DECIDE, tree_get(&im->tree, 0, "modules_disabled"),
                      "mod_s2s is disabled, therefore federation = false");
    read_hosts(im);
    read_security(im);
    read_lists(im);
    read_routes(im);
    read_listeners(im);
    read_link(im);
    read_rest(im);
}
