/* Random walks, from fixed seeds: both S2S machines behind their framer, and a remote domain with a
 * played driver. What must hold is checked after every event: for the machines in
 * tests/fake/stage.c, for the remote here (check). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "gateway/route/remote.h"
#include "tests/fake/stage.h"

enum { EVENTS = 200000 };

/* ---- S2S machines ---------------------------------------------------------------------------- */

#define OPEN(attrs)                                                                                \
    "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' "                      \
    "xmlns:stream='http://etherx.jabber.org/streams' " attrs ">"
#define TLS            "xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
#define SASL           "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define EXTERNAL       "<mechanisms " SASL "><mechanism>EXTERNAL</mechanism></mechanisms>"
#define BIDI           "<bidi xmlns='urn:xmpp:features:bidi'/>"
#define FEATURES(list) "<stream:features>" list "</stream:features>"

/* Any of these, at any time. */
static const char *const in_says[] = {
    OPEN("from='beta.lab' to='alpha.lab' version='1.0'"),
    OPEN("from='beta.lab' to='alpha.lab' version='1.0'"),
    OPEN("to='gamma.lab' version='1.0'"),
    OPEN("from='beta.lab' to='alpha.lab'"),
    "<starttls " TLS "/>",
    "<auth " SASL " mechanism='EXTERNAL'>=</auth>",
    "<auth " SASL " mechanism='EXTERNAL'/>",
    "<auth " SASL " mechanism='PLAIN'>x</auth>",
    "<response " SASL ">=</response>",
    "<abort " SASL "/>",
    "<bidi xmlns='urn:xmpp:bidi'/>",
    "<bidi xmlns='urn:xmpp:bidi'/>",
    "<db:result from='beta.lab' to='alpha.lab'>k</db:result>",
    "<db:result from='beta.lab' to='gamma.lab'>k</db:result>",
    "<db:result from='delta.lab' to='alpha.lab'>k</db:result>",
    "<db:result from='beta.lab' to='alpha.lab' type='valid'/>",
    "<db:verify from='beta.lab' to='alpha.lab' id='i'>k</db:verify>",
    "<message from='a@beta.lab' to='b@alpha.lab'/>",
    "<message from='a@beta.lab' to='b@gamma.lab'/>",
    "<message from='a b@beta.lab' to='b@alpha.lab'/>",
    "<iq from='delta.lab' to='b@alpha.lab' type='get' id='1'><q xmlns='u'/></iq>",
    " ",
    "</stream:stream>",
};
static const char *const out_says[] = {
    OPEN("from='beta.lab' id='s1' version='1.0'"),
    OPEN("from='beta.lab' id='s1' version='1.0'"),
    OPEN("id='s2'"),
    "<stream:features><starttls " TLS "/></stream:features>",
    "<stream:features><starttls " TLS "><required/></starttls></stream:features>",
    "<stream:features/>",
    "<stream:features/>",
    FEATURES(EXTERNAL),
    FEATURES(BIDI),
    FEATURES(EXTERNAL BIDI),
    "<message from='a@beta.lab' to='b@alpha.lab'/>",
    "<iq from='a@beta.lab' to='b c@gamma.lab' type='get' id='1'><q xmlns='u'/></iq>",
    "<success " SASL "/>",
    "<failure " SASL "><not-authorized/></failure>",
    "<challenge " SASL "/>",
    "<proceed " TLS "/>",
    "<proceed " TLS "/>",
    "<db:result from='beta.lab' to='alpha.lab' type='valid'/>",
    "<db:result from='beta.lab' to='alpha.lab' type='error'/>",
    "<db:result from='beta.lab' to='gamma.lab' type='invalid'/>",
    "<db:verify from='beta.lab' to='alpha.lab' id='v1' type='valid'/>",
    "<db:verify from='beta.lab' to='gamma.lab' id='v2' type='invalid'/>",
    " ",
    "</stream:stream>",
};
/* Seldom: they end every stream. */
static const char *const last_words[] = {
    "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "<failure " TLS "/>",
    "<message/>",
    "<unknown xmlns='u'/>",
    "nonsense"};

