#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "dns/answer.h"
#include "tests/fake/dns_packet.h"

#define SRV_NAME "_xmpp-server._tcp.beta.lab"

/* From a block of exactly its size, so that the sanitizer sees the first byte read too far. */
static struct dns_answer read_bytes(struct str bytes, const char *name, enum dns_rr type)
{
    static struct dns_answer a;
    char *copy = malloc(bytes.n ? bytes.n : 1);
    assert_non_null(copy);
    if (bytes.n)
        memcpy(copy, bytes.p, bytes.n);
    dns_answer_read((struct str){copy, bytes.n}, str_c(name), type, &a);
    free(copy);
    return a;
}

static struct dns_answer read_pkt(const struct pkt *p, const char *name, enum dns_rr type)
{
    return read_bytes(pkt_view(p), name, type);
}

static void good_srv(struct pkt *p)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(p, SRV_NAME, 77, 10, 20, 5269, "XMPP1.Beta.LAB");
    pkt_srv(p, SRV_NAME, 60, 20, 0, 5270, "xmpp2.beta.lab");
    pkt_opt(p);
}

static void test_srv(void **state)
{
    (void)state;
    struct pkt p;
    good_srv(&p);
    struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
    assert_int_equal(a.kind, DNS_ANSWER_RECORDS);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.ttl, 60);
    assert_int_equal(a.u.srv[0].priority, 10);
    assert_int_equal(a.u.srv[0].weight, 20);
    assert_int_equal(a.u.srv[0].port, 5269);
    assert_string_equal(a.u.srv[0].target, "xmpp1.beta.lab");
    assert_string_equal(a.u.srv[1].target, "xmpp2.beta.lab");
    assert_int_equal(read_pkt(&p, "_XMPP-server._tcp.BETA.lab", DNS_RR_SRV).n, 2);
}

static void test_addresses(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, "h.lab", DNS_RR_A);
    pkt_a(&p, "H.lab", 5, "\x7f\x0\x0\x1");
    struct dns_answer a = read_pkt(&p, "h.lab", DNS_RR_A);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.u.ip[0].len, 4);
    assert_memory_equal(a.u.ip[0].bytes, "\x7f\x0\x0\x1", 4);

    pkt_response(&p, 1, 0, "h.lab", DNS_RR_AAAA);
    pkt_aaaa(&p, "h.lab", 5, "\x20\x1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1");
    pkt_aaaa(&p, "h.lab", 5, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\1");
    a = read_pkt(&p, "h.lab", DNS_RR_AAAA);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.u.ip[0].len, 16);
    assert_int_equal(a.u.ip[1].len, 4); /* mapped: an IPv4 address, for every list of networks */
    assert_memory_equal(a.u.ip[1].bytes, "\x0a\0\0\1", 4);
}

static void test_root_target(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_srv(&p, SRV_NAME, 9, 0, 0, 0, ".");
    struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
    assert_int_equal(a.n, 1);
    assert_string_equal(a.u.srv[0].target, "");
}

static void test_negative(void **state)
{
    (void)state;
    static const struct {
        unsigned rcode;
        const char *zone; /* NULL: no SOA */
        uint32_t ttl, minimum;
        enum dns_answer_kind kind;
        bool has;
        uint32_t expect;
    } row[] = {
        {0, NULL, 0, 0, DNS_ANSWER_NODATA, false, 0},
        {0, "lab", 300, 40, DNS_ANSWER_NODATA, true, 40},
        {3, "LAB", 20, 40, DNS_ANSWER_NXDOMAIN, true, 20},
        {3, ".", 20, 10, DNS_ANSWER_NXDOMAIN, true, 10},
        {3, "h.lab", 1, 2, DNS_ANSWER_NXDOMAIN, true, 1},
        {3, "other", 20, 10, DNS_ANSWER_NXDOMAIN, false, 0},
        {3, "ab", 20, 10, DNS_ANSWER_NXDOMAIN, false, 0}, /* a suffix, but not of labels */
        {2, NULL, 0, 0, DNS_ANSWER_REFUSED, false, 0},
        {5, "lab", 20, 10, DNS_ANSWER_REFUSED, false, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct pkt p;
        pkt_response(&p, 1, row[i].rcode, "h.lab", DNS_RR_A);
        if (row[i].zone)
            pkt_soa(&p, row[i].zone, row[i].ttl, row[i].minimum);
        struct dns_answer a = read_pkt(&p, "h.lab", DNS_RR_A);
        assert_int_equal(a.kind, row[i].kind);
        assert_int_equal(a.rcode, row[i].rcode);
        assert_int_equal(a.has_ttl, row[i].has);
        assert_int_equal(a.ttl, row[i].expect);
    }
}

static void test_soa_lies(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 3, "h.lab", DNS_RR_A);
    pkt_begin(&p, PKT_NS, "lab", 6, 50);
    pkt_name(&p, "ns.lab");
    pkt_end(&p);
    struct dns_answer a = read_pkt(&p, "h.lab", DNS_RR_A);
    assert_int_equal(a.kind, DNS_ANSWER_NXDOMAIN);
    assert_false(a.has_ttl);
}

