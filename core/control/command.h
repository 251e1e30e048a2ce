/* Commands of the control socket: one table per program, and the reading of a request against it.
 *
 * A request is one line of words, separated by blanks. A word may be quoted ("two words"), inside
 * quotes \" and \\ stand for themselves. A table row names its command by one or two words and says
 * with a pattern which arguments follow:
 *
 *     LEVEL            a value                    ID|PEER     a value of either kind
 *     on|off, --all    these very words           [for TIME]  all of this, or nothing
 *
 * The same tables make help and completion in sallyportctl, which is why no function stands in
 * them; the programs keep theirs in arrays of the same order (core/control/commands.h).
 *
 * Privilege is checked here, in one place, and not in the functions. Every list takes a last
 * `--from N`: the rows before N were in earlier replies.
 *
 * Pure. A request borrows nothing. */
#ifndef CORE_CONTROL_COMMAND_H
#define CORE_CONTROL_COMMAND_H

#include "core/base/buf.h"

enum { COMMAND_LINE_MAX = 4096, COMMAND_WORDS_MAX = 32, COMMAND_TEXT_MAX = 320 };

enum privilege { PRIVILEGE_READ, PRIVILEGE_OPERATE, PRIVILEGE_ADMIN };
const char *privilege_name(enum privilege p);

struct command {
    const char *name; /* "config check" */
    const char *args; /* "FILE"; "": none */
    enum privilege privilege;
    const char *help; /* one line */
};

struct command_set {
    const char *program;
    const struct command *v;
    size_t n;
};

/* Why a request is not served: the stable word of a reply, and what sallyportctl exits with. */
#define CONTROL_ERRORS(X)                                                                          \
    X(NONE, "", 0)                                                                                 \
    X(SYNTAX, "syntax", 64)                                                                        \
    X(UNKNOWN, "unknown-command", 64)                                                              \
    X(USAGE, "usage", 64)                                                                          \
    X(PERMISSION, "permission", 77)                                                                \
    X(FAILED, "failed", 1)                                                                         \
    X(NOT_FOUND, "not-found", 1)                                                                   \
    X(CONFIG, "configuration", 78)                                                                 \
    X(TIMEOUT, "timeout", 75)                                                                      \
    X(BUSY, "busy", 75)

enum control_error {
#define X(id, name, code) CONTROL_##id,
    CONTROL_ERRORS(X)
#undef X
};
const char *control_error_name(enum control_error e);
/* The exit code for a name; 1 for one that this version does not know. */
int control_error_exit(const char *name);

struct command_request {
    char text[COMMAND_LINE_MAX + 1]; /* the words lie here */
    const char *word[COMMAND_WORDS_MAX];
    size_t nwords;
    size_t command;          /* index in the set */
    const char *const *argv; /* the words behind the command's name */
    size_t argc;
    size_t from; /* of --from; 0: none */
    enum control_error error;
    char why[COMMAND_TEXT_MAX]; /* error: for people */
};

/* Reads a line, without its end, for somebody with this privilege. False: r->error and r->why. */
bool command_read(const struct command_set *set, struct str line, enum privilege has,
                  struct command_request *r);

/* Do these words fit the pattern? */
bool command_fits(const char *pattern, const char *const *words, size_t n);
/* Appends a word so that command_read finds it again, behind a blank if something stands there. */
void command_quote(struct buf *line, struct str word);

#endif
