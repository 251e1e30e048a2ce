/* The memory of a name that joined by password, for a switch to certificates (xcp/trust.h). It is
 * kept in a file, so that it survives a restart: one line, the A-label of the name. */
#ifndef XCP_PROVEN_H
#define XCP_PROVEN_H

#include "core/base/log.h"

enum proven {
    PROVEN_NAME,   /* the file says so */
    PROVEN_ABSENT, /* there is no file */
    PROVEN_OTHER,  /* another name joined */
    PROVEN_BROKEN, /* it cannot be read (errno says why, 0: what it holds is no name) */
};

enum proven proven_read(const char *file, const char *name);
/* Replaces the file in one step, so that nobody ever reads half of it. False: errno says why. */
bool proven_write(const char *file, const char *name);

/* Has `name` joined `link` by password in an earlier life? A file that cannot be believed is told
 * (link.proven.ignored) and ignored. `file` and `name` may be NULL: nothing is remembered. */
bool proven_recall(const char *file, const char *name, const char *link, const struct log_ctx *log);
/* `name` has joined by password just now; `known`: it had before. Tells what is new, and when it
 * cannot be written (link.proven). `file` may be NULL. */
void proven_remember(const char *file, const char *name, bool known, const struct log_ctx *log);

#endif
