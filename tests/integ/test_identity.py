"""Who a certificate makes the peer: every kind of certificate, both directions, every rule.

The remote domains are KIND.RULE.lab. One scripted server for each kind of certificate serves the
domains of all three rules, and one gateway holds the rules as patterns. Each row leaves a line in
certificates.txt beside the laboratories.
"""
import re
from dataclasses import dataclass

import labnet
import pytest
from certified import (CertifiedServer, ask_result, auth, client_context, dial_tls, external,
                       failure, identity_line, offers, srv)
from conftest import RUN_DIR, SHORT, Inside
from labnet import Net
from peers import FEATURES, dial, message
from pki import Pki, raw_dns_names, srv_name, xmpp_addr

LOCAL = "alpha.lab"
RULES = {"external": ["external"], "either": ["external", "dialback"], "dialback": ["dialback"]}
TABLE = RUN_DIR / "certificates.txt"
WRONG_NAME = "issued for {names}, not for {domain}"


@dataclass(frozen=True)
class Kind:
    """make: (Pki, the domains) -> Identity. fault: what is wrong with it in the eyes of whoever is
    dialled, None for nothing; as_server: the same in the eyes of whoever dials."""
    make: object
    fault: str = None
    as_server: str = "the same"

    def fault_of(self, direction):
        return self.fault if direction == "in" or self.as_server == "the same" else self.as_server


def dns(domains):
    return ",".join(f"DNS:{d}" for d in domains)


def issue(**kw):
    return lambda pki, name, domains: pki.issue(name, dns(domains), **kw)


def named(names, **kw):
    return lambda pki, name, domains: pki.issue(name, names(domains), **kw)


def behind_intermediate(send):
    def make(pki, name, domains):
        pki.intermediate("middle")
        return pki.issue(name, dns(domains), root="middle", send=send)
    return make


def revoked(pki, name, domains):
    made = issue()(pki, name, domains)
    made.revoked = pki.revoke(name)
    return made


def with_nul(domains):
    """What a careless authority may have signed for the owner of evil.lab."""
    return raw_dns_names(*(f"{d}\0.evil.lab".encode() for d in domains))


KINDS = {
    "good": Kind(issue()),
    "wildcard": Kind(named(lambda ds: ",".join(f"DNS:*.{d.split('.', 1)[1]}" for d in ds))),
    "srvname-only": Kind(named(lambda ds: ",".join(map(srv_name, ds)))),
    "xmppaddr-only": Kind(named(lambda ds: ",".join(map(xmpp_addr, ds)))),
    "with-intermediate": Kind(behind_intermediate(("middle",))),
    # Public authorities issue nothing else any more.
    "serverauth-only": Kind(issue(use="serverAuth")),
    "clientauth-only": Kind(issue(use="clientAuth"), None, "not meant for a server"),
    "code-signing": Kind(issue(use="codeSigning"), "not meant for TLS"),
    "expired": Kind(issue(days=(-30, -2)), "expired on {end}"),
    "not-yet-valid": Kind(issue(days=(2, 30)), "not valid before {start}"),
    "wrong-name": Kind(named(lambda ds: "DNS:elsewhere.lab"),
                       WRONG_NAME.format(names="elsewhere.lab", domain="{domain}")),
    "cn-only": Kind(lambda pki, name, ds: pki.issue(name, None, cn=ds[0]),
                    WRONG_NAME.format(names="no domain", domain="{domain}")),
    "nul-in-name": Kind(named(with_nul),
                        WRONG_NAME.format(names="no domain", domain="{domain}")),
    "too-many-labels": Kind(named(lambda ds: "DNS:*.lab"),
                            WRONG_NAME.format(names="no domain", domain="{domain}")),
    "self-signed": Kind(lambda pki, name, ds: pki.self_signed(name, ds[0], dns(ds)), "self-signed"),
    "unknown-issuer": Kind(issue(root="stranger"), "issuer unknown: CN=stranger"),
    "no-intermediate": Kind(behind_intermediate(()), "issuer unknown: CN=middle"),
    "revoked": Kind(revoked, "revoked on {revoked}"),
    "weak-key": Kind(issue(key=("-newkey", "rsa:1024", "-nodes")),
                     "weak key: RSA of 1024 bits, at least 2048 are needed"),
}
NONE = Kind(lambda *_: None, "no certificate was shown")
# Outbound first: there is no stream yet on which we have only asked.
ROWS = [(d, k, r) for d in ("out", "in") for k in KINDS for r in RULES] + \
       [("in", "none", r) for r in RULES]


class World:
    """The gateway, a server for each kind of certificate, and their authorities."""

    def __init__(self, lab):
        self.lab, self.pki = lab, Pki(lab.dir / "pki" / "world")
        self.identities, self.servers = {}, {}
        zone = srv(lab, LOCAL, (Net.ALPHA, labnet.S2S, 10, False))
        for i, name in enumerate([*KINDS, "none"]):
            kind = KINDS.get(name, NONE)
            domains = [f"{name}.{rule}.lab" for rule in RULES]
            self.identities[name] = kind.make(self.pki, name, domains)
            self.servers[name] = lab.at_end(CertifiedServer(
                lab.ip(100 + i), self.identities[name] or self.identities["good"],
                trust=lab.ca))
            for d in domains:
                zone += srv(lab, d, (100 + i, labnet.S2S, 10, False))
        self.plain = lab.at_end(CertifiedServer(lab.ip(99), self.identities["good"], tls=None))
        zone += srv(lab, "plain.external.lab", (99, labnet.S2S, 10, False))
        lab.dns({}, zone)
        self.us = Inside(
            lab, mode="tls-optional", timeouts=SHORT, ca=self.pki.root().cert,
            tls={"crl_file": self.pki.crl()},
            peers=[{"domain": f"*.{rule}.lab", "policy": "allow", "auth": ways}
                   for rule, ways in RULES.items()])

    def sentence(self, direction, kind, domain):
        fault, i = KINDS.get(kind, NONE).fault_of(direction), self.identities[kind]
        return fault and fault.format(
            domain=domain, end=i and i.date("enddate"), start=i and i.date("startdate"),
            revoked=getattr(i, "revoked", None))


