/* Who a peer is by its certificate, and what SASL says of it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/proto/identity.h"
#include "gateway/proto/sasl.h"
#include "tests/fake/fake.h"

/* ---- identity -------------------------------------------------------------------------------- */

static const struct tls_name names[] = {
    {TLS_NAME_DNS, "beta.lab"},      {TLS_NAME_DNS, "*.beta.lab"},   {TLS_NAME_SRV, "srv.example"},
    {TLS_NAME_XMPP, "xmpp.example"}, {TLS_NAME_DNS, "last.example"},
};

static struct tls_peer good(void)
{
    struct tls_peer t = {.protocol = "TLSv1.3",
                         .has_certificate = true,
                         .chain_ok = true,
                         .in_time = true,
                         .names = names,
                         .nnames = sizeof names / sizeof *names};
    memset(t.key_sha256, 0xab, sizeof t.key_sha256);
    return t;
}

static void no_chain(struct tls_peer *t)
{
    t->chain_ok = false;
    snprintf(t->why, sizeof t->why, "expired on 2026-01-02");
}

static void no_reason(struct tls_peer *t)
{
    t->chain_ok = false;
}

static void no_certificate(struct tls_peer *t)
{
    *t = (struct tls_peer){.protocol = "TLSv1.3", .why = "no certificate"};
}

static void no_names(struct tls_peer *t)
{
    t->nnames = 0;
}

static void other_key(struct tls_peer *t)
{
    t->key_sha256[31] = 0;
}

static void tls_1_2(struct tls_peer *t)
{
    snprintf(t->protocol, sizeof t->protocol, "TLSv1.2");
}

static void unchanged(struct tls_peer *t)
{
    (void)t;
}

#define PIN                                                                                        \
    "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:"   \
    "AB:AB"

static void test_identity(void **state)
{
    (void)state;
    static const struct {
        const char *remote;
        void (*change)(struct tls_peer *t);
        bool proven, enough;
        const char *why; /* how it begins */
    } row[] = {
        {"beta.lab", unchanged, true, true, ""},
        {"conference.beta.lab", unchanged, true, true, ""},
        {"a.b.beta.lab", unchanged, false, true, "issued for beta.lab, *.beta.lab"},
        {"srv.example", unchanged, true, true, ""},
        {"xmpp.example", unchanged, true, true, ""},
        {"delta.lab", unchanged, false, true, "issued for beta.lab, *.beta.lab"},
        {"beta.lab", no_chain, false, true, "expired on 2026-01-02"},
        {"beta.lab", no_reason, false, true, "not trusted"},
        {"beta.lab", no_certificate, false, true, "no certificate was shown"},
        {"beta.lab", no_names, false, true, "issued for no domain, not for beta.lab"},
        {"last.example", unchanged, true, true, ""},
        {"last.example", other_key, false, true, "its key is not one of the pinned ones: AB:AB:"},
        {"last.example", tls_1_2, true, false, "TLSv1.2 is below the minimum_tls"},
        {"beta.lab", tls_1_2, true, true, ""},
    };
    struct gateway_config *c =
        fake_config("peers = ({domain = \"last.example\"; pins = [\"" PIN "\"]; "
                    "minimum_tls = \"1.3\";});");
    assert_non_null(c);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char why[IDENTITY_WHY], tls_why[IDENTITY_WHY];
        struct tls_peer t = good();
        row[i].change(&t);
        bool proven = identity_proven(c, &t, str_c(row[i].remote), why);
        bool enough = identity_tls_enough(c, &t, str_c(row[i].remote), tls_why);
        assert_int_equal(proven, row[i].proven);
        assert_int_equal(enough, row[i].enough);
        const char *said = enough ? why : tls_why;
        if (strncmp(said, row[i].why, strlen(row[i].why)) != 0)
            fail_msg("row %zu: %s", i, said);
        assert_int_equal(proven && enough, *said == '\0');
    }
    char why[IDENTITY_WHY];
    assert_false(identity_proven(c, NULL, STR("beta.lab"), why));
    assert_string_equal(why, "there is no TLS, and so no certificate");
    assert_true(identity_tls_enough(c, NULL, STR("beta.lab"), why));
    gateway_config_unref(c);
}

/* The sentence is bounded, and no memory means no proof of anything else. */
static void test_identity_bounds(void **state)
{
    (void)state;
    struct gateway_config *c = fake_config("");
    struct tls_peer t = good();
    char why[IDENTITY_WHY], longest[254];
    memset(longest, 'a', 253);
    longest[253] = '\0';
    assert_non_null(c);
    assert_false(identity_proven(c, &t, str_c(longest), why));
    assert_true(strlen(why) < IDENTITY_WHY);
    mem_fail_after(1);
    bool proven = identity_proven(c, &t, STR("delta.lab"), why);
    mem_fail_after(0);
    assert_false(proven);
    gateway_config_unref(c);
}

/* ---- SASL ------------------------------------------------------------------------------------ */

static void test_authzid(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        enum sasl_authzid want;
        const char *domain;
    } row[] = {
        {"", SASL_AUTHZID_NONE, NULL},
        {"=", SASL_AUTHZID_NONE, NULL},
        {"YmV0YS5sYWI=", SASL_AUTHZID_OK, "beta.lab"},
        {"QkVUQS5sYWI=", SASL_AUTHZID_OK, "beta.lab"},
        {"YsO8Y2hlci5leGFtcGxl", SASL_AUTHZID_OK, "xn--bcher-kva.example"},
        {"YmV0YS5sYWI", SASL_AUTHZID_NOT_BASE64, NULL},
        {"b*ta", SASL_AUTHZID_NOT_BASE64, NULL},
        {"==", SASL_AUTHZID_NOT_BASE64, NULL},
        {"YUBiZXRhLmxhYg==", SASL_AUTHZID_NOT_A_DOMAIN, NULL}, /* a@beta.lab */
        {"YmV0YQBsYWI=", SASL_AUTHZID_NOT_A_DOMAIN, NULL},     /* beta NUL lab */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct domain d;
        enum sasl_authzid got = sasl_authzid(str_c(row[i].data), &d);
        if (got != row[i].want)
            fail_msg("%s: %d", row[i].data, got);
        if (got == SASL_AUTHZID_OK)
            assert_string_equal(d.ascii, row[i].domain);
    }
    struct domain d;
    mem_fail_after(1);
    enum sasl_authzid got = sasl_authzid(STR("YmV0YS5sYWI="), &d);
    mem_fail_after(0);
    assert_int_equal(got, SASL_AUTHZID_NOT_BASE64);
}

static void test_writing(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(1000);
    sasl_write_auth(&b, STR("alpha.lab"));
    sasl_write_response(&b, STR("alpha.lab"));
    sasl_write_failure(&b, "not-authorized", "a < b");
    sasl_write_failure(&b, "aborted", NULL);
    buf_putc(&b, '\0');
    assert_string_equal(b.p,
                        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>"
                        "YWxwaGEubGFi</auth>"
                        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>YWxwaGEubGFi</response>"
                        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>"
                        "<text xml:lang='en'>a &lt; b</text></failure>"
                        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_identity_bounds),
        cmocka_unit_test(test_authzid),
        cmocka_unit_test(test_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
