/* Redial: the series of delays, what each call does in each state, one callback per attempt. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/net/redial.h"
#include "tests/driver/loopback.h"

struct holder {
    struct world w;
    struct redial r;
    int listener, dead; /* of `good`; holds `nobody` without listening */
    struct endpoint good, nobody;
    unsigned calls, failed;
    uv_tcp_t *tcp;
    char why[CONNECT_WHY_MAX];
    void (*hook)(struct holder *h);
    bool inside; /* of a call of ours */
};

static void drop(struct holder *h)
{
    if (h->tcp != NULL)
        uv_close((uv_handle_t *)h->tcp, loopback_freed);
    h->tcp = NULL;
}

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct holder *h = arg;
    assert_false(h->inside);
    assert_false(redial_busy(&h->r));
    h->calls++;
    drop(h);
    h->tcp = tcp;
    if (tcp != NULL) {
        assert_int_equal(to->port, h->good.port);
        assert_null(why);
        assert_int_equal(h->r.wait_ms, 0);
    } else {
        h->failed++;
        str_copy(h->why, sizeof h->why, str_c(why));
    }
    if (h->hook != NULL)
        h->hook(h);
}

static const struct redial_ops ops = {on_connected};

static int bound_port(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    socklen_t n = sizeof sa;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

static void open_all(struct holder *h)
{
    *h = (struct holder){.calls = 0};
    world_open(&h->w);
    h->listener = loopback_listener(&h->good.port);
    h->dead = bound_port(&h->nobody.port);
    assert_true(ip_parse(STR("127.0.0.1"), &h->good.ip));
    h->nobody.ip = h->good.ip;
    redial_init(&h->r, &h->w.loop, &ops, h);
}

static void close_all(struct holder *h)
{
    redial_stop(&h->r);
    unsigned calls = h->calls;
    drop(h);
    h->w.skew += 10 * REDIAL_REFUSED_MS;
    loop_run(&h->w.loop);
    assert_int_equal(h->calls, calls); /* none after stop */
    close(h->listener);
    close(h->dead);
    world_close(&h->w);
}

static void start(struct holder *h, const struct endpoint *to)
{
    h->inside = true;
    redial_start(&h->r, to, 5000);
    h->inside = false;
    assert_true(redial_busy(&h->r));
}

static uint64_t again(struct holder *h, enum redial_why why)
{
    h->inside = true;
    uint64_t ms = redial_again(&h->r, why);
    h->inside = false;
    return ms;
}

/* Some turns without the clock moving much: nothing may happen in them. */
static void rest(struct holder *h)
{
    unsigned calls = h->calls;
    for (int i = 0; i < 20; i++)
        turn_once(&h->w);
    assert_int_equal(h->calls, calls);
}

static void assert_spread(uint64_t ms, uint64_t middle)
{
    assert_in_range(ms, middle - middle / 5, middle + middle / 5);
}

/* Each failure has its call, made when the next attempt has been scheduled already. */
static void test_series(void **state)
{
    (void)state;
    static const uint64_t series[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    struct holder h;
    open_all(&h);
    start(&h, &h.nobody);
    for (unsigned i = 0; i < sizeof series / sizeof series[0]; i++) {
        SPIN_UNTIL(&h.w, h.failed == i + 1);
        assert_true(str_starts(str_c(h.why), "connection refused by 127.0.0.1:"));
        assert_spread(h.r.wait_ms, series[i]);
        rest(&h);
        h.w.skew += h.r.wait_ms;
    }
    close_all(&h);
}

static void test_spread(void **state)
{
    (void)state;
    struct holder h;
    uint64_t least = UINT64_MAX, most = 0;
    open_all(&h);
    for (int i = 0; i < 60; i++) { /* as many as the listener queues */
        start(&h, &h.good);
        SPIN_UNTIL(&h.w, !redial_busy(&h.r));
        uint64_t ms = again(&h, REDIAL_REFUSED);
        assert_spread(ms, REDIAL_REFUSED_MS);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_true(most - least > REDIAL_REFUSED_MS / 5); /* by chance: less than once in 2^50 runs */
    close_all(&h);
}

static void test_up_and_again(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    start(&h, &h.good);
    SPIN_UNTIL(&h.w, h.calls == 1);
    assert_non_null(h.tcp);
    h.w.skew += 10 * REDIAL_REFUSED_MS;
    rest(&h); /* it rests until it is told how it went */
    assert_spread(again(&h, REDIAL_LOST), 1000);
    assert_int_equal(again(&h, REDIAL_LOST), 0); /* a delay runs */
    assert_int_equal(again(&h, REDIAL_REFUSED), 0);
    h.w.skew += h.r.wait_ms;
    SPIN_UNTIL(&h.w, h.calls == 2);
    assert_spread(again(&h, REDIAL_LOST), 2000); /* it connects, but never comes up */
    h.w.skew += h.r.wait_ms;
    SPIN_UNTIL(&h.w, h.calls == 3);
    redial_up(&h.r);
    assert_spread(again(&h, REDIAL_LOST), 1000);
    h.w.skew += h.r.wait_ms;
    SPIN_UNTIL(&h.w, h.calls == 4);
    assert_spread(again(&h, REDIAL_REFUSED), REDIAL_REFUSED_MS);
    assert_int_equal(h.failed, 0);
    close_all(&h);
}

static void test_again_while_busy(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    assert_int_equal(again(&h, REDIAL_LOST), 0); /* never started */
    start(&h, &h.good);
    assert_int_equal(again(&h, REDIAL_LOST), 0);
    turn_once(&h.w);
    if (h.calls == 0)
        assert_int_equal(again(&h, REDIAL_LOST), 0);
    SPIN_UNTIL(&h.w, h.calls == 1);
    redial_stop(&h.r);
    assert_int_equal(again(&h, REDIAL_LOST), 0); /* stopped */
    close_all(&h);
}

/* Stop in each state; then a start, which is an attempt at once and a back-off from its beginning.
 */
static void stop_and_start(struct holder *h)
{
    unsigned calls = h->calls;
    redial_stop(&h->r);
    redial_stop(&h->r);
    assert_false(redial_busy(&h->r));
    h->w.skew += 10 * REDIAL_REFUSED_MS;
    rest(h);
    start(h, &h->nobody);
    SPIN_UNTIL(&h->w, h->calls > calls);
    assert_int_equal(h->calls, calls + 1);
    assert_spread(h->r.wait_ms, 1000);
}

static void test_stop_and_start(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    stop_and_start(&h); /* never started */
    stop_and_start(&h); /* a delay runs */
    start(&h, &h.nobody);
    stop_and_start(&h); /* not begun */
    start(&h, &h.good);
    SPIN_UNTIL(&h.w, h.r.connect != NULL || h.calls == 4);
    stop_and_start(&h); /* an attempt is under way */
    drop(&h);
    unsigned calls = h.calls;
    start(&h, &h.good);
    SPIN_UNTIL(&h.w, h.calls == calls + 1);
    assert_non_null(h.tcp);
    stop_and_start(&h); /* the holder has the socket */
    close_all(&h);
}

static void test_start_takes_the_new_address(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    start(&h, &h.nobody);
    start(&h, &h.good); /* instead */
    SPIN_UNTIL(&h.w, h.calls == 1);
    assert_non_null(h.tcp);
    start(&h, &h.nobody); /* while the holder has a socket */
    SPIN_UNTIL(&h.w, h.failed == 1);
    h.w.skew += h.r.wait_ms;
    SPIN_UNTIL(&h.w, h.failed == 2);
    start(&h, &h.good); /* during a delay */
    SPIN_UNTIL(&h.w, h.tcp != NULL);
    assert_int_equal(h.calls, 4);
    close_all(&h);
}

static void stop_inside(struct holder *h)
{
    redial_stop(&h->r);
}

static void start_inside(struct holder *h)
{
    h->hook = NULL;
    redial_start(&h->r, &h->good, 5000);
}

static void test_calls_from_the_callback(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    h.hook = stop_inside;
    start(&h, &h.nobody);
    SPIN_UNTIL(&h.w, h.calls == 1);
    h.w.skew += 10 * REDIAL_REFUSED_MS;
    rest(&h);
    h.hook = start_inside;
    start(&h, &h.nobody);
    SPIN_UNTIL(&h.w, h.calls == 3);
    assert_non_null(h.tcp);
    close_all(&h);
}

/* Whichever allocation fails: one call per attempt, and when there is memory again it connects. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 8; n++) {
        struct holder h;
        open_all(&h);
        mem_fail_after(n);
        start(&h, &h.good);
        for (int i = 0; i < 20; i++)
            turn_once(&h.w);
        mem_fail_after(0);
        assert_true(h.calls <= 1);
        while (h.tcp == NULL) {
            unsigned calls = h.calls;
            h.w.skew += h.r.wait_ms;
            SPIN_UNTIL(&h.w, h.calls > calls);
        }
        assert_true(h.failed <= 1);
        close_all(&h);
    }
}

/* No memory for the timer of a delay: the delay begins as soon as there is some. */
static void test_no_memory_for_the_delay(void **state)
{
    (void)state;
    struct holder h;
    open_all(&h);
    start(&h, &h.good);
    SPIN_UNTIL(&h.w, h.calls == 1);
    timers_free(&h.w.loop.timers);
    h.w.loop.timers = (struct timers){.v = NULL};
    mem_fail_after(1);
    assert_spread(again(&h, REDIAL_LOST), 1000);
    assert_int_equal(again(&h, REDIAL_LOST), 0);
    assert_false(redial_busy(&h.r));
    h.w.skew += 5000;
    rest(&h);
    mem_fail_after(0);
    turn_once(&h.w);
    turn_once(&h.w);
    assert_true(timer_armed(&h.r.timer));
    h.w.skew += h.r.wait_ms;
    SPIN_UNTIL(&h.w, h.calls == 2);
    assert_non_null(h.tcp);
    close_all(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_up_and_again),
        cmocka_unit_test(test_again_while_busy),
        cmocka_unit_test(test_stop_and_start),
        cmocka_unit_test(test_start_takes_the_new_address),
        cmocka_unit_test(test_calls_from_the_callback),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_no_memory_for_the_delay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
