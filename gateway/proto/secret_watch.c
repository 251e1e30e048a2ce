#include "gateway/proto/secret_watch.h"

#include <string.h>

#include "core/base/digest.h"

static uint64_t hash(struct str s)
{
    unsigned char raw[DIGEST_SHA256];
    uint64_t h = 0;
    if (digest_sha256(raw, s))
        memcpy(&h, raw, sizeof h);
    return h;
}

static struct secret_event event_of(struct str local, struct str remote, struct str id,
                                    uint64_t now_ms)
{
    return (struct secret_event){now_ms + 1, hash(local), hash(remote), hash(id), false};
}

static bool recent(const struct secret_event *e, uint64_t now_ms)
{
    return e->when != 0 && now_ms < e->when + SECRET_WATCH_MS;
}

static bool same_pair(const struct secret_event *a, const struct secret_event *b)
{
    return a->local == b->local && a->remote == b->remote;
}

/* The newest question about this very key; NULL: it went to somebody else. */
static const struct secret_event *question(const struct secret_watch *w,
                                           const struct secret_event *e, uint64_t now_ms)
{
    const struct secret_event *found = NULL;
    for (unsigned i = 0; i < SECRET_WATCH_ASKED; i++) {
        const struct secret_event *q = &w->asked[i];
        if (recent(q, now_ms) && same_pair(q, e) && q->id == e->id &&
            (found == NULL || q->when > found->when))
            found = q;
    }
    return found;
}

/* The same peer has brought us a key for the pair that nobody here has made. */
static bool brings_others(const struct secret_watch *w, const struct secret_event *e,
                          uint64_t now_ms)
{
    for (unsigned i = 0; i < SECRET_WATCH_ASKED; i++) {
        const struct secret_event *q = &w->asked[i];
        if (recent(q, now_ms) && same_pair(q, e) && q->id != e->id && !q->good)
            return true;
    }
    return false;
}

static bool believed(const struct secret_watch *w, const struct secret_event *e, uint64_t now_ms)
{
    unsigned times = 0;
    bool others = false;
    for (unsigned i = 0; i < SECRET_WATCH_REFUSED; i++) {
        const struct secret_event *r = &w->refused[i];
        if (!recent(r, now_ms) || r->local != e->local)
            continue;
        times++;
        others = others || r->remote != e->remote;
    }
    return others || times >= SECRET_WATCH_TIMES || brings_others(w, e, now_ms);
}

void secret_watch_asked(struct secret_watch *w, struct str local, struct str remote, struct str id,
                        bool good, uint64_t now_ms)
{
    struct secret_event *e = &w->asked[w->nasked++ % SECRET_WATCH_ASKED];
    *e = event_of(local, remote, id, now_ms);
    e->good = good;
}

enum secret_verdict secret_watch_refused(struct secret_watch *w, struct str local,
                                         struct str remote, struct str id, uint64_t now_ms)
{
    const struct secret_event e = event_of(local, remote, id, now_ms);
    const struct secret_event *q = question(w, &e, now_ms);
    if (q != NULL && q->good)
        return SECRET_NOTHING; /* whatever the peer minds, it is not the secret */
    w->refused[w->nrefused++ % SECRET_WATCH_REFUSED] = e;
    if (!believed(w, &e, now_ms))
        return SECRET_NOTHING;
    return q == NULL ? SECRET_DIFFERS : SECRET_FORGOT;
}

enum secret_verdict secret_watch_accepted(struct secret_watch *w, struct str local,
                                          struct str remote, struct str id, uint64_t now_ms)
{
    const struct secret_event e = event_of(local, remote, id, now_ms);
    bool had_refused = false;
    if (question(w, &e, now_ms) != NULL)
        return SECRET_NOTHING; /* it was us, again */
    for (unsigned i = 0; i < SECRET_WATCH_REFUSED; i++)
        had_refused = had_refused || (w->refused[i].when != 0 && same_pair(&w->refused[i], &e));
    if (!had_refused)
        return SECRET_NOTHING; /* one that perhaps asks nobody */
    for (unsigned i = 0; i < SECRET_WATCH_REFUSED; i++)
        if (w->refused[i].local == e.local)
            w->refused[i].when = 0;
    return SECRET_AGREES;
}
