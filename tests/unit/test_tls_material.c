/* Certificates in files: one file for chain and key, stores, what is told to the other side. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <time.h>

#include "core/base/mem.h"
#include "tests/unit/certs.h"

struct work {
    char dir[64], path[96];
    struct issued root, mid, leaf;
};

static int setup(void **state)
{
    static struct work w;
    snprintf(w.dir, sizeof w.dir, "/tmp/test_tls_material.XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    w.root = issue((struct wish){.name = "Lab Root"});
    w.mid = issue((struct wish){.by = &w.root, .name = "Lab Middle", .ca = true});
    w.leaf = issue((struct wish){.by = &w.mid,
                                 .name = "alpha",
                                 .san = "DNS:alpha.lab,DNS:*.alpha.lab",
                                 .from = -2 * DAY,
                                 .to = 9 * DAY});
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct work *w = *state;
    unlink(w->path);
    rmdir(w->dir);
    issued_free(&w->root);
    issued_free(&w->mid);
    issued_free(&w->leaf);
    return 0;
}

/* Writes a file of l(eaf), m(iddle), r(oot), k(ey of leaf), K(ey of root), p(arameters, as "openssl
 * ecparam" puts them before a key), j(unk text), d(amaged certificate). */
static void compose(struct work *w, const char *what)
{
    FILE *f = create(w->path, w->dir, "x.pem");
    for (; *what != '\0'; what++) {
        const struct issued *i = *what == 'l' || *what == 'k' ? &w->leaf
                                 : *what == 'm'               ? &w->mid
                                                              : &w->root;
        if (*what == 'k' || *what == 'K')
            PEM_write_PrivateKey(f, i->key, NULL, NULL, 0, NULL, NULL);
        else if (*what == 'p')
            fputs("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
                  f);
        else if (*what == 'j')
            fputs("subject=CN = alpha\nno PEM here\n\n", f);
        else if (*what == 'd')
            fputs("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", f);
        else
            PEM_write_X509(f, i->x);
    }
    fclose(f);
}

/* ---- chain and key in one file --------------------------------------------------------------- */

/* The folder of certificates of an inside S2S listener has such files. */
static void test_one_file(void **state)
{
    struct work *w = *state;
    static const char *const orders[] = {"lmk", "lkm", "klm", "plmk", "jlmkj", "pklm"};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        char ca[96];
        write_cert(ca, w->dir, "ca.pem", w->root.x);
        compose(w, orders[i]);
        struct tls_identity id[] = {{.domain = "first.lab"},
                                    {.domain = "alpha.lab", .certificate = w->path}};
        struct tls_ctx *own = make_ctx(id, 2, NULL, TLS1_3_VERSION);
        struct tls_ctx *other = ctx_of((struct tls_settings){
            .identities = id, .nidentities = 1, .ca_file = ca, .minimum = TLS1_3_VERSION});
        /* As server picked by SNI and by the stream's domain, and as client. */
        struct pair p = shake(other, NULL, "alpha.lab", own, NULL, 65536);
        assert_true(tls_engine_peer(p.client)->chain_ok);
        pair_free(&p);
        p = shake(other, NULL, NULL, own, "alpha.lab", 65536);
        assert_true(tls_engine_peer(p.client)->chain_ok);
        pair_free(&p);
        p = shake(own, "alpha.lab", NULL, other, NULL, 65536);
        assert_true(tls_engine_peer(p.server)->chain_ok);
        assert_true(tls_peer_covers(tls_engine_peer(p.server), STR("x.alpha.lab")));
        pair_free(&p);
        p = shake(own, NULL, NULL, other, NULL, 65536);
        assert_true(tls_engine_peer(p.server)->self_signed);
        pair_free(&p);
        tls_ctx_unref(own);
        tls_ctx_unref(other);
        unlink(ca);
    }
}

