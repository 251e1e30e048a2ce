/* The reading half of a conn, its life and its end.
 *
 * One function, pump, turns buffered bytes into events, one at a time, until nothing is left, the
 * turn's share is used up, the conn is paused, or it is closing. It runs from the read callback and
 * from a task, never from inside a call of the holder, so the holder may call anything from
 * ops->event; the pump looks at the conn's state again after each event.
 *
 *     socket --> [TLS engine] --> framer --> ops->event
 *
 * The end has one path: conn_close -> write out -> close-notify -> shutdown -> wait for the peer's
 * end of file (what it still sends is thrown away) -> uv_close -> release. An abort, a write error,
 * the linger timer and running out of memory go to uv_close directly. */
#include "core/net/conn.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/net/addr.h"
#include "core/net/conn_priv.h"

enum {
    TURN_BYTES = 64 * 1024,
    TURN_EVENTS = 64,
    RELAX_MS = 5000,
    KEEPALIVE_S = 60,
    TLS_HANDSHAKE_RECORD = 0x16, /* the first byte of TLS, and of no XML */
    HIGH_MARK = 1024 * 1024,
    LOW_MARK = 256 * 1024,
};

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out);
static void on_read(uv_stream_t *s, ssize_t nread, const uv_buf_t *b);

const char *conn_cause(int err)
{
    switch (err) {
    case UV_ECONNRESET:
    case UV_EPIPE:
        return "connection reset by peer";
    case UV_ETIMEDOUT:
        return "connection timed out";
    case UV_ENOMEM:
    case UV_ENOBUFS:
        return "out of memory";
    default:
        return uv_strerror(err);
    }
}

static const char *eof_text(const struct conn *c)
{
    if (c->tls != NULL && !c->tls_up)
        return "peer closed during the handshake";
    return c->stream_closed ? "peer closed the connection"
                            : "peer closed the connection without closing the stream";
}

/* ---- reading on and off ---------------------------------------------------------------------- */

static bool pump_posted(const struct conn *c)
{
    return c->pump.node.in != NULL;
}

static void update_reading(struct conn *c)
{
    if (c->gone)
        return;
    bool want = c->started && !c->deaf && !c->ended && c->pauses == 0 && !pump_posted(c);
    if (c->closing)
        want = !c->eof;
    if (want == c->reading)
        return;
    c->reading = want;
    if (!want)
        uv_read_stop((uv_stream_t *)c->tcp);
    else if (uv_read_start((uv_stream_t *)c->tcp, on_alloc, on_read) != 0)
        c->reading = false; /* only for a handle that is closing */
}

