#include "tests/twin/ledger.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/buf.h"

enum { STANZA_TEXT_MAX = 256 * 1024 };

const char *const ledger_domains[DOMAINS] = {"alpha.lab", "gamma.lab", "beta.lab", "delta.lab"};

static const struct {
    const char *name, *type, *child;
    bool bounceable;
} kinds[ITEM_KIND_COUNT] = {
    [ITEM_CHAT] = {"message", "chat", "body", true},
    [ITEM_QUERY] = {"iq", "get", "query", true},
    [ITEM_AVAILABLE] = {"presence", NULL, "status", true},
    [ITEM_ERROR] = {"message", "error", "body", false},
    [ITEM_RESULT] = {"iq", "result", "query", false},
    [ITEM_UNAVAILABLE] = {"presence", "unavailable", "status", false},
};

void ledger_open(struct ledger *l)
{
    *l = (struct ledger){.n = 1, .cap = 256};
    l->v = calloc(l->cap, sizeof *l->v);
    const char *number = getenv("TWIN_FOLLOW");
    if (number != NULL)
        l->follow = (size_t)strtoul(number, NULL, 10);
}

void ledger_close(struct ledger *l)
{
    free(l->v);
    l->v = NULL;
}

void ledger_fail(struct ledger *l, const char *fmt, ...)
{
    if (l->failure[0] != '\0')
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->failure, sizeof l->failure, fmt, ap);
    va_end(ap);
}

