/* What is read out of a peer's certificate, for whom it speaks, and the phrase when it does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/tls/tls_facts_priv.h"
#include "tests/unit/certs.h"

/* ---- names ----------------------------------------------------------------------------------- */

enum alt_kind { DNS = 1, SRV, XMPP, XMPP_IA5, EMAIL, URI };

struct alt {
    enum alt_kind kind;
    struct str text;
};

static ASN1_STRING *asn1(int type, struct str s)
{
    ASN1_STRING *r = ASN1_STRING_type_new(type);
    assert_int_equal(ASN1_STRING_set(r, s.p, (int)s.n), 1);
    return r;
}

static GENERAL_NAME *other_name(int nid, int type, struct str s)
{
    GENERAL_NAME *g = GENERAL_NAME_new();
    ASN1_TYPE *value = ASN1_TYPE_new();
    ASN1_TYPE_set(value, type, asn1(type, s));
    assert_int_equal(GENERAL_NAME_set0_othername(g, OBJ_nid2obj(nid), value), 1);
    return g;
}

static GENERAL_NAME *plain_name(int kind, struct str s)
{
    GENERAL_NAME *g = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(g, kind, asn1(V_ASN1_IA5STRING, s));
    return g;
}

static GENERAL_NAME *general_name(const struct alt *a)
{
    switch (a->kind) {
    case SRV:
        return other_name(NID_SRVName, V_ASN1_IA5STRING, a->text);
    case XMPP:
        return other_name(NID_XmppAddr, V_ASN1_UTF8STRING, a->text);
    case XMPP_IA5:
        return other_name(NID_XmppAddr, V_ASN1_IA5STRING, a->text);
    case EMAIL:
        return plain_name(GEN_EMAIL, a->text);
    case URI:
        return plain_name(GEN_URI, a->text);
    case DNS:
        break;
    }
    return plain_name(GEN_DNS, a->text);
}

static struct issued with_names(const char *cn, const struct alt *v, size_t n)
{
    GENERAL_NAMES *names = n > 0 ? GENERAL_NAMES_new() : NULL;
    for (size_t i = 0; i < n; i++)
        assert_true(sk_GENERAL_NAME_push(names, general_name(&v[i])) > 0);
    return issue((struct wish){.name = cn, .names = names});
}

