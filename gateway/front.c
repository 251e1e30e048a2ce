/* One side of the gateway for server-to-server streams: what its streams in and out share. */
#include "gateway/worker.h"

enum { ASKS_PER_PEER = 256 };

void front_set_limits(struct front *f)
{
    const struct gateway_config *c = f->w->cfg;
    f->outq.max_bytes = c->limits.queue_bytes;
    f->outq.max_count = c->limits.queue_stanzas;
    f->outq.total = c->limits.queue_total;
    f->remote_settings = (struct remote_settings){.queue_ms = c->timeouts.queue,
                                                  .setup_ms = 2 * c->timeouts.auth,
                                                  .asks_max = ASKS_PER_PEER,
                                                  .pairs_max = c->limits.pairs_per_stream};
}

static void look(struct front *f, struct link *link, struct tls_ctx *tls)
{
    f->link = link;
    f->side = (struct side){f->w->cfg, link != NULL ? link->kit->c : NULL};
    tls_ctx_unref(f->tls);
    f->tls = tls;
    front_set_limits(f);
}

void front_init(struct front *f, struct worker *w, struct link *link, struct tls_ctx *tls)
{
    f->w = w;
    look(f, link, tls);
}

void front_adopt(struct front *f, struct link *link, struct tls_ctx *tls)
{
    look(f, link, tls);
    accept_policy_changed(f);
    peer_policy_changed(f);
}

bool front_quiet(const struct front *f)
{
    return f->in_unproven.count + f->in_proven.count == 0 && f->out.count == 0;
}

struct books *front_books(struct front *f)
{
    return f->link != NULL ? &f->w->n.inward : &f->w->n.outward;
}

void front_failed(struct front *f, struct span stanza, const char *condition, struct str text)
{
    if (f->link != NULL)
        switch_failed_inward(f->w, stanza, CONTENT_SERVER, condition, text);
    else
        switch_failed_outward(f->w, stanza, condition, text);
}

void front_drain(struct front *f, bool now)
{
    f->draining = true;
    accept_close(f);
    peer_drain(f, now);
    accept_drain(f, now);
}

void front_close(struct front *f)
{
    accept_close(f);
    peer_free_all(f);
    tls_ctx_unref(f->tls);
    f->tls = NULL;
}

void front_alarm(struct front *f, const char *kind, struct str text)
{
    char why[ALARM_TEXT_MAX];
    if (f->link == NULL || f->draining)
        return;
    str_copy(why, sizeof why, text);
    alarm_raise(&f->w->alarms, kind, f->link->kit->c->name, why, loop_now(&f->w->loop));
}

void front_works(struct front *f)
{
    if (f->link != NULL)
        alarm_clear_all(&f->w->alarms, "link.", f->link->kit->c->name, loop_now(&f->w->loop));
}
