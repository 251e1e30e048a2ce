/* A world for pure code: a clock that the test moves, seeded randomness, configurations from text.
 */
#ifndef TESTS_FAKE_FAKE_H
#define TESTS_FAKE_FAKE_H

#include "config/gateway.h"
#include "core/base/env.h"
#include "gateway/proto/dialback.h"

struct fake {
    uint64_t now, seed;
    bool no_random; /* the generator fails */
    struct env env; /* points back at this struct: it must not move */
};

void fake_init(struct fake *f, uint64_t seed);
uint64_t fake_next(struct fake *f); /* the next number of the sequence */
size_t fake_below(struct fake *f, size_t below);

/* A snapshot from the text of a configuration file. What every test wants is added when the text
 * does not mention it: the domains alpha.lab and gamma.lab, privacy_mode "off", and two links,
 * "core" (component) and "inside" (s2s, in the security_mode that the text names). NULL when the
 * text is no good; the errors went to stderr. */
struct gateway_config *fake_config(const char *text);

/* "new", and "old" as a previous one. */
extern const struct dialback_secrets fake_secrets;

#endif
