"""The link across real boundaries: three network namespaces, a firewall, and a cable to cut.

No hole inwards: with transport `accept` the DMZ never opens a connection to the inside. A dead
link: cut without a close, how long until both sides know it, what becomes of the stanzas, and how
long until it is up again.
"""
import datetime
import socket
import time

import labnet
import pytest
from actors import InsideUser, ServerUser
from conftest import ALLOW_ALL
from labnet import LINK, LOG_LINK_UP, S2S, Net, gateway_conf, wait_for
from manylinks import Flow, assert_in_order, ids_outside, message, numbers
from netns import DOORS, RAW, SECOND, Wire, ZonedLab, why_not
from peers import RemoteServer, authorised
from pki import Pki
from servers import INSIDE, start_prosody

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

ALPHA = "alpha.lab"
PING = "<ping xmlns='urn:xmpp:ping'/>"
DEAD, MARGIN, BACK = 4.0, 1.0, 5.0  # seconds: timeouts.dead, on top of it, and until it is up again
LOG_DOWN = r"\blink\.down\b"
GATEWAYS = (Net.ALPHA, SECOND)


@pytest.fixture
def zoned(request):
    with ZonedLab(f"{request.module.__name__}/{request.node.name}") as lab:
        yield lab


@pytest.fixture
def measured(record_property):
    """Notes a figure: in the report, and where -rP shows it."""
    def note(name, value):
        print(f"{name}: {value}")
        record_property(name, value)

    return note


class Fort:
    """An organisation whose gateways are in the DMZ, and raw.lab in the world."""

    def __init__(self, lab, domain=ALPHA):
        self.lab, self.domain, self.zones = lab, domain, lab.zones
        self.pki = Pki(lab.dir / "pki" / "link")
        self.ours, self.theirs = (self.pki.self_signed(n, f"{n}.{domain}")
                                  for n in ("edge", "router"))
        with self.zones.world:
            lab.dns({domain: [(h, S2S, 10) for h in GATEWAYS], "raw.lab": [(RAW, S2S, 10)]})
            self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.gateways, self.streams = [], {}

    def trust(self, own, other):
        return {"auth": "tls", **own.settings(),
                "store_file": self.pki.store(other.cert.stem, other)}

    def gateway(self, number, links, **settings):
        """Starts gateway `number`, which need not have a link yet."""
        lab, host = self.lab, GATEWAYS[number]
        settings = {"mode": "no-tls", "peers": ALLOW_ALL, "links": links,
                    "timeouts": {"close": "1s"}, **settings}
        settings = lab.gateway_settings(self.domain, host, 0, **settings)
        with self.zones.dmz:
            g = lab.start_gateway(f"gateway{number}", lab.conf(f"gateway{number}.conf",
                                                               gateway_conf(**settings)), host)
        self.gateways.append(g)
        return g

    def door(self, number, **more):
        """The link on which gateway `number` waits for the inside."""
        return {"name": "core", "transport": "accept",
                "listen": [f"{self.lab.ip(DOORS[number])}:{LINK}"],
                "component": f"edge{number}.{self.domain}",
                **self.trust(self.ours, self.theirs), **more}

    def dialling(self, number):
        """The same link in the router's configuration."""
        return {"name": f"edge{number}", "role": "gateway", "transport": "dial",
                "address": f"{self.lab.ip(DOORS[number])}:{LINK}",
                "component": f"edge{number}.{self.domain}",
                **self.trust(self.theirs, self.ours)}

    def router(self, links=(), name="router", **settings):
        lab = self.lab
        im = {"name": "im", "role": "server", "transport": "accept", "component": self.domain,
              "domains": [self.domain], "secret_file": lab.secret("im")}
        text = labnet.router_conf(listen=[f"{lab.ip(Net.ALPHA_LINK)}:{LINK}"], links=[*links, im],
                                  **settings)
        with self.zones.inside:
            return lab.start_router(name, lab.conf("router.conf", text), Net.ALPHA_LINK)

    def user(self):
        """romeo, and everybody else of the domain."""
        with self.zones.inside:
            return self.lab.at_end(InsideUser(self.lab.ip(Net.ALPHA_LINK), self.domain,
                                              self.lab.secret("im").read_text().strip()))

    def stream(self, number=0):
        """From outside to gateway `number`, with the pair proven."""
        if number not in self.streams:
            with self.zones.world:
                self.streams[number] = self.lab.at_end(
                    authorised(self.lab.ip(GATEWAYS[number]), "raw.lab", self.domain))
        return self.streams[number]

    def dialogue(self, romeo, what, number=0):
        """Each kind of stanza there and back through gateway `number`."""
        s = self.stream(number)
        for kind, type_ in (("message", "chat"), ("presence", None), ("iq", "get")):
            ident = f"{what}-{kind}"
            type_ = f" type='{type_}'" if type_ else ""
            s.send(f"<{kind} from='juliet@raw.lab/x' to='{romeo.jid}' id='{ident}'{type_}>"
                   f"{PING if kind == 'iq' else ''}</{kind}>")
            romeo.expect(kind, id=ident, from_="juliet@raw.lab/x")
        for kind, type_ in (("message", "chat"), ("presence", None), ("iq", "result")):
            ident = f"{what}-{kind}" if type_ == "result" else f"{what}-{kind}-back"
            romeo.send(romeo.stanza(kind, "juliet@raw.lab/x", ident, type_=type_))
            self.raw.expect_stanza(ident)

    def assert_no_hole(self, host=Net.ALPHA_LINK):
        """Nobody has tried to get in; and whoever tries is refused, and counted."""
        to = (self.lab.ip(host), LINK)
        assert self.zones.forbidden() == 0
        with self.zones.inside:
            socket.create_connection(to, 3).close()  # somebody listens there
        assert self.zones.forbidden() == 0
        with self.zones.dmz, pytest.raises(ConnectionRefusedError):
            socket.create_connection(to, 3)
        assert self.zones.forbidden() == 1


