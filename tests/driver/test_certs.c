/* Our own certificates in use: what lies on disk takes the place of what is in use only when it is
 * no worse; what is told of it, and when. Real files, a clock that the test moves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "core/base/mem.h"
#include "gateway/certs.h"
#include "tests/unit/certs.h"

enum { OUT_MAX = 1 << 20, LATER = 60 /* s: until a file has settled */ };

static struct issued root, other_root;
static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_certs.XXXXXX");
    assert_non_null(mkdtemp(dir));
    root = issue((struct wish){.name = "Lab Root"});
    other_root = issue((struct wish){.name = "Other Root"});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"a.pem", "a.key", "b.pem", "b.key", "c.pem", "c.key"};
    issued_free(&root);
    issued_free(&other_root);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

/* ---- the stage ------------------------------------------------------------------------------- */

struct stage {
    struct log *log;
    struct buf out;
    struct log_ctx ctx;
    struct alarms alarms;
    struct certs_env env;
    struct certs *certs;
    struct tls_identity ids[3];
    size_t nids;
    char cert[3][96], key[3][96]; /* a, b, c */
};

static void open_stage(struct stage *s)
{
    *s = (struct stage){.out = BUF_INIT(OUT_MAX)};
    assert_true(buf_reserve(&s->out, OUT_MAX / 2)); /* no line is lost for want of memory */
    s->log = log_new(-1, LOG_INFO, LOG_LOGFMT, 0);
    assert_non_null(s->log);
    log_capture(s->log, &s->out);
    s->ctx = (struct log_ctx){.sink = s->log};
    alarms_init(&s->alarms, &s->ctx);
    s->env = (struct certs_env){&s->alarms, &s->ctx, 1000, time(NULL) + LATER};
    for (int i = 0; i < 3; i++) {
        snprintf(s->cert[i], sizeof s->cert[i], "%s/%c.pem", dir, 'a' + i);
        snprintf(s->key[i], sizeof s->key[i], "%s/%c.key", dir, 'a' + i);
    }
}

static void close_stage(struct stage *s)
{
    certs_free(s->certs);
    alarms_free(&s->alarms);
    log_free(s->log);
    buf_free(&s->out);
}

/* Into the files a, b or c; subject CN=`name`. */
static void install(struct stage *s, int i, struct wish w)
{
    struct issued one = issue(w);
    char path[96], name[8];
    snprintf(name, sizeof name, "%c.pem", 'a' + i);
    write_cert(path, dir, name, one.x);
    snprintf(name, sizeof name, "%c.key", 'a' + i);
    write_key(path, dir, name, one.key);
    (void)s;
    issued_free(&one);
}

static void alpha(struct stage *s, const char *cn, long days)
{
    install(s, 0,
            (struct wish){.by = &root,
                          .name = cn,
                          .san = "DNS:alpha.lab,DNS:chat.alpha.lab",
                          .from = -DAY,
                          .to = days * DAY + LATER + 30});
}

static struct tls_identity at(const struct stage *s, const char *domain, int i)
{
    return (struct tls_identity){.domain = domain, .certificate = s->cert[i], .key = s->key[i]};
}

/* A snapshot of the configuration comes into force. False: it was refused. */
static bool configure(struct stage *s, const char *link)
{
    struct tls_settings set = {.identities = s->ids,
                               .nidentities = s->nids,
                               .minimum = TLS1_3_VERSION,
                               .no_system_store = true,
                               .sessions = 10};
    struct certs_before before = {s->certs, s->env.now};
    struct buf why = BUF_INIT(4096);
    struct certs *fresh = certs_new(&set, link, &before, &why);
    if (fresh != NULL) {
        certs_begin(fresh, s->certs, &s->env);
        certs_free(s->certs);
        s->certs = fresh;
    }
    buf_free(&why);
    return fresh != NULL;
}

static void begin(struct stage *s)
{
    open_stage(s);
    alpha(s, "first", 90);
    s->ids[0] = at(s, "alpha.lab", 0);
    s->nids = 1;
    assert_true(configure(s, NULL));
    assert_int_equal(s->out.len, 0);
}

static void look(struct stage *s)
{
    certs_look(s->certs, true, &s->env);
}

/* What new streams are shown. */
static const char *shown(const struct stage *s, size_t i, bool server)
{
    return tls_own_shows(tls_ctx_own(certs_tls(s->certs), i, server))->subject;
}

static size_t count(const struct stage *s, const char *text)
{
    size_t n = 0;
    for (const char *p = s->out.len ? s->out.p : ""; (p = strstr(p, text)) != NULL; p++)
        n++;
    return n;
}

