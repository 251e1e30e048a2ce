#include "gateway/route/outq.h"

#include "core/base/mem.h"

void outq_init(struct outq *q, struct outq_limits *limits)
{
    *q = (struct outq){.limits = limits};
}

static struct outq_item *new_item(struct outq *q, struct str stanza, uint64_t since)
{
    struct outq_item *it = mem_zalloc(sizeof *it);
    if (it == NULL)
        return NULL;
    it->stanza = span_copy(stanza);
    if (it->stanza.chunk == NULL) {
        mem_free(it);
        return NULL;
    }
    it->since = since;
    q->bytes += stanza.n;
    q->limits->bytes += stanza.n;
    q->limits->count++;
    return it;
}

bool outq_push(struct outq *q, struct str stanza, uint64_t now)
{
    const struct outq_limits *l = q->limits;
    if (q->items.count >= l->max_count || stanza.n > l->max_bytes ||
        q->bytes > l->max_bytes - stanza.n || stanza.n > l->total || l->bytes > l->total - stanza.n)
        return false;
    struct outq_item *it = new_item(q, stanza, now);
    if (it == NULL)
        return false;
    list_append(&q->items, &it->node);
    return true;
}

bool outq_unshift(struct outq *q, struct str stanza, uint64_t since)
{
    struct outq_item *it = new_item(q, stanza, since);
    if (it == NULL)
        return false;
    list_prepend(&q->items, &it->node);
    return true;
}

struct outq_item *outq_pop(struct outq *q)
{
    struct list_node *n = list_pop(&q->items);
    if (n == NULL)
        return NULL;
    struct outq_item *it = CONTAINER_OF(n, struct outq_item, node);
    q->bytes -= it->stanza.s.n;
    q->limits->bytes -= it->stanza.s.n;
    q->limits->count--;
    return it;
}

void outq_item_free(struct outq_item *it)
{
    span_release(&it->stanza);
    span_release(&it->text);
    mem_free(it);
}

void outq_free(struct outq *q)
{
    struct outq_item *it;
    while ((it = outq_pop(q)) != NULL)
        outq_item_free(it);
}
