/* The outside that pure code may need, injected: time and randomness.
 *
 * The daemon fills it with the monotonic clock and the operating system's generator, a test with a
 * clock that it moves itself and a seeded sequence. */
#ifndef CORE_BASE_ENV_H
#define CORE_BASE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct env {
    uint64_t (*now_ms)(void *ctx);                         /* monotonic milliseconds */
    bool (*random)(void *ctx, unsigned char *out, size_t); /* false: no randomness to be had */
    void *ctx;
    int64_t (*wall_ms)(void *ctx); /* milliseconds since 1970; NULL: not known */
};

/* The real one: CLOCK_MONOTONIC, OpenSSL's RAND_bytes, CLOCK_REALTIME. */
extern const struct env env_system;

static inline uint64_t env_now(const struct env *e)
{
    return e->now_ms(e->ctx);
}

/* False: nobody knows what time it is. For comparing clocks only: deadlines use env_now. */
static inline bool env_wall(const struct env *e, int64_t *ms)
{
    if (e->wall_ms == NULL)
        return false;
    *ms = e->wall_ms(e->ctx);
    return true;
}

/* A number from 0 to below - 1; 0 when there is no randomness (spreading load is all that it is
 * used for; secrets and stream ids call env->random and check). */
uint32_t env_below(const struct env *e, uint32_t below);

/* Writes 2 * bytes lower-case hex digits and a NUL; false when there is no randomness. */
bool env_hex_id(const struct env *e, char *out, size_t bytes);

#endif
