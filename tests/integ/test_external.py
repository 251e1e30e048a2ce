"""SASL EXTERNAL step by step, fall-back to dialback, the rules of single peers, their change while
streams are up, and stream limits (RFC 6120 6, XEP-0178, XEP-0478)."""
import re
import ssl

import labnet
import pytest
from certified import (CHALLENGE, SASL, SUCCESS, CertifiedServer, Organisation, ask_result, auth,
                       client_context, dial_tls, encoded, external, external_stream, failure,
                       identity_line, mechanisms, offers, reopen, srv)
from conftest import SHORT
from labnet import Net, Timeout, wait_for
from peers import FEATURES, dial, message
from pki import Pki

LOCAL, OTHER = "alpha.lab", "beta.lab"
OLD = ssl.TLSVersion.TLSv1_2
# The servers that we dial: what is particular about each.
SERVERS = {
    "good.lab": {},
    "asks.lab": {"sasl": "challenge"},
    "refuses.lab": {"sasl": "not-authorized"},
    "strict.lab": {"sasl": "not-authorized", "offers": ["external"]},
    "leaves.lab": {"sasl": "hang-up"},
    "quarrels.lab": {"sasl": "error"},
    "wavers.lab": {"sasl": "hang-up", "result": "not-authorized"},
    "only.lab": {"offers": ["external"]},
    "plain.lab": {"offers": ["dialback"]},
    "small.lab": {"limits": "<max-bytes>10000</max-bytes>"},
    "hasty.lab": {"limits": "<idle-seconds>2</idle-seconds>"},
    "old.new.lab": {"newest": OLD},
    "new.new.lab": {},
    "old.lab": {"newest": OLD},
    "pinned.lab": {},
    "wrong-pin.lab": {},
    "own-root.lab": {"root": "private"},
    "other-root.lab": {},
    "x.sub.lab": {},
    "free.sub.lab": {},
    "changes.lab": {},
    "swaps.lab": {},
    "moves.lab": {},
    "doubtful.lab": {"root": "stranger"},
    "returns.lab": {},
    "betrayed.lab": {},
}


class World(Organisation):
    def __init__(self, lab):
        pki = self.pki = Pki(lab.dir / "pki" / "world")
        self.own, self.servers = {}, {}
        zone = [line for d in self.DOMAINS
                for line in srv(lab, d, (Net.ALPHA, labnet.S2S, 10, False))]
        for i, (domain, settings) in enumerate(SERVERS.items()):
            settings = dict(settings)
            self.own[domain] = pki.signed(domain, domain, settings.pop("root", "root"))
            self.servers[domain] = lab.at_end(CertifiedServer(
                lab.ip(60 + i), self.own[domain], trust=lab.ca, **settings))
            zone += srv(lab, domain, (60 + i, labnet.S2S, 10, False))
        lab.dns({}, zone)
        super().__init__(lab, mode="tls-required", timeouts=SHORT, ca=pki.root().cert,
                         dialback_timeout="2s", peers=self.peers())

    def peers(self):
        pin = self.own["pinned.lab"].key_hash()
        own_root, stranger = self.pki.root("private").cert, self.pki.root("stranger").cert
        return [{"domain": "*", "policy": "allow"},
                {"domain": "*.new.lab", "minimum_tls": "1.3"},
                {"domain": "pinned.lab", "pins": ["00" * 32, pin], "auth": ["external"]},
                {"domain": "wrong-pin.lab", "pins": [pin], "auth": ["external"]},
                {"domain": "own-root.lab", "ca_file": own_root, "auth": ["external"]},
                {"domain": "other-root.lab", "ca_file": own_root, "auth": ["external"]},
                {"domain": "*.lab", "auth": ["external", "dialback"]},
                {"domain": "*.sub.lab", "auth": ["external"]},
                {"domain": "free.sub.lab", "auth": ["dialback"]},
                {"domain": "changes.lab", "auth": ["external", "dialback"]},
                {"domain": "swaps.lab", "pins": [self.own["swaps.lab"].key_hash()]},
                {"domain": "moves.lab", "ca_file": self.pki.root().cert},
                {"domain": "doubtful.lab", "ca_file": stranger, "auth": ["external"]},
                {"domain": "betrayed.lab", "auth": ["external"]}]

    def dial(self, domain, to=LOCAL, newest=None, features=True):
        return dial_tls(self.address, domain, to, client_context(self.own[domain], newest),
                        features)

    def proven(self, domain, to=LOCAL):
        return external_stream(self.address, domain, to, self.own[domain])

    def arrives(self, s, domain, ident, to=LOCAL):
        s.send(message(f"a@{domain}", f"romeo@{to}", ident))
        return self.user.expect("message", id=ident)

    def delivers(self, domain, ident, **kw):
        """Sends it out; the server that got it."""
        self.send(f"j@{domain}", ident, **kw)
        self.servers[domain].expect_stanza(ident)
        return self.servers[domain]


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


