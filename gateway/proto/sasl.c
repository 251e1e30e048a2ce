#include "gateway/proto/sasl.h"

#include "core/base/base64.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

static enum sasl_kind kind_of(struct str name)
{
    static const struct {
        const char *name;
        enum sasl_kind kind;
    } known[] = {
        {"auth", SASL_AUTH},           {"response", SASL_RESPONSE}, {"abort", SASL_ABORT},
        {"challenge", SASL_CHALLENGE}, {"success", SASL_SUCCESS},   {"failure", SASL_FAILURE},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_is(name, known[i].name))
            return known[i].kind;
    return SASL_UNKNOWN;
}

static void read_failure(const struct nonza *z, struct sasl_element *e)
{
    e->condition = STR("undefined-condition");
    for (int i = 1; i < z->nnodes; i++) {
        if (z->node[i].depth != 1 || !str_is(z->node[i].ns, NS_SASL))
            continue;
        if (str_is(z->node[i].name, "text"))
            e->text = z->node[i].text;
        else
            e->condition = z->node[i].name;
    }
}

struct sasl_element sasl_read(const struct nonza *z)
{
    struct sasl_element e = {.kind = SASL_NOT};
    if (!str_is(z->node[0].ns, NS_SASL))
        return e;
    e.kind = kind_of(z->node[0].name);
    e.mechanism = nonza_attr(z, "mechanism");
    e.data = str_trim(nonza_text(z));
    if (e.kind == SASL_FAILURE)
        read_failure(z, &e);
    return e;
}

enum sasl_authzid sasl_authzid(struct str data, struct domain *out)
{
    if (data.n == 0 || str_is(data, "="))
        return SASL_AUTHZID_NONE;
    struct buf name = BUF_INIT(NONZA_BYTES);
    enum sasl_authzid r = SASL_AUTHZID_NOT_BASE64;
    if (base64_read(&name, data))
        r = domain_prepare(buf_view(&name), out) ? SASL_AUTHZID_OK : SASL_AUTHZID_NOT_A_DOMAIN;
    buf_free(&name);
    return r;
}

void sasl_write_auth(struct buf *b, struct str domain)
{
    buf_puts(b, "<auth xmlns='" NS_SASL "' mechanism='EXTERNAL'>");
    base64_write(b, domain);
    buf_puts(b, "</auth>");
}

void sasl_write_response(struct buf *b, struct str domain)
{
    buf_puts(b, "<response xmlns='" NS_SASL "'>");
    base64_write(b, domain);
    buf_puts(b, "</response>");
}

void sasl_write_failure(struct buf *b, const char *condition, const char *text)
{
    buf_printf(b, "<failure xmlns='" NS_SASL "'><%s/>", condition);
    if (text != NULL) {
        buf_puts(b, "<text xml:lang='en'>");
        writer_text(b, str_c(text));
        buf_puts(b, "</text>");
    }
    buf_puts(b, "</failure>");
}
