/* The resolver against a small DNS server in the same loop. What the server does with a question is
 * decided by the last but one label of its name: see `answer_for`. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "dns/plan.h"
#include "dns/resolver.h"
#include "tests/fake/dns_packet.h"

/* ---- the server ------------------------------------------------------------------------------ */

enum { SLOW_MS = 150, SLOTS = 8, LOG_MAX = 1 << 16 };

struct slow {
    uv_timer_t timer;
    struct server *s;
    struct sockaddr_in to;
    struct pkt p;
    bool busy;
};

struct tcp_client {
    uv_tcp_t h;
    struct server *s;
    size_t n;
    char in[600];
};

struct server {
    uv_udp_t udp;
    uv_tcp_t tcp;
    unsigned questions, connections;
    unsigned asked_ad; /* of the questions: what is known of DNSSEC was wanted too */
    struct slow slow[SLOTS];
    struct tcp_client client[SLOTS];
    char address[32];
};

static bool asked_for(const char *name, const char *what)
{
    const char *at = strstr(name, what);
    return at != NULL && (at == name || at[-1] == '.') && strcmp(at + strlen(what), ".lab") == 0;
}

static void some_records(struct pkt *p, const char *name, unsigned type)
{
    static const char v6[16] = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05";
    if (type == DNS_RR_SRV) {
        pkt_srv(p, name, 60, 20, 0, 5270, "second.good.lab");
        pkt_srv(p, name, 60, 10, 0, 5269, "first.good.lab");
    } else if (type == DNS_RR_A) {
        pkt_a(p, name, 60, "\x7f\x09\x09\x09");
    } else if (type == DNS_RR_TLSA) {
        pkt_tlsa(p, name, 60, 3, 1, 1, 0xab, 32);
    } else {
        pkt_aaaa(p, name, 60, v6);
    }
}

enum how { ANSWER, SILENCE, SLOWLY };

/* Builds the answer in `p`. */
static enum how answer_for(struct pkt *p, const char *name, unsigned id, unsigned type, bool tcp)
{
    bool tls = strncmp(name, DNS_SRV_PREFIX_TLS, sizeof DNS_SRV_PREFIX_TLS - 1) == 0;
    bool nx = asked_for(name, "nx") || (asked_for(name, "fallback") && type == DNS_RR_SRV) ||
              (tls && !asked_for(name, "both"));
    bool broken = asked_for(name, "broken") || (asked_for(name, "half") && type == DNS_RR_AAAA);
    bool big = (asked_for(name, "big") || asked_for(name, "tcpdead")) && !tls;
    pkt_response(p, asked_for(name, "wrongid") ? id ^ 1 : id, nx ? 3 : broken ? 2 : 0, name, type);
    if (asked_for(name, "silent") || (asked_for(name, "v4only") && type == DNS_RR_AAAA))
        return SILENCE;
    if (asked_for(name, "dot")) {
        pkt_srv(p, name, 60, 0, 0, 0, ".");
    } else if (asked_for(name, "lie")) {
        pkt_srv(p, "_xmpp-server._tcp.bank.example", 60, 0, 0, 5269, "evil.lab");
        pkt_set16(p, PKT_AN, 9);
    } else if (big && !tcp) {
        p->b[2] |= 0x02;
    } else if (big) {
        for (unsigned i = 0; i < 60; i++) {
            char host[32];
            snprintf(host, sizeof host, "host-%u.big.lab", i);
            pkt_srv(p, name, 60, i, 0, 5269, host);
        }
    } else if (!nx && !broken) {
        some_records(p, name, type);
    }
    return asked_for(name, "slow") ? SLOWLY : ANSWER;
}

/* The name and type asked for; false: not a question that c-ares would send. */
static bool parse_question(const char *m, size_t n, char name[256], unsigned *id, unsigned *type)
{
    const unsigned char *u = (const unsigned char *)m;
    size_t at = 12, out = 0;
    if (n < 17)
        return false;
    *id = (unsigned)(u[0] << 8 | u[1]);
    while (at < n && u[at] != 0) {
        size_t label = u[at++];
        if (at + label + 5 > n || out + label + 1 > 255)
            return false;
        memcpy(name + out, m + at, label);
        out += label;
        at += label;
        name[out++] = '.';
    }
    name[out ? out - 1 : 0] = '\0';
    *type = (unsigned)(u[at + 1] << 8 | u[at + 2]);
    return true;
}

