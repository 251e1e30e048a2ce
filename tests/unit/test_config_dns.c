/* Which resolvers may be trusted with DNSSEC. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/gateway.h"
#include "tests/fake/fake.h"

#define OPEN(server)                                                                               \
    "t.conf:2: dns.trust_ad = true: the way to " server " is open to others; use a resolver that " \
    "checks DNSSEC at a loopback or private address\n"

static void test_trust_ad(void **state)
{
    (void)state;
    static const struct {
        const char *dns, *errors; /* about it; NULL: it is taken */
    } row[] = {
        {"trust_ad = true;", "t.conf:2: dns.trust_ad = true: needs dns.servers that check DNSSEC, "
                             "such as [\"127.0.0.1:53\"]\n"},
        {"servers = [\"192.0.2.53:53\"]; trust_ad = true;", OPEN("192.0.2.53:53")},
        {"servers = [\"127.0.0.1:53\", \"[2001:db8::53]:53\", \"172.32.0.1:53\"]; trust_ad = true;",
         OPEN("[2001:db8::53]:53") OPEN("172.32.0.1:53")},
        {"servers = [\"[::2]:53\", \"11.0.0.1:53\"]; trust_ad = true;",
         OPEN("[::2]:53") OPEN("11.0.0.1:53")},
        {"servers = [\"127.9.9.9:5353\", \"[::1]:53\", \"10.9.9.9:53\", \"172.31.0.1:53\"]; "
         "trust_ad = true;",
         NULL},
        {"servers = [\"192.168.9.9:53\", \"[fd00::53]:53\"]; trust_ad = true;", NULL},
        {"servers = [\"192.0.2.53:53\"]; trust_ad = false;", NULL},
        {"servers = [\"192.0.2.53:53\"];", NULL},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf text = BUF_INIT(4096), errors = BUF_INIT(1 << 16);
        buf_printf(&text, "// the first line\ndns = { %s };\n", row[i].dns);
        struct gateway_config *c = gateway_config_parse("t.conf", buf_view(&text), &errors);
        assert_null(c); /* the rest of it is missing */
        const char *about = strstr(errors.p, "t.conf:2:");
        assert_int_equal(about != NULL, row[i].errors != NULL);
        if (about != NULL && strncmp(about, row[i].errors, strlen(row[i].errors)) != 0)
            fail_msg("row %zu: %s", i, about);
        buf_free(&text);
        buf_free(&errors);
    }
    struct gateway_config *d = fake_config("");
    struct gateway_config *c =
        fake_config("dns = { servers = [\"127.0.0.1:53\"]; trust_ad = true; };");
    assert_true(c != NULL && d != NULL);
    assert_true(c->dns.trust_ad);
    assert_false(d->dns.trust_ad);
    gateway_config_unref(c);
    gateway_config_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_trust_ad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
