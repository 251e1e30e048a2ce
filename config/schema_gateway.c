/* Every key of sallyport.conf. The rules between keys are in config/check_gateway.c. */
#include "config/gateway.h"

#include "config/auth.h"
#include "config/check.h"
#include "config/schema.h"
#include "core/base/env.h"
#include "core/base/mem.h"

#define CONF struct gateway_config

enum {
    SECOND = 1000,
    MINUTE = 60 * SECOND,
    HOUR = 60 * MINUTE,
    DAY = 24 * HOUR,
    KIB = 1 << 10,
    MIB = 1 << 20,
    TLS_1_2 = 0x0303,
    TLS_1_3 = 0x0304,
};

static const struct schema_name security_modes[] = {{"no-tls", SECURITY_NO_TLS},
                                                    {"tls-optional", SECURITY_TLS_OPTIONAL},
                                                    {"tls-required", SECURITY_TLS_REQUIRED},
                                                    {NULL, 0}};
static const struct schema_name privacy_modes[] = {{"off", PRIVACY_OFF},
                                                   {"allow-list", PRIVACY_ALLOW_LIST},
                                                   {"deny-list", PRIVACY_DENY_LIST},
                                                   {NULL, 0}};
static const struct schema_name policies[] = {
    {"allow", PEER_ALLOW}, {"deny", PEER_DENY}, {NULL, 0}};
static const struct schema_name directions[] = {
    {"both", DIRECTION_BOTH}, {"in", DIRECTION_IN}, {"out", DIRECTION_OUT}, {NULL, 0}};
static const struct schema_name proofs[] = {
    {"external", POLICY_AUTH_EXTERNAL}, {"dialback", POLICY_AUTH_DIALBACK}, {NULL, 0}};
static const struct schema_name tls_versions[] = {{"1.2", TLS_1_2}, {"1.3", TLS_1_3}, {NULL, 0}};
static const struct schema_name control_modes[] = CONTROL_MODES;
static const struct schema_name log_levels[] = {
#define X(id, text) {text, LOG_##id},
    LOG_LEVELS(X)
#undef X
        {NULL, 0}};
static const struct schema_name log_formats[] = {
    {"logfmt", LOG_LOGFMT}, {"json", LOG_JSON}, {NULL, 0}};
static const struct schema_name protocols[] = {{"component", PROTOCOL_COMPONENT},
                                               {"s2s", PROTOCOL_S2S},
                                               {"jabberd2", PROTOCOL_JABBERD2},
                                               {NULL, 0}};
static const struct schema_name transports[] = {
    {"dial", LINK_DIAL}, {"accept", LINK_ACCEPT}, {NULL, 0}};
static const struct schema_name auths[] = {{"password", LINK_AUTH_PASSWORD},
                                           {"tls", LINK_AUTH_TLS},
                                           {"tls+password", LINK_AUTH_TLS_PASSWORD},
                                           {NULL, 0}};

static const struct schema_entry domain_entries[] = {
    {.path = "name",
     .type = SCHEMA_STRING,
     .at = SCHEMA_AT(struct cfg_domain, char *, name),
     .check = CHECK_DOMAIN,
     .flags = SCHEMA_REQUIRED | SCHEMA_KEY,
     .help = "domain name"},
    {SCHEMA_TEXT(struct cfg_domain, certificate, CHECK_FILE),
     .help = "PEM file, own certificate first; without it a self-signed one is made at start"},
    {SCHEMA_TEXT(struct cfg_domain, key, CHECK_FILE), .help = "PEM file with its private key"},
    {SCHEMA_TEXT(struct cfg_domain, client_certificate, CHECK_FILE),
     .help = "PEM file, shown instead of certificate when the gateway dials"},
    {SCHEMA_TEXT(struct cfg_domain, client_key, CHECK_FILE),
     .help = "PEM file with the private key of client_certificate"},
    {SCHEMA_SWITCH(struct cfg_domain, subdomains), .standard = "false",
     .help = "every name below belongs to the inside too"},
};

static const struct schema domain_schema = {.entries = domain_entries,
                                            .n = sizeof domain_entries / sizeof domain_entries[0],
                                            .size = sizeof(struct cfg_domain)};

