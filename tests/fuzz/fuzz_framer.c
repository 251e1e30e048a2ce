/* Any bytes, in any pieces: the same events as in one piece, in the memory that the limits allow.
 *
 * Byte 0 chooses content namespace, limits and whether the framer relaxes between pieces; byte 1
 * seeds the sizes of the pieces; the rest is the stream. Where an input breaks two rules at once
 * the pieces may decide which one is seen first: a size limit, or what is wrong further on. */
#include "core/xml/framer.h"
#include "tests/unit/xml_dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_EXTRA = 400 * 1024 };

static struct framer_limits small_limits(void)
{
    struct framer_limits l = framer_limits_unauthenticated;
    l.header = 600;
    l.element = 500;
    l.token = 200;
    l.depth = 4;
    l.attrs = 5;
    l.children = 6;
    l.name = 30;
    l.ns_decls = 4;
    return l;
}

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void run(struct buf *out, uint8_t how, struct str in, uint32_t seed)
{
    struct framer_limits l = how & 2 ? small_limits() : framer_limits_default;
    struct framer *f = framer_new(how & 8   ? CONTENT_ROUTER
                                  : how & 1 ? CONTENT_COMPONENT
                                            : CONTENT_SERVER,
                                  &l);
    enum framer_result r = FRAMER_NEED_MORE;
    while (in.n && r == FRAMER_NEED_MORE) {
        size_t n = in.n;
        if (seed) {
            seed = seed * 1664525 + 1013904223;
            n = 1 + (seed >> 24) % (seed & 0x100000 ? 200 : 7);
        }
        if (n > in.n)
            n = in.n;
        check(framer_feed(f, (struct str){in.p, n}));
        r = dump_events(out, f);
        in.p += n;
        in.n -= n;
        check(framer_memory(f) <= 2 * l.element + l.parser_heap + MEMORY_EXTRA);
        if (seed && how & 4)
            framer_relax(f);
    }
    if (r == FRAMER_ERROR)
        buf_printf(out, "error %s\n", framer_error(f).condition);
    framer_free(f);
}

/* Cuts an error off; false: there was none. */
static bool cut_error(struct buf *b, bool *policy)
{
    char *at = b->p ? strstr(b->p, "error ") : NULL;
    for (char *next; at && (next = strstr(at + 1, "error ")) != NULL;)
        at = next;
    if (at == NULL || (at != b->p && at[-1] != '\n') || strchr(at, '\n') != b->p + b->len - 1)
        return false;
    *policy = strcmp(at, "error policy-violation\n") == 0;
    b->len = (size_t)(at - b->p);
    b->p[b->len] = '\0';
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct buf whole = BUF_INIT(1 << 26), pieces = BUF_INIT(1 << 26);
    struct str in = {(const char *)data + 2, size - 2};
    run(&whole, data[0], in, 0);
    run(&pieces, data[0], in, data[1] + 1u);
    if (!str_eq(buf_view(&whole), buf_view(&pieces))) {
        bool a = false, b = false;
        check(cut_error(&whole, &a) && cut_error(&pieces, &b));
        check(a || b);
        check(str_eq(buf_view(&whole), buf_view(&pieces)));
    }
    buf_free(&whole);
    buf_free(&pieces);
    return 0;
}
