/* Certificates and keys from PEM files. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "core/base/digest.h"
#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_facts_priv.h"

enum { CHAIN_MAX = 16 };

const char *tls_queued_reason(void)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return why != NULL ? why : "out of memory";
}

static int no_password(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return -1; /* never ask at the terminal */
}

FILE *tls_pem_open(const char *path, struct buf *errors)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        buf_printf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
    return f;
}

static bool read_chain(struct tls_material *m, const char *path, struct buf *errors)
{
    FILE *f = tls_pem_open(path, errors);
    if (f == NULL)
        return false;
    m->leaf = PEM_read_X509_AUX(f, NULL, no_password, NULL);
    m->chain = sk_X509_new_null();
    bool ok = m->leaf != NULL && m->chain != NULL;
    if (!ok)
        buf_printf(errors, "%s: holds no readable certificate in PEM form\n", path);
    X509 *x;
    while (ok && (x = PEM_read_X509(f, NULL, no_password, NULL)) != NULL) {
        ok = sk_X509_num(m->chain) < CHAIN_MAX && sk_X509_push(m->chain, x) > 0;
        if (!ok) {
            X509_free(x);
            buf_printf(errors, "%s: more than %d certificates\n", path, CHAIN_MAX);
        }
    }
    unsigned long err = ERR_peek_last_error();
    if (ok && ERR_GET_REASON(err) != PEM_R_NO_START_LINE) {
        buf_printf(errors, "%s: a certificate of the chain is damaged\n", path);
        ok = false;
    }
    ERR_clear_error();
    fclose(f);
    return ok;
}

static bool read_key(struct tls_material *m, const char *path, struct buf *errors)
{
    FILE *f = tls_pem_open(path, errors);
    if (f == NULL)
        return false;
    m->key = PEM_read_PrivateKey(f, NULL, no_password, NULL);
    fclose(f);
    if (m->key == NULL)
        buf_printf(errors, "%s: holds no readable private key in PEM form (without password)\n",
                   path);
    ERR_clear_error();
    return m->key != NULL;
}

static void warn_about(const struct tls_material *m, const char *file, struct buf *errors)
{
    char date[TLS_DATE_MAX];
    if (X509_cmp_current_time(X509_get0_notAfter(m->leaf)) < 0) {
        tls_facts_date(X509_get0_notAfter(m->leaf), date);
        buf_printf(errors, "warning: %s: expired on %s\n", file, date);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(m->leaf)) > 0) {
        tls_facts_date(X509_get0_notBefore(m->leaf), date);
        buf_printf(errors, "warning: %s: not valid before %s\n", file, date);
    }
}

void tls_material_free(struct tls_material *m)
{
    X509_free(m->leaf);
    sk_X509_pop_free(m->chain, X509_free);
    EVP_PKEY_free(m->key);
}

static bool load_files(struct tls_material *m, const char *certificate, const char *key,
                       struct buf *errors)
{
    if (!read_chain(m, certificate, errors) ||
        !read_key(m, key != NULL ? key : certificate, errors))
        return false;
    if (X509_check_private_key(m->leaf, m->key) != 1) {
        ERR_clear_error();
        buf_printf(errors, "%s: key does not match the certificate\n", certificate);
        return false;
    }
    warn_about(m, certificate, errors);
    return true;
}

bool tls_material_load(struct tls_material *m, const struct tls_identity *id, bool client,
                       struct buf *errors)
{
    *m = (struct tls_material){NULL, NULL, NULL};
    if (client && id->client_certificate != NULL)
        return load_files(m, id->client_certificate, id->client_key, errors);
    if (id->certificate != NULL)
        return load_files(m, id->certificate, id->key, errors);
    if (tls_selfsigned(id->domain, &m->leaf, &m->key))
        return true;
    buf_printf(errors, "%s: no self-signed certificate can be made: %s\n", id->domain,
               tls_queued_reason());
    return false;
}

/* ---- for people ------------------------------------------------------------------------------ */

