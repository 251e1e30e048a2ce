/* Rules between keys, run after a load; config/schema.h says what they may rely on. */
#ifndef CONFIG_CHECK_H
#define CONFIG_CHECK_H

#include "config/schema.h"

enum { CHOICE_UNSET = -1 }; /* a required choice that is missing */

void check_gateway(struct schema_load *l, const void *config);
struct gateway_config;
void check_links(struct schema_load *l, const struct gateway_config *c);
void check_router(struct schema_load *l, const void *config);
/* log.rate: none, or enough to see anything at all. */
void check_log_rate(struct schema_load *l, uint64_t rate);

#endif
