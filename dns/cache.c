#include "dns/cache.h"

#include "core/base/mem.h"
#include "core/base/table.h"

/* "s" or "a", then the name. */
struct key {
    size_t n;
    char text[DOMAIN_MAX + 2];
};

struct entry {
    struct list_node used; /* in dns_cache.entries, least recently used first */
    uint64_t until;
    struct key key;
    UT_hash_handle hh;
    size_t n;
    char value[];
};

struct asked {
    struct dns_question q;
    uint64_t flushes; /* of the cache, when it was asked */
    struct key key;
    UT_hash_handle hh;
};

struct dns_cache {
    struct entry *by_key;
    struct asked *asked_by_key;
    struct list entries;
    size_t max_entries, max_questions, questions;
    uint64_t flushes;
};

static bool make_key(struct key *k, enum dns_kind kind, struct str name)
{
    if (name.n == 0 || name.n > DOMAIN_MAX)
        return false;
    k->text[0] = (char)('a' + kind);
    memcpy(k->text + 1, name.p, name.n);
    k->n = name.n + 1;
    return true;
}

static struct entry *find_entry(const struct dns_cache *c, const struct key *k)
{
    struct entry *e;
    HASH_FIND(hh, c->by_key, k->text, k->n, e);
    return e;
}

static struct asked *find_asked(const struct dns_cache *c, const struct key *k)
{
    struct asked *a;
    HASH_FIND(hh, c->asked_by_key, k->text, k->n, a);
    return a;
}

static void forget(struct dns_cache *c, struct entry *e)
{
    HASH_DELETE(hh, c->by_key, e);
    list_remove(&e->used);
    mem_free(e);
}

static struct entry *oldest(const struct dns_cache *c)
{
    return CONTAINER_OF(c->entries.first, struct entry, used);
}

struct dns_cache *dns_cache_new(size_t entries, size_t questions)
{
    struct dns_cache *c = mem_zalloc(sizeof *c);
    if (c == NULL)
        return NULL;
    c->max_entries = entries;
    c->max_questions = questions;
    return c;
}

void dns_cache_flush(struct dns_cache *c)
{
    c->flushes++;
    while (c->entries.first != NULL)
        forget(c, oldest(c));
}

void dns_cache_free(struct dns_cache *c)
{
    if (c == NULL)
        return;
    dns_cache_flush(c);
    mem_free(c);
}

static void join(struct dns_question *q, struct dns_waiter *w)
{
    list_append(&q->waiters, &w->node);
    w->question = q;
}

static struct asked *ask(struct dns_cache *c, const struct key *k)
{
    struct asked *a = c->questions < c->max_questions ? mem_zalloc(sizeof *a) : NULL;
    if (a == NULL)
        return NULL;
    a->key = *k;
    a->flushes = c->flushes;
    HASH_ADD_KEYPTR(hh, c->asked_by_key, a->key.text, a->key.n, a);
    if (a->hh.tbl == NULL) {
        mem_free(a);
        return NULL;
    }
    c->questions++;
    return a;
}

static bool lookup(struct dns_cache *c, const struct key *k, uint64_t now, struct str *value)
{
    struct entry *e = find_entry(c, k);
    if (e == NULL)
        return false;
    if (e->until <= now) {
        forget(c, e);
        return false;
    }
    list_remove(&e->used);
    list_append(&c->entries, &e->used);
    *value = (struct str){e->value, e->n};
    return true;
}

enum dns_cache_verdict dns_cache_want(struct dns_cache *c, enum dns_kind kind, struct str name,
                                      uint64_t now, struct dns_waiter *w, struct str *value,
                                      struct dns_question **question)
{
    struct key k;
    if (!make_key(&k, kind, name))
        return DNS_CACHE_FULL;
    if (lookup(c, &k, now, value))
        return DNS_CACHE_HIT;
    struct asked *a = find_asked(c, &k);
    enum dns_cache_verdict verdict = DNS_CACHE_WAIT;
    if (a == NULL) {
        a = ask(c, &k);
        verdict = DNS_CACHE_ASK;
    }
    if (a == NULL || a->q.waiters.count >= DNS_WAITERS_MAX)
        return DNS_CACHE_FULL;
    join(&a->q, w);
    *question = &a->q;
    return verdict;
}

struct str dns_cache_peek(const struct dns_cache *c, enum dns_kind kind, struct str name,
                          uint64_t now)
{
    struct key k;
    struct entry *e = make_key(&k, kind, name) ? find_entry(c, &k) : NULL;
    if (e == NULL || e->until <= now)
        return STR_NONE;
    return (struct str){e->value, e->n};
}

static void keep(struct dns_cache *c, const struct key *k, uint64_t until, struct str value)
{
    struct entry *old = find_entry(c, k);
    if (old != NULL)
        forget(c, old);
    while (c->entries.count > 0 && c->entries.count >= c->max_entries)
        forget(c, oldest(c));
    struct entry *e = c->max_entries ? mem_zalloc(sizeof *e + value.n) : NULL;
    if (e == NULL)
        return;
    e->key = *k;
    e->until = until;
    e->n = value.n;
    if (value.n)
        memcpy(e->value, value.p, value.n);
    HASH_ADD_KEYPTR(hh, c->by_key, e->key.text, e->key.n, e);
    if (e->hh.tbl == NULL) {
        mem_free(e);
        return;
    }
    list_append(&c->entries, &e->used);
}

void dns_cache_answer(struct dns_cache *c, struct dns_question *q, uint64_t now, uint64_t life_ms,
                      struct str value, struct list *waiters)
{
    struct asked *a = CONTAINER_OF(q, struct asked, q);
    if (life_ms > 0 && a->flushes == c->flushes)
        keep(c, &a->key, now + life_ms, value);
    for (struct list_node *n; (n = list_pop(&q->waiters)) != NULL;) {
        CONTAINER_OF(n, struct dns_waiter, node)->question = NULL;
        list_append(waiters, n);
    }
    dns_cache_drop(c, q);
}

struct dns_question *dns_cache_leave(struct dns_waiter *w)
{
    struct dns_question *q = w->question;
    list_remove(&w->node);
    w->question = NULL;
    return q != NULL && q->waiters.count == 0 ? q : NULL;
}

void dns_cache_drop(struct dns_cache *c, struct dns_question *q)
{
    struct asked *a = CONTAINER_OF(q, struct asked, q);
    HASH_DELETE(hh, c->asked_by_key, a);
    c->questions--;
    mem_free(a);
}

size_t dns_cache_entries(const struct dns_cache *c)
{
    return c->entries.count;
}

size_t dns_cache_questions(const struct dns_cache *c)
{
    return c->questions;
}
