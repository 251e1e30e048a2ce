/* What streams of both directions share. Outwards: handing a stanza to a stream, the books of it,
 * taking back what was not sent. Inwards: pausing the streams that feed a link which is full.
 *
 * And an incoming stream as the carrier of a pair (XEP-0288): which one there is, writing to it,
 * its end; a peer that breaks the rules does without for a while. When a stream ends, what the
 * kernel has accepted of it last may still be under way: for SETTLE_MS no pair is given a carrier
 * that stands already, as that could overtake. A stream that is dialled cannot. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"

enum {
    QUARANTINE_MS = 10 * 60 * 1000,
    SETTLE_MS = 5000,
    UNSENT_MAX = 3, /* streams in a row that gave stanzas back */
};

/* ---- outwards -------------------------------------------------------------------------------- */

bool carry_stanza(struct front *f, struct session *s, struct span stanza)
{
    if (!conn_send_stanza(s->conn, stanza)) {
        front_failed(f, stanza, "resource-constraint", STR("out of memory"));
        span_release(&stanza);
        return false;
    }
    front_books(f)->writing++;
    return true;
}

void carry_sent(struct front *f, size_t stanzas)
{
    struct books *books = front_books(f);
    books->writing -= stanzas;
    books->delivered += stanzas;
}

size_t carry_take_back(struct front *f, struct session *s)
{
    struct books *books = front_books(f);
    struct list back = {NULL, NULL, 0};
    struct outq_item *it;
    struct span stanza;
    bool partial = false;
    size_t n = 0;
    for (; conn_unsent(s->conn, &stanza, &partial); n++) {
        books->writing--;
        it = partial ? NULL : mem_zalloc(sizeof *it);
        if (it == NULL) {
            front_failed(f, stanza, "remote-server-timeout",
                         STR("the stream was cut while this was being sent"));
            span_release(&stanza);
            continue;
        }
        it->stanza = stanza;
        list_prepend(&back, &it->node);
    }
    struct list_node *node;
    while ((node = list_pop(&back)) != NULL) {
        it = CONTAINER_OF(node, struct outq_item, node);
        switch_requeue(f, it->stanza);
        outq_item_free(it);
    }
    return n;
}

/* ---- inwards --------------------------------------------------------------------------------- */

void carry_pause(struct session *s, uint64_t *full_links, size_t link)
{
    if (*full_links == 0 && !s->over)
        conn_pause(s->conn);
    *full_links |= UINT64_C(1) << link;
}

void carry_resume(struct session *s, uint64_t *full_links, size_t link)
{
    uint64_t before = *full_links;
    *full_links &= ~(UINT64_C(1) << link);
    if (before != 0 && *full_links == 0 && !s->over)
        conn_resume(s->conn);
}

void carry_pause_new(struct worker *w, struct session *s, uint64_t *full_links, struct str local,
                     struct str remote)
{
    for (size_t i = 0; i < w->nlinks; i++)
        if (w->links[i]->full && inward_owns(w->inward, i, local, remote))
            carry_pause(s, full_links, i);
}

bool carry_feeds(const struct worker *w, const struct authz *a, size_t link)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].state == AUTHZ_VALID &&
            inward_owns(w->inward, link, str_c(a->v[i].local), str_c(a->v[i].remote)))
            return true;
    return false;
}

void peer_pause(struct front *f, size_t link)
{
    LIST_FOREACH (&f->out, n, next) {
        struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        if (!o->s.over && o->m.bidi && carry_feeds(o->w, &o->m.authz, link))
            carry_pause(&o->s, &o->full_links, link);
    }
}

void peer_resume(struct front *f, size_t link)
{
    LIST_FOREACH (&f->out, n, next) {
        struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        carry_resume(&o->s, &o->full_links, link);
    }
}

bool carry_inward(struct worker *w, const struct gw_event *ev, const struct gw_action *a)
{
    if (a->kind == ACT_DELIVER) {
        rules_passed_in(w, a->u.pair.local, a->u.pair.remote);
        switch_inward(w, ev->u.stanza, a->u.pair.local, a->u.pair.remote);
        return true;
    }
    if (a->kind == ACT_BOUNCE || a->kind == ACT_DROP)
        switch_malformed_inward(w, ev->u.stanza, a);
    return a->kind == ACT_BOUNCE || a->kind == ACT_DROP;
}

/* ---- carriers -------------------------------------------------------------------------------- */

/* A pair, and the stream that it was proven on last. */
struct carrier {
    char pair[PAIR_TEXT]; /* "local:remote" */
    struct in_session *in;
    UT_hash_handle hh; /* front.carriers */
};

static struct carrier *find(const struct front *f, struct str local, struct str remote)
{
    char pair[PAIR_TEXT];
    struct carrier *c;
    snprintf(pair, sizeof pair, "%.*s:%.*s", STR_ARG(local), STR_ARG(remote));
    HASH_FIND_STR(f->carriers, pair, c);
    return c;
}

void carrier_proven(struct in_session *in, struct str local, struct str remote)
{
    struct carrier *c = in->m.bidi ? find(in->front, local, remote) : NULL;
    if (!in->m.bidi)
        return;
    if (c != NULL) {
        c->in = in;
        return;
    }
    c = mem_zalloc(sizeof *c);
    if (c == NULL)
        return; /* it goes by a stream of ours */
    snprintf(c->pair, sizeof c->pair, "%.*s:%.*s", STR_ARG(local), STR_ARG(remote));
    c->in = in;
    HASH_ADD_STR(in->front->carriers, pair, c);
    if (c->hh.tbl == NULL)
        mem_free(c);
}

