"""What a reload leaves behind on links that did not change, who may speak for whom by their side
doors, and strangers at the connector: each of these was wrong once."""
import signal
import socket
import ssl
import time

import inside_s2s
import pytest
from actors import Ended
from inside_s2s import DOMAIN, INNER
from labnet import LINK, S2S, Net, wait_for
from linkworld import COMPONENT, EDGE, ROUTER, Side, World, dump
from manylinks import RAW, Site, link, message
from peers import RESULT, Closed, RemoteServer, XmlStream, stanza_error
from pki import Pki
from rawinside import RawInside

A, B = 61, 62
DOOR = 7411
ALL = [{"domain": "*", "policy": "allow"}]


@pytest.fixture
def new_site(fresh_lab):
    made = []

    def make(*args, **settings):
        made.append(Site(fresh_lab, *args, **settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


# ---- after a reload ------------------------------------------------------------------------------

def test_partners_after_a_reload(fresh_lab, new_site, monkeypatch):
    """The names of the partners outlive the snapshot that they came with."""
    monkeypatch.setenv("MALLOC_PERTURB_", "165")  # what is freed is not what it was
    links = [link(fresh_lab, "listed", A, component=None, partners=["raw.lab", "any.lab"])]
    site = new_site((A,), links)
    inside, = site.insides
    inside.wait_joined("raw.lab", "any.lab")
    links[0]["priority"] = 1  # a new link, of a snapshot that only it keeps
    site.relink(links)
    inside.wait(lambda: inside.streams >= 4, 20, "the streams of the new link")
    for turn in range(3):
        since = site.relink(links, limits={"hold_time": f"{turn + 2}s"})
        ups = inside.streams
        for stream in list(inside.live):
            stream.sock.shutdown(socket.SHUT_RDWR)
            stream.close()
        inside.wait(lambda: inside.streams >= ups + 2, 20, "both streams once more")
        for name in ("raw.lab", "any.lab"):
            site.gateway.wait_log(rf"link\.up .*link=listed/{name}", since)
        inside.say(message("romeo@alpha.lab/x", "juliet@raw.lab", f"turn-{turn}"), "raw.lab")
        site.raw.expect_stanza(f"turn-{turn}")


def test_a_longer_hold_time_while_the_link_is_down(fresh_lab, new_site):
    """What waits because of it bounces when that time is over, too."""
    links = [link(fresh_lab, "core", A)]
    site = new_site((A,), links, limits={"hold_time": "1s"})
    inside, = site.insides
    s = site.stream("alpha.lab")
    since = site.gateway.log_size()
    inside.away()
    site.gateway.wait_log(r"link\.down .*link=core ", since)
    s.send(message("juliet@raw.lab/x", "romeo@alpha.lab", "before"))
    assert stanza_error(site.raw.expect_stanza("before"))[0] == "remote-server-timeout"
    site.relink(links, limits={"hold_time": "4s"})
    s.send(message("juliet@raw.lab/x", "romeo@alpha.lab", "after"))
    assert stanza_error(site.raw.expect_stanza("after", 9))[0] == "remote-server-timeout"


class Certified:
    """The inside of an s2s link with auth tls, played by sockets."""

    def __init__(self, lab):
        self.lab, self.pki = lab, Pki(lab.dir / "pki")
        self.ours = self.pki.self_signed("g", "edge.alpha.lab")
        self.theirs = self.pki.self_signed("im", DOMAIN)
        self.nobody = self.pki.self_signed("nobody", "nobody.lab")
        self.store = self.pki.store("live", self.theirs)
        lab.dns({"raw.lab": [(RAW, S2S, 10)]})
        self.gateway = inside_s2s.gateway(lab, [{"auth": "tls", "store_file": self.store,
                                                 **self.ours.settings()}])
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))

    def connect(self):
        sock = socket.create_connection((self.lab.ip(INNER), S2S), timeout=5)
        return self.theirs.context(False).wrap_socket(sock)

    def stream(self, sock):
        s = XmlStream(sock)
        s.open(DOMAIN, "raw.lab")
        s.read_header()
        s.expect("{http://etherx.jabber.org/streams}features")
        return s

    def proven(self):
        s = self.stream(self.connect())
        s.ask_result(DOMAIN, "raw.lab")
        assert s.expect(RESULT).get("type") == "valid"
        return s

    def revoke(self):
        """Taken out of the file; the settings stay."""
        self.pki.store("live", self.nobody)
        since = self.gateway.log_size()
        self.gateway.signal(signal.SIGHUP)
        self.gateway.wait_log(r"config\.reloaded", since)
        return since


def over(s):
    """Closed by the other side, in whatever way."""
    try:
        while s.read(5) is not None:
            pass
        return True
    except Closed:
        return True