#define PICK(f, list) ((list)[fake_below((f), sizeof(list) / sizeof(list)[0])])

static const char *const config_texts[] = {
    "security_mode = \"tls-optional\";",
    "security_mode = \"no-tls\"; limits = { pending_dialbacks = 1; pairs_per_stream = 2; };",
    "security_mode = \"tls-required\";",
    "security_mode = \"tls-optional\"; privacy_mode = \"allow-list\";"
    "peers = ({ domain = \"delta.lab\"; policy = \"allow\"; });",
    "security_mode = \"tls-required\"; auth = [\"external\"];",
    "security_mode = \"tls-required\"; bidi = true;",
    "security_mode = \"tls-optional\"; bidi = true;"
    "peers = ({ domain = \"delta.lab\"; bidi = false; });",
    "security_mode = \"tls-optional\"; auth = [\"dialback\"];",
};
enum { CONFIGS = sizeof config_texts / sizeof config_texts[0] };
static struct gateway_config *configs[CONFIGS];

static int make_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONFIGS; i++)
        if ((configs[i] = fake_config(config_texts[i])) == NULL)
            return -1;
    return 0;
}

static int free_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONFIGS; i++)
        gateway_config_unref(configs[i]);
    return 0;
}

static void walk_says(struct stage *s, const char *text, size_t piece)
{
    stage_peer(s, str_c(stage_turn(s, text)), piece);
}

static void walk_ends(struct stage *s, struct fake *f)
{
    switch (fake_below(f, 5)) {
    case 0:
        stage_kind(s, EV_DRAIN, "stop");
        break;
    case 1:
        stage_kind(s, EV_LOST, "gone");
        break;
    case 2:
        stage_kind(s, EV_TLS_FAILED, "bad");
        break;
    default:
        stage_peer(s, str_c(PICK(f, last_words)), 0);
        break;
    }
}

static void walk_wishes(struct stage *s, struct fake *f)
{
    static const char *const locals[] = {"alpha.lab", "gamma.lab"};
    static const char *const guests[] = {"delta.lab", "epsilon.lab"};
    uint32_t last = s->ntickets ? s->tickets[s->ntickets - 1] : 0;
    if (!s->outgoing)
        stage_verdict(s, last - (uint32_t)fake_below(f, 2), (enum verdict)fake_below(f, 5));
    else if (fake_below(f, 2))
        stage_want_pair(s, stage_turn(s, PICK(f, locals)));
    else if (s->side.link == NULL && fake_below(f, 3) == 0)
        stage_want_guest(s, PICK(f, locals), PICK(f, guests));
    else if (s->side.link == NULL && fake_below(f, 4) == 0)
        stage_verify_guest(s, PICK(f, locals), PICK(f, guests), "v1", "k");
    else
        stage_want_verify(s, stage_turn(s, PICK(f, locals)), fake_below(f, 2) ? "v1" : "v2", "k");
}

static void walk_tls(struct stage *s, struct fake *f)
{
    static const enum stage_cert certs[] = {
        STAGE_CERT_KNOWN,   STAGE_CERT_KNOWN,   STAGE_CERT_KNOWN,   STAGE_CERT_UNKNOWN,
        STAGE_CERT_TRUSTED, STAGE_CERT_TRUSTED, STAGE_CERT_EXPIRED, STAGE_CERT_NONE};
    stage_tls_up(s, PICK(f, certs));
}

