/* Reads what pure code needs out of a certificate.
 *
 * Only subjectAltName names a domain (RFC 9525 6): a name is taken when it is in the one form that
 * its type allows and a domain can equal it; everything else is left out, so that nobody compares
 * later what should not be compared. An xmppAddr may carry U-labels (RFC 6120 13.7.1.4); a dNSName
 * and an SRVName are ASCII. All are kept as A-labels. */
#include "core/tls/tls_facts_priv.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "core/base/digest.h"
#include "core/base/domain.h"
#include "core/base/mem.h"

/* ---- names ----------------------------------------------------------------------------------- */

struct found {
    struct buf text; /* subject, issuer, names, each with its NUL */
    unsigned n;
    unsigned char kind[TLS_NAMES_MAX];
    bool cut;
};

static bool is_ascii(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return false;
    return true;
}

/* domain_ascii refuses what is no name, an embedded NUL among the rest. */
static void add_name(struct found *f, enum tls_name_kind kind, struct str s)
{
    char ascii[DOMAIN_MAX + 1];
    const bool star = kind == TLS_NAME_DNS && str_starts(s, "*.");
    if (star)
        s = (struct str){s.p + 2, s.n - 2};
    if ((kind != TLS_NAME_XMPP && !is_ascii(s)) || !domain_ascii(s, ascii) ||
        (star && strchr(ascii, '.') == NULL))
        return;
    f->cut = f->n == TLS_NAMES_MAX || f->text.len > TLS_NAMES_BYTES;
    if (f->cut)
        return;
    f->kind[f->n++] = (unsigned char)kind;
    buf_puts(&f->text, star ? "*." : "");
    buf_put(&f->text, ascii, strlen(ascii) + 1);
}

static struct str asn1_view(const ASN1_STRING *s)
{
    return (struct str){(const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)};
}

/* SRVName is "_service.domain" (RFC 4985 2); other services prove nothing here. */
static void add_srv(struct found *f, struct str s)
{
    static const char service[] = "_xmpp-server.";
    const size_t n = sizeof service - 1;
    if (s.n > n && strncasecmp(s.p, service, n) == 0)
        add_name(f, TLS_NAME_SRV, (struct str){s.p + n, s.n - n});
}

static void add_other(struct found *f, const OTHERNAME *o)
{
    const int id = OBJ_obj2nid(o->type_id), type = ASN1_TYPE_get(o->value);
    if (id == NID_XmppAddr && type == V_ASN1_UTF8STRING)
        add_name(f, TLS_NAME_XMPP, asn1_view(o->value->value.utf8string));
    else if (id == NID_SRVName && type == V_ASN1_IA5STRING)
        add_srv(f, asn1_view(o->value->value.ia5string));
}

static void add_names(struct found *f, X509 *x)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(all) && !f->cut; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(all, i);
        if (g->type == GEN_DNS)
            add_name(f, TLS_NAME_DNS, asn1_view(g->d.dNSName));
        else if (g->type == GEN_OTHERNAME)
            add_other(f, g->d.otherName);
    }
    GENERAL_NAMES_free(all);
}

/* ---- texts ----------------------------------------------------------------------------------- */

void tls_facts_dn(const X509_NAME *name, char out[TLS_DN_MAX])
{
    BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    long n = 0;
    if (b != NULL && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0)
        n = BIO_get_mem_data(b, &p);
    if (n > 0)
        str_copy(out, TLS_DN_MAX, (struct str){p, (size_t)n});
    else
        str_copy(out, TLS_DN_MAX, STR("(empty name)"));
    BIO_free(b);
}

void tls_facts_date(const ASN1_TIME *t, char out[TLS_DATE_MAX])
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1 || strftime(out, TLS_DATE_MAX, "%Y-%m-%d", &tm) == 0)
        str_copy(out, TLS_DATE_MAX, STR("an unreadable date"));
}

static void add_dn(struct found *f, const X509_NAME *name)
{
    char text[TLS_DN_MAX];
    tls_facts_dn(name, text);
    buf_put(&f->text, text, strlen(text) + 1);
}

/* ---- dates and hashes ------------------------------------------------------------------------ */

static int64_t seconds(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void read_dates(struct tls_peer *p, const X509 *x)
{
    const ASN1_TIME *from = X509_get0_notBefore(x), *to = X509_get0_notAfter(x);
    p->not_before = seconds(from);
    p->not_after = seconds(to);
    p->in_time = X509_cmp_current_time(from) < 0 && X509_cmp_current_time(to) > 0;
}

/* The hash of what OpenSSL encoded, which is freed. */
static bool hash_der(unsigned char *der, int n, unsigned char *sha1, unsigned char *sha256)
{
    struct str s = {(const char *)der, n > 0 ? (size_t)n : 0};
    bool ok = n > 0 && (sha1 == NULL || digest_sha1(sha1, s)) && digest_sha256(sha256, s);
    OPENSSL_free(der);
    return ok;
}

static bool read_hashes(struct tls_peer *p, X509 *x)
{
    unsigned char *key = NULL, *whole = NULL;
    int nkey = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &key), nwhole = i2d_X509(x, &whole);
    bool ok = hash_der(key, nkey, p->key_sha1, p->key_sha256);
    return hash_der(whole, nwhole, NULL, p->certificate_sha256) && ok;
}

