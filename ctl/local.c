#include "ctl/local.h"

#include <errno.h>
#include <stdio.h>

#include "config/flows.h"
#include "config/gateway.h"
#include "config/schema.h"
#include "config/source.h"
#include "core/base/mem.h"
#include "core/control/commands.h"
#include "core/control/json.h"
#include "ctl/complete.h"
#include "ctl/exit.h"
#include "ctl/import.h"

static const char name[] = "sallyportctl";

static const struct command commands[] = {
    {"completion bash", "", PRIVILEGE_READ, "print completion for bash"},
    {"import prosody", "FILE...", PRIVILEGE_READ, "write a configuration from another server's:"},
    {"import expressway", "FILE", PRIVILEGE_READ, "its listing of xConfiguration"},
    {"import ejabberd", "FILE...", PRIVILEGE_READ, "ejabberd.yml"},
    {"import jabberd2", "FILE...", PRIVILEGE_READ, "s2s.xml and sm.xml"},
};

const struct command_set local_commands = {"sallyportctl itself, which need no daemon", commands,
                                           sizeof commands / sizeof commands[0]};

static void print(const struct buf *out)
{
    fwrite(out->p != NULL ? out->p : "", 1, out->len, stdout);
}

int local_completion(const char *shell)
{
    struct buf out = BUF_INIT(1 << 20);
    if (strcmp(shell, "bash") != 0) {
        fprintf(stderr, "%s: no completion for '%s'\n", name, shell);
        return EXIT_BAD_USAGE;
    }
    complete_bash(&gateway_commands, &router_commands, &out);
    print(&out);
    buf_free(&out);
    return EXIT_OK;
}

/* ---- import ---------------------------------------------------------------------------------- */

static int read_files(struct import_source *sources, struct buf *texts, char **files, int n)
{
    for (int i = 0; i < n; i++) {
        texts[i] = BUF_INIT(IMPORT_FILE_MAX + 1);
        int e = source_read(files[i], IMPORT_FILE_MAX, false, &texts[i]);
        if (e != 0) {
            fprintf(stderr, "%s: %s: %s\n", name, files[i], strerror(e));
            return EXIT_NO_FILE;
        }
        sources[i] = (struct import_source){files[i], buf_view(&texts[i])};
    }
    return EXIT_OK;
}

int local_import(const char *dialect, char **files, int n)
{
    struct import_source *sources = mem_zalloc(IMPORT_FILES_MAX * sizeof *sources);
    struct buf *texts = mem_zalloc(IMPORT_FILES_MAX * sizeof *texts);
    struct buf out = BUF_INIT(IMPORT_TEXT_MAX), why = BUF_INIT(4096);
    int code = EXIT_REFUSED;
    if (!import_knows(dialect) || n == 0 || n > IMPORT_FILES_MAX) {
        fprintf(stderr, "%s: usage: import prosody|expressway|ejabberd|jabberd2 FILE...\n", name);
        code = EXIT_BAD_USAGE;
    } else if (sources != NULL && texts != NULL) {
        code = read_files(sources, texts, files, n);
    }
    if (code == EXIT_OK) {
        bool ok = import_convert(dialect, sources, (size_t)n, &out, &why) && !out.failed;
        if (!ok)
            fprintf(stderr, "%s: %s\n", name, why.len ? why.p : "too long");
        code = ok ? EXIT_OK : EXIT_BAD_CONFIG;
    }
    if (code == EXIT_OK)
        print(&out);
    for (int i = 0; texts != NULL && i < n && i < IMPORT_FILES_MAX; i++)
        buf_free(&texts[i]);
    mem_free(sources);
    mem_free(texts);
    buf_free(&out);
    buf_free(&why);
    return code;
}

/* ---- firewall -------------------------------------------------------------------------------- */

static void put_flow(void *arg, const char *event, const struct kv *kv, size_t n)
{
    struct json *j = arg;
    (void)event;
    json_object(j, NULL);
    json_fields(j, kv, n);
    json_end(j);
}

int local_firewall(const char *file, struct buf *reply)
{
    struct buf errors = BUF_INIT(64 << 10), dns = BUF_INIT(FLOWS_RESOLV_MAX);
    struct gateway_config *c = gateway_config_load(file, &errors);
    struct json j;
    if (c == NULL) {
        fwrite(errors.p != NULL ? errors.p : "", 1, errors.len, stderr);
        bool missing = config_missing(&errors);
        buf_free(&errors);
        return missing ? EXIT_NO_FILE : EXIT_BAD_CONFIG;
    }
    flows_resolv_conf(&dns);
    json_begin(&j, reply);
    json_object(&j, NULL);
    json_object(&j, "ok");
    json_array(&j, "flows");
    flows_list(c, buf_view(&dns), &(struct kv_sink){put_flow, &j});
    json_end(&j);
    json_end(&j);
    json_end(&j);
    gateway_config_unref(c);
    buf_free(&errors);
    buf_free(&dns);
    return reply->failed ? EXIT_REFUSED : EXIT_OK;
}
