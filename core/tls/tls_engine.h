/* TLS as a filter over memory: wire bytes in and out on one side, plain bytes on the other. No
 * sockets, no blocking; the BIO is our own over buffers that are given back when empty, so an idle
 * connection holds none. */
#ifndef CORE_TLS_TLS_ENGINE_H
#define CORE_TLS_TLS_ENGINE_H

#include "core/base/buf.h"
#include "core/base/tlsa.h"
#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

enum tls_result {
    TLS_OK,
    TLS_WANT_WIRE, /* nothing more until wire bytes come */
    TLS_CLOSED,    /* close-notify received */
    TLS_ERROR,     /* final; tls_engine_why */
};

struct tls_engine;

/* As server: certificate by SNI, else that of `domain` (the stream's `to`), else the default; asks
 * for a client certificate, never demands one. As client: presents the certificate of `domain` (the
 * local domain; NULL: default) and sends SNI `peer_name`. */
struct tls_engine *tls_engine_new(struct tls_ctx *ctx, bool server, const char *domain,
                                  const char *peer_name);
void tls_engine_free(struct tls_engine *e);

/* Before the handshake of a client whose TLS begins with the first byte: offers "xmpp-server" by
 * ALPN (XEP-0368 4). A server selects that whenever it is offered, and refuses a client that offers
 * only others. False: out of memory. */
bool tls_engine_direct(struct tls_engine *e);

/* Copies. False: out of memory, or more than 64 KiB and a record wait unread; then the connection
 * is lost. */
bool tls_engine_put_wire(struct tls_engine *e, struct str bytes);
/* Received bytes wait, so tls_engine_read may have something. */
bool tls_engine_readable(const struct tls_engine *e);
/* Wire bytes to send, borrowed until the next call; tls_engine_wire_taken says how many went. */
struct str tls_engine_wire(struct tls_engine *e);
void tls_engine_wire_taken(struct tls_engine *e, size_t n);

/* Drives the handshake; TLS_OK when it is done (call again harmlessly). */
enum tls_result tls_engine_handshake(struct tls_engine *e);
enum tls_result tls_engine_read(struct tls_engine *e, char *out, size_t cap, size_t *n);
enum tls_result tls_engine_write(struct tls_engine *e, struct str plain); /* all or error */
void tls_engine_close_notify(struct tls_engine *e);

/* After the handshake; as long as the engine. */
const struct tls_peer *tls_engine_peer(const struct tls_engine *e);
/* Whose authorities judge the peer's chain: those of `ca_file` (one of tls_settings.ca_files), or
 * with NULL, as until this call, those for everybody. Before the handshake it says whom its end
 * will ask; after it chain_ok and `why` of the facts are rewritten in place. A file that was never
 * loaded trusts nobody. Without a peer's certificate nothing changes. */
void tls_engine_judge(struct tls_engine *e, const char *ca_file);
/* The authorities and revocation lists are those of that context (referenced) from the next
 * tls_engine_judge on: a reload has read the files anew. */
void tls_engine_trust(struct tls_engine *e, struct tls_ctx *ctx);
/* Before the handshake, of a client: its facts will say what these records say of the server. They
 * live as long as the engine. */
void tls_engine_dane(struct tls_engine *e, const struct tlsa_set *records);
/* As client, where settings.sessions allow it, a session with the same two names is resumed, and
 * what resumes this one is kept as long as the peer's chain_ok holds and its certificate covers
 * `peer_name`. This forgets it: for a peer that was refused for another reason, and may come back
 * with another certificate. */
void tls_engine_forget(struct tls_engine *e);
/* After TLS_ERROR: one sentence. When it is our certificate that the peer does not take, it begins
 * with "the peer refused our certificate"; in TLS 1.3 the first read says so, not the handshake. */
const char *tls_engine_why(const struct tls_engine *e);
/* Largest plaintext of one record: a write of at most this size makes exactly one. After the
 * handshake. */
size_t tls_engine_record(const struct tls_engine *e);
size_t tls_engine_memory(const struct tls_engine *e);

#endif
