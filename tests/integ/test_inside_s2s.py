"""Links with protocol "s2s" and real servers as they came: what federates with everybody federates
with the gateway, which stands for everybody."""
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from functools import partial

import inside_s2s
import labnet
import pytest
import twenty
from cable import Cable
from conftest import ask_books, new_lab
from inside_s2s import (ANY, DOMAIN, EJABBERD, INNER, LINK, PRIVATE, PROSODY, RAW, SERVER, Office,
                        Recipe)
from labnet import S2S, Net, wait_for
from peers import (RESULT, VERIFY, Closed, RemoteServer, XmlStream, authorised, dial, dialback_key,
                   message)
from remotes import REMOTES


def needs(server):
    if not server.usable():
        pytest.skip(f"{server.name} is not installed, or needs root")


@pytest.fixture
def leaving(fresh_lab):
    """Who leaves before the programs of the lab are told to end."""
    made = []
    yield made
    for o in made:
        o.leave()


@pytest.fixture
def office(fresh_lab, leaving):
    """Sets one up."""
    def make(server, **more):
        needs(server)
        leaving.append(Office(fresh_lab, server, **more))
        return leaving[-1]
    return make


def shared(server):
    """Everything at its defaults; for tests that leave it as it was."""
    needs(server)
    with new_lab(f"test_inside_s2s_{server.name}") as lab:
        o = Office(lab, server)
        yield o
        o.leave()


@pytest.fixture(scope="module")
def prosody():
    yield from shared(PROSODY)


@pytest.fixture(scope="module")
def ejabberd():
    yield from shared(EJABBERD)


@pytest.fixture(params=("prosody", "ejabberd"))
def either(request):
    return request.getfixturevalue(request.param)


# ---- the twenty checks, by what is at the other end of the link ----------------------------------

def certificates(lab, *domains):
    """A folder for certificates_dir: the lab's CA is the private one of the organisation."""
    folder = lab.dir / "shown"
    folder.mkdir()
    for domain in domains:
        cert, key = lab.certificate(domain)
        (folder / f"{domain}.pem").write_bytes(cert.read_bytes() + key.read_bytes())
    return folder


def trusting(lab):
    """On loopback a server dials from 127.0.0.1 as it likes."""
    return {"trusted": [f"{lab.ip(SERVER)}/32", "127.0.0.1/32"]}


def mutual(lab, stored=DOMAIN):
    """The settings of a link with auth tls that knows the certificate of `stored`."""
    cert, key = lab.certificate("edge.inside.lab")
    both = lab.conf("store.pem", "".join(lab.certificate(d)[0].read_text()
                                         for d in (stored, inside_s2s.ROOMS)))
    return {"auth": "tls", "certificate": cert, "key": key, "store_file": both}


def in_clear(o):
    assert not o.events("tls.up")
    assert {e["encrypted"] for e in o.events("s2s.stream.open")} == {"no"}
    assert {e["mech"] for e in o.events("s2s.state")} == {"dialback"}
    assert o.events("dialback.verify.sent") and o.events("dialback.verify.answered")


def by_starttls(o):
    """Dialback both ways, behind TLS that began in clear."""
    opened = o.events("s2s.stream.open")
    ids = {(e["dir"], e["sid"]) for e in opened if e["encrypted"] == "yes"}
    assert ids == {(e["dir"], e["sid"]) for e in opened if e["encrypted"] == "no"}
    assert {d for d, _ in ids} == {"in", "out"}
    assert {e["mech"] for e in o.events("s2s.state")} == {"dialback"}
    assert o.events("dialback.verify.sent") and o.events("dialback.verify.answered")


def by_direct_tls(o):
    opened = [e for e in o.events("s2s.stream.open") if e["dir"] == "in"]
    assert opened and {e["encrypted"] for e in opened} == {"yes"}
    assert "_xmpps-server._tcp" in o.lab.log("inner-dns").read_text()


def by_address(o):
    """What comes from there is believed; what goes there is proven all the same."""
    by = {d: {e["mech"] for e in o.events("s2s.state") if e["dir"] == d} for d in ("in", "out")}
    assert by == {"in": {"address"}, "out": {"dialback"}}
    assert not o.events("dialback.verify.sent")
    assert o.events("dialback.verify.answered")


def by_certificate(o):
    assert {e["mech"] for e in o.events("s2s.state") if e["dir"] == "in"} == {"certificate"}
    assert not o.events("dialback.verify.sent")
    verdicts = {(e["dir"], e["reason"]) for e in o.events("link.trust")}
    assert verdicts == {("in", "store"), ("out", "store")}


