"""The three roles of XEP-0220 against peers of a few lines."""
import xml.etree.ElementTree as ET

import labnet
import pytest
from conftest import Inside
from labnet import Net
from peers import (RESULT, VERIFY, RemoteServer, authorised, dial, dialback_key, message,
                   stanza_error)

HOSTS = {"raw.lab": 41, "liar.lab": 42, "mute.lab": 43, "grumpy.lab": 44}


@pytest.fixture(scope="module")
def world(lab):
    lab.dns({"alpha.lab": [(Net.ALPHA, labnet.S2S, 10)],
             **{d: [(h, labnet.S2S, 10)] for d, h in HOSTS.items()}})
    servers = {
        "raw.lab": RemoteServer(lab.ip(41), "raw.lab"),
        "liar.lab": RemoteServer(lab.ip(42), "liar.lab", verdict="invalid"),
        "mute.lab": RemoteServer(lab.ip(43), "mute.lab", verdict=None),
        "grumpy.lab": RemoteServer(lab.ip(44), "grumpy.lab", verdict="item-not-found"),
    }
    us = Inside(lab, mode="tls-optional", dialback_timeout="2s",
                peers=[{"domain": "*.lab", "policy": "allow"},
                       {"domain": "enemy.lab", "policy": "deny"}])
    for s in servers.values():
        lab.at_end(s)
    return us, servers


@pytest.fixture
def us(world):
    return world[0]


def condition(answer):
    assert answer.get("type") == "error", ET.tostring(answer)
    return stanza_error(answer)[0]


def alive(s, us, ident="x"):
    """The stream still answers."""
    key = dialback_key(us.secret, "raw.lab", "alpha.lab", ident)
    s.ask_verify("raw.lab", "alpha.lab", ident, key)
    assert s.expect(VERIFY).get("type") == "valid"


def test_valid_pair_carries_stanzas(us, world):
    s = authorised(us.address, "raw.lab", "alpha.lab")
    assert ("verify", "alpha.lab", "raw.lab", s.attrs["id"]) in world[1]["raw.lab"].asked
    s.send(message("a@raw.lab", us.user.jid, "valid"))
    us.user.expect(kind="message", id="valid")
    s.ask_result("raw.lab", "alpha.lab")
    assert s.expect(RESULT).get("type") == "valid"
    s.close()


def test_wrong_key_is_refused(us):
    s = dial(us.address, "liar.lab", "alpha.lab")
    s.ask_result("liar.lab", "alpha.lab", "0123")
    answer = s.expect(RESULT)
    assert (answer.get("type"), answer.get("from"), answer.get("to")) == (
        "invalid", "alpha.lab", "liar.lab")
    s.expect_end()
    s.close()


def test_wrong_key_beside_a_valid_pair(us):
    """XEP-0220 2.1.2: the stream stays for the pair that is proven."""
    s = authorised(us.address, "raw.lab", "alpha.lab")
    s.ask_result("liar.lab", "alpha.lab")
    answer = s.expect(RESULT)
    assert answer.get("from") == "alpha.lab" and answer.get("to") == "liar.lab"
    assert answer.get("type") in ("invalid", "error")
    s.send(message("a@raw.lab", us.user.jid, "beside"))
    us.user.expect(kind="message", id="beside")
    s.close()


def test_unknown_target(us):
    s = dial(us.address, "raw.lab", "alpha.lab")
    s.ask_result("raw.lab", "nowhere.lab")
    assert condition(s.expect(RESULT)) == "item-not-found"
    s.ask_verify("raw.lab", "nowhere.lab", "1", "cafe")
    assert condition(s.expect(VERIFY)) == "item-not-found"
    alive(s, us)
    s.close()


@pytest.mark.parametrize("domain,expected", [
    ("absent.lab", "remote-server-not-found"),   # no such name
    ("grumpy.lab", "remote-server-not-found"),   # the authority answers with an error
    ("mute.lab", "remote-server-timeout"),       # the authority does not answer
])
def test_authority_trouble(us, domain, expected):
    s = dial(us.address, domain, "alpha.lab")
    s.ask_result(domain, "alpha.lab")
    assert condition(s.expect(RESULT)) == expected
    alive(s, us)
    s.close()


def test_denied_domain_is_not_looked_up(us, lab):
    since = next(p for p in lab.procs if p.name == "dns").log_size()
    s = dial(us.address, None, "alpha.lab")
    s.ask_result("enemy.lab", "alpha.lab")
    answer = s.read()
    assert answer is not None and answer.get("type") != "valid"
    s.close()
    us.gateway.wait_log(r"enemy\.lab")
    assert "enemy.lab" not in next(p for p in lab.procs if p.name == "dns").log(since)


def test_own_domain_is_refused(us):
    s = dial(us.address, None, "alpha.lab")
    s.ask_result("alpha.lab", "alpha.lab")
    answer = s.read()
    assert answer is not None and answer.get("type") != "valid"
    s.close()


def test_authoritative_role_is_stateless(us):
    """Any stream, any id: the key alone decides (XEP-0185)."""
    for ident in ("one", "two", "three"):
        s = dial(us.address, None, "alpha.lab")
        good = dialback_key(us.secret, "raw.lab", "alpha.lab", ident)
        s.ask_verify("raw.lab", "alpha.lab", ident, f"\n  {good}\n")
        answer = s.expect(VERIFY)
        assert (answer.get("type"), answer.get("id"), answer.get("from"), answer.get("to")) == (
            "valid", ident, "alpha.lab", "raw.lab")
        s.ask_verify("raw.lab", "alpha.lab", "other", good)
        assert s.expect(VERIFY).get("type") == "invalid"
        s.ask_verify("other.lab", "alpha.lab", ident, good)
        assert s.expect(VERIFY).get("type") == "invalid"
        s.close()


def test_our_own_key_is_what_xep_0185_says(us, world):
    raw = world[1]["raw.lab"]
    us.user.message("j@raw.lab", "key-check", "hello")
    raw.expect_stanza("key-check")
    for ident, key in raw.keys:
        assert key == dialback_key(us.secret, "raw.lab", "alpha.lab", ident)
    assert raw.keys


def test_a_nameless_stream_is_accepted(us):
    """XEP-0220 allows a header without from."""
    s = dial(us.address, None, "alpha.lab")
    s.ask_result("raw.lab", "alpha.lab")
    assert s.expect(RESULT).get("type") == "valid"
    s.close()


def test_answers_nobody_asked_for(us):
    """They prove nothing and change nothing."""
    s = dial(us.address, "raw.lab", "alpha.lab")
    s.send("<db:result from='raw.lab' to='alpha.lab' type='valid'/>"
           "<db:verify from='raw.lab' to='alpha.lab' id='1' type='valid'/>")
    alive(s, us, "still-here")
    s.send(message("a@raw.lab", us.user.jid, "unproven"))
    assert s.read_error() == "not-authorized"
    assert us.user.seen(id="unproven") == []
    s.close()
