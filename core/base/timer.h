/* A heap of timers over a time that the caller supplies. One real timer of the event loop (or a
 * test's fake clock) drives any number of these. Setting, moving and clearing cost O(log n). */
#ifndef CORE_BASE_TIMER_H
#define CORE_BASE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timer {
    uint64_t due; /* ms */
    size_t pos;   /* 1 + place in the heap; 0: not armed */
    void (*fire)(struct timer *t);
};

struct timers {
    struct timer **v;
    size_t n, cap;
    bool running; /* inside timers_run, for the time `now` */
    uint64_t now;
};

void timers_free(struct timers *ts); /* the timers themselves belong to their holders */

/* Arms or moves; false when out of memory (then the timer is as it was). */
bool timers_set(struct timers *ts, struct timer *t, uint64_t due);
void timers_clear(struct timers *ts, struct timer *t); /* fine when not armed */
bool timers_next(const struct timers *ts, uint64_t *due);

/* Fires everything due at `now`, earliest first. A timer is disarmed before it fires, so it may set
 * itself again; one that re-arms for a time not later than `now` fires at the next call. */
void timers_run(struct timers *ts, uint64_t now);

static inline bool timer_armed(const struct timer *t)
{
    return t->pos != 0;
}

#endif
