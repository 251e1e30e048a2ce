/* bench-load: the world around one XMPP server under test, for measuring it.
 *
 * It plays the remote domains rNNNN.SUFFIX, their authoritative server, and the inside that owns
 * in.SUFFIX. Commands come on standard input, one per line; each is answered by one line, "ok ..."
 * or "fail reason", when it is done:
 *
 *     inside SECONDS                          wait for the inside stream
 *     open FIRST COUNT PARALLEL SECONDS       authenticate one stream for each of COUNT domains
 *     close SECONDS                           close them all in good order
 *     tickets NUMBER                          of TLS for each handshake from now on; at first 0
 *     drop                                    close what the server under test dialled
 *     run in|out|both FIRST STREAMS COUNT BATCH WINDOW message|presence|large|names SECONDS
 *     stat
 *     quit
 *
 * It measures nothing but delivery; who drives it reads the server's CPU time around a command. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/load.h"

enum { LINE_MAX_BYTES = 256, WORDS = 10, EVENTS = 128 };

enum job { IDLE, WAIT_INSIDE, OPENING, CLOSING_ALL, RUNNING };

struct shell {
    struct load load;
    struct conn listen_s2s, listen_inside, commands;
    enum job job;
    char line[LINE_MAX_BYTES];
    size_t line_n;
};

uint64_t load_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

void load_fail(struct load *l, const char *what, const char *why)
{
    if (l->failure[0] == '\0')
        (void)snprintf(l->failure, sizeof l->failure, "%s: %s", what, why);
}

static void answer(struct shell *s, const char *text)
{
    struct load *l = &s->load;
    if (l->failure[0] != '\0')
        printf("fail %s\n", l->failure);
    else
        printf("ok %s us=%llu\n", text, (unsigned long long)(load_now_us() - l->began_us));
    (void)fflush(stdout);
    l->failure[0] = '\0';
    l->running = false;
    s->job = IDLE;
}

/* ---- commands -------------------------------------------------------------------------------- */

static unsigned number(const char *word)
{
    return word != NULL ? (unsigned)strtoul(word, NULL, 10) : 0;
}

static void begin(struct shell *s, enum job job, const char *seconds)
{
    s->job = job;
    s->load.began_us = load_now_us();
    s->load.until_us = s->load.began_us + (uint64_t)number(seconds) * 1000000u;
}

static void command_open(struct shell *s, char *const w[WORDS])
{
    struct load *l = &s->load;
    begin(s, OPENING, w[4]);
    l->open_first = l->open_next = number(w[1]);
    l->open_end = l->open_first + number(w[2]);
    l->open_parallel = number(w[3]);
    if (l->open_end > DOMAINS_MAX)
        load_fail(l, "open", "too many domains");
}

static void command_run(struct shell *s, char *const w[WORDS])
{
    struct load *l = &s->load;
    begin(s, RUNNING, w[8]);
    l->plan.first = number(w[2]);
    l->plan.streams = number(w[3]);
    l->flow[INWARD].count = l->flow[OUTWARD].count = number(w[4]);
    l->plan.batch = number(w[5]);
    l->plan.window = number(w[6]);
    if (w[8] == NULL || l->plan.streams == 0 || l->plan.first + l->plan.streams > DOMAINS_MAX)
        load_fail(l, "run", "what?");
    else if (!flow_start(l, w[1], w[7]))
        load_fail(l, "run", "out of memory");
    else
        l->running = true;
}

static void close_kind(struct load *l, enum kind kind)
{
    LIST_FOREACH (&l->conns, node, next) {
        struct conn *c = CONTAINER_OF(node, struct conn, node);
        if (c->kind == kind || (kind == STREAM && c->kind == FEED))
            conn_close_gently(l, c);
    }
}

static void command_stat(struct shell *s)
{
    char text[120];
    (void)snprintf(text, sizeof text, "opened=%u served=%u conns=%zu resumed=%u", s->load.opened,
                   s->load.served, s->load.conns.count, s->load.resumed);
    answer(s, text);
}

