/* The writing half of a conn.
 *
 * Pieces wait in `queue`. Once per loop turn the flush hands them to the kernel with uv_try_write:
 * clear ones by scatter-gather, encrypted ones gathered into records of up to 16 KiB. When the
 * socket is full, a uv_write of exactly one byte waits for room. So at any time we know to the byte
 * what the kernel has accepted, and no buffer is lent to libuv. A larger uv_write that fails
 * half-way does not tell how far it came, and then a stanza might be lost or sent twice. */
#include "core/base/mem.h"
#include "core/net/conn_priv.h"

enum {
    WRITE_PIECES = 64,
    WIRE_PENDING = 64 * 1024, /* encrypted bytes that may wait */
    TURN_BYTES = 256 * 1024,  /* handed to the kernel per turn */
    RECORD_MAX = 16 * 1024,
};

static struct conn_item *first_of(const struct list *l)
{
    return l->first != NULL ? CONTAINER_OF(l->first, struct conn_item, node) : NULL;
}

static void item_free(struct conn *c, struct conn_item *i)
{
    list_remove(&i->node);
    c->queued -= i->span.s.n;
    span_release(&i->span);
    mem_free(i);
}

static void item_done(struct conn *c, struct conn_item *i)
{
    if (i->stanza) {
        c->done_stanzas++;
        c->done_bytes += i->span.s.n;
    }
    item_free(c, i);
}

/* ---- queueing -------------------------------------------------------------------------------- */

static bool enqueue(struct conn *c, struct span s, bool stanza)
{
    struct conn_item *i = mem_zalloc(sizeof *i);
    if (i == NULL)
        return false;
    i->span = s;
    i->stanza = stanza;
    i->clear = c->tls == NULL;
    list_append(&c->queue, &i->node);
    c->queued += s.s.n;
    if (c->queued > c->high_mark)
        c->above = true;
    loop_mark_dirty(c->loop, &c->flush);
    return true;
}

void conn_send(struct conn *c, struct str text)
{
    if (c->closing || text.n == 0)
        return;
    struct span s = span_copy(text);
    if (s.chunk != NULL && enqueue(c, s, false))
        return;
    span_release(&s);
    conn_fail(c, "out of memory", true);
}

bool conn_send_stanza(struct conn *c, struct span stanza)
{
    if (c->closing)
        return false;
    if (enqueue(c, stanza, true))
        return true;
    conn_fail(c, "out of memory", true);
    return false;
}

/* ---- accepted by the kernel ------------------------------------------------------------------ */

static void accepted_clear(struct conn *c, size_t n)
{
    struct conn_item *i;
    while ((i = first_of(&c->queue)) != NULL && i->clear) {
        size_t left = i->span.s.n - i->off;
        if (left > n) {
            i->off += n;
            return;
        }
        n -= left;
        item_done(c, i);
    }
}

static void accepted_tls(struct conn *c, size_t n)
{
    struct conn_item *i;
    c->wire_accepted += n;
    while ((i = first_of(&c->flight)) != NULL && i->last_end <= c->wire_accepted)
        item_done(c, i);
}

static void count_out(struct conn *c, size_t n)
{
    c->bytes_out += n;
    c->last_out = loop_now(c->loop);
}

static void write_failed(struct conn *c, int err)
{
    c->write_dead = true;
    if (c->closing) {
        conn_close_now(c);
        return;
    }
    /* What the peer said before it reset is still to be read, and the read side will see the end.
     * For errors of another kind that is not sure. */
    bool read_side_knows = err == UV_EPIPE || err == UV_ECONNRESET;
    if (!read_side_knows)
        conn_fail(c, conn_cause(err), false);
    else if (c->why[0] == '\0')
        str_copy(c->why, sizeof c->why, str_c(conn_cause(err)));
}

static void on_writable(uv_write_t *req, int status)
{
    struct conn *c = req->data;
    c->waiting = false;
    loop_timer_clear(c->loop, &c->stall);
    if (c->gone || c->cut)
        return;
    if (status < 0) {
        write_failed(c, status);
        return;
    }
    struct conn_item *i = first_of(&c->queue);
    bool clear = i != NULL && i->clear;
    if (clear)
        accepted_clear(c, 1);
    else
        accepted_tls(c, 1);
    count_out(c, 1);
    loop_mark_dirty(c->loop, &c->flush);
}

