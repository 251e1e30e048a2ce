/* One remote domain, step by step: what fails how, back-off, order. The random walk is in
 * tests/machine/test_walk.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "gateway/route/remote.h"
#include "tests/fake/fake.h"

#define ALPHA STR("alpha.lab")
#define GAMMA STR("gamma.lab")

static struct fake fake;
static struct outq_limits limits;
static struct remote *r;
static const struct remote_settings settings = {60000, 30000, 4, 2};
static char done[1024]; /* what was pulled, as text */

static int begin(void **state)
{
    (void)state;
    fake_init(&fake, 21);
    limits = (struct outq_limits){1000, 3, 5000, 0, 0};
    r = remote_new(STR("beta.lab"), &settings, &limits, &fake.env);
    return r == NULL;
}

static int end(void **state)
{
    (void)state;
    remote_free(r);
    return limits.bytes != 0 || limits.count != 0;
}

static void describe(const struct remote_act *a, size_t n)
{
    static const char *const verdicts[] = {"valid", "invalid", "not-found", "timeout", "busy"};
    char *at = done + n;
    size_t room = sizeof done - n;
    switch (a->what) {
    case REMOTE_DO_RESOLVE:
        snprintf(at, room, "RESOLVE ");
        break;
    case REMOTE_DO_DIAL:
        snprintf(at, room, "DIAL%zu ", a->target);
        break;
    case REMOTE_DO_WANT_PAIR:
        snprintf(at, room, "PAIR:%.*s ", STR_ARG(a->local));
        break;
    case REMOTE_DO_WANT_VERIFY:
        snprintf(at, room, "VERIFY:%.*s ", STR_ARG(a->request.stream_id));
        break;
    case REMOTE_DO_SEND:
        snprintf(at, room, "%s:%.*s ", a->carrier ? "BACK" : "SEND", STR_ARG(a->stanza.s));
        break;
    case REMOTE_DO_BOUNCE:
        snprintf(at, room, "BOUNCE:%.*s:%s ", STR_ARG(a->stanza.s), a->condition);
        break;
    case REMOTE_DO_VERDICT:
        snprintf(at, room, "VERDICT%u:%s ", a->ticket, verdicts[a->verdict]);
        break;
    case REMOTE_DO_CLOSE:
        snprintf(at, room, "CLOSE ");
        break;
    }
}

static bool carrier_open; /* every one of them */

static bool carrier_takes(void *arg, uint64_t carrier, struct str local)
{
    (void)arg, (void)carrier, (void)local;
    return carrier_open;
}

/* Pulls everything; the texts of what came, each with a space behind it. */
static const char *pull(bool writable)
{
    struct remote_act a;
    const struct remote_room room = {writable, carrier_takes, NULL};
    done[0] = '\0';
    while (remote_next(r, fake.now, &room, &a)) {
        describe(&a, strlen(done));
        span_release(&a.stanza);
    }
    return done;
}

static void expect(const char *what)
{
    assert_string_equal(pull(true), what);
}

static const char *stanza(struct str local, const char *text)
{
    return remote_stanza(r, local, str_c(text), fake.now).condition;
}

static void ask(const char *id, uint32_t ticket, uint64_t within)
{
    struct db_request q = {ALPHA, STR("beta.lab"), str_c(id), STR("k")};
    remote_ask(r, &q, 1, ticket, within, fake.now);
}

static void answered(const char *id, enum verdict v)
{
    struct db_request q = {ALPHA, STR("beta.lab"), str_c(id), STR_NONE};
    remote_answered(r, &q, v, STR_NONE, fake.now);
}

static void pass(uint64_t ms)
{
    fake.now += ms;
    remote_tick(r, fake.now);
}

static void get_ready(size_t targets)
{
    expect("RESOLVE ");
    remote_resolved(r, targets, fake.now);
    expect("DIAL0 ");
    remote_connected(r);
    remote_stream_ready(r);
    assert_int_equal(remote_state_of(r), REMOTE_READY);
}

static void lose(void)
{
    remote_stream_ended(r, STR("gone"), fake.now);
}

