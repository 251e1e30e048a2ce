/* One remote domain: its pairs and their queues, the questions for its authority, the walk over its
 * targets, back-off. Pure: inputs are calls with the time, outputs are pulled with remote_next.
 *
 * Story. A stanza for the domain, or a dialback question for its authority, wakes an idle remote:
 * it wants its name resolved, then target after target dialled (RFC 6120 3.2, RFC 2782) until one
 * stream gets READY. On the stream each pair is authorised once (db:result) and then its queue goes
 * out in order; questions go out as db:verify on the same stream. When all targets failed during
 * set-up, everything that waits is failed with the step that failed, and the remote backs off: 1 s,
 * doubling with jitter up to 30 s, in which new stanzas fail at once. Losing an established stream
 * starts no back-off; what was not sent yet goes, in order, to a new stream.
 *
 * Beside that way a pair may have a *carrier*: a stream that the peer has opened and that takes
 * stanzas back (XEP-0288). While it has one its stanzas go by it and by nothing else, so that none
 * overtakes another: when it takes no more they wait, and nothing is dialled for them. A pair gets
 * one only when nothing of it waits or is under way, and loses it when that stream has ended and
 * has given back what it did not send; then the other way begins.
 *
 * Each stanza that enters ends exactly once: REMOTE_SEND, REMOTE_BOUNCE, or in the queue.
 *
 * Limits and penalties attach here: to the remote, to the pair. The owner is the worker; after each
 * input it pulls remote_next until it says no, and arms a timer for remote_due. */
#ifndef GATEWAY_ROUTE_REMOTE_H
#define GATEWAY_ROUTE_REMOTE_H

#include "core/base/env.h"
#include "core/stream/machine.h"
#include "core/xml/jid.h"
#include "gateway/route/outq.h"

#define REMOTE_STATES(X)                                                                           \
    X(IDLE)                                                                                        \
    X(RESOLVING)                                                                                   \
    X(CONNECTING)  /* addresses and TCP of one target */                                           \
    X(NEGOTIATING) /* its stream is being set up */                                                \
    X(READY)                                                                                       \
    X(BACKOFF)

enum remote_state {
#define X(id) REMOTE_##id,
    REMOTE_STATES(X)
#undef X
};
enum { REMOTE_STATE_COUNT = REMOTE_BACKOFF + 1 };

extern const machine_edges remote_edges[REMOTE_STATE_COUNT];
const char *remote_state_name(enum remote_state s);

struct remote_settings {
    uint64_t queue_ms; /* a stanza waits at most this long */
    uint64_t setup_ms; /* resolving to READY, all targets together */
    size_t asks_max;   /* questions waiting per remote */
    size_t pairs_max;
};

struct remote;

/* What the owner has to do next. */
enum remote_do {
    REMOTE_DO_RESOLVE,
    REMOTE_DO_DIAL,        /* target: index into what was resolved */
    REMOTE_DO_WANT_PAIR,   /* local */
    REMOTE_DO_WANT_VERIFY, /* request */
    REMOTE_DO_SEND,        /* stanza, local, carrier (0: the stream that was dialled) */
    REMOTE_DO_BOUNCE,      /* stanza, condition, text */
    REMOTE_DO_VERDICT,     /* origin, ticket, verdict, text */
    REMOTE_DO_CLOSE,       /* end the present stream or attempt in good order; no report wanted */
};

struct remote_act {
    enum remote_do what;
    size_t target;
    struct str local;
    struct db_request request;
    struct span stanza; /* retained: the caller releases it (or hands it on) */
    uint64_t carrier;
    const char *condition;
    struct str text; /* valid until the next call */
    uint64_t origin;
    uint32_t ticket;
    enum verdict verdict;
};

/* `domain` is an A-label. Settings, limits and env are borrowed. NULL: out of memory. */
struct remote *remote_new(struct str domain, const struct remote_settings *settings,
                          struct outq_limits *limits, const struct env *env);
void remote_free(struct remote *r); /* whatever still waits is dropped: drain first */

/* ---- inputs ---- */

/* Why a stanza cannot even wait; NULL: it was queued. */
struct remote_refusal {
    const char *condition; /* remote-server-not-found, ..., static */
    struct str text;       /* valid until the next call */
};
struct remote_refusal remote_stanza(struct remote *r, struct str local, struct str stanza,
                                    uint64_t now);
