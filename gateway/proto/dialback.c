#include "gateway/proto/dialback.h"

#include "core/base/key_hash.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

bool dialback_key(char out[DIALBACK_KEY_HEX + 1], struct str secret, struct str receiving,
                  struct str originating, struct str stream_id)
{
    char hashed[DIGEST_SHA256_HEX + 1];
    struct buf message = BUF_INIT(16384);
    buf_str(&message, receiving);
    buf_putc(&message, ' ');
    buf_str(&message, originating);
    buf_putc(&message, ' ');
    buf_str(&message, stream_id);
    bool ok =
        !message.failed && digest_sha256_hex(hashed, &secret, 1) &&
        digest_hmac_sha256_hex(out, (struct str){hashed, DIGEST_SHA256_HEX}, buf_view(&message));
    digest_wipe(hashed, sizeof hashed);
    buf_free(&message);
    return ok;
}

static bool made_with(const char *secret, struct str key, struct str receiving,
                      struct str originating, struct str stream_id)
{
    char ours[DIALBACK_KEY_HEX + 1];
    bool ok = dialback_key(ours, str_c(secret), receiving, originating, stream_id) &&
              digest_equal((struct str){ours, DIALBACK_KEY_HEX}, key);
    digest_wipe(ours, sizeof ours);
    return ok;
}

bool dialback_check(const struct dialback_secrets *secrets, struct str key, struct str receiving,
                    struct str originating, struct str stream_id)
{
    if (made_with(secrets->current, key, receiving, originating, stream_id))
        return true;
    for (size_t i = 0; i < secrets->nprevious; i++)
        if (made_with(secrets->previous[i], key, receiving, originating, stream_id))
            return true;
    return false;
}

bool dialback_fingerprint(char out[DIALBACK_FINGERPRINT], struct str secret)
{
    static const char what[] = "sallyport dialback secret ";
    char text[sizeof what + DIGEST_SHA256_HEX];
    char hash[KEY_HASH_TEXT_MAX];
    unsigned char raw[DIGEST_SHA256] = {0};
    memcpy(text, what, sizeof what - 1);
    bool ok = digest_sha256_hex(text + sizeof what - 1, &secret, 1) &&
              digest_sha256(raw, (struct str){text, sizeof what - 1 + DIGEST_SHA256_HEX});
    key_hash_text(hash, raw, DIALBACK_FINGERPRINT / 3);
    str_copy(out, DIALBACK_FINGERPRINT, str_c(ok ? hash : ""));
    digest_wipe(text, sizeof text);
    return ok;
}

static struct str error_condition(const struct nonza *z)
{
    int error = -1;
    for (int i = 1; i < z->nnodes && error < 0; i++)
        if (z->node[i].depth == 1 && str_is(z->node[i].name, "error"))
            error = i;
    for (int i = error + 1; error >= 0 && i < z->nnodes && z->node[i].depth > 1; i++)
        if (z->node[i].depth == 2 && str_is(z->node[i].ns, NS_STANZA_ERROR) &&
            !str_is(z->node[i].name, "text"))
            return z->node[i].name;
    return STR("undefined-condition");
}

struct dialback_element dialback_read(const struct nonza *z)
{
    struct dialback_element e = {.kind = DIALBACK_NOT};
    if (nonza_is(z, NS_DIALBACK, "result"))
        e.kind = DIALBACK_RESULT;
    else if (nonza_is(z, NS_DIALBACK, "verify"))
        e.kind = DIALBACK_VERIFY;
    else
        return e;
    struct str type = nonza_attr(z, "type");
    e.from = nonza_attr(z, "from");
    e.to = nonza_attr(z, "to");
    e.id = nonza_attr(z, "id");
    e.key = str_trim(nonza_text(z));
    if (type.p == NULL) {
        e.type = DIALBACK_REQUEST;
    } else if (str_is(type, "valid")) {
        e.type = DIALBACK_VALID;
    } else if (str_is(type, "invalid")) {
        e.type = DIALBACK_INVALID;
    } else {
        e.type = DIALBACK_ERROR;
        e.condition = error_condition(z);
    }
    return e;
}

void dialback_write(struct buf *b, const struct dialback_text *t)
{
    const char *name = t->kind == DIALBACK_RESULT ? "db:result" : "db:verify";
    buf_printf(b, "<%s", name);
    writer_attr(b, "from", t->from);
    writer_attr(b, "to", t->to);
    writer_attr(b, "id", t->id);
    if (t->condition != NULL) {
        buf_printf(
            b, " type='error'><error type='cancel'><%s xmlns='" NS_STANZA_ERROR "'/></error></%s>",
            t->condition, name);
    } else if (t->type != NULL) {
        buf_printf(b, " type='%s'/>", t->type);
    } else {
        buf_putc(b, '>');
        writer_text(b, t->key);
        buf_printf(b, "</%s>", name);
    }
}
