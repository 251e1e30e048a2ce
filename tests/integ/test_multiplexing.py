"""Several remote domains of one server on one stream (XEP-0220 2.1): only where that server says
that it reports dialback errors; a domain that it refuses there gets a stream of its own."""
import re
import signal

import ejabberd
import labnet
import prosody
import pytest
from actors import ServerUser
from conftest import Inside, new_lab
from labnet import Net, wait_for
from peers import NUMBERS, RESULT, STREAMS, Closed, RemoteServer, message

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

    def has(self, ident):
        return any(e.get("id") == ident for _, e in self.stanzas)

    def results(self):
        """For which domains it was asked db:result, oldest first."""
        return [to for kind, _, to, _ in self.asked if kind == "result"]

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

    def comes(self, server, domain):
        """Whether a stanza gets through now."""
        ident = f"knock-{next(NUMBERS)}"
        self.send(domain, ident)
        wait_for(lambda: self.user.seen(type="error", id=ident) or server.has(ident),
                 what="the fate of a stanza")
        return server.has(ident)

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
    assert server.results() == list(SERVERS[61])
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
    world.gateway.wait_log(r" s2s\.refused .*not-authorized", since)
    assert not world.user.seen(id="forged")


def test_without_errors_each_has_its_own(world):
    server = world.at[62]
    world.deliver(server, "plain.lab", "mute.lab")
    assert server.headers() == ["plain.lab", "mute.lab"]


def test_a_guest_that_is_not_there(world):
    """An error: it has a stream of its own, at once."""
    server = world.at[63]
    world.deliver(server, "host.lab", "refused.lab")
    world.deliver(server, "host.lab", "refused.lab", mark="again")
    assert server.headers() == ["host.lab", "refused.lab"]
    assert server.results() == ["host.lab", "refused.lab", "refused.lab"]


def test_a_guest_that_ends_the_stream(world):
    """A stream error: both begin anew, apart."""
    server = world.at[65]
    world.deliver(server, "rude.lab", "shy.lab")
    world.deliver(server, "rude.lab", "shy.lab", mark="again")
    assert server.headers() == ["rude.lab", "shy.lab", "rude.lab"]


def test_a_guest_that_is_invalid(world):
    """Its stanza is refused, as on any stream, which carries nothing more; then all goes apart."""
    server = world.at[64]
    world.deliver(server, "bad.lab")
    world.send("wrong.lab", "refused")
    assert world.us.bounce("refused")[0] == "internal-server-error"
    world.deliver(server, "bad.lab", mark="again")
    wait_for(lambda: world.comes(server, "wrong.lab"), what="its penalty to pass")
    assert server.headers() == ["bad.lab", "bad.lab", "wrong.lab"]


def test_rules_that_dialback_does_not_satisfy(world):
    """A domain that has to prove itself by a certificate does not join a stream in clear."""
    server = world.at[66]
    world.deliver(server, "strict.lab")
    world.send("lax.lab", "never")
    assert world.us.bounce("never")[0]
    assert server.headers()[0] == "strict.lab" and "lax.lab" in server.headers()
    assert "lax.lab" not in server.results()


def test_a_reload_that_parts_them(world):
    """Rules of the guest that dialback does not satisfy: the stream is reset, the other goes on."""
    server, since = world.at[67], world.gateway.log_size()
    world.deliver(server, "old.lab", "new.lab")
    assert server.headers() == ["old.lab"]
    world.gateway.edit('{ domain = "lax.lab";', '{ domain = "new.lab"; auth = ["external"];'
                       ' security_mode = "tls-required"; }, { domain = "lax.lab";')
    world.gateway.signal(signal.SIGHUP)
    world.gateway.wait_log(r"config\.reloaded", since)
    world.gateway.wait_log(r" s2s\.closed ", since)
    world.deliver(server, "old.lab", mark="later")
    assert server.headers() == ["old.lab", "old.lab"]
    world.send("new.lab", "denied")
    assert world.us.bounce("denied")[0]


# ---- real servers --------------------------------------------------------------------------------

SECOND, BURST = "second.lab", 30


def start_prosody(lab):
    cert, key = lab.certificate(SECOND)
    prosody.start(lab, users=("juliet", f"nurse@{SECOND}"), more=f'''
VirtualHost "{SECOND}"
  ssl = {{ certificate = "{cert}", key = "{key}" }}
''')


def start_ejabberd(lab):
    ejabberd.start(lab, more_domains=(SECOND,))


# How to start it, its first domain and host; whether its users register themselves and its SRV
# records are literal; whether it tells dialback errors.
REAL = {"prosody": (start_prosody, "prosody.lab", Net.PROSODY, False, False),
        "ejabberd": (start_ejabberd, "ejabberd.lab", ejabberd.HOST, True, True)}


@pytest.mark.parametrize("mode", ["no-tls", "tls-optional"])
@pytest.mark.parametrize("name", list(REAL))
def test_two_hosts_of_a_real_server(name, mode):
    start, domain, host, own_ways, shares = REAL[name]
    if name == "ejabberd" and not ejabberd.usable():
        pytest.skip("ejabberd cannot be started here")
    with new_lab(f"multiplexing/{name}-{mode}") as lab:
        lab.dns({LOCAL: [(Net.ALPHA, labnet.S2S, 10)], domain: [(host, labnet.S2S, 10)],
                 SECOND: [(host, labnet.S2S, 10)]},
                [ejabberd.srv_record(lab, LOCAL, Net.ALPHA)] if own_ways else [])
        start(lab)
        us = Inside(lab, mode=mode, peers=[{"domain": "*", "policy": "allow"}])
        users = [ServerUser(lab.ip(host), d, u, register=own_ways)
                 for d, u in ((domain, "juliet"), (SECOND, "nurse"))]
        for u in users:
            us.user.message(u.jid, f"first-{u.bare}", "words")
            u.expect("message", id=f"first-{u.bare}")
        for i in range(BURST):
            for u in users:
                us.user.message(u.jid, f"{u.bare}-{i}", "words")
        for u in users:
            for i in range(BURST):
                u.expect("message", id=f"{u.bare}-{i}")
            u.send(f"<message to='{us.user.jid}' id='back-{u.bare}'><body>words</body></message>")
            us.user.expect(kind="message", id=f"back-{u.bare}")
        made = re.findall(r" s2s\.(connected|shared) .*dir=out", us.gateway.log())
        assert made == ["connected", "shared" if shares else "connected"]