# ---- cutting -------------------------------------------------------------------------------------

def when(line):
    """The time of a log line, in seconds."""
    stamp = datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%f%z")
    return stamp.timestamp()


def first(proc, pattern, since, **kw):
    """When it logged that for the first time after `since`."""
    return when(proc.wait_log(pattern, since, **kw))


class Cut:
    """The cable between DMZ and inside is cut now. `sides`: name -> (process, what it will log)."""

    def __init__(self, fort, how, sides):
        self.fort, self.how, self.sides = fort, how, sides
        self.since = {name: proc.log_size() for name, (proc, _) in sides.items()}
        self.at = time.time()
        fort.zones.inner.cut(how)

    def wait_noticed(self, record):
        """Each side knows, in time."""
        took = {name: first(proc, pattern, self.since[name], timeout=DEAD + 10) - self.at
                for name, (proc, pattern) in self.sides.items()}
        record(f"noticed after ({self.how})", {k: round(t, 2) for k, t in took.items()})
        assert all(0 < t < DEAD + MARGIN for t in took.values()), took

    def mend(self, ups, record):
        """`ups`: as `sides`, for being up again."""
        since = {name: proc.log_size() for name, (proc, _) in ups.items()}
        mended = time.time()
        self.fort.zones.inner.mend()
        took = {name: first(proc, pattern, since[name], timeout=BACK + 10) - mended
                for name, (proc, pattern) in ups.items()}
        record(f"up again after ({self.how})", {k: round(t, 2) for k, t in took.items()})
        assert all(t < BACK for t in took.values()), took


# ---- no hole inwards -----------------------------------------------------------------------------

def test_router_dials_the_dmz(zoned):
    """Also when either side comes back after the other."""
    fort = Fort(zoned)
    fort.zones.forbid_inwards()
    gateway = fort.gateway(0, [fort.door(0)])
    router = fort.router([fort.dialling(0)])
    romeo = fort.user()
    gateway.wait_log(LOG_LINK_UP)
    fort.dialogue(romeo, "first")
    assert gateway.stop() == 0
    router.wait_log(LOG_DOWN)
    fort.streams.clear()
    with fort.zones.dmz:
        gateway = zoned.start_gateway("gateway0-again", gateway.conf, Net.ALPHA)
    gateway.wait_log(LOG_LINK_UP)
    fort.dialogue(romeo, "second")
    since = gateway.log_size()
    router.kill()
    gateway.wait_log(LOG_DOWN, since)
    fort.router([fort.dialling(0)], "router-again")
    romeo = fort.user()
    gateway.wait_log(LOG_LINK_UP, since)
    fort.dialogue(romeo, "third")
    fort.assert_no_hole()