static void command(struct shell *s, char *line)
{
    char *w[WORDS] = {NULL}, *rest = line;
    for (unsigned n = 0; n < WORDS && (w[n] = strsep(&rest, " ")) != NULL; n++)
        ;
    s->load.began_us = load_now_us();
    s->load.failure[0] = '\0'; /* what went wrong while nothing was asked for */
    if (strcmp(w[0], "inside") == 0) {
        begin(s, WAIT_INSIDE, w[1]);
    } else if (strcmp(w[0], "open") == 0) {
        command_open(s, w);
    } else if (strcmp(w[0], "run") == 0) {
        command_run(s, w);
    } else if (strcmp(w[0], "close") == 0) {
        begin(s, CLOSING_ALL, w[1]);
        close_kind(&s->load, STREAM);
    } else if (strcmp(w[0], "tickets") == 0) {
        if (s->load.server != NULL)
            wire_tickets(s->load.server, number(w[1]));
        answer(s, "tickets");
    } else if (strcmp(w[0], "drop") == 0) {
        close_kind(&s->load, SERVED);
        answer(s, "drop");
    } else if (strcmp(w[0], "stat") == 0) {
        command_stat(s);
    } else if (strcmp(w[0], "quit") == 0) {
        s->load.quit = true;
    } else {
        load_fail(&s->load, w[0], "no such command");
        answer(s, "");
    }
}

static void read_commands(struct shell *s)
{
    ssize_t r = read(STDIN_FILENO, s->line + s->line_n, sizeof s->line - s->line_n);
    if (r <= 0) {
        s->load.quit = true; /* who drives us is gone */
        return;
    }
    s->line_n += (size_t)r;
}

static void next_command(struct shell *s)
{
    char *end = memchr(s->line, '\n', s->line_n), line[LINE_MAX_BYTES];
    if (end == NULL) {
        s->load.quit = s->load.quit || s->line_n == sizeof s->line;
        return;
    }
    size_t n = (size_t)(end - s->line);
    memcpy(line, s->line, n);
    line[n] = '\0';
    s->line_n -= n + 1;
    memmove(s->line, end + 1, s->line_n);
    command(s, line);
}

/* ---- progress -------------------------------------------------------------------------------- */

static void open_more(struct load *l)
{
    while (l->open_next < l->open_end && l->opening < l->open_parallel) {
        unsigned domain = l->open_next++;
        bool both = l->opt.has_relay_out;
        l->opening += 1 + both;
        if (conn_add(l, STREAM, domain) == NULL || (both && conn_add(l, FEED, domain) == NULL))
            return;
    }
}

static bool closed_all(const struct load *l)
{
    LIST_FOREACH (&l->conns, node, next) {
        const struct conn *c = CONTAINER_OF(node, struct conn, node);
        if (c->kind == STREAM || c->kind == FEED)
            return false;
    }
    return true;
}

static void report_run(struct shell *s)
{
    char text[200];
    const struct flow *in = &s->load.flow[INWARD], *out = &s->load.flow[OUTWARD];
    uint64_t bad = in->disorder + in->foreign + out->disorder + out->foreign;
    (void)snprintf(text, sizeof text, "in=%llu out=%llu bad=%llu",
                   (unsigned long long)(in->on ? in->received : 0),
                   (unsigned long long)(out->on ? out->received : 0), (unsigned long long)bad);
    if (bad > 0)
        load_fail(&s->load, "stanzas out of order or bounced", text);
    answer(s, text);
}

static void late(struct shell *s)
{
    char text[120];
    const struct flow *in = &s->load.flow[INWARD], *out = &s->load.flow[OUTWARD];
    (void)snprintf(text, sizeof text, "opened %u, in %llu of %llu, out %llu of %llu",
                   s->load.opened, (unsigned long long)in->received, (unsigned long long)in->sent,
                   (unsigned long long)out->received, (unsigned long long)out->sent);
    load_fail(&s->load, "time is up", text);
    s->load.open_next = s->load.open_end;
    answer(s, "");
}

static void progress(struct shell *s)
{
    struct load *l = &s->load;
    if (s->job == OPENING && l->failure[0] == '\0')
        open_more(l);
    if (s->job == IDLE)
        next_command(s);
    else if (l->failure[0] != '\0')
        late(s); /* the first reason is the one that is told */
    else if (s->job == WAIT_INSIDE && (l->inside != NULL || l->opt.relay))
        answer(s, "inside");
    else if (s->job == OPENING && l->opening == 0 && l->open_next == l->open_end)
        answer(s, "open");
    else if (s->job == CLOSING_ALL && closed_all(l))
        answer(s, "close");
    else if (s->job == RUNNING && flow_done(l))
        report_run(s);
    else if (load_now_us() > l->until_us)
        late(s);
}

