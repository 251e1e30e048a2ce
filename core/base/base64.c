#include "core/base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_write(struct buf *b, struct str bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        buf_putc(b, alphabet[v >> 18]);
        buf_putc(b, alphabet[v >> 12 & 63]);
        buf_putc(b, left > 1 ? alphabet[v >> 6 & 63] : '=');
        buf_putc(b, left > 2 ? alphabet[v & 63] : '=');
    }
}

/* Four characters, of which the last two may be padding where `last` says so. */
static bool read_group(struct buf *b, const char *c, bool last)
{
    unsigned v = 0, pad = !last || c[3] != '=' ? 0 : c[2] == '=' ? 2 : 1;
    for (unsigned i = 0; i < 4; i++) {
        const char *at = i + pad < 4 && c[i] != '\0' ? strchr(alphabet, c[i]) : NULL;
        if (at == NULL && i + pad < 4)
            return false;
        v = v << 6 | (at ? (unsigned)(at - alphabet) : 0);
    }
    if ((pad == 1 && (v & 0xff) != 0) || (pad == 2 && (v & 0xffff) != 0))
        return false;
    const unsigned char bytes[3] = {v >> 16 & 0xff, v >> 8 & 0xff, v & 0xff};
    buf_put(b, bytes, 3 - pad);
    return true;
}

bool base64_read(struct buf *b, struct str text)
{
    if (text.n % 4 != 0)
        return false;
    for (size_t i = 0; i < text.n; i += 4)
        if (!read_group(b, text.p + i, i + 4 == text.n))
            return false;
    return !b->failed;
}
