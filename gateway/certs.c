#include "gateway/certs.h"

#include <stdio.h>
#include <sys/stat.h>

#include "core/base/datetime.h"
#include "core/base/mem.h"

enum { WHY_MAX = 4096, SETTLED_S = 2, SUBJECT_MAX = ALARM_SUBJECT_MAX };

/* What tells one state of a file from the next. */
struct mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec written, changed;
};

enum news {
    NEWS_NONE,
    NEWS_FIRST,    /* it was not in use before */
    NEWS_REPLACED, /* another took its place */
    NEWS_KEPT,     /* another was refused; `why` */
    NEWS_STILL,    /* the same again */
    NEWS_SAME,     /* what lies on disk is what is in use, which it was not before */
};

/* A certificate and its key. */
struct cert {
    char *file, *key;      /* NULL: we made it */
    struct mark mark[2];   /* of these, when they were read last */
    struct tls_own *own;   /* in use; NULL (as client only): the one as server is */
    struct tls_own *fresh; /* may take its place */
    int64_t since;         /* seconds since 1970 */
    enum tls_expiry told;
    enum news news;
    char *why; /* what lies on disk was refused; NULL: it is in use */
};

struct identity {
    char *domain;
    struct cert role[2]; /* as client, as server */
};

struct certs {
    struct tls_ctx *tls;
    char *link;
    bool unsettled;
    size_t n;
    struct identity v[];
};

/* ---- files ----------------------------------------------------------------------------------- */

static struct mark mark_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return (struct mark){0};
    return (struct mark){st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool mark_equal(const struct mark *a, const struct mark *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           time_equal(&a->written, &b->written) && time_equal(&a->changed, &b->changed);
}

/* Whoever writes it, or puts it there, may not be done: the rest of a chain, the other file. */
static bool just_written(const struct mark *m, int64_t now)
{
    return now >= m->changed.tv_sec && now - m->changed.tv_sec < SETTLED_S;
}

/* So that the next look reads. */
static void forget_marks(struct cert *c)
{
    memset(c->mark, 0xff, sizeof c->mark);
}

static void take_marks(struct cert *c)
{
    c->mark[0] = mark_of(c->file);
    c->mark[1] = mark_of(c->key);
}

/* ---- one certificate ------------------------------------------------------------------------- */

static struct tls_identity identity_of(const char *domain, const struct cert *c, bool server)
{
    struct tls_identity id = {.domain = domain, .certificate = c->file, .key = c->key};
    if (!server)
        id = (struct tls_identity){
            .domain = domain, .client_certificate = c->file, .client_key = c->key};
    return id;
}

/* The line that is no warning: what is wrong with a certificate is told when it is judged. */
static struct str first_error(const struct buf *why)
{
    struct str rest = buf_view(why);
    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        if (!str_starts(rest, "warning: "))
            return (struct str){rest.p, n};
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
    }
    return STR("out of memory");
}

/* Without memory it is not known; the next look tries again. */
static void refuse(struct cert *c, struct str why)
{
    c->news = NEWS_STILL;
    if (c->why != NULL && str_is(why, c->why))
        return;
    mem_free(c->why);
    c->why = mem_strndup(why);
    c->news = NEWS_KEPT;
    if (c->why == NULL)
        forget_marks(c);
}

static bool is_same(const struct tls_own *a, const struct tls_own *b)
{
    return memcmp(tls_own_shows(a)->certificate_sha256, tls_own_shows(b)->certificate_sha256,
                  KEY_HASH_SHA256) == 0;
}

static void accept_fresh(struct cert *c, struct tls_own *own)
{
    c->fresh = own;
    if (!is_same(c->own, own))
        c->news = NEWS_REPLACED;
    else if (c->why != NULL)
        c->news = NEWS_SAME;
}

static bool may_replace(const struct cert *c, const struct tls_own *own, int64_t now,
                        struct buf *why)
{
    const struct tls_peer *fresh = tls_own_shows(own);
    buf_clear(why);
    buf_printf(why, "%s: ", c->file);
    return is_same(c->own, own) || tls_own_may_replace(tls_own_shows(c->own), fresh,
                                                       now != 0 ? now : fresh->not_before + 1, why);
}

