#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/base/env.h"
#include "dns/plan.h"
#include "tests/fake/dns_packet.h"

#define SRV_NAME "_xmpp-server._tcp.beta.lab"
#define TLS_NAME "_xmpps-server._tcp.beta.lab"

static bool constant(void *ctx, unsigned char *out, size_t n)
{
    memset(out, *(int *)ctx, n);
    return true;
}

static int byte_drawn = 0x80;
static const struct env env = {.random = constant, .ctx = &byte_drawn};

static struct dns_plan plan;
static bool trusted;
static struct dns_actions todo;

static void step(enum dns_event_kind kind, uint64_t now)
{
    struct dns_event ev = {.kind = kind, .now_ms = now};
    todo.n = 0;
    dns_plan_step(&plan, &ev, &todo);
}

static void reply_to(size_t slot, enum dns_reply how, const struct pkt *p, uint64_t now)
{
    struct dns_event ev = {DNS_EV_REPLY, now, slot, how, p ? pkt_view(p) : STR_NONE};
    todo.n = 0;
    dns_plan_step(&plan, &ev, &todo);
}

/* To the first question of that type. */
static void reply(enum dns_rr type, enum dns_reply how, const struct pkt *p, uint64_t now)
{
    size_t slot = 0;
    while (plan.slot[slot].type != type)
        slot++;
    assert_in_range(slot, 0, plan.nslots - 1);
    reply_to(slot, how, p, now);
}

static void begin(enum dns_kind kind, const char *name, bool no_srv)
{
    dns_plan_init(&plan, &env, kind, str_c(name), no_srv);
    plan.trust_ad = trusted;
    step(DNS_EV_START, 1000);
}

static bool did(enum dns_action_kind kind)
{
    return todo.n == 1 && todo.v[0].kind == kind;
}

/* ---- services, one row per outcome of the SRV question ---- */

static void pkt_good(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(p, SRV_NAME, 4000, 20, 0, 5270, "two.beta.lab");
    pkt_srv(p, SRV_NAME, 4000, 10, 0, 5269, "one.beta.lab");
}

static void pkt_zero_ttl(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(p, SRV_NAME, 0, 20, 0, 5270, "two.beta.lab");
}

static void pkt_dot(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(p, SRV_NAME, 4000, 0, 0, 0, ".");
}

static void pkt_port_zero(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(p, SRV_NAME, 4000, 0, 0, 0, "one.beta.lab");
}

static void pkt_nxdomain(struct pkt *p)
{
    pkt_response(p, 1, 3, SRV_NAME, DNS_RR_SRV);
    pkt_soa(p, "lab", 10, 500);
}

static void pkt_nxdomain_long(struct pkt *p)
{
    pkt_response(p, 1, 3, SRV_NAME, DNS_RR_SRV);
    pkt_soa(p, "lab", 9000, 500);
}

static void pkt_nodata(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
}

static void pkt_servfail(struct pkt *p)
{
    pkt_response(p, 1, 2, SRV_NAME, DNS_RR_SRV);
}

static void pkt_garbage(struct pkt *p)
{
    pkt_response(p, 1, 0, "other.lab", DNS_RR_SRV);
}

