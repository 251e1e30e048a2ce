"""Several links of one gateway: which takes a stanza, and what becomes of it when one is gone."""
import itertools
import time

import labnet
import pytest
from actors import InsideUser
from conftest import ALLOW_ALL, ask_books
from labnet import LINK, Net, wait_for
from manylinks import (RAW, Flow, Outgoing, Site, assert_in_order, assert_once, by_sender,
                       ids_inside, ids_outside, link, message, numbers, wait_all_sent)
from peers import RemoteServer, stanza_error

A, B, C = 61, 62, 63  # hosts of the insides
IDS = itertools.count()


def fresh(what):
    return f"{what}-{next(IDS)}"


def mark(site):
    return site.gateway.log_size()


def bounced(site, ident, timeout=10):
    """(condition, kind of error) of what came back to raw.lab."""
    e = site.raw.expect_stanza(ident, timeout)
    assert e.get("type") == "error", e.attrib
    error = next(c for c in e if c.tag.endswith("}error"))
    return stanza_error(e)[0], error.get("type")


def through(site, stream, to, inside, ident=None):
    """One message from outside arrives at this inside; how long it took."""
    ident, began = ident or fresh("through"), time.monotonic()
    stream.send(message("juliet@raw.lab/x", to, ident))
    came = inside.expect(id=ident)
    assert all(not i.seen(id=ident) for i in site.insides if i is not inside)
    return came[0] - began


def out(site, inside, sender, ident=None, name=None):
    """One message from this inside arrives outside."""
    ident = ident or fresh("out")
    inside.say(message(sender, "juliet@raw.lab/x", ident), name)
    assert site.raw.expect_stanza(ident).get("from") == sender


