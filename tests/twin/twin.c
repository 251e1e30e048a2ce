#define OPENSSL_SUPPRESS_DEPRECATED /* the random method is the way to a reproducible handshake */
#include "tests/twin/twin.h"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "gateway/policy/policy.h"

enum {
    CONFIG_MAX = 8192,
    JUMP_MS = 400,        /* while there is traffic the clock makes no larger jumps */
    LULL_MS = 400000,     /* longer than timeouts.idle */
    FLOOD_BYTES = 200000, /* a few of them fill a connection to its high mark */
    REST_ROUNDS = 30000,  /* until everything has ended in calm weather */
    DRAIN_ROUNDS = 100000,
    DRAIN_MS = 30000,
};

static char folder[64];

/* ---- once ------------------------------------------------------------------------------------ */

/* The time of day, also for OpenSSL: certificates and tickets must not differ between two runs. */
time_t time(time_t *out)
{
    const time_t then = 1785000000;
    if (out != NULL)
        *out = then;
    return then;
}

static struct net entropy;

static int random_bytes(unsigned char *out, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (unsigned char)net_random(&entropy);
    return 1;
}

static int random_status(void)
{
    return 1;
}

static const RAND_METHOD generator = {
    .bytes = random_bytes, .pseudorand = random_bytes, .status = random_status};

static bool write_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (f == NULL)
        return false;
    fputs(text, f);
    fclose(f);
    return chmod(path, 0600) == 0;
}

static bool write_certificate(void)
{
    char path[128];
    X509 *x = NULL;
    EVP_PKEY *key = NULL;
    snprintf(path, sizeof path, "%s/id.pem", folder);
    FILE *f = tls_selfsigned("alpha.lab", &x, &key) ? fopen(path, "w") : NULL;
    bool ok = f != NULL && PEM_write_X509(f, x) == 1 &&
              PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1;
    if (f != NULL)
        fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
    return ok && chmod(path, 0600) == 0;
}

bool twin_prepare(void)
{
    unsigned char seed[16] = {1, 2, 3};
    table_seed(seed);
    entropy.rng = 1;
    if (RAND_set_rand_method(&generator) != 1)
        return false;
    snprintf(folder, sizeof folder, "/tmp/sallyport-twin-XXXXXX");
    return mkdtemp(folder) != NULL && write_file("link.secret", "inside and outside\n") &&
           write_file("dialback.secret", "s3cr3tf0rd14lb4ck\n") && write_certificate();
}