static void test_services(void **state)
{
    (void)state;
    static const struct {
        void (*make)(struct pkt *);
        enum dns_status status;
        bool from_srv;
        size_t targets;
        const char *first;
        uint64_t life_ms;
        const char *text; /* a part of it */
    } row[] = {
        {pkt_good, DNS_OK, true, 2, "one.beta.lab", 3600000, ""},
        {pkt_zero_ttl, DNS_OK, true, 1, "two.beta.lab", 0, ""},
        {pkt_dot, DNS_NONE, true, 0, NULL, 30000, "offers no XMPP federation (SRV target \".\")"},
        {pkt_port_zero, DNS_FAILED, false, 0, NULL, 5000, "unusable answer for SRV"},
        {pkt_nxdomain, DNS_OK, false, 1, "beta.lab", 10000, ""},
        {pkt_nxdomain_long, DNS_OK, false, 1, "beta.lab", 30000, ""},
        {pkt_nodata, DNS_OK, false, 1, "beta.lab", 30000, ""},
        {pkt_servfail, DNS_FAILED, false, 0, NULL, 5000,
         "could not resolve SRV " SRV_NAME ": SERVFAIL"},
        {pkt_garbage, DNS_FAILED, false, 0, NULL, 5000, "unusable answer"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct pkt p;
        struct dns_services s;
        row[i].make(&p);
        begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
        assert_true(did(DNS_ACT_ASK));
        assert_int_equal(plan.slot[todo.v[0].slot].type, DNS_RR_SRV);
        reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 1010);
        assert_true(did(DNS_ACT_DONE));
        dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
        assert_int_equal(s.status, row[i].status);
        assert_int_equal(s.from_srv, row[i].from_srv);
        assert_int_equal(s.ntargets, row[i].targets);
        if (row[i].first != NULL)
            assert_string_equal(s.target[0].host, row[i].first);
        if (row[i].first != NULL && !row[i].from_srv)
            assert_int_equal(s.target[0].port, 5269);
        assert_int_equal(plan.outcome.life_ms, row[i].life_ms);
        assert_non_null(strstr(s.text, row[i].text));
        assert_int_equal(*s.text == '\0', row[i].status == DNS_OK);
    }
}

static void test_question_name(void **state)
{
    (void)state;
    char name[DOMAIN_MAX + 1];
    begin(DNS_KIND_SERVICES, "beta.lab", false);
    dns_plan_question(&plan, 0, name);
    assert_string_equal(name, SRV_NAME);
    dns_plan_question(&plan, 1, name);
    assert_string_equal(name, TLS_NAME);
    begin(DNS_KIND_ADDRESSES, "beta.lab", false);
    dns_plan_question(&plan, 0, name);
    assert_string_equal(name, "beta.lab");
}

/* A domain so long that the SRV name would be too long has no SRV record. */
static void test_long_domain(void **state)
{
    (void)state;
    char name[DOMAIN_MAX + 1];
    for (size_t i = 0; i < DOMAIN_MAX; i++)
        name[i] = i % 2 ? '.' : 'a';
    name[DOMAIN_MAX] = '\0';
    begin(DNS_KIND_SERVICES_PLAIN, name, false);
    assert_true(did(DNS_ACT_DONE));
    struct dns_services s;
    dns_outcome_services(&plan.outcome, str_c(name), &env, &s);
    assert_int_equal(s.status, DNS_OK);
    assert_string_equal(s.target[0].host, name);
    /* And the sentence of a failure about it still fits. */
    begin(DNS_KIND_ADDRESSES, name, true);
    struct pkt p;
    pkt_response(&p, 1, 3, name, DNS_RR_A);
    reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1001);
    pkt_response(&p, 1, 3, name, DNS_RR_AAAA);
    reply(DNS_RR_AAAA, DNS_REPLY_MESSAGE, &p, 1001);
    assert_int_equal(plan.outcome.status, DNS_NONE);
    assert_non_null(strstr(plan.outcome.text, "do not exist"));
}

static void test_retry(void **state)
{
    (void)state;
    struct pkt p;
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    assert_false(todo.v[0].again);
    reply(DNS_RR_SRV, DNS_REPLY_UNREACHABLE, NULL, 1001);
    assert_true(did(DNS_ACT_ASK));
    assert_true(todo.v[0].again);
    reply(DNS_RR_SRV, DNS_REPLY_UNREACHABLE, NULL, 1002);
    assert_true(did(DNS_ACT_DONE));
    assert_int_equal(plan.outcome.status, DNS_FAILED);
    assert_non_null(strstr(plan.outcome.text, "cannot be reached"));

    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply(DNS_RR_SRV, DNS_REPLY_UNREACHABLE, NULL, 1001);
    pkt_good(&p);
    reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 1003);
    assert_int_equal(plan.outcome.status, DNS_OK);
}

