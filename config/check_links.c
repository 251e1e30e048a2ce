/* The rules between the keys of a link: what each protocol, transport and way of proof needs. */
#include "config/auth.h"
#include "config/check.h"
#include "config/gateway.h"

enum need { MAY, MUST, NEVER };

static const char *const protocol_names[] = {"component", "s2s", "jabberd2"};

/* By protocol. What depends on more than the protocol is below. */
static const struct key_rule {
    const char *key;
    enum need need[3]; /* component, s2s, jabberd2 */
    const char *hint;
} key_rules[] = {
    {"component", {MAY, NEVER, MUST}, "the name that the stream joins with"},
    {"user", {NEVER, NEVER, MUST}, "a name of the router's router-users.xml"},
    {"secret_file", {MAY, NEVER, MUST}, "the password file"},
    {"partners", {MAY, NEVER, NEVER}, "listed partner domains"},
    {"trusted", {NEVER, MAY, NEVER}, "inside addresses believed without dialback"},
    {"certificates_dir", {NEVER, MAY, NEVER}, "certificates to show for remote domains"},
    {"security_mode", {NEVER, MAY, MAY}, "STARTTLS with the inside"},
    {"proven_file", {MAY, NEVER, NEVER}, "only a link of protocol component joins by password"},
};

static void check_keys(struct schema_load *l, const struct cfg_link *k, size_t i)
{
    for (size_t r = 0; r < sizeof key_rules / sizeof key_rules[0]; r++) {
        const struct key_rule *rule = &key_rules[r];
        bool set = schema_is_set(l, "links", i, rule->key);
        enum need need = rule->need[k->protocol];
        if (need == MUST && !set)
            schema_error(l, "links", i, rule->key, "required with protocol \"%s\": %s",
                         protocol_names[k->protocol], rule->hint);
        else if (need == NEVER && set)
            schema_error(l, "links", i, rule->key, "not for protocol \"%s\"",
                         protocol_names[k->protocol]);
    }
}

/* Who opens which connection, and therefore which addresses there must be. */
static void check_ends(struct schema_load *l, const struct cfg_link *k, size_t i)
{
    bool both = k->protocol == PROTOCOL_S2S;
    bool dials = both || k->transport == LINK_DIAL, listens = both || k->transport == LINK_ACCEPT;
    bool address = schema_is_set(l, "links", i, "address");
    if (both && k->transport == LINK_ACCEPT)
        schema_error(l, "links", i, "transport",
                     "an s2s link is opened by both sides; leave it out");
    if (dials && !address)
        schema_error(l, "links", i, "address", "required: the inside server or router to dial");
    else if (!dials && address)
        schema_error(
            l, "links", i, "address",
            "not with transport \"accept\": the inside dials; our own addresses are listen");
    if (listens && k->nlisten == 0)
        schema_error(l, "links", i, "listen", "required: the own address that the inside dials");
    else if (!listens && k->nlisten > 0)
        schema_error(l, "links", i, "listen", "only with transport \"accept\" or protocol \"s2s\"");
}

static void check_component(struct schema_load *l, const struct cfg_link *k, size_t i)
{
    if (k->protocol != PROTOCOL_COMPONENT)
        return;
    if (k->component == NULL && k->npartners == 0 && !schema_is_set(l, "links", i, "component"))
        schema_error(l, "links", i, "component",
                     "required, unless partners gives the names of the streams");
    if (k->component == NULL && k->npartners > 1 && k->transport == LINK_ACCEPT)
        schema_error(l, "links", i, "component",
                     "required with transport \"accept\": one connection carries one stream");
    if (k->auth != LINK_AUTH_TLS && !schema_is_set(l, "links", i, "secret_file"))
        schema_error(l, "links", i, "secret_file", "required but missing");
}

/* Certificates: there must be one to show, and something to know the other side by. */
static void check_auth(struct schema_load *l, const struct cfg_link *k, size_t i)
{
    bool accept = k->transport == LINK_ACCEPT && k->protocol != PROTOCOL_S2S;
    if (k->auth == LINK_AUTH_PASSWORD) {
        if (accept)
            schema_error(
                l, "links", i, schema_is_set(l, "links", i, "auth") ? "auth" : "transport",
                "transport \"accept\" needs auth \"tls\" or \"tls+password\": the handshake "
                "proves us to the inside, but not the inside to us");
        return;
    }
    bool router = k->protocol == PROTOCOL_JABBERD2 && !accept;
    if (router && k->auth == LINK_AUTH_TLS)
        schema_error(l, "links", i, "auth",
                     "the router of jabberd2 takes a password; to know it by the certificate of "
                     "its STARTTLS, too, use \"tls+password\"");
    if (k->protocol == PROTOCOL_S2S && k->auth == LINK_AUTH_TLS_PASSWORD)
        schema_error(l, "links", i, "auth", "an s2s link proves itself by dialback, or by \"tls\"");
    if (k->protocol != PROTOCOL_COMPONENT && k->security_mode == SECURITY_NO_TLS)
        schema_error(l, "links", i, "security_mode", "auth \"%s\" needs TLS",
                     k->auth == LINK_AUTH_TLS ? "tls" : "tls+password");
    /* The router asks for none, unless its verify-mode says so. */
    if (k->certificate == NULL && !schema_is_set(l, "links", i, "certificate") && !router)
        schema_error(l, "links", i, "auth", "needs certificate and key: what we show the inside");
    bool known = schema_is_set(l, "links", i, "store_file") || k->nauthlist > 0;
    bool root = schema_is_set(l, "links", i, "ca_file");
    if (!known && !root)
        schema_error(l, "links", i, "auth",
                     "needs store_file, authlist or ca_file: how we know the inside's certificate");
    /* With "tls" a root vouches only for a name that joined by password earlier. */
    bool named = k->peer_name != NULL && k->protocol != PROTOCOL_S2S;
    if (!known && root && k->auth == LINK_AUTH_TLS && !named)
        schema_error(
            l, "links", i, "ca_file",
            "is not enough with \"tls\": list the certificate in store_file, or its key in "
            "authlist%s",
            k->protocol == PROTOCOL_S2S ? "" : ", or use \"tls+password\"");
    if (root && k->auth == LINK_AUTH_TLS_PASSWORD && k->peer_name == NULL)
        schema_warn(l, "links", i, "ca_file",
                    "without peer_name every certificate of this root is accepted");
}

