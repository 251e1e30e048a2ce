#include "tests/bench/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_ROOM = 64 * 1024, READ_TURN = 512 * 1024, IN_MAX = 16 << 20, OUT_MAX = 4 << 20 };

bool wire_address(const char *text, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    char *end;

    if (colon == NULL || !str_copy(host, sizeof host, (struct str){text, (size_t)(colon - text)}))
        return false;
    long port = strtol(colon + 1, &end, 10);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return *end == '\0' && port >= 0 && port < 65536 &&
           inet_pton(AF_INET, host, &out->sin_addr) == 1;
}

static void died(struct wire *w, const char *what, const char *why)
{
    if (!w->dead)
        (void)snprintf(w->why, sizeof w->why, "%s: %s", what, why);
    w->dead = true;
}

static void died_errno(struct wire *w, const char *what)
{
    died(w, what, strerror(errno));
}

static void watch(struct wire *w, int op, bool writable)
{
    struct epoll_event ev = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = w->owner};
    if (epoll_ctl(w->epoll, op, w->fd, &ev) != 0)
        died_errno(w, "epoll");
}

static void set_blocked(struct wire *w, bool blocked)
{
    if (w->blocked == blocked)
        return;
    w->blocked = blocked;
    watch(w, EPOLL_CTL_MOD, blocked);
}

static void adopt(struct wire *w, int epoll, void *owner, int fd)
{
    int one = 1;
    *w = (struct wire){.fd = fd, .epoll = epoll, .owner = owner, .out = BUF_INIT(OUT_MAX)};
    if (fd < 0) {
        died_errno(w, "socket");
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int wire_listen(int epoll, const struct sockaddr_in *at, void *owner)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = owner};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)at, sizeof *at) == 0 && listen(fd, 1024) == 0 &&
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

void wire_connect(struct wire *w, int epoll, void *owner, const struct sockaddr_in *from,
                  const struct sockaddr_in *to)
{
    struct sockaddr_in source = *from;
    int one = 1;
    source.sin_port = 0;
    adopt(w, epoll, owner, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (w->dead)
        return;
    (void)setsockopt(w->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(w->fd, (struct sockaddr *)&source, sizeof source) != 0 ||
        (connect(w->fd, (const struct sockaddr *)to, sizeof *to) != 0 && errno != EINPROGRESS)) {
        died_errno(w, "connect");
        return;
    }
    w->connecting = w->blocked = true;
    watch(w, EPOLL_CTL_ADD, true);
}

void wire_accepted(struct wire *w, int epoll, void *owner, int fd)
{
    adopt(w, epoll, owner, fd);
    if (!w->dead)
        watch(w, EPOLL_CTL_ADD, false);
}

void wire_start_tls(struct wire *w, SSL_CTX *ctx, bool server, const char *sni)
{
    w->ssl = SSL_new(ctx);
    if (w->ssl == NULL || SSL_set_fd(w->ssl, w->fd) != 1) {
        died(w, "tls", "out of memory");
        return;
    }
    if (server) {
        SSL_set_accept_state(w->ssl);
    } else {
        SSL_set_connect_state(w->ssl);
        if (sni != NULL)
            (void)SSL_set_tlsext_host_name(w->ssl, sni);
    }
    w->handshaking = true;
}

/* True: go on later, epoll knows what for. */
static bool tls_later(struct wire *w, int r, const char *what)
{
    int e = SSL_get_error(w->ssl, r);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
        set_blocked(w, e == SSL_ERROR_WANT_WRITE);
        return true;
    }
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    died(w, what, why ? why : "the connection ended");
    ERR_clear_error();
    return false;
}

bool wire_ready(struct wire *w)
{
    if (w->dead)
        return false;
    if (w->connecting) {
        int err = 0;
        socklen_t n = sizeof err;
        (void)getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &n);
        if (err != 0) {
            errno = err;
            died_errno(w, "connect");
            return false;
        }
        w->connecting = false;
        set_blocked(w, false);
    }
    if (w->handshaking) {
        int r = SSL_do_handshake(w->ssl);
        if (r != 1) {
            (void)tls_later(w, r, "handshake");
            return false;
        }
        w->handshaking = false;
        set_blocked(w, false);
    }
    return true;
}

static bool room(struct wire *w)
{
    if (w->in_cap - w->in_n >= READ_ROOM)
        return true;
    size_t cap = w->in_cap ? 2 * w->in_cap : 2 * READ_ROOM;
    char *p = cap <= IN_MAX ? realloc(w->in, cap) : NULL;
    if (p == NULL) {
        died(w, "read", "too much is waiting");
        return false;
    }
    w->in = p;
    w->in_cap = cap;
    return true;
}

/* Bytes read; 0: nothing more for now, or dead. */
static size_t read_some(struct wire *w, char *p, size_t n)
{
    if (w->ssl != NULL) {
        int r = SSL_read(w->ssl, p, (int)n);
        if (r <= 0)
            (void)tls_later(w, r, "read");
        return r > 0 ? (size_t)r : 0;
    }
    ssize_t r = read(w->fd, p, n);
    if (r == 0)
        died(w, "read", "the connection ended");
    else if (r < 0 && errno != EAGAIN && errno != EINTR)
        died_errno(w, "read");
    return r > 0 ? (size_t)r : 0;
}