static void logged(const struct stage *s, const char *text)
{
    if (count(s, text) != 1)
        fail_msg("'%s' is there %zu times in\n%s", text, count(s, text),
                 s->out.len ? s->out.p : "");
}

static void quiet(struct stage *s)
{
    if (s->out.len > 0)
        fail_msg("%s", s->out.p);
}

static const struct alarm *standing(const struct stage *s, const char *kind, const char *subject)
{
    LIST_FOREACH (&s->alarms.list, n, next) {
        const struct alarm *a = CONTAINER_OF(n, const struct alarm, node);
        if (strcmp(a->kind, kind) == 0 && strcmp(a->subject, subject) == 0)
            return a;
    }
    return NULL;
}

static void into_log(void *arg, const char *event, const struct kv *kv, size_t n)
{
    log_write(arg, LOG_NOTICE, event, kv, n);
}

static void dump(struct stage *s)
{
    certs_state(s->certs, &(struct kv_sink){into_log, &s->ctx});
}

/* ---- in the place of another ----------------------------------------------------------------- */

static void test_replaced(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    struct tls_ctx *old = tls_ctx_ref(certs_tls(s.certs));
    struct pair running = shake(old, "alpha.lab", "alpha.lab", old, NULL, 65536);
    look(&s);
    assert_ptr_equal(certs_tls(s.certs), old);
    quiet(&s);
    alpha(&s, "second", 80); /* sooner over, but not worse */
    look(&s);
    assert_string_equal(shown(&s, 0, true), "CN=second");
    assert_string_equal(shown(&s, 0, false), "CN=second");
    logged(&s, "tls.certificate.replaced domain=alpha.lab role=both");
    logged(&s, "subject=\"CN=second\" issuer=\"CN=Lab Root\"");
    assert_int_equal(s.alarms.list.count, 0);
    /* Who talks is not disturbed, and who had not finished goes on with what it saw. */
    assert_int_equal(tls_engine_write(running.server, STR("word")), TLS_OK);
    assert_string_equal(tls_engine_peer(running.client)->subject, "CN=first");
    pair_free(&running);
    tls_ctx_unref(old);
    buf_clear(&s.out);
    look(&s);
    quiet(&s);
    close_stage(&s);
}

static void test_just_written(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    alpha(&s, "second", 90);
    s.env.now = time(NULL);
    look(&s);
    assert_true(certs_unsettled(s.certs));
    assert_string_equal(shown(&s, 0, true), "CN=first");
    s.env.now += LATER;
    look(&s);
    assert_false(certs_unsettled(s.certs));
    assert_string_equal(shown(&s, 0, true), "CN=second");
    close_stage(&s);
}

/* The chain counts too, though it is the same certificate. */
static void test_same_certificate(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    struct tls_ctx *old = tls_ctx_ref(certs_tls(s.certs));
    FILE *f = fopen(s.cert[0], "a");
    assert_int_equal(PEM_write_X509(f, root.x), 1);
    fclose(f);
    look(&s);
    assert_ptr_not_equal(certs_tls(s.certs), old);
    struct pair p =
        shake(certs_tls(s.certs), "alpha.lab", "alpha.lab", certs_tls(s.certs), NULL, 65536);
    assert_string_equal(tls_engine_peer(p.client)->subject, "CN=first");
    pair_free(&p);
    quiet(&s);
    tls_ctx_unref(old);
    close_stage(&s);
}

/* ---- worse ones ------------------------------------------------------------------------------ */

static void other_names(struct stage *s)
{
    install(s, 0, (struct wish){.by = &root, .name = "worse", .san = "DNS:alpha.lab"});
}

static void expired(struct stage *s)
{
    install(s, 0,
            (struct wish){.by = &root,
                          .name = "worse",
                          .san = "DNS:alpha.lab,DNS:chat.alpha.lab",
                          .from = -9 * DAY,
                          .to = -DAY});
}

static void too_early(struct stage *s)
{
    install(s, 0,
            (struct wish){.by = &root,
                          .name = "worse",
                          .san = "DNS:alpha.lab,DNS:chat.alpha.lab",
                          .from = DAY,
                          .to = 9 * DAY});
}

static void self_signed(struct stage *s)
{
    install(
        s, 0,
        (struct wish){.name = "worse", .san = "DNS:alpha.lab,DNS:chat.alpha.lab", .leaf = true});
}

static void other_key(struct stage *s)
{
    char path[96];
    alpha(s, "worse", 90);
    write_key(path, dir, "a.key", root.key);
}