def test_two_gateways_without_a_hole(zoned):
    fort = Fort(zoned)
    fort.zones.forbid_inwards()
    secret = zoned.secret("dialback")
    gateways = [fort.gateway(n, [fort.door(n)], secret=secret) for n in (0, 1)]
    fort.router([fort.dialling(n) for n in (0, 1)])
    romeo = fort.user()
    for n, g in enumerate(gateways):
        g.wait_log(LOG_LINK_UP)
        fort.dialogue(romeo, f"by-{n}", n)

    def say(what):
        """Of many users; which gateways brought it out."""
        senders = [f"u{i}@{ALPHA}/x" for i in range(24)]
        for sender in senders:
            romeo.send(message(sender, "juliet@raw.lab/x", f"{what}-{sender}"))
        for sender in senders:
            fort.raw.expect_stanza(f"{what}-{sender}")
        return {peer for peer, e in fort.raw.stanzas if e.get("id", "").startswith(f"{what}-")}

    assert say("both") == {zoned.ip(h) for h in GATEWAYS}
    gateways[0].kill()
    wait_for(lambda: say("probe") and say("one") == {zoned.ip(SECOND)}, what="one gateway to do")
    fort.dialogue(romeo, "after", 1)
    fort.assert_no_hole()


def splice(fort, server):
    lab = fort.lab
    own = fort.pki.signed("splice", f"router.{fort.domain}")
    return {"name": "prosody", "gateway": f"{lab.ip(DOORS[0])}:{LINK}", "server": server,
            **own.settings(), "store_file": fort.pki.store("edge", fort.ours)}


def spliced_fort(zoned, **timeouts):
    """Prosody only listens; the router joins it with the gateway, which only listens too."""
    fort = Fort(zoned, INSIDE)
    fort.zones.forbid_inwards()
    edge = f"edge0.{INSIDE}"
    root = fort.pki.root().cert
    link = fort.door(0, auth="tls+password", secret_file=zoned.secret("edge"), ca_file=root,
                     peer_name=f"router.{INSIDE}")
    del link["store_file"]
    gateway = fort.gateway(0, [link], timeouts=timeouts)
    with fort.zones.inside:
        start_prosody(zoned, (edge,))
        conf = zoned.conf("router.conf", labnet.router_conf(
            listen=[], links=[], timeouts=timeouts,
            extra="splices = " + labnet._objects(
                [splice(fort, f"{zoned.ip(Net.PROSODY)}:{LINK}")]) + ";\n"))
        router = zoned.spawn("router", [labnet.program("sallyport-router"), "-c", conf]
                             + labnet.root_option())
        gateway.wait_log(LOG_LINK_UP)
        romeo = zoned.at_end(ServerUser(zoned.ip(Net.PROSODY), INSIDE, "romeo"))
    return fort, gateway, router, romeo


def test_splice_without_a_hole(zoned, measured):
    """With a real Prosody; and the cable of the splice is cut, too."""
    fort, gateway, router, romeo = spliced_fort(zoned, dead=f"{DEAD:g}s", connect="1s", close="1s")
    router.wait_log(r"\bsplice\.up\b")
    fort.dialogue(romeo, "spliced")
    cut = Cut(fort, "silent", {"gateway": (gateway, LOG_DOWN),
                               "router": (router, r"\bsplice\.down\b")})
    cut.wait_noticed(measured)
    fort.stream().send(message("juliet@raw.lab/x", romeo.jid, "held"))
    cut.mend({"gateway": (gateway, LOG_LINK_UP), "router": (router, r"\bsplice\.up\b")},
             measured)
    romeo.expect("message", id="held")
    fort.dialogue(romeo, "mended")
    fort.assert_no_hole(Net.PROSODY)


# ---- dead links ----------------------------------------------------------------------------------

