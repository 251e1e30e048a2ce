/* The JSON that the daemons write, the reader of sallyportctl, and its tables. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "core/control/commands.h"
#include "core/control/json.h"
#include "ctl/complete.h"
#include "ctl/reader.h"
#include "ctl/table.h"

static void expect(const struct buf *b, const char *text)
{
    assert_false(b->failed);
    assert_string_equal(b->p ? b->p : "", text);
}

/* ---- the writer ------------------------------------------------------------------------------ */

static void test_write(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    struct json j;
    const struct kv kv[] = {KV_C("peer", "beta.lab"), KV_I("n", -3), KV_SEC("age", 61500),
                            KV_C("absent", NULL)};
    json_begin(&j, &b);
    json_object(&j, NULL);
    json_array(&j, "rows");
    json_object(&j, NULL);
    json_fields(&j, kv, sizeof kv / sizeof kv[0]);
    json_end(&j);
    json_int(&j, NULL, INT64_MIN);
    json_end(&j);
    json_bool(&j, "yes", true);
    json_c(&j, "null", NULL);
    json_object(&j, "empty");
    json_end(&j);
    json_seconds(&j, "before", -1500);
    json_end(&j);
    expect(&b, "{\"rows\":[{\"peer\":\"beta.lab\",\"n\":-3,\"age\":61.500},-9223372036854775808],"
               "\"yes\":true,\"null\":null,\"empty\":{},\"before\":-1.500}");
    buf_free(&b);
}

static void test_write_strings(void **state)
{
    (void)state;
    static const struct {
        struct str in;
        const char *out;
    } cases[] = {
        {STR("plain"), "\"plain\""},
        {STR("q\"b\\s"), "\"q\\\"b\\\\s\""},
        {STR("a\nb\0c\x7f"), "\"a\\u000ab\\u0000c\\u007f\""},
        {STR("ü€😀"), "\"ü€😀\""},
        {STR("\xff\xc3"), "\"\\ufffd\\ufffd\""},
        {STR("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\""}, /* a surrogate */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = BUF_INIT(4096);
        struct json j;
        json_begin(&j, &b);
        json_str(&j, NULL, cases[i].in);
        expect(&b, cases[i].out);
        buf_free(&b);
    }
}

static void test_write_bounds(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    struct json j;
    json_begin(&j, &b);
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        json_array(&j, NULL);
    assert_false(b.failed);
    json_array(&j, NULL);
    assert_true(b.failed);
    buf_free(&b);
    b = BUF_INIT(8);
    json_begin(&j, &b);
    json_c(&j, NULL, "longer than that");
    assert_true(b.failed);
    buf_free(&b);
}

/* ---- the reader ------------------------------------------------------------------------------ */

static bool reads(const char *text)
{
    struct document d;
    bool ok = document_read(&d, str_c(text));
    document_free(&d);
    return ok;
}

static void test_read(void **state)
{
    (void)state;
    struct document d;
    assert_true(document_read(&d, STR(" {\"a\":[1,-2.5e3,true,null],\"b\":{\"c\":\"x\\u00fc\\ud83d"
                                      "\\ude00\\n\"},\"e\":[]} ")));
    const struct value *a = document_get(&d, d.v, "a");
    const struct value *v = document_first(&d, a);
    assert_int_equal(a->type, VALUE_ARRAY);
    assert_string_equal(v->text, "1");
    v = document_next(&d, v);
    assert_string_equal(v->text, "-2.5e3");
    v = document_next(&d, v);
    assert_int_equal(v->type, VALUE_BOOL);
    v = document_next(&d, v);
    assert_int_equal(v->type, VALUE_NULL);
    assert_null(document_next(&d, v));
    v = document_get(&d, document_get(&d, d.v, "b"), "c");
    assert_string_equal(v->text, "xü😀\n");
    assert_null(document_first(&d, document_get(&d, d.v, "e")));
    assert_null(document_get(&d, a, "a"));
    assert_null(document_get(&d, NULL, "a"));
    document_free(&d);
}

static void test_read_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{a:1}",
                                      "01",
                                      "1.",
                                      "-",
                                      "1e",
                                      "nul",
                                      "\"a",
                                      "\"\\x\"",
                                      "\"\\u12",
                                      "\"\\u12g4\"",
                                      "[1 2]",
                                      "1 2",
                                      "\"a\nb\"",
                                      "{\"a\":1,}",
                                      "[}",
                                      "\"\xff\"",
                                      "tru",
                                      "+1",
                                      ".5",
                                      "\"\\",
                                      "{\"a\":1 \"b\":2}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (reads(bad[i]))
            fail_msg("taken: %s", bad[i]);
    char deep[READER_DEPTH_MAX * 2 + 3] = "";
    memset(deep, '[', READER_DEPTH_MAX);
    memset(deep + READER_DEPTH_MAX, ']', READER_DEPTH_MAX);
    assert_true(reads(deep));
    memset(deep, '[', READER_DEPTH_MAX + 1);
    memset(deep + READER_DEPTH_MAX + 1, ']', READER_DEPTH_MAX + 1);
    assert_false(reads(deep));
}

