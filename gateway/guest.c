/* An outgoing stream and the remote domains that use it: the one it was dialled for, and guests,
 * which are hosted at the same address and port (XEP-0220 2.1, target piggybacking).
 *
 * A guest joins instead of dialling, when its own walk over its targets has come to that endpoint.
 * If the peer does not have it there, or turns it away, it gets a stream of its own, and shares
 * none for a while; so it does when a stream ended before anything of it was proven, and then the
 * domain that had it as a guest, too: some servers end the stream at such a request. */
#include "gateway/worker.h"

enum { OWN_MS = 10 * 60 * 1000 };

static bool apart(const struct peer *p)
{
    return p->own_until > loop_now(&p->w->loop);
}

static bool leads_to(const struct out_session *o, const struct endpoint *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (e[i].port == o->at.port && ip_equal(&e[i].ip, &o->at.ip))
            return true;
    return false;
}

struct out_session *guest_host(const struct peer *p, const struct endpoint *e, size_t n)
{
    bool alone = p->alone || strcmp(p->key, p->domain) != 0;
    if (alone || p->dane != NULL || p->front->draining || apart(p))
        return NULL;
    LIST_FOREACH (&p->front->out, node, next) {
        struct out_session *o = CONTAINER_OF(node, struct out_session, node);
        if (o->peer != NULL && !apart(o->peer) && !o->s.over &&
            o->guests.count < S2S_OUT_GUESTS_MAX && leads_to(o, e, n) &&
            s2s_out_hosts(&o->m, str_c(p->domain)))
            return o;
    }
    return NULL;
}

void guest_join(struct peer *p, struct out_session *o)
{
    p->out = o;
    p->guest_proven = false;
    list_append(&o->guests, &p->guest);
    p->w->n.streams_shared++;
    log_ev(&o->s.log, LOG_INFO, "s2s.shared", KV_C("remote", p->domain));
    remote_connected(p->remote);
    remote_stream_ready(p->remote);
    peer_kick(p);
}

struct peer *guest_user(const struct out_session *o, struct str remote)
{
    if (o->peer != NULL && str_is(remote, o->peer->domain))
        return o->peer;
    LIST_FOREACH (&o->guests, node, next) {
        struct peer *p = CONTAINER_OF(node, struct peer, guest);
        if (str_is(remote, p->domain))
            return p;
    }
    return NULL;
}

void guest_leave(struct peer *p)
{
    struct out_session *o = p->out;
    if (o->peer == p)
        o->peer = NULL;
    else
        list_remove(&p->guest);
    peer_carried(p, o->sent_ms);
    p->out = NULL;
}

static void keep_apart(struct peer *p)
{
    p->own_until = loop_now(&p->w->loop) + OWN_MS;
}

bool guest_turned_away(struct peer *p, const struct gw_action *a)
{
    bool pair = a->kind == ACT_PAIR;
    if (p->out->peer == p || p->guest_proven)
        return false;
    if (pair && a->u.pair.result == PAIR_INVALID)
        keep_apart(p);
    p->guest_proven = pair && a->u.pair.result == PAIR_VALID;
    if (pair ? a->u.pair.result != PAIR_ERROR : a->u.answered.verdict != VERDICT_NOT_FOUND)
        return false;
    struct str why = pair ? a->u.pair.text : a->u.answered.text;
    log_ev(&p->out->s.log, LOG_NOTICE, "s2s.shared.refused", KV_C("remote", p->domain),
           KV_S("reason", why));
    keep_apart(p);
    guest_leave(p);
    remote_stream_reset(p->remote, why, loop_now(&p->w->loop));
    return true;
}

void guest_part(struct out_session *o, const char *why, bool again)
{
    uint64_t now = loop_now(&o->w->loop);
    struct peer *host = o->peer;
    LIST_FOREACH (&o->guests, node, next) {
        struct peer *p = CONTAINER_OF(node, struct peer, guest);
        if (!p->guest_proven) {
            keep_apart(p);
            if (host != NULL)
                keep_apart(host);
        }
        guest_leave(p);
        remote_stream_reset(p->remote, str_c(why), now);
        peer_kick(p);
    }
    if (host == NULL)
        return;
    guest_leave(host);
    if (again)
        remote_stream_reset(host->remote, str_c(why), now);
    else
        remote_stream_ended(host->remote, str_c(why), now);
    peer_kick(host);
}

void guest_kick_all(const struct out_session *o)
{
    if (o->peer != NULL)
        peer_kick(o->peer);
    LIST_FOREACH (&o->guests, node, next)
        peer_kick(CONTAINER_OF(node, struct peer, guest));
}

void guest_sent(const struct out_session *o)
{
    if (o->peer != NULL)
        remote_sent(o->peer->remote);
    LIST_FOREACH (&o->guests, node, next) {
        struct peer *p = CONTAINER_OF(node, struct peer, guest);
        if (p->guest_proven)
            remote_sent(p->remote);
    }
}
