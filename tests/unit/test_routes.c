#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/base/mem.h"
#include "core/base/table.h"
#include "xcp/routes.h"

enum { GW1, GW2, GW3, IM, MUC, NLINKS };

static char *im_domains[] = {"alpha.lab", "shared.lab"};
static char *muc_domains[] = {"muc.alpha.lab", "shared.lab"};

static struct rcfg_link links[NLINKS] = {
    [GW1] = {.name = "gw1", .role = ROLE_GATEWAY, .component = "edge1.lab"},
    [GW2] = {.name = "gw2", .role = ROLE_GATEWAY, .component = "edge2.lab"},
    [GW3] = {.name = "gw3", .role = ROLE_GATEWAY, .component = "edge3.lab"},
    [IM] = {.name = "im",
            .role = ROLE_SERVER,
            .component = "router.lab",
            .domains = im_domains,
            .ndomains = 2},
    [MUC] = {.name = "muc",
             .role = ROLE_SERVER,
             .component = "router.lab",
             .domains = muc_domains,
             .ndomains = 2},
};
static struct router_config config = {.links = links, .nlinks = NLINKS};

static struct routes *all_up(void)
{
    struct routes *r = routes_new(&config);
    assert_non_null(r);
    for (size_t i = 0; i < NLINKS; i++) {
        assert_false(routes_is_up(r, i));
        routes_set_up(r, i, true);
    }
    return r;
}

/* The domain of "local@domain" or "domain". */
static struct str domain_of(const char *address)
{
    const char *at = strchr(address, '@');
    return str_c(at ? at + 1 : address);
}

static struct route decide(struct routes *r, size_t source, enum stanza_kind kind, const char *type,
                           const char *from, const char *to)
{
    struct stanza st = {.kind = kind, .from = str_c(from), .to = str_c(to), .type = str_c(type)};
    return routes_decide(r, source, &st, domain_of(from), domain_of(to));
}

/* One row per rule; everything is up but gw2, gw3 and, where `im_down`, im. */
struct row {
    const char *rule;
    size_t source;
    bool im_down, gw1_down;
    enum stanza_kind kind;
    const char *type, *from, *to;
    enum route_verdict verdict;
    size_t link;
    const char *condition;
};

