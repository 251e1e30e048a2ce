/* When refused dialback keys mean that another gateway has another secret. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "gateway/proto/secret_watch.h"

/* "asked-good|asked-bad|refused|accepted LOCAL REMOTE ID", one second apart; "wait" ten minutes. */
struct row {
    const char *what;
    const char *steps[8];
    enum secret_verdict last;
};

static enum secret_verdict play(struct secret_watch *w, const char *step, uint64_t *now)
{
    char what[16], local[32], remote[32], id[32];
    *now += 1000;
    if (strcmp(step, "wait") == 0) {
        *now += SECRET_WATCH_MS;
        return SECRET_NOTHING;
    }
    assert_int_equal(sscanf(step, "%15s %31s %31s %31s", what, local, remote, id), 4);
    if (strncmp(what, "asked", 5) == 0) {
        secret_watch_asked(w, str_c(local), str_c(remote), str_c(id), what[6] == 'g', *now);
        return SECRET_NOTHING;
    }
    return what[0] == 'r' ? secret_watch_refused(w, str_c(local), str_c(remote), str_c(id), *now)
                          : secret_watch_accepted(w, str_c(local), str_c(remote), str_c(id), *now);
}

static void test_rules(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"one peer may be wrong", {"refused a b 1"}, SECRET_NOTHING},
        {"and again", {"refused a b 1", "refused a b 2"}, SECRET_NOTHING},
        {"three times", {"refused a b 1", "refused a b 2", "refused a b 3"}, SECRET_DIFFERS},
        {"two peers", {"refused a b 1", "refused a c 1"}, SECRET_DIFFERS},
        {"of different domains of ours", {"refused a b 1", "refused z c 1"}, SECRET_NOTHING},
        {"long ago", {"refused a b 1", "wait", "refused a c 1"}, SECRET_NOTHING},
        {"we said valid: it is the peer",
         {"asked-good a b 1", "refused a b 1", "asked-good a c 2", "refused a c 2"},
         SECRET_NOTHING},
        {"valid to another key says nothing",
         {"asked-good a b 9", "refused a b 1", "refused a c 1"},
         SECRET_DIFFERS},
        {"valid to another peer neither",
         {"asked-good a d 1", "refused a b 1", "refused a c 1"},
         SECRET_DIFFERS},
        {"it brings us keys of somebody else",
         {"asked-bad a b 7", "refused a b 1"},
         SECRET_DIFFERS},
        {"another one does", {"asked-bad a c 7", "refused a b 1"}, SECRET_NOTHING},
        {"it did long ago", {"asked-bad a b 7", "wait", "refused a b 1"}, SECRET_NOTHING},
        {"it was known then", {"asked-good a b 7", "refused a b 1"}, SECRET_NOTHING},
        {"our own key, that we have forgotten",
         {"asked-bad a b 1", "refused a b 1", "asked-bad a c 2", "refused a c 2"},
         SECRET_FORGOT},
        {"forgotten once: a rotation in between",
         {"asked-bad a b 1", "refused a b 1"},
         SECRET_NOTHING},
        {"asked twice, the newer answer counts",
         {"asked-bad a b 1", "asked-good a b 1", "refused a b 1"},
         SECRET_NOTHING},
        {"somebody else confirms now",
         {"refused a b 1", "refused a c 1", "accepted a b 2"},
         SECRET_AGREES},
        {"and that is the end of it",
         {"refused a b 1", "refused a c 1", "accepted a b 2", "refused a b 3"},
         SECRET_NOTHING},
        {"we confirmed it ourselves",
         {"refused a b 1", "refused a c 1", "asked-good a b 2", "accepted a b 2"},
         SECRET_NOTHING},
        {"a peer that perhaps asks nobody",
         {"refused a b 1", "refused a c 1", "accepted a d 2"},
         SECRET_NOTHING},
        {"confirmed for another domain",
         {"refused a b 1", "refused a c 1", "accepted z b 2"},
         SECRET_NOTHING},
        {"nothing was wrong", {"accepted a b 1"}, SECRET_NOTHING},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct secret_watch w = {.nasked = 0};
        uint64_t now = 0;
        enum secret_verdict got = SECRET_NOTHING;
        for (size_t k = 0; k < 8 && rows[i].steps[k] != NULL; k++)
            got = play(&w, rows[i].steps[k], &now);
        if (got != rows[i].last)
            fail_msg("%s: %d", rows[i].what, got);
    }
}

/* However many there are: the newest are remembered. */
static void test_bounded(void **state)
{
    (void)state;
    struct secret_watch w = {.nasked = 0};
    char id[16];
    for (uint64_t n = 0; n < 1000; n++) {
        snprintf(id, sizeof id, "%u", (unsigned)n);
        secret_watch_asked(&w, STR("a"), STR("b"), str_c(id), true, n);
        assert_int_equal(secret_watch_refused(&w, STR("a"), STR("b"), str_c(id), n),
                         SECRET_NOTHING);
    }
    for (uint64_t n = 0; n < 1000; n++) {
        snprintf(id, sizeof id, "x%u", (unsigned)n);
        assert_int_equal(secret_watch_refused(&w, STR("a"), STR("b"), str_c(id), 1000 + n),
                         n < SECRET_WATCH_TIMES - 1 ? SECRET_NOTHING : SECRET_DIFFERS);
    }
    assert_int_equal(secret_watch_accepted(&w, STR("a"), STR("b"), STR("y"), 3000), SECRET_AGREES);
    assert_int_equal(secret_watch_refused(&w, STR("a"), STR("c"), STR("z"), 3001), SECRET_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
