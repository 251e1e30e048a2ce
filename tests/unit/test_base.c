/* core/base: strings, buffers, lists, chunks, timers, tables, digests, networks, log lines. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/buf.h"
#include "core/base/chunk.h"
#include "core/base/cidr.h"
#include "core/base/digest.h"
#include "core/base/list.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/table.h"
#include "core/base/timer.h"
#include "tests/fake/fake.h"

/* ---- strings and buffers --------------------------------------------------------------------- */

static void test_str(void **state)
{
    (void)state;
    char out[4];
    assert_true(str_is(str_trim(STR(" \r\n\tx y\t ")), "x y"));
    assert_int_equal(str_trim(STR("  ")).n, 0);
    assert_int_equal(str_trim(STR_NONE).n, 0);
    assert_true(str_copy(out, sizeof out, STR("abc")));
    assert_false(str_copy(out, sizeof out, STR("abcd")));
    assert_string_equal(out, "abc");
    assert_false(str_copy(out, sizeof out, (struct str){"a\0b", 3}));
    assert_true(str_copy(out, sizeof out, STR_NONE));
    assert_string_equal(out, "");
    assert_true(str_eq(STR_NONE, STR("")));
    assert_false(str_eq(STR("a"), STR("ab")));
    assert_true(str_starts(STR("abc"), "ab") && !str_starts(STR("a"), "ab"));
    assert_int_equal(str_distance("kitten", "sitting"), 3);
    assert_int_equal(str_distance("", "abc"), 3);
}

