"""What strangers and hostile peers try with the protocol itself: time, identity, TLS, the log.

The rules are the table in docs/security.md; what costs memory, descriptors or processor time is in
test_resources.py.
"""
import re
import signal
import socket
import ssl
import time
import xml.etree.ElementTree as ET

import labnet
import pytest
from conftest import ask_books
from fakes import Edge, descriptors, descriptors_back, ended
from labnet import Net
from peers import (RESULT, STREAM, TLS, VERIFY, Closed, RemoteServer, XmlStream, authorised, dial,
                   dialback_key, message, stanza_error)

AUTH = 2.0  # seconds, timeouts.auth of this file
HOSTS = {"raw.lab": 41, "victim.lab": 42, "liar.lab": 43, "proceed.lab": 44, "garbage.lab": 45,
         "words.lab": 46, "slow.lab": 47}


@pytest.fixture(scope="module")
def world(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)],
             **{d: [(h, labnet.S2S, 10)] for d, h in HOSTS.items()}})
    servers = {"raw.lab": RemoteServer(lab.ip(41), "raw.lab"),
               # Its authority never answers: whoever claims to be it must not get in.
               "victim.lab": RemoteServer(lab.ip(42), "victim.lab", verdict=None),
               "liar.lab": Liar(lab.ip(43), "liar.lab"),
               "slow.lab": RemoteServer(lab.ip(47), "slow.lab", verdict=None)}
    for s in servers.values():
        lab.at_end(s)
    us = Edge(lab, mode="tls-optional", peers=[{"domain": "*", "policy": "allow"}],
              timeouts={"auth": "2s", "connect": "1s", "queue": "4s", "close": "1s"},
              dialback_timeout="1s")
    return us, servers


@pytest.fixture
def us(world):
    return world[0]


def still_serves(us, ident):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.send(message("friend@raw.lab", us.jid, ident))
    us.inside.expect(id=ident)
    s.close()


# ---- time ----------------------------------------------------------------------------------------

def _trickle_result(us):
    """The request of an honest peer, one byte at a time."""
    s = dial(us.address, "raw.lab", "alpha.lab")
    return s, iter("<db:result from='raw.lab' to='alpha.lab'>" + "a" * 4000)


def _endless_requests(us):
    """Well-formed elements that prove nothing."""
    s = dial(us.address, "raw.lab", "alpha.lab")
    return s, iter(["<db:verify from='raw.lab' to='alpha.lab' id='1'>cafe</db:verify>"] * 4000)


def _tls_records(us):
    """A handshake that grows by a byte now and then."""
    s = dial(us.address, "raw.lab", "alpha.lab")
    s.send(f"<starttls xmlns='{TLS}'/>")
    s.expect(f"{{{TLS}}}proceed")
    hello = b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03"
    return s, iter([bytes([b]) for b in hello + b"\0" * 4000])


def _proven_then_starttls(us):
    """What was proven in clear counts for nothing after STARTTLS, and its time is counted anew."""
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.send(f"<starttls xmlns='{TLS}'/>")
    s.expect(f"{{{TLS}}}proceed")
    return s, iter([b"\x16", b"\x03", b"\x01"])


@pytest.mark.parametrize("begin", [_trickle_result, _endless_requests, _tls_records,
                                   _proven_then_starttls])
def test_no_byte_extends_the_set_up(us, begin):
    began = time.monotonic()
    s, more = begin(us)
    closed = False
    while not closed and time.monotonic() - began < AUTH + 4:
        try:
            s.send(next(more, b"") or b"")
        except OSError:
            break
        closed = ended(s.sock, 0.05)
    took = time.monotonic() - began
    s.close()
    assert AUTH * 0.7 < took < AUTH + 2.5