static const struct schema_entry peer_entries[] = {
    {.path = "domain",
     .type = SCHEMA_STRING,
     .at = SCHEMA_AT(struct cfg_peer, char *, pattern),
     .check = CHECK_PATTERN,
     .flags = SCHEMA_REQUIRED | SCHEMA_KEY,
     .help = "\"beta.lab\", \"*.partner.example\" (names below it) or \"*\" (all)"},
    {SCHEMA_CHOICE(struct cfg_peer, policy, policies), .unset = PEER_UNSET,
     .help = "the privacy mode goes by it"},
    {SCHEMA_CHOICE(struct cfg_peer, security_mode, security_modes), .unset = CONFIG_UNSET,
     .help = "instead of the global one"},
    {SCHEMA_BITS(struct cfg_peer, auth, proofs), .help = "instead of the global one"},
    {SCHEMA_TEXTS(struct cfg_peer, pins, npins, CHECK_PIN, CONFIG_PINS_MAX),
     .help = "SHA-256 hashes of public keys; its certificate must be valid and have one of them"},
    {SCHEMA_TEXT(struct cfg_peer, ca_file, CHECK_FILE),
     .help = "PEM, the only authorities for this peer; instead of tls.ca_file"},
    {SCHEMA_CHOICE(struct cfg_peer, minimum_tls, tls_versions), .unset = CONFIG_UNSET,
     .help = "lowest TLS version, not below tls.minimum"},
    {SCHEMA_MAYBE(struct cfg_peer, bidi), .help = "instead of the global one"},
    {SCHEMA_TEXTS(struct cfg_peer, route, nroute, CHECK_ROUTE, CONFIG_ROUTES_MAX),
     .flags = SCHEMA_OR_ONE,
     .help = "address or host with a port, instead of SRV records; of a list, the first reachable"},
    {SCHEMA_SWITCH(struct cfg_peer, direct_tls), .standard = "false",
     .help = "of route: TLS from the first byte (XEP-0368)"},
    {SCHEMA_TEXTS(struct cfg_peer, local, nlocal, CHECK_DOMAIN, 1000), .flags = SCHEMA_OR_ONE,
     .help = "local domains that the policy is about; none given: all"},
    {SCHEMA_CHOICE(struct cfg_peer, direction, directions), .unset = CONFIG_UNSET,
     .help = "of the policy: in: they may write to us; out: we to them; none given: both"},
    {SCHEMA_TEXT(struct cfg_peer, comment, CHECK_ANY), .help = "for people"},
    {.path = "until",
     .type = SCHEMA_UNTIL,
     .at = SCHEMA_AT(struct cfg_peer, int64_t, until),
     .help =
         "\"2026-12-31\" or \"2026-12-31T18:00:00Z\" (UTC): the entry does not count after that"},
};

static const struct schema peer_schema = {.entries = peer_entries,
                                          .n = sizeof peer_entries / sizeof peer_entries[0],
                                          .size = sizeof(struct cfg_peer)};

