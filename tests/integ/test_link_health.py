"""The health of a link: probes, the peer's clock, what has passed, and the marks of its queue."""
import re
import signal
import time
from collections import Counter
from datetime import datetime, timedelta, timezone

import labnet
import pytest
from actors import InsideUser
from labnet import Net, wait_for
from linkworld import DOMAIN, Side, World, dump
from manylinks import Flow, Insider, Site, ids_inside, link, message, numbers, start_of
from pki import Pki

A = 61
PROBE, DEAD, MARGIN = 1.0, 3.0, 1.0  # seconds
TIMEOUTS = {"probe": f"{PROBE:g}s", "dead": f"{DEAD:g}s"}
HIGH, LOW = 256 * 1024, 64 * 1024
PROBES = {b"urn:xmpp:ping": "ping", b"urn:xmpp:time": "time"}
LOG_SKEW, LOG_DOWN = r"\blink\.clock\.skew\b", r"\blink\.down\b"


class Pulse(Insider):
    """An inside that answers what the gateway probes, unless it is `mute`; its clock is `wrong` by
    so many seconds. `asked`: the kinds of probes that came."""

    def __init__(self, address, secret, limit=None):
        self.wrong, self.mute, self.asked = 0, False, Counter()
        super().__init__(address, secret, limit)

    def heard(self, s, raw):
        kind = next((k for ns, k in PROBES.items() if ns in raw), None)
        name, attrs = start_of(raw)
        if kind is None or name != "iq" or attrs.get("type") != "get":
            return
        self.asked[kind] += 1
        if not self.mute:
            with self.sending:
                s.send(f"<iq type='result' id='{attrs['id']}' from='{attrs['to']}' "
                       f"to='{attrs['from']}'>{self.time() if kind == 'time' else ''}</iq>")

    def time(self):
        now = datetime.now(timezone.utc) + timedelta(seconds=self.wrong)
        return (f"<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo>"
                f"<utc>{now:%Y-%m-%dT%H:%M:%SZ}</utc></time>")


class Ward(Site):
    """A gateway with one link to a Pulse."""

    def __init__(self, lab, **limits):
        super().__init__(lab, (A,), [link(lab, "core", A)], kind=Pulse, timeouts=TIMEOUTS,
                         limits={"link_high": f"{HIGH}", "link_low": f"{LOW}", **limits})
        self.inside = self.insides[0]

    def dump(self, event, **wanted):
        return dump(self.gateway, event, link="core", **wanted)

    def probes(self, kind):
        return {k: float(v) for k, v in self.dump("state.link.probes", kind=kind)[0].items()
                if k not in ("link", "kind")}


@pytest.fixture(scope="module")
def the_ward(lab):
    return Ward(lab)


@pytest.fixture
def ward(the_ward):
    """With its link up, and everybody well."""
    inside = the_ward.inside
    inside.mute, inside.wrong = False, 0
    inside.go_on_reading()
    inside.wait(lambda: inside.live, what="the link")
    return the_ward


@pytest.fixture
def measured(record_property):
    """Notes a figure: in the report, and where -rP shows it."""
    def note(name, value):
        print(f"{name}: {value}")
        record_property(name, value)

    return note


def moment(line):
    return datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


# ---- probes --------------------------------------------------------------------------------------

def test_probes_are_counted(ward):
    """Asked and answered, when last; of each kind."""
    inside, before = ward.inside, ward.inside.asked["ping"]
    inside.wait(lambda: inside.asked["ping"] >= before + 2, what="two more pings")
    ping = wait_for(lambda: (p := ward.probes("ping"))["sent"] == p["answered"] and p,
                    what="the last ping to be answered")
    assert abs(ping["sent"] - inside.asked["ping"]) <= 1  # one may have come meanwhile
    assert 0 <= ping["last_answer"] <= ping["last_sent"] <= PROBE + MARGIN
    asked = ward.probes("time")
    assert asked["sent"] == asked["answered"] == inside.asked["time"] >= 1
    assert ping["last_answer"] < asked["last_answer"] < 60
    assert ward.probes("space")["answered"] == 0  # white space is never answered


def test_a_busy_link_is_not_pinged(ward):
    """Whatever comes from the inside is a sign of life."""
    flow = Flow("busy", ward.inside.say, "alpha.lab", "juliet@raw.lab/x", rate=20)
    flow.wait_sent(2)
    pings = ward.inside.asked["ping"]
    flow.wait_sent(int(2 * PROBE * 20))
    assert ward.inside.asked["ping"] == pings
    flow.stop()
    ward.raw.expect_stanza(flow.ident(flow.sent - 1))


def test_a_server_that_hangs(ward, measured):
    """It answered before; its machine still acknowledges every byte."""
    since = ward.gateway.log_size()
    ward.inside.mute, began = True, time.time()
    ward.gateway.wait_log(r"\blink\.ping\.unanswered\b", since)
    took = moment(ward.gateway.wait_log(LOG_DOWN, since)) - began
    measured("hanging server noticed after", round(took, 2))
    assert took < PROBE + DEAD + MARGIN
    ups = ward.inside.ups
    ward.inside.mute = False
    ward.inside.wait_up(ups + 1)
    ident = f"after-{since}"
    ward.stream("alpha.lab").send(message("juliet@raw.lab/x", "romeo@alpha.lab", ident))
    ward.inside.expect(id=ident)