static void check_pairs(struct schema_load *l, size_t i)
{
    bool certificate = schema_is_set(l, "links", i, "certificate");
    bool key = schema_is_set(l, "links", i, "key");
    if (certificate != key)
        schema_error(l, "links", i, certificate ? "certificate" : "key", "needs a %s beside it",
                     certificate ? "key" : "certificate");
    if (schema_is_set(l, "links", i, "proven_file") && !schema_is_set(l, "links", i, "peer_name"))
        schema_error(l, "links", i, "proven_file", "needs peer_name: it is what is remembered");
}

static void check_domains(struct schema_load *l, const struct gateway_config *c, size_t i)
{
    const struct cfg_link *k = &c->links[i];
    for (size_t d = 0; d < k->ndomains; d++)
        if (gateway_config_domain(c, str_c(k->domains[d])) == NULL)
            schema_error(l, "links", i, "domains", "%.253s is not one of domains", k->domains[d]);
    for (size_t p = 0; p < k->npartners; p++)
        if (gateway_config_domain(c, str_c(k->partners[p])) != NULL)
            schema_error(l, "links", i, "partners", "%.253s is a local domain", k->partners[p]);
    if (k->component != NULL && gateway_config_domain(c, str_c(k->component)) != NULL &&
        k->protocol == PROTOCOL_COMPONENT) {
        const struct cfg_domain *own = gateway_config_domain(c, str_c(k->component));
        if (strcmp(own->name, k->component) == 0)
            schema_error(l, "links", i, "component",
                         "is a local domain; the gateway needs a name of its own");
    }
}

/* What is larger than limits.stanza_size does not come so far. */
static void check_size(struct schema_load *l, const struct gateway_config *c, size_t i)
{
    if (c->links[i].stanza_size > c->limits.stanza_size)
        schema_warn(l, "links", i, "stanza_size", "above limits.stanza_size, which decides then");
}

/* A local domain that no link serves would only ever bounce. */
static void check_served(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t d = 0; d < c->ndomains; d++) {
        bool served = false;
        for (size_t i = 0; i < c->nlinks && !served; i++) {
            served = c->links[i].ndomains == 0;
            for (size_t k = 0; k < c->links[i].ndomains && !served; k++)
                served = c->domains[d].name != NULL &&
                         strcmp(c->links[i].domains[k], c->domains[d].name) == 0;
        }
        if (!served && c->nlinks > 0 && c->domains[d].name != NULL)
            schema_error(l, "domains", d, "name", "no link has it in its domains");
    }
}

static bool any_address(const struct ip *ip)
{
    static const struct ip any4 = {{0}, 4}, any6 = {{0}, 16};
    return ip_equal(ip, &any4) || ip_equal(ip, &any6);
}

/* Two listeners cannot have both. */
static bool same_door(const char *a, const char *b)
{
    struct endpoint x, y;
    if (!endpoint_parse(str_c(a), &x) || !endpoint_parse(str_c(b), &y) || x.port != y.port)
        return false;
    return x.ip.len == y.ip.len &&
           (ip_equal(&x.ip, &y.ip) || any_address(&x.ip) || any_address(&y.ip));
}

static void check_door(struct schema_load *l, const struct gateway_config *c, size_t i,
                       const char *at)
{
    for (size_t n = 0; n < c->listen.ns2s; n++)
        if (same_door(at, c->listen.s2s[n]))
            schema_error(l, "links", i, "listen",
                         "the world is let in there (listen.s2s has %s): give listen.s2s the "
                         "public addresses alone, or the link another port",
                         c->listen.s2s[n]);
    for (size_t k = 0; k < i; k++)
        for (size_t n = 0; n < c->links[k].nlisten; n++)
            if (same_door(at, c->links[k].listen[n]))
                schema_error(l, "links", i, "listen", "link %s listens on %s already",
                             c->links[k].name, c->links[k].listen[n]);
}

/* A link never shares the public listener, nor that of another link. */
static void check_doors(struct schema_load *l, const struct gateway_config *c, size_t i)
{
    for (size_t n = 0; n < c->links[i].nlisten; n++)
        check_door(l, c, i, c->links[i].listen[n]);
}

void check_links(struct schema_load *l, const struct gateway_config *c)
{
    for (size_t i = 0; i < c->nlinks; i++) {
        const struct cfg_link *k = &c->links[i];
        check_keys(l, k, i);
        check_ends(l, k, i);
        check_component(l, k, i);
        check_auth(l, k, i);
        check_pairs(l, i);
        check_domains(l, c, i);
        check_doors(l, c, i);
        check_size(l, c, i);
    }
    check_served(l, c);
    if (c->limits.link_low >= c->limits.link_high)
        schema_error(l, NULL, 0, "limits.link_low", "must be below limits.link_high");
}
