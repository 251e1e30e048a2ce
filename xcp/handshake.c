#include "xcp/handshake.h"

#include "core/xml/ns.h"
#include "core/xml/writer.h"

bool handshake_digest(char out[DIGEST_SHA1_HEX + 1], struct str id, struct str secret)
{
    const struct str parts[] = {id, secret};
    return digest_sha1_hex(out, parts, 2);
}

bool handshake_check(struct str id, struct str secret, struct str given)
{
    char want[DIGEST_SHA1_HEX + 1];
    if (!handshake_digest(want, id, secret))
        return false;
    return digest_equal((struct str){want, DIGEST_SHA1_HEX}, str_trim(given));
}

static void write_header(struct buf *b)
{
    buf_puts(b, "<?xml version='1.0'?><stream:stream xmlns='" NS_COMPONENT
                "' xmlns:stream='" NS_STREAM "'");
}

void handshake_write_client_header(struct buf *b, struct str to)
{
    write_header(b);
    writer_attr(b, "to", to);
    buf_putc(b, '>');
}

void handshake_write_server_header(struct buf *b, struct str from, struct str id)
{
    write_header(b);
    writer_attr(b, "from", from);
    writer_attr(b, "id", id);
    buf_putc(b, '>');
}

bool handshake_write(struct buf *b, struct str id, struct str secret)
{
    char digest[DIGEST_SHA1_HEX + 1];
    if (!handshake_digest(digest, id, secret))
        return false;
    buf_puts(b, "<handshake>");
    buf_puts(b, digest);
    buf_puts(b, "</handshake>");
    return true;
}
