/* The rules between the keys of a link, word by word, and what a good link becomes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/auth.h"
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
    snprintf(dir, sizeof dir, "/tmp/test_links.XXXXXX");
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

/* `link` holds the keys of one link beside its name; `more` further text. */
static struct gateway_config *load(const char *link, const char *more, struct buf *errors)
{
    char text[2048], file[128];
    snprintf(file, sizeof file, "%s/t.conf", dir);
    snprintf(text, sizeof text,
             "domains = ({ name = \"a.lab\"; }, { name = \"b.lab\"; subdomains = true; });\n"
             "links = (\n{ name = \"x\";\n%s }%s);\n",
             link, more);
    return gateway_config_parse(file, str_c(text), errors);
}

#define COMPONENT   "component = \"c.lab\";"
#define ADDRESS     "address = \"10.0.0.5:7400\";"
#define LISTEN      "listen = [\"10.0.0.1:7400\"];"
#define SECRET      "secret_file = \"secret\";"
#define SHOW        "certificate = \"pem\"; key = \"pem\";"
#define STORE       "store_file = \"pem\";"
#define HASH        "authlist = [\"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33\"];"
#define TLS         "auth = \"tls\";"
#define BOTH        "auth = \"tls+password\";"
#define ACCEPT      "transport = \"accept\";"
#define PROTOCOL(p) "protocol = \"" p "\";"

