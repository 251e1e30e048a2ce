/* A stage for one S2S machine: the real framer in front of it, virtual timers, and every action
 * written down as a line of text. It stands where core/net/session stands in the daemon, and it
 * checks after every step what must hold for all inputs (stage.c: check). */
#ifndef TESTS_FAKE_STAGE_H
#define TESTS_FAKE_STAGE_H

#include "gateway/proto/s2s_in.h"
#include "gateway/proto/s2s_out.h"
#include "tests/fake/fake.h"

/* Where a stream looks. */
struct stage_side {
    const char *link;     /* of the configuration; NULL: the world */
    bool trusted_address; /* in */
    bool certificates;    /* the link's auth becomes tls: a known key proves, nothing else does */
    bool direct_tls;      /* out: from the first byte */
    bool no_certificate;  /* out: we have none to show */
};

/* All there are, with the configuration of fake_config; the world first. */
enum { STAGE_SIDES = 5 };
extern const struct stage_side stage_sides[STAGE_SIDES];
/* Of a fuzzer's first byte: '0' to '2' the world; inside: 'p' to 'r' proven by nothing yet, 's' to
 * 'u' by its address, 'v' to 'x' by its certificate, 'y' and 'z' by both. */
const struct stage_side *stage_side_of(unsigned char first);

enum { STAGE_LINES = 256, STAGE_TICKETS = 64, STAGE_EDGES = 16 };

struct stage {
    bool outgoing;
    struct s2s_in in;
    struct s2s_out out;
    struct framer *framer;
    const struct gateway_config *cfg;
    struct stage_side where;
    struct side side;
    struct cfg_link link; /* as the configuration has it, but for auth */
    struct fake fake;
    uint64_t due[GW_TIMER_COUNT]; /* 0: not armed */
    char *lines[STAGE_LINES];     /* what happened, but LOG, TIMER and LIMITS; oldest first */
    size_t nlines;
    uint32_t tickets[STAGE_TICKETS]; /* of questions, in order */
    size_t ntickets;
    uint64_t asked_within;             /* ms that the last question got */
    size_t pairs_before, asked_before; /* when the limits last changed: what is there may stay */
    struct tls_peer tls;               /* of the last handshake */
    struct tls_name name;              /* in its certificate */
    char name_text[64];
    bool handshaking; /* bytes go to the TLS engine: it is not played */
    bool tag_sent;    /* our closing tag is out */
    bool deaf;        /* the framer refused the input: nothing is read any more */
    bool over;
    bool overflowed;   /* a step had too many actions or no memory */
    bool quiet;        /* write no lines down */
    bool stray;        /* something happened that cannot: invariants may break */
    const char *wrong; /* an invariant that broke; NULL: none */
};

/* `local` and `remote` are for outgoing streams. False: out of memory. Sends EV_OPENED. */
bool stage_open(struct stage *s, bool outgoing, const struct gateway_config *cfg, const char *local,
                const char *remote, uint64_t seed);
bool stage_open_at(struct stage *s, const struct stage_side *where, bool outgoing,
                   const struct gateway_config *cfg, const char *local, const char *remote,
                   uint64_t seed);
void stage_close(struct stage *s);

/* Bytes of the peer, at most `piece` at a time (0: all at once). */
void stage_peer(struct stage *s, struct str bytes, size_t piece);
void stage_event(struct stage *s, struct gw_event ev);
/* One event of every kind that there is, whether it can come now or not: parsed from `xml` (a
 * header and one element behind it) as far as it needs that. */
void stage_any(struct stage *s, enum gw_ev kind, const char *xml);
void stage_kind(struct stage *s, enum gw_ev kind, const char *text); /* text: DRAIN, LOST, ... */
/* What the peer shows at the TLS handshake: a certificate that is known to the link by its key, or
 * not; one that leads to an authority we trust, or would but for its age. */
enum stage_cert {
    STAGE_CERT_NONE,
    STAGE_CERT_KNOWN,
    STAGE_CERT_UNKNOWN,
    STAGE_CERT_TRUSTED,
    STAGE_CERT_EXPIRED,
};
enum { STAGE_CERTS = STAGE_CERT_EXPIRED + 1 };
/* For the peer's domain, by TLS 1.3. */
void stage_tls_up(struct stage *s, enum stage_cert cert);
void stage_tls_up_as(struct stage *s, enum stage_cert cert, const char *name, const char *version);
void stage_want_pair(struct stage *s, const char *local);
/* The same for another remote domain than the header's. */
void stage_want_guest(struct stage *s, const char *local, const char *remote);
void stage_verify_guest(struct stage *s, const char *local, const char *remote, const char *id,
                        const char *key);
void stage_want_verify(struct stage *s, const char *local, const char *id, const char *key);
void stage_verdict(struct stage *s, uint32_t ticket, enum verdict v);
void stage_sent(struct stage *s); /* in: the driver wrote a stanza back on it */
void stage_config(struct stage *s, const struct gateway_config *cfg); /* and EV_POLICY_CHANGED */
void stage_time(struct stage *s, uint64_t ms); /* passes; timers fire in their order */

unsigned stage_state(const struct stage *s);
/* The id of the present incoming stream. */
const char *stage_id(const struct stage *s);
void stage_forget(struct stage *s); /* the lines so far */

/* Edges of the state tables taken by all stages of this process; prints those never taken and
 * returns how many. */
unsigned stage_untaken(bool outgoing);

/* Every kind of event in the state that `prepare` makes, each on a stage of its own. Answers what
 * broke; NULL: nothing. */
const char *stage_try_all(const struct stage_side *where, bool outgoing,
                          const struct gateway_config *cfg,
                          void (*prepare)(struct stage *s, unsigned state), unsigned state);

/* Text written for the world, for the side of this stage: towards the inside alpha.lab and
 * beta.lab, gamma.lab and delta.lab change places. Valid until the next call. */
const char *stage_turn(const struct stage *s, const char *text);

#endif
