/* The component link from both ends against arbitrary bytes: framer and machine together, as a peer
 * on the network sees them. The first byte chooses the end, whether the peer knows the secret, and
 * how the bytes are cut. Nothing may be delivered before the handshake, and nothing happens after
 * the end. */
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

enum { CLIENT = 1, PROVE = 2, PIECE = 4 };

struct link {
    bool client, up, over;
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

static const struct env env = {fixed_now, fixed_random, NULL};

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
    if (!l->up)
        abort();
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct link_account account = {STR("gw.lab"), STR("secret")};
    struct link_client_config c = {.component = STR("gw.lab"),
                                   .secret = STR("secret"),
                                   .ping_to = STR("alpha.lab"),
                                   .auth_ms = 1000,
                                   .close_ms = 1000};
    struct link_server_config s = {&account, 1, 1000, 1000, 1000};
    struct link l = {.client = data[0] & CLIENT};
    link_client_init(&l.c, &c, &env);
    link_server_init(&l.s, &s, &env);
    l.framer = framer_new(CONTENT_COMPONENT, &framer_limits_unauthenticated);
    if (l.framer == NULL)
        abort();
    step(&l, (struct gw_event){.kind = EV_OPENED});
    if (data[0] & PROVE)
        prove(&l);
    feed(&l, (struct str){(const char *)data + 1, size - 1}, data[0] & PIECE ? 1 : size);
    step(&l, (struct gw_event){.kind = EV_LOST, .u.text = STR("end")});
    if (!l.over)
        abort();
    framer_free(l.framer);
    return 0;
}
