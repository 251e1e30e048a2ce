/* Settings of the control socket, the same in both programs. */
#ifndef CONFIG_CONTROL_H
#define CONFIG_CONTROL_H

#include <stddef.h>

struct cfg_control {
    char *socket;   /* its path; NULL: there is none */
    int mode;       /* of the file: 0600, 0660, 0666 */
    char *group;    /* of the file; NULL: that of the user */
    char **operate; /* user names or uids */
    size_t noperate;
    char **admin;
    size_t nadmin;
};

#define CONTROL_GATEWAY_SOCKET "/run/sallyport/control.sock"
#define CONTROL_ROUTER_SOCKET  "/run/sallyport/router.sock"

#define CONTROL_MODES                                                                              \
    {                                                                                              \
        {"0600", 0600}, {"0660", 0660}, {"0666", 0666}, {NULL, 0},                                 \
    }

/* The entries of a schema; S is its struct, which has `control` and `events`. */
#define CONTROL_ENTRIES(S, standard_socket)                                                        \
    {SCHEMA_TEXT(S, control.socket, CHECK_PATH), .flags = SCHEMA_RESTART,                          \
     .standard = standard_socket,                                                                  \
     .help = "Unix socket for sallyportctl; \"\": none. When the default cannot be made, the\n"    \
             "program runs without; a named one must be possible."},                               \
        {SCHEMA_CHOICE(S, control.mode, control_modes), .flags = SCHEMA_RESTART,                   \
         .standard = "\"0660\"", .help = "Who may connect: mode of the socket's file."},           \
        {SCHEMA_TEXT(S, control.group, CHECK_NAME), .flags = SCHEMA_RESTART, .standard = "\"\"",   \
         .example = "\"sallyport-adm\"",                                                           \
         .help = "Group of the socket's file; \"\": that of the program's user."},                 \
        {SCHEMA_TEXTS(S, control.operate, control.noperate, CHECK_NAME, 64), .standard = "[]",     \
         .example = "[\"alice\", \"1001\"]",                                                       \
         .help = "Users (names or uids) who may also operate: close, block, retry.\n"              \
                 "Whoever else can connect may only read."},                                       \
        {SCHEMA_TEXTS(S, control.admin, control.nadmin, CHECK_NAME, 64), .standard = "[]",         \
         .example = "[\"bob\"]",                                                                   \
         .help = "Users who may do everything: reload and stop, too. root and the program's own\n" \
                 "user always may."},                                                              \
    {                                                                                              \
        SCHEMA_TEXT(S, events.file, CHECK_PATH),                                                   \
            .standard = "\"\"", .example = "\"/var/log/sallyport/events.jsonl\"",                  \
            .help =                                                                                \
                "File that events are appended to, one JSON line each; \"\": they are kept in\n"   \
                "memory only."                                                                     \
    }

#endif
