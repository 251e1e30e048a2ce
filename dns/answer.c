/* Reading a DNS answer.
 *
 * glibc's ns_initparse and ns_parserr walk the message: they check every length against its end and
 * end name compression loops. They do not look into the record data (an SRV record of three bytes
 * passes), do not know the question and keep odd names in an escaped form; that is checked here:
 *
 *   1. header: a response, rcode, TC; the question must be ours;
 *   2. one pass over the answer section keeps records of the type asked and CNAMEs, as `struct rr`;
 *      so each name is decompressed once, whatever the chain does;
 *   3. the CNAME chain is followed inside that set; the records of its last name are the answer;
 *   4. without any, a SOA above the name tells how long that is true (RFC 2308 5).
 *
 * Names leave here in lower case and with plain labels only, so nothing downstream meets an escape,
 * a space or an embedded NUL. */
#include "dns/answer.h"

#include <arpa/nameser.h>

enum { HEADER_LEN = 12, SRV_FIXED = 6, SRV_MIN = 7, SOA_FIXED = 20, TLSA_FIXED = 3 };

struct rr {
    char owner[DOMAIN_MAX + 1];
    bool cname, usable;
    uint32_t ttl;
    struct ip ip;
    struct dns_srv srv; /* CNAME: only target */
    const u_char *data; /* TLSA: inside the message */
    size_t ndata;
};

struct rr_set {
    size_t n;
    struct rr v[DNS_RECORDS_MAX];
};

static bool label_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

bool dns_name_ok(struct str s)
{
    if (s.n == 0 || s.n > DOMAIN_MAX)
        return false;
    size_t label = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!label_byte(s.p[i]) || ++label > 63) {
            return false;
        }
    }
    return label > 0;
}

bool dns_host_ok(struct str s)
{
    if (!dns_name_ok(s))
        return false;
    /* No top-level domain is a number; "10.0.0.1" as a target would pass for a literal later. */
    for (size_t i = s.n; i-- > 0 && s.p[i] != '.';)
        if (s.p[i] < '0' || s.p[i] > '9')
            return true;
    return false;
}

