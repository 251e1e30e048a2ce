/* A worker: one event loop and everything that lives on it. Several may run in one process later;
 * nothing here is shared, and there are no globals.
 *
 *   front.c    one side for server-to-server streams: the world, or the inside of an s2s link
 *   accept.c   its incoming streams        peer.c    one remote domain of it: resolve, dial, stream
 *   guest.c    who uses an outgoing stream besides the domain that it was dialled for
 *   carry.c    what both directions share; incoming streams that carry stanzas back
 *   link.c     the links to the inside     line.c    the streams of one     kit.c  what they run on
 *   hold.c     which link takes a stanza, and what waits while none is up
 *   switch.c   which stanza goes where, bounces, the books
 *   certs.c    our own certificates, and what lies on disk in their place
 *   worker.c   creation, reload, drain
 *
 * Ownership: the worker owns the configuration snapshot and the streams of its fronts borrow it; a
 * reload swaps it for all of them before anything else happens. The streams of a link keep the kit
 * (and so the snapshot) that they were made with. */
#ifndef GATEWAY_WORKER_H
#define GATEWAY_WORKER_H

#include "config/diff.h"
#include "config/gateway.h"
#include "core/base/table.h"
#include "core/daemon/alarm.h"
#include "core/daemon/story.h"
#include "core/net/addr.h"
#include "core/net/connect.h"
#include "core/net/listen.h"
#include "core/net/redial.h"
#include "core/net/session.h"
#include "dns/resolver.h"
#include "gateway/certs.h"
#include "gateway/counters.h"
#include "gateway/policy/effect.h"
#include "gateway/policy/refusals.h"
#include "gateway/policy/shadow.h"
#include "gateway/policy/side.h"
#include "gateway/proto/dialback.h"
#include "gateway/proto/s2s_in.h"
#include "gateway/proto/s2s_out.h"
#include "gateway/proto/secret_watch.h"
#include "gateway/route/inward.h"
#include "gateway/route/outq.h"
#include "gateway/route/remote.h"
#include "gateway/route/trouble.h"
#include "xcp/jabberd2.h"
#include "xcp/link_client.h"
#include "xcp/trust.h"

struct worker;

enum { PAIR_TEXT = 2 * DOMAIN_MAX + 2 };
/* How long a closed stream waits for its peer to close the connection too; when we stop: less. */
enum { LINGER_MS = 5000, DRAIN_LINGER_MS = 500 };

struct front;
struct link;

/* An incoming stream. */
struct in_session {
    struct session s; /* first */
    struct s2s_in m;
    struct worker *w;
    struct front *front;
    struct link_kit *kit; /* NULL: of the world */
    uint32_t sid;
    UT_hash_handle hh;     /* worker.in_by_sid */
    struct list_node node; /* front.in_unproven or front.in_proven */
    uint64_t full_links;   /* bit i: paused because link i takes no more */
    bool full;             /* paused until the peer reads our answers */
    uint32_t asking;       /* keys of this stream that are being verified */
    uint64_t back;         /* stanzas that were handed to it, */
    size_t back_bytes;     /* and what of them is not sent yet */
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
    struct front *front;
    struct link_kit *kit; /* NULL: to the world */
    struct peer *peer;    /* NULL: detached, only finishing */
    struct list guests;   /* struct peer: other domains that use it; none without `peer` */
    struct endpoint at;
    uint32_t sid;
    uint64_t opened_ms;
    struct list_node node;         /* front.out */
    uint64_t full_links;           /* as of an incoming one */
    uint64_t sent_ms;              /* when it was handed a stanza last */
    enum s2s_out_state last_state; /* before the present step: where a failure happened */
    uint64_t stanzas;
    char addr[ENDPOINT_TEXT];
    char pair[PAIR_TEXT];
    struct dane_target *dane; /* what DNSSEC knows of the target; NULL: nothing */
};

/* One remote domain and what is under way for it. Towards the inside, where each stream speaks for
 * one foreign domain (and may have to show its certificate), there is one for each pair. */
