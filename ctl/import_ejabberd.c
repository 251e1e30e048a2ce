/* ejabberd 17 to 24: ejabberd.yml and the files that it includes. */
#include <stdio.h>

#include "ctl/import.h"

/* The text of a node; a name out of define_macro stands for its value. */
static uint32_t expand(const struct import *im, uint32_t node)
{
    const struct tree *t = &im->tree;
    uint32_t macros = tree_get(t, 0, "define_macro");
    uint32_t macro = node != 0 && macros != 0 && *tree_text(t, node) != '\0'
                         ? tree_get(t, macros, tree_text(t, node))
                         : 0;
    return macro != 0 ? macro : node;
}

static const char *get(const struct import *im, uint32_t of, const char *key)
{
    uint32_t node = tree_get(&im->tree, of, key);
    return tree_text(&im->tree, expand(im, node));
}

static uint32_t top(const struct import *im, const char *key)
{
    return expand(im, tree_get(&im->tree, 0, key));
}

static bool is_true(const char *text)
{
    return strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "on") == 0;
}

/* Does a list, or a single text, hold this? */
static bool holds(const struct import *im, uint32_t node, const char *text)
{
    const struct tree *t = &im->tree;
    if (node == 0)
        return false;
    for (uint32_t i = tree_first(t, node); i != 0; i = tree_next(t, i))
        if (strcmp(tree_text(t, expand(im, i)), text) == 0)
            return true;
    return strcmp(tree_text(t, node), text) == 0;
}

/* ---- domains --------------------------------------------------------------------------------- */

static const char *certificate_of(const struct import *im)
{
    static const char *const keys[] = {"s2s_certfile", "certfiles"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint32_t node = top(im, keys[i]);
        uint32_t first = node != 0 ? tree_first(&im->tree, node) : 0;
        if (node != 0 && *tree_text(&im->tree, first != 0 ? first : node) != '\0')
            return tree_text(&im->tree, first != 0 ? first : node);
    }
    return NULL;
}

static void read_hosts(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t hosts = top(im, "hosts");
    for (uint32_t i = hosts != 0 ? tree_first(t, hosts) : 0; i != 0; i = tree_next(t, i)) {
        struct import_domain *d = import_domain(im, i, tree_text(t, expand(im, i)));
        if (d != NULL)
            d->certificate = certificate_of(im);
    }
    if (tree_get(t, 0, "host_config") != 0)
        import_remark(im, REMARK_DECIDE, tree_get(t, 0, "host_config"),
                      "host_config: Sallyport has its settings for all local domains");
}

/* Modules with a name of their own, conference.HOST and the like. */
static void read_services(struct import *im)
{
    static const char *const names[] = {"mod_muc",         "mod_pubsub",    "mod_proxy65",
                                        "mod_http_upload", "mod_mix",       "mod_echo",
                                        "mod_irc",         "mod_multicast", "mod_delegation"};
    const struct tree *t = &im->tree;
    uint32_t modules = top(im, "modules");
    for (size_t i = 0; modules != 0 && i < sizeof names / sizeof names[0]; i++) {
        uint32_t node = tree_get(t, modules, names[i]);
        if (node == 0)
            continue;
        im->subdomains = true;
        import_remark(im, REMARK_DIFFERS, node,
                      "%s has a name below each domain: with subdomains = true all names below "
                      "belong to the inside",
                      names[i]);
    }
}

/* ---- security -------------------------------------------------------------------------------- */