static bool fingerprint(struct key_hash *out, X509 *x)
{
    unsigned char *der = NULL;
    int n = i2d_X509(x, &der);
    out->n = KEY_HASH_SHA256;
    bool ok = n > 0 && digest_sha256(out->bytes, (struct str){(const char *)der, (size_t)n});
    OPENSSL_free(der);
    return ok;
}

/* Doubles: most stores hold a handful. */
static bool grow(struct key_hash **v, size_t n)
{
    if (n < 4 ? n != 0 : (n & (n - 1)) != 0)
        return true;
    struct key_hash *more = mem_realloc(*v, (n < 4 ? 4 : 2 * n) * sizeof **v);
    if (more != NULL)
        *v = more;
    return more != NULL;
}

/* NULL, or what is wrong. */
static const char *read_fingerprints(FILE *f, struct key_hash **v, size_t *n)
{
    const char *wrong = NULL;
    X509 *x;
    while (wrong == NULL && (x = PEM_read_X509(f, NULL, no_password, NULL)) != NULL) {
        if (*n == TLS_FINGERPRINTS_MAX)
            wrong = "more than 1000 certificates";
        else if (!grow(v, *n) || !fingerprint(&(*v)[(*n)++], x))
            wrong = "out of memory";
        X509_free(x);
    }
    bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (wrong == NULL && !end)
        wrong = "holds a damaged certificate";
    return wrong != NULL || *n > 0 ? wrong : "holds no certificate in PEM form";
}

struct key_hash *tls_fingerprints(const char *path, size_t *n, struct buf *errors)
{
    struct key_hash *v = NULL;
    *n = 0;
    FILE *f = tls_pem_open(path, errors);
    if (f == NULL)
        return NULL;
    ERR_clear_error();
    const char *wrong = read_fingerprints(f, &v, n);
    ERR_clear_error();
    fclose(f);
    if (wrong == NULL)
        return v;
    buf_printf(errors, "%s: %s\n", path, wrong);
    mem_free(v);
    *n = 0;
    return NULL;
}

static void describe_hash(struct buf *out, const char *what, const unsigned char *hash, size_t n)
{
    char text[KEY_HASH_TEXT_MAX];
    key_hash_text(text, hash, n);
    buf_printf(out, "%s: %s\n", what, text);
}

static void describe(const struct tls_identity *id, const struct tls_peer *p, const X509 *x,
                     struct buf *out)
{
    char from[TLS_DATE_MAX], to[TLS_DATE_MAX];
    tls_facts_date(X509_get0_notBefore(x), from);
    tls_facts_date(X509_get0_notAfter(x), to);
    buf_printf(out, "identity: %s\nsubject: %s\nissued for: ", id->domain, p->subject);
    tls_peer_issued_for(p, out);
    if (p->self_signed)
        buf_puts(out, "\ntype: self-signed\n");
    else
        buf_printf(out, "\ntype: signed by %s\n", p->issuer);
    buf_printf(out, "valid: %s to %s%s\n", from, to, p->in_time ? "" : ", which is not now");
    describe_hash(out, "key SHA-1", p->key_sha1, sizeof p->key_sha1);
    describe_hash(out, "key SHA-256", p->key_sha256, sizeof p->key_sha256);
    describe_hash(out, "certificate SHA-256", p->certificate_sha256, sizeof p->certificate_sha256);
}

bool tls_identity_describe(const struct tls_identity *id, struct buf *out, struct buf *errors)
{
    if (id->certificate == NULL) {
        buf_printf(out,
                   "identity: %s\ntype: self-signed, made at each start with a new key: nobody "
                   "can list it\n",
                   id->domain);
        return true;
    }
    struct tls_material m;
    struct tls_peer p = {.has_certificate = false};
    bool ok = tls_material_load(&m, id, false, errors);
    struct tls_facts *facts = ok ? tls_facts_new(&p, m.leaf) : NULL;
    if (facts != NULL)
        describe(id, &p, m.leaf, out);
    else if (ok)
        buf_printf(errors, "%s: %s\n", id->certificate, tls_queued_reason());
    ok = facts != NULL;
    mem_free(facts);
    tls_material_free(&m);
    return ok;
}
