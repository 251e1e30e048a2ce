/* The gateway's configuration as one immutable, ref-counted snapshot.
 *
 * Built from the schema table (config/schema_gateway.c) by config_load, then never changed: a
 * reload builds another one. Whoever keeps a pointer holds a reference. Domain names are A-labels
 * (see core/xml/jid.h), durations milliseconds, sizes bytes. Strings belong to the snapshot. */
#ifndef CONFIG_GATEWAY_H
#define CONFIG_GATEWAY_H

#include "config/control.h"
#include "core/base/buf.h"
#include "core/base/cidr.h"
#include "core/base/log.h"

struct schema_meta; /* config/schema.h */
struct domain_list; /* config/domains.h */
struct schema_entry;

enum security_mode { SECURITY_NO_TLS, SECURITY_TLS_OPTIONAL, SECURITY_TLS_REQUIRED };
enum privacy_mode { PRIVACY_OFF, PRIVACY_ALLOW_LIST, PRIVACY_DENY_LIST };
enum peer_policy { PEER_UNSET, PEER_ALLOW, PEER_DENY };
/* How a peer proves its domain; a set of these bits. */
enum policy_auth { POLICY_AUTH_EXTERNAL = 1, POLICY_AUTH_DIALBACK = 2 };

enum peer_direction { DIRECTION_BOTH, DIRECTION_IN, DIRECTION_OUT };

enum { CONFIG_UNSET = -1, CONFIG_ROUTES_MAX = 8, CONFIG_PINS_MAX = 16 };

struct cfg_domain {
    char *name;
    char *certificate, *key; /* PEM files; both NULL: a self-signed one is made at start */
    char *client_certificate, *client_key; /* shown when we dial; both NULL: the above */
    bool subdomains;                       /* every name below belongs to the inside too */
};

struct cfg_peer {
    char *pattern;     /* "beta.lab", "*.partner.example", "*" */
    int policy;        /* enum peer_policy */
    int security_mode; /* enum security_mode, or CONFIG_UNSET: the global one */
    unsigned auth;     /* bits of enum policy_auth; 0: the global ones */
    char **pins;       /* SHA-256 of public keys, "0F:A2:…"; none: the peer is not pinned */
    size_t npins;
    char *ca_file;   /* the only authorities for this peer; NULL: those of tls.ca_file */
    int minimum_tls; /* as tls.minimum, which it may raise; CONFIG_UNSET: that one */
    int bidi;        /* 0, 1, or CONFIG_UNSET: the global one */
    char **route;    /* "192.0.2.7:5269", "[2001:db8::1]:5269", "host.example:5269", in the order
                        to try; none: SRV */
    size_t nroute;
    bool direct_tls; /* of the route, all of it: TLS from the first byte (XEP-0368) */
    /* Whom `policy`, or the consent that a route implies, is about. */
    char **local; /* local domains; none: all */
    size_t nlocal;
    int direction; /* enum peer_direction, or CONFIG_UNSET: both. Who may write */
    char *comment;
    int64_t until; /* ms since 1970: the entry counts no longer then; 0: for ever */
    bool expired;  /* see gateway_config_expire */
};

enum link_protocol {
    PROTOCOL_COMPONENT, /* XEP-0114 */
    PROTOCOL_S2S,       /* an inside server that federates with "everybody", which is us */
    PROTOCOL_JABBERD2,  /* the protocol of jabberd2's router */
};
enum link_transport { LINK_DIAL, LINK_ACCEPT }; /* who opens the TCP connection, seen from us */

/* One way to the inside. Which keys a protocol takes: config/check_links.c. */
struct cfg_link {
    char *name;
    int protocol;      /* enum link_protocol */
    int transport;     /* enum link_transport */
    int auth;          /* enum link_auth (trust.h) */
    uint64_t priority; /* lower first; the same: shared by sender */
    char **domains;    /* local domains that live behind it; none: all */
    size_t ndomains;
    char **partners; /* the only remote domains that it carries; none: all */
    size_t npartners;
    uint64_t stanza_size; /* the inside takes no larger one; 0: limits.stanza_size */
    char *address;        /* of the inside: literal IP and port */
    char **listen;        /* ours, for an inside that dials: "address:port" */
    size_t nlisten;
    char *component; /* name to join as; NULL with partners: one stream for each, with its name */
    char *user;      /* jabberd2: of router-users.xml */
    char *secret;    /* from secret_file; NULL: none */
    char *secret_file;
    char *certificate, *key; /* our own on this link, PEM files */
    char *ca_file;           /* roots for the inside's certificate; NULL: none */
    char *store_file;        /* certificates of the inside themselves */
    char **authlist;         /* key hashes, as written */
    size_t nauthlist;
    char *peer_name;      /* what the inside's certificate must carry */
    char *proven_file;    /* where a name proven by password is remembered */
    int security_mode;    /* s2s, jabberd2: STARTTLS there */
    struct cidr *trusted; /* s2s: inside addresses that need no dialback */
    size_t ntrusted;
    char *certificates_dir; /* s2s: NAME.pem for remote domains, shown to the inside */
};

struct gateway_config {
    unsigned refs;
    char *file;               /* where it came from */
    char *include_dir;        /* NULL: none */
    struct schema_meta *meta; /* origins and indexes; NULL in a snapshot made by hand */
    const struct schema_entry *domains_entry, *peers_entry; /* of the table; looked for only once */

