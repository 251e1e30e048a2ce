/* libuv's functions, and listen.h, over the wires of net.c. */
#include "tests/twin/net_priv.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "core/net/addr.h"
#include "core/net/conn_priv.h"

enum { RUN_MAX = 100000, SERVE = 700, TURN_ACCEPTS = 4 };

/* ---- loops ----------------------------------------------------------------------------------- */

int uv_loop_init(uv_loop_t *l)
{
    struct floop *f = calloc(1, sizeof *f);
    memset(l, 0, sizeof *l);
    f->address = net_present()->address;
    l->data = f;
    return 0;
}

int uv_loop_close(uv_loop_t *l)
{
    free(l->data);
    l->data = NULL;
    return 0;
}

static bool has_handles(const uv_loop_t *l)
{
    LIST_FOREACH (&net_present()->socks, n, next)
        if (CONTAINER_OF(n, struct sock, node)->loop == l)
            return true;
    LIST_FOREACH (&net_present()->listeners, n2, next2)
        if (CONTAINER_OF(n2, struct listener, node)->loop->uv == l)
            return true;
    return false;
}

int uv_loop_alive(const uv_loop_t *l)
{
    const struct floop *f = l->data;
    return f->referenced || has_handles(l);
}

void uv_stop(uv_loop_t *l)
{
    ((struct floop *)l->data)->stopping = true;
}

void uv_update_time(uv_loop_t *l)
{
    (void)l;
}

int uv_timer_init(uv_loop_t *l, uv_timer_t *t)
{
    t->loop = l;
    t->type = UV_TIMER;
    return 0;
}

int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    (void)t, (void)cb, (void)timeout, (void)repeat; /* the test looks at loop.timers */
    return 0;
}

int uv_timer_stop(uv_timer_t *t)
{
    (void)t;
    return 0;
}

int uv_is_active(const uv_handle_t *h)
{
    (void)h;
    return 0;
}

int uv_prepare_init(uv_loop_t *l, uv_prepare_t *p)
{
    p->loop = l;
    p->type = UV_PREPARE;
    return 0;
}

int uv_prepare_start(uv_prepare_t *p, uv_prepare_cb cb)
{
    struct floop *f = p->loop->data;
    f->prepare = p;
    f->prepare_cb = cb;
    return 0;
}

void uv_ref(uv_handle_t *h)
{
    if (h->type == UV_PREPARE)
        ((struct floop *)h->loop->data)->referenced = true;
}

