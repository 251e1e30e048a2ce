/* A bench for the jabberd2 machine: the real framer in front of it, virtual timers, every action
 * written down as a line of text, and what must hold after every step (jabberd2_bench.c: check). It
 * stands where core/net/session stands in the daemon.
 *
 * What happens is a script: XML of the router, with control characters (JB_...) for the rest. */
#ifndef TESTS_FAKE_JABBERD2_BENCH_H
#define TESTS_FAKE_JABBERD2_BENCH_H

#include "core/xml/ns.h"
#include "xcp/jabberd2.h"

enum { JB_AUTH = 10000, JB_CLOSE = 5000, JB_KEEPALIVE = 30000, JB_TEXT_MAX = 65536 };

#define JB_TLS_UP     "\x01" /* with a certificate that the link trusts */
#define JB_TLS_OTHER  "\x02" /* with another one */
#define JB_TLS_FAILED "\x03"
#define JB_DRAIN      "\x04"
#define JB_CONFLICT   "\x05"
#define JB_LOST       "\x06"
#define JB_TIME       "\x07" /* until the next timer */
#define JB_PAUSE      "\x0b"
#define JB_RESUME     "\x0c"
#define JB_OTHERS     "\x0e" /* every event that belongs to other machines */
#define JB_TIMERS     "\x0f" /* every timer, armed or not */
#define JB_SENT       "\x10" /* the driver writes a stanza */
#define JB_BARE       "\x11" /* a stanza without a route: no framer of this kind gives one */
#define JB_BEGIN      "\x12" /* EV_OPENED once more */

enum jb_profile {
    JB_PLAIN,   /* TLS as it comes, any certificate */
    JB_REQUIRE, /* require_tls */
    JB_TRUST,   /* auth tls+password */
    JB_DIRECT,  /* the same, but TLS is there from the first byte */
    JB_NO_TLS,
    JB_PROFILES,
    JB_STARVED = 1 << 4, /* beside one of them: memory may be out from the beginning */
};

/* What the router says on the way to UP; its proofs fit the bench's randomness. */
#define JB_HEADER                                                                                  \
    "<?xml version='1.0'?><stream:stream xmlns:stream='" NS_STREAM "' version='1.0' id='x1'>"
#define JB_MECHANISMS                                                                              \
    "<mechanisms xmlns='" NS_SASL "'><mechanism>DIGEST-MD5</mechanism></mechanisms>"
#define JB_FEATURES(what) "<stream:features xmlns:stream='" NS_STREAM "'>" what "</stream:features>"
#define JB_STARTTLS       "<starttls xmlns='" NS_TLS "'/>"
#define JB_CHALLENGE_TEXT                                                                          \
    "cmVhbG09ImphYmJlcmQtcm91dGVyIiwgbm9uY2U9IjdsRjNUY2VZWTFEMzZaY2JTZDdtQ0E9PSIsIHFvcD0iYXV0aCIs" \
    "IGNoYXJzZXQ9dXRmLTgsIGFsZ29yaXRobT1tZDUtc2Vzcw=="
#define JB_RESPONSE_TEXT                                                                           \
    "Y2hhcnNldD11dGYtOCx1c2VybmFtZT0iZ2F0ZSIscmVhbG09ImphYmJlcmQtcm91dGVyIixub25jZT0iN2xGM1RjZVlZ" \
    "MUQzNlpjYlNkN21DQT09IixuYz0wMDAwMDAwMSxjbm9uY2U9ImFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFi" \
    "IixkaWdlc3QtdXJpPSJqYWJiZXJkLXJvdXRlci9yb3V0ZXIiLHJlc3BvbnNlPWRhZmRhM2I3OWIyNDRiNGNmMGQ5MWU4" \
    "N2FlYjVhODQ2LHFvcD1hdXRo"
#define JB_PROOF_TEXT "cnNwYXV0aD01N2MyOTY1YjYxY2Y1ZTcwMWViZThlZWZjMDBiZDI1Nw=="
#define JB_CHALLENGE  "<challenge xmlns='" NS_SASL "'>" JB_CHALLENGE_TEXT "</challenge>"
#define JB_SUCCESS    "<success xmlns='" NS_SASL "'>" JB_PROOF_TEXT "</success>"
#define JB_BOUND      "<bind xmlns='" NS_JABBERD2 "'></bind>"
#define JB_ACTIVE     "<bind xmlns='" NS_JABBERD2 "'><default></default></bind>"
#define JB_TAKEN      "<bind xmlns='" NS_JABBERD2 "' error='409'><default></default></bind>"
#define JB_AUTHENTIC                                                                               \
    JB_HEADER JB_FEATURES(JB_MECHANISMS)                                                           \
    JB_CHALLENGE JB_SUCCESS JB_HEADER JB_FEATURES("")
#define JB_UP      JB_AUTHENTIC JB_BOUND
#define JB_PING_ID "ping-abababababababababababab"

struct jb {
    struct jabberd2 m;
    struct framer *f;
    struct env env; /* points back at this struct: it must not move */
    uint64_t now;
    bool no_random;
    uint64_t due[GW_TIMER_COUNT]; /* 0: not armed */
    bool handshaking;             /* bytes go to the TLS engine: it is not played */
    bool tag_sent;                /* our closing tag is out */
    bool deaf;                    /* the framer refused the input */
    bool over;
    bool starved;      /* memory may be out: what comes of it is no fault */
    bool overflowed;   /* a step had no room or memory: the session ended */
    const char *wrong; /* an invariant that broke; NULL: none */
    size_t n;
    char text[JB_TEXT_MAX]; /* what happened, line by line; cut when it is full */
};

/* False: out of memory. Sends EV_OPENED. */
bool jb_open(struct jb *b, unsigned profile);
void jb_close(struct jb *b);
/* At most `piece` bytes of XML at a time; 0: as much as there is. */
void jb_play(struct jb *b, struct str script, size_t piece);
void jb_forget(struct jb *b); /* the text so far */

/* Edges of the state table that no bench of this process has taken; prints them. */
unsigned jb_untaken(void);

#endif
