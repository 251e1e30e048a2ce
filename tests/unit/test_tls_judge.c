/* Whom to believe: each kind of certificate, shown by a server and by a client, with its verdict
 * and the sentence for people; stores of single peers; revocation lists. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "core/base/mem.h"
#include "tests/unit/certs.h"

/* ---- a private authority --------------------------------------------------------------------- */

/* X(id, issuer, subjectAltName, what else) */
#define SRV(domain)  "otherName:1.3.6.1.5.5.7.8.7;IA5STRING:_xmpp-server." domain
#define XMPP(domain) "otherName:1.3.6.1.5.5.7.8.5;UTF8:" domain
#define CERTIFICATES(X)                                                                            \
    X(GOOD, ROOT, "DNS:beta.lab", .name = "x")                                                     \
    X(EXPIRED, ROOT, "DNS:beta.lab", .from = -9 * DAY, .to = -2 * DAY)                             \
    X(NOT_YET, ROOT, "DNS:beta.lab", .from = 2 * DAY, .to = 9 * DAY)                               \
    X(WRONG_NAME, ROOT, "DNS:other.lab", .name = "beta.lab")                                       \
    X(NO_NAME, ROOT, NULL, .name = "beta.lab")                                                     \
    X(WILDCARD, ROOT, "DNS:*.beta.lab", .name = "x")                                               \
    X(SRV_NAME, ROOT, SRV("beta.lab"), .name = "x")                                                \
    X(XMPP_ADDR, ROOT, XMPP("beta.lab"), .name = "x")                                              \
    X(IDNA, ROOT, NULL, .name = "x")                                                               \
    X(FOR_SERVERS, ROOT, "DNS:beta.lab", .eku = "serverAuth")                                      \
    X(FOR_CLIENTS, ROOT, "DNS:beta.lab", .eku = "clientAuth")                                      \
    X(FOR_CODE, ROOT, "DNS:beta.lab", .eku = "codeSigning")                                        \
    X(FOR_SIGNING, ROOT, "DNS:beta.lab", .ku = "keyCertSign,cRLSign")                              \
    X(SELF_SIGNED, NOBODY, "DNS:beta.lab", .leaf = true)                                           \
    X(REVOKED, ROOT, "DNS:beta.lab", .name = "x")                                                  \
    X(REVOKED_OLD, ROOT, "DNS:beta.lab", .from = -9 * DAY, .to = -2 * DAY)                         \
    X(WEAK_KEY, ROOT, "DNS:beta.lab", .rsa_bits = 1024)                                            \
    X(STRONG_RSA, ROOT, "DNS:beta.lab", .rsa_bits = 2048)                                          \
    X(WEAK_DIGEST, ROOT, "DNS:beta.lab", .digest = EVP_sha1())                                     \
    X(BY_MIDDLE, MIDDLE, "DNS:beta.lab", .name = "x")                                              \
    X(BY_REVOKED, REVOKED_MIDDLE, "DNS:beta.lab", .name = "x")                                     \
    X(BY_WEAK, WEAK_MIDDLE, "DNS:beta.lab", .name = "x")                                           \
    X(BY_MAIL, MAIL_MIDDLE, "DNS:beta.lab", .name = "x")                                           \
    X(BY_STRANGER, STRANGER, "DNS:beta.lab", .name = "x")                                          \
    X(NUL_IN_NAME, ROOT, NULL, .name = "x")

enum authority {
    ROOT,
    STRANGER,
    MIDDLE,
    REVOKED_MIDDLE,
    WEAK_MIDDLE,
    MAIL_MIDDLE,
    AUTHORITY_COUNT,
    NOBODY,
};

enum kind {
#define X(id, by, san, ...) id,
    CERTIFICATES(X)
#undef X
        KIND_COUNT
};

static struct issued by[AUTHORITY_COUNT], all[KIND_COUNT];
static char dir[64], ca[96], stranger_ca[96], crl[96];