static void send_udp(struct server *s, const struct sockaddr_in *to, const struct pkt *p)
{
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)p->b, (unsigned)p->n);
    uv_udp_try_send(&s->udp, &b, 1, (const struct sockaddr *)to);
}

static void on_slow(uv_timer_t *t)
{
    struct slow *w = t->data;
    send_udp(w->s, &w->to, &w->p);
    w->busy = false;
}

static void answer_later(struct server *s, const struct sockaddr_in *to, const struct pkt *p)
{
    for (size_t i = 0; i < SLOTS; i++) {
        struct slow *w = &s->slow[i];
        if (w->busy)
            continue;
        w->busy = true;
        w->to = *to;
        w->p = *p;
        uv_timer_start(&w->timer, on_slow, SLOW_MS, 0);
        return;
    }
    fail_msg("too many slow questions");
}

static void on_udp_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    static char room[2048];
    (void)h, (void)n;
    *b = uv_buf_init(room, sizeof room);
}

static void on_udp(uv_udp_t *h, ssize_t n, const uv_buf_t *b, const struct sockaddr *from,
                   unsigned flags)
{
    struct server *s = h->data;
    static struct pkt p;
    char name[256];
    unsigned id, type;
    (void)flags;
    if (n <= 0 || from == NULL || !parse_question(b->base, (size_t)n, name, &id, &type))
        return;
    s->questions++;
    bool ask_ad = (b->base[3] & 0x20) != 0;
    s->asked_ad += ask_ad;
    enum how how = answer_for(&p, name, id, type, false);
    if (asked_for(name, "liar") || (ask_ad && asked_for(name, "signed")))
        pkt_authentic(&p);
    switch (how) {
    case ANSWER:
        send_udp(s, (const struct sockaddr_in *)(const void *)from, &p);
        break;
    case SLOWLY:
        answer_later(s, (const struct sockaddr_in *)(const void *)from, &p);
        break;
    case SILENCE:
        break;
    }
}

static void on_client_closed(uv_handle_t *h)
{
    h->data = NULL;
}

static void on_tcp_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    struct tcp_client *c = h->data;
    (void)n;
    *b = uv_buf_init(c->in + c->n, (unsigned)(sizeof c->in - c->n));
}

static void on_tcp_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct tcp_client *c = h->data;
    static struct pkt p;
    char name[256], length[2];
    unsigned id, type;
    (void)b;
    if (n < 0) {
        if (!uv_is_closing((uv_handle_t *)h))
            uv_close((uv_handle_t *)h, on_client_closed);
        return;
    }
    c->n += (size_t)n;
    const unsigned char *u = (const unsigned char *)c->in;
    if (c->n < 2 || c->n < 2u + (unsigned)(u[0] << 8 | u[1]) ||
        !parse_question(c->in + 2, c->n - 2, name, &id, &type))
        return;
    answer_for(&p, name, id, type, true);
    length[0] = (char)(p.n >> 8);
    length[1] = (char)p.n;
    uv_buf_t out[2] = {uv_buf_init(length, 2), uv_buf_init((char *)p.b, (unsigned)p.n)};
    assert_int_equal(uv_try_write(h, out, 2), (int)p.n + 2);
    c->n = 0;
}

static void on_connection(uv_stream_t *h, int status)
{
    struct server *s = h->data;
    assert_int_equal(status, 0);
    s->connections++;
    for (size_t i = 0; i < SLOTS; i++) {
        struct tcp_client *c = &s->client[i];
        if (c->h.data != NULL)
            continue;
        uv_tcp_init(h->loop, &c->h);
        c->h.data = c;
        c->n = 0;
        assert_int_equal(uv_accept(h, (uv_stream_t *)&c->h), 0);
        uv_read_start((uv_stream_t *)&c->h, on_tcp_alloc, on_tcp_read);
        return;
    }
    fail_msg("too many connections");
}