static void test_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {
        "", "a", "\xC3\xA4", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF4\x8F\xBF\xBF", "\xE2\x82\xAC!"};
    static const char *const bad[] = {"\x80",
                                      "\xC3",
                                      "\xC0\x80",
                                      "\xE0\x80\x80",
                                      "\xED\xA0\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xF8\x88\x80\x80\x80",
                                      "\xC3(",
                                      "\xF0\x82\x82\xAC"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(str_utf8(str_c(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(str_utf8(str_c(bad[i])));
}

static void test_buf(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(10);
    assert_true(str_is(buf_view(&b), ""));
    buf_puts(&b, "12345");
    buf_printf(&b, "%d", 67890);
    assert_string_equal(b.p, "1234567890");
    assert_false(b.failed);
    buf_putc(&b, 'x');
    assert_true(b.failed);
    buf_puts(&b, "");
    assert_string_equal(b.p, "1234567890"); /* what was there stays */
    buf_clear(&b);
    assert_false(b.failed);
    assert_string_equal(b.p, "");
    buf_puts(&b, "abc");
    buf_drop(&b, 1);
    assert_string_equal(b.p, "bc");
    buf_drop(&b, 9);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.p, "");
    buf_free(&b);
    assert_false(buf_reserve(&b, 11));
    buf_free(&b);
    mem_fail_after(1);
    buf_puts(&b, "a");
    mem_fail_after(0);
    assert_true(b.failed);
    buf_free(&b);
}

static void test_mem(void **state)
{
    (void)state;
    mem_fail_after(2);
    void *first = mem_alloc(1), *second = mem_alloc(1), *third = mem_zalloc(1);
    char *copy = mem_strdup("x");
    mem_fail_after(0);
    assert_non_null(first);
    assert_true(second == NULL && third == NULL && copy == NULL);
    mem_free(first);
    copy = mem_strndup((struct str){"a\0b", 3});
    assert_string_equal(copy, "a");
    mem_free(copy);
    copy = mem_strndup(STR_NONE);
    assert_string_equal(copy, "");
    mem_free(copy);
}

static void test_list(void **state)
{
    (void)state;
    struct list l = {NULL, NULL, 0};
    struct list_node n[3] = {{NULL, NULL, NULL}};
    list_append(&l, &n[1]);
    list_append(&l, &n[2]);
    list_prepend(&l, &n[0]);
    list_remove(&n[1]);
    list_remove(&n[1]); /* in no list: nothing happens */
    assert_int_equal(l.count, 2);
    assert_ptr_equal(n[0].next, &n[2]);
    size_t seen = 0;
    LIST_FOREACH (&l, at, following) {
        list_remove(at);
        seen++;
    }
    assert_int_equal(seen, 2);
    assert_true(l.first == NULL && l.last == NULL && l.count == 0);
    assert_null(list_pop(&l));
}

static void test_chunk(void **state)
{
    (void)state;
    assert_null(chunk_new(SIZE_MAX));
    struct span a = span_copy(STR("abc")), b = span_retain(a);
    assert_int_equal(a.chunk->refs, 2);
    span_release(&a);
    assert_null(a.chunk);
    assert_true(str_is(b.s, "abc"));
    span_release(&b);
    span_release(&b);
    struct span fixed = {NULL, STR("static")};
    fixed = span_retain(fixed);
    span_release(&fixed);
}

/* ---- timers ---------------------------------------------------------------------------------- */

enum { TIMERS = 500 };
struct probe {
    struct timer timer;
    unsigned fired;
    uint64_t again; /* re-arms itself for then, once */
};
static struct timers heap;
static uint64_t last_due;

static void fire(struct timer *t)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);
    assert_false(timer_armed(t));
    assert_true(t->due >= last_due); /* earliest first */
    last_due = t->due;
    p->fired++;
    if (p->again)
        assert_true(timers_set(&heap, t, p->again));
    p->again = 0;
}

static void test_timers(void **state)
{
    (void)state;
    static struct probe p[TIMERS];
    struct fake f;
    uint64_t due, least = UINT64_MAX;
    fake_init(&f, 3);
    assert_false(timers_next(&heap, &due));
    for (size_t i = 0; i < TIMERS; i++) {
        p[i].timer.fire = fire;
        assert_true(timers_set(&heap, &p[i].timer, 1 + fake_below(&f, 1000)));
    }
    for (size_t i = 0; i < TIMERS; i += 2) /* half of them move, a tenth goes */
        assert_true(timers_set(&heap, &p[i].timer, 1 + fake_below(&f, 1000)));
    for (size_t i = 0; i < TIMERS; i += 10)
        timers_clear(&heap, &p[i].timer);
    timers_clear(&heap, &p[0].timer);
    for (size_t i = 0; i < TIMERS; i++)
        if (timer_armed(&p[i].timer) && p[i].timer.due < least)
            least = p[i].timer.due;
    assert_true(timers_next(&heap, &due) && due == least);
    p[1].again = 2000;
    timers_run(&heap, 1000);
    for (size_t i = 0; i < TIMERS; i++)
        assert_int_equal(p[i].fired, i % 10 != 0);
    assert_true(timers_next(&heap, &due) && due == 2000);
    timers_run(&heap, 1999);
    assert_int_equal(p[1].fired, 1);
    timers_run(&heap, 2000);
    assert_int_equal(p[1].fired, 2);
    timers_free(&heap);
    mem_fail_after(1);
    bool set = timers_set(&heap, &p[2].timer, 1);
    mem_fail_after(0);
    assert_false(set || timer_armed(&p[2].timer));
}

/* ---- hashes ---------------------------------------------------------------------------------- */

/* SipHash-2-4, vectors of its authors, folded to 32 bits. */
static void test_table(void **state)
{
    (void)state;
    unsigned char key[16], text[15];
    for (unsigned char i = 0; i < 16; i++)
        key[i] = i;
    memcpy(text, key, sizeof text);
    table_seed(key);
    assert_int_equal(table_hash(text, 0), 0x726fdb47u ^ 0xdd0e0e31u);
    assert_int_equal(table_hash(text, 15), 0xa129ca61u ^ 0x49be45e5u);
    key[0] = 1;
    table_seed(key);
    assert_int_not_equal(table_hash(text, 15), 0xa129ca61u ^ 0x49be45e5u);
}

static void test_digests(void **state)
{
    (void)state;
    char hex[DIGEST_SHA256_HEX + 1];
    const struct str abc[] = {STR("a"), STR(""), STR("bc")};
    assert_true(digest_sha1_hex(hex, abc, 3)); /* FIPS 180-2 */
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_true(digest_sha256_hex(hex, abc, 3));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(digest_sha256_hex(hex, NULL, 0));
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    /* RFC 4231, test case 2 */
    assert_true(digest_hmac_sha256_hex(hex, STR("Jefe"), STR("what do ya want for nothing?")));
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_true(digest_equal(STR("ab"), STR("ab")));
    assert_false(digest_equal(STR("ab"), STR("aB")) || digest_equal(STR("ab"), STR("abc")));
    char secret[4] = "key";
    digest_wipe(secret, sizeof secret);
    assert_memory_equal(secret, "\0\0\0\0", 4);
}

static void test_env(void **state)
{
    (void)state;
    struct fake f;
    char a[41], b[41];
    fake_init(&f, 5);
    assert_true(env_hex_id(&f.env, a, 20) && env_hex_id(&f.env, b, 20));
    assert_int_equal(strlen(a), 40);
    assert_string_not_equal(a, b);
    assert_false(env_hex_id(&f.env, a, 33)); /* more than it is made for */
    unsigned seen[3] = {0};
    for (int i = 0; i < 3000; i++)
        seen[env_below(&f.env, 3)]++;
    assert_true(seen[0] > 800 && seen[1] > 800 && seen[2] > 800);
    assert_int_equal(env_below(&f.env, 1), 0);
    assert_int_equal(env_below(&f.env, 0), 0);
    f.no_random = true;
    assert_false(env_hex_id(&f.env, a, 20));
    assert_int_equal(env_below(&f.env, 1000), 0);
    assert_true(env_hex_id(&env_system, a, 20));
    assert_true(env_now(&env_system) > 0);
}

/* ---- addresses ------------------------------------------------------------------------------- */

static void test_endpoints(void **state)
{
    (void)state;
    static const struct {
        const char *text, *again; /* NULL: refused */
    } rows[] = {
        {"192.0.2.1:5269", "192.0.2.1:5269"},
        {"[2001:DB8::1]:1", "[2001:db8::1]:1"},
        {"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
        {"192.0.2.1:65535", "192.0.2.1:65535"},
        {"192.0.2.1:65536", NULL},
        {"192.0.2.1:0", NULL},
        {"192.0.2.1", NULL},
        {"192.0.2.1:", NULL},
        {":5269", NULL},
        {"", NULL},
        {"[", NULL},
        {"[]:1", NULL},
        {"[::1]", NULL},
        {"[::1]:", NULL},
        {"[::1]5", NULL},
        {"[192.0.2.1]:1", NULL},
        {"::1:5269", NULL},
        {"192.0.2.1:+5", NULL},
        {"192.0.2.1:5269 ", NULL},
        {"192.0.2.256:1", NULL},
        {"host.example:1", NULL},
        {"[fe80::1%eth0]:1", NULL},
        {"192.0.2.1:000005269", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct endpoint e;
        char text[ENDPOINT_TEXT];
        bool ok = endpoint_parse(str_c(rows[i].text), &e);
        if (ok != (rows[i].again != NULL))
            fail_msg("%s", rows[i].text);
        if (!ok)
            continue;
        endpoint_text(&e, text);
        assert_string_equal(text, rows[i].again);
    }
    struct endpoint longest;
    char text[ENDPOINT_TEXT];
    assert_true(endpoint_parse(STR("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"), &longest));
    endpoint_text(&longest, text);
    assert_string_equal(text, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535");
}

static void test_cidr(void **state)
{
    (void)state;
    static const struct {
        const char *net, *ip;
        bool in;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"0.0.0.0/0", "203.0.113.1", true},
        {"0.0.0.0/0", "::1", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.2", false},
        {"172.16.0.0/12", "172.31.255.255", true},
        {"172.16.0.0/12", "172.32.0.0", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"::1/128", "::1", true},
        {"::/0", "2001:db8::1", true},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true}, /* mapped addresses are IPv4 */
        {"::ffff:10.0.0.0/104", "10.1.2.3", true},
        {"::ffff:10.0.0.0/104", "11.1.2.3", false},
        {"::ffff:0:0/96", "192.0.2.1", true},
    };
    static const char *const bad[] = {
        "",         "/8",     "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1",       "10.0.0.0/8 ",
        "10.0.0/8", "::/129", "::/x",      "x",           "::ffff:10.0.0.0/8", "10.0.0.0/8/8"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cidr c;
        struct ip ip;
        if (!cidr_parse(str_c(rows[i].net), &c) || !ip_parse(str_c(rows[i].ip), &ip) ||
            cidr_has(&c, &ip) != rows[i].in)
            fail_msg("%s %s", rows[i].net, rows[i].ip);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cidr c;
        if (cidr_parse(str_c(bad[i]), &c))
            fail_msg("%s", bad[i]);
    }
}

/* ---- log ------------------------------------------------------------------------------------- */

struct capture {
    struct buf out;
    struct log *log;
    struct log_ctx ctx;
};

static void begin(struct capture *c, enum log_format format, unsigned rate)
{
    c->out = BUF_INIT(1 << 20);
    c->log = log_new(-1, LOG_INFO, format, rate);
    assert_non_null(c->log);
    log_capture(c->log, &c->out);
    c->ctx = (struct log_ctx){.sink = c->log};
}

static void finish(struct capture *c)
{
    log_free(c->log);
    buf_free(&c->out);
}

static void test_log_values(void **state)
{
    (void)state;
    static const struct {
        struct str value;
        const char *line;
    } rows[] = {
        {{"plain", 5}, "info e v=plain\n"},
        {{"", 0}, "info e v=\"\"\n"},
        {{NULL, 0}, "info e\n"},
        {{"two words", 9}, "info e v=\"two words\"\n"},
        {{"a=b", 3}, "info e v=\"a=b\"\n"},
        {{"\"\\", 2}, "info e v=\"\\\"\\\\\"\n"},
        {{"a\nlevel=error", 13}, "info e v=\"a\\x0alevel=error\"\n"},
        {{"\x1b[31m\0\x7f", 7}, "info e v=\\x1b[31m\\x00\\x7f\n"},
        {{"\xC3\xA4\xE2\x80\xAE\xF0\x9F\x98\x80", 9}, "info e v=\\u{e4}\\u{202e}\\u{1f600}\n"},
        {{"\xC3", 1}, "info e v=\\xc3\n"},
        {{"\xED\xA0\x80", 3}, "info e v=\\xed\\xa0\\x80\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct capture c;
        begin(&c, LOG_LOGFMT, 0);
        log_ev(&c.ctx, LOG_INFO, "e", KV_S("v", rows[i].value));
        assert_string_equal(c.out.p, rows[i].line);
        finish(&c);
    }
}

static void test_log_lines(void **state)
{
    (void)state;
    struct capture c;
    begin(&c, LOG_LOGFMT, 0);
    struct log_ctx inner = {.sink = c.log, .parent = &c.ctx, .kv = {KV_I("sid", 7)}};
    c.ctx.kv[0] = KV_C("who", "outer");
    log_ev(&inner, LOG_WARN, "x.y", KV_SEC("t", 1005), KV_I("n", -3));
    log_ev(&inner, LOG_DEBUG, "hidden", KV_I("n", 1));
    assert_string_equal(c.out.p, "warn x.y who=outer sid=7 t=1.005 n=-3\n");
    log_set(c.log, LOG_ERROR, LOG_LOGFMT, 0);
    assert_false(log_on(&inner, LOG_WARN));
    enum log_level level;
    assert_true(log_level_parse(STR("debug"), &level) && level == LOG_DEBUG);
    assert_false(log_level_parse(STR("Debug"), &level));
    finish(&c);
}

/* JSON string contents, and nothing else, may follow; returns the end of the string. */
static const char *json_string(const char *p)
{
    assert_int_equal(*p++, '"');
    for (; *p != '"'; p++) {
        assert_true((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
        if (*p == '\\') {
            p++;
            assert_true(*p == '"' || *p == '\\');
        }
    }
    return p + 1;
}

/* A line of the kind {"key":value,...} with strings and numbers. */
static void check_json(const char *p)
{
    assert_int_equal(*p++, '{');
    for (;; p++) {
        p = json_string(p);
        assert_int_equal(*p++, ':');
        if (*p == '"')
            p = json_string(p);
        else
            p += strspn(p, "-.0123456789");
        if (*p != ',')
            break;
    }
    assert_string_equal(p, "}\n");
}

static void test_log_json(void **state)
{
    (void)state;
    struct capture c;
    char wild[300];
    begin(&c, LOG_JSON, 0);
    log_ev(&c.ctx, LOG_INFO, "e", KV_C("a", "q\"\\\n\xC3\xA4"), KV_I("n", 5), KV_SEC("t", 20));
    assert_non_null(strstr(c.out.p, ",\"a\":\"q\\\"\\\\\\\\x0a\\\\u{e4}\",\"n\":5,\"t\":0.020}\n"));
    check_json(c.out.p);
    buf_clear(&c.out);
    /* The longest values there are do not break the line. */
    memset(wild, '\t', sizeof wild);
    struct str s = {wild, sizeof wild};
    for (size_t i = 0; i < LOG_CTX_KV; i++)
        c.ctx.kv[i] = KV_S("c", s);
    log_ev(&c.ctx, LOG_INFO, "e", KV_S("k1", s), KV_S("k2", s), KV_S("k3", s));
    check_json(c.out.p);
    finish(&c);
}

static void test_log_cut(void **state)
{
    (void)state;
    struct capture c;
    char value[LOG_VALUE_MAX + 1];
    memset(value, 'x', sizeof value);
    begin(&c, LOG_LOGFMT, 0);
    log_ev(&c.ctx, LOG_INFO, "e", KV_S("v", ((struct str){value, LOG_VALUE_MAX})));
    assert_int_equal(c.out.len, strlen("info e v=\n") + LOG_VALUE_MAX);
    buf_clear(&c.out);
    log_ev(&c.ctx, LOG_INFO, "e", KV_S("v", ((struct str){value, LOG_VALUE_MAX + 1})));
    assert_int_equal(c.out.len, strlen("info e v=...\n") + LOG_VALUE_MAX);
    finish(&c);
}

/* At most `rate` lines of one event a second; the others do not suffer. */
static void test_log_rate(void **state)
{
    (void)state;
    struct capture c;
    begin(&c, LOG_LOGFMT, 10);
    for (int i = 0; i < 1000; i++)
        log_ev(&c.ctx, LOG_INFO, "flood", KV_I("i", i));
    size_t lines = 0;
    for (const char *p = c.out.p; (p = strstr(p, "info flood")) != NULL; p++)
        lines++;
    assert_true(lines >= 10 && lines <= 20); /* a second may have ended meanwhile */
    log_ev(&c.ctx, LOG_INFO, "other", KV_I("i", 1));
    assert_non_null(strstr(c.out.p, "info other i=1\n"));
    finish(&c);
    begin(&c, LOG_LOGFMT, 0);
    for (int i = 0; i < 1000; i++)
        log_ev(&c.ctx, LOG_INFO, "flood", KV_I("i", i));
    assert_non_null(strstr(c.out.p, "i=999\n"));
    finish(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str),        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_buf),        cmocka_unit_test(test_mem),
        cmocka_unit_test(test_list),       cmocka_unit_test(test_chunk),
        cmocka_unit_test(test_timers),     cmocka_unit_test(test_table),
        cmocka_unit_test(test_digests),    cmocka_unit_test(test_env),
        cmocka_unit_test(test_endpoints),  cmocka_unit_test(test_cidr),
        cmocka_unit_test(test_log_values), cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_json),   cmocka_unit_test(test_log_cut),
        cmocka_unit_test(test_log_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
