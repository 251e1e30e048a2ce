#include "tests/twin/names.h"

#include "core/base/mem.h"
#include "dns/cares.h"
#include "tests/fake/dns_packet.h"

enum { TTL = 300, TRIES_MS = 7 };

static struct names *names;

void names_use(struct names *n)
{
    names = n;
}

struct cares {
    struct loop *loop;
    struct timer timer;
    char name[DOMAIN_MAX + 1];
    enum dns_rr type;
    enum dns_reply reply;
    cares_reply *done;
    void *arg;
};

bool cares_check(const char *servers)
{
    (void)servers;
    return true;
}

static const struct name *find(const char *name, bool host)
{
    for (size_t i = 0; i < names->n; i++) {
        const struct name *v = &names->v[i];
        const char *known = host ? (v->host ? v->host : v->domain) : v->domain;
        if (strcmp(known, name) == 0)
            return v;
    }
    return NULL;
}

/* The bytes of an answer, as a name server would give it. */
static void answer(struct pkt *p, const char *name, enum dns_rr type)
{
    bool srv = type == DNS_RR_SRV;
    const size_t prefix = sizeof DNS_SRV_PREFIX - 1;
    const struct name *v = NULL; /* nobody here has direct TLS */
    if (!srv || strncmp(name, DNS_SRV_PREFIX, prefix) == 0)
        v = find(srv ? name + prefix : name, !srv);
    struct ip ip;
    pkt_response(p, 0, v == NULL ? 3 : 0, name, (unsigned)type);
    if (v == NULL || (srv && v->host == NULL) || type == DNS_RR_AAAA) {
        pkt_soa(p, "lab", TTL, 1);
    } else if (srv) {
        if (v->decoy != NULL)
            pkt_srv(p, name, TTL, 1, 0, 5269, v->decoy);
        pkt_srv(p, name, TTL, 10, 0, 5269, v->host);
    } else if (ip_parse(str_c(v->ip), &ip)) {
        pkt_a(p, name, TTL, (const char *)ip.bytes);
    }
}

static void on_due(struct timer *t)
{
    struct cares *c = CONTAINER_OF(t, struct cares, timer);
    struct pkt p;
    struct str message = STR_NONE;
    if (c->reply == DNS_REPLY_MESSAGE) {
        answer(&p, c->name, c->type);
        message = pkt_view(&p);
    }
    c->done(c->arg, c->reply, message);
}

struct cares *cares_ask(struct loop *loop, const struct cares_options *opt, const char *name,
                        enum dns_rr type, bool raw, cares_reply *reply, void *arg)
{
    struct cares *c = mem_zalloc(sizeof *c);
    uint64_t ms = 1 + net_below(names->net, names->latency + 1);
    (void)raw;
    if (c == NULL)
        return NULL;
    c->loop = loop;
    c->timer.fire = on_due;
    c->type = type;
    c->done = reply;
    c->arg = arg;
    str_copy(c->name, sizeof c->name, str_c(name));
    c->reply = DNS_REPLY_MESSAGE;
    if (net_chance(names->net, names->fail)) {
        c->reply = DNS_REPLY_UNREACHABLE;
    } else if (net_chance(names->net, names->silent)) {
        c->reply = DNS_REPLY_TIMEOUT;
        ms = opt->try_ms * TRIES_MS;
    }
    if (!loop_timer_set(loop, &c->timer, ms)) {
        mem_free(c);
        return NULL;
    }
    names->open++;
    return c;
}

void cares_close(struct cares *c)
{
    if (c == NULL)
        return;
    loop_timer_clear(c->loop, &c->timer);
    names->open--;
    mem_free(c);
}
