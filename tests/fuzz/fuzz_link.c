/* The component link from both ends against arbitrary bytes: framer and machine together, as a peer
 * on the network sees them. The first byte chooses the end, whether the peer knows the secret, how
 * the bytes are cut, and TLS: whether it is asked for, with which certificate, and whether the
 * bytes come in front of it. Nothing may be delivered before the handshake, no link is up without
 * the proof that it asks for, and nothing happens after the end. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "core/stream/bounce.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "xcp/handshake.h"
#include "xcp/link_client.h"
#include "xcp/link_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Seeds are files of text, so 0x30 is set in most of them. */
enum { CLIENT = 1, PROVE = 2, PIECE = 4, TLS = 8, START = 16, FIRST = 32, WRONG = 64, NAMED = 128 };

struct link {
    bool client, up, over;
    bool trusted; /* as far as its trust asks */
    bool dirty;   /* bytes came in front of TLS */
    struct link_client c;
    struct link_server s;
    struct framer *framer;
};

static uint64_t fixed_now(void *ctx)
{
    (void)ctx;
    return 1;
}

static bool fixed_random(void *ctx, unsigned char *out, size_t n)
{
    (void)ctx;
    memset(out, 0x5A, n);
    return true;
}

static int64_t fixed_wall(void *ctx)
{
    (void)ctx;
    return 1766000000000;
}

static const struct env env = {fixed_now, fixed_random, NULL, fixed_wall};

/* ---- certificates ---------------------------------------------------------------------------- */

static const struct key_hash stored = {KEY_HASH_SHA256, "imported"};
static const struct link_trust imported = {.auth = LINK_AUTH_TLS, .store = &stored, .nstore = 1};
static const struct link_trust rooted = {.auth = LINK_AUTH_TLS_PASSWORD,
                                         .peer_name = {"peer.lab", 8}};
static const struct tls_name name = {TLS_NAME_DNS, "peer.lab"};

static struct tls_peer peer_of(unsigned how)
{
    struct tls_peer p = {.has_certificate = true, .in_time = true, .subject = "CN=peer"};
    if (how & WRONG) {
        p.self_signed = true;
    } else if (how & NAMED) {
        p.chain_ok = true;
        p.names = &name;
        p.nnames = 1;
    } else {
        memcpy(p.certificate_sha256, stored.bytes, sizeof stored.bytes);
    }
    return p;
}

/* ---- the link -------------------------------------------------------------------------------- */

static void answer(const struct stanza *st)
{
    struct writer_target target = {.content = CONTENT_COMPONENT};
    struct span forward = writer_restamp(st, &target);
    span_release(&forward);
    struct span own = bounce_answer(st, CONTENT_COMPONENT);
    if (own.chunk != NULL && !bounce_allowed(st))
        abort();
    span_release(&own);
}

static void step(struct link *l, struct gw_event ev)
{
    struct gw_actions out;
    gw_actions_init(&out);
    ev.now_ms = 1;
    if (l->client)
        link_client_step(&l->c, &ev, &out);
    else
        link_server_step(&l->s, &ev, &out);
    for (unsigned i = 0; i < out.n; i++) {
        if (l->over)
            abort();
        if (out.v[i].kind == ACT_READY && !l->trusted)
            abort();
        if (out.v[i].kind == ACT_READY)
            l->up = true;
        if (out.v[i].kind == ACT_LIMITS)
            framer_set_limits(l->framer, &framer_limits_default);
        if (out.v[i].kind == ACT_DELIVER && !l->up)
            abort();
        if (out.v[i].kind == ACT_DELIVER)
            answer(ev.u.stanza);
        if (out.v[i].kind == ACT_CLOSE)
            l->over = true;
    }
    gw_actions_free(&out);
}

