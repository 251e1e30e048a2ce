/* Credentials made from files decide as they should between two real TLS engines; what is wrong
 * with a file is said. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "tests/unit/certs.h"
#include "xcp/credentials.h"

/* Us, under a root; a peer under the same root; a stranger with a certificate of its own. */
struct office {
    char dir[64];
    char ca[96], own[96], own_key[96], peer[96], peer_key[96], alone[96], alone_key[96], junk[96];
};

static void office_open(struct office *o)
{
    snprintf(o->dir, sizeof o->dir, "/tmp/test_credentials.XXXXXX");
    assert_non_null(mkdtemp(o->dir));
    struct issued root = issue((struct wish){.name = "Root"});
    struct issued own = issue((struct wish){.by = &root, .name = "own", .san = "DNS:own.lab"});
    struct issued peer = issue((struct wish){.by = &root, .name = "peer", .san = "DNS:peer.lab"});
    struct issued alone =
        issue((struct wish){.leaf = true, .name = "alone", .san = "DNS:peer.lab"});
    write_cert(o->ca, o->dir, "ca.pem", root.x);
    write_cert(o->own, o->dir, "own.pem", own.x);
    write_key(o->own_key, o->dir, "own.key", own.key);
    write_cert(o->peer, o->dir, "peer.pem", peer.x);
    write_key(o->peer_key, o->dir, "peer.key", peer.key);
    write_cert(o->alone, o->dir, "alone.pem", alone.x);
    write_key(o->alone_key, o->dir, "alone.key", alone.key);
    fclose(create(o->junk, o->dir, "junk.pem"));
    issued_free(&root), issued_free(&own), issued_free(&peer), issued_free(&alone);
}

static void office_close(struct office *o)
{
    const char *all[] = {o->ca,       o->own,   o->own_key,   o->peer,
                         o->peer_key, o->alone, o->alone_key, o->junk};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        unlink(all[i]);
    assert_int_equal(rmdir(o->dir), 0);
}

static struct credentials_settings ours(const struct office *o, enum link_auth auth)
{
    return (struct credentials_settings){.auth = auth,
                                         .name = "core",
                                         .certificate = o->own,
                                         .key = o->own_key,
                                         .peer_name = "peer.lab"};
}

static struct credentials made(struct credentials_settings s)
{
    struct credentials c;
    struct buf errors = BUF_INIT(4096);
    if (!credentials_init(&c, &s, &errors))
        fail_msg("%s", errors.p);
    assert_int_equal(errors.len, 0);
    return c;
}

/* What we think of a client with that certificate. */
static enum trust_reason verdict(struct credentials_settings s, const char *certificate,
                                 const char *key)
{
    struct credentials c = made(s);
    struct tls_identity id = {.domain = "peer", .certificate = certificate, .key = key};
    struct tls_ctx *theirs = make_ctx(&id, 1, NULL, 0x0303);
    struct pair p = shake(theirs, NULL, NULL, c.tls, NULL, 4096);
    assert_int_equal(p.sr, TLS_OK);
    enum trust_reason r = link_trust_check(&c.trust, tls_engine_peer(p.server));
    pair_free(&p);
    tls_ctx_unref(theirs);
    credentials_free(&c);
    return r;
}

static void test_verdicts(void **state)
{
    (void)state;
    struct office o;
    office_open(&o);
    struct credentials_settings s = ours(&o, LINK_AUTH_TLS);
    s.ca_file = o.ca;
    s.store_file = o.alone;
    assert_int_equal(verdict(s, o.alone, o.alone_key), TRUST_STORE);
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_ONLY_ROOT);
    s.store_file = NULL;
    assert_int_equal(verdict(s, o.alone, o.alone_key), TRUST_NOT_IN_STORE);
    s = ours(&o, LINK_AUTH_TLS_PASSWORD);
    s.ca_file = o.ca;
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_ROOT);
    s.peer_name = "other.lab";
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_WRONG_NAME);
    s.ca_file = NULL; /* no root at all: not those of the system either */
    s.store_file = o.alone;
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_UNKNOWN_ISSUER);
    office_close(&o);
}

static void test_authlist(void **state)
{
    (void)state;
    struct office o;
    office_open(&o);
    struct credentials_settings s = ours(&o, LINK_AUTH_TLS);
    struct tls_identity id = {.domain = "peer", .certificate = o.peer, .key = o.peer_key};
    struct buf text = BUF_INIT(4096), errors = BUF_INIT(4096);
    assert_true(tls_identity_describe(&id, &text, &errors));
    char *line = strstr(text.p, "sha256"); /* as one operator reads it out to another */
    if (line == NULL)
        line = strstr(text.p, "SHA-256");
    assert_non_null(line);
    line += strcspn(line, ":") + 1;
    line += strspn(line, " ");
    line[strcspn(line, "\n")] = '\0';
    char nobody[] = "0000000000000000000000000000000000000000";
    char *list[] = {nobody, line};
    s.authlist = list;
    s.nauthlist = 1;
    s.ca_file = o.ca;
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_ONLY_ROOT);
    s.nauthlist = 2;
    assert_int_equal(verdict(s, o.peer, o.peer_key), TRUST_AUTHLIST);
    buf_free(&text);
    buf_free(&errors);
    office_close(&o);
}

static void refused(struct credentials_settings s, const char *file)
{
    struct credentials c;
    struct buf errors = BUF_INIT(4096);
    assert_false(credentials_init(&c, &s, &errors));
    if (strstr(errors.p, file) == NULL)
        fail_msg("%s is not in: %s", file, errors.p);
    assert_null(c.tls);
    buf_free(&errors);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct office o;
    office_open(&o);
    struct credentials_settings s = ours(&o, LINK_AUTH_TLS);
    s.store_file = o.junk;
    refused(s, "junk.pem");
    s = ours(&o, LINK_AUTH_TLS);
    s.ca_file = o.junk;
    refused(s, "junk.pem");
    s = ours(&o, LINK_AUTH_TLS);
    s.key = o.peer_key; /* not the key of the certificate */
    refused(s, "own.pem");
    s = ours(&o, LINK_AUTH_TLS);
    char bad[] = "12345";
    char *list[] = {bad};
    s.authlist = list;
    s.nauthlist = 1;
    refused(s, "authlist of core");
    s.auth = LINK_AUTH_PASSWORD; /* nothing of it is looked at */
    struct credentials c = made(s);
    assert_null(c.tls);
    assert_int_equal(c.trust.auth, LINK_AUTH_PASSWORD);
    credentials_free(&c);
    credentials_free(&c);
    office_close(&o);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct office o;
    office_open(&o);
    struct credentials_settings s = ours(&o, LINK_AUTH_TLS);
    s.store_file = o.alone;
    s.ca_file = o.ca;
    struct credentials c;
    bool ok = false;
    for (unsigned long n = 1; !ok; n++) {
        struct buf errors = BUF_INIT(4096);
        assert_true(buf_reserve(&errors, 4000)); /* so that it can be said */
        mem_fail_after(n);
        ok = credentials_init(&c, &s, &errors);
        mem_fail_after(0);
        assert_true(ok || errors.len > 0);
        buf_free(&errors);
    }
    credentials_free(&c);
    office_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_authlist),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