/* What openssl.cnf cannot say. */
static GENERAL_NAMES *raw_name(enum kind kind)
{
    static const char nul[] = "beta.lab\0.evil.lab", idna[] = "b\303\274cher.lab";
    GENERAL_NAMES *v = GENERAL_NAMES_new();
    GENERAL_NAME *g = GENERAL_NAME_new();
    if (kind == NUL_IN_NAME) {
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        ASN1_STRING_set(text, nul, sizeof nul - 1);
        GENERAL_NAME_set0_value(g, GEN_DNS, text);
    } else {
        ASN1_TYPE *value = ASN1_TYPE_new();
        ASN1_UTF8STRING *text = ASN1_UTF8STRING_new();
        ASN1_STRING_set(text, idna, sizeof idna - 1);
        ASN1_TYPE_set(value, V_ASN1_UTF8STRING, text);
        GENERAL_NAME_set0_othername(g, OBJ_nid2obj(NID_XmppAddr), value);
    }
    sk_GENERAL_NAME_push(v, g);
    return v;
}

static void make_authorities(void)
{
    by[ROOT] = issue((struct wish){.name = "Lab Root"});
    by[STRANGER] = issue((struct wish){.name = "Other Root"});
    by[MIDDLE] = issue((struct wish){.by = &by[ROOT], .name = "Lab Middle", .ca = true});
    by[REVOKED_MIDDLE] = issue((struct wish){.by = &by[ROOT], .name = "Lost Middle", .ca = true});
    by[WEAK_MIDDLE] =
        issue((struct wish){.by = &by[ROOT], .name = "Weak Middle", .ca = true, .rsa_bits = 1024});
    by[MAIL_MIDDLE] = issue((struct wish){
        .by = &by[ROOT], .name = "Mail Middle", .ca = true, .eku = "emailProtection"});
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_tls_judge.XXXXXX");
    assert_non_null(mkdtemp(dir));
    make_authorities();
    const struct wish wishes[] = {
#define X(id, who, names, ...)                                                                     \
    {.by = (who) == NOBODY ? NULL : &by[(who) % AUTHORITY_COUNT], .san = (names), __VA_ARGS__},
        CERTIFICATES(X)
#undef X
    };
    for (int i = 0; i < KIND_COUNT; i++) {
        struct wish w = wishes[i];
        w.name = w.name != NULL ? w.name : "x";
        w.names = i == NUL_IN_NAME || i == IDNA ? raw_name(i) : NULL;
        all[i] = issue(w);
    }
    write_cert(ca, dir, "ca.pem", by[ROOT].x);
    write_cert(stranger_ca, dir, "stranger.pem", by[STRANGER].x);
    X509 *lost[] = {all[REVOKED].x, all[REVOKED_OLD].x, by[REVOKED_MIDDLE].x};
    FILE *f = create(crl, dir, "crl.pem");
    put_crl(f, &by[ROOT], lost, 3, DAY);
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < KIND_COUNT; i++)
        issued_free(&all[i]);
    for (int i = 0; i < AUTHORITY_COUNT; i++)
        issued_free(&by[i]);
    unlink(ca);
    unlink(stranger_ca);
    unlink(crl);
    return rmdir(dir);
}

/* ---- the table ------------------------------------------------------------------------------- */

static struct tls_ctx *judge_ctx(const char *ca_file, const char *crl_file)
{
    static const struct tls_identity id = {.domain = "alpha.lab"};
    return ctx_of((struct tls_settings){.identities = &id,
                                        .nidentities = 1,
                                        .ca_file = ca_file,
                                        .crl_file = crl_file,
                                        .minimum = TLS1_2_VERSION,
                                        .no_system_store = true});
}

/* An engine after its handshake with a peer of the other role that shows this; the caller's. */
static struct tls_engine *shown(struct tls_ctx *c, bool server, int version,
                                const struct issued *leaf, const struct issued *between,
                                const char *judge_by)
{
    struct stranger s = stranger_new(server, version, leaf, between);
    struct tls_engine *e = tls_engine_new(c, !server, "alpha.lab", server ? "beta.lab" : NULL);
    if (judge_by != NULL)
        tls_engine_judge(e, judge_by);
    stranger_connect(&s, server);
    if (against(s.ssl, e) != TLS_OK)
        fail_msg("%s", tls_engine_why(e));
    stranger_free(&s);
    return e;
}

