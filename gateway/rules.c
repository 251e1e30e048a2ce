/* Policy at work: what it refuses and what it lets through on trial is counted, entries that are
 * over stop counting, and a reload says beforehand what it will do to live streams. */
#include "gateway/worker.h"

#include <stdio.h>

#include "config/schema.h"
#include "core/base/datetime.h"

/* The wall clock may be set, so that no wait for it is longer. */
enum { CLOCK_LOOK_MS = 60 * 1000, EFFECT_TEXT_MAX = 4096 };

static int64_t wall(const struct worker *w)
{
    int64_t now = 0;
    env_wall(w->loop.env, &now);
    return now;
}

/* ---- refused, and let through on trial ------------------------------------------------------- */

void rules_refused(struct worker *w, const struct policy_decision *d, struct str local,
                   struct str remote, enum policy_way way)
{
    refusals_add(&w->refusals, d, local, remote, way, wall(w));
}

void rules_passed(struct worker *w, const struct policy_decision *d, struct str local,
                  struct str remote, enum policy_way way)
{
    char peer[DOMAIN_MAX + 1];
    if (!d->shadow)
        return;
    w->n.shadow_passed++;
    if (!shadow_see(&w->shadow, local, remote, way, wall(w)))
        return;
    str_copy(peer, sizeof peer, remote);
    log_ev(&w->ctx, LOG_NOTICE, "policy.shadow", KV_C("dir", way == WAY_IN ? "in" : "out"),
           KV_S("local", local), KV_S("peer", remote), KV_C("rule", d->rule),
           KV_C("msg", "an allow list would refuse this"));
    story_tell(&w->story, "policy.shadow", peer, "an allow list would refuse %s and %.*s", peer,
               STR_ARG(local));
}

void rules_passed_in(struct worker *w, struct str local, struct str remote)
{
    if (!w->cfg->privacy_shadow)
        return;
    struct policy_decision d = side_pair(&w->world.side, local, remote, WAY_IN);
    rules_passed(w, &d, local, remote, WAY_IN);
}

/* ---- entries that are over ------------------------------------------------------------------- */

#define OVER "policy.expired"

static void raise_over(struct worker *w, const struct cfg_peer *p)
{
    char at[DATETIME_TEXT], text[ALARM_TEXT_MAX];
    snprintf(text, sizeof text, "the entry was valid until %s and counts no longer",
             datetime_text(p->until, at));
    alarm_raise(&w->alarms, OVER, p->pattern, text, loop_now(&w->loop));
}

static void on_over(void *arg, const struct cfg_peer *p)
{
    struct worker *w = arg;
    log_ev(&w->ctx, LOG_WARN, OVER, KV_C("peer", p->pattern), KV_C("comment", p->comment));
    raise_over(w, p);
}

static void arm(struct worker *w)
{
    int64_t due, left;
    if (!gateway_config_due(w->cfg, &due)) {
        loop_timer_clear(&w->loop, &w->rules_timer);
        return;
    }
    left = due - wall(w);
    loop_timer_set(&w->loop, &w->rules_timer,
                   left < 1               ? 1
                   : left < CLOCK_LOOK_MS ? (uint64_t)left
                                          : CLOCK_LOOK_MS);
}

static void on_time(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, rules_timer);
    int64_t due, now = wall(w);
    bool over = gateway_config_due(w->cfg, &due) && due <= now;
    gateway_config_expire(w->cfg, now, on_over, w);
    if (over) {
        accept_policy_changed(&w->world);
        peer_policy_changed(&w->world);
    }
    arm(w);
}

/* An alarm about an entry that is there no more, or has been prolonged, is over itself. */
static void clear_alarms(struct worker *w)
{
    size_t pos;
    LIST_FOREACH (&w->alarms.list, n, following) {
        const struct alarm *al = CONTAINER_OF(n, const struct alarm, node);
        char subject[ALARM_SUBJECT_MAX];
        if (strcmp(al->kind, OVER) != 0)
            continue;
        bool there = schema_find(&gateway_schema, w->cfg, schema_entry(&gateway_schema, "peers"),
                                 str_c(al->subject), &pos);
        str_copy(subject, sizeof subject, str_c(al->subject));
        if (!there || !w->cfg->peers[pos].expired)
            alarm_clear(&w->alarms, OVER, subject, loop_now(&w->loop));
    }
}

