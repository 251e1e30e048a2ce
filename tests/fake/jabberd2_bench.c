#include "tests/fake/jabberd2_bench.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "core/stream/stream.h"
#include "core/xml/writer.h"

static machine_edges taken[LINK_STATE_COUNT];

/* ---- whom to believe ------------------------------------------------------------------------- */

static const struct link_trust trust = {.auth = LINK_AUTH_TLS_PASSWORD,
                                        .peer_name = {"router.lab", 10}};
static const struct tls_name named = {TLS_NAME_DNS, "router.lab"};
static const struct tls_peer good = {.protocol = "TLSv1.3",
                                     .has_certificate = true,
                                     .in_time = true,
                                     .chain_ok = true,
                                     .names = &named,
                                     .nnames = 1};
static const struct tls_peer bad = {.protocol = "TLSv1.3",
                                    .has_certificate = true,
                                    .in_time = true,
                                    .self_signed = true,
                                    .why = "self-signed"};

/* ---- the world ------------------------------------------------------------------------------- */

static uint64_t now_ms(void *ctx)
{
    return ((struct jb *)ctx)->now;
}

static bool random_bytes(void *ctx, unsigned char *out, size_t n)
{
    memset(out, 0xAB, n);
    return !((struct jb *)ctx)->no_random;
}

/* ---- writing down ---------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) put(struct jb *b, const char *fmt, ...)
{
    size_t room = sizeof b->text - b->n;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(b->text + b->n, room, fmt, ap);
    va_end(ap);
    b->n += n < 0 || (size_t)n >= room ? room - 1 : (size_t)n;
}

void jb_forget(struct jb *b)
{
    b->n = 0;
    b->text[0] = '\0';
}

static void put_log(struct jb *b, const struct gw_action *a)
{
    put(b, "LOG %s", a->u.log.event);
    for (unsigned i = 0; i < a->u.log.n; i++) {
        const struct kv *kv = &a->u.log.kv[i];
        if (kv->type != KV_STR)
            put(b, " %s=%lld", kv->key, (long long)kv->i);
        else if (kv->s.p != NULL)
            put(b, " %s=%.*s", kv->key, STR_ARG(kv->s));
    }
    put(b, "\n");
}

static void must(struct jb *b, bool holds, const char *what)
{
    if (!holds && b->wrong == NULL)
        b->wrong = what;
}

/* ---- what must hold -------------------------------------------------------------------------- */

static bool armed(const struct jb *b, enum gw_timer t)
{
    return b->due[t] != 0;
}

static void check(struct jb *b, enum link_state before)
{
    enum link_state s = b->m.end.state;
    if (s != before)
        taken[before] |= (machine_edges)(1u << s);
    must(b, s == before || machine_edge_ok(jabberd2_edges, before, s), "an edge of the table");
    must(b, (s == LINK_RESTING) == b->over || b->overflowed, "RESTING and CLOSE go together");
    if (b->over)
        return;
    must(b, armed(b, TIMER_SETUP) == (s == LINK_TLS || s == LINK_HEADER || s == LINK_HANDSHAKE),
         "set-up has a deadline");
    must(b, armed(b, TIMER_KEEPALIVE) == (s == LINK_UP), "an idle link is looked after");
    must(b, armed(b, TIMER_STATE) == (s == LINK_CLOSING), "CLOSING has a deadline");
    must(b, !armed(b, TIMER_ASKED), "TIMER_ASKED is not for links");
    must(b, b->handshaking == (s == LINK_TLS), "TLS has its state");
    must(b, b->m.end.was_up || (!b->m.active && !b->m.asked_default), "a default only behind UP");
    must(b, !b->m.end.was_up || (b->m.authenticated && b->m.proven), "UP only with both proofs");
    must(b, (b->m.names == NULL) == (b->m.nnames == 0) && b->m.nnames <= JABBERD2_NAMES_MAX,
         "names are counted");
}