void wire_read(struct wire *w)
{
    size_t total = 0, r;
    do {
        if (w->dead || !room(w))
            return;
        size_t n = w->in_cap - w->in_n;
        r = read_some(w, w->in + w->in_n, n);
        w->in_n += r;
        total += r;
        if (w->ssl == NULL && r < n)
            return;
    } while (r > 0 && (total < READ_TURN || (w->ssl != NULL && SSL_has_pending(w->ssl))));
}

void wire_taken(struct wire *w, size_t n)
{
    w->in_n -= n;
    if (w->in_n > 0)
        memmove(w->in, w->in + n, w->in_n);
}

void wire_flush(struct wire *w)
{
    while (!w->dead && !w->connecting && !w->handshaking && w->off < w->out.len) {
        size_t n = w->out.len - w->off;
        if (w->ssl != NULL) {
            int r = SSL_write(w->ssl, w->out.p + w->off, (int)n);
            if (r <= 0) {
                (void)tls_later(w, r, "write");
                return;
            }
            w->off += (size_t)r;
            continue;
        }
        ssize_t r = send(w->fd, w->out.p + w->off, n, MSG_NOSIGNAL);
        if (r < 0 && errno == EAGAIN) {
            set_blocked(w, true);
            return;
        }
        if (r < 0) {
            died_errno(w, "write");
            return;
        }
        w->off += (size_t)r;
    }
    if (w->off == w->out.len) {
        buf_clear(&w->out);
        w->off = 0;
        if (!w->connecting && !w->handshaking)
            set_blocked(w, false);
    }
}

void wire_free(struct wire *w)
{
    if (w->ssl != NULL) {
        (void)SSL_shutdown(w->ssl);
        SSL_free(w->ssl);
        ERR_clear_error();
    }
    if (w->fd >= 0)
        (void)close(w->fd);
    free(w->in);
    buf_free(&w->out);
    *w = (struct wire){.fd = -1, .dead = true};
}

SSL_CTX *wire_tls_context(bool server, const char *certificate, const char *key)
{
    SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (c == NULL)
        return NULL;
    (void)SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
    (void)SSL_CTX_set_num_tickets(c, 0);
    (void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    bool ok = SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") == 1;
    if (ok && certificate != NULL)
        ok = SSL_CTX_use_certificate_chain_file(c, certificate) == 1 &&
             SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) == 1;
    if (ok)
        return c;
    SSL_CTX_free(c);
    return NULL;
}

void wire_tickets(SSL_CTX *server, unsigned number)
{
    if (number > 0)
        (void)SSL_CTX_clear_options(server, SSL_OP_NO_TICKET);
    else
        (void)SSL_CTX_set_options(server, SSL_OP_NO_TICKET);
    (void)SSL_CTX_set_num_tickets(server, number);
}

bool wire_resumed(const struct wire *w)
{
    return w->ssl != NULL && SSL_session_reused(w->ssl) == 1;
}

/* ---- a reader for well-behaved XML ----------------------------------------------------------- */

/* The tag that begins at or after `at`: its first and last byte. */
static bool next_tag(const char *p, size_t n, size_t at, size_t *lt, size_t *gt)
{
    const char *a = at < n ? memchr(p + at, '<', n - at) : NULL;
    const char *b = a != NULL ? memchr(a, '>', n - (size_t)(a - p)) : NULL;
    if (b == NULL)
        return false;
    *lt = (size_t)(a - p);
    *gt = (size_t)(b - p);
    return true;
}

size_t wire_element(const char *p, size_t n, size_t *start)
{
    size_t at = 0, lt, gt;
    int depth = 0;
    bool begun = false;
    while (next_tag(p, n, at, &lt, &gt)) {
        at = gt + 1;
        if (p[lt + 1] == '?')
            continue;
        if (!begun)
            *start = lt;
        begun = true;
        if (p[lt + 1] == '/')
            depth--;
        else if (p[gt - 1] != '/')
            depth++;
        if (depth <= 0)
            return at;
    }
    return 0;
}

size_t wire_header(const char *p, size_t n, size_t *start)
{
    size_t at = 0, gt;
    while (next_tag(p, n, at, start, &gt)) {
        if (p[*start + 1] != '?')
            return gt + 1;
        at = gt + 1;
    }
    return 0;
}

static size_t first_tag_end(struct str e)
{
    const char *gt = memchr(e.p, '>', e.n);
    return gt != NULL ? (size_t)(gt - e.p) : e.n;
}

struct str wire_attribute(struct str element, const char *name)
{
    size_t end = first_tag_end(element), n = strlen(name);
    const char *p = element.p, *stop = element.p + end;
    while ((p = memchr(p, '=', (size_t)(stop - p))) != NULL && p + 1 < stop) {
        const char *value = p + 2, *quote = memchr(value, p[1], (size_t)(stop - value));
        if (quote == NULL)
            break;
        if ((size_t)(p - element.p) > n && p[-1 - (ptrdiff_t)n] == ' ' &&
            memcmp(p - n, name, n) == 0)
            return (struct str){value, (size_t)(quote - value)};
        p = quote + 1;
    }
    return STR_NONE;
}

struct str wire_text(struct str element)
{
    size_t from = first_tag_end(element) + 1;
    if (from >= element.n)
        return (struct str){"", 0};
    const char *lt = memchr(element.p + from, '<', element.n - from);
    size_t to = lt != NULL ? (size_t)(lt - element.p) : element.n;
    return str_trim((struct str){element.p + from, to - from});
}