/* UDP and TCP share a port; without TCP nothing listens there. */
static void server_open(struct server *s, uv_loop_t *uv, bool tcp)
{
    struct sockaddr_in at;
    int n = sizeof at;
    memset(s, 0, sizeof *s);
    uv_ip4_addr("127.0.53.1", 0, &at);
    /* Bound in any case: it reserves the port. Not listening, it refuses. */
    uv_tcp_init(uv, &s->tcp);
    s->tcp.data = s;
    assert_int_equal(uv_tcp_bind(&s->tcp, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&at, &n), 0);
    uv_udp_init(uv, &s->udp);
    s->udp.data = s;
    assert_int_equal(uv_udp_bind(&s->udp, (struct sockaddr *)&at, 0), 0);
    uv_udp_recv_start(&s->udp, on_udp_alloc, on_udp);
    if (tcp)
        assert_int_equal(uv_listen((uv_stream_t *)&s->tcp, 8, on_connection), 0);
    for (size_t i = 0; i < SLOTS; i++) {
        s->slow[i].s = s;
        uv_timer_init(uv, &s->slow[i].timer);
        s->slow[i].timer.data = &s->slow[i];
        s->client[i].s = s;
    }
    snprintf(s->address, sizeof s->address, "127.0.53.1:%u", ntohs(at.sin_port));
}

static void server_close(struct server *s)
{
    uv_close((uv_handle_t *)&s->udp, NULL);
    uv_close((uv_handle_t *)&s->tcp, NULL);
    for (size_t i = 0; i < SLOTS; i++) {
        uv_close((uv_handle_t *)&s->slow[i].timer, NULL);
        if (s->client[i].h.data != NULL && !uv_is_closing((uv_handle_t *)&s->client[i].h))
            uv_close((uv_handle_t *)&s->client[i].h, on_client_closed);
    }
}

/* ---- the world of a test --------------------------------------------------------------------- */

struct world {
    struct loop loop;
    struct log *log;
    struct buf lines;
    struct server server;
    struct resolver *r;
    unsigned pending, order;
};

struct got {
    struct world *w;
    struct dns_query *q;
    unsigned calls, order; /* 1: the first callback of all */
    struct dns_services s;
    struct dns_addresses a;
    struct dns_tlsa t;
};

static void world_open_trusting(struct world *w, bool tcp, uint64_t timeout_ms, bool trust_ad)
{
    char why[DNS_TEXT_MAX];
    memset(w, 0, sizeof *w);
    w->lines = BUF_INIT(LOG_MAX);
    w->log = log_new(STDERR_FILENO, LOG_DEBUG, LOG_LOGFMT, 0);
    assert_non_null(w->log);
    log_capture(w->log, &w->lines);
    assert_true(loop_init(&w->loop, &env_system, w->log));
    server_open(&w->server, w->loop.uv, tcp);
    char *servers[] = {w->server.address};
    struct resolver_settings s = {servers, 1, timeout_ms, trust_ad};
    w->r = resolver_new(&w->loop, &s, why);
    assert_non_null(w->r);
}

static void world_open(struct world *w, bool tcp, uint64_t timeout_ms)
{
    world_open_trusting(w, tcp, timeout_ms, false);
}

static void world_close(struct world *w)
{
    resolver_close(w->r);
    server_close(&w->server);
    loop_close(&w->loop);
    assert_int_equal(w->loop.handles, 0);
    log_free(w->log);
    buf_free(&w->lines);
}

static void one_done(struct got *g)
{
    struct world *w = g->w;
    g->calls++;
    g->q = NULL;
    g->order = ++w->order;
    if (--w->pending == 0)
        loop_stop(&w->loop);
}

static void on_services(void *arg, const struct dns_services *s)
{
    struct got *g = arg;
    g->s = *s;
    one_done(g);
}

static void on_addresses(void *arg, const struct dns_addresses *a)
{
    struct got *g = arg;
    g->a = *a;
    one_done(g);
}

static void ask_services(struct world *w, struct got *g, const char *name, bool direct_tls)
{
    *g = (struct got){.w = w};
    struct dns_query *q = resolver_services(w->r, str_c(name), direct_tls, on_services, g);
    assert_non_null(q);
    assert_int_equal(g->calls, 0); /* never from inside the call */
    g->q = q;
    w->pending++;
}

static void services(struct world *w, struct got *g, const char *name)
{
    ask_services(w, g, name, true);
}

static void addresses(struct world *w, struct got *g, const char *name)
{
    *g = (struct got){.w = w};
    struct dns_query *q = resolver_addresses(w->r, str_c(name), on_addresses, g);
    assert_non_null(q);
    assert_int_equal(g->calls, 0);
    g->q = q;
    w->pending++;
}

static void on_tlsa(void *arg, const struct dns_tlsa *t)
{
    struct got *g = arg;
    g->t = *t;
    one_done(g);
}

static void tlsa(struct world *w, struct got *g, const char *host)
{
    *g = (struct got){.w = w};
    struct dns_query *q = resolver_tlsa(w->r, str_c(host), 5269, on_tlsa, g);
    assert_non_null(q);
    assert_int_equal(g->calls, 0);
    g->q = q;
    w->pending++;
}