def test_half_closed_connections_end_at_once(us):
    """A peer that says no more is not waited for, proven or not."""
    strangers = [dial(us.address, None, None), dial(us.address, "raw.lab", "alpha.lab")]
    member = authorised(us.address, "raw.lab", "alpha.lab")
    began = time.monotonic()
    for s in [*strangers, member]:
        s.sock.shutdown(socket.SHUT_WR)
        assert ended(s.sock, 1.0)
        s.close()
    assert time.monotonic() - began < AUTH / 2


def test_close_handshake_has_a_deadline(us):
    """A peer that does not close its side is delivered to the end of timeouts.close, no longer."""
    before = descriptors(us.gateway)
    s = authorised(us.address, "raw.lab", "alpha.lab")
    try:
        us.gateway.set_mode("tls-required")
        error = s.read()
        assert error.tag == f"{{{STREAM}}}error" and error[0].tag.endswith("}reset")
        began = time.monotonic()
        s.send(message("friend@raw.lab", us.jid, "under-way"))
        us.inside.expect(id="under-way")
        assert ended(s.sock, 5)
        assert 0.5 < time.monotonic() - began < 3
        # We do not close the socket: the gateway must let go of it all the same.
        descriptors_back(us.gateway, before, 8)
    finally:
        us.gateway.set_mode("tls-optional")
        s.close()


# ---- dialback ------------------------------------------------------------------------------------

class Liar(RemoteServer):
    """Answers each db:verify with `script`: a list of the attributes to change in the answer."""
    script = ()

    def _dialback(self, s, element):
        if element.tag != VERIFY:
            super()._dialback(s, element)
            return
        self.note(self.asked, ("verify", element.get("from"), element.get("to"),
                               element.get("id")))
        honest = {"from": element.get("to"), "to": element.get("from"), "id": element.get("id"),
                  "type": "valid"}
        for changed in self.script:
            answer = {k: v for k, v in {**honest, **changed}.items() if v is not None}
            s.send("<db:verify" + "".join(f" {k}='{v}'" for k, v in answer.items()) + "/>")