static void date_of(char out[32], const ASN1_TIME *t)
{
    struct tm tm;
    assert_int_equal(ASN1_TIME_to_tm(t, &tm), 1);
    strftime(out, 32, "%Y-%m-%d", &tm);
}

/* "%A": the day it ends, "%B": the day it begins, "%R": the day of revocation. */
static void sentence(char out[TLS_WHY_MAX], const char *want, X509 *x)
{
    char date[32];
    ASN1_TIME *revoked = X509_gmtime_adj(NULL, -2 * DAY);
    size_t n = 0;
    for (; *want != '\0'; want++) {
        if (*want != '%') {
            out[n++] = *want;
            continue;
        }
        want++;
        date_of(date, *want == 'A'   ? X509_get0_notAfter(x)
                      : *want == 'B' ? X509_get0_notBefore(x)
                                     : revoked);
        n += (size_t)snprintf(out + n, TLS_WHY_MAX - n, "%s", date);
    }
    out[n] = '\0';
    ASN1_TIME_free(revoked);
}

/* OpenSSL as a server does not show such a certificate. */
static const char cannot[] = "";
#define WEAK "weak key: RSA of 1024 bits, at least 2048 are needed"

static const struct {
    enum kind kind;
    enum authority between; /* sent along; NOBODY: alone */
    const char *domain;     /* asked for */
    bool covers;
    const char *as_client, *as_server; /* NULL: the same */
} rows[] = {
    {GOOD, NOBODY, "beta.lab", true, "", NULL},
    {EXPIRED, NOBODY, "beta.lab", true, "expired on %A", NULL},
    {NOT_YET, NOBODY, "beta.lab", true, "not valid before %B", NULL},
    {WRONG_NAME, NOBODY, "beta.lab", false, "", NULL}, /* whatever its CN is */
    {NO_NAME, NOBODY, "beta.lab", false, "", NULL},
    {WILDCARD, NOBODY, "x.beta.lab", true, "", NULL},
    {WILDCARD, NOBODY, "beta.lab", false, "", NULL},
    {WILDCARD, NOBODY, "x.y.beta.lab", false, "", NULL},
    {SRV_NAME, NOBODY, "beta.lab", true, "", NULL},
    {XMPP_ADDR, NOBODY, "beta.lab", true, "", NULL},
    {IDNA, NOBODY, "xn--bcher-kva.lab", true, "", NULL},
    {FOR_SERVERS, NOBODY, "beta.lab", true, "", NULL},
    {FOR_CLIENTS, NOBODY, "beta.lab", true, "", "not meant for a server"},
    {FOR_CODE, NOBODY, "beta.lab", true, "not meant for TLS", NULL},
    {FOR_SIGNING, NOBODY, "beta.lab", true, "not meant for TLS", cannot},
    {SELF_SIGNED, NOBODY, "beta.lab", true, "self-signed", NULL},
    {REVOKED, NOBODY, "beta.lab", true, "revoked on %R", NULL},
    {REVOKED_OLD, NOBODY, "beta.lab", true, "revoked on %R, and expired on %A", NULL},
    {WEAK_KEY, NOBODY, "beta.lab", true, WEAK, NULL},
    {STRONG_RSA, NOBODY, "beta.lab", true, "", NULL},
    {WEAK_DIGEST, NOBODY, "beta.lab", true, "weak signature: with SHA1", NULL},
    {BY_MIDDLE, MIDDLE, "beta.lab", true, "", NULL},
    {BY_MIDDLE, NOBODY, "beta.lab", true, "issuer unknown: CN=Lab Middle", NULL},
    {BY_MIDDLE, WEAK_MIDDLE, "beta.lab", true, "issuer unknown: CN=Lab Middle", NULL},
    {BY_REVOKED, REVOKED_MIDDLE, "beta.lab", true, "its issuer CN=Lost Middle: revoked on %R",
     NULL},
    {BY_WEAK, WEAK_MIDDLE, "beta.lab", true, "its issuer CN=Weak Middle: " WEAK, NULL},
    {BY_MAIL, MAIL_MIDDLE, "beta.lab", true, "its issuer CN=Mail Middle: not meant for TLS", NULL},
    {BY_STRANGER, NOBODY, "beta.lab", true, "issuer unknown: CN=Other Root", NULL},
    {BY_STRANGER, STRANGER, "beta.lab", true, "issuer unknown: CN=Other Root", NULL},
    {NUL_IN_NAME, NOBODY, "beta.lab", false, "", NULL},
};

