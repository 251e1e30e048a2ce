/* Watching: the linker leads some calls of the drivers through here (--wrap), so that stanzas are
 * followed and the invariants of STYLE 6.3 are looked at where they could break. */
#include <stdlib.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/net/conn_priv.h"
#include "core/stream/bounce.h"
#include "gateway/policy/policy.h"
#include "tests/twin/twin.h"

enum { SETUP_SLACK_MS = 2000 };

static struct twin *twin;

/* ---- allocations ----------------------------------------------------------------------------- */

static int turning = -1, failing_site = -1;
static unsigned long fail_in, fail_more;
static bool failed_one;

void watch_fail_allocations(int site, unsigned long n, unsigned long more)
{
    failing_site = n > 0 ? site : -1;
    fail_in = n;
    fail_more = more;
    failed_one = false;
}

bool watch_failed_one(void)
{
    return failed_one;
}

void watch_turn(int site)
{
    turning = site;
}

static bool must_fail(void)
{
    if (failing_site < 0 || turning != failing_site)
        return false;
    if (fail_in > 1) {
        fail_in--;
        return false;
    }
    if (fail_in == 1) {
        fail_in = 0;
        failed_one = true;
        return true;
    }
    if (fail_more == 0)
        return false;
    fail_more--;
    return true;
}

void *__real_mem_alloc(size_t n);
void *__real_mem_zalloc(size_t n);
void *__real_mem_realloc(void *p, size_t n);
char *__real_mem_strdup(const char *s);
char *__real_mem_strndup(struct str s);
void *__wrap_mem_alloc(size_t n);
void *__wrap_mem_zalloc(size_t n);
void *__wrap_mem_realloc(void *p, size_t n);
char *__wrap_mem_strdup(const char *s);
char *__wrap_mem_strndup(struct str s);

void *__wrap_mem_alloc(size_t n)
{
    return must_fail() ? NULL : __real_mem_alloc(n);
}

void *__wrap_mem_zalloc(size_t n)
{
    return must_fail() ? NULL : __real_mem_zalloc(n);
}

void *__wrap_mem_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : __real_mem_realloc(p, n);
}

char *__wrap_mem_strdup(const char *s)
{
    return must_fail() ? NULL : __real_mem_strdup(s);
}

char *__wrap_mem_strndup(struct str s)
{
    return must_fail() ? NULL : __real_mem_strndup(s);
}

/* ---- the clock ------------------------------------------------------------------------------- */

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    if (twin == NULL)
        return __real_clock_gettime(id, t);
    t->tv_sec = (time_t)(twin->net.now / 1000);
    t->tv_nsec = (long)(twin->net.now % 1000) * 1000000;
    return 0;
}

/* ---- following stanzas ----------------------------------------------------------------------- */

bool __real_conn_send_stanza(struct conn *c, struct span stanza);
bool __real_conn_unsent(struct conn *c, struct span *out, bool *partial);
void __real_conn_close(struct conn *c, bool abort, uint64_t linger_ms);
void __real_switch_inward(struct worker *w, const struct stanza *st, struct str local,
                          struct str remote);
void __real_switch_outward(struct link *k, struct line *l, const struct stanza *st);
struct span __real_bounce_stanza(const struct stanza *st, enum content_ns target, const char *type,
                                 const char *condition, const char *text);
void __real_loop_close(struct loop *l);
bool __wrap_conn_send_stanza(struct conn *c, struct span stanza);
bool __wrap_conn_unsent(struct conn *c, struct span *out, bool *partial);
void __wrap_conn_close(struct conn *c, bool abort, uint64_t linger_ms);
void __wrap_switch_inward(struct worker *w, const struct stanza *st, struct str local,
                          struct str remote);
void __wrap_switch_outward(struct link *k, struct line *l, const struct stanza *st);
struct span __wrap_bounce_stanza(const struct stanza *st, enum content_ns target, const char *type,
                                 const char *condition, const char *text);
void __wrap_loop_close(struct loop *l);

/* I3 on an incoming stream: behind TLS, and for pairs that are proven there. */
static void check_carrier(const struct site *s, const struct conn *c, struct str stanza)
{
    LIST_FOREACH (&s->w.world.in_proven, n, next) {
        const struct in_session *in = CONTAINER_OF(n, struct in_session, node);
        if (in->s.conn != c)
            continue;
        twin->back++;
        if (!in->m.bidi || !conn_encrypted(c) || in->m.state != S2S_IN_SECURE ||
            authz_first(&in->m.authz, AUTHZ_VALID) == NULL)
            ledger_fail(&twin->ledger, "a stanza goes back where it must not: %.*s",
                        STR_ARG(stanza));
    }
}

static bool names(struct str stanza, const char *domain)
{
    size_t n = strlen(domain);
    for (size_t i = 0; i + n <= stanza.n; i++)
        if (memcmp(stanza.p + i, domain, n) == 0)
            return true;
    return false;
}

/* Is it of a pair that is proven on the stream? */
static bool is_proven(const struct authz *a, struct str stanza)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].state == AUTHZ_VALID && names(stanza, a->v[i].local) &&
            names(stanza, a->v[i].remote))
            return true;
    return false;
}

