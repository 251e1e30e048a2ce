/* What a conn sent and what it did not: exact to the byte, in clear and under TLS. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/driver/side.h"

static unsigned number_of(struct str stanza)
{
    const char *id = memmem(stanza.p, stanza.n, "id='", 4);
    unsigned n = 0;
    for (id += 4; *id != '\''; id++)
        n = n * 10 + (unsigned)(*id - '0');
    return n;
}

/* Takes everything back, closes, and compares with what the peer got. */
static void check_unsent(struct world *w, struct side *s, struct raw_tls *r)
{
    unsigned first = 0, last = 0, taken = 0, cut = 0;
    bool partial;
    struct span back;
    while (conn_unsent(s->c, &back, &partial)) {
        unsigned n = number_of(back.s);
        assert_true(taken == 0 || n == last + 1);
        if (taken++ == 0)
            first = n;
        if (partial) {
            assert_int_equal(cut, 0);
            assert_int_equal(n, first);
            cut = n;
        }
        last = n;
        span_release(&back);
    }
    assert_int_equal(last, FLIGHT);
    assert_int_equal(s->sent, first - 1);
    conn_close(s->c, false, 5000);
    struct buf got = BUF_INIT(4 << 20);
    raw_drain(w, r, &got);
    size_t whole = (size_t)(first - 1) * NUMBERED;
    if (cut != 0)
        assert_in_range(got.len, whole + 1, whole + NUMBERED - 1);
    else
        assert_int_equal(got.len, whole);
    buf_free(&got);
}

static void test_unsent_in_clear(void **state)
{
    (void)state;
    /* Different amounts that the peer reads before it stops make different cuts. */
    for (size_t appetite = 0; appetite < 20000; appetite += 1931) {
        struct world w;
        struct side s;
        struct raw_tls r = {raw_open(&w, &s, 4096), NULL};
        say_numbered(&s, 1, FLIGHT);
        SPIN_UNTIL(&w, s.c->waiting);
        struct buf early = BUF_INIT(1 << 20);
        char b[512];
        while (early.len < appetite) {
            ssize_t n = read(r.fd, b, sizeof b);
            if (n > 0)
                buf_put(&early, b, (size_t)n);
            turn_once(&w);
        }
        SPIN_UNTIL(&w, s.c->waiting);
        unsigned first = 0, cut = 0;
        bool partial;
        struct span back;
        while (conn_unsent(s.c, &back, &partial)) {
            if (first == 0)
                first = number_of(back.s);
            if (partial)
                cut = number_of(back.s);
            span_release(&back);
        }
        assert_int_equal(s.sent, first - 1);
        assert_true(cut == 0 || cut == first);
        assert_true(conn_bytes_out(s.c) < (uint64_t)FLIGHT * NUMBERED);
        uint64_t out = conn_bytes_out(s.c);
        conn_close(s.c, false, 5000);
        raw_drain(&w, &r, &early);
        assert_int_equal(early.len, out);
        size_t whole = (size_t)(first - 1) * NUMBERED;
        if (cut != 0)
            assert_in_range(early.len, whole + 1, whole + NUMBERED - 1);
        else
            assert_int_equal(early.len, whole);
        buf_free(&early);
        close(r.fd);
        side_end(&s, &w);
        world_close(&w);
    }
}

static void test_unsent_in_tls(void **state)
{
    (void)state;
    struct tls_ctx *ctx = ctx_for("a.lab");
    for (int i = 0; i < 6; i++) {
        struct world w;
        struct side s;
        struct raw_tls r = {raw_open(&w, &s, 4096 + 1500 * i), NULL};
        r.e = tls_engine_new(ctx, false, NULL, "a.lab");
        conn_start_tls(s.c, ctx, true, "a.lab", NULL);
        SPIN_UNTIL(&w, raw_shake(&r) && logged(&s, "T"));
        say_numbered(&s, 1, FLIGHT);
        SPIN_UNTIL(&w, s.c->waiting);
        assert_true(conn_queued(s.c) > 0);
        check_unsent(&w, &s, &r);
        tls_engine_free(r.e);
        close(r.fd);
        side_end(&s, &w);
        world_close(&w);
    }
    tls_ctx_unref(ctx);
}

static void test_unsent_before_the_first_byte(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct raw_tls r = {raw_open(&w, &s, 0), NULL};
    say(&s, HEADER);
    say_numbered(&s, 1, FLIGHT);
    struct span back;
    bool partial;
    for (unsigned n = 1; n <= FLIGHT; n++) {
        assert_true(conn_unsent(s.c, &back, &partial));
        assert_false(partial);
        assert_int_equal(number_of(back.s), n);
        span_release(&back);
    }
    assert_false(conn_unsent(s.c, &back, &partial));
    say(&s, "</stream:stream>"); /* the rest still goes out in good order */
    conn_close(s.c, false, 5000);
    struct buf got = BUF_INIT(4096);
    raw_drain(&w, &r, &got);
    assert_string_equal(got.p, HEADER "</stream:stream>");
    buf_free(&got);
    close(r.fd);
    side_end(&s, &w);
    world_close(&w);
}

static void test_unsent_after_reset(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = raw_open(&w, &s, 4096);
    say_numbered(&s, 1, FLIGHT);
    SPIN_UNTIL(&w, s.c->waiting);
    struct linger hard = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    SPIN_UNTIL(&w, logged(&s, "L"));
    assert_string_equal(s.text, "connection reset by peer");
    struct span back;
    size_t n = 0, cuts = 0;
    bool partial;
    while (conn_unsent(s.c, &back, &partial)) {
        n++;
        cuts += partial;
        span_release(&back);
    }
    assert_int_equal(n + s.sent, FLIGHT);
    assert_true(cuts <= 1);
    side_end(&s, &w);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsent_in_clear),
        cmocka_unit_test(test_unsent_in_tls),
        cmocka_unit_test(test_unsent_before_the_first_byte),
        cmocka_unit_test(test_unsent_after_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
