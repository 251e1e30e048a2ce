"""Who is believed on an inside link: each way of proof, each way to fail, whoever dials.

A row of FAULTS begins with one side set up wrongly. The link must stay down, both logs and alarms
must say why, and the operator's repair plus a reload must bring it up and clear the alarms. Both
programs are real; peers that show no certificate are played by a socket.
"""
import os
import re
import signal
import socket
import ssl
import subprocess
import time

import labnet
import pytest
from conftest import new_lab
from labnet import LINK, Net, wait_for
from linkworld import COMPONENT, EDGE, ROUTER, Side, World, dump
from pki import Pki

TRANSPORTS = ("dial", "accept")


class Material:
    """Certificates, stores and secrets of one laboratory."""

    def __init__(self, lab):
        self.lab, self.pki = lab, Pki(lab.dir / "pki" / "links")
        p = self.pki
        self.g_self, self.r_self = p.self_signed("g", COMPONENT), p.self_signed("r", ROUTER)
        self.g_signed, self.r_signed = p.signed("gs", COMPONENT), p.signed("rs", ROUTER)
        self.foreign = p.signed("foreign", ROUTER, root="other-root")
        self.expired = p.signed("expired", ROUTER, days=-1)
        self.renamed = p.signed("renamed", "somebody.alpha.lab")
        self.nobody = p.store("nobody", p.self_signed("nobody", "nobody.lab"))
        self.root, self.secret = p.root().cert, lab.secret("edge")
        self.wrong = lab.secret("wrong")

    def hashed(self, identity, kind="sha256", colons=False, upper=False):
        text = identity.key_hash(kind)
        text = text.upper() if upper else text
        return [":".join(text[i:i + 2] for i in range(0, len(text), 2)) if colons else text]

    # -- the ways of proof, working: (gateway, router)

    def password(self):
        return Side({"secret_file": self.secret}), Side({"secret_file": self.secret})

    def tls(self):
        return (Side({"auth": "tls", **self.g_self.settings(),
                      "store_file": self.pki.store("of-r", self.r_self)}),
                Side({"auth": "tls", **self.r_self.settings(),
                      "store_file": self.pki.store("of-g", self.g_self)}))

    def both(self):
        """tls+password"""
        common = {"auth": "tls+password", "ca_file": self.root, "secret_file": self.secret}
        return (Side({**common, **self.g_signed.settings(), "peer_name": ROUTER}),
                Side({**common, **self.r_signed.settings(), "peer_name": COMPONENT}))


@pytest.fixture(scope="module")
def material(lab):
    return Material(lab)


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def worlds(lab, transport):
    made = []

    def make(gateway, router):
        made.append(World(lab, transport, gateway, router))
        return made[-1]

    yield make
    for w in made:
        w.close()


def only_when(transport, wanted):
    if transport != wanted:
        pytest.skip(f"transport {wanted} only")


# ---- success -------------------------------------------------------------------------------------

SUCCESS = {
    # name: (way of proof, what the gateway has instead, who decided)
    "store": ("tls", lambda m: {}, "store"),
    "one of many in the store": (
        "tls", lambda m: {"store_file": m.pki.store("many", m.foreign, m.expired, m.r_self)},
        "store"),
    "authlist, sha-256": ("tls", lambda m: {"store_file": None, "authlist": m.hashed(m.r_self)},
                          "authlist"),
    "authlist, sha-256, colons, upper case": (
        "tls", lambda m: {"store_file": None,
                          "authlist": m.hashed(m.r_self, colons=True, upper=True)}, "authlist"),
    "authlist, sha-1, colons": (
        "tls", lambda m: {"store_file": None,
                          "authlist": m.hashed(m.r_self, "sha1", colons=True)}, "authlist"),
    "authlist, sha-1, upper case": (
        "tls", lambda m: {"store_file": m.nobody,
                          "authlist": m.hashed(m.r_self, "sha1", upper=True)}, "authlist"),
    "root": ("both", lambda m: {}, "root"),
    "root, any name": ("both", lambda m: {"peer_name": None}, "root"),
    "with a password, but by the store": (
        "both", lambda m: {"ca_file": None, "peer_name": None,
                           "store_file": m.pki.store("of-rs", m.r_signed)}, "store"),
}


@pytest.mark.parametrize("name", SUCCESS)
def test_success(worlds, material, name):
    way, changes, decided = SUCCESS[name]
    gateway, router = getattr(material, way)()
    w = worlds(gateway.but(**changes(material)), router)
    up(w)
    line = w.gateway.wait_log(r"\blink\.trust\b")
    assert f" reason={decided} " in line, line
    assert "link.trust.refused" not in w.gateway.log() + w.router.log()
    w.passes()
    assert not dump(w.gateway, "alarm.standing") and not dump(w.router, "alarm.standing")


def test_password(worlds, material, transport):
    only_when(transport, "dial")
    w = worlds(*material.password())
    up(w)
    w.passes()
    assert "link.trust" not in w.gateway.log() + w.router.log()


def up(w, since=(0, 0)):
    for proc, at in zip((w.gateway, w.router), since):
        proc.wait_log(rf"\blink\.up\b.*\b{EDGE}\b", at)


# ---- failure -------------------------------------------------------------------------------------

class Fault:
    """side: whose settings are wrong, "gateway" or "router"; `refuses` is the one of the two that
    finds it out, by `reason`, and `told` the alarm of the other."""

    def __init__(self, way, side, changes, refuses, reason, told="link.certificate-refused"):
        self.way, self.side, self.changes = way, side, changes
        self.refuses, self.reason, self.told = refuses, reason, told