/* Proving a pair takes both of us. */
static bool walk_proves(struct stage *s)
{
    bool asked = authz_first(s->outgoing ? &s->out.authz : &s->in.authz, AUTHZ_ASKED) != NULL;
    if (!s->outgoing && asked)
        stage_verdict(s, s->tickets[s->ntickets - 1], VERDICT_VALID);
    else if (s->outgoing && asked)
        walk_says(s, "<db:result from='beta.lab' to='alpha.lab' type='valid'/>", 0);
    else if (s->outgoing && stage_state(s) == S2S_OUT_READY)
        stage_want_pair(s, s->out.local);
    else
        return false;
    return true;
}

/* What a well-behaved peer would say now; without it the walk would seldom get far. */
static void walk_on(struct stage *s, struct fake *f)
{
    const char *const in[S2S_IN_STATE_COUNT] = {
        [S2S_IN_ACCEPTED] = OPEN("from='beta.lab' to='alpha.lab' version='1.0'"),
        [S2S_IN_CLEAR] = "<starttls " TLS "/>",
        [S2S_IN_TLS_HEADER] = OPEN("from='beta.lab' to='alpha.lab' version='1.0'"),
        [S2S_IN_SECURE] =
            s->in.bidi_offered && !s->in.bidi && fake_below(f, 2) ? "<bidi xmlns='urn:xmpp:bidi'/>"
            : fake_below(f, 2) ? "<auth " SASL " mechanism='EXTERNAL'>=</auth>"
                               : "<db:result from='beta.lab' to='alpha.lab'>k</db:result>",
    };
    const char *const out[S2S_OUT_STATE_COUNT] = {
        [S2S_OUT_HEADER] = OPEN("from='beta.lab' id='s1' version='1.0'"),
        [S2S_OUT_FEATURES] = "<stream:features><starttls " TLS "/></stream:features>",
        [S2S_OUT_STARTTLS] = "<proceed " TLS "/>",
        [S2S_OUT_TLS_HEADER] = OPEN("from='beta.lab' id='s2' version='1.0'"),
        [S2S_OUT_TLS_FEATURES] = fake_below(f, 2) ? FEATURES(EXTERNAL BIDI) : FEATURES(BIDI),
        [S2S_OUT_AUTH] = "<success " SASL "/>",
    };
    const char *says = s->outgoing ? out[stage_state(s)] : in[stage_state(s)];
    bool fresh = !s->outgoing && stage_state(s) == S2S_IN_ACCEPTED;
    if (s->handshaking || (fresh && fake_below(f, 4) == 0)) /* TLS may also come first */
        walk_tls(s, f);
    else if (!walk_proves(s) && says != NULL)
        walk_says(s, says, fake_below(f, 2) ? 0 : 5);
}

static void walk_step(struct stage *s, struct fake *f)
{
    size_t dice = fake_below(f, 100);
    if (dice < 35)
        walk_on(s, f);
    else if (dice < 60)
        walk_says(s, s->outgoing ? PICK(f, out_says) : PICK(f, in_says), fake_below(f, 2) ? 0 : 7);
    else if (dice < 75)
        walk_wishes(s, f);
    else if (dice < 80 && s2s_in_carries(&s->in, STR("alpha.lab"), STR("beta.lab")))
        stage_sent(s);
    else if (dice < 88)
        stage_time(s, 1u << fake_below(f, 18));
    else if (dice == 97)
        stage_config(s, configs[fake_below(f, CONFIGS)]);
    else if (dice == 98)
        walk_ends(s, f);
}