@pytest.fixture(scope="module")
def world(lab):
    return World(lab)


@pytest.fixture(scope="module", autouse=True)
def table():
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(f"{'certificate':18} {'dir':3} {'auth':8} {'proven by':9} sentence\n")


@pytest.mark.parametrize("direction,kind,rule", ROWS, ids=["-".join(r) for r in ROWS])
def test_row(world, direction, kind, rule):
    domain = f"{kind}.{rule}.lab"
    sentence = world.sentence(direction, kind, domain)
    since = world.us.gateway.log_size()
    way = (inbound if direction == "in" else outbound)(world, kind, rule, domain, sentence)
    line = identity_line(world.us.gateway, domain, since, dir=direction)
    assert (line["certificate"], line.get("msg")) == (
        ("unproven", sentence) if sentence else ("proven", None)), line
    with open(TABLE, "a", encoding="utf-8") as f:
        f.write(f"{kind:18} {direction:3} {rule:8} {way:9} {sentence or ''}\n")


# ---- the peer dials us ---------------------------------------------------------------------------

def inbound(world, kind, rule, domain, sentence):
    """Returns by what the peer could prove itself."""
    us = world.us
    s = dial_tls(us.address, domain, LOCAL, client_context(world.identities[kind]), features=False)
    if rule == "external" and sentence:
        assert s.read_error_text() == ("not-authorized", sentence)
        s.close()
        return "refused"
    offered = offers(s.expect(FEATURES))
    assert offered == {"external": {"external"}, "dialback": {"dialback"},
                       "either": {"dialback"} if sentence else {"external", "dialback"}}[rule]
    if rule == "external":
        assert ask_result(s, domain, LOCAL) == "not-authorized"
    if "external" in offered:
        way = "external"
        external(s, domain, LOCAL)
    else:
        way = "dialback"
        expected = "invalid-mechanism", "no mechanism is offered on this stream"
        assert failure(auth(s)) == (expected if rule == "dialback" else
                                    ("not-authorized", sentence))
        assert ask_result(s, domain, LOCAL) == "valid"
    ident = f"in-{kind}-{rule}"
    s.send(message(f"a@{domain}", us.user.jid, ident))
    us.user.expect(kind="message", id=ident)
    us.gateway.wait_log(rf"s2s\.state .*remote={re.escape(domain)} .*to=CONNECTED mech={way}")
    s.close()
    return way


# ---- we dial the peer ----------------------------------------------------------------------------

def outbound(world, kind, rule, domain, sentence):
    """Returns how we could prove ourselves to a peer that we accepted: EXTERNAL where it takes it,
    which those of the rule "dialback" do not here."""
    us, server, ident = world.us, world.servers[kind], f"out-{kind}-{rule}"
    server.offers = {"dialback"} if rule == "dialback" else {"external", "dialback"}
    us.user.message(f"j@{domain}", ident, "hello")
    if rule == "external" and sentence:
        condition, _, text = us.bounce(ident)
        assert condition == "remote-server-timeout" and text.endswith(sentence), text
        assert server.ways(domain) == [None] and not server.said_after_tls(domain)
        return "refused"
    server.expect_stanza(ident)
    way, = server.ways(domain)
    assert way == ("dialback" if rule == "dialback" else "external")
    if way == "external":
        stream, name = server.auths[-1]
        shown = dict(x[0] for x in stream.sock.getpeercert()["subject"])
        assert (name, shown) == (LOCAL, {"commonName": LOCAL})
    return way


# ---- in clear ------------------------------------------------------------------------------------

def test_nothing_is_sent_in_clear(world):
    """A peer that offers no TLS and has to prove itself by its certificate."""
    us, ident = world.us, "clear-out"
    us.user.message("j@plain.external.lab", ident, "hello")
    condition, _, text = us.bounce(ident)
    assert condition == "remote-server-timeout" and \
        "has to prove itself by its certificate, and there is no TLS" in text
    assert world.plain.asked == world.plain.stanzas == world.plain.auths == []


def test_nothing_is_taken_in_clear(world):
    us, domain = world.us, "good.external.lab"
    s = dial(us.address, domain, LOCAL)
    assert offers(s.features) == set()
    assert ask_result(s, domain, LOCAL) == "not-authorized"
    assert failure(auth(s))[0] == "encryption-required"
    s.send(message(f"a@{domain}", us.user.jid, "clear-in"))
    assert s.read_error() == "not-authorized"
    assert us.user.seen(id="clear-in") == []
    s.close()


def test_nobody_is_verified_without_a_name(world):
    """Without `from` there is nothing that a certificate could prove."""
    s = dial_tls(world.us.address, None, LOCAL, client_context(world.identities["good"]))
    assert offers(s.features) == {"dialback"}
    assert failure(auth(s))[0] == "invalid-mechanism"
    assert ask_result(s, "good.external.lab", LOCAL) == "not-authorized"
    assert ask_result(s, "good.either.lab", LOCAL) == "valid"
    s.close()