size_t ledger_new(struct ledger *l, enum item_kind kind, int from, int to, size_t size, bool odd)
{
    if (l->n == l->cap) {
        l->cap *= 2;
        l->v = realloc(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n] = (struct item){.kind = kind, .from = from, .to = to, .size = size, .odd = odd};
    return l->n++;
}

struct span ledger_text(const struct ledger *l, size_t number)
{
    const struct item *it = &l->v[number];
    struct buf b = BUF_INIT(STANZA_TEXT_MAX);
    const char *child = kinds[it->kind].child;
    buf_printf(&b, "<%s id='t%zu'", kinds[it->kind].name, number);
    if (kinds[it->kind].type != NULL)
        buf_printf(&b, " type='%s'", kinds[it->kind].type);
    buf_printf(&b, " from='u%zu@%s/r' to='v@%s%s'>", number, ledger_domains[it->from],
               ledger_domains[it->to], it->odd ? "." : "");
    buf_printf(&b, "<%s%s>", child, it->kind == ITEM_QUERY ? " xmlns='urn:twin'" : "");
    for (size_t i = 0; i < it->size; i++)
        buf_putc(&b, (char)('a' + (number * 7 + i * i) % 26));
    buf_printf(&b, "&lt;</%s></%s>", child, kinds[it->kind].name);
    struct span s = b.failed ? (struct span){NULL, STR_NONE} : span_copy(buf_view(&b));
    buf_free(&b);
    return s;
}

size_t ledger_number(const struct ledger *l, struct str stanza, bool *error)
{
    const char *end = memchr(stanza.p, '>', stanza.n);
    size_t head = end != NULL ? (size_t)(end - stanza.p) : stanza.n;
    size_t number = 0;
    bool is_error = false;
    for (size_t i = 0; i + 5 < head; i++) {
        struct str rest = {stanza.p + i, head - i};
        if (str_starts(rest, " id='t") || str_starts(rest, " id=\"t"))
            number = (size_t)strtoul(rest.p + 6, NULL, 10);
        if (str_starts(rest, " type='error'") || str_starts(rest, " type=\"error\""))
            is_error = true;
    }
    if (number == 0 || number >= l->n)
        return 0;
    *error = is_error && l->v[number].kind != ITEM_ERROR;
    return number;
}

static struct travel *travel_of(struct ledger *l, size_t number, bool error)
{
    return error ? &l->v[number].error : &l->v[number].self;
}

static void follow(const struct ledger *l, size_t number, bool error, const char *what,
                   unsigned wire)
{
    if (number == l->follow && number != 0)
        fprintf(stderr, "%s %zu: %s %u\n", error ? "bounce" : "stanza", number, what, wire);
}

void ledger_in_outbox(struct ledger *l, size_t number)
{
    follow(l, number, false, "in the outbox", 0);
    l->v[number].self.at = IN_OUTBOX;
}

void ledger_on_wire(struct ledger *l, size_t number, bool error, const struct wire *w, int side)
{
    struct travel *t = travel_of(l, number, error);
    follow(l, number, error, "on wire", w->id);
    t->at = ON_WIRE;
    t->wire = w;
    t->side = side;
    if (t->nseen < HOPS_MAX)
        t->seen[t->nseen++] = w;
}

void ledger_in_gateway(struct ledger *l, size_t number, bool error)
{
    follow(l, number, error, "in a gateway", 0);
    travel_of(l, number, error)->at = IN_GATEWAY;
}

void ledger_taken_back(struct ledger *l, size_t number, bool error)
{
    struct travel *t = travel_of(l, number, error);
    follow(l, number, error, "taken back from wire", t->wire->id);
    t->at = IN_GATEWAY;
    if (t->nseen > 0 && t->seen[t->nseen - 1] == t->wire)
        t->nseen--;
}

void ledger_bounced(struct ledger *l, size_t number, bool error)
{
    struct item *it = &l->v[number];
    if (error || !kinds[it->kind].bounceable)
        ledger_fail(l, "stanza %zu must not be bounced%s", number, error ? ": an error" : "");
    else if (it->self.arrived > 0)
        ledger_fail(l, "stanza %zu was bounced after it had arrived", number);
    else if (it->error.at != NOWHERE)
        ledger_fail(l, "stanza %zu was bounced twice", number);
    follow(l, number, error, "bounced", 0);
    it->error.at = IN_GATEWAY;
}

static bool passed_broken_wire(const struct travel *t)
{
    for (unsigned i = 0; i < t->nseen; i++)
        for (int k = 0; k < 2; k++)
            if (t->seen[i]->pipe[k].excuse != 0 || t->seen[i]->pipe[k].err != 0)
                return true;
    return t->nseen == HOPS_MAX;
}

static void check_order(struct ledger *l, size_t number)
{
    struct item *it = &l->v[number];
    size_t *last = &l->last[it->from][it->to];
    if (number > *last) {
        *last = number;
        return;
    }
    l->late++;
    if (!passed_broken_wire(&it->self))
        ledger_fail(l, "stanza %zu arrived after %zu of the same pair", number, *last);
}

static void check_contents(struct ledger *l, size_t number, bool error, const struct stanza *st)
{
    const struct item *it = &l->v[number];
    char from[80], to[80];
    snprintf(from, sizeof from, "u%zu@%s/r", number, ledger_domains[it->from]);
    snprintf(to, sizeof to, "v@%s%s", ledger_domains[it->to], error && it->odd ? "." : "");
    bool right = error ? str_is(st->to, from) : str_is(st->from, from) && str_is(st->to, to);
    /* The domain may be written with its last dot in an error's from. */
    if (error && !str_is(st->from, to) &&
        !(it->odd && st->from.n + 1 == strlen(to) && str_starts(str_c(to), "v@")))
        right = false;
    if (!right)
        ledger_fail(l, "%s %zu arrived as from=%.*s to=%.*s", error ? "bounce" : "stanza", number,
                    STR_ARG(st->from), STR_ARG(st->to));
    if (error || it->odd)
        return;
    struct span text = ledger_text(l, number);
    if (text.chunk != NULL && !str_eq(text.s, st->span.s))
        ledger_fail(l, "stanza %zu arrived with other bytes", number);
    span_release(&text);
}

void ledger_arrived(struct ledger *l, int site, const struct stanza *st)
{
    bool error;
    size_t number = ledger_number(l, st->span.s, &error);
    if (number == 0) {
        ledger_fail(l, "something that nobody sent arrived: %.120s", st->span.s.p);
        return;
    }
    struct item *it = &l->v[number];
    struct travel *t = travel_of(l, number, error);
    if ((error ? it->from : it->to) / 2 != site)
        ledger_fail(l, "stanza %zu arrived at the wrong place", number);
    if (t->arrived++ > 0)
        ledger_fail(l, "%s %zu arrived twice", error ? "bounce" : "stanza", number);
    if (!error && it->error.at != NOWHERE)
        ledger_fail(l, "stanza %zu arrived after it had been bounced", number);
    follow(l, number, error, "arrived", 0);
    t->at = ARRIVED;
    check_contents(l, number, error, st);
    if (!error)
        check_order(l, number);
}

static void settle_one(struct ledger *l, size_t number, bool error, uint64_t *dropped)
{
    const struct item *it = &l->v[number];
    const struct travel *t = travel_of(l, number, error);
    const char *what = error ? "bounce" : "stanza";
    switch (t->at) {
    case NOWHERE:
    case ARRIVED:
        break;
    case IN_OUTBOX:
        if (!l->stopped)
            ledger_fail(l, "stanza %zu never left the inside", number);
        break;
    case ON_WIRE:
        l->lost++;
        if (t->wire->pipe[t->side].excuse == 0)
            ledger_fail(l, "%s %zu is lost on wire %u, which lost nothing", what, number,
                        t->wire->id);
        break;
    case IN_GATEWAY:
        if (!error && it->error.at != NOWHERE)
            break;
        ++*dropped;
        if (!error && kinds[it->kind].bounceable)
            ledger_fail(l, "stanza %zu ended in a gateway without a bounce", number);
        break;
    }
}

void ledger_settle(struct ledger *l, uint64_t dropped)
{
    uint64_t found = 0;
    if (l->no_memory)
        return;
    for (size_t i = 1; i < l->n; i++) {
        settle_one(l, i, false, &found);
        settle_one(l, i, true, &found);
        l->arrived += l->v[i].self.at == ARRIVED;
        l->bounced += l->v[i].error.at != NOWHERE;
    }
    l->dropped += found;
    if (found != dropped)
        ledger_fail(l, "%llu stanzas ended in the gateways, which have counted %llu as dropped",
                    (unsigned long long)found, (unsigned long long)dropped);
}
