/* Both configurations: errors word by word, good files, drop-ins, look-ups, differences, the
 * example files, and every allocation failing once. Run from the root of the repository. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/diff.h"
#include "config/schema.h"
#include "config/source.h"
#include "config/value.h"
#include "core/base/mem.h"

/* Line 1 of most files; what a case adds begins at line 2. */
#define LINK                                                                                       \
    "links=({name=\"core\";address=\"10.0.0.5:7400\";component=\"edge.alpha.lab\";"                \
    "secret_file=\"link.secret\";});"
#define BASE "domains=({name=\"alpha.lab\";});" LINK "\n"

static char dir[64]; /* temporary folder with secrets and certificates */

/* ---- help ------------------------------------------------------------------------------------ */

static char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put_file(const char *name, const char *text, mode_t mode)
{
    const char *path = in_dir(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void remove_file(const char *name)
{
    assert_int_equal(remove(in_dir(name)), 0);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_config.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    put_file("link.secret", "inside\n", 0640);
    put_file("im.secret", "server", 0600);
    put_file("dialback.secret", "dialback secret\n", 0600);
    put_file("old.secret", "older\n", 0600);
    put_file("open.secret", "everybody\n", 0644);
    put_file("empty.secret", "\n", 0600);
    put_file("lines.secret", "one\ntwo\n", 0600);
    put_file("cert.pem", "certificate", 0644);
    put_file("key.pem", "key", 0600);
    put_file("router.pem", "certificate", 0644);
    put_file("router.key", "key", 0600);
    put_file("gateway.pem", "certificate", 0644);
    put_file("allow.txt", "", 0644), put_file("deny.txt", "", 0644);
    return mkdir(in_dir("conf.d"), 0700);
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const files[] = {
        "link.secret",  "im.secret",    "dialback.secret", "old.secret", "open.secret",
        "empty.secret", "lines.secret", "cert.pem",        "key.pem",    "router.pem",
        "router.key",   "gateway.pem",  "allow.txt",       "deny.txt"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        unlink(in_dir(files[i]));
    rmdir(in_dir("conf.d"));
    return rmdir(dir);
}

/* Removes every mention of the temporary folder. */
static void strip_dir(struct buf *b)
{
    char prefix[80];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s/", dir);
    for (size_t i = 0; i + n <= b->len;) {
        if (memcmp(b->p + i, prefix, n) != 0) {
            i++;
            continue;
        }
        memmove(b->p + i, b->p + i + n, b->len - i - n + 1);
        b->len -= n;
    }
}

static struct gateway_config *parse(const char *text, struct buf *errors)
{
    return gateway_config_parse(in_dir("t.conf"), str_c(text), errors);
}

static struct gateway_config *good(const char *text)
{
    struct buf errors = BUF_INIT(65536);
    struct gateway_config *c = parse(text, &errors);
    if (c == NULL || errors.len)
        fail_msg("%s", errors.p);
    buf_free(&errors);
    return c;
}

static struct router_config *good_router(const char *text)
{
    struct buf errors = BUF_INIT(65536);
    struct router_config *c = router_config_parse(in_dir("t.conf"), str_c(text), &errors);
    if (c == NULL || errors.len)
        fail_msg("%s", errors.p);
    buf_free(&errors);
    return c;
}

struct bad {
    const char *text, *errors;
};

static void check_bad(const struct bad *cases, size_t n, bool router)
{
    for (size_t i = 0; i < n; i++) {
        struct buf errors = BUF_INIT(65536);
        struct str text = str_c(cases[i].text);
        if (router)
            assert_null(router_config_parse(in_dir("t.conf"), text, &errors));
        else
            assert_null(gateway_config_parse(in_dir("t.conf"), text, &errors));
        strip_dir(&errors);
        assert_string_equal(errors.p, cases[i].errors);
        assert_false(config_missing(&errors));
        buf_free(&errors);
    }
}

/* ---- units ----------------------------------------------------------------------------------- */

static void test_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
        const char *printed;
    } durations[] = {{"500ms", 500, "500ms"}, {"30s", 30000, "30s"},   {"60s", 60000, "1m"},
                     {"5m", 300000, "5m"},    {"1h", 3600000, "1h"},   {"0s", 0, "0s"},
                     {"90s", 90000, "90s"},   {"24h", 86400000, "1d"}, {"1500ms", 1500, "1500ms"}};
    struct buf b = BUF_INIT(64);
    uint64_t v;
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        assert_true(duration_parse(str_c(durations[i].text), &v));
        assert_int_equal(v, durations[i].ms);
        buf_clear(&b);
        duration_put(&b, v);
        assert_string_equal(b.p, durations[i].printed);
    }
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *printed;
    } sizes[] = {{"10000", 10000, "10000"}, {"64K", 65536, "64K"},    {"10M", 10485760, "10M"},
                 {"1024K", 1048576, "1M"},  {"2G", 2147483648, "2G"}, {"0", 0, "0"}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_true(size_parse(str_c(sizes[i].text), &v));
        assert_int_equal(v, sizes[i].bytes);
        buf_clear(&b);
        size_put(&b, v);
        assert_string_equal(b.p, sizes[i].printed);
    }
    static const char *const wrong[] = {
        "", "s", "30", "-1s", "1.5s", "30 s", "30S", "1w", "99999999999999999999s", " 30s"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(duration_parse(str_c(wrong[i]), &v));
    assert_false(size_parse(STR("1k"), &v));
    assert_false(size_parse(STR("1KB"), &v));
    assert_false(size_parse(STR("K"), &v));
    assert_false(size_parse(STR("0x10"), &v));
    assert_true(size_parse(STR("999999999999999K"), &v));
    assert_false(size_parse(STR("999999999999999G"), &v));
    buf_free(&b);
}

/* ---- scanner --------------------------------------------------------------------------------- */