static void test_way_out(void **state)
{
    (void)state;
    assert_true(remote_disposable(r, fake.now));
    assert_null(stanza(ALPHA, "a1"));
    assert_null(stanza(ALPHA, "a2"));
    assert_null(stanza(GAMMA, "g1"));
    get_ready(1);
    expect("PAIR:alpha.lab PAIR:gamma.lab ");
    expect("");
    assert_false(remote_may_send(r, ALPHA));
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    assert_string_equal(pull(false), ""); /* the stream is full */
    expect("SEND:a1 SEND:a2 ");
    assert_true(remote_may_send(r, ALPHA));
    assert_false(remote_may_send(r, GAMMA));
    remote_pair_result(r, GAMMA, PAIR_ERROR, STR("forbidden"), fake.now);
    expect("BOUNCE:g1:remote-server-timeout ");
    assert_string_equal(stanza(GAMMA, "g2"), "remote-server-timeout"); /* this pair backs off */
    assert_null(stanza(ALPHA, "a3"));
    pass(1300);
    assert_null(stanza(GAMMA, "g3"));
    expect("SEND:a3 PAIR:gamma.lab ");
    remote_pair_result(r, GAMMA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:g3 ");
}

static void test_limits(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_null(stanza(ALPHA, "a"));
    assert_string_equal(stanza(ALPHA, "a"), "resource-constraint");
    assert_null(stanza(GAMMA, "g"));
    assert_string_equal(stanza(STR("delta.lab"), "d"), "resource-constraint"); /* pairs_max */
    for (uint32_t i = 0; i < 6; i++)
        ask("i", i, 1000);
    expect("VERDICT4:busy VERDICT5:busy RESOLVE ");
    remote_fail_all(r, "not-allowed", STR("no"), fake.now);
    expect("BOUNCE:a:not-allowed BOUNCE:a:not-allowed BOUNCE:a:not-allowed BOUNCE:g:not-allowed "
           "VERDICT0:not-found VERDICT1:not-found VERDICT2:not-found VERDICT3:not-found CLOSE ");
    assert_null(stanza(STR("delta.lab"), "d")); /* an empty pair gave up its place */
    expect("RESOLVE ");
    remote_resolved(r, 0, fake.now);
    expect("BOUNCE:d:remote-server-not-found ");
}

/* Which step failed decides what the sender is told. */
static void test_conditions(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    ask("i", 1, 20000);
    expect("RESOLVE ");
    remote_resolve_failed(r, STR("NXDOMAIN"), fake.now);
    expect("BOUNCE:a:remote-server-not-found VERDICT1:not-found ");
    struct remote_refusal no = remote_stanza(r, ALPHA, STR("b"), fake.now);
    assert_string_equal(no.condition, "remote-server-not-found"); /* with the cause */
    assert_true(str_is(no.text, "NXDOMAIN"));
    ask("i", 2, 20000);
    expect("VERDICT2:not-found ");
    pass(30000);
    assert_null(stanza(ALPHA, "c")); /* no target has an address */
    expect("RESOLVE ");
    remote_resolved(r, 2, fake.now);
    expect("DIAL0 ");
    remote_dial_failed(r, STR("no A"), true, fake.now);
    expect("DIAL1 ");
    remote_dial_failed(r, STR("no A"), true, fake.now);
    expect("BOUNCE:c:remote-server-not-found ");
    pass(30000);
    assert_null(stanza(ALPHA, "d")); /* one has, and refuses */
    expect("RESOLVE ");
    remote_resolved(r, 2, fake.now);
    expect("DIAL0 ");
    remote_dial_failed(r, STR("refused"), false, fake.now);
    expect("DIAL1 ");
    remote_dial_failed(r, STR("no A"), true, fake.now);
    expect("BOUNCE:d:remote-server-timeout ");
    pass(30000);
    assert_null(stanza(ALPHA, "e")); /* TLS or the stream fails on every target */
    expect("RESOLVE ");
    remote_resolved(r, 2, fake.now);
    expect("DIAL0 ");
    remote_connected(r);
    lose();
    expect("DIAL1 ");
    remote_connected(r);
    lose();
    expect("BOUNCE:e:remote-server-timeout ");
}

static void test_setup_deadline(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    expect("RESOLVE ");
    pass(29999);
    expect("");
    pass(1);
    expect("BOUNCE:a:remote-server-timeout CLOSE ");
    assert_int_equal(remote_state_of(r), REMOTE_BACKOFF);
}

static void test_expiry(void **state)
{
    (void)state;
    uint64_t due;
    assert_null(stanza(ALPHA, "a"));
    ask("i", 1, 5000);
    ask("j", 2, 6000);
    get_ready(1);
    expect("VERIFY:i VERIFY:j PAIR:alpha.lab ");
    assert_true(remote_due(r, &due) && due == fake.now + 5000);
    pass(5000);
    expect("VERDICT1:timeout ");
    answered("i", VERDICT_VALID); /* too late */
    answered("j", VERDICT_VALID);
    answered("j", VERDICT_VALID); /* twice */
    expect("VERDICT2:valid ");
    pass(54999);
    expect("");
    pass(1);
    expect("BOUNCE:a:remote-server-timeout ");
}

/* Nothing waits any more: the attempt is given up. */
static void test_attempt_without_purpose(void **state)
{
    (void)state;
    ask("i", 1, 1000);
    expect("RESOLVE ");
    pass(1000);
    expect("VERDICT1:timeout CLOSE ");
    assert_int_equal(remote_state_of(r), REMOTE_IDLE);
    remote_resolved(r, 1, fake.now); /* what comes late changes nothing */
    remote_dial_failed(r, STR("late"), false, fake.now);
    remote_connected(r);
    remote_stream_ready(r);
    lose();
    expect("");
    assert_true(remote_disposable(r, fake.now));
}

static void test_invalid(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    assert_null(stanza(GAMMA, "g"));
    get_ready(1);
    expect("PAIR:alpha.lab PAIR:gamma.lab ");
    remote_pair_result(r, ALPHA, PAIR_INVALID, STR("invalid"), fake.now);
    assert_false(remote_may_send(r, GAMMA));
    /* XEP-0220 2.1.1: that stanza ends; that stream takes no others, they get a new one. */
    expect("BOUNCE:a:internal-server-error CLOSE RESOLVE ");
    remote_pair_result(r, GAMMA, PAIR_VALID, STR_NONE, fake.now); /* of the old stream */
    assert_false(remote_may_send(r, GAMMA));
}

static void test_lost_stream(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a1"));
    assert_null(stanza(ALPHA, "a2"));
    ask("i", 1, 20000);
    get_ready(1);
    expect("VERIFY:i PAIR:alpha.lab ");
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:a1 SEND:a2 ");
    remote_sent(r);
    assert_null(stanza(ALPHA, "a3"));
    ask("j", 2, 20000); /* not asked yet: it moves to the new stream */
    assert_true(remote_unsent(r, ALPHA, STR("a2"), fake.now));
    lose();
    /* No back-off; what was asked there is answered nowhere else. */
    expect("VERDICT1:timeout RESOLVE ");
    remote_resolved(r, 1, fake.now);
    expect("DIAL0 ");
    remote_connected(r);
    remote_stream_ready(r);
    expect("VERIFY:j PAIR:alpha.lab ");
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:a2 SEND:a3 ");
}

/* Streams that are lost again and again without carrying anything count as a failure. */
static void test_fruitless(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    for (int i = 0; i < 3; i++) {
        get_ready(1);
        expect("PAIR:alpha.lab ");
        remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
        expect("SEND:a ");
        assert_true(remote_unsent(r, ALPHA, STR("a"), fake.now));
        lose();
    }
    expect("BOUNCE:a:remote-server-timeout ");
    assert_int_equal(remote_state_of(r), REMOTE_BACKOFF);
}

/* Ready, and then closed before it proved or answered anything: no better than a refusal; the other
 * targets have their full time. */
static void test_useless_target(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    get_ready(2);
    expect("PAIR:alpha.lab ");
    pass(40000);
    lose();
    expect("DIAL1 ");
    pass(10000);
    expect("");
    remote_connected(r);
    remote_stream_ready(r);
    lose();
    expect("BOUNCE:a:remote-server-timeout ");
}

/* A stream that was given up gives something back when nothing else waits. */
static void test_late_return(void **state)
{
    (void)state;
    assert_null(stanza(ALPHA, "a"));
    assert_null(stanza(GAMMA, "g"));
    get_ready(1);
    expect("PAIR:alpha.lab PAIR:gamma.lab ");
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:a ");
    remote_pair_result(r, GAMMA, PAIR_INVALID, STR_NONE, fake.now);
    expect("BOUNCE:g:internal-server-error CLOSE ");
    assert_int_equal(remote_state_of(r), REMOTE_IDLE);
    assert_true(remote_unsent(r, ALPHA, STR("a"), fake.now));
    get_ready(1);
    lose();
    expect("BOUNCE:a:remote-server-timeout ");
    assert_true(remote_unsent(r, ALPHA, STR("b"), fake.now)); /* during back-off: as a new one */
    expect("BOUNCE:b:remote-server-timeout ");
}

/* A reset is nobody's fault: the same target at once, questions too; but not for ever. */
static void test_reset(void **state)
{
    (void)state;
    ask("i", 1, 20000);
    get_ready(1);
    expect("VERIFY:i ");
    for (int i = 0; i < 3; i++) {
        remote_stream_reset(r, STR("reset"), fake.now);
        expect("DIAL0 ");
        remote_connected(r);
        remote_stream_ready(r);
        expect("VERIFY:i ");
    }
    remote_stream_reset(r, STR("reset"), fake.now);
    expect("VERDICT1:timeout ");
}

static uint64_t fail_once(void)
{
    uint64_t due;
    assert_null(stanza(ALPHA, "a"));
    expect("RESOLVE ");
    remote_resolve_failed(r, STR("SERVFAIL"), fake.now);
    expect("BOUNCE:a:remote-server-not-found ");
    assert_false(remote_disposable(r, fake.now));
    assert_true(remote_due(r, &due));
    return due - fake.now;
}

/* 1 s, doubling with jitter, never above 30 s; a remote that keeps failing is remembered. */
static void test_backoff(void **state)
{
    (void)state;
    uint64_t wait = 0, base = 1000, least = UINT64_MAX, most = 0;
    for (int i = 0; i < 200; i++) {
        wait = fail_once();
        assert_true(wait >= base * 4 / 5 && wait <= base * 6 / 5 && wait <= 30000);
        base = base * 2 > 25000 ? 25000 : base * 2;
        if (i > 10) {
            least = wait < least ? wait : least;
            most = wait > most ? wait : most;
        }
        pass(wait - 1);
        assert_string_equal(stanza(ALPHA, "b"), "remote-server-not-found");
        pass(1);
        assert_false(remote_disposable(r, fake.now));
    }
    assert_true(most - least > 8000); /* there is jitter */
    uint64_t due;
    assert_true(remote_due(r, &due) && due > fake.now);
    pass(due - fake.now); /* it did not try again: forgotten */
    assert_true(remote_disposable(r, fake.now));
    assert_false(remote_due(r, &due));
    assert_in_range(fail_once(), 800, 1200);
}

static void test_success_forgives(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        pass(fail_once());
    ask("i", 1, 20000);
    get_ready(1);
    expect("VERIFY:i ");
    answered("i", VERDICT_INVALID); /* any answer is a success of the stream */
    expect("VERDICT1:invalid ");
    lose();
    assert_in_range(fail_once(), 800, 1200);
}

/* The other side has shown itself: what comes now is tried at once, and the next failure is a
 * first. */
static void test_retry(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        pass(fail_once());
    uint64_t wait = fail_once();
    remote_retry(r, fake.now);
    assert_null(stanza(ALPHA, "b"));
    get_ready(1);
    remote_retry(r, fake.now); /* nothing to end */
    expect("PAIR:alpha.lab ");
    pass(wait); /* the end of that back-off means nothing any more */
    expect("");
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:b ");
    lose();
    assert_in_range(fail_once(), 800, 1200);
}

/* A pair that needs another way takes what waits for it along, in its order; the others stay. */
static void test_take(void **state)
{
    (void)state;
    struct span st;
    assert_false(remote_take(r, GAMMA, &st));
    assert_null(stanza(ALPHA, "a1"));
    assert_null(stanza(GAMMA, "g1"));
    assert_null(stanza(GAMMA, "g2"));
    get_ready(1);
    expect("PAIR:alpha.lab PAIR:gamma.lab ");
    for (int i = 1; i < 3; i++) {
        assert_true(remote_take(r, GAMMA, &st));
        assert_true(str_is(st.s, i == 1 ? "g1" : "g2"));
        span_release(&st);
    }
    assert_false(remote_take(r, GAMMA, &st));
    assert_int_equal(remote_queued(r), 1);
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:a1 ");
    assert_null(stanza(GAMMA, "g3")); /* and it may be tried here again */
    expect("PAIR:gamma.lab ");
    remote_pair_result(r, GAMMA, PAIR_ALONE, STR_NONE, fake.now);
    expect("BOUNCE:g3:remote-server-timeout ");
}

/* ---- carriers -------------------------------------------------------------------------------- */

/* Nothing is dialled for what a carrier takes; what it does not take waits for it. */
static void test_carrier(void **state)
{
    (void)state;
    carrier_open = true;
    assert_true(remote_carry(r, ALPHA, 7, fake.now));
    assert_false(remote_carry(r, ALPHA, 8, fake.now));
    assert_int_equal(remote_carrier(r, ALPHA), 7);
    assert_int_equal(remote_carrier(r, GAMMA), 0);
    assert_true(remote_may_send(r, ALPHA));
    assert_false(remote_disposable(r, fake.now));
    carrier_open = false;
    assert_null(stanza(ALPHA, "a1"));
    assert_null(stanza(ALPHA, "a2"));
    assert_false(remote_may_send(r, ALPHA));
    expect("");
    assert_int_equal(remote_state_of(r), REMOTE_IDLE);
    carrier_open = true;
    expect("BACK:a1 BACK:a2 ");
    assert_true(remote_may_send(r, ALPHA));
    /* Another pair goes its own way meanwhile, and its failure is not this one's. */
    assert_null(stanza(GAMMA, "g1"));
    expect("RESOLVE ");
    carrier_open = false;
    assert_null(stanza(ALPHA, "a3"));
    remote_resolve_failed(r, STR("no such domain"), fake.now);
    expect("BOUNCE:g1:remote-server-not-found ");
    assert_null(stanza(ALPHA, "a4"));
    carrier_open = true;
    expect("BACK:a3 BACK:a4 ");
    remote_uncarry(r, ALPHA, 6, fake.now); /* another one */
    assert_int_equal(remote_carrier(r, ALPHA), 7);
    remote_uncarry(r, ALPHA, 7, fake.now);
    assert_string_equal(stanza(ALPHA, "a5"), "remote-server-not-found"); /* the back-off */
}

/* What it gives back and what waited behind it go by a stream of our own, in order. */
static void test_carrier_ends(void **state)
{
    (void)state;
    carrier_open = true;
    assert_true(remote_carry(r, ALPHA, 7, fake.now));
    carrier_open = false;
    assert_null(stanza(ALPHA, "a3"));
    assert_true(remote_unsent(r, ALPHA, STR("a2"), fake.now));
    assert_true(remote_unsent(r, ALPHA, STR("a1"), fake.now));
    expect("");
    remote_uncarry(r, ALPHA, 7, fake.now);
    assert_false(remote_carry(r, ALPHA, 8, fake.now)); /* they wait for the other way */
    get_ready(1);
    expect("PAIR:alpha.lab ");
    assert_false(remote_carry(r, ALPHA, 8, fake.now));
    remote_pair_result(r, ALPHA, PAIR_VALID, STR_NONE, fake.now);
    expect("SEND:a1 SEND:a2 SEND:a3 ");
    assert_false(remote_carry(r, ALPHA, 8, fake.now)); /* the stream carries it */
    assert_true(remote_carry(r, GAMMA, 8, fake.now));  /* and not this one */
    lose();
    expect("");
    assert_true(remote_carry(r, ALPHA, 8, fake.now));
}

/* Back-off bounces what a carrier has given back; waiting too long does for what waits for it. */
static void test_carrier_fails(void **state)
{
    (void)state;
    carrier_open = false;
    assert_null(stanza(GAMMA, "g1"));
    expect("RESOLVE ");
    remote_resolve_failed(r, STR("no such domain"), fake.now);
    expect("BOUNCE:g1:remote-server-not-found ");
    assert_true(remote_carry(r, ALPHA, 7, fake.now));
    assert_null(stanza(ALPHA, "a1"));
    remote_uncarry(r, ALPHA, 7, fake.now);
    expect("BOUNCE:a1:remote-server-not-found ");
    pass(5000);
    assert_true(remote_carry(r, ALPHA, 9, fake.now));
    assert_null(stanza(ALPHA, "a2"));
    uint64_t due = 0;
    assert_true(remote_due(r, &due));
    assert_int_equal(due, fake.now + settings.queue_ms);
    pass(settings.queue_ms);
    expect("BOUNCE:a2:remote-server-timeout ");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(test_way_out),        T(test_limits),           T(test_conditions),
        T(test_setup_deadline), T(test_expiry),           T(test_attempt_without_purpose),
        T(test_invalid),        T(test_lost_stream),      T(test_fruitless),
        T(test_useless_target), T(test_late_return),      T(test_reset),
        T(test_backoff),        T(test_success_forgives), T(test_retry),
        T(test_take),           T(test_carrier),          T(test_carrier_ends),
        T(test_carrier_fails),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
