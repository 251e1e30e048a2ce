"""Who is believed on an inside link: each way of proof, each way to fail, whoever dials, and either
side as the one that finds the fault.

A row of SITUATIONS begins with one side set up wrongly. The link must stay down, both logs and
alarms must say why, and the operator's repair plus a reload must bring it up and clear the alarms.
Both programs are real; peers that show no certificate are played by a socket.
"""
import re
import ssl
import socket
import subprocess
import time
from typing import Callable, NamedTuple

import labnet
import pytest
from labnet import LINK, Net, wait_for
from linkworld import COMPONENT, EDGE, ROUTER, Side, World, dump
from peers import Closed, XmlStream
from pki import Pki

TRANSPORTS = ("dial", "accept")
SIDES = ("gateway", "router")
NAMES = {"gateway": COMPONENT, "router": ROUTER}  # what their certificates are issued for
OTHER = {"gateway": "router", "router": "gateway"}
SOMEBODY = "somebody.alpha.lab"
BAD_CONFIG = 78


class Material:
    """Certificates, stores and secrets of one laboratory."""

    def __init__(self, lab):
        self.lab, self.pki = lab, Pki(lab.dir / "pki" / "links")
        self.nobody = self.pki.store("nobody", self.pki.self_signed("nobody", "nobody.lab"))
        self.root, self.secret = self.pki.root().cert, lab.secret("edge")
        self.wrong = lab.secret("wrong")

    def of(self, who, kind):
        """The certificate of that side."""
        name, p = NAMES[who], self.pki
        return {"self-signed": lambda: p.self_signed(f"{who}-self", name),
                "signed": lambda: p.signed(f"{who}-signed", name),
                "foreign": lambda: p.signed(f"{who}-foreign", name, root="other-root"),
                "expired": lambda: p.signed(f"{who}-expired", name, days=-1),
                "renamed": lambda: p.signed(f"{who}-renamed", SOMEBODY)}[kind]()

    def store(self, who, kind):
        """A store that holds it."""
        return self.pki.store(f"of-{who}-{kind}", self.of(who, kind))

    def hashed(self, identity, kind="sha256", colons=False, upper=False):
        text = identity.key_hash(kind)
        text = text.upper() if upper else text
        return [":".join(text[i:i + 2] for i in range(0, len(text), 2)) if colons else text]

    # -- the ways of proof, working: {side: settings}

    def password(self):
        return {who: Side({"secret_file": self.secret}) for who in SIDES}

    def tls(self):
        """A root and a name are known as well: they must not count for more than they are worth."""
        return {who: Side({"auth": "tls", **self.of(who, "self-signed").settings(),
                           "store_file": self.store(OTHER[who], "self-signed"),
                           "ca_file": self.root, "peer_name": NAMES[OTHER[who]]})
                for who in SIDES}

    def both(self):
        """tls+password"""
        return {who: Side({"auth": "tls+password", **self.of(who, "signed").settings(),
                           "ca_file": self.root, "peer_name": NAMES[OTHER[who]],
                           "secret_file": self.secret})
                for who in SIDES}

    def joining(self, proven=None):
        """Before the switch; proven: {side: its proven_file}."""
        return {who: Side({"secret_file": self.secret, "peer_name": NAMES[OTHER[who]],
                           **({"proven_file": proven[who]} if proven else {})})
                for who in SIDES}

    def switched(self, proven=None):
        """After it: nothing was imported."""
        return {who: side.but(auth="tls", secret_file=None, ca_file=self.root,
                              **self.of(who, "signed").settings())
                for who, side in self.joining(proven).items()}


@pytest.fixture(scope="module")
def material(lab):
    return Material(lab)


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture(params=SIDES)
def judge(request):
    """Who finds the fault."""
    return request.param


@pytest.fixture
def worlds(lab):
    made = []

    def make(transport, sides):
        made.append(World(lab, transport, *in_order(sides)))
        return made[-1]

    yield make
    for w in made:
        w.close()