void conn_fail(struct conn *c, const char *why, bool at_once)
{
    if (c->closing || c->deaf || c->fault)
        return;
    if (!c->ended)
        str_copy(c->why, sizeof c->why, str_c(why));
    c->ended = true;
    c->fault = at_once;
    loop_post(c->loop, &c->pump);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void deliver(struct conn *c, struct gw_event *ev)
{
    ev->now_ms = c->now;
    c->turn_events++;
    c->ops->event(c, c->arg, ev);
}

/* The last event of this conn. */
static void deliver_end(struct conn *c, enum gw_ev kind, const char *why)
{
    c->deaf = true;
    struct gw_event ev = {.kind = kind, .u.text = str_c(why)};
    deliver(c, &ev);
}

static void deliver_refusal(struct conn *c, struct framer_error error)
{
    c->deaf = true;
    struct gw_event ev = {.kind = EV_XML_ERROR, .u.error = error};
    deliver(c, &ev);
}

static void deliver_element(struct conn *c, const struct framer_event *fe)
{
    struct gw_event ev = {0};
    switch (fe->kind) {
    case FRAMER_STREAM_OPEN:
        ev.kind = EV_STREAM_OPEN;
        ev.u.header = fe->header;
        break;
    case FRAMER_NONZA:
        ev.kind = EV_NONZA;
        ev.u.nonza = fe->nonza;
        break;
    case FRAMER_STANZA:
        ev.kind = EV_STANZA;
        ev.u.stanza = &fe->stanza;
        break;
    case FRAMER_STREAM_CLOSE:
        ev.kind = EV_STREAM_CLOSE;
        c->stream_closed = true;
        break;
    }
    deliver(c, &ev);
}

/* ---- the pump -------------------------------------------------------------------------------- */

static void mark_wire(struct conn *c)
{
    if (tls_engine_wire(c->tls).n > 0)
        loop_mark_dirty(c->loop, &c->flush);
}

/* Each advance_* is true when there may be more to do at once. */
static bool advance_handshake(struct conn *c)
{
    enum tls_result r = tls_engine_handshake(c->tls);
    mark_wire(c);
    if (r == TLS_OK) {
        c->tls_up = true;
        if (c->queue.count > 0)
            loop_mark_dirty(c->loop, &c->flush);
        struct gw_event ev = {.kind = EV_TLS_UP, .u.tls = tls_engine_peer(c->tls)};
        deliver(c, &ev);
        return true;
    }
    if (r != TLS_WANT_WIRE)
        deliver_end(c, EV_TLS_FAILED, tls_engine_why(c->tls));
    else if (c->ended)
        deliver_end(c, EV_TLS_FAILED, c->why);
    return false;
}

static bool advance_end(struct conn *c)
{
    if (c->ended)
        deliver_end(c, EV_LOST, c->why);
    return false;
}

static bool advance_decrypt(struct conn *c)
{
    if (!tls_engine_readable(c->tls))
        return advance_end(c);
    size_t cap, n;
    char *room = framer_room(c->framer, &cap);
    if (room == NULL) {
        deliver_end(c, EV_LOST, "out of memory");
        return false;
    }
    enum tls_result r = tls_engine_read(c->tls, room, cap, &n);
    mark_wire(c);
    framer_filled(c->framer, n);
    switch (r) {
    case TLS_OK:
        return true;
    case TLS_WANT_WIRE:
        return advance_end(c);
    case TLS_CLOSED:
        conn_fail(c, eof_text(c), false);
        c->eof = true;
        break;
    case TLS_ERROR:
        conn_fail(c, tls_engine_why(c->tls), false);
        break;
    }
    return advance_end(c);
}

static bool advance(struct conn *c)
{
    if (c->stale) {
        deliver_refusal(c,
                        (struct framer_error){"policy-violation", "bytes in clear after STARTTLS"});
        return false;
    }
    if (c->fault)
        return advance_end(c);
    if (c->tls != NULL && !c->tls_up)
        return advance_handshake(c);
    struct framer_event ev;
    switch (framer_next(c->framer, &ev)) {
    case FRAMER_EVENT:
        deliver_element(c, &ev);
        return true;
    case FRAMER_ERROR:
        deliver_refusal(c, framer_error(c->framer));
        return false;
    case FRAMER_NEED_MORE:
        break;
    }
    return c->tls != NULL ? advance_decrypt(c) : advance_end(c);
}

/* The shares are per turn of the loop. */
static void begin_turn(struct conn *c)
{
    if (c->turn == c->loop->turn)
        return;
    c->turn = c->loop->turn;
    c->turn_bytes = c->turn_events = 0;
}

static bool share_used_up(const struct conn *c)
{
    return c->turn_bytes >= TURN_BYTES || c->turn_events >= c->max_turn_events;
}

static bool may_pump(const struct conn *c)
{
    return c->started && !c->closing && !c->deaf && (c->pauses == 0 || c->fault);
}

static void pump(struct conn *c)
{
    c->now = loop_now(c->loop);
    begin_turn(c);
    while (may_pump(c) && advance(c) && !share_used_up(c))
        ;
    if (may_pump(c) && share_used_up(c))
        loop_post_later(c->loop, &c->pump);
    update_reading(c);
}

static void pump_task(struct loop_task *t)
{
    pump(CONTAINER_OF(t, struct conn, pump));
}

/* ---- socket to pump -------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct conn *c = h->data;
    size_t n = LOOP_SCRATCH;
    char *p = c->loop->scratch;
    if (c->detect_ctx != NULL && !c->closing)
        n = 1;
    else if (!c->closing && c->tls == NULL)
        p = framer_room(c->framer, &n);
    *out = p != NULL ? uv_buf_init(p, (unsigned)n) : uv_buf_init(NULL, 0);
}

static void on_end(struct conn *c, int err)
{
    c->eof = true;
    if (c->closing) {
        update_reading(c);
        if (err != UV_EOF)
            conn_close_now(c);
        else
            conn_close_step(c);
        return;
    }
    const char *why = conn_cause(err);
    if (c->why[0] != '\0' && !c->ended)
        why = NULL; /* a write failed before: that is the cause */
    else if (err == UV_EOF)
        why = eof_text(c);
    if (err != UV_EOF)
        c->write_dead = true;
    if (why != NULL && !c->ended)
        str_copy(c->why, sizeof c->why, str_c(why));
    c->ended = true;
    pump(c);
}

static void on_relax(struct timer *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, relax);
    uint64_t idle = loop_now(c->loop) - c->last_in;
    if (idle >= RELAX_MS)
        framer_relax(c->framer);
    else
        loop_timer_set(c->loop, &c->relax, RELAX_MS - idle);
}

static bool take_first_byte(struct conn *c, struct str byte)
{
    struct tls_ctx *ctx = c->detect_ctx;
    c->detect_ctx = NULL;
    if (byte.p[0] != TLS_HANDSHAKE_RECORD && !c->tls_only)
        return framer_feed(c->framer, byte);
    c->tls = tls_engine_new(ctx, true, c->detect_domain, NULL);
    return c->tls != NULL && tls_engine_put_wire(c->tls, byte);
}