/* Reads the files and judges what they hold. */
static void read_again(struct cert *c, const char *domain, bool server, int64_t now)
{
    struct buf why = BUF_INIT(WHY_MAX);
    const struct tls_identity id = identity_of(domain, c, server);
    take_marks(c);
    struct tls_own *own = tls_own_load(&id, server, &why);
    if (own != NULL && may_replace(c, own, now, &why)) {
        accept_fresh(c, own);
    } else {
        refuse(c, first_error(&why));
        tls_own_unref(own);
    }
    buf_free(&why);
}

/* Nobody knows the one that we make: it can go long before its end. */
static void make_again(struct cert *c, const char *domain, bool server, int64_t now)
{
    if (now == 0 || tls_own_expiry(tls_own_shows(c->own)->not_after, now) == TLS_EXPIRY_FAR)
        return;
    struct buf why = BUF_INIT(WHY_MAX);
    const struct tls_identity id = identity_of(domain, c, server);
    c->fresh = tls_own_load(&id, server, &why);
    if (c->fresh != NULL)
        c->news = NEWS_REPLACED;
    buf_free(&why);
}

/* False: it was written just now. */
static bool look_at(struct cert *c, const char *domain, bool server, int64_t now)
{
    const struct mark m[2] = {mark_of(c->file), mark_of(c->key)};
    const bool same = mark_equal(&m[0], &c->mark[0]) && mark_equal(&m[1], &c->mark[1]);
    if (same && c->why == NULL)
        return true;
    if (!same && (just_written(&m[0], now) || just_written(&m[1], now)))
        return false;
    read_again(c, domain, server, now);
    return true;
}

/* `fresh` is in use from now on. */
static void take_fresh(struct cert *c, int64_t now)
{
    if (c->fresh == NULL)
        return;
    if (c->news == NEWS_REPLACED)
        c->since = now;
    tls_own_unref(c->own);
    c->own = c->fresh;
    c->fresh = NULL;
    mem_free(c->why);
    c->why = NULL;
}

/* It could not be used: as if nobody had looked. */
static void drop_fresh(struct cert *c)
{
    if (c->fresh == NULL)
        return;
    tls_own_unref(c->fresh);
    c->fresh = NULL;
    c->news = NEWS_NONE;
    forget_marks(c);
}

static void cert_free(struct cert *c)
{
    tls_own_unref(c->own);
    tls_own_unref(c->fresh);
    mem_free(c->file);
    mem_free(c->key);
    mem_free(c->why);
}

/* ---- making ---------------------------------------------------------------------------------- */

static bool copy(char **to, const char *from)
{
    *to = from != NULL ? mem_strdup(from) : NULL;
    return from == NULL || *to != NULL;
}

