/* What a change of the settings means for a running stream. The machines act on it, and a reload
 * that is only asked about is answered by the same functions (s2s_in_fate, s2s_out_fate). */
#ifndef GATEWAY_PROTO_FATE_H
#define GATEWAY_PROTO_FATE_H

#include "core/base/str.h"

enum s2s_fate {
    S2S_STAYS,
    S2S_DENIED,  /* a pair of it may not be: ended with policy-violation */
    S2S_RENEWED, /* its security mode may not be: ended with reset, and made again */
};

struct stream_fate {
    enum s2s_fate fate;
    struct str local, remote; /* whose; of the machine. local may be absent with S2S_RENEWED */
};

#endif
