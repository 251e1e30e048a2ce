/* What DNSSEC knows of a target, and who its server then is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/proto/identity.h"
#include "tests/fake/fake.h"

#define DNS "dns = { servers = [\"127.0.0.1:53\"]; trust_ad = true; };"
#define PIN                                                                                        \
    "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:"   \
    "AB:AB"

static const struct tls_name domain_name = {TLS_NAME_DNS, "beta.lab"},
                             host_name = {TLS_NAME_DNS, "xmpp.hosting.lab"},
                             other_name = {TLS_NAME_DNS, "other.lab"};

static struct tls_peer facts(enum tls_dane dane, bool chain_ok, const struct tls_name *name)
{
    struct tls_peer t = {.protocol = "TLSv1.3",
                         .has_certificate = name != NULL,
                         .chain_ok = chain_ok,
                         .dane = dane,
                         .dane_why = "it matches none of them",
                         .why = "self-signed",
                         .names = name,
                         .nnames = name != NULL};
    memset(t.key_sha256, 0xab, sizeof t.key_sha256);
    return t;
}

static struct dane_target *target(bool tlsa)
{
    struct dane_target *d = dane_target_new(STR("xmpp.hosting.lab"));
    struct tlsa record = {3, 1, 1, 32, {0}};
    assert_non_null(d);
    if (tlsa)
        assert_true(dane_target_set(d, &record, 1));
    return d;
}

enum at { NOTHING, DELEGATED, TLSA };

static void test_identity(void **state)
{
    (void)state;
    static const struct {
        enum at at;
        enum tls_dane dane;
        bool chain_ok;
        const struct tls_name *name; /* NULL: no certificate */
        enum identity id;
        const char *why;
    } row[] = {
        /* Without DNSSEC. */
        {NOTHING, TLS_DANE_NONE, true, &domain_name, IDENTITY_PROVEN, ""},
        {NOTHING, TLS_DANE_NONE, true, &host_name, IDENTITY_UNPROVEN, "issued for xmpp.hosting"},
        {NOTHING, TLS_DANE_NONE, false, &domain_name, IDENTITY_UNPROVEN, "self-signed"},
        {NOTHING, TLS_DANE_NONE, false, NULL, IDENTITY_UNPROVEN, "no certificate was shown"},
        /* The SRV record is authentic, there is no TLSA record. */
        {DELEGATED, TLS_DANE_NONE, true, &domain_name, IDENTITY_PROVEN, ""},
        {DELEGATED, TLS_DANE_NONE, true, &host_name, IDENTITY_PROVEN, ""},
        {DELEGATED, TLS_DANE_NONE, true, &other_name, IDENTITY_UNPROVEN,
         "issued for other.lab, not for beta.lab"},
        {DELEGATED, TLS_DANE_NONE, false, &host_name, IDENTITY_UNPROVEN, "self-signed"},
        {DELEGATED, TLS_DANE_NONE, false, NULL, IDENTITY_UNPROVEN, "no certificate was shown"},
        /* There are, but none that can be used. */
        {TLSA, TLS_DANE_UNUSABLE, true, &host_name, IDENTITY_PROVEN, ""},
        {TLSA, TLS_DANE_UNUSABLE, false, &domain_name, IDENTITY_UNPROVEN, "self-signed"},
        /* DANE-EE: names and issuers do not count. */
        {TLSA, TLS_DANE_KEY, false, &other_name, IDENTITY_PROVEN_DANE, ""},
        {TLSA, TLS_DANE_KEY, true, &domain_name, IDENTITY_PROVEN_DANE, ""},
        /* The others: names do. */
        {TLSA, TLS_DANE_AUTHORITY, false, &domain_name, IDENTITY_PROVEN_DANE, ""},
        {TLSA, TLS_DANE_AUTHORITY, false, &host_name, IDENTITY_PROVEN_DANE, ""},
        {TLSA, TLS_DANE_AUTHORITY, false, &other_name, IDENTITY_DENIED,
         "it fits the TLSA records, but was issued for other.lab, not for beta.lab or "
         "xmpp.hosting.lab"},
        {TLSA, TLS_DANE_NARROWED, true, &host_name, IDENTITY_PROVEN_DANE, ""},
        {TLSA, TLS_DANE_NARROWED, true, &other_name, IDENTITY_DENIED, "it fits the TLSA records"},
        /* Whoever else vouches for it. */
        {TLSA, TLS_DANE_MISMATCH, true, &domain_name, IDENTITY_DENIED,
         "not the certificate that the TLSA records of xmpp.hosting.lab name: it matches none"},
        {TLSA, TLS_DANE_NONE, false, NULL, IDENTITY_DENIED, "name: none was shown"},
        {TLSA, TLS_DANE_NONE, true, &domain_name, IDENTITY_DENIED, "TLSA"}, /* never compared */
    };
    struct gateway_config *c = fake_config(DNS), *off = fake_config("");
    assert_true(c != NULL && off != NULL);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char why[IDENTITY_WHY];
        struct tls_peer t = facts(row[i].dane, row[i].chain_ok, row[i].name);
        struct dane_target *d = row[i].at != NOTHING ? target(row[i].at == TLSA) : NULL;
        enum identity id = identity_of_target(c, &t, STR("beta.lab"), d, why);
        if (id != row[i].id || strstr(why, row[i].why) == NULL)
            fail_msg("row %zu: %d %s", i, (int)id, why);
        assert_int_equal(why[0] == '\0', id >= IDENTITY_PROVEN);
        /* Where AD is not trusted all this is as if it was not there. */
        bool plain = identity_proven(off, &t, STR("beta.lab"), why);
        id = identity_of_target(off, &t, STR("beta.lab"), d, why);
        assert_int_equal(id, plain ? IDENTITY_PROVEN : IDENTITY_UNPROVEN);
        dane_target_free(d);
    }
    gateway_config_unref(c);
    gateway_config_unref(off);
}

