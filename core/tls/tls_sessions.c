/* RFC 8446 2.2, 4.6.1, C.4; RFC 9325 3.4. */
#include "core/tls/tls_sessions_priv.h"

#include <openssl/err.h>
#include <time.h>

#include "core/base/list.h"
#include "core/base/mem.h"
#include "core/base/table.h"

struct pair {
    struct list_node used; /* in tls_sessions.pairs, least recently used first */
    UT_hash_handle hh;
    SSL_SESSION *v[TLS_SESSIONS_PER_PAIR]; /* oldest first, no gaps; at least one */
    unsigned n;
    size_t key_n;
    char key[];
};

struct tls_sessions {
    struct pair *by_key;
    struct list pairs;
    size_t max, sessions;
};

struct tls_sessions *tls_sessions_new(size_t pairs)
{
    struct tls_sessions *c = mem_zalloc(sizeof *c);
    if (c != NULL)
        c->max = pairs;
    return c;
}

static struct pair *find(const struct tls_sessions *c, struct str key)
{
    struct pair *p;
    HASH_FIND(hh, c->by_key, key.p, key.n, p);
    return p;
}

static void drop(struct tls_sessions *c, struct pair *p)
{
    HASH_DELETE(hh, c->by_key, p);
    list_remove(&p->used);
    c->sessions -= p->n;
    while (p->n > 0)
        SSL_SESSION_free(p->v[--p->n]);
    mem_free(p);
}

void tls_sessions_free(struct tls_sessions *c)
{
    if (c == NULL)
        return;
    while (c->pairs.first != NULL)
        drop(c, CONTAINER_OF(c->pairs.first, struct pair, used));
    mem_free(c);
}

static void remove_at(struct tls_sessions *c, struct pair *p, unsigned i)
{
    SSL_SESSION_free(p->v[i]);
    p->n--;
    c->sessions--;
    memmove(&p->v[i], &p->v[i + 1], (p->n - i) * sizeof p->v[0]);
}

static struct pair *add_pair(struct tls_sessions *c, struct str key)
{
    struct pair *p = mem_zalloc(sizeof *p + key.n);
    if (p == NULL)
        return NULL;
    p->key_n = key.n;
    memcpy(p->key, key.p, key.n);
    HASH_ADD_KEYPTR(hh, c->by_key, p->key, p->key_n, p);
    if (p->hh.tbl == NULL) {
        mem_free(p);
        return NULL;
    }
    list_append(&c->pairs, &p->used);
    return p;
}

static struct pair *pair_for(struct tls_sessions *c, struct str key)
{
    struct pair *p = find(c, key);
    if (p == NULL) {
        if (c->pairs.count >= c->max)
            drop(c, CONTAINER_OF(c->pairs.first, struct pair, used));
        return add_pair(c, key);
    }
    list_remove(&p->used);
    list_append(&c->pairs, &p->used);
    return p;
}

static bool single_use(const SSL_SESSION *s)
{
    return SSL_SESSION_get_protocol_version(s) >= TLS1_3_VERSION;
}

static bool worth_keeping(const SSL_SESSION *s)
{
    const unsigned char *ticket;
    size_t n = 0;
    SSL_SESSION_get0_ticket(s, &ticket, &n);
    return SSL_SESSION_is_resumable(s) == 1 && n <= TLS_TICKET_MAX;
}

void tls_sessions_put(struct tls_sessions *c, struct str pair, SSL_SESSION *s)
{
    /* A copy, because OpenSSL spoils the session of a connection that ends without notice. */
    SSL_SESSION *copy = worth_keeping(s) ? SSL_SESSION_dup(s) : NULL;
    struct pair *p = copy != NULL ? pair_for(c, pair) : NULL;
    ERR_clear_error();
    if (p == NULL) {
        SSL_SESSION_free(copy);
        return;
    }
    while (p->n > 0 && (p->n == TLS_SESSIONS_PER_PAIR || !single_use(copy)))
        remove_at(c, p, 0);
    p->v[p->n++] = copy;
    c->sessions++;
}

static bool fresh(const SSL_SESSION *s)
{
    const long age = (long)time(NULL) - SSL_SESSION_get_time(s);
    const unsigned long hint = SSL_SESSION_get_ticket_lifetime_hint(s);
    const long limit =
        SSL_SESSION_has_ticket(s) && hint > 0 ? (long)hint : SSL_SESSION_get_timeout(s);
    return age >= 0 && age < limit && age < TLS_SESSION_AGE;
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *c, struct str pair)
{
    struct pair *p = find(c, pair);
    SSL_SESSION *s = NULL;
    while (p != NULL && p->n > 0 && s == NULL) {
        SSL_SESSION *newest = p->v[p->n - 1];
        s = fresh(newest) ? SSL_SESSION_dup(newest) : NULL;
        if (s == NULL || single_use(s))
            remove_at(c, p, p->n - 1);
    }
    if (p != NULL && p->n == 0)
        drop(c, p);
    ERR_clear_error();
    return s;
}

void tls_sessions_forget(struct tls_sessions *c, struct str pair)
{
    struct pair *p = find(c, pair);
    if (p != NULL)
        drop(c, p);
}

size_t tls_sessions_count(const struct tls_sessions *c)
{
    return c->sessions;
}
