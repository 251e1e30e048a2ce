/* What every connection of one worker shares: the loop, the timers and the end-of-turn work.
 *
 * One `struct loop` per worker thread, embedded in its worker; nothing in it is shared. Everything
 * is called on that thread. */
#ifndef CORE_NET_LOOP_H
#define CORE_NET_LOOP_H

#include <uv.h>

#include "core/base/env.h"
#include "core/base/list.h"
#include "core/base/log.h"
#include "core/base/timer.h"

enum { LOOP_SCRATCH = 64 * 1024 };

struct loop {
    uv_loop_t *uv;
    const struct env *env;
    struct log *log;
    struct timers timers;
    uv_timer_t clock;     /* fires when the earliest of `timers` is due */
    uv_prepare_t prepare; /* before the loop sleeps: runs tasks, flushes, re-arms the clock */
    struct list tasks;    /* struct loop_task, first in first out */
    struct list later;    /* struct loop_task: for the next turn */
    struct list dirty;    /* struct loop_task of conns with something to write */
    struct list dying;    /* struct loop_task of conns to be freed */
    char *scratch;        /* LOOP_SCRATCH bytes, good until the callback that uses them returns */
    uint64_t turn;        /* counts turns */
    uint64_t clock_due;   /* what `clock` is set for while it is active */
    size_t handles;       /* our own uv handles still open: while there is one, the loop runs */
    bool stopping;
};

/* A deferred call: how one state machine's result becomes another's event without re-entrancy. */
struct loop_task {
    struct list_node node;
    void (*run)(struct loop_task *t);
};

/* False: out of memory or descriptors. Also makes the process ignore SIGPIPE, without which a
 * write to a connection that the peer has reset would kill it. */
bool loop_init(struct loop *l, const struct env *env, struct log *log);
/* Runs until no handle is left, then closes the loop's own; conn_close and the like come before. */
void loop_close(struct loop *l);
void loop_run(struct loop *l); /* until loop_stop or no handle is left */
void loop_stop(struct loop *l);
void loop_turn(struct loop *l); /* one turn, without waiting */

/* Runs `t` before the loop sleeps next, after the present callback; posting it twice is once. */
void loop_post(struct loop *l, struct loop_task *t);
/* The same for the next turn: the sockets are looked at once before (fairness). */
void loop_post_later(struct loop *l, struct loop_task *t);
void loop_unpost(struct loop *l, struct loop_task *t);

/* For core/net: writes are gathered after all tasks of a turn, closed conns are freed after all
 * else. Take back with loop_unpost. */
void loop_mark_dirty(struct loop *l, struct loop_task *flush);
void loop_mark_dying(struct loop *l, struct loop_task *release);

/* Timers; due is relative, in ms. False: out of memory. */
bool loop_timer_set(struct loop *l, struct timer *t, uint64_t ms);
void loop_timer_clear(struct loop *l, struct timer *t);

static inline uint64_t loop_now(const struct loop *l)
{
    return env_now(l->env);
}

#endif
