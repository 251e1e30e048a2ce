/* sallyportctl: one command to the control socket of sallyport or sallyport-router, the reply as a
 * table. It knows the names of the commands for help and completion; what they mean, and who may
 * use them, is the daemon's affair. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/control.h"
#include "config/peek.h"
#include "core/base/mem.h"
#include "core/control/commands.h"
#include "ctl/client.h"
#include "ctl/exit.h"
#include "ctl/local.h"
#include "ctl/reader.h"
#include "ctl/table.h"

enum { TIMEOUT_S = 10, TABLE_MAX = 64 << 20 };

struct options {
    const char *config, *socket;
    bool router, json, quiet;
    unsigned timeout_s;
    const struct command_set *commands;
};

static const char name[] = "sallyportctl";

/* ---- command line ---------------------------------------------------------------------------- */

static void print_commands(const struct command_set *set)
{
    printf("\nCommands of %s:\n", set->program);
    for (size_t i = 0; i < set->n; i++) {
        char usage[80];
        const struct command *c = &set->v[i];
        snprintf(usage, sizeof usage, "%s %s", c->name, c->args);
        printf("  %-28s %s%s%s\n", usage, c->help, c->privilege > PRIVILEGE_READ ? "; " : "",
               c->privilege > PRIVILEGE_READ ? privilege_name(c->privilege) : "");
    }
}

static void print_help(const struct options *o)
{
    printf("Usage: %s [OPTION]... COMMAND [ARGUMENT]...\n"
           "Asks and commands a running sallyport (with -r: sallyport-router).\n\n"
           "  -r, --router         the router instead of the gateway\n"
           "  -c, --config FILE    the program's configuration: it names the socket\n"
           "  -s, --socket PATH    the socket itself\n"
           "  -t, --timeout SEC    how long to wait for an answer (default %d)\n"
           "      --json           the reply as it comes, one JSON text per line\n"
           "  -q, --quiet          no output, only the exit code (errors are still told)\n"
           "  -h, --help           print this and exit\n"
           "  -V, --version        print the version and exit\n",
           name, TIMEOUT_S);
    print_commands(o->commands);
    print_commands(&local_commands);
    puts(
        "\n  -c FILE firewall             what the gateway would answer with this configuration\n\n"
        "Exit codes: 0 done, 1 refused or failed, 3 not running, 64 usage, 75 timed out,\n"
        "77 no permission, 78 the configuration is not fine.");
}

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "%s: %s '%s'\nTry '%s --help'.\n", name, what, value, name);
    return EXIT_BAD_USAGE;
}

enum { OPT_JSON = 256 };

static const struct option long_options[] = {
    {"router", no_argument, NULL, 'r'},
    {"config", required_argument, NULL, 'c'},
    {"socket", required_argument, NULL, 's'},
    {"timeout", required_argument, NULL, 't'},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static bool parse_timeout(const char *text, unsigned *out)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || v == 0 || v > 86400)
        return false;
    *out = (unsigned)v;
    return true;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct options *o)
{
    bool help = false;
    int c;
    opterr = 0;
    *o = (struct options){.timeout_s = TIMEOUT_S, .commands = &gateway_commands};
    while ((c = getopt_long(argc, argv, "+:rc:s:t:qhV", long_options, NULL)) != -1) {
        switch (c) {
        case 'r':
            o->router = true;
            o->commands = &router_commands;
            break;
        case 'c':
            o->config = optarg;
            break;
        case 's':
            o->socket = optarg;
            break;
        case 't':
            if (!parse_timeout(optarg, &o->timeout_s))
                return usage_error("not a number of seconds:", optarg);
            break;
        case OPT_JSON:
            o->json = true;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'h':
            help = true;
            break;
        case 'V':
            printf("%s %s\n", name, SALLYPORT_VERSION);
            return EXIT_OK;
        default:
            return usage_error(c == ':' ? "missing argument of option" : "unknown option",
                               argv[optind - 1]);
        }
    }
    if (help)
        print_help(o);
    return help ? EXIT_OK : -1;
}

/* ---- the request ----------------------------------------------------------------------------- */

/* A file of ours is found from our folder, not from the daemon's. */
static void put_word(const struct command *c, const char *word, bool argument, struct buf *line)
{
    char absolute[PATH_MAX];
    bool file = argument && c != NULL && strcmp(c->args, "FILE") == 0;
    command_quote(line, str_c(file && realpath(word, absolute) != NULL ? absolute : word));
}

