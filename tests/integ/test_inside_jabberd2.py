"""A real gateway before a real jabberd2, in the place of its s2s."""
import re
import signal
import time

import insides
import jabberd2
import labnet
import pytest
import twenty
from actors import Ended
from cable import Cable
from conftest import ALLOW_ALL, ask_books, gateways_of, new_lab
from inside_cases import (test_large_ones_in_a_row,  # noqa: F401
                          test_too_large_ends_its_own_stream, test_too_large_inwards_is_bounced,
                          test_too_large_outwards_is_bounced)
from inside_cases import DISCO, PING, way_of
from insides import CABLE, DOMAIN, PRIVATE, SECOND
from labnet import (LINK, LOG_LINK_UP, S2S, Net, gateway_conf, program, root_option, router_conf,
                    wait_for)
from linkworld import dump
from manylinks import Flow, numbers
from pki import Pki

pytestmark = pytest.mark.skipif(not jabberd2.usable(), reason="jabberd2 is not installed")

GHOST = f"ghost.{DOMAIN}"  # a local domain that nobody inside speaks for
HOLD = 3                   # seconds that a stanza waits for its domain
BURST = 20


@pytest.fixture(scope="module")
def office(lab):
    made = insides.Office(lab, insides.JABBERD2, limits={"hold_time": f"{HOLD}s"})
    yield made
    for part in ("c2s", "sm"):  # they would look for a router for long
        made.proc.parts[part].kill()


@pytest.fixture(scope="module")
def beta(office):
    return office.beta()


@pytest.fixture(scope="module")
def stranger(office):
    return office.user("stranger", PRIVATE)


@pytest.fixture(params=["played", "second gateway"])
def scene(office, beta, stranger, request):
    outside = office.raw if request.param == "played" else beta
    return office.scene(outside, stranger=stranger, delivers_subscribed=False)


@pytest.fixture
def clerk(office):
    """A part of the inside that says what it likes."""
    secret = office.lab.secret("edge").read_text().strip()
    part = jabberd2.Part(office.lab.ip(jabberd2.HOST), "clerk", secret)
    yield part
    part.close()


def seat(gateway):
    """Whether a gateway has the default route, and how many domains it knows of."""
    line, = dump(gateway, "state.link.router", link="core")
    return line["seat"], int(line["domains"])


def ask(user, to, ident, inner=PING):
    user.send(user.stanza("iq", to, ident, inner, "get"))


# ---- stanzas -------------------------------------------------------------------------------------

def test_twenty_checks(scene):
    twenty.assert_passes(scene)


def test_own_names(office):
    """What users ask is answered, under the gateway's own name and that of its seat; what sm asked
    "s2s" about when it came is not: it would list the gateway among its services."""
    romeo = office.romeo
    for edge in ("gw1", "s2s"):
        ask(romeo, edge, f"{edge}-ping")
        ask(romeo, edge, f"{edge}-disco", f"<query xmlns='{DISCO}'/>")
        ask(romeo, edge, f"{edge}-other", "<q xmlns='urn:example:other'/>")
        romeo.send(romeo.stanza("message", edge, f"{edge}-message", "<body>hello?</body>"))
        for what in ("ping", "disco"):
            assert romeo.expect("iq", id=f"{edge}-{what}", from_=edge).get("type") == "result"
        for kind, what in (("iq", "other"), ("message", "message")):
            got = romeo.expect(kind, id=f"{edge}-{what}", from_=edge)
            assert got.condition == "service-unavailable", got
    ask(romeo, DOMAIN, "services", "<query xmlns='http://jabber.org/protocol/disco#items'/>")
    assert b"gw1" not in romeo.expect("iq", id="services").raw


def test_foreign_senders_inside(office, clerk):
    """The router brings whatever anybody there says; none of it leaves, or comes back in."""
    since = office.gateway.log_size()
    for i, sender in enumerate(("thief@any.lab", "thief@clerk", "thief@private.lab", "clerk")):
        clerk.route("raw.lab", f"<message xmlns='jabber:client' from='{sender}' "
                               f"to='{office.raw.jid}' id='foreign-{i}'><body>x</body></message>")
    clerk.route("raw.lab", f"<message xmlns='jabber:client' from='{office.any.jid}' "
                           f"to='{office.romeo.jid}' id='foreign-in'><body>x</body></message>")
    wait_for(lambda: len(re.findall(r"stanza\.refused reason=foreign-from",
                                    office.gateway.log(since))) == 5, what="five refusals",
             detail=office.gateway.log_tail)
    twenty.not_seen(office.scene(office.raw), "foreign-in", office.romeo)
    assert not [i for i in twenty.ids(office.raw) if i.startswith("foreign")]
    assert "link.down" not in office.gateway.log(since)


