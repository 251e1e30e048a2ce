/* XEP-0185 keys and XEP-0220 elements. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/mem.h"
#include "gateway/proto/dialback.h"

/* The vectors of XEP-0185 section 3, XEP-0220 2.1.1 and 2.2.2. */
static const struct {
    const char *secret, *receiving, *originating, *id, *key;
} vectors[] = {
    {"s3cr3tf0rd14lb4ck", "xmpp.example.com", "example.org", "D60000229F",
     "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"},
    {"s3cr3tf0rd14lb4ck", "montague.example", "capulet.example", "D60000229F",
     "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"},
    {"d14lb4ck43v3r", "capulet.example", "montague.example", "417GAF25",
     "225cc5aa6a071133249d25fef42ae516fc7a86c523aa1c6980a7f73e784c972d"},
};

static void test_keys(void **state)
{
    (void)state;
    char key[DIALBACK_KEY_HEX + 1];
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        assert_true(dialback_key(key, str_c(vectors[i].secret), str_c(vectors[i].receiving),
                                 str_c(vectors[i].originating), str_c(vectors[i].id)));
        assert_string_equal(key, vectors[i].key);
    }
    mem_fail_after(1);
    bool made = dialback_key(key, STR("s"), STR("a"), STR("b"), STR("c"));
    mem_fail_after(0);
    assert_false(made);
}

static void test_check(void **state)
{
    (void)state;
    char older[] = "s3cr3tf0rd14lb4ck", oldest[] = "x";
    char *const previous[] = {oldest, older};
    const struct dialback_secrets now = {older, NULL, 0}, rotated = {"new", previous, 2},
                                  other = {"new", previous, 1};
    const struct str key = str_c(vectors[0].key), r = str_c(vectors[0].receiving),
                     o = str_c(vectors[0].originating), id = str_c(vectors[0].id);
    assert_true(dialback_check(&now, key, r, o, id));
    assert_true(dialback_check(&rotated, key, r, o, id));
    assert_false(dialback_check(&other, key, r, o, id));
    assert_false(dialback_check(&now, key, o, r, id)); /* the roles are not exchangeable */
    assert_false(dialback_check(&now, key, r, o, STR("D60000229f")));
    assert_false(dialback_check(&now, (struct str){key.p, key.n - 1}, r, o, id));
    assert_false(dialback_check(&now, STR(""), r, o, id));
    assert_false(dialback_check(&now, STR_NONE, r, o, id));
}

/* Where one part ends and the next begins is part of the key. */
static void test_no_ambiguity(void **state)
{
    (void)state;
    char a[DIALBACK_KEY_HEX + 1], b[DIALBACK_KEY_HEX + 1];
    assert_true(dialback_key(a, STR("s"), STR("example.in"), STR("form.example.org"), STR("1")));
    assert_true(dialback_key(b, STR("s"), STR("example.inform"), STR("example.org"), STR("1")));
    assert_string_not_equal(a, b);
}

/* For operators to compare: the same for the same, and nothing of the secret or its hash in it. */
static void test_fingerprint(void **state)
{
    (void)state;
    char a[DIALBACK_FINGERPRINT], b[DIALBACK_FINGERPRINT];
    assert_true(dialback_fingerprint(a, STR("s3cr3tf0rd14lb4ck")));
    assert_true(dialback_fingerprint(b, STR("s3cr3tf0rd14lb4ck")));
    /* (printf 'sallyport dialback secret '; printf s3cr3tf0rd14lb4ck | sha256sum | head -c 64) |
     * sha256sum | head -c 16 */
    assert_string_equal(a, "73:9D:70:F3:3B:2E:30:E7");
    assert_string_equal(a, b);
    assert_true(dialback_fingerprint(b, STR("s3cr3tf0rd14lb4cK")));
    assert_string_not_equal(a, b);
}

/* ---- elements -------------------------------------------------------------------------------- */

static struct framer *framer;

static const struct nonza *parse(const char *xml)
{
    struct framer_event ev;
    framer_free(framer);
    framer = framer_new(CONTENT_SERVER, &framer_limits_unauthenticated);
    assert_non_null(framer);
    assert_true(framer_feed(framer, STR("<s:stream xmlns='jabber:server' "
                                        "xmlns:s='http://etherx.jabber.org/streams' "
                                        "xmlns:db='jabber:server:dialback'>")));
    assert_int_equal(framer_next(framer, &ev), FRAMER_EVENT);
    assert_true(framer_feed(framer, str_c(xml)));
    assert_int_equal(framer_next(framer, &ev), FRAMER_EVENT);
    assert_int_equal(ev.kind, FRAMER_NONZA);
    return ev.nonza;
}

