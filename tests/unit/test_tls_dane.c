/* TLSA records against certificates: every usage, selector and matching type, chains that are sent
 * or not, records that nobody can use, and two engines that shake hands about it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "core/base/mem.h"
#include "core/tls/tls_dane.h"
#include "tests/unit/certs.h"

enum who { ROOT, MIDDLE, LEAF, OLD, FOR_MAIL, WEAK, OTHER, ALONE, WHO_COUNT, NO_ONE };

static struct issued all[WHO_COUNT];
static char dir[64], ca[96];

static int make_all(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test-tls-dane-%ld", (long)getpid());
    if (mkdir(dir, 0700) != 0)
        return 1;
    const char *san = "DNS:beta.lab";
    all[ROOT] = issue((struct wish){.name = "root"});
    all[MIDDLE] = issue((struct wish){.by = &all[ROOT], .name = "middle", .ca = true});
    all[LEAF] = issue((struct wish){.by = &all[MIDDLE], .name = "leaf", .san = san});
    all[OLD] = issue((struct wish){
        .by = &all[MIDDLE], .name = "old", .san = san, .from = -9 * DAY, .to = -2 * DAY});
    all[FOR_MAIL] = issue(
        (struct wish){.by = &all[MIDDLE], .name = "mail", .san = san, .eku = "emailProtection"});
    all[WEAK] =
        issue((struct wish){.by = &all[MIDDLE], .name = "weak", .san = san, .rsa_bits = 1024});
    all[OTHER] = issue((struct wish){.name = "other"});
    all[ALONE] = issue((struct wish){.name = "alone", .san = san, .leaf = true});
    write_cert(ca, dir, "ca.pem", all[ROOT].x);
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    for (int i = 0; i < WHO_COUNT; i++)
        issued_free(&all[i]);
    unlink(ca);
    return rmdir(dir);
}

/* As an operator would compute it. */
static struct tlsa record(unsigned usage, unsigned selector, unsigned matching, enum who who)
{
    struct tlsa t = {
        .usage = (uint8_t)usage, .selector = (uint8_t)selector, .matching = (uint8_t)matching};
    unsigned char *der = NULL;
    X509 *x = all[who].x;
    int n = selector == 1 ? i2d_PUBKEY(X509_get0_pubkey(x), &der) : i2d_X509(x, &der);
    unsigned size = (unsigned)n;
    assert_true(n > 0);
    if (matching == 0)
        memcpy(t.data, der, size <= TLSA_DATA_MAX ? size : 0);
    else
        EVP_Digest(der, size, t.data, &size, matching == 2 ? EVP_sha512() : EVP_sha256(), NULL);
    OPENSSL_free(der);
    assert_in_range(size, 1, TLSA_DATA_MAX);
    t.n = (uint16_t)size;
    return t;
}

static struct tlsa_set *set_of(const struct tlsa *v, size_t n)
{
    struct tlsa_set *s = malloc(sizeof *s + n * sizeof *v);
    assert_non_null(s);
    s->n = n;
    if (n > 0)
        memcpy(s->v, v, n * sizeof *v);
    return s;
}

struct shown {
    enum who leaf;
    enum who sent[3]; /* up to the first NO_ONE */
};

static char why[TLS_WHY_MAX];

static enum tls_dane match(const struct tlsa *v, size_t n, struct shown by, enum who root,
                           bool chain_ok)
{
    struct tlsa_set *set = set_of(v, n);
    STACK_OF(X509) *chain = sk_X509_new_null();
    X509_STORE *roots = root != NO_ONE ? X509_STORE_new() : NULL;
    for (size_t i = 0; i < 3 && by.sent[i] != NO_ONE; i++)
        sk_X509_push(chain, all[by.sent[i]].x);
    if (roots != NULL)
        X509_STORE_add_cert(roots, all[root].x);
    why[0] = '\0';
    enum tls_dane found = tls_dane_match(set, all[by.leaf].x, chain, roots, chain_ok, why);
    assert_int_equal(found == TLS_DANE_MISMATCH, why[0] != '\0');
    X509_STORE_free(roots);
    sk_X509_free(chain);
    free(set);
    return found;
}

