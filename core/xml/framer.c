/* The framer's bytes: the receive chunk, feeding and replacing parsers, handing out events. What
 * expat reports is digested in framer_xml.c; framer.h tells the story, framer_priv.h the fields. */
#include "core/xml/framer.h"

#include "core/base/mem.h"
#include "core/xml/framer_priv.h"
#include "core/xml/ns.h"

enum { MIN_ROOM = 4096, TEXT_MAX = 1 << 20 };

const struct framer_limits framer_limits_unauthenticated = {
    .header = 8192,
    .element = 8192,
    .token = 8192,
    .depth = 16,
    .attrs = 64,
    .children = 128,
    .name = 256,
    .ns_decls = 32,
    .parser_heap = 256 * 1024,
};

const struct framer_limits framer_limits_default = {
    .header = 8192,
    .element = 256 * 1024,
    .token = 16384,
    .depth = 64,
    .attrs = 64,
    .children = 4096,
    .name = 256,
    .ns_decls = 64,
    .parser_heap = 1024 * 1024,
};

const char *framer_content_name(enum content_ns content)
{
    static const char *const names[] = {NS_SERVER, NS_COMPONENT, ""};
    return names[content];
}

/* The first failure counts. */
void framer_fail(struct framer *f, const char *condition, const char *text)
{
    if (f->phase == FRAMER_FAILED)
        return;
    f->phase = FRAMER_FAILED;
    f->ready = 0;
    f->error = (struct framer_error){condition, text};
    if (f->parser != NULL)
        XML_StopParser(f->parser, XML_FALSE);
}

static void each_buf(struct framer *f, void (*fn)(struct buf *))
{
    struct buf *const all[] = {&f->header_text,    &f->content_text, &f->root_prefix, &f->outer,
                               &f->ns_text,        &f->fact_text,    &f->route_text,  &f->route_ns,
                               &f->route_prefixes, &f->route_outer};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        fn(all[i]);
}

static void limit_buf(struct buf *b)
{
    buf_init(b, TEXT_MAX);
}

static void use_limits(struct framer *f, const struct framer_limits *limits)
{
    f->limits = *limits;
    f->heap.max = limits->parser_heap;
    f->has_later = false;
}

struct framer *framer_new(enum content_ns content, const struct framer_limits *limits)
{
    struct framer *f = mem_zalloc(sizeof *f);
    if (f == NULL)
        return NULL;
    f->content = content;
    each_buf(f, limit_buf);
    use_limits(f, limits);
    return f;
}

/* What was fed and not reported will be fed again, to the next parser. */
static void drop_parser(struct framer *f)
{
    xml_parser_free(&f->heap, f->parser);
    f->parser = NULL;
    f->parser_bytes = 0;
    f->suspended = false;
    f->fed = f->mark;
}

static void drop_chunk(struct framer *f)
{
    chunk_unref(f->chunk);
    f->chunk = NULL;
    f->mark = f->fed = 0;
}

void framer_free(struct framer *f)
{
    if (f == NULL)
        return;
    drop_parser(f);
    drop_chunk(f);
    each_buf(f, buf_free);
    mem_free(f->nonza);
    mem_free(f);
}

static bool between_elements(const struct framer *f)
{
    return f->phase != FRAMER_OPEN || (f->depth == 1 && !(f->ready & READY_ELEMENT));
}

void framer_set_limits(struct framer *f, const struct framer_limits *limits)
{
    if (between_elements(f)) {
        use_limits(f, limits);
    } else {
        f->later = *limits;
        f->has_later = true;
    }
}

/* ---- receive chunk ---- */

static size_t unread(const struct framer *f)
{
    return f->chunk ? f->chunk->len - f->mark : 0;
}

/* The first `by` bytes of the chunk go away (or the rest is copied to a new one). */
static void shift(struct framer *f, size_t by)
{
    f->mark -= by;
    f->fed -= by;
    f->start -= by;
    f->inner_start -= by;
    f->inner_end -= by;
    f->base += (int64_t)by;
}

/* Copies what is unread into a new chunk that has room for as much again. */
static bool new_chunk(struct framer *f)
{
    size_t n = unread(f), limit = f->limits.element;
    if (f->limits.header > limit)
        limit = f->limits.header;
    size_t most = limit + FRAMER_CHUNK, cap = n ? 2 * n + FRAMER_CHUNK : FRAMER_CHUNK;
    if (cap > most)
        cap = most;
    struct chunk *c = n < cap ? chunk_new(cap) : NULL;
    if (c == NULL)
        return false;
    if (n)
        memcpy(c->data, f->chunk->data + f->mark, n);
    c->len = (uint32_t)n;
    chunk_unref(f->chunk);
    f->chunk = c;
    shift(f, f->mark);
    return true;
}