#define LINK struct cfg_link
static const struct schema_entry link_entries[] = {
    {.path = "name",
     .type = SCHEMA_STRING,
     .at = SCHEMA_AT(struct cfg_link, char *, name),
     .check = CHECK_NAME,
     .flags = SCHEMA_REQUIRED | SCHEMA_KEY,
     .help = "how logs call the link"},
    {SCHEMA_CHOICE(LINK, protocol, protocols), .standard = "\"component\"",
     .help = "component (XEP-0114), s2s (the inside federates with us), jabberd2 (its router's)"},
    {SCHEMA_CHOICE(LINK, transport, transports), .standard = "\"dial\"",
     .help = "dial: the gateway opens the connection; accept: the inside does (needs TLS)"},
    {SCHEMA_CHOICE(LINK, auth, auths), .standard = "\"password\"",
     .help = "how both sides prove themselves: see docs/inside.md"},
    {SCHEMA_NUMBER(LINK, SCHEMA_INT, priority, 0, 65535), .standard = "0",
     .help = "the lowest that is up takes the stanzas; equal ones share them by sender"},
    {SCHEMA_TEXTS(LINK, domains, ndomains, CHECK_DOMAIN, 10000),
     .help = "local domains behind this link; none given: all"},
    {SCHEMA_TEXTS(LINK, partners, npartners, CHECK_DOMAIN, 1000),
     .help = "only these remote domains; without component, one stream for each"},
    {SCHEMA_NUMBER(LINK, SCHEMA_SIZE, stanza_size, 10000, 16 * MIB),
     .help = "largest stanza that the inside takes; larger ones bounce; none: limits.stanza_size"},
    {SCHEMA_TEXT(LINK, address, CHECK_ENDPOINT),
     .help = "of the inside server or router: literal address and port"},
    {SCHEMA_TEXTS(LINK, listen, nlisten, CHECK_ENDPOINT, 8),
     .help = "own inside addresses; for transport accept and for s2s"},
    {SCHEMA_TEXT(LINK, component, CHECK_DOMAIN), .help = "name to join as"},
    {SCHEMA_TEXT(LINK, user, CHECK_NAME), .help = "jabberd2: name in router-users.xml"},
    {.path = "secret_file",
     .type = SCHEMA_SECRET,
     .at = SCHEMA_AT(LINK, char *, secret_file),
     .secret_at = SCHEMA_AT(LINK, char *, secret),
     .check = CHECK_FILE,
     .help = "file with the password; no permission for others"},
    {SCHEMA_TEXT(LINK, certificate, CHECK_FILE), .help = "own certificate on this link, PEM"},
    {SCHEMA_TEXT(LINK, key, CHECK_FILE), .help = "its private key, PEM"},
    {SCHEMA_TEXT(LINK, ca_file, CHECK_FILE), .help = "PEM, roots of the inside's certificates"},
    {SCHEMA_TEXT(LINK, store_file, CHECK_FILE),
     .help = "PEM, the inside's certificates themselves"},
    {SCHEMA_TEXTS(LINK, authlist, nauthlist, CHECK_KEY_HASH, 100),
     .help = "SHA-256 (or SHA-1) hashes of public keys that are accepted; see --auth-info"},
    {SCHEMA_TEXT(LINK, peer_name, CHECK_DOMAIN), .help = "name that its certificate must carry"},
    {SCHEMA_TEXT(LINK, proven_file, CHECK_PATH),
     .help = "remembers that peer_name has joined by password, for a switch to tls"},
    {SCHEMA_CHOICE(LINK, security_mode, security_modes), .standard = "\"tls-optional\"",
     .help = "s2s and jabberd2: STARTTLS with the inside"},
    {.path = "trusted",
     .type = SCHEMA_CIDRS,
     SCHEMA_LIST(LINK, struct cidr, trusted, ntrusted),
     .max = 100,
     .help = "s2s: inside addresses whose claims are believed without dialback"},
    {SCHEMA_TEXT(LINK, certificates_dir, CHECK_PATH),
     .help = "s2s: folder with NAME.pem (certificates and key) to show for a remote domain"},
};

static const struct schema link_schema = {.entries = link_entries,
                                          .n = sizeof link_entries / sizeof link_entries[0],
                                          .size = sizeof(LINK)};

/* Special-use networks (IANA registries). 64:ff9b::/96 is not among them: behind NAT64 it is the
 * way to every IPv4 peer. */
#define SPECIAL_USE                                                                                \
    "[\"0.0.0.0/8\", \"10.0.0.0/8\", \"100.64.0.0/10\", \"127.0.0.0/8\", \"169.254.0.0/16\", "     \
    "\"172.16.0.0/12\", \"192.0.0.0/24\", \"192.0.2.0/24\", \"192.88.99.0/24\", "                  \
    "\"192.168.0.0/16\", \"198.18.0.0/15\", \"198.51.100.0/24\", \"203.0.113.0/24\", "             \
    "\"224.0.0.0/4\", \"240.0.0.0/4\", \"::/128\", \"::1/128\", \"100::/64\", "                    \
    "\"2001:db8::/32\", \"fc00::/7\", \"fe80::/10\", \"ff00::/8\"]"

