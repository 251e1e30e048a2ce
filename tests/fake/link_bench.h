/* A bench for one link machine of either end: every input that matters to it by name, virtual
 * timers, and what must hold after every step (link_bench.c: check). It stands where
 * core/net/session stands in the daemon. */
#ifndef TESTS_FAKE_LINK_BENCH_H
#define TESTS_FAKE_LINK_BENCH_H

#include "core/base/env.h"
#include "xcp/link_client.h"
#include "xcp/link_server.h"

enum { BENCH_AUTH = 10000, BENCH_CLOSE = 5000, BENCH_KEEPALIVE = 30000, BENCH_SENT_MAX = 8192 };

/* Client: the link's trust. Server: whether it begins TLS itself (all but PLAIN). */
#define BENCH_PROFILES(X)                                                                          \
    X(PLAIN)  /* NULL */                                                                           \
    X(TLS)    /* auth tls, the certificate of IN_TLS_STORE in its store */                         \
    X(PROVEN) /* the same after a switch from password */                                          \
    X(BOTH)   /* tls+password */

enum bench_profile {
#define X(id) BENCH_##id,
    BENCH_PROFILES(X)
#undef X
        BENCH_PROFILE_COUNT
};

/* HEADER: the peer's, with an id, to gw.lab. HEADER_TLS and so on: to a component whose accounts
 * want that (link_bench.c: accounts). TLS_x: EV_TLS_UP with a certificate of that kind. */
#define BENCH_INPUTS(X)                                                                            \
    X(OPENED)                                                                                      \
    X(TLS_STORE)                                                                                   \
    X(TLS_SELF)                                                                                    \
    X(TLS_ROOT)                                                                                    \
    X(TLS_NAME)                                                                                    \
    X(TLS_NONE)                                                                                    \
    X(TLS_FAILED)                                                                                  \
    X(TLS_FAILED_OURS)                                                                             \
    X(HEADER)                                                                                      \
    X(HEADER_ID)                                                                                   \
    X(HEADER_NO_ID)                                                                                \
    X(HEADER_UNKNOWN)                                                                              \
    X(HEADER_NO_TO)                                                                                \
    X(HEADER_TLS)                                                                                  \
    X(HEADER_PROVEN)                                                                               \
    X(HEADER_BOTH)                                                                                 \
    X(HEADER_MANY)                                                                                 \
    X(HANDSHAKE_OK)                                                                                \
    X(HANDSHAKE_GOOD)                                                                              \
    X(HANDSHAKE_BAD)                                                                               \
    X(HANDSHAKE_EMPTY)                                                                             \
    X(FEATURES)                                                                                    \
    X(STRANGE)                                                                                     \
    X(ERROR_AUTH)                                                                                  \
    X(ERROR_CERT)                                                                                  \
    X(ERROR_TLS) /* we came in clear */                                                            \
    X(ERROR_HOST)                                                                                  \
    X(ERROR_CONFLICT)                                                                              \
    X(ERROR_OTHER)                                                                                 \
    X(STANZA)                                                                                      \
    X(STANZA_BAD_TO)                                                                               \
    X(STANZA_BAD_TO_ERROR)                                                                         \
    X(STANZA_NO_FROM)                                                                              \
    X(PONG)                                                                                        \
    X(PONG_ERROR)                                                                                  \
    X(TIME)                                                                                        \
    X(TIME_ERROR)                                                                                  \
    X(OTHER_RESULT)                                                                                \
    X(STREAM_CLOSE)                                                                                \
    X(XML_ERROR)                                                                                   \
    X(VERDICT)                                                                                     \
    X(WANT_PAIR)                                                                                   \
    X(WANT_VERIFY)                                                                                 \
    X(T_SETUP)                                                                                     \
    X(T_STATE)                                                                                     \
    X(T_KEEPALIVE)                                                                                 \
    X(T_ASKED)                                                                                     \
    X(POLICY)                                                                                      \
    X(DRAIN)                                                                                       \
    X(CONFLICT)                                                                                    \
    X(LOST)                                                                                        \
    X(LOST_OURS)

enum bench_input {
#define X(id) IN_##id,
    BENCH_INPUTS(X)
#undef X
        IN_COUNT
};

const char *bench_input_name(enum bench_input in);

struct bench {
    bool client;
    enum bench_profile profile;
    struct link_client c;
    struct link_server s;
    struct env env;        /* points back at this struct: it must not move */
    struct gw_actions out; /* of the last step */
    uint64_t now;
    int64_t wall;
    bool no_random;
    bool armed[GW_TIMER_COUNT];
    uint64_t due[GW_TIMER_COUNT];
    unsigned closes;
    enum end_reason reason;
    bool starved;              /* out of memory is possible: overflow ends the session */
    const char *skew_utc;      /* what IN_TIME says; NULL: our own time */
    char sent[BENCH_SENT_MAX]; /* the text of the last step */
    const char *wrong;         /* an invariant that broke; NULL: none */
};

/* `clock`: the machine knows the wall clock, and asks for theirs. */
void bench_init(struct bench *b, bool client, enum bench_profile profile, bool clock);
void bench_free(struct bench *b);

struct link_end *bench_end(struct bench *b);
const char *bench_state(struct bench *b);
void bench_event(struct bench *b, struct gw_event ev);
void bench_give(struct bench *b, enum bench_input in);
/* The next input of an orderly peer in this state: leads to UP. */
enum bench_input bench_lead(struct bench *b);
/* A stanza; `xml` may be NULL. */
void bench_stanza(struct bench *b, enum stanza_kind kind, const char *type, const char *from,
                  const char *to, const char *id, const char *xml);
/* Lets time pass to the next keepalive; what was sent then. */
const char *bench_keepalive(struct bench *b);
/* Of the last step; NULL: none. */
const struct gw_action *bench_find(const struct bench *b, enum gw_act kind);
const struct gw_action *bench_log(const struct bench *b, const char *event);
/* A value in that log line; absent: none. */
struct str bench_log_value(const struct gw_action *log, const char *key);

/* Edges that no bench of this process has taken; prints them. */
unsigned bench_untaken(bool client);

#endif
