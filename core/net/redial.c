/* Where it stands is said by what is set: `connect` (an attempt), `timer` (a delay), `task` (the
 * first step, or a delay for which there was no memory), or none of them (the holder has the
 * socket). */
#include "core/net/redial.h"

enum { SPREAD_PERCENT = 20, DOUBLINGS_MAX = 5 };

bool redial_busy(const struct redial *r)
{
    return r->connect != NULL || (r->task.node.in != NULL && r->wait_ms == 0);
}

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct redial *r = arg;
    r->connect = NULL;
    if (tcp == NULL)
        redial_again(r, REDIAL_LOST);
    r->ops->connected(r->arg, tcp, to, why); /* the last: it may stop us, or end our holder */
}

static void dial(struct redial *r)
{
    struct connect_options opt = {.targets = &r->to, .ntargets = 1, .deadline_ms = r->deadline_ms};
    r->wait_ms = 0;
    r->connect = connect_start(r->loop, &opt, on_connected, r);
    if (r->connect == NULL)
        on_connected(r, NULL, NULL, "out of memory");
}

static void on_timer(struct timer *t)
{
    dial(CONTAINER_OF(t, struct redial, timer));
}

/* Without memory for a timer each turn of the loop tries again: a link must not stay down for ever
 * because of a moment without memory. */
static void run_delay(struct redial *r)
{
    if (!loop_timer_set(r->loop, &r->timer, r->wait_ms))
        loop_post_later(r->loop, &r->task);
}

static void on_task(struct loop_task *t)
{
    struct redial *r = CONTAINER_OF(t, struct redial, task);
    if (r->wait_ms > 0)
        run_delay(r);
    else
        dial(r);
}

void redial_init(struct redial *r, struct loop *l, const struct redial_ops *ops, void *arg)
{
    *r = (struct redial){.loop = l, .ops = ops, .arg = arg};
    r->timer.fire = on_timer;
    r->task.run = on_task;
}

void redial_stop(struct redial *r)
{
    r->started = false;
    r->wait_ms = 0;
    connect_cancel(r->connect);
    r->connect = NULL;
    loop_timer_clear(r->loop, &r->timer);
    loop_unpost(r->loop, &r->task);
}

void redial_start(struct redial *r, const struct endpoint *to, uint64_t deadline_ms)
{
    redial_stop(r);
    r->started = true;
    r->failures = 0;
    r->to = *to;
    r->deadline_ms = deadline_ms;
    loop_post(r->loop, &r->task); /* from there the holder may be called */
}

void redial_up(struct redial *r)
{
    r->failures = 0;
}

static uint64_t delay(struct redial *r, enum redial_why why)
{
    unsigned doublings = r->failures < DOUBLINGS_MAX ? r->failures : DOUBLINGS_MAX;
    uint64_t ms = (uint64_t)REDIAL_FIRST_MS << doublings;
    if (ms > REDIAL_CAP_MS)
        ms = REDIAL_CAP_MS;
    if (why == REDIAL_REFUSED)
        ms = REDIAL_REFUSED_MS;
    uint64_t part = ms * SPREAD_PERCENT / 100;
    return ms - part + env_below(r->loop->env, (uint32_t)(2 * part + 1));
}

uint64_t redial_again(struct redial *r, enum redial_why why)
{
    bool waits = timer_armed(&r->timer) || r->task.node.in != NULL;
    if (!r->started || waits || redial_busy(r))
        return 0;
    r->wait_ms = delay(r, why);
    r->failures++;
    run_delay(r);
    return r->wait_ms;
}
