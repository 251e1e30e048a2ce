#include "gateway/proto/dane.h"

#include <stdio.h>

#include "core/base/mem.h"

enum { NAME_SHOWN = 60 };

struct dane_target *dane_target_new(struct str host)
{
    struct dane_target *d = mem_zalloc(sizeof *d);
    if (d != NULL)
        str_copy(d->host, sizeof d->host, host);
    return d;
}

bool dane_target_set(struct dane_target *d, const struct tlsa *records, size_t n)
{
    struct tlsa_set *set = mem_alloc(sizeof *set + n * sizeof set->v[0]);
    if (set == NULL)
        return false;
    set->n = n;
    memcpy(set->v, records, n * sizeof set->v[0]);
    mem_free(d->tlsa);
    d->tlsa = set;
    return true;
}

void dane_target_free(struct dane_target *d)
{
    if (d == NULL)
        return;
    mem_free(d->tlsa);
    mem_free(d);
}

bool dane_demands_tls(const struct dane_target *d)
{
    return d != NULL && d->tlsa != NULL;
}

bool dane_covers(const struct dane_target *d, const struct tls_peer *t, struct str remote)
{
    return tls_peer_covers(t, remote) || (d != NULL && tls_peer_covers(t, str_c(d->host)));
}

static int shown(struct str name)
{
    return (int)(name.n < NAME_SHOWN ? name.n : NAME_SHOWN);
}

static enum dane_verdict wrong_name(const struct dane_target *d, const struct tls_peer *t,
                                    struct str remote, char why[DANE_WHY])
{
    struct str host = str_c(d->host);
    struct buf b = BUF_INIT(DANE_WHY);
    buf_puts(&b, "it fits the TLSA records, but was issued for ");
    tls_peer_issued_for(t, &b);
    buf_printf(&b, ", not for %.*s or %.*s", shown(remote), remote.p, shown(host), host.p);
    str_copy(why, DANE_WHY, buf_view(&b));
    buf_free(&b);
    return DANE_DENIES;
}

static enum dane_verdict mismatch(const struct dane_target *d, const struct tls_peer *t,
                                  char why[DANE_WHY])
{
    struct str host = str_c(d->host);
    snprintf(why, DANE_WHY, "not the certificate that the TLSA records of %.*s name: %s",
             shown(host), host.p, t->has_certificate ? t->dane_why : "none was shown");
    return DANE_DENIES;
}

enum dane_verdict dane_judge(const struct dane_target *d, const struct tls_peer *t,
                             struct str remote, char why[DANE_WHY])
{
    why[0] = '\0';
    if (!dane_demands_tls(d) || t == NULL)
        return DANE_SILENT;
    switch (t->dane) {
    case TLS_DANE_UNUSABLE:
        return DANE_SILENT;
    case TLS_DANE_NONE: /* there was nothing to compare with the records */
    case TLS_DANE_MISMATCH:
        return mismatch(d, t, why);
    case TLS_DANE_KEY:
        return DANE_PROVES;
    case TLS_DANE_AUTHORITY:
    case TLS_DANE_NARROWED:
        return dane_covers(d, t, remote) ? DANE_PROVES : wrong_name(d, t, remote, why);
    }
    return DANE_DENIES;
}
