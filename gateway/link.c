/* The life of the links: made, changed and ended as the configuration says. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "xcp/proven.h"

/* ---- plans ----------------------------------------------------------------------------------- */

static struct link *find(const struct worker *w, const char *name)
{
    for (size_t i = 0; i < w->nlinks; i++)
        if (w->links[i] != NULL && strcmp(w->links[i]->kit->c->name, name) == 0)
            return w->links[i];
    return NULL;
}

static struct certs *certs_of(const struct link *k)
{
    return k == NULL ? NULL : k->front != NULL ? k->front->certs : k->kit->certs;
}

bool link_plan_make(struct link_plan *p, struct worker *w, struct gateway_config *cfg,
                    struct buf *why)
{
    const int64_t now = worker_certs_env(w).now;
    *p = (struct link_plan){.inward = inward_new(cfg), .n = cfg->nlinks};
    p->kits = mem_zalloc((p->n + 1) * sizeof *p->kits);
    p->fronts = mem_zalloc((p->n + 1) * sizeof *p->fronts);
    bool ok = p->inward != NULL && p->kits != NULL && p->fronts != NULL;
    if (!ok)
        buf_puts(why, "out of memory\n");
    /* Go on after a bad file: the operator sees all problems at once. */
    for (size_t i = 0; p->kits != NULL && p->fronts != NULL && i < p->n; i++) {
        const struct certs_before old = {certs_of(find(w, cfg->links[i].name)), now};
        p->kits[i] = link_kit_new(cfg, i, &old, why);
        if (p->kits[i] != NULL && cfg->links[i].protocol == PROTOCOL_S2S)
            p->fronts[i] = link_kit_front(p->kits[i], &old, why);
        ok = ok && p->kits[i] != NULL &&
             (cfg->links[i].protocol != PROTOCOL_S2S || p->fronts[i] != NULL);
    }
    if (!ok)
        link_plan_free(p);
    return ok;
}

void link_plan_free(struct link_plan *p)
{
    for (size_t i = 0; p->kits != NULL && p->fronts != NULL && i < p->n; i++) {
        link_kit_unref(p->kits[i]);
        certs_free(p->fronts[i]);
    }
    inward_free(p->inward);
    mem_free(p->kits);
    mem_free(p->fronts);
    *p = (struct link_plan){NULL};
}

/* ---- one link -------------------------------------------------------------------------------- */

static void on_accept(void *arg, uv_tcp_t *tcp)
{
    line_accept(arg, tcp);
}

static void close_listeners(struct link *k)
{
    for (size_t i = 0; i < k->nlisteners; i++)
        listen_close(k->listeners[i]);
    mem_free(k->listeners);
    k->listeners = NULL;
    k->nlisteners = 0;
}

static bool listen_all(struct link *k, struct buf *why)
{
    const struct cfg_link *c = k->kit->c;
    struct worker *w = k->w;
    k->listeners = mem_zalloc((c->nlisten + 1) * sizeof *k->listeners);
    for (size_t i = 0; k->listeners != NULL && i < c->nlisten; i++) {
        struct endpoint at;
        char text[LISTEN_WHY_MAX] = "not an address with a port";
        struct listener *l = NULL;
        if (endpoint_parse(str_c(c->listen[i]), &at))
            l = listen_new(&w->loop, &at, on_accept, k, text);
        if (l == NULL) {
            buf_printf(why, "links[%s]: %s\n", c->name, text);
            close_listeners(k);
            return false;
        }
        k->listeners[k->nlisteners++] = l;
        log_ev(&w->ctx, LOG_NOTICE, "link.listen", KV_C("link", c->name),
               KV_C("addr", c->listen[i]));
    }
    return k->listeners != NULL;
}

static bool make_lines(struct link *k)
{
    size_t n = inward_lines(k->kit->c);
    k->lines = mem_zalloc(n * sizeof *k->lines);
    if (k->lines == NULL)
        return false;
    k->nlines = n;
    for (size_t i = 0; i < n; i++)
        line_init(&k->lines[i], k, i);
    return true;
}