@pytest.fixture
def new_site(fresh_lab):
    """Makes a Site whose streams from outside hang up before the gateway stops, which would wait
    for their closing tags."""
    made = []

    def make(*args, **settings):
        made.append(Site(fresh_lab, *args, **settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


# ---- by local domain -----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def two(lab):
    """alpha.lab is behind one link, gamma.lab behind the other."""
    site = Site(lab, (A, B), [link(lab, "a", A, domains=["alpha.lab"]),
                              link(lab, "b", B, domains=["gamma.lab"])],
                limits={"hold_time": "2s", "link_high": "256K", "link_low": "64K"})
    yield site
    site.close()


def test_a_domain_has_its_link(two):
    a, b = two.insides
    alpha, gamma = two.stream("alpha.lab"), two.stream("gamma.lab")
    through(two, alpha, "romeo@alpha.lab", a)
    through(two, gamma, "romeo@gamma.lab", b)
    out(two, a, "romeo@alpha.lab/lab")
    out(two, b, "romeo@gamma.lab/lab")


def test_one_stream_from_outside_for_both(two):
    """Two pairs on one stream: each stanza goes its own way."""
    a, b = two.insides
    s = two.stream("alpha.lab")
    s.ask_result("raw.lab", "gamma.lab")
    assert s.read().get("type") == "valid"
    through(two, s, "romeo@alpha.lab", a)
    through(two, s, "romeo@gamma.lab", b)


@pytest.mark.parametrize("sender,reason", [("romeo@gamma.lab/x", "from-of-other-link"),
                                           ("juliet@any.lab/x", "foreign-from"),
                                           ("romeo@nowhere.lab/x", "foreign-from")])
def test_a_link_speaks_for_its_own_domains_only(two, sender, reason):
    a, b = two.insides
    ident, since = fresh("forged"), mark(two)
    a.say(message(sender, "juliet@raw.lab/x", ident))
    out(two, a, "romeo@alpha.lab/lab")  # a fence: on the same link, so the link lives
    two.gateway.wait_log(rf"stanza\.refused .*reason={reason} link=a", since)
    out(two, b, "romeo@gamma.lab/lab")
    assert ident not in ids_outside(two.raw)
    assert "link.down" not in two.gateway.log(since)


def test_local_domains_do_not_meet_through_the_gateway(two):
    """Refused with an answer, as a mistake rather than an attack; nobody else sees it."""
    a, b = two.insides
    ident = fresh("local")
    a.say(message("romeo@alpha.lab/x", "romeo@gamma.lab", ident))
    a.expect(id=ident, type="error")
    out(two, b, "romeo@gamma.lab/lab")
    assert b.seen(id=ident) == [] and ident not in ids_outside(two.raw)


def test_an_error_comes_back_by_the_domains_link(two):
    a, b = two.insides
    for inside, other, domain in ((a, b, "alpha.lab"), (b, a, "gamma.lab")):
        ident = fresh("unreachable")
        inside.say(message(f"romeo@{domain}/x", "nobody@nowhere.lab", ident))
        inside.expect(id=ident, type="error")
        assert other.seen(id=ident) == []


def test_one_down_does_not_disturb_the_other(two):
    """What is for the lost link waits, then bounces; the other one's goes on at once."""
    a, b = two.insides
    alpha, gamma = two.stream("alpha.lab"), two.stream("gamma.lab")
    since, ups = mark(two), a.ups
    a.away()
    two.gateway.wait_log(r"link\.down .*link=a ", since)
    began = time.monotonic()
    waiting = [fresh("waits") for _ in range(5)]
    for ident in waiting:
        alpha.send(message("juliet@raw.lab/x", "romeo@alpha.lab", ident))
    slowest = max(through(two, gamma, "romeo@gamma.lab", b) for _ in range(20))
    assert slowest < 0.5
    for ident in waiting:
        assert bounced(two, ident) == ("remote-server-timeout", "wait")
    assert time.monotonic() - began > 1.5  # hold_time
    at_once, began = fresh("at-once"), time.monotonic()
    alpha.send(message("juliet@raw.lab/x", "romeo@alpha.lab", at_once))
    assert bounced(two, at_once) == ("remote-server-timeout", "wait")
    assert time.monotonic() - began < 1
    through(two, gamma, "romeo@gamma.lab", b)
    out(two, b, "romeo@gamma.lab/lab")
    a.open()
    a.wait_up(ups + 1, 20)
    through(two, alpha, "romeo@alpha.lab", a)
    assert not [i for i in waiting if a.seen(id=i)]
    assert "link=b" not in "".join(line for line in two.gateway.log(since).splitlines()
                                   if "link.down" in line)


def test_held_for_the_lost_link_arrives_in_order(two):
    a, _ = two.insides
    alpha = two.stream("alpha.lab")
    since, ups = mark(two), a.ups
    a.hang_up()
    two.gateway.wait_log(r"link\.down .*link=a ", since)
    held = [fresh("held") for _ in range(20)]
    for ident in held:
        alpha.send(message("juliet@raw.lab/x", "romeo@alpha.lab", ident))
    a.wait_up(ups + 1, 20)
    a.expect(id=held[-1])
    assert [i for i in ids_inside(a) if i in held] == held


def test_one_that_stops_reading_does_not_disturb_the_other(two):
    """Its feeding streams are paused; other streams, and other links, are not."""
    a, b = two.insides
    alpha, gamma = two.stream("alpha.lab"), two.stream("gamma.lab")
    a.stop_reading()
    count, body = 60, "x" * 100_000
    alpha.sock.settimeout(None)
    many = Flow(fresh("stuck"), alpha.send, "raw.lab", "romeo@alpha.lab", senders=1, rate=500,
                body=body)
    try:
        wait_for(lambda: _queued(two, "a") > 256 * 1024, 20, "the link to be full")
        slowest = max(through(two, gamma, "romeo@gamma.lab", b) for _ in range(50))
        print(f"one link full: the slowest of 50 by the other one took {slowest * 1000:.1f} ms")
        assert slowest < 0.5
        out(two, b, "romeo@gamma.lab/lab")
        assert _queued(two, "a") < 1 << 20  # paused, not piled up
        wait_for(lambda: many.sent >= count or _stands(many), 10, "the stuck stream to stand")
    finally:
        many.over.set()
        a.go_on_reading()
    many.stop()
    a.wait(lambda: len(numbers(ids_inside(a), many.what)) == many.sent, 20, "all of them")
    assert numbers(ids_inside(a), many.what) == list(range(many.sent))


def _stands(flow):
    before = flow.sent
    time.sleep(0.2)  # the window in which nothing may be sent: what is measured
    return flow.sent == before


def _queued(site, name):
    """Bytes that wait for a link."""
    since = mark(site)
    ask_books(site.gateway)
    line = site.gateway.wait_log(rf"state\.link link={name} ", since)
    return int(line.split(" queued=")[1].split()[0])


# ---- by priority ---------------------------------------------------------------------------------

@pytest.fixture
def ranked(fresh_lab, new_site):
    """Both links carry both domains; the first one is preferred."""
    lab = fresh_lab
    return new_site((A, B), [link(lab, "first", A), link(lab, "second", B, priority=10)],
                    limits={"link_high": "1M", "link_low": "256K"})


def flow_in(site, what, local="alpha.lab", **kw):
    s = site.stream(local)
    s.sock.settimeout(None)
    return Flow(what, s.send, "raw.lab", f"romeo@{local}", **kw)


def settled(site, what, flow, insides):
    """Waits until each number has come to an end; the ids of each inside, and what bounced."""
    def fates():
        arrived = [numbers(ids_inside(i), what) for i in insides]
        return arrived, numbers(ids_outside(site.raw, errors=True), what)

    def done():
        arrived, errors = fates()
        return sum(map(len, arrived)) + len(errors) >= flow.sent

    wait_for(done, 20, f"{flow.sent} ends of {what}", lambda: str([len(x) for x in fates()[0]]))
    return fates()


def test_the_preferred_one_takes_everything(ranked):
    first, second = ranked.insides
    flow = flow_in(ranked, "rank", rate=1000)
    flow.wait_sent(300)
    flow.stop()
    (one, two), errors = settled(ranked, "rank", flow, ranked.insides)
    assert (len(one), two, errors) == (flow.sent, [], [])
    out(ranked, second, "romeo@alpha.lab/x")  # the standby may speak all the same


def test_the_preferred_one_stops_in_order(ranked):
    """Under traffic, and it comes back: none lost, none bounced, none doubled."""
    first, second = ranked.insides
    flow = flow_in(ranked, "stop", rate=1000)
    flow.wait_sent(300)
    since = mark(ranked)
    first.end_in_order()
    second.wait(lambda: len(numbers(ids_inside(second), "stop")) > 200, what="the standby")
    first.wait_up(2, 20)
    before = len(numbers(ids_inside(first), "stop"))
    first.wait(lambda: len(numbers(ids_inside(first), "stop")) > before + 200, what="the first")
    here = len(numbers(ids_inside(second), "stop"))
    flow.wait_sent(300)
    flow.stop()
    (one, two), errors = settled(ranked, "stop", flow, ranked.insides)
    assert_once(one + two, errors, flow.sent, "stop")
    assert errors == [] and len(two) == here, "the standby was used although the first is back"
    for inside in ranked.insides:
        assert_in_order(ids_inside(inside), "stop")
    assert "link.down" in ranked.gateway.log(since)


def test_the_preferred_one_dies(ranked):
    """It has stopped reading, so much is unsent; then it is gone. What no byte of has left goes by
    the standby at once, before what comes later; what the kernel had taken for the dead one is
    lost, one piece of the sequence; of the one that was cut in the middle the sender is told."""
    first, second = ranked.insides
    first.stop_reading()
    flow = flow_in(ranked, "dies", senders=5, rate=500, body="x" * 50_000)
    wait_for(lambda: _queued(ranked, "first") > 1 << 20, 20, "the link to be full")
    sent = flow.sent
    died = time.monotonic()
    first.away()
    second.wait(lambda: ids_inside(second), what="the standby")
    took = next(h for h in second.heads if h[1] == "message")[0] - died
    flow.wait_sent(100)
    flow.stop()
    first.go_on_reading()
    ids = f"dies.{(flow.sent - 1) % 5}.{flow.sent - 1}"
    second.expect(id=ids)
    one, two = (numbers(ids_inside(i), "dies") for i in ranked.insides)
    errors = numbers(ids_outside(ranked.raw, errors=True), "dies")
    lost = sorted(set(range(flow.sent)) - set(one) - set(two) - set(errors))
    print(f"{flow.sent} sent; {len(one)} read by the first, {len(lost)} lost in its socket, "
          f"{len(errors)} cut, {len(two)} by the standby, {sum(n < sent for n in two)} of which "
          f"were unsent; the standby had the first one after {took * 1000:.0f} ms")
    assert took < 0.5
    assert two == list(range(two[0], flow.sent)), "order, or one is missing"
    assert two[0] < sent - 15, "what was unsent did not go by the standby"
    assert lost == list(range(one[-1] + 1 if one else 0, one[-1] + 1 + len(lost) if one else
                              len(lost)))
    assert errors == ([two[0] - 1] if errors else [])
    assert lost[-1] + 1 + len(errors) == two[0]


def test_both_down(ranked):
    """What comes meanwhile waits and goes by the one that is back first."""
    first, second = ranked.insides
    s = ranked.stream("alpha.lab")
    second.away()
    first.away()
    for name in ("first", "second"):
        ranked.gateway.wait_log(rf" link\.down .*link={name}")
    held = [f"held-{i}" for i in range(10)]
    for ident in held:
        s.send(message("juliet@raw.lab/x", "romeo@alpha.lab", ident))
    second.open()
    second.expect(id=held[-1], timeout=20)
    assert ids_inside(second) == held
    first.open()
    first.wait_up(2, 20)
    through(ranked, s, "romeo@alpha.lab", first)


# ---- equal ones ----------------------------------------------------------------------------------

@pytest.fixture
def equal(fresh_lab, new_site):
    lab = fresh_lab
    return new_site((A, B), [link(lab, "left", A), link(lab, "right", B)])


SENDERS = 24


def places(site, what):
    """{sender: the insides that it came to}"""
    found = {}
    for at, inside in enumerate(site.insides):
        for sender in by_sender(ids_inside(inside), what):
            found.setdefault(sender, set()).add(at)
    return found


def round_(site, what, insides=None):
    flow = flow_in(site, what, senders=SENDERS, rate=2000)
    flow.wait_sent(10 * SENDERS)
    flow.stop()
    arrived, errors = settled(site, what, flow, insides or site.insides)
    assert_once(sum(arrived, []), errors, flow.sent, what)
    assert errors == []
    for inside in site.insides:
        assert_in_order(ids_inside(inside), what)
    return places(site, what)


def test_equal_ones_share_the_senders(equal):
    """Each sender stays on one, in order. When one is gone only its senders move, and they return
    to it when it is back."""
    left, right = equal.insides
    before = round_(equal, "both")
    assert all(len(p) == 1 for p in before.values())
    assert set().union(*before.values()) == {0, 1}
    since = mark(equal)
    left.away()
    equal.gateway.wait_log(r"link\.down .*link=left", since)
    assert round_(equal, "alone") == {s: {1} for s in range(SENDERS)}
    left.open()
    left.wait_up(2, 20)
    assert round_(equal, "again") == before


def test_one_sender_from_two_streams(equal):
    """The address decides, not the stream that brought it; its resource does not count."""
    one, two = equal.stream("alpha.lab"), equal.stream("alpha.lab")
    for n in range(20):
        (one, two)[n % 2].send(message(f"juliet@raw.lab/r{n}", "romeo@alpha.lab", f"same-{n}"))
    wait_for(lambda: sum(len(ids_inside(i)) for i in equal.insides) == 20, what="all to arrive")
    assert sorted(len(ids_inside(i)) for i in equal.insides) == [0, 20]


def test_one_of_two_equal_ones_dies_under_traffic(equal):
    """Ten senders; the dead one's senders go on by the other, in order."""
    left, right = equal.insides
    flow = flow_in(equal, "half", senders=10, rate=1000)
    flow.wait_sent(300)
    left.away()
    flow.wait_sent(300)
    left.open()
    left.wait_up(2, 20)
    flow.wait_sent(300)
    flow.stop()
    last = flow.sent - 1
    wait_for(lambda: any(i.seen(id=flow.ident(last)) for i in equal.insides), what="the last one")
    arrived = sum((numbers(ids_inside(i), "half") for i in equal.insides), [])
    errors = numbers(ids_outside(equal.raw, errors=True), "half")
    lost = sorted(set(range(flow.sent)) - set(arrived) - set(errors))
    print(f"{flow.sent} sent, {len(arrived)} arrived, {len(errors)} bounced, {len(lost)} in the "
          "dead one's socket")
    assert len(arrived) == len(set(arrived)) and not set(arrived) & set(errors)
    assert len(lost) <= 50
    for inside in equal.insides:
        assert_in_order(ids_inside(inside), "half")


# ---- listed partners -----------------------------------------------------------------------------

UNLISTED = 43


@pytest.fixture(params=["a stream for each", "one stream"])
def partners(fresh_lab, new_site, request):
    """alpha.lab with raw.lab and any.lab as its partners; gamma.lab with everybody."""
    lab = fresh_lab
    name = None if request.param == "a stream for each" else "edge.alpha.example"
    made = new_site((A, B), [link(lab, "listed", A, domains=["alpha.lab"], component=name,
                                  partners=["raw.lab", "any.lab"]),
                             link(lab, "all", B, domains=["gamma.lab"])],
                    {"unlisted.lab": [(UNLISTED, labnet.S2S, 10)]}, limits={"hold_time": "2s"})
    made.unlisted = lab.at_end(RemoteServer(lab.ip(UNLISTED), "unlisted.lab"))
    made.names = {"raw.lab": name or "raw.lab", "any.lab": name or "any.lab"}
    made.insides[0].wait_joined(*made.names.values())
    return made


def test_partners_have_their_streams(partners):
    listed, _ = partners.insides
    for partner in ("raw.lab", "any.lab"):
        s = partners.stream("alpha.lab", partner)
        s.send(message(f"juliet@{partner}/x", "romeo@alpha.lab", f"by-{partner}"))
        assert listed.expect(id=f"by-{partner}").name == partners.names[partner]
    out(partners, listed, "romeo@alpha.lab/x", name=partners.names["raw.lab"])
    listed.say(message("romeo@alpha.lab/x", "j@any.lab", "to-any"), partners.names["any.lab"])
    partners.any.expect_stanza("to-any")


def test_who_is_no_partner(partners):
    """Inwards the sender is told that nothing carries it; outwards the link speaks for no more than
    it lists."""
    listed, everybody = partners.insides
    s = partners.stream("alpha.lab", "unlisted.lab")
    s.send(message("juliet@unlisted.lab/x", "romeo@alpha.lab", "unlisted-in"))
    e = partners.unlisted.expect_stanza("unlisted-in")
    assert (e.get("type"), stanza_error(e)[0]) == ("error", "service-unavailable")
    since, name = mark(partners), partners.names["raw.lab"]
    listed.say(message("romeo@alpha.lab/x", "juliet@unlisted.lab", "unlisted-out"), name)
    partners.gateway.wait_log(r"stanza\.refused .*reason=no-partner link=listed", since)
    out(partners, listed, "romeo@alpha.lab/x", name=name)
    assert "unlisted-out" not in ids_outside(partners.unlisted)
    everybody.say(message("romeo@gamma.lab/x", "juliet@unlisted.lab", "gamma-out"))
    partners.unlisted.expect_stanza("gamma-out")


def test_a_stream_is_for_its_partner(partners):
    listed, _ = partners.insides
    name = partners.names["raw.lab"]
    since = mark(partners)
    listed.say(message("romeo@alpha.lab/x", "juliet@any.lab", "crossed"), name)
    if name == "raw.lab":
        partners.gateway.wait_log(r"stanza\.refused .*reason=to-of-other-partner", since)
    else:
        partners.any.expect_stanza("crossed")
    out(partners, listed, "romeo@alpha.lab/x", name=name)
    assert ("crossed" in ids_outside(partners.any)) == (name != "raw.lab")


def test_one_partners_stream_is_cut(partners):
    """The others go on; what is for it waits and arrives."""
    listed, everybody = partners.insides
    raw, any_ = partners.stream("alpha.lab"), partners.stream("alpha.lab", "any.lab")
    gamma = partners.stream("gamma.lab")
    since = mark(partners)
    broken = listed.by_name.pop(partners.names["raw.lab"])
    ups = listed.ups
    broken.sock.shutdown(2)
    partners.gateway.wait_log(r" link\.down ", since)
    for n in range(10):
        raw.send(message("juliet@raw.lab/x", "romeo@alpha.lab", f"cut-{n}"))
        any_.send(message("juliet@any.lab/x", "romeo@alpha.lab", f"whole-{n}"))
    through(partners, gamma, "romeo@gamma.lab", everybody)
    if partners.names["any.lab"] == "any.lab":
        listed.expect(id="whole-9")
        assert listed.ups == ups and not listed.seen(id="cut-0")
    listed.wait_up(ups + 1, 20)
    listed.expect(id="cut-9")
    for what in ("cut", "whole"):
        came = [i for i in ids_inside(listed) if i.startswith(what)]
        assert came == [f"{what}-{n}" for n in range(10)]


# ---- reload --------------------------------------------------------------------------------------

class Talk:
    """Traffic both ways: two flows from outside, and what each inside says to raw.lab."""

    def __init__(self, site, speakers):
        self.site = site
        self.flows = {w: flow_in(site, w, local, senders=10, rate=300)
                      for w, local in (("alpha", "alpha.lab"), ("gamma", "gamma.lab"))}
        for n, inside in speakers.items():
            def say(text, inside=inside):
                inside.say(text)
            self.flows[f"out{n}"] = Flow(f"out{n}", say, "alpha.lab", "juliet@raw.lab", rate=200)

    def go_on(self, more=100):
        wait_all_sent([f for f in self.flows.values() if not f.over.is_set()], more)

    def stop(self, *names):
        for name in names or list(self.flows):
            self.flows[name].stop()

    def judge(self):
        site, told = self.site, []
        for what, flow in self.flows.items():
            if what.startswith("out"):
                wait_for(lambda: len(numbers(ids_outside(site.raw), what)) >= flow.sent, 20,
                         f"{flow.sent} of {what}",
                         lambda: str(len(numbers(ids_outside(site.raw), what))))
                arrived, errors = [ids_outside(site.raw)], []
            else:
                settled(site, what, flow, site.insides)
                arrived = [ids_inside(i) for i in site.insides]
                errors = numbers(ids_outside(site.raw, errors=True), what)
            assert_once(sum((numbers(a, what) for a in arrived), []), errors, flow.sent, what)
            assert errors == [], what
            for ids in arrived:
                assert_in_order(ids, what)
            told.append(f"{what}: {'+'.join(str(len(numbers(a, what))) for a in arrived)} "
                        f"of {flow.sent}")
        print("; ".join(told))


def test_reload_under_traffic(fresh_lab, new_site):
    """Links are added, changed and removed while everybody talks: nothing is lost, bounced, doubled
    or disordered, and what an inside said on a link that goes is still delivered."""
    lab = fresh_lab
    one, two = link(lab, "one", A), link(lab, "two", B)
    three = link(lab, "three", C)
    site = new_site((A, B, C), [one, two, three])
    site.relink([one])
    a, b, c = site.insides
    talk = Talk(site, {0: a})
    talk.go_on()

    site.relink([one, two])                                 # added, and shares from now on
    b.wait_up(2)
    b.wait(lambda: len(ids_inside(b)) > 50, what="the added link to be used")
    talk.flows["out1"] = Flow("out1", b.say, "alpha.lab", "juliet@raw.lab", rate=200)
    talk.go_on()

    site.relink([one, {**two, "priority": 5}])              # changed: a standby now
    b.wait_up(3)
    b.wait(lambda: b.ends == 2, what="the streams before to be read to their ends")
    used = len(ids_inside(b))
    talk.go_on()
    assert len(ids_inside(b)) == used
    talk.stop("out1")                                       # it will speak for gamma.lab only

    site.relink([{**one, "domains": ["alpha.lab"]}, {**two, "domains": ["gamma.lab"]}])
    a.wait_up(2), b.wait_up(4)
    a.wait(lambda: a.ends == 1, what="the stream before to be read to its end")
    a_used = [i for i in ids_inside(a) if i.startswith("gamma")]
    b.wait(lambda: len(numbers(ids_inside(b), "gamma")) > 50, what="gamma.lab's new link")
    talk.go_on()
    assert [i for i in ids_inside(a) if i.startswith("gamma")] == a_used

    talk.stop("out0")                                       # it loses its link for good
    site.relink([{**one, "address": three["address"]}, {**two, "domains": ["gamma.lab"]}])
    c.wait(lambda: len(numbers(ids_inside(c), "alpha")) > 50, what="the new address")
    talk.go_on(50)
    talk.stop()
    talk.judge()
    assert site.gateway.alive()


def test_removed_link_gives_its_unsent_to_another(fresh_lab, new_site):
    """Its inside does not read, so that much waits for it when it goes."""
    lab = fresh_lab
    one, two = link(lab, "one", A), link(lab, "two", B, priority=5)
    site = new_site((A, B), [one, two], limits={"link_high": "1M", "link_low": "256K"})
    a, b = site.insides
    a.stop_reading()
    flow = flow_in(site, "moved", senders=4, rate=500, body="x" * 50_000)
    wait_for(lambda: _queued(site, "one") > 1 << 20, 20, "the link to be full")
    sent = flow.sent
    site.relink([two])
    flow.wait_sent(100)
    site.gateway.wait_log(r" link\.down .*link=one", timeout=20)
    flow.stop()
    a.go_on_reading()
    a.wait(lambda: a.ends == 1, what="the removed stream to be read to its end")
    b.expect(id=flow.ident(flow.sent - 1))
    first, second = (numbers(ids_inside(i), "moved") for i in site.insides)
    errors = numbers(ids_outside(site.raw, errors=True), "moved")
    print(f"{flow.sent} sent, {sent} of them to the link that was removed; {len(first)} arrived "
          f"there, {len(errors)} bounced, {len(second)} by the other one")
    assert_once(first + second, errors, flow.sent, "moved")


# ---- real routers --------------------------------------------------------------------------------

class Routers:
    """alpha.lab behind two routers, each with a component of the server; the first is preferred."""

    def __init__(self, lab):
        self.lab = lab
        lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)], "raw.lab": [(RAW, labnet.S2S, 10)]})
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.routers = [lab.router(f"router{i}", host, "alpha.lab")
                        for i, host in enumerate((A, B))]
        self.users = [self.join(host) for host in (A, B)]
        self.gateway = lab.gateway(
            "gateway", "alpha.lab", Net.ALPHA, A, mode="no-tls", peers=ALLOW_ALL,
            timeouts={"close": "1s"}, links=[
                {"name": f"r{i}", "address": f"{lab.ip(host)}:{LINK}", "priority": 10 * i,
                 "component": "edge1.alpha.lab", "secret_file": lab.secret("alpha.lab-edge")}
                for i, host in enumerate((A, B))])
        for i in range(2):
            self.gateway.wait_log(rf" link\.up .*link=r{i}")
        self.out = lab.at_end(Outgoing([lab.ip(Net.ALPHA)], "raw.lab", "alpha.lab"))

    def join(self, host):
        secret = self.lab.secret("alpha.lab-im").read_text().strip()
        return self.lab.at_end(InsideUser(self.lab.ip(host), "alpha.lab", secret))

    def come_back(self, name):
        """The first router starts again, and its server joins it."""
        since = self.gateway.log_size()
        self.lab.start_router(name, self.lab.dir / "conf" / "router0.conf", A)
        self.users.append(self.join(A))
        self.gateway.wait_log(r" link\.up .*link=r0", since, 20)

    def wait_by(self, user, what, more=100):
        before = len(numbers(ids_of(user), what))
        user.wait(lambda: len(numbers(ids_of(user), what)) >= before + more, 20,
                  f"{more} more of {what}")