static void one_row(struct tls_ctx *c, size_t i, bool server, int version)
{
    const struct issued *leaf = &all[rows[i].kind];
    const struct issued *between = rows[i].between < AUTHORITY_COUNT ? &by[rows[i].between] : NULL;
    const char *want = server && rows[i].as_server != NULL ? rows[i].as_server : rows[i].as_client;
    char text[TLS_WHY_MAX];
    if (want == cannot)
        return;
    struct tls_engine *e = shown(c, server, version, leaf, between, NULL);
    const struct tls_peer *p = tls_engine_peer(e);
    sentence(text, want, leaf->x);
    if (strcmp(p->why, text) != 0 || p->chain_ok != (text[0] == '\0') ||
        tls_peer_covers(p, str_c(rows[i].domain)) != rows[i].covers)
        fail_msg("row %zu, %s, %s: chain %s, \"%s\" instead of \"%s\", %s", i,
                 server ? "server" : "client", p->protocol, p->chain_ok ? "ok" : "not ok", p->why,
                 text, tls_peer_covers(p, str_c(rows[i].domain)) ? "covers" : "does not cover");
    assert_true(p->has_certificate);
    tls_engine_free(e);
}

static void test_table(void **state)
{
    (void)state;
    struct tls_ctx *c = judge_ctx(ca, crl);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int server = 0; server <= 1; server++) {
            one_row(c, i, server, TLS1_2_VERSION);
            one_row(c, i, server, TLS1_3_VERSION);
        }
    tls_ctx_unref(c);
}

static void test_no_certificate(void **state)
{
    (void)state;
    struct tls_ctx *c = judge_ctx(ca, crl);
    struct tls_engine *e = shown(c, false, TLS1_3_VERSION, NULL, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        assert_false(tls_engine_peer(e)->has_certificate);
        assert_false(tls_engine_peer(e)->chain_ok);
        assert_string_equal(tls_engine_peer(e)->why, "the peer presented no certificate");
        tls_engine_judge(e, i == 0 ? "none.pem" : NULL);
    }
    tls_engine_free(e);
    tls_ctx_unref(c);
}

/* ---- the authorities of a single peer -------------------------------------------------------- */

static struct tls_ctx *ctx_of_both(void)
{
    static const struct tls_identity id = {.domain = "alpha.lab"};
    const char *const files[] = {ca, stranger_ca, ca};
    return ctx_of((struct tls_settings){.identities = &id,
                                        .nidentities = 1,
                                        .ca_files = files,
                                        .nca_files = 3,
                                        .crl_file = crl,
                                        .minimum = TLS1_2_VERSION,
                                        .no_system_store = true});
}

static void judged(struct tls_engine *e, const char *ca_file, const char *want)
{
    const struct tls_peer *p = tls_engine_peer(e);
    tls_engine_judge(e, ca_file);
    assert_string_equal(p->why, want); /* in the same place */
    assert_int_equal(p->chain_ok, want[0] == '\0');
    assert_true(p->nnames == 1 && tls_peer_covers(p, STR("beta.lab")));
}

