#include "core/stream/stream.h"

#include "core/xml/ns.h"
#include "core/xml/writer.h"

void stream_write_header(struct buf *b, const struct stream_open *open)
{
    buf_puts(b, "<?xml version='1.0'?><stream:stream xmlns='" NS_SERVER "' xmlns:stream='" NS_STREAM
                "' xmlns:db='" NS_DIALBACK "'");
    writer_attr(b, "from", open->from);
    writer_attr(b, "to", open->to);
    writer_attr(b, "id", open->id);
    if (open->version)
        writer_attr(b, "version", STR("1.0"));
    buf_puts(b, " xml:lang='en'>");
}

void stream_write_error(struct buf *b, const char *condition, const char *text)
{
    buf_printf(b, "<stream:error><%s xmlns='" NS_STREAM_ERROR "'/>", condition);
    if (text != NULL) {
        buf_puts(b, "<text xmlns='" NS_STREAM_ERROR "' xml:lang='en'>");
        writer_text(b, str_c(text));
        buf_puts(b, "</text>");
    }
    buf_puts(b, "</stream:error>" STREAM_CLOSE_TAG);
}

static bool digits(struct str s, bool *zero)
{
    *zero = true;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        *zero = *zero && s.p[i] == '0';
    }
    return s.n > 0;
}

bool stream_version_1(struct str version)
{
    const char *dot = version.n ? memchr(version.p, '.', version.n) : NULL;
    if (dot == NULL)
        return false;
    size_t n = (size_t)(dot - version.p);
    bool zero, minor_zero;
    return digits((struct str){version.p, n}, &zero) && !zero &&
           digits((struct str){dot + 1, version.n - n - 1}, &minor_zero);
}

/* What a child of <limits/> says; 0: nothing that is a number. */
static uint64_t limit_of(const struct nonza *z, const char *name, uint64_t most)
{
    int limits = nonza_child(z, 0, NS_LIMITS, "limits");
    int at = limits >= 0 ? nonza_child(z, limits, NS_LIMITS, name) : -1;
    struct str text = at >= 0 ? str_trim(z->node[at].text) : STR_NONE;
    uint64_t v = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return 0;
        v = v > most ? v : v * 10 + (uint64_t)(text.p[i] - '0');
    }
    return v > most ? most : v;
}

bool stream_read_features(const struct nonza *z, struct stream_features *out)
{
    *out = (struct stream_features){0};
    if (!nonza_is(z, NS_STREAM, "features"))
        return false;
    int tls = nonza_child(z, 0, NS_TLS, "starttls");
    out->starttls = tls >= 0;
    out->starttls_required = tls >= 0 && nonza_child(z, tls, NS_TLS, "required") >= 0;
    int db = nonza_child(z, 0, NS_FEATURE_DB, "dialback");
    out->dialback = db >= 0;
    out->dialback_errors = db >= 0 && nonza_child(z, db, NS_FEATURE_DB, "errors") >= 0;
    int sasl = nonza_child(z, 0, NS_SASL, "mechanisms");
    for (int i = sasl + 1; sasl >= 0 && i < z->nnodes && z->node[i].depth > z->node[sasl].depth;
         i++)
        if (str_is(z->node[i].name, "mechanism") && str_is(str_trim(z->node[i].text), "EXTERNAL"))
            out->external = true;
    out->bidi = nonza_child(z, 0, NS_FEATURE_BIDI, "bidi") >= 0;
    out->max_bytes = limit_of(z, "max-bytes", UINT32_MAX);
    out->idle_ms = 1000 * limit_of(z, "idle-seconds", UINT32_MAX);
    return true;
}

bool stream_read_error(const struct nonza *z, struct str *condition, struct str *text)
{
    if (!nonza_is(z, NS_STREAM, "error"))
        return false;
    *condition = STR("undefined-condition");
    *text = STR_NONE;
    for (int i = 1; i < z->nnodes; i++) {
        if (z->node[i].depth != 1 || !str_is(z->node[i].ns, NS_STREAM_ERROR))
            continue;
        if (str_is(z->node[i].name, "text"))
            *text = z->node[i].text;
        else
            *condition = z->node[i].name;
    }
    return true;
}