/* What is kept of one name; NULL: nothing. */
static void test_names(void **state)
{
    (void)state;
    static const struct {
        struct alt in;
        enum tls_name_kind kind;
        const char *want;
    } rows[] = {
        {{DNS, STR("beta.lab")}, TLS_NAME_DNS, "beta.lab"},
        {{DNS, STR("Beta.LAB")}, TLS_NAME_DNS, "beta.lab"},
        {{DNS, STR("beta.lab.")}, TLS_NAME_DNS, "beta.lab"},
        {{DNS, STR("*.beta.lab")}, TLS_NAME_DNS, "*.beta.lab"},
        {{DNS, STR("xn--bcher-kva.lab")}, TLS_NAME_DNS, "xn--bcher-kva.lab"},
        {{DNS, STR("*.xn--bcher-kva.lab")}, TLS_NAME_DNS, "*.xn--bcher-kva.lab"},
        {{DNS, STR("lab")}, TLS_NAME_DNS, "lab"},
        /* Wildcards that are not one whole left-most label below two others. */
        {{DNS, STR("*")}, 0, NULL},
        {{DNS, STR("*.")}, 0, NULL},
        {{DNS, STR("*.lab")}, 0, NULL},
        {{DNS, STR("*.*.lab")}, 0, NULL},
        {{DNS, STR("b*.beta.lab")}, 0, NULL},
        {{DNS, STR("*b.beta.lab")}, 0, NULL},
        {{DNS, STR("x.*.beta.lab")}, 0, NULL},
        {{DNS, STR("xn--*.beta.lab")}, 0, NULL},
        /* No domain names. */
        {{DNS, STR("")}, 0, NULL},
        {{DNS, STR("beta..lab")}, 0, NULL},
        {{DNS, STR(".beta.lab")}, 0, NULL},
        {{DNS, STR("192.0.2.7")}, 0, NULL},
        {{DNS, STR("beta.lab ")}, 0, NULL},
        {{DNS, STR("b\303\274cher.lab")}, 0, NULL}, /* not ASCII: RFC 5280 7.2 */
        {{DNS, STR("beta.lab\0")}, 0, NULL},
        {{DNS, STR("beta.lab\0.evil.lab")}, 0, NULL},
        {{DNS, STR("*.beta.lab\0.evil.lab")}, 0, NULL},
        {{DNS, STR("\0beta.lab")}, 0, NULL},
        {{DNS, STR("_xmpp-server.beta.lab")}, 0, NULL},
        /* SRVName: this service only, no wildcard. */
        {{SRV, STR("_xmpp-server.beta.lab")}, TLS_NAME_SRV, "beta.lab"},
        {{SRV, STR("_XMPP-Server.Beta.lab")}, TLS_NAME_SRV, "beta.lab"},
        {{SRV, STR("_xmpp-client.beta.lab")}, 0, NULL},
        {{SRV, STR("_xmpps-server.beta.lab")}, 0, NULL},
        {{SRV, STR("_xmpp-server._tcp.beta.lab")}, 0, NULL},
        {{SRV, STR("_xmpp-server.*.beta.lab")}, 0, NULL},
        {{SRV, STR("_xmpp-server.")}, 0, NULL},
        {{SRV, STR("beta.lab")}, 0, NULL},
        {{SRV, STR("_xmpp-server.beta.lab\0.evil.lab")}, 0, NULL},
        /* xmppAddr: a bare domain, U-labels or A-labels. */
        {{XMPP, STR("beta.lab")}, TLS_NAME_XMPP, "beta.lab"},
        {{XMPP, STR("b\303\274cher.lab")}, TLS_NAME_XMPP, "xn--bcher-kva.lab"},
        {{XMPP, STR("B\303\234CHER.lab")}, TLS_NAME_XMPP, "xn--bcher-kva.lab"},
        {{XMPP, STR("xn--bcher-kva.lab")}, TLS_NAME_XMPP, "xn--bcher-kva.lab"},
        {{XMPP, STR("*.beta.lab")}, 0, NULL},
        {{XMPP, STR("admin@beta.lab")}, 0, NULL},
        {{XMPP, STR("beta.lab/x")}, 0, NULL},
        {{XMPP, STR("beta.lab\0.evil.lab")}, 0, NULL},
        {{XMPP, STR("\377.lab")}, 0, NULL},
        {{XMPP_IA5, STR("beta.lab")}, 0, NULL},
        /* Other types. */
        {{EMAIL, STR("admin@beta.lab")}, 0, NULL},
        {{URI, STR("xmpp:beta.lab")}, 0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct issued c = with_names("beta.lab", &rows[i].in, 1);
        struct tls_peer p = {.nnames = 0};
        struct tls_facts *f = tls_facts_new(&p, c.x);
        assert_non_null(f);
        if (p.nnames != (rows[i].want != NULL))
            fail_msg("row %zu: %u names", i, p.nnames);
        if (rows[i].want != NULL) {
            assert_string_equal(p.names[0].domain, rows[i].want);
            assert_int_equal(p.names[0].kind, rows[i].kind);
        }
        assert_true((p.names == NULL) == (p.nnames == 0));
        mem_free(f);
        issued_free(&c);
    }
}

static void test_no_names(void **state)
{
    (void)state;
    struct issued c = with_names("beta.lab", NULL, 0);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    assert_int_equal(p.nnames, 0);
    assert_false(tls_peer_covers(&p, STR("beta.lab"))); /* the CN says nothing */
    assert_string_equal(p.subject, "CN=beta.lab");
    assert_string_equal(p.issuer, "CN=beta.lab");
    mem_free(f);
    issued_free(&c);
}

/* A subject cannot smuggle control characters, or much text, into a log. */
static void test_subject_is_tame(void **state)
{
    (void)state;
    char cn[64];
    memset(cn, '\n', sizeof cn - 1);
    cn[sizeof cn - 1] = '\0';
    struct issued c = with_names(cn, NULL, 0);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    assert_true(str_starts(str_c(p.subject), "CN=\\0A\\0A"));
    assert_true(strlen(p.subject) < 128);
    for (const char *s = p.subject; *s != '\0'; s++)
        assert_in_range(*s, ' ', '~');
    mem_free(f);
    issued_free(&c);
}

static void many_names(size_t n, size_t label, unsigned want, bool cut)
{
    struct alt *v = calloc(n, sizeof *v);
    for (size_t i = 0; i < n; i++) {
        char *s = malloc(128);
        int len = snprintf(s, 128, "n%04zu%.*s.beta.lab", i, (int)label,
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        v[i] = (struct alt){DNS, {s, (size_t)len}};
    }
    struct issued c = with_names("x", v, n);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    assert_int_equal(p.names_cut, cut);
    assert_int_equal(p.nnames, want);
    assert_true(tls_peer_covers(&p, v[want - 1].text));
    assert_int_equal(tls_peer_covers(&p, v[n - 1].text), !cut);
    assert_true(f->size < TLS_NAMES_BYTES + TLS_NAMES_MAX * sizeof(struct tls_name) + 1024);
    mem_free(f);
    issued_free(&c);
    for (size_t i = 0; i < n; i++)
        free((char *)v[i].text.p);
    free(v);
}

static void test_limits(void **state)
{
    (void)state;
    many_names(TLS_NAMES_MAX, 0, TLS_NAMES_MAX, false);
    many_names(TLS_NAMES_MAX + 1, 0, TLS_NAMES_MAX, true);
    /* 50 + 5 + 9 bytes and a NUL each, after subject and issuer: 16 KiB hold 252 of them. */
    many_names(TLS_NAMES_MAX, 50, TLS_NAMES_MAX, false);
    struct alt big[100];
    char text[100][254];
    for (size_t i = 0; i < 100; i++) {
        memset(text[i], 'a', sizeof text[i]);
        for (size_t k = 49; k < 250; k += 50)
            text[i][k] = '.';
        snprintf(text[i] + 240, 14, "%03zu.beta.lab", i);
        big[i] = (struct alt){DNS, str_c(text[i])};
        assert_int_equal(big[i].text.n, 252);
    }
    struct issued c = with_names("x", big, 100);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    assert_true(p.names_cut);
    assert_int_equal(p.nnames, TLS_NAMES_BYTES / 253 + 1);
    mem_free(f);
    issued_free(&c);
}

/* ---- which domains they cover ---------------------------------------------------------------- */

static void test_covers(void **state)
{
    (void)state;
    static const struct {
        struct tls_name name;
        struct str domain;
        bool want;
    } rows[] = {
        {{TLS_NAME_DNS, "beta.lab"}, STR("beta.lab"), true},
        {{TLS_NAME_DNS, "beta.lab"}, STR("BETA.lab"), true},
        {{TLS_NAME_DNS, "beta.lab"}, STR("x.beta.lab"), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR("lab"), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR("beta.la"), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR("xbeta.lab"), false},
        {{TLS_NAME_DNS, "x.beta.lab"}, STR("beta.lab"), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR(""), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR_NONE, false},
        {{TLS_NAME_DNS, "beta.lab"}, STR("beta.lab\0"), false},
        {{TLS_NAME_DNS, "beta.lab"}, STR("beta.lab\0x"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("x.beta.lab"), true},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("X.Beta.Lab"), true},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("xn--bcher-kva.beta.lab"), true},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("beta.lab"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("x.y.beta.lab"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR(".beta.lab"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("*.beta.lab"), true}, /* no domain: never asked */
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("x.beta.lab.evil"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("xbeta.lab"), false},
        {{TLS_NAME_DNS, "*.beta.lab"}, STR("x\0.beta.lab"), false},
        {{TLS_NAME_SRV, "beta.lab"}, STR("beta.lab"), true},
        {{TLS_NAME_SRV, "beta.lab"}, STR("x.beta.lab"), false},
        {{TLS_NAME_SRV, "*.beta.lab"}, STR("x.beta.lab"), false},
        {{TLS_NAME_XMPP, "beta.lab"}, STR("Beta.lab"), true},
        {{TLS_NAME_XMPP, "*.beta.lab"}, STR("x.beta.lab"), false},
        {{TLS_NAME_XMPP, "xn--bcher-kva.lab"}, STR("xn--bcher-kva.lab"), true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tls_name v[] = {{TLS_NAME_DNS, "other.lab"}, rows[i].name};
        struct tls_peer p = {.has_certificate = true, .names = v, .nnames = 2};
        if (tls_peer_covers(&p, rows[i].domain) != rows[i].want)
            fail_msg("%s for %.*s", rows[i].name.domain, STR_ARG(rows[i].domain));
        p.nnames = 1;
        assert_false(tls_peer_covers(&p, rows[i].domain));
        p = (struct tls_peer){.has_certificate = false};
        assert_false(tls_peer_covers(&p, rows[i].domain));
    }
}

static void issued_for(const struct tls_name *v, unsigned n, bool cut, const char *want)
{
    struct tls_peer p = {.names = v, .nnames = n, .names_cut = cut};
    struct buf b = BUF_INIT(1024);
    tls_peer_issued_for(&p, &b);
    assert_string_equal(buf_view(&b).p, want);
    buf_free(&b);
}

static void test_issued_for(void **state)
{
    (void)state;
    static const struct tls_name v[] = {
        {TLS_NAME_DNS, "a.lab"}, {TLS_NAME_XMPP, "a.lab"}, {TLS_NAME_DNS, "*.a.lab"},
        {TLS_NAME_DNS, "b.lab"}, {TLS_NAME_DNS, "c.lab"},  {TLS_NAME_DNS, "d.lab"},
        {TLS_NAME_DNS, "e.lab"}, {TLS_NAME_DNS, "f.lab"},
    };
    issued_for(NULL, 0, false, "no domain");
    issued_for(v, 1, false, "a.lab");
    issued_for(v, 3, false, "a.lab, *.a.lab");
    issued_for(v, 5, false, "a.lab, *.a.lab, b.lab, c.lab");
    issued_for(v, 8, false, "a.lab, *.a.lab, b.lab, c.lab and 3 more");
    issued_for(v, 8, true, "a.lab, *.a.lab, b.lab, c.lab and at least 3 more");
}

/* ---- hashes and dates ------------------------------------------------------------------------ */

static void test_hashes(void **state)
{
    (void)state;
    struct issued c = with_names("beta.lab", NULL, 0);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    unsigned char *key = NULL, *whole = NULL, md[32];
    int n = i2d_PUBKEY(c.key, &key);
    assert_memory_equal(p.key_sha1, SHA1(key, (size_t)n, md), 20);
    assert_memory_equal(p.key_sha256, SHA256(key, (size_t)n, md), 32);
    n = i2d_X509(c.x, &whole);
    assert_memory_equal(p.certificate_sha256, SHA256(whole, (size_t)n, md), 32);
    OPENSSL_free(key);
    OPENSSL_free(whole);
    mem_free(f);
    issued_free(&c);
}

static void dates(long from, long to, bool in_time)
{
    time_t before = time(NULL);
    struct issued c = issue((struct wish){.name = "x", .from = from, .to = to});
    time_t after = time(NULL);
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, c.x);
    assert_in_range(p.not_before, before + from, after + from);
    assert_in_range(p.not_after, before + to, after + to);
    assert_int_equal(p.in_time, in_time);
    mem_free(f);
    issued_free(&c);
}

static void test_dates(void **state)
{
    (void)state;
    dates(-DAY, DAY, true);
    dates(-DAY, -60, false);
    dates(60, DAY, false);
    dates(-DAY, 20000L * DAY, true); /* beyond 2050: GeneralizedTime */
}

/* ---- the verdict, over a handshake ----------------------------------------------------------- */

/* What a server that knows `root` (NULL: an empty store) says of a client with this chain. */
static struct pair present(const struct issued *leaf, const struct issued *between,
                           const struct issued *root)
{
    char dir[] = "/tmp/test_tls_peer.XXXXXX", cert[96], ca[96] = "";
    assert_non_null(mkdtemp(dir));
    FILE *f = create(cert, dir, "cert.pem");
    PEM_write_X509(f, leaf->x);
    if (between != NULL)
        PEM_write_X509(f, between->x);
    PEM_write_PrivateKey(f, leaf->key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    if (root != NULL)
        write_cert(ca, dir, "ca.pem", root->x);
    struct tls_identity own = {.domain = "alpha.lab", .certificate = cert},
                        other = {.domain = "beta.lab"};
    struct tls_ctx *a = make_ctx(&own, 1, NULL, TLS1_3_VERSION);
    struct tls_ctx *b = ctx_of((struct tls_settings){.identities = &other,
                                                     .nidentities = 1,
                                                     .ca_file = root != NULL ? ca : NULL,
                                                     .minimum = TLS1_3_VERSION,
                                                     .no_system_store = true});
    struct pair p = shake(a, NULL, NULL, b, NULL, 65536);
    tls_ctx_unref(a);
    tls_ctx_unref(b);
    unlink(cert);
    unlink(ca);
    rmdir(dir);
    return p;
}

/* `want` may end in a date: that of the end of the certificate that is `dated`. */
static void verdict(const struct issued *leaf, const struct issued *between,
                    const struct issued *root, const char *want, const struct issued *dated)
{
    char text[TLS_WHY_MAX], date[32] = "";
    struct pair p = present(leaf, between, root);
    assert_int_equal(p.sr, TLS_OK);
    const struct tls_peer *peer = tls_engine_peer(p.server);
    struct tm tm;
    if (dated != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(dated->x), &tm) == 1)
        strftime(date, sizeof date, "%Y-%m-%d", &tm);
    snprintf(text, sizeof text, "%s%s", want, date);
    assert_string_equal(peer->why, text);
    assert_int_equal(peer->chain_ok, want[0] == '\0');
    assert_true(peer->has_certificate);
    assert_int_equal(peer->self_signed, X509_verify(leaf->x, leaf->key) == 1);
    pair_free(&p);
}

static void test_verdicts(void **state)
{
    (void)state;
    struct issued root = issue((struct wish){.name = "Lab Root"});
    struct issued other = issue((struct wish){.name = "Other Root"});
    struct issued old_root = issue((struct wish){.name = "Old", .from = -9 * DAY, .to = -DAY});
    struct issued mid = issue((struct wish){.by = &root, .name = "Lab Middle", .ca = true});
    struct issued good = issue((struct wish){.by = &root, .name = "x"});
    struct issued deep = issue((struct wish){.by = &mid, .name = "x"});
    struct issued by_old = issue((struct wish){.by = &old_root, .name = "x"});
    struct issued under = issue((struct wish){.by = &good, .name = "y"});
    struct issued namesake = issue((struct wish){.by = &good, .name = "x"});
    struct issued expired =
        issue((struct wish){.by = &root, .name = "x", .from = -9 * DAY, .to = -2 * DAY});
    struct issued alone = issue((struct wish){.name = "x", .leaf = true});
    struct issued old =
        issue((struct wish){.name = "x", .leaf = true, .from = -9 * DAY, .to = -2 * DAY});

    verdict(&good, NULL, &root, "", NULL);
    verdict(&deep, &mid, &root, "", NULL);
    verdict(&alone, NULL, &alone, "", NULL); /* its own root, as the store says */
    verdict(&good, NULL, NULL, "issuer unknown: CN=Lab Root", NULL);
    verdict(&good, NULL, &other, "issuer unknown: CN=Lab Root", NULL);
    verdict(&good, &root, &other, "issuer unknown: CN=Lab Root", NULL); /* sent its root along */
    verdict(&deep, NULL, &root, "issuer unknown: CN=Lab Middle", NULL); /* did not send it */
    verdict(&deep, &mid, &other, "issuer unknown: CN=Lab Root", NULL);
    verdict(&alone, NULL, &root, "self-signed", NULL);
    verdict(&alone, NULL, NULL, "self-signed", NULL);
    verdict(&expired, NULL, &root, "expired on ", &expired);
    verdict(&expired, NULL, NULL, "issuer unknown: CN=Lab Root, and expired on ", &expired);
    verdict(&old, NULL, &root, "self-signed, and expired on ", &old);
    verdict(&by_old, NULL, &old_root, "its issuer CN=Old: expired on ", &old_root);
    verdict(&under, &good, &root, "its issuer CN=x: invalid CA certificate", NULL);
    verdict(&namesake, &good, &root, "issuer unknown: CN=x", NULL);

    struct issued *all[] = {&root,   &other, &old_root, &mid,   &good, &deep,
                            &by_old, &under, &expired,  &alone, &old,  &namesake};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        issued_free(all[i]);
}

/* A certificate under the name of its issuer is not self-signed. */
static void test_same_name_is_not_self_signed(void **state)
{
    (void)state;
    struct issued root = issue((struct wish){.name = "alpha.lab"});
    struct issued leaf = issue((struct wish){.by = &root, .name = "alpha.lab"});
    struct tls_peer p = {.nnames = 0};
    struct tls_facts *f = tls_facts_new(&p, leaf.x);
    assert_false(p.self_signed);
    mem_free(f);
    f = tls_facts_new(&p, root.x);
    assert_true(p.self_signed);
    mem_free(f);
    issued_free(&leaf);
    issued_free(&root);
}

/* The names and texts are kept while connected, and nothing more. */
static void test_memory(void **state)
{
    (void)state;
    struct issued root = issue((struct wish){.name = "Lab Root"});
    struct issued leaf =
        issue((struct wish){.by = &root, .name = "alpha", .san = "DNS:alpha.lab,DNS:*.alpha.lab"});
    struct issued bare = issue((struct wish){.by = &root, .name = "alpha"});
    struct pair a = present(&leaf, NULL, &root), b = present(&bare, NULL, &root);
    assert_true(tls_peer_covers(tls_engine_peer(a.server), STR("x.alpha.lab")));
    size_t with = tls_engine_memory(a.server), without = tls_engine_memory(b.server);
    assert_int_equal(with - without,
                     2 * sizeof(struct tls_name) + sizeof "alpha.lab" + sizeof "*.alpha.lab");
    pair_free(&a);
    pair_free(&b);
    issued_free(&leaf);
    issued_free(&bare);
    issued_free(&root);
}

/* Without memory for the facts there is no connection: an unjudged peer must not get further. */
static void test_out_of_memory(void **state)
{
    (void)state;
    struct tls_ctx *c = selfsigned_ctx("alpha.lab", TLS1_3_VERSION);
    bool done = false;
    unsigned failures = 0;
    for (unsigned long n = 1; !done && n < 100; n++) {
        struct tls_engine *client = tls_engine_new(c, false, NULL, NULL);
        struct tls_engine *server = tls_engine_new(c, true, NULL, NULL);
        tls_engine_handshake(client);
        carry(client, server, 65536);
        tls_engine_handshake(server);
        carry(server, client, 65536);
        mem_fail_after(n);
        enum tls_result r = tls_engine_handshake(client);
        mem_fail_after(0);
        if (r == TLS_ERROR) {
            failures++;
            assert_string_equal(tls_engine_why(client), "out of memory");
            assert_int_equal(tls_engine_handshake(client), TLS_ERROR);
            assert_int_equal(tls_engine_write(client, STR("x")), TLS_ERROR);
        }
        done = r == TLS_OK;
        tls_engine_free(client);
        tls_engine_free(server);
    }
    assert_true(done);
    assert_in_range(failures, 2, 20);
    tls_ctx_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),           cmocka_unit_test(test_no_names),
        cmocka_unit_test(test_subject_is_tame), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_covers),          cmocka_unit_test(test_issued_for),
        cmocka_unit_test(test_hashes),          cmocka_unit_test(test_dates),
        cmocka_unit_test(test_verdicts),        cmocka_unit_test(test_same_name_is_not_self_signed),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
