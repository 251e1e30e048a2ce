#include "core/tls/tls_own.h"

#include <openssl/err.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_facts_priv.h"

enum { DAY = 24 * 60 * 60 };

/* ---- the end --------------------------------------------------------------------------------- */

enum tls_expiry tls_own_expiry(int64_t not_after, int64_t now)
{
    static const struct {
        int64_t days;
        enum tls_expiry stage;
    } steps[] = {{0, TLS_EXPIRY_OVER},
                 {1, TLS_EXPIRY_DAYS_1},
                 {7, TLS_EXPIRY_DAYS_7},
                 {30, TLS_EXPIRY_DAYS_30}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (not_after <= now + steps[i].days * DAY)
            return steps[i].stage;
    return TLS_EXPIRY_FAR;
}

const char *tls_expiry_name(enum tls_expiry e)
{
    static const char *const names[] = {
#define X(id, text) text,
        TLS_EXPIRIES(X)
#undef X
    };
    return names[e];
}

/* ---- one in the place of another ------------------------------------------------------------- */

/* A wildcard is covered only by itself: what names it stood for is not known. */
static bool carries(const struct tls_peer *p, const struct tls_name *name)
{
    if (!str_starts(str_c(name->domain), "*."))
        return tls_peer_covers(p, str_c(name->domain));
    for (unsigned i = 0; i < p->nnames; i++)
        if (strcmp(p->names[i].domain, name->domain) == 0)
            return true;
    return false;
}

static void put_date(struct buf *out, int64_t at)
{
    struct tm tm;
    const time_t t = (time_t)at;
    char text[TLS_DATE_MAX] = "";
    if (gmtime_r(&t, &tm) != NULL)
        strftime(text, sizeof text, "%Y-%m-%d", &tm);
    buf_puts(out, text);
}

bool tls_own_may_replace(const struct tls_peer *served, const struct tls_peer *fresh, int64_t now,
                         struct buf *why)
{
    const bool over = fresh->not_after <= now;
    if (over || fresh->not_before > now) {
        buf_puts(why, over ? "expired on " : "not valid before ");
        put_date(why, over ? fresh->not_after : fresh->not_before);
        return false;
    }
    if (fresh->self_signed && !served->self_signed) {
        buf_puts(why, "self-signed, which the one that is served is not");
        return false;
    }
    for (unsigned i = 0; i < served->nnames; i++) {
        if (carries(fresh, &served->names[i]))
            continue;
        buf_printf(why, "not issued for %s, as the one that is served is, but for ",
                   served->names[i].domain);
        tls_peer_issued_for(fresh, why);
        return false;
    }
    return true;
}

/* ---- files ----------------------------------------------------------------------------------- */

struct tls_own {
    size_t refs;
    struct tls_material m;
    struct tls_peer shows;
    struct tls_facts *facts;
};

struct tls_own *tls_own_load(const struct tls_identity *id, bool server, struct buf *errors)
{
    struct tls_own *o = mem_zalloc(sizeof *o);
    if (o == NULL) {
        buf_printf(errors, "%s: out of memory\n", id->domain);
        return NULL;
    }
    o->refs = 1;
    const bool ok = tls_material_load(&o->m, id, !server, errors);
    o->facts = ok ? tls_facts_new(&o->shows, o->m.leaf) : NULL;
    if (o->facts != NULL)
        return o;
    if (ok)
        buf_printf(errors, "%s: %s\n", id->domain, tls_queued_reason());
    tls_own_unref(o);
    return NULL;
}

struct tls_own *tls_own_ref(struct tls_own *o)
{
    o->refs++;
    return o;
}

void tls_own_unref(struct tls_own *o)
{
    if (o == NULL || --o->refs > 0)
        return;
    tls_material_free(&o->m);
    mem_free(o->facts);
    mem_free(o);
}

const struct tls_peer *tls_own_shows(const struct tls_own *o)
{
    return &o->shows;
}

const struct tls_material *tls_own_material(const struct tls_own *o)
{
    return &o->m;
}
