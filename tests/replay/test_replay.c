/* Transcripts: what a peer says, what happens meanwhile, and what one S2S machine must do.
 *
 * tests/replay/NAME.s2s, line by line; '#' begins a comment line.
 *
 *     in                          the machine: an incoming stream, or
 *     out LOCAL REMOTE            an outgoing one; both may be followed by
 *       LINK [address] [certificates] [direct] [no-certificate]
 *                                 of the inside: which link, or - for the world; does the peer's
 *                                 address prove it, do certificates decide (auth tls); is TLS there
 *                                 from the first byte, have we no certificate to show
 *     config: TEXT                a line of the configuration (fake_config adds the rest)
 *
 * Steps:
 *     peer: XML                   bytes of the peer; \n is a line end
 *     tls-up[: CERT [NAME [VERSION]]]
 *                                 the handshake is done: with a certificate that is known or
 *                                 unknown to the link, trusted or expired; issued for NAME
 *                                 (default: the peer's domain), by TLS VERSION (TLSv1.3)
 *     tls-failed: WHY
 *     verdict: valid|invalid|not-found|timeout|busy [N]
 *                                 answers the N-th question (default: the oldest without answer)
 *     want-pair: LOCAL [REMOTE]   out; REMOTE: a guest
 *     want-verify: LOCAL ID KEY [REMOTE]
 *                                 out
 *     hosts: REMOTE               out: would it take that guest now?
 *     hosts-not: REMOTE           the contrary
 *     sent                        in: the driver wrote a stanza back on it
 *     time: 30s | 500ms           virtual time passes, timers fire in their order
 *     policy: TEXT                another configuration comes into force
 *     drain | lost | close        we stop; the connection breaks; the peer sends its closing tag
 *
 * After each step come the actions that it must cause, all of them and in order, without LOG, TIMER
 * and LIMITS:
 *     expect: ACTION              a pattern with * and ?; see tests/fake/stage.c for the texts
 *     expect: NOTHING
 *     carries: LOCAL REMOTE       in: may a stanza of this pair be written back on it now?
 *     one-way: LOCAL REMOTE       the contrary
 *     broken: PATTERN             how the peer has broken the rules of bidi; NOTHING: it has not
 *
 * In XML and in patterns:
 *     {open ATTRS}                a stream header with the usual namespaces
 *     {id}                        our id of the present incoming stream
 *     {limits}                    the stream limits among our features (in patterns)
 *     {base64 TEXT}
 *     {key RECEIVING ORIGINATING ID}  a dialback key made with our secret; {oldkey ...}: the older
 * one {fill N}                    N times the letter x
 *
 * Each transcript runs in one piece, byte by byte, and with every element of the peer cut in two at
 * each position; the results must be equal. Then it runs with the n-th allocation failing, for
 * every n: no expectations then, but the invariants of the stage hold and nothing leaks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/base64.h"
#include "core/base/mem.h"
#include "tests/fake/stage.h"

#define FOLDER "tests/replay"

enum { STEPS_MAX = 256, LINE_BYTES = 8192, FILES_MAX = 512, CUTS_MAX = 1500 };

struct step {
    unsigned line;
    char *word, *arg;           /* arg: "" when there is none */
    char *text;                 /* arg with its macros written out, in the first run */
    struct gateway_config *cfg; /* policy */
};

struct script {
    char *name, *local, *remote; /* local NULL: incoming */
    struct stage_side where;
    char link[64];
    struct gateway_config *cfg;
    struct step step[STEPS_MAX];
    size_t nsteps;
};

/* ---- reading --------------------------------------------------------------------------------- */

static char *copy(const char *s, size_t n)
{
    char *d = malloc(n + 1);
    assert_non_null(d);
    memcpy(d, s, n);
    d[n] = '\0';
    return d;
}