def in_order(sides):
    return tuple(sides[who] for who in SIDES)


def proc(w, who):
    return getattr(w, who)


# ---- what has to be in the logs ------------------------------------------------------------------

def sizes(w):
    return w.gateway.log_size(), w.router.log_size()


def up(w, since=(0, 0)):
    for p, at in zip((w.gateway, w.router), since):
        p.wait_log(rf"\blink\.up\b.*\blink={EDGE}\b", at)


def believed(p, reason, since=0):
    """The last verdict, which names the store or list that decided."""
    found = [line for line in p.log(since).splitlines() if " link.trust " in line]
    assert found and f" reason={reason} " in found[-1], found
    assert f" component={COMPONENT} " in found[-1], found[-1]


def refused(p, reason, since=0):
    line = p.wait_log(r"\blink\.trust\.refused\b", since)
    assert f" component={COMPONENT} reason={reason} " in line and " msg=" in line, line


def raised(p, kind, since=0):
    p.wait_log(rf"alarm\.raised kind={re.escape(kind)} subject={EDGE} msg=", since)


def no_alarms(w):
    for p in (w.gateway, w.router):
        assert not dump(p, "alarm.standing"), p.log_tail()


def standing(p, kind):
    """The alarm as SIGUSR2 prints it."""
    found = dump(p, "alarm.standing", kind=kind, subject=EDGE)
    assert len(found) == 1, (p.name, found, p.log_tail())
    return found[0]


def again(w, kinds, later=False):
    """A second failure is counted, not raised anew; later: in another second of the clock."""
    before = {p: standing(p, kind) for p, kind in kinds.items()}
    if later:
        second = int(time.time())
        wait_for(lambda: int(time.time()) > second, what="the next second of the clock")
    w.again()

    def grown(p):
        return int(standing(p, kinds[p])["count"]) > int(before[p]["count"])

    for p, kind in kinds.items():
        wait_for(lambda: grown(p), what=f"a second {kind} of {p.name}", detail=p.log_tail)
        now = standing(p, kind)
        assert now["first"] == before[p]["first"] <= now["last"], now
        assert not later or now["first"] < now["last"], now
        assert re.match(r"127\.\S+:\d+: \w", now["msg"]), now  # whom it concerns, and why
        assert len(re.findall(rf"alarm\.raised kind={re.escape(kind)} ", p.log())) == 1


def repaired(w, right, kinds):
    since = sizes(w)
    w.reload(*in_order(right))
    up(w, since)
    w.passes()
    for p, kind in kinds.items():
        p.wait_log(rf"alarm\.cleared kind={re.escape(kind)} subject={EDGE} count=\d+ after=\d")
    no_alarms(w)


# ---- success -------------------------------------------------------------------------------------

SUCCESS = {
    # name: (way of proof, what the gateway has instead, who decided there, and at the router)
    "store": ("tls", lambda m: {}, "store", "store"),
    "one of many in the store": (
        "tls", lambda m: {"store_file": m.pki.store(
            "many", m.of("router", "foreign"), m.of("router", "expired"),
            m.of("router", "self-signed"))}, "store", "store"),
    "authlist, sha-256": (
        "tls", lambda m: {"store_file": None,
                          "authlist": m.hashed(m.of("router", "self-signed"))},
        "authlist", "store"),
    "authlist, sha-256, colons, upper case": (
        "tls", lambda m: {"store_file": None,
                          "authlist": m.hashed(m.of("router", "self-signed"), colons=True,
                                               upper=True)},
        "authlist", "store"),
    "authlist, sha-1, colons": (
        "tls", lambda m: {"store_file": None,
                          "authlist": m.hashed(m.of("router", "self-signed"), "sha1", colons=True)},
        "authlist", "store"),
    "authlist, sha-1, upper case": (
        "tls", lambda m: {"store_file": m.nobody,
                          "authlist": m.hashed(m.of("router", "self-signed"), "sha1", upper=True)},
        "authlist", "store"),
    "root": ("both", lambda m: {}, "root", "root"),
    "root, any name": ("both", lambda m: {"peer_name": None}, "root", "root"),
    "with a password, but by the store": (
        "both", lambda m: {"ca_file": None, "peer_name": None,
                           "store_file": m.store("router", "signed")}, "store", "root"),
}