RUBBISH = {
    "nothing": ("", ""),
    "text": ("hello", ""),
    "two stanzas": ("<message xmlns='jabber:client'/><message xmlns='jabber:client'/>", ""),
    "no stanza": ("<x xmlns='urn:example:x'/>", ""),
    "no addresses": ("<message xmlns='jabber:client' id='bare'><body>x</body></message>", ""),
    "another namespace": ("<message xmlns='jabber:server' from='romeo@inside.lab' "
                          "to='juliet@raw.lab'/>", ""),
    "bad address": ("<message xmlns='jabber:client' from='romeo@inside.lab' to='@@'/>", ""),
    "broadcast": ("<message xmlns='jabber:client' from='romeo@inside.lab' to='juliet@raw.lab'/>",
                  " type='broadcast'"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_inside(office, clerk, name):
    """It costs nobody the link."""
    since = office.gateway.log_size()
    inner, extra = RUBBISH[name]
    clerk.route("gw1", inner, extra)
    clerk.route("raw.lab", inner, extra)
    scene = office.scene(office.raw)
    twenty.deliver(scene, office.romeo, office.raw)
    twenty.deliver(scene, office.raw, office.romeo)
    assert not re.search(r"\blink\.(down|refused)\b", office.gateway.log(since))


# ---- domains come and go -------------------------------------------------------------------------

def test_domains_are_learnt(office):
    """Who is announced and configured is reached; not who is only one of the two."""
    log = office.gateway.log()
    assert set(re.findall(r"link\.domain\.up .*domain=(\S+)", log)) == {DOMAIN, PRIVATE}
    assert seat(office.gateway) == ("active", 2)
    since = office.gateway.log_size()
    began = time.monotonic()
    office.raw.send(office.raw.stanza("message", f"x@{GHOST}", "ghost", "<body>x</body>"))
    got = office.raw.expect("message", id="ghost", type="error")
    assert got.condition == "remote-server-timeout", got
    assert got.child("error").get("type") == "wait" and time.monotonic() - began < HOLD + 2, got
    office.gateway.wait_log(r"stanza\.bounced .*the server of this domain is not connected", since)
    stream = office.raw.out[DOMAIN]
    stream.ask_result("raw.lab", PRIVATE)
    while (answer := stream.read()).get("to") != "raw.lab" or answer.get("from") != PRIVATE:
        pass
    assert answer.get("type") == "error"


def restart(office, part):
    """sm or c2s once more; users have to come anew."""
    parts = office.proc.parts
    parts[part] = office.lab.spawn(f"jabberd2-{part}-{time.monotonic_ns()}", parts[part].argv)


def romeo_again(office):
    """As clients do: until c2s lets him in."""
    def log_in():
        try:
            return insides.ServerUser(office.lab.ip(jabberd2.HOST), DOMAIN, "romeo")
        except (AssertionError, Ended, OSError):
            return None

    office.romeo.close()
    office.romeo = office.lab.at_end(wait_for(log_in, what="romeo to be let in"))


def test_domain_lost_and_found(office):
    """sm goes: what comes for its users waits, and is delivered when it comes back; or bounces."""
    raw, gateway = office.raw, office.gateway
    since = gateway.log_size()
    office.proc.parts["sm"].stop()
    gateway.wait_log(rf"link\.domain\.down .*domain={re.escape(DOMAIN)}", since)
    for i in range(5):
        ask(raw, DOMAIN, f"patient-{i}")
    began = time.monotonic()
    for i in range(5):
        got = raw.expect("iq", id=f"patient-{i}")
        assert got.condition == "remote-server-timeout", got
    assert HOLD - 1.5 < time.monotonic() - began < HOLD + 1
    ask(raw, DOMAIN, "later")  # nobody has come for so long: at once
    assert raw.expect("iq", id="later", timeout=1).condition == "remote-server-timeout"
    restart(office, "sm")
    gateway.wait_log(rf"link\.domain\.up .*domain={re.escape(DOMAIN)}", since)
    ask(raw, DOMAIN, "found")
    assert raw.expect("iq", id="found").get("type") == "result"

    since = gateway.log_size()
    office.proc.parts["sm"].kill()
    gateway.wait_log(rf"link\.domain\.down .*domain={re.escape(DOMAIN)}", since)
    restart(office, "sm")
    for i in range(5):
        ask(raw, DOMAIN, f"held-{i}")
    for i in range(5):
        assert raw.expect("iq", id=f"held-{i}").get("type") == "result"
    assert "link.down" not in gateway.log(since)
    romeo_again(office)
    twenty.deliver(office.scene(raw), raw, office.romeo)


def test_undelivered(office, clerk):
    """A name is gone from the router before the gateway hears of it: the route comes back, and
    becomes an error for the sender, where there may be one."""
    raw, gateway = office.raw, office.gateway
    since = gateway.log_size()
    clerk.bind(GHOST)
    gateway.wait_log(rf"link\.domain\.up .*domain={re.escape(GHOST)}", since)
    raw.send(raw.stanza("message", f"x@{GHOST}", "there", "<body>x</body>"))
    assert b"id='there'" in clerk.expect("route", to=GHOST, from_="gw1").raw
    before = ask_books(gateway)["in"]["delivered"]
    office.proc.signal(signal.SIGSTOP)
    clerk.unbind(GHOST)
    for i in range(BURST):
        raw.send(raw.stanza("message", f"x@{GHOST}", f"back-{i}", "<body>x</body>"))
    raw.send(raw.stanza("iq", f"x@{GHOST}", "back-result", type_="result"))
    wait_for(lambda: ask_books(gateway)["in"]["delivered"] == before + BURST + 1,
             what="all to be written")
    office.proc.signal(signal.SIGCONT)
    for i in range(BURST):
        got = raw.expect("message", id=f"back-{i}", type="error", from_=f"x@{GHOST}")
        assert got.condition == "remote-server-timeout", got
        assert got.child("error").get("type") == "wait", got
    twenty.deliver(office.scene(raw), raw, office.romeo)
    twenty.deliver(office.scene(raw), office.romeo, raw)
    assert len(re.findall(r"link\.route\.undelivered ", gateway.log(since))) == BURST + 1
    assert "back-result" not in twenty.ids(raw)


# ---- the link is cut ----------------------------------------------------------------------------

def test_link_cut_and_mended(office):
    """Meanwhile the router has no way out for its users, and what comes from outside waits; every
    stanza comes to its end, once, in order."""
    romeo, raw, gateway = office.romeo, office.raw, office.gateway
    lost, since = office.proc.log_size(), gateway.log_size()
    office.cable.cut()
    office.proc.wait_log(r"\[gw1\] offline", lost)
    gateway.wait_log(r"\blink\.down\b", since)
    for i in range(BURST):
        romeo.send(romeo.stanza("message", raw.jid, f"cut-out-{i}", "<body>x</body>", "chat"))
        raw.send(raw.stanza("message", romeo.jid, f"cut-in-{i}", "<body>x</body>", "chat"))
    for i in range(BURST):
        got = romeo.expect("message", id=f"cut-out-{i}", type="error")
        assert got.condition == "item-not-found", got
    office.cable.mend()
    gateway.wait_log(LOG_LINK_UP, since)
    gateway.wait_log(r"\blink\.active\b", since)
    for i in range(BURST):
        romeo.send(romeo.stanza("message", raw.jid, f"mended-{i}", "<body>x</body>", "chat"))
    raw.expect_stanza(f"mended-{BURST - 1}")
    romeo.expect("message", id=f"cut-in-{BURST - 1}")
    assert [i for i in twenty.ids(romeo) if i.startswith("cut-in")] == [
        f"cut-in-{i}" for i in range(BURST)]
    assert [i for i in twenty.ids(raw) if i.startswith(("cut-", "mended"))] == [
        f"mended-{i}" for i in range(BURST)]


def test_router_killed(office):
    """What it had not read is lost with it, exactly that; everything else waits for the next."""
    raw, gateway = office.raw, office.gateway
    ask(raw, DOMAIN, "before")
    raw.expect("iq", id="before", type="result")
    since, before = gateway.log_size(), ask_books(gateway)["in"]["delivered"]
    office.proc.signal(signal.SIGSTOP)
    for i in range(BURST):
        ask(raw, DOMAIN, f"unread-{i}")
    wait_for(lambda: ask_books(gateway)["in"]["delivered"] == before + BURST,
             what="the router's socket to have all")
    office.proc.kill()
    gateway.wait_log(r"\blink\.down\b", since)
    for i in range(BURST):
        ask(raw, DOMAIN, f"waits-{i}")
    parts = office.proc.parts
    office.proc = office.lab.spawn("jabberd2-router-again", office.proc.argv)
    office.proc.parts = parts
    gateway.wait_log(LOG_LINK_UP, since)
    for i in range(BURST):
        assert raw.expect("iq", id=f"waits-{i}").get("type") == "result"
    ask(raw, DOMAIN, "after")
    raw.expect("iq", id="after", type="result")
    assert not [i for i in twenty.ids(raw) if i.startswith("unread")]
    gateway.wait_log(r"alarm\.cleared kind=link\.down subject=core", since)
    assert seat(gateway) == ("active", 2)
    office.proc.wait_log(r"\[c2s\] online")
    romeo_again(office)
    twenty.deliver(office.scene(raw), raw, office.romeo)
    twenty.deliver(office.scene(raw), office.romeo, raw)


# ---- two gateways --------------------------------------------------------------------------------

def test_active_and_standby(office):
    """The second one delivers inwards, and has the default route as soon as the first is gone. What
    users say meanwhile reaches the world, or comes back to them; only what the first had taken
    already may be lost with it."""
    romeo, raw, first = office.romeo, office.raw, office.gateway
    second = office.start_gateway("gateway2", SECOND, "gw2", jabberd2.HOST)
    line = second.wait_log(r"\blink\.standby\b")
    assert "name=s2s reason=409" in line, line
    assert (seat(first), seat(second)) == (("active", 2), ("standby", 2))
    raw.hang_up()
    raw.gateway = office.lab.ip(SECOND)
    twenty.deliver(office.scene(raw), raw, romeo)
    twenty.deliver(office.scene(raw), romeo, raw)

    flow = Flow("over", romeo.send, DOMAIN, raw.jid, senders=1, rate=400)
    flow.wait_sent(100)
    since, began = second.log_size(), time.monotonic()
    first.kill()
    second.wait_log(r"\blink\.active\b.*name=s2s", since)
    took = time.monotonic() - began
    flow.wait_sent(100)
    flow.stop()
    romeo.send(romeo.stanza("message", raw.jid, "over.end", "<body>x</body>"))
    assert way_of(office, "over.end") == office.lab.ip(SECOND)
    arrived = numbers([i for i in twenty.ids(raw) if i != "over.end"], "over")
    errors = [s for s in romeo.stanzas if s.get("type") == "error"]
    bounced = numbers([s.get("id") for s in errors], "over")
    assert len(set(arrived + bounced)) == len(arrived + bounced), "doubled"
    lost = set(range(flow.sent)) - set(arrived) - set(bounced)
    print(f"took over after {took * 1000:.0f} ms; of {flow.sent}: {len(arrived)} arrived, "
          f"{len(bounced)} came back, {len(lost)} were lost with the first")
    assert took < 1 and len(lost) <= 40, (took, lost)
    assert arrived == sorted(arrived)
    assert seat(second) == ("active", 2)

    office.gateway = office.lab.start_gateway("gateway1b", first.conf, Net.ALPHA)
    office.gateway.wait_log(r"\blink\.standby\b.*reason=409")
    assert seat(office.gateway) == ("standby", 2)
    since = office.gateway.log_size()
    assert second.stop() == 0  # in good order: the other one takes over
    office.gateway.wait_log(r"\blink\.active\b", since)
    raw.hang_up()
    raw.gateway = office.address
    twenty.deliver(office.scene(raw), romeo, raw)
    twenty.deliver(office.scene(raw), raw, romeo)


# ---- TLS and proof -------------------------------------------------------------------------------

ROUTER = f"router.{DOMAIN}"


class Tap(Cable):
    """A cable that keeps what goes through it, by direction."""

    def __init__(self, *args):
        self.sent, self.received = b"", b""
        super().__init__(*args)

    def _carry(self, source, sink):
        tap, outwards = self, source.getsockname()[0] == self.address

        class Kept:
            """A socket that writes down what it reads."""
            def recv(self, n):
                data = source.recv(n)
                if outwards:
                    tap.sent += data
                else:
                    tap.received += data
                return data

            def __getattr__(self, name):
                return getattr(source, name)

            def __hash__(self):
                return hash(source)

            def __eq__(self, other):
                return other is source

        super()._carry(Kept(), sink)


class Desk:
    """The router alone, with a certificate or without, and what gateways need before it."""

    def __init__(self, lab, identity):
        """identity: made with the lab's Pki; None: no STARTTLS."""
        self.lab, self.pki, self.count = lab, Pki(lab.dir / "pki" / "desk"), 0
        p = self.pki
        self.identity = {"signed": lambda: p.signed("router", ROUTER),
                         "self-signed": lambda: p.self_signed("own", ROUTER),
                         None: lambda: None}[identity]()
        pem = None
        if self.identity:
            pem = p.dir / "router.both"
            pem.write_text(self.identity.cert.read_text() + self.identity.key.read_text())
            pem.chmod(0o600)
        self.router = jabberd2.start_inside(lab, DOMAIN, pem=pem, parts=("router",))["router"]
        self.tap = lab.at_end(Tap(lab.ip(CABLE), (lab.ip(jabberd2.HOST), LINK)))
        self.nobody = p.store("nobody", p.self_signed("nobody", "nobody.lab"))

    def conf(self, name, **link):
        link = {"name": "core", "protocol": "jabberd2", "component": "gw1",
                "user": jabberd2.GATEWAY, "address": f"{self.lab.ip(CABLE)}:{LINK}",
                "secret_file": self.lab.secret("edge"), **link}
        return self.lab.conf(f"{name}.conf", gateway_conf(
            domains=[{"name": DOMAIN}], listen=[f"{self.lab.ip(Net.ALPHA)}:{S2S}"],
            dns=["127.0.0.1:9"], links=[{k: v for k, v in link.items() if v is not None}],
            timeouts={"auth": "3s", "close": "1s"}))

    def gateway(self, **link):
        self.count += 1
        self.tap.sent = self.tap.received = b""
        name = f"gateway{self.count}"
        return self.lab.start_gateway(name, self.conf(name, **link), Net.ALPHA)

    def relink(self, gateway, **link):
        """Other settings of the link, from now on; the size of the log before."""
        since = gateway.log_size()
        self.conf(gateway.name, **link)
        gateway.signal(signal.SIGHUP)
        gateway.wait_log(r"\bconfig\.reloaded\b", since)
        return since

    def repaired(self, gateway, kind, **link):
        since = self.relink(gateway, **link)
        is_up(gateway, since)
        gateway.wait_log(rf"alarm\.cleared kind={kind} subject=core count=1\b", since)
        assert not dump(gateway, "alarm.standing")


def is_up(gateway, since=0):
    gateway.wait_log(LOG_LINK_UP, since)
    gateway.wait_log(r"\blink\.active\b", since)


def fails(gateway, kind, retry):
    """The alarm, and how long it will wait; it has not been up."""
    line = gateway.wait_log(rf"alarm\.raised kind={kind} subject=core\b")
    seconds = float(re.search(r" in=([\d.]+)", gateway.wait_log(r"\blink\.retry\b")).group(1))
    assert retry[0] <= seconds <= retry[1], seconds
    assert not re.search(LOG_LINK_UP, gateway.log())
    return line


SOON, ONLY_AN_OPERATOR_CAN_HELP = (0.8, 1.2), (48, 72)


@pytest.fixture(scope="module")
def desks(request):
    made = {}

    def get(identity):
        if identity not in made:
            lab = new_lab(f"{request.module.__name__}/{identity or 'clear'}")
            made[identity] = Desk(lab.__enter__(), identity)
        return made[identity]

    yield get
    for desk in made.values():
        desk.lab.close()


@pytest.fixture
def desk(desks):
    used = []

    def get(identity=None):
        used.append(desks(identity))
        return used[-1]

    yield get
    for d in used:
        for g in gateways_of(d.lab):
            g.stop()


@pytest.mark.parametrize("identity, mode, tls", [
    ("signed", None, True), ("signed", "tls-optional", True), ("signed", "tls-required", True),
    ("signed", "no-tls", False), (None, "tls-optional", False), (None, "no-tls", False)])
def test_starttls(desk, identity, mode, tls):
    d = desk(identity)
    gateway = d.gateway(security_mode=mode)
    is_up(gateway)
    assert bool(re.search(r"\btls\.up\b", gateway.log())) == tls
    assert (b"<starttls" in d.tap.sent, b"<auth" in d.tap.sent, b"gw1" in d.tap.sent) == \
        (tls, not tls, not tls)
    assert (b"<starttls" in d.tap.received) == (identity is not None)
    assert "link.trust" not in gateway.log()


def test_starttls_required_and_not_offered(desk):
    """Nothing is said that would tell the secret."""
    d = desk()
    gateway = d.gateway(security_mode="tls-required")
    line = fails(gateway, "link.tls", SOON)
    assert "offers no TLS" in line and b"<auth" not in d.tap.sent
    gateway.wait_log(r"link\.down .*reason=tls-not-offered")
    d.repaired(gateway, "link.tls", security_mode="tls-optional")


TRUSTED = {
    # name: (certificate, settings, who decided)
    "store": ("signed", lambda d: {"store_file": d.pki.store("s", d.identity)}, "store"),
    "authlist": ("signed", lambda d: {"authlist": [d.identity.key_hash()]}, "authlist"),
    "authlist, sha-1": ("signed", lambda d: {"authlist": [d.identity.key_hash("sha1").upper()]},
                        "authlist"),
    "root": ("signed", lambda d: {"ca_file": d.pki.root().cert, "peer_name": ROUTER}, "root"),
    "self-signed": ("self-signed", lambda d: {"store_file": d.pki.store("o", d.identity)},
                    "store"),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_certificate_of_the_router(desk, name):
    identity, settings, decided = TRUSTED[name]
    d = desk(identity)
    gateway = d.gateway(auth="tls+password", **settings(d))
    is_up(gateway)
    assert f" reason={decided} " in gateway.wait_log(r"\blink\.trust\b")
    assert b"<auth" not in d.tap.sent


UNTRUSTED = {
    "unknown-issuer": ("signed", lambda d: {"store_file": d.nobody}),
    "wrong-name": ("signed", lambda d: {"ca_file": d.pki.root().cert, "peer_name": "im.lab"}),
    "self-signed-not-in-store": ("self-signed", lambda d: {"authlist": ["ab" * 32]}),
}


@pytest.mark.parametrize("reason", UNTRUSTED)
def test_certificate_refused(desk, reason):
    """The router gets no proof that could be tried against the secret."""
    identity, settings = UNTRUSTED[reason]
    d = desk(identity)
    since = d.router.log_size()
    gateway = d.gateway(auth="tls+password", **settings(d))
    line = gateway.wait_log(r"\blink\.trust\.refused\b")
    assert f" reason={reason} " in line, line
    fails(gateway, f"link.{reason}", ONLY_AN_OPERATOR_CAN_HELP)
    d.router.wait_log(r"disconnect", since)
    assert "authenticated" not in d.router.log(since)
    d.repaired(gateway, f"link.{reason}", auth="tls+password",
               store_file=d.pki.store("right", d.identity))


@pytest.mark.parametrize("wrong", [{"secret_file": "wrong"}, {"user": "nobody"}], ids=str)
@pytest.mark.parametrize("identity", [None, "signed"])
def test_wrong_secret(desk, identity, wrong):
    d = desk(identity)
    if "secret_file" in wrong:
        wrong = {"secret_file": d.lab.secret("wrong")}
    gateway = d.gateway(**wrong)
    line = fails(gateway, "link.password", ONLY_AN_OPERATOR_CAN_HELP)
    assert "does not accept user and secret" in line
    gateway.wait_log(r"link\.down .*reason=not-authorized")
    d.repaired(gateway, "link.password")


def test_user_may_not_have_the_default_route(desk):
    """It is up, and says why nothing will come from inside."""
    gateway = desk().gateway(user=jabberd2.CLERK)
    assert "reason=403" in gateway.wait_log(r"\bwarn link\.standby\b")
    assert seat(gateway)[0] == "standby"


def test_name_is_taken(desk):
    """By another one that lives: it stays."""
    d = desk()
    other = d.lab.at_end(jabberd2.Part(d.lab.ip(jabberd2.HOST), "gw1",
                                       d.lab.secret("edge").read_text().strip()))
    gateway = d.gateway()
    fails(gateway, "link.conflict", ONLY_AN_OPERATOR_CAN_HELP)
    assert other.over is None
    other.close()
    d.router.wait_log(r"\[gw1\] offline")
    d.repaired(gateway, "link.conflict")


# ---- the inside dials ----------------------------------------------------------------------------

@pytest.mark.parametrize("auth", ["tls", "tls+password"])
def test_spliced(fresh_lab, auth):
    """sallyport-router dials both; TLS is between it and the gateway, and the router's own STARTTLS
    is not begun inside that."""
    lab, pki = fresh_lab, Pki(fresh_lab.dir / "pki" / "splice")
    lab.dns({DOMAIN: [(Net.ALPHA, S2S, 10)], "raw.lab": [(insides.RAW, S2S, 10)]})
    cert, key = lab.certificate(ROUTER)
    pem = lab.dir / "pki" / "router.both"
    pem.write_text(cert.read_text() + key.read_text())
    pem.chmod(0o600)
    parts = jabberd2.start_inside(lab, DOMAIN, pem=pem)
    ours, theirs = pki.self_signed("gateway", "gw1.lab"), pki.self_signed("splice", ROUTER)
    listen = f"{lab.ip(Net.ALPHA_LINK)}:{LINK}"
    link = {"name": "core", "protocol": "jabberd2", "component": "gw1", "user": jabberd2.GATEWAY,
            "secret_file": lab.secret("edge"), "transport": "accept", "listen": [listen],
            "auth": auth, **ours.settings(), "store_file": pki.store("theirs", theirs)}
    conf = lab.conf("gateway.conf", gateway_conf(**lab.gateway_settings(
        DOMAIN, Net.ALPHA, 0, mode="tls-optional", peers=ALLOW_ALL, links=[link],
        timeouts={"close": "1s"})))
    gateway = lab.start_gateway("gateway", conf, Net.ALPHA)
    outer = lab.at_end(Tap(lab.ip(CABLE), (lab.ip(Net.ALPHA_LINK), LINK)))
    inner = lab.at_end(Tap(lab.ip(CABLE + 1), (lab.ip(jabberd2.HOST), LINK)))
    splice = {"name": "jabberd2", "gateway": f"{outer.address}:{LINK}",
              "server": f"{inner.address}:{LINK}", **theirs.settings(),
              "store_file": pki.store("ours", ours)}
    router = lab.spawn("router", [program("sallyport-router"), "-c", lab.conf(
        "router.conf", router_conf(listen=[], links=[],
                                   extra=f"splices = {labnet._objects([splice])};\n"))]
        + root_option())
    is_up(gateway)
    assert seat(gateway) == ("active", 1)
    assert len(re.findall(r"\btls\.up\b.*link=core", gateway.log())) == 1
    assert outer.sent[:1] == outer.received[:1] == b"\x16", "TLS from the first byte"
    assert b"<starttls" in inner.received and b"<starttls" not in inner.sent + outer.sent
    assert b"name='gw1'" in inner.sent

    raw = lab.at_end(twenty.Played(lab, insides.RAW, "raw.lab", lab.ip(Net.ALPHA)))
    romeo = lab.at_end(insides.ServerUser(lab.ip(jabberd2.HOST), DOMAIN, "romeo", register=True))
    scene = twenty.Scene(romeo, raw, raw, gateway, delivers_subscribed=False)
    twenty.assert_passes(scene, [check for check in twenty.CHECKS if check not in (
        twenty.message_out_to_any_other_domain, twenty.foreign_to_foreign_goes_nowhere)])
    assert raw.jid.encode() in inner.received and raw.jid.encode() not in outer.sent

    since = gateway.log_size()
    inner.cut()  # the server's side of it
    gateway.wait_log(r"\blink\.down\b", since)
    ask(raw, DOMAIN, "held")
    inner.mend()
    is_up(gateway, since)
    assert raw.expect("iq", id="held").get("type") == "result"
    for part in ("c2s", "sm"):
        parts[part].kill()
    router.signal(signal.SIGTERM)
    assert router.wait() == 0