static void test_late(void **state)
{
    (void)state;
    struct pkt p;
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    step(DNS_EV_DEADLINE, 11000);
    assert_true(did(DNS_ACT_DONE));
    assert_int_equal(plan.outcome.status, DNS_TIMEOUT);
    assert_string_equal(plan.outcome.text, "DNS servers did not answer within 10 s");
    pkt_good(&p);
    reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 11001); /* too late changes nothing */
    assert_int_equal(todo.n, 0);
    assert_int_equal(plan.outcome.status, DNS_TIMEOUT);

    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply(DNS_RR_SRV, DNS_REPLY_TIMEOUT, NULL, 1350);
    assert_int_equal(plan.outcome.status, DNS_TIMEOUT);
    assert_string_equal(plan.outcome.text, "DNS servers did not answer within 350 ms");
}

/* ---- both services (XEP-0368), one row per pair of ends ---- */

enum end { GOOD, DOT, NO_NAME, NO_RECORD, BROKEN, SILENT };

/* Of the better priority is the one with direct TLS, of the worst, too. */
static void end_of(size_t slot, enum end e, uint64_t now)
{
    const char *name = slot == 0 ? SRV_NAME : TLS_NAME;
    struct pkt p;
    pkt_response(&p, 1, e == NO_NAME ? 3 : e == BROKEN ? 2 : 0, name, DNS_RR_SRV);
    if (e == DOT)
        pkt_srv(&p, name, 400, 0, 0, 0, ".");
    if (e == GOOD && slot == 0)
        pkt_srv(&p, name, 400, 20, 0, 5269, "both.beta.lab");
    if (e == GOOD && slot == 1) {
        pkt_srv(&p, name, 300, 10, 0, 5270, "first.beta.lab");
        pkt_srv(&p, name, 300, 30, 0, 5269, "both.beta.lab");
    }
    reply_to(slot, e == SILENT ? DNS_REPLY_TIMEOUT : DNS_REPLY_MESSAGE, &p, now);
}

static void targets_text(char out[200])
{
    struct dns_services s;
    size_t at = 0;
    dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
    out[0] = '\0';
    for (size_t i = 0; i < s.ntargets; i++)
        at += (size_t)snprintf(out + at, 200 - at, "%s%s%s:%u", i ? " " : "",
                               s.target[i].direct_tls ? "tls://" : "", s.target[i].host,
                               s.target[i].port);
}