static void read_tls(struct import *im)
{
    uint32_t node = tree_get(&im->tree, 0, "s2s_use_starttls");
    const char *mode = get(im, 0, "s2s_use_starttls");
    uint32_t modules = top(im, "modules");
    bool dialback = modules != 0 && tree_get(&im->tree, modules, "mod_s2s_dialback") != 0;
    bool trusted = strcmp(mode, "required_trusted") == 0;
    if (strcmp(mode, "required") == 0 || trusted)
        im->security_mode = "tls-required";
    else if (strcmp(mode, "optional") == 0 || is_true(mode))
        im->security_mode = "tls-optional";
    else
        im->security_mode = "no-tls";
    if (strcmp(im->security_mode, "no-tls") == 0)
        import_remark(im, REMARK_DECIDE, node,
                      "s2s_use_starttls is off, its default: everything is in clear; tls-optional "
                      "is better");
    if (trusted || !dialback) {
        im->auth = "external";
        import_remark(im, REMARK_DECIDE, node,
                      "remote domains have to show a valid certificate there (%s)",
                      trusted ? "required_trusted" : "mod_s2s_dialback is not loaded");
    }
    uint32_t options = top(im, "s2s_protocol_options");
    if (holds(im, options, "no_tlsv1_2"))
        im->tls_minimum = "1.3";
    if (tree_get(&im->tree, 0, "s2s_ciphers") != 0)
        import_remark(im, REMARK_DIFFERS, tree_get(&im->tree, 0, "s2s_ciphers"),
                      "s2s_ciphers: OpenSSL's default list is used here");
    const char *ca = get(im, 0, "s2s_cafile");
    ca = *ca != '\0' ? ca : get(im, 0, "ca_file");
    im->ca_file = *ca != '\0' ? ca : NULL;
}

/* One name of an acl: server, server_glob. */
static void add_name(struct import *im, uint32_t node, const char *kind, const char *policy)
{
    const char *name = tree_text(&im->tree, expand(im, node));
    const char *star = strpbrk(name, "*?[");
    bool glob = strcmp(kind, "server_glob") == 0 && star != NULL;
    bool plain = !glob || strcmp(name, "*") == 0 ||
                 (strncmp(name, "*.", 2) == 0 && strpbrk(name + 2, "*?[") == NULL);
    struct import_peer *p = plain ? import_peer(im, node, name) : NULL;
    if (!plain)
        import_remark(im, REMARK_DECIDE, node,
                      "%s \"%.100s\" (%s): a pattern here is \"*.suffix\" or \"*\"", kind, name,
                      policy);
    if (p != NULL && p->policy == NULL)
        p->policy = policy;
}

static void add_names(struct import *im, uint32_t kind, const char *policy)
{
    const struct tree *t = &im->tree;
    const char *key = tree_key(t, kind);
    if (strcmp(key, "server") != 0 && strcmp(key, "server_glob") != 0) {
        import_remark(im, REMARK_DECIDE, kind, "an acl by \"%.60s\" (%s) is left out", key, policy);
        return;
    }
    if (tree_first(t, kind) == 0)
        add_name(im, kind, key, policy);
    for (uint32_t i = tree_first(t, kind); i != 0; i = tree_next(t, i))
        add_name(im, i, key, policy);
}

static bool is_all(const char *acl)
{
    return strcmp(acl, "all") == 0;
}

/* acl: NAME: server: ...; the name stands in the rule. True: it is everybody. */
static bool add_acl(struct import *im, uint32_t where, const char *name, const char *policy)
{
    const struct tree *t = &im->tree;
    uint32_t acls = top(im, "acl");
    uint32_t acl = acls != 0 ? tree_get(t, acls, name) : 0;
    if (is_all(name))
        return true;
    if (acl == 0 && strcmp(name, "none") != 0)
        import_remark(im, REMARK_DECIDE, where, "there is no acl \"%.60s\" (%s)", name, policy);
    for (uint32_t i = acl != 0 ? tree_first(t, acl) : 0; i != 0; i = tree_next(t, i))
        add_names(im, i, policy);
    return false;
}

/* "acl: name", "name", or an acl on the spot, "server: name". */
static bool add_condition(struct import *im, uint32_t node, const char *policy)
{
    const struct tree *t = &im->tree;
    if (strcmp(tree_key(t, node), "acl") == 0 || *tree_key(t, node) == '\0')
        return add_acl(im, node, tree_text(t, node), policy);
    add_names(im, node, policy);
    return false;
}

/* "allow: name", "- deny: name", "allow: [..]", "- allow": a rule. True: everybody is meant, no
 * later rule counts. */