OUTSIDE = ("raw.lab", "any.lab", "nowhere.lab")
ROWS = {
    "prosody-tls-required-certificates": (PROSODY, lambda lab: {
        "options": {"secure_auth": True},
        "link": {"security_mode": "tls-required",
                 "certificates_dir": certificates(lab, *OUTSIDE)}}, by_starttls),
    "prosody-certificates-direct-tls": (PROSODY, lambda lab: {
        "options": {"secure_auth": True}, "dns": inside_s2s.unbound,
        "link": {"certificates_dir": certificates(lab, *OUTSIDE)}}, by_direct_tls),
    "prosody-no-tls": (PROSODY, lambda lab: {
        "options": {"encryption": False, "without": ["tls"]},
        "link": {"security_mode": "no-tls"}}, in_clear),
    "prosody-trusted": (PROSODY, lambda lab: {"link": trusting(lab)}, by_address),
    "prosody-mutual-tls": (PROSODY, lambda lab: {"link": mutual(lab)}, by_certificate),
    "ejabberd-tls-required-certificates": (EJABBERD, lambda lab: {
        "options": {"mode": "tls-required"},
        "link": {"security_mode": "tls-required",
                 "certificates_dir": certificates(lab, *OUTSIDE)}}, by_starttls),
    "ejabberd-trusted": (EJABBERD, lambda lab: {"link": trusting(lab)}, by_address),
    "ejabberd-mutual-tls": (EJABBERD, lambda lab: {
        "options": {"mode": "tls-required"}, "link": mutual(lab)}, by_certificate),
}


def all_checks(o, expected):
    twenty.assert_passes(o.scene(stranger=o.user("stranger", PRIVATE)))
    expected(o)


@pytest.mark.parametrize("row", ROWS)
def test_twenty_checks(fresh_lab, office, row):
    server, settings, expected = ROWS[row]
    all_checks(office(server, **settings(fresh_lab)), expected)


def test_twenty_checks_at_the_defaults(either):
    all_checks(either, {"prosody": by_starttls, "ejabberd": in_clear}[either.server.name])


def test_chat_room(either):
    twenty.assert_passes(either.scene(), twenty.ROOM)


# ---- what the manual says ------------------------------------------------------------------------

ONLY_DNS = "Only DNS changes: protocol `s2s`"
CHECKED = "Only DNS changes, and certificates are checked"


def follow(lab, recipe, server, dns=None, **options):
    """An office that is configured as the page says."""
    addresses = (dns or recipe).block("listen-address=")
    dnsmasq = partial(inside_s2s.dnsmasq, lines=addresses)
    return {"server": server, "dns": dnsmasq, "options": options,
            "conf": inside_s2s.recipe_conf(lab, recipe.block("links = "))}


def dns_port(lua):
    """The lab's name server need not be root's."""
    return re.sub(r'forward = "([0-9.]+)"', rf'forward = "\1@{labnet.DNS_PORT}"', lua)


def not_covered(o, user):
    """Where certificates are demanded, only those domains can be reached for which there is one."""
    o.romeo.send(o.romeo.stanza("message", user.jid, "uncovered", "<body>x</body>", "chat"))
    got = o.romeo.expect("message", type="error", id="uncovered", timeout=20)
    assert got.condition.startswith("remote-server-"), got
    user.send(user.stanza("message", o.romeo.jid, "uncovered-in", "<body>x</body>", "chat"))
    assert user.expect("message", type="error", id="uncovered-in").condition == \
        "remote-server-timeout"


def test_recipe_of_prosody(fresh_lab, office):
    recipe = Recipe(fresh_lab, "prosody.md", ONLY_DNS)
    o = office(**follow(fresh_lab, recipe, PROSODY, federation=dns_port(recipe.block("unbound"))))
    all_checks(o, by_starttls)


def checked(lab, text):
    """What sallyport -t says of a configuration."""
    (lab.dir / "etc" / "sallyport" / "inside").mkdir(parents=True, exist_ok=True)
    return subprocess.run([labnet.program("sallyport"), "-t", "-c", lab.conf("page.conf", text)],
                          capture_output=True, text=True)


@pytest.mark.parametrize("page", ("prosody", "ejabberd", "openfire", "cisco-imp"))
def test_recipes_are_accepted(lab, page):
    """Also those for servers that cannot be run here. Without the line that says where the world
    is let in they are not: the two listeners are never one."""
    recipes = [b for b in Recipe(lab, f"{page}.md").blocks if 'protocol = "s2s"' in b]
    assert recipes
    for text in recipes:
        text += "" if "domains = " in text else f'domains = ( {{ name = "{DOMAIN}"; }} );\n'
        done = checked(lab, text)
        assert done.returncode == 0, done
        done = checked(lab, re.sub(r"^listen = .*$", "", text, flags=re.M))
        assert (done.returncode, "the world is let in there" in done.stderr) == (78, True), done