/* The system's store is where the environment says; an inside link does not look there. */
static void test_no_system_store(void **state)
{
    struct work *w = *state;
    char ca[96];
    write_cert(ca, w->dir, "ca.pem", w->root.x);
    compose(w, "lmk");
    setenv("SSL_CERT_FILE", ca, 1);
    struct tls_identity id = {.domain = "alpha.lab", .certificate = w->path};
    struct tls_ctx *own = make_ctx(&id, 1, NULL, TLS1_3_VERSION);
    for (int none = 0; none <= 1; none++) {
        struct tls_ctx *other = ctx_of((struct tls_settings){.identities = &id,
                                                             .nidentities = 1,
                                                             .minimum = TLS1_3_VERSION,
                                                             .no_system_store = none == 1});
        struct pair p = shake(other, NULL, NULL, own, NULL, 65536);
        assert_int_equal(tls_engine_peer(p.client)->chain_ok, none == 0);
        assert_string_equal(tls_engine_peer(p.client)->why,
                            none == 0 ? "" : "issuer unknown: CN=Lab Root");
        pair_free(&p);
        tls_ctx_unref(other);
    }
    unsetenv("SSL_CERT_FILE");
    tls_ctx_unref(own);
    unlink(ca);
}

/* ---- the store ------------------------------------------------------------------------------- */

static void assert_is(const struct key_hash *h, X509 *x)
{
    unsigned char *der = NULL, md[32];
    int n = i2d_X509(x, &der);
    assert_int_equal(h->n, KEY_HASH_SHA256);
    assert_memory_equal(h->bytes, SHA256(der, (size_t)n, md), 32);
    OPENSSL_free(der);
}

static void test_fingerprints(void **state)
{
    struct work *w = *state;
    static const char *const files[] = {"l", "lmr", "jljkmjKr", "rlmrlmrlmrlmrlmrl"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct buf errors = BUF_INIT(1024);
        size_t n = 0, at = 0;
        compose(w, files[i]);
        struct key_hash *v = tls_fingerprints(w->path, &n, &errors);
        assert_non_null(v);
        for (const char *c = files[i]; *c != '\0'; c++)
            if (strchr("lmr", *c) != NULL)
                assert_is(&v[at++], *c == 'l' ? w->leaf.x : *c == 'm' ? w->mid.x : w->root.x);
        assert_int_equal(n, at);
        assert_int_equal(errors.len, 0);
        mem_free(v);
    }
}

static void no_store(const char *path, const char *what)
{
    struct buf errors = BUF_INIT(1024);
    char want[256];
    size_t n = 7;
    assert_null(tls_fingerprints(path, &n, &errors));
    snprintf(want, sizeof want, "%s: %s\n", path, what);
    assert_string_equal(errors.p, want);
    assert_int_equal(n, 0);
    buf_free(&errors);
}

