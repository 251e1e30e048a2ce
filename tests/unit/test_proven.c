/* The memory of names that joined by password: what a file says, replaced in one step or not at
 * all, and what is logged. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xcp/proven.h"

struct bench {
    char dir[64], file[96], missing[128];
    struct log_ctx log;
    struct buf out;
};

static void begin(struct bench *b)
{
    *b = (struct bench){.out = BUF_INIT(1 << 16)};
    snprintf(b->dir, sizeof b->dir, "/tmp/test_proven.XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->file, sizeof b->file, "%s/proven", b->dir);
    snprintf(b->missing, sizeof b->missing, "%s/none/proven", b->dir);
    b->log.sink = log_new(-1, LOG_INFO, LOG_LOGFMT, 0);
    assert_non_null(b->log.sink);
    log_capture(b->log.sink, &b->out);
}

static void finish(struct bench *b)
{
    unlink(b->file);
    assert_int_equal(rmdir(b->dir), 0); /* no temporary file stayed */
    log_free(b->log.sink);
    buf_free(&b->out);
}

/* What was logged since the last look; %F stands for the file's name. */
static void expect(struct bench *b, const char *format)
{
    char want[512];
    const char *at = strstr(format, "%F");
    if (at == NULL)
        str_copy(want, sizeof want, str_c(format));
    else
        snprintf(want, sizeof want, "%.*s%s%s", (int)(at - format), format, b->file, at + 2);
    buf_putc(&b->out, '\0');
    assert_string_equal(b->out.p, want);
    buf_clear(&b->out);
}

static void put(const struct bench *b, const char *text, size_t n)
{
    FILE *f = fopen(b->file, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void test_file(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_ABSENT);
    assert_int_equal(proven_read(b.missing, "peer.lab"), PROVEN_ABSENT);
    assert_true(proven_write(b.file, "peer.lab"));
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_NAME);
    assert_int_equal(proven_read(b.file, "peer"), PROVEN_OTHER);
    assert_int_equal(proven_read(b.file, "xpeer.lab"), PROVEN_OTHER);
    assert_int_equal(proven_read(b.file, ""), PROVEN_OTHER);
    assert_true(proven_write(b.file, "other.lab")); /* only one name at a time */
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_OTHER);
    assert_int_equal(proven_read(b.file, "other.lab"), PROVEN_NAME);
    assert_false(proven_write(b.missing, "peer.lab"));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(proven_read(b.dir, "peer.lab"), PROVEN_BROKEN);
    assert_int_equal(errno, EISDIR);
    finish(&b);
}

static void test_contents(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        enum proven want;
    } cases[] = {
        {STR("peer.lab"), PROVEN_NAME},
        {STR(" Peer.LAB \r\n"), PROVEN_NAME}, /* by hand */
        {STR("peer.lab\nother.lab\n"), PROVEN_BROKEN},
        {STR("peer lab"), PROVEN_BROKEN},
        {STR("peer.lab\0\n"), PROVEN_BROKEN},
        {STR("peer\0.lab\n"), PROVEN_BROKEN},
        {STR(""), PROVEN_BROKEN},
        {STR("\n\n"), PROVEN_BROKEN},
        {STR("\xff\xfe\x00\x01"), PROVEN_BROKEN},
    };
    struct bench b;
    begin(&b);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put(&b, cases[i].text.p, cases[i].text.n);
        if (proven_read(b.file, "peer.lab") != cases[i].want)
            fail_msg("case %zu", i);
    }
    char big[4096];
    memset(big, 'a', sizeof big);
    put(&b, big, sizeof big);
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_BROKEN);
    memset(big, ' ', sizeof big); /* a name that is followed by more than is read */
    memcpy(big, "peer.lab", 8);
    big[sizeof big - 1] = 'x';
    put(&b, big, sizeof big);
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_BROKEN);
    finish(&b);
}

/* A disk that takes nothing: the old file stays as it was. */
static void test_no_space(void **state)
{
    (void)state;
    struct bench b;
    struct rlimit before, none;
    begin(&b);
    assert_true(proven_write(b.file, "peer.lab"));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){4, before.rlim_max};
    void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    bool written = proven_write(b.file, "other.lab");
    int why = errno;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, old);
    assert_false(written);
    assert_int_equal(why, EFBIG);
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_NAME);
    finish(&b);
}

static void test_recall(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    assert_false(proven_recall(NULL, "peer.lab", "core", &b.log));
    assert_false(proven_recall(b.file, NULL, "core", &b.log));
    assert_false(proven_recall(b.file, "peer.lab", "core", &b.log)); /* the first start */
    expect(&b, "");
    assert_true(proven_write(b.file, "peer.lab"));
    assert_true(proven_recall(b.file, "peer.lab", "core", &b.log));
    expect(&b, "");
    assert_false(proven_recall(b.file, "other.lab", "core", &b.log));
    expect(&b,
           "warn link.proven.ignored link=core file=%F reason=other-name msg=\"it holds another "
           "name than peer_name\"\n");
    put(&b, "???", 3);
    assert_false(proven_recall(b.file, "peer.lab", "core", &b.log));
    expect(&b,
           "warn link.proven.ignored link=core file=%F reason=broken msg=\"it does not hold the "
           "name of a peer\"\n");
    unlink(b.file);
    assert_int_equal(mkdir(b.file, 0700), 0);
    assert_false(proven_recall(b.file, "peer.lab", "core", &b.log));
    expect(&b, "warn link.proven.ignored link=core file=%F reason=broken msg=\"Is a directory\"\n");
    rmdir(b.file);
    finish(&b);
}

static void test_remember(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    proven_remember(NULL, "peer.lab", false, &b.log);
    expect(&b, "info link.proven name=peer.lab\n");
    proven_remember(NULL, "peer.lab", true, &b.log);
    expect(&b, "");
    /* The file came later than the first join, or was lost meanwhile. */
    proven_remember(b.file, "peer.lab", true, &b.log);
    expect(&b, "info link.proven name=peer.lab file=%F\n");
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_NAME);
    proven_remember(b.file, "peer.lab", true, &b.log);
    expect(&b, "");
    put(&b, "rubbish!", 8);
    proven_remember(b.file, "peer.lab", false, &b.log);
    expect(&b, "info link.proven name=peer.lab file=%F\n");
    assert_int_equal(proven_read(b.file, "peer.lab"), PROVEN_NAME);
    finish(&b);
}

/* Said at each join until it can be written. */
static void test_cannot_remember(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    for (int i = 0; i < 2; i++) {
        proven_remember(b.missing, "peer.lab", i > 0, &b.log);
        buf_putc(&b.out, '\0');
        assert_non_null(strstr(b.out.p, "warn link.proven name=peer.lab file="));
        assert_non_null(strstr(b.out.p, "msg=\"No such file or directory\""));
        buf_clear(&b.out);
    }
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),     cmocka_unit_test(test_contents),
        cmocka_unit_test(test_no_space), cmocka_unit_test(test_recall),
        cmocka_unit_test(test_remember), cmocka_unit_test(test_cannot_remember),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
