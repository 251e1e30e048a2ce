#include "core/base/table.h"

#include <string.h>

static uint64_t seed_key[2];

void table_seed(const unsigned char seed[16])
{
    memcpy(seed_key, seed, sizeof seed_key);
}

bool table_seed_random(const struct env *env)
{
    unsigned char seed[16];
    if (!env->random(env->ctx, seed, sizeof seed))
        return false;
    table_seed(seed);
    return true;
}

static inline uint64_t rotl(uint64_t x, int b)
{
    return x << b | x >> (64 - b);
}

struct sip {
    uint64_t a, b, c, d;
};

static inline void sip_round(struct sip *s)
{
    s->a += s->b, s->b = rotl(s->b, 13), s->b ^= s->a, s->a = rotl(s->a, 32);
    s->c += s->d, s->d = rotl(s->d, 16), s->d ^= s->c;
    s->a += s->d, s->d = rotl(s->d, 21), s->d ^= s->a;
    s->c += s->b, s->b = rotl(s->b, 17), s->b ^= s->c, s->c = rotl(s->c, 32);
}

/* SipHash-2-4 (Aumasson and Bernstein, 2012). */
uint32_t table_hash(const void *key, size_t n)
{
    const unsigned char *p = key;
    struct sip s = {seed_key[0] ^ 0x736f6d6570736575u, seed_key[1] ^ 0x646f72616e646f6du,
                    seed_key[0] ^ 0x6c7967656e657261u, seed_key[1] ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)n << 56;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        s.d ^= m;
        sip_round(&s), sip_round(&s);
        s.a ^= m;
    }
    for (size_t i = 0; i < n; i++)
        last |= (uint64_t)p[i] << (8 * i);
    s.d ^= last;
    sip_round(&s), sip_round(&s);
    s.a ^= last;
    s.c ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(&s);
    uint64_t h = s.a ^ s.b ^ s.c ^ s.d;
    return (uint32_t)(h ^ h >> 32);
}
