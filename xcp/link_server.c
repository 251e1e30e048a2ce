#include "xcp/link_server.h"

#include "core/base/list.h"
#include "core/xml/ns.h"
#include "xcp/handshake.h"

#define TO(s) (1u << LINK_##s)
const machine_edges link_server_edges[LINK_STATE_COUNT] = {
    [LINK_CONNECTED] = TO(TLS) | TO(HEADER) | TO(RESTING),
    [LINK_TLS] = TO(HEADER) | TO(RESTING),
    [LINK_HEADER] = TO(HANDSHAKE) | TO(RESTING),
    [LINK_HANDSHAKE] = TO(UP) | TO(CLOSING) | TO(RESTING),
    [LINK_UP] = TO(CLOSING) | TO(RESTING),
    [LINK_CLOSING] = TO(RESTING),
    [LINK_RESTING] = 0,
};
#undef TO

static struct link_server *machine(struct link_end *e)
{
    return CONTAINER_OF(e, struct link_server, end);
}

/* `from` is the component that was asked for, so that the peer finds its own name; absent when it
 * is none. */
static bool write_header(struct link_end *e, struct buf *b)
{
    struct link_server *m = machine(e);
    if (!env_hex_id(m->env, m->id, STREAM_ID_BYTES))
        return false;
    handshake_write_server_header(b, m->component[0] ? str_c(m->component) : STR_NONE,
                                  (struct str){m->id, STREAM_ID_HEX});
    return true;
}

static void begin(struct link_end *e, const struct tls_peer *tls, struct gw_actions *out)
{
    (void)out;
    machine(e)->tls = tls;
}

/* ---- which account --------------------------------------------------------------------------- */

static bool named(const struct link_server *m, size_t i)
{
    return str_is(m->cfg.accounts[i].component, m->component);
}

/* What stands between the peer and this account before any secret counts. */
static bool fits(const struct link_server *m, size_t i)
{
    const struct link_trust *trust = m->cfg.accounts[i].trust;
    return !link_wants_tls(trust) || (m->tls != NULL && trust_ok(link_trust_check(trust, m->tls)));
}

/* The first account of the name, and of those that fit; naccounts: none. */
static size_t first_account(const struct link_server *m, bool fitting)
{
    size_t i = 0;
    while (i < m->cfg.naccounts && !(named(m, i) && (!fitting || fits(m, i))))
        i++;
    return i;
}

static void judge(struct link_server *m, size_t account, struct gw_actions *out)
{
    const struct link_trust *trust = m->cfg.accounts[account].trust;
    m->account = account;
    m->judged = m->tls != NULL && link_wants_tls(trust);
    if (m->judged)
        m->verdict = link_judge(&m->end, trust, m->tls, out);
}

/* No account of that name fits: told by the first one. */
static void refuse_account(struct link_server *m, struct gw_actions *out)
{
    judge(m, first_account(m, false), out);
    if (m->judged)
        link_refuse_trust(&m->end, out, m->verdict);
    else
        link_refuse(&m->end, out, "not-authorized", LINK_TLS_NEEDED, END_UNAUTHORIZED);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static void on_header(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct link_server *m = machine(e);
    struct str to = ev->u.header->to;
    if (to.p == NULL || !domain_ascii(to, m->component)) {
        m->component[0] = '\0';
        link_refuse(e, out, "improper-addressing", "the header's to must name the component",
                    END_STREAM_ERROR_SENT);
        return;
    }
    e->name = str_c(m->component);
    if (first_account(m, false) == m->cfg.naccounts) {
        gw_log(out, LOG_WARN, "link.unknown", KV_S("component", to));
        link_refuse(e, out, "host-unknown", "no such component is configured", END_UNAUTHORIZED);
        return;
    }
    size_t found = first_account(m, true);
    if (found == m->cfg.naccounts) {
        refuse_account(m, out);
        return;
    }
    judge(m, found, out);
    if (link_send_header(e, out))
        link_set_state(e, LINK_HANDSHAKE, out);
}

/* With auth tls the certificate is proof enough; else a secret must be there, and it must fit. */
static bool proves(const struct link_server *m, size_t i, struct str digest)
{
    const struct link_account *a = &m->cfg.accounts[i];
    struct str id = {m->id, STREAM_ID_HEX};
    if (!named(m, i) || !fits(m, i))
        return false;
    if (a->trust != NULL && a->trust->auth == LINK_AUTH_TLS)
        return true;
    return a->secret.n > 0 && handshake_check(id, a->secret, digest);
}

static void on_handshake(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct str digest = nonza_text(ev->u.nonza);
    size_t i = 0;
    while (i < m->cfg.naccounts && !proves(m, i, digest))
        i++;
    if (i == m->cfg.naccounts) {
        link_refuse(&m->end, out, "not-authorized", "the handshake does not fit the secret",
                    END_UNAUTHORIZED);
        return;
    }
    if (i != m->account)
        judge(m, i, out);
    gw_send(out, HANDSHAKE_OK);
    link_up(&m->end, ev->now_ms, out);
    link_arm_keepalive(out, link_space_due(&m->end), ev->now_ms);
}

/* ---- traffic --------------------------------------------------------------------------------- */

static void on_nonza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (e->state == LINK_CLOSING)
        return;
    if (e->state == LINK_HANDSHAKE && nonza_is(ev->u.nonza, NS_COMPONENT, "handshake"))
        on_handshake(machine(e), ev, out);
    else
        link_refuse(e, out, e->was_up ? "unsupported-stanza-type" : "not-authorized",
                    "not an element of XEP-0114 at this point", END_STREAM_ERROR_SENT);
}

static void on_stanza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    (void)e;
    link_stanza(ev->u.stanza, out);
}

static void on_keepalive(struct link_end *e, uint64_t now, struct gw_actions *out)
{
    link_space(e, &machine(e)->probes.space, now, out);
    link_arm_keepalive(out, link_space_due(e), now);
}

void link_server_init(struct link_server *m, const struct link_server_config *cfg,
                      const struct env *env)
{
    static const struct link_role role = {.write_header = write_header,
                                          .begin = begin,
                                          .header = on_header,
                                          .nonza = on_nonza,
                                          .stanza = on_stanza,
                                          .keepalive = on_keepalive};
    *m = (struct link_server){.cfg = *cfg, .env = env};
    link_end_init(&m->end, &role, link_server_edges, cfg->keepalive_ms);
    m->end.auth_ms = cfg->auth_ms;
    m->end.close_ms = cfg->close_ms;
    m->end.start_tls = cfg->start_tls;
}

void link_server_step(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    link_end_step(&m->end, ev, out);
}
