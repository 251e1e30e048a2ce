"""What the gateway must refuse from a stranger: the exact stream error, nothing inside, a line in
the log, and everybody else is served on."""
import re

import labnet
import pytest
from conftest import Inside
from labnet import Net
from peers import (SERVER, STREAM, RemoteServer, XmlStream, authorised, dial, message,
                   stanza_error)

REMOTE, RAW = "raw.lab", 41


@pytest.fixture(scope="module")
def us(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], REMOTE: [(RAW, labnet.S2S, 10)],
             "other.lab": [(RAW, labnet.S2S, 10)]})
    made = Inside(lab, mode="tls-optional", peers=[{"domain": REMOTE, "policy": "allow"},
                                                   {"domain": "other.lab", "policy": "allow"}])
    made.remote = lab.at_end(RemoteServer(lab.ip(RAW), REMOTE))
    return made


def still_serves(us, ident):
    """A fresh honest stream gets a message through."""
    s = authorised(us.address, REMOTE, "alpha.lab")
    s.send(message(f"friend@{REMOTE}", us.user.jid, ident))
    us.user.expect(kind="message", id=ident)
    s.send("</stream:stream>")
    s.expect_end()
    s.close()


def refused(us, s, condition, ident):
    """The stream ends with this condition; it is logged; nothing with this id came in."""
    assert s.read_error() == condition
    s.close()
    us.gateway.wait_log(rf"\b{condition}\b", refused.since)
    still_serves(us, f"after-{ident}")
    assert us.user.seen(id=ident) == []
    assert us.gateway.alive()


@pytest.fixture(autouse=True)
def _mark(us):
    refused.since = us.gateway.log_size()


def header(**kw):
    values = {"ns": SERVER, "stream": STREAM, "to": "alpha.lab", "before": "<?xml version='1.0'?>",
              "from_": REMOTE}
    values.update(kw)
    to = f" to='{values['to']}'" if values["to"] else ""
    from_ = f" from='{values['from_']}'" if values["from_"] else ""
    return (f"{values['before']}<stream:stream xmlns='{values['ns']}' xmlns:stream="
            f"'{values['stream']}' xmlns:db='jabber:server:dialback'{from_}{to} version='1.0'>")


HEADERS = [
    ("unknown host", header(to="nowhere.lab"), "host-unknown"),
    ("client namespace", header(ns="jabber:client"), "invalid-namespace"),
    ("stream namespace", header(stream="http://example.org/streams"), "invalid-namespace"),
    ("other encoding", header(before="<?xml version='1.0' encoding='ISO-8859-1'?>"),
     "unsupported-encoding"),
    ("dtd", header(before="<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'b'>]>"),
     "restricted-xml"),
    ("comment before", header(before="<!-- hello -->"), "restricted-xml"),
    ("instruction before", header(before="<?xml version='1.0'?><?php echo 1 ?>"),
     "restricted-xml"),
    ("no xml", "GET / HTTP/1.1\r\nHost: alpha.lab\r\n\r\n", "not-well-formed"),
    ("endless header", "<stream:stream " + "a" * 20000, "policy-violation"),
    ("our own domain", header(from_="alpha.lab"), "invalid-from"),
]


@pytest.mark.parametrize("text,condition", [h[1:] for h in HEADERS], ids=[h[0] for h in HEADERS])
def test_header(us, text, condition):
    s = dial(us.address, None, None)
    s.send(text)
    s.read_header()
    refused(us, s, condition, "none")


# Whole elements that a stranger, who has proven nothing, sends after a proper header.
STRANGER = [
    ("not well-formed", "<message><body></message>", "not-well-formed"),
    ("unbound prefix", "<x:message id='bad'/>", "not-well-formed"),
    ("bad utf-8", b"<message id='bad'><body>\xff\xfe</body></message>", "not-well-formed"),
    ("comment", "<!-- hello -->", "restricted-xml"),
    ("instruction", "<?php echo 1 ?>", "restricted-xml"),
    ("entity", "<message id='bad'><body>&unknown;</body></message>", "restricted-xml"),
    ("stanza", message(f"evil@{REMOTE}", "romeo@alpha.lab", "bad"), "not-authorized"),
    ("oversized", f"<db:result from='{REMOTE}' to='alpha.lab'>{'a' * 9000}</db:result>",
     "policy-violation"),
    ("oversized tag", f"<db:result from='{REMOTE}' to='{'a' * 9000}", "policy-violation"),
]