static bool make_front(struct link *k, struct certs *certs)
{
    k->front = mem_zalloc(sizeof *k->front);
    if (k->front == NULL) {
        certs_free(certs);
        return false;
    }
    front_init(k->front, k->w, k, certs);
    return true;
}

/* Its own addresses, unless it has them already; what fails is told in `why`. */
static bool open_doors(struct link *k, struct buf *why)
{
    const struct cfg_link *c = k->kit->c;
    if (k->front != NULL)
        return accept_open(k->front, &(struct accept_doors){.v = c->listen, .n = c->nlisten}, why);
    return c->transport != LINK_ACCEPT || k->nlisteners > 0 || listen_all(k, why);
}

static bool open_link(struct link *k, struct buf *why)
{
    for (size_t i = 0; i < k->nlines; i++)
        line_dial(&k->lines[i]);
    return open_doors(k, why);
}

/* Has peer_name joined by password in an earlier life? */
static bool recall_proven(const struct worker *w, const struct link_kit *kit)
{
    return proven_recall(kit->c->proven_file, kit->c->peer_name, kit->c->name, &w->ctx);
}

static struct link *new_link(struct worker *w, struct link_kit *kit, struct certs *front)
{
    struct link *k = mem_zalloc(sizeof *k);
    if (k == NULL) {
        certs_free(front);
        link_kit_unref(kit);
        return NULL;
    }
    k->w = w;
    k->kit = kit;
    k->proven = recall_proven(w, kit);
    if (front != NULL ? make_front(k, front) : make_lines(k))
        return k;
    link_kit_unref(kit);
    mem_free(k);
    return NULL;
}

static void stop(struct link *k, bool now)
{
    k->stopping = true;
    close_listeners(k);
    line_dismiss(k, now, "the link is stopping");
    for (size_t i = 0; i < k->nlines; i++)
        line_stop(&k->lines[i], now);
    if (now)
        line_abort_all(k);
    if (k->front != NULL)
        front_drain(k->front, now);
    if (k->full)
        front_resume(&k->w->world, k->index);
    k->full = false;
}

static void free_link(struct link *k)
{
    close_listeners(k);
    for (size_t i = 0; i < k->nlines; i++)
        line_stop(&k->lines[i], true);
    if (k->front != NULL)
        front_close(k->front);
    mem_free(k->front);
    mem_free(k->lines);
    link_kit_unref(k->kit);
    mem_free(k);
}

static bool quiet(const struct link *k)
{
    return k->sessions == 0 && (k->front == NULL || front_quiet(k->front));
}

void link_free_if_gone(struct link *k)
{
    if (!k->gone || !quiet(k))
        return;
    list_remove(&k->leaving);
    free_link(k);
}