/* A stanza that is handed on can be written to the world, and into another route. */
static void check_stanza(struct jb *b, const struct stanza *st)
{
    static const struct writer_target world = {.content = CONTENT_SERVER},
                                      inside = {.content = CONTENT_COMPONENT};
    must(b, b->m.end.was_up && st->route != NULL && st->route->fault == NULL,
         "what is handed on came in a route");
    struct span s = writer_restamp(st, &world), c = writer_restamp(st, &inside);
    struct span route = c.chunk ? jabberd2_route(&b->m, c.s, STR("a.lab")) : c;
    struct span back = route.chunk ? jabberd2_unwrap(route.s) : route;
    must(b, b->starved || (s.chunk != NULL && back.chunk != NULL), "it can be written again");
    span_release(&s);
    if (c.chunk == NULL)
        return;
    span_release(&c);
    if (route.chunk == NULL)
        return;
    span_release(&route);
    if (back.chunk != NULL)
        span_release(&back);
}

/* ---- actions --------------------------------------------------------------------------------- */

static bool ends_with(struct str s, const char *tail)
{
    size_t n = strlen(tail);
    return s.n >= n && memcmp(s.p + s.n - n, tail, n) == 0;
}

static void sent(struct jb *b, struct str text)
{
    must(b, !b->handshaking, "nothing is said in clear while TLS is being set up");
    must(b, !b->tag_sent, "nothing is said after our closing tag");
    b->tag_sent = ends_with(text, STREAM_CLOSE_TAG);
    put(b, "SEND %.*s\n", STR_ARG(text));
}

static void put_bounce(struct jb *b, const struct gw_action *a, const struct gw_actions *all,
                       const struct stanza *st)
{
    put(b, "%s %s %s id=%.*s", gw_action_name(a->kind), a->u.bounce.type, a->u.bounce.condition,
        STR_ARG(st->id));
    if (a->kind == ACT_UNDELIVERED)
        put(b, " local=%s remote=%s", all->local.ascii, all->remote.ascii);
    put(b, "\n");
    check_stanza(b, st);
}

static void carry_out(struct jb *b, const struct gw_event *ev, const struct gw_actions *all,
                      const struct gw_action *a)
{
    must(b, !b->over, "after CLOSE nothing");
    switch (a->kind) {
    case ACT_SEND:
        sent(b, gw_text(all, a));
        break;
    case ACT_STREAM_RESET:
        framer_restart(b->f);
        put(b, "RESET\n");
        break;
    case ACT_TLS_START:
        b->handshaking = true;
        b->deaf = !framer_restart(b->f);
        put(b, "TLS_START\n");
        break;
    case ACT_TIMER_SET:
        must(b, a->u.timer.ms > 0, "a timer takes its time");
        b->due[a->u.timer.id] = b->now + a->u.timer.ms;
        break;
    case ACT_TIMER_CLEAR:
        b->due[a->u.timer.id] = 0;
        break;
    case ACT_DELIVER:
        put(b, "DELIVER %.*s %.*s id=%.*s\n", STR_ARG(a->u.pair.local), STR_ARG(a->u.pair.remote),
            STR_ARG(ev->u.stanza->id));
        check_stanza(b, ev->u.stanza);
        break;
    case ACT_BOUNCE:
    case ACT_UNDELIVERED:
        put_bounce(b, a, all, ev->u.stanza);
        break;
    case ACT_LOG:
        put_log(b, a);
        break;
    case ACT_CLOSE:
        b->over = true;
        put(b, "CLOSE %s%s%s%.*s\n", end_reason_name(a->u.close.reason),
            a->u.close.abort ? " abort" : "", a->u.close.text.n ? " " : "",
            STR_ARG(a->u.close.text));
        break;
    case ACT_LIMITS:
        framer_set_limits(b->f, &framer_limits_default);
        /* fall through */
    case ACT_DROP:
    case ACT_READY:
        put(b, "%s\n", gw_action_name(a->kind));
        break;
    case ACT_ASK:
    case ACT_ANSWERED:
    case ACT_VOUCHED:
    case ACT_PAIR:
    case ACT_REFUSED:
        must(b, false, "an action of other machines");
        break;
    }
}

