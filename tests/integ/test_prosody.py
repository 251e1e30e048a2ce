"""Federation with a real Prosody, in every mode, whoever speaks first; then the packets."""
import re
from types import SimpleNamespace

import labnet
import prosody
import pytest
from conftest import Inside, new_lab
from labnet import MODES, Net

CASES = [(mode, first) for mode in MODES for first in ("we", "they")]
BURST = 50


@pytest.fixture(scope="module", params=CASES, ids=["-".join(c) + "-first" for c in CASES])
def stack(request):
    mode, first = request.param
    with new_lab(f"prosody/{mode}-{first}-first") as lab:
        lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)],
                 "prosody.lab": [(Net.PROSODY, labnet.S2S, 10)]})
        prosody.start(lab, encryption=mode == "tls-required")
        us = Inside(lab, mode=mode, peers=[{"domain": "prosody.lab", "policy": "allow"}])
        capture = lab.capture("federation")
        juliet = prosody.Client(lab.ip(Net.PROSODY), "prosody.lab", "juliet")
        yield SimpleNamespace(lab=lab, us=us, romeo=us.user, juliet=juliet, capture=capture,
                              mode=mode, first=first)
        juliet.close()


def out(stack, ident, body="soft, what light"):
    stack.romeo.message(stack.juliet.jid, ident, body)
    got = stack.juliet.expect("message", id=ident, from_=stack.romeo.jid)
    assert next(c.text for c in got if c.tag.endswith("}body")) == body


def back(stack, ident, body="wherefore art thou"):
    stack.juliet.message(stack.romeo.jid, ident, body)
    got = stack.romeo.expect(kind="message", id=ident)
    assert (got["from"], got["body"]) == (stack.juliet.jid, body)


def test_first_message_and_answer(stack):
    steps = [out, back] if stack.first == "we" else [back, out]
    for i, step in enumerate(steps):
        step(stack, f"first-{i}")


def test_text_arrives_unchanged(stack):
    text = "<&> \"quoted\" 'single' äöü \u2713 \U0001f511"
    stack.romeo.message(stack.juliet.jid, "text-out", text)
    got = stack.juliet.expect("message", id="text-out")
    assert next(c.text for c in got if c.tag.endswith("}body")) == text
    stack.juliet.send(f"<message to='{stack.romeo.jid}' id='text-back' type='chat'><body>"
                      "&lt;&amp;&gt; \"quoted\" 'single' äöü \u2713 \U0001f511</body></message>")
    assert stack.romeo.expect(kind="message", id="text-back")["body"] == text


def test_presence_both_ways(stack):
    stack.romeo.command(f"presence {stack.juliet.bare} subscribe")
    stack.juliet.expect("presence", type="subscribe", from_=stack.romeo.bare)
    stack.romeo.command(f"presence {stack.juliet.jid} available")
    stack.juliet.expect("presence", type=None, from_=stack.romeo.jid)
    stack.juliet.send(f"<presence to='{stack.romeo.bare}' type='subscribe'/>")
    stack.romeo.expect(kind="presence", type="subscribe", **{"from": stack.juliet.bare})
    stack.juliet.send(f"<presence to='{stack.romeo.jid}'/>")
    stack.romeo.expect(kind="presence", type=None, **{"from": stack.juliet.jid})


def test_ping_both_ways(stack):
    stack.romeo.command("ping prosody.lab ping-out")
    stack.romeo.expect(kind="iq", type="result", id="ping-out")
    stack.juliet.send(f"<iq type='get' id='ping-back' to='{stack.romeo.jid}'>"
                      "<ping xmlns='urn:xmpp:ping'/></iq>")
    stack.juliet.expect("iq", type="result", id="ping-back", from_=stack.romeo.jid)