def test_a_reader_that_hangs_under_load(ward, measured):
    """The link is full; what had not left the gateway goes by the next one."""
    stream = ward.stream("alpha.lab")
    stream.sock.settimeout(None)
    ward.inside.wait(lambda: ward.inside.asked["ping"], what="a first ping")
    since, began = ward.gateway.log_size(), time.time()
    ward.inside.stop_reading()
    flow = Flow("stuck", stream.send, "raw.lab", "romeo@alpha.lab", rate=500, body="x" * 20000)
    took = moment(ward.gateway.wait_log(LOG_DOWN, since)) - began
    measured("hanging reader under load noticed after", round(took, 2))
    assert took < PROBE + DEAD + MARGIN
    ups = ward.inside.ups
    ward.inside.go_on_reading()
    ward.inside.wait_up(ups + 1)
    flow.wait_sent(10)
    flow.stop()
    ward.inside.expect(id=flow.ident(flow.sent - 1))
    arrived = numbers(ids_inside(ward.inside), "stuck")
    assert len(arrived) == len(set(arrived))


class Trunk(World):
    """With the gateway's own probe and dead."""

    def write(self, gateway, router):
        super().write(gateway, router)
        conf = self.conf["gateway"]
        conf.write_text(conf.read_text().replace(
            "timeouts = { ", f'timeouts = {{ probe = "{PROBE:g}s"; dead = "{DEAD:g}s"; '))


@pytest.mark.parametrize("transport", ["dial", "accept"])
def test_a_router_that_is_stopped(fresh_lab, transport, measured):
    """SIGSTOP: its machine acknowledges, nobody closes anything."""
    lab = fresh_lab
    settings = {"secret_file": lab.secret("edge")}
    sides = [Side(settings)] * 2
    if transport == "accept":
        pki = Pki(lab.dir / "pki" / "link")
        ours, theirs = (pki.self_signed(n, f"{n}.lab") for n in ("gateway", "router"))
        sides = [Side({"auth": "tls", **own.settings(), "store_file": pki.store(f"of-{n}", other)})
                 for n, (own, other) in enumerate(((ours, theirs), (theirs, ours)))]
    world = lab.at_end(Trunk(lab, transport, *sides))
    world.gateway.wait_log(labnet.LOG_LINK_UP)
    world.passes()
    since, began = world.gateway.log_size(), time.time()
    world.router.signal(signal.SIGSTOP)
    try:
        took = moment(world.gateway.wait_log(LOG_DOWN, since)) - began
    finally:
        since = world.gateway.log_size()
        world.router.signal(signal.SIGCONT)
    measured(f"stopped router noticed after ({transport})", round(took, 2))
    assert took < PROBE + DEAD + MARGIN
    world.gateway.wait_log(labnet.LOG_LINK_UP, since)
    world.passes()


# ---- the peer's clock ----------------------------------------------------------------------------

@pytest.mark.parametrize("wrong, word", [(-3600, "behind"), (90, "ahead")])
def test_clock_skew(ward, wrong, word):
    """Told once; the alarm stands as long as the clock is wrong."""
    inside = ward.inside

    def asked(more):
        now = inside.asked["time"]
        inside.wait(lambda: inside.asked["time"] >= now + more, what="the time to be asked for")

    since, ups = ward.gateway.log_size(), inside.ups
    inside.wrong = wrong
    inside.hang_up()
    inside.wait_up(ups + 1)
    line = ward.gateway.wait_log(LOG_SKEW, since)
    assert f"theirs={word} " in line and abs(seconds(line, "by") - abs(wrong)) < 5, line
    ward.gateway.wait_log(r"alarm\.raised kind=link\.clock subject=core\b", since)
    asked(2)
    assert len(re.findall(LOG_SKEW, ward.gateway.log(since))) == 1
    standing = dump(ward.gateway, "alarm.standing", subject="core")
    assert [a["kind"] for a in standing] == ["link.clock"] and int(standing[0]["count"]) >= 2
    assert abs(int(ward.dump("state.link.clock")[0]["skew_ms"]) - 1000 * wrong) < 5000
    inside.wrong = 0
    ward.gateway.wait_log(r"alarm\.cleared kind=link\.clock subject=core\b", since)
    assert abs(int(ward.dump("state.link.clock")[0]["skew_ms"])) < 5000
    number, pings = inside.asked["time"], inside.asked["ping"]
    inside.wait(lambda: inside.asked["ping"] > pings, what="one more ping")
    assert inside.asked["time"] == number  # a right clock is asked every hour
    assert "link.down" not in ward.gateway.log(since).split("alarm.raised kind=link.clock")[1]


def seconds(line, key):
    return float(re.search(rf"\b{key}=([0-9.]+)", line).group(1))


