/* The relay: bytes both ways, half-closing, back-pressure, and each way to end. The first side is a
 * real TLS engine that the test drives by hand, the second one a socket. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/net/relay.h"
#include "core/tls/tls_engine.h"
#include "tests/driver/loopback.h"

enum {
    BUFFER = 64 * 1024,
    SMALL = 16 * 1024,
    BULK = 3 * 1024 * 1024,
    FIRST_WORD_MS = 5000,
    STALL_MS = 20000,
    HALF_MS = 8000,
    DRAIN_MS = 3000,
    DEAD_MS = 3000,
};

struct scene {
    struct world w;
    struct relay *r;
    int first, second; /* the far ends */
    uv_tcp_t *ours;    /* of the first one */
    uv_tcp_t *server;  /* ours of the second one, until it was joined */
    struct tls_ctx *ctx;
    struct tls_engine *e; /* of the far end; NULL: it does not speak TLS */
    struct buf got;       /* plain bytes that came to the first one's far end */
    bool far_closed;      /* and close-notify */
    unsigned secured, spoke, ended, closed;
    enum relay_end how;
    char why[TLS_WHY_MAX];
    bool refuse, dont_join;
    uint64_t bytes[2];
};

static void on_secured(void *arg, const struct tls_peer *peer)
{
    struct scene *s = arg;
    s->secured++;
    assert_true(peer->has_certificate);
    if (s->refuse) {
        relay_stop(s->r, "not that one");
        assert_false(relay_join(s->r, s->server)); /* it is over: the socket stays ours */
    } else if (!s->dont_join) {
        assert_true(relay_join(s->r, s->server));
        s->server = NULL;
    }
}

static void on_spoke(void *arg)
{
    struct scene *s = arg;
    assert_int_equal(s->spoke++, 0);
    assert_int_equal(s->secured, 1);
}

static void on_ended(void *arg, enum relay_end how, const char *why)
{
    struct scene *s = arg;
    assert_int_equal(s->ended++, 0);
    s->how = how;
    s->bytes[0] = relay_bytes(s->r, RELAY_FIRST);
    s->bytes[1] = relay_bytes(s->r, RELAY_SECOND);
    str_copy(s->why, sizeof s->why, str_c(why));
}

static void on_closed(void *arg)
{
    struct scene *s = arg;
    assert_int_equal(s->ended, 1);
    assert_int_equal(s->closed++, 0);
}

static struct tls_ctx *ctx_for(const char *domain)
{
    struct buf errors = BUF_INIT(1024);
    struct tls_identity id = {.domain = domain};
    struct tls_settings t = {
        .identities = &id, .nidentities = 1, .minimum = 0x0303, .no_system_store = true};
    struct tls_ctx *c = tls_ctx_new(&t, &errors);
    assert_non_null(c);
    buf_free(&errors);
    return c;
}

static const struct relay_ops ops = {on_secured, on_spoke, on_ended, on_closed};

/* sockets: buffer size of the first side's, as in loopback_pair. */
static void open_with(struct scene *s, int sockets, size_t buffer)
{
    int a[2], b[2];
    *s = (struct scene){.got = BUF_INIT(2 * BULK)};
    world_open(&s->w);
    loopback_pair(a, sockets);
    loopback_pair(b, 16384);
    s->ctx = ctx_for("gate.lab");
    s->e = tls_engine_new(s->ctx, true, NULL, NULL);
    s->first = a[1];
    s->second = b[1];
    s->server = loopback_tcp(&s->w, b[0]);
    struct relay_options opt = {.tls = s->ctx,
                                .peer_name = "gate.lab",
                                .buffer = buffer,
                                .first_word_ms = FIRST_WORD_MS,
                                .stall_ms = STALL_MS,
                                .half_ms = HALF_MS,
                                .dead_ms = DEAD_MS};
    s->ours = loopback_tcp(&s->w, a[0]);
    s->r = relay_new(&s->w.loop, s->ours, &opt, &ops, s);
    assert_non_null(s->r);
}