LIES = {
    "another stream id": {"id": "0123456789abcdef"},
    "no stream id": {"id": None},
    "another remote domain": {"from": "victim.lab"},
    "a name below ours": {"from": "sub.liar.lab"},
    "another local domain": {"to": "beta.lab"},
    "no addresses": {"from": None, "to": None},
    "another type": {"type": "VALID"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_answer_that_does_not_fit_proves_nothing(us, world, lie):
    liar = world[1]["liar.lab"]
    liar.script = [lie]
    s = dial(us.address, "liar.lab", "alpha.lab")
    s.ask_result("liar.lab", "alpha.lab")
    answer = s.expect(RESULT)
    assert answer.get("type") == "error", ET.tostring(answer)
    s.send(message("evil@liar.lab", us.jid, "lie"))
    assert s.read_error() == "not-authorized"
    assert us.inside.seen(id="lie") == []
    s.close()


def test_answers_are_taken_once_and_only_for_their_own_pair(us, world):
    """The authority of one domain confirms its own request, then others that are open: those of
    another domain on another stream. The first counts, the rest changes nothing."""
    liar = world[1]["liar.lab"]
    pretender = dial(us.address, "victim.lab", "alpha.lab")
    pretender.ask_result("victim.lab", "alpha.lab")
    world[1]["victim.lab"].wait(lambda: any(a[3] == pretender.attrs["id"]
                                            for a in world[1]["victim.lab"].asked))
    foreign = {"from": "victim.lab", "id": pretender.attrs["id"]}
    liar.script = [foreign, {}, {}, {"type": "invalid"}, foreign]
    s = dial(us.address, "liar.lab", "alpha.lab")
    s.ask_result("liar.lab", "alpha.lab")
    assert s.expect(RESULT).get("type") == "valid"
    s.send(message("a@liar.lab", us.jid, "own-pair"))
    us.inside.expect(id="own-pair")
    s.send(message("a@victim.lab", us.jid, "stolen"))
    assert s.read_error() == "invalid-from"
    answer = pretender.expect(RESULT)
    assert answer.get("type") == "error" and stanza_error(answer)[0] == "remote-server-timeout"
    assert us.inside.seen(id="stolen") == []
    for x in (s, pretender):
        x.close()


def test_an_answer_on_the_wrong_connection_proves_nothing(us, world):
    """The open request's id is known to the pretender; the answer must come where it was asked."""
    pretender = dial(us.address, "victim.lab", "alpha.lab")
    pretender.ask_result("victim.lab", "alpha.lab")
    ident = pretender.attrs["id"]
    helper = dial(us.address, "victim.lab", "alpha.lab")
    for s in (helper, pretender):
        s.send(f"<db:verify from='victim.lab' to='alpha.lab' id='{ident}' type='valid'/>"
               "<db:result from='victim.lab' to='alpha.lab' type='valid'/>")
    answer = pretender.expect(RESULT)
    assert answer.get("type") == "error", ET.tostring(answer)
    pretender.send(message("evil@victim.lab", us.jid, "wrong-connection"))
    assert pretender.read_error() == "not-authorized"
    assert us.inside.seen(id="wrong-connection") == []
    pretender.close()
    helper.close()


def test_a_key_for_another_tuple_is_invalid(us):
    """Moved across a boundary of the key's text, a character makes another key (XEP-0185)."""
    s = dial(us.address, None, "alpha.lab")
    good = dialback_key(us.secret, "raw.lab", "alpha.lab", "77")
    for domain, ident, key, expected in (
            ("raw.lab", "77", good, "valid"), ("raw.lab", "7", good, "invalid"),
            ("raw.la", "b77", good, "invalid"), ("xraw.lab", "77", good, "invalid"),
            ("raw.lab", "77", good[:-1], "invalid"), ("raw.lab", "77", good.upper(), "invalid"),
            ("raw.lab", "77 ", good, "invalid"), ("raw.lab", "alpha.lab 77", good, "invalid"),
            ("raw.lab", "77", dialback_key(us.secret, "raw.lab", "beta.lab", "77"), "invalid"),
            ("raw.lab", "77", dialback_key("guess", "raw.lab", "alpha.lab", "77"), "invalid")):
        s.ask_verify(domain, "alpha.lab", ident, key)
        assert s.expect(VERIFY).get("type") == expected, (domain, ident)
    s.close()


def test_stream_ids_are_never_used_again(us):
    seen = set()
    for _ in range(20):
        s = dial(us.address, "raw.lab", "alpha.lab")
        seen.add(s.attrs["id"])
        s.starttls_client("alpha.lab")
        s.open("raw.lab", "alpha.lab")
        seen.add(s.read_header()["id"])
        s.close()
    assert len(seen) == 40 and all(len(i) >= 32 for i in seen)


@pytest.mark.parametrize("name", ["alpha.lab", "ALPHA.lab", "Alpha.Lab", "alpha.lab."])
def test_nobody_else_is_our_domain(us, name):
    s = dial(us.address, None, "alpha.lab")
    s.ask_result(name, "alpha.lab")
    answer = s.read()
    assert answer.get("type") == "error", ET.tostring(answer)
    s.close()
    s = dial(us.address, name, "alpha.lab", features=False)
    s.read_header()
    assert s.read_error() in ("invalid-from", "improper-addressing")
    s.close()


def test_tls_required_answers_no_question_in_clear(us):
    since = us.gateway.set_mode("tls-required")
    us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)
    try:
        s = dial(us.address, "raw.lab", "alpha.lab")
        s.ask_verify("raw.lab", "alpha.lab", "1",
                     dialback_key(us.secret, "raw.lab", "alpha.lab", "1"))
        answer = s.expect(VERIFY)
        assert stanza_error(answer)[0] == "policy-violation"
        s.ask_result("raw.lab", "alpha.lab")
        assert stanza_error(s.expect(RESULT))[0] == "policy-violation"
        s.close()
    finally:
        since = us.gateway.set_mode("tls-optional")
        us.gateway.wait_log(labnet.LOG_MODE_CHANGED, since)


# ---- the STARTTLS boundary -----------------------------------------------------------------------

def test_what_was_proven_in_clear_is_forgotten_behind_tls(us):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.starttls_client("alpha.lab")
    s.open("raw.lab", "alpha.lab")
    s.read_header()
    s.read()
    s.send(message("a@raw.lab", us.jid, "carried-over"))
    assert s.read_error() == "not-authorized"
    assert us.inside.seen(id="carried-over") == []
    s.close()


def test_another_identity_behind_tls(us):
    s = dial(us.address, "raw.lab", "alpha.lab")
    s.starttls_client("alpha.lab")
    s.open("victim.lab", "alpha.lab")
    s.read_header()
    assert s.read_error() == "invalid-from"
    s.close()


def test_a_second_header_inside_the_stream(us):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.open("victim.lab", "alpha.lab", declaration=False)
    s.send(message("a@victim.lab", us.jid, "second-header") + "</stream:stream>")
    with pytest.raises((Closed, AssertionError)):
        while s.read() is not None:
            pass
        raise Closed
    assert us.inside.seen(id="second-header") == []
    s.close()
    still_serves(us, "after-second-header")


class Injecting(RemoteServer):
    """Somebody on the way: what belongs behind TLS comes with or instead of the handshake."""
    after, got, over = b"", b"", False  # got: what came behind proceed; over: the peer has closed

    def _element(self, s, peer, element):
        if element.tag != f"{{{TLS}}}starttls":
            super()._element(s, peer, element)
            return
        s.send(f"<proceed xmlns='{TLS}'/>".encode() + self.after)
        s.sock.settimeout(5)
        try:
            while data := s.sock.recv(65536):
                self.got += data
        except OSError:
            pass
        self.over = True
        raise Closed("enough")


HEADER = (f"<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='{STREAM}' "
          "xmlns:db='jabber:server:dialback' id='x' version='1.0'><stream:features>"
          "<dialback xmlns='urn:xmpp:features:dialback'/></stream:features>").encode()


@pytest.mark.parametrize("domain,after", [("proceed.lab", HEADER),
                                          ("garbage.lab", b"\n\n" + b"\x00" * 100)],
                         ids=["header", "garbage"])
def test_bytes_in_clear_behind_proceed(us, lab, domain, after):
    """They are neither read as the answer behind TLS nor is anything sent in clear."""
    server = lab.at_end(Injecting(lab.ip(HOSTS[domain]), domain, tls="optional"))
    server.after = after
    us.inside.message(f"j@{domain}", f"to-{domain}", "keep this secret")
    us.bounced(f"to-{domain}")
    labnet.wait_for(lambda: server.over, what="the gateway to close")
    for _, s in server.streams:
        seen = s.raw + server.got
        assert b"keep this secret" not in seen and b"db:result" not in seen
        # At most a TLS record may have been sent.
        assert server.got[:1] in (b"", b"\x16"), server.got


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_downgrade_inside_the_handshake(us):
    """TLS 1.1 and suites without forward secrecy are refused."""
    for settings in ({"maximum_version": ssl.TLSVersion.TLSv1_1},
                     {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "AES128-SHA"},
                     {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "aNULL:eNULL"}):
        s = dial(us.address, "raw.lab", "alpha.lab")
        s.send(f"<starttls xmlns='{TLS}'/>")
        s.expect(f"{{{TLS}}}proceed")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers(settings.get("ciphers", "ALL") + ":@SECLEVEL=0")
        context.maximum_version = settings["maximum_version"]
        with pytest.raises((ssl.SSLError, OSError)):
            s.wrap(context, server_hostname="alpha.lab")
        s.close()
    still_serves(us, "after-old-tls")


# ---- the inside ----------------------------------------------------------------------------------

def test_the_inside_speaks_for_our_domains_only(us, world):
    """Neither as somebody else, nor through us to ourselves."""
    raw = world[1]["raw.lab"]
    us.inside.message("j@raw.lab", "forged", from_="a@victim.lab")
    us.gateway.wait_log(r"stanza\.refused .*reason=foreign-from")
    us.inside.message("j@alpha.lab", "inward")
    us.bounced("inward")
    us.inside.message("j@raw.lab", "own")
    raw.expect_stanza("own")
    assert [e.get("id") for _, e in raw.stanzas if e.get("id") in ("forged", "inward")] == []


# ---- the log -------------------------------------------------------------------------------------

LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (error|warn|notice|info|debug|trace) [a-z0-9.\-]+"
                  r"( [a-z_0-9]+=(\"([^\"\\]|\\.)*\"|[^\s\"=]*))*")