static void drain_framer(struct link *l)
{
    struct framer_event fe;
    enum framer_result r;
    while (!l->over && (r = framer_next(l->framer, &fe)) != FRAMER_NEED_MORE) {
        struct gw_event ev = {.kind = EV_XML_ERROR};
        if (r == FRAMER_ERROR) {
            ev.u.error = framer_error(l->framer);
        } else if (fe.kind == FRAMER_STREAM_OPEN) {
            ev.kind = EV_STREAM_OPEN;
            ev.u.header = fe.header;
        } else if (fe.kind == FRAMER_NONZA) {
            ev.kind = EV_NONZA;
            ev.u.nonza = fe.nonza;
        } else if (fe.kind == FRAMER_STANZA) {
            ev.kind = EV_STANZA;
            ev.u.stanza = &fe.stanza;
        } else {
            ev.kind = EV_STREAM_CLOSE;
        }
        step(l, ev);
        if (r == FRAMER_ERROR && !l->over)
            abort();
    }
}

static void feed(struct link *l, struct str bytes, size_t piece)
{
    while (bytes.n > 0 && !l->over) {
        size_t n = bytes.n < piece ? bytes.n : piece;
        if (!framer_feed(l->framer, (struct str){bytes.p, n}))
            abort();
        drain_framer(l);
        bytes = (struct str){bytes.p + n, bytes.n - n};
    }
}

/* What a peer that knows the secret says first. */
static void prove(struct link *l)
{
    struct buf b = BUF_INIT(4096);
    if (l->client) {
        handshake_write_server_header(&b, STR("gw.lab"), STR("id"));
        buf_puts(&b, HANDSHAKE_OK);
        feed(l, buf_view(&b), b.len);
    } else {
        handshake_write_client_header(&b, STR("gw.lab"));
        feed(l, buf_view(&b), b.len);
        buf_clear(&b);
        handshake_write(&b, str_c(l->s.id), STR("secret"));
        feed(l, buf_view(&b), b.len);
    }
    if (!l->dirty && l->up != l->trusted)
        abort();
    buf_free(&b);
}

static void init(struct link *l, unsigned how, const struct link_account *account)
{
    struct link_client_config c = {.component = account->component,
                                   .secret = account->secret,
                                   .trust = account->trust,
                                   .ping_to = STR("alpha.lab"),
                                   .auth_ms = 1000,
                                   .close_ms = 1000};
    struct link_server_config s = {.accounts = account,
                                   .naccounts = 1,
                                   .auth_ms = 1000,
                                   .close_ms = 1000,
                                   .keepalive_ms = 1000,
                                   .start_tls = (how & TLS) && !(how & START)};
    link_client_init(&l->c, &c, &env);
    link_server_init(&l->s, &s, &env);
    l->framer = framer_new(CONTENT_COMPONENT, &framer_limits_unauthenticated);
    if (l->framer == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned how = data[0];
    struct str bytes = {(const char *)data + 1, size - 1};
    size_t piece = how & PIECE ? 1 : size;
    struct tls_peer peer = peer_of(how);
    struct link l = {.client = how & CLIENT, .trusted = !(how & TLS)};
    struct link_account account = {STR("gw.lab"), STR("secret"), NULL};
    if (how & TLS)
        account.trust = how & NAMED ? &rooted : &imported;
    init(&l, how, &account);
    step(&l, (struct gw_event){.kind = EV_OPENED});
    l.dirty = how & TLS && !(how & FIRST);
    if (l.dirty)
        feed(&l, bytes, piece);
    if (how & TLS && !l.over) {
        struct link_end *e = l.client ? &l.c.end : &l.s.end;
        l.trusted = !(how & WRONG) && !e->header_sent;
        step(&l, (struct gw_event){.kind = EV_TLS_UP, .u.tls = &peer});
    }
    if (how & PROVE && !l.over)
        prove(&l);
    feed(&l, bytes, piece);
    step(&l, (struct gw_event){.kind = EV_LOST, .u.text = STR("end")});
    if (!l.over)
        abort();
    framer_free(l.framer);
    return 0;
}