static void on_event(struct shell *s, struct conn *c)
{
    if (c->kind == COMMANDS)
        read_commands(s);
    else if (c->kind == LISTEN_S2S || c->kind == LISTEN_INSIDE)
        while (conn_accept(&s->load, c->kind == LISTEN_S2S ? SERVED : INSIDE, c->wire.fd) != NULL)
            ;
    else
        conn_step(&s->load, c);
}

static void loop(struct shell *s)
{
    struct epoll_event ev[EVENTS];
    while (!s->load.quit) {
        bool busy = s->load.running && flow_feed(&s->load);
        int n = epoll_wait(s->load.epoll, ev, EVENTS, busy ? 0 : s->job == OPENING ? 10 : 100);
        for (int i = 0; i < n; i++)
            on_event(s, ev[i].data.ptr);
        conn_reap(&s->load);
        progress(s);
    }
}

/* ---- starting -------------------------------------------------------------------------------- */

static const struct option long_options[] = {{"suffix", required_argument, NULL, 'n'},
                                             {"listen", required_argument, NULL, 'l'},
                                             {"server", required_argument, NULL, 's'},
                                             {"inside", required_argument, NULL, 'i'},
                                             {"inside-at", required_argument, NULL, 'a'},
                                             {"relay-out", required_argument, NULL, 'o'},
                                             {"tls", no_argument, NULL, 't'},
                                             {"cert", required_argument, NULL, 'c'},
                                             {"key", required_argument, NULL, 'k'},
                                             {"secret", required_argument, NULL, 'p'},
                                             {"limit", required_argument, NULL, 'm'},
                                             {NULL, 0, NULL, 0}};

static bool read_option(struct options *o, int c, const char *arg)
{
    switch (c) {
    case 'n':
        o->suffix = arg;
        return true;
    case 'l':
        return wire_address(arg, &o->listen);
    case 's':
        return wire_address(arg, &o->server);
    case 'i':
        o->inside = arg;
        o->relay = strcmp(arg, "relay") == 0;
        return o->relay || strcmp(arg, "accept") == 0 || strcmp(arg, "component") == 0;
    case 'a':
        return wire_address(arg, &o->inside_at);
    case 'o':
        o->has_relay_out = true;
        return wire_address(arg, &o->relay_out);
    case 't':
        o->tls = true;
        return true;
    case 'c':
        o->certificate = arg;
        return true;
    case 'k':
        o->key = arg;
        return true;
    case 'p':
        o->secret = arg;
        return true;
    case 'm':
        o->limit = number(arg);
        return o->limit > 0;
    default:
        return false;
    }
}

static bool watch_input(struct shell *s)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &s->commands};
    return epoll_ctl(s->load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev) == 0;
}

static bool start(struct shell *s)
{
    struct load *l = &s->load;
    const struct options *o = &l->opt;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->client = wire_tls_context(false, NULL, NULL);
    l->server = wire_tls_context(true, o->certificate, o->key);
    if (l->epoll < 0 || l->client == NULL || l->server == NULL || !watch_input(s))
        return false;
    s->listen_s2s.wire.fd = wire_listen(l->epoll, &o->listen, &s->listen_s2s);
    if (s->listen_s2s.wire.fd < 0)
        return false;
    if (strcmp(o->inside, "component") == 0)
        return conn_add(l, INSIDE, 0) != NULL;
    s->listen_inside.wire.fd = wire_listen(l->epoll, &o->inside_at, &s->listen_inside);
    return s->listen_inside.wire.fd >= 0;
}

static void many_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

int main(int argc, char **argv)
{
    struct shell *s = calloc(1, sizeof *s);
    int c;
    if (s == NULL)
        return 71;
    s->load.opt =
        (struct options){.suffix = "sp.lab", .inside = "accept", .secret = "secret", .limit = 600};
    s->listen_s2s.kind = LISTEN_S2S;
    s->listen_inside.kind = LISTEN_INSIDE;
    s->commands.kind = COMMANDS;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        if (!read_option(&s->load.opt, c, optarg)) {
            (void)fprintf(stderr, "bench-load: bad option; see the head of tests/bench/load.c\n");
            return 64;
        }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(s->load.opt.limit); /* bounded, whatever happens */
    many_descriptors();
    if (!start(s)) {
        (void)fprintf(stderr, "bench-load: cannot start: %s\n", strerror(errno));
        return 71;
    }
    printf("ready\n");
    (void)fflush(stdout);
    loop(s);
    return 0;
}