struct peer {
    struct worker *w;
    struct front *front;
    struct remote *remote;
    char domain[DOMAIN_MAX + 1]; /* of the other side */
    char key[PAIR_TEXT];         /* the domain, or the pair */
    UT_hash_handle hh;           /* front.peers, by key */
    struct loop_task kick;
    struct timer timer;
    struct dns_query *query;
    struct connect *dialling;
    struct out_session *out;
    struct list_node guest; /* out->guests, when the stream was dialled for another domain; */
    bool guest_proven;      /* then: a pair of this one is valid on it */
    uint64_t own_until;     /* ms: until then it shares no stream */
    struct dns_target targets[DNS_TARGETS_MAX];
    size_t ntargets;
    bool routed;                /* the targets are those of a static route, or of a link */
    bool literal;               /* the present one is the literal address of such a route */
    size_t target;              /* the one being tried */
    struct dane_target *dane;   /* of it, until the stream takes it over; NULL: nothing is known */
    struct dns_addresses found; /* while its TLSA records are asked for */
    void (*dane_known)(struct peer *p, const char *why);
    char local[DOMAIN_MAX + 1]; /* the local domain whose stanza or question woke it */
    uint64_t started;           /* ms: first dial of this attempt */
    bool failing;               /* and that is an alarm */
    uint64_t failing_since;     /* ms; 0: it does not fail */
    bool alone; /* its server has no dialback: other local domains have a peer of their own */
    uint64_t without_external; /* ms: until then; it hung up on SASL EXTERNAL */
    uint64_t settled;          /* ms: until then what a stream carried may still be under way */
    uint64_t no_bidi;          /* ms: until then no bidirectional stream with it, */
    const char *bidi_why;      /* for this reason; static */
    unsigned bidi_unsent;      /* streams in a row that gave back what was to be carried */
};

/* One side of the gateway on which servers talk to it. */
struct front {
    struct worker *w;
    struct link *link; /* NULL: the world */
    struct side side;  /* how the machines see it */
    struct certs *certs;
    struct listener **listeners;
    size_t nlisteners;
    bool listening, draining;
    struct list in_unproven, in_proven; /* oldest first */
    struct source *sources;
    struct list out;
    struct carrier *carriers; /* pairs of bidirectional incoming streams */
    struct peer *peers;
    struct outq_limits outq;
    struct remote_settings remote_settings;
    /* Of a link: nobody can be reached at its address. It is dialled again and again; meanwhile
     * another link takes what it can, and the rest waits as for a line. */
    bool down;
    uint64_t since; /* ms: of up or down */
    struct redial probe;
    struct timer hold_timer;
};

/* ---- links ---- */

/* What the streams of a link run on: made of one snapshot and the files it names; ref-counted. */
struct link_kit {
    unsigned refs;
    struct gateway_config *cfg;
    const struct cfg_link *c;
    struct certs *certs; /* NULL: the link knows no TLS, or its front has them */
    struct link_trust trust;
    struct key_hash *store, *authlist;
};

/* A stream that a link has, or wants to have: one, or one for each listed partner. */
struct line {
    struct link *link;
    char name[DOMAIN_MAX + 1]; /* to join as */
    const char *partner;       /* the only remote domain; NULL: all. Of the kit */
    struct redial redial;
    struct link_session *session; /* up, or being set up by dialling; NULL: none */
    bool up;
    uint64_t since; /* ms: of up or down */
    /* ms: what it cannot take waits for hold_time from then on: since it is down or, where the
     * domains inside come and go (jabberd2), up or without one that it had. */
    uint64_t lacks_since;
    struct timer hold_timer;
    char label[2 * DOMAIN_MAX]; /* for logs and alarms: "core", "core/partner.test" */
};

enum link_direction { LINK_IN, LINK_OUT }; /* from the inside, to it */

struct link_traffic {
    uint64_t count, bytes, last_ms;
};

struct link {
    struct worker *w;
    struct link_kit *kit;
    size_t index; /* in the present snapshot */
    struct line *lines;
    size_t nlines;
    struct listener **listeners; /* transport accept */
    size_t nlisteners;
    struct front *front; /* protocol s2s; it has no lines then */
    size_t sessions;     /* alive */
    struct list every;   /* these, in whatever state */
    struct list pending; /* of these, accepted and not proven yet; oldest first */
    bool proven;         /* peer_name has joined by password */
    bool stopping, gone;
    struct list_node leaving;          /* worker.leaving */
    bool full;                         /* a line is above limits.link_high */
    struct link_traffic traffic[2][3]; /* by direction and enum stanza_kind */
};

