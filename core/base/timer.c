#include "core/base/timer.h"

#include "core/base/mem.h"

static void place(struct timers *ts, size_t i, struct timer *t)
{
    ts->v[i] = t;
    t->pos = i + 1;
}

static void sift_up(struct timers *ts, size_t i)
{
    struct timer *t = ts->v[i];
    while (i > 0 && t->due < ts->v[(i - 1) / 2]->due) {
        place(ts, i, ts->v[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(ts, i, t);
}

static void sift_down(struct timers *ts, size_t i)
{
    struct timer *t = ts->v[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= ts->n)
            break;
        if (child + 1 < ts->n && ts->v[child + 1]->due < ts->v[child]->due)
            child++;
        if (t->due <= ts->v[child]->due)
            break;
        place(ts, i, ts->v[child]);
        i = child;
    }
    place(ts, i, t);
}

void timers_free(struct timers *ts)
{
    mem_free(ts->v);
    *ts = (struct timers){0};
}

bool timers_set(struct timers *ts, struct timer *t, uint64_t due)
{
    if (t->pos == 0) {
        if (ts->n == ts->cap) {
            size_t cap = ts->cap ? ts->cap * 2 : 16;
            struct timer **v = mem_realloc(ts->v, cap * sizeof *v);
            if (v == NULL)
                return false;
            ts->v = v;
            ts->cap = cap;
        }
        place(ts, ts->n++, t);
    }
    /* What is set again while timers fire waits for the next run: nobody fires twice. */
    t->due = ts->running && due <= ts->now ? ts->now + 1 : due;
    sift_up(ts, t->pos - 1);
    sift_down(ts, t->pos - 1);
    return true;
}

void timers_clear(struct timers *ts, struct timer *t)
{
    if (t->pos == 0)
        return;
    size_t i = t->pos - 1;
    struct timer *last = ts->v[--ts->n];
    t->pos = 0;
    if (last == t)
        return;
    place(ts, i, last);
    sift_up(ts, i);
    sift_down(ts, last->pos - 1);
}

bool timers_next(const struct timers *ts, uint64_t *due)
{
    if (ts->n == 0)
        return false;
    *due = ts->v[0]->due;
    return true;
}

void timers_run(struct timers *ts, uint64_t now)
{
    ts->running = true;
    ts->now = now;
    while (ts->n > 0 && ts->v[0]->due <= now) {
        struct timer *t = ts->v[0];
        timers_clear(ts, t);
        t->fire(t);
    }
    ts->running = false;
}