static void read_side(struct script *s, const char *text)
{
    if (sscanf(text, " %63s", s->link) != 1)
        return;
    s->where.link = strcmp(s->link, "-") != 0 ? s->link : NULL;
    s->where.direct_tls = strstr(text, " direct") != NULL;
    s->where.no_certificate = strstr(text, " no-certificate") != NULL;
    s->where.trusted_address = strstr(text, " address") != NULL;
    s->where.certificates = strstr(text, " certificates") != NULL;
}

static void read_machine(struct script *s, const char *line)
{
    char local[256], remote[256];
    int end = 0;
    if (strcmp(line, "in") == 0 || strncmp(line, "in ", 3) == 0) {
        read_side(s, line + 2);
        return;
    }
    if (sscanf(line, "out %255s %255s%n", local, remote, &end) != 2)
        fail_msg("%s: 'in' or 'out LOCAL REMOTE' expected", s->name);
    s->local = copy(local, strlen(local));
    s->remote = copy(remote, strlen(remote));
    read_side(s, line + end);
}

static void read_step(struct script *s, const char *line, unsigned number)
{
    size_t n = strcspn(line, ":");
    const char *arg = line[n] ? line + n + 1 + (line[n + 1] == ' ') : "";
    if (s->nsteps == STEPS_MAX)
        fail_msg("%s: too many steps", s->name);
    struct step *st = &s->step[s->nsteps++];
    *st = (struct step){number, copy(line, n), copy(arg, strlen(arg)), NULL, NULL};
    if (strcmp(st->word, "policy") == 0) {
        st->cfg = fake_config(arg);
        assert_non_null(st->cfg);
    }
}

static struct script *load(const char *name)
{
    char path[512], line[LINE_BYTES];
    struct buf config = BUF_INIT(65536);
    struct script *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->name = copy(name, strlen(name));
    snprintf(path, sizeof path, FOLDER "/%s", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    bool machine = false;
    for (unsigned number = 1; fgets(line, sizeof line, f) != NULL; number++) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (!machine)
            read_machine(s, line);
        else if (strncmp(line, "config: ", 8) == 0)
            buf_printf(&config, "%s\n", line + 8);
        else
            read_step(s, line, number);
        machine = true;
    }
    fclose(f);
    s->cfg = fake_config(config.len ? config.p : "");
    assert_non_null(s->cfg);
    buf_free(&config);
    return s;
}

static void unload(struct script *s)
{
    for (size_t i = 0; i < s->nsteps; i++) {
        free(s->step[i].word);
        free(s->step[i].arg);
        free(s->step[i].text);
        gateway_config_unref(s->step[i].cfg);
    }
    gateway_config_unref(s->cfg);
    free(s->name);
    free(s->local);
    free(s->remote);
    free(s);
}

/* ---- macros ---------------------------------------------------------------------------------- */

static char *put(char *out, const char *text)
{
    size_t n = strlen(text);
    memcpy(out, text, n + 1);
    return out + n;
}

static char *put_key(char *out, const char *macro)
{
    char receiving[256], originating[256], id[256], key[DIALBACK_KEY_HEX + 1];
    const char *secret = macro[0] == 'o' ? "old" : "new";
    assert_int_equal(sscanf(macro, "%*s %255s %255s %255s", receiving, originating, id), 3);
    assert_true(dialback_key(key, str_c(secret), str_c(receiving), str_c(originating), str_c(id)));
    return put(out, key);
}

static char *put_base64(char *out, const char *text)
{
    struct buf b = BUF_INIT(1024);
    base64_write(&b, str_c(text));
    assert_false(b.failed);
    memcpy(out, b.p, b.len);
    out += b.len;
    buf_free(&b);
    return out;
}

static char *put_macro(char *out, const struct stage *s, const char *macro)
{
    if (strncmp(macro, "open ", 5) == 0) {
        out = put(out, "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' "
                       "xmlns:stream='http://etherx.jabber.org/streams' ");
        return put(put(out, macro + 5), ">");
    }
    if (strcmp(macro, "id") == 0)
        return put(out, stage_id(s));
    if (strcmp(macro, "limits") == 0)
        return put(out, "<limits xmlns='urn:xmpp:stream-limits:0'>*</limits>");
    if (strncmp(macro, "base64 ", 7) == 0)
        return put_base64(out, macro + 7);
    if (strncmp(macro, "fill ", 5) == 0) {
        size_t n = strtoul(macro + 5, NULL, 10);
        memset(out, 'x', n);
        return out + n;
    }
    return put_key(out, macro);
}