static void walk_machine(bool outgoing)
{
    struct fake f;
    struct stage s;
    fake_init(&f, outgoing ? 11 : 12);
    unsigned proven[STAGE_SIDES] = {0}, bidi = 0, broken = 0;
    for (unsigned n = 0; n < EVENTS;) {
        size_t side = fake_below(&f, STAGE_SIDES);
        struct stage_side where = stage_sides[side];
        where.direct_tls = outgoing && fake_below(&f, 8) == 0;
        where.no_certificate = fake_below(&f, 4) == 0;
        assert_true(stage_open_at(&s, &where, outgoing, configs[fake_below(&f, CONFIGS)],
                                  side ? "beta.lab" : "alpha.lab", side ? "alpha.lab" : "beta.lab",
                                  fake_next(&f)));
        s.quiet = true;
        for (unsigned more = 3; more > 0; n++) { /* a few events into the dead session too */
            walk_step(&s, &f);
            if (s.wrong != NULL)
                fail_msg("event %u: broken: %s", n, s.wrong);
            more -= s.over;
        }
        const struct authz *a = outgoing ? &s.out.authz : &s.in.authz;
        bool valid = authz_first(a, AUTHZ_VALID) != NULL;
        proven[side] += valid;
        bidi += valid && (s.in.bidi || s.out.bidi);
        broken += s.in.bidi_broken != NULL || s.out.bidi_broken != NULL;
        stage_close(&s);
    }
    printf("# proven, by side: %u %u %u %u %u; both ways: %u, of which broken: %u\n", proven[0],
           proven[1], proven[2], proven[3], proven[4], bidi, broken);
    assert_true(bidi > 30 && (broken > 0 || !outgoing));
    for (size_t i = 0; i < STAGE_SIDES; i++) /* it went far on every side */
        assert_true(proven[i] > 30);
    assert_int_equal(stage_untaken(outgoing), 0);
}

static void test_in(void **state)
{
    (void)state;
    walk_machine(false);
}

static void test_out(void **state)
{
    (void)state;
    walk_machine(true);
}

/* ---- a remote domain ------------------------------------------------------------------------- */

enum { PAIRS = 3, STANZAS = 4096, ASKS = 4096 };
enum fate { WAITING = 1, ON_STREAM, LATE, SENT, BOUNCED, REFUSED };

/* What the driver is at. */
enum driver { NOTHING, RESOLVING, DIALLING, SETTING_UP, READY };

struct world {
    struct fake f;
    struct remote *r;
    struct outq_limits limits;
    enum driver driver;
    bool writable, oom;
    size_t targets;
    struct {
        enum fate fate;
        unsigned pair;
        bool late; /* came back from a stream that was given up: its order is lost */
        size_t len;
    } stanza[STANZAS];
    unsigned nstanzas;
    unsigned stream[STANZAS]; /* handed to the stream and not sent yet, in order */
    unsigned nstream;
    unsigned last[PAIRS]; /* the last one that was sent */
    /* The carrier of each pair, and what was handed to it. */
    struct {
        uint64_t id; /* 0: none */
        unsigned v[STANZAS], n;
    } back[PAIRS];
    bool back_open;
    uint64_t carriers;  /* ids given */
    int verdicts[ASKS]; /* of each ticket */
    unsigned nasks;
    bool pair_asked[PAIRS];
    unsigned asked[ASKS]; /* tickets on this stream without answer */
    unsigned nasked;
    size_t excess; /* bytes that were put back: they may stand above the limits */
    unsigned ends[REFUSED + 1];
};

static const char *const names[PAIRS] = {"alpha.lab", "gamma.lab", "delta.lab"};
static machine_edges remote_taken[REMOTE_STATE_COUNT];

static void note_edge(unsigned a, unsigned b)
{
    if (a == b && !machine_edge_ok(remote_edges, a, b))
        return;
    if (machine_edge_ok(remote_edges, a, b)) {
        remote_taken[a] |= (machine_edges)(1u << b);
        return;
    }
    /* Two in one call, by way of IDLE. */
    assert_true(machine_edge_ok(remote_edges, a, REMOTE_IDLE));
    assert_true(machine_edge_ok(remote_edges, REMOTE_IDLE, b));
    remote_taken[a] |= 1u << REMOTE_IDLE;
    remote_taken[REMOTE_IDLE] |= (machine_edges)(1u << b);
}

static unsigned pair_of(struct str local)
{
    for (unsigned i = 0; i < PAIRS; i++)
        if (str_is(local, names[i]))
            return i;
    fail_msg("unknown pair %.*s", STR_ARG(local));
    return 0;
}

