/* A worker: one event loop and everything that lives on it. Several may run in one process later;
 * nothing here is shared, and there are no globals.
 *
 *   accept.c   incoming streams            peer.c    one remote domain: resolve, dial, stream
 *   link.c     the inside link             switch.c  which stanza goes where, bounces, the books
 *   worker.c   creation, reload, drain
 *
 * Ownership: the worker owns the configuration snapshot and all sessions borrow it; a reload swaps
 * it for all of them before anything else happens. */
#ifndef GATEWAY_WORKER_H
#define GATEWAY_WORKER_H

#include "config/gateway.h"
#include "core/base/table.h"
#include "core/net/addr.h"
#include "core/net/connect.h"
#include "core/net/listen.h"
#include "core/net/session.h"
#include "dns/resolver.h"
#include "gateway/counters.h"
#include "gateway/proto/dialback.h"
#include "gateway/proto/s2s_in.h"
#include "gateway/proto/s2s_out.h"
#include "gateway/route/outq.h"
#include "gateway/route/remote.h"
#include "xcp/link_client.h"

struct worker;

enum { PAIR_TEXT = 2 * DOMAIN_MAX + 2 };
/* How long a closed stream waits for its peer to close the connection too; when we stop: less. */
enum { LINGER_MS = 5000, DRAIN_LINGER_MS = 500 };

/* An incoming stream. */
struct in_session {
    struct session s; /* first */
    struct s2s_in m;
    struct worker *w;
    uint32_t sid;
    UT_hash_handle hh;     /* worker.in_by_sid */
    struct list_node node; /* worker.in_unproven or worker.in_proven */
    bool paused;           /* by the link's back-pressure */
    bool full;             /* paused until the peer reads our answers */
    uint32_t asking;       /* keys of this stream that are being verified */
    uint64_t stanzas;
    struct endpoint from;
    char addr[ENDPOINT_TEXT]; /* the same for people */
    char pair[PAIR_TEXT];
};

/* What one address, or one /64 network of IPv6, takes up. */
struct source {
    struct ip ip;
    uint32_t connections;
    uint32_t asking; /* keys that are being verified for it */
    UT_hash_handle hh;
};

struct peer;

/* An outgoing stream. */
struct out_session {
    struct session s; /* first */
    struct s2s_out m;
    struct worker *w;
    struct peer *peer; /* NULL: detached, only finishing */
    uint32_t sid;
    struct list_node node;         /* worker.out */
    enum s2s_out_state last_state; /* before the present step: where a failure happened */
    uint64_t stanzas;
    char addr[ENDPOINT_TEXT];
    char pair[PAIR_TEXT];
};

/* One remote domain and what is under way for it. */
struct peer {
    struct worker *w;
    struct remote *remote;
    char domain[DOMAIN_MAX + 1];
    UT_hash_handle hh; /* worker.peers */
    struct loop_task kick;
    struct timer timer;
    struct dns_query *query;
    struct connect *dialling;
    struct out_session *out;
    struct dns_target targets[DNS_TARGETS_MAX];
    size_t ntargets;
    bool literal;               /* the target is a static route's literal address */
    size_t target;              /* the one being tried */
    char local[DOMAIN_MAX + 1]; /* the local domain whose stanza or question woke it */
    uint64_t started;           /* ms: first dial of this attempt */
};

/* The inside link. */
struct link {
    struct worker *w;
    struct link_session *session; /* NULL: not connected */
    struct connect *dialling;
    struct timer retry, hold_timer;
    unsigned failures;
    bool up, stopping, refused;
    uint64_t down_since;
    struct outq hold; /* towards the inside, while it is down */
    struct outq_limits hold_limits;
};

struct link_session {
    struct session s; /* first */
    struct link_client m;
    struct worker *w;
    uint32_t sid;
    char addr[ENDPOINT_TEXT];
};

struct worker {
    struct loop loop;
    struct log *log;
    struct log_ctx ctx; /* plain lines of the worker */
    struct gateway_config *cfg;
    struct tls_ctx *tls;
    struct dialback_secrets secrets;
    char random_secret[65]; /* when no secret_file is configured */
    struct resolver *resolver;
    struct listener **listeners;
    size_t nlisteners;
    bool listening, draining;
    struct timer drain_timer;
    void (*drained)(void *arg); /* all sessions are gone */
    void *drained_arg;
    struct loop_task drain_check;

