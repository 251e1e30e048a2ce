/* After whatever happens, `settle` brings both sides as far as they can go: handshake, decrypting,
 * reading on or off, writing, half-closing. So each event only notes what came.
 *
 *     socket --> [TLS engine] --> other.out --> [other's TLS engine] --> other.flight --> socket
 *
 * `flight` is what libuv writes at present; there is one write at a time and side. */
#include "core/net/relay.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/net/dead.h"
#include "core/tls/tls_engine.h"

enum {
    WIRE_MAX = 64 * 1024, /* encrypted bytes that may wait for the socket */
    SLACK = 256 * 1024,   /* what one read or one record more may add to what waits */
};

struct side {
    struct relay *relay;
    struct side *other;
    uv_tcp_t *tcp; /* NULL: not there yet */
    struct tls_engine *tls;
    bool tls_up, notified;
    struct buf out, flight;
    uv_write_t write;
    uv_shutdown_t shutdown;
    bool reading, writing, shutting, shut;
    bool wire_ended; /* end of file of the socket */
    bool ended;      /* and all of it has been taken */
    bool held;       /* decrypting stopped for want of room at the other side */
    struct timer stall;
    size_t left; /* of the flight, when `stall` was set */
    struct dead_watch dead;
    uint64_t received;
};

struct relay {
    struct loop *loop;
    const struct relay_ops *ops;
    void *arg;
    struct relay_options opt;
    struct side side[2];
    struct timer first_word; /* of the first side */
    struct timer half;
    size_t half_left; /* of both flights, when it was set */
    struct loop_task settle, release;
    size_t open;          /* handles not closed yet */
    const char *draining; /* why; NULL: it is not */
    bool over;
};

/* ---- the end --------------------------------------------------------------------------------- */

static void on_release(struct loop_task *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, release);
    r->ops->closed(r->arg);
    for (int i = 0; i < 2; i++) {
        tls_engine_free(r->side[i].tls);
        buf_free(&r->side[i].out);
        buf_free(&r->side[i].flight);
    }
    mem_free(r);
}

static void on_closed(uv_handle_t *h)
{
    struct side *s = h->data;
    struct relay *r = s->relay;
    mem_free(h);
    r->loop->handles--;
    if (--r->open == 0)
        loop_mark_dying(r->loop, &r->release);
}

static void close_side(struct side *s)
{
    struct loop *l = s->relay->loop;
    loop_timer_clear(l, &s->stall);
    dead_watch_stop(&s->dead);
    if (s->tcp != NULL)
        uv_close((uv_handle_t *)s->tcp, on_closed);
}

static void finish(struct relay *r, enum relay_end how, const char *why)
{
    if (r->over)
        return;
    r->over = true;
    loop_timer_clear(r->loop, &r->first_word);
    loop_timer_clear(r->loop, &r->half);
    loop_unpost(r->loop, &r->settle);
    r->ops->ended(r->arg, how, why);
    close_side(&r->side[RELAY_FIRST]);
    close_side(&r->side[RELAY_SECOND]);
}

void relay_stop(struct relay *r, const char *why)
{
    finish(r, RELAY_STOPPED, why);
}

static void no_memory(struct relay *r)
{
    finish(r, RELAY_LOST, "out of memory");
}

static const char *name_of(const struct side *s)
{
    return s == &s->relay->side[RELAY_FIRST] ? "the first side" : "the second side";
}

