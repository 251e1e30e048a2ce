/* The connections of the load tool.
 *
 * Story. As a remote domain we dial the server under test, take STARTTLS when the run is one under
 * TLS, and send a dialback key; the server dials our domain's address and asks whether the key is
 * ours; we recompute it and say so; the stream is proven. The other way round the server dials us,
 * sends its key, and we dial it to ask. Behind it stands the inside: an XEP-0114 stream in either
 * role. A relay (the lower bound) gets none of this, only TLS and stanzas. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/env.h"
#include "core/stream/stream.h"
#include "core/xml/ns.h"
#include "gateway/proto/dialback.h"
#include "tests/bench/load.h"
#include "xcp/handshake.h"

#define OUR_SECRET "the secret of the remote domains"

void domain_name(const struct load *l, unsigned domain, char out[NAME_MAX_BYTES])
{
    (void)snprintf(out, NAME_MAX_BYTES, "r%04u.%s", domain, l->opt.suffix);
}

void inside_name(const struct load *l, char out[NAME_MAX_BYTES])
{
    (void)snprintf(out, NAME_MAX_BYTES, "in.%s", l->opt.suffix);
}

static struct conn *conn_new(struct load *l, enum kind kind, unsigned domain)
{
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL) {
        load_fail(l, "conn", "out of memory");
        return NULL;
    }
    c->kind = kind;
    c->domain = domain;
    list_append(&l->conns, &c->node);
    return c;
}

struct conn *conn_add(struct load *l, enum kind kind, unsigned domain)
{
    struct conn *c = conn_new(l, kind, domain);
    if (c == NULL)
        return NULL;
    const struct sockaddr_in *to = kind == FEED     ? &l->opt.relay_out
                                   : kind == INSIDE ? &l->opt.inside_at
                                                    : &l->opt.server;
    wire_connect(&c->wire, l->epoll, c, &l->opt.listen, to);
    return c;
}

struct conn *conn_accept(struct load *l, enum kind kind, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct conn *c = conn_new(l, kind, 0);
    if (c == NULL) {
        (void)close(fd);
        return NULL;
    }
    wire_accepted(&c->wire, l->epoll, c, fd);
    l->served += kind == SERVED;
    return c;
}

static void opened(struct load *l, struct conn *c)
{
    c->state = OPEN;
    if (c->kind == STREAM || c->kind == FEED) {
        l->opening--;
        l->opened++;
        c->listed = true;
        (c->kind == STREAM ? l->stream : l->feed)[c->domain] = c;
    } else if (c->kind == INSIDE) {
        l->inside = c;
    }
}

static void send_header(struct load *l, struct conn *c, struct str from, struct str to)
{
    struct stream_open open = {.from = from, .to = to, .version = true};
    if (c->kind == SERVED) {
        if (!env_hex_id(&env_system, c->id, ID_BYTES / 2))
            load_fail(l, "stream id", "no randomness");
        open.id = str_c(c->id);
    }
    stream_write_header(&c->wire.out, &open);
}

/* Connected, or TLS is up: the next step is ours, or the peer's header comes. */
static void ready(struct load *l, struct conn *c)
{
    bool dialled = c->kind != SERVED;
    l->resumed += !dialled && wire_resumed(&c->wire);
    char ours[NAME_MAX_BYTES], theirs[NAME_MAX_BYTES];
    c->state = WAIT_HEADER;
    if (l->opt.relay) {
        bool tls = l->opt.tls && (c->kind == STREAM || c->kind == SERVED);
        if (tls && c->wire.ssl == NULL) {
            c->state = WAIT_READY;
            wire_start_tls(&c->wire, dialled ? l->client : l->server, !dialled, NULL);
            return;
        }
        opened(l, c);
        return;
    }
    inside_name(l, theirs);
    if (c->kind == STREAM || c->kind == VERIFY) {
        domain_name(l, c->domain, ours);
        send_header(l, c, str_c(ours), str_c(theirs));
    } else if (c->kind == INSIDE && strcmp(l->opt.inside, "component") == 0) {
        handshake_write_client_header(&c->wire.out, str_c(theirs));
    }
}

/* ---- dialback -------------------------------------------------------------------------------- */

static void send_dialback(struct conn *c, enum dialback_kind kind, struct str from, struct str to,
                          struct str id, struct str key, const char *type)
{
    struct dialback_text t = {kind, from, to, id, key, type, NULL};
    dialback_write(&c->wire.out, &t);
}

/* Our side of the stream is negotiated: what we dialled for. */
static void authenticate(struct load *l, struct conn *c)
{
    char key[DIALBACK_KEY_HEX + 1], ours[NAME_MAX_BYTES], theirs[NAME_MAX_BYTES];
    domain_name(l, c->domain, ours);
    inside_name(l, theirs);
    c->state = WAIT_ANSWER;
    if (c->kind == VERIFY) {
        send_dialback(c, DIALBACK_VERIFY, str_c(ours), str_c(theirs), str_c(c->ask_id),
                      str_c(c->key), NULL);
        return;
    }
    if (!dialback_key(key, STR(OUR_SECRET), str_c(theirs), str_c(ours), str_c(c->peer_id)))
        load_fail(l, "dialback", "no key");
    send_dialback(c, DIALBACK_RESULT, str_c(ours), str_c(theirs), STR_NONE, str_c(key), NULL);
}