bool dns_name_lower(struct str s, char out[DOMAIN_MAX + 1])
{
    if (!str_copy(out, DOMAIN_MAX + 1, s))
        return false;
    for (char *p = out; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    return true;
}

/* The name at `at`; it must end exactly at `end`. The root gives "". */
static bool rdata_name(const ns_msg *m, const u_char *at, const u_char *end,
                       char out[DOMAIN_MAX + 1])
{
    char text[NS_MAXDNAME];
    int used = ns_name_uncompress(ns_msg_base(*m), ns_msg_end(*m), at, text, sizeof text);
    if (used <= 0 || used != end - at)
        return false;
    if (strcmp(text, ".") == 0 || text[0] == '\0') {
        out[0] = '\0';
        return true;
    }
    return dns_name_ok(str_c(text)) && dns_name_lower(str_c(text), out);
}

static struct ip address(const u_char *p, size_t n)
{
    static const u_char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct ip ip = {.len = (uint8_t)n};
    /* The form that struct ip promises; else ::ffff:10.0.0.1 would pass a list of networks. */
    if (n == 16 && memcmp(p, mapped, sizeof mapped) == 0) {
        p += sizeof mapped;
        ip.len = 4;
    }
    memcpy(ip.bytes, p, ip.len);
    return ip;
}

static bool read_srv(const ns_msg *m, const u_char *p, size_t n, struct dns_srv *out)
{
    if (n < SRV_MIN)
        return false;
    out->priority = (uint16_t)ns_get16(p);
    out->weight = (uint16_t)ns_get16(p + 2);
    out->port = (uint16_t)ns_get16(p + 4);
    return rdata_name(m, p + SRV_FIXED, p + n, out->target) &&
           (out->target[0] == '\0' || dns_host_ok(str_c(out->target)));
}

static bool read_data(const ns_msg *m, const ns_rr *r, enum dns_rr type, struct rr *out)
{
    const u_char *p = ns_rr_rdata(*r);
    size_t n = ns_rr_rdlen(*r);
    switch (type) {
    case DNS_RR_CNAME:
        return rdata_name(m, p, p + n, out->srv.target) && out->srv.target[0] != '\0';
    case DNS_RR_SRV:
        return read_srv(m, p, n, &out->srv);
    case DNS_RR_A:
    case DNS_RR_AAAA:
        if (n != (type == DNS_RR_A ? 4 : 16))
            return false;
        out->ip = address(p, n);
        return true;
    case DNS_RR_TLSA:
        out->data = p;
        out->ndata = n;
        return n > TLSA_FIXED && n <= TLSA_FIXED + TLSA_DATA_MAX;
    case DNS_RR_SOA:
        break;
    }
    return false;
}

/* RFC 2181 8: a value with the top bit set counts as 0. */
static uint32_t ttl_of(const ns_rr *r)
{
    uint32_t ttl = (uint32_t)ns_rr_ttl(*r);
    return ttl > INT32_MAX ? 0 : ttl;
}

static bool owner_of(const ns_rr *r, char out[DOMAIN_MAX + 1])
{
    struct str owner = str_c(ns_rr_name(*r));
    return dns_name_ok(owner) && dns_name_lower(owner, out);
}

static bool collect(ns_msg *m, enum dns_rr type, struct rr_set *set)
{
    set->n = 0;
    int count = ns_msg_count(*m, ns_s_an);
    for (int i = 0; i < count && i < DNS_RECORDS_MAX; i++) {
        ns_rr r;
        if (ns_parserr(m, ns_s_an, i, &r) != 0)
            return false;
        unsigned have = ns_rr_type(r);
        if (ns_rr_class(r) != ns_c_in || (have != (unsigned)type && have != ns_t_cname))
            continue;
        struct rr *out = &set->v[set->n];
        memset(out, 0, sizeof *out);
        if (!owner_of(&r, out->owner))
            continue;
        out->cname = have == ns_t_cname;
        out->ttl = ttl_of(&r);
        out->usable = read_data(m, &r, out->cname ? DNS_RR_CNAME : type, out);
        set->n++;
    }
    return true;
}

static const struct rr *find_cname(const struct rr_set *set, const char *owner)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->v[i].cname && strcmp(set->v[i].owner, owner) == 0)
            return &set->v[i];
    return NULL;
}

/* The name at the end of the CNAME chain; NULL: a chain too long (a loop is), or a broken link. */
static const char *follow(const struct rr_set *set, const char *name, uint32_t *ttl)
{
    for (int hop = 0;; hop++) {
        const struct rr *c = find_cname(set, name);
        if (c == NULL)
            return name;
        if (hop == DNS_CNAME_HOPS || !c->usable)
            return NULL;
        if (c->ttl < *ttl)
            *ttl = c->ttl;
        name = c->srv.target;
    }
}

static void take_tlsa(const struct rr *r, struct dns_answer *out)
{
    if (out->n == TLSA_RECORDS_MAX)
        return;
    struct tlsa *t = &out->u.tlsa[out->n++];
    t->usage = r->data[0];
    t->selector = r->data[1];
    t->matching = r->data[2];
    t->n = (uint16_t)(r->ndata - TLSA_FIXED);
    memcpy(t->data, r->data + TLSA_FIXED, t->n);
}

static void take(const struct rr *r, enum dns_rr type, struct dns_answer *out)
{
    if (!r->usable) {
        out->rejected++;
        return;
    }
    if (r->ttl < out->ttl)
        out->ttl = r->ttl;
    if (type == DNS_RR_SRV)
        out->u.srv[out->n++] = r->srv;
    else if (type == DNS_RR_TLSA)
        take_tlsa(r, out);
    else
        out->u.ip[out->n++] = r->ip;
}

static bool is_below(const char *name, const char *zone)
{
    size_t n = strlen(name), z = strlen(zone);
    return n >= z && strcmp(name + n - z, zone) == 0 && (n == z || name[n - z - 1] == '.');
}