def ids_of(user):
    return [s.get("id") for s in list(user.stanzas)
            if s.kind == "message" and s.get("type") != "error"]


def test_the_preferred_router_stops_and_dies(fresh_lab):
    """Real routers. Stopped in order it takes nothing with it; killed it takes what was in its
    hands and in its sockets. Each time the other one goes on at once, and the first is used again
    when it is back."""
    site = Routers(fresh_lab)
    flow = Flow("real", site.out.send, "raw.lab", "romeo@alpha.lab", senders=10, rate=500)
    first, second = site.users
    site.wait_by(first, "real")
    stopped = flow.sent
    site.routers[0].stop()
    site.wait_by(second, "real")
    site.come_back("router0-again")
    site.wait_by(site.users[-1], "real")
    killed = flow.sent
    site.lab.procs[-1].kill()
    site.wait_by(second, "real")
    site.come_back("router0-third")
    site.wait_by(site.users[-1], "real")
    flow.stop()
    users = site.users

    def fates():
        return (sum((numbers(ids_of(u), "real") for u in users), []),
                numbers(ids_outside(site.raw, errors=True), "real"))

    users[-1].expect("message", id=flow.ident(flow.sent - 1))
    arrived, errors = fates()
    lost = sorted(set(range(flow.sent)) - set(arrived) - set(errors))
    print(f"{flow.sent} sent; by each server's stream {[len(ids_of(u)) for u in users]}; "
          f"{len(errors)} bounced; {len(lost)} lost in the killed router; stopped at {stopped}, "
          f"killed at {killed}")
    assert len(arrived) == len(set(arrived)) and not set(arrived) & set(errors), "doubled"
    assert len(lost) <= 25 and all(n > killed - 100 for n in lost), lost
    for user in users:
        assert_in_order(ids_of(user), "real")


