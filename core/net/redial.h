/* Keeping one connection to one address alive: dial, and after each failure dial again, later and
 * later. What links of both programs are dialled with.
 *
 * Story. redial_start dials at once. `connected` hands the socket over; from then on the object
 * rests until the holder says how it went: redial_up once what runs on it has proven itself (the
 * next back-off starts from the beginning), redial_again when it is over. The delay is 1 s, then
 * doubling up to 30 s, spread by 20 % so that many of us do not come back at the same moment; 60 s
 * when only an operator can help (wrong secret, untrusted certificate).
 *
 * Embedded in the holder; one thread. */
#ifndef CORE_NET_REDIAL_H
#define CORE_NET_REDIAL_H

#include "core/net/connect.h"

enum { REDIAL_FIRST_MS = 1000, REDIAL_CAP_MS = 30000, REDIAL_REFUSED_MS = 60000 };

enum redial_why {
    REDIAL_LOST,    /* it went away, or could not be set up */
    REDIAL_REFUSED, /* and will be refused again until somebody changes a configuration */
};

struct redial_ops {
    /* As connect_done: the socket is the holder's. NULL: `why` says how it failed; the next attempt
     * has been scheduled already, in redial_wait_ms. */
    void (*connected)(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why);
};

struct redial {
    struct loop *loop;
    const struct redial_ops *ops;
    void *arg;
    struct endpoint to;
    uint64_t deadline_ms; /* of one attempt */
    struct connect *connect;
    struct timer timer;
    struct loop_task task; /* the first attempt; a delay that found no memory for its timer */
    unsigned failures;
    uint64_t wait_ms; /* of the delay that runs now, for log lines */
    bool started;
};

/* `ops` and `arg` are borrowed. Nothing happens before redial_start. */
void redial_init(struct redial *r, struct loop *l, const struct redial_ops *ops, void *arg);
/* Dials now; a running delay or attempt is given up, the back-off starts from the beginning. */
void redial_start(struct redial *r, const struct endpoint *to, uint64_t deadline_ms);
void redial_up(struct redial *r);
/* Dials again after the delay; nothing when it was stopped, or a delay or an attempt runs. Returns
 * the delay in ms (0: nothing was scheduled). */
uint64_t redial_again(struct redial *r, enum redial_why why);
void redial_stop(struct redial *r);       /* no further call; redial_start begins anew */
bool redial_busy(const struct redial *r); /* an attempt is under way */

#endif