static const struct schema_entry entries[] = {
    {SCHEMA_TEXT(CONF, include_dir, CHECK_ANY), .example = "\"conf.d\"",
     .help = "Further files: *.conf of this folder in name order, relative to this file.\n"
             "Their lists are appended; a value set in two files is an error."},
    {SCHEMA_SWITCH(CONF, federation), .standard = "true",
     .help = "Federation with other domains; false: nobody is let in, nothing goes out."},
    {SCHEMA_CHOICE(CONF, security_mode, security_modes), .standard = "\"tls-required\"",
     .help = "TLS with other domains, both directions."},
    {SCHEMA_CHOICE(CONF, privacy_mode, privacy_modes), .standard = "\"allow-list\"",
     .help = "allow-list: only peers with policy \"allow\" or a route; deny-list: all but those\n"
             "with policy \"deny\"; off: all."},
    {SCHEMA_SWITCH(CONF, privacy_shadow), .standard = "false",
     .help = "Try an allow list: what it would refuse is told, counted and let through, but for\n"
             "peers with policy \"deny\". 'sallyportctl policy propose' then writes the list."},
    {.path = "allow_file",
     .type = SCHEMA_DOMAINS,
     .at = SCHEMA_AT(CONF, char *, allow_file),
     .secret_at = SCHEMA_AT(CONF, struct domain_list *, allow),
     .check = CHECK_FILE,
     .example = "\"/etc/sallyport/allow.txt\"",
     .help =
         "File with more names that have policy \"allow\": a domain, \"*.suffix\" or \"*\" a\n"
         "line, # begins a comment. An entry of peers with a policy for that name decides first."},
    {.path = "deny_file",
     .type = SCHEMA_DOMAINS,
     .at = SCHEMA_AT(CONF, char *, deny_file),
     .secret_at = SCHEMA_AT(CONF, struct domain_list *, deny),
     .check = CHECK_FILE,
     .example = "\"/etc/sallyport/deny.txt\"",
     .help = "The same with policy \"deny\"."},
    {SCHEMA_BITS(CONF, auth, proofs), .standard = "[\"external\", \"dialback\"]",
     .help = "How a peer may prove its domain: by its certificate, by dialback, or either."},
    {SCHEMA_SWITCH(CONF, use_static_routes), .standard = "true",
     .help = "Use the routes given in peers."},
    {.path = "domains",
     .type = SCHEMA_GROUPS,
     SCHEMA_LIST(CONF, struct cfg_domain, domains, ndomains),
     .slot = 0,
     .sub = &domain_schema,
     .flags = SCHEMA_REQUIRED,
     .min = 1,
     .max = 10000,
     .example = "(\n  { name = \"alpha.lab\"; subdomains = false; }\n)",
     .help = "Local domains: those that the inside owns."},
    {.path = "dialback.secret_file",
     .type = SCHEMA_SECRET,
     .at = SCHEMA_AT(CONF, char *, dialback.secret_file),
     .secret_at = SCHEMA_AT(CONF, char *, dialback.secret),
     .check = CHECK_FILE,
     .example = "\"/etc/sallyport/dialback.secret\"",
     .help = "File with the secret that dialback keys are made of. Without it a random one is\n"
             "made at start; several gateways for the same domains need a common one."},
    {.path = "dialback.previous_secret_files",
     .type = SCHEMA_SECRETS,
     SCHEMA_LIST(CONF, char *, dialback.previous_secret_files, dialback.nprevious),
     .secret_at = SCHEMA_AT(CONF, char **, dialback.previous_secrets),
     .check = CHECK_FILE,
     .max = 8,
     .standard = "[]",
     .help = "Older secrets that are still accepted."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, dialback.timeout, 1 * SECOND, 5 * MINUTE),
     .standard = "\"20s\"",
     .help = "For one verification, from looking up the authority to its answer."},
    {SCHEMA_SWITCH(CONF, bidi), .standard = "false",
     .help =
         "One connection for both directions (XEP-0288), behind TLS, with servers that know it.\n"
         "A server that breaks its rules does without for 10 minutes."},
    {.path = "peers",
     .type = SCHEMA_GROUPS,
     SCHEMA_LIST(CONF, struct cfg_peer, peers, npeers),
     .slot = 1,
     .sub = &peer_schema,
     .max = 100000,
     .example = "(\n  { domain = \"beta.lab\"; policy = \"allow\"; },\n"
                "  { domain = \"*.partner.example\"; policy = \"allow\"; "
                "security_mode = \"tls-optional\"; },\n"
                "  { domain = \"guest.example\"; policy = \"allow\"; local = \"alpha.lab\"; "
                "direction = \"in\";\n"
                "    until = \"2099-12-31\"; comment = \"until the fair is over\"; },\n"
                "  { domain = \"gamma.lab\"; route = \"192.0.2.7:5269\"; auth = [\"external\"]; "
                "}\n)",
     .help = "Remote domains. The exact name decides before the longest pattern before \"*\", key\n"
             "by key."},
    {SCHEMA_TEXTS(CONF, listen.s2s, listen.ns2s, CHECK_ENDPOINT, 64), .flags = SCHEMA_RESTART,
     .standard = "[\"0.0.0.0:5269\", \"[::]:5269\"]", .help = "Where other domains reach us."},
    {SCHEMA_TEXTS(CONF, listen.direct_tls, listen.ndirect_tls, CHECK_ENDPOINT, 64),
     .flags = SCHEMA_RESTART, .standard = "[]", .example = "[\"0.0.0.0:5270\", \"[::]:5270\"]",
     .help = "The same with TLS from the first byte (XEP-0368); _xmpps-server records name them."},
    {.path = "links",
     .type = SCHEMA_GROUPS,
     SCHEMA_LIST(CONF, struct cfg_link, links, nlinks),
     .slot = 2,
     .sub = &link_schema,
     .flags = SCHEMA_REQUIRED,
     .min = 1,
     .max = 64,
     .example = "(\n  { name = \"core\"; address = \"10.0.0.5:7400\"; "
                "component = \"edge.alpha.lab\";\n"
                "    secret_file = \"/etc/sallyport/link.secret\"; }\n)",
     .help = "The ways to the inside."},
    {SCHEMA_TEXTS(CONF, dns.servers, dns.nservers, CHECK_ENDPOINT, 8), .standard = "[]",
     .example = "[\"10.0.0.53:53\"]", .help = "Resolvers; none: those of the system."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, dns.timeout, 1 * SECOND, 1 * MINUTE),
     .standard = "\"10s\"", .help = "For all look-ups of one domain."},
    {SCHEMA_SWITCH(CONF, dns.trust_ad), .standard = "false",
     .help = "The servers check DNSSEC and are believed (RFC 7673): TLSA records then prove a\n"
             "peer (DANE), and its certificate may name the target of its SRV record. All of\n"
             "them must have loopback or private addresses."},
    {SCHEMA_TEXTS(CONF, outbound.source, outbound.nsource, CHECK_IP, 2), .standard = "[]",
     .example = "[\"192.0.2.10\"]", .help = "Own addresses to dial from, at most one per family."},
    {.path = "outbound.deny_networks",
     .type = SCHEMA_CIDRS,
     SCHEMA_LIST(CONF, struct cidr, outbound.deny_networks, outbound.ndeny),
     .max = 1024,
     .standard = SPECIAL_USE,
     .help = "Never dialled when learnt from DNS; a route may give such an address.\n"
             "The default is all special-use networks."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.auth, 1 * SECOND, 10 * MINUTE),
     .standard = "\"30s\"", .help = "From the connection to the first proven domain."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.connect, 1 * SECOND, 2 * MINUTE),
     .standard = "\"10s\"", .help = "For one TCP connection."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.keepalive, 1 * SECOND, 1 * HOUR),
     .standard = "\"60s\"", .help = "White space is sent after so much silence."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.idle, 1 * SECOND, 7 * DAY), .standard = "\"1h\"",
     .help = "A stream without stanzas is closed."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.close, 100, 1 * MINUTE), .standard = "\"5s\"",
     .help = "How long a peer may take to close its side."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.queue, 1 * SECOND, 1 * HOUR),
     .standard = "\"60s\"", .help = "How long a stanza waits for its stream before it bounces."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.drain, 100, 10 * MINUTE), .standard = "\"8s\"",
     .help = "For an orderly stop."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.peer_failing, 0, 1 * DAY),
     .standard = "\"5m\"",
     .help = "A domain that cannot be reached for so long is an alarm; 0: never."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.dead, 3 * SECOND, 10 * MINUTE),
     .standard = "\"10s\"",
     .help =
         "A link whose other end acknowledges nothing, or answers no ping, for so long is dead."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, timeouts.probe, 1 * SECOND, 1 * HOUR),
     .standard = "\"60s\"", .help = "A link that said nothing for so long is pinged (XEP-0199)."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.stanza_size, 10000, 16 * MIB), .standard = "\"256K\"",
     .help = "Largest stanza on an authenticated stream."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.unauthenticated_size, 1 * KIB, 256 * KIB),
     .standard = "\"8K\"", .help = "Largest element before that."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.queue_bytes, 64 * KIB, 256 * MIB),
     .standard = "\"1M\"", .help = "Waiting for one pair of domains."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.queue_stanzas, 1, 1000000), .standard = "1000",
     .help = "The same in stanzas."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.queue_total, 1 * MIB, UINT64_C(16384) * MIB),
     .standard = "\"64M\"",
     .help = "Waiting for all pairs; beyond it stanzas bounce (resource-constraint)."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.hold_bytes, 0, 256 * MIB), .standard = "\"1M\"",
     .help = "Held for the inside while the link is down."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, limits.hold_time, 0, 10 * MINUTE), .standard = "\"10s\"",
     .help = "How long it is held before it bounces."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.link_high, 16 * KIB, 256 * MIB), .standard = "\"1M\"",
     .help = "Waiting on one link: above it, the streams that feed it are paused."},
    {SCHEMA_NUMBER(CONF, SCHEMA_SIZE, limits.link_low, 4 * KIB, 256 * MIB), .standard = "\"256K\"",
     .help = "Below it they go on."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.connections, 1, 1000000), .standard = "4000",
     .help = "Accepted connections at a time."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.connections_per_source, 1, 1000000), .standard = "100",
     .help = "Of these from one address."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.unauthenticated, 1, 1000000), .standard = "500",
     .help = "Of these without a proven domain."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.pending_dialbacks, 1, 1000), .standard = "16",
     .help = "Verifications in flight on one stream."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, limits.pairs_per_stream, 1, 10000), .standard = "64",
     .help = "Pairs of domains on one stream."},
    {SCHEMA_TEXT(CONF, tls.ca_file, CHECK_FILE), .standard = "\"\"",
     .help = "PEM file with the authorities to trust; \"\": the system's."},
    {SCHEMA_TEXT(CONF, tls.crl_file, CHECK_FILE), .standard = "\"\"",
     .help =
         "PEM file with revocation lists. An authority without one revokes nothing; a list that\n"
         "is out of date still counts. Read at start and at each reload."},
    {SCHEMA_CHOICE(CONF, tls.minimum, tls_versions), .standard = "\"1.2\"",
     .help = "Lowest TLS version."},
    {SCHEMA_NUMBER(CONF, SCHEMA_DURATION, tls.watch, 0, 1 * HOUR), .standard = "\"1m\"",
     .help =
         "How often the files of own certificates are looked at, from \"1s\"; \"0s\": only at a\n"
         "reload. A renewed one is used for new streams unless it is worse than the old one."},
    {SCHEMA_CHOICE(CONF, log.level, log_levels), .standard = "\"info\"",
     .help = "Lowest level shown."},
    {SCHEMA_CHOICE(CONF, log.format, log_formats), .standard = "\"logfmt\"",
     .help = "Form of a line."},
    {SCHEMA_NUMBER(CONF, SCHEMA_INT, log.rate, 0, 100000), .standard = "1000",
     .help = "Lines per second and event name, from 10; 0: no limit."},
    CONTROL_ENTRIES(CONF, "\"" CONTROL_GATEWAY_SOCKET "\""),
    {SCHEMA_TEXT(CONF, user, CHECK_NAME), .flags = SCHEMA_RESTART, .standard = "\"\"",
     .example = "\"sallyport\"", .help = "User to become after binding when started as root."},
    {.path = "workers",
     .type = SCHEMA_INT,
     .at = SCHEMA_NOWHERE,
     .flags = SCHEMA_LIMITED | SCHEMA_RESTART,
     .available = 1,
     .min = 0,
     .max = 256,
     .standard = "0",
     .help = "Event loops; more than one is not available in this version."},
};