static bool equal(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Of the same files, or made by us as before: it goes on, unless something better is there. */
static bool go_on(struct cert *c, const char *domain, bool server, const struct cert *old,
                  int64_t now)
{
    c->own = tls_own_ref(old->own);
    c->since = old->since;
    c->told = old->told;
    if (!copy(&c->why, old->why))
        return false;
    if (c->file != NULL)
        read_again(c, domain, server, now);
    else
        make_again(c, domain, server, now);
    take_fresh(c, now);
    return true;
}

static bool begin(struct cert *c, const char *domain, bool server, int64_t now, struct buf *why)
{
    const struct tls_identity id = identity_of(domain, c, server);
    if (c->file != NULL)
        take_marks(c);
    c->own = tls_own_load(&id, server, why);
    c->since = now;
    c->news = NEWS_FIRST;
    return c->own != NULL;
}

static bool cert_init(struct cert *c, const struct tls_identity *id, bool server,
                      const struct cert *old, int64_t now, struct buf *why)
{
    const char *file = server ? id->certificate : id->client_certificate;
    const char *key = server ? id->key : id->client_key;
    if (!server && file == NULL)
        return true; /* as client it is what it is as server */
    bool ok = copy(&c->file, file) && copy(&c->key, key != NULL ? key : file);
    if (ok && old != NULL && old->own != NULL && equal(old->file, c->file) &&
        equal(old->key, c->key))
        ok = go_on(c, id->domain, server, old, now);
    else if (ok)
        return begin(c, id->domain, server, now, why);
    if (!ok)
        buf_printf(why, "%s: out of memory\n", id->domain);
    return ok;
}

/* Most often it stands where it stood: `*at`, which goes on behind what was found. */
static const struct identity *find(const struct certs *c, const char *domain, size_t *at)
{
    for (size_t i = 0; c != NULL && i < c->n; i++) {
        size_t k = (*at + i) % c->n;
        if (strcmp(c->v[k].domain, domain) == 0) {
            *at = k + 1;
            return &c->v[k];
        }
    }
    return NULL;
}

static bool identity_init(struct identity *d, const struct tls_identity *id,
                          const struct identity *old, int64_t now, struct buf *why)
{
    bool ok = copy(&d->domain, id->domain);
    if (!ok)
        buf_printf(why, "%s: out of memory\n", id->domain);
    /* Go on after a bad file: the operator sees all problems at once. */
    for (int server = 1; d->domain != NULL && server >= 0; server--)
        ok = cert_init(&d->role[server], id, server, old != NULL ? &old->role[server] : NULL, now,
                       why) &&
             ok;
    return ok;
}

/* What the context is to show; the caller frees it with mem_free. */
static struct tls_identity *shown(const struct certs *c, const struct tls_settings *s)
{
    struct tls_identity *ids = mem_zalloc(c->n * sizeof *ids);
    for (size_t i = 0; ids != NULL && i < c->n; i++) {
        const struct cert *server = &c->v[i].role[1], *client = &c->v[i].role[0];
        if (s != NULL)
            ids[i] = s->identities[i];
        ids[i].domain = c->v[i].domain;
        ids[i].own = server->fresh != NULL ? server->fresh : server->own;
        ids[i].client_own = client->fresh != NULL ? client->fresh : client->own;
    }
    return ids;
}

static bool make_context(struct certs *c, const struct tls_settings *s, struct buf *why)
{
    struct tls_settings with = *s;
    struct tls_identity *ids = shown(c, s);
    if (ids == NULL)
        buf_puts(why, "TLS: out of memory\n");
    with.identities = ids;
    c->tls = ids != NULL ? tls_ctx_new(&with, why) : NULL;
    mem_free(ids);
    return c->tls != NULL;
}

struct certs *certs_new(const struct tls_settings *s, const char *link,
                        const struct certs_before *old, struct buf *why)
{
    struct certs *c = mem_zalloc(sizeof *c + s->nidentities * sizeof c->v[0]);
    bool ok = c != NULL && copy(&c->link, link);
    size_t at = 0;
    if (!ok)
        buf_puts(why, "TLS: out of memory\n");
    for (size_t i = 0; c != NULL && i < s->nidentities; i++) {
        const struct identity *before = find(old->in_use, s->identities[i].domain, &at);
        c->n = i + 1;
        ok = identity_init(&c->v[i], &s->identities[i], before, old->now, why) && ok;
    }
    if (ok && make_context(c, s, why))
        return c;
    certs_free(c);
    return NULL;
}

void certs_free(struct certs *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n; i++) {
        mem_free(c->v[i].domain);
        cert_free(&c->v[i].role[0]);
        cert_free(&c->v[i].role[1]);
    }
    tls_ctx_unref(c->tls);
    mem_free(c->link);
    mem_free(c);
}

/* ---- telling --------------------------------------------------------------------------------- */

/* One certificate, for people. */
struct telling {
    const struct certs_env *env;
    const struct certs *certs;
    const char *domain, *role;
    char subject[SUBJECT_MAX];
};

static struct telling telling_of(const struct certs *c, const struct identity *d, bool server,
                                 const struct certs_env *env)
{
    const bool both = d->role[0].own == NULL;
    struct telling t = {env, c, d->domain, both ? "both" : server ? "server" : "client", ""};
    const char *tail = server ? "" : "/client";
    if (c->link == NULL)
        (void)snprintf(t.subject, sizeof t.subject, "%s%s", d->domain, tail);
    else if (d == &c->v[0]) /* its own name there */
        (void)snprintf(t.subject, sizeof t.subject, "link:%s%s", c->link, tail);
    else
        (void)snprintf(t.subject, sizeof t.subject, "link:%s/%s%s", c->link, d->domain, tail);
    return t;
}

static void put_hash(const struct cert *c, char out[KEY_HASH_TEXT_MAX])
{
    key_hash_text(out, tls_own_shows(c->own)->certificate_sha256, KEY_HASH_SHA256);
}