static void test_both_services(void **state)
{
    (void)state;
    static const char tls[] = "tls://first.beta.lab:5270 tls://both.beta.lab:5269";
    static const struct {
        enum end plain, tls;
        enum dns_status status;
        const char *targets;
        uint64_t life_ms;
        const char *text;
    } row[] = {
        {GOOD, GOOD, DNS_OK,
         "tls://first.beta.lab:5270 both.beta.lab:5269 tls://both.beta.lab:5269", 300000, ""},
        {GOOD, DOT, DNS_OK, "both.beta.lab:5269", 400000, ""},
        {GOOD, NO_NAME, DNS_OK, "both.beta.lab:5269", 30000, ""},
        {GOOD, BROKEN, DNS_OK, "both.beta.lab:5269", 5000, ""},
        {GOOD, SILENT, DNS_OK, "both.beta.lab:5269", 5000, ""},
        {DOT, GOOD, DNS_OK, tls, 300000, ""},
        {DOT, DOT, DNS_NONE, "", 30000, "offers no XMPP federation"},
        {DOT, NO_RECORD, DNS_NONE, "", 30000, "offers no XMPP federation"},
        {DOT, BROKEN, DNS_FAILED, "", 5000, "could not resolve SRV " TLS_NAME ": SERVFAIL"},
        {DOT, SILENT, DNS_TIMEOUT, "", 5000, "did not answer"},
        {NO_NAME, GOOD, DNS_OK, tls, 30000, ""},
        {NO_NAME, DOT, DNS_OK, "beta.lab:5269", 30000, ""},
        {NO_NAME, NO_RECORD, DNS_OK, "beta.lab:5269", 30000, ""},
        {NO_RECORD, BROKEN, DNS_OK, "beta.lab:5269", 5000, ""},
        {NO_RECORD, SILENT, DNS_OK, "beta.lab:5269", 5000, ""},
        {BROKEN, GOOD, DNS_OK, tls, 5000, ""},
        {BROKEN, DOT, DNS_FAILED, "", 5000, "could not resolve SRV " SRV_NAME ": SERVFAIL"},
        {BROKEN, NO_NAME, DNS_FAILED, "", 5000, "could not resolve SRV " SRV_NAME ": SERVFAIL"},
        {BROKEN, BROKEN, DNS_FAILED, "", 5000, "could not resolve SRV " SRV_NAME ": SERVFAIL"},
        {SILENT, GOOD, DNS_OK, tls, 5000, ""},
        {SILENT, NO_NAME, DNS_TIMEOUT, "", 5000, "did not answer"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        for (size_t tls_first = 0; tls_first < 2; tls_first++) {
            char targets[200];
            begin(DNS_KIND_SERVICES, "beta.lab", false);
            assert_int_equal(todo.n, 2);
            end_of(tls_first, tls_first ? row[i].tls : row[i].plain, 1010);
            assert_false(did(DNS_ACT_DONE));
            end_of(!tls_first, tls_first ? row[i].plain : row[i].tls, 1020);
            assert_true(did(DNS_ACT_DONE));
            targets_text(targets);
            assert_int_equal(plan.outcome.status, row[i].status);
            assert_string_equal(targets, row[i].targets);
            assert_int_equal(plan.outcome.life_ms, row[i].life_ms);
            assert_non_null(strstr(plan.outcome.text, row[i].text));
            assert_int_equal(*plan.outcome.text == '\0', row[i].status == DNS_OK);
        }
}

/* An answer that says something does not wait long for one that may never come. */
static void test_other_service_is_silent(void **state)
{
    (void)state;
    static const struct {
        size_t slot;
        enum end end;
        bool grace;
        enum dns_status status; /* when the other one has not come */
    } row[] = {
        {0, GOOD, true, DNS_OK},        {0, NO_NAME, true, DNS_OK},
        {0, DOT, false, DNS_TIMEOUT},   {0, BROKEN, false, DNS_FAILED},
        {1, GOOD, true, DNS_OK},        {1, NO_NAME, false, DNS_TIMEOUT},
        {1, BROKEN, false, DNS_FAILED},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        begin(DNS_KIND_SERVICES, "beta.lab", false);
        end_of(row[i].slot, row[i].end, 1010);
        assert_int_equal(did(DNS_ACT_GRACE), row[i].grace);
        if (row[i].grace)
            assert_int_equal(todo.v[0].ms, 250);
        step(row[i].grace ? DNS_EV_GRACE : DNS_EV_DEADLINE, 1260);
        assert_true(did(DNS_ACT_DONE));
        assert_int_equal(plan.outcome.status, row[i].status);
    }
}

/* ---- addresses ---- */

static void pkt_v4(struct pkt *p, unsigned n, uint32_t ttl)
{
    pkt_response(p, 1, 0, "h.lab", DNS_RR_A);
    for (unsigned i = 0; i < n; i++) {
        char ip[4] = {127, 0, 4, (char)i};
        pkt_a(p, "h.lab", ttl, ip);
    }
}

static void pkt_v6(struct pkt *p, unsigned n, uint32_t ttl)
{
    pkt_response(p, 1, 0, "h.lab", DNS_RR_AAAA);
    for (unsigned i = 0; i < n; i++) {
        char ip[16] = {0x20, 1, 0xd, (char)0xb8, [15] = (char)i};
        pkt_aaaa(p, "h.lab", ttl, ip);
    }
}

static void begin_addresses(void)
{
    begin(DNS_KIND_ADDRESSES, "h.lab", false);
    assert_int_equal(todo.n, 2);
    assert_int_equal(plan.slot[todo.v[0].slot].type, DNS_RR_AAAA);
    assert_int_equal(plan.slot[todo.v[1].slot].type, DNS_RR_A);
}

static void test_interleaved(void **state)
{
    (void)state;
    struct pkt p;
    struct dns_addresses a;
    begin_addresses();
    pkt_v4(&p, 6, 50);
    reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1010);
    assert_true(did(DNS_ACT_GRACE));
    assert_int_equal(todo.v[0].ms, 50);
    pkt_v6(&p, 2, 40);
    reply(DNS_RR_AAAA, DNS_REPLY_MESSAGE, &p, 1020);
    assert_true(did(DNS_ACT_DONE));
    dns_outcome_addresses(&plan.outcome, &a);
    assert_int_equal(a.n, 6);
    assert_int_equal(a.ip[0].len, 16);
    assert_int_equal(a.ip[1].len, 4);
    assert_int_equal(a.ip[2].len, 16);
    assert_int_equal(a.ip[3].len, 4);
    assert_int_equal(a.ip[5].bytes[3], 3);
    assert_int_equal(plan.outcome.life_ms, 40000);
    step(DNS_EV_GRACE, 1060);
    assert_int_equal(todo.n, 0);
}

static void test_grace(void **state)
{
    (void)state;
    struct pkt p;
    begin_addresses();
    pkt_v6(&p, 1, 400);
    reply(DNS_RR_AAAA, DNS_REPLY_MESSAGE, &p, 1010);
    assert_true(did(DNS_ACT_GRACE));
    step(DNS_EV_GRACE, 1060);
    assert_true(did(DNS_ACT_DONE));
    assert_int_equal(plan.outcome.status, DNS_OK);
    assert_int_equal(plan.outcome.n, 1);
    assert_int_equal(plan.outcome.life_ms, 5000); /* half an answer */
}

static void test_one_family_negative(void **state)
{
    (void)state;
    struct pkt p;
    begin_addresses();
    pkt_response(&p, 1, 3, "h.lab", DNS_RR_AAAA); /* NXDOMAIN, though there is an A record */
    reply(DNS_RR_AAAA, DNS_REPLY_MESSAGE, &p, 1010);
    assert_int_equal(todo.n, 0); /* nothing found yet: no grace, the other one decides */
    pkt_v4(&p, 1, 400);
    reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1020);
    assert_true(did(DNS_ACT_DONE));
    assert_int_equal(plan.outcome.status, DNS_OK);
    assert_int_equal(plan.outcome.life_ms, 30000);
}