void uv_unref(uv_handle_t *h)
{
    if (h->type == UV_PREPARE)
        ((struct floop *)h->loop->data)->referenced = false;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static struct sock *sock_of(const void *handle)
{
    return ((const uv_tcp_t *)handle)->u.reserved[0];
}

static struct sock *sock_new(uv_loop_t *l, uv_tcp_t *h)
{
    struct sock *s = calloc(1, sizeof *s);
    s->h = h;
    s->loop = l;
    s->local.ip = ((struct floop *)l->data)->address;
    list_append(&net_present()->socks, &s->node);
    h->loop = l;
    h->type = UV_TCP;
    h->u.reserved[0] = s;
    return s;
}

int uv_tcp_init_ex(uv_loop_t *l, uv_tcp_t *h, unsigned flags)
{
    (void)flags;
    sock_new(l, h);
    return 0;
}

int uv_tcp_bind(uv_tcp_t *h, const struct sockaddr *a, unsigned flags)
{
    (void)h, (void)a, (void)flags;
    return 0;
}

int uv_tcp_nodelay(uv_tcp_t *h, int on)
{
    (void)h, (void)on;
    return 0;
}

int uv_tcp_keepalive(uv_tcp_t *h, int on, unsigned delay)
{
    (void)h, (void)on, (void)delay;
    return 0;
}

/* No descriptor: what a driver asks of the kernel beside libuv does not exist here. */
int uv_fileno(const uv_handle_t *h, uv_os_fd_t *fd)
{
    (void)h, (void)fd;
    return UV_EBADF;
}

static int name_of(const struct endpoint *e, struct sockaddr *out, int *len)
{
    struct sockaddr_storage sa;
    if (!addr_from_endpoint(e, &sa))
        return UV_ENOTCONN;
    memcpy(out, &sa, (size_t)*len < sizeof sa ? (size_t)*len : sizeof sa);
    return 0;
}

int uv_tcp_getpeername(const uv_tcp_t *h, struct sockaddr *out, int *len)
{
    return name_of(&sock_of(h)->peer, out, len);
}

int uv_tcp_getsockname(const uv_tcp_t *h, struct sockaddr *out, int *len)
{
    return name_of(&sock_of(h)->local, out, len);
}

int uv_tcp_connect(uv_connect_t *req, uv_tcp_t *h, const struct sockaddr *a, uv_connect_cb cb)
{
    struct sock *s = sock_of(h);
    addr_to_endpoint(a, &s->peer);
    s->local.port = ++net_present()->next_port;
    req->handle = (uv_stream_t *)h;
    s->connecting = req;
    s->connect_cb = cb;
    s->connect_at = net_present()->now + net_below(net_present(), net_present()->latency + 1);
    s->never = net_chance(net_present(), net_present()->drop);
    return 0;
}

uv_buf_t uv_buf_init(char *base, unsigned len)
{
    return (uv_buf_t){.base = base, .len = len};
}

int uv_read_start(uv_stream_t *h, uv_alloc_cb alloc, uv_read_cb read)
{
    struct sock *s = sock_of(h);
    if (s->closing)
        return UV_EINVAL;
    s->reading = true;
    s->alloc_cb = alloc;
    s->read_cb = read;
    return 0;
}

int uv_read_stop(uv_stream_t *h)
{
    sock_of(h)->reading = false;
    return 0;
}

int uv_try_write(uv_stream_t *h, const uv_buf_t bufs[], unsigned n)
{
    struct sock *s = sock_of(h);
    struct pipe *p = sock_tx(s);
    if (s->writing != NULL ||
        (p->err == 0 && (pipe_room(p) == 0 || net_chance(net_present(), net_present()->slow))))
        return UV_EAGAIN;
    size_t limit = net_chance(net_present(), 200) ? 1 + net_below(net_present(), 200) : WIRE_CAP,
           done = 0;
    for (unsigned i = 0; i < n && limit > 0; i++) {
        size_t part = bufs[i].len;
        part = part < limit ? part : limit;
        part = p->void_ || part < pipe_room(p) ? part : pipe_room(p);
        ssize_t r = part > 0 || p->err ? pipe_put(s->wire, s->side, bufs[i].base, part) : 0;
        if (r < 0)
            return done > 0 ? (int)done : (int)r;
        done += part;
        limit -= part;
        if (part < bufs[i].len)
            break;
    }
    return (int)done;
}

static void try_byte(struct sock *s)
{
    if (!s->written && (sock_tx(s)->err != 0 || pipe_room(sock_tx(s)) > 0)) {
        pipe_put(s->wire, s->side, &s->byte, 1);
        s->written = true;
    }
}

int uv_write(uv_write_t *req, uv_stream_t *h, const uv_buf_t bufs[], unsigned n, uv_write_cb cb)
{
    struct sock *s = sock_of(h);
    if (n != 1 || bufs[0].len != 1)
        abort(); /* conn_write.c never asks for more */
    s->writing = req;
    s->write_cb = cb;
    s->byte = bufs[0].base[0];
    s->written = false;
    if (net_chance(net_present(),
                   300)) /* it found room between the two calls; the callback comes later */
        try_byte(s);
    return 0;
}

int uv_shutdown(uv_shutdown_t *req, uv_stream_t *h, uv_shutdown_cb cb)
{
    struct sock *s = sock_of(h);
    if (s->wire == NULL || s->closing)
        return UV_ENOTCONN;
    s->shutting = req;
    s->shutdown_cb = cb;
    return 0;
}

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    if (h->type != UV_TCP)
        return; /* prepare and clock of a loop that ends */
    struct sock *s = sock_of(h);
    if (s->closing)
        abort(); /* closed twice */
    s->closing = true;
    s->reading = false;
    s->close_cb = cb;
    if (s->wire == NULL)
        return;
    wire_leave(s->wire, s->side);
    s->wire->end[s->side] = NULL;
}