static void judge_again(bool server, int version)
{
    struct tls_ctx *c = ctx_of_both();
    struct tls_engine *e = shown(c, server, version, &all[BY_MIDDLE], &by[MIDDLE], NULL);
    judged(e, NULL, "issuer unknown: CN=Lab Root");
    judged(e, ca, "");
    judged(e, ca, "");
    judged(e, stranger_ca, "issuer unknown: CN=Lab Root");
    judged(e, "none.pem", "the authorities for this peer are not loaded");
    judged(e, ca, "");
    judged(e, NULL, "issuer unknown: CN=Lab Root");
    tls_engine_free(e);
    tls_ctx_unref(c);
}

static void test_judged_again(void **state)
{
    (void)state;
    judge_again(true, TLS1_3_VERSION);
    judge_again(true, TLS1_2_VERSION);
    judge_again(false, TLS1_3_VERSION);
    judge_again(false, TLS1_2_VERSION);
}

static void test_judge_known_before(void **state)
{
    (void)state;
    struct tls_ctx *c = ctx_of_both();
    static const struct {
        enum kind kind;
        const char *by, *want;
    } cases[] = {{GOOD, ca, ""},
                 {GOOD, stranger_ca, "issuer unknown: CN=Lab Root"},
                 {BY_STRANGER, stranger_ca, ""},
                 {BY_STRANGER, "none.pem", "the authorities for this peer are not loaded"},
                 {FOR_CLIENTS, ca, "not meant for a server"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_engine *e =
            shown(c, true, TLS1_3_VERSION, &all[cases[i].kind], NULL, cases[i].by);
        assert_string_equal(tls_engine_peer(e)->why, cases[i].want);
        assert_int_equal(tls_engine_peer(e)->chain_ok, cases[i].want[0] == '\0');
        tls_engine_free(e);
    }
    tls_ctx_unref(c);
}

/* The lists of the snapshot count for the authorities of single peers too. */
static void test_revoked_by_any_store(void **state)
{
    (void)state;
    struct tls_ctx *c = ctx_of_both();
    struct tls_engine *e = shown(c, true, TLS1_3_VERSION, &all[REVOKED], NULL, NULL);
    assert_string_equal(tls_engine_peer(e)->why, "issuer unknown: CN=Lab Root");
    tls_engine_judge(e, ca);
    assert_true(str_starts(str_c(tls_engine_peer(e)->why), "revoked on 20"));
    assert_false(tls_engine_peer(e)->chain_ok);
    tls_engine_free(e);
    tls_ctx_unref(c);
}

/* ---- revocation lists ------------------------------------------------------------------------ */

/* Who gets in when the file holds: r(oot's list), R(oot's, overdue), s(tranger's), f(alse: under
 * the name of the root, by another key). */
static void with_lists(const char *lists, const char *warning, const char *good,
                       const char *revoked)
{
    char path[96], text[TLS_WHY_MAX];
    FILE *f = create(path, dir, "lists.pem");
    const struct issued liar = {by[ROOT].x, by[STRANGER].key};
    X509 *const lost[] = {all[REVOKED].x};
    for (const char *l = lists; *l != '\0'; l++)
        put_crl(f,
                *l == 's'   ? &by[STRANGER]
                : *l == 'f' ? &liar
                            : &by[ROOT],
                lost, 1, *l == 'R' ? -DAY : DAY);
    fclose(f);
    static const struct tls_identity id = {.domain = "alpha.lab"};
    struct tls_settings s = {.identities = &id,
                             .nidentities = 1,
                             .ca_file = ca,
                             .crl_file = path,
                             .minimum = TLS1_2_VERSION};
    struct buf errors = BUF_INIT(1024);
    struct tls_ctx *c = tls_ctx_new(&s, &errors);
    assert_non_null(c);
    assert_true(warning == NULL ? errors.len == 0 : strstr(errors.p, warning) != NULL);
    buf_free(&errors);
    static const enum kind kinds[] = {GOOD, REVOKED};
    for (int i = 0; i < 2; i++) {
        struct tls_engine *e = shown(c, true, TLS1_3_VERSION, &all[kinds[i]], NULL, NULL);
        sentence(text, i == 0 ? good : revoked, all[kinds[i]].x);
        if (strcmp(tls_engine_peer(e)->why, text) != 0)
            fail_msg("lists \"%s\": \"%s\", not \"%s\"", lists, tls_engine_peer(e)->why, text);
        tls_engine_free(e);
    }
    tls_ctx_unref(c);
    unlink(path);
}

static void test_lists(void **state)
{
    (void)state;
    with_lists("r", NULL, "", "revoked on %R");
    with_lists("sr", NULL, "", "revoked on %R");
    with_lists("s", NULL, "", ""); /* the root has none: it revokes nothing */
    with_lists("R", "the list of CN=Lab Root should have been replaced by 20", "",
               "revoked on %R"); /* old, and still all that is known */
    with_lists("f", NULL, "CRL signature failure", "CRL signature failure");
}

static void bad_lists(const char *text, const char *want)
{
    char path[96], line[256];
    FILE *f = create(path, dir, "bad.pem");
    fputs(text, f);
    fclose(f);
    if (want == NULL)
        unlink(path);
    static const struct tls_identity id = {.domain = "alpha.lab"};
    struct tls_settings s = {
        .identities = &id, .nidentities = 1, .crl_file = path, .minimum = TLS1_2_VERSION};
    struct buf errors = BUF_INIT(1024);
    assert_null(tls_ctx_new(&s, &errors));
    snprintf(line, sizeof line, "%s: %s\n", path,
             want != NULL ? want : "cannot be read: No such file or directory");
    assert_string_equal(errors.p, line);
    buf_free(&errors);
    unlink(path);
}

static void test_bad_lists(void **state)
{
    (void)state;
    bad_lists("", "holds no revocation list in PEM form");
    bad_lists("words\n", "holds no revocation list in PEM form");
    bad_lists("-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n",
              "holds a damaged revocation list");
    bad_lists("", NULL);
}

/* ---- stores ---------------------------------------------------------------------------------- */

static void test_bad_stores(void **state)
{
    (void)state;
    char missing[96], junk[96], want[512];
    fclose(create(junk, dir, "junk.pem"));
    snprintf(missing, sizeof missing, "%s/none.pem", dir);
    const char *const files[] = {missing, ca, junk};
    static const struct tls_identity id = {.domain = "alpha.lab"};
    struct tls_settings s = {.identities = &id,
                             .nidentities = 1,
                             .ca_files = files,
                             .nca_files = 3,
                             .minimum = TLS1_2_VERSION};
    struct buf errors = BUF_INIT(1024);
    assert_null(tls_ctx_new(&s, &errors)); /* both are told */
    snprintf(want, sizeof want,
             "%s: cannot be read: No such file or directory\n"
             "%s: holds no readable certificate in PEM form\n",
             missing, junk);
    assert_string_equal(errors.p, want);
    buf_free(&errors);
    unlink(junk);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    const char *const files[] = {ca, stranger_ca};
    static const struct tls_identity id = {.domain = "alpha.lab"};
    struct tls_settings s = {.identities = &id,
                             .nidentities = 1,
                             .ca_files = files,
                             .nca_files = 2,
                             .crl_file = crl,
                             .minimum = TLS1_2_VERSION,
                             .sessions = 10};
    struct tls_ctx *c = NULL;
    unsigned long n = 1;
    for (; c == NULL && n < 100; n++) {
        struct buf errors = BUF_INIT(4096);
        assert_true(buf_reserve(&errors, 2048));
        mem_fail_after(n);
        c = tls_ctx_new(&s, &errors);
        mem_fail_after(0);
        if (c == NULL)
            assert_non_null(strstr(errors.p, "out of memory"));
        buf_free(&errors);
    }
    assert_in_range(n, 8, 40);
    tls_ctx_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_no_certificate),
        cmocka_unit_test(test_judged_again),
        cmocka_unit_test(test_judge_known_before),
        cmocka_unit_test(test_revoked_by_any_store),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_bad_stores),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