/* As many bytes as that were written until now. */
static void half_written(struct stage *s)
{
    alpha(s, "worse", 90);
    FILE *f = fopen(s->cert[0], "r+");
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    assert_int_equal(ftruncate(fileno(f), ftell(f) / 2), 0);
    fclose(f);
}

static void gone(struct stage *s)
{
    unlink(s->cert[0]);
}

static void no_key(struct stage *s)
{
    alpha(s, "worse", 90);
    unlink(s->key[0]);
}

static const struct {
    void (*spoil)(struct stage *s);
    const char *why;
} worse[] = {
    {other_names, "a.pem: not issued for chat.alpha.lab, as the one that is served is, but for "
                  "alpha.lab"},
    {expired, "a.pem: expired on "},
    {too_early, "a.pem: not valid before "},
    {self_signed, "a.pem: self-signed, which the one that is served is not"},
    {other_key, "a.pem: key does not match the certificate"},
    {half_written, "a.pem: holds no readable certificate in PEM form"},
    {gone, "a.pem: cannot be read: No such file or directory"},
    {no_key, "a.key: cannot be read: No such file or directory"},
};

static void test_worse_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof worse / sizeof worse[0]; i++)
        for (int reload = 0; reload <= 1; reload++) {
            struct stage s;
            begin(&s);
            struct tls_ctx *old = certs_tls(s.certs);
            worse[i].spoil(&s);
            if (reload)
                assert_true(configure(&s, NULL));
            look(&s);
            look(&s);
            assert_int_equal(standing(&s, "tls.not-replaced", "alpha.lab")->count, 2 + reload);
            assert_true(reload || certs_tls(s.certs) == old);
            assert_string_equal(shown(&s, 0, true), "CN=first");
            logged(&s, "tls.certificate.kept domain=alpha.lab role=both");
            logged(&s, "alarm.raised kind=tls.not-replaced subject=alpha.lab");
            const struct alarm *a = standing(&s, "tls.not-replaced", "alpha.lab");
            assert_non_null(a);
            if (strstr(a->text, worse[i].why) == NULL)
                fail_msg("row %zu: %s", i, a->text);
            assert_non_null(strstr(a->text, "; the one that was read before is in use"));
            buf_clear(&s.out);
            dump(&s);
            logged(&s, "subject=\"CN=first\"");
            logged(&s, worse[i].why);
            /* The next reload changes nothing; a good one ends it. */
            buf_clear(&s.out);
            assert_true(configure(&s, NULL));
            quiet(&s);
            alpha(&s, "good", 90);
            look(&s);
            assert_string_equal(shown(&s, 0, true), "CN=good");
            logged(&s, "alarm.cleared kind=tls.not-replaced subject=alpha.lab");
            assert_int_equal(s.alarms.list.count, 0);
            close_stage(&s);
        }
}

/* Another fault is another line; the alarm stands with the newer text. */
static void test_worse_and_worse(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    other_names(&s);
    look(&s);
    expired(&s);
    look(&s);
    assert_int_equal(count(&s, "tls.certificate.kept"), 2);
    const struct alarm *a = standing(&s, "tls.not-replaced", "alpha.lab");
    assert_non_null(strstr(a->text, "expired on"));
    assert_int_equal(a->count, 2);
    close_stage(&s);
}

/* It is put right without anything new: the old files come back, or time passes. */
static void test_resolved(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    char aside[120];
    snprintf(aside, sizeof aside, "%s/a.old", dir);
    assert_int_equal(rename(s.cert[0], aside), 0);
    look(&s);
    assert_non_null(standing(&s, "tls.not-replaced", "alpha.lab"));
    assert_int_equal(rename(aside, s.cert[0]), 0);
    look(&s);
    assert_int_equal(s.alarms.list.count, 0);
    assert_int_equal(count(&s, "replaced domain="), 0);
    too_early(&s);
    look(&s);
    assert_non_null(standing(&s, "tls.not-replaced", "alpha.lab"));
    s.env.now += 2 * DAY;
    look(&s);
    assert_string_equal(shown(&s, 0, true), "CN=worse");
    assert_null(standing(&s, "tls.not-replaced", "alpha.lab"));
    close_stage(&s);
}

/* ---- the configuration ----------------------------------------------------------------------- */

static void test_another_path(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    other_names(&s);
    look(&s);
    assert_int_equal(s.alarms.list.count, 1);
    /* The operator's word: fewer names, self-signed. */
    install(&s, 1,
            (struct wish){.name = "bare", .san = "DNS:alpha.lab", .leaf = true, .to = 90 * DAY});
    s.ids[0] = at(&s, "alpha.lab", 1);
    assert_true(configure(&s, NULL));
    assert_string_equal(shown(&s, 0, true), "CN=bare");
    assert_int_equal(s.alarms.list.count, 0);
    /* One that cannot be read refuses the whole snapshot. */
    s.ids[0] = at(&s, "alpha.lab", 2);
    assert_false(configure(&s, NULL));
    assert_string_equal(shown(&s, 0, true), "CN=bare");
    close_stage(&s);
}

