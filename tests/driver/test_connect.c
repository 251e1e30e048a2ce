/* Connecting: order, stagger, refusal, deadline, cancel. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/net/addr.h"
#include "core/net/connect.h"
#include "tests/driver/loopback.h"

struct result {
    unsigned calls;
    uv_tcp_t *tcp;
    struct endpoint to;
    char why[CONNECT_WHY_MAX];
    const char *forbidden; /* an address */
    unsigned asked;
};

static void on_done(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct result *r = arg;
    r->calls++;
    r->tcp = tcp;
    if (tcp != NULL) {
        r->to = *to;
        assert_null(why);
    } else {
        str_copy(r->why, sizeof r->why, str_c(why));
    }
}

static bool refuse(void *arg, const struct endpoint *to, const char **why)
{
    struct result *r = arg;
    char text[ENDPOINT_TEXT];
    r->asked++;
    ip_text(&to->ip, text);
    if (r->forbidden == NULL || strcmp(text, r->forbidden) != 0)
        return false;
    *why = "the address is our own";
    return true;
}

static struct endpoint at(const char *ip, uint16_t port)
{
    struct endpoint e = {.port = port};
    assert_true(ip_parse(str_c(ip), &e.ip));
    return e;
}

/* A port on which nobody listens: bound, so that nobody else gets it. */
static int dead_port(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    socklen_t n = sizeof sa;
    getsockname(fd, (struct sockaddr *)&sa, &n);
    *port = ntohs(sa.sin_port);
    return fd;
}

/* A listener whose queue is full: further attempts get no answer. */
static int silent_port(uint16_t *port, int filler[4])
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 0), 0);
    socklen_t n = sizeof sa;
    getsockname(fd, (struct sockaddr *)&sa, &n);
    *port = ntohs(sa.sin_port);
    for (int i = 0; i < 4; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(filler[i], (struct sockaddr *)&sa, sizeof sa);
    }
    return fd;
}

static struct connect *start(struct world *w, struct result *r, const struct endpoint *t, size_t n)
{
    struct connect_options opt = {
        .targets = t, .ntargets = n, .deadline_ms = 5000, .refused = refuse};
    struct connect *k = connect_start(&w->loop, &opt, on_done, r);
    assert_non_null(k);
    assert_int_equal(r->calls, 0);
    return k;
}

static void drop(struct world *w, struct result *r)
{
    if (r->tcp != NULL)
        uv_close((uv_handle_t *)r->tcp, loopback_freed);
    loop_run(&w->loop);
    assert_int_equal(r->calls, 1);
}

static void test_second_address(void **state)
{
    (void)state;
    struct world w;
    struct result r = {0};
    uint16_t dead, good;
    int d = dead_port(&dead), g = loopback_listener(&good);
    world_open(&w);
    struct endpoint t[] = {at("127.0.0.1", dead), at("127.0.0.1", good), at("127.0.0.1", dead)};
    start(&w, &r, t, 3);
    SPIN_UNTIL(&w, r.calls > 0);
    assert_non_null(r.tcp);
    assert_int_equal(r.to.port, good);
    assert_int_equal(r.asked, 2); /* at once, and no further than needed */
    int a = accept(g, NULL, NULL);
    assert_true(a >= 0);
    drop(&w, &r);
    close(a);
    close(d);
    close(g);
    world_close(&w);
}

static void test_all_fail(void **state)
{
    (void)state;
    struct world w;
    struct result r = {0};
    uint16_t dead;
    char want[CONNECT_WHY_MAX];
    int d = dead_port(&dead);
    world_open(&w);
    struct endpoint t[] = {at("127.0.0.1", dead), at("127.0.0.1", dead)};
    start(&w, &r, t, 2);
    SPIN_UNTIL(&w, r.calls > 0);
    snprintf(want, sizeof want, "connection refused by 127.0.0.1:%u", dead);
    assert_string_equal(r.why, want);
    drop(&w, &r);

    r = (struct result){0};
    start(&w, &r, NULL, 0);
    SPIN_UNTIL(&w, r.calls > 0);
    assert_string_equal(r.why, "no address to connect to");
    drop(&w, &r);

    r = (struct result){.forbidden = "127.0.0.1"};
    start(&w, &r, t, 2);
    SPIN_UNTIL(&w, r.calls > 0);
    snprintf(want, sizeof want, "not connecting to 127.0.0.1:%u: the address is our own", dead);
    assert_string_equal(r.why, want);
    assert_int_equal(r.asked, 2);
    drop(&w, &r);
    close(d);
    world_close(&w);
}

