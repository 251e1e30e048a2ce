/* RFC 2782, "Usage rules": lowest priority first; among equals, line up the records with weight 0
 * first, draw a number from 0 to the sum of the weights inclusive, and take the first record whose
 * running sum reaches it; repeat with the rest. A record of weight 0 so has a small chance. */
#include "dns/srv.h"

bool srv_absent(const struct dns_srv *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].target[0] != '\0')
            return false;
    return n > 0;
}

static bool goes_before(const struct dns_srv *a, const struct dns_srv *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->weight == 0 && b->weight != 0;
}

/* Moves r[from] to r[to], to <= from; those between keep their order. */
static void pull(struct dns_srv *r, size_t to, size_t from)
{
    struct dns_srv moved = r[from];
    memmove(&r[to + 1], &r[to], (from - to) * sizeof *r);
    r[to] = moved;
}

static void sort(struct dns_srv *r, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        size_t to = i;
        while (to > 0 && goes_before(&r[i], &r[to - 1]))
            to--;
        if (to != i)
            pull(r, to, i);
    }
}

static size_t draw(const struct dns_srv *r, size_t n, const struct env *env)
{
    uint32_t sum = 0, run = 0;
    for (size_t i = 0; i < n; i++)
        sum += r[i].weight;
    uint32_t mark = env_below(env, sum + 1);
    for (size_t i = 0; i < n; i++) {
        run += r[i].weight;
        if (run >= mark)
            return i;
    }
    return 0;
}

static void shuffle(struct dns_srv *r, size_t n, const struct env *env)
{
    for (size_t at = 0; at + 1 < n; at++) {
        size_t same = 1;
        while (at + same < n && r[at + same].priority == r[at].priority)
            same++;
        size_t picked = draw(&r[at], same, env);
        if (picked != 0)
            pull(r, at, at + picked);
    }
}

static bool is_repeated(const struct dns_srv *r, size_t kept, const struct dns_srv *one)
{
    for (size_t i = 0; i < kept; i++)
        if (r[i].port == one->port && r[i].direct_tls == one->direct_tls &&
            strcmp(r[i].target, one->target) == 0)
            return true;
    return false;
}

size_t srv_order(struct dns_srv *r, size_t n, const struct env *env)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (r[i].target[0] != '\0' && r[i].port != 0)
            r[kept++] = r[i];
    n = kept;
    sort(r, n);
    shuffle(r, n, env);
    kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_repeated(r, kept, &r[i]))
            continue;
        if (kept != i)
            r[kept] = r[i];
        kept++;
    }
    return kept;
}
