/* What a conn finds out by itself: TLS from the first byte on, and a peer whose machine is gone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/tcp.h>

#include "core/net/session.h"
#include "tests/driver/side.h"

#define STANZA "<message id='1' from='a.lab' to='b.lab'/>"

/* ---- TLS or not ------------------------------------------------------------------------------ */

/* The conn is `s` and looks at the first byte, the test holds the other end. */
static int detect_open_as(struct world *w, struct side *s, struct tls_ctx *ctx, bool tls_only)
{
    int fd[2];
    struct conn_options opt = plain_options;
    opt.detect_tls = true;
    opt.tls_only = tls_only;
    opt.tls_ctx = ctx;
    opt.tls_domain = "b.lab";
    world_open(w);
    loopback_pair(fd, 0);
    side_open_with(s, w, fd[0], &opt);
    return fd[1];
}

static int detect_open(struct world *w, struct side *s, struct tls_ctx *ctx)
{
    return detect_open_as(w, s, ctx, false);
}

static void detect_close(struct world *w, struct side *s, int fd)
{
    side_end(s, w);
    close(fd);
    world_close(w);
}

static void turns(struct world *w)
{
    for (int i = 0; i < 20; i++)
        turn_once(w);
}

static void check_up(struct side *s, const struct gw_event *ev)
{
    if (ev->kind != EV_TLS_UP)
        return;
    assert_true(logged(s, "T")); /* before anything else */
    assert_true(conn_encrypted(s->c));
    assert_ptr_equal(ev->u.tls, conn_tls_peer(s->c));
}

/* A peer that begins with TLS and sends a stream; `step` bytes at a time, 0: as they come. */
static void detected(size_t step)
{
    struct world w;
    struct side s;
    struct tls_ctx *ctx = ctx_for("b.lab"), *peer = ctx_for("a.lab");
    struct raw_tls r = {detect_open(&w, &s, ctx), tls_engine_new(peer, false, NULL, "b.lab")};
    s.hook = check_up;
    bool shaken = false, said = false;
    while (s.stanzas < 2) {
        char b[4096];
        shaken = tls_engine_handshake(r.e) == TLS_OK;
        if (shaken && !said)
            assert_int_equal(tls_engine_write(r.e, STR(HEADER STANZA STANZA)), TLS_OK);
        said = shaken;
        struct str out = tls_engine_wire(r.e);
        size_t part = step > 0 && out.n > step ? step : out.n;
        ssize_t n = part > 0 ? write(r.fd, out.p, part) : 0;
        tls_engine_wire_taken(r.e, n > 0 ? (size_t)n : 0);
        turn_once(&w);
        n = read(r.fd, b, sizeof b);
        if (n > 0)
            assert_true(tls_engine_put_wire(r.e, (struct str){b, (size_t)n}));
        assert_null(strpbrk(s.log.len ? s.log.p : "", "LFX"));
    }
    assert_true(logged(&s, "TO"));
    assert_true(tls_engine_peer(r.e)->has_certificate);
    tls_engine_free(r.e);
    detect_close(&w, &s, r.fd);
    tls_ctx_unref(ctx);
    tls_ctx_unref(peer);
}

static void test_tls(void **state)
{
    (void)state;
    detected(0);
}

static void test_tls_byte_by_byte(void **state)
{
    (void)state;
    detected(1);
}

/* XML is what it always was, in one piece or byte by byte, and whatever the first byte is. */
static void test_clear(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct tls_ctx *ctx = ctx_for("b.lab");
    int fd = detect_open(&w, &s, ctx);
    put(fd, HEADER STANZA STANZA "</stream:stream>");
    SPIN_UNTIL(&w, logged(&s, "OC"));
    assert_int_equal(s.stanzas, 2);
    assert_false(conn_encrypted(s.c));
    assert_int_equal(conn_bytes_in(s.c), strlen(HEADER STANZA STANZA "</stream:stream>"));
    detect_close(&w, &s, fd);

    fd = detect_open(&w, &s, ctx);
    for (const char *p = "\n" HEADER STANZA; *p != '\0'; p++) {
        assert_int_equal(write(fd, p, 1), 1);
        turn_once(&w);
    }
    SPIN_UNTIL(&w, s.stanzas == 1);
    assert_true(logged(&s, "O"));
    put(fd, "\x16"); /* not the first byte any more */
    SPIN_UNTIL(&w, logged(&s, "OX"));
    detect_close(&w, &s, fd);

    fd = detect_open(&w, &s, ctx);
    put(fd, "\x15\x03\x01");
    SPIN_UNTIL(&w, logged(&s, "X"));
    detect_close(&w, &s, fd);
    tls_ctx_unref(ctx);
}