# ---- the peer dials us: the exchange -------------------------------------------------------------

AUTH = "<auth xmlns='" + SASL + "' mechanism='{}'>{}</auth>"
RESPONSE = "<response xmlns='" + SASL + "'>{}</response>"
ABORT = f"<abort xmlns='{SASL}'/>"


@pytest.mark.parametrize("name", ["=", encoded("good.lab"), encoded("GOOD.Lab"),
                                  f"\n {encoded('good.lab')}\n", encoded("good.lab.")])
def test_names_of_the_peer(world, name):
    s = external(world.dial("good.lab"), "good.lab", LOCAL, name)
    assert mechanisms(s.features) == [], "offered again"
    world.arrives(s, "good.lab", f"name-{len(name)}-{name[:5].strip()}")
    s.close()


def test_challenge_and_response(world):
    """The initial response may be missing (RFC 6120 6.4.2)."""
    s = world.dial("good.lab")
    assert auth(s, "").tag == CHALLENGE
    s.send(RESPONSE.format("="))
    assert s.read().tag == SUCCESS
    reopen(s, "good.lab", LOCAL)
    world.arrives(s, "good.lab", "challenged")
    s.close()


@pytest.mark.parametrize("sent,condition", [
    (AUTH.format("PLAIN", "="), "invalid-mechanism"),
    (f"<auth xmlns='{SASL}'>=</auth>", "invalid-mechanism"),
    (AUTH.format("EXTERNAL", "%%%"), "incorrect-encoding"),
    (AUTH.format("EXTERNAL", "Z29vZC5sYWI"), "incorrect-encoding"),
    (AUTH.format("EXTERNAL", encoded("old.lab")), "invalid-authzid"),
    (AUTH.format("EXTERNAL", encoded("alpha.lab")), "invalid-authzid"),
    (AUTH.format("EXTERNAL", encoded("a@good.lab")), "invalid-authzid"),
    (AUTH.format("EXTERNAL", encoded("good.lab\0.evil.lab")), "invalid-authzid"),
    (RESPONSE.format("="), "malformed-request"),
    (ABORT, "aborted"),
    (f"<success xmlns='{SASL}'/>", "malformed-request"),
], ids=lambda v: v if not v.startswith("<") else "sent")
def test_faults_of_the_exchange(world, sent, condition):
    """Each has its condition, and the next attempt may succeed."""
    s = world.dial("good.lab")
    s.send(sent)
    assert failure(s.read())[0] == condition
    external(s, "good.lab", LOCAL)
    s.close()


def test_three_attempts(world):
    s = world.dial("good.lab")
    for condition in ("invalid-authzid", "invalid-mechanism", "aborted"):
        s.send({"invalid-authzid": AUTH.format("EXTERNAL", encoded("old.lab")),
                "invalid-mechanism": AUTH.format("SCRAM-SHA-1", "="), "aborted": ABORT}[condition])
        assert failure(s.read())[0] == condition
    assert s.read_error_text() == ("policy-violation", "too many failed attempts to authenticate")
    s.close()


def test_two_failures_and_a_success(world):
    s = world.dial("good.lab")
    for _ in range(2):
        assert failure(auth(s, encoded("old.lab")))[0] == "invalid-authzid"
    external(s, "good.lab", LOCAL)
    world.arrives(s, "good.lab", "third")
    s.close()


