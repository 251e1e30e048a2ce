/* SASL DIGEST-MD5 and base64. The expected digests are those of RFC 2831 section 4, and of a few
 * lines of Python (hashlib) that follow its section 2.1.2.1. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/base64.h"
#include "core/base/mem.h"
#include "xcp/digest_md5.h"

static const struct digest_md5_login chris = {.user = {"chris", 5},
                                              .secret = {"secret", 6},
                                              .uri = {"imap/elwood.innosoft.com", 24},
                                              .cnonce = {"OA6MHXh6VqTrRk", 14}};
static const char rfc_challenge[] =
    "realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",qop=\"auth\",algorithm=md5-sess,"
    "charset=utf-8";

static void test_md5(void **state)
{
    static const struct {
        const char *text, *hex;
    } row[] = {/* RFC 1321 A.5 */
               {"", "d41d8cd98f00b204e9800998ecf8427e"},
               {"abc", "900150983cd24fb0d6963f7d28e17f72"},
               {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"}};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        unsigned char raw[DIGEST_MD5];
        char hex[DIGEST_MD5_HEX + 1];
        size_t half = strlen(row[i].text) / 2;
        const struct str parts[] = {{row[i].text, half}, str_c(row[i].text + half)};
        assert_true(digest_md5(raw, parts, 2));
        digest_hex(hex, raw, sizeof raw);
        assert_string_equal(hex, row[i].hex);
    }
}

static void test_rfc(void **state)
{
    struct buf b = BUF_INIT(4096);
    struct digest_md5 d;
    const char *why = NULL;
    (void)state;
    assert_true(digest_md5_respond(&d, &chris, str_c(rfc_challenge), &b, &why));
    assert_string_equal(b.p, "charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\","
                             "nonce=\"OA6MG9tEQGm2hh\",nc=00000001,cnonce=\"OA6MHXh6VqTrRk\","
                             "digest-uri=\"imap/elwood.innosoft.com\","
                             "response=d388dad90d4bbd760a152321f2143af7,qop=auth");
    assert_string_equal(d.rspauth, "ea40f60335c427b5527b84dbabcdfffd");
    buf_free(&b);
}

static void test_proof(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } row[] = {
        {"rspauth=ea40f60335c427b5527b84dbabcdfffd", true},
        {"rspauth=\"ea40f60335c427b5527b84dbabcdfffd\"", true},
        {" RspAuth = ea40f60335c427b5527b84dbabcdfffd , other=1,", true},
        {"rspauth=ea40f60335c427b5527b84dbabcdfffe", false},
        {"rspauth=EA40F60335C427B5527B84DBABCDFFFD", false},
        {"rspauth=ea40f60335c427b5527b84dbabcdfff", false},
        {"rspauth=", false},
        {"rspauth=\"\"", false},
        {"", false},
        {"other=ea40f60335c427b5527b84dbabcdfffd", false},
        {"rspauth=ea40f60335c427b5527b84dbabcdfffd,rspauth=1", false},
        {"rspauth=ea40f60335c427b5527b84dbabcdfffd,=", false},
        {"rspauth=ea40f60335c427b5527b84dbabcdfffd,x", false},
        {"rspauth=d388dad90d4bbd760a152321f2143af7", false}, /* our own response */
    };
    struct buf b = BUF_INIT(4096);
    struct digest_md5 d = {.responded = false};
    const char *why = NULL;
    (void)state;
    assert_false(digest_md5_proven(&d, STR("rspauth=")));
    assert_true(digest_md5_respond(&d, &chris, str_c(rfc_challenge), &b, &why));
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        if (digest_md5_proven(&d, str_c(row[i].text)) != row[i].ok)
            fail_msg("%s", row[i].text);
    buf_free(&b);
}

#define GOOD "nonce=\"n\",algorithm=md5-sess"

