/* Conns over loopback sockets: against each other, and against a peer driven by hand. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/driver/side.h"

/* ---- exchange -------------------------------------------------------------------------------- */

static void test_exchange(void **state)
{
    (void)state;
    struct world w;
    struct side a, b;
    pair_open(&w, &a, &b);
    say(&a, "<?xml version='1.0'?>" HEADER);
    say(&b, HEADER "<stream:features/>");
    say_numbered(&a, 1, 500);
    say(&a, "</stream:stream>");
    SPIN_UNTIL(&w, logged(&b, "OC"));
    assert_int_equal(b.stanzas, 500);
    assert_true(b.in_order);
    assert_int_equal(a.sent, 500);
    assert_int_equal(a.sent_bytes, 500 * NUMBERED);
    assert_int_equal(conn_queued(a.c), 0);
    assert_int_equal(conn_bytes_in(b.c), conn_bytes_out(a.c));
    SPIN_UNTIL(&w, logged(&a, "ON"));
    assert_false(conn_encrypted(a.c));
    conn_judge(a.c, "none.pem"); /* in clear there is nobody to judge */
    assert_null(conn_tls_peer(a.c));
    assert_int_equal(conn_peer(a.c)->port, conn_local(b.c)->port);
    assert_int_equal(conn_peer(a.c)->ip.len, 4);

    say(&b, "</stream:stream>");
    conn_close(b.c, false, 5000); /* the text goes out first */
    SPIN_UNTIL(&w, logged(&a, "ONCL"));
    assert_string_equal(a.text, "peer closed the connection");
    assert_false(b.closed); /* waits for the other end */
    conn_close(a.c, false, 5000);
    loop_run(&w.loop); /* ends by itself */
    assert_true(a.closed && b.closed);
    side_end(&a, &w);
    side_end(&b, &w);
    world_close(&w);
}

static void test_one_byte_at_a_time(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 0);
    const char *text = HEADER "<message id='1' from='a.lab' to='b.lab'/></stream:stream>";
    for (const char *p = text; *p != '\0'; p++) {
        assert_int_equal(write(fd, p, 1), 1);
        uint64_t want = (uint64_t)(p - text) + 1;
        SPIN_UNTIL(&w, conn_bytes_in(s.c) == want);
    }
    assert_true(logged(&s, "OC"));
    assert_int_equal(s.stanzas, 1);
    close(fd);
    SPIN_UNTIL(&w, logged(&s, "OCL"));
    side_end(&s, &w);
    world_close(&w);
}

static void test_causes_of_loss(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 0);
    put(fd, HEADER "<message id='1' from='a.lab' to='b.lab'/><mess");
    shutdown(fd, SHUT_WR); /* half-closed: what came is processed, then it is over */
    SPIN_UNTIL(&w, logged(&s, "OL"));
    assert_int_equal(s.stanzas, 1);
    assert_string_equal(s.text, "peer closed the connection without closing the stream");
    side_end(&s, &w);
    close(fd);
    world_close(&w);

    fd = raw_open(&w, &s, 0);
    struct linger hard = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    SPIN_UNTIL(&w, logged(&s, "L"));
    assert_string_equal(s.text, "connection reset by peer");
    side_end(&s, &w);
    world_close(&w);

    fd = raw_open(&w, &s, 0);
    put(fd, HEADER "<a><b></a>");
    SPIN_UNTIL(&w, logged(&s, "OX"));
    assert_true(str_starts(str_c(s.text), "not-well-formed: "));
    close(fd);
    side_end(&s, &w);
    world_close(&w);
}

/* ---- STARTTLS -------------------------------------------------------------------------------- */

static void server_hook(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_NONZA && nonza_is(ev->u.nonza, NS_TLS, "starttls")) {
        say(s, PROCEED);
        conn_start_tls(s->c, s->ctx, true, "b.lab", NULL);
    } else if (ev->kind == EV_TLS_UP) {
        assert_ptr_equal(ev->u.tls, conn_tls_peer(s->c));
        conn_reset_stream(s->c);
    }
}

static void client_hook(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_NONZA && nonza_is(ev->u.nonza, NS_TLS, "proceed")) {
        conn_start_tls(s->c, s->ctx, false, "a.lab", "b.lab");
    } else if (ev->kind == EV_TLS_UP) {
        conn_reset_stream(s->c);
        say(s, HEADER);
    }
}

static void tls_pair(struct world *w, struct side *a, struct side *b)
{
    pair_open(w, a, b);
    a->ctx = ctx_for("a.lab");
    b->ctx = ctx_for("b.lab");
    a->hook = client_hook;
    b->hook = server_hook;
    say(b, HEADER);
    say(a, HEADER STARTTLS);
    SPIN_UNTIL(w, logged(b, "ONTO") && logged(a, "ONT"));
}

