/* The settings of who may talk to whom: files of domains, entries with an end, routes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/diff.h"
#include "config/domains.h"
#include "config/schema.h"
#include "core/base/mem.h"

static char dir[40];

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_policy.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const files[] = {"allow.txt", "deny.txt"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        unlink(in_dir(files[i]));
    return rmdir(dir);
}

#define LINKS                                                                                      \
    "domains = ({ name = \"alpha.lab\"; });"                                                       \
    "links = ({ name = \"core\"; protocol = \"s2s\"; address = \"10.0.0.5:5269\";"                 \
    "listen = [\"10.0.0.4:5279\"]; });\n"

static struct gateway_config *parse(const char *text, struct buf *errors)
{
    struct buf all = BUF_INIT(65536);
    buf_printf(&all, LINKS "%s", text);
    buf_clear(errors);
    struct gateway_config *c = gateway_config_parse(in_dir("t.conf"), buf_view(&all), errors);
    buf_free(&all);
    return c;
}

static void strip_dir(struct buf *b)
{
    size_t n = strlen(dir) + 1;
    char prefix[48];
    snprintf(prefix, sizeof prefix, "%s/", dir);
    for (size_t i = 0; i + n <= b->len;) {
        if (memcmp(b->p + i, prefix, n) != 0) {
            i++;
            continue;
        }
        memmove(b->p + i, b->p + i + n, b->len - i - n + 1);
        b->len -= n;
    }
}

/* What the loader says; `fine`: it loads all the same. */
static void says(const char *text, bool fine, const char *expected)
{
    struct buf errors = BUF_INIT(65536);
    struct gateway_config *c = parse(text, &errors);
    strip_dir(&errors);
    assert_string_equal(errors.p != NULL ? errors.p : "", expected);
    assert_int_equal(c != NULL, fine);
    gateway_config_unref(c);
    buf_free(&errors);
}

static void test_files(void **state)
{
    (void)state;
    struct buf errors = BUF_INIT(4096);
    size_t pos;
    put_file("allow.txt", "# ours\r\nBeta.LAB\r\n\r\n  *.gamma.lab # and below\n*\n"
                          "b\xc3\xbc"
                          "cher.example");
    struct gateway_config *c = parse("allow_file = \"allow.txt\";", &errors);
    assert_non_null(c);
    assert_int_equal(errors.len, 0);
    assert_int_equal(c->allow->n, 4);
    assert_null(c->deny);
    assert_string_equal(c->allow->v[0], "beta.lab");
    assert_int_equal(c->allow->line[0], 2);
    assert_string_equal(c->allow->v[1], "*.gamma.lab");
    assert_string_equal(c->allow->v[3], "xn--bcher-kva.example");
    assert_true(domain_list_has(c->allow, "*", &pos));
    assert_true(domain_list_find(c->allow, STR(".gamma.lab"), &pos));
    assert_int_equal(pos, 1);
    assert_false(domain_list_has(c->allow, "gamma.lab", &pos));
    assert_false(domain_list_has(NULL, "gamma.lab", &pos));
    gateway_config_unref(c);
    buf_free(&errors);
}

static void test_bad_files(void **state)
{
    (void)state;
    put_file("allow.txt", "beta.lab\n\nnot a domain\nbeta.lab\n*.\n\x01\n");
    says("allow_file = \"allow.txt\";\nfederatoin = true;", false,
         "t.conf:3: federatoin: unknown key (did you mean \"federation\"?)\n"
         "allow.txt:3: \"not a domain\": must be a domain name, \"*.suffix\" or \"*\"\n"
         "allow.txt:4: warning: already listed at line 1\n"
         "allow.txt:5: \"*.\": must be a domain name, \"*.suffix\" or \"*\"\n"
         "allow.txt:6: \"\\x01\": must be a domain name, \"*.suffix\" or \"*\"\n"
         "4 errors\n");
    says("allow_file = \"none.txt\";", false,
         "t.conf:2: allow_file = \"none.txt\": No such file or directory\n1 error\n");
    put_file("allow.txt", "beta.lab\nbad.lab\n");
    put_file("deny.txt", "other.lab\nbad.lab\n");
    says("allow_file = \"allow.txt\"; deny_file = \"deny.txt\";", false,
         "t.conf:2: allow_file = \"allow.txt\": line 2: bad.lab is on the deny list, too "
         "(deny.txt:2)\n1 error\n");
    says("allow_file = \"allow.txt\"; peers = ({ domain = \"beta.lab\"; policy = \"deny\"; });",
         true,
         "t.conf:2: warning: peers[beta.lab].policy = \"deny\": allow.txt:1 (allow_file) says "
         "otherwise; this entry decides\n");
}