static bool valid(struct str element)
{
    return str_is(wire_attribute(element, "type"), "valid");
}

/* The authoritative role for our domains. */
static void answer_verify(struct load *l, struct conn *c, struct str e)
{
    struct str from = wire_attribute(e, "from"), to = wire_attribute(e, "to");
    struct str id = wire_attribute(e, "id");
    struct dialback_secrets secrets = {OUR_SECRET, NULL, 0};
    bool ok = dialback_check(&secrets, wire_text(e), from, to, id);
    if (!ok)
        load_fail(l, "dialback", "the server under test asked about a wrong key");
    send_dialback(c, DIALBACK_VERIFY, to, from, id, STR_NONE, ok ? "valid" : "invalid");
}

/* The receiving role: dials back to ask. */
static void check_result(struct load *l, struct conn *c, struct str e)
{
    char name[NAME_MAX_BYTES];
    if (!str_copy(name, sizeof name, wire_attribute(e, "to")) || name[0] != 'r')
        return;
    struct conn *v = conn_add(l, VERIFY, (unsigned)strtoul(name + 1, NULL, 10) % DOMAINS_MAX);
    if (v == NULL)
        return;
    v->asker = c;
    bool fits = str_copy(v->key, sizeof v->key, wire_text(e)) &&
                str_copy(v->asker_from, sizeof v->asker_from, wire_attribute(e, "from")) &&
                str_copy(v->asker_to, sizeof v->asker_to, str_c(name)) &&
                str_copy(v->ask_id, sizeof v->ask_id, str_c(c->id));
    if (!fits)
        load_fail(l, "dialback", "an over-long key or name");
}

static void verified(struct load *l, struct conn *v, struct str e)
{
    struct conn *c = v->asker;
    if (!valid(e))
        load_fail(l, "dialback", "the server under test does not know its own key");
    if (c != NULL) {
        send_dialback(c, DIALBACK_RESULT, str_c(v->asker_to), str_c(v->asker_from), STR_NONE,
                      STR_NONE, valid(e) ? "valid" : "invalid");
        wire_flush(&c->wire);
    }
    v->asker = NULL;
    v->state = OPEN;
    conn_close_gently(l, v);
}

/* ---- elements -------------------------------------------------------------------------------- */

static void start_tls(struct load *l, struct conn *c)
{
    char name[NAME_MAX_BYTES];
    bool server = c->kind == SERVED;
    inside_name(l, name);
    wire_flush(&c->wire);
    c->state = WAIT_READY;
    wire_start_tls(&c->wire, server ? l->server : l->client, server, server ? NULL : name);
}

static void element_of_stream(struct load *l, struct conn *c, struct str e)
{
    if (c->state == WAIT_FEATURES && str_starts(e, "<stream:features")) {
        if (!l->opt.tls || c->wire.ssl != NULL) {
            authenticate(l, c);
        } else {
            buf_puts(&c->wire.out, "<starttls xmlns='" NS_TLS "'/>");
            c->state = WAIT_PROCEED;
        }
    } else if (c->state == WAIT_PROCEED && str_starts(e, "<proceed")) {
        start_tls(l, c);
    } else if (c->kind == STREAM && str_starts(e, "<db:result")) {
        if (valid(e))
            opened(l, c);
        else
            load_fail(l, "dialback", "the server under test refused our key");
    } else if (c->kind == VERIFY && str_starts(e, "<db:verify")) {
        verified(l, c, e);
    }
}

static void element_of_served(struct load *l, struct conn *c, struct str e)
{
    if (str_starts(e, "<db:verify")) {
        answer_verify(l, c, e);
    } else if (str_starts(e, "<db:result")) {
        check_result(l, c, e);
    } else if (str_starts(e, "<starttls")) {
        buf_puts(&c->wire.out, "<proceed xmlns='" NS_TLS "'/>");
        start_tls(l, c);
    } else {
        flow_stanza(l, c, e);
    }
}

static void element_of_inside(struct load *l, struct conn *c, struct str e)
{
    if (c->state == OPEN) {
        flow_stanza(l, c, e);
    } else if (str_starts(e, "<handshake")) {
        if (strcmp(l->opt.inside, "accept") == 0) {
            if (!handshake_check(str_c(c->id), str_c(l->opt.secret), wire_text(e)))
                load_fail(l, "inside", "wrong handshake");
            buf_puts(&c->wire.out, HANDSHAKE_OK);
        }
        opened(l, c);
    }
}