/* I3: nothing goes out in clear where TLS must be, nor for a pair that is not proven. */
static void check_hand_over(const struct site *s, const struct conn *c, struct str stanza)
{
    LIST_FOREACH (&s->w.world.out, n, next) {
        const struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        if (o->s.conn != c)
            continue;
        if (!conn_encrypted(c) &&
            policy_security(s->w.cfg, str_c(o->m.remote)) == SECURITY_TLS_REQUIRED)
            ledger_fail(&twin->ledger, "a stanza goes out in clear although TLS is required");
        if (!is_proven(&o->m.authz, stanza))
            ledger_fail(&twin->ledger,
                        "a stanza goes out on a stream that has not proven its pair: %.*s",
                        STR_ARG(stanza));
    }
}

/* Who uses a stream knows it, and each name is there once. */
static void check_guests(struct twin *t, const struct worker *w)
{
    LIST_FOREACH (&w->world.out, n, next) {
        const struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        bool fine = o->peer != NULL ? o->peer->out == o : o->guests.count == 0;
        LIST_FOREACH (&o->guests, g, next2) {
            struct peer *p = CONTAINER_OF(g, struct peer, guest);
            fine = fine && p->out == o && guest_user(o, str_c(p->domain)) == p && !o->m.bidi &&
                   !o->s.over;
        }
        if (!fine)
            ledger_fail(&t->ledger, "the users of a stream do not agree with it");
    }
}

bool __wrap_conn_send_stanza(struct conn *c, struct span stanza)
{
    for (int i = 0; i < 2; i++)
        if (twin->site[i].running) {
            check_hand_over(&twin->site[i], c, stanza.s);
            check_carrier(&twin->site[i], c, stanza.s);
        }
    bool error = false;
    size_t number = ledger_number(&twin->ledger, stanza.s, &error);
    int side = 0;
    struct wire *w = net_wire_of(c->tcp, &side);
    if (!__real_conn_send_stanza(c, stanza))
        return false;
    if (number != 0)
        ledger_on_wire(&twin->ledger, number, error, w, side);
    return true;
}

bool __wrap_conn_unsent(struct conn *c, struct span *out, bool *partial)
{
    bool error = false;
    if (!__real_conn_unsent(c, out, partial))
        return false;
    size_t number = ledger_number(&twin->ledger, out->s, &error);
    if (number != 0)
        ledger_taken_back(&twin->ledger, number, error);
    return true;
}

/* What the conn has read and not yet handed out will never be looked at. */
void __wrap_conn_close(struct conn *c, bool abort, uint64_t linger_ms)
{
    if (!c->closing) {
        int side = 0;
        struct wire *w = net_wire_of(c->tcp, &side);
        if (!framer_quiet(c->framer) || (c->tls != NULL && tls_engine_readable(c->tls)))
            w->pipe[1 - side].excuse |= EXCUSE_UNPARSED;
    }
    __real_conn_close(c, abort, linger_ms);
}

/* The stream that a stanza comes from just now. */
struct source_of_stanza {
    const struct authz *authz;
    bool may; /* in clear only where that is allowed; out only with bidi */
};

static struct source_of_stanza delivering(const struct worker *w, struct str remote)
{
    const struct list *all[] = {&w->world.in_proven, &w->world.in_unproven};
    bool tls = policy_security(w->cfg, remote) == SECURITY_TLS_REQUIRED;
    for (int i = 0; i < 2; i++)
        LIST_FOREACH (all[i], n, next) {
            const struct in_session *in = CONTAINER_OF(n, struct in_session, node);
            if (in->s.busy)
                return (struct source_of_stanza){&in->m.authz, !tls || in->m.encrypted ||
                                                                   in->m.state == S2S_IN_CLOSING};
        }
    LIST_FOREACH (&w->world.out, n2, next2) {
        const struct out_session *o = CONTAINER_OF(n2, struct out_session, node);
        if (o->s.busy)
            return (struct source_of_stanza){&o->m.authz, o->m.encrypted && o->m.bidi};
    }
    return (struct source_of_stanza){NULL, false};
}

/* I1, I2: only for a pair that is valid on this very stream, and not in clear where TLS must be. */
void __wrap_switch_inward(struct worker *w, const struct stanza *st, struct str local,
                          struct str remote)
{
    struct ledger *l = &twin->ledger;
    const struct source_of_stanza from = delivering(w, remote);
    const struct authz_pair *p = from.authz ? authz_find(from.authz, local, remote) : NULL;
    bool error = false;
    size_t number = ledger_number(l, st->span.s, &error);
    if (p == NULL || p->state != AUTHZ_VALID)
        ledger_fail(l, "delivered for a pair that is not proven: %.*s %.*s", STR_ARG(remote),
                    STR_ARG(local));
    else if (!from.may)
        ledger_fail(l, "taken in clear although TLS is required, or on a stream of one way");
    if (number == 0)
        ledger_fail(l, "a stanza of nobody's passed: %.*s", (int)st->span.s.n, st->span.s.p);
    else
        ledger_in_gateway(l, number, error);
    __real_switch_inward(w, st, local, remote);
}