/* Nobody else looks at the chunk: what is unread may move to its beginning. */
static void reuse_chunk(struct framer *f)
{
    struct chunk *c = f->chunk;
    size_t n = unread(f);
    memmove(c->data, c->data + f->mark, n);
    c->len = (uint32_t)n;
    shift(f, f->mark);
}

char *framer_room(struct framer *f, size_t *n)
{
    struct chunk *c = f->chunk;
    if (c != NULL && c->refs == 1 && f->mark && (f->mark == c->len || c->cap - c->len < MIN_ROOM))
        reuse_chunk(f);
    if ((c == NULL || c->cap - c->len < MIN_ROOM) && !new_chunk(f) &&
        (c == NULL || c->cap == c->len))
        return NULL;
    *n = f->chunk->cap - f->chunk->len;
    return f->chunk->data + f->chunk->len;
}

void framer_filled(struct framer *f, size_t n)
{
    f->chunk->len += (uint32_t)n;
}

bool framer_feed(struct framer *f, struct str bytes)
{
    while (bytes.n) {
        size_t n;
        char *room = framer_room(f, &n);
        if (room == NULL)
            return false;
        if (n > bytes.n)
            n = bytes.n;
        memcpy(room, bytes.p, n);
        framer_filled(f, n);
        bytes.p += n;
        bytes.n -= n;
    }
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Keepalives need no parser: white space at a boundary is stepped over. */
static void skip_space(struct framer *f)
{
    size_t from = f->fed;
    if (!between_elements(f) || f->fed != f->mark || f->chunk == NULL)
        return;
    while (f->fed < f->chunk->len && is_space(f->chunk->data[f->fed]))
        f->fed++;
    f->mark = f->fed;
    f->base -= (int64_t)(f->fed - from);
}

/* ---- parser ---- */

/* A new parser that stands where the old one stood: inside a stream element which declares the same
 * prefixes. The priming header does not count as input. */
static bool prime(struct framer *f)
{
    struct buf b = BUF_INIT(2 * TEXT_MAX);
    buf_putc(&b, '<');
    buf_str(&b, buf_view(&f->root_prefix));
    buf_puts(&b, ":stream xmlns='");
    buf_puts(&b, framer_content_name(f->content));
    buf_putc(&b, '\'');
    buf_str(&b, buf_view(&f->outer));
    buf_putc(&b, '>');
    f->priming = true;
    bool ok = !b.failed && xml_parser_feed(&f->heap, f->parser, buf_view(&b)) == XML_STATUS_OK;
    f->priming = false;
    f->base = (int64_t)b.len - (int64_t)f->fed;
    buf_free(&b);
    return ok;
}

static bool ensure_parser(struct framer *f)
{
    if (f->parser != NULL)
        return true;
    f->heap.full = false;
    f->parser = xml_parser_new(&f->heap);
    f->depth = 0;
    f->base = -(int64_t)f->fed;
    if (f->parser != NULL) {
        framer_xml_attach(f);
        if (f->phase != FRAMER_OPEN || prime(f))
            return true;
    }
    framer_fail(f, f->heap.full ? "policy-violation" : "resource-constraint", "out of memory");
    return false;
}

/* Before the header, expat would guess UTF-16 from the first two bytes although UTF-8 is forced.
 * False: not enough bytes yet, or failed. */
static bool prolog_begins(struct framer *f)
{
    const unsigned char *p = (const unsigned char *)f->chunk->data + f->fed;
    if (p[0] == 0xFE || p[0] == 0xFF || p[0] == 0)
        framer_fail(f, "unsupported-encoding", "not UTF-8");
    else if (p[0] != '<')
        framer_fail(f, "not-well-formed", "no stream header");
    else if (f->chunk->len - f->fed < 2)
        return false;
    else if (p[1] == 0)
        framer_fail(f, "unsupported-encoding", "not UTF-8");
    return f->phase != FRAMER_FAILED;
}

/* Directly inside the stream stands text: that is bad-format however wrong the text is, since what
 * expat says first about `x]]>` depends on where the input was cut. */
static bool stray_text(const struct framer *f)
{
    struct str s = {f->chunk->data + f->mark, unread(f)};
    if (f->phase != FRAMER_OPEN || !between_elements(f))
        return false;
    s = str_trim(s);
    return s.n && s.p[0] != '<' && s.p[0] != '&';
}

static void refuse_xml(struct framer *f)
{
    switch (XML_GetErrorCode(f->parser)) {
    case XML_ERROR_NO_MEMORY:
        if (f->heap.full)
            framer_fail(f, "policy-violation", "too complicated");
        else
            framer_fail(f, "resource-constraint", "out of memory");
        break;
    case XML_ERROR_UNDEFINED_ENTITY:
    case XML_ERROR_RECURSIVE_ENTITY_REF:
    case XML_ERROR_BINARY_ENTITY_REF:
    case XML_ERROR_ATTRIBUTE_EXTERNAL_ENTITY_REF:
    case XML_ERROR_AMPLIFICATION_LIMIT_BREACH:
        framer_fail(f, "restricted-xml", "entity reference");
        break;
    case XML_ERROR_UNKNOWN_ENCODING:
    case XML_ERROR_INCORRECT_ENCODING:
        framer_fail(f, "unsupported-encoding", "not UTF-8");
        break;
    default:
        if (stray_text(f))
            framer_fail(f, "bad-format", "text directly inside the stream");
        else
            framer_fail(f, "not-well-formed", XML_ErrorString(XML_GetErrorCode(f->parser)));
    }
}

static size_t present_limit(const struct framer *f)
{
    return f->phase == FRAMER_PROLOG ? f->limits.header : f->limits.element;
}

/* Everything given has been parsed: what is left is one unfinished element. */
static void check_unfinished(struct framer *f)
{
    XML_Index token = XML_GetCurrentByteIndex(f->parser);
    if (f->fed - f->mark > present_limit(f))
        framer_fail(f, "policy-violation",
                    f->phase == FRAMER_PROLOG ? "stream header too long" : "element too large");
    else if (f->phase == FRAMER_OPEN && token >= 0 &&
             (int64_t)f->fed + f->base - token > (int64_t)f->limits.token)
        framer_fail(f, "policy-violation", "tag too long");
}

/* How many bytes to parse next; 0: none there, or failed. */
static size_t piece(struct framer *f)
{
    size_t n = f->chunk ? f->chunk->len - f->fed : 0;
    size_t pending = f->fed - f->mark, limit = present_limit(f);
    if (n == 0)
        return 0;
    if (pending >= limit) {
        framer_fail(f, "policy-violation",
                    f->phase == FRAMER_PROLOG ? "stream header too long" : "element too large");
        return 0;
    }
    if (n > limit - pending)
        n = limit - pending;
    return n < FRAMER_PIECE ? n : FRAMER_PIECE;
}

static bool feed(struct framer *f, enum XML_Status *status)
{
    skip_space(f);
    size_t n = piece(f);
    if (n == 0 || (f->phase == FRAMER_PROLOG && f->parser == NULL && !prolog_begins(f)) ||
        !ensure_parser(f))
        return false;
    struct str bytes = {f->chunk->data + f->fed, n};
    f->fed += n;
    f->parser_bytes += n;
    *status = xml_parser_feed(&f->heap, f->parser, bytes);
    return true;
}

/* Lets expat work once. False: no more input. */
static bool advance(struct framer *f)
{
    enum XML_Status status;
    if (f->parser != NULL && between_elements(f) && f->parser_bytes >= FRAMER_PARSER_LIFE &&
        (f->suspended || f->fed == f->mark))
        drop_parser(f);
    if (f->suspended) {
        f->suspended = false;
        status = xml_parser_resume(&f->heap, f->parser);
    } else if (!feed(f, &status)) {
        return false;
    }
    if (f->phase == FRAMER_FAILED)
        return false;
    if (status == XML_STATUS_ERROR)
        refuse_xml(f);
    else if (status == XML_STATUS_OK)
        check_unfinished(f);
    return true;
}

/* ---- events ---- */

static struct span span_of(struct framer *f, size_t start, size_t end)
{
    return (struct span){f->chunk, {f->chunk->data + start, end - start}};
}

/* What the event says of a stanza becomes that of the one in the route. */
static void report_route(struct framer *f, struct stanza *st)
{
    if (f->parts == 0 && f->route.fault == NULL)
        f->route.fault = "there is nothing in it";
    if (f->route.fault != NULL)
        *st = (struct stanza){.span = st->span};
    st->route = &f->route;
    if (f->route.fault != NULL)
        return;
    st->content_ns = buf_view(&f->route_ns);
    if (f->route_prefixes.len > 0)
        st->outer = buf_view(&f->route_outer);
    st->span = span_of(f, f->inner_start, f->inner_end);
}

static void report_element(struct framer *f, struct framer_event *ev)
{
    ev->bytes = f->end - f->start;
    if (!f->is_stanza) {
        ev->kind = FRAMER_NONZA;
        ev->nonza = f->nonza;
        return;
    }
    ev->kind = FRAMER_STANZA;
    ev->stanza = (struct stanza){
        .kind = f->kind,
        .odd = f->odd,
        .from = f->fact[0],
        .to = f->fact[1],
        .id = f->fact[2],
        .type = f->fact[3],
        .lang = f->fact[4],
        .inherited_lang = f->header.lang,
        .content_ns = f->header.content_ns,
        .outer = buf_view(&f->outer),
        .span = span_of(f, f->start, f->end),
    };
    if (f->in_route)
        report_route(f, &ev->stanza);
}

/* Hands out the first event that is ready; false: none. */
static bool take_event(struct framer *f, struct framer_event *ev)
{
    if (f->ready & READY_OPEN) {
        f->ready &= ~(unsigned)READY_OPEN;
        ev->kind = FRAMER_STREAM_OPEN;
        ev->header = &f->header;
        ev->bytes = f->header_bytes;
    } else if (f->ready & READY_ELEMENT) {
        f->ready &= ~(unsigned)READY_ELEMENT;
        report_element(f, ev);
    } else if (f->ready & READY_CLOSE) {
        f->ready &= ~(unsigned)READY_CLOSE;
        ev->kind = FRAMER_STREAM_CLOSE;
        ev->bytes = f->close_bytes;
    } else {
        return false;
    }
    return true;
}

/* The event given out last is over. */
static void next_element(struct framer *f)
{
    if (!between_elements(f))
        return;
    if (f->has_later)
        use_limits(f, &f->later);
    if (f->suspended)
        framer_xml_reset(f);
}

enum framer_result framer_next(struct framer *f, struct framer_event *ev)
{
    next_element(f);
    *ev = (struct framer_event){.header = NULL};
    while (!take_event(f, ev)) {
        if (f->phase == FRAMER_CLOSED || f->phase == FRAMER_FAILED) {
            drop_parser(f);
            drop_chunk(f);
            return f->phase == FRAMER_FAILED ? FRAMER_ERROR : FRAMER_NEED_MORE;
        }
        if (!advance(f) && f->phase != FRAMER_FAILED)
            return FRAMER_NEED_MORE;
    }
    return FRAMER_EVENT;
}

struct framer_error framer_error(const struct framer *f)
{
    return f->error;
}

/* ---- the stream as a whole ---- */

static bool only_space_unread(const struct framer *f)
{
    return unread(f) == 0 || str_trim((struct str){f->chunk->data + f->mark, unread(f)}).n == 0;
}

bool framer_restart(struct framer *f)
{
    bool clean = only_space_unread(f);
    if (f->phase == FRAMER_FAILED)
        return clean;
    if (clean && f->chunk != NULL)
        f->mark = f->chunk->len;
    drop_parser(f);
    buf_clear(&f->header_text);
    buf_clear(&f->content_text);
    buf_clear(&f->root_prefix);
    buf_clear(&f->outer);
    f->header = (struct stream_header){.declares_dialback = false};
    f->phase = FRAMER_PROLOG;
    f->depth = f->ready = 0;
    framer_xml_reset(f);
    return clean;
}

bool framer_quiet(const struct framer *f)
{
    return f->ready == 0 && between_elements(f) && only_space_unread(f);
}

void framer_relax(struct framer *f)
{
    if (!framer_quiet(f))
        return;
    drop_parser(f);
    drop_chunk(f);
    struct buf *const idle[] = {&f->ns_text,  &f->fact_text,      &f->route_text,
                                &f->route_ns, &f->route_prefixes, &f->route_outer};
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++)
        buf_free(idle[i]);
    mem_free(f->nonza);
    f->nonza = NULL;
    framer_xml_reset(f);
}

size_t framer_memory(const struct framer *f)
{
    return sizeof *f + (f->chunk ? f->chunk->cap : 0) + f->heap.used + f->header_text.cap +
           f->content_text.cap + f->root_prefix.cap + f->outer.cap + f->ns_text.cap +
           f->fact_text.cap + f->route_text.cap + f->route_ns.cap + f->route_prefixes.cap +
           f->route_outer.cap + (f->nonza ? sizeof *f->nonza : 0);
}