static const struct row rows[] = {
    {"in: to a local domain", GW1, 0, 0, STANZA_MESSAGE, NULL, "b@far.lab", "a@alpha.lab", ROUTE_TO,
     IM, NULL},
    {"in: to another server's", GW1, 0, 0, STANZA_MESSAGE, NULL, "b@far.lab", "muc.alpha.lab",
     ROUTE_TO, MUC, NULL},
    {"out: to a foreign domain", IM, 0, 0, STANZA_MESSAGE, NULL, "a@alpha.lab", "b@far.lab",
     ROUTE_TO, GW1, NULL},
    {"between servers", IM, 0, 0, STANZA_MESSAGE, NULL, "a@alpha.lab", "r@muc.alpha.lab", ROUTE_TO,
     MUC, NULL},
    {"two owners: not back to the sender", IM, 0, 0, STANZA_MESSAGE, NULL, "a@alpha.lab",
     "x@shared.lab", ROUTE_BOUNCE, 0, "service-unavailable"},
    {"two owners: the first", GW1, 0, 0, STANZA_MESSAGE, NULL, "b@far.lab", "x@shared.lab",
     ROUTE_TO, IM, NULL},
    {"two owners: failover", GW1, 1, 0, STANZA_MESSAGE, NULL, "b@far.lab", "x@shared.lab", ROUTE_TO,
     MUC, NULL},
    {"firewall: forged local sender", GW1, 0, 0, STANZA_MESSAGE, NULL, "a@alpha.lab", "c@alpha.lab",
     ROUTE_REFUSE, 0, NULL},
    {"firewall: forged foreign sender", IM, 0, 0, STANZA_MESSAGE, NULL, "b@far.lab", "c@other.lab",
     ROUTE_REFUSE, 0, NULL},
    {"firewall: another server's domain", IM, 0, 0, STANZA_MESSAGE, NULL, "r@muc.alpha.lab",
     "b@far.lab", ROUTE_REFUSE, 0, NULL},
    {"firewall: a sub-domain is another domain", IM, 0, 0, STANZA_MESSAGE, NULL, "x@sub.alpha.lab",
     "b@far.lab", ROUTE_REFUSE, 0, NULL},
    {"firewall: another gateway's name", GW1, 0, 0, STANZA_MESSAGE, NULL, "edge2.lab",
     "a@alpha.lab", ROUTE_REFUSE, 0, NULL},
    {"firewall: own names are not for the outside", GW1, 0, 0, STANZA_IQ, "get", "b@far.lab",
     "router.lab", ROUTE_REFUSE, 0, NULL},
    {"never foreign to foreign", GW1, 0, 0, STANZA_MESSAGE, NULL, "b@far.lab", "c@other.lab",
     ROUTE_BOUNCE, 0, "item-not-found"},
    {"nor its errors", GW1, 0, 0, STANZA_MESSAGE, "error", "b@far.lab", "c@other.lab", ROUTE_DROP,
     0, NULL},
    {"no gateway", IM, 0, 1, STANZA_MESSAGE, NULL, "a@alpha.lab", "b@far.lab", ROUTE_BOUNCE, 0,
     "remote-server-timeout"},
    {"no gateway, iq result", IM, 0, 1, STANZA_IQ, "result", "a@alpha.lab", "b@far.lab", ROUTE_DROP,
     0, NULL},
    {"server down", GW1, 1, 0, STANZA_PRESENCE, "subscribe", "b@far.lab", "a@alpha.lab",
     ROUTE_BOUNCE, 0, "remote-server-timeout"},
    {"server down, unavailable", GW1, 1, 0, STANZA_PRESENCE, "unavailable", "b@far.lab",
     "a@alpha.lab", ROUTE_DROP, 0, NULL},
    {"own name from a server", IM, 0, 0, STANZA_IQ, "get", "alpha.lab", "router.lab", ROUTE_SELF, 0,
     NULL},
    {"answer to an own name", IM, 0, 0, STANZA_IQ, "result", "alpha.lab", "router.lab", ROUTE_DROP,
     0, NULL},
    {"a gateway's probe", GW1, 0, 0, STANZA_IQ, "get", "edge1.lab", "alpha.lab", ROUTE_SELF, 0,
     NULL},
    {"a link that is gone", SIZE_MAX, 0, 0, STANZA_MESSAGE, NULL, "a@alpha.lab", "b@far.lab",
     ROUTE_REFUSE, 0, NULL},
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        struct routes *r = all_up();
        routes_set_up(r, GW2, false);
        routes_set_up(r, GW3, false);
        routes_set_up(r, IM, !row->im_down);
        routes_set_up(r, GW1, !row->gw1_down);
        struct route v = decide(r, row->source, row->kind, row->type, row->from, row->to);
        if (v.verdict != row->verdict || (v.verdict == ROUTE_TO && v.link != row->link))
            fail_msg("%s: %s link %zu", row->rule, route_verdict_name(v.verdict), v.link);
        if (row->condition != NULL)
            assert_string_equal(v.condition, row->condition);
        if (v.verdict == ROUTE_BOUNCE)
            assert_string_equal(v.type,
                                strcmp(v.condition, "remote-server-timeout") ? "cancel" : "wait");
        routes_free(r);
    }
}

static size_t gateway_for(struct routes *r, unsigned user, const char *resource)
{
    char from[64];
    snprintf(from, sizeof from, "u%u@alpha.lab%s", user, resource);
    struct stanza st = {.kind = STANZA_MESSAGE, .from = str_c(from), .to = STR("b@far.lab")};
    struct route v = routes_decide(r, IM, &st, STR("alpha.lab"), STR("far.lab"));
    assert_int_equal(v.verdict, ROUTE_TO);
    return v.link;
}

enum { USERS = 300 };

static void test_affinity(void **state)
{
    (void)state;
    struct routes *r = all_up();
    size_t per[NLINKS] = {0};
    for (unsigned u = 0; u < USERS; u++) {
        size_t g = gateway_for(r, u, "");
        assert_true(g <= GW3);
        assert_int_equal(gateway_for(r, u, "/phone"), g);
        assert_int_equal(gateway_for(r, u, "/a@b/c"), g);
        per[g]++;
    }
    for (size_t g = GW1; g <= GW3; g++)
        assert_in_range(per[g], USERS / 6, USERS / 2);
    routes_free(r);
}

