"""Certificates, their keys and dialback secrets are replaced while two gateways talk: every stanza
arrives, once, in order."""
import signal
import ssl

from certified import client_context, dial_tls
from conftest import Inside
from labnet import S2S, Net, Site
from peers import VERIFY, RemoteServer, dial, dialback_key
from pki import Identity, Pki
from talk import talk

RATE, ROUNDS = 150, 12


def reload(gateway):
    since = gateway.log_size()
    gateway.signal(signal.SIGHUP)
    gateway.wait_log(r"\bconfig\.(re)?loaded\b", since)
    assert "config.rejected" not in gateway.log(since), gateway.log_tail()


def two_sites(lab, **settings):
    lab.dns({"alpha.lab": [(Net.ALPHA, S2S, 10)], "beta.lab": [(Net.BETA, S2S, 10)]})
    sites = []
    for domain, host, link, user in (("alpha.lab", Net.ALPHA, Net.ALPHA_LINK, "romeo"),
                                     ("beta.lab", Net.BETA, Net.BETA_LINK, "juliet")):
        sites.append(Site(lab, domain, host, link, user, **settings))
    return sites


# ---- certificates --------------------------------------------------------------------------------

class Rollover:
    """The keys of both sites, each of which the other has pinned; new ones come and go as an
    operator would do it: first the new pin, then the new key, then away with the old pin."""

    def __init__(self, lab, pki):
        self.lab, self.pki, self.number = lab, pki, {}
        for domain in ("alpha.lab", "beta.lab"):
            self.number[domain] = 0
            self.install(domain)

    def identity(self, domain, number=None):
        number = self.number[domain] if number is None else number
        return self.pki.signed(f"{domain}-{number}", domain)

    def install(self, domain):
        """Into the files that the configuration names, the key first."""
        for new, old in zip((self.identity(domain).key, self.identity(domain).cert),
                            self.lab.certificate(domain)[::-1]):
            made = old.with_suffix(".new")
            made.write_bytes(new.read_bytes())
            made.chmod(0o600)
            made.replace(old)

    def pins(self, gateway, *hashes):
        gateway.edit(r'pins = \[[^\]]*\]', "pins = [" + ", ".join(f'"{h}"' for h in hashes) + "]")
        reload(gateway)

    def turn(self, site, other, see):
        """The site gets a new key."""
        old = self.identity(site.domain).key_hash()
        self.number[site.domain] += 1
        new = self.identity(site.domain).key_hash()
        self.pins(other.gateway, old, new)
        see()
        self.install(site.domain)
        reload(site.gateway)
        see()
        self.pins(other.gateway, new)
        see()


def test_keys_under_traffic(fresh_lab, record_property):
    """No secret is shared and dialback is not allowed: the pinned keys alone carry the traffic."""
    lab = fresh_lab
    rollover = Rollover(lab, Pki(lab.dir / "pki" / "rollover"))
    alpha, beta = sites = two_sites(
        lab, mode="tls-required", auth=["external"], ca=rollover.pki.root().cert,
        peers=[{"domain": "*", "policy": "allow", "pins": ["00" * 32]}])
    for site, other in ((alpha, beta), (beta, alpha)):
        rollover.pins(site.gateway, rollover.identity(other.domain).key_hash())
    talkers = talk(alpha, beta, RATE)
    try:
        for i in range(ROUNDS):
            rollover.turn(sites[i % 2], sites[1 - i % 2], talkers[i % 2].see)
    finally:
        for t in talkers:
            t.stop()
    for t in talkers:
        record_property(t.name, t.nothing_lost())
    for site in sites:
        log = site.gateway.log()
        # Each turn of a key ended the streams that knew the old one, in both directions.
        assert log.count("to=CONNECTED mech=external") > ROUNDS
        assert "mech=dialback" not in log
        assert shows(site) == rollover.identity(site.domain).key_hash()


