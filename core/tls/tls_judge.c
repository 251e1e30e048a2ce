/* Whom to believe: the stores of a context, and the verdict of one of them on a chain.
 *
 * The handshake itself judges nothing: which store counts is known only when the peer has said who
 * it is, and what an unverified peer may do is policy, which is not made here. Afterwards a chain
 * is led to a store as OpenSSL does it (RFC 5280 6), its first fault becomes a phrase, and three
 * rules are added: each certificate must be meant for its role, each key must be long enough (RFC
 * 9325 4.5), and who is on a revocation list is out.
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

enum { AUTH_LEVEL = 2 /* 112 bits */, RSA_BITS_MIN = 2048, EC_BITS_MIN = 224, CRLS_MAX = 1000 };

struct tls_store {
    char *file; /* NULL: the one for everybody */
    X509_STORE *store;
};

struct tls_stores {
    size_t refs;
    STACK_OF(X509_CRL) * crls; /* NULL: none given */
    size_t n;
    struct tls_store v[]; /* the first one is for everybody */
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

const struct tls_store *tls_stores_find(const struct tls_stores *t, const char *ca_file)
{
    if (ca_file == NULL)
        return &t->v[0];
    for (size_t i = 1; i < t->n; i++)
        if (strcmp(t->v[i].file, ca_file) == 0)
            return &t->v[i];
    return NULL;
}

X509_STORE *tls_store_x509(const struct tls_store *s)
{
    return s != NULL ? s->store : NULL;
}

X509_STORE *tls_stores_common(const struct tls_stores *t)
{
    return t->v[0].store;
}

static bool add_store(struct tls_stores *t, const char *file, struct buf *errors)
{
    if (tls_stores_find(t, file) != NULL)
        return true;
    char *name = mem_strdup(file);
    X509_STORE *store = load_file(file, errors);
    if (name != NULL && store != NULL) {
        t->v[t->n++] = (struct tls_store){name, store};
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
    const char *wrong = t->crls != NULL ? read_crls(f, t->crls, path, errors) : "out of memory";
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
    t->refs = t->n = 1;
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
    tls_stores_unref(t);
    return NULL;
}

struct tls_stores *tls_stores_ref(struct tls_stores *t)
{
    t->refs++;
    return t;
}

void tls_stores_unref(struct tls_stores *t)
{
    if (t == NULL || --t->refs > 0)
        return;
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->v[i].file);
        X509_STORE_free(t->v[i].store);
    }
    sk_X509_CRL_pop_free(t->crls, X509_CRL_free);
    mem_free(t);
}

/* ---- judging --------------------------------------------------------------------------------- */

/* What one judgement goes by, and its result. */
struct verdict {
    STACK_OF(X509_CRL) * lists;
    bool server; /* the peer is */
    char *why;   /* TLS_WHY_MAX bytes; empty: no fault yet */
};

static const char *kind_of_key(int type)
{
    switch (type) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        return "RSA";
    case EVP_PKEY_DSA:
        return "DSA";
    case EVP_PKEY_EC:
        return "EC";
    default: /* of one fixed size; what is too small there, OpenSSL refuses */
        return NULL;
    }
}

/* Shorter than RFC 9325 4.5 allows: `text` says so. */
static bool weak_key(X509 *x, char text[TLS_WHY_MAX])
{
    EVP_PKEY *key = X509_get0_pubkey(x);
    const int type = key != NULL ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE;
    const char *kind = kind_of_key(type);
    const int least = type == EVP_PKEY_EC ? EC_BITS_MIN : RSA_BITS_MIN;
    const int bits = kind != NULL ? EVP_PKEY_get_bits(key) : least;
    if (bits < least)
        snprintf(text, TLS_WHY_MAX, "weak key: %s of %d bits, at least %d are needed", kind, bits,
                 least);
    return bits < least;
}

/* Looked for here, since OpenSSL no longer names a list that is overdue. */
static void revoked(STACK_OF(X509_CRL) * lists, X509 *x, char text[TLS_WHY_MAX])
{
    X509_REVOKED *entry = NULL;
    char date[TLS_DATE_MAX];
    for (int i = 0; i < sk_X509_CRL_num(lists) && entry == NULL; i++)
        if (X509_CRL_get0_by_cert(sk_X509_CRL_value(lists, i), &entry, x) != 1)
            entry = NULL;
    if (entry == NULL) {
        str_copy(text, TLS_WHY_MAX, STR("revoked"));
        return;
    }
    tls_facts_date(X509_REVOKED_get0_revocationDate(entry), date);
    snprintf(text, TLS_WHY_MAX, "revoked on %s", date);
}

static void weak_signature(X509 *x, char text[TLS_WHY_MAX])
{
    int digest = NID_undef;
    X509_get_signature_info(x, &digest, NULL, NULL, NULL);
    snprintf(text, TLS_WHY_MAX, "weak signature: with %s",
             digest != NID_undef ? OBJ_nid2sn(digest) : "a method that is not known");
}

