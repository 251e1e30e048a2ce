#include "tests/twin/inside.h"

#include <stdlib.h>

#include "core/base/mem.h"
#include "xcp/link.h"

enum { AUTH_MS = 10000, CLOSE_MS = 3000, KEEPALIVE_MS = 30000, LINGER_MS = 3000 };

void inside_put(struct inside *in, size_t number)
{
    if (in->n == in->cap) {
        in->cap = in->cap ? in->cap * 2 : 64;
        in->outbox = realloc(in->outbox, in->cap * sizeof *in->outbox);
    }
    in->outbox[in->n++] = number;
    ledger_in_outbox(in->ledger, number);
}

static void put_back(struct inside *in, const size_t *numbers, size_t n)
{
    size_t had = in->n;
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        inside_put(in, numbers[i]);
    memmove(in->outbox + n, in->outbox, had * sizeof *in->outbox);
    memcpy(in->outbox, numbers, n * sizeof *numbers);
}

/* What an older link has not sent comes back to the outbox: before that, nothing newer goes out. */
static bool only_one(const struct inside *in)
{
    LIST_FOREACH (&in->sessions, n, next) {
        const struct inside_session *is = CONTAINER_OF(n, struct inside_session, node);
        if (is != in->now && !is->s.over)
            return false;
    }
    return true;
}

void inside_send(struct inside *in)
{
    struct inside_session *s = in->now;
    size_t done = 0;
    if (!only_one(in))
        return;
    while (s != NULL && !s->s.over && s->m.end.state == LINK_UP && done < in->n &&
           !conn_above_high(s->s.conn)) {
        struct span text = ledger_text(in->ledger, in->outbox[done]);
        if (text.chunk == NULL || !conn_send_stanza(s->s.conn, text))
            break;
        link_server_sent(&s->m, loop_now(&in->loop));
        done++;
    }
    if (done > 0)
        memmove(in->outbox, in->outbox + done, (in->n - done) * sizeof *in->outbox);
    in->n -= done;
}

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    link_server_step(machine, ev, out);
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct inside_session *is = (struct inside_session *)s;
    struct inside *in = is->in;
    const struct stanza *st = ev->u.stanza;
    if (a->kind == ACT_READY) {
        struct inside_session *old = in->now;
        in->now = is;
        if (old != NULL)
            session_drain(&old->s, LINK_CONFLICT);
    } else if (a->kind == ACT_DELIVER && !str_starts(st->id, "ping-")) {
        ledger_arrived(in->ledger, in->site, st);
    } else if (a->kind == ACT_BOUNCE || a->kind == ACT_DROP) {
        ledger_fail(in->ledger, "the inside got a stanza with bad addresses: %.100s", st->span.s.p);
    }
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct inside_session *is = (struct inside_session *)s;
    enum { MOST = 4096 };
    static size_t back[MOST];
    size_t n = 0;
    struct span span;
    bool partial, error;
    (void)reason, (void)text;
    while (conn_unsent(s->conn, &span, &partial)) {
        if (n < MOST)
            back[n++] = ledger_number(is->in->ledger, span.s, &error);
        span_release(&span);
    }
    put_back(is->in, back, n);
    if (is->in->now == is)
        is->in->now = NULL;
}

static void closed(struct session *s)
{
    struct inside_session *is = (struct inside_session *)s;
    list_remove(&is->node);
    mem_free(is);
}

static const struct session_ops ops = {.step = step, .act = act, .ended = ended, .closed = closed};

static void on_accept(void *arg, uv_tcp_t *tcp)
{
    struct inside *in = arg;
    struct inside_session *is = mem_zalloc(sizeof *is);
    struct link_server_config cfg = {.accounts = &in->account,
                                     .naccounts = 1,
                                     .auth_ms = AUTH_MS,
                                     .close_ms = CLOSE_MS,
                                     .keepalive_ms = KEEPALIVE_MS};
    struct conn_options opt = {.content = CONTENT_COMPONENT};
    is->in = in;
    is->s.ops = &ops;
    is->s.machine = &is->m;
    is->s.limits = &framer_limits_default;
    is->s.linger_ms = LINGER_MS;
    is->s.log.sink = in->loop.log;
    link_server_init(&is->m, &cfg, in->loop.env);
    list_append(&in->sessions, &is->node);
    session_start(&is->s, &in->loop, tcp, &opt);
}

bool inside_open(struct inside *in, struct ledger *l, int site, const char *at,
                 const char *component, const char *secret, struct log *log)
{
    *in = (struct inside){.ledger = l,
                          .site = site,
                          .account = {.component = str_c(component), .secret = str_c(secret)}};
    return endpoint_parse(str_c(at), &in->at) && loop_init(&in->loop, &env_system, log) &&
           inside_listen(in, true);
}

bool inside_listen(struct inside *in, bool on)
{
    char why[LISTEN_WHY_MAX];
    if (on && in->listener == NULL) {
        in->listener = listen_new(&in->loop, &in->at, on_accept, in, why);
        return in->listener != NULL;
    }
    if (!on && in->listener != NULL) {
        listen_close(in->listener);
        in->listener = NULL;
    }
    return true;
}

void inside_end(struct inside *in, bool abort)
{
    if (in->now == NULL)
        return;
    if (abort)
        session_abort(&in->now->s, "the inside is gone");
    else
        session_drain(&in->now->s, "the inside restarts");
}

void inside_close(struct inside *in)
{
    inside_listen(in, false);
    LIST_FOREACH (&in->sessions, n, next)
        session_abort(&CONTAINER_OF(n, struct inside_session, node)->s, "the test is over");
    loop_close(&in->loop);
    free(in->outbox);
    in->outbox = NULL;
}
