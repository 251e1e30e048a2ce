/* Every key of sallyport-router.conf. The rules between keys are in config/check_router.c. */
#include "config/router.h"

#include "config/check.h"
#include "config/schema.h"
#include "core/base/mem.h"

#define CONF struct router_config

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, KIB = 1 << 10, MIB = 1 << 20 };

static const struct schema_name roles[] = {
    {"gateway", ROLE_GATEWAY}, {"server", ROLE_SERVER}, {NULL, 0}};
static const struct schema_name transports[] = {
    {"accept", TRANSPORT_ACCEPT}, {"dial", TRANSPORT_DIAL}, {NULL, 0}};
static const struct schema_name auths[] = {{"password", LINK_AUTH_PASSWORD},
                                           {"tls", LINK_AUTH_TLS},
                                           {"tls+password", LINK_AUTH_TLS_PASSWORD},
                                           {NULL, 0}};
static const struct schema_name control_modes[] = CONTROL_MODES;
static const struct schema_name log_levels[] = {
#define X(id, text) {text, LOG_##id},
    LOG_LEVELS(X)
#undef X
        {NULL, 0}};
static const struct schema_name log_formats[] = {
    {"logfmt", LOG_LOGFMT}, {"json", LOG_JSON}, {NULL, 0}};

#define LINK   struct rcfg_link
#define SPLICE struct rcfg_splice
/* The keys of a struct rcfg_proof in S, but auth. */
#define PROOF(S, field, kind)                                                                      \
    .path = #field, .type = SCHEMA_STRING, .at = SCHEMA_AT(S, char *, proof.field), .check = (kind)
#define PROOF_ENTRIES(S)                                                                           \
    {PROOF(S, certificate, CHECK_FILE), .help = "own certificate, PEM with its chain"},            \
        {PROOF(S, key, CHECK_FILE), .help = "its private key, PEM"},                               \
        {PROOF(S, ca_file, CHECK_FILE), .help = "PEM, roots of the other side's certificates"},    \
        {PROOF(S, store_file, CHECK_FILE),                                                         \
         .help = "PEM, the other side's certificates themselves"},                                 \
        {.path = "authlist",                                                                       \
         .type = SCHEMA_STRINGS,                                                                   \
         SCHEMA_LIST(S, char *, proof.authlist, proof.nauthlist),                                  \
         .check = CHECK_KEY_HASH,                                                                  \
         .max = 100,                                                                               \
         .standard = "[]",                                                                         \
         .help = "SHA-256 (or SHA-1) hashes of public keys that are accepted"},                    \
    {                                                                                              \
        PROOF(S, peer_name, CHECK_DOMAIN), .help = "name that a certificate of ca_file must carry" \
    }

static const struct schema_entry link_entries[] = {
    {SCHEMA_TEXT(LINK, name, CHECK_NAME), .flags = SCHEMA_REQUIRED | SCHEMA_KEY,
     .help = "how logs call the link"},
    {SCHEMA_CHOICE(LINK, role, roles), .flags = SCHEMA_REQUIRED, .unset = CHOICE_UNSET,
     .help = "gateway: leads outside; server: owns local domains"},
    {SCHEMA_CHOICE(LINK, transport, transports), .flags = SCHEMA_REQUIRED, .unset = CHOICE_UNSET,
     .help = "who connects; accept: the other side; dial: the router"},
    {SCHEMA_TEXT(LINK, address, CHECK_ENDPOINT),
     .help = "dial only: literal address and port of the gateway, or of the server's component\n"
             "listener"},
    {SCHEMA_TEXT(LINK, component, CHECK_DOMAIN), .flags = SCHEMA_REQUIRED,
     .help = "the name that joins: ours on a server that is dialled, else the other side's"},
    {SCHEMA_TEXTS(LINK, domains, ndomains, CHECK_DOMAIN, 1000),
     .help = "server only: the local domains that it owns"},
    {SCHEMA_NUMBER(LINK, SCHEMA_INT, priority, 0, 65535), .standard = "0",
     .help =
         "the lowest that is up takes the stanzas; equal gateways share them by sender, of equal\n"
         "servers of a domain the first takes all"},
    {.path = "auth",
     .type = SCHEMA_ENUM,
     .at = SCHEMA_AT(LINK, int, proof.auth),
     .names = auths,
     .standard = "\"password\"",
     .help = "password: the handshake; tls: certificates known by store_file or authlist;\n"
             "tls+password: certificates of ca_file, and the handshake. Accepted links with TLS\n"
             "share certificate, key and ca_file"},
    {.path = "secret_file",
     .type = SCHEMA_SECRET,
     .at = SCHEMA_AT(LINK, char *, secret_file),
     .secret_at = SCHEMA_AT(LINK, char *, secret),
     .check = CHECK_FILE,
     .help = "file with the password; no permission for others"},
    PROOF_ENTRIES(LINK),
    {SCHEMA_TEXT(LINK, proven_file, CHECK_PATH),
     .help = "file to remember that peer_name has joined by password, for a later switch to tls"},
};

static const struct schema link_schema = {.entries = link_entries,
                                          .n = sizeof link_entries / sizeof link_entries[0],
                                          .size = sizeof(LINK)};

static const struct schema_entry splice_entries[] = {
    {SCHEMA_TEXT(SPLICE, name, CHECK_NAME), .flags = SCHEMA_REQUIRED | SCHEMA_KEY,
     .help = "how logs call it"},
    {SCHEMA_TEXT(SPLICE, gateway, CHECK_ENDPOINT), .flags = SCHEMA_REQUIRED,
     .help = "literal address and port where the gateway listens; always with TLS"},
    {SCHEMA_TEXT(SPLICE, server, CHECK_ENDPOINT), .flags = SCHEMA_REQUIRED,
     .help = "literal address and port where the server listens; nothing that passes is read"},
    PROOF_ENTRIES(SPLICE),
};

