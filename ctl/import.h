/* Importers: another server's configuration becomes an equivalent one of Sallyport, with remarks on
 * what differs and what has to be decided.
 *
 *     bytes of files -> reader -> tree -> importer -> struct import -> writer -> text
 *
 * What is written is always a configuration that loads, once the files with secrets that it names
 * exist: values go through the checks of the configuration's own schema, and what does not pass is
 * a remark. Contents of secrets are never written, only where they stand. Certificates are
 * proposed in comments, since their files may not be ours to read. Pure. */
#ifndef CTL_IMPORT_H
#define CTL_IMPORT_H

#include "ctl/import_read.h"

enum { IMPORT_DOMAINS_MAX = 1000, IMPORT_PEERS_MAX = 4096, IMPORT_VALUE_MAX = 300 };
enum { IMPORT_REMARKS_MAX = 64 << 10, IMPORT_TEXT_MAX = 4 << 20, IMPORT_FILES_MAX = 64 };

#define IMPORT_DIALBACK_SECRET "dialback.secret" /* beside the configuration */
#define IMPORT_LINK_SECRET     "inside.secret"

/* Reads `n` files of `dialect` (prosody, expressway, ejabberd, jabberd2) and appends the
 * configuration. False: `why` holds a line; nothing was appended. */
bool import_convert(const char *dialect, const struct import_source *files, size_t n,
                    struct buf *out, struct buf *why);
bool import_knows(const char *dialect);

/* ---- for the importers ----------------------------------------------------------------------- */

enum import_remark { REMARK_DECIDE, REMARK_DIFFERS, REMARK_SKIPPED, REMARK_KINDS };

struct import_domain {
    char *name;
    const char *certificate; /* where it stands, for a comment; NULL: not said */
    const char *key;
};

/* The words are static; NULL: not said. */
struct import_peer {
    char *name;
    const char *policy, *security_mode, *auth;
    char *route;
};

struct import {
    const char *dialect;
    struct tree tree;

    struct import_domain *domains;
    size_t ndomains, domains_cap;
    struct import_peer *peers;
    size_t npeers, peers_cap;
    bool no_federation, subdomains, no_routes;
    const char *security_mode, *privacy_mode, *auth; /* static words; NULL: the default */
    const char *tls_minimum;
    struct buf listen, source, dns; /* strings with commas between them, as in the file */
    /* "" or what stands in the file */
    char timeout_auth[16], timeout_connect[16], timeout_idle[16], timeout_queue[16];
    char timeout_dns[16], stanza_size[16];
    const char *ca_file; /* for a comment */
    struct {
        const char *protocol;
        char address[IMPORT_VALUE_MAX], component[IMPORT_VALUE_MAX], user[IMPORT_VALUE_MAX];
    } link;
    bool dialback_secret;

    struct buf remarks[REMARK_KINDS]; /* lines */
    bool failed;                      /* no memory */
};

void import_prosody(struct import *im);
void import_ejabberd(struct import *im);
void import_jabberd2(struct import *im);
void import_expressway(struct import *im);

/* A remark about a node (0: about the whole). What comes from the file is made printable. */
void import_remark(struct import *im, enum import_remark kind, uint32_t node, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds what is a name, once; else a remark. NULL: it was none, or there are too many. The result is
 * valid until the next one is added. */
struct import_domain *import_domain(struct import *im, uint32_t node, const char *name);
struct import_peer *import_peer(struct import *im, uint32_t node, const char *pattern);
/* "*" and "::" are all addresses; a port of 0 is 5269. */
void import_listen(struct import *im, uint32_t node, const char *ip, const char *port);
void import_source_address(struct import *im, uint32_t node, const char *ip);
void import_link_address(struct import *im, uint32_t node, const char *ip, const char *port);
void import_route(struct import *im, uint32_t node, struct import_peer *p, const char *host,
                  const char *port);
/* A number of seconds into a duration between `least` and `most` seconds. */
void import_seconds(struct import *im, uint32_t node, const char *what, const char *text,
                    unsigned least, unsigned most, char out[16]);
void import_stanza_size(struct import *im, uint32_t node, const char *text);

/* One line of printable UTF-8, whatever stands in the text. */
void import_plain(struct buf *out, const char *s);
/* Appends the configuration. */
void import_write(const struct import *im, const struct import_source *files, size_t n,
                  struct buf *out);

#endif