FORGED = "2026-01-01T00:00:00.000Z info forged.line a=1\u0085\u009b31m\u202e\u2066\U000e0001"
EVIL, RAW_EVIL = "x&#13;&#10;&#9;" + FORGED, "x\r\n" + FORGED


def _evil_header(us, where):
    s = dial(us.address, None, None)
    a = {"from": "raw.lab", "to": "alpha.lab", "id": "1", "xml:lang": "en", "version": "1.0"}
    a[where] = EVIL
    s.send(f"<stream:stream xmlns='jabber:server' xmlns:stream='{STREAM}'"
           + "".join(f" {k}='{v}'" for k, v in a.items()) + ">")
    return s


def _evil_dialback(us, kind, where):
    s = dial(us.address, None, "alpha.lab")
    a = {"from": "raw.lab", "to": "alpha.lab", "id": "1"}
    a[where] = EVIL
    s.send(f"<db:{kind}" + "".join(f" {k}='{v}'" for k, v in a.items()) + ">cafe" + EVIL
           + f"</db:{kind}>")
    return s


def _evil_stanza(us, where):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    a = {"from": "a@raw.lab", "to": us.jid, "id": EVIL, "type": EVIL}
    a[where] = EVIL if where != "to" else f"{EVIL}@alpha.lab"
    s.send("<message" + "".join(f" {k}='{v}'" for k, v in a.items()) + "/>")
    return s


