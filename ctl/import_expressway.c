/* Cisco Expressway-E: a listing of its settings, one a line. Either what `xConfiguration` prints or
 * takes,
 *
 *     *c xConfiguration XCP Config SecurityMode: "TLS required"
 *     xConfiguration Domains Domain 1 Name: "alpha.lab"
 *
 * or the words of its web pages, "Security mode: TLS required". Names are compared without blanks,
 * case and signs, by how they end, since they differ between versions; a number in them is the
 * index of a table's row. Settings of calls, SIP and the like are passed over. */
#include <stdio.h>

#include "core/base/cidr.h"
#include "ctl/import.h"

enum { KEY_MAX = 120, INDEX_MAX = 12 };

/* ---- the listing ----------------------------------------------------------------------------- */

/* "*c xConfiguration XCP StaticRoute 2 Domain" into "xcpstaticroutedomain" and "2". */
static void read_key(struct str s, char key[KEY_MAX], char index[INDEX_MAX])
{
    size_t n = 0, k = 0;
    for (size_t i = 0; i < s.n && n + 1 < KEY_MAX; i++) {
        char c = s.p[i];
        bool digit = c >= '0' && c <= '9';
        if (digit && k + 1 < INDEX_MAX)
            index[k++] = c;
        else if (c >= 'A' && c <= 'Z')
            key[n++] = (char)(c - 'A' + 'a');
        else if (c >= 'a' && c <= 'z')
            key[n++] = c;
    }
    key[n] = index[k] = '\0';
}

static const char *behind(const char *key, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(key, prefix, n) == 0 ? key + n : key;
}

static struct str unquoted(struct str s)
{
    s = str_trim(s);
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
        s = (struct str){s.p + 1, s.n - 2};
    return s;
}

static void read_line(struct tree *t, const char *file, unsigned number, struct str line)
{
    char key[KEY_MAX], index[INDEX_MAX];
    const char *colon = line.n ? memchr(line.p, ':', line.n) : NULL;
    const char *tab = line.n ? memchr(line.p, '\t', line.n) : NULL;
    const char *end = colon != NULL ? colon : tab;
    if (end == NULL)
        return;
    read_key((struct str){line.p, (size_t)(end - line.p)}, key, index);
    struct str value = unquoted((struct str){end + 1, (size_t)(line.p + line.n - end - 1)});
    const char *rest = behind(key, "c");
    rest = behind(strncmp(rest, "xconf", 5) == 0 ? rest : key, "xconfiguration");
    uint32_t node = tree_add(t, 0, str_c(rest), value, file, number);
    if (node != 0 && *index != '\0')
        tree_add(t, node, STR("index"), str_c(index), file, number);
}

bool import_read_listing(struct tree *t, const struct import_source *s, struct buf *why)
{
    struct str rest = s->text;
    unsigned number = 0;
    bool ok = s->text.n <= IMPORT_FILE_MAX;
    while (ok && rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        read_line(t, s->name, ++number, str_trim((struct str){rest.p, n}));
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
        ok = !t->failed;
    }
    if (!ok)
        buf_printf(why, "%s: too long", s->name);
    return ok;
}

/* ---- what it means --------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* Lower-case letters only. */
static void squeeze(const char *text, char out[KEY_MAX])
{
    char index[INDEX_MAX];
    read_key(str_c(text), out, index);
}

static bool is_on(const char *text)
{
    return strcmp(text, "On") == 0 || strcmp(text, "on") == 0 || strcmp(text, "1") == 0 ||
           strcmp(text, "true") == 0 || strcmp(text, "True") == 0;
}

static void read_security(struct import *im, uint32_t node)
{
    char mode[KEY_MAX];
    squeeze(tree_text(&im->tree, node), mode);
    im->security_mode = strcmp(mode, "notls") == 0         ? "no-tls"
                        : strcmp(mode, "tlsrequired") == 0 ? "tls-required"
                        : strcmp(mode, "tlsoptional") == 0 ? "tls-optional"
                                                           : im->security_mode;
    if (im->security_mode == NULL)
        import_remark(im, REMARK_DECIDE, node, "unknown security mode \"%.60s\"",
                      tree_text(&im->tree, node));
}

static void read_privacy(struct import *im, uint32_t node)
{
    char mode[KEY_MAX];
    squeeze(tree_text(&im->tree, node), mode);
    im->privacy_mode = strcmp(mode, "off") == 0         ? "off"
                       : strcmp(mode, "allowlist") == 0 ? "allow-list"
                       : strcmp(mode, "denylist") == 0  ? "deny-list"
                                                        : im->privacy_mode;
    if (im->privacy_mode == NULL)
        import_remark(im, REMARK_DECIDE, node, "unknown privacy mode \"%.60s\"",
                      tree_text(&im->tree, node));
}

/* One or several domains. */
static void read_list(struct import *im, uint32_t node, const char *policy)
{
    const char *p = tree_text(&im->tree, node);
    char name[IMPORT_VALUE_MAX];
    while (*p != '\0') {
        size_t n = strcspn(p, ", ;");
        if (n > 0) {
            snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name, p);
            struct import_peer *peer = import_peer(im, node, name);
            if (peer != NULL)
                peer->policy = policy;
        }
        p += n + (p[n] != '\0');
    }
}

