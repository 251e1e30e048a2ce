#include "core/stream/payload.h"

#include "core/xml/ns.h"

/* libstrophe's parser would do, but has no limits and leaks when memory runs out. */
struct framer *payload_read(const struct stanza *st, const struct nonza **z)
{
    static const char begin[] = "<stream:stream xmlns='" NS_SERVER "' xmlns:stream='" NS_STREAM
                                "'><own xmlns='urn:sallyport:own'>";
    struct framer_event ev;
    struct framer *f = st->span.s.n <= PAYLOAD_MAX
                           ? framer_new(CONTENT_SERVER, &framer_limits_unauthenticated)
                           : NULL;
    if (f == NULL)
        return NULL;
    if (framer_feed(f, STR(begin)) && framer_feed(f, st->span.s) && framer_feed(f, STR("</own>")) &&
        framer_next(f, &ev) == FRAMER_EVENT && framer_next(f, &ev) == FRAMER_EVENT &&
        ev.kind == FRAMER_NONZA) {
        *z = ev.nonza;
        return f;
    }
    framer_free(f);
    return NULL;
}
