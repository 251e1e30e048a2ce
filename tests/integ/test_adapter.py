"""xcp/adapters/mod_sallyport.lua in a real Prosody; the gateways are played by bare components."""
import shutil

import labnet
import pytest
import servers
from actors import InsideUser, ServerUser
from labnet import Net

GATEWAYS = ("edge1.inside.lab", "edge2.inside.lab")


@pytest.fixture
def prosody(fresh_lab):
    if not shutil.which("prosody"):
        pytest.skip("prosody is not installed")
    fresh_lab.proc = servers.start_prosody(fresh_lab, GATEWAYS)
    return fresh_lab


def join(lab, name):
    secret = lab.secret("edge").read_text().strip()
    return lab.at_end(InsideUser(lab.ip(Net.PROSODY), name, secret))


def romeo(lab):
    return lab.at_end(ServerUser(lab.ip(Net.PROSODY), servers.INSIDE, "romeo"))


def send(user, ident, kind="message", **kw):
    user.send(user.stanza(kind, "juliet@any.example", ident, "<x xmlns='urn:example:x'/>", **kw))


def leave(lab, gateway, name):
    since = lab.proc.log_size()
    gateway.close()
    lab.proc.wait_log(rf"{name.split('.')[0]}.*disconnected|component disconnected: {name}", since)


def test_order_of_preference_and_failover(prosody):
    user, second = romeo(prosody), join(prosody, GATEWAYS[1])
    send(user, "to-second")
    second.expect("message", id="to-second", from_=user.jid, to="juliet@any.example")
    first = join(prosody, GATEWAYS[0])
    send(user, "to-first")
    first.expect("message", id="to-first")
    leave(prosody, first, GATEWAYS[0])
    send(user, "to-second-again")
    second.expect("message", id="to-second-again")
    assert [s.get("id") for s in second.stanzas] == ["to-second", "to-second-again"]


def test_without_a_gateway(prosody):
    user = romeo(prosody)
    send(user, "lost", kind="iq", type_="get")
    got = user.expect("iq", id="lost", type="error")
    assert got.condition == "remote-server-timeout"
    assert got.child("error").get("type") == "wait"
    for kind in ("error", "result"):
        send(user, f"silent-{kind}", kind="iq", type_=kind)
    send(user, "after")
    user.expect("message", id="after", type="error")
    assert not [s for s in user.stanzas if (s.get("id") or "").startswith("silent")]


def test_either_gateway_delivers(prosody):
    user = romeo(prosody)
    for name in GATEWAYS:
        gateway = join(prosody, name)
        gateway.send(f"<message from='juliet@any.example/x' to='{user.jid}' id='{name}'>"
                     "<body>words</body></message>")
        got = user.expect("message", id=name)
        assert (got.get("from"), got.body) == ("juliet@any.example/x", "words")


def test_nothing_between_others(prosody):
    """A stanza between two foreign domains goes nowhere, and is not answered into the gateway as if
    it were ours."""
    user, gateway = romeo(prosody), join(prosody, GATEWAYS[0])
    gateway.send("<message from='a@one.example' to='b@two.example' id='foreign'/>")
    send(user, "fence")
    gateway.expect("message", id="fence")
    assert not [s for s in gateway.stanzas if s.get("type") == "error"]


def test_nothing_by_s2s(fresh_lab):
    """Also with mod_s2s loaded, and also without a gateway, Prosody dials nobody."""
    if not shutil.which("prosody"):
        pytest.skip("prosody is not installed")
    fresh_lab.proc = servers.start_prosody(fresh_lab, GATEWAYS, disabled="none")
    fresh_lab.proc.wait_listening(fresh_lab.ip(Net.PROSODY), labnet.S2S)
    user = romeo(fresh_lab)
    send(user, "without")
    assert user.expect("message", id="without", type="error").condition == "remote-server-timeout"
    gateway = join(fresh_lab, GATEWAYS[0])
    send(user, "with")
    gateway.expect("message", id="with")
    assert "s2sout" not in fresh_lab.proc.log()
