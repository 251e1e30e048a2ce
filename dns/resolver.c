/* Lookups: who asks (dns_query), what is being asked (job), what is known (dns_cache).
 *
 * A call makes a query. It is answered from the cache, by a literal, or by a job; a job is shared
 * by all who want the same name. The job feeds its plan and carries out the plan's actions in a
 * task of the loop, never inside a c-ares callback. When the plan is done, the outcome goes into
 * the cache and then to everybody who waits; each is free to cancel others, to ask again or to
 * close the resolver from its callback, so `holds` keeps it in memory until all have been told. */
#include "dns/resolver.h"

#include <stdio.h>

#include "core/base/buf.h"
#include "core/base/mem.h"
#include "dns/cares.h"

enum { QUERIES_MAX = 4096, TRY_MAX_MS = 2000, TRY_MIN_MS = 50, SERVERS_TEXT_MAX = 4096 };

struct resolver {
    struct loop *loop;
    struct log_ctx log;
    struct dns_cache *cache;
    struct buf servers; /* as c-ares wants them; empty: the system's */
    struct cares_options options;
    uint64_t timeout_ms;
    bool trust_ad;
    struct list queries, jobs;
    unsigned holds; /* deliveries on the stack */
    bool closed;
};

struct dns_query {
    struct list_node node; /* in resolver.queries */
    struct resolver *r;
    struct dns_waiter waiter;
    struct loop_task task;     /* delivers `ready` */
    struct dns_outcome *ready; /* owned; NULL: waits for a job */
    enum dns_kind kind;
    bool cached, literal;
    uint64_t start_ms;
    char name[DOMAIN_MAX + 1];
    void (*on_services)(void *arg, const struct dns_services *);
    void (*on_addresses)(void *arg, const struct dns_addresses *);
    void (*on_tlsa)(void *arg, const struct dns_tlsa *);
    void *arg;
};

struct job {
    struct list_node node; /* in resolver.jobs */
    struct resolver *r;
    struct dns_question *question;
    struct dns_plan plan;
    struct dns_actions todo;
    struct loop_task task;
    struct timer deadline, grace;
    struct asked {
        struct job *job;
        struct cares *cares;
    } asked[DNS_PLAN_SLOTS]; /* by slot of the plan */
};

/* ---- results ---- */

static void query_free(struct dns_query *q)
{
    loop_unpost(q->r->loop, &q->task);
    list_remove(&q->node);
    mem_free(q->ready);
    mem_free(q);
}

struct found {
    const char *what;
    size_t n;
    bool authentic;
    uint64_t total_ms;
    const uint64_t *srv_ms; /* NULL: of services only */
};

static void log_result(const struct dns_query *q, const char *method, enum dns_status status,
                       const struct found *f, const char *text)
{
    const char *authentic = f->authentic ? "yes" : "no";
    log_ev(&q->r->log, LOG_INFO, "dns.result",
           KV_C(dns_kind_services(q->kind) ? "domain" : "host", q->name), KV_C("method", method),
           KV_SEC("total", f->total_ms),
           f->srv_ms ? KV_SEC("srv", *f->srv_ms) : KV_S("srv", STR_NONE), KV_I(f->what, f->n),
           KV_C("authentic", q->r->trust_ad ? authentic : NULL),
           KV_C("cached", q->cached ? "yes" : "no"), KV_C("status", dns_status_name(status)),
           KV_S("msg", *text ? str_c(text) : STR_NONE));
}

static bool all_authentic(const struct dns_services *s)
{
    for (size_t i = 0; i < s->ntargets; i++)
        if (!s->target[i].authentic)
            return false;
    return s->ntargets > 0;
}

