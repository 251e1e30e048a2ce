"""Several remote domains of one server on one stream (XEP-0220 2.1): only where that server says
that it reports dialback errors; a domain that it refuses there gets a stream of its own."""
import re

import ejabberd
import labnet
import prosody
import pytest
from actors import ServerUser
from conftest import Inside, new_lab
from labnet import Net
from peers import ERROR, RESULT, STANZAS, STREAMS, Closed, RemoteServer, message

LOCAL = "alpha.lab"
# Each server by the number of its address, and the domains that it hosts.
SERVERS = {61: ("one.lab", "two.lab", "three.lab"), 62: ("plain.lab", "mute.lab"),
           63: ("host.lab", "refused.lab"), 64: ("bad.lab", "wrong.lab"),
           65: ("rude.lab", "shy.lab"), 66: ("strict.lab", "lax.lab"),
           67: ("old.lab", "new.lab")}
OTHER_PORT = {"elsewhere.lab": (61, labnet.S2S + 1)}


class Host(RemoteServer):
    """A server of several domains. `odd`: what it does about a db:result for a domain that is not
    of the stream's header: an error condition, "invalid", or None: like the others."""

    def __init__(self, *args, odd=None, errors=True, **kw):
        self.odd, self.errors = odd, errors
        super().__init__(*args, **kw)

    def _domain(self, s):
        return s.attrs["to"]

    def _features(self, s):
        features = super()._features(s)
        return features if self.errors else features.replace("<errors/>", "")

    def _dialback(self, s, element):
        guest = element.tag == RESULT and element.get("to") != s.attrs["to"]
        if guest and self.odd == "stream-error":
            s.send(f"<stream:error><host-unknown xmlns='{STREAMS}'/></stream:error>"
                   "</stream:stream>")
            raise Closed("who is that?")
        usual = self.result
        self.result = self.odd if guest and self.odd else usual
        super()._dialback(s, element)
        self.result = usual

    def headers(self):
        """For which domains its streams were opened, oldest first."""
        return [s.attrs.get("to") for _, s in self.streams]


class World:
    def __init__(self, lab):
        odd = {63: "item-not-found", 64: "invalid", 65: "stream-error"}
        self.at = {n: lab.at_end(Host(lab.ip(n), domains[0], odd=odd.get(n), errors=n != 62))
                   for n, domains in SERVERS.items()}
        self.elsewhere = lab.at_end(Host(lab.ip(61), "elsewhere.lab", port=labnet.S2S + 1))
        lab.dns({LOCAL: [(Net.ALPHA, labnet.S2S, 10)],
                 **{d: [(n, labnet.S2S, 10)] for n, ds in SERVERS.items() for d in ds},
                 **{d: [(*at, 10)] for d, at in OTHER_PORT.items()}})
        self.us = Inside(lab, mode="tls-optional", dialback_timeout="2s",
                         peers=[{"domain": "*", "policy": "allow"},
                                {"domain": "lax.lab", "minimum_tls": "1.3", "auth": ["external"],
                                 "security_mode": "tls-required"}])
        self.gateway, self.user = self.us.gateway, self.us.user

    def send(self, domain, ident):
        self.user.message(f"j@{domain}", ident, "words")

    def deliver(self, server, *domains, mark="m"):
        """One after the other: each waits until the one before is there."""
        for d in domains:
            self.send(d, f"{mark}-{d}")
            server.expect_stanza(f"{mark}-{d}")


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


def test_one_stream_for_all_domains(world):
    server, since = world.at[61], world.gateway.log_size()
    world.deliver(server, "one.lab", "two.lab", "three.lab")
    assert server.headers() == ["one.lab"]
    assert [to for kind, _, to, _ in server.asked if kind == "result"] == list(SERVERS[61])
    assert len(re.findall(r" s2s\.shared ", world.gateway.log(since))) == 2
    for i in range(40):
        for d in SERVERS[61]:
            world.send(d, f"row-{d}-{i}")
    for d in SERVERS[61]:
        server.expect_stanza(f"row-{d}-39")
    for d in SERVERS[61]:
        got = [e.get("id") for _, e in server.stanzas if e.get("id").startswith(f"row-{d}-")]
        assert got == [f"row-{d}-{i}" for i in range(40)]
    assert len(server.streams) == 1


def test_another_port_is_another_server(world):
    world.deliver(world.elsewhere, "elsewhere.lab")
    assert world.elsewhere.headers() == ["elsewhere.lab"]


def test_all_lose_it_and_find_a_new_one(world):
    """The server ends the stream; one is made again for all."""
    server = world.at[61]
    world.deliver(server, *SERVERS[61], mark="before")
    stream, since = server.streams[-1][1], world.gateway.log_size()
    stream.send("</stream:stream>")
    world.gateway.wait_log(r" s2s\.closed .*reason=peer-closed", since)
    count = len(server.streams)
    world.deliver(server, *reversed(SERVERS[61]), mark="after")
    assert server.headers()[count:] == ["three.lab"]


def test_stanzas_of_a_guest_may_not_come_back(world):
    """It is a stream of one direction for guests, too."""
    server, since = world.at[61], world.gateway.log_size()
    world.deliver(server, *SERVERS[61], mark="direction")
    server.streams[-1][1].send(message("j@two.lab", world.user.jid, "forged"))
    world.gateway.wait_log(r" s2s\.refused .*not-authorized|not-authorized.* s2s\.refused", since)
    assert not [e for e in list(world.user.stanzas) if e.get("id") == "forged"]


