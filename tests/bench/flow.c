/* Stanzas: made, written in batches, counted when they arrive.
 *
 * Each stanza names its direction, its domain and its number in its id, so that a missing, a
 * doubled or an overtaking one is seen. How many may be under way is bounded per stream, so that
 * the tool never measures the depth of a queue. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/load.h"

enum { ID_LENGTH = 15, NAME_LENGTH = 8, ADDRESSES = 31, STANZA_MAX = 16 * 1024 };

/* ---- making ---------------------------------------------------------------------------------- */

static void filler(struct buf *b, size_t n)
{
    static const char words[] = "the quick brown fox jumps over the lazy dog and back again, ";
    for (size_t i = 0; i < n; i++)
        buf_putc(b, words[i % (sizeof words - 1)]);
}

/* from and to, ADDRESSES characters in all; notes where the domain's number stands. */
static void addresses(const struct load *l, struct buf *b, int direction, size_t *domain_at)
{
    char remote[NAME_MAX_BYTES], inside[NAME_MAX_BYTES];
    domain_name(l, 0, remote);
    inside_name(l, inside);
    size_t used = strlen(remote) + strlen(inside) + 4,
           pad = used < ADDRESSES ? ADDRESSES - used : 1;
    bool in = direction == INWARD;
    buf_puts(b, in ? " from='u@r" : " to='u@r");
    *domain_at = b->len;
    buf_puts(b, remote + 1);
    buf_putc(b, '/');
    filler(b, pad - 1);
    buf_printf(b, "' %s='u@%s'", in ? "to" : "from", inside);
}