static char *expand(const struct stage *s, const char *text)
{
    char *out = malloc(1 << 20), *p = out, macro[1024];
    assert_non_null(out);
    while (*text != '\0') {
        if (text[0] == '\\' && text[1] == 'n') {
            *p++ = '\n';
            text += 2;
        } else if (text[0] == '{') {
            size_t n = strcspn(text, "}");
            assert_true(n < sizeof macro);
            memcpy(macro, text + 1, n - 1);
            macro[n - 1] = '\0';
            p = put_macro(p, s, macro);
            text += n + 1;
        } else {
            *p++ = *text++;
        }
    }
    *p = '\0';
    p = copy(out, (size_t)(p - out));
    free(out);
    return p;
}

/* ---- running --------------------------------------------------------------------------------- */

struct manner {
    size_t piece, cut;  /* bytes at a time; or cut once, there */
    unsigned long fail; /* this allocation fails; 0: none */
};

static uint64_t duration(const char *s)
{
    char *unit;
    uint64_t n = strtoull(s, &unit, 10);
    return strcmp(unit, "ms") == 0 ? n : strcmp(unit, "m") == 0 ? n * 60000 : n * 1000;
}

/* How far a run is. */
struct progress {
    size_t seen;     /* lines that an expectation took */
    size_t answered; /* questions */
};

static void answer(struct stage *s, const char *arg, struct progress *at)
{
    static const char *const names[] = {"valid", "invalid", "not-found", "timeout", "busy"};
    char name[32] = "";
    unsigned n = 0;
    int given = sscanf(arg, "%31s %u", name, &n);
    size_t which = given == 2 ? n - 1 : at->answered;
    uint32_t ticket = which < s->ntickets ? s->tickets[which] : 999999;
    at->answered += given == 1;
    for (int v = VERDICT_VALID; v <= VERDICT_BUSY; v++)
        if (strcmp(name, names[v]) == 0) {
            stage_verdict(s, ticket, (enum verdict)v);
            return;
        }
    fail_msg("unknown verdict %s", arg);
}

static void peer(struct stage *s, const char *text, const struct manner *how)
{
    struct str all = str_c(text);
    size_t cut = how->cut < all.n ? how->cut : 0;
    stage_peer(s, (struct str){all.p, cut}, 0);
    stage_peer(s, (struct str){all.p + cut, all.n - cut}, how->piece);
}

static void tls_up(struct stage *s, const char *arg)
{
    static const char *const certs[STAGE_CERTS] = {"none", "known", "unknown", "trusted",
                                                   "expired"};
    char cert[16] = "none", name[64] = "", version[16] = "TLSv1.3";
    sscanf(arg, "%15s %63s %15s", cert, name, version);
    for (int i = 0; i < STAGE_CERTS; i++) {
        if (strcmp(cert, certs[i]) != 0)
            continue;
        if (name[0] != '\0')
            stage_tls_up_as(s, (enum stage_cert)i, name, version);
        else
            stage_tls_up(s, (enum stage_cert)i);
        return;
    }
    fail_msg("unknown certificate %s", arg);
}

static void want_verify(struct stage *s, const char *arg)
{
    char local[256], id[256], key[256], remote[256];
    int n = sscanf(arg, "%255s %255s %255s %255s", local, id, key, remote);
    assert_true(n >= 3);
    stage_verify_guest(s, local, n > 3 ? remote : s->out.remote, id, key);
}

static void want_pair(struct stage *s, const char *arg)
{
    char local[256], remote[256] = "";
    assert_true(sscanf(arg, "%255s %255s", local, remote) >= 1);
    stage_want_guest(s, local, remote);
}