@pytest.mark.parametrize("name", SUCCESS)
def test_success(worlds, material, transport, name):
    way, changes, by_gateway, by_router = SUCCESS[name]
    sides = getattr(material, way)()
    sides["gateway"] = sides["gateway"].but(**changes(material))
    w = worlds(transport, sides)
    up(w)
    believed(w.gateway, by_gateway)
    believed(w.router, by_router)
    assert "link.trust.refused" not in w.gateway.log() + w.router.log()
    w.passes()
    no_alarms(w)


def test_password(worlds, material):
    """Only where the gateway dials: `accept` refuses it."""
    w = worlds("dial", material.password())
    up(w)
    w.passes()
    assert "link.trust" not in w.gateway.log() + w.router.log()


# ---- failure -------------------------------------------------------------------------------------

class Situation(NamedTuple):
    """What the one side shows and what the other one, the judge, has instead of what is right."""
    way: str
    reason: str
    shows: str = ""  # the kind of certificate
    judges: Callable = lambda m, shower: {}


SITUATIONS = {
    "tls, not in the store": Situation(
        "tls", "self-signed-not-in-store", judges=lambda m, shower: {"store_file": m.nobody}),
    "tls, only its root is known": Situation(
        "tls", "root-known-certificate-not-in-store", "signed"),
    "tls, issuer unknown": Situation("tls", "unknown-issuer", "foreign"),
    "tls, expired": Situation("tls", "expired", "expired"),
    "tls, expired, in the store": Situation(
        "tls", "expired", "expired",
        lambda m, shower: {"store_file": m.store(shower, "expired")}),
    "tls, another key is listed": Situation(
        "tls", "self-signed-not-in-store", judges=lambda m, shower: {
            "store_file": None, "authlist": m.hashed(m.of(shower, "signed"))}),
    "tls+password, issuer unknown": Situation("both", "unknown-issuer", "foreign"),
    "tls+password, self-signed": Situation("both", "self-signed-not-in-store", "self-signed"),
    "tls+password, expired": Situation("both", "expired", "expired"),
    "tls+password, another name": Situation("both", "wrong-name", "renamed"),
    "tls+password, another peer_name": Situation(
        "both", "wrong-name", judges=lambda m, shower: {"peer_name": SOMEBODY}),
}


def spoil(m, right, situation, judge):
    shower, wrong = OTHER[judge], dict(right)
    wrong[judge] = wrong[judge].but(**situation.judges(m, shower))
    if situation.shows:
        wrong[shower] = wrong[shower].but(**m.of(shower, situation.shows).settings())
    return wrong


def told(w, judge, reason, since=(0, 0)):
    """Both sides say why; returns the alarms that are raised then."""
    at = dict(zip(SIDES, since))
    judges, other = proc(w, judge), proc(w, OTHER[judge])
    refused(judges, reason, at[judge])
    kinds = {judges: f"link.{reason}", other: "link.certificate-refused"}
    for p, kind in kinds.items():
        raised(p, kind)
    assert f'msg="your certificate was refused: {reason}"' in \
        other.wait_log(r"\blink\.error\.received\b", at[OTHER[judge]])
    return kinds


@pytest.mark.parametrize("name", SITUATIONS)
def test_refused(worlds, material, transport, judge, name):
    situation = SITUATIONS[name]
    right = getattr(material, situation.way)()
    w = worlds(transport, spoil(material, right, situation, judge))
    kinds = told(w, judge, situation.reason)
    again(w, kinds)
    repaired(w, right, kinds)


@pytest.mark.parametrize("way, transport", [("password", "dial"), ("both", "dial"),
                                            ("both", "accept")])
