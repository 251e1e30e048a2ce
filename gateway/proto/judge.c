#include "gateway/proto/judge.h"

enum trust_reason judge_certificate(const struct link_trust *trust, const struct tls_peer *peer,
                                    struct gw_actions *out)
{
    enum trust_reason why = link_trust_check(trust, peer);
    char *key = out->local.ascii;
    key[0] = '\0';
    if (peer->has_certificate)
        key_hash_text(key, peer->key_sha256, sizeof peer->key_sha256);
    const struct kv kv[] = {
        KV_C("reason", trust_reason_name(why)),           KV_S("peer_name", trust->peer_name),
        KV_C("key", key[0] != '\0' ? key : NULL),         KV_C("subject", peer->subject),
        KV_C("chain", peer->chain_ok ? "ok" : peer->why), KV_C("msg", trust_reason_text(why))};
    size_t n = sizeof kv / sizeof kv[0];
    gw_log_kv(out, LOG_INFO, "link.trust", kv, n - 1);
    if (!trust_ok(why))
        gw_log_kv(out, LOG_WARN, "link.trust.refused", kv, n);
    return why;
}