static void test_one_family_fails(void **state)
{
    (void)state;
    struct pkt p;
    begin_addresses();
    reply(DNS_RR_AAAA, DNS_REPLY_TIMEOUT, NULL, 1010);
    assert_int_equal(todo.n, 0);
    pkt_v4(&p, 1, 400);
    reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1020);
    assert_int_equal(plan.outcome.status, DNS_OK);
    assert_int_equal(plan.outcome.n, 1);
    assert_int_equal(plan.outcome.life_ms, 5000);
}

enum half { NX, NODATA, SERVFAIL, LATE, UNUSABLE };

static void half_reply(enum dns_rr type, enum half h)
{
    struct pkt p;
    pkt_response(&p, 1, h == NX ? 3 : h == SERVFAIL ? 2 : 0, "h.lab", type);
    enum dns_reply how = h == LATE       ? DNS_REPLY_TIMEOUT
                         : h == UNUSABLE ? DNS_REPLY_UNUSABLE
                                         : DNS_REPLY_MESSAGE;
    reply(type, how, &p, 1010);
}

static void test_nothing_found(void **state)
{
    (void)state;
    static const struct {
        enum half v6, v4;
        bool no_srv;
        enum dns_status status;
        const char *text;
    } row[] = {
        {NX, NX, false, DNS_NONE, "no such domain: h.lab does not exist"},
        {NX, NX, true, DNS_NONE,
         "no such domain: SRV _xmpp-server._tcp.h.lab and h.lab do not exist"},
        {NX, NODATA, false, DNS_NONE, "no such domain: h.lab does not exist"},
        {NODATA, NODATA, false, DNS_NONE, "no address: h.lab has no A or AAAA record"},
        {NODATA, NODATA, true, DNS_NONE, "no address: h.lab has no SRV, A or AAAA record"},
        {NX, SERVFAIL, false, DNS_FAILED, "DNS servers could not resolve h.lab: SERVFAIL"},
        {SERVFAIL, LATE, false, DNS_FAILED, "DNS servers could not resolve h.lab: SERVFAIL"},
        {NODATA, LATE, false, DNS_TIMEOUT, "DNS servers did not answer within 10 ms"},
        {UNUSABLE, NX, false, DNS_FAILED, "DNS question for h.lab could not be put"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        begin(DNS_KIND_ADDRESSES, "h.lab", row[i].no_srv);
        half_reply(DNS_RR_AAAA, row[i].v6);
        half_reply(DNS_RR_A, row[i].v4);
        assert_true(did(DNS_ACT_DONE));
        assert_int_equal(plan.outcome.status, row[i].status);
        assert_string_equal(plan.outcome.text, row[i].text);
        assert_int_equal(plan.outcome.n, 0);
    }
}

static void test_deadline_with_one(void **state)
{
    (void)state;
    struct pkt p;
    begin_addresses();
    pkt_v4(&p, 1, 400);
    reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1010);
    step(DNS_EV_DEADLINE, 1030);
    assert_true(did(DNS_ACT_DONE));
    assert_int_equal(plan.outcome.status, DNS_OK);
}

