#include "gateway/proto/bidi.h"

static bool one_of(struct str s, const char *const *list)
{
    while (*list != NULL && !str_is(s, *list))
        list++;
    return *list != NULL;
}

bool bidi_allowed(const struct side *side, bool encrypted, const char *remote)
{
    return side->link == NULL && encrypted && remote != NULL &&
           policy_bidi(side->cfg, str_c(remote));
}

bool bidi_misunderstood(struct str condition)
{
    static const char *const list[] = {"unsupported-stanza-type",
                                       "unsupported-feature",
                                       "invalid-namespace",
                                       "bad-namespace-prefix",
                                       "invalid-xml",
                                       "bad-format",
                                       "not-well-formed",
                                       "internal-server-error",
                                       "undefined-condition",
                                       NULL};
    return one_of(condition, list);
}

bool bidi_objected(struct str condition)
{
    static const char *const affairs[] = {"system-shutdown",     "reset",    "connection-timeout",
                                          "host-gone",           "conflict", "see-other-host",
                                          "resource-constraint", NULL};
    return !one_of(condition, affairs);
}
