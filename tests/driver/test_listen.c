/* Listening: budget per turn, both families, running out of descriptors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/resource.h>

#include "core/net/addr.h"
#include "core/net/listen.h"
#include "tests/driver/loopback.h"

enum { CLIENTS = 40 };

struct acceptor {
    unsigned n;
    bool close_at_first;
    struct listener *li;
};

static void on_accepted(void *arg, uv_tcp_t *tcp)
{
    struct acceptor *a = arg;
    a->n++;
    uv_close((uv_handle_t *)tcp, loopback_freed);
    if (a->close_at_first)
        listen_close(a->li);
}

static struct listener *open_at(struct world *w, const char *where, struct acceptor *a)
{
    struct endpoint e;
    char why[LISTEN_WHY_MAX];
    *a = (struct acceptor){0};
    const char *colon = strrchr(where, ':');
    e.port = 0;
    assert_true(ip_parse((struct str){where, (size_t)(colon - where)}, &e.ip));
    a->li = listen_new(&w->loop, &e, on_accepted, a, why);
    if (a->li == NULL)
        fail_msg("%s", why);
    return a->li;
}

static int knock(const struct listener *li)
{
    struct sockaddr_storage sa;
    assert_true(addr_from_endpoint(listen_local(li), &sa));
    int fd = socket(sa.ss_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(struct sockaddr_in6)), 0);
    return fd;
}

static void test_budget(void **state)
{
    (void)state;
    struct world w;
    struct acceptor a;
    int fd[CLIENTS];
    world_open(&w);
    open_at(&w, "127.0.0.1:", &a);
    for (int i = 0; i < CLIENTS; i++)
        fd[i] = knock(a.li);
    unsigned before = 0;
    while (a.n < CLIENTS) {
        loop_turn(&w.loop);
        assert_in_range(a.n - before, 0, 16);
        before = a.n;
    }
    for (int i = 0; i < CLIENTS; i++)
        close(fd[i]);
    listen_close(a.li);
    world_close(&w);
}

static void test_address_in_use(void **state)
{
    (void)state;
    struct world w;
    struct acceptor a;
    char why[LISTEN_WHY_MAX], want[LISTEN_WHY_MAX], text[ENDPOINT_TEXT];
    world_open(&w);
    open_at(&w, "127.0.0.1:", &a);
    struct endpoint same = *listen_local(a.li);
    assert_null(listen_new(&w.loop, &same, on_accepted, &a, why));
    endpoint_text(&same, text);
    snprintf(want, sizeof want, "cannot listen on %s: address already in use", text);
    assert_string_equal(why, want);
    listen_close(a.li);
    listen_close(NULL);
    world_close(&w);
}

static void test_both_families(void **state)
{
    (void)state;
    struct world w;
    struct acceptor a;
    char why[LISTEN_WHY_MAX];
    world_open(&w);
    open_at(&w, "0.0.0.0:", &a);
    struct endpoint six = {.port = listen_local(a.li)->port};
    assert_true(ip_parse(STR("::"), &six.ip));
    struct listener *b = listen_new(&w.loop, &six, on_accepted, &a, why);
    if (b == NULL)
        assert_non_null(strstr(why, "address family")); /* a machine without IPv6 */
    listen_close(b);
    listen_close(a.li);
    world_close(&w);
}

static void test_close_inside(void **state)
{
    (void)state;
    struct world w;
    struct acceptor a;
    world_open(&w);
    open_at(&w, "127.0.0.1:", &a);
    a.close_at_first = true;
    int one = knock(a.li), two = knock(a.li);
    SPIN_UNTIL(&w, a.n == 1);
    loop_run(&w.loop);
    assert_int_equal(a.n, 1);
    close(one);
    close(two);
    world_close(&w);
}

static void test_out_of_descriptors(void **state)
{
    (void)state;
    struct world w;
    struct acceptor a;
    struct buf lines = BUF_INIT(4096);
    world_open(&w);
    w.loop.log = log_new(-1, LOG_INFO, LOG_LOGFMT, 0);
    log_capture(w.loop.log, &lines);
    open_at(&w, "127.0.0.1:", &a);
    int first = knock(a.li), second = knock(a.li);

    struct rlimit old, tight;
    getrlimit(RLIMIT_NOFILE, &old);
    tight = old;
    int probe = dup(0);
    assert_true(probe >= 0);
    close(probe);
    tight.rlim_cur = (rlim_t)probe; /* not one more */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);

    SPIN_UNTIL(&w, lines.len > 0);
    char byte;
    assert_int_equal(recv(first, &byte, 1, 0), 0); /* told, not left waiting */
    assert_int_equal(recv(second, &byte, 1, 0), 0);
    assert_int_equal(a.n, 0);
    assert_non_null(strstr(lines.p, "listen.exhausted"));
    assert_int_equal(w.loop.timers.n, 1); /* rests */
    size_t once = lines.len;
    w.skew += 100;
    loop_turn(&w.loop);
    assert_int_equal(w.loop.timers.n, 0);

    setrlimit(RLIMIT_NOFILE, &old);
    int third = knock(a.li);
    SPIN_UNTIL(&w, a.n == 1);
    assert_int_equal(lines.len, once); /* one line a minute */
    close(first);
    close(second);
    close(third);
    listen_close(a.li);
    struct log *log = w.loop.log;
    world_close(&w);
    log_free(log);
    buf_free(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_both_families),
        cmocka_unit_test(test_close_inside),
        cmocka_unit_test(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
