/* What both link machines do alike: addressing of received stanzas, stream errors, keepalive. */
#ifndef XCP_LINK_H
#define XCP_LINK_H

#include "core/stream/machine.h"

/* EV_DRAIN with this text: somebody else has taken the name over, so the stream ends with the
 * stream error `conflict` instead of a mere closing tag. */
#define LINK_CONFLICT "conflict"

/* A stanza on a link that is up. ACT_DELIVER when both addresses are proper: u.pair.local is then
 * the A-label of the domain in `from`, u.pair.remote that of `to` (both in out->local and
 * out->remote). A faulty `to` is bounced, a faulty `from` ends in ACT_DROP: one bad stanza must not
 * cost everybody the link. */
void link_stanza(const struct stanza *st, struct gw_actions *out);

/* Writes a stream error and the closing tag, and logs link.refused. */
void link_write_error(struct gw_actions *out, const char *condition, const char *text);

/* Reads a stream error received and logs it; END_UNAUTHORIZED (not-authorized, host-unknown),
 * END_CONFLICT, else END_STREAM_ERROR_RECEIVED; END_NONE: the nonza is no stream error. */
enum end_reason link_read_error(const struct nonza *z, struct gw_actions *out);

#endif