static void open_scene(struct scene *s)
{
    open_with(s, 16384, BUFFER);
}

static void close_scene(struct scene *s)
{
    if (!s->ended)
        relay_stop(s->r, "the test is over");
    SPIN_UNTIL(&s->w, s->closed);
    if (s->server != NULL)
        uv_close((uv_handle_t *)s->server, loopback_freed);
    close(s->first);
    close(s->second);
    tls_engine_free(s->e);
    tls_ctx_unref(s->ctx);
    buf_free(&s->got);
    world_close(&s->w);
}

/* One round at the first side's far end: wire out, wire in, what came as plain bytes. */
static void far(struct scene *s)
{
    char b[16384];
    size_t n = 0;
    struct str wire = tls_engine_wire(s->e);
    ssize_t k = wire.n > 0 ? write(s->first, wire.p, wire.n) : 0;
    if (k > 0)
        tls_engine_wire_taken(s->e, (size_t)k);
    turn_once(&s->w);
    k = read(s->first, b, sizeof b);
    if (k > 0)
        assert_true(tls_engine_put_wire(s->e, (struct str){b, (size_t)k}));
    if (tls_engine_handshake(s->e) != TLS_OK)
        return;
    enum tls_result r;
    while ((r = tls_engine_read(s->e, b, sizeof b, &n)) == TLS_OK)
        buf_put(&s->got, b, n);
    s->far_closed = s->far_closed || r == TLS_CLOSED;
}

#define FAR_UNTIL(s, cond)                                                                         \
    do {                                                                                           \
        uint64_t until_ = env_now(&env_system) + 10000;                                            \
        while (!(cond)) {                                                                          \
            far(s);                                                                                \
            if (env_now(&env_system) > until_)                                                     \
                fail_msg("not in ten seconds: %s", #cond);                                         \
        }                                                                                          \
    } while (0)

static void up(struct scene *s)
{
    FAR_UNTIL(s, s->secured && s->server == NULL);
}

/* All that has come to the second one's far end within the test's patience. */
static size_t read_second(struct scene *s, char *out, size_t cap)
{
    ssize_t n = read(s->second, out, cap);
    return n > 0 ? (size_t)n : 0;
}

static void expect_second(struct scene *s, const char *text)
{
    char b[256];
    size_t n = 0;
    FAR_UNTIL(s, (n += read_second(s, b + n, sizeof b - n)) >= strlen(text));
    assert_true(str_eq((struct str){b, n}, str_c(text)));
}

static bool ended_second(struct scene *s)
{
    char b[16];
    return read(s->second, b, sizeof b) == 0;
}

static void say_first(struct scene *s, const char *text)
{
    assert_int_equal(tls_engine_write(s->e, str_c(text)), TLS_OK);
}

static void say_second(struct scene *s, const char *text)
{
    assert_int_equal(write(s->second, text, strlen(text)), (ssize_t)strlen(text));
}

static void test_both_ways(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    assert_int_equal(s.spoke, 0);
    say_first(&s, "hello inside");
    expect_second(&s, "hello inside");
    assert_int_equal(s.spoke, 1);
    say_second(&s, "hello gateway");
    FAR_UNTIL(&s, str_is(buf_view(&s.got), "hello gateway"));
    assert_int_equal(relay_bytes(s.r, RELAY_FIRST), 12);
    assert_int_equal(relay_bytes(s.r, RELAY_SECOND), 13);
    assert_int_equal(relay_waiting(s.r, RELAY_FIRST) + relay_waiting(s.r, RELAY_SECOND), 0);
    close_scene(&s);
    assert_int_equal(s.how, RELAY_STOPPED);
}

/* What the gateway says before the server is there waits for it. */
static void test_early_bytes(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    s.dont_join = true;
    FAR_UNTIL(&s, s.secured);
    say_first(&s, "first words");
    FAR_UNTIL(&s, relay_waiting(s.r, RELAY_SECOND) == 11);
    assert_true(relay_join(s.r, s.server));
    s.server = NULL;
    expect_second(&s, "first words");
    close_scene(&s);
}

static void test_refused(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    s.refuse = true;
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_STOPPED);
    assert_string_equal(s.why, "not that one");
    assert_int_equal(s.secured, 1);
    close_scene(&s);
}