def test_recipe_of_prosody_with_certificates(fresh_lab, office):
    """The CA is one that nobody else knows. A domain without a certificate waits for a reload."""
    lab, etc = fresh_lab, fresh_lab.dir / "etc"
    dns, recipe = (Recipe(lab, "prosody.md", h) for h in (ONLY_DNS, CHECKED))
    for folder in ("ca", "prosody", "sallyport/inside"):
        (etc / folder).mkdir(parents=True)
    made = recipe.block("openssl").replace("other.example", "any.lab")
    subprocess.run(["sh", "-ec", made], cwd=etc / "ca", check=True, capture_output=True)
    shutil.copy(etc / "ca" / "ca.pem", etc / "prosody")
    shutil.copy(etc / "ca" / "raw.lab.pem", etc / "sallyport" / "inside")
    o = office(**follow(lab, recipe, PROSODY, dns, federation=dns_port(recipe.block("unbound"))))
    twenty.assert_passes(o.scene(), (twenty.message_out, twenty.message_in))
    by_starttls(o)
    not_covered(o, o.any)
    shutil.copy(etc / "ca" / "any.lab.pem", etc / "sallyport" / "inside")
    o.reload()
    twenty.deliver(o.scene(), o.romeo, o.any)
    twenty.deliver(o.scene(), o.any, o.romeo)


def test_recipe_of_ejabberd(fresh_lab, office):
    recipe = Recipe(fresh_lab, "ejabberd.md", ONLY_DNS)
    o = office(**follow(fresh_lab, recipe, EJABBERD, mode="tls-required"))
    conf = fresh_lab.dir / "conf"
    assert set(recipe.block("s2s_use").splitlines()) <= set(
        (conf / "ejabberd.yml").read_text().splitlines())
    assert recipe.block("nameserver") == (conf / "ejabberd.resolv.conf").read_text()
    all_checks(o, by_starttls)


# ---- what may go wrong with certificates ---------------------------------------------------------

def test_another_certificate_than_the_one_in_the_store(fresh_lab, office):
    """Nothing passes in either direction, the log says what was looked at, there is an alarm."""
    o = office(PROSODY, link=mutual(fresh_lab, "stored.inside.lab"),
               limits={"hold_time": "1s"})
    o.romeo.send(o.romeo.stanza("message", o.raw.jid, "out", "<body>x</body>", "chat"))
    got = o.romeo.expect("message", type="error", id="out", timeout=20)
    assert got.condition.startswith("remote-server-"), got
    o.raw.send(o.raw.stanza("message", o.romeo.jid, "in", "<body>x</body>", "chat"))
    assert o.raw.expect("message", type="error", id="in").condition == "remote-server-timeout"
    refused = o.events("link.trust.refused")
    assert {e["dir"] for e in refused} == {"in", "out"}
    assert {e["reason"] for e in refused} == {"unknown-issuer"}, refused
    o.gateway.wait_log(rf"alarm\.raised kind=link\.unknown-issuer subject={LINK}\b")
    assert not o.events("s2s.state") and not o.raw.stanzas[1:]
    assert "in" not in twenty.ids(o.romeo)


# ---- a link whose inside is played by sockets ----------------------------------------------------

SECOND, INNER2, SERVER2, CABLE = "second.lab", 15, 34, 51


class Bare:
    """A gateway between sockets: what no honest server inside would do."""

    def __init__(self, lab, links=({},), **settings):
        self.lab, self.address, self.inner = lab, lab.ip(Net.ALPHA), lab.ip(INNER)
        lab.dns({"raw.lab": [(RAW, S2S, 10)], "any.lab": [(ANY, S2S, 10)]})
        self.inside = lab.at_end(RemoteServer(lab.ip(SERVER), DOMAIN))
        self.gateway = inside_s2s.gateway(lab, links, **settings)
        self.raw = lab.at_end(twenty.Played(lab, RAW, "raw.lab", self.address))

    def proven(self, remote="raw.lab", local=DOMAIN):
        """A stream from the inside for this pair."""
        s = dial(self.inner, local, remote)
        s.ask_result(local, remote)
        answer = s.expect(RESULT)
        assert answer.get("type") == "valid", ET.tostring(answer)
        return s

    def passes(self, ident):
        """Both ways, on streams of their own."""
        s = self.proven()
        s.send(message(f"romeo@{DOMAIN}/x", self.raw.jid, f"{ident}-out"))
        self.raw.expect_stanza(f"{ident}-out")
        s.close()
        self.raw.send(message(self.raw.jid, f"romeo@{DOMAIN}/x", f"{ident}-in"))
        self.inside.expect_stanza(f"{ident}-in")


    def leave(self):
        self.raw.hang_up()


@pytest.fixture(scope="module")
def bare_lab():
    with new_lab("test_inside_s2s_bare") as made:
        yield made


@pytest.fixture(scope="module")
def bare(bare_lab):
    b = Bare(bare_lab, timeouts={"auth": "3s", "close": "1s"}, dialback_timeout="2s")
    yield b
    b.leave()


