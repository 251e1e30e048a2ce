"""Federation with real servers: every server, every mode it can do, whoever speaks first.

One laboratory per combination. Each leaves a line in matrix.txt beside the laboratories.
"""
import re
import signal

import labnet
import pytest
from actors import InsideUser, canonical
from conftest import RUN_DIR, new_lab
from labnet import MODES, Net
from payloads import ON_STANZA, PAYLOADS, big_body
from remotes import REMOTES

CASES = [(r, mode, first) for r in REMOTES for mode in MODES for first in ("we", "they")]
GIVE_UP = 6  # faults; each may be a long wait
MATRIX = RUN_DIR / "matrix.txt"


@pytest.fixture(scope="module", autouse=True)
def matrix():
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    MATRIX.write_text(f"{'server':9} {'mode':13} {'first':5} {'wire':8} cases\n")


class Stack:
    """alpha.lab with its gateway, and one real server."""

    def __init__(self, lab, remote, mode):
        self.lab, self.remote, self.mode = lab, remote, mode
        remote.zone(lab, "alpha.lab", Net.ALPHA)
        self.server = remote.start(lab, mode)
        lab.router("alpha-router", Net.ALPHA_LINK, "alpha.lab")
        secret = lab.secret("alpha.lab-im").read_text().strip()
        self.romeo = lab.at_end(InsideUser(lab.ip(Net.ALPHA_LINK), "alpha.lab", secret))
        self.gateway = lab.gateway("alpha-gateway", "alpha.lab", Net.ALPHA, Net.ALPHA_LINK,
                                   mode=mode, peers=[{"domain": remote.domain, "policy": "allow"}])
        self.juliet = lab.at_end(remote.user(lab))
        self.capture = lab.capture("federation")
        self.count = 0
        self.notes = []  # for the matrix

    def ident(self, what):
        self.count += 1
        return f"{what}-{self.count}"

    def ways(self):
        """(name, sender, receiver) of both directions."""
        return [("out", self.romeo, self.juliet), ("in", self.juliet, self.romeo)]


def message(stack, way, sender, receiver):
    ident = stack.ident(f"first-{way}")
    sender.send(sender.stanza("message", receiver.jid, ident, "<body>words</body>", "chat"))
    got = receiver.expect("message", id=ident)
    assert (got.get("from"), got.get("to"), got.body) == (sender.jid, receiver.jid, "words"), got


def subscription(stack, way, sender, receiver):
    """With another inside user for each way, so that neither is on the roster yet."""
    friend = f"friend-{way}@{stack.romeo.domain}"
    bare = {stack.romeo: friend, stack.juliet: stack.juliet.bare}
    for kind, a, b in (("subscribe", sender, receiver), ("subscribed", receiver, sender)):
        a.send(a.stanza("presence", bare[b], stack.ident(kind), type_=kind, sender=bare[a]))
        if kind == "subscribed" and way == "in" and not stack.remote.delivers_subscribed:
            b.wait(lambda user=b: roster_says(user, friend), 10, "the roster to change")
            continue
        got = b.expect("presence", type=kind, from_=bare[a])
        assert got.get("to").split("/")[0] == bare[b], got


def roster_says(user, jid):
    """Whether a roster push told that the subscription to jid stands."""
    return any(item.get("jid") == jid and item.get("subscription") in ("to", "both")
               for s in user.stanzas if s.kind == "iq" for query in s.element for item in query)


def iq(stack, way, sender, receiver):
    ident = stack.ident("iq")
    ask, answer = "<q xmlns='urn:example:ask'/>", "<q xmlns='urn:example:ask' said='yes'/>"
    sender.send(sender.stanza("iq", receiver.jid, ident, ask, "get"))
    got = receiver.expect("iq", type="get", id=ident, from_=sender.jid)
    assert [c.tag for c in got.element] == ["{urn:example:ask}q"], got
    receiver.send(receiver.stanza("iq", sender.jid, ident, answer, "result"))
    got = sender.expect("iq", type="result", id=ident, from_=receiver.jid)
    assert [(c.tag, c.get("said")) for c in got.element] == [("{urn:example:ask}q", "yes")], got


def unknown_user(stack, way, sender, receiver):
    """The one side's server refuses; the other side's user hears of it."""
    ident, nobody = stack.ident(f"nobody-{way}"), f"nobody@{receiver.domain}"
    sender.send(sender.stanza("message", nobody, ident, "<body>hello?</body>", "chat"))
    if way == "in":
        assert receiver.expect("message", id=ident).get("to") == nobody
        receiver.send(receiver.stanza(
            "message", sender.jid, ident, "<error type='cancel'><item-not-found "
            "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", "error", sender=nobody))
    got = sender.expect("message", type="error", id=ident, from_=nobody)
    expected = stack.remote.unknown_user if way == "out" else "item-not-found"
    assert got.condition == expected, got


