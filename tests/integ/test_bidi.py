"""Bidirectional streams (XEP-0288): one connection for both directions with a real Prosody, whoever
dials; the end of either side; a carrier that takes no more; peers that break the rules."""
import re
import signal
import socket

import labnet
import prosody
import pytest
from certified import (CertifiedServer, Organisation, client_context, dial_tls, external, logfmt,
                       srv)
from conftest import SHORT, Inside, new_lab
from labnet import Net, Timeout, wait_for
from peers import STREAMS, Closed, message
from pki import Identity

BIDI, FEATURE = "<bidi xmlns='urn:xmpp:bidi'/>", "{urn:xmpp:features:bidi}bidi"
LOCAL = "alpha.lab"


def streams(gateway, since=0):
    """Connections to and from other servers."""
    return re.findall(r" s2s\.(accepted|connected) ", gateway.log(since))


def quarantine(gateway, domain, since=0):
    return logfmt(gateway.wait_log(rf"s2s\.bidi\.quarantine .*peer={domain}\b", since))["reason"]


# ---- Prosody -------------------------------------------------------------------------------------

class Pair:
    """Prosody, and we."""

    def __init__(self, lab):
        self.lab = lab
        lab.dns({LOCAL: [(Net.ALPHA, labnet.S2S, 10)],
                 "prosody.lab": [(Net.PROSODY, labnet.S2S, 10)]})
        self.prosody = self.juliet = None
        self.start_prosody()
        self.us = Inside(lab, mode="tls-required", extra="bidi = true;\n",
                         peers=[{"domain": "prosody.lab", "policy": "allow"}])
        self.gateway, self.romeo = self.us.gateway, self.us.user

    def start_prosody(self):
        self.prosody = prosody.start(self.lab, encryption=True, secure_auth=True,
                                     more='  modules_enabled = { "s2s_bidi" }\n')
        self.juliet = prosody.Client(self.lab.ip(Net.PROSODY), "prosody.lab", "juliet")

    def stop_prosody(self):
        self.juliet.close()
        self.prosody.stop()

    def restart_gateway(self):
        since = self.gateway.log_size()
        self.gateway.stop()
        self.gateway = self.us.gateway = self.lab.start_gateway(
            "alpha-gateway", self.lab.dir / "conf" / "alpha-gateway.conf", Net.ALPHA)
        self.gateway.wait_log(labnet.LOG_LINK_UP, since)

    def out(self, ident):
        self.romeo.message(self.juliet.jid, ident, "soft, what light")
        self.juliet.expect("message", id=ident, from_=self.romeo.jid)

    def back(self, ident):
        self.juliet.message(self.romeo.jid, ident, "wherefore art thou")
        self.romeo.expect(kind="message", id=ident)

    def pings(self, mark):
        self.romeo.command(f"ping prosody.lab {mark}-out")
        self.romeo.expect(kind="iq", type="result", id=f"{mark}-out")
        self.juliet.send(f"<iq type='get' id='{mark}-back' to='{self.romeo.jid}'>"
                         "<ping xmlns='urn:xmpp:ping'/></iq>")
        self.juliet.expect("iq", type="result", id=f"{mark}-back", from_=self.romeo.jid)


@pytest.fixture(scope="module", params=["we", "they"])
def pair(request):
    with new_lab(f"bidi/{request.param}-dial") as lab:
        made = Pair(lab)
        made.first = request.param
        yield made
        made.juliet.close()


def both_ways(pair, mark, first):
    """Everything goes, on one connection."""
    since = pair.gateway.log_size() if mark != "begin" else 0
    for step in (pair.out, pair.back) if first == "we" else (pair.back, pair.out):
        step(f"{mark}-{step.__name__}")
    pair.pings(mark)
    for i in range(50):
        pair.romeo.message(pair.juliet.jid, f"{mark}-o{i}", "line")
        pair.juliet.message(pair.romeo.jid, f"{mark}-b{i}", "line")
    pair.juliet.expect("message", id=f"{mark}-o49")
    pair.romeo.expect(kind="message", id=f"{mark}-b49")
    there = [e.get("id") for e in pair.juliet.stanzas]
    assert [i for i in there if re.fullmatch(f"{mark}-o\\d+", i or "")] == [
        f"{mark}-o{i}" for i in range(50)]
    assert streams(pair.gateway, since) == ["connected" if first == "we" else "accepted"]
    return since