def test_authority_for_every_foreign_domain(bare):
    """Without ever having heard of them; and it is in their name that the inside is dialled."""
    secret = bare.lab.secret(f"{DOMAIN}-dialback").read_text().strip()
    bare.passes("authority")
    headers = [(s.attrs.get("from"), s.attrs.get("to")) for _, s in bare.inside.streams]
    assert ("raw.lab", DOMAIN) in headers, headers
    s = dial(bare.inner, DOMAIN, "nobody.example")
    for remote in ("raw.lab", "nobody.example", "a.b.c.nobody.example", "xn--bcher-kva.example"):
        key = dialback_key(secret, DOMAIN, remote, "some-id")
        for given, verdict in ((key, "valid"), (key[::-1], "invalid")):
            s.ask_verify(DOMAIN, remote, "some-id", given)
            answer = s.expect(VERIFY)
            assert (answer.get("from"), answer.get("to"), answer.get("id"), answer.get("type")) \
                == (remote, DOMAIN, "some-id", verdict)
    s.close()
    # Each door for its own side.
    for where, header, to in (("inner", (DOMAIN, "raw.lab"), DOMAIN),
                              ("address", ("raw.lab", DOMAIN), "nobody.example")):
        s = dial(getattr(bare, where), *header)
        s.ask_verify(header[0], to, "some-id", dialback_key(secret, header[0], to, "some-id"))
        answer = s.expect(VERIFY)
        assert answer.get("type") == "error", ET.tostring(answer)
        assert any(c.tag.endswith("}item-not-found") for c in answer.iter()), ET.tostring(answer)
        s.close()


HEADERS = (  # where, from, to, what comes back
    ("inner", "raw.lab", DOMAIN, "host-unknown"),      # what a stranger outside would say
    ("inner", "raw.lab", "any.lab", "invalid-from"),   # nothing between others
    ("inner", PRIVATE, "raw.lab", "invalid-from"),
    ("inner", DOMAIN, DOMAIN, "host-unknown"),
    ("address", DOMAIN, DOMAIN, "invalid-from"),       # what the inside would say, outside
    ("address", DOMAIN, "raw.lab", "host-unknown"),
    ("address", "raw.lab", "any.lab", "host-unknown"),
)


@pytest.mark.parametrize("where, from_, to, condition", HEADERS)
def test_headers_at_the_wrong_door(bare, where, from_, to, condition):
    s = dial(getattr(bare, where), from_, to, features=False)
    s.read_header()
    assert s.read_error() == condition


REQUESTS = (  # where, with which header, from, to, what comes back
    ("inner", (DOMAIN, "raw.lab"), PRIVATE, "raw.lab", "not-allowed"),
    ("inner", (DOMAIN, "raw.lab"), "any.lab", "raw.lab", "not-allowed"),
    ("inner", (DOMAIN, "raw.lab"), DOMAIN, DOMAIN, "item-not-found"),
    ("address", ("raw.lab", DOMAIN), DOMAIN, DOMAIN, "not-allowed"),
    ("address", ("raw.lab", DOMAIN), "raw.lab", "any.lab", "item-not-found"),
)


@pytest.mark.parametrize("where, header, from_, to, condition", REQUESTS)
def test_claims_at_the_wrong_door(bare, where, header, from_, to, condition):
    s = dial(getattr(bare, where), *header)
    s.ask_result(from_, to)
    answer = s.expect(RESULT)
    assert answer.get("type") == "error"
    assert any(c.tag.endswith(f"}}{condition}") for c in answer.iter()), ET.tostring(answer)
    s.close()


STANZAS = (("inner", DOMAIN, "raw.lab", f"x@{PRIVATE}/x", "y@raw.lab", "invalid-from"),
           ("inner", DOMAIN, "raw.lab", "x@any.lab/x", "y@raw.lab", "invalid-from"),
           ("inner", DOMAIN, "raw.lab", f"x@{DOMAIN}/x", f"y@{DOMAIN}", "host-unknown"),
           ("inner", DOMAIN, "raw.lab", f"x@{DOMAIN}/x", "y@any.lab", "invalid-from"),
           ("address", "raw.lab", DOMAIN, f"x@{DOMAIN}/x", f"y@{DOMAIN}", "invalid-from"))


@pytest.mark.parametrize("where, local, remote, from_, to, condition", STANZAS)
def test_stanzas_of_others_on_a_proven_stream(bare, where, local, remote, from_, to, condition):
    s = bare.proven(remote, local) if where == "inner" else \
        authorised(bare.address, local, remote)
    s.send(message(from_, to, "forged"))
    assert s.read_error() == condition
    bare.passes(f"after-{from_}-{to}")
    assert "forged" not in twenty.ids(bare.raw)
    assert not [e for _, e in bare.inside.stanzas if e.get("id") == "forged"]


