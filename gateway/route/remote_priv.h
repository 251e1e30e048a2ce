/* Inside of a remote, shared by remote.c (its walk over targets, its stream) and remote_backoff.c
 * (what fails, and what that costs). All is owned by the struct remote. */
#ifndef GATEWAY_ROUTE_REMOTE_PRIV_H
#define GATEWAY_ROUTE_REMOTE_PRIV_H

#include "gateway/route/remote.h"

enum pair_phase { PHASE_NONE, PHASE_ASKED, PHASE_OPEN };

struct pair {
    struct list_node node;
    char *local;
    enum pair_phase phase; /* on the stream that was dialled; NONE while there is a carrier */
    uint64_t carrier;      /* 0: none */
    struct outq queue;
    uint64_t retry_at;     /* after a refusal of this pair alone */
    const char *condition; /* until then new stanzas are answered this ... */
    struct span why;       /* ... with this text */
    uint64_t forget_at;    /* its failures count no more; 0: there are none */
    unsigned failures;
};

struct ask {
    struct list_node node;
    bool sent;
    char *local, *stream_id, *key;
    uint64_t origin, due;
    uint32_t ticket;
    /* once it is decided */
    enum verdict verdict;
    struct span text;
};

struct remote {
    enum remote_state state;
    char *domain;
    const struct remote_settings *settings;
    struct outq_limits *limits;
    const struct env *env;
    struct list pairs;
    struct list asks;                 /* struct ask, open */
    struct list decided;              /* struct ask, verdict known */
    struct outq failed;               /* stanzas to bounce */
    struct outq_limits failed_limits; /* they were within the limits once: no second check */
    size_t ntargets, target;
    bool todo;        /* RESOLVE or DIAL has not been pulled yet */
    bool close;       /* CLOSE has not been pulled yet */
    bool reachable;   /* of this walk over the targets at least one had an address */
    bool established; /* this stream proved a pair or answered a question */
    bool progressed;  /* and sent a stanza, or got an answer */
    unsigned failures, fruitless, resets;
    uint64_t until;                /* BACKOFF: its end; set-up: its deadline */
    uint64_t forget_at;            /* the failures count no more; 0: there are none */
    const char *penalty_condition; /* BACKOFF: what new stanzas are answered */
    struct span why;               /* the step that failed last */
    struct span handed;            /* the text handed out last: valid until the next call */
};

void remote_set_state(struct remote *r, enum remote_state to); /* only along remote_edges */

/* ---- remote_backoff.c ---- */

/* The step that failed last, copied and cut: the text of bounces and verdicts until the next. */
void remote_set_why(struct remote *r, struct str why);
/* Takes the item over; it will be bounced. */
void remote_fail_item(struct remote *r, struct outq_item *it, const char *condition);
/* All that waits in it. */
void remote_fail_pair(struct remote *r, struct pair *p, const char *condition);
void remote_decide(struct remote *r, struct ask *a, enum verdict v);
void remote_decide_all(struct remote *r, enum verdict v);
/* All targets failed, or the name did not resolve: everything that waits fails. */
void remote_back_off(struct remote *r, const char *condition, uint64_t now);
/* The peer refused our key for this pair: it backs off alone. */
void remote_refuse_pair(struct remote *r, struct pair *p, const char *condition, struct str text,
                        uint64_t now);
void remote_forgive(struct remote *r); /* its failures count no more */
/* Forgives those, of the remote and of its pairs, that nothing has followed for a while. */
void remote_forget(struct remote *r, uint64_t now);
void remote_expire(struct remote *r, uint64_t now); /* stanzas and questions that waited too long */

#endif
