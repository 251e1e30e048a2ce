"""Whom DNSSEC vouches for: a signed zone on a real server, asked through a real resolver that
checks signatures. `auth` is "external" unless said otherwise, so whoever gets a stanza has proven
itself."""
import re
import signal

import pytest
from conftest import SHORT, Inside
from peers import RemoteServer
from pki import Identity, Pki
from signed import UNSIGNED, ZONE, Zones, tlsa

BOUND = 9.0
(GOOD, HASH512, WHOLE, WRONG, LENIENT, FIRST, SECOND, TLSA_BOGUS, SRV_BOGUS, DELEGATED, AUTHORITY,
 OTHER_NAME, CLEAR, ODD, ODD_SELF, PLAIN, PLAIN_HOST, PLAIN_TLSA, NARROW, STRANGER,
 NO_SRV) = range(71, 92)


class World:
    def __init__(self, lab):
        self.lab, self.pki, self.zones = lab, Pki(lab.dir / "pki" / "dane"), Zones(lab)
        self.servers = {}
        self.other = self.pki.self_signed("other", "other.lab")

    def server(self, domain, host, identity=None, **kw):
        tls = {"tls": "required", "context": identity.context()} if identity else {}
        self.servers[host] = self.lab.at_end(
            RemoteServer(self.lab.ip(host), domain, **{**tls, **kw}))

    def self_signed(self, name, host, records, zone=ZONE, **kw):
        """A domain with one server, whose certificate nobody signed."""
        i = self.pki.self_signed(name, f"{name}.{zone}")
        self.zones.add(f"{name}.{zone}", (host, [r(i) for r in records]), zone=zone, **kw)
        self.server(f"{name}.{zone}", host, i)


def right(usage, selector, matching):
    return lambda identity: tlsa(identity, usage, selector, matching)


def signed_by_lab(lab, name):
    """A certificate of the CA that the gateway trusts."""
    return Identity(*lab.certificate(name))


def build(w):
    wrong = tlsa(w.other, 3, 1, 1)
    w.self_signed("good", GOOD, [right(3, 1, 1)])
    w.self_signed("hash512", HASH512, [lambda i: wrong, right(3, 0, 2)])
    w.self_signed("whole", WHOLE, [right(3, 1, 0)])
    w.self_signed("tlsa-bogus", TLSA_BOGUS, [right(3, 1, 1)], spoil="TLSA")
    w.self_signed("srv-bogus", SRV_BOGUS, [right(3, 1, 1)], spoil="SRV")
    w.self_signed("plain-tlsa", PLAIN_TLSA, [right(3, 1, 1)], zone=UNSIGNED)
    w.self_signed("odd-self", ODD_SELF, [lambda i: "3 1 9 00ff"])

    # Certificates that the authorities of the gateway vouch for.
    def trusted(name, host, issued_for, records, zone=ZONE):
        i = signed_by_lab(w.lab, issued_for)
        w.zones.add(f"{name}.{zone}", (host, [r(i) for r in records]), zone=zone)
        w.server(f"{name}.{zone}", host, i)

    trusted("wrong", WRONG, f"wrong.{ZONE}", [lambda i: wrong])
    trusted("lenient", LENIENT, f"lenient.{ZONE}", [lambda i: wrong])
    trusted("delegated", DELEGATED, f"h{DELEGATED}.{ZONE}", [])
    trusted("stranger", STRANGER, "elsewhere.lab", [])
    trusted("odd", ODD, f"odd.{ZONE}", [lambda i: "3 1 9 00ff"])
    trusted("narrow", NARROW, f"narrow.{ZONE}", [right(1, 0, 1)])
    trusted("plain", PLAIN, f"plain.{UNSIGNED}", [], zone=UNSIGNED)
    trusted("plain-host", PLAIN_HOST, f"h{PLAIN_HOST}.{UNSIGNED}", [], zone=UNSIGNED)

    # An authority of the domain's own.
    for name, host, issued_for in (("authority", AUTHORITY, f"h{AUTHORITY}.{ZONE}"),
                                   ("other-name", OTHER_NAME, "elsewhere.lab")):
        root, i = w.pki.root("own-root"), w.pki.signed(name, issued_for, "own-root")
        i.cert.write_text(i.cert.read_text() + root.cert.read_text())
        w.zones.add(f"{name}.{ZONE}", (host, [tlsa(root, 2, 0, 1)]))
        w.server(f"{name}.{ZONE}", host, i)

    # Two targets, the first of which is not who it should be.
    first, second = (w.pki.self_signed(n, f"two.{ZONE}") for n in ("first", "second"))
    w.zones.add(f"two.{ZONE}", (FIRST, [wrong]), (SECOND, [tlsa(second, 3, 1, 1)]))
    w.server(f"two.{ZONE}", FIRST, first)
    w.server(f"two.{ZONE}", SECOND, second)

    # TLSA records, and a server without TLS.
    w.zones.add(f"clear.{ZONE}", (CLEAR, [wrong]))
    w.server(f"clear.{ZONE}", CLEAR)

    # Without SRV records: the domain itself.
    itself = w.pki.self_signed("itself", f"itself.{ZONE}")
    w.zones.lines[ZONE] += [f"itself.{ZONE}. A {w.lab.ip(NO_SRV)}",
                            f"_5269._tcp.itself.{ZONE}. TLSA {tlsa(itself, 3, 1, 1)}"]
    w.server(f"itself.{ZONE}", NO_SRV, itself)