def test_without_errors_each_has_its_own(world):
    server = world.at[62]
    world.deliver(server, "plain.lab", "mute.lab")
    assert server.headers() == ["plain.lab", "mute.lab"]


@pytest.mark.parametrize("number", [63, 64, 65])
def test_a_guest_that_is_not_wanted(world, number):
    """An error: it has a stream of its own at once. invalid: its stanza is refused as on any stream,
    and the next one goes by its own. A stream error: both begin anew, apart."""
    server, (first, guest) = world.at[number], SERVERS[number]
    world.deliver(server, first)
    world.send(guest, f"try-{guest}")
    if server.odd == "invalid":
        assert world.us.bounce(f"try-{guest}")[0] == "internal-server-error"
        labnet.wait_for(lambda: answered(world, guest), what="the penalty to pass")
    else:
        server.expect_stanza(f"try-{guest}")
    world.deliver(server, first, guest, mark="again")
    assert server.headers()[:1] == [first] and guest in server.headers()
    assert server.headers().count(guest) == 1
    for to in server.headers():
        assert to in (first, guest)
    results = [(s, to) for s, to in server_results(server)]
    assert sum(to == guest for _, to in results) == 2  # as a guest, and on its own
    if server.odd == "item-not-found":
        assert server.headers() == [first, guest]


def server_results(server):
    return [(i, to) for i, (kind, _, to, _) in enumerate(server.asked) if kind == "result"] 


def answered(world, domain):
    """A stanza got through: the pair's back-off is over."""
    answered.n += 1
    ident = f"knock-{answered.n}"
    world.send(domain, ident)
    try:
        world.at[64].expect_stanza(ident, timeout=0.4)
        return True
    except labnet.Timeout:
        return False


answered.n = 0


def test_rules_that_dialback_does_not_satisfy(world):
    """A domain that has to prove itself by a certificate does not join a stream in clear."""
    server = world.at[66]
    world.deliver(server, "strict.lab")
    world.send("lax.lab", "never")
    assert world.us.bounce("never")[0]
    assert server.headers()[0] == "strict.lab" and "lax.lab" in server.headers()
    assert not [1 for kind, _, to, _ in server.asked if to == "lax.lab"]


def test_a_reload_that_parts_them(world):
    """Rules of the guest that dialback does not satisfy: the stream is reset, the other goes on."""
    server, since = world.at[67], world.gateway.log_size()
    world.deliver(server, "old.lab", "new.lab")
    assert server.headers() == ["old.lab"]
    world.gateway.edit('{ domain = "lax.lab";', '{ domain = "new.lab"; auth = ["external"];'
                       ' security_mode = "tls-required"; }, { domain = "lax.lab";')
    world.gateway.reload()
    world.gateway.wait_log(r" s2s\.closed ", since)
    world.deliver(server, "old.lab", mark="later")
    assert server.headers() == ["old.lab", "old.lab"]
    world.send("new.lab", "denied")
    assert world.us.bounce("denied")[0]


# ---- real servers --------------------------------------------------------------------------------

SECOND = "second.lab"


def start_prosody(lab):
    cert, key = lab.certificate(SECOND)
    prosody.start(lab, users=("juliet", f"nurse@{SECOND}"), more=f'''
VirtualHost "{SECOND}"
  ssl = {{ certificate = "{cert}", key = "{key}" }}
''')
    return "prosody.lab", Net.PROSODY, False


def start_ejabberd(lab):
    ejabberd.start(lab, more_domains=(SECOND,))
    return "ejabberd.lab", ejabberd.HOST, True


@pytest.mark.parametrize("mode", ["no-tls", "tls-optional"])
@pytest.mark.parametrize("start, usable", [(start_prosody, True), (start_ejabberd, None)],
                         ids=["prosody", "ejabberd"])
def test_two_hosts_of_a_real_server(start, usable, mode):
    if not (usable or ejabberd.usable()):
        pytest.skip("ejabberd cannot be started here")
    with new_lab(f"multiplexing/{start.__name__}-{mode}") as lab:
        name, host = ("prosody.lab", Net.PROSODY) if usable else ("ejabberd.lab", ejabberd.HOST)
        lab.dns({LOCAL: [(Net.ALPHA, labnet.S2S, 10)], name: [(host, labnet.S2S, 10)],
                 SECOND: [(host, labnet.S2S, 10)]},
                [] if usable else [ejabberd.srv_record(lab, LOCAL, Net.ALPHA)])
        _, _, register = start(lab)
        us = Inside(lab, mode=mode, peers=[{"domain": "*", "policy": "allow"}])
        users = [ServerUser(lab.ip(host), d, u, register=register)
                 for d, u in ((name, "juliet"), (SECOND, "nurse"))]
        for i in range(20):
            for u in users:
                us.user.message(u.jid, f"{u.jid}-{i}", "words")
        for u in users:
            for i in range(20):
                u.expect("message", id=f"{u.jid}-{i}")
        log = us.gateway.log()
        print(start.__name__, mode, re.findall(r" (s2s\.(?:connected|shared)[a-z.]*) ", log))