static bool take(struct conn *c, struct str bytes)
{
    if (c->detect_ctx != NULL)
        return take_first_byte(c, bytes);
    if (c->tls != NULL)
        return tls_engine_put_wire(c->tls, bytes);
    framer_filled(c->framer, bytes.n); /* they are there already */
    return true;
}

static void on_read(uv_stream_t *s, ssize_t nread, const uv_buf_t *b)
{
    struct conn *c = s->data;
    if (nread == 0 || c->gone)
        return;
    if (nread < 0) {
        on_end(c, (int)nread);
        return;
    }
    c->bytes_in += (uint64_t)nread;
    c->last_in = loop_now(c->loop);
    if (c->closing)
        return;
    begin_turn(c);
    c->turn_bytes += (size_t)nread;
    if (!take(c, (struct str){b->base, (size_t)nread}))
        conn_fail(c, "out of memory", true);
    if (!timer_armed(&c->relax))
        loop_timer_set(c->loop, &c->relax, RELAX_MS);
    pump(c);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_up_socket(struct conn *c)
{
    struct sockaddr_storage sa;
    int n = sizeof sa;
    uv_tcp_nodelay(c->tcp, 1);
    uv_tcp_keepalive(c->tcp, 1, KEEPALIVE_S);
    if (uv_tcp_getpeername(c->tcp, (struct sockaddr *)&sa, &n) == 0)
        addr_to_endpoint((struct sockaddr *)&sa, &c->peer);
    n = sizeof sa;
    if (uv_tcp_getsockname(c->tcp, (struct sockaddr *)&sa, &n) == 0)
        addr_to_endpoint((struct sockaddr *)&sa, &c->local);
}

static void on_stall(struct timer *t)
{
    conn_fail(CONTAINER_OF(t, struct conn, stall), "peer has stopped reading", true);
}

static void on_dead(struct dead_watch *d)
{
    conn_fail(CONTAINER_OF(d, struct conn, dead), conn_cause(UV_ETIMEDOUT), false);
}

static void on_linger(struct timer *t)
{
    conn_close_now(CONTAINER_OF(t, struct conn, linger));
}

static void on_release(struct loop_task *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, release);
    c->ops->closed(c, c->arg);
    conn_write_free(c);
    framer_free(c->framer);
    tls_engine_free(c->tls);
    mem_free(c);
}

struct conn *conn_new(struct loop *l, uv_tcp_t *tcp, const struct conn_options *opt,
                      const struct conn_ops *ops, void *arg)
{
    struct conn *c = mem_zalloc(sizeof *c);
    if (c == NULL)
        return NULL;
    c->framer = framer_new(opt->content,
                           opt->limits != NULL ? opt->limits : &framer_limits_unauthenticated);
    if (c->framer == NULL) {
        mem_free(c);
        return NULL;
    }
    c->loop = l;
    c->tcp = tcp;
    c->ops = ops;
    c->arg = arg;
    c->high_mark = opt->high_mark != 0 ? opt->high_mark : HIGH_MARK;
    c->max_turn_events = opt->turn_events != 0 ? opt->turn_events : TURN_EVENTS;
    c->low_mark = opt->low_mark != 0 ? opt->low_mark : LOW_MARK;
    c->pump.run = pump_task;
    c->flush.run = conn_flush_task;
    c->release.run = on_release;
    c->stall_ms = opt->stall_ms;
    c->dead_ms = opt->dead_ms;
    c->detect_ctx = opt->detect_tls ? opt->tls_ctx : NULL;
    c->detect_domain = opt->tls_domain;
    c->tls_only = opt->tls_only;
    c->tlsa = opt->tlsa;
    c->stall.fire = on_stall;
    c->relax.fire = on_relax;
    c->linger.fire = on_linger;
    c->now = c->last_in = c->last_out = loop_now(l);
    tcp->data = c;
    l->handles++;
    set_up_socket(c);
    return c;
}

void conn_start(struct conn *c)
{
    if (c->closing)
        return;
    c->started = true;
    loop_post(c->loop, &c->pump);
    if (!dead_watch_start(&c->dead, c->loop, c->tcp, c->dead_ms, on_dead))
        conn_fail(c, "out of memory", true);
}

void conn_start_tls(struct conn *c, struct tls_ctx *ctx, bool server, const char *domain,
                    const char *peer_name)
{
    if (c->closing || c->tls != NULL)
        return;
    c->detect_ctx = NULL;
    loop_post(c->loop, &c->pump);
    if (!framer_restart(c->framer)) {
        c->stale = true;
        return;
    }
    c->tls = tls_engine_new(ctx, server, domain, peer_name);
    if (c->tls == NULL)
        conn_fail(c, "out of memory", true);
    else if (c->tlsa != NULL)
        tls_engine_dane(c->tls, c->tlsa);
}