    bool federation;
    int security_mode;   /* enum security_mode */
    int privacy_mode;    /* enum privacy_mode */
    bool privacy_shadow; /* what an allow list would refuse is told and let through */
    unsigned auth;       /* bits of enum policy_auth, at least one */
    bool use_static_routes;
    bool bidi;                    /* XEP-0288 */
    char *allow_file, *deny_file; /* NULL: none */
    struct domain_list *allow, *deny;

    struct cfg_domain *domains;
    size_t ndomains;
    struct cfg_peer *peers;
    size_t npeers;
    struct cfg_link *links;
    size_t nlinks;

    struct {
        char *secret; /* NULL: random at start */
        char *secret_file;
        char **previous_secrets; /* contents of previous_secret_files; still accepted */
        char **previous_secret_files;
        size_t nprevious; /* of both */
        uint64_t timeout;
    } dialback;
    struct {
        char **s2s; /* "address:port" */
        size_t ns2s;
        char **direct_tls; /* the same; TLS from the first byte */
        size_t ndirect_tls;
    } listen;
    struct {
        char **servers; /* "address:port"; none: the system's */
        size_t nservers;
        uint64_t timeout;
        bool trust_ad; /* they check DNSSEC, and are believed; all of them are near */
    } dns;
    struct {
        char **source; /* literal addresses, at most one per family */
        size_t nsource;
        struct cidr *deny_networks;
        size_t ndeny;
    } outbound;
    struct {
        uint64_t auth, connect, keepalive, idle, close, queue, drain;
        uint64_t peer_failing; /* then it is an alarm; 0: never */
        uint64_t dead;         /* a link that acknowledges nothing for so long is dead */
        uint64_t probe;        /* an idle link is asked for a sign of life */
    } timeouts;
    struct {
        uint64_t stanza_size;                /* bytes, authenticated */
        uint64_t unauthenticated_size;       /* bytes */
        uint64_t queue_bytes, queue_stanzas; /* per pair */
        uint64_t queue_total;                /* all pairs */
        uint64_t hold_bytes, hold_time;      /* link down */
        uint64_t link_high, link_low; /* bytes waiting on a link: what feeds it pauses, goes on */
        uint64_t connections, connections_per_source, unauthenticated;
        uint64_t pending_dialbacks; /* per stream */
        uint64_t pairs_per_stream;
    } limits;
    struct {
        char *ca_file;
        char *crl_file;
        int minimum;    /* 0x0303 or 0x0304, as OpenSSL counts */
        uint64_t watch; /* own certificates are looked at so often; 0: only at a reload */
    } tls;
    struct {
        int level;  /* enum log_level */
        int format; /* enum log_format */
        uint64_t rate;
    } log;
    struct cfg_control control;
    struct {
        char *file; /* where events are written, too; NULL: nowhere */
    } events;
    char *user; /* to become after binding; NULL: stay */
};

struct gateway_config *gateway_config_ref(struct gateway_config *c);
void gateway_config_unref(struct gateway_config *c);

/* Reads and checks `file`. On failure returns NULL; `errors` holds one line per error,
 * "file:line: ..., did you mean ...?", and a last line with their number. On success `errors` may
 * hold warnings. Relative file names inside are relative to the folder of `file`.
 * When `file` itself is missing, `errors` is one line for which config_missing (config/schema.h)
 * is true: exit 66 instead of 78. */
struct gateway_config *gateway_config_load(const char *file, struct buf *errors);
/* The same with the contents of `file` given; the file itself is not opened. */
struct gateway_config *gateway_config_parse(const char *file, struct str text, struct buf *errors);

/* Time is the one thing that changes a snapshot: marks the entries of `peers` that are over at
 * `now` (ms since 1970), which no look-up finds from then on. The loader does it, the owner again
 * when gateway_config_due says so. Calls `each` for every entry that was not marked before. */
void gateway_config_expire(struct gateway_config *c, int64_t now,
                           void (*each)(void *arg, const struct cfg_peer *p), void *arg);
/* When the next one is over; false: none ever will be. */
bool gateway_config_due(const struct gateway_config *c, int64_t *due);

/* Goes through what speaks for a remote domain (A-label), the nearest first: calls `each` with the
 * exact name, then ".suffix" for every suffix, then "", and the peer entry of that name, or NULL.
 * True: it ends there. */
bool gateway_config_walk(const struct gateway_config *c, struct str remote,
                         bool (*each)(void *arg, struct str name, const struct cfg_peer *p),
                         void *arg);
/* The peer entry that decides a setting for a remote domain (A-label): exact name, then the longest
 * "*.suffix", then "*". `has` says whether an entry sets what is asked for; NULL: none does. */
const struct cfg_peer *gateway_config_peer(const struct gateway_config *c, struct str remote,
                                           bool (*has)(const struct cfg_peer *));
/* The same for what the entry `p` stands for: itself, or else the nearest pattern above it. */
const struct cfg_peer *gateway_config_inherited(const struct gateway_config *c,
                                                const struct cfg_peer *p,
                                                bool (*has)(const struct cfg_peer *));
/* The local domain that owns a name: exact, or below one with subdomains; NULL: not ours. */
const struct cfg_domain *gateway_config_domain(const struct gateway_config *c, struct str name);

#endif