static int drop_framer(void **state)
{
    (void)state;
    framer_free(framer);
    framer = NULL;
    return 0;
}

#define ERR(inside) "<db:result from='a' to='b' type='error'>" inside "</db:result>"
#define NS          "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'"

static void test_read(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        enum dialback_kind kind;
        enum dialback_type type;
        const char *condition;
    } rows[] = {
        {"<db:result from='a' to='b'>k</db:result>", DIALBACK_RESULT, DIALBACK_REQUEST, NULL},
        {"<db:verify from='a' to='b' id='i'>k</db:verify>", DIALBACK_VERIFY, DIALBACK_REQUEST,
         NULL},
        {"<result xmlns='jabber:server:dialback' type='valid'/>", DIALBACK_RESULT, DIALBACK_VALID,
         NULL},
        {"<db:verify type='invalid'/>", DIALBACK_VERIFY, DIALBACK_INVALID, NULL},
        {"<db:verify type='Valid'/>", DIALBACK_VERIFY, DIALBACK_ERROR, "undefined-condition"},
        {"<db:verify type=''/>", DIALBACK_VERIFY, DIALBACK_ERROR, "undefined-condition"},
        {"<db:verify type='valid '/>", DIALBACK_VERIFY, DIALBACK_ERROR, "undefined-condition"},
        {"<db:result xmlns:x='u' x:type='valid'>k</db:result>", DIALBACK_RESULT, DIALBACK_REQUEST,
         NULL},
        {ERR("<error type='cancel'><item-not-found " NS "/></error>"), DIALBACK_RESULT,
         DIALBACK_ERROR, "item-not-found"},
        {ERR("<error><text " NS ">hm</text><forbidden " NS "/></error>"), DIALBACK_RESULT,
         DIALBACK_ERROR, "forbidden"},
        {ERR("<error/><x><forbidden " NS "/></x>"), DIALBACK_RESULT, DIALBACK_ERROR,
         "undefined-condition"},
        {ERR("<error><x><forbidden " NS "/></x></error>"), DIALBACK_RESULT, DIALBACK_ERROR,
         "undefined-condition"},
        {"<db:other/>", DIALBACK_NOT, DIALBACK_REQUEST, NULL},
        {"<result xmlns='jabber:server'/>", DIALBACK_NOT, DIALBACK_REQUEST, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct dialback_element e = dialback_read(parse(rows[i].xml));
        assert_int_equal(e.kind, rows[i].kind);
        assert_int_equal(e.type, rows[i].type);
        assert_true(rows[i].condition ? str_is(e.condition, rows[i].condition)
                                      : e.condition.p == NULL);
    }
    struct dialback_element e =
        dialback_read(parse("<db:verify from='a&amp;' to='b' id='&lt;'>\n\t k k \r\n</db:verify>"));
    assert_true(str_is(e.from, "a&") && str_is(e.to, "b") && str_is(e.id, "<"));
    assert_true(str_is(e.key, "k k"));
    e = dialback_read(parse("<db:result/>"));
    assert_true(e.from.p == NULL && e.to.p == NULL && e.id.p == NULL && e.key.n == 0);
}

static void test_write(void **state)
{
    (void)state;
    static const struct {
        struct dialback_text t;
        const char *xml;
    } rows[] = {
        {{DIALBACK_RESULT, {"a", 1}, {"b", 1}, {NULL, 0}, {"<k>", 3}, NULL, NULL},
         "<db:result from='a' to='b'>&lt;k&gt;</db:result>"},
        {{DIALBACK_VERIFY, {"a", 1}, {"b", 1}, {"'", 1}, {NULL, 0}, "valid", NULL},
         "<db:verify from='a' to='b' id='&apos;' type='valid'/>"},
        {{DIALBACK_VERIFY, {"a", 1}, {NULL, 0}, {NULL, 0}, {NULL, 0}, "valid", "forbidden"},
         "<db:verify from='a' type='error'><error type='cancel'><forbidden " NS
         "/></error></db:verify>"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = BUF_INIT(1024);
        dialback_write(&b, &rows[i].t);
        assert_string_equal(b.p, rows[i].xml);
        struct dialback_element e = dialback_read(parse(b.p)); /* and it reads the same */
        assert_int_equal(e.kind, rows[i].t.kind);
        assert_true(str_eq(e.from, rows[i].t.from) && str_eq(e.id, rows[i].t.id) &&
                    str_eq(e.key, rows[i].t.key));
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_no_ambiguity),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test_teardown(test_read, drop_framer),
        cmocka_unit_test_teardown(test_write, drop_framer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