def test_wrong_password(worlds, material, way, transport):
    """In clear or behind TLS: the router compares, the gateway is told."""
    right = getattr(material, way)()
    w = worlds(transport, {**right, "gateway": right["gateway"].but(secret_file=material.wrong)})
    kinds = {w.gateway: "link.password", w.router: "link.password"}
    for p, kind in kinds.items():
        raised(p, kind)
    why = 'reason=not-authorized msg="the handshake does not fit the secret"'
    assert why in w.router.wait_log(r"\blink\.refused\b")
    assert why in w.gateway.wait_log(r"\blink\.error\.received\b")
    if way == "both":
        believed(w.gateway, "root")
        believed(w.router, "root")
    again(w, kinds, later=True)
    repaired(w, right, kinds)


def test_withdrawn_while_up(worlds, material, transport, judge):
    """A certificate is taken out of the store of a link that is up."""
    sides, m = material.tls(), material
    store = m.pki.store("mine", m.of(OTHER[judge], "self-signed"))
    sides[judge] = sides[judge].but(store_file=store)
    w = worlds(transport, sides)
    up(w)
    since = sizes(w)
    store.write_text(m.nobody.read_text())
    w.reload(*in_order(sides))
    kinds = told(w, judge, "self-signed-not-in-store", since)
    store.write_text(m.store(OTHER[judge], "self-signed").read_text())
    repaired(w, sides, kinds)


# ---- only one side has TLS -----------------------------------------------------------------------

def test_only_the_router_has_tls(worlds, material):
    w = worlds("dial", {**material.both(), "gateway": material.password()["gateway"]})
    kinds = {w.gateway: "link.clear", w.router: "link.clear"}
    for p, kind in kinds.items():
        raised(p, kind)
    again(w, kinds)
    repaired(w, material.both(), kinds)


def test_only_the_gateway_has_tls(worlds, material):
    w = worlds("dial", {**material.both(), "router": material.password()["router"]})
    kinds = {w.gateway: "link.tls"}
    raised(w.gateway, "link.tls")
    again(w, kinds)
    repaired(w, material.both(), kinds)


def test_no_certificate(worlds, material, transport):
    """Somebody speaks TLS and has nothing to show: before the gateway, or before the router."""
    w = worlds(transport, material.tls())
    up(w)
    asked, absent = (w.gateway, "router") if transport == "accept" else (w.router, "gateway")
    proc(w, absent).stop()
    since = asked.log_size()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((w.listen, LINK)) as plain, tls.wrap_socket(plain) as wrapped:
        s = XmlStream(wrapped)
        s.send(header(COMPONENT))
        s.read_header()
        assert s.read_error() == "not-authorized"
    refused(asked, "no-certificate", since)
    raised(asked, "link.no-certificate", since)
    back(w, absent)


def test_in_clear(worlds, material, transport):
    """Somebody comes without TLS where it is due."""
    w = worlds(transport, material.tls())
    up(w)
    asked, absent = (w.gateway, "router") if transport == "accept" else (w.router, "gateway")
    proc(w, absent).stop()
    since = asked.log_size()
    with socket.create_connection((w.listen, LINK)) as plain:
        s = XmlStream(plain)
        s.send(header(COMPONENT))
        if transport == "accept":  # no TLS, no stream: nothing can be said
            with pytest.raises(Closed):
                s.read_header()
        else:
            s.read_header()
            assert s.read_error() == "not-authorized"
    raised(asked, "link.tls" if transport == "accept" else "link.clear", since)
    back(w, absent)


def header(to):
    return (f"<stream:stream xmlns='jabber:component:accept' to='{to}' "
            "xmlns:stream='http://etherx.jabber.org/streams'>")


def back(w, who):
    """Who was away comes back, and no alarm stays."""
    since = sizes(w)
    getattr(w, f"start_{who}")()
    up(w, since)
    w.passes()
    no_alarms(w)


# ---- joined by password, then switched to certificates -------------------------------------------

