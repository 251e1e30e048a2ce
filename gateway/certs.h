/* Our own certificates in use.
 *
 * A `struct certs` is the certificates of one TLS context: those of the local domains, or those of
 * a link. Their files are looked at from time to time and at each reload. What lies there is used
 * for new streams when it is no worse than what is in use (tls_own_may_replace); streams that run
 * are not touched. What is worse, does not fit its key or cannot be read leaves everything as it
 * was, and raises the alarm tls.not-replaced until that has changed. Another path in the
 * configuration is the operator's word and is not judged. A certificate that we made ourselves is
 * made anew before it ends.
 *
 * Near its end each raises tls.expires: 30, 7 and 1 days before, and when it is over. */
#ifndef GATEWAY_CERTS_H
#define GATEWAY_CERTS_H

#include "core/daemon/alarm.h"
#include "core/tls/tls_own.h"

struct certs;

/* Where to tell what came of it, and the time. */
struct certs_env {
    struct alarms *alarms;
    const struct log_ctx *log;
    uint64_t now_ms; /* as alarms have it */
    int64_t now;     /* seconds since 1970; 0: nobody knows */
};

struct certs_before {
    const struct certs *in_use; /* until now; NULL: none */
    int64_t now;                /* as above */
};

/* The context of these settings. `link`: whose it is, NULL: the domains'; copied. NULL: `why` as in
 * tls_ctx_new. Nothing is told yet. */
struct certs *certs_new(const struct tls_settings *s, const char *link,
                        const struct certs_before *old, struct buf *why);
void certs_free(struct certs *c); /* NULL: nothing */

/* Tells what certs_new has found: it is in use from now on, and `old` (NULL: nothing) no more. */
void certs_begin(struct certs *c, const struct certs *old, const struct certs_env *env);
/* Clears its alarms: it is not in use any more. */
void certs_end(const struct certs *c, const struct certs_env *env);

/* Time has passed. `files`: they are looked at; else only how near the end is. A file that was
 * written just now is left for the next time. */
void certs_look(struct certs *c, bool files, const struct certs_env *env);
/* The last look left one for the next time, which should be soon. */
bool certs_unsettled(const struct certs *c);

/* For new streams; borrowed, as long as nobody looks. */
struct tls_ctx *certs_tls(const struct certs *c);

/* A row of state.certificate for each that is in use. */
void certs_state(const struct certs *c, const struct kv_sink *to);

#endif
