#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/xml/jid.h"

static void good_domains(void **state)
{
    static const struct {
        const char *in, *ascii, *wire;
    } row[] = {
        {"coluc.com", "coluc.com", "coluc.com"},
        {"COLUC.Com", "coluc.com", "coluc.com"},
        {"coluc.com.", "coluc.com", "coluc.com"},
        {"localhost", "localhost", "localhost"},
        {"3com.example", "3com.example", "3com.example"},
        {"1.2.3.4.example", "1.2.3.4.example", "1.2.3.4.example"},
        {"b\xC3\xBC" "cher.example", "xn--bcher-kva.example", "b\xC3\xBC" "cher.example"},
        {"B\xC3\x9C" "CHER.example.", "xn--bcher-kva.example", "b\xC3\xBC" "cher.example"},
        {"bu\xCC\x88" "cher.example", "xn--bcher-kva.example", "b\xC3\xBC" "cher.example"},
        {"fa\xC3\x9F.de", "xn--fa-hia.de", "fa\xC3\x9F.de"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example", "b\xC3\xBC" "cher.example"},
        {"XN--BCHER-KVA.example", "xn--bcher-kva.example", "b\xC3\xBC" "cher.example"},
        {"b\xC3\xBC" "cher\xE3\x80\x82" "example", "xn--bcher-kva.example",
         "b\xC3\xBC" "cher.example"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct domain d, again;
        char ascii[DOMAIN_MAX + 1];
        assert_true(domain_prepare(str_c(row[i].in), &d));
        assert_string_equal(d.ascii, row[i].ascii);
        assert_string_equal(d.wire, row[i].wire);
        assert_true(domain_ascii(str_c(row[i].in), ascii));
        assert_string_equal(ascii, row[i].ascii);
        assert_true(domain_prepare(str_c(d.wire), &again));
        assert_string_equal(again.ascii, d.ascii);
        assert_true(domain_prepare(str_c(d.ascii), &again));
        assert_string_equal(again.wire, d.wire);
    }
}

static void bad_domains(void **state)
{
    static const char *const row[] = {
        "", ".", "..", "a..b", ".a", "a b.example", " a.example", "a_b.example", "-a.example",
        "a-.example", "ab--cd.example", "127.0.0.1", "127.1", "10", "0x7f000001", "a.0x1",
        "127.0.0.1.", "::1", "[::1]", "a@b", "a/b", "a\tb", "xn--zzzzzz999.example", "xn--.example",
        "\xE2\x98\x83.example", "\xF0\x9F\x98\x80.example", "\xE3\x80\x82" "com",
        "\xFF.example", "b\xC3.example", "\xC3\xBC_b.example", "\xC3\xBC b.example",
        "\xC3\xBC..example", "\xEF\xBC\x91\xEF\xBC\x92\xEF\xBC\x97.0.0.1",
        "a\xEF\xBC\x8F" "b.example", "a\xEF\xBC\xA0" "b.example", "a.example..",
        "\xC3\xBC.example..",
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct domain d;
        char ascii[DOMAIN_MAX + 1];
        if (domain_prepare(str_c(row[i]), &d) || domain_ascii(str_c(row[i]), ascii))
            fail_msg("accepted: %s", row[i]);
    }
    struct domain d;
    assert_false(domain_prepare(STR_NONE, &d));
    assert_false(domain_prepare(STR("a\0b.example"), &d));
    assert_false(domain_prepare(STR("\xC3\xBC\0b.example"), &d));
}

/* A name of `labels` labels of `each` letters. */
static struct str long_name(char *out, size_t labels, size_t each)
{
    size_t n = 0;
    for (size_t i = 0; i < labels; i++) {
        memset(out + n, 'a', each);
        n += each;
        out[n++] = '.';
    }
    return (struct str){out, n - 1};
}

static void lengths(void **state)
{
    char text[4096];
    struct domain d;
    (void)state;
    assert_true(domain_prepare(long_name(text, 1, 63), &d));
    assert_false(domain_prepare(long_name(text, 1, 64), &d));
    assert_true(domain_prepare(long_name(text, 127, 1), &d)); /* 253 bytes */
    assert_int_equal(strlen(d.ascii), 253);
    assert_false(domain_prepare(long_name(text, 128, 1), &d));
    assert_false(domain_prepare(long_name(text, 1000, 1), &d));
    memcpy(text, "\xC3\xBC", 2);
    text[2] = '.';
    for (size_t i = 3; i < sizeof text; i++)
        text[i] = i % 2 ? 'a' : '.';
    assert_false(domain_prepare((struct str){text, 1500}, &d));
    assert_false(domain_prepare((struct str){text, 900}, &d));
}

static void splits(void **state)
{
    static const struct {
        const char *in, *local, *domain, *resource;
    } row[] = {
        {"a.lab", NULL, "a.lab", NULL},          {"u@a.lab", "u", "a.lab", NULL},
        {"u@a.lab/r", "u", "a.lab", "r"},        {"a.lab/b@c", NULL, "a.lab", "b@c"},
        {"u@a.lab/r/s@t", "u", "a.lab", "r/s@t"}, {"u@v@a.lab", "u", "v@a.lab", NULL},
        {"@a.lab", "", "a.lab", NULL},           {"u@", "u", "", NULL},
        {"a.lab/", NULL, "a.lab", ""},           {"/", NULL, "", ""},
        {"", NULL, "", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct jid j = jid_split(str_c(row[i].in));
        assert_true(str_is(j.domain, row[i].domain));
        assert_int_equal(j.local.p == NULL, row[i].local == NULL);
        assert_int_equal(j.resource.p == NULL, row[i].resource == NULL);
        assert_true(j.local.p == NULL || str_is(j.local, row[i].local));
        assert_true(j.resource.p == NULL || str_is(j.resource, row[i].resource));
    }
}

static void verdicts(void **state)
{
    static const struct {
        const char *in;
        enum jid_verdict want;
    } row[] = {
        {"u@a.lab/r", JID_OK},
        {"A.LAB", JID_OK},
        {"U.x!#$%*+-=?^_`{|}~@a.lab", JID_OK},
        {"\xE2\x98\x83@a.lab/\xF0\x9F\x98\x80 with space", JID_OK},
        {"a.lab/b@c/d", JID_OK},
        {"", JID_BAD_DOMAIN},
        {"u@", JID_BAD_DOMAIN},
        {"u@/r", JID_BAD_DOMAIN},
        {"u@v@a.lab", JID_BAD_DOMAIN},
        {"u@a b", JID_BAD_DOMAIN},
        {"u@127.0.0.1", JID_BAD_DOMAIN},
        {"@a.lab", JID_BAD_PART},
        {"a.lab/", JID_BAD_PART},
        {"u v@a.lab", JID_BAD_PART},
        {"u\xC2\xA0v@a.lab", JID_BAD_PART},
        {"u\xE3\x80\x80v@a.lab", JID_BAD_PART},
        {"u\xC2\x85@a.lab", JID_BAD_PART},
        {"\"u\"@a.lab", JID_BAD_PART},
        {"u&v@a.lab", JID_BAD_PART},
        {"u'v@a.lab", JID_BAD_PART},
        {"u:v@a.lab", JID_BAD_PART},
        {"<u>@a.lab", JID_BAD_PART},
        {"u\tv@a.lab", JID_BAD_PART},
        {"u\x7F@a.lab", JID_BAD_PART},
        {"u\xFF@a.lab", JID_BAD_PART},
        {"a.lab/r\n", JID_BAD_PART},
        {"a.lab/\xC3", JID_BAD_PART},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct jid j;
        struct domain d;
        if (jid_prepare(str_c(row[i].in), &j, &d) != row[i].want)
            fail_msg("wrong verdict: %s", row[i].in);
        if (row[i].want != JID_BAD_DOMAIN)
            assert_string_equal(d.ascii, "a.lab");
    }
}

static void part_lengths(void **state)
{
    char text[2 * JID_PART_MAX + 16];
    struct jid j;
    struct domain d;
    (void)state;
    for (size_t n = JID_PART_MAX; n <= JID_PART_MAX + 1; n++) {
        enum jid_verdict want = n == JID_PART_MAX ? JID_OK : JID_BAD_PART;
        memset(text, 'u', n);
        memcpy(text + n, "@a.lab", 6);
        assert_int_equal(jid_prepare((struct str){text, n + 6}, &j, &d), want);
        memcpy(text, "a.lab/", 6);
        memset(text + 6, 'r', n);
        assert_int_equal(jid_prepare((struct str){text, n + 6}, &j, &d), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_domains), cmocka_unit_test(bad_domains), cmocka_unit_test(lengths),
        cmocka_unit_test(splits),       cmocka_unit_test(verdicts),
        cmocka_unit_test(part_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
