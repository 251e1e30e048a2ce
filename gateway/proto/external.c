#include "gateway/proto/external.h"

#include "core/xml/ns.h"

static enum external_result fail(struct external *x, struct gw_actions *out, const char *condition,
                                 const char *text)
{
    size_t begin = gw_send_begin(out);
    sasl_write_failure(&out->text, condition, text);
    gw_send_end(out, begin);
    gw_log(out, LOG_NOTICE, "sasl.refused", KV_C("reason", condition), KV_C("msg", text));
    x->challenged = false;
    return ++x->failures < EXTERNAL_ATTEMPTS ? EXTERNAL_GOES_ON : EXTERNAL_ENOUGH;
}

static enum external_result check_name(struct external *x, struct str data, const char *remote,
                                       struct gw_actions *out)
{
    x->challenged = false;
    switch (sasl_authzid(data, &out->remote)) {
    case SASL_AUTHZID_NONE:
        return EXTERNAL_PROVEN;
    case SASL_AUTHZID_OK:
        if (strcmp(out->remote.ascii, remote) == 0)
            return EXTERNAL_PROVEN;
        return fail(x, out, "invalid-authzid", "the name is not that of the stream header's from");
    case SASL_AUTHZID_NOT_BASE64:
        return fail(x, out, "incorrect-encoding", "the response is not base64");
    case SASL_AUTHZID_NOT_A_DOMAIN:
        break;
    }
    return fail(x, out, "invalid-authzid", "the name is not a domain name");
}

enum external_result external_in(struct external *x, const struct sasl_element *e,
                                 struct external_refusal refusal, const char *remote,
                                 struct gw_actions *out)
{
    if (e->kind == SASL_ABORT)
        return fail(x, out, "aborted", NULL);
    if (refusal.condition != NULL)
        return fail(x, out, refusal.condition, refusal.text);
    if (e->kind == SASL_RESPONSE && x->challenged)
        return check_name(x, e->data, remote, out);
    if (e->kind != SASL_AUTH)
        return fail(x, out, "malformed-request", NULL);
    if (!str_is(e->mechanism, "EXTERNAL"))
        return fail(x, out, "invalid-mechanism", "EXTERNAL is what is offered");
    if (e->data.n > 0)
        return check_name(x, e->data, remote, out);
    x->challenged = true;
    gw_send(out, "<challenge xmlns='" NS_SASL "'/>");
    return EXTERNAL_GOES_ON;
}