def join(worlds, material, proven=None):
    w = worlds("dial", material.joining(proven))
    up(w)
    for who in SIDES:
        proc(w, who).wait_log(rf"\blink\.proven\b.*\bname={re.escape(NAMES[OTHER[who]])}\b")
    return w


def test_switch_over(worlds, material, transport):
    """Also with the direction turned at the same time."""
    w = join(worlds, material)
    w.turn(transport)
    repaired(w, material.switched(), {})
    believed(w.gateway, "proven-name")
    believed(w.router, "proven-name")
    assert "link.trust.refused" not in w.gateway.log() + w.router.log()


AFTER_THE_SWITCH = {
    "self-signed": Situation("", "self-signed-after-switch", "self-signed"),
    "another name": Situation("", "wrong-name", "renamed"),
    "expired": Situation("", "expired", "expired"),
    "issuer unknown": Situation("", "unknown-issuer", "foreign"),
    "the proven name was another": Situation(
        "", "root-known-certificate-not-in-store",
        judges=lambda m, shower: {"peer_name": SOMEBODY}),
}


@pytest.mark.parametrize("name", AFTER_THE_SWITCH)
def test_refused_after_the_switch(worlds, material, transport, judge, name):
    situation, right = AFTER_THE_SWITCH[name], material.switched()
    w = join(worlds, material)
    w.turn(transport)
    since = sizes(w)
    w.reload(*in_order(spoil(material, right, situation, judge)))
    kinds = told(w, judge, situation.reason, since)
    again(w, kinds)
    if "peer_name" in situation.judges(material, OTHER[judge]):
        # It stands in the configuration again, but it was proven in the one before the last.
        right[judge] = right[judge].but(store_file=material.store(OTHER[judge], "signed"))
    repaired(w, right, kinds)


# ---- the memory of proven names ------------------------------------------------------------------

@pytest.fixture
def proven(lab, request):
    """Where each side keeps it."""
    directory = lab.dir / "proven" / re.sub(r"\W", "-", request.node.name)
    directory.mkdir(parents=True)
    return {who: directory / who for who in SIDES}


def restart(w, sides):
    """Both programs, with another configuration."""
    w.stop()
    since = sizes(w)
    w.start(*in_order(sides))
    return since


def written(proven):
    for who, path in proven.items():
        assert path.read_text() == NAMES[OTHER[who]] + "\n"
    assert sorted(p.name for p in proven["gateway"].parent.iterdir()) == sorted(SIDES)


def test_proven_file(worlds, material, transport, proven):
    """It outlives a restart, and not only of one side."""
    w = join(worlds, material, proven)
    written(proven)
    w.turn(transport)
    since = restart(w, material.switched(proven))
    up(w, since)
    believed(w.gateway, "proven-name", since[0])
    believed(w.router, "proven-name", since[1])
    w.passes()
    no_alarms(w)


