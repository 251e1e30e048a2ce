#include "gateway/proto/arrival.h"

#include "core/stream/bounce.h"

bool arrival_read(struct arrival *a, const struct stanza *st, struct gw_actions *out)
{
    struct jid j;
    a->from = st->from.p ? jid_prepare(st->from, &j, &out->remote) : JID_BAD_DOMAIN;
    a->to = st->to.p ? jid_prepare(st->to, &j, &out->local) : JID_BAD_DOMAIN;
    return a->from != JID_BAD_DOMAIN && a->to != JID_BAD_DOMAIN;
}

bool arrival_proven(const struct authz *t, const struct gw_actions *out)
{
    const struct authz_pair *p = authz_find(t, str_c(out->local.ascii), str_c(out->remote.ascii));
    return p != NULL && p->state == AUTHZ_VALID;
}

void arrival_pass(const struct arrival *a, const struct stanza *st, struct gw_actions *out)
{
    bool malformed = a->from == JID_BAD_PART || a->to == JID_BAD_PART;
    struct gw_action *act;
    if (!malformed) {
        act = gw_act(out, ACT_DELIVER);
        act->u.pair.local = str_c(out->local.ascii);
        act->u.pair.remote = str_c(out->remote.ascii);
    } else if (a->from == JID_OK && bounce_allowed(st)) {
        act = gw_act(out, ACT_BOUNCE);
        act->u.bounce.type = "modify";
        act->u.bounce.condition = "jid-malformed";
        act->u.bounce.text = "the local or resource part of the address is malformed";
    } else {
        gw_act(out, ACT_DROP); /* nobody to tell */
    }
}
