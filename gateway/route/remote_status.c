/* What a remote domain looks like to people. */
#include "gateway/route/remote_priv.h"

void remote_status(const struct remote *r, struct remote_status *out)
{
    bool dated = r->state != REMOTE_IDLE && r->state != REMOTE_READY;
    *out = (struct remote_status){.failures = r->failures,
                                  .until = dated ? r->until : 0,
                                  .asks = r->asks.count,
                                  .ntargets = r->ntargets,
                                  .target = r->target,
                                  .why = r->failures > 0 ? r->why.s : STR_NONE};
}

static uint64_t oldest(const struct outq *q)
{
    const struct list_node *n = q->items.first;
    return n != NULL ? CONTAINER_OF(n, const struct outq_item, node)->since : 0;
}

void remote_pairs(const struct remote *r,
                  void (*each)(void *arg, const struct remote_pair_status *p), void *arg)
{
    static const char *const phases[] = {"none", "asked", "open"};
    LIST_FOREACH (&r->pairs, n, following) {
        const struct pair *p = CONTAINER_OF(n, const struct pair, node);
        struct remote_pair_status s = {.local = p->local,
                                       .phase = phases[p->phase],
                                       .queued = p->queue.items.count,
                                       .bytes = p->queue.bytes,
                                       .oldest = oldest(&p->queue),
                                       .retry_at = p->retry_at,
                                       .condition = p->condition,
                                       .why = p->why.s};
        each(arg, &s);
    }
}