def test_errors_come_back(stack):
    stack.romeo.message("nobody@prosody.lab", "lost-out", "hello?")
    error = stack.romeo.expect(kind="message", type="error", id="lost-out")
    assert error["condition"] == "service-unavailable"
    assert error["from"] == "nobody@prosody.lab"
    stack.juliet.send(f"<iq type='get' id='lost-back' to='{stack.romeo.jid}'>"
                      "<query xmlns='urn:example:unknown'/></iq>")
    got = stack.juliet.expect("iq", type="error", id="lost-back", from_=stack.romeo.jid)
    assert any(c.tag.endswith("}service-unavailable") for e in got for c in e)


def test_fifty_in_order_both_ways(stack):
    for i in range(BURST):
        stack.romeo.message(stack.juliet.jid, f"burst-out-{i}", f"line {i}")
        stack.juliet.message(stack.romeo.jid, f"burst-back-{i}", f"line {i}")
    stack.juliet.expect("message", id=f"burst-out-{BURST - 1}")
    stack.romeo.expect(kind="message", id=f"burst-back-{BURST - 1}")
    there = [e.get("id") for e in stack.juliet.stanzas if (e.get("id") or "").startswith("burst")]
    here = [e["id"] for e in stack.romeo.seen(kind="message") if e["id"].startswith("burst")]
    assert there == [f"burst-out-{i}" for i in range(BURST)]
    assert here == [f"burst-back-{i}" for i in range(BURST)]


# ---- what an independent dissector saw ---------------------------------------------------------

WORD = re.compile(r"^\s+(STREAM(?: END)?|FEATURES|STARTTLS|REQUIRED|PROCEED)\b|"
                  r"Handshake Protocol: (Client Hello)")


def dissect(path):
    """TCP stream -> (destination address of its SYN, words in the order of the wire)."""
    text = "\n".join(labnet.tshark(path, "-V", "-O", "ip,tcp,xmpp,tls", "-Y", "tcp"))
    streams = {}
    for frame in re.split(r"^Frame \d+:", text, flags=re.M)[1:]:
        number = int(re.search(r"\[Stream index: (\d+)\]", frame).group(1))
        to = re.search(r"Destination(?: Address)?: (127\.\d+\.\d+\.\d+)", frame).group(1)
        words = streams.setdefault(number, (to, []))[1]
        for line in frame.splitlines():
            m = WORD.search(line)
            if m:
                words.append(m.group(1) or m.group(2))
    return streams.values()


NEGOTIATION = {
    "tls-required": ["STREAM", "STREAM", "FEATURES", "STARTTLS", "REQUIRED", "STARTTLS", "PROCEED",
                     "Client Hello"],
    "tls-optional": ["STREAM", "STREAM", "FEATURES", "STARTTLS", "STARTTLS", "PROCEED",
                     "Client Hello"],
}


def test_packets(stack):
    """The last of its stack: the capture ends here."""
    stack.capture.stop()
    streams = list(dissect(stack.capture.path))
    inbound = [words for to, words in streams if to == stack.us.address]
    outbound = [words for to, words in streams if to == stack.lab.ip(Net.PROSODY)]
    assert inbound and outbound, streams
    conversations = stack.capture.conversations()
    assert len(conversations) == len(streams)
    if stack.mode == "no-tls":
        for words in inbound:
            assert "STARTTLS" not in words and "Client Hello" not in words, words
        for words in outbound:
            # Prosody offers it; we must not take it up.
            assert words.count("STARTTLS") <= 1 and "Client Hello" not in words, words
        assert not any(c.starttls_sent for c in conversations)
        assert any(b"burst-out-0" in c.sent for c in conversations)
        assert any(b"burst-back-0" in c.sent for c in conversations)
        return
    expected = NEGOTIATION[stack.mode]
    for words in inbound + outbound:
        assert words[:len(expected)] == expected
    for c in conversations:
        assert c.tls in ("TLSv1.2", "TLSv1.3") and c.application_data
        assert b"burst-" not in c.sent + c.received
        assert b"db:result" not in c.clear_sent and b"db:verify" not in c.clear_sent