static void test_domains_come_and_go(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    install(&s, 1, (struct wish){.by = &root, .name = "b", .san = "DNS:beta.lab", .to = 90 * DAY});
    s.ids[0] = at(&s, "beta.lab", 1);
    s.ids[1] = (struct tls_identity){.domain = "gamma.lab"};
    s.ids[2] = at(&s, "alpha.lab", 0);
    s.nids = 3;
    other_names(&s);
    assert_true(configure(&s, NULL));
    assert_string_equal(shown(&s, 0, true), "CN=b");
    assert_string_equal(shown(&s, 2, true), "CN=first");
    logged(&s, "tls.certificate.made domain=gamma.lab");
    assert_non_null(standing(&s, "tls.not-replaced", "alpha.lab"));
    const struct tls_own *made = tls_ctx_own(certs_tls(s.certs), 1, true);
    buf_clear(&s.out);
    s.nids = 2;
    assert_true(configure(&s, NULL));
    assert_ptr_equal(tls_ctx_own(certs_tls(s.certs), 1, true), made); /* not made again */
    assert_int_equal(count(&s, "tls.certificate.made"), 0);
    assert_int_equal(s.alarms.list.count, 0); /* nobody is interested in it any more */
    close_stage(&s);
}

static void test_client_certificate(void **state)
{
    (void)state;
    struct stage s;
    begin(&s);
    install(&s, 1, (struct wish){.by = &root, .name = "c", .san = "DNS:alpha.lab"});
    s.ids[0].client_certificate = s.cert[1];
    s.ids[0].client_key = s.key[1];
    assert_true(configure(&s, NULL));
    assert_string_equal(shown(&s, 0, true), "CN=first");
    assert_string_equal(shown(&s, 0, false), "CN=c");
    install(&s, 1, (struct wish){.by = &root, .name = "c2", .san = "DNS:alpha.lab"});
    look(&s);
    assert_string_equal(shown(&s, 0, true), "CN=first");
    assert_string_equal(shown(&s, 0, false), "CN=c2");
    logged(&s, "replaced domain=alpha.lab role=client");
    install(&s, 1, (struct wish){.by = &root, .name = "c3", .san = "DNS:beta.lab"});
    look(&s);
    assert_string_equal(shown(&s, 0, false), "CN=c2");
    assert_non_null(standing(&s, "tls.not-replaced", "alpha.lab/client"));
    s.ids[0].client_certificate = s.ids[0].client_key = NULL;
    assert_true(configure(&s, NULL));
    assert_string_equal(shown(&s, 0, false), "CN=first");
    assert_int_equal(s.alarms.list.count, 0);
    close_stage(&s);
}

static void test_of_a_link(void **state)
{
    (void)state;
    struct stage s;
    open_stage(&s);
    alpha(&s, "own", 6);
    install(&s, 1, (struct wish){.by = &root, .name = "b", .san = "DNS:beta.lab"});
    s.ids[0] = at(&s, "edge.alpha.lab", 0); /* its names may be others */
    s.ids[1] =
        (struct tls_identity){.domain = "beta.lab", .certificate = s.cert[1], .key = s.key[1]};
    s.nids = 2;
    assert_true(configure(&s, "core"));
    assert_non_null(standing(&s, "tls.expires", "link:core"));
    assert_non_null(standing(&s, "tls.expires", "link:core/beta.lab"));
    assert_int_equal(count(&s, "tls.certificate.names"), 0);
    install(&s, 1, (struct wish){.by = &root, .name = "b", .san = "DNS:gamma.lab"});
    look(&s);
    assert_non_null(standing(&s, "tls.not-replaced", "link:core/beta.lab"));
    logged(&s, "tls.certificate.kept domain=beta.lab role=both link=core");
    certs_end(s.certs, &s.env);
    assert_int_equal(s.alarms.list.count, 0);
    close_stage(&s);
}