def test_an_impostor_inside(bare):
    """Who is not trusted has to be known to the inside server as its own."""
    bare.inside.verdict = "invalid"
    s = dial(bare.inner, DOMAIN, "any.lab")
    s.ask_result(DOMAIN, "any.lab")
    assert s.expect(RESULT).get("type") == "invalid"
    bare.inside.verdict = "valid"


def test_tls_from_the_first_byte_is_for_the_inside(bare):
    hello = b"\x16\x03\x01\x00\x05hello"
    s = XmlStream(socket.create_connection((bare.address, S2S)))
    s.send(hello)
    s.read_header()
    assert s.read_error() in ("not-well-formed", "unsupported-encoding")
    since = bare.gateway.log_size()
    s = XmlStream(socket.create_connection((bare.inner, S2S)))
    s.send(hello)
    with pytest.raises(Closed):
        s.read_header()
    bare.gateway.wait_log(rf"tls\.failed .*link={LINK}\b", since)


# ---- rubbish -------------------------------------------------------------------------------------

def rubbish(bare):
    s = socket.create_connection((bare.inner, S2S))
    s.sendall(bytes(range(1, 22)) + b"<<<<" + bytes(range(128, 256)) * 40)
    return [s]


def endless_element(bare):
    s = bare.proven()
    s.send(f"<message from='romeo@{DOMAIN}/x' to='y@raw.lab' id='endless'><body>")
    try:
        for _ in range(40):
            s.send("x" * 65536)
    except OSError:
        pass
    return [s.sock]


def silent(bare):
    """At once, after the byte with which TLS begins, and after a header."""
    found = [socket.create_connection((bare.inner, S2S)) for _ in range(100)]
    for s in found[50:]:
        s.sendall(b"\x16")
    return found + [dial(bare.inner, DOMAIN, f"d{i}.lab").sock for i in range(50)]


def stanza_without_addresses(bare):
    s = bare.proven()
    s.send("<message id='nobody'><body>x</body></message>")
    return [s.sock]


def ended(s):
    s.settimeout(labnet.WAIT)
    try:
        while s.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("act", (rubbish, endless_element, silent,
                                 stanza_without_addresses))
def test_rubbish_inside_hurts_nobody_else(bare, act):
    """The streams that are there and new ones go on, and who does it loses the connection."""
    running = bare.proven("any.lab")
    sockets = act(bare)
    bare.passes(f"beside-{act.__name__}")
    assert all(ended(s) for s in sockets)
    running.ask_result(DOMAIN, "any.lab")
    assert running.expect(RESULT).get("type") == "valid"
    running.close()


# ---- sizes ---------------------------------------------------------------------------------------

LIMIT = 256 * 1024  # limits.stanza_size; both servers end a stream for 512 KiB


def test_too_large_for_outside_is_bounced(either):
    """What the inside takes from its own users may be more than others take; its stream goes on."""
    o, romeo, raw = either, either.romeo, either.raw
    twenty.deliver(o.scene(), romeo, raw)
    since = o.gateway.log_size()
    for ident, size in (("too-large", 300 * 1024), ("beside", 10)):
        romeo.send(romeo.stanza("message", raw.jid, ident, f"<body>{'x' * size}</body>", "chat"))
    assert romeo.expect("message", id="too-large", type="error").condition == "policy-violation"
    raw.expect_stanza("beside")
    assert "too-large" not in twenty.ids(raw)
    assert not [e for e in o.events("s2s.closed", since) if e["dir"] == "in"]


def test_too_large_for_the_inside_does_not_get_there(either):
    """It would end the stream for everybody else. What grows by being written anew is measured as
    it leaves; the largest that may pass do, one right behind the other."""
    o, romeo, many, one = either, either.romeo, either.any, either.raw
    for user in (many, one):
        twenty.deliver(o.scene(), user, romeo)
    since = o.gateway.log_size()
    one.send(one.stanza("message", romeo.jid, "huge", f"<body>{'x' * LIMIT}</body>", "chat"))
    assert one.out[DOMAIN].read_error() == "policy-violation"
    one.hang_up()
    grows = f"<body><![CDATA[{'<' * (200 * 1024)}]]></body>"
    many.send(many.stanza("message", romeo.jid, "grows", grows, "chat"))
    assert many.expect("message", id="grows", type="error").condition == "policy-violation"
    room = "x" * (LIMIT - 300)
    for i in range(6):
        many.send(many.stanza("message", romeo.jid, f"large-{i}", f"<body>{room}</body>", "chat"))
    romeo.expect("message", id="large-5", timeout=20)
    assert [i for i in twenty.ids(romeo) if i.startswith("large-")] == \
        [f"large-{i}" for i in range(6)]
    assert not {"huge", "grows"} & set(twenty.ids(romeo))
    for user in (many, one):
        twenty.deliver(o.scene(), user, romeo)
    assert not o.events("s2s.connected", since) and not o.events("link.down", since)