/* The same check as the daemon's, so that a slip of the pen is told without one. */
static int build(const struct options *o, char **words, int n, size_t from, struct buf *line)
{
    struct command_request *r = mem_zalloc(sizeof *r);
    const struct command *c = NULL;
    for (int i = 0; i < n; i++)
        command_quote(line, str_c(words[i]));
    if (r == NULL || line->failed) {
        mem_free(r);
        return EXIT_REFUSED;
    }
    bool ok = command_read(o->commands, buf_view(line), PRIVILEGE_ADMIN, r);
    if (!ok)
        fprintf(stderr, "%s: %s\n", name, r->why);
    else
        c = &o->commands->v[r->command];
    int behind = n - (int)(ok ? r->argc : 0);
    buf_clear(line);
    for (int i = 0; ok && i < n; i++)
        put_word(c, words[i], i >= behind, line);
    if (ok && from > 0)
        buf_printf(line, " --from %zu", from);
    buf_putc(line, '\n');
    mem_free(r);
    return ok ? EXIT_OK : EXIT_BAD_USAGE;
}

/* ---- the socket ------------------------------------------------------------------------------ */

static const char *standard_socket(const struct options *o)
{
    return o->router ? CONTROL_ROUTER_SOCKET : CONTROL_GATEWAY_SOCKET;
}

static int find_socket(const struct options *o, char path[PATH_MAX])
{
    struct buf why = BUF_INIT(4096);
    snprintf(path, PATH_MAX, "%s", o->socket != NULL ? o->socket : standard_socket(o));
    if (o->socket != NULL || o->config == NULL)
        return EXIT_OK;
    bool ok = config_peek(o->config, "control.socket", path, PATH_MAX, &why);
    if (!ok)
        fprintf(stderr, "%s: %.*s\n", name, STR_ARG(buf_view(&why)));
    buf_free(&why);
    if (ok && *path == '\0')
        fprintf(stderr, "%s: %s has no control socket\n", name, o->config);
    return !ok ? EXIT_NO_FILE : *path == '\0' ? EXIT_NOT_RUNNING : EXIT_OK;
}

static int connect_failed(const struct options *o, const char *path, int e)
{
    bool none = e == ENOENT || e == ECONNREFUSED || e == ENOTDIR;
    if (e == ENAMETOOLONG)
        return usage_error("too long for the path of a socket:", path);
    fprintf(stderr, "%s: %s: %s: %s\n", name, o->commands->program,
            none ? "not running" : "cannot connect", path);
    if (!none)
        fprintf(stderr, "%s: %s\n", name, strerror(e));
    return none                            ? EXIT_NOT_RUNNING
           : e == EACCES || e == EPERM     ? EXIT_NOT_PERMITTED
           : e == EAGAIN || e == ETIMEDOUT ? EXIT_TIMED_OUT
                                           : EXIT_REFUSED;
}

/* ---- the reply ------------------------------------------------------------------------------- */

static int timed_out(void)
{
    fprintf(stderr, "%s: no answer in time\n", name);
    return EXIT_TIMED_OUT;
}

static int lost(void)
{
    fprintf(stderr, "%s: the other side closed the connection\n", name);
    return EXIT_REFUSED;
}

/* A whole line into *line, borrowed until client_next; EXIT_OK, or the exit code. `ended`: the end
 * of the stream is what ends it, no failure. */
static int read_line(struct client *c, struct str *line, bool *ended)
{
    enum client_end end = client_line(c, line);
    *ended = end == CLIENT_ENDED;
    return end == CLIENT_LATE ? timed_out() : end == CLIENT_LOST ? lost() : EXIT_OK;
}

static int show_error(const struct document *d, const struct value *error)
{
    const struct value *code = document_get(d, error, "code");
    const struct value *text = document_get(d, error, "text");
    fprintf(stderr, "%s: %s\n", name, text != NULL && *text->text ? text->text : "it failed");
    return control_error_exit(code != NULL ? code->text : "");
}

static void print_value(const struct options *o, const struct document *d, const struct value *ok,
                        const struct value *event, struct str line)
{
    struct buf out = BUF_INIT(TABLE_MAX);
    if (o->quiet)
        return;
    if (o->json) {
        fwrite(line.p, 1, line.n, stdout);
        putchar('\n');
        return;
    }
    if (event != NULL)
        table_event(d, event, &out);
    else
        table_print(d, ok, &out);
    fwrite(out.p != NULL ? out.p : "", 1, out.len, stdout);
    buf_free(&out);
}