static const struct schema splice_schema = {.entries = splice_entries,
                                            .n = sizeof splice_entries / sizeof splice_entries[0],
                                            .size = sizeof(SPLICE)};

static const struct schema_entry entries[] = {
    {SCHEMA_TEXT(CONF, include_dir, CHECK_ANY), .example = "\"conf.d\"",
     .help = "Further files: *.conf of this folder in name order, relative to this file.\n"
             "Their lists are appended; a value set in two files is an error."},
    {SCHEMA_TEXTS(CONF, listen.links, listen.nlinks, CHECK_ENDPOINT, 64), .flags = SCHEMA_RESTART,
     .standard = "[\"127.0.0.1:7400\"]", .help = "Where links with transport \"accept\" arrive."},
    {.path = "links",
     .type = SCHEMA_GROUPS,
     SCHEMA_LIST(CONF, struct rcfg_link, links, nlinks),
     .slot = 0,
     .sub = &link_schema,
     .flags = SCHEMA_REQUIRED,
     .max = 256,
     .example =
         "(\n  { name = \"edge1\"; role = \"gateway\"; transport = \"accept\";\n"
         "    component = \"edge.alpha.lab\"; secret_file = \"/etc/sallyport/link.secret\"; },\n"
         "  { name = \"im\"; role = \"server\"; transport = \"dial\"; "
         "address = \"10.0.0.9:5347\";\n"
         "    component = \"edge.alpha.lab\"; domains = [\"alpha.lab\"];\n"
         "    secret_file = \"/etc/sallyport/im.secret\"; }\n)",
     .help = "Gateways and servers. None, links = (), when there are only splices."},
    {.path = "splices",
     .type = SCHEMA_GROUPS,
     SCHEMA_LIST(CONF, SPLICE, splices, nsplices),
     .slot = 1,
     .sub = &splice_schema,
     .max = 64,
     .example = "(\n  { name = \"jabberd2\"; gateway = \"192.0.2.10:7400\"; "
                "server = \"10.0.0.9:5347\";\n"
                "    certificate = \"/etc/sallyport/router.pem\"; "
                "key = \"/etc/sallyport/router.key\";\n"
                "    store_file = \"/etc/sallyport/gateway.pem\"; }\n)",
     .help = "A gateway and a server that both listen, for a protocol that the router does not\n"
             "speak: it dials both and carries the bytes."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.auth, 1 * SECOND, 10 * MINUTE),
     .standard = "\"30s\"",
     .help =
         "From the connection to the end of the handshake; of a splice, to the gateway's first\n"
         "words."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.connect, 1 * SECOND, 2 * MINUTE),
     .standard = "\"10s\"", .help = "For one TCP connection."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.keepalive, 1 * SECOND, 1 * HOUR),
     .standard = "\"60s\"", .help = "White space is sent after so much silence."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.close, 100, 1 * MINUTE), .standard = "\"5s\"",
     .help = "How long the other side may take to close; of a splice, one side when the other has\n"
             "ended."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.drain, 100, 10 * MINUTE), .standard = "\"8s\"",
     .help = "For an orderly stop."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.dead, 3 * SECOND, 10 * MINUTE),
     .standard = "\"10s\"",
     .help = "A peer whose machine acknowledges nothing for so long is gone (cut cable)."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.stanza_size, 10000, 16 * MIB), .standard = "\"256K\"",
     .help = "Largest stanza."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.buffer, 64 * KIB, 1024 * MIB), .standard = "\"1M\"",
     .help = "Waiting for one link or splice before what feeds it is paused."},
    {SCHEMA_CHOICE(CONF, log.level, log_levels), .standard = "\"info\"",
     .help = "Lowest level shown."},
    {SCHEMA_CHOICE(CONF, log.format, log_formats), .standard = "\"logfmt\"",
     .help = "Form of a line."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, log.rate, 0, 100000), .standard = "1000",
     .help = "Lines per second and event name, from 10; 0: no limit."},
    CONTROL_ENTRIES(CONF, "\"" CONTROL_ROUTER_SOCKET "\""),
    {SCHEMA_TEXT(CONF, user, CHECK_NAME), .flags = SCHEMA_RESTART, .standard = "\"\"",
     .example = "\"sallyport\"", .help = "User to become after binding when started as root."},
};

const struct schema router_schema = {
    .title = "sallyport-router, the inside end of the link. Sizes: \"64K\", \"10M\"; durations: "
             "\"500ms\", \"30s\".",
    .entries = entries,
    .n = sizeof entries / sizeof entries[0],
    .size = sizeof(struct router_config),
    .meta_at = SCHEMA_AT(struct router_config, struct schema_meta *, meta),
    .check = check_router,
};

struct router_config *router_config_ref(struct router_config *c)
{
    c->refs++;
    return c;
}

void router_config_unref(struct router_config *c)
{
    if (c == NULL || --c->refs > 0)
        return;
    mem_free(c->file);
    schema_free(&router_schema, c);
}

struct router_config *router_config_parse(const char *file, struct str text, struct buf *errors)
{
    struct router_config *c = schema_load(&router_schema, file, text, errors);
    if (c == NULL)
        return NULL;
    c->refs = 1;
    if ((c->file = mem_strdup(file)) == NULL) {
        buf_printf(errors, "%s: out of memory\n1 error\n", file);
        router_config_unref(c);
        return NULL;
    }
    return c;
}

struct router_config *router_config_load(const char *file, struct buf *errors)
{
    return router_config_parse(file, STR_NONE, errors);
}
