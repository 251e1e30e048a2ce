/* The verdict on a link's certificate, as one table over everything it depends on, and key hashes
 * as operators write them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "xcp/trust.h"

/* ---- the verdict ----------------------------------------------------------------------------- */

/* What the peer presents. */
#define SITUATIONS(X)                                                                              \
    X(NONE, false, false, false, false) /* no certificate */                                       \
    X(SELF, true, true, true, false)    /* self-signed */                                          \
    X(SELF_OLD, true, true, false, false)                                                          \
    X(SELF_ROOT, true, true, true, true) /* self-signed, and itself in ca_file */                  \
    X(ROOT, true, false, true, true)     /* leads to a root in ca_file */                          \
    X(ROOT_OLD, true, false, false, false)                                                         \
    X(UNKNOWN, true, false, true, false) /* signed by somebody else */

enum situation {
#define X(id, has, self, time, chain) id,
    SITUATIONS(X)
#undef X
        SITUATION_COUNT
};

enum proof { NOT_PROVEN, PROVEN };
enum name { NO_NAME, CARRIED, NOT_CARRIED }; /* peer_name: absent, in the certificate, not there */
enum listing { UNLISTED, STORED, LISTED_SHA1, LISTED_SHA256, STORED_AND_LISTED, LISTING_COUNT };

static const struct key_hash wrong = {KEY_HASH_SHA256, {9, 9, 9}};

/* Numbers that are unlike each other, as hashes are. */
static struct tls_peer peer_of(enum situation s, const struct tls_name *name)
{
    static const struct {
        bool has, self, time, chain;
    } facts[] = {
#define X(id, has, self, time, chain) {has, self, time, chain},
        SITUATIONS(X)
#undef X
    };
    struct tls_peer p = {.has_certificate = facts[s].has,
                         .self_signed = facts[s].self,
                         .in_time = facts[s].time,
                         .chain_ok = facts[s].chain};
    if (!p.has_certificate)
        return p;
    p.names = name;
    p.nnames = 1;
    memset(p.key_sha1, 0x11, sizeof p.key_sha1);
    memset(p.key_sha256, 0x22, sizeof p.key_sha256);
    memset(p.certificate_sha256, 0x33, sizeof p.certificate_sha256);
    return p;
}

static struct key_hash hash(unsigned n, int byte)
{
    struct key_hash h = {n, {0}};
    memset(h.bytes, byte, n);
    return h;
}

static enum trust_reason check(enum link_auth auth, enum situation s, enum proof proof,
                               enum name name, enum listing listing)
{
    static const struct tls_name carried = {TLS_NAME_DNS, "peer.lab"};
    static const struct tls_name not_carried = {TLS_NAME_DNS, "other.lab"};
    struct key_hash list[] = {wrong, listing == LISTED_SHA1 ? hash(KEY_HASH_SHA1, 0x11)
                                                            : hash(KEY_HASH_SHA256, 0x22)};
    struct key_hash store[] = {wrong, hash(KEY_HASH_SHA256, 0x33)};
    const bool stored = listing == STORED || listing == STORED_AND_LISTED;
    const bool listed = listing >= LISTED_SHA1;
    struct link_trust t = {.auth = auth,
                           .authlist = list,
                           .nauthlist = listed ? 2 : 1,
                           .store = store,
                           .nstore = stored ? 2 : 1,
                           .peer_name = name == NO_NAME ? STR_NONE : STR("peer.lab"),
                           .proven = proof == PROVEN};
    struct tls_peer p = peer_of(s, name == CARRIED ? &carried : &not_carried);
    return link_trust_check(&t, &p);
}

enum { P = 1 << LINK_AUTH_PASSWORD, T = 1 << LINK_AUTH_TLS, TP = 1 << LINK_AUTH_TLS_PASSWORD };
enum { ANY = 0xff };
#define ON(x) (1u << (x))

/* Each combination matches exactly one row: sets of values of each column. With `password` nobody
 * asks; the answer is that of `tls`. */