static void side_failed(struct side *s, const char *what)
{
    char why[TLS_WHY_MAX];
    snprintf(why, sizeof why, "%s: %s", name_of(s), what);
    finish(s->relay, RELAY_LOST, why);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool room(const struct side *to)
{
    return to->out.len < to->relay->opt.buffer;
}

static void take_plain(struct side *s, struct str plain)
{
    struct relay *r = s->relay;
    if (s->received == 0 && s == &r->side[RELAY_FIRST]) {
        loop_timer_clear(r->loop, &r->first_word);
        r->ops->spoke(r->arg);
    }
    s->received += plain.n;
    if (s->other->shut)
        return; /* broken, while we drain */
    buf_put(&s->other->out, plain.p, plain.n);
    if (s->other->out.failed)
        no_memory(r);
}

static void decrypt(struct side *s)
{
    struct relay *r = s->relay;
    while (!r->over && !s->ended && room(s->other)) {
        size_t n = 0;
        switch (tls_engine_read(s->tls, r->loop->scratch, LOOP_SCRATCH, &n)) {
        case TLS_OK:
            take_plain(s, (struct str){r->loop->scratch, n});
            break;
        case TLS_WANT_WIRE:
            s->held = false;
            s->ended = s->wire_ended;
            return;
        case TLS_CLOSED:
            s->ended = true;
            break;
        case TLS_ERROR:
            finish(r, RELAY_TLS, tls_engine_why(s->tls));
            break;
        }
    }
    s->held = true;
}

/* An alert, so that the peer's log tells what was wrong. */
static void last_words(struct side *s)
{
    struct str wire = tls_engine_wire(s->tls);
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)wire.p, (unsigned)wire.n);
    if (wire.n > 0 && !s->writing)
        uv_try_write((uv_stream_t *)s->tcp, &b, 1);
}

static void shake(struct side *s)
{
    struct relay *r = s->relay;
    enum tls_result res = tls_engine_handshake(s->tls);
    if (res == TLS_OK) {
        s->tls_up = true;
        r->ops->secured(r->arg, tls_engine_peer(s->tls));
    } else if (res != TLS_WANT_WIRE) {
        last_words(s);
        finish(r, RELAY_TLS, tls_engine_why(s->tls));
    } else if (s->wire_ended) {
        finish(r, RELAY_TLS, "peer closed during the handshake");
    }
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    struct side *s = h->data;
    (void)suggested;
    *out = uv_buf_init(s->relay->loop->scratch, LOOP_SCRATCH);
}

static size_t flight_left(const struct side *s)
{
    return s->writing ? uv_stream_get_write_queue_size((uv_stream_t *)s->tcp) : 0;
}

static size_t flights_left(const struct relay *r)
{
    return flight_left(&r->side[RELAY_FIRST]) + flight_left(&r->side[RELAY_SECOND]);
}

static bool half_begin(struct relay *r)
{
    r->half_left = flights_left(r);
    return loop_timer_set(r->loop, &r->half, r->opt.half_ms);
}

static void moved(struct relay *r)
{
    if (timer_armed(&r->half) && r->draining == NULL)
        half_begin(r);
    loop_post(r->loop, &r->settle);
}

/* Bytes that come while we drain are thrown away; read they are, or the kernel would reset the
 * connection, and what we have written might be lost. */
static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct side *s = h->data;
    bool draining = s->relay->draining != NULL;
    if (n == 0 || s->relay->over)
        return;
    if (n == UV_EOF || (n < 0 && draining)) {
        s->wire_ended = true;
        s->ended = s->ended || s->tls == NULL;
    } else if (n < 0) {
        side_failed(s, uv_strerror((int)n));
        return;
    } else if (draining) {
        /* nobody takes them any more */
    } else if (s->tls == NULL) {
        take_plain(s, (struct str){b->base, (size_t)n});
    } else if (!tls_engine_put_wire(s->tls, (struct str){b->base, (size_t)n})) {
        no_memory(s->relay);
        return;
    }
    /* Nothing more in this turn: what came is settled first, and others have their turn. */
    uv_read_stop(h);
    s->reading = false;
    moved(s->relay);
}

static void settle_reading(struct side *s)
{
    bool wanted = s->relay->draining != NULL || (!s->ended && !s->held && room(s->other));
    bool want = s->tcp != NULL && !s->wire_ended && wanted;
    if (want == s->reading)
        return;
    s->reading = want;
    if (!want)
        uv_read_stop((uv_stream_t *)s->tcp);
    else if (uv_read_start((uv_stream_t *)s->tcp, on_alloc, on_read) != 0)
        s->reading = false; /* only for a handle that is closing */
}

/* ---- writing --------------------------------------------------------------------------------- */

/* While we drain, the other side has its last bytes coming all the same. */
static void writing_failed(struct side *s, int status)
{
    if (s->relay->draining == NULL) {
        side_failed(s, uv_strerror(status));
        return;
    }
    buf_free(&s->out);
    s->shutting = s->shut = true;
    loop_post(s->relay->loop, &s->relay->settle);
}

