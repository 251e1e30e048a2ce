/* For the conn tests: a holder that records what a conn tells it, stanzas with numbers, and a peer
 * that the test drives by hand. */
#ifndef TESTS_DRIVER_SIDE_H
#define TESTS_DRIVER_SIDE_H

#include <openssl/ssl.h>
#include <stdio.h>

#include "core/net/conn_priv.h"
#include "core/xml/ns.h"
#include "tests/driver/loopback.h"

#define HEADER                                                                                     \
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "xmlns:db='jabber:server:dialback' from='a.lab' to='b.lab' version='1.0'>"
#define STARTTLS "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
#define PROCEED "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"

enum { NUMBERED = 365, FLIGHT = 3000 };

struct side {
    struct conn *c;
    struct buf log; /* one letter per event */
    char text[256]; /* of the last LOST, TLS_FAILED or XML_ERROR */
    size_t stanzas, sent, sent_bytes, drained;
    unsigned long last_number;
    bool in_order, closed;
    void (*hook)(struct side *s, const struct gw_event *ev);
    size_t *other; /* for hooks */
    size_t noted;
    struct tls_ctx *ctx;
};

static inline char letter(enum gw_ev kind)
{
    switch (kind) {
    case EV_STREAM_OPEN: return 'O';
    case EV_NONZA: return 'N';
    case EV_STANZA: return 'S';
    case EV_STREAM_CLOSE: return 'C';
    case EV_XML_ERROR: return 'X';
    case EV_TLS_UP: return 'T';
    case EV_TLS_FAILED: return 'F';
    case EV_LOST: return 'L';
    default: return '?';
    }
}

static inline void note_stanza(struct side *s, struct str id)
{
    s->stanzas++;
    unsigned long n = 0;
    for (size_t i = 0; i < id.n; i++)
        n = n * 10 + (unsigned long)(id.p[i] - '0');
    s->in_order = s->in_order && n == s->last_number + 1;
    s->last_number = n;
}

static inline void on_event(struct conn *c, void *arg, const struct gw_event *ev)
{
    struct side *s = arg;
    assert_ptr_equal(c, s->c);
    assert_false(s->closed);
    if (ev->kind == EV_STANZA)
        note_stanza(s, ev->u.stanza->id);
    else
        buf_putc(&s->log, letter(ev->kind));
    if (ev->kind == EV_LOST || ev->kind == EV_TLS_FAILED)
        str_copy(s->text, sizeof s->text, ev->u.text);
    if (ev->kind == EV_XML_ERROR)
        snprintf(s->text, sizeof s->text, "%s: %s", ev->u.error.condition, ev->u.error.text);
    if (s->hook != NULL)
        s->hook(s, ev);
}

static inline void on_sent(struct conn *c, void *arg, size_t stanzas, size_t bytes)
{
    struct side *s = arg;
    assert_ptr_equal(c, s->c);
    s->sent += stanzas;
    s->sent_bytes += bytes;
}

static inline void on_drained(struct conn *c, void *arg)
{
    (void)c;
    ((struct side *)arg)->drained++;
}

static inline void on_closed(struct conn *c, void *arg)
{
    struct side *s = arg;
    assert_ptr_equal(c, s->c);
    assert_false(s->closed);
    s->closed = true;
    s->c = NULL;
}

static const struct conn_ops ops = {on_event, on_drained, on_sent, on_closed};
static const struct conn_options plain_options = {
    .content = CONTENT_SERVER, .limits = &framer_limits_default, .high_mark = 100 * NUMBERED,
    .low_mark = 10 * NUMBERED};

static inline void side_open_with(struct side *s, struct world *w, int fd,
                                  const struct conn_options *opt)
{
    *s = (struct side){.log = BUF_INIT(4096), .in_order = true};
    assert_true(buf_reserve(&s->log, 64)); /* works when memory has run out, too */
    s->c = conn_new(&w->loop, loopback_tcp(w, fd), opt, &ops, s);
    assert_non_null(s->c);
    conn_start(s->c);
}