# ---- one side wants TLS and the other has none ---------------------------------------------------

def test_modes_that_do_not_agree(either):
    """Nothing passes in either direction, and never in clear; a reload mends it."""
    o, user = either, either.fourth
    mode = {"prosody": "no-tls", "ejabberd": "tls-required"}[o.server.name]
    since = o.reload(r'^(.*name = "core";)', rf'\1 security_mode = "{mode}";')
    o.romeo.send(o.romeo.stanza("message", user.jid, "out", "<body>x</body>", "chat"))
    got = o.romeo.expect("message", type="error", id="out", timeout=20)
    assert got.condition.startswith("remote-server-"), got
    user.send(user.stanza("message", o.romeo.jid, "in", "<body>x</body>", "chat"))
    assert user.expect("message", type="error", id="in").condition == "remote-server-timeout"
    assert not o.events("s2s.state", since)
    o.gateway.wait_log(rf"alarm\.raised kind=link\.tls subject={LINK}\b", since)
    o.reload(rf' security_mode = "{mode}";', "")
    for sender, receiver in ((o.romeo, o.raw), (o.raw, o.romeo)):
        twenty.deliver(o.scene(), sender, receiver)
    o.gateway.wait_log(rf"alarm\.cleared kind=link\.tls subject={LINK}\b", since)
    assert "in" not in twenty.ids(o.romeo) and twenty.ids(user) == ["in"]  # the error


# ---- trusted addresses ---------------------------------------------------------------------------

def test_only_the_trusted_address_is_believed(fresh_lab):
    b = Bare(fresh_lab, [{"trusted": [f"{fresh_lab.ip(61)}/32"]}])
    b.inside.verdict = "invalid"
    for source, verdict in ((61, "valid"), (62, "invalid")):
        s = dial(b.inner, DOMAIN, "raw.lab", source=fresh_lab.ip(source))
        s.ask_result(DOMAIN, "raw.lab")
        assert s.expect(RESULT).get("type") == verdict
        s.close()
    assert [a for a in b.inside.asked if a[0] == "verify"] != []
    # And it is trusted for its own domains alone.
    s = dial(b.inner, DOMAIN, "raw.lab", source=fresh_lab.ip(61))
    s.ask_result(PRIVATE, "raw.lab")
    assert s.expect(RESULT).get("type") == "error"
    s.close()


# ---- two links -----------------------------------------------------------------------------------

def two_links(lab, leaving, domains):
    leaving.append(Bare(lab, [{"domains": domains[0], "priority": 1}, {
        "name": "im2", "domains": domains[1], "priority": 2, "address": f"{lab.ip(SERVER2)}:{S2S}",
        "listen": [f"{lab.ip(INNER2)}:{S2S}"]}], domains=[{"name": DOMAIN}, {"name": SECOND}]))
    return leaving[-1]


def test_nobody_speaks_for_the_other_link(fresh_lab, leaving):
    b = two_links(fresh_lab, leaving, ([DOMAIN], [SECOND]))
    second = fresh_lab.at_end(RemoteServer(fresh_lab.ip(SERVER2), SECOND))
    b.passes("own")
    b.raw.send(message(b.raw.jid, f"x@{SECOND}/x", "to-second"))
    second.expect_stanza("to-second")
    s = dial(b.inner, SECOND, "raw.lab", features=False)
    s.read_header()
    assert s.read_error() == "invalid-from"
    s = b.proven()
    s.ask_result(SECOND, "raw.lab")
    assert s.expect(RESULT).get("type") == "error"
    s.send(message(f"x@{SECOND}/x", b.raw.jid, "spoken-for"))
    assert s.read_error() == "invalid-from"
    b.inner = fresh_lab.ip(INNER2)
    s = b.proven(local=SECOND)
    s.send(message(f"x@{SECOND}/x", b.raw.jid, "by-itself"))
    b.raw.expect_stanza("by-itself")
    assert "spoken-for" not in twenty.ids(b.raw)


def test_the_next_link_takes_over(fresh_lab, leaving):
    """By priority; and back again."""
    b = two_links(fresh_lab, leaving, ([DOMAIN, SECOND], [DOMAIN, SECOND]))
    second = fresh_lab.at_end(RemoteServer(fresh_lab.ip(SERVER2), DOMAIN))
    to = f"romeo@{DOMAIN}/x"
    b.raw.send(message(b.raw.jid, to, "first"))
    b.inside.expect_stanza("first")
    b.inside.close()
    for i in range(5):
        b.raw.send(message(b.raw.jid, to, f"failover-{i}"))
    second.expect_stanza("failover-4")
    assert [e.get("id") for _, e in second.stanzas] == [f"failover-{i}" for i in range(5)]
    since = b.gateway.log_size()
    b.inside = fresh_lab.at_end(RemoteServer(fresh_lab.ip(SERVER), DOMAIN))
    b.gateway.wait_log(rf"\blink\.up link={LINK}\b", since)
    b.raw.send(message(b.raw.jid, to, "back"))
    b.inside.expect_stanza("back")