/* False: there is no such step. */
static bool take(struct stage *s, const struct step *st, struct progress *at,
                 const struct manner *how)
{
    const char *w = st->word, *arg = st->text;
    if (strcmp(w, "peer") == 0)
        peer(s, arg, how);
    else if (strcmp(w, "close") == 0)
        peer(s, "</stream:stream>", how);
    else if (strcmp(w, "tls-up") == 0)
        tls_up(s, arg);
    else if (strcmp(w, "tls-failed") == 0)
        stage_kind(s, EV_TLS_FAILED, arg);
    else if (strcmp(w, "verdict") == 0)
        answer(s, arg, at);
    else if (strcmp(w, "want-pair") == 0)
        want_pair(s, arg);
    else if (strcmp(w, "want-verify") == 0)
        want_verify(s, arg);
    else if (strcmp(w, "time") == 0)
        stage_time(s, duration(arg));
    else if (strcmp(w, "policy") == 0)
        stage_config(s, st->cfg);
    else if (strcmp(w, "sent") == 0)
        stage_sent(s);
    else if (strcmp(w, "drain") == 0)
        stage_kind(s, EV_DRAIN, "we stop");
    else if (strcmp(w, "lost") == 0)
        stage_kind(s, EV_LOST, "reset");
    else
        return false;
    return true;
}

static void expect(const struct script *sc, const struct step *st, const struct stage *s,
                   struct progress *at)
{
    bool nothing = strcmp(st->text, "NOTHING") == 0;
    const char *got = at->seen < s->nlines ? s->lines[at->seen] : "NOTHING";
    if (fnmatch(st->text, got, FNM_NOESCAPE) != 0)
        fail_msg("%s:%u: expected\n  %s\nbut got\n  %s", sc->name, st->line, st->text, got);
    at->seen += !nothing;
}

static bool carries(const struct stage *s, const char *arg)
{
    char local[256], remote[256];
    assert_int_equal(sscanf(arg, "%255s %255s", local, remote), 2);
    return s2s_in_carries(&s->in, str_c(local), str_c(remote));
}

/* What the driver looks at in the machine. False: it is no such line. */
static bool look(const struct script *sc, const struct step *st, const struct stage *s, bool strict)
{
    const char *broken = s->outgoing ? s->out.bidi_broken : s->in.bidi_broken, *w = st->word;
    if (strcmp(w, "carries") == 0 || strcmp(w, "one-way") == 0) {
        if (strict && carries(s, st->text) != (w[0] == 'c'))
            fail_msg("%s:%u: not so", sc->name, st->line);
        return true;
    }
    if (strcmp(w, "hosts") == 0 || strcmp(w, "hosts-not") == 0) {
        if (strict && s2s_out_hosts(&s->out, str_c(st->text)) != (w[5] == '\0'))
            fail_msg("%s:%u: not so", sc->name, st->line);
        return true;
    }
    if (strcmp(w, "broken") != 0)
        return false;
    broken = broken ? broken : "NOTHING";
    if (strict && fnmatch(st->text, broken, FNM_NOESCAPE) != 0)
        fail_msg("%s:%u: expected\n  %s\nbut got\n  %s", sc->name, st->line, st->text, broken);
    return true;
}

/* One step, or one expectation. */
static void play(const struct script *sc, struct step *st, struct stage *s, struct progress *at,
                 const struct manner *how)
{
    bool strict = how->fail == 0, expects = strcmp(st->word, "expect") == 0;
    if (st->text == NULL)
        st->text = st->cfg ? copy("", 0) : expand(s, st->arg);
    if (strict && !expects && at->seen < s->nlines)
        fail_msg("%s:%u: not expected before this step:\n  %s", sc->name, st->line,
                 s->lines[at->seen]);
    if (expects && strict)
        expect(sc, st, s, at);
    else if (!expects && !look(sc, st, s, strict) && !take(s, st, at, how))
        fail_msg("%s:%u: no such step: %s", sc->name, st->line, st->word);
    if (s->wrong != NULL)
        fail_msg("%s:%u (piece %zu, cut %zu, fail %lu): broken: %s", sc->name, st->line, how->piece,
                 how->cut, how->fail, s->wrong);
}