/* A stanza that was handed to a stream and of which no byte left: back to the head. Call it for the
 * last one first. False: out of memory; the stanza is still the caller's to end. */
bool remote_unsent(struct remote *r, struct str local, struct str stanza, uint64_t now);

/* `origin` and `ticket` come back with the verdict; false: out of memory, none will come. */
bool remote_ask(struct remote *r, const struct db_request *request, uint64_t origin,
                uint32_t ticket, uint64_t within_ms, uint64_t now);

void remote_resolved(struct remote *r, size_t ntargets, uint64_t now);
void remote_resolve_failed(struct remote *r, struct str why, uint64_t now);
/* `unresolved`: the target's own name has no address, so nothing was ever tried. */
void remote_dial_failed(struct remote *r, struct str why, bool unresolved, uint64_t now);
void remote_connected(struct remote *r);
void remote_stream_ready(struct remote *r);
void remote_pair_result(struct remote *r, struct str local, enum pair_result result,
                        struct str text, uint64_t now);
void remote_answered(struct remote *r, const struct db_request *request, enum verdict verdict,
                     struct str text, uint64_t now);
/* The pair's stanzas go by this carrier (never 0) from now on. False: something of it waits or is
 * under way by another stream, or out of memory. */
bool remote_carry(struct remote *r, struct str local, uint64_t carrier, uint64_t now);
/* That carrier has ended. */
void remote_uncarry(struct remote *r, struct str local, uint64_t carrier, uint64_t now);
uint64_t remote_carrier(const struct remote *r, struct str local); /* 0: none */

void remote_sent(struct remote *r); /* at least one stanza reached the kernel */
void remote_stream_ended(struct remote *r, struct str why, uint64_t now);
/* It ended because the settings of one side have changed: no fault of the target, which is tried
 * again at once, questions too; a few times in a row, then it counts as an end like others. */
void remote_stream_reset(struct remote *r, struct str why, uint64_t now);
/* The lookup or connection under way was given up by us: the same once more. */
void remote_again(struct remote *r);
/* Fails what waits for the local domains that are `gone`. */
void remote_fail_local(struct remote *r, bool (*gone)(void *arg, struct str local), void *arg,
                       const char *condition, struct str why);
/* The first stanza that waits for that local domain goes another way: the caller has it now, and
 * releases it. False: none waits. */
bool remote_take(struct remote *r, struct str local, struct span *out);
/* We stop, or the policy changed: fails everything that waits, in every state but READY. */
void remote_fail_all(struct remote *r, const char *condition, struct str why, uint64_t now);
/* The other side is known to be there again: a back-off of the whole remote ends, its failures
 * count no more. */
void remote_retry(struct remote *r, uint64_t now);
void remote_tick(struct remote *r, uint64_t now);

/* ---- outputs ---- */

/* Who takes stanzas now. */
struct remote_room {
    bool stream;                                                    /* the one that was dialled */
    bool (*carrier)(void *arg, uint64_t carrier, struct str local); /* NULL: none does */
    void *arg;
};

/* The next thing to do; false: nothing now. */
bool remote_next(struct remote *r, uint64_t now, const struct remote_room *room,
                 struct remote_act *out);
bool remote_due(const struct remote *r, uint64_t *due); /* when remote_tick is needed */
/* Past the queue, which is empty: to the carrier, if there is one, else to the stream. */
bool remote_may_send(const struct remote *r, struct str local);

enum remote_state remote_state_of(const struct remote *r);
size_t remote_queued(const struct remote *r);

/* ---- for people (remote_status.c) ---- */

/* Strings are valid until the next input. */
struct remote_status {
    unsigned failures; /* in a row */
    uint64_t until;    /* ms: end of the back-off, or deadline of the set-up; 0: none */
    size_t asks;       /* questions for its authority that wait */
    size_t ntargets, target;
    struct str why; /* the step that failed last; absent: none did */
};
void remote_status(const struct remote *r, struct remote_status *out);

struct remote_pair_status {
    const char *local;
    const char *phase; /* "none", "asked", "open" */
    size_t queued, bytes;
    uint64_t oldest;   /* ms, of what waits */
    uint64_t retry_at; /* ms; 0: it is not backing off alone */
    const char *condition;
    struct str why;
};
void remote_pairs(const struct remote *r,
                  void (*each)(void *arg, const struct remote_pair_status *p), void *arg);
bool remote_disposable(const struct remote *r, uint64_t now); /* idle, nothing waits, no penalty */

#endif