void twin_clean_up(void)
{
    static const char *const names[] = {"link.secret", "dialback.secret", "id.pem"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
    RAND_set_rand_method(NULL);
}

/* ---- a site ---------------------------------------------------------------------------------- */

static const struct name name_table[] = {
    {"alpha.lab", "xmpp.alpha.lab", "dead.alpha.lab", "192.0.2.1"},
    {"gamma.lab", NULL, NULL, "192.0.2.1"},
    {"beta.lab", "xmpp.beta.lab", NULL, "192.0.2.2"},
    {"delta.lab", "xmpp.beta.lab", "dead.alpha.lab", "192.0.2.2"},
    {"dead.alpha.lab", NULL, NULL, "192.0.2.77"},
    {"mallory.lab", NULL, NULL, "192.0.2.66"},
};

static struct gateway_config *configure(const struct twin *t, int i)
{
    const struct site *s = &t->site[i];
    struct buf text = BUF_INIT(CONFIG_MAX), errors = BUF_INIT(CONFIG_MAX);
    const char *cert = "certificate = \"id.pem\"; key = \"id.pem\";";
    char file[128];
    buf_printf(&text, "security_mode = \"%s\"; privacy_mode = \"off\"; bidi = %s;\n",
               policy_security_name(s->mode), s->bidi ? "true" : "false");
    buf_printf(&text, "domains = ({ name = \"%s\"; %s }, { name = \"%s\"; %s });\n",
               ledger_domains[2 * i], cert, ledger_domains[2 * i + 1], cert);
    buf_puts(&text, "dialback = { secret_file = \"dialback.secret\"; };\n");
    buf_printf(&text, "listen = { s2s = [\"192.0.2.%d:5269\"]; };\n", i + 1);
    buf_printf(&text,
               "links = ({ name = \"core\"; address = \"127.0.0.1:740%d\"; component = "
               "\"edge.%s\"; secret_file = \"link.secret\"; });\n",
               i + 1, ledger_domains[2 * i]);
    buf_printf(&text, "dns = { servers = [\"10.0.0.%u:53\"]; };\n", 53 + s->dns);
    buf_puts(&text, "outbound = { deny_networks = []; };\ntls = { ca_file = \"id.pem\"; };\n");
    buf_puts(&text, "timeouts = { idle = \"3m\"; keepalive = \"40s\"; };\n");
    if (s->tight)
        buf_puts(&text,
                 "limits = { queue_bytes = \"64K\"; queue_stanzas = 12; hold_bytes = \"40K\";"
                 " hold_time = \"3s\"; pending_dialbacks = 1; };\n");
    snprintf(file, sizeof file, "%s/gateway.conf", folder);
    struct gateway_config *c = gateway_config_parse(file, buf_view(&text), &errors);
    if (c == NULL)
        fprintf(stderr, "%.*s", STR_ARG(buf_view(&errors)));
    buf_free(&text);
    buf_free(&errors);
    return c;
}

bool twin_start(struct twin *t, int i)
{
    struct site *s = &t->site[i];
    struct buf why = BUF_INIT(CONFIG_MAX);
    struct gateway_config *c = configure(t, i);
    int code;
    t->net.address = (struct ip){{192, 0, 2, (uint8_t)(i + 1)}, 4};
    watch_turn(i);
    bool ok = c != NULL && worker_start(&s->w, t->log, c, &why, &code);
    watch_turn(-1);
    if (!ok && !watch_failed_one())
        fprintf(stderr, "%.*s", STR_ARG(buf_view(&why)));
    s->running = ok;
    s->draining = s->drained = false;
    s->held = 0;
    if (!ok && c != NULL)
        worker_close(&s->w);
    gateway_config_unref(c);
    buf_free(&why);
    return ok;
}

bool twin_reload(struct twin *t, int i)
{
    struct site *s = &t->site[i];
    struct buf why = BUF_INIT(CONFIG_MAX);
    struct gateway_config *c = configure(t, i);
    s->held = s->w.hold.bytes;
    watch_turn(i);
    bool ok = c != NULL && worker_reload(&s->w, c, &why);
    watch_turn(-1);
    gateway_config_unref(c);
    buf_free(&why);
    return ok;
}

static void on_drained(void *arg)
{
    struct site *s = arg;
    s->drained = true;
    loop_stop(&s->w.loop);
}

void twin_drain(struct twin *t, int i)
{
    struct site *s = &t->site[i];
    if (s->draining || !s->running)
        return;
    s->draining = true;
    s->drain_began = t->net.now;
    worker_drain(&s->w, on_drained, s);
}

bool twin_finish_drain(struct twin *t, int i)
{
    struct site *s = &t->site[i];
    struct counters *n = &s->w.n;
    const char *name = ledger_domains[2 * i];
    if (!s->drained) {
        if (s->draining && t->net.now > s->drain_began + DRAIN_MS)
            ledger_fail(&t->ledger, "%s does not end", name);
        return false;
    }
    watch_site(t, s);
    if (s->w.world.outq.count > 0 || s->w.hold.items.count > 0)
        ledger_fail(&t->ledger,
                    "%s has ended with %zu stanzas outward and %zu inward in its queues", name,
                    s->w.world.outq.count, s->w.hold.items.count);
    if (n->outward.writing + n->inward.writing > 0)
        ledger_fail(&t->ledger, "%s has ended with %llu + %llu stanzas being written", name,
                    (unsigned long long)n->outward.writing, (unsigned long long)n->inward.writing);
    s->dropped += n->outward.dropped + n->inward.dropped;
    t->shared += n->streams_shared;
    s->running = s->draining = s->drained = false;
    worker_close(&s->w);
    return true;
}

/* ---- the world ------------------------------------------------------------------------------- */

/* Modes that do not go together bounce everything: that is the smaller half of the story. */
static enum security_mode some_mode(struct net *n)
{
    return net_chance(n, 600) ? SECURITY_TLS_OPTIONAL : (enum security_mode)net_below(n, 3);
}

static void draw_weather(struct twin *t)
{
    struct net *n = &t->net;
    struct weather *w = &t->weather;
    *w = (struct weather){.traffic = 100 + net_below(n, 400),
                          .burst = 1 + net_below(n, 8),
                          .large = net_below(n, 60),
                          .latency = net_below(n, 80)};
    if (net_chance(n, 150))
        return; /* fine weather */
    unsigned *const rough[] = {&w->cut,  &w->stall, &w->link,  &w->reload, &w->restart,
                               &w->evil, &w->dials, &w->names, &w->full,   &w->lull};
    static const unsigned most[] = {15, 6, 8, 10, 4, 40, 400, 300, 300, 8};
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++)
        *rough[i] = net_chance(n, 400) ? 1 + net_below(n, most[i]) : 0;
    w->hasty = net_chance(n, 150);
    w->flood = net_chance(n, 50) ? 100 : 0;
}