/* At a door of direct TLS alone nothing in clear is read. */
static void test_tls_only(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct tls_ctx *ctx = ctx_for("b.lab");
    int fd = detect_open_as(&w, &s, ctx, true);
    put(fd, HEADER STANZA);
    SPIN_UNTIL(&w, logged(&s, "F"));
    assert_non_null(strstr(s.text, "not TLS"));
    turns(&w);
    assert_true(logged(&s, "F"));
    assert_int_equal(s.stanzas, 0);
    detect_close(&w, &s, fd);
    tls_ctx_unref(ctx);
}

static void test_garbage_and_ends(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    struct tls_ctx *ctx = ctx_for("b.lab");
    int fd = detect_open(&w, &s, ctx);
    put(fd, "\x16<stream:stream xmlns='jabber:server'>");
    SPIN_UNTIL(&w, logged(&s, "F"));
    assert_true(s.text[0] != '\0');
    turns(&w);
    assert_true(logged(&s, "F"));
    detect_close(&w, &s, fd);

    fd = detect_open(&w, &s, ctx); /* only the first byte, then the end */
    put(fd, "\x16");
    turns(&w);
    assert_true(logged(&s, ""));
    shutdown(fd, SHUT_WR);
    SPIN_UNTIL(&w, logged(&s, "F"));
    assert_string_equal(s.text, "peer closed during the handshake");
    detect_close(&w, &s, fd);

    fd = detect_open(&w, &s, ctx); /* not even that */
    shutdown(fd, SHUT_WR);
    SPIN_UNTIL(&w, logged(&s, "L"));
    detect_close(&w, &s, fd);
    tls_ctx_unref(ctx);
}

static void test_no_context_is_clear(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = detect_open(&w, &s, NULL);
    put(fd, "\x16\x03\x01");
    SPIN_UNTIL(&w, logged(&s, "X"));
    detect_close(&w, &s, fd);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct tls_ctx *ctx = ctx_for("b.lab");
    for (unsigned long n = 1; n < 4; n++) {
        struct world w;
        struct side s;
        int fd = detect_open(&w, &s, ctx);
        turn_once(&w);
        put(fd, "\x16\x03\x01");
        mem_fail_after(n);
        turns(&w);
        mem_fail_after(0);
        assert_true(logged(&s, "") || logged(&s, "L") || logged(&s, "F"));
        if (n == 1)
            assert_string_equal(s.text, "out of memory");
        detect_close(&w, &s, fd);
    }
    tls_ctx_unref(ctx);
}

/* ---- through a session ----------------------------------------------------------------------- */

struct guest {
    struct session session; /* first */
    struct buf seen;
    bool closed;
};

static void guest_step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct guest *g = machine;
    if (ev->kind == EV_OPENED)
        return;
    buf_putc(&g->seen, letter(ev->kind));
    if (ev->kind == EV_TLS_UP)
        gw_send(out, HEADER);
    if (ev->kind == EV_LOST)
        gw_close(out, END_LOST, true);
}

static void guest_act(struct session *s, const struct gw_event *ev, const struct gw_action *act)
{
    (void)s, (void)ev, (void)act;
}

static void guest_ended(struct session *s, enum end_reason reason, struct str text)
{
    (void)s, (void)reason, (void)text;
}

static void guest_closed(struct session *s)
{
    ((struct guest *)s)->closed = true;
}

static void test_session(void **state)
{
    (void)state;
    static const struct session_ops guest_ops = {guest_step, guest_act, guest_ended,
                                                 NULL,       NULL,      guest_closed};
    struct world w;
    struct side a;
    struct guest g = {.seen = BUF_INIT(64)};
    struct tls_ctx *ctx = ctx_for("b.lab"), *peer = ctx_for("a.lab");
    int fd[2];
    world_open(&w);
    loopback_pair(fd, 0);
    side_open(&a, &w, fd[0]);
    conn_start_tls(a.c, peer, false, NULL, "b.lab");
    g.session.ops = &guest_ops;
    g.session.machine = &g;
    g.session.tls = (struct session_tls){.ctx = ctx, .domain = "b.lab"};
    struct conn_options opt = plain_options;
    opt.detect_tls = true;
    assert_true(session_start(&g.session, &w.loop, loopback_tcp(&w, fd[1]), &opt));
    SPIN_UNTIL(&w, logged(&a, "TO")); /* the header that the machine sent after EV_TLS_UP */
    say(&a, HEADER);
    SPIN_UNTIL(&w, str_is(buf_view(&g.seen), "TO"));
    side_end(&a, &w);
    SPIN_UNTIL(&w, g.closed);
    buf_free(&g.seen);
    world_close(&w);
    tls_ctx_unref(ctx);
    tls_ctx_unref(peer);
}

