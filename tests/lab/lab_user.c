/* The lab's user: an organisation's own XMPP server, reduced to one component.
 *
 * It joins a router as an external component (XEP-0114) through libstrophe, an implementation that
 * shares no code with the gateway, and so is a witness for what the gateway really delivers. One
 * command per line on standard input, one JSON object per event on standard output:
 *
 *     message TO ID TEXT      send a chat message from USER@NAME/lab
 *     presence TO TYPE        "available", or any RFC 6121 presence type
 *     ping TO ID              XEP-0199
 *     raw XML                 exactly these bytes
 *
 * Every line printed carries t, microseconds of the monotonic clock, so that lines of several
 * processes of one machine can be compared. Pings are answered, other requests get
 * service-unavailable. A lost connection is dialled again; the end of standard input ends it.
 *
 * Glossary: "the trap" is a defect of libstrophe 0.12 that is worked around here. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT, in an environment that does not set it already */
#endif
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strophe.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1 << 20, RETRY_MS = 200, TURN_MS = 200 };

struct lab_user {
    xmpp_ctx_t *ctx;
    xmpp_conn_t *conn; /* NULL: between two attempts */
    bool connected, lost;
    uint64_t retry_at; /* microseconds */
    char host[INET6_ADDRSTRLEN];
    unsigned short port;
    const char *name;
    char secret[256];
    char jid[512], bare[400];
    char *line; /* LINE_MAX_BYTES, what came of the next command */
    size_t line_len;
};

/* The socket of the one connection, -1 without one. A global, because the callback that tells it
 * has no room for an argument in libstrophe 0.12. */
static int user_fd = -1;

/* ---- printing -------------------------------------------------------------------------------- */

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void print_field(const char *key, const char *value)
{
    if (value == NULL)
        return;
    printf(",\"%s\":\"", key);
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            printf("\\%c", *p);
        else if (*p < 0x20)
            printf("\\u%04x", *p);
        else
            putchar(*p);
    }
    putchar('"');
}

static void print_begin(const char *event)
{
    printf("{\"t\":%llu", (unsigned long long)now_us());
    print_field("event", event);
}

static void print_end(void)
{
    puts("}");
    fflush(stdout);
}