static const struct shown whole = {LEAF, {LEAF, MIDDLE, ROOT}};

/* ---- one record ------------------------------------------------------------------------------ */

static void test_every_kind(void **state)
{
    (void)state;
    static const enum tls_dane found[4] = {TLS_DANE_NARROWED, TLS_DANE_NARROWED, TLS_DANE_AUTHORITY,
                                           TLS_DANE_KEY};
    for (unsigned usage = 0; usage < 4; usage++)
        for (unsigned selector = 0; selector < 2; selector++)
            for (unsigned matching = 0; matching < 3; matching++) {
                bool leaf = usage == TLSA_PKIX_EE || usage == TLSA_DANE_EE;
                struct tlsa t = record(usage, selector, matching, leaf ? LEAF : MIDDLE);
                assert_int_equal(match(&t, 1, whole, ROOT, true), found[usage]);
                t.data[0] ^= 1;
                assert_int_equal(match(&t, 1, whole, ROOT, true), TLS_DANE_MISMATCH);
                /* An issuer is not the certificate, and the other way round. */
                t = record(usage, selector, matching, leaf ? MIDDLE : LEAF);
                assert_int_equal(match(&t, 1, whole, ROOT, true), TLS_DANE_MISMATCH);
            }
}

static const struct {
    unsigned usage, selector, matching;
    enum who names;
    struct shown by;
    enum who root;
    bool chain_ok;
    enum tls_dane found;
    const char *why;
} table[] = {
    /* DANE-EE: dates, purposes and issuers do not count; the strength of the key does. */
    {3, 1, 1, OLD, {OLD, {OLD, NO_ONE}}, NO_ONE, false, TLS_DANE_KEY, ""},
    {3, 0, 2, FOR_MAIL, {FOR_MAIL, {NO_ONE}}, NO_ONE, false, TLS_DANE_KEY, ""},
    {3, 1, 1, ALONE, {ALONE, {ALONE, NO_ONE}}, NO_ONE, false, TLS_DANE_KEY, ""},
    {3, 1, 1, WEAK, {WEAK, {NO_ONE}}, NO_ONE, false, TLS_DANE_MISMATCH, "key is too short"},
    {3,
     1,
     1,
     OTHER,
     {LEAF, {LEAF, MIDDLE, ROOT}},
     ROOT,
     true,
     TLS_DANE_MISMATCH,
     "it matches none of them"},
    /* DANE-TA: sent along, or held by the record; the path to it must be sound. */
    {2, 0, 1, MIDDLE, {LEAF, {MIDDLE, NO_ONE}}, NO_ONE, false, TLS_DANE_AUTHORITY, ""},
    {2, 1, 1, ROOT, {LEAF, {ROOT, MIDDLE, NO_ONE}}, NO_ONE, false, TLS_DANE_AUTHORITY, ""},
    {2,
     0,
     1,
     ROOT,
     {LEAF, {LEAF, ROOT, NO_ONE}},
     NO_ONE,
     false,
     TLS_DANE_MISMATCH,
     "issuer unknown: CN=middle"},
    {2,
     0,
     1,
     ROOT,
     {LEAF, {LEAF, MIDDLE, NO_ONE}},
     ROOT,
     true,
     TLS_DANE_MISMATCH,
     "matches none"}, /* not sent */
    {2, 0, 0, ROOT, {LEAF, {LEAF, MIDDLE, NO_ONE}}, NO_ONE, false, TLS_DANE_AUTHORITY, ""},
    {2, 0, 0, MIDDLE, {LEAF, {NO_ONE}}, NO_ONE, false, TLS_DANE_AUTHORITY, ""},
    {2, 0, 1, MIDDLE, {OLD, {MIDDLE, NO_ONE}}, NO_ONE, false, TLS_DANE_MISMATCH, "expired on"},
    {2,
     0,
     1,
     MIDDLE,
     {FOR_MAIL, {MIDDLE, NO_ONE}},
     NO_ONE,
     false,
     TLS_DANE_MISMATCH,
     "unsuitable certificate purpose"},
    {2, 0, 1, MIDDLE, {WEAK, {MIDDLE, NO_ONE}}, NO_ONE, false, TLS_DANE_MISMATCH, "key"},
    {2,
     0,
     1,
     OTHER,
     {LEAF, {MIDDLE, OTHER, NO_ONE}},
     NO_ONE,
     false,
     TLS_DANE_MISMATCH,
     "issuer unknown: CN=root"}, /* an authority that has nothing to do with it */
    {2,
     0,
     1,
     ALONE,
     {ALONE, {ALONE, NO_ONE}},
     NO_ONE,
     false,
     TLS_DANE_MISMATCH,
     "matches none"}, /* the certificate is not its own authority */
    /* PKIX-*: what the operator trusts, and nothing without it. */
    {1,
     0,
     1,
     LEAF,
     {LEAF, {LEAF, MIDDLE, ROOT}},
     ROOT,
     false,
     TLS_DANE_MISMATCH,
     "it fits, but is not trusted otherwise"},
    {0, 0, 1, ROOT, {LEAF, {LEAF, MIDDLE, NO_ONE}}, ROOT, true, TLS_DANE_NARROWED, ""},
    {0,
     1,
     2,
     ROOT,
     {LEAF, {LEAF, MIDDLE, NO_ONE}},
     ROOT,
     false,
     TLS_DANE_MISMATCH,
     "not trusted otherwise"},
    {0,
     0,
     1,
     OTHER,
     {LEAF, {LEAF, MIDDLE, OTHER}},
     ROOT,
     true,
     TLS_DANE_MISMATCH,
     "matches none"}, /* sent, but not on the path */
    {0,
     0,
     1,
     ROOT,
     {LEAF, {LEAF, MIDDLE, ROOT}},
     NO_ONE,
     true,
     TLS_DANE_MISMATCH,
     "matches none"}, /* nobody is trusted */
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct tlsa t =
            record(table[i].usage, table[i].selector, table[i].matching, table[i].names);
        enum tls_dane found = match(&t, 1, table[i].by, table[i].root, table[i].chain_ok);
        if (found != table[i].found || strstr(why, table[i].why) == NULL)
            fail_msg("row %zu: %d %s", i, (int)found, why);
    }
}