void __wrap_switch_outward(struct link *k, struct line *l, const struct stanza *st)
{
    bool error = false;
    size_t number = ledger_number(&twin->ledger, st->span.s, &error);
    if (number != 0)
        ledger_in_gateway(&twin->ledger, number, error);
    __real_switch_outward(k, l, st);
}

struct span __wrap_bounce_stanza(const struct stanza *st, enum content_ns target, const char *type,
                                 const char *condition, const char *text)
{
    struct span b = __real_bounce_stanza(st, target, type, condition, text);
    bool error = false;
    size_t number = ledger_number(&twin->ledger, st->span.s, &error);
    if (number != 0 && b.chunk != NULL)
        ledger_bounced(&twin->ledger, number, error);
    return b;
}

/* I7: nobody has left a timer behind. */
void __wrap_loop_close(struct loop *l)
{
    if (twin != NULL && l->uv != NULL && l->timers.n > 0)
        ledger_fail(&twin->ledger, "%zu timers are left when a loop ends", l->timers.n);
    __real_loop_close(l);
    if (twin != NULL && l->handles > 0)
        ledger_fail(&twin->ledger, "%zu handles are left when a loop ends", l->handles);
}

/* ---- after each turn ------------------------------------------------------------------------- */

static void check_books(struct twin *t, const struct site *s, const char *dir, struct books b,
                        size_t waiting)
{
    uint64_t in = b.received + b.authored;
    uint64_t out = b.delivered + b.bounced + b.dropped + waiting + b.writing;
    if (in != out)
        ledger_fail(&t->ledger,
                    "%s's books %s do not balance: received %llu + authored %llu, delivered %llu + "
                    "bounced %llu + dropped %llu + waiting %zu + writing %llu",
                    s == t->site ? "alpha" : "beta", dir, (unsigned long long)b.received,
                    (unsigned long long)b.authored, (unsigned long long)b.delivered,
                    (unsigned long long)b.bounced, (unsigned long long)b.dropped, waiting,
                    (unsigned long long)b.writing);
}

static size_t stanzas_in(const struct conn *c)
{
    size_t n = c->done_stanzas;
    const struct list *all[] = {&c->queue, &c->flight};
    for (int i = 0; i < 2; i++)
        LIST_FOREACH (all[i], node, next)
            n += CONTAINER_OF(node, struct conn_item, node)->stanza;
    return n;
}

/* `writing` is what the connections hold. */
static void check_streams_out(struct twin *t, const struct worker *w)
{
    size_t writing = 0;
    LIST_FOREACH (&w->world.out, n, next) {
        const struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        if (o->s.over || o->s.conn == NULL)
            continue;
        size_t here = stanzas_in(o->s.conn);
        writing += here;
    }
    LIST_FOREACH (&w->world.in_proven, n2, next2) {
        const struct in_session *in = CONTAINER_OF(n2, struct in_session, node);
        if (!in->s.over && in->s.conn != NULL)
            writing += stanzas_in(in->s.conn);
    }
    if (writing != w->n.outward.writing)
        ledger_fail(&t->ledger, "writing says %llu, the streams hold %zu",
                    (unsigned long long)w->n.outward.writing, writing);
}

/* I4: who has proven nothing is not here for longer than timeouts.auth. */
static void check_strangers(struct twin *t, const struct worker *w)
{
    LIST_FOREACH (&w->world.in_unproven, n, next) {
        const struct in_session *in = CONTAINER_OF(n, struct in_session, node);
        uint64_t end = in->m.opened_ms + w->cfg->timeouts.auth + w->cfg->timeouts.close;
        if (!in->s.over && t->net.now > end + SETUP_SLACK_MS)
            ledger_fail(&t->ledger, "a stranger is here for %llu ms",
                        (unsigned long long)(t->net.now - in->m.opened_ms));
    }
}

/* I5; what was already on a stream comes back beyond the limit. */
static void check_queues(struct twin *t, const struct site *s)
{
    const struct worker *w = &s->w;
    size_t held = w->hold.bytes;
    enum { ON_STREAMS = 4 * 1024 * 1024 };
    if (w->world.outq.bytes > w->world.outq.total + ON_STREAMS)
        ledger_fail(&t->ledger, "%zu bytes are queued", w->world.outq.bytes);
    if (held > w->cfg->limits.hold_bytes && held > s->held)
        ledger_fail(&t->ledger, "%zu bytes are held for the inside", held);
}

void watch_site(struct twin *t, struct site *s)
{
    const struct worker *w = &s->w;
    if (w->loop.tasks.count > 0)
        return; /* in the middle of something: the loop had its share of this turn */
    check_books(t, s, "outward", w->n.outward, w->world.outq.count);
    check_books(t, s, "inward", w->n.inward, w->hold.items.count);
    check_streams_out(t, w);
    check_guests(t, w);
    check_strangers(t, w);
    check_queues(t, s);
}

void watch_use(struct twin *t)
{
    twin = t;
    turning = failing_site = -1;
}