def shows(site):
    """The hash of the key that a new stream is shown."""
    context = client_context()
    s = dial_tls(site.address, None, site.domain, context)
    der = s.sock.getpeercert(binary_form=True)
    s.close()
    path = site.lab.dir / "pki" / f"{site.domain}-shown.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    return Identity(path, None).key_hash()


# ---- dialback secrets ----------------------------------------------------------------------------

class Secrets:
    """One site's: the present one and those before it, in files of their own."""

    def __init__(self, lab, site):
        self.lab, self.site, self.files = lab, site, [lab.secret(f"{site.domain}-dialback")]

    def turn(self, keep=1, mode=None):
        """A new secret, with so many of the old ones still accepted; the same edit may change the
        security mode."""
        self.files.append(self.lab.secret(f"{self.site.domain}-dialback-{len(self.files)}"))
        previous = ", ".join(f'"{f}"' for f in self.files[-1 - keep:-1])
        gateway = self.site.gateway
        gateway.edit(r"^dialback = .*", f'dialback = {{ secret_file = "{self.files[-1]}"; '
                     f'previous_secret_files = [{previous}]; timeout = "5s"; }};')
        if mode:
            gateway.edit(r'^security_mode\s*=\s*"[^"]*"', f'security_mode = "{mode}"')
        reload(gateway)

    def text(self, back=0):
        return self.files[-1 - back].read_text().strip()


# Each second step ends all streams of both sides, so that new keys are made and asked for.
MODES = ["no-tls", "tls-optional", "tls-required", "tls-optional"]


def test_secrets_under_traffic(fresh_lab, record_property):
    alpha, beta = sites = two_sites(fresh_lab, mode="tls-optional", auth=["dialback"],
                                    peers=[{"domain": "*", "policy": "allow"}])
    secrets = [Secrets(fresh_lab, s) for s in sites]
    talkers = talk(alpha, beta, RATE)
    try:
        for i in range(2 * ROUNDS):
            side = i // len(MODES) % 2
            secrets[1 - side].turn()
            secrets[side].turn(mode=MODES[i % len(MODES)])
            talkers[side].see()
    finally:
        for t in talkers:
            t.stop()
    for t in talkers:
        record_property(t.name, t.nothing_lost())
    for site in sites:
        assert site.gateway.log().count("dialback.verify.answered") >= ROUNDS
        assert "type=invalid" not in site.gateway.log()


def test_a_key_on_its_way(fresh_lab):
    """A key made with a secret is asked for after that has been replaced."""
    lab = fresh_lab
    lab.dns({"alpha.lab": [(Net.ALPHA, S2S, 10)], "raw.lab": [(41, S2S, 10)]})
    raw = lab.at_end(RemoteServer(lab.ip(41), "raw.lab", result=None))
    us = Inside(lab, mode="tls-optional", peers=[{"domain": "raw.lab", "policy": "allow"}])
    secrets = Secrets(lab, us)
    us.user.message("j@raw.lab", "waits", "hello")
    raw.wait(lambda: raw.keys, what="our key")
    ident, key = raw.keys[0]
    assert key == dialback_key(secrets.text(), "raw.lab", "alpha.lab", ident)
    s = dial(us.address, "raw.lab", "alpha.lab")

    def asked():
        s.ask_verify("raw.lab", "alpha.lab", ident, key)
        return s.expect(VERIFY).get("type")

    for keep, answer in ((1, "valid"), (2, "valid"), (1, "invalid"), (0, "invalid")):
        secrets.turn(keep)
        assert asked() == answer
        fresh = dialback_key(secrets.text(), "raw.lab", "alpha.lab", "other")
        s.ask_verify("raw.lab", "alpha.lab", "other", fresh)
        assert s.expect(VERIFY).get("type") == "valid"
    stream = raw.streams[0][1]
    stream.send("<db:result from='raw.lab' to='alpha.lab' type='valid'/>")
    raw.expect_stanza("waits")
    s.close()