/* Each side in turn ends first; the other one still gets its words through. */
static void test_half_close(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    say_second(&s, "last words");
    shutdown(s.second, SHUT_WR);
    FAR_UNTIL(&s, s.far_closed);
    assert_true(str_is(buf_view(&s.got), "last words"));
    assert_int_equal(s.ended, 0);
    say_first(&s, "and mine");
    expect_second(&s, "and mine");
    tls_engine_close_notify(s.e);
    FAR_UNTIL(&s, ended_second(&s));
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_DONE);
    assert_int_equal(s.bytes[0], 8);
    assert_int_equal(s.bytes[1], 10);
    close_scene(&s);

    open_scene(&s);
    up(&s);
    say_first(&s, "bye");
    tls_engine_close_notify(s.e);
    expect_second(&s, "bye");
    FAR_UNTIL(&s, ended_second(&s));
    say_second(&s, "bye too");
    FAR_UNTIL(&s, str_is(buf_view(&s.got), "bye too"));
    shutdown(s.second, SHUT_WR);
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_DONE);
    close_scene(&s);
}

static void test_half_closed_for_ever(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    shutdown(s.second, SHUT_WR);
    FAR_UNTIL(&s, s.far_closed);
    s.w.skew += HALF_MS / 2;
    say_first(&s, "still here"); /* moving bytes is a reason to go on */
    expect_second(&s, "still here");
    s.w.skew += HALF_MS / 2 + 100;
    far(&s);
    far(&s);
    assert_int_equal(s.ended, 0);
    s.w.skew += HALF_MS;
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_LOST);
    assert_string_equal(s.why, "one side has ended, the other one does not");
    close_scene(&s);
}

static char bulk_byte(size_t i)
{
    return (char)(i * 31 + i / 251);
}

/* Megabytes towards a second side that reads nothing at first: what waits stays bounded, and then
 * everything arrives. */
static void test_slow_second(void **state)
{
    (void)state;
    struct scene s;
    open_with(&s, 0, SMALL); /* much comes at once, and few records have room */
    up(&s);
    char chunk[8192], b[65536];
    size_t said = 0, got = 0, most = 0;
    unsigned quiet = 0;
    uint64_t until = env_now(&env_system) + 20000;
    while (got < BULK && env_now(&env_system) < until) {
        if (said < BULK && tls_engine_wire(s.e).n < 65536) {
            for (size_t i = 0; i < sizeof chunk; i++)
                chunk[i] = bulk_byte(said + i);
            assert_int_equal(tls_engine_write(s.e, (struct str){chunk, sizeof chunk}), TLS_OK);
            said += sizeof chunk;
        }
        far(&s);
        size_t waiting = relay_waiting(s.r, RELAY_SECOND);
        quiet = waiting > 0 && waiting == most ? quiet + 1 : 0;
        most = waiting > most ? waiting : most;
        if (quiet < 50 && got == 0)
            continue; /* until nothing more is taken in */
        size_t n = read_second(&s, b, sizeof b);
        for (size_t i = 0; i < n; i++)
            if (b[i] != bulk_byte(got + i))
                fail_msg("byte %zu is another one", got + i);
        got += n;
    }
    assert_int_equal(got, BULK);
    assert_in_range(most, SMALL, 2 * SMALL + 2 * LOOP_SCRATCH);
    assert_int_equal(relay_waiting(s.r, RELAY_SECOND), 0);
    close_scene(&s);
}

