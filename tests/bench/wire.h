/* A socket of the load tool: non-blocking, in clear or under TLS 1.3, watched by one epoll.
 *
 * The load tool is not what is measured, but it must not be what limits either: whole batches go
 * out in one write, and everything that has come is read before anything is looked at. */
#ifndef TESTS_BENCH_WIRE_H
#define TESTS_BENCH_WIRE_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>

#include "core/base/buf.h"

struct wire {
    int fd; /* -1: none */
    int epoll;
    void *owner; /* what epoll reports */
    SSL *ssl;    /* NULL: in clear */
    bool connecting, handshaking;
    bool blocked; /* the kernel takes no more for now */
    bool dead;
    char *in; /* in[0..in_n) has come and waits */
    size_t in_n, in_cap;
    struct buf out; /* out[off..len) waits to be written */
    size_t off;
    char why[120]; /* why it died */
};

/* "127.0.0.1:5269"; false: not that. */
bool wire_address(const char *text, struct sockaddr_in *out);

/* A listening socket watched for `owner`, or -1 with errno. */
int wire_listen(int epoll, const struct sockaddr_in *at, void *owner);

/* All of these make the wire dead, with a reason, when they fail. */
void wire_connect(struct wire *w, int epoll, void *owner, const struct sockaddr_in *from,
                  const struct sockaddr_in *to);
void wire_accepted(struct wire *w, int epoll, void *owner, int fd);
void wire_start_tls(struct wire *w, SSL_CTX *ctx, bool server, const char *sni);
/* Drives connection and handshake; true when both are done. */
bool wire_ready(struct wire *w);
void wire_read(struct wire *w); /* appends what there is to `in` */
void wire_taken(struct wire *w, size_t n);
void wire_flush(struct wire *w);
static inline bool wire_idle(const struct wire *w)
{
    return w->off == w->out.len;
}
void wire_free(struct wire *w);

/* TLS 1.3, AES-128-GCM, no resumption. The certificate may be NULL for a client; NULL on failure.
 */
SSL_CTX *wire_tls_context(bool server, const char *certificate, const char *key);
/* A server gives so many tickets to each client from now on, and takes them. */
void wire_tickets(SSL_CTX *server, unsigned number);
bool wire_resumed(const struct wire *w);

/* Bytes of the first whole element (or closing tag of the stream) of p[0..n); 0: not all of it has
 * come. What stands before it (white space, a prolog) counts in and *start says where it begins.
 * Not for hostile input: no '>' may stand in an attribute value. */
size_t wire_element(const char *p, size_t n, size_t *start);
/* The same for a stream header, which never closes. */
size_t wire_header(const char *p, size_t n, size_t *start);
/* An attribute of the element's first tag, as written; absent: p is NULL. */
struct str wire_attribute(struct str element, const char *name);
struct str wire_text(struct str element); /* between the first tag and the next */

#endif