static void forget(struct in_session *in, const struct authz_pair *a)
{
    struct carrier *c = find(in->front, str_c(a->local), str_c(a->remote));
    if (c == NULL || c->in != in)
        return;
    HASH_DEL(in->front->carriers, c);
    mem_free(c);
}

static bool open_for(const struct in_session *in, struct str local, struct str remote)
{
    return !in->s.over && s2s_in_carries(&in->m, local, remote);
}

void carrier_adopt(struct peer *p, struct str local)
{
    uint64_t now = loop_now(&p->w->loop);
    if (p->front->carriers == NULL || p->settled > now || p->no_bidi > now ||
        remote_carrier(p->remote, local) != 0)
        return;
    const struct carrier *c = find(p->front, local, str_c(p->domain));
    if (c != NULL && open_for(c->in, local, str_c(p->domain)))
        remote_carry(p->remote, local, c->in->sid, now);
}

static struct in_session *stream_of(const struct peer *p, uint64_t carrier)
{
    struct in_session *in;
    uint32_t sid = (uint32_t)carrier;
    HASH_FIND(hh, p->w->in_by_sid, &sid, sizeof sid, in);
    return in;
}

bool carrier_takes(void *peer, uint64_t carrier, struct str local)
{
    const struct peer *p = peer;
    const struct in_session *in = stream_of(p, carrier);
    return in != NULL && open_for(in, local, str_c(p->domain)) && !conn_above_high(in->s.conn);
}

void carrier_send(struct peer *p, uint64_t carrier, struct span stanza)
{
    struct in_session *in = stream_of(p, carrier);
    size_t n = stanza.s.n;
    if (!carry_stanza(p->front, &in->s, stanza))
        return;
    in->back_bytes += n;
    in->back++;
    s2s_in_touch(&in->m, loop_now(&p->w->loop));
}

size_t carrier_answers(const struct in_session *in)
{
    size_t queued = conn_queued(in->s.conn);
    return queued > in->back_bytes ? queued - in->back_bytes : 0;
}

void carrier_sent(struct in_session *in, size_t stanzas, size_t bytes)
{
    in->back_bytes -= bytes;
    carry_sent(in->front, stanzas);
}

void carrier_drained(struct in_session *in)
{
    for (size_t i = 0; in->m.bidi && i < in->m.authz.n; i++) {
        const struct authz_pair *a = &in->m.authz.v[i];
        struct peer *p = peer_find(in->front, str_c(a->remote), str_c(a->local));
        if (p != NULL && remote_carrier(p->remote, str_c(a->local)) == in->sid)
            peer_kick(p);
    }
}

/* ---- its end, and what the peer has to do with it -------------------------------------------- */

void peer_carried(struct peer *p, uint64_t last)
{
    if (last != 0 && last + SETTLE_MS > p->settled)
        p->settled = last + SETTLE_MS;
}

bool peer_bidi(const struct front *f, struct str remote, struct str local)
{
    const struct peer *p = peer_find(f, remote, local);
    return p == NULL || p->no_bidi <= loop_now(&f->w->loop);
}

void peer_quarantine(struct peer *p, const char *why)
{
    uint64_t now = loop_now(&p->w->loop);
    if (p->no_bidi <= now)
        log_ev(&p->w->ctx, LOG_WARN, "s2s.bidi.quarantine", KV_C("peer", p->domain),
               KV_SEC("for", QUARANTINE_MS), KV_C("reason", why));
    p->w->n.bidi_quarantines += p->no_bidi <= now;
    p->no_bidi = now + QUARANTINE_MS;
    p->bidi_why = why;
    p->bidi_unsent = 0;
    peer_kick(p); /* its timer */
}

bool peer_judge_bidi(struct out_session *o)
{
    const struct s2s_out *m = &o->m;
    if (m->bidi_broken == NULL)
        return false;
    struct peer *p = peer_get(o->front, str_c(m->remote), str_c(m->local));
    if (p != NULL)
        peer_quarantine(p, m->bidi_broken);
    return p != NULL && authz_first(&m->authz, AUTHZ_VALID) == NULL;
}

/* What comes back again and again goes better by a stream of ours. */
static void count_unsent(struct peer *p, size_t unsent)
{
    p->bidi_unsent = unsent > 0 ? p->bidi_unsent + 1 : 0;
    if (p->bidi_unsent >= UNSENT_MAX)
        peer_quarantine(p, "what was sent back on its streams was not taken");
}

/* Only a pair that was proven on it speaks for its peer. */
static void pair_ended(struct in_session *in, const struct authz_pair *a, size_t unsent)
{
    struct str local = str_c(a->local), remote = str_c(a->remote);
    const char *broken = in->m.bidi_broken;
    forget(in, a);
    struct peer *p =
        broken != NULL ? peer_get(in->front, remote, local) : peer_find(in->front, remote, local);
    if (p == NULL)
        return;
    if (broken != NULL)
        peer_quarantine(p, broken);
    if (remote_carrier(p->remote, local) != in->sid)
        return;
    if (broken == NULL && in->back > 0)
        count_unsent(p, unsent);
    peer_carried(p, in->m.sent_ms);
    remote_uncarry(p->remote, local, in->sid, loop_now(&in->w->loop));
    peer_kick(p);
}

void carrier_ended(struct in_session *in)
{
    size_t unsent = in->back > 0 ? carry_take_back(in->front, &in->s) : 0;
    in->back_bytes = 0;
    for (size_t i = 0; in->m.bidi && i < in->m.authz.n; i++)
        if (in->m.authz.v[i].state == AUTHZ_VALID)
            pair_ended(in, &in->m.authz.v[i], unsent);
}