static const struct {
    const char *link, *more, *error; /* a part of the errors; NULL: it is good */
} cases[] = {
    {COMPONENT ADDRESS SECRET, "", NULL},
    {COMPONENT SECRET, "", "links[x].address: required: the inside server or router to dial"},
    {COMPONENT ADDRESS, "", "links[x].secret_file: required but missing"},
    {ADDRESS SECRET, "", "links[x].component: required, unless partners gives the names"},
    {COMPONENT ADDRESS LISTEN SECRET, "",
     "links[x].listen = [\"10.0.0.1:7400\"]: only with transport \"accept\" or protocol \"s2s\""},
    {"component = \"a.lab\";" ADDRESS SECRET, "",
     "links[x].component = \"a.lab\": is a local domain; the gateway needs a name of its own"},
    {"component = \"gw.b.lab\";" ADDRESS SECRET, "", NULL},
    {COMPONENT ADDRESS SECRET "domains = [\"z.lab\"];", "",
     "links[x].domains = [\"z.lab\"]: z.lab is not one of domains"},
    {COMPONENT ADDRESS SECRET "domains = [\"a.lab\"];", "",
     "t.conf:1: domains[b.lab].name = \"b.lab\": no link has it in its domains"},
    {COMPONENT ADDRESS SECRET "domains = [\"a.lab\"];",
     ", { name = \"y\"; domains = [\"b.lab\"];" COMPONENT ADDRESS SECRET "}", NULL},
    {COMPONENT ADDRESS SECRET "user = \"u\"; trusted = [\"10.0.0.0/8\"];", "",
     "links[x].user = \"u\": not for protocol \"component\""},
    {COMPONENT ADDRESS SECRET "trusted = [\"10.0.0.0/8\"];", "",
     "links[x].trusted = [\"10.0.0.0/8\"]: not for protocol \"component\""},
    {COMPONENT ADDRESS SECRET "stanza_size = \"128K\";", "", NULL},
    {COMPONENT ADDRESS SECRET "stanza_size = \"9999\";", "",
     "links[x].stanza_size = \"9999\": must be from \"10000\" to \"16M\""},
    {COMPONENT ADDRESS SECRET "stanza_size = \"0\";", "", "links[x].stanza_size = \"0\": must be"},
    /* partners */
    {"partners = [\"p.lab\", \"q.lab\"];" ADDRESS SECRET, "", NULL},
    {COMPONENT "partners = [\"p.lab\", \"q.lab\"];" ADDRESS SECRET, "", NULL},
    {"partners = [\"x.b.lab\"];" ADDRESS SECRET, "",
     "links[x].partners = [\"x.b.lab\"]: x.b.lab is a local domain"},
    {"partners = [\"p.lab\", \"q.lab\"];" ACCEPT LISTEN SHOW STORE TLS, "",
     "links[x].component: required with transport \"accept\": one connection carries one stream"},
    /* proof */
    {COMPONENT ADDRESS TLS SHOW STORE, "", NULL},
    {COMPONENT ADDRESS TLS SHOW HASH, "", NULL},
    {COMPONENT ADDRESS TLS STORE, "", "links[x].auth = \"tls\": needs certificate and key"},
    {COMPONENT ADDRESS TLS SHOW, "",
     "links[x].auth = \"tls\": needs store_file, authlist or ca_file"},
    {COMPONENT ADDRESS TLS SHOW "ca_file = \"pem\";", "", ": is not enough with \"tls\": list the"},
    {COMPONENT ADDRESS TLS SHOW "ca_file = \"pem\"; peer_name = \"im.a.lab\";", "", NULL},
    {PROTOCOL("s2s") ADDRESS LISTEN TLS SHOW "ca_file = \"pem\"; peer_name = \"im.a.lab\";", "",
     ": is not enough with \"tls\": list the"},
    {COMPONENT ADDRESS "auth = \"tls+password\";" SHOW STORE, "",
     "links[x].secret_file: required but missing"},
    {COMPONENT ADDRESS SECRET "certificate = \"pem\";", "", ": needs a key beside it"},
    {COMPONENT ADDRESS SECRET "key = \"pem\";", "", ": needs a certificate beside it"},
    {COMPONENT ADDRESS SECRET "proven_file = \"proven\";", "",
     ": needs peer_name: it is what is remembered"},
    {COMPONENT ADDRESS SECRET "proven_file = \"proven\"; peer_name = \"im.a.lab\";", "", NULL},
    {COMPONENT ADDRESS TLS SHOW "authlist = [\"00:11\"];", "", "links[x].authlist"},
    /* accept */
    {COMPONENT ACCEPT LISTEN TLS SHOW STORE, "", NULL},
    {COMPONENT ACCEPT LISTEN SECRET, "",
     "links[x].transport = \"accept\": transport \"accept\" needs auth \"tls\" or "
     "\"tls+password\""},
    {COMPONENT ACCEPT TLS SHOW STORE, "", ": required: the own address that the inside dials"},
    {COMPONENT ACCEPT LISTEN ADDRESS TLS SHOW STORE, "",
     "links[x].address = \"10.0.0.5:7400\": not with transport \"accept\""},
    /* s2s */
    {PROTOCOL("s2s") ADDRESS LISTEN, "", NULL},
    {PROTOCOL("s2s") ADDRESS LISTEN "trusted = [\"10.0.0.5/32\"]; certificates_dir = \"d\";", "",
     NULL},
    {PROTOCOL("s2s") ADDRESS "listen = [\"10.0.0.1:5269\"];", "",
     "links[x].listen = [\"10.0.0.1:5269\"]: the world is let in there (listen.s2s has "
     "0.0.0.0:5269)"},
    {PROTOCOL("s2s") ADDRESS "listen = [\"[fd00::1]:5269\"];", "", "(listen.s2s has [::]:5269)"},
    {PROTOCOL("s2s") ADDRESS LISTEN, ", { name = \"y\";" PROTOCOL("s2s") ADDRESS LISTEN "}",
     "links[y].listen = [\"10.0.0.1:7400\"]: link x listens on 10.0.0.1:7400 already"},
    {PROTOCOL("s2s") ADDRESS, "", ": required: the own address that the inside dials"},
    {PROTOCOL("s2s") LISTEN, "", "links[x].address: required"},
    {PROTOCOL("s2s") ADDRESS LISTEN COMPONENT, "",
     "links[x].component = \"c.lab\": not for protocol \"s2s\""},
    {PROTOCOL("s2s") ADDRESS LISTEN ACCEPT, "",
     "links[x].transport = \"accept\": an s2s link is opened by both sides; leave it out"},
    {PROTOCOL("s2s") ADDRESS LISTEN "auth = \"tls+password\";" SHOW STORE, "",
     "links[x].auth = \"tls+password\": an s2s link proves itself by dialback, or by \"tls\""},
    {PROTOCOL("s2s") ADDRESS LISTEN TLS SHOW STORE, "", NULL},
    {PROTOCOL("s2s") ADDRESS LISTEN TLS SHOW STORE "security_mode = \"no-tls\";", "",
     "links[x].security_mode = \"no-tls\": auth \"tls\" needs TLS"},
    /* jabberd2 */
    {PROTOCOL("jabberd2") ADDRESS SECRET "component = \"gw1\"; user = \"jabberd\";", "", NULL},
    {PROTOCOL("jabberd2") ADDRESS SECRET "component = \"gw1\";", "",
     "links[x].user: required with protocol \"jabberd2\": a name of the router's"},
    {PROTOCOL("jabberd2") ADDRESS "component = \"gw1\"; user = \"jabberd\";", "",
     "links[x].secret_file: required with protocol \"jabberd2\": the password file"},
    {PROTOCOL("jabberd2") ADDRESS SECRET "component = \"gw1\"; user = \"jabberd\";" TLS SHOW STORE,
     "", "links[x].auth = \"tls\": the router of jabberd2 takes a password"},
    {PROTOCOL("jabberd2") ADDRESS SECRET "component = \"gw1\"; user = \"jabberd\";" BOTH STORE, "",
     NULL},
    {PROTOCOL("jabberd2") ADDRESS SECRET "component = \"gw1\"; user = \"jabberd\";" BOTH, "",
     "links[x].auth = \"tls+password\": needs store_file, authlist or ca_file"},
    {PROTOCOL("jabberd2") ADDRESS SECRET
     "component = \"gw1\"; user = \"jabberd\"; security_mode = \"no-tls\";" BOTH STORE,
     "", "links[x].security_mode = \"no-tls\": auth \"tls+password\" needs TLS"},
    {PROTOCOL("jabberd2") LISTEN ACCEPT SECRET
     "component = \"gw1\"; user = \"jabberd\";" BOTH STORE,
     "", "links[x].auth = \"tls+password\": needs certificate and key"},
    {PROTOCOL("jabberd2") LISTEN ACCEPT SECRET
     "component = \"gw1\"; user = \"jabberd\";" TLS SHOW STORE,
     "", NULL},
};