void twin_open(struct twin *t, uint64_t seed)
{
    static const char *const at[] = {"127.0.0.1:7401", "127.0.0.1:7402"};
    static const char *const component[] = {"edge.alpha.lab", "edge.beta.lab"};
    memset(t, 0, sizeof *t);
    t->seed = seed;
    entropy.rng = seed * 77 + 5;
    net_open(&t->net, seed);
    t->names = (struct names){.net = &t->net,
                              .v = name_table,
                              .n = sizeof name_table / sizeof name_table[0],
                              .latency = 60};
    names_use(&t->names);
    ledger_open(&t->ledger);
    buf_init(&t->lines, 16 << 20);
    bool shown = getenv("TWIN_TRACE") != NULL, written = seed % 8 == 0;
    t->log = log_new(STDERR_FILENO, shown || written ? LOG_TRACE : LOG_ERROR, LOG_LOGFMT, 0);
    if (!shown)
        log_capture(t->log, &t->lines);
    watch_use(t);
    draw_weather(t);
    t->net.latency = t->weather.latency;
    t->net.slow = t->weather.full;
    t->net.narrow = net_chance(&t->net, 400) ? 800 : 100;
    for (int i = 0; i < 2; i++) {
        t->site[i].mode = some_mode(&t->net);
        t->site[i].tight = net_chance(&t->net, 250);
        t->site[i].bidi = net_chance(&t->net, 600);
        t->net.address = (struct ip){{127, 0, 0, 1}, 4};
        if (!inside_open(&t->site[i].in, &t->ledger, i, at[i], component[i], "inside and outside",
                         t->log))
            ledger_fail(&t->ledger, "an inside does not start");
    }
}

void twin_close(struct twin *t)
{
    evil_leave(t);
    for (int i = 0; i < 2; i++) {
        if (t->site[i].running) {
            worker_drain(&t->site[i].w, on_drained, &t->site[i]);
            worker_drain_now(&t->site[i].w);
            for (int k = 0; k < 100; k++)
                loop_turn(&t->site[i].w.loop);
            worker_close(&t->site[i].w);
        }
        inside_close(&t->site[i].in);
    }
    if (t->names.open > 0)
        ledger_fail(&t->ledger, "%zu lookups are left", t->names.open);
    watch_use(NULL);
    ledger_close(&t->ledger);
    log_free(t->log);
    buf_free(&t->lines);
    net_close(&t->net);
}