static bool wait_writable(struct conn *c, char byte)
{
    c->write_byte = byte;
    c->write.data = c;
    uv_buf_t b = uv_buf_init(&c->write_byte, 1);
    int err = uv_write(&c->write, (uv_stream_t *)c->tcp, &b, 1, on_writable);
    c->waiting = err == 0;
    if (err != 0)
        write_failed(c, err);
    else if (c->stall_ms > 0 && !c->closing && !loop_timer_set(c->loop, &c->stall, c->stall_ms))
        conn_fail(c, "out of memory", true);
    return err == 0;
}

/* ---- in clear -------------------------------------------------------------------------------- */

static unsigned gather_clear(const struct conn *c, uv_buf_t v[WRITE_PIECES])
{
    unsigned n = 0;
    LIST_FOREACH (&c->queue, node, next) {
        struct conn_item *i = CONTAINER_OF(node, struct conn_item, node);
        if (!i->clear || n == WRITE_PIECES)
            break;
        size_t left = i->span.s.n - i->off;
        v[n++] = uv_buf_init((char *)(uintptr_t)(i->span.s.p + i->off), (unsigned)left);
    }
    return n;
}

/* True when no piece in clear is left; false: later, or never. */
static bool flush_clear(struct conn *c, size_t *budget)
{
    uv_buf_t v[WRITE_PIECES];
    unsigned n;
    while ((n = gather_clear(c, v)) > 0) {
        if (*budget == 0) {
            loop_post_later(c->loop, &c->flush);
            return false;
        }
        int r = uv_try_write((uv_stream_t *)c->tcp, v, n);
        if (r == UV_EAGAIN) {
            wait_writable(c, v[0].base[0]);
            return false;
        }
        if (r < 0) {
            write_failed(c, r);
            return false;
        }
        accepted_clear(c, (size_t)r);
        count_out(c, (size_t)r);
        *budget -= (size_t)r < *budget ? (size_t)r : *budget;
    }
    return true;
}

/* ---- TLS ------------------------------------------------------------------------------------- */

/* Plain bytes for one record: of the first piece alone without copying, else of several. */
static struct str gather_plain(struct conn *c, size_t max, char scratch[RECORD_MAX])
{
    struct conn_item *i = first_of(&c->queue);
    size_t left = i->span.s.n - i->off;
    if (left >= max || i->node.next == NULL)
        return (struct str){i->span.s.p + i->off, left < max ? left : max};
    size_t n = 0;
    LIST_FOREACH (&c->queue, node, next) {
        i = CONTAINER_OF(node, struct conn_item, node);
        size_t part = i->span.s.n - i->off;
        if (part > max - n)
            part = max - n;
        memcpy(scratch + n, i->span.s.p + i->off, part);
        n += part;
        if (n == max)
            break;
    }
    return (struct str){scratch, n};
}

/* `n` plain bytes went into a record that ends at wire offset `end`. */
static void encrypted(struct conn *c, size_t n, uint64_t end)
{
    while (n > 0) {
        struct conn_item *i = first_of(&c->queue);
        size_t left = i->span.s.n - i->off;
        if (i->first_end == 0)
            i->first_end = end;
        if (left > n) {
            i->off += n;
            return;
        }
        i->off += left;
        i->last_end = end;
        n -= left;
        list_remove(&i->node);
        list_append(&c->flight, &i->node);
    }
}

static void encrypt_some(struct conn *c)
{
    char scratch[RECORD_MAX];
    size_t max = tls_engine_record(c->tls);
    while (c->queue.count > 0 && tls_engine_wire(c->tls).n < WIRE_PENDING) {
        struct str plain = gather_plain(c, max < RECORD_MAX ? max : RECORD_MAX, scratch);
        if (tls_engine_write(c->tls, plain) != TLS_OK) {
            c->tls_dead = true;
            conn_fail(c, tls_engine_why(c->tls), false);
            if (c->closing)
                conn_drop_unsendable(c);
            return;
        }
        encrypted(c, plain.n, c->wire_taken + tls_engine_wire(c->tls).n);
    }
}