/* Ends the query: unlinks it, frees it, calls its holder. */
static void deliver_services(struct dns_query *q, const struct dns_outcome *o, uint64_t srv_ms)
{
    struct dns_services out;
    dns_outcome_services(o, str_c(q->name), q->r->loop->env, &out);
    out.cached = q->cached;
    out.total_ms = loop_now(q->r->loop) - q->start_ms;
    out.srv_ms = srv_ms;
    bool fell_back = o->status == DNS_OK && !o->from_srv;
    struct found f = {"targets", out.ntargets, all_authentic(&out), out.total_ms, &out.srv_ms};
    log_result(q, fell_back ? "A" : "SRV", out.status, &f, out.text);
    void (*done)(void *, const struct dns_services *) = q->on_services;
    void *arg = q->arg;
    query_free(q);
    done(arg, &out);
}

static void deliver_addresses(struct dns_query *q, const struct dns_outcome *o)
{
    struct dns_addresses out;
    dns_outcome_addresses(o, &out);
    out.cached = q->cached;
    out.total_ms = loop_now(q->r->loop) - q->start_ms;
    struct found f = {"addresses", out.n, out.authentic, out.total_ms, NULL};
    log_result(q, q->literal ? "literal" : "A", out.status, &f, out.text);
    void (*done)(void *, const struct dns_addresses *) = q->on_addresses;
    void *arg = q->arg;
    query_free(q);
    done(arg, &out);
}

static void deliver_tlsa(struct dns_query *q, const struct dns_outcome *o)
{
    struct dns_tlsa out;
    dns_outcome_tlsa(o, &out);
    out.cached = q->cached;
    out.total_ms = loop_now(q->r->loop) - q->start_ms;
    struct found f = {"records", out.n, out.authentic, out.total_ms, NULL};
    log_result(q, "TLSA", out.status, &f, out.text);
    void (*done)(void *, const struct dns_tlsa *) = q->on_tlsa;
    void *arg = q->arg;
    query_free(q);
    done(arg, &out);
}

static void deliver(struct dns_query *q, const struct dns_outcome *o, uint64_t srv_ms)
{
    if (dns_kind_services(q->kind))
        deliver_services(q, o, srv_ms);
    else if (q->kind == DNS_KIND_TLSA)
        deliver_tlsa(q, o);
    else
        deliver_addresses(q, o);
}

static void run_ready(struct loop_task *t)
{
    struct dns_query *q = CONTAINER_OF(t, struct dns_query, task);
    struct dns_outcome *o = q->ready;
    q->ready = NULL;
    deliver(q, o, 0);
    mem_free(o);
}

/* ---- jobs ---- */

static void release(struct resolver *r)
{
    if (!r->closed || r->holds > 0)
        return;
    dns_cache_free(r->cache);
    buf_free(&r->servers);
    mem_free(r);
}

/* Stops everything the job has going; its memory stays. */
static void job_stop(struct job *j)
{
    struct loop *l = j->r->loop;
    for (size_t i = 0; i < DNS_PLAN_SLOTS; i++) {
        cares_close(j->asked[i].cares);
        j->asked[i].cares = NULL;
    }
    loop_timer_clear(l, &j->deadline);
    loop_timer_clear(l, &j->grace);
    loop_unpost(l, &j->task);
    list_remove(&j->node);
}

static void job_finish(struct job *j)
{
    struct resolver *r = j->r;
    const struct dns_outcome *o = &j->plan.outcome;
    struct list waiters = {NULL, NULL, 0};
    uint64_t srv_ms = j->plan.end_ms - j->plan.start_ms;
    job_stop(j);
    dns_cache_answer(r->cache, j->question, loop_now(r->loop), o->life_ms,
                     (struct str){(const char *)o, dns_outcome_size(o, j->plan.kind)}, &waiters);
    r->holds++;
    for (struct list_node *n; (n = list_pop(&waiters)) != NULL;) {
        struct dns_waiter *w = CONTAINER_OF(n, struct dns_waiter, node);
        deliver(CONTAINER_OF(w, struct dns_query, waiter), o, srv_ms);
    }
    r->holds--;
    mem_free(j);
    release(r);
}