static void event(struct jb *b, struct gw_event ev)
{
    struct gw_actions acts;
    enum link_state before = b->m.end.state;
    bool was_over = b->over;
    if (b->overflowed)
        return;
    gw_actions_init(&acts);
    ev.now_ms = b->now;
    jabberd2_step(&b->m, &ev, &acts);
    must(b, !was_over || acts.n == 0, "after CLOSE nothing");
    must(b, !acts.overflow || b->starved, "there is room for all actions");
    for (unsigned i = 0; i < acts.n; i++)
        carry_out(b, &ev, &acts, &acts.v[i]);
    if (acts.overflow)
        b->over = b->overflowed = true;
    check(b, before);
    gw_actions_free(&acts);
}

/* ---- what comes from outside ----------------------------------------------------------------- */

static void refusal(struct jb *b, struct framer_error e)
{
    b->deaf = true;
    event(b, (struct gw_event){.kind = EV_XML_ERROR, .u.error = e});
}

static void read_events(struct jb *b)
{
    struct framer_event fe;
    enum framer_result r = FRAMER_NEED_MORE;
    while (!b->over && !b->deaf && !b->handshaking &&
           (r = framer_next(b->f, &fe)) == FRAMER_EVENT) {
        struct gw_event ev = {.kind = EV_STREAM_CLOSE};
        if (fe.kind == FRAMER_STREAM_OPEN)
            ev = (struct gw_event){.kind = EV_STREAM_OPEN, .u.header = fe.header};
        else if (fe.kind == FRAMER_NONZA)
            ev = (struct gw_event){.kind = EV_NONZA, .u.nonza = fe.nonza};
        else if (fe.kind == FRAMER_STANZA)
            ev = (struct gw_event){.kind = EV_STANZA, .u.stanza = &fe.stanza};
        event(b, ev);
    }
    if (r == FRAMER_ERROR && !b->over)
        refusal(b, framer_error(b->f));
}

static void bytes(struct jb *b, struct str xml, size_t piece)
{
    while (xml.n > 0 && !b->over && !b->deaf && !b->handshaking) {
        size_t n = piece && piece < xml.n ? piece : xml.n;
        if (!framer_feed(b->f, (struct str){xml.p, n}))
            refusal(b, (struct framer_error){"resource-constraint", "out of memory"});
        else
            read_events(b);
        xml = (struct str){xml.p + n, xml.n - n};
    }
    if (b->over || !b->handshaking)
        return;
    if (b->deaf)
        refusal(b, (struct framer_error){"policy-violation", "bytes in clear"});
    else if (xml.n > 0)
        event(b, (struct gw_event){.kind = EV_TLS_FAILED, .u.text = STR("no TLS record")});
}

static void tls_up(struct jb *b, const struct tls_peer *peer)
{
    b->handshaking = false;
    event(b, (struct gw_event){.kind = EV_TLS_UP, .u.tls = peer});
}

static void next_timer(struct jb *b)
{
    enum gw_timer t = GW_TIMER_COUNT;
    for (int i = 0; i < GW_TIMER_COUNT; i++)
        if (b->due[i] && (t == GW_TIMER_COUNT || b->due[i] < b->due[t]))
            t = (enum gw_timer)i;
    if (t == GW_TIMER_COUNT)
        return;
    b->now = b->due[t];
    b->due[t] = 0;
    event(b, (struct gw_event){.kind = EV_TIMER, .u.timer = t});
}

static void others(struct jb *b)
{
    static const enum gw_ev kinds[] = {EV_VERDICT, EV_WANT_PAIR, EV_WANT_VERIFY, EV_POLICY_CHANGED};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        event(b, (struct gw_event){.kind = kinds[i]});
}