static unsigned number_of(struct str s)
{
    assert_true(s.n >= 4);
    return (unsigned)strtoul(s.p, NULL, 10);
}

static struct str text_of(const struct world *w, unsigned n, char buf[256])
{
    snprintf(buf, 256, "%-*u", (int)w->stanza[n].len, n);
    return str_c(buf);
}

static void end(struct world *w, unsigned n, enum fate from, enum fate to)
{
    assert_int_equal(w->stanza[n].fate, from);
    w->stanza[n].fate = to;
    w->ends[to]++;
}

static unsigned take_first(unsigned *v, unsigned *n)
{
    unsigned first = v[0];
    memmove(v, v + 1, --*n * sizeof *v);
    return first;
}

static void sent(struct world *w, unsigned n)
{
    unsigned p = w->stanza[n].pair;
    end(w, n, ON_STREAM, SENT);
    if (w->stanza[n].late)
        return;
    assert_true(n >= w->last[p]); /* order within the pair */
    w->last[p] = n;
}

static void sent_first(struct world *w)
{
    sent(w, take_first(w->stream, &w->nstream));
    remote_sent(w->r);
}

static void put_back(struct world *w, unsigned n, bool late)
{
    char buf[256];
    struct str text = text_of(w, n, buf);
    w->stanza[n].late = w->stanza[n].late || late;
    if (remote_unsent(w->r, str_c(names[w->stanza[n].pair]), text, w->f.now)) {
        end(w, n, w->stanza[n].fate, WAITING);
        w->excess += text.n;
    } else {
        assert_true(w->oom);
        end(w, n, w->stanza[n].fate, BOUNCED);
    }
}

static void lose_stream(struct world *w)
{
    memset(w->pair_asked, 0, sizeof w->pair_asked);
    w->nasked = 0;
    w->driver = NOTHING;
}

/* The stream is given up; some of what it holds comes back later. */
static void on_close(struct world *w)
{
    while (w->nstream > 0) {
        unsigned n = w->stream[0];
        if (fake_below(&w->f, 2)) {
            sent_first(w);
            continue;
        }
        memmove(w->stream, w->stream + 1, --w->nstream * sizeof w->stream[0]);
        end(w, n, ON_STREAM, LATE);
    }
    lose_stream(w);
}

static void on_send(struct world *w, struct remote_act *a)
{
    unsigned n = number_of(a->stanza.s);
    unsigned p = w->stanza[n].pair;
    assert_true(str_is(a->local, names[p]));
    assert_int_equal(a->carrier, w->back[p].id);
    end(w, n, WAITING, ON_STREAM);
    if (a->carrier != 0) {
        assert_true(w->back_open);
        w->back[p].v[w->back[p].n++] = n;
    } else {
        assert_true(w->writable && w->driver == READY);
        w->stream[w->nstream++] = n;
    }
    span_release(&a->stanza);
}

/* A carrier comes; or it ends, with or without having sent everything. */
static void carriers(struct world *w)
{
    unsigned p = (unsigned)fake_below(&w->f, PAIRS);
    const struct str local = str_c(names[p]);
    assert_int_equal(remote_carrier(w->r, local), w->back[p].id);
    if (w->back[p].id == 0) {
        if (remote_carry(w->r, local, w->carriers + 1, w->f.now))
            w->back[p].id = ++w->carriers;
        return;
    }
    while (w->back[p].n > 0 && fake_below(&w->f, 3))
        sent(w, take_first(w->back[p].v, &w->back[p].n));
    while (w->back[p].n > 0)
        put_back(w, w->back[p].v[--w->back[p].n], false);
    remote_uncarry(w->r, local, w->back[p].id, w->f.now);
    w->back[p].id = 0;
}

static bool carrier_takes(void *arg, uint64_t carrier, struct str local)
{
    const struct world *w = arg;
    assert_int_equal(carrier, w->back[pair_of(local)].id);
    return w->back_open;
}