static void tls_pair_end(struct world *w, struct side *a, struct side *b)
{
    tls_ctx_unref(a->ctx);
    tls_ctx_unref(b->ctx);
    side_end(a, w);
    side_end(b, w);
    world_close(w);
}

static void test_starttls(void **state)
{
    (void)state;
    struct world w;
    struct side a, b;
    tls_pair(&w, &a, &b);
    assert_true(conn_encrypted(a.c) && conn_encrypted(b.c));
    assert_string_equal(conn_tls_peer(b.c)->protocol, "TLSv1.3");
    assert_true(conn_tls_peer(b.c)->has_certificate);
    assert_string_equal(conn_tls_peer(b.c)->why, "self-signed");
    conn_judge(b.c, "none.pem"); /* the same facts, judged by others */
    assert_string_equal(conn_tls_peer(b.c)->why, "the authorities for this peer are not loaded");
    conn_judge(b.c, NULL);
    assert_string_equal(conn_tls_peer(b.c)->why, "self-signed");
    say_numbered(&a, 1, FLIGHT);
    SPIN_UNTIL(&w, b.stanzas == FLIGHT && a.sent == FLIGHT);
    assert_true(b.in_order);
    assert_int_equal(a.sent_bytes, FLIGHT * NUMBERED);
    assert_int_equal(conn_queued(a.c), 0);
    assert_int_equal(conn_bytes_in(b.c), conn_bytes_out(a.c));
    assert_int_equal(a.drained, 1);

    /* Close-notify reaches the other side after the last text. */
    say(&a, "</stream:stream>");
    conn_close(a.c, false, 5000);
    SPIN_UNTIL(&w, logged(&b, "ONTOCL"));
    assert_string_equal(b.text, "peer closed the connection");
    tls_pair_end(&w, &a, &b);
}

static void test_large_pieces_over_tls(void **state)
{
    (void)state;
    struct world w;
    struct side a, b;
    tls_pair(&w, &a, &b);
    static char body[200000];
    memset(body, 'y', sizeof body);
    for (int i = 0; i < 5; i++) {
        say(&a, "<message id='1' from='u@a.lab' to='v@b.lab'><body>");
        conn_send(a.c, (struct str){body, sizeof body});
        say(&a, "</body></message>");
    }
    SPIN_UNTIL(&w, b.stanzas == 5);
    assert_int_equal(conn_bytes_in(b.c), conn_bytes_out(a.c));
    tls_pair_end(&w, &a, &b);
}

static void test_clear_bytes_after_starttls(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 0);
    s.ctx = ctx_for("b.lab");
    s.hook = server_hook;
    put(fd, HEADER STARTTLS "<message id='1' from='a.lab' to='b.lab'/>");
    SPIN_UNTIL(&w, logged(&s, "ONX"));
    assert_string_equal(s.text, "policy-violation: bytes in clear after STARTTLS");
    assert_int_equal(s.stanzas, 0);
    assert_false(conn_encrypted(s.c));
    for (int i = 0; i < 20; i++)
        turn_once(&w);
    assert_true(logged(&s, "ONX")); /* and nothing after */
    side_end(&s, &w);
    close(fd);
    world_close(&w);
    tls_ctx_unref(s.ctx);
}

static void test_handshake_failures(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct tls_ctx *ctx = ctx_for("b.lab");
    int fd = raw_open(&w, &s, 0);
    s.ctx = ctx;
    s.hook = server_hook;
    put(fd, HEADER STARTTLS "\n");
    SPIN_UNTIL(&w, logged(&s, "ON"));
    put(fd, "<message id='1' from='a.lab' to='b.lab'/>");
    SPIN_UNTIL(&w, logged(&s, "ONF"));
    assert_string_equal(s.text, "not TLS: got XML");
    say(&s, "never in clear");
    conn_close(s.c, false, 5000);
    char got[4096];
    ssize_t n = 0, total = 0;
    shutdown(fd, SHUT_WR);
    SPIN_UNTIL(&w, s.closed);
    while ((n = read(fd, got + total, sizeof got - (size_t)total)) > 0)
        total += n;
    assert_int_equal(n, 0);
    assert_null(memmem(got, (size_t)total, "never", 5));
    assert_non_null(memmem(got, (size_t)total, PROCEED, strlen(PROCEED)));
    close(fd);
    side_end(&s, &w);
    world_close(&w);

    fd = raw_open(&w, &s, 0);
    conn_start_tls(s.c, ctx, false, NULL, "a.lab"); /* direct TLS */
    SPIN_UNTIL(&w, conn_bytes_out(s.c) > 0);
    shutdown(fd, SHUT_WR);
    SPIN_UNTIL(&w, logged(&s, "F"));
    assert_string_equal(s.text, "peer closed during the handshake");
    side_end(&s, &w);
    close(fd);
    world_close(&w);
    tls_ctx_unref(ctx);
}

