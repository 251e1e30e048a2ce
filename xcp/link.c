#include "xcp/link.h"

#include "core/stream/bounce.h"
#include "core/stream/stream.h"

void link_stanza(const struct stanza *st, struct gw_actions *out)
{
    struct jid from, to;
    enum jid_verdict vf = st->from.p ? jid_prepare(st->from, &from, &out->local) : JID_BAD_DOMAIN;
    enum jid_verdict vt = st->to.p ? jid_prepare(st->to, &to, &out->remote) : JID_BAD_DOMAIN;
    struct gw_action *act;
    if (vf == JID_OK && vt == JID_OK) {
        act = gw_act(out, ACT_DELIVER);
        act->u.pair.local = str_c(out->local.ascii);
        act->u.pair.remote = str_c(out->remote.ascii);
    } else if (vf == JID_OK && bounce_allowed(st)) {
        act = gw_act(out, ACT_BOUNCE);
        act->u.bounce.type = "modify";
        act->u.bounce.condition = st->to.p ? "jid-malformed" : "bad-request";
        act->u.bounce.text = "the stanza needs a valid recipient address";
    } else {
        gw_act(out, ACT_DROP);
    }
}

void link_write_error(struct gw_actions *out, const char *condition, const char *text)
{
    size_t begin = gw_send_begin(out);
    stream_write_error(&out->text, condition, text);
    gw_send_end(out, begin);
    gw_log(out, LOG_WARN, "link.refused", KV_C("reason", condition), KV_C("msg", text));
}

static enum end_reason reason_of(struct str condition)
{
    if (str_is(condition, "not-authorized") || str_is(condition, "host-unknown"))
        return END_UNAUTHORIZED;
    return str_is(condition, "conflict") ? END_CONFLICT : END_STREAM_ERROR_RECEIVED;
}

enum end_reason link_read_error(const struct nonza *z, struct gw_actions *out)
{
    struct str condition, text;
    if (!stream_read_error(z, &condition, &text))
        return END_NONE;
    gw_log(out, LOG_WARN, "link.error.received", KV_S("reason", condition), KV_S("msg", text));
    return reason_of(condition);
}