static void test_unasked_replies(void **state)
{
    (void)state;
    struct pkt p;
    begin_addresses();
    pkt_v4(&p, 1, 400);
    reply_to(DNS_PLAN_SLOTS, DNS_REPLY_MESSAGE, &p, 1010);
    step(DNS_EV_GRACE, 1011);
    assert_int_equal(todo.n, 0);
    assert_false(plan.done);
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply_to(1, DNS_REPLY_MESSAGE, &p, 1010);
    assert_int_equal(todo.n, 0);
}

/* ---- outcomes ---- */

static void test_store_and_load(void **state)
{
    (void)state;
    struct pkt p;
    struct dns_outcome back;
    pkt_good(&p);
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 1010);
    size_t n = dns_outcome_size(&plan.outcome, DNS_KIND_SERVICES_PLAIN);
    assert_true(n < sizeof back);
    struct str bytes = {(char *)&plan.outcome, n};
    assert_true(dns_outcome_load(&back, DNS_KIND_SERVICES, bytes));
    assert_int_equal(back.n, 2);
    assert_string_equal(back.u.srv[1].target, "two.beta.lab");
    assert_false(dns_outcome_load(&back, DNS_KIND_ADDRESSES, bytes));
    bytes.n--;
    assert_false(dns_outcome_load(&back, DNS_KIND_SERVICES, bytes));
    bytes.n = 3;
    assert_false(dns_outcome_load(&back, DNS_KIND_SERVICES, bytes));
}

static void test_many_targets(void **state)
{
    (void)state;
    struct pkt p;
    struct dns_services s;
    char host[32];
    pkt_response(&p, 1, 0, SRV_NAME, DNS_RR_SRV);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(host, sizeof host, "h%u.beta.lab", i);
        pkt_srv(&p, SRV_NAME, 60, 40 - i, 0, 5269, host);
    }
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 1010);
    assert_int_equal(plan.outcome.n, DNS_SRV_EACH);
    dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
    assert_int_equal(s.ntargets, DNS_TARGETS_MAX);
    assert_string_equal(s.target[0].host, "h39.beta.lab"); /* the best, not the first */
    assert_string_equal(s.target[7].host, "h32.beta.lab");
}