/* RFC 2308 5: the smaller of the SOA's own TTL and its minimum field. */
static bool soa_ttl(const ns_msg *m, const ns_rr *r, uint32_t *ttl)
{
    const u_char *p = ns_rr_rdata(*r), *end = p + ns_rr_rdlen(*r);
    char text[NS_MAXDNAME];
    for (int names = 0; names < 2; names++) {
        int used = ns_name_uncompress(ns_msg_base(*m), ns_msg_end(*m), p, text, sizeof text);
        if (used <= 0 || used > end - p)
            return false;
        p += used;
    }
    if (end - p != SOA_FIXED)
        return false;
    uint32_t minimum = (uint32_t)ns_get32(end - 4);
    *ttl = ttl_of(r);
    if (minimum < *ttl)
        *ttl = minimum;
    return true;
}

static void read_negative(ns_msg *m, const char *name, struct dns_answer *out)
{
    int count = ns_msg_count(*m, ns_s_ns);
    out->ttl = 0;
    for (int i = 0; i < count && i < DNS_RECORDS_MAX && !out->has_ttl; i++) {
        ns_rr r;
        char zone[DOMAIN_MAX + 1];
        if (ns_parserr(m, ns_s_ns, i, &r) != 0)
            return;
        if (ns_rr_type(r) != ns_t_soa || ns_rr_class(r) != ns_c_in)
            continue;
        /* The root's SOA answers for a top-level domain that does not exist. */
        bool root = strcmp(ns_rr_name(r), ".") == 0 || ns_rr_name(r)[0] == '\0';
        if (root || (owner_of(&r, zone) && is_below(name, zone)))
            out->has_ttl = soa_ttl(m, &r, &out->ttl);
    }
}

static bool is_our_question(ns_msg *m, const char *name, enum dns_rr type)
{
    ns_rr q;
    char owner[DOMAIN_MAX + 1];
    return ns_msg_count(*m, ns_s_qd) == 1 && ns_parserr(m, ns_s_qd, 0, &q) == 0 &&
           ns_rr_type(q) == (unsigned)type && ns_rr_class(q) == ns_c_in && owner_of(&q, owner) &&
           strcmp(owner, name) == 0;
}

static enum dns_answer_kind read_records(ns_msg *m, const char *name, enum dns_rr type,
                                         struct dns_answer *out)
{
    struct rr_set set;
    if (!is_our_question(m, name, type) || !collect(m, type, &set))
        return DNS_ANSWER_BAD;
    out->ttl = INT32_MAX;
    const char *last = follow(&set, name, &out->ttl);
    if (last == NULL)
        return DNS_ANSWER_BAD;
    if (out->rcode != ns_r_nxdomain) {
        for (size_t i = 0; i < set.n; i++)
            if (!set.v[i].cname && strcmp(set.v[i].owner, last) == 0)
                take(&set.v[i], type, out);
        if (out->n)
            return DNS_ANSWER_RECORDS;
        if (out->rejected)
            return DNS_ANSWER_BAD;
    }
    read_negative(m, last, out);
    return out->rcode == ns_r_nxdomain ? DNS_ANSWER_NXDOMAIN : DNS_ANSWER_NODATA;
}

void dns_answer_read(struct str message, struct str name, enum dns_rr type, struct dns_answer *out)
{
    ns_msg m;
    char asked[DOMAIN_MAX + 1];
    memset(out, 0, sizeof *out);
    out->kind = DNS_ANSWER_BAD;
    if (message.n < HEADER_LEN || message.n > NS_MAXMSG || !dns_name_ok(name) ||
        !dns_name_lower(name, asked))
        return;
    const unsigned char *h = (const unsigned char *)message.p;
    if (!(h[2] & 0x80)) /* a query, not a response */
        return;
    out->truncated = (h[2] & 0x02) != 0;
    out->authentic = (h[3] & 0x20) != 0;
    out->rcode = h[3] & 0x0f;
    if (out->rcode != ns_r_noerror && out->rcode != ns_r_nxdomain)
        out->kind = DNS_ANSWER_REFUSED;
    else if (out->truncated)
        out->kind = DNS_ANSWER_TRUNCATED;
    else if (ns_initparse(h, (int)message.n, &m) == 0)
        out->kind = read_records(&m, asked, type, out);
}

const char *dns_answer_kind_name(enum dns_answer_kind k)
{
    static const char *const names[] = {
#define X(id, name) name,
        DNS_ANSWER_KINDS(X)
#undef X
    };
    return names[k];
}
