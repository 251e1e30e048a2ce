/* Inside of the control socket, shared by control.c (clients, requests) and control_socket.c (the
 * file, its listener, who may do what). */
#ifndef CORE_NET_CONTROL_PRIV_H
#define CORE_NET_CONTROL_PRIV_H

#include "core/net/control.h"

/* The longest line, its "\r\n", and one byte more to see that it is longer. */
enum { CONTROL_IN_MAX = COMMAND_LINE_MAX + 3, CONTROL_USERS_MAX = 256 };

struct control_client {
    struct list_node node; /* control.clients */
    struct list_node wait; /* control.waiting: a whole line has come */
    struct control *control;
    uv_poll_t poll;
    int fd;
    uid_t uid;
    pid_t pid;
    struct log_ctx log;
    char in[CONTROL_IN_MAX];
    size_t nin;
    struct buf reply, out;
    size_t sent; /* of out */
    struct timer idle;
    bool eof, last, closing; /* last: closed when all is sent */
    bool served;             /* a request, or more */
    struct command_request request;
    struct control_call call;
};

struct control_user {
    uid_t uid;
    enum privilege privilege;
};

struct control {
    struct loop *loop;
    struct log_ctx log;
    char *path;
    dev_t device;
    ino_t inode; /* of our socket's file */
    uv_poll_t poll;
    int fd;
    bool closing;
    struct timer pause; /* of accepting */
    const struct command_set *commands;
    void (*const *run)(struct control_call *call);
    void *arg;
    struct control_user users[CONTROL_USERS_MAX];
    size_t nusers;
    struct list clients, waiting;
    struct loop_task serve;
    struct timer rest; /* between requests, after one that took long */
};

/* control.c */
void control_accept(struct control *c, int fd);
void control_client_close(struct control_client *cl);
/* control_socket.c */
enum privilege control_privilege(const struct control *c, uid_t uid);

#endif