void twin_put(struct twin *t, int from, int to, enum item_kind kind, size_t size, bool odd)
{
    inside_put(&t->site[from / 2].in, ledger_new(&t->ledger, kind, from, to, size, odd));
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static bool busy(const struct loop *l)
{
    return l->tasks.count + l->later.count + l->dirty.count + l->dying.count > 0;
}

static void turn(struct twin *t, unsigned which)
{
    struct site *s = &t->site[which % 2];
    if (which >= 2) {
        inside_send(&s->in);
        loop_turn(&s->in.loop);
    } else if (s->running) {
        watch_turn((int)which);
        loop_turn(&s->w.loop);
        watch_turn(-1);
        watch_site(t, s);
    }
}

static void due_of(const struct loop *l, uint64_t *due, bool *found)
{
    uint64_t at;
    if (!timers_next(&l->timers, &at) || (*found && at >= *due))
        return;
    *due = at;
    *found = true;
}

/* To whatever is due next; false: nothing is. */
static bool jump(struct twin *t, uint64_t most)
{
    uint64_t due = 0;
    bool found = net_next(&t->net, &due);
    for (int i = 0; i < 2; i++) {
        due_of(&t->site[i].in.loop, &due, &found);
        if (t->site[i].running)
            due_of(&t->site[i].w.loop, &due, &found);
    }
    if (!found)
        return false;
    if (due > t->net.now)
        t->net.now = due - t->net.now > most ? t->net.now + most : due;
    return true;
}

static bool something_moves(const struct twin *t, uint64_t activity)
{
    if (t->net.activity != activity || (!t->weather.hasty && net_ready(&t->net)))
        return true;
    for (int i = 0; i < 2; i++)
        if (busy(&t->site[i].in.loop) || (t->site[i].running && busy(&t->site[i].w.loop)))
            return true;
    return false;
}

bool twin_round(struct twin *t)
{
    uint64_t activity = t->net.activity;
    unsigned order[] = {0, 1, 2, 3};
    t->rounds++;
    for (unsigned i = 0; i < 4; i++) {
        unsigned j = i + net_below(&t->net, 4 - i), which = order[j];
        order[j] = order[i];
        turn(t, which);
    }
    if (getenv("TWIN_TRACE") == NULL)
        buf_clear(&t->lines);
    if (!something_moves(t, activity))
        return jump(t, t->weather.traffic == 0    ? UINT64_MAX
                       : t->lull_end > t->net.now ? t->lull_end - t->net.now
                                                  : JUMP_MS);
    if (net_chance(&t->net, 200))
        t->net.now += net_below(&t->net, 4);
    return true;
}

static bool books_empty(const struct worker *w)
{
    return w->world.outq.count == 0 && w->hold.items.count == 0 && w->n.outward.writing == 0 &&
           w->n.inward.writing == 0;
}

bool twin_at_rest(const struct twin *t)
{
    for (int i = 0; i < 2; i++) {
        const struct site *s = &t->site[i];
        if (!s->running || s->draining || s->in.n > 0 || s->in.now == NULL ||
            !s->w.links[0]->lines[0].up || conn_queued(s->in.now->s.conn) > 0 ||
            busy(&s->in.loop) || busy(&s->w.loop) || !books_empty(&s->w))
            return false;
    }
    return net_quiet(&t->net);
}

void twin_settle(struct twin *t)
{
    uint64_t dropped = 0;
    for (int i = 0; i < 2; i++) {
        const struct site *s = &t->site[i];
        dropped += s->dropped;
        if (s->running)
            dropped += s->w.n.outward.dropped + s->w.n.inward.dropped;
    }
    ledger_settle(&t->ledger, dropped);
}

/* ---- one whole run --------------------------------------------------------------------------- */

static void put_some(struct twin *t)
{
    struct net *n = &t->net;
    if (net_chance(n, t->weather.lull))
        t->lull_end = n->now + net_below(n, LULL_MS);
    if (n->now < t->lull_end || !net_chance(n, t->weather.traffic))
        return;
    int from = (int)net_below(n, DOMAINS);
    for (unsigned k = 1 + net_below(n, t->weather.burst); k > 0; k--) {
        int to = (from < 2 ? 2 : 0) + (int)net_below(n, 2);
        enum item_kind kind =
            net_chance(n, 700) ? ITEM_CHAT : (enum item_kind)net_below(n, ITEM_KIND_COUNT);
        size_t size = net_chance(n, t->weather.large) ? net_below(n, 40000) : net_below(n, 300);
        if (net_chance(n, t->weather.flood))
            size = FLOOD_BYTES;
        twin_put(t, from, to, kind, size, net_chance(n, 100));
    }
}

struct wire *twin_some_wire(struct twin *t)
{
    struct wire *found = NULL;
    unsigned n = 0;
    LIST_FOREACH (&t->net.wires, node, next) {
        struct wire *w = CONTAINER_OF(node, struct wire, node);
        if (net_wire_alive(w) && net_below(&t->net, ++n) == 0)
            found = w;
    }
    return found;
}

static void bad_connections(struct twin *t)
{
    struct net *n = &t->net;
    struct wire *w = NULL;
    if (net_chance(n, t->weather.cut) && (w = twin_some_wire(t)) != NULL)
        net_cut(n, w);
    if (net_chance(n, t->weather.stall) && (w = twin_some_wire(t)) != NULL)
        w->stalled = n->now + 100 + net_below(n, 40000);
    if (net_chance(n, 20)) {
        n->refuse = net_chance(n, 500) ? t->weather.dials : 0;
        n->drop = net_chance(n, 200) ? t->weather.dials / 2 : 0;
        t->names.fail = net_chance(n, 500) ? t->weather.names : 0;
        t->names.silent = net_chance(n, 300) ? t->weather.names / 2 : 0;
    }
}

static void bad_insides(struct twin *t)
{
    struct net *n = &t->net;
    struct inside *in = &t->site[net_below(n, 2)].in;
    if (!net_chance(n, t->weather.link))
        return;
    if (net_chance(n, 400))
        inside_listen(in, in->listener == NULL);
    inside_end(in, net_chance(n, 400));
}

static void busy_operators(struct twin *t)
{
    struct net *n = &t->net;
    int i = (int)net_below(n, 2);
    struct site *s = &t->site[i];
    if (net_chance(n, t->weather.reload) && s->running && !s->draining) {
        s->mode = some_mode(n);
        s->dns = net_chance(n, 200) ? net_below(n, 2) : s->dns;
        s->tight = net_chance(n, 250);
        s->bidi = net_chance(n, 200) ? !s->bidi : s->bidi;
        twin_reload(t, i);
    }
    if (net_chance(n, t->weather.restart))
        twin_drain(t, i);
    if (s->draining && net_chance(n, 5))
        worker_drain_now(&s->w);
    for (i = 0; i < 2; i++) {
        twin_finish_drain(t, i);
        if (!t->site[i].running && net_chance(n, 50))
            twin_start(t, i);
    }
}

static void unstall(struct twin *t)
{
    LIST_FOREACH (&t->net.wires, node, next) {
        struct wire *w = CONTAINER_OF(node, struct wire, node);
        w->stalled = 0;
        w->pipe[0].cap = w->pipe[1].cap = WIRE_CAP;
    }
}

static void calm(struct twin *t)
{
    t->weather = (struct weather){.latency = t->weather.latency};
    t->net.narrow = t->net.slow = t->net.refuse = t->net.drop = t->names.fail = t->names.silent = 0;
    evil_leave(t);
    unstall(t);
    for (int i = 0; i < 2; i++) {
        inside_listen(&t->site[i].in, true);
        t->site[i].mode = SECURITY_TLS_OPTIONAL;
        if (t->site[i].running && !t->site[i].draining)
            twin_reload(t, i);
    }
}

static void come_to_rest(struct twin *t)
{
    for (int k = 0; k < REST_ROUNDS && t->ledger.failure[0] == '\0'; k++) {
        for (int i = 0; i < 2; i++) {
            twin_finish_drain(t, i);
            if (!t->site[i].running)
                twin_start(t, i);
        }
        if (twin_at_rest(t))
            return;
        if (!twin_round(t))
            break;
    }
    if (t->ledger.failure[0] == '\0')
        ledger_fail(&t->ledger, "it does not come to rest: %zu + %zu in the outboxes",
                    t->site[0].in.n, t->site[1].in.n);
}

void twin_end(struct twin *t)
{
    bool ended[2] = {!t->site[0].running, !t->site[1].running};
    twin_drain(t, (int)net_below(&t->net, 2));
    for (int k = 0; k < DRAIN_ROUNDS && t->ledger.failure[0] == '\0'; k++) {
        for (int i = 0; i < 2; i++)
            ended[i] = ended[i] || twin_finish_drain(t, i);
        if (ended[0] && ended[1]) { /* what is still on its way to the insides arrives */
            unstall(t);
            if (net_quiet(&t->net) && !busy(&t->site[0].in.loop) && !busy(&t->site[1].in.loop))
                return;
        }
        if (net_chance(&t->net, 20)) {
            twin_drain(t, 0);
            twin_drain(t, 1);
        }
        if (!twin_round(t) && !(ended[0] && ended[1]))
            twin_drain(t, ended[0] ? 1 : 0);
    }
    if (t->ledger.failure[0] == '\0')
        ledger_fail(&t->ledger, "the gateways do not end");
}

void twin_run(struct twin *t, unsigned rounds)
{
    const struct weather *w = &t->weather;
    bool abrupt = net_chance(&t->net, 200); /* the end comes in the middle of the traffic */
    /* A reload may cut a stream in the middle of a stanza that must not go on in clear. */
    bool gentle = !abrupt && w->cut + w->stall + w->link + w->restart + w->reload == 0;
    for (int i = 0; i < 2; i++)
        if (!twin_start(t, i))
            ledger_fail(&t->ledger, "a gateway does not start");
    for (unsigned k = 0; k < rounds && t->ledger.failure[0] == '\0'; k++) {
        put_some(t);
        bad_connections(t);
        bad_insides(t);
        busy_operators(t);
        evil_round(t);
        twin_round(t);
    }
    if (!abrupt) {
        calm(t);
        come_to_rest(t);
        if (t->ledger.failure[0] == '\0')
            twin_settle(t);
        if (gentle && t->ledger.lost + t->ledger.late > 0)
            ledger_fail(&t->ledger,
                        "%zu stanzas were lost and %zu late on connections that were well",
                        t->ledger.lost, t->ledger.late);
    }
    if (t->ledger.failure[0] == '\0') {
        t->ledger.stopped = true;
        twin_end(t);
        if (abrupt && t->ledger.failure[0] == '\0')
            twin_settle(t);
    }
}
