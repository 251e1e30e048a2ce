/* Base64 (RFC 4648 4), as SASL uses it: one line, with padding, nothing else. */
#ifndef CORE_BASE_BASE64_H
#define CORE_BASE_BASE64_H

#include "core/base/buf.h"

void base64_write(struct buf *b, struct str bytes);

/* Appends the bytes. False: not the one right spelling (alphabet, length, padding, unused bits that
 * are not 0), or b is full; then part of them may have been appended. */
bool base64_read(struct buf *b, struct str text);

#endif