# ---- two gateways on one router ------------------------------------------------------------------

class Gateways:
    """alpha.lab: one router, two gateways, each with a name of its own."""

    def __init__(self, lab):
        self.lab = lab
        self.hosts = (Net.ALPHA, 13)
        lab.dns({"alpha.lab": [(h, labnet.S2S, 10) for h in self.hosts],
                 "raw.lab": [(RAW, labnet.S2S, 10)]})
        self.raw = lab.at_end(RemoteServer(lab.ip(RAW), "raw.lab"))
        self.router = lab.router("router", Net.ALPHA_LINK, "alpha.lab", gateways=2)
        secret = lab.secret("alpha.lab-im").read_text().strip()
        self.romeo = lab.at_end(InsideUser(lab.ip(Net.ALPHA_LINK), "alpha.lab", secret))
        self.gateways = [lab.gateway(f"gateway{i}", "alpha.lab", host, Net.ALPHA_LINK, edge=i + 1,
                                     mode="no-tls", peers=ALLOW_ALL, timeouts={"close": "1s"})
                         for i, host in enumerate(self.hosts)]
        addresses = [lab.ip(h) for h in self.hosts]
        self.outs = [lab.at_end(Outgoing(a, "raw.lab", "alpha.lab"))
                     for a in (addresses, addresses[::-1])]
        self.flows = [Flow(f"in{i}", o.send, "raw.lab", "romeo@alpha.lab", senders=10, rate=250)
                      for i, o in enumerate(self.outs)]
        self.flows.append(Flow("out", self.romeo.send, "alpha.lab", "juliet@raw.lab", senders=20,
                               rate=400))

    def go_on(self, more=200):
        wait_all_sent(self.flows, more)

    def used(self, since=0):
        """The gateways that brought messages out."""
        return {peer for peer, e in self.raw.stanzas[since:]
                if (e.get("id") or "").startswith("out.")}

    def fates(self, what):
        if what == "out":
            return (numbers(ids_outside(self.raw), what),
                    numbers([s.get("id") for s in list(self.romeo.stanzas)
                             if s.get("type") == "error"], what))
        return (numbers(ids_of(self.romeo), what),
                numbers(ids_outside(self.raw, errors=True), what))

    def settle(self):
        """Fences behind everything; then {flow: (sent, arrived, bounced, lost)}."""
        for flow in self.flows:
            flow.stop()
        wait_for(lambda: all(
            flow.sent - 1 in sum(self.fates(flow.what), []) for flow in self.flows), 20, "the last")
        wait_for(lambda: not any(ask_books(g)[d][k] for g in self.gateways if g.alive()
                                 for d in ("in", "out") for k in ("waiting", "writing")), 20,
                 "nothing to be under way")
        out = {}
        for flow in self.flows:
            def done():
                arrived, errors = self.fates(flow.what)
                return len(arrived) + len(errors) >= flow.sent

            try:
                wait_for(done, 1)
            except labnet.Timeout:
                pass  # some are lost; they are counted
            arrived, errors = self.fates(flow.what)
            assert len(arrived) == len(set(arrived)), f"{flow.what}: doubled"
            assert len(errors) == len(set(errors)), f"{flow.what}: answered twice"
            assert not set(arrived) & set(errors), f"{flow.what}: arrived and bounced"
            lost = set(range(flow.sent)) - set(arrived) - set(errors)
            out[flow.what] = (flow.sent, len(arrived), len(errors), sorted(lost))
        for what, (sent, arrived, errors, lost) in out.items():
            print(f"{what}: {sent} sent, {arrived} arrived, {errors} bounced, {len(lost)} lost")
        return out