static void run(struct world *w)
{
    loop_run(&w->loop);
    assert_int_equal(w->pending, 0);
}

/* Until the server has seen n questions. */
static void run_until_asked(struct world *w, unsigned n)
{
    while (w->server.questions < n)
        uv_run(w->loop.uv, UV_RUN_ONCE);
}

static bool logged(const struct world *w, const char *part)
{
    return w->lines.p != NULL && strstr(w->lines.p, part) != NULL;
}

/* ---- services -------------------------------------------------------------------------------- */

static void test_srv(void **state)
{
    (void)state;
    static struct world w;
    struct got g, again;
    world_open(&w, true, 3000);
    services(&w, &g, "good.lab");
    run(&w);
    assert_int_equal(g.s.status, DNS_OK);
    assert_true(g.s.from_srv);
    assert_false(g.s.cached);
    assert_int_equal(g.s.ntargets, 2);
    assert_string_equal(g.s.target[0].host, "first.good.lab");
    assert_int_equal(g.s.target[0].port, 5269);
    assert_string_equal(g.s.target[1].host, "second.good.lab");
    assert_true(g.s.srv_ms <= g.s.total_ms);
    assert_string_equal(g.s.text, "");
    assert_true(logged(
        &w, "dns.start domain=good.lab service=_xmpp-server._tcp,_xmpps-server._tcp port=5269"));
    assert_true(logged(&w, "dns.result domain=good.lab method=SRV total="));
    assert_true(logged(&w, "targets=2 cached=no status=ok"));

    services(&w, &again, "GOOD.lab");
    run(&w);
    assert_true(again.s.cached);
    assert_int_equal(again.s.ntargets, 2);
    assert_int_equal(w.server.questions, 2);
    resolver_flush(w.r);
    services(&w, &again, "good.lab");
    run(&w);
    assert_false(again.s.cached);
    assert_int_equal(w.server.questions, 4);
    world_close(&w);
}

static void test_both_services(void **state)
{
    (void)state;
    static struct world w;
    struct got g;
    world_open(&w, true, 3000);
    services(&w, &g, "both.lab");
    run(&w);
    assert_int_equal(g.s.status, DNS_OK);
    assert_int_equal(g.s.ntargets, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(g.s.target[i].host, i < 2 ? "first.good.lab" : "second.good.lab");
    assert_int_not_equal(g.s.target[0].direct_tls, g.s.target[1].direct_tls);
    assert_int_not_equal(g.s.target[2].direct_tls, g.s.target[3].direct_tls);

    /* Who may not use TLS asks for one of them, and finds nothing of it in the cache. */
    ask_services(&w, &g, "both.lab", false);
    run(&w);
    assert_false(g.s.cached);
    assert_int_equal(g.s.ntargets, 2);
    assert_false(g.s.target[0].direct_tls || g.s.target[1].direct_tls);
    assert_int_equal(w.server.questions, 3);
    world_close(&w);
}

static void test_outcomes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dns_status status;
        const char *target, *text;
    } row[] = {
        {"nx.lab", DNS_OK, "nx.lab", ""},
        {"fallback.lab", DNS_OK, "fallback.lab", ""},
        {"dot.lab", DNS_NONE, NULL, "no XMPP federation (SRV target \".\")"},
        {"broken.lab", DNS_FAILED, NULL, "_xmpp-server._tcp.broken.lab: SERVFAIL"},
        {"lie.lab", DNS_FAILED, NULL, "unusable answer"},
        {"silent.lab", DNS_TIMEOUT, NULL, "DNS servers did not answer within"},
        {"wrongid.lab", DNS_TIMEOUT, NULL, "DNS servers did not answer within"},
        {"127.0.0.1", DNS_NONE, NULL, "is an address"},
        {"a b.lab", DNS_NONE, NULL, "not a domain name"},
    };
    enum { N = sizeof row / sizeof *row };
    static struct world w;
    static struct got g[N];
    world_open(&w, true, 400);
    for (size_t i = 0; i < N; i++)
        services(&w, &g[i], row[i].name);
    run(&w);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(g[i].s.status, row[i].status);
        assert_int_equal(g[i].s.ntargets, row[i].target != NULL);
        if (row[i].target != NULL) {
            assert_string_equal(g[i].s.target[0].host, row[i].target);
            assert_int_equal(g[i].s.target[0].port, 5269);
            assert_false(g[i].s.from_srv);
        }
        assert_non_null(strstr(g[i].s.text, row[i].text));
    }
    assert_true(logged(&w, "method=A "));
    assert_true(logged(&w, "status=timeout"));
    world_close(&w);
}