static inline void side_open(struct side *s, struct world *w, int fd)
{
    side_open_with(s, w, fd, &plain_options);
}

static inline void side_end(struct side *s, struct world *w)
{
    if (s->c != NULL)
        conn_close(s->c, true, 0);
    SPIN_UNTIL(w, s->closed);
    buf_free(&s->log);
}

static inline bool logged(const struct side *s, const char *letters)
{
    return str_is(buf_view(&s->log), letters);
}

/* Stanza number n, exactly NUMBERED bytes long. */
static inline struct span numbered(unsigned n)
{
    struct chunk *k = chunk_new(NUMBERED + 1);
    assert_non_null(k);
    int head =
        snprintf(k->data, k->cap, "<message from='u@a.lab' to='v@b.lab' id='%06u'><body>", n);
    const char *tail = "</body></message>";
    memset(k->data + head, 'x', NUMBERED - (size_t)head - strlen(tail));
    memcpy(k->data + NUMBERED - strlen(tail), tail, strlen(tail));
    return (struct span){k, {k->data, NUMBERED}};
}

static inline void say(struct side *s, const char *text)
{
    conn_send(s->c, str_c(text));
}

static inline void say_numbered(struct side *s, unsigned from, unsigned to)
{
    for (unsigned n = from; n <= to; n++)
        assert_true(conn_send_stanza(s->c, numbered(n)));
}

static inline void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static inline void pair_open(struct world *w, struct side *a, struct side *b)
{
    int fd[2];
    world_open(w);
    loopback_pair(fd, 0);
    side_open(a, w, fd[0]);
    side_open(b, w, fd[1]);
}

/* The conn is `s`, the test holds the other end. */
static inline int raw_open(struct world *w, struct side *s, int buffer)
{
    int fd[2];
    world_open(w);
    loopback_pair(fd, buffer);
    side_open(s, w, fd[0]);
    return fd[1];
}

static inline struct tls_ctx *ctx_for(const char *domain)
{
    struct buf errors = BUF_INIT(1024);
    struct tls_identity id = {.domain = domain};
    struct tls_settings s = {.identities = &id, .nidentities = 1, .minimum = TLS1_2_VERSION};
    struct tls_ctx *c = tls_ctx_new(&s, &errors);
    assert_non_null(c);
    buf_free(&errors);
    return c;
}

/* The test's end of a connection under TLS. */
struct raw_tls {
    int fd;
    struct tls_engine *e;
};

static inline void raw_out(struct raw_tls *r)
{
    struct str w = tls_engine_wire(r->e);
    ssize_t n = w.n > 0 ? write(r->fd, w.p, w.n) : 0;
    if (n > 0)
        tls_engine_wire_taken(r->e, (size_t)n);
}

static inline bool raw_shake(struct raw_tls *r)
{
    char b[4096];
    enum tls_result res = tls_engine_handshake(r->e);
    raw_out(r);
    if (res == TLS_OK)
        return true;
    ssize_t n = read(r->fd, b, sizeof b);
    if (n > 0)
        assert_true(tls_engine_put_wire(r->e, (struct str){b, (size_t)n}));
    return false;
}

/* Everything that ever arrives, deciphered when r->e is there; ends at end of file. */
static inline void raw_drain(struct world *w, struct raw_tls *r, struct buf *out)
{
    char b[4096], plain[4096];
    ssize_t n = -1;
    uint64_t until = env_now(&env_system) + 10000;
    while (n != 0 && env_now(&env_system) < until) {
        size_t got;
        n = read(r->fd, b, sizeof b);
        turn_once(w);
        if (n <= 0)
            continue;
        if (r->e == NULL) {
            buf_put(out, b, (size_t)n);
            continue;
        }
        assert_true(tls_engine_put_wire(r->e, (struct str){b, (size_t)n}));
        while (tls_engine_read(r->e, plain, sizeof plain, &got) == TLS_OK)
            buf_put(out, plain, got);
    }
    assert_int_equal(n, 0);
    assert_false(out->failed);
}

#endif