static bool stands(const struct worker *w, const char *pattern)
{
    LIST_FOREACH (&w->alarms.list, n, following) {
        const struct alarm *al = CONTAINER_OF(n, const struct alarm, node);
        if (strcmp(al->kind, OVER) == 0 && strcmp(al->subject, pattern) == 0)
            return true;
    }
    return false;
}

void rules_adopt(struct worker *w)
{
    w->rules_timer.fire = on_time;
    clear_alarms(w);
    for (size_t i = 0; i < w->cfg->npeers; i++)
        if (w->cfg->peers[i].expired && !stands(w, w->cfg->peers[i].pattern))
            raise_over(w, &w->cfg->peers[i]);
    arm(w);
}

void rules_close(struct worker *w)
{
    loop_timer_clear(&w->loop, &w->rules_timer);
    refusals_free(&w->refusals);
    shadow_free(&w->shadow);
}

/* ---- what a reload does ---------------------------------------------------------------------- */

struct forecast {
    struct effects effects;
    struct side old, new_;
    size_t n, changes;
    void (*each)(void *arg, const struct config_change *c);
    void *arg;
};

static void add(struct forecast *f, const struct stream_fate *fate, enum policy_way way)
{
    const struct effect_stream s = {fate->fate == S2S_RENEWED, fate->local, fate->remote, way};
    if (fate->fate != S2S_STAYS)
        effects_add(&f->effects, &s, &f->old, &f->new_);
}

static void add_in(struct forecast *f, const struct list *l)
{
    LIST_FOREACH (l, n, following) {
        const struct in_session *in = CONTAINER_OF(n, const struct in_session, node);
        struct stream_fate fate = s2s_in_fate(&in->m, &f->new_);
        if (!in->s.over)
            add(f, &fate, WAY_IN);
    }
}

static void add_out(struct forecast *f, const struct list *l)
{
    LIST_FOREACH (l, n, following) {
        const struct out_session *o = CONTAINER_OF(n, const struct out_session, node);
        struct stream_fate fate = s2s_out_fate(&o->m, &f->new_);
        if (!o->s.over)
            add(f, &fate, WAY_EITHER);
    }
}

static void count(void *arg, const struct config_change *c)
{
    struct forecast *f = arg;
    (void)c;
    f->changes++;
}

/* What happens besides the streams of the world. */
static const char *besides(const struct config_change *c)
{
    if (c->restart)
        return NULL;
    if (strncmp(c->key, "links[", 6) == 0)
        return str_is(c->new_, "(absent)") ? "the link ends" : "the link is made anew";
    if (strncmp(c->key, "dns.", 4) == 0)
        return "look-ups under way are asked again";
    if (strcmp(c->key, "federation") == 0)
        return str_is(c->new_, "true") ? "listening begins" : "listening ends";
    return NULL;
}

static void tell(void *arg, const struct config_change *c)
{
    struct forecast *f = arg;
    struct config_change told = *c;
    struct buf text = BUF_INIT(EFFECT_TEXT_MAX), streams = BUF_INIT(EFFECT_TEXT_MAX);
    const char *also = besides(c);
    effects_put(&f->effects, c->key, &streams);
    if (++f->n == f->changes)
        effects_put_rest(&f->effects, &streams);
    buf_printf(&text, "%s%s%.*s", also != NULL ? also : "",
               also != NULL && streams.len > 0 ? ", " : "", STR_ARG(buf_view(&streams)));
    told.effect = text.len > 0 ? buf_view(&text) : STR_NONE;
    f->each(f->arg, &told);
    buf_free(&text);
    buf_free(&streams);
}

size_t rules_diff(struct worker *w, const struct gateway_config *cfg,
                  void (*each)(void *arg, const struct config_change *c), void *arg)
{
    struct forecast f = {.old = w->world.side, .new_ = w->world.side, .each = each, .arg = arg};
    f.new_.cfg = cfg;
    add_in(&f, &w->world.in_proven);
    add_in(&f, &w->world.in_unproven);
    add_out(&f, &w->world.out);
    gateway_config_diff(w->cfg, cfg, count, &f);
    gateway_config_diff(w->cfg, cfg, tell, &f);
    effects_free(&f.effects);
    return f.changes;
}