/* ---- a peer whose machine is gone ------------------------------------------------------------ */

enum { DEAD_MS = 3000 };

static int watched_open(struct world *w, struct side *s, uint64_t dead_ms, int buffer)
{
    int fd[2];
    struct conn_options opt = plain_options;
    opt.dead_ms = dead_ms;
    world_open(w);
    loopback_pair(fd, buffer);
    side_open_with(s, w, fd[0], &opt);
    turn_once(w);
    return fd[1];
}

static int option(const struct side *s, int level, int name)
{
    uv_os_fd_t fd;
    int v = -1;
    socklen_t n = sizeof v;
    assert_int_equal(uv_fileno((uv_handle_t *)s->c->tcp, &fd), 0);
    assert_int_equal(getsockopt(fd, level, name, &v, &n), 0);
    return v;
}

/* Lets real time pass without burning it: the kernel's clock cannot be moved. */
static uint64_t wait_for(struct world *w, const struct side *s, const char *letters, uint64_t most)
{
    uint64_t begin = env_now(&env_system);
    while (!logged(s, letters) && env_now(&env_system) - begin < most) {
        usleep(5000);
        turn_once(w);
    }
    return env_now(&env_system) - begin;
}

static void test_dead_while_idle(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    loopback_need_filters();
    int fd = watched_open(&w, &s, 10000, 0);
    assert_int_equal(option(&s, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(&s, IPPROTO_TCP, TCP_KEEPIDLE), 4);
    assert_int_equal(option(&s, IPPROTO_TCP, TCP_KEEPINTVL), 2);
    assert_int_equal(option(&s, IPPROTO_TCP, TCP_KEEPCNT), 2);
    assert_int_equal(option(&s, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
    detect_close(&w, &s, fd);

    fd = watched_open(&w, &s, 0, 0);
    assert_int_equal(option(&s, IPPROTO_TCP, TCP_KEEPIDLE), 60);
    detect_close(&w, &s, fd);

    fd = watched_open(&w, &s, DEAD_MS, 0);
    loopback_cut(fd);
    assert_in_range(wait_for(&w, &s, "L", 10000), 1000, DEAD_MS + 1000);
    assert_string_equal(s.text, "connection timed out");
    detect_close(&w, &s, fd);
}

static void test_dead_with_bytes_under_way(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    loopback_need_filters();
    int fd = watched_open(&w, &s, DEAD_MS, 0);
    say(&s, HEADER); /* and the peer's kernel acknowledges */
    wait_for(&w, &s, "L", DEAD_MS + 500);
    assert_true(logged(&s, ""));
    loopback_cut(fd);
    say_numbered(&s, 1, 1);
    assert_in_range(wait_for(&w, &s, "L", 10000), DEAD_MS / 2, DEAD_MS + 500);
    assert_string_equal(s.text, "connection timed out");
    detect_close(&w, &s, fd);
}

/* Nothing is read for longer than dead_ms: that peer is slow, not dead. */
static void test_slow_is_not_dead(void **state)
{
    (void)state;
    struct world w;
    struct side s;
    int fd = watched_open(&w, &s, DEAD_MS, 4096);
    say_numbered(&s, 1, FLIGHT);
    wait_for(&w, &s, "L", 2 * DEAD_MS);
    assert_true(logged(&s, ""));
    assert_true(conn_queued(s.c) > 0);
    char b[65536];
    size_t got = 0;
    ssize_t n;
    uint64_t until = env_now(&env_system) + 20000;
    while (got < (size_t)FLIGHT * NUMBERED && env_now(&env_system) < until) {
        turn_once(&w);
        if ((n = read(fd, b, sizeof b)) > 0)
            got += (size_t)n;
    }
    assert_int_equal(got, (size_t)FLIGHT * NUMBERED);
    assert_true(logged(&s, ""));
    detect_close(&w, &s, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_tls_byte_by_byte),
        cmocka_unit_test(test_clear),
        cmocka_unit_test(test_tls_only),
        cmocka_unit_test(test_garbage_and_ends),
        cmocka_unit_test(test_no_context_is_clear),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_dead_while_idle),
        cmocka_unit_test(test_dead_with_bytes_under_way),
        cmocka_unit_test(test_slow_is_not_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