def test_certificate_taken_out_of_the_store_of_an_s2s_link(fresh_lab):
    """Its streams end with the reload, and a new one is refused."""
    c = Certified(fresh_lab)
    s = c.proven()
    s.send(message(f"romeo@{DOMAIN}/x", "juliet@raw.lab", "believed"))
    c.raw.expect_stanza("believed")
    silent = c.connect()  # TLS is up, the header still to come
    since = c.revoke()
    assert over(s)
    c.gateway.wait_log(r"link\.trust\.lost ", since)
    assert over(XmlStream(silent))
    with pytest.raises((Closed, ssl.SSLError, AssertionError)):
        c.proven()


def test_reload_that_takes_nothing_away_leaves_s2s_streams(fresh_lab):
    c = Certified(fresh_lab)
    s = c.proven()
    c.pki.store("live", c.nobody, c.theirs)
    since = c.gateway.log_size()
    c.gateway.signal(signal.SIGHUP)
    c.gateway.wait_log(r"config\.reloaded", since)
    s.send(message(f"romeo@{DOMAIN}/x", "juliet@raw.lab", "still"))
    c.raw.expect_stanza("still")


# ---- the firewall --------------------------------------------------------------------------------

@pytest.mark.parametrize("sender,reason", [("romeo@gamma.lab", "from-of-other-link"),
                                           ("ceo@any.lab", "foreign-from")])
def test_returned_stanzas_of_others(fresh_lab, new_site, sender, reason):
    """A router of jabberd2 says that it could not deliver: for its own domains only."""
    lab = fresh_lab
    secret = lab.secret("edge").read_text().strip()
    bad = lab.at_end(RawInside("jabberd2", (lab.ip(A), LINK), secret, "alpha.lab"))
    site = new_site((B,), [link(lab, "bad", A, domains=["alpha.lab"], protocol="jabberd2",
                                component="gw1", user="gateway"),
                           link(lab, "good", B, domains=["gamma.lab"])])
    bad.wait_up()

    def returned(to, ident):
        bad.raw(bad.wrapped(message("juliet@raw.lab/x", to, ident)).replace(
            "<route ", "<route error='404' ", 1))

    since = site.gateway.log_size()
    returned(sender, "forged")
    returned("romeo@alpha.lab", "own")
    assert site.raw.expect_stanza("own").get("type") == "error"
    assert not [e for _, e in site.raw.stanzas if e.get("id") == "forged"]
    site.gateway.wait_log(rf"stanza\.refused .*reason={reason} link=bad", since)


def test_a_route_to_the_door_of_a_link(fresh_lab, new_site):
    """A stranger's record must not aim us at the inside's door, nor where it is open on every
    address."""
    lab = fresh_lab
    pki = Pki(lab.dir / "pki")
    door = link(lab, "door", A, domains=["gamma.lab"], transport="accept", auth="tls", address=None,
                secret_file=None, listen=[f"0.0.0.0:{DOOR}"],
                store_file=pki.store("s", pki.self_signed("r", "im.lab")),
                **pki.self_signed("g", "edge.lab").settings())
    core = link(lab, "core", A, domains=["alpha.lab"])
    site = new_site((A,), [core, {k: v for k, v in door.items() if v is not None}],
                    peers=[*ALL, {"domain": "aimed.lab", "policy": "allow",
                                  "route": f"{lab.ip(Net.ALPHA)}:{DOOR}"}])
    inside, = site.insides
    inside.say(message("romeo@alpha.lab/x", "x@aimed.lab", "aimed"))
    inside.expect(id="aimed", type="error")
    assert "this address is the inside link" in site.gateway.log()


# ---- the connector's door ------------------------------------------------------------------------

HEADER = ("<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
          f"xmlns:stream='http://etherx.jabber.org/streams' to='{COMPONENT}'>")


class Patient(World):
    timeouts = {"auth": "60s", "close": "1s"}


def links_of(pki, lab):
    g, r = pki.self_signed("g", COMPONENT), pki.self_signed("r", ROUTER)
    return (Side({"auth": "tls", **g.settings(), "store_file": pki.store("of-r", r)}),
            Side({"auth": "tls", **r.settings(), "store_file": pki.store("of-g", g)})), g


def test_strangers_at_the_router(fresh_lab):
    """They connect, keep silent and stay: who has been one for longest makes room."""
    lab = fresh_lab
    sides, _ = links_of(Pki(lab.dir / "pki"), lab)
    w = Patient(lab, "dial", *sides)
    try:
        w.gateway.wait_log(rf"link\.up .*link={EDGE}")
        w.gateway.stop()
        crowd = [socket.create_connection((w.at, LINK), timeout=5) for _ in range(100)]
        since = w.router.log_size()
        w.start_gateway()
        w.router.wait_log(rf"link\.up .*link={EDGE}", since, timeout=5)
        for s in crowd:
            s.close()
    finally:
        w.close()