static void all_timers(struct jb *b)
{
    for (int i = 0; i <= GW_TIMER_COUNT; i++) {
        if (i < GW_TIMER_COUNT)
            b->due[i] = 0;
        event(b, (struct gw_event){.kind = EV_TIMER, .u.timer = (enum gw_timer)i});
    }
}

static void bare(struct jb *b)
{
    struct stanza st = {.from = STR("a@a.lab"), .to = STR("b@b.lab")};
    event(b, (struct gw_event){.kind = EV_STANZA, .u.stanza = &st});
}

static void text_event(struct jb *b, enum gw_ev kind, const char *text)
{
    event(b, (struct gw_event){.kind = kind, .u.text = str_c(text)});
}

static void control(struct jb *b, char c)
{
    switch (c) {
    case '\x01':
        tls_up(b, &good);
        break;
    case '\x02':
        tls_up(b, &bad);
        break;
    case '\x03':
        text_event(b, EV_TLS_FAILED, "no cipher");
        break;
    case '\x04':
        text_event(b, EV_DRAIN, "stop");
        break;
    case '\x05':
        text_event(b, EV_DRAIN, LINK_CONFLICT);
        break;
    case '\x06':
        text_event(b, EV_LOST, "gone");
        break;
    case '\x07':
        next_timer(b);
        break;
    case '\x0b':
    case '\x0c':
        jabberd2_pause(&b->m, c == '\x0b', b->now);
        break;
    case '\x0e':
        others(b);
        break;
    case '\x0f':
        all_timers(b);
        break;
    case '\x10':
        b->now += JB_KEEPALIVE / 2;
        jabberd2_sent(&b->m, b->now);
        break;
    case '\x11':
        bare(b);
        break;
    case '\x12':
        text_event(b, EV_OPENED, NULL);
        break;
    default:
        break;
    }
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r';
}

void jb_play(struct jb *b, struct str script, size_t piece)
{
    while (script.n > 0) {
        size_t n = 0;
        while (n < script.n && !is_control(script.p[n]))
            n++;
        bytes(b, (struct str){script.p, n}, piece);
        if (n < script.n)
            control(b, script.p[n++]);
        script = (struct str){script.p + n, script.n - n};
    }
}

/* ---- begin and end --------------------------------------------------------------------------- */

bool jb_open(struct jb *b, unsigned how)
{
    unsigned profile = how & ~(unsigned)JB_STARVED;
    bool trusts = profile == JB_TRUST || profile == JB_DIRECT;
    struct jabberd2_config cfg = {.name = STR("gw1"),
                                  .user = STR("gate"),
                                  .secret = STR("s3cret"),
                                  .require_tls = profile == JB_REQUIRE,
                                  .no_tls = profile == JB_NO_TLS,
                                  .direct_tls = profile == JB_DIRECT,
                                  .trust = trusts ? &trust : NULL,
                                  .auth_ms = JB_AUTH,
                                  .close_ms = JB_CLOSE};
    memset(b, 0, sizeof *b);
    b->now = 1000;
    b->starved = how & JB_STARVED;
    b->env = (struct env){.now_ms = now_ms, .random = random_bytes, .ctx = b};
    jabberd2_init(&b->m, &cfg, &b->env);
    b->f = framer_new(CONTENT_ROUTER, &framer_limits_unauthenticated);
    if (b->f == NULL)
        return false;
    event(b, (struct gw_event){.kind = EV_OPENED});
    return true;
}

void jb_close(struct jb *b)
{
    jabberd2_free(&b->m);
    framer_free(b->f);
}

unsigned jb_untaken(void)
{
    unsigned n = 0;
    for (unsigned from = 0; from < LINK_STATE_COUNT; from++) {
        for (unsigned to = 0; to < LINK_STATE_COUNT; to++) {
            if (machine_edge_ok(jabberd2_edges, from, to) && !(taken[from] >> to & 1)) {
                printf("never taken: %s -> %s\n", link_state_name((enum link_state)from),
                       link_state_name((enum link_state)to));
                n++;
            }
        }
    }
    return n;
}