static void chain(struct pkt *p, int hops, bool backwards)
{
    char from[24], to[24];
    pkt_response(p, 1, 0, "c0.lab", DNS_RR_A);
    for (int i = 0; i < hops; i++) {
        int at = backwards ? hops - 1 - i : i;
        snprintf(from, sizeof from, "c%d.lab", at);
        snprintf(to, sizeof to, "C%d.lab", at + 1);
        pkt_cname(p, from, (uint32_t)(100 - at), to);
    }
    snprintf(from, sizeof from, "c%d.lab", hops);
    pkt_a(p, from, 500, "\x7f\x0\x0\x9");
}

static void test_cname(void **state)
{
    (void)state;
    struct pkt p;
    for (int hops = 0; hops <= 10; hops++) {
        for (int backwards = 0; backwards < 2; backwards++) {
            chain(&p, hops, backwards);
            struct dns_answer a = read_pkt(&p, "c0.lab", DNS_RR_A);
            bool ok = hops <= DNS_CNAME_HOPS;
            assert_int_equal(a.kind, ok ? DNS_ANSWER_RECORDS : DNS_ANSWER_BAD);
            assert_int_equal(a.n, ok);
            if (ok)
                assert_int_equal(a.ttl, hops == 0 ? 500 : 101 - hops);
        }
    }
    pkt_response(&p, 1, 0, "a.lab", DNS_RR_A);
    pkt_cname(&p, "a.lab", 1, "b.lab");
    pkt_cname(&p, "b.lab", 1, "a.lab");
    assert_int_equal(read_pkt(&p, "a.lab", DNS_RR_A).kind, DNS_ANSWER_BAD);
    pkt_response(&p, 1, 0, "a.lab", DNS_RR_A);
    pkt_cname(&p, "a.lab", 1, "a.lab");
    assert_int_equal(read_pkt(&p, "a.lab", DNS_RR_A).kind, DNS_ANSWER_BAD);
    pkt_response(&p, 1, 0, "a.lab", DNS_RR_A);
    pkt_cname(&p, "a.lab", 1, "bad name");
    assert_int_equal(read_pkt(&p, "a.lab", DNS_RR_A).kind, DNS_ANSWER_BAD);
    pkt_response(&p, 1, 0, "a.lab", DNS_RR_A);
    pkt_cname(&p, "a.lab", 1, "elsewhere");
    assert_int_equal(read_pkt(&p, "a.lab", DNS_RR_A).kind, DNS_ANSWER_NODATA);
}

static void test_foreign_owner(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, "h.lab", DNS_RR_A);
    pkt_a(&p, "bank.example", 5, "\x7f\x0\x0\x1");
    pkt_a(&p, "x.h.lab", 5, "\x7f\x0\x0\x1");
    assert_int_equal(read_pkt(&p, "h.lab", DNS_RR_A).kind, DNS_ANSWER_NODATA);
    pkt_a(&p, "h.lab", 5, "\x7f\x0\x0\x2");
    struct dns_answer a = read_pkt(&p, "h.lab", DNS_RR_A);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.u.ip[0].bytes[3], 2);
    pkt_set16(&p, p.n - 4 - 2 - 4 - 2, 3); /* class CH */
    assert_int_equal(read_pkt(&p, "h.lab", DNS_RR_A).kind, DNS_ANSWER_NODATA);
}

