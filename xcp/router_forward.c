/* Stanzas through the router: verdict, restamp, queue, back-pressure, and what becomes of stanzas
 * whose link breaks. Each one ends exactly once: sent, bounced, or counted as dropped. */
#include "xcp/router_priv.h"

#include "core/base/mem.h"
#include "core/stream/bounce.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

enum {
    ADDRESS_MAX = 3 * (JID_PART_MAX + 1),
    PINNED_MAX = 32 * 1024, /* waiting bytes from which on a span is copied out of its chunk */
    STALL_MS = 60000,
};

/* ---- back-pressure --------------------------------------------------------------------------- */

static void set_paused(struct router_peer *p, bool paused)
{
    if (p->client)
        link_client_pause(&p->machine.client, paused, loop_now(p->router->loop));
    if (paused)
        conn_pause(p->session.conn);
    else if (!p->ended)
        conn_resume(p->session.conn);
}

/* `from` filled `full`: it is not read from until there is room again. */
static void block(struct router_peer *from, struct router_peer *full)
{
    if (from->ended || from->waits.in != NULL || !conn_above_high(full->session.conn))
        return;
    list_append(&full->blocked, &from->waits);
    set_paused(from, true);
    if (!timer_armed(&full->stall))
        loop_timer_set(full->router->loop, &full->stall, STALL_MS);
}

void router_leave(struct router_peer *p)
{
    if (p->waits.in == NULL)
        return;
    list_remove(&p->waits);
    set_paused(p, false);
}

void router_unblock(struct router_peer *p)
{
    struct list_node *n;
    loop_timer_clear(p->router->loop, &p->stall);
    while ((n = p->blocked.first) != NULL)
        router_leave(CONTAINER_OF(n, struct router_peer, waits));
}