static void test_challenges(void **state)
{
    static const struct {
        const char *text, *why; /* NULL: it is good */
    } row[] = {
        {GOOD, NULL},
        {GOOD ",qop=\"auth-int,auth\",charset=utf-8,maxbuf=65536,cipher=\"x\",new=thing", NULL},
        {" , NONCE = \"n\" ,, Algorithm=MD5-SESS , qop=auth,charset=UTF-8 ,", NULL},
        {GOOD ",realm=\"a\",realm=\"b\"", NULL},
        {"", "nonce"},
        {"algorithm=md5-sess", "nonce"},
        {GOOD ",nonce=\"m\"", "nonce"},
        {"nonce=\"\",algorithm=md5-sess", "nonce"},
        {"nonce=\"n\"", "md5-sess"},
        {"nonce=\"n\",algorithm=md5", "md5-sess"},
        {GOOD ",algorithm=md5-sess", "md5-sess"},
        {GOOD ",qop=\"auth-int,auth-conf\"", "qop"},
        {GOOD ",qop=\"\"", "qop"},
        {GOOD ",charset=iso-8859-1", "charset"},
        {GOOD ",charset=utf-8,charset=utf-8", "charset"},
        {GOOD ",realm=\"open", "malformed"},
        {GOOD ",realm=\"open\\\"", "malformed"},
        {GOOD ",realm", "malformed"},
        {GOOD ",realm=", "malformed"},
        {GOOD ",=x", "malformed"},
        {GOOD ",realm=\"a\"b", "malformed"},
        {GOOD ",\"x\"", "malformed"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf b = BUF_INIT(4096);
        struct digest_md5 d;
        const char *why = NULL;
        bool ok = digest_md5_respond(&d, &chris, str_c(row[i].text), &b, &why);
        if (ok != (row[i].why == NULL) || (!ok && (why == NULL || !strstr(why, row[i].why))))
            fail_msg("%s: %s", row[i].text, why ? why : "good");
        assert_int_equal(d.responded, ok);
        buf_free(&b);
    }
}

/* Length and number of directives are limited. */
static void test_large(void **state)
{
    struct buf c = BUF_INIT(1 << 16), b = BUF_INIT(4096);
    struct digest_md5 d;
    const char *why = NULL;
    (void)state;
    buf_puts(&c, GOOD);
    for (int i = 0; i < 62; i++)
        buf_puts(&c, ",a=b");
    assert_true(digest_md5_respond(&d, &chris, buf_view(&c), &b, &why));
    buf_puts(&c, ",a=b");
    assert_false(digest_md5_respond(&d, &chris, buf_view(&c), &b, &why));
    assert_non_null(strstr(why, "too many"));
    buf_clear(&c);
    buf_puts(&c, GOOD ",realm=\"");
    while (c.len < DIGEST_MD5_CHALLENGE_MAX)
        buf_putc(&c, 'x');
    buf_puts(&c, "\"");
    assert_false(digest_md5_respond(&d, &chris, buf_view(&c), &b, &why));
    assert_non_null(strstr(why, "too long"));
    buf_free(&c);
    buf_free(&b);
}

/* What is hashed is unquoted, and in ISO 8859-1 where it fits (2.1.2.1). */
static void test_spelling(void **state)
{
    static const struct {
        const char *user, *secret, *challenge, *response, *quoted;
    } row[] = {
        {"j\xc3\xb6rg",
         "s\xc3\xa9"
         "cret",
         GOOD ",realm=\"r\"", "e38d43b8d3b04a3e49155487eff4c33f", "username=\"j\xc3\xb6rg\""},
        {"j\xc3\xb6rg", "\xe2\x82\xac", GOOD ",realm=r", "7f5347aeed7ebc0fe5e127ecdfc2a0b2",
         "realm=\"r\""},
        {"a\"b\\c", "p", "realm=\"x\\\"y\",nonce=\"n\\\"o\",algorithm=md5-sess",
         "2445028ebe9e491be59379175b849cec",
         "username=\"a\\\"b\\\\c\",realm=\"x\\\"y\",nonce=\"n\\\"o\""},
        {"u", "p", GOOD, "a4ebd0c4919aa8d68aa248892d00bc70", "realm=\"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf b = BUF_INIT(4096);
        struct digest_md5 d;
        const char *why = NULL;
        struct digest_md5_login login = {.user = str_c(row[i].user),
                                         .secret = str_c(row[i].secret),
                                         .uri = STR("s/h"),
                                         .cnonce = STR("c")};
        assert_true(digest_md5_respond(&d, &login, str_c(row[i].challenge), &b, &why));
        if (strstr(b.p, row[i].response) == NULL || strstr(b.p, row[i].quoted) == NULL)
            fail_msg("%s", b.p);
        buf_free(&b);
    }
}

static void test_no_memory(void **state)
{
    unsigned long n = 0;
    (void)state;
    for (bool done = false; !done; n++) {
        struct buf b = BUF_INIT(4096);
        struct digest_md5 d;
        const char *why = "unset";
        mem_fail_after(n + 1);
        done = digest_md5_respond(&d, &chris, str_c(rfc_challenge), &b, &why);
        mem_fail_after(0);
        assert_null(why);
        buf_free(&b);
    }
    assert_in_range(n, 3, 50);
}

/* ---- base64 ---------------------------------------------------------------------------------- */

static void test_base64(void **state)
{
    static const struct {
        const char *plain, *coded;
    } row[] = {/* RFC 4648 10 */
               {"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"},
               {"\xff\xfe\xfd", "//79"},
               {"\xfb\xef\xbe", "++++"}};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf b = BUF_INIT(64);
        base64_write(&b, str_c(row[i].plain));
        assert_true(str_is(buf_view(&b), row[i].coded));
        buf_clear(&b);
        assert_true(base64_read(&b, str_c(row[i].coded)));
        assert_true(str_is(buf_view(&b), row[i].plain));
        buf_free(&b);
    }
}

static void test_base64_all_bytes(void **state)
{
    char all[259];
    struct buf coded = BUF_INIT(1024), plain = BUF_INIT(1024);
    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    for (size_t n = 0; n <= sizeof all; n++) {
        buf_clear(&coded);
        buf_clear(&plain);
        base64_write(&coded, (struct str){all, n});
        assert_true(base64_read(&plain, buf_view(&coded)));
        assert_true(str_eq(buf_view(&plain), (struct str){all, n}));
    }
    buf_free(&coded);
    buf_free(&plain);
}

static void test_base64_bad(void **state)
{
    static const char *const row[] = {
        "Z",    "Zg",       "Zg=",    "Zg=A", "=g==", "Z===",  "====",      "Zh==",
        "Zm9=", "Zg==Zg==", "Zm9v\n", " m9v", "Zm-_", "Zm9vZ", "Z\xc3\xa9v"};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf b = BUF_INIT(64);
        if (base64_read(&b, str_c(row[i])))
            fail_msg("%s", row[i]);
        buf_free(&b);
    }
    struct buf b = BUF_INIT(64), full = BUF_INIT(2);
    assert_false(base64_read(&b, STR("Zm\0v")));
    assert_false(base64_read(&full, STR("Zm9v")));
    buf_free(&b);
    buf_free(&full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_md5),
        cmocka_unit_test(test_rfc),
        cmocka_unit_test(test_proof),
        cmocka_unit_test(test_challenges),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_spelling),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_base64_all_bytes),
        cmocka_unit_test(test_base64_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