static void test_question(void **state)
{
    (void)state;
    struct pkt p;
    good_srv(&p);
    assert_int_equal(read_pkt(&p, "_xmpp-server._tcp.other.lab", DNS_RR_SRV).kind, DNS_ANSWER_BAD);
    assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_A).kind, DNS_ANSWER_BAD);
    p.b[2] &= 0x7f; /* a query */
    assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_SRV).kind, DNS_ANSWER_BAD);
    p.b[2] |= 0x82; /* TC */
    struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
    assert_int_equal(a.kind, DNS_ANSWER_TRUNCATED);
    assert_true(a.truncated);
    assert_int_equal(a.n, 0);
}

static void srv_raw(struct pkt *p, const void *data, size_t n)
{
    pkt_response(p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_begin(p, PKT_AN, SRV_NAME, DNS_RR_SRV, 5);
    pkt_bytes(p, data, n);
    pkt_end(p);
}

static void test_bad_data(void **state)
{
    (void)state;
#define BYTES(s) (s), sizeof(s) - 1
    static const struct {
        const char *p;
        size_t n;
    } row[] = {
        {BYTES("")},
        {BYTES("\0\1\0")},                  /* RDLENGTH 3 */
        {BYTES("\0\1\0\1\0\5")},            /* no name */
        {BYTES("\0\1\0\1\0\5\1a\0\0")},     /* a byte after the name */
        {BYTES("\0\1\0\1\0\5\1a")},         /* the name runs out of the data */
        {BYTES("\0\1\0\1\0\5\1 \0")},       /* a space */
        {BYTES("\0\1\0\1\0\5\3a.b\0")},     /* a dot inside a label */
        {BYTES("\0\1\0\1\0\5\3a\0b\0")},    /* a NUL inside a label */
        {BYTES("\0\1\0\1\0\5\1\xc3\0")},    /* not ASCII */
        {BYTES("\0\1\0\1\0\5\xc0\xff")},    /* pointer to nowhere */
        {BYTES("\0\1\0\1\0\5\x80""a\0")},   /* reserved label type */
        {BYTES("\0\1\0\1\0\5\2""10\1""0\1""0\1""1\0")}, /* "10.0.0.1": no host name */
    };
#undef BYTES
    struct pkt p;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        srv_raw(&p, row[i].p, row[i].n);
        struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
        assert_int_equal(a.kind, DNS_ANSWER_BAD);
        assert_int_equal(a.n, 0);
    }
    for (size_t n = 0; n < 20; n++) {
        static const char zero[20];
        pkt_response(&p, 1, 0, "h.lab", DNS_RR_A);
        pkt_begin(&p, PKT_AN, "h.lab", DNS_RR_A, 5);
        pkt_bytes(&p, zero, n);
        pkt_end(&p);
        assert_int_equal(read_pkt(&p, "h.lab", DNS_RR_A).n, n == 4);
        pkt_response(&p, 1, 0, "h.lab", DNS_RR_AAAA);
        pkt_begin(&p, PKT_AN, "h.lab", DNS_RR_AAAA, 5);
        pkt_bytes(&p, zero, n);
        pkt_end(&p);
        assert_int_equal(read_pkt(&p, "h.lab", DNS_RR_AAAA).n, n == 16);
    }
}

static void test_one_bad_one_good(void **state)
{
    (void)state;
    struct pkt p;
    srv_raw(&p, "\0\1\0", 3);
    pkt_srv(&p, SRV_NAME, 5, 1, 1, 5269, "ok.lab");
    struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
    assert_int_equal(a.kind, DNS_ANSWER_RECORDS);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.rejected, 1);
}

static void test_compression(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, SRV_NAME, DNS_RR_SRV);
    pkt_add16(&p, PKT_AN, 1);
    pkt_u16(&p, 0xc00c); /* owner: the question's name */
    pkt_u16(&p, DNS_RR_SRV);
    pkt_u16(&p, 1);
    pkt_u32(&p, 0x80000001); /* RFC 2181 8: counts as 0 */
    pkt_u16(&p, 6 + 4);
    pkt_u16(&p, 1);
    pkt_u16(&p, 1);
    pkt_u16(&p, 5269);
    pkt_bytes(&p, "\1x", 2);
    pkt_u16(&p, 0xc00c + 18); /* beta.lab */
    struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.ttl, 0);
    assert_string_equal(a.u.srv[0].target, "x.beta.lab");

    size_t at = p.n - 2;
    pkt_set16(&p, at, 0xc000 | (unsigned)at); /* points at itself */
    assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_SRV).kind, DNS_ANSWER_BAD);
    pkt_set16(&p, at, 0xc000 | (unsigned)(at - 2)); /* the label before it, for ever */
    assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_SRV).kind, DNS_ANSWER_BAD);
    pkt_set16(&p, 12, 0xc00c); /* the question's name is a loop */
    assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_SRV).kind, DNS_ANSWER_BAD);
}

