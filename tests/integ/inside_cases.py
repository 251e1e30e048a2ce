"""What is tested with each real inside server; the files that name a server give the `office`."""
import pytest
import twenty
from insides import EDGES, PRIVATE, SECOND, STANZA_SIZE
from labnet import LOG_LINK_UP, Net

BURST = 20
PING = "<ping xmlns='urn:xmpp:ping'/>"
DISCO = "http://jabber.org/protocol/disco#info"


@pytest.fixture(scope="module")
def beta(office):
    return office.beta()


@pytest.fixture(scope="module")
def stranger(office):
    return office.user("stranger", PRIVATE)


@pytest.fixture(params=["played", "second gateway"])
def scene(office, beta, stranger, request):
    """With each kind of remote side."""
    outside = office.raw if request.param == "played" else beta
    standby = office.join(EDGES[1])
    yield office.scene(outside, stranger=stranger, standby=standby)
    since = office.proc.log_size()
    standby.close()
    office.wait_noticed(EDGES[1], since)


def test_twenty_checks(scene):
    twenty.assert_passes(scene)


def test_chat_room(scene):
    twenty.assert_passes(scene, twenty.ROOM)


# ---- stanzas for the gateway itself --------------------------------------------------------------

def test_own_name(office):
    """Ping and disco#info are answered, everything else is refused."""
    romeo, edge = office.romeo, EDGES[0]
    for ident, inner in (("own-ping", PING), ("own-disco", f"<query xmlns='{DISCO}'/>")):
        romeo.send(romeo.stanza("iq", edge, ident, inner, "get"))
        got = romeo.expect("iq", id=ident, from_=edge)
        assert got.get("type") == "result", got
    assert {c.tag for c in got.child("query")} == {f"{{{DISCO}}}identity", f"{{{DISCO}}}feature"}
    romeo.send(romeo.stanza("iq", edge, "own-other", "<q xmlns='urn:example:other'/>", "get"))
    romeo.send(romeo.stanza("message", edge, "own-message", "<body>hello?</body>"))
    for kind, ident in (("iq", "own-other"), ("message", "own-message")):
        assert romeo.expect(kind, id=ident, from_=edge).condition == "service-unavailable"
    romeo.send(romeo.stanza("iq", edge, "own-error", "<error type='cancel'/>", "error"))
    romeo.send(romeo.stanza("iq", edge, "own-fence", PING, "get"))
    romeo.expect("iq", id="own-fence", type="result")
    assert "own-error" not in twenty.ids(romeo)


def test_own_name_from_outside(office):
    """Below a local domain it is the inside server's to route, and comes back."""
    raw, edge = office.raw, EDGES[0]
    raw.send(raw.stanza("iq", edge, "far-ping", PING, "get"))
    raw.send(raw.stanza("message", edge, "far-message", "<body>hello?</body>"))
    assert raw.expect("iq", id="far-ping", from_=edge).get("type") == "result"
    assert raw.expect("message", id="far-message", from_=edge).condition == "service-unavailable"


# ---- too large -----------------------------------------------------------------------------------

def message_of(user, to, ident, size):
    """A message of so many bytes."""
    text = user.stanza("message", to, ident, "<body></body>", "chat")
    return text.replace("<body>", "<body>" + "x" * (size - len(text)))


def test_large_ones_in_a_row(office):
    """Of the size that the gateway and the server have agreed on, without a pause between them."""
    since = office.gateway.log_size()
    for i in range(5):
        office.raw.send(message_of(office.raw, office.romeo.jid, f"row-{i}", STANZA_SIZE))
    office.romeo.expect("message", id="row-4", timeout=20)
    assert [i for i in twenty.ids(office.romeo) if i.startswith("row-")] == [
        f"row-{i}" for i in range(5)]
    assert "link.down" not in office.gateway.log(since)


def test_too_large_ends_its_own_stream(office):
    """One byte more: who sent it loses the stream; the link and the others do not feel it."""
    since = office.gateway.log_size()
    office.any.send(message_of(office.any, office.romeo.jid, "too-large", STANZA_SIZE + 1))
    assert office.any.out[office.romeo.domain].read_error() == "policy-violation"
    office.any.hang_up()
    for user in (office.raw, office.any):
        ident = f"beside-{user.domain}"
        user.send(user.stanza("message", office.romeo.jid, ident, "<body>on we go</body>"))
        office.romeo.expect("message", id=ident)
    assert "too-large" not in twenty.ids(office.romeo)
    assert "link.down" not in office.gateway.log(since)


def test_too_large_inwards_is_bounced(office):
    """What fits the stream from outside and grows on its way in: CDATA must be written anew."""
    since = office.gateway.log_size()
    office.raw.send(office.raw.stanza(
        "message", office.romeo.jid, "grows", f"<body><![CDATA[{'<' * 100000}]]></body>"))
    office.any.send(office.any.stanza("message", office.romeo.jid, "beside", "<body>x</body>"))
    assert office.raw.expect("message", id="grows", type="error").condition == "policy-violation"
    office.romeo.expect("message", id="beside")
    assert "grows" not in twenty.ids(office.romeo)
    assert "link.down" not in office.gateway.log(since)


