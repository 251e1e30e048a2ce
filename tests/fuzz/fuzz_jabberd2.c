/* Any words of a router, in any pieces, with TLS, timers, back-pressure and the end at any moment:
 * what tests/fake/jabberd2_bench.c checks holds after every step.
 *
 * Byte 0 chooses the profile and what has happened before (nothing, UP, active, closing); byte 1 is
 * the size of the pieces (0: whole); the rest is a script for the bench. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake/jabberd2_bench.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct jb b;
    if (size < 2)
        return 0;
    unsigned profile = data[0] & 3, before = data[0] >> 2 & 3;
    bool direct = profile == JB_DIRECT;
    if (!jb_open(&b, profile))
        abort();
    if (before > 0 && !direct)
        jb_play(&b, STR(JB_HEADER JB_FEATURES(JB_STARTTLS) "<proceed xmlns='" NS_TLS "'/>"), 0);
    if (before > 0) /* behind TLS, which these profiles like */
        jb_play(&b, STR(JB_TLS_UP JB_UP), 0);
    if (before > 1)
        jb_play(&b, STR(JB_ACTIVE), 0);
    if (before > 2)
        jb_play(&b, STR(JB_DRAIN), 0);
    if (before > 0 && !b.m.end.was_up)
        abort();
    jb_play(&b, (struct str){(const char *)data + 2, size - 2}, data[1]);
    jb_play(&b, STR(JB_LOST), 0);
    if (b.wrong != NULL || !b.over) {
        fprintf(stderr, "not so: %s\n%s", b.wrong ? b.wrong : "it ends", b.text);
        abort();
    }
    jb_close(&b);
    return 0;
}