/* What the operator says of a peer is asked for beside what its domain says. */
static void test_rules_of_the_peer(void **state)
{
    (void)state;
    char why[IDENTITY_WHY];
    struct gateway_config *c =
        fake_config(DNS "peers = ({domain = \"beta.lab\"; pins = [\"" PIN "\"];}, "
                        "{domain = \"own.lab\"; ca_file = \"/etc/hostname\";});");
    struct dane_target *d = target(true);
    struct tls_peer t = facts(TLS_DANE_KEY, false, &domain_name);
    assert_non_null(c);
    assert_int_equal(identity_of_target(c, &t, STR("beta.lab"), d, why), IDENTITY_PROVEN_DANE);
    t.key_sha256[0] = 0;
    assert_int_equal(identity_of_target(c, &t, STR("beta.lab"), d, why), IDENTITY_UNPROVEN);
    assert_non_null(strstr(why, "its key is not one of the pinned ones"));

    const struct tls_name own = {TLS_NAME_DNS, "own.lab"};
    t = facts(TLS_DANE_KEY, false, &own);
    assert_int_equal(identity_of_target(c, &t, STR("own.lab"), d, why), IDENTITY_UNPROVEN);
    assert_string_equal(why, "self-signed");
    t.chain_ok = true;
    assert_int_equal(identity_of_target(c, &t, STR("own.lab"), d, why), IDENTITY_PROVEN);
    t.dane = TLS_DANE_MISMATCH;
    assert_int_equal(identity_of_target(c, &t, STR("own.lab"), d, why), IDENTITY_DENIED);
    dane_target_free(d);
    gateway_config_unref(c);
}

static void test_target(void **state)
{
    (void)state;
    struct tlsa v[2] = {{3, 1, 1, 32, {1}}, {2, 0, 2, 64, {2}}};
    struct dane_target *d = target(false);
    assert_false(dane_demands_tls(NULL) || dane_demands_tls(d));
    assert_true(dane_target_set(d, v, 0)); /* there are some, and none that could be kept */
    assert_true(dane_demands_tls(d));
    mem_fail_after(1);
    assert_false(dane_target_set(d, v, 2));
    assert_null(dane_target_new(STR("h.lab")));
    mem_fail_after(0);
    assert_int_equal(d->tlsa->n, 0);
    assert_true(dane_target_set(d, v, 2));
    assert_memory_equal(d->tlsa->v, v, sizeof v);
    dane_target_free(d);
    dane_target_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_rules_of_the_peer),
        cmocka_unit_test(test_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