/* ---- all together ---------------------------------------------------------------------------- */

static const char *next_text(const char **at)
{
    const char *s = *at;
    *at += strlen(s) + 1;
    return s;
}

static struct tls_facts *pack(struct tls_peer *p, const struct found *f)
{
    size_t size = sizeof(struct tls_facts) + f->n * sizeof(struct tls_name);
    struct tls_facts *t = f->text.failed ? NULL : mem_alloc(size + f->text.len);
    if (t == NULL)
        return NULL;
    t->size = size + f->text.len;
    const char *at = memcpy((char *)t + size, f->text.p, f->text.len);
    p->subject = next_text(&at);
    p->issuer = next_text(&at);
    for (unsigned i = 0; i < f->n; i++)
        t->names[i] = (struct tls_name){f->kind[i], next_text(&at)};
    p->names = f->n > 0 ? t->names : NULL;
    p->nnames = f->n;
    p->names_cut = f->cut;
    return t;
}

struct tls_facts *tls_facts_new(struct tls_peer *p, X509 *x)
{
    struct found f = {.text = BUF_INIT(TLS_NAMES_BYTES + DOMAIN_MAX + 3 + 2 * TLS_DN_MAX)};
    if (!read_hashes(p, x))
        return NULL;
    p->has_certificate = true;
    p->self_signed = X509_self_signed(x, 1) == 1;
    read_dates(p, x);
    add_dn(&f, X509_get_subject_name(x));
    add_dn(&f, X509_get_issuer_name(x));
    add_names(&f, x);
    struct tls_facts *t = pack(p, &f);
    buf_free(&f.text);
    ERR_clear_error();
    return t;
}

/* ---- phrases --------------------------------------------------------------------------------- */

static void time_phrase(char out[TLS_WHY_MAX], int error, X509 *x)
{
    const bool over = error == X509_V_ERR_CERT_HAS_EXPIRED;
    char date[TLS_DATE_MAX];
    tls_facts_date(over ? X509_get0_notAfter(x) : X509_get0_notBefore(x), date);
    snprintf(out, TLS_WHY_MAX, "%s %s", over ? "expired on" : "not valid before", date);
}

static void issuer_phrase(char out[TLS_WHY_MAX], X509 *x)
{
    char dn[TLS_DN_MAX];
    tls_facts_dn(X509_get_issuer_name(x), dn);
    snprintf(out, TLS_WHY_MAX, "issuer unknown: %s", dn);
}

static void phrase(char out[TLS_WHY_MAX], int error, X509 *x)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        time_phrase(out, error, x);
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        if (X509_self_signed(x, 1) == 1)
            str_copy(out, TLS_WHY_MAX, STR("self-signed"));
        else /* by an issuer of the same name, which OpenSSL does not look for */
            issuer_phrase(out, x);
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        issuer_phrase(out, x);
        break;
    default:
        snprintf(out, TLS_WHY_MAX, "%s", X509_verify_cert_error_string(error));
    }
}

/* The unknown issuer of an issuer needs no more words than that of the certificate itself. */
static bool says_it_all(const char *text)
{
    return str_starts(str_c(text), "issuer unknown");
}

void tls_facts_why(char why[TLS_WHY_MAX], int error, int depth, X509 *x)
{
    char text[TLS_WHY_MAX];
    if (x == NULL) {
        snprintf(why, TLS_WHY_MAX, "%s", X509_verify_cert_error_string(error));
        return;
    }
    phrase(text, error, x);
    tls_facts_why_text(why, text, depth, x);
}

void tls_facts_why_text(char why[TLS_WHY_MAX], const char *text, int depth, X509 *x)
{
    char dn[TLS_DN_MAX];
    tls_facts_dn(X509_get_subject_name(x), dn);
    if (depth == 0 || says_it_all(text))
        str_copy(why, TLS_WHY_MAX, str_c(text));
    else
        snprintf(why, TLS_WHY_MAX, "its issuer %s: %.*s", dn, TLS_WHY_MAX - TLS_DN_MAX - 20, text);
}

void tls_facts_why_time(char why[TLS_WHY_MAX], X509 *x)
{
    const bool over = X509_cmp_current_time(X509_get0_notAfter(x)) < 0;
    char text[TLS_WHY_MAX];
    time_phrase(text, over ? X509_V_ERR_CERT_HAS_EXPIRED : X509_V_ERR_CERT_NOT_YET_VALID, x);
    if (strstr(why, text) != NULL)
        return;
    size_t n = strlen(why);
    snprintf(why + n, TLS_WHY_MAX - n, "%s%s", n > 0 ? ", and " : "", text);
}
