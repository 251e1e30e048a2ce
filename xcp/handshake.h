/* XEP-0114 (Jabber Component Protocol): headers and the handshake, as pure text.
 *
 * Story. The dialling side names the component in its header, without a version; the accepting
 * side answers with a header that carries a fresh stream id; the dialling side proves that it knows
 * the secret by SHA-1(id + secret) in lower-case hex; an empty <handshake/> says yes. Ids are used
 * unescaped, as the framer gives them. Plain SHA-1 of a shared secret is no more than XEP-0114
 * offers: it belongs inside TLS or on a network of its own. */
#ifndef XCP_HANDSHAKE_H
#define XCP_HANDSHAKE_H

#include "core/base/buf.h"
#include "core/base/digest.h"

/* False only when libcrypto fails. */
bool handshake_digest(char out[DIGEST_SHA1_HEX + 1], struct str id, struct str secret);
/* Compares in constant time; white space around `given` does not count. */
bool handshake_check(struct str id, struct str secret, struct str given);

/* Header of the dialling side. The content namespace stands first and literally: Prosody's port
 * multiplexer recognises a component by that text. */
void handshake_write_client_header(struct buf *b, struct str to);
/* Header of the accepting side; `from` may be absent. */
void handshake_write_server_header(struct buf *b, struct str from, struct str id);
/* <handshake>digest</handshake>; false only when libcrypto fails. */
bool handshake_write(struct buf *b, struct str id, struct str secret);

#define HANDSHAKE_OK "<handshake/>"

#endif
