/* How the two ends of an inside link prove themselves; core of both programs' links. What each
 * means: xcp/trust.h. */
#ifndef CONFIG_AUTH_H
#define CONFIG_AUTH_H

enum link_auth { LINK_AUTH_PASSWORD, LINK_AUTH_TLS, LINK_AUTH_TLS_PASSWORD };

#endif
