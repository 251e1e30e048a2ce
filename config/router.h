/* sallyport-router's configuration: an immutable, ref-counted snapshot like config/gateway.h. */
#ifndef CONFIG_ROUTER_H
#define CONFIG_ROUTER_H

#include "config/auth.h"
#include "config/control.h"
#include "core/base/buf.h"
#include "core/base/log.h"

struct schema_meta; /* config/schema.h */

enum router_role { ROLE_GATEWAY, ROLE_SERVER };
enum router_transport { TRANSPORT_ACCEPT, TRANSPORT_DIAL };

/* Who we are on a connection, and how the other side proves itself; xcp/trust.h. Files are PEM. */
struct rcfg_proof {
    int auth;                /* enum link_auth */
    char *certificate, *key; /* our own */
    char *ca_file;           /* roots for the peer's certificate; NULL: none */
    char *store_file;        /* certificates of the peer themselves */
    char **authlist;         /* key hashes, as written */
    size_t nauthlist;
    char *peer_name; /* what a certificate of ca_file must carry */
};

struct rcfg_link {
    char *name;      /* how logs and alarms call it; unique */
    int role;        /* enum router_role */
    int transport;   /* enum router_transport */
    char *address;   /* dial only: "address:port" */
    char *component; /* the name that joins: ours on a server that is dialled, else the peer's */
    char **domains;  /* server only: local domains that it owns; A-labels */
    size_t ndomains;
    uint64_t priority; /* lower first; equal gateways share by sender */
    struct rcfg_proof proof;
    char *secret; /* from secret_file; NULL: none */
    char *secret_file;
    char *proven_file; /* where a name proven by password is remembered */
};

/* A gateway that listens, joined with a server that listens and whose protocol we do not speak. */
struct rcfg_splice {
    char *name;              /* how logs and alarms call it; unique */
    char *gateway, *server;  /* "address:port" */
    struct rcfg_proof proof; /* of the gateway; its auth is always tls */
};

struct router_config {
    unsigned refs;
    char *file;
    char *include_dir;        /* NULL: none */
    struct schema_meta *meta; /* origins and indexes; NULL in a snapshot made by hand */
    struct {
        char **links; /* "address:port", where links with transport "accept" arrive */
        size_t nlinks;
    } listen;
    struct rcfg_link *links;
    size_t nlinks;
    struct rcfg_splice *splices;
    size_t nsplices;
    struct {                /* ms */
        uint64_t auth;      /* from the connection to the end of the handshake; of a splice, to the
                             * gateway's first words */
        uint64_t connect;   /* of one TCP connection */
        uint64_t keepalive; /* white space after so much silence */
        uint64_t close;     /* the other side may take to close */
        uint64_t drain;     /* an orderly stop in all */
        uint64_t dead;      /* a peer whose machine answers nothing for so long is gone */
    } timeouts;
    struct {                  /* bytes */
        uint64_t stanza_size; /* the largest one */
        uint64_t buffer;      /* waiting per link or splice before its sources are paused */
    } limits;
    struct {
        int level, format; /* enum log_level, enum log_format */
        uint64_t rate;     /* lines per second and event name; 0: no limit */
    } log;
    struct cfg_control control;
    struct {
        char *file; /* where events are written, too; NULL: nowhere */
    } events;
    char *user; /* to become after binding when started as root; "": none */
};

struct router_config *router_config_ref(struct router_config *c);
void router_config_unref(struct router_config *c);
/* As gateway_config_load and gateway_config_parse. */
struct router_config *router_config_load(const char *file, struct buf *errors);
struct router_config *router_config_parse(const char *file, struct str text, struct buf *errors);

#endif
