/* Which link takes a stanza for the inside. Pure.
 *
 * A link is a candidate when the local domain is one of its `domains` (none given: all) and the
 * remote domain one of its `partners` (none given: all). Of the candidates that are up the lowest
 * priority wins; among equals the sender decides (rendezvous hashing of its bare address), so that
 * one sender's stanzas stay in order on one link, and only those of a lost link move.
 *
 * A link may have several *lines*, streams of its own: one per partner, when it joins under their
 * names. The table is made of one snapshot and borrows it. */
#ifndef GATEWAY_ROUTE_INWARD_H
#define GATEWAY_ROUTE_INWARD_H

#include "config/gateway.h"

enum { LINKS_MAX = 64 };

struct inward;

/* NULL: out of memory. `cfg` must outlive the table. */
struct inward *inward_new(const struct gateway_config *cfg);
void inward_free(struct inward *t);

/* What decides about a stanza. Domains are A-labels. */
struct inward_key {
    struct str local, remote;
    uint32_t sender; /* inward_sender */
};
/* Of an address in `from`: its resource does not count. */
uint32_t inward_sender(struct str from);

/* A line of a link; line 0 unless the link has one per partner. */
struct inward_line {
    size_t link, line;
};

/* The number of lines that a link has. */
size_t inward_lines(const struct cfg_link *k);

/* The candidates as a set, bit i for cfg->links[i]; 0: nobody serves this pair. */
uint64_t inward_candidates(const struct inward *t, struct str local, struct str remote);
/* The line of a candidate that carries the remote domain. */
struct inward_line inward_line(const struct inward *t, size_t link, struct str remote);
/* Chooses among the candidates that `up` says yes to; false: none is. */
bool inward_pick(const struct inward *t, const struct inward_key *key,
                 bool (*up)(void *arg, struct inward_line line, struct str local), void *arg,
                 struct inward_line *out);

/* May a stanza from this local domain to this remote domain come in by the link? The other half of
 * the firewall: a link speaks for its own domains only, and with listed partners only to them. */
bool inward_owns(const struct inward *t, size_t link, struct str local, struct str remote);
/* The same of a link that is in no table any more; `cfg` is the snapshot that it was part of. */
bool inward_lists(const struct gateway_config *cfg, const struct cfg_link *k, struct str local,
                  struct str remote);

#endif