static void test_slow_first(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    char chunk[8192];
    size_t said = 0, most = 0;
    for (int quiet = 0; quiet < 200;) { /* the far end of the first side does not read */
        for (size_t i = 0; i < sizeof chunk; i++)
            chunk[i] = bulk_byte(said + i);
        ssize_t n = said < BULK ? write(s.second, chunk, sizeof chunk) : -1;
        said += n > 0 ? (size_t)n : 0;
        quiet = n > 0 ? 0 : quiet + 1;
        turn_once(&s.w);
        size_t waiting = relay_waiting(s.r, RELAY_FIRST);
        most = waiting > most ? waiting : most;
    }
    assert_true(said < BULK);
    assert_in_range(most, BUFFER, 3 * BUFFER + 2 * LOOP_SCRATCH);
    FAR_UNTIL(&s, s.got.len == said);
    for (size_t i = 0; i < said; i++)
        if (s.got.p[i] != bulk_byte(i))
            fail_msg("byte %zu is another one", i);
    close_scene(&s);
}

/* What the second side says until nobody takes it: how much that is. */
static size_t fill_first(struct scene *s)
{
    char chunk[8192] = {0};
    size_t said = 0;
    say_first(s, "x");
    expect_second(s, "x");
    for (int quiet = 0; quiet < 200;) {
        ssize_t n = write(s->second, chunk, sizeof chunk);
        quiet = n > 0 ? 0 : quiet + 1;
        said += n > 0 ? (size_t)n : 0;
        turn_once(&s->w);
    }
    return said;
}

/* At the first one's far end; how much is left to write then. */
static size_t read_a_little(struct scene *s)
{
    char b[1024];
    ssize_t n = read(s->first, b, sizeof b);
    assert_true(n > 0 || errno == EAGAIN);
    return uv_stream_get_write_queue_size((uv_stream_t *)s->ours);
}

static void test_stalled(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    fill_first(&s);
    for (int i = 0; i < 2; i++) { /* a little at a time, but something */
        assert_true(relay_waiting(s.r, RELAY_FIRST) > 0);
        size_t left = uv_stream_get_write_queue_size((uv_stream_t *)s.ours);
        SPIN_UNTIL(&s.w, read_a_little(&s) < left);
        s.w.skew += STALL_MS;
        turn_once(&s.w);
        assert_int_equal(s.ended, 0);
    }
    s.w.skew += STALL_MS;
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_LOST);
    assert_string_equal(s.why, "the first side: it has stopped reading");
    close_scene(&s);
}

static void reset(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

/* A side breaks: the other one ends at once. */
static void test_broken(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    int second = s.second;
    reset(second);
    s.second = dup(s.first); /* something that close_scene can close */
    close(second);
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_LOST);
    assert_true(str_starts(str_c(s.why), "the second side: "));
    close_scene(&s);
}

static void test_failed_handshakes(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    assert_int_equal(write(s.first, "<stream:stream>", 15), 15);
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_TLS);
    assert_int_equal(s.secured, 0);
    close_scene(&s);

    open_scene(&s);
    turn_once(&s.w);
    shutdown(s.first, SHUT_WR);
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_TLS);
    assert_string_equal(s.why, "peer closed during the handshake");
    close_scene(&s);

    open_scene(&s); /* nothing comes */
    turn_once(&s.w);
    s.w.skew += FIRST_WORD_MS;
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_TLS);
    assert_string_equal(s.why, "no TLS handshake in time");
    close_scene(&s);
}

/* The handshake alone is no proof that somebody is there. */
static void test_says_nothing(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    s.w.skew += FIRST_WORD_MS;
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_LOST);
    assert_string_equal(s.why, "the first side: it says nothing");
    close_scene(&s);

    open_scene(&s);
    up(&s);
    say_first(&s, "x");
    expect_second(&s, "x");
    s.w.skew += FIRST_WORD_MS;
    turn_once(&s.w);
    turn_once(&s.w);
    assert_int_equal(s.ended, 0);
    close_scene(&s);
}

/* ---- the end in good order ------------------------------------------------------------------- */