def _evil_error(us):
    s = dial(us.address, "raw.lab", "alpha.lab")
    s.send(f"<stream:error><{'undefined-condition'} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
           f"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{RAW_EVIL}</text></stream:error>")
    return s


ATTACKS = {
    **{f"header {w}": (lambda us, w=w: _evil_header(us, w))
       for w in ("from", "to", "id", "xml:lang", "version")},
    **{f"{k} {w}": (lambda us, k=k, w=w: _evil_dialback(us, k, w))
       for k in ("result", "verify") for w in ("from", "to", "id")},
    **{f"stanza {w}": (lambda us, w=w: _evil_stanza(us, w)) for w in ("from", "to", "id")},
    "stream error": _evil_error,
}


class Words(RemoteServer):
    """Says unpleasant things where the gateway quotes its peer."""

    def _greet(self, s, secure):
        s.read_header(timeout=600)
        s.send(f"<stream:stream xmlns='jabber:server' xmlns:stream='{STREAM}' id='{EVIL}' "
               f"from='{EVIL}' version='1.0'><stream:error><undefined-condition "
               "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text "
               f"xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{RAW_EVIL}</text></stream:error>")
        raise Closed("said it all")


@pytest.fixture
def trace_log(us):
    us.gateway.edit(r'level = "debug"', 'level = "trace"')
    since = us.gateway.log_size()
    us.gateway.signal(signal.SIGHUP)
    us.gateway.wait_log(r"config\.(re)?loaded", since)
    yield us.gateway.log_size()
    us.gateway.edit(r'level = "trace"', 'level = "debug"')
    us.gateway.signal(signal.SIGHUP)