def test_two_gateways_one_stops_under_load(fresh_lab):
    """Both are used; one stops in order and comes back: nothing is lost."""
    us = Gateways(fresh_lab)
    us.go_on()
    assert us.used() == {us.lab.ip(h) for h in us.hosts}
    since = us.router.log_size()
    assert us.gateways[1].stop() == 0
    us.router.wait_log(r"\bedge2\b", since)
    mark_ = len(us.raw.stanzas)
    us.go_on()
    assert us.used(mark_) == {us.lab.ip(us.hosts[0])}
    back = us.lab.start_gateway("gateway1-again", us.gateways[1].conf, us.hosts[1])
    us.gateways.append(back)
    back.wait_log(labnet.LOG_LINK_UP)
    mark_ = len(us.raw.stanzas)
    us.go_on()
    assert us.used(mark_) == {us.lab.ip(h) for h in us.hosts}
    for what, (sent, arrived, errors, lost) in us.settle().items():
        assert lost == [], what


def test_two_gateways_one_killed_under_load(fresh_lab):
    us = Gateways(fresh_lab)
    us.go_on()
    us.gateways[1].kill()
    us.go_on()
    back = us.lab.start_gateway("gateway1-again", us.gateways[1].conf, us.hosts[1])
    us.gateways.append(back)
    back.wait_log(labnet.LOG_LINK_UP)
    us.go_on()
    for what, (sent, arrived, errors, lost) in us.settle().items():
        # In the hands of the killed gateway, in its sockets: a few milliseconds of the traffic.
        assert len(lost) <= 25, (what, lost)
    assert us.outs[0].hang_ups == 0 and us.outs[1].hang_ups == 1