struct link_session {
    struct session s; /* first */
    union {
        struct link_client client;
        struct jabberd2 jabberd2;
    } m;
    struct worker *w;
    struct link *link; /* lives until its last session is closed */
    struct link_kit *kit;
    const struct line *of;    /* whose it is, was, or wants to be */
    struct line *line;        /* NULL: not proven yet, or detached, only finishing */
    struct list_node every;   /* link.every */
    struct list_node pending; /* link.pending */
    bool accepted, ready;     /* ready: has been up */
    uint32_t sid;
    char addr[ENDPOINT_TEXT];
};

/* A stanza that waits for a link. */
struct held {
    struct list_node node;
    struct span stanza; /* a copy of its own */
    enum content_ns content;
    uint32_t sender;
    uint64_t since;
    char pair[PAIR_TEXT]; /* "local\0remote" */
};

struct hold {
    struct loop_task sweep;
    struct timer timer; /* the last to look: runs while something waits */
    struct list items;
    size_t bytes;
};

/* Where a stanza for the inside goes now. Names are borrowed. */
struct way {
    struct inward_key key;
    struct inward_line line;
    bool up;                 /* else it waits */
    enum content_ns content; /* the form that it needs */
};

struct worker {
    struct loop loop;
    struct log *log;
    struct log_ctx ctx; /* plain lines of the worker */
    struct gateway_config *cfg;
    struct alarms alarms;
    struct story story;
    struct blocks blocks;
    struct timer blocks_timer;
    struct dns_trouble dns_trouble;
    bool dns_alarm, outward_full, inward_full; /* these alarms stand */
    struct refusals refusals;
    struct shadow shadow;
    struct timer rules_timer;         /* the next entry of peers is over */
    struct list pings;                /* struct ping, under way */
    uint64_t started_ms, reloaded_ms; /* reloaded_ms 0: never */
    size_t reloads_failed;
    struct dialback_secrets secrets;
    struct secret_watch secret_watch;
    char random_secret[65]; /* when no secret_file is configured */
    struct resolver *resolver;
    bool draining, links_draining;
    struct timer drain_timer;
    void (*drained)(void *arg); /* all sessions are gone */
    void *drained_arg;
    struct loop_task drain_check;
    struct timer certs_timer; /* the next look at certificates */