/* Writes what the engine has for the wire, once; false: no more for now. */
static bool write_wire(struct conn *c, size_t *budget)
{
    struct str wire = tls_engine_wire(c->tls);
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)wire.p, (unsigned)wire.n);
    int r = uv_try_write((uv_stream_t *)c->tcp, &b, 1);
    if (r == UV_EAGAIN) {
        if (wait_writable(c, wire.p[0])) {
            tls_engine_wire_taken(c->tls, 1);
            c->wire_taken++;
        }
        return false;
    }
    if (r < 0) {
        write_failed(c, r);
        return false;
    }
    tls_engine_wire_taken(c->tls, (size_t)r);
    c->wire_taken += (size_t)r;
    accepted_tls(c, (size_t)r);
    count_out(c, (size_t)r);
    *budget -= (size_t)r < *budget ? (size_t)r : *budget;
    return true;
}

static void flush_tls(struct conn *c, size_t *budget)
{
    do {
        if (c->tls_up && !c->tls_dead && !c->notified)
            encrypt_some(c);
        if (tls_engine_wire(c->tls).n == 0)
            return;
        if (*budget == 0) {
            loop_post_later(c->loop, &c->flush);
            return;
        }
    } while (write_wire(c, budget));
}

/* ---- flush ----------------------------------------------------------------------------------- */

static void tell(struct conn *c)
{
    size_t stanzas = c->done_stanzas, bytes = c->done_bytes;
    c->done_stanzas = c->done_bytes = 0;
    if (stanzas > 0 && !c->closing && c->ops->sent != NULL)
        c->ops->sent(c, c->arg, stanzas, bytes);
    if (c->above && c->queued < c->low_mark && !c->closing) {
        c->above = false;
        if (c->ops->drained != NULL)
            c->ops->drained(c, c->arg);
    }
}

void conn_flush_task(struct loop_task *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, flush);
    size_t budget = TURN_BYTES;
    bool may = !c->gone && !c->cut && !c->write_dead && !c->waiting;
    if (may && flush_clear(c, &budget) && c->tls != NULL)
        flush_tls(c, &budget);
    tell(c);
    if (c->closing)
        conn_close_step(c);
}

bool conn_write_idle(const struct conn *c)
{
    return c->queue.count == 0 && c->flight.count == 0 && !c->waiting &&
           (c->tls == NULL || tls_engine_wire(c->tls).n == 0);
}

void conn_drop_unsendable(struct conn *c)
{
    LIST_FOREACH (&c->queue, node, next) {
        struct conn_item *i = CONTAINER_OF(node, struct conn_item, node);
        if (!i->clear)
            item_free(c, i);
    }
}

void conn_write_free(struct conn *c)
{
    struct conn_item *i;
    while ((i = first_of(&c->flight)) != NULL || (i = first_of(&c->queue)) != NULL)
        item_free(c, i);
}

/* ---- taking back ----------------------------------------------------------------------------- */

static struct conn_item *first_stanza(const struct list *l)
{
    LIST_FOREACH (l, node, next) {
        struct conn_item *i = CONTAINER_OF(node, struct conn_item, node);
        if (i->stanza)
            return i;
    }
    return NULL;
}

bool conn_unsent(struct conn *c, struct span *out, bool *partial)
{
    if (c->closing)
        return false;
    tell(c); /* the holder settles its books now: what was accepted must be in them */
    struct conn_item *i = first_stanza(&c->flight);
    if (i == NULL)
        i = first_stanza(&c->queue);
    if (i == NULL)
        return false;
    bool begun = i->clear ? i->off > 0 : i->first_end != 0 && i->first_end <= c->wire_accepted;
    if (partial != NULL)
        *partial = begun;
    /* Encrypted bytes cannot be taken out of the stream of records, nor the byte that waits. */
    bool byte_waits = i->clear && c->waiting && &i->node == c->queue.first;
    if (begun || i->first_end != 0 || byte_waits)
        c->cut = true;
    *out = span_retain(i->span);
    item_free(c, i);
    return true;
}
