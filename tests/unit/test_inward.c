/* Which link takes a stanza: domains, partners, priority, failover, spreading by sender. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "config/schema.h"
#include "core/base/mem.h"
#include "core/base/table.h"
#include "gateway/route/inward.h"

static char *d_alpha[] = {"alpha.lab"}, *d_gamma[] = {"gamma.lab", "rooms.beta.lab"};
static char *p_two[] = {"one.test", "two.test"}, *p_three[] = {"three.test"};

enum { MAIN, SPARE, GAMMA, LISTED, HOSTS };

static struct cfg_link links[] = {
    {.name = "main", .priority = 1, .domains = d_alpha, .ndomains = 1, .component = "gw.x"},
    {.name = "spare", .priority = 5, .component = "gw.x"},
    {.name = "gamma", .priority = 1, .domains = d_gamma, .ndomains = 2, .component = "gw.x"},
    {.name = "listed", .priority = 0, .partners = p_two, .npartners = 2},
    {.name = "hosts", .priority = 0, .partners = p_three, .npartners = 1, .component = "gw.x"}};

static struct gateway_config *cfg;

/* A real snapshot, because domains are found through its index. */
static int make(void **state)
{
    (void)state;
    static const char text[] =
        "domains = ({ name = \"alpha.lab\"; }, { name = \"beta.lab\"; subdomains = true; },"
        "{ name = \"gamma.lab\"; });"
        "links = ({ name = \"x\"; protocol = \"s2s\"; address = \"10.0.0.1:1\";"
        "listen = [\"10.0.0.2:1\"]; });";
    struct buf errors = BUF_INIT(65536);
    cfg = gateway_config_parse("/t.conf", str_c(text), &errors);
    if (cfg == NULL)
        fputs(errors.p, stderr);
    buf_free(&errors);
    return cfg != NULL ? 0 : -1;
}

static int unmake(void **state)
{
    (void)state;
    gateway_config_unref(cfg);
    return 0;
}

static struct gateway_config view; /* cfg's domains, our links */

static struct inward *table(void)
{
    view = *cfg;
    view.links = links;
    view.nlinks = sizeof links / sizeof links[0];
    struct inward *t = inward_new(&view);
    assert_non_null(t);
    return t;
}

static uint64_t down; /* bit link * 4 + line */

static bool is_up(void *arg, struct inward_line at, struct str local)
{
    (void)arg, (void)local;
    return !((down >> (at.link * 4 + at.line)) & 1);
}

static int pick(const struct inward *t, const char *local, const char *remote, const char *from,
                size_t *line)
{
    struct inward_key key = {str_c(local), str_c(remote), inward_sender(str_c(from))};
    struct inward_line at = {0, 0};
    if (!inward_pick(t, &key, is_up, NULL, &at))
        return -1;
    if (line != NULL)
        *line = at.line;
    return (int)at.link;
}

static void test_choice(void **state)
{
    (void)state;
    struct inward *t = table();
    size_t line = 9;
    down = 0;
    /* By domain and priority. */
    assert_int_equal(pick(t, "alpha.lab", "any.test", "a@any.test/x", NULL), MAIN);
    assert_int_equal(pick(t, "beta.lab", "any.test", "a@any.test/x", NULL), SPARE);
    assert_int_equal(pick(t, "gamma.lab", "any.test", "a@any.test/x", NULL), GAMMA);
    /* A listed subdomain before the domain that it belongs to; another one goes with its domain. */
    assert_int_equal(pick(t, "rooms.beta.lab", "any.test", "a@any.test", NULL), GAMMA);
    assert_int_equal(pick(t, "other.beta.lab", "any.test", "a@any.test", NULL), SPARE);
    /* Partners, with a line for each or one for all. */
    assert_int_equal(pick(t, "alpha.lab", "one.test", "a@one.test", &line), LISTED);
    assert_int_equal(line, 0);
    assert_int_equal(pick(t, "alpha.lab", "two.test", "a@two.test", &line), LISTED);
    assert_int_equal(line, 1);
    assert_int_equal(pick(t, "alpha.lab", "three.test", "a@three.test", &line), HOSTS);
    assert_int_equal(line, 0);
    /* Failover: the line of that partner only. */
    down = UINT64_C(1) << (LISTED * 4 + 1);
    assert_int_equal(pick(t, "alpha.lab", "one.test", "a@one.test", NULL), LISTED);
    assert_int_equal(pick(t, "alpha.lab", "two.test", "a@two.test", NULL), MAIN);
    down |= 1 << (MAIN * 4);
    assert_int_equal(pick(t, "alpha.lab", "two.test", "a@two.test", NULL), SPARE);
    down |= 1 << (SPARE * 4);
    assert_int_equal(pick(t, "alpha.lab", "two.test", "a@two.test", NULL), -1);
    assert_int_not_equal(inward_candidates(t, str_c("alpha.lab"), str_c("two.test")), 0);
    /* Not ours. */
    assert_int_equal(inward_candidates(t, str_c("foreign.test"), str_c("one.test")), 0);
    inward_free(t);
}