const char *uv_strerror(int err)
{
    return err == UV_ECONNREFUSED ? "connection refused" : "network error";
}

int uv_interface_addresses(uv_interface_address_t **list, int *n)
{
    *list = NULL;
    *n = 0;
    return 0;
}

void uv_free_interface_addresses(uv_interface_address_t *list, int n)
{
    (void)list, (void)n;
}

/* ---- serving one socket ---------------------------------------------------------------------- */

static void serve_connect(struct sock *s)
{
    if (s->never || net_present()->now < s->connect_at)
        return;
    uv_connect_t *req = s->connecting;
    int status = UV_ECONNREFUSED;
    s->connecting = NULL;
    net_present()->activity++;
    if (listener_at(&s->peer) != NULL && !net_chance(net_present(), net_present()->refuse)) {
        s->wire = wire_new(&s->local, &s->peer);
        s->wire->end[0] = s;
        status = 0;
    }
    s->connect_cb(req, status);
}

static void serve_read(struct sock *s)
{
    struct pipe *p = sock_rx(s);
    struct conn *c = s->h->data;
    if ((p->n == 0 && !p->fin && p->err == 0) || !wire_arrived(s->wire, p))
        return;
    uv_buf_t b = {0};
    net_present()->activity++;
    s->alloc_cb((uv_handle_t *)s->h, WIRE_CAP, &b);
    if (b.base == NULL || b.len == 0) {
        s->read_cb((uv_stream_t *)s->h, UV_ENOBUFS, &b);
        return;
    }
    if (p->n > 0) {
        size_t n = pipe_portion(p->n, b.len);
        pipe_take(p, b.base, n);
        if (c->closing)
            p->excuse |= EXCUSE_DISCARDED;
        s->read_cb((uv_stream_t *)s->h, (ssize_t)n, &b);
        return;
    }
    s->reading = false;
    s->read_cb((uv_stream_t *)s->h, p->err != 0 ? p->err : UV_EOF, &b);
}

static void serve_write(struct sock *s)
{
    try_byte(s);
    if (!s->written)
        return;
    uv_write_t *req = s->writing;
    int status = sock_tx(s)->err;
    s->writing = NULL;
    net_present()->activity++;
    s->write_cb(req, status == UV_ECONNRESET ? UV_EPIPE : status);
}

static void serve_shutdown(struct sock *s)
{
    uv_shutdown_t *req = s->shutting;
    struct pipe *p = sock_tx(s);
    s->shutting = NULL;
    net_present()->activity++;
    if (p->err == 0 && !p->fin) {
        wire_travel(s->wire, p);
        p->fin = true;
    }
    s->shutdown_cb(req, p->err != 0 ? UV_ENOTCONN : 0);
}

/* The last callbacks of a closed handle, in libuv's order. */
static void serve_close(struct sock *s)
{
    uv_handle_t *h = (uv_handle_t *)s->h;
    uv_close_cb cb = s->close_cb;
    net_present()->activity++;
    if (s->connecting != NULL)
        s->connect_cb(s->connecting, UV_ECANCELED);
    if (s->writing != NULL)
        s->write_cb(s->writing, s->written ? 0 : UV_ECANCELED);
    if (s->shutting != NULL)
        s->shutdown_cb(s->shutting, UV_ECANCELED);
    list_remove(&s->node);
    free(s);
    cb(h);
}

static bool still_there(const struct sock *s)
{
    LIST_FOREACH (&net_present()->socks, n, next)
        if (CONTAINER_OF(n, struct sock, node) == s)
            return true;
    return false;
}

static void serve(struct sock *s)
{
    if (s->connecting != NULL && !s->closing)
        serve_connect(s);
    if (!s->closing && s->wire != NULL && s->writing != NULL && net_chance(net_present(), SERVE))
        serve_write(s);
    if (!s->closing && s->wire != NULL && s->shutting != NULL && s->writing == NULL &&
        net_chance(net_present(), SERVE))
        serve_shutdown(s);
    if (!s->closing && s->wire != NULL && s->reading && net_chance(net_present(), SERVE))
        serve_read(s);
}