static void test_lying_counts(void **state)
{
    (void)state;
    struct pkt p;
    for (size_t at = 4; at <= 10; at += 2) {
        for (unsigned v = 0; v <= 0xffff; v = v * 2 + 3) {
            good_srv(&p);
            unsigned was = (unsigned)(p.b[at] << 8 | p.b[at + 1]);
            pkt_set16(&p, at, v);
            struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
            if (v > was)
                assert_int_equal(a.kind, DNS_ANSWER_BAD);
        }
    }
}

static void test_cut_everywhere(void **state)
{
    (void)state;
    struct pkt p;
    good_srv(&p);
    for (size_t n = 0; n < p.n; n++)
        assert_int_equal(
            read_bytes((struct str){(char *)p.b, n}, SRV_NAME, DNS_RR_SRV).kind, DNS_ANSWER_BAD);
    chain(&p, 8, false);
    for (size_t n = 0; n < p.n; n++)
        assert_int_equal(read_bytes((struct str){(char *)p.b, n}, "c0.lab", DNS_RR_A).kind,
                         DNS_ANSWER_BAD);
}

static void test_every_byte_changed(void **state)
{
    (void)state;
    struct pkt p;
    good_srv(&p);
    for (size_t i = 0; i < p.n; i++) {
        unsigned char was = p.b[i];
        for (unsigned v = 0; v < 256; v++) {
            p.b[i] = (unsigned char)v;
            struct dns_answer a = read_pkt(&p, SRV_NAME, DNS_RR_SRV);
            for (size_t k = 0; k < a.n; k++)
                assert_true(a.u.srv[k].target[0] == '\0' || dns_host_ok(str_c(a.u.srv[k].target)));
        }
        p.b[i] = was;
    }
}

static void test_many(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, "h.lab", DNS_RR_A);
    for (unsigned i = 0; i < 100; i++) {
        char ip[4] = {127, 1, 0, (char)i};
        pkt_a(&p, "h.lab", 5, ip);
    }
    struct dns_answer a = read_pkt(&p, "h.lab", DNS_RR_A);
    assert_int_equal(a.n, DNS_RECORDS_MAX);
    assert_int_equal(a.u.ip[63].bytes[3], 63);
}

#define TLSA_NAME "_5269._tcp.h.lab"

static void test_tlsa(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, TLSA_NAME, DNS_RR_TLSA);
    pkt_tlsa(&p, "_5269._TCP.H.lab", 70, 3, 1, 1, 0xab, 32);
    pkt_tlsa(&p, TLSA_NAME, 60, 255, 254, 253, 0, 1); /* what it means is not looked at here */
    pkt_tlsa(&p, "_5269._tcp.other.lab", 60, 3, 1, 1, 0, 32);
    struct dns_answer a = read_pkt(&p, TLSA_NAME, DNS_RR_TLSA);
    assert_int_equal(a.kind, DNS_ANSWER_RECORDS);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.ttl, 60);
    const struct tlsa *t = a.u.tlsa;
    assert_true(t[0].usage == 3 && t[0].selector == 1 && t[0].matching == 1 && t[0].n == 32);
    assert_true(t[0].data[0] == 0xab && t[0].data[31] == 0xab);
    assert_true(t[1].usage == 255 && t[1].selector == 254 && t[1].matching == 253 && t[1].n == 1);

    pkt_response(&p, 1, 0, TLSA_NAME, DNS_RR_TLSA);
    pkt_cname(&p, TLSA_NAME, 50, "tlsa.lab");
    pkt_tlsa(&p, "tlsa.lab", 60, 2, 0, 1, 1, 32);
    a = read_pkt(&p, TLSA_NAME, DNS_RR_TLSA);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.ttl, 50);
}