/* *more: the row to ask for next. */
static int show(const struct options *o, struct str line, size_t *more)
{
    struct document d;
    bool good = document_read(&d, line);
    const struct value *root = good ? d.v : NULL;
    const struct value *error = document_get(&d, root, "error");
    const struct value *ok = document_get(&d, root, "ok");
    const struct value *event = document_get(&d, root, "event");
    int code = EXIT_OK;
    if (error != NULL) {
        if (o->json && !o->quiet)
            print_value(o, &d, NULL, NULL, line);
        code = show_error(&d, error);
    } else if (ok != NULL || event != NULL) {
        const struct value *fine = document_get(&d, ok, "fine");
        const struct value *next = document_get(&d, ok, "more");
        print_value(o, &d, ok, event, line);
        *more = next != NULL ? strtoul(next->text, NULL, 10) : 0;
        code = fine != NULL && *fine->text == 'f' ? EXIT_BAD_CONFIG : EXIT_OK;
    } else {
        fprintf(stderr, "%s: this is no answer of a control socket\n", name);
        code = EXIT_REFUSED;
    }
    document_free(&d);
    return code;
}

static bool follows(char **words, int n)
{
    return n > 1 && strcmp(words[n - 1], "--follow") == 0;
}

/* One request and its reply; with `on`, everything that comes after it. */
static int ask(const struct options *o, struct client *c, const struct buf *line, bool on,
               size_t *more)
{
    struct str reply;
    bool ended = false;
    int code = EXIT_OK;
    c->deadline = client_now() + o->timeout_s * UINT64_C(1000);
    bool sent = client_send(c, line); /* if not: it may have said why before it closed */
    do {
        int r = read_line(c, &reply, &ended);
        if (r != EXIT_OK)
            return r;
        if (ended)
            return on && sent && c->deadline == 0 ? code : lost();
        code = show(o, reply, more);
        fflush(stdout);
        client_next(c, reply);
        c->deadline = 0;
    } while (on && code == EXIT_OK);
    return code;
}

static int converse(const struct options *o, struct client *c, char **words, int n)
{
    size_t more = 0;
    int code;
    do {
        struct buf line = BUF_INIT(COMMAND_LINE_MAX * 2);
        code = build(o, words, n, more, &line);
        more = 0;
        if (code == EXIT_OK)
            code = ask(o, c, &line, follows(words, n), &more);
        buf_free(&line);
    } while (code == EXIT_OK && more > 0);
    return code;
}

/* ---- what needs no daemon -------------------------------------------------------------------- */

static int firewall(const struct options *o)
{
    struct buf reply = BUF_INIT(TABLE_MAX);
    size_t more;
    int code = local_firewall(o->config, &reply);
    if (code == EXIT_OK)
        code = show(o, buf_view(&reply), &more);
    buf_free(&reply);
    return code;
}

/* The exit code, or -1: it is for the daemon. */
static int local(const struct options *o, char **words, int n)
{
    if (n == 2 && strcmp(words[0], "completion") == 0)
        return local_completion(words[1]);
    if (strcmp(words[0], "import") == 0)
        return local_import(n > 1 ? words[1] : "", words + 2, n > 1 ? n - 2 : 0);
    if (n == 1 && strcmp(words[0], "firewall") == 0 && o->config != NULL && !o->router)
        return firewall(o);
    return -1;
}

int main(int argc, char **argv)
{
    struct options o;
    char path[PATH_MAX];
    struct client c;
    int code = parse(argc, argv, &o);
    char **words = argv + optind;
    int n = argc - optind;
    if (code >= 0)
        return code;
    if (n == 0 || (n == 1 && strcmp(words[0], "help") == 0)) {
        print_help(&o);
        return n == 0 ? EXIT_BAD_USAGE : EXIT_OK;
    }
    if ((code = local(&o, words, n)) >= 0)
        return code;
    struct buf line = BUF_INIT(COMMAND_LINE_MAX * 2);
    code = build(&o, words, n, 0, &line);
    buf_free(&line);
    if (code == EXIT_OK)
        code = find_socket(&o, path);
    int e = code == EXIT_OK ? client_open(&c, path) : 0;
    if (e != 0)
        return connect_failed(&o, path, e);
    if (code != EXIT_OK)
        return code;
    code = converse(&o, &c, words, n);
    client_close(&c);
    return code;
}