static void on_written(uv_write_t *req, int status)
{
    struct side *s = req->data;
    s->writing = false;
    if (s->relay->over)
        return;
    buf_free(&s->flight);
    loop_timer_clear(s->relay->loop, &s->stall);
    if (status < 0)
        writing_failed(s, status);
    else
        moved(s->relay);
}

static bool encrypt(struct side *s)
{
    size_t at = 0, record = tls_engine_record(s->tls);
    while (at < s->out.len && tls_engine_wire(s->tls).n < WIRE_MAX) {
        size_t part = s->out.len - at < record ? s->out.len - at : record;
        if (tls_engine_write(s->tls, (struct str){s->out.p + at, part}) != TLS_OK) {
            finish(s->relay, RELAY_TLS, tls_engine_why(s->tls));
            return false;
        }
        at += part;
    }
    buf_drop(&s->out, at);
    return true;
}

static bool stall_begin(struct side *s)
{
    s->left = flight_left(s);
    return loop_timer_set(s->relay->loop, &s->stall, s->relay->opt.stall_ms);
}

/* What goes to the socket next, in `flight`. */
static bool load_flight(struct side *s)
{
    if (s->tls == NULL) {
        struct buf spare = s->flight;
        s->flight = s->out;
        s->out = spare;
        return true;
    }
    if (s->tls_up && !s->notified && !encrypt(s))
        return false;
    struct str wire = tls_engine_wire(s->tls);
    buf_put(&s->flight, wire.p, wire.n);
    tls_engine_wire_taken(s->tls, wire.n);
    if (s->flight.failed)
        no_memory(s->relay);
    return !s->relay->over;
}

static void settle_writing(struct side *s)
{
    struct relay *r = s->relay;
    if (s->tcp == NULL || s->writing || s->shutting || !load_flight(s) || s->flight.len == 0)
        return;
    uv_buf_t b = uv_buf_init(s->flight.p, (unsigned)s->flight.len);
    s->write.data = s;
    int err = uv_write(&s->write, (uv_stream_t *)s->tcp, &b, 1, on_written);
    s->writing = err == 0;
    if (err != 0)
        writing_failed(s, err);
    else if (!stall_begin(s))
        no_memory(r);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct side *s = req->data;
    (void)status; /* a broken side shows in its reading */
    s->shut = true;
    if (!s->relay->over)
        loop_post(s->relay->loop, &s->relay->settle);
}

/* All that the other side sent, or that we want of it, is written. */
static void settle_shutdown(struct side *s)
{
    bool last = s->other->ended || (s->relay->draining != NULL && !s->other->held);
    if (s->tcp == NULL || !last || s->out.len > 0 || s->writing || s->shutting)
        return;
    if (s->tls != NULL && !s->notified) {
        s->notified = true;
        tls_engine_close_notify(s->tls);
        settle_writing(s);
        if (s->writing || s->relay->over)
            return;
    }
    s->shutting = true;
    s->shutdown.data = s;
    if (uv_shutdown(&s->shutdown, (uv_stream_t *)s->tcp, on_shutdown) != 0)
        s->shut = true;
}

/* ---- settling -------------------------------------------------------------------------------- */

static void settle_side(struct side *s)
{
    if (s->tls != NULL && !s->tls_up)
        shake(s);
    if (!s->relay->over && s->tls_up)
        decrypt(s);
}

static void settle_end(struct relay *r)
{
    struct side *a = &r->side[RELAY_FIRST], *b = &r->side[RELAY_SECOND];
    if (r->draining != NULL) {
        if (a->shut && b->shut && a->wire_ended && b->wire_ended)
            finish(r, RELAY_STOPPED, r->draining);
    } else if (a->ended && b->tcp == NULL) {
        finish(r, RELAY_LOST, "the first side ended before the second one was there");
    } else if (a->shut && b->shut && a->ended && b->ended) {
        finish(r, RELAY_DONE, "both sides have ended");
    } else if ((a->ended || b->ended) && !timer_armed(&r->half) && !half_begin(r)) {
        no_memory(r);
    }
}

