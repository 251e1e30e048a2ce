/* The inside of one gateway in the twin test: accepts its link (the real xcp/link_server on a real
 * session), sends numbered stanzas and takes what arrives into the ledger. Stanzas that could not
 * be handed over stay in the outbox, in order. */
#ifndef TESTS_TWIN_INSIDE_H
#define TESTS_TWIN_INSIDE_H

#include "core/net/listen.h"
#include "core/net/session.h"
#include "tests/twin/ledger.h"
#include "xcp/link_server.h"

struct inside;

struct inside_session {
    struct session s; /* first */
    struct link_server m;
    struct inside *in;
    struct list_node node;
};

struct inside {
    struct loop loop;
    struct ledger *ledger;
    int site;
    struct endpoint at;
    struct link_account account;
    struct listener *listener;
    struct inside_session *now; /* the one that is up */
    struct list sessions;
    size_t *outbox;
    size_t n, cap;
};

bool inside_open(struct inside *in, struct ledger *l, int site, const char *at,
                 const char *component, const char *secret, struct log *log);
void inside_close(struct inside *in);
bool inside_listen(struct inside *in, bool on); /* accept links or refuse them */
void inside_put(struct inside *in, size_t number);
void inside_send(struct inside *in);        /* as much of the outbox as the link takes */
void inside_end(struct inside *in, bool abort); /* the present link */

#endif
