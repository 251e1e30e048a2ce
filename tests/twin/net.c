#include "tests/twin/net_priv.h"

#include <stdlib.h>

static struct net *net;

struct net *net_present(void)
{
    return net;
}

/* ---- chance ---------------------------------------------------------------------------------- */

uint64_t net_random(struct net *n)
{
    uint64_t z = n->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

unsigned net_below(struct net *n, unsigned below)
{
    return below ? (unsigned)(net_random(n) % below) : 0;
}

bool net_chance(struct net *n, unsigned of_1000)
{
    return of_1000 > 0 && net_below(n, 1000) < of_1000;
}

/* ---- wires ----------------------------------------------------------------------------------- */

void wire_travel(struct wire *w, struct pipe *p)
{
    uint64_t at = net->now + net_below(net, net->latency + 1);
    if (at < w->stalled)
        at = w->stalled;
    if (p->n == 0 || p->ready < w->stalled)
        p->ready = at;
}

struct wire *wire_new(const struct endpoint *from, const struct endpoint *to)
{
    struct wire *w = calloc(1, sizeof *w);
    w->id = ++net->next_wire;
    w->from = *from;
    w->to = *to;
    w->port = to->port;
    w->waiting = true;
    for (int i = 0; i < 2; i++) {
        w->pipe[i].cap = net_chance(net, net->narrow) ? 150 + net_below(net, 1500) : WIRE_CAP;
        w->pipe[i].bytes = malloc(WIRE_CAP);
    }
    list_append(&net->wires, &w->node);
    return w;
}

bool net_wire_alive(const struct wire *w)
{
    return (w->end[0] != NULL || w->raw) && w->end[1] != NULL;
}

/* Keeps a part of what travels; behind it the reader finds the error. */
static void break_pipe(struct wire *w, int side, int err, unsigned excuse)
{
    struct pipe *p = &w->pipe[side];
    size_t keep = p->n > 0 ? net_below(net, (unsigned)p->n + 1) : 0;
    if (keep < p->n)
        p->excuse |= excuse;
    p->n = keep;
    p->fin = false;
    p->err = err;
    wire_travel(w, p);
}

void net_cut(struct net *n, struct wire *w)
{
    int err = net_chance(n, 800) ? UV_ECONNRESET : UV_ETIMEDOUT;
    for (int i = 0; i < 2; i++) {
        if (w->pipe[i].fin && w->pipe[i].n == 0)
            continue;
        break_pipe(w, i, err, EXCUSE_CUT);
    }
}

struct wire *net_wire_of(const uv_tcp_t *tcp, int *side)
{
    const struct sock *s = tcp->u.reserved[0];
    *side = s->side;
    return s->wire;
}

struct pipe *sock_rx(const struct sock *s)
{
    return &s->wire->pipe[1 - s->side];
}

struct pipe *sock_tx(const struct sock *s)
{
    return &s->wire->pipe[s->side];
}

bool wire_arrived(const struct wire *w, const struct pipe *p)
{
    return net->now >= p->ready && net->now >= w->stalled;
}

void pipe_take(struct pipe *p, char *out, size_t n)
{
    if (out != NULL)
        memcpy(out, p->bytes, n);
    memmove(p->bytes, p->bytes + n, p->n - n);
    p->n -= n;
}

/* What the kernel takes of it; a negative error. */
ssize_t pipe_put(struct wire *w, int side, const char *b, size_t n)
{
    struct pipe *p = &w->pipe[side];
    if (p->err != 0)
        return p->err == UV_ECONNRESET ? UV_EPIPE : p->err;
    p->total += n;
    if (p->void_) {
        p->excuse |= EXCUSE_LEFT;
        p->err = UV_ECONNRESET;
        break_pipe(w, 1 - side, UV_ECONNRESET, EXCUSE_RESET);
        return (ssize_t)n;
    }
    wire_travel(w, p);
    memcpy(p->bytes + p->n, b, n);
    p->n += n;
    return (ssize_t)n;
}

size_t pipe_room(const struct pipe *p)
{
    return p->n < p->cap ? p->cap - p->n : 0;
}

/* One end goes: the kernel's part of close(). */
void wire_leave(struct wire *w, int side)
{
    struct pipe *in = &w->pipe[1 - side], *out = &w->pipe[side];
    bool unread = in->n > 0;
    if (unread)
        in->excuse |= EXCUSE_LEFT;
    in->void_ = true;
    in->n = 0;
    if (unread && out->err == 0)
        break_pipe(w, side, UV_ECONNRESET, EXCUSE_RESET);
    else if (out->err == 0 && !out->fin) {
        wire_travel(w, out);
        out->fin = true;
    }
}

size_t pipe_portion(size_t n, size_t cap)
{
    size_t most = n < cap ? n : cap;
    unsigned how = net_below(net, 10);
    if (how < 6 || most == 1)
        return most;
    if (how == 6)
        return 1 + net_below(net, most < 16 ? (unsigned)most : 16);
    return 1 + net_below(net, (unsigned)most);
}

struct listener *listener_at(const struct endpoint *at)
{
    LIST_FOREACH (&net->listeners, n, next) {
        struct listener *li = CONTAINER_OF(n, struct listener, node);
        if (!li->closing && li->at.port == at->port && ip_equal(&li->at.ip, &at->ip))
            return li;
    }
    return NULL;
}

/* ---- the test's own view --------------------------------------------------------------------- */

void net_open(struct net *n, uint64_t seed)
{
    *n = (struct net){.now = 1000000, .rng = seed, .next_port = 20000};
    net = n;
}

void net_close(struct net *n)
{
    struct list_node *node;
    while ((node = list_pop(&n->wires)) != NULL) {
        struct wire *w = CONTAINER_OF(node, struct wire, node);
        free(w->pipe[0].bytes);
        free(w->pipe[1].bytes);
        free(w);
    }
    net = NULL;
}

static void sooner(uint64_t now, uint64_t at, uint64_t *due, bool *found)
{
    if (at <= now)
        return;
    if (!*found || at < *due)
        *due = at;
    *found = true;
}

bool net_next(const struct net *n, uint64_t *due)
{
    bool found = false;
    LIST_FOREACH (&n->wires, node, next) {
        const struct wire *w = CONTAINER_OF(node, struct wire, node);
        for (int i = 0; i < 2; i++) {
            const struct pipe *p = &w->pipe[i];
            if (w->end[1 - i] == NULL || (p->n == 0 && !p->fin && p->err == 0))
                continue;
            sooner(n->now, p->ready > w->stalled ? p->ready : w->stalled, due, &found);
        }
    }
    LIST_FOREACH (&n->socks, node2, next2) {
        const struct sock *s = CONTAINER_OF(node2, struct sock, node);
        if (s->connecting != NULL && !s->never)
            sooner(n->now, s->connect_at, due, &found);
    }
    return found;
}

static bool can_be_served(const struct sock *s)
{
    if (s->closing)
        return true;
    if (s->connecting != NULL)
        return !s->never && net->now >= s->connect_at;
    if (s->wire == NULL)
        return false;
    const struct pipe *in = sock_rx(s), *out = sock_tx(s);
    if (s->writing != NULL)
        return s->written || out->err != 0 || pipe_room(out) > 0;
    return s->shutting != NULL ||
           (s->reading && (in->n > 0 || in->fin || in->err != 0) && wire_arrived(s->wire, in));
}

bool net_ready(const struct net *n)
{
    LIST_FOREACH (&n->socks, node, next)
        if (can_be_served(CONTAINER_OF(node, struct sock, node)))
            return true;
    LIST_FOREACH (&n->wires, node2, next2)
        if (CONTAINER_OF(node2, struct wire, node)->waiting)
            return true;
    return false;
}

bool net_quiet(const struct net *n)
{
    LIST_FOREACH (&n->wires, node, next) {
        const struct wire *w = CONTAINER_OF(node, struct wire, node);
        for (int i = 0; i < 2; i++)
            if (w->end[1 - i] != NULL && w->pipe[i].n > 0)
                return false;
    }
    return true;
}

struct wire *net_raw_dial(struct net *n, const struct endpoint *to, const struct ip *from)
{
    struct endpoint at = {*from, ++n->next_port};
    if (listener_at(to) == NULL)
        return NULL;
    struct wire *w = wire_new(&at, to);
    w->raw = true;
    return w;
}

void net_raw_write(struct net *n, struct wire *w, const char *text, size_t len)
{
    (void)n;
    if (w->pipe[0].err == 0 && !w->pipe[0].fin && len <= WIRE_CAP - w->pipe[0].n)
        pipe_put(w, 0, text, len);
}

size_t net_raw_read(struct net *n, struct wire *w, char *out, size_t cap)
{
    (void)n;
    struct pipe *p = &w->pipe[1];
    if (p->n == 0 || !wire_arrived(w, p))
        return 0;
    size_t part = pipe_portion(p->n, cap);
    pipe_take(p, out, part);
    return part;
}

void net_raw_close(struct net *n, struct wire *w)
{
    (void)n;
    if (!w->raw)
        return;
    w->raw = false;
    wire_leave(w, 0);
}