/* The other column of the same row. */
static const char *in_row(const struct import *im, uint32_t row, const char *column)
{
    const struct tree *t = &im->tree;
    const char *index = tree_text(t, tree_get(t, row, "index"));
    for (uint32_t i = tree_first(t, 0); i != 0; i = tree_next(t, i))
        if (strstr(tree_key(t, i), "staticroute") != NULL && ends_with(tree_key(t, i), column) &&
            strcmp(tree_text(t, tree_get(t, i, "index")), index) == 0)
            return tree_text(t, i);
    return "";
}

static void read_route(struct import *im, uint32_t node)
{
    struct import_peer *p = import_peer(im, node, tree_text(&im->tree, node));
    const char *host = in_row(im, node, "address");
    if (*host == '\0')
        host = in_row(im, node, "target");
    if (p != NULL)
        import_route(im, node, p, host, in_row(im, node, "port"));
}

static void read_dns(struct import *im, uint32_t node)
{
    struct endpoint e = {.port = 53};
    char text[ENDPOINT_TEXT];
    if (!ip_parse(str_c(tree_text(&im->tree, node)), &e.ip) || im->dns.len > 300)
        return;
    endpoint_text(&e, text);
    buf_printf(&im->dns, "%s\"%s\"", im->dns.len ? ", " : "", text);
}

static void read_domain(struct import *im, uint32_t node)
{
    import_domain(im, node, tree_text(&im->tree, node));
}

static void read_federation(struct import *im, uint32_t node)
{
    im->no_federation = !is_on(tree_text(&im->tree, node));
}

static void read_routes_switch(struct import *im, uint32_t node)
{
    im->no_routes = !is_on(tree_text(&im->tree, node));
}

static void read_secret(struct import *im, uint32_t node)
{
    if (*tree_text(&im->tree, node) == '\0')
        return;
    im->dialback_secret = true;
    import_remark(im, REMARK_DECIDE, node,
                  "put the dialback secret, as it was typed in, into " IMPORT_DIALBACK_SECRET
                  ", if another Expressway goes on with it");
}

static void read_client_certificates(struct import *im, uint32_t node)
{
    if (!is_on(tree_text(&im->tree, node)))
        return;
    im->auth = "external";
    import_remark(im, REMARK_DECIDE, node, "remote domains have to show a certificate there");
}

static void read_allowed(struct import *im, uint32_t node)
{
    read_list(im, node, "allow");
}

static void read_denied(struct import *im, uint32_t node)
{
    read_list(im, node, "deny");
}

/* The first that fits: `in` somewhere, `tail` at the end. */
static const struct setting {
    const char *in, *tail;
    void (*read)(struct import *im, uint32_t node);
} settings[] = {
    {"", "securitymode", read_security},
    {"", "privacymode", read_privacy},
    {"", "usestaticroutes", read_routes_switch},
    {"", "dialbacksecret", read_secret},
    {"", "federationenabled", read_federation},
    {"federation", "support", read_federation},
    {"clientsidesecurity", "certificates", read_client_certificates},
    {"allowlist", "", read_allowed},
    {"denylist", "", read_denied},
    {"staticroute", "domain", read_route},
    {"dnsserver", "address", read_dns},
    {"domain", "domainname", read_domain},
};

static void read_setting(struct import *im, uint32_t node)
{
    const char *key = tree_key(&im->tree, node);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (strstr(key, settings[i].in) != NULL && ends_with(key, settings[i].tail)) {
            settings[i].read(im, node);
            return;
        }
    }
    if (strncmp(key, "xcp", 3) == 0 && strstr(key, "staticroute") == NULL)
        import_remark(im, REMARK_SKIPPED, node, "not known: %.60s", key);
}

void import_expressway(struct import *im)
{
    const struct tree *t = &im->tree;
    im->no_routes = true;
    for (uint32_t i = tree_first(t, 0); i != 0; i = tree_next(t, i))
        read_setting(im, i);
    if (im->security_mode == NULL)
        im->security_mode = "tls-required";
    if (im->privacy_mode == NULL)
        im->privacy_mode = "allow-list";
    str_copy(im->link.address, sizeof im->link.address, STR("127.0.0.1:7400"));
    import_remark(im, REMARK_DECIDE, 0,
                  "IM and Presence speaks XCP behind an Expressway, which is Cisco's own: what "
                  "can stand behind Sallyport instead is in docs/inside/cisco-imp.md. The link "
                  "below goes to a sallyport-router");
    import_remark(im, REMARK_DIFFERS, 0,
                  "an Expressway takes names of lists exactly; here \"*.suffix\" is a pattern, and "
                  "a domain with a route is allowed without being on the list");
    import_remark(im, REMARK_DIFFERS, 0,
                  "an allow or deny list that is not in force is kept: privacy_mode decides");
}