static void test_owns(void **state)
{
    (void)state;
    struct inward *t = table();
    assert_true(inward_owns(t, MAIN, str_c("alpha.lab"), str_c("any.test")));
    assert_false(inward_owns(t, MAIN, str_c("gamma.lab"), str_c("any.test")));
    assert_false(inward_owns(t, MAIN, str_c("foreign.test"), str_c("any.test")));
    assert_true(inward_owns(t, LISTED, str_c("beta.lab"), str_c("two.test")));
    assert_false(inward_owns(t, LISTED, str_c("beta.lab"), str_c("any.test")));
    assert_false(inward_owns(t, LINKS_MAX, str_c("beta.lab"), str_c("two.test")));
    inward_free(t);
}

/* A link by itself says what the table says of it. */
static void test_lists(void **state)
{
    (void)state;
    static const char *const locals[] = {"alpha.lab",      "gamma.lab",   "beta.lab",
                                         "rooms.beta.lab", "in.beta.lab", "foreign.test"};
    static const char *const remotes[] = {"one.test", "three.test", "any.test"};
    struct inward *t = table();
    for (size_t k = 0; k < view.nlinks; k++)
        for (size_t i = 0; i < 6; i++)
            for (size_t j = 0; j < 3; j++) {
                struct str local = str_c(locals[i]), remote = str_c(remotes[j]);
                assert_int_equal(inward_lists(&view, &links[k], local, remote),
                                 inward_owns(t, k, local, remote));
            }
    inward_free(t);
}

/* Among equals every sender keeps its link, whatever the resource, and only those of a lost one
 * move. */
static void test_spread(void **state)
{
    (void)state;
    enum { SENDERS = 600 };
    struct cfg_link equal[3] = {{.name = "a", .component = "g"},
                                {.name = "b", .component = "g"},
                                {.name = "c", .component = "g"}};
    int home[SENDERS], share[3] = {0, 0, 0};
    char from[64];
    view = *cfg;
    view.links = equal;
    view.nlinks = 3;
    struct inward *t = inward_new(&view);
    assert_non_null(t);
    down = 0;
    for (int i = 0; i < SENDERS; i++) {
        snprintf(from, sizeof from, "user%d@any.test/one", i);
        home[i] = pick(t, "alpha.lab", "any.test", from, NULL);
        share[home[i]]++;
        snprintf(from, sizeof from, "user%d@any.test/two", i);
        assert_int_equal(pick(t, "alpha.lab", "any.test", from, NULL), home[i]);
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(share[i], SENDERS / 5, SENDERS / 2);
    down = 1 << (1 * 4);
    for (int i = 0; i < SENDERS; i++) {
        snprintf(from, sizeof from, "user%d@any.test", i);
        int now = pick(t, "alpha.lab", "any.test", from, NULL);
        assert_int_not_equal(now, 1);
        if (home[i] != 1)
            assert_int_equal(now, home[i]);
    }
    inward_free(t);
}

static void test_memory(void **state)
{
    (void)state;
    view = *cfg;
    view.links = links;
    view.nlinks = sizeof links / sizeof links[0];
    for (unsigned long n = 1;; n++) {
        mem_fail_after(n);
        struct inward *t = inward_new(&view);
        mem_fail_after(0);
        inward_free(t);
        if (t != NULL)
            return;
        assert_in_range(n, 1, 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_owns),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_memory),
    };
    static const unsigned char seed[16] = "inward test seed";
    table_seed(seed);
    return cmocka_run_group_tests(tests, make, unmake);
}