/* Runs the whole script; the stage keeps all lines. */
static void run(struct script *sc, struct stage *s, struct manner how)
{
    struct progress at = {0, 0};
    mem_fail_after(how.fail);
    bool open = stage_open_at(s, &sc->where, sc->local != NULL, sc->cfg,
                              sc->local ? sc->local : "-", sc->remote ? sc->remote : "-", 7);
    for (size_t i = 0; open && i < sc->nsteps; i++)
        play(sc, &sc->step[i], s, &at, &how);
    if (how.fail == 0 && at.seen < s->nlines)
        fail_msg("%s: not expected at the end:\n  %s", sc->name, s->lines[at.seen]);
}

static void same(const struct script *sc, const struct stage *a, const struct stage *b,
                 struct manner how)
{
    for (size_t i = 0; i < a->nlines || i < b->nlines; i++) {
        const char *x = i < a->nlines ? a->lines[i] : "nothing";
        const char *y = i < b->nlines ? b->lines[i] : "nothing";
        if (strcmp(x, y) != 0)
            fail_msg("%s: piece %zu, cut %zu:\n  %s\ninstead of\n  %s", sc->name, how.piece,
                     how.cut, y, x);
    }
}

static size_t longest(const struct script *sc)
{
    size_t max = 0;
    for (size_t i = 0; i < sc->nsteps; i++)
        if (strcmp(sc->step[i].word, "peer") == 0 && strlen(sc->step[i].text) > max)
            max = strlen(sc->step[i].text);
    return max < CUTS_MAX ? max : CUTS_MAX;
}

static void run_split(struct script *sc, const struct stage *whole, struct manner how)
{
    struct stage s;
    run(sc, &s, how);
    same(sc, whole, &s, how);
    stage_close(&s);
}

/* True when the n-th allocation was reached. */
static bool run_failing(struct script *sc, unsigned long n)
{
    struct stage s;
    run(sc, &s, (struct manner){.fail = n});
    void *p = mem_alloc(1);
    mem_fail_after(0);
    bool reached = p == NULL;
    mem_free(p);
    stage_close(&s);
    return reached;
}

static void test_script(void **state)
{
    struct stage whole;
    struct script *sc = load(*state);
    run(sc, &whole, (struct manner){0});
    run_split(sc, &whole, (struct manner){.piece = 1});
    for (size_t cut = 1, max = longest(sc); cut < max; cut++)
        run_split(sc, &whole, (struct manner){.cut = cut});
    stage_close(&whole);
    unsigned long n = 1;
    while (run_failing(sc, n))
        n++;
    assert_true(n > 1);
    unload(sc);
}

static void test_edges(void **state)
{
    (void)state;
    assert_int_equal(stage_untaken(false), 0);
    assert_int_equal(stage_untaken(true), 0);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_script(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 4 && strcmp(d->d_name + n - 4, ".s2s") == 0;
}

int main(int argc, char **argv)
{
    struct dirent **files;
    struct CMUnitTest tests[FILES_MAX + 1] = {{0}};
    int found = scandir(FOLDER, &files, is_script, by_name), n = 0;
    for (int i = 0; i < found && n < FILES_MAX; i++)
        if (argc < 2 || strcmp(argv[1], files[i]->d_name) == 0)
            tests[n++] =
                (struct CMUnitTest){files[i]->d_name, test_script, NULL, NULL, files[i]->d_name};
    if (argc < 2)
        tests[n++] = (struct CMUnitTest){"every edge is taken", test_edges, NULL, NULL, NULL};
    int failed =
        n > 1 || argc > 1 ? _cmocka_run_group_tests("replay", tests, (size_t)n, NULL, NULL) : 1;
    for (int i = 0; i < found; i++)
        free(files[i]);
    if (found >= 0)
        free(files);
    return failed;
}
