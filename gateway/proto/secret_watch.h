/* Have all gateways of our domains the same dialback secret?
 *
 * A key of ours that a peer calls invalid was shown to somebody who answers for our domain, and who
 * could not make it himself. When it was we who were asked, we know why. When nobody asked us, the
 * question went to another gateway, and that has another secret, or is none of ours. One peer may
 * be wrong; so it is believed when two peers say so, when one says so three times, or when that
 * peer also brings us keys for the same pair that we did not make. All within ten minutes.
 *
 * Pure and bounded. It proves nothing to anybody; it tells the operator what to compare. */
#ifndef GATEWAY_PROTO_SECRET_WATCH_H
#define GATEWAY_PROTO_SECRET_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/str.h"

enum {
    SECRET_WATCH_REFUSED = 32,
    SECRET_WATCH_ASKED = 128,
    SECRET_WATCH_MS = 10 * 60 * 1000,
    SECRET_WATCH_REMOTES = 2,
    SECRET_WATCH_TIMES = 3,
};

/* What is remembered of one answer: hashes of the names, 0 in `when` means none. */
struct secret_event {
    uint64_t when, local, remote, id;
    bool good;
};

struct secret_watch { /* all zero: nothing is known */
    struct secret_event refused[SECRET_WATCH_REFUSED], asked[SECRET_WATCH_ASKED];
    unsigned nrefused, nasked; /* counted on; the next place modulo the size */
};

enum secret_verdict {
    SECRET_NOTHING,
    SECRET_DIFFERS, /* another gateway of `local` has another secret */
    SECRET_FORGOT,  /* we were asked about keys of ours and did not know them any more */
    SECRET_AGREES,  /* another gateway has confirmed a key of ours to a peer that had refused one */
};

/* A question for a key of `local` came from `remote` to us; good: we have confirmed it. Domains are
 * A-labels, `id` is the remote's stream. */
void secret_watch_asked(struct secret_watch *w, struct str local, struct str remote, struct str id,
                        bool good, uint64_t now_ms);
/* The remote has answered the key that we sent on its stream `id`. */
enum secret_verdict secret_watch_refused(struct secret_watch *w, struct str local,
                                         struct str remote, struct str id, uint64_t now_ms);
enum secret_verdict secret_watch_accepted(struct secret_watch *w, struct str local,
                                          struct str remote, struct str id, uint64_t now_ms);

#endif