static void carry_out(struct world *w, struct remote_act *a)
{
    switch (a->what) {
    case REMOTE_DO_RESOLVE:
        assert_int_equal(w->driver, NOTHING);
        w->driver = RESOLVING;
        break;
    case REMOTE_DO_DIAL:
        assert_int_equal(w->driver, NOTHING);
        assert_true(a->target < w->targets);
        w->driver = DIALLING;
        break;
    case REMOTE_DO_WANT_PAIR:
        assert_int_equal(w->driver, READY);
        assert_false(w->pair_asked[pair_of(a->local)]);
        w->pair_asked[pair_of(a->local)] = true;
        break;
    case REMOTE_DO_WANT_VERIFY:
        assert_int_equal(w->driver, READY);
        w->asked[w->nasked++] = number_of(a->request.stream_id);
        break;
    case REMOTE_DO_SEND:
        on_send(w, a);
        break;
    case REMOTE_DO_BOUNCE:
        assert_non_null(a->condition);
        end(w, number_of(a->stanza.s), WAITING, BOUNCED);
        span_release(&a->stanza);
        break;
    case REMOTE_DO_VERDICT:
        assert_int_equal(a->origin, 77);
        assert_int_equal(w->verdicts[a->ticket]++, 0);
        break;
    case REMOTE_DO_CLOSE:
        on_close(w);
        break;
    }
}

static void check(struct world *w)
{
    size_t count = 0, bytes = 0, by_stream = 0;
    uint64_t due;
    for (unsigned i = 0; i < w->nstanzas; i++) {
        count += w->stanza[i].fate == WAITING;
        by_stream += w->stanza[i].fate == WAITING && w->back[w->stanza[i].pair].id == 0;
        bytes += w->stanza[i].fate == WAITING ? w->stanza[i].len : 0;
    }
    assert_int_equal(remote_queued(w->r), count);
    assert_int_equal(w->limits.count, count);
    assert_int_equal(w->limits.bytes, bytes);
    w->excess = count ? w->excess : 0;
    assert_true(bytes <= w->limits.total + w->excess);
    enum remote_state s = remote_state_of(w->r);
    assert_true(by_stream == 0 ||
                (s != REMOTE_IDLE && s != REMOTE_BACKOFF)); /* nothing is forgotten */
    bool timed = remote_due(w->r, &due);
    assert_true(timed || count == 0);
    assert_true(!timed || due > w->f.now); /* the owner's timer does not spin */
    assert_true(!timed || s != REMOTE_BACKOFF || due <= w->f.now + 30000);
    assert_true(count == 0 || !remote_disposable(w->r, w->f.now));
}

static void pull(struct world *w)
{
    struct remote_act a;
    unsigned before = remote_state_of(w->r), guard = 0;
    remote_tick(w->r, w->f.now);
    note_edge(before, remote_state_of(w->r));
    for (;;) {
        before = remote_state_of(w->r);
        const struct remote_room room = {w->writable && w->driver == READY, carrier_takes, w};
        bool more = remote_next(w->r, w->f.now, &room, &a);
        note_edge(before, remote_state_of(w->r));
        if (!more)
            break;
        carry_out(w, &a);
        assert_true(++guard < 10000);
    }
}

static void new_stanza(struct world *w)
{
    char buf[256];
    unsigned n = w->nstanzas++, p = (unsigned)fake_below(&w->f, PAIRS);
    w->stanza[n].pair = p;
    w->stanza[n].len = 4 + fake_below(&w->f, 200);
    struct str text = text_of(w, n, buf), local = str_c(names[p]);
    w->stanza[n].fate = WAITING;
    bool carried = w->back[p].id != 0;
    bool open = carried ? w->back_open : w->driver == READY && w->writable;
    if (open && remote_may_send(w->r, local)) {
        end(w, n, WAITING, ON_STREAM);
        if (carried)
            w->back[p].v[w->back[p].n++] = n;
        else
            w->stream[w->nstream++] = n;
    } else if (remote_stanza(w->r, local, text, w->f.now).condition != NULL) {
        end(w, n, WAITING, REFUSED);
    }
}

