"""A gateway before servers as they come, without a module: remote domains are listed on both sides.

Prosody is joined by one stream for each partner, named like it; ejabberd by one for all."""
import insides
import pytest
import twenty
from conftest import new_lab
from insides import PRIVATE, Office
from labnet import S2S
from twenty import Played

SERVERS = {"prosody": insides.PLAIN_PROSODY, "ejabberd": insides.PLAIN_EJABBERD}
UNLISTED, UNLISTED_HOST = "unlisted.lab", 43


@pytest.fixture(scope="module", params=list(SERVERS))
def office(request):
    server = SERVERS[request.param]
    if not server.usable():
        pytest.skip(f"{server.name} is not installed, or needs root")
    with new_lab(f"{request.module.__name__}/{server.name}") as lab:
        yield Office(lab, server, {UNLISTED: [(UNLISTED_HOST, S2S, 10)]})


@pytest.fixture(scope="module")
def beta(office):
    return office.beta()


@pytest.fixture(scope="module")
def stranger(office):
    return office.user("stranger", PRIVATE)


@pytest.fixture(params=["played", "second gateway"])
def scene(office, beta, stranger, request):
    outside = office.raw if request.param == "played" else beta
    return office.scene(outside, stranger=stranger)


def test_twenty_checks(scene):
    twenty.assert_passes(scene)


def test_chat_room(scene):
    twenty.assert_passes(scene, twenty.ROOM)


def test_unlisted_domain(office):
    """Outwards the server refuses by itself; inwards the gateway does: no link carries it."""
    romeo, since = office.romeo, office.gateway.log_size()
    unlisted = office.lab.at_end(Played(office.lab, UNLISTED_HOST, UNLISTED, office.address))
    romeo.send(romeo.stanza("message", unlisted.jid, "unlisted-out", "<body>x</body>"))
    assert romeo.expect("message", id="unlisted-out", type="error").condition
    assert UNLISTED not in office.gateway.log(since)
    unlisted.send(unlisted.stanza("message", romeo.jid, "unlisted-in", "<body>x</body>"))
    got = unlisted.expect("message", id="unlisted-in", type="error")
    assert got.condition, got
    twenty.deliver(office.scene(office.raw), office.raw, romeo)
    assert "unlisted-in" not in twenty.ids(romeo)


def test_cut_and_mended(office):
    """All streams at once; each comes back, and brings what has waited for it."""
    romeo, since = office.romeo, office.gateway.log_size()
    partners = (office.raw, office.any)
    scenes = [office.scene(p) for p in partners]
    for scene in scenes:
        twenty.deliver(scene, scene.outside, romeo)
    office.cable.cut()
    office.gateway.wait_log(r"\blink\.down\b", since)
    for p in partners:
        p.send(p.stanza("message", romeo.jid, f"waits-{p.domain}", "<body>x</body>", "chat"))
    office.cable.mend()
    office.wait_streams(office.gateway, since)
    for p, scene in zip(partners, scenes):
        assert romeo.expect("message", id=f"waits-{p.domain}").get("from") == p.jid
        twenty.deliver(scene, romeo, p)