/* May be called from inside c-ares. */
static void on_reply(void *arg, enum dns_reply reply, struct str message)
{
    struct asked *a = arg;
    struct job *j = a->job;
    struct dns_event ev = {DNS_EV_REPLY, loop_now(j->r->loop), (size_t)(a - j->asked), reply,
                           message};
    dns_plan_step(&j->plan, &ev, &j->todo);
    loop_post(j->r->loop, &j->task);
}

static void job_ask(struct job *j, const struct dns_action *a)
{
    char name[DOMAIN_MAX + 1];
    struct asked *at = &j->asked[a->slot];
    at->job = j;
    dns_plan_question(&j->plan, a->slot, name);
    cares_close(at->cares);
    at->cares = cares_ask(j->r->loop, &j->r->options, name, j->plan.slot[a->slot].type, a->again,
                          on_reply, at);
    if (at->cares == NULL)
        on_reply(at, DNS_REPLY_UNUSABLE, STR_NONE);
}

static void job_run(struct job *j)
{
    for (size_t i = 0; i < j->todo.n; i++) {
        struct dns_action a = j->todo.v[i];
        switch (a.kind) {
        case DNS_ACT_ASK:
            job_ask(j, &a);
            break;
        case DNS_ACT_GRACE:
            if (!loop_timer_set(j->r->loop, &j->grace, a.ms))
                j->grace.fire(&j->grace);
            break;
        case DNS_ACT_DONE:
            job_finish(j);
            return;
        }
    }
    j->todo.n = 0;
}

static void run_job(struct loop_task *t)
{
    job_run(CONTAINER_OF(t, struct job, task));
}

static void job_event(struct job *j, enum dns_event_kind kind)
{
    struct dns_event ev = {.kind = kind, .now_ms = loop_now(j->r->loop)};
    dns_plan_step(&j->plan, &ev, &j->todo);
    loop_post(j->r->loop, &j->task);
}

static void on_deadline(struct timer *t)
{
    job_event(CONTAINER_OF(t, struct job, deadline), DNS_EV_DEADLINE);
}

static void on_grace(struct timer *t)
{
    job_event(CONTAINER_OF(t, struct job, grace), DNS_EV_GRACE);
}

/* True: services of the name were looked up and there is no SRV record. */
static bool known_without_srv(struct resolver *r, const char *name)
{
    static const enum dns_kind kinds[] = {DNS_KIND_SERVICES, DNS_KIND_SERVICES_PLAIN};
    bool known = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct dns_outcome o;
        struct str v = dns_cache_peek(r->cache, kinds[i], str_c(name), loop_now(r->loop));
        known |=
            v.p != NULL && dns_outcome_load(&o, kinds[i], v) && o.status == DNS_OK && !o.from_srv;
    }
    return known;
}

static bool job_start(struct resolver *r, const struct dns_query *q, struct dns_question *question)
{
    struct job *j = mem_zalloc(sizeof *j);
    if (j == NULL)
        return false;
    j->r = r;
    j->question = question;
    j->task.run = run_job;
    j->deadline.fire = on_deadline;
    j->grace.fire = on_grace;
    if (!loop_timer_set(r->loop, &j->deadline, r->timeout_ms)) {
        mem_free(j);
        return false;
    }
    dns_plan_init(&j->plan, r->loop->env, q->kind, str_c(q->name),
                  q->kind == DNS_KIND_ADDRESSES && known_without_srv(r, q->name));
    j->plan.trust_ad = r->trust_ad;
    question->job = j;
    list_append(&r->jobs, &j->node);
    job_event(j, DNS_EV_START);
    return true;
}

/* ---- queries ---- */

static bool make_ready(struct dns_query *q)
{
    q->ready = mem_zalloc(sizeof *q->ready);
    if (q->ready != NULL)
        loop_post(q->r->loop, &q->task);
    return q->ready != NULL;
}

static bool answer_at_once(struct dns_query *q, struct str name, const struct ip *literal)
{
    if (!make_ready(q))
        return false;
    if (literal != NULL)
        dns_outcome_literal(q->ready, literal);
    else
        dns_outcome_no_name(q->ready, name);
    q->literal = literal != NULL;
    return true;
}