/* ---- fairness and back-pressure -------------------------------------------------------------- */

static void note_flood(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_STANZA)
        s->noted = *s->other;
}

static void test_fairness(void **state)
{
    (void)state;
    struct world w;
    struct side flooded, quiet;
    int fd[2];
    int flood = raw_open(&w, &flooded, 0);
    loopback_pair(fd, 0);
    side_open(&quiet, &w, fd[0]);
    quiet.hook = note_flood;
    quiet.other = &flooded.stanzas;
    put(flood, HEADER);
    put(fd[1], HEADER);
    SPIN_UNTIL(&w, logged(&flooded, "O") && logged(&quiet, "O"));
    size_t written = 0;
    for (;;) {
        struct span s = numbered((unsigned)written + 1);
        ssize_t n = write(flood, s.s.p, s.s.n);
        span_release(&s);
        if (n != NUMBERED)
            break;
        written++;
    }
    assert_in_range(written, 1000, 1000000);
    struct span one = numbered(1);
    assert_int_equal(write(fd[1], one.s.p, one.s.n), NUMBERED);
    span_release(&one);
    SPIN_UNTIL(&w, quiet.stanzas == 1);
    assert_in_range(quiet.noted, 0, 128);
    SPIN_UNTIL(&w, flooded.stanzas == written);
    assert_true(flooded.in_order);
    close(flood);
    close(fd[1]);
    side_end(&flooded, &w);
    side_end(&quiet, &w);
    world_close(&w);
}

static void pause_at_first(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_STANZA && s->stanzas == 1) {
        conn_pause(s->c);
        conn_pause(s->c);
    }
}

static void test_pause_and_resume(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 0);
    s.hook = pause_at_first;
    put(fd, HEADER "<message id='1' to='b.lab' from='a.lab'/><message id='2' to='b.lab' "
                   "from='a.lab'/>");
    SPIN_UNTIL(&w, s.stanzas == 1);
    put(fd, "<message id='3' to='b.lab' from='a.lab'/>");
    close(fd);
    uint64_t in = conn_bytes_in(s.c);
    for (int i = 0; i < 50; i++)
        turn_once(&w);
    conn_resume(s.c);
    for (int i = 0; i < 50; i++)
        turn_once(&w);
    assert_int_equal(s.stanzas, 1); /* counted: one pause is left */
    assert_int_equal(conn_bytes_in(s.c), in);
    conn_resume(s.c);
    SPIN_UNTIL(&w, logged(&s, "OL"));
    assert_int_equal(s.stanzas, 3);
    assert_true(s.in_order);
    side_end(&s, &w);
    world_close(&w);
}

static void test_marks(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct raw_tls r = {raw_open(&w, &s, 4096), NULL};
    say_numbered(&s, 1, FLIGHT);
    assert_true(conn_above_high(s.c));
    SPIN_UNTIL(&w, s.c->waiting);
    assert_true(conn_above_high(s.c));
    assert_int_equal(s.drained, 0);
    char b[4096];
    size_t total = 0;
    while (total < (size_t)FLIGHT * NUMBERED) {
        ssize_t n = read(r.fd, b, sizeof b);
        total += n > 0 ? (size_t)n : 0;
        turn_once(&w);
    }
    assert_int_equal(s.drained, 1);
    assert_int_equal(s.sent, FLIGHT);
    assert_false(conn_above_high(s.c));
    close(r.fd);
    side_end(&s, &w);
    world_close(&w);
}

static void test_relax(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 0);
    put(fd, HEADER "<message id='1' to='b.lab' from='a.lab'/>");
    SPIN_UNTIL(&w, s.stanzas == 1);
    size_t busy = conn_memory(s.c);
    w.skew += 4000;
    turn_once(&w);
    put(fd, "<message id='2' to='b.lab' from='a.lab'/>"); /* moves the relaxing on */
    SPIN_UNTIL(&w, s.stanzas == 2);
    w.skew += 2000;
    turn_once(&w);
    assert_true(conn_memory(s.c) >= busy);
    w.skew += 4000;
    turn_once(&w);
    assert_true(conn_memory(s.c) < busy);
    assert_int_equal(w.loop.timers.n, 0); /* no timer for an idle conn */
    put(fd, "<message id='3' to='b.lab' from='a.lab'/>");
    SPIN_UNTIL(&w, s.stanzas == 3);
    close(fd);
    side_end(&s, &w);
    world_close(&w);
}