def check_lines(us, since):
    with open(us.gateway.log_path, "rb") as f:
        f.seek(since)
        raw = f.read()
    assert all(32 <= b < 127 or b == 10 for b in raw), "raw bytes of a stranger in the log"
    for line in raw.decode().splitlines():
        assert LINE.fullmatch(line), line
        assert not line.split(" ")[2].startswith("forged"), line
        assert len(line) < 4096


def test_a_stranger_cannot_forge_lines(us, lab, trace_log):
    for attack in ATTACKS.values():
        s = attack(us)
        ended(s.sock, 0.1)
        s.close()
    lab.at_end(Words(lab.ip(HOSTS["words.lab"]), "words.lab"))
    us.inside.message("j@words.lab", "to-words", "hello")
    us.bounced("to-words")
    us.inside.message(f"{EVIL}@words.lab", EVIL, "hello")
    still_serves(us, "after-forging")
    check_lines(us, trace_log)


def test_no_key_and_no_body_in_the_log(us, world, trace_log):
    """At trace level, for every way that a secret takes through the gateway."""
    secret = "Zebra-In-Pyjamas"
    raw = world[1]["raw.lab"]
    keys = len(raw.keys)
    for sock in list(raw.open_sockets):  # so that a key is made while the log tells all
        sock.shutdown(socket.SHUT_RDWR)

    def no_stream():
        since = us.gateway.log_size()
        ask_books(us.gateway)
        return " out=0 " in us.gateway.wait_log(r"state\.streams ", since)

    labnet.wait_for(no_stream, what="the outgoing streams to end")
    us.inside.message("j@raw.lab", "out-secret", secret)
    raw.expect_stanza("out-secret")
    s = authorised(us.address, "raw.lab", "alpha.lab", tls=True)
    s.send(message("a@raw.lab", us.jid, "in-secret", secret))
    us.inside.expect(id="in-secret")
    s.ask_result("raw.lab", "alpha.lab", "feedfacefeedface")
    s.expect(RESULT)
    s.ask_verify("raw.lab", "alpha.lab", "9", "deadbeefdeadbeef")
    s.expect(VERIFY)
    us.inside.message("j@nowhere.lab", "bounced-secret", secret)
    us.bounced("bounced-secret")
    s.send(f"<message from='a@raw.lab'><body>{secret}</body></message>")
    s.read_error()
    s.close()
    us.gateway.wait_log("improper-addressing", trace_log)
    log = us.gateway.log(trace_log)
    hidden = [secret, "feedface", "deadbeef", us.secret, us.inside.secret] + [k for _, k in
                                                                            raw.keys]
    assert len(raw.keys) > keys and [h for h in hidden if h in log] == []
    check_lines(us, trace_log)


def test_the_log_cannot_be_flooded(us):
    """Beyond log.rate lines of one event a second are counted only."""
    def rate(old, new):
        us.gateway.edit(rf"rate = {old};", f"rate = {new};")
        since = us.gateway.log_size()
        us.gateway.signal(signal.SIGHUP)
        us.gateway.wait_log(r"config\.(re)?loaded", since)

    rate(0, 20)
    try:
        since = us.gateway.log_size()
        s = dial(us.address, None, "alpha.lab")
        s.send("<db:result from='raw.lab' to='alpha.lab' type='valid'/>" * 3000)
        began = time.monotonic()
        s.ask_verify("raw.lab", "alpha.lab", "1", "cafe")
        s.expect(VERIFY)
        seconds = int(time.monotonic() - began) + 2
        assert us.gateway.log(since).count("dialback.unasked") <= 20 * seconds
        labnet.wait_for(lambda: s.send("<db:result from='raw.lab' to='alpha.lab' type='valid'/>")
                        or "log.suppressed of=dialback.unasked" in us.gateway.log(since), 3)
        s.close()
    finally:
        rate(20, 0)