static void element(struct load *l, struct conn *c, struct str e)
{
    if (str_starts(e, "</")) {
        if (!c->wire.dead)
            buf_puts(&c->wire.out, STREAM_CLOSE_TAG);
        wire_flush(&c->wire);
        c->wire.dead = true;
        return;
    }
    if (str_starts(e, "<stream:error")) {
        char text[160];
        str_copy(text, sizeof text, e);
        if (c->kind == STREAM || c->kind == INSIDE)
            load_fail(l, "stream error", text);
        return;
    }
    if (l->opt.relay)
        flow_stanza(l, c, e);
    else if (c->kind == SERVED)
        element_of_served(l, c, e);
    else if (c->kind == INSIDE)
        element_of_inside(l, c, e);
    else
        element_of_stream(l, c, e);
}

static void served_header(struct load *l, struct conn *c, struct str h)
{
    send_header(l, c, wire_attribute(h, "to"), wire_attribute(h, "from"));
    buf_puts(&c->wire.out, l->opt.tls && c->wire.ssl == NULL
                               ? "<stream:features><starttls xmlns='" NS_TLS "'><required/>"
                                 "</starttls></stream:features>"
                               : "<stream:features><dialback xmlns='" NS_FEATURE_DB "'/>"
                                 "</stream:features>");
    c->state = OPEN;
}

static void header(struct load *l, struct conn *c, struct str h)
{
    struct str id = wire_attribute(h, "id");
    if (c->kind == SERVED) {
        served_header(l, c, h);
        return;
    }
    if (c->kind == INSIDE && strcmp(l->opt.inside, "accept") == 0) {
        if (!env_hex_id(&env_system, c->id, ID_BYTES / 2))
            load_fail(l, "stream id", "no randomness");
        handshake_write_server_header(&c->wire.out, wire_attribute(h, "to"), str_c(c->id));
        c->state = WAIT_ANSWER;
        return;
    }
    if (!str_copy(c->peer_id, sizeof c->peer_id, id))
        load_fail(l, "header", "an over-long stream id");
    c->state = WAIT_FEATURES;
    if (c->kind == INSIDE) {
        c->state = WAIT_ANSWER;
        if (!handshake_write(&c->wire.out, id, str_c(l->opt.secret)))
            load_fail(l, "inside", "no digest");
    }
}

/* One header or element of p[0..n); its bytes, 0: it has not come whole. */
static size_t take(struct load *l, struct conn *c, const char *p, size_t n)
{
    size_t start = 0;
    bool head = c->state == WAIT_HEADER;
    size_t end = head ? wire_header(p, n, &start) : wire_element(p, n, &start);
    struct str s = {p + start, end - start};
    if (end > 0 && head)
        header(l, c, s);
    else if (end > 0)
        element(l, c, s);
    return end;
}

/* Takes everything that has come. */
static void digest(struct load *l, struct conn *c)
{
    struct wire *w = &c->wire;
    size_t at = 0, n;
    wire_read(w);
    while (c->state != WAIT_READY && at < w->in_n && (n = take(l, c, w->in + at, w->in_n - at)) > 0)
        at += n;
    wire_taken(w, at);
    wire_flush(w);
}

void conn_step(struct load *l, struct conn *c)
{
    do {
        while (wire_ready(&c->wire) && c->state == WAIT_READY)
            ready(l, c);
        if (c->wire.dead || c->state == WAIT_READY)
            return;
        digest(l, c);
    } while (c->state == WAIT_READY); /* a handshake that we begin */
}

void conn_close_gently(struct load *l, struct conn *c)
{
    if (c->wire.dead)
        return;
    if (c->listed)
        (c->kind == STREAM ? l->stream : l->feed)[c->domain] = NULL;
    l->opened -= c->listed;
    c->listed = false;
    if (c->state == OPEN && !l->opt.relay)
        buf_puts(&c->wire.out, STREAM_CLOSE_TAG);
    wire_flush(&c->wire);
    /* The peer answers by its closing tag, or by closing. */
    if (c->state != OPEN || l->opt.relay || c->kind == SERVED)
        c->wire.dead = true;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void bury(struct load *l, struct conn *c)
{
    bool early = (c->kind == STREAM || c->kind == FEED) && c->state != OPEN;
    if (early || c->listed || (c->kind == VERIFY && c->asker != NULL) ||
        (c->kind == INSIDE && l->running))
        load_fail(l, c->kind == INSIDE ? "inside" : "stream",
                  c->wire.why[0] ? c->wire.why : "ended");
    if (c->listed) {
        (c->kind == STREAM ? l->stream : l->feed)[c->domain] = NULL;
        l->opened--;
    }
    if (l->inside == c)
        l->inside = NULL;
    l->served -= c->kind == SERVED;
    LIST_FOREACH (&l->conns, node, next) {
        struct conn *v = CONTAINER_OF(node, struct conn, node);
        if (v->asker == c)
            v->asker = NULL;
    }
    list_remove(&c->node);
    wire_free(&c->wire);
    free(c);
}

void conn_reap(struct load *l)
{
    LIST_FOREACH (&l->conns, node, next) {
        struct conn *c = CONTAINER_OF(node, struct conn, node);
        if (c->wire.dead)
            bury(l, c);
    }
}