/* What tls_facts_why has no better words for; empty: nothing. */
static void own_words(const struct verdict *v, int error, X509 *x, char text[TLS_WHY_MAX])
{
    switch (error) {
    case X509_V_ERR_CERT_REVOKED:
        revoked(v->lists, x, text);
        break;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
        weak_key(x, text);
        break;
    case X509_V_ERR_CA_MD_TOO_WEAK:
        weak_signature(x, text);
        break;
    default:
        break;
    }
}

static bool only_about_lists(int error)
{
    return error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_CRL_HAS_EXPIRED ||
           error == X509_V_ERR_CRL_NOT_YET_VALID;
}

/* Writes the first fault down and lets OpenSSL go on, since a later one says no more. */
static int on_fault(int ok, X509_STORE_CTX *xs)
{
    const struct verdict *v = X509_STORE_CTX_get_app_data(xs);
    const int error = X509_STORE_CTX_get_error(xs), depth = X509_STORE_CTX_get_error_depth(xs);
    X509 *x = X509_STORE_CTX_get_current_cert(xs);
    char text[TLS_WHY_MAX] = "";
    if (ok || v->why[0] != '\0' || only_about_lists(error))
        return 1;
    if (x != NULL)
        own_words(v, error, x, text);
    if (text[0] != '\0')
        tls_facts_why_text(v->why, text, depth, x);
    else
        tls_facts_why(v->why, error, depth, x);
    return 1;
}

/* RFC 5280 4.2.1.12, 4.2.1.3: a purpose that is not told is any. To be a server a certificate must
 * be meant for one; a client may show one of either kind, because public CAs issue only those for
 * servers. */
static const char *wrong_purpose(X509 *x, bool leaf, bool server)
{
    const uint32_t use = X509_get_extended_key_usage(x);
    const uint32_t keys = KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT | KU_KEY_AGREEMENT;
    if ((use & (XKU_SSL_SERVER | XKU_SSL_CLIENT | XKU_ANYEKU)) == 0 ||
        (leaf && (X509_get_key_usage(x) & keys) == 0))
        return "not meant for TLS";
    if (server && (use & (XKU_SSL_SERVER | XKU_ANYEKU)) == 0)
        return "not meant for a server";
    return NULL;
}

/* What OpenSSL has found no fault in. */
static void check_chain(STACK_OF(X509) * chain, const struct verdict *v)
{
    char text[TLS_WHY_MAX];
    for (int i = 0; i < sk_X509_num(chain) && v->why[0] == '\0'; i++) {
        X509 *x = sk_X509_value(chain, i);
        const char *purpose = wrong_purpose(x, i == 0, v->server);
        if (purpose != NULL)
            str_copy(text, sizeof text, str_c(purpose));
        if (purpose != NULL || weak_key(x, text))
            tls_facts_why_text(v->why, text, i, x);
    }
}

static bool prepare(X509_STORE_CTX *xs, const struct tls_stores *t, const struct tls_store *by,
                    X509 *leaf, STACK_OF(X509) * chain, struct verdict *v)
{
    if (X509_STORE_CTX_init(xs, by->store, leaf, chain) != 1 ||
        X509_STORE_CTX_set_app_data(xs, v) != 1)
        return false;
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(xs);
    X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
    X509_STORE_CTX_set_verify_cb(xs, on_fault);
    if (t->crls != NULL) {
        X509_STORE_CTX_set0_crls(xs, t->crls);
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    return X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_ANY) == 1 && /* see wrong_purpose */
           X509_VERIFY_PARAM_set_trust(param, X509_TRUST_SSL_SERVER) == 1;
}

static void verify(const struct tls_stores *t, const struct tls_store *by, X509 *leaf,
                   STACK_OF(X509) * chain, struct verdict *v)
{
    ERR_clear_error();
    X509_STORE_CTX *xs = X509_STORE_CTX_new();
    if (xs == NULL || !prepare(xs, t, by, leaf, chain, v))
        snprintf(v->why, TLS_WHY_MAX, "not checked: %s", tls_queued_reason());
    else if (X509_verify_cert(xs) != 1 && v->why[0] == '\0')
        tls_facts_why(v->why, X509_STORE_CTX_get_error(xs), 0, leaf);
    else
        check_chain(X509_STORE_CTX_get0_chain(xs), v);
    X509_STORE_CTX_free(xs);
    ERR_clear_error();
}

void tls_stores_judge(const struct tls_stores *t, const struct tls_store *by, X509 *leaf,
                      STACK_OF(X509) * chain, bool server, struct tls_peer *p)
{
    struct verdict v = {t->crls, server, p->why};
    p->why[0] = '\0';
    if (by != NULL)
        verify(t, by, leaf, chain, &v);
    else
        str_copy(p->why, TLS_WHY_MAX, STR("the authorities for this peer are not loaded"));
    p->chain_ok = p->why[0] == '\0' && p->in_time;
    if (!p->in_time)
        tls_facts_why_time(p->why, leaf);
}