/* Each use of one cached set draws anew. */
static void test_order_is_drawn_per_use(void **state)
{
    (void)state;
    struct pkt p;
    struct dns_services s;
    pkt_response(&p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(&p, SRV_NAME, 60, 1, 50, 1, "a.lab");
    pkt_srv(&p, SRV_NAME, 60, 1, 50, 2, "b.lab");
    begin(DNS_KIND_SERVICES_PLAIN, "beta.lab", false);
    reply(DNS_RR_SRV, DNS_REPLY_MESSAGE, &p, 1010);
    byte_drawn = 0x00;
    dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
    uint16_t low = s.target[0].port;
    byte_drawn = 0xff;
    dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
    assert_int_not_equal(s.target[0].port, low);
    byte_drawn = 0x80;
}

static void test_without_question(void **state)
{
    (void)state;
    struct dns_outcome o;
    struct dns_addresses a;
    struct ip ip;
    assert_true(ip_parse(STR("2001:db8::1"), &ip));
    dns_outcome_literal(&o, &ip);
    dns_outcome_addresses(&o, &a);
    assert_int_equal(a.status, DNS_OK);
    assert_true(a.n == 1 && ip_equal(&a.ip[0], &ip));
    dns_outcome_no_name(&o, STR("10.0.0.1"));
    assert_int_equal(o.status, DNS_NONE);
    assert_string_equal(o.text, "\"10.0.0.1\" is an address, not a domain name");
    dns_outcome_no_name(&o, STR("a b\n"));
    assert_string_equal(o.text, "not a domain name that can be looked up");
    assert_string_equal(dns_status_name(DNS_TIMEOUT), "timeout");
}

/* ---- TLSA ---- */

#define TLSA_NAME "_5269._tcp.one.beta.lab"

enum tlsa_end { TWO, UNFIT, HALF, NO_TLSA, NO_SUCH_NAME, BOGUS, FOREIGN, NO_ANSWER };

static void tlsa_end(enum tlsa_end e)
{
    struct pkt p;
    unsigned rcode = e == NO_SUCH_NAME ? 3 : e == BOGUS ? 2 : 0;
    pkt_response(&p, 1, rcode, e == FOREIGN ? "other.lab" : TLSA_NAME, DNS_RR_TLSA);
    pkt_authentic(&p);
    if (e == TWO || e == HALF)
        pkt_tlsa(&p, TLSA_NAME, 300, 3, 1, 1, 7, 32);
    if (e == TWO)
        pkt_tlsa(&p, TLSA_NAME, 300, 2, 0, 1, 8, 32);
    if (e == UNFIT || e == HALF)
        pkt_tlsa(&p, TLSA_NAME, 300, 3, 0, 0, 9, TLSA_DATA_MAX + 1);
    reply(DNS_RR_TLSA, e == NO_ANSWER ? DNS_REPLY_TIMEOUT : DNS_REPLY_MESSAGE, &p, 1010);
}

static void test_tlsa(void **state)
{
    (void)state;
    static const struct {
        enum tlsa_end end;
        enum dns_status status;
        size_t n;
        bool authentic;
        uint64_t life_ms;
        const char *text;
    } row[] = {
        {TWO, DNS_OK, 2, true, 300000, ""},
        {UNFIT, DNS_OK, 0, true, 30000, ""}, /* there are some, and so TLS */
        {HALF, DNS_OK, 1, true, 300000, ""},
        {NO_TLSA, DNS_NONE, 0, true, 30000, TLSA_NAME " has no TLSA record"},
        {NO_SUCH_NAME, DNS_NONE, 0, true, 30000, TLSA_NAME " has no TLSA record"},
        {BOGUS, DNS_FAILED, 0, false, 5000, "could not resolve TLSA " TLSA_NAME ": SERVFAIL"},
        {FOREIGN, DNS_FAILED, 0, false, 5000, "unusable answer for TLSA"},
        {NO_ANSWER, DNS_TIMEOUT, 0, false, 5000, "did not answer"},
    };
    trusted = true;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct dns_tlsa t;
        struct dns_outcome loaded;
        begin(DNS_KIND_TLSA, TLSA_NAME, false);
        assert_true(did(DNS_ACT_ASK));
        tlsa_end(row[i].end);
        assert_true(did(DNS_ACT_DONE));
        struct str bytes = {(const char *)&plan.outcome,
                            dns_outcome_size(&plan.outcome, DNS_KIND_TLSA)};
        assert_true(dns_outcome_load(&loaded, DNS_KIND_TLSA, bytes));
        bytes.n--;
        assert_false(dns_outcome_load(&loaded, DNS_KIND_TLSA, bytes));
        dns_outcome_tlsa(&plan.outcome, &t);
        assert_int_equal(t.status, row[i].status);
        assert_int_equal(t.n, row[i].n);
        assert_int_equal(t.authentic, row[i].authentic);
        assert_int_equal(plan.outcome.life_ms, row[i].life_ms);
        assert_non_null(strstr(t.text, row[i].text));
        if (t.n > 0)
            assert_true(t.record[0].usage == 3 && t.record[0].n == 32 && t.record[0].data[31] == 7);
    }
    begin(DNS_KIND_TLSA, TLSA_NAME, false);
    reply(DNS_RR_TLSA, DNS_REPLY_UNREACHABLE, NULL, 1001);
    assert_true(did(DNS_ACT_ASK) && todo.v[0].again);
    tlsa_end(TWO);
    assert_int_equal(plan.outcome.status, DNS_OK);
    begin(DNS_KIND_TLSA, TLSA_NAME, false);
    step(DNS_EV_DEADLINE, 11000);
    assert_int_equal(plan.outcome.status, DNS_TIMEOUT);
    trusted = false;
}