static bool answer_from_cache(struct dns_query *q, struct str value)
{
    q->cached = true;
    return make_ready(q) && dns_outcome_load(q->ready, q->kind, value);
}

static bool look_up(struct dns_query *q)
{
    struct resolver *r = q->r;
    struct str value;
    struct dns_question *question;
    switch (dns_cache_want(r->cache, q->kind, str_c(q->name), q->start_ms, &q->waiter, &value,
                           &question)) {
    case DNS_CACHE_HIT:
        return answer_from_cache(q, value);
    case DNS_CACHE_WAIT:
        return true;
    case DNS_CACHE_ASK:
        if (job_start(r, q, question))
            return true;
        dns_cache_leave(&q->waiter);
        dns_cache_drop(r->cache, question);
        return false;
    case DNS_CACHE_FULL:
        break;
    }
    return false;
}

static struct dns_query *query_new(struct resolver *r, enum dns_kind kind, struct str name)
{
    if (r->closed || r->queries.count >= QUERIES_MAX)
        return NULL;
    struct dns_query *q = mem_zalloc(sizeof *q);
    if (q == NULL)
        return NULL;
    q->r = r;
    q->kind = kind;
    q->task.run = run_ready;
    q->start_ms = loop_now(r->loop);
    if (!dns_name_lower(name, q->name))
        str_copy(q->name, sizeof q->name, STR("(not a name)"));
    list_append(&r->queries, &q->node);
    return q;
}

static void log_start(const struct dns_query *q)
{
    if (dns_kind_services(q->kind))
        log_ev(&q->r->log, LOG_DEBUG, "dns.start", KV_C("domain", q->name),
               KV_C("service", q->kind == DNS_KIND_SERVICES ? "_xmpp-server._tcp,_xmpps-server._tcp"
                                                            : "_xmpp-server._tcp"),
               KV_I("port", DNS_XMPP_PORT));
    else
        log_ev(&q->r->log, LOG_DEBUG, "dns.start", KV_C("host", q->name),
               KV_C("types", q->kind == DNS_KIND_TLSA ? "TLSA" : "AAAA,A"));
}

struct dns_query *resolver_services(struct resolver *r, struct str domain, bool direct_tls,
                                    void (*done)(void *arg, const struct dns_services *), void *arg)
{
    struct dns_query *q =
        query_new(r, direct_tls ? DNS_KIND_SERVICES : DNS_KIND_SERVICES_PLAIN, domain);
    if (q == NULL)
        return NULL;
    q->on_services = done;
    q->arg = arg;
    log_start(q);
    if (dns_host_ok(domain) ? look_up(q) : answer_at_once(q, domain, NULL))
        return q;
    query_free(q);
    return NULL;
}

struct dns_query *resolver_addresses(struct resolver *r, struct str host,
                                     void (*done)(void *arg, const struct dns_addresses *),
                                     void *arg)
{
    struct ip ip;
    struct dns_query *q = query_new(r, DNS_KIND_ADDRESSES, host);
    if (q == NULL)
        return NULL;
    q->on_addresses = done;
    q->arg = arg;
    log_start(q);
    bool literal = ip_parse(host, &ip);
    if (literal || !dns_host_ok(host) ? answer_at_once(q, host, literal ? &ip : NULL) : look_up(q))
        return q;
    query_free(q);
    return NULL;
}

struct dns_query *resolver_tlsa(struct resolver *r, struct str host, uint16_t port,
                                void (*done)(void *arg, const struct dns_tlsa *), void *arg)
{
    char name[DOMAIN_MAX + 16];
    int n = snprintf(name, sizeof name, "_%u._tcp.%.*s", (unsigned)port, STR_ARG(host));
    bool fits = dns_host_ok(host) && n > 0 && n <= DOMAIN_MAX;
    struct dns_query *q = query_new(r, DNS_KIND_TLSA, fits ? str_c(name) : host);
    if (q == NULL)
        return NULL;
    q->on_tlsa = done;
    q->arg = arg;
    log_start(q);
    /* Where no such name can be, there is no record. */
    if (fits ? look_up(q) : answer_at_once(q, host, NULL))
        return q;
    query_free(q);
    return NULL;
}