static void test_truncated_then_tcp(void **state)
{
    (void)state;
    static struct world w;
    struct got g;
    world_open(&w, true, 3000);
    services(&w, &g, "big.lab");
    run(&w);
    assert_int_equal(g.s.status, DNS_OK);
    assert_int_equal(g.s.ntargets, DNS_TARGETS_MAX);
    assert_string_equal(g.s.target[0].host, "host-0.big.lab");
    assert_int_equal(w.server.connections, 1); /* big is the answer of one question */
    world_close(&w);
}

static void test_shared_question(void **state)
{
    (void)state;
    static struct world w;
    static struct got g[20];
    world_open(&w, true, 3000);
    for (size_t i = 0; i < 20; i++)
        services(&w, &g[i], "slow.lab");
    run(&w);
    assert_int_equal(w.server.questions, 2); /* for each service one */
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(g[i].calls, 1);
        assert_int_equal(g[i].s.status, DNS_OK);
    }
    world_close(&w);
}

/* ---- isolation ------------------------------------------------------------------------------- */

static void test_silent_does_not_delay(void **state)
{
    (void)state;
    static struct world w;
    struct got silent, good, broken, slow;
    world_open(&w, true, 1500);
    services(&w, &silent, "silent.lab");
    services(&w, &broken, "broken.lab");
    services(&w, &slow, "slow.lab");
    services(&w, &good, "good.lab");
    run(&w);
    assert_int_equal(silent.order, 4);
    assert_int_equal(slow.order, 3);
    assert_int_equal(good.s.status, DNS_OK);
    assert_int_equal(slow.s.status, DNS_OK);
    assert_int_equal(broken.s.status, DNS_FAILED);
    assert_int_equal(silent.s.status, DNS_TIMEOUT);
    assert_true(silent.s.total_ms >= 300);
    assert_true(good.s.total_ms < silent.s.total_ms);
    world_close(&w);
}

/* In one c-ares channel the refused TCP connection fails the slow question too. */
static void test_refused_tcp_fails_only_itself(void **state)
{
    (void)state;
    static struct world w;
    struct got dead, slow;
    world_open(&w, false, 3000);
    services(&w, &slow, "slow.lab");
    run_until_asked(&w, 1);
    services(&w, &dead, "tcpdead.lab");
    run(&w);
    assert_int_equal(dead.order, 1); /* while the slow one was in flight */
    assert_int_equal(dead.s.status, DNS_FAILED);
    assert_int_equal(slow.s.status, DNS_OK);
    assert_int_equal(slow.s.ntargets, 2);
    world_close(&w);
}

static void test_nobody_there(void **state)
{
    (void)state;
    static struct world w;
    struct got g;
    char why[DNS_TEXT_MAX];
    world_open(&w, true, 3000);
    resolver_close(w.r);
    struct server empty;
    server_open(&empty, w.loop.uv, false);
    server_close(&empty); /* nobody listens there any more */
    uv_run(w.loop.uv, UV_RUN_NOWAIT);
    char *servers[] = {empty.address};
    struct resolver_settings settings = {servers, 1, 3000, false};
    w.r = resolver_new(&w.loop, &settings, why);
    assert_non_null(w.r);
    services(&w, &g, "good.lab");
    run(&w);
    assert_int_equal(g.s.status, DNS_FAILED);
    assert_non_null(strstr(g.s.text, "cannot be reached"));
    assert_true(g.s.total_ms < 2000);
    world_close(&w);
}

/* ---- addresses ------------------------------------------------------------------------------- */

static void test_addresses(void **state)
{
    (void)state;
    static struct world w;
    struct got both, v4, half, nx;
    world_open(&w, true, 3000);
    addresses(&w, &both, "good.lab");
    addresses(&w, &v4, "v4only.lab");
    addresses(&w, &half, "half.lab");
    addresses(&w, &nx, "nx.lab");
    run(&w);
    assert_int_equal(both.a.n, 2);
    assert_int_equal(both.a.ip[0].len, 16);
    assert_int_equal(both.a.ip[1].len, 4);
    assert_int_equal(v4.a.n, 1); /* did not wait for the AAAA answer that never comes */
    assert_true(v4.a.total_ms >= 45 && v4.a.total_ms < 1500);
    assert_int_equal(half.a.status, DNS_OK);
    assert_int_equal(half.a.n, 1);
    assert_int_equal(nx.a.status, DNS_NONE);
    assert_string_equal(nx.a.text, "no such domain: nx.lab does not exist");
    assert_true(logged(&w, "dns.result host=good.lab method=A "));
    world_close(&w);
}