static bool add_rule(struct import *im, uint32_t rule, const char **rest)
{
    const struct tree *t = &im->tree;
    const char *verb = *tree_key(t, rule) != '\0' ? tree_key(t, rule) : tree_text(t, rule);
    bool bare = *tree_key(t, rule) == '\0';
    bool allow = strcmp(verb, "allow") == 0, deny = strcmp(verb, "deny") == 0, all = bare;
    if (!allow && !deny)
        return false;
    if (!bare && tree_first(t, rule) == 0)
        all = add_acl(im, rule, tree_text(t, rule), verb);
    for (uint32_t i = bare ? 0 : tree_first(t, rule); i != 0; i = tree_next(t, i)) {
        bool map = *tree_key(t, i) == '\0' && tree_first(t, i) != 0;
        for (uint32_t k = map ? tree_first(t, i) : 0; k != 0; k = tree_next(t, k))
            all = add_condition(im, k, allow ? "allow" : "deny") || all;
        if (!map)
            all = add_condition(im, i, allow ? "allow" : "deny") || all;
    }
    if (all)
        *rest = allow ? "allow" : "deny";
    return all;
}

/* In order, until one means everybody. */
static void add_rules(struct import *im, uint32_t rules, const char **rest)
{
    const struct tree *t = &im->tree;
    for (uint32_t i = tree_first(t, rules); i != 0; i = tree_next(t, i)) {
        bool end = false;
        if (*tree_key(t, i) == '\0' && tree_first(t, i) != 0) {
            for (uint32_t k = tree_first(t, i); k != 0 && !end; k = tree_next(t, k))
                end = add_rule(im, k, rest);
        } else {
            end = add_rule(im, i, rest);
        }
        if (end)
            return;
    }
}

static void read_access(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t access = top(im, "s2s_access"), named = top(im, "access_rules");
    uint32_t rules = access;
    const char *name = tree_text(t, access), *rest = NULL;
    if (access != 0 && *name != '\0')
        rules = named != 0 ? tree_get(t, named, name) : 0;
    if (access == 0 || is_all(name)) {
        im->privacy_mode = "off";
        import_remark(im, REMARK_DECIDE, 0,
                      "ejabberd federates with everybody, therefore privacy_mode \"off\"; the "
                      "default here is \"allow-list\"");
        return;
    }
    if (rules != 0)
        add_rules(im, rules, &rest);
    else if (strcmp(name, "none") != 0)
        import_remark(im, REMARK_DECIDE, access, "there is no access rule \"%.60s\"", name);
    im->privacy_mode = rest != NULL && strcmp(rest, "allow") == 0 ? "deny-list" : "allow-list";
    import_remark(im, REMARK_DIFFERS, access,
                  "s2s_access: there the first rule decides, here the most exact name");
}

/* ---- the network ----------------------------------------------------------------------------- */

static void read_service(struct import *im, uint32_t listener)
{
    import_link_address(im, listener, get(im, listener, "ip"), get(im, listener, "port"));
    import_remark(im, REMARK_DECIDE, listener,
                  "the link goes to this ejabberd_service: it needs a host for the gateway, whose "
                  "password goes into " IMPORT_LINK_SECRET);
}

static void read_s2s_listener(struct import *im, uint32_t listener)
{
    const char *ip = get(im, listener, "ip"), *port = get(im, listener, "port");
    if (is_true(get(im, listener, "tls"))) {
        import_remark(im, REMARK_DIFFERS, listener,
                      "direct TLS at port %.10s is not listened for: "
                      "see listen.direct_tls",
                      port);
        return;
    }
    import_listen(im, listener, *ip != '\0' ? ip : "*", port);
    /* There one socket serves both families. */
    if (strcmp(ip, "::") == 0)
        import_listen(im, listener, "*", port);
    if (*get(im, listener, "max_stanza_size") != '\0')
        import_stanza_size(im, listener, get(im, listener, "max_stanza_size"));
}