def test_a_stranger_raises_no_alarm_for_a_link_that_is_up(fresh_lab):
    lab = fresh_lab
    secret = {"secret_file": lab.secret("edge")}
    w = Patient(lab, "dial", Side(secret), Side(secret))
    try:
        w.gateway.wait_log(rf"link\.up .*link={EDGE}")
        s = XmlStream(socket.create_connection((w.at, LINK), timeout=5))
        s.send(HEADER)
        s.read_header()
        since = w.router.log_size()
        s.close()
        w.router.wait_log(r"link\.failed ", since)
        assert not dump(w.router, "alarm.standing")
    finally:
        w.close()


def test_revoked_between_header_and_handshake(fresh_lab):
    """Who was believed by the old store is not let in by it behind the reload."""
    lab = fresh_lab
    pki = Pki(lab.dir / "pki")
    sides, g = links_of(pki, lab)
    w = Patient(lab, "dial", *sides)
    try:
        w.gateway.wait_log(rf"link\.up .*link={EDGE}")
        w.gateway.stop()
        sock = g.context(False).wrap_socket(socket.create_connection((w.at, LINK), timeout=5))
        s = XmlStream(sock, "jabber:component:accept")
        s.send(HEADER)
        s.read_header()
        pki.store("of-g", pki.self_signed("nobody", "nobody.lab"))
        since = w.router.log_size()
        w.router.signal(signal.SIGHUP)
        w.router.wait_log(r"config\.reloaded", since)
        try:
            s.send("<handshake/>")
        except OSError:
            pass
        assert over(s)
        assert "link.up" not in w.router.log(since)
    finally:
        w.close()


def test_a_door_that_was_taken_is_opened_by_the_next_reload(fresh_lab, new_site):
    """Listening failed; the operator ends what was in the way and reloads."""
    lab = fresh_lab
    pki = Pki(lab.dir / "pki")
    core = link(lab, "core", A)
    accept = link(lab, "door", A, domains=["gamma.lab"], transport="accept", auth="tls",
                  address=None, secret_file=None, listen=[f"{lab.ip(B)}:{DOOR}"],
                  store_file=pki.store("s", pki.self_signed("r", "im.lab")),
                  **pki.self_signed("g", "edge.lab").settings())
    s2s = link(lab, "front", A, domains=["delta.lab"], protocol="s2s", component=None,
               secret_file=None, listen=[f"{lab.ip(B)}:{DOOR + 1}"])
    site = new_site((A,), [core], domains=[{"name": d} for d in ("alpha.lab", "gamma.lab",
                                                                 "delta.lab")])
    taken = []
    for port in (DOOR, DOOR + 1):
        taken.append(socket.socket())
        taken[-1].bind((lab.ip(B), port))
        taken[-1].listen()
    since = site.relink([core, accept, s2s])
    site.gateway.wait_log(r"link\.listen\.failed", since)
    for s in taken:
        s.close()
    since = site.relink([core, accept, s2s])
    for port in (DOOR, DOOR + 1):
        socket.create_connection((lab.ip(B), port), timeout=2).close()
    assert "link.listen.failed" not in site.gateway.log(since)


def test_a_replaced_connection_does_not_hold_up_the_end(fresh_lab, new_site):
    """It says nothing any more; the gateway is told to stop meanwhile."""
    lab = fresh_lab
    pki = Pki(lab.dir / "pki")
    theirs = pki.self_signed("r", "im.lab")
    at = (lab.ip(B), DOOR)
    door = link(lab, "door", A, domains=["gamma.lab"], transport="accept", auth="tls",
                address=None, secret_file=None, listen=[f"{at[0]}:{at[1]}"],
                store_file=pki.store("s", theirs), **pki.self_signed("g", "edge.lab").settings())
    site = new_site((A,), [link(lab, "core", A, domains=["alpha.lab"]), door],
                    timeouts={"close": "30s", "drain": "1s"})

    def join():
        sock = theirs.context(False).wrap_socket(socket.create_connection(at, timeout=5))
        s = XmlStream(sock, "jabber:component:accept")
        name = s.read_header()["to"]
        s.send("<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
               f"xmlns:stream='http://etherx.jabber.org/streams' from='{name}' id='x'>")
        assert s.read().tag.endswith("handshake")
        s.send("<handshake/>")
        return s

    since = site.gateway.log_size()
    first = join()
    site.gateway.wait_log(r"link\.up .*link=door", since)
    second = join()
    site.gateway.wait_log(r"link\.replaced ", since)
    site.gateway.signal(signal.SIGTERM)
    wait_for(lambda: not site.gateway.alive(), 6, "the gateway to end")
    first.close(), second.close()