static void print_event(const char *event, const char *text)
{
    print_begin(event);
    print_field("text", text);
    print_end();
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* RFC 6120 8.3: the condition is the child that is not <text/>. */
static void print_error(xmpp_stanza_t *stanza)
{
    xmpp_stanza_t *error = xmpp_stanza_get_child_by_name(stanza, "error");
    xmpp_stanza_t *c = error != NULL ? xmpp_stanza_get_children(error) : NULL;

    if (error == NULL)
        return;
    print_field("error_type", xmpp_stanza_get_type(error));
    for (; c != NULL; c = xmpp_stanza_get_next(c)) {
        const char *name = xmpp_stanza_get_name(c);

        if (name == NULL)
            continue;
        if (strcmp(name, "text") == 0) {
            char *text = xmpp_stanza_get_text(c);

            print_field("error_text", text);
            xmpp_free(xmpp_stanza_get_context(c), text);
        } else {
            print_field("condition", name);
        }
    }
}

static void print_stanza(xmpp_stanza_t *stanza)
{
    xmpp_stanza_t *child = xmpp_stanza_get_children(stanza);
    char *body = xmpp_message_get_body(stanza);

    print_begin("stanza");
    print_field("kind", xmpp_stanza_get_name(stanza));
    print_field("from", xmpp_stanza_get_from(stanza));
    print_field("to", xmpp_stanza_get_to(stanza));
    print_field("id", xmpp_stanza_get_id(stanza));
    print_field("type", xmpp_stanza_get_type(stanza));
    print_field("body", body);
    if (child != NULL && xmpp_stanza_get_ns(child) != NULL)
        print_field("child_ns", xmpp_stanza_get_ns(child));
    print_error(stanza);
    print_end();
    if (body != NULL)
        xmpp_free(xmpp_stanza_get_context(stanza), body);
}

static void answer_iq(struct lab_user *u, xmpp_stanza_t *iq)
{
    const char *type = xmpp_stanza_get_type(iq);
    xmpp_stanza_t *reply;

    if (type == NULL || (strcmp(type, "get") != 0 && strcmp(type, "set") != 0))
        return;
    if (xmpp_stanza_get_child_by_ns(iq, "urn:xmpp:ping") != NULL) {
        reply = xmpp_stanza_reply(iq);
        if (reply != NULL)
            xmpp_stanza_set_type(reply, "result");
    } else {
        reply = xmpp_stanza_reply_error(iq, "cancel", "service-unavailable",
                                        "the lab user answers pings only");
    }
    if (reply == NULL)
        return;
    xmpp_stanza_set_from(reply, xmpp_stanza_get_to(iq)); /* the trap: a reply has none */
    xmpp_send(u->conn, reply);
    xmpp_stanza_release(reply);
}

static int on_stanza(xmpp_conn_t *conn, xmpp_stanza_t *stanza, void *arg)
{
    struct lab_user *u = arg;
    const char *name = xmpp_stanza_get_name(stanza);

    (void)conn;
    print_stanza(stanza);
    if (name != NULL && strcmp(name, "iq") == 0)
        answer_iq(u, stanza);
    return 1; /* keep the handler */
}

/* ---- connection ------------------------------------------------------------------------------ */

static void on_connection(xmpp_conn_t *conn, xmpp_conn_event_t event, int error,
                          xmpp_stream_error_t *stream_error, void *arg)
{
    struct lab_user *u = arg;

    (void)error;
    if (event == XMPP_CONN_CONNECT) {
        u->connected = true;
        xmpp_handler_add(conn, on_stanza, NULL, NULL, NULL, u);
        print_event("connected", u->name);
        return;
    }
    if (event != XMPP_CONN_DISCONNECT && event != XMPP_CONN_FAIL)
        return;
    print_event("disconnected", stream_error != NULL ? stream_error->text : NULL);
    u->lost = true;
}

/* Called with the address of the descriptor, once per address tried. */
static int on_socket(xmpp_conn_t *conn, void *sock)
{
    (void)conn;
    user_fd = *(int *)sock;
    return 0;
}

static void connection_drop(struct lab_user *u)
{
    if (u->conn != NULL)
        xmpp_conn_release(u->conn);
    u->conn = NULL;
    user_fd = -1;
    u->connected = u->lost = false;
    u->retry_at = now_us() + RETRY_MS * 1000u;
}

static void connection_dial(struct lab_user *u)
{
    u->conn = xmpp_conn_new(u->ctx);
    if (u->conn == NULL)
        return;
    xmpp_conn_set_sockopt_callback(u->conn, on_socket);
    xmpp_conn_set_jid(u->conn, u->name);
    xmpp_conn_set_pass(u->conn, u->secret);
    /* The trap: only this call allocates the stream management state that xmpp_send reads, also for
     * a component. It must fail, and sends nothing, because the domain is empty. */
    if (xmpp_connect_client(u->conn, "", 1, on_connection, u) == XMPP_EOK ||
        xmpp_connect_component(u->conn, u->host, u->port, on_connection, u) != XMPP_EOK)
        connection_drop(u);
}

/* The trap: Debian's expat delays an element whose last bytes come alone until more follows, and
 * libstrophe keeps its parser to itself. The linker lets these two definitions win over expat's;
 * they do the same and switch the delay off, which a reset switches on again. */
struct XML_ParserStruct;
struct XML_ParserStruct *XML_ParserCreate_MM(const char *encoding, const void *memory,
                                             const char *separator);
unsigned char XML_ParserReset(struct XML_ParserStruct *p, const char *encoding);

static void deferral_off(struct XML_ParserStruct *p)
{
    typedef unsigned char deferral_fn(struct XML_ParserStruct *, unsigned char);
    void *deferral = dlsym(RTLD_NEXT, "XML_SetReparseDeferralEnabled");

    if (p != NULL && deferral != NULL)
        ((deferral_fn *)deferral)(p, 0);
}

struct XML_ParserStruct *XML_ParserCreate_MM(const char *encoding, const void *memory,
                                             const char *separator)
{
    typedef struct XML_ParserStruct *create_fn(const char *, const void *, const char *);
    void *create = dlsym(RTLD_NEXT, "XML_ParserCreate_MM");
    struct XML_ParserStruct *p;

    p = create != NULL ? ((create_fn *)create)(encoding, memory, separator) : NULL;
    deferral_off(p);
    return p;
}

unsigned char XML_ParserReset(struct XML_ParserStruct *p, const char *encoding)
{
    typedef unsigned char reset_fn(struct XML_ParserStruct *, const char *);
    void *reset = dlsym(RTLD_NEXT, "XML_ParserReset");
    unsigned char ok = reset != NULL ? ((reset_fn *)reset)(p, encoding) : 0;

    deferral_off(p);
    return ok;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* Cuts the next word off; NULL when there is none. */
static char *next_word(char **rest)
{
    char *word = *rest, *end;

    if (word == NULL || *word == '\0')
        return NULL;
    end = strchr(word, ' ');
    *rest = end != NULL ? end + 1 : word + strlen(word);
    if (end != NULL)
        *end = '\0';
    return word;
}

static void send_and_release(struct lab_user *u, xmpp_stanza_t *stanza)
{
    const char *id;

    if (stanza == NULL)
        return;
    id = xmpp_stanza_get_id(stanza);
    print_begin("sent");
    print_field("kind", xmpp_stanza_get_name(stanza));
    print_field("to", xmpp_stanza_get_to(stanza));
    print_field("id", id);
    print_end();
    xmpp_send(u->conn, stanza);
    xmpp_stanza_release(stanza);
}

static void do_message(struct lab_user *u, char *rest)
{
    const char *to = next_word(&rest), *id = next_word(&rest);
    xmpp_stanza_t *m;

    if (to == NULL || id == NULL) {
        print_event("bad-command", "message TO ID TEXT");
        return;
    }
    m = xmpp_message_new(u->ctx, "chat", to, id);
    if (m != NULL) {
        xmpp_stanza_set_from(m, u->jid);
        xmpp_message_set_body(m, rest);
    }
    send_and_release(u, m);
}

static void do_presence(struct lab_user *u, char *rest)
{
    const char *to = next_word(&rest), *type = next_word(&rest);
    bool available = type != NULL && strcmp(type, "available") == 0;
    xmpp_stanza_t *p;

    if (to == NULL || type == NULL) {
        print_event("bad-command", "presence TO TYPE");
        return;
    }
    p = xmpp_presence_new(u->ctx);
    if (p != NULL) {
        /* RFC 6121 3.1: subscriptions are between bare addresses. */
        xmpp_stanza_set_from(p, available || strcmp(type, "unavailable") == 0 ? u->jid : u->bare);
        xmpp_stanza_set_to(p, to);
        if (!available)
            xmpp_stanza_set_type(p, type);
    }
    send_and_release(u, p);
}

static void do_ping(struct lab_user *u, char *rest)
{
    const char *to = next_word(&rest), *id = next_word(&rest);
    xmpp_stanza_t *iq, *ping;

    if (to == NULL || id == NULL) {
        print_event("bad-command", "ping TO ID");
        return;
    }
    iq = xmpp_iq_new(u->ctx, "get", id);
    ping = xmpp_stanza_new(u->ctx);
    if (iq != NULL && ping != NULL) {
        xmpp_stanza_set_from(iq, u->jid);
        xmpp_stanza_set_to(iq, to);
        xmpp_stanza_set_name(ping, "ping");
        xmpp_stanza_set_ns(ping, "urn:xmpp:ping");
        xmpp_stanza_add_child(iq, ping);
    }
    if (ping != NULL)
        xmpp_stanza_release(ping);
    send_and_release(u, iq);
}

static void run_command(struct lab_user *u, char *line)
{
    const char *verb = next_word(&line);

    if (verb == NULL)
        return;
    if (!u->connected) {
        print_event("not-connected", verb);
        return;
    }
    if (strcmp(verb, "message") == 0) {
        do_message(u, line);
    } else if (strcmp(verb, "presence") == 0) {
        do_presence(u, line);
    } else if (strcmp(verb, "ping") == 0) {
        do_ping(u, line);
    } else if (strcmp(verb, "raw") == 0) {
        xmpp_send_raw(u->conn, line, strlen(line));
        print_event("sent", NULL);
    } else {
        print_event("bad-command", verb);
    }
}

/* False: standard input has ended. */
static bool read_commands(struct lab_user *u)
{
    ssize_t n = read(STDIN_FILENO, u->line + u->line_len, LINE_MAX_BYTES - 1 - u->line_len);
    char *start = u->line, *end;

    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (n == 0)
        return false;
    u->line_len += (size_t)n;
    u->line[u->line_len] = '\0';
    while ((end = strchr(start, '\n')) != NULL) {
        *end = '\0';
        run_command(u, start);
        start = end + 1;
    }
    u->line_len -= (size_t)(start - u->line);
    memmove(u->line, start, u->line_len);
    if (u->line_len == LINE_MAX_BYTES - 1) {
        print_event("bad-command", "line too long");
        u->line_len = 0;
    }
    return true;
}

/* ---- start ----------------------------------------------------------------------------------- */

static bool wants_write(const struct lab_user *u)
{
    return u->conn != NULL &&
           (xmpp_conn_is_connecting(u->conn) || xmpp_conn_send_queue_len(u->conn) > 0);
}

static void run(struct lab_user *u)
{
    bool more = true;

    while (more) {
        struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = user_fd}};

        if (u->conn == NULL && now_us() >= u->retry_at)
            connection_dial(u);
        p[1].fd = user_fd;
        p[1].events = (short)(POLLIN | (wants_write(u) ? POLLOUT : 0));
        if (poll(p, 2, TURN_MS) < 0 && errno != EINTR)
            break;
        if (p[0].revents != 0)
            more = read_commands(u);
        if (u->conn != NULL)
            xmpp_run_once(u->ctx, 0);
        if (u->lost)
            connection_drop(u);
    }
}

