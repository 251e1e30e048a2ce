#include "ctl/import.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/value.h"
#include "core/base/domain.h"
#include "core/base/mem.h"

/* ---- remarks --------------------------------------------------------------------------------- */

void import_plain(struct buf *out, const char *s)
{
    bool text = str_utf8(str_c(s));
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        buf_putc(out, c < 0x20 || c == 0x7f || (c >= 0x80 && !text) ? '?' : *s);
    }
}

static void put_remark(struct import *im, enum import_remark kind, const char *file, unsigned line,
                       const char *text)
{
    struct buf *b = &im->remarks[kind];
    char place[32];
    if (b->failed || b->len + strlen(file) + strlen(text) + 64 > b->max)
        return;
    snprintf(place, sizeof place, ":%u: ", line);
    if (line > 0) {
        import_plain(b, file);
        buf_puts(b, place);
    }
    import_plain(b, text);
    buf_putc(b, '\n');
}

void import_remark(struct import *im, enum import_remark kind, uint32_t node, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const struct tree_node *n = node < im->tree.n ? &im->tree.v[node] : NULL;
    put_remark(im, kind, n != NULL ? n->file : "", n != NULL ? n->line : 0, text);
}

static void skipped(void *arg, const char *file, unsigned line, const char *what)
{
    put_remark(arg, REMARK_SKIPPED, file, line, what);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The canonical form, or NULL and a remark. Free it. */
static char *checked(struct import *im, uint32_t node, enum schema_check check, const char *text,
                     const char *what)
{
    struct buf b = BUF_INIT(VALUE_TEXT_MAX);
    const char *wrong = value_check(check, "", text, &b);
    char *copy = wrong == NULL && !b.failed ? mem_strndup(buf_view(&b)) : NULL;
    if (wrong != NULL)
        import_remark(im, REMARK_DECIDE, node, "\"%.100s\" is no %s here: %s", text, what, wrong);
    else if (copy == NULL)
        im->failed = true;
    buf_free(&b);
    return copy;
}

/* Room for one more. */
static void *grown(struct import *im, void *v, size_t n, size_t *cap, size_t size, size_t most)
{
    if (n < *cap)
        return v;
    size_t more = *cap ? 2 * *cap : 16;
    void *bigger = n < most ? mem_realloc(v, more * size) : NULL;
    if (bigger == NULL && n < most)
        im->failed = true;
    if (bigger != NULL)
        *cap = more;
    return bigger;
}

struct import_domain *import_domain(struct import *im, uint32_t node, const char *name)
{
    char *ascii = checked(im, node, CHECK_DOMAIN, name, "domain");
    for (size_t i = 0; ascii != NULL && i < im->ndomains; i++) {
        if (strcmp(im->domains[i].name, ascii) == 0) {
            mem_free(ascii);
            return &im->domains[i];
        }
    }
    struct import_domain *v = ascii == NULL ? NULL
                                            : grown(im, im->domains, im->ndomains, &im->domains_cap,
                                                    sizeof *v, IMPORT_DOMAINS_MAX);
    if (v == NULL) {
        mem_free(ascii);
        return NULL;
    }
    im->domains = v;
    v = &im->domains[im->ndomains++];
    *v = (struct import_domain){.name = ascii};
    return v;
}

struct import_peer *import_peer(struct import *im, uint32_t node, const char *pattern)
{
    char *name = checked(im, node, CHECK_PATTERN, pattern, "domain");
    for (size_t i = 0; name != NULL && i < im->npeers; i++) {
        if (strcmp(im->peers[i].name, name) == 0) {
            mem_free(name);
            return &im->peers[i];
        }
    }
    struct import_peer *v = name == NULL ? NULL
                                         : grown(im, im->peers, im->npeers, &im->peers_cap,
                                                 sizeof *v, IMPORT_PEERS_MAX);
    if (v == NULL) {
        if (name != NULL && im->npeers >= IMPORT_PEERS_MAX)
            import_remark(im, REMARK_DECIDE, node,
                          "more than %d remote domains: the rest is left "
                          "out from here on",
                          IMPORT_PEERS_MAX);
        mem_free(name);
        return NULL;
    }
    im->peers = v;
    v = &im->peers[im->npeers++];
    *v = (struct import_peer){.name = name};
    return v;
}

static void put_string(struct buf *list, const char *text)
{
    buf_printf(list, "%s\"%s\"", list->len ? ", " : "", text);
}

/* "IP:port" of a literal address; false: it is none. */
static bool endpoint(const char *ip, const char *port, char out[ENDPOINT_TEXT])
{
    struct endpoint e;
    unsigned long n = *port != '\0' ? strtoul(port, NULL, 10) : 0;
    if (!ip_parse(str_c(ip), &e.ip) || n == 0 || n > 65535)
        return false;
    e.port = (uint16_t)n;
    endpoint_text(&e, out);
    return true;
}

void import_listen(struct import *im, uint32_t node, const char *ip, const char *port)
{
    char text[ENDPOINT_TEXT];
    ip = strcmp(ip, "*") == 0 ? "0.0.0.0" : ip;
    if (!endpoint(ip, *port != '\0' ? port : "5269", text)) {
        import_remark(im, REMARK_DECIDE, node,
                      "listens at \"%.60s\" port \"%.20s\": listen.s2s takes literal addresses", ip,
                      port);
        return;
    }
    size_t n = strlen(text);
    for (size_t i = 0; i + n + 1 < im->listen.len; i++)
        if (im->listen.p[i] == '"' && strncmp(im->listen.p + i + 1, text, n) == 0 &&
            im->listen.p[i + 1 + n] == '"')
            return;
    if (im->listen.len < 3000)
        put_string(&im->listen, text);
}

void import_source_address(struct import *im, uint32_t node, const char *text)
{
    struct ip ip;
    char canonical[ENDPOINT_TEXT];
    bool ok = ip_parse(str_c(text), &ip), six = ok && ip.len == 16;
    const char *had = im->source.len ? im->source.p : "";
    bool twice = six ? strchr(had, ':') != NULL : strchr(had, '.') != NULL;
    if (!ok || twice) {
        import_remark(im, REMARK_DECIDE, node,
                      "source address \"%.60s\": outbound.source takes one address per family",
                      text);
        return;
    }
    ip_text(&ip, canonical);
    put_string(&im->source, canonical);
}

void import_link_address(struct import *im, uint32_t node, const char *ip, const char *port)
{
    char text[ENDPOINT_TEXT];
    bool any = *ip == '\0' || strcmp(ip, "*") == 0 || strcmp(ip, "0.0.0.0") == 0 ||
               strcmp(ip, "::") == 0 || strcmp(ip, "any") == 0;
    if (any)
        ip = "127.0.0.1";
    if (!endpoint(ip, port, text)) {
        import_remark(im, REMARK_DECIDE, node,
                      "\"%.60s\" port \"%.20s\": the address of a link is a literal one", ip, port);
        return;
    }
    str_copy(im->link.address, sizeof im->link.address, str_c(text));
}

void import_route(struct import *im, uint32_t node, struct import_peer *p, const char *host,
                  const char *port)
{
    char text[IMPORT_VALUE_MAX + 16];
    bool six = strchr(host, ':') != NULL && *host != '[';
    snprintf(text, sizeof text, "%s%.*s%s:%s", six ? "[" : "", IMPORT_VALUE_MAX - 16, host,
             six ? "]" : "", *port != '\0' ? port : "5269");
    char *route = checked(im, node, CHECK_ROUTE, text, "route");
    if (route == NULL)
        return;
    mem_free(p->route);
    p->route = route;
}

static bool whole_number(const char *text, unsigned long *out)
{
    char *end;
    *out = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    return *text >= '0' && *text <= '9' && *end == '\0';
}

void import_seconds(struct import *im, uint32_t node, const char *what, const char *text,
                    unsigned least, unsigned most, char out[16])
{
    unsigned long n;
    if (*text == '\0')
        return;
    if (!whole_number(text, &n) || n == 0) {
        import_remark(im, REMARK_DIFFERS, node, "\"%.40s\": %s keeps its default", text, what);
        return;
    }
    unsigned long fit = n < least ? least : n > most ? most : n;
    if (fit != n)
        import_remark(im, REMARK_DIFFERS, node, "%.20s seconds: %s takes %u to %u", text, what,
                      least, most);
    snprintf(out, 16, "%lus", fit);
}

void import_stanza_size(struct import *im, uint32_t node, const char *text)
{
    enum { LEAST = 10000, MOST = 16 << 20 };
    unsigned long n;
    if (*text == '\0')
        return;
    if (!whole_number(text, &n) || n == 0)
        n = MOST;
    unsigned long fit = n < LEAST ? LEAST : n > MOST ? MOST : n;
    if (fit != n || strcmp(text, "0") == 0)
        import_remark(im, REMARK_DIFFERS, node, "\"%.20s\": limits.stanza_size takes %d to %d",
                      text, LEAST, MOST);
    snprintf(im->stanza_size, sizeof im->stanza_size, "%lu", fit);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool read_lua(struct import *im, const struct import_source *s, struct buf *why)
{
    return import_read_lua(&im->tree, s, &(struct import_sink){skipped, im}, why);
}

static bool read_yaml(struct import *im, const struct import_source *s, struct buf *why)
{
    return import_read_yaml(&im->tree, s, &(struct import_sink){skipped, im}, why);
}

static bool read_xml(struct import *im, const struct import_source *s, struct buf *why)
{
    return import_read_xml(&im->tree, s, why);
}

static bool read_listing(struct import *im, const struct import_source *s, struct buf *why)
{
    return import_read_listing(&im->tree, s, why);
}

static const struct dialect {
    const char *name;
    bool (*read)(struct import *im, const struct import_source *s, struct buf *why);
    void (*map)(struct import *im);
} dialects[] = {
    {"prosody", read_lua, import_prosody},
    {"expressway", read_listing, import_expressway},
    {"ejabberd", read_yaml, import_ejabberd},
    {"jabberd2", read_xml, import_jabberd2},
};

static const struct dialect *find(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++)
        if (strcmp(dialects[i].name, name) == 0)
            return &dialects[i];
    return NULL;
}

bool import_knows(const char *dialect)
{
    return find(dialect) != NULL;
}

static void begin(struct import *im, const char *dialect)
{
    *im = (struct import){.dialect = dialect,
                          .listen = BUF_INIT(4096),
                          .source = BUF_INIT(4096),
                          .dns = BUF_INIT(4096)};
    for (int i = 0; i < REMARK_KINDS; i++)
        im->remarks[i] = BUF_INIT(IMPORT_REMARKS_MAX);
    tree_init(&im->tree);
}

static void end(struct import *im)
{
    for (size_t i = 0; i < im->ndomains; i++)
        mem_free(im->domains[i].name);
    for (size_t i = 0; i < im->npeers; i++) {
        mem_free(im->peers[i].name);
        mem_free(im->peers[i].route);
    }
    mem_free(im->domains);
    mem_free(im->peers);
    for (int i = 0; i < REMARK_KINDS; i++)
        buf_free(&im->remarks[i]);
    buf_free(&im->listen);
    buf_free(&im->source);
    buf_free(&im->dns);
    tree_free(&im->tree);
}

/* localhost is a name inside one machine; it stays only when there is no other. */
static void drop_localhost(struct import *im)
{
    size_t n = 0;
    bool others = false;
    for (size_t i = 0; i < im->ndomains; i++)
        others = others || strcmp(im->domains[i].name, "localhost") != 0;
    for (size_t i = 0; i < im->ndomains; i++) {
        if (others && strcmp(im->domains[i].name, "localhost") == 0)
            mem_free(im->domains[i].name);
        else
            im->domains[n++] = im->domains[i];
    }
    if (n < im->ndomains)
        import_remark(im, REMARK_DIFFERS, 0, "localhost is left out: it is no name for others");
    else if (n > 0 && !others)
        import_remark(im, REMARK_DECIDE, 0,
                      "localhost is no name for others: put your own domain into domains");
    im->ndomains = n;
}

/* What every configuration has, whatever was found. */
static void complete(struct import *im)
{
    static const char *const prefixes[] = {"edge.", "sallyport.", "gateway.", "edge.sallyport."};
    drop_localhost(im);
    if (im->ndomains == 0) {
        import_remark(im, REMARK_DECIDE, 0, "no local domain was found: put yours into domains");
        import_domain(im, 0, "example.org");
    }
    if (*im->link.component != '\0' || im->ndomains == 0)
        return;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        char ascii[DOMAIN_MAX + 1];
        bool taken = false;
        snprintf(im->link.component, sizeof im->link.component, "%s%s", prefixes[i],
                 im->domains[0].name);
        for (size_t d = 0; d < im->ndomains; d++)
            taken = taken || strcmp(im->domains[d].name, im->link.component) == 0;
        if (!taken && domain_ascii(str_c(im->link.component), ascii))
            return;
    }
    str_copy(im->link.component, sizeof im->link.component, STR("sallyport.internal"));
}

