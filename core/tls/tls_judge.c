/* Whom to believe: the stores of a context, and the verdict of one of them on a chain.
 *
 * The handshake itself judges nothing: which store counts is known only when the peer has said who
 * it is, and what an unverified peer may do is policy, which is not made here. Afterwards a chain
 * is led to a store as OpenSSL does it (RFC 5280 6), its first fault becomes a phrase, and three
 * rules are added: each certificate must be good for TLS in one of the two roles, each key must be
 * long enough (RFC 9325 4.5), and who is on a revocation list is out.
 *
 * An authority whose list is missing revokes nothing, and a list that is overdue still counts: it
 * is the operator's file, and a forgotten update must not end all federation. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_facts_priv.h"

enum { SECURITY_LEVEL = 2 /* 112 bits */, RSA_BITS_MIN = 2048, EC_BITS_MIN = 256, CRLS_MAX = 1000 };

struct named_store {
    char *file; /* NULL: the one for everybody */
    X509_STORE *store;
};

struct tls_stores {
    STACK_OF(X509_CRL) * crls; /* NULL: none given */
    size_t n;
    struct named_store v[]; /* the first one is for everybody */
};

/* ---- loading --------------------------------------------------------------------------------- */

static X509_STORE *load_file(const char *ca_file, struct buf *errors)
{
    FILE *f = tls_pem_open(ca_file, errors);
    if (f == NULL)
        return NULL;
    fclose(f);
    X509_STORE *store = X509_STORE_new();
    if (store != NULL && X509_STORE_load_file(store, ca_file) == 1)
        return store;
    X509_STORE_free(store);
    buf_printf(errors, "%s: holds no readable certificate in PEM form\n", ca_file);
    return NULL;
}

static X509_STORE *load_system(bool empty, struct buf *errors)
{
    X509_STORE *store = X509_STORE_new();
    if (store == NULL)
        buf_puts(errors, "trust store: out of memory\n");
    else if (!empty)
        X509_STORE_set_default_paths(store);
    return store;
}

static const struct named_store *find(const struct tls_stores *t, const char *file)
{
    if (file == NULL)
        return &t->v[0];
    for (size_t i = 1; i < t->n; i++)
        if (strcmp(t->v[i].file, file) == 0)
            return &t->v[i];
    return NULL;
}

static bool add_store(struct tls_stores *t, const char *file, struct buf *errors)
{
    if (find(t, file) != NULL)
        return true;
    char *name = mem_strdup(file);
    X509_STORE *store = load_file(file, errors);
    if (name != NULL && store != NULL) {
        t->v[t->n++] = (struct named_store){name, store};
        return true;
    }
    if (name == NULL)
        buf_printf(errors, "%s: out of memory\n", file);
    mem_free(name);
    X509_STORE_free(store);
    return false;
}

static void warn_overdue(const X509_CRL *crl, const char *file, struct buf *errors)
{
    const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
    char dn[TLS_DN_MAX], date[TLS_DATE_MAX];
    if (next == NULL || X509_cmp_current_time(next) > 0)
        return;
    tls_facts_dn(X509_CRL_get_issuer(crl), dn);
    tls_facts_date(next, date);
    buf_printf(errors, "warning: %s: the list of %s should have been replaced by %s\n", file, dn,
               date);
}

/* NULL, or what is wrong. */
static const char *read_crls(FILE *f, STACK_OF(X509_CRL) * all, const char *path,
                             struct buf *errors)
{
    X509_CRL *crl;
    while ((crl = PEM_read_X509_CRL(f, NULL, NULL, NULL)) != NULL) {
        warn_overdue(crl, path, errors);
        if (sk_X509_CRL_num(all) < CRLS_MAX && sk_X509_CRL_push(all, crl) > 0)
            continue;
        X509_CRL_free(crl);
        return "more than 1000 revocation lists";
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return "holds a damaged revocation list";
    return sk_X509_CRL_num(all) > 0 ? NULL : "holds no revocation list in PEM form";
}

static bool add_crls(struct tls_stores *t, const char *path, struct buf *errors)
{
    if (path == NULL)
        return true;
    FILE *f = tls_pem_open(path, errors);
    if (f == NULL)
        return false;
    ERR_clear_error();
    t->crls = sk_X509_CRL_new_null();
    const char *wrong =
        t->crls != NULL ? read_crls(f, t->crls, path, errors) : "out of memory";
    fclose(f);
    if (wrong != NULL)
        buf_printf(errors, "%s: %s\n", path, wrong);
    return wrong == NULL;
}

struct tls_stores *tls_stores_new(const struct tls_settings *s, struct buf *errors)
{
    struct tls_stores *t = mem_zalloc(sizeof *t + (s->nca_files + 1) * sizeof t->v[0]);
    if (t == NULL) {
        buf_puts(errors, "trust store: out of memory\n");
        return NULL;
    }
    t->n = 1;
    t->v[0].store = s->ca_file != NULL ? load_file(s->ca_file, errors)
                                       : load_system(s->no_system_store, errors);
    /* Go on after a bad file: the operator sees all problems at once. */
    bool ok = t->v[0].store != NULL;
    for (size_t i = 0; i < s->nca_files; i++)
        ok = add_store(t, s->ca_files[i], errors) && ok;
    ok = add_crls(t, s->crl_file, errors) && ok;
    ERR_clear_error();
    if (ok)
        return t;
    tls_stores_free(t);
    return NULL;
}

void tls_stores_free(struct tls_stores *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->v[i].file);
        X509_STORE_free(t->v[i].store);
    }
    sk_X509_CRL_pop_free(t->crls, X509_CRL_free);
    mem_free(t);
}

