/* The books of the twin test: every stanza that was injected, where it is, how it ended.
 *
 * Each has a number, in its id; the error that bounces it carries the same number. Both are
 * followed from hop to hop: handed to a connection, taken back, read by a gateway, arrived at an
 * inside. What must hold, at once when it can be seen and else at the end (ledger_settle):
 *
 *  - a stanza arrives at most once, is bounced at most once, and never both;
 *  - errors, results and unavailable presence are never bounced;
 *  - what arrives comes at the right place, with its addresses and, when plain, byte for byte;
 *  - stanzas of one pair arrive in order, unless the older one passed a broken connection;
 *  - what neither arrived nor was bounced was last seen on a wire that lost bytes which the kernel
 *    had accepted (its excuse says how), or was dropped where bouncing is forbidden. */
#ifndef TESTS_TWIN_LEDGER_H
#define TESTS_TWIN_LEDGER_H

#include "core/xml/framer.h"
#include "tests/twin/net.h"

#define ITEM_KINDS(X)                                                                              \
    X(CHAT, true)                                                                                  \
    X(QUERY, true)                                                                                 \
    X(AVAILABLE, true)                                                                             \
    X(ERROR, false)                                                                                \
    X(RESULT, false)                                                                               \
    X(UNAVAILABLE, false)

enum item_kind {
#define X(id, bounceable) ITEM_##id,
    ITEM_KINDS(X)
#undef X
        ITEM_KIND_COUNT
};

enum whereabouts { NOWHERE, IN_OUTBOX, ON_WIRE, IN_GATEWAY, ARRIVED };

enum { DOMAINS = 4, HOPS_MAX = 12 };

/* A stanza, or the error that bounces it, on its way. */
struct travel {
    enum whereabouts at;
    const struct wire *wire; /* the last one */
    int side;
    const struct wire *seen[HOPS_MAX];
    unsigned nseen;
    unsigned arrived;
};

struct item {
    enum item_kind kind;
    int from, to; /* index of the domain */
    bool odd;     /* not plain: not compared byte for byte */
    size_t size;
    struct travel self, error;
};

struct ledger {
    struct item *v; /* v[0] is not used */
    size_t n, cap;
    size_t last[DOMAINS][DOMAINS]; /* number that arrived last, per pair */
    bool no_memory;                /* allocations fail: what is missing is not looked at */
    bool stopped;                  /* sites were closed for good: outboxes may be full */
    /* how they ended */
    size_t arrived, bounced, dropped, lost, late;
    size_t follow;       /* the number whose way is printed; 0: none (TWIN_FOLLOW) */
    char failure[400]; /* the first thing found wrong; empty: none */
};

extern const char *const ledger_domains[DOMAINS]; /* 0, 1: alpha's; 2, 3: beta's */

void ledger_open(struct ledger *l);
void ledger_close(struct ledger *l);
void ledger_fail(struct ledger *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A new stanza; 0 is never given. */
size_t ledger_new(struct ledger *l, enum item_kind kind, int from, int to, size_t size, bool odd);
struct span ledger_text(const struct ledger *l, size_t number);
/* The number in a stanza's bytes, 0: none of ours. *error: it is the bounce. */
size_t ledger_number(const struct ledger *l, struct str stanza, bool *error);

void ledger_in_outbox(struct ledger *l, size_t number);
void ledger_on_wire(struct ledger *l, size_t number, bool error, const struct wire *w, int side);
void ledger_in_gateway(struct ledger *l, size_t number, bool error);
/* It never left the connection that it was handed to. */
void ledger_taken_back(struct ledger *l, size_t number, bool error);
void ledger_bounced(struct ledger *l, size_t number, bool error);
void ledger_arrived(struct ledger *l, int site, const struct stanza *st);

/* Everything is at rest: how did it all end? `dropped`: what the gateways counted as dropped. */
void ledger_settle(struct ledger *l, uint64_t dropped);

#endif
