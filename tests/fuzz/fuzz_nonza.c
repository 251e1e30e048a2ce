/* Any bytes behind a stream header: whatever the framer calls a nonza is within its bounds, and
 * everything that reads nonzas survives it. */
#include <stdlib.h>

#include "core/stream/stream.h"
#include "core/xml/ns.h"
#include "gateway/proto/dialback.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_text(const struct nonza *z, struct str s)
{
    check(s.n == 0 || (s.p >= z->bytes && s.p + s.n <= z->bytes + z->nbytes));
}

static void check_bounds(const struct nonza *z)
{
    check(z->nnodes >= 1 && z->nnodes <= NONZA_NODES && z->nattrs <= NONZA_ATTRS);
    check(z->nbytes <= NONZA_BYTES && z->node[0].depth == 0);
    for (size_t i = 0; i < z->nnodes; i++) {
        const struct nonza_node *n = &z->node[i];
        check(i == 0 || (n->depth >= 1 && n->depth <= z->node[i - 1].depth + 1));
        check(n->attr + n->nattrs <= z->nattrs);
        check_text(z, n->name);
        check_text(z, n->text);
    }
}

static void read_all_ways(const struct nonza *z)
{
    struct stream_features f;
    struct str condition = STR_NONE, text = STR_NONE;
    stream_read_features(z, &f);
    check(!f.starttls_required || f.starttls);
    check(!stream_read_error(z, &condition, &text) || condition.n > 0);
    struct dialback_element e = dialback_read(z);
    check(e.kind != DIALBACK_NOT || e.key.n == 0);
    check((e.type == DIALBACK_ERROR) == (e.condition.p != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char header[] = "<stream:stream xmlns='" NS_SERVER "' xmlns:stream='" NS_STREAM
                                 "' xmlns:db='" NS_DIALBACK "' version='1.0'>";
    struct framer *f = framer_new(CONTENT_SERVER, &framer_limits_unauthenticated);
    struct framer_event ev;
    if (f == NULL)
        return 0;
    check(framer_feed(f, str_c(header)) && framer_next(f, &ev) == FRAMER_EVENT);
    if (framer_feed(f, (struct str){(const char *)data, size})) {
        while (framer_next(f, &ev) == FRAMER_EVENT) {
            if (ev.kind == FRAMER_NONZA) {
                check_bounds(ev.nonza);
                read_all_ways(ev.nonza);
            }
        }
    }
    framer_free(f);
    return 0;
}