BROKEN = {
    "rubbish": (b"\xff\xfe<?xml\0", "broken"),
    "empty": (b"", "broken"),
    "two names": (f"{ROUTER}\n{COMPONENT}\n".encode(), "broken"),
    "another name": (b"somebody.alpha.lab\n", "other-name"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_proven_file(worlds, material, judge, proven, name):
    """It is told and ignored; joining by password once more replaces it."""
    content, reason = BROKEN[name]
    w = join(worlds, material, proven)
    w.stop()
    proven[judge].write_bytes(content)
    since = restart(w, material.switched(proven))
    line = proc(w, judge).wait_log(r"\blink\.proven\.ignored\b", since[SIDES.index(judge)])
    assert f" link={EDGE} file={proven[judge]} reason={reason} msg=" in line, line
    told(w, judge, "root-known-certificate-not-in-store", since)
    repaired(w, material.joining(proven), {})
    written(proven)
    repaired(w, material.switched(proven), {})


# ---- --auth-info ---------------------------------------------------------------------------------

def auth_info(w, who):
    """{label: line} of what the program prints about the link."""
    done = subprocess.run([labnet.program(PROGRAMS[who]), "--auth-info", "-c", w.conf[who]],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    of_link = re.search(rf"^link {EDGE}\n((?:  .*\n)+)", done.stdout, re.M).group(1)
    return {line.strip().split(":")[0]: line for line in of_link.splitlines()}


PROGRAMS = {"gateway": "sallyport", "router": "sallyport-router"}


@pytest.mark.parametrize("kind, type_", [("self-signed", "self-signed"),
                                         ("signed", "signed by CN=root")])
def test_auth_info(worlds, material, transport, kind, type_):
    """Each side enters the line that the other one prints, as it is."""
    sides = {who: side.but(ca_file=None, store_file=material.store(OTHER[who], kind),
                           **material.of(who, kind).settings())
             for who, side in material.tls().items()}
    w = worlds(transport, sides)
    up(w)
    lines = {who: auth_info(w, who) for who in SIDES}
    for who in SIDES:
        own, found = material.of(who, kind), lines[who]
        assert found["identity"].split() == ["identity:", COMPONENT if who == "gateway" else EDGE]
        assert found["subject"].strip() == f"subject: CN={NAMES[who]}"
        assert found["issued for"].strip() == f"issued for: {NAMES[who]}"
        assert found["type"].strip() == f"type: {type_}"
        for label, algorithm in (("key SHA-1", "sha1"), ("key SHA-256", "sha256")):
            (colons,) = material.hashed(own, algorithm, colons=True, upper=True)
            assert found[label].strip() == f"{label}: {colons}"
    for ours, theirs in (("key SHA-256", "key SHA-1"), ("key SHA-1", "key SHA-256")):
        label = {"gateway": ours, "router": theirs}
        since = sizes(w)
        repaired(w, {who: side.but(store_file=None, authlist=[lines[OTHER[who]][label[who]]])
                     for who, side in sides.items()}, {})
        believed(w.gateway, "authlist", since[0])
        believed(w.router, "authlist", since[1])


def test_auth_info_without_a_certificate(worlds, material):
    w = worlds("dial", material.password())
    for who in SIDES:
        assert list(auth_info(w, who)) == ["no certificate"]


# ---- mistakes that are found before the start ----------------------------------------------------

H1, H256 = "ab" * 20, "cd" * 32
LENGTH = "wrong number of hex digits: SHA-1 has 40, SHA-256 has 64"
LISTS = {
    "one digit short": (H256[:-1], LENGTH),
    "one digit long": (H1 + "0", LENGTH),
    "the other kind was announced": (f"sha256:{H1}", "sha256: has 64 hex digits, these are 40"),
    "of the certificate": (f"certificate SHA-256: {H256}", "not a key hash"),
    "no digits": ("-----BEGIN CERTIFICATE-----", "not a key hash"),
}


def refuses(w, who, settings, key, why):
    """That program does not start with this link, and names the line of the mistake."""
    w.write(*in_order({OTHER[who]: settings, who: settings}))
    path = w.conf[who]
    text = path.read_text().replace(f" {key} = ", f"\n    {key} = ", 1)
    path.write_text(text)
    number = text[:text.index(f"\n    {key} = ")].count("\n") + 2
    for more in ([], ["-t"]):
        done = subprocess.run(
            [labnet.program(PROGRAMS[who]), "-c", path, *more, *labnet.root_option()],
            capture_output=True, text=True, timeout=20)
        assert done.returncode == BAD_CONFIG, done
        line = next(line for line in done.stderr.splitlines() if "warning" not in line)
        assert line.startswith(f"{path}:{number}: ") and why in line, (number, done.stderr)


def test_bad_authlist(worlds, material, judge):
    w = worlds("dial", material.tls())
    for entry, why in LISTS.values():
        refuses(w, judge, material.tls()[judge].but(authlist=[H256, entry]), "authlist", why)


def test_a_password_alone_does_not_do_where_the_inside_dials(worlds, material):
    w = worlds("accept", material.tls())
    for who in SIDES:
        refuses(w, who, material.password()[who].but(auth="password"), "auth", "proves")
