/* Between the parts of the incoming stream's machine. */
#ifndef GATEWAY_PROTO_S2S_IN_PRIV_H
#define GATEWAY_PROTO_S2S_IN_PRIV_H

#include "gateway/proto/s2s_in.h"

/* ---- s2s_in.c ---- */

void s2s_in_rest(struct s2s_in *m, struct gw_actions *out, enum end_reason reason, bool abort);
/* Ends it by a stream error. `text` lives as long as the actions. */
void s2s_in_refuse(struct s2s_in *m, struct gw_actions *out, const char *condition,
                   const char *text);
/* Our side of the stream ends now, by a closing tag or, with a condition, by a stream error; what
 * the peer has under way is still delivered until its own closing tag or the deadline (4.4). */
void s2s_in_close(struct s2s_in *m, struct gw_actions *out, enum end_reason reason,
                  const char *condition, const char *text);
/* ACT_REFUSED: the policy says no to the pair. The names live as long as the actions. */
void s2s_in_tell_refused(struct str local, struct str remote, struct gw_actions *out);
/* Some pair is valid. */
bool s2s_in_authorised(const struct s2s_in *m);
/* The bits of enum policy_auth by which a domain may be proven here. */
unsigned s2s_in_auth(const struct s2s_in *m, struct str remote);

/* ---- s2s_in_dialback.c ---- */

bool s2s_in_request_open(const struct s2s_in *m);
/* Arms or disarms the timer of streams that only ask us things. */
void s2s_in_watch(struct s2s_in *m, struct gw_actions *out);
/* The entry becomes VALID. */
void s2s_in_prove(struct s2s_in *m, struct authz_pair *p, const char *mech, uint64_t now,
                  struct gw_actions *out);
void s2s_in_result(struct s2s_in *m, const struct dialback_element *e, uint64_t now,
                   struct gw_actions *out);
void s2s_in_verdict(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out);
void s2s_in_verify(struct s2s_in *m, const struct dialback_element *e, struct gw_actions *out);

#endif