static const struct {
    unsigned auth, situation, proof, name, listing;
    enum trust_reason want;
} rows[] = {
    {ANY, ON(NONE), ANY, ANY, ANY, TRUST_NO_CERTIFICATE},
    /* The key on the authlist is enough: no dates, no names, no root. */
    {ANY, ANY & ~ON(NONE), ANY, ANY, ON(LISTED_SHA1) | ON(LISTED_SHA256) | ON(STORED_AND_LISTED),
     TRUST_AUTHLIST},
    /* The certificate in the store is enough while it is in time: no names, no root. */
    {ANY, ON(SELF) | ON(SELF_ROOT) | ON(ROOT) | ON(UNKNOWN), ANY, ANY, ON(STORED), TRUST_STORE},
    {ANY, ON(SELF_OLD) | ON(ROOT_OLD), ANY, ANY, ON(STORED), TRUST_EXPIRED},

    /* tls: self-signed and not listed. Proven earlier needs a name. */
    {P | T, ON(SELF) | ON(SELF_OLD) | ON(SELF_ROOT), ON(NOT_PROVEN), ANY, ON(UNLISTED),
     TRUST_NOT_IN_STORE},
    {P | T, ON(SELF) | ON(SELF_OLD) | ON(SELF_ROOT), ON(PROVEN), ON(NO_NAME), ON(UNLISTED),
     TRUST_NOT_IN_STORE},
    {P | T, ON(SELF) | ON(SELF_OLD) | ON(SELF_ROOT), ON(PROVEN), ON(CARRIED) | ON(NOT_CARRIED),
     ON(UNLISTED), TRUST_AFTER_SWITCH},
    /* tls: a root alone is not enough, but with a name proven earlier. */
    {P | T, ON(ROOT), ON(NOT_PROVEN), ANY, ON(UNLISTED), TRUST_ONLY_ROOT},
    {P | T, ON(ROOT), ON(PROVEN), ON(NO_NAME), ON(UNLISTED), TRUST_ONLY_ROOT},
    {P | T, ON(ROOT), ON(PROVEN), ON(CARRIED), ON(UNLISTED), TRUST_PROVEN_NAME},
    {P | T, ON(ROOT), ON(PROVEN), ON(NOT_CARRIED), ON(UNLISTED), TRUST_WRONG_NAME},

    /* tls+password: a root and, if one is set, the name. What was proven earlier does not matter.
     */
    {TP, ON(SELF) | ON(SELF_OLD), ANY, ANY, ON(UNLISTED), TRUST_NOT_IN_STORE},
    {TP, ON(ROOT) | ON(SELF_ROOT), ANY, ON(NO_NAME) | ON(CARRIED), ON(UNLISTED), TRUST_ROOT},
    {TP, ON(ROOT) | ON(SELF_ROOT), ANY, ON(NOT_CARRIED), ON(UNLISTED), TRUST_WRONG_NAME},

    {ANY, ON(ROOT_OLD), ANY, ANY, ON(UNLISTED), TRUST_EXPIRED},
    {ANY, ON(UNKNOWN), ANY, ANY, ON(UNLISTED), TRUST_UNKNOWN_ISSUER},
};

static void one(unsigned auth, unsigned s, unsigned proof, unsigned name, unsigned listing)
{
    const enum trust_reason got = check(auth, s, proof, name, listing);
    unsigned matches = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!(rows[i].auth & ON(auth) && rows[i].situation & ON(s) && rows[i].proof & ON(proof) &&
              rows[i].name & ON(name) && rows[i].listing & ON(listing)))
            continue;
        matches++;
        if (got != rows[i].want)
            fail_msg("auth %u, situation %u, proven %u, name %u, listed %u: %s, not %s", auth, s,
                     proof, name, listing, trust_reason_name(got), trust_reason_name(rows[i].want));
    }
    if (matches != 1)
        fail_msg("auth %u, situation %u, proven %u, name %u, listed %u: %u rows", auth, s, proof,
                 name, listing, matches);
}

static void test_every_combination(void **state)
{
    (void)state;
    unsigned n = 0;
    for (unsigned auth = 0; auth <= LINK_AUTH_TLS_PASSWORD; auth++)
        for (unsigned s = 0; s < SITUATION_COUNT; s++)
            for (unsigned proof = 0; proof <= PROVEN; proof++)
                for (unsigned name = 0; name <= NOT_CARRIED; name++)
                    for (unsigned listing = 0; listing < LISTING_COUNT; listing++, n++)
                        one(auth, s, proof, name, listing);
    assert_int_equal(n, 3 * SITUATION_COUNT * 2 * 3 * LISTING_COUNT);
}