static void test_no_such_domain(void **state)
{
    (void)state;
    static struct world w;
    struct got s, a;
    world_open(&w, true, 3000);
    services(&w, &s, "nx.lab");
    run(&w);
    addresses(&w, &a, s.s.target[0].host);
    run(&w);
    assert_int_equal(a.a.status, DNS_NONE);
    assert_string_equal(a.a.text,
                        "no such domain: SRV _xmpp-server._tcp.nx.lab and nx.lab do not exist");
    world_close(&w);
}

static void test_literals(void **state)
{
    (void)state;
    static struct world w;
    struct got v4, v6;
    world_open(&w, true, 3000);
    addresses(&w, &v4, "127.50.2.77");
    addresses(&w, &v6, "2001:db8::9");
    run(&w);
    assert_int_equal(v4.a.n, 1);
    assert_memory_equal(v4.a.ip[0].bytes, "\x7f\x32\x02\x4d", 4);
    assert_int_equal(v6.a.ip[0].len, 16);
    assert_int_equal(w.server.questions, 0);
    assert_true(logged(&w, "method=literal"));
    world_close(&w);
}

/* ---- cancel and close ------------------------------------------------------------------------ */

static void test_cancel(void **state)
{
    (void)state;
    static struct world w;
    struct got one, two, lone, cached;
    world_open(&w, true, 3000);
    services(&w, &one, "slow.lab");
    services(&w, &two, "slow.lab");
    addresses(&w, &lone, "silent.lab");
    run_until_asked(&w, 3);
    dns_query_cancel(one.q);
    dns_query_cancel(lone.q); /* the last who wanted it: its sockets close */
    dns_query_cancel(NULL);
    w.pending -= 2;
    run(&w);
    assert_int_equal(one.calls, 0);
    assert_int_equal(lone.calls, 0);
    assert_int_equal(two.s.status, DNS_OK);

    services(&w, &cached, "slow.lab"); /* answered from the cache, in a task not yet run */
    dns_query_cancel(cached.q);
    w.pending--;
    services(&w, &one, "slow.lab");
    run(&w);
    assert_int_equal(cached.calls, 0);
    assert_int_equal(one.calls, 1);
    world_close(&w);
}

static void on_services_cancel_next(void *arg, const struct dns_services *s)
{
    struct got *g = arg;
    g->s = *s;
    dns_query_cancel(g[1].q);
    g->w->pending--;
    one_done(g);
}

static void test_cancel_in_callback(void **state)
{
    (void)state;
    static struct world w;
    static struct got g[3];
    world_open(&w, true, 3000);
    g[0] = (struct got){.w = &w};
    assert_non_null(resolver_services(w.r, STR("good.lab"), true, on_services_cancel_next, &g[0]));
    w.pending++;
    services(&w, &g[1], "good.lab");
    services(&w, &g[2], "good.lab");
    run(&w);
    assert_int_equal(g[0].calls, 1);
    assert_int_equal(g[1].calls, 0);
    assert_int_equal(g[2].calls, 1);
    world_close(&w);
}

static void on_services_close(void *arg, const struct dns_services *s)
{
    struct got *g = arg;
    g->s = *s;
    resolver_close(g->w->r);
    g->w->r = NULL;
    g->w->pending = 1;
    one_done(g);
}

static void test_close_in_callback(void **state)
{
    (void)state;
    static struct world w;
    static struct got g[4];
    for (int cached = 0; cached < 2; cached++) {
        world_open(&w, true, 3000);
        if (cached) {
            services(&w, &g[0], "good.lab");
            run(&w);
        }
        g[0] = (struct got){.w = &w};
        assert_non_null(resolver_services(w.r, STR("good.lab"), true, on_services_close, &g[0]));
        services(&w, &g[1], "good.lab");
        services(&w, &g[2], "silent.lab");
        addresses(&w, &g[3], "127.0.0.1");
        run(&w);
        assert_int_equal(g[0].calls, 1);
        assert_int_equal(g[1].calls, 0);
        assert_int_equal(g[2].calls, 0);
        world_close(&w);
    }
}