static void on_settle(struct loop_task *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, settle);
    for (int i = 0; i < 2 && !r->over; i++)
        settle_side(&r->side[i]);
    for (int i = 0; i < 2 && !r->over; i++)
        settle_writing(&r->side[i]);
    for (int i = 0; i < 2 && !r->over; i++)
        settle_shutdown(&r->side[i]);
    for (int i = 0; i < 2 && !r->over; i++)
        settle_reading(&r->side[i]);
    struct side *a = &r->side[RELAY_FIRST];
    if (!r->over && a->held && !a->ended && room(a->other)) /* writing made room */
        loop_post_later(r->loop, &r->settle);
    if (!r->over)
        settle_end(r);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_first_word_late(struct timer *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, first_word);
    struct side *s = &r->side[RELAY_FIRST];
    if (s->tls_up)
        side_failed(s, "it says nothing");
    else
        finish(r, RELAY_TLS, "no TLS handshake in time");
}

static void on_half_late(struct timer *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, half);
    if (r->draining != NULL)
        finish(r, RELAY_STOPPED, r->draining);
    else if (flights_left(r) == r->half_left)
        finish(r, RELAY_LOST, "one side has ended, the other one does not");
    else
        half_begin(r); /* does not fail: the place of the timer that fires is free */
}

/* Slowly is fine, not at all is not. */
static void on_stall(struct timer *t)
{
    struct side *s = CONTAINER_OF(t, struct side, stall);
    if (flight_left(s) == s->left)
        side_failed(s, "it has stopped reading");
    else
        stall_begin(s); /* does not fail, as above */
}

static void on_dead(struct dead_watch *d)
{
    side_failed(CONTAINER_OF(d, struct side, dead), uv_strerror(UV_ETIMEDOUT));
}

static void attach(struct side *s, uv_tcp_t *tcp)
{
    s->tcp = tcp;
    tcp->data = s;
    s->relay->open++;
    s->relay->loop->handles++;
    uv_tcp_nodelay(tcp, 1);
}

static void init_side(struct relay *r, enum relay_side i)
{
    struct side *s = &r->side[i];
    s->relay = r;
    s->other = &r->side[i == RELAY_FIRST ? RELAY_SECOND : RELAY_FIRST];
    buf_init(&s->out, r->opt.buffer + SLACK);
    buf_init(&s->flight, r->opt.buffer + SLACK);
    s->stall.fire = on_stall;
}

struct relay *relay_new(struct loop *l, uv_tcp_t *tcp, const struct relay_options *opt,
                        const struct relay_ops *ops, void *arg)
{
    struct relay *r = mem_zalloc(sizeof *r);
    if (r == NULL)
        return NULL;
    *r = (struct relay){.loop = l, .ops = ops, .arg = arg, .opt = *opt};
    r->first_word.fire = on_first_word_late;
    r->half.fire = on_half_late;
    r->settle.run = on_settle;
    r->release.run = on_release;
    init_side(r, RELAY_FIRST);
    init_side(r, RELAY_SECOND);
    struct side *s = &r->side[RELAY_FIRST];
    s->tls = tls_engine_new(opt->tls, false, NULL, opt->peer_name);
    bool ok = s->tls != NULL && loop_timer_set(l, &r->first_word, opt->first_word_ms);
    ok = ok && dead_watch_start(&s->dead, l, tcp, opt->dead_ms, on_dead);
    if (!ok) {
        loop_timer_clear(l, &r->first_word);
        tls_engine_free(s->tls);
        mem_free(r);
        return NULL;
    }
    attach(s, tcp);
    loop_post(l, &r->settle);
    return r;
}

bool relay_join(struct relay *r, uv_tcp_t *tcp)
{
    struct side *s = &r->side[RELAY_SECOND];
    if (r->over || s->tcp != NULL ||
        !dead_watch_start(&s->dead, r->loop, tcp, r->opt.dead_ms, on_dead))
        return false;
    attach(s, tcp);
    loop_post(r->loop, &r->settle);
    return true;
}

void relay_drain(struct relay *r, const char *why, uint64_t within_ms)
{
    if (r->over || r->draining != NULL)
        return;
    r->draining = why;
    if (r->side[RELAY_SECOND].tcp == NULL || !loop_timer_set(r->loop, &r->half, within_ms))
        finish(r, RELAY_STOPPED, why);
    else
        loop_post(r->loop, &r->settle);
}

uint64_t relay_bytes(const struct relay *r, enum relay_side from)
{
    return r->side[from].received;
}

size_t relay_waiting(const struct relay *r, enum relay_side to)
{
    return r->side[to].out.len + r->side[to].flight.len;
}