static void test_stagger_and_deadline(void **state)
{
    (void)state;
    struct world w;
    struct result r = {0};
    uint16_t silent, good;
    int filler[4], s = silent_port(&silent, filler), g = loopback_listener(&good);
    world_open(&w);
    struct endpoint t[] = {at("127.0.0.1", silent), at("127.0.0.1", good)};
    start(&w, &r, t, 2);
    for (int i = 0; i < 20; i++)
        loop_turn(&w.loop);
    assert_int_equal(r.asked, 1); /* the first one has its time */
    w.skew += 250;
    SPIN_UNTIL(&w, r.calls > 0);
    assert_int_equal(r.to.port, good);
    drop(&w, &r);

    r = (struct result){0};
    start(&w, &r, t, 1);
    for (int i = 0; i < 20; i++)
        loop_turn(&w.loop);
    assert_int_equal(r.calls, 0);
    w.skew += 5000;
    SPIN_UNTIL(&w, r.calls > 0);
    char want[CONNECT_WHY_MAX];
    snprintf(want, sizeof want, "no answer from 127.0.0.1:%u", silent);
    assert_string_equal(r.why, want);
    drop(&w, &r);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
    close(s);
    close(g);
    world_close(&w);
}

static void test_cancel(void **state)
{
    (void)state;
    struct world w;
    struct result r = {0};
    uint16_t good;
    int g = loopback_listener(&good);
    world_open(&w);
    struct endpoint t = at("127.0.0.1", good);
    connect_cancel(start(&w, &r, &t, 1)); /* before it began */
    struct connect *k = start(&w, &r, &t, 1);
    loop_turn(&w.loop); /* the attempt is under way, or done but not told */
    if (r.calls == 0) {
        connect_cancel(k);
        loop_run(&w.loop);
        assert_int_equal(r.calls, 0);
    } else {
        drop(&w, &r);
    }
    close(g);
    world_close(&w);
}

static void test_source_address(void **state)
{
    (void)state;
    struct world w;
    struct result r = {0};
    uint16_t good;
    int g = loopback_listener(&good);
    world_open(&w);
    struct endpoint t = at("127.0.0.1", good);
    struct connect_options opt = {
        .targets = &t, .ntargets = 1, .deadline_ms = 5000, .source4 = at("127.0.0.77", 0).ip};
    assert_non_null(connect_start(&w.loop, &opt, on_done, &r));
    SPIN_UNTIL(&w, r.calls > 0);
    assert_non_null(r.tcp);
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    int a = accept(g, (struct sockaddr *)&sa, &n);
    struct endpoint from;
    char text[ENDPOINT_TEXT];
    assert_true(addr_to_endpoint((struct sockaddr *)&sa, &from));
    ip_text(&from.ip, text);
    assert_string_equal(text, "127.0.0.77");
    drop(&w, &r);
    close(a);

    r = (struct result){0};
    opt.source4 = at("192.0.2.1", 0).ip; /* not ours */
    assert_non_null(connect_start(&w.loop, &opt, on_done, &r));
    SPIN_UNTIL(&w, r.calls > 0);
    assert_null(r.tcp);
    assert_true(str_starts(str_c(r.why), "cannot connect to 127.0.0.1:"));
    drop(&w, &r);
    close(g);
    world_close(&w);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct world w;
    uint16_t good;
    int g = loopback_listener(&good);
    world_open(&w);
    struct endpoint t = at("127.0.0.1", good);
    for (unsigned long n = 1; n < 6; n++) {
        struct result r = {0};
        struct connect_options opt = {.targets = &t, .ntargets = 1, .deadline_ms = 5000};
        mem_fail_after(n);
        struct connect *k = connect_start(&w.loop, &opt, on_done, &r);
        for (int i = 0; i < 10; i++)
            loop_turn(&w.loop);
        mem_fail_after(0);
        if (k == NULL)
            continue;
        SPIN_UNTIL(&w, r.calls > 0);
        drop(&w, &r);
    }
    close(g);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_address),
        cmocka_unit_test(test_all_fail),
        cmocka_unit_test(test_stagger_and_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_source_address),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
