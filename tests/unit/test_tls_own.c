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

static const char *shown(const struct tls_ctx *c, size_t i, bool server)
{
    return tls_own_shows(tls_ctx_own(c, i, server))->subject;
}

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
    assert_string_equal(shown(c, 0, true), "CN=beta.lab");
    assert_string_equal(shown(c, 0, false), "CN=beta.lab");
    assert_string_equal(shown(c, 1, true), "CN=server");
    assert_string_equal(shown(c, 1, false), "CN=client");
    assert_string_equal(shown(c, 2, false), "CN=server");

    struct pair p = shake(c, "alpha.lab", "alpha.lab", c, NULL, 65536);
    assert_string_equal(tls_engine_peer(p.client)->subject, "CN=server");
    assert_string_equal(tls_engine_peer(p.server)->subject, "CN=client");
    pair_free(&p);
    tls_ctx_unref(c);

    struct buf errors = BUF_INIT(1024);
    struct tls_own *own = tls_own_load(&ids[1], true, &errors);
    assert_string_equal(tls_own_shows(own)->subject, "CN=server");
    tls_own_unref(own);
    own = tls_own_load(&ids[1], false, &errors);
    assert_string_equal(tls_own_shows(own)->subject, "CN=client");
    assert_true(tls_peer_covers(tls_own_shows(own), STR("alpha.lab")));
    tls_own_unref(own);
    own = tls_own_load(&ids[2], false, &errors);
    assert_string_equal(tls_own_shows(own)->subject, "CN=server");
    tls_own_unref(own);
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
    for (unsigned long n = 1; n < 4; n++) {
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

/* ---- another in its place -------------------------------------------------------------------- */

enum { DOMAINS = 3 };

struct renewal {
    char dir[64], cert[96], key[96];
    struct issued root, first, second;
    struct tls_identity id[DOMAINS];
    struct tls_ctx *ctx;
};

static void renewal_open(struct renewal *r)
{
    snprintf(r->dir, sizeof r->dir, "/tmp/test_tls_own.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    r->root = issue((struct wish){.name = "Lab Root"});
    r->first = issue((struct wish){.by = &r->root, .name = "first", .san = "DNS:alpha.lab"});
    r->second = issue((struct wish){.by = &r->root, .name = "second", .san = "DNS:alpha.lab"});
    write_cert(r->cert, r->dir, "cert.pem", r->first.x);
    write_key(r->key, r->dir, "key.pem", r->first.key);
    r->id[0] = (struct tls_identity){.domain = "beta.lab"};
    r->id[1] = (struct tls_identity){.domain = "alpha.lab", .certificate = r->cert, .key = r->key};
    r->id[2] = (struct tls_identity){.domain = "gamma.lab"};
    r->ctx = ctx_of((struct tls_settings){
        .identities = r->id, .nidentities = DOMAINS, .minimum = TLS1_3_VERSION, .sessions = 5});
    write_cert(r->cert, r->dir, "cert.pem", r->second.x);
    write_key(r->key, r->dir, "key.pem", r->second.key);
}

static void renewal_close(struct renewal *r)
{
    for (size_t i = 0; i < DOMAINS; i++)
        tls_own_unref(r->id[i].own);
    tls_ctx_unref(r->ctx);
    unlink(r->cert);
    unlink(r->key);
    rmdir(r->dir);
    issued_free(&r->root);
    issued_free(&r->first);
    issued_free(&r->second);
}

static void hold(struct renewal *r)
{
    struct buf errors = BUF_INIT(1024);
    for (size_t i = 0; i < DOMAINS; i++)
        r->id[i].own = i == 1 ? tls_own_load(&r->id[i], true, &errors)
                              : tls_own_ref(tls_ctx_own(r->ctx, i, true));
    assert_int_equal(errors.len, 0);
    buf_free(&errors);
}

static void shows(struct tls_ctx *c, const char *domain, const char *subject)
{
    struct pair p = shake(c, domain, domain, c, NULL, 65536);
    assert_int_equal(p.cr, TLS_OK);
    assert_string_equal(tls_engine_peer(p.client)->subject, subject);
    assert_string_equal(tls_engine_peer(p.server)->subject, subject);
    pair_free(&p);
}

static void test_renewed(void **state)
{
    (void)state;
    struct renewal r;
    struct buf errors = BUF_INIT(1024);
    renewal_open(&r);
    struct pair running = shake(r.ctx, "alpha.lab", "alpha.lab", r.ctx, NULL, 65536);
    hold(&r);
    struct tls_ctx *c = tls_ctx_renew(r.ctx, r.id, &errors);
    assert_non_null(c);
    assert_string_equal(shown(c, 1, true), "CN=second");
    assert_string_equal(shown(c, 1, false), "CN=second");
    assert_ptr_equal(tls_ctx_own(c, 0, true), tls_ctx_own(r.ctx, 0, true));
    assert_ptr_equal(tls_ctx_own(c, 2, false), tls_ctx_own(r.ctx, 2, false));
    /* The old one serves as before, with the same made ones; each by its own table of names. */
    shows(r.ctx, "alpha.lab", "CN=first");
    shows(c, "alpha.lab", "CN=second");
    shows(c, "gamma.lab", "CN=gamma.lab");
    assert_int_equal(tls_engine_write(running.server, STR("still here")), TLS_OK);
    tls_ctx_unref(r.ctx);
    r.ctx = c;
    shows(c, "alpha.lab", "CN=second");
    shows(c, "beta.lab", "CN=beta.lab");
    pair_free(&running);
    renewal_close(&r);
    buf_free(&errors);
}

static void test_renewed_without_memory(void **state)
{
    (void)state;
    struct renewal r;
    struct buf errors = BUF_INIT(1024);
    renewal_open(&r);
    hold(&r);
    struct tls_ctx *c = NULL;
    for (unsigned long n = 1; c == NULL; n++) {
        mem_fail_after(n);
        c = tls_ctx_renew(r.ctx, r.id, &errors);
        mem_fail_after(0);
        shows(r.ctx, "alpha.lab", "CN=first");
        assert_true(n < 20);
    }
    shows(c, "alpha.lab", "CN=second");
    tls_ctx_unref(c);
    renewal_close(&r);
    buf_free(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_names_of_a_new_one),
        cmocka_unit_test(test_time_and_issuer_of_a_new_one),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_renewed),
        cmocka_unit_test(test_renewed_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