/* ---- what DNSSEC vouches for ---- */

static void services_say(bool plain_ad, bool tls_ad, bool plain_none)
{
    struct pkt p;
    begin(DNS_KIND_SERVICES, "beta.lab", false);
    pkt_response(&p, 1, plain_none ? 3 : 0, SRV_NAME, DNS_RR_SRV);
    if (!plain_none)
        pkt_srv(&p, SRV_NAME, 400, 20, 0, 5269, "plain.beta.lab");
    if (plain_ad)
        pkt_authentic(&p);
    reply_to(0, DNS_REPLY_MESSAGE, &p, 1010);
    pkt_response(&p, 1, plain_none ? 3 : 0, TLS_NAME, DNS_RR_SRV);
    if (!plain_none)
        pkt_srv(&p, TLS_NAME, 400, 10, 0, 5270, "tls.beta.lab");
    if (tls_ad)
        pkt_authentic(&p);
    reply_to(1, DNS_REPLY_MESSAGE, &p, 1020);
}

static void test_authentic_services(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 16; bits++) {
        bool plain = bits & 1, tls = bits & 2, none = bits & 4;
        struct dns_services s;
        trusted = bits & 8;
        services_say(plain, tls, none);
        dns_outcome_services(&plan.outcome, STR("beta.lab"), &env, &s);
        assert_int_equal(s.ntargets, none ? 1 : 2);
        assert_int_equal(s.target[0].direct_tls, !none);
        if (none) {
            assert_int_equal(s.target[0].authentic, trusted && plain);
        } else {
            assert_int_equal(s.target[0].authentic, trusted && tls);
            assert_int_equal(s.target[1].authentic, trusted && plain);
        }
    }
    trusted = false;
}

static void test_authentic_addresses(void **state)
{
    (void)state;
    static const struct {
        bool trust, a_ad, aaaa_ad, aaaa_none, authentic;
    } row[] = {
        {true, true, true, false, true},   {true, true, false, false, true},
        {true, false, true, false, true},  {true, false, false, false, false},
        {true, false, true, true, false}, /* that there is no AAAA says nothing of the A */
        {false, true, true, false, false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct pkt p;
        struct dns_addresses a;
        trusted = row[i].trust;
        begin(DNS_KIND_ADDRESSES, "h.lab", false);
        pkt_response(&p, 1, 0, "h.lab", DNS_RR_A);
        pkt_a(&p, "h.lab", 60, "\x7f\0\0\1");
        if (row[i].a_ad)
            pkt_authentic(&p);
        reply(DNS_RR_A, DNS_REPLY_MESSAGE, &p, 1010);
        pkt_response(&p, 1, 0, "h.lab", DNS_RR_AAAA);
        if (!row[i].aaaa_none)
            pkt_aaaa(&p, "h.lab", 60, "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1");
        if (row[i].aaaa_ad)
            pkt_authentic(&p);
        reply(DNS_RR_AAAA, DNS_REPLY_MESSAGE, &p, 1020);
        dns_outcome_addresses(&plan.outcome, &a);
        assert_int_equal(a.status, DNS_OK);
        assert_int_equal(a.authentic, row[i].authentic);
    }
    trusted = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_services),
        cmocka_unit_test(test_question_name),
        cmocka_unit_test(test_long_domain),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_both_services),
        cmocka_unit_test(test_other_service_is_silent),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_grace),
        cmocka_unit_test(test_one_family_negative),
        cmocka_unit_test(test_one_family_fails),
        cmocka_unit_test(test_nothing_found),
        cmocka_unit_test(test_deadline_with_one),
        cmocka_unit_test(test_unasked_replies),
        cmocka_unit_test(test_store_and_load),
        cmocka_unit_test(test_many_targets),
        cmocka_unit_test(test_order_is_drawn_per_use),
        cmocka_unit_test(test_without_question),
        cmocka_unit_test(test_tlsa),
        cmocka_unit_test(test_authentic_services),
        cmocka_unit_test(test_authentic_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