static void test_close_in_flight(void **state)
{
    (void)state;
    static struct world w;
    static struct got g[6];
    world_open(&w, true, 3000);
    services(&w, &g[0], "good.lab");
    run(&w);
    services(&w, &g[1], "silent.lab");
    addresses(&w, &g[2], "silent.lab");
    services(&w, &g[3], "big.lab");
    run_until_asked(&w, 5);
    services(&w, &g[4], "good.lab"); /* cached, not delivered yet */
    addresses(&w, &g[5], "127.0.0.1");
    services(&w, &g[0], "slow.lab"); /* not asked yet */
    world_close(&w);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(g[i].calls, 0);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void test_in_flight_limit(void **state)
{
    (void)state;
    static struct world w;
    static struct got g[512];
    char name[32];
    world_open(&w, true, 3000);
    for (unsigned i = 0; i < 512; i++) {
        snprintf(name, sizeof name, "n%u.silent.lab", i);
        services(&w, &g[i], name);
    }
    run_until_asked(&w, 128); /* their sockets are open */
    assert_null(resolver_services(w.r, STR("good.lab"), true, on_services, &g[0]));
    services(&w, &g[0], "n1.silent.lab"); /* waits with others for the same name */
    world_close(&w);
}

/* ---- DNSSEC ---------------------------------------------------------------------------------- */

static void test_tlsa(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        enum dns_status status;
        bool authentic;
        const char *text;
    } row[] = {
        {"signed.lab", DNS_OK, true, ""},
        {"good.lab", DNS_OK, false, ""},
        {"liar.lab", DNS_OK, true, ""},
        {"nx.lab", DNS_NONE, false, "_5269._tcp.nx.lab has no TLSA record"},
        {"broken.lab", DNS_FAILED, false, "TLSA _5269._tcp.broken.lab: SERVFAIL"},
        {"silent.lab", DNS_TIMEOUT, false, "did not answer"},
        {"127.0.0.1", DNS_NONE, false, "is an address"},
        {"a b.lab", DNS_NONE, false, "not a domain name"},
    };
    enum { N = sizeof row / sizeof *row };
    static struct world w;
    static struct got g[N];
    char longest[DOMAIN_MAX + 1];
    world_open_trusting(&w, true, 400, true);
    for (size_t i = 0; i < N; i++)
        tlsa(&w, &g[i], row[i].host);
    run(&w);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(g[i].t.status, row[i].status);
        assert_int_equal(g[i].t.authentic, row[i].authentic);
        assert_int_equal(g[i].t.n, row[i].status == DNS_OK);
        if (strstr(g[i].t.text, row[i].text) == NULL)
            fail_msg("%s: %s", row[i].host, g[i].t.text);
    }
    const struct tlsa *t = &g[0].t.record[0];
    assert_true(t->usage == 3 && t->selector == 1 && t->matching == 1 && t->n == 32);
    assert_true(logged(&w, "dns.result host=_5269._tcp.signed.lab method=TLSA total="));
    assert_true(logged(&w, "records=1 authentic=yes cached=no status=ok"));

    unsigned questions = w.server.questions;
    tlsa(&w, &g[0], "SIGNED.lab");
    run(&w);
    assert_true(g[0].t.cached && g[0].t.authentic && g[0].t.n == 1);
    /* A host with so long a name cannot have any. */
    memset(longest, 'a', sizeof longest);
    for (size_t i = 50; i < DOMAIN_MAX; i += 51)
        longest[i] = '.';
    longest[DOMAIN_MAX] = '\0';
    tlsa(&w, &g[0], longest);
    run(&w);
    assert_int_equal(g[0].t.status, DNS_NONE);
    assert_int_equal(w.server.questions, questions);
    world_close(&w);
}