static void new_ask(struct world *w)
{
    char id[16];
    unsigned ticket = w->nasks++;
    snprintf(id, sizeof id, "%-8u", ticket);
    struct db_request q = {STR("alpha.lab"), STR("beta.lab"), str_c(id), STR("k")};
    remote_ask(w->r, &q, 77, ticket, 1 + fake_below(&w->f, 20000), w->f.now);
}

static void answer_ask(struct world *w)
{
    if (w->nasked == 0)
        return;
    char id[16];
    unsigned at = (unsigned)fake_below(&w->f, w->nasked);
    snprintf(id, sizeof id, "%-8u", w->asked[at]);
    w->asked[at] = w->asked[--w->nasked];
    struct db_request q = {STR("alpha.lab"), STR("beta.lab"), str_c(id), STR_NONE};
    remote_answered(w->r, &q, (enum verdict)fake_below(&w->f, 3), STR("said so"), w->f.now);
}

static void end_stream(struct world *w)
{
    while (w->nstream > 0 && fake_below(&w->f, 2))
        sent_first(w);
    while (w->nstream > 0)
        put_back(w, w->stream[--w->nstream], false);
    lose_stream(w);
    if (fake_below(&w->f, 5) == 0)
        remote_stream_reset(w->r, STR("the settings have changed"), w->f.now);
    else
        remote_stream_ended(w->r, STR("the stream ended"), w->f.now);
}

static void late_return(struct world *w)
{
    for (unsigned i = 0; i < w->nstanzas; i++)
        if (w->stanza[i].fate == LATE)
            put_back(w, i, true);
}

/* What the network and the peer do next. */
static void progress(struct world *w)
{
    bool good = fake_below(&w->f, 8) != 0;
    switch (w->driver) {
    case NOTHING:
        break;
    case RESOLVING:
        w->driver = NOTHING;
        w->targets = good ? 1 + fake_below(&w->f, 3) : fake_below(&w->f, 2);
        if (good || w->targets == 0)
            remote_resolved(w->r, w->targets, w->f.now);
        else
            remote_resolve_failed(w->r, STR("no such domain"), w->f.now);
        break;
    case DIALLING:
        w->driver = good ? SETTING_UP : NOTHING;
        if (good)
            remote_connected(w->r);
        else
            remote_dial_failed(w->r, STR("refused"), fake_below(&w->f, 2), w->f.now);
        break;
    case SETTING_UP:
        if (good) {
            w->driver = READY;
            remote_stream_ready(w->r);
        } else {
            end_stream(w);
        }
        break;
    case READY:
        answer_ask(w);
        break;
    }
}

static void peer_answers(struct world *w)
{
    unsigned p = (unsigned)fake_below(&w->f, PAIRS);
    size_t dice = fake_below(&w->f, 20);
    if (!w->pair_asked[p])
        return;
    w->pair_asked[p] = dice >= 2; /* a refused pair may be asked for again */
    remote_pair_result(w->r, str_c(names[p]),
                       dice == 0   ? PAIR_INVALID
                       : dice == 1 ? PAIR_ERROR
                                   : PAIR_VALID,
                       STR("answered"), w->f.now);
}