@pytest.mark.parametrize("text,condition", [h[1:] for h in STRANGER],
                         ids=[h[0] for h in STRANGER])
def test_stranger(us, text, condition):
    s = dial(us.address, REMOTE, "alpha.lab")
    s.send(text)
    refused(us, s, condition, "bad")


DEEP = "<a>" * 200 + "</a>" * 200
MEMBER = [
    ("other domain", message("evil@other.lab", "romeo@alpha.lab", "bad"), "invalid-from"),
    ("our own domain", message("evil@alpha.lab", "romeo@alpha.lab", "bad"), "invalid-from"),
    ("no from", "<message to='romeo@alpha.lab' id='bad'><body>x</body></message>",
     "improper-addressing"),
    ("no to", f"<message from='evil@{REMOTE}' id='bad'><body>x</body></message>",
     "improper-addressing"),
    ("bad domain", message("evil@raw..lab", "romeo@alpha.lab", "bad"), "improper-addressing"),
    ("unknown element", "<command id='bad'/>", "unsupported-stanza-type"),
    ("too deep", f"<message from='evil@{REMOTE}' to='romeo@alpha.lab' id='bad'>{DEEP}</message>",
     "policy-violation"),
    ("too large", message(f"evil@{REMOTE}", "romeo@alpha.lab", "bad", "x" * 300000),
     "policy-violation"),
    ("not well-formed", f"<message from='evil@{REMOTE}' to='romeo@alpha.lab' id='bad'><b></a>",
     "not-well-formed"),
]


@pytest.mark.parametrize("text,condition", [h[1:] for h in MEMBER], ids=[h[0] for h in MEMBER])
def test_authorised_peer(us, text, condition):
    s = authorised(us.address, REMOTE, "alpha.lab")
    s.send(text)
    refused(us, s, condition, "bad")


def test_bad_local_part_is_a_stanza_error(us):
    """RFC 6120 8.3.3.8: the stream stays; the error goes back on the stream towards the sender."""
    s = authorised(us.address, REMOTE, "alpha.lab")
    s.send(message(f"friend@{REMOTE}", "ro meo@alpha.lab", "bad-local"))
    answer = us.remote.expect_stanza("bad-local")
    assert answer.get("type") == "error" and stanza_error(answer)[0] == "jid-malformed"
    s.send(message(f"friend@{REMOTE}", us.user.jid, "good-local"))
    us.user.expect(kind="message", id="good-local")
    assert us.user.seen(id="bad-local") == []
    s.close()


def test_clear_bytes_after_starttls(us):
    """What was sent before the handshake must not be taken for what came after it."""
    s = dial(us.address, REMOTE, "alpha.lab")
    s.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
           + message(f"evil@{REMOTE}", "romeo@alpha.lab", "injected"))
    try:
        while s.read() is not None:
            pass
    except Exception as e:  # the connection must end, how does not matter
        assert type(e).__name__ == "Closed", e
    s.close()
    still_serves(us, "after-injected")
    assert us.user.seen(id="injected") == []


def test_control_characters_do_not_forge_log_lines(us):
    s = dial(us.address, None, None)
    s.send(header(to="a&#10;2026-01-01T00:00:00.000Z info forged.line x=1"))
    s.read_header()
    assert s.read_error() in ("host-unknown", "improper-addressing")
    s.close()
    still_serves(us, "after-forged")
    assert not re.search(r"^\S+ info forged\.line", us.gateway.log(), re.M)


def test_a_stanza_byte_by_byte(us):
    s = authorised(us.address, REMOTE, "alpha.lab")
    for byte in message(f"friend@{REMOTE}", us.user.jid, "bytes").encode():
        s.send(bytes([byte]))
    us.user.expect(kind="message", id="bytes")
    s.close()


def test_many_connections_that_say_nothing(us):
    silent = [XmlStream(dial(us.address, None, None).sock) for _ in range(60)]
    still_serves(us, "among-the-silent")
    for s in silent:
        s.close()