def test_one_connection(pair):
    since = both_ways(pair, "begin", pair.first)
    log = pair.gateway.log(since)
    assert "mech=external" in log and " s2s.bidi " in log


def test_prosody_restarts(pair):
    """We dial anew, and that is the one connection again."""
    pair.stop_prosody()
    pair.gateway.wait_log(r"s2s\.closed .*peer=prosody\.lab")
    pair.start_prosody()
    both_ways(pair, "again", "we")


def test_gateway_restarts(pair):
    since = pair.gateway.log_size()
    pair.restart_gateway()
    pair.back("anew-first")
    assert streams(pair.gateway, since) == ["accepted"]
    pair.out("anew-second")
    pair.pings("anew")
    assert streams(pair.gateway, since) == ["accepted"]


# ---- peers of our making -------------------------------------------------------------------------

class BidiServer(CertifiedServer):
    """Offers bidi behind TLS. on_bidi: "take" it, or a stream error as an answer to it."""

    def __init__(self, *args, on_bidi="take", **kw):
        self.on_bidi, self.bidi = on_bidi, []
        super().__init__(*args, **kw)

    def _features(self, s):
        more = "<bidi xmlns='urn:xmpp:features:bidi'/>" if s.secure and not s.mechanism else ""
        return super()._features(s) + more

    def _element(self, s, peer, element):
        if element.tag != "{urn:xmpp:bidi}bidi":
            super()._element(s, peer, element)
            return
        self.note(self.bidi, s)
        if self.on_bidi != "take":
            s.send(f"<stream:error><{self.on_bidi} xmlns='{STREAMS}'/></stream:error>"
                   "</stream:stream>")
            raise Closed("what is that?")

    def was_bidi(self):
        """Of each stream, whether it was asked for."""
        return [s in self.bidi for _, s in self.streams]


SERVERS = {"takes.lab": {}, "baffled.lab": {"on_bidi": "unsupported-stanza-type"},
           "forges.lab": {}, "objects.lab": {}, "slow.lab": {}, "off.lab": {}, "leaves.lab": {},
           "single.lab": {"offers": ("external",), "limits": "<max-bytes>10000</max-bytes>"}}
UNREACHED = "lossy.lab"  # it dials, and nobody listens there


class World(Organisation):
    def __init__(self, lab):
        self.own, self.servers, zone = {}, {}, []
        for i, (domain, settings) in enumerate(SERVERS.items()):
            self.own[domain] = identity = Identity(*lab.certificate(domain))
            self.servers[domain] = lab.at_end(BidiServer(lab.ip(60 + i), identity, **settings))
            zone += srv(lab, domain, (60 + i, labnet.S2S, 10, False))
        self.own[UNREACHED] = Identity(*lab.certificate(UNREACHED))
        lab.dns({}, zone + srv(lab, UNREACHED, (59, labnet.S2S, 10, False)))
        super().__init__(lab, mode="tls-required", timeouts={**SHORT, "queue": "20s"},
                         limits={"queue_bytes": "16M", "queue_stanzas": 1000},
                         extra="bidi = true;\n",
                         peers=[{"domain": "*", "policy": "allow"},
                                {"domain": "off.lab", "bidi": False}])

    def dial(self, domain, to=LOCAL):
        return dial_tls(self.address, domain, to, client_context(self.own[domain]))

    def carrier(self, domain, to=LOCAL):
        """A proven stream of the peer that takes stanzas back."""
        s = self.dial(domain, to)
        assert s.features.find(FEATURE) is not None
        s.send(BIDI)
        external(s, domain, to)
        assert s.features.find(FEATURE) is None
        s.send(message(f"j@{domain}", f"romeo@{to}/lab", f"hello-{domain}"))
        self.user.expect("message", id=f"hello-{domain}")
        return s

    def peer_state(self, domain):
        """What a dump says of a peer."""
        since = self.gateway.log_size()
        self.gateway.signal(signal.SIGUSR2)
        return logfmt(self.gateway.wait_log(rf"state\.peer .*peer={re.escape(domain)} ", since))

    def back(self, s, domain, ident):
        """A stanza of ours comes on that stream."""
        self.send(f"j@{domain}", ident)
        assert s.read().get("id") == ident


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