static void test_scan(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a = 1;", " a = 1 ;"},
        {"a = 5000000000;", " a = 5000000000L ;"},
        {"a = 2147483648; b = -2147483649; c = 2147483647; d = -2147483648;",
         " a = 2147483648L ; b = -2147483649L ; c = 2147483647 ; d = -2147483648 ;"},
        {"a = 0xFFFFFFFF;", " a = 4294967295L ;"},
        {"a = 99999999999999999999999;", " a = 9223372036854775807L ;"},
        {"a = 5L; b = 1.5e-3;", " a = 5L ; b = 1.5e-3 ;"},
        {"a = \"5000000000\"; # 5000000000", " a = \"5000000000\" ;"},
        {"a /* x\ny */ = // c\n1;", " a\n = 1\n ;"},
        {"l = [\"a\"\n,\n\"b\"\n];", " l = [ \"a\" ,\n\n \"b\" ]\n ;"},
        {"a = \"x\"\nb = 1", " a = \"x\"\n b = 1"},
        {"a = \"q\\\"#\\\\\";", " a = \"q\\\"#\\\\\" ;"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = BUF_INIT(4096);
        struct scan_fault fault, hint;
        assert_true(source_scan(str_c(cases[i].in), &out, &fault, &hint));
        assert_null(fault.text);
        assert_null(hint.text);
        /* Line ends move behind the token; only their number and the tokens matter. */
        if (i != 7)
            assert_string_equal(out.p, cases[i].out);
        unsigned lines = 0, given = 0;
        for (const char *p = out.p; *p; p++)
            lines += *p == '\n';
        for (const char *p = cases[i].in; *p; p++)
            given += *p == '\n';
        assert_int_equal(lines, given);
        buf_free(&out);
    }
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void test_syntax_errors(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"a = ;\n", "t.conf:1: syntax error\n1 error\n"},
        {BASE "federation = true;\nbidi = false;\nfederation = true;\n",
         "t.conf:4: a key of this line is set twice\n1 error\n"},
        {"x = [\"a\",\n];\n", "t.conf:2: a comma before ']' is not allowed\n1 error\n"},
        {"x = ({a=1;},);\n", "t.conf:1: a comma before ')' is not allowed\n1 error\n"},
        {"\n@include \"x\"\n", "t.conf:2: @include is not supported; use include_dir\n1 error\n"},
        {"\n/* no end\n\n", "t.conf:2: the comment does not end\n1 error\n"},
        {"\nx = \"no end\n;\n", "t.conf:2: the text does not end: a '\"' is missing\n1 error\n"},
        {"x = ((((((((((((((((((1))))))))))))))))));", "t.conf:1: nested too deeply\n1 error\n"},
        {"\nx = \"\xff\";\n", "t.conf:2: not UTF-8 text\n1 error\n"},
        {"x = \"a\\x00b\";\n", "t.conf:1: a NUL is not allowed in a text\n1 error\n"},
        {"x = [1, \"a\"];\n", "t.conf:1: mismatched element type in array\n1 error\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], false);
    struct buf errors = BUF_INIT(4096);
    assert_null(gateway_config_parse("n.conf", STR("a\0b"), &errors));
    assert_string_equal(errors.p, "n.conf:1: the file holds a NUL byte\n1 error\n");
    buf_free(&errors);
}

static void test_value_errors(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {BASE "security_mode = \"tls-requird\";",
         "t.conf:2: security_mode = \"tls-requird\": must be one of no-tls, tls-optional, "
         "tls-required (did you mean \"tls-required\"?)\n1 error\n"},
        {BASE "privacy_mode = \"whatever\";",
         "t.conf:2: privacy_mode = \"whatever\": must be one of off, allow-list, deny-list\n"
         "1 error\n"},
        {BASE "privacy_mode = 1;",
         "t.conf:2: privacy_mode = 1: must be one of off, allow-list, deny-list\n1 error\n"},
        {BASE "federation = \"true\";",
         "t.conf:2: federation = \"true\": must be true or false, without quotes\n1 error\n"},
        {BASE "securty_mode = \"no-tls\";",
         "t.conf:2: securty_mode: unknown key (did you mean \"security_mode\"?)\n1 error\n"},
        {BASE "xyzzy = 1;", "t.conf:2: xyzzy: unknown key\n1 error\n"},
        {BASE "limits = {\n stanza_sise = \"64K\";\n};",
         "t.conf:3: limits.stanza_sise: unknown key (did you mean \"stanza_size\"?)\n1 error\n"},
        {BASE "metrics = { port = \"x\"; };", "t.conf:2: metrics: unknown key\n1 error\n"},
        {BASE "limits = 5;", "t.conf:2: limits = 5: must be a group { ... }\n1 error\n"},
        {BASE "dns = { timeout = 10; };",
         "t.conf:2: dns.timeout = 10: must be a duration in quotes, e.g. \"500ms\", \"30s\", "
         "\"5m\" or \"1h\"\n1 error\n"},
        {BASE "dns = { timeout = \"10\"; };",
         "t.conf:2: dns.timeout = \"10\": must be a duration in quotes, e.g. \"500ms\", \"30s\", "
         "\"5m\" or \"1h\"\n1 error\n"},
        {BASE "dns = { timeout = \"2m\"; };",
         "t.conf:2: dns.timeout = \"2m\": must be from \"1s\" to \"1m\"\n1 error\n"},
        {BASE "limits = { stanza_size = 65536; };",
         "t.conf:2: limits.stanza_size = 65536: must be a size in quotes, e.g. \"4096\", \"64K\", "
         "\"10M\" or \"1G\"\n1 error\n"},
        {BASE "limits = { stanza_size = \"9999\"; };",
         "t.conf:2: limits.stanza_size = \"9999\": must be from \"10000\" to \"16M\"\n1 error\n"},
        {BASE "limits = { connections = 5000000000; };",
         "t.conf:2: limits.connections = 5000000000: must be from 1 to 1000000\n1 error\n"},
        {BASE "limits = { connections = 4294967297; unauthenticated = -1; };",
         "t.conf:2: limits.connections = 4294967297: must be from 1 to 1000000\n"
         "t.conf:2: limits.unauthenticated = -1: must be from 1 to 1000000\n2 errors\n"},
        {BASE "limits = { connections = 1.5; };",
         "t.conf:2: limits.connections = 1.5: must be a whole number, without quotes\n1 error\n"},
        {BASE "listen = { s2s = [\n\"127.0.0.1:5269\",\n\"localhost:5269\"\n]; };",
         "t.conf:4: listen.s2s = \"localhost:5269\": must be a literal address with a port, e.g. "
         "\"192.0.2.7:5269\" or \"[2001:db8::1]:5269\"\n1 error\n"},
        {BASE "listen = { s2s = \"127.0.0.1:5269\"; };",
         "t.conf:2: listen.s2s = \"127.0.0.1:5269\": must be a list of texts, e.g. [\"a\", \"b\"]\n"
         "1 error\n"},
        {BASE "outbound = { deny_networks = [\"10.0.0.0/33\"]; source = [\"host\"]; };",
         "t.conf:2: outbound.deny_networks = \"10.0.0.0/33\": must be a network in quotes, e.g. "
         "\"10.0.0.0/8\"\n"
         "t.conf:2: outbound.source = \"host\": must be an IP address\n2 errors\n"},
        {BASE "outbound = { source = [\"192.0.2.1\", \"192.0.2.2\"]; };",
         "t.conf:2: outbound.source = [\"192.0.2.1\", \"192.0.2.2\"]: at most one address per "
         "family\n1 error\n"},
        {BASE "outbound = { source = [1]; };",
         "t.conf:2: outbound.source = 1: must be a text in quotes\n1 error\n"},
        {BASE "outbound = { source = [\"::1\", \"::2\", \"::3\"]; };",
         "t.conf:2: outbound.source = [...]: at most 2 are allowed\n1 error\n"},
        {BASE "tls = { minimum = \"1.1\"; ca_file = \"none.pem\"; };",
         "t.conf:2: tls.minimum = \"1.1\": must be one of 1.2, 1.3 (did you mean \"1.2\"?)\n"
         "t.conf:2: tls.ca_file = \"none.pem\": No such file or directory\n2 errors\n"},
        {BASE "log = { rate = 5; level = \"verbose\"; };",
         "t.conf:2: log.level = \"verbose\": must be one of error, warn, notice, info, debug, "
         "trace\n"
         "t.conf:2: log.rate = 5: must be 0 (no limit) or from 10 to 100000\n2 errors\n"},
        {BASE "user = \"a b\";",
         "t.conf:2: user = \"a b\": must be 1 to 64 letters, digits, '.', '_' or '-'\n1 error\n"},
        {BASE "federation = \"\xc2\x9b\\x1b[31m\";",
         "t.conf:2: federation = \"\\xC2\\x9B\\x1B[31m\": must be true or false, without quotes\n"
         "1 error\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], false);
}

static void test_not_available(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {BASE "workers = 2;", "t.conf:2: workers = 2: not available in this version\n1 error\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], false);
    gateway_config_unref(good(BASE "workers = 1;"));
}

static void test_group_errors(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"", "t.conf: domains: required but missing\nt.conf: links: required but missing\n"
             "2 errors\n"},
        {"domains = ();\n" LINK, "t.conf:1: domains: at least 1 is required\n1 error\n"},
        {"domains = { name = \"a.lab\"; };\n" LINK,
         "t.conf:1: domains = {...}: must be a list of groups, e.g. ( { ... }, { ... } )\n"
         "t.conf:1: domains: at least 1 is required\n2 errors\n"},
        {"domains = (\"a.lab\");\n" LINK, "t.conf:1: domains = \"a.lab\": must be a group { ... }\n"
                                          "t.conf:1: domains: at least 1 is required\n2 errors\n"},
        {"domains = (\n{ name = \"a.lab\"; },\n{ subdomains = true; },\n{ name = \"A.lab\"; },\n"
         "{ name = \"a..lab\"; },\n{ name = \"127.0.0.1\"; },\n{ name = \"\"; });\n" LINK,
         "t.conf:3: domains[#2].name: required but missing\n"
         "t.conf:4: domains[a.lab]: already listed at t.conf:2\n"
         "t.conf:5: domains[a..lab].name = \"a..lab\": not a valid domain name\n"
         "t.conf:6: domains[127.0.0.1].name = \"127.0.0.1\": not a valid domain name\n"
         "t.conf:7: domains[#6].name = \"\": must not be empty\n5 errors\n"},
        {"domains = (\n{ name = \"a.lab\"; certificate = \"cert.pem\"; },\n"
         "{ name = \"b.lab\"; key = \"key.pem\"; },\n"
         "{ name = \"c.lab\"; certificate = \"none.pem\"; key = \"conf.d\"; });\n" LINK,
         "t.conf:2: domains[a.lab].certificate = \"cert.pem\": needs a key beside it\n"
         "t.conf:3: domains[b.lab].key = \"key.pem\": needs a certificate beside it\n"
         "t.conf:4: domains[c.lab].certificate = \"none.pem\": No such file or directory\n"
         "t.conf:4: domains[c.lab].key = \"conf.d\": not a regular file\n4 errors\n"},
        {BASE "peers = (\n{ domain = \"*.b.lab\"; },\n{ domain = \"*b.lab\"; },\n"
              "{ domain = \"*.*.lab\"; },\n{ domain = \"*.B.lab\"; },\n{ policy = \"allow\"; },\n"
              "{ domain = \"c.lab\"; policy = \"alow\"; security_mode = \"tls\"; });",
         "t.conf:4: peers[*b.lab].domain = \"*b.lab\": must be a domain name, \"*.suffix\" or "
         "\"*\"\n"
         "t.conf:5: peers[*.*.lab].domain = \"*.*.lab\": must be a domain name, \"*.suffix\" or "
         "\"*\"\n"
         "t.conf:6: peers[*.b.lab]: already listed at t.conf:3\n"
         "t.conf:7: peers[#5].domain: required but missing\n"
         "t.conf:8: peers[c.lab].policy = \"alow\": must be one of allow, deny (did you mean "
         "\"allow\"?)\n"
         "t.conf:8: peers[c.lab].security_mode = \"tls\": must be one of no-tls, tls-optional, "
         "tls-required\n6 errors\n"},
        {"domains = ({ name = \"a.lab\"; });\nlinks = ({\nname = \"co re\";\n"
         "address = \"router.lab:7400\";\ncomponent = \"a b\"; });",
         "t.conf:3: links[co re].name = \"co re\": must be 1 to 64 letters, digits, '.', '_' or "
         "'-'\n"
         "t.conf:3: links[#1].secret_file: required but missing\n"
         "t.conf:4: links[co re].address = \"router.lab:7400\": must be a literal address with a "
         "port, e.g. \"192.0.2.7:5269\" or \"[2001:db8::1]:5269\"\n"
         "t.conf:5: links[co re].component = \"a b\": not a valid domain name\n4 errors\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], false);
}

static void test_routes(void **state)
{
    (void)state;
    static const char *const wrong[] = {"192.0.2.7",      "192.0.2.7:0",      "192.0.2.7:65536",
                                        "[2001:db8::1]",  "2001:db8::1:5269", "host.example",
                                        "host.example:",  "host.example:x",   ":5269",
                                        "-host.lab:5269", "[192.0.2.7]:5269"};
    char text[512];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct buf errors = BUF_INIT(4096);
        snprintf(text, sizeof text, BASE "peers=({domain=\"b.lab\";route=\"%s\";});", wrong[i]);
        assert_null(parse(text, &errors));
        assert_non_null(strstr(errors.p, "must be an address or a host with a port"));
        buf_free(&errors);
    }
    static const char *const right[][2] = {{"192.0.2.7:5269", "192.0.2.7:5269"},
                                           {"[2001:DB8::1]:5269", "[2001:db8::1]:5269"},
                                           {"Host.Example:5270", "host.example:5270"}};
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        snprintf(text, sizeof text, BASE "peers=({domain=\"b.lab\";route=\"%s\";});", right[i][0]);
        struct gateway_config *c = good(text);
        assert_string_equal(c->peers[0].route[0], right[i][1]);
        gateway_config_unref(c);
    }
}

static void test_secrets(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {BASE "dialback = { secret_file = \"open.secret\"; };",
         "t.conf:2: dialback.secret_file = \"open.secret\": a secret that others may use (mode "
         "0644); run chmod o= on it\n1 error\n"},
        {BASE "dialback = { secret_file = \"empty.secret\"; };",
         "t.conf:2: dialback.secret_file = \"empty.secret\": the file is empty\n1 error\n"},
        {BASE "dialback = { secret_file = \"lines.secret\"; };",
         "t.conf:2: dialback.secret_file = \"lines.secret\": the file holds more than one line of "
         "text\n1 error\n"},
        {BASE "dialback = { secret_file = \"none.secret\"; };",
         "t.conf:2: dialback.secret_file = \"none.secret\": No such file or directory\n1 error\n"},
        {BASE "dialback = { previous_secret_files = [\"old.secret\", \"open.secret\"]; };",
         "t.conf:2: dialback.previous_secret_files = \"open.secret\": a secret that others may use "
         "(mode 0644); run chmod o= on it\n1 error\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], false);
    struct gateway_config *c = good(BASE "dialback = { secret_file = \"dialback.secret\"; "
                                         "previous_secret_files = [\"old.secret\"]; };");
    assert_string_equal(c->dialback.secret, "dialback secret");
    assert_string_equal(c->dialback.secret_file, in_dir("dialback.secret"));
    assert_int_equal(c->dialback.nprevious, 1);
    assert_string_equal(c->dialback.previous_secrets[0], "older");
    assert_string_equal(c->links[0].secret, "inside");
    gateway_config_unref(c);
}

static void test_warnings(void **state)
{
    (void)state;
    struct buf errors = BUF_INIT(4096);
    struct gateway_config *c = parse(BASE "timeouts = { auth = \"10s\"; };", &errors);
    assert_non_null(c);
    strip_dir(&errors);
    assert_string_equal(errors.p,
                        "t.conf:2: warning: timeouts.auth = \"10s\": dialback.timeout should be "
                        "shorter than timeouts.auth, or a slow authority costs the stream\n");
    gateway_config_unref(c);
    buf_free(&errors);
}

/* ---- good files ------------------------------------------------------------------------------ */

static void test_defaults(void **state)
{
    (void)state;
    struct gateway_config *c = good(BASE);
    assert_true(c->federation && c->use_static_routes);
    assert_int_equal(c->security_mode, SECURITY_TLS_REQUIRED);
    assert_int_equal(c->privacy_mode, PRIVACY_ALLOW_LIST);
    assert_null(c->include_dir);
    assert_null(c->dialback.secret);
    assert_int_equal(c->dialback.timeout, 20000);
    assert_int_equal(c->listen.ns2s, 2);
    assert_string_equal(c->listen.s2s[1], "[::]:5269");
    assert_int_equal(c->dns.nservers, 0);
    assert_int_equal(c->dns.timeout, 10000);
    assert_int_equal(c->outbound.ndeny, 22);
    assert_int_equal(c->timeouts.idle, 3600000);
    assert_int_equal(c->limits.stanza_size, 262144);
    assert_int_equal(c->limits.queue_stanzas, 1000);
    assert_int_equal(c->limits.hold_time, 10000);
    assert_null(c->tls.ca_file);
    assert_int_equal(c->tls.minimum, 0x0303);
    assert_int_equal(c->log.level, LOG_INFO);
    assert_int_equal(c->log.format, LOG_LOGFMT);
    assert_int_equal(c->log.rate, 1000);
    assert_null(c->user);
    assert_false(c->domains[0].subdomains);
    assert_string_equal(c->file, in_dir("t.conf"));
    gateway_config_unref(c);
}

static void test_deny_default(void **state)
{
    (void)state;
    static const struct {
        const char *ip;
        bool denied;
    } cases[] = {{"0.1.2.3", true},
                 {"10.255.0.1", true},
                 {"100.127.255.255", true},
                 {"100.128.0.0", false},
                 {"127.0.0.53", true},
                 {"169.254.1.1", true},
                 {"172.15.0.1", false},
                 {"172.31.0.1", true},
                 {"192.0.0.8", true},
                 {"192.0.1.1", false},
                 {"192.88.99.1", true},
                 {"192.168.7.7", true},
                 {"198.19.0.1", true},
                 {"198.51.100.9", true},
                 {"203.0.113.1", true},
                 {"224.0.0.1", true},
                 {"255.255.255.255", true},
                 {"8.8.8.8", false},
                 {"::", true},
                 {"::1", true},
                 {"64:ff9b::808:808", false},
                 {"100::1", true},
                 {"2001:db8::1", true},
                 {"fd00::1", true},
                 {"fe80::1", true},
                 {"ff02::1", true},
                 {"2606:4700::1", false},
                 {"::ffff:127.0.0.1", true}};
    struct gateway_config *c = good(BASE);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip ip;
        bool denied = false;
        assert_true(ip_parse(str_c(cases[i].ip), &ip));
        for (size_t k = 0; k < c->outbound.ndeny; k++)
            denied |= cidr_has(&c->outbound.deny_networks[k], &ip);
        assert_int_equal(denied, cases[i].denied);
    }
    gateway_config_unref(c);
}

static void test_full(void **state)
{
    (void)state;
    struct gateway_config *c =
        good("federation = false; security_mode = \"no-tls\"; privacy_mode = \"off\";\n"
             "use_static_routes = false;\n"
             "domains = ( { name = \"B\xc3\xbc"
             "cher.example\"; certificate = \"cert.pem\"; "
             "key = \"key.pem\"; subdomains = true; } );\n"
             "peers = ( { domain = \"*\"; policy = \"deny\"; security_mode = \"tls-optional\"; },\n"
             "          { domain = \"b.lab\"; } );\n"
             "listen = { s2s = (\"127.0.0.1:5269\"); };\n"
             "dns = { servers = [\"10.0.0.53:53\"]; timeout = \"1500\" \"ms\"; };\n" LINK
             "outbound = { source = [\"192.0.2.1\", \"2001:DB8::1\"]; deny_networks = []; };\n"
             "tls = { ca_file = \"cert.pem\"; minimum = \"1.3\"; };\n"
             "log = { level = \"trace\"; format = \"json\"; rate = 0; }; user = \"nobody\";\n"
             "limits = { stanza_size = \"512K\"; connections = 0x10; };\n");
    assert_false(c->federation || c->use_static_routes);
    assert_int_equal(c->security_mode, SECURITY_NO_TLS);
    assert_int_equal(c->privacy_mode, PRIVACY_OFF);
    assert_string_equal(c->domains[0].name, "xn--bcher-kva.example");
    assert_string_equal(c->domains[0].certificate, in_dir("cert.pem"));
    assert_string_equal(c->domains[0].key, in_dir("key.pem"));
    assert_true(c->domains[0].subdomains);
    assert_int_equal(c->peers[0].policy, PEER_DENY);
    assert_int_equal(c->peers[0].security_mode, SECURITY_TLS_OPTIONAL);
    assert_int_equal(c->peers[1].policy, PEER_UNSET);
    assert_int_equal(c->peers[1].security_mode, CONFIG_UNSET);
    assert_int_equal(c->peers[1].nroute, 0);
    assert_int_equal(c->listen.ns2s, 1);
    assert_int_equal(c->dns.timeout, 1500);
    assert_string_equal(c->outbound.source[1], "2001:db8::1");
    assert_int_equal(c->outbound.ndeny, 0);
    assert_string_equal(c->tls.ca_file, in_dir("cert.pem"));
    assert_int_equal(c->tls.minimum, 0x0304);
    assert_int_equal(c->log.level, LOG_TRACE);
    assert_int_equal(c->log.format, LOG_JSON);
    assert_int_equal(c->log.rate, 0);
    assert_string_equal(c->user, "nobody");
    assert_int_equal(c->limits.stanza_size, 524288);
    assert_int_equal(c->limits.connections, 16);
    gateway_config_unref(c);
}

static void test_missing(void **state)
{
    (void)state;
    struct buf errors = BUF_INIT(4096);
    assert_null(gateway_config_load("/nonexistent/sallyport.conf", &errors));
    assert_string_equal(errors.p, "configuration file missing: /nonexistent/sallyport.conf\n");
    assert_true(config_missing(&errors));
    buf_clear(&errors);
    assert_null(router_config_load(dir, &errors));
    assert_false(config_missing(&errors));
    strip_dir(&errors);
    assert_non_null(strstr(errors.p, ": Is a directory\n1 error\n"));
    buf_free(&errors);
}

/* ---- include_dir ----------------------------------------------------------------------------- */

static void test_include(void **state)
{
    (void)state;
    put_file("main.conf", BASE "include_dir = \"conf.d\";\npeers = ({ domain = \"a.lab\"; });\n",
             0600);
    put_file("conf.d/20.conf", "peers = ({ domain = \"c.lab\"; });\ndns = { timeout = \"3s\"; };\n",
             0600);
    put_file("conf.d/10.conf",
             "peers = ({ domain = \"b.lab\"; });\n"
             "dns = { servers = [\"10.0.0.1:53\"]; };\n",
             0600);
    put_file("conf.d/30.conf.off", "not read", 0600);
    put_file("conf.d/.hidden.conf", "not read", 0600);
    struct buf errors = BUF_INIT(4096), shown = BUF_INIT(65536);
    struct gateway_config *c = gateway_config_load(in_dir("main.conf"), &errors);
    assert_non_null(c);
    assert_int_equal(c->npeers, 3);
    assert_string_equal(c->peers[0].pattern, "a.lab");
    assert_string_equal(c->peers[1].pattern, "b.lab");
    assert_string_equal(c->peers[2].pattern, "c.lab");
    assert_int_equal(c->dns.timeout, 3000);
    assert_int_equal(c->dns.nservers, 1);
    schema_show(&gateway_schema, c, &shown);
    strip_dir(&shown);
    assert_true(str_starts(buf_view(&shown), "include_dir = \"conf.d\";  # main.conf:2\n"));
    assert_non_null(strstr(shown.p, "\nfederation = true;  # default\n"));
    assert_non_null(strstr(shown.p, "\npeers[c.lab].domain = \"c.lab\";  # conf.d/20.conf:1\n"));
    assert_non_null(strstr(shown.p, "\ndns.timeout = \"3s\";  # conf.d/20.conf:2\n"));
    assert_non_null(
        strstr(shown.p, "\nlinks[core].secret_file = \"link.secret\";  # main.conf:1\n"));
    assert_null(strstr(shown.p, "inside"));
    gateway_config_unref(c);
    buf_free(&shown);

    put_file("conf.d/10.conf",
             "dns = { timeout = \"2s\"; };\npeers = ({ domain = \"a.lab\"; });\n"
             "include_dir = \"x\";\n",
             0600);
    put_file("conf.d/30.conf", "a = ;", 0600);
    assert_null(gateway_config_load(in_dir("main.conf"), &errors));
    strip_dir(&errors);
    assert_string_equal(errors.p,
                        "conf.d/10.conf:2: peers[a.lab]: already listed at main.conf:3\n"
                        "conf.d/10.conf:3: include_dir = \"x\": only the main file may set it\n"
                        "conf.d/20.conf:2: dns.timeout = \"3s\": already set at conf.d/10.conf:1\n"
                        "conf.d/30.conf:1: syntax error\n4 errors\n");
    buf_clear(&errors);
    put_file("main.conf", BASE "\ninclude_dir = \"nowhere\";", 0600);
    assert_null(gateway_config_load(in_dir("main.conf"), &errors));
    strip_dir(&errors);
    assert_string_equal(
        errors.p, "main.conf:3: include_dir: \"nowhere\": No such file or directory\n1 error\n");
    buf_free(&errors);
    static const char *const files[] = {"main.conf",          "conf.d/10.conf",
                                        "conf.d/20.conf",     "conf.d/30.conf",
                                        "conf.d/30.conf.off", "conf.d/.hidden.conf"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        remove_file(files[i]);
}

/* ---- router ---------------------------------------------------------------------------------- */

#define EDGE                                                                                       \
    "{name=\"edge1\";role=\"gateway\";transport=\"accept\";component=\"edge.alpha.lab\";"          \
    "secret_file=\"link.secret\";}"
#define IM                                                                                         \
    "{name=\"im\";role=\"server\";transport=\"dial\";address=\"10.0.0.9:5347\";"                   \
    "component=\"edge.alpha.lab\";domains=[\"alpha.lab\"];secret_file=\"im.secret\";}"

static void test_router(void **state)
{
    (void)state;
    struct router_config *c = good_router("links=(" EDGE "," IM ");");
    assert_int_equal(c->nlinks, 2);
    assert_int_equal(c->listen.nlinks, 1);
    assert_string_equal(c->listen.links[0], "127.0.0.1:7400");
    assert_int_equal(c->links[1].role, ROLE_SERVER);
    assert_int_equal(c->links[1].transport, TRANSPORT_DIAL);
    assert_string_equal(c->links[1].domains[0], "alpha.lab");
    assert_string_equal(c->links[1].secret, "server");
    assert_int_equal(c->limits.buffer, 1 << 20);
    struct router_config *again = router_config_ref(c);
    router_config_unref(again);
    router_config_unref(c);
    static const struct bad cases[] = {
        {"", "t.conf: links: required but missing\n1 error\n"},
        {"links=({});",
         "t.conf: links[#1].secret_file: required but missing (only auth \"tls\" needs no "
         "password)\n"
         "t.conf:1: links[#1].name: required but missing\n"
         "t.conf:1: links[#1].role: required but missing\n"
         "t.conf:1: links[#1].transport: required but missing\n"
         "t.conf:1: links[#1].component: required but missing\n5 errors\n"},
        {"links=({name=\"e\";\nrole=\"gateway\";\ntransport=\"dial\";\ncomponent=\"e.lab\";\n"
         "domains=[\"a.lab\"];\nsecret_file=\"link.secret\";});",
         "t.conf:1: links[e].address: required with transport \"dial\"\n"
         "t.conf:3: links[e].transport = \"dial\": a gateway that is dialled needs auth \"tls\" or "
         "\"tls+password\": the handshake proves the gateway to us, but not us to the gateway\n"
         "t.conf:5: links[e].domains = [\"a.lab\"]: only a link with role \"server\" owns domains\n"
         "3 errors\n"},
        {"listen={links=[];};\nlinks=({name=\"s\";role=\"server\";transport=\"accept\";\n"
         "address=\"127.0.0.1:1\";\ncomponent=\"e.lab\";secret_file=\"link.secret\";});",
         "t.conf:1: listen.links = []: at least one is required, because a link has transport "
         "\"accept\"\n"
         "t.conf:2: links[s].domains = []: required with role \"server\"\n"
         "t.conf:3: links[s].address = \"127.0.0.1:1\": not allowed with transport \"accept\"\n"
         "3 errors\n"},
        {"links=(\n" EDGE ",\n" IM ",\n{name=\"edge2\";role=\"gateway\";transport=\"accept\";\n"
         "component=\"EDGE.alpha.lab\";secret_file=\"link.secret\";},\n"
         "{name=\"im2\";role=\"server\";transport=\"dial\";address=\"10.0.0.9:5347\";"
         "component=\"x.lab\";secret_file=\"im.secret\";\ndomains=[\"beta.lab\",\"alpha.lab\"];});",
         "t.conf:5: links[edge2].component = \"edge.alpha.lab\": edge.alpha.lab belongs to "
         "links[edge1] already\n"
         "t.conf:7: links[im2].domains = [\"beta.lab\", \"alpha.lab\"]: alpha.lab belongs to "
         "links[im] already\n2 errors\n"},
        {"links=(\n" IM ",\n" IM ");",
         "t.conf:3: links[im]: already listed at t.conf:2\n"
         "t.conf:3: links[im].domains = [\"alpha.lab\"]: alpha.lab belongs to links[im] already\n"
         "2 errors\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], true);
}

#define OWN  "certificate=\"cert.pem\";key=\"key.pem\";"
#define HASH "56:3A:9E:4D:A9:1B:1C:4E:0F:0D:5F:B5:65:A6:8B:7C:C8:3E:9F:10"
#define TLS_LINK                                                                                   \
    "{name=\"t\";role=\"gateway\";transport=\"accept\";component=\"t.lab\";auth=\"tls\";" OWN      \
    "store_file=\"cert.pem\";}"

static void test_router_proof(void **state)
{
    (void)state;
    struct router_config *c = good_router(
        "links=(" EDGE
        ",{name=\"out\";role=\"gateway\";transport=\"dial\";address=\"192.0.2.1:7400\";"
        "component=\"out.lab\";auth=\"tls+password\";" OWN "ca_file=\"cert.pem\";"
        "peer_name=\"Gate.lab\";secret_file=\"link.secret\";}," TLS_LINK
        ",{name=\"s\";role=\"server\";transport=\"accept\";component=\"s.lab\";domains=[\"s.lab\"];"
        "secret_file=\"im.secret\";peer_name=\"s.lab\";proven_file=\"none/yet\";});"
        "splices=({name=\"j\";gateway=\"192.0.2.1:7401\";server=\"10.0.0.9:5347\";" OWN
        "authlist=[\"sha1:" HASH "\"];});timeouts={dead=\"5s\";};");
    assert_int_equal(c->links[0].proof.auth, LINK_AUTH_PASSWORD);
    assert_int_equal(c->links[1].proof.auth, LINK_AUTH_TLS_PASSWORD);
    assert_string_equal(c->links[1].proof.peer_name, "gate.lab");
    assert_non_null(strstr(c->links[1].proof.ca_file, "/cert.pem"));
    assert_int_equal(c->links[2].proof.auth, LINK_AUTH_TLS);
    assert_null(c->links[2].secret);
    assert_non_null(strstr(c->links[3].proven_file, "/none/yet"));
    assert_int_equal(c->nsplices, 1);
    assert_string_equal(c->splices[0].server, "10.0.0.9:5347");
    assert_int_equal(c->splices[0].proof.nauthlist, 1);
    assert_int_equal(c->timeouts.dead, 5000);
    router_config_unref(c);
    c = good_router(
        "links=();splices=({name=\"j\";gateway=\"192.0.2.1:7401\";server=\"10.0.0.9:5347\";" OWN
        "store_file=\"cert.pem\";});"); /* nothing but a splice */
    assert_int_equal(c->nlinks, 0);
    assert_int_equal(c->timeouts.dead, 10000);
    router_config_unref(c);

    static const struct bad cases[] = {
        {"links=({name=\"e\";role=\"gateway\";transport=\"dial\";address=\"192.0.2.1:7400\";\n"
         "component=\"e.lab\";secret_file=\"link.secret\";\nauth=\"password\";});",
         "t.conf:3: links[e].auth = \"password\": a gateway that is dialled needs auth \"tls\" or "
         "\"tls+password\": the handshake proves the gateway to us, but not us to the gateway\n"
         "1 error\n"},
        {"links=({name=\"e\";role=\"gateway\";transport=\"accept\";component=\"e.lab\";\n"
         "auth=\"tls\";});",
         "t.conf:2: links[e].auth = \"tls\": needs certificate and key: what we show the other "
         "side\n"
         "t.conf:2: links[e].auth = \"tls\": needs store_file, authlist or ca_file: how we know "
         "the "
         "other side\n2 errors\n"},
        {"links=({name=\"e\";role=\"gateway\";transport=\"accept\";component=\"e.lab\";\n"
         "auth=\"tls+password\";\ncertificate=\"cert.pem\";\nauthlist=[\"abcd\"];});",
         "t.conf:1: links[e].secret_file: required but missing (only auth \"tls\" needs no "
         "password)\n"
         "t.conf:3: links[e].certificate = \"cert.pem\": needs a key beside it\n"
         "t.conf:4: links[e].authlist = \"abcd\": "
         "wrong number of hex digits: SHA-1 has 40, SHA-256 has 64"
         "\n3 errors\n"},
        {"links=({name=\"e\";role=\"gateway\";transport=\"accept\";component=\"e.lab\";\n"
         "auth=\"tls\";" OWN "\nca_file=\"cert.pem\";});",
         "t.conf:3: links[e].ca_file = \"cert.pem\": is not enough without \"tls+password\": list "
         "the certificate in store_file, or its key in authlist\n1 error\n"},
        {"links=(" EDGE ");\nsplices=({name=\"j\";gateway=\"192.0.2.1:7401\";\nkey=\"key.pem\";\n"
         "ca_file=\"cert.pem\";});",
         "t.conf:2: splices[j].server: required but missing\n"
         "t.conf:3: splices[j].key = \"key.pem\": needs a certificate beside it\n"
         "t.conf:4: splices[j].ca_file = \"cert.pem\": is not enough without \"tls+password\": "
         "list "
         "the certificate in store_file, or its key in authlist\n3 errors\n"},
        {"links=({name=\"e\";role=\"gateway\";transport=\"accept\";component=\"e.lab\";\n"
         "secret_file=\"link.secret\";\nproven_file=\"p\";});",
         "t.conf:3: links[e].proven_file = \"p\": needs peer_name: it is what is remembered\n"
         "1 error\n"},
        {"links=(" TLS_LINK
         ",{name=\"e\";role=\"server\";transport=\"accept\";component=\"e.lab\";\n"
         "domains=[\"e.lab\"];auth=\"tls\";store_file=\"cert.pem\";\ncertificate=\"key.pem\";"
         "key=\"key.pem\";});",
         "t.conf:3: links[e].certificate = \"key.pem\": must be that of links[t]: with transport "
         "\"accept\" all links with TLS share certificate, key and ca_file\n1 error\n"},
        {"\nlinks=();", "t.conf:2: links: at least one link or splice is required\n1 error\n"},
        {"links=(" EDGE ");\ntimeouts={dead=\"2s\";};",
         "t.conf:2: timeouts.dead = \"2s\": must be from \"3s\" to \"10m\"\n1 error\n"},
    };
    check_bad(cases, sizeof cases / sizeof cases[0], true);
}

/* ---- look-ups -------------------------------------------------------------------------------- */

static bool has_policy(const struct cfg_peer *p)
{
    return p->policy != PEER_UNSET;
}

static bool has_mode(const struct cfg_peer *p)
{
    return p->security_mode != CONFIG_UNSET;
}

static bool has_route(const struct cfg_peer *p)
{
    return p->nroute > 0;
}

static const char *pattern(const struct cfg_peer *p)
{
    return p ? p->pattern : "none";
}

static void check_peers(const struct gateway_config *c)
{
    static const struct {
        const char *remote, *any, *policy, *mode, *route;
    } cases[] = {
        {"beta.lab", "beta.lab", "beta.lab", "*", "beta.lab"},
        {"x.beta.lab", "*", "none", "*", "none"},
        {"partner.example", "*", "none", "*", "none"},
        {"a.partner.example", "*.partner.example", "*.partner.example", "*.partner.example",
         "none"},
        {"a.b.partner.example", "*.partner.example", "*.partner.example", "*.partner.example",
         "none"},
        {"x.deep.partner.example", "*.deep.partner.example", "*.partner.example",
         "*.partner.example", "*.deep.partner.example"},
        {"deep.partner.example", "deep.partner.example", "deep.partner.example",
         "*.partner.example", "none"},
        {"xpartner.example", "*", "none", "*", "none"},
        {"", "none", "none", "none", "none"},
        {"*.partner.example", "none", "none", "none", "none"},
        {".partner.example", "none", "none", "none", "none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str r = str_c(cases[i].remote);
        assert_string_equal(pattern(gateway_config_peer(c, r, NULL)), cases[i].any);
        assert_string_equal(pattern(gateway_config_peer(c, r, has_policy)), cases[i].policy);
        assert_string_equal(pattern(gateway_config_peer(c, r, has_mode)), cases[i].mode);
        assert_string_equal(pattern(gateway_config_peer(c, r, has_route)), cases[i].route);
    }
}

static void test_peers(void **state)
{
    (void)state;
    struct gateway_config *c = good(
        BASE "peers = ( { domain = \"*\"; security_mode = \"tls-optional\"; },"
             "{ domain = \"*.partner.example\"; policy = \"allow\"; security_mode = \"no-tls\"; },"
             "{ domain = \"deep.partner.example\"; policy = \"deny\"; },"
             "{ domain = \"*.deep.partner.example\"; route = \"192.0.2.1:5269\"; },"
             "{ domain = \"beta.lab\"; policy = \"allow\"; route = \"192.0.2.7:5269\"; } );");
    check_peers(c);
    /* A snapshot made by hand has no index. */
    struct gateway_config plain = *c;
    plain.meta = NULL;
    check_peers(&plain);
    gateway_config_unref(c);
}

static void test_domains(void **state)
{
    (void)state;
    struct gateway_config *c =
        good("domains = ( { name = \"alpha.lab\"; subdomains = true; }, { name = \"gamma.lab\"; },"
             "{ name = \"x.alpha.lab\"; } );" LINK);
    static const char *const cases[][2] = {{"alpha.lab", "alpha.lab"},
                                           {"a.alpha.lab", "alpha.lab"},
                                           {"a.b.alpha.lab", "alpha.lab"},
                                           {"x.alpha.lab", "x.alpha.lab"},
                                           {"y.x.alpha.lab", "alpha.lab"},
                                           {"gamma.lab", "gamma.lab"},
                                           {"a.gamma.lab", NULL},
                                           {"xalpha.lab", NULL},
                                           {"lab", NULL},
                                           {"", NULL},
                                           {".alpha.lab", NULL},
                                           {"beta.lab", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct cfg_domain *d = gateway_config_domain(c, str_c(cases[i][0]));
        if (cases[i][1] == NULL) {
            assert_null(d);
        } else {
            assert_non_null(d);
            assert_string_equal(d->name, cases[i][1]);
        }
    }
    gateway_config_unref(c);
}

static void test_many_peers(void **state)
{
    (void)state;
    enum { PEERS = 20000 };
    struct buf text = BUF_INIT(4 << 20), errors = BUF_INIT(4096);
    buf_puts(&text, BASE "peers = (");
    for (int i = 0; i < PEERS; i++)
        buf_printf(&text, "%s{ domain = \"p%d.lab\"; policy = \"allow\"; }", i ? "," : "", i);
    buf_puts(&text, ");");
    struct gateway_config *c = gateway_config_parse("many.conf", buf_view(&text), &errors);
    assert_null(c); /* link.secret is not in this folder */
    buf_clear(&errors);
    c = gateway_config_parse(in_dir("t.conf"), buf_view(&text), &errors);
    assert_non_null(c);
    assert_int_equal(c->npeers, PEERS);
    assert_string_equal(gateway_config_peer(c, STR("p19999.lab"), NULL)->pattern, "p19999.lab");
    assert_null(gateway_config_peer(c, STR("p20000.lab"), NULL));
    gateway_config_unref(c);
    buf_free(&text);
    buf_free(&errors);
}

/* ---- differences ----------------------------------------------------------------------------- */

static void note(void *arg, const struct config_change *c)
{
    buf_printf(arg, "%s: %.*s -> %.*s%s\n", c->key, STR_ARG(c->old), STR_ARG(c->new_),
               c->restart ? " (restart)" : "");
}

static void check_diff(const char *from, const char *to, const char *expected, size_t n)
{
    struct buf got = BUF_INIT(65536);
    struct gateway_config *a = good(from), *b = good(to);
    assert_int_equal(gateway_config_diff(a, b, note, &got), n);
    strip_dir(&got);
    assert_string_equal(got.p ? got.p : "", expected);
    buf_clear(&got);
    assert_int_equal(gateway_config_diff(a, a, note, &got), 0);
    gateway_config_unref(a);
    gateway_config_unref(b);
    buf_free(&got);
}

static void test_diff(void **state)
{
    (void)state;
    check_diff(BASE "timeouts = { queue = \"60s\"; };", BASE "timeouts = { queue = \"1m\"; };", "",
               0);
    check_diff(BASE,
               BASE "security_mode = \"tls-optional\"; federation = false;"
                    "listen = { s2s = [\"127.0.0.1:5269\"]; }; dns = { timeout = \"30s\"; };"
                    "limits = { stanza_size = \"64K\"; connections = 5; }; user = \"nobody\";"
                    "outbound = { source = [\"::1\"]; }; tls = { ca_file = \"cert.pem\"; };",
               "federation: true -> false\n"
               "security_mode: tls-required -> tls-optional\n"
               "listen.s2s: [\"0.0.0.0:5269\", \"[::]:5269\"] -> [\"127.0.0.1:5269\"] (restart)\n"
               "dns.timeout: 10s -> 30s\n"
               "outbound.source: [] -> [\"::1\"]\n"
               "limits.stanza_size: 256K -> 64K\n"
               "limits.connections: 4000 -> 5\n"
               "tls.ca_file: (unset) -> cert.pem\n"
               "user: (unset) -> nobody (restart)\n",
               9);
}

static void test_diff_lists(void **state)
{
    (void)state;
    check_diff(BASE
               "peers = ( { domain = \"a.lab\"; policy = \"allow\"; }, { domain = \"b.lab\"; },"
               "{ domain = \"*\"; } );",
               BASE "peers = ( { domain = \"*\"; policy = \"deny\"; },"
                    "{ domain = \"c.lab\"; policy = \"allow\"; route = \"192.0.2.7:5269\"; },"
                    "{ domain = \"b.lab\"; security_mode = \"no-tls\"; } );",
               "peers[a.lab]: { domain = \"a.lab\"; policy = \"allow\"; } -> (absent)\n"
               "peers[b.lab].security_mode: (unset) -> no-tls\n"
               "peers[*].policy: (unset) -> deny\n"
               "peers[c.lab]: (absent) -> { domain = \"c.lab\"; policy = \"allow\"; route = "
               "\"192.0.2.7:5269\"; }\n",
               4);
    check_diff(BASE,
               "domains=({name=\"alpha.lab\"; subdomains = true;});"
               "links=({name=\"core\";address=\"10.0.0.6:7400\";component=\"edge.alpha.lab\";"
               "secret_file=\"im.secret\";});",
               "domains[alpha.lab].subdomains: false -> true\n"
               "links[core].address: 10.0.0.5:7400 -> 10.0.0.6:7400\n"
               "links[core].secret_file: link.secret -> im.secret\n",
               3);
}

static void test_diff_secrets(void **state)
{
    (void)state;
    struct buf got = BUF_INIT(4096);
    static const char text[] = BASE "dialback = { secret_file = \"dialback.secret\"; "
                                    "previous_secret_files = [\"old.secret\"]; };";
    struct gateway_config *a = good(text);
    put_file("dialback.secret", "another", 0600);
    put_file("old.secret", "oldest", 0600);
    struct gateway_config *b = good(text);
    assert_int_equal(gateway_config_diff(a, b, note, &got), 2);
    assert_string_equal(got.p, "dialback.secret_file: (hidden) -> (hidden)\n"
                               "dialback.previous_secret_files: (hidden) -> (hidden)\n");
    gateway_config_unref(a);
    gateway_config_unref(b);
    buf_clear(&got);
    struct router_config *r = good_router("links=(" EDGE "," IM ");"),
                         *t = good_router("links=(" EDGE ");listen={links=[\"127.0.0.2:7400\"];};");
    assert_int_equal(router_config_diff(r, t, note, &got), 2);
    strip_dir(&got);
    assert_string_equal(got.p,
                        "listen.links: [\"127.0.0.1:7400\"] -> [\"127.0.0.2:7400\"] (restart)\n"
                        "links[im]: { name = \"im\"; role = \"server\"; transport = \"dial\"; "
                        "address = \"10.0.0.9:5347\"; component = \"edge.alpha.lab\"; domains = "
                        "[\"alpha.lab\"]; priority = 0; auth = \"password\"; "
                        "secret_file = \"im.secret\"; authlist = []; } -> (absent)\n");
    router_config_unref(r);
    router_config_unref(t);
    buf_free(&got);
}

/* ---- example files --------------------------------------------------------------------------- */

static void read_file(const char *path, struct buf *out)
{
    assert_int_equal(source_read(path, out->max, true, out), 0);
}

/* Puts the temporary folder in place of the one that the example names. */
static void move_secrets(struct buf *text, struct buf *out)
{
    static const char from[] = "/etc/sallyport";
    for (const char *p = text->p; *p != '\0';) {
        bool hit = strncmp(p, from, sizeof from - 1) == 0;
        if (hit)
            buf_puts(out, dir);
        else
            buf_putc(out, *p);
        p += hit ? sizeof from - 1 : 1;
    }
}

/* Removes the // that hides a key. */
static void uncomment(const struct buf *text, struct buf *out)
{
    for (const char *p = text->p; *p != '\0';) {
        size_t n = strcspn(p, "\n"), blank = strspn(p, " ");
        if (strncmp(p + blank, "//", 2) == 0)
            buf_put(out, p + blank + 2, n - blank - 2);
        else
            buf_put(out, p, n);
        buf_putc(out, '\n');
        p += n + (p[n] == '\n');
    }
}

static void check_example(const struct schema *s, const char *file)
{
    enum { MAX = 65536 };
    struct buf made = BUF_INIT(MAX), stored = BUF_INIT(MAX), moved = BUF_INIT(MAX),
               all = BUF_INIT(MAX), errors = BUF_INIT(MAX);
    schema_example(s, &made);
    assert_false(made.failed);
    read_file(file, &stored);
    assert_string_equal(made.p, stored.p);
    move_secrets(&stored, &moved);
    void *as_it_is = schema_load(s, in_dir("t.conf"), buf_view(&moved), &errors);
    if (as_it_is == NULL || errors.len)
        fail_msg("%s", errors.p);
    schema_free(s, as_it_is);
    uncomment(&moved, &all);
    void *with_all = schema_load(s, in_dir("t.conf"), buf_view(&all), &errors);
    if (with_all == NULL || errors.len)
        fail_msg("%s", errors.p);
    /* Now every key of the root table is really set. */
    const struct schema_meta *m = *VALUE_CONST(struct schema_meta *, with_all, s->meta_at);
    for (size_t i = 0; i < s->n; i++)
        assert_int_equal(m->origins[i].source, 1);
    schema_free(s, with_all);
    buf_free(&made), buf_free(&stored), buf_free(&moved), buf_free(&all), buf_free(&errors);
}

static void test_examples(void **state)
{
    (void)state;
    check_example(&gateway_schema, "config/sallyport.conf.example");
    check_example(&router_schema, "config/sallyport-router.conf.example");
}

/* ---- allocation failures --------------------------------------------------------------------- */

static const char everything[] =
    "include_dir = \"conf.d\";" BASE
    "peers = ( { domain = \"*.b.lab\"; policy = \"allow\"; route = \"h.lab:5269\"; },"
    "{ domain = \"c.lab\"; }, { domain = \"d.lab\"; } );"
    "dialback = { secret_file = \"dialback.secret\"; "
    "previous_secret_files = [\"old.secret\", \"im.secret\"]; };"
    "outbound = { deny_networks = [\"10.0.0.0/8\", \"::/0\"]; }; tls = { ca_file = \"cert.pem\"; "
    "};";

/* Until a run needs fewer than n allocations; every failure says so and leaves nothing behind. */
static void fail_each(const struct schema *s, const char *text, bool valid)
{
    unsigned long n = 1;
    for (bool failed = true; failed; n++) {
        char room[65536];
        struct buf errors = {room, 0, sizeof room, sizeof room - 1, false};
        mem_fail_after(n);
        void *c = schema_load(s, in_dir("t.conf"), str_c(text), &errors);
        mem_fail_after(0);
        failed = strstr(errors.len ? room : "", "out of memory") != NULL;
        assert_false(errors.failed);
        if (failed)
            assert_null(c);
        else
            assert_int_equal(c != NULL, valid);
        schema_free(s, c);
        assert_true(n < 10000);
    }
    assert_true(n > 50);
}

static void test_no_memory(void **state)
{
    (void)state;
    put_file("conf.d/a.conf", "peers = ( { domain = \"e.lab\"; } );", 0600);
    put_file("conf.d/b.conf", "peers = ( { domain = \"f.lab\"; } );", 0600);
    fail_each(&gateway_schema, everything, true);
    fail_each(&gateway_schema, BASE "peers=({domain=\"a.lab\";x=1;},{domain=\"a.lab\";});user=1;",
              false);
    fail_each(&router_schema, "links=(" EDGE "," IM ");", true);
    remove_file("conf.d/a.conf");
    remove_file("conf.d/b.conf");
}

static void test_diff_no_memory(void **state)
{
    (void)state;
    struct gateway_config *a = good(BASE), *b = good(BASE "federation = false; user = \"x\";");
    for (unsigned long n = 1; n < 20; n++) {
        char room[4096];
        struct buf got = {room, 0, sizeof room, sizeof room - 1, false};
        mem_fail_after(n);
        size_t changes = gateway_config_diff(a, b, note, &got);
        mem_fail_after(0);
        assert_int_equal(changes, 2);
    }
    gateway_config_unref(a), gateway_config_unref(b);
}

/* A load of any size of error list ends with its number. */
static void test_small_error_buffer(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(1 << 20), errors = BUF_INIT(2000);
    buf_puts(&text, BASE);
    for (int i = 0; i < 3000; i++)
        buf_printf(&text, "unknown%d = 1;\n", i);
    assert_null(parse(text.p, &errors));
    assert_false(errors.failed);
    assert_non_null(strstr(errors.p, "\n(further lines left out)\n3000 errors\n"));
    buf_free(&text), buf_free(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),          cmocka_unit_test(test_scan),
        cmocka_unit_test(test_syntax_errors),  cmocka_unit_test(test_value_errors),
        cmocka_unit_test(test_not_available),  cmocka_unit_test(test_group_errors),
        cmocka_unit_test(test_routes),         cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_warnings),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_deny_default),   cmocka_unit_test(test_full),
        cmocka_unit_test(test_missing),        cmocka_unit_test(test_include),
        cmocka_unit_test(test_router),         cmocka_unit_test(test_router_proof),
        cmocka_unit_test(test_peers),          cmocka_unit_test(test_domains),
        cmocka_unit_test(test_many_peers),     cmocka_unit_test(test_diff),
        cmocka_unit_test(test_diff_lists),     cmocka_unit_test(test_diff_secrets),
        cmocka_unit_test(test_examples),       cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_diff_no_memory), cmocka_unit_test(test_small_error_buffer),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