static void read_listeners(struct import *im)
{
    const struct tree *t = &im->tree;
    uint32_t list = top(im, "listen");
    bool service = false, s2s = false;
    for (uint32_t i = list != 0 ? tree_first(t, list) : 0; i != 0; i = tree_next(t, i)) {
        const char *module = get(im, i, "module");
        if (strcmp(module, "ejabberd_service") == 0 && !service) {
            read_service(im, i);
            service = true;
        } else if (strcmp(module, "ejabberd_s2s_in") == 0) {
            read_s2s_listener(im, i);
            s2s = true;
        }
    }
    if (!s2s && list != 0)
        import_remark(im, REMARK_DECIDE, list,
                      "no ejabberd_s2s_in: nobody is let in there; here listen.s2s has its "
                      "default");
    if (!service)
        import_remark(im, REMARK_DECIDE, list,
                      "ejabberd needs a listener ejabberd_service for the gateway, whose password "
                      "goes into " IMPORT_LINK_SECRET);
    import_remark(im, REMARK_DECIDE, 0,
                  "mod_sallyport sends foreign domains to the gateway: see "
                  "docs/inside/ejabberd.md");
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* "10", "10 seconds", "1 hour": seconds as digits, "" when it is none of it. */
static void seconds_of(const char *text, char out[16])
{
    static const struct {
        const char *unit;
        unsigned factor;
    } units[] = {{"", 1},        {"s", 1},     {"sec", 1},     {"second", 1},
                 {"m", 60},      {"min", 60},  {"minute", 60}, {"h", 3600},
                 {"hour", 3600}, {"d", 86400}, {"day", 86400}};
    unsigned n = 0;
    const char *p = text;
    out[0] = '\0';
    while (*p >= '0' && *p <= '9' && n < 10000000)
        n = n * 10 + (unsigned)(*p++ - '0');
    bool digits = p != text;
    while (*p == ' ')
        p++;
    size_t len = strlen(p);
    len -= len > 1 && p[len - 1] == 's';
    for (size_t i = 0; digits && i < sizeof units / sizeof units[0]; i++)
        if (strlen(units[i].unit) == len && strncmp(units[i].unit, p, len) == 0 && n < 40000)
            snprintf(out, 16, "%u", n * units[i].factor);
}

static void read_time(struct import *im, const char *key, const char *ours, unsigned least,
                      unsigned most, char out[16])
{
    char seconds[16];
    uint32_t node = tree_get(&im->tree, 0, key);
    const char *text = get(im, 0, key);
    seconds_of(text, seconds);
    if (node != 0)
        import_seconds(im, node, ours, *seconds != '\0' ? seconds : text, least, most, out);
}

static const struct {
    const char *key, *text;
} without[] = {
    {"include_config_file", "is not followed: give these files, too"},
    {"s2s_zlib", "streams are not compressed here"},
    {"outgoing_s2s_families", "both families are tried at once here"},
    {"s2s_max_retry_delay", "a failing peer is tried again after growing pauses here, too"},
    {"outgoing_s2s_port", "where no SRV record says else the port is 5269; a route gives another"},
    {"s2s_dns_retries", "dns.timeout is for all look-ups of a domain"},
};

static void read_rest(struct import *im)
{
    const struct tree *t = &im->tree;
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
        uint32_t node = tree_get(t, 0, without[i].key);
        if (node != 0)
            import_remark(im, REMARK_DIFFERS, node, "%s: %s", without[i].key, without[i].text);
    }
    read_time(im, "outgoing_s2s_timeout", "timeouts.connect", 1, 120, im->timeout_connect);
    read_time(im, "s2s_timeout", "timeouts.idle", 1, 604800, im->timeout_idle);
    read_time(im, "s2s_dns_timeout", "dns.timeout", 1, 60, im->timeout_dns);
    static const char *const sources[] = {"outgoing_s2s_ipv4_address", "outgoing_s2s_ipv6_address"};
    for (size_t i = 0; i < 2; i++)
        if (*get(im, 0, sources[i]) != '\0')
            import_source_address(im, tree_get(t, 0, sources[i]), get(im, 0, sources[i]));
}

void import_ejabberd(struct import *im)
{
    read_hosts(im);
    read_services(im);
    read_tls(im);
    read_access(im);
    read_listeners(im);
    read_rest(im);
}