@pytest.fixture(scope="module")
def world(lab):
    w = World(lab)
    build(w)
    both = ["external", "dialback"]
    w.us = Inside(lab, mode="tls-optional", timeouts=SHORT, dns=[w.zones.serve()], trust_ad=True,
                  extra='auth = ["external"];\n', peers=[
                      {"domain": f"lenient.{ZONE}", "auth": both},
                      {"domain": f"clear.{ZONE}", "auth": both},
                      {"domain": f"odd-self.{ZONE}", "auth": both},
                      {"domain": "*", "policy": "allow"}])
    return w


def identity_of(w, domain):
    found = re.findall(rf"s2s\.identity .*remote={re.escape(domain)} (.*)", w.us.gateway.log())
    return found[-1] if found else None


@pytest.mark.parametrize("domain, host, how", [
    (f"good.{ZONE}", GOOD, "by=dane"),
    (f"hash512.{ZONE}", HASH512, "by=dane"),
    (f"whole.{ZONE}", WHOLE, "by=dane"),
    (f"authority.{ZONE}", AUTHORITY, "by=dane"),
    (f"narrow.{ZONE}", NARROW, "by=dane"),
    (f"two.{ZONE}", SECOND, "by=dane"),
    (f"itself.{ZONE}", NO_SRV, "by=dane"),
    (f"delegated.{ZONE}", DELEGATED, "proven"),  # its certificate names the target
    (f"odd.{ZONE}", ODD, "proven"),              # records that nobody can use
    (f"plain.{UNSIGNED}", PLAIN, "proven"),      # as without DNSSEC
])
def test_proven(world, domain, host, how):
    world.us.user.message(f"j@{domain}", f"to-{host}", "hello")
    world.servers[host].expect_stanza(f"to-{host}")
    said = identity_of(world, domain)
    assert "certificate=proven" in said and how in said
    assert ("by=dane" in said) == (how == "by=dane")


@pytest.mark.parametrize("domain, host, words", [
    (f"wrong.{ZONE}", WRONG, rf"TLSA records of h{WRONG}\.{ZONE} name: it matches none of them"),
    (f"lenient.{ZONE}", LENIENT, r"TLSA records .* matches none"),  # dialback does not help
    (f"other-name.{ZONE}", OTHER_NAME, r"fits the TLSA records, but was issued for elsewhere\.lab"),
    (f"tlsa-bogus.{ZONE}", TLSA_BOGUS, r"could not resolve TLSA .*SERVFAIL"),
    (f"srv-bogus.{ZONE}", SRV_BOGUS, r"could not resolve SRV .*SERVFAIL"),
    (f"clear.{ZONE}", CLEAR, r"TLS is required"),
    (f"stranger.{ZONE}", STRANGER, rf"issued for elsewhere\.lab, not for stranger\.{ZONE}"),
    (f"plain-host.{UNSIGNED}", PLAIN_HOST, rf"not for plain-host\.{UNSIGNED}"),
    (f"plain-tlsa.{UNSIGNED}", PLAIN_TLSA, r"self-signed"),  # nobody vouches for these records
])
def test_refused(world, domain, host, words):
    us = world.us
    us.user.message(f"j@{domain}", f"to-{host}", "hello")
    condition, _, text = us.bounce(f"to-{host}", BOUND)
    assert condition in ("remote-server-timeout", "remote-server-not-found")
    assert re.search(words, text), text
    assert world.servers[host].stanzas == []


def test_unusable_records_demand_tls_and_no_more(world):
    """Where dialback is enough, a certificate that nobody knows is."""
    domain = f"odd-self.{ZONE}"
    world.us.user.message(f"j@{domain}", "odd-self", "hello")
    world.servers[ODD_SELF].expect_stanza("odd-self")
    assert "certificate=unproven" in identity_of(world, domain)


def test_the_log_says_what_is_authentic(world):
    log = world.us.gateway.log()
    assert re.search(rf"dns\.result domain=good\.{ZONE} .*authentic=yes", log)
    assert re.search(rf"dns\.result host=h{GOOD}\.{ZONE} method=A .*authentic=yes", log)
    assert re.search(rf"dns\.result host=_5269\._tcp\.h{GOOD}\.{ZONE} method=TLSA .*records=1", log)
    assert re.search(rf"dns\.result domain=plain\.{UNSIGNED} .*authentic=no", log)
    assert not re.search(rf"method=TLSA .*{UNSIGNED}|_tcp\.h\d+\.{UNSIGNED} method=TLSA", log)


def test_without_trust_the_records_prove_nothing(world):
    """And those who were proven by them lose their streams at once."""
    us = world.us
    us.user.message(f"j@good.{ZONE}", "trusted", "hello")
    world.servers[GOOD].expect_stanza("trusted")
    since = us.gateway.log_size()
    us.gateway.edit(r"trust_ad = true", "trust_ad = false")
    us.gateway.signal(signal.SIGHUP)
    us.gateway.wait_log(rf"s2s\.refused .*peer=good\.{ZONE} .*what proves this domain has changed",
                        since=since)
    us.user.message(f"j@good.{ZONE}", "untrusted", "hello")
    condition, _, text = us.bounce("untrusted", BOUND)
    assert "self-signed" in text, text
    us.user.message(f"j@plain.{UNSIGNED}", "still", "hello")
    world.servers[PLAIN].expect_stanza("still")