# ---- the server inside dies and comes back -------------------------------------------------------

BURST = 30


def fates(user, others, prefix):
    """What became of the messages of a user: {ident: how often it arrived or came back}."""
    found = {}
    for stanzas in (others, user):
        for i in twenty.ids(stanzas):
            if i.startswith(prefix):
                found[i] = found.get(i, 0) + 1
    return found


def test_server_restarted(office):
    """What comes meanwhile waits, and is delivered in order."""
    o = office(PROSODY)
    twenty.deliver(o.scene(), o.raw, o.romeo)
    since = o.gateway.log_size()
    o.proc.kill()
    for i in range(BURST):
        o.raw.send(o.raw.stanza("message", o.romeo.jid, f"meanwhile-{i}", "<body>x</body>"))
    o.gateway.wait_log(rf"\blink\.down link={LINK}", since)
    o.gateway.wait_log(rf"alarm\.raised kind=link\.connect subject={LINK}\b", since)
    o.restart_server()
    o.romeo.expect("message", id=f"meanwhile-{BURST - 1}", timeout=20)
    here = [i for i in twenty.ids(o.romeo) if i.startswith("meanwhile")]
    assert here == [f"meanwhile-{i}" for i in range(BURST)]
    assert not [i for i in twenty.ids(o.raw) if i.startswith("meanwhile")]
    o.gateway.wait_log(rf"alarm\.cleared kind=link\.connect subject={LINK}\b", since)
    twenty.assert_passes(o.scene(), (twenty.message_out, twenty.message_in))


def test_server_away_for_long(fresh_lab, office):
    """After limits.hold_time everything bounces, without a word about the inside; and when the
    server is back the first message of its users goes through."""
    o = office(PROSODY, limits={"hold_time": "1s"})
    twenty.deliver(o.scene(), o.raw, o.romeo)
    o.proc.kill()
    for i in range(BURST):
        o.raw.send(o.raw.stanza("message", o.romeo.jid, f"away-{i}", "<body>x</body>"))
    for i in range(BURST):
        got = o.raw.expect("message", id=f"away-{i}", type="error")
        assert got.condition == "remote-server-timeout", got
        assert fresh_lab.ip(SERVER).encode() not in got.raw, got
    o.restart_server()
    twenty.deliver(o.scene(), o.romeo, o.raw)
    twenty.deliver(o.scene(), o.raw, o.romeo)
    assert fates(o.raw, o.romeo, "away") == {f"away-{i}": 1 for i in range(BURST)}


def test_server_killed_under_load(office):
    """Each stanza for the inside comes to exactly one end."""
    o = office(PROSODY)
    twenty.deliver(o.scene(), o.raw, o.romeo)
    talker = Talker(o.raw, o.romeo.jid, "load")
    wait_for(lambda: talker.sent > BURST, what="the load")
    accepted = o.gateway.log_size()
    o.proc.kill()
    o.gateway.wait_log(rf"\blink\.down link={LINK}", accepted)
    before = list(twenty.ids(o.romeo))
    o.restart_server()
    wait_for(lambda: [i for i in twenty.ids(o.romeo) if i.startswith("load")], 20,
             "the load to go on")
    sent = talker.stop()
    last = f"load-{sent - 1}"
    wait_for(lambda: last in twenty.ids(o.romeo) + twenty.ids(o.raw), 20, last)
    books = ask_books(o.gateway)["in"]
    assert books["received"] == sent + 1 and books["waiting"] == books["writing"] == 0
    ends = [i for i in twenty.ids(o.romeo) + twenty.ids(o.raw) + before if i.startswith("load")]
    assert len(ends) == len(set(ends)), "something arrived twice"
    # What a killed server had taken and not passed on is lost with it, and nothing else.
    missing = [i for i in range(sent) if f"load-{i}" not in ends]
    assert missing == list(range(missing[0], missing[0] + len(missing))) if missing else True


class Talker:
    """Sends numbered messages until it is told to stop."""

    def __init__(self, user, to, prefix, pause=0.002):
        self.user, self.to, self.prefix, self.pause = user, to, prefix, pause
        self.sent, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.over.wait(self.pause):
            self.user.send(self.user.stanza("message", self.to, f"{self.prefix}-{self.sent}",
                                            "<body>x</body>", "chat"))
            self.sent += 1

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.sent


# ---- reload --------------------------------------------------------------------------------------