static void job_abandon(struct resolver *r, struct dns_question *question)
{
    struct job *j = question->job;
    job_stop(j);
    mem_free(j);
    dns_cache_drop(r->cache, question);
}

void dns_query_cancel(struct dns_query *q)
{
    if (q == NULL)
        return;
    struct resolver *r = q->r;
    struct dns_question *left = dns_cache_leave(&q->waiter);
    query_free(q);
    if (left != NULL)
        job_abandon(r, left);
}

/* ---- the resolver ---- */

static bool take_servers(struct resolver *r, char *const *servers, size_t n, char why[DNS_TEXT_MAX])
{
    for (size_t i = 0; i < n; i++) {
        struct endpoint e;
        char text[ENDPOINT_TEXT];
        if (!endpoint_parse(str_c(servers[i]), &e)) {
            snprintf(why, DNS_TEXT_MAX, "DNS server \"%.80s\" is not an address with a port",
                     servers[i]);
            return false;
        }
        endpoint_text(&e, text);
        buf_printf(&r->servers, "%s%s", i ? "," : "", text);
    }
    if (!r->servers.failed)
        return true;
    snprintf(why, DNS_TEXT_MAX, "too many DNS servers, or out of memory");
    return false;
}

static bool set_up(struct resolver *r, char *const *servers, size_t n, char why[DNS_TEXT_MAX])
{
    if (!take_servers(r, servers, n, why))
        return false;
    r->options.servers = n ? r->servers.p : NULL;
    if (!cares_check(r->options.servers)) {
        snprintf(why, DNS_TEXT_MAX, "the DNS servers cannot be used: %.100s",
                 n ? r->servers.p : "those of the system");
        return false;
    }
    r->cache = dns_cache_new(DNS_CACHE_ENTRIES, DNS_QUESTIONS_MAX);
    if (r->cache == NULL)
        snprintf(why, DNS_TEXT_MAX, "out of memory");
    return r->cache != NULL;
}

struct resolver *resolver_new(struct loop *loop, const struct resolver_settings *s,
                              char why[DNS_TEXT_MAX])
{
    struct resolver *r = mem_zalloc(sizeof *r);
    if (r == NULL) {
        snprintf(why, DNS_TEXT_MAX, "out of memory");
        return NULL;
    }
    uint64_t try_ms = s->timeout_ms / 5;
    r->loop = loop;
    r->log.sink = loop->log;
    r->servers = BUF_INIT(SERVERS_TEXT_MAX);
    r->timeout_ms = s->timeout_ms ? s->timeout_ms : 1;
    r->trust_ad = s->trust_ad;
    r->options.ask_ad = s->trust_ad;
    r->options.try_ms = try_ms > TRY_MAX_MS ? TRY_MAX_MS : try_ms;
    if (try_ms < TRY_MIN_MS)
        r->options.try_ms = TRY_MIN_MS;
    why[0] = '\0';
    if (set_up(r, s->servers, s->nservers, why))
        return r;
    r->closed = true;
    release(r);
    return NULL;
}

void resolver_close(struct resolver *r)
{
    if (r == NULL || r->closed)
        return;
    r->closed = true;
    while (r->queries.first != NULL)
        dns_query_cancel(CONTAINER_OF(r->queries.first, struct dns_query, node));
    release(r);
}

void resolver_flush(struct resolver *r)
{
    dns_cache_flush(r->cache);
}

void resolver_status(const struct resolver *r, struct resolver_status *out)
{
    *out = (struct resolver_status){.cached = dns_cache_entries(r->cache),
                                    .asking = r->jobs.count,
                                    .waiting = r->queries.count};
}
