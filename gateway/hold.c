/* Which link takes a stanza for the inside, and what waits while none is up: up to limits.hold_time
 * and limits.hold_bytes in all; then it bounces, and so does whatever else comes for that domain
 * until a link is up again. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"

#define LINK_DOWN   "the gateway's link to the inside is down"
#define DOMAIN_GONE "the server of this domain is not connected to the inside"

/* ---- the way --------------------------------------------------------------------------------- */

static bool serves(void *arg, struct inward_line at, struct str local)
{
    const struct link *k = ((struct worker *)arg)->links[at.link];
    if (k->front != NULL)
        return k->front->listening && !k->front->draining && !k->front->down;
    return line_serves(&k->lines[at.line], local);
}

static struct way find(struct worker *w, const struct inward_key *key)
{
    struct way way = {.key = *key, .content = CONTENT_COMPONENT};
    way.up = inward_pick(w->inward, key, serves, w, &way.line);
    if (way.up && w->links[way.line.link]->front != NULL)
        way.content = CONTENT_SERVER;
    return way;
}

struct way way_inside(struct worker *w, struct str local, struct str remote, struct str from)
{
    struct inward_key key = {local, remote, w->nlinks > 1 ? inward_sender(from) : 0};
    return find(w, &key);
}

/* An unprefixed stanza of ours: the first letter tells. */
static enum stanza_kind kind_of(struct span stanza)
{
    char c = stanza.s.n > 1 ? stanza.s.p[1] : 'm';
    return c == 'i' ? STANZA_IQ : c == 'p' ? STANZA_PRESENCE : STANZA_MESSAGE;
}

/* By a stream of the s2s link; what cannot go there fails here. */
static void to_front(struct front *f, const struct way *way, struct span stanza)
{
    struct span keep = span_retain(stanza);
    struct remote_refusal r = peer_deliver(f, stanza, way->key.remote, way->key.local);
    if (r.condition != NULL)
        front_put_back(f, keep, r.condition, r.text);
    span_release(&keep);
}

/* One that is too large for the inside would end the stream for everybody. */
#define TOO_LARGE "the stanza is larger than the inside takes"
static bool fits(const struct worker *w, const struct cfg_link *c, size_t bytes)
{
    return bytes <= (c->stanza_size > 0 ? c->stanza_size : w->cfg->limits.stanza_size);
}

/* False: the line did not take it; it is still the caller's. */
static bool dispatch(struct worker *w, const struct way *way, struct span stanza)
{
    struct link *k = w->links[way->line.link];
    enum stanza_kind kind = kind_of(stanza);
    size_t bytes = stanza.s.n;
    if (!fits(w, k->kit->c, bytes)) {
        switch_failed_inward(w, stanza, way->content, "policy-violation", STR(TOO_LARGE));
        span_release(&stanza);
        return true;
    }
    if (k->front != NULL)
        to_front(k->front, way, stanza);
    else if (!line_send(&k->lines[way->line.line], stanza, way->key.local))
        return false;
    link_count(k, LINK_OUT, kind, bytes);
    return true;
}

/* ---- waiting --------------------------------------------------------------------------------- */

struct held *held_new(struct span stanza, enum content_ns content, struct str local,
                      struct str remote, uint32_t sender, uint64_t since)
{
    struct held *h = mem_zalloc(sizeof *h);
    struct span copy = h != NULL ? span_copy(stanza.s) : (struct span){NULL, STR_NONE};
    if (copy.chunk == NULL) {
        mem_free(h);
        return NULL;
    }
    h->stanza = copy;
    h->content = content;
    h->sender = sender;
    h->since = since;
    snprintf(h->pair, sizeof h->pair, "%.*s", STR_ARG(local));
    snprintf(h->pair + local.n + 1, sizeof h->pair - local.n - 1, "%.*s", STR_ARG(remote));
    return h;
}

void held_free(struct held *h)
{
    if (h != NULL)
        span_release(&h->stanza);
    mem_free(h);
}

static struct inward_key key_of(const struct held *h)
{
    struct str local = str_c(h->pair);
    return (struct inward_key){local, str_c(local.p + local.n + 1), h->sender};
}

static void fail(struct worker *w, const struct held *h, const char *condition, const char *text)
{
    switch_failed_inward(w, h->stanza, h->content, condition, str_c(text));
}

/* No link takes it: since when, and whether one of them is up all the same. */
struct lack {
    uint64_t since;
    bool up;
};

static struct lack lack_of(struct worker *w, const struct inward_key *key)
{
    uint64_t left = inward_candidates(w->inward, key->local, key->remote);
    struct lack lack = {0, false};
    for (size_t i = 0; left != 0; i++, left >>= 1) {
        const struct link *k = w->links[i];
        if (!(left & 1))
            continue;
        const struct line *l =
            k->front ? NULL : &k->lines[inward_line(w->inward, i, key->remote).line];
        uint64_t since = l != NULL ? l->lacks_since : k->front->since;
        lack.since = since > lack.since ? since : lack.since;
        lack.up = lack.up || (l != NULL && l->up);
    }
    return lack;
}

static bool room(const struct worker *w, size_t bytes)
{
    return w->hold.bytes + bytes <= w->cfg->limits.hold_bytes;
}

/* What a link's own timer does not find, as it had fired before hold_time was made longer, or was
 * never set, is found by this one. */
static void watch(struct worker *w)
{
    if (w->hold.items.count > 0 && !timer_armed(&w->hold.timer))
        loop_timer_set(&w->loop, &w->hold.timer, w->cfg->limits.hold_time);
}

static void keep(struct worker *w, struct held *h, bool first)
{
    if (first)
        list_prepend(&w->hold.items, &h->node);
    else
        list_append(&w->hold.items, &h->node);
    w->hold.bytes += h->stanza.s.n;
    watch_queues(w);
    watch(w);
}