static void test_entries(void **state)
{
    (void)state;
    says("peers = ({ domain = \"b.lab\"; policy = \"allow\"; until = \"2026-13-01\"; });", false,
         "t.conf:2: peers[b.lab].until = \"2026-13-01\": must be a day in quotes, e.g. "
         "\"2026-12-31\" (all of it), or a time, e.g. \"2026-12-31T18:00:00Z\"\n1 error\n");
    says("peers = ({ domain = \"b.lab\"; policy = \"allow\"; until = 2026; });", false,
         "t.conf:2: peers[b.lab].until = 2026: must be a day in quotes, e.g. "
         "\"2026-12-31\" (all of it), or a time, e.g. \"2026-12-31T18:00:00Z\"\n1 error\n");
    says("peers = ({ domain = \"b.lab\"; policy = \"allow\"; until = \"2001-01-01\"; });", true,
         "t.conf:2: warning: peers[b.lab].until = \"2001-01-01\": this entry is over and does not "
         "count\n");
    says("peers = ({ domain = \"b.lab\"; policy = \"allow\"; local = \"beta.lab\"; });", false,
         "t.conf:2: peers[b.lab].local = \"beta.lab\": beta.lab is no local domain\n1 error\n");
    says("peers = ({ domain = \"b.lab\"; direction = \"in\"; });", true,
         "t.conf:2: warning: peers[b.lab].direction = \"in\": it is about the policy, and there is "
         "neither policy nor route beside it\n");
    says("peers = ({ domain = \"b.lab\"; route = [\"a.test:1\", \"nowhere\"]; });", false,
         "t.conf:2: peers[b.lab].route = \"nowhere\": must be an address or a host with a port, "
         "e.g. \"192.0.2.7:5269\", \"[2001:db8::1]:5269\" or \"host.example:5269\"\n1 error\n");
    says("peers = ({ domain = \"b.lab\"; route = 5269; });", false,
         "t.conf:2: peers[b.lab].route = 5269: must be a list of texts, e.g. [\"a\", \"b\"]\n"
         "1 error\n");
    says("peers = ({ domain = \"b.lab\"; route = \"a.test:1\"; local = \"alpha.lab\"; "
         "direction = \"out\"; until = \"2999-12-31T10:00:00Z\"; comment = \"x\"; });",
         true, "");
}

static void note(void *arg, const struct config_change *c)
{
    buf_printf(arg, "%s: %.*s -> %.*s\n", c->key, STR_ARG(c->old), STR_ARG(c->new_));
}

static void check_diff(const char *a, const char *b, const char *allow_before,
                       const char *allow_after, const char *expected)
{
    struct buf errors = BUF_INIT(4096), got = BUF_INIT(65536);
    put_file("allow.txt", allow_before);
    struct gateway_config *old = parse(a, &errors);
    put_file("allow.txt", allow_after);
    struct gateway_config *new_ = parse(b, &errors);
    assert_non_null(old);
    assert_non_null(new_);
    gateway_config_diff(old, new_, note, &got);
    strip_dir(&got);
    assert_string_equal(got.p != NULL ? got.p : "", expected);
    gateway_config_unref(old);
    gateway_config_unref(new_);
    buf_free(&errors);
    buf_free(&got);
}

static void test_diff(void **state)
{
    (void)state;
    const char *listed = "allow_file = \"allow.txt\";";
    check_diff(listed, listed, "a.lab\nb.lab\n", "b.lab\n# moved\na.lab\n", "");
    check_diff(listed, listed, "a.lab\nb.lab\n", "b.lab\nc.lab\n*.d.lab\n",
               "allow_file: allow.txt (2) -> allow.txt (3: +c.lab +*.d.lab -a.lab)\n");
    check_diff("", listed, "", "c.lab\n", "allow_file: (unset) (0) -> allow.txt (1: +c.lab)\n");
    check_diff(
        listed, listed, "", "n1\nn2\nn3\nn4\nn5\nn6\nn7\nn8\nn9\nn10\nn11\nn12\n",
        "allow_file: allow.txt (0) -> allow.txt (12: +n1 +n2 +n3 +n4 +n5 +n6 +n7 +n8 +n9 +n10 "
        "+2 more)\n");
    check_diff("peers = ({ domain = \"b.lab\"; route = \"a.test:1\"; });",
               "peers = ({ domain = \"b.lab\"; route = [\"a.test:1\", \"b.test:2\"]; "
               "local = \"alpha.lab\"; direction = \"in\"; until = \"2999-12-31\"; });",
               "", "",
               "peers[b.lab].route: a.test:1 -> [\"a.test:1\", \"b.test:2\"]\n"
               "peers[b.lab].local: (unset) -> alpha.lab\n"
               "peers[b.lab].direction: (unset) -> in\n"
               "peers[b.lab].until: (unset) -> 2999-12-31\n");
    check_diff("", "peers = ({ domain = \"b.lab\"; policy = \"allow\"; });", "", "",
               "peers[b.lab]: (absent) -> { domain = \"b.lab\"; policy = \"allow\"; }\n");
}

static void test_many(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(16 << 20), errors = BUF_INIT(65536);
    for (int i = 0; i <= DOMAINS_MAX; i++)
        buf_printf(&text, "d%d.example\n", i);
    put_file("allow.txt", text.p);
    assert_null(parse("allow_file = \"allow.txt\";", &errors));
    assert_non_null(strstr(errors.p, "allow.txt:200001: there are too many domains"));
    text.p[text.len - strlen("d200000.example\n")] = '\0';
    put_file("allow.txt", text.p);
    struct gateway_config *c = parse("allow_file = \"allow.txt\";", &errors);
    assert_non_null(c);
    assert_int_equal(c->allow->n, DOMAINS_MAX);
    gateway_config_unref(c);
    buf_free(&text);
    buf_free(&errors);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char text[] = LINKS "allow_file = \"allow.txt\"; deny_file = \"deny.txt\";"
                                     "peers = ({ domain = \"b.lab\"; route = [\"a.test:1\"]; "
                                     "local = [\"alpha.lab\"]; until = \"2001-01-01\"; });";
    put_file("allow.txt", "a.lab\nb.lab\nc.lab\nnot a domain\n");
    put_file("deny.txt", "d.lab\n");
    unsigned long n = 1;
    for (bool failed = true; failed; n++) {
        char room[65536];
        struct buf errors = {room, 0, sizeof room, sizeof room - 1, false};
        mem_fail_after(n);
        void *c = schema_load(&gateway_schema, in_dir("t.conf"), STR(text), &errors);
        mem_fail_after(0);
        failed = strstr(errors.len ? room : "", "out of memory") != NULL;
        assert_null(c);
        assert_true(n < 10000);
    }
    assert_true(n > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),   cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_entries), cmocka_unit_test(test_diff),
        cmocka_unit_test(test_many),    cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