static void test_drain(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    say_first(&s, "the last of mine");
    say_second(&s, "the last of ours");
    FAR_UNTIL(&s, relay_bytes(s.r, RELAY_FIRST) > 0 && relay_bytes(s.r, RELAY_SECOND) > 0);
    relay_drain(s.r, "that is all", DRAIN_MS);
    relay_drain(s.r, "once is enough", DRAIN_MS);
    expect_second(&s, "the last of mine");
    FAR_UNTIL(&s, ended_second(&s));
    FAR_UNTIL(&s, s.far_closed);
    assert_true(str_is(buf_view(&s.got), "the last of ours"));
    say_second(&s, "too late");
    shutdown(s.second, SHUT_WR);
    say_first(&s, "as well");
    tls_engine_close_notify(s.e);
    for (int i = 0; i < 20; i++)
        far(&s);
    assert_int_equal(s.ended, 0); /* the first one's socket is still open */
    shutdown(s.first, SHUT_WR);
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_STOPPED);
    assert_string_equal(s.why, "that is all");
    assert_int_equal(s.bytes[0], 16);
    assert_int_equal(s.bytes[1], 16);
    close_scene(&s);
}

/* Nothing that was taken in is lost when it ends: not what waits undecrypted either. */
static void test_drain_of_much(void **state)
{
    (void)state;
    struct scene s;
    char chunk[8192] = {0}, b[65536];
    open_with(&s, 0, SMALL);
    up(&s);
    for (size_t said = 0; said < 24 * sizeof chunk; said += sizeof chunk)
        assert_int_equal(tls_engine_write(s.e, (struct str){chunk, sizeof chunk}), TLS_OK);
    size_t last = 1, got = 0;
    for (int quiet = 0; quiet < 50; quiet = relay_bytes(s.r, RELAY_FIRST) == last ? quiet + 1 : 0) {
        last = relay_bytes(s.r, RELAY_FIRST);
        far(&s);
    }
    assert_true(last < 24 * sizeof chunk);
    assert_int_equal(tls_engine_wire(s.e).n, 0); /* the relay or its kernel has it */
    relay_drain(s.r, "that is all", DRAIN_MS);
    ssize_t n;
    uint64_t until = env_now(&env_system) + 10000;
    while ((n = read(s.second, b, sizeof b)) != 0 && env_now(&env_system) < until) {
        got += n > 0 ? (size_t)n : 0;
        far(&s);
    }
    assert_int_equal(n, 0);
    assert_in_range(got, last, 24 * sizeof chunk);
    assert_int_equal(got, relay_bytes(s.r, RELAY_FIRST));
    close_scene(&s);
}

static void test_drain_ends_in_time(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    relay_drain(s.r, "that is all", DRAIN_MS);
    FAR_UNTIL(&s, s.far_closed && ended_second(&s));
    say_first(&s, "neither of us wants to"); /* which is no reason to wait longer */
    for (int i = 0; i < 20; i++)
        far(&s);
    assert_int_equal(s.ended, 0);
    s.w.skew += DRAIN_MS;
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_STOPPED);
    close_scene(&s);

    open_scene(&s); /* one side only */
    s.dont_join = true;
    FAR_UNTIL(&s, s.secured);
    relay_drain(s.r, "that is all", DRAIN_MS);
    assert_int_equal(s.ended, 1);
    assert_int_equal(s.how, RELAY_STOPPED);
    close_scene(&s);
}

/* A side that breaks meanwhile keeps the other one from nothing. */
static void test_drain_of_a_broken_one(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    up(&s);
    say_first(&s, "the last of mine");
    FAR_UNTIL(&s, relay_bytes(s.r, RELAY_FIRST) > 0);
    relay_drain(s.r, "that is all", DRAIN_MS);
    reset(s.first);
    close(s.first);
    s.first = dup(s.second); /* something that close_scene can close */
    char b[64];
    ssize_t n = 0;
    SPIN_UNTIL(&s.w, (n = read(s.second, b, sizeof b)) > 0);
    assert_true(str_is((struct str){b, (size_t)n}, "the last of mine"));
    close(s.second);
    s.second = dup(s.first);
    shutdown(s.second, SHUT_WR);
    SPIN_UNTIL(&s.w, s.ended);
    assert_int_equal(s.how, RELAY_STOPPED);
    close_scene(&s);
}