/* Every length that the data may have, and some that it may not. */
static void test_tlsa_lengths(void **state)
{
    (void)state;
    struct pkt p;
    for (size_t n = 0; n <= TLSA_DATA_MAX + 3 + 20; n++) {
        pkt_response(&p, 1, 0, TLSA_NAME, DNS_RR_TLSA);
        pkt_begin(&p, PKT_AN, TLSA_NAME, DNS_RR_TLSA, 5);
        for (size_t i = 0; i < n; i++)
            pkt_u8(&p, 3);
        pkt_end(&p);
        struct dns_answer a = read_pkt(&p, TLSA_NAME, DNS_RR_TLSA);
        bool good = n > 3 && n <= TLSA_DATA_MAX + 3;
        assert_int_equal(a.n, good);
        assert_int_equal(a.rejected, !good);
        assert_int_equal(a.kind, good ? DNS_ANSWER_RECORDS : DNS_ANSWER_BAD);
        if (good)
            assert_int_equal(a.u.tlsa[0].n, n - 3);
    }
}

static void test_tlsa_many(void **state)
{
    (void)state;
    struct pkt p;
    pkt_response(&p, 1, 0, TLSA_NAME, DNS_RR_TLSA);
    for (unsigned i = 0; i < 3 * TLSA_RECORDS_MAX; i++)
        pkt_tlsa(&p, TLSA_NAME, 5, 3, 1, 1, i, 32);
    struct dns_answer a = read_pkt(&p, TLSA_NAME, DNS_RR_TLSA);
    assert_int_equal(a.n, TLSA_RECORDS_MAX);
    assert_int_equal(a.u.tlsa[TLSA_RECORDS_MAX - 1].data[0], TLSA_RECORDS_MAX - 1);
    for (size_t n = 0; n < p.n; n++)
        assert_int_equal(read_bytes((struct str){(char *)p.b, n}, TLSA_NAME, DNS_RR_TLSA).kind,
                         DNS_ANSWER_BAD);
}

/* The AD bit is told of every answer, and of nothing else. */
static void test_authentic(void **state)
{
    (void)state;
    struct pkt p;
    for (unsigned flags = 0; flags < 256; flags++) {
        good_srv(&p);
        p.b[3] = (unsigned char)flags;
        assert_int_equal(read_pkt(&p, SRV_NAME, DNS_RR_SRV).authentic, (flags & 0x20) != 0);
    }
    good_srv(&p);
    pkt_authentic(&p);
    assert_false(read_bytes((struct str){(char *)p.b, 11}, SRV_NAME, DNS_RR_SRV).authentic);
}

static void test_names(void **state)
{
    (void)state;
    char label[65], full[256];
    memset(label, 'a', sizeof label);
    assert_true(dns_name_ok((struct str){label, 63}));
    assert_false(dns_name_ok((struct str){label, 64}));
    for (size_t i = 0; i < sizeof full; i++)
        full[i] = i % 2 ? '.' : 'a';
    assert_true(dns_name_ok((struct str){full, 253}));
    assert_false(dns_name_ok((struct str){full, 255}));
    static const char *const bad[] = {"",    ".",      "a.",  ".a",      "a..b",
                                      "a b", "a\\.b", "a/b", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(dns_name_ok(str_c(bad[i])));
    assert_true(dns_name_ok(STR("_a.B-1")));
    assert_true(dns_host_ok(STR("1.a")));
    assert_true(dns_host_ok(STR("xn--e1afmkfd.xn--p1ai")));
    assert_false(dns_host_ok(STR("127.0.0.1")));
    assert_false(dns_host_ok(STR("1")));
    assert_false(dns_host_ok(STR("::1")));
    assert_string_equal(dns_answer_kind_name(DNS_ANSWER_NXDOMAIN), "nxdomain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_srv),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_root_target),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_soa_lies),
        cmocka_unit_test(test_cname),
        cmocka_unit_test(test_foreign_owner),
        cmocka_unit_test(test_question),
        cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_one_bad_one_good),
        cmocka_unit_test(test_compression),
        cmocka_unit_test(test_lying_counts),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_tlsa),
        cmocka_unit_test(test_tlsa_lengths),
        cmocka_unit_test(test_tlsa_many),
        cmocka_unit_test(test_authentic),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
