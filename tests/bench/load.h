/* The load tool's world: one server under test, the remote domains that surround it, its inside. */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include <stdint.h>

#include "core/base/list.h"
#include "tests/bench/wire.h"

enum { DOMAINS_MAX = 10000, NAME_MAX_BYTES = 64, ID_BYTES = 40 };

enum kind {
    LISTEN_S2S,
    LISTEN_INSIDE,
    COMMANDS,
    STREAM, /* we dialled, as a remote domain, to send stanzas */
    VERIFY, /* we dialled to ask about one key */
    SERVED, /* dialled by the server under test */
    INSIDE, /* XEP-0114, whoever dialled */
    FEED,   /* relay only: we dialled, in clear, what leaves as TLS */
};

enum state { WAIT_READY, WAIT_HEADER, WAIT_FEATURES, WAIT_PROCEED, WAIT_ANSWER, OPEN };

struct conn {
    struct wire wire;
    enum kind kind;
    enum state state;
    struct list_node node;
    unsigned domain;                     /* STREAM, VERIFY, FEED: index of our domain */
    bool listed;                         /* counted in one of the lists of load */
    char peer_id[128];                   /* the stream id that the server under test gave */
    char id[ID_BYTES + 1];               /* ours */
    struct conn *asker;                  /* VERIFY: the SERVED connection that waits; NULL: gone */
    char key[128], ask_id[ID_BYTES + 1]; /* VERIFY: what is asked */
    char asker_from[NAME_MAX_BYTES], asker_to[NAME_MAX_BYTES];
};

struct options {
    const char *suffix; /* "sp.lab": our domains are r0000.sp.lab ..., the inside in.sp.lab */
    const char *inside; /* "accept", "component", "relay" */
    const char *certificate, *key, *secret;
    struct sockaddr_in listen, server, inside_at, relay_out;
    bool tls, relay, has_relay_out;
    unsigned limit; /* seconds, for everything */
};

/* One direction of stanzas during a run. */
struct flow {
    char letter; /* 'i': from the world to the inside, 'o': back */
    bool on;
    uint64_t count, sent, received, disorder, foreign;
    uint32_t *next_out, *next_in; /* by stream */
};

struct plan {
    unsigned first, streams; /* domains first .. first + streams - 1 */
    unsigned batch, window;  /* stanzas per write; in flight per stream */
    unsigned names;          /* different element names per stanza, instead of a body */
    struct buf stanza[2];    /* the stanza of each flow, with gaps */
    size_t id_at[2], domain_at[2], names_at[2];
};

struct load {
    struct options opt;
    int epoll;
    SSL_CTX *client, *server;
    struct list conns;
    struct conn *inside;
    struct conn *stream[DOMAINS_MAX], *feed[DOMAINS_MAX];
    unsigned opening, open_first, open_next, open_end, open_parallel, opened;
    unsigned served;
    unsigned resumed; /* of all that the server under test has dialled */
    struct flow flow[2];
    struct plan plan;
    bool running, quit;
    uint64_t began_us, until_us;
    unsigned turn; /* whose stream is next, outward */
    char failure[400];
};

enum { INWARD, OUTWARD };

uint64_t load_now_us(void);
void load_fail(struct load *l, const char *what, const char *why);

/* streams.c: connections of every kind; each makes steps until nothing more has come. */
struct conn *conn_add(struct load *l, enum kind kind, unsigned domain);
void conn_step(struct load *l, struct conn *c);
void conn_close_gently(struct load *l, struct conn *c);
void conn_reap(struct load *l); /* frees what has died */
struct conn *conn_accept(struct load *l, enum kind kind, int listener);
void domain_name(const struct load *l, unsigned domain, char out[NAME_MAX_BYTES]);
void inside_name(const struct load *l, char out[NAME_MAX_BYTES]);

/* flow.c: stanzas. */
bool flow_start(struct load *l, const char *directions, const char *kind);
bool flow_feed(struct load *l); /* true: something was written */
void flow_stanza(struct load *l, const struct conn *c, struct str element);
bool flow_done(const struct load *l);

#endif