def test_stanzas_come_in_on_a_stream_of_ours(world):
    server = world.servers["takes.lab"]
    world.send("j@takes.lab", "go")
    server.expect_stanza("go")
    (s,) = server.bidi
    s.send(message("j@takes.lab", "romeo@alpha.lab/lab", "come"))
    world.user.expect("message", id="come")
    assert server.was_bidi() == [True]
    assert not re.search(r"s2s\.accepted .*\n.*pair=alpha\.lab:takes\.lab", world.gateway.log())


def test_stanzas_go_back_on_a_stream_of_theirs(world):
    s = world.carrier("leaves.lab")
    for i in range(20):
        world.back(s, "leaves.lab", f"back-{i}")
    assert world.servers["leaves.lab"].streams == []
    s.send("</stream:stream>")
    s.expect_end()
    s.close()
    world.send("j@leaves.lab", "after")
    world.servers["leaves.lab"].expect_stanza("after")


def test_a_stream_of_theirs_for_a_domain_with_its_own(world):
    """To a server without dialback each local domain has a stream of its own; the carrier of one
    comes and goes whatever becomes of the others."""
    domain, to = "single.lab", "beta.lab"
    server, gateway = world.servers[domain], world.gateway

    def stands(from_):
        """A stream of ours, on which nothing was sent, since the peer takes no stanza so large."""
        world.send(f"j@{domain}", f"large-{from_}", from_=f"romeo@{from_}", body="x" * 11000)
        assert world.bounce(f"large-{from_}")[0] == "policy-violation"
        return server.streams[-1][1]

    def ends(stream):
        since = gateway.log_size()
        stream.send("</stream:stream>")
        gateway.wait_log(rf"s2s\.closed .*peer={domain} ", since)

    shared = stands(LOCAL)
    ends(stands(to))
    s = world.carrier(domain, to)
    world.send(f"j@{domain}", "carried", from_=f"romeo@{to}")
    assert s.read().get("id") == "carried"
    ends(shared)
    ends(s)
    s.close()
    stands(LOCAL)
    world.send(f"j@{domain}", "not-carried", from_=f"romeo@{to}")
    server.expect_stanza("not-carried")


def test_not_before_it_is_proven(world):
    """Asked for and not authenticated: what we have to say goes the other way."""
    s = world.dial("takes.lab")
    s.send(BIDI)
    world.send("j@takes.lab", "unproven")
    world.servers["takes.lab"].expect_stanza("unproven")
    s.close()


def test_not_where_it_is_off(world):
    s = world.dial("off.lab")
    assert s.features.find(FEATURE) is None
    world.send("j@off.lab", "one-way")
    world.servers["off.lab"].expect_stanza("one-way")
    assert world.servers["off.lab"].was_bidi() == [False]
    s.send(BIDI)
    assert s.read_error() == "unsupported-stanza-type"


# ---- a carrier that takes no more ----------------------------------------------------------------

def test_what_it_does_not_take_waits(world):
    """More than kernel and stream hold: it waits, in order, and no second stream is made."""
    count, body = 400, "x" * 20000
    s = world.carrier("slow.lab")
    s.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    for i in range(count):
        world.send("j@slow.lab", f"slow-{i}", body=body)
    s.send(message("j@slow.lab", "romeo@alpha.lab/lab", "slow-in"))  # it is read all the same
    world.user.expect("message", id="slow-in")
    wait_for(lambda: int(world.peer_state("slow.lab")["queued"]) > 0, what="something to wait")
    assert world.servers["slow.lab"].streams == []
    got = [s.read().get("id") for _ in range(count)]
    bounced = {e.get("id") for e in list(world.user.stanzas) if e.get("type") == "error"}
    assert got == [f"slow-{i}" for i in range(count)], bounced
    assert world.servers["slow.lab"].streams == []
    s.close()