void conn_reset_stream(struct conn *c)
{
    if (!c->closing)
        framer_restart(c->framer);
}

void conn_set_limits(struct conn *c, const struct framer_limits *limits)
{
    if (!c->closing)
        framer_set_limits(c->framer, limits);
}

void conn_pause(struct conn *c)
{
    if (c->closing)
        return;
    c->pauses++;
    update_reading(c);
}

void conn_resume(struct conn *c)
{
    if (!c->closing && c->pauses > 0 && --c->pauses == 0)
        loop_post(c->loop, &c->pump);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    mem_free(h);
    c->loop->handles--;
    loop_mark_dying(c->loop, &c->release);
}

void conn_close_now(struct conn *c)
{
    if (c->gone)
        return;
    c->gone = true;
    c->reading = false;
    loop_unpost(c->loop, &c->pump);
    loop_unpost(c->loop, &c->flush);
    loop_timer_clear(c->loop, &c->relax);
    loop_timer_clear(c->loop, &c->stall);
    loop_timer_clear(c->loop, &c->linger);
    dead_watch_stop(&c->dead);
    uv_close((uv_handle_t *)c->tcp, on_closed);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct conn *c = req->data;
    c->shut = true;
    if (status < 0)
        conn_close_now(c);
    else
        conn_close_step(c);
}

void conn_close_step(struct conn *c)
{
    if (c->gone || c->waiting || c->shutting) {
        if (c->shut && c->eof)
            conn_close_now(c);
        return;
    }
    if (!conn_write_idle(c))
        return;
    if (c->tls_up && !c->notified) {
        c->notified = true;
        tls_engine_close_notify(c->tls);
        loop_mark_dirty(c->loop, &c->flush);
        return;
    }
    c->shutting = true;
    c->shutdown.data = c;
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)c->tcp, on_shutdown) != 0)
        conn_close_now(c);
}

void conn_close(struct conn *c, bool abort, uint64_t linger_ms)
{
    if (c->closing) {
        if (abort)
            conn_close_now(c);
        return;
    }
    c->closing = true;
    loop_unpost(c->loop, &c->pump);
    loop_timer_clear(c->loop, &c->relax);
    loop_timer_clear(c->loop, &c->stall);
    dead_watch_stop(&c->dead);
    /* At least one flush comes before the linger timer. */
    if (abort || c->cut || c->write_dead ||
        !loop_timer_set(c->loop, &c->linger, linger_ms > 0 ? linger_ms : 1)) {
        conn_close_now(c);
        return;
    }
    if (!c->tls_up || c->tls_dead)
        conn_drop_unsendable(c);
    update_reading(c); /* what still comes is thrown away: unread bytes would cause a reset */
    loop_mark_dirty(c->loop, &c->flush);
}

/* ---- facts ----------------------------------------------------------------------------------- */

size_t conn_queued(const struct conn *c)
{
    return c->queued;
}

bool conn_above_high(const struct conn *c)
{
    return c->queued > c->high_mark;
}

bool conn_encrypted(const struct conn *c)
{
    return c->tls_up;
}

void conn_judge(struct conn *c, const char *ca_file)
{
    if (c->tls != NULL)
        tls_engine_judge(c->tls, ca_file);
}

void conn_trust(struct conn *c, struct tls_ctx *ctx)
{
    if (c->detect_ctx != NULL)
        c->detect_ctx = ctx;
    if (c->tls != NULL)
        tls_engine_trust(c->tls, ctx);
}

void conn_direct_tls(struct conn *c)
{
    if (c->tls != NULL && !tls_engine_direct(c->tls))
        conn_fail(c, "out of memory", true);
}

void conn_forget_session(struct conn *c)
{
    if (c->tls != NULL)
        tls_engine_forget(c->tls);
}

const struct tls_peer *conn_tls_peer(const struct conn *c)
{
    return c->tls_up ? tls_engine_peer(c->tls) : NULL;
}

const struct endpoint *conn_peer(const struct conn *c)
{
    return &c->peer;
}

const struct endpoint *conn_local(const struct conn *c)
{
    return &c->local;
}

size_t conn_memory(const struct conn *c)
{
    return sizeof *c + sizeof *c->tcp + framer_memory(c->framer) + c->queued +
           (c->queue.count + c->flight.count) * sizeof(struct conn_item) +
           (c->tls != NULL ? tls_engine_memory(c->tls) : 0);
}

uint64_t conn_bytes_in(const struct conn *c)
{
    return c->bytes_in;
}

uint64_t conn_bytes_out(const struct conn *c)
{
    return c->bytes_out;
}