static void input(struct world *w)
{
    size_t dice = fake_below(&w->f, 1000);
    unsigned before = remote_state_of(w->r);
    if (dice < 200)
        new_stanza(w);
    else if (dice < 230)
        new_ask(w);
    else if (dice < 430)
        progress(w);
    else if (dice < 630)
        peer_answers(w);
    else if (dice < 830 && w->nstream > 0)
        sent_first(w);
    else if (dice < 835)
        carriers(w);
    else if (dice < 840)
        w->back_open = !w->back_open;
    else if (dice < 850 && (w->driver == READY || w->driver == SETTING_UP))
        end_stream(w);
    else if (dice < 880)
        w->writable = !w->writable;
    else if (dice < 990)
        w->f.now += 1u << fake_below(&w->f, w->driver == NOTHING ? 14 : 10);
    else if (dice < 998)
        late_return(w);
    else if (dice == 998)
        remote_retry(w->r, w->f.now);
    else if (dice == 999)
        remote_fail_all(w->r, "not-allowed", STR("the policy has changed"), w->f.now);
    note_edge(before, remote_state_of(w->r));
}

static const struct remote_settings settings = {60000, 30000, 8, PAIRS};

static struct world *new_world(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    fake_init(&w->f, seed);
    w->limits = (struct outq_limits){1000, 10, 2000, 0, 0};
    w->r = remote_new(STR("beta.lab"), &settings, &w->limits, &w->f.env);
    assert_non_null(w->r);
    return w;
}

/* Lets everything end: then each stanza has its one end, each question its one verdict. */
static void finish(struct world *w)
{
    late_return(w);
    for (int i = 0; i < 200; i++) {
        w->f.now += 1000;
        pull(w);
    }
    while (w->nstream > 0)
        sent_first(w);
    for (unsigned p = 0; p < PAIRS; p++)
        while (w->back[p].n > 0)
            sent(w, take_first(w->back[p].v, &w->back[p].n));
    for (unsigned i = 0; i < w->nstanzas; i++)
        assert_true(w->stanza[i].fate == SENT || w->stanza[i].fate == BOUNCED ||
                    w->stanza[i].fate == REFUSED);
    for (unsigned i = 0; i < w->nasks; i++)
        assert_true(w->verdicts[i] == 1 || (w->oom && w->verdicts[i] == 0));
    assert_int_equal(w->limits.bytes, 0);
    remote_free(w->r);
}

static void test_remote(void **state)
{
    (void)state;
    unsigned ends[REFUSED + 1] = {0};
    for (unsigned n = 0, seed = 1; n < EVENTS; seed++) {
        struct world *w = new_world(seed);
        for (unsigned i = 0; i < 2000; i++, n++) {
            input(w);
            pull(w);
            check(w);
        }
        finish(w);
        for (int i = 0; i <= REFUSED; i++)
            ends[i] += w->ends[i];
        free(w);
    }
    printf("# sent %u, bounced %u, refused %u\n", ends[SENT], ends[BOUNCED], ends[REFUSED]);
    assert_true(ends[SENT] > 1000 && ends[BOUNCED] > 1000 && ends[REFUSED] > 1000);
    unsigned untaken = 0;
    for (unsigned a = 0; a < REMOTE_STATE_COUNT; a++)
        for (unsigned b = 0; b < REMOTE_STATE_COUNT; b++)
            if (machine_edge_ok(remote_edges, a, b) && !(remote_taken[a] >> b & 1)) {
                printf("# never taken: %s -> %s\n", remote_state_name((enum remote_state)a),
                       remote_state_name((enum remote_state)b));
                untaken++;
            }
    assert_int_equal(untaken, 0);
}

/* The same with memory that runs out again and again. */
static void test_remote_without_memory(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 30; seed++) {
        struct world *w = new_world(seed);
        w->oom = true;
        for (unsigned i = 0; i < 1000; i++) {
            mem_fail_after(fake_below(&w->f, 3) ? 0 : 1 + fake_below(&w->f, 4));
            input(w);
            pull(w);
            mem_fail_after(0);
        }
        finish(w);
        free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in),
        cmocka_unit_test(test_out),
        cmocka_unit_test(test_remote),
        cmocka_unit_test(test_remote_without_memory),
    };
    return cmocka_run_group_tests(tests, make_configs, free_configs);
}