# ---- quarantine ----------------------------------------------------------------------------------

def test_a_forger(world):
    """Stanzas of a pair that is not proven, on a stream of ours."""
    server, since = world.servers["forges.lab"], world.gateway.log_size()
    world.send("j@forges.lab", "one")
    server.expect_stanza("one")
    server.bidi[0].send(message("j@takes.lab", "romeo@alpha.lab/lab", "forged"))
    assert "has not been authorised" in quarantine(world.gateway, r"forges\.lab", since)
    world.send("j@forges.lab", "two")
    server.expect_stanza("two")
    assert server.was_bidi() == [True, False]
    assert world.received("forged") == []
    assert "has not been authorised" in world.peer_state("forges.lab")["no_bidi"]


def test_a_peer_that_does_not_know_what_it_offers(world):
    server, since = world.servers["baffled.lab"], world.gateway.log_size()
    world.send("j@baffled.lab", "through")
    server.expect_stanza("through")
    assert "<bidi/>" in quarantine(world.gateway, r"baffled\.lab", since)
    assert server.was_bidi() == [True, False]


def test_a_peer_that_objects(world):
    """It ends its stream by an error when a stanza comes back on it."""
    s, since = world.carrier("objects.lab"), world.gateway.log_size()
    world.back(s, "objects.lab", "unwelcome")
    s.send(f"<stream:error><not-authorized xmlns='{STREAMS}'/></stream:error></stream:stream>")
    assert "right after" in quarantine(world.gateway, r"objects\.lab", since)
    s.close()
    s = world.dial("objects.lab")
    assert s.features.find(FEATURE) is None
    world.send("j@objects.lab", "otherwise")
    world.servers["objects.lab"].expect_stanza("otherwise")
    assert world.servers["objects.lab"].was_bidi() == [False]
    s.close()


def comes_back(world, s, ident):
    """Whether a stanza of ours takes this stream."""
    world.send(f"j@{UNREACHED}", ident)
    try:
        return s.read(timeout=0.3) is not None
    except Timeout:
        return False


def test_a_peer_that_never_takes_what_comes_back(world):
    """Three streams in a row that end with stanzas unsent. After each, what it carried has a moment
    to arrive before another one carries."""
    begin = world.gateway.log_size()
    for i in range(3):
        s, since = world.carrier(UNREACHED), world.gateway.log_size()
        s.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wait_for(lambda: comes_back(world, s, f"probe-{i}"), what="a stanza to come back")
        for k in range(400):
            world.send(f"j@{UNREACHED}", f"lost-{i}-{k}", body="x" * 20000)
        wait_for(lambda: int(world.peer_state(UNREACHED)["queued"]) > 0, what="stanzas to wait")
        assert "s2s.bidi.quarantine" not in world.gateway.log(begin)
        s.close()
        world.gateway.wait_log(rf"s2s\.closed .*peer={UNREACHED} ", since)
    assert "was not taken" in quarantine(world.gateway, UNREACHED, begin)


# ---- a reload ------------------------------------------------------------------------------------

def test_switched_off(world):
    """The last: streams of both directions end with reset, and the next ones are of one way."""
    server = world.servers["takes.lab"]
    s = world.carrier("leaves.lab")
    world.send("j@takes.lab", "before")
    server.expect_stanza("before")
    world.gateway.edit("bidi = true;", "bidi = false;")
    world.reload()
    assert s.read_error() == "reset"
    world.send("j@takes.lab", "after-reload")
    server.expect_stanza("after-reload")
    assert server.was_bidi()[-1] is False
    s.close()