/* ---- a machine that is gone ------------------------------------------------------------------ */

static void test_dead(void **state)
{
    (void)state;
    loopback_need_filters();
    for (int side = 0; side < 2; side++) {
        struct scene s;
        open_scene(&s);
        up(&s);
        say_first(&s, "x");
        expect_second(&s, "x");
        loopback_cut(side == 0 ? s.first : s.second);
        uint64_t begin = env_now(&env_system);
        while (!s.ended && env_now(&env_system) - begin < 3 * DEAD_MS) {
            usleep(5000); /* the kernel's clock cannot be moved */
            turn_once(&s.w);
        }
        assert_int_equal(s.how, RELAY_LOST);
        assert_in_range(env_now(&env_system) - begin, 1000, DEAD_MS + 1000);
        assert_string_equal(s.why, side == 0 ? "the first side: connection timed out"
                                             : "the second side: connection timed out");
        close_scene(&s);
    }
}

static void test_first_ends_early(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    s.dont_join = true;
    FAR_UNTIL(&s, s.secured);
    tls_engine_close_notify(s.e);
    FAR_UNTIL(&s, s.ended);
    assert_int_equal(s.how, RELAY_LOST);
    assert_false(relay_join(s.r, s.server));
    close_scene(&s);
}

/* Whichever allocation fails, once it runs: it goes on, or it ends and says why. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 40; n++) {
        struct scene s;
        open_scene(&s);
        up(&s);
        say_first(&s, "some bytes");
        struct str wire = tls_engine_wire(s.e);
        assert_int_equal(write(s.first, wire.p, wire.n), (ssize_t)wire.n);
        tls_engine_wire_taken(s.e, wire.n);
        say_second(&s, "and others");
        mem_fail_after(n);
        for (int i = 0; i < 20; i++)
            turn_once(&s.w);
        mem_fail_after(0);
        assert_true(!s.ended || s.how != RELAY_DONE);
        close_scene(&s);
    }
}

static void test_new_out_of_memory(void **state)
{
    (void)state;
    struct world w;
    struct tls_ctx *ctx = ctx_for("gate.lab");
    struct relay_options opt = {.tls = ctx, .buffer = BUFFER, .first_word_ms = FIRST_WORD_MS};
    struct scene s = {.got = BUF_INIT(1)};
    unsigned failures = 0;
    for (unsigned long n = 1; n < 20; n++) {
        int a[2];
        world_open(&w);
        loopback_pair(a, 0);
        uv_tcp_t *tcp = loopback_tcp(&w, a[0]);
        mem_fail_after(n);
        struct relay *r = relay_new(&w.loop, tcp, &opt, &ops, &s);
        mem_fail_after(0);
        failures += r == NULL;
        if (r == NULL) {
            uv_close((uv_handle_t *)tcp, loopback_freed);
        } else {
            s = (struct scene){.r = r};
            relay_stop(r, "enough");
            SPIN_UNTIL(&w, s.closed);
        }
        close(a[1]);
        world_close(&w);
    }
    assert_in_range(failures, 1, 18);
    tls_ctx_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_early_bytes),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_half_closed_for_ever),
        cmocka_unit_test(test_slow_second),
        cmocka_unit_test(test_slow_first),
        cmocka_unit_test(test_stalled),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_failed_handshakes),
        cmocka_unit_test(test_says_nothing),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_of_much),
        cmocka_unit_test(test_drain_ends_in_time),
        cmocka_unit_test(test_drain_of_a_broken_one),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_first_ends_early),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_new_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