static void test_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf errors = BUF_INIT(65536);
        struct gateway_config *c = load(cases[i].link, cases[i].more, &errors);
        bool found = cases[i].error != NULL && errors.len && strstr(errors.p, cases[i].error);
        if ((cases[i].error == NULL) != (c != NULL) || (cases[i].error != NULL && !found))
            fail_msg("case %zu (%s): %s", i, cases[i].link, errors.len ? errors.p : "accepted");
        gateway_config_unref(c);
        buf_free(&errors);
    }
}

static void test_values(void **state)
{
    (void)state;
    struct buf errors = BUF_INIT(65536);
    struct gateway_config *c =
        load(PROTOCOL("s2s") ADDRESS LISTEN TLS SHOW STORE HASH
             "priority = 7; domains = [\"A.lab\"]; security_mode = \"tls-required\";"
             "trusted = [\"10.0.0.5/32\"]; certificates_dir = \"certs\"; peer_name = \"im.lab\";",
             ", { name = \"y\";" COMPONENT ADDRESS SECRET "}", &errors);
    if (c == NULL)
        fail_msg("%s", errors.p);
    const struct cfg_link *k = &c->links[0];
    assert_int_equal(k->protocol, PROTOCOL_S2S);
    assert_int_equal(k->auth, LINK_AUTH_TLS);
    assert_int_equal(k->priority, 7);
    assert_string_equal(k->domains[0], "a.lab");
    assert_string_equal(k->listen[0], "10.0.0.1:7400");
    assert_int_equal(k->security_mode, SECURITY_TLS_REQUIRED);
    assert_int_equal(k->ntrusted, 1);
    assert_int_equal(k->nauthlist, 1);
    assert_string_equal(k->peer_name, "im.lab");
    assert_non_null(strstr(k->certificates_dir, "/certs"));
    assert_int_equal(c->links[1].protocol, PROTOCOL_COMPONENT);
    assert_int_equal(c->links[1].auth, LINK_AUTH_PASSWORD);
    assert_int_equal(c->links[1].priority, 0);
    assert_int_equal(c->timeouts.dead, 10000);
    gateway_config_unref(c);
    buf_free(&errors);
}

/* What the inside takes may be less than what we take from outside, never more. */
static void test_stanza_size(void **state)
{
    (void)state;
    static const char warning[] = "links[x].stanza_size = \"512K\": above limits.stanza_size";
    struct buf errors = BUF_INIT(65536), shown = BUF_INIT(65536);
    struct gateway_config *c = load(COMPONENT ADDRESS SECRET "stanza_size = \"512K\";",
                                    ", { name = \"y\";" COMPONENT ADDRESS SECRET "}", &errors);
    assert_non_null(c);
    assert_int_equal(c->links[0].stanza_size, 524288);
    assert_int_equal(c->links[1].stanza_size, 0);
    assert_non_null(strstr(errors.p, warning));
    schema_show(&gateway_schema, c, &shown);
    assert_non_null(strstr(shown.p, "links[x].stanza_size = \"512K\";"));
    assert_null(strstr(shown.p, "links[y].stanza_size"));
    gateway_config_unref(c);
    buf_free(&errors);
    c = load(COMPONENT ADDRESS SECRET "stanza_size = \"256K\";", "", &errors);
    assert_non_null(c);
    assert_int_equal(errors.len, 0);
    gateway_config_unref(c);
    buf_free(&errors);
    buf_free(&shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_stanza_size),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