/* Its streams end in good order; then it is freed. */
static void retire(struct link *k)
{
    struct worker *w = k->w;
    log_ev(&w->ctx, LOG_NOTICE, "link.removed", KV_C("link", k->kit->c->name));
    k->gone = true;
    list_append(&w->leaving, &k->leaving);
    stop(k, false);
    if (k->front != NULL)
        peer_settle(k->front); /* what still waits in it, waits for the links that there are now */
    link_free_if_gone(k);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The link goes on with a new kit; its streams keep the one they have. */
static void renew(struct link *k, struct link_kit *kit, struct certs *front)
{
    const struct certs_env env = worker_certs_env(k->w);
    if (kit->certs != NULL)
        certs_begin(kit->certs, k->kit->certs, &env);
    link_kit_unref(k->kit);
    k->kit = kit;
    k->proven = k->proven || recall_proven(k->w, kit);
    kit->trust.proven = k->proven;
    for (size_t i = 0; i < k->nlines; i++)
        line_adopt(&k->lines[i], i);
    if (k->front != NULL)
        front_adopt(k->front, k, front);
}

static void renew_lines(struct link *k)
{
    line_dismiss(k, false, "the configuration has changed");
    for (size_t i = 0; i < k->nlines; i++)
        line_renew(&k->lines[i]);
}

/* What was wrong with a link that is configured no more is wrong no more. */
static void clear_alarms(const struct link *k)
{
    struct worker *w = k->w;
    uint64_t now = loop_now(&w->loop);
    alarm_clear_all(&w->alarms, "link.", k->kit->c->name, now);
    for (size_t i = 0; i < k->nlines; i++)
        alarm_clear_all(&w->alarms, "link.", k->lines[i].label, now);
}

/* Which of the old links go on: those of the same name and unchanged settings. */
static struct link *keep(struct worker *w, const char *name,
                         bool (*changed)(void *arg, const char *name), void *arg)
{
    struct link *k = find(w, name);
    return k == NULL || changed(arg, name) ? NULL : k;
}

static void remember_name(struct link *fresh, const struct link *old)
{
    const char *a = fresh->kit->c->peer_name, *b = old ? old->kit->c->peer_name : NULL;
    if (a != NULL && b != NULL && old->proven && strcmp(a, b) == 0)
        fresh->proven = true; /* switched over from password */
}

static bool stays(const struct worker *w, const struct link *k)
{
    for (size_t i = 0; i < w->nlinks; i++)
        if (w->links[i] == k)
            return true;
    return false;
}

static void pause_anew(struct worker *w)
{
    for (size_t i = 0; i < LINKS_MAX; i++)
        front_resume(&w->world, i);
    for (size_t i = 0; i < w->nlinks; i++)
        if (w->links[i]->full)
            front_pause(&w->world, i);
}

/* The links of a plan: old ones that go on, and new ones. */
struct choice {
    struct link **links;
    bool *fresh;
};

static struct link_kit *take_kit(struct link_plan *p, size_t i)
{
    struct link_kit *kit = p->kits[i];
    p->kits[i] = NULL;
    return kit;
}

static struct certs *take_front(struct link_plan *p, size_t i)
{
    struct certs *c = p->fronts[i];
    p->fronts[i] = NULL;
    return c;
}

static void choice_undo(struct choice *c, size_t n)
{
    for (size_t i = 0; c->links != NULL && c->fresh != NULL && i < n; i++)
        if (c->fresh[i] && c->links[i] != NULL)
            free_link(c->links[i]);
    mem_free(c->links);
    mem_free(c->fresh);
}

/* Nothing that runs is changed yet. False: out of memory. */
static bool choose(struct worker *w, struct link_plan *p, struct choice *c,
                   bool (*changed)(void *arg, const char *name), void *arg)
{
    *c = (struct choice){mem_zalloc((p->n + 1) * sizeof *c->links), mem_zalloc(p->n + 1)};
    bool ok = c->links != NULL && c->fresh != NULL;
    for (size_t i = 0; ok && i < p->n; i++) {
        const struct link *old = find(w, p->kits[i]->c->name);
        c->links[i] = keep(w, p->kits[i]->c->name, changed, arg);
        c->fresh[i] = c->links[i] == NULL;
        if (!c->fresh[i])
            continue;
        c->links[i] = new_link(w, take_kit(p, i), take_front(p, i));
        ok = c->links[i] != NULL;
        if (ok)
            remember_name(c->links[i], old);
    }
    if (!ok)
        choice_undo(c, p->n);
    return ok;
}

/* From here on the new snapshot decides which link takes what. */
static void swap(struct worker *w, struct link_plan *p, const struct choice *c)
{
    struct link **old = w->links;
    size_t nold = w->nlinks;
    const struct certs_env env = worker_certs_env(w);
    inward_free(w->inward);
    w->inward = p->inward;
    p->inward = NULL;
    w->links = c->links;
    w->nlinks = p->n;
    for (size_t i = 0; i < p->n; i++)
        w->links[i]->index = i;
    for (size_t i = 0; i < p->n; i++)
        if (!c->fresh[i])
            renew(c->links[i], take_kit(p, i), take_front(p, i));
    for (size_t i = 0; i < nold; i++) {
        if (find(w, old[i]->kit->c->name) == NULL)
            clear_alarms(old[i]);
        if (stays(w, old[i]))
            continue;
        certs_end(certs_of(old[i]), &env);
        retire(old[i]);
    }
    mem_free(old);
    for (size_t i = 0; i < p->n; i++)
        if (c->fresh[i] && certs_of(w->links[i]) != NULL)
            certs_begin(certs_of(w->links[i]), NULL, &env);
    pause_anew(w);
}

bool link_apply(struct worker *w, struct link_plan *p, bool (*changed)(void *arg, const char *name),
                void *arg, struct buf *why)
{
    struct choice c;
    bool ok = choose(w, p, &c, changed, arg);
    if (!ok) {
        buf_puts(why, "out of memory\n");
        link_plan_free(p);
        return false;
    }
    swap(w, p, &c);
    for (size_t i = 0; i < w->nlinks; i++)
        if (c.fresh[i]) {
            ok = open_link(w->links[i], why) && ok;
        } else {
            renew_lines(w->links[i]);
            ok = open_doors(w->links[i], why) && ok; /* one may have been taken the last time */
        }
    mem_free(c.fresh);
    link_plan_free(p);
    hold_sweep(w);
    return ok;
}

void link_drain(struct worker *w, bool now)
{
    for (size_t i = 0; i < w->nlinks; i++)
        stop(w->links[i], now);
    LIST_FOREACH (&w->leaving, n, next)
        stop(CONTAINER_OF(n, struct link, leaving), now);
}

bool link_quiet(const struct worker *w)
{
    for (size_t i = 0; i < w->nlinks; i++)
        if (!quiet(w->links[i]))
            return false;
    return w->leaving.count == 0;
}

void link_close(struct worker *w)
{
    for (size_t i = 0; i < w->nlinks; i++)
        free_link(w->links[i]);
    mem_free(w->links);
    w->links = NULL;
    w->nlinks = 0;
    while (w->hold.items.first != NULL) {
        struct held *h = CONTAINER_OF(list_pop(&w->hold.items), struct held, node);
        held_free(h);
    }
    inward_free(w->inward);
    w->inward = NULL;
}

/* A listener on every address is at each of ours. */
static bool is_at(const struct endpoint *own, const struct endpoint *e)
{
    static const struct ip any4 = {{0}, 4}, any6 = {{0}, 16};
    bool any = ip_equal(&own->ip, &any4) || ip_equal(&own->ip, &any6);
    return own->port == e->port &&
           (ip_equal(&own->ip, &e->ip) || (any && worker_own_address(&e->ip)));
}

bool link_address(struct worker *w, const struct endpoint *e)
{
    struct endpoint own;
    for (size_t i = 0; i < w->nlinks; i++) {
        const struct cfg_link *c = w->links[i]->kit->c;
        if (c->address != NULL && endpoint_parse(str_c(c->address), &own) && is_at(&own, e))
            return true;
        for (size_t j = 0; j < c->nlisten; j++)
            if (endpoint_parse(str_c(c->listen[j]), &own) && is_at(&own, e))
                return true;
    }
    return false;
}

const char *link_alarm_of(enum trust_reason verdict)
{
    static const char *const kinds[] = {
#define X(id, name, ok) "link." name,
        TRUST_REASONS(X)
#undef X
    };
    return kinds[verdict];
}

void link_count(struct link *k, enum link_direction d, enum stanza_kind kind, size_t bytes)
{
    struct link_traffic *t = &k->traffic[d][kind];
    t->count++;
    t->bytes += bytes;
    t->last_ms = loop_now(&k->w->loop);
}

static size_t queued(const struct link *k)
{
    return k->front != NULL ? k->front->outq.count : 0;
}

size_t link_queued(const struct worker *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->nlinks; i++)
        n += queued(w->links[i]);
    LIST_FOREACH (&w->leaving, node, next)
        n += queued(CONTAINER_OF(node, struct link, leaving));
    return n;
}

bool link_look(struct worker *w, bool files)
{
    const struct certs_env env = worker_certs_env(w);
    bool soon = false;
    for (size_t i = 0; i < w->nlinks; i++) {
        struct certs *c = certs_of(w->links[i]);
        if (c == NULL)
            continue;
        certs_look(c, files, &env);
        soon = soon || certs_unsettled(c);
    }
    return soon;
}

void link_state_certs(struct worker *w, const struct kv_sink *to)
{
    for (size_t i = 0; i < w->nlinks; i++)
        certs_state(certs_of(w->links[i]), to);
}