def test_dialback_counts_no_attempt(world):
    """After EXTERNAL failed on it, a stream is as good for dialback as before."""
    s = world.dial("good.lab")
    for _ in range(2):
        assert failure(auth(s, encoded("old.lab")))[0] == "invalid-authzid"
    assert ask_result(s, "good.lab", LOCAL) == "valid"
    world.arrives(s, "good.lab", "after-failures")
    s.close()


def test_pipelining(world):
    """What follows <auth/> in the same segment is read after <success/>, as the new stream."""
    s = world.dial("good.lab")
    header = ("<?xml version='1.0'?><stream:stream xmlns='jabber:server' from='good.lab' "
              f"xmlns:stream='http://etherx.jabber.org/streams' to='{LOCAL}' version='1.0'>")
    s.send(AUTH.format("EXTERNAL", "=") + header
           + message("a@good.lab", f"romeo@{LOCAL}", "pipelined"))
    assert s.read().tag == SUCCESS
    s.read_header()
    assert offers(s.expect(FEATURES)) == {"dialback"}
    world.user.expect("message", id="pipelined")
    s.close()


def test_no_stanza_between_success_and_header(world):
    s = world.dial("good.lab")
    s.send(AUTH.format("EXTERNAL", "=") + message("a@good.lab", f"romeo@{LOCAL}", "too-early"))
    assert s.read().tag == SUCCESS
    s.read_header()
    assert s.read_error() == "invalid-namespace"  # it is no stream header
    assert world.received("too-early") == []
    s.close()


@pytest.mark.parametrize("from_,to", [("old.lab", LOCAL), ("good.lab", OTHER)])
def test_the_new_header_names_the_same_domains(world, from_, to):
    s = world.dial("good.lab")
    assert auth(s).tag == SUCCESS
    s.open(from_, to)
    s.read_header()
    assert s.read_error() == "invalid-from"
    s.close()


def test_proven_once(world):
    s = world.proven("good.lab")
    assert failure(auth(s))[0] == "not-authorized"
    world.arrives(s, "good.lab", "still-proven")
    s.close()


def test_another_domain_by_dialback(world):
    """What EXTERNAL proved is one pair; others of the same stream prove themselves by dialback."""
    s = world.proven("good.lab")
    assert ask_result(s, "plain.lab", LOCAL) == "valid"
    assert ask_result(s, "good.lab", OTHER) == "valid"
    assert ask_result(s, "pinned.lab", LOCAL) == "not-authorized"
    for from_, to in (("good.lab", LOCAL), ("plain.lab", LOCAL), ("good.lab", OTHER)):
        world.arrives(s, from_, f"{from_}-{to}", to)
    s.send(message("a@plain.lab", f"romeo@{OTHER}", "no-pair"))
    assert s.read_error() == "invalid-from"
    assert world.received("no-pair") == []
    s.close()


def test_nothing_is_proven_in_clear(world):
    s = dial(world.address, "good.lab", LOCAL)
    assert mechanisms(s.features) == []
    assert failure(auth(s))[0] == "encryption-required"
    s.close()


# ---- we dial the peer ----------------------------------------------------------------------------

def test_external_outbound(world):
    server = world.delivers("good.lab", "out-external")
    assert server.ways("good.lab")[-1] == "external"
    stream, name = server.auths[-1]
    assert name == LOCAL and stream.attrs["from"] == LOCAL
    assert server.keys == []
    line = world.gateway.wait_log(r"s2s\.state .*dir=out .*remote=good\.lab .*to=CONNECTED")
    assert "mech=external" in line


def test_challenge_outbound(world):
    assert world.delivers("asks.lab", "out-challenged").ways("asks.lab") == ["external"]


def test_dialback_on_the_same_stream_after_a_refusal(world):
    server = world.delivers("refuses.lab", "out-refused")
    assert len(server.streams) == len(server.auths) == 1
    assert server.ways("refuses.lab") == ["dialback"]
    world.gateway.wait_log(r"sasl\.failed .*reason=not-authorized")


