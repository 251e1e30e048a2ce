/* sallyport: the gateway program. Command line, configuration, one worker, signals. */
#include <ares.h>
#include <errno.h>
#include <expat.h>
#include <libconfig.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strophe.h>
#include <unistd.h>

#include "config/schema.h"
#include "core/base/mem.h"
#include "core/daemon/auth_info.h"
#include "core/daemon/report.h"
#include "core/daemon/supervisor.h"
#include "ctl/client.h"
#include "ctl/table.h"
#include "gateway/control.h"
#include "gateway/policy/policy.h"
#include "gateway/worker.h"

enum { ERRORS_MAX = 1 << 20 };

struct gateway {
    struct supervisor supervisor;
    struct worker worker;
    struct gateway_control control;
    struct log *log;
    const struct supervisor_options *options;
    const char *config_file;
};

static void libraries(struct supervisor_library out[8])
{
    const struct supervisor_library used[] = {{"libuv", uv_version_string()},
                                              {"c-ares", ares_version(NULL)},
                                              {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)},
                                              {"expat", XML_ExpatVersion()},
                                              {"libstrophe", "0.12 API"},
                                              {NULL, NULL}};
    memcpy(out, used, sizeof used);
}

static const struct supervisor_program program = {
    .name = "sallyport",
    .summary = "XMPP federation gateway: server-to-server streams outside, one link inside",
    .default_config = "/etc/sallyport/sallyport.conf",
    .version = SALLYPORT_VERSION,
    .libraries = libraries,
};

static enum log_level level_of(const struct gateway *g, const struct gateway_config *c)
{
    return (enum log_level)(g->options->log_level >= 0 ? g->options->log_level : c->log.level);
}

static bool on_reload(void *arg)
{
    struct gateway *g = arg;
    struct buf errors = BUF_INIT(ERRORS_MAX);
    struct gateway_config *c = gateway_config_load(g->config_file, &errors);
    bool ok = c != NULL;
    if (ok) {
        report_warnings(&g->worker.ctx, &errors);
        buf_clear(&errors);
        ok = worker_reload(&g->worker, c, &errors);
    }
    if (ok) {
        operate_adopt(&g->control.operate, &c->control, c->events.file);
        log_set(g->log, level_of(g, c), (enum log_format)c->log.format, (unsigned)c->log.rate);
    } else {
        report_rejected(&g->worker.ctx, &errors);
        operate_rejected(&g->control.operate, &errors);
    }
    gateway_config_unref(c);
    buf_free(&errors);
    return ok;
}

static void on_drained(void *arg)
{
    struct gateway *g = arg;
    worker_dump(&g->worker);
    log_ev(&g->worker.ctx, LOG_NOTICE, "gateway.stopped", KV_C("reason", "drained"));
    loop_stop(&g->worker.loop);
}

static void on_drain(void *arg)
{
    struct gateway *g = arg;
    worker_drain(&g->worker, on_drained, g);
}

static void on_stop(void *arg)
{
    struct gateway *g = arg;
    worker_drain(&g->worker, on_drained, g);
    worker_drain_now(&g->worker);
}

static void on_dump(void *arg)
{
    worker_dump(&((struct gateway *)arg)->worker);
}

/* ---- control --------------------------------------------------------------------------------- */

static const void *current(void *arg)
{
    return ((struct gateway *)arg)->worker.cfg;
}

static void *load(const char *file, struct buf *errors)
{
    return gateway_config_load(file, errors);
}

static void unref(void *config)
{
    gateway_config_unref(config);
}

static size_t diff(void *arg, const void *b,
                   void (*each)(void *each_arg, const struct config_change *), void *each_arg)
{
    return rules_diff(&((struct gateway *)arg)->worker, b, each, each_arg);
}

static void on_change(void *arg, const struct config_change *c)
{
    operate_changed(arg, c);
}