static void tell_replaced(const struct telling *t, const struct cert *c)
{
    const struct tls_peer *p = tls_own_shows(c->own);
    char until[DATETIME_TEXT], hash[KEY_HASH_TEXT_MAX];
    put_hash(c, hash);
    log_ev(t->env->log, LOG_NOTICE, "tls.certificate.replaced", KV_C("domain", t->domain),
           KV_C("role", t->role), KV_C("link", t->certs->link), KV_C("file", c->file),
           KV_C("subject", p->subject), KV_C("issuer", p->issuer),
           KV_C("until", datetime_text(p->not_after * 1000, until)), KV_C("sha256", hash));
}

static void tell_made(const struct telling *t)
{
    if (t->certs->link == NULL)
        log_ev(t->env->log, LOG_NOTICE, "tls.certificate.made", KV_C("domain", t->domain),
               KV_C("msg", "no certificate configured: a self-signed one was made"));
}

/* Links may well have certificates of other names: there a key is known, or an issuer. */
static void tell_names(const struct telling *t, const struct cert *c)
{
    const struct tls_peer *p = tls_own_shows(c->own);
    if (t->certs->link != NULL || tls_peer_covers(p, str_c(t->domain)))
        return;
    struct buf msg = BUF_INIT(WHY_MAX);
    buf_printf(&msg, "not issued for %s but for ", t->domain);
    tls_peer_issued_for(p, &msg);
    log_ev(t->env->log, LOG_WARN, "tls.certificate.names", KV_C("domain", t->domain),
           KV_C("role", t->role), KV_C("file", c->file), KV_S("msg", buf_view(&msg)));
    buf_free(&msg);
}

static void tell_kept(const struct telling *t, const struct cert *c, bool still)
{
    char text[ALARM_TEXT_MAX];
    const char *why = c->why != NULL ? c->why : "out of memory";
    if (!still)
        log_ev(t->env->log, LOG_WARN, "tls.certificate.kept", KV_C("domain", t->domain),
               KV_C("role", t->role), KV_C("link", t->certs->link), KV_C("file", c->file),
               KV_C("msg", why));
    (void)snprintf(text, sizeof text, "%.150s; the one that was read before is in use", why);
    alarm_raise(t->env->alarms, "tls.not-replaced", t->subject, text, t->env->now_ms);
}

static void tell_news(const struct telling *t, struct cert *c)
{
    const enum news news = c->news;
    c->news = NEWS_NONE;
    if (news == NEWS_NONE)
        return;
    if (news == NEWS_KEPT || news == NEWS_STILL) {
        tell_kept(t, c, news == NEWS_STILL);
        return;
    }
    alarm_clear(t->env->alarms, "tls.not-replaced", t->subject, t->env->now_ms);
    if (news == NEWS_SAME)
        return;
    alarm_clear(t->env->alarms, "tls.expires", t->subject, t->env->now_ms);
    c->told = TLS_EXPIRY_FAR;
    if (c->file == NULL)
        tell_made(t);
    else if (news == NEWS_REPLACED)
        tell_replaced(t, c);
    tell_names(t, c);
}

static void tell_end(const struct telling *t, struct cert *c)
{
    const int64_t end = tls_own_shows(c->own)->not_after;
    enum tls_expiry e = t->env->now != 0 ? tls_own_expiry(end, t->env->now) : c->told;
    if (e <= c->told) /* or the clock was set back */
        return;
    char until[DATETIME_TEXT], text[ALARM_TEXT_MAX];
    const char *date = datetime_text(end * 1000, until),
               *file = c->file != NULL ? c->file : t->domain;
    if (e == TLS_EXPIRY_OVER)
        (void)snprintf(text, sizeof text, "expired on %s: %s", *date ? date : "?", file);
    else
        (void)snprintf(text, sizeof text, "expires on %s, in %s: %s", *date ? date : "?",
                       tls_expiry_name(e), file);
    c->told = e;
    log_ev(t->env->log, LOG_WARN, "tls.certificate.expires", KV_C("domain", t->domain),
           KV_C("role", t->role), KV_C("link", t->certs->link), KV_C("file", c->file),
           KV_C("until", date), KV_C("left", tls_expiry_name(e)));
    alarm_raise(t->env->alarms, "tls.expires", t->subject, text, t->env->now_ms);
}

static void tell_all(struct certs *c, const struct certs_env *env)
{
    for (size_t i = 0; i < c->n; i++)
        for (int server = 1; server >= 0; server--) {
            struct cert *one = &c->v[i].role[server];
            if (one->own == NULL)
                continue;
            const struct telling t = telling_of(c, &c->v[i], server, env);
            tell_news(&t, one);
            tell_end(&t, one);
        }
}