@pytest.mark.parametrize("domain", ["leaves.lab", "quarrels.lab"])
def test_dialback_on_a_new_stream_after_a_refusal(world, domain):
    server = world.delivers(domain, f"out-{domain}")
    assert server.ways(domain) == [None, "dialback"]
    assert len(server.auths) == 1, "it was tried again"


def test_nothing_but_external_and_that_refused(world):
    world.send("j@strict.lab", "out-strict")
    condition, text = world.bounce("out-strict")
    assert condition == "remote-server-timeout" and "certificate" in text and \
        "not-authorized" in text, text
    assert world.servers["strict.lab"].stanzas == []


def test_a_peer_that_takes_neither_at_first(world):
    """A connection that breaks at the wrong moment looks like a refusal. When dialback is refused
    as well, EXTERNAL gets another chance."""
    server = world.servers["wavers.lab"]
    world.send("j@wavers.lab", "neither")
    assert world.bounce("neither")[0] == "remote-server-timeout"
    assert server.asked[-1][0] == "result"
    server.sasl = "success"

    def arrives(ident):
        world.send("j@wavers.lab", ident)
        try:
            return server.expect_stanza(ident, 1) is not None
        except Timeout:
            return False
    assert any(arrives(f"again-{i}") for i in range(8))
    assert server.way(server.streams[-1][1]) == "external"


def test_a_second_domain_of_ours(world):
    """By dialback on the same stream."""
    server = world.delivers("good.lab", "first-domain")
    streams = len(server.streams)
    world.delivers("good.lab", "second-domain", from_=f"romeo@{OTHER}")
    assert ("result", OTHER, "good.lab", None) in server.asked
    assert len(server.streams) == streams


def test_a_second_domain_of_ours_without_dialback(world):
    """It gets a stream of its own, with what waits in its order; the first one is not disturbed."""
    server = world.delivers("only.lab", "first-domain-2")
    before = len(server.streams)
    for n in range(5):
        world.send("j@only.lab", f"second-domain-{n}", from_=f"romeo@{OTHER}")
    for n in range(5):
        server.expect_stanza(f"second-domain-{n}")
    world.delivers("only.lab", "first-domain-3")
    world.delivers("only.lab", "second-domain-later", from_=f"romeo@{OTHER}")
    ids = [e.get("id") for _, e in server.stanzas if e.get("id").startswith("second-domain-")]
    assert ids == [f"second-domain-{n}" for n in range(5)] + ["second-domain-later"]
    assert len(server.streams) == before + 1
    assert server.ways("only.lab") == ["external"] * 2
    assert [name for _, name in server.auths] == [LOCAL, OTHER]


def test_dialback_rule_says_nothing_of_how_we_prove_ourselves(world):
    """`auth` is about the peer; a certificate of ours is shown where it is wanted."""
    assert world.delivers("free.sub.lab", "out-free").ways("free.sub.lab") == ["external"]


# ---- rules of single peers -----------------------------------------------------------------------

BELOW = "TLSv1.2 is below the minimum_tls for this domain"


def test_minimum_tls_inbound(world):
    s = world.dial("old.new.lab", newest=OLD, features=False)
    assert s.read_error_text() == ("policy-violation", BELOW)
    s.close()
    s = world.dial("old.lab", newest=OLD)
    external(s, "old.lab", LOCAL)
    world.arrives(s, "old.lab", "old-enough")
    s.close()
    world.proven("new.new.lab").close()


def test_minimum_tls_outbound(world):
    world.send("j@old.new.lab", "out-old")
    condition, text = world.bounce("out-old")
    assert condition == "remote-server-timeout" and text.endswith(BELOW)
    assert not world.servers["old.new.lab"].said_after_tls("old.new.lab")
    world.delivers("new.new.lab", "out-new")
    world.delivers("old.lab", "out-old-enough")


def wrong_pin(world):
    colons = ":".join(re.findall("..", world.own["wrong-pin.lab"].key_hash().upper()))
    return f"its key is not one of the pinned ones: {colons}"


RULED_OUT = {"wrong-pin.lab": wrong_pin, "other-root.lab": lambda _: "issuer unknown: CN=root"}


