#include "core/base/env.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <time.h>

#include "core/base/digest.h"

static uint64_t system_now(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool system_random(void *ctx, unsigned char *out, size_t n)
{
    (void)ctx;
    return n <= 1u << 20 && RAND_bytes(out, (int)n) == 1;
}

static int64_t system_wall(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const struct env env_system = {system_now, system_random, NULL, system_wall};

uint32_t env_below(const struct env *e, uint32_t below)
{
    uint32_t v = 0;
    if (below < 2 || !e->random(e->ctx, (unsigned char *)&v, sizeof v))
        return 0;
    return (uint32_t)(((uint64_t)v * below) >> 32);
}

bool env_hex_id(const struct env *e, char *out, size_t bytes)
{
    unsigned char raw[32];
    if (bytes > sizeof raw || !e->random(e->ctx, raw, bytes))
        return false;
    digest_hex(out, raw, bytes);
    OPENSSL_cleanse(raw, sizeof raw);
    return true;
}
