/* The other end of a control socket: a connection, requests, lines of reply. Blocking, with a
 * deadline. Who embeds it closes it. */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include <stdint.h>

#include "core/base/buf.h"

enum { CLIENT_LINE_MAX = 4 << 20 };

struct client {
    int fd;
    struct buf in;
    uint64_t deadline; /* client_now; 0: none */
};

enum client_end {
    CLIENT_LINE,
    CLIENT_LATE,  /* the deadline has passed */
    CLIENT_ENDED, /* the other side closed */
    CLIENT_LOST,  /* a line that is too long, or out of memory */
};

uint64_t client_now(void); /* ms, monotonic */
/* 0, or an errno (ENAMETOOLONG: no socket has such a path). Nothing is to be closed then. */
int client_open(struct client *c, const char *path);
void client_close(struct client *c);
bool client_send(struct client *c, const struct buf *line);
/* The next line without its end; borrowed until client_next. */
enum client_end client_line(struct client *c, struct str *line);
void client_next(struct client *c, struct str line);

/* One request and its reply, whole; false: there was none, for whatever reason. */
bool client_ask(const char *path, const struct buf *request, uint64_t within_ms, struct buf *reply);

#endif