/* ---- judging --------------------------------------------------------------------------------- */

bool tls_weak_key(X509 *x, char why[TLS_WHY_MAX])
{
    EVP_PKEY *key = X509_get0_pubkey(x);
    const int type = key != NULL ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE;
    const bool ec = type == EVP_PKEY_EC;
    if (!ec && type != EVP_PKEY_RSA && type != EVP_PKEY_RSA_PSS && type != EVP_PKEY_DSA)
        return false; /* of one fixed size; what is too small there, OpenSSL refuses */
    const int bits = EVP_PKEY_get_bits(key), least = ec ? EC_BITS_MIN : RSA_BITS_MIN;
    if (bits >= least)
        return false;
    snprintf(why, TLS_WHY_MAX, "%s key of %d bits is too short, %d are needed",
             ec                      ? "EC"
             : type == EVP_PKEY_DSA ? "DSA"
                                     : "RSA",
             bits, least);
    return true;
}

static void revoked(char why[TLS_WHY_MAX], X509_STORE_CTX *xs, X509 *x)
{
    X509_REVOKED *entry = NULL;
    X509_CRL *crl = X509_STORE_CTX_get0_current_crl(xs);
    char date[TLS_DATE_MAX];
    if (crl == NULL || X509_CRL_get0_by_cert(crl, &entry, x) == 0 || entry == NULL) {
        snprintf(why, TLS_WHY_MAX, "revoked");
        return;
    }
    tls_facts_date(X509_REVOKED_get0_revocationDate(entry), date);
    snprintf(why, TLS_WHY_MAX, "revoked on %s", date);
}

static bool only_about_lists(int error)
{
    return error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_CRL_HAS_EXPIRED ||
           error == X509_V_ERR_CRL_NOT_YET_VALID;
}

/* Writes the first fault down and lets OpenSSL go on, since a later one says no more. */
static int on_fault(int ok, X509_STORE_CTX *xs)
{
    char *why = X509_STORE_CTX_get_app_data(xs), text[TLS_WHY_MAX] = "";
    const int error = X509_STORE_CTX_get_error(xs), depth = X509_STORE_CTX_get_error_depth(xs);
    X509 *x = X509_STORE_CTX_get_current_cert(xs);
    if (ok || why[0] != '\0' || only_about_lists(error))
        return 1;
    if (x != NULL && error == X509_V_ERR_CERT_REVOKED)
        revoked(text, xs, x);
    else if (x != NULL &&
             (error == X509_V_ERR_EE_KEY_TOO_SMALL || error == X509_V_ERR_CA_KEY_TOO_SMALL))
        tls_weak_key(x, text);
    if (text[0] != '\0')
        tls_facts_why_text(why, text, depth, x);
    else
        tls_facts_why(why, error, depth, x);
    return 1;
}

/* What OpenSSL has found no fault in. */
static void check_chain(STACK_OF(X509) * chain, char why[TLS_WHY_MAX])
{
    const uint32_t wanted = XKU_SSL_SERVER | XKU_SSL_CLIENT | XKU_ANYEKU;
    char text[TLS_WHY_MAX];
    for (int i = 0; i < sk_X509_num(chain) && why[0] == '\0'; i++) {
        X509 *x = sk_X509_value(chain, i);
        if (tls_weak_key(x, text))
            tls_facts_why_text(why, text, i, x);
        else if ((X509_get_extended_key_usage(x) & wanted) == 0)
            snprintf(why, TLS_WHY_MAX, "not meant for TLS");
    }
}

static bool prepare(X509_STORE_CTX *xs, const struct tls_stores *t, X509_STORE *store, X509 *leaf,
                    STACK_OF(X509) * chain, char *why)
{
    if (X509_STORE_CTX_init(xs, store, leaf, chain) != 1 ||
        X509_STORE_CTX_set_app_data(xs, why) != 1)
        return false;
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(xs);
    X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
    X509_STORE_CTX_set_verify_cb(xs, on_fault);
    if (t->crls != NULL) {
        X509_STORE_CTX_set0_crls(xs, t->crls);
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    /* A certificate for servers is enough for the initiating side too: public CAs issue no others.
     * Other purposes are refused by check_chain. */
    return X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_ANY) == 1 &&
           X509_VERIFY_PARAM_set_trust(param, X509_TRUST_SSL_SERVER) == 1;
}

static void verify(const struct tls_stores *t, X509_STORE *store, X509 *leaf,
                   STACK_OF(X509) * chain, char why[TLS_WHY_MAX])
{
    X509_STORE_CTX *xs = X509_STORE_CTX_new();
    if (xs == NULL || !prepare(xs, t, store, leaf, chain, why))
        snprintf(why, TLS_WHY_MAX, "not checked: %s", tls_queued_reason());
    else if (X509_verify_cert(xs) != 1 && why[0] == '\0')
        tls_facts_why(why, X509_STORE_CTX_get_error(xs), 0, leaf);
    else
        check_chain(X509_STORE_CTX_get0_chain(xs), why);
    X509_STORE_CTX_free(xs);
    ERR_clear_error();
}

void tls_stores_judge(const struct tls_stores *t, const char *ca_file, X509 *leaf,
                      STACK_OF(X509) * chain, struct tls_peer *p)
{
    const struct named_store *s = find(t, ca_file);
    p->why[0] = '\0';
    if (s != NULL)
        verify(t, s->store, leaf, chain, p->why);
    else
        snprintf(p->why, TLS_WHY_MAX, "the authorities of %.150s are not loaded", ca_file);
    p->chain_ok = p->why[0] == '\0' && p->in_time;
    if (!p->in_time)
        tls_facts_why_time(p->why, leaf);
}
