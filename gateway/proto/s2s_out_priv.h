/* Between the parts of the outgoing stream's machine. */
#ifndef GATEWAY_PROTO_S2S_OUT_PRIV_H
#define GATEWAY_PROTO_S2S_OUT_PRIV_H

#include "gateway/proto/s2s_out.h"

/* ---- s2s_out.c ---- */

bool s2s_out_set_state(struct s2s_out *m, enum s2s_out_state to);
void s2s_out_rest(struct s2s_out *m, struct gw_actions *out, enum end_reason reason, bool abort);
/* With a sentence that the bounces will carry. */
void s2s_out_rest_because(struct s2s_out *m, struct gw_actions *out, enum end_reason reason,
                          struct str text);
/* Before READY there is nothing to wait for: says good-bye and goes. */
void s2s_out_give_up(struct s2s_out *m, struct gw_actions *out, enum end_reason reason,
                     const char *text);
void s2s_out_refuse(struct s2s_out *m, struct gw_actions *out, const char *condition,
                    const char *text);
enum security_mode s2s_out_mode(const struct s2s_out *m);
/* Set-up is over. */
void s2s_out_become_ready(struct s2s_out *m, uint64_t now, struct gw_actions *out);
/* The entry becomes VALID. */
void s2s_out_prove(struct s2s_out *m, struct authz_pair *p, uint64_t now, struct gw_actions *out);

/* ---- s2s_out_setup.c ---- */

void s2s_out_opened(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out);
void s2s_out_header(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out);
/* An element before READY; no stream error. */
void s2s_out_setup_nonza(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out);
void s2s_out_tls_up(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out);
/* The certificate and the version of TLS satisfy the rules for this peer. False: m->why. */
bool s2s_out_identity_ok(struct s2s_out *m);
/* The same of other settings, for a stream that stands: it could not have come about. */
bool s2s_out_unproven(const struct s2s_out *m, const struct side *side);
/* The rules for this peer let DNS stand in for its certificate. */
bool s2s_out_dialback_counts(const struct s2s_out *m);

#endif
