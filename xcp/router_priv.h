/* Inside of the router, shared by router.c (life), router_snapshot.c (what a configuration needs),
 * router_link.c (connections), router_forward.c (stanzas) and router_splice.c (bytes).
 *
 * Lifetimes. The router owns its links; a link lives as long as the configuration names it or a
 * peer points to it. A peer (one connection) lives from its socket until session ops->closed; it
 * keeps the snapshot that its machine borrows from, and points to its link, which outlives it. */
#ifndef XCP_ROUTER_PRIV_H
#define XCP_ROUTER_PRIV_H

#include "core/daemon/alarm.h"
#include "core/net/listen.h"
#include "core/net/redial.h"
#include "core/net/relay.h"
#include "core/net/session.h"
#include "xcp/credentials.h"
#include "xcp/link_client.h"
#include "xcp/link_server.h"
#include "xcp/router.h"
#include "xcp/routes.h"

enum { ROUTER_SID = 24, ROUTER_PENDING_MAX = 64 };

/* A configuration in the form that the machines borrow; ref-counted. */
struct router_snapshot {
    unsigned refs;
    struct router_config *cfg;
    struct framer_limits limits;
    struct credentials *links, *splices; /* as cfg->links and cfg->splices */
    struct link_account *by_link;        /* as cfg->links */
    struct link_account *accounts;       /* those who may join on a listener */
    size_t *account_link;                /* index in cfg->links of each */
    size_t naccounts;
    struct tls_ctx *accept_tls; /* of one of `links`; NULL: none that is accepted uses TLS */
};

struct router_counters {
    uint64_t in_stanzas, in_bytes, out_stanzas, out_bytes;
    uint64_t bounced; /* received here and answered with an error */
    uint64_t dropped; /* received here, or left over here, and answered by nothing */
    uint64_t refused; /* by the firewall */
};

struct router_peer;

/* A splice lives like a link; a join (its two connections) from the first socket until the relay's
 * ops->closed. */
struct router_join;

struct router_splice {
    struct router *router;
    struct router_snapshot *snap;  /* the present one, referenced; NULL: not set yet, or gone */
    const struct rcfg_splice *cfg; /* of `snap` */
    size_t index;
    struct redial redial;
    struct router_join *join; /* the present one; NULL: none */
    uint64_t since_ms, ups;
    uint64_t in_bytes, out_bytes; /* from the gateway, to it; of the joins that are over */
    size_t njoins;                /* that point to it */
    bool gone;
};

struct router_link {
    struct router *router;
    const struct rcfg_link *cfg; /* of the present snapshot */
    size_t index;                /* in the present snapshot */
    struct router_peer *peer;    /* the one that is up; NULL: down */
    struct router_peer *dialled; /* dial: connected, not up yet */
    struct redial redial;        /* dial */
    char proven[DOMAIN_MAX + 1]; /* the name that has been up by password; "": none */
    uint64_t since_ms;           /* of the present state, up or down */
    uint64_t ups;
    size_t npeers; /* that point to it */
    bool gone;     /* not configured any more: cfg is NULL */
    struct router_counters count;
};

struct router_peer {
    struct session session; /* first */
    struct list_node node;  /* in router.peers */
    struct router *router;
    struct router_link *link; /* NULL: not proven yet, or its link is gone */
    struct router_snapshot *snap;
    bool dialling; /* we opened the connection */
    bool client;   /* the machine is the client's */
    bool pending;  /* counted in router.pending */
    bool up;       /* it was attached to its link */
    bool ended;
    union {
        struct link_client client;
        struct link_server server;
    } machine;
    struct list blocked;    /* peers that are paused because this one is full */
    struct list_node waits; /* in the `blocked` of the one that we wait for */
    struct timer stall;
    uint64_t opened_ms;
    struct router_counters at_up; /* of the link, when this peer came up */
    char sid[ROUTER_SID];
    char addr[ENDPOINT_TEXT];
};

struct router {
    struct loop *loop;
    struct log_ctx log;
    struct router_snapshot *snap;
    struct routes *routes;
    struct router_link **links;     /* by index of the snapshot */
    struct router_splice **splices; /* the same */
    struct alarms alarms;
    struct story story;
    struct listener **listeners;
    size_t nlisteners;
    struct list peers;
    size_t pending;    /* accepted peers that are not proven yet */
    struct list joins; /* of splices, until they are closed */
    uint64_t next_sid;
    bool started, draining, told;
    struct timer deadline;
    struct loop_task finish;
    void (*ended)(void *arg);
    void *arg;
};

/* router_snapshot.c */
/* NULL: `errors` says why. */
struct router_snapshot *router_snapshot_new(struct router_config *cfg, struct buf *errors);
struct router_snapshot *router_snapshot_ref(struct router_snapshot *s);
void router_snapshot_unref(struct router_snapshot *s);

/* router_link.c */
struct router_link *router_link_new(struct router *r);
void router_link_start(struct router_link *k);                 /* dials, when it is one to dial */
void router_link_stop(struct router_link *k, const char *why); /* its peers end */
/* After router_link_stop: it is freed with its last peer. */
void router_link_remove(struct router_link *k);
bool router_link_same(const struct rcfg_link *a, const struct rcfg_link *b);
bool router_proof_same(const struct rcfg_proof *a, const struct rcfg_proof *b);
/* Whoever is up on it would be let in again. */
bool router_link_trusted(const struct router_link *k, const struct credentials *now);
void router_accept(void *arg, uv_tcp_t *tcp);
void router_peer_abort(struct router_peer *p, const char *why);

/* router_forward.c */
void router_take(struct router_peer *from, const struct gw_event *ev, const struct gw_action *act);
/* What `p` has not sent goes to other links, or back to where it came from. */
void router_take_back(struct router_peer *p);
void router_unblock(struct router_peer *p);  /* those that wait for p go on */
void router_leave(struct router_peer *p);    /* p waits for nobody any more */
void router_progress(struct router_peer *p); /* its peer reads */

/* router_splice.c */
struct router_splice *router_splice_new(struct router *r);
/* Of which configuration it is from now on; when that is another one, what runs is ended. */
void router_splice_set(struct router_splice *s, struct router_snapshot *snap, size_t index);
void router_splice_start(struct router_splice *s); /* dials, unless it runs already */
void router_splice_stop(struct router_splice *s, const char *why); /* in good order; `why` static */
void router_joins_end(struct router *r, const char *why);          /* all, now */
void router_splice_remove(struct router_splice *s); /* it is freed with its last join */
void router_splice_state(const struct router_splice *s, const struct kv_sink *to);

/* router.c */
void router_peer_gone(struct router *r); /* the last one may have gone */

#endif