static void test_read_without_memory(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,2,3],\"b\":\"c\"}";
    bool ok = false;
    for (unsigned long n = 1; !ok && n < 10; n++) {
        struct document d;
        mem_fail_after(n);
        ok = document_read(&d, str_c(text));
        mem_fail_after(0);
        document_free(&d);
    }
    assert_true(ok);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void expect_table(const char *json, const char *text)
{
    struct document d;
    struct buf out = BUF_INIT(65536);
    assert_true(document_read(&d, str_c(json)));
    table_print(&d, d.v, &out);
    expect(&out, text);
    buf_free(&out);
    document_free(&d);
}

static void test_tables(void **state)
{
    (void)state;
    expect_table("{\"rows\":[{\"name\":\"a\",\"n\":5},{\"name\":\"long one\",\"n\":1000,"
                 "\"x\":\"y\"}]}",
                 "NAME         N  X\n"
                 "a            5  -\n"
                 "long one  1000  y\n");
    expect_table("{\"rows\":[]}", "no rows\n");
    expect_table("{\"state\":\"up\",\"uptime\":200.0,\"ok\":true,\"rows\":[]}",
                 "state:                up\n"
                 "uptime:               3 m 20 s\n"
                 "ok:                   yes\n"
                 "no rows\n");
    expect_table("{\"problems\":[\"one\",\"two\"]}", "problems:\n  one\n  two\n");
    expect_table("{\"age\":0.25}", "age:                  250 ms\n");
    expect_table("{\"age\":93784}", "age:                  1 d 2 h\n");
}

/* What strangers say never reaches the terminal as a command. */
static void test_terminal(void **state)
{
    (void)state;
    expect_table("{\"rows\":[{\"why\":\"\\u001b[2J\\u009bx\\u007f\"}]}", "WHY\n?[2J?x?\n");
}

/* Columns that are laid out stand in that order, and empty ones are left out. */
static void test_layout(void **state)
{
    (void)state;
    expect_table("{\"links\":[{\"sid\":1,\"state\":\"up\",\"link\":\"core\",\"extra\":2}]}",
                 "LINK  STATE  SID\ncore  up       1\n");
}

static void test_completion(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1 << 20);
    complete_bash(&gateway_commands, &router_commands, &out);
    assert_false(out.failed);
    for (size_t i = 0; i < gateway_commands.n; i++) {
        const char *name = gateway_commands.v[i].name;
        const char *last = strchr(name, ' ') ? strchr(name, ' ') + 1 : name;
        assert_non_null(strstr(out.p, last));
    }
    assert_non_null(strstr(out.p, "--balance"));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),        cmocka_unit_test(test_write_strings),
        cmocka_unit_test(test_write_bounds), cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_bad),     cmocka_unit_test(test_read_without_memory),
        cmocka_unit_test(test_tables),       cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_layout),       cmocka_unit_test(test_completion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
