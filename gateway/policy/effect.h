/* What a change of the settings does to live streams, told with the setting that does it.
 *
 * The owner asks each stream for its fate under the new settings and adds those that do not stay;
 * then it asks, setting by setting in the order of the diff, what each of them does. A stream is
 * told once, with the first setting that could be the reason: the entry or mode that decides about
 * its pair now, or did before. Pure. */
#ifndef GATEWAY_POLICY_EFFECT_H
#define GATEWAY_POLICY_EFFECT_H

#include "core/base/buf.h"
#include "core/base/list.h"
#include "gateway/policy/side.h"

enum { EFFECT_GROUPS_MAX = 256 }; /* what comes after is told as one, without names */

struct effects {
    struct list groups;
};

struct effect_stream {
    bool renewed; /* its mode changes: it is made again; else it ends, as its pair is denied */
    struct str local, remote;
    enum policy_way way;
};

void effects_add(struct effects *e, const struct effect_stream *s, const struct side *old,
                 const struct side *new_);
/* Appends "3 streams with beta.lab renewed, 1 stream with x.lab ended" for a key of the diff;
 * nothing when it does nothing to them. */
void effects_put(struct effects *e, const char *key, struct buf *out);
/* The same for what no key could be found for. */
void effects_put_rest(struct effects *e, struct buf *out);
void effects_free(struct effects *e);

#endif
