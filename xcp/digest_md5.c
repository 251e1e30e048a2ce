#include "xcp/digest_md5.h"

enum { DIRECTIVES_MAX = 64 };

/* ---- reading "name=value, name="value"" (RFC 2831 7.1) --------------------------------------- */

struct directive {
    struct str name, value;
    bool quoted; /* then the value may hold backslashes */
};

static bool is_separator(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',';
}

/* Up to the closing quote; absent: there is none. */
static struct str take_quoted(struct str *text)
{
    for (size_t i = 0; i < text->n; i++) {
        if (text->p[i] == '\\') {
            i++;
        } else if (text->p[i] == '"') {
            struct str value = {text->p, i};
            *text = (struct str){text->p + i + 1, text->n - i - 1};
            return value;
        }
    }
    return STR_NONE;
}

static struct str take_until(struct str *text, bool (*ends)(char c))
{
    size_t n = 0;
    while (n < text->n && !ends(text->p[n]))
        n++;
    struct str value = {text->p, n};
    *text = (struct str){text->p + n, text->n - n};
    return value;
}

static bool is_equals(char c)
{
    return c == '=' || is_separator(c) || c == '"';
}

static void skip_separators(struct str *text)
{
    while (text->n > 0 && is_separator(text->p[0]))
        *text = (struct str){text->p + 1, text->n - 1};
}

static void skip_space(struct str *text)
{
    while (text->n > 0 && text->p[0] != ',' && is_separator(text->p[0]))
        *text = (struct str){text->p + 1, text->n - 1};
}

/* 1: read, 0: there is none left, -1: wrong. */
static int take_directive(struct str *text, struct directive *d)
{
    skip_separators(text);
    if (text->n == 0)
        return 0;
    d->name = take_until(text, is_equals);
    skip_space(text);
    if (d->name.n == 0 || text->n == 0 || text->p[0] != '=')
        return -1;
    *text = (struct str){text->p + 1, text->n - 1};
    skip_space(text);
    d->quoted = text->n > 0 && text->p[0] == '"';
    if (d->quoted)
        *text = (struct str){text->p + 1, text->n - 1};
    d->value = d->quoted ? take_quoted(text) : take_until(text, is_separator);
    bool ended = text->n == 0 || is_separator(text->p[0]);
    return d->value.p != NULL && ended && (d->quoted || d->value.n > 0) ? 1 : -1;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same_word(struct str a, const char *b)
{
    if (a.n != strlen(b))
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != b[i])
            return false;
    return true;
}

/* ---- the challenge --------------------------------------------------------------------------- */

struct challenge {
    struct str realm, nonce; /* still quoted */
    unsigned nonces, algorithms, charsets;
    bool realm_known, qop_known, qop_auth, md5_sess, utf8;
};

/* "auth,auth-int": one of them is ours. */
static bool offers_auth(struct str list)
{
    while (list.n > 0) {
        skip_separators(&list);
        if (same_word(take_until(&list, is_separator), "auth"))
            return true;
    }
    return false;
}

static void note(struct challenge *c, const struct directive *d)
{
    if (same_word(d->name, "realm")) {
        if (!c->realm_known)
            c->realm = d->value;
        c->realm_known = true;
    } else if (same_word(d->name, "nonce")) {
        c->nonce = d->value;
        c->nonces++;
    } else if (same_word(d->name, "qop")) {
        c->qop_known = true;
        c->qop_auth = c->qop_auth || offers_auth(d->value);
    } else if (same_word(d->name, "algorithm")) {
        c->algorithms++;
        c->md5_sess = same_word(d->value, "md5-sess");
    } else if (same_word(d->name, "charset")) {
        c->charsets++;
        c->utf8 = same_word(d->value, "utf-8");
    }
}

/* NULL: it is one that we can answer. */
static const char *fault(const struct challenge *c)
{
    if (c->nonces != 1 || c->nonce.n == 0)
        return "the challenge has not exactly one nonce";
    if (c->algorithms != 1 || !c->md5_sess)
        return "the challenge is not for md5-sess";
    if (c->qop_known && !c->qop_auth)
        return "the challenge does not allow qop auth";
    if (c->charsets > 1 || (c->charsets == 1 && !c->utf8))
        return "the challenge has a charset other than utf-8";
    return NULL;
}

static const char *read_challenge(struct str text, struct challenge *c)
{
    struct directive d;
    int r;
    *c = (struct challenge){.realm = STR("")};
    if (text.n > DIGEST_MD5_CHALLENGE_MAX)
        return "the challenge is too long";
    for (unsigned n = 0; (r = take_directive(&text, &d)) > 0; n++) {
        if (n == DIRECTIVES_MAX)
            return "the challenge has too many directives";
        note(c, &d);
    }
    return r < 0 ? "the challenge is malformed" : fault(c);
}

/* ---- the response ---------------------------------------------------------------------------- */

/* 2.1.2.1: a string that fits is hashed as ISO 8859-1 even where UTF-8 is spoken. */
static void put_hashed(struct buf *b, struct str s)
{
    size_t begin = b->len;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x80 && ((c & 0xfe) != 0xc2 || i + 1 == s.n)) {
            b->len = begin; /* it does not fit */
            buf_str(b, s);
            return;
        }
        if (c >= 0x80)
            c = (unsigned char)(c << 6 | (s.p[++i] & 0x3f));
        buf_putc(b, (char)c);
    }
}

