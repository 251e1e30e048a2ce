/* What fails of a remote, and what that costs: stanzas that bounce, questions that are decided, the
 * back-off of the whole remote and of single pairs, and when all of it is forgotten. */
#include "gateway/route/remote_priv.h"

#include <stdio.h>

enum { BACKOFF_FIRST_MS = 1000, BACKOFF_CAP_MS = 30000, FORGET_FACTOR = 2, WHY_MAX = 240 };

void remote_set_why(struct remote *r, struct str why)
{
    struct span s = span_copy((struct str){why.p, why.n < WHY_MAX ? why.n : WHY_MAX});
    if (s.chunk == NULL)
        return; /* the older reason is better than none */
    span_release(&r->why);
    r->why = s;
}

void remote_fail_item(struct remote *r, struct outq_item *it, const char *condition)
{
    it->condition = condition;
    it->text = span_retain(r->why);
    list_append(&r->failed.items, &it->node);
    r->failed.bytes += it->stanza.s.n;
    r->failed_limits.bytes += it->stanza.s.n;
    r->failed_limits.count++;
}

void remote_fail_pair(struct remote *r, struct pair *p, const char *condition)
{
    struct outq_item *it;
    while ((it = outq_pop(&p->queue)) != NULL)
        remote_fail_item(r, it, condition);
}

void remote_decide(struct remote *r, struct ask *a, enum verdict v)
{
    list_remove(&a->node);
    a->verdict = v;
    a->text = span_retain(r->why);
    list_append(&r->decided, &a->node);
}

void remote_decide_all(struct remote *r, enum verdict v)
{
    LIST_FOREACH (&r->asks, n, next)
        remote_decide(r, CONTAINER_OF(n, struct ask, node), v);
}

/* ---- back-off -------------------------------------------------------------------------------- */

static uint64_t penalty(const struct remote *r, unsigned failures)
{
    unsigned shift = failures > 6 ? 6 : failures;
    uint64_t ms = (uint64_t)BACKOFF_FIRST_MS << shift;
    if (ms > BACKOFF_CAP_MS / 6 * 5)
        ms = BACKOFF_CAP_MS / 6 * 5; /* the cap holds with the jitter */
    return ms - ms / 5 + env_below(r->env, (uint32_t)(2 * ms / 5)); /* +- 20 % */
}

void remote_back_off(struct remote *r, const char *condition, uint64_t now)
{
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        p->phase = PHASE_NONE;
        if (p->carrier == 0)
            remote_fail_pair(r, p, condition);
    }
    remote_decide_all(r, VERDICT_NOT_FOUND);
    remote_set_state(r, REMOTE_BACKOFF);
    r->penalty_condition = condition;
    r->resets = 0;
    r->todo = false;
    uint64_t wait = penalty(r, r->failures++);
    r->until = now + wait;
    r->forget_at = r->until + FORGET_FACTOR * wait;
}

void remote_refuse_pair(struct remote *r, struct pair *p, const char *condition, struct str text,
                        uint64_t now)
{
    char why[WHY_MAX];
    snprintf(why, sizeof why, "the remote server did not accept our domain: %.*s", STR_ARG(text));
    remote_set_why(r, str_c(why));
    p->phase = PHASE_NONE;
    p->condition = condition;
    span_release(&p->why);
    p->why = span_retain(r->why);
    uint64_t wait = penalty(r, p->failures++);
    p->retry_at = now + wait;
    p->forget_at = p->retry_at + FORGET_FACTOR * wait;
    remote_fail_pair(r, p, condition);
}

void remote_forgive(struct remote *r)
{
    r->failures = 0;
    r->forget_at = 0;
}

void remote_forget(struct remote *r, uint64_t now)
{
    if (r->forget_at != 0 && r->forget_at <= now)
        remote_forgive(r);
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->forget_at == 0 || p->forget_at > now)
            continue;
        p->failures = 0;
        p->retry_at = p->forget_at = 0;
    }
}

/* ---- waiting too long ------------------------------------------------------------------------ */

static void expire_queue(struct remote *r, struct pair *p, uint64_t now)
{
    struct list_node *n;
    while ((n = p->queue.items.first) != NULL &&
           CONTAINER_OF(n, struct outq_item, node)->since + r->settings->queue_ms <= now) {
        char why[WHY_MAX];
        snprintf(why, sizeof why, "waited %llu s for the stream to %.150s (%s)",
                 (unsigned long long)(r->settings->queue_ms / 1000), r->domain,
                 remote_state_name(r->state));
        remote_set_why(r, str_c(why));
        remote_fail_item(r, outq_pop(&p->queue), "remote-server-timeout");
    }
}

static void expire_asks(struct remote *r, uint64_t now)
{
    LIST_FOREACH (&r->asks, n, next) {
        struct ask *a = CONTAINER_OF(n, struct ask, node);
        if (a->due > now)
            continue;
        remote_set_why(r, a->sent ? STR("the authoritative server did not answer db:verify")
                                  : STR("the authoritative server could not be reached in time"));
        remote_decide(r, a, VERDICT_TIMEOUT);
    }
}

void remote_expire(struct remote *r, uint64_t now)
{
    expire_asks(r, now);
    LIST_FOREACH (&r->pairs, n, next)
        expire_queue(r, CONTAINER_OF(n, struct pair, node), now);
}
