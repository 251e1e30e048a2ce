#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "xcp/handshake.h"

/* The stream id is the one of XEP-0114's example; the digest is what `printf 3BF96D32secret |
 * sha1sum` says. */
static const char vector[] = "b09ea9b3b7f586be8a08d0a3dd7466f110aeb136";

static void test_digest(void **state)
{
    (void)state;
    char hex[DIGEST_SHA1_HEX + 1];
    assert_true(handshake_digest(hex, STR("3BF96D32"), STR("secret")));
    assert_string_equal(hex, vector);
    assert_true(handshake_digest(hex, STR(""), STR("")));
    assert_string_equal(hex, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
}

static void test_check(void **state)
{
    (void)state;
    struct str id = STR("3BF96D32"), secret = STR("secret");
    assert_true(handshake_check(id, secret, str_c(vector)));
    assert_true(handshake_check(id, secret, STR("\n  b09ea9b3b7f586be8a08d0a3dd7466f110aeb136 ")));
    assert_false(handshake_check(id, secret, STR("b09ea9b3b7f586be8a08d0a3dd7466f110aeb13X")));
    assert_false(handshake_check(id, secret, STR("B09EA9B3B7F586BE8A08D0A3DD7466F110AEB136")));
    assert_false(handshake_check(id, secret, STR("b09ea9b3b7f586be8a08d0a3dd7466f110aeb13")));
    assert_false(handshake_check(id, secret, STR("")));
    assert_false(handshake_check(id, secret, STR_NONE));
    assert_false(handshake_check(STR("3BF96D33"), secret, str_c(vector)));
    assert_false(handshake_check(id, STR("Secret"), str_c(vector)));
}

static void test_texts(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    handshake_write_client_header(&b, STR("gw.local.test"));
    assert_string_equal(b.p, "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
                             "xmlns:stream='http://etherx.jabber.org/streams' to='gw.local.test'>");
    buf_clear(&b);
    handshake_write_server_header(&b, STR_NONE, STR("a'b"));
    assert_non_null(strstr(b.p, "streams' id='a&apos;b'>"));
    assert_null(strstr(b.p, " from="));
    buf_clear(&b);
    assert_true(handshake_write(&b, STR("3BF96D32"), STR("secret")));
    assert_string_equal(b.p, "<handshake>b09ea9b3b7f586be8a08d0a3dd7466f110aeb136</handshake>");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
