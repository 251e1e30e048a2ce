/* The control socket: a Unix stream socket on which an operator asks and commands.
 *
 * Protocol. A request is one line of words (core/control/command.h), the reply one line of JSON,
 * {"ok":{...}} or {"error":{"code":"...","text":"..."}}. Some commands go on with further lines,
 * {"event":{...}}, until one side closes. A client may send the next request when it has read the
 * reply, or before: one is served at a time.
 *
 * Who may do what. The mode and group of the socket's file say who can connect; the uid of the peer
 * (SO_PEERCRED, taken by the kernel at connect) says what for: root, the user that the program runs
 * as, and `admin` may do everything, `operate` what needs no more than that, everybody else may
 * read.
 *
 * Nothing here can hold up the loop: at most CONTROL_CLIENTS_MAX clients (one that is
 * idle, does not read or only follows makes room for a newcomer who may do as much), 4 KiB of
 * request and 1 MiB of reply each, 60 s for a request or for reading a reply, one request per turn
 * of the loop, and after one that took long a rest of three times as long. Whoever follows and does
 * not read is cut off.
 *
 * One thread. The functions of the commands run on it, one at a time:
 *
 *     static void do_links(struct control_call *call)
 *     {
 *         control_rows(call, "links");
 *         for (...)
 *             control_row(call, kv, n);
 *         control_rows_end(call);
 *     }                                            // the reply goes out now
 *
 * They write the members of the "ok" object through call->json, or call control_fail. One that has
 * to wait calls control_later, and control_done when it has written its reply. */
#ifndef CORE_NET_CONTROL_H
#define CORE_NET_CONTROL_H

#include <sys/types.h>

#include "core/control/command.h"
#include "core/control/json.h"
#include "core/net/loop.h"

enum {
    CONTROL_CLIENTS_MAX = 32,
    CONTROL_REPLY_MAX = 1 << 20,
    CONTROL_IDLE_MS = 60 * 1000,
    CONTROL_WHY_MAX = 256,
};

struct control;

struct control_call {
    void *arg; /* of the options */
    const struct command_request *request;
    struct json json; /* inside the "ok" object */
    enum control_error error;
    char why[COMMAND_TEXT_MAX];
    uid_t uid;
    pid_t pid;
    void *data; /* the command's own, while it waits or follows */
    /* private */
    size_t row, more;
    bool waiting, following;
    void (*gone)(struct control_call *call);
};

struct control_options {
    const char *path;
    unsigned mode;     /* of the file, 0660 */
    const char *group; /* of the file; NULL: that of `owner` */
    const char *owner; /* of the file when we are root; NULL: root */
    const struct command_set *commands;
    void (*const *run)(struct control_call *call); /* in the order of the table */
    void *arg;
};

/* Makes the socket. A file left over by a process that is no more is replaced; one on which
 * somebody answers is an error. The strings of the options are copied, the tables borrowed. NULL:
 * `why` says what is wrong. */
struct control *control_new(struct loop *l, const struct control_options *o,
                            char why[CONTROL_WHY_MAX]);
/* Closes everything, at once, and removes the file. NULL is fine. */
void control_close(struct control *c);
/* Who may do what from now on: user names or uids. Appends a line for each name that is not known;
 * it counts for nobody. */
void control_set_users(struct control *c, char *const *operate, size_t noperate, char *const *admin,
                       size_t nadmin, struct buf *problems);

/* ---- for the functions of commands ----------------------------------------------------------- */

/* The reply is this error instead of what was written. */
void control_fail(struct control_call *call, enum control_error e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A list that may be too long for one reply: rows before request->from are left out, and when no
 * more fit the reply ends with "more": the number to go on from. */
void control_rows(struct control_call *call, const char *key);
void control_row(struct control_call *call, const struct kv *kv, size_t n);
void control_rows_end(struct control_call *call);

/* The reply comes later, by control_done. `gone` is called instead when the client leaves before:
 * nothing of the call may be touched after that. */
void control_later(struct control_call *call, void (*gone)(struct control_call *call));
void control_done(struct control_call *call);

/* After the reply, lines follow; `gone` as above, when the client leaves or does not read. */
void control_follow(struct control_call *call, void (*gone)(struct control_call *call));
/* One line for a follower: a complete JSON text without its line end. It may end the call. */
void control_say(struct control_call *call, struct str line);

#endif