def sacrifice(stack, sender, receiver):
    """One stanza longer than what jabberd2 reads at once; its stream is lost with it, or not."""
    ident, since = stack.ident("sacrifice"), stack.gateway.log_size()
    sender.send(sender.stanza("message", receiver.jid, ident, f"<body>{'x' * 3000}</body>"))

    def over():
        if re.search(r"s2s\.closed .*dir=out", stack.gateway.log(since)):
            stack.notes.append("one stream lost to the server's TLS fault")
            return True
        return any(s.get("id") == ident for s in receiver.stanzas)

    labnet.wait_for(over, what="the stanza or the stream to be gone")


def large(stack, way, sender, receiver):
    if way == "out" and stack.mode != "no-tls" and stack.remote.breaks_tls_once:
        sacrifice(stack, sender, receiver)
    ident, body = stack.ident(f"large-{way}"), big_body()
    sender.send(sender.stanza("message", receiver.jid, ident, f"<body>{body}</body>", "chat"))
    assert receiver.expect("message", id=ident, timeout=20).body == body, "the body is another"


def payload(name):
    def case(stack, way, sender, receiver):
        ident = stack.ident(f"payload-{way}")
        text = sender.stanza("message", receiver.jid, ident, PAYLOADS[name], "chat",
                             extra=ON_STANZA.get(name, ""))
        sender.send(text)
        got = receiver.expect("message", id=ident)
        sent = type(got)(text.encode(), sender.content, sender.cutter.header)
        lang = way not in stack.remote.stamps_lang or name in ON_STANZA
        rules = {"order": not stack.remote.reorders, "lang": lang,
                 "references": stack.remote.keeps_references}
        assert canonical(got, **rules) == canonical(sent, **rules), f"sent {text}\ngot {got}"
    return case


STEPS = {"message": message, "subscription": subscription, "iq": iq, "unknown user": unknown_user,
         "200 KiB": large, **{name: payload(name) for name in PAYLOADS}, "message again": message}


def run(stack, first):
    """Every step in both directions; what went wrong, as (step, what)."""
    faults = []
    for name, step in STEPS.items():
        ways = stack.ways() if first == "we" else stack.ways()[::-1]
        for way, sender, receiver in ways:
            try:
                step(stack, way, sender, receiver)
            except (AssertionError, labnet.LabError) as e:
                faults.append((f"{name}, {way}", str(e)))
                if len(faults) == GIVE_UP:
                    return faults
    return faults


def wire(stack, faults):
    """Reads from the packets what the connections were; the mode's promise is checked."""
    stack.capture.stop()
    seen = stack.capture.conversations()
    text = ",".join(sorted({c.tls or "clear" for c in seen}))
    ours = {c.tls is None for c in seen}
    if stack.mode == "no-tls" and ours != {True} or stack.mode != "no-tls" and ours != {False}:
        faults.append(("wire", f"{stack.mode}, but the connections were {text}"))
    return text


@pytest.mark.parametrize("server,mode,first", CASES, ids=["-".join(c) for c in CASES])
def test_federation(server, mode, first):
    remote = REMOTES[server]
    if not remote.usable():
        pytest.skip(f"{server} is not installed, or needs root")
    with new_lab(f"matrix/{server}-{mode}-{first}") as lab:
        stack = Stack(lab, remote, mode)
        faults = run(stack, first)
        seen = wire(stack, faults)
        balance = books(stack.gateway)
    total = 2 * len(STEPS)
    bad = len([f for f in faults if f[0] != "wire"])
    notes = [f"FAILED {name}" for name, _ in faults] + stack.notes
    with open(MATRIX, "a", encoding="utf-8") as f:
        f.write(f"{server:9} {mode:13} {first:5} {seen:8} {total - bad}/{total}"
                f"{''.join('; ' + n for n in notes)}\n")
    assert not faults, "\n".join(f"{name}: {what}" for name, what in faults)
    assert balance == [], balance


def books(gateway):
    """The lines of the gateway's books that do not balance."""
    since = gateway.log_size()
    gateway.signal(signal.SIGUSR2)
    gateway.wait_log(r"state\.stanzas", since)
    return [line for line in gateway.log(since).splitlines()
            if re.search(r"state\.stanzas\b", line) and "balance=ok" not in line]