/* ---- several --------------------------------------------------------------------------------- */

static void test_usable(void **state)
{
    (void)state;
    for (unsigned usage = 0; usage < 256; usage++)
        for (unsigned selector = 0; selector < 4; selector++)
            for (unsigned matching = 0; matching < 5; matching++)
                for (unsigned n = 0; n <= 70; n++) {
                    struct tlsa t = {
                        (uint8_t)usage, (uint8_t)selector, (uint8_t)matching, (uint16_t)n, {0}};
                    bool fit = matching == 0   ? n > 0
                               : matching == 1 ? n == 32
                                               : matching == 2 && n == 64;
                    bool usable = usage < 4 && selector < 2 && fit;
                    assert_int_equal(tlsa_usable(&t), usable);
                    if (!usable && usage < 5)
                        assert_int_equal(match(&t, 1, whole, ROOT, true), TLS_DANE_UNUSABLE);
                }
    assert_int_equal(match(NULL, 0, whole, ROOT, true), TLS_DANE_UNUSABLE);
}

static void test_several(void **state)
{
    (void)state;
    const struct tlsa odd = {.usage = 9, .n = 1}, wrong = record(3, 1, 1, OTHER),
                      good = record(3, 1, 1, LEAF), ta = record(2, 0, 1, MIDDLE),
                      pkix = record(1, 1, 1, LEAF);
    struct tlsa v[TLSA_RECORDS_MAX];
    for (size_t at = 0; at < TLSA_RECORDS_MAX; at++) { /* one that fits is enough */
        for (size_t i = 0; i < TLSA_RECORDS_MAX; i++)
            v[i] = i == at ? good : i % 2 ? odd : wrong;
        assert_int_equal(match(v, TLSA_RECORDS_MAX, whole, NO_ONE, false), TLS_DANE_KEY);
    }
    assert_int_equal(match((struct tlsa[]){odd, wrong}, 2, whole, ROOT, true), TLS_DANE_MISMATCH);
    assert_int_equal(match((struct tlsa[]){ta, good}, 2, whole, ROOT, true), TLS_DANE_KEY);
    assert_int_equal(match((struct tlsa[]){pkix, ta}, 2, whole, ROOT, true), TLS_DANE_AUTHORITY);
    assert_int_equal(match((struct tlsa[]){pkix, wrong}, 2, whole, ROOT, true), TLS_DANE_NARROWED);
}

