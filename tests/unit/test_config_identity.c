/* The settings of who is believed: auth, certificates, authorities, pins, direct TLS; each fault
 * word by word, and what the good ones become. */
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
#include "config/gateway.h"
#include "config/schema.h"

static char dir[64];

static void put(const char *name, mode_t mode)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("words\n", f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_identity.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    put("secret", 0600);
    put("pem", 0600);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/secret", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/pem", dir);
    unlink(path);
    return rmdir(dir);
}

#define PLAIN_DOMAIN "domains = ({ name = \"a.lab\"; });"
#define LINK                                                                                       \
    "links = ({ name = \"x\"; component = \"c.lab\"; address = \"10.0.0.5:7400\"; "                \
    "secret_file = \"secret\"; });\n"
#define BASE PLAIN_DOMAIN LINK
#define PIN  "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define PIN_STORED                                                                                 \
    "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:"   \
    "EE:FF"

static struct gateway_config *load(const char *text, struct buf *errors)
{
    char file[128];
    snprintf(file, sizeof file, "%s/t.conf", dir);
    return gateway_config_parse(file, str_c(text), errors);
}

static struct gateway_config *good(const char *text)
{
    struct buf errors = BUF_INIT(65536);
    struct gateway_config *c = load(text, &errors);
    if (c == NULL || errors.len > 0)
        fail_msg("%s", errors.p);
    buf_free(&errors);
    return c;
}

/* Without the temporary folder. */
static void strip_dir(struct buf *b)
{
    const size_t n = strlen(dir) + 1;
    for (size_t i = 0; i + n <= b->len;) {
        if (strncmp(b->p + i, dir, n - 1) != 0) {
            i++;
            continue;
        }
        memmove(b->p + i, b->p + i + n, b->len - i - n + 1);
        b->len -= n;
    }
}

static void bad(const char *text, const char *want)
{
    struct buf errors = BUF_INIT(65536);
    assert_null(load(text, &errors));
    strip_dir(&errors);
    assert_string_equal(errors.p, want);
    buf_free(&errors);
}

/* ---- what is refused ------------------------------------------------------------------------- */

#define NEEDS_TLS                                                                                  \
    "a certificate, which auth = [\"external\"] demands, needs TLS, and security_mode = "          \
    "\"no-tls\" forbids it\n"

