/* Two whole gateways in one process: alpha (alpha.lab, gamma.lab) and beta (beta.lab, delta.lab),
 * each with its inside, on a network in memory (net.h), with a name server (names.h), stanzas that
 * are followed from end to end (ledger.h), and a stranger who tries to get in.
 *
 * Everything is drawn from one seed. twin_round lets each loop turn once and checks what must hold
 * at any time (watch.c); when nothing moves any more the clock jumps to whatever is due next. */
#ifndef TESTS_TWIN_TWIN_H
#define TESTS_TWIN_TWIN_H

#include "gateway/worker.h"
#include "tests/twin/inside.h"
#include "tests/twin/ledger.h"
#include "tests/twin/names.h"
#include "tests/twin/net.h"

struct site {
    struct worker w;
    struct inside in;
    enum security_mode mode;
    unsigned dns; /* which of the DNS servers is configured */
    bool tight;   /* small queues */
    bool bidi;
    size_t held;  /* bytes that the link held at the last reload: maybe more than is allowed now */
    bool running, draining, drained;
    uint64_t drain_began;
    uint64_t dropped; /* by workers that have ended */
};

/* How rough the weather is: of 1000 rounds. */
struct weather {
    unsigned traffic, burst, large;
    unsigned cut, stall, link, reload, restart, evil, dials, names, full;
    unsigned lull, flood; /* minutes without traffic; of 1000 stanzas: very large */
    unsigned latency;
    bool hasty; /* the clock also jumps past what could be served at once: a slow machine */
};

struct twin {
    uint64_t seed;
    struct net net;
    struct names names;
    struct ledger ledger;
    struct site site[2];
    struct weather weather;
    struct log *log;
    uint64_t lull_end; /* ms: until then nothing is injected and the clock may jump */
    struct buf lines; /* of the log, when only its code is to run */
    struct wire *evil;
    unsigned evil_step;
    char evil_seen[4096];
    size_t rounds;
    size_t shared; /* outgoing streams that a second domain joined */
    size_t back; /* stanzas that went out on a stream that came in */
};

/* What the process needs once: keys and secrets in a folder of its own, a generator for OpenSSL. */
bool twin_prepare(void);
void twin_clean_up(void);

void twin_open(struct twin *t, uint64_t seed);
bool twin_start(struct twin *t, int site); /* its worker; the inside runs since twin_open */
bool twin_reload(struct twin *t, int site);
void twin_put(struct twin *t, int from, int to, enum item_kind kind, size_t size, bool odd);
/* False: nothing moves, and nothing will. */
bool twin_round(struct twin *t);
bool twin_at_rest(const struct twin *t);
void twin_drain(struct twin *t, int site);
bool twin_finish_drain(struct twin *t, int site); /* true once: it has ended and is closed */
void twin_settle(struct twin *t);
void twin_end(struct twin *t); /* drains both, one after the other */
struct wire *twin_some_wire(struct twin *t); /* NULL: none is open */
void twin_close(struct twin *t);

/* One whole run in that weather: traffic, faults, calm, rest, the end. The failure is in
 * t->ledger.failure; the caller closes. */
void twin_run(struct twin *t, unsigned rounds);

/* ---- watch.c: what the drivers do is seen through the linker's --wrap ---- */
void watch_use(struct twin *t); /* NULL: not any more */
void watch_site(struct twin *t, struct site *s); /* after a turn of its loop */
/* On `site` the n-th allocation from now fails, and `more` after it; n 0: none. */
void watch_fail_allocations(int site, unsigned long n, unsigned long more);
bool watch_failed_one(void);
void watch_turn(int site); /* whose loop turns now; -1: nobody's */

/* ---- evil.c ---- */
void evil_round(struct twin *t);
void evil_leave(struct twin *t);

#endif