static void test_bad_stores(void **state)
{
    struct work *w = *state;
    static const struct {
        const char *file, *want;
    } rows[] = {
        {"", "holds no certificate in PEM form"},   {"j", "holds no certificate in PEM form"},
        {"kK", "holds no certificate in PEM form"}, {"d", "holds a damaged certificate"},
        {"ld", "holds a damaged certificate"},      {"dl", "holds a damaged certificate"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        compose(w, rows[i].file);
        no_store(w->path, rows[i].want);
    }
    unlink(w->path);
    no_store(w->path, "cannot be read: No such file or directory");
}

static void test_store_limit(void **state)
{
    struct work *w = *state;
    struct buf errors = BUF_INIT(1024);
    char file[TLS_FINGERPRINTS_MAX + 2];
    size_t n;
    memset(file, 'l', sizeof file);
    file[TLS_FINGERPRINTS_MAX] = '\0';
    compose(w, file);
    struct key_hash *v = tls_fingerprints(w->path, &n, &errors);
    assert_non_null(v);
    assert_int_equal(n, TLS_FINGERPRINTS_MAX);
    assert_is(&v[n - 1], w->leaf.x);
    mem_free(v);
    file[TLS_FINGERPRINTS_MAX] = 'l';
    file[TLS_FINGERPRINTS_MAX + 1] = '\0';
    compose(w, file);
    no_store(w->path, "more than 1000 certificates");
}

static void test_store_out_of_memory(void **state)
{
    struct work *w = *state;
    compose(w, "lmrlm"); /* two blocks */
    for (unsigned long k = 1; k <= 2; k++) {
        char text[1024];
        struct buf errors = BUF_INIT(sizeof text);
        buf_reserve(&errors, sizeof text - 1);
        size_t n;
        mem_fail_after(k);
        struct key_hash *v = tls_fingerprints(w->path, &n, &errors);
        mem_fail_after(0);
        assert_null(v);
        snprintf(text, sizeof text, "%s: out of memory\n", w->path);
        assert_string_equal(errors.p, text);
        buf_free(&errors);
    }
}

/* ---- what the other side has to know --------------------------------------------------------- */

static void date(char out[32], const ASN1_TIME *t)
{
    struct tm tm;
    assert_int_equal(ASN1_TIME_to_tm(t, &tm), 1);
    strftime(out, 32, "%Y-%m-%d", &tm);
}

static void hash_line(struct buf *b, const char *what, const unsigned char *md, size_t n)
{
    buf_printf(b, "%s: ", what);
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%s%02X", i > 0 ? ":" : "", md[i]);
    buf_putc(b, '\n');
}

static void hash_lines(struct buf *b, const struct issued *c)
{
    unsigned char *der = NULL, *whole = NULL, md[32];
    int n = i2d_PUBKEY(c->key, &der);
    hash_line(b, "key SHA-1", SHA1(der, (size_t)n, md), 20);
    hash_line(b, "key SHA-256", SHA256(der, (size_t)n, md), 32);
    n = i2d_X509(c->x, &whole);
    hash_line(b, "certificate SHA-256", SHA256(whole, (size_t)n, md), 32);
    OPENSSL_free(der);
    OPENSSL_free(whole);
}

static void described(const struct tls_identity *id, const struct buf *want)
{
    struct buf out = BUF_INIT(4096), errors = BUF_INIT(1024);
    assert_true(tls_identity_describe(id, &out, &errors));
    assert_string_equal(out.p, want->p);
    buf_free(&out);
    buf_free(&errors);
}

static void test_describe_signed(void **state)
{
    struct work *w = *state;
    struct buf want = BUF_INIT(4096);
    char from[32], to[32];
    date(from, X509_get0_notBefore(w->leaf.x));
    date(to, X509_get0_notAfter(w->leaf.x));
    compose(w, "lmk");
    buf_printf(&want,
               "identity: gw.lab\nsubject: CN=alpha\nissued for: alpha.lab, *.alpha.lab\n"
               "type: signed by CN=Lab Middle\nvalid: %s to %s\n",
               from, to);
    hash_lines(&want, &w->leaf);
    described(&(struct tls_identity){.domain = "gw.lab", .certificate = w->path}, &want);
    buf_free(&want);
}

static void test_describe_selfsigned(void **state)
{
    struct work *w = *state;
    struct buf want = BUF_INIT(4096);
    char from[32], to[32];
    date(from, X509_get0_notBefore(w->root.x));
    date(to, X509_get0_notAfter(w->root.x));
    compose(w, "rK");
    buf_printf(&want,
               "identity: gw.lab\nsubject: CN=Lab Root\nissued for: no domain\n"
               "type: self-signed\nvalid: %s to %s\n",
               from, to);
    hash_lines(&want, &w->root);
    described(&(struct tls_identity){.domain = "gw.lab", .certificate = w->path}, &want);
    buf_clear(&want);
    buf_puts(&want, "identity: gw.lab\ntype: self-signed, made at each start with a new key: "
                    "nobody can list it\n");
    described(&(struct tls_identity){.domain = "gw.lab"}, &want);
    buf_free(&want);
}

static void test_describe_fails(void **state)
{
    struct work *w = *state;
    struct buf out = BUF_INIT(4096), errors = BUF_INIT(1024);
    char want[160];
    compose(w, "lmK");
    assert_false(tls_identity_describe(
        &(struct tls_identity){.domain = "gw.lab", .certificate = w->path}, &out, &errors));
    snprintf(want, sizeof want, "%s: key does not match the certificate\n", w->path);
    assert_string_equal(errors.p, want);
    assert_int_equal(out.len, 0);
    buf_free(&errors);
    compose(w, "lmk");
    buf_reserve(&errors, 512);
    for (unsigned long n = 1; n <= 2; n++) {
        buf_clear(&errors);
        mem_fail_after(n);
        bool ok = tls_identity_describe(
            &(struct tls_identity){.domain = "gw.lab", .certificate = w->path}, &out, &errors);
        mem_fail_after(0);
        assert_false(ok);
        snprintf(want, sizeof want, "%s: out of memory\n", w->path);
        assert_string_equal(errors.p, want);
    }
    buf_free(&out);
    buf_free(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_file),        cmocka_unit_test(test_no_system_store),
        cmocka_unit_test(test_fingerprints),    cmocka_unit_test(test_bad_stores),
        cmocka_unit_test(test_store_limit),     cmocka_unit_test(test_store_out_of_memory),
        cmocka_unit_test(test_describe_signed), cmocka_unit_test(test_describe_selfsigned),
        cmocka_unit_test(test_describe_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