static void test_faults(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {BASE "auth = [\"extrenal\"];",
         "t.conf:2: auth = \"extrenal\": must be one of external, dialback (did you mean "
         "\"external\"?)\n1 error\n"},
        {BASE "auth = [];", "t.conf:2: auth = []: must be a list of at least one of \"external\", "
                            "\"dialback\"\n1 error\n"},
        {BASE "auth = \"external\";",
         "t.conf:2: auth = \"external\": must be a list of at least one of \"external\", "
         "\"dialback\"\n1 error\n"},
        {BASE "auth = [5];", "t.conf:2: auth = 5: must be one of external, dialback\n1 error\n"},
        {BASE "atuh = [\"external\"];",
         "t.conf:2: atuh: unknown key (did you mean \"auth\"?)\n1 error\n"},
        {BASE "tls = { crl_file = \"none.pem\"; };",
         "t.conf:2: tls.crl_file = \"none.pem\": No such file or directory\n1 error\n"},
        {BASE "tls = { watch = \"500ms\"; };",
         "t.conf:2: tls.watch = \"500ms\": must be 0 (never) or from \"1s\" to \"1h\"\n1 error\n"},
        {BASE "tls = { watch = \"61m\"; };",
         "t.conf:2: tls.watch = \"61m\": must be from \"0s\" to \"1h\"\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\";\nca_file = \"none.pem\";});",
         "t.conf:3: peers[b.lab].ca_file = \"none.pem\": No such file or directory\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\";\npins = [\"00:11\"];});",
         "t.conf:3: peers[b.lab].pins = \"00:11\": wrong number of hex digits: SHA-1 has 40, "
         "SHA-256 has 64\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\";\npins = "
              "[\"0011223344556677889900112233445566778899\"];});",
         "t.conf:3: peers[b.lab].pins = \"0011223344556677889900112233445566778899\": must be a "
         "SHA-256 hash, 64 hex digits\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\"; minimum_tls = \"1.1\";});",
         "t.conf:2: peers[b.lab].minimum_tls = \"1.1\": must be one of 1.2, 1.3 (did you mean "
         "\"1.2\"?)\n1 error\n"},
        {BASE "tls = { minimum = \"1.3\"; };\npeers = ({domain = \"b.lab\"; minimum_tls = "
              "\"1.2\";});",
         "t.conf:3: peers[b.lab].minimum_tls = \"1.2\": must not be lower than "
         "tls.minimum\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\"; bidi = \"yes\";});",
         "t.conf:2: peers[b.lab].bidi = \"yes\": must be true or false, without quotes\n1 error\n"},
        /* A certificate without TLS: told at the entry that makes the contradiction. */
        {BASE "auth = [\"external\"];\nsecurity_mode = \"no-tls\";",
         "t.conf:2: auth = [\"external\"]: a certificate needs TLS, which security_mode = "
         "\"no-tls\" forbids\n1 error\n"},
        {BASE "peers = ({domain = \"b.lab\"; auth = [\"external\"]; security_mode = \"no-tls\";});",
         "t.conf:2: peers[b.lab].auth = [\"external\"]: " NEEDS_TLS "1 error\n"},
        {BASE "auth = [\"external\"];\npeers = ({domain = \"b.lab\"; security_mode = "
              "\"no-tls\";});",
         "t.conf:3: peers[b.lab].security_mode = \"no-tls\": " NEEDS_TLS "1 error\n"},
        {BASE "security_mode = \"no-tls\";\npeers = ({domain = \"b.lab\"; auth = "
              "[\"external\"];});",
         "t.conf:3: peers[b.lab].auth = [\"external\"]: " NEEDS_TLS "1 error\n"},
        {BASE "peers = ({domain = \"*.lab\"; security_mode = \"no-tls\";},\n{domain = "
              "\"b.lab\"; auth = [\"external\"];},\n{domain = \"c.lab\"; policy = \"allow\";});",
         "t.conf:3: peers[b.lab].auth = [\"external\"]: " NEEDS_TLS "1 error\n"},
        /* Direct TLS. */
        {BASE "peers = ({domain = \"b.lab\"; direct_tls = true;});",
         "t.conf:2: peers[b.lab].direct_tls = true: needs a route beside it\n1 error\n"},
        {BASE "security_mode = \"no-tls\";\npeers = ({domain = \"b.lab\"; direct_tls = true; route "
              "= \"192.0.2.7:5270\";});",
         "t.conf:3: peers[b.lab].direct_tls = true: security_mode = \"no-tls\" forbids "
         "it\n1 error\n"},
        {BASE "listen = { s2s = [\"127.0.0.1:5269\", \"[::1]:5269\"];\ndirect_tls = "
              "[\"127.0.0.1:5270\", \"[::1]:5269\"]; };",
         "t.conf:3: listen.direct_tls = [\"127.0.0.1:5270\", \"[::1]:5269\"]: [::1]:5269 is in "
         "listen.s2s too\n1 error\n"},
        {BASE "listen = { direct_tls = [\"localhost:5270\"]; };",
         "t.conf:2: listen.direct_tls = \"localhost:5270\": must be a literal address with a port, "
         "e.g. \"192.0.2.7:5269\" or \"[2001:db8::1]:5269\"\n1 error\n"},
        /* What we show as client. */
        {"domains = ({ name = \"a.lab\"; client_certificate = \"pem\"; });\n" LINK,
         "t.conf:1: domains[a.lab].client_certificate = \"pem\": needs a client_key beside "
         "it\n1 error\n"},
        {"domains = ({ name = \"a.lab\"; client_key = \"pem\"; });\n" LINK,
         "t.conf:1: domains[a.lab].client_key = \"pem\": needs a client_certificate beside "
         "it\n1 error\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        bad(rows[i][0], rows[i][1]);
}

static void test_too_many_pins(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(8192);
    buf_puts(&text, BASE "peers = ({domain = \"b.lab\"; pins = [\"" PIN "\"");
    for (int i = 1; i < CONFIG_PINS_MAX; i++)
        buf_puts(&text, ", \"" PIN "\"");
    const size_t full = text.len;
    buf_puts(&text, "];});");
    gateway_config_unref(good(text.p));
    text.len = full;
    buf_puts(&text, ", \"" PIN "\"];});");
    bad(text.p, "t.conf:2: peers[b.lab].pins = [...]: at most 16 are allowed\n1 error\n");
    buf_free(&text);
}

/* ---- what the good ones become --------------------------------------------------------------- */

static void test_defaults(void **state)
{
    (void)state;
    struct gateway_config *c = good(BASE "peers = ({domain = \"b.lab\";});");
    assert_int_equal(c->auth, POLICY_AUTH_EXTERNAL | POLICY_AUTH_DIALBACK);
    assert_null(c->tls.crl_file);
    assert_int_equal(c->tls.watch, 60 * 1000);
    assert_int_equal(c->listen.ndirect_tls, 0);
    assert_null(c->domains[0].client_certificate);
    const struct cfg_peer *p = &c->peers[0];
    assert_int_equal(p->auth, 0);
    assert_int_equal(p->npins, 0);
    assert_null(p->ca_file);
    assert_int_equal(p->minimum_tls, CONFIG_UNSET);
    assert_int_equal(p->bidi, CONFIG_UNSET);
    assert_false(p->direct_tls);
    gateway_config_unref(c);
}

static void test_values(void **state)
{
    (void)state;
    struct gateway_config *c = good(
        "domains = ({ name = \"a.lab\"; certificate = \"pem\"; key = \"pem\"; "
        "client_certificate = \"pem\"; client_key = \"pem\"; });\n" LINK
        "auth = (\"dialback\"); tls = { crl_file = \"pem\"; watch = \"0s\"; };\n"
        "listen = { direct_tls = [\"127.0.0.1:5270\"]; };\n"
        "peers = ({domain = \"b.lab\"; auth = [\"external\", \"external\"]; pins = [\"sha256:" PIN
        "\"]; ca_file = \"pem\"; minimum_tls = \"1.3\"; bidi = true; route = \"b.example:5270\"; "
        "direct_tls = true; });");
    assert_int_equal(c->auth, POLICY_AUTH_DIALBACK);
    assert_non_null(strstr(c->tls.crl_file, "/pem"));
    assert_int_equal(c->tls.watch, 0);
    assert_int_equal(c->listen.ndirect_tls, 1);
    assert_non_null(c->domains[0].client_certificate);
    assert_non_null(c->domains[0].client_key);
    const struct cfg_peer *p = &c->peers[0];
    assert_int_equal(p->auth, POLICY_AUTH_EXTERNAL);
    assert_int_equal(p->npins, 1);
    assert_string_equal(p->pins[0], PIN_STORED);
    assert_int_equal(*p->ca_file, '/');
    assert_int_equal(p->minimum_tls, 0x0304);
    assert_int_equal(p->bidi, 1);
    assert_false(c->bidi);
    assert_true(p->direct_tls);
    gateway_config_unref(c);
}

/* No contradiction: an entry between says otherwise. */
static void test_not_contradictory(void **state)
{
    (void)state;
    gateway_config_unref(good(BASE "auth = [\"external\"];\n"
                                   "peers = ({domain = \"b.lab\"; security_mode = \"no-tls\";},"
                                   "{domain = \"*\"; auth = [\"dialback\"];});"));
    gateway_config_unref(good(BASE "security_mode = \"no-tls\";\n"
                                   "peers = ({domain = \"b.lab\"; auth = [\"external\"];},"
                                   "{domain = \"*.lab\"; security_mode = \"tls-required\";});"));
    gateway_config_unref(good(BASE "security_mode = \"no-tls\";\npeers = ({domain = \"b.lab\"; "
                                   "security_mode = \"tls-required\"; direct_tls = true; "
                                   "route = \"192.0.2.7:5270\";});"));
    gateway_config_unref(good(BASE "security_mode = \"no-tls\"; auth = [\"dialback\", "
                                   "\"external\"];"));
}

/* ---- shown and compared ---------------------------------------------------------------------- */

static void test_show(void **state)
{
    (void)state;
    struct gateway_config *c = good(BASE "peers = ({domain = \"b.lab\"; auth = [\"dialback\"]; "
                                         "bidi = false;});");
    struct buf out = BUF_INIT(65536);
    schema_show(&gateway_schema, c, &out);
    strip_dir(&out);
    assert_non_null(strstr(out.p, "\nauth = [\"external\", \"dialback\"];  # default\n"));
    assert_non_null(strstr(out.p, "\npeers[b.lab].auth = [\"dialback\"];  # t.conf:2\n"));
    assert_non_null(strstr(out.p, "\npeers[b.lab].bidi = false;  # t.conf:2\n"));
    assert_null(strstr(out.p, "peers[b.lab].ca_file"));
    assert_null(strstr(out.p, "peers[b.lab].minimum_tls"));
    buf_free(&out);
    gateway_config_unref(c);
}

static void collect(void *arg, const struct config_change *ch)
{
    buf_printf(arg, "%s: %.*s -> %.*s%s\n", ch->key, STR_ARG(ch->old), STR_ARG(ch->new_),
               ch->restart ? " (restart)" : "");
}

static void test_diff(void **state)
{
    (void)state;
    struct gateway_config *a = good(BASE "peers = ({domain = \"b.lab\";}, {domain = \"c.lab\";});");
    struct gateway_config *b =
        good(BASE "auth = [\"external\"]; listen = { direct_tls = [\"[::1]:5270\"]; };"
                  "peers = ({domain = \"b.lab\"; auth = [\"dialback\"]; bidi = false; minimum_tls "
                  "= \"1.3\"; pins = [\"" PIN "\"];},"
                  "{domain = \"d.lab\"; route = \"192.0.2.7:5270\"; direct_tls = true;});");
    struct buf out = BUF_INIT(65536);
    gateway_config_diff(a, b, collect, &out);
    assert_string_equal(out.p, "auth: [\"external\", \"dialback\"] -> [\"external\"]\n"
                               "peers[b.lab].auth: (unset) -> [\"dialback\"]\n"
                               "peers[b.lab].pins: [] -> [\"" PIN_STORED "\"]\n"
                               "peers[b.lab].minimum_tls: (unset) -> 1.3\n"
                               "peers[b.lab].bidi: (unset) -> false\n"
                               "peers[c.lab]: { domain = \"c.lab\"; } -> (absent)\n"
                               "peers[d.lab]: (absent) -> { domain = \"d.lab\"; route = "
                               "\"192.0.2.7:5270\"; direct_tls = true; }\n"
                               "listen.direct_tls: [] -> [\"[::1]:5270\"] (restart)\n");
    buf_free(&out);
    gateway_config_unref(a);
    gateway_config_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_too_many_pins),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_not_contradictory),
        cmocka_unit_test(test_show),
        cmocka_unit_test(test_diff),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