    struct front world;
    struct in_session *in_by_sid; /* of all fronts */
    struct inward *inward;
    struct link **links; /* by index of the snapshot */
    size_t nlinks;
    struct list leaving; /* links that are configured no more and have sessions left */
    struct hold hold;
    size_t link_sessions; /* of all links */
    struct framer_limits limits_unproven, limits_proven, limits_link;
    struct counters n;
    /* Hears of each change that a reload makes; NULL: nobody. */
    void (*on_change)(void *arg, const struct config_change *c);
    void *on_change_arg;
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
void worker_close(struct worker *w); /* frees everything; the loop has stopped */
void worker_dump(struct worker *w);  /* state into the log */
struct certs_env worker_certs_env(struct worker *w);
/* A question about a key of ours was answered; a pair of this stream has its result (ACT_PAIR): do
 * the secrets of our gateways differ? */
void worker_vouched(struct worker *w, const struct db_request *q, bool good);
void worker_key_answered(const struct out_session *o, const struct gw_action *pair);
uint32_t worker_sid(struct worker *w);        /* never 0, never used again */
bool worker_own_address(const struct ip *ip); /* of an interface of this host, or loopback */
/* A deny that stands before the lists, for `ms` (0: until it is taken back); the streams of these
 * domains end. False: too many, or out of memory. */
bool worker_block(struct worker *w, const char *pattern, uint64_t ms, unsigned by);
bool worker_unblock(struct worker *w, const char *pattern); /* false: it was not blocked */

/* ---- state.c: what there is, as fields, for the log and for the control socket ---- */
void state_books(struct worker *w, const struct kv_sink *to);    /* state.stanzas */
void state_counters(struct worker *w, const struct kv_sink *to); /* state.counters */
void state_totals(struct worker *w, const struct kv_sink *to);   /* state.streams */
/* state.link, state.link.traffic, .probes, .clock, .router */
void state_links(struct worker *w, const struct kv_sink *to);
/* Of one peer, or of all (p NULL). state.stream, state.pair: those of links with protocol s2s, too.
 */
void state_streams(struct worker *w, struct str peer, const struct kv_sink *to);
void state_pairs(struct worker *w, struct str peer, const struct kv_sink *to);
void state_peers(struct worker *w, struct str peer, const struct kv_sink *to); /* state.peer */
void state_queues(struct worker *w, const struct kv_sink *to);                 /* state.queue */
void state_certificates(struct worker *w, const struct kv_sink *to); /* state.certificate */
void state_targets(struct worker *w, const struct kv_sink *to); /* state.target: of DNS, routes */

/* ---- ping.c: XEP-0199 to the world, for the operator ---- */
struct ping {
    struct list_node node; /* worker.pings */
    struct worker *w;
    char id[17];
    char local[DOMAIN_MAX + 1], remote[DOMAIN_MAX + 1];
    uint64_t sent_ms;
    struct timer deadline;
    /* Called once, unless cancelled; condition NULL: it answered, after that many ms. An error from
     * the remote server is an answer, too (`text` says which). The ping may be freed in it. */
    void (*done)(struct ping *p, const char *condition, const char *text, uint64_t ms);
};
/* `p` is zeroed but for `done`. NULL: it is on its way; else why it is not. */
const char *ping_start(struct ping *p, struct worker *w, struct str to, struct str local,
                       struct str remote);
void ping_cancel(struct ping *p); /* fine when it is over */
/* For the switch. True: the stanza was the answer to one of ours, or one of ours that failed, and
 * has come to its end (in the books, too). */
bool ping_answered(struct worker *w, const struct stanza *st, struct str local, struct str remote);
bool ping_failed(struct worker *w, const struct stanza *st, const char *condition,
                 const char *text);

/* ---- front.c ---- */
/* Wires a zeroed front. `certs` is taken over; of them nothing is told yet. */
void front_init(struct front *f, struct worker *w, struct link *link, struct certs *certs);
/* A new snapshot: its streams hear of it, its limits change. `certs` is taken over. */
void front_adopt(struct front *f, struct link *link, struct certs *certs);
void front_set_limits(struct front *f);
bool front_quiet(const struct front *f); /* no stream is left */
struct books *front_books(struct front *f);
void front_drain(struct front *f, bool now);
/* Link `index` is full, or has room again. */
void front_pause(struct front *f, size_t index);
void front_resume(struct front *f, size_t index);
/* What the last line of a drained stream gives as the reason. */
const char *front_why_drained(const struct front *f);
void front_close(struct front *f); /* frees everything; its streams are gone */
/* A stanza of ours for the other side of this front that failed. */
void front_failed(struct front *f, struct span stanza, const char *condition, struct str text);
/* The same, when nothing of it has been written: it waits while the link is down or being changed.
 */
void front_put_back(struct front *f, struct span stanza, const char *condition, struct str text);
/* How connecting to its address went; nothing for the world. */
void front_unreached(struct front *f, const char *why);
void front_reached(struct front *f);

/* What the streams of an s2s link have to report as an alarm, and that it works again; nothing is
 * reported of the world, where failing is others' affair. */
void front_alarm(struct front *f, const char *kind, struct str text);
void front_works(struct front *f);
/* Behind a reload: ends a stream of an s2s link whose certificate its kit does not accept. */
void front_judge_anew(struct session *s, const struct link_kit *kit);

/* ---- rules.c: policy at work ---- */
/* What was refused, by which rule. */
void rules_refused(struct worker *w, const struct policy_decision *d, struct str local,
                   struct str remote, enum policy_way way);
/* A stanza that passed; it is counted if an allow list on trial would have refused it. */
void rules_passed(struct worker *w, const struct policy_decision *d, struct str local,
                  struct str remote, enum policy_way way);
void rules_passed_in(struct worker *w, struct str local, struct str remote);
/* After each new snapshot: alarms and the timer of entries that have an end. */
void rules_adopt(struct worker *w);
void rules_close(struct worker *w);
/* The changes from the present snapshot to `cfg`, each with its effect on what lives now. */
size_t rules_diff(struct worker *w, const struct gateway_config *cfg,
                  void (*each)(void *arg, const struct config_change *c), void *arg);

/* ---- accept.c ---- */
struct accept_doors {
    char *const *v; /* "address:port" */
    size_t n;
    char *const *direct; /* the same, TLS from the first byte (XEP-0368) */
    size_t ndirect;
};
/* Listens at these addresses, unless it does already. */
bool accept_open(struct front *f, const struct accept_doors *at, struct buf *why);
void accept_close(struct front *f);
void accept_verdict(struct worker *w, uint32_t sid, uint32_t ticket, enum verdict v,
                    struct str text);
void accept_policy_changed(struct front *f);
void accept_drain(struct front *f, bool now);
/* Link `index` is full: the streams that feed it are not read; or it has room again. */
void accept_pause(struct front *f, size_t index);
void accept_resume(struct front *f, size_t index);

/* ---- carry.c ---- */
/* Hands a stanza to a stream; takes the reference over. False: that failed, and it is bounced. */
bool carry_stanza(struct front *f, struct session *s, struct span stanza);
void carry_sent(struct front *f, size_t stanzas);
/* What the stream did not send goes back to the queues, in order; one that was cut in the middle
 * cannot be sent again. Answers how many there were. */
size_t carry_take_back(struct front *f, struct session *s);
/* A stream that feeds a full link is not read. */
void carry_pause(struct session *s, uint64_t *full_links, size_t link);
void carry_resume(struct session *s, uint64_t *full_links, size_t link);
bool carry_feeds(const struct worker *w, const struct authz *a, size_t link);
/* The pair is new on this stream: it may feed a link that is full now. */
void carry_pause_new(struct worker *w, struct session *s, uint64_t *full_links, struct str local,
                     struct str remote);
/* A stanza from the world that its stream's machine has decided about; false: it is none. */
bool carry_inward(struct worker *w, const struct gw_event *ev, const struct gw_action *a);

/* A pair was proven on this stream: perhaps it carries it back. */
void carrier_proven(struct in_session *in, struct str local, struct str remote);
/* Gives the pair a carrier, when there is one and nothing speaks against it. */
void carrier_adopt(struct peer *p, struct str local);
bool carrier_takes(void *peer, uint64_t carrier, struct str local); /* for remote_next */
/* Takes the reference over; it does take one now. */
void carrier_send(struct peer *p, uint64_t carrier, struct span stanza);
/* Bytes that wait on it besides such stanzas. */
size_t carrier_answers(const struct in_session *in);
void carrier_sent(struct in_session *in, size_t stanzas, size_t bytes);
void carrier_drained(struct in_session *in);
void carrier_ended(struct in_session *in); /* before it is closed */
/* A stream has ended that was handed a stanza at this time (0: never): carriers that stand have to
 * wait a little. */
void peer_carried(struct peer *p, uint64_t last);
/* The peer does without bidi for a while; `why` is static. */
void peer_quarantine(struct peer *p, const char *why);
bool peer_bidi(const struct front *f, struct str remote, struct str local); /* it need not */
/* Of an outgoing stream that has ended: true when it is to be tried again at once, without bidi. */
bool peer_judge_bidi(struct out_session *o);

/* ---- peer.c ---- */
struct peer *peer_find(const struct front *f, struct str remote, struct str local); /* or NULL */
/* NULL: out of memory or too many. `local` is the domain on whose behalf it is needed. */
struct peer *peer_get(struct front *f, struct str remote, struct str local);
void peer_kick(struct peer *p);
/* peer_resolve.c: into its targets, then a kick. */
void peer_resolve(struct peer *p);
/* A stranger's SRV record must not aim us at ourselves or at the inside. Our own listeners and the
 * links are refused always, other networks unless a route gives the literal address. For struct
 * connect_options. */
bool peer_refuses(void *peer, const struct endpoint *e, const char **why);
/* Sends or queues; condition NULL: it is on its way. Takes the reference over in every case. */
struct remote_refusal peer_deliver(struct front *f, struct span stanza, struct str local,
                                   struct str remote);
/* An unsent stanza of a stream that ended: back to the head of its queue. False: no room. */
bool peer_unsent(struct front *f, struct str stanza, struct str local, struct str remote);
void peer_policy_changed(struct front *f);
void peer_forget_lookups(struct front *f); /* the resolver goes: fails what it has under way */
/* Its back-off, if there is one, ends: the other side is back. */
void peer_retry(struct peer *p);
void peer_retry_all(struct front *f);
void peer_drain(struct front *f, bool now);
/* Carries out at once what has been decided. */
void peer_settle(struct front *f);
void peer_free_all(struct front *f);
/* As accept_pause and accept_resume, for outgoing streams on which stanzas come in. */
void peer_pause(struct front *f, size_t index);
void peer_resume(struct front *f, size_t index);

/* peer_dane.c: finds out what DNSSEC knows of the target being dialled, whose addresses have been
 * found (p->found), and then says so, once, unless p->query was cancelled: p->dane is ready, or
 * `why` the target must not be used. */
void peer_dane(struct peer *p, void (*known)(struct peer *p, const char *why));

/* ---- guest.c ---- */
/* A stream to one of these endpoints that takes the peer as a guest; NULL: none does. */
struct out_session *guest_host(const struct peer *p, const struct endpoint *e, size_t n);
void guest_join(struct peer *p, struct out_session *o);
/* Who of the stream's users has that name; NULL: nobody. */
struct peer *guest_user(const struct out_session *o, struct str remote);
void guest_leave(struct peer *p); /* the stream, guest or not; its remote does not hear of it */
/* ACT_PAIR or ACT_ANSWERED, of a user of the stream. True: the peer does not have this guest here;
 * it has left, and dials. */
bool guest_turned_away(struct peer *p, const struct gw_action *a);
/* All leave: guests try again at once, so does the other if `again`. */
void guest_part(struct out_session *o, const char *why, bool again);
void guest_kick_all(const struct out_session *o);
void guest_sent(const struct out_session *o); /* something of it reached the kernel */

/* ---- kit.c ---- */
/* `old`: the certificates of the link of this name, NULL: it is new. NULL: `why` holds lines for
 * the operator. */
struct link_kit *link_kit_new(struct gateway_config *cfg, size_t index,
                              const struct certs_before *old, struct buf *why);
struct link_kit *link_kit_ref(struct link_kit *k);
void link_kit_unref(struct link_kit *k);
/* The certificates of an s2s link: its own, and those of certificates_dir. */
struct certs *link_kit_front(const struct link_kit *k, const struct certs_before *old,
                             struct buf *why);

/* ---- link.c ---- */
/* Everything that a snapshot needs of links, made before anything is changed. */
struct link_plan {
    struct inward *inward;
    struct link_kit **kits;
    struct certs **fronts; /* of s2s links */
    size_t n;
};
bool link_plan_make(struct link_plan *p, struct worker *w, struct gateway_config *cfg,
                    struct buf *why);
void link_plan_free(struct link_plan *p);
/* Starts, changes and stops links so that they are those of the plan, which is used up. `changed`
 * says of a link by its name whether its settings differ from before. False: a listener could not
 * be had (`why`); the rest stands. */
bool link_apply(struct worker *w, struct link_plan *p, bool (*changed)(void *arg, const char *name),
                void *arg, struct buf *why);
void link_drain(struct worker *w, bool now);
bool link_quiet(const struct worker *w);    /* no session and no stream of an s2s link is left */
void link_close(struct worker *w);          /* frees what is left */
size_t link_queued(const struct worker *w); /* stanzas in the queues of s2s links */
/* Looks at the certificates. True: soon once more. */
bool link_look(struct worker *w, bool files);
void link_state_certs(struct worker *w, const struct kv_sink *to);
void link_free_if_gone(struct link *k);
bool link_address(struct worker *w, const struct endpoint *e); /* an end of some link */
const char *link_alarm_of(enum trust_reason verdict);          /* the kind of alarm for a refusal */
void link_count(struct link *k, enum link_direction d, enum stanza_kind kind, size_t bytes);

/* ---- line.c ---- */
void line_init(struct line *l, struct link *k, size_t index);
void line_adopt(struct line *l, size_t index); /* its link has another kit of the same settings */
void line_dial(struct line *l); /* transport dial: from here on it keeps itself connected */
void line_accept(struct link *k, uv_tcp_t *tcp);
/* Its link has a new kit: tries again at once when it is down; a stream that would not be believed
 * any more is closed. */
void line_renew(struct line *l);
/* Takes the reference over; false: it was not taken, and is still the caller's. */
bool line_send(struct line *l, struct span stanza, struct str local);
/* False: so much is unread on the other side that no answer of ours is added to it. */
bool line_takes_answers(const struct line *l);
/* Nothing new goes out on it; its stream is closed in good order. */
void line_leave(struct line *l, const char *why);
void line_stop(struct line *l, bool now);
/* Ends the connections that were accepted and are not proven yet. */
void line_dismiss(struct link *k, bool now, const char *why);
void line_abort_all(struct link *k); /* also those that are no line's any more */
bool line_serves(const struct line *l, struct str local); /* up, and reaches the domain */

/* ---- watch.c: alarms ---- */
void watch_dns(struct worker *w, struct str name, enum dns_status status, const char *why);
void watch_peer(struct peer *p);
void watch_peer_gone(struct peer *p);
void watch_queues(struct worker *w);

/* ---- hold.c ---- */
/* `from` is the sender's address, as written. */
struct way way_inside(struct worker *w, struct str local, struct str remote, struct str from);
/* Sends, holds or fails; takes the reference over. The stanza is in the way's form. */
void hold_send(struct worker *w, const struct way *way, struct span stanza);
/* Waits, or fails: bytes as an s2s link would have written them. */
void hold_again(struct worker *w, struct span stanza);
/* The same for words of our own, which an inside that does not read is spared. */
void hold_answer(struct worker *w, const struct way *way, struct span stanza);
/* To this very line, or nowhere: what its own end asked us. */
void hold_reply(struct worker *w, struct line *l, struct span stanza, struct str local);
/* A link came up, went down or has waited long enough: sends what can go, fails what is too old. */
void hold_sweep(struct worker *w);
void hold_init(struct worker *w);
void hold_fail_all(struct worker *w);
/* Unsent stanzas of a line, oldest first, before anything that came later. */
void hold_take_back(struct worker *w, struct list *items); /* of struct held */
struct held *held_new(struct span stanza, enum content_ns content, struct str local,
                      struct str remote, uint32_t sender, uint64_t since);
void held_free(struct held *h);

/* ---- switch.c ---- */
/* A stanza from a remote server whose pair is proven. */
void switch_inward(struct worker *w, const struct stanza *st, struct str local, struct str remote);
/* A stanza from the inside. `line` NULL: by a stream of the s2s link. */
void switch_outward(struct link *k, struct line *l, const struct stanza *st);
/* A stanza from the inside that can go nowhere: answered as the machine says (BOUNCE), on the line
 * that it came by (NULL: that has gone); or dropped for a reason that is logged (NULL: needs none).
 */
void switch_malformed(struct link *k, struct line *l, const struct stanza *st,
                      const struct gw_action *a);
void switch_dropped(struct link *k, const struct stanza *st, const char *reason);
/* A stanza from a remote server whose address is malformed: answered as the machine says (BOUNCE),
 * or dropped. */
void switch_malformed_inward(struct worker *w, const struct stanza *st, const struct gw_action *a);
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
/* A stanza of ours that the router behind this link gave back. */
void switch_undelivered(struct link *k, const struct stanza *st, const struct gw_action *a);
void switch_failed_inward(struct worker *w, struct span stanza, enum content_ns content,
                          const char *condition, struct str text);
/* An unsent stanza of an outgoing stream: back to its pair's queue. */
void switch_requeue(struct front *f, struct span stanza);

/* A stanza of which only the bytes are left, read again. */
struct reread {
    struct framer *framer;
    struct framer_event ev;      /* its stanza; borrowed from the framer */
    struct domain local, remote; /* of from and to, or the other way round (inward) */
};
/* False: it is none (cannot be) or memory ran out; nothing needs to be freed then. */
bool switch_reread(struct reread *r, struct span stanza, enum content_ns content, bool inward);
void switch_reread_free(struct reread *r);
/* The same stanza in another content namespace; takes the reference over. chunk NULL: no memory. */
struct span switch_translate(struct span stanza, enum content_ns from, enum content_ns to,
                             bool inward);

#endif