@pytest.mark.parametrize("domain", ["pinned.lab", "own-root.lab", "wrong-pin.lab",
                                    "other-root.lab"])
def test_pins_and_authorities_of_a_peer(world, domain):
    sentence = domain in RULED_OUT and RULED_OUT[domain](world)
    s = world.dial(domain, features=False)
    world.send(f"j@{domain}", f"out-{domain}")
    if sentence:
        assert s.read_error_text() == ("not-authorized", sentence)
        condition, text = world.bounce(f"out-{domain}")
        assert condition == "remote-server-timeout" and text.endswith(sentence)
        for direction in ("in", "out"):
            assert identity_line(world.gateway, domain, dir=direction)["msg"] == sentence
        assert not world.servers[domain].said_after_tls(domain)
    else:
        s.expect(FEATURES)
        external(s, domain, LOCAL)
        world.arrives(s, domain, f"in-{domain}")
        world.servers[domain].expect_stanza(f"out-{domain}")
    s.close()


def test_authorities_of_a_peer_are_its_only_ones(world):
    """Whoever owns them does not speak for others: not by a header, not by another domain."""
    forged = world.pki.signed("forged", "good.lab", "private")
    s = dial_tls(world.address, "good.lab", LOCAL, client_context(forged))
    assert offers(s.features) == {"dialback"}
    assert failure(auth(s)) == ("not-authorized", "issuer unknown: CN=private")
    s.close()


@pytest.mark.parametrize("domain,expected", [
    ("good.lab", {"external", "dialback"}), ("x.sub.lab", {"external"}),
    ("free.sub.lab", {"dialback"})])
def test_the_longest_pattern_decides(world, domain, expected):
    s = world.dial(domain)
    assert offers(s.features) == expected
    s.close()


# ---- change while streams are up -----------------------------------------------------------------

@pytest.mark.parametrize("domain,pattern,replacement,sentence", [
    ("changes.lab", r'auth = \["external", "dialback"\]', 'auth = ["dialback"]', None),
    ("swaps.lab", r'pins = \["\w+"\]', f'auth = ["external"]; pins = ["{"11" * 32}"]',
     "its key is not one of the pinned ones"),
    ("moves.lab", r'ca_file = "[^"]*"', None, "issuer unknown: CN=root"),
], ids=["auth", "pins", "ca_file"])
def test_reload(world, domain, pattern, replacement, sentence):
    """Streams that the new rules do not allow end with `reset`, come back where they may, and all
    is as before when the old rules are."""
    conf, server = world.gateway.conf, world.servers[domain]
    before = conf.read_text()
    if replacement is None:
        replacement = f'auth = ["external"]; ca_file = "{world.pki.root("private").cert}"'
    s = world.proven(domain)
    world.delivers(domain, f"{domain}-1")
    stays = world.proven("good.lab")
    try:
        world.gateway.edit(rf'(domain = "{re.escape(domain)}";.*){pattern}',
                           lambda m: m.group(1) + replacement)
        world.reload()
        assert s.read_error_text() == ("reset", "what proves this domain has changed")
        world.send(f"j@{domain}", f"{domain}-2")
        if sentence:
            condition, text = world.bounce(f"{domain}-2")
            assert condition == "remote-server-timeout" and sentence in text
            assert not server.stanzas[1:]
        else:
            server.expect_stanza(f"{domain}-2")
        world.arrives(stays, "good.lab", f"{domain}-stays")
    finally:
        conf.write_text(before)
        world.reload()
        s.close()
        stays.close()
    s = world.proven(domain)
    world.arrives(s, domain, f"{domain}-back")
    s.close()

    def comes_back():
        world.send(f"j@{domain}", f"{domain}-3-{world.user.mark()}")
        return any(e.get("id").startswith(f"{domain}-3") for _, e in server.stanzas)

    wait_for(comes_back, what="the stream to come back after its back-off")


