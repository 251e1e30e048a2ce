/* What a reload changes, setting by setting. */
#ifndef CONFIG_DIFF_H
#define CONFIG_DIFF_H

#include "config/gateway.h"
#include "config/router.h"

struct config_change {
    const char *key;      /* "security_mode", "peers[beta.lab].policy" */
    struct str old, new_; /* as an operator would write them; secrets are "(hidden)" */
    bool restart;         /* takes effect only after a restart */
    struct str effect;    /* on what lives, for people; the diff itself leaves it absent */
};

/* Calls `each` for every difference, in schema order; returns how many. Lists of objects are
 * matched by their name (domains, links) or pattern (peers); one that came or went is one change
 * whose other side is "(absent)". The strings live during the call. */
size_t gateway_config_diff(const struct gateway_config *a, const struct gateway_config *b,
                           void (*each)(void *arg, const struct config_change *), void *arg);
size_t router_config_diff(const struct router_config *a, const struct router_config *b,
                          void (*each)(void *arg, const struct config_change *), void *arg);

#endif
