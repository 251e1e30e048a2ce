/* Alarms about the world as a whole, and about one peer of it, that no single stream shows. */
#include "gateway/worker.h"

#include <stdio.h>

static const char DNS[] = "dns.unusable", PEER[] = "peer.failing", QUEUE[] = "queue.near-full";

void watch_dns(struct worker *w, struct str name, enum dns_status status, const char *why)
{
    uint64_t now = loop_now(&w->loop);
    if (dns_trouble(&w->dns_trouble, name, status == DNS_OK || status == DNS_NONE)) {
        alarm_raise(&w->alarms, DNS, "resolver", why, now);
        w->dns_alarm = true;
    } else if (w->dns_alarm && w->dns_trouble.lookups == 0) {
        alarm_clear(&w->alarms, DNS, "resolver", now);
        w->dns_alarm = false;
    }
}

static void peer_fine(struct peer *p)
{
    if (p->failing)
        alarm_clear(&p->w->alarms, PEER, p->key, loop_now(&p->w->loop));
    p->failing = false;
    p->failing_since = 0;
}

/* A link has alarms of its own. */
void watch_peer(struct peer *p)
{
    struct remote_status st;
    uint64_t now = loop_now(&p->w->loop), after = p->w->cfg->timeouts.peer_failing;
    remote_status(p->remote, &st);
    if (p->front->link != NULL)
        return;
    if (st.failures == 0) {
        peer_fine(p);
        return;
    }
    if (p->failing_since == 0)
        p->failing_since = now;
    if (p->failing || after == 0 || now - p->failing_since < after)
        return;
    char why[ALARM_TEXT_MAX];
    snprintf(why, sizeof why, "for %llu s: %.*s",
             (unsigned long long)(now - p->failing_since) / 1000, STR_ARG(st.why));
    alarm_raise(&p->w->alarms, PEER, p->key, why, now);
    p->failing = true;
}

void watch_peer_gone(struct peer *p)
{
    peer_fine(p);
}

static void watch_level(struct worker *w, const char *what, bool *full, size_t used, size_t most)
{
    bool now_full = near_full(*full, used, most);
    char why[ALARM_TEXT_MAX];
    if (now_full == *full)
        return;
    *full = now_full;
    snprintf(why, sizeof why, "%zu of %zu bytes wait", used, most);
    if (now_full)
        alarm_raise(&w->alarms, QUEUE, what, why, loop_now(&w->loop));
    else
        alarm_clear(&w->alarms, QUEUE, what, loop_now(&w->loop));
}

void watch_queues(struct worker *w)
{
    watch_level(w, "outward", &w->outward_full, w->world.outq.bytes, w->cfg->limits.queue_total);
    watch_level(w, "inward", &w->inward_full, w->hold.bytes, w->cfg->limits.hold_bytes);
}