def test_reload_of_the_link_while_streams_run(fresh_lab, office):
    """Another address, and other trust: streams end and come anew, and each stanza is delivered or
    bounced, once."""
    o = office(PROSODY)
    cable = fresh_lab.at_end(Cable(fresh_lab.ip(CABLE), (fresh_lab.ip(SERVER), S2S), S2S))
    twenty.assert_passes(o.scene(), (twenty.message_in, twenty.message_out))
    talkers = [Talker(o.raw, o.romeo.jid, "in"), Talker(o.romeo, o.raw.jid, "out")]
    here, there = (f"{fresh_lab.ip(h)}:{S2S}" for h in (SERVER, CABLE))
    for turn in range(6):
        since = o.gateway.log_size()
        if turn % 2 == 0:
            old, new = (here, there) if turn % 4 == 0 else (there, here)
            o.gateway.edit(rf'address = "{old}"', f'address = "{new}"')
        else:
            o.gateway.edit(rf'name = "{LINK}";', f'name = "{LINK}"; trusted = ["127.0.0.1/32"];'
                           ) if turn == 1 else \
                o.gateway.edit(r"trusted = [^;]*;", f'trusted = ["127.0.0.{turn}/32"];')
        o.gateway.signal(signal.SIGHUP)
        o.gateway.wait_log(r"config\.reloaded", since)
        marks = [t.sent for t in talkers]
        wait_for(lambda: all(t.sent > m + BURST for t, m in zip(talkers, marks)), what="traffic")
        twenty.assert_passes(o.scene(), (twenty.message_in, twenty.message_out))
    assert {e["addr"] for e in o.events("s2s.connected")} == {here, there}
    assert {"address", "dialback"} == {e["mech"] for e in o.events("s2s.state")}
    sent = [t.stop() for t in talkers]
    twenty.assert_passes(o.scene(), (twenty.message_in, twenty.message_out))
    for (user, other), prefix, n in (((o.raw, o.romeo), "in", sent[0]),
                                     ((o.romeo, o.raw), "out", sent[1])):
        wait_for(lambda: len(fates(user, other, f"{prefix}-")) == n, what=f"all of {prefix}",
                 detail=lambda: str([i for i in range(n) if f"{prefix}-{i}" not in
                                     fates(user, other, f"{prefix}-")]))
        assert set(fates(user, other, f"{prefix}-").values()) == {1}


def test_reload_while_nothing_can_be_reached(fresh_lab, office):
    """Stanzas that wait for the old address go to the new one."""
    o = office(PROSODY)
    good, bad = f"{fresh_lab.ip(SERVER)}:{S2S}", f"{fresh_lab.ip(CABLE)}:{S2S}"
    # Connections there are neither accepted nor refused.
    full = socket.socket()
    full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    full.bind((fresh_lab.ip(CABLE), S2S))
    full.listen(0)
    held = [socket.socket() for _ in range(4)]
    for s in held:
        s.setblocking(False)
        s.connect_ex((fresh_lab.ip(CABLE), S2S))
    for address in (bad, good):
        since = o.gateway.log_size()
        o.gateway.edit(r'address = "[^"]*"', f'address = "{address}"')
        o.gateway.signal(signal.SIGHUP)
        o.gateway.wait_log(r"config\.reloaded", since)
        if address == bad:
            o.raw.send(o.raw.stanza("message", o.romeo.jid, "patient", "<body>x</body>", "chat"))
            wait_for(lambda: ask_books(o.gateway)["in"]["waiting"] == 1, what="it to wait")
    o.romeo.expect("message", id="patient")
    for s in (full, *held):
        s.close()


# ---- what it costs -------------------------------------------------------------------------------

def test_streams_of_a_pair(either, record_property):
    """How many connections with the inside one pair takes that talks both ways, with the questions;
    how many of them stay, and how long the first words need."""
    o, user, took = either, either.third, []
    for sender, receiver in ((o.romeo, user), (user, o.romeo)):
        for _ in range(2):
            began = time.monotonic()
            twenty.deliver(o.scene(), sender, receiver)
            took.append(round(1000 * (time.monotonic() - began), 1))
    pair = f"{user.domain}:{DOMAIN}"
    ends = wait_for(lambda: [e for e in o.events("s2s.closed") if e["pair"] == pair], what="ends")
    opened = {(e["dir"], e["sid"]) for e in o.events("s2s.stream.open") if e["pair"] == pair}
    record_property("first contact out, again, in, again (ms)", took)
    record_property("connections", sorted(d for d, _ in opened))
    print(f"\n{o.server.name}: first contact out {took[0]} ms (then {took[1]}), in {took[2]} ms "
          f"(then {took[3]}); opened {sorted(opened)}")
    assert len(opened) <= 4, opened
    stay = opened - {(e["dir"], e["sid"]) for e in ends}
    assert sorted(d for d, _ in stay) == ["in", "out"], (opened, ends)