/* A record that claims to be a certificate, and is none: every length, every first byte. */
static void test_garbage(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= TLSA_DATA_MAX; n += 7)
        for (unsigned fill = 0; fill < 256; fill += 5) {
            struct tlsa t = {2, 0, 0, (uint16_t)n, {0}};
            memset(t.data, (int)fill, n);
            assert_int_equal(match(&t, 1, whole, NO_ONE, false), TLS_DANE_MISMATCH);
        }
    struct tlsa cut = record(2, 0, 0, ROOT);
    for (uint16_t n = 1, all_of_it = cut.n; n < all_of_it; n++) {
        cut.n = n;
        assert_int_equal(match(&cut, 1, whole, NO_ONE, false), TLS_DANE_MISMATCH);
    }
}

/* ---- two engines ----------------------------------------------------------------------------- */

static void test_engines(void **state)
{
    (void)state;
    static const struct {
        unsigned usage;
        enum who names;
        bool given;
        enum tls_dane found;
    } row[] = {
        {3, LEAF, true, TLS_DANE_KEY},       {2, MIDDLE, true, TLS_DANE_AUTHORITY},
        {0, ROOT, true, TLS_DANE_NARROWED},  {1, LEAF, true, TLS_DANE_NARROWED},
        {3, OTHER, true, TLS_DANE_MISMATCH}, {3, OTHER, false, TLS_DANE_NONE},
    };
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
            struct tls_ctx *ctx =
                make_ctx(&(struct tls_identity){.domain = "alpha.lab"}, 1, ca, TLS1_2_VERSION);
            struct stranger s = stranger_new(true, version, &all[LEAF], &all[MIDDLE]);
            stranger_connect(&s, true);
            struct tls_engine *e = tls_engine_new(ctx, false, "alpha.lab", "beta.lab");
            struct tlsa t = record(row[i].usage, 0, 1, row[i].names);
            struct tlsa_set *set = set_of(&t, 1);
            if (row[i].given)
                tls_engine_dane(e, set);
            assert_int_equal(against(s.ssl, e), TLS_OK);
            const struct tls_peer *p = tls_engine_peer(e);
            assert_true(p->chain_ok); /* what the authorities say is another matter */
            assert_int_equal(p->dane, row[i].found);
            assert_int_equal(p->dane_why[0] != '\0', row[i].found == TLS_DANE_MISMATCH);
            tls_engine_free(e);
            stranger_free(&s);
            tls_ctx_unref(ctx);
            free(set);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind), cmocka_unit_test(test_table),
        cmocka_unit_test(test_usable),     cmocka_unit_test(test_several),
        cmocka_unit_test(test_garbage),    cmocka_unit_test(test_engines),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
