/* What the streams of a link run on: its settings, certificates and the lists of whom to believe,
 * made from one snapshot. */
#include "gateway/worker.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/base/mem.h"

enum { IDENTITIES_MAX = 10000 };

/* ---- TLS ------------------------------------------------------------------------------------- */

static struct tls_identity own_identity(const struct cfg_link *c)
{
    const char *name = c->component != NULL ? c->component : c->name;
    return (struct tls_identity){.domain = name, .certificate = c->certificate, .key = c->key};
}

static struct certs *make_certs(const struct link_kit *k, const struct tls_identity *ids, size_t n,
                                const struct certs_before *old, struct buf *why)
{
    const struct cfg_link *c = k->c;
    struct tls_settings s = {.identities = ids,
                             .nidentities = n,
                             .ca_file = c->ca_file,
                             .minimum = k->cfg->tls.minimum,
                             .no_system_store = true};
    return certs_new(&s, c->name, old, why);
}

/* The streams of an s2s link have what their front has. */
static bool needs_tls(const struct cfg_link *c)
{
    return c->protocol == PROTOCOL_JABBERD2 ||
           (c->protocol == PROTOCOL_COMPONENT && c->auth != LINK_AUTH_PASSWORD);
}

/* ---- a folder of certificates for remote domains --------------------------------------------- */

struct folder {
    struct tls_identity *v;
    size_t n, cap;
    char **texts; /* the names and paths that `v` points to */
    size_t ntexts;
};

static void folder_free(struct folder *f)
{
    for (size_t i = 0; i < f->ntexts; i++)
        mem_free(f->texts[i]);
    mem_free(f->texts);
    mem_free(f->v);
}

static bool folder_grow(struct folder *f)
{
    if (f->n < f->cap)
        return true;
    size_t cap = f->cap ? 2 * f->cap : 16;
    struct tls_identity *v = mem_realloc(f->v, cap * sizeof *v);
    f->v = v != NULL ? v : f->v;
    char **texts = v != NULL ? mem_realloc(f->texts, 2 * cap * sizeof *texts) : NULL;
    f->texts = texts != NULL ? texts : f->texts;
    if (texts == NULL)
        return false;
    f->cap = cap;
    return true;
}

/* "beta.lab.pem" -> "beta.lab"; false: it is none of ours. */
static bool domain_of_file(const char *file, char domain[DOMAIN_MAX + 1])
{
    struct str s = str_c(file);
    if (s.n <= 4 || strcmp(file + s.n - 4, ".pem") != 0)
        return false;
    return domain_ascii((struct str){s.p, s.n - 4}, domain);
}

static bool folder_add(struct folder *f, const char *dir, const char *file, struct buf *why)
{
    char domain[DOMAIN_MAX + 1], path[4096];
    if (file[0] == '.' || !domain_of_file(file, domain))
        return true;
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path ||
        f->n >= IDENTITIES_MAX) {
        buf_printf(why, "%s/%s: too many certificates, or too long a name\n", dir, file);
        return false;
    }
    if (!folder_grow(f))
        return false;
    char *name = mem_strdup(domain), *where = mem_strdup(path);
    f->texts[f->ntexts++] = name;
    f->texts[f->ntexts++] = where;
    f->v[f->n++] = (struct tls_identity){.domain = name, .certificate = where};
    return name != NULL && where != NULL;
}

static bool folder_read(struct folder *f, const char *path, struct buf *why)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        buf_printf(why, "%s: certificates_dir cannot be read\n", path);
        return false;
    }
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d)) != NULL;)
        ok = folder_add(f, path, e->d_name, why);
    closedir(d);
    return ok;
}

struct certs *link_kit_front(const struct link_kit *k, const struct certs_before *old,
                             struct buf *why)
{
    struct folder f = {NULL};
    struct certs *certs = NULL;
    bool ok = folder_grow(&f);
    if (ok)
        f.v[f.n++] = own_identity(k->c); /* the default comes first */
    if (k->c->certificates_dir != NULL)
        ok = ok && folder_read(&f, k->c->certificates_dir, why);
    if (ok)
        certs = make_certs(k, f.v, f.n, old, why);
    folder_free(&f);
    return certs;
}

/* ---- trust ----------------------------------------------------------------------------------- */

static bool make_authlist(struct link_kit *k)
{
    const struct cfg_link *c = k->c;
    k->authlist = mem_zalloc((c->nauthlist + 1) * sizeof *k->authlist);
    if (k->authlist == NULL)
        return false;
    for (size_t i = 0; i < c->nauthlist; i++) {
        const char *why;
        if (key_hash_parse(str_c(c->authlist[i]), &k->authlist[k->trust.nauthlist], &why))
            k->trust.nauthlist++; /* the configuration was checked */
    }
    k->trust.authlist = k->authlist;
    return true;
}

static bool make_trust(struct link_kit *k, struct buf *why)
{
    const struct cfg_link *c = k->c;
    k->trust.auth = (enum link_auth)c->auth;
    k->trust.peer_name = str_c(c->peer_name);
    if (c->store_file != NULL) {
        k->store = tls_fingerprints(c->store_file, &k->trust.nstore, why);
        k->trust.store = k->store;
        if (k->store == NULL)
            return false;
    }
    return make_authlist(k);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct link_kit *link_kit_new(struct gateway_config *cfg, size_t index,
                              const struct certs_before *old, struct buf *why)
{
    struct link_kit *k = mem_zalloc(sizeof *k);
    if (k == NULL) {
        buf_puts(why, "out of memory\n");
        return NULL;
    }
    k->refs = 1;
    k->cfg = gateway_config_ref(cfg);
    k->c = &cfg->links[index];
    struct tls_identity own = own_identity(k->c);
    bool ok = make_trust(k, why);
    if (needs_tls(k->c))
        k->certs = make_certs(k, &own, 1, old, why);
    if (ok && (k->certs != NULL || !needs_tls(k->c)))
        return k;
    link_kit_unref(k);
    return NULL;
}

struct link_kit *link_kit_ref(struct link_kit *k)
{
    k->refs++;
    return k;
}

void link_kit_unref(struct link_kit *k)
{
    if (k == NULL || --k->refs > 0)
        return;
    certs_free(k->certs);
    mem_free(k->store);
    mem_free(k->authlist);
    gateway_config_unref(k->cfg);
    mem_free(k);
}