# ---- what has passed -----------------------------------------------------------------------------

WAYS = [(d, k) for d in ("in", "out") for k in ("message", "presence", "iq")]


def passed(ward):
    """{(direction, kind): (count, bytes)}, and the ages of the last ones."""
    lines = ward.dump("state.link.traffic")
    return ({(t["dir"], t["kind"]): (int(t["count"]), int(t["bytes"])) for t in lines},
            {(t["dir"], t["kind"]): float(t["idle"]) for t in lines})


def test_traffic_is_counted_exactly(ward):
    """What was sent and what came, to the byte: also errors, and what was refused. Probes are not
    traffic."""
    inside, stream = ward.inside, ward.stream("alpha.lab")
    want, (before, _), seen = Counter(), passed(ward), len(inside.heads)

    def say(kind, to, ident, type_="", inner="", from_="romeo@alpha.lab/x"):
        text = f"<{kind} from='{from_}' to='{to}' id='{ident}'{type_}>{inner}</{kind}>"
        inside.say(text)
        want["in", kind, "count"] += 1
        want["in", kind, "bytes"] += len(text.encode())

    for i in range(7):
        say("message", "juliet@raw.lab", f"m{i}", " type='chat'", f"<body>{'ü' * i}</body>")
    for i in range(5):
        say("presence", "juliet@raw.lab", f"p{i}")
    for i in range(3):
        say("iq", "juliet@raw.lab", f"i{i}", " type='get'", "<q xmlns='urn:example:q'/>")
    say("message", "nobody@nowhere.lab", "bounced")
    say("message", "@@", "malformed")
    say("message", "juliet@raw.lab", "refused", from_="romeo@other.lab/x")
    say("iq", "core.edge.lab", "own", " type='get'", "<ping xmlns='urn:xmpp:ping'/>")
    for ident in ("bounced", "malformed", "own"):
        inside.expect(id=ident)
    ward.raw.expect_stanza("i2")
    for i in range(4):
        stream.send(message("juliet@raw.lab/x", "romeo@alpha.lab", f"im{i}", "x" * i))
        stream.send(f"<presence from='juliet@raw.lab/x' to='romeo@alpha.lab' id='ip{i}'/>")
    stream.send("<iq from='juliet@raw.lab/x' to='romeo@alpha.lab' id='ii' type='get'>"
                "<q xmlns='urn:example:q'/></iq>")
    inside.expect(id="ii")
    for came in inside.heads[seen:]:
        if not came.attrs["id"].startswith("ping-"):
            want["out", came.kind, "count"] += 1
            want["out", came.kind, "bytes"] += came.size
    got, idle = passed(ward)
    grown = {way: tuple(a - b for a, b in zip(got[way], before.get(way, (0, 0)))) for way in WAYS}
    assert grown == {way: (want[*way, "count"], want[*way, "bytes"]) for way in WAYS}
    assert want["out", "message", "count"] == 4 + 2 and want["out", "iq", "count"] == 1 + 1
    pings = inside.asked["ping"]
    inside.wait(lambda: inside.asked["ping"] >= pings + 2, what="two more pings")
    later, older = passed(ward)
    assert later == got
    assert all(older[way] >= idle[way] + PROBE for way in WAYS)


# ---- the marks of its queue ----------------------------------------------------------------------

def test_marks_of_the_queue(ward):
    """Above limits.link_high nothing is read from who feeds it, below limits.link_low again;
    nothing is lost on the way."""
    stream = ward.stream("alpha.lab")
    stream.sock.settimeout(None)
    since = ward.gateway.log_size()
    alive = Flow("alive", ward.inside.say, "alpha.lab", "juliet@raw.lab/x", rate=5)
    ward.inside.stop_reading()  # what it says itself is a sign of life
    flow = Flow("fill", stream.send, "raw.lab", "romeo@alpha.lab", rate=1000, body="x" * 20000)
    full = ward.gateway.wait_log(r"\blink\.full link=core\b", since)
    assert HIGH <= seconds(full, "queued") < HIGH + 128 * 1024, full
    queued = wait_for(lambda: stands(ward, flow), 20, "the stream from outside to stand")
    assert queued < HIGH + 128 * 1024  # read no further than that
    assert "link.room" not in ward.gateway.log(since)
    ward.inside.go_on_reading()
    room = ward.gateway.wait_log(r"\blink\.room link=core\b", since)
    assert seconds(room, "queued") <= LOW, room
    flow.wait_sent(50)
    flow.stop()
    alive.stop()
    ward.inside.expect(id=flow.ident(flow.sent - 1), timeout=20)
    assert numbers(ids_inside(ward.inside), "fill") == list(range(flow.sent))
    assert "stanza.bounced" not in ward.gateway.log(since)


def stands(ward, flow):
    """The bytes that wait for the link, if the flow does not move any more."""
    before = flow.sent
    time.sleep(0.2)  # the window in which nothing may be sent: what is measured
    return flow.sent == before and int(ward.dump("state.link")[0]["queued"])
