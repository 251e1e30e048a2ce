"""A stanza that is plain goes through the gateway and the router as the very same bytes."""
import socket

import labnet
import pytest
from actors import InsideUser, Stanza, canonical
from conftest import new_lab
from labnet import Net, wait_for
from payloads import PAYLOADS, PLAIN, big_body
from peers import RemoteServer, authorised

RAW = 41
BIG = f"<body>{big_body()}</body>"
HEADER = {"xmlns": "jabber:server"}


class Stack:
    def __init__(self, lab):
        self.lab = lab
        lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "raw.lab": [(RAW, labnet.S2S, 10)]})
        self.remote = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        lab.router("alpha-router", Net.ALPHA_LINK, "alpha.lab")
        secret = lab.secret("alpha.lab-im").read_text().strip()
        self.romeo = lab.at_end(InsideUser(lab.ip(Net.ALPHA_LINK), "alpha.lab", secret))
        self.gateway = lab.gateway("alpha-gateway", "alpha.lab", Net.ALPHA, Net.ALPHA_LINK,
                                   mode="no-tls", peers=[{"domain": "raw.lab", "policy": "allow"}])
        self.stream = authorised(lab.ip(Net.ALPHA), "raw.lab", "alpha.lab")
        self.stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@pytest.fixture(scope="module")
def stack():
    with new_lab("test_bytes") as lab:
        made = Stack(lab)
        yield made
        made.stream.close()


def text(sender, receiver, ident, inner):
    return (f"<message from='{sender}' to='{receiver}' id='{ident}' type='chat'>{inner}"
            "</message>").encode()


CASES = {**{name: PAYLOADS[name] for name in PAYLOADS}, "200 KiB": BIG}
IDENTS = {name: name.replace(" ", "-").replace(":", "-") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_inwards(stack, name):
    sent = text("juliet@raw.lab/x", stack.romeo.jid, f"in-{IDENTS[name]}", CASES[name])
    stack.stream.send(sent)
    got = stack.romeo.expect("message", id=f"in-{IDENTS[name]}")
    check(name, sent, "jabber:server", got)


def test_inwards_in_pieces(stack):
    """However the bytes come."""
    for size in (1, 7, 100):
        sent = text("juliet@raw.lab/x", stack.romeo.jid, f"pieces-{size}", PAYLOADS["emoji"])
        for i in range(0, len(sent), size):
            stack.stream.send(sent[i:i + size])
        assert stack.romeo.expect("message", id=f"pieces-{size}").raw == sent


@pytest.mark.parametrize("name", CASES)
def test_outwards(stack, name):
    sent = text(stack.romeo.jid, "juliet@raw.lab/x", f"out-{IDENTS[name]}", CASES[name])
    stack.romeo.send(sent)
    begin = f"id='out-{IDENTS[name]}'".encode()

    def arrived():
        for _, stream in list(stack.remote.streams):
            at = stream.raw.find(begin)
            end = stream.raw.find(b"</message>", at)
            if at >= 0 and end >= 0:
                return stream.raw[stream.raw.rindex(b"<message", 0, at):end + len(b"</message>")]
        return None

    raw = wait_for(arrived, what="the stanza to arrive")
    check(name, sent, "jabber:component:accept", Stanza(raw, "jabber:server", HEADER))


def check(name, sent, content, got):
    if name in PLAIN or name == "200 KiB":
        assert got.raw == sent
        return
    assert canonical(got) == canonical(Stanza(sent, content, {"xmlns": content}))
    assert b"<![CDATA" not in got.raw