static void serve_all(uv_loop_t *l)
{
    enum { MOST = 256 };
    struct sock *all[MOST];
    size_t n = 0;
    LIST_FOREACH (&net_present()->socks, node, next) {
        struct sock *s = CONTAINER_OF(node, struct sock, node);
        if (s->loop == l && n < MOST)
            all[n++] = s;
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = i + net_below(net_present(), (unsigned)(n - i));
        struct sock *s = all[j];
        all[j] = all[i];
        if (still_there(s))
            serve(s);
    }
    LIST_FOREACH (&net_present()->socks, node2, next2) {
        struct sock *s = CONTAINER_OF(node2, struct sock, node);
        if (s->loop == l && s->closing)
            serve_close(s);
    }
}

/* ---- listening ------------------------------------------------------------------------------- */

struct listener *listen_new(struct loop *l, const struct endpoint *at,
                            void (*accepted)(void *arg, uv_tcp_t *tcp), void *arg,
                            char why[LISTEN_WHY_MAX])
{
    struct listener *li = listener_at(at) == NULL ? mem_zalloc(sizeof *li) : NULL;
    if (li == NULL) {
        snprintf(why, LISTEN_WHY_MAX, "cannot listen");
        return NULL;
    }
    *li = (struct listener){.loop = l, .at = *at, .accepted = accepted, .arg = arg};
    list_append(&net_present()->listeners, &li->node);
    l->handles++;
    return li;
}

const struct endpoint *listen_local(const struct listener *li)
{
    return &li->at;
}

static bool is_for(const struct wire *w, const struct listener *li)
{
    return w->waiting && w->to.port == li->at.port && ip_equal(&w->to.ip, &li->at.ip);
}

void listen_close(struct listener *li)
{
    if (li == NULL || li->closing)
        return;
    li->closing = true;
    LIST_FOREACH (&net_present()->wires, n, next) {
        struct wire *w = CONTAINER_OF(n, struct wire, node);
        if (!is_for(w, li))
            continue;
        w->waiting = false;
        wire_leave(w, 1);
        if (w->pipe[1].err == 0) {
            w->pipe[1].err = UV_ECONNRESET;
            w->pipe[1].fin = false;
        }
    }
}

static void hand_over(struct listener *li, struct wire *w)
{
    w->waiting = false;
    net_present()->activity++;
    uv_tcp_t *h = mem_zalloc(sizeof *h);
    if (h == NULL) {
        wire_leave(w, 1);
        return;
    }
    struct sock *s = sock_new(li->loop->uv, h);
    s->wire = w;
    s->side = 1;
    s->local = w->to;
    s->peer = w->from;
    w->end[1] = s;
    li->accepted(li->arg, h);
}

static void serve_listener(struct listener *li)
{
    int budget = TURN_ACCEPTS;
    LIST_FOREACH (&net_present()->wires, n, next) {
        struct wire *w = CONTAINER_OF(n, struct wire, node);
        if (!li->closing && is_for(w, li) && net_chance(net_present(), SERVE) && budget-- > 0)
            hand_over(li, w);
    }
    if (!li->closing)
        return;
    list_remove(&li->node);
    li->loop->handles--;
    mem_free(li);
}

static void turn(uv_loop_t *l)
{
    struct floop *f = l->data;
    if (f->prepare != NULL)
        f->prepare_cb(f->prepare);
    serve_all(l);
    LIST_FOREACH (&net_present()->listeners, n, next) {
        struct listener *li = CONTAINER_OF(n, struct listener, node);
        if (li->loop->uv == l)
            serve_listener(li);
    }
}

int uv_run(uv_loop_t *l, uv_run_mode mode)
{
    struct floop *f = l->data;
    if (mode == UV_RUN_NOWAIT) {
        turn(l);
        return uv_loop_alive(l);
    }
    for (int i = 0; uv_loop_alive(l) && !f->stopping; i++) {
        if (i == RUN_MAX) {
            fprintf(stderr, "a loop does not end: something was not closed\n");
            abort();
        }
        turn(l);
    }
    f->stopping = false;
    return uv_loop_alive(l);
}