def test_too_large_outwards_is_bounced(office):
    since = office.gateway.log_size()
    romeo = office.romeo
    romeo.send(message_of(romeo, office.raw.jid, "large-out", STANZA_SIZE + 1000))
    romeo.send(romeo.stanza("message", office.raw.jid, "beside-out", "<body>x</body>"))
    assert romeo.expect("message", id="large-out", type="error").condition == "policy-violation"
    office.raw.expect_stanza("beside-out")
    assert "large-out" not in twenty.ids(office.raw)
    assert "link.down" not in office.gateway.log(since)


# ---- the link is cut -----------------------------------------------------------------------------

def test_link_cut_and_mended(office):
    """Meanwhile who writes to the outside gets an error, and what comes from outside waits; every
    stanza comes to its end, once, in order."""
    romeo, raw = office.romeo, office.raw
    twenty.deliver(office.scene(raw), raw, romeo)  # the stream from outside stands
    lost, since = office.proc.log_size(), office.gateway.log_size()
    office.cable.cut()
    office.wait_noticed(EDGES[0], lost)
    office.gateway.wait_log(r"\blink\.down\b", since)
    for i in range(BURST):
        romeo.send(romeo.stanza("message", raw.jid, f"cut-out-{i}", "<body>x</body>", "chat"))
        raw.send(raw.stanza("message", romeo.jid, f"cut-in-{i}", "<body>x</body>", "chat"))
    for i in range(BURST):
        got = romeo.expect("message", id=f"cut-out-{i}", type="error")
        assert got.condition == "remote-server-timeout", got
        assert got.child("error").get("type") == "wait", got
    office.cable.mend()
    office.gateway.wait_log(LOG_LINK_UP, since)
    for i in range(BURST):
        romeo.send(romeo.stanza("message", raw.jid, f"mended-{i}", "<body>x</body>", "chat"))
    raw.expect_stanza(f"mended-{BURST - 1}")
    romeo.expect("message", id=f"cut-in-{BURST - 1}")
    here = [i for i in twenty.ids(romeo) if i.startswith("cut-in")]
    assert here == [f"cut-in-{i}" for i in range(BURST)]
    there = [i for i in twenty.ids(raw) if i.startswith(("cut-", "mended"))]
    assert there == [f"mended-{i}" for i in range(BURST)]


# ---- two gateways --------------------------------------------------------------------------------

def way_of(office, ident):
    """The address of the gateway that brought a stanza to raw.lab."""
    office.raw.expect_stanza(ident)
    return next(peer for peer, e in office.raw.stanzas if e.get("id") == ident)


def tell(office, ident):
    office.romeo.send(office.romeo.stanza("message", office.raw.jid, ident, "<body>x</body>"))


def test_two_gateways_by_preference(office):
    """The first that is connected takes everything; the other one delivers all the same, and steps
    in when the first dies; and the first is preferred again when it is back."""
    lab, raw = office.lab, office.raw
    second = office.start_gateway("gateway2", SECOND, EDGES[1], office.server.host)
    first_address, second_address = office.address, lab.ip(SECOND)
    tell(office, "prefer-1")
    assert way_of(office, "prefer-1") == first_address
    raw.hang_up()
    raw.gateway = second_address
    twenty.deliver(office.scene(raw), raw, office.romeo)
    lost = office.proc.log_size()
    office.gateway.kill()
    office.wait_noticed(EDGES[0], lost)
    for i in range(BURST):
        tell(office, f"failover-{i}")
    for i in range(BURST):
        assert way_of(office, f"failover-{i}") == second_address
    twenty.deliver(office.scene(raw), raw, office.romeo)
    office.gateway = lab.start_gateway("gateway1b", office.gateway.conf, Net.ALPHA)
    office.gateway.wait_log(LOG_LINK_UP)
    tell(office, "prefer-2")
    assert way_of(office, "prefer-2") == first_address
    raw.hang_up()
    raw.gateway = first_address
    assert second.stop() == 0


def test_without_any_gateway(office):
    """The last to go: every kind of stanza is answered where an answer is allowed."""
    romeo, lost = office.romeo, office.proc.log_size()
    office.gateway.stop()
    office.wait_noticed(EDGES[0], lost)
    for kind, type_ in (("message", None), ("iq", "get"), ("presence", "subscribe")):
        ident = f"alone-{kind}"
        romeo.send(romeo.stanza(kind, "somebody@any.example", ident, "<x xmlns='urn:example:x'/>",
                                type_))
        got = romeo.expect(kind, type="error", from_="somebody@any.example")
        assert got.condition == "remote-server-timeout", got
    for type_ in ("result", "error"):
        romeo.send(romeo.stanza("iq", "somebody@any.example", f"silent-{type_}", type_=type_))
    romeo.send(romeo.stanza("iq", "somebody@any.example", "alone-fence", PING, "get"))
    romeo.expect("iq", id="alone-fence", type="error")
    assert not [i for i in twenty.ids(romeo) if i.startswith("silent")]