class Both(Fort):
    """One gateway and one router with a link of either transport between them."""
    LINKS = ("dial", "accept")

    def __init__(self, lab):
        super().__init__(lab)
        timeouts = {"dead": f"{DEAD:g}s", "connect": "1s", "close": "1s", "auth": "3s"}
        name, secret = f"dial.{ALPHA}", lab.secret("edge")
        dial = {"name": "dial", "address": f"{lab.ip(Net.ALPHA_LINK)}:{LINK}", "component": name,
                "secret_file": secret}
        accept = {**self.door(0), "name": "accept"}
        edges = [{"name": "dial", "role": "gateway", "transport": "accept", "component": name,
                  "secret_file": secret}, {**self.dialling(0), "name": "accept"}]
        self.router_ = self.router(edges, timeouts=timeouts)
        self.gateway_ = self.gateway(0, [dial, accept], timeouts=timeouts)
        for link in self.LINKS:
            for proc in (self.gateway_, self.router_):
                proc.wait_log(rf"{LOG_LINK_UP}.*\blink={link}\b")
        self.romeo = self.user()

    def sides(self, event):
        return {f"{who}, {link}": (proc, rf"{event}.*\blink={link}\b") for link in self.LINKS
                for who, proc in (("gateway", self.gateway_), ("router", self.router_))}

    def flows(self, what):
        return [Flow(f"in-{what}", self.stream().send, "raw.lab", self.romeo.bare),
                Flow(f"out-{what}", self.romeo.send, ALPHA, "juliet@raw.lab/x")]

    def ids(self, errors=False):
        """Of messages that romeo got."""
        return [s.get("id") for s in list(self.romeo.stanzas)
                if s.kind == "message" and (s.get("type") == "error") == errors]

    def fates(self, what):
        """(arrived, bounced) of a flow, as ids."""
        if what.startswith("in-"):
            return self.ids(), ids_outside(self.raw, errors=True)
        return ids_outside(self.raw), self.ids(errors=True)


@pytest.fixture(scope="module")
def both(request):
    with ZonedLab(f"{request.module.__name__}/both") as lab:
        yield Both(lab)


@pytest.fixture(autouse=True)
def whole_cable(request):
    """A test that fails leaves it cut."""
    yield
    if "both" in request.fixturenames:
        request.getfixturevalue("both").zones.inner.mend()


@pytest.mark.parametrize("how", Wire.WAYS)
def test_idle_link_is_cut(both, how, measured):
    """Nothing is under way: the kernels ask each other. What comes meanwhile waits, or bounces."""
    cut = Cut(both, how, both.sides(LOG_DOWN))
    cut.wait_noticed(measured)
    held = [f"idle-{how}-{i}" for i in range(20)]
    for i in held:
        both.stream().send(message("juliet@raw.lab/x", both.romeo.jid, i))
        both.romeo.send(message(both.romeo.jid, "juliet@raw.lab/x", f"out-{i}"))
    for i in held:
        got = both.romeo.expect("message", id=f"out-{i}", type="error")
        assert got.condition == "remote-server-timeout"
    cut.mend(both.sides(LOG_LINK_UP), measured)
    both.romeo.expect("message", id=held[-1])
    assert [i for i in both.ids() if i in held] == held
    assert not [i for i in ids_outside(both.raw) if i[4:] in held]
    both.dialogue(both.romeo, f"after-idle-{how}")


@pytest.mark.parametrize("how", Wire.WAYS)
def test_busy_link_is_cut(both, how, measured):
    """Each stanza arrives or bounces, once; but for what was sent while nobody could know: the
    kernel had taken it."""
    flows = both.flows(how)
    for f in flows:
        f.wait_sent(100)
    before = [f.sent for f in flows]
    cut = Cut(both, how, both.sides(LOG_DOWN))
    cut.wait_noticed(measured)
    after = [f.sent for f in flows]
    failed = both.gateway_.wait_log(r"\blink\.failed\b", cut.since["gateway, dial"])
    assert "link=dial" in failed
    cut.mend(both.sides(LOG_LINK_UP), measured)
    for f in flows:
        f.wait_sent(100)
        f.stop()
    both.dialogue(both.romeo, f"after-busy-{how}")  # comes behind all of them
    for f, cut_at, noticed in zip(flows, before, after):
        arrived, bounced = (numbers(ids, f.what) for ids in both.fates(f.what))
        fates = arrived + bounced
        assert len(fates) == len(set(fates)), f"{f.what}: twice"
        assert_in_order(both.fates(f.what)[0], f.what)
        lost = set(range(f.sent)) - set(fates)
        measured(f.what, {"sent": f.sent, "arrived": len(arrived), "bounced": len(bounced),
                                 "lost": len(lost), "sent while cut": noticed - cut_at})
        assert all(cut_at - 50 <= n <= noticed for n in lost), (cut_at, noticed, sorted(lost))