static void put_unquoted(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\' && i + 1 < s.n)
            i++;
        buf_putc(b, s.p[i]);
    }
}

static void put_quoted(struct buf *b, const char *name, struct str s)
{
    buf_puts(b, name);
    buf_puts(b, "=\"");
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            buf_putc(b, '\\');
        buf_putc(b, s.p[i]);
    }
    buf_puts(b, "\",");
}

static bool md5_hex(char hex[DIGEST_MD5_HEX + 1], const struct str *parts, size_t n)
{
    unsigned char raw[DIGEST_MD5];
    if (!digest_md5(raw, parts, n))
        return false;
    digest_hex(hex, raw, sizeof raw);
    return true;
}

struct sums {
    struct str realm, nonce;     /* unquoted */
    char a1[DIGEST_MD5_HEX + 1]; /* HEX(H(A1)) */
};

/* A1 = { H( { user ":" realm ":" secret } ), ":", nonce, ":", cnonce } */
static bool sum_a1(struct sums *s, const struct digest_md5_login *login)
{
    unsigned char raw[DIGEST_MD5];
    struct buf b = BUF_INIT(16384);
    bool ok =
        buf_reserve(&b, login->user.n + s->realm.n + login->secret.n + 2); /* stays in place */
    put_hashed(&b, login->user);
    buf_putc(&b, ':');
    buf_str(&b, s->realm);
    buf_putc(&b, ':');
    put_hashed(&b, login->secret);
    struct str all = buf_view(&b);
    ok = ok && !b.failed && digest_md5(raw, &all, 1);
    if (b.p != NULL)
        digest_wipe(b.p, b.len);
    buf_free(&b);
    const struct str a1[] = {
        {(const char *)raw, sizeof raw}, STR(":"), s->nonce, STR(":"), login->cnonce};
    ok = ok && md5_hex(s->a1, a1, 5);
    digest_wipe(raw, sizeof raw);
    return ok;
}

/* HEX(KD(HEX(H(A1)), nonce ":" nc ":" cnonce ":" qop ":" HEX(H(A2)))), A2 = method ":" uri */
static bool sum(char hex[DIGEST_MD5_HEX + 1], const struct digest_md5_login *login,
                const struct sums *s, struct str method)
{
    char a2[DIGEST_MD5_HEX + 1];
    const struct str a2_parts[] = {method, STR(":"), login->uri};
    if (!md5_hex(a2, a2_parts, 3))
        return false;
    const struct str all[] = {str_c(s->a1),  STR(":"),      s->nonce, STR(":00000001:"),
                              login->cnonce, STR(":auth:"), str_c(a2)};
    return md5_hex(hex, all, sizeof all / sizeof all[0]);
}

static bool respond(struct digest_md5 *d, const struct digest_md5_login *login,
                    const struct sums *s, struct buf *out)
{
    char response[DIGEST_MD5_HEX + 1];
    if (!sum(response, login, s, STR("AUTHENTICATE")) || !sum(d->rspauth, login, s, STR("")))
        return false;
    buf_puts(out, "charset=utf-8,");
    put_quoted(out, "username", login->user);
    put_quoted(out, "realm", s->realm);
    put_quoted(out, "nonce", s->nonce);
    buf_puts(out, "nc=00000001,");
    put_quoted(out, "cnonce", login->cnonce);
    put_quoted(out, "digest-uri", login->uri);
    buf_puts(out, "response=");
    buf_puts(out, response);
    buf_puts(out, ",qop=auth");
    return !out->failed;
}

bool digest_md5_respond(struct digest_md5 *d, const struct digest_md5_login *login,
                        struct str challenge, struct buf *response, const char **why)
{
    struct challenge c;
    struct buf text = BUF_INIT(DIGEST_MD5_CHALLENGE_MAX);
    *d = (struct digest_md5){.responded = false};
    *why = read_challenge(challenge, &c);
    if (*why != NULL)
        return false;
    if (buf_reserve(&text, c.realm.n + c.nonce.n)) {
        put_unquoted(&text, c.realm);
        size_t realm = text.len;
        put_unquoted(&text, c.nonce);
        struct sums s = {.realm = {text.p, realm}, .nonce = {text.p + realm, text.len - realm}};
        d->responded = sum_a1(&s, login) && respond(d, login, &s, response);
        digest_wipe(&s, sizeof s);
    }
    buf_free(&text);
    return d->responded;
}

bool digest_md5_proven(const struct digest_md5 *d, struct str answer)
{
    struct directive v;
    struct str found = STR_NONE;
    unsigned n = 0;
    int r;
    if (!d->responded || answer.n > DIGEST_MD5_RSPAUTH_MAX)
        return false;
    while ((r = take_directive(&answer, &v)) > 0) {
        if (same_word(v.name, "rspauth")) {
            found = v.value;
            n++;
        }
    }
    return r == 0 && n == 1 && digest_equal(found, str_c(d->rspauth));
}