static bool is(const char *word, const char *what)
{
    return word != NULL && strcmp(word, what) == 0;
}

/* Where certificates are demanded and TLS is off nobody federates, which nobody can mean. */
static void reconcile(struct import *im)
{
    bool off = is(im->security_mode, "no-tls"), any = off && is(im->auth, "external");
    for (size_t i = 0; i < im->npeers; i++) {
        struct import_peer *p = &im->peers[i];
        bool clear = p->security_mode != NULL ? is(p->security_mode, "no-tls") : off;
        if (!clear || !is(p->auth, "external"))
            continue;
        p->security_mode = "tls-required";
        any = true;
    }
    if (off && is(im->auth, "external"))
        im->security_mode = "tls-required";
    if (any)
        import_remark(im, REMARK_DECIDE, 0,
                      "TLS is off and certificates are demanded there, so nobody can be proven: "
                      "tls-required here");
}

bool import_convert(const char *dialect, const struct import_source *files, size_t n,
                    struct buf *out, struct buf *why)
{
    const struct dialect *d = find(dialect);
    struct import im;
    if (d == NULL) {
        buf_printf(why, "cannot import from '%.40s'", dialect);
        return false;
    }
    begin(&im, dialect);
    bool ok = !im.tree.failed;
    for (size_t i = 0; ok && i < n; i++)
        ok = d->read(&im, &files[i], why);
    if (ok) {
        d->map(&im);
        complete(&im);
        reconcile(&im);
    }
    ok = ok && !im.failed && !im.tree.failed;
    if (ok)
        import_write(&im, files, n, out);
    else if (why->len == 0)
        buf_puts(why, "out of memory");
    end(&im);
    return ok;
}
