/* sallyport-router: command line, configuration and signals around xcp/router.h. */
#include <expat.h>
#include <idn2.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <unistd.h>

#include "config/schema.h"
#include "core/base/mem.h"
#include "core/base/table.h"
#include "core/daemon/auth_info.h"
#include "core/daemon/report.h"
#include "core/daemon/supervisor.h"
#include "xcp/router_control.h"

enum { ERRORS_MAX = 256 * 1024 };

struct app {
    struct loop loop;
    struct log *log;
    struct router *router;
    struct supervisor supervisor;
    struct router_control control;
    struct supervisor_options options;
};

static void libraries(struct supervisor_library out[8])
{
    out[0] = (struct supervisor_library){"libuv", uv_version_string()};
    out[1] = (struct supervisor_library){"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)};
    out[2] = (struct supervisor_library){"expat", XML_ExpatVersion() + strlen("expat_")};
    out[3] = (struct supervisor_library){"libidn2", idn2_check_version(NULL)};
    out[4] = (struct supervisor_library){NULL, NULL};
}

static const struct supervisor_program program = {
    .name = "sallyport-router",
    .summary = "Joins XMPP federation gateways with the servers of the local domains (XEP-0114).",
    .default_config = "/etc/sallyport/sallyport-router.conf",
    .version = SALLYPORT_VERSION,
    .libraries = libraries,
};

/* ---- configuration --------------------------------------------------------------------------- */

static struct router_config *load(const char *file)
{
    struct buf errors = BUF_INIT(ERRORS_MAX);
    struct router_config *cfg = router_config_load(file, &errors);
    fprintf(stderr, "%.*s", STR_ARG(buf_view(&errors)));
    buf_free(&errors);
    return cfg;
}

static void set_log(const struct app *a, const struct router_config *cfg)
{
    int level = a->options.log_level >= 0 ? a->options.log_level : cfg->log.level;
    log_set(a->log, (enum log_level)level, (enum log_format)cfg->log.format,
            (unsigned)cfg->log.rate);
}

static void on_change(void *arg, const struct config_change *c)
{
    struct app *a = arg;
    report_change(&(struct log_ctx){.sink = a->log}, c);
    operate_changed(&a->control.operate, c);
}

static bool reload(void *arg)
{
    struct app *a = arg;
    struct log_ctx log = {.sink = a->log};
    struct buf errors = BUF_INIT(ERRORS_MAX);
    struct router_config *cfg = router_config_load(a->options.config, &errors);
    struct router_config *old = router_config_ref(router_current(a->router));
    bool ok = cfg != NULL && router_apply(a->router, cfg, &errors);
    size_t changes = ok ? router_config_diff(old, cfg, on_change, a) : 0;
    router_config_unref(old);
    if (ok) {
        set_log(a, cfg);
        report_warnings(&log, &errors);
        report_reloaded(&log, a->options.config, changes);
        operate_adopt(&a->control.operate, &cfg->control, cfg->events.file);
        story_tell(router_story(a->router), "config.reloaded", "",
                   "%zu settings of %s have changed", changes, a->options.config);
    } else {
        report_rejected(&log, &errors);
        operate_rejected(&a->control.operate, &errors);
    }
    router_config_unref(cfg);
    buf_free(&errors);
    return ok;
}

/* What the certificates and lists had to complain about. */
static void say_problems(struct buf *problems)
{
    fprintf(stderr, "%.*s", STR_ARG(buf_view(problems)));
    buf_free(problems);
}

static int check(const struct app *a, struct router_config *cfg)
{
    struct buf problems = BUF_INIT(ERRORS_MAX);
    bool ok = router_check(cfg, &problems);
    say_problems(&problems);
    if (!ok)
        return SUPERVISOR_BAD_CONFIG;
    if (a->options.show) {
        struct buf out = BUF_INIT(ERRORS_MAX);
        schema_show(&router_schema, cfg, &out);
        printf("%.*s", STR_ARG(buf_view(&out)));
        buf_free(&out);
    } else {
        printf("%s: %s is fine\n", program.name, a->options.config);
    }
    return SUPERVISOR_OK;
}

static int auth_info(const struct router_config *cfg)
{
    bool ok = true;
    for (size_t i = 0; i < cfg->nlinks; i++) {
        const struct rcfg_link *k = &cfg->links[i];
        struct tls_identity id = {
            .domain = k->name, .certificate = k->proof.certificate, .key = k->proof.key};
        ok = auth_info_print("link", k->name, &id) && ok;
    }
    for (size_t i = 0; i < cfg->nsplices; i++) {
        const struct rcfg_splice *s = &cfg->splices[i];
        struct tls_identity id = {
            .domain = s->name, .certificate = s->proof.certificate, .key = s->proof.key};
        ok = auth_info_print("splice", s->name, &id) && ok;
    }
    return ok ? SUPERVISOR_OK : SUPERVISOR_BAD_CONFIG;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void drain(void *arg)
{
    router_drain(((struct app *)arg)->router);
}

static void stop(void *arg)
{
    router_stop(((struct app *)arg)->router);
}

static void dump(void *arg)
{
    router_dump(((struct app *)arg)->router);
}

static void ended(void *arg)
{
    loop_stop(&((struct app *)arg)->loop);
}

static int fail(int code, const char *what)
{
    fprintf(stderr, "%s: %s\n", program.name, what);
    return code;
}

static const void *current(void *arg)
{
    return router_current(((struct app *)arg)->router);
}

static void *load_for_check(const char *file, struct buf *errors)
{
    return router_config_load(file, errors);
}

static void unref(void *config)
{
    router_config_unref(config);
}

static size_t diff(void *arg, const void *b,
                   void (*each)(void *each_arg, const struct config_change *), void *each_arg)
{
    return router_config_diff(current(arg), b, each, each_arg);
}

/* True also when there is no socket and needs to be none. */
static bool open_control(struct app *a, char why[CONTROL_WHY_MAX])
{
    static const struct operate_config config = {&router_schema, current, load_for_check, unref,
                                                 diff};
    a->control.router = a->router;
    a->control.operate = (struct operate){.loop = &a->loop,
                                          .log = a->log,
                                          .ctx = {.sink = a->log},
                                          .story = router_story(a->router),
                                          .alarms = router_alarms(a->router),
                                          .supervisor = &a->supervisor,
                                          .config = &config,
                                          .file = a->options.config,
                                          .arg = a};
    return router_control_open(&a->control, why);
}

/* Binds, gives up privileges, and works until the router has ended. */
static int serve(struct app *a, const struct router_config *cfg)
{
    static const struct supervisor_ops ops = {reload, drain, stop, dump};
    char why[LOG_VALUE_MAX];
    if (!router_bind(a->router, why, sizeof why))
        return fail(SUPERVISOR_UNAVAILABLE, why);
    if (!open_control(a, why))
        return fail(SUPERVISOR_UNAVAILABLE, why);
    int code = supervisor_drop(&program, cfg->user);
    if (code != SUPERVISOR_OK)
        return code;
    if (!supervisor_start(&a->supervisor, &a->loop, &ops, a))
        return fail(SUPERVISOR_SYSTEM, "cannot watch for signals");
    router_start(a->router);
    supervisor_ready(&a->supervisor);
    loop_run(&a->loop);
    supervisor_stop(&a->supervisor);
    return SUPERVISOR_OK;
}

static int run(struct app *a, struct router_config *cfg)
{
    a->log = log_new(STDERR_FILENO, (enum log_level)cfg->log.level,
                     (enum log_format)cfg->log.format, (unsigned)cfg->log.rate);
    if (a->log == NULL || !loop_init(&a->loop, &env_system, a->log)) {
        log_free(a->log);
        return fail(SUPERVISOR_SYSTEM, "out of memory or descriptors");
    }
    set_log(a, cfg);
    struct buf problems = BUF_INIT(ERRORS_MAX);
    a->router = router_new(&a->loop, cfg, ended, a, &problems);
    say_problems(&problems);
    int code = a->router ? serve(a, cfg) : fail(SUPERVISOR_BAD_CONFIG, "it cannot start like that");
    operate_close(&a->control.operate);
    router_free(a->router);
    loop_close(&a->loop);
    log_free(a->log);
    return code;
}

int main(int argc, char **argv)
{
    struct app a = {.log = NULL};
    int code;
    if (!supervisor_parse(&program, argc, argv, &a.options, &code))
        return code;
    if (!table_seed_random(&env_system))
        return fail(SUPERVISOR_SYSTEM, "the system has no random numbers");
    struct router_config *cfg = load(a.options.config);
    if (cfg == NULL)
        return supervisor_config_exit(a.options.config);
    if (a.options.auth_info) {
        code = auth_info(cfg);
    } else if (a.options.check) {
        code = check(&a, cfg);
    } else {
        code = supervisor_check_root(&program, &a.options, cfg->user);
        if (code == SUPERVISOR_OK) {
            supervisor_prepare();
            code = run(&a, cfg);
        }
    }
    router_config_unref(cfg);
    return code;
}