static void clear_one(const struct certs *c, const struct identity *d, bool server,
                      const struct certs_env *env)
{
    const struct telling t = telling_of(c, d, server, env);
    if (d->role[server].own != NULL)
        alarm_clear_all(env->alarms, "tls.", t.subject, env->now_ms);
}

void certs_begin(struct certs *c, const struct certs *old, const struct certs_env *env)
{
    size_t at = 0;
    for (size_t i = 0; old != NULL && i < old->n; i++) {
        const struct identity *d = find(c, old->v[i].domain, &at);
        for (int server = 1; server >= 0; server--)
            if (d == NULL || d->role[server].own == NULL)
                clear_one(old, &old->v[i], server, env);
    }
    tell_all(c, env);
}

void certs_end(const struct certs *c, const struct certs_env *env)
{
    for (size_t i = 0; c != NULL && i < c->n; i++) {
        clear_one(c, &c->v[i], true, env);
        clear_one(c, &c->v[i], false, env);
    }
}

/* ---- as time passes -------------------------------------------------------------------------- */

/* True: some may be replaced. */
static bool look_at_all(struct certs *c, bool files, int64_t now)
{
    bool any = false;
    c->unsettled = false;
    for (size_t i = 0; i < c->n; i++)
        for (int server = 1; server >= 0; server--) {
            struct cert *one = &c->v[i].role[server];
            if (one->own == NULL)
                continue;
            if (one->file == NULL)
                make_again(one, c->v[i].domain, server, now);
            else if (files && !look_at(one, c->v[i].domain, server, now))
                c->unsettled = true;
            any = any || one->fresh != NULL;
        }
    return any;
}

static void use_fresh(struct certs *c, const struct certs_env *env)
{
    struct buf why = BUF_INIT(WHY_MAX);
    struct tls_identity *ids = shown(c, NULL);
    struct tls_ctx *tls = ids != NULL ? tls_ctx_renew(c->tls, ids, &why) : NULL;
    for (size_t i = 0; i < c->n; i++)
        for (int r = 0; r < 2; r++)
            if (tls != NULL)
                take_fresh(&c->v[i].role[r], env->now);
            else
                drop_fresh(&c->v[i].role[r]);
    if (tls != NULL) {
        tls_ctx_unref(c->tls);
        c->tls = tls;
    } else {
        log_ev(env->log, LOG_WARN, "tls.warning", KV_S("msg", str_trim(buf_view(&why))));
    }
    mem_free(ids);
    buf_free(&why);
}

void certs_look(struct certs *c, bool files, const struct certs_env *env)
{
    if (look_at_all(c, files, env->now))
        use_fresh(c, env);
    tell_all(c, env);
}

bool certs_unsettled(const struct certs *c)
{
    return c->unsettled;
}

struct tls_ctx *certs_tls(const struct certs *c)
{
    return c->tls;
}

/* ---- state into the log ---------------------------------------------------------------------- */

static void put_one(const struct telling *t, const struct cert *c, const struct kv_sink *to)
{
    const struct tls_peer *p = tls_own_shows(c->own);
    char until[DATETIME_TEXT], since[DATETIME_TEXT], hash[KEY_HASH_TEXT_MAX];
    put_hash(c, hash);
    const struct kv kv[] = {
        KV_C("domain", t->domain),
        KV_C("role", t->role),
        KV_C("link", t->certs->link),
        KV_C("subject", p->subject),
        KV_C("issuer", p->issuer),
        KV_C("until", datetime_text(p->not_after * 1000, until)),
        KV_C("since", c->since != 0 ? datetime_text(c->since * 1000, since) : NULL),
        KV_C("source", c->file != NULL ? "config" : "self-made"),
        KV_C("file", c->file),
        KV_C("sha256", hash),
        KV_C("kept", c->why),
    };
    to->put(to->arg, "state.certificate", kv, sizeof kv / sizeof kv[0]);
}

void certs_state(const struct certs *c, const struct kv_sink *to)
{
    for (size_t i = 0; c != NULL && i < c->n; i++)
        for (int server = 1; server >= 0; server--) {
            const struct telling t = telling_of(c, &c->v[i], server, NULL);
            if (c->v[i].role[server].own != NULL)
                put_one(&t, &c->v[i].role[server], to);
        }
}