/* A hash counts only in the list that it is of: keys here, certificates there, and in full. */
static void test_lists_are_not_mixed(void **state)
{
    (void)state;
    static const struct tls_name name = {TLS_NAME_DNS, "peer.lab"};
    const struct tls_peer p = peer_of(SELF, &name);
    const struct {
        struct key_hash h;
        bool list, store;
    } cases[] = {
        {hash(KEY_HASH_SHA1, 0x11), true, false},
        {hash(KEY_HASH_SHA256, 0x22), true, false},
        {hash(KEY_HASH_SHA256, 0x33), false, true},
        {hash(KEY_HASH_SHA1, 0x33), false, false},
        {hash(KEY_HASH_SHA1, 0x22), false, false},
        {hash(KEY_HASH_SHA256, 0x11), false, false},
        {hash(0, 0), false, false},
        {hash(5, 0x11), false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct link_trust t = {.auth = LINK_AUTH_TLS, .authlist = &cases[i].h, .nauthlist = 1};
        assert_int_equal(link_trust_check(&t, &p) == TRUST_AUTHLIST, cases[i].list);
        t = (struct link_trust){.auth = LINK_AUTH_TLS, .store = &cases[i].h, .nstore = 1};
        assert_int_equal(link_trust_check(&t, &p) == TRUST_STORE, cases[i].store);
    }
    /* One byte off. */
    for (unsigned at = 0; at < KEY_HASH_SHA256; at++) {
        struct key_hash h = hash(KEY_HASH_SHA256, 0x22);
        h.bytes[at] ^= 1;
        struct link_trust t = {.auth = LINK_AUTH_TLS, .authlist = &h, .nauthlist = 1};
        assert_int_equal(link_trust_check(&t, &p), TRUST_NOT_IN_STORE);
    }
}

static void test_reasons(void **state)
{
    (void)state;
    const enum trust_reason good[] = {TRUST_AUTHLIST, TRUST_STORE, TRUST_PROVEN_NAME, TRUST_ROOT};
    unsigned n = 0;
    for (unsigned r = 0; r <= TRUST_UNKNOWN_ISSUER; r++) {
        n += trust_ok(r);
        assert_true(strlen(trust_reason_text(r)) > 20);
        for (unsigned other = 0; other < r; other++) {
            assert_string_not_equal(trust_reason_name(r), trust_reason_name(other));
            assert_string_not_equal(trust_reason_text(r), trust_reason_text(other));
        }
    }
    assert_int_equal(n, sizeof good / sizeof good[0]);
    for (size_t i = 0; i < n; i++)
        assert_true(trust_ok(good[i]));
}

/* ---- key hashes ------------------------------------------------------------------------------ */

#define H20 "0123456789abcdef0123456789ABCDEF01234567"
#define H32 "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDEF"
#define C20 "01:23:45:67:89:ab:cd:ef:01:23:45:67:89:AB:CD:EF:01:23:45:67"
#define B32                                                                                        \
    "01 23 45 67 89 ab cd ef 01 23 45 67 89 AB CD EF 01 23 45 67 89 ab cd ef 01 23 45 67 89 AB "   \
    "CD EF"
#define NOT_A_HASH                                                                                 \
    "not a key hash: only hex digits, colons and blanks, after an optional sha1: or sha256:"
#define WRONG_LENGTH "wrong number of hex digits: SHA-1 has 40, SHA-256 has 64"

static void test_key_hash_parse(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        unsigned n; /* 0: refused */
        const char *why;
    } cases[] = {
        {STR(H20), 20, NULL},
        {STR(H32), 32, NULL},
        {STR(C20), 20, NULL},
        {STR(B32), 32, NULL},
        {STR("sha1:" H20), 20, NULL},
        {STR("SHA1: " C20), 20, NULL},
        {STR("Sha-1:" H20), 20, NULL},
        {STR("sha256:" H32), 32, NULL},
        {STR("SHA-256: " B32), 32, NULL},
        {STR(" \t" H32 "\r\n"), 32, NULL},
        {STR("  key SHA-1: " C20), 20, NULL}, /* as --auth-info prints it */
        {STR("Key  SHA-256: " B32 "\n"), 32, NULL},
        {STR("key " H32), 32, NULL},
        {STR("key "), 0, NOT_A_HASH},
        {STR("key SHA-256: " C20), 0, "sha256: has 64 hex digits, these are 40"},
        {STR("key" H32), 0, NOT_A_HASH},
        {STR("key key SHA-1: " H20), 0, NOT_A_HASH},
        {STR("certificate SHA-256: " H32), 0, NOT_A_HASH},
        {STR("0123456789abcdef 0123456789ABCDEF\t01234567"), 20, NULL},
        {STR(""), 0, WRONG_LENGTH},
        {STR(":"), 0, WRONG_LENGTH},
        {STR("sha1:"), 0, WRONG_LENGTH},
        {STR("0123456789abcdef0123456789ABCDEF0123456"), 0, WRONG_LENGTH},
        {STR(H20 "8"), 0, WRONG_LENGTH},
        {STR(H20 "89"), 0, WRONG_LENGTH},
        {STR("0123456789abcdef0123456789ABCDEF"), 0, WRONG_LENGTH}, /* MD5 */
        {STR(H32 "0"), 0, WRONG_LENGTH},
        {STR(H32 H32), 0, WRONG_LENGTH}, /* SHA-512 */
        {STR("sha1:" H32), 0, "sha1: has 40 hex digits, these are 64"},
        {STR("sha256:" H20), 0, "sha256: has 64 hex digits, these are 40"},
        {STR("sha512:" H32 H32), 0, NOT_A_HASH},
        {STR("md5:" H20), 0, NOT_A_HASH},
        {STR("sha1:sha1:" H20), 0, NOT_A_HASH},
        {STR("sha1" H20), 0, NOT_A_HASH},
        {STR("0x" H20), 0, NOT_A_HASH},
        {STR("g123456789abcdef0123456789ABCDEF01234567"), 0, NOT_A_HASH},
        {STR("0123456789abcdef0123456789ABCDEF0123456\0"), 0, NOT_A_HASH},
        {STR(H20 "\n" H20), 0, NOT_A_HASH},
        {STR("01-23-45-67-89-ab-cd-ef-01-23-45-67-89-AB-CD-EF-01-23-45-67"), 0, NOT_A_HASH},
        {STR("\303\251"), 0, NOT_A_HASH},
        {STR("ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8="), 0, NOT_A_HASH}, /* base64 */
        {STR_NONE, 0, WRONG_LENGTH},
    };
    unsigned char want[32];
    for (unsigned i = 0; i < sizeof want; i++)
        want[i] = (unsigned char[]){0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}[i % 8];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct key_hash h;
        const char *why = NULL;
        if (key_hash_parse(cases[i].text, &h, &why) != (cases[i].n > 0))
            fail_msg("\"%.*s\": %s", STR_ARG(cases[i].text), why ? why : "accepted");
        if (cases[i].n == 0) {
            assert_string_equal(why, cases[i].why);
            continue;
        }
        assert_null(why);
        assert_int_equal(h.n, cases[i].n);
        assert_memory_equal(h.bytes, want, h.n);
    }
}

static void test_key_hash_text(void **state)
{
    (void)state;
    struct key_hash a, b;
    const char *why = NULL;
    char text[KEY_HASH_TEXT_MAX];
    assert_true(key_hash_parse(STR(H32), &a, &why));
    key_hash_text(text, a.bytes, a.n);
    assert_string_equal(text, "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:"
                              "CD:EF:01:23:45:67:89:AB:CD:EF");
    assert_true(key_hash_parse(str_c(text), &b, &why));
    assert_true(key_hash_eq(&a, &b));
    assert_true(key_hash_parse(STR(H20), &b, &why));
    assert_false(key_hash_eq(&a, &b));
    key_hash_text(text, b.bytes, b.n);
    assert_int_equal(strlen(text), 59);
    key_hash_text(text, NULL, 0);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination), cmocka_unit_test(test_lists_are_not_mixed),
        cmocka_unit_test(test_reasons),           cmocka_unit_test(test_key_hash_parse),
        cmocka_unit_test(test_key_hash_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
