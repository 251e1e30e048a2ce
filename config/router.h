/* sallyport-router's configuration: an immutable, ref-counted snapshot like config/gateway.h. */
#ifndef CONFIG_ROUTER_H
#define CONFIG_ROUTER_H

#include "core/base/buf.h"
#include "core/base/log.h"

struct schema_meta; /* config/schema.h */

enum router_role { ROLE_GATEWAY, ROLE_SERVER };
enum router_transport { TRANSPORT_ACCEPT, TRANSPORT_DIAL };

struct rcfg_link {
    char *name;
    int role;        /* enum router_role */
    int transport;   /* enum router_transport */
    char *address;   /* dial only: "address:port" */
    char *component; /* accept: the name that may join; dial: the name to join as */
    char **domains;  /* server only: local domains that it owns; A-labels */
    size_t ndomains;
    char *secret; /* from secret_file */
    char *secret_file;
};

struct router_config {
    unsigned refs;
    char *file;
    char *include_dir;        /* NULL: none */
    struct schema_meta *meta; /* origins and indexes; NULL in a snapshot made by hand */
    struct {
        char **links; /* "address:port" */
        size_t nlinks;
    } listen;
    struct rcfg_link *links;
    size_t nlinks;
    struct {
        uint64_t auth, connect, keepalive, close, drain;
    } timeouts;
    struct {
        uint64_t stanza_size;
        uint64_t buffer; /* bytes waiting per link before its sources are paused */
    } limits;
    struct {
        int level, format;
        uint64_t rate;
    } log;
    char *user;
};

struct router_config *router_config_ref(struct router_config *c);
void router_config_unref(struct router_config *c);
/* As gateway_config_load and gateway_config_parse. */
struct router_config *router_config_load(const char *file, struct buf *errors);
struct router_config *router_config_parse(const char *file, struct str text, struct buf *errors);

#endif
