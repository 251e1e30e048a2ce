/* An outgoing S2S stream against arbitrary bytes: framer, machine and timers together. The first
 * byte chooses the security mode, the side, and how the rest is cut; a 0x01 byte in it is a moment
 * at which something else than a byte of the peer happens: TLS comes up, time passes, a wish, a
 * drain. What must hold is checked by tests/fake/stage.c after every step. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/fake/stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void happen(struct stage *s, uint8_t what)
{
    switch (what % 6) {
    case 0:
        if (s->handshaking)
            stage_tls_up(s, (enum stage_cert)(what / 6 % STAGE_CERTS));
        break;
    case 1:
        stage_time(s, 1u << what % 20);
        break;
    case 2:
        stage_want_pair(s, stage_turn(s, what & 8 ? "alpha.lab" : "gamma.lab"));
        break;
    case 3:
        stage_want_verify(s, s->out.local, what & 8 ? "v1" : "v2", "key");
        break;
    case 4:
        stage_config(s, s->cfg);
        break;
    case 5:
        if (what > 200)
            stage_kind(s, EV_DRAIN, "we stop");
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const modes[] = {"security_mode = \"no-tls\";",
                                        "security_mode = \"tls-optional\"; bidi = true;",
                                        "security_mode = \"tls-required\"; bidi = true;"};
    static struct gateway_config *configs[3];
    struct stage s;
    if (size == 0)
        return 0;
    struct gateway_config **cfg = &configs[data[0] % 3];
    if (*cfg == NULL && (*cfg = fake_config(modes[data[0] % 3])) == NULL)
        abort();
    const struct stage_side *where = stage_side_of(data[0]);
    if (!stage_open_at(&s, where, true, *cfg, where->link ? "beta.lab" : "alpha.lab",
                       where->link ? "alpha.lab" : "beta.lab", 1))
        abort();
    s.quiet = true;
    for (size_t at = 1; at < size && !s.over;) {
        const uint8_t *stop = memchr(data + at, 1, size - at);
        size_t n = stop ? (size_t)(stop - data) - at : size - at;
        stage_peer(&s, (struct str){(const char *)data + at, n}, data[0] & 0x80 ? 1 : 0);
        at += n;
        if (stop != NULL && at + 1 < size)
            happen(&s, data[at + 1]);
        at += 2;
        if (s.wrong != NULL)
            abort();
    }
    stage_kind(&s, EV_LOST, "end");
    if (s.wrong != NULL || !s.over)
        abort();
    stage_close(&s);
    return 0;
}