const struct schema gateway_schema = {
    .title = "Sallyport, the gateway. Sizes: \"64K\", \"10M\"; durations: \"500ms\", \"30s\", "
             "\"5m\", \"1h\".",
    .entries = entries,
    .n = sizeof entries / sizeof entries[0],
    .size = sizeof(struct gateway_config),
    .meta_at = SCHEMA_AT(struct gateway_config, struct schema_meta *, meta),
    .check = check_gateway,
};

struct gateway_config *gateway_config_ref(struct gateway_config *c)
{
    c->refs++;
    return c;
}

void gateway_config_unref(struct gateway_config *c)
{
    if (c == NULL || --c->refs > 0)
        return;
    mem_free(c->file);
    schema_free(&gateway_schema, c);
}

struct gateway_config *gateway_config_parse(const char *file, struct str text, struct buf *errors)
{
    struct gateway_config *c = schema_load(&gateway_schema, file, text, errors);
    if (c == NULL)
        return NULL;
    c->refs = 1;
    c->domains_entry = schema_entry(&gateway_schema, "domains");
    c->peers_entry = schema_entry(&gateway_schema, "peers");
    int64_t now;
    if (env_wall(&env_system, &now))
        gateway_config_expire(c, now, NULL, NULL);
    if ((c->file = mem_strdup(file)) == NULL) {
        buf_printf(errors, "%s: out of memory\n1 error\n", file);
        gateway_config_unref(c);
        return NULL;
    }
    return c;
}

struct gateway_config *gateway_config_load(const char *file, struct buf *errors)
{
    return gateway_config_parse(file, STR_NONE, errors);
}
