/* XEP-0199 to the world, asked for by an operator: an iq of the gateway's own, in the name of a
 * local domain. It takes the way of every other stanza, and so does the answer; the switch shows
 * us both what comes for that domain and what failed on the way. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/xml/ns.h"
#include "core/xml/writer.h"

enum { PING_MAX = 8192, PING_DEADLINE_MS = 60 * 1000 };

static void end(struct ping *p, const char *condition, const char *text)
{
    uint64_t ms = loop_now(&p->w->loop) - p->sent_ms;
    ping_cancel(p);
    p->done(p, condition, text, ms);
}

void ping_cancel(struct ping *p)
{
    list_remove(&p->node);
    loop_timer_clear(&p->w->loop, &p->deadline);
}

static void on_deadline(struct timer *t)
{
    end(CONTAINER_OF(t, struct ping, deadline), "timeout", "no answer within a minute");
}

static struct span write_ping(const struct ping *p, struct str to)
{
    struct span out = {NULL, STR_NONE};
    struct buf b = BUF_INIT(PING_MAX);
    buf_puts(&b, "<iq type='get'");
    writer_attr(&b, "id", str_c(p->id));
    writer_attr(&b, "from", str_c(p->local));
    writer_attr(&b, "to", to);
    buf_puts(&b, "><ping xmlns='urn:xmpp:ping'/></iq>");
    if (!b.failed)
        out = span_copy(buf_view(&b));
    buf_free(&b);
    return out;
}

const char *ping_start(struct ping *p, struct worker *w, struct str to, struct str local,
                       struct str remote)
{
    p->w = w;
    p->deadline.fire = on_deadline;
    p->sent_ms = loop_now(&w->loop);
    str_copy(p->local, sizeof p->local, local);
    str_copy(p->remote, sizeof p->remote, remote);
    if (!env_hex_id(w->loop.env, p->id, sizeof p->id / 2))
        return "no randomness to be had";
    struct span iq = write_ping(p, to);
    if (iq.chunk == NULL)
        return "out of memory";
    w->n.outward.authored++;
    struct remote_refusal r = peer_deliver(&w->world, iq, local, remote);
    if (r.condition != NULL) {
        w->n.outward.bounced++;
        return r.condition;
    }
    list_append(&w->pings, &p->node);
    if (!loop_timer_set(&w->loop, &p->deadline, PING_DEADLINE_MS)) {
        list_remove(&p->node);
        return "out of memory";
    }
    return NULL;
}

static struct ping *find(struct worker *w, struct str id)
{
    LIST_FOREACH (&w->pings, n, following) {
        struct ping *p = CONTAINER_OF(n, struct ping, node);
        if (str_is(id, p->id))
            return p;
    }
    return NULL;
}

bool ping_answered(struct worker *w, const struct stanza *st, struct str local, struct str remote)
{
    bool answer =
        st->kind == STANZA_IQ && (str_is(st->type, "result") || str_is(st->type, "error"));
    struct ping *p = answer && w->pings.count > 0 ? find(w, st->id) : NULL;
    if (p == NULL || !str_is(local, p->local) || !str_is(remote, p->remote))
        return false;
    w->n.inward.delivered++; /* we were the destination */
    end(p, NULL, str_is(st->type, "error") ? "an error: it is there, but answers no ping" : NULL);
    return true;
}

bool ping_failed(struct worker *w, const struct stanza *st, const char *condition, const char *text)
{
    struct ping *p = w->pings.count > 0 && st->kind == STANZA_IQ ? find(w, st->id) : NULL;
    if (p == NULL || !str_is(st->from, p->local))
        return false;
    w->n.outward.bounced++;
    end(p, condition, text);
    return true;
}