static void test_names(void **state)
{
    (void)state;
    struct stage s;
    open_stage(&s);
    alpha(&s, "first", 90);
    s.ids[0] = at(&s, "beta.lab", 0);
    s.nids = 1;
    assert_true(configure(&s, NULL));
    logged(&s, "not issued for beta.lab but for alpha.lab, chat.alpha.lab");
    close_stage(&s);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void test_expires(void **state)
{
    (void)state;
    static const struct {
        int days; /* left */
        const char *text;
    } steps[] = {{31, NULL},
                 {30, "in 30 days or less"},
                 {8, NULL},
                 {7, "in 7 days or less"},
                 {1, "in 1 day or less"},
                 {0, "expired on"}};
    struct stage s;
    begin(&s);
    const int64_t end = tls_own_shows(tls_ctx_own(certs_tls(s.certs), 0, true))->not_after;
    uint64_t raised = 0;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        buf_clear(&s.out);
        s.env.now = end - (int64_t)steps[i].days * DAY;
        look(&s);
        certs_look(s.certs, false, &s.env); /* once is enough */
        assert_int_equal(count(&s, "tls.certificate.expires"), steps[i].text != NULL);
        raised += steps[i].text != NULL;
        const struct alarm *a = standing(&s, "tls.expires", "alpha.lab");
        assert_int_equal(a != NULL ? a->count : 0, raised);
        if (steps[i].text != NULL && strstr(a->text, steps[i].text) == NULL)
            fail_msg("%s", a->text);
    }
    /* A reload does not begin anew; a renewal ends it. */
    buf_clear(&s.out);
    assert_true(configure(&s, NULL));
    quiet(&s);
    alpha(&s, "second", 200);
    look(&s);
    logged(&s, "alarm.cleared kind=tls.expires subject=alpha.lab");
    assert_int_equal(s.alarms.list.count, 0);
    close_stage(&s);
}

/* Sooner over than it should be: from the start. */
static void test_expires_at_the_start(void **state)
{
    (void)state;
    struct stage s;
    open_stage(&s);
    expired(&s);
    s.ids[0] = at(&s, "alpha.lab", 0);
    s.nids = 1;
    assert_true(configure(&s, NULL));
    assert_non_null(strstr(standing(&s, "tls.expires", "alpha.lab")->text, "expired on"));
    alpha(&s, "second", 20); /* better, and near its end all the same */
    look(&s);
    assert_string_equal(shown(&s, 0, true), "CN=second");
    assert_non_null(strstr(standing(&s, "tls.expires", "alpha.lab")->text, "in 30 days or less"));
    close_stage(&s);
}

static void test_made_again(void **state)
{
    (void)state;
    struct stage s;
    open_stage(&s);
    s.ids[0] = (struct tls_identity){.domain = "alpha.lab"};
    s.nids = 1;
    assert_true(configure(&s, NULL));
    const struct tls_own *first = tls_ctx_own(certs_tls(s.certs), 0, true);
    s.env.now += 334LL * DAY;
    look(&s);
    assert_ptr_equal(tls_ctx_own(certs_tls(s.certs), 0, true), first);
    buf_clear(&s.out);
    s.env.now += 2LL * DAY;
    certs_look(s.certs, false, &s.env);
    assert_ptr_not_equal(tls_ctx_own(certs_tls(s.certs), 0, true), first);
    logged(&s, "tls.certificate.made domain=alpha.lab");
    buf_clear(&s.out);
    dump(&s);
    logged(&s, "source=self-made");
    close_stage(&s);
}

/* ---- without memory -------------------------------------------------------------------------- */

static void test_no_memory(void **state)
{
    (void)state;
    bool done = false;
    for (unsigned long n = 1; !done; n++) {
        struct stage s;
        begin(&s);
        alpha(&s, "second", 90);
        mem_fail_after(n);
        look(&s);
        mem_fail_after(0);
        const bool had = strcmp(shown(&s, 0, true), "CN=second") == 0;
        look(&s);
        assert_string_equal(shown(&s, 0, true), "CN=second");
        assert_int_equal(s.alarms.list.count, 0);
        buf_clear(&s.out);
        done = had && n > 5;
        other_names(&s);
        mem_fail_after(n);
        bool taken = configure(&s, NULL);
        mem_fail_after(0);
        assert_string_equal(shown(&s, 0, true), "CN=second");
        done = done && taken;
        look(&s);
        assert_non_null(standing(&s, "tls.not-replaced", "alpha.lab"));
        close_stage(&s);
        assert_true(n < 200);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_just_written),
        cmocka_unit_test(test_same_certificate),
        cmocka_unit_test(test_worse_is_refused),
        cmocka_unit_test(test_worse_and_worse),
        cmocka_unit_test(test_resolved),
        cmocka_unit_test(test_another_path),
        cmocka_unit_test(test_domains_come_and_go),
        cmocka_unit_test(test_client_certificate),
        cmocka_unit_test(test_of_a_link),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_expires),
        cmocka_unit_test(test_expires_at_the_start),
        cmocka_unit_test(test_made_again),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