/* Only the senders of the gateway that goes move, and they come back with it. */
static void test_failover(void **state)
{
    (void)state;
    struct routes *r = all_up();
    size_t before[USERS], moved = 0;
    for (unsigned u = 0; u < USERS; u++)
        before[u] = gateway_for(r, u, "");
    routes_set_up(r, GW2, false);
    for (unsigned u = 0; u < USERS; u++) {
        size_t now = gateway_for(r, u, "");
        assert_int_not_equal(now, GW2);
        if (before[u] != GW2)
            assert_int_equal(now, before[u]);
        else
            moved++;
    }
    assert_true(moved > 0);
    routes_set_up(r, GW2, true);
    for (unsigned u = 0; u < USERS; u++)
        assert_int_equal(gateway_for(r, u, ""), before[u]);
    routes_free(r);
}

/* Priority before the hash: the lowest that is up takes all, equal ones share it. */
static void test_priority(void **state)
{
    (void)state;
    links[GW1].priority = 5;
    links[GW2].priority = links[GW3].priority = 2;
    struct routes *r = all_up();
    size_t before[USERS], per[NLINKS] = {0};
    for (unsigned u = 0; u < USERS; u++)
        per[before[u] = gateway_for(r, u, "")]++;
    assert_int_equal(per[GW1], 0);
    assert_in_range(per[GW2], USERS / 3, USERS - USERS / 3);
    routes_set_up(r, GW2, false);
    for (unsigned u = 0; u < USERS; u++)
        assert_int_equal(gateway_for(r, u, ""), GW3);
    routes_set_up(r, GW3, false);
    for (unsigned u = 0; u < USERS; u++)
        assert_int_equal(gateway_for(r, u, ""), GW1);
    routes_set_up(r, GW2, true);
    routes_set_up(r, GW3, true);
    for (unsigned u = 0; u < USERS; u++)
        assert_int_equal(gateway_for(r, u, ""), before[u]);
    links[GW1].priority = links[GW2].priority = links[GW3].priority = 0;
    routes_free(r);
}

/* Servers of one domain: by priority, then in the order of the configuration. */
static void test_server_priority(void **state)
{
    (void)state;
    size_t link = NLINKS;
    links[IM].priority = 1;
    struct routes *r = all_up();
    assert_true(routes_again(r, STR("b@far.lab"), STR("far.lab"), STR("shared.lab"), &link));
    assert_int_equal(link, MUC);
    routes_set_up(r, MUC, false);
    assert_true(routes_again(r, STR("b@far.lab"), STR("far.lab"), STR("shared.lab"), &link));
    assert_int_equal(link, IM);
    links[IM].priority = 0;
    routes_free(r);
}

static void test_again(void **state)
{
    (void)state;
    struct routes *r = all_up();
    size_t link = NLINKS;
    assert_true(routes_again(r, STR("b@far.lab"), STR("far.lab"), STR("alpha.lab"), &link));
    assert_int_equal(link, IM);
    assert_true(routes_again(r, STR("u1@alpha.lab/x"), STR("alpha.lab"), STR("far.lab"), &link));
    assert_int_equal(link, gateway_for(r, 1, ""));
    routes_set_up(r, IM, false);
    assert_false(routes_again(r, STR("b@far.lab"), STR("far.lab"), STR("alpha.lab"), &link));
    for (size_t g = GW1; g <= GW3; g++)
        routes_set_up(r, g, false);
    assert_false(routes_again(r, STR("u1@alpha.lab"), STR("alpha.lab"), STR("far.lab"), &link));
    routes_set_up(r, NLINKS + 5, true);
    assert_false(routes_is_up(r, NLINKS + 5));
    routes_free(r);
}

static void test_no_memory(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (unsigned long n = 1; n < 100; n++) {
        mem_fail_after(n);
        struct routes *r = routes_new(&config);
        mem_fail_after(0);
        failures += r == NULL;
        routes_free(r);
    }
    assert_in_range(failures, 3, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),     cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_failover),  cmocka_unit_test(test_priority),
        cmocka_unit_test(test_again),     cmocka_unit_test(test_server_priority),
        cmocka_unit_test(test_no_memory),
    };
    table_seed((const unsigned char *)"0123456789abcdef");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