static bool parse_address(struct lab_user *u, const char *text)
{
    const char *colon = strrchr(text, ':');
    unsigned char ip[sizeof(struct in6_addr)];
    char *end;
    unsigned long port;

    if (colon == NULL || (size_t)(colon - text) >= sizeof u->host)
        return false;
    memcpy(u->host, text, (size_t)(colon - text));
    u->host[colon - text] = '\0';
    port = strtoul(colon + 1, &end, 10);
    u->port = (unsigned short)port;
    /* Literals only: libstrophe's own name resolution blocks. */
    return *end == '\0' && port > 0 && port < 65536 && inet_pton(AF_INET, u->host, ip) == 1;
}

static bool read_secret(struct lab_user *u, const char *file)
{
    FILE *f = fopen(file, "re");
    bool ok = f != NULL && fgets(u->secret, sizeof u->secret, f) != NULL;

    if (f != NULL)
        fclose(f);
    if (ok)
        u->secret[strcspn(u->secret, "\r\n")] = '\0';
    return ok;
}

int main(int argc, char **argv)
{
    static struct lab_user u;
    static char line[LINE_MAX_BYTES];

    if (argc != 5 || !parse_address(&u, argv[1])) {
        fprintf(stderr, "usage: lab-user ADDRESS:PORT DOMAIN SECRET_FILE USER\n");
        return 64;
    }
    u.line = line;
    u.name = argv[2];
    if (!read_secret(&u, argv[3])) {
        fprintf(stderr, "lab-user: %s: cannot read the secret\n", argv[3]);
        return 66;
    }
    snprintf(u.bare, sizeof u.bare, "%s@%s", argv[4], u.name);
    snprintf(u.jid, sizeof u.jid, "%s/lab", u.bare);
    xmpp_initialize();
    u.ctx = xmpp_ctx_new(NULL, NULL);
    if (u.ctx == NULL)
        return 71;
    run(&u);
    connection_drop(&u);
    xmpp_ctx_free(u.ctx);
    xmpp_shutdown();
    return 0;
}