    struct in_session *in_by_sid;
    struct list in_unproven, in_proven; /* oldest first */
    struct source *sources;
    struct list out;
    struct peer *peers;
    struct link link;
    bool in_paused; /* reading from proven streams is paused for the link */

    size_t link_sessions; /* the present one and those that are closing */
    struct framer_limits limits_unproven, limits_proven, limits_link;
    struct outq_limits outq;
    struct remote_settings remote_settings;
    struct counters n;
    uint32_t next_sid;
};

/* ---- worker.c ---- */

/* Takes a reference on cfg. `why`: a line for the operator when it cannot start; *exit_code is 69
 * when it cannot listen, 78 when certificates or servers are unusable. */
bool worker_start(struct worker *w, struct log *log, struct gateway_config *cfg, struct buf *why,
                  int *exit_code);
/* A new snapshot for everything. False: nothing changed, `why` says why. Takes a reference. */
bool worker_reload(struct worker *w, struct gateway_config *cfg, struct buf *why);
/* Stops accepting, closes all streams in good order within timeouts.drain, then calls `drained`. */
void worker_drain(struct worker *w, void (*drained)(void *arg), void *arg);
void worker_drain_now(struct worker *w); /* the second signal */
void worker_check_drained(struct worker *w);
void worker_close(struct worker *w);          /* frees everything; the loop has stopped */
void worker_dump(struct worker *w);           /* state into the log */
uint32_t worker_sid(struct worker *w);        /* never 0, never used again */
bool worker_own_address(const struct ip *ip); /* of an interface of this host, or loopback */

/* ---- accept.c ---- */
/* Listens as `cfg` says, unless it does already or federation is off. */
bool accept_open(struct worker *w, const struct gateway_config *cfg, struct buf *why);
void accept_close(struct worker *w);
void accept_verdict(struct worker *w, uint32_t sid, uint32_t ticket, enum verdict v,
                    struct str text);
void accept_policy_changed(struct worker *w);
void accept_drain(struct worker *w, bool now);
void accept_pause(struct worker *w); /* the link is full */
void accept_resume(struct worker *w);

/* ---- peer.c ---- */
/* NULL: out of memory or too many. `local` is the domain on whose behalf it is needed. */
struct peer *peer_get(struct worker *w, struct str remote, struct str local);
struct peer *peer_find(struct worker *w, struct str remote);
void peer_kick(struct peer *p);
/* Hands a stanza (ours to give: retained) to the stream at once; false: it has to wait. */
bool peer_send_now(struct peer *p, struct str local, struct span *stanza);
void peer_policy_changed(struct worker *w);
void peer_forget_lookups(struct worker *w); /* the resolver goes: fails what it has under way */
void peer_drain(struct worker *w, bool now);
void peer_free_all(struct worker *w);

/* ---- link.c ---- */
void link_open(struct worker *w);
void link_send(struct worker *w, struct span stanza); /* takes the reference over */
void link_reload(struct worker *w, bool changed);     /* changed: the link's own settings */
void link_bounce_held(struct worker *w); /* what waits for the inside will wait in vain */
void link_drain(struct worker *w, bool now);
void link_close(struct worker *w); /* frees what is left */

/* ---- switch.c ---- */
/* A stanza from a remote server whose pair is proven. */
void switch_inward(struct worker *w, const struct stanza *st, struct str local, struct str remote);
/* A stanza from the inside. */
void switch_outward(struct worker *w, const struct stanza *st);
/* Answers a stanza from a remote server with an error (or drops it). */
void switch_bounce_inward(struct worker *w, const struct stanza *st, struct str local,
                          struct str remote, const char *type, const char *condition,
                          const char *text);
/* Answers a stanza from the inside with an error (or drops it). */
void switch_answer_inside(struct worker *w, const struct stanza *st, const char *condition,
                          const char *text);
/* A stanza that was on its way and failed: bytes as we would have written them. */
void switch_failed_outward(struct worker *w, struct span stanza, const char *condition,
                           struct str text);
void switch_failed_inward(struct worker *w, struct span stanza, const char *condition,
                          const char *text);
/* An unsent stanza of an outgoing stream: back to its pair's queue. */
void switch_requeue_outward(struct worker *w, struct span stanza);

#endif