/* True also when there is no socket and needs to be none. */
static bool open_control(struct gateway *g)
{
    static const struct operate_config config = {&gateway_schema, current, load, unref, diff};
    char why[CONTROL_WHY_MAX];
    g->control.w = &g->worker;
    g->control.operate = (struct operate){.loop = &g->worker.loop,
                                          .log = g->log,
                                          .ctx = g->worker.ctx,
                                          .story = &g->worker.story,
                                          .alarms = &g->worker.alarms,
                                          .supervisor = &g->supervisor,
                                          .config = &config,
                                          .file = g->config_file,
                                          .arg = g};
    g->worker.on_change = on_change;
    g->worker.on_change_arg = &g->control.operate;
    bool ok = gateway_control_open(&g->control, why);
    if (!ok)
        fprintf(stderr, "%s: %s\n", program.name, why);
    return ok;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int run(struct gateway *g, struct gateway_config *cfg)
{
    static const struct supervisor_ops ops = {on_reload, on_drain, on_stop, on_dump};
    struct buf why = BUF_INIT(ERRORS_MAX);
    int code = SUPERVISOR_FAILED;
    bool started = worker_start(&g->worker, g->log, cfg, &why, &code);
    if (!started)
        fprintf(stderr, "%s: %.*s", program.name, STR_ARG(buf_view(&why)));
    else
        code = open_control(g) ? supervisor_drop(&program, cfg->user) : SUPERVISOR_UNAVAILABLE;
    if (started && code == SUPERVISOR_OK) {
        if (supervisor_start(&g->supervisor, &g->worker.loop, &ops, g)) {
            log_ev(&g->worker.ctx, LOG_NOTICE, "gateway.start", KV_C("version", SALLYPORT_VERSION),
                   KV_C("config", g->config_file), KV_I("pid", getpid()),
                   KV_C("security_mode",
                        policy_security_name((enum security_mode)cfg->security_mode)));
            story_tell(&g->worker.story, "start", "", "sallyport %s has started",
                       SALLYPORT_VERSION);
            supervisor_ready(&g->supervisor);
            loop_run(&g->worker.loop);
            supervisor_stop(&g->supervisor);
        } else {
            code = SUPERVISOR_SYSTEM;
        }
    }
    operate_close(&g->control.operate);
    worker_close(&g->worker);
    buf_free(&why);
    return code;
}

static int serve(struct gateway *g, const struct supervisor_options *o, struct gateway_config *cfg)
{
    g->options = o;
    g->config_file = o->config;
    g->log = log_new(STDERR_FILENO, level_of(g, cfg), (enum log_format)cfg->log.format,
                     (unsigned)cfg->log.rate);
    int code = g->log ? run(g, cfg) : SUPERVISOR_SYSTEM;
    log_free(g->log);
    return code;
}

/* What the file would change in the gateway that runs now, if one does and answers. */
static void compare(const struct supervisor_options *o, const struct gateway_config *cfg)
{
    enum { ANSWER_MS = 5000 };
    struct buf request = BUF_INIT(PATH_MAX * 2), reply = BUF_INIT(CLIENT_LINE_MAX);
    struct buf text = BUF_INIT(CLIENT_LINE_MAX);
    struct document d = {NULL};
    char path[PATH_MAX];
    bool asked = cfg->control.socket != NULL && realpath(o->config, path) != NULL;
    command_quote(&request, STR("config"));
    command_quote(&request, STR("check"));
    command_quote(&request, str_c(asked ? path : ""));
    buf_putc(&request, '\n');
    asked = asked && client_ask(cfg->control.socket, &request, ANSWER_MS, &reply);
    const struct value *root = asked && document_read(&d, buf_view(&reply)) ? d.v : NULL;
    const struct value *ok = document_get(&d, root, "ok");
    const struct value *why = document_get(&d, document_get(&d, root, "error"), "text");
    if (ok != NULL)
        table_print(&d, ok, &text);
    if (text.len > 0)
        printf("\nCompared with the gateway that runs now:\n%.*s", STR_ARG(buf_view(&text)));
    else if (why != NULL)
        fprintf(stderr, "%s: not compared with the running gateway: %s\n", program.name, why->text);
    document_free(&d);
    buf_free(&request);
    buf_free(&reply);
    buf_free(&text);
}

static int check_only(const struct supervisor_options *o, const struct gateway_config *cfg)
{
    struct buf text = BUF_INIT(ERRORS_MAX);
    if (o->show) {
        schema_show(&gateway_schema, cfg, &text);
        fwrite(text.p, 1, text.len, stdout);
    }
    buf_free(&text);
    printf("%s: the configuration is fine\n", o->config);
    compare(o, cfg);
    return SUPERVISOR_OK;
}

static void print_secret(const char *what, const char *secret)
{
    char text[DIALBACK_FINGERPRINT];
    if (dialback_fingerprint(text, str_c(secret)))
        printf("  %s: %s\n", what, text);
}

/* The same on all gateways of a domain. */
static void dialback_info(const struct gateway_config *cfg)
{
    printf("dialback\n");
    if (cfg->dialback.secret == NULL)
        printf("  no secret_file: a random secret at each start, which no other gateway has\n");
    else
        print_secret("secret", cfg->dialback.secret);
    for (size_t i = 0; i < cfg->dialback.nprevious; i++)
        print_secret("previous", cfg->dialback.previous_secrets[i]);
}

static int auth_info(const struct gateway_config *cfg)
{
    bool ok = true;
    dialback_info(cfg);
    for (size_t i = 0; i < cfg->nlinks; i++) {
        const struct cfg_link *k = &cfg->links[i];
        const char *name = k->component != NULL ? k->component : k->name;
        struct tls_identity id = {.domain = name, .certificate = k->certificate, .key = k->key};
        ok = auth_info_print("link", k->name, &id) && ok;
    }
    return ok ? SUPERVISOR_OK : SUPERVISOR_BAD_CONFIG;
}

int main(int argc, char **argv)
{
    struct supervisor_options o;
    int code;
    if (!supervisor_parse(&program, argc, argv, &o, &code))
        return code;
    if (!table_seed_random(&env_system) || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        fprintf(stderr, "%s: no randomness, or no DNS library\n", program.name);
        return SUPERVISOR_SYSTEM;
    }
    struct buf errors = BUF_INIT(ERRORS_MAX);
    struct gateway_config *cfg = gateway_config_load(o.config, &errors);
    if (errors.len > 0)
        fwrite(errors.p, 1, errors.len, stderr);
    buf_free(&errors);
    bool serving = cfg != NULL && !o.check && !o.auth_info;
    code = cfg == NULL   ? supervisor_config_exit(o.config)
           : o.auth_info ? auth_info(cfg)
           : o.check     ? check_only(&o, cfg)
                         : supervisor_check_root(&program, &o, cfg->user);
    if (serving && code == SUPERVISOR_OK) {
        struct gateway *g = mem_zalloc(sizeof *g);
        supervisor_prepare();
        code = g ? serve(g, &o, cfg) : SUPERVISOR_SYSTEM;
        mem_free(g);
    }
    gateway_config_unref(cfg);
    ares_library_cleanup();
    return code;
}