def mirrored(name, way, changes, reason):
    """The same on either side: its own verdict on the other's certificate."""
    return {f"{name}, {side}": Fault(way, side, changes[side], refuses, reason)
            for side, refuses in (("gateway", "gateway"), ("router", "router"))}


FAULTS = {
    "its certificate is not in our store": Fault(
        "tls", "gateway", lambda m: {"store_file": m.nobody}, "gateway",
        "self-signed-not-in-store"),
    "ours is not in its store": Fault(
        "tls", "router", lambda m: {"store_file": m.nobody}, "router", "self-signed-not-in-store"),
    "only its root is known": Fault(
        "tls", "router", lambda m: m.r_signed.settings(), "gateway",
        "root-known-certificate-not-in-store"),
    "only our root is known": Fault(
        "tls", "gateway", lambda m: m.g_signed.settings(), "router",
        "root-known-certificate-not-in-store"),
    "nobody knows its issuer": Fault(
        "tls", "router", lambda m: m.foreign.settings(), "gateway", "unknown-issuer"),
    "it has expired": Fault(
        "tls", "router", lambda m: m.expired.settings(), "gateway", "expired"),
    "another key is listed": Fault(
        "tls", "gateway",
        lambda m: {"store_file": None, "authlist": m.hashed(m.g_self)}, "gateway",
        "self-signed-not-in-store"),
    "with a password: nobody knows its issuer": Fault(
        "both", "router", lambda m: m.foreign.settings(), "gateway", "unknown-issuer"),
    "with a password: it is self-signed": Fault(
        "both", "router", lambda m: m.r_self.settings(), "gateway", "self-signed-not-in-store"),
    "with a password: it has expired": Fault(
        "both", "router", lambda m: m.expired.settings(), "gateway", "expired"),
    "with a password: it has another name": Fault(
        "both", "router", lambda m: m.renamed.settings(), "gateway", "wrong-name"),
    "with a password: ours has another name": Fault(
        "both", "router", lambda m: {"peer_name": "somebody.alpha.lab"}, "router", "wrong-name"),
}
# With `tls` a root says something only where a name may be proven.
ROOT_TOO = {"ca_file": "root", "peer_name": {"gateway": ROUTER, "router": COMPONENT}}


def sides(m, fault):
    """(wrong, right), each as (gateway, router)."""
    right = dict(zip(("gateway", "router"), getattr(m, fault.way)()))
    if fault.way == "tls":
        right = {who: side.but(ca_file=m.root, peer_name=ROOT_TOO["peer_name"][who])
                 for who, side in right.items()}
    wrong = dict(right)
    wrong[fault.side] = wrong[fault.side].but(**fault.changes(m))
    return tuple(wrong.values()), tuple(right.values())


@pytest.mark.parametrize("name", FAULTS)
def test_failure(worlds, material, name):
    fault = FAULTS[name]
    wrong, right = sides(material, fault)
    w = worlds(*wrong)
    judge, other = ((w.gateway, w.router) if fault.refuses == "gateway"
                    else (w.router, w.gateway))
    line = judge.wait_log(r"\blink\.trust\.refused\b")
    assert f" reason={fault.reason} " in line, line
    raised(judge, f"link.{fault.reason}")
    raised(other, fault.told)
    again(w, {judge: f"link.{fault.reason}", other: fault.told})
    repaired(w, right, {judge: f"link.{fault.reason}", other: fault.told})


def test_wrong_password(worlds, material, transport):
    """Without TLS only the gateway can find out that it is refused."""
    only_when(transport, "dial")
    gateway, router = material.password()
    w = worlds(gateway.but(secret_file=material.wrong), router)
    kinds = {w.gateway: "link.password", w.router: "link.password"}
    for proc, kind in kinds.items():
        raised(proc, kind)
    again(w, kinds)
    repaired(w, (gateway, router), kinds)


def test_wrong_password_behind_tls(worlds, material):
    gateway, router = material.both()
    w = worlds(gateway.but(secret_file=material.wrong), router)
    kinds = {w.gateway: "link.password", w.router: "link.password"}
    for proc, kind in kinds.items():
        raised(proc, kind)
    assert "reason=root " in w.gateway.wait_log(r"\blink\.trust\b")
    again(w, kinds)
    repaired(w, (gateway, router), kinds)


def raised(proc, kind):
    proc.wait_log(rf"alarm\.raised kind={re.escape(kind)} subject={EDGE}\b")


def standing(proc, kind):
    """The alarm as SIGUSR2 prints it."""
    found = dump(proc, "alarm.standing", kind=kind, subject=EDGE)
    assert len(found) == 1, (proc.name, found, proc.log_tail())
    return found[0]


def again(w, kinds):
    """A second failure is counted, not raised; its time is a later one."""
    before = {proc: standing(proc, kind) for proc, kind in kinds.items()}
    second = int(time.time())
    wait_for(lambda: int(time.time()) > second, what="the next second of the clock")
    w.again()

    def grown(proc):
        return int(standing(proc, kinds[proc])["count"]) > int(before[proc]["count"])

    for proc, kind in kinds.items():
        wait_for(lambda: grown(proc), what=f"a second {kind} of {proc.name}", detail=proc.log_tail)
        now = standing(proc, kind)
        assert now["first"] == before[proc]["first"] < now["last"], now
        assert len(re.findall(rf"alarm\.raised kind={re.escape(kind)} ", proc.log())) == 1
        assert now["msg"]


def repaired(w, right, kinds):
    since = (w.gateway.log_size(), w.router.log_size())
    w.reload(*right)
    up(w, since)
    w.passes()
    for proc, kind in kinds.items():
        proc.wait_log(rf"alarm\.cleared kind={re.escape(kind)} subject={EDGE} count=\d")
        assert not dump(proc, "alarm.standing"), proc.log_tail()