/* The AD bit is asked for and believed where the servers are trusted, and only there. */
static void test_authentic(void **state)
{
    (void)state;
    static struct world w;
    for (unsigned trust = 0; trust < 2; trust++) {
        struct got s, a, t, liar, plain;
        world_open_trusting(&w, true, 3000, trust);
        services(&w, &s, "signed.lab");
        addresses(&w, &a, "signed.lab");
        tlsa(&w, &t, "signed.lab");
        services(&w, &liar, "liar.lab");
        services(&w, &plain, "good.lab");
        run(&w);
        assert_int_equal(w.server.asked_ad, trust ? w.server.questions : 0);
        assert_int_equal(s.s.ntargets, 2);
        for (size_t i = 0; i < 2; i++)
            assert_int_equal(s.s.target[i].authentic, trust);
        assert_int_equal(a.a.authentic, trust);
        assert_int_equal(t.t.authentic, trust);
        assert_int_equal(liar.s.target[0].authentic, trust);
        assert_false(plain.s.target[0].authentic);
        assert_int_equal(logged(&w, "authentic="), trust);
        services(&w, &s, "signed.lab");
        addresses(&w, &a, "signed.lab");
        run(&w);
        assert_true(s.s.cached && a.a.cached); /* it is kept with the rest */
        assert_int_equal(s.s.target[1].authentic, trust);
        assert_int_equal(a.a.authentic, trust);
        world_close(&w);
    }
}

/* The services of a domain without SRV records, for who asks for one kind, and its addresses are
 * two things, though of the same name. */
static void test_plain_services_then_addresses(void **state)
{
    (void)state;
    static struct world w;
    struct got s, a;
    world_open(&w, true, 3000);
    ask_services(&w, &s, "fallback.lab", false);
    run(&w);
    assert_string_equal(s.s.target[0].host, "fallback.lab");
    addresses(&w, &a, "fallback.lab");
    run(&w);
    assert_false(a.a.cached);
    assert_int_equal(a.a.n, 2);
    world_close(&w);
}

static void test_bad_servers(void **state)
{
    (void)state;
    static const char *const bad[] = {"127.0.0.1", "ns.lab:53", "127.0.0.1:0", "127.0.0.1:53x", ""};
    struct loop loop;
    char why[DNS_TEXT_MAX];
    assert_true(loop_init(&loop, &env_system, NULL));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[32];
        str_copy(text, sizeof text, str_c(bad[i]));
        char *servers[] = {text};
        assert_null(resolver_new(&loop, &(struct resolver_settings){servers, 1, 1000, false}, why));
        assert_non_null(strstr(why, "is not an address with a port"));
    }
    char v4[] = "127.0.0.1:53", v6[] = "[::1]:5353";
    char *good[] = {v4, v6};
    const struct resolver_settings of_system = {NULL, 0, 1000, false}, two = {good, 2, 1000, true};
    struct resolver *r = resolver_new(&loop, &two, why);
    assert_non_null(r);
    resolver_close(r);
    r = resolver_new(&loop, &of_system, why);
    assert_non_null(r);
    resolver_close(r);
    for (unsigned long n = 1; n < 3; n++) {
        mem_fail_after(n);
        assert_null(resolver_new(&loop, &two, why));
        mem_fail_after(0);
        assert_int_not_equal(why[0], '\0');
    }
    loop_close(&loop);
}

/* Whichever allocation fails: no query, or exactly one callback. */
static void test_no_memory(void **state)
{
    (void)state;
    static struct world w;
    unsigned refused = 0, failed = 0, fine = 0;
    for (unsigned long n = 1; n <= 24; n++) {
        world_open(&w, true, 1000);
        log_set(w.log, LOG_ERROR, LOG_LOGFMT, 0);
        struct got g = {.w = &w};
        mem_fail_after(n);
        struct dns_query *q = resolver_services(w.r, STR("big.lab"), true, on_services, &g);
        if (q != NULL) {
            w.pending++;
            run(&w);
            assert_int_equal(g.calls, 1);
        }
        mem_fail_after(0);
        refused += q == NULL;
        failed += q != NULL && g.s.status != DNS_OK;
        fine += q != NULL && g.s.status == DNS_OK;
        world_close(&w);
    }
    assert_true(refused >= 3); /* query, question, job */
    assert_true(failed >= 2);  /* channel, socket */
    assert_true(fine >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_srv),
        cmocka_unit_test(test_both_services),
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_truncated_then_tcp),
        cmocka_unit_test(test_shared_question),
        cmocka_unit_test(test_silent_does_not_delay),
        cmocka_unit_test(test_refused_tcp_fails_only_itself),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_no_such_domain),
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_in_callback),
        cmocka_unit_test(test_close_in_callback),
        cmocka_unit_test(test_close_in_flight),
        cmocka_unit_test(test_in_flight_limit),
        cmocka_unit_test(test_tlsa),
        cmocka_unit_test(test_authentic),
        cmocka_unit_test(test_plain_services_then_addresses),
        cmocka_unit_test(test_bad_servers),
        cmocka_unit_test(test_no_memory),
    };
    alarm(60); /* a lookup that never ends must not hang the run */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