def test_reload_ends_what_we_dialled(world):
    """An outgoing stream to a peer whose authorities are no longer believed."""
    domain = "doubtful.lab"
    server, before = world.delivers(domain, "doubt-1"), world.gateway.conf.read_text()
    stream = server.auths[-1][0]
    world.gateway.edit(rf'(domain = "{domain}"; ca_file = )"[^"]*"',
                       rf'\1"{world.pki.root("private").cert}"')
    try:
        world.reload()
        assert_reset(stream)
    finally:
        world.gateway.conf.write_text(before)
        world.reload()


def last(world, domain, ident, **kw):
    """The peer takes this one and closes its stream: the next stanza needs another one."""
    since = world.gateway.log_size()
    server = world.delivers(domain, f"{ident}-last", **kw)
    world.gateway.wait_log(r"s2s\.closed .*reason=peer-closed", since)
    return server


def test_sessions_are_resumed_by_pair(world):
    """The certificate of the first handshake counts in the next one, for the same two domains."""
    for ident, from_ in (("r1", LOCAL), ("r2", LOCAL), ("r3", OTHER), ("r4", LOCAL)):
        server = last(world, "returns.lab", ident, from_=f"romeo@{from_}")
    assert [s.resumed for _, s in server.streams] == [False, True, False, True]
    assert server.ways("returns.lab") == ["external"] * 4
    assert [name for _, name in server.auths] == [LOCAL, LOCAL, OTHER, LOCAL]


def test_revocation_while_we_run(world):
    """A new list ends the streams that are there in either direction, and counts for the next one,
    resumed or not."""
    domain, conf = "betrayed.lab", world.gateway.conf
    before = conf.read_text()
    last(world, domain, "betrayed-1")
    server = world.delivers(domain, "betrayed-alive")
    alive = world.proven(domain)
    world.arrives(alive, domain, "betrayed-in")
    early = dial(world.address, None, None)
    sentence = f"revoked on {world.pki.revoke(domain)}"
    world.gateway.edit(r"^(tls .*) }", rf'\1 crl_file = "{world.pki.crl()}"; }}')
    try:
        world.reload()
        reopen(early, domain, LOCAL)
        early.starttls_client(LOCAL, client_context(world.own[domain]))
        reopen(early, domain, LOCAL, features=False)
        assert early.read_error_text() == ("not-authorized", sentence)
        early.close()
        assert alive.read_error() == "reset"
        assert_reset(server.streams[-1][1])
        world.send(f"j@{domain}", "betrayed-2")
        condition, text = world.bounce("betrayed-2")
        assert condition == "remote-server-timeout" and text.endswith(sentence)
        s = world.dial(domain, features=False)
        assert s.read_error_text() == ("not-authorized", sentence)
        s.close()
    finally:
        conf.write_text(before)
        world.reload()


def assert_reset(stream):
    """The peer's own thread reads this stream: what it has read tells."""
    wait_for(lambda: b"</stream:stream>" in stream.raw, what="the stream to end")
    assert b"<reset xmlns=" in stream.raw, stream.raw[-500:]


# ---- XEP-0478 ------------------------------------------------------------------------------------

def test_limits_are_told(world):
    s = world.proven("good.lab")
    limits = s.features.find("{urn:xmpp:stream-limits:0}limits")
    assert {c.tag.split("}")[1]: int(c.text) for c in limits} == {
        "max-bytes": 256 * 1024, "idle-seconds": 3600}
    s.close()


def test_limits_of_the_peer_are_obeyed(world):
    server = world.delivers("small.lab", "small-1")
    world.send("j@small.lab", "too-large", body="x" * 11000)
    condition, text = world.bounce("too-large")
    assert condition == "policy-violation" and text
    world.delivers("small.lab", "small-2")
    assert [e.get("id") for _, e in server.stanzas] == ["small-1", "small-2"]
    assert len(server.streams) == 1


def test_silence_is_broken_in_time(world):
    server = world.delivers("hasty.lab", "hasty-1")
    stream = server.auths[-1][0]
    read = len(stream.raw)
    wait_for(lambda: stream.raw[read:].strip(b" ") != stream.raw[read:], 2.5,
             "white space on an idle stream")
    assert stream.raw[read:].strip(b" ") == b""
