#include "config/schema.h"
#include "ctl/import.h"

static const char *const titles[REMARK_KINDS] = {
    [REMARK_DECIDE] = "To be decided",
    [REMARK_DIFFERS] = "What differs",
    [REMARK_SKIPPED] = "Not read",
};

static void put_comment(struct buf *out, const char *indent, struct str lines)
{
    while (lines.n > 0) {
        const char *end = memchr(lines.p, '\n', lines.n);
        size_t n = end != NULL ? (size_t)(end - lines.p) : lines.n;
        buf_printf(out, "#%s", indent);
        buf_put(out, lines.p, n);
        buf_putc(out, '\n');
        n += end != NULL;
        lines = (struct str){lines.p + n, lines.n - n};
    }
}

static void put_head(const struct import *im, const struct import_source *files, size_t n,
                     struct buf *out)
{
    buf_printf(out, "# Sallyport, the gateway. Written by 'sallyportctl import %s' from\n",
               im->dialect);
    for (size_t i = 0; i < n; i++) {
        buf_puts(out, "#   ");
        import_plain(out, files[i].name);
        buf_putc(out, '\n');
    }
    for (int k = 0; k < REMARK_KINDS; k++) {
        if (im->remarks[k].len == 0)
            continue;
        buf_printf(out, "#\n# %s:\n", titles[k]);
        put_comment(out, "   ", buf_view(&im->remarks[k]));
    }
    buf_putc(out, '\n');
}

static void put_word(struct buf *out, const char *key, const char *value)
{
    if (value != NULL && *value != '\0')
        buf_printf(out, "%s = \"%s\";\n", key, value);
}

/* "external" alone, or both. */
static void put_auth(struct buf *out, const char *auth, const char *end)
{
    if (auth == NULL)
        return;
    bool external = strcmp(auth, "external") == 0;
    buf_printf(out, "auth = %s;%s", external ? "[\"external\"]" : "[\"external\", \"dialback\"]",
               end);
}

static void put_modes(const struct import *im, struct buf *out)
{
    if (im->no_federation)
        buf_puts(out, "federation = false;\n");
    put_word(out, "security_mode", im->security_mode);
    put_word(out, "privacy_mode", im->privacy_mode);
    if (im->no_routes)
        buf_puts(out, "use_static_routes = false;\n");
    put_auth(out, im->auth, "\n");
}

static void put_domains(const struct import *im, struct buf *out)
{
    buf_puts(out, "\ndomains = (\n");
    for (size_t i = 0; i < im->ndomains; i++) {
        const struct import_domain *d = &im->domains[i];
        if (d->certificate != NULL) {
            buf_puts(out, "  # certificate = \"");
            import_plain(out, d->certificate);
            buf_puts(out, "\"; key = \"");
            import_plain(out, d->key != NULL ? d->key : d->certificate);
            buf_puts(out, "\";  when sallyport may read them\n");
        }
        buf_printf(out, "  { name = \"%s\";%s }%s\n", d->name,
                   im->subdomains ? " subdomains = true;" : "", i + 1 < im->ndomains ? "," : "");
    }
    buf_puts(out, ");\n");
}

static void put_peer(const struct import_peer *p, bool last, struct buf *out)
{
    buf_printf(out, "  { domain = \"%s\";", p->name);
    if (p->policy != NULL)
        buf_printf(out, " policy = \"%s\";", p->policy);
    if (p->security_mode != NULL)
        buf_printf(out, " security_mode = \"%s\";", p->security_mode);
    if (p->route != NULL)
        buf_printf(out, " route = \"%s\";", p->route);
    if (p->auth != NULL)
        buf_putc(out, ' ');
    put_auth(out, p->auth, "");
    buf_puts(out, last ? " }\n" : " },\n");
}

static void put_peers(const struct import *im, struct buf *out)
{
    if (im->npeers == 0)
        return;
    buf_puts(out, "\npeers = (\n");
    for (size_t i = 0; i < im->npeers; i++)
        put_peer(&im->peers[i], i + 1 == im->npeers, out);
    buf_puts(out, ");\n");
}

static void put_list(struct buf *out, const char *group, const char *key, const struct buf *list)
{
    if (list->len > 0 && !list->failed)
        buf_printf(out, "%s = { %s = [%s]; };\n", group, key, list->p);
}

static void put_link(const struct import *im, struct buf *out)
{
    const char *protocol = im->link.protocol != NULL ? im->link.protocol : "component";
    buf_puts(out, "\n# Put the password of this link into the file; only sallyport may read it.\n"
                  "links = (\n  { name = \"core\";");
    buf_printf(out, " protocol = \"%s\";", protocol);
    buf_printf(out, " address = \"%s\";\n",
               *im->link.address != '\0' ? im->link.address : "127.0.0.1:5347");
    buf_printf(out, "    component = \"%s\";", im->link.component);
    if (*im->link.user != '\0')
        buf_printf(out, " user = \"%s\";", im->link.user);
    buf_puts(out, " secret_file = \"" IMPORT_LINK_SECRET "\"; }\n);\n\n");
}

static void put_members(struct buf *out, const char *group, const char *const keys[],
                        const char *const values[], size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (values[i] == NULL || *values[i] == '\0')
            continue;
        buf_printf(out, "%s %s = \"%s\";", any ? "" : group, keys[i], values[i]);
        any = true;
    }
    buf_puts(out, any ? " };\n" : "");
}

static void put_numbers(const struct import *im, struct buf *out)
{
    static const char *const timeouts[] = {"auth", "connect", "idle", "queue"};
    static const char *const sizes[] = {"stanza_size"}, *const versions[] = {"minimum"};
    put_members(out, "timeouts = {", timeouts,
                (const char *const[]){im->timeout_auth, im->timeout_connect, im->timeout_idle,
                                      im->timeout_queue},
                4);
    put_members(out, "limits = {", sizes, (const char *const[]){im->stanza_size}, 1);
    put_members(out, "tls = {", versions, (const char *const[]){im->tls_minimum}, 1);
    bool servers = im->dns.len > 0 && !im->dns.failed, wait = *im->timeout_dns != '\0';
    if (servers || wait)
        buf_puts(out, "dns = {");
    if (servers)
        buf_printf(out, " servers = [%s];", im->dns.p);
    if (wait)
        buf_printf(out, " timeout = \"%s\";", im->timeout_dns);
    buf_puts(out, servers || wait ? " };\n" : "");
    if (im->ca_file != NULL) {
        buf_puts(out, "# tls.ca_file = \"");
        import_plain(out, im->ca_file);
        buf_puts(out, "\"  when sallyport may read it; else the system's authorities\n");
    }
}

void import_write(const struct import *im, const struct import_source *files, size_t n,
                  struct buf *out)
{
    put_head(im, files, n, out);
    put_modes(im, out);
    put_domains(im, out);
    put_peers(im, out);
    put_link(im, out);
    if (im->dialback_secret)
        buf_puts(out, "dialback = { secret_file = \"" IMPORT_DIALBACK_SECRET "\"; };\n");
    put_list(out, "listen", "s2s", &im->listen);
    put_list(out, "outbound", "source", &im->source);
    put_numbers(im, out);
}