static void take_out(struct worker *w, struct held *h)
{
    list_remove(&h->node);
    w->hold.bytes -= h->stanza.s.n;
    watch_queues(w);
}

/* NULL: it may wait. */
static const char *may_not_wait(struct worker *w, const struct inward_key *key, size_t bytes,
                                const char **text)
{
    if (inward_candidates(w->inward, key->local, key->remote) == 0) {
        *text = "no link to the inside carries this pair of domains";
        return "service-unavailable";
    }
    struct lack lack = lack_of(w, key);
    bool waited = loop_now(&w->loop) - lack.since >= w->cfg->limits.hold_time;
    *text = lack.up ? DOMAIN_GONE : LINK_DOWN;
    return w->draining || waited || !room(w, bytes) ? "remote-server-timeout" : NULL;
}

static void wait_or_fail(struct worker *w, const struct inward_key *key, enum content_ns content,
                         struct span stanza)
{
    const char *text = NULL;
    const char *condition = may_not_wait(w, key, stanza.s.n, &text);
    struct held *h = condition != NULL ? NULL
                                       : held_new(stanza, content, key->local, key->remote,
                                                  key->sender, loop_now(&w->loop));
    if (h != NULL)
        keep(w, h, false);
    else
        switch_failed_inward(w, stanza, content,
                             condition != NULL ? condition : "resource-constraint",
                             condition != NULL ? str_c(text) : STR("the gateway is out of memory"));
}

void hold_send(struct worker *w, const struct way *way, struct span stanza)
{
    if (way->up && dispatch(w, way, stanza))
        return;
    wait_or_fail(w, &way->key, way->content, stanza);
    span_release(&stanza);
}

void hold_answer(struct worker *w, const struct way *way, struct span stanza)
{
    const struct link *k = way->up ? w->links[way->line.link] : NULL;
    if (k == NULL || k->front != NULL || line_takes_answers(&k->lines[way->line.line])) {
        hold_send(w, way, stanza);
        return;
    }
    w->n.inward.dropped++;
    span_release(&stanza);
}

void hold_again(struct worker *w, struct span stanza)
{
    struct reread r;
    if (!switch_reread(&r, stanza, CONTENT_SERVER, true)) {
        w->n.inward.dropped++;
        return;
    }
    struct inward_key key = {str_c(r.local.ascii), str_c(r.remote.ascii),
                             inward_sender(r.ev.stanza.from)};
    wait_or_fail(w, &key, CONTENT_SERVER, stanza);
    switch_reread_free(&r);
    loop_post(&w->loop, &w->hold.sweep); /* another link may take it */
}

void hold_reply(struct worker *w, struct line *l, struct span stanza, struct str local)
{
    enum stanza_kind kind = kind_of(stanza);
    size_t bytes = stanza.s.n;
    if (line_takes_answers(l) && line_send(l, stanza, local)) {
        link_count(l->link, LINK_OUT, kind, bytes);
        return;
    }
    w->n.inward.dropped++; /* an answer to somebody who has gone, or does not read */
    span_release(&stanza);
}

/* True: it has gone, or failed for good. */
static bool settle(struct worker *w, const struct held *h)
{
    struct inward_key key = key_of(h);
    struct way way = find(w, &key);
    if (!way.up)
        return false;
    struct span s = span_retain(h->stanza);
    if (way.content != h->content)
        s = switch_translate(s, h->content, way.content, true);
    if (s.chunk == NULL) {
        fail(w, h, "resource-constraint", "the gateway is out of memory");
        return true;
    }
    bool gone = dispatch(w, &way, s);
    if (!gone)
        span_release(&s);
    return gone;
}

void hold_sweep(struct worker *w)
{
    LIST_FOREACH (&w->hold.items, n, next) {
        struct held *h = CONTAINER_OF(n, struct held, node);
        struct inward_key key = key_of(h);
        const char *text = NULL;
        if (!settle(w, h)) {
            const char *condition = may_not_wait(w, &key, 0, &text);
            if (condition == NULL)
                continue;
            fail(w, h, condition, text);
        }
        take_out(w, h);
        held_free(h);
    }
}

static void on_sweep(struct loop_task *t)
{
    hold_sweep(CONTAINER_OF(t, struct worker, hold.sweep));
}

static void on_timer(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, hold.timer);
    hold_sweep(w);
    watch(w);
}

void hold_init(struct worker *w)
{
    w->hold.sweep.run = on_sweep;
    w->hold.timer.fire = on_timer;
}

void hold_fail_all(struct worker *w)
{
    struct list_node *n;
    while ((n = w->hold.items.first) != NULL) {
        struct held *h = CONTAINER_OF(n, struct held, node);
        take_out(w, h);
        fail(w, h, "remote-server-timeout", LINK_DOWN);
        held_free(h);
    }
}

void hold_take_back(struct worker *w, struct list *items)
{
    struct list waiting = {NULL, NULL, 0}; /* the newest first */
    struct list_node *n;
    while ((n = list_pop(items)) != NULL) {
        struct held *h = CONTAINER_OF(n, struct held, node);
        if (settle(w, h))
            held_free(h);
        else
            list_prepend(&waiting, &h->node);
    }
    while ((n = list_pop(&waiting)) != NULL) {
        struct held *h = CONTAINER_OF(n, struct held, node);
        struct inward_key key = key_of(h);
        const char *text = NULL;
        if (may_not_wait(w, &key, h->stanza.s.n, &text) == NULL) {
            keep(w, h, true);
            continue;
        }
        fail(w, h, "remote-server-timeout", "the gateway's link to the inside was cut");
        held_free(h);
    }
}