void router_progress(struct router_peer *p)
{
    if (p->blocked.count > 0)
        loop_timer_set(p->router->loop, &p->stall, STALL_MS);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A small stanza must not pin the large chunk that it was read into while it waits. */
static struct span unpinned(struct span s, const struct router_peer *to)
{
    if (s.chunk == NULL || conn_queued(to->session.conn) < PINNED_MAX || s.chunk->cap < 2 * s.s.n)
        return s;
    struct span copy = span_copy(s.s);
    if (copy.chunk == NULL)
        return s;
    span_release(&s);
    return copy;
}

/* Takes the span over. False: it could not be queued. */
static bool queue(struct router_peer *to, struct span s, struct router_peer *cause)
{
    if (to->ended || s.chunk == NULL) {
        span_release(&s);
        return false;
    }
    s = unpinned(s, to);
    if (!conn_send_stanza(to->session.conn, s)) {
        span_release(&s);
        return false;
    }
    uint64_t now = loop_now(to->router->loop);
    if (to->client)
        link_client_sent(&to->machine.client, now);
    else
        link_server_sent(&to->machine.server, now);
    if (cause != NULL)
        block(cause, to);
    return true;
}

static struct router_counters *counters(struct router_peer *p, struct router_counters *spare)
{
    return p->link != NULL ? &p->link->count : spare;
}

/* Writes what we say ourselves back to where a stanza came from, and counts it. */
static void answer(struct router_peer *to, struct span s, bool is_bounce)
{
    struct router_counters spare = {0}, *c = counters(to, &spare);
    /* After our closing tag nothing may be written: only a link that is up is answered. */
    bool up = to->link != NULL && to->link->peer == to;
    if (!up)
        span_release(&s);
    if (!up || !queue(to, s, to))
        c->dropped++;
    else if (is_bounce)
        c->bounced++;
}

static void bounce(struct router_peer *to, const struct stanza *st, const char *type,
                   const char *condition, const char *text)
{
    answer(to, bounce_stanza(st, CONTENT_COMPONENT, type, condition, text), true);
}

/* An address with its domain in prepared form. The usual one is there already. */
static struct str prepared(struct buf *b, struct str address, struct domain *scratch)
{
    struct jid j = jid_split(address);
    if (!domain_prepare(j.domain, scratch) || str_is(j.domain, scratch->wire))
        return address;
    if (j.local.p != NULL) {
        buf_str(b, j.local);
        buf_putc(b, '@');
    }
    buf_puts(b, scratch->wire);
    if (j.resource.p != NULL) {
        buf_putc(b, '/');
        buf_str(b, j.resource);
    }
    return b->failed ? STR_NONE : buf_view(b);
}

/* The stanza as it goes out; chunk NULL: out of memory. */
static struct span restamp(const struct stanza *st)
{
    struct domain scratch;
    struct buf from = BUF_INIT(ADDRESS_MAX), to = BUF_INIT(ADDRESS_MAX);
    struct writer_target target = {.content = CONTENT_COMPONENT};
    struct span out = {NULL, STR_NONE};
    target.from = prepared(&from, st->from, &scratch);
    target.to = prepared(&to, st->to, &scratch);
    if (target.from.p != NULL && target.to.p != NULL)
        out = writer_restamp(st, &target);
    buf_free(&from);
    buf_free(&to);
    return out;
}

/* ---- a stanza from a link -------------------------------------------------------------------- */

static struct router_peer *peer_of(const struct router *r, size_t link)
{
    return r->links[link]->peer;
}

static void log_refused(struct router_peer *from, const struct stanza *st, const char *why)
{
    log_ev(&from->session.log, LOG_WARN, "stanza.refused", KV_S("from", st->from),
           KV_S("to", st->to), KV_S("type", st->type), KV_C("reason", "firewall"),
           KV_C("msg", why));
}

static void log_fate(struct router_peer *p, const char *event, const struct stanza *st,
                     const char *why)
{
    log_ev(&p->session.log, LOG_DEBUG, event, KV_S("from", st->from), KV_S("to", st->to),
           KV_S("type", st->type), KV_C("msg", why));
}

static void forward(struct router_peer *from, const struct stanza *st, size_t link)
{
    struct router_peer *to = peer_of(from->router, link);
    if (to != NULL && queue(to, restamp(st), from))
        return;
    if (bounce_allowed(st)) {
        bounce(from, st, "wait", "resource-constraint", "the router is out of memory");
        return;
    }
    struct router_counters spare = {0};
    counters(from, &spare)->dropped++;
}

static void deliver(struct router_peer *from, const struct stanza *st, struct str from_domain,
                    struct str to_domain)
{
    struct router *r = from->router;
    struct router_counters spare = {0}, *c = counters(from, &spare);
    size_t source = from->link != NULL ? from->link->index : SIZE_MAX;
    struct route v = routes_decide(r->routes, source, st, from_domain, to_domain);
    switch (v.verdict) {
    case ROUTE_TO:
        forward(from, st, v.link);
        break;
    case ROUTE_SELF:
        answer(from, bounce_answer(st, CONTENT_COMPONENT), false);
        break;
    case ROUTE_BOUNCE:
        log_fate(from, "stanza.bounced", st, v.text);
        bounce(from, st, v.type, v.condition, v.text);
        break;
    case ROUTE_DROP:
        log_fate(from, "stanza.dropped", st, v.text);
        c->dropped++;
        break;
    case ROUTE_REFUSE:
        log_refused(from, st, v.text);
        c->refused++;
        break;
    }
}

void router_take(struct router_peer *from, const struct gw_event *ev, const struct gw_action *act)
{
    struct router_counters spare = {0}, *c = counters(from, &spare);
    if (ev->kind != EV_STANZA)
        return;
    const struct stanza *st = ev->u.stanza;
    c->in_stanzas++;
    c->in_bytes += st->span.s.n;
    switch (act->kind) {
    case ACT_DELIVER:
        deliver(from, st, act->u.pair.local, act->u.pair.remote);
        break;
    case ACT_BOUNCE:
        bounce(from, st, act->u.bounce.type, act->u.bounce.condition, act->u.bounce.text);
        break;
    default:
        log_fate(from, "stanza.dropped", st, "the sender's address is not valid");
        c->dropped++;
        break;
    }
}

/* ---- stanzas of a link that broke ------------------------------------------------------------ */

/* Reads a stanza that we had queued: its bytes are all that is left of it. Everything queued here
 * is made to stand alone on a component stream. NULL: not readable. */
static struct framer *read_back(struct str bytes, const struct framer_limits *limits,
                                struct framer_event *ev)
{
    static const char header[] =
        "<stream:stream xmlns='" NS_COMPONENT "' xmlns:stream='" NS_STREAM "'>";
    struct framer *f = framer_new(CONTENT_COMPONENT, limits);
    if (f == NULL)
        return NULL;
    if (framer_feed(f, STR(header)) && framer_next(f, ev) == FRAMER_EVENT &&
        framer_feed(f, bytes) && framer_next(f, ev) == FRAMER_EVENT && ev->kind == FRAMER_STANZA)
        return f;
    framer_free(f);
    return NULL;
}

/* Twice the limits of the input: restamping and our own bounces may be a little longer than what
 * came in. */
static struct framer_limits wider(const struct framer_limits *l)
{
    struct framer_limits w = *l;
    w.element *= 2;
    w.token *= 2;
    w.attrs *= 2;
    w.ns_decls *= 2;
    return w;
}

static bool send_again(struct router_peer *old, const struct stanza *st, struct str from,
                       struct str to)
{
    const struct router *r = old->router;
    size_t link;
    if (!routes_again(r->routes, st->from, from, to, &link))
        return false;
    struct router_peer *peer = peer_of(r, link);
    return peer != NULL && peer != old && queue(peer, span_copy(st->span.s), NULL);
}

static bool send_back(struct router_peer *old, const struct stanza *st, struct str from,
                      struct str to, const char *text)
{
    const struct router *r = old->router;
    size_t link;
    if (!bounce_allowed(st) || !routes_again(r->routes, st->to, to, from, &link))
        return false;
    struct router_peer *peer = peer_of(r, link);
    if (peer == NULL || peer == old)
        return false;
    struct span s = bounce_stanza(st, CONTENT_COMPONENT, "wait", "remote-server-timeout", text);
    if (!queue(peer, s, NULL))
        return false;
    r->links[link]->count.bounced++;
    return true;
}

static bool place(struct router_peer *old, const struct stanza *st, bool partial)
{
    struct domain *d = mem_alloc(2 * sizeof *d);
    struct jid j;
    bool ok = d != NULL && jid_prepare(st->from, &j, &d[0]) == JID_OK &&
              jid_prepare(st->to, &j, &d[1]) == JID_OK;
    if (ok) {
        struct str from = str_c(d[0].ascii), to = str_c(d[1].ascii);
        ok = (!partial && send_again(old, st, from, to)) ||
             send_back(old, st, from, to,
                       partial ? "the link broke in the middle of this stanza"
                               : "the link broke before this stanza was sent");
    }
    mem_free(d);
    return ok;
}

void router_take_back(struct router_peer *p)
{
    struct span s;
    bool partial;
    struct router_counters spare = {0}, *c = counters(p, &spare);
    struct framer_limits limits = wider(&p->snap->limits);
    size_t moved = 0, lost = 0;
    while (conn_unsent(p->session.conn, &s, &partial)) {
        struct framer_event ev;
        struct framer *f = read_back(s.s, &limits, &ev);
        if (f != NULL && place(p, &ev.stanza, partial))
            moved++;
        else
            lost++;
        framer_free(f);
        span_release(&s);
    }
    c->dropped += lost;
    if (moved + lost > 0)
        log_ev(&p->session.log, LOG_NOTICE, "link.unsent", KV_I("moved", moved),
               KV_I("dropped", lost));
}