/* ---- endings --------------------------------------------------------------------------------- */

static void abort_at_third(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_STANZA && s->stanzas == 3)
        conn_close(s->c, true, 0);
}

static void linger_at_third(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_STANZA && s->stanzas == 3) {
        say(s, "</stream:stream>");
        conn_close(s->c, false, 5000);
        conn_close(s->c, false, 1); /* a no-op */
        say(s, "too late");
        struct span late = numbered(1);
        assert_false(conn_send_stanza(s->c, late));
        span_release(&late);
        assert_false(conn_unsent(s->c, &late, NULL));
    }
}

static void close_from_callback(void (*hook)(struct side *, const struct gw_event *),
                                const char *want)
{
    struct world w;
    struct side s;
    struct raw_tls r = {raw_open(&w, &s, 0), NULL};
    s.hook = hook;
    char text[4096] = HEADER;
    size_t at = strlen(text);
    for (int i = 1; i <= 10; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "<iq id='%d' type='get' from='a.lab' to='b.lab'/>", i);
    put(r.fd, text);
    SPIN_UNTIL(&w, s.stanzas == 3);
    shutdown(r.fd, SHUT_WR);
    SPIN_UNTIL(&w, s.closed);
    assert_int_equal(s.stanzas, 3);
    assert_true(logged(&s, "O")); /* no LOST: we closed */
    if (want != NULL) {
        struct buf got = BUF_INIT(4096);
        raw_drain(&w, &r, &got);
        assert_string_equal(got.p, want);
        buf_free(&got);
    }
    close(r.fd);
    side_end(&s, &w);
    world_close(&w);
}

static void test_close_from_callback(void **state)
{
    (void)state;
    close_from_callback(abort_at_third, NULL);
    close_from_callback(linger_at_third, "</stream:stream>");
}

static void close_at_lost(struct side *s, const struct gw_event *ev)
{
    if (ev->kind == EV_LOST || ev->kind == EV_TLS_FAILED || ev->kind == EV_XML_ERROR)
        conn_close(s->c, false, 1000);
}

static void test_close_at_the_last_event(void **state)
{
    (void)state;
    const char *inputs[] = {HEADER, HEADER "<a></b>", "", HEADER "</stream:stream>"};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        struct world w;
        struct side s;
        int fd = raw_open(&w, &s, 0);
        s.hook = close_at_lost;
        put(fd, inputs[i]);
        close(fd);
        SPIN_UNTIL(&w, s.closed);
        side_end(&s, &w);
        world_close(&w);
    }
}

/* A conn that lingers ends by its timer, or at once by a second close. */
static void linger_ends(bool cut_short)
{
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 4096);
    say_numbered(&s, 1, FLIGHT); /* the peer reads nothing */
    conn_close(s.c, false, 60000);
    SPIN_UNTIL(&w, s.c->waiting);
    for (int i = 0; i < 50; i++)
        turn_once(&w);
    assert_false(s.closed);
    if (cut_short)
        conn_close(s.c, true, 0);
    else
        w.skew += 60001;
    SPIN_UNTIL(&w, s.closed);
    close(fd);
    side_end(&s, &w);
    world_close(&w);

    fd = raw_open(&w, &s, 0);
    say(&s, "bye");
    conn_close(s.c, false, 0); /* still one attempt */
    SPIN_UNTIL(&w, s.closed);
    char b[8];
    assert_int_equal(read(fd, b, sizeof b), 3);
    close(fd);
    side_end(&s, &w);
    world_close(&w);
}

static void test_linger_ends(void **state)
{
    (void)state;
    linger_ends(false);
    linger_ends(true);
}

/* Allocation failures end the conn with LOST or are reported; nothing leaks. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 40; n++) {
        struct world w;
        struct side s;
        int fd = raw_open(&w, &s, 0);
        struct span one = numbered(1);
        put(fd, HEADER "<message id='1' to='b.lab' from='a.lab'/>");
        mem_fail_after(n);
        say(&s, "<a/>");
        if (!conn_send_stanza(s.c, one))
            span_release(&one);
        for (int i = 0; i < 10; i++)
            turn_once(&w);
        mem_fail_after(0);
        SPIN_UNTIL(&w, s.stanzas == 1 || s.log.len > 0);
        close(fd);
        side_end(&s, &w);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_one_byte_at_a_time),
        cmocka_unit_test(test_causes_of_loss),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_large_pieces_over_tls),
        cmocka_unit_test(test_clear_bytes_after_starttls),
        cmocka_unit_test(test_handshake_failures),
        cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_relax),
        cmocka_unit_test(test_close_from_callback),
        cmocka_unit_test(test_close_at_the_last_event),
        cmocka_unit_test(test_linger_ends),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