static void message(struct load *l, int direction, size_t body)
{
    struct buf *b = &l->plan.stanza[direction];
    buf_puts(b, "<message");
    addresses(l, b, direction, &l->plan.domain_at[direction]);
    buf_puts(b, " id='");
    l->plan.id_at[direction] = b->len;
    buf_puts(b, "zqi000000000000' type='chat'><body>fish &amp; chips &amp; ");
    filler(b, body - 26);
    buf_puts(b, "</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
}

static void presence(struct load *l, int direction)
{
    struct buf *b = &l->plan.stanza[direction];
    buf_puts(b, "<presence");
    addresses(l, b, direction, &l->plan.domain_at[direction]);
    buf_puts(b, " id='");
    l->plan.id_at[direction] = b->len;
    buf_puts(b, "zqi000000000000'><show>away</show><status>");
    filler(b, 34);
    buf_puts(b, "</status></presence>");
}

static void names(struct load *l, int direction)
{
    struct buf *b = &l->plan.stanza[direction];
    message(l, direction, 30);
    b->len -= sizeof "</message>" - 1;
    l->plan.names_at[direction] = b->len;
    for (unsigned i = 0; i < l->plan.names; i++)
        buf_puts(b, "<n00000000/>");
    buf_puts(b, "</message>");
}

static bool make(struct load *l, int direction, const char *kind)
{
    struct buf *b = &l->plan.stanza[direction];
    buf_free(b);
    buf_init(b, STANZA_MAX);
    l->plan.names = strcmp(kind, "names") == 0 ? 25 : 0;
    if (l->plan.names > 0)
        names(l, direction);
    else if (strcmp(kind, "presence") == 0)
        presence(l, direction);
    else if (strcmp(kind, "large") == 0)
        message(l, direction, 4200 - 165);
    else
        message(l, direction, 200);
    return !b->failed;
}

static void digits(char *p, unsigned n, unsigned base, uint32_t value)
{
    while (n > 0) {
        p[--n] = "0123456789abcdef"[value % base];
        value /= base;
    }
}

static void append(struct load *l, struct buf *out, int direction, unsigned stream)
{
    const struct plan *p = &l->plan;
    struct flow *f = &l->flow[direction];
    size_t at = out->len;
    uint32_t number = f->next_out[stream]++;
    unsigned domain = p->first + stream;
    buf_str(out, buf_view(&p->stanza[direction]));
    if (out->failed)
        return;
    char *s = out->p + at, *id = s + p->id_at[direction];
    digits(s + p->domain_at[direction], 4, 10, domain);
    id[2] = f->letter;
    digits(id + 3, 4, 10, domain);
    digits(id + 7, 8, 16, number);
    for (unsigned i = 0; i < p->names; i++)
        digits(s + p->names_at[direction] + i * 12 + 2, NAME_LENGTH, 16, number * p->names + i);
    f->sent++;
}

/* ---- sending --------------------------------------------------------------------------------- */

static bool may_send(const struct load *l, const struct flow *f, unsigned stream)
{
    return f->sent < f->count && f->next_out[stream] - f->next_in[stream] < l->plan.window;
}

static bool fill(struct load *l, struct conn *c, int direction, unsigned stream)
{
    unsigned n = 0;
    if (c == NULL || c->state != OPEN || !wire_idle(&c->wire) || c->wire.blocked)
        return false;
    while (n < l->plan.batch && may_send(l, &l->flow[direction], stream)) {
        append(l, &c->wire.out, direction, stream);
        n++;
    }
    wire_flush(&c->wire);
    return n > 0;
}

/* One connection for all domains, one batch: the destinations take turns. */
static bool fill_inside(struct load *l)
{
    struct conn *c = l->inside;
    unsigned n = 0, idle = 0;
    if (c == NULL || !wire_idle(&c->wire) || c->wire.blocked)
        return false;
    while (n < l->plan.batch && idle < l->plan.streams) {
        unsigned stream = l->turn++ % l->plan.streams;
        if (may_send(l, &l->flow[OUTWARD], stream)) {
            append(l, &c->wire.out, OUTWARD, stream);
            n++;
            idle = 0;
        } else {
            idle++;
        }
    }
    wire_flush(&c->wire);
    return n > 0;
}

bool flow_feed(struct load *l)
{
    bool any = false;
    for (unsigned i = 0; l->flow[INWARD].on && i < l->plan.streams; i++)
        any = fill(l, l->stream[l->plan.first + i], INWARD, i) || any;
    if (l->flow[OUTWARD].on && !l->opt.relay)
        any = fill_inside(l) || any;
    for (unsigned i = 0; l->flow[OUTWARD].on && l->opt.relay && i < l->plan.streams; i++)
        any = fill(l, l->feed[l->plan.first + i], OUTWARD, i) || any;
    return any;
}

/* ---- receiving ------------------------------------------------------------------------------- */

void flow_stanza(struct load *l, const struct conn *c, struct str element)
{
    struct str id = wire_attribute(element, "id");
    struct flow *f = &l->flow[c->kind == INSIDE ? INWARD : OUTWARD];
    if (id.n != ID_LENGTH || !str_starts(id, "zq") || !f->on)
        return; /* pings and the like */
    char text[ID_LENGTH + 1], number[5] = "";
    str_copy(text, sizeof text, id);
    memcpy(number, text + 3, 4);
    uint32_t stream = (uint32_t)strtoul(number, NULL, 10) - l->plan.first;
    uint32_t seq = (uint32_t)strtoul(text + 7, NULL, 16);
    size_t whole = l->plan.stanza[f == &l->flow[OUTWARD]].len;
    if (text[2] != f->letter || stream >= l->plan.streams || element.n + 80 < whole) {
        f->foreign++; /* a bounce, most likely */
        return;
    }
    if (seq != f->next_in[stream])
        f->disorder++;
    f->next_in[stream] = seq + 1;
    f->received++;
}

bool flow_done(const struct load *l)
{
    for (int i = 0; i < 2; i++)
        if (l->flow[i].on && l->flow[i].received + l->flow[i].foreign < l->flow[i].count)
            return false;
    return true;
}

/* ---- a run ----------------------------------------------------------------------------------- */

bool flow_start(struct load *l, const char *directions, const char *kind)
{
    for (int i = 0; i < 2; i++) {
        struct flow *f = &l->flow[i];
        uint64_t count = f->count;
        free(f->next_in);
        free(f->next_out);
        *f = (struct flow){.letter = "io"[i], .count = count};
        f->on =
            strcmp(directions, "both") == 0 || strcmp(directions, i == INWARD ? "in" : "out") == 0;
        f->next_in = calloc(l->plan.streams, sizeof *f->next_in);
        f->next_out = calloc(l->plan.streams, sizeof *f->next_out);
        if (f->next_in == NULL || f->next_out == NULL || !make(l, i, kind))
            return false;
    }
    return true;
}
