/* Our own certificates: how near their end is, what may take their place, what files hold, what is
 * shown in which role. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/ssl.h>

#include "core/base/mem.h"
#include "core/tls/tls_own.h"
#include "tests/unit/certs.h"

/* ---- the end --------------------------------------------------------------------------------- */

static void test_expiry(void **state)
{
    (void)state;
    enum { NOW = 1800000000 };
    static const struct {
        int64_t left;
        enum tls_expiry want;
    } rows[] = {
        {400LL * DAY, TLS_EXPIRY_FAR},
        {30 * DAY + 1, TLS_EXPIRY_FAR},
        {30 * DAY, TLS_EXPIRY_DAYS_30},
        {7 * DAY + 1, TLS_EXPIRY_DAYS_30},
        {7 * DAY, TLS_EXPIRY_DAYS_7},
        {DAY + 1, TLS_EXPIRY_DAYS_7},
        {DAY, TLS_EXPIRY_DAYS_1},
        {1, TLS_EXPIRY_DAYS_1},
        {0, TLS_EXPIRY_OVER},
        {-1, TLS_EXPIRY_OVER},
        {-400LL * DAY, TLS_EXPIRY_OVER},
        {-(int64_t)NOW, TLS_EXPIRY_OVER},
        {INT64_C(9000000000), TLS_EXPIRY_FAR},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(tls_own_expiry(NOW + rows[i].left, NOW), rows[i].want);
    assert_string_equal(tls_expiry_name(TLS_EXPIRY_FAR), "more than 30 days");
    assert_string_equal(tls_expiry_name(TLS_EXPIRY_DAYS_7), "7 days or less");
    assert_string_equal(tls_expiry_name(TLS_EXPIRY_OVER), "expired");
}

/* ---- one in the place of another ------------------------------------------------------------- */

enum { NAMES = 4, T0 = 1793491200 /* 2026-11-01 */ };

/* "alpha.lab *.alpha.lab s:chat.alpha.lab x:alpha.lab" */
static struct tls_peer facts(char *text, struct tls_name names[NAMES])
{
    struct tls_peer p = {.has_certificate = true,
                         .not_before = T0 - DAY,
                         .not_after = T0 + 90LL * DAY,
                         .names = names};
    for (char *at, *t = strtok_r(text, " ", &at); t != NULL; t = strtok_r(NULL, " ", &at)) {
        enum tls_name_kind k = t[0] == 's' && t[1] == ':'   ? TLS_NAME_SRV
                               : t[0] == 'x' && t[1] == ':' ? TLS_NAME_XMPP
                                                            : TLS_NAME_DNS;
        assert_true(p.nnames < NAMES);
        names[p.nnames++] = (struct tls_name){k, k == TLS_NAME_DNS ? t : t + 2};
    }
    return p;
}

static void test_names_of_a_new_one(void **state)
{
    (void)state;
    static const struct {
        const char *served, *fresh, *why; /* NULL: it may */
    } rows[] = {
        {"", "", NULL},
        {"", "alpha.lab", NULL},
        {"alpha.lab", "alpha.lab", NULL},
        {"alpha.lab", "ALPHA.lab chat.alpha.lab", NULL},
        {"alpha.lab", "chat.alpha.lab",
         "not issued for alpha.lab, as the one that is served is, but for chat.alpha.lab"},
        {"alpha.lab", "",
         "not issued for alpha.lab, as the one that is served is, but for no domain"},
        {"alpha.lab chat.alpha.lab", "alpha.lab",
         "not issued for chat.alpha.lab, as the one that is served is, but for alpha.lab"},
        /* The domain counts, not in which form it is written. */
        {"alpha.lab s:alpha.lab x:alpha.lab", "alpha.lab", NULL},
        {"alpha.lab", "s:alpha.lab", NULL},
        {"chat.alpha.lab", "*.alpha.lab", NULL},
        {"alpha.lab", "*.alpha.lab",
         "not issued for alpha.lab, as the one that is served is, but for *.alpha.lab"},
        {"*.alpha.lab", "*.alpha.lab alpha.lab", NULL},
        {"*.alpha.lab", "chat.alpha.lab conference.alpha.lab",
         "not issued for *.alpha.lab, as the one that is served is, but for chat.alpha.lab, "
         "conference.alpha.lab"},
        {"*.alpha.lab", "*.chat.alpha.lab",
         "not issued for *.alpha.lab, as the one that is served is, but for *.chat.alpha.lab"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tls_name a[NAMES], b[NAMES];
        char ta[128], tb[128];
        str_copy(ta, sizeof ta, str_c(rows[i].served));
        str_copy(tb, sizeof tb, str_c(rows[i].fresh));
        struct tls_peer served = facts(ta, a), fresh = facts(tb, b);
        struct buf why = BUF_INIT(1024);
        const bool may = tls_own_may_replace(&served, &fresh, T0, &why);
        if (may != (rows[i].why == NULL) || (!may && strcmp(why.p, rows[i].why) != 0))
            fail_msg("row %zu: %s", i, may ? "it may" : why.p);
        buf_free(&why);
    }
}

static void may_at(int64_t now, bool served_self, bool fresh_self, const char *want)
{
    struct tls_name a[NAMES], b[NAMES];
    char ta[] = "alpha.lab", tb[] = "alpha.lab";
    struct tls_peer served = facts(ta, a), fresh = facts(tb, b);
    struct buf why = BUF_INIT(1024);
    served.self_signed = served_self;
    fresh.self_signed = fresh_self;
    served.not_after = T0 - DAY; /* that the served one is over makes no bad one good */
    assert_int_equal(tls_own_may_replace(&served, &fresh, now, &why), want[0] == '\0');
    assert_string_equal(why.len > 0 ? why.p : "", want);
    buf_free(&why);
}

static void test_time_and_issuer_of_a_new_one(void **state)
{
    (void)state;
    may_at(T0, false, false, "");
    may_at(T0 - DAY, false, false, "");
    may_at(T0 - DAY - 1, false, false, "not valid before 2026-10-31");
    may_at(T0 + 90LL * DAY - 1, false, false, "");
    may_at(T0 + 90LL * DAY, false, false, "expired on 2027-01-30");
    may_at(T0, false, true, "self-signed, which the one that is served is not");
    may_at(T0, true, true, "");
    may_at(T0, true, false, "");
}

/* ---- files and roles ------------------------------------------------------------------------- */

static void test_roles(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_tls_own.XXXXXX", cert[96], key[96], client[96], client_key[96];
    assert_non_null(mkdtemp(dir));
    struct issued root = issue((struct wish){.name = "Lab Root"});
    struct issued a = issue(
        (struct wish){.by = &root, .name = "server", .san = "DNS:alpha.lab", .eku = "serverAuth"});
    struct issued b = issue(
        (struct wish){.by = &root, .name = "client", .san = "DNS:alpha.lab", .eku = "clientAuth"});
    write_cert(cert, dir, "cert.pem", a.x);
    write_key(key, dir, "key.pem", a.key);
    write_cert(client, dir, "client.pem", b.x);
    write_key(client_key, dir, "client.key", b.key);
    struct tls_identity ids[] = {{.domain = "beta.lab"},
                                 {.domain = "alpha.lab",
                                  .certificate = cert,
                                  .key = key,
                                  .client_certificate = client,
                                  .client_key = client_key},
                                 {.domain = "gamma.lab", .certificate = cert, .key = key}};
    struct tls_ctx *c = make_ctx(ids, 3, NULL, TLS1_3_VERSION);
    assert_string_equal(tls_ctx_shows(c, 0, true)->subject, "CN=beta.lab");
    assert_string_equal(tls_ctx_shows(c, 0, false)->subject, "CN=beta.lab");
    assert_string_equal(tls_ctx_shows(c, 1, true)->subject, "CN=server");
    assert_string_equal(tls_ctx_shows(c, 1, false)->subject, "CN=client");
    assert_string_equal(tls_ctx_shows(c, 2, false)->subject, "CN=server");

    struct pair p = shake(c, "alpha.lab", "alpha.lab", c, NULL, 65536);
    assert_string_equal(tls_engine_peer(p.client)->subject, "CN=server");
    assert_string_equal(tls_engine_peer(p.server)->subject, "CN=client");
    pair_free(&p);
    tls_ctx_unref(c);

    struct buf errors = BUF_INIT(1024);
    struct tls_peer *own = tls_own_load(&ids[1], true, &errors);
    assert_string_equal(own->subject, "CN=server");
    tls_own_free(own);
    own = tls_own_load(&ids[1], false, &errors);
    assert_string_equal(own->subject, "CN=client");
    assert_true(tls_peer_covers(own, STR("alpha.lab")));
    tls_own_free(own);
    own = tls_own_load(&ids[2], false, &errors);
    assert_string_equal(own->subject, "CN=server");
    tls_own_free(own);
    assert_int_equal(errors.len, 0);

    /* A key that does not match, in either role. */
    char want[160];
    ids[1].client_key = key;
    assert_null(tls_own_load(&ids[1], false, &errors));
    snprintf(want, sizeof want, "%s: key does not match the certificate\n", client);
    assert_string_equal(errors.p, want);
    struct tls_settings s = {.identities = ids, .nidentities = 3, .minimum = TLS1_3_VERSION};
    buf_clear(&errors);
    assert_null(tls_ctx_new(&s, &errors));
    assert_string_equal(errors.p, want);
    buf_clear(&errors);
    ids[1].client_key = client_key;
    for (unsigned long n = 1; n < 3; n++) {
        mem_fail_after(n);
        assert_null(tls_own_load(&ids[1], true, &errors));
        mem_fail_after(0);
    }
    buf_free(&errors);
    const char *const files[] = {cert, key, client, client_key};
    for (size_t i = 0; i < 4; i++)
        unlink(files[i]);
    rmdir(dir);
    issued_free(&root);
    issued_free(&a);
    issued_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_names_of_a_new_one),
        cmocka_unit_test(test_time_and_issuer_of_a_new_one),
        cmocka_unit_test(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
